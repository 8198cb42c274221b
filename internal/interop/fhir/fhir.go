// Package fhir writes a result as FHIR R4 (4.0.1), for systems that file
// measurements: one collection with a diagnostic report, an observation for each
// number and, where a score has a probability, a risk assessment.
package fhir

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	r4 "github.com/samply/golang-fhir-models/fhir-models/fhir"

	"neuroscreen"
	"neuroscreen/internal/anatomy"
	"neuroscreen/internal/qc"
	"neuroscreen/internal/report"
	"neuroscreen/internal/words"
)

// Code systems.
const (
	snomed         = "http://snomed.info/sct"
	dicom          = "http://dicom.nema.org/resources/ontology/DCM"
	loinc          = "http://loinc.org"
	radlex         = "http://www.radlex.org"
	ucum           = "http://unitsofmeasure.org"
	interpretation = "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation"
	category       = "http://terminology.hl7.org/CodeSystem/observation-category"
	rangeMeaning   = "http://terminology.hl7.org/CodeSystem/referencerange-meaning"
	absent         = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
	identifierType = "http://terminology.hl7.org/CodeSystem/v2-0203"

	laterality = "http://hl7.org/fhir/StructureDefinition/observation-structureLaterality"
)

// entries have addresses that follow from the result, so that the same result is
// always the same bundle.
var entries = uuid.MustParse("3f0e7a52-58f5-4d7c-9a52-6d2f1c3c9a10")

// Write writes the bundle of a result. What does not stand, since it was
// rejected, withdrawn or replaced, has the status entered-in-error throughout;
// what nobody has accepted yet is preliminary.
func Write(w io.Writer, p report.Page) error {
	b := builder{page: p, status: status(p)}
	b.patient = b.add("patient", b.subject())
	b.device = b.add("device", b.software())
	if study, ok := b.study(); ok {
		b.images = []r4.Reference{b.add("study", study)}
	}
	b.result("quality", b.quality())
	if age := p.Metadata.AgeYears; age != nil {
		o := b.observation(concept("Age at the scan", coding(loinc, "30525-0", "Age")))
		o.ValueQuantity = quantity(*age, "a", "years")
		b.result("age", o)
	}
	if icv := p.Result.IntracranialVolumeMM3; icv != nil {
		o := b.volume(*icv)
		o.BodySite = ptr(concept("Cranial cavity", coding(snomed, "1101003", "Cranial cavity")))
		b.result("icv", o)
	}
	for _, v := range p.Result.Volumes {
		b.result(v.Structure, b.structure(v))
	}
	for _, i := range p.Result.Indices {
		b.result(i.Name, b.index(i))
	}
	for n, s := range p.Result.Scores {
		b.score(n, s)
	}
	b.add("report", b.report())
	if b.err != nil {
		return b.err
	}
	// The report is what the rest belongs to: it comes first.
	last := len(b.entry) - 1
	bundle := r4.Bundle{
		Type: r4.BundleTypeCollection, Timestamp: instant(p.Created),
		Identifier: &r4.Identifier{System: ptr("urn:ietf:rfc:3986"), Value: ptr("urn:uuid:" + b.id("bundle"))},
		Entry:      append([]r4.BundleEntry{b.entry[last]}, b.entry[:last]...),
	}
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	return e.Encode(bundle)
}

// builder collects the resources of a bundle.
type builder struct {
	page    report.Page
	status  r4.ObservationStatus
	patient r4.Reference
	device  r4.Reference
	images  []r4.Reference // the study, if it is known
	results []r4.Reference
	entry   []r4.BundleEntry
	err     error
}

func (b *builder) id(name string) string {
	return uuid.NewSHA1(entries, []byte(fmt.Sprintf("%s/%d/%s", b.page.Result.ScanID, b.page.Version, name))).String()
}

// add puts a resource into the bundle.
func (b *builder) add(name string, resource any) r4.Reference {
	raw, err := json.Marshal(resource)
	if err != nil && b.err == nil {
		b.err = fmt.Errorf("fhir: %s: %w", name, err)
	}
	url := "urn:uuid:" + b.id(name)
	b.entry = append(b.entry, r4.BundleEntry{FullUrl: &url, Resource: raw})
	return r4.Reference{Reference: &url}
}

// result adds an observation that the report names.
func (b *builder) result(name string, o r4.Observation) r4.Reference {
	ref := b.add(name, o)
	b.results = append(b.results, ref)
	return ref
}

func status(p report.Page) r4.ObservationStatus {
	switch r := p.Review; {
	case p.Withdrawn():
		return r4.ObservationStatusEnteredInError
	case r == nil:
		return r4.ObservationStatusPreliminary
	case r.Decision == "accept":
		return r4.ObservationStatusFinal
	}
	return r4.ObservationStatusAmended
}

