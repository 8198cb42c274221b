package jobs

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/riverqueue/river"

	"neuroscreen"
	"neuroscreen/internal/memory"
)

// admit waits until there is memory for the analysis of a scan. It waits
// before the lease is taken: a scan that waits holds nothing, a death of this
// process does not count as an attempt at it, and a worker with more room may
// have it meanwhile.
//
// tooLarge says that there will never be room; then nothing was waited for. An
// error is for river: the job comes again.
func (r *Runner) admit(ctx context.Context, siteID, scanID uuid.UUID) (leave func(), tooLarge *neuroscreen.Reason, err error) {
	free := func() {}
	if r.cfg.Memory == nil || r.cfg.Estimate == nil {
		return free, nil, nil
	}
	scan, err := r.cfg.Store.Scan(ctx, siteID, scanID)
	if away(err) {
		return nil, nil, river.JobSnooze(r.cfg.Unavailable) // it may be back for the lease
	}
	if err != nil || scan.State.Final() {
		return free, nil, nil // the lease meets the same and says what it means
	}
	need, err := r.cfg.Estimate(ctx, r.input(scan))
	if err != nil {
		return free, nil, nil // so does the analysis
	}
	return r.await(ctx, scanID, need,
		"The analysis would take some %.0f MB of memory and there are %.0f MB for it. Send the scan resampled to about 1 mm, or have an administrator give the workers more (--memory).")
}

// await enters the gate for the work with an id; tooMuch says of megabytes
// needed and there that it never will.
func (r *Runner) await(ctx context.Context, id uuid.UUID, need int64, tooMuch string) (leave func(), tooLarge *neuroscreen.Reason, err error) {
	if _, already := r.waiting.LoadOrStore(id, true); already {
		// It was queued again because it waits here; another worker may
		// have room.
		return nil, nil, river.JobSnooze(r.cfg.Idle)
	}
	defer r.waiting.Delete(id)
	waiting, cancel := context.WithTimeout(ctx, r.cfg.JobTimeout)
	defer cancel()
	defer context.AfterFunc(r.stopping, cancel)()
	leave, err = r.cfg.Memory.Enter(waiting, need)
	switch {
	case errors.Is(err, memory.ErrNever):
		value, limit := megabytes(need), megabytes(r.cfg.Memory.Size())
		return func() {}, &neuroscreen.Reason{Code: "too-much-memory", Text: fmt.Sprintf(tooMuch, value, limit), Value: &value, Limit: &limit}, nil
	case err != nil:
		return nil, nil, river.JobSnooze(0)
	}
	return leave, nil, nil
}

func megabytes(bytes int64) float64 { return float64(bytes) / 1e6 }
