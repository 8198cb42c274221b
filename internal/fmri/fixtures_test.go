package fmri

import (
	"encoding/json"
	"math"
	"os"
	"testing"

	"neuroscreen/internal/volume"
)

// fixtures is testdata/fixtures.json; testdata/make_fixtures.py makes it.
type fixtures struct {
	Dummies []struct {
		Means []float64
		Count int
	}
	Displacement struct{ Parameters, FD []float64 }
	Quality      struct {
		Shape        [3]int
		TR, Drift    float64
		Frames       int
		Data         []float32 // voxel after voxel
		DVARS        []float64
		StdDVARS     []float64 `json:"std_dvars"`
		TSNR         []float64
		OutlierShare []float64 `json:"outlier_share"`
		Global       []float64
	}
	Cleaning struct {
		Frames           int
		TR               float64
		Parameters       []float64
		Outlier, Kept    []bool
		Tissue, Voxels   []float32 // voxel after voxel
		Cosines, Motion  []float64 // column after column
		Projector, First []float64
		Full, Band       []float64
		RankFull         int `json:"rank_full"`
		RankBand         int `json:"rank_band"`
	}
	Local struct {
		Shape             [3]int
		Frames            int
		TR                float64
		Voxels            []int32
		Data              []float32 // voxel after voxel
		ALFF, FALFF, ReHo []float64
	}
	Connectome struct {
		Frames, Nodes int
		Data          []float64 // node after node
		R, Z          []float64 // row after row
		SplitHalf     float64   `json:"split_half"`
		Degree        []int
		Strength      []float64
		Clustering    []float64
		PathLength    float64 `json:"path_length"`
		Connected     float64
		Modularity    float64
		Communities   [][]int
	}
	Decoding struct {
		X            []float32 // sample after sample
		Voxels, Keep int
		Class, Run   []int
		Predicted    []int
		Weights      []float64 // condition after condition
		Confusion    [][]int
	}
	Spheres struct {
		Shape   [3]int
		Affine  volume.Affine
		Frames  int
		Radius  float64
		Seeds   [][3]float64
		Network []string
		Voxels  []int32
		Data    []float32 // voxel after voxel
		Signals []float64 // seed after seed
		R, Z    []float64 // row after row
		Within  []float64 // of each network
	}
	Spline struct {
		Shape  [3]int
		Data   []float32
		At     [][3]float64
		Values []float64
	}
}

func load(t testing.TB) *fixtures {
	t.Helper()
	b, err := os.ReadFile("testdata/fixtures.json")
	if err != nil {
		t.Fatal(err)
	}
	f := new(fixtures)
	if err := json.Unmarshal(b, f); err != nil {
		t.Fatal(err)
	}
	return f
}

// wantClose fails if a value is off by more than tol, relatively above 1.
func wantClose[A, B float32 | float64](t *testing.T, what string, got []A, want []B, tol float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d values, want %d", what, len(got), len(want))
	}
	for n := range got {
		g, w := float64(got[n]), float64(want[n])
		if !(math.Abs(g-w) <= tol*max(1, math.Abs(w))) {
			t.Fatalf("%s: value %d is %g, want %g", what, n, g, w)
		}
	}
}

// seriesOf takes voxels that follow each other.
func seriesOf(frames int, data []float32) *Series {
	s := &Series{Frames: frames, Data: data}
	for n := range len(data) / frames {
		s.Voxels = append(s.Voxels, int32(n))
	}
	return s
}
