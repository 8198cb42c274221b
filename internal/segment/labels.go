package segment

import (
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
	m[0], m[anatomy.CSF] = true, true
	for _, name := range []string{"Left-Cerebral-Cortex", "Left-Cerebral-White-Matter", "Left-Lateral-Ventricle", "Left-Inf-Lat-Vent",
		"3rd-Ventricle", "4th-Ventricle", "Left-Cerebellum-Cortex", "Left-Cerebellum-White-Matter"} {
		s, _ := anatomy.ByName(name)
		m[s.Class], m[s.Mirror] = true, true
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
		for _, v := range strays(mask, f.shape, func(uint8) bool { return false }) {
			f.classes[v], f.labels[v] = Likely{P: [likely]float32{1}}, 0
		}
	}
	// A stray voxel takes its next likely class, which may be stray again.
	for range 3 {
		out := strays(f.labels, f.shape, func(c uint8) bool { return manyPieces[c] })
		if len(out) == 0 {
			break
		}
		for _, v := range out {
			f.classes[v] = f.classes[v].without()
			f.labels[v] = f.classes[v].Class[0]
		}
	}
}

// strays lists the voxels outside the largest face-connected piece of each
// non-zero value, but for values that skip says to leave.
func strays(values []uint8, shape [3]int, skip func(uint8) bool) []int {
	nx, nxy := shape[0], shape[0]*shape[1]
	piece := make([]int32, len(values)) // 0: not seen
	var stack []int
	type extent struct {
		value uint8
		size  int
	}
	pieces := []extent{{}}
	var largest [256]int32
	for start, v := range values {
		if v == 0 || piece[start] != 0 || skip(v) {
			continue
		}
		id := int32(len(pieces))
		piece[start] = id
		size := 0
		stack = append(stack[:0], start)
		for len(stack) > 0 {
			o := stack[len(stack)-1]
			stack = stack[:len(stack)-1]
			size++
			x, y, z := o%nx, o/nx%shape[1], o/nxy
			visit := func(inside bool, q int) {
				if inside && piece[q] == 0 && values[q] == v {
					piece[q] = id
					stack = append(stack, q)
				}
			}
			visit(x > 0, o-1)
			visit(x < nx-1, o+1)
			visit(y > 0, o-nx)
			visit(y < shape[1]-1, o+nx)
			visit(z > 0, o-nxy)
			visit(z < shape[2]-1, o+nxy)
		}
		pieces = append(pieces, extent{v, size})
		if size > pieces[largest[v]].size {
			largest[v] = id
		}
	}
	var out []int
	for o, id := range piece {
		if id != 0 && largest[values[o]] != id {
			out = append(out, o)
		}
	}
	return out
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

// measure takes the volumes within the surfaces of the labels, and how sure the
// labels are: of the whole head's box, but for the cells where the cores of
// finer boxes lie, and of those.
//
// Sums of posteriors are another measure; where a structure is as thin as a
// voxel (cortex, inferior horns) they differ from the labels by 10 to 50 %, and
// they are no closer to the truth on synthetic heads.
func (s *Segmentation) measure(whole *part, finer []part) {
	var holes []cells
	for i := range finer {
		holes = append(holes, whole.cellsOf(&finer[i]))
	}
	var confidence, mm3 [anatomy.NumClasses]float64
	whole.measure(&confidence, &mm3, &s.MM3, holes)
	for i := range finer {
		finer[i].measure(&confidence, &mm3, &s.MM3, nil)
	}
	labelled := 0.0
	for k := 1; k < anatomy.NumClasses; k++ {
		s.ICVMM3 += s.MM3[k]
		s.Confidence += confidence[k]
		labelled += mm3[k]
		s.Signs[k].Doubt = 1
		if mm3[k] > 0 {
			s.Signs[k].Doubt = 1 - confidence[k]/mm3[k]
		}
	}
	s.Confidence /= max(labelled, 1)
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

func (c *cells) hold(x, y, z int) bool {
	return x >= c.lo[0] && x < c.hi[0] && y >= c.lo[1] && y < c.hi[1] && z >= c.lo[2] && z < c.hi[2]
}

// measure adds, by class, the volume within the labels' surface to enclosed,
// and of the labelled voxels the volume and the volume times the posterior.
func (f *part) measure(confidence, labelled, enclosed *[anatomy.NumClasses]float64, holes []cells) {
	type sums struct {
		confidence [anatomy.NumClasses]float64
		voxels     [anatomy.NumClasses]int
		eighths    [anatomy.NumClasses]int
	}
	nx, nxy := f.shape[0], f.shape[0]*f.shape[1]
	perSlice := make([]sums, f.shape[2])
	parallel(f.shape[2], func(z int) {
		t := &perSlice[z]
		for y := f.lo[1]; z >= f.lo[2] && z < f.hi[2] && y < f.hi[1]; y++ {
		voxel:
			for x := f.lo[0]; x < f.hi[0]; x++ {
				o := z*nxy + y*nx + x
				l := f.labels[o]
				if l == 0 {
					continue
				}
				for i := range holes {
					if holes[i].hold(x, y, z) {
						continue voxel
					}
				}
				t.confidence[l] += float64(f.classes[o].P[0])
				t.voxels[l]++
			}
		}
		f.countEighths(&t.eighths, z, holes)
	})
	mm3 := cube(f.mm)
	for _, t := range perSlice {
		for k := range t.voxels {
			confidence[k] += t.confidence[k] * mm3
			labelled[k] += float64(t.voxels[k]) * mm3
			enclosed[k] += float64(t.eighths[k]) / 8 * mm3
		}
	}
}

// countEighths labels the middle of each eighth of the core's voxels, as onGrid
// does, between slices z and z+1.
func (f *part) countEighths(count *[anatomy.NumClasses]int, z int, holes []cells) {
	// The cells that touch the core, within the box.
	var from, to [3]int
	for a, n := range f.shape {
		from[a], to[a] = max(0, f.lo[a]-1), min(n-1, f.hi[a])
	}
	if z < from[2] || z >= to[2] {
		return
	}
	// Of a cell, the first quarter along an axis belongs to the voxel before it
	// and the other to the one after, which may lie outside the core.
	quarters := func(axis, cell int) []float32 {
		q := []float32{.25, .75}
		if cell+1 >= f.hi[axis] {
			q = q[:1]
		}
		if cell < f.lo[axis] {
			q = q[len(q)-1:]
		}
		return q
	}
	qz := quarters(2, z)
	var across [][]float32
	for x := from[0]; x < to[0]; x++ {
		across = append(across, quarters(0, x))
	}
	var c corners
	for y := from[1]; y < to[1]; y++ {
		qy := quarters(1, y)
	cell:
		for x := from[0]; x < to[0]; x++ {
			for i := range holes {
				if holes[i].hold(x, y, z) {
					continue cell
				}
			}
			qx := across[x-from[0]]
			f.gather(&c, x, y, z)
			if c.n == 1 {
				count[c.class[0]] += len(qx) * len(qy) * len(qz)
				continue
			}
			for _, fz := range qz {
				for _, fy := range qy {
					for _, fx := range qx {
						count[c.at(fx, fy, fz)]++
					}
				}
			}
		}
	}
}

// run is the indices from to to-1 along one axis of a grid that lie in one
// cell of a box.
type run struct{ cell, from, to int }

// onGrid carries the classes of a part's core to a scan's grid: each voxel takes
// the class whose posterior, interpolated between the eight box voxels round
// it, is greatest among the classes that those eight are labelled with.
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
			for _, x := range runs[0] {
				f.gather(&c, x.cell, y.cell, z.cell)
				for k := z.from; k < z.to; k++ {
					for j := y.from; j < y.to; j++ {
						row := out.Data[(k*out.Shape[1]+j)*out.Shape[0]:][:out.Shape[0]]
						for i := x.from; i < x.to; i++ {
							row[i] = c.at(within[0][i], within[1][j], within[2][k])
						}
					}
				}
			}
		}
	})
}