// reportStatus is the same word among those of reports.
var reportStatus = map[r4.ObservationStatus]r4.DiagnosticReportStatus{
	r4.ObservationStatusEnteredInError: r4.DiagnosticReportStatusEnteredInError,
	r4.ObservationStatusPreliminary:    r4.DiagnosticReportStatusPreliminary,
	r4.ObservationStatusFinal:          r4.DiagnosticReportStatusFinal,
	r4.ObservationStatusAmended:        r4.DiagnosticReportStatusAmended,
}

func (b *builder) subject() r4.Patient {
	m := b.page.Metadata
	p := r4.Patient{Identifier: []r4.Identifier{{Value: &m.SubjectID}}}
	switch m.Sex {
	case neuroscreen.Female:
		p.Gender = ptr(r4.AdministrativeGenderFemale)
	case neuroscreen.Male:
		p.Gender = ptr(r4.AdministrativeGenderMale)
	}
	return p
}

// software is the device that measured, with all that it was made of.
func (b *builder) software() r4.Device {
	s := b.page.Result.Software
	d := r4.Device{
		DeviceName: []r4.DeviceDeviceName{{Name: "NeuroScreen", Type: r4.DeviceNameTypeModelName}},
		Type:       ptr(concept("Software for the measurement of brain MRI")),
		Version:    []r4.DeviceVersion{{Type: ptr(concept("software")), Value: s.Version}},
		Note:       []r4.Annotation{{Text: neuroscreen.IntendedUse}},
	}
	for _, text := range b.page.Reading.Norms {
		d.Note = append(d.Note, r4.Annotation{Text: "Reference values: " + text})
	}
	add := func(kind string, assets ...neuroscreen.Asset) {
		for _, a := range assets {
			d.Version = append(d.Version, r4.DeviceVersion{Type: ptr(concept(kind + " " + a.Name)), Value: "sha256:" + a.SHA256})
		}
	}
	if s.Network.Name != "" {
		add("network", s.Network)
	}
	add("norm", s.Norms...)
	add("model", s.Models...)
	return d
}

// study names the images, where the post did.
func (b *builder) study() (r4.ImagingStudy, bool) {
	m := b.page.Metadata
	if m.StudyInstanceUID == "" {
		return r4.ImagingStudy{}, false
	}
	mr := coding(dicom, "MR", "Magnetic Resonance")
	s := r4.ImagingStudy{
		Identifier: []r4.Identifier{{System: ptr("urn:dicom:uid"), Value: ptr("urn:oid:" + m.StudyInstanceUID)}},
		Status:     r4.ImagingStudyStatusAvailable, Modality: []r4.Coding{mr}, Subject: b.patient, Started: b.scanned(),
	}
	if m.AccessionNumber != "" {
		s.Identifier = append(s.Identifier, r4.Identifier{Type: ptr(concept("", coding(identifierType, "ACSN", "Accession ID"))), Value: &m.AccessionNumber})
	}
	if m.SeriesInstanceUID != "" {
		s.Series = []r4.ImagingStudySeries{{Uid: m.SeriesInstanceUID, Modality: mr}}
	}
	return s, true
}

// scanned is the day of the scan, if it is known.
func (b *builder) scanned() *string {
	if b.page.Metadata.ScanDate == "" {
		return nil
	}
	return ptr(b.page.Metadata.ScanDate)
}

func (b *builder) observation(code r4.CodeableConcept) r4.Observation {
	return r4.Observation{
		Status: b.status, Code: code, Subject: &b.patient, Device: &b.device, PartOf: b.images,
		Category:          []r4.CodeableConcept{concept("", coding(category, "imaging", "Imaging"))},
		EffectiveDateTime: b.scanned(), Issued: instant(b.page.Created),
	}
}

// quality of the images, on which all the rest depends.
func (b *builder) quality() r4.Observation {
	quality := b.page.Result.QC
	o := b.observation(concept("Image quality"))
	rated := map[neuroscreen.Verdict]r4.Coding{
		neuroscreen.VerdictPass:   coding(radlex, "RID12", "Diagnostic quality"),
		neuroscreen.VerdictReview: coding(radlex, "RID13", "Limited quality"),
		neuroscreen.VerdictRefuse: coding(radlex, "RID14", "Non-diagnostic quality"),
	}
	o.ValueCodeableConcept = ptr(concept(string(quality.Verdict), rated[quality.Verdict]))
	for _, r := range quality.Reasons {
		o.Note = append(o.Note, r4.Annotation{Text: r.Text})
	}
	return o
}

