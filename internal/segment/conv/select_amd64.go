//go:build !noasm

package conv

import "golang.org/x/sys/cpu"

// available lists the sets of kernels that the processor and the operating system can run, the
// fastest first.
func available() []*kernelSet {
	k := []*kernelSet{&genericKernels}
	if cpu.X86.HasAVX2 && cpu.X86.HasFMA {
		k = append([]*kernelSet{&avx2Kernels}, k...)
		if cpu.X86.HasAVX512F && cpu.X86.HasAVX512DQ && cpu.X86.HasAVX512VL {
			k = append([]*kernelSet{&avx512Kernels}, k...)
		}
	}
	return k
}
