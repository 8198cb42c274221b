package httpapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"neuroscreen"
	"neuroscreen/internal/store"
)

const someEvents = "onset\tduration\ttrial_type\trun\tname\n0\t6\tface\t1\tDoe^Jane\n12\t6\thouse\t1\tDoe^Jane\n40\t6\tface\t2\tDoe^Jane\n52\t6\trest\t2\tDoe^Jane\n"

// bold posts a functional run; what is in it is for workers.
func (e *env) bold(s *site, subject string, seed int16) Scan {
	e.Helper()
	a := e.post(s, []part{{name: "metadata", body: metadata(map[string]any{"subject_id": subject, "modality": "bold", "tr_s": 2})}, {name: "scan", file: "x.nii.gz", body: image(e, seed)}})
	a.want(202, "")
	var scan Scan
	a.json(&scan)
	return scan
}

func decodingOfScans(edit func(map[string]any), scans ...Scan) func(*http.Request) {
	var runs []map[string]any
	for _, s := range scans {
		runs = append(runs, map[string]any{"scan_id": s.ID, "events": someEvents})
	}
	m := map[string]any{"runs": runs}
	if edit != nil {
		edit(m)
	}
	b, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return withBody("application/json", b)
}

// decoded plays the worker of a decoding to its end.
func (e *env) decoded(id uuid.UUID) []byte {
	e.Helper()
	l, err := e.store.LeaseDecoding(e.Context(), e.a.id, id, "test", time.Minute)
	if err != nil {
		e.Fatal(err)
	}
	weights := []byte("weights of " + id.String())
	info, err := e.blobs.Put(e.Context(), bytes.NewReader(weights), nil)
	if err != nil {
		e.Fatal(err)
	}
	p := 0.02
	result := &neuroscreen.Decoding{Schema: neuroscreen.DecodingSchema, Evidence: neuroscreen.Experimental, Version: "test", DecodingOptions: l.Decoding.Options,
		Runs: []string{"1", "2"}, Conditions: []string{"face", "house"}, RunAccuracy: []float64{1, 0.5}, Confusion: [][]int{{2, 0}, {0, 1}}, Accuracy: 0.75, P: &p}
	for _, r := range l.Decoding.Runs {
		result.Files = append(result.Files, neuroscreen.DecodingFile{ScanID: r.ScanID.String(), SHA256: strings.Repeat("0", 64), TRSeconds: 2, TRFrom: "metadata", Notes: []neuroscreen.Reason{}})
	}
	if err := e.store.FinishDecoding(e.Context(), l, store.DecodingOutcome{State: neuroscreen.DecodingDone, Result: result, WeightsKey: info.Key, WeightsSize: info.Size}); err != nil {
		e.Fatal(err)
	}
	return weights
}

// someDecoding is one of site a that has ended.
func (e *env) someDecoding() uuid.UUID {
	e.Helper()
	var d Decoding
	e.do("POST", "/v1/decodings", e.a.keys[researcher], decodingOfScans(nil, e.bold(&e.a, "of a decoding", 7))).want(202, "").json(&d)
	e.decoded(d.ID)
	return d.ID
}

