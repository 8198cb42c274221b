package synth

import (
	"slices"
	"testing"
)

func TestStrip(t *testing.T) {
	t.Parallel()
	// Air and every tissue has signal, so that what is 0 was stripped.
	before, _ := raw(t, 1, func(*Config) {})
	for _, c := range []struct {
		name  string
		kind  Strip
		brain [2]float64 // least and most share that keeps signal, of brain,
		fluid [2]float64 // of the fluid round it,
		other [2]float64 // and of other tissue
	}{
		{"loose", Loose, [2]float64{.999, 1}, [2]float64{.97, 1}, [2]float64{.01, .4}},
		{"skull", Skull, [2]float64{.99, 1}, [2]float64{.7, 1}, [2]float64{0, .1}},
		{"tight", Tight, [2]float64{.9, 1}, [2]float64{.01, .8}, [2]float64{0, .02}},
		{"brain only", BrainOnly, [2]float64{1, 1}, [2]float64{0, 0}, [2]float64{0, 0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for seed := range random(4) {
				g := New(artificial(), still(stillShape, stillMM), 1)
				g.Sample(1)
				labels := slices.Clone(g.out.Labels)
				r := seed
				g.strip(&r, c.kind)
				if !slices.Equal(labels, g.out.Labels) {
					t.Fatal("labels changed")
				}
				var kept, all [3]float64
				for i, k := range labels {
					group := 0
					switch {
					case k == csf:
						group = 1
					case k == 0:
						group = 2
					}
					if before[i] == 0 {
						continue
					}
					all[group]++
					if g.image[i] > before[i]/2 {
						kept[group]++
					}
				}
				for group, limits := range [][2]float64{c.brain, c.fluid, c.other} {
					if share := kept[group] / all[group]; share < limits[0] || share > limits[1] {
						t.Errorf("seed %d: %.4f of %s keeps signal, want %g to %g", seed, share, []string{"brain", "fluid", "other tissue"}[group], limits[0], limits[1])
					}
				}
			}
		})
	}
}

func TestHoles(t *testing.T) {
	t.Parallel()
	before, _ := raw(t, 1, func(*Config) {})
	g := New(artificial(), still(stillShape, stillMM), 1)
	labels := slices.Clone(g.Sample(1).Labels)
	r := random(3)
	g.hole(&r)
	cleared := 0
	for i, v := range g.image {
		if v != before[i] {
			cleared++
			if v != 0 {
				t.Fatal("a hole that is not 0")
			}
		}
	}
	if cleared == 0 || !slices.Equal(labels, g.out.Labels) {
		t.Errorf("%d voxels cleared", cleared)
	}
}

func TestDeface(t *testing.T) {
	t.Parallel()
	before, s := raw(t, 1, func(*Config) {})
	for i := range uint64(4) {
		after, d := raw(t, 1, func(c *Config) { c.Deface = 1; c.ShiftMM = Range{float64(i), float64(i)} })
		if !d.Drawn.Defaced {
			t.Fatal("not defaced")
		}
		if i > 0 {
			continue // moved, so that voxels don't compare
		}
		cleared := 0
		for j := range before {
			if before[j] != after[j] {
				cleared++
				if s.Labels[j] != 0 || after[j] != 0 {
					t.Fatalf("class %d went from %g to %g", s.Labels[j], before[j], after[j])
				}
				if y := j / stillShape[0] % stillShape[1]; y < stillShape[1]/3 {
					t.Fatal("cleared the back of the head")
				}
			}
		}
		if cleared < 1000 {
			t.Errorf("%d voxels of face cleared", cleared)
		}
	}
}

func TestCut(t *testing.T) {
	t.Parallel()
	whole := drawn(t, 1, func(*Config) {})
	image, labels := slices.Clone(whole.Image), slices.Clone(whole.Labels)
	for axis := range 3 {
		for side := range 2 {
			g := New(artificial(), still(stillShape, stillMM), 1)
			g.Sample(1)
			first, last, _ := g.brainAlong(axis)
			copy(g.image, image)
			g.cut(axis, side, -10) // 10 mm into the brain
			lost := 0
			for i, k := range labels {
				at := []int{i % stillShape[0], i / stillShape[0] % stillShape[1], i / stillShape[0] / stillShape[1]}[axis]
				gone := at < first+5
				if side == 1 {
					gone = at > last-5
				}
				if gone {
					if g.image[i] != 0 || g.out.Labels[i] != 0 {
						t.Fatalf("axis %d side %d: something left at %d", axis, side, at)
					}
					if k != 0 {
						lost++
					}
				} else if g.image[i] != image[i] || g.out.Labels[i] != k {
					t.Fatalf("axis %d side %d: changed at %d", axis, side, at)
				}
			}
			if lost == 0 {
				t.Errorf("axis %d side %d: no brain lost", axis, side)
			}
		}
	}
}

func TestLongNeck(t *testing.T) {
	t.Parallel()
	lowest := func(long float64) float64 {
		image, _ := raw(t, 1, func(c *Config) { c.LongNeck = long; c.ShiftMM = Range{-40, -40} })
		return meanWhere(image, func(i int) bool { return i < stillShape[0]*stillShape[1] })
	}
	if short, long := lowest(0), lowest(1); short > 0 || long < 1 {
		t.Errorf("below the map lies signal of %.1f, with a long neck %.1f", short, long)
	}
}
