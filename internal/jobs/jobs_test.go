package jobs

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"

	"neuroscreen"
	"neuroscreen/internal/blob"
	"neuroscreen/internal/deid"
	"neuroscreen/internal/pgtest"
	"neuroscreen/internal/store"
)

// Environment of a worker process that a test kills.
const (
	helperDB    = "JOBS_TEST_HELPER_DB"
	helperBlobs = "JOBS_TEST_HELPER_BLOBS"
)

func TestMain(m *testing.M) {
	if db := os.Getenv(helperDB); db != "" {
		helper(db, os.Getenv(helperBlobs))
		return
	}
	goleak.VerifyTestMain(m)
}

// helper is a worker that takes a scan up, reaches a stage, says so and
// never comes back.
func helper(db, dir string) {
	pool, err := store.OpenPool(context.Background(), db, 0)
	if err != nil {
		panic(err)
	}
	blobs, err := blob.OpenFiles(dir)
	if err != nil {
		panic(err)
	}
	r, err := NewRunner(config(pool, blobs, func(ctx context.Context, in Input) (Output, error) {
		if err := in.Stage(ctx, neuroscreen.Segmented); err != nil {
			return Output{}, err
		}
		fmt.Println("segmented")
		<-ctx.Done()
		return Output{}, ctx.Err()
	}))
	if err != nil {
		panic(err)
	}
	if err := r.Start(context.Background()); err != nil {
		panic(err)
	}
	select {}
}

// bundle is a service's background half on a database and folder of its own.
type bundle struct {
	*store.Store
	pool  *pgxpool.Pool
	blobs *blob.Files
	dir   string
	site  uuid.UUID
}

func newStore(pool *pgxpool.Pool, blobs *blob.Files) *store.Store {
	keys, err := deid.New(strings.Repeat("5a", 32))
	if err != nil {
		panic(err)
	}
	queue, err := NewEnqueuer(pool)
	if err != nil {
		panic(err)
	}
	return store.New(store.Config{Pool: pool, Keys: keys, Jobs: queue, Notices: queue, Blobs: blobs})
}

func setup(t *testing.T) *bundle {
	t.Helper()
	b := &bundle{pool: pgtest.New(t), dir: t.TempDir()}
	var err error
	if b.blobs, err = blob.OpenFiles(b.dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.blobs.Close() })
	b.Store = newStore(b.pool, b.blobs)
	site, _, err := b.EnsureSite(t.Context(), "here")
	if err != nil {
		t.Fatal(err)
	}
	b.site = site.ID
	id, err := b.Deployment(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := b.blobs.SetOwner(blob.Owner{ID: id.String()}); err != nil {
		t.Fatal(err)
	}
	return b
}

// config has times short enough for tests.
func config(pool *pgxpool.Pool, blobs *blob.Files, a Analyse) Config {
	return Config{
		Pool: pool, Store: newStore(pool, blobs), Blobs: blobs, Analyse: a,
		Logger:   slog.New(slog.NewTextHandler(io.Discard, nil)),
		LeaseTTL: time.Second, ReconcileEvery: 50 * time.Millisecond, Idle: time.Second,
		Backoff:     func(int) time.Duration { return 0 },
		Unavailable: 10 * time.Millisecond,
	}
}

