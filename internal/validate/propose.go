package validate

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"gonum.org/v1/gonum/stat/distuv"

	"neuroscreen"
	"neuroscreen/internal/model"
	"neuroscreen/internal/norm"
	"neuroscreen/internal/pipeline"
)

// Proposal is a calibration for an administrator to accept, whole: the
// recalibrations were fitted on scores that the shift has entered.
type Proposal struct {
	Schema         string                `json:"schema"`
	SiteShift      *norm.Shift           `json:"site_shift,omitempty"`
	Recalibrations []model.Recalibration `json:"recalibrations"`
	Evidence       *Report               `json:"evidence"`
}

// LoadProposal reads a proposal and refuses one that can't be meant.
func LoadProposal(r io.Reader) (*Proposal, error) {
	var p Proposal
	d := json.NewDecoder(r)
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		return nil, neuroscreen.Errorf(neuroscreen.CodeInvalid, "invalid-proposal", "the proposal is not the JSON that validate writes: %v", err)
	}
	if p.Schema != ProposalSchema {
		return nil, neuroscreen.FieldErrorf(neuroscreen.CodeInvalid, "invalid-proposal", "schema", "want %q, got %q", ProposalSchema, p.Schema)
	}
	return &p, pipeline.Settings{SiteShift: p.SiteShift, Model: model.Settings{Recalibrations: p.Recalibrations}}.Validate()
}

// Controls is what the site's healthy people show of the norm.
type Controls struct {
	People     int         `json:"people"`
	Structures []Structure `json:"structures"`
	Verdict    string      `json:"verdict"`
}

// Structure is the z of healthy people: their mean should be 0 and their spread 1.
type Structure struct {
	Structure string     `json:"structure"`
	N         int        `json:"n"`
	Before    [2]float64 `json:"before"` // mean and SD under the present settings
	After     [2]float64 `json:"after"`  // under the proposed shift, each person with that of the others
}

// leastControls is how many healthy people a site's shift needs.
const leastControls = 20

// folds of every cross-validation.
const folds = 10

// foldOf deals n things into folds at random, the same way each time.
func foldOf(n int, stream uint64) []int {
	f := make([]int, n)
	for i := range f {
		f[i] = i % folds
	}
	r := rand.New(rand.NewPCG(seed, stream))
	r.Shuffle(n, func(i, j int) { f[i], f[j] = f[j], f[i] })
	return f
}

