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

// labelBox returns the most likely class of each voxel without stray pieces of
// structures and, of a whole head, without what lies apart from the brain.
// Posteriors of removed pieces are cleared in p, so that all later steps agree.
func labelBox(p []float32, shape [3]int, whole bool) []uint8 {
	n := shape[0] * shape[1] * shape[2]
	labels := make([]uint8, n)
	best := func(v int) uint8 { return uint8(MostLikely(p[v*Logits:][:Logits])) }
	parallel(shape[2], func(z int) {
		for v := z * shape[0] * shape[1]; v < (z+1)*shape[0]*shape[1]; v++ {
			labels[v] = best(v)
		}
	})
	if whole {
		mask := make([]uint8, n)
		for v, l := range labels {
			if l != 0 {
				mask[v] = 1
			}
		}
		for _, v := range strays(mask, shape, func(uint8) bool { return false }) {
			clear(p[v*Logits:][:Logits])
			labels[v] = 0
		}
	}
	// A stray voxel takes its next likely class, which may be stray again.
	for range 3 {
		out := strays(labels, shape, func(c uint8) bool { return manyPieces[c] })
		if len(out) == 0 {
			break
		}
		for _, v := range out {
			q := p[v*Logits:][:Logits]
			c := int(labels[v]) - 1
			rest := 1 - q[c]
			q[c] = 0
			if rest > 0 {
				for k := range q {
					q[k] /= rest
				}
			}
			labels[v] = best(v)
		}
	}
	return labels
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
	p      []float32 // posteriors
	labels []uint8   // class of each voxel
	lo, hi [3]int
}

// cells are ranges of cells of the whole head's box along its axes, each
// between the centres of two voxels: from lo to hi-1.
type cells struct{ lo, hi [3]int }

