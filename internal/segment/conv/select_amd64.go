//go:build !noasm

package conv

import "github.com/klauspost/cpuid/v2"

// available lists the sets of kernels that the processor and the operating system can run, the
// fastest first.
func available() []*kernelSet {
	c := &cpuid.CPU
	k := []*kernelSet{&genericKernels}
	if !c.Supports(cpuid.AVX2, cpuid.FMA3) {
		return k
	}
	k = append([]*kernelSet{&avx2Kernels}, k...)
	if !c.Supports(cpuid.AVX512F, cpuid.AVX512DQ, cpuid.AVX512VL) {
		return k
	}
	// Zen 4 executes an instruction on 512 bits in two halves, and sums of pairs cost extra.
	if c.VendorID == cpuid.AMD && c.Family == 0x19 {
		return append(k[:1], &avx512Kernels, &genericKernels)
	}
	return append([]*kernelSet{&avx512Kernels}, k...)
}
