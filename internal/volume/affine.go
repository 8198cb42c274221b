package volume

import (
	"fmt"
	"math"
)

// Affine maps (i, j, k, 1) to (x, y, z, 1). The last row is 0 0 0 1.
type Affine [4][4]float64

// Identity maps voxel indices to the same numbers in mm.
var Identity = Affine{{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 1, 0}, {0, 0, 0, 1}}

// Scaling returns the affine with voxel sizes s and no rotation or offset.
func Scaling(s [3]float64) Affine {
	return Affine{{s[0], 0, 0, 0}, {0, s[1], 0, 0}, {0, 0, s[2], 0}, {0, 0, 0, 1}}
}

// Mul returns the affine that applies b first and then a.
func (a Affine) Mul(b Affine) Affine {
	var c Affine
	for i := range 4 {
		for j := range 4 {
			for k := range 4 {
				c[i][j] += a[i][k] * b[k][j]
			}
		}
	}
	return c
}

// Apply maps a point.
func (a Affine) Apply(p [3]float64) [3]float64 {
	var q [3]float64
	for i := range 3 {
		q[i] = a[i][0]*p[0] + a[i][1]*p[1] + a[i][2]*p[2] + a[i][3]
	}
	return q
}

// Det returns the determinant of the 3x3 part: mm³ per voxel, negative when
// the voxel axes are left-handed in RAS.
func (a Affine) Det() float64 { return det3(a.linear()) }

// Inverse returns the affine that undoes a. It panics if a is singular; Check
// refuses such an affine first.
func (a Affine) Inverse() Affine {
	m := a.linear()
	d := det3(m)
	if d == 0 || d-d != 0 {
		panic("volume: inverse of a singular affine")
	}
	inv := cofactors(m)
	r := Affine{3: {3: 1}}
	for i := range 3 {
		for j := range 3 {
			r[i][j] = inv[j][i] / d // the adjugate is the transposed cofactors
		}
	}
	for i := range 3 {
		r[i][3] = -(r[i][0]*a[0][3] + r[i][1]*a[1][3] + r[i][2]*a[2][3])
	}
	return r
}

// VoxelSize returns the lengths of the columns of the 3x3 part.
func (a Affine) VoxelSize() [3]float64 {
	var s [3]float64
	for j := range 3 {
		s[j] = math.Sqrt(a[0][j]*a[0][j] + a[1][j]*a[1][j] + a[2][j]*a[2][j])
	}
	return s
}

// What Check refuses. The voxel sizes are far outside any scanner's, and catch
// headers in metres or micrometres.
const (
	MinVoxelSize = 0.02 // mm
	MaxVoxelSize = 50   // mm
	// MaxShear bounds the cosine of the angle between two voxel axes, 0 when
	// they are at right angles: 0.1 is 5.7 degrees off. Registration leaves
	// small shears in stored affines; larger ones change shapes too much to
	// be a scanner's geometry.
	MaxShear = 0.1
)

// AffineError says why an affine can't be used.
type AffineError struct {
	Kind string // "not-finite", "singular", "voxel-size", "sheared"
	Msg  string
}

func (e *AffineError) Error() string { return "affine " + e.Kind + ": " + e.Msg }

// Check returns an *AffineError if a can't be a scan's geometry: not finite,
// singular, voxel sizes outside MinVoxelSize..MaxVoxelSize, or sheared over
// MaxShear.
func (a Affine) Check() error {
	for _, row := range a {
		for _, v := range row {
			if v-v != 0 {
				return &AffineError{"not-finite", "the transform from voxels to the patient holds NaN or infinity"}
			}
		}
	}
	if a[3] != ([4]float64{0, 0, 0, 1}) {
		return &AffineError{"singular", "the last row of the transform is not 0 0 0 1"}
	}
	s := a.VoxelSize()
	for j, v := range s {
		if v == 0 {
			return &AffineError{"singular", fmt.Sprintf("the transform gives voxel axis %d no extent", j+1)}
		}
		if v < MinVoxelSize || v > MaxVoxelSize {
			return &AffineError{"voxel-size", fmt.Sprintf("a voxel size of %.3g mm along axis %d is not a scanner's; are the units right?", v, j+1)}
		}
	}
	for _, p := range [][2]int{{0, 1}, {0, 2}, {1, 2}} {
		dot := 0.0
		for i := range 3 {
			dot += a[i][p[0]] * a[i][p[1]]
		}
		cos := math.Abs(dot) / (s[p[0]] * s[p[1]])
		if cos > 1-1e-6 {
			return &AffineError{"singular", fmt.Sprintf("voxel axes %d and %d have the same direction", p[0]+1, p[1]+1)}
		}
		if cos > MaxShear {
			return &AffineError{"sheared", fmt.Sprintf("voxel axes %d and %d are %.1f degrees apart instead of 90", p[0]+1, p[1]+1, math.Acos(dot/(s[p[0]]*s[p[1]]))*180/math.Pi)}
		}
	}
	return nil
}

type mat3 [3][3]float64

func (a Affine) linear() mat3 {
	return mat3{
		{a[0][0], a[0][1], a[0][2]},
		{a[1][0], a[1][1], a[1][2]},
		{a[2][0], a[2][1], a[2][2]},
	}
}

func det3(m mat3) float64 {
	return m[0][0]*(m[1][1]*m[2][2]-m[1][2]*m[2][1]) -
		m[0][1]*(m[1][0]*m[2][2]-m[1][2]*m[2][0]) +
		m[0][2]*(m[1][0]*m[2][1]-m[1][1]*m[2][0])
}

// cofactors returns the matrix C with inverse(m) = transpose(C) / det(m).
func cofactors(m mat3) mat3 {
	var c mat3
	for i := range 3 {
		for j := range 3 {
			i1, i2, j1, j2 := (i+1)%3, (i+2)%3, (j+1)%3, (j+2)%3
			c[i][j] = m[i1][j1]*m[i2][j2] - m[i1][j2]*m[i2][j1]
		}
	}
	return c
}
