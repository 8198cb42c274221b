package model

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"neuroscreen"
	"neuroscreen/internal/norm"
)

// healthy returns the features of a person whose volumes are what the norm
// expects of FreeSurfer 6.
func healthy(t testing.TB, age float64, sex neuroscreen.Sex, icv float64) Features {
	t.Helper()
	f := Features{
		Person:      norm.Person{AgeYears: age, Sex: sex, ICVMM3: &icv},
		Calibration: norm.Calibration{Segmenter: norm.FreeSurfer6},
		Volumes:     map[string]norm.Measured{},
		QC:          neuroscreen.VerdictPass,
	}
	for _, s := range norm.Default().Structures() {
		if r, err := norm.Default().Reference(s, f.Person, f.Calibration); err == nil {
			f.Volumes[s] = norm.Measured{MM3: r.ExpectedMM3, SE: 0.005 * r.ExpectedMM3}
		}
	}
	return f
}

func (f Features) with(name string, mm3 float64) Features {
	v := map[string]norm.Measured{}
	for k, m := range f.Volumes {
		v[k] = m
	}
	v[name] = norm.Measured{MM3: mm3, SE: 0.005 * mm3}
	f.Volumes = v
	return f
}

// first returns the deciding score of a condition.
func first(t testing.TB, scores []neuroscreen.Score, c neuroscreen.Condition) neuroscreen.Score {
	t.Helper()
	for _, s := range scores {
		if s.Condition == c {
			return s
		}
	}
	t.Fatalf("no score of %s", c)
	return neuroscreen.Score{}
}

func abstention(s neuroscreen.Score) string {
	if s.Abstained == nil {
		return ""
	}
	return *s.Abstained
}

func TestAddsUp(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		f := healthy(t, rapid.Float64Range(18, 100).Draw(rt, "age"),
			rapid.SampledFrom([]neuroscreen.Sex{neuroscreen.Female, neuroscreen.Male}).Draw(rt, "sex"), rapid.Float64Range(1e6, 2.1e6).Draw(rt, "icv"))
		for _, s := range []string{"Left-Hippocampus", "Right-Hippocampus", "Left-Amygdala", "Left-Putamen", "Left-Thalamus", "Right-Inf-Lat-Vent"} {
			f = f.with(s, f.Volumes[s].MM3*rapid.Float64Range(0.2, 2).Draw(rt, s))
		}
		f.Calibration.Segmenter = rapid.SampledFrom([]norm.Segmenter{"", "fs5", "fs6", "fs7", "neuroscreen", "oasis1"}).Draw(rt, "segmenter")
		if rapid.Bool().Draw(rt, "table") {
			v, w := rapid.Float64Range(0.6, 0.9).Draw(rt, "nWBV"), rapid.Float64Range(0, 30).Draw(rt, "MMSE")
			f.NWBV, f.MMSE = &v, &w
		}
		if rapid.Bool().Draw(rt, "recalibrated") {
			f.Settings.Recalibrations = []Recalibration{recalibrationOf("alzheimers-scan", f.Calibration.Segmenter, rapid.Float64Range(-1, 1).Draw(rt, "intercept"), rapid.Float64Range(0.2, 2).Draw(rt, "slope"))}
		}
		f.QC = rapid.SampledFrom([]neuroscreen.Verdict{neuroscreen.VerdictPass, neuroscreen.VerdictReview}).Draw(rt, "qc")
		f.Settings.AlzheimersPriors = []AgePrior{{18, rapid.Float64Range(0.001, 0.9).Draw(rt, "prior")}}
		for _, s := range Default().Score(f) {
			if s.Abstained != nil {
				if s.LikelihoodRatio != nil || s.Posterior != nil || s.CI95 != nil || s.Flag != neuroscreen.FlagNone || s.Side != nil || s.Contributions == nil {
					rt.Fatalf("abstained and still says something: %+v", s)
				}
				continue
			}
			sum := s.Intercept
			for _, c := range s.Contributions {
				sum += c.LogLR
			}
			ln := math.Log(*s.LikelihoodRatio)
			if math.Abs(ln-sum) > 1e-9 {
				rt.Fatalf("%s: ln LR %g, sum %g", s.Model, ln, sum)
			}
			if (s.Prior == nil) != (s.Posterior == nil) {
				rt.Fatalf("%s: prior %v, posterior %v", s.Model, s.Prior, s.Posterior)
			}
			if s.Prior != nil {
				logit := func(p float64) float64 { return math.Log(p / (1 - p)) }
				if math.Abs(logit(*s.Posterior)-logit(*s.Prior)-ln) > 1e-9 {
					rt.Fatalf("%s: posterior %g from prior %g and LR %g", s.Model, *s.Posterior, *s.Prior, *s.LikelihoodRatio)
				}
			}
			if lr := *s.LikelihoodRatio; !(s.CI95[0] <= lr && lr <= s.CI95[1]) || s.CI95[0] == s.CI95[1] {
				rt.Fatalf("%s: interval %v of LR %g", s.Model, s.CI95, lr)
			}
			if s.IntendedUse == "" {
				rt.Fatalf("%s has no intended use", s.Model)
			}
			if s.Condition == neuroscreen.Parkinsons && (s.Flag == neuroscreen.FlagFlagged || *s.LikelihoodRatio > 2+1e-9 || *s.LikelihoodRatio < 0.5-1e-9) {
				rt.Fatalf("Parkinson's claims too much: %+v", s)
			}
		}
	})
}

