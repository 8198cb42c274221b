package httpapi

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"neuroscreen"
	"neuroscreen/internal/anatomy"
	"neuroscreen/internal/report"
	"neuroscreen/internal/store"
)

// GetCohort is for research whoever asks: what a person refused that for is in
// nobody's cohort.
func (s *Server) GetCohort(ctx context.Context, req GetCohortRequestObject) (GetCohortResponseObject, error) {
	ctx = store.ForResearch(ctx)
	p := req.Params
	f, err := cohortFilter(p)
	if err != nil {
		return nil, err
	}
	table := wantsTable(exchangeFrom(ctx).req)
	if table && (p.Cursor != nil || p.Limit != nil) {
		field := "limit"
		if p.Cursor != nil {
			field = "cursor"
		}
		return nil, neuroscreen.FieldErrorf(neuroscreen.CodeInvalid, "invalid-value", field, "a table has no pages; ask for application/json, or leave this out")
	}
	c := &cohort{Server: s, known: map[string]*CohortModel{}, models: []CohortModel{}}
	if table {
		f.Limit = tablePage
	}
	scans, next, err := c.page(ctx, f)
	if err != nil {
		return nil, err
	}
	if table {
		return &cohortTable{cohort: c, ctx: ctx, filter: f, scans: scans, next: next}, nil
	}
	out := Cohort{Scans: scans, IntendedUse: neuroscreen.IntendedUse, NextCursor: ptr(next)}
	if f.Cursor == "" {
		if out.Summary, err = c.summary(ctx, f); err != nil {
			return nil, err
		}
	}
	out.Models = c.models
	return GetCohort200JSONResponse(out), nil
}

// cohortFilter refuses criteria that can't be meant: a cohort without what was
// asked for would be taken for an answer.
func cohortFilter(p GetCohortParams) (f store.CohortFilter, err error) {
	f = store.CohortFilter{
		Condition: p.Condition, Flag: p.Flag, AgeFrom: p.AgeFrom, AgeTo: p.AgeTo, Sex: p.Sex, Scanner: p.Scanner, Quality: p.Quality,
		ScanDateFrom: val(p.ScanDateFrom), ScanDateTo: val(p.ScanDateTo), Visit: store.OneVisit(val(p.Visit)),
		MinLR: p.LikelihoodRatioMin, Structure: val(p.Structure), MaxZ: p.ZMax, Cursor: val(p.Cursor), Limit: val(p.Limit),
	}
	invalid := func(field, message string) error {
		return neuroscreen.FieldErrorf(neuroscreen.CodeInvalid, "invalid-value", field, "%s", message)
	}
	for field, v := range map[string]*float64{"age_from": f.AgeFrom, "age_to": f.AgeTo, "likelihood_ratio_min": f.MinLR, "z_max": f.MaxZ} {
		if v != nil && math.IsNaN(*v) {
			return f, invalid(field, "not a number")
		}
	}
	for field, day := range map[string]*string{"scan_date_from": p.ScanDateFrom, "scan_date_to": p.ScanDateTo} {
		if day == nil {
			continue
		}
		if _, err := time.Parse(time.DateOnly, *day); err != nil {
			return f, badDate(field, "this is not a date (YYYY-MM-DD)")
		}
	}
	switch {
	case f.AgeFrom != nil && f.AgeTo != nil && *f.AgeTo < *f.AgeFrom:
		return f, invalid("age_to", "below age_from")
	case p.ScanDateFrom != nil && p.ScanDateTo != nil && f.ScanDateTo < f.ScanDateFrom:
		return f, invalid("scan_date_to", "before scan_date_from")
	case f.MinLR != nil && f.Condition == nil:
		return f, missing("condition", "likelihood_ratio_min needs the condition whose score it bounds")
	case f.MaxZ != nil && f.Structure == "":
		return f, missing("structure", "z_max needs the structure whose z it bounds")
	case f.Structure != "" && f.MaxZ == nil:
		return f, missing("z_max", "a structure needs the z that it may have at most")
	case f.Structure != "" && !slices.ContainsFunc(anatomy.Structures[1:], func(s anatomy.Structure) bool { return s.Name == f.Structure }):
		return f, invalid("structure", "no structure of a result; they have FreeSurfer's names, as Left-Hippocampus")
	}
	return f, nil
}

