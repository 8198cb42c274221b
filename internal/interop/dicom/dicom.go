// Package dicom writes a result as DICOM objects of the study that it was
// measured in: the labels as a segmentation, the numbers as a structured report
// that points at its segments.
package dicom

import (
	"fmt"
	"io"
	"maps"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/suyashkumar/dicom"
	"github.com/suyashkumar/dicom/pkg/tag"
	"github.com/suyashkumar/dicom/pkg/uid"

	"neuroscreen"
	"neuroscreen/internal/qc"
	"neuroscreen/internal/report"
)

// Storage classes.
const (
	segmentationStorage = "1.2.840.10008.5.1.4.1.1.66.4"
	reportStorage       = "1.2.840.10008.5.1.4.1.1.88.34" // Comprehensive 3D SR
	mrStorage           = "1.2.840.10008.5.1.4.1.1.4"
	enhancedMRStorage   = "1.2.840.10008.5.1.4.1.1.4.1"
)

// form is part of what names an object: who changes what is said of the same
// result must raise it, since the same UID never stands for two contents.
const form = 2

// objects have UIDs that follow from the result, so that a PACS knows again what
// it has already.
var objects = uuid.MustParse("9a0c6f1e-7a55-4c6c-8f0a-0f6d1b1f7a21")

func newUID(name string) string {
	id := uuid.NewSHA1(objects, []byte(name))
	return "2.25." + new(big.Int).SetBytes(id[:]).String()
}

// uidOf names an object or a series of a result.
func uidOf(p report.Page, part string) string {
	return newUID(fmt.Sprintf("%s/%d/%d/%s", p.Result.ScanID, p.Version, form, part))
}

// instanceOf names an object that says what is decided and what was measured. A
// decision changes it, and a PACS that was told to hide it takes nothing by its
// UID again; so do references that came with a later post.
func instanceOf(p report.Page, part string) string {
	m := p.Metadata
	part += "/" + strings.Join(append([]string{m.StudyInstanceUID, m.SeriesInstanceUID, m.FrameOfReferenceUID}, m.SOPInstanceUIDs...), " ")
	if r := p.Review; r != nil {
		part += "/" + r.Decision + r.At.UTC().Format(time.RFC3339Nano)
	}
	return uidOf(p, part)
}

// check says why a result can't become an object.
func check(p report.Page) error {
	m := p.Metadata
	if m.StudyInstanceUID == "" || m.SeriesInstanceUID == "" {
		return neuroscreen.Errorf(neuroscreen.CodeConflict, "no-dicom-source",
			"there is no DICOM study to write for: the scan was posted without study_instance_uid and series_instance_uid")
	}
	if p.Withdrawn() {
		headline, text := p.Decision()
		return neuroscreen.Errorf(neuroscreen.CodeConflict, "result-withdrawn", "this result is not for a PACS: %s %s", headline, text)
	}
	if p.Result.FMRI != nil {
		return neuroscreen.Errorf(neuroscreen.CodeNotFound, "not-found", "a BOLD run has no DICOM objects")
	}
	if p.Result.QC.Has(qc.TemplateSpace) {
		return neuroscreen.Errorf(neuroscreen.CodeConflict, qc.TemplateSpace,
			"the image lies in a template's space: its places are not those of the study, and its volumes may be the template's")
	}
	return nil
}

// attributes of a dataset or of an item of a sequence. Values are strings,
// ints, floats, slices of these, []byte, or []attributes for a sequence; an
// empty string is an attribute without a value.
type attributes map[tag.Tag]any

func (a attributes) with(more attributes) attributes {
	maps.Copy(a, more)
	return a
}

// elements in the order of their tags.
func (a attributes) elements() ([]*dicom.Element, error) {
	tags := slices.SortedFunc(maps.Keys(a), func(a, b tag.Tag) int { return a.Compare(b) })
	out := make([]*dicom.Element, len(tags))
	for n, t := range tags {
		value := a[t]
		switch v := value.(type) {
		case string:
			value = []string{v}
		case int:
			value = []int{v}
		case float64:
			value = []float64{v}
		case []attributes:
			items := make([][]*dicom.Element, len(v))
			for i, item := range v {
				var err error
				if items[i], err = item.elements(); err != nil {
					return nil, err
				}
			}
			value = items
		}
		e, err := dicom.NewElement(t, value)
		if err != nil {
			return nil, fmt.Errorf("dicom: %v: %w", t, err)
		}
		out[n] = e
	}
	return out, nil
}

