package main

// Posteriors are made for 8 voxels at a time, in passes over their logits in scratch memory: each
// pass has work for all 8 that waits for nothing, where one voxel after the other would wait for its
// maximum, its sum and the division by it.

// posteriorKernels writes the 1x1x1 convolution to 32 logits and softmax with a 33rd logit fixed at
// 0, for one row of n voxels.
func (g *generator) posteriorKernels() {
	const logits = "l[i] = bias[i/2*biasStep] + sum over blocks and ic of x[block][i][ic] * w[block][ic]"
	g.kernel("logits", "softmaxArgs", "p[i] = "+logits+". Reads x and writes p up to a multiple of 2 voxels.")
	g.load("x SI", "w R12", "bias R8", "p R9", "blocks R14", "n CX")
	g.stride("block R13")
	g.op("loop:")
	g.twoLogits(0)
	g.storeAll(8, "R9")
	g.op("ADDQ $64, SI\nADDQ $256, R9\nSUBQ $2, CX\nJG loop")
	g.ret()

	const formula = "p[i][k] = exp(l[i][k]) / (1 + sum exp(l[i])), " + logits + ";\n" +
		"background[i] = 1 / (1 + sum exp(l[i])). Reads x, and bias if it has a step, up to a multiple of 8 voxels.\n"
	g.kernel("softmax", "softmaxArgs", formula+"sums[k] += sum over i of p[i][k].")
	g.load("sums R10")
	g.softmax(func() { g.op("VMOVUPS (R10), Y4\nVMOVUPS 32(R10), Y5\nVMOVUPS 64(R10), Y6\nVMOVUPS 96(R10), Y7") }, func() {
		for j := range 4 {
			g.op("VMOVUPS Y%d, %d(R9)\nVADDPS Y%[1]d, Y%[3]d, Y%[3]d", j, 32*j, 4+j)
		}
	}, func() { g.op("VMOVUPS Y4, (R10)\nVMOVUPS Y5, 32(R10)\nVMOVUPS Y6, 64(R10)\nVMOVUPS Y7, 96(R10)") })

	g.kernel("likely", "softmaxArgs", formula+"Bit k of likely[i] says that p[i][k] > least; p[i] is written where there is such a k.")
	g.load("likely R10")
	g.softmax(func() { g.scalar("least", 4) }, func() {
		for j := range 4 {
			g.op("VCMPPS $0x1e, Y4, Y%d, Y5\nVMOVMSKPS Y5, R15", j) // greater, ordered
			if j == 0 {
				g.op("MOVL R15, DI")
			} else {
				g.op("SHLL $%d, R15\nORL R15, DI", 8*j)
			}
		}
		g.op("MOVL DI, (R10)\nADDQ $4, R10\nTESTL DI, DI\nJZ none")
		g.storeAll(4, "R9")
		g.op("none:")
	}, func() {})
}

// Offsets in the scratch memory, which begins with the logits of 8 voxels, and then their exponentials.
const (
	reduced    = 8 * 128        // maxima and then sums of 8 lanes, by voxel
	factors    = reduced + 8*32 // what a voxel's logits are increased by, and then its exponentials multiplied by
	background = factors + 32
)

// twoLogits leaves the logits of voxels v and v+1 from SI on in Y0 to Y3 and Y4 to Y7, and moves R8 to the bias of the next two.
func (g *generator) twoLogits(v int) {
	for j := range 4 {
		g.op("VMOVUPS %d(R8), Y%d\nVMOVAPS Y%[2]d, Y%d", 32*j, j, 4+j)
	}
	g.op("MOVQ softmaxArgs_biasStep(AX), DX\nLEAQ (R8)(DX*4), R8")
	g.op("LEAQ %d(SI), DX\nMOVQ R12, DI\nMOVQ R14, R15\nblock%d:", 32*v, v)
	for ic := range 8 {
		g.op("VBROADCASTSS %d(DX), Y8\nVBROADCASTSS %d(DX), Y9", 4*ic, 32+4*ic)
		for j := range 4 {
			g.op("VMOVUPS %d(DI), Y%d\nVFMADD231PS Y%[2]d, Y8, Y%[3]d\nVFMADD231PS Y%[2]d, Y9, Y%[4]d", 128*ic+32*j, 10+j%2, j, 4+j)
		}
	}
	g.op("ADDQ R13, DX\nADDQ $1024, DI\nDECQ R15\nJNZ block%d", v)
}

