package model

import (
	"math"
	"strings"
	"testing"

	"neuroscreen"
	"neuroscreen/internal/norm"
)

func recalibrationOf(name string, seg norm.Segmenter, intercept, slope float64) Recalibration {
	return Recalibration{Model: name, ModelSHA256: Default().linearOf(name).sha256, Segmenter: seg, Intercept: intercept, Slope: slope,
		Covariance: [2][2]float64{{0.04, 0.01}, {0.01, 0.03}}, Cases: 40, Controls: 50}
}

func TestRecalibration(t *testing.T) {
	f := healthy(t, 76, neuroscreen.Female, 1.45e6).with("Left-Hippocampus", 2700)
	plain := first(t, Default().Score(f), neuroscreen.Alzheimers)
	score := func(r Recalibration) neuroscreen.Score {
		g := f
		g.Settings.Recalibrations = []Recalibration{r}
		if err := g.Settings.Validate(); err != nil {
			t.Fatal(err)
		}
		return first(t, Default().Score(g), neuroscreen.Alzheimers)
	}
	got := score(recalibrationOf("alzheimers-scan", norm.FreeSurfer6, -0.4, 0.7))
	if want := -0.4 + 0.7*math.Log(*plain.LikelihoodRatio); math.Abs(math.Log(*got.LikelihoodRatio)-want) > 1e-12 {
		t.Errorf("ln LR %g, want %g", math.Log(*got.LikelihoodRatio), want)
	}
	if *got.Conformal != *plain.Conformal {
		t.Errorf("the conformal set moved: %+v, %+v", got.Conformal, plain.Conformal)
	}
	if !strings.Contains(strings.Join(got.Explanation.Uncertain, " "), "intercept -0.40, slope 0.70, from 40 cases and 50 controls") {
		t.Errorf("not said: %q", got.Explanation.Uncertain)
	}
	// Its own error widens what a mere scaling would give.
	width := func(s neuroscreen.Score) float64 { return math.Log(s.CI95[1] / s.CI95[0]) }
	if w := width(got) / (0.7 * width(plain)); w <= 1.01 {
		t.Errorf("the interval is %.3f of the scaled one", w)
	}

	other := recalibrationOf("alzheimers-scan", norm.FreeSurfer6, -0.4, 0.7)
	other.ModelSHA256 = "another version"
	weights := recalibrationOf("alzheimers-scan", norm.FreeSurfer6, -0.4, 0.7)
	weights.Weights = "other weights"
	f.Calibration.Weights = "these weights"
	shift := recalibrationOf("alzheimers-scan", norm.FreeSurfer6, -0.4, 0.7)
	shift.SiteShift = "fitted under a shift that is no more"
	for name, r := range map[string]Recalibration{
		"another segmenter": recalibrationOf("alzheimers-scan", norm.Network, -0.4, 0.7), "another version": other, "other weights": weights, "another shift": shift,
	} {
		t.Run(name, func(t *testing.T) {
			s := score(r)
			if *s.LikelihoodRatio != *plain.LikelihoodRatio {
				t.Error("applied")
			}
			if !strings.Contains(strings.Join(s.Explanation.Uncertain, " "), "validate again") {
				t.Errorf("not said: %q", s.Explanation.Uncertain)
			}
		})
	}
}

// TestRecalibrationOnAnotherScanner: what was fitted on top of a site's shift
// doesn't count where that doesn't.
func TestRecalibrationOnAnotherScanner(t *testing.T) {
	f := healthy(t, 76, neuroscreen.Female, 1.45e6)
	f.Calibration.SiteShift = &norm.Shift{Layer: norm.LayerSite, Segmenter: norm.FreeSurfer6, Scanners: []norm.Scanner{{Name: "Achieva", FieldStrengthT: 3}}}
	r := recalibrationOf("alzheimers-scan", norm.FreeSurfer6, -0.4, 0.7)
	r.SiteShift = f.Calibration.SiteShift.SHA256()
	f.Settings.Recalibrations = []Recalibration{r}
	for field, want := range map[float64]bool{3: true, 1.5: false} {
		f.Calibration.Scanner = norm.Scanner{Name: "Achieva", FieldStrengthT: field}
		s := first(t, Default().Score(f), neuroscreen.Alzheimers)
		if applied := strings.Contains(strings.Join(s.Explanation.Uncertain, " "), "own recalibration"); applied != want {
			t.Errorf("%g T: applied %v", field, applied)
		}
	}
}

// TestRecalibrationOfHeld: where the model's ln(LR) is held at its cap, as it was
// for the people behind the recalibration, this starts from there.
func TestRecalibrationOfHeld(t *testing.T) {
	f := healthy(t, 76, neuroscreen.Female, 1.45e6).with("Left-Hippocampus", 1500).with("Right-Hippocampus", 1500)
	plain := math.Log(*first(t, Default().Score(f), neuroscreen.Alzheimers).LikelihoodRatio)
	if limit := Default().alzheimersScan.LogLRCap; math.Abs(plain-limit) > 1e-9 {
		t.Fatalf("ln LR %g is not held at %g", plain, limit)
	}
	f.Settings.Recalibrations = []Recalibration{recalibrationOf("alzheimers-scan", norm.FreeSurfer6, 0, 0.5)}
	if got := math.Log(*first(t, Default().Score(f), neuroscreen.Alzheimers).LikelihoodRatio); math.Abs(got-plain/2) > 1e-9 {
		t.Errorf("ln LR %g, want half of %g", got, plain)
	}
}

func TestRecalibrationIsChecked(t *testing.T) {
	for name, change := range map[string]func(*Recalibration){
		"no such model":      func(r *Recalibration) { r.Model = "x" },
		"no linear model":    func(r *Recalibration) { r.Model = "mesial-temporal-sclerosis" },
		"no model's hash":    func(r *Recalibration) { r.ModelSHA256 = "" },
		"no segmenter":       func(r *Recalibration) { r.Segmenter = "" },
		"slope of 0":         func(r *Recalibration) { r.Slope = 0 },
		"negative slope":     func(r *Recalibration) { r.Slope = -1 },
		"slope not a number": func(r *Recalibration) { r.Slope = math.NaN() },
		"intercept too far":  func(r *Recalibration) { r.Intercept = 5 },
		"no covariance":      func(r *Recalibration) { r.Covariance[0][1], r.Covariance[1][0] = 1, 1 },
		"too few people":     func(r *Recalibration) { r.Cases = 19 },
	} {
		t.Run(name, func(t *testing.T) {
			r := recalibrationOf("alzheimers-scan", norm.Network, 0, 1)
			change(&r)
			e := neuroscreen.AsError(Settings{Recalibrations: []Recalibration{r}}.Validate())
			if e == nil || e.Field != "recalibrations" {
				t.Errorf("got %v", e)
			}
		})
	}
	r := recalibrationOf("alzheimers-scan", norm.Network, 0, 1)
	if (Settings{Recalibrations: []Recalibration{r, r}}).Validate() == nil {
		t.Error("two of the same are taken")
	}
}
