package train

import (
	"math"
	"math/rand/v2"
	"testing"

	"neuroscreen/internal/anatomy"
	"neuroscreen/internal/segment"
	"neuroscreen/internal/volume"
)

// ball is a head stored as LPS: intensity 100 within 30 mm of the middle and
// 200 within 10 mm of a place to its left, front and top.
func ball() *volume.Volume {
	g := volume.Grid{Shape: [3]int{90, 80, 70}, Affine: volume.Affine{{-1, 0, 0, 44.5}, {0, -1, 0, 39.5}, {0, 0, 1, -34.5}, {3: 1}}}
	v := volume.New(g)
	for o := range v.Data {
		p := g.Affine.Apply([3]float64{float64(o % 90), float64(o / 90 % 80), float64(o / 7200)})
		if near(p, [3]float64{}) < 30 {
			v.Data[o] = 100
		}
		if near(p, blobAt) < 6 {
			v.Data[o] = 200
		}
	}
	return v
}

var blobAt = [3]float64{-14, 10, 6}

func near(p, q [3]float64) (d float64) {
	for a := range p {
		d = math.Hypot(d, p[a]-q[a])
	}
	return d
}

// brightMiddle is the place in the patient of what is near 200, and its volume.
func brightMiddle(v *volume.Volume) (c [3]float64, mm3 float64) {
	count := 0.0
	for o, x := range v.Data {
		if x > 150 {
			p := v.Affine.Apply([3]float64{float64(o % v.Shape[0]), float64(o / v.Shape[0] % v.Shape[1]), float64(o / v.Shape[0] / v.Shape[1])})
			for a := range c {
				c[a] += p[a]
			}
			count++
		}
	}
	for a := range c {
		c[a] /= count
	}
	return c, count * v.VoxelMM3()
}

// TestPerturbations: what each does to the place and size of a blob.
func TestPerturbations(t *testing.T) {
	s, c := math.Sincos(10 * math.Pi / 180)
	x, y, z := blobAt[0], blobAt[1], blobAt[2]
	for _, tc := range []struct {
		name   string
		change func(*volume.Volume, *rand.Rand) *volume.Volume
		at     [3]float64
	}{
		{"stored as PIR", storedAlong([3]int{1, 2, 0}, [3]bool{true, true, false}), blobAt},
		{"mirrored", mirroredHead, [3]float64{-x, y, z}},
		{"nodded", turned(0, 10), [3]float64{x, c*y + s*z, c*z - s*y}},
		{"tilted", turned(1, 10), [3]float64{c*x - s*z, y, c*z + s*x}},
		{"shifted", shifted([3]float64{5.3, -7.7, 9.1}), [3]float64{x - 5.3, y + 7.7, z - 9.1}},
		{"1.5 mm", resliced([3]float64{1.5, 1.5, 1.5}), blobAt},
		{"1 x 1 x 2 mm", resliced([3]float64{1, 1, 2}), blobAt},
		{"biased", biased(1.3), blobAt},
		{"noisy", noisy(.02), blobAt},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v := ball()
			before := append([]float32(nil), v.Data...)
			_, want := brightMiddle(v)
			w := tc.change(v, rand.New(rand.NewPCG(1, 1)))
			at, mm3 := brightMiddle(w)
			if d := near(at, tc.at); d > .4 {
				t.Errorf("blob at %.1f, want %.1f", at, tc.at)
			}
			if math.Abs(mm3/want-1) > .15 {
				t.Errorf("blob of %.0f mm3, want %.0f", mm3, want)
			}
			for i, x := range before {
				if v.Data[i] != x {
					t.Fatal("the head itself was changed")
				}
			}
			again := tc.change(v, rand.New(rand.NewPCG(1, 1)))
			for i, x := range w.Data {
				if again.Data[i] != x {
					t.Fatal("the same seed gives another head")
				}
			}
		})
	}
}

