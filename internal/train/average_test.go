package train

import (
	"math"
	"testing"

	"neuroscreen/internal/segment"
)

func TestAverage(t *testing.T) {
	arch := segment.Architecture{Inputs: 4, Base: 8, Depth: 1, Shape: [3]int{8, 8, 8}, VoxelMM: 1}
	of := func(value float32, steps int, arch segment.Architecture) *segment.Model {
		m := segment.NewModel(arch)
		for _, w := range append(append(m.Weight, m.Bias...), m.HeadW, m.HeadB) {
			for i := range w {
				w[i] = value + float32(i)
			}
		}
		m.Provenance.Steps = steps
		return m
	}
	mean, err := Average([]*segment.Model{of(1, 10, arch), of(4, 30, arch)})
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range append(append(mean.Weight, mean.Bias...), mean.HeadW, mean.HeadB) {
		for i := range w {
			if w[i] != 2.5+float32(i) {
				t.Fatalf("weight %d is %g", i, w[i])
			}
		}
	}
	if p := mean.Provenance; p.Steps != 30 || len(p.MeanOf) != 2 || p.MeanOf[0].Steps != 10 || p.Evaluation != nil {
		t.Errorf("%+v", p)
	}
	wide := arch
	wide.Base = 16
	for name, bad := range map[string][]*segment.Model{"none": nil, "shapes": {of(1, 1, arch), of(1, 1, wide)}} {
		if _, err := Average(bad); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestKeep: how far back the average of weights reaches.
func TestKeep(t *testing.T) {
	for _, tt := range []struct {
		step          int
		average, want float64 // steps
		start         *segment.Start
	}{
		{1000, .999, 101, nil},
		{50_000, .999, 1000, nil},
		{1000, .999, 501, &segment.Start{}},
		{50_000, .999, 1000, &segment.Start{}},
		{50_000, .9998, 5000, &segment.Start{}},
	} {
		tr := &Trainer{cfg: Config{Average: tt.average, Start: tt.start}, step: tt.step}
		if got := 1 / (1 - tr.keep()); math.Abs(got-tt.want) > 1e-6*tt.want {
			t.Errorf("%+v: reaches back %g steps", tt, got)
		}
	}
}
