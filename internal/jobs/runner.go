package jobs

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"golang.org/x/sync/errgroup"

	"neuroscreen"
	"neuroscreen/internal/blob"
	"neuroscreen/internal/memory"
	"neuroscreen/internal/store"
	"neuroscreen/internal/webhook"
	"neuroscreen/migrations"
)

// Blobs is what background work asks of the blob store.
type Blobs interface {
	Put(ctx context.Context, r io.Reader, accept func(blob.Info) error) (blob.Info, error)
	Open(ctx context.Context, key string) (io.ReadSeekCloser, error)
	Remove(ctx context.Context, key string) error
	Sweep(ctx context.Context, before time.Time, release func(ctx context.Context, keys []string) (int, error)) (int, error)
	Owner() (blob.Owner, error)
}

// Config of a Runner. Zero durations and counts take the defaults named.
type Config struct {
	Pool    *pgxpool.Pool
	Store   *store.Store
	Blobs   Blobs
	Analyse Analyse
	Logger  *slog.Logger

	// Webhooks sends notices; the zero value to public addresses only.
	Webhooks webhook.Sender
	// Workers is how many scans are analysed at once; 1.
	Workers int
	// Estimate says how many bytes of memory an analysis takes, before it
	// begins; Memory is what all of this process' may take. A scan waits until
	// there is room for it, and is refused when there never will be. Without
	// both only Workers bounds them.
	Estimate func(context.Context, Input) (int64, error)
	Memory   *memory.Gate
	// Decode works on task runs, one decoding at a time; nil leaves decodings to
	// other processes. EstimateDecoding is for it what Estimate is for Analyse.
	Decode           Decode
	EstimateDecoding func(context.Context, DecodingInput) (int64, error)
	// LeaseTTL is how long a scan waits for a worker that was killed; 30 s.
	// Living workers renew three times as often.
	LeaseTTL time.Duration
	// ReconcileEvery is how often scans without a living worker or job are
	// looked for; 10 s. With LeaseTTL, a killed worker's scan is taken up
	// again within 40 s.
	ReconcileEvery time.Duration
	// Idle is how long an unfinished scan may be without job and lease; 20 s.
	Idle time.Duration
	// JobTimeout ends an analysis that hangs; 30 min. A scan may wait for
	// memory as long again.
	JobTimeout time.Duration
	// MaxAttempts of a run, killed workers' counted; 3.
	MaxAttempts int
	// Backoff before the attempt after the given one; 5 s, 30 s, 3 min, ...
	Backoff func(attempt int) time.Duration
	// Unavailable is the wait while a dependency is down; 10 s. Such attempts
	// are not counted.
	Unavailable time.Duration
	// SweepEvery is how often orphan blobs are removed; 1 h. SweepGrace is
	// the age below which they are spared; 1 h.
	SweepEvery time.Duration
	SweepGrace time.Duration
	// IdempotencyKeys are forgotten after this time; 7 days.
	IdempotencyKeys time.Duration
	// KeepBytes is how long a scan's own bytes are kept after its end; 0 for
	// ever. Results and derived files stay.
	KeepBytes time.Duration
}