func TestDecoding(t *testing.T) {
	e := setup(t)
	key := e.a.keys[researcher]
	one, two := e.bold(&e.a, "S", 1), e.bold(&e.a, "S", 2)
	a := e.do("POST", "/v1/decodings", key, decodingOfScans(nil, one, two), header("Idempotency-Key", "first"))
	a.want(202, "")
	var d Decoding
	a.json(&d)
	at := "/v1/decodings/" + d.ID.String()
	if a.header.Get("Location") != at || d.State != neuroscreen.DecodingReceived || d.Result != nil || len(d.Runs) != 2 || d.Runs[1].Events != 4 ||
		d.Options.LagSeconds != 5 || d.Options.Permutations != 200 || fmt.Sprint(d.Options.Ignore) != "[rest n/a]" {
		t.Errorf("%s", a.body)
	}
	if strings.Contains(string(a.body), "Doe") {
		t.Error("the answer repeats other columns of the table")
	}
	// The same again, and another request under the same key.
	again := e.do("POST", "/v1/decodings", key, decodingOfScans(nil, one, two), header("Idempotency-Key", "first"))
	again.want(200, "")
	if again.header.Get("Location") != at {
		t.Errorf("%s, want %s", again.header.Get("Location"), at)
	}
	e.do("POST", "/v1/decodings", key, decodingOfScans(nil, two, one), header("Idempotency-Key", "first")).want(422, "idempotency-key-reused")
	e.do("GET", at+"/weights.nii.gz", key).want(409, "decoding-not-ready")

	weights := e.decoded(d.ID)
	a = e.do("GET", at, key)
	a.want(200, "")
	a.json(&d)
	if d.State != neuroscreen.DecodingDone || d.Result == nil || d.Result.Accuracy != 0.75 || d.FinishedAt == nil || d.Attempt != 1 {
		t.Errorf("%s", a.body)
	}
	w := e.do("GET", at+"/weights.nii.gz", key)
	w.want(200, "")
	if !bytes.Equal(w.body, weights) {
		t.Errorf("weights %q", w.body)
	}
	if a := e.do("GET", at+"/weights.nii.gz", key, header("If-None-Match", w.header.Get("ETag"))); a.status != 304 {
		t.Errorf("%d with the tag", a.status)
	}
	var list DecodingList
	e.do("GET", "/v1/decodings?scan_id="+two.ID.String(), key).want(200, "").json(&list)
	if len(list.Decodings) != 1 || list.Decodings[0].ID != d.ID || list.Decodings[0].Runs[1].Events != 4 || list.Decodings[0].Result == nil {
		t.Errorf("%+v", list)
	}
	e.do("GET", "/v1/decodings?scan_id="+uuid.NewString(), key).want(200, "").json(&list)
	if len(list.Decodings) != 0 {
		t.Errorf("of another scan: %+v", list)
	}
	e.do("DELETE", at, key).want(204, "")
	e.do("GET", at, key).want(404, "decoding-not-found")
	e.do("GET", at+"/weights.nii.gz", key).want(404, "decoding-not-found")

	trail := string(e.do("GET", "/v1/audit", e.a.keys[admin]).body)
	for _, action := range []string{"decoding.create", "decoding.decoded", "decoding.read", "decoding.weights", "decodings.list", "decoding.erase"} {
		if !strings.Contains(trail, `"`+action+`"`) {
			t.Errorf("the audit trail lacks %s", action)
		}
	}
}

