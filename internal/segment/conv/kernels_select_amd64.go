//go:build !noasm

package conv

import "golang.org/x/sys/cpu"

var active = &avx2Kernels

var hasAVX2 = cpu.X86.HasAVX2 && cpu.X86.HasFMA