// Scores of people who do not exist are those that the fitting scripts computed
// (scikit-learn's decision function for the trained models).
func TestOracle(t *testing.T) {
	m := Default()
	for name, seg := range map[string]norm.Segmenter{
		"alzheimers-scan": m.alzheimersScan.Segmenter, "alzheimers-table": m.alzheimersTable.Segmenter, "alzheimers-mmse": m.alzheimersMMSE.Segmenter,
		"alzheimers-effects": m.alzheimersEffects.Segmenter, "parkinsons": m.parkinsons.Segmenter, "mesial-temporal-sclerosis": norm.FreeSurfer6,
	} {
		score := func(f Features) neuroscreen.Score {
			if lm := m.linearOf(name); lm != nil {
				wide := *lm
				wide.LogLRCap, wide.AgeYears = math.Inf(1), [2]float64{18, 100}
				return m.scoreLinear(&wide, f, beside)
			}
			wide := *m.sclerosis
			wide.LogLRCap = math.Inf(1)
			return (&Models{norms: m.norms, sclerosis: &wide}).scoreSclerosis(f, Settings{}.WithDefaults())
		}
		t.Run(name, func(t *testing.T) {
			b, err := os.ReadFile(filepath.Join("testdata", "oracle_"+name+".json"))
			if err != nil {
				t.Fatal(err)
			}
			var doc struct {
				People []struct {
					Age, Male float64
					ICV       float64 `json:"icv_mm3"`
					NWBV      float64
					MMSE      float64
					Volumes   map[string]float64
					LnLR      float64 `json:"ln_lr"`
				}
			}
			if err := json.Unmarshal(b, &doc); err != nil {
				t.Fatal(err)
			}
			if len(doc.People) < 6 {
				t.Fatalf("%d people", len(doc.People))
			}
			for i, p := range doc.People {
				f := Features{Person: norm.Person{AgeYears: p.Age, Sex: neuroscreen.Female, ICVMM3: &p.ICV}, NWBV: &p.NWBV, MMSE: &p.MMSE, Volumes: map[string]norm.Measured{}}
				f.Calibration.Segmenter = seg
				if p.Male == 1 {
					f.Person.Sex = neuroscreen.Male
				}
				for s, v := range p.Volumes {
					f.Volumes[s] = norm.Measured{MM3: v}
				}
				s := score(f)
				if s.Abstained != nil {
					t.Fatalf("person %d: %s", i, *s.Abstained)
				}
				if got := math.Log(*s.LikelihoodRatio); math.Abs(got-p.LnLR) > 1e-9 {
					t.Errorf("person %d: ln LR %.12f, want %.12f", i, got, p.LnLR)
				}
			}
		})
	}
}

func TestSclerosis(t *testing.T) {
	base := healthy(t, 40, neuroscreen.Male, 1.5e6)
	l, r := base.Volumes["Left-Hippocampus"].MM3, base.Volumes["Right-Hippocampus"].MM3
	for name, tc := range map[string]struct {
		left, right float64
		flag        neuroscreen.Flag
		side        string
	}{
		"left small":                        {1438, 4848, neuroscreen.FlagFlagged, "left"},
		"mirrored":                          {4848, 1438, neuroscreen.FlagFlagged, "right"},
		"ordinary":                          {l, r, neuroscreen.FlagNone, ""},
		"equal":                             {r, r, neuroscreen.FlagNone, ""},
		"a little larger on the right":      {l, l * 1.047, neuroscreen.FlagNone, ""},
		"a little larger on the left":       {r * 1.04, r, neuroscreen.FlagNone, ""},
		"left shrunk by 40 %":               {0.6 * l, r, neuroscreen.FlagFlagged, "left"},
		"right shrunk by 40 %":              {l, 0.6 * r, neuroscreen.FlagFlagged, "right"},
		"asymmetric but neither side small": {1.1 * l, 1.35 * r, neuroscreen.FlagReview, "left"},
		"both small, as in bilateral disease, leaves no asymmetry": {0.6 * l, 0.6 * r, neuroscreen.FlagNone, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := first(t, Default().Score(base.with("Left-Hippocampus", tc.left).with("Right-Hippocampus", tc.right)), neuroscreen.MesialTemporalSclerosis)
			if s.Abstained != nil {
				t.Fatal(*s.Abstained)
			}
			side := ""
			if s.Side != nil {
				side = *s.Side
			}
			if s.Flag != tc.flag || side != tc.side {
				t.Errorf("flag %s side %q, want %s %q (LR %g)", s.Flag, side, tc.flag, tc.side, *s.LikelihoodRatio)
			}
			if tc.flag == neuroscreen.FlagFlagged && *s.LikelihoodRatio < 10 {
				t.Errorf("likelihood ratio only %g", *s.LikelihoodRatio)
			}
			if s.Posterior != nil {
				t.Error("a posterior without a prior")
			}
		})
	}
}

