package validate

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"

	"gonum.org/v1/gonum/stat/distuv"

	"neuroscreen/internal/norm"
)

// seed makes every interval the same each time.
const seed = 20240917

// AUC is the probability that a case scores higher than a control, ties half.
// It is NaN without both.
func AUC(cases, controls []float64) float64 {
	if len(cases) == 0 || len(controls) == 0 {
		return math.NaN()
	}
	type scored struct {
		s      float64
		isCase bool
	}
	all := make([]scored, 0, len(cases)+len(controls))
	for _, s := range cases {
		all = append(all, scored{s, true})
	}
	for _, s := range controls {
		all = append(all, scored{s, false})
	}
	slices.SortFunc(all, func(a, b scored) int { return cmp.Compare(a.s, b.s) })
	ranks := 0.0 // of the cases, from 1, ties sharing their mean
	for i := 0; i < len(all); {
		j, n := i, 0
		for ; j < len(all) && all[j].s == all[i].s; j++ {
			if all[j].isCase {
				n++
			}
		}
		ranks += float64(n) * (float64(i+1) + float64(j)) / 2
		i = j
	}
	n := float64(len(cases))
	return (ranks - n*(n+1)/2) / (n * float64(len(controls)))
}

// bootstraps is the number of resamples behind an interval.
const bootstraps = 2000

// AUCInterval is the 95 % percentile bootstrap of the AUC over people, drawn
// within class. Where every resample separates the classes as people do, which
// is not what more people would, it is Wilson's for as many pairs of people as
// the smaller class has.
func AUCInterval(cases, controls []float64) [2]float64 {
	r := rand.New(rand.NewPCG(seed, 1))
	draw := func(from, into []float64) {
		for i := range into {
			into[i] = from[r.IntN(len(from))]
		}
	}
	a, b := make([]float64, len(cases)), make([]float64, len(controls))
	aucs := make([]float64, bootstraps)
	for i := range aucs {
		draw(cases, a)
		draw(controls, b)
		aucs[i] = AUC(a, b)
	}
	lo, hi := quantile(aucs, .025), quantile(aucs, .975)
	if lo == hi {
		n := min(len(cases), len(controls))
		return Wilson(int(math.Round(lo*float64(n))), n)
	}
	return [2]float64{lo, hi}
}

// quantile by linear interpolation; it sorts x.
func quantile(x []float64, q float64) float64 {
	slices.Sort(x)
	at := q * float64(len(x)-1)
	i := int(at)
	if i+1 == len(x) {
		return x[i]
	}
	return x[i] + (at-float64(i))*(x[i+1]-x[i])
}

// Wilson is the 95 % interval of k of n.
func Wilson(k, n int) [2]float64 {
	if n == 0 {
		return [2]float64{0, 1}
	}
	p, m := float64(k)/float64(n), float64(n)
	mid := (p + norm.Z95*norm.Z95/(2*m)) / (1 + norm.Z95*norm.Z95/m)
	half := norm.Z95 * math.Sqrt(p*(1-p)/m+norm.Z95*norm.Z95/(4*m*m)) / (1 + norm.Z95*norm.Z95/m)
	return [2]float64{max(0, mid-half), min(1, mid+half)}
}

// Line is logit(p) = offset + Intercept + Slope x with its errors.
type Line struct {
	Intercept  float64
	Slope      float64
	Covariance [2][2]float64
	LogLik     float64
}

// FitLine is logistic regression of y (case or not) on x beside a fixed offset,
// without penalty, by Newton's method. With slope held at 1 only the intercept
// is fitted. ok is false when there is no finite answer: one class, or cases
// and controls apart without overlap.
func FitLine(x []float64, y []bool, offset float64, holdSlope bool) (l Line, ok bool) {
	l.Slope = 1
	for range 100 {
		var g [2]float64
		var h [2][2]float64
		for i, v := range x {
			p := logistic(offset + l.Intercept + l.Slope*v)
			d, w := -p, p*(1-p)
			if y[i] {
				d++
			}
			g[0] += d
			g[1] += d * v
			h[0][0] += w
			h[0][1] += w * v
			h[1][1] += w * v * v
		}
		var step [2]float64
		if holdSlope {
			if !(h[0][0] > 1e-9) {
				return l, false
			}
			step[0] = g[0] / h[0][0]
			l.Covariance = [2][2]float64{{1 / h[0][0], 0}, {0, 0}}
		} else {
			det := h[0][0]*h[1][1] - h[0][1]*h[0][1]
			if !(det > 1e-9) {
				return l, false
			}
			step[0] = (h[1][1]*g[0] - h[0][1]*g[1]) / det
			step[1] = (h[0][0]*g[1] - h[0][1]*g[0]) / det
			l.Covariance = [2][2]float64{{h[1][1] / det, -h[0][1] / det}, {-h[0][1] / det, h[0][0] / det}}
		}
		l.Intercept += step[0]
		l.Slope += step[1]
		if math.Max(math.Abs(step[0]), math.Abs(step[1])) < 1e-12 {
			l.LogLik = -logLoss(l.probabilities(x, offset), y) * float64(len(x))
			return l, true
		}
		if math.Abs(l.Intercept)+math.Abs(l.Slope) > 50 {
			return l, false
		}
	}
	return l, false
}

