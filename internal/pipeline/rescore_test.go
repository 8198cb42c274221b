package pipeline

import (
	"context"
	"encoding/json"
	"reflect"
	"slices"
	"testing"

	"neuroscreen"
)

func leftOut(structures ...string) neuroscreen.Amendment {
	a := neuroscreen.Amendment{FromVersion: 1, LeftOut: []neuroscreen.LeftOut{}}
	for _, s := range structures {
		a.LeftOut = append(a.LeftOut, neuroscreen.LeftOut{Structure: s, Decision: 1, By: "key"})
	}
	return a
}

// stored is a result as it comes back from the database.
func stored(t *testing.T, r *neuroscreen.Result) (out neuroscreen.Result) {
	t.Helper()
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestRescore(t *testing.T) {
	in := scanOf(t, atrophied, 74, neuroscreen.Female)
	out, err := engine(t).Analyze(context.Background(), in)
	if err != nil {
		t.Fatal(err)
	}
	r, err := NewRescorer("test")
	if err != nil {
		t.Fatal(err)
	}
	old := stored(t, out.Result)
	rescore := func(t *testing.T, old neuroscreen.Result, a neuroscreen.Amendment) neuroscreen.Result {
		t.Helper()
		before := stored(t, &old)
		got, reading, err := r.Rescore(old, in.Metadata, in.Settings, a)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(before, old) {
			t.Error("the old result is another now")
		}
		checkResult(t, got)
		if len(reading.Scores) != len(got.Scores) {
			t.Errorf("%d scores in words, %d scores", len(reading.Scores), len(got.Scores))
		}
		for _, c := range reading.Curves {
			if slices.Contains(a.Structures(), c.Structure) {
				t.Errorf("a curve of %s, which is left out", c.Structure)
			}
		}
		return stored(t, got)
	}

	t.Run("nothing left out is the same result", func(t *testing.T) {
		got := rescore(t, old, leftOut())
		if got.Amendment == nil || got.Amendment.FromVersion != 1 {
			t.Errorf("amendment %+v", got.Amendment)
		}
		got.Amendment, got.TimingsMS = old.Amendment, old.TimingsMS
		if !reflect.DeepEqual(got, old) {
			t.Errorf("%+v\nwas\n%+v", got, old)
		}
	})

	for name, tc := range map[string]struct {
		structures, indices []string // left out; and the indices that go with them
	}{
		"a hippocampus":  {[]string{"Left-Hippocampus"}, []string{"hippocampal_asymmetry_percent", "hoc_left", "brain_parenchymal_fraction"}},
		"a horn":         {[]string{"Right-Inf-Lat-Vent"}, []string{"hoc_right"}},
		"both amygdalae": {[]string{"Left-Amygdala", "Right-Amygdala"}, []string{"brain_parenchymal_fraction"}},
		"CSF":            {[]string{"CSF"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			got := rescore(t, old, leftOut(tc.structures...))
			for i, v := range got.Volumes {
				was := old.Volumes[i]
				gone := slices.Contains(tc.structures, v.Structure)
				if gone != v.LeftOut || gone && (v.Z != nil || v.ZCI95 != nil || v.Percentile != nil) {
					t.Errorf("%s: left out %v, z %v", v.Structure, v.LeftOut, v.Z)
				}
				if gone {
					v.Z, v.ZCI95, v.Percentile, v.LeftOut = was.Z, was.ZCI95, was.Percentile, false
				}
				if !reflect.DeepEqual(v, was) {
					t.Errorf("%+v, was %+v", v, was)
				}
			}
			var indices []neuroscreen.Index
			for _, i := range old.Indices {
				if !slices.Contains(tc.indices, i.Name) {
					indices = append(indices, i)
				}
			}
			if !reflect.DeepEqual(got.Indices, indices) {
				t.Errorf("indices %+v, want %+v", got.Indices, indices)
			}
			if got.QC.Verdict != old.QC.Verdict || got.Software.Network != old.Software.Network || got.Input.SHA256 != old.Input.SHA256 || got.SettingsVersion != old.SettingsVersion {
				t.Error("more changed than what was left out")
			}
			back := rescore(t, got, leftOut())
			if !reflect.DeepEqual(back.Scores, old.Scores) || !reflect.DeepEqual(back.Volumes, old.Volumes) || !reflect.DeepEqual(back.Indices, old.Indices) {
				t.Error("taken back in, it is not what it was")
			}
		})
	}

	t.Run("the flag follows", func(t *testing.T) {
		got := rescore(t, old, leftOut("Left-Hippocampus"))
		if old.Scores[0].Flag != neuroscreen.FlagFlagged || got.Scores[0].Flag != neuroscreen.FlagNone || got.Scores[0].AbstainedType != neuroscreen.StructureExcluded {
			t.Errorf("flag %s, then %+v", old.Scores[0].Flag, got.Scores[0])
		}
	})

	t.Run("an analysis goes on without it", func(t *testing.T) {
		again := scanOf(t, atrophied, 75, neuroscreen.Female)
		again.LeftOut = leftOut("Left-Hippocampus").LeftOut
		out, err := engine(t).Analyze(context.Background(), again)
		if err != nil {
			t.Fatal(err)
		}
		got := stored(t, out.Result)
		if got.Amendment == nil || got.Amendment.FromVersion != 0 || !slices.Equal(got.Amendment.Structures(), []string{"Left-Hippocampus"}) {
			t.Errorf("amendment %+v", got.Amendment)
		}
		// The same as to correct the age first and leave out then.
		corrected := scanOf(t, atrophied, 75, neuroscreen.Female)
		whole, err := engine(t).Analyze(context.Background(), corrected)
		if err != nil {
			t.Fatal(err)
		}
		want, _, err := r.Rescore(stored(t, whole.Result), corrected.Metadata, in.Settings, leftOut("Left-Hippocampus"))
		if err != nil {
			t.Fatal(err)
		}
		if w := stored(t, want); !reflect.DeepEqual(got.Scores, w.Scores) || !reflect.DeepEqual(got.Indices, w.Indices) || !reflect.DeepEqual(got.Volumes, w.Volumes) {
			t.Error("the two ways to a corrected age without a structure differ")
		}
	})

	t.Run("refused", func(t *testing.T) {
		problem := func(old neuroscreen.Result, a neuroscreen.Amendment) string {
			_, _, err := r.Rescore(old, in.Metadata, in.Settings, a)
			return neuroscreen.AsError(err).Type
		}
		other := stored(t, &old)
		other.Software.Network.SHA256 = "1b"
		models := stored(t, &old)
		models.Software.Models[0].SHA256 = "1b"
		rules := stored(t, &old) // scored by a release with the same files and other code
		*rules.Scores[1].LikelihoodRatio *= 1.01
		for name, c := range map[string]struct{ got, want string }{
			"no such volume": {problem(old, leftOut("Left-Liver")), "invalid-value"},
			"other weights":  {problem(other, leftOut("CSF")), "other-models"},
			"other models":   {problem(models, leftOut("CSF")), "other-models"},
			"other rules":    {problem(rules, leftOut("CSF")), "other-models"},
		} {
			if c.got != c.want {
				t.Errorf("%s: %q, want %q", name, c.got, c.want)
			}
		}
	})
}
