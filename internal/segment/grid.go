package segment

import (
	"encoding/binary"
	"math"
	"slices"

	"neuroscreen/internal/anatomy"
	"neuroscreen/internal/volume"
)

// toGrid carries the labels of the parts to a scan's grid, later ones over earlier
// ones, so that each structure has the volume that was measured there: interpolation
// between the boxes' voxels cuts thin structures and folds off, and where classes
// meet they are weighed so that each gets back what that took.
func toGrid(grid volume.Grid, mm3 *[anatomy.NumClasses]float64, parts []part) *volume.Labels {
	out := volume.NewLabels(grid)
	cores := make([]onGrid, len(parts))
	for i := range parts {
		cores[i] = parts[i].on(grid)
	}
	var border [][]contested
	for i := range parts {
		border = append(border, parts[i].paint(out, &cores[i], cores[i+1:])...)
	}
	weight := weigh(border, out.Count(), mm3, grid.VoxelMM3())
	for _, some := range border {
		for _, v := range some {
			out.Data[v.at] = uint8(anatomy.Structures[v.under(&weight)].Label)
		}
	}
	return out
}

// contested is a voxel of a grid where classes meet: the likeliest of them and the
// next, and how likely that is beside the first.
type contested struct {
	at          int32 // index of the voxel
	first, next uint8
	ratio       float32
}

// weights of the classes' posteriors.
type weights [anatomy.NumClasses]float32

// under is the voxel's class under weights.
func (v *contested) under(w *weights) uint8 {
	if w[v.next]*v.ratio > w[v.first] {
		return v.next
	}
	return v.first
}

const (
	maxLogWeight = 1.5
	minRatio     = .05 // exp(-2 maxLogWeight): below, no weights turn a voxel over

	weighRounds = 8
	weighWithin = .01 // of a volume
)

// weigh finds the weights under which the structures have their volumes, from the
// contested voxels and the count of all labels without weights. Each class's weight
// is sought by secants; a few rounds settle what neighbours take from each other.
func weigh(border [][]contested, count [256]int, mm3 *[anatomy.NumClasses]float64, voxelMM3 float64) (w weights) {
	var certain [anatomy.NumClasses]int
	for k, s := range anatomy.Structures {
		w[k], certain[k] = 1, count[s.Label]
	}
	for _, some := range border {
		for i := range some {
			certain[some[i].first]--
		}
	}
	var log, off, lastLog, lastOff [anatomy.NumClasses]float64 // of the weight; of the voxels over those wanted
	for range weighRounds {
		voxels := certain
		for _, some := range border {
			for i := range some {
				voxels[some[i].under(&w)]++
			}
		}
		settled := true
		for k := 1; k < len(w); k++ {
			want, have := mm3[k]/voxelMM3, max(float64(voxels[k]), .5)
			if want < 1 {
				continue
			}
			lastOff[k], off[k] = off[k], math.Log(have/want)
			if math.Abs(off[k]) < weighWithin || math.Abs(have-want) < 1 {
				continue
			}
			settled = false
			gain := 1. // what a weight brings
			if moved := log[k] - lastLog[k]; moved != 0 {
				gain = min(max((off[k]-lastOff[k])/moved, .2), 3)
			}
			lastLog[k] = log[k]
			log[k] = min(max(log[k]-off[k]/gain, -maxLogWeight), maxLogWeight)
			w[k] = float32(math.Exp(log[k]))
		}
		if settled {
			break
		}
	}
	return w
}

// run is the indices from to to-1 along one axis of a grid that lie in one
// cell of a box.
type run struct{ cell, from, to int }

// onGrid is where the core of a part lies on a grid.
type onGrid struct {
	runs   [3][]run
	within [3][]float32 // how far into its cell each index of an axis lies
}

func (f *part) on(grid volume.Grid) (g onGrid) {
	size := grid.VoxelSize()
	for a := range g.runs {
		g.within[a] = make([]float32, grid.Shape[a])
		for i := range grid.Shape[a] {
			x := (float64(i)*size[a] - f.from[a]) / f.mm
			if x < 0 || x > float64(f.shape[a]-1) || x < float64(f.lo[a])-.5 || x >= float64(f.hi[a])-.5 {
				continue
			}
			cell := min(int(x), f.shape[a]-2)
			g.within[a][i] = float32(x - float64(cell))
			if n := len(g.runs[a]); n == 0 || g.runs[a][n-1].cell != cell {
				g.runs[a] = append(g.runs[a], run{cell, i, i})
			}
			g.runs[a][len(g.runs[a])-1].to = i + 1
		}
	}
	return g
}

// holds reports whether a voxel of the grid lies in the core.
func (g *onGrid) holds(voxel [3]int) bool {
	for a, i := range voxel {
		r := g.runs[a]
		if len(r) == 0 || i < r[0].from || i >= r[len(r)-1].to {
			return false
		}
	}
	return true
}

// paint writes the labels of a part's core, as FreeSurfer's: each voxel takes the
// class whose posterior, interpolated between the eight box voxels round it, is
// greatest among the classes that those eight are labelled with. It returns the
// voxels, in no later core, that another class comes near to.
func (f *part) paint(out *volume.Labels, g *onGrid, later []onGrid) [][]contested {
	x, y, z := g.runs[0], g.runs[1], g.runs[2]
	border := make([][]contested, len(z))
	parallel(len(z), func(n int) {
		slice := z[n]
		var c corners
		for _, line := range y {
			for m := 0; m < len(x); {
				first := x[m]
				last := first.cell + f.alike(first.cell, line.cell, slice.cell, f.shape[0]) - 1
				end := m // past the runs that lie in cells of one class
				for end < len(x) && x[end].cell <= last {
					end++
				}
				mixed := end == m
				if mixed {
					f.gather(&c, first.cell, line.cell, slice.cell)
					end++
				}
				class := f.labels[f.at(first.cell, line.cell, slice.cell)]
				for k := slice.from; k < slice.to; k++ {
					for j := line.from; j < line.to; j++ {
						o := (k*out.Shape[1] + j) * out.Shape[0]
						for i := first.from; i < x[end-1].to; i++ {
							if mixed {
								v := c.at(g.within[0][i], g.within[1][j], g.within[2][k])
								class = v.first
								if v.ratio > minRatio && !slices.ContainsFunc(later, func(l onGrid) bool { return l.holds([3]int{i, j, k}) }) {
									v.at = int32(o + i)
									border[n] = append(border[n], v)
								}
							}
							out.Data[o+i] = uint8(anatomy.Structures[class].Label)
						}
					}
				}
				m = end
			}
		}
	})
	return border
}

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

// corners are the classes that the eight voxels round a cell are labelled
// with, and the posteriors of these classes there.
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

// at returns the classes that are most likely at a place in the cell, by linear
// interpolation: 0 to 1 along each axis.
func (c *corners) at(x, y, z float32) (v contested) {
	best, next := float32(-1), float32(0)
	for i := range c.n {
		p := &c.p[i]
		a := p[0] + x*(p[1]-p[0])
		b := p[2] + x*(p[3]-p[2])
		a += y * (b - a)
		d := p[4] + x*(p[5]-p[4])
		e := p[6] + x*(p[7]-p[6])
		d += y * (e - d)
		switch l := a + z*(d-a); {
		case l > best:
			next, v.next = max(best, 0), v.first
			best, v.first = l, c.class[i]
		case l > next:
			next, v.next = l, c.class[i]
		}
	}
	if best > 0 {
		v.ratio = next / best
	}
	return v
}
