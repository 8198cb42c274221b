package httpapi

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/google/uuid"

	"neuroscreen"
	"neuroscreen/internal/store"
)

// call is one way to use an operation; {scan}, {key}, {site} and {subject} stand
// for things, {secret} for a key that works.
type call struct {
	operation, method, path string
	body                    string
}

// things that a path may name.
type things struct {
	scan, key     uuid.UUID
	site, subject string
	decoding      uuid.UUID
	watch         uuid.UUID
}

// nothing is what no site has.
func nothing() things {
	return things{uuid.New(), uuid.New(), "no-such-site", "no-such-subject", uuid.New(), uuid.New()}
}

func (t things) fill(path string) string {
	return strings.NewReplacer("{scan}", t.scan.String(), "{key}", t.key.String(), "{site}", t.site, "{subject}", t.subject, "{webhook}", uuid.NewString(), "{decoding}", t.decoding.String(), "{watch}", t.watch.String(),
		"{upload}", strings.Repeat("0f", 16)).Replace(path)
}

// calls has each operation of the contract, those that destroy last.
var calls = []call{
	{"createScan", "POST", "/v1/scans", ""},
	{"createUpload", "POST", "/v1/uploads", ""},
	{"getUpload", "HEAD", "/v1/uploads/{upload}", ""},
	{"appendUpload", "PATCH", "/v1/uploads/{upload}", ""},
	{"finishUpload", "POST", "/v1/uploads/{upload}/scan", `{"subject_id":"SUBJ-17","age_years":71,"sex":"F","modality":"T1w"}`},
	{"createRefusal", "POST", "/v1/refusals", `{"metadata":{"subject_id":"SUBJ-17","sex":"","modality":"T1w"},"code":"no-image"}`},
	{"deleteUpload", "DELETE", "/v1/uploads/{upload}", ""},
	{"findScans", "GET", "/v1/scans?subject_id=SUBJ-17", ""},
	{"getScan", "GET", "/v1/scans/{scan}", ""},
	{"streamScanEvents", "GET", "/v1/scans/{scan}/events", ""},
	{"getResult", "GET", "/v1/scans/{scan}/result", ""},
	{"getSegmentation", "GET", "/v1/scans/{scan}/segmentation.nii.gz", ""},
	{"getPreview", "GET", "/v1/scans/{scan}/preview.png", ""},
	{"getRunFile", "GET", "/v1/scans/{scan}/run/carpet.png", ""},
	{"getReport", "GET", "/v1/scans/{scan}/report.html", ""},
	{"getReportPDF", "GET", "/v1/scans/{scan}/report.pdf", ""},
	{"getFHIR", "GET", "/v1/scans/{scan}/fhir", ""},
	{"getDICOMReport", "GET", "/v1/scans/{scan}/sr.dcm", ""},
	{"getDICOMLabels", "GET", "/v1/scans/{scan}/seg.dcm", ""},
	{"getReading", "GET", "/v1/scans/{scan}/reading.json", ""},
	{"getImage", "GET", "/v1/scans/{scan}/image.nii.gz", ""},
	{"listCases", "GET", "/v1/cases", ""},
	{"searchCases", "POST", "/v1/cases/search", `{"subject_id":"SUBJ-17"}`},
	{"streamCases", "GET", "/v1/cases/events", ""},
	{"getCase", "GET", "/v1/cases/{scan}", ""},
	{"getCaseTimeline", "GET", "/v1/cases/{scan}/timeline", ""},
	{"getCohort", "GET", "/v1/cohorts?condition=alzheimers", ""},
	{"holdCase", "PUT", "/v1/cases/{scan}/hold", `{}`},
	{"releaseCase", "DELETE", "/v1/cases/{scan}/hold", ""},
	{"listReviews", "GET", "/v1/cases/{scan}/review", ""},
	{"reviewCase", "POST", "/v1/cases/{scan}/review", `{"decision":"accept","run":1,"seen":0}`},
	{"createDecoding", "POST", "/v1/decodings", `{"runs":[{"scan_id":"0190b2a3-0000-7000-8000-000000000000","events":"onset\tduration\ttrial_type\trun\n0\t2\ta\t1\n9\t2\tb\t2\n"}]}`},
	{"listDecodings", "GET", "/v1/decodings", ""},
	{"getDecoding", "GET", "/v1/decodings/{decoding}", ""},
	{"getDecodingWeights", "GET", "/v1/decodings/{decoding}/weights.nii.gz", ""},
	{"deleteDecoding", "DELETE", "/v1/decodings/{decoding}", ""},
	{"createWatch", "POST", "/v1/watches", `{"tr_s":2}`},
	{"getWatch", "GET", "/v1/watches/{watch}", ""},
	{"putWatchVolume", "PUT", "/v1/watches/{watch}/volumes/1", ""},
	{"deleteWatch", "DELETE", "/v1/watches/{watch}", ""},
	{"signIn", "POST", "/session", `{"key":"{secret}"}`},
	{"getSession", "GET", "/session", ""},
	{"signOut", "DELETE", "/session", ""},
	{"startProviderSignIn", "GET", "/session/provider", ""},
	{"endProviderSignIn", "GET", "/session/provider/callback?state=S&code=C", ""},
	{"listKeys", "GET", "/v1/keys", ""},
	{"createKey", "POST", "/v1/keys", `{"name":"pacs","role":"uploader"}`},
	{"listAudit", "GET", "/v1/audit", ""},
	{"listWebhooks", "GET", "/v1/webhooks", ""},
	{"createWebhook", "POST", "/v1/webhooks", `{"url":"https://pacs.example/hook","events":["scan.refused"]}`},
	{"verifyAudit", "GET", "/v1/audit/verification", ""},
	{"listModels", "GET", "/v1/models", ""},
	{"getTimeline", "GET", "/v1/subjects/{subject}/timeline", ""},
	{"getNormCurve", "GET", "/v1/norms/curve?structure=Left-Hippocampus&sex=F&intracranial_volume_mm3=1450000", ""},
	{"listSites", "GET", "/v1/sites", ""},
	{"getSiteSettings", "GET", "/v1/sites/{site}/settings", ""},
	{"listSiteSettings", "GET", "/v1/sites/{site}/settings/versions", ""},
	{"putSiteSettings", "PUT", "/v1/sites/{site}/settings", `{"replaces":0,"note":"ours","settings":{"alzheimers_review_lr":3}}`},
	{"putSiteCalibration", "PUT", "/v1/sites/{site}/calibration", `{"replaces":0,"note":"none"}`},
	{"getMetrics", "GET", "/metrics", ""},
	{"getHealth", "GET", "/healthz", ""},
	{"getReadiness", "GET", "/readyz", ""},
	{"getContract", "GET", "/openapi.yaml", ""},
	{"getDocs", "GET", "/docs", ""},
	{"getProblemPage", "GET", "/problems/missing-field", ""},
	{"getHome", "GET", "/", ""},
	{"getAsset", "GET", "/assets/main-1.js", ""},
	{"cancelScan", "POST", "/v1/scans/{scan}/cancel", ""},
	{"retryScan", "POST", "/v1/scans/{scan}/retry", ""},
	{"updateScan", "PATCH", "/v1/scans/{scan}", `{"age_years":70}`},
	{"eraseSubject", "POST", "/v1/erasures", `{"subject_id":"SUBJ-99"}`},
	{"deleteScan", "DELETE", "/v1/scans/{scan}", ""},
	{"deleteWebhook", "DELETE", "/v1/webhooks/{webhook}", ""},
	{"revokeKey", "DELETE", "/v1/keys/{key}", ""},
}

