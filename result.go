package neuroscreen

import (
	"slices"
	"time"
)

// ResultSchema names the version of the result document.
const ResultSchema = "neuroscreen.result/1"

// Result is the document that one analysis of one scan produces. It is stored
// as a version and never changed afterwards.
//
// Units: volumes mm3, lengths mm, ages years, times ms. Likelihood ratios are
// for the condition against its absence. Contributions sum exactly:
// ln(LikelihoodRatio) = Intercept + sum of LogLR, and
// logit(Posterior) = logit(Prior) + ln(LikelihoodRatio), each to 1e-9.
type Result struct {
	Schema                string             `json:"schema"`
	ScanID                string             `json:"scan_id"`
	SubjectID             string             `json:"subject_id"`
	Modality              Modality           `json:"modality"`
	Input                 Input              `json:"input"`
	Software              Software           `json:"software"`
	Settings              any                `json:"settings"`            // of the site, with defaults filled in: thresholds and priors behind flags and posteriors
	SettingsVersion       int                `json:"settings_version"`    // of the site's settings; 0 when none were stored
	Amendment             *Amendment         `json:"amendment,omitempty"` // what reviewers left out; nil while nobody did
	QC                    QC                 `json:"qc"`
	IntracranialVolumeMM3 *float64           `json:"intracranial_volume_mm3"`
	Volumes               []Volume           `json:"volumes"`
	Indices               []Index            `json:"indices"`
	Scores                []Score            `json:"scores"`
	FMRI                  *FMRI              `json:"fmri,omitempty"` // of a BOLD run
	TimingsMS             map[string]float64 `json:"timings_ms"`
}

// Amendment says what reviewers left out of a result, and which one it was
// scored from. Names and comments stand with the decisions: here they would
// lie in the clear.
type Amendment struct {
	// FromVersion is the version whose measurements were scored anew; 0 when
	// the scan itself was analysed again since.
	FromVersion int       `json:"from_version,omitempty"`
	LeftOut     []LeftOut `json:"left_out"`
}

// LeftOut is a structure whose volume is shown and used for nothing.
type LeftOut struct {
	Structure string    `json:"structure"` // FreeSurfer name
	Decision  int       `json:"decision"`  // number of the reviewer's decision on the scan
	By        string    `json:"by"`        // id of the reviewer's key
	At        time.Time `json:"at"`
}

// Structures lists the names of what is left out.
func (a *Amendment) Structures() []string {
	if a == nil {
		return nil
	}
	names := make([]string, len(a.LeftOut))
	for i, l := range a.LeftOut {
		names[i] = l.Structure
	}
	return names
}

// Input describes the received bytes and their grid.
type Input struct {
	SHA256      string     `json:"sha256"`      // hex, of the bytes as received
	Shape       []int      `json:"shape"`       // voxels, in storage order i, j, k (, t)
	VoxelMM     [3]float64 `json:"voxel_mm"`    // along i, j, k
	Orientation string     `json:"orientation"` // of i, j, k, e.g. "RAS"
	DType       string     `json:"dtype"`
}

// Asset is a named file that took part, with its hash.
type Asset struct {
	Name   string `json:"name"`
	SHA256 string `json:"sha256"`
}

// Software says exactly what computed the result.
type Software struct {
	Version string  `json:"version"`
	Kernel  string  `json:"kernel"` // "avx512", "avx2" or "generic"
	Network Asset   `json:"network"`
	Norms   []Asset `json:"norms"`
	Models  []Asset `json:"models"`
}

// Verdict of quality control.
type Verdict string

const (
	VerdictPass   Verdict = "pass"
	VerdictReview Verdict = "review"
	VerdictRefuse Verdict = "refuse"
)

// QC holds the verdict, its reasons and the metrics behind it.
type QC struct {
	Verdict Verdict            `json:"verdict"`
	Reasons []Reason           `json:"reasons"`
	Metrics map[string]float64 `json:"metrics"`
}

// Has reports whether a reason has this code.
func (q QC) Has(code string) bool {
	return slices.ContainsFunc(q.Reasons, func(r Reason) bool { return r.Code == code })
}

// Volume of one structure beside what its peers have. The norm's fields are
// null where the norm does not reach (age, head size, structure).
type Volume struct {
	Structure       string      `json:"structure"` // FreeSurfer name, e.g. "Left-Hippocampus"
	Label           int         `json:"label"`     // FreeSurfer label, e.g. 17
	MM3             float64     `json:"mm3"`
	StandardErrorMM float64     `json:"standard_error_mm3"`
	BiasErrorMM     float64     `json:"bias_error_mm3"` // part of the standard error that is the network's own and cancels between sides and between visits
	PercentICV      *float64    `json:"percent_icv"`
	ExpectedMM3     *float64    `json:"expected_mm3"`
	P5MM3           *float64    `json:"p5_mm3"`
	P95MM3          *float64    `json:"p95_mm3"`
	Z               *float64    `json:"z"`
	ZCI95           *[2]float64 `json:"z_ci95"`
	Percentile      *float64    `json:"percentile"`
	LeftOut         bool        `json:"left_out,omitempty"` // by a reviewer: without z, and used for nothing
}

