package fmri

import (
	"math"

	"neuroscreen"
	"neuroscreen/internal/volume"
)

// Carpet is the signal of the whole brain at one glance (Power 2017,
// doi:10.1016/j.neuroimage.2016.08.009): a row for each handful of neighbouring
// voxels of a tissue, a column for each frame. Motion, breathing and a scanner's
// faults are seen in it as columns, before anything is cleaned.
type Carpet struct {
	Frames  int
	Tissues []CarpetTissue // from top to bottom
	Z       []float32      // row after row; mean 0 and SD 1 in each, 0 where nothing varies
	LeftOut []int          // frames that take no part in what is read from the signal
}

// CarpetTissue is one band of rows.
type CarpetTissue struct {
	Name   string
	Rows   int
	Voxels int
}

// Rows of a carpet in all, and at least of a tissue that the brain has: deep
// grey matter would be too thin a band to be seen.
const (
	carpetRows = 240
	leastRows  = 14
)

// carpetTissues by label, in the order of the rows.
var carpetTissues = []struct {
	name   string
	labels []uint8
}{
	{"Cortex", []uint8{3, 42}},
	{"Deep grey", []uint8{10, 11, 12, 13, 17, 18, 26, 28, 49, 50, 51, 52, 53, 54, 58, 60}},
	{"Cerebellum, stem", []uint8{7, 8, 16, 46, 47}},
	{"White matter", []uint8{2, 41}},
	{"Ventricles", []uint8{4, 5, 14, 15, 43, 44}},
}

// MakeCarpet reduces aligned frames, not cleaned, to rows: voxels lose their
// linear trend and are scaled to the same SD, the means of voxels that follow
// each other in the volume are rows, and rows are scaled again.
func MakeCarpet(s *Series, labels *volume.Labels) Carpet {
	c := Carpet{Frames: s.Frames}
	var of [256]int
	for t, tissue := range carpetTissues {
		for _, l := range tissue.labels {
			of[l] = t + 1
		}
	}
	voxels := make([][]int, len(carpetTissues))
	for v, at := range s.Voxels {
		if t := of[labels.Data[at]]; t > 0 {
			voxels[t-1] = append(voxels[t-1], v)
		}
	}
	var rows [][]int // of voxels
	for t, tissue := range carpetTissues {
		n := len(voxels[t])
		if n == 0 {
			continue
		}
		k := min(n, max(leastRows, carpetRows*n/len(s.Voxels)))
		for i := range k {
			rows = append(rows, voxels[t][i*n/k:(i+1)*n/k])
		}
		c.Tissues = append(c.Tissues, CarpetTissue{tissue.name, k, n})
	}
	c.Z = make([]float32, len(rows)*s.Frames)
	trend := legendre(s.Frames, 1)
	parts(len(rows), func(_, from, to int) {
		x, sum := make([]float64, s.Frames), make([]float64, s.Frames)
		for r := from; r < to; r++ {
			clear(sum)
			for _, v := range rows[r] {
				for t, y := range s.Voxel(v) {
					x[t] = float64(y)
				}
				detrend(x, trend)
				axpy(sum, 1, x)
			}
			detrend(sum, trend)
			for t, z := range sum {
				c.Z[r*s.Frames+t] = float32(z)
			}
		}
	})
	return c
}

// detrend takes the trend out of x and scales it to an SD of 1; a series
// that doesn't vary becomes 0.
func detrend(x []float64, trend [][]float64) {
	level := math.Sqrt(dot(x, x))
	for k, c := range project(x, trend) {
		axpy(x, -c, trend[k])
	}
	length := math.Sqrt(dot(x, x))
	if length <= 1e-6*level {
		clear(x)
		return
	}
	f := math.Sqrt(float64(len(x))) / length
	for t := range x {
		x[t] *= f
	}
}

// Maps of the measures on the run's grid; 0 where nothing was read.
type Maps struct {
	ALFF  []float32 // percent
	FALFF []float32
	ReHo  []float32
}

// onGrid puts a value of each voxel of a series where it lies.
func onGrid(s *Series, x []float32, voxels int) []float32 {
	out := make([]float32, voxels)
	for n, at := range s.Voxels {
		out[at] = x[n]
	}
	return out
}

// Measured is everything that is read from a run: what the result says, and
// what is drawn of it.
type Measured struct {
	neuroscreen.FMRI
	Carpet Carpet
	Maps   *Maps // nil where they are withheld
}
