package main

import (
	"fmt"
	"strings"
)

// reduce leaves the sum or maximum over all lanes in every lane of each Yk, k in regs, with Yk+2 as
// scratch; the registers advance together because one chain alone waits on latency.
func (g *generator) reduce(op string, regs ...int) {
	for _, step := range []string{"VPERM2F128 $1, Y%d, Y%[1]d, Y%[2]d", "", "VPERMILPS $0x4E, Y%d, Y%[2]d", "", "VPERMILPS $0xB1, Y%d, Y%[2]d", ""} {
		for _, r := range regs {
			if step == "" {
				g.op("V%sPS Y%d, Y%d, Y%[2]d", op, r, r+2)
			} else {
				g.op(step, r, r+2)
			}
		}
	}
}

// exp replaces Yv by its exponential: 2^n times a degree-6 polynomial on |x| <= ln2/2 (Cephes expf
// coefficients, simplified to Taylor's; relative error 2e-7), for -87 <= x <= 0. Uses Yt..Yt+2.
func (g *generator) exp(v, t int) {
	g.op("VMAXPS %s, Y%d, Y%[2]d", g.vec("expMin", -87), v)
	g.op("VMULPS %s, Y%d, Y%d\nVROUNDPS $0, Y%[3]d, Y%[3]d", g.vec("log2e", 1.4426950408889634), v, t)
	g.op("VFNMADD231PS %s, Y%d, Y%d", g.vec("ln2hi", 0.693359375), t, v)
	g.op("VFNMADD231PS %s, Y%d, Y%d", g.vec("ln2lo", -2.12194440e-4), t, v)
	g.op("VMOVUPS %s, Y%d", g.vec("sixth", 1./720), t+1)
	for i, c := range []float32{1. / 120, 1. / 24, 1. / 6, 0.5} {
		g.op("VFMADD213PS %s, Y%d, Y%d", g.vec(fmt.Sprintf("poly%d", i), c), v, t+1)
	}
	g.op("VMULPS Y%d, Y%[1]d, Y%d\nVADDPS %s, Y%[1]d, Y%[1]d\nVFMADD231PS Y%[4]d, Y%[2]d, Y%[1]d", v, t+2, g.vec("one", 1), t+1)
	g.op("VCVTPS2DQ Y%d, Y%[1]d\nVPSLLD $23, Y%[1]d, Y%[1]d\nVPADDD Y%[1]d, Y%d, Y%[2]d", t, v)
}