func (b *bundle) start(t *testing.T, a Analyse, edit ...func(*Config)) *Runner {
	t.Helper()
	cfg := config(b.pool, b.blobs, a)
	for _, e := range edit {
		e(&cfg)
	}
	r, err := NewRunner(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		if err := r.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	return r
}

func (b *bundle) post(t *testing.T, content string) store.ScanRecord {
	t.Helper()
	age := 71.0
	return b.postFrom(t, content, neuroscreen.Metadata{SubjectID: "MRN-1", AgeYears: &age, Sex: neuroscreen.Female, Modality: neuroscreen.T1w})
}

func (b *bundle) postFrom(t *testing.T, content string, m neuroscreen.Metadata) store.ScanRecord {
	t.Helper()
	info, err := b.blobs.Put(t.Context(), strings.NewReader(content), nil)
	if err != nil {
		t.Fatal(err)
	}
	received := fmt.Sprintf("%x", sha256.Sum256([]byte("as received: "+content))) // the blob is a copy
	c, err := b.CreateScan(t.Context(), b.site, "key-1", store.NewScan{SHA256: received, Size: info.Size, BlobKey: info.Key, Metadata: m})
	if err != nil {
		t.Fatal(err)
	}
	return c.Scan
}

// await returns the scan when it is in the state.
func (b *bundle) await(t *testing.T, scan store.ScanRecord, want neuroscreen.State) store.ScanRecord {
	t.Helper()
	deadline := time.After(60 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		rec, err := b.Scan(t.Context(), b.site, scan.ID)
		if e := neuroscreen.AsError(err); e != nil && e.Code != neuroscreen.CodeUnavailable {
			t.Fatal(err)
		}
		if rec.State == want {
			return rec
		}
		if rec.State.Final() {
			t.Fatalf("the scan is %s %v, not %s", rec.State, rec.Reasons, want)
		}
		select {
		case <-deadline:
			t.Fatalf("the scan stays %s (%v), attempt %d", rec.State, rec.Reasons, rec.Attempt)
		case <-tick.C:
		}
	}
}

func (b *bundle) count(t *testing.T, sql string) int {
	t.Helper()
	var n int
	if err := b.pool.QueryRow(t.Context(), sql).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// awaitCount waits until a query counts so many rows.
func (b *bundle) awaitCount(t *testing.T, sql string, want int) {
	t.Helper()
	for end := time.Now().Add(time.Minute); b.count(t, sql) != want; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: %d, want %d", sql, b.count(t, sql), want)
		}
	}
}

// output is a good analysis' answer.
func output(in Input) Output {
	return Output{
		Result: &neuroscreen.Result{Schema: neuroscreen.ResultSchema, ScanID: in.ScanID.String(), SubjectID: in.Metadata.SubjectID,
			Input: neuroscreen.Input{SHA256: in.SHA256}},
		Files: []File{{Kind: store.KindPreview, MediaType: "image/png", Bytes: []byte("png of " + in.ScanID.String())}},
	}
}

func good(ctx context.Context, in Input) (Output, error) { return output(in), nil }

