package service

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"go.uber.org/goleak"

	"github.com/google/uuid"

	"neuroscreen"
	"neuroscreen/internal/client"
	"neuroscreen/internal/config"
	"neuroscreen/internal/deid"
	"neuroscreen/internal/fmri"
	"neuroscreen/internal/fmri/fmritest"
	"neuroscreen/internal/jobs"
	"neuroscreen/internal/nifti"
	"neuroscreen/internal/pgtest"
	"neuroscreen/internal/pipeline"
	"neuroscreen/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// running is a service under test.
type running struct {
	url  string
	out  *buffer
	log  *buffer
	stop func() error
}

type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *buffer) Write(p []byte) (int, error) { l.mu.Lock(); defer l.mu.Unlock(); return l.b.Write(p) }
func (l *buffer) String() string              { l.mu.Lock(); defer l.mu.Unlock(); return l.b.String() }

func settings(t *testing.T) config.Server {
	return config.Server{
		Storage: config.Storage{Data: t.TempDir(), DatabaseURL: config.Secret(pgtest.ConnString(t)), Site: "default"},
		Role:    "both", Listen: "127.0.0.1:0", MaxUpload: 1 << 20, MaxImage: 1 << 20, BodyIdle: 5 * time.Second, Workers: 1, StopAfter: 10 * time.Second,
	}
}

func start(t *testing.T, cfg config.Server, analyse jobs.Analyse) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	r := &running{out: &buffer{}, log: &buffer{}}
	serving := make(chan net.Addr, 1)
	ended := make(chan error, 1)
	go func() {
		ended <- Run(ctx, cfg, Parts{Analyse: analyse, Out: r.out, Err: r.log, Serving: func(a net.Addr) { serving <- a }})
	}()
	r.stop = sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Errorf("stop: %v\n%s", err, r.log)
		}
	})
	if cfg.Role == "worker" {
		return r
	}
	select {
	case a := <-serving:
		r.url = "http://" + a.String()
	case err := <-ended:
		ended <- nil
		t.Fatalf("did not start: %v\n%s", err, r.log)
	}
	return r
}

