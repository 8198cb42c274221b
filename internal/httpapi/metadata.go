package httpapi

import (
	"bytes"
	"encoding/json"
	"math"
	"reflect"
	"slices"
	"strings"
	"time"

	"neuroscreen"
)

// decodeMetadata reads the metadata part of an upload.
func (s *Server) decodeMetadata(data []byte, lenient bool) (neuroscreen.Metadata, error) {
	var m neuroscreen.Metadata
	if err := validateJSON(data, s.schema("Metadata")); err != nil {
		return m, err
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return m, neuroscreen.Errorf(neuroscreen.CodeInvalid, "invalid-json", "the metadata cannot be read")
	}
	return s.completeMetadata(m, lenient)
}

// queryMetadata takes the metadata of a raw body from the query, where the
// gate has checked each value already.
func (s *Server) queryMetadata(p CreateScanParams) (neuroscreen.Metadata, error) {
	m := neuroscreen.Metadata{
		SubjectID: val(p.SubjectID), AgeYears: p.AgeYears, BirthDate: val(p.BirthDate), ScanDate: val(p.ScanDate),
		Sex: val(p.Sex), Modality: val(p.Modality), Scanner: val(p.Scanner), FieldStrengthT: p.FieldStrengthT,
		Manufacturer: val(p.Manufacturer), ContrastAgent: p.ContrastAgent, AccessionNumber: val(p.AccessionNumber),
		TRSeconds: p.TrS, MMSE: p.Mmse, EducationYears: p.EducationYears, ConsentResearch: p.ConsentResearch,
		StudyInstanceUID: val(p.StudyInstanceUID), SeriesInstanceUID: val(p.SeriesInstanceUID),
		FrameOfReferenceUID: val(p.FrameOfReferenceUID), SOPInstanceUIDs: p.SopInstanceUids,
	}
	return s.completeMetadata(m, lenient(p.Prefer))
}

// lenient reads the header Prefer (RFC 7240). Preferences that are not known
// are none.
func lenient(prefer *string) bool {
	for p := range strings.SplitSeq(val(prefer), ",") {
		if strings.EqualFold(strings.TrimSpace(p), "handling=lenient") {
			return true
		}
	}
	return false
}

// hasMetadata says whether any metadata came in the query.
func hasMetadata(p CreateScanParams) bool {
	p.IdempotencyKey, p.ContentDigest, p.Prefer = nil, nil, nil
	return !reflect.ValueOf(p).IsZero()
}

// completeMetadata checks what a schema cannot and leaves the age set and the
// birth date empty. A lenient one leaves age and sex empty where they are
// missing or cannot be right: the scan is then refused, not the post.
func (s *Server) completeMetadata(m neuroscreen.Metadata, lenient bool) (neuroscreen.Metadata, error) {
	m.SubjectID = strings.TrimSpace(m.SubjectID)
	m.AccessionNumber = strings.TrimSpace(m.AccessionNumber)
	for _, f := range []struct{ name, value string }{
		{"subject_id", m.SubjectID}, {"sex", string(m.Sex)}, {"modality", string(m.Modality)},
	} {
		if f.value == "" && !(lenient && f.name == "sex") {
			return m, missing(f.name, "this field is needed")
		}
	}
	age, err := ageOf(m.AgeYears, m.BirthDate, m.ScanDate, s.cfg.Now())
	switch {
	case err != nil && !lenient:
		return m, err
	case err != nil:
		if asError(err).Field == "scan_date" {
			m.ScanDate = ""
		}
		age = nil
	case age == nil && !lenient:
		return m, missing("age_years", "the age is needed: age_years, or birth_date with scan_date")
	}
	m.AgeYears, m.BirthDate = age, ""
	return m, nil
}

// ageOf returns the age at the scan in years: as given, or from the dates to a
// tenth, so that the birth date cannot be had back from age and scan date; but
// nobody is of age before the birthday, whatever age is given beside the dates.
// It is nil when neither is given.
func ageOf(given *float64, birthDate, scanDate string, now time.Time) (*float64, error) {
	var birth, scan time.Time
	for _, d := range []struct {
		name, value string
		to          *time.Time
	}{{"birth_date", birthDate, &birth}, {"scan_date", scanDate, &scan}} {
		if d.value == "" {
			continue
		}
		t, err := time.Parse(time.DateOnly, d.value)
		if err != nil || t.Year() < 1880 {
			return nil, badDate(d.name, "this is not a date (YYYY-MM-DD)")
		}
		if t.After(now.AddDate(0, 0, 1)) { // a day's grace for time zones
			return nil, badDate(d.name, "this date lies in the future")
		}
		*d.to = t
	}
	if birthDate == "" {
		return given, nil
	}
	if scanDate == "" {
		return nil, missing("scan_date", "birth_date needs scan_date, for the age at the scan")
	}
	if birth.After(scan) {
		return nil, badDate("birth_date", "the birth date lies after the scan date")
	}
	const daysPerYear = 365.2425
	age := math.Round(scan.Sub(birth).Hours()/24/daysPerYear*10) / 10
	minor := scan.Before(birth.AddDate(18, 0, 0))
	if minor {
		age = min(age, 17.9)
	}
	if age > 130 {
		return nil, badDate("birth_date", "the dates give an age over 130 years")
	}
	if given == nil {
		return &age, nil
	}
	if math.Abs(*given-age) > 1 {
		return nil, neuroscreen.FieldErrorf(neuroscreen.CodeInvalid, "age-contradicts-dates", "age_years",
			"age_years differs by more than a year from what birth_date and scan_date give")
	}
	if minor && *given >= 18 {
		return nil, neuroscreen.FieldErrorf(neuroscreen.CodeInvalid, "age-contradicts-dates", "age_years",
			"age_years is 18 or more, but birth_date and scan_date say that the 18th birthday is after the scan; only adults are analysed")
	}
	return given, nil
}

func missing(field, message string) error {
	return neuroscreen.FieldErrorf(neuroscreen.CodeInvalid, "missing-field", field, "%s", message)
}

func badDate(field, message string) error {
	return neuroscreen.FieldErrorf(neuroscreen.CodeInvalid, "invalid-date", field, "%s", message)
}

// metadataDiff names the fields in which the metadata of a repeated post differ
// from the stored ones. The subject is the same, and a scan has any number of
// accession numbers.
func metadataDiff(posted, stored neuroscreen.Metadata) []string {
	fields := func(m neuroscreen.Metadata) map[string]json.RawMessage {
		m.SubjectID, m.AccessionNumber = "", ""
		var out map[string]json.RawMessage
		data, err := json.Marshal(m)
		if err == nil {
			err = json.Unmarshal(data, &out)
		}
		if err != nil {
			panic(err) // Metadata always marshals
		}
		return out
	}
	now, before := fields(posted), fields(stored)
	var names []string
	for name := range now {
		if !bytes.Equal(now[name], before[name]) {
			names = append(names, name)
		}
	}
	for name := range before {
		if _, ok := now[name]; !ok && !strings.Contains(name, "_uid") { // DICOM references need not be repeated
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// val is *p, or the zero value for nil.
func val[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}

// ptr is nil for the zero value, for optional fields.
func ptr[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}
