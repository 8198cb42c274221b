package fmri

import (
	"math"

	"neuroscreen/internal/volume"
)

// Motion is how the head lies in a frame, compared with the reference frame:
// tissue at x in the reference is at R(x-c) + c + MM in the frame, in scanner
// millimetres, R = Rx Ry Rz, c the centre of what was aligned.
type Motion struct {
	MM  [3]float64 // translation along x, y, z
	Rad [3]float64 // rotation about x, y, z
}

// Parameters in the order x, y, z in mm, then rotations in radians.
func (m Motion) Parameters() [6]float64 {
	return [6]float64{m.MM[0], m.MM[1], m.MM[2], m.Rad[0], m.Rad[1], m.Rad[2]}
}

// Affine of the motion about the centre c.
func (m Motion) Affine(c [3]float64) volume.Affine {
	sx, cx := math.Sincos(m.Rad[0])
	sy, cy := math.Sincos(m.Rad[1])
	sz, cz := math.Sincos(m.Rad[2])
	a := volume.Affine{
		{cy * cz, -cy * sz, sy, 0},
		{cx*sz + sx*sy*cz, cx*cz - sx*sy*sz, -sx * cy, 0},
		{sx*sz - cx*sy*cz, sx*cz + cx*sy*sz, cx * cy, 0},
		{0, 0, 0, 1},
	}
	for i := range 3 {
		a[i][3] = c[i] + m.MM[i] - (a[i][0]*c[0] + a[i][1]*c[1] + a[i][2]*c[2])
	}
	return a
}

// motionOf undoes Affine.
func motionOf(a volume.Affine, c [3]float64) Motion {
	p := a.Apply(c)
	return Motion{
		MM:  [3]float64{p[0] - c[0], p[1] - c[1], p[2] - c[2]},
		Rad: [3]float64{math.Atan2(-a[1][2], a[2][2]), math.Asin(min(max(a[0][2], -1), 1)), math.Atan2(-a[0][1], a[0][0])},
	}
}

// headRadius turns rotations into displacements: mm from the centre of the
// head to the cortex (Power 2012, doi:10.1016/j.neuroimage.2011.10.018).
const headRadius = 50

// FramewiseDisplacement returns for each frame the sum of the absolute changes
// of its six parameters since the frame before, rotations as arcs on a sphere
// of 50 mm (Power 2012; nipype's FramewiseDisplacement, which leaves out the
// first frame). The first frame's is 0.
func FramewiseDisplacement(m []Motion) []float64 {
	fd := make([]float64, len(m))
	for t := 1; t < len(m); t++ {
		for a := range 3 {
			fd[t] += math.Abs(m[t].MM[a]-m[t-1].MM[a]) + headRadius*math.Abs(m[t].Rad[a]-m[t-1].Rad[a])
		}
	}
	return fd
}