func (e *env) call(c call, key string, t things) *answer {
	e.Helper()
	path := t.fill(c.path)
	var edit []func(*http.Request)
	if c.operation == "createScan" {
		ct, b := multipartBody(part{name: "metadata", body: metadata(nil)}, part{name: "scan", body: image(e, 1)})
		edit = append(edit, withBody(ct, b), header("Idempotency-Key", "one"))
	} else if c.body != "" {
		edit = append(edit, withBody("application/json", []byte(strings.Replace(c.body, "{secret}", key, 1))))
	}
	if c.operation == "putWatchVolume" {
		edit = append(edit, withBody("application/octet-stream", image(e, 1)))
	}
	if c.operation == "endProviderSignIn" {
		edit = append(edit, header("Cookie", attemptOf(Attempt{State: "S", Nonce: "N", Verifier: "V"})))
	}
	if strings.HasPrefix(c.path, "/v1/uploads") {
		edit = append(edit, header("Tus-Resumable", "1.0.0"), header("Upload-Length", "10"), header("Upload-Offset", "0"),
			header("Content-Digest", digestOf(nil)))
	}
	if c.operation == "appendUpload" {
		edit = append(edit, withBody("application/offset+octet-stream", []byte("piece")))
	}
	return e.do(c.method, path, key, edit...)
}

func TestEveryOperationIsTried(t *testing.T) {
	eachOperation(contract(t), func(path, method string, op *openapi3.Operation) {
		if !slices.ContainsFunc(calls, func(c call) bool { return c.operation == op.OperationID && c.method == method }) {
			t.Errorf("%s %s (%s) is not in the table of calls", method, path, op.OperationID)
		}
	})
}

func TestWithoutKey(t *testing.T) {
	e := setup(t)
	revoked, rec, err := e.store.CreateKey(t.Context(), e.a.id, store.System, admin, "gone")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.store.RevokeKey(t.Context(), e.a.id, store.System, rec.ID); err != nil {
		t.Fatal(err)
	}
	good := e.a.keys[admin]
	for _, c := range calls {
		t.Run(c.operation, func(t *testing.T) {
			e := e.in(t)
			public := operations[c.operation].public
			for name, tt := range map[string]struct {
				edit func(*http.Request)
				typ  string
			}{
				"no key":       {func(*http.Request) {}, "missing-key"},
				"empty key":    {header("X-API-Key", ""), "missing-key"},
				"unknown key":  {header("X-API-Key", good[:len(good)-1]+"?"), "invalid-key"},
				"revoked key":  {header("Authorization", "Bearer "+revoked), "invalid-key"},
				"forged token": {header("Authorization", "Bearer x.1.x"), "invalid-token"},
				"wrong scheme": {header("Authorization", "Basic "+good), "invalid-key"},
				"two keys": {func(r *http.Request) {
					r.Header.Set("Authorization", "Bearer "+good)
					r.Header.Set("X-API-Key", e.b.keys[admin])
				}, "invalid-key"},
				"key in the query": {func(r *http.Request) { r.URL.RawQuery += "&key=" + good }, "missing-key"},
			} {
				if public && (name == "key in the query") {
					continue
				}
				c := c
				req := e.request(c.method, nothing().fill(c.path), "")
				if c.body != "" {
					withBody("application/json", []byte(strings.Replace(c.body, "{secret}", good, 1)))(req)
				}
				tt.edit(req)
				a := e.send(req)
				if public {
					if a.status == 401 {
						t.Errorf("%s: %d", name, a.status)
					}
					continue
				}
				a.want(401, tt.typ)
				if a.header.Get("WWW-Authenticate") == "" {
					t.Error("401 without WWW-Authenticate")
				}
			}
		})
	}
}

