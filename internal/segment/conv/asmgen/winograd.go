package main

import "fmt"

// Winograd F(2,3) along y times F(4,3) along x (Lavin and Gray 2016, arXiv:1509.09308), direct along
// z: 24 positions stand for 2x4 outputs, 72 products instead of 216. The points are 0, 1, -1 for y
// and 0, 1, -1, 2, -2 for x.

// winogradKernels writes the products in the transformed space.
func (g *generator) winogradKernels() {
	// Two slices of outputs at once: an input serves up to three of them, a weight twice as many tiles.
	const most = 6
	g.kernel("winoMul", "mulArgs", "m[pos][z][j] = sum over kd < 3, blocks and ic of v<z+kd>[block][pos][j][ic] * w[pos][kd][block][ic] for z = 0, 1, n <= 6 tiles j, 24 positions.")
	g.load("v0 R8", "v1 R9", "v2 R13", "v3 SI", "w DI", "m R11", "blocks R14", "n DX")
	g.stride("block R10", "pos R12", "mPos R15")
	g.op("MOVQ $24, AX\nMOVQ R14, BX\nSHLQ $8, BX") // bytes of a kd of weights
	if g.isa == avx512 {
		g.addPairsOrder()
	}
	g.choose("DX", "n", 1, most)
	for n := 1; n <= most; n++ {
		weights, in := 2*most, 2*most+3
		g.op("n%d:", n)
		for j := range 2 * n {
			g.zero(j)
		}
		g.op("XORQ DX, DX\nMOVQ R14, CX")
		g.op("block%d:", n)
		steps := 8 / g.channels
		for c := range steps {
			for kd, r := range []string{"(DI)", "(DI)(BX*1)", "(DI)(BX*2)"} {
				g.op("VMOVUPS %d%s, V%d", g.size*c, r, weights+kd)
			}
			for v, r := range []string{"R8", "R9", "R13", "SI"} {
				for j := range n {
					g.op("%s %d(%s)(DX*1), V%d", g.broadcast, 32*j+4*g.channels*c, r, in)
					for z := range 2 {
						if kd := v - z; kd >= 0 && kd < 3 {
							g.op("VFMADD231PS V%d, V%d, V%d", weights+kd, in, z*n+j)
						}
					}
				}
			}
		}
		g.op("ADDQ $%d, DI\nADDQ R10, DX\nDECQ CX\nJNZ block%d", g.size*steps, n)
		g.storeSums(2*n, "R11")
		g.op("LEAQ (DI)(BX*2), DI\nADDQ R15, R11\nADDQ R12, R8\nADDQ R12, R9\nADDQ R12, R13\nADDQ R12, SI\nDECQ AX\nJNZ n%d", n)
		g.ret()
	}

	g.kernel("winoOuter", "outerArgs", "acc[pos][ic][kd] += sum over n tiles j of v[pos][j][ic] * d<kd>[pos][j] for ic < 8, kd < 3, 24 positions.")
	g.load("v SI", "d0 R12", "d1 R13", "d2 R8", "acc DI", "n CX")
	g.stride("pos R10")
	g.op("MOVQ $24, R11")
	if g.isa == avx512 {
		g.duplicateOrder()
	}
	g.op("pos:")
	for half := range 3 - g.channels { // registers for 12 vectors of sums
		g.loadAll(12, "DI")
		g.op("XORQ BX, BX\nMOVQ CX, DX\nloop%d:", half)
		for kd, r := range []string{"R12", "R13", "R8"} {
			if g.isa == avx2 {
				g.op("VMOVUPS (%s)(BX*1), V%d", r, 12+kd)
			} else {
				g.duplicate(fmt.Sprintf("(%s)(BX*1)", r), 12+kd)
			}
		}
		for c := range 4 {
			g.op("%s %d(SI)(BX*1), V15", g.broadcast, 16*half+4*g.channels*c)
			for kd := range 3 {
				g.op("VFMADD231PS V%d, V15, V%d", 12+kd, 3*c+kd)
			}
		}
		g.op("ADDQ $32, BX\nDECQ DX\nJNZ loop%d", half)
		g.storeAll(12, "DI")
		g.op("ADDQ $%d, DI", 12*g.size)
	}
	g.op("ADDQ R10, SI\nADDQ R10, R12\nADDQ R10, R13\nADDQ R10, R8\nDECQ R11\nJNZ pos")
	g.ret()
}