// The 40 % must be found at every adult age, head size, sex and segmenter.
func TestSclerosisIsFoundEverywhere(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		base := healthy(t, rapid.Float64Range(18, 85).Draw(rt, "age"),
			rapid.SampledFrom([]neuroscreen.Sex{neuroscreen.Female, neuroscreen.Male}).Draw(rt, "sex"), rapid.Float64Range(1.1e6, 2.0e6).Draw(rt, "icv"))
		base.Calibration.Segmenter = rapid.SampledFrom([]norm.Segmenter{"", "fs5", "fs6", "fs7", "neuroscreen"}).Draw(rt, "segmenter")
		side := rapid.SampledFrom([]string{"left", "right"}).Draw(rt, "side")
		name := map[string]string{"left": "Left-Hippocampus", "right": "Right-Hippocampus"}[side]
		s := first(t, Default().Score(base.with(name, 0.6*base.Volumes[name].MM3)), neuroscreen.MesialTemporalSclerosis)
		if s.Flag != neuroscreen.FlagFlagged || s.Side == nil || *s.Side != side {
			rt.Fatalf("%+v", s)
		}
	})
}

func TestAlzheimers(t *testing.T) {
	well := healthy(t, 74, neuroscreen.Female, 1.45e6)
	ill := well.with("Left-Hippocampus", 2000).with("Right-Hippocampus", 2100)
	a, b := first(t, Default().Score(well), neuroscreen.Alzheimers), first(t, Default().Score(ill), neuroscreen.Alzheimers)
	if *a.LikelihoodRatio >= 1 || a.Flag != neuroscreen.FlagNone {
		t.Errorf("ordinary volumes: LR %g, %s", *a.LikelihoodRatio, a.Flag)
	}
	if *b.LikelihoodRatio < 5 || b.Flag != neuroscreen.FlagFlagged {
		t.Errorf("very small hippocampi: LR %g, %s", *b.LikelihoodRatio, b.Flag)
	}
	if a.Evidence != neuroscreen.ExternalCohort || a.Model != "alzheimers-scan" || *a.Prior != 0.05 {
		t.Errorf("%+v", a)
	}
	nwbv, mmse := 0.72, 22.0
	ill.NWBV, ill.MMSE = &nwbv, &mmse
	var names []string
	for _, s := range Default().Score(ill) {
		names = append(names, s.Model)
		if beside := s.Model == "alzheimers-mmse" || s.Model == "alzheimers-effects"; beside && (s.Flag != neuroscreen.FlagNone || s.Prior != nil) {
			t.Errorf("%s decides something: %+v", s.Model, s)
		}
	}
	if got := strings.Join(names, " "); got != "alzheimers-table alzheimers-mmse alzheimers-effects parkinsons mesial-temporal-sclerosis" {
		t.Errorf("scores %s", got)
	}
}

