//go:build !noasm

package conv

import "golang.org/x/sys/cpu"

// fastest returns the assembly where the processor and the operating system can run it, else nil.
func fastest() *kernelSet {
	if cpu.X86.HasAVX2 && cpu.X86.HasFMA {
		return &avx2Kernels
	}
	return nil
}
