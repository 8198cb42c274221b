package synth

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"neuroscreen/internal/anatomy"
	"neuroscreen/internal/nifti"
	"neuroscreen/internal/testdata"
)

// sampleHeads are the synthetic heads in testdata/heads. They are drawn from
// maps that the network doesn't learn from, bent and scaled into nobody's.
var sampleHeads = map[string]HeadOptions{
	"atrophied_74F": {
		Map: "08", Seed: 74, BendMM: 2.5, Mirrored: true,
		Scale: [3]float64{.93, .95, .96}, RotationDeg: [3]float64{5, 2, -3}, ShiftMM: [3]float64{0, 0, 2},
		Share: map[Target]float64{
			LeftHippocampus: .84, RightHippocampus: .9, LeftAmygdala: .85, RightAmygdala: .85,
			LeftVentricle: 1.7, RightVentricle: 1.6, Brain: .97,
		},
		VoxelMM: [3]float64{1.4, 1.4, 1.4}, Shape: [3]int{118, 150, 144}, Orientation: "LAS",
		NoiseSD: 2, BiasSD: .08,
	},
	"healthy_45M": {
		Map: "04", Seed: 45, BendMM: 2.5,
		Scale: [3]float64{1.01, .98, 1}, RotationDeg: [3]float64{-4, 1, 2}, ShiftMM: [3]float64{0, 0, 10},
		Share: map[Target]float64{
			LeftHippocampus: .92, RightHippocampus: .9, LeftHorn: 1.2, RightHorn: 1, LeftVentricle: 1.2, RightVentricle: 1.15,
		},
		VoxelMM: [3]float64{1.4, 1.4, 1.4}, Shape: [3]int{128, 150, 126}, Orientation: "RAS",
		NoiseSD: 2, BiasSD: .08,
	},
}

// TestWriteSampleHeads makes testdata/heads:
//
//	NEUROSCREEN_SYNTH_HEADS=../../../testdata/heads go test -run WriteSampleHeads ./internal/train/synth
func TestWriteSampleHeads(t *testing.T) {
	dir := os.Getenv("NEUROSCREEN_SYNTH_HEADS")
	if dir == "" {
		t.Skip("NEUROSCREEN_SYNTH_HEADS names no folder to write")
	}
	m, err := LoadMaps(testdata.Shared(t, "labelmaps"), "04", "08")
	if err != nil {
		t.Fatal(err)
	}
	for name, o := range sampleHeads {
		v, l := head(t, m, o)
		stored := make([]uint8, len(v.Data))
		for i, x := range v.Data {
			stored[i] = uint8(min(255, x+.5))
		}
		f, err := os.Create(filepath.Join(dir, name+".nii.gz"))
		if err != nil {
			t.Fatal(err)
		}
		if err := nifti.Write(f, nifti.Geometry{Shape: v.Shape[:], Affine: nifti.Affine(v.Affine)}, stored); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		var table strings.Builder
		table.WriteString("label\tname\tmm3\n")
		for _, s := range anatomy.Structures[1:] {
			fmt.Fprintf(&table, "%d\t%s\t%.0f\n", s.Label, s.Name, float64(countLabels(l, uint8(s.Label)))*l.VoxelMM3())
		}
		if err := os.WriteFile(filepath.Join(dir, name+"_volumes.tsv"), []byte(table.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
