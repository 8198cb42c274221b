package model

import (
	"fmt"
	"math"
	"slices"
	"sync"

	"gonum.org/v1/gonum/stat"
	"gonum.org/v1/gonum/stat/distuv"

	"neuroscreen"
	"neuroscreen/internal/norm"
)

// asymmetry is the model of mesial temporal sclerosis. For each side ln(LR) =
// intercept + a x asymmetry + b x z of that hippocampus, asymmetry in units of
// its spread in healthy people of that age. Which side it would be is not known
// beforehand, so the likelihood ratio is the mean of both sides'.
type asymmetry struct {
	header
	SD struct {
		Under60 float64 `json:"under_60"`
		From60  float64 `json:"from_60"`
	} `json:"asymmetry_sd_percent"`
	SiteSD     float64              `json:"asymmetry_between_site_sd_percent"` // of the sites' means
	Sides      map[string]sideModel `json:"sides"`                             // left_under_60, ...
	Thresholds []Threshold          `json:"thresholds"`
}

type sideModel struct {
	Intercept  float64     `json:"intercept"`
	Asymmetry  float64     `json:"asymmetry"`
	SmallerZ   float64     `json:"smaller_side_z"`
	Covariance [][]float64 `json:"covariance"` // of the three above
}

func (m *asymmetry) valid() error {
	if err := m.header.valid(); err != nil {
		return err
	}
	if !(m.SD.Under60 > 0 && m.SD.From60 > 0 && m.SiteSD > 0) {
		return fmt.Errorf("asymmetry_sd_percent %+v, between sites %g", m.SD, m.SiteSD)
	}
	for _, k := range []string{"left_under_60", "left_from_60", "right_under_60", "right_from_60"} {
		s, ok := m.Sides[k]
		if !ok || len(s.Covariance) != 3 || len(s.Covariance[0]) != 3 {
			return fmt.Errorf("sides: %s missing or without its covariance", k)
		}
		if !(s.Intercept < 0) {
			return fmt.Errorf("sides: %s: intercept %g is no discriminant's", k, s.Intercept)
		}
	}
	if intendedUse[m.Name] == "" {
		return fmt.Errorf("no intended use for %q", m.Name)
	}
	return nil
}

// pair is a gradient over ln(left) and ln(right).
type pair struct{ left, right float64 }

// believed is the share of ln(LR) that is left when the volumes' own error gives
// it a variance of noise. The discriminant's score spreads by D2 = w'Rw within
// either group and lies at +-D2/2 (its intercept is -D2/2); measured with error
// it spreads by D2 + noise, and its likelihood ratio is that share of what it
// was. The effects hold FreeSurfer's noise already, so only a segmenter's own
// error counts.
func (c sideModel) believed(noise float64) float64 {
	d2 := -2 * c.Intercept
	return d2 / (d2 + noise)
}

// sideScore is what one side's model says.
type sideScore struct {
	side, name    string
	z             norm.Z
	l             logLR   // with no measurement variance
	g             pair    // change of the sum over the logarithms of both volumes
	siteZ         float64 // change of the sum for one site SD of z
	siteAsymmetry float64 // and for one of asymmetry
}

// scoreSide scores one side; sign is 1 where loss makes the asymmetry larger.
func (m *Models) scoreSide(side string, sign float64, f Features) (s sideScore, why string) {
	left, right := f.Volumes["Left-Hippocampus"], f.Volumes["Right-Hippocampus"]
	own := left
	s.side, s.name = side, "Left-Hippocampus"
	if side == "right" {
		own, s.name = right, "Right-Hippocampus"
	}
	var err error
	if s.z, err = m.norms.ZOf(s.name, own, f.Person, f.Calibration); err != nil {
		return s, s.name + " can't be compared with healthy people: " + err.Error()
	}
	sm := m.sclerosis
	band, sd := sm.band(f.Person.AgeYears)
	c := sm.Sides[side+"_"+band]
	percent, perLog, _ := norm.Asymmetry(left, right)
	a := sign * (percent - norm.AsymmetryMean) / sd
	healthyZ := (percent - norm.AsymmetryMean) / norm.AsymmetrySD
	s.l = logLR{intercept: c.Intercept, contributions: []neuroscreen.Contribution{
		{Feature: "hippocampal_asymmetry_percent", Value: percent, Z: &healthyZ, LogLR: c.Asymmetry * a},
		{Feature: s.name, Value: own.MM3, Z: &s.z.Value, LogLR: c.SmallerZ * s.z.Value},
	}}
	x := []float64{1, a, s.z.Value}
	for i := range x {
		for j := range x {
			s.l.coefficientVar += x[i] * c.Covariance[i][j] * x[j]
		}
	}
	ofA := c.Asymmetry * sign * perLog / sd
	s.g = pair{-ofA, ofA}
	if side == "left" {
		s.g.left += c.SmallerZ * s.z.PerLog
	} else {
		s.g.right += c.SmallerZ * s.z.PerLog
	}
	k := c.believed(norm.MeasurementVariance(left, right, s.g.left, s.g.right))
	s.l.scale(k)
	s.g = pair{k * s.g.left, k * s.g.right}
	s.siteZ, s.siteAsymmetry = k*c.SmallerZ*s.z.SiteSE, k*c.Asymmetry*sign*sm.SiteSD/sd
	return s, ""
}

// band is the age band of the model and the spread of healthy asymmetry in it.
func (m *asymmetry) band(ageYears float64) (name string, sd float64) {
	if ageYears >= 60 {
		return "from_60", m.SD.From60
	}
	return "under_60", m.SD.Under60
}

