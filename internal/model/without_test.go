package model

import (
	"math"
	"slices"
	"strings"
	"testing"

	"neuroscreen"
	"neuroscreen/internal/norm"
)

// TestLeftOut: a pattern that rests on what a reviewer left out is withheld and
// says so; all others stay as they were.
func TestLeftOut(t *testing.T) {
	m := Default()
	mmse := 24.0
	base := healthy(t, 74, neuroscreen.Female, 1.45e6).with("Left-Hippocampus", 2700).with("Right-Hippocampus", 2800).with("Left-Amygdala", 1100)
	base.MMSE = &mmse
	before := map[string]neuroscreen.Score{}
	for _, s := range m.Score(base) {
		before[s.Model] = s
	}
	const scan, withMMSE, effects, pd, mts = "alzheimers-scan", "alzheimers-mmse", "alzheimers-effects", "parkinsons", "mesial-temporal-sclerosis"
	for name, tc := range map[string]struct {
		leftOut               []string
		withheld, weighedAnew []string
		says                  string
	}{
		"a hippocampus":         {[]string{"Left-Hippocampus"}, []string{scan, withMMSE, mts}, []string{effects}, "a reviewer left out the left hippocampus, which"},
		"the other":             {[]string{"Right-Hippocampus"}, []string{scan, withMMSE, mts}, []string{effects}, "a reviewer left out the right hippocampus, which"},
		"both":                  {[]string{"Right-Hippocampus", "Left-Hippocampus"}, []string{scan, withMMSE, mts}, []string{effects}, "the left hippocampus and the right hippocampus, which"},
		"an amygdala":           {[]string{"Left-Amygdala"}, []string{pd}, []string{effects}, "the left amygdala"},
		"the other's":           {[]string{"Right-Amygdala"}, nil, []string{effects}, ""},
		"a putamen":             {[]string{"Right-Putamen"}, []string{pd}, nil, "the right putamen"},
		"all of the effects'":   {[]string{"Left-Hippocampus", "Right-Hippocampus", "Left-Amygdala", "Right-Amygdala", "Left-Inf-Lat-Vent", "Right-Inf-Lat-Vent"}, []string{scan, withMMSE, effects, pd, mts}, nil, ""},
		"what no pattern needs": {[]string{"Brain-Stem", "Left-Caudate"}, nil, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			f := base
			f.LeftOut = tc.leftOut
			f.Volumes = map[string]norm.Measured{}
			for s, v := range base.Volumes {
				if !slices.Contains(tc.leftOut, s) {
					f.Volumes[s] = v
				}
			}
			for _, s := range m.Score(f) {
				was := before[s.Model]
				withheld, anew := slices.Contains(tc.withheld, s.Model), slices.Contains(tc.weighedAnew, s.Model)
				if withheld != (s.AbstainedType == neuroscreen.StructureExcluded) || withheld != (s.Abstained != nil) {
					t.Errorf("%s: abstained %q, type %q", s.Model, abstention(s), s.AbstainedType)
				}
				if (len(s.Without) > 0) != (withheld || anew) {
					t.Errorf("%s is without %v", s.Model, s.Without)
				}
				for _, missing := range s.Without {
					if !slices.Contains(tc.leftOut, missing) {
						t.Errorf("%s is without %s, which was not left out", s.Model, missing)
					}
				}
				switch {
				case withheld:
					if s.LikelihoodRatio != nil || s.Posterior != nil || s.Flag != neuroscreen.FlagNone || s.Conformal != nil || len(s.Contributions) > 0 ||
						len(s.Explanation.Reasons)+len(s.Explanation.WouldChange) > 0 || s.Side != nil {
						t.Errorf("withheld and still says something: %+v", s)
					}
					if !strings.Contains(abstention(s), tc.says) {
						t.Errorf("%s: %q, want %q", s.Model, abstention(s), tc.says)
					}
				case anew:
					sum := s.Intercept
					for _, c := range s.Contributions {
						if slices.Contains(tc.leftOut, c.Feature) {
							t.Errorf("%s uses %s", s.Model, c.Feature)
						}
						sum += c.LogLR
					}
					if math.Abs(sum-math.Log(*s.LikelihoodRatio)) > 1e-9 {
						t.Errorf("%s: terms sum to %g, ln(LR) is %g", s.Model, sum, math.Log(*s.LikelihoodRatio))
					}
					if !strings.HasPrefix(s.Explanation.Uncertain[0], "Made without "+listed(s.Without)) {
						t.Errorf("%s does not say what it was made without: %q", s.Model, s.Explanation.Uncertain)
					}
				case *s.LikelihoodRatio != *was.LikelihoodRatio || *s.CI95 != *was.CI95 || s.Flag != was.Flag:
					t.Errorf("%s: %g, was %g", s.Model, *s.LikelihoodRatio, *was.LikelihoodRatio)
				}
			}
		})
	}
}

