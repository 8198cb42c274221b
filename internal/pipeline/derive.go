package pipeline

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"neuroscreen"
	"neuroscreen/internal/model"
	"neuroscreen/internal/nifti"
	"neuroscreen/internal/norm"
	"neuroscreen/internal/report"
	"neuroscreen/internal/volume"
)

// drawing makes the files that show the labels: the label map and the picture.
type drawing struct {
	work                  errgroup.Group
	segmentation, preview []byte
}

// draw begins to make them; they are there after wait. The label map has the
// geometry of the scan's file.
func draw(image *volume.Volume, geometry nifti.Geometry, l *volume.Labels) *drawing {
	d := &drawing{}
	d.work.Go(func() error {
		var labels bytes.Buffer
		if err := nifti.Write(&labels, geometry, l.Data); err != nil {
			return fmt.Errorf("segmentation: %w", err)
		}
		d.segmentation = labels.Bytes()
		return nil
	})
	d.work.Go(func() (err error) {
		if d.preview, err = report.Preview(image, l); err != nil {
			return fmt.Errorf("preview: %w", err)
		}
		return nil
	})
	return d
}

func (d *drawing) wait() error { return d.work.Wait() }

// Report is the page of a result, as of a date.
func (o *Output) Report(m neuroscreen.Metadata, created time.Time) ([]byte, error) {
	page := report.Page{Result: o.Result, Metadata: m, Created: created, Preview: o.Preview, Reading: o.Reading}
	for _, f := range o.Files {
		if f.Name == MapsFile {
			page.Maps = f.Bytes
		}
	}
	var html bytes.Buffer
	if err := report.HTML(&html, page); err != nil {
		return nil, fmt.Errorf("report: %w", err)
	}
	return html.Bytes(), nil
}

// curveStep is the distance in years between the points of a curve.
const curveStep = 2

// reading draws the reference of every structure over age and puts the scores
// in words.
func (s scorer) reading(r *neuroscreen.Result, f model.Features) (report.Reading, error) {
	out := report.Reading{Schema: report.ReadingSchema, Structures: report.Structures(), Curves: []report.Curve{}, Scores: []report.ScoreInWords{}}
	compared := 0
	for _, v := range r.Volumes {
		if v.Z != nil {
			compared++
		}
		if v.ExpectedMM3 == nil || v.LeftOut {
			continue // the result says why
		}
		points, err := s.norms.Curve(v.Structure, f.Person, f.Calibration, norm.MinAge, norm.MaxAge, curveStep)
		if err != nil {
			return out, fmt.Errorf("curve of %s: %w", v.Structure, err)
		}
		c := report.Curve{Structure: v.Structure}
		for _, p := range points {
			c.Points = append(c.Points, report.CurvePoint{AgeYears: p.AgeYears, P5: rounded(p.P5MM3), P50: rounded(p.ExpectedMM3), P95: rounded(p.P95MM3)})
		}
		out.Curves = append(out.Curves, c)
	}
	out.Norms = aboutNorms(compared)
	cards := map[string]model.Card{}
	for _, c := range s.models.Cards() {
		cards[c.Name] = c
	}
	for _, words := range report.InWords(r.Scores) {
		if card, ok := cards[words.Model]; ok {
			if err := shortCard(&words, card); err != nil {
				return out, err
			}
		}
		out.Scores = append(out.Scores, words)
	}
	return out, nil
}

// rounded to a tenth of a mm3, far below what a drawing shows.
func rounded(mm3 float64) float64 { return math.Round(10*mm3) / 10 }

// aboutNorms says in the report whom how many volumes are compared with.
func aboutNorms(volumes int) []string {
	return []string{
		"Reference values: NOMIS (Potvin, Dieumegarde and Duchesne 2021, doi:10.1101/2021.01.25.428063), healthy adults of 18 to 100 years measured with FreeSurfer 6.0.",
		"Hippocampi, lateral ventricles, cerebellum and the right pallidum are compared for age and head size only; the others for sex too. Scanner and field strength are not adjusted for: " +
			"until a site has measured 20 healthy people of its own, the spread between sites widens every interval.",
		fmt.Sprintf("Of the %d volumes with a reference, 1 in 20 lies below the 5th and 1 in 20 above the 95th percentile in healthy people: one or two marked structures alone mean little.", volumes),
	}
}

// shortCard brings a model's card to the lines that fit beside its score.
func shortCard(words *report.ScoreInWords, c model.Card) error {
	var body struct {
		TrainedOn struct {
			Cohort, Age, Country, Scanner string
			Cases, Controls               int
		} `json:"trained_on"`
		Performance struct {
			AUC             float64   `json:"auc"`
			CI95            []float64 `json:"ci95"`
			AUCIfNormal     float64   `json:"auc_if_normal"`
			AUCIfNormalCI95 []float64 `json:"auc_if_normal_ci95"`
			Validation      string    `json:"validation"`
			OutsideCheck    *struct {
				AUC             float64
				CI95            [2]float64
				Cases, Controls int
			} `json:"outside_check"`
		} `json:"performance"`
		Limits []string `json:"limits"`
	}
	if err := json.Unmarshal(c.Body, &body); err != nil {
		return fmt.Errorf("card of %s: %w", c.Name, err)
	}
	on, p := body.TrainedOn, body.Performance
	who := strings.TrimPrefix(on.Cohort, "none: ")
	cohort := fmt.Sprintf("%s; %d with the condition, %d without", who, on.Cases, on.Controls)
	for _, more := range []string{on.Age, on.Country, on.Scanner} {
		if more != "" {
			cohort += "; " + more
		}
	}
	performance := p.Validation
	switch {
	case p.AUC > 0 && len(p.CI95) == 2:
		performance = fmt.Sprintf("AUC %.2f (95 %% interval %.2f to %.2f); %s", p.AUC, p.CI95[0], p.CI95[1], p.Validation)
	case p.AUCIfNormal > 0 && len(p.AUCIfNormalCI95) == 2:
		// The short form ends at the first semicolon, and must hold what was counted on people.
		counted := "AUC counted on no one"
		if o := p.OutsideCheck; o != nil {
			counted = fmt.Sprintf("AUC %.2f (95 %% interval %.2f to %.2f) on %d cases and %d controls", o.AUC, o.CI95[0], o.CI95[1], o.Cases, o.Controls)
		}
		performance = fmt.Sprintf("%s, %.2f (%.2f to %.2f) by the effects if both groups are normal; %s",
			counted, p.AUCIfNormal, p.AUCIfNormalCI95[0], p.AUCIfNormalCI95[1], p.Validation)
	}
	words.Cohort, words.Performance, words.Limits = sentence(cohort), sentence(performance), sentence("limits: "+strings.Join(body.Limits, "; "))
	figure, _, _ := strings.Cut(performance, "; ")
	words.Short.Cohort, words.Short.Performance, words.Short.Limits = sentence(who), sentence(figure), sentence("limits: "+strings.Join(body.Limits[:min(1, len(body.Limits))], ""))
	return nil
}

func sentence(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:] + "."
}
