package segment

import (
	"math"
	"slices"

	"neuroscreen/internal/anatomy"
)

// Signs are what a segmentation itself shows of how far its volume of one
// structure is to be trusted. All are 0 where nothing is in doubt.
type Signs struct {
	// Doubt is 1 less the mean posterior of the structure within its label.
	Doubt float64
	// FlipOverlap is 1 less the Dice overlap of the structure's labels in the
	// head and in its mirror image.
	FlipOverlap float64
	// FlipVolume is the logarithm, without sign, of the ratio of those two
	// volumes.
	FlipVolume float64
	// CloserVolume is the logarithm, without sign, of the ratio of the volume to
	// that by the labels of the whole head alone.
	CloserVolume float64
}

func (s *Signs) compareMirror(c *mirrorCounts, k int) {
	own, mirror := float64(c.own[k]), float64(c.mirror[k])
	s.FlipOverlap = 1 - 2*float64(c.both[k])/max(1, own+mirror)
	s.FlipVolume = math.Abs(math.Log((own + 1) / (mirror + 1)))
}

// numSigns is the number of Signs.
const numSigns = 4

// logs of the signs; what is added keeps chance near 0 from mattering.
func (s Signs) logs() [numSigns]float64 {
	return [numSigns]float64{math.Log(s.Doubt + .02), math.Log(s.FlipOverlap + .02), math.Log(s.FlipVolume + .05), math.Log(s.CloserVolume + .05)}
}

// ErrorModel predicts the relative error of one structure's volume: a part that
// all heads share and a scatter that grows with the signs,
//
//	hypot(Bias, clamp(exp(Base + sum of Slopes*logs), Least, 1)).
type ErrorModel struct {
	Bias   float64           `json:"bias"` // mean of ln(measured/true)
	Base   float64           `json:"base"`
	Slopes [numSigns]float64 `json:"slopes"` // never negative: worse signs never predict less
	Least  float64           `json:"least"`
	// Pair is the correlation of both sides' errors in one head, less Bias and
	// over their scatter: a scan's quality and what the network makes of a head
	// are common to them. 0 where there are no two sides.
	Pair float64 `json:"pair,omitempty"`
}

func (m *ErrorModel) scatter(s Signs) float64 {
	x := m.Base
	for i, v := range s.logs() {
		x += m.Slopes[i] * v
	}
	return min(max(math.Exp(x), m.Least), 1)
}

// Predict returns the standard error of ln(measured/true).
func (m *ErrorModel) Predict(s Signs) float64 { return math.Hypot(m.Bias, m.scatter(s)) }

// mostAlike bounds Pair: no number of heads shows that two errors are one.
const mostAlike = .95

// FitPair sets Pair from both sides of heads, in the order of the heads. Errors
// count as at most lostCounts scatters, as in the fit. A negative correlation
// is taken as none.
func (m *ErrorModel) FitPair(left, right []Observed) {
	product, square := 0.0, 0.0
	for i := range left {
		l, r := m.standardised(left[i]), m.standardised(right[i])
		product += l * r
		square += (l*l + r*r) / 2
	}
	if square > 0 {
		m.Pair = min(max(product/square, 0), mostAlike)
	}
}

// standardised is an error less the bias, over its scatter.
func (m *ErrorModel) standardised(o Observed) float64 {
	return min(max((o.Error-m.Bias)/m.scatter(o.Signs), -lostCounts), lostCounts)
}

// unknownError stands in for a structure whose error was never measured.
const unknownError = .2

// VolumeError is the error of one volume.
type VolumeError struct {
	StandardMM3 float64
	// BiasMM3 is the part of StandardMM3 that every volume of the structure has
	// which these weights measure: between two sides or two visits it cancels.
	BiasMM3 float64
	// Pair is the correlation of the rest with that of the other side.
	Pair float64
}