// TestAgeComesFirst: taking a structure back in would not bring this score.
func TestAgeComesFirst(t *testing.T) {
	f := healthy(t, 30, neuroscreen.Female, 1.45e6)
	f.LeftOut = []string{"Left-Hippocampus"}
	if s := first(t, Default().Score(f), neuroscreen.Alzheimers); s.AbstainedType != "" || !strings.HasPrefix(abstention(s), "the age is outside") {
		t.Errorf("%q, type %q", abstention(s), s.AbstainedType)
	}
}

// TestDiscriminantOfAPart: what is left of a model of effects is the
// discriminant of the rest. One structure alone has its published effect, in the
// program's units of z, as weight.
func TestDiscriminantOfAPart(t *testing.T) {
	whole := Default().alzheimersEffects
	all := whole.names()
	effect := map[string]float64{"Left-Hippocampus": -1.29, "Right-Hippocampus": -1.27, "Left-Amygdala": -1.27, "Right-Amygdala": -1.07, "Left-Inf-Lat-Vent": .5033, "Right-Inf-Lat-Vent": .5033}
	f := healthy(t, 74, neuroscreen.Female, 1.45e6)
	f.Calibration.SiteShift = &norm.Shift{Layer: norm.LayerSite, Segmenter: norm.FreeSurfer6, Structures: map[string]norm.Moments{}}
	for _, s := range all {
		f.Calibration.SiteShift.Structures[s] = norm.Moments{N: 50, SDZ: 1}
	}
	for _, s := range all {
		z, err := norm.Default().ZOf(s, f.Volumes[s], f.Person, f.Calibration)
		if err != nil {
			t.Fatal(err)
		}
		d := effect[s] / z.Wider
		alone, missing := whole.without(slices.DeleteFunc(slices.Clone(all), func(o string) bool { return o == s }))
		if alone == nil || len(missing) != len(all)-1 {
			t.Fatalf("%s alone: %v, %v", s, alone, missing)
		}
		if got := alone.Features[0].Coefficient; math.Abs(got-d) > .004 || math.Abs(alone.Intercept+got*got/2) > 1e-12 {
			t.Errorf("%s alone: %.4f with intercept %.4f, want %.4f and %.4f", s, got, alone.Intercept, d, -d*d/2)
		}
		if se := math.Sqrt(alone.Covariance[1][1]); se < .05 || se > .2 { // of a Cohen's d in 526 or 200 people: .09 to .14
			t.Errorf("%s alone: standard error %.3f", s, se)
		}
	}
	// Nothing is gained by leaving out, and the whole is its own effects'
	// discriminant.
	if rest, _ := whole.without([]string{"Left-Hippocampus"}); rest.impliedAUC() >= whole.impliedAUC() || rest.impliedAUC() < .8 {
		t.Errorf("AUC %.3f without a hippocampus, %.3f with it", rest.impliedAUC(), whole.impliedAUC())
	}
	distance := 0.0
	for i, a := range whole.Features {
		for j, b := range whole.Features {
			distance += a.Coefficient * whole.correlations.At(i, j) * b.Coefficient
		}
	}
	if math.Abs(whole.Intercept+distance/2) > .002 {
		t.Errorf("intercept %.4f, of its weights and correlations %.4f", whole.Intercept, -distance/2)
	}
	if same, missing := whole.without([]string{"Brain-Stem"}); same != whole || missing != nil {
		t.Error("a model changed for what it does not use")
	}
}
