package pipeline

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"neuroscreen/internal/model"
	"neuroscreen/internal/nifti"
	"neuroscreen/internal/norm"
	"neuroscreen/internal/report"
	"neuroscreen/internal/segment"
	"neuroscreen/internal/volume"
)

// curveStructures are those whose age curve the report shows.
var curveStructures = []string{"Left-Hippocampus", "Right-Hippocampus", "Left-Lateral-Ventricle", "Right-Lateral-Ventricle"}

// derive makes the files that go with a result: label map, picture, report.
func (e *Engine) derive(out *Output, in Input, scan *volume.Volume, seg *segment.Segmentation, person norm.Person, cal norm.Calibration) error {
	var labels bytes.Buffer
	geometry := nifti.Geometry{Shape: scan.Shape[:], Affine: nifti.Affine(scan.Affine), Code: 1}
	if err := nifti.Write(&labels, geometry, seg.Labels.Data); err != nil {
		return fmt.Errorf("segmentation: %w", err)
	}
	out.Segmentation = labels.Bytes()

	var err error
	if out.Preview, err = report.Preview(scan, seg.Labels); err != nil {
		return fmt.Errorf("preview: %w", err)
	}
	page := report.Page{
		Result: out.Result, Metadata: in.Metadata, Created: e.now(), Preview: out.Preview,
		Norms: aboutNorms, Cards: map[string]report.Card{},
	}
	for _, name := range curveStructures {
		points, err := e.norms.Curve(name, person, cal, norm.MinAge, norm.MaxAge, 2)
		if err != nil {
			continue // out of the norm's range: the page says so and shows no curve
		}
		c := report.Curve{Structure: name}
		for _, p := range points {
			c.Points = append(c.Points, report.CurvePoint{AgeYears: p.AgeYears, P5: p.P5MM3, P50: p.ExpectedMM3, P95: p.P95MM3})
		}
		page.Curves = append(page.Curves, c)
	}
	for _, c := range e.models.Cards() {
		card, err := shortCard(c)
		if err != nil {
			return err
		}
		page.Cards[c.Name] = card
	}
	var html bytes.Buffer
	if err := report.HTML(&html, page); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	out.ReportHTML = html.Bytes()
	return nil
}

// aboutNorms says in the report whom a volume is compared with.
var aboutNorms = []string{
	"Reference values: NOMIS (Potvin, Dieumegarde and Duchesne 2021, doi:10.1101/2021.01.25.428063), healthy adults of 18 to 100 years measured with FreeSurfer 6.0.",
	"Hippocampi, lateral ventricles and cerebellum are compared for age and head size only; the others for sex too. Scanner and field strength are not adjusted for: " +
		"until a site has measured 20 healthy people of its own, the spread between sites widens every interval.",
	"Of the 32 structures, 1 in 20 lies below the 5th and 1 in 20 above the 95th percentile in healthy people: one or two marked structures alone mean little.",
}

// shortCard brings a model's card to the lines that fit beside its score.
func shortCard(c model.Card) (report.Card, error) {
	var body struct {
		TrainedOn struct {
			Cohort, Age, Country, Scanner string
			Cases, Controls               int
		} `json:"trained_on"`
		Performance struct {
			AUC         float64   `json:"auc"`
			CI95        []float64 `json:"ci95"`
			AUCIfNormal float64   `json:"auc_if_normal"`
			Validation  string    `json:"validation"`
		} `json:"performance"`
		Limits []string `json:"limits"`
	}
	if err := json.Unmarshal(c.Body, &body); err != nil {
		return report.Card{}, fmt.Errorf("card of %s: %w", c.Name, err)
	}
	on, p := body.TrainedOn, body.Performance
	cohort := fmt.Sprintf("%s; %d with the condition, %d without", strings.TrimPrefix(on.Cohort, "none: "), on.Cases, on.Controls)
	for _, more := range []string{on.Age, on.Country, on.Scanner} {
		if more != "" {
			cohort += "; " + more
		}
	}
	performance := p.Validation
	switch {
	case p.AUC > 0 && len(p.CI95) == 2:
		performance = fmt.Sprintf("AUC %.2f (95 %% interval %.2f to %.2f); %s", p.AUC, p.CI95[0], p.CI95[1], p.Validation)
	case p.AUCIfNormal > 0:
		performance = fmt.Sprintf("AUC %.2f; %s", p.AUCIfNormal, p.Validation)
	}
	return report.Card{Cohort: sentence(cohort), Performance: sentence(performance), Limits: sentence("limits: " + strings.Join(body.Limits, "; "))}, nil
}

func sentence(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:] + "."
}