func api(t *testing.T, r *running, data string) *client.API {
	t.Helper()
	key, err := os.ReadFile(filepath.Join(data, "admin.key"))
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	c, err := client.New(r.url, strings.TrimSpace(string(key)), &http.Client{Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	c.Pause = func(ctx context.Context, _ time.Duration) error { return ctx.Err() }
	return c
}

func upload(t *testing.T, seed int16) client.Upload {
	t.Helper()
	data := make([]int16, 4*5*6)
	for n := range data {
		data[n] = int16(n) * seed
	}
	var buf bytes.Buffer
	g := nifti.Geometry{Shape: []int{4, 5, 6}, Affine: nifti.Affine{{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 1, 0}, {0, 0, 0, 1}}}
	if err := nifti.Write(&buf, g, data); err != nil {
		t.Fatal(err)
	}
	age := 71.0
	return client.Upload{Scan: bytes.NewReader(buf.Bytes()), Name: "scan.nii.gz",
		Metadata: neuroscreen.Metadata{SubjectID: fmt.Sprint("S-", seed), AgeYears: &age, Sex: "F", Modality: "T1w"}}
}

// fake reads the image and gives a small result, so that these tests are of
// the ways between the parts and not of the parts.
func fake(ctx context.Context, in jobs.Input) (jobs.Output, error) {
	r, err := in.Image(ctx)
	if err != nil {
		return jobs.Output{}, err
	}
	defer r.Close()
	if _, err := nifti.Decode(r, nifti.Limits{}); err != nil {
		return jobs.Output{}, err
	}
	for _, s := range []neuroscreen.State{neuroscreen.Checked, neuroscreen.Segmented, neuroscreen.Measured} {
		if err := in.Stage(ctx, s); err != nil {
			return jobs.Output{}, err
		}
	}
	return jobs.Output{
		Result: &neuroscreen.Result{Schema: neuroscreen.ResultSchema, ScanID: in.ScanID.String(), SubjectID: in.Metadata.SubjectID,
			Modality: in.Metadata.Modality, Input: neuroscreen.Input{SHA256: in.SHA256}, QC: neuroscreen.QC{Verdict: neuroscreen.VerdictPass}},
		Files: []jobs.File{{Kind: store.KindPreview, MediaType: "image/png", Bytes: []byte("png")}},
	}, nil
}

func TestPostedScanComesBack(t *testing.T) {
	t.Parallel()
	cfg := settings(t)
	r := start(t, cfg, fake)
	c := api(t, r, cfg.Data)

	var last, total int64
	u := upload(t, 1)
	u.Progress = func(sent, of int64) { last, total = sent, of }
	scan, known, err := c.Submit(t.Context(), u)
	if err != nil || known {
		t.Fatalf("submit: %v, known %v", err, known)
	}
	if last != total || total != scan.Bytes {
		t.Errorf("progress ended at %d of %d", last, total)
	}
	var seen []neuroscreen.State
	scan, err = c.Wait(t.Context(), scan.ID, func(e client.ScanEvent) { seen = append(seen, e.State) })
	if err != nil || scan.State != neuroscreen.Scored {
		t.Fatalf("wait: %v, %s", err, scan.State)
	}
	if got := fmt.Sprint(seen); got != "[received checked segmented measured scored]" {
		t.Errorf("events %s", got)
	}
	res, err := c.GetResultWithResponse(t.Context(), scan.ID, nil)
	if err != nil || res.JSON200 == nil {
		t.Fatalf("result: %v %s", err, res.Body)
	}
	if res.JSON200.SubjectID != "S-1" || res.JSON200.Input.SHA256 != scan.Sha256 {
		t.Errorf("result: %s", res.Body)
	}
	if _, known, err = c.Submit(t.Context(), upload(t, 1)); err != nil || !known {
		t.Errorf("again: %v, known %v", err, known)
	}

	// What the service refuses, the client says as a problem, and once.
	bad := upload(t, 2)
	bad.Scan = strings.NewReader("not an image")
	_, _, err = c.Submit(t.Context(), bad)
	if p, ok := errors.AsType[*client.ProblemError](err); !ok || p.Name() != "not-nifti" || p.Status != 422 {
		t.Errorf("a text was refused with %v", err)
	}
}

func TestFirstKeyIsMadeOnce(t *testing.T) {
	t.Parallel()
	cfg := settings(t)
	r := start(t, cfg, fake)
	file := filepath.Join(cfg.Data, "admin.key")
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	key, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if secret := strings.TrimSpace(string(key)); strings.Contains(r.out.String()+r.log.String(), secret) || !strings.Contains(r.out.String(), file) {
		t.Errorf("the file's name should be shown, and not the key:\n%s\n%s", r.out, r.log)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}

	again := start(t, cfg, fake)
	if strings.Contains(again.out.String(), "admin key") {
		t.Errorf("another key at the second start:\n%s", again.out)
	}
	res, err := api(t, again, cfg.Data).ListKeysWithResponse(t.Context())
	if err != nil || res.JSON200 == nil || len(res.JSON200.Keys) != 1 {
		t.Errorf("%v %s", err, res.Body)
	}
}

// TestFirstKeySurvives: wherever a first start was cut short, and whatever lies
// in the folder, there is a file afterwards whose key works.
func TestFirstKeySurvives(t *testing.T) {
	t.Parallel()
	open := func(t *testing.T) (config.Storage, *store.Store) {
		cfg := settings(t).Storage
		s, err := OpenStorage(t.Context(), cfg, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close(context.Background()) })
		return cfg, store.New(store.Config{Pool: s.Pool, Keys: s.Keys, Blobs: s.Blobs})
	}
	write := func(t *testing.T, cfg config.Storage, content string, mode os.FileMode) {
		if err := os.WriteFile(cfg.AdminKeyFile(), []byte(content), mode); err != nil {
			t.Fatal(err)
		}
	}
	works := func(t *testing.T, st *store.Store, file, site string) {
		t.Helper()
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		key, err := st.Authenticate(t.Context(), strings.TrimSpace(string(b)))
		if err != nil || key.Role != neuroscreen.Admin {
			t.Fatalf("%s: %v, %+v", file, err, key)
		}
		if want, _, err := st.EnsureSite(t.Context(), site); err != nil || key.SiteID != want.ID {
			t.Errorf("%s: key of another site; %v", file, err)
		}
	}

	t.Run("cut short before the key", func(t *testing.T) {
		cfg, st := open(t)
		left := store.NewSecret()
		write(t, cfg, left+"\n", 0o600)
		file, err := FirstKey(t.Context(), st, cfg)
		if err != nil || file != cfg.AdminKeyFile() {
			t.Fatalf("%q, %v; want the file that was there", file, err)
		}
		works(t, st, file, cfg.Site)
		if b, _ := os.ReadFile(file); string(b) != left+"\n" {
			t.Error("the file was changed")
		}
	})
	t.Run("the file cannot be written", func(t *testing.T) {
		cfg, st := open(t)
		gone := cfg
		gone.Data = filepath.Join(cfg.Data, "none")
		if _, err := FirstKey(t.Context(), st, gone); !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		file, err := FirstKey(t.Context(), st, cfg) // no key may be left that nobody has
		if err != nil {
			t.Fatal(err)
		}
		works(t, st, file, cfg.Site)
	})
	for name, left := range map[string]struct {
		content string
		mode    os.FileMode
	}{"not a key": {"hello", 0o600}, "read by others": {store.NewSecret(), 0o644}} {
		t.Run(name, func(t *testing.T) {
			cfg, st := open(t)
			write(t, cfg, left.content, left.mode)
			file, err := FirstKey(t.Context(), st, cfg)
			if err != nil || file == cfg.AdminKeyFile() {
				t.Fatalf("%q, %v", file, err)
			}
			works(t, st, file, cfg.Site)
		})
	}
	t.Run("a second site", func(t *testing.T) {
		cfg, st := open(t)
		first, err := FirstKey(t.Context(), st, cfg)
		if err != nil {
			t.Fatal(err)
		}
		other := cfg
		other.Site = "other"
		second, err := FirstKey(t.Context(), st, other)
		if err != nil {
			t.Fatal(err)
		}
		works(t, st, first, cfg.Site)
		works(t, st, second, other.Site)
	})
	t.Run("two starts at once", func(t *testing.T) {
		cfg, st := open(t)
		var made atomic.Int32
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if file, err := FirstKey(t.Context(), st, cfg); err != nil {
					t.Error(err)
				} else if file != "" {
					made.Add(1)
				}
			})
		}
		wg.Wait()
		if n := made.Load(); n != 1 {
			t.Errorf("%d keys", n)
		}
		works(t, st, cfg.AdminKeyFile(), cfg.Site)
	})
	t.Run("the file was lost", func(t *testing.T) {
		cfg, st := open(t)
		if _, err := FirstKey(t.Context(), st, cfg); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(cfg.AdminKeyFile()); err != nil {
			t.Fatal(err)
		}
		if file, err := FirstKey(t.Context(), st, cfg); err != nil || file != "" {
			t.Fatalf("a start made another key: %q, %v", file, err)
		}
		for range 2 { // with the file absent, and then there
			file, err := NewAdminKey(t.Context(), cfg, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			works(t, st, file, cfg.Site)
		}
	})
}

