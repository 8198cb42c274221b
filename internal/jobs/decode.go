package jobs

import (
	"bytes"
	"context"
	"log/slog"
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
	return w.r.cfg.longest()
}

// decode makes one attempt at a decoding.
func (r *Runner) decode(ctx context.Context, siteID, id uuid.UUID) error {
	log := r.cfg.Logger.With("decoding", id)
	return r.attempt(ctx, log, func(ctx context.Context) (func(), *neuroscreen.Reason, error) {
		return r.admitDecoding(ctx, siteID, id)
	}, func(ctx context.Context) (task, error) {
		lease, err := r.cfg.Store.LeaseDecoding(ctx, siteID, id, r.holder, r.cfg.LeaseTTL)
		return r.decodingTask(log, lease), err
	})
}

func (r *Runner) decodingTask(log *slog.Logger, lease store.DecodingLease) task {
	end := func(o store.DecodingOutcome) outcome {
		var blobs []string
		if o.WeightsKey != "" {
			blobs = []string{o.WeightsKey}
		}
		return outcome{string(o.State), blobs, func(ctx context.Context) error { return r.cfg.Store.FinishDecoding(ctx, lease, o) }}
	}
	return task{
		log:     log.With("attempt", lease.Decoding.Attempt),
		work:    "decoding",
		faster:  "; fewer permutations take less",
		attempt: lease.Decoding.Attempt,
		renew:   func(ctx context.Context) error { return r.cfg.Store.RenewDecoding(ctx, lease, r.cfg.LeaseTTL) },
		release: func(ctx context.Context, counted bool, why neuroscreen.Reason) error {
			return r.cfg.Store.ReleaseDecoding(ctx, lease, counted, why)
		},
		uncount: func(ctx context.Context) error { return r.cfg.Store.UncountDecoding(ctx, lease) },
		do: func(ctx context.Context) (outcome, error) {
			o, err := r.decodeLeased(ctx, lease)
			return end(o), err
		},
		refuse: func(why []neuroscreen.Reason) outcome {
			return end(store.DecodingOutcome{State: neuroscreen.DecodingRefused, Reasons: why})
		},
		fail: func(why []neuroscreen.Reason) outcome {
			return end(store.DecodingOutcome{State: neuroscreen.DecodingFailed, Reasons: why})
		},
	}
}

// admitDecoding waits until there is memory, as admit does for a scan.
func (r *Runner) admitDecoding(ctx context.Context, siteID, id uuid.UUID) (leave func(), tooLarge *neuroscreen.Reason, err error) {
	free := func() {}
	if r.cfg.Memory == nil || r.cfg.EstimateDecoding == nil {
		return free, nil, nil
	}
	d, err := r.cfg.Store.Decoding(ctx, siteID, id)
	if away(err) {
		return nil, nil, river.JobSnooze(r.cfg.Unavailable) // it may be back for the lease
	}
	if err != nil || d.State.Final() {
		return free, nil, nil // the lease meets the same and says what it means
	}
	in, err := r.decodingInput(ctx, d)
	if away(err) {
		return nil, nil, river.JobSnooze(r.cfg.Unavailable)
	}
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

// decodeLeased calls the decoding and stores its weights.
func (r *Runner) decodeLeased(ctx context.Context, lease store.DecodingLease) (o store.DecodingOutcome, err error) {
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
