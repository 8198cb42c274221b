package train

import (
	"math"
	"math/rand/v2"

	"neuroscreen/internal/segment"
)

// widen returns the same function in a wider network: the channels that m has
// keep their weights and hear nothing of the new ones, which begin as random
// features of everything before them. Logits that hear the level below for the
// first time begin deaf to it.
func widen(m *segment.Model, arch segment.Architecture, seed uint64) *segment.Model {
	wide := segment.NewModel(arch)
	r := rand.New(rand.NewPCG(seed, 0x776964656e))
	old := m.Architecture.Blocks()
	for i, b := range arch.Blocks() {
		was := old[i]
		fanIn := b.Up + b.In
		bound := math.Sqrt(6 / float64(27*fanIn)) // a variance of 2 over the inputs
		for o := range b.Out {
			for c := range fanIn {
				to := wide.Weight[i][(o*fanIn+c)*27:][:27]
				if o >= was.Out {
					for k := range to {
						to[k] = float32((2*r.Float64() - 1) * bound)
					}
					continue
				}
				// Channels from below come first, then those of the own level.
				part, channel := was.Up, c
				from := c
				if c >= b.Up {
					part, channel = was.In, c-b.Up
					from = was.Up + channel
				}
				if channel < part {
					copy(to, m.Weight[i][(o*(was.Up+was.In)+from)*27:][:27])
				}
			}
		}
		copy(wide.Bias[i], m.Bias[i])
	}
	for k := range segment.Logits {
		copy(wide.HeadW[k*arch.Base:], m.HeadW[k*m.Architecture.Base:][:m.Architecture.Base])
		if up := m.Architecture.HeadUp(); up > 0 {
			copy(wide.HeadUp[k*arch.HeadUp():], m.HeadUp[k*up:][:up])
		}
	}
	copy(wide.HeadB, m.HeadB)
	return wide
}
