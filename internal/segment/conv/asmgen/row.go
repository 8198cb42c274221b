package main

import "fmt"

// row describes a family of convolution kernels that compute neighbouring outputs of one row for
// one block of eight output channels. The outputs stay in registers over the whole reduction; each
// input position is broadcast once and multiplied into every output it touches, so loads stay below
// half of the multiplications.
type row struct {
	name, doc string
	window    int // rows and slices of the input per output
	taps      int // weight vectors per input channel and window row
	channels  int // input channels per block that are used
	max       int // most outputs (or pairs of outputs) of one call
	outputs   func(n int) int
	positions func(n int) int                        // input positions read
	target    func(position, tap, n int) (int, bool) // the output that the product belongs to
}

func (g *generator) rowKernels() {
	same := func(n int) int { return n }
	direct := row{
		window: 3, taps: 3, max: 12, outputs: same,
		positions: func(n int) int { return n + 2 },
		target:    func(p, k, n int) (int, bool) { return p - k, p-k >= 0 && p-k < n },
	}
	direct.name, direct.channels = "direct8", 8
	direct.doc = "out[j] = leaky(init[j] + sum over blocks, kd, kh, ic, kw of in[kd][kh][j+kw][ic] * w[kd][kh][ic][kw]), 8 channels a block."
	g.row(direct)
	direct.name, direct.channels = "direct4", 4
	direct.doc = "direct8 for blocks of which only the first 4 channels are used, w with 4 ic."
	g.row(direct)
	g.row(row{
		name: "upGrad", channels: 8, window: 4, taps: 4, max: 11,
		doc:       "adjoint of up: out[j] = sum over blocks, 4 slices, 4 rows, ic and k < 4 of in[2j+k][ic] * w[ic][k].",
		outputs:   same,
		positions: func(n int) int { return 2*n + 2 },
		target:    func(p, k, n int) (int, bool) { return (p - k) / 2, p >= k && (p-k)%2 == 0 && (p-k)/2 < n },
	})
}

func (g *generator) row(r row) {
	g.kernel(r.name, "rowArgs", r.doc)
	g.load("in SI", "w DI", "init R8", "out R9", "blocks CX", "n BX")
	g.stride("block R13", "slice R10", "row R11", "initStep R12")
	steps := r.channels / g.channels
	g.op("SUBQ $%d, R11", 4*r.channels) // from the last channel of one row to the first of the next
	g.choose("BX", "n", 1, r.max)
	for n := 1; n <= r.max; n++ {
		outputs := r.outputs(n)
		weights := 15 - r.taps // registers: outputs, then weights, then the broadcast in V15
		g.op("n%d:", n)
		for j := range outputs {
			if g.isa == avx2 {
				g.op("VMOVUPS (R8), V%d\nADDQ R12, R8", j)
			} else {
				g.op("VPXORQ V%d, V%[1]d, V%[1]d", j)
			}
		}
		g.op("block%d:\nMOVQ SI, BX\nMOVQ $%d, R14", n, r.window)
		g.op("slice%d:\nMOVQ BX, DX\nMOVQ $%d, R15", n, r.window)
		g.op("row%d:\nMOVQ $%d, AX", n, steps)
		g.op("channel%d:", n)
		for k := range r.taps {
			g.op("VMOVUPS %d(DI), V%d", g.size*k, weights+k)
		}
		for p := range r.positions(n) {
			g.op("%s %d(DX), V15", g.broadcast, 32*p)
			for k := range r.taps {
				if j, ok := r.target(p, k, n); ok {
					g.op("VFMADD231PS V%d, V15, V%d", weights+k, j)
				}
			}
		}
		g.op("ADDQ $%d, DI\nADDQ $%d, DX\nDECQ AX\nJNZ channel%d", g.size*r.taps, 4*g.channels, n)
		g.op("ADDQ R11, DX\nDECQ R15\nJNZ row%d", n)
		g.op("ADDQ R10, BX\nDECQ R14\nJNZ slice%d", n)
		g.op("ADDQ R13, SI\nDECQ CX\nJNZ block%d", n)
		g.op("MOVQ a+0(FP), AX")
		g.scalar("slope", 15)
		if g.isa == avx2 {
			for j := range outputs {
				g.leaky(j, 15, 14)
				g.op("VMOVUPS V14, %d(R9)", 32*j)
			}
		} else {
			g.addPairsOrder()
			for j := 0; j < outputs; j += 2 {
				g.addPairs(j, min(j+1, outputs-1))
				g.finishPair(j, 32*j, j+1 < outputs)
			}
		}
		g.ret()
	}
}

// finishPair (AVX-512) adds the initial values at R8, R12 apart, to the one or two outputs in Vv and
// stores leaky of that at R9. The slope is in V15.
func (g *generator) finishPair(v, offset int, two bool) {
	g.op("VMOVUPS (R8), Y28\nADDQ R12, R8")
	if two {
		g.op("VINSERTF32X8 $1, (R8), Z28, Z28\nADDQ R12, R8")
	}
	g.op("VADDPS V28, V%d, V%[1]d", v)
	g.leaky(v, 15, 28)
	reg := "Y28"
	if two {
		reg = "Z28"
	}
	g.op("VMOVUPS %s, %s", reg, fmt.Sprintf("%d(R9)", offset))
}