// TestAnalysisFindsTheT1: that of the same person, with its labels.
func TestAnalysisFindsTheT1(t *testing.T) {
	t.Parallel()
	b := setup(t)
	found := make(chan *T1, 1)
	b.start(t, func(ctx context.Context, in Input) (Output, error) {
		out := output(in)
		if in.Metadata.Modality == neuroscreen.T1w {
			out.Files = append(out.Files, File{Kind: store.KindSegmentation, MediaType: "application/gzip", Bytes: []byte("labels of " + in.ScanID.String())})
			return out, nil
		}
		t1, err := in.T1(ctx)
		if err == nil {
			found <- t1
		}
		return out, err
	})
	age := 71.0
	bold := neuroscreen.Metadata{SubjectID: "MRN-1", AgeYears: &age, Sex: neuroscreen.Female, Modality: neuroscreen.BOLD}
	b.await(t, b.postFrom(t, "a run before", bold), neuroscreen.Scored)
	if t1 := <-found; t1 != nil {
		t.Errorf("%+v before there is one", t1)
	}
	scan := b.await(t, b.post(t, "a T1"), neuroscreen.Scored)
	b.await(t, b.postFrom(t, "a run", bold), neuroscreen.Scored)
	t1 := <-found
	if t1 == nil || t1.ScanID != scan.ID || t1.Version != 1 {
		t.Fatalf("%+v, want scan %s", t1, scan.ID)
	}
	r, err := t1.Labels(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || string(got) != "labels of "+scan.ID.String() {
		t.Errorf("labels %q, %v", got, err)
	}
	bold.SubjectID = "MRN-2"
	b.await(t, b.postFrom(t, "another's run", bold), neuroscreen.Scored)
	if t1 := <-found; t1 != nil {
		t.Errorf("another person's T1: %+v", t1)
	}
}

func TestAnalysisEndsScored(t *testing.T) {
	t.Parallel()
	b := setup(t)
	scan := b.post(t, "the bytes")
	b.start(t, func(ctx context.Context, in Input) (Output, error) {
		r, err := in.Image(ctx)
		if err != nil {
			return Output{}, err
		}
		defer r.Close()
		if got, err := io.ReadAll(r); err != nil || string(got) != "the bytes" || in.Header != nil || in.Metadata.SubjectID != scan.Pseudonym || *in.Metadata.AgeYears != 71 {
			return Output{}, fmt.Errorf("input %q %+v %w", got, in, err)
		}
		for _, to := range []neuroscreen.State{neuroscreen.Checked, neuroscreen.Segmented, neuroscreen.Measured} {
			if err := in.Stage(ctx, to); err != nil {
				return Output{}, err
			}
		}
		return output(in), nil
	})
	rec := b.await(t, scan, neuroscreen.Scored)
	if rec.Attempt != 1 || rec.ResultVersion != 1 {
		t.Errorf("%+v", rec)
	}
	f, err := b.DerivedFile(t.Context(), b.site, scan.ID, 0, store.KindPreview)
	if err != nil {
		t.Fatal(err)
	}
	r, err := b.blobs.Open(t.Context(), f.BlobKey)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, _ := io.ReadAll(r); string(got) != "png of "+scan.ID.String() || f.Size != int64(len(got)) {
		t.Errorf("preview is %q", got)
	}
}

// TestWhatErrorsMean is the table of an analysis' errors.
func TestWhatErrorsMean(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		err      error // of each attempt, until it is good after the given number
		goodFrom int32 // attempt, counted here; 0 for never
		state    neuroscreen.State
		reason   string
		calls    int32
	}{
		"refused, with its reason": {err: neuroscreen.Errorf(neuroscreen.CodeUnprocessable, "not-a-brain", "no"), state: neuroscreen.Refused, reason: "not-a-brain", calls: 1},
		"refused for several":      {err: &RefusedError{Reasons: []neuroscreen.Reason{{Code: "thick-slices"}, {Code: "not-t1"}}}, state: neuroscreen.Refused, reason: "thick-slices not-t1", calls: 1},
		"refused without a word":   {err: &RefusedError{}, state: neuroscreen.Refused, reason: "refused", calls: 1},
		"a file that is no NIfTI":  {err: neuroscreen.Errorf(neuroscreen.CodeInvalid, "bad-magic", "no"), state: neuroscreen.Refused, reason: "bad-magic", calls: 1},
		"our fault, three times":   {err: errors.New("index out of range"), state: neuroscreen.Failed, reason: "internal", calls: 3},
		"our fault, twice":         {err: errors.New("index out of range"), goodFrom: 3, state: neuroscreen.Scored, calls: 3},
		"wrapped refusal":          {err: fmt.Errorf("check: %w", neuroscreen.Errorf(neuroscreen.CodeUnprocessable, "not-a-brain", "no")), state: neuroscreen.Refused, reason: "not-a-brain", calls: 1},
		"a dependency, five times": {err: neuroscreen.Errorf(neuroscreen.CodeUnavailable, "storage-full", "no room"), goodFrom: 6, state: neuroscreen.Scored, calls: 6},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			scan := b.post(t, "bytes")
			var calls atomic.Int32
			b.start(t, func(ctx context.Context, in Input) (Output, error) {
				if n := calls.Add(1); c.goodFrom == 0 || n < c.goodFrom {
					return Output{}, c.err
				}
				return output(in), nil
			})
			rec := b.await(t, scan, c.state)
			var reasons []string
			for _, r := range rec.Reasons {
				reasons = append(reasons, r.Code)
			}
			if strings.Join(reasons, " ") != c.reason || calls.Load() != c.calls {
				t.Errorf("reasons %v after %d attempts, want %s after %d", reasons, calls.Load(), c.reason, c.calls)
			}
		})
	}
}

