package model

import (
	"fmt"
	"math"
	"strings"

	"gonum.org/v1/gonum/mat"

	"neuroscreen"
	"neuroscreen/internal/norm"
)

// linear is a model whose ln(LR) is intercept + sum of
// coefficient x (feature - reference).
type linear struct {
	header
	Segmenter  norm.Segmenter    `json:"segmenter"` // whose volumes the model was made on
	Intercept  float64           `json:"intercept"`
	Features   []feature         `json:"features"`
	Covariance [][]float64       `json:"covariance"` // of (intercept, coefficients), at the references
	Conformal  []conformalBounds `json:"conformal"`
	Thresholds []Threshold       `json:"thresholds"`
	sha256     string            // of the file

	correlations *mat.SymDense // of the features in healthy people, for a model of published effects
	// Of a model that was made without structures: the whole one, and which.
	of      *linear
	missing []string
}

// feature is one term. Its name is a structure, which enters as z, or a key of
// plainFeatures.
type feature struct {
	Name        string  `json:"name"`
	Reference   float64 `json:"reference"`
	Coefficient float64 `json:"coefficient"`
}

// plainFeatures are those that are no structure's z. A feature that is absent
// comes with the reason.
var plainFeatures = map[string]func(Features) (value float64, missing string){
	"age_years": func(f Features) (float64, string) { return f.Person.AgeYears, "" },
	"male": func(f Features) (float64, string) {
		if f.Person.Sex == neuroscreen.Male {
			return 1, ""
		}
		return 0, ""
	},
	"intracranial_volume_l": func(f Features) (float64, string) {
		return min(max(*f.Person.ICVMM3, norm.MinTIV), norm.MaxTIV) / 1e6, ""
	},
	"nWBV": func(f Features) (float64, string) {
		switch v := f.NWBV; {
		case v == nil:
			return 0, "nWBV is missing"
		case !(*v > 0.4 && *v < 1):
			return 0, fmt.Sprintf("nWBV %.3g is not a fraction of the head (0.4 to 1)", *v)
		}
		return *f.NWBV, ""
	},
	"MMSE": func(f Features) (float64, string) {
		switch v := f.MMSE; {
		case v == nil:
			return 0, "the MMSE is missing"
		case !(*v >= 0 && *v <= 30):
			return 0, fmt.Sprintf("MMSE %.3g is not between 0 and 30", *v)
		}
		return *f.MMSE, ""
	},
}

func (m *linear) valid() error {
	if err := m.header.valid(); err != nil {
		return err
	}
	n := len(m.Features) + 1
	if n == 1 || len(m.Covariance) != n {
		return fmt.Errorf("%d features, covariance of %d rows", n-1, len(m.Covariance))
	}
	for _, row := range m.Covariance {
		if len(row) != n {
			return fmt.Errorf("covariance row of %d, want %d", len(row), n)
		}
	}
	if intendedUse[m.Name] == "" {
		return fmt.Errorf("no intended use for %q", m.Name)
	}
	if err := m.readCorrelations(); err != nil {
		return err
	}
	return m.readConformalShares()
}

// scoreLinear scores a person with one linear model.
func (m *Models) scoreLinear(lm *linear, f Features, d decision) neuroscreen.Score {
	if why := lm.refusal(f); why != "" {
		return lm.abstain(why)
	}
	all := lm
	lm, missing := all.without(f.LeftOut)
	if lm == nil {
		return all.excluded(missing)
	}
	l := logLR{intercept: lm.Intercept}
	x := []float64{1}              // gradient of ln(LR) over (intercept, coefficients)
	perLog := map[string]float64{} // and over ln(volume)
	var siteSum float64
	for _, t := range lm.Features {
		c := neuroscreen.Contribution{Feature: t.Name}
		at := 0.0
		if plain, ok := plainFeatures[t.Name]; ok {
			v, missing := plain(f)
			if missing != "" {
				return lm.abstain(missing)
			}
			c.Value, at = v, v
		} else {
			v, ok := f.Volumes[t.Name]
			if !ok || !(v.MM3 > 0) {
				return lm.abstain(t.Name + " has no volume")
			}
			z, err := m.norms.ZOf(t.Name, v, f.Person, f.Calibration)
			if err != nil {
				return lm.abstain(t.Name + " can't be compared with healthy people: " + err.Error())
			}
			k := lm.unit(z)
			c.Value, c.Z, at = v.MM3, &z.Value, k*z.Value
			perLog[t.Name] = t.Coefficient * k * z.PerLog
			siteSum += math.Abs(t.Coefficient) * k * z.SiteSE
		}
		c.LogLR = t.Coefficient * (at - t.Reference)
		l.contributions = append(l.contributions, c)
		x = append(x, at-t.Reference)
	}
	l.noiseVar = lm.measurementVariance(perLog, f.Volumes)
	// A site shifts all structures together, at worst in the harmful direction of each.
	l.siteVar = siteSum * siteSum
	for i := range x {
		for j := range x {
			l.coefficientVar += x[i] * lm.Covariance[i][j] * x[j]
		}
	}
	seg := f.Calibration.Segmenter
	set := lm.conformalSet(l.sum(), f.Settings.WithDefaults().ConformalErrorRate, seg)
	if r, _ := m.recalibration(lm, f); r != nil {
		l.hold(lm.LogLRCap) // as the people's were that it was fitted on
		l.recalibrate(*r)
	}
	s := lm.finish(l, d, f.QC)
	s.Without = missing
	if s.Abstained == nil {
		s.Conformal = set
	}
	return s
}

// unit brings z to the scale that the model was trained on, where it is divided
// by the spread between sites too: one site's people were, so that a calibrated
// site's z, which is not divided, would make of them more than they are. Effects
// of papers have no such people, and take z as it comes.
func (m *linear) unit(z norm.Z) float64 {
	if m.Evidence == neuroscreen.ExternalCohort {
		return 1 / z.Wider
	}
	return 1
}

// measurementVariance is the variance that measurement and test-retest errors
// give to the sum of perLog x ln(volume). Both sides of a structure err
// together; different structures are taken as independent.
func (m *linear) measurementVariance(perLog map[string]float64, vols map[string]norm.Measured) float64 {
	sum := 0.0
	for _, t := range m.Features {
		g, ok := perLog[t.Name]
		if !ok {
			continue
		}
		name, v := t.Name, vols[t.Name]
		if structure, ok := strings.CutPrefix(name, "Left-"); ok {
			right := "Right-" + structure
			if other, ok := perLog[right]; ok {
				sum += norm.PairVariance(structure, v, vols[right], g, other)
				continue
			}
		} else if structure, ok := strings.CutPrefix(name, "Right-"); ok {
			if _, ok := perLog["Left-"+structure]; ok {
				continue // counted with the left
			}
		}
		relative := norm.NoiseMM3(name, v) / v.MM3
		sum += g * g * relative * relative
	}
	return sum
}