// volumeError of a structure of some mm3: predicted from its signs, or else
// what the held-out heads showed.
func (w *Weights) volumeError(k anatomy.Class, s Signs, mm3 float64) VolumeError {
	name := anatomy.Structures[k].Name
	if m, ok := w.Errors[name]; ok {
		return VolumeError{StandardMM3: m.Predict(s) * mm3, BiasMM3: math.Abs(m.Bias) * mm3, Pair: m.Pair}
	}
	if e, ok := w.RelativeError[name]; ok {
		return VolumeError{StandardMM3: e * mm3}
	}
	return VolumeError{StandardMM3: unknownError * mm3}
}

// Observed is one structure of one head whose true volume is known.
type Observed struct {
	Signs   Signs
	TrueMM3 float64
	Error   float64 // ln(measured/true)
	Head    int     // which head it is of
}

const (
	slopePrior = .5 // standard deviation to which slopes are shrunk
	lostFrom   = 6  // scatters from which on a head is lost: its signs did not tell
	lostCounts = 4  // scatters that it counts as
)

// FitErrors fits an error model so that standardised errors have a spread of 1.
func FitErrors(seen []Observed) ErrorModel {
	if len(seen) == 0 {
		return ErrorModel{Base: math.Log(unknownError), Least: unknownError}
	}
	errs := make([]float64, len(seen))
	for i, o := range seen {
		errs[i] = o.Error
	}
	bias := quantile(errs, .5)
	x, size := make([][numSigns]float64, len(seen)), make([]float64, len(seen))
	for i, o := range seen {
		x[i], size[i] = o.Signs.logs(), math.Abs(o.Error-bias)+1e-4
	}
	m := fitScatter(x, size)
	for range 3 {
		var found [][numSigns]float64
		var sizes []float64
		for i, o := range seen {
			if size[i] < lostFrom*m.scatter(o.Signs) {
				found, sizes = append(found, x[i]), append(sizes, size[i])
			}
		}
		m = fitScatter(found, sizes)
	}
	m.Bias = bias
	scatters := make([]float64, len(seen))
	square := 0.0
	for i, o := range seen {
		scatters[i] = m.scatter(o.Signs)
		z := min(size[i]/scatters[i], lostCounts)
		square += z * z / float64(len(seen))
	}
	m.Base += math.Log(square) / 2
	m.Least = quantile(scatters, .05) * math.Sqrt(square)
	return m
}

// fitScatter finds the Laplace distribution of greatest likelihood whose scale
// is exp(Base + sum of Slopes*x): a convex problem, by Newton's method along
// one coefficient after the other. Each x is centred first, so that these are
// nearly independent of Base.
func fitScatter(x [][numSigns]float64, size []float64) ErrorModel {
	n := float64(len(x))
	var centre [numSigns]float64
	base := 0.0
	for i, v := range x {
		base += math.Log(size[i]) / n
		for j := range v {
			centre[j] += v[j] / n
		}
	}
	w := [1 + numSigns]float64{base}
	row := func(i int) [1 + numSigns]float64 {
		r := [1 + numSigns]float64{1}
		for j, c := range centre {
			r[1+j] = x[i][j] - c
		}
		return r
	}
	const sweeps, longest = 100, .5
	for range sweeps {
		for j := range w {
			// Of sum(ln scale + size/scale) + (slope/prior)^2/2.
			gradient, curvature := 0.0, 1e-9
			for i := range x {
				r := row(i)
				scale := 0.0
				for l, v := range r {
					scale += w[l] * v
				}
				e := size[i] * math.Exp(-scale) * r[j]
				gradient += r[j] - e
				curvature += e * r[j]
			}
			if j > 0 {
				gradient += w[j] / (slopePrior * slopePrior)
				curvature += 1 / (slopePrior * slopePrior)
			}
			w[j] -= min(max(gradient/curvature, -longest), longest)
			if j > 0 {
				w[j] = max(w[j], 0)
			}
		}
	}
	m := ErrorModel{Base: w[0]}
	for j, c := range centre {
		m.Slopes[j] = w[1+j]
		m.Base -= w[1+j] * c
	}
	return m
}

// quantile of values, which it sorts.
func quantile(values []float64, q float64) float64 {
	slices.Sort(values)
	return values[int(q*float64(len(values)-1)+.5)]
}
