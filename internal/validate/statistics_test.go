package validate

import (
	"encoding/json"
	"math"
	"os"
	"testing"
)

// Against scikit-learn and scipy on drawn scores (fit/oracle_statistics.py).
func TestStatistics(t *testing.T) {
	b, err := os.ReadFile("testdata/oracle_statistics.json")
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Sets []struct {
			Y              []int
			LnLR           []float64 `json:"ln_lr"`
			AUC            float64
			AUCCI95        [2]float64 `json:"auc_ci95"`
			Brier          float64
			ECE            float64
			Spiegelhalter  [2]float64 // z and p
			LogLoss        float64    `json:"log_loss"`
			Line           [2]float64
			LineLogLik     float64 `json:"line_loglik"`
			InterceptAlone float64 `json:"intercept_alone"`
			Slope          float64 `json:"calibration_slope"`
			Calibration    struct {
				SlopeCI95     [2]float64                  `json:"slope_ci95"`
				InterceptCI95 [2]float64                  `json:"intercept_ci95"`
				Perfect       struct{ Mean, P95 float64 } `json:"ece_if_perfectly_calibrated"`
			}
		}
		Wilson []struct {
			K, N int
			CI95 [2]float64
		}
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	near := func(what string, got, want, tolerance float64) {
		t.Helper()
		if !(math.Abs(got-want) <= tolerance) {
			t.Errorf("%s %.9f, want %.9f", what, got, want)
		}
	}
	if len(doc.Sets) < 4 || len(doc.Wilson) < 4 {
		t.Fatalf("%d sets, %d intervals", len(doc.Sets), len(doc.Wilson))
	}
	for _, s := range doc.Sets {
		var cases, controls []float64
		y := make([]bool, len(s.Y))
		for i, v := range s.LnLR {
			if y[i] = s.Y[i] == 1; y[i] {
				cases = append(cases, v)
			} else {
				controls = append(controls, v)
			}
		}
		near("AUC", AUC(cases, controls), s.AUC, 1e-12)
		ci := AUCInterval(cases, controls)
		near("AUC from", ci[0], s.AUCCI95[0], .015) // two bootstraps of 2000
		near("AUC to", ci[1], s.AUCCI95[1], .015)

		offset := prevalence(len(cases), len(controls))
		p := Line{Slope: 1}.probabilities(s.LnLR, offset)
		c := Calibrate(p, y)
		near("Brier", c.Brier, s.Brier, 1e-12)
		near("log loss", c.LogLoss, s.LogLoss, 1e-12)
		near("slope", *c.Slope, s.Slope, 1e-5)
		near("slope from", c.SlopeCI95[0], s.Calibration.SlopeCI95[0], 2e-4) // rounded there
		near("intercept to", c.InterceptCI95[1], s.Calibration.InterceptCI95[1], 2e-4)
		near("Spiegelhalter z", c.SpiegelZ, s.Spiegelhalter[0], 1e-9)
		near("Spiegelhalter p", c.SpiegelP, s.Spiegelhalter[1], 1e-9)
		near("ECE", c.ECE, s.ECE, 1e-9)
		near("ECE by chance", c.ECEPerfect, s.Calibration.Perfect.Mean, .005)
		near("ECE by chance, 95th percentile", c.ECEPerfect95, s.Calibration.Perfect.P95, .012)

		full, ok := FitLine(s.LnLR, y, offset, false)
		if !ok {
			t.Fatal("no line")
		}
		near("line's intercept", full.Intercept, s.Line[0], 1e-5)
		near("line's slope", full.Slope, s.Line[1], 1e-5)
		near("line's log likelihood", full.LogLik, s.LineLogLik, 1e-7)
		one, ok := FitLine(s.LnLR, y, offset, true)
		if !ok || one.Slope != 1 {
			t.Fatal("no intercept")
		}
		near("intercept alone", one.Intercept, s.InterceptAlone, 1e-5)
	}
	for _, w := range doc.Wilson {
		ci := Wilson(w.K, w.N)
		near("Wilson from", ci[0], w.CI95[0], 1e-9)
		near("Wilson to", ci[1], w.CI95[1], 1e-9)
	}
}

func TestNoAnswer(t *testing.T) {
	if !math.IsNaN(AUC(nil, []float64{1})) || !math.IsNaN(AUC([]float64{1}, nil)) {
		t.Error("an AUC of one class")
	}
	if ci := Wilson(0, 0); ci != [2]float64{0, 1} {
		t.Errorf("nobody: %v", ci)
	}
	for name, y := range map[string][]bool{"one class": {true, true, true, true}, "apart": {false, false, true, true}} {
		if _, ok := FitLine([]float64{1, 2, 3, 4}, y, 0, false); ok {
			t.Errorf("%s: a line", name)
		}
	}
	if _, ok := FitLine([]float64{1, 2}, []bool{true, true}, 0, true); ok {
		t.Error("one class: an intercept")
	}
	c := Calibrate([]float64{.2, .3, .7, .8}, []bool{false, false, true, true})
	if c.Slope != nil || c.SlopeCI95 != nil || c.Intercept == nil {
		t.Errorf("%+v", c)
	}
}

// Classes that don't overlap in a few people would overlap in more.
func TestIntervalOfAPerfectAUC(t *testing.T) {
	cases, controls := make([]float64, 10), make([]float64, 12)
	for i := range cases {
		cases[i] = 5 + float64(i)
	}
	want := Wilson(10, 10)
	if ci := AUCInterval(cases, controls); ci != want || ci[0] > .75 {
		t.Errorf("%v, want %v", ci, want)
	}
	if ci := AUCInterval(controls, cases); ci != Wilson(0, 10) {
		t.Errorf("the other way round: %v", ci)
	}
}
