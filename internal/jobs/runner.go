package jobs

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

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
	// memory as long again, and what is done for a database that is away.
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

// longest is how long a job may take: to wait for memory, to work, and to wait
// for a database that is away when the end is to be stored.
func (c *Config) longest() time.Duration { return 3 * c.JobTimeout }

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
	river.AddWorker(workers, &scanWorker{r: r})
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
		RescueStuckJobsAfter: cfg.longest() + 10*time.Minute,
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
	answers, back := true, time.Time{} // the database, since it was away
	r.every(loops, r.cfg.ReconcileEvery, "reconcile", func(ctx context.Context) error {
		ctx, stop := context.WithTimeout(ctx, r.cfg.LeaseTTL)
		defer stop()
		// By half a lease after it is back, living workers have renewed theirs.
		leases := answers && time.Since(back) > r.cfg.LeaseTTL/2
		n, err := reconcile(ctx, r.cfg.Pool, r.queue, r.cfg.Idle, leases)
		if err == nil && !answers {
			back = time.Now()
		}
		answers = err == nil
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
