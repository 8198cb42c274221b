package fmri

import (
	"fmt"
	"math"
	"sync"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/mat"
)

// MinDegreesOfFreedom that must be left after cleaning for anything to be read
// from the signal: with 20 the standard error of Fisher's z is .24.
const MinDegreesOfFreedom = 20

// FewDegreesOfFreedom is why measures are withheld.
const FewDegreesOfFreedom = "few-degrees-of-freedom"

// Design is all nuisance of a run at once: what is taken out of the signal in
// one projection. One after the other, each step would bring back what the one
// before took out (Lindquist 2019, doi:10.1002/hbm.24528).
type Design struct {
	Frames           []int // that are kept, ascending
	Rank             int   // of the nuisance on them, the mean included
	DegreesOfFreedom int   // len(Frames) - Rank

	total  int         // frames of the run
	passes int         // dimensions of the whole run, the mean aside, that no filter takes
	basis  [][]float64 // orthonormal, over Frames
	flat   []float64   // the same, row after row; or, where it is smaller, a basis of what is left
	left   bool        // flat is of what is left
}

// dependent is the share of a column's length below which what earlier columns
// leave of it is rounding.
const dependent = 1e-7

// NewDesign joins regressors on the kept frames; the mean is always among them.
func NewDesign(kept []bool, groups ...Regressors) *Design {
	d := &Design{total: len(kept), passes: len(kept) - 1}
	for t, k := range kept {
		if k {
			d.Frames = append(d.Frames, t)
		}
	}
	one := make([]float64, len(d.Frames))
	for i := range one {
		one[i] = 1
	}
	extend(&d.basis, one)
	for _, g := range groups {
		for _, column := range g {
			if len(column) != len(kept) {
				panic(fmt.Sprintf("fmri: a regressor of %d frames for %d", len(column), len(kept)))
			}
			c := make([]float64, len(d.Frames))
			for i, t := range d.Frames {
				c[i] = column[t]
			}
			extend(&d.basis, c)
		}
	}
	d.Rank = len(d.basis)
	for _, b := range d.basis {
		d.flat = append(d.flat, b...)
	}
	if n := len(d.Frames); d.Rank > n/2 && d.Rank < n {
		d.left, d.flat = true, complement(d.flat, d.Rank, n)
	}
	d.DegreesOfFreedom = len(d.Frames) - d.Rank
	return d
}

// complement returns an orthonormal basis of all that is orthogonal to rank rows
// of length n.
func complement(rows []float64, rank, n int) []float64 {
	var qr mat.QR
	qr.Factorize(mat.NewDense(rank, n, rows).T())
	var q mat.Dense
	qr.QTo(&q)
	out := make([]float64, 0, (n-rank)*n)
	for j := rank; j < n; j++ {
		out = append(out, mat.Col(nil, j, &q)...)
	}
	return out
}

// extend adds what is new in c to an orthonormal basis, and reports whether
// there was anything. It overwrites c.
func extend(basis *[][]float64, c []float64) bool {
	length := math.Sqrt(dot(c, c))
	if len(*basis) >= len(c) || length == 0 {
		return false
	}
	// Twice is enough (Giraud 2005, doi:10.1007/s00211-005-0615-4).
	for range 2 {
		for _, b := range *basis {
			axpy(c, -dot(b, c), b)
		}
	}
	left := math.Sqrt(dot(c, c))
	if left <= dependent*length {
		return false
	}
	for i := range c {
		c[i] /= left
	}
	*basis = append(*basis, c)
	return true
}

func dot(a, b []float64) float64 {
	sum := 0.0
	for i, v := range a {
		sum += v * b[i]
	}
	return sum
}

func axpy(dst []float64, f float64, x []float64) {
	for i, v := range x {
		dst[i] += f * v
	}
}

// Residual returns what the nuisance leaves of a series of all frames, on the
// kept ones.
func (d *Design) Residual(x []float64) []float64 {
	if len(x) != d.total {
		panic(fmt.Sprintf("fmri: a series of %d frames for %d", len(x), d.total))
	}
	out := make([]float64, len(d.Frames))
	for i, t := range d.Frames {
		out[i] = x[t]
	}
	// The mean first: it is thousands of times what is looked for.
	for range 2 {
		for _, b := range d.basis {
			axpy(out, -dot(b, out), b)
		}
	}
	return out
}

// floats lends memory for blocks: thrown away each time, it would be most of
// what a long run takes.
var floats sync.Pool

