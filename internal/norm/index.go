package norm

import (
	"math"

	"neuroscreen"
)

// Hippocampal asymmetry 100 (R-L)/(R+L) of healthy people with FreeSurfer:
// mean 1.6 % (NOMIS's expected volumes, both sexes, 30 to 70 years, 1.5 to
// 1.7 %); SD 2.16 % from the 90th percentile of 4.4 % in 2,082 people of the
// Dallas Heart Study (PMC7964497).
//
// The means of sites differ by an SD of 0.35 % (data sets of OpenNeuro, the
// model of mesial temporal sclerosis has it from there): far less than each
// side's volume does.
const (
	AsymmetryMean   = 1.6
	AsymmetrySD     = 2.16
	AsymmetrySiteSD = 0.35
)

// hocCorrelation is between hippocampus and ln(inferior lateral ventricle),
// given age, sex and head size. An assumption: no published figure was found,
// and 73 healthy people of 60 and over (OpenNeuro) give -0.17 on average of both
// sides, 778 younger ones 0. At 0 the interval is a twentieth narrower.
const hocCorrelation = -0.3

// brainParts sums to FreeSurfer's BrainSegVolNotVent plus the brain stem.
var brainParts = []string{
	"Cerebral-White-Matter", "Cerebral-Cortex", "Cerebellum-White-Matter", "Cerebellum-Cortex", "Thalamus", "Caudate",
	"Putamen", "Pallidum", "Hippocampus", "Amygdala", "Accumbens-area", "VentralDC",
}

// Asymmetry returns 100 (R-L)/(R+L) of the hippocampi, its change over that of
// ln(right) (with ln(left) it changes by as much the other way), and its
// standard error from the measurement's and the test-retest errors.
func Asymmetry(left, right Measured) (percent, perLog, se float64) {
	l, r := left.MM3, right.MM3
	s := l + r
	perLog = 200 * l * r / (s * s)
	return 100 * (r - l) / s, perLog, math.Sqrt(PairVariance("Hippocampus", left, right, -perLog, perLog))
}

// indices returns the derived numbers that the volumes allow, each with the 5
// to 95 % interval of healthy people where the norm reaches.
func (n *Norms) indices(vols map[string]Measured, p Person, cal Calibration) []neuroscreen.Index {
	var out []neuroscreen.Index
	left, right := vols["Left-Hippocampus"], vols["Right-Hippocampus"]
	if usable(left.MM3) && usable(right.MM3) {
		ai, _, se := Asymmetry(left, right)
		se = math.Hypot(se, AsymmetrySiteSD)
		out = append(out, neuroscreen.Index{
			Name: "hippocampal_asymmetry_percent", Value: ai, CI95: &[2]float64{ai - Z95*se, ai + Z95*se},
			Reference: &[2]float64{AsymmetryMean - z90*AsymmetrySD, AsymmetryMean + z90*AsymmetrySD},
		})
	}
	for _, side := range []struct{ index, prefix string }{{"hoc_left", "Left-"}, {"hoc_right", "Right-"}} {
		h, v := vols[side.prefix+"Hippocampus"], vols[side.prefix+"Inf-Lat-Vent"]
		if !usable(h.MM3) || !usable(v.MM3) {
			continue
		}
		out = append(out, neuroscreen.Index{Name: side.index, Value: h.MM3 / (h.MM3 + v.MM3), CI95: n.hocInterval(side.prefix, h, v, p, cal), Reference: n.hocReference(side.prefix, p, cal)})
	}
	if p.ICVMM3 != nil && PlausibleICV(*p.ICVMM3) {
		if brain, ok := brainVolume(vols); ok {
			out = append(out, neuroscreen.Index{Name: "brain_parenchymal_fraction", Value: brain / *p.ICVMM3, Reference: n.fractionReference(p, cal)})
		}
	}
	return out
}

// PlausibleICV rejects what is no adult head in mm3, above all a figure in cm3.
func PlausibleICV(icv float64) bool { return icv >= 5e5 && icv <= 3e6 }

// hocInterval is the 95 % interval of a measured H / (H + V), from both
// volumes' errors on the logit and the site's; they are taken as independent.
func (n *Norms) hocInterval(prefix string, h, v Measured, p Person, cal Calibration) *[2]float64 {
	variance := 0.0
	for name, m := range map[string]Measured{prefix + "Hippocampus": h, prefix + "Inf-Lat-Vent": v} {
		site := n.BetweenSitesMM3(name, m.MM3) / m.MM3
		if l, err := n.locate(name, p, cal, false); err == nil {
			site = l.siteSD / (l.slope(m.MM3) * m.MM3)
		}
		noise := NoiseMM3(name, m) / m.MM3
		variance += noise*noise + site*site
	}
	mu, half := math.Log(h.MM3/v.MM3), Z95*math.Sqrt(variance)
	return &[2]float64{logistic(mu - half), logistic(mu + half)}
}

func logistic(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

// hocReference is the 5 to 95 % interval of H / (H + V): logit(HOC) is
// ln H - ln V, taken as normal; ln H by its first-order spread.
func (n *Norms) hocReference(prefix string, p Person, cal Calibration) *[2]float64 {
	h, err := n.locate(prefix+"Hippocampus", p, cal, false)
	if err != nil {
		return nil
	}
	v, err := n.locate(prefix+"Inf-Lat-Vent", p, cal, false)
	if err != nil || h.mu <= 0 {
		return nil
	}
	sh, sv := h.total()/h.mu, v.total()*math.Ln10
	mu := math.Log(h.mu) - v.mu*math.Ln10
	sd := math.Sqrt(sh*sh + sv*sv - 2*hocCorrelation*sh*sv)
	return &[2]float64{logistic(mu - z90*sd), logistic(mu + z90*sd)}
}

// fractionReference is the 5 to 95 % interval of (BrainSegVolNotVent + brain
// stem) / intracranial volume. The brain stem's spread is 4 % of the brain's
// and independence of the two is assumed.
func (n *Norms) fractionReference(p Person, cal Calibration) *[2]float64 {
	b, err := n.locate("BrainSegVolNotVent", p, cal, false)
	if err != nil {
		return nil
	}
	s, err := n.locate("Brain-Stem", p, cal, false)
	if err != nil {
		return nil
	}
	tiv := min(max(*p.ICVMM3, MinTIV), MaxTIV) // the head size that the expected volumes are for
	mu, sd := b.mu+s.mu, math.Hypot(b.total(), s.total())
	return &[2]float64{(mu - z90*sd) / tiv, (mu + z90*sd) / tiv}
}

// brainVolume returns the brain's tissue without ventricles and CSF: from
// FreeSurfer's own sum if it is given, else from every structure.
func brainVolume(vols map[string]Measured) (float64, bool) {
	stem, ok := vols["Brain-Stem"]
	if !ok {
		return 0, false
	}
	if b, ok := vols["BrainSegVolNotVent"]; ok && usable(b.MM3) {
		return b.MM3 + stem.MM3, true
	}
	sum := stem.MM3
	for _, part := range brainParts {
		for _, side := range []string{"Left-", "Right-"} {
			v, ok := vols[side+part]
			if !ok {
				return 0, false
			}
			sum += v.MM3
		}
	}
	return sum, true
}
