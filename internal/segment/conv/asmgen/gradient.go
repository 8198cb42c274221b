package main

import "fmt"

// gradientKernels writes the direct weight gradients: some input channels against some shifts of the
// output gradient, accumulated in registers over a stream of positions.
func (g *generator) gradientKernels() {
	g.kernel("weightGrad", "gradArgs", "acc[ic][kw] += sum over q < n of in[q][ic] * dz[q+2-kw] for ic < channels, 4 or 8, kw < 3; n is a multiple of 3.\n"+
		"Rows may be chained: the zero borders of both tensors cancel what crosses a row's end.")
	g.load("in SI", "dz DI", "acc R8", "n CX", "channels R9")
	// dz[q] to dz[q+2] rotate through V12 to V14.
	dz := func(offset, v int) {
		if g.isa == avx2 {
			g.op("VMOVUPS %d(DX), V%d", offset, v)
		} else {
			g.duplicate(fmt.Sprintf("%d(DX)", offset), v)
		}
	}
	stream := func(label string, vectors int) { // vectors of input channels
		g.loadAll(3*vectors, "R8")
		g.op("MOVQ SI, BX\nMOVQ DI, DX\nMOVQ CX, R10")
		dz(0, 12)
		dz(32, 13)
		g.op("%s:", label)
		for s := range 3 {
			dz(64+32*s, 12+(s+2)%3)
			for c := range vectors {
				g.op("%s %d(BX), V15", g.broadcast, 32*s+4*g.channels*c)
				for kw := range 3 {
					g.op("VFMADD231PS V%d, V15, V%d", 12+(s+2-kw)%3, 3*c+kw)
				}
			}
		}
		g.op("ADDQ $96, BX\nADDQ $96, DX\nSUBQ $3, R10\nJNZ %s", label)
		g.storeAll(3*vectors, "R8")
	}
	if g.isa == avx2 {
		g.op("group:")
		stream("loop", 4)
		g.op("ADDQ $16, SI\nADDQ $384, R8\nSUBQ $4, R9\nJNZ group")
		g.ret()
	} else {
		g.duplicateOrder()
		g.op("CMPQ R9, $4\nJEQ four")
		stream("loop8", 4)
		g.ret()
		g.op("four:")
		stream("loop4", 2)
		g.ret()
	}

	g.kernel("upWeightGrad", "upGradArgs", "acc[ic][k] += sum over rows and i < n of low[i][ic] * dz[2i+{3,1,2,0}[k]] for ic < 8, k < 4.")
	g.load("low SI", "dz DI", "acc R8", "n R9")
	g.stride("lowRow R11", "dzRow R12")
	vectors, dzAt, in := 4, 16, 20
	if g.isa == avx2 {
		vectors, dzAt, in = 2, 8, 12
		g.op("MOVQ $4, R13\ngroup:")
	} else {
		g.duplicateOrder()
	}
	g.loadAll(4*vectors, "R8")
	g.load("rows R10")
	g.op("MOVQ SI, R14\nMOVQ DI, R15\nrows:\nMOVQ R14, DX\nMOVQ R15, BX\nMOVQ R9, CX")
	g.op("loop:")
	for k, x := range []int{3, 1, 2, 0} {
		if g.isa == avx2 {
			g.op("VMOVUPS %d(BX), V%d", 32*x, dzAt+k)
		} else {
			g.duplicate(fmt.Sprintf("%d(BX)", 32*x), dzAt+k)
		}
	}
	for c := range vectors {
		g.op("%s %d(DX), V%d", g.broadcast, 4*g.channels*c, in+c)
		for k := range 4 {
			g.op("VFMADD231PS V%d, V%d, V%d", dzAt+k, in+c, 4*c+k)
		}
	}
	g.op("ADDQ $32, DX\nADDQ $64, BX\nDECQ CX\nJNZ loop")
	g.op("ADDQ R11, R14\nADDQ R12, R15\nDECQ R10\nJNZ rows")
	g.storeAll(4*vectors, "R8")
	if g.isa == avx2 {
		g.op("ADDQ $8, SI\nADDQ $256, R8\nDECQ R13\nJNZ group")
	}
	g.ret()
}
