package main

import "fmt"

// A 3-tap convolution of an upsampled signal x, with a difference between each value and the next,
// u[2i] = x[i]-x[i-1] and u[2i+1] = x[i], takes 3 products for 2 outputs:
//
//	c = (w0+w1+w2) u[2i+1], out[2i] = c - w0 u[2i], out[2i+1] = c + w2 u[2i+2]
//
// On three axes that makes 27 products for 8 outputs. The weights hold the sums and signs.

// upKernels writes the products and the sums.
func (g *generator) upKernels() {
	most := g.upPairs()
	g.kernel("upMul", "mulArgs", "m[kz][ky][2i] = c + p0, m[kz][ky][2i+1] = c + p2 for n pairs i,\n"+
		"p0, c, p2 = sum over blocks and ic of v<kz>[block][ky][2i+kx][ic] * w[kz][ky][block][ic][kx] for kx = 0, 1, 2; pos is the stride of rows;\n"+
		"AVX-512 leaves the even and odd ic of each output apart.")
	g.load("v0 R8", "v1 R9", "v2 R13", "w DI", "m R11", "blocks R14", "n BX")
	g.stride("block R10", "pos R12", "mPos R15")
	g.choose("BX", "n", 1, most)
	for n := 1; n <= most; n++ {
		weights, in := 3*most, 3*most+3 // after the sums: p0, p2 and c of each pair
		g.op("n%d:\nMOVQ $3, BX\nkz%[1]d:\nMOVQ R8, SI\nMOVQ $3, AX", n)
		g.op("ky%d:", n)
		for j := range 3 * n {
			g.zero(j)
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
					g.op("VFMADD231PS V%d, V%d, V%d", weights+1, in, 3*i+2)
					continue
				}
				if i > 0 {
					g.op("VFMADD231PS V%d, V%d, V%d", weights+2, in, 3*i-2)
				}
				if i < n {
					g.op("VFMADD231PS V%d, V%d, V%d", weights, in, 3*i)
				}
			}
		}
		g.op("ADDQ $%d, DI\nADDQ R10, DX\nDECQ CX\nJNZ block%d", 3*g.size*steps, n)
		for j := range 2 * n {
			g.op("VADDPS V%d, V%d, V%[2]d\nVMOVUPS V%[2]d, %[3]d(R11)", j/2*3+2, j/2*3+j%2, g.size*j)
		}
		g.op("ADDQ R15, R11\nADDQ R12, SI\nDECQ AX\nJNZ ky%d", n)
		g.op("MOVQ R9, R8\nMOVQ R13, R9\nDECQ BX\nJNZ kz%d", n)
		g.ret()
	}

	g.kernel("upOut", "upOutArgs", "out[z][y][x] = bias + the sum of m[kz][ky][x] over kz = 1, 2z and ky = 1, 2y for x < 2n, z and y = 0, 1.")
	g.load("m SI", "out DI", "bias R8", "n CX")
	g.stride("mPos DX", "row R11", "slice R12")
	g.op("LEAQ (DX)(DX*2), R9\nLEAQ (SI)(R9*1), R13\nLEAQ (SI)(R9*2), R14\nLEAQ (R11)(R12*1), R15\nLEAQ (DI)(R12*2), R10")
	outputs := g.channels // in a vector, when even and odd ic are added
	if g.isa == avx2 {
		g.op("VMOVUPS (R8), V15\nADDQ CX, CX")
	} else {
		g.op("VPMOVZXDQ (R8), V28")
		g.addPairsOrder()
	}
	g.op("loop:")
	for x := range outputs {
		v, at := 10*x, g.size*x
		bias := 15
		if g.isa == avx512 {
			bias = 28
		}
		g.op("VADDPS %d(R13)(DX*1), V%d, V%d", at, bias, v+4)                                             // c
		g.op("VADDPS %d(SI)(DX*1), V%d, V%d\nVADDPS %[1]d(R14)(DX*1), V%[2]d, V%[4]d", at, v+4, v+5, v+6) // c + z
		g.op("VMOVUPS %d(R13), V%d\nVMOVUPS %[1]d(R13)(DX*2), V%[3]d", at, v+7, v+8)                      // y
		for z, r := range []string{"SI", "R14"} {
			for y := range 2 {
				address := fmt.Sprintf("%d(%s)", at, r)
				if y == 1 {
					address += "(DX*2)"
				}
				g.op("VADDPS %s, V%d, V%d\nVADDPS V%d, V%[3]d, V%[3]d", address, v+7+y, v+2*z+y, v+5+z)
			}
		}
	}
	for k, address := range []string{"(DI)", "(DI)(R11*1)", "(DI)(R12*1)", "(DI)(R15*1)"} {
		if g.isa == avx512 {
			g.addPairs(k, 10+k)
		}
		g.op("VMOVUPS V%d, %s\nPREFETCHT1 (R10)%s", k, address, address[4:])
	}
	g.op("ADDQ $%d, SI\nADDQ $%[1]d, R13\nADDQ $%[1]d, R14\nADDQ $%d, DI\nADDQ $%[2]d, R10\nDECQ CX\nJNZ loop", g.size*outputs, 32*outputs)
	g.ret()
}

// upPairs is the number of pairs of outputs whose 3 sums each fit the registers, beside 3 weights and
// an input.
func (g *generator) upPairs() int {
	if g.isa == avx2 {
		return 4
	}
	return 8
}

// upInputKernel writes the differences.
func (g *generator) upInputKernel() {
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
}
