package volume

import (
	"fmt"
	"math"
)

// Options of a resampling. The zero value interpolates without smoothing on
// all processors.
type Options struct {
	// Sigma of the Gaussian that smooths the source before it is sampled, in
	// source voxels along each axis. AntiAlias gives the one for a grid.
	Sigma   [3]float64
	Threads int // 0: GOMAXPROCS
}

// AntiAlias returns the smoothing that keeps a resampling onto a coarser grid
// from aliasing: with r the dst spacing in src voxels, a Gaussian of full width
// at half maximum sqrt(r²-1), so that a source voxel's blur and this one
// together are a dst voxel's (Cardoso et al. 2015,
// doi:10.1007/978-3-319-24571-3_81). It is 0 along axes that aren't coarsened.
func AntiAlias(dst, src Grid) [3]float64 {
	m := src.Affine.Inverse().Mul(dst.Affine)
	var s [3]float64
	for a := range 3 {
		s[a] = antiAlias(math.Sqrt(m[a][0]*m[a][0] + m[a][1]*m[a][1] + m[a][2]*m[a][2]))
	}
	return s
}

func antiAlias(r float64) float64 {
	if r*r < 1+1e-6 { // rounding in an affine must not start a blur
		return 0
	}
	return math.Sqrt((r*r - 1) / (8 * math.Ln2))
}

// Zoom samples a box of src along its own axes: voxel i of dst lies at from +
// step*i, both in voxels of src. It smooths against aliasing (see AntiAlias) and
// interpolates by cubic B-splines, which keep large voxels as sharp as they are
// where lines between them would blur (scipy's map_coordinates, order 3, with the
// edge voxels repeated outwards). Along axes that are much coarsened, where smoothing has left nothing
// to keep, it interpolates linearly. Outside the centres of src's outermost
// voxels it is 0.
func Zoom(dst []float32, dn [3]int, src *Volume, from, step [3]float64) {
	var t [3][]taps
	for a := range 3 {
		weigh := spline
		if step[a] > 1.5 {
			weigh = linear
		}
		t[a] = sampleTaps(dn[a], src.Shape[a], from[a], step[a], antiAlias(step[a]), weigh)
	}
	separable(dst, dn, src.Data, src.Shape, t, 0)
}

// Resample returns src on another grid, interpolated trilinearly, 0 outside the
// centres of src's outermost voxels (scipy's map_coordinates, order 1, mode
// constant). It panics if src's affine is singular; see Affine.Check.
func Resample(src *Volume, grid Grid, opt Options) *Volume {
	out := &Volume{Grid: grid, Data: make([]float32, grid.Len())}
	ResampleInto(out.Data, grid, src.Data, src.Grid, opt)
	return out
}

// ResampleInto is Resample on bare data, which may hold one channel of many.
func ResampleInto(dst []float32, dstGrid Grid, src []float32, srcGrid Grid, opt Options) {
	mustFit(len(dst), dstGrid)
	mustFit(len(src), srcGrid)
	m := srcGrid.Affine.Inverse().Mul(dstGrid.Affine) // dst voxel -> src voxel
	if re, ok := axisAligned(m, dstGrid.Shape, srcGrid.Shape); ok {
		g := re.Grid(srcGrid)
		sigma := [3]float64{opt.Sigma[re.Axis[0]], opt.Sigma[re.Axis[1]], opt.Sigma[re.Axis[2]]}
		if !re.IsIdentity() {
			t := make([]float32, len(src))
			reorient(t, src, srcGrid.Shape, re)
			src = t
		}
		m = g.Affine.Inverse().Mul(dstGrid.Affine)
		var t [3][]taps
		for a := range 3 {
			t[a] = sampleTaps(dstGrid.Shape[a], g.Shape[a], m[a][3], m[a][a], sigma[a], linear)
		}
		separable(dst, dstGrid.Shape, src, g.Shape, t, opt.Threads)
		return
	}
	if opt.Sigma != [3]float64{} {
		t := make([]float32, len(src))
		blurInto(t, src, srcGrid.Shape, opt.Sigma, opt.Threads)
		src = t
	}
	trilinear(dst, dstGrid.Shape, src, srcGrid.Shape, m, opt.Threads)
}

func mustFit(n int, g Grid) {
	if n != g.Len() {
		panic(fmt.Sprintf("volume: %d values for a grid of %v", n, g.Shape))
	}
}

// edge is how far beyond the outermost voxel centres, in voxels, a point may
// lie through rounding and still count as on them.
const edge = 1e-4

