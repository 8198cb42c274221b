package main

// A 3-tap convolution of an upsampled signal x, with a difference between each value and the next,
// u[2i] = x[i]-x[i-1] and u[2i+1] = x[i], takes 3 products for 2 outputs:
//
//	c = (w0+w1+w2) u[2i+1], out[2i] = c - w0 u[2i], out[2i+1] = c + w2 u[2i+2]
//
// On three axes that makes 27 products for 8 outputs. The weights hold the sums and signs.

// upKernels writes the products.
func (g *generator) upKernels() {
	most := g.upPairs()
	g.kernel("upMul", "mulArgs", "m[kz][ky][2i] = c + p0, m[kz][ky][2i+1] = c + p2 for n pairs i,\n"+
		"p0, c, p2 = sum over blocks and ic of v<kz>[block][ky][2i+kx][ic] * w[kz][ky][block][ic][kx] for kx = 0, 1, 2; pos is the stride of rows.")
	g.load("v0 R8", "v1 R9", "v2 R13", "w DI", "m R11", "blocks R14", "n BX")
	g.stride("block R10", "pos R12", "mPos R15")
	if g.isa == avx512 {
		g.addPairsOrder()
	}
	g.choose("BX", "n", 1, most)
	for n := 1; n <= most; n++ {
		weights, in := 3*most, 3*most+3 // after the sums: p0 and p2 of each pair, then c of each
		g.op("n%d:\nMOVQ $3, BX\nkz%[1]d:\nMOVQ R8, SI\nMOVQ $3, AX", n)
		g.op("ky%d:", n)
		for i := range n {
			g.zero(2 * i)
			g.zero(2*i + 1)
			g.zero(2*most + i)
		}
		g.op("MOVQ SI, DX\nMOVQ R14, CX")
		g.op("block%d:", n)
		steps := 8 / g.channels
		for c := range steps {
			for k := range 3 {
				g.op("VMOVUPS %d(DI), V%d", g.size*(3*c+k), weights+k)
			}
			for p := range 2*n + 1 {
				g.op("%s %d(DX), V%d", g.broadcast, 32*p+4*g.channels*c, in)
				i := p / 2
				if p%2 == 1 {
					g.op("VFMADD231PS V%d, V%d, V%d", weights+1, in, 2*most+i)
					continue
				}
				if i > 0 {
					g.op("VFMADD231PS V%d, V%d, V%d", weights+2, in, 2*i-1)
				}
				if i < n {
					g.op("VFMADD231PS V%d, V%d, V%d", weights, in, 2*i)
				}
			}
		}
		g.op("ADDQ $%d, DI\nADDQ R10, DX\nDECQ CX\nJNZ block%d", 3*g.size*steps, n)
		for j := range 2 * n {
			g.op("VADDPS V%d, V%d, V%[2]d", 2*most+j/2, j)
		}
		g.storeSums(2*n, "R11")
		g.op("ADDQ R15, R11\nADDQ R12, SI\nDECQ AX\nJNZ ky%d", n)
		g.op("MOVQ R9, R8\nMOVQ R13, R9\nDECQ BX\nJNZ kz%d", n)
		g.ret()
	}
}

// upPairs is the number of pairs of outputs whose 3 sums each fit the registers, beside 3 weights and
// an input.
func (g *generator) upPairs() int {
	if g.isa == avx2 {
		return 4
	}
	return 8
}

// upTransformKernels writes the differences, and the sums of products.
func (g *generator) upTransformKernels() {
	g.kernel("upIn", "upInArgs", "out[2i] = r[i]-r[i-1], out[2i+1] = r[i], r = (a-b)-(c-d), i < n, and out[2n] = -r[n-1]; r[-1] is 0.")
	g.load("a SI", "b R8", "c R9", "d R10", "out DI", "n CX")
	g.stride("slice R11")
	g.op("ADDQ SI, R11")
	g.op("VXORPS Y0, Y0, Y0\nXORQ BX, BX")
	g.op("loop:\nPREFETCHT1 (R11)(BX*1)")
	g.op("VMOVUPS (SI)(BX*1), Y1\nVSUBPS (R8)(BX*1), Y1, Y1\nVMOVUPS (R9)(BX*1), Y2\nVSUBPS (R10)(BX*1), Y2, Y2\nVSUBPS Y2, Y1, Y1")
	g.op("VSUBPS Y0, Y1, Y0\nVMOVUPS Y0, (DI)(BX*2)\nVMOVUPS Y1, 32(DI)(BX*2)\nVMOVAPS Y1, Y0")
	g.op("ADDQ $32, BX\nDECQ CX\nJNZ loop")
	g.op("VXORPS Y1, Y1, Y1\nVSUBPS Y0, Y1, Y0\nVMOVUPS Y0, (DI)(BX*2)")
	g.ret()

	g.kernel("upOut", "upOutArgs", "out[z][y][x] = bias + the sum of m[kz][ky][x] over kz = 1, 2z and ky = 1, 2y for x < 2n, z and y = 0, 1.")
	g.load("m SI", "out DI", "bias R8", "n CX")
	g.stride("mPos DX", "row R11", "slice R12")
	g.op("LEAQ (DX)(DX*2), R9\nLEAQ (SI)(R9*1), R13\nLEAQ (SI)(R9*2), R14\nLEAQ (R11)(R12*1), R15\nLEAQ (DI)(R12*2), R10")
	g.op("VMOVUPS (R8), Y15\nADDQ CX, CX")
	g.op("loop:\nVADDPS (R13)(DX*1), Y15, Y4")                    // c
	g.op("VADDPS (SI)(DX*1), Y4, Y5\nVADDPS (R14)(DX*1), Y4, Y6") // c + z
	g.op("VMOVUPS (R13), Y7\nVMOVUPS (R13)(DX*2), Y8")            // y
	for k, address := range []string{"(DI)", "(DI)(R11*1)", "(DI)(R12*1)", "(DI)(R15*1)"} {
		m := []string{"(SI)", "(SI)(DX*2)", "(R14)", "(R14)(DX*2)"}[k]
		g.op("VADDPS %s, Y%d, Y%d\nVADDPS Y%d, Y%[3]d, Y%[3]d", m, 7+k%2, k, 5+k/2)
		g.op("VMOVUPS Y%d, %s\nPREFETCHT1 (R10)%s", k, address, address[4:])
	}
	g.op("ADDQ $32, SI\nADDQ $32, R13\nADDQ $32, R14\nADDQ $32, DI\nADDQ $32, R10\nDECQ CX\nJNZ loop")
	g.ret()
}
