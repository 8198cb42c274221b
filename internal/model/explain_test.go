package model

import (
	"fmt"
	"strings"
	"testing"

	"neuroscreen"
	"neuroscreen/internal/norm"
)

func explainFirst(t testing.TB, f Features, c neuroscreen.Condition) (neuroscreen.Score, Explanation) {
	s := first(t, Default().Score(f), c)
	return s, Default().Explain(f, s)
}

func TestExplain(t *testing.T) {
	base := healthy(t, 76, neuroscreen.Female, 1.45e6)
	ill := base.with("Left-Hippocampus", 2700).with("Right-Hippocampus", 2800)
	both := base.with("Left-Hippocampus", 1900).with("Right-Hippocampus", 2000)
	for name, tc := range map[string]struct {
		f    Features
		c    neuroscreen.Condition
		want []string // each must stand in the text
	}{
		"reasons":                    {ill, neuroscreen.Alzheimers, []string{"Left hippocampus 2.", "SD below peers of her age and head size: likelihood ratio", "prior of 13 % the posterior is"}},
		"what would change the flag": {ill, neuroscreen.Alzheimers, []string{`The flag would be "flagged" if the right hippocampus were`, "smaller"}},
		"ordinary volumes":           {base, neuroscreen.Alzheimers, []string{`The flag would be "review" if the right hippocampus were`}},
		"abstained":                  {healthy(t, 30, neuroscreen.Male, 1.45e6), neuroscreen.Alzheimers, []string{"No score: age 30 is outside"}},
		"sclerosis":                  {base.with("Left-Hippocampus", 1438), neuroscreen.MesialTemporalSclerosis, []string{"Hippocampal asymmetry +", "T2 and FLAIR were not seen", "From 60 on"}},
		"bilateral":                  {both, neuroscreen.MesialTemporalSclerosis, []string{"Both hippocampi are small"}},
		"norm that knows the sex":    {base.with("Left-Putamen", 3000), neuroscreen.Parkinsons, []string{"Left putamen", "of her age, sex and head size"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, e := explainFirst(t, tc.f, tc.c)
			text := strings.Join(append(append(e.Reasons, e.WouldChange...), e.Uncertain...), "\n")
			for _, w := range tc.want {
				if !strings.Contains(text, w) {
					t.Errorf("%q is missing from:\n%s", w, text)
				}
			}
		})
	}
}

// The change that Explain names really moves the flag, and a little less does not.
func TestWouldChangeIsTrue(t *testing.T) {
	f := healthy(t, 76, neuroscreen.Female, 1.45e6)
	s, e := explainFirst(t, f, neuroscreen.Alzheimers)
	var sd float64
	var to, direction string
	if _, err := fmt.Sscanf(e.WouldChange[0], "The flag would be %q if the right hippocampus were %f SD %s", &to, &sd, &direction); err != nil || direction != "smaller" {
		t.Fatalf("%v in %q", err, e.WouldChange[0])
	}
	ref, err := norm.Default().Reference("Right-Hippocampus", f.Person, f.Calibration)
	if err != nil {
		t.Fatal(err)
	}
	at := func(sd float64) neuroscreen.Flag {
		return first(t, Default().Score(f.with("Right-Hippocampus", ref.ExpectedMM3-sd*ref.SD)), neuroscreen.Alzheimers).Flag
	}
	if s.Flag != neuroscreen.FlagNone || at(sd+0.06) != neuroscreen.Flag(to) || at(sd-0.06) != neuroscreen.FlagNone {
		t.Errorf("flag %s: at %.2f SD %s, a little more %s, a little less %s", s.Flag, sd, to, at(sd+0.06), at(sd-0.06))
	}
}

func TestConformalSet(t *testing.T) {
	m := Default()
	well := healthy(t, 76, neuroscreen.Female, 1.45e6)
	ill := well.with("Left-Hippocampus", 1700).with("Right-Hippocampus", 1800)
	for _, tc := range []struct {
		f    Features
		want string
	}{{ill, "case"}, {well, "both"}} {
		s := first(t, m.Score(tc.f), neuroscreen.Alzheimers)
		set, err := m.ConformalSet(s, 0.05)
		if err != nil || set.String() != tc.want {
			t.Errorf("LR %g: %s, %v, want %s", *s.LikelihoodRatio, set, err, tc.want)
		}
	}
	if _, err := m.ConformalSet(first(t, m.Score(well), neuroscreen.Alzheimers), 0.07); err == nil {
		t.Error("a set at a rate that was never fitted")
	}
	if _, err := m.ConformalSet(first(t, m.Score(well), neuroscreen.Parkinsons), 0.1); err == nil {
		t.Error("a set for a model without one")
	}
	if _, err := m.ConformalSet(first(t, m.Score(healthy(t, 30, neuroscreen.Male, 1.5e6)), neuroscreen.Alzheimers), 0.1); err == nil {
		t.Error("a set for a score that abstained")
	}
	// A smaller error rate excludes less.
	for _, lm := range []*linear{m.alzheimersScan, m.alzheimersTable} {
		if len(lm.Conformal) != 4 {
			t.Fatalf("%s: %d rates", lm.Name, len(lm.Conformal))
		}
		for i := 1; i < len(lm.Conformal); i++ {
			if a, b := lm.Conformal[i-1], lm.Conformal[i]; !(a.ErrorRate < b.ErrorRate && a.Control >= b.Control && a.Case <= b.Case) {
				t.Errorf("%s: %+v then %+v", lm.Name, a, b)
			}
		}
	}
}

func TestRatioWords(t *testing.T) {
	for v, want := range map[float64]string{0.012: "0.01", 0.31: "0.31", 2.04: "2", 3.44: "3.4", 12.4: "12", 99.9: "100"} {
		if got := ratio(v); got != want {
			t.Errorf("%g: %q, want %q", v, got, want)
		}
	}
}
