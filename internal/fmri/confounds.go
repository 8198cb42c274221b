package fmri

import (
	"math"
	"slices"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/mat"
)

// Regressors are time series of nuisance, one value a frame of the run.
type Regressors [][]float64

// MotionRegressors returns the six parameters, their changes since the frame
// before (0 in the first) and the squares of both: 24 columns (Satterthwaite
// 2013, doi:10.1016/j.neuroimage.2012.08.052).
func MotionRegressors(m []Motion) Regressors {
	out := make(Regressors, 24)
	for c := range out {
		out[c] = make([]float64, len(m))
	}
	for t := range m {
		p := m[t].Parameters()
		before := m[max(t-1, 0)].Parameters()
		for a := range 6 {
			d := p[a] - before[a]
			out[a][t], out[6+a][t], out[12+a][t], out[18+a][t] = p[a], d, p[a]*p[a], d*d
		}
	}
	return out
}

// Cosines returns the discrete cosine basis of what is slower than period
// seconds, without the constant: SPM's and nilearn's high-pass.
func Cosines(frames int, tr, period float64) Regressors {
	order := min(frames-1, int(math.Floor(2*float64(frames)*tr/period)))
	out := make(Regressors, order)
	for k := range out {
		out[k] = make([]float64, frames)
		for t := range frames {
			out[k][t] = math.Sqrt(2/float64(frames)) * math.Cos(math.Pi/float64(frames)*(float64(t)+.5)*float64(k+1))
		}
	}
	return out
}

// Band of frequencies, in Hz.
type Band struct {
	Low  float64 `json:"low_hz"`
	High float64 `json:"high_hz"`
}

// StopBand returns the sines and cosines of the run's frequencies k/(frames*tr)
// that lie outside the band. Regressing them out is an exact band-pass filter,
// and one that scrubbed frames don't disturb (AFNI's 3dTproject).
func StopBand(frames int, tr float64, pass Band) Regressors {
	var out Regressors
	for k := 1; k <= frames/2; k++ {
		if f := float64(k) / (float64(frames) * tr); f >= pass.Low && f <= pass.High {
			continue
		}
		c, s := make([]float64, frames), make([]float64, frames)
		for t := range frames {
			s[t], c[t] = math.Sincos(2 * math.Pi * float64(k) * float64(t) / float64(frames))
		}
		out = append(out, c)
		if 2*k < frames { // at the Nyquist frequency every sine is 0
			out = append(out, s)
		}
	}
	return out
}

// Scrub returns which frames are kept: no outliers, and no stretch of fewer
// than five frames between them (nilearn's scrubbing, Power 2014).
func Scrub(outlier []bool) []bool {
	kept := make([]bool, len(outlier))
	for t := 0; t < len(outlier); {
		end := t
		for end < len(outlier) && !outlier[end] {
			end++
		}
		for n := t; n < end; n++ {
			kept[n] = end-t >= minStretch
		}
		t = end + 1
	}
	return kept
}

const minStretch = 5

// Components returns the first n principal components over time of the voxels
// of a tissue without activity (a mask of the volume), on the kept frames and 0 elsewhere
// (aCompCor, Behzadi 2007, doi:10.1016/j.neuroimage.2007.04.042). Series are
// high-passed by the regressors given and scaled to the same variance first,
// as fMRIPrep does. There are fewer where the tissue has fewer voxels.
func Components(s *Series, tissue []bool, highPass Regressors, kept []bool, n int) Regressors {
	d := NewDesign(kept, highPass)
	frames := len(d.Frames)
	var of []int
	for v, at := range s.Voxels {
		if tissue[at] {
			of = append(of, v)
		}
	}
	if frames == 0 {
		return nil
	}
	gram := blas64.General{Rows: frames, Cols: frames, Stride: frames, Data: make([]float64, frames*frames)}
	varying := 0
	for part := range slices.Chunk(of, grain) {
		x := d.block(s, part)
		for row := range slices.Chunk(x, frames) {
			ss := dot(row, row)
			if ss <= 1e-18*float64(frames) {
				clear(row)
				continue
			}
			varying++
			f := math.Sqrt(float64(frames) / ss)
			for i := range row {
				row[i] *= f
			}
		}
		X := blas64.General{Rows: len(part), Cols: frames, Stride: frames, Data: x}
		blas64.Gemm(blas.Trans, blas.NoTrans, 1, X, X, 1, gram)
		giveBack(x)
	}
	if n = min(n, varying, d.DegreesOfFreedom); n <= 0 {
		return nil
	}
	leading := leadingVectors(mat.NewSymDense(frames, gram.Data), n)
	out := make(Regressors, n)
	for k := range out {
		out[k] = make([]float64, s.Frames)
		for i, t := range d.Frames {
			out[k][t] = leading.At(i, k)
		}
	}
	return out
}

const (
	guardVectors = 10    // more than asked for, so that the last one settles too
	maxTurns     = 300   // of orthogonal iteration
	settledRitz  = 1e-10 // relative change of the eigenvalues' sum
)

// leadingVectors returns the n eigenvectors with the largest eigenvalues, by
// orthogonal iteration: a whole decomposition of 1,000 frames takes seconds.
func leadingVectors(g *mat.SymDense, n int) *mat.Dense {
	size := g.SymmetricDim()
	k := min(n+guardVectors, size)
	q := mat.NewDense(size, k, nil)
	state := uint32(1) // any start that is not orthogonal to the answer
	for i := range size {
		for j := range k {
			state = state*1664525 + 1013904223
			q.Set(i, j, float64(state>>8)/(1<<24)-.5)
		}
	}
	before := 0.0
	var z, small mat.Dense
	for range maxTurns {
		z.Mul(g, q)
		orthonormalise(&z)
		q.Copy(&z)
		z.Mul(g, q)
		small.Mul(q.T(), &z)
		sum := 0.0
		for j := range n {
			sum += small.At(j, j)
		}
		if math.Abs(sum-before) <= settledRitz*sum {
			break
		}
		before = sum
	}
	sym := mat.NewSymDense(k, nil)
	for i := range k {
		for j := range k {
			sym.SetSym(i, j, (small.At(i, j)+small.At(j, i))/2)
		}
	}
	var e mat.EigenSym
	e.Factorize(sym, true)
	var vectors, out mat.Dense
	e.VectorsTo(&vectors)
	out.Mul(q, &vectors)
	first := mat.NewDense(size, n, nil) // gonum's eigenvalues ascend
	for j := range n {
		for i := range size {
			first.Set(i, j, out.At(i, k-1-j))
		}
	}
	return first
}

// orthonormalise the columns of m; a column that depends on earlier ones
// becomes 0.
func orthonormalise(m *mat.Dense) {
	rows, cols := m.Dims()
	var basis [][]float64
	for j := range cols {
		c := mat.Col(nil, j, m)
		if !extend(&basis, c) {
			c = make([]float64, rows)
		} else {
			c = basis[len(basis)-1]
		}
		m.SetCol(j, c)
	}
}
