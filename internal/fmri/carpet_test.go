package fmri

import (
	"context"
	"math"
	"slices"
	"testing"

	"neuroscreen/internal/volume"
)

// TestCarpet: rows hold the scaled signal of their tissue, in the order of the
// tissues, and their number has a bound.
func TestCarpet(t *testing.T) {
	const frames, each = 50, 700
	g := volume.Grid{Shape: [3]int{5 * each, 1, 1}, Affine: volume.Identity}
	l := volume.NewLabels(g)
	s := &Series{Frames: frames}
	signal := func(tissue, n int) float64 { return math.Sin(2 * math.Pi * float64((tissue+2)*n) / frames) }
	// Stored in another order than the carpet's.
	stored := []uint8{2, 10, 4, 3, 46}
	tissue := map[uint8]int{3: 0, 10: 1, 46: 2, 2: 3, 4: 4}
	for at := range g.Shape[0] {
		l.Data[at] = stored[at/each]
		if at%each == 0 {
			l.Data[at] = 24 // CSF outside of the brain is in no tissue
		}
		s.Voxels = append(s.Voxels, int32(at))
		for n := range frames {
			// Level, drift and strength differ from voxel to voxel; the rows must not.
			s.Data = append(s.Data, float32(500+float64(at%7)*100+float64(at%5)*float64(n)+float64(1+at%3)*signal(tissue[stored[at/each]], n)))
		}
	}
	c := MakeCarpet(s, l)
	rows := 0
	for n, band := range c.Tissues {
		if band.Name != carpetTissues[n].name || band.Voxels != each-1 {
			t.Fatalf("band %d: %+v", n, band)
		}
		want := make([]float64, frames)
		for f := range want {
			want[f] = signal(n, f)
		}
		detrend(want, legendre(frames, 1))
		for r := range band.Rows {
			for f, z := range c.Z[(rows+r)*frames:][:frames] {
				if math.Abs(float64(z)-want[f]) > 2e-3 {
					t.Fatalf("%s, row %d, frame %d: %.4f, want %.4f", band.Name, r, f, z, want[f])
				}
			}
		}
		rows += band.Rows
	}
	if len(c.Tissues) != 5 || rows > carpetRows || rows < carpetRows-5 || len(c.Z) != rows*frames {
		t.Errorf("%d tissues, %d rows, %d values", len(c.Tissues), rows, len(c.Z))
	}
}

func TestCarpetOfFewVoxels(t *testing.T) {
	g := volume.Grid{Shape: [3]int{4, 1, 1}, Affine: volume.Identity}
	l := volume.NewLabels(g)
	copy(l.Data, []uint8{3, 3, 2, 0})
	s := &Series{Frames: 4, Voxels: []int32{0, 1, 2}, Data: []float32{5, 5, 5, 5, 1, 3, 2, 4, 1, 2, 3, 4}}
	c := MakeCarpet(s, l)
	if len(c.Tissues) != 2 || c.Tissues[0].Rows != 2 || c.Tissues[1].Rows != 1 {
		t.Fatalf("%+v", c.Tissues)
	}
	for n, z := range c.Z {
		if z-z != 0 || (n < 4 || n >= 8) && z != 0 { // steady, and nothing but a trend
			t.Errorf("value %d is %g", n, z)
		}
	}
}

// TestMeasureMaps: maps lie on the run's grid and hold what the structures'
// means were taken of; a frame that is left out is named.
func TestMeasureMaps(t *testing.T) {
	r, al, mean, l := labelled(t, 200, func(n, at int) float32 { return 1000 })
	al.Motion[100].MM[2] = 2
	m, _, err := Measure(context.Background(), r, al, mean, l, Given{})
	if err != nil {
		t.Fatal(err)
	}
	if m.Maps == nil || len(m.Maps.ALFF) != r.Len() || !slices.Equal(m.Carpet.LeftOut, []int{100, 101}) || m.Carpet.Frames != 200 {
		t.Fatalf("left out %v of %d frames", m.Carpet.LeftOut, m.Carpet.Frames)
	}
	for _, s := range m.Structures {
		var of []int
		for at, label := range l.Data {
			if int(label) == s.Label {
				of = append(of, at)
			}
		}
		for what, pair := range map[string][2]float64{"ALFF": {meanOf(m.Maps.ALFF, of), *s.ALFF}, "fALFF": {meanOf(m.Maps.FALFF, of), *s.FALFF}, "ReHo": {meanOf(m.Maps.ReHo, of), *s.ReHo}} {
			if math.Abs(pair[0]-pair[1]) > 1e-9 {
				t.Errorf("%s of %s: %g on the map, %g in the result", what, s.Structure, pair[0], pair[1])
			}
		}
	}
	short, al, mean, l := labelled(t, 60, func(n, at int) float32 { return 1000 })
	if m, _, err := Measure(context.Background(), short, al, mean, l, Given{}); err != nil || m.Maps != nil || len(m.Carpet.Z) == 0 {
		t.Errorf("%v; a run too short has a carpet and no maps", err)
	}
}
