package main

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

// headKernels writes the gradients of the head, for one row of n voxels.
func (g *generator) headKernels() {
	vectors := 32 * 4 / g.size // of one voxel's logits
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