// softmax writes the body of a kernel. finish writes what becomes of one voxel's posteriors, in Y0 to
// Y3, whose place in p is R9; Y4 to Y7 are its own over 8 voxels, between begin and end.
func (g *generator) softmax(begin, finish, end func()) {
	g.load("x SI", "w R12", "bias R8", "p R9", "background BX", "scratch R11", "blocks R14", "n CX")
	g.stride("block R13")
	g.op("loop:")

	for v := 0; v < 8; v += 2 {
		g.twoLogits(v)
		for j := range 8 {
			g.op("VMOVUPS Y%d, %d(R11)", j, 128*v+32*j)
		}
		for j := 0; j < 8; j += 4 {
			g.op("VMAXPS Y%d, Y%d, Y8\nVMAXPS Y%d, Y%d, Y9\nVMAXPS Y8, Y9, Y8\nVMOVUPS Y8, %d(R11)", j, j+1, j+2, j+3, reduced+32*v+8*j)
		}
	}

	// Less the greatest of each, or the background's 0.
	g.lanes("MAX")
	g.op("VXORPS Y1, Y1, Y1\nVMAXPS Y1, Y0, Y0\nVSUBPS Y0, Y1, Y0\nVMOVUPS Y0, %d(R11)", factors)
	for i, c := range expConstants {
		g.op("VMOVUPS %s, Y%d", g.vec(c.name, c.value), shifter+i)
	}
	g.exp(0)
	g.op("VMOVUPS Y0, %d(R11)", background)
	for v := range 8 {
		g.op("VBROADCASTSS %d(R11), Y6", factors+4*v)
		for j := range 4 {
			x := 3 * (j % 2)
			g.op("VADDPS %d(R11), Y6, Y%d", 128*v+32*j, x)
			g.exp(x)
			g.op("VMOVUPS Y%d, %d(R11)", x, 128*v+32*j)
			if j == 0 {
				g.op("VMOVAPS Y%d, Y%d", x, sum)
			} else {
				g.op("VADDPS Y%d, Y%d, Y%[2]d", x, sum)
			}
		}
		g.op("VMOVUPS Y%d, %d(R11)", sum, reduced+32*v)
	}
	g.lanes("ADD")
	g.op("VMOVUPS %d(R11), Y1\nVADDPS Y1, Y0, Y0\nVMOVUPS %s, Y2\nVDIVPS Y0, Y2, Y0", background, g.vec("one", 1))
	g.op("VMOVUPS Y0, %d(R11)\nVMULPS Y0, Y1, Y1\nVMOVUPS Y1, %d(R11)", factors, background)

	begin()
	g.op("MOVQ R11, DX\nXORQ AX, AX\nvoxel:")
	g.op("MOVL %d(R11)(AX*4), DI\nMOVL DI, (BX)\nADDQ $4, BX\nVBROADCASTSS %d(R11)(AX*4), Y8", background, factors)
	for j := range 4 {
		g.op("VMULPS %d(DX), Y8, Y%d", 32*j, j)
	}
	finish()
	g.op("ADDQ $128, DX\nADDQ $128, R9\nINCQ AX\nDECQ CX\nJZ last\nCMPQ AX, $8\nJNE voxel")
	end()
	g.op("MOVQ a+0(FP), AX\nADDQ $256, SI\nJMP loop\nlast:")
	end()
	g.ret()
}

// lanes leaves in Y0 the sum or maximum over the lanes of each of 8 vectors. Uses Y1 to Y8.
func (g *generator) lanes(op string) {
	for v := range 8 {
		g.op("VMOVUPS %d(R11), Y%d", reduced+32*v, v)
	}
	pair := func(low, high string, a, b int) { // the same half of both, next to each other
		g.op("%s Y%d, Y%d, Y8\n%s Y%[2]d, Y%[3]d, Y%[3]d\nV%[5]sPS Y8, Y%[3]d, Y%[3]d", low, b, a, high, op)
	}
	for a := 0; a < 8; a += 2 {
		pair("VUNPCKLPS", "VUNPCKHPS", a, a+1)
	}
	for a := 0; a < 8; a += 4 {
		pair("VUNPCKLPD", "VUNPCKHPD", a, a+2)
	}
	pair("VPERM2F128 $0x20,", "VPERM2F128 $0x31,", 0, 4)
}

// Registers that hold a voxel's sum, and what exp needs.
const (
	sum = 7 + iota
	shifter
	log2e
	poly // from the highest power of 2 to the constant
)

var expConstants = []struct {
	name  string
	value float32
}{
	{"shifter", 3 << 22}, {"log2e", 1.4426950408889634},
	{"poly5", 0.0013276472}, {"poly4", 0.00967554133}, {"poly3", 0.0555071327}, {"poly2", 0.240221197}, {"poly1", 0.693146967}, {"poly0", 1.00000007},
}

// exp replaces Yv by its exponential, for x <= 0, from -87 on: 2^n times 2^f, n the whole number
// nearest to x log2(e) and |f| <= 1/2. Beside 1.5 * 2^23, n stands in the lowest bits. The polynomial's
// relative error is at most 7.5e-8 (Remez). Uses the two registers after Yv.
func (g *generator) exp(v int) {
	g.op("VMAXPS %s, Y%d, Y%[2]d", g.vec("expMin", -87), v)
	g.op("VMOVAPS Y%d, Y%d\nVFMADD231PS Y%d, Y%d, Y%[2]d", shifter, v+1, log2e, v)
	g.op("VSUBPS Y%d, Y%d, Y%d", shifter, v+1, v+2)
	g.op("VFMSUB132PS Y%d, Y%d, Y%d", log2e, v+2, v)
	g.op("VMOVAPS Y%d, Y%d", poly, v+2)
	for i := range 5 {
		g.op("VFMADD213PS Y%d, Y%d, Y%d", poly+1+i, v, v+2)
	}
	g.op("VPSLLD $23, Y%d, Y%[1]d\nVPADDD Y%[1]d, Y%d, Y%d", v+1, v+2, v)
}
