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

// CheckTask refuses a task run that must not be decoded by what its metadata and
// header say: whose it is, and where its voxels lie. Slabs and single slices
// pass, which show no networks but can be decoded.
func CheckTask(h *nifti.Header, meta neuroscreen.Metadata) error {
	rs := checkPerson(meta)
	if unusable := checkAffine(h); unusable != nil {
		return Refuse(append(rs, unusable...))
	}
	return Refuse(append(rs, checkSidesKnown(h)...))
}

// RefusedForNetworks are the codes of a run that is refused for what only the
// networks of a whole brain need: it can be decoded.
var RefusedForNetworks = []string{Not4D, ThickSlices, FieldOfViewCut, NotABrain, ImplausibleSegmentation}

func checkRunGeometry(h *nifti.Header) []neuroscreen.Reason {
	shape := h.Shape3()
	if h.Volumes() < 2 || min(shape[0], shape[1], shape[2]) < 2 {
		return []neuroscreen.Reason{{Code: Not4D, Text: fmt.Sprintf(
			"The image's shape is %v; a run over time of three-dimensional volumes is needed.", h.Shape)}}
	}
	return checkGrid(h, maxRunVoxelMM, [3]float64{minExtentMM[0], minExtentMM[1], minRunHeight})
}