func TestAbstains(t *testing.T) {
	base := healthy(t, 74, neuroscreen.Female, 1.45e6)
	cm3 := 1450.0
	nwbv := 720.0
	for name, tc := range map[string]struct {
		change func(*Features)
		c      neuroscreen.Condition
		want   string // part of the reason; "" if it must not abstain
	}{
		"a healthy person of 30":      {func(f *Features) { *f = healthy(t, 30, neuroscreen.Female, 1.45e6) }, neuroscreen.Alzheimers, "the age is outside"},
		"epilepsy at 30":              {func(f *Features) { *f = healthy(t, 30, neuroscreen.Female, 1.45e6) }, neuroscreen.MesialTemporalSclerosis, ""},
		"a child":                     {func(f *Features) { f.Person.AgeYears = 12 }, neuroscreen.MesialTemporalSclerosis, "the age is outside"},
		"age missing":                 {func(f *Features) { f.Person.AgeYears = math.NaN() }, neuroscreen.Parkinsons, "age is missing"},
		"sex missing":                 {func(f *Features) { f.Person.Sex = "" }, neuroscreen.Alzheimers, "sex is missing"},
		"head size missing":           {func(f *Features) { f.Person.ICVMM3 = nil }, neuroscreen.Alzheimers, "head size"},
		"head size in cm3":            {func(f *Features) { f.Person.ICVMM3 = &cm3 }, neuroscreen.Alzheimers, "cm3"},
		"failed quality control":      {func(f *Features) { f.QC = neuroscreen.VerdictRefuse }, neuroscreen.Parkinsons, "quality"},
		"a contrast agent":            {func(f *Features) { f.Withhold = "a contrast agent was given" }, neuroscreen.Alzheimers, "a contrast agent was given"},
		"hippocampus missing":         {func(f *Features) { delete(f.Volumes, "Left-Hippocampus") }, neuroscreen.Alzheimers, "Left-Hippocampus has no volume"},
		"nWBV of another unit":        {func(f *Features) { f.NWBV = &nwbv }, neuroscreen.Alzheimers, "nWBV 720"},
		"doubtful image, clear score": {func(f *Features) { f.QC = neuroscreen.VerdictReview }, neuroscreen.MesialTemporalSclerosis, ""},
		"doubtful image, a limit within its error": {func(f *Features) {
			*f = f.with("Left-Hippocampus", 3050).with("Right-Hippocampus", 3150)
			f.QC = neuroscreen.VerdictReview
		}, neuroscreen.Alzheimers, "decides whether anything is flagged"},
		"doubtful image, to be reviewed at the least": {func(f *Features) {
			*f = f.with("Left-Hippocampus", 2700).with("Right-Hippocampus", 2800)
			f.QC = neuroscreen.VerdictReview
		}, neuroscreen.Alzheimers, ""},
		"doubtful image, a flag that the site's spread alone could change": {func(f *Features) {
			*f = f.with("Left-Hippocampus", 2600).with("Right-Hippocampus", 2700)
			f.QC = neuroscreen.VerdictReview
		}, neuroscreen.Alzheimers, ""},
		"doubtful image, asymmetry near the limit": {func(f *Features) {
			*f = f.with("Left-Hippocampus", 0.9*f.Volumes["Left-Hippocampus"].MM3)
			f.QC = neuroscreen.VerdictReview
		}, neuroscreen.MesialTemporalSclerosis, "decides whether anything is flagged"},
		"doubtful image, either side could be flagged": {func(f *Features) {
			f.Volumes["Left-Hippocampus"], f.Volumes["Right-Hippocampus"] = norm.Measured{MM3: 1200, SE: 140}, norm.Measured{MM3: 1480, SE: 172}
			f.QC = neuroscreen.VerdictReview
		}, neuroscreen.MesialTemporalSclerosis, "decides whether anything is flagged"},
		"volumes beyond all numbers": {func(f *Features) { *f = f.with("Left-Hippocampus", 1e200).with("Right-Hippocampus", 1e200) },
			neuroscreen.MesialTemporalSclerosis, "not a finite number"},
		"doubtful image, an ordinary asymmetry that could lie beyond either limit": {func(f *Features) {
			for _, name := range []string{"Left-Hippocampus", "Right-Hippocampus"} {
				v := f.Volumes[name].MM3
				f.Volumes[name] = norm.Measured{MM3: v, SE: 0.07 * v}
			}
			f.QC = neuroscreen.VerdictReview
		}, neuroscreen.MesialTemporalSclerosis, "decides whether anything is flagged"},
	} {
		t.Run(name, func(t *testing.T) {
			f := base.with("CSF", 1) // a copy of the volumes
			tc.change(&f)
			got := abstention(first(t, Default().Score(f), tc.c))
			if (tc.want == "") != (got == "") || !strings.Contains(got, tc.want) {
				t.Errorf("abstained %q, want %q", got, tc.want)
			}
		})
	}
}

// calibrated has a control shift of hippocampi that finds the norm right.
func calibrated(f Features) Features {
	f.Calibration.SiteShift = &norm.Shift{Layer: norm.LayerSite, Segmenter: norm.FreeSurfer6, Structures: map[string]norm.Moments{
		"Left-Hippocampus": {N: 50, SDZ: 1}, "Right-Hippocampus": {N: 50, SDZ: 1}}}
	return f
}

