package segment

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"neuroscreen/internal/anatomy"
	"neuroscreen/internal/volume"
)

func TestStrays(t *testing.T) {
	for _, c := range []struct {
		name    string
		shape   [3]int
		labels  []uint8
		several uint8
		want    []int
	}{
		{"one piece", [3]int{7, 1, 1}, []uint8{0, 1, 1, 1, 0, 0, 0}, 0, nil},
		{"smaller piece goes", [3]int{7, 1, 1}, []uint8{1, 0, 1, 1, 0, 0, 0}, 0, []int{0}},
		{"classes apart", [3]int{7, 1, 1}, []uint8{2, 0, 1, 1, 0, 2, 2}, 0, []int{0}},
		{"class left alone", [3]int{7, 1, 1}, []uint8{2, 0, 1, 1, 0, 2, 2}, 2, nil},
		{"touching classes are not one piece", [3]int{7, 1, 1}, []uint8{1, 2, 1, 1, 0, 0, 0}, 0, []int{0}},
		{"joined across rows", [3]int{3, 3, 1}, []uint8{1, 0, 1, 1, 0, 1, 1, 1, 1}, 0, nil},
		{"not joined at edges", [3]int{2, 2, 1}, []uint8{1, 0, 0, 1}, 0, []int{3}},
		{"joined across slices", [3]int{2, 2, 2}, []uint8{1, 0, 0, 1, 1, 1, 0, 1}, 0, nil},
		{"the first of equals stays", [3]int{3, 1, 2}, []uint8{1, 0, 1, 1, 0, 1}, 0, []int{2, 5}},
	} {
		several := [anatomy.NumClasses]bool{0: true}
		several[c.several] = true
		got := strays(c.labels, c.shape, &several)
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}

func TestLabelsDropWhatLiesApart(t *testing.T) {
	shape := [3]int{9, 1, 1}
	p := make([]Likely, 9)
	set := func(x int, classes map[int]float32) { p[x] = of(classes) }
	for x := range p {
		set(x, nil)
	}
	for x := range 5 {
		set(x, map[int]float32{1: .9}) // white matter
	}
	set(2, map[int]float32{1: .3, 14: .6}) // a stray of hippocampus inside, whose next choice is white matter
	set(4, map[int]float32{1: .1, 14: .8}) // the hippocampus proper: two voxels
	set(5, map[int]float32{14: .8})
	set(8, map[int]float32{1: .9}) // apart from the brain
	f := part{box: box{shape: shape}, classes: p}
	f.label(true)
	got := f.labels
	if want := []uint8{1, 1, 1, 1, 14, 14, 0, 0, 0}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if p[8].of(1) != 0 {
		t.Error("the posterior of the removed piece is still there")
	}
}

// Ways to go through many cells at once find what one cell after the other does.
func TestCells(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	f := part{box: box{shape: [3]int{43, 5, 4}}}
	for range f.voxels() {
		// Mostly one class, so that there are long runs of it.
		l := of(map[int]float32{3: .6 + .1*r.Float32(), 14: .2})
		if r.IntN(40) == 0 {
			l = of(map[int]float32{14: .5 * r.Float32(), 17: .5 * r.Float32()})
		}
		f.classes, f.labels = append(f.classes, l), append(f.labels, l.Class[0])
	}
	for z := range f.shape[2] - 1 {
		for y := range f.shape[1] - 1 {
			for x := range f.shape[0] - 1 {
				var c corners
				f.gather(&c, x, y, z)
				alike := f.alike(x, y, z, 30)
				if (alike > 0) != (c.n == 1) || alike > 30 {
					t.Fatalf("%d classes in cell %d, %d, %d, and %d cells alike", c.n, x, y, z, alike)
				}
				for i := range alike {
					var next corners
					f.gather(&next, x+i, y, z)
					if next.n != 1 || next.class[0] != c.class[0] {
						t.Fatalf("cell %d is not like cell %d", x+i, x)
					}
				}
			}
		}
	}
}

// TestHoles: of a voxel counts what lies in none of the cells of finer boxes.
func TestHoles(t *testing.T) {
	f := part{box: box{shape: [3]int{12, 6, 5}}}
	holes := []cells{{lo: [3]int{2, 1, 0}, hi: [3]int{5, 3, 2}}, {lo: [3]int{5, 0, 1}, hi: [3]int{9, 4, 4}}}
	in := func(x, y, z int) bool {
		for _, h := range holes {
			if x >= h.lo[0] && x < h.hi[0] && y >= h.lo[1] && y < h.hi[1] && z >= h.lo[2] && z < h.hi[2] {
				return true
			}
		}
		return false
	}
	got := make([]int, f.shape[0])
	for z := range f.shape[2] {
		for y := range f.shape[1] {
			f.outside(got, holes, y, z)
			for x := range got {
				want := 0
				for eighth := range 8 { // each in a cell beside the voxel's centre
					if !in(x-eighth&1, y-eighth>>1&1, z-eighth>>2) {
						want++
					}
				}
				if got[x] != want {
					t.Fatalf("voxel %d, %d, %d: %d eighths, want %d", x, y, z, got[x], want)
				}
			}
		}
	}
}

// TestLabelsLandWhereTheImageIs: in every storage order, a box labelled at a
// known place in the patient comes back at that place.
func TestLabelsLandWhereTheImageIs(t *testing.T) {
	arch := Architecture{Inputs: 4, Base: 8, Depth: 2, Shape: [3]int{16, 20, 16}, VoxelMM: 2}
	target := [3]float64{-7, 9, 3} // mm, left, front, up
	for _, axes := range [][3]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}} {
		for flip := range 8 {
			g := volume.Grid{Affine: volume.Affine{3: {3: 1}}}
			extent := [3]float64{44, 52, 40} // of the scan, in mm along RAS
			mm := [3]float64{1, 1.25, 0.9}
			for i, a := range axes {
				g.Shape[i] = int(extent[a] / mm[i])
				g.Affine[a][i] = mm[i]
				g.Affine[a][3] = -mm[i] * float64(g.Shape[i]-1) / 2
				if flip>>i&1 == 1 {
					g.Affine[a][i] *= -1
					g.Affine[a][3] *= -1
				}
			}
			v := volume.New(g)
			can, re := volume.Canonical(v)
			size := can.VoxelSize()
			var centre [3]float64
			for a := range centre {
				centre[a] = float64(can.Shape[a]-1) / 2 * size[a] // RAS 0, 0, 0
			}
			// One-hot posteriors of a left hippocampus within 5 mm of the target.
			p := make([]Likely, arch.Voxels())
			boxMM3 := 0.0
			for o := range arch.Voxels() {
				x := [3]int{o % arch.Shape[0], o / arch.Shape[0] % arch.Shape[1], o / arch.Shape[0] / arch.Shape[1]}
				d := 0.0
				for a := range x {
					d = math.Hypot(d, (float64(x[a])-float64(arch.Shape[a]-1)/2)*2-target[a])
				}
				p[o] = of(nil)
				if d <= 5 {
					p[o] = of(map[int]float32{14: 1})
					boxMM3 += 8
				}
			}
			whole := part{box: boxAround(centre, arch), classes: p, hi: arch.Shape}
			whole.label(true)
			var s Segmentation
			s.measure(&whole, nil)
			l := re.Inverse().Labels(toGrid(can.Grid, &s.MM3, []part{whole}))
			if l.Shape != g.Shape || l.Affine != g.Affine {
				t.Fatalf("%s: labels lie on grid %+v, the scan on %+v", g.Orientation(), l.Grid, g)
			}
			var sum [3]float64
			count := 0.0
			for o, lab := range l.Data {
				if lab == 0 {
					continue
				}
				if lab != 17 {
					t.Fatalf("%s: label %d, want 17", g.Orientation(), lab)
				}
				q := g.Affine.Apply([3]float64{float64(o % g.Shape[0]), float64(o / g.Shape[0] % g.Shape[1]), float64(o / g.Shape[0] / g.Shape[1])})
				for a := range sum {
					sum[a] += q[a]
				}
				count++
			}
			for a := range sum {
				if got := sum[a] / count; math.Abs(got-target[a]) > 0.6 {
					t.Errorf("%s: centre along axis %d at %.2f mm, want %.2f", g.Orientation(), a, got, target[a])
				}
			}
			if got := count * g.VoxelMM3(); math.Abs(got/boxMM3-1) > 0.06 {
				t.Errorf("%s: %.0f mm3, in the box %.0f", g.Orientation(), got, boxMM3)
			}
		}
	}
}

func TestNormalise(t *testing.T) {
	shape := [3]int{30, 30, 30}
	v := make([]float32, 27000)
	for i := range v {
		v[i] = float32(i%1000) - 100
	}
	Normalise(v, shape)
	if lo, hi := slices.Min(v), slices.Max(v); lo != 0 || hi > 1.2 || hi < 0.99 {
		t.Errorf("range %v to %v, want 0 to about 1", lo, hi)
	}
	flat := make([]float32, 27000)
	Normalise(flat, shape)
	if slices.Max(flat) != 0 {
		t.Error("an empty image must stay empty")
	}
}
