package dicom

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/suyashkumar/dicom"
	"github.com/suyashkumar/dicom/pkg/tag"

	"neuroscreen"
	"neuroscreen/internal/interop/interoptest"
	"neuroscreen/internal/nifti"
	"neuroscreen/internal/qc"
	"neuroscreen/internal/report"
)

var update = flag.Bool("update", false, "write testdata anew; testdata/check.py judges it, and form in dicom.go is raised if results were stored elsewhere since")

// oblique is a label map on a grid that no axis of the patient runs along, its
// first axis from left to right, with structures of both sides.
func oblique() *nifti.Image {
	m := &nifti.Image{Header: nifti.Header{Shape: []int{7, 6, 5}}}
	tilt := math.Pi / 12
	sin, cos := math.Sin(tilt), math.Cos(tilt)
	m.Affine = nifti.Affine{
		{.9, 0, 0, -3},
		{0, 1.1 * cos, -2 * sin, 8},
		{0, 1.1 * sin, 2 * cos, -21},
		{0, 0, 0, 1},
	}
	m.Data = make([]float32, 7*6*5)
	set := func(i, j, k int, label float32) { m.Data[i+7*(j+6*k)] = label }
	set(0, 0, 0, 17)
	set(1, 0, 0, 17)
	set(1, 2, 1, 17)
	set(5, 4, 1, 53)
	set(6, 5, 4, 53)
	set(3, 1, 2, 16)
	set(3, 2, 2, 60)
	return m
}

func given(m *nifti.Image) func() (*nifti.Image, error) {
	return func() (*nifti.Image, error) { return m, nil }
}

func TestReport(t *testing.T) {
	var b bytes.Buffer
	if err := Report(&b, interoptest.Page()); err != nil {
		t.Fatal(err)
	}
	interoptest.Golden(t, "testdata/sr.dcm", b.Bytes(), *update)
	// Of its five volumes two have a z, one of them a low one.
	if n := bytes.Count(b.Bytes(), []byte("17621005")); n != 1 {
		t.Errorf("%d volumes are called normal, want 1", n)
	}
}

