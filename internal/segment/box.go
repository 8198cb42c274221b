package segment

import (
	"math"
	"slices"

	"neuroscreen/internal/anatomy"
	"neuroscreen/internal/volume"
)

// headCentre guesses the centre of the brain, in mm along the canonical axes
// from the first voxel's centre: across, that of the bright voxels of the top
// 150 mm of the head; up, 75 mm below its top. The network corrects it.
func headCentre(v *volume.Volume) [3]float64 {
	size := v.VoxelSize()
	nx, ny, nz := v.Shape[0], v.Shape[1], v.Shape[2]
	some := make([]float32, 0, len(v.Data)/7+1)
	for o := 0; o < len(v.Data); o += 7 { // no divisor of usual row lengths
		some = append(some, v.Data[o])
	}
	threshold := volume.Percentiles(some, 98)[0] / 4
	perSlice := make([][3]int, nz) // sums of x and y of the bright, and how many
	parallel(nz, func(z int) {
		t := &perSlice[z]
		for y := 0; y < ny; y += 2 {
			row := v.Data[(z*ny+y)*nx:][:nx]
			for x := 0; x < nx; x += 2 {
				if row[x] > threshold {
					t[0], t[1], t[2] = t[0]+x, t[1]+y, t[2]+1
				}
			}
		}
	})
	// The top is where the head is 4 cm2 wide; wrap and noise are not.
	top := nz - 1
	for top > 0 && float64(perSlice[top][2]*4)*size[0]*size[1] < 400 {
		top--
	}
	var sum [3]int
	for z := max(0, top-int(150/size[2])); z <= top; z++ {
		for a, n := range perSlice[z] {
			sum[a] += n
		}
	}
	c := [3]float64{float64(nx-1) / 2 * size[0], float64(ny-1) / 2 * size[1], float64(top)*size[2] - 75}
	if count := float64(sum[2]); count > 0 {
		c[0], c[1] = float64(sum[0])/count*size[0], float64(sum[1])/count*size[1]
	}
	return c
}

// box is a grid of cubic voxels along the canonical axes of a scan: the centre
// of voxel 0, 0, 0 lies at from, in mm from that of the scan's first voxel.
type box struct {
	from  [3]float64
	shape [3]int
	mm    float64
}

// boxAround is an architecture's box round a centre.
func boxAround(centre [3]float64, arch Architecture) box {
	b := box{shape: arch.Shape, mm: arch.VoxelMM}
	for a := range centre {
		b.from[a] = centre[a] - float64(arch.Shape[a]-1)/2*arch.VoxelMM
	}
	return b
}

// align moves the box by half a voxel of the scan at most, so that finer voxels,
// into which its own are cut, lie on the scan's where those are as large: what is
// not interpolated stays sharp.
func (b *box) align(mm float64, scan [3]float64) {
	for a, size := range scan {
		if math.Abs(size-mm) > mm/1000 { // less than a tenth of a voxel on the way to the faces
			continue
		}
		// One of these voxels near the middle.
		at := b.from[a] + float64(b.shape[a]/2)*b.mm - (b.mm-mm)/2
		b.from[a] += math.Round(at/size)*size - at
	}
}

// middle is the inverse of boxAround.
func (b *box) middle() (centre [3]float64) {
	for a := range centre {
		centre[a] = b.from[a] + float64(b.shape[a]-1)/2*b.mm
	}
	return centre
}

func (b *box) voxels() int { return b.shape[0] * b.shape[1] * b.shape[2] }

// sample reads a box into image, smoothed against aliasing, zero outside the
// scan, and normalises it.
func (b *box) sample(image []float32, v *volume.Volume) {
	var from, step [3]float64 // in voxels of the scan
	for a, size := range v.VoxelSize() {
		from[a], step[a] = b.from[a]/size, b.mm/size
	}
	volume.Zoom(image, b.shape, v, from, step)
	Normalise(image, b.shape)
}

