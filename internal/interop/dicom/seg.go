package dicom

import (
	"errors"
	"io"
	"math"
	"slices"
	"strconv"

	"github.com/suyashkumar/dicom"
	"github.com/suyashkumar/dicom/pkg/tag"

	"neuroscreen"
	"neuroscreen/internal/anatomy"
	"neuroscreen/internal/nifti"
	"neuroscreen/internal/report"
	"neuroscreen/internal/words"
)

// segments are all structures of the label map, whether or not the image shows
// them: so a segment's number is its structure's class.
var segments = anatomy.Structures[1:]

// Segmentation writes the labels of a result, on the grid of its scan, as a
// binary segmentation: one segment for each structure, one frame for each slice
// that shows it. labels is called once it is known that there is something to write.
func Segmentation(w io.Writer, p report.Page, labels func() (*nifti.Image, error)) error {
	if err := check(p); err != nil {
		return err
	}
	if p.Metadata.FrameOfReferenceUID == "" {
		return neuroscreen.FieldErrorf(neuroscreen.CodeConflict, "no-dicom-source", "frame_of_reference_uid",
			"the scan was posted without its frame_of_reference_uid: nobody could tell where the segmentation lies")
	}
	m, err := labels()
	if err != nil {
		return err
	}
	g, err := planesOf(m, len(p.Metadata.SOPInstanceUIDs))
	if err != nil {
		return err
	}
	frames, pixels := g.frames(m.Data)
	if len(frames) == 0 {
		return errors.New("dicom: the label map is empty")
	}
	return write(w, segmentation(p, g, frames, pixels))
}

func segmentation(p report.Page, g planes, frames []frame, pixels []byte) attributes {
	organization := uidOf(p, "seg/dimensions")
	dimension := func(pointer, group tag.Tag, label string) attributes {
		at := func(t tag.Tag) []int { return []int{int(t.Group), int(t.Element)} }
		return attributes{
			tag.DimensionOrganizationUID: organization, tag.DimensionIndexPointer: at(pointer), tag.FunctionalGroupPointer: at(group),
			tag.DimensionDescriptionLabel: label,
		}
	}
	shared := attributes{
		tag.PixelMeasuresSequence: []attributes{{
			tag.PixelSpacing:   []string{decimal(g.rowMM), decimal(g.columnMM)}, // between rows first
			tag.SliceThickness: decimal(g.sliceMM), tag.SpacingBetweenSlices: decimal(g.sliceMM),
		}},
		tag.PlaneOrientationSequence: []attributes{{tag.ImageOrientationPatient: decimals(slices.Concat(g.alongRow[:], g.alongColumn[:])...)}},
	}
	a := object(p, segmentationStorage, "SEG", "seg", 9901, "NeuroScreen structures").with(attributes{
		tag.SOPInstanceUID: instanceOf(p, "seg"), tag.ImageType: []string{"DERIVED", "PRIMARY"},
		tag.FrameOfReferenceUID: p.Metadata.FrameOfReferenceUID, tag.PositionReferenceIndicator: "",

		tag.SamplesPerPixel: 1, tag.PhotometricInterpretation: "MONOCHROME2", tag.NumberOfFrames: strconv.Itoa(len(frames)),
		tag.Rows: g.rows, tag.Columns: g.columns, tag.BitsAllocated: 1, tag.BitsStored: 1, tag.HighBit: 0, tag.PixelRepresentation: 0,
		tag.LossyImageCompression: "00",
		tag.PixelData:             dicom.PixelDataInfo{IntentionallyUnprocessed: true, UnprocessedValueData: pixels},

		tag.SegmentationType: "BINARY", tag.SegmentsOverlap: "NO", tag.SegmentSequence: segmentItems(p),
		tag.ContentLabel: "NEUROSCREEN", tag.ContentDescription: "Automatic labelling of a brain MRI", tag.ContentCreatorName: "",

		tag.DimensionOrganizationSequence: []attributes{{tag.DimensionOrganizationUID: organization}},
		tag.DimensionIndexSequence: []attributes{
			dimension(tag.ReferencedSegmentNumber, tag.SegmentIdentificationSequence, "Segment"),
			dimension(tag.ImagePositionPatient, tag.PlanePositionSequence, "Slice"),
		},
		tag.SharedFunctionalGroupsSequence: []attributes{shared},
	})
	perFrame := make([]attributes, len(frames))
	for n, f := range frames {
		perFrame[n] = attributes{
			tag.FrameContentSequence:          []attributes{{tag.DimensionIndexValues: []int{f.segment, f.slice + 1}}},
			tag.PlanePositionSequence:         []attributes{{tag.ImagePositionPatient: decimals(g.corner(f.slice)...)}},
			tag.SegmentIdentificationSequence: []attributes{{tag.ReferencedSegmentNumber: f.segment}},
		}
	}
	a[tag.PerFrameFunctionalGroupsSequence] = perFrame
	if images := sources(p); len(images) > 0 {
		a[tag.ReferencedSeriesSequence] = []attributes{{tag.SeriesInstanceUID: p.Metadata.SeriesInstanceUID, tag.ReferencedInstanceSequence: images}}
		// Which image shows which slice the post does not say: all frames come
		// from all images.
		purpose := dcm("121322", "Source image for image processing operation").item()
		derived := make([]attributes, len(images))
		for i, image := range images {
			derived[i] = attributes{tag.PurposeOfReferenceCodeSequence: purpose}.with(image)
		}
		shared[tag.DerivationImageSequence] = []attributes{{
			tag.DerivationCodeSequence: dcm("113076", "Segmentation").item(), tag.SourceImageSequence: derived,
		}}
	}
	return a
}

