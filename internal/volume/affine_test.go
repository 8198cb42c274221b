package volume

import (
	"errors"
	"math"
	"testing"
)

func TestAffineInverse(t *testing.T) {
	t.Parallel()
	for _, c := range loadFixtures(t).Orientations {
		wantAffine(t, c.Affine.Mul(c.Affine.Inverse()), Identity)
		wantAffine(t, c.Affine.Inverse().Mul(c.Affine), Identity)
	}
}

func TestAffineCheck(t *testing.T) {
	t.Parallel()
	with := func(edit func(*Affine)) Affine {
		a := Affine{{-0.9, 0, 0, 80}, {0, 1.1, 0, -100}, {0, 0, 1.2, -70}, {0, 0, 0, 1}}
		edit(&a)
		return a
	}
	cases := map[string]struct {
		affine Affine
		kind   string // "" for usable
	}{
		"scanner's":            {with(func(*Affine) {}), ""},
		"not a number":         {with(func(a *Affine) { a[1][2] = math.NaN() }), "not-finite"},
		"infinite translation": {with(func(a *Affine) { a[0][3] = math.Inf(1) }), "not-finite"},
		"all zero":             {Affine{3: {3: 1}}, "singular"},
		"zero column":          {with(func(a *Affine) { a[2][2] = 0 }), "singular"},
		"parallel columns":     {with(func(a *Affine) { a[0][1], a[1][1] = 1, 0 }), "singular"},
		"last row":             {with(func(a *Affine) { a[3][0] = 1 }), "singular"},
		"metres":               {Scaling([3]float64{0.001, 0.001, 0.001}), "voxel-size"},
		"micrometres":          {Scaling([3]float64{900, 900, 900}), "voxel-size"},
		"3 degrees of shear":   {with(func(a *Affine) { a[0][1] = 1.1 * math.Tan(3*math.Pi/180) }), ""},
		"10 degrees of shear":  {with(func(a *Affine) { a[0][1] = 1.1 * math.Tan(10*math.Pi/180) }), "sheared"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			err := c.affine.Check()
			if c.kind == "" {
				if err != nil {
					t.Fatalf("refused: %v", err)
				}
				return
			}
			if e, ok := errors.AsType[*AffineError](err); !ok || e.Kind != c.kind {
				t.Fatalf("error %v, want %s", err, c.kind)
			}
		})
	}
}

func TestGridMeasures(t *testing.T) {
	t.Parallel()
	// LAS, 2 x 3 x 4 mm, and the same turned by 90 degrees about z.
	g := Grid{[3]int{5, 7, 9}, Affine{{-2, 0, 0, 4}, {0, 3, 0, -9}, {0, 0, 4, -16}, {0, 0, 0, 1}}}
	turned := g
	turned.Affine = Affine{{0, -1, 0, 0}, {1, 0, 0, 0}, {0, 0, 1, 0}, {0, 0, 0, 1}}.Mul(g.Affine)
	for _, g := range []Grid{g, turned} {
		if s := g.VoxelSize(); s != [3]float64{2, 3, 4} {
			t.Errorf("voxel size %v", s)
		}
		if v := g.VoxelMM3(); v != 24 {
			t.Errorf("voxel volume %g", v)
		}
		if c := g.Centre(); c != [3]float64{} {
			t.Errorf("centre %v", c)
		}
	}
	if !g.Near(g, 0) || g.Near(turned, 1) {
		t.Error("Near can't tell a grid from its rotation")
	}
	// The last of 9 slices moves by 8 * 0.01 mm.
	moved := g
	moved.Affine[2][2] += 0.01
	if !g.Near(moved, 0.081) || g.Near(moved, 0.079) {
		t.Error("Near does not measure at the corners")
	}
}