// headKernels writes the 1x1x1 convolution to 32 logits, softmax with a 33rd logit fixed at 0, and
// its gradients, for one row of n voxels.
func (g *generator) headKernels() {
	g.kernel("softmax", "softmaxArgs", "p[i][k] = exp(l[k]) / (1 + sum exp(l)), l = bias + sum over blocks and ic of x[block][i][ic] * w[block][ic];\n"+
		"background[i] = 1 / (1 + sum exp(l)); sums[k] += sum over i of p[i][k]. Reads one voxel more when n is odd.")
	g.load("x SI", "w R12", "bias R8", "p R9", "background BX", "sums R10", "blocks R14", "n CX")
	g.stride("block R13")
	g.op("loop:")
	for b := range 4 {
		g.op("VMOVUPS %d(R8), Y%d\nVMOVAPS Y%[2]d, Y%d", 32*b, b, 4+b)
	}
	g.op("MOVQ SI, DX\nMOVQ R12, DI\nMOVQ R14, R15")
	g.op("block:")
	for ic := range 8 {
		g.op("VBROADCASTSS %d(DX), Y8\nVBROADCASTSS %d(DX), Y9", 4*ic, 32+4*ic)
		for b := range 4 {
			g.op("VMOVUPS %d(DI), Y%d\nVFMADD231PS Y%[2]d, Y8, Y%d\nVFMADD231PS Y%[2]d, Y9, Y%[4]d", 128*ic+32*b, 10+b%2, b, 4+b)
		}
	}
	g.op("ADDQ R13, DX\nADDQ $1024, DI\nDECQ R15\nJNZ block")
	tree := func(op string) { // Y8, Y9: over the four registers of each voxel, then over lanes
		for v := range 2 {
			g.op("V%sPS Y%d, Y%d, Y%d\nV%[1]sPS Y%[5]d, Y%d, Y%d\nV%[1]sPS Y%[4]d, Y%[7]d, Y%[4]d", op, 4*v, 4*v+1, 8+v, 4*v+2, 4*v+3, 10+v)
		}
		g.reduce(op, 8, 9)
	}
	tree("MAX")
	g.op("VXORPS Y10, Y10, Y10\nVMAXPS Y10, Y8, Y8\nVMAXPS Y10, Y9, Y9")
	for b := range 8 {
		g.op("VSUBPS Y%d, Y%d, Y%[2]d", 8+b/4, b)
	}
	g.op("VBLENDPS $0xF0, Y9, Y8, Y8\nVSUBPS Y8, Y10, Y15") // background: minus the maximum, one voxel each half
	for b := range 8 {
		g.exp(b, 9+3*(b%2))
	}
	g.exp(15, 9)
	tree("ADD")
	g.op("VPERM2F128 $0x00, Y15, Y15, Y10\nVPERM2F128 $0x11, Y15, Y15, Y11")
	for v := range 2 {
		g.op("VADDPS Y%d, Y%d, Y%[2]d\nVMOVUPS %s, Y12\nVDIVPS Y%[2]d, Y12, Y%[2]d", 10+v, 8+v, g.vec("one", 1))
		g.op("VMULSS X%d, X%d, X%[2]d\nVMOVSS X%[2]d, %d(BX)", 8+v, 10+v, 0)
		for b := range 4 {
			g.op("VMULPS Y%d, Y%d, Y%[2]d\nVMOVUPS Y%[2]d, %d(R9)", 8+v, 4*v+b, 32*b)
			g.op("VADDPS %d(R10), Y%d, Y%[2]d\nVMOVUPS Y%[2]d, %[1]d(R10)", 32*b, 4*v+b)
		}
		g.op("ADDQ $4, BX\nADDQ $128, R9\nDECQ CX")
		if v == 0 {
			g.op("JZ done")
		}
	}
	g.op("JZ done\nADDQ $64, SI\nJMP loop\ndone:")
	g.ret()

	g.kernel("lossGrad", "lossGradArgs", "p becomes the gradient of the loss in the logits: with y the label and p0 the background,\n"+
		"dot = sum c*p - e[y]*p[y] - w[y], p[k] = p[k]*(c[k]-dot) - (k == y)*(e[y]*p[y] + w[y]).")
	g.load("p SI", "labels DI", "c R8", "e R9", "w R10", "background BX", "n CX")
	for b := range 4 {
		g.op("VMOVUPS %d(R8), Y%d", 4+32*b, 12+b)
	}
	g.op("VMOVSS (R8), X11")
	g.op("loop:\nMOVBLZX (DI), AX\nVMOVSS (BX), X10\nVMOVAPS X10, X8\nTESTL AX, AX\nJZ dot\nVMOVSS -4(SI)(AX*4), X8")
	g.op("dot:\nVMULSS (R9)(AX*4), X8, X8\nVADDSS (R10)(AX*4), X8, X8") // e*p + w
	for b := range 4 {
		g.op("VMOVUPS %d(SI), Y%d", 32*b, b)
	}
	g.op("VMULPS Y0, Y12, Y4")
	for b := 1; b < 4; b++ {
		g.op("VFMADD231PS Y%d, Y%d, Y4", b, 12+b)
	}
	g.reduce("ADD", 4)
	g.op("VFMADD231SS X11, X10, X4\nVSUBSS X4, X8, X5\nVBROADCASTSS X5, Y5")
	for b := range 4 {
		g.op("VADDPS Y5, Y%d, Y6\nVMULPS Y6, Y%d, Y%[2]d\nVMOVUPS Y%[2]d, %d(SI)", 12+b, b, 32*b)
	}
	g.op("TESTL AX, AX\nJZ next\nVMOVSS -4(SI)(AX*4), X9\nVSUBSS X8, X9, X9\nVMOVSS X9, -4(SI)(AX*4)")
	g.op("next:\nADDQ $128, SI\nADDQ $4, BX\nINCQ DI\nDECQ CX\nJNZ loop")
	g.ret()

	g.kernel("headGradIn", "headGradArgs", "out[i][ic] = sum over k < 32 of dl[i][k] * w[k][ic].")
	g.load("dl SI", "w DI", "out R9", "n CX")
	body := func(voxels int) {
		for j := range 2 * voxels {
			g.op("VXORPS Y%d, Y%[1]d, Y%[1]d", j)
		}
		for k := range 32 { // two sums per voxel hide the latency of a chain of 32
			g.op("VMOVUPS %d(DI), Y12", 32*k)
			for v := range voxels {
				g.op("VBROADCASTSS %d(SI), Y%d\nVFMADD231PS Y12, Y%[2]d, Y%[3]d", 128*v+4*k, 13+v%3, v+voxels*(k%2))
			}
		}
		for v := range voxels {
			g.op("VADDPS Y%d, Y%d, Y%[1]d\nVMOVUPS Y%[1]d, %[3]d(R9)", v, v+voxels, 32*v)
		}
		g.op("ADDQ $%d, SI\nADDQ $%d, R9\nSUBQ $%d, CX", 128*voxels, 32*voxels, voxels)
	}
	g.op("CMPQ CX, $4\nJLT rest")
	g.op("four:")
	body(4)
	g.op("CMPQ CX, $4\nJGE four")
	g.op("rest:\nTESTQ CX, CX\nJZ done\none:")
	body(1)
	g.op("JNZ one\ndone:")
	g.ret()

	g.kernel("headGradWeights", "headGradArgs", "out[ic][k] += sum over i of x[i][ic] * dl[i][k] for ic < 2.")
	g.load("dl SI", "x DI", "out R8", "n CX")
	g.accumulate(8, func() {
		for b := range 4 {
			g.op("VMOVUPS %d(SI), Y%d", 32*b, 8+b)
		}
		for ic := range 2 {
			g.op("VBROADCASTSS %d(DI), Y%d", 4*ic, 12+ic)
			for b := range 4 {
				g.op("VFMADD231PS Y%d, Y%d, Y%d", 8+b, 12+ic, 4*ic+b)
			}
		}
		g.op("ADDQ $32, DI")
	})

	g.kernel("headGradBias", "headGradArgs", "out[k] += sum over i of dl[i][k].")
	g.load("dl SI", "out R8", "n CX")
	g.accumulate(4, func() {
		for b := range 4 {
			g.op("VADDPS %d(SI), Y%d, Y%[2]d", 32*b, b)
		}
	})
}

