package segment

import (
	"math"
	"testing"

	"neuroscreen/internal/volume"
)

// sided is a whole head whose inner structures are a ball on either side.
func sided(left, right [3]float64) part {
	b := box{from: [3]float64{3, -2, 5}, shape: [3]int{80, 96, 80}, mm: 2}
	f := part{box: b, labels: make([]uint8, b.voxels()), hi: b.shape}
	for o := range f.labels {
		for side, c := range [2][3]float64{left, right} {
			d := 0.0
			for a, i := range [3]int{o % b.shape[0], o / b.shape[0] % b.shape[1], o / b.shape[0] / b.shape[1]} {
				d = math.Hypot(d, b.from[a]+float64(i)*b.mm-c[a])
			}
			if d < 15 {
				f.labels[o] = [2]uint8{7, 25}[side] // thalamus
			}
		}
	}
	return f
}

var innerArch = Architecture{Inputs: 4, Base: 8, Depth: 4, Shape: [3]int{64, 96, 80}, VoxelMM: 1}

func TestInnerBoxes(t *testing.T) {
	left, right := [3]float64{64.3, 98.2, 80.9}, [3]float64{101.8, 101.1, 78.2}
	whole := sided(left, right)
	sides := inner.place(&whole, innerArch, whole.middleCell())
	t.Run("stand round their structures", func(t *testing.T) {
		for s, c := range [2][3]float64{left, right} {
			for a := range c {
				middle := sides[s].from[a] + float64(innerArch.Shape[a]-1)/2
				if math.Abs(middle-c[a]) > 1.001 {
					t.Errorf("side %d, axis %d: middle at %.1f mm, structures at %.1f", s, a, middle, c[a])
				}
			}
		}
	})
	t.Run("have voxels on eighths of the head's", func(t *testing.T) {
		for _, f := range sides {
			for a := range f.from {
				if q := math.Mod((f.from[a]-whole.from[a])/2+100, .5); math.Abs(q-.25) > 1e-9 {
					t.Errorf("first voxel lies %.3f of a voxel beyond the head's", q)
				}
			}
		}
	})
	t.Run("meet in the middle, in whole cells", func(t *testing.T) {
		l, r := whole.cellsOf(&sides[0]), whole.cellsOf(&sides[1])
		if l.hi[0] != r.lo[0] {
			t.Errorf("left core ends at cell %d, right core begins at %d", l.hi[0], r.lo[0])
		}
		if at := whole.from[0] + 2*float64(l.hi[0]); math.Abs(at-(left[0]+right[0])/2) > 3 {
			t.Errorf("they meet at %.1f mm", at)
		}
		for _, f := range sides {
			for a := range f.lo {
				if f.lo[a]%2 != 0 || f.hi[a]%2 != 0 || f.lo[a] < inner.margin || f.hi[a] > f.shape[a]-inner.margin {
					t.Errorf("core from voxel %v to %v", f.lo, f.hi)
				}
			}
		}
	})
	t.Run("are left out where nothing was found", func(t *testing.T) {
		whole := sided(left, [3]float64{-500, 0, 0})
		sides := inner.place(&whole, innerArch, whole.middleCell())
		if sides[0].hi == sides[0].lo || sides[1].hi != sides[1].lo {
			t.Errorf("cores %v to %v and %v to %v", sides[0].lo, sides[0].hi, sides[1].lo, sides[1].hi)
		}
	})
	t.Run("end where the head's box ends", func(t *testing.T) {
		whole := sided([3]float64{20, 20, 20}, [3]float64{60, 20, 20})
		for _, f := range inner.place(&whole, innerArch, whole.middleCell()) {
			c := whole.cellsOf(&f)
			for a := range c.lo {
				if c.lo[a] < 0 || c.hi[a] > whole.shape[a]-1 {
					t.Errorf("core of cells %v to %v", c.lo, c.hi)
				}
			}
		}
	})
}

// TestBoxesAlign: in scans with voxels as large as theirs, the inner boxes'
// voxels lie on the scan's.
func TestBoxesAlign(t *testing.T) {
	left, right := [3]float64{64.3, 98.2, 80.9}, [3]float64{101.8, 101.1, 78.2}
	for _, c := range []struct {
		name    string
		size    [3]float64
		aligned [3]bool
	}{
		{"1 mm", [3]float64{1, 1, 1}, [3]bool{true, true, true}},
		{"1 mm, rounded", [3]float64{1.0005, .9995, 1}, [3]bool{true, true, true}},
		{"thick slices", [3]float64{1, 1, 3}, [3]bool{true, true, false}},
		{"0.9 mm", [3]float64{.9, .9, .9}, [3]bool{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			whole := sided(left, right)
			before := whole.from
			whole.align(1, c.size)
			for _, f := range inner.place(&whole, innerArch, whole.middleCell()) {
				for a, size := range c.size {
					if moved := math.Abs(whole.from[a] - before[a]); moved > size/2 || !c.aligned[a] && moved > 0 {
						t.Errorf("axis %d: the head's box moved by %.2f mm", a, moved)
					}
					for _, i := range []int{0, innerArch.Shape[a] - 1} {
						at := (f.from[a] + float64(i)) / size
						if off := math.Abs(at - math.Round(at)); c.aligned[a] && off > .06 {
							t.Errorf("axis %d: voxel %d lies %.2f of a voxel beside the scan's", a, i, off)
						}
					}
				}
			}
		})
	}
}

