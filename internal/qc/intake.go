package qc

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"

	"neuroscreen"
	"neuroscreen/internal/nifti"
	"neuroscreen/internal/volume"
)

// Stable codes of the reasons that refuse a scan.
const (
	UnsupportedModality     = "unsupported-modality"
	Under18                 = "under-18"
	ContrastAgent           = "contrast-agent"
	Not3D                   = "not-3d"
	Not4D                   = "not-4d"
	UnusableAffine          = "unusable-affine"
	OrientationUnknown      = "orientation-unknown"
	ThickSlices             = "thick-slices"
	FieldOfViewCut          = "field-of-view-cut"
	ImplausibleGeometry     = "implausible-geometry"
	NotFinite               = "not-finite"
	EmptyImage              = "empty-image"
	NotAnIntensityImage     = "not-an-intensity-image"
	NotT1                   = "not-t1"
	NotABrain               = "not-a-brain"
	ImplausibleSegmentation = "implausible-segmentation"
	TooManyVoxels           = "too-many-voxels"
)

// Limits of the intake gates.
const (
	minAgeYears = 18 // norms and models hold adults only (NOMIS: 18 to 100)

	// maxVoxelMM: thicker slices leave fewer than four of them across the
	// hippocampal body; at 1x1x3 mm its volume already moves by up to 6 %.
	maxVoxelMM = 3.0

	// maxVoxelVolume is how far the voxel volumes of affine and pixdim may
	// differ, relatively. Rounding stays below (a pixdim of two decimals: sizes of
	// 1 mm are .5 % off at most, the volume 1.5 %); beyond, one of the two is wrong,
	// and every volume with it.
	maxVoxelVolume = 0.02

	// maxVoxels keeps an analysis near 2 GiB, of 16 bytes a voxel at most. A head
	// at 0.6 mm has 70 million.
	maxVoxels = 100e6

	maxExtentMM     = 500   // no head coil is longer
	maxNonFinite    = 0.001 // share of voxels; a few come from a division in some reconstruction
	minForegroundML = 500   // that are not background: the smallest stripped adult head here has 1,176
	minGreyLevels   = 32
	maxFlat         = 0.6 // share of foreground that equals its three neighbours: T1 heads reach .13, label maps start at .70
)

// minExtentMM is the smallest field of view that holds an adult brain, from
// left to right, back to front, bottom to top. The most tightly cropped brains
// seen measure 124 x 160 x 123.
var minExtentMM = [3]float64{105, 130, 90}

// CheckHeader refuses what cannot be measured by what its metadata and header
// say, before any voxel is decoded. It lists every fault at once. Missing
// metadata is not its business.
func CheckHeader(h *nifti.Header, meta neuroscreen.Metadata) error {
	return Refuse(append(checkMetadata(meta), checkGeometry(h)...))
}

func checkMetadata(m neuroscreen.Metadata) (rs []neuroscreen.Reason) {
	if m.Modality != neuroscreen.T1w {
		rs = append(rs, neuroscreen.Reason{Code: UnsupportedModality, Text: fmt.Sprintf(
			"The modality is %q; volumes are measured on T1w only. Send the T1-weighted scan.", m.Modality)})
	}
	return append(rs, checkPerson(m)...)
}

// checkPerson looks at what metadata say of the person.
func checkPerson(m neuroscreen.Metadata) (rs []neuroscreen.Reason) {
	if m.AgeYears != nil && !(*m.AgeYears >= minAgeYears) { // NaN too
		rs = append(rs, reason(Under18, fmt.Sprintf(
			"The age is %.4g years; reference values and models hold adults of %d and over only.", *m.AgeYears, minAgeYears),
			*m.AgeYears, minAgeYears))
	}
	if m.ContrastAgent != nil && *m.ContrastAgent {
		rs = append(rs, neuroscreen.Reason{Code: ContrastAgent, Text: "The scan was made with a contrast agent, which changes " +
			"the grey values that volumes rest on. Send the series from before the injection."})
	}
	return rs
}