// TestWorkerElsewhere: one process answers, another analyses.
func TestWorkerElsewhere(t *testing.T) {
	t.Parallel()
	cfg := settings(t)
	cfg.Role = "api"
	r := start(t, cfg, func(context.Context, jobs.Input) (jobs.Output, error) {
		t.Error("the api analyses")
		return jobs.Output{}, errors.New("no")
	})
	worker := cfg
	worker.Role, worker.Listen = "worker", "not an address, and not used"
	start(t, worker, fake)
	c := api(t, r, cfg.Data)
	scan, _, err := c.Submit(t.Context(), upload(t, 1))
	if err != nil {
		t.Fatal(err)
	}
	if scan, err = c.Wait(t.Context(), scan.ID, nil); err != nil || scan.State != neuroscreen.Scored {
		t.Fatalf("%v, %s", err, scan.State)
	}
}

// TestStopInTheMiddle: a stopping service gives the scan back, and the next
// one finishes it.
func TestStopInTheMiddle(t *testing.T) {
	t.Parallel()
	cfg := settings(t)
	cfg.StopAfter = 10 * time.Millisecond
	begun := make(chan struct{})
	r := start(t, cfg, func(ctx context.Context, in jobs.Input) (jobs.Output, error) {
		close(begun)
		<-ctx.Done()
		return jobs.Output{}, ctx.Err()
	})
	c := api(t, r, cfg.Data)
	scan, _, err := c.Submit(t.Context(), upload(t, 1))
	if err != nil {
		t.Fatal(err)
	}
	<-begun
	if err := r.stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	r = start(t, cfg, fake)
	c = api(t, r, cfg.Data)
	if scan, err = c.Wait(t.Context(), scan.ID, nil); err != nil || scan.State != neuroscreen.Scored || scan.ResultVersion != 1 {
		t.Fatalf("%v, %+v", err, scan)
	}
}

