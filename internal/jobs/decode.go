package jobs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/google/uuid"
	"github.com/riverqueue/river"

	"neuroscreen"
	"neuroscreen/internal/store"
)

// DecodingInput is what a decoding works on.
type DecodingInput struct {
	Runs    []DecodingRun
	Options neuroscreen.DecodingOptions
}

// DecodingRun is one scan of a decoding; the fields of Input that an analysis
// alone needs are empty.
type DecodingRun struct {
	Input
	Events []neuroscreen.Event
}

// Decode computes a decoding and its weights. Errors as Analyse.
type Decode func(ctx context.Context, in DecodingInput) (result *neuroscreen.Decoding, weights []byte, err error)

type decodingWorker struct {
	river.WorkerDefaults[decodingArgs]
	r *Runner
}

func (w *decodingWorker) Work(ctx context.Context, job *river.Job[decodingArgs]) error {
	return w.r.decode(ctx, job.Args.SiteID, job.Args.DecodingID)
}

func (w *decodingWorker) Timeout(*river.Job[decodingArgs]) time.Duration {
	return 2 * w.r.cfg.JobTimeout
}

// decode does one attempt at a decoding, as work does at a scan: memory, lease,
// decode, store.
func (r *Runner) decode(ctx context.Context, siteID, id uuid.UUID) error {
	log := r.cfg.Logger.With("decoding", id)
	leave, tooLarge, err := r.admitDecoding(ctx, siteID, id)
	if err != nil {
		return err
	}
	defer leave()
	ctx, cancelWork := context.WithTimeout(ctx, r.cfg.JobTimeout)
	defer cancelWork()
	lease, err := r.cfg.Store.LeaseDecoding(ctx, siteID, id, r.holder, r.cfg.LeaseTTL)
	switch {
	case errors.Is(err, store.ErrFinal), errors.Is(err, store.ErrBusy), neuroscreen.AsError(err) != nil && neuroscreen.AsError(err).Code == neuroscreen.CodeNotFound:
		log.DebugContext(ctx, "job has nothing to do", "why", err)
		return nil
	case err != nil:
		log.WarnContext(ctx, "decoding not taken up", "error", err)
		return river.JobSnooze(r.cfg.Unavailable)
	}
	log = log.With("attempt", lease.Decoding.Attempt)
	end := func(state neuroscreen.DecodingState, reasons ...neuroscreen.Reason) error {
		return r.finishDecoding(ctx, log, lease, store.DecodingOutcome{State: state, Reasons: reasons})
	}
	switch {
	case lease.Decoding.Attempt > r.cfg.MaxAttempts:
		return end(neuroscreen.DecodingFailed, neuroscreen.Reason{Code: "worker-lost",
			Text: fmt.Sprintf("The decoding was started %d times, and each time its worker ended without an answer: killed, or out of memory.", r.cfg.MaxAttempts)})
	case tooLarge != nil:
		return end(neuroscreen.DecodingRefused, *tooLarge)
	}

	work, cancel := context.WithCancelCause(ctx)
	heart := r.heartbeat(work, cancel, func(ctx context.Context) error { return r.cfg.Store.RenewDecoding(ctx, lease, r.cfg.LeaseTTL) })
	outcome, err := r.decodeLeased(work, lease)
	lost := errors.Is(context.Cause(work), store.ErrFenced)
	if err == nil && !lost {
		err = r.finishDecoding(ctx, log, lease, outcome)
	}
	cancel(nil)
	heart.Wait()
	problem := neuroscreen.AsError(err)
	switch {
	case lost:
		log.InfoContext(ctx, "decoding was erased or taken over; work dropped")
		r.discardWeights(ctx, log, outcome)
		return nil
	case err == nil:
		return nil
	case errors.Is(ctx.Err(), context.Canceled):
		return r.releaseDecoding(ctx, log, lease, false, 0, neuroscreen.Reason{Code: "worker-stopped", Text: "The worker was stopped; another goes on."})
	case refusals[problem.Code]:
		return end(neuroscreen.DecodingRefused, neuroscreen.Reason{Code: problem.Type, Text: problem.Message})
	case problem.Code == neuroscreen.CodeUnavailable:
		log.WarnContext(ctx, "a dependency is down; the decoding waits", "error", err)
		return r.releaseDecoding(ctx, log, lease, false, r.cfg.Unavailable, neuroscreen.Reason{Code: problem.Type, Text: problem.Message})
	}
	reason := neuroscreen.Reason{Code: problem.Type, Text: problem.Message}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		reason = neuroscreen.Reason{Code: "timeout", Text: fmt.Sprintf("The decoding did not end within %v; fewer permutations take less.", r.cfg.JobTimeout)}
	}
	log.ErrorContext(ctx, "decoding failed", "error", err)
	if lease.Decoding.Attempt >= r.cfg.MaxAttempts {
		return end(neuroscreen.DecodingFailed, reason)
	}
	return r.releaseDecoding(ctx, log, lease, true, r.cfg.Backoff(lease.Decoding.Attempt), reason)
}

