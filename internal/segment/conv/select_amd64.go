//go:build !noasm

package conv

import "github.com/klauspost/cpuid/v2"

// available lists the sets of kernels that the processor and the operating system can run, the
// fastest first.
func available() []*kernelSet {
	c := &cpuid.CPU
	switch {
	case !c.Supports(cpuid.AVX2, cpuid.FMA3):
		return []*kernelSet{&genericKernels}
	case !c.Supports(cpuid.AVX512F, cpuid.AVX512DQ, cpuid.AVX512VL):
		return []*kernelSet{&avx2Kernels, &genericKernels}
	case c.VendorID == cpuid.AMD && c.Family == 0x19:
		// Zen 4 executes an instruction on 512 bits in two halves, and AVX-512's sums of pairs cost
		// extra: docs/performance.md has both.
		return []*kernelSet{&avx2Kernels, &avx512Kernels, &genericKernels}
	}
	return []*kernelSet{&avx512Kernels, &avx2Kernels, &genericKernels}
}
