package model

import (
	"os"
	"path/filepath"
	"testing"

	"neuroscreen"
	"neuroscreen/internal/nifti"
	"neuroscreen/internal/norm"
	"neuroscreen/internal/testdata"
)

// The hippocampi of the label maps themselves, without a network between: alike
// ones are not marked, a small one is, on its side.
func TestSclerosisOfMaps(t *testing.T) {
	if testing.Short() {
		t.Skip("reading label maps takes seconds")
	}
	dir := testdata.Shared(t, "labelmaps")
	for _, tt := range []struct {
		of          string
		left, right float64 // shares that are kept
		mirrored    bool
		flag        neuroscreen.Flag
		side        string
	}{
		{"03", 1, 1, false, neuroscreen.FlagNone, ""},
		{"09", 1, 1, false, neuroscreen.FlagNone, ""},
		{"10", 1, 1, false, neuroscreen.FlagNone, ""},
		{"14", 1, 1, false, neuroscreen.FlagNone, ""},
		{"15", 1, 1, false, neuroscreen.FlagNone, ""},
		{"19", 1, 1, false, neuroscreen.FlagNone, ""},
		{"20", 1, 1, false, neuroscreen.FlagNone, ""},
		{"07", 1, 1, false, neuroscreen.FlagFlagged, "left"},
		{"07", 1, 1, true, neuroscreen.FlagFlagged, "right"},
		{"04", 0.6, 1, false, neuroscreen.FlagFlagged, "left"},
		{"04", 1, 0.6, false, neuroscreen.FlagFlagged, "right"},
		{"17", 0.6, 1, false, neuroscreen.FlagFlagged, "left"},
		{"17", 1, 0.6, false, neuroscreen.FlagFlagged, "right"},
	} {
		left, right, icv := hippocampiOf(t, filepath.Join(dir, "training_seg_"+tt.of+".nii.gz"))
		left, right = tt.left*left, tt.right*right
		if tt.mirrored {
			left, right = right, left
		}
		s := first(t, Default().Score(Features{
			Person: norm.Person{AgeYears: 45, Sex: neuroscreen.Male, ICVMM3: &icv}, Calibration: norm.Calibration{Segmenter: norm.FreeSurfer6}, QC: neuroscreen.VerdictPass,
			Volumes: map[string]norm.Measured{"Left-Hippocampus": {MM3: left}, "Right-Hippocampus": {MM3: right}},
		}), neuroscreen.MesialTemporalSclerosis)
		side := ""
		if s.Side != nil {
			side = *s.Side
		}
		if s.Abstained != nil || s.Flag != tt.flag || side != tt.side {
			t.Errorf("map %s, %.0f and %.0f mm3 in %.2f l: %s %q (%s), want %s %q", tt.of, left, right, icv/1e6, s.Flag, side, abstention(s), tt.flag, tt.side)
		}
	}
}

// hippocampiOf counts the voxels, of 1 mm3, of a label map's hippocampi and of
// all that lies inside the skull.
func hippocampiOf(t *testing.T, path string) (left, right, icv float64) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	img, err := nifti.Decode(f, nifti.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range img.Data {
		switch {
		case l == 17:
			left++
		case l == 53:
			right++
		}
		if l > 0 && l < 100 {
			icv++
		}
	}
	return left, right, icv
}
