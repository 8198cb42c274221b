package httpapi

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"neuroscreen"
	"neuroscreen/internal/model"
	"neuroscreen/internal/norm"
	"neuroscreen/internal/report"
	"neuroscreen/internal/store"
	"neuroscreen/internal/table"
)

// member is a person of a cohort with one scan.
type member struct {
	subject string
	more    map[string]any // metadata
	lr      float64        // of the Alzheimer's score; 0 for an abstained one
	prior   float64        // 0 for none
	edit    func(*neuroscreen.Result)
	unsaid  bool // the result has no reading
}

const (
	saidCohort = "188 people of a test, and \"more\""
	saidLimits = "-1 is no age"
)

func (e *env) join(m member) Scan {
	e.Helper()
	meta := map[string]any{"subject_id": m.subject}
	for k, v := range m.more {
		meta[k] = v
	}
	var scan Scan
	e.post(&e.a, []part{{name: "metadata", body: metadata(meta)}, {name: "scan", body: image(e, int16(time.Now().UnixNano()))}}).want(202, "").json(&scan)
	lease, err := e.store.Lease(e.Context(), e.a.id, scan.ID, "test", time.Hour)
	if err != nil {
		e.Fatal(err)
	}
	o := scoredOutcome(neuroscreen.FlagNone)
	r := o.Result
	r.ScanID, r.SubjectID, r.Input.SHA256 = scan.ID.String(), lease.Scan.Pseudonym, lease.Scan.SHA256
	r.Software = neuroscreen.Software{Version: "v1", Kernel: "generic", Network: neuroscreen.Asset{Name: "net", SHA256: "aa"},
		Norms: []neuroscreen.Asset{{Name: "nomis", SHA256: "bb"}}, Models: []neuroscreen.Asset{{Name: "alzheimers_scan.json", SHA256: "cc"}, {Name: "parkinsons.json", SHA256: "dd"}}}
	s := &r.Scores[0]
	s.Model, s.LikelihoodRatio = "alzheimers-scan", nil
	if m.prior > 0 {
		s.Prior = &m.prior
	}
	if m.lr > 0 {
		s.LikelihoodRatio, s.CI95 = &m.lr, &[2]float64{m.lr / 2, m.lr * 2}
		if m.prior > 0 {
			s.Posterior = ptrTo(m.prior * m.lr / (1 - m.prior + m.prior*m.lr))
		}
	} else {
		s.Abstained = ptrTo("=because of, \"age\"")
	}
	if m.edit != nil {
		m.edit(r)
	}
	if !m.unsaid {
		said, err := json.Marshal(report.Reading{Schema: report.ReadingSchema, Scores: []report.ScoreInWords{
			{Model: "alzheimers-scan", Cohort: saidCohort, Performance: "AUC .8", Limits: saidLimits}}})
		if err != nil {
			e.Fatal(err)
		}
		info, err := e.blobs.Put(e.Context(), bytes.NewReader(said), nil)
		if err != nil {
			e.Fatal(err)
		}
		o.Files = []store.DerivedFile{{Kind: store.KindReading, MediaType: "application/json", BlobKey: info.Key, SHA256: info.Key, Size: info.Size}}
	}
	if _, err := e.store.Finish(e.Context(), e.a.id, lease, o); err != nil {
		e.Fatal(err)
	}
	return scan
}

func (e *env) cohort(key, query string) (c Cohort) {
	e.Helper()
	e.do("GET", "/v1/cohorts"+query, key).want(200, "").json(&c)
	return c
}

// table reads the CSV into a map for each line.
func (e *env) table(key, query string) (lines []map[string]string, raw []byte) {
	e.Helper()
	a := e.do("GET", "/v1/cohorts"+query, key, header("Accept", "text/csv"))
	if a.want(200, ""); a.header.Get("Content-Type") != "text/csv; charset=utf-8" {
		e.Fatalf("%s: %s", a.header.Get("Content-Type"), a.body)
	}
	rows, err := csv.NewReader(bytes.NewReader(a.body)).ReadAll()
	if err != nil {
		e.Fatal(err)
	}
	for _, row := range rows[1:] {
		line := map[string]string{}
		for n, name := range rows[0] {
			line[name] = row[n]
		}
		lines = append(lines, line)
	}
	return lines, a.body
}

