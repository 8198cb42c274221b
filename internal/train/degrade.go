package train

import "neuroscreen/internal/train/synth"

// Degradation is one thing that can be wrong with a scan, far enough to matter.
type Degradation struct {
	Name    string
	Change  func(c *synth.Config)
	VoxelMM float64 // of the scan, when it is not 1
}

// Degradations of ordinary scans, each alone.
var Degradations = []Degradation{
	{Name: "none"},
	{Name: "voxels of 0.9 mm", VoxelMM: .9}, // the networks' lie between them
	{Name: "noise of 8 % of white matter", Change: func(c *synth.Config) { c.Noise, c.NoiseSD = 1, synth.Range{Lo: 13, Hi: 13} }},
	{Name: "bias field of 35 %", Change: func(c *synth.Config) { c.Bias, c.BiasSD = 1, synth.Range{Lo: .35, Hi: .35} }},
	{Name: "ghosts of 15 %", Change: func(c *synth.Config) { c.Ghost, c.GhostShare = 1, synth.Range{Lo: .15, Hi: .15} }},
	{Name: "ringing", Change: func(c *synth.Config) { c.Ringing = 1 }},
	{Name: "slices of 3 mm", Change: func(c *synth.Config) { c.Thick, c.SliceMM, c.Lines = 1, synth.Range{Lo: 3, Hi: 3}, 0 }},
	{Name: "slices of 3 mm, since interpolated by lines", Change: func(c *synth.Config) { c.Thick, c.SliceMM, c.Lines = 1, synth.Range{Lo: 3, Hi: 3}, 1 }},
	{Name: "voxels of 2 mm", Change: func(c *synth.Config) { c.Coarse, c.CoarseMM, c.Lines = 1, synth.Range{Lo: 2, Hi: 2}, 0 }},
	{Name: "turned by 20 degrees", Change: func(c *synth.Config) { c.RotationDeg = synth.Range{Lo: 20, Hi: 20} }},
	{Name: "stripped", Change: func(c *synth.Config) { c.Strip = 1 }},
	{Name: "defaced", Change: func(c *synth.Config) { c.Deface = 1 }},
	{Name: "white-matter lesions", Change: func(c *synth.Config) { c.Lesions, c.LesionCount = 1, synth.Range{Lo: 15, Hi: 15} }},
	// What is missing here is not the scanner's doing.
	{Name: "no noise, bias, blur nor texture, usual contrast", Change: func(c *synth.Config) {
		c.Noise, c.Bias, c.BlurVoxels, c.TissueSD, c.Lesions = 0, 0, synth.Range{}, synth.Range{}, 0
		c.T1Spread, c.LabelSpread = synth.Range{}, synth.Range{}
	}},
	// Where the other points of a voxel are of two tissues, nothing tells its label.
	{Name: "no signal from the centres of voxels", Change: func(c *synth.Config) { c.Centre = 0 }},
	{Name: "hippocampus and nuclei brighter", Change: func(c *synth.Config) { c.DeepGrey = synth.Range{Lo: .5, Hi: .5} }},
	{Name: "wide jitter of contrast", Change: func(c *synth.Config) {
		c.T1Spread, c.LabelSpread = synth.Range{Lo: 1.5, Hi: 1.5}, synth.Range{Lo: 6, Hi: 6}
	}},
}

// Config draws ordinary scans with this one thing wrong.
func (d Degradation) Config(shape [3]int, voxelMM float64) synth.Config {
	c := synth.Evaluation(shape, voxelMM)
	if d.Change != nil {
		d.Change(&c)
	}
	return c
}
