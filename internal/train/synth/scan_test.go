package synth

import (
	"math"
	"slices"
	"testing"
)

func TestNoise(t *testing.T) {
	t.Parallel()
	const sd = 10
	for _, c := range []struct {
		name     string
		rician   float64
		mean, sd float64 // in air
	}{
		{"Gaussian", 0, 0, sd},
		// Without signal, Rician noise is Rayleigh's.
		{"Rician", 1, sd * math.Sqrt(math.Pi/2), sd * math.Sqrt(2-math.Pi/2)},
	} {
		t.Run(c.name, func(t *testing.T) {
			noise := func(cfg *Config) { cfg.Noise, cfg.NoiseSD, cfg.Rician = 1, Range{sd, sd}, c.rician }
			image, s := raw(t, 0, noise)
			clean, _ := raw(t, 0, func(*Config) {})
			air := func(i int) bool { return clean[i] == 0 }
			mean := meanWhere(image, air)
			sum, n := 0.0, 0.0
			for i, v := range image {
				if air(i) {
					sum += (float64(v) - mean) * (float64(v) - mean)
					n++
				}
			}
			if got := math.Sqrt(sum / n); math.Abs(mean-c.mean) > .1 || math.Abs(got-c.sd) > .1 {
				t.Errorf("air: %.2f ± %.2f, want %.2f ± %.2f", mean, got, c.mean, c.sd)
			}
			white := func(i int) bool { return s.Labels[i] == 1 }
			if a, b := meanWhere(image, white), meanWhere(clean, white); math.Abs(a-b) > 1 {
				t.Errorf("white matter went from %.1f to %.1f", b, a)
			}
		})
	}
}

func TestBias(t *testing.T) {
	t.Parallel()
	const sd = .3
	clean, _ := raw(t, 0, func(*Config) {})
	sum, n, steepest := 0.0, 0.0, 0.0
	for seed := range uint64(6) {
		cfg := still(stillShape, stillMM)
		cfg.Bias, cfg.BiasSD = 1, Range{sd, sd}
		g := New(artificial(), cfg, 1)
		g.Sample(0) // the anatomy of clean
		r, noise := random(seed), random(0)
		copy(g.image, clean)
		g.scan(&r, &noise, &Drawn{})
		last := math.NaN()
		for i, v := range g.image {
			if clean[i] == 0 {
				last = math.NaN()
				continue
			}
			b := math.Log(float64(v / clean[i]))
			sum += b * b
			n++
			if i%stillShape[0] != 0 && last-last == 0 {
				steepest = max(steepest, math.Abs(b-last))
			}
			last = b
		}
	}
	if got := math.Sqrt(sum / n); got < .6*sd || got > 1.5*sd {
		t.Errorf("field's SD %.3f, want about %.2f", got, sd)
	}
	if steepest > .15 {
		t.Errorf("field changes by %.3f within a voxel", steepest)
	}
}

// Slices of 3 mm leave detail across them that 1.9 mm voxels lose, and none
// of the mean.
func TestThickSlices(t *testing.T) {
	t.Parallel()
	sharp, s := raw(t, 0, func(*Config) {})
	cfg := still(stillShape, stillMM)
	cfg.Thick, cfg.SliceMM, cfg.Lines = 1, Range{3, 3}, 1
	g := New(artificial(), cfg, 1)
	axes := map[int]bool{}
	for i := range uint64(12) {
		d := g.Sample(i).Drawn
		axis := -1
		for a, mm := range d.SpacingMM {
			if mm > stillMM+1e-9 {
				if axis >= 0 || math.Abs(mm-3) > 1e-9 {
					t.Fatalf("spacing %v", d.SpacingMM)
				}
				axis = a
			}
		}
		axes[axis] = true
		step := []int{1, stillShape[0], stillShape[0] * stillShape[1]}
		// Mean square of second differences, along and across the slices.
		detail := func(image []float32, step int) float64 {
			sum := 0.0
			for i := step; i < len(image)-step; i++ {
				d := float64(image[i-step] - 2*image[i] + image[i+step])
				sum += d * d
			}
			return sum
		}
		along, across := detail(g.image, step[(axis+1)%3])/detail(sharp, step[(axis+1)%3]), detail(g.image, step[axis])/detail(sharp, step[axis])
		if across > .75*along {
			t.Errorf("axis %d: %.2f of the detail is left across slices, %.2f along them", axis, across, along)
		}
		// The intensities drawn differ between samples, so only the first's compare.
		if i == 0 {
			white := func(i int) bool { return s.Labels[i] == 1 }
			if a, b := meanWhere(g.image, white), meanWhere(sharp, white); math.Abs(a/b-1) > .05 {
				t.Errorf("white matter went from %.1f to %.1f", b, a)
			}
		}
	}
	if len(axes) != 3 {
		t.Errorf("axes %v were thick", axes)
	}
}

