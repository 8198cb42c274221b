package fmri

import (
	"context"
	"math"
	"slices"
	"strings"
	"testing"

	"neuroscreen/internal/volume"
)

// TestGatherAligns: the second file is of another session, in which the head
// lies elsewhere and the slices are tilted otherwise; a square that answers one
// condition is found where it was in the first.
func TestGatherAligns(t *testing.T) {
	const frames, tr = 24, 2.0
	v, g := head(t)
	smooth := volume.Blur(v, volume.AntiAlias(g, v.Grid), 0)
	centre := g.Centre()
	// The square in the head's own space, mm from the centre.
	active := func(x [3]float64) bool {
		return math.Abs(x[0]-centre[0]-20) < 12 && math.Abs(x[1]-centre[1]) < 12 && math.Abs(x[2]-centre[2]) < 12
	}
	events := []Event{ev(4, 6, "on", ""), ev(16, 6, "off", ""), ev(28, 6, "on", ""), ev(38, 6, "off", "")}
	// acquire makes a file of the grid while the head lies by m off its place.
	acquire := func(grid volume.Grid, m Motion, seed uint64) *Run {
		back := m.Affine(centre).Inverse()
		still := volume.Resample(smooth, volume.Grid{Shape: grid.Shape, Affine: back.Mul(grid.Affine)}, volume.Options{})
		var data []float32
		for n := range frames {
			frame := slices.Clone(still.Data)
			on := false
			for _, e := range events {
				at := float64(n) * tr
				on = on || e.Type == "on" && at >= e.Onset+4 && at < e.Onset+e.Duration+4
			}
			if on {
				for at := range frame {
					i, j, k := at%grid.Shape[0], at/grid.Shape[0]%grid.Shape[1], at/(grid.Shape[0]*grid.Shape[1])
					if active(back.Apply(grid.Affine.Apply([3]float64{float64(i), float64(j), float64(k)}))) {
						frame[at] *= 1.05
					}
				}
			}
			for i, e := range noise(len(frame), 0, 1, seed+uint64(n)) {
				frame[i] += e
			}
			data = append(data, frame...)
		}
		return runOf(t, grid.Shape, grid.Affine, tr, data)
	}
	other := g
	other.Affine = Motion{MM: [3]float64{6, -9, 14}, Rad: [3]float64{-0.12, 0.02, 0.1}}.Affine(centre).Mul(g.Affine)
	ctx := context.Background()
	gather := NewGatherer(nil, 4)
	for n, r := range []*Run{acquire(g, Motion{}, 1), acquire(other, Motion{MM: [3]float64{2, 3, -2}, Rad: [3]float64{0.03, 0, -0.04}}, 100)} {
		if aligned, err := gather.Add(ctx, r, events); err != nil || !aligned {
			t.Fatalf("file %d: aligned %v, %v", n, aligned, err)
		}
	}
	s, voxels, err := gather.Samples()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(s.Runs, []string{"1", "2"}) || !slices.Equal(s.Conditions, []string{"off", "on"}) || len(s.X) != 8 || len(s.X[0]) != len(voxels) || len(voxels) < 5000 {
		t.Fatalf("%v, runs %q, %d voxels of %d", s, s.Runs, len(s.X[0]), len(voxels))
	}
	d, err := Decode(ctx, s, DecodeOptions{Voxels: 50, Permutations: -1})
	if err != nil {
		t.Fatal(err)
	}
	if d.Accuracy != 1 {
		t.Errorf("accuracy %g, from session to session", d.Accuracy)
	}
	inside, selected := 0, 0
	for n, w := range d.Weights[1] {
		if w != 0 {
			selected++
			i, j, k := int(voxels[n])%g.Shape[0], int(voxels[n])/g.Shape[0]%g.Shape[1], int(voxels[n])/(g.Shape[0]*g.Shape[1])
			if active(g.Affine.Apply([3]float64{float64(i), float64(j), float64(k)})) {
				inside++
			}
		}
	}
	if selected != 50 || inside < 45 {
		t.Errorf("%d of %d selected voxels lie in the square", inside, selected)
	}

	t.Run("another grid", func(t *testing.T) {
		small := runOf(t, [3]int{20, 20, 20}, g.Affine, tr, noise(8000*frames, 100, 1, 1))
		_, err := gather.Add(ctx, small, events)
		wantRefusal(t, err, GridsDiffer, "")
	})
	t.Run("voxels of another size", func(t *testing.T) {
		coarse := runOf(t, g.Shape, g.Affine.Mul(volume.Scaling([3]float64{1.1, 1, 1})), tr, noise(g.Len()*frames, 100, 1, 1))
		_, err := gather.Add(ctx, coarse, events)
		wantRefusal(t, err, GridsDiffer, "")
	})
	t.Run("mirrored", func(t *testing.T) {
		flipped := runOf(t, g.Shape, g.Affine.Mul(volume.Scaling([3]float64{-1, 1, 1})), tr, noise(g.Len()*frames, 100, 1, 1))
		_, err := gather.Add(ctx, flipped, events)
		wantRefusal(t, err, GridsDiffer, "")
	})
	t.Run("no head there", func(t *testing.T) {
		nothing := runOf(t, g.Shape, g.Affine, tr, noise(g.Len()*frames, 100, 1, 1))
		_, err := gather.Add(ctx, nothing, events)
		wantRefusal(t, err, NotAligned, "")
	})
}

func TestGatherOneSlice(t *testing.T) {
	shape, affine := [3]int{30, 20, 1}, volume.Scaling([3]float64{3, 3, 3})
	events := []Event{ev(0, 2, "a", "1"), ev(8, 2, "b", "1"), ev(20, 2, "a", "2"), ev(28, 2, "b", "2")}
	ctx := context.Background()
	g := NewGatherer(nil, 2)
	for n := range 2 {
		data := noise(600*20, 100, 1, uint64(n))
		for i := range data {
			data[i] += float32(i % 30)
		}
		flat := runOf(t, shape, affine, 2, data)
		if aligned, err := g.Add(ctx, flat, events); err != nil || aligned {
			t.Fatalf("one slice: aligned %v, %v", aligned, err)
		}
	}
	s, voxels, err := g.Samples()
	if err != nil || !slices.Equal(s.Runs, []string{"1/1", "1/2", "2/1", "2/2"}) || len(s.X) != 8 || len(voxels) != 600 {
		t.Errorf("%v, runs %q, %d voxels: %v", s, s.Runs, len(voxels), err)
	}
	elsewhere := affine
	elsewhere[0][3] = 5
	_, err = g.Add(ctx, runOf(t, shape, elsewhere, 2, noise(600*20, 100, 1, 1)), events)
	wantRefusal(t, err, GridsDiffer, "")
}

func FuzzReadEvents(f *testing.F) {
	for _, seed := range []string{
		"onset\tduration\ttrial_type\trun\n1\t2\ta\t1\n", "\ufeffonset\tduration\ttrial_type\r\n0\t0\t\r\n", "onset\tonset\tduration\ttrial_type\n1\t1e308\t2\ta\n", "\n\n", "\t\t",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, table string) {
		events, err := ReadEvents(strings.NewReader(table))
		if err != nil {
			wantRefusal(t, err, EventsInvalid, "events")
			return
		}
		for i, e := range events {
			if e.Onset-e.Onset != 0 || e.Duration-e.Duration != 0 || e.Duration < 0 || i > 0 && e.Onset < events[i-1].Onset {
				t.Errorf("event %d: %+v", i, e)
			}
		}
	})
}
