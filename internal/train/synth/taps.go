package synth

import "math"

// taps resample along one axis: output i is the sum of w[i*width+k] times
// input first[i]+k.
type taps struct {
	in, out, width int
	first          []int
	w              []float32
}

// reset makes room for out outputs from in inputs, reusing memory.
func (t *taps) reset(in, out, width int) {
	width = min(width, in)
	t.in, t.out, t.width = in, out, width
	if cap(t.first) < out {
		t.first = make([]int, out)
	}
	if cap(t.w) < out*width {
		t.w = make([]float32, out*width)
	}
	t.first, t.w = t.first[:out], t.w[:out*width]
	clear(t.w)
}

// set fills output i from a kernel f of the distance in inputs from position
// x, cut off at the ends of the axis, with weights that add up to 1.
func (t *taps) set(i int, x float64, f func(d float64) float64) {
	lo := int(math.Floor(x)) - (t.width-1)/2
	if t.width&1 == 1 {
		lo = int(math.Floor(x+.5)) - t.width/2
	}
	lo = min(max(lo, 0), t.in-t.width)
	t.first[i] = lo
	sum := 0.0
	for k := range t.width {
		sum += f(float64(lo+k) - x)
	}
	for k := range t.width {
		t.w[i*t.width+k] = float32(f(float64(lo+k)-x) / sum)
	}
}

// identity copies.
func (t *taps) identity(n int) {
	t.reset(n, n, 1)
	for i := range n {
		t.first[i], t.w[i] = i, 1
	}
}

// gaussian samples at start + step*i after smoothing by sigma, all in inputs.
func (t *taps) gaussian(in, out int, start, step, sigma float64) {
	if sigma < .2 && step == 1 && start == 0 {
		t.identity(in)
		return
	}
	t.reset(in, out, 2*int(math.Ceil(2.3*sigma))+1)
	for i := range out {
		x := min(max(start+step*float64(i), 0), float64(in-1))
		t.set(i, x, func(d float64) float64 { return math.Exp(-d * d / (2 * sigma * sigma)) })
	}
}

// sinc cuts off the frequencies above a share of the highest, as a scanner
// does that samples no more: edges overshoot and echo.
func (t *taps) sinc(n int, share float64) {
	const width = 11
	t.reset(n, n, width)
	for i := range n {
		t.set(i, float64(i), func(d float64) float64 {
			w := .5 + .5*math.Cos(math.Pi*min(1, math.Abs(d)/(width/2+1)))
			if d == 0 {
				return w
			}
			return w * math.Sin(math.Pi*share*d) / (math.Pi * share * d)
		})
	}
}

// linear interpolates at start + step*i; beyond the ends it repeats them.
func (t *taps) linear(in, out int, start, step float64) {
	t.interpolate(in, out, start, step, 2, func(d float64) float64 { return max(0, 1-math.Abs(d)) })
}

// cubic interpolates likewise, by the cubic B-spline through the inputs.
func (t *taps) cubic(in, out int, start, step float64) {
	t.interpolate(in, out, start, step, 12, cardinal)
}

func (t *taps) interpolate(in, out int, start, step float64, width int, f func(d float64) float64) {
	if step == 1 && start == 0 && in == out {
		t.identity(in)
		return
	}
	t.reset(in, out, width)
	for i := range out {
		t.set(i, min(max(start+step*float64(i), 0), float64(in-1)), f)
	}
}

// cardinal is the cubic B-spline through a single 1 among zeros (Unser 1999,
// doi:10.1109/79.799930).
func cardinal(d float64) (y float64) {
	for k := math.Floor(d) - 1; k <= math.Floor(d)+2; k++ {
		y += math.Sqrt(3) * math.Pow(math.Sqrt(3)-2, math.Abs(k)) * bspline(d-k)
	}
	return y
}

// spline evaluates a uniform cubic B-spline whose control points reach one
// beyond either end of the outputs.
func (t *taps) spline(control, out int) {
	t.reset(control, out, 4)
	for i := range out {
		x := 1 + float64(i)*float64(control-3)/float64(max(1, out-1))
		t.set(i, min(x, float64(control-2)-1e-9), bspline)
	}
}

func bspline(d float64) float64 {
	switch d = math.Abs(d); {
	case d < 1:
		return 2./3 - d*d + d*d*d/2
	case d < 2:
		return (2 - d) * (2 - d) * (2 - d) / 6
	}
	return 0
}

// isIdentity reports whether t only copies.
func (t *taps) isIdentity() bool {
	return t.width == 1 && t.in == t.out
}

