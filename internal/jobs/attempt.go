package jobs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/riverqueue/river"

	"neuroscreen"
	"neuroscreen/internal/store"
)

// task is one attempt at a scan or a decoding whose lease this worker holds.
type task struct {
	log     *slog.Logger
	work    string // "analysis" or "decoding", to people
	faster  string // what to do when it takes too long; may be empty
	attempt int
	renew   func(context.Context) error
	release func(ctx context.Context, counted bool, why neuroscreen.Reason) error
	uncount func(context.Context) error // when another has the lease
	away    *atomic.Bool                // the heartbeat found no database, again and again
	// do is the work. With an error comes an outcome that names what was put
	// into the blob store before.
	do           func(context.Context) (outcome, error)
	refuse, fail func([]neuroscreen.Reason) outcome
}

// outcome is an end that is not stored yet.
type outcome struct {
	state string   // for the log
	blobs []string // that nothing else refers to
	store func(context.Context) error
}

// lastWords is how long an attempt may go on storing, or giving back, when its
// worker is being stopped: with what river tries then, less than Stop waits.
const lastWords = 5 * time.Second

// attempt makes one attempt at a scan or a decoding: memory, lease, work, storing.
// What it returns is for river only: nil when this job has nothing more to do, a
// snooze when another attempt is due.
func (r *Runner) attempt(job context.Context, log *slog.Logger,
	admit func(context.Context) (leave func(), tooLarge *neuroscreen.Reason, err error),
	lease func(context.Context) (task, error)) error {
	leave, tooLarge, err := admit(job)
	if err != nil {
		return err
	}
	defer leave()
	ctx, stop := context.WithTimeout(job, r.cfg.JobTimeout)
	defer stop()
	t, err := lease(ctx)
	switch {
	case err == nil:
	case errors.Is(err, store.ErrFinal), errors.Is(err, store.ErrBusy), neuroscreen.AsError(err).Code == neuroscreen.CodeNotFound:
		// Done, erased, or in other hands: if those hands die, reconcile sees it.
		log.DebugContext(ctx, "job has nothing to do", "why", err)
		return nil
	default:
		log.WarnContext(ctx, "not taken up", "error", err)
		return river.JobSnooze(r.cfg.Unavailable)
	}
	t.away = new(atomic.Bool)
	storing, end := outlive(job, lastWords)
	defer end()

	switch { // in vain?
	case t.attempt > r.cfg.MaxAttempts:
		return r.finish(storing, t, t.fail([]neuroscreen.Reason{{
			Code: "worker-lost",
			Text: fmt.Sprintf("The %s was started %d times, and the last worker ended without an answer: killed, out of memory, or stopped while the database was away.", t.work, r.cfg.MaxAttempts),
		}}))
	case tooLarge != nil:
		return r.finish(storing, t, t.refuse([]neuroscreen.Reason{*tooLarge}))
	}
	working, cancel := context.WithCancelCause(ctx)
	heart := r.heartbeat(working, cancel, t)
	o, err := t.recovered(working)
	lost := errors.Is(context.Cause(working), store.ErrFenced) || errors.Is(err, store.ErrFenced)
	if err == nil && !lost {
		if err = r.finish(storing, t, o); err != nil {
			ctx = job // it is storing that failed: the work ended in time
		}
	}
	cancel(nil)
	heart.Wait()
	switch {
	case lost:
		t.log.InfoContext(ctx, "cancelled, corrected, erased or taken over; work dropped")
		r.drop(storing, t, o.blobs)
		return nil
	case err != nil:
		return r.giveBack(ctx, storing, t, err)
	}
	return nil
}

// outlive returns a context that ends a while after the given one.
func outlive(ctx context.Context, by time.Duration) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(by, cancel) })
	return longer, func() { stop(); cancel() }
}

// recovered does the work; a panic there is an error of this attempt.
func (t task) recovered(ctx context.Context) (o outcome, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return t.do(ctx)
}

// giveBack decides what an error means for the scan or decoding; ctx is the
// work's.
func (r *Runner) giveBack(ctx, storing context.Context, t task, err error) error {
	problem := neuroscreen.AsError(err)
	reason := neuroscreen.Reason{Code: problem.Type, Text: problem.Message}
	refused, many := errors.AsType[*RefusedError](err)
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return r.release(storing, t, false, 0, neuroscreen.Reason{Code: "worker-stopped", Text: "The worker was stopped; another goes on."})
	case many && len(refused.Reasons) > 0:
		return r.finish(storing, t, t.refuse(refused.Reasons))
	case many:
		return r.finish(storing, t, t.refuse([]neuroscreen.Reason{{Code: "refused", Text: "The scan cannot be analysed."}}))
	case refusals[problem.Code]:
		return r.finish(storing, t, t.refuse([]neuroscreen.Reason{reason}))
	case problem.Code == neuroscreen.CodeUnavailable:
		t.log.WarnContext(ctx, "a dependency is down; the "+t.work+" waits", "error", err)
		return r.release(storing, t, false, r.cfg.Unavailable, reason)
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		reason = neuroscreen.Reason{Code: "timeout", Text: fmt.Sprintf("The %s did not end within %v%s.", t.work, r.cfg.JobTimeout, t.faster)}
	}
	t.log.ErrorContext(ctx, t.work+" failed", "error", err)
	if t.attempt >= r.cfg.MaxAttempts {
		return r.finish(storing, t, t.fail([]neuroscreen.Reason{reason}))
	}
	return r.release(storing, t, true, r.cfg.Backoff(t.attempt), reason)
}