func (b *builder) volume(mm3 float64) r4.Observation {
	o := b.observation(concept("Volume", coding(snomed, "118565006", "Volume")))
	o.ValueQuantity = quantity(mm3, "mm3", "mm3")
	o.Method = ptr(concept("Automatic segmentation, sum of its voxels"))
	if b.page.Result.QC.Has(qc.TemplateSpace) {
		o.Note = []r4.Annotation{{Text: "The image lies in a template's space: this size may be the template's, not the patient's."}}
	}
	return o
}

// structure is a volume with its error and with what its peers have.
func (b *builder) structure(v neuroscreen.Volume) r4.Observation {
	o := b.volume(v.MM3)
	s, _ := anatomy.ByLabel(v.Label)
	system := snomed
	if s.SCT == anatomy.VentralDC {
		system = dicom
	}
	site := concept(words.Structure(v.Structure), r4.Coding{System: &system, Code: &s.SCT, Display: ptr(words.Structure(anatomy.Bare(s.Name)))})
	switch s.Side {
	case anatomy.Left:
		site.Extension = side("7771000", "Left")
	case anatomy.Right:
		site.Extension = side("24028007", "Right")
	}
	o.BodySite = &site
	o.Component = append(o.Component, component(concept("Standard error of measurement"), quantity(v.StandardErrorMM, "mm3", "mm3")))
	optional := func(code r4.CodeableConcept, v *float64, unit, display string) {
		if v != nil {
			o.Component = append(o.Component, component(code, quantity(*v, unit, display)))
		}
	}
	optional(concept("Share of the intracranial volume"), v.PercentICV, "%", "%")
	optional(concept("Expected volume by the norm"), v.ExpectedMM3, "mm3", "mm3")
	optional(concept("z-score", coding(dicom, "121416", "Z-Score of measurement")), v.Z, "1", "standard deviations")
	if v.Z != nil && v.ZCI95 != nil {
		o.Component = append(o.Component, interval("95 % confidence interval of the z-score", *v.ZCI95, "1", "standard deviations"))
	}
	optional(concept("Percentile", coding(dicom, "121415", "Percentile Ranking of measurement")), v.Percentile, "1", "percentile")
	if v.Z != nil && v.P5MM3 != nil && v.P95MM3 != nil {
		o.ReferenceRange = []r4.ObservationReferenceRange{{
			Low: quantity(*v.P5MM3, "mm3", "mm3"), High: quantity(*v.P95MM3, "mm3", "mm3"), Type: ptr(concept("", coding(rangeMeaning, "normal", "Normal Range"))),
			Text: ptr("5th to 95th percentile of healthy people of this age and head size and, where the norm has a term for it, this sex"),
		}}
		// A volume without a z was compared with nobody, and is not normal for it.
		in := coding(interpretation, "N", "Normal")
		switch v.Outlying() {
		case "low":
			in = coding(interpretation, "L", "Low")
		case "high":
			in = coding(interpretation, "H", "High")
		}
		o.Interpretation = []r4.CodeableConcept{concept("", in)}
	}
	if v.LeftOut {
		o.Status = r4.ObservationStatusEnteredInError
		o.Note = append(o.Note, r4.Annotation{Text: "A reviewer left this volume out: it is not to be used, and no score rests on it."})
	}
	return o
}

func side(code, display string) []r4.Extension {
	return []r4.Extension{{Url: laterality, ValueCodeableConcept: ptr(concept("", coding(snomed, code, display)))}}
}

func (b *builder) index(i neuroscreen.Index) r4.Observation {
	o := b.observation(concept(words.Structure(i.Name)))
	o.ValueQuantity = quantity(i.Value, "1", "")
	if strings.HasSuffix(i.Name, "_percent") {
		o.ValueQuantity = quantity(i.Value, "%", "%")
	}
	if i.CI95 != nil {
		o.Component = append(o.Component, interval("95 % confidence interval", *i.CI95, *o.ValueQuantity.Code, ""))
	}
	if r := i.Reference; r != nil {
		o.ReferenceRange = []r4.ObservationReferenceRange{{Low: quantity(r[0], *o.ValueQuantity.Code, ""), High: quantity(r[1], *o.ValueQuantity.Code, "")}}
	}
	return o
}