func (c *Config) defaults() {
	c.Workers = cmp.Or(c.Workers, 1)
	c.LeaseTTL = cmp.Or(c.LeaseTTL, 30*time.Second)
	c.ReconcileEvery = cmp.Or(c.ReconcileEvery, 10*time.Second)
	c.Idle = cmp.Or(c.Idle, 20*time.Second)
	c.JobTimeout = cmp.Or(c.JobTimeout, 30*time.Minute)
	c.MaxAttempts = cmp.Or(c.MaxAttempts, 3)
	c.Unavailable = cmp.Or(c.Unavailable, 10*time.Second)
	c.SweepEvery = cmp.Or(c.SweepEvery, time.Hour)
	c.SweepGrace = cmp.Or(c.SweepGrace, time.Hour)
	c.IdempotencyKeys = cmp.Or(c.IdempotencyKeys, 7*24*time.Hour)
	if c.Backoff == nil {
		c.Backoff = func(attempt int) time.Duration {
			d := 5 * time.Second
			for range attempt - 1 {
				d *= 6
			}
			return min(d, 10*time.Minute)
		}
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
}

// noticeWorkers mostly wait for answers.
const noticeWorkers = 8

// Runner works jobs off. Any number of processes may run one on the same
// database.
type Runner struct {
	cfg    Config
	holder string // of leases
	queue  *Enqueuer
	client *river.Client[pgx.Tx]

	stop func() // of the loops
	wg   sync.WaitGroup

	stopping    context.Context // ends when no scan may wait for memory any more
	stopWaiting context.CancelFunc
	waiting     sync.Map // ids of scans that wait for memory here

	unswept sync.Once // the log's line about it
}

// NewRunner returns a runner that is not started.
func NewRunner(cfg Config) (*Runner, error) {
	cfg.defaults()
	queue, err := NewEnqueuer(cfg.Pool)
	if err != nil {
		return nil, err
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	r := &Runner{cfg: cfg, queue: queue, holder: fmt.Sprintf("%s/%d/%s", host, os.Getpid(), rand.Text()[:6])}
	r.stopping, r.stopWaiting = context.WithCancel(context.Background())
	workers := river.NewWorkers()
	river.AddWorker(workers, &worker{r: r})
	river.AddWorker(workers, &noticeWorker{r: r})
	queues := map[string]river.QueueConfig{
		river.QueueDefault: {MaxWorkers: cfg.Workers},
		noticeQueue:        {MaxWorkers: noticeWorkers},
	}
	if cfg.Decode != nil {
		river.AddWorker(workers, &decodingWorker{r: r})
		queues[decodingQueue] = river.QueueConfig{MaxWorkers: 1}
	}
	r.client, err = river.NewClient(riverpgxv5.New(cfg.Pool), &river.Config{
		Logger:  cfg.Logger,
		Queues:  queues,
		Workers: workers,
		// A newer server may already queue kinds that this one cannot do.
		FetchOnlyKnownKinds: true,
		// At the default of 100 ms, a scan that comes just after a look for
		// jobs waits for the next.
		FetchCooldown: 20 * time.Millisecond,
		JobTimeout:    cfg.JobTimeout,
		// Our leases see to killed workers much sooner. This only tidies up
		// their jobs, which then find the scan finished; it must never take
		// a job from a worker that is alive.
		RescueStuckJobsAfter: 2*cfg.JobTimeout + 10*time.Minute,
	})
	if err != nil {
		return nil, fmt.Errorf("jobs: %w", err)
	}
	return r, nil
}

// Start begins to take jobs; ctx bounds only the start.
func (r *Runner) Start(ctx context.Context) error {
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	if err := r.client.Start(running); err != nil {
		stop()
		return fmt.Errorf("jobs: start: %w", err)
	}
	loops, stopLoops := context.WithCancel(running)
	r.stop = func() { stopLoops(); r.wg.Wait(); stop() }
	r.every(loops, r.cfg.ReconcileEvery, "reconcile", func(ctx context.Context) error {
		n, err := reconcile(ctx, r.cfg.Pool, r.queue, r.cfg.Idle)
		if n > 0 {
			r.cfg.Logger.WarnContext(ctx, "scans or decodings without a worker were queued again", "jobs", n)
		}
		return err
	})
	r.every(loops, r.cfg.SweepEvery, "sweep", r.Sweep)
	return nil
}

// Stop takes no more jobs and waits for those that run. When ctx ends first
// they are interrupted, and their scans go back to the queue at once.
func (r *Runner) Stop(ctx context.Context) error {
	if r.stop == nil {
		return nil
	}
	r.stopWaiting()
	err := r.client.Stop(ctx)
	if err != nil {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 15*time.Second)
		defer cancel()
		err = r.client.StopAndCancel(grace)
	}
	r.stop()
	r.stop = nil
	if err != nil {
		return fmt.Errorf("jobs: stop: %w", err)
	}
	return nil
}

// Sweep removes scans' bytes whose time is over, blobs that nothing refers to,
// and old idempotency keys; nothing when rows and files are not, or not any
// more, what this program takes them for.
func (r *Runner) Sweep(ctx context.Context) error {
	if err := r.maySweep(ctx); errors.Is(err, migrations.ErrNewer) || errors.Is(err, errOthersFiles) {
		r.unswept.Do(func() { r.cfg.Logger.ErrorContext(ctx, "nothing is swept", "error", err) })
		return nil
	} else if err != nil {
		return err
	}
	now := time.Now()
	if r.cfg.KeepBytes > 0 {
		if err := r.forgetBytes(ctx, now.Add(-r.cfg.KeepBytes)); err != nil {
			return err
		}
	}
	n, err := r.cfg.Blobs.Sweep(ctx, now.Add(-r.cfg.SweepGrace), func(ctx context.Context, keys []string) (int, error) {
		return r.cfg.Store.ReleaseBlobs(ctx, keys, r.cfg.Blobs.Remove)
	})
	if n > 0 {
		r.cfg.Logger.InfoContext(ctx, "orphan files removed", "files", n)
	}
	return errors.Join(err, r.cfg.Store.ForgetIdempotencyKeys(ctx, now.Add(-r.cfg.IdempotencyKeys)))
}

var errOthersFiles = errors.New("the files are not marked as this database's; stop the service, set DATABASE_URL and --data as they were, and start it again")

// maySweep: a newer program may have migrated the database since this one
// started, or another may be in its place.
func (r *Runner) maySweep(ctx context.Context) error {
	if err := migrations.Check(ctx, r.cfg.Pool); err != nil {
		return err
	}
	owner, err := r.cfg.Blobs.Owner()
	if err != nil {
		return err
	}
	id, err := r.cfg.Store.Deployment(ctx)
	if err == nil && owner.ID != id.String() {
		err = errOthersFiles
	}
	return err
}

func (r *Runner) forgetBytes(ctx context.Context, before time.Time) error {
	for {
		n, keys, err := r.cfg.Store.ForgetBytes(ctx, before)
		if err != nil || n == 0 {
			return err
		}
		// What cannot be removed now goes as an orphan.
		if _, err := r.cfg.Store.ReleaseBlobs(ctx, keys, r.cfg.Blobs.Remove); err != nil {
			return err
		}
		r.cfg.Logger.InfoContext(ctx, "bytes of old scans removed", "scans", n)
	}
}

// every runs do now and then at each interval until ctx ends.
func (r *Runner) every(ctx context.Context, interval time.Duration, name string, do func(context.Context) error) {
	r.wg.Go(func() {
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			if err := do(ctx); err != nil && ctx.Err() == nil {
				r.cfg.Logger.ErrorContext(ctx, name+" failed", "error", err)
			}
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	})
}

type worker struct {
	river.WorkerDefaults[scanArgs]
	r *Runner
}

func (w *worker) Work(ctx context.Context, job *river.Job[scanArgs]) error {
	return w.r.work(ctx, job.Args.SiteID, job.Args.ScanID)
}

// Timeout of the job is for the wait and the analysis.
func (w *worker) Timeout(*river.Job[scanArgs]) time.Duration { return 2 * w.r.cfg.JobTimeout }

// work does one attempt at a scan: memory, lease, analyse, store. What it
// returns is for river only: nil when this job has nothing more to do, a
// snooze when the scan waits for another attempt.
func (r *Runner) work(ctx context.Context, siteID, scanID uuid.UUID) error {
	log := r.cfg.Logger.With("scan", scanID)
	leave, tooLarge, err := r.admit(ctx, siteID, scanID)
	if err != nil {
		return err
	}
	defer leave()
	ctx, cancelWork := context.WithTimeout(ctx, r.cfg.JobTimeout)
	defer cancelWork()
	lease, err := r.cfg.Store.Lease(ctx, siteID, scanID, r.holder, r.cfg.LeaseTTL)
	switch {
	case errors.Is(err, store.ErrFinal), errors.Is(err, store.ErrBusy), neuroscreen.AsError(err) != nil && neuroscreen.AsError(err).Code == neuroscreen.CodeNotFound:
		// Done, erased, or in other hands: if those hands die, reconcile sees it.
		log.DebugContext(ctx, "job has nothing to do", "why", err)
		return nil
	case err != nil:
		log.WarnContext(ctx, "scan not taken up", "error", err)
		return river.JobSnooze(r.cfg.Unavailable)
	}
	log = log.With("run", lease.Scan.Run, "attempt", lease.Scan.Attempt)
	if lease.Scan.Attempt > r.cfg.MaxAttempts {
		return r.finish(ctx, log, siteID, lease, store.Outcome{State: neuroscreen.Failed, Reasons: []neuroscreen.Reason{{
			Code: "worker-lost",
			Text: fmt.Sprintf("The analysis was started %d times, and each time its worker ended without an answer: killed, or out of memory.", r.cfg.MaxAttempts),
		}}})
	}

	if tooLarge != nil {
		return r.finish(ctx, log, siteID, lease, store.Outcome{State: neuroscreen.Refused, Reasons: []neuroscreen.Reason{*tooLarge}})
	}

	work, cancel := context.WithCancelCause(ctx)
	heart := r.heartbeat(work, cancel, func(ctx context.Context) error { return r.cfg.Store.Renew(ctx, siteID, lease, r.cfg.LeaseTTL) })
	out, err := r.analyse(work, siteID, lease)
	outcome := store.Outcome{State: neuroscreen.Scored, Result: out.Result}
	if err == nil {
		outcome.Files, err = r.putFiles(ctx, out.Files)
	}
	lost := errors.Is(context.Cause(work), store.ErrFenced) || errors.Is(err, store.ErrFenced)
	if err == nil && !lost {
		err = r.finish(ctx, log, siteID, lease, outcome)
		cancel(nil)
		heart.Wait()
		return err
	}
	cancel(nil)
	heart.Wait()
	if lost {
		log.InfoContext(ctx, "scan was cancelled, corrected, erased or taken over; work dropped")
		r.discard(ctx, log, outcome.Files)
		return nil
	}
	return r.giveBack(ctx, log, siteID, lease, err)
}

// giveBack decides what an error means for the scan.
func (r *Runner) giveBack(ctx context.Context, log *slog.Logger, siteID uuid.UUID, lease store.Lease, err error) error {
	var refused *RefusedError
	problem := neuroscreen.AsError(err)
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return r.release(ctx, log, siteID, lease, false, 0,
			neuroscreen.Reason{Code: "worker-stopped", Text: "The worker was stopped; another goes on."})
	case errors.As(err, &refused):
		if len(refused.Reasons) == 0 {
			refused.Reasons = []neuroscreen.Reason{{Code: "refused", Text: "The scan cannot be analysed."}}
		}
		return r.finish(ctx, log, siteID, lease, store.Outcome{State: neuroscreen.Refused, Reasons: refused.Reasons})
	case refusals[problem.Code]:
		return r.finish(ctx, log, siteID, lease, store.Outcome{State: neuroscreen.Refused,
			Reasons: []neuroscreen.Reason{{Code: problem.Type, Text: problem.Message}}})
	case problem.Code == neuroscreen.CodeUnavailable:
		log.WarnContext(ctx, "a dependency is down; the scan waits", "error", err)
		return r.release(ctx, log, siteID, lease, false, r.cfg.Unavailable,
			neuroscreen.Reason{Code: problem.Type, Text: problem.Message})
	}
	reason := neuroscreen.Reason{Code: problem.Type, Text: problem.Message}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		reason = neuroscreen.Reason{Code: "timeout", Text: fmt.Sprintf("The analysis did not end within %v.", r.cfg.JobTimeout)}
	}
	log.ErrorContext(ctx, "analysis failed", "error", err)
	if lease.Scan.Attempt >= r.cfg.MaxAttempts {
		return r.finish(ctx, log, siteID, lease, store.Outcome{State: neuroscreen.Failed, Reasons: []neuroscreen.Reason{reason}})
	}
	return r.release(ctx, log, siteID, lease, true, r.cfg.Backoff(lease.Scan.Attempt), reason)
}