// measure takes the volumes within the surfaces of the labels, and how sure the
// labels are: of the whole head's box, but for the cells where the inner boxes'
// cores lie, and of those.
//
// Sums of posteriors are another measure; where a structure is as thin as a
// voxel (cortex, inferior horns) they differ from the labels by 10 to 50 %, and
// they are no closer to the truth on synthetic heads.
func (s *Segmentation) measure(whole *part, inner []part) {
	var holes []cells
	for i := range inner {
		holes = append(holes, whole.cellsOf(&inner[i]))
	}
	var confidence, mm3 [anatomy.NumClasses]float64
	whole.measure(&confidence, &mm3, &s.MM3, holes)
	for i := range inner {
		inner[i].measure(&confidence, &mm3, &s.MM3, nil)
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

// compareInner compares the volumes with those of the whole head's labels alone.
func (s *Segmentation) compareInner(labels []uint8, voxelMM3 float64) {
	var voxels [anatomy.NumClasses]float64
	for _, l := range labels {
		voxels[l]++
	}
	for k := range s.Signs {
		s.Signs[k].InnerVolume = math.Abs(math.Log((s.MM3[k]/voxelMM3 + 1) / (voxels[k] + 1)))
	}
}

// cellsOf are the cells of the whole head's box that an inner part's core
// fills; placeInner sees to it that these are whole cells.
func (f *part) cellsOf(inner *part) (c cells) {
	for a := range 3 {
		at := func(voxel int) int {
			return int(math.Round((inner.from[a] + (float64(voxel)-.5)*inner.mm - f.from[a]) / f.mm))
		}
		c.lo[a], c.hi[a] = at(inner.lo[a]), at(inner.hi[a])
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
				t.confidence[l] += float64(f.p[o*Logits+int(l)-1])
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

// eighths are the quarters of a cell along one axis that belong to voxels of
// the core: the first to the voxel before the cell, the second to the one after.
func (f *part) eighths(axis, cell int) []tap {
	quarters := []tap{{0, .25, true}, {0, .75, true}}
	if cell+1 >= f.hi[axis] {
		quarters = quarters[:1]
	}
	if cell < f.lo[axis] {
		quarters = quarters[len(quarters)-1:]
	}
	return quarters
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
	labels, nx, nxy := f.labels, f.shape[0], f.shape[0]*f.shape[1]
	tz := f.eighths(2, z)
	var across [][]tap
	for x := from[0]; x < to[0]; x++ {
		across = append(across, f.eighths(0, x))
	}
	for y := from[1]; y < to[1]; y++ {
		ty := f.eighths(1, y)
	cell:
		for x := from[0]; x < to[0]; x++ {
			for i := range holes {
				if holes[i].hold(x, y, z) {
					continue cell
				}
			}
			o := z*nxy + y*nx + x
			tx := across[x-from[0]]
			l := labels[o]
			if l == labels[o+1] && l == labels[o+nx] && l == labels[o+nx+1] &&
				l == labels[o+nxy] && l == labels[o+nxy+1] && l == labels[o+nxy+nx] && l == labels[o+nxy+nx+1] {
				count[l] += len(tx) * len(ty) * len(tz)
				continue
			}
			for _, tz := range tz {
				for _, ty := range ty {
					for _, tx := range tx {
						count[between(f.p, labels, o, tx, ty, tz, nx, nxy)]++
					}
				}
			}
		}
	}
}

// onGrid carries the classes of a part's core to a scan's grid: each voxel takes
// the class whose posterior, interpolated between the eight box voxels round
// it, is greatest among the classes that those eight are labelled with.
func (f *part) onGrid(out *volume.Labels) {
	nx, ny := f.shape[0], f.shape[1]
	size := out.VoxelSize()
	var axes [3][]tap
	for a := range axes {
		axes[a] = make([]tap, out.Shape[a])
		for i := range axes[a] {
			x := (float64(i)*size[a] - f.from[a]) / f.mm
			t := tapAt(x, f.shape[a])
			t.ok = t.ok && x >= float64(f.lo[a])-.5 && x < float64(f.hi[a])-.5
			axes[a][i] = t
		}
	}
	parallel(out.Shape[2], func(k int) {
		tz := axes[2][k]
		if !tz.ok {
			return
		}
		for j, ty := range axes[1] {
			if !ty.ok {
				continue
			}
			base := (tz.i*ny + ty.i) * nx
			row := out.Data[(k*out.Shape[1]+j)*out.Shape[0]:][:out.Shape[0]]
			for i, tx := range axes[0] {
				if tx.ok {
					row[i] = between(f.p, f.labels, base+tx.i, tx, ty, tz, nx, nx*ny)
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

// between interpolates at one point whose lower corner is voxel o.
func between(p []float32, labels []uint8, o int, tx, ty, tz tap, sy, sz int) uint8 {
	var at [8]int
	var weight [8]float32
	n := 0
	same := true
	for dz := 0; dz < 2; dz++ {
		wz := 1 - tz.f
		if dz == 1 {
			wz = tz.f
		}
		for dy := 0; dy < 2; dy++ {
			wy := 1 - ty.f
			if dy == 1 {
				wy = ty.f
			}
			for dx := 0; dx < 2; dx++ {
				w := wz * wy * (1 - tx.f)
				if dx == 1 {
					w = wz * wy * tx.f
				}
				if w == 0 {
					continue
				}
				q := o + dz*sz + dy*sy + dx
				at[n], weight[n] = q, w
				n++
				same = same && labels[q] == labels[at[0]]
			}
		}
	}
	if same {
		return labels[at[0]]
	}
	best, bestValue := uint8(0), float32(-1)
	for c := range n {
		l := labels[at[c]]
		if l == best && bestValue >= 0 {
			continue
		}
		v := float32(0)
		for m := range n {
			if l == 0 {
				v += weight[m] * (1 - sum(p[at[m]*Logits:][:Logits]))
			} else {
				v += weight[m] * p[at[m]*Logits+int(l)-1]
			}
		}
		if v > bestValue {
			best, bestValue = l, v
		}
	}
	return best
}

func sum(p []float32) (s float32) {
	for _, v := range p {
		s += v
	}
	return s
}

// tap is a linear interpolation between voxels i and i+1.
type tap struct {
	i  int
	f  float32
	ok bool
}

func tapAt(x float64, n int) tap {
	if x < 0 || x > float64(n-1) {
		return tap{}
	}
	i := min(int(x), n-2)
	return tap{i, float32(x - float64(i)), true}
}