func TestDoesNotStart(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for name, tt := range map[string]struct {
		change func(*config.Server)
		says   string
	}{
		"port taken":       {func(c *config.Server) { c.Listen = l.Addr().String() }, "--listen"},
		"bad address":      {func(c *config.Server) { c.DatabaseURL = "postgres://u:hunter2@h:x/db" }, "DATABASE_URL"},
		"bad secret":       {func(c *config.Server) { c.Secret = "abc" }, "64 hex digits"},
		"data is a file":   {func(c *config.Server) { c.Data = filepath.Join(c.Data, "file", "x") }, "--data"},
		"little memory":    {func(c *config.Server) { c.Memory = 600 << 20 }, "--memory"},
		"bad site":         {func(c *config.Server) { c.Site = "My Site" }, "lower case"},
		"no certificate":   {func(c *config.Server) { c.TLSCert, c.TLSKey = "none.pem", "none.key" }, "none.pem"},
		"another's secret": {func(c *config.Server) { c.Secret = config.Secret(strings.Repeat("ab", deid.SecretSize)) }, "another identity secret"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := settings(t)
			if err := os.WriteFile(filepath.Join(cfg.Data, "file"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if name == "another's secret" {
				if err := start(t, cfg, fake).stop(); err != nil {
					t.Fatal(err)
				}
			}
			tt.change(&cfg)
			err := Run(t.Context(), cfg, Parts{Analyse: fake, Err: io.Discard})
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Fatalf("%v; should name %q", err, tt.says)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the password shows: %v", err)
			}
		})
	}
}

// TestSubmitTriesAgain: a connection that breaks after the scan was stored
// costs nothing, and the scan is there once.
func TestSubmitTriesAgain(t *testing.T) {
	t.Parallel()
	cfg := settings(t)
	r := start(t, cfg, fake)
	c := api(t, r, cfg.Data)
	flaky := &flakyTransport{next: &http.Transport{}}
	t.Cleanup(flaky.next.CloseIdleConnections)
	c.ClientInterface.(*client.Client).Client = &http.Client{Transport: flaky}
	scan, known, err := c.Submit(t.Context(), upload(t, 1))
	if err != nil || !known || flaky.calls != 3 {
		t.Fatalf("%v, known %v, %d calls", err, known, flaky.calls)
	}
	found, err := c.FindScansWithResponse(t.Context(), &client.FindScansParams{SubjectID: ptr("S-1")})
	if err != nil || found.JSON200 == nil || len(found.JSON200.Scans) != 1 || found.JSON200.Scans[0].ID != scan.ID {
		t.Errorf("%v %s", err, found.Body)
	}
}

