package synth

import (
	"math"
	"testing"
)

func TestTapsAddUpToOne(t *testing.T) {
	t.Parallel()
	var s taps
	for name, fill := range map[string]func(){
		"identity":        func() { s.identity(9) },
		"Gaussian":        func() { s.gaussian(9, 9, 0, 1, .7) },
		"Gaussian, wide":  func() { s.gaussian(9, 9, 0, 1, 6) },
		"Gaussian, fewer": func() { s.gaussian(20, 7, .4, 2.7, 1.3) },
		"linear, more":    func() { s.linear(7, 20, -.15, 1/2.7) },
		"cubic, more":     func() { s.cubic(20, 50, -.15, 1/2.7) },
		"cubic, of few":   func() { s.cubic(5, 13, 0, 1/2.7) },
		"spline":          func() { s.spline(6, 31) },
		"sinc":            func() { s.sinc(30, .7) },
	} {
		fill()
		for i := range s.out {
			sum := 0.0
			for _, w := range s.w[i*s.width:][:s.width] {
				sum += float64(w)
			}
			if math.Abs(sum-1) > 1e-5 || s.first[i] < 0 || s.first[i]+s.width > s.in {
				t.Errorf("%s: output %d adds up to %g from %d", name, i, sum, s.first[i])
			}
		}
	}
}

func TestLinearAndSplineKeepRamps(t *testing.T) {
	t.Parallel()
	ramp := make([]float32, 12)
	for i := range ramp {
		ramp[i] = float32(i)
	}
	var s taps
	out := make([]float32, 40)
	s.linear(12, 40, 0, 11./39)
	s.along(out, ramp)
	for i, v := range out {
		if want := float64(i) * 11 / 39; math.Abs(float64(v)-want) > 1e-5 {
			t.Errorf("linear: %g instead of %g", v, want)
		}
	}
	// A B-spline's control points lie one beyond either end.
	s.spline(12, 40)
	s.along(out, ramp)
	for i, v := range out {
		if want := 1 + float64(i)*9/39; math.Abs(float64(v)-want) > 1e-4 {
			t.Errorf("spline: %g instead of %g", v, want)
		}
	}
}

// Cubic interpolation goes through its inputs, and along a parabola far from
// their ends.
func TestCubic(t *testing.T) {
	t.Parallel()
	parabola := make([]float32, 40)
	for i := range parabola {
		parabola[i] = float32((i - 20) * (i - 20))
	}
	var s taps
	out := make([]float32, 118)
	s.cubic(40, 118, 0, 1./3)
	s.along(out, parabola)
	for i, v := range out {
		x := float64(i)/3 - 20
		if i%3 != 0 && math.Abs(x) > 8 {
			continue
		}
		if want := x * x; math.Abs(float64(v)-want) > .02 {
			t.Errorf("at %.2f: %g instead of %g", x, v, want)
		}
	}
}

// The fast ways along rows and columns agree with the plain sum, at every
// width.
func TestResamplerAgreesWithPlainSums(t *testing.T) {
	t.Parallel()
	n := [3]int{13, 11, 12}
	src := make([]float32, n[0]*n[1]*n[2])
	r := random(2)
	r.normals(src)
	for _, sigma := range []float64{.1, .4, .8, 1.2, 1.7} {
		var s resampler
		for a := range n {
			s.axis[a].gaussian(n[a], n[a]-3*a, .2*float64(a), 1+.3*float64(a), sigma)
		}
		m := s.shape()
		got := make([]float32, m[0]*m[1]*m[2])
		s.run(got, src)
		for i, v := range got {
			at := [3]int{i % m[0], i / m[0] % m[1], i / m[0] / m[1]}
			want := 0.0
			for c := range s.axis[2].width {
				for b := range s.axis[1].width {
					for a := range s.axis[0].width {
						w := 1.0
						var p [3]int
						for axis, k := range [3]int{a, b, c} {
							x := &s.axis[axis]
							w *= float64(x.w[at[axis]*x.width+k])
							p[axis] = x.first[at[axis]] + k
						}
						want += w * float64(src[(p[2]*n[1]+p[1])*n[0]+p[0]])
					}
				}
			}
			if math.Abs(float64(v)-want) > 1e-5 {
				t.Fatalf("sigma %g: %g instead of %g at %v", sigma, v, want, at)
			}
		}
	}
}

func TestFieldLines(t *testing.T) {
	t.Parallel()
	var f field
	f.reshape([3]int{3, 4, 5})
	for i := range f.data {
		f.data[i] = float32(i%3) + 10*float32(i/3%4) + 100*float32(i/12)
	}
	fine := [3]int{9, 13, 17}
	f.stretch(fine)
	for z := range fine[2] {
		for y := range fine[1] {
			for x, v := range f.line(y, z) {
				want := float64(x)*2/8 + 10*float64(y)*3/12 + 100*float64(z)*4/16
				if math.Abs(float64(v)-want) > 1e-3 {
					t.Fatalf("%g instead of %g at %d,%d,%d", v, want, x, y, z)
				}
			}
		}
	}
}

func TestNormals(t *testing.T) {
	t.Parallel()
	x := make([]float32, 100_003)
	r := stream(1, 2, 3)
	r.normals(x)
	var m1, m2, m4, lag float64
	for i, v := range x {
		u := float64(v)
		m1 += u
		m2 += u * u
		m4 += u * u * u * u
		if i > 0 {
			lag += u * float64(x[i-1])
		}
	}
	n := float64(len(x))
	if m1, m2, m4, lag = m1/n, m2/n, m4/n, lag/n; math.Abs(m1) > .012 || math.Abs(m2-1) > .02 || math.Abs(m4-3) > .12 || math.Abs(lag) > .012 {
		t.Errorf("mean %.4f, variance %.4f, fourth moment %.3f, neighbours %.4f", m1, m2, m4, lag)
	}
}

func TestStreamsDiffer(t *testing.T) {
	t.Parallel()
	seen := map[random][3]uint64{}
	for seed := range uint64(5) {
		for sample := range uint64(40) {
			for purpose := range uint64(7) {
				s := stream(seed, sample, purpose)
				if other, ok := seen[s]; ok {
					t.Fatalf("%v starts as %v does", [3]uint64{seed, sample, purpose}, other)
				}
				seen[s] = [3]uint64{seed, sample, purpose}
			}
		}
	}
}

func TestAmountsSolve(t *testing.T) {
	t.Parallel()
	m := artificial().list[0]
	logs := [numTargets]float64{LeftHippocampus: -.3, LeftAmygdala: .1, LeftVentricle: .4, Brain: -.02}
	k := m.amounts(logs)
	for i, l := range logs {
		if l == 0 {
			if k[i] != 0 {
				t.Errorf("target %d moves by %g", i, k[i])
			}
			continue
		}
		sum := 0.0
		for j := range k {
			sum += m.rates[i][j] * k[j]
		}
		if want := -l * (1 + saturation*math.Abs(l)); math.Abs(sum-want) > 1e-9 {
			t.Errorf("target %d shrinks by %g instead of %g", i, sum, want)
		}
	}
}
