package report

// ReadingSchema names the version of the Reading.
const ReadingSchema = "neuroscreen.reading/1"

// Reading is what a reader needs beside a result document, kept with it as it
// was when the result was made: a later norm or model must not draw another
// band round an old volume.
type Reading struct {
	Schema string         `json:"schema"`
	Curves []Curve        `json:"curves"`
	Scores []ScoreInWords `json:"scores"` // one for each score of the result, in its order
	Norms  []string       `json:"norms"`  // cohort and limits of the reference values, a paragraph each
}

// Curve is the reference interval of one structure over age, at the patient's
// sex and head size, in mm3.
type Curve struct {
	Structure string       `json:"structure"` // FreeSurfer name
	Points    []CurvePoint `json:"points"`
}

// CurvePoint of a Curve.
type CurvePoint struct {
	AgeYears float64 `json:"age_years"`
	P5       float64 `json:"p5_mm3"`
	P50      float64 `json:"p50_mm3"`
	P95      float64 `json:"p95_mm3"`
}

// ScoreInWords is a score's explanation, and what a reader must know of its
// model before believing it.
type ScoreInWords struct {
	Model       string   `json:"model"`
	Reasons     []string `json:"reasons"`
	WouldChange []string `json:"would_change"`
	Uncertain   []string `json:"uncertain"`
	Cohort      string   `json:"cohort"`      // on whom the model was fitted
	Performance string   `json:"performance"` // how well it tells people apart that it never saw
	Limits      string   `json:"limits"`      // when not to believe it
}