// borrow returns n numbers, not cleared.
func borrow(n int) []float64 {
	if p, ok := floats.Get().(*[]float64); ok && cap(*p) >= n {
		return (*p)[:n]
	}
	return make([]float64, n)
}

func giveBack(x []float64) { floats.Put(&x) }

// block returns the residuals of some voxels, one after the other. The caller
// gives them back.
func (d *Design) block(s *Series, voxels []int) []float64 {
	frames := len(d.Frames)
	x := borrow(len(voxels) * frames)
	if frames == 0 {
		return x
	}
	for i, v := range voxels {
		in, row := s.Voxel(v), x[i*frames:][:frames]
		mean := 0.0
		for i, t := range d.Frames {
			row[i] = float64(in[t])
			mean += row[i]
		}
		mean /= float64(frames)
		for i := range row {
			row[i] -= mean
		}
	}
	rank := len(d.flat) / frames
	X := blas64.General{Rows: len(voxels), Cols: frames, Stride: frames, Data: x}
	Q := blas64.General{Rows: rank, Cols: frames, Stride: frames, Data: d.flat}
	if rank == 0 {
		return x
	}
	c := blas64.General{Rows: len(voxels), Cols: rank, Stride: rank, Data: borrow(len(voxels) * rank)}
	defer giveBack(c.Data)
	blas64.Gemm(blas.NoTrans, blas.Trans, 1, X, Q, 0, c)
	if d.left {
		blas64.Gemm(blas.NoTrans, blas.NoTrans, 1, c, Q, 0, X)
	} else {
		blas64.Gemm(blas.NoTrans, blas.NoTrans, -1, c, Q, 1, X)
	}
	return x
}

// between returns from, from+1, ... to-1.
func between(from, to int) []int {
	out := make([]int, to-from)
	for i := range out {
		out[i] = from + i
	}
	return out
}

// Clean replaces the frames of every voxel by what the design leaves of them,
// in place: the result has the kept frames alone.
func (d *Design) Clean(s *Series) {
	n := len(d.Frames)
	parts(len(s.Voxels), func(_, from, to int) {
		x := d.block(s, between(from, to))
		for i, v := range x {
			s.Data[(from+i/n)*s.Frames+i%n] = float32(v)
		}
		giveBack(x)
	})
	for v := range s.Voxels {
		copy(s.Data[v*n:][:n], s.Voxel(v))
	}
	s.Frames, s.Data = n, s.Data[:n*len(s.Voxels)]
}

// Nuisance is everything that cleaning takes out.
type Nuisance struct {
	Kept        []bool     // false for scrubbed frames
	Motion      Regressors // 24
	HighPass    Regressors // cosines
	WhiteMatter Regressors // aCompCor
	CSF         Regressors // aCompCor
	StopBand    Regressors // frequencies outside the band
	Global      Regressors // the brain's mean; one or none
}

// Design for the whole spectrum or the pass band alone, with or without the
// global signal.
func (n *Nuisance) Design(band, global bool) *Design {
	groups := []Regressors{n.HighPass, n.Motion, n.WhiteMatter, n.CSF}
	if global {
		groups = append(groups, n.Global)
	}
	if !band {
		return NewDesign(n.Kept, groups...)
	}
	d := NewDesign(n.Kept, append(groups, n.StopBand)...)
	d.passes -= len(n.StopBand) // its columns are orthogonal over the whole run
	return d
}

// Defaults of cleaning.
const (
	HighPassSeconds = 128
	ComponentsEach  = 5 // of white matter, and of CSF
)

// PassBand of slow fluctuations at rest.
var PassBand = Band{Low: 0.008, High: 0.1}

// FindNuisance prepares cleaning of aligned frames, tr seconds apart. White
// matter and CSF are masks of the volume; a tissue without voxels gives no
// components.
func FindNuisance(s *Series, motion []Motion, q *Quality, white, csf []bool, tr float64, band Band) *Nuisance {
	frames := len(motion)
	n := &Nuisance{Kept: Scrub(q.Outlier), Motion: MotionRegressors(motion), HighPass: Cosines(frames, tr, HighPassSeconds),
		StopBand: StopBand(frames, tr, band), Global: Regressors{q.GlobalSignal}}
	n.WhiteMatter = Components(s, white, n.HighPass, n.Kept, ComponentsEach)
	n.CSF = Components(s, csf, n.HighPass, n.Kept, ComponentsEach)
	return n
}