// toGrid carries the classes of the parts to a scan's grid, later ones over
// earlier ones, as FreeSurfer's labels.
func toGrid(grid volume.Grid, parts ...part) *volume.Labels {
	out := volume.NewLabels(grid)
	for i := range parts {
		parts[i].onGrid(out)
	}
	for i, c := range out.Data {
		out.Data[i] = uint8(anatomy.Structures[c].Label)
	}
	return out
}

// corners are the classes that the eight voxels round a cell are labelled with,
// and the posteriors of these classes there.
type corners struct {
	n     int
	class [8]uint8
	p     [8][8]float32 // by class, then by voxel: x fastest
}

// gather reads the cell between voxel x, y, z and the next along each axis. The
// posteriors of a single class are not read.
func (f *part) gather(c *corners, x, y, z int) {
	nx, nxy := f.shape[0], f.shape[0]*f.shape[1]
	o := z*nxy + y*nx + x
	at := [8]int{o, o + 1, o + nx, o + nx + 1, o + nxy, o + nxy + 1, o + nxy + nx, o + nxy + nx + 1}
	l := f.labels
	c.n, c.class[0] = 1, l[o]
	if l[at[1]] == l[o] && l[at[2]] == l[o] && l[at[3]] == l[o] && l[at[4]] == l[o] && l[at[5]] == l[o] && l[at[6]] == l[o] && l[at[7]] == l[o] {
		return // most cells
	}
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
	if c.n == 1 {
		return c.class[0]
	}
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
