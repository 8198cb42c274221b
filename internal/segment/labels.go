package segment

import (
	"math"
	"runtime"
	"sync"

	"neuroscreen/internal/anatomy"
)

// parallel calls f for 0 to n-1 on every core.
func parallel(n int, f func(i int)) {
	var wg sync.WaitGroup
	workers := min(runtime.GOMAXPROCS(0), n)
	for w := range workers {
		wg.Go(func() {
			for i := w; i < n; i += workers {
				f(i)
			}
		})
	}
	wg.Wait()
}

// manyPieces are classes that may truly lie in several pieces at this
// resolution; of every other class only the largest piece is kept.
var manyPieces = func() (m [anatomy.NumClasses]bool) {
	for k, s := range anatomy.Structures {
		m[k] = s.Tissue != anatomy.Compact
	}
	return m
}()

// label gives each voxel its most likely class, without stray pieces of
// structures and, of a whole head, without what lies apart from the brain.
// Removed pieces have other likeliest classes then, so that all later steps agree.
func (f *part) label(whole bool) {
	n := f.voxels()
	f.labels = make([]uint8, n)
	for v := range f.labels {
		f.labels[v] = f.classes[v].Class[0]
	}
	if whole {
		mask := make([]uint8, n)
		for v, l := range f.labels {
			if l != 0 {
				mask[v] = 1
			}
		}
		for _, v := range strays(mask, f.shape, &[anatomy.NumClasses]bool{0: true}) {
			f.classes[v], f.labels[v] = Likely{P: [likely]float32{1}}, 0
		}
	}
	// A stray voxel takes its next likely class, which may be stray again.
	for range 3 {
		out := strays(f.labels, f.shape, &manyPieces)
		if len(out) == 0 {
			break
		}
		for _, v := range out {
			f.classes[v] = f.classes[v].without()
			f.labels[v] = f.classes[v].Class[0]
		}
	}
}

// part is a box that was labelled, and how much of it counts: the voxels lo to
// hi-1 along each axis, its core. Beyond, another part knows better.
type part struct {
	box
	classes []Likely // of each voxel,
	labels  []uint8  // and the likeliest
	lo, hi  [3]int
}

// cells are ranges of cells of the whole head's box along its axes, each
// between the centres of two voxels: from lo to hi-1.
type cells struct{ lo, hi [3]int }

// halves counts the halves of a voxel along an axis that lie in the cells: one in
// the cell before its centre, one in that after it.
func (c *cells) halves(axis, voxel int) (n int) {
	for _, cell := range [2]int{voxel - 1, voxel} {
		if cell >= c.lo[axis] && cell < c.hi[axis] {
			n++
		}
	}
	return n
}

// measure takes the volumes of the labels, and how sure the labels are: of the
// whole head's box, but for the cells where the cores of finer boxes lie, and of
// those. Labelled voxels are counted in the boxes, not on the scan's grid, so that
// its voxels don't matter.
//
// What else was tried errs where a structure is as thin as a voxel (cortex, inferior
// horns): sums of posteriors, and the volume within a surface between the voxels,
// which cuts off every convex edge.
func (s *Segmentation) measure(whole *part, finer []part) {
	var holes []cells
	for i := range finer {
		holes = append(holes, whole.cellsOf(&finer[i]))
	}
	var confidence [anatomy.NumClasses]float64
	whole.measure(&confidence, &s.MM3, holes)
	for i := range finer {
		finer[i].measure(&confidence, &s.MM3, nil)
	}
	for k := 1; k < anatomy.NumClasses; k++ {
		s.ICVMM3 += s.MM3[k]
		s.Confidence += confidence[k]
		s.Signs[k].Doubt = 1
		if s.MM3[k] > 0 {
			s.Signs[k].Doubt = 1 - confidence[k]/s.MM3[k]
		}
	}
	s.Confidence /= max(s.ICVMM3, 1)
}

// compareCloser compares the volumes with those of the whole head's labels alone.
func (s *Segmentation) compareCloser(labels []uint8, voxelMM3 float64) {
	var voxels [anatomy.NumClasses]float64
	for _, l := range labels {
		voxels[l]++
	}
	for k := range s.Signs {
		s.Signs[k].CloserVolume = math.Abs(math.Log((s.MM3[k]/voxelMM3 + 1) / (voxels[k] + 1)))
	}
}

// cellsOf are the cells of the whole head's box that a finer part's core fills;
// region.place sees to it that these are whole cells.
func (f *part) cellsOf(finer *part) (c cells) {
	for a := range 3 {
		at := func(voxel int) int {
			return int(math.Round((finer.from[a] + (float64(voxel)-.5)*finer.mm - f.from[a]) / f.mm))
		}
		c.lo[a], c.hi[a] = at(finer.lo[a]), at(finer.hi[a])
	}
	return c
}

// measure adds, by class, the volume of the core's voxels to mm3, and that times
// the posterior to confidence.
func (f *part) measure(confidence, mm3 *[anatomy.NumClasses]float64, holes []cells) {
	type sums struct {
		confidence [anatomy.NumClasses]float64
		eighths    [anatomy.NumClasses]int
	}
	perSlice := make([]sums, f.shape[2])
	parallel(f.hi[2]-f.lo[2], func(i int) {
		z := f.lo[2] + i
		t := &perSlice[z]
		eighths := make([]int, f.shape[0])
		for y := f.lo[1]; y < f.hi[1]; y++ {
			f.outside(eighths, holes, y, z)
			row := f.at(0, y, z)
			for x := f.lo[0]; x < f.hi[0]; x++ {
				if l := f.labels[row+x]; l != 0 {
					t.confidence[l] += float64(f.classes[row+x].P[0]) * float64(eighths[x])
					t.eighths[l] += eighths[x]
				}
			}
		}
	})
	eighth := cube(f.mm) / 8
	for _, t := range perSlice {
		for k := range t.eighths {
			confidence[k] += t.confidence[k] * eighth
			mm3[k] += float64(t.eighths[k]) * eighth
		}
	}
}

// outside counts the eighths of each voxel of a row that lie in none of the holes,
// which don't overlap.
func (f *part) outside(eighths []int, holes []cells, y, z int) {
	for x := range eighths {
		eighths[x] = 8
	}
	for i := range holes {
		quarters := holes[i].halves(1, y) * holes[i].halves(2, z)
		if quarters == 0 {
			continue
		}
		for x := range eighths {
			eighths[x] -= quarters * holes[i].halves(0, x)
		}
	}
}

func (f *part) at(x, y, z int) int { return (z*f.shape[1]+y)*f.shape[0] + x }
