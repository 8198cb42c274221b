package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/google/uuid"
	"go.uber.org/goleak"

	"neuroscreen"
	"neuroscreen/internal/blob"
	"neuroscreen/internal/nifti"
	"neuroscreen/internal/pipeline"
	"neuroscreen/internal/report"
	"neuroscreen/internal/resumable"
	"neuroscreen/internal/store"
)

func init() {
	for _, mediaType := range []string{"image/png", "application/gzip", "application/pdf", "text/html", "text/event-stream", "text/javascript"} {
		openapi3filter.RegisterBodyDecoder(mediaType, openapi3filter.FileBodyDecoder)
	}
}

// site is one tenant with a key of each role.
type site struct {
	id   uuid.UUID
	keys map[neuroscreen.Role]string
}

// env is a server over a real database and a blob folder, with two sites.
type env struct {
	testing.TB
	*shared
}

type shared struct {
	srv     *Server
	ts      *httptest.Server
	url     string
	client  *http.Client
	store   *store.Store
	blobs   *blob.Files
	blobDir string
	a, b    site
	log     *lockedBuffer
}

// in is the env for a subtest.
func (e *env) in(t testing.TB) *env { return &env{t, e.shared} }

func setup(t *testing.T, change ...func(*Config)) *env {
	t.Helper()
	t.Parallel()
	s := &shared{blobDir: t.TempDir(), log: &lockedBuffer{}}
	e := &env{t, s}
	var err error
	if s.blobs, err = blob.OpenFiles(s.blobDir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.blobs.Close() })
	s.store = newStore(t, s.blobs)
	for name, site := range map[string]*site{"a": &s.a, "b": &s.b} {
		rec, _, err := s.store.EnsureSite(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		site.id, site.keys = rec.ID, map[neuroscreen.Role]string{}
		for _, role := range everyone {
			if site.keys[role], _, err = s.store.CreateKey(t.Context(), rec.ID, store.System, role, string(role)); err != nil {
				t.Fatal(err)
			}
		}
	}
	uploads, err := resumable.Open(resumable.Config{Dir: t.TempDir(), Path: "/v1/uploads/", MaxSize: 1 << 20, Idle: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{
		Store: s.store, Blobs: s.blobs, Version: "test", Poll: time.Millisecond, StreamFor: 50 * time.Millisecond,
		Uploads: uploads,
		Rescore: rescoreInTest,
		Pages:   fstest.MapFS{"index.html": {Data: []byte("<!doctype html><title>pages</title><body>")}, "main-1.js": {Data: []byte("1")}},
		Login:   &Login{Provider: fakeProvider{}, Site: s.a.id},
		Log:     slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Models:  func() []ModelCard { return []ModelCard{{Name: "network", Sha256: "00", Card: "# Card"}} },
	}
	for _, f := range change {
		f(&cfg)
	}
	if s.srv, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	s.ts = httptest.NewServer(s.srv)
	s.url, s.client = s.ts.URL, s.ts.Client()
	s.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	t.Cleanup(e.stop)
	return e
}

// stop waits for all handlers.
func (e *env) stop() {
	e.srv.Close()
	e.client.CloseIdleConnections()
	e.ts.Close()
}

func (e *env) request(method, path, key string) *http.Request {
	e.Helper()
	req, err := http.NewRequestWithContext(e.Context(), method, e.url+path, nil)
	if err != nil {
		e.Fatal(err)
	}
	if key != "" {
		req.Header.Set("X-API-Key", key)
	}
	return req
}

func header(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Add(name, value) }
}

func withBody(contentType string, body []byte) func(*http.Request) {
	return func(r *http.Request) {
		r.Body = io.NopCloser(bytes.NewReader(body))
		r.ContentLength = int64(len(body))
		if contentType != "" {
			r.Header.Set("Content-Type", contentType)
		}
	}
}

// answer is a response, held against the contract when it came.
type answer struct {
	t       testing.TB
	status  int
	header  http.Header
	body    []byte
	problem Problem
	bare    bool // the answer to a HEAD has no text
}

func (e *env) do(method, path, key string, edit ...func(*http.Request)) *answer {
	e.Helper()
	req := e.request(method, path, key)
	for _, f := range edit {
		f(req)
	}
	return e.send(req)
}

func (e *env) send(req *http.Request) *answer {
	e.Helper()
	res, err := e.client.Do(req)
	if err != nil {
		e.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		e.Fatal(err)
	}
	a := &answer{t: e, status: res.StatusCode, header: res.Header, body: body, bare: req.Method == http.MethodHead}
	if res.StatusCode >= 400 && a.bare {
		return a
	}
	if res.StatusCode >= 400 {
		if ct := res.Header.Get("Content-Type"); ct != "application/problem+json" {
			e.Errorf("%s %s: %d with %s", req.Method, req.URL.Path, res.StatusCode, ct)
		}
		a.json(&a.problem)
		if a.problem.Status != res.StatusCode || !strings.HasPrefix(a.problem.Type, "/problems/") || a.problem.Title == "" || val(a.problem.RequestID) == "" {
			e.Errorf("%s %s: problem %s", req.Method, req.URL.Path, body)
		}
	}
	e.conforms(req, a)
	return a
}

// conforms validates the answer against openapi.yaml.
func (e *env) conforms(req *http.Request, a *answer) {
	e.Helper()
	route, params, err := e.srv.router.FindRoute(req)
	if err != nil {
		return // not in the contract; a problem, as checked above
	}
	err = openapi3filter.ValidateResponse(context.Background(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{Request: req, Route: route, PathParams: params},
		Status:                 a.status, Header: a.header, Body: io.NopCloser(bytes.NewReader(a.body)),
		Options: &openapi3filter.Options{IncludeResponseStatus: true},
	})
	if err != nil {
		e.Errorf("%s %s: the answer is not as the contract says: %v\n%.500s", req.Method, req.URL.Path, err, a.body)
	}
}

func (a *answer) json(v any) {
	a.t.Helper()
	if err := json.Unmarshal(a.body, v); err != nil {
		a.t.Fatalf("%v: %.500s", err, a.body)
	}
}

// want checks the status and, if typ is given, the problem's type.
func (a *answer) want(status int, typ string) *answer {
	a.t.Helper()
	if a.status != status || typ != "" && !a.bare && a.problem.Type != "/problems/"+typ {
		a.t.Errorf("%d %.700s, want %d %s", a.status, a.body, status, typ)
	}
	return a
}

func (e *env) keyID(s *site, role neuroscreen.Role) uuid.UUID {
	e.Helper()
	keys, err := e.store.ListKeys(e.Context(), s.id)
	if err != nil {
		e.Fatal(err)
	}
	for _, k := range keys {
		if k.Label == string(role) {
			return k.ID
		}
	}
	e.Fatalf("no key %s", role)
	return uuid.Nil
}

// scoredOutcome is a small but valid end of an analysis: flag is that of the
// Alzheimer's score.
func scoredOutcome(flag neuroscreen.Flag) store.Outcome {
	lr := map[neuroscreen.Flag]float64{neuroscreen.FlagNone: 1, neuroscreen.FlagReview: 3, neuroscreen.FlagFlagged: 8}[flag]
	abstained := "not scored in this test"
	one := 1.0
	return store.Outcome{State: neuroscreen.Scored, Result: &neuroscreen.Result{
		Schema: neuroscreen.ResultSchema, Modality: neuroscreen.T1w,
		Input: neuroscreen.Input{Shape: []int{8, 9, 10}, VoxelMM: [3]float64{1, 1, 1}, Orientation: "LAS", DType: "int16"},
		QC:    neuroscreen.QC{Verdict: neuroscreen.VerdictPass},
		Volumes: []neuroscreen.Volume{{Structure: "Left-Hippocampus", Label: 17, MM3: 3500.5, StandardErrorMM: 40,
			Z: &one, ZCI95: &[2]float64{0.5, 1.5}}},
		Scores: []neuroscreen.Score{
			{Condition: neuroscreen.Alzheimers, Evidence: neuroscreen.ExternalCohort, LikelihoodRatio: &lr, Flag: flag, IntendedUse: neuroscreen.IntendedUse},
			{Condition: neuroscreen.Parkinsons, Evidence: neuroscreen.Experimental, LikelihoodRatio: &one, Flag: neuroscreen.FlagNone, IntendedUse: neuroscreen.IntendedUse},
			{Condition: neuroscreen.MesialTemporalSclerosis, Evidence: neuroscreen.PublishedEffects, Flag: neuroscreen.FlagNone, Abstained: &abstained, IntendedUse: neuroscreen.IntendedUse},
		},
	}}
}

// rescoreInTest does what the pipeline does, as far as a handler can see: the
// Alzheimer's score goes with any structure that is left out.
func rescoreInTest(old neuroscreen.Result, _ neuroscreen.Metadata, _ pipeline.Settings, a neuroscreen.Amendment) (*neuroscreen.Result, report.Reading, error) {
	out := *scoredOutcome(neuroscreen.FlagFlagged).Result
	out.ScanID, out.SubjectID, out.Input, out.Amendment = old.ScanID, old.SubjectID, old.Input, &a
	for i := range out.Volumes {
		if v := &out.Volumes[i]; slices.Contains(a.Structures(), v.Structure) {
			v.Z, v.ZCI95, v.LeftOut = nil, nil, true
			why := "a reviewer left it out"
			s := &out.Scores[0]
			s.LikelihoodRatio, s.Flag, s.Abstained, s.AbstainedType, s.Without = nil, neuroscreen.FlagNone, &why, neuroscreen.StructureExcluded, a.Structures()
		}
	}
	return &out, report.Reading{Schema: report.ReadingSchema, Structures: report.Structures(), Curves: []report.Curve{}, Scores: []report.ScoreInWords{}, Norms: []string{"A cohort of this test."}}, nil
}

// derivedBytes stand for the file of a kind.
func derivedBytes(kind string) []byte {
	if kind == store.KindReading {
		return []byte(`{"schema":"neuroscreen.reading/1","curves":[],"scores":[],"norms":["A cohort of this test."]}`)
	}
	if kind == store.KindSegmentation {
		var labels bytes.Buffer
		g := nifti.Geometry{Shape: []int{2, 2, 2}, Affine: nifti.Affine{{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 1, 0}, {0, 0, 0, 1}}}
		if err := nifti.Write(&labels, g, []uint8{17, 0, 0, 0, 0, 0, 0, 53}); err != nil {
			panic(err)
		}
		return labels.Bytes()
	}
	return bytes.Repeat([]byte("file "+kind+"\n"), 1000)
}

func ptrTo[T any](v T) *T { return &v }

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
