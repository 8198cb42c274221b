package fmri

import (
	"bytes"
	"context"
	"encoding/json"
	"math"
	"runtime"
	"slices"
	"testing"

	"neuroscreen/internal/volume"
)

// labelled is a run of 12³ voxels whose frames f makes, at rest, with six
// labels in layers.
func labelled(t testing.TB, frames int, f func(n, at int) float32) (*Run, *Alignment, *volume.Volume, *volume.Labels) {
	t.Helper()
	g := volume.Grid{Shape: [3]int{12, 12, 12}, Affine: volume.Scaling([3]float64{3, 3, 3})}
	data := noise(frames*g.Len(), 0, 4, 17)
	for n := range frames {
		for at := range g.Len() {
			data[n*g.Len()+at] += f(n, at)
		}
	}
	r := runOf(t, g.Shape, g.Affine, 2, data)
	if r.Dummies != 0 {
		t.Fatalf("%d dummy scans", r.Dummies)
	}
	l := volume.NewLabels(g)
	for at := range l.Data {
		l.Data[at] = []uint8{2, 2, 2, 3, 10, 11, 42, 49, 50, 4, 4, 4}[at/144]
	}
	al := &Alignment{Motion: make([]Motion, frames)}
	for n := range al.Motion { // a trace of motion, as every run has
		al.Motion[n].MM[0] = 0.01 * math.Sin(float64(n*n))
	}
	mean, err := r.MeanImage(context.Background(), al)
	if err != nil {
		t.Fatal(err)
	}
	return r, al, mean, l
}