func segmentItems(p report.Page) []attributes {
	algorithm := attributes{
		tag.AlgorithmFamilyCodeSequence: dcm("123110", "Artificial Intelligence").item(),
		tag.AlgorithmName:               "NeuroScreen", tag.AlgorithmVersion: p.Result.Software.Version,
	}
	out := make([]attributes, len(segments))
	for i, s := range segments {
		where, side := siteOf(s)
		kind := where.item()
		if side.value != "" {
			kind[0][tag.SegmentedPropertyTypeModifierCodeSequence] = side.item()
		}
		item := attributes{
			tag.SegmentNumber: int(s.Class), tag.SegmentLabel: words.Structure(s.Name),
			tag.SegmentAlgorithmType: "AUTOMATIC", tag.SegmentAlgorithmName: "NeuroScreen",
			tag.SegmentationAlgorithmIdentificationSequence: []attributes{algorithm},
			tag.SegmentedPropertyCategoryCodeSequence:       anatomical.item(), tag.SegmentedPropertyTypeCodeSequence: kind,
			tag.RecommendedDisplayCIELabValue: cielab(s.Colour),
			tag.TrackingID:                    s.Name, tag.TrackingUID: tracking(p, s.Name),
		}
		if slices.ContainsFunc(p.Result.Volumes, func(v neuroscreen.Volume) bool { return v.Label == s.Label && v.LeftOut }) {
			item[tag.SegmentDescription] = "Not to be used: a reviewer left this structure out."
		}
		out[i] = item
	}
	return out
}

var anatomical = snomed("91723000", "Anatomical Structure")

// siteOf is where a structure lies, and on which side; the latter has no value
// for the midline.
func siteOf(s anatomy.Structure) (where, side code) {
	where = snomed(s.SCT, words.Structure(anatomy.Bare(s.Name)))
	if s.SCT == anatomy.VentralDC {
		where.scheme = "DCM"
	}
	switch s.Side {
	case anatomy.Left:
		side = snomed("7771000", "Left")
	case anatomy.Right:
		side = snomed("24028007", "Right")
	}
	return where, side
}

// tracking names a structure of a scan in every object that measures it.
func tracking(p report.Page, structure string) string {
	return newUID(p.Result.ScanID + "/tracking/" + structure)
}

// planes are how a grid is cut into DICOM frames: as scanners draw slices, rows
// to the patient's left, else back, and columns to the back, else feet. So frames
// lie on the scan's own slices, though a converter turned them over.
type planes struct {
	columns, rows, slices    int
	columnMM, rowMM, sliceMM float64    // between them
	alongRow, alongColumn    [3]float64 // unit vectors, LPS
	first, next              [3]float64 // corner of slice 0, and from there to that of slice 1, LPS mm
	start                    int        // voxel that is the first pixel of slice 0
	step                     [3]int     // voxels from one column, row and slice to the next
}