func TestPanicFailsTheScanNotTheWorker(t *testing.T) {
	t.Parallel()
	b := setup(t)
	bad, fine := b.post(t, "bad"), b.post(t, "fine")
	b.start(t, func(ctx context.Context, in Input) (Output, error) {
		if in.ScanID == bad.ID {
			panic("index out of range")
		}
		return output(in), nil
	})
	b.await(t, bad, neuroscreen.Failed)
	b.await(t, fine, neuroscreen.Scored)
}

func TestWrongAnswersAreNotStored(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(*Output){
		"no result":             func(o *Output) { o.Result = nil },
		"another scan's result": func(o *Output) { o.Result.ScanID = uuid.NewString() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			scan := b.post(t, "bytes")
			b.start(t, func(ctx context.Context, in Input) (Output, error) {
				o := output(in)
				edit(&o)
				return o, nil
			})
			b.await(t, scan, neuroscreen.Failed)
			if n := b.count(t, "SELECT count(*) FROM results"); n != 0 {
				t.Errorf("%d results", n)
			}
		})
	}
}

func TestCancelStopsTheWork(t *testing.T) {
	t.Parallel()
	for name, wait := range map[string]func(ctx context.Context, in Input, cancelled <-chan struct{}) error{
		"at the next stage": func(ctx context.Context, in Input, cancelled <-chan struct{}) error {
			<-cancelled
			return in.Stage(ctx, neuroscreen.Segmented)
		},
		"through its context": func(ctx context.Context, in Input, _ <-chan struct{}) error {
			<-ctx.Done() // by the heartbeat
			return ctx.Err()
		},
		"or its answer is dropped": func(ctx context.Context, in Input, cancelled <-chan struct{}) error {
			<-cancelled
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			scan := b.post(t, "bytes")
			begun, cancelled, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
			r := b.start(t, func(ctx context.Context, in Input) (Output, error) {
				defer close(ended) // a second attempt would panic and fail the scan
				close(begun)
				return output(in), wait(ctx, in, cancelled)
			})
			<-begun
			if _, err := b.Cancel(t.Context(), b.site, "key-1", scan.ID); err != nil {
				t.Fatal(err)
			}
			close(cancelled)
			<-ended
			if err := r.Stop(t.Context()); err != nil {
				t.Fatal(err)
			}
			rec := b.await(t, scan, neuroscreen.Cancelled)
			if n := b.count(t, "SELECT count(*) FROM results"); n != 0 || rec.Attempt != 1 {
				t.Errorf("%d results, %+v", n, rec)
			}
			if n, err := b.blobs.Sweep(t.Context(), time.Now().Add(time.Hour), func(ctx context.Context, keys []string) (int, error) {
				return b.ReleaseBlobs(ctx, keys, b.blobs.Remove)
			}); n != 0 || err != nil {
				t.Errorf("%d files were left behind, %v", n, err)
			}
		})
	}
}

