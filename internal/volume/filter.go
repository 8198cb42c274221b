package volume

import "math"

// taps are the weights with which consecutive source voxels add up to one
// destination voxel along one axis. No weights mean a point outside: 0.
type taps struct {
	first  int
	weight []float32
}

// gaussian returns the sampled kernel of a Gaussian out to four sigma (scipy's
// default truncation), centre in the middle, sum 1.
func gaussian(sigma float64) []float64 {
	if sigma <= 0 {
		return []float64{1}
	}
	radius := int(4*sigma + 0.5)
	w := make([]float64, 2*radius+1)
	sum := 0.0
	for n := range w {
		x := float64(n-radius) / sigma
		w[n] = math.Exp(-x * x / 2)
		sum += w[n]
	}
	for n := range w {
		w[n] /= sum
	}
	return w
}

// between are the weights of an even number of voxels round a point that lies f
// beyond the middle two's lower one.
type between func(f float64) []float64

func linear(f float64) []float64 { return []float64{1 - f, f} }

// spline interpolates by a cubic B-spline through the voxels (Unser 1999,
// doi:10.1109/79.799930): a voxel's weight falls by .27 with each further one,
// so that twelve are all but all of them.
func spline(f float64) []float64 {
	if f < edge || f > 1-edge { // at a voxel it is that voxel
		return linear(math.Round(f))
	}
	const reach = 6
	w := make([]float64, 2*reach)
	sum := 0.0
	for i := range w {
		// The spline through a single 1, at this voxel's distance.
		x := float64(i-reach+1) - f
		for k := range 4 {
			knot := math.Floor(x) - 1 + float64(k)
			w[i] += math.Pow(math.Sqrt(3)-2, math.Abs(knot)) * bspline(x-knot)
		}
		sum += w[i]
	}
	for i := range w {
		w[i] /= sum
	}
	return w
}

func bspline(d float64) float64 {
	if d = math.Abs(d); d < 1 {
		return 2./3 - d*d + d*d*d/2
	}
	return max(0, 2-d) * max(0, 2-d) * max(0, 2-d) / 6
}

// sampleTaps returns, for each of n destination voxels at source position
// offset + step*i, interpolation between the sn source voxels after they are
// smoothed by a Gaussian with the edge voxels repeated outwards.
func sampleTaps(n, sn int, offset, step, sigma float64, weigh between) []taps {
	kernel := gaussian(sigma)
	radius := len(kernel) / 2
	out := make([]taps, n)
	for i := range out {
		x := offset + step*float64(i)
		if !(x >= -edge && x <= float64(sn-1)+edge) {
			continue
		}
		lo, f := split(x, sn)
		weights := weigh(float64(f))
		lo -= len(weights)/2 - 1 + radius
		first, last := max(lo, 0), min(lo+len(weights)-1+2*radius, sn-1)
		acc := make([]float64, last-first+1)
		for k, b := range weights {
			for d, w := range kernel {
				acc[min(max(lo+k+d, first), last)-first] += w * b
			}
		}
		// Interpolation at a voxel itself leaves a zero weight behind it.
		for len(acc) > 1 && acc[len(acc)-1] == 0 {
			acc = acc[:len(acc)-1]
		}
		out[i].first = first
		for _, w := range acc {
			out[i].weight = append(out[i].weight, float32(w))
		}
	}
	return out
}

// separable resamples along one axis after the other, slice by slice of dst,
// which must not lie in src.
func separable(dst []float32, dn [3]int, src []float32, sn [3]int, t [3][]taps, threads int) {
	var from, to [3]int // the part of src that is read
	for a := range 3 {
		from[a], to[a] = reach(t[a])
	}
	nx, ny := to[0]-from[0], to[1]-from[1]
	if nx <= 0 || ny <= 0 || to[2] <= from[2] {
		clear(dst)
		return
	}
	for a := range 2 {
		for i := range t[a] {
			t[a][i].first = max(0, t[a][i].first-from[a])
		}
	}
	Parallel(threads, dn[2], func(k0, k1 int) {
		// The third axis first: it reads memory in rows.
		plane, row := make([]float32, nx*ny), make([]float32, nx)
		for k := k0; k < k1; k++ {
			for j := range ny {
				combine(plane[j*nx:][:nx], src[(j+from[1])*sn[0]+from[0]:], t[2][k], sn[0]*sn[1])
			}
			for j := range dn[1] {
				combine(row, plane, t[1][j], nx)
				out := dst[dn[0]*(j+dn[1]*k):][:dn[0]]
				for i, p := range t[0] {
					var sum float32
					x := row[p.first:][:len(p.weight)]
					for n, w := range p.weight {
						sum += w * x[n]
					}
					out[i] = sum
				}
			}
		}
	})
}

// reach returns the range of source voxels that any of the taps read.
func reach(t []taps) (from, to int) {
	from = math.MaxInt
	for i := range t {
		if n := len(t[i].weight); n > 0 {
			from, to = min(from, t[i].first), max(to, t[i].first+n)
		}
	}
	return from, to
}

// combine sets dst to the weighted sum of the rows of src, each len(dst) long
// and stride apart, that t names.
func combine(dst, src []float32, t taps, stride int) {
	if len(t.weight) == 0 {
		clear(dst)
		return
	}
	row := func(n int) []float32 { return src[(t.first+n)*stride:][:len(dst)] }
	w := t.weight
	if w[0] == 1 && len(w) == 1 {
		copy(dst, row(0))
		return
	}
	clear(dst)
	n := 0
	for ; n+4 <= len(w); n += 4 {
		a, b, c, d := row(n), row(n+1), row(n+2), row(n+3)
		wa, wb, wc, wd := w[n], w[n+1], w[n+2], w[n+3]
		for i := range dst {
			dst[i] += wa*a[i] + wb*b[i] + wc*c[i] + wd*d[i]
		}
	}
	for ; n < len(w); n++ {
		wn := w[n]
		for i, v := range row(n) {
			dst[i] += wn * v
		}
	}
}

// Blur returns v smoothed by a Gaussian with the given sigma in voxels along
// each axis, cut off at four sigma; the edge voxels are repeated outwards
// (scipy's gaussian_filter, mode nearest).
func Blur(v *Volume, sigma [3]float64, threads int) *Volume {
	mustFit(len(v.Data), v.Grid)
	out := New(v.Grid)
	blurInto(out.Data, v.Data, v.Shape, sigma, threads)
	return out
}

func blurInto(dst, src []float32, n [3]int, sigma [3]float64, threads int) {
	var t [3][]taps
	for a := range 3 {
		t[a] = sampleTaps(n[a], n[a], 0, 1, sigma[a], linear)
	}
	separable(dst, n, src, n, t, threads)
}