// refusals are what is wrong with the scan itself: no new attempt cures it.
var refusals = map[neuroscreen.Code]bool{
	neuroscreen.CodeUnprocessable: true,
	neuroscreen.CodeInvalid:       true,
	neuroscreen.CodeUnsupported:   true,
	neuroscreen.CodeTooLarge:      true,
}

// analyse calls the analysis; a panic there is an error of this scan.
func (r *Runner) analyse(ctx context.Context, siteID uuid.UUID, lease store.Lease) (out Output, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	in := r.input(lease.Scan)
	in.Settings, in.LeftOut = lease.Settings, lease.LeftOut
	in.Stage = func(ctx context.Context, to neuroscreen.State) error {
		return r.cfg.Store.Advance(ctx, siteID, lease, to)
	}
	out, err = r.cfg.Analyse(ctx, in)
	if err == nil && out.Result == nil {
		err = errors.New("the analysis returned neither result nor error")
	}
	return out, err
}

// input is what is known of a scan before it is taken up.
func (r *Runner) input(scan store.ScanRecord) Input {
	in := Input{ScanID: scan.ID, SiteID: scan.SiteID, Metadata: scan.Metadata, SHA256: scan.SHA256, Size: scan.Size, Image: r.opener(scan.BlobKey)}
	if scan.HeaderBlobKey != "" {
		in.Header = r.opener(scan.HeaderBlobKey)
	}
	in.T1 = func(ctx context.Context) (*T1, error) { return r.t1(ctx, scan.SiteID, scan.Pseudonym) }
	return in
}

