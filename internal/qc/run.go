package qc

import (
	"fmt"

	"neuroscreen"
	"neuroscreen/internal/nifti"
)

// Limits of a BOLD run's volumes.
const (
	maxRunVoxelMM = 6.0  // beyond, deep structures have no voxel of their own
	minRunHeight  = 60.0 // mm from bottom to top: partial slabs hold no networks
)

// CheckRun refuses a BOLD run that cannot be measured by what its metadata and
// header say. Repetition time and number of volumes are internal/fmri's.
func CheckRun(h *nifti.Header, meta neuroscreen.Metadata) error {
	return Refuse(append(checkPerson(meta), checkRunGeometry(h)...))
}

func checkRunGeometry(h *nifti.Header) []neuroscreen.Reason {
	shape := h.Shape3()
	if h.Volumes() < 2 || min(shape[0], shape[1], shape[2]) < 2 {
		return []neuroscreen.Reason{{Code: Not4D, Text: fmt.Sprintf(
			"The image's shape is %v; a run over time of three-dimensional volumes is needed.", h.Shape)}}
	}
	return checkGrid(h, maxRunVoxelMM, [3]float64{minExtentMM[0], minExtentMM[1], minRunHeight})
}