func checkGeometry(h *nifti.Header) (rs []neuroscreen.Reason) {
	shape := h.Shape3()
	if h.Volumes() != 1 || min(shape[0], shape[1], shape[2]) < 2 {
		return []neuroscreen.Reason{{Code: Not3D, Text: fmt.Sprintf(
			"The image's shape is %v; one three-dimensional volume is needed. Of a series over time or of several echoes, send the one anatomical volume.",
			h.Shape)}}
	}
	if n := float64(shape[0]) * float64(shape[1]) * float64(shape[2]); n > maxVoxels {
		return []neuroscreen.Reason{reason(TooManyVoxels, fmt.Sprintf(
			"The image has %.0f million voxels; the limit is %.0f million. Send it resampled to about 1 mm.", n/1e6, maxVoxels/1e6), n, maxVoxels)}
	}
	return checkGrid(h, maxVoxelMM, minExtentMM)
}

// CheckAffine refuses a header whose transform from voxels to mm cannot be used,
// and names the field that it was taken from.
func CheckAffine(h *nifti.Header) error {
	err := Refuse(checkAffine(h))
	if e := neuroscreen.AsError(err); e != nil {
		e.Field = string(h.AffineSource)
	}
	return err
}

func checkAffine(h *nifti.Header) []neuroscreen.Reason {
	affine := volume.Affine(h.Affine)
	if err := affine.Check(); err != nil {
		msg := err.Error()
		if e, ok := errors.AsType[*volume.AffineError](err); ok {
			msg = e.Msg
		}
		return []neuroscreen.Reason{{Code: UnusableAffine, Text: fmt.Sprintf(
			"The header's affine cannot be used: %s. Convert the original DICOM series to NIfTI again.", msg)}}
	}
	mm := affine.VoxelSize()
	if off := math.Abs(math.Abs(affine.Det())/(h.VoxelSize[0]*h.VoxelSize[1]*h.VoxelSize[2]) - 1); !(off <= maxVoxelVolume) {
		return []neuroscreen.Reason{reason(UnusableAffine, fmt.Sprintf(
			"The header contradicts itself: its affine makes voxels of %.3g x %.3g x %.3g mm, its pixdim %.3g x %.3g x %.3g mm, and volumes would be wrong with one of them. Convert the original DICOM series to NIfTI again.",
			mm[0], mm[1], mm[2], h.VoxelSize[0], h.VoxelSize[1], h.VoxelSize[2]), off, maxVoxelVolume)}
	}
	return nil
}

// checkSidesKnown refuses a header that leaves open which side is left.
func checkSidesKnown(h *nifti.Header) (rs []neuroscreen.Reason) {
	if !h.OrientationKnown() {
		rs = append(rs, neuroscreen.Reason{Code: OrientationUnknown, Text: "The header does not say how the voxels lie in the head, " +
			"so left and right cannot be told apart. Convert the original DICOM series to NIfTI with its qform or sform set."})
	}
	if h.FormsMirrored {
		rs = append(rs, neuroscreen.Reason{Code: OrientationUnknown, Text: "The header's sform and qform are mirror images of each other, " +
			"so left and right cannot be told apart. Convert the original DICOM series to NIfTI again."})
	}
	return rs
}