func close12(got, want float64) bool { return math.Abs(got-want) < 1e-12 }

// TestCohortSummary holds it against numbers that were worked out by hand.
func TestCohortSummary(t *testing.T) {
	e := setup(t)
	for _, m := range []member{
		{subject: "a", lr: 19, prior: 0.05}, // posterior .5
		{subject: "b", lr: 1, prior: 0.05},  // .05
		{subject: "c", lr: 4, prior: 0.2},   // .5
		{subject: "d", lr: 9},               // no prior at this age
		{subject: "e", prior: 0.2},          // abstained
		{subject: "f", lr: 100, prior: 0.2, more: map[string]any{"consent_research": false}},
		{subject: "g", lr: 100, prior: 0.3, more: map[string]any{"age_years": 90}},
		{subject: "a", lr: 1, prior: 0.05, more: map[string]any{"scan_date": "2001-01-01"}}, // an earlier visit
	} {
		e.join(m)
	}
	key := e.a.keys[researcher]
	got := e.cohort(key, "?condition=alzheimers&likelihood_ratio_min=2&age_to=89")
	s := got.Summary
	if s == nil || s.Visit != "newest" || s.Screened != 5 || s.Selected != 3 || val(s.Abstained) != 1 || !close12(val(s.ShareSelected), 0.6) || s.WithoutZ != nil {
		t.Fatalf("%+v", s)
	}
	x := s.Expected
	if x == nil || x.Condition != neuroscreen.Alzheimers || x.Selected == nil || x.Screened.People != 3 || x.Selected.People != 2 ||
		!close12(x.Screened.Share, 0.35) || !close12(x.Screened.Prior, 0.1) || !close12(x.Selected.Share, 0.5) || !close12(x.Selected.Prior, 0.125) ||
		!close12(val(x.NumberNeededToScreen), 5) || !slices.Equal(x.Priors, []CohortPrior{{0.05, 2, 1}, {0.2, 1, 1}}) {
		t.Fatalf("%+v", x)
	}
	if len(got.Scans) != 3 || len(got.Models) != 1 || got.Models[0] != (CohortModel{Model: "alzheimers-scan", Condition: neuroscreen.Alzheimers,
		Evidence: neuroscreen.ExternalCohort, Cohort: saidCohort, Performance: "AUC .8", Limits: saidLimits}) {
		t.Errorf("%d scans, models %+v", len(got.Scans), got.Models)
	}

	if s = e.cohort(key, "?condition=alzheimers").Summary; s.Screened != 6 || s.Selected != 6 || !close12(val(s.ShareSelected), 1) || !close12(s.Expected.Selected.Share, s.Expected.Screened.Share) {
		t.Errorf("without thresholds %+v", s)
	}
	got = e.cohort(key, "?condition=alzheimers&likelihood_ratio_min=1000")
	if s = got.Summary; len(got.Scans) != 0 || s.Selected != 0 || s.Expected == nil || s.Expected.Selected != nil || s.Expected.NumberNeededToScreen != nil || len(got.Models) != 1 {
		t.Errorf("nobody selected: %+v", got)
	}
	if s = e.cohort(key, "?condition=parkinsons&likelihood_ratio_min=1").Summary; s.Screened != 6 || s.Selected != 6 || s.Expected != nil {
		t.Errorf("a condition without priors: %+v", s)
	}
	// Each has z = 1.
	if s = e.cohort(key, "?structure=Left-Hippocampus&z_max=0.9").Summary; s.Screened != 6 || s.Selected != 0 || val(s.WithoutZ) != 0 || s.Abstained != nil || s.Expected != nil {
		t.Errorf("by z: %+v", s)
	}
	if s = e.cohort(key, "?structure=Right-Hippocampus&z_max=0.9").Summary; s.Selected != 0 || val(s.WithoutZ) != 6 {
		t.Errorf("by a z that nobody has: %+v", s)
	}
	empty := e.cohort(e.b.keys[researcher], "?condition=alzheimers&likelihood_ratio_min=2")
	if s = empty.Summary; len(empty.Scans) != 0 || s.Screened != 0 || s.ShareSelected != nil || val(s.Abstained) != 0 || s.Expected != nil || empty.NextCursor != nil {
		t.Errorf("of nobody: %+v", empty)
	}
}