// controls fits the shift of the healthy people, or says why there is none.
// Scans to be reviewed take part: the shift is applied to such scans too, and at
// a site whose protocol asks for a review of each there would be no other.
func (r *Report) controls(people []person, o Options) (*norm.Shift, error) {
	var healthy []norm.Control
	reviewed := 0
	for _, p := range people {
		if p.healthy {
			if p.features.QC == neuroscreen.VerdictReview {
				reviewed++
			}
			healthy = append(healthy, norm.Control{Person: p.features.Person, Scanner: p.scanner, Volumes: p.features.Volumes})
		}
	}
	r.Controls = Controls{People: len(healthy), Structures: []Structure{}}
	if len(healthy) < leastControls {
		r.Controls.Verdict = fmt.Sprintf("No shift: it needs at least %d healthy people (column healthy = 1), %d were given.", leastControls, len(healthy))
		return nil, nil
	}
	n, cal := norm.Default(), norm.Calibration{Segmenter: r.Segmenter, Weights: r.Weights}
	fit := func(c []norm.Control) (*norm.Shift, error) {
		source := fmt.Sprintf("%d healthy people of the site, manifest %.12s", len(c), r.Manifest)
		return n.FitShift(o.Name, o.Now.UTC().Format(time.DateOnly), norm.LayerSite, source, cal, c)
	}
	shift, err := fit(healthy)
	if err != nil {
		return nil, err
	}
	for s, m := range shift.Structures {
		if m.N < leastControls {
			delete(shift.Structures, s) // would not be used
		}
	}
	if len(shift.Structures) == 0 {
		r.Controls.Verdict = fmt.Sprintf("No shift: no structure was measured in %d healthy people within the norm's range.", leastControls)
		return nil, nil
	}
	before, after := map[string][]float64{}, map[string][]float64{}
	collect := func(into map[string][]float64, c norm.Control, cal norm.Calibration) {
		for s := range shift.Structures {
			if v, ok := c.Volumes[s]; ok {
				if z, err := n.ZOf(s, v, c.Person, cal); err == nil {
					into[s] = append(into[s], z.Value)
				}
			}
		}
	}
	fold := foldOf(len(healthy), 3)
	for k := range folds {
		var others []norm.Control
		for i, c := range healthy {
			if fold[i] != k {
				others = append(others, c)
			}
		}
		part, err := fit(others)
		if err != nil {
			return nil, err
		}
		part.Scanners = shift.Scanners
		for s, m := range part.Structures {
			// The norm takes no shift of fewer; these stand for all of them.
			m.N = max(m.N, leastControls)
			part.Structures[s] = m
		}
		for i, c := range healthy {
			if fold[i] == k {
				now := cal
				now.Scanner = c.Scanner
				now.SiteShift = o.Settings.SiteShift
				collect(before, c, now)
				now.SiteShift = part
				collect(after, c, now)
			}
		}
	}
	for s := range shift.Structures {
		r.Controls.Structures = append(r.Controls.Structures, Structure{Structure: s, N: shift.Structures[s].N, Before: moments(before[s]), After: moments(after[s])})
	}
	slices.SortFunc(r.Controls.Structures, func(a, b Structure) int {
		if a.Structure < b.Structure {
			return -1
		}
		return 1
	})
	of := ""
	if reviewed > 0 {
		of = fmt.Sprintf(" (quality control asks for a review of %d scans: look at them before you accept)", reviewed)
	}
	r.Controls.Verdict = fmt.Sprintf("A shift of %d structures is proposed, from %d healthy people%s; under it the spread between sites no longer widens their intervals.", len(shift.Structures), len(healthy), of)
	return shift, nil
}

func moments(x []float64) [2]float64 {
	mean, square := 0.0, 0.0
	for _, v := range x {
		mean += v / float64(len(x))
	}
	for _, v := range x {
		square += (v - mean) * (v - mean) / float64(len(x)-1)
	}
	return [2]float64{mean, math.Sqrt(square)}
}

// leastForRecalibration is how many people of each class a recalibration needs.
const leastForRecalibration = 20

// significance of the tests that decide on a recalibration.
const significance = 0.05

