package main

import "fmt"

// reduce leaves the sum or maximum over all lanes in every lane of each register, with the one of
// the same place in scratch to help; the registers advance together because one chain alone waits
// on latency.
func (g *generator) reduce(op string, regs, scratch []int) {
	steps := []string{"VPERM2F128 $1, V%d, V%[1]d, V%[2]d"}
	if g.isa == avx512 {
		steps = []string{"VSHUFF32X4 $0x4E, V%d, V%[1]d, V%[2]d", "VSHUFF32X4 $0xB1, V%d, V%[1]d, V%[2]d"}
	}
	for _, step := range append(steps, "VPERMILPS $0x4E, V%d, V%[2]d", "VPERMILPS $0xB1, V%d, V%[2]d") {
		for i, r := range regs {
			g.op(step, r, scratch[i])
		}
		for i, r := range regs {
			g.op("V%sPS V%d, V%d, V%[2]d", op, r, scratch[i])
		}
	}
}

// exp replaces Vv by its exponential: 2^n times a degree-6 polynomial on |x| <= ln2/2 (Taylor's
// coefficients; relative error 2e-7), for x <= 0, from -87 on. Uses Vt to Vt+2.
func (g *generator) exp(v, t int) {
	round := "VROUNDPS $0"
	if g.isa == avx512 {
		round = "VRNDSCALEPS $0"
	}
	g.op("VMAXPS %s, V%d, V%[2]d", g.vec("expMin", -87), v)
	g.op("VMULPS %s, V%d, V%d\n%s, V%[3]d, V%[3]d", g.vec("log2e", 1.4426950408889634), v, t, round)
	g.op("VFNMADD231PS %s, V%d, V%d", g.vec("ln2hi", 0.693359375), t, v) // ln2 in two parts, the first with few bits
	g.op("VFNMADD231PS %s, V%d, V%d", g.vec("ln2lo", -2.12194440e-4), t, v)
	g.op("VMOVUPS %s, V%d", g.vec("poly6", 1./720), t+1)
	for i, c := range []float32{1. / 120, 1. / 24, 1. / 6, 0.5} {
		g.op("VFMADD213PS %s, V%d, V%d", g.vec(fmt.Sprintf("poly%d", 5-i), c), v, t+1)
	}
	g.op("VMULPS V%d, V%[1]d, V%d", v, t+2)
	g.op("VADDPS %s, V%d, V%[2]d", g.vec("one", 1), v)
	g.op("VFMADD231PS V%d, V%d, V%d", t+1, t+2, v)
	g.op("VCVTPS2DQ V%d, V%[1]d\nVPSLLD $23, V%[1]d, V%[1]d\nVPADDD V%[1]d, V%d, V%[2]d", t, v)
}