// A control shift that finds the norm right leaves a trained model's likelihood
// ratio where it is, though z then is that of a narrower spread, and takes the
// doubt about the site out of its interval.
func TestCalibratedSite(t *testing.T) {
	f := healthy(t, 74, neuroscreen.Female, 1.45e6).with("Left-Hippocampus", 2700).with("Right-Hippocampus", 2800)
	g := calibrated(f)
	a, b := first(t, Default().Score(f), neuroscreen.Alzheimers), first(t, Default().Score(g), neuroscreen.Alzheimers)
	if *b.Contributions[0].Z >= *a.Contributions[0].Z {
		t.Fatalf("z %.2f, calibrated %.2f: the shift is not applied", *a.Contributions[0].Z, *b.Contributions[0].Z)
	}
	if math.Abs(math.Log(*b.LikelihoodRatio / *a.LikelihoodRatio)) > 1e-9 {
		t.Errorf("likelihood ratio %g, calibrated %g", *a.LikelihoodRatio, *b.LikelihoodRatio)
	}
	if wide, narrow := math.Log(a.CI95[1]/a.CI95[0]), math.Log(b.CI95[1]/b.CI95[0]); narrow > 0.8*wide {
		t.Errorf("the interval is %.2f wide in logarithms, calibrated %.2f", wide, narrow)
	}
}

// More measurement error widens the interval and moves nothing.
func TestMeasurementErrorWidens(t *testing.T) {
	f := healthy(t, 74, neuroscreen.Female, 1.45e6)
	g := f.with("Left-Hippocampus", f.Volumes["Left-Hippocampus"].MM3)
	g.Volumes["Left-Hippocampus"] = norm.Measured{MM3: f.Volumes["Left-Hippocampus"].MM3, SE: 400}
	a, b := first(t, Default().Score(f), neuroscreen.Alzheimers), first(t, Default().Score(g), neuroscreen.Alzheimers)
	if *a.LikelihoodRatio != *b.LikelihoodRatio || !(b.CI95[0] < a.CI95[0] && b.CI95[1] > a.CI95[1]) {
		t.Errorf("%g %v became %g %v", *a.LikelihoodRatio, *a.CI95, *b.LikelihoodRatio, *b.CI95)
	}
}

// Asymmetry of badly measured volumes says less and less: the likelihood ratio
// goes to 1, the flag, which follows the volumes, stays.
func TestMeasurementErrorWeakensSclerosis(t *testing.T) {
	f := healthy(t, 40, neuroscreen.Male, 1.5e6)
	for _, share := range []float64{0.75, 1} {
		before := math.Inf(1)
		for _, se := range []float64{0, 0.01, 0.05, 0.2, 1} {
			g := f.with("CSF", 1)
			for _, name := range []string{"Left-Hippocampus", "Right-Hippocampus"} {
				v := f.Volumes[name].MM3
				if name == "Left-Hippocampus" {
					v *= share
				}
				g.Volumes[name] = norm.Measured{MM3: v, SE: se * v}
			}
			s := first(t, Default().Score(g), neuroscreen.MesialTemporalSclerosis)
			ln := math.Abs(math.Log(*s.LikelihoodRatio))
			if ln > before+1e-12 && ln > 0.01 { // near 1 the two sides cancel
				t.Errorf("share %g, error %g: |ln LR| %.3f after %.3f", share, se, ln, before)
			}
			before = ln
			if want := share < 1; (s.Flag == neuroscreen.FlagFlagged) != want {
				t.Errorf("share %g, error %g: %s", share, se, s.Flag)
			}
		}
		if before > 0.05 {
			t.Errorf("share %g: ln LR %.3f of volumes that are not known at all", share, before)
		}
	}
}

func TestOneSpreadOfAsymmetry(t *testing.T) {
	if got := Default().sclerosis.SiteSD; math.Abs(got-norm.AsymmetrySiteSD) > 0.005 {
		t.Errorf("the model's sites differ by %g %%, the index's by %g %%", got, norm.AsymmetrySiteSD)
	}
}

