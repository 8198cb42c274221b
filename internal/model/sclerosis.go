package model

import (
	"fmt"

	"neuroscreen"
	"neuroscreen/internal/norm"
)

// asymmetry is the model of mesial temporal sclerosis: for the side that is
// smaller than expected, ln(LR) = intercept + a x asymmetry + b x z of that
// hippocampus, asymmetry in units of its spread in healthy people of that age.
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

// scoreSclerosis scores mesial temporal sclerosis on the side whose
// hippocampus is smaller than the healthy asymmetry lets expect. The flag
// follows asymmetry and z, not the likelihood ratio.
func (m *Models) scoreSclerosis(f Features, s Settings) neuroscreen.Score {
	sm := m.sclerosis
	if why := sm.refusal(f); why != "" {
		return sm.abstain(why)
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
	percent, perLog, percentSE := norm.Asymmetry(left, right)

	side, name, sign, own := "left", "Left-Hippocampus", 1.0, left
	if percent < norm.AsymmetryMean {
		side, name, sign, own = "right", "Right-Hippocampus", -1.0, right
	}
	z, err := m.norms.ZOf(name, own, f.Person, f.Calibration)
	if err != nil {
		return sm.abstain(name + " can't be compared with healthy people: " + err.Error())
	}
	band, sd := "_under_60", sm.SD.Under60
	if f.Person.AgeYears >= 60 {
		band, sd = "_from_60", sm.SD.From60
	}
	c := sm.Sides[side+band]
	a := sign * (percent - norm.AsymmetryMean) / sd
	// How asymmetry and z change with the logarithms of both volumes.
	ofA, ofZ := pair{-sign * perLog / sd, sign * perLog / sd}, pair{0, z.PerLog}
	if side == "left" {
		ofZ = pair{z.PerLog, 0}
	}
	healthyZ := (percent - norm.AsymmetryMean) / norm.AsymmetrySD
	l := logLR{intercept: c.Intercept, contributions: []neuroscreen.Contribution{
		{Feature: "hippocampal_asymmetry_percent", Value: percent, Z: &healthyZ, LogLR: c.Asymmetry * a},
		{Feature: name, Value: own.MM3, Z: &z.Value, LogLR: c.SmallerZ * z.Value},
	}}
	x := []float64{1, a, z.Value}
	for i := range x {
		for j := range x {
			l.coefficientVar += x[i] * c.Covariance[i][j] * x[j]
		}
	}
	g := pair{c.Asymmetry*ofA.left + c.SmallerZ*ofZ.left, c.Asymmetry*ofA.right + c.SmallerZ*ofZ.right}
	// A site moves both sides nearly alike: asymmetry by little, z by much.
	siteZ, siteAsymmetry := c.SmallerZ*z.SiteSE, c.Asymmetry*sm.SiteSD/sd
	l.measureVar = norm.PairVariance("Hippocampus", left, right, g.left, g.right) + siteZ*siteZ + siteAsymmetry*siteAsymmetry
	l.scale(c.believed(norm.MeasurementVariance(left, right, g.left, g.right)))

	flag := s.sclerosisFlag(percent, z.Value)
	if f.QC == neuroscreen.VerdictReview {
		half := 1.959963984540054 * percentSE
		if s.sclerosisFlag(percent-half, z.CI95[0]) != s.sclerosisFlag(percent+half, z.CI95[0]) ||
			s.sclerosisFlag(percent-half, z.CI95[1]) != s.sclerosisFlag(percent+half, z.CI95[1]) ||
			s.sclerosisFlag(percent-half, z.CI95[0]) != s.sclerosisFlag(percent-half, z.CI95[1]) {
			return sm.abstain("the image quality is in doubt and its measurement error could change the flag")
		}
	}
	out := sm.finish(l, beside, neuroscreen.VerdictPass)
	if out.Abstained != nil {
		return out
	}
	out.Flag = flag
	if flag != neuroscreen.FlagNone {
		out.Side = &side
	}
	return out
}