// write makes a file of a dataset.
func write(w io.Writer, a attributes) error {
	a = a.with(attributes{
		tag.FileMetaInformationVersion: []byte{0, 1},
		tag.MediaStorageSOPClassUID:    a[tag.SOPClassUID], tag.MediaStorageSOPInstanceUID: a[tag.SOPInstanceUID],
		tag.TransferSyntaxUID:      uid.ExplicitVRLittleEndian,
		tag.ImplementationClassUID: newUID("implementation"), tag.ImplementationVersionName: "NEUROSCREEN",
	})
	elements, err := a.elements()
	if err != nil {
		return err
	}
	return dicom.Write(w, dicom.Dataset{Elements: elements})
}

// object holds what every object says of patient, study, series and maker.
func object(p report.Page, class, modality, part string, series int, description string) attributes {
	m := p.Metadata
	at := p.Created.UTC()
	patient := fits(m.SubjectID, 64)
	if patient == m.StudyInstanceUID { // named so by a gateway, for the study has no PatientID
		patient = ""
	}
	return attributes{
		tag.SpecificCharacterSet: "ISO_IR 192", tag.SOPClassUID: class, tag.TimezoneOffsetFromUTC: "+0000",

		// The service keeps no name and no date of birth; a PACS files by study.
		tag.PatientName: "", tag.PatientID: patient, tag.PatientBirthDate: "", tag.PatientSex: string(m.Sex),

		tag.StudyInstanceUID: m.StudyInstanceUID, tag.StudyDate: strings.ReplaceAll(m.ScanDate, "-", ""), tag.StudyTime: "",
		tag.StudyID: "", tag.AccessionNumber: fits(m.AccessionNumber, 16), tag.ReferringPhysicianName: "",

		tag.Modality: modality, tag.SeriesInstanceUID: uidOf(p, part+"/series"), tag.SeriesNumber: strconv.Itoa(series),
		tag.SeriesDescription: description + ", research use", tag.InstanceNumber: "1",
		tag.ContentDate: at.Format("20060102"), tag.ContentTime: at.Format("150405"),

		tag.Manufacturer: "NeuroScreen", tag.ManufacturerModelName: "NeuroScreen",
		tag.DeviceSerialNumber: "0", tag.SoftwareVersions: p.Result.Software.Version,
	}
}

// fits leaves out what DICOM has no room for: shortened, it might be somebody
// else's.
func fits(s string, most int) string {
	if utf8.RuneCountInString(s) > most || strings.ContainsFunc(s, func(r rune) bool { return r == '\\' || unicode.IsControl(r) }) {
		return ""
	}
	return s
}

// sources names the images that were measured, where the post did.
func sources(p report.Page) []attributes {
	uids := p.Metadata.SOPInstanceUIDs
	class := mrStorage
	if len(uids) == 1 {
		class = enhancedMRStorage // a volume in one object
	}
	out := make([]attributes, len(uids))
	for i, id := range uids {
		out[i] = attributes{tag.ReferencedSOPClassUID: class, tag.ReferencedSOPInstanceUID: id}
	}
	return out
}

// code is a concept of a coding scheme.
type code struct{ value, scheme, meaning string }

func (c code) item() []attributes {
	return []attributes{{tag.CodeValue: c.value, tag.CodingSchemeDesignator: c.scheme, tag.CodeMeaning: c.meaning}}
}

func dcm(value, meaning string) code    { return code{value, "DCM", meaning} }
func snomed(value, meaning string) code { return code{value, "SCT", meaning} }

// own names a concept that no public scheme has.
func own(value, meaning string) code { return code{value, "99NEUROSCREEN", meaning} }

// decimal writes a number in the 16 characters that DICOM has for one.
func decimal(v float64) string {
	const most = 16
	s := strconv.FormatFloat(v, 'f', -1, 64)
	for digits := most; len(s) > most; digits-- {
		s = strconv.FormatFloat(v, 'g', digits, 64)
	}
	return s
}

func decimals(values ...float64) []string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = decimal(v)
	}
	return out
}
