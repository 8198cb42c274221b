package segment

import (
	"context"
	"math"

	"neuroscreen/internal/anatomy"
	"neuroscreen/internal/volume"
)

// After the whole head, each side is looked at again in boxes of finer voxels:
// all of its half of the brain, then its inner structures. These networks know
// left sides only; they see the right one in its mirror image, so that neither
// side is measured otherwise than the other.

// region is what a closer look is for.
type region struct {
	classes []anatomy.Class // of the left side
	// middleMM leads from the region's middle of mass to that of its box, on the
	// left side.
	middleMM [3]float64
	// margin voxels at the faces of a box don't count: there the network saw too
	// little of what surrounds them.
	margin int
	// leastMM3 is far below the region's volume in any adult: with less, there is
	// nothing to stand a box round.
	leastMM3 float64
	apart    bool // drop what lies apart from the brain
}

var (
	half  = region{classes: anatomy.Half, middleMM: anatomy.HalfMiddleMM, margin: 4, leastMM3: 100_000, apart: true}
	inner = region{classes: anatomy.Inner, margin: 6, leastMM3: 5_000}
)

// closer is a network with the region that it is for.
type closer struct {
	region
	model   *Model
	net     *UNet
	classes [2][]Likely // of the boxes on the left and on the right
}

// lookCloser labels the finer boxes of both sides, given the labels of the whole
// head. In the core of its box a later look weighs more than an earlier one. A
// side of which next to nothing was found is left out.
func (n *Network) lookCloser(ctx context.Context, can *volume.Volume, whole *part) ([]part, error) {
	middle := whole.middleCell()
	var sides [2]*part
	var apart [2]bool
	for i := range n.closer {
		c := &n.closer[i]
		placed := c.place(whole, c.net.arch, middle)
		for side := range placed {
			f := &placed[side]
			if f.empty() {
				continue
			}
			f.classes = c.classes[side]
			image := n.image[:f.voxels()]
			f.sample(image, can)
			if side == 1 {
				mirror(image, f.shape)
			}
			if err := c.net.Classify(ctx, image, f.classes); err != nil {
				return nil, err
			}
		}
		parallel(2, func(side int) {
			f := &placed[side]
			if f.empty() {
				return
			}
			if side == 1 {
				mirrorBack(f.classes, f.shape)
			}
			if sides[side] == nil {
				sides[side], apart[side] = f, c.apart
			} else {
				sides[side].correct(f)
			}
		})
	}
	parallel(2, func(side int) {
		if f := sides[side]; f != nil {
			f.label(apart[side])
		}
	})
	var parts []part
	for _, f := range sides {
		if f != nil {
			parts = append(parts, *f)
		}
	}
	return parts, nil
}

// empty says whether nothing of the part counts.
func (f *part) empty() bool {
	return f.hi[0] <= f.lo[0] || f.hi[1] <= f.lo[1] || f.hi[2] <= f.lo[2]
}

// earlierWeight is that of an earlier look where a later one knows better: two
// networks make different errors.
const earlierWeight = .25

// correct the voxels where the core of a later look lies, whose voxels are the
// same.
func (f *part) correct(by *part) {
	var shift, lo, hi [3]int // by's first voxel, and the range of its own voxels
	for a := range 3 {
		shift[a] = int(math.Round((by.from[a] - f.from[a]) / f.mm))
		lo[a], hi[a] = max(by.lo[a], -shift[a]), min(by.hi[a], f.shape[a]-shift[a])
	}
	if hi[0] <= lo[0] {
		return
	}
	for z := lo[2]; z < hi[2]; z++ {
		for y := lo[1]; y < hi[1]; y++ {
			from := (z*by.shape[1]+y)*by.shape[0] + lo[0]
			to := ((z+shift[2])*f.shape[1]+y+shift[1])*f.shape[0] + lo[0] + shift[0]
			n := hi[0] - lo[0]
			for i := range n {
				f.classes[to+i] = by.classes[from+i].mean(&f.classes[to+i], earlierWeight, &sameSide)
			}
		}
	}
}

// mass of a region on either side: the middle, in voxels, and how many.
func (r *region) mass(whole *part) (middle [2][3]float64, count [2]float64) {
	var in [anatomy.NumClasses]int // 1 left, 2 right
	for _, c := range r.classes {
		in[c], in[otherSide[c]] = 1, 2
	}
	nx, ny := whole.shape[0], whole.shape[1]
	for o, l := range whole.labels {
		if s := in[l] - 1; s >= 0 {
			middle[s][0] += float64(o % nx)
			middle[s][1] += float64(o / nx % ny)
			middle[s][2] += float64(o / nx / ny)
			count[s]++
		}
	}
	for s := range middle {
		for a := range middle[s] {
			middle[s][a] /= max(count[s], 1)
		}
	}
	return middle, count
}

// middleCell is the cell where the sides meet: half-way between their inner
// structures.
func (whole *part) middleCell() int {
	middle, count := inner.mass(whole)
	if least := inner.leastMM3 / cube(whole.mm); min(count[0], count[1]) < least {
		return whole.shape[0] / 2
	}
	return int(math.Round((middle[0][0] + middle[1][0]) / 2))
}

// place stands a box round the region on either side, left and right, with its
// voxels on the middles of eighths of the whole head's voxels. Cores meet in the
// middle cell and consist of whole cells. The core of a side that was not found
// is empty.
func (r *region) place(whole *part, arch Architecture, middleCell int) (sides [2]part) {
	middle, count := r.mass(whole)
	per := int(math.Round(whole.mm / arch.VoxelMM)) // voxels a cell
	for s := range sides {
		f := &sides[s]
		f.box = box{shape: arch.Shape, mm: arch.VoxelMM}
		if count[s]*cube(whole.mm) < r.leastMM3 {
			continue
		}
		offset := r.middleMM
		if s == 1 {
			offset[0] = -offset[0]
		}
		for a := range 3 {
			// first is the cell with the box's first voxels, which begins at the centre
			// of the voxel of its number.
			first := int(math.Round(middle[s][a] + offset[a]/whole.mm - float64(arch.Shape[a])/2/float64(per)))
			f.from[a] = whole.from[a] + float64(first)*whole.mm + (whole.mm-float64(per-1)*f.mm)/2
			lo := max(first+(r.margin+per-1)/per, 0)
			hi := min(first+(arch.Shape[a]-r.margin)/per, whole.shape[a]-1)
			if a == 0 && s == 0 {
				hi = min(hi, middleCell)
			}
			if a == 0 && s == 1 {
				lo = max(lo, middleCell)
			}
			f.lo[a], f.hi[a] = (lo-first)*per, (hi-first)*per
		}
	}
	return sides
}