// Outlying says on which side of the reference interval a volume lies: "low"
// under the 5th percentile, "high" over the 95th, "" between them or without
// a reference.
func (v Volume) Outlying() string {
	const z90 = 1.6448536269514722 // of the 95th percentile
	switch {
	case v.Z == nil:
		return ""
	case *v.Z < -z90:
		return "low"
	case *v.Z > z90:
		return "high"
	}
	return ""
}

// Index is a derived number with its reference interval.
type Index struct {
	Name      string      `json:"name"`
	Value     float64     `json:"value"`
	CI95      *[2]float64 `json:"ci95"` // from measurement and test-retest; null where it was not worked out
	Reference *[2]float64 `json:"reference"`
}

// Condition names a pattern that is scored.
type Condition string

const (
	Alzheimers              Condition = "alzheimers"
	Parkinsons              Condition = "parkinsons"
	MesialTemporalSclerosis Condition = "mesial_temporal_sclerosis"
)

// Conditions in the order in which they are reported.
var Conditions = []Condition{Alzheimers, Parkinsons, MesialTemporalSclerosis}

// Flag is what a score asks of the reader.
type Flag string

const (
	FlagNone    Flag = "none"
	FlagReview  Flag = "review"
	FlagFlagged Flag = "flagged"
)

// Evidence class of a score.
type Evidence string

const (
	ExternalCohort   Evidence = "external-cohort"
	PublishedEffects Evidence = "published-effects"
	Experimental     Evidence = "experimental"
)

// Score of one pattern. An abstained score carries the reason in Abstained,
// no likelihood ratio, no posterior and flag "none".
type Score struct {
	Condition       Condition      `json:"condition"`
	Model           string         `json:"model"` // name of the model's card; a condition may have several scores, the first decides
	Side            *string        `json:"side"`  // "left", "right" or null
	Evidence        Evidence       `json:"evidence"`
	LikelihoodRatio *float64       `json:"likelihood_ratio"`
	CI95            *[2]float64    `json:"ci95"`
	Prior           *float64       `json:"prior"`
	Posterior       *float64       `json:"posterior"`
	Flag            Flag           `json:"flag"`
	Abstained       *string        `json:"abstained"`
	AbstainedType   string         `json:"abstained_type,omitempty"` // StructureExcluded, DoubtfulQuality or empty
	Without         []string       `json:"without,omitempty"`        // structures that it rests on and a reviewer left out
	Intercept       float64        `json:"intercept"`
	Contributions   []Contribution `json:"contributions"`
	IntendedUse     string         `json:"intended_use"`
	Conformal       *ConformalSet  `json:"conformal"` // null where the model has none
	Explanation     Explanation    `json:"explanation"`
}

// Deciding is the index of the score that decides on a condition, which is its
// first; -1 if it has none. The others stand beside it.
func Deciding(scores []Score, c Condition) int {
	return slices.IndexFunc(scores, func(s Score) bool { return s.Condition == c })
}

// StructureExcluded is the type of an abstention: a reviewer left out what the
// score needs, and Without names it.
const StructureExcluded = "structure-excluded"

// DoubtfulQuality is the type of an abstention: the image's quality is in doubt,
// and the measurement's error decides whether anything is flagged.
const DoubtfulQuality = "doubtful-quality"

// ConformalSet says which of case and control a score can't exclude at an
// error rate that holds within each class.
type ConformalSet struct {
	ErrorRate float64 `json:"error_rate"`
	Set       string  `json:"set"`       // "case", "control", "both" or "neither"
	Validated bool    `json:"validated"` // coverage was counted on this segmenter's volumes
	Text      string  `json:"text"`
}

// Explanation is a score in words, for a clinician.
type Explanation struct {
	Features    []string `json:"-"`            // those of the reasons that tell of one feature, strongest first; the reading keeps them
	Reasons     []string `json:"reasons"`      // what each feature did, strongest first, then all together
	WouldChange []string `json:"would_change"` // the smallest single change that would move the flag
	Uncertain   []string `json:"uncertain"`    // what is missing, doubtful or out of sight
}

// Contribution of one feature to ln(likelihood ratio).
type Contribution struct {
	Feature string   `json:"feature"` // a structure, or one of the features that are none
	Value   float64  `json:"value"`   // mm3 of a structure
	Z       *float64 `json:"z"`
	LogLR   float64  `json:"log_lr"`
}

// IntendedUse goes with every score, report and page.
const IntendedUse = "Research use. Automatic labelling and volumetric measurement of a T1-weighted brain MRI " +
	"compared with published reference values, for review by a qualified physician together with the source images."