// An edge overshoots on both sides, and sums stay.
func TestRinging(t *testing.T) {
	t.Parallel()
	image, s := raw(t, 0, func(c *Config) { c.Ringing = 1 })
	clean, _ := raw(t, 0, func(*Config) {})
	if !s.Drawn.Ringing {
		t.Fatal("not drawn")
	}
	var a, b float64
	over, top := 0, slices.Max(clean)
	for i := range clean {
		a += float64(clean[i])
		b += float64(image[i])
		if image[i] > top*1.02 || image[i] < -2 {
			over++
		}
	}
	if math.Abs(b/a-1) > .002 || over < 100 {
		t.Errorf("signal went from %g to %g, %d voxels overshoot", a, b, over)
	}
}

func TestGhost(t *testing.T) {
	t.Parallel()
	clean, s := raw(t, 0, func(*Config) {})
	image, d := raw(t, 0, func(c *Config) { c.Ghost, c.GhostShare = 1, Range{.2, .2} })
	if !d.Drawn.Ghosted {
		t.Fatal("not ghosted")
	}
	var a, b float64
	for i := range clean {
		a += float64(clean[i])
		b += float64(image[i])
	}
	if math.Abs(b/a-1) > 1e-4 {
		t.Errorf("signal went from %g to %g", a, b)
	}
	outside := meanWhere(image, func(i int) bool { return s.Labels[i] == 0 && clean[i] == 0 })
	if outside < .5 {
		t.Errorf("air holds %.2f of ghost", outside)
	}
}

func TestNormalMatchesSorting(t *testing.T) {
	t.Parallel()
	r := random(1)
	for _, n := range []int{1, 2, 3, 500, 501, 12345} {
		x := make([]float32, n)
		for i := range x {
			x[i] = float32(math.Floor(r.float() * 100))
		}
		sorted := slices.Clone(x)
		slices.Sort(sorted)
		at := .998 * float64(n-1)
		lo := int(at)
		want := float64(sorted[lo]) + (float64(sorted[min(lo+1, n-1)])-float64(sorted[lo]))*(at-float64(lo))
		if got := quantile(x, .998); math.Abs(float64(got)-want) > 1e-4 {
			t.Errorf("%d values: %g instead of %g", n, got, want)
		}
	}
}

func TestGammaKeepsTheEnds(t *testing.T) {
	t.Parallel()
	a := drawn(t, 3, func(c *Config) {})
	b := drawn(t, 3, func(c *Config) { c.GammaSD = 1 })
	if b.Drawn.Gamma == 1 || a.Drawn.Gamma != 1 {
		t.Fatalf("gammas %g and %g", a.Drawn.Gamma, b.Drawn.Gamma)
	}
	for i, v := range a.Image {
		want := min(math.Pow(float64(v), b.Drawn.Gamma), 1.2)
		if v < 1.2 && math.Abs(float64(b.Image[i])-want) > .01 && v > .01 {
			t.Fatalf("%g became %g instead of %g", v, b.Image[i], want)
		}
	}
}
