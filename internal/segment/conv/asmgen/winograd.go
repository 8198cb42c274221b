package main

// winogradKernels writes Winograd F(2,3) along y times F(4,3) along x (Lavin and Gray 2016,
// arXiv:1509.09308), direct along z: 24 positions stand for 2x4 outputs, 72 products instead of
// 216. The points are 0, 1, -1 for y and 0, 1, -1, 2, -2 for x.
func (g *generator) winogradKernels() {
	four, five := g.vec("four", 4), g.vec("five", 5)
	store := func(y int) { g.op("VMOVUPS Y%d, (R12)\nADDQ R10, R12", y) }

	g.kernel("winoIn", "tileArgs", "out[4 py + .. px] = B2' d B4 of n tiles of 4x6 voxels, 4 apart in x;\n"+
		"B2': d0-d2, d1+d2, d2-d1, d1-d3; B4: 4d0-5d2+d4, -4d1-4d2+d3+d4, 4d1-4d2-d3+d4, -2d1-d2+2d3+d4, 2d1-d2-2d3+d4, 4d1-5d3+d5.")
	g.load("in SI", "out DI", "n CX")
	g.stride("row DX", "pos R10")
	g.op("VMOVUPS %s, Y14\nVMOVUPS %s, Y15", four, five)
	g.op("LEAQ (SI)(DX*1), R8\nLEAQ (SI)(DX*2), R9\nLEAQ (R8)(DX*2), R11")
	rows := []string{"SI", "R8", "R9", "R11"}
	g.op("loop:\nMOVQ DI, R12")
	for _, c := range []struct {
		a, b int
		op   string
	}{{0, 2, "SUB"}, {1, 2, "ADD"}, {2, 1, "SUB"}, {1, 3, "SUB"}} {
		for j := range 6 {
			g.op("VMOVUPS %d(%s), Y%d\nV%sPS %[1]d(%[5]s), Y%[3]d, Y%[3]d", 32*j, rows[c.a], j, c.op, rows[c.b])
		}
		g.op("VMOVAPS Y4, Y6\nVFNMADD231PS Y15, Y2, Y6\nVFMADD231PS Y14, Y0, Y6") // 4d0-5d2+d4
		store(6)
		g.op("VMOVAPS Y4, Y7\nVFNMADD231PS Y14, Y2, Y7") // d4-4d2
		g.op("VMOVAPS Y3, Y8\nVFNMADD231PS Y14, Y1, Y8") // d3-4d1
		g.op("VADDPS Y8, Y7, Y9")
		store(9)
		g.op("VSUBPS Y8, Y7, Y10")
		store(10)
		g.op("VSUBPS Y2, Y4, Y7")                    // d4-d2
		g.op("VSUBPS Y1, Y3, Y8\nVADDPS Y8, Y8, Y8") // 2(d3-d1)
		g.op("VADDPS Y8, Y7, Y9")
		store(9)
		g.op("VSUBPS Y8, Y7, Y10")
		store(10)
		g.op("VFNMADD231PS Y15, Y3, Y5\nVFMADD231PS Y14, Y1, Y5") // 4d1-5d3+d5
		store(5)
	}
	for _, r := range rows {
		g.op("ADDQ $128, %s", r)
	}
	g.op("ADDQ $32, DI\nDECQ CX\nJNZ loop")
	g.ret()

	g.kernel("winoMul", "mulArgs", "m[pos][j] = sum over kd < 3, blocks and ic of v<kd>[block][pos][j][ic] * w[pos][kd][block][ic] for n <= 12 tiles j, 24 positions.")
	g.load("v0 R8", "v1 R9", "v2 R13", "w DI", "m R11", "blocks R14", "n BX")
	g.stride("block R10", "pos R12", "mPos R15")
	g.choose("BX", "n", 1, 12)
	for n := 1; n <= 12; n++ {
		g.op("n%d:\nMOVQ $24, AX", n)
		g.op("pos%d:", n)
		for j := range n {
			g.op("VXORPS Y%d, Y%[1]d, Y%[1]d", j)
		}
		for kd, v := range []string{"R8", "R9", "R13"} {
			g.op("MOVQ %s, DX\nMOVQ R14, CX", v)
			g.op("kd%dn%d:", kd, n)
			for ic := range 8 {
				g.op("VMOVUPS %d(DI), Y14", 32*ic)
				for j := range n {
					g.op("VBROADCASTSS %d(DX), Y%d\nVFMADD231PS Y14, Y%[2]d, Y%[3]d", 32*j+4*ic, 12+j%2, j)
				}
			}
			g.op("ADDQ $256, DI\nADDQ R10, DX\nDECQ CX\nJNZ kd%dn%d", kd, n)
			g.op("ADDQ R12, %s", v)
		}
		for j := range n {
			g.op("VMOVUPS Y%d, %d(R11)", j, 32*j)
		}
		g.op("ADDQ R15, R11\nDECQ AX\nJNZ pos%d", n)
		g.ret()
	}

	g.kernel("winoOut", "winoOutArgs", "out = leaky(init + A2' m A4) of n tiles of 2x4 voxels;\n"+
		"A2': m0+m1+m2, m1-m2-m3; A4: m0+m1+m2+m3+m4, m1-m2+2m3-2m4, m1+m2+4m3+4m4, m1-m2+8m3-8m4+m5.")
	eight := g.vec("eight", 8)
	g.load("m SI", "init R8", "out DI", "n CX")
	g.stride("mPos R13", "initStep R9", "initRow R10", "outRow R11")
	g.op("LEAQ (R13)(R13*2), DX\nADDQ DX, DX\nLEAQ (DX)(DX*2), R14") // 6 and 18 positions
	g.op("loop:\nMOVQ SI, BX")
	for k := range 6 {
		g.op("VMOVUPS (BX)(DX*1), Y12\nVMOVUPS (BX)(DX*2), Y13")
		g.op("VADDPS Y13, Y12, Y%d\nVADDPS (BX), Y%[1]d, Y%[1]d", k)
		g.op("VSUBPS Y13, Y12, Y%d\nVSUBPS (BX)(R14*1), Y%[1]d, Y%[1]d", 6+k)
		if k < 5 {
			g.op("ADDQ R13, BX")
		}
	}
	for r := range 2 {
		b := 6 * r
		g.op("VADDPS Y%d, Y%d, Y12\nVSUBPS Y%[1]d, Y%[2]d, Y13", b+2, b+1) // m1+m2, m1-m2
		g.op("VADDPS Y%d, Y%d, Y14\nVSUBPS Y%[1]d, Y%[2]d, Y15", b+4, b+3) // m3+m4, m3-m4
		g.op("VADDPS Y12, Y%d, Y%[1]d\nVADDPS Y14, Y%[1]d, Y%[1]d", b)
		g.op("VADDPS Y15, Y15, Y%d\nVADDPS Y13, Y%[1]d, Y%[1]d", b+1)
		g.op("VMOVUPS %s, Y%d\nVFMADD213PS Y12, Y14, Y%[2]d", four, b+2)
		g.op("VADDPS Y%d, Y13, Y13\nVMOVUPS %s, Y%d\nVFMADD213PS Y13, Y15, Y%[3]d", b+5, eight, b+3)
	}
	g.broadcast("slope", 15)
	for r := range 2 {
		if r == 0 {
			g.op("MOVQ R8, BX\nMOVQ DI, R12")
		} else {
			g.op("LEAQ (R8)(R10*1), BX\nLEAQ (DI)(R11*1), R12")
		}
		for k := range 4 {
			g.op("VADDPS (BX), Y%d, Y%[1]d\nADDQ R9, BX", 6*r+k)
			g.leaky(6*r+k, 15, 14)
			g.op("VMOVUPS Y14, %d(R12)", 32*k)
		}
	}
	g.op("LEAQ (R8)(R9*4), R8\nADDQ $128, DI\nADDQ $32, SI\nDECQ CX\nJNZ loop")
	g.ret()

	g.kernel("winoGradIn", "tileArgs", "out = A2 dz A4' of n tiles of 2x4 voxels: the adjoint of winoOut's transform.")
	g.load("in SI", "out DI", "n CX")
	g.stride("row DX", "pos R10")
	g.op("VMOVUPS %s, Y15", four)
	g.op("loop:\nMOVQ DI, R12")
	for k := range 4 {
		g.op("VMOVUPS %d(SI), Y%d\nVMOVUPS %[1]d(SI)(DX*1), Y%[3]d", 32*k, k, 4+k)
	}
	for h := range 4 { // rows t, t+b, t-b, -b of the upper row t and the lower b
		t := 8
		switch h {
		case 0:
			t = 0
		case 3:
			g.op("VXORPS Y12, Y12, Y12")
		}
		for k := range 4 {
			switch h {
			case 1:
				g.op("VADDPS Y%d, Y%d, Y%d", 4+k, k, 8+k)
			case 2:
				g.op("VSUBPS Y%d, Y%d, Y%d", 4+k, k, 8+k)
			case 3:
				g.op("VSUBPS Y%d, Y12, Y%d", 4+k, 8+k)
			}
		}
		store(t)
		g.op("VADDPS Y%d, Y%d, Y12\nVADDPS Y%d, Y%d, Y13\nVADDPS Y13, Y12, Y14", t, t+2, t+1, t+3)
		store(14) // t0+t1+t2+t3
		g.op("VSUBPS Y13, Y12, Y14")
		store(14)
		g.op("VMOVAPS Y%d, Y12\nVFMADD231PS Y15, Y%d, Y12", t, t+2)                         // t0+4t2
		g.op("VMOVAPS Y%d, Y13\nVFMADD231PS Y15, Y%d, Y13\nVADDPS Y13, Y13, Y13", t+1, t+3) // 2t1+8t3
		g.op("VADDPS Y13, Y12, Y14")
		store(14)
		g.op("VSUBPS Y13, Y12, Y14")
		store(14)
		store(t + 3)
	}
	g.op("ADDQ $128, SI\nADDQ $32, DI\nDECQ CX\nJNZ loop")
	g.ret()

	g.kernel("winoOuter", "outerArgs", "acc[pos][ic][kd] += sum over n tiles j of v[pos][j][ic] * d<kd>[pos][j] for ic < 4, kd < 3, 24 positions.")
	g.load("v SI", "d0 R12", "d1 R13", "d2 R8", "acc DI", "n CX")
	g.stride("pos R10")
	g.op("MOVQ $24, R11")
	g.op("pos:")
	for j := range 12 {
		g.op("VMOVUPS %d(DI), Y%d", 32*j, j)
	}
	g.op("XORQ BX, BX\nMOVQ CX, DX")
	g.op("loop:")
	for kd, r := range []string{"R12", "R13", "R8"} {
		g.op("VMOVUPS (%s)(BX*1), Y%d", r, 12+kd)
	}
	for ic := range 4 {
		g.op("VBROADCASTSS %d(SI)(BX*1), Y15", 4*ic)
		for kd := range 3 {
			g.op("VFMADD231PS Y%d, Y15, Y%d", 12+kd, 3*ic+kd)
		}
	}
	g.op("ADDQ $32, BX\nDECQ DX\nJNZ loop")
	for j := range 12 {
		g.op("VMOVUPS Y%d, %d(DI)", j, 32*j)
	}
	g.op("ADDQ $384, DI\nADDQ R10, SI\nADDQ R10, R12\nADDQ R10, R13\nADDQ R10, R8\nDECQ R11\nJNZ pos")
	g.ret()
}