// TestSubmitWaitsWhileTheServiceIsBusy for as long as it says.
func TestSubmitWaitsWhileTheServiceIsBusy(t *testing.T) {
	t.Parallel()
	cfg := settings(t)
	r := start(t, cfg, fake)
	c := api(t, r, cfg.Data)
	busy := &busyTransport{next: &http.Transport{}, status: http.StatusTooManyRequests}
	t.Cleanup(busy.next.CloseIdleConnections)
	c.ClientInterface.(*client.Client).Client = &http.Client{Transport: busy}
	var waited time.Duration
	c.Pause = func(_ context.Context, d time.Duration) error { waited = d; return nil }
	if _, known, err := c.Submit(t.Context(), upload(t, 1)); err != nil || known || waited != 7*time.Second {
		t.Errorf("%v, known %v, waited %v", err, known, waited)
	}
}

// busyTransport answers the first request itself.
type busyTransport struct {
	next   *http.Transport
	status int
}

func (b *busyTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if b.status == 0 {
		return b.next.RoundTrip(r)
	}
	r.Body.Close()
	res := httptest.NewRecorder()
	res.Header().Set("Content-Type", "application/problem+json")
	res.Header().Set("Retry-After", "7")
	res.WriteHeader(b.status)
	fmt.Fprintf(res, `{"type":"/problems/too-many-uploads","title":"Busy","status":%d}`, b.status)
	b.status = 0
	return res.Result(), nil
}

// TestSubmitInPiecesGoesOn where the connection broke, and finds its scan when
// only the last answer was lost.
func TestSubmitInPiecesGoesOn(t *testing.T) {
	t.Parallel()
	cfg := settings(t)
	r := start(t, cfg, fake)
	c := api(t, r, cfg.Data)
	cut := &cuttingTransport{next: &http.Transport{}}
	t.Cleanup(cut.next.CloseIdleConnections)
	c.ClientInterface.(*client.Client).Client = &http.Client{Transport: cut}
	u := upload(t, 1)
	noise := make([]int16, 40*40*40) // more than the connection's buffers, also when packed
	for n := range noise {
		noise[n] = int16(rand.N(1 << 12))
	}
	var file bytes.Buffer
	if err := nifti.Write(&file, nifti.Geometry{Shape: []int{40, 40, 40}, Affine: nifti.Affine{{1}, {0, 1}, {0, 0, 1}, {0, 0, 0, 1}}}, noise); err != nil {
		t.Fatal(err)
	}
	u.Scan = bytes.NewReader(file.Bytes())
	c.Pause = func(context.Context, time.Duration) error { // until what was sent before the break is written
		for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
			files, err := filepath.Glob(filepath.Join(cfg.UploadDir(), "*", "*"))
			if err != nil {
				return err
			}
			for _, f := range files {
				if st, err := os.Stat(f); err == nil && filepath.Ext(f) == "" && st.Size() > 0 {
					return nil
				}
			}
			if len(files) == 0 { // finished
				return nil
			}
		}
		return errors.New("nothing was written")
	}
	scan, known, err := c.SubmitInPieces(t.Context(), u)
	if err != nil || !known || scan.Bytes != int64(file.Len()) {
		t.Fatalf("%+v, known %v, %v", scan, known, err)
	}
	if len(cut.offsets) != 2 || cut.offsets[0] != "0" || cut.offsets[1] == "0" {
		t.Errorf("pieces from %v of %d bytes", cut.offsets, file.Len())
	}
	if again, known, err := c.SubmitInPieces(t.Context(), u); err != nil || !known || again.ID != scan.ID {
		t.Errorf("%+v, known %v, %v", again, known, err)
	}
	u.Metadata.Sex = "X"
	if _, _, err := c.SubmitInPieces(t.Context(), u); err == nil {
		t.Error("a refusal is no error")
	}
}

// cuttingTransport cuts the first piece in the middle and loses the first
// answer to its end.
type cuttingTransport struct {
	next     *http.Transport
	offsets  []string
	finished bool
}

