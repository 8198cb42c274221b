// Package validate lets a site check the scores on people of its own whose
// condition it knows, and proposes what its calibration should be: a control
// shift of the norm and recalibrations of the models. Nothing is changed until
// an administrator accepts the proposal.
package validate

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math"
	"slices"
	"time"

	"neuroscreen"
	"neuroscreen/internal/model"
	"neuroscreen/internal/norm"
	"neuroscreen/internal/pipeline"
)

// Schemas of what is written.
const (
	ReportSchema   = "neuroscreen.validation/2"
	ProposalSchema = "neuroscreen.proposal/1"
)

// Options of a validation.
type Options struct {
	Settings  pipeline.Settings // that hold at the site now
	Segmenter norm.Segmenter    // of rows with volumes that name none
	Name      string            // of the control shift
	Now       time.Time
	// Measure analyses a scan; nil if the manifest holds volumes only.
	Measure  func(context.Context, Scan) (model.Features, error)
	Progress func(done, of int) // after each scan; may be nil
}

// Report is what the site's people show.
type Report struct {
	Schema     string              `json:"schema"`
	Made       string              `json:"made"` // date
	Manifest   string              `json:"manifest_sha256"`
	Segmenter  norm.Segmenter      `json:"segmenter"`
	Weights    string              `json:"weights_sha256,omitempty"` // of the network, if it measured them here
	Norms      []neuroscreen.Asset `json:"norms"`
	Models     []neuroscreen.Asset `json:"models"`
	People     int                 `json:"people"`
	Skipped    []Skipped           `json:"skipped"`
	Conditions []Condition         `json:"conditions"`
	Controls   Controls            `json:"controls"`
}

// Condition is how the deciding scores of one condition did.
type Condition struct {
	Condition neuroscreen.Condition `json:"condition"`
	Models    []string              `json:"models"` // that decided
	Cases     int                   `json:"cases"`
	Controls  int                   `json:"controls"`
	Abstained []Abstained           `json:"abstained"`
	Now       Figures               `json:"now"`
	Subgroups []Subgroup            `json:"subgroups"`
	Sides     *Sides                `json:"sides"` // of mesial temporal sclerosis
	// WithShift is under the proposed control shift, which healthy people among
	// these made (of 20 or more, one moves it by little); null without one.
	WithShift *Figures `json:"with_shift"`
	// Recalibrated is under the proposed recalibration too, each person with
	// what was fitted on the others; null without one.
	Recalibrated  *Figures             `json:"recalibrated"`
	Recalibration *model.Recalibration `json:"recalibration"`
	Verdict       string               `json:"verdict"` // on recalibration
}

// Abstained counts scores that were withheld.
type Abstained struct {
	Why      string `json:"why"`
	Cases    int    `json:"cases"`
	Controls int    `json:"controls"`
}

// Figures of one set of scores. What too few people can't tell is null.
type Figures struct {
	AUC         *float64     `json:"auc"`
	AUCCI95     *[2]float64  `json:"auc_ci95"`
	Thresholds  []Threshold  `json:"thresholds"`
	Calibration *Calibration `json:"calibration"` // of probabilities at the manifest's own share of cases
}

// Threshold is what a flag costs and finds.
type Threshold struct {
	Flag            neuroscreen.Flag `json:"flag"` // or worse
	Sensitivity     float64          `json:"sensitivity"`
	SensitivityCI95 [2]float64       `json:"sensitivity_ci95"`
	Specificity     float64          `json:"specificity"`
	SpecificityCI95 [2]float64       `json:"specificity_ci95"`
}

// Subgroup of the scored people.
type Subgroup struct {
	Name     string      `json:"name"`
	Cases    int         `json:"cases"`
	Controls int         `json:"controls"`
	AUC      *float64    `json:"auc"`
	AUCCI95  *[2]float64 `json:"auc_ci95"`
	Observed float64     `json:"observed"` // share of cases
	// Calibration at the group's own share of cases: another
	// share is no fault of the scores.
	Calibration *Calibration `json:"calibration"`
}

// Sides counts cases whose side is known.
type Sides struct {
	Known   int `json:"known"`
	Correct int `json:"side_correct"`
	Other   int `json:"side_other"`
	Missed  int `json:"missed"`
}

// Numbers of people of each class below which a figure is not given.
const (
	leastForAUC      = 5
	leastForInterval = 10
)