// Whichever side is scored as the smaller one, the likelihood ratio of sclerosis
// on either side is the same, and so is its interval.
func TestEitherSide(t *testing.T) {
	m, base := Default(), healthy(t, 40, neuroscreen.Male, 1.5e6)
	sides := func(l, r, se float64) (left, right sideScore, ml, mr norm.Measured) {
		f := base.with("CSF", 1)
		ml, mr = norm.Measured{MM3: l, SE: se * l}, norm.Measured{MM3: r, SE: se * r}
		f.Volumes["Left-Hippocampus"], f.Volumes["Right-Hippocampus"] = ml, mr
		left, why := m.scoreSide("left", 1, f)
		right, alsoWhy := m.scoreSide("right", -1, f)
		if why+alsoWhy != "" {
			t.Fatal(why, alsoWhy)
		}
		return left, right, ml, mr
	}
	l, r := base.Volumes["Left-Hippocampus"].MM3, base.Volumes["Right-Hippocampus"].MM3
	for _, v := range [][2]float64{{l, r}, {0.9 * l, r}, {l, 0.8 * r}, {0.7 * l, 0.68 * r}} {
		left, right, ml, mr := sides(v[0], v[1], 0)
		a, b := eitherSide(left, right, ml, mr), eitherSide(right, left, ml, mr)
		if math.Abs(a.sum()-b.sum()) > 1e-9 || math.Abs(a.bounds[0]-b.bounds[0]) > 0.1 || math.Abs(a.bounds[1]-b.bounds[1]) > 0.1 {
			t.Errorf("%v: from the left %.4f %v, from the right %.4f %v", v, a.sum(), *a.bounds, b.sum(), *b.bounds)
		}
		const e = 1e-5
		more, _, _, _ := sides(v[0]*math.Exp(e), v[1], 0)
		less, _, _, _ := sides(v[0]*math.Exp(-e), v[1], 0)
		if slope := (more.l.sum() - less.l.sum()) / (2 * e); math.Abs(slope-left.g.left) > 1e-3 {
			t.Errorf("%v: changes by %.4f with ln(left), said to by %.4f", v, slope, left.g.left)
		}
	}
	// One side that is far the likelier counts half, for it could have been the
	// other, and its interval is that side's own.
	left, right, ml, mr := sides(0.5*l, r, 0)
	a := eitherSide(left, right, ml, mr)
	if last := a.contributions[2]; last.Feature != sideNotKnown || math.Abs(last.LogLR+math.Ln2) > 1e-6 {
		t.Errorf("%+v", last)
	}
	sd := math.Sqrt(norm.PairVariance("Hippocampus", ml, mr, left.g.left, left.g.right) + left.siteZ*left.siteZ + left.siteAsymmetry*left.siteAsymmetry + left.l.coefficientVar)
	if want := left.l.sum() - math.Ln2 + norm.Z95*sd; math.Abs(a.bounds[1]-want) > 0.05*sd {
		t.Errorf("up to %.3f, want %.3f", a.bounds[1], want)
	}
}

// Of hippocampi that look alike and are measured badly, either could be the
// smaller one: errors drawn as they are said to be stay within the interval.
func TestIntervalOfAlikeSides(t *testing.T) {
	m, base := Default(), healthy(t, 40, neuroscreen.Male, 1.5e6)
	l, r := base.Volumes["Left-Hippocampus"].MM3, base.Volumes["Right-Hippocampus"].MM3
	const se = 0.05
	f := base.with("CSF", 1)
	ml, mr := norm.Measured{MM3: l, SE: se * l}, norm.Measured{MM3: r, SE: se * r}
	f.Volumes["Left-Hippocampus"], f.Volumes["Right-Hippocampus"] = ml, mr
	left, _ := m.scoreSide("left", 1, f)
	right, _ := m.scoreSide("right", -1, f)
	bounds := eitherSide(left, right, ml, mr).bounds
	g := rand.New(rand.NewPCG(3, 4))
	inside, n := 0, 4000
	for range n {
		dl, dr := math.Hypot(se, norm.RetestCV("Left-Hippocampus"))*g.NormFloat64(), math.Hypot(se, norm.RetestCV("Right-Hippocampus"))*g.NormFloat64()
		z, a := g.NormFloat64(), g.NormFloat64()
		at := func(s sideScore) float64 {
			return s.l.sum() + s.g.left*dl + s.g.right*dr + s.siteZ*z + s.siteAsymmetry*a + math.Sqrt(s.l.coefficientVar)*g.NormFloat64()
		}
		if v := meanOfBoth(at(left), at(right)); v >= bounds[0] && v <= bounds[1] {
			inside++
		}
	}
	if share := float64(inside) / float64(n); math.Abs(share-.95) > .012 {
		t.Errorf("%.3f of drawn errors stay within %v", share, *bounds)
	}
}

// People drawn from both groups, measured with error: what is believed of their
// likelihood ratios is what they are, and the model as it stands is too bold.
func TestBelievedIsCalibrated(t *testing.T) {
	const r = -0.25
	w := [2]float64{1.4, -0.6}
	delta := [2]float64{w[0] + r*w[1], r*w[0] + w[1]}
	c := sideModel{Intercept: -(w[0]*delta[0] + w[1]*delta[1]) / 2}
	e := [3]float64{1.5, -0.4, 0.5} // of asymmetry, of both, of z
	noise := w[0]*w[0]*e[0] + 2*w[0]*w[1]*e[1] + w[1]*w[1]*e[2]
	g := rand.New(rand.NewPCG(11, 12))
	draw := func(v11, v12, v22 float64) (float64, float64) {
		l11 := math.Sqrt(v11)
		l21 := v12 / l11
		x, y := g.NormFloat64(), g.NormFloat64()
		return l11 * x, l21*x + math.Sqrt(v22-l21*l21)*y
	}
	// Of calibrated probabilities the squared error is p (1 - p) on average.
	excess := func(k float64) float64 {
		sum, n := 0.0, 40000
		for i := range n {
			y := float64(i % 2)
			a, z := draw(1, r, 1)
			ea, ez := draw(e[0], e[1], e[2])
			p := 1 / (1 + math.Exp(-k*(c.Intercept+w[0]*(a+ea+y*delta[0])+w[1]*(z+ez+y*delta[1]))))
			sum += ((y-p)*(y-p) - p*(1-p)) / float64(n)
		}
		return sum
	}
	if x := excess(c.believed(noise)); math.Abs(x) > 0.004 {
		t.Errorf("squared error beyond p (1 - p) by %.4f", x)
	}
	if x := excess(1); x < 0.02 {
		t.Errorf("as it stands: squared error beyond p (1 - p) by %.4f; the test sees nothing", x)
	}
	if k := c.believed(0); k != 1 {
		t.Errorf("without error %.3f is believed", k)
	}
}

