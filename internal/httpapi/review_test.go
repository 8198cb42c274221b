package httpapi

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"neuroscreen"
	"neuroscreen/internal/memory"
	"neuroscreen/internal/nifti"
	"neuroscreen/internal/pipeline"
	"neuroscreen/internal/report"
	"neuroscreen/internal/store"
)

func (e *env) json(method, path, key, body string) *answer {
	e.Helper()
	return e.do(method, path, key, withBody("application/json", []byte(body)))
}

func (e *env) list(query, key string) []Case {
	e.Helper()
	var list CaseList
	a := e.do("GET", "/v1/cases"+query, key)
	a.want(200, "")
	a.json(&list)
	return list.Cases
}

func TestReview(t *testing.T) {
	e := setup(t)
	key := e.a.keys[clinician]
	scan := e.upload(&e.a, "SUBJ-17", 1)
	at := "/v1/cases/" + scan.ID.String()
	e.json("POST", at+"/review", key, `{"decision":"accept","run":1,"seen":0}`).want(409, "scan-running")
	e.finish(scan.ID, scoredOutcome(neuroscreen.FlagFlagged))

	for name, tt := range map[string]struct {
		body, typ, field string
		status           int
	}{
		"reject without a word":       {`{"decision":"reject","run":1,"seen":0}`, "missing-field", "comment", 400},
		"amend with blanks":           {`{"decision":"amend","comment":"  ","run":1,"seen":0}`, "missing-field", "comment", 400},
		"accept and leave out":        {`{"decision":"accept","excluded":["Left-Hippocampus"],"run":1,"seen":0}`, "invalid-value", "excluded", 400},
		"accept and take back in":     {`{"decision":"accept","excluded":[],"run":1,"seen":0}`, "invalid-value", "excluded", 400},
		"leave out what is not there": {`{"decision":"amend","comment":"x","excluded":["Left-Liver"],"run":1,"seen":0}`, "invalid-value", "excluded", 400},
		"an unknown decision":         {`{"decision":"maybe","run":1,"seen":0}`, "invalid-value", "decision", 400},
		"another run":                 {`{"decision":"accept","run":2,"seen":0}`, "result-changed", "", 409},
		"a decision not there":        {`{"decision":"accept","run":1,"seen":1}`, "reviewed-meanwhile", "", 409},
	} {
		t.Run(name, func(t *testing.T) {
			a := e.in(t).json("POST", at+"/review", key, tt.body)
			a.want(tt.status, tt.typ)
			if val(a.problem.Field) != tt.field {
				t.Errorf("field %q, want %q", val(a.problem.Field), tt.field)
			}
		})
	}
	if open := e.list("?review=open", key); len(open) != 1 || open[0].Decision != nil {
		t.Errorf("open: %+v", open)
	}

	a := e.json("POST", at+"/review", key, `{"decision":"amend","comment":"label of Mrs Miller runs into the choroid plexus","run":1,"seen":0}`)
	a.want(201, "")
	// A second reader who opened the case before must not decide unknowingly.
	e.json("POST", at+"/review", e.a.keys[admin], `{"decision":"accept","run":1,"seen":0}`).want(409, "reviewed-meanwhile")
	e.json("POST", at+"/review", e.a.keys[admin], `{"decision":"reject","comment":"motion","run":1,"seen":1}`).want(201, "")

	var history ReviewList
	a = e.do("GET", at+"/review", key)
	a.json(&history)
	if len(history.Reviews) != 2 || history.Reviews[0].Decision != "amend" || !history.Reviews[0].Mine || history.Reviews[1].By != "admin" ||
		history.Reviews[1].Mine || history.Reviews[0].ResultVersion != 1 || history.Reviews[0].MadeVersion != nil || history.Reviews[1].Number != 2 {
		t.Errorf("history: %s", a.body)
	}
	if strings.Contains(string(e.do("GET", at+"/review", e.a.keys[researcher]).body), "Miller") {
		t.Error("a researcher reads the comment")
	}
	decided := e.list("?review=decided", key)
	if len(decided) != 1 || decided[0].Decision == nil || decided[0].Decision.Decision != "reject" || decided[0].Decision.By != "admin" {
		t.Errorf("decided: %+v", decided)
	}
	if n := len(e.list("?review=open", key)); n != 0 {
		t.Errorf("%d cases open", n)
	}

	// A new result is to be decided on anew; the history stays.
	e.json("PATCH", "/v1/scans/"+scan.ID.String(), key, `{"age_years":70}`).want(200, "")
	e.finish(scan.ID, scoredOutcome(neuroscreen.FlagNone))
	if open := e.list("?review=open", key); len(open) != 1 || open[0].Run != 2 || open[0].Decision != nil {
		t.Errorf("open after a correction: %+v", open)
	}
	e.do("GET", at+"/review", key).json(&history)
	if len(history.Reviews) != 2 {
		t.Errorf("%d decisions left", len(history.Reviews))
	}

	e.json("POST", at+"/review", key, `{"decision":"accept","run":2,"seen":0}`).want(201, "")

	// Refused now, it has no result: to note that accepts none.
	e.json("PATCH", "/v1/scans/"+scan.ID.String(), key, `{"age_years":71}`).want(200, "")
	e.finish(scan.ID, store.Outcome{State: neuroscreen.Refused, Reasons: []neuroscreen.Reason{{Code: "not-a-brain", Text: "this is not a brain"}}})
	e.json("POST", at+"/review", key, `{"decision":"accept","run":3,"seen":0}`).want(201, "")
	e.do("GET", at+"/review", key).json(&history)
	if r := history.Reviews; len(r) != 4 || r[3].ResultVersion != 0 {
		t.Errorf("%+v", r)
	}
	if c := e.list("", key); len(c) != 1 || c[0].ResultVersion != 0 {
		t.Errorf("%+v", c)
	}
	page := string(e.do("GET", "/v1/scans/"+scan.ID.String()+"/report.html?version=2", key).body)
	if !strings.Contains(page, "This result does not stand any more: the scan was analysed again and refused.") || !strings.Contains(page, "Accepted by clinician") {
		t.Error("the report of what was withdrawn looks current")
	}

	trail := string(e.do("GET", "/v1/audit?scan_id="+scan.ID.String(), e.a.keys[admin]).body)
	for _, action := range []string{"case.amend", "case.reject", "case.accept"} {
		if !strings.Contains(trail, action) {
			t.Errorf("%s is not in the trail", action)
		}
	}
	if strings.Contains(trail, "Miller") {
		t.Error("the trail holds the comment")
	}
	if strings.Contains(e.log.String(), "Miller") {
		t.Error("the log holds the comment")
	}

	e.do("DELETE", "/v1/scans/"+scan.ID.String(), e.a.keys[admin]).want(204, "")
}

