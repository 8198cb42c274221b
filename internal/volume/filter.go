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

// sampleTaps returns, for each of n destination voxels at source position
// offset + step*i, linear interpolation between the sn source voxels after
// they are smoothed by a Gaussian with the edge voxels repeated outwards.
func sampleTaps(n, sn int, offset, step, sigma float64) []taps {
	kernel := gaussian(sigma)
	radius := len(kernel) / 2
	out := make([]taps, n)
	for i := range out {
		x := offset + step*float64(i)
		if !(x >= -edge && x <= float64(sn-1)+edge) {
			continue
		}
		lo, f := split(x, sn)
		first, last := max(lo-radius, 0), min(lo+1+radius, sn-1)
		acc := make([]float64, last-first+1)
		for d, w := range kernel {
			at := lo + d - radius
			acc[min(max(at, first), last)-first] += w * (1 - float64(f))
			acc[min(max(at+1, first), last)-first] += w * float64(f)
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
// which must not lie in src; m is diagonal up to rounding.
func separable(dst []float32, dn [3]int, src []float32, sn [3]int, m Affine, sigma [3]float64, threads int) {
	var t [3][]taps
	var from, to [3]int // the part of src that is read
	for a := range 3 {
		t[a] = sampleTaps(dn[a], sn[a], m[a][3], m[a][a], sigma[a])
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
	for n, w := range t.weight {
		row := src[(t.first+n)*stride:][:len(dst)]
		switch {
		case n == 0 && w == 1:
			copy(dst, row)
		case n == 0:
			for i, v := range row {
				dst[i] = w * v
			}
		default:
			for i, v := range row {
				dst[i] += w * v
			}
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
	separable(dst, n, src, n, Identity, sigma, threads)
}