// TestCohortWithholdsProbabilities of which nobody kept what they rest on.
func TestCohortWithholdsProbabilities(t *testing.T) {
	e := setup(t)
	e.join(member{subject: "a", lr: 4, prior: 0.2, unsaid: true})
	got := e.cohort(e.a.keys[researcher], "?condition=alzheimers")
	if s := got.Scans[0].Scores[0]; s.Posterior != nil || s.LikelihoodRatio == nil || len(got.Models) != 0 || got.Summary.Expected != nil || got.Summary.Selected != 1 {
		t.Errorf("%+v", got)
	}
	lines, _ := e.table(e.a.keys[researcher], "")
	if l := lines[0]; l["alzheimers_posterior"] != "" || l["alzheimers_lr"] != "4" {
		t.Errorf("%v", l)
	}
}

// TestCohortIdentities: pseudonyms for researchers; nothing that research was
// refused for, whoever asks; no rejected result.
func TestCohortIdentities(t *testing.T) {
	e := setup(t)
	shown := e.join(member{subject: "SHOWN", lr: 2, prior: 0.1})
	hidden := e.join(member{subject: "HIDDEN", lr: 2, more: map[string]any{"consent_research": false}})
	rejected := e.join(member{subject: "REJECTED", lr: 2})
	e.json("POST", "/v1/cases/"+rejected.ID.String()+"/review", e.a.keys[clinician], `{"decision":"reject","comment":"moved","run":1,"seen":0}`).want(201, "")
	e.json("POST", "/v1/cases/"+shown.ID.String()+"/review", e.a.keys[clinician], `{"decision":"accept","run":1,"seen":0}`).want(201, "")
	for role, subject := range map[neuroscreen.Role]string{researcher: e.store.Pseudonym(e.a.id, "SHOWN"), clinician: "SHOWN", admin: "SHOWN"} {
		got := e.cohort(e.a.keys[role], "")
		if len(got.Scans) != 1 || got.Scans[0].ScanID != shown.ID || got.Scans[0].SubjectID != subject || val(got.Scans[0].Decision) != Accept {
			t.Errorf("%s sees %+v", role, got.Scans)
		}
		lines, raw := e.table(e.a.keys[role], "")
		if len(lines) != 1 || lines[0]["subject_id"] != subject || lines[0]["decision"] != "accept" || bytes.Contains(raw, []byte(hidden.ID.String())) {
			t.Errorf("%s reads %s", role, raw)
		}
	}
	e.do("GET", "/v1/cohorts", e.a.keys[uploader]).want(403, "role-not-allowed")

	var trail AuditList
	e.do("GET", "/v1/audit?scan_id="+shown.ID.String(), e.a.keys[admin]).want(200, "").json(&trail)
	reads := 0
	for _, entry := range trail.Entries {
		if entry.Action == "cohort.read" {
			reads++
		}
	}
	if reads != 6 {
		t.Errorf("the trail of the scan has %d reads", reads)
	}
	e.do("GET", "/v1/audit?scan_id="+hidden.ID.String(), e.a.keys[admin]).json(&trail)
	for _, entry := range trail.Entries {
		if entry.Action == "cohort.read" {
			t.Error("a read of what was not shown")
		}
	}
}