// TestLeaveOut: to leave a structure out makes a new result version, which is
// to be decided on; the one before stays readable.
func TestLeaveOut(t *testing.T) {
	broken := false
	e := setup(t, func(c *Config) {
		whole := c.Rescore
		c.Rescore = func(old neuroscreen.Result, m neuroscreen.Metadata, s pipeline.Settings, a neuroscreen.Amendment) (*neuroscreen.Result, report.Reading, error) {
			if broken {
				panic("a fault of this test")
			}
			if m.AgeYears == nil || s.Model.AlzheimersReviewLR != 0 {
				t.Errorf("metadata %+v, settings %+v", m, s)
			}
			return whole(old, m, s, a)
		}
	})
	key := e.a.keys[clinician]
	scan := e.upload(&e.a, "SUBJ-17", 1)
	e.finish(scan.ID, scoredOutcome(neuroscreen.FlagFlagged))
	at, of := "/v1/cases/"+scan.ID.String(), "/v1/scans/"+scan.ID.String()
	amend := func(e *env, key, excluded string, run, seen int) *answer {
		return e.json("POST", at+"/review", key, fmt.Sprintf(`{"decision":"amend","comment":"Mrs Miller: runs into the horn","excluded":%s,"run":%d,"seen":%d}`, excluded, run, seen))
	}
	result := func(query string) (r neuroscreen.Result) {
		e.Helper()
		a := e.do("GET", of+"/result"+query, key)
		a.want(200, "")
		a.json(&r)
		return r
	}
	before := string(e.do("GET", of+"/result?version=1", key).body)

	t.Run("roles", func(t *testing.T) {
		for _, role := range []neuroscreen.Role{uploader, researcher} {
			amend(e.in(t), e.a.keys[role], `["Left-Hippocampus"]`, 1, 0).want(403, "role-not-allowed")
		}
		amend(e.in(t), e.b.keys[clinician], `["Left-Hippocampus"]`, 1, 0).want(404, "scan-not-found")
	})
	t.Run("a failure leaves the result and says so", func(t *testing.T) {
		e := e.in(t)
		broken = true
		a := amend(e, key, `["Left-Hippocampus"]`, 1, 0)
		broken = false
		a.want(500, "rescoring-failed")
		if !strings.Contains(val(a.problem.Detail), "nothing was changed, and version 1 stands") {
			t.Errorf("%s", a.body)
		}
		if got := string(e.do("GET", of+"/result", key).body); got != before {
			t.Error("the result is another")
		}
		var history ReviewList
		e.do("GET", at+"/review", key).json(&history)
		if len(history.Reviews) != 0 {
			t.Errorf("%+v", history.Reviews)
		}
	})

	var made Review
	a := amend(e, key, `["Left-Hippocampus"]`, 1, 0)
	a.want(201, "")
	a.json(&made)
	if made.Number != 1 || made.ResultVersion != 1 || val(made.MadeVersion) != 2 {
		t.Errorf("%s", a.body)
	}
	r := result("")
	if l := r.Amendment.LeftOut; r.Amendment.FromVersion != 1 || len(l) != 1 || l[0].Decision != 1 || !r.Volumes[0].LeftOut || r.Volumes[0].MM3 != 3500.5 || r.Scores[0].AbstainedType != neuroscreen.StructureExcluded {
		t.Errorf("%+v, volumes %+v", r.Amendment, r.Volumes)
	}
	if got := string(e.do("GET", of+"/result?version=1", key).body); got != before {
		t.Error("version 1 is another now")
	}
	if c := e.list("?review=open", key); len(c) != 1 || c[0].ResultVersion != 2 || *c[0].Flag != "none" || c[0].Decision != nil || *c[0].Condition != "parkinsons" {
		t.Errorf("%+v", c)
	}
	for _, file := range []string{"/segmentation.nii.gz", "/preview.png", "/reading.json"} {
		e.do("GET", of+file, key).want(200, "")
	}
	if a, b := e.do("GET", of+"/segmentation.nii.gz", key), e.do("GET", of+"/segmentation.nii.gz?version=1", key); !bytes.Equal(a.body, b.body) {
		t.Error("the label map is another")
	}

	t.Run("the reports", func(t *testing.T) {
		e := e.in(t)
		page := string(e.do("GET", of+"/report.html", key).body)
		for _, want := range []string{"Left out by clinician, ", "“Mrs Miller: runs into the horn” Shown and used for nothing; scored anew from the volumes of version 1.", "Not reviewed."} {
			if !strings.Contains(page, want) {
				t.Errorf("the report lacks %q", want)
			}
		}
		page = string(e.do("GET", of+"/report.html?version=1", key).body)
		for _, want := range []string{"Amended by clinician", "Version 2 has taken its place.", "Version 2 was scored without."} {
			if !strings.Contains(page, want) {
				t.Errorf("the report of version 1 lacks %q", want)
			}
		}
		if strings.Contains(string(e.do("GET", of+"/report.html", e.a.keys[researcher]).body), "Miller") {
			t.Error("a researcher reads the comment")
		}
		e.do("GET", of+"/report.pdf", key).want(200, "")
	})
	t.Run("said again it is the same", func(t *testing.T) {
		var again Review
		a := amend(e.in(t), key, `["Left-Hippocampus"]`, 1, 0)
		a.want(201, "")
		a.json(&again)
		if again.Number != 1 || !again.At.Equal(made.At) || result("").Amendment.FromVersion != 1 {
			t.Errorf("%s", a.body)
		}
		amend(e.in(t), e.a.keys[admin], `["Left-Hippocampus"]`, 1, 0).want(409, "result-changed")
	})
	t.Run("what is left out already makes no version", func(t *testing.T) {
		e := e.in(t)
		amend(e, key, `["Left-Hippocampus","Left-Hippocampus"]`, 2, 0).want(400, "invalid-value") // twice
		e.json("POST", at+"/review", key, `{"decision":"amend","comment":"as it is","run":2,"seen":0}`).want(201, "")
		a := amend(e, key, `["Left-Hippocampus"]`, 2, 1)
		a.want(201, "")
		var rec Review
		a.json(&rec)
		if rec.MadeVersion != nil || result("").Amendment.FromVersion != 1 {
			t.Errorf("%s", a.body)
		}
	})
	t.Run("taken back in", func(t *testing.T) {
		amend(e.in(t), key, `[]`, 2, 2).want(201, "")
		if r := result(""); len(r.Amendment.LeftOut) != 0 || r.Amendment.FromVersion != 2 || r.Scores[0].Flag != neuroscreen.FlagFlagged {
			t.Errorf("%+v", r.Amendment)
		}
	})
	if trail := string(e.do("GET", "/v1/audit?scan_id="+scan.ID.String(), e.a.keys[admin]).body); !strings.Contains(trail, "version 2 leaves out: Left-Hippocampus") || strings.Contains(trail, "Miller") {
		t.Errorf("%s", trail)
	}
	e.do("DELETE", of, e.a.keys[admin]).want(204, "")
}

