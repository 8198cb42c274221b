package pipeline

import (
	"math"

	"neuroscreen"
	"neuroscreen/internal/nifti"
	"neuroscreen/internal/qc"
	"neuroscreen/internal/volume"
)

const (
	// RestMemory is what a process takes that analyses no scan but is ready
	// to: weights, and the layers of the networks, which work on boxes of
	// fixed size for one scan at a time. A head of 2.4 million voxels makes a process
	// of 620 MiB.
	RestMemory = 640 << 20

	// bytesPerVoxel of an analysis: the image, its copy in canonical order and
	// what a resampling needs meanwhile are 4 bytes each, labels 1. Garbage
	// lies between: heads of 7, 19 and 53 million voxels were seen to take 12
	// to 15 in all.
	bytesPerVoxel = 16

	// filesMemory is for what does not grow with the image: document, picture,
	// buffers.
	filesMemory = 32 << 20
)

// Memory estimates what the analysis of a scan takes at its peak, in bytes
// beyond RestMemory. A scan that its header refuses takes none, since no
// voxel of it is read.
func Memory(h *nifti.Header, m neuroscreen.Metadata) int64 {
	frames := int64(0)
	if m.Modality == neuroscreen.BOLD {
		if qc.CheckRun(h, m) != nil {
			return 0
		}
		// Of all frames the brain's voxels are kept, and no larger brain is believed.
		brain := min(float64(h.VolumeLen()), maxRunICVMM3/math.Abs(volume.Affine(h.Affine).Det()))
		frames = int64(4 * brain * float64(h.Volumes()))
	} else if qc.CheckHeader(h, m) != nil {
		return 0
	}
	return filesMemory + int64(h.VolumeLen())*bytesPerVoxel + frames
}

// headShare of a run's voxels that decoding keeps, at most: around a head there
// is air.
const headShare = 0.7

// DecodeMemory estimates what the decoding of files with so many events takes at
// its peak, in bytes beyond RestMemory: every sample, and one file's frames.
func DecodeMemory(headers []*nifti.Header, events []int) int64 {
	most, samples := 0, 0
	for n, h := range headers {
		most = max(most, h.VolumeLen()*h.Volumes())
		samples += events[n]
	}
	voxels := 0
	if len(headers) > 0 {
		voxels = headers[0].VolumeLen()
	}
	return filesMemory + int64(voxels)*bytesPerVoxel + int64(4*headShare*float64(most+samples*voxels))
}
