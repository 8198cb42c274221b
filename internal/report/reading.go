package report

import (
	"fmt"
	"strings"

	"neuroscreen"
	"neuroscreen/internal/anatomy"
	"neuroscreen/internal/words"
)

// ReadingSchema names the version of the Reading.
const ReadingSchema = "neuroscreen.reading/1"

// Reading is what a reader needs beside a result document, kept with it as it
// was when the result was made: a later norm or model must not draw another
// band round an old volume.
type Reading struct {
	Schema     string         `json:"schema"`
	Structures []Structure    `json:"structures"` // of the label map
	Curves     []Curve        `json:"curves"`
	Scores     []ScoreInWords `json:"scores"`        // one for each score of the result, in its order
	Norms      []string       `json:"norms"`         // cohort and limits of the reference values, a paragraph each
	Run        *Run           `json:"run,omitempty"` // of a BOLD run
}

// Structure is how a label is called and drawn.
type Structure struct {
	Structure string `json:"structure"` // FreeSurfer name
	Label     int    `json:"label"`
	Name      string `json:"name"`   // without the side
	Side      string `json:"side"`   // left, right, or "" for the midline
	Colour    string `json:"colour"` // #rrggbb, light enough for a black ground
}

// Structures lists every label that the product draws.
func Structures() []Structure {
	out := make([]Structure, 0, len(anatomy.Structures)-1)
	for _, s := range anatomy.Structures[1:] {
		c := anatomyColour(s.Label)
		out = append(out, Structure{s.Name, s.Label, words.Structure(anatomy.Bare(s.Name)), string(s.Side), fmt.Sprintf("#%02x%02x%02x", c.R, c.G, c.B)})
	}
	return out
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

// ScoreInWords is a score's verdict, and what a reader must know of its
// model before believing it.
type ScoreInWords struct {
	Model       string   `json:"model"`
	Title       string   `json:"title"`
	Headline    string   `json:"headline"`
	Text        string   `json:"text"`
	Features    []string `json:"features,omitzero"` // what each did, strongest first; nil in a reading from before they were kept
	Evidence    string   `json:"evidence"`
	Cohort      string   `json:"cohort"`          // on whom the model was fitted
	Performance string   `json:"performance"`     // how well it tells people apart that it never saw
	Limits      string   `json:"limits"`          // when not to believe it
	Short       *Short   `json:"short,omitempty"` // nil in a reading from before it was kept
}

// Short is the first of what is to be said of a score, for where there is no
// room for all of it.
type Short struct {
	Text        string `json:"text"` // the likelihood ratio
	Cohort      string `json:"cohort"`
	Performance string `json:"performance"`
	Limits      string `json:"limits"`
}

// short is the short form, which is the whole where none was kept.
func (s ScoreInWords) short() Short {
	if s.Short != nil {
		return *s.Short
	}
	return Short{s.Text, s.Cohort, s.Performance, s.Limits}
}

// Said is what the reading says of score n of the result, for systems that file
// each score by itself: of one that stands beside the score that decides, the
// title names pattern and model.
func (p Page) Said(n int) ScoreInWords {
	s, scores := p.Result.Scores[n], p.Reading.Scores
	said := ScoreInWords{Title: string(s.Condition)}
	if n < len(scores) {
		said = scores[n]
	}
	if decides := neuroscreen.Deciding(p.Result.Scores, s.Condition); decides < n && decides < len(scores) {
		said.Title = fmt.Sprintf("%s, by %s", scores[decides].Title, s.Model)
	}
	if s.Side != nil {
		said.Title += ", " + *s.Side
	}
	return said
}

// Conclusions say in a line each what the scores that decide came to.
func (r Reading) Conclusions() (out []string) {
	for _, s := range r.Scores {
		if s.Headline != "" { // else it stands beside one that decides
			out = append(out, s.Title+": "+strings.TrimSuffix(s.Headline, ".")+".")
		}
	}
	return out
}

// InWords words the scores of a result that was just made.
func InWords(scores []neuroscreen.Score) []ScoreInWords {
	out := make([]ScoreInWords, len(scores))
	for n, s := range scores {
		v := scoreOf(s, ScoreInWords{})
		if neuroscreen.Deciding(scores, s.Condition) != n {
			v = besideOf(s, ScoreInWords{})
		}
		out[n] = ScoreInWords{Model: s.Model, Title: v.Title, Headline: v.Headline, Text: v.Text, Features: sentences(s.Explanation.Features), Evidence: evidenceWords[s.Evidence], Short: &Short{}}
		if s.LikelihoodRatio != nil {
			out[n].Short.Text = likelihoodWords(*s.LikelihoodRatio)
		}
	}
	return out
}
