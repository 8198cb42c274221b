package jobs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/riverqueue/river"
	"golang.org/x/sync/errgroup"

	"neuroscreen"
	"neuroscreen/internal/store"
)

type scanWorker struct {
	river.WorkerDefaults[scanArgs]
	r *Runner
}

func (w *scanWorker) Work(ctx context.Context, job *river.Job[scanArgs]) error {
	return w.r.analyse(ctx, job.Args.SiteID, job.Args.ScanID)
}

func (w *scanWorker) Timeout(*river.Job[scanArgs]) time.Duration { return w.r.cfg.longest() }

// analyse makes one attempt at a scan.
func (r *Runner) analyse(ctx context.Context, siteID, scanID uuid.UUID) error {
	log := r.cfg.Logger.With("scan", scanID)
	return r.attempt(ctx, log, func(ctx context.Context) (func(), *neuroscreen.Reason, error) {
		return r.admit(ctx, siteID, scanID)
	}, func(ctx context.Context) (task, error) {
		lease, err := r.cfg.Store.Lease(ctx, siteID, scanID, r.holder, r.cfg.LeaseTTL)
		return r.scanTask(log, siteID, lease), err
	})
}

func (r *Runner) scanTask(log *slog.Logger, siteID uuid.UUID, lease store.Lease) task {
	end := func(o store.Outcome) outcome {
		blobs := make([]string, len(o.Files))
		for i, f := range o.Files {
			blobs[i] = f.BlobKey
		}
		return outcome{string(o.State), blobs, func(ctx context.Context) error {
			_, err := r.cfg.Store.Finish(ctx, siteID, lease, o)
			return err
		}}
	}
	return task{
		log:     log.With("run", lease.Scan.Run, "attempt", lease.Scan.Attempt),
		work:    "analysis",
		attempt: lease.Scan.Attempt,
		renew:   func(ctx context.Context) error { return r.cfg.Store.Renew(ctx, siteID, lease, r.cfg.LeaseTTL) },
		release: func(ctx context.Context, counted bool, why neuroscreen.Reason) error {
			return r.cfg.Store.Release(ctx, siteID, lease, counted, why)
		},
		uncount: func(ctx context.Context) error { return r.cfg.Store.Uncount(ctx, siteID, lease) },
		do: func(ctx context.Context) (outcome, error) {
			o, err := r.analyseLeased(ctx, log, siteID, lease)
			return end(o), err
		},
		refuse: func(why []neuroscreen.Reason) outcome {
			return end(store.Outcome{State: neuroscreen.Refused, Reasons: why})
		},
		fail: func(why []neuroscreen.Reason) outcome {
			return end(store.Outcome{State: neuroscreen.Failed, Reasons: why})
		},
	}
}

// analyseLeased calls the analysis and stores the files that it derived.
func (r *Runner) analyseLeased(ctx context.Context, log *slog.Logger, siteID uuid.UUID, lease store.Lease) (o store.Outcome, err error) {
	in := r.input(lease.Scan)
	in.Settings, in.LeftOut = lease.Settings, lease.LeftOut
	in.Stage = func(ctx context.Context, to neuroscreen.State) error {
		once, stop := context.WithTimeout(ctx, r.cfg.LeaseTTL/3)
		defer stop()
		err := r.cfg.Store.Advance(once, siteID, lease, to)
		if away(err) && ctx.Err() == nil {
			// A stage may be left out; what counts is whether the end can be stored.
			log.WarnContext(ctx, "stage not recorded; the analysis goes on", "stage", to, "error", err)
			return nil
		}
		return err
	}
	out, err := r.cfg.Analyse(ctx, in)
	if err == nil && out.Result == nil {
		err = errors.New("the analysis returned neither result nor error")
	}
	if err != nil {
		return o, err
	}
	o = store.Outcome{State: neuroscreen.Scored, Result: out.Result}
	o.Files, err = r.putFiles(ctx, out.Files)
	return o, err
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
