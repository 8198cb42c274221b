package model

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"neuroscreen"
	"neuroscreen/internal/norm"
)

func explainFirst(t testing.TB, f Features, c neuroscreen.Condition) (neuroscreen.Score, neuroscreen.Explanation) {
	s := first(t, Default().Score(f), c)
	return s, s.Explanation
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
		"what would change the flag": {base.with("Left-Hippocampus", 2850).with("Right-Hippocampus", 2950), neuroscreen.Alzheimers, []string{`The flag would be "flagged" if the right hippocampus were`, "smaller"}},
		"ordinary volumes":           {base, neuroscreen.Alzheimers, []string{`The flag would be "review" if the right hippocampus were`}},
		"abstained":                  {healthy(t, 30, neuroscreen.Male, 1.45e6), neuroscreen.Alzheimers, []string{"No score: the age is outside"}},
		"sclerosis":                  {base.with("Left-Hippocampus", 1438), neuroscreen.MesialTemporalSclerosis, []string{"Hippocampal asymmetry +", "T2 and FLAIR were not seen", "From 60 on"}},
		"the other side":             {base.with("Left-Hippocampus", 1438), neuroscreen.MesialTemporalSclerosis, []string{"Left hippocampus 5.7 SD below", "likelihood ratio 100, 95 % interval 100 to over 10,000", "is held at 100", "Right hippocampus as in peers of her age and head size.", "of them lie nearer to their mean", "Either side could have been"}},
		"bilateral":                  {both, neuroscreen.MesialTemporalSclerosis, []string{"Both hippocampi are small"}},
		"badly measured":             {noisy(ill, 400), neuroscreen.Alzheimers, []string{"Right hippocampus is measured to +-", "by a factor of", "Within the interval the flag goes from"}},
		"badly measured asymmetry":   {noisy(base, 200), neuroscreen.MesialTemporalSclerosis, []string{"Asymmetry is measured to +-", "At the ends of that interval"}},
		"volumes of a table":         {noisy(ill, 0), neuroscreen.Alzheimers, []string{"came without their measurement's error"}},
		"another segmenter":          {segmentedBy(ill, norm.Network), neuroscreen.Parkinsons, []string{"No healthy people were measured with what measured these volumes"}},
		"feature that is missing":    {ill, neuroscreen.Alzheimers, []string{"nWBV) was not given", "The MMSE was not given"}},
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

// The features of an explanation are its reasons without what these come to.
func TestExplainedFeatures(t *testing.T) {
	ill := healthy(t, 76, neuroscreen.Female, 1.45e6).with("Left-Hippocampus", 1438)
	for c, beyond := range map[neuroscreen.Condition]int{neuroscreen.Alzheimers: 2, neuroscreen.MesialTemporalSclerosis: 1} { // sclerosis has no prior
		_, e := explainFirst(t, ill, c)
		rest := slices.DeleteFunc(slices.Clone(e.Reasons), func(r string) bool { return slices.Contains(e.Features, r) })
		if len(e.Features) == 0 || len(rest) != beyond || !strings.HasPrefix(rest[0], "Together") {
			t.Errorf("%s: features %q, and %q", c, e.Features, rest)
		}
	}
}

// The change that Explain names really moves the flag, and a little less does not.
func TestWouldChangeIsTrue(t *testing.T) {
	plain := healthy(t, 76, neuroscreen.Female, 1.45e6)
	for name, f := range map[string]Features{"site not calibrated": plain, "site calibrated": calibrated(plain)} {
		s, e := explainFirst(t, f, neuroscreen.Alzheimers)
		var sd float64
		var to, direction string
		if _, err := fmt.Sscanf(e.WouldChange[0], "The flag would be %q if the right hippocampus were %f SD %s", &to, &sd, &direction); err != nil || direction != "smaller" {
			t.Fatalf("%s: %v in %q", name, err, e.WouldChange[0])
		}
		ref, err := norm.Default().Reference("Right-Hippocampus", f.Person, f.Calibration)
		if err != nil {
			t.Fatal(err)
		}
		at := func(sd float64) neuroscreen.Flag {
			return first(t, Default().Score(f.with("Right-Hippocampus", ref.ExpectedMM3-sd*ref.SD)), neuroscreen.Alzheimers).Flag
		}
		if s.Flag != neuroscreen.FlagNone || at(sd+0.06) != neuroscreen.Flag(to) || at(sd-0.06) != neuroscreen.FlagNone {
			t.Errorf("%s, flag %s: at %.2f SD %s, a little more %s, a little less %s", name, s.Flag, sd, to, at(sd+0.06), at(sd-0.06))
		}
	}
}

// Beyond the cap, where contributions are scaled down, what would change the
// flag is still told by the volumes.
func TestWouldChangeBeyondTheCap(t *testing.T) {
	f := healthy(t, 76, neuroscreen.Male, 1.45e6).with("Left-Hippocampus", 700).with("Right-Hippocampus", 700)
	s, e := explainFirst(t, f, neuroscreen.Alzheimers)
	if math.Abs(*s.LikelihoodRatio-50) > 1e-6 {
		t.Fatalf("likelihood ratio %g is not at the cap", *s.LikelihoodRatio)
	}
	var sd float64
	var to, direction string
	last := e.WouldChange[len(e.WouldChange)-1]
	if _, err := fmt.Sscanf(last, "The flag would be %q if the right hippocampus were %f SD %s", &to, &sd, &direction); err != nil || direction != "larger" || to != "review" {
		t.Fatalf("%v in %q", err, last)
	}
	ref, err := norm.Default().Reference("Right-Hippocampus", f.Person, f.Calibration)
	if err != nil {
		t.Fatal(err)
	}
	at := func(sd float64) neuroscreen.Flag {
		return first(t, Default().Score(f.with("Right-Hippocampus", 700+sd*ref.SD)), neuroscreen.Alzheimers).Flag
	}
	if at(sd-0.06) != neuroscreen.FlagFlagged || at(sd+0.06) != neuroscreen.FlagReview {
		t.Errorf("at %.2f SD larger: a little less %s, a little more %s", sd, at(sd-0.06), at(sd+0.06))
	}
}

func segmentedBy(f Features, s norm.Segmenter) Features {
	f.Calibration.Segmenter = s
	return f
}

// What is known is not called unknown.
func TestNoDoubtOfWhatIsKnown(t *testing.T) {
	f := segmentedBy(healthy(t, 76, neuroscreen.Female, 1.45e6), norm.FreeSurfer7)
	for _, s := range Default().Score(f) {
		for _, u := range s.Explanation.Uncertain {
			if strings.Contains(u, "No shift is stored") || strings.Contains(u, "came without") {
				t.Errorf("%s: %q", s.Model, u)
			}
		}
	}
}

// noisy gives every volume a standard error.
func noisy(f Features, se float64) Features {
	g := f.with("CSF", 1) // a copy of the volumes
	for name, v := range g.Volumes {
		g.Volumes[name] = norm.Measured{MM3: v.MM3, SE: se}
	}
	return g
}

func TestConformalSet(t *testing.T) {
	m := Default()
	well := healthy(t, 76, neuroscreen.Female, 1.45e6)
	ill := well.with("Left-Hippocampus", 1700).with("Right-Hippocampus", 1800)
	for _, tc := range []struct {
		f    Features
		rate float64
		want string
		text string
	}{
		{ill, 0.05, "case", "fit cases only"},
		{well, 0.05, "both", "of the people behind the model get this answer"},
		{well, 0.2, "control", "fit controls only"},
	} {
		tc.f.Settings.ConformalErrorRate = tc.rate
		s := first(t, m.Score(tc.f), neuroscreen.Alzheimers)
		if c := s.Conformal; c == nil || c.Set != tc.want || c.ErrorRate != tc.rate || !strings.Contains(c.Text, tc.text) || c.Validated || !strings.Contains(c.Text, "not validated") {
			t.Errorf("LR %g: %+v, want %s", *s.LikelihoodRatio, c, tc.want)
		}
	}
	ill.Calibration.Segmenter = norm.OASIS1
	if c := first(t, m.Score(ill), neuroscreen.Alzheimers).Conformal; c == nil || !c.Validated || strings.Contains(c.Text, "not validated") || c.ErrorRate != 0.1 {
		t.Errorf("on the training cohort's segmenter: %+v", c)
	}
	for _, s := range append(m.Score(healthy(t, 30, neuroscreen.Male, 1.5e6)), first(t, m.Score(well), neuroscreen.Parkinsons)) {
		if s.Conformal != nil {
			t.Errorf("%s has a set: %+v", s.Model, s.Conformal)
		}
	}
	if at := m.alzheimersScan.Conformal[1]; at.ErrorRate != 0.1 || at.both < 0.4 || at.both > 0.6 {
		t.Errorf("%+v: about half of all people should get both", at)
	}
	// By class the sets hold what they promise; no sex and no age contradicts it.
	for _, c := range m.Cards() {
		var body struct {
			Sets struct {
				At []struct {
					ErrorRate float64 `json:"error_rate"`
					Coverage  map[string]struct {
						Covered, People int
						CI95            [2]float64
					}
				}
			} `json:"conformal_sets"`
		}
		if err := json.Unmarshal(c.Body, &body); err != nil {
			t.Fatal(err)
		}
		for _, at := range body.Sets.At {
			if len(at.Coverage) != 7 {
				t.Errorf("%s: coverage of %d groups", c.Name, len(at.Coverage))
			}
			for g, n := range at.Coverage {
				share := float64(n.Covered) / float64(n.People)
				if class := g == "cases" || g == "controls"; class && share < 1-at.ErrorRate || n.CI95[0] > share || n.CI95[1] < 1-at.ErrorRate {
					t.Errorf("%s at %g: of %s %d of %d are covered %v", c.Name, at.ErrorRate, g, n.Covered, n.People, n.CI95)
				}
			}
		}
	}
	// A smaller error rate excludes less.
	for _, lm := range []*linear{m.alzheimersScan, m.alzheimersTable} {
		var rates []float64
		for _, b := range lm.Conformal {
			rates = append(rates, b.ErrorRate)
		}
		if !slices.Equal(rates, ConformalErrorRates) {
			t.Fatalf("%s: rates %v", lm.Name, rates)
		}
		for i := 1; i < len(lm.Conformal); i++ {
			if a, b := lm.Conformal[i-1], lm.Conformal[i]; !(a.ErrorRate < b.ErrorRate && a.Control >= b.Control && a.Case <= b.Case) {
				t.Errorf("%s: %+v then %+v", lm.Name, a, b)
			}
		}
	}
}

func TestRatioWords(t *testing.T) {
	for v, want := range map[float64]string{0.012: "0.01", 0.31: "0.31", 2.04: "2", 3.44: "3.4", 12.4: "12", 99.9: "100", 2e4: "over 10,000", 3e-7: "under 0.0001"} {
		if got := ratio(v); got != want {
			t.Errorf("%g: %q, want %q", v, got, want)
		}
	}
}
