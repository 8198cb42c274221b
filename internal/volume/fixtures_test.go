package volume

import (
	"encoding/json"
	"math"
	"os"
	"testing"
)

// fixtures is testdata/fixtures.json; testdata/make_fixtures.py makes it.
type fixtures struct {
	Orientations []struct {
		Affine          Affine
		Codes           string
		Shape           [3]int
		Data            []float32
		CanonicalShape  [3]int    `json:"canonical_shape"`
		CanonicalAffine Affine    `json:"canonical_affine"`
		CanonicalData   []float32 `json:"canonical_data"`
	}
	Skewed []struct {
		Affine Affine
		Codes  string
	}
	Resamplings []resampling
	Blurs       []struct {
		Shape         [3]int
		Sigma         [3]float64
		Data, Blurred []float32
	}
	Percentiles []struct {
		Data   []float32
		P      []float64
		Values []float64
	}
	Zooms []struct {
		Name       string
		SrcShape   [3]int `json:"src_shape"`
		DstShape   [3]int `json:"dst_shape"`
		Src, Want  []float32
		From, Step [3]float64
	}
}

type resampling struct {
	Name      string
	SrcShape  [3]int `json:"src_shape"`
	SrcAffine Affine `json:"src_affine"`
	Src       []float32
	DstShape  [3]int `json:"dst_shape"`
	DstAffine Affine `json:"dst_affine"`
	Sigma     [3]float64
	Linear    []float32
	Labels    []int
	Nearest   []int
}

func (r *resampling) src() *Volume {
	return &Volume{Grid{r.SrcShape, r.SrcAffine}, r.Src}
}

func (r *resampling) dst() Grid { return Grid{r.DstShape, r.DstAffine} }

func bytesOf(x []int) []uint8 {
	b := make([]uint8, len(x))
	for n, v := range x {
		b[n] = uint8(v)
	}
	return b
}

func loadFixtures(t testing.TB) *fixtures {
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

// wantClose fails if a value is off by more than tol.
func wantClose(t *testing.T, got, want []float32, tol float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d values, want %d", len(got), len(want))
	}
	for n := range got {
		if !(math.Abs(float64(got[n])-float64(want[n])) <= tol) {
			t.Fatalf("value %d is %g, want %g", n, got[n], want[n])
		}
	}
}

func wantAffine(t *testing.T, got, want Affine) {
	t.Helper()
	for i := range 4 {
		for j := range 4 {
			if !(math.Abs(got[i][j]-want[i][j]) <= 1e-9) {
				t.Fatalf("affine is\n%v, want\n%v", got, want)
			}
		}
	}
}
