package volume

import (
	"slices"
	"testing"
)

func TestCanonicalEqualsNibabel(t *testing.T) {
	t.Parallel()
	cases := loadFixtures(t).Orientations
	if len(cases) != 96 {
		t.Fatalf("%d cases, want 48 orientations straight and oblique", len(cases))
	}
	for _, c := range cases {
		t.Run(c.Codes, func(t *testing.T) {
			v := &Volume{Grid{c.Shape, c.Affine}, c.Data}
			if got := v.Orientation(); got != c.Codes {
				t.Fatalf("orientation %s, want %s", got, c.Codes)
			}
			got, re := Canonical(v)
			if got.Shape != c.CanonicalShape {
				t.Fatalf("shape %v, want %v", got.Shape, c.CanonicalShape)
			}
			wantAffine(t, got.Affine, c.CanonicalAffine)
			if !slices.Equal(got.Data, c.CanonicalData) {
				t.Fatal("data differ")
			}
			if got.Orientation() != "RAS" {
				t.Fatalf("canonical orientation %s", got.Orientation())
			}

			back := re.Inverse().Volume(got)
			if !back.Near(v.Grid, 1e-9) || !slices.Equal(back.Data, v.Data) {
				t.Fatal("the inverse does not lead back")
			}
			l := &Labels{got.Grid, make([]uint8, got.Len())}
			for n, x := range got.Data {
				l.Data[n] = uint8(x)
			}
			for n, x := range re.Inverse().Labels(l).Data {
				if float32(x) != v.Data[n] {
					t.Fatalf("label %d carried back as %d, want %g", n, x, v.Data[n])
				}
			}
		})
	}
}

func TestCanonicalVolumeIsReturnedAsItIs(t *testing.T) {
	t.Parallel()
	v := New(Grid{[3]int{2, 3, 4}, Identity})
	if got, re := Canonical(v); got != v || !re.IsIdentity() {
		t.Fatal("a RAS volume was copied")
	}
}

func TestOrientationOfSkewedAxesEqualsNibabel(t *testing.T) {
	t.Parallel()
	for _, c := range loadFixtures(t).Skewed {
		if got := c.Affine.Orientation(); got != c.Codes {
			t.Errorf("%v: %s, want %s", c.Affine, got, c.Codes)
		}
	}
}
