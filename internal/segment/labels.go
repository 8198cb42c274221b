package segment

import (
	"encoding/binary"
	"math"
	"runtime"
	"sync"

	"neuroscreen/internal/anatomy"
	"neuroscreen/internal/volume"
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

// run is the indices from to to-1 along one axis of a grid that lie in one
// cell of a box.
type run struct{ cell, from, to int }

// onGrid carries the labels of a part's core to a scan's grid, as FreeSurfer's:
// each voxel takes the class whose posterior, interpolated between the eight box
// voxels round it, is greatest among the classes that those eight are labelled
// with.
func (f *part) onGrid(out *volume.Labels) {
	size := out.VoxelSize()
	var runs [3][]run
	var within [3][]float32 // how far into its cell each index lies
	for a := range runs {
		within[a] = make([]float32, out.Shape[a])
		for i := range out.Shape[a] {
			x := (float64(i)*size[a] - f.from[a]) / f.mm
			if x < 0 || x > float64(f.shape[a]-1) || x < float64(f.lo[a])-.5 || x >= float64(f.hi[a])-.5 {
				continue
			}
			cell := min(int(x), f.shape[a]-2)
			within[a][i] = float32(x - float64(cell))
			if n := len(runs[a]); n == 0 || runs[a][n-1].cell != cell {
				runs[a] = append(runs[a], run{cell, i, i})
			}
			runs[a][len(runs[a])-1].to = i + 1
		}
	}
	parallel(len(runs[2]), func(r int) {
		z := runs[2][r]
		var c corners
		for _, y := range runs[1] {
			for x := 0; x < len(runs[0]); {
				first := runs[0][x]
				last := first.cell + f.alike(first.cell, y.cell, z.cell, f.shape[0]) - 1
				end := x // past the runs that lie in cells of one class
				for end < len(runs[0]) && runs[0][end].cell <= last {
					end++
				}
				mixed := end == x
				if mixed {
					f.gather(&c, first.cell, y.cell, z.cell)
					end++
				}
				label := anatomy.Structures[f.labels[f.at(first.cell, y.cell, z.cell)]].Label
				for k := z.from; k < z.to; k++ {
					for j := y.from; j < y.to; j++ {
						row := out.Data[(k*out.Shape[1]+j)*out.Shape[0]:]
						for i := first.from; i < runs[0][end-1].to; i++ {
							if mixed {
								label = anatomy.Structures[c.at(within[0][i], within[1][j], within[2][k])].Label
							}
							row[i] = uint8(label)
						}
					}
				}
				x = end
			}
		}
	})
}

// toGrid carries the labels of the parts to a scan's grid, later ones over
// earlier ones.
func toGrid(grid volume.Grid, parts ...part) *volume.Labels {
	out := volume.NewLabels(grid)
	for i := range parts {
		parts[i].onGrid(out)
	}
	return out
}

func (f *part) at(x, y, z int) int { return (z*f.shape[1]+y)*f.shape[0] + x }

// alike counts the cells from one on along x, at most so many, whose voxels all
// have one label, the same in each.
func (f *part) alike(x, y, z, most int) int {
	nx, nxy := f.shape[0], f.shape[0]*f.shape[1]
	o := f.at(x, y, z)
	n := min(most+1, nx-x) // columns of four voxels that bound these cells
	a, b, c, d := f.labels[o:][:n], f.labels[o+nx:][:n], f.labels[o+nxy:][:n], f.labels[o+nxy+nx:][:n]
	l := a[0]
	eight := uint64(l) * 0x0101010101010101
	i := 0
	for ; i+8 <= n; i += 8 {
		w := binary.LittleEndian.Uint64
		if (w(a[i:])^eight)|(w(b[i:])^eight)|(w(c[i:])^eight)|(w(d[i:])^eight) != 0 {
			break
		}
	}
	for i < n && a[i] == l && b[i] == l && c[i] == l && d[i] == l {
		i++
	}
	return max(0, i-1)
}

// corners are the classes that the eight voxels round a cell are labelled with,
// and the posteriors of these classes there.
type corners struct {
	n     int
	class [8]uint8
	p     [8][8]float32 // by class, then by voxel: x fastest
}

// gather reads the cell between voxel x, y, z and the next along each axis.
func (f *part) gather(c *corners, x, y, z int) {
	nx, nxy := f.shape[0], f.shape[0]*f.shape[1]
	o := f.at(x, y, z)
	at := [8]int{o, o + 1, o + nx, o + nx + 1, o + nxy, o + nxy + 1, o + nxy + nx, o + nxy + nx + 1}
	c.n, c.class[0] = 1, f.labels[o]
next:
	for _, q := range at[1:] {
		l := f.labels[q]
		for _, seen := range c.class[:c.n] {
			if seen == l {
				continue next
			}
		}
		c.class[c.n] = l
		c.n++
	}
	for i, l := range c.class[:c.n] {
		for m, q := range at {
			c.p[i][m] = f.classes[q].of(l)
		}
	}
}

// at returns the class that is most likely at a place in the cell, by linear
// interpolation: 0 to 1 along each axis.
func (c *corners) at(x, y, z float32) uint8 {
	best, most := 0, float32(-1)
	for i := range c.n {
		p := &c.p[i]
		a := p[0] + x*(p[1]-p[0])
		b := p[2] + x*(p[3]-p[2])
		a += y * (b - a)
		d := p[4] + x*(p[5]-p[4])
		e := p[6] + x*(p[7]-p[6])
		d += y * (e - d)
		if v := a + z*(d-a); v > most {
			best, most = i, v
		}
	}
	return c.class[best]
}