// score is a likelihood ratio with what it rests on; where there is a prior, a
// risk assessment says the probability with it.
func (b *builder) score(n int, s neuroscreen.Score) {
	said := b.page.Said(n)
	name := fmt.Sprintf("score/%d", n)
	o := b.observation(concept("Likelihood ratio: " + said.Title))
	o.Method = ptr(concept("Model " + s.Model + ", evidence: " + string(s.Evidence)))
	limits := []string{said.Text, "Fitted on: " + said.Cohort, said.Performance, said.Limits, s.IntendedUse}
	for _, text := range limits {
		if text != "" && text != "Fitted on: " {
			o.Note = append(o.Note, r4.Annotation{Text: text})
		}
	}
	if s.Abstained != nil || s.LikelihoodRatio == nil {
		o.DataAbsentReason = ptr(concept("", coding(absent, "not-performed", "Not Performed")))
		if s.Abstained != nil {
			o.DataAbsentReason.Text = s.Abstained
		}
		b.result(name, o)
		return
	}
	o.ValueQuantity = quantity(*s.LikelihoodRatio, "1", "")
	o.Interpretation = []r4.CodeableConcept{concept("flag: " + string(s.Flag))}
	if s.CI95 != nil {
		o.Component = append(o.Component, interval("95 % confidence interval", *s.CI95, "1", ""))
	}
	observed := b.result(name, o)
	if s.Prior == nil || s.Posterior == nil || said.Cohort == "" {
		return // no probability without what it rests on
	}
	b.add("risk/"+name, r4.RiskAssessment{
		Status: b.status, Subject: b.patient, Performer: &b.device, Basis: []r4.Reference{observed}, Method: o.Method,
		OccurrenceDateTime: b.scanned(),
		Prediction: []r4.RiskAssessmentPrediction{{
			Outcome: ptr(concept(said.Title)), ProbabilityDecimal: number(*s.Posterior),
			Rationale: ptr(strings.TrimSpace(fmt.Sprintf("From a prior probability of %v and a likelihood ratio of %s; probabilities lie between 0 and 1. Fitted on: %s %s %s",
				number(*s.Prior), words.Ratio(*s.LikelihoodRatio), said.Cohort, said.Performance, said.Limits))),
		}},
		Note: []r4.Annotation{{Text: s.IntendedUse}},
	})
}

func (b *builder) report() r4.DiagnosticReport {
	p := b.page
	r := r4.DiagnosticReport{
		Identifier: []r4.Identifier{{System: ptr("urn:ietf:rfc:3986"), Value: ptr("urn:uuid:" + p.Result.ScanID)}},
		Status:     reportStatus[b.status], Subject: &b.patient, Result: b.results, ImagingStudy: b.images,
		Category: []r4.CodeableConcept{concept("", coding("http://terminology.hl7.org/CodeSystem/v2-0074", "RAD", "Radiology"))},
		Code:     concept("Measurement of a brain MRI", coding(dicom, "126000", "Imaging Measurement Report"), coding(loinc, "24590-2", "MR Brain")),

		EffectiveDateTime: b.scanned(), Issued: instant(p.Created),
	}
	if p.Review != nil && b.status != r4.ObservationStatusEnteredInError {
		r.ResultsInterpreter = []r4.Reference{{Display: &p.Review.By}}
	}
	headline, text := p.Decision()
	said := []string{headline, text, "Image quality: " + string(p.Result.QC.Verdict) + "."}
	said = append(said, p.Reading.Conclusions()...)
	if p.Result.FMRI != nil {
		said = append(said, "What was measured of a BOLD run is in the result document.")
	}
	r.Conclusion = ptr(strings.Join(append(said, neuroscreen.IntendedUse), "\n"))
	return r
}

func ptr[T any](v T) *T { return &v }

func coding(system, code, display string) r4.Coding {
	return r4.Coding{System: &system, Code: &code, Display: &display}
}

func concept(text string, codings ...r4.Coding) r4.CodeableConcept {
	c := r4.CodeableConcept{Coding: codings}
	if text != "" {
		c.Text = &text
	}
	return c
}

func number(v float64) *json.Number {
	return ptr(json.Number(strconv.FormatFloat(v, 'g', -1, 64)))
}

// quantity in a UCUM unit; the display is for people.
func quantity(v float64, unit, display string) *r4.Quantity {
	q := &r4.Quantity{Value: number(v), System: ptr(ucum), Code: &unit}
	if display != "" {
		q.Unit = &display
	}
	return q
}

func component(code r4.CodeableConcept, q *r4.Quantity) r4.ObservationComponent {
	return r4.ObservationComponent{Code: code, ValueQuantity: q}
}

func interval(text string, v [2]float64, unit, display string) r4.ObservationComponent {
	return r4.ObservationComponent{Code: concept(text), ValueRange: &r4.Range{Low: quantity(v[0], unit, display), High: quantity(v[1], unit, display)}}
}

func instant(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	return ptr(t.UTC().Format(time.RFC3339))
}