// Run reads a manifest, scores its people and returns what they show, and what
// they propose; the proposal is nil when they propose nothing. Errors:
// CodeInvalid naming the line; those of Measure.
func Run(ctx context.Context, manifest io.Reader, o Options) (*Report, *Proposal, error) {
	b, err := io.ReadAll(manifest)
	if err != nil {
		return nil, nil, err
	}
	people, skipped, err := readPeople(ctx, bytes.NewReader(b), o)
	if err != nil {
		return nil, nil, err
	}
	if len(people) == 0 {
		why := ""
		if len(skipped) > 0 {
			why = fmt.Sprintf("; %s: %s", skipped[0].ID, skipped[0].Why)
		}
		return nil, nil, neuroscreen.Errorf(neuroscreen.CodeInvalid, "no-people", "the manifest holds nobody who could be scored%s", why)
	}
	if skipped == nil {
		skipped = []Skipped{}
	}
	sum := sha256.Sum256(b)
	r := &Report{
		Schema: ReportSchema, Made: o.Now.UTC().Format(time.DateOnly), Manifest: hex.EncodeToString(sum[:]), Segmenter: people[0].features.Calibration.Segmenter,
		Norms: pipeline.NormAssets(norm.Default(), o.Settings.SiteShift), Models: model.Default().Assets(), People: len(people), Skipped: skipped,
	}
	for _, p := range people {
		r.Weights = cmp.Or(r.Weights, p.features.Calibration.Weights)
	}
	shift, err := r.controls(people, o)
	if err != nil {
		return nil, nil, err
	}
	for _, c := range neuroscreen.Conditions {
		if slices.ContainsFunc(people, func(p person) bool { return p.labels[c] != "" }) {
			r.Conditions = append(r.Conditions, r.condition(c, people, o, shift))
		}
	}
	if len(r.Conditions) == 0 && r.Controls.People == 0 {
		return nil, nil, neuroscreen.Errorf(neuroscreen.CodeInvalid, "missing-column",
			"nobody is labelled: add a column named alzheimers, parkinsons or mesial_temporal_sclerosis (1 for cases, 0 for controls), or healthy (1) for the control shift")
	}
	return r, r.propose(o, shift), nil
}

// scored is a person with a deciding score.
type scored struct {
	person
	isCase bool
	score  neuroscreen.Score
	ln     float64
}

// scores are the deciding scores of those who are labelled for a condition.
func scores(c neuroscreen.Condition, people []person, s pipeline.Settings) (list []scored, withheld []scored) {
	for _, p := range people {
		label := p.labels[c]
		if label == "" {
			continue
		}
		f := p.features
		f.Settings, f.Calibration.SiteShift = s.Model, s.SiteShift
		all := model.Default().Score(f)
		n := neuroscreen.Deciding(all, c)
		if n < 0 {
			continue
		}
		v := scored{person: p, isCase: label != labelControl, score: all[n]}
		if v.score.LikelihoodRatio == nil {
			withheld = append(withheld, v)
			continue
		}
		v.ln = math.Log(*v.score.LikelihoodRatio)
		list = append(list, v)
	}
	return list, withheld
}

func (r *Report) condition(c neuroscreen.Condition, people []person, o Options, shift *norm.Shift) Condition {
	now, withheld := scores(c, people, o.Settings)
	out := Condition{Condition: c, Models: []string{}, Abstained: []Abstained{}, Now: figuresOf(now), Subgroups: subgroups(now)}
	for _, v := range now {
		if !slices.Contains(out.Models, v.score.Model) {
			out.Models = append(out.Models, v.score.Model)
		}
		if v.isCase {
			out.Cases++
		} else {
			out.Controls++
		}
	}
	for _, v := range withheld {
		out.countAbstained(v)
	}
	if c == neuroscreen.MesialTemporalSclerosis {
		out.Sides = sidesOf(now)
	}
	// A recalibration is fitted on scores as the models give them, under the
	// shift that will hold.
	bare := o.Settings
	bare.Model.Recalibrations = nil
	if shift != nil {
		bare.SiteShift = shift
	}
	raw, _ := scores(c, people, bare)
	if shift != nil {
		f := figuresOf(raw)
		out.WithShift = &f
	}
	out.recalibrate(raw, bare, r)
	return out
}

func (c *Condition) countAbstained(v scored) {
	i := slices.IndexFunc(c.Abstained, func(a Abstained) bool { return a.Why == *v.score.Abstained })
	if i < 0 {
		i = len(c.Abstained)
		c.Abstained = append(c.Abstained, Abstained{Why: *v.score.Abstained})
	}
	if v.isCase {
		c.Abstained[i].Cases++
	} else {
		c.Abstained[i].Controls++
	}
}