// TestPartsJoin: a ball that lies across the border of an inner core is
// measured and labelled once, whatever part sees which piece of it.
func TestPartsJoin(t *testing.T) {
	whole := box{shape: [3]int{32, 32, 32}, mm: 2}
	centre, radius := [3]float64{30, 31, 32.5}, 13.
	want := 4. / 3 * math.Pi * radius * radius * radius
	for _, c := range []struct {
		name   string
		lo, hi [3]int
	}{
		{"inside the core", [3]int{6, 6, 6}, [3]int{42, 42, 42}},
		{"across one face", [3]int{6, 6, 6}, [3]int{22, 42, 42}},
		{"across a corner", [3]int{6, 6, 6}, [3]int{20, 24, 18}},
		{"outside", [3]int{6, 6, 6}, [3]int{8, 8, 8}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := ball(whole, centre, radius, .8)
			in := ball(box{from: [3]float64{6.5, 6.5, 6.5}, shape: [3]int{48, 48, 48}, mm: 1}, centre, radius, .8)
			in.lo, in.hi = c.lo, c.hi
			var s Segmentation
			s.measure(&f, []part{in})
			if math.Abs(s.MM3[14]/want-1) > .02 {
				t.Errorf("%.0f mm3, want %.0f", s.MM3[14], want)
			}
			grid := volume.Grid{Shape: [3]int{80, 80, 80}, Affine: volume.Scaling([3]float64{.8, .8, .8})}
			count := 0.0
			for _, l := range toGrid(grid, &s.MM3, []part{f, in}).Data {
				if l == 17 {
					count++
				}
			}
			if got := count * grid.VoxelMM3(); math.Abs(got/want-1) > .02 {
				t.Errorf("%.0f mm3 of labelled voxels, want %.0f", got, want)
			}
		})
	}
}

// TestCorrect: within the core of a later look, wherever its box lies, both
// looks are weighed; elsewhere the earlier one stays.
func TestCorrect(t *testing.T) {
	const shape = 8
	look := func(from float64, class uint8) part {
		b := box{from: [3]float64{from, from, from}, shape: [3]int{shape, shape, shape}, mm: 1}
		f := part{box: b, classes: make([]Likely, b.voxels()), hi: b.shape}
		for i := range f.classes {
			f.classes[i] = of(map[int]float32{int(class): .8})
		}
		return f
	}
	for _, from := range []float64{0, 2, -3, 5} {
		f, by := look(0, 14), look(from, 15)
		by.lo, by.hi = [3]int{1, 2, 1}, [3]int{7, 6, 7}
		f.correct(&by)
		for o, l := range f.classes {
			inside := true
			for a, i := range [3]int{o % shape, o / shape % shape, o / shape / shape} {
				at := i - int(from)
				inside = inside && at >= by.lo[a] && at < by.hi[a]
			}
			want := of(map[int]float32{14: .8})
			if inside {
				want = of(map[int]float32{15: .8 * (1 - earlierWeight), 14: .8 * earlierWeight})
			}
			for c := range l.Class {
				if l.Class[c] != want.Class[c] || math.Abs(float64(l.P[c]-want.P[c])) > 1e-6 {
					t.Fatalf("box at %g, voxel %d: %v, want %v", from, o, l, want)
				}
			}
		}
	}
}

func TestMirrorBack(t *testing.T) {
	for _, nx := range []int{4, 5} {
		shape := [3]int{nx, 2, 3}
		p := make([]Likely, nx*6)
		set := func(x int, c uint8, v float32) { p[1*2*nx+nx+x].insert(c, v) }
		at := func(x int, c uint8) float32 { return p[1*2*nx+nx+x].of(c) }
		set(0, 14, .7)        // left hippocampus at the left end,
		set(1, 13, .4)        // brain-stem beside it,
		set(nx/2, 1, .2)      // and white matter in the middle
		before := at(nx/2, 1) // of an odd row this is its own place
		mirrorBack(p, shape)
		if at(nx-1, 29) != .7 || at(0, 14) != 0 || at(nx-2, 13) != .4 {
			t.Errorf("%d voxels: structures are not at their mirrored places", nx)
		}
		if nx%2 == 1 && at(nx/2, 19) != before {
			t.Errorf("%d voxels: the middle did not change sides", nx)
		}
		mirrorBack(p, shape)
		if at(0, 14) != .7 || at(1, 13) != .4 || at(nx/2, 1) != .2 {
			t.Errorf("%d voxels: twice mirrored differs", nx)
		}
	}
}