func TestBiasHasTheRangeAskedFor(t *testing.T) {
	v := volume.New(volume.Grid{Shape: [3]int{40, 40, 40}, Affine: volume.Identity})
	for i := range v.Data {
		v.Data[i] = 1
	}
	lo, hi := math.Inf(1), 0.
	for _, x := range biased(3)(v, rand.New(rand.NewPCG(3, 4))).Data {
		lo, hi = min(lo, float64(x)), max(hi, float64(x))
	}
	if math.Abs(hi/lo-3) > .01 {
		t.Errorf("largest over smallest %.2f, want 3", hi/lo)
	}
}

// TestWrongSide: labels on the right of the patient that say left are told, in
// any storage order.
func TestWrongSide(t *testing.T) {
	// Each structure has a place of its own along the second axis.
	l := volume.NewLabels(volume.Grid{Shape: [3]int{3, anatomy.NumClasses, 1}, Affine: volume.Identity})
	for k, s := range anatomy.Structures {
		x := map[anatomy.Side]int{anatomy.Left: 0, anatomy.Midline: 1, anatomy.Right: 2}[s.Side]
		l.Data[l.Index(x, k, 0)] = uint8(s.Label)
	}
	r := volume.Reorientation{Axis: [3]int{1, 2, 0}, Flip: [3]bool{true, false, true}}
	mirror := &volume.Labels{Grid: l.Grid, Data: volume.Reorientation{Axis: [3]int{0, 1, 2}, Flip: [3]bool{true, false, false}}.Labels(l).Data}
	for _, c := range []struct {
		name   string
		labels *volume.Labels
		want   int
	}{{"right", l, 0}, {"stored otherwise", r.Labels(l), 0}, {"exchanged", mirror, 14}, {"exchanged, stored otherwise", r.Labels(mirror), 14}} {
		if got := wrongSide(c.labels); got != c.want {
			t.Errorf("%s: %d pairs exchanged, want %d", c.name, got, c.want)
		}
	}
}

func TestAtrophySlope(t *testing.T) {
	a := Atrophy{Taken: [2][]float64{{.1, .2, .3}, {.1, .2, .4}}, Measured: [2][]float64{{.09, .18, .27}, {.1, .2, .4}}}
	for side, want := range []float64{.9, 1} {
		if got := a.Slope(side); math.Abs(got-want) > 1e-9 {
			t.Errorf("side %d: slope %.3f, want %.1f", side, got, want)
		}
	}
}

func TestChangeOfMirroredHeadIsAgainstTheOtherSide(t *testing.T) {
	base, s := &segment.Segmentation{ICVMM3: 100}, &segment.Segmentation{ICVMM3: 110, Labels: volume.NewLabels(volume.Grid{Affine: volume.Identity})}
	for k, st := range anatomy.Structures {
		base.MM3[k] = 100 + float64(k)
		s.MM3[k] = 100 + float64(st.Mirror)
	}
	got := change(Perturbation{Mirrors: true}, base, s)
	if got.Structures != 0 || got.Hippocampus != [2]float64{} || math.Abs(got.ICV-.1) > 1e-9 {
		t.Errorf("exchanged sides: %+v", got)
	}
	if got := change(Perturbation{}, base, s); got.Hippocampus[0] == 0 || got.Structures == 0 {
		t.Errorf("sides that stay: %+v", got)
	}
}

// TestOver: voxels given to a structure too many and too few are counted by the
// structure on the other side, whatever the sides.
func TestOver(t *testing.T) {
	label := func(name string) uint8 {
		s, ok := anatomy.ByName(name)
		if !ok {
			t.Fatal(name)
		}
		return uint8(s.Label)
	}
	l, r, amygdala, cortex := label("Left-Hippocampus"), label("Right-Hippocampus"), label("Right-Amygdala"), label("Left-Cerebral-Cortex")
	s, _ := anatomy.ByName("Left-Hippocampus")
	got := over([]uint8{l, r, r, amygdala, 0, cortex, cortex}, []uint8{cortex, cortex, amygdala, r, l, amygdala, l}, s.Class)
	c, _ := anatomy.ByName("Left-Cerebral-Cortex")
	want := [anatomy.NumClasses]float64{0: -1} // two of cortex too many and one too few; of the amygdala one of each
	want[c.Class] = 1
	if got != want {
		t.Errorf("%v, want %v", got, want)
	}
}
