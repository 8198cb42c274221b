package main

// planeKernels writes the passes of normalisation and activation over rows x width voxels of one
// slice and one block of eight channels. Sums are kept in float32 along a row and in float64 across
// rows, as 16 numbers: 8 sums of the first quantity, 8 of the second.
func (g *generator) planeKernels() {
	loop := func(inc ...string) {
		for _, r := range inc {
			g.op("ADDQ $32, %s", r)
		}
		g.op("DECQ DX\nJNZ loop")
	}
	// begin opens the loop over rows; Y0 and Y1 are a row's sums when sums are wanted.
	begin := func(sums bool) {
		g.load("width R9", "rows R10")
		g.stride("row R11")
		g.op("MOVQ R9, BX\nSHLQ $5, BX\nSUBQ BX, R11") // from a row's end to the next row
		if sums {
			g.load("acc R12")
			for i := range 4 {
				g.op("VMOVUPD %d(R12), Y%d", 32*i, 12+i)
			}
		}
		g.op("rows:\nMOVQ R9, DX")
		if sums {
			g.op("VXORPS Y0, Y0, Y0\nVXORPS Y1, Y1, Y1")
		}
		g.op("loop:")
	}
	end := func(sums bool, regs ...string) {
		loop(regs...)
		if sums {
			for i := range 2 {
				g.op("VCVTPS2PD X%d, Y2\nVADDPD Y2, Y%d, Y%[2]d", i, 12+2*i)
				g.op("VEXTRACTF128 $1, Y%d, X2\nVCVTPS2PD X2, Y2\nVADDPD Y2, Y%d, Y%[2]d", i, 13+2*i)
			}
		}
		for _, r := range regs {
			g.op("ADDQ R11, %s", r)
		}
		g.op("DECQ R10\nJNZ rows")
		if sums {
			for i := range 4 {
				g.op("VMOVUPD Y%d, %d(R12)", 12+i, 32*i)
			}
		}
		g.ret()
	}
	// slope leaves dy * leaky'(scale*z+shift) in Y5, z in Y6: the derivative at 0 is the slope, as in torch.
	slope := func() {
		g.op("VMOVUPS (SI), Y5\nVMOVUPS (DI), Y6\nVMOVAPS Y6, Y7\nVFMADD213PS Y9, Y8, Y7\nVMULPS Y10, Y5, Y4")
		g.op("VCMPPS $0x1e, Y11, Y7, Y7\nVBLENDVPS Y7, Y5, Y4, Y5")
	}

	g.kernel("sums", "planeArgs", "acc += sum z, sum z*z.")
	g.load("z SI")
	begin(true)
	g.op("VMOVUPS (SI), Y2\nVADDPS Y2, Y0, Y0\nVFMADD231PS Y2, Y2, Y1")
	end(true, "SI")

	g.kernel("affine", "planeArgs", "out = leaky(scale*z + shift).")
	g.load("z SI", "out DI", "coef R8")
	g.op("VMOVUPS (R8), Y8\nVMOVUPS 32(R8), Y9")
	g.scalar("slope", 10)
	begin(false)
	g.op("VMOVUPS (SI), Y3\nVFMADD213PS Y9, Y8, Y3")
	g.leaky(3, 10, 4)
	g.op("VMOVUPS Y4, (DI)")
	end(false, "SI", "DI")

	g.kernel("affineSums", "planeArgs", "acc += sum g, sum g*z with g = dy * leaky'(scale*z + shift).")
	g.load("dy SI", "z DI", "coef R8")
	g.op("VMOVUPS (R8), Y8\nVMOVUPS 32(R8), Y9\nVXORPS Y11, Y11, Y11")
	g.scalar("slope", 10)
	begin(true)
	slope()
	g.op("VADDPS Y5, Y0, Y0\nVFMADD231PS Y5, Y6, Y1")
	end(true, "SI", "DI")

	g.kernel("affineGrad", "planeArgs", "out = a*g + b*z + c with g as in affineSums; coef is scale, shift, a, b, c.")
	g.load("dy SI", "z DI", "out CX", "coef R8")
	g.op("VMOVUPS (R8), Y8\nVMOVUPS 32(R8), Y9\nVXORPS Y11, Y11, Y11")
	for i := range 3 {
		g.op("VMOVUPS %d(R8), Y%d", 64+32*i, 12+i)
	}
	g.scalar("slope", 10)
	begin(false)
	slope()
	g.op("VFMADD213PS Y14, Y13, Y6\nVFMADD231PS Y5, Y12, Y6\nVMOVUPS Y6, (CX)")
	end(false, "SI", "DI", "CX")
}

// poolKernels writes 2x2x2 max pooling of a row of n outputs and its gradient.
func (g *generator) poolKernels() {
	rows := []string{"", "(R10*1)", "(R11*1)", "(R12*1)"}
	g.kernel("poolMax", "poolArgs", "out[i] = max of in[0..1][0..1][2i..2i+1].")
	g.load("in SI", "out DI", "n CX")
	g.stride("row R10", "slice R11")
	g.op("LEAQ (R10)(R11*1), R12")
	g.op("loop:\nVMOVUPS (SI), Y0\nVMAXPS 32(SI), Y0, Y0")
	for _, r := range rows[1:] {
		g.op("VMAXPS (SI)%s, Y0, Y0\nVMAXPS 32(SI)%[1]s, Y0, Y0", r)
	}
	g.op("VMOVUPS Y0, (DI)\nADDQ $64, SI\nADDQ $32, DI\nDECQ CX\nJNZ loop")
	g.ret()

	g.kernel("poolGrad", "poolArgs", "din of the first voxel (x fastest, then y, z) that equals out += dout.")
	g.load("in SI", "din DI", "out R8", "dout R9", "n CX")
	g.stride("row R10", "slice R11")
	g.op("LEAQ (R10)(R11*1), R12")
	g.op("loop:\nVMOVUPS (R8), Y0\nVMOVUPS (R9), Y1\nVXORPS Y2, Y2, Y2") // Y2: already given
	for _, r := range rows {
		for k := range 2 {
			g.op("VCMPPS $0, %d(SI)%s, Y0, Y3\nVANDNPS Y3, Y2, Y3\nVORPS Y3, Y2, Y2\nVANDPS Y3, Y1, Y4", 32*k, r)
			g.op("VADDPS %d(DI)%s, Y4, Y4\nVMOVUPS Y4, %[1]d(DI)%[2]s", 32*k, r)
		}
	}
	g.op("ADDQ $64, SI\nADDQ $64, DI\nADDQ $32, R8\nADDQ $32, R9\nDECQ CX\nJNZ loop")
	g.ret()
}