// refusals are what is wrong with the scan itself: no new attempt cures it.
var refusals = map[neuroscreen.Code]bool{
	neuroscreen.CodeUnprocessable: true,
	neuroscreen.CodeInvalid:       true,
	neuroscreen.CodeUnsupported:   true,
	neuroscreen.CodeTooLarge:      true,
}

// heartbeat renews a lease until ctx ends. When the lease is lost it cancels
// with ErrFenced; only the database knows that. While that is away the work goes
// on, even past the lease's end: mostly nobody else reaches it either, and who
// takes the work up has a higher fence, so that nothing of this is stored.
func (r *Runner) heartbeat(ctx context.Context, cancel context.CancelCauseFunc, t task) *sync.WaitGroup {
	var wg sync.WaitGroup
	wg.Go(func() {
		pause, failed := r.cfg.LeaseTTL/3, 0
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
			once, stop := context.WithTimeout(ctx, r.cfg.LeaseTTL/3)
			err := t.renew(once)
			stop()
			switch {
			case err == nil:
				pause, failed = r.cfg.LeaseTTL/3, 0
			case errors.Is(err, store.ErrFenced):
				cancel(store.ErrFenced)
				return
			default:
				if failed++; failed == 1 && ctx.Err() == nil {
					t.log.WarnContext(ctx, "lease not renewed; the "+t.work+" goes on", "error", err)
				}
				pause = r.cfg.LeaseTTL / 30 // to be there before reconcile is
			}
			// One failure may also be this process' own, of one that was frozen.
			t.away.Store(failed > 1)
		}
	})
	return &wg
}

// finish stores an outcome. The work is done, so it waits as long as Postgres
// is away.
func (r *Runner) finish(ctx context.Context, t task, o outcome) error {
	err := r.patiently(ctx, t.log, "outcome not stored yet", o.store)
	switch {
	case errors.Is(err, store.ErrFenced):
		// Or our own commit whose answer was lost: then the blobs are
		// referred to, and stay.
		t.log.InfoContext(ctx, "outcome not stored: the lease is lost", "state", o.state)
		r.drop(ctx, t, o.blobs)
		return nil
	case err == nil:
		t.log.InfoContext(ctx, t.work+" ended", "state", o.state)
	}
	return err
}

// release gives the scan or decoding back and has the job come again after wait.
func (r *Runner) release(ctx context.Context, t task, counted bool, wait time.Duration, why neuroscreen.Reason) error {
	err := r.patiently(ctx, t.log, "not given back yet", func(ctx context.Context) error { return t.release(ctx, counted, why) })
	if err != nil {
		t.log.WarnContext(ctx, "not given back; the lease runs out", "error", err)
	}
	if errors.Is(err, store.ErrFenced) && !counted {
		r.drop(ctx, t, nil)
	}
	return river.JobSnooze(wait)
}

// patiently calls do until Postgres is there to answer, or ctx ends; the log
// says once that it waits.
func (r *Runner) patiently(ctx context.Context, log *slog.Logger, yet string, do func(context.Context) error) error {
	for first := true; ; first = false {
		once, stop := context.WithTimeout(ctx, r.cfg.LeaseTTL) // a connection may be dead and not say so
		err := do(once)
		stop()
		if !away(err) {
			return err
		}
		if first {
			log.WarnContext(ctx, yet, "error", err)
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(r.cfg.LeaseTTL / 30):
		}
	}
}

// away says that an error is the database's absence.
func away(err error) bool {
	e, ok := errors.AsType[*neuroscreen.Error](err)
	return ok && e.Type == "database-unavailable"
}

// drop ends an attempt whose lease is lost. If another took the work up because
// the database was away from here, this worker did not die, and its attempt
// does not count.
func (r *Runner) drop(ctx context.Context, t task, blobs []string) {
	if t.away.Load() {
		if err := t.uncount(ctx); err != nil {
			t.log.WarnContext(ctx, "the attempt stays counted", "error", err)
		}
	}
	if len(blobs) == 0 {
		return
	}
	if _, err := r.cfg.Store.ReleaseBlobs(ctx, blobs, r.cfg.Blobs.Remove); err != nil {
		t.log.WarnContext(ctx, "files left for the sweep", "error", err)
	}
}