func TestPriors(t *testing.T) {
	site := []AgePrior{{50, 0.286}, {90, 0}}
	for _, tc := range []struct {
		priors []AgePrior
		age    float64
		want   float64 // 0: none
	}{
		{defaults.AlzheimersPriors, 64.9, 0}, {defaults.AlzheimersPriors, 65, 0.05}, {defaults.AlzheimersPriors, 75, 0.131}, {defaults.AlzheimersPriors, 96, 0.333},
		{defaults.ParkinsonsPriors, 64, 0}, {defaults.ParkinsonsPriors, 80, 0.025}, {site, 60, 0.286}, {site, 91, 0}, {[]AgePrior{}, 80, 0},
	} {
		got := priorAt(tc.priors, tc.age)
		if (got == nil) != (tc.want == 0) || got != nil && *got != tc.want {
			t.Errorf("at %g of %v: %v, want %g", tc.age, tc.priors, got, tc.want)
		}
	}
}

func TestSettings(t *testing.T) {
	if err := (Settings{}).Validate(); err != nil {
		t.Errorf("the defaults are refused: %v", err)
	}
	for name, s := range map[string]Settings{
		"alzheimers_review_lr":  {AlzheimersReviewLR: 0.5},
		"alzheimers_flagged_lr": {AlzheimersReviewLR: 6},
		"parkinsons_review_lr":  {ParkinsonsReviewLR: 1},
		"sclerosis_review_sd":   {SclerosisReviewSD: -1},
		"sclerosis_flagged_sd":  {SclerosisFlaggedSD: 1},
		"sclerosis_flagged_z":   {SclerosisFlaggedZ: 1},
		"alzheimers_priors":     {AlzheimersPriors: []AgePrior{{65, 5}}},
		"parkinsons_priors":     {ParkinsonsPriors: []AgePrior{{65, 0.1}, {60, 0.2}}},
		"conformal_error_rate":  {ConformalErrorRate: 0.07},
		"recalibrations":        {Recalibrations: []Recalibration{{Model: "alzheimers-scan"}}},
	} {
		t.Run(name, func(t *testing.T) {
			e := neuroscreen.AsError(s.Validate())
			if e == nil || e.Field != name {
				t.Errorf("got %v", e)
			}
		})
	}
	if err := (Settings{}).Reachable(); err != nil {
		t.Errorf("the defaults: %v", err)
	}
	for name, s := range map[string]Settings{
		"alzheimers_review_lr":  {AlzheimersReviewLR: 60, AlzheimersFlaggedLR: 100},
		"alzheimers_flagged_lr": {AlzheimersFlaggedLR: 50},
		"parkinsons_review_lr":  {ParkinsonsReviewLR: 2},
	} {
		if e := neuroscreen.AsError(s.Reachable()); e == nil || e.Field != name {
			t.Errorf("%s out of reach: %v", name, e)
		}
	}
	// A site's own thresholds decide.
	f := healthy(t, 74, neuroscreen.Female, 1.45e6)
	f.Settings = Settings{AlzheimersReviewLR: 1.0001, AlzheimersFlaggedLR: 1.0001}
	ill := f.with("Left-Hippocampus", 2900).with("Right-Hippocampus", 3000)
	if s := first(t, Default().Score(ill), neuroscreen.Alzheimers); s.Flag != neuroscreen.FlagFlagged {
		t.Errorf("LR %g is %s", *s.LikelihoodRatio, s.Flag)
	}
}