// checkGrid refuses a grid without a usable place in the head, with voxels
// longer than maxMM, or too small or too large for an adult's.
func checkGrid(h *nifti.Header, maxMM float64, minExtent [3]float64) []neuroscreen.Reason {
	if rs := checkAffine(h); rs != nil {
		return rs
	}
	rs := checkSidesKnown(h)
	shape, affine := h.Shape3(), volume.Affine(h.Affine)
	mm := affine.VoxelSize()
	if thickest := max(mm[0], mm[1], mm[2]); thickest > maxMM*1.01 { // headers round
		advice := "Send a 3-D acquisition with voxels of about 1 mm."
		if maxMM > maxVoxelMM {
			advice = "Send a run with smaller voxels."
		}
		rs = append(rs, reason(ThickSlices, fmt.Sprintf(
			"Voxels measure %.3g x %.3g x %.3g mm; the limit is %.3g mm in every direction. %s",
			mm[0], mm[1], mm[2], maxMM, advice), thickest, maxMM))
	}
	re := affine.ToRAS()
	for axis, way := range [3]string{"from left to right", "from back to front", "from bottom to top"} {
		extent := float64(shape[re.Axis[axis]]) * mm[re.Axis[axis]]
		switch {
		case extent > maxExtentMM:
			rs = append(rs, reason(ImplausibleGeometry, fmt.Sprintf(
				"The image spans %.4g mm %s, over the limit of %d mm: this is no head scan, or its header's unit is wrong. Send the head alone, and check the header's voxel size.",
				extent, way, maxExtentMM), extent, maxExtentMM))
		case extent < minExtent[axis]:
			rs = append(rs, reason(FieldOfViewCut, fmt.Sprintf(
				"The image spans %.3g mm %s; a whole adult brain needs %.3g mm. Send the whole head, and check the header's voxel size.",
				extent, way, minExtent[axis]), extent, minExtent[axis]))
		}
	}
	return rs
}

// CheckVoxels refuses images whose values cannot be a T1-weighted head. The
// header must have passed CheckHeader.
func CheckVoxels(img *nifti.Image) error {
	if share := float64(img.NonFinite) / float64(len(img.Data)); share > maxNonFinite {
		return Refuse([]neuroscreen.Reason{reason(NotFinite, fmt.Sprintf(
			"%.3g %% of the voxels are not finite numbers; the limit is %.3g %%. If they stand for background, write 0 there.",
			100*share, 100*maxNonFinite), share, maxNonFinite)})
	}
	f := foregroundOf(img)
	if ml := float64(f.voxels) * (volume.Grid{Affine: img.Affine}).VoxelMM3() / 1000; ml < minForegroundML {
		return Refuse([]neuroscreen.Reason{reason(EmptyImage, fmt.Sprintf(
			"Only %.3g ml of the image are not background; an adult head has more than %d ml. Export the whole series again.", ml, minForegroundML),
			ml, minForegroundML)})
	}
	if f.levels < minGreyLevels {
		return Refuse([]neuroscreen.Reason{reason(NotAnIntensityImage, fmt.Sprintf(
			"The image has %d grey levels besides its background; fewer than %d mean a mask or a label map. Send the T1-weighted image itself.",
			f.levels, minGreyLevels), float64(f.levels), minGreyLevels)})
	}
	if f.flat > maxFlat {
		return Refuse([]neuroscreen.Reason{reason(NotAnIntensityImage, fmt.Sprintf(
			"%.2g %% of the voxels equal all their neighbours, as in a label map or a drawing; the limit is %.2g %%. Send the T1-weighted image itself.",
			100*f.flat, 100*maxFlat), f.flat, maxFlat)})
	}
	return nil
}

// foreground of an image: its finite voxels that do not hold the background.
type foreground struct {
	voxels int
	levels int     // distinct values, counted up to minGreyLevels
	flat   float64 // share of voxels equal to the next one along i, j and k
}