// headKernels writes the 1x1x1 convolution to 32 logits, softmax with a 33rd logit fixed at 0, and
// its gradients, for one row of n voxels.
func (g *generator) headKernels() {
	vectors := 32 * 4 / g.size // of one voxel's logits
	voxels := 8 / vectors      // in registers at once
	g.kernel("softmax", "softmaxArgs", "p[i][k] = exp(l[k]) / (1 + sum exp(l)), l = bias + sum over blocks and ic of x[block][i][ic] * w[block][ic];\n"+
		fmt.Sprintf("background[i] = 1 / (1 + sum exp(l)); sums[k] += sum over i of p[i][k]. Reads x up to a multiple of %d voxels.", voxels))
	g.load("x SI", "w R12", "bias R8", "p R9", "background BX", "sums R10", "blocks R14", "n CX")
	g.stride("block R13")
	// V0 to V7: logits; then a register per voxel for maximum and sum, as many for scratch, three or
	// six for exp, and the background of all voxels, an equal part of the vector each.
	first := func(v int) int { return v * vectors }
	top, scratch := []int{8, 9}, []int{10, 11}
	exp1, exp2, background, free := 9, 12, 15, 12
	if g.isa == avx512 {
		top, scratch = []int{8, 9, 10, 11}, []int{12, 13, 14, 15}
		exp1, exp2, background, free = 16, 19, 22, 23
	}
	g.op("loop:")
	for j := range vectors {
		g.op("VMOVUPS %d(R8), V%d", g.size*j, j)
		for v := 1; v < voxels; v++ {
			g.op("VMOVAPS V%d, V%d", j, first(v)+j)
		}
	}
	g.op("MOVQ SI, DX\nMOVQ R12, DI\nMOVQ R14, R15")
	g.op("block:")
	for ic := range 8 {
		for v := range voxels {
			g.op("VBROADCASTSS %d(DX), V%d", 32*v+4*ic, top[v])
		}
		for j := range vectors {
			g.op("VMOVUPS %d(DI), V%d", 128*ic+g.size*j, scratch[j%2])
			for v := range voxels {
				g.op("VFMADD231PS V%d, V%d, V%d", scratch[j%2], top[v], first(v)+j)
			}
		}
	}
	g.op("ADDQ R13, DX\nADDQ $1024, DI\nDECQ R15\nJNZ block")
	tree := func(op string) {
		for v := range voxels {
			g.op("V%sPS V%d, V%d, V%d", op, first(v), first(v)+1, top[v])
			if vectors == 4 {
				g.op("V%sPS V%d, V%d, V%d", op, first(v)+2, first(v)+3, scratch[v])
				g.op("V%sPS V%d, V%d, V%[3]d", op, scratch[v], top[v])
			}
		}
		g.reduce(op, top, scratch)
	}
	tree("MAX")
	zero := scratch[0]
	g.op("VXORPS X%d, X%[1]d, X%[1]d", zero)
	for v := range voxels {
		g.op("VMAXPS V%d, V%d, V%[2]d", zero, top[v])
		for j := range vectors {
			g.op("VSUBPS V%d, V%d, V%[2]d", top[v], first(v)+j)
		}
	}
	if g.isa == avx2 {
		g.op("VBLENDPS $0xF0, V9, V8, V8")
	} else {
		for v := 1; v < voxels; v++ {
			g.op("VINSERTF32X4 $%d, X%d, Z8, Z8", v, top[v])
		}
	}
	g.op("VSUBPS V8, V%d, V%d", zero, background)
	for j := range 8 {
		g.exp(j, []int{exp1, exp2}[j%2])
	}
	g.exp(background, exp1)
	tree("ADD")
	for v := range voxels {
		s, bg := top[v], scratch[v]
		if g.isa == avx2 {
			g.op("VPERM2F128 $%d, V15, V15, V%d", 0x11*v, bg)
		} else {
			g.op("VSHUFF32X4 $%d, V%d, V%[2]d, V%d", 0x55*v, background, bg)
		}
		g.op("VADDPS V%d, V%d, V%[2]d\nVMOVUPS %s, V%d\nVDIVPS V%[2]d, V%[4]d, V%[2]d", bg, s, g.vec("one", 1), free)
		g.op("VMULSS X%d, X%d, X%[2]d\nVMOVSS X%[2]d, (BX)", s, bg)
		for j := range vectors {
			g.op("VMULPS V%d, V%d, V%[2]d\nVMOVUPS V%[2]d, %d(R9)", s, first(v)+j, g.size*j)
			g.op("VADDPS %d(R10), V%d, V%[2]d\nVMOVUPS V%[2]d, %[1]d(R10)", g.size*j, first(v)+j)
		}
		g.op("ADDQ $4, BX\nADDQ $128, R9\nDECQ CX\nJZ done")
	}
	g.op("ADDQ $%d, SI\nJMP loop\ndone:", 32*voxels)
	g.ret()

	g.kernel("lossGrad", "lossGradArgs", "p becomes the gradient of the loss in the logits: with y the label and p0 the background,\n"+
		"dot = sum c*p - e[y]*p[y] - w[y], p[k] = p[k]*(c[k]-dot) - (k == y)*(e[y]*p[y] + w[y]).")
	g.load("p SI", "labels DI", "c R8", "e R9", "w R10", "background BX", "n CX")
	for j := range vectors {
		g.op("VMOVUPS %d(R8), V%d", 4+g.size*j, 12+j)
	}
	g.op("VMOVSS (R8), X11")
	g.op("loop:\nMOVBLZX (DI), AX\nVMOVSS (BX), X10\nVMOVAPS X10, X8\nTESTL AX, AX\nJZ dot\nVMOVSS -4(SI)(AX*4), X8")
	g.op("dot:\nVMULSS (R9)(AX*4), X8, X8\nVADDSS (R10)(AX*4), X8, X8") // e*p + w
	for j := range vectors {
		g.op("VMOVUPS %d(SI), V%d", g.size*j, j)
	}
	g.op("VMULPS V0, V12, V4")
	for j := 1; j < vectors; j++ {
		g.op("VFMADD231PS V%d, V%d, V4", j, 12+j)
	}
	g.reduce("ADD", []int{4}, []int{6})
	g.op("VFMADD231SS X11, X10, X4\nVSUBSS X4, X8, X5\nVBROADCASTSS X5, V5")
	for j := range vectors {
		g.op("VADDPS V5, V%d, V6\nVMULPS V6, V%d, V%[2]d\nVMOVUPS V%[2]d, %d(SI)", 12+j, j, g.size*j)
	}
	g.op("TESTL AX, AX\nJZ next\nVMOVSS -4(SI)(AX*4), X9\nVSUBSS X8, X9, X9\nVMOVSS X9, -4(SI)(AX*4)")
	g.op("next:\nADDQ $128, SI\nADDQ $4, BX\nINCQ DI\nDECQ CX\nJNZ loop")
	g.ret()

	g.kernel("headGradWeights", "headGradArgs", "out[ic][k] += sum over i of x[i][ic] * dl[i][k] for ic < 8.")
	g.load("dl R9", "x R10", "out R8", "n R11")
	rows := 8 / vectors // channels at once
	g.op("MOVQ $%d, R12\ngroup:\nMOVQ R9, SI\nMOVQ R10, DI\nMOVQ R11, CX", 8/rows)
	g.accumulate(8, func() {
		for j := range vectors {
			g.op("VMOVUPS %d(SI), V%d", g.size*j, 8+j)
		}
		for ic := range rows {
			g.op("VBROADCASTSS %d(DI), V%d", 4*ic, 12+ic)
			for j := range vectors {
				g.op("VFMADD231PS V%d, V%d, V%d", 8+j, 12+ic, vectors*ic+j)
			}
		}
		g.op("ADDQ $32, DI")
	})
	g.op("ADDQ $%d, R10\nADDQ $%d, R8\nDECQ R12\nJNZ group", 4*rows, 128*rows)
	g.ret()

	if g.isa == avx512 {
		return
	}
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

	g.kernel("headGradBias", "headGradArgs", "out[k] += sum over i of dl[i][k].")
	g.load("dl SI", "out R8", "n CX")
	g.accumulate(4, func() {
		for b := range 4 {
			g.op("VADDPS %d(SI), Y%d, Y%[2]d", 32*b, b)
		}
	})
	g.ret()
}

// accumulate keeps n vectors of (R8) in registers over a loop of CX steps of 32 floats of SI.
func (g *generator) accumulate(n int, body func()) {
	g.loadAll(n, "R8")
	g.op("loop:")
	body()
	g.op("ADDQ $128, SI\nDECQ CX\nJNZ loop")
	g.storeAll(n, "R8")
}