// accumulate keeps n vectors of (R8) in registers over a loop of CX steps of 32 floats of SI.
func (g *generator) accumulate(n int, body func()) {
	for j := range n {
		g.op("VMOVUPS %d(R8), Y%d", 32*j, j)
	}
	g.op("loop:")
	body()
	g.op("ADDQ $128, SI\nDECQ CX\nJNZ loop")
	for j := range n {
		g.op("VMOVUPS Y%d, %d(R8)", j, 32*j)
	}
	g.ret()
}

// vectorKernels writes the loops over plain vectors; n is a multiple of 8.
func (g *generator) vectorKernels() {
	g.kernel("adam", "adamArgs", "g *= scale; m = beta1*m + rest1*g; v = beta2*v + rest2*g*g; p = keep*p - step*m/(sqrt(v)+eps).")
	g.load("p SI", "g DI", "m R8", "v R9", "n CX")
	for i, f := range strings.Fields("keep beta1 rest1 beta2 rest2 step eps scale") {
		g.broadcast(f, 8+i)
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

	g.kernel("peak", "peakArgs", "12 independent multiply-adds, n times.")
	g.load("n CX")
	for j := range 14 {
		g.op("VXORPS Y%d, Y%[1]d, Y%[1]d", j)
	}
	g.op("loop:")
	for j := range 12 {
		g.op("VFMADD231PS Y12, Y13, Y%d", j)
	}
	g.op("DECQ CX\nJNZ loop")
	g.ret()
}