// TestCohortTable: what each cell holds, and that a spreadsheet takes none of
// them for a formula.
func TestCohortTable(t *testing.T) {
	e := setup(t)
	scan := e.join(member{subject: "+person", lr: 4, prior: 0.2,
		more: map[string]any{"age_years": 71.5, "sex": "M", "scan_date": "2024-03-31", "scanner": `=HYPERLINK("https://evil.example"),1`, "manufacturer": "@maker, \"inc\"", "field_strength_t": 3},
		edit: func(r *neuroscreen.Result) {
			icv := 1.5e6
			r.IntracranialVolumeMM3 = &icv
			r.QC.Reasons = []neuroscreen.Reason{{Code: "noise"}, {Code: "motion"}}
			r.Volumes[0].Z = ptrTo(-1.25)
			r.Volumes = append(r.Volumes, neuroscreen.Volume{Structure: "Right-Hippocampus", MM3: 1, LeftOut: true})
			r.Indices = []neuroscreen.Index{{Name: "hoc_left", Value: 0.75}}
			r.Scores = append(r.Scores, neuroscreen.Score{Condition: neuroscreen.Alzheimers, Model: "alzheimers-effects", LikelihoodRatio: ptrTo(3.5), Flag: neuroscreen.FlagNone})
			r.SettingsVersion = 7
		}})
	e.join(member{subject: "abstained", prior: 0.2})
	lines, raw := e.table(e.a.keys[clinician], "?visit=first")
	n := slices.IndexFunc(lines, func(l map[string]string) bool { return l["id"] == scan.ID.String() })
	if len(lines) != 2 || n < 0 {
		t.Fatalf("%s", raw)
	}
	for name, want := range map[string]string{
		"subject_id": "'+person", "scan_date": "2024-03-31", "age": "71.5", "sex": "M", "scanner": `'=HYPERLINK("https://evil.example"),1`,
		"manufacturer": "'@maker, \"inc\"", "field_strength_t": "3", "quality": "pass", "quality_reasons": "noise motion", "decision": "", "left_out": "Right-Hippocampus",
		"segmenter": "neuroscreen", "EstimatedTotalIntraCranialVol": "1500000", "Left-Hippocampus": "3500.5", "Left-Hippocampus_se": "40", "Left-Hippocampus_z": "-1.25",
		"Right-Hippocampus": "", "Left-Amygdala": "", "hoc_left": "0.75", "hoc_right": "",
		"alzheimers_model": "alzheimers-scan", "alzheimers_evidence": "external-cohort", "alzheimers_lr": "4", "alzheimers_lr_low": "2", "alzheimers_lr_high": "8",
		"alzheimers_prior": "0.2", "alzheimers_posterior": "0.5", "alzheimers_flag": "none", "alzheimers_abstained": "", "alzheimers_cohort": saidCohort, "alzheimers_limits": "'" + saidLimits,
		"parkinsons_lr": "1", "parkinsons_posterior": "", "parkinsons_limits": "", "mesial_temporal_sclerosis_lr": "", "mesial_temporal_sclerosis_abstained": "not scored in this test",
		"alzheimers_effects_lr": "3.5", "alzheimers_mmse_lr": "", "result_version": "1", "settings_version": "7", "software_version": "v1", "kernel": "generic",
		"network": "net:aa", "norms": "nomis:bb", "models": "alzheimers_scan.json:cc parkinsons.json:dd", "intended_use": neuroscreen.IntendedUse,
	} {
		if got, ok := lines[n][name]; !ok || got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if got := lines[1-n]["alzheimers_abstained"]; got != "'=because of, \"age\"" {
		t.Errorf("abstained: %q", got)
	}
	for _, line := range lines {
		for name, cell := range line {
			if strings.HasPrefix(name, "'") || cell != "" && strings.ContainsRune("=+@\t\r", rune(cell[0])) {
				t.Errorf("%s begins as a formula: %q", name, cell)
			}
		}
	}
	// The volumes are read as a table of volumes.
	rows, err := table.ReadCSV(bytes.NewReader(raw))
	if err != nil || len(rows) != 2 {
		t.Fatal(rows, err)
	}
	if r := rows[n]; r.ID != scan.ID.String() || val(r.AgeYears) != 71.5 || r.Sex != neuroscreen.Male || val(r.ICVMM3) != 1.5e6 || r.Segmenter != norm.Network || len(r.Volumes) != 1 {
		t.Errorf("%+v", r)
	}
	empty, raw := e.table(e.b.keys[researcher], "")
	if len(empty) != 0 || !bytes.HasPrefix(raw, []byte("id,subject_id,")) {
		t.Errorf("of nobody: %s", raw)
	}
	if a := e.do("HEAD", "/v1/cohorts", e.a.keys[researcher]); a.status != 405 {
		t.Errorf("HEAD: %d", a.status)
	}
}

// TestCohortTableHoldsEveryScore that the models give a scan.
func TestCohortTableHoldsEveryScore(t *testing.T) {
	mmse := 25.0
	scores := model.Default().Score(model.Features{MMSE: &mmse})
	for n, s := range scores {
		if neuroscreen.Deciding(scores, s.Condition) != n && !slices.Contains(scoresBeside, s.Model) {
			t.Errorf("%s has no columns", s.Model)
		}
	}
}

// TestCohortTablePages: a table holds what all pages hold, and one that cannot
// be finished ends with an error.
func TestCohortTablePages(t *testing.T) {
	e := setup(t)
	for n := range 5 {
		e.join(member{subject: fmt.Sprint("s", n), lr: 2})
	}
	ctx := context.WithValue(t.Context(), exchangeKey{}, &exchange{operation: "getCohort", answered: true,
		key: &store.KeyRecord{ID: e.keyID(&e.a, researcher), SiteID: e.a.id, Role: researcher}})
	make := func(ctx context.Context) *cohortTable {
		c := &cohort{Server: e.srv, known: map[string]*CohortModel{}}
		f := store.CohortFilter{Limit: 2}
		scans, next, err := c.page(ctx, f)
		if err != nil {
			t.Fatal(err)
		}
		return &cohortTable{cohort: c, ctx: ctx, filter: f, scans: scans, next: next}
	}
	rec := httptest.NewRecorder()
	if err := make(ctx).write(rec); err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(rec.Body).ReadAll()
	if err != nil || len(rows) != 6 {
		t.Fatalf("%d lines, %v", len(rows), err)
	}
	ids := map[string]bool{}
	for _, row := range rows[1:] {
		ids[row[0]] = true
	}
	if len(ids) != 5 {
		t.Errorf("%d scans", len(ids))
	}

	ctx, cancel := context.WithCancel(ctx)
	half := make(ctx)
	cancel()
	defer func() {
		if recover() != http.ErrAbortHandler {
			t.Error("half a table was left as a whole one")
		}
	}()
	exchangeFrom(ctx).req = httptest.NewRequestWithContext(ctx, "GET", "/v1/cohorts", nil)
	half.VisitGetCohortResponse(httptest.NewRecorder())
}

// TestCohortPaging: the summary comes with the first page, which names all
// people; the pages together hold each scan once.
func TestCohortPaging(t *testing.T) {
	e := setup(t)
	want := map[uuid.UUID]bool{}
	for n := range 5 {
		want[e.join(member{subject: fmt.Sprint("s", n/2), lr: 2, prior: 0.1}).ID] = true
	}
	query, pages := "?condition=alzheimers&limit=2", 0
	for cursor := ""; ; pages++ {
		got := e.cohort(e.a.keys[researcher], query+cursor)
		if (got.Summary != nil) != (pages == 0) || got.Summary != nil && got.Summary.Screened != 3 {
			t.Errorf("page %d: summary %+v", pages, got.Summary)
		}
		if len(got.Models) != 1 { // behind the probabilities of every page
			t.Errorf("page %d: %d models", pages, len(got.Models))
		}
		for _, s := range got.Scans {
			if !want[s.ScanID] {
				t.Errorf("%s again", s.ScanID)
			}
			delete(want, s.ScanID)
		}
		if got.NextCursor == nil {
			break
		}
		cursor = "&cursor=" + *got.NextCursor
		e.join(member{subject: fmt.Sprint("late", pages), lr: 2, prior: 0.1, more: map[string]any{"sex": "M"}})
		query = "?condition=alzheimers&limit=2&sex=F"
	}
	if len(want) != 0 || pages != 2 {
		t.Errorf("%d scans were not seen on %d pages", len(want), pages+1)
	}
}

func TestCohortRefusesParameters(t *testing.T) {
	e := setup(t)
	for query, want := range map[string]struct{ typ, field string }{
		"condition=dementia":       {"invalid-value", "condition"},
		"flag=red":                 {"invalid-value", "flag"},
		"sex=X":                    {"invalid-value", "sex"},
		"quality=refuse":           {"invalid-value", "quality"},
		"visit=last":               {"invalid-value", "visit"},
		"age_from=old":             {"invalid-value", "age_from"},
		"age_from=-1":              {"invalid-value", "age_from"},
		"age_to=NaN":               {"invalid-value", "age_to"},
		"age_from=80&age_to=70":    {"invalid-value", "age_to"},
		"scan_date_from=yesterday": {"invalid-date", "scan_date_from"},
		"scan_date_to=2024-02-30":  {"invalid-date", "scan_date_to"},
		"scan_date_from=2024-02-02&scan_date_to=2024":       {"invalid-date", "scan_date_to"},
		"scan_date_from=2024-02-02&scan_date_to=2024-02-01": {"invalid-value", "scan_date_to"},
		"likelihood_ratio_min=2":                            {"missing-field", "condition"},
		"likelihood_ratio_min=-2&condition=alzheimers":      {"invalid-value", "likelihood_ratio_min"},
		"likelihood_ratio_min=Inf&condition=alzheimers":     {"invalid-value", "likelihood_ratio_min"},
		"z_max=-1.5":                         {"missing-field", "structure"},
		"structure=Left-Hippocampus":         {"missing-field", "z_max"},
		"structure=Hippocampus&z_max=-1.5":   {"invalid-value", "structure"},
		"structure=Left-Hippocampus&z_max=x": {"invalid-value", "z_max"},
		"limit=0":                            {"invalid-value", "limit"},
		"cursor=" + url.QueryEscape("never"): {"invalid-value", "cursor"},
		"sex=F&sex=M":                        {"invalid-value", "sex"},
		"sexes=F":                            {"unknown-parameter", "sexes"},
		"scanner=%00":                        {"invalid-value", "scanner"},
	} {
		if a := e.do("GET", "/v1/cohorts?"+query, e.a.keys[researcher]).want(400, want.typ); val(a.problem.Field) != want.field {
			t.Errorf("%s blames %q, want %q", query, val(a.problem.Field), want.field)
		}
	}
	for _, field := range []string{"limit", "cursor"} {
		a := e.do("GET", "/v1/cohorts?"+field+"=1", e.a.keys[researcher], header("Accept", "text/csv")).want(400, "invalid-value")
		if val(a.problem.Field) != field {
			t.Errorf("a table with %s: %s", field, a.body)
		}
	}
}

func TestWantsTable(t *testing.T) {
	for accept, want := range map[string]bool{
		"": false, "*/*": false, "application/json": false, "text/csv": true, "text/csv; charset=utf-8": true, "text/csv, */*": true,
		"application/json, text/csv": false, "application/json;q=0.5, text/csv": true, "text/csv;q=0.1, application/json": false, "text/csv;q=0": false,
		"text/html": false, ";;, text/csv": true, "text/csv;q=x": false,
	} {
		r := httptest.NewRequest("GET", "/v1/cohorts", nil)
		r.Header.Set("Accept", accept)
		if got := wantsTable(r); got != want {
			t.Errorf("%q: %v", accept, got)
		}
	}
}
