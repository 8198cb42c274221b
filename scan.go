package neuroscreen

import "time"

// Sex is F or M, as norms and models are fitted on.
type Sex string

const (
	Female Sex = "F"
	Male   Sex = "M"
)

// Modality of a posted scan.
type Modality string

const (
	T1w  Modality = "T1w"
	BOLD Modality = "bold"
)

// Metadata is what a client says of a scan. Posted identifiers (SubjectID,
// AccessionNumber, the DICOM UIDs) leave the intake only as pseudonyms and in
// the encrypted link table. BirthDate is used for the age and then dropped.
type Metadata struct {
	SubjectID       string   `json:"subject_id"`
	AgeYears        *float64 `json:"age_years,omitempty"`
	BirthDate       string   `json:"birth_date,omitempty"` // YYYY-MM-DD
	ScanDate        string   `json:"scan_date,omitempty"`  // YYYY-MM-DD
	Sex             Sex      `json:"sex"`                  // empty when not known
	Modality        Modality `json:"modality"`
	Scanner         string   `json:"scanner,omitempty"`
	FieldStrengthT  *float64 `json:"field_strength_t,omitempty"`
	Manufacturer    string   `json:"manufacturer,omitempty"`
	ContrastAgent   *bool    `json:"contrast_agent,omitempty"`
	AccessionNumber string   `json:"accession_number,omitempty"`
	TRSeconds       *float64 `json:"tr_s,omitempty"`
	MMSE            *float64 `json:"mmse,omitempty"`
	EducationYears  *float64 `json:"education_years,omitempty"`
	ConsentResearch *bool    `json:"consent_research,omitempty"`

	StudyInstanceUID    string   `json:"study_instance_uid,omitempty"`
	SeriesInstanceUID   string   `json:"series_instance_uid,omitempty"`
	FrameOfReferenceUID string   `json:"frame_of_reference_uid,omitempty"`
	SOPInstanceUIDs     []string `json:"sop_instance_uids,omitempty"`
}

// Missing says what no analysis can do without and the metadata lack. Who
// posts on a person's behalf is told at once and never gets so far; who posts
// unattended has the scan refused for it, so that somebody sees it.
func (m Metadata) Missing() (rs []Reason) {
	if m.AgeYears == nil {
		rs = append(rs, Reason{Code: "missing-age", Text: "The age at the scan is not known: neither it nor dates that can be right were sent. Correct it here, or at the source and send the scan again."})
	}
	if m.Sex == "" {
		rs = append(rs, Reason{Code: "missing-sex", Text: "The sex is not known, and reference values need it. Correct it here, or at the source and send the scan again."})
	}
	return rs
}

// State of a scan. The first five are the stages of the pipeline in order;
// the last three end it.
type State string

const (
	Received  State = "received"
	Checked   State = "checked"
	Segmented State = "segmented"
	Measured  State = "measured"
	Scored    State = "scored"
	Refused   State = "refused"
	Failed    State = "failed"
	Cancelled State = "cancelled"
)

// Final reports whether no worker will change the state any more.
func (s State) Final() bool {
	return s == Scored || s == Refused || s == Failed || s == Cancelled
}

// StageTime is when a scan reached a state.
type StageTime struct {
	State State     `json:"state"`
	At    time.Time `json:"at"`
}

// Reason explains a refusal, a failure or a quality verdict.
type Reason struct {
	Code  string   `json:"code"`
	Text  string   `json:"text"`
	Value *float64 `json:"value,omitempty"`
	Limit *float64 `json:"limit,omitempty"`
}

// SegmenterNotCalibrated is the code of the reason that what measured the
// volumes was never itself compared with the norm.
const SegmenterNotCalibrated = "segmenter-not-calibrated"

// OfTheNorm reports whether a reason is about the comparison with the norm: it
// then says nothing of the image. The pages have the same list.
func (r Reason) OfTheNorm() bool {
	switch r.Code {
	case SegmenterNotCalibrated, "site-not-calibrated", "site-shift-not-applicable", "site-shift-other-scanner":
		return true
	}
	return false
}

// Role of a key. Admins may do everything at their site.
type Role string

const (
	Uploader   Role = "uploader"
	Clinician  Role = "clinician"
	Researcher Role = "researcher"
	Admin      Role = "admin"
)