// scoreSclerosis scores mesial temporal sclerosis on either side and names the
// side whose hippocampus is smaller than the healthy asymmetry lets expect. The
// flag follows asymmetry and z, not the likelihood ratio.
func (m *Models) scoreSclerosis(f Features, s Settings) neuroscreen.Score {
	sm := m.sclerosis
	if why := sm.refusal(f); why != "" {
		return sm.abstain(why)
	}
	if missing := needed([]string{"Left-Hippocampus", "Right-Hippocampus"}, f.LeftOut); len(missing) > 0 {
		return sm.excluded(missing)
	}
	left, right := f.Volumes["Left-Hippocampus"], f.Volumes["Right-Hippocampus"]
	for _, h := range []struct {
		name string
		v    norm.Measured
	}{{"Left-Hippocampus", left}, {"Right-Hippocampus", right}} {
		if !(h.v.MM3 > 0) {
			return sm.abstain(h.name + " has no volume")
		}
	}
	smaller, why := m.scoreSide("left", 1, f)
	if why != "" {
		return sm.abstain(why)
	}
	other, why := m.scoreSide("right", -1, f)
	if why != "" {
		return sm.abstain(why)
	}
	zs := zPair{smaller.z, other.z}
	percent, _, percentSE := norm.Asymmetry(left, right)
	if percent < norm.AsymmetryMean {
		smaller, other = other, smaller
	}

	flag := s.sclerosisFlag(percent, smaller.z.Value)
	if f.QC == neuroscreen.VerdictReview {
		half := norm.Z95 * percentSE
		// An interval that holds the healthy mean reaches from one side to the other.
		if flag != neuroscreen.FlagNone && math.Abs(percent-norm.AsymmetryMean) < half {
			return sm.doubtful()
		}
		for _, p := range []float64{percent - half, percent + half} {
			z := zs.smaller(p)
			for _, at := range []float64{z.Value - norm.Z95*z.NoiseSE, z.Value + norm.Z95*z.NoiseSE} {
				if none := neuroscreen.FlagNone; (s.sclerosisFlag(p, at) == none) != (flag == none) {
					return sm.doubtful()
				}
			}
		}
	}
	out := sm.finish(eitherSide(smaller, other, left, right), beside, neuroscreen.VerdictPass)
	if out.Abstained != nil {
		return out
	}
	out.Flag = flag
	if flag != neuroscreen.FlagNone {
		out.Side = &smaller.side
	}
	return out
}

// eitherSide is ln((LR + LR of the other side) / 2): the smaller side's terms
// and one for the side that was not known.
func eitherSide(smaller, other sideScore, left, right norm.Measured) logLR {
	a, b := smaller.l.sum(), other.l.sum()
	l := logLR{intercept: smaller.l.intercept, contributions: append(slices.Clone(smaller.l.contributions),
		neuroscreen.Contribution{Feature: sideNotKnown, Value: logistic(b - a), LogLR: meanOfBoth(a, b) - a})}
	if math.IsNaN(l.sum()) || math.IsInf(l.sum(), 0) {
		return l // of volumes that are none; finish abstains
	}

	// Of an asymmetry that could be either, both sides' sums are far from where
	// they would be if it were known, so the interval is that of the mean itself:
	// its quantiles under normal errors of the two.
	cov := func(x, y sideScore) float64 {
		v := func(g pair) float64 { return norm.PairVariance("Hippocampus", left, right, g.left, g.right) }
		both := v(pair{x.g.left + y.g.left, x.g.right + y.g.right})
		// A site moves both sides nearly alike: asymmetry by little, z by much.
		return (both-v(x.g)-v(y.g))/2 + x.siteZ*y.siteZ + x.siteAsymmetry*y.siteAsymmetry
	}
	// The two sides' coefficients come from different patients.
	va, vb := cov(smaller, smaller)+smaller.l.coefficientVar, cov(other, other)+other.l.coefficientVar
	sa := math.Sqrt(va)
	along := cov(smaller, other) / sa
	across := math.Sqrt(max(0, vb-along*along))
	nodes := normalNodes()
	values := make([]float64, 0, len(nodes)*len(nodes))
	for _, u := range nodes {
		for _, w := range nodes {
			values = append(values, meanOfBoth(a+sa*u, b+along*u+across*w))
		}
	}
	slices.Sort(values)
	l.bounds = &[2]float64{stat.Quantile(0.025, stat.LinInterp, values, nil), stat.Quantile(0.975, stat.LinInterp, values, nil)}
	return l
}

// normalNodes are the middles of slices of the normal distribution of equal
// weight: enough of them for an interval's ends to within 3 % of its width.
var normalNodes = sync.OnceValue(func() []float64 {
	x := make([]float64, 64)
	for i := range x {
		x[i] = distuv.UnitNormal.Quantile((float64(i) + 0.5) / float64(len(x)))
	}
	return x
})

// meanOfBoth is ln((e^a + e^b) / 2).
func meanOfBoth(a, b float64) float64 {
	return max(a, b) + math.Log1p(math.Exp(-math.Abs(a-b))) - math.Ln2
}

// sideNotKnown is the term for having looked at both sides: ln 1/2 where one is
// far the likelier, 0 where both are alike.
const sideNotKnown = "side_not_known"

// zPair holds the z of the left and the right hippocampus.
type zPair [2]norm.Z

// smaller is that of the side which an asymmetry makes the smaller one.
func (z zPair) smaller(asymmetryPercent float64) norm.Z {
	if asymmetryPercent < norm.AsymmetryMean {
		return z[1]
	}
	return z[0]
}

func logistic(x float64) float64 { return 1 / (1 + math.Exp(-x)) }