// foregroundOf takes as background whichever fills more voxels, 0 or the
// lowest value: scans begin at 0, CT at -1024, and a stripped brain scaled to
// mean 0 has both signs.
func foregroundOf(img *nifti.Image) (f foreground) {
	data, shape := img.Data, img.Shape3()
	var mu sync.Mutex // of what the parts find
	lowest, zeros, lows := float32(math.MaxFloat32), 0, 0
	volume.Parallel(0, len(data), func(from, to int) {
		zero, low, least := 0, 0, float32(math.MaxFloat32)
		for _, v := range data[from:to] {
			if v <= least && v-v == 0 { // neither NaN nor infinite
				if v < least {
					least, low = v, 0
				}
				low++
			}
			zero += one(v == 0)
		}
		mu.Lock()
		defer mu.Unlock()
		zeros += zero
		if least < lowest {
			lowest, lows = least, 0
		}
		if least == lowest {
			lows += low
		}
	})
	background := lowest
	if zeros > lows {
		background = 0
	}
	f.voxels = len(data) - img.NonFinite - max(zeros, lows)

	ni, nj, nk := shape[0], shape[1], shape[2]
	levels := map[float32]struct{}{}
	flat, seen := 0, 0
	count := countRow
	if background == 0 && img.NonFinite == 0 {
		count = countRowOverZero
	}
	volume.Parallel(0, nk-1, func(from, to int) {
		same, fore := 0, 0
		found := map[float32]struct{}{}
		for k := from; k < to; k++ {
			for j := range nj - 1 {
				at := ni * (j + nj*k)
				row, nextJ, nextK := data[at:at+ni], data[at+ni:at+2*ni], data[at+ni*nj:at+ni*nj+ni]
				n, equal := count(row, nextJ, nextK, background)
				fore, same = fore+n, same+equal
				for i := 0; i < ni-1 && len(found) < minGreyLevels; i++ {
					if v := row[i]; v != background && v-v == 0 {
						found[v] = struct{}{}
					}
				}
			}
		}
		mu.Lock()
		defer mu.Unlock()
		seen += fore
		flat += same
		maps.Copy(levels, found)
	})
	f.levels = min(len(levels), minGreyLevels)
	if seen > 0 {
		f.flat = float64(flat) / float64(seen)
	}
	return f
}

// countRow counts the voxels of a row, but for its last, that do not hold the
// background, and those of them that equal the next along i, j and k.
func countRow(row, nextJ, nextK []float32, background float32) (n, same int) {
	for i, v := range row[:len(row)-1] {
		if v == background || v-v != 0 {
			continue
		}
		n++
		if v == row[i+1] && v == nextJ[i] && v == nextK[i] {
			same++
		}
	}
	return n, same
}

// countRowOverZero is countRow for finite values over a background of 0, in
// half the time: without branches, which noise makes hard to foretell.
func countRowOverZero(row, nextJ, nextK []float32, _ float32) (n, same int) {
	const sign = 1 << 31 // -0 is 0
	bits := math.Float32bits
	x, y, z := row[1:], nextJ[:len(row)-1], nextK[:len(row)-1]
	for i, f := range row[:len(x)] {
		v := bits(f)
		in := one(v&^sign != 0)
		n += in
		same += in & one((v^bits(x[i]))|(v^bits(y[i]))|(v^bits(z[i])) == 0)
	}
	return n, same
}

func one(b bool) int {
	n := 0
	if b {
		n = 1
	}
	return n
}

// masked is the share of an image that is exactly 0 from which that is the value
// of what was cut away, and no tissue's.
const masked = 0.1

// FromZero makes signals count from 0, from where on the network and all ratios
// take them: an image of both signs, as those are that were scaled to mean 0, is
// shifted up by its lowest values. What was cut away stays 0, and so becomes what
// CheckVoxels lets through although it is not finite.
func FromZero(img *nifti.Image) {
	base := float32(0)
	if slices.ContainsFunc(img.Data, func(v float32) bool { return v < 0 }) {
		base = min(0, volume.Percentiles(img.Data, 0.1)[0])
	}
	if base == 0 && img.NonFinite == 0 {
		return
	}
	zeros := 0
	for _, v := range img.Data {
		zeros += one(v == 0)
	}
	isMasked := float64(zeros) > masked*float64(len(img.Data))
	volume.Parallel(0, len(img.Data), func(from, to int) {
		for i, v := range img.Data[from:to] {
			if v-v != 0 || v == 0 && isMasked {
				img.Data[from+i] = 0
			} else if base < 0 {
				img.Data[from+i] = max(v-base, 0)
			}
		}
	})
}