// split returns ln(LR) by class.
func split(list []scored) (cases, controls []float64) {
	for _, v := range list {
		if v.isCase {
			cases = append(cases, v.ln)
		} else {
			controls = append(controls, v.ln)
		}
	}
	return cases, controls
}

func columns(list []scored) (ln []float64, y []bool) {
	for _, v := range list {
		ln, y = append(ln, v.ln), append(y, v.isCase)
	}
	return ln, y
}

// prevalence is the logit of the share of cases.
func prevalence(cases, controls int) float64 { return math.Log(float64(cases) / float64(controls)) }

func figuresOf(list []scored) Figures {
	f := Figures{Thresholds: []Threshold{}}
	cases, controls := split(list)
	f.AUC, f.AUCCI95 = aucOf(cases, controls)
	if len(cases) == 0 || len(controls) == 0 {
		return f
	}
	for _, flag := range []neuroscreen.Flag{neuroscreen.FlagReview, neuroscreen.FlagFlagged} {
		found, clear := 0, 0
		for _, v := range list {
			hit := v.score.Flag == neuroscreen.FlagFlagged || v.score.Flag == flag
			if v.isCase && hit {
				found++
			} else if !v.isCase && !hit {
				clear++
			}
		}
		f.Thresholds = append(f.Thresholds, Threshold{
			Flag:        flag,
			Sensitivity: float64(found) / float64(len(cases)), SensitivityCI95: Wilson(found, len(cases)),
			Specificity: float64(clear) / float64(len(controls)), SpecificityCI95: Wilson(clear, len(controls)),
		})
	}
	if min(len(cases), len(controls)) >= leastForInterval {
		ln, y := columns(list)
		c := Calibrate(Line{Slope: 1}.probabilities(ln, prevalence(len(cases), len(controls))), y)
		f.Calibration = &c
	}
	return f
}

func aucOf(cases, controls []float64) (auc *float64, ci *[2]float64) {
	if least := min(len(cases), len(controls)); least >= leastForAUC {
		v := AUC(cases, controls)
		auc = &v
		if least >= leastForInterval {
			i := AUCInterval(cases, controls)
			ci = &i
		}
	}
	return auc, ci
}

// subgroups by sex, age and scanner; a group that holds everybody says nothing
// new.
func subgroups(list []scored) []Subgroup {
	cases, controls := split(list)
	if len(cases) == 0 || len(controls) == 0 {
		return []Subgroup{}
	}
	var names []string
	in := map[string][]scored{}
	for _, v := range list {
		for _, name := range groupsOf(v.person) {
			if in[name] == nil {
				names = append(names, name)
			}
			in[name] = append(in[name], v)
		}
	}
	slices.Sort(names)
	out := []Subgroup{}
	for _, name := range names {
		group := in[name]
		if len(group) == len(list) {
			continue
		}
		a, b := split(group)
		g := Subgroup{Name: name, Cases: len(a), Controls: len(b), Observed: float64(len(a)) / float64(len(group))}
		g.AUC, g.AUCCI95 = aucOf(a, b)
		ln, y := columns(group)
		if min(len(a), len(b)) >= leastForInterval {
			c := Calibrate(Line{Slope: 1}.probabilities(ln, prevalence(len(a), len(b))), y)
			g.Calibration = &c
		}
		out = append(out, g)
	}
	return out
}

func groupsOf(p person) []string {
	groups := []string{map[neuroscreen.Sex]string{neuroscreen.Female: "women", neuroscreen.Male: "men"}[p.features.Person.Sex]}
	switch age := p.features.Person.AgeYears; {
	case age < 60:
		groups = append(groups, "age under 60")
	case age < 80:
		decade := 10 * math.Floor(age/10)
		groups = append(groups, fmt.Sprintf("age %.0f to %.0f", decade, decade+9))
	default:
		groups = append(groups, "age 80 and over")
	}
	if p.scanner.Name != "" {
		groups = append(groups, "scanner "+p.scanner.Name)
	}
	return groups
}

func sidesOf(list []scored) *Sides {
	var s Sides
	for _, v := range list {
		label := v.labels[neuroscreen.MesialTemporalSclerosis]
		if label != "left" && label != "right" {
			continue
		}
		s.Known++
		switch {
		case v.score.Side == nil:
			s.Missed++
		case *v.score.Side == label:
			s.Correct++
		default:
			s.Other++
		}
	}
	return &s
}
