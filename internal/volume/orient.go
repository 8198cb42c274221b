package volume

import "math"

// Reorientation permutes and flips voxel axes without interpolating: axis o of
// the result runs along axis Axis[o] of the input, backwards if Flip[o].
type Reorientation struct {
	Axis [3]int
	Flip [3]bool
}

// ToRAS returns the reorientation that brings voxel axes closest to right,
// anterior and superior. It is nibabel.io_orientation's, but for axes so oblique
// that two compete for one direction: there nibabel serves them in the order of
// storage, which makes a reordered image's answer another; here the one closer
// to the direction gets it.
func (a Affine) ToRAS() Reorientation {
	r := a.rotation()
	var re Reorientation
	var usedIn, usedOut [3]bool
	for range 3 {
		best, in, out := -1.0, 0, 0
		for i := range 3 {
			for o := range 3 {
				v := math.Abs(r[o][i])
				if i == o {
					v += 1e-9 // at exactly 45 degrees leave axes where they are
				}
				if !usedIn[i] && !usedOut[o] && (best < 0 || v > best) {
					best, in, out = v, i, o
				}
			}
		}
		usedIn[in], usedOut[out] = true, true
		re.Axis[out] = in
		re.Flip[out] = r[out][in] < 0
	}
	return re
}

// Orientation returns the directions in which the voxel axes grow ("LAS").
func (a Affine) Orientation() string {
	re := a.ToRAS()
	var s [3]byte
	for out, in := range re.Axis {
		s[in] = "RAS"[out]
		if re.Flip[out] {
			s[in] = "LPI"[out]
		}
	}
	return string(s[:])
}

// rotation returns the orthogonal matrix closest to the directions of the
// voxel axes: the polar factor, by Newton's iteration X <- (X + X^-T)/2
// (Higham 1986, doi:10.1137/0907079). A singular matrix is returned as it is.
func (a Affine) rotation() mat3 {
	m := a.linear()
	s := a.VoxelSize()
	for i := range 3 {
		for j := range 3 {
			if s[j] != 0 {
				m[i][j] /= s[j]
			}
		}
	}
	for range 100 {
		d := det3(m)
		if math.Abs(d) < 1e-12 || d-d != 0 {
			return m
		}
		c := cofactors(m)
		change := 0.0
		for i := range 3 {
			for j := range 3 {
				v := (m[i][j] + c[i][j]/d) / 2
				change = max(change, math.Abs(v-m[i][j]))
				m[i][j] = v
			}
		}
		if change < 1e-15 {
			break
		}
	}
	return m
}

// Inverse returns the way back.
func (r Reorientation) Inverse() Reorientation {
	var inv Reorientation
	for o, in := range r.Axis {
		inv.Axis[in] = o
		inv.Flip[in] = r.Flip[o]
	}
	return inv
}

// IsIdentity reports whether r changes nothing.
func (r Reorientation) IsIdentity() bool {
	return r == Reorientation{Axis: [3]int{0, 1, 2}}
}

// Grid returns where the voxels of a grid lie after r: the same places in the
// patient, counted along other axes.
func (r Reorientation) Grid(g Grid) Grid {
	var out Grid
	m := Affine{3: {3: 1}} // from the result's voxel indices to g's
	for o, in := range r.Axis {
		out.Shape[o] = g.Shape[in]
		m[in][o] = 1
		if r.Flip[o] {
			m[in][o] = -1
			m[in][3] = float64(g.Shape[in] - 1)
		}
	}
	out.Affine = g.Affine.Mul(m)
	return out
}

// Volume returns v with its axes reordered; v itself if r is the identity.
func (r Reorientation) Volume(v *Volume) *Volume {
	if r.IsIdentity() {
		return v
	}
	out := New(r.Grid(v.Grid))
	reorient(out.Data, v.Data, v.Shape, r)
	return out
}

// Labels returns l with its axes reordered; l itself if r is the identity.
func (r Reorientation) Labels(l *Labels) *Labels {
	if r.IsIdentity() {
		return l
	}
	out := NewLabels(r.Grid(l.Grid))
	reorient(out.Data, l.Data, l.Shape, r)
	return out
}

// Canonical returns v with its axes closest to RAS (nibabel's
// as_closest_canonical) and the reorientation that was applied; its Inverse
// carries results back to v's own storage order. v is not changed; when it is
// canonical already it is what is returned.
func Canonical(v *Volume) (*Volume, Reorientation) {
	r := v.Affine.ToRAS()
	return r.Volume(v), r
}

func reorient[T any](dst, src []T, shape [3]int, r Reorientation) {
	stride := [3]int{1, shape[0], shape[0] * shape[1]}
	var n, step [3]int
	start := 0
	for o, in := range r.Axis {
		n[o], step[o] = shape[in], stride[in]
		if r.Flip[o] {
			start += (shape[in] - 1) * stride[in]
			step[o] = -stride[in]
		}
	}
	Parallel(0, n[2], func(from, to int) {
		for k := from; k < to; k++ {
			for j := range n[1] {
				at := start + j*step[1] + k*step[2]
				row := dst[n[0]*(j+n[1]*k):][:n[0]]
				for i := range row {
					row[i] = src[at]
					at += step[0]
				}
			}
		}
	})
}
