package main

import "strings"

// vectorKernels writes the loops over plain vectors; n is a multiple of 8.
func (g *generator) vectorKernels() {
	g.kernel("adam", "adamArgs", "g *= scale; m = beta1*m + rest1*g; v = beta2*v + rest2*g*g; p = keep*p - step*m/(sqrt(v)+eps).")
	g.load("p SI", "g DI", "m R8", "v R9", "n CX")
	for i, f := range strings.Fields("keep beta1 rest1 beta2 rest2 step eps scale") {
		g.scalar(f, 8+i)
	}
	g.op(`
		loop:
		VMULPS (DI), Y15, Y0
		VMULPS (R8), Y9, Y1
		VFMADD231PS Y0, Y10, Y1
		VMOVUPS Y1, (R8)
		VMULPS Y0, Y0, Y0
		VMULPS (R9), Y11, Y2
		VFMADD231PS Y0, Y12, Y2
		VMOVUPS Y2, (R9)
		VSQRTPS Y2, Y2
		VADDPS Y14, Y2, Y2
		VMULPS Y13, Y1, Y1
		VDIVPS Y2, Y1, Y1
		VMULPS (SI), Y8, Y3
		VSUBPS Y1, Y3, Y3
		VMOVUPS Y3, (SI)
		ADDQ $32, SI
		ADDQ $32, DI
		ADDQ $32, R8
		ADDQ $32, R9
		SUBQ $8, CX
		JNZ loop`)
	g.ret()

	g.kernel("add", "addArgs", "dst += src.")
	g.load("dst DI", "src SI", "n CX")
	g.op("loop:\nVMOVUPS (DI), Y0\nVADDPS (SI), Y0, Y0\nVMOVUPS Y0, (DI)\nADDQ $32, SI\nADDQ $32, DI\nSUBQ $8, CX\nJNZ loop")
	g.ret()

	g.kernel("leaky", "leakyArgs", "dst[j][i] = leaky(src[i][j]) for j in 0 to 3 blocks of 8 channels.")
	g.load("src SI", "dst DI", "n CX")
	g.stride("block R8")
	g.op("LEAQ (R8)(R8*2), R9")
	g.scalar("slope", 8)
	g.op("loop:")
	for j, to := range []string{"(DI)", "(DI)(R8*1)", "(DI)(R8*2)", "(DI)(R9*1)"} {
		g.op("VMOVUPS %d(SI), Y%d", 32*j, j)
		g.leaky(j, 8, 4+j)
		g.op("VMOVUPS Y%d, %s", 4+j, to)
	}
	g.op("ADDQ $128, SI\nADDQ $32, DI\nDECQ CX\nJNZ loop")
	g.ret()
}

// peakKernel writes the loop of multiply-adds that wait for nothing: 12 vectors
// cover the latency of both units.
func (g *generator) peakKernel() {
	g.kernel("peak", "peakArgs", "192 multiply-adds, n times.")
	g.load("n CX")
	for j := range 14 {
		g.op("VXORPS V%d, V%[1]d, V%[1]d", j)
	}
	g.op("loop:")
	for j := range 192 * 4 / g.size {
		g.op("VFMADD231PS V12, V13, V%d", j%12)
	}
	g.op("DECQ CX\nJNZ loop")
	g.ret()
}
