package pipeline

import (
	"testing"

	"neuroscreen"
	"neuroscreen/internal/anatomy"
	"neuroscreen/internal/nifti"
	"neuroscreen/internal/testdata"
	"neuroscreen/internal/train/synth"
)

// sclerosisOf draws a T1-weighted head from a label map, analyses it as the
// product does, and returns the score of mesial temporal sclerosis with the
// asymmetry of the drawn labels and the measured one.
func sclerosisOf(t *testing.T, e *Engine, maps *synth.Maps, o synth.HeadOptions) (s neuroscreen.Score, drawn, measured float64) {
	t.Helper()
	o.Seed, o.NoiseSD, o.BiasSD = 1, 3, .1
	v, labels, err := maps.Head(o)
	if err != nil {
		t.Fatal(err)
	}
	out := analyzed(t, e, v.Shape[:], nifti.Affine(v.Affine), v.Data)
	count := map[uint8]float64{}
	for _, l := range labels.Data {
		count[l]++
	}
	left, _ := anatomy.ByName("Left-Hippocampus")
	l, r := count[uint8(left.Label)], count[uint8(anatomy.Structures[left.Mirror].Label)]
	for _, s = range out.Result.Scores {
		if s.Condition == neuroscreen.MesialTemporalSclerosis {
			break
		}
	}
	if len(s.Contributions) > 0 {
		measured = s.Contributions[0].Value
	}
	return s, 100 * (r - l) / (r + l), measured
}

// TestSclerosisOfHeads: heads drawn from label maps with alike hippocampi are
// not marked, and a head that has lost one of them is marked on that side. The
// table in docs/scores.md is what it prints.
func TestSclerosisOfHeads(t *testing.T) {
	if testing.Short() {
		t.Skip("each head takes seconds")
	}
	dir := testdata.Shared(t, "labelmaps")
	e := engine(t)
	shrunk := func(side synth.Target) map[synth.Target]float64 { return map[synth.Target]float64{side: .6} }
	for _, tt := range []struct {
		name string
		head synth.HeadOptions
		flag neuroscreen.Flag
		side string
	}{
		{"03", synth.HeadOptions{Map: "03"}, neuroscreen.FlagNone, ""},
		{"09", synth.HeadOptions{Map: "09"}, neuroscreen.FlagNone, ""},
		{"10", synth.HeadOptions{Map: "10"}, neuroscreen.FlagNone, ""},
		{"14", synth.HeadOptions{Map: "14"}, neuroscreen.FlagNone, ""},
		{"15", synth.HeadOptions{Map: "15"}, neuroscreen.FlagNone, ""},
		{"19", synth.HeadOptions{Map: "19"}, neuroscreen.FlagNone, ""},
		{"20", synth.HeadOptions{Map: "20"}, neuroscreen.FlagNone, ""},
		{"07, small on the left", synth.HeadOptions{Map: "07"}, neuroscreen.FlagFlagged, "left"},
		{"07 mirrored", synth.HeadOptions{Map: "07", Mirrored: true}, neuroscreen.FlagFlagged, "right"},
		{"04, left shrunk by 40 %", synth.HeadOptions{Map: "04", Share: shrunk(synth.LeftHippocampus)}, neuroscreen.FlagFlagged, "left"},
		{"04, right shrunk by 40 %", synth.HeadOptions{Map: "04", Share: shrunk(synth.RightHippocampus)}, neuroscreen.FlagFlagged, "right"},
		{"17, left shrunk by 40 %", synth.HeadOptions{Map: "17", Share: shrunk(synth.LeftHippocampus)}, neuroscreen.FlagFlagged, "left"},
		{"17, right shrunk by 40 %", synth.HeadOptions{Map: "17", Share: shrunk(synth.RightHippocampus)}, neuroscreen.FlagFlagged, "right"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			maps, err := synth.LoadMaps(dir, tt.head.Map)
			if err != nil {
				t.Fatal(err)
			}
			s, drawn, measured := sclerosisOf(t, e, maps, tt.head)
			side := ""
			if s.Side != nil {
				side = *s.Side
			}
			if s.Abstained != nil {
				t.Fatalf("abstained: %s", *s.Abstained)
			}
			t.Logf("| %s | %+.1f | %+.1f | %+.1f | %.2g | %.2g to %.2g | %s %s |", tt.name, drawn, measured, *s.Contributions[1].Z, *s.LikelihoodRatio, s.CI95[0], s.CI95[1], s.Flag, side)
			if s.Flag != tt.flag || side != tt.side {
				t.Errorf("%s %s, want %s %s", s.Flag, side, tt.flag, tt.side)
			}
		})
	}
}