func (l Line) probabilities(x []float64, offset float64) []float64 {
	p := make([]float64, len(x))
	for i, v := range x {
		p[i] = logistic(offset + l.Intercept + l.Slope*v)
	}
	return p
}

func logistic(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

func logit(p float64) float64 { return math.Log(p / (1 - p)) }

// Calibration says how far probabilities are what they claim to be.
type Calibration struct {
	Slope         *float64    `json:"slope"` // 1 is right, below 1 too bold; null where it has no finite answer
	SlopeCI95     *[2]float64 `json:"slope_ci95"`
	Intercept     *float64    `json:"intercept"` // slope held at 1; 0 is right
	InterceptCI95 *[2]float64 `json:"intercept_ci95"`
	SpiegelZ      float64     `json:"spiegelhalter_z"`
	SpiegelP      float64     `json:"spiegelhalter_p"`
	Brier         float64     `json:"brier"`
	LogLoss       float64     `json:"log_loss"`
	ECE           float64     `json:"ece_10_bins"`
	ECEPerfect    float64     `json:"ece_if_perfectly_calibrated"`     // its mean at this number of people
	ECEPerfect95  float64     `json:"ece_if_perfectly_calibrated_p95"` // and its 95th percentile
}

// Calibrate judges probabilities of being a case.
func Calibrate(p []float64, y []bool) Calibration {
	var c Calibration
	lp := make([]float64, len(p))
	var top, bottom float64
	for i, v := range p {
		lp[i] = logit(v)
		top += (indicator(y[i]) - v) * (1 - 2*v)
		bottom += (1 - 2*v) * (1 - 2*v) * v * (1 - v)
		c.Brier += (indicator(y[i]) - v) * (indicator(y[i]) - v) / float64(len(p))
	}
	c.SpiegelZ = top / math.Sqrt(bottom)
	c.SpiegelP = 2 * distuv.UnitNormal.Survival(math.Abs(c.SpiegelZ))
	c.LogLoss = logLoss(p, y)
	c.ECE = ece(p, y)
	c.ECEPerfect, c.ECEPerfect95 = expectedECE(p)
	if l, ok := FitLine(lp, y, 0, false); ok {
		c.Slope, c.SlopeCI95 = &l.Slope, around(l.Slope, l.Covariance[1][1])
	}
	if l, ok := FitLine(lp, y, 0, true); ok {
		c.Intercept, c.InterceptCI95 = &l.Intercept, around(l.Intercept, l.Covariance[0][0])
	}
	return c
}

func around(v, variance float64) *[2]float64 {
	half := norm.Z95 * math.Sqrt(variance)
	return &[2]float64{v - half, v + half}
}

func indicator(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func logLoss(p []float64, y []bool) float64 {
	sum := 0.0
	for i, v := range p {
		if !y[i] {
			v = 1 - v
		}
		sum -= math.Log(v)
	}
	return sum / float64(len(p))
}

const eceBins = 10

// ece is the expected calibration error in bins of equal width.
func ece(p []float64, y []bool) float64 {
	var predicted, observed [eceBins]float64
	for i, v := range p {
		b := min(int(v*eceBins), eceBins-1)
		predicted[b] += v
		observed[b] += indicator(y[i])
	}
	sum := 0.0
	for b := range predicted {
		sum += math.Abs(observed[b]-predicted[b]) / float64(len(p))
	}
	return sum
}

// expectedECE is what a perfectly calibrated model with these probabilities
// shows by chance alone.
func expectedECE(p []float64) (mean, p95 float64) {
	const draws = 1000
	r := rand.New(rand.NewPCG(seed, 2))
	y := make([]bool, len(p))
	all := make([]float64, draws)
	for i := range all {
		for j, v := range p {
			y[j] = r.Float64() < v
		}
		all[i] = ece(p, y)
		mean += all[i] / draws
	}
	return mean, quantile(all, .95)
}
