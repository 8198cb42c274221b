package fmri

import "math"

// bspline gives the weights of the four cubic B-splines round a point that lies
// f beyond the second of them (Unser 1999, doi:10.1109/79.799930).
func bspline(f float32) [4]float32 {
	g := 1 - f
	ff := f * f
	return [4]float32{
		g * g * g / 6,
		(3*ff*f - 6*ff + 4) / 6,
		(-3*ff*f + 3*ff + 3*f + 1) / 6,
		ff * f / 6,
	}
}

// bsplineSlope is the derivative of bspline by f.
func bsplineSlope(f float32) [4]float32 {
	g := 1 - f
	return [4]float32{-g * g / 2, (3*f*f - 4*f) / 2, (-3*f*f + 2*f + 1) / 2, f * f / 2}
}

// sum4 adds up the 4x4x4 coefficients from position at on, weighted.
func sum4(c []float32, at, nx, nxy int, wx, wy, wz *[4]float32) float32 {
	var sum float32
	for k := range 4 {
		var plane float32
		for j := range 4 {
			r := (*[4]float32)(c[at+j*nx+k*nxy:])
			plane += wy[j] * (wx[0]*r[0] + wx[1]*r[1] + wx[2]*r[2] + wx[3]*r[3])
		}
		sum += wz[k] * plane
	}
	return sum
}

// splinePole of the cubic B-spline's inverse filter.
var splinePole = math.Sqrt(3) - 2

// prefilter turns samples into the coefficients of the cubic spline through
// them, mirrored at the outermost samples (scipy's spline_filter, mode mirror).
func prefilter(c []float32, n [3]int) {
	nx, ny, nz := n[0], n[1], n[2]
	if nx > 1 {
		for row := 0; row < len(c); row += nx {
			prefilterRow(c[row : row+nx])
		}
	}
	if ny > 1 {
		for k := range nz {
			prefilterLines(c[k*nx*ny:], ny, nx)
		}
	}
	if nz > 1 {
		prefilterLines(c, nz, nx*ny)
	}
}

// initTerms is where the pole's powers end to count: z^16 < 1e-9.
const initTerms = 16

func prefilterRow(c []float32) {
	z := float32(splinePole)
	n := len(c)
	c[0] = firstCoefficient(n, func(i int) float32 { return c[i] })
	for i := 1; i < n; i++ {
		c[i] += z * c[i-1]
	}
	c[n-1] = z / (z*z - 1) * (c[n-1] + z*c[n-2])
	for i := n - 2; i >= 0; i-- {
		c[i] = z * (c[i+1] - c[i])
	}
	for i := range c {
		c[i] *= 6
	}
}

// firstCoefficient of the causal filter on n mirrored samples.
func firstCoefficient(n int, at func(i int) float32) float32 {
	sum, zi := at(0), float32(1)
	period := 2*n - 2
	for i := 1; i < initTerms; i++ {
		zi *= float32(splinePole)
		j := i % period
		if j >= n {
			j = period - j
		}
		sum += zi * at(j)
	}
	return sum
}

// prefilterLines filters across n rows of the given width that follow each
// other.
func prefilterLines(c []float32, n, width int) {
	z := float32(splinePole)
	row := func(i int) []float32 { return c[i*width : (i+1)*width] }
	first := make([]float32, width)
	for x := range first {
		first[x] = firstCoefficient(n, func(i int) float32 { return c[i*width+x] })
	}
	copy(row(0), first)
	for i := 1; i < n; i++ {
		a, b := row(i), row(i-1)
		for x := range a {
			a[x] += z * b[x]
		}
	}
	a, b := row(n-1), row(n-2)
	for x := range a {
		a[x] = z / (z*z - 1) * (a[x] + z*b[x])
	}
	for i := n - 2; i >= 0; i-- {
		a, b := row(i), row(i+1)
		for x := range a {
			a[x] = z * (b[x] - a[x])
		}
	}
	for i := range n {
		a := row(i)
		for x := range a {
			a[x] *= 6
		}
	}
}