// winogradTransformKernels writes the transforms of inputs and of output gradients, and the way back.
func (g *generator) winogradTransformKernels() {
	four, five, eight := g.vec("four", 4), g.vec("five", 5), g.vec("eight", 8)
	store := func(y int) { g.op("VMOVUPS Y%d, (R12)\nADDQ R10, R12", y) }

	g.kernel("winoIn", "tileArgs", "out[4 py + .. px] = B2' d B4 of n tiles of 4x6 voxels, 4 apart in x;\n"+
		"B2': d0-d2, d1+d2, d2-d1, d1-d3; B4: 4d0-5d2+d4, -4d1-4d2+d3+d4, 4d1-4d2-d3+d4, -2d1-d2+2d3+d4, 2d1-d2-2d3+d4, 4d1-5d3+d5.")
	g.load("in SI", "out DI", "n CX")
	g.stride("row DX", "pos R10")
	g.op("VMOVUPS %s, Y14\nVMOVUPS %s, Y15", four, five)
	g.op("LEAQ (SI)(DX*1), R8\nLEAQ (SI)(DX*2), R9\nLEAQ (R8)(DX*2), R11")
	rows := []string{"SI", "R8", "R9", "R11"}
	g.stride("slice R13")
	g.op("loop:\nMOVQ DI, R12")
	for _, r := range rows {
		g.op("PREFETCHT1 (%s)(R13*1)\nPREFETCHT1 64(%[1]s)(R13*1)", r)
	}
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

	g.kernel("winoOut", "winoOutArgs", "out = leaky(init + A2' m A4) of n tiles of 2x4 voxels;\n"+
		"A2': m0+m1+m2, m1-m2-m3; A4: m0+m1+m2+m3+m4, m1-m2+2m3-2m4, m1+m2+4m3+4m4, m1-m2+8m3-8m4+m5.")
	g.load("m SI", "init R14", "out DI", "n CX")
	g.stride("mPos R13", "initStep R12", "initRow R10", "outRow R11")
	g.op("LEAQ (R13)(R13*2), DX\nADDQ DX, DX\nLEAQ (DX)(DX*2), R15") // 6 and 18 positions
	g.op("loop:\nMOVQ SI, BX")
	for k := range 6 {
		g.op("VMOVUPS (BX)(DX*1), V12\nVMOVUPS (BX)(DX*2), V13")
		g.op("VADDPS V13, V12, V%d\nVADDPS (BX), V%[1]d, V%[1]d", k)
		g.op("VSUBPS V13, V12, V%d\nVSUBPS (BX)(R15*1), V%[1]d, V%[1]d", 6+k)
		if k < 5 {
			g.op("ADDQ R13, BX")
		}
	}
	for r := range 2 {
		b := 6 * r
		g.op("VADDPS V%d, V%d, V12\nVSUBPS V%[1]d, V%[2]d, V13", b+2, b+1) // m1+m2, m1-m2
		g.op("VADDPS V%d, V%d, V14\nVSUBPS V%[1]d, V%[2]d, V15", b+4, b+3) // m3+m4, m3-m4
		g.op("VADDPS V12, V%d, V%[1]d\nVADDPS V14, V%[1]d, V%[1]d", b)
		g.op("VADDPS V15, V15, V%d\nVADDPS V13, V%[1]d, V%[1]d", b+1)
		g.op("VMOVUPS %s, V%d\nVFMADD213PS V12, V14, V%[2]d", four, b+2)
		g.op("VADDPS V%d, V13, V13\nVMOVUPS %s, V%d\nVFMADD213PS V13, V15, V%[3]d", b+5, eight, b+3)
	}
	g.scalar("slope", 15)
	g.stride("outSlice BX")
	g.op("ADDQ DI, BX")
	for r := range 2 {
		g.op("PREFETCHT1 (BX)\nPREFETCHT1 64(BX)\nADDQ R11, BX")
		if r == 0 {
			g.op("MOVQ R14, R8\nMOVQ DI, R9")
		} else {
			g.op("LEAQ (R14)(R10*1), R8\nLEAQ (DI)(R11*1), R9")
		}
		for k := range 4 {
			v := 6*r + k
			g.op("VADDPS (R8), V%d, V%[1]d\nADDQ R12, R8", v)
			g.leaky(v, 15, 14)
			g.op("VMOVUPS V14, %d(R9)", 32*k)
		}
	}
	g.op("LEAQ (R14)(R12*4), R14\nADDQ $128, DI\nADDQ $32, SI\nDECQ CX\nJNZ loop")
	g.ret()
}