// TestNothingToLeaveOut: a refused scan has no result that could be amended.
func TestNothingToLeaveOut(t *testing.T) {
	e := setup(t)
	scan := e.upload(&e.a, "S", 1)
	e.finish(scan.ID, store.Outcome{State: neuroscreen.Refused, Reasons: []neuroscreen.Reason{{Code: "not-a-brain", Text: "this is not a brain"}}})
	e.json("POST", "/v1/cases/"+scan.ID.String()+"/review", e.a.keys[clinician], `{"decision":"amend","comment":"x","excluded":["CSF"],"run":1,"seen":0}`).want(409, "scan-refused")
}

func TestRefusedCasesAreDecidedOnToo(t *testing.T) {
	e := setup(t)
	scan := e.upload(&e.a, "S", 1)
	e.finish(scan.ID, store.Outcome{State: neuroscreen.Refused, Reasons: []neuroscreen.Reason{{Code: "not-a-brain", Text: "this is not a brain"}}})
	key := e.a.keys[clinician]
	if c := e.list("?review=open", key); len(c) != 1 || c[0].Why != "this is not a brain" {
		t.Errorf("%+v", c)
	}
	e.json("POST", "/v1/cases/"+scan.ID.String()+"/review", key, `{"decision":"accept","run":1,"seen":0}`).want(201, "")
	if c := e.list("?review=open", key); len(c) != 0 {
		t.Errorf("%+v", c)
	}
}