// admitDecoding waits until there is memory, as admit does for a scan.
func (r *Runner) admitDecoding(ctx context.Context, siteID, id uuid.UUID) (leave func(), tooLarge *neuroscreen.Reason, err error) {
	free := func() {}
	if r.cfg.Memory == nil || r.cfg.EstimateDecoding == nil {
		return free, nil, nil
	}
	d, err := r.cfg.Store.Decoding(ctx, siteID, id)
	if err != nil || d.State.Final() {
		return free, nil, nil // the lease meets the same and says what it means
	}
	in, err := r.decodingInput(ctx, d)
	if err != nil {
		return free, nil, nil // so does the work
	}
	need, err := r.cfg.EstimateDecoding(ctx, in)
	if err != nil {
		return free, nil, nil
	}
	return r.await(ctx, id, need, "The decoding would take some %.0f MB of memory and there are %.0f MB for it. Give fewer files or events, or have an administrator give the workers more (--memory).")
}

func (r *Runner) decodingInput(ctx context.Context, d store.DecodingRecord) (DecodingInput, error) {
	in := DecodingInput{Options: d.Options}
	for _, run := range d.Runs {
		scan, err := r.cfg.Store.Scan(ctx, d.SiteID, run.ScanID)
		if err != nil {
			return in, err
		}
		in.Runs = append(in.Runs, DecodingRun{Input: r.input(scan), Events: run.Events})
	}
	return in, nil
}

// decodeLeased calls the decoding, where a panic is an error, and stores its
// weights.
func (r *Runner) decodeLeased(ctx context.Context, lease store.DecodingLease) (o store.DecodingOutcome, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	in, err := r.decodingInput(ctx, lease.Decoding)
	if err != nil {
		return o, err
	}
	result, weights, err := r.cfg.Decode(ctx, in)
	if err != nil {
		return o, err
	}
	info, err := r.cfg.Blobs.Put(context.WithoutCancel(ctx), bytes.NewReader(weights), nil)
	return store.DecodingOutcome{State: neuroscreen.DecodingDone, Result: result, WeightsKey: info.Key, WeightsSize: info.Size}, err
}

// finishDecoding stores the outcome, also while the worker is being stopped,
// and tries again while Postgres is away for less than a lease.
func (r *Runner) finishDecoding(ctx context.Context, log *slog.Logger, lease store.DecodingLease, o store.DecodingOutcome) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.cfg.LeaseTTL)
	defer cancel()
	for {
		err := r.cfg.Store.FinishDecoding(ctx, lease, o)
		switch {
		case err == nil:
			log.InfoContext(ctx, "decoding ended", "state", o.State)
			return nil
		case errors.Is(err, store.ErrFenced):
			log.InfoContext(ctx, "outcome not stored: the lease is lost", "state", o.State)
			r.discardWeights(ctx, log, o)
			return nil
		case neuroscreen.AsError(err).Code != neuroscreen.CodeUnavailable || ctx.Err() != nil:
			return err
		}
		log.WarnContext(ctx, "outcome not stored yet", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(r.cfg.LeaseTTL / 30):
		}
	}
}

func (r *Runner) discardWeights(ctx context.Context, log *slog.Logger, o store.DecodingOutcome) {
	if o.WeightsKey != "" {
		r.discard(ctx, log, []store.DerivedFile{{BlobKey: o.WeightsKey}})
	}
}

// releaseDecoding gives it back and has the job come again after wait.
func (r *Runner) releaseDecoding(ctx context.Context, log *slog.Logger, lease store.DecodingLease, counted bool, wait time.Duration, why neuroscreen.Reason) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err := r.cfg.Store.ReleaseDecoding(ctx, lease, counted, why); err != nil {
		log.WarnContext(ctx, "decoding not given back; its lease runs out", "error", err)
	}
	return river.JobSnooze(wait)
}