// TestKilledWorkerProcess kills a real worker process in the middle of a scan.
func TestKilledWorkerProcess(t *testing.T) {
	t.Parallel()
	b := setup(t)
	scan := b.post(t, "bytes")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), helperDB+"="+b.pool.Config().ConnString(), helperBlobs+"="+b.dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	cmd.Process.Kill()
	cmd.Wait()
	if line != "segmented\n" {
		t.Fatal(line, err)
	}
	killed := time.Now()
	if rec, err := b.Scan(t.Context(), b.site, scan.ID); err != nil || rec.State != neuroscreen.Segmented {
		t.Fatal(rec, err)
	}
	b.start(t, good)
	rec := b.await(t, scan, neuroscreen.Scored)
	if rec.Attempt != 2 {
		t.Errorf("%d attempts", rec.Attempt)
	}
	// The defaults are 30 times longer than this test's.
	if took := time.Since(killed); took > 20*time.Second {
		t.Errorf("took %v", took)
	}
	events, err := b.Events(t.Context(), b.site, scan.ID, 0)
	var got []string
	for _, e := range events {
		got = append(got, string(e.State))
	}
	if err != nil || !slices.Equal(got, []string{"received", "segmented", "received", "scored"}) {
		t.Errorf("events %v %v", got, err)
	}
}

// TestSlowWorkerIsOvertaken: a worker that could not renew its lease comes
// back late, and only the other one's result counts.
func TestSlowWorkerIsOvertaken(t *testing.T) {
	t.Parallel()
	b := setup(t)
	scan := b.post(t, "bytes")
	lease, err := b.Lease(t.Context(), b.site, scan.ID, "frozen", 10*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	b.start(t, good)
	b.await(t, scan, neuroscreen.Scored)
	in := Input{ScanID: scan.ID, Metadata: scan.Metadata, SHA256: scan.SHA256}
	_, err = b.Finish(t.Context(), b.site, lease, store.Outcome{State: neuroscreen.Scored, Result: output(in).Result})
	if !errors.Is(err, store.ErrFenced) {
		t.Errorf("got %v", err)
	}
	if n := b.count(t, "SELECT count(*) FROM results"); n != 1 {
		t.Errorf("%d results", n)
	}
}

func TestWorkersThatDieAgainAndAgainFailTheScan(t *testing.T) {
	t.Parallel()
	b := setup(t)
	scan := b.post(t, "bytes")
	for range 3 {
		if _, err := b.Lease(t.Context(), b.site, scan.ID, "dies", -time.Second); err != nil {
			t.Fatal(err)
		}
	}
	b.start(t, func(context.Context, Input) (Output, error) {
		t.Error("a fourth attempt was made")
		return Output{}, nil
	})
	rec := b.await(t, scan, neuroscreen.Failed)
	if len(rec.Reasons) != 1 || rec.Reasons[0].Code != "worker-lost" {
		t.Errorf("%+v", rec.Reasons)
	}
}

func TestScanWithoutJobIsQueuedAgain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	scan := b.post(t, "bytes")
	if _, err := b.pool.Exec(t.Context(), "DELETE FROM river_job"); err != nil {
		t.Fatal(err)
	}
	b.start(t, good, func(c *Config) { c.Idle = 100 * time.Millisecond })
	b.await(t, scan, neuroscreen.Scored)
}

func TestReconcileLeavesWaitingScansAlone(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.post(t, "has a job")
	done := b.post(t, "is done")
	if _, err := b.Cancel(t.Context(), b.site, "key-1", done.ID); err != nil {
		t.Fatal(err)
	}
	held := b.post(t, "is held")
	if _, err := b.Lease(t.Context(), b.site, held.ID, "w", time.Hour); err != nil {
		t.Fatal(err)
	}
	if _, err := b.pool.Exec(t.Context(), "DELETE FROM river_job WHERE NOT args @> jsonb_build_object('scan_id', (SELECT id FROM scans WHERE state = 'received' AND lease_until IS NULL))"); err != nil {
		t.Fatal(err)
	}
	queue, err := NewEnqueuer(b.pool)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := reconcile(t.Context(), b.pool, queue, 0, true); n != 0 || err != nil {
		t.Errorf("%d queued again, %v", n, err)
	}
	if _, err := b.pool.Exec(t.Context(), "DELETE FROM river_job"); err != nil {
		t.Fatal(err)
	}
	if n, err := reconcile(t.Context(), b.pool, queue, 0, true); n != 1 || err != nil {
		t.Errorf("%d queued again without a job, %v", n, err)
	}
	if n, err := reconcile(t.Context(), b.pool, queue, 0, true); n != 0 || err != nil {
		t.Errorf("%d queued twice, %v", n, err)
	}
}

