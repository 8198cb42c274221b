// Package volume holds voxel grids in the patient's space: affines,
// orientation, reorientation to RAS and resampling.
//
// Voxel (i, j, k) of a grid is element i + Shape[0]*(j + Shape[1]*k) of its
// data, and its centre lies at Affine * (i, j, k, 1) in RAS+ millimetres. All
// functions give the same result for any number of threads.
package volume

import "math"

// Grid is where voxels lie.
type Grid struct {
	Shape  [3]int
	Affine Affine
}

// Volume is a scalar image.
type Volume struct {
	Grid
	Data []float32
}

// Labels is a label map.
type Labels struct {
	Grid
	Data []uint8
}

// Count returns how many voxels each label has.
func (l *Labels) Count() (n [256]int) {
	// Neighbours are mostly alike; two tables keep one from waiting for the other.
	var odd [256]int
	d := l.Data
	for ; len(d) > 1; d = d[2:] {
		n[d[0]]++
		odd[d[1]]++
	}
	for _, x := range d {
		n[x]++
	}
	for k := range n {
		n[k] += odd[k]
	}
	return n
}

// New returns a volume of zeros on a grid.
func New(g Grid) *Volume { return &Volume{g, make([]float32, g.Len())} }

// NewLabels returns a label map of zeros on a grid.
func NewLabels(g Grid) *Labels { return &Labels{g, make([]uint8, g.Len())} }

// Len returns the number of voxels.
func (g Grid) Len() int { return g.Shape[0] * g.Shape[1] * g.Shape[2] }

// Index returns the position of voxel (i, j, k) in the data.
func (g Grid) Index(i, j, k int) int { return i + g.Shape[0]*(j+g.Shape[1]*k) }

// VoxelSize returns the distances in mm between neighbours along each axis.
func (g Grid) VoxelSize() [3]float64 { return g.Affine.VoxelSize() }

// VoxelMM3 returns the volume of a voxel in mm³.
func (g Grid) VoxelMM3() float64 { return math.Abs(g.Affine.Det()) }

// Orientation returns the anatomical direction in which each voxel axis grows,
// "RAS" or "LPI" (nibabel.aff2axcodes).
func (g Grid) Orientation() string { return g.Affine.Orientation() }

// Centre returns the middle of the grid in mm.
func (g Grid) Centre() [3]float64 {
	return g.Affine.Apply([3]float64{
		float64(g.Shape[0]-1) / 2, float64(g.Shape[1]-1) / 2, float64(g.Shape[2]-1) / 2,
	})
}

// Near reports whether two grids have the same shape and place every voxel
// within tol mm of the other's.
func (g Grid) Near(o Grid, tol float64) bool {
	if g.Shape != o.Shape {
		return false
	}
	// Affines differ most at a corner.
	for c := range 8 {
		var p [3]float64
		for a := range 3 {
			p[a] = float64((g.Shape[a] - 1) * (c >> a & 1))
		}
		u, v := g.Affine.Apply(p), o.Affine.Apply(p)
		if !(math.Hypot(math.Hypot(u[0]-v[0], u[1]-v[1]), u[2]-v[2]) <= tol) {
			return false
		}
	}
	return true
}