func TestHold(t *testing.T) {
	e := setup(t)
	scan := e.upload(&e.a, "S", 1)
	e.finish(scan.ID, scoredOutcome(neuroscreen.FlagFlagged))
	at := "/v1/cases/" + scan.ID.String()
	one, two := e.a.keys[clinician], e.a.keys[admin]

	var hold Hold
	a := e.json("PUT", at+"/hold", one, `{}`)
	a.want(200, "")
	a.json(&hold)
	if !hold.Mine || hold.By != "clinician" || hold.Until.Sub(hold.Since) != holdFor {
		t.Errorf("hold: %s", a.body)
	}
	e.json("PUT", at+"/hold", one, `{}`).want(200, "") // goes on
	a = e.json("PUT", at+"/hold", two, `{}`)
	a.want(409, "case-held")
	if !strings.HasPrefix(val(a.problem.Detail), "clinician has had this case open since") {
		t.Errorf("detail %q", val(a.problem.Detail))
	}
	if c := e.list("", two)[0]; c.Held == nil || c.Held.Mine || c.Held.By != "clinician" {
		t.Errorf("case %+v", c.Held)
	}
	e.json("POST", at+"/review", two, `{"decision":"accept","run":1,"seen":0}`).want(409, "case-held")
	e.do("DELETE", at+"/hold", two).want(204, "") // not his
	e.json("POST", at+"/review", two, `{"decision":"accept","run":1,"seen":0}`).want(409, "case-held")

	e.json("PUT", at+"/hold", two, `{"take_over":true}`).want(200, "")
	e.json("POST", at+"/review", one, `{"decision":"accept","run":1,"seen":0}`).want(409, "case-held")
	e.do("DELETE", at+"/hold", two).want(204, "")
	e.json("POST", at+"/review", one, `{"decision":"accept","run":1,"seen":0}`).want(201, "")
	if c := e.list("", two)[0]; c.Held != nil {
		t.Errorf("still held: %+v", c.Held)
	}
}