// axisAligned reports whether m maps each axis of dst along one axis of src to
// within edge over the whole grid, and which: the reorientation of src that
// makes m diagonal and positive.
func axisAligned(m Affine, dst, src [3]int) (Reorientation, bool) {
	var re Reorientation
	var used [3]bool
	for in := range 3 {
		best := 0
		for o := range 3 {
			if math.Abs(m[in][o]) > math.Abs(m[in][best]) {
				best = o
			}
		}
		for o := range 3 {
			if o != best && math.Abs(m[in][o])*float64(dst[o]-1) > edge {
				return re, false
			}
		}
		if used[best] || m[in][best] == 0 {
			return re, false
		}
		used[best] = true
		re.Axis[best] = in
		re.Flip[best] = m[in][best] < 0
	}
	return re, true
}

// trilinear samples src at m*(i, j, k) for every voxel of dst.
func trilinear(dst []float32, dn [3]int, src []float32, sn [3]int, m Affine, threads int) {
	// An axis of one voxel has no second neighbour: it is its own.
	var step [3]int
	for a, s := range [3]int{1, sn[0], sn[0] * sn[1]} {
		if sn[a] > 1 {
			step[a] = s
		}
	}
	sx, sy, sz := step[0], step[1], step[2]
	Parallel(threads, dn[2], func(from, to int) {
		for k := from; k < to; k++ {
			for j := range dn[1] {
				row := dst[dn[0]*(j+dn[1]*k):][:dn[0]]
				var p, d [3]float64 // the source point of i = 0 and its step
				lo, hi := 0, dn[0]
				for a := range 3 {
					p[a] = m[a][1]*float64(j) + m[a][2]*float64(k) + m[a][3]
					d[a] = m[a][0]
					lo, hi = clip(lo, hi, p[a], d[a], float64(sn[a]-1))
				}
				clear(row[:lo])
				clear(row[max(lo, hi):])
				for i := lo; i < hi; i++ {
					t := float64(i)
					ix, fx := split(p[0]+d[0]*t, sn[0])
					iy, fy := split(p[1]+d[1]*t, sn[1])
					iz, fz := split(p[2]+d[2]*t, sn[2])
					at := ix + sn[0]*(iy+sn[1]*iz)
					v00 := lerp(src[at], src[at+sx], fx)
					v10 := lerp(src[at+sy], src[at+sy+sx], fx)
					at += sz
					v01 := lerp(src[at], src[at+sx], fx)
					v11 := lerp(src[at+sy], src[at+sy+sx], fx)
					row[i] = lerp(lerp(v00, v10, fy), lerp(v01, v11, fy), fz)
				}
			}
		}
	})
}

func lerp(a, b, f float32) float32 { return a + f*(b-a) }

// clip narrows lo..hi to the i with 0 <= p + d*i <= last, allowing for edge.
func clip(lo, hi int, p, d, last float64) (int, int) {
	inside := func(i int) bool {
		x := p + d*float64(i)
		return x >= -edge && x <= last+edge
	}
	if d != 0 {
		a, b := (-edge-p)/d, (last+edge-p)/d
		if a > b {
			a, b = b, a
		}
		// Within the int range before conversion; then exact by the loops.
		lo = max(lo, int(math.Floor(min(max(a, -1), float64(hi)))))
		hi = min(hi, int(math.Ceil(min(max(b, -1), float64(hi)+1)))+1)
	}
	for lo < hi && !inside(lo) {
		lo++
	}
	for hi > lo && !inside(hi-1) {
		hi--
	}
	return lo, hi
}

// split returns the lower neighbour of x on an axis of n voxels and the
// distance beyond it; the last voxel is reached as n-2 and 1.
func split(x float64, n int) (int, float32) {
	i := min(max(int(x), 0), max(n-2, 0))
	return i, float32(min(max(x-float64(i), 0), 1))
}

// ResampleLabels returns src on another grid by nearest neighbour; 0 beyond half
// a voxel from src's outermost centres. Ties go to the higher index.
func ResampleLabels(src *Labels, grid Grid, threads int) *Labels {
	mustFit(len(src.Data), src.Grid)
	out := NewLabels(grid)
	m := src.Affine.Inverse().Mul(grid.Affine)
	n := grid.Shape
	Parallel(threads, n[2], func(from, to int) {
		for k := from; k < to; k++ {
			for j := range n[1] {
				row := out.Data[n[0]*(j+n[1]*k):][:n[0]]
			next:
				for i := range row {
					at, step := 0, 1
					for a := range 3 {
						x := math.Floor(m[a][0]*float64(i) + m[a][1]*float64(j) + m[a][2]*float64(k) + m[a][3] + 0.5)
						if !(x >= 0 && x < float64(src.Shape[a])) {
							continue next
						}
						at += int(x) * step
						step *= src.Shape[a]
					}
					row[i] = src.Data[at]
				}
			}
		}
	})
	return out
}