func TestSegmentation(t *testing.T) {
	m := oblique()
	if *update { // what the judge compares with
		var b bytes.Buffer
		labels := make([]uint8, len(m.Data))
		for i, v := range m.Data {
			labels[i] = uint8(v)
		}
		if err := nifti.Write(&b, nifti.Geometry{Shape: m.Shape, Affine: m.Affine}, labels); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile("testdata/labels.nii.gz", b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var b bytes.Buffer
	if err := Segmentation(&b, interoptest.Page(), given(m)); err != nil {
		t.Fatal(err)
	}
	interoptest.Golden(t, "testdata/seg.dcm", b.Bytes(), *update)
}

// TestPlaces: whichever way a scan's axes run, every voxel of a segment lies
// where its label does. The place of a pixel is worked out from the file by the
// equation of PS3.3 C.7.6.2.1-1.
func TestPlaces(t *testing.T) {
	for _, axes := range [][3][3]float64{ // RAS mm for each step along i, j and k
		{{1, 0, 0}, {0, 1, 0}, {0, 0, 2}},         // RAS
		{{-1, 0, 0}, {0, 1, 0}, {0, 0, 2}},        // LAS, as from axial slices
		{{-1, 0, 0}, {0, -1, 0}, {0, 0, -2}},      // LPI
		{{0, -1, 0}, {0, 0, 1}, {2, 0, 0}},        // PSR, as from sagittal slices
		{{1, 0, 0}, {0, 0, 1}, {0, -2, 0}},        // RSP, as from coronal slices
		{{.8, .1, 0}, {-.1, .8, 0}, {0, .2, 1.2}}, // turned, its slices shifted against each other
		{{0, -.6, .8}, {0, .8, .6}, {-1.3, 0, 0}}, // sagittal, half-way between two axes
	} {
		m := oblique()
		for c := range 3 {
			for r := range 3 {
				m.Affine[r][c] = axes[c][r]
			}
			m.Affine[c][3] = []float64{-3, 8, -21}[c]
		}
		p := interoptest.Page()
		for images := range 3 { // stacked along any axis
			if images != 2 && dot(axes[1], axes[2]) != 0 {
				continue // no right angle within a slice
			}
			p.Metadata.SOPInstanceUIDs = make([]string, m.Shape[images])
			checkPlaces(t, p, m, axes)
		}
	}
}

func checkPlaces(t *testing.T, p report.Page, m *nifti.Image, axes [3][3]float64) {
	t.Helper()
	for i := range p.Metadata.SOPInstanceUIDs {
		p.Metadata.SOPInstanceUIDs[i] = fmt.Sprintf("1.2.%d", i)
	}
	var b bytes.Buffer
	if err := Segmentation(&b, p, given(m)); err != nil {
		t.Fatal(axes, err)
	}
	want := map[[4]float64]bool{}
	for i, l := range m.Data {
		if l != 0 {
			x, y, z := float64(i%7), float64(i/7%6), float64(i/42)
			p := [4]float64{float64(l)}
			for r := range 3 {
				p[r+1] = rounded(m.Affine[r][0]*x + m.Affine[r][1]*y + m.Affine[r][2]*z + m.Affine[r][3])
			}
			want[p] = true
		}
	}
	got := pixelPlaces(t, b.Bytes())
	for p := range want {
		if !got[p] {
			t.Errorf("axes %v: label %v at %v is missing; there are %v", axes, p[0], p[1:], got)
		}
	}
	if len(got) != len(want) {
		t.Errorf("axes %v: %d voxels, want %d", axes, len(got), len(want))
	}
}

func rounded(v float64) float64 { return math.Round(v*1e4)/1e4 + 0 }

// pixelPlaces lists label and RAS place of every pixel that is set.
func pixelPlaces(t *testing.T, file []byte) map[[4]float64]bool {
	t.Helper()
	d, err := dicom.Parse(bytes.NewReader(file), int64(len(file)), nil, dicom.SkipPixelData())
	if err != nil {
		t.Fatal(err)
	}
	rows, columns := ints(t, d, tag.Rows)[0], ints(t, d, tag.Columns)[0]
	shared := items(t, d, tag.SharedFunctionalGroupsSequence)[0]
	orientation := floats(t, items(t, shared, tag.PlaneOrientationSequence)[0], tag.ImageOrientationPatient)
	spacing := floats(t, items(t, shared, tag.PixelMeasuresSequence)[0], tag.PixelSpacing)
	frames := items(t, d, tag.PerFrameFunctionalGroupsSequence)
	bits := file[len(file)-(len(frames)*rows*columns+15)/16*2:]
	out := map[[4]float64]bool{}
	for n, f := range frames {
		at := floats(t, items(t, f, tag.PlanePositionSequence)[0], tag.ImagePositionPatient)
		segment := ints(t, items(t, f, tag.SegmentIdentificationSequence)[0], tag.ReferencedSegmentNumber)[0]
		for row := range rows {
			for column := range columns {
				bit := (n*rows+row)*columns + column
				if bits[bit/8]>>(bit%8)&1 == 0 {
					continue
				}
				p := [4]float64{float64(segments[segment-1].Label)}
				for a := range 3 {
					lps := at[a] + orientation[a]*spacing[1]*float64(column) + orientation[3+a]*spacing[0]*float64(row)
					p[a+1] = rounded(lps * []float64{-1, -1, 1}[a])
				}
				out[p] = true
			}
		}
	}
	return out
}

func find(t *testing.T, d dicom.Dataset, of tag.Tag) any {
	t.Helper()
	e, err := d.FindElementByTag(of)
	if err != nil {
		t.Fatal(of, err)
	}
	return e.Value.GetValue()
}

func ints(t *testing.T, d dicom.Dataset, of tag.Tag) []int { t.Helper(); return find(t, d, of).([]int) }

func floats(t *testing.T, d dicom.Dataset, of tag.Tag) (out []float64) {
	t.Helper()
	for _, s := range find(t, d, of).([]string) {
		out = append(out, parseFloat(t, s))
	}
	return out
}

func items(t *testing.T, d dicom.Dataset, of tag.Tag) (out []dicom.Dataset) {
	t.Helper()
	for _, i := range find(t, d, of).([]*dicom.SequenceItemValue) {
		out = append(out, dicom.Dataset{Elements: i.GetValue().([]*dicom.Element)})
	}
	return out
}

// TestRefused: nothing is written for a PACS that has no study for it or that
// would keep what must not be used.
func TestRefused(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		change     func(p *report.Page)
		segOnly    bool
	}{
		{"no study", "no-dicom-source", func(p *report.Page) { p.Metadata.StudyInstanceUID = "" }, false},
		{"no series", "no-dicom-source", func(p *report.Page) { p.Metadata.SeriesInstanceUID = "" }, false},
		{"no frame of reference", "no-dicom-source", func(p *report.Page) { p.Metadata.FrameOfReferenceUID = "" }, true},
		{"rejected", "result-withdrawn", func(p *report.Page) { p.Review = &report.Review{Decision: "reject", By: "Dr. A"} }, false},
		{"replaced", "result-withdrawn", func(p *report.Page) { p.Stands = 3 }, false},
		{"analysed again", "result-withdrawn", func(p *report.Page) { p.State = neuroscreen.Received }, false},
		{"in a template's space", qc.TemplateSpace, func(p *report.Page) {
			p.Result.QC.Reasons = append(p.Result.QC.Reasons, neuroscreen.Reason{Code: qc.TemplateSpace})
		}, false},
		{"a BOLD run", "not-found", func(p *report.Page) { p.Result.FMRI = &neuroscreen.FMRI{} }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := interoptest.Page()
			tt.change(&p)
			var b bytes.Buffer
			for name, err := range map[string]error{"segmentation": Segmentation(&b, p, given(oblique())), "report": Report(&b, p)} {
				e, ok := errors.AsType[*neuroscreen.Error](err)
				if name == "report" && tt.segOnly {
					if err != nil {
						t.Errorf("%s: %v", name, err)
					}
				} else if !ok || e.Type != tt.want {
					t.Errorf("%s: %v, want %s", name, err, tt.want)
				}
			}
		})
	}
	sheared := oblique()
	sheared.Affine[0][1] = .3
	if e, ok := errors.AsType[*neuroscreen.Error](Segmentation(&bytes.Buffer{}, interoptest.Page(), given(sheared))); !ok || e.Type != "sheared-grid" {
		t.Errorf("sheared: %v", e)
	}
}