func TestStopGivesTheScanBack(t *testing.T) {
	t.Parallel()
	b := setup(t)
	scan := b.post(t, "bytes")
	begun := make(chan struct{})
	r := b.start(t, func(ctx context.Context, in Input) (Output, error) {
		close(begun)
		<-ctx.Done()
		return Output{}, fmt.Errorf("layer 3: %w", ctx.Err())
	})
	<-begun
	soon, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := r.Stop(soon); err != nil {
		t.Fatal(err)
	}
	rec, err := b.Scan(t.Context(), b.site, scan.ID)
	if err != nil || rec.State != neuroscreen.Received || rec.Attempt != 0 || rec.Reasons[0].Code != "worker-stopped" {
		t.Errorf("%+v %v", rec, err)
	}
	b.start(t, good)
	if rec := b.await(t, scan, neuroscreen.Scored); rec.Attempt != 1 || len(rec.Reasons) != 0 {
		t.Errorf("%+v", rec)
	}
}

func TestStopWaitsForTheRunningScan(t *testing.T) {
	t.Parallel()
	b := setup(t)
	scan := b.post(t, "bytes")
	begun, goOn := make(chan struct{}), make(chan struct{})
	r := b.start(t, func(ctx context.Context, in Input) (Output, error) {
		close(begun)
		<-goOn
		return output(in), ctx.Err()
	})
	<-begun
	stopped := make(chan error)
	go func() { stopped <- r.Stop(context.Background()) }()
	close(goOn)
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	if rec, err := b.Scan(t.Context(), b.site, scan.ID); err != nil || rec.State != neuroscreen.Scored {
		t.Errorf("%+v %v", rec, err)
	}
}

func TestTimeout(t *testing.T) {
	t.Parallel()
	b := setup(t)
	scan := b.post(t, "bytes")
	b.start(t, func(ctx context.Context, in Input) (Output, error) {
		<-ctx.Done()
		return Output{}, ctx.Err()
	}, func(c *Config) { c.JobTimeout, c.MaxAttempts = 200*time.Millisecond, 2 })
	rec := b.await(t, scan, neuroscreen.Failed)
	if rec.Reasons[0].Code != "timeout" || rec.Attempt != 2 {
		t.Errorf("%+v", rec)
	}
}

// TestTwoWorkersShareTheWork: each scan is analysed once.
func TestTwoWorkersShareTheWork(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var scans []store.ScanRecord
	for i := range 20 {
		scans = append(scans, b.post(t, fmt.Sprint("bytes ", i)))
	}
	var calls atomic.Int32
	a := func(ctx context.Context, in Input) (Output, error) {
		calls.Add(1)
		return output(in), nil
	}
	four := func(c *Config) { c.Workers, c.LeaseTTL = 4, time.Minute }
	b.start(t, a, four)
	b.start(t, a, four)
	for _, s := range scans {
		b.await(t, s, neuroscreen.Scored)
	}
	if n := b.count(t, "SELECT count(*) FROM results"); n != 20 || calls.Load() != 20 {
		t.Errorf("%d results of %d analyses", n, calls.Load())
	}
}

func TestSweepSparesWhatIsUsed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	scan := b.post(t, "bytes")
	orphan, err := b.blobs.Put(t.Context(), strings.NewReader("nobody's"), nil)
	if err != nil {
		t.Fatal(err)
	}
	r := b.start(t, good)
	b.await(t, scan, neuroscreen.Scored)
	r.cfg.SweepGrace = -time.Hour // everything is old enough
	if err := r.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	preview, err := b.DerivedFile(t.Context(), b.site, scan.ID, 0, store.KindPreview)
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]bool{scan.BlobKey: true, preview.BlobKey: true, orphan.Key: false} {
		if there, err := b.blobs.Has(t.Context(), key); there != want || err != nil {
			t.Errorf("blob there %v, want %v, %v", there, want, err)
		}
	}
}

