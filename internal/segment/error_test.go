package segment

import (
	"math"
	"math/rand/v2"
	"testing"

	"neuroscreen/internal/anatomy"
)

// observed draws heads whose errors have a bias and a scatter that grows with
// two of the signs; some are lost.
func observed(r *rand.Rand, heads int, lost float64) []Observed {
	seen := make([]Observed, heads)
	for i := range seen {
		s := Signs{Doubt: .05 + .3*r.Float64(), FlipOverlap: .05 + .4*r.Float64(), FlipVolume: .1 * r.Float64(), CloserVolume: .1 * r.Float64()}
		seen[i] = Observed{Signs: s, Error: .03 + s.Doubt*s.FlipOverlap*r.NormFloat64()}
		if r.Float64() < lost {
			seen[i].Error = -4
		}
	}
	return seen
}

func TestFittedErrors(t *testing.T) {
	for _, c := range []struct {
		name string
		lost float64
	}{{"every head found", 0}, {"one head in fifty lost", .02}} {
		t.Run(c.name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, 2))
			m := FitErrors(observed(r, 400, c.lost))
			fresh := observed(r, 2000, 0)
			square, calm, worrying := 0.0, 0.0, 0.0
			for _, o := range fresh {
				p := m.Predict(o.Signs)
				square += o.Error * o.Error / (p * p) / float64(len(fresh))
				if o.Signs.Doubt*o.Signs.FlipOverlap < .02 {
					calm = max(calm, p)
				}
				if o.Signs.Doubt*o.Signs.FlipOverlap > .1 {
					worrying += p / float64(len(fresh))
					if p < .06 {
						t.Errorf("signs %+v: %.3f predicted, .1 and more is true", o.Signs, p)
					}
				}
			}
			if s := math.Sqrt(square); s < .8 || s > 1.15 {
				t.Errorf("standardised errors spread by %.2f, want 1", s)
			}
			if calm > .08 || worrying == 0 {
				t.Errorf("%.3f predicted for calm heads", calm)
			}
			for i, v := range m.Slopes {
				if v < 0 {
					t.Errorf("slope %d is %.2f: worse signs would predict less", i, v)
				}
			}
			if m.Slopes[0] < .4 || m.Slopes[1] < .4 || m.Slopes[2] > .3 || m.Slopes[3] > .3 {
				t.Errorf("slopes %.2f, want about 1, 1, 0 and 0", m.Slopes)
			}
		})
	}
}

func TestPredictedErrorHasBounds(t *testing.T) {
	m := ErrorModel{Bias: 0, Base: 0, Slopes: [numSigns]float64{1, 1, 1, 1}, Least: .02}
	if got := m.Predict(Signs{}); got != .02 {
		t.Errorf("without doubt %.3f, want the least, .02", got)
	}
	if got := m.Predict(Signs{1, 1, 9, 9}); got != 1 {
		t.Errorf("without hope %.3f, want 1", got)
	}
}

func TestVolumeErrorFallsBack(t *testing.T) {
	s := Signs{Doubt: .1}
	w := Weights{
		RelativeError: map[string]float64{"Left-Hippocampus": .07, "Left-Amygdala": .09},
		Errors:        map[string]ErrorModel{"Left-Hippocampus": {Bias: -.03, Base: math.Log(.04), Pair: .6}},
	}
	for _, c := range []struct {
		name string
		k    int
		want VolumeError
	}{{"predicted", 14, VolumeError{50, 30, .6}}, {"measured on held-out heads", 15, VolumeError{90, 0, 0}}, {"unknown", 9, VolumeError{200, 0, 0}}} {
		if got := w.volumeError(anatomy.Class(c.k), s, 1000); math.Abs(got.StandardMM3-c.want.StandardMM3) > 1e-9 || got.BiasMM3 != c.want.BiasMM3 || got.Pair != c.want.Pair {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

// Errors of both sides drawn with a correlation give it back; a lost head does
// not decide alone.
func TestFitPair(t *testing.T) {
	m := ErrorModel{Bias: .05, Base: math.Log(.1), Least: .1}
	draw := func(rho float64, lost int) (l, r []Observed) {
		g := rand.New(rand.NewPCG(3, 4))
		for i := range 3000 {
			both, a, b := g.NormFloat64(), g.NormFloat64(), g.NormFloat64()
			l = append(l, Observed{Error: .05 + .1*(math.Sqrt(rho)*both+math.Sqrt(1-rho)*a)})
			r = append(r, Observed{Error: .05 + .1*(math.Sqrt(rho)*both+math.Sqrt(1-rho)*b)})
			if i < lost {
				l[i].Error = -9
			}
		}
		return l, r
	}
	for _, c := range []struct {
		name       string
		rho        float64
		lost       int
		want, near float64
	}{{"half of it shared", .5, 0, .5, .03}, {"nothing shared", 0, 0, 0, .04}, {"all of it", 1, 0, mostAlike, 0}, {"some heads lost on one side", .5, 30, .5, .08}} {
		t.Run(c.name, func(t *testing.T) {
			m := m
			m.FitPair(draw(c.rho, c.lost))
			if math.Abs(m.Pair-c.want) > c.near {
				t.Errorf("correlation %.3f, want %.3f", m.Pair, c.want)
			}
		})
	}
	m.FitPair(nil, nil)
	if m.Pair != 0 {
		t.Errorf("no heads: %g", m.Pair)
	}
}

// TestVolumes: the volume of a smooth ball of posteriors is that within its
// surface, whatever the sharpness of its edge.
func TestVolumes(t *testing.T) {
	for _, edge := range []float64{.3, 1, 2} { // mm
		const radius = 11
		whole := ball(box{shape: [3]int{24, 24, 24}, mm: 2}, [3]float64{22.6, 22.6, 22.6}, radius, edge)
		var s Segmentation
		s.measure(&whole, nil)
		if want := 4. / 3 * math.Pi * radius * radius * radius; math.Abs(s.MM3[14]/want-1) > .03 {
			t.Errorf("edge of %.1f mm: %.0f mm3, want %.0f", edge, s.MM3[14], want)
		}
		if s.ICVMM3 != s.MM3[14] {
			t.Errorf("edge of %.1f mm: intracranial %.0f, the only structure %.0f", edge, s.ICVMM3, s.MM3[14])
		}
	}
}

// ball is a box in which a left hippocampus is a ball with a soft edge, in mm.
func ball(b box, centre [3]float64, radius, edge float64) part {
	f := part{box: b, classes: make([]Likely, b.voxels()), hi: b.shape}
	for o := range b.voxels() {
		d := 0.0
		for a, i := range [3]int{o % b.shape[0], o / b.shape[0] % b.shape[1], o / b.shape[0] / b.shape[1]} {
			d = math.Hypot(d, b.from[a]+float64(i)*b.mm-centre[a])
		}
		f.classes[o] = of(map[int]float32{14: float32(1 / (1 + math.Exp((d-radius)/edge)))})
	}
	f.label(true)
	return f
}