// brainCentre returns the centre of everything above background, in mm from
// the box's centre, and its mass in voxels.
func brainCentre(classes []Likely, arch Architecture) (c [3]float64, mass float64) {
	nx, ny := arch.Shape[0], arch.Shape[1]
	perSlice := make([][3]int, arch.Shape[2]) // sums of x and y, and how many
	parallel(arch.Shape[2], func(z int) {
		t := &perSlice[z]
		for y := range ny {
			for x := range nx {
				brain := float32(0)
				l := &classes[(z*ny+y)*nx+x]
				for i, c := range l.Class {
					if c != 0 && anatomy.Class(c) != anatomy.CSF {
						brain += l.P[i]
					}
				}
				if brain >= 0.5 {
					t[0], t[1], t[2] = t[0]+x, t[1]+y, t[2]+1
				}
			}
		}
	})
	for z, t := range perSlice {
		mass += float64(t[2])
		c[0] += float64(t[0])
		c[1] += float64(t[1])
		c[2] += float64(z * t[2])
	}
	for a := range c {
		c[a] = (c[a]/max(mass, 1) - float64(arch.Shape[a]-1)/2) * arch.VoxelMM
	}
	return c, mass
}

// mirror exchanges left and right.
func mirror(image []float32, shape [3]int) {
	parallel(shape[2], func(z int) {
		for row := range slices.Chunk(image[z*shape[0]*shape[1]:][:shape[0]*shape[1]], shape[0]) {
			slices.Reverse(row)
		}
	})
}

// average replaces p by the mean of p and the posteriors of the mirror image,
// brought back, and compares the labels of the two.
func (n *Network) average() mirrorCounts {
	shape := n.weights.Whole.Architecture.Shape
	nx := shape[0]
	perSlice := make([]mirrorCounts, shape[2])
	parallel(shape[2], func(z int) {
		c := &perSlice[z]
		for y := range shape[1] {
			row := (z*shape[1] + y) * nx
			for x := range nx {
				p, q := &n.p[row+x], &n.q[row+nx-1-x]
				a, b := p.Class[0], otherSide[q.Class[0]]
				c.own[a]++
				c.mirror[b]++
				if a == b {
					c.both[a]++
				}
				*p = p.mean(q, .5, &otherSide)
			}
		}
	})
	var sum mirrorCounts
	for _, c := range perSlice {
		for k := range c.both {
			sum.own[k] += c.own[k]
			sum.mirror[k] += c.mirror[k]
			sum.both[k] += c.both[k]
		}
	}
	return sum
}

// mirrorBack brings the classes of a mirror image back to the head, in place.
func mirrorBack(classes []Likely, shape [3]int) {
	nx := shape[0]
	parallel(shape[2], func(z int) {
		for y := range shape[1] {
			row := classes[(z*shape[1]+y)*nx:][:nx]
			for x := range (nx + 1) / 2 {
				row[x], row[nx-1-x] = row[nx-1-x].mirrored(), row[x].mirrored()
			}
		}
	})
}

// mirrorCounts are the voxels, by class, that the network labels in a head, in
// its mirror image, and alike in both.
type mirrorCounts struct {
	own, mirror, both [anatomy.NumClasses]int
}

// dice is the overlap over all structures.
func (c *mirrorCounts) dice() float64 {
	same, all := 0, 0
	for k := 1; k < anatomy.NumClasses; k++ {
		same += c.both[k]
		all += c.own[k] + c.mirror[k]
	}
	return 2 * float64(same) / float64(max(1, all))
}

// Normalise brings an image into the range that the network learnt: negative
// values are 0, the 99.8th percentile over every third voxel along each axis is
// 1, and nothing is above 1.2.
func Normalise(image []float32, shape [3]int) {
	var some []float32
	for z := 0; z < shape[2]; z += 3 {
		for y := 0; y < shape[1]; y += 3 {
			row := image[(z*shape[1]+y)*shape[0]:][:shape[0]]
			for x := 0; x < shape[0]; x += 3 {
				some = append(some, max(row[x], 0))
			}
		}
	}
	top := volume.Percentiles(some, 99.8)[0]
	if !(top > 0) {
		top = 1
	}
	slice := shape[0] * shape[1]
	parallel(shape[2], func(z int) {
		for i, v := range image[z*slice:][:slice] {
			image[z*slice+i] = min(max(v/top, 0), 1.2)
		}
	})
}
