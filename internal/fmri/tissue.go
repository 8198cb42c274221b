package fmri

import "neuroscreen/internal/volume"

// FreeSurfer labels of tissues whose signal is nuisance: white matter of both
// hemispheres; lateral, third and fourth ventricles. CSF outside the brain lies
// next to cortex and is left out.
var (
	WhiteMatterLabels = []uint8{2, 41}
	VentricleLabels   = []uint8{4, 43, 14, 15}
)

// minTissue is how many voxels components of a tissue are worked out from.
const minTissue = 20

// Tissue returns where the labels hold, less a rim of one voxel that shares its
// signal with what lies beside it. Where that leaves fewer than 20 voxels the
// rim stays on, and eroded is false.
func Tissue(l *volume.Labels, labels []uint8) (mask []bool, eroded bool) {
	var in [256]bool
	for _, v := range labels {
		in[v] = true
	}
	whole := make([]bool, len(l.Data))
	for at, v := range l.Data {
		whole[at] = in[v]
	}
	mask = make([]bool, len(whole))
	n, left := l.Shape, 0
	for k := 1; k < n[2]-1; k++ {
		for j := 1; j < n[1]-1; j++ {
			for i := 1; i < n[0]-1; i++ {
				at := l.Index(i, j, k)
				x, y, z := 1, n[0], n[0]*n[1]
				mask[at] = whole[at] && whole[at-x] && whole[at+x] && whole[at-y] && whole[at+y] && whole[at-z] && whole[at+z]
				if mask[at] {
					left++
				}
			}
		}
	}
	if left < minTissue {
		return whole, false
	}
	return mask, true
}