func (c *cuttingTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method == http.MethodPatch {
		if c.offsets = append(c.offsets, r.Header.Get("Upload-Offset")); len(c.offsets) == 1 {
			r.Body = struct {
				io.Reader
				io.Closer
			}{io.MultiReader(io.LimitReader(r.Body, r.ContentLength/2), iotest.ErrReader(errors.New("line broken"))), r.Body}
		}
	}
	res, err := c.next.RoundTrip(r)
	if err == nil && strings.HasSuffix(r.URL.Path, "/scan") && !c.finished {
		c.finished = true
		res.Body.Close()
		return nil, errors.New("connection reset by peer")
	}
	return res, err
}

// TestHeadersAreBounded: a client cannot make the server hold more than a few
// kilobytes of them.
func TestHeadersAreBounded(t *testing.T) {
	t.Parallel()
	cfg := settings(t)
	r := start(t, cfg, fake)
	conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	go func() { // the server may end it before all is sent
		io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: "+strings.Repeat("a", 64<<10)+"\r\n\r\n")
	}()
	answer := make([]byte, 12)
	if _, err := io.ReadFull(conn, answer); err != nil || string(answer) != "HTTP/1.1 431" {
		t.Errorf("%q %v", answer, err)
	}
}

// flakyTransport loses the first answers.
type flakyTransport struct {
	next  *http.Transport
	calls int
}

func (f *flakyTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	f.calls++
	res, err := f.next.RoundTrip(r)
	if err == nil && f.calls <= 2 && r.Method == "POST" {
		res.Body.Close()
		return nil, errors.New("connection reset by peer")
	}
	return res, err
}

func ptr[T any](v T) *T { return &v }

// TestScanLargerThanTheWorkersMemory is refused by its header, and stands in
// the worklist with the reason.
func TestScanLargerThanTheWorkersMemory(t *testing.T) {
	t.Parallel()
	cfg := settings(t)
	cfg.MaxImage, cfg.Memory = 64<<20, pipeline.RestMemory+serverMemory+leastRoom
	r := start(t, cfg, func(context.Context, jobs.Input) (jobs.Output, error) {
		t.Error("it was analysed")
		return jobs.Output{}, nil
	})
	c := api(t, r, cfg.Data)
	var large bytes.Buffer
	g := nifti.Geometry{Shape: []int{250, 250, 250}, Affine: nifti.Affine{{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 1, 0}, {0, 0, 0, 1}}}
	if err := nifti.Write(&large, g, make([]uint8, 250*250*250)); err != nil {
		t.Fatal(err)
	}
	u := upload(t, 1)
	u.Scan = bytes.NewReader(large.Bytes())
	sent, _, err := c.Submit(t.Context(), u)
	if err != nil {
		t.Fatal(err)
	}
	done, err := c.Wait(t.Context(), sent.ID, nil)
	if err != nil || done.State != neuroscreen.Refused || done.Reasons[0].Code != "too-much-memory" {
		t.Fatalf("%s %+v %v", done.State, done.Reasons, err)
	}
	list, err := c.ListCasesWithResponse(t.Context(), nil)
	if err != nil || list.JSON200 == nil || len(list.JSON200.Cases) != 1 || list.JSON200.Cases[0].Why != done.Reasons[0].Text {
		t.Errorf("%v %s", err, list.Body)
	}
}

// TestEstimate of a file and of a pair, and of what is none.
func TestEstimate(t *testing.T) {
	t.Parallel()
	file := func(b []byte) func(context.Context) (io.ReadSeekCloser, error) {
		return func(context.Context) (io.ReadSeekCloser, error) { return nopCloser{bytes.NewReader(b)}, nil }
	}
	var b bytes.Buffer
	g := nifti.Geometry{Shape: []int{160, 160, 160}, Affine: nifti.Affine{{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 1, 0}, {0, 0, 0, 1}}}
	if err := nifti.Write(&b, g, make([]uint8, 160*160*160)); err != nil {
		t.Fatal(err)
	}
	age := 71.0
	in := jobs.Input{Image: file(b.Bytes()), Metadata: neuroscreen.Metadata{AgeYears: &age, Sex: neuroscreen.Female, Modality: neuroscreen.T1w}}
	whole, err := estimate(nifti.Limits{})(t.Context(), in)
	if err != nil || whole < 160*160*160*13 {
		t.Errorf("%d bytes, %v", whole, err)
	}
	in.Header = in.Image // its data lie in another file
	if pair, err := estimate(nifti.Limits{})(t.Context(), in); err != nil || pair != whole {
		t.Errorf("%d bytes for the pair, %v", pair, err)
	}
	in.Header, in.Image = nil, file([]byte("no image"))
	if _, err := estimate(nifti.Limits{})(t.Context(), in); err == nil {
		t.Error("no error")
	}
}

