package train

import "neuroscreen/internal/train/synth"

// Degradation is one thing that can be wrong with a scan, far enough to matter.
type Degradation struct {
	Name   string
	Change func(c *synth.Config)
}

// Degradations of ordinary scans, each alone.
var Degradations = []Degradation{
	{"none", func(*synth.Config) {}},
	{"noise of 8 % of white matter", func(c *synth.Config) { c.Noise, c.NoiseSD = 1, synth.Range{Lo: 13, Hi: 13} }},
	{"bias field of 35 %", func(c *synth.Config) { c.Bias, c.BiasSD = 1, synth.Range{Lo: .35, Hi: .35} }},
	{"ghosts of 15 %", func(c *synth.Config) { c.Ghost, c.GhostShare = 1, synth.Range{Lo: .15, Hi: .15} }},
	{"ringing", func(c *synth.Config) { c.Ringing = 1 }},
	{"slices of 3 mm", func(c *synth.Config) { c.Thick, c.SliceMM = 1, synth.Range{Lo: 3, Hi: 3} }},
	{"voxels of 2 mm", func(c *synth.Config) { c.Coarse, c.CoarseMM = 1, synth.Range{Lo: 2, Hi: 2} }},
	{"turned by 20 degrees", func(c *synth.Config) { c.RotationDeg = synth.Range{Lo: 20, Hi: 20} }},
	{"stripped", func(c *synth.Config) { c.Strip = 1 }},
	{"defaced", func(c *synth.Config) { c.Deface = 1 }},
	{"white-matter lesions", func(c *synth.Config) { c.Lesions, c.LesionCount = 1, synth.Range{Lo: 15, Hi: 15} }},
	{"wide jitter of contrast", func(c *synth.Config) {
		c.T1Spread, c.LabelSpread = synth.Range{Lo: 1.5, Hi: 1.5}, synth.Range{Lo: 6, Hi: 6}
	}},
}

// Config draws ordinary scans with this one thing wrong.
func (d Degradation) Config(shape [3]int, voxelMM float64) synth.Config {
	c := synth.Evaluation(shape, voxelMM)
	d.Change(&c)
	return c
}
