package volume

import (
	"math"
	"slices"
	"testing"
)

// Whatever affine passes Check can be used: its canonical form is RAS and
// stays so, the way back restores every voxel, and resampling onto the
// canonical grid moves voxels without changing them.
func FuzzAffine(f *testing.F) {
	f.Add(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0)
	f.Add(-0.9, 0.01, 0.0, 0.0, 1.1, 0.2, 0.1, 0.0, 1.3, 80.0, -120.0, -70.0)
	f.Add(0.0, 0.0, -2.0, 1.0, 0.0, 0.0, 0.0, -3.0, 0.0, 1.0, 2.0, 3.0)
	h := math.Sqrt(0.5)
	f.Add(h, -h, 0.0, h, h, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0)
	f.Add(-h, h, 0.0, 0.5, 0.5, -h, -0.5, -0.5, -h, 0.0, 0.0, 0.0)
	f.Add(math.NaN(), math.Inf(1), 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1e300, 0.0, 1e-300, 0.0)
	f.Fuzz(func(t *testing.T, a, b, c, d, e, g, h, i, j, x, y, z float64) {
		v := New(Grid{[3]int{2, 3, 4}, Affine{{a, b, c, x}, {d, e, g, y}, {h, i, j, z}, {0, 0, 0, 1}}})
		v.Orientation() // of anything, without panic
		if v.Affine.Check() != nil || math.Abs(x)+math.Abs(y)+math.Abs(z) > 1e5 {
			return
		}
		for n := range v.Data {
			v.Data[n] = float32(n + 1)
		}
		ras, re := Canonical(v)
		if o := ras.Orientation(); o != "RAS" {
			t.Fatalf("canonical form is %s", o)
		}
		if again, same := Canonical(ras); again != ras || !same.IsIdentity() {
			t.Fatal("canonical form is not final")
		}
		back := re.Inverse().Volume(ras)
		if !back.Near(v.Grid, 1e-6) || !slices.Equal(back.Data, v.Data) {
			t.Fatal("the way back leads elsewhere")
		}
		for n, got := range Resample(v, ras.Grid, Options{}).Data {
			if math.Abs(float64(got-ras.Data[n])) > 0.05 {
				t.Fatalf("voxel %d resampled in place is %g, was %g", n, got, ras.Data[n])
			}
		}
	})
}