type nopCloser struct{ io.ReadSeeker }

func (nopCloser) Close() error { return nil }

// A scan is analysed with the settings that hold when its work is taken up; a
// change leaves the stored result alone, and analysing again makes another.
func TestSettingsReachTheAnalysis(t *testing.T) {
	t.Parallel()
	cfg := settings(t)
	r := start(t, cfg, func(ctx context.Context, in jobs.Input) (jobs.Output, error) {
		out, err := fake(ctx, in)
		if err == nil {
			out.Result.SettingsVersion = in.Settings.Version
			out.Result.Settings = in.Settings.Settings
		}
		return out, err
	})
	c := api(t, r, cfg.Data)
	sites, err := c.ListSitesWithResponse(t.Context())
	if err != nil || sites.JSON200 == nil {
		t.Fatalf("%v %s", err, sites.Body)
	}
	site := sites.JSON200.Sites[0].Name
	scan, _, err := c.Submit(t.Context(), upload(t, 1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Wait(t.Context(), scan.ID, nil); err != nil {
		t.Fatal(err)
	}
	put, err := c.PutSiteSettingsWithResponse(t.Context(), site, client.NewSettings{Replaces: 0, Note: "a memory clinic", Settings: client.ScoreSettings{AlzheimersFlaggedLR: 9}})
	if err != nil || put.JSON200 == nil {
		t.Fatalf("%v %s", err, put.Body)
	}
	result := func(version int) []byte {
		t.Helper()
		res, err := c.GetResultWithResponse(t.Context(), scan.ID, &client.GetResultParams{Version: &version})
		if err != nil || res.JSON200 == nil || res.JSON200.SettingsVersion != version-1 {
			t.Fatalf("version %d: %v %s", version, err, res.Body)
		}
		return res.Body
	}
	before := result(1)
	if again, err := c.RetryScanWithResponse(t.Context(), scan.ID); err != nil || again.JSON202 == nil {
		t.Fatalf("%v %s", err, again.Body)
	}
	if _, err := c.Wait(t.Context(), scan.ID, nil); err != nil {
		t.Fatal(err)
	}
	if after := result(2); !bytes.Contains(after, []byte(`"alzheimers_flagged_lr":9`)) {
		t.Errorf("the new result was made with %s", after)
	}
	if !bytes.Equal(before, result(1)) {
		t.Error("the stored result changed")
	}
}

// TestPostedRunIsMeasured posts a BOLD run to the real analysis.
func TestPostedRunIsMeasured(t *testing.T) {
	cfg := settings(t)
	cfg.MaxUpload, cfg.MaxImage = 64<<20, 256<<20
	r := start(t, cfg, nil)
	c := api(t, r, cfg.Data)
	v := fmritest.Head(t)
	file := fmritest.Run(t, fmritest.Acquire(v, fmritest.Grid(v, 4)), 24, 2, nil)
	age, tr := 45.0, 2.0
	post := func(subject string, tr *float64, file []byte) client.Scan {
		t.Helper()
		scan, _, err := c.Submit(t.Context(), client.Upload{Scan: bytes.NewReader(file), Name: "run.nii.gz",
			Metadata: neuroscreen.Metadata{SubjectID: subject, AgeYears: &age, Sex: "M", Modality: neuroscreen.BOLD, TRSeconds: tr}})
		if err != nil {
			t.Fatal(err)
		}
		if scan, err = c.Wait(t.Context(), scan.ID, nil); err != nil {
			t.Fatal(err)
		}
		return scan
	}
	scan := post("S-1", &tr, file)
	if scan.State != neuroscreen.Scored {
		t.Fatalf("%s for %v", scan.State, scan.Reasons)
	}
	res, err := c.GetResultWithResponse(t.Context(), scan.ID, nil)
	if err != nil || res.JSON200 == nil {
		t.Fatalf("result: %v %s", err, res.Body)
	}
	if f := res.JSON200.FMRI; f == nil || f.Frames != 24 || f.TRFrom != "metadata" || len(f.Motion.FDMM) != 24 || len(f.Structures) < 20 {
		t.Errorf("result %.400s", res.Body)
	}
	// A run has no volumes: it is no visit of the timeline, and its report opens.
	line, err := c.GetCaseTimelineWithResponse(t.Context(), scan.ID)
	if err != nil || line.JSON200 == nil || len(line.JSON200.Visits) != 0 {
		t.Errorf("timeline: %v %s", err, line.Body)
	}
	if page, err := c.GetReportWithResponse(t.Context(), scan.ID, nil); err != nil || page.StatusCode() != 200 {
		t.Errorf("report: %v %s", err, page.Status())
	}
	// A later run finds the T1 of the same person, and nobody else's does.
	place := func(scan client.Scan) neuroscreen.FMRIPlace {
		t.Helper()
		res, err := c.GetResultWithResponse(t.Context(), scan.ID, nil)
		if err != nil || res.JSON200 == nil || res.JSON200.FMRI == nil {
			t.Fatalf("result: %v %s", err, res.Body)
		}
		return res.JSON200.FMRI.Place
	}
	if p := place(scan); p.From != fmri.PlaceFromRun {
		t.Errorf("place from %q without a T1", p.From)
	}
	head, err := os.Open("../../testdata/heads/healthy_45M.nii.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer head.Close()
	t1, _, err := c.Submit(t.Context(), client.Upload{Scan: head, Name: "t1.nii.gz",
		Metadata: neuroscreen.Metadata{SubjectID: "S-1", AgeYears: &age, Sex: "M", Modality: neuroscreen.T1w}})
	if err != nil {
		t.Fatal(err)
	}
	if t1, err = c.Wait(t.Context(), t1.ID, nil); err != nil || t1.State != neuroscreen.Scored {
		t.Fatalf("%v: %s for %v", err, t1.State, t1.Reasons)
	}
	later := fmritest.Run(t, fmritest.Acquire(v, fmritest.Grid(v, 4)), 25, 2, nil)
	second := post("S-1", &tr, later)
	if p := place(second); p.From != fmri.PlaceFromT1 || p.T1 == nil || p.T1.ScanID != t1.ID.String() || p.T1.Version != 1 {
		t.Errorf("place %+v, want it through scan %s", p, t1.ID)
	}
	if p := place(post("S-3", &tr, later)); p.From != fmri.PlaceFromRun || p.T1 != nil {
		t.Errorf("another person's run: %+v", p)
	}
	// All of it can be made again, the run through the same T1.
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	for _, scan := range []client.Scan{t1, second} {
		again, err := Reproduce(t.Context(), cfg.Storage, scan.ID, 0, log)
		if err != nil || again.Version != 1 || len(again.Differences) > 0 || again.Now.Network != again.Stored.Network {
			t.Errorf("%+v, %v", again, err)
		}
	}
	for scan, version := range map[uuid.UUID]int{t1.ID: 2, uuid.New(): 0} {
		if _, err := Reproduce(t.Context(), cfg.Storage, scan, version, log); err == nil {
			t.Errorf("version %d of scan %s, which is not there, was reproduced", version, scan)
		}
	}
	// Without a repetition time in header or metadata the run is refused.
	scan = post("S-2", nil, fmritest.Run(t, fmritest.Acquire(v, fmritest.Grid(v, 6)), 20, 0, nil))
	if scan.State != neuroscreen.Refused || len(scan.Reasons) == 0 || scan.Reasons[0].Code != fmri.TRAmbiguous {
		t.Errorf("%s for %v", scan.State, scan.Reasons)
	}
}