func TestSearchCases(t *testing.T) {
	e := setup(t)
	e.upload(&e.a, "one", 1)
	e.post(&e.a, []part{{name: "metadata", body: metadata(map[string]any{"subject_id": "two", "accession_number": "ACC-99"})}, {name: "scan", body: image(t, 2)}})
	e.upload(&e.b, "one of another site", 3)
	e.json("POST", "/v1/cases/search", e.a.keys[clinician], `{"part":"on"}`).want(400, "invalid-value")
	e.json("POST", "/v1/cases/search", e.a.keys[researcher], `{"part":"one"}`).want(403, "role-not-allowed")
	for body, want := range map[string]string{`{"part":"ONE"}`: "one", `{"part":"c-9"}`: "two", `{"part":"tw%"}`: "", `{"part":"one","subject_id":"two"}`: "",
		`{"subject_id":"one"}`: "one", `{"accession_number":"ACC-99"}`: "two", `{"accession_number":"  "}`: "", `{"subject_id":"three"}`: "", `{"subject_id":"one","accession_number":"ACC-99"}`: ""} {
		a := e.json("POST", "/v1/cases/search", e.a.keys[clinician], body)
		a.want(200, "")
		var list CaseList
		a.json(&list)
		got := ""
		for _, c := range list.Cases {
			got += c.SubjectID
		}
		if got != want {
			t.Errorf("%s: %q, want %q", body, got, want)
		}
	}
}

func TestCaseStream(t *testing.T) {
	e := setup(t, func(c *Config) { c.StreamFor = 10 * time.Second })
	res, err := e.client.Do(e.request("GET", "/v1/cases/events", e.a.keys[clinician]))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	next := func() (c CaseCounts) {
		t.Helper()
		for lines.Scan() {
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				if err := json.Unmarshal([]byte(data), &c); err != nil {
					t.Fatal(err)
				}
				return c
			}
		}
		t.Fatal("the stream ended: ", lines.Err())
		return c
	}
	if c := next(); c.Running != 0 || c.ChangedAt != nil {
		t.Errorf("at first %+v", c)
	}
	scan := e.upload(&e.a, "S", 1)
	if c := next(); c.Running != 1 {
		t.Errorf("after an upload %+v", c)
	}
	e.upload(&e.b, "S", 2) // another site's: nothing is said
	w := e.take(scan.ID)
	w.finish(scoredOutcome(neuroscreen.FlagFlagged))
	c := next()
	for c.Running == 1 {
		c = next() // stages
	}
	if c.Flagged != 1 || c.Running != 0 {
		t.Errorf("once it is scored %+v", c)
	}
}

