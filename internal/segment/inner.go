package segment

import (
	"context"
	"math"

	"neuroscreen/internal/anatomy"
	"neuroscreen/internal/volume"
)

// The inner structures of each side are labelled again in a box of finer voxels
// round them. The network knows left sides only; it sees the right one in its
// mirror image, so that neither side is measured otherwise than the other.

const (
	// innerMargin voxels at the faces of an inner box don't count: there the
	// network saw too little of what surrounds them.
	innerMargin = 6
	// minInnerMM3 is far below the inner structures of any adult, about
	// 25,000 mm3 a side: with less, there is nothing to stand a box round.
	minInnerMM3 = 5_000
)

// lookInside labels the inner boxes of both sides, given the labels of the
// whole head. A side whose inner structures were not found is left out.
func (n *Network) lookInside(ctx context.Context, can *volume.Volume, whole *part) ([]part, error) {
	if n.inner == nil {
		return nil, nil
	}
	var parts []part
	for side, f := range placeInner(whole, n.weights.Inner.Architecture) {
		if f.hi[0] <= f.lo[0] || f.hi[1] <= f.lo[1] || f.hi[2] <= f.lo[2] {
			continue
		}
		image := f.sample(can)
		f.p = n.sides[side]
		if side == 1 {
			image = mirrored(image, f.shape[0])
		}
		if err := n.inner.Posteriors(ctx, image, f.p); err != nil {
			return nil, err
		}
		if side == 1 {
			mirrorBack(f.p, f.shape)
		}
		f.label(false)
		parts = append(parts, f)
	}
	return parts, nil
}

// placeInner stands a box round the inner structures of either side, left and
// right, with its voxels on the middles of eighths of the whole head's voxels.
// Cores meet in the middle between the sides and consist of whole cells. The
// core of a side that was not found is empty.
func placeInner(whole *part, arch Architecture) (sides [2]part) {
	var in [anatomy.NumClasses]int // 1 left, 2 right
	for _, c := range anatomy.Inner {
		in[c], in[anatomy.Structures[c].Mirror] = 1, 2
	}
	var sum [2][3]float64
	var count [2]float64
	nx, ny := whole.shape[0], whole.shape[1]
	for o, l := range whole.labels {
		if s := in[l] - 1; s >= 0 {
			sum[s][0] += float64(o % nx)
			sum[s][1] += float64(o / nx % ny)
			sum[s][2] += float64(o / nx / ny)
			count[s]++
		}
	}
	found := func(s int) bool { return count[s]*cube(whole.mm) >= minInnerMM3 }
	middle := nx / 2 // the cell where the sides meet
	if found(0) && found(1) {
		middle = int(math.Round((sum[0][0]/count[0] + sum[1][0]/count[1]) / 2))
	}
	per := int(math.Round(whole.mm / arch.VoxelMM)) // voxels a cell
	for s := range sides {
		f := &sides[s]
		f.box = box{shape: arch.Shape, mm: arch.VoxelMM}
		if !found(s) {
			continue
		}
		for a := range 3 {
			// first is the cell with the box's first voxels.
			first := int(math.Round(sum[s][a]/count[s] - float64(arch.Shape[a]-1)/2/float64(per)))
			f.from[a] = whole.from[a] + float64(first)*whole.mm + (whole.mm-float64(per-1)*f.mm)/2
			lo := max(first+(innerMargin+per-1)/per, 0)
			hi := min(first+(arch.Shape[a]-innerMargin)/per, whole.shape[a]-1)
			if a == 0 && s == 0 {
				hi = min(hi, middle)
			}
			if a == 0 && s == 1 {
				lo = max(lo, middle)
			}
			f.lo[a], f.hi[a] = (lo-first)*per, (hi-first)*per
		}
	}
	return sides
}