// wantsTable reports whether text/csv is preferred to JSON (RFC 9110, 12.5.1).
func wantsTable(r *http.Request) bool {
	var csv, json float64
	for _, h := range r.Header.Values("Accept") {
		for element := range strings.SplitSeq(h, ",") {
			mediaType, params, err := mime.ParseMediaType(element)
			if err != nil {
				continue
			}
			q, err := strconv.ParseFloat(cmp.Or(params["q"], "1"), 64)
			if err != nil {
				continue
			}
			switch mediaType {
			case "text/csv":
				csv = q
			case "application/json":
				json = q
			}
		}
	}
	return csv > json
}

// cohort is an answer in the making.
type cohort struct {
	*Server
	models []CohortModel           // behind what was shown so far
	known  map[string]*CohortModel // by modelKey
}

func modelKey(model string, files []neuroscreen.Asset) string { return fmt.Sprint(model, files) }

// page reads one page, and notes in the trail whose it shows.
func (c *cohort) page(ctx context.Context, f store.CohortFilter) (scans []CohortScan, next string, err error) {
	found, err := c.cfg.Store.Cohort(ctx, siteID(ctx), f)
	if err != nil {
		return nil, "", err
	}
	ids := make([]uuid.UUID, len(found.Scans))
	for n, v := range found.Scans {
		ids[n] = v.ScanID
	}
	who, err := c.identities(ctx, ids)
	if err != nil {
		return nil, "", err
	}
	scans = make([]CohortScan, len(found.Scans))
	for n, v := range found.Scans {
		r, err := v.Result()
		if err != nil {
			return nil, "", fmt.Errorf("stored result %s/%d: %w", v.ScanID, v.Version, err)
		}
		for i := range r.Scores {
			score := &r.Scores[i]
			if score.LikelihoodRatio == nil {
				continue
			}
			m, err := c.model(ctx, v.ScanID, v.Version, CohortModel{Model: score.Model, Condition: score.Condition, Evidence: score.Evidence}, r.Software.Models)
			if err != nil {
				return nil, "", err
			}
			if m == nil {
				score.Posterior = nil
			}
		}
		m := identified(v.Metadata, v.Pseudonym, who[v.ScanID])
		scans[n] = CohortScan{
			ScanID: v.ScanID, SubjectID: m.SubjectID, ScanDate: ptr(m.ScanDate), AgeYears: m.AgeYears, Sex: m.Sex,
			Scanner: ptr(m.Scanner), Manufacturer: ptr(m.Manufacturer), FieldStrengthT: m.FieldStrengthT,
			Quality: r.QC.Verdict, QualityReasons: r.QC.Reasons, Decision: (*Decision)(v.Decision),
			ResultVersion: v.Version, SettingsVersion: r.SettingsVersion, Software: r.Software,
			IntracranialVolumeMm3: r.IntracranialVolumeMM3, Volumes: orEmpty(r.Volumes), Indices: orEmpty(r.Indices), Scores: orEmpty(r.Scores),
		}
	}
	return scans, found.NextCursor, c.audit(ctx, "cohort", "", ids...)
}

