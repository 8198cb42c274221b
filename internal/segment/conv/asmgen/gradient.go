package main

// gradientKernels writes the direct weight gradients: a few input channels against a few shifts of
// the output gradient, accumulated in registers over a stream of positions.
func (g *generator) gradientKernels() {
	g.kernel("weightGrad", "gradArgs", "acc[ic][kw] += sum over q < n of in[q][ic] * dz[q+2-kw] for ic < 4, kw < 3; n is a multiple of 3.\n"+
		"Rows may be chained: the zero borders of both tensors cancel what crosses a row's end.")
	g.load("in SI", "dz DI", "acc R8", "n CX")
	for j := range 12 {
		g.op("VMOVUPS %d(R8), Y%d", 32*j, j)
	}
	g.op("VMOVUPS (DI), Y12\nVMOVUPS 32(DI), Y13")
	g.op("loop:")
	for s := range 3 { // the three vectors of dz rotate through Y12..Y14
		g.op("VMOVUPS %d(DI), Y%d", 64+32*s, 12+(s+2)%3)
		for ic := range 4 {
			g.op("VBROADCASTSS %d(SI), Y15", 32*s+4*ic)
			for kw := range 3 {
				g.op("VFMADD231PS Y%d, Y15, Y%d", 12+(s+2-kw)%3, 3*ic+kw)
			}
		}
	}
	g.op("ADDQ $96, SI\nADDQ $96, DI\nSUBQ $3, CX\nJNZ loop")
	for j := range 12 {
		g.op("VMOVUPS Y%d, %d(R8)", j, 32*j)
	}
	g.ret()

	g.kernel("upWeightGrad", "upGradArgs", "acc[ic][k] += sum over rows and i < n of low[i][ic] * dz[2i+{3,1,2,0}[k]] for ic < 2, k < 4.")
	g.load("low SI", "dz DI", "acc R8", "n R9", "rows R10")
	g.stride("lowRow R11", "dzRow R12")
	for j := range 8 {
		g.op("VMOVUPS %d(R8), Y%d", 32*j, j)
	}
	g.op("rows:\nMOVQ SI, AX\nMOVQ DI, BX\nMOVQ R9, CX")
	g.op("loop:")
	for k, x := range []int{3, 1, 2, 0} {
		g.op("VMOVUPS %d(BX), Y%d", 32*x, 8+k)
	}
	for ic := range 2 {
		g.op("VBROADCASTSS %d(AX), Y%d", 4*ic, 12+ic)
		for k := range 4 {
			g.op("VFMADD231PS Y%d, Y%d, Y%d", 8+k, 12+ic, 4*ic+k)
		}
	}
	g.op("ADDQ $32, AX\nADDQ $64, BX\nDECQ CX\nJNZ loop")
	g.op("ADDQ R11, SI\nADDQ R12, DI\nDECQ R10\nJNZ rows")
	for j := range 8 {
		g.op("VMOVUPS Y%d, %d(R8)", j, 32*j)
	}
	g.ret()
}