// t1 is the newest T1 of a person that stands; nil without one.
func (r *Runner) t1(ctx context.Context, siteID uuid.UUID, pseudonym string) (*T1, error) {
	found, err := r.cfg.Store.T1Segmentation(ctx, siteID, pseudonym)
	if e, ok := errors.AsType[*neuroscreen.Error](err); ok && e.Code == neuroscreen.CodeNotFound {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	return &T1{ScanID: found.ScanID, Version: found.Version, Labels: r.opener(found.BlobKey)}, nil
}

// opener: bytes that the database says are there and are not will not come
// back by waiting.
func (r *Runner) opener(key string) func(context.Context) (io.ReadSeekCloser, error) {
	return func(ctx context.Context) (io.ReadSeekCloser, error) { return r.cfg.Blobs.Open(ctx, key) }
}

// heartbeat renews a lease until ctx ends. When the lease is lost, or could
// not be renewed before it ran out, it cancels with ErrFenced.
func (r *Runner) heartbeat(ctx context.Context, cancel context.CancelCauseFunc, renew func(context.Context) error) *sync.WaitGroup {
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(r.cfg.LeaseTTL / 3)
		defer tick.Stop()
		renewed := time.Now() // our own clock: only the distance counts
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			sent := time.Now()
			attempt, stop := context.WithTimeout(ctx, r.cfg.LeaseTTL/3)
			err := renew(attempt)
			stop()
			switch {
			case err == nil:
				renewed = sent
			case errors.Is(err, store.ErrFenced), time.Since(renewed) > r.cfg.LeaseTTL:
				cancel(store.ErrFenced)
				return
			}
		}
	})
	return &wg
}