// planesOf cuts a grid that was made of so many images: a converter may have
// turned them into other planes, and their number tells which axis they were
// stacked along.
func planesOf(m *nifti.Image, images int) (planes, error) {
	shape := m.Shape3()
	type axis struct {
		n    int
		mm   [3]float64 // LPS, for one voxel
		step int        // voxels
		most int        // of left, back and feet: the one that it runs along
	}
	corner := [3]float64{-m.Affine[0][3], -m.Affine[1][3], m.Affine[2][3]}
	start, step := 0, 1
	var axes [3]axis
	for n := range axes {
		a := axis{n: shape[n], mm: [3]float64{-m.Affine[0][n], -m.Affine[1][n], m.Affine[2][n]}, step: step}
		step *= shape[n]
		for d := range a.mm {
			if math.Abs(a.mm[d]) > math.Abs(a.mm[a.most]) {
				a.most = d
			}
		}
		axes[n] = a
	}
	stacked := 2
	for n := range axes {
		if axes[2].n != images && axes[n].n == images && (axes[stacked].n != images || axes[n].most < axes[stacked].most) {
			stacked = n
		}
	}
	across := axes[stacked]
	within := slices.Delete(slices.Clone(axes[:]), stacked, stacked+1)
	slices.SortStableFunc(within, func(a, b axis) int { return a.most - b.most })
	for i := range within {
		a := &within[i]
		if towards := [3]float64{1, 1, -1}[a.most]; a.mm[a.most]*towards < 0 {
			start += (a.n - 1) * a.step
			a.step = -a.step
			for d := range a.mm {
				corner[d] += float64(a.n-1) * a.mm[d]
				a.mm[d] = -a.mm[d]
			}
		}
	}
	x, y := within[0], within[1]
	g := planes{
		columns: x.n, rows: y.n, slices: across.n, columnMM: length(x.mm), rowMM: length(y.mm),
		first: corner, next: across.mm, start: start, step: [3]int{x.step, y.step, across.step},
	}
	for d := range 3 {
		g.alongRow[d], g.alongColumn[d] = x.mm[d]/g.columnMM, y.mm[d]/g.rowMM
	}
	// DICOM has right angles only. Rounding in a header leaves less than this.
	const most = 1e-3
	lean := dot(g.alongRow, g.alongColumn)
	if math.IsNaN(lean) || math.Abs(lean) > most {
		return planes{}, neuroscreen.Errorf(neuroscreen.CodeConflict, "sheared-grid", "the scan's axes are not at right angles: DICOM has no such slices")
	}
	for d := range 3 {
		g.alongColumn[d] -= lean * g.alongRow[d]
	}
	rest := length(g.alongColumn)
	for d := range 3 {
		g.alongColumn[d] /= rest
	}
	r, c := g.alongRow, g.alongColumn
	normal := [3]float64{r[1]*c[2] - r[2]*c[1], r[2]*c[0] - r[0]*c[2], r[0]*c[1] - r[1]*c[0]}
	g.sliceMM = math.Abs(dot(normal, g.next))
	return g, nil
}

// corner is the middle of a slice's first pixel, LPS mm.
func (g *planes) corner(slice int) []float64 {
	out := make([]float64, 3)
	for a := range out {
		out[a] = g.first[a] + float64(slice)*g.next[a]
	}
	return out
}

// frame is a slice of a segment.
type frame struct{ segment, slice int }

// frames lists the slices that show each structure, and their pixels: a bit each,
// without gaps between frames.
func (g *planes) frames(labels []float32) (list []frame, pixels []byte) {
	size := g.rows * g.columns
	classes := make([]anatomy.Class, len(labels)) // by slice, row and column
	shown := make([]bool, len(anatomy.Structures)*g.slices)
	for slice := range g.slices {
		for row := range g.rows {
			from := g.start + slice*g.step[2] + row*g.step[1]
			to := classes[slice*size+row*g.columns:][:g.columns]
			for column := range to {
				label := int(labels[from+column*g.step[0]])
				if label == 0 {
					continue
				}
				if s, ok := anatomy.ByLabel(label); ok {
					to[column] = s.Class
					shown[int(s.Class)*g.slices+slice] = true
				}
			}
		}
	}
	for i, yes := range shown {
		if yes {
			list = append(list, frame{i / g.slices, i % g.slices})
		}
	}
	pixels = make([]byte, (len(list)*size+15)/16*2) // an even number
	for n, f := range list {
		for i, c := range classes[f.slice*size:][:size] {
			if int(c) == f.segment {
				bit := n*size + i
				pixels[bit/8] |= 1 << (bit % 8)
			}
		}
	}
	return list, pixels
}

func length(v [3]float64) float64 { return math.Sqrt(dot(v, v)) }

func dot(a, b [3]float64) float64 { return a[0]*b[0] + a[1]*b[1] + a[2]*b[2] }

// cielab turns sRGB into DICOM's CIELab of 16 bits (PS3.3 C.10.7.1.1), white D50.
func cielab(rgb [3]uint8) []int {
	var linear [3]float64
	for i, c := range rgb {
		v := float64(c) / 255
		if v > .04045 {
			linear[i] = math.Pow((v+.055)/1.055, 2.4)
		} else {
			linear[i] = v / 12.92
		}
	}
	// To XYZ relative to D50 (Bradford), then the cube roots of CIELab.
	toXYZ := [3][3]float64{{.4360747, .3850649, .1430804}, {.2225045, .7168786, .0606169}, {.0139322, .0971045, .7141733}}
	white := [3]float64{.96422, 1, .82521}
	var f [3]float64
	for i, row := range toXYZ {
		t := dot(row, linear) / white[i]
		if t > 216./24389 {
			f[i] = math.Cbrt(t)
		} else {
			f[i] = (24389./27*t + 16) / 116
		}
	}
	l, a, b := 116*f[1]-16, 500*(f[0]-f[1]), 200*(f[1]-f[2])
	scaled := func(v float64) int { return int(math.Round(max(0, min(1, v)) * 65535)) }
	return []int{scaled(l / 100), scaled((a + 128) / 255), scaled((b + 128) / 255)}
}