func TestBothKeyHeaders(t *testing.T) {
	e := setup(t)
	key := e.a.keys[clinician]
	for name, edit := range map[string]func(*http.Request){
		"X-API-Key":       header("X-API-Key", key),
		"Bearer":          header("Authorization", "Bearer "+key),
		"bearer":          header("Authorization", "bearer "+key),
		"both, and equal": func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+key); r.Header.Set("X-API-Key", key) },
	} {
		req := e.request("GET", "/v1/cases", "")
		edit(req)
		if a := e.send(req); a.status != 200 {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
}

func TestRoles(t *testing.T) {
	e := setup(t)
	for _, c := range calls {
		a := operations[c.operation]
		if a.public {
			continue
		}
		for _, role := range everyone {
			t.Run(c.operation+" by "+string(role), func(t *testing.T) {
				e := e.in(t)
				// Ids of nothing: what is allowed ends in 404, and changes nothing.
				got := e.call(c, e.a.keys[role], nothing())
				if allowed := role == admin || slices.Contains(a.roles, role); !allowed {
					got.want(403, "role-not-allowed")
				} else if got.status == 401 || got.status == 403 || got.status >= 500 {
					t.Errorf("%d %s", got.status, got.body)
				}
			})
		}
	}
}

// TestOtherSite tries every route with the key of another site: its answers
// are those for things that do not exist, and nothing changes.
func TestOtherSite(t *testing.T) {
	e := setup(t)
	scan := e.upload(&e.a, "SUBJ-18", 1) // createScan below posts SUBJ-17
	e.finish(scan.ID, scoredOutcome(neuroscreen.FlagFlagged))
	before := e.do("GET", "/v1/scans/"+scan.ID.String(), e.a.keys[admin]).body
	keyOfA := e.keyID(&e.a, uploader)
	decoding := e.someDecoding()
	watch, _ := e.watch(e.a.keys[uploader], `{"tr_s":2}`)

	for _, c := range calls {
		t.Run(c.operation, func(t *testing.T) {
			e := e.in(t)
			got := e.call(c, e.b.keys[admin], things{scan.ID, keyOfA, "a", "SUBJ-18", decoding, watch.ID})
			for _, s := range []string{scan.ID.String(), keyOfA.String(), e.a.id.String()} {
				if strings.Contains(string(got.body), s) || strings.Contains(got.header.Get("Location"), s) {
					t.Errorf("the answer names %s: %s", s, got.body)
				}
			}
			if c.operation == "createDecoding" { // of scans named in its body; see TestDecodingOfAnotherSite
				got.want(404, "scan-not-found")
				return
			}
			if !strings.Contains(c.path, "{") {
				if got.status >= 400 {
					t.Errorf("%d %s", got.status, got.body)
				}
				return
			}
			got.want(404, "")
			none := e.call(c, e.b.keys[admin], nothing())
			none.want(404, "")
			if got.problem.Type != none.problem.Type || val(got.problem.Detail) != val(none.problem.Detail) || got.problem.ScanID != nil || got.problem.State != nil {
				t.Errorf("another site's thing differs from nothing: %s, %s", got.body, none.body)
			}
		})
	}
	for name, path := range map[string]string{
		"version":      "/v1/scans/" + scan.ID.String() + "/result?version=1",
		"file":         "/v1/scans/" + scan.ID.String() + "/preview.png?version=1",
		"not modified": "/v1/scans/" + scan.ID.String() + "/result",
	} {
		if a := e.do("GET", path, e.b.keys[admin], header("If-None-Match", "*")); a.status != 404 {
			t.Errorf("%s: %d", name, a.status)
		}
	}
	audit := e.do("GET", "/v1/audit?scan_id="+scan.ID.String(), e.b.keys[admin])
	audit.want(200, "")
	if strings.Contains(string(audit.body), scan.ID.String()) {
		t.Errorf("audit of another site: %s", audit.body)
	}
	if after := e.do("GET", "/v1/scans/"+scan.ID.String(), e.a.keys[admin]).body; !bytes.Equal(before, after) {
		t.Errorf("the scan changed:\n%s\n%s", before, after)
	}
	e.do("GET", "/v1/cases", e.a.keys[uploader]).want(403, "role-not-allowed") // not revoked
}

func TestUnknownAddressesAndMethods(t *testing.T) {
	e := setup(t)
	for _, tt := range []struct {
		method, path string
		status       int
		typ          string
	}{
		{"GET", "/v2/scans", 404, "not-found"},
		{"GET", "/v1/", 404, "not-found"},
		{"GET", "/v1/scans/", 404, "not-found"},
		{"GET", "/v1/scans/not-an-id", 404, "not-found"},
		{"GET", "/v1/scans/" + uuid.NewString(), 404, "scan-not-found"},
		{"GET", "/v1/scans/" + uuid.NewString() + "/nothing", 404, "not-found"},
		{"GET", "/v1/scans/..%2f..%2fetc%2fpasswd", 404, "not-found"},
		{"PUT", "/v1/scans", 405, "method-not-allowed"},
		{"POST", "/healthz", 405, "method-not-allowed"},
		{"GET", "/problems/no-such-thing", 404, "not-found"},
		{"GET", "/v1/scans", 400, "no-filter"},
		{"GET", "/v1/scans?subject_id=", 400, "invalid-value"},
		{"GET", "/v1/cases?limit=0", 400, "invalid-value"},
		{"GET", "/v1/cases?limit=201", 400, "invalid-value"},
		{"GET", "/v1/cases?limit=x", 400, "invalid-value"},
		{"GET", "/v1/cases?flag=red", 400, "invalid-value"},
		{"GET", "/v1/cases?state=done", 400, "invalid-value"},
		{"GET", "/v1/cases?received_from=yesterday", 400, "invalid-date"},
		{"GET", "/v1/cases?received_to=2024-02-30", 400, "invalid-date"},
		{"GET", "/v1/cases?received_to=2024-02-30T00:00:00Z", 400, "invalid-date"},
		{"GET", "/v1/cases?received_from=2024-02-28T00:00:00", 400, "invalid-date"},
		{"GET", "/v1/cases?cursor=xyz", 400, "invalid-value"},
		{"GET", "/v1/cases?cursor=" + base64.RawURLEncoding.EncodeToString([]byte(`{"o":"worst","s":99999}`)), 400, "invalid-value"},
		{"GET", "/v1/sites/a/settings/versions?cursor=99999999999", 400, "invalid-value"},
		{"GET", "/v1/cases?scanner=%00", 400, "invalid-value"},
		{"GET", "/v1/cases?order=worst", 400, "unknown-parameter"},
		{"GET", "/v1/audit?cursor=%21", 400, "invalid-value"},
		{"GET", "/v1/audit?cursor=-5", 400, "invalid-value"},
		{"GET", "/v1/audit?scan_id=7", 400, "invalid-value"},
		{"GET", "/v1/scans/" + uuid.NewString() + "/result?version=0", 400, "invalid-value"},
		{"GET", "/v1/scans/" + uuid.NewString() + "/result?version=99999999999999999999", 400, "invalid-value"},
	} {
		t.Run(tt.method+" "+tt.path, func(t *testing.T) {
			e := e.in(t)
			e.do(tt.method, tt.path, e.a.keys[admin]).want(tt.status, tt.typ)
		})
	}
}

// TestMethods: 405 says what the address takes (RFC 9110, 15.5.6), and what is
// public answers HEAD.
func TestMethods(t *testing.T) {
	e := setup(t)
	for path, want := range map[string]string{
		"/healthz": "GET, HEAD", "/session": "GET, POST, DELETE", "/v1/scans": "GET, POST", "/v1/scans/" + uuid.NewString(): "GET, PATCH, DELETE",
		"/v1/uploads/" + strings.Repeat("0", 32): "HEAD, PATCH, DELETE",
	} {
		if a := e.do("PUT", path, e.a.keys[admin]).want(405, "method-not-allowed"); a.header.Get("Allow") != want {
			t.Errorf("%s allows %q, want %q", path, a.header.Get("Allow"), want)
		}
	}
	for _, path := range []string{"/healthz", "/readyz", "/docs", "/"} {
		if a := e.do("HEAD", path, "").want(200, ""); len(a.body) > 0 || a.header.Get("Content-Type") != e.do("GET", path, "").header.Get("Content-Type") {
			t.Errorf("%s: %v %.100q", path, a.header, a.body)
		}
	}
	e.do("HEAD", "/v1/cases", e.a.keys[clinician]).want(405, "")
}

func TestSmallBodies(t *testing.T) {
	e := setup(t)
	scan := "/v1/scans/" + e.upload(&e.a, "S", 1).ID.String()
	for name, tt := range map[string]struct {
		method, path, ct, body string
		status                 int
		typ, field             string
	}{
		"no body":           {"POST", "/v1/keys", "application/json", "", 400, "missing-body", ""},
		"not JSON":          {"POST", "/v1/keys", "application/json", "name=x", 400, "invalid-json", ""},
		"other type":        {"POST", "/v1/keys", "text/plain", `{"name":"x","role":"admin"}`, 415, "unsupported-media-type", "Content-Type"},
		"no type":           {"POST", "/v1/keys", "", `{"name":"x","role":"admin"}`, 415, "unsupported-media-type", "Content-Type"},
		"unknown field":     {"POST", "/v1/keys", "application/json", `{"name":"x","role":"admin","site":"b"}`, 400, "unknown-field", "site"},
		"no name":           {"POST", "/v1/keys", "application/json", `{"role":"admin"}`, 400, "missing-field", "name"},
		"empty name":        {"POST", "/v1/keys", "application/json", `{"name":"","role":"admin"}`, 400, "invalid-value", "name"},
		"unknown role":      {"POST", "/v1/keys", "application/json", `{"name":"x","role":"boss"}`, 400, "invalid-value", "role"},
		"two documents":     {"POST", "/v1/keys", "application/json", `{"name":"x","role":"admin"}{}`, 400, "invalid-json", ""},
		"not UTF-8":         {"POST", "/v1/keys", "application/json", "{\"name\":\"\xff\",\"role\":\"admin\"}", 400, "invalid-json", ""},
		"NUL":               {"POST", "/v1/keys", "application/json", `{"name":"a\u0000","role":"admin"}`, 400, "invalid-value", "name"},
		"too long":          {"POST", "/v1/keys", "application/json", `{"name":"` + strings.Repeat("x", 70<<10) + `"}`, 413, "body-too-large", ""},
		"nothing to change": {"PATCH", scan, "application/json", `{}`, 400, "missing-field", ""},
		"change the state":  {"PATCH", scan, "application/json", `{"state":"scored"}`, 400, "unknown-field", "state"},
		"age below 0":       {"PATCH", scan, "application/json", `{"age_years":-3}`, 400, "invalid-value", "age_years"},
		"sex unknown":       {"PATCH", scan, "application/json", `{"sex":"X"}`, 400, "invalid-value", "sex"},
		"birth date alone":  {"PATCH", scan, "application/json", `{"birth_date":"1950-01-01"}`, 400, "missing-field", "scan_date"},
		"scan in future":    {"PATCH", scan, "application/json", `{"scan_date":"2999-01-01"}`, 400, "invalid-date", "scan_date"},
	} {
		t.Run(name, func(t *testing.T) {
			e := e.in(t)
			a := e.do(tt.method, tt.path, e.a.keys[admin], withBody(tt.ct, []byte(tt.body)))
			a.want(tt.status, tt.typ)
			if got := val(a.problem.Field); got != tt.field {
				t.Errorf("field %q, want %q", got, tt.field)
			}
		})
	}
}

func TestScanLife(t *testing.T) {
	e := setup(t)
	scan := e.upload(&e.a, "SUBJ-17", 1)
	at := "/v1/scans/" + scan.ID.String()
	key := e.a.keys[admin]

	a := e.do("GET", at+"/result", key)
	a.want(409, "not-ready")
	if val(a.problem.State) != neuroscreen.Received || val(a.problem.ScanID) != scan.ID {
		t.Errorf("the problem does not tell the state: %s", a.body)
	}
	e.do("POST", at+"/retry", key).want(409, "scan-running")

	e.do("POST", at+"/cancel", key).want(200, "")
	e.do("POST", at+"/cancel", key).want(409, "scan-final")
	e.do("GET", at+"/result", key).want(409, "scan-cancelled")
	e.do("GET", at+"/preview.png", key).want(409, "scan-cancelled")

	e.do("POST", at+"/retry", key).want(202, "")
	e.finish(scan.ID, store.Outcome{State: neuroscreen.Refused, Reasons: []neuroscreen.Reason{{Code: "not-a-brain", Text: "this is not a brain"}}})
	a = e.do("GET", at+"/result", key)
	a.want(409, "scan-refused")
	if len(a.problem.Reasons) != 1 || a.problem.Reasons[0].Code != "not-a-brain" {
		t.Errorf("reasons: %s", a.body)
	}

	e.do("POST", at+"/retry", key).want(202, "")
	e.finish(scan.ID, scoredOutcome(neuroscreen.FlagReview))
	var got Scan
	a = e.do("GET", at, key)
	a.want(200, "")
	a.json(&got)
	if got.State != neuroscreen.Scored || got.ResultVersion != 1 || got.Run != 3 || len(got.Reasons) != 0 {
		t.Errorf("scan: %s", a.body)
	}
	if last := got.Stages[len(got.Stages)-1]; last.State != neuroscreen.Scored || got.Stages[0].State != neuroscreen.Received {
		t.Errorf("stages: %+v", got.Stages)
	}
	e.do("POST", at+"/cancel", key).want(409, "scan-final")
}

func TestPatchMakesANewVersion(t *testing.T) {
	e := setup(t)
	scan := e.upload(&e.a, "SUBJ-17", 1)
	at := "/v1/scans/" + scan.ID.String()
	key := e.a.keys[clinician]
	e.finish(scan.ID, scoredOutcome(neuroscreen.FlagNone))
	first := e.do("GET", at+"/result", key)
	first.want(200, "")
	if first.header.Get("Result-Version") != "1" {
		t.Errorf("version %q", first.header.Get("Result-Version"))
	}

	a := e.do("PATCH", at, key, withBody("application/json", []byte(`{"birth_date":"1940-06-01","scan_date":"2020-06-01","sex":"M"}`)))
	a.want(200, "")
	var got Scan
	a.json(&got)
	if got.Metadata.Sex != neuroscreen.Male || *got.Metadata.AgeYears != 80 || got.Metadata.BirthDate != "" || got.State != neuroscreen.Received {
		t.Errorf("patched: %s", a.body)
	}
	e.do("GET", at+"/result", key).want(409, "not-ready") // the old one no longer stands
	old := e.do("GET", at+"/result?version=1", key)
	old.want(200, "")

	e.finish(scan.ID, scoredOutcome(neuroscreen.FlagFlagged))
	second := e.do("GET", at+"/result", key)
	second.want(200, "")
	if second.header.Get("Result-Version") != "2" || second.header.Get("ETag") == first.header.Get("ETag") {
		t.Errorf("no new version: %v", second.header)
	}
	if old = e.do("GET", at+"/result?version=1", key); !bytes.Equal(old.body, first.body) {
		t.Errorf("version 1 changed:\n%s\n%s", first.body, old.body)
	}
	e.do("GET", at+"/result?version=3", key).want(404, "result-not-found")

	// A correction that changes nothing runs nothing.
	a = e.do("PATCH", at, key, withBody("application/json", []byte(`{"sex":"M"}`)))
	a.want(200, "")
	if a.json(&got); got.State != neuroscreen.Scored {
		t.Errorf("state %s", got.State)
	}
}

func TestResultAndFiles(t *testing.T) {
	e := setup(t)
	scan := e.upload(&e.a, "SUBJ-17", 1)
	at := "/v1/scans/" + scan.ID.String()
	e.finish(scan.ID, scoredOutcome(neuroscreen.FlagFlagged))

	var res Result
	a := e.do("GET", at+"/result", e.a.keys[clinician])
	a.want(200, "")
	a.json(&res)
	if res.SubjectID != "SUBJ-17" || res.ScanID != scan.ID.String() || res.Schema != neuroscreen.ResultSchema {
		t.Errorf("result: %s", a.body)
	}
	tag := a.header.Get("ETag")
	a = e.do("GET", at+"/result", e.a.keys[clinician], header("If-None-Match", `"other", W/`+tag))
	a.want(304, "")
	if len(a.body) != 0 || a.header.Get("ETag") != tag {
		t.Errorf("304: %v %q", a.header, a.body)
	}
	// The clinician's tag is not the researcher's document.
	e.do("GET", at+"/result", e.a.keys[researcher], header("If-None-Match", tag)).want(200, "")

	for path, mediaType := range map[string]string{"/segmentation.nii.gz": "application/gzip", "/preview.png": "image/png", "/reading.json": "application/json", "/run/carpet.png": "image/png", "/run/alff.nii.gz": "application/gzip"} {
		a := e.do("GET", at+path, e.a.keys[clinician])
		a.want(200, "")
		if a.header.Get("Content-Type") != mediaType || a.header.Get("Content-Length") != fmt.Sprint(len(a.body)) || !bytes.Equal(a.body, derivedBytes(strings.TrimPrefix(path[1:], "run/"))) {
			t.Errorf("%s: %v, %d bytes", path, a.header, len(a.body))
		}
		if a.header.Get("X-Content-Type-Options") != "nosniff" || !strings.Contains(a.header.Get("Cache-Control"), "private") {
			t.Errorf("%s: %v", path, a.header)
		}
		e.do("GET", at+path, e.a.keys[clinician], header("If-None-Match", a.header.Get("ETag"))).want(304, "")
		e.do("GET", at+path+"?version=1", e.a.keys[clinician]).want(200, "")
		e.do("GET", at+path+"?version=2", e.a.keys[clinician]).want(404, "file-not-found")
	}
	e.do("GET", at+"/run/maps.png", e.a.keys[clinician]).want(404, "file-not-found") // withheld
	if a := e.do("GET", at+"/run/scan.nii.gz", e.a.keys[clinician]); a.status != 400 && a.status != 404 {
		t.Errorf("a file that no run has: %d", a.status)
	}
}

// TestResearchersSeePseudonyms in every answer they can get.
func TestResearchersSeePseudonyms(t *testing.T) {
	e := setup(t)
	a := e.post(&e.a, []part{{name: "metadata", body: metadata(map[string]any{"subject_id": "SUBJ-17", "accession_number": "ACC-99", "study_instance_uid": "1.2.77"})},
		{name: "scan", body: image(t, 1)}})
	a.want(202, "")
	var scan Scan
	a.json(&scan)
	e.finish(scan.ID, scoredOutcome(neuroscreen.FlagFlagged))
	decoding := e.someDecoding()
	watch, _ := e.watch(e.a.keys[uploader], `{"tr_s":2}`)
	found := 0
	for _, c := range calls {
		if c.method != "GET" || !slices.Contains(operations[c.operation].roles, researcher) {
			continue
		}
		a := e.call(c, e.a.keys[researcher], things{scan.ID, uuid.New(), "a", e.store.Pseudonym(e.a.id, "SUBJ-17"), decoding, watch.ID})
		if a.status != 200 {
			t.Errorf("%s: %d", c.operation, a.status)
		}
		for _, s := range []string{"SUBJ-17", "ACC-99", "1.2.77"} {
			if bytes.Contains(a.body, []byte(s)) {
				t.Errorf("%s shows %s: %s", c.operation, s, a.body)
			}
		}
		if bytes.Contains(a.body, []byte(`"subject_id":"p-`)) {
			found++
		}
	}
	if found < 3 {
		t.Errorf("only %d answers name the pseudonym", found)
	}
	e.do("GET", "/v1/cases?subject_id=SUBJ-17", e.a.keys[researcher]).want(403, "identifiers-withheld")
	a = e.do("GET", "/v1/cases?subject_id=SUBJ-17", e.a.keys[clinician])
	var list CaseList
	if a.json(&list); len(list.Cases) != 1 || list.Cases[0].SubjectID != "SUBJ-17" || val(list.Cases[0].AccessionNumber) != "ACC-99" {
		t.Errorf("clinician: %s", a.body)
	}
}

// TestConsentToResearch: a scan that research was refused for does not exist
// for researchers, whatever they call.
func TestConsentToResearch(t *testing.T) {
	e := setup(t)
	post := func(subject, modality string, consent any, seed int16) (scan Scan) {
		m := metadata(map[string]any{"subject_id": subject, "modality": modality, "tr_s": 2, "consent_research": consent})
		e.post(&e.a, []part{{name: "metadata", body: m}, {name: "scan", body: image(t, seed)}}).want(202, "").json(&scan)
		return scan
	}
	said := post("P", "T1w", true, 1)
	unsaid := post("P", "T1w", nil, 2)
	refused := post("P", "T1w", false, 3)
	alone := post("ALONE", "T1w", false, 4)
	for _, s := range []Scan{said, unsaid, refused, alone} {
		e.finish(s.ID, scoredOutcome(neuroscreen.FlagFlagged))
	}
	run, allowed := post("P", "bold", false, 5), post("P", "bold", nil, 6)
	var decoding Decoding
	e.do("POST", "/v1/decodings", e.a.keys[clinician], decodingOfScans(nil, allowed, run)).want(202, "").json(&decoding)
	e.decoded(decoding.ID)
	key := e.a.keys[researcher]
	hidden := []string{refused.ID.String(), alone.ID.String(), run.ID.String(), decoding.ID.String()}

	for _, c := range calls {
		if !operations[c.operation].allows(researcher) || c.operation == "signOut" || strings.Contains(c.path, "{watch}") {
			continue
		}
		t.Run(c.operation, func(t *testing.T) {
			e := e.in(t)
			got := e.call(c, key, things{refused.ID, uuid.New(), "a", e.store.Pseudonym(e.a.id, "ALONE"), decoding.ID, uuid.New()})
			for _, id := range hidden {
				if bytes.Contains(got.body, []byte(id)) {
					t.Errorf("%s is in %s", id, got.body)
				}
			}
			if strings.Contains(c.path, "{") {
				got.want(404, "")
			}
		})
	}
	for name, got := range map[string]*answer{
		"a version":         e.do("GET", "/v1/scans/"+refused.ID.String()+"/result?version=1", key),
		"a version's file":  e.do("GET", "/v1/scans/"+refused.ID.String()+"/preview.png?version=1", key),
		"not modified":      e.do("GET", "/v1/scans/"+refused.ID.String()+"/preview.png", key, header("If-None-Match", "*")),
		"events seen":       e.do("GET", "/v1/scans/"+refused.ID.String()+"/events", key, header("Last-Event-ID", "2")),
		"to be decoded":     e.do("POST", "/v1/decodings", key, decodingOfScans(nil, run)),
		"who else was told": e.do("GET", "/v1/scans/"+refused.ID.String()+"/result", e.b.keys[researcher]),
	} {
		if got.status != 404 {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
	}
	// What is left is all there.
	var visits struct {
		Visits []struct {
			ScanID uuid.UUID `json:"scan_id"`
		}
	}
	e.do("GET", "/v1/cases/"+said.ID.String()+"/timeline", key).want(200, "").json(&visits)
	if len(visits.Visits) != 2 || visits.Visits[0].ScanID != said.ID || visits.Visits[1].ScanID != unsaid.ID {
		t.Errorf("visits %+v", visits)
	}
	count := func(key string) (cases, flagged, decodings int) {
		var list CaseList
		e.do("GET", "/v1/cases", key).want(200, "").json(&list)
		var of DecodingList
		e.do("GET", "/v1/decodings", key).want(200, "").json(&of)
		_, data, _ := strings.Cut(string(e.do("GET", "/v1/cases/events", key).body), "data: ")
		var counts CaseCounts
		if err := json.NewDecoder(strings.NewReader(data)).Decode(&counts); err != nil {
			t.Fatal(err)
		}
		return len(list.Cases), counts.Flagged, len(of.Decodings)
	}
	if cases, flagged, decodings := count(key); cases != 3 || flagged != 2 || decodings != 0 {
		t.Errorf("a researcher sees %d cases, %d flagged, %d decodings", cases, flagged, decodings)
	}
	if cases, flagged, decodings := count(e.a.keys[clinician]); cases != 6 || flagged != 4 || decodings != 1 {
		t.Errorf("a clinician sees %d cases, %d flagged, %d decodings", cases, flagged, decodings)
	}
	e.do("GET", "/v1/scans/"+refused.ID.String()+"/result", e.a.keys[clinician]).want(200, "")
	// Consent may be withdrawn, and given, later.
	for body, want := range map[string]int{`{"consent_research":false}`: 404, `{"consent_research":true}`: 200} {
		e.json("PATCH", "/v1/scans/"+said.ID.String(), e.a.keys[clinician], body).want(200, "")
		if got := e.do("GET", "/v1/scans/"+said.ID.String()+"/result", key); got.status != want {
			t.Errorf("%s: %d", body, got.status)
		}
	}
}

// TestConsentTakenBackByPost: who posts a scan again and refuses research is
// heard, also by researchers who have seen the scan.
func TestConsentTakenBackByPost(t *testing.T) {
	e := setup(t)
	post := func(consent any) *answer {
		return e.post(&e.a, []part{{name: "metadata", body: metadata(map[string]any{"consent_research": consent})}, {name: "scan", body: image(t, 1)}})
	}
	var scan Scan
	post(nil).want(202, "").json(&scan)
	e.finish(scan.ID, scoredOutcome(neuroscreen.FlagFlagged))
	at := "/v1/scans/" + scan.ID.String() + "/result"
	for _, c := range []struct {
		consent any
		differs []string
		status  int
	}{{nil, nil, 200}, {false, nil, 404}, {false, nil, 404}, {true, []string{"consent_research"}, 404}, {nil, []string{"consent_research"}, 404}} {
		var again Scan
		post(c.consent).want(200, "").json(&again)
		if again.ID != scan.ID || again.Run != 1 || !slices.Equal(again.MetadataDiffers, c.differs) {
			t.Errorf("consent %v: %+v", c.consent, again)
		}
		if got := e.do("GET", at, e.a.keys[researcher]); got.status != c.status {
			t.Errorf("consent %v, a researcher's: %d %s", c.consent, got.status, got.body)
		}
	}
	e.do("GET", at, e.a.keys[clinician]).want(200, "")
}

func TestFindScans(t *testing.T) {
	e := setup(t)
	one, two := e.upload(&e.a, "one", 1), e.upload(&e.a, "one", 2)
	e.upload(&e.a, "other", 3)
	var list ScanList
	a := e.do("GET", "/v1/scans?subject_id=one", e.a.keys[uploader])
	a.want(200, "")
	a.json(&list)
	if len(list.Scans) != 2 || list.Scans[0].ID != two.ID || list.Scans[1].ID != one.ID {
		t.Errorf("newest first: %s", a.body)
	}
	a = e.do("GET", "/v1/scans?accession_number=none", e.a.keys[uploader])
	if a.want(200, ""); string(bytes.TrimSpace(a.body)) != `{"scans":[]}` {
		t.Errorf("%s", a.body)
	}
}

func TestWorklist(t *testing.T) {
	e := setup(t)
	received := map[string]time.Time{}
	for n, c := range []struct {
		name    string
		outcome *store.Outcome
	}{
		{"nothing", ptrTo(scoredOutcome(neuroscreen.FlagNone))},
		{"refused", &store.Outcome{State: neuroscreen.Refused, Reasons: []neuroscreen.Reason{{Code: "not-a-brain", Text: "x"}}}},
		{"flagged", ptrTo(scoredOutcome(neuroscreen.FlagFlagged))},
		{"running", nil},
		{"review", ptrTo(scoredOutcome(neuroscreen.FlagReview))},
		{"flagged later", ptrTo(scoredOutcome(neuroscreen.FlagFlagged))},
	} {
		scan := e.upload(&e.a, c.name, int16(n))
		received[c.name] = scan.ReceivedAt
		if c.outcome != nil {
			e.finish(scan.ID, *c.outcome)
		}
	}
	list := func(query string) []string {
		var l CaseList
		a := e.do("GET", "/v1/cases"+query, e.a.keys[clinician])
		a.want(200, "")
		a.json(&l)
		names := []string{}
		for _, c := range l.Cases {
			names = append(names, c.SubjectID)
		}
		return names
	}
	today := time.Now().UTC().Format(time.DateOnly)
	tomorrow := time.Now().UTC().AddDate(0, 0, 1).Format(time.DateOnly)
	at := received["flagged"].UTC().Format(time.RFC3339Nano)
	elsewhere := url.QueryEscape(received["flagged"].In(time.FixedZone("", 2*60*60)).Format(time.RFC3339Nano))
	for query, want := range map[string][]string{
		"":                                  {"flagged", "flagged later", "review", "refused", "running", "nothing"},
		"?flag=flagged":                     {"flagged", "flagged later"},
		"?state=refused":                    {"refused"},
		"?state=scored&flag=none":           {"nothing"},
		"?condition=alzheimers":             {"flagged", "flagged later", "review", "nothing"},
		"?condition=parkinsons":             {"nothing", "flagged", "review", "flagged later"},
		"?condition=alzheimers&flag=review": {"review"},
		"?condition=parkinsons&flag=review": {},
		"?sort=newest":                      {"flagged later", "review", "running", "flagged", "refused", "nothing"},
		"?sort=oldest":                      {"nothing", "refused", "flagged", "running", "review", "flagged later"},
		"?scanner=none":                     {},
		"?received_from=" + today + "&received_to=" + tomorrow: {"flagged", "flagged later", "review", "refused", "running", "nothing"},
		"?received_from=" + tomorrow + "&flag=flagged":         {},
		"?received_to=2020-01-01":                              {},
		"?received_from=" + at:                                 {"flagged", "flagged later", "review", "running"},
		"?received_to=" + elsewhere:                            {"refused", "nothing"},
		"?subject_id=review":                                   {"review"},
	} {
		t.Run("cases"+query, func(t *testing.T) {
			if got := list(query); !slices.Equal(got, want) {
				t.Errorf("%v, want %v", got, want)
			}
		})
	}
}

// TestPagingUnderInserts: what was there at the start is seen exactly once,
// whatever comes in between.
func TestPagingUnderInserts(t *testing.T) {
	e := setup(t)
	want := map[uuid.UUID]bool{}
	for n := range 9 {
		scan := e.upload(&e.a, fmt.Sprint("s", n), int16(n))
		if n%2 == 0 {
			e.finish(scan.ID, scoredOutcome(neuroscreen.FlagFlagged))
		}
		want[scan.ID] = true
	}
	for k, sort := range []string{"worst", "oldest", "newest"} {
		t.Run(sort, func(t *testing.T) {
			e := e.in(t)
			seen := map[uuid.UUID]int{}
			path := "/v1/cases?limit=2&sort=" + sort
			next := ""
			for page := 0; ; page++ {
				var l CaseList
				a := e.do("GET", path+next, e.a.keys[clinician])
				a.want(200, "")
				a.json(&l)
				for _, c := range l.Cases {
					seen[c.ID]++
				}
				late := e.upload(&e.a, "late", int16(100*(k+1)+page))
				e.finish(late.ID, scoredOutcome(neuroscreen.FlagFlagged))
				if l.NextCursor == nil || page > 50 {
					break
				}
				next = "&cursor=" + *l.NextCursor
			}
			for id := range want {
				if seen[id] != 1 {
					t.Errorf("%s was seen %d times", id, seen[id])
				}
			}
			for id, n := range seen {
				if n > 1 {
					t.Errorf("%s was seen %d times", id, n)
				}
			}
		})
	}
	t.Run("the cursor of another order", func(t *testing.T) {
		e := e.in(t)
		var l CaseList
		e.do("GET", "/v1/cases?limit=1", e.a.keys[clinician]).json(&l)
		e.do("GET", "/v1/cases?limit=1&sort=newest&cursor="+val(l.NextCursor), e.a.keys[clinician]).want(400, "invalid-value")
	})
}

func TestKeys(t *testing.T) {
	e := setup(t)
	var made CreatedKey
	a := e.do("POST", "/v1/keys", e.a.keys[admin], withBody("application/json", []byte(`{"name":"pacs","role":"uploader"}`)))
	a.want(201, "")
	a.json(&made)
	if made.Key.Name != "pacs" || made.Key.Role != uploader || !strings.Contains(made.Secret, made.Key.Prefix) || a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("%s %v", a.body, a.header)
	}
	e.do("GET", "/v1/models", made.Secret).want(200, "")
	list := e.do("GET", "/v1/keys", e.a.keys[admin])
	list.want(200, "")
	if strings.Contains(string(list.body), made.Secret) || !strings.Contains(string(list.body), made.Key.ID.String()) {
		t.Errorf("list: %s", list.body)
	}
	e.do("DELETE", "/v1/keys/"+made.Key.ID.String(), e.a.keys[admin]).want(204, "")
	e.do("DELETE", "/v1/keys/"+made.Key.ID.String(), e.a.keys[admin]).want(204, "")
	e.do("GET", "/v1/models", made.Secret).want(401, "invalid-key")
	e.do("DELETE", "/v1/keys/"+uuid.NewString(), e.a.keys[admin]).want(404, "key-not-found")
	e.do("DELETE", "/v1/keys/"+e.keyID(&e.a, admin).String(), e.a.keys[admin]).want(409, "last-admin-key")
}

// TestAudit: each read and change of patient data leaves a row that names the
// key and the scan.
func TestAudit(t *testing.T) {
	e := setup(t)
	scan := e.upload(&e.a, "SUBJ-17", 1)
	e.finish(scan.ID, scoredOutcome(neuroscreen.FlagNone))
	key := e.a.keys[admin]
	decoding := e.someDecoding()
	for _, c := range calls {
		if c.operation != "revokeKey" && c.operation != "createKey" {
			e.call(c, key, things{scan.ID, uuid.New(), "a", "SUBJ-17", decoding, uuid.New()})
		}
	}
	seen := map[string]bool{}
	cursor := ""
	lastSeq := int64(1 << 60)
	for range 50 {
		var l AuditList
		a := e.do("GET", "/v1/audit?limit=3"+cursor, key)
		a.want(200, "")
		a.json(&l)
		if strings.Contains(string(a.body), "SUBJ-17") {
			t.Fatalf("the trail names the patient: %s", a.body)
		}
		for _, entry := range l.Entries {
			if entry.Seq >= lastSeq {
				t.Errorf("seq %d after %d", entry.Seq, lastSeq)
			}
			lastSeq = entry.Seq
			if entry.Actor == e.keyID(&e.a, admin).String() {
				seen[entry.Action] = true
			}
		}
		if l.NextCursor == nil {
			break
		}
		cursor = "&cursor=" + *l.NextCursor
	}
	for id, a := range operations {
		if a.audit != "" && !seen[a.audit] {
			t.Errorf("%s left no %s", id, a.audit)
		}
	}
	for _, change := range []string{"scan.create", "scan.erase", "scan.retry", "scan.correct", "decoding.erase"} {
		if !seen[change] {
			t.Errorf("no %s in %v", change, sorted(seen))
		}
	}
}

// TestAuditOfScan: the trail of one scan has who saw it in a list, and who was
// shown it by a call that changed nothing.
func TestAuditOfScan(t *testing.T) {
	e := setup(t)
	sent := []part{{name: "metadata", body: metadata(nil)}, {name: "scan", body: image(t, 1)}}
	var scan Scan
	e.post(&e.a, sent, header("Idempotency-Key", "one")).want(202, "").json(&scan)
	run := e.bold(&e.a, "another", 3)
	var decoding Decoding
	e.do("POST", "/v1/decodings", e.a.keys[clinician], decodingOfScans(nil, run)).want(202, "").json(&decoding)
	trail := func(id uuid.UUID) (entries []AuditEntry) {
		var list AuditList
		e.do("GET", "/v1/audit?limit=200&scan_id="+id.String(), e.a.keys[admin]).want(200, "").json(&list)
		return list.Entries
	}
	ask := func(method, path, body string) func() *answer {
		return func() *answer { return e.json(method, path, e.a.keys[clinician], body) }
	}
	get := func(path string) func() *answer {
		return func() *answer { return e.do("GET", path, e.a.keys[clinician]) }
	}
	at := "/v1/scans/" + scan.ID.String()
	for name, c := range map[string]struct {
		call   func() *answer
		of     Scan
		role   neuroscreen.Role
		action string
		scans  int
	}{
		"worklist":         {get("/v1/cases"), scan, clinician, "cases.list", 2},
		"one line of it":   {get("/v1/cases?limit=1"), scan, clinician, "cases.list", 1},
		"search":           {ask("POST", "/v1/cases/search", `{"subject_id":"SUBJ-17"}`), scan, clinician, "cases.search", 1},
		"find":             {get("/v1/scans?subject_id=SUBJ-17"), scan, clinician, "scan.find", 1},
		"decodings":        {get("/v1/decodings"), run, clinician, "decodings.list", 1},
		"a decoding":       {get("/v1/decodings/" + decoding.ID.String()), run, clinician, "decoding.read", 1},
		"nothing to patch": {ask("PATCH", at, `{"sex":"F"}`), scan, clinician, "scan.correct", 0},
		"before any visit": {get("/v1/cases/" + scan.ID.String() + "/timeline"), scan, clinician, "timeline.read", 0},
		"the post again":   {func() *answer { return e.post(&e.a, sent, header("Idempotency-Key", "one")) }, scan, uploader, "scan.create", 0},
	} {
		before := len(trail(c.of.ID))
		c.call().want(200, "")
		now := trail(c.of.ID)
		if len(now) != before+1 {
			t.Fatalf("%s: %d entries more", name, len(now)-before)
		}
		if got := now[0]; got.Actor != e.keyID(&e.a, c.role).String() || got.Action != c.action || len(got.ScanIds) != c.scans {
			t.Errorf("%s: %+v", name, got)
		}
	}
	before := len(trail(scan.ID))
	get("/v1/cases?state=scored")().want(200, "")
	if now := trail(scan.ID); len(now) != before {
		t.Errorf("a list without the scan: %+v", now[0])
	}
	e.do("GET", "/v1/audit/verification", e.a.keys[admin]).want(200, "")
}

func TestOperations(t *testing.T) {
	e := setup(t)
	for path, want := range map[string]string{
		"/":                       "<title>pages</title>",
		"/docs":                   `id="createScan"`,
		"/openapi.yaml":           "openapi: 3.0.3",
		"/problems/missing-field": "A field is missing",
		"/healthz":                `"status":"ok"`,
		"/readyz":                 `"status":"ok"`,
	} {
		a := e.do("GET", path, "")
		a.want(200, "")
		if !strings.Contains(string(a.body), want) {
			t.Errorf("%s: %.300s", path, a.body)
		}
	}
	a := e.do("GET", "/v1/models", e.a.keys[uploader])
	if a.want(200, ""); !strings.Contains(string(a.body), `"card"`) {
		t.Errorf("%s", a.body)
	}
	scan := e.upload(&e.a, "SUBJ-17", 1)
	a = e.do("GET", "/metrics", e.a.keys[uploader])
	a.want(200, "")
	for _, want := range []string{`neuroscreen_http_requests_total{operation="createScan",status="202"} 1`, "neuroscreen_http_request_seconds_bucket", "neuroscreen_http_upload_bytes_total"} {
		if !strings.Contains(string(a.body), want) {
			t.Errorf("no %s in\n%s", want, a.body)
		}
	}
	if strings.Contains(string(a.body), scan.ID.String()) || strings.Contains(string(a.body), "SUBJ") {
		t.Error("metrics name a scan")
	}
}

func TestReadinessTellsWhatIsDown(t *testing.T) {
	var down error
	e := setup(t, func(c *Config) {
		c.Checks = []Check{{"jobs", func(context.Context) error { return down }}}
	})
	e.do("GET", "/readyz", "").want(200, "")
	down = fmt.Errorf("password of the database is hunter2")
	a := e.do("GET", "/readyz", "")
	a.want(503, "unready")
	if !strings.Contains(string(a.body), "jobs") || strings.Contains(string(a.body), "hunter2") {
		t.Errorf("%s", a.body)
	}
	down = nil
	e.srv.Close()
	e.do("GET", "/readyz", "").want(503, "unready")
	e.do("GET", "/healthz", "").want(200, "")
}

func TestPanicIsAProblem(t *testing.T) {
	e := setup(t, func(c *Config) { c.Models = func() []ModelCard { panic("secret of SUBJ-17") } })
	a := e.do("GET", "/v1/models", e.a.keys[admin])
	a.want(500, "internal")
	if strings.Contains(string(a.body), "SUBJ-17") || val(a.problem.RequestID) != a.header.Get("X-Request-Id") {
		t.Errorf("%s", a.body)
	}
	e.do("GET", "/healthz", "").want(200, "")
}

// TestLogHoldsNoPatientData: routes are patterns, and no query is logged.
func TestLogHoldsNoPatientData(t *testing.T) {
	e := setup(t)
	scan := e.upload(&e.a, "SUBJ-17", 1)
	e.finish(scan.ID, scoredOutcome(neuroscreen.FlagNone))
	for _, c := range calls {
		e.call(c, e.a.keys[admin], things{scan.ID, uuid.New(), "a", "SUBJ-17", uuid.New(), uuid.New()})
	}
	e.do("POST", "/v1/scans?subject_id=SUBJ-17&age_years=71&sex=F&modality=nope", e.a.keys[admin], withBody("application/octet-stream", nil)).want(400, "invalid-value")
	e.do("GET", "/v1/scans/SUBJ-17?x=SUBJ-17", e.a.keys[admin]).want(400, "unknown-parameter")
	e.do("GET", "/SUBJ-17", "").want(404, "not-found")
	log := e.log.String()
	for _, bad := range []string{"SUBJ-17", scan.ID.String(), "subject_id", e.a.keys[admin]} {
		if strings.Contains(log, bad) {
			t.Errorf("the log holds %q", bad)
		}
	}
	if !strings.Contains(log, "route=/v1/scans/{scan_id}/result") {
		t.Errorf("the log names no routes:\n%.2000s", log)
	}
}

// TestSlowUpload: who sends nothing more is answered and let go.
func TestSlowUpload(t *testing.T) {
	e := setup(t, func(c *Config) { c.Limits.BodyIdle = 50 * time.Millisecond })
	conn, err := net.Dial("tcp", strings.TrimPrefix(e.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ct, body := multipartBody(part{name: "metadata", body: metadata(nil)}, part{name: "scan", body: image(t, 1)})
	fmt.Fprintf(conn, "POST /v1/scans HTTP/1.1\r\nHost: x\r\nX-API-Key: %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", e.a.keys[uploader], ct, len(body), body[:len(body)/2])
	answer, err := io.ReadAll(conn) // the server closes the connection
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(answer), "HTTP/1.1 408 ") || !strings.Contains(string(answer), "request-timeout") {
		t.Errorf("%s", answer)
	}
	e.wantNothingStored()
}

// TestLongUpload: a body may take longer than an answer.
func TestLongUpload(t *testing.T) {
	const idle = 500 * time.Millisecond
	e := setup(t, func(c *Config) { c.Limits.WriteIdle = idle })
	overTLS := httptest.NewUnstartedServer(e.srv)
	overTLS.EnableHTTP2 = true
	overTLS.StartTLS()
	t.Cleanup(overTLS.Close)
	for proto, ts := range map[string]*httptest.Server{"HTTP/1.1": e.ts, "HTTP/2.0": overTLS} {
		t.Run(proto, func(t *testing.T) {
			e := e.in(t)
			ct, body := multipartBody(part{name: "metadata", body: metadata(map[string]any{"subject_id": proto})}, part{name: "scan", body: image(t, 1)})
			pr, pw := io.Pipe()
			go func() {
				pw.Write(body[:len(body)/2])
				time.Sleep(idle + idle/2) // the server's deadlines go by the machine's clock
				pw.Write(body[len(body)/2:])
				pw.Close()
			}()
			req := e.request("POST", "/v1/scans", e.a.keys[uploader])
			req.URL.Scheme, req.URL.Host, _ = strings.Cut(ts.URL, "://")
			req.Header.Set("Content-Type", ct)
			req.Body = pr
			res, err := ts.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if answer, err := io.ReadAll(res.Body); err != nil || res.StatusCode != 202 || res.Proto != proto {
				t.Errorf("%s %d %v %s", res.Proto, res.StatusCode, err, answer)
			}
		})
	}
}

// TestResetUpload: a connection that breaks leaves nothing behind.
func TestResetUpload(t *testing.T) {
	e := setup(t)
	ct, body := multipartBody(part{name: "metadata", body: metadata(nil)}, part{name: "scan", body: image(t, 1)})
	conn, err := net.Dial("tcp", strings.TrimPrefix(e.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "POST /v1/scans HTTP/1.1\r\nHost: x\r\nX-API-Key: %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", e.a.keys[uploader], ct, len(body), body[:len(body)-40])
	conn.(*net.TCPConn).SetLinger(0)
	conn.Close()
	e.stop() // waits for the handler
	if n := e.countBlobs(); n != 0 {
		t.Errorf("%d files left", n)
	}
}

// TestExpectContinue: a refused upload is refused before it is sent.
func TestExpectContinue(t *testing.T) {
	e := setup(t)
	conn, err := net.Dial("tcp", strings.TrimPrefix(e.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /v1/scans HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: 100000\r\n\r\n")
	answer, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(answer), "HTTP/1.1 401 ") {
		t.Errorf("%s", answer)
	}
}

// TestEraseSubject: everything of one subject goes, bytes that another
// subject's scan shares stay, and so does the trail.
func TestEraseSubject(t *testing.T) {
	e := setup(t)
	first, second := e.upload(&e.a, "SUBJ-17", 1), e.upload(&e.a, "SUBJ-17", 2)
	shares := e.upload(&e.a, "SUBJ-18", 1) // the same bytes
	elsewhere := e.upload(&e.b, "SUBJ-17", 3)
	e.finish(first.ID, scoredOutcome(neuroscreen.FlagFlagged))
	blobs := func() int {
		files, err := filepath.Glob(filepath.Join(e.blobDir, "??", "??", "*"))
		if err != nil {
			t.Fatal(err)
		}
		return len(files)
	}
	before := blobs()

	a := e.do("POST", "/v1/erasures", e.a.keys[admin], withBody("application/json", []byte(`{"subject_id":"SUBJ-17"}`)))
	a.want(200, "")
	var done Erasure
	if a.json(&done); done.Scans != 2 {
		t.Errorf("%d scans erased", done.Scans)
	}
	for _, id := range []uuid.UUID{first.ID, second.ID} {
		e.do("GET", "/v1/scans/"+id.String(), e.a.keys[admin]).want(404, "scan-not-found")
	}
	e.do("GET", "/v1/scans/"+shares.ID.String(), e.a.keys[admin]).want(200, "")
	e.do("GET", "/v1/scans/"+elsewhere.ID.String(), e.b.keys[admin]).want(200, "")
	// Of the first the five derived files, of the second its bytes.
	if gone := before - blobs(); gone != 6 {
		t.Errorf("%d files removed, want 6", gone)
	}
	e.take(shares.ID) // its bytes are still there for the analysis
	var trail AuditList
	e.do("GET", "/v1/audit?scan_id="+first.ID.String(), e.a.keys[admin]).json(&trail)
	if len(trail.Entries) == 0 || trail.Entries[0].Action != "scan.erase" {
		t.Errorf("trail %+v", trail.Entries)
	}
	e.do("GET", "/v1/audit/verification", e.a.keys[admin]).want(200, "")
}

func TestWebhooks(t *testing.T) {
	e := setup(t)
	key := e.a.keys[admin]
	create := func(body string) *answer {
		return e.do("POST", "/v1/webhooks", key, withBody("application/json", []byte(body)))
	}
	for body, typ := range map[string]string{
		`{"url":"https://pacs.example/","events":[]}`:                  "invalid-value",
		`{"url":"https://pacs.example/","events":["scan.seen"]}`:       "invalid-value",
		`{"url":"gopher://pacs.example/","events":["scan.scored"]}`:    "invalid-value",
		`{"url":"https://pacs.example/","event":["scan.scored"]}`:      "",
		`{"url":"https://u:p@pacs.example/","events":["scan.scored"]}`: "invalid-value",
	} {
		create(body).want(400, typ)
	}
	var made CreatedWebhook
	a := create(`{"url":"https://pacs.example/hook","events":["scan.scored","scan.refused","scan.scored"]}`)
	a.want(201, "")
	a.json(&made)
	if !strings.HasPrefix(made.Secret, "whsec_") || len(made.Webhook.Events) != 2 {
		t.Errorf("%+v", made)
	}
	list := e.do("GET", "/v1/webhooks", key)
	list.want(200, "")
	if body := string(list.body); strings.Contains(body, made.Secret) || !strings.Contains(body, made.Webhook.ID.String()) {
		t.Errorf("list %s", body)
	}
	if other := e.do("GET", "/v1/webhooks", e.b.keys[admin]); strings.Contains(string(other.body), made.Webhook.ID.String()) {
		t.Errorf("another site sees it: %s", other.body)
	}
	at := "/v1/webhooks/" + made.Webhook.ID.String()
	e.do("DELETE", at, e.b.keys[admin]).want(404, "webhook-not-found")
	e.do("DELETE", at, key).want(204, "")
	e.do("DELETE", at, key).want(404, "webhook-not-found")
	for n := range 21 {
		if a := create(`{"url":"https://pacs.example/","events":["scan.scored"]}`); (a.status == 201) != (n < 20) {
			t.Errorf("webhook %d: %d", n+1, a.status)
		}
	}
}