// recalibrate decides between no correction, one of the intercept, and one of
// the slope too, by likelihood-ratio tests (the closed procedure of Vergouwe
// 2017, doi:10.1002/sim.7179), and takes it only if it also does better on
// people whom it was not fitted on.
func (c *Condition) recalibrate(raw []scored, s pipeline.Settings, r *Report) {
	cases, controls := split(raw)
	var models []string
	for _, v := range raw {
		if !slices.Contains(models, v.score.Model) {
			models = append(models, v.score.Model)
		}
	}
	switch {
	case min(len(cases), len(controls)) < leastForRecalibration:
		c.Verdict = fmt.Sprintf("No recalibration: it needs at least %d cases and %d controls with a score.", leastForRecalibration, leastForRecalibration)
		return
	case len(models) > 1:
		c.Verdict = "No recalibration: some people were scored with nWBV and some without, by two models; give it for all or for none."
		return
	}
	sha, ok := model.Default().Recalibratable(models[0])
	if !ok {
		c.Verdict = "No recalibration: the flag of this model follows volumes, not the likelihood ratio."
		return
	}
	ln, y := columns(raw)
	offset := prevalence(len(cases), len(controls))
	none := Line{Slope: 1}
	none.LogLik = -logLoss(none.probabilities(ln, offset), y) * float64(len(ln))
	full, ok := FitLine(ln, y, offset, false)
	if !ok {
		c.Verdict = "No recalibration: cases and controls are apart without overlap, so no slope is the best."
		return
	}
	p := chi2(2*(full.LogLik-none.LogLik), 2)
	if p >= significance {
		c.Verdict = fmt.Sprintf("No recalibration: these people do not contradict the present calibration (p = %.2g).", p)
		return
	}
	line, held := full, false
	if one, ok := FitLine(ln, y, offset, true); ok && chi2(2*(full.LogLik-one.LogLik), 1) >= significance {
		line, held = one, true
	}
	rc := model.Recalibration{
		Model: models[0], ModelSHA256: sha, Segmenter: r.Segmenter, Weights: r.Weights, SiteShift: s.SiteShift.SHA256(), Intercept: line.Intercept, Slope: line.Slope, Covariance: line.Covariance,
		Cases: len(cases), Controls: len(controls), Source: fmt.Sprintf("%d people of the site, manifest %.12s", len(ln), r.Manifest),
	}
	s.Model.Recalibrations = []model.Recalibration{rc}
	if err := s.Validate(); err != nil {
		c.Verdict = "No recalibration: " + neuroscreen.AsError(err).Message + "."
		return
	}
	after, ok := crossValidated(raw, s, rc, held, offset)
	if !ok || after.Calibration.LogLoss >= logLoss(none.probabilities(ln, offset), y) {
		c.Verdict = fmt.Sprintf("No recalibration: the present calibration is contradicted (p = %.2g), but what these people give does no better on others.", p)
		return
	}
	c.Recalibrated, c.Recalibration = after, &rc
	what := "intercept and slope"
	if held {
		what = "the intercept"
	}
	c.Verdict = fmt.Sprintf("A recalibration of %s is proposed (the present calibration is contradicted, p = %.2g).", what, p)
}

func chi2(x, k float64) float64 { return distuv.ChiSquared{K: k}.Survival(max(x, 0)) }

// crossValidated scores each person under the recalibration fitted on the other
// folds.
func crossValidated(raw []scored, s pipeline.Settings, rc model.Recalibration, held bool, offset float64) (*Figures, bool) {
	// Cases and controls are dealt apart, so that every fold holds both.
	fold := make([]int, len(raw))
	for _, class := range []bool{true, false} {
		var of []int
		for i, v := range raw {
			if v.isCase == class {
				of = append(of, i)
			}
		}
		for j, f := range foldOf(len(of), 4) {
			fold[of[j]] = f
		}
	}
	var out []scored
	for k := range folds {
		var train []scored
		var test []person
		for i, v := range raw {
			if fold[i] == k {
				test = append(test, v.person)
			} else {
				train = append(train, v)
			}
		}
		ln, y := columns(train)
		line, ok := FitLine(ln, y, offset, held)
		if !ok {
			return nil, false
		}
		rc.Intercept, rc.Slope, rc.Covariance = line.Intercept, line.Slope, line.Covariance
		s.Model.Recalibrations = []model.Recalibration{rc}
		list, _ := scores(raw[0].score.Condition, test, s)
		out = append(out, list...)
	}
	f := figuresOf(out)
	return &f, f.Calibration != nil
}

// propose puts together what an administrator may accept: what is new, and what
// holds at the site already and is not touched by it.
func (r *Report) propose(o Options, shift *norm.Shift) *Proposal {
	p := &Proposal{Schema: ProposalSchema, SiteShift: shift, Recalibrations: []model.Recalibration{}, Evidence: r}
	for _, c := range r.Conditions {
		if c.Recalibration != nil {
			p.Recalibrations = append(p.Recalibrations, *c.Recalibration)
		}
	}
	if shift == nil && len(p.Recalibrations) == 0 {
		return nil
	}
	if shift == nil {
		p.SiteShift = o.Settings.SiteShift
	}
	for _, old := range o.Settings.Model.Recalibrations {
		replaced := slices.ContainsFunc(p.Recalibrations, func(n model.Recalibration) bool { return n.Model == old.Model && n.Segmenter == old.Segmenter })
		// One that was fitted without the new shift would correct twice.
		if !replaced && (shift == nil || old.Segmenter != r.Segmenter) {
			p.Recalibrations = append(p.Recalibrations, old)
		}
	}
	return p
}