// TestPatientID: an object belongs to the patient of its study, also to one
// without PatientID.
func TestPatientID(t *testing.T) {
	for _, tt := range []struct{ name, subject, want string }{
		{"posted", "MRN 7", "MRN 7"},
		{"none in the study", interoptest.Page().Metadata.StudyInstanceUID, ""},
		{"too long for DICOM", strings.Repeat("7", 65), ""},
	} {
		p := interoptest.Page()
		p.Metadata.SubjectID = tt.subject
		if got := object(p, reportStorage, "SR", "sr", 1, "")[tag.PatientID]; got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// TestUIDs: the same object has the same UID, and none stands for two contents.
func TestUIDs(t *testing.T) {
	uids := func(change func(p *report.Page)) [2]string {
		p := interoptest.Page()
		change(&p)
		return [2]string{structuredReport(p)[tag.SOPInstanceUID].(string), segmentation(p, planes{}, nil, nil)[tag.SOPInstanceUID].(string)}
	}
	seen := map[string]string{}
	for name, change := range map[string]func(p *report.Page){
		"first":           func(p *report.Page) {},
		"another version": func(p *report.Page) { p.Version = 3 },
		"another scan":    func(p *report.Page) { p.Result.ScanID = "018f6a52-0000-7000-8000-000000000002" },
		"accepted":        func(p *report.Page) { p.Review = &report.Review{Decision: "accept", By: "Dr. A", At: time.Unix(1, 0)} },
		"another frame":   func(p *report.Page) { p.Metadata.FrameOfReferenceUID = "1.2.3" },
		"fewer images":    func(p *report.Page) { p.Metadata.SOPInstanceUIDs = p.Metadata.SOPInstanceUIDs[1:] },
		"accepted again":  func(p *report.Page) { p.Review = &report.Review{Decision: "accept", By: "Dr. A", At: time.Unix(2, 0)} },
	} {
		if uids(change) != uids(change) {
			t.Errorf("%s: its UIDs change", name)
		}
		for _, id := range uids(change) {
			if len(id) > 64 {
				t.Errorf("%s: %q", name, id)
			}
			if other, ok := seen[id]; ok {
				t.Errorf("%s and %s have the same UID", name, other)
			}
			seen[id] = name
		}
	}
}

// TestProbabilityOfReport: none is written without what it rests on, and what is
// left out is no measurement.
func TestProbabilityOfReport(t *testing.T) {
	text := func(change func(p *report.Page)) string {
		p := interoptest.Page()
		change(&p)
		var b bytes.Buffer
		if err := Report(&b, p); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	whole := text(func(p *report.Page) {})
	for _, needed := range []string{"Probability", "Prior probability", "188 people", "Not for people under 60", "PRELIMINARY", "Not reviewed", "a reviewer left it out: Brain stem", neuroscreen.IntendedUse} {
		if !strings.Contains(whole, needed) {
			t.Errorf("the report lacks %q", needed)
		}
	}
	if strings.Contains(whole, "21000") {
		t.Error("a volume that was left out is a measurement")
	}
	for name, change := range map[string]func(p *report.Page){
		"no prior":              func(p *report.Page) { p.Result.Scores[0].Prior = nil },
		"no words of the model": func(p *report.Page) { p.Reading.Scores = nil },
		"abstained":             func(p *report.Page) { s := "too young"; p.Result.Scores[0].Abstained = &s },
	} {
		if strings.Contains(text(change), "122157") {
			t.Errorf("%s: a probability is written", name)
		}
	}
}

func TestDecimal(t *testing.T) {
	for _, v := range []float64{0, 1.5, -1. / 3, 2671, 1421250.5, 1e-300, -1.23456789012345e-7, -math.MaxFloat64} {
		if got := decimal(v); len(got) > 16 || math.Abs(parseFloat(t, got)-v) > 1e-8*math.Abs(v) {
			t.Errorf("%v: %q", v, got)
		}
	}
}

func parseFloat(t *testing.T, s string) float64 {
	t.Helper()
	v, err := strconv.ParseFloat(s, 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestCIELab: the corners of sRGB under D50, after B. Lindbloom's tables.
func TestCIELab(t *testing.T) {
	for rgb, lab := range map[[3]uint8][3]float64{
		{255, 255, 255}: {100, 0, 0}, {0, 0, 0}: {0, 0, 0},
		{255, 0, 0}: {54.29, 80.81, 69.89}, {0, 255, 0}: {87.82, -79.27, 80.99}, {0, 0, 255}: {29.57, 68.30, -112.03},
	} {
		got := cielab(rgb)
		for i, want := range []float64{lab[0] / 100, (lab[1] + 128) / 255, (lab[2] + 128) / 255} {
			if math.Abs(float64(got[i])/65535-want) > 1e-4 {
				t.Errorf("%v: %v, want CIELab %v", rgb, got, lab)
			}
		}
	}
}