// TestSweepIsRefused where a sweep would take files that other rows, or rows of
// another schema, refer to. The log says it once.
func TestSweepIsRefused(t *testing.T) {
	t.Parallel()
	exec := func(sql string) func(*testing.T, *bundle) {
		return func(t *testing.T, b *bundle) {
			if _, err := b.pool.Exec(t.Context(), sql); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, c := range map[string]struct {
		change func(*testing.T, *bundle)
		says   string
	}{
		"a newer program migrated": {exec("INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, true)"), "version 99999"},
		"another database":         {exec("UPDATE deployment SET id = gen_random_uuid()"), "not marked"},
		"another folder": {func(t *testing.T, b *bundle) {
			if err := os.Remove(filepath.Join(b.dir, blob.OwnerFile)); err != nil {
				t.Fatal(err)
			}
		}, "not marked"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			scan := b.post(t, "bytes")
			var log bytes.Buffer
			cfg := config(b.pool, b.blobs, good)
			cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
			cfg.SweepGrace, cfg.KeepBytes = -time.Hour, time.Nanosecond
			r, err := NewRunner(cfg)
			if err != nil {
				t.Fatal(err)
			}
			orphan, err := b.blobs.Put(t.Context(), strings.NewReader("nobody's"), nil)
			if err != nil {
				t.Fatal(err)
			}
			c.change(t, b)
			for range 2 {
				if err := r.Sweep(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			for _, key := range []string{scan.BlobKey, orphan.Key} {
				if there, err := b.blobs.Has(t.Context(), key); !there || err != nil {
					t.Errorf("there %v, %v", there, err)
				}
			}
			if n := strings.Count(log.String(), c.says); n != 1 || strings.Count(log.String(), "\n") != 1 {
				t.Errorf("log: %s", &log)
			}
		})
	}
}

func TestSweepRemovesBytesWhoseTimeIsOver(t *testing.T) {
	t.Parallel()
	b := setup(t)
	scan := b.post(t, "bytes")
	r := b.start(t, good)
	b.await(t, scan, neuroscreen.Scored)
	for keep, want := range map[time.Duration]bool{0: true, time.Hour: true} {
		r.cfg.KeepBytes = keep
		if err := r.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		if there, err := b.blobs.Has(t.Context(), scan.BlobKey); there != want || err != nil {
			t.Errorf("kept for %v: there %v, %v", keep, there, err)
		}
	}
	r.cfg.KeepBytes = time.Nanosecond
	if err := r.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if there, err := b.blobs.Has(t.Context(), scan.BlobKey); there || err != nil {
		t.Errorf("the bytes are still there, %v", err)
	}
	if _, err := b.DerivedFile(t.Context(), b.site, scan.ID, 0, store.KindPreview); err != nil {
		t.Errorf("the preview went too: %v", err)
	}
}

// TestConnectionsCutWhileWorking: Postgres restarts under a running analysis.
func TestConnectionsCutWhileWorking(t *testing.T) {
	t.Parallel()
	b := setup(t)
	scan := b.post(t, "bytes")
	b.start(t, func(ctx context.Context, in Input) (Output, error) {
		_, err := b.pool.Exec(ctx, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
		return output(in), err
	}, func(c *Config) { c.LeaseTTL = 10 * time.Second })
	if rec := b.await(t, scan, neuroscreen.Scored); rec.Attempt != 1 {
		t.Errorf("%+v", rec)
	}
	if n := b.count(t, "SELECT count(*) FROM results"); n != 1 {
		t.Errorf("%d results", n)
	}
}