func TestMeasure(t *testing.T) {
	ctx := context.Background()
	t.Run("what fluctuates together is connected", func(t *testing.T) {
		r, al, mean, l := labelled(t, 200, func(n, at int) float32 {
			x := float32(1000)
			if layer := at / 144; layer == 4 || layer == 7 { // both thalami
				x += 10 * float32(math.Sin(2*math.Pi*20*float64(n)/200))
			}
			return x
		})
		m, reasons, err := Measure(ctx, r, al, mean, l, Given{})
		// Layers are no head: they have no place.
		if err != nil || !slices.Equal(codesOf(reasons), []string{PlaceUnknown}) || m.Place.ToMNI != nil || m.DefaultMode != nil || len(m.Withheld) != 0 || len(m.NotComparable) != 0 {
			t.Fatalf("%v; reasons %v", err, codesOf(reasons))
		}
		// What leaves the field of view by a hundredth of a voxel stays.
		if m.BrainVoxels != 1728 || len(m.Structures) != 8 || len(m.Connectomes) != 2 || m.Clean.WhiteMatter != 5 || m.Clean.CSF != 5 {
			t.Fatalf("%d voxels, %d structures, %d connectomes, %+v", m.BrainVoxels, len(m.Structures), len(m.Connectomes), m.Clean)
		}
		c := m.Connectomes[0]
		at := map[string]int{}
		for i, name := range c.Nodes {
			at[name] = i
		}
		if z := c.FisherZ[at["Left-Thalamus"]][at["Right-Thalamus"]]; z < 1.5 {
			t.Errorf("z %.2f between the thalami", z)
		}
		if z := c.FisherZ[at["Left-Thalamus"]][at["Left-Caudate"]]; math.Abs(z) > 0.6 {
			t.Errorf("z %.2f between thalamus and caudate", z)
		}
		if len(c.Graph.Nodes) != 6 {
			t.Errorf("nodes of the graph: %v", c.Graph.Nodes)
		}
	})
	t.Run("too short for anything", func(t *testing.T) {
		r, al, mean, l := labelled(t, 60, func(n, at int) float32 { return 1000 })
		m, reasons, err := Measure(ctx, r, al, mean, l, Given{})
		if err != nil || len(m.Connectomes) != 0 || len(m.Withheld) != 1 || m.Structures[0].ReHo != nil {
			t.Errorf("%v; withheld %v for %v", err, m.Withheld, codesOf(reasons))
		}
	})
	t.Run("a head that jumps", func(t *testing.T) {
		r, al, mean, l := labelled(t, 200, func(n, at int) float32 { return 1000 })
		for n := range al.Motion {
			al.Motion[n].MM[1] = float64(n % 2) // FD 1 mm, though the voxels don't move
		}
		m, reasons, err := Measure(ctx, r, al, mean, l, Given{})
		if err != nil || m.Motion.MeanFDMM < 0.9 || len(m.NotComparable) != 1 || m.NotComparable[0] != HeadMotion || m.Clean.KeptFrames != 0 {
			t.Errorf("%v; not comparable %v, %d frames kept, reasons %v", err, m.NotComparable, m.Clean.KeptFrames, codesOf(reasons))
		}
	})
	// The head is lifted by a quarter of the image in some frames.
	for _, c := range []struct {
		name     string
		lifted   func(n int) bool
		voxels   int
		outliers int // frames that cleaning leaves out
		says     []string
	}{
		{"one frame out of view", func(n int) bool { return n == 100 }, 1728, 2, []string{PlaceUnknown}},
		{"a few frames out of view", func(n int) bool { return n >= 100 && n < 104 }, 1728, 5, []string{PlaceUnknown}},
		{"out of view to the end", func(n int) bool { return n >= 100 }, 1296, 1, []string{BrainOutOfView, PlaceUnknown}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, al, mean, l := labelled(t, 200, func(n, at int) float32 { return 1000 })
			for n := range al.Motion {
				if c.lifted(n) {
					al.Motion[n].MM[2] = 9
				}
			}
			m, reasons, err := Measure(ctx, r, al, mean, l, Given{})
			if err != nil || m.BrainVoxels != c.voxels || m.Clean.KeptFrames != 200-c.outliers || !slices.Equal(codesOf(reasons), c.says) {
				t.Fatalf("%v; %d voxels, %d frames kept, reasons %v", err, m.BrainVoxels, m.Clean.KeptFrames, reasons)
			}
			if r := reasons[0]; r.Code == BrainOutOfView && (*r.Value != 25 || *r.Limit != ReviewOutOfView) {
				t.Errorf("%s: %g of %g", r.Text, *r.Value, *r.Limit)
			}
		})
	}
	t.Run("values about 0", func(t *testing.T) {
		r, al, mean, l := labelled(t, 60, func(n, at int) float32 { return -5 })
		_, _, err := Measure(ctx, r, al, mean, l, Given{})
		wantRefusal(t, err, NoSignal, "")
	})
	t.Run("cancelled", func(t *testing.T) {
		r, al, mean, l := labelled(t, 60, func(n, at int) float32 { return 1000 })
		gone, cancel := context.WithCancel(ctx)
		cancel()
		if _, _, err := Measure(gone, r, al, mean, l, Given{}); err != context.Canceled {
			t.Errorf("error %v", err)
		}
	})
}

// TestSameForAnyThreads: from alignment to connectome, to the last bit.
func TestSameForAnyThreads(t *testing.T) {
	r, _, mean, l := labelled(t, 120, func(n, at int) float32 { return 1000 + float32(at%12)*20 })
	v, _, _ := movedRun(t, 20, 2)
	var first []byte
	for _, threads := range []int{1, 2, 5} {
		before := runtime.GOMAXPROCS(threads)
		al, err := Realign(t.Context(), v)
		if err != nil {
			t.Fatal(err)
		}
		image, err := v.MeanImage(t.Context(), al)
		if err != nil {
			t.Fatal(err)
		}
		still := &Alignment{Motion: make([]Motion, r.Frames)}
		m, _, err := Measure(t.Context(), r, still, mean, l, Given{})
		if err != nil {
			t.Fatal(err)
		}
		runtime.GOMAXPROCS(before)
		b, err := json.Marshal([]any{al, image.Data, m})
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = b
		} else if !bytes.Equal(first, b) {
			t.Errorf("%d threads give another result than 1", threads)
		}
	}
}
