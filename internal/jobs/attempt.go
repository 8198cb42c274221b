package jobs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
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

// attempt makes one attempt at a scan or a decoding: memory, lease, work, storing.
// What it returns is for river only: nil when this job has nothing more to do, a
// snooze when another attempt is due.
func (r *Runner) attempt(ctx context.Context, log *slog.Logger,
	admit func(context.Context) (leave func(), tooLarge *neuroscreen.Reason, err error),
	lease func(context.Context) (task, error)) error {
	leave, tooLarge, err := admit(ctx)
	if err != nil {
		return err
	}
	defer leave()
	ctx, stop := context.WithTimeout(ctx, r.cfg.JobTimeout)
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

	switch { // in vain?
	case t.attempt > r.cfg.MaxAttempts:
		return r.finish(ctx, t, t.fail([]neuroscreen.Reason{{
			Code: "worker-lost",
			Text: fmt.Sprintf("The %s was started %d times, and each time its worker ended without an answer: killed, or out of memory.", t.work, r.cfg.MaxAttempts),
		}}))
	case tooLarge != nil:
		return r.finish(ctx, t, t.refuse([]neuroscreen.Reason{*tooLarge}))
	}
	working, cancel := context.WithCancelCause(ctx)
	heart := r.heartbeat(working, cancel, t.renew)
	o, err := t.recovered(working)
	lost := errors.Is(context.Cause(working), store.ErrFenced) || errors.Is(err, store.ErrFenced)
	if err == nil && !lost {
		if err = r.finish(ctx, t, o); err != nil {
			ctx = context.WithoutCancel(ctx) // it is storing that failed, whatever has ended meanwhile
		}
	}
	cancel(nil)
	heart.Wait()
	switch {
	case lost:
		t.log.InfoContext(ctx, "cancelled, corrected, erased or taken over; work dropped")
		r.discard(ctx, t.log, o.blobs)
		return nil
	case err != nil:
		return r.giveBack(ctx, t, err)
	}
	return nil
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

// giveBack decides what an error means for the scan or decoding.
func (r *Runner) giveBack(ctx context.Context, t task, err error) error {
	problem := neuroscreen.AsError(err)
	reason := neuroscreen.Reason{Code: problem.Type, Text: problem.Message}
	refused, many := errors.AsType[*RefusedError](err)
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return r.release(ctx, t, false, 0, neuroscreen.Reason{Code: "worker-stopped", Text: "The worker was stopped; another goes on."})
	case many && len(refused.Reasons) > 0:
		return r.finish(ctx, t, t.refuse(refused.Reasons))
	case many:
		return r.finish(ctx, t, t.refuse([]neuroscreen.Reason{{Code: "refused", Text: "The scan cannot be analysed."}}))
	case refusals[problem.Code]:
		return r.finish(ctx, t, t.refuse([]neuroscreen.Reason{reason}))
	case problem.Code == neuroscreen.CodeUnavailable:
		t.log.WarnContext(ctx, "a dependency is down; the "+t.work+" waits", "error", err)
		return r.release(ctx, t, false, r.cfg.Unavailable, reason)
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		reason = neuroscreen.Reason{Code: "timeout", Text: fmt.Sprintf("The %s did not end within %v%s.", t.work, r.cfg.JobTimeout, t.faster)}
	}
	t.log.ErrorContext(ctx, t.work+" failed", "error", err)
	if t.attempt >= r.cfg.MaxAttempts {
		return r.finish(ctx, t, t.fail([]neuroscreen.Reason{reason}))
	}
	return r.release(ctx, t, true, r.cfg.Backoff(t.attempt), reason)
}

// refusals are what is wrong with the scan itself: no new attempt cures it.
var refusals = map[neuroscreen.Code]bool{
	neuroscreen.CodeUnprocessable: true,
	neuroscreen.CodeInvalid:       true,
	neuroscreen.CodeUnsupported:   true,
	neuroscreen.CodeTooLarge:      true,
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

// finish stores an outcome. The work is done, so it goes on while the worker is
// being stopped, and tries again while Postgres is away for less than a lease.
func (r *Runner) finish(ctx context.Context, t task, o outcome) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.cfg.LeaseTTL)
	defer cancel()
	for {
		err := o.store(ctx)
		switch {
		case err == nil:
			t.log.InfoContext(ctx, t.work+" ended", "state", o.state)
			return nil
		case errors.Is(err, store.ErrFenced):
			// Or our own commit whose answer was lost: then the blobs are
			// referred to, and stay.
			t.log.InfoContext(ctx, "outcome not stored: the lease is lost", "state", o.state)
			r.discard(ctx, t.log, o.blobs)
			return nil
		case neuroscreen.AsError(err).Code != neuroscreen.CodeUnavailable, ctx.Err() != nil:
			return err
		}
		t.log.WarnContext(ctx, "outcome not stored yet", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(r.cfg.LeaseTTL / 30):
		}
	}
}

// release gives the scan or decoding back and has the job come again after wait.
func (r *Runner) release(ctx context.Context, t task, counted bool, wait time.Duration, why neuroscreen.Reason) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err := t.release(ctx, counted, why); err != nil {
		t.log.WarnContext(ctx, "not given back; the lease runs out", "error", err)
	}
	return river.JobSnooze(wait)
}

// discard removes blobs that no row came to refer to.
func (r *Runner) discard(ctx context.Context, log *slog.Logger, keys []string) {
	if len(keys) == 0 {
		return
	}
	if _, err := r.cfg.Store.ReleaseBlobs(context.WithoutCancel(ctx), keys, r.cfg.Blobs.Remove); err != nil {
		log.WarnContext(ctx, "files left for the sweep", "error", err)
	}
}