func TestCards(t *testing.T) {
	cards := Default().Cards()
	if len(cards) != 6 {
		t.Fatalf("%d cards", len(cards))
	}
	for _, c := range cards {
		md := c.Markdown()
		if strings.Contains(md, "shared tables") {
			t.Errorf("%s: its source is a path of ours", c.Name)
		}
		for _, want := range []string{"# " + c.Name, "## Purpose", "## Trained on", "## Performance", "## Must not be used for", c.SHA256} {
			if !strings.Contains(md, want) {
				t.Errorf("%s: the card lacks %q", c.Name, want)
			}
		}
		if strings.Contains(md, "map[") || strings.Contains(md, "%!") {
			t.Errorf("%s: badly rendered:\n%s", c.Name, md)
		}
		if sets := strings.Count(md, "people get both"); sets != 0 && sets != len(ConformalErrorRates) || (sets == 0) == strings.Contains(md, "C = ") {
			t.Errorf("%s: %d conformal sets", c.Name, sets)
		}
		if c.Name == "parkinsons" && !strings.Contains(md, "normal with the published effects") {
			t.Errorf("%s: the threshold does not say what its figures rest on", c.Name)
		}
		if strings.HasPrefix(c.Name, "alzheimers-") && c.Name != "alzheimers-effects" && !strings.Contains(md, "P50 AG05681") {
			t.Errorf("%s: OASIS is not acknowledged", c.Name)
		}
	}
}

// What the cards claim of the trained models must not slip below what they are
// meant to reach.
func TestTrainedPerformance(t *testing.T) {
	floor := map[string]float64{"alzheimers-scan": 0.78, "alzheimers-table": 0.80}
	for _, c := range Default().Cards() {
		least, ok := floor[c.Name]
		if !ok {
			continue
		}
		var body struct {
			Performance struct {
				AUC       float64
				CI95      [2]float64
				Severe    struct{ AUC float64 } `json:"cdr_1_or_more_against_0"`
				Subgroups map[string]struct {
					CI95        [2]float64
					Calibration struct {
						SlopeCI95     [2]float64 `json:"slope_ci95"`
						InterceptCI95 [2]float64 `json:"intercept_ci95"`
						Spiegelhalter float64    `json:"spiegelhalter_p"`
					}
				}
				Calibration struct {
					SlopeCI95     [2]float64 `json:"slope_ci95"`
					InterceptCI95 [2]float64 `json:"intercept_ci95"`
				}
				Hold *struct {
					AUC       float64 `json:"auc_interval"`
					Slope     float64 `json:"slope_interval"`
					Intercept float64 `json:"intercept_interval"`
				} `json:"do_the_intervals_hold"`
			}
		}
		if err := json.Unmarshal(c.Body, &body); err != nil {
			t.Fatal(err)
		}
		p := body.Performance
		if p.AUC < least || p.CI95[0] >= p.AUC || p.CI95[1] <= p.AUC {
			t.Errorf("%s: AUC %g %v, want at least %g", c.Name, p.AUC, p.CI95, least)
		}
		if p.Severe.AUC <= p.AUC {
			t.Errorf("%s: dementia of CDR 1 or more is told no better (%g) than any (%g)", c.Name, p.Severe.AUC, p.AUC)
		}
		if len(p.Subgroups) != 5 {
			t.Errorf("%s: %d groups of sex and age", c.Name, len(p.Subgroups))
		}
		for g, s := range p.Subgroups {
			if s.CI95[0] > p.AUC || s.CI95[1] < p.AUC || s.Calibration.SlopeCI95[0] > 1 || s.Calibration.SlopeCI95[1] < 1 ||
				s.Calibration.InterceptCI95[0] > 0 || s.Calibration.InterceptCI95[1] < 0 || s.Calibration.Spiegelhalter < 0.05 {
				t.Errorf("%s, %s: %+v contradicts the whole", c.Name, g, s)
			}
		}
		if s := p.Calibration.SlopeCI95; s[0] > 1 || s[1] < 1 {
			t.Errorf("%s: calibration slope %v excludes 1", c.Name, s)
		}
		// 500 cohorts: 95 % to within 2 %.
		if h := p.Hold; (h != nil) != (c.Name == "alzheimers-scan") || h != nil && min(h.AUC, h.Slope, h.Intercept) < 0.92 {
			t.Errorf("%s: intervals hold the truth in %+v", c.Name, h)
		}
		if s := p.Calibration.InterceptCI95; s[0] > 0 || s[1] < 0 {
			t.Errorf("%s: calibration intercept %v excludes 0", c.Name, s)
		}
	}
}

func ExampleModels_Score() {
	icv := 1.45e6
	scores := Default().Score(Features{
		Person:      norm.Person{AgeYears: 71, Sex: neuroscreen.Female, ICVMM3: &icv},
		Calibration: norm.Calibration{Segmenter: norm.FreeSurfer6},
		Volumes:     map[string]norm.Measured{"Left-Hippocampus": {MM3: 1438}, "Right-Hippocampus": {MM3: 4848}},
		QC:          neuroscreen.VerdictPass,
	})
	for _, s := range scores {
		if s.Condition == neuroscreen.MesialTemporalSclerosis {
			fmt.Println(s.Flag, *s.Side)
		}
	}
	// Output: flagged left
}