// model completes what is known of a score's model by what was said of it when
// the result was made; nil when that was not kept, and no probability may be
// shown. Results of the same files were told the same, so one is read for all.
func (c *cohort) model(ctx context.Context, scanID uuid.UUID, version int, m CohortModel, files []neuroscreen.Asset) (*CohortModel, error) {
	key := modelKey(m.Model, files)
	if known := c.known[key]; known != nil {
		return known, nil
	}
	file, err := c.derivedBytes(ctx, scanID, version, store.KindReading)
	if err != nil || file == nil {
		return nil, err
	}
	var reading report.Reading
	if err := json.Unmarshal(file, &reading); err != nil {
		return nil, fmt.Errorf("reading of scan %s: %w", scanID, err)
	}
	n := slices.IndexFunc(reading.Scores, func(s report.ScoreInWords) bool { return s.Model == m.Model })
	if n < 0 || reading.Scores[n].Cohort == "" || reading.Scores[n].Limits == "" {
		return nil, nil
	}
	said := reading.Scores[n]
	m.Cohort, m.Performance, m.Limits = said.Cohort, said.Performance, said.Limits
	c.known[key] = &m
	if !slices.Contains(c.models, m) {
		c.models = append(c.models, m)
	}
	return &m, nil
}

// expectationText goes with every expected share.
const expectationText = "For research. Expected from the likelihood ratios and the priors that are named, not counted: whether these priors are those of the people who were scanned " +
	"is for the reader to say, and what the likelihood ratios are worth stands with their model. Who was selected by a likelihood ratio has a posterior that leans on it most."

// summary counts the population and whom the thresholds select of it.
func (c *cohort) summary(ctx context.Context, f store.CohortFilter) (*CohortSummary, error) {
	groups, err := c.cfg.Store.CohortGroups(ctx, siteID(ctx), f)
	if err != nil {
		return nil, err
	}
	out := &CohortSummary{Visit: string(cmp.Or(f.Visit, store.NewestVisit))}
	abstained, withoutZ := 0, 0
	var screened, selected expectedCases
	priors := map[float64]*CohortPrior{}
	for _, g := range groups {
		out.Screened += g.Screened
		out.Selected += g.Selected
		abstained += g.Abstained
		withoutZ += g.WithoutZ
		if g.Prior == nil || g.Expecting == 0 {
			continue
		}
		m, err := c.model(ctx, g.ScanID, g.Version, CohortModel{Model: g.Model, Condition: *f.Condition, Evidence: g.Evidence}, g.Models)
		if err != nil {
			return nil, err
		}
		if m == nil {
			continue
		}
		screened.add(g.Expecting, *g.Prior, g.Expected)
		selected.add(g.ExpectingSelected, *g.Prior, g.ExpectedSelected)
		of := priors[*g.Prior]
		if of == nil {
			of = &CohortPrior{Prior: *g.Prior}
			priors[*g.Prior] = of
		}
		of.Screened += g.Expecting
		of.Selected += g.ExpectingSelected
	}
	if out.Screened > 0 {
		share := float64(out.Selected) / float64(out.Screened)
		out.ShareSelected = &share
	}
	if f.Condition != nil {
		out.Abstained = &abstained
	}
	if f.Structure != "" {
		out.WithoutZ = &withoutZ
	}
	if screened.people == 0 {
		return out, nil
	}
	e := &CohortExpectation{Condition: *f.Condition, Screened: *screened.share(), Selected: selected.share(), Text: expectationText}
	if selected.cases > 0 {
		needed := float64(out.Screened) / selected.cases
		e.NumberNeededToScreen = &needed
	}
	for _, prior := range slices.Sorted(maps.Keys(priors)) {
		e.Priors = append(e.Priors, *priors[prior])
	}
	out.Expected = e
	return out, nil
}

// expectedCases adds up people who have a posterior.
type expectedCases struct {
	people int
	priors float64
	cases  float64 // sum of the posteriors
}

func (e *expectedCases) add(people int, prior, cases float64) {
	e.people += people
	e.priors += float64(people) * prior
	e.cases += cases
}

// share is nil of nobody.
func (e *expectedCases) share() *CohortShare {
	if e.people == 0 {
		return nil
	}
	return &CohortShare{People: e.people, Prior: e.priors / float64(e.people), Share: e.cases / float64(e.people)}
}