// TestImage: what the viewer gets has the posted voxels on the posted grid.
func TestImage(t *testing.T) {
	e := setup(t)
	scan := e.upload(&e.a, "S", 7)
	a := e.do("GET", "/v1/scans/"+scan.ID.String()+"/image.nii.gz", e.a.keys[clinician])
	a.want(200, "")
	got, err := nifti.Decode(bytes.NewReader(a.body), nifti.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	want, err := nifti.Decode(bytes.NewReader(image(t, 7)), nifti.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(got.Shape) != fmt.Sprint(want.Shape) || got.Affine != want.Affine || fmt.Sprint(got.Data) != fmt.Sprint(want.Data) {
		t.Errorf("shape %v, affine %v; want %v, %v", got.Shape, got.Affine, want.Shape, want.Affine)
	}
	e.do("GET", "/v1/scans/"+scan.ID.String()+"/image.nii.gz", e.a.keys[clinician], header("If-None-Match", a.header.Get("ETag"))).want(304, "")
}

// TestImageWaitsForMemory that others take, for a while; one that never fits is
// refused.
func TestImageWaitsForMemory(t *testing.T) {
	gate := memory.NewGate(6 * 8 * 9 * 10) // of the test's image exactly
	e := setup(t, func(c *Config) { c.Memory, c.MemoryIn = gate, 50*time.Millisecond })
	at := "/v1/scans/" + e.upload(&e.a, "S", 7).ID.String() + "/image.nii.gz"
	leave, err := gate.Enter(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	a := e.do("GET", at, e.a.keys[clinician])
	a.want(503, "memory-busy")
	if a.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	leave()
	e.do("GET", at, e.a.keys[clinician]).want(200, "")
	wantEmpty(t, gate)
}

// wantEmpty waits for the end of the requests that were answered.
func wantEmpty(t *testing.T, gate *memory.Gate) {
	t.Helper()
	for end := time.Now().Add(time.Minute); gate.Used() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d bytes stay taken", gate.Used())
		}
	}
}

func TestImageLargerThanMemory(t *testing.T) {
	e := setup(t, func(c *Config) { c.Memory = memory.NewGate(6*8*9*10 - 1) })
	e.do("GET", "/v1/scans/"+e.upload(&e.a, "S", 7).ID.String()+"/image.nii.gz", e.a.keys[clinician]).want(422, "too-many-voxels")
}

func TestImageOfAScanWhoseBytesAreGone(t *testing.T) {
	e := setup(t)
	scan := e.upload(&e.a, "S", 7)
	e.finish(scan.ID, scoredOutcome(neuroscreen.FlagNone))
	if n, _, err := e.store.ForgetBytes(t.Context(), time.Now().Add(time.Hour)); n != 1 || err != nil {
		t.Fatalf("%d forgotten, %v", n, err)
	}
	e.do("GET", "/v1/scans/"+scan.ID.String()+"/image.nii.gz", e.a.keys[clinician]).want(409, "scan-bytes-removed")
	e.do("GET", "/v1/scans/"+scan.ID.String()+"/report.html", e.a.keys[clinician]).want(200, "")
}

func TestSixteenBits(t *testing.T) {
	nan := float32(math.NaN())
	for _, tt := range []struct {
		in   []float32
		want []int16
	}{
		{[]float32{-3, 0, 700}, []int16{-3, 0, 700}},
		{[]float32{0, 0.5, 1}, []int16{0, 2048, 4095}},
		{[]float32{0, 40950, nan}, []int16{0, 4095, 0}},
		{[]float32{0.5, 0.5}, []int16{0, 0}},
	} {
		if got := sixteenBits(tt.in); fmt.Sprint(got) != fmt.Sprint(tt.want) {
			t.Errorf("%v: %v, want %v", tt.in, got, tt.want)
		}
	}
}

// TestReportsShowTheDecision: a reader of the record must see whether, and how,
// somebody decided.
func TestReportsShowTheDecision(t *testing.T) {
	e := setup(t)
	key := e.a.keys[clinician]
	scan := e.upload(&e.a, "SUBJ-17", 1)
	e.finish(scan.ID, scoredOutcome(neuroscreen.FlagFlagged))
	at := "/v1/scans/" + scan.ID.String()
	for paper, box := range map[string]string{"": "/MediaBox [0 0 595.28 841.89]", "?paper=a4": "/MediaBox [0 0 595.28 841.89]", "?paper=letter": "/MediaBox [0 0 612.00 792.00]"} {
		if a := e.do("GET", at+"/report.pdf"+paper, key); !strings.Contains(string(a.body), box) {
			t.Errorf("report.pdf%s is not %s", paper, box)
		}
	}
	e.do("GET", at+"/report.pdf?paper=a5", key).want(400, "invalid-value")
	a := e.do("GET", at+"/report.html", key)
	a.want(200, "")
	for _, want := range []string{"SUBJ-17", "Not reviewed", "A cohort of this test."} {
		if !strings.Contains(string(a.body), want) {
			t.Errorf("the report lacks %q", want)
		}
	}
	if policy := a.header.Get("Content-Security-Policy"); !strings.Contains(policy, "style-src 'sha256-") || strings.Contains(policy, "unsafe") || strings.Contains(string(a.body), " style=") {
		t.Errorf("policy %q", policy)
	}
	again := e.do("GET", at+"/report.html", key, header("If-None-Match", a.header.Get("ETag")))
	again.want(304, "")
	if again.header.Get("Content-Security-Policy") != a.header.Get("Content-Security-Policy") {
		t.Error("304 carries another policy, which browsers would put on the page that they have")
	}
	e.json("POST", "/v1/cases/"+scan.ID.String()+"/review", key, `{"decision":"reject","comment":"labels beside the anatomy","run":1,"seen":0}`).want(201, "")
	a = e.do("GET", at+"/report.html", key, header("If-None-Match", a.header.Get("ETag")))
	a.want(200, "")
	for _, want := range []string{"Rejected", "clinician", "labels beside the anatomy"} {
		if !strings.Contains(string(a.body), want) {
			t.Errorf("the report lacks %q", want)
		}
	}
	if a := e.do("GET", at+"/report.pdf", key); a.status != 200 || !bytes.HasPrefix(a.body, []byte("%PDF-")) {
		t.Errorf("PDF: %d, %.20q", a.status, a.body)
	}
}

// TestPolicies: no page may run or take anything from elsewhere.
func TestPolicies(t *testing.T) {
	e := setup(t)
	for _, path := range []string{"/", "/docs", "/problems/csrf", "/assets/main-1.js", "/healthz"} {
		a := e.do("GET", path, "")
		policy := a.header.Get("Content-Security-Policy")
		if !strings.HasPrefix(policy, "default-src 'none'") || strings.Contains(policy, "unsafe") || strings.Contains(policy, "http") {
			t.Errorf("%s: %q", path, policy)
		}
	}
	for _, path := range []string{"/docs", "/problems/csrf"} {
		if a := e.do("GET", path, ""); bytes.Contains(a.body, []byte(" style=")) {
			t.Errorf("%s has a style that its policy forbids", path)
		}
	}
}

func TestWithoutPages(t *testing.T) {
	e := setup(t, func(c *Config) { c.Pages = nil })
	a := e.do("GET", "/", "")
	if a.want(200, ""); !strings.Contains(string(a.body), "make build") {
		t.Errorf("%s", a.body)
	}
	e.do("GET", "/assets/main-1.js", "").want(404, "not-found")
}