// putFiles stores derived files, all at once, since what they wait for is the
// disk; until Finish nothing refers to them, and a sweep removes them if it
// never does. With an error come those that are stored.
func (r *Runner) putFiles(ctx context.Context, files []File) ([]store.DerivedFile, error) {
	ctx = context.WithoutCancel(ctx)
	stored := make([]store.DerivedFile, len(files))
	var puts errgroup.Group
	for i, f := range files {
		puts.Go(func() error {
			info, err := r.cfg.Blobs.Put(ctx, bytes.NewReader(f.Bytes), nil)
			if err == nil {
				stored[i] = store.DerivedFile{Kind: f.Kind, MediaType: f.MediaType, BlobKey: info.Key, SHA256: info.Key, Size: info.Size}
			}
			return err
		})
	}
	err := puts.Wait()
	return slices.DeleteFunc(stored, func(f store.DerivedFile) bool { return f.BlobKey == "" }), err
}

// discard removes files that no row came to refer to.
func (r *Runner) discard(ctx context.Context, log *slog.Logger, files []store.DerivedFile) {
	keys := make([]string, len(files))
	for i, f := range files {
		keys[i] = f.BlobKey
	}
	if _, err := r.cfg.Store.ReleaseBlobs(context.WithoutCancel(ctx), keys, r.cfg.Blobs.Remove); err != nil {
		log.WarnContext(ctx, "files left for the sweep", "error", err)
	}
}

// finish stores the outcome. The work is done, so it goes on while the worker
// is being stopped, and tries again while Postgres is away for less than a
// lease.
func (r *Runner) finish(ctx context.Context, log *slog.Logger, siteID uuid.UUID, lease store.Lease, o store.Outcome) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.cfg.LeaseTTL)
	defer cancel()
	for {
		version, err := r.cfg.Store.Finish(ctx, siteID, lease, o)
		if err == nil {
			log.InfoContext(ctx, "run ended", "state", o.State, "version", version)
			return nil
		}
		problem := neuroscreen.AsError(err)
		switch {
		case errors.Is(err, store.ErrFenced):
			// Or our own commit whose answer was lost: then the files are
			// referred to, and stay.
			log.InfoContext(ctx, "outcome not stored: the lease is lost", "state", o.State)
			r.discard(ctx, log, o.Files)
			return nil
		case problem.Code == neuroscreen.CodeUnavailable && ctx.Err() == nil:
			log.WarnContext(ctx, "outcome not stored yet", "error", err)
		case problem.Code == neuroscreen.CodeUnavailable:
			return err // the lease runs out and another attempt is made
		case o.State == neuroscreen.Scored:
			return r.giveBack(context.WithoutCancel(ctx), log, siteID, lease, err)
		default:
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(r.cfg.LeaseTTL / 30):
		}
	}
}

// release gives the scan back and has the job come again after wait.
func (r *Runner) release(ctx context.Context, log *slog.Logger, siteID uuid.UUID, lease store.Lease, counted bool, wait time.Duration, why neuroscreen.Reason) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err := r.cfg.Store.Release(ctx, siteID, lease, counted, why); err != nil {
		log.WarnContext(ctx, "scan not given back; its lease runs out", "error", err)
	}
	return river.JobSnooze(wait)
}