func TestDecodingRefusesRequests(t *testing.T) {
	e := setup(t)
	one, other, anatomy := e.bold(&e.a, "S", 1), e.bold(&e.a, "another", 2), e.upload(&e.a, "S", 3)
	run := func(change map[string]any) func(map[string]any) {
		return func(m map[string]any) {
			for k, v := range change {
				m["runs"].([]map[string]any)[0][k] = v
			}
		}
	}
	table := func(text string) func(map[string]any) { return run(map[string]any{"events": text}) }
	for name, c := range map[string]struct {
		body   func(*http.Request)
		status int
		typ    string
		field  string
	}{
		"no runs":             {withBody("application/json", []byte(`{"runs":[]}`)), 400, "invalid-value", "runs"},
		"a misspelt field":    {decodingOfScans(func(m map[string]any) { m["permutation"] = 3 }, one), 400, "unknown-field", "permutation"},
		"too many":            {decodingOfScans(func(m map[string]any) { m["permutations"] = 1001 }, one), 400, "invalid-value", "permutations"},
		"a NUL in the table":  {decodingOfScans(table("onset\tduration\ttrial_type\n0\t1\ta\x00\n"), one), 400, "invalid-value", "events"},
		"no table":            {decodingOfScans(table("face,house"), one), 422, "events-invalid", "runs.0.events"},
		"an empty table":      {decodingOfScans(table("onset\tduration\ttrial_type\n"), one), 422, "events-invalid", "runs.0.events"},
		"a long name":         {decodingOfScans(table("onset\tduration\ttrial_type\n0\t1\t"+strings.Repeat("a", 65)+"\n"), one), 422, "events-invalid", "runs.0.events"},
		"one run":             {decodingOfScans(table("onset\tduration\ttrial_type\n0\t1\ta\n9\t1\tb\n"), one), 422, "too-few-events", "run"},
		"one condition":       {decodingOfScans(func(m map[string]any) { m["ignore"] = []string{"rest", "house"} }, one), 422, "too-few-events", "trial_type"},
		"the same scan twice": {decodingOfScans(nil, one, one), 422, "file-twice", "runs.1.scan_id"},
		"no such scan":        {decodingOfScans(run(map[string]any{"scan_id": uuid.New()}), one), 404, "scan-not-found", "runs.0.scan_id"},
		"no functional run":   {decodingOfScans(nil, one, anatomy), 422, "not-bold", "runs.1.scan_id"},
		"two people":          {decodingOfScans(nil, one, other), 422, "different-subjects", "runs.1.scan_id"},
	} {
		t.Run(name, func(t *testing.T) {
			e := e.in(t)
			a := e.do("POST", "/v1/decodings", e.a.keys[researcher], c.body)
			a.want(c.status, c.typ)
			if val(a.problem.Field) != c.field {
				t.Errorf("field %q, want %q", val(a.problem.Field), c.field)
			}
		})
	}
	var list DecodingList
	e.do("GET", "/v1/decodings", e.a.keys[researcher]).want(200, "").json(&list)
	if len(list.Decodings) != 0 {
		t.Errorf("%d decodings came of it", len(list.Decodings))
	}
}

// TestDecodingOfRefusedScans: what is refused for its person is not decoded, what
// only shows no networks is.
func TestDecodingOfRefusedScans(t *testing.T) {
	e := setup(t)
	for code, status := range map[string]int{"under-18": 409, "orientation-unknown": 409, "not-4d": 202, "field-of-view-cut": 202} {
		run := e.bold(&e.a, "of "+code, 1)
		e.finish(run.ID, store.Outcome{State: neuroscreen.Refused, Reasons: []neuroscreen.Reason{{Code: code, Text: "because"}}})
		typ := ""
		if status == 409 {
			typ = "scan-refused"
		}
		a := e.do("POST", "/v1/decodings", e.a.keys[researcher], decodingOfScans(nil, run)).want(status, typ)
		if status == 409 && (val(a.problem.Field) != "runs.0.scan_id" || !strings.Contains(val(a.problem.Detail), "because")) {
			t.Errorf("%s", a.body)
		}
	}
}

func TestDecodingOfAnotherSite(t *testing.T) {
	e := setup(t)
	mine := e.bold(&e.a, "S", 1)
	a := e.do("POST", "/v1/decodings", e.b.keys[admin], decodingOfScans(nil, mine))
	a.want(404, "scan-not-found")
	if strings.Contains(string(a.body), mine.ID.String()) {
		t.Errorf("%s", a.body)
	}
	var d Decoding
	e.do("POST", "/v1/decodings", e.a.keys[researcher], decodingOfScans(nil, mine), header("Idempotency-Key", "k")).want(202, "").json(&d)
	e.decoded(d.ID)
	at := "/v1/decodings/" + d.ID.String()
	e.do("GET", at, e.b.keys[admin]).want(404, "decoding-not-found")
	e.do("GET", at+"/weights.nii.gz", e.b.keys[admin], header("If-None-Match", "*")).want(404, "decoding-not-found")
	e.do("DELETE", at, e.b.keys[admin]).want(404, "decoding-not-found")
	for _, path := range []string{"/v1/decodings", "/v1/decodings?scan_id=" + mine.ID.String()} {
		var list DecodingList
		e.do("GET", path, e.b.keys[admin]).want(200, "").json(&list)
		if len(list.Decodings) != 0 {
			t.Errorf("%s: %+v", path, list)
		}
	}
	e.do("GET", at, e.a.keys[researcher]).want(200, "")
}