// rows sets dst to output i of t over rows of src that are stride apart.
func (t *taps) rows(dst, src []float32, i, stride int) {
	w := t.w[i*t.width:][:t.width]
	at := t.first[i] * stride
	n := len(dst)
	row := func(k int) []float32 { return src[at+k*stride:][:n] }
	k := 0
	switch len(w) {
	case 1:
		if w[0] == 1 {
			copy(dst, row(0))
			return
		}
		a, wa := row(0), w[0]
		for x := range dst {
			dst[x] = wa * a[x]
		}
		return
	case 2:
		a, b, wa, wb := row(0), row(1), w[0], w[1]
		for x := range dst {
			dst[x] = wa*a[x] + wb*b[x]
		}
		return
	case 3:
		a, b, c, wa, wb, wc := row(0), row(1), row(2), w[0], w[1], w[2]
		for x := range dst {
			dst[x] = wa*a[x] + wb*b[x] + wc*c[x]
		}
		return
	}
	a, b, c, d := row(0), row(1), row(2), row(3)
	wa, wb, wc, wd := w[0], w[1], w[2], w[3]
	for x := range dst {
		dst[x] = wa*a[x] + wb*b[x] + wc*c[x] + wd*d[x]
	}
	for k = 4; k+1 < len(w); k += 2 {
		a, b, wa, wb := row(k), row(k+1), w[k], w[k+1]
		for x := range dst {
			dst[x] += wa*a[x] + wb*b[x]
		}
	}
	if k < len(w) {
		a, wa := row(k), w[k]
		for x := range dst {
			dst[x] += wa * a[x]
		}
	}
}

// along sets dst to the outputs of t along src.
func (t *taps) along(dst, src []float32) {
	dst = dst[:t.out]
	switch t.width {
	case 2:
		for i, f := range t.first[:len(dst)] {
			w, s := t.w[2*i:2*i+2:2*i+2], src[f:f+2:f+2]
			dst[i] = w[0]*s[0] + w[1]*s[1]
		}
	case 3:
		for i, f := range t.first[:len(dst)] {
			w, s := t.w[3*i:3*i+3:3*i+3], src[f:f+3:f+3]
			dst[i] = w[0]*s[0] + w[1]*s[1] + w[2]*s[2]
		}
	case 5:
		for i, f := range t.first[:len(dst)] {
			w, s := t.w[5*i:5*i+5:5*i+5], src[f:f+5:f+5]
			dst[i] = w[0]*s[0] + w[1]*s[1] + w[2]*s[2] + w[3]*s[3] + w[4]*s[4]
		}
	default:
		for i, f := range t.first[:len(dst)] {
			w := t.w[i*t.width:][:t.width]
			s := src[f:][:len(w)]
			var sum float32
			for k, v := range w {
				sum += v * s[k]
			}
			dst[i] = sum
		}
	}
}

// resampler holds what resampling three axes needs: x varies fastest.
type resampler struct {
	axis [3]taps
	z    []float32 // after the z axis
	row  []float32 // after the y axis
}

func grow(b []float32, n int) []float32 {
	if cap(b) < n {
		return make([]float32, n)
	}
	return b[:n]
}

// shape of the result.
func (r *resampler) shape() [3]int { return [3]int{r.axis[0].out, r.axis[1].out, r.axis[2].out} }

// run resamples src into dst, which may be src when no axis grows in number.
func (r *resampler) run(dst, src []float32) {
	nx, ny := r.axis[0].in, r.axis[1].in
	mx, my, mz := r.axis[0].out, r.axis[1].out, r.axis[2].out
	plane := nx * ny
	r.z = grow(r.z, plane*mz)
	for z := range mz {
		r.axis[2].rows(r.z[z*plane:][:plane], src, z, plane)
	}
	r.row = grow(r.row, nx)
	for z := range mz {
		slice := r.z[z*plane:][:plane]
		for y := range my {
			out := dst[(z*my+y)*mx:][:mx]
			if r.axis[0].isIdentity() {
				r.axis[1].rows(out, slice, y, nx)
				continue
			}
			r.axis[1].rows(r.row, slice, y, nx)
			r.axis[0].along(out, r.row)
		}
	}
}

// field is a coarse volume read row by row on a finer grid.
type field struct {
	resampler
	coarse [3]int
	data   []float32
	slice  []float32 // the coarse plane at the current z
	at     int       // that z, -1 for none
	out    []float32
}

// reshape makes room for a coarse volume.
func (f *field) reshape(coarse [3]int) {
	f.coarse = coarse
	f.data = grow(f.data, coarse[0]*coarse[1]*coarse[2])
	f.slice = grow(f.slice, coarse[0]*coarse[1])
	f.row = grow(f.row, coarse[0])
	f.at = -1
}

// stretch interpolates the coarse volume over a grid, end to end.
func (f *field) stretch(fine [3]int) {
	for a := range fine {
		f.axis[a].linear(f.coarse[a], fine[a], 0, float64(f.coarse[a]-1)/float64(max(1, fine[a]-1)))
	}
	f.out = grow(f.out, fine[0])
}

// line returns row (y, z), valid until the next call. z must not go back.
func (f *field) line(y, z int) []float32 {
	if f.at != z {
		f.axis[2].rows(f.slice, f.data, z, len(f.slice))
		f.at = z
	}
	f.axis[1].rows(f.row, f.slice, y, len(f.row))
	f.axis[0].along(f.out, f.row)
	return f.out
}
