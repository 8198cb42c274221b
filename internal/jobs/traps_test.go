package jobs

import (
	"context"
	"testing"
	"time"

	"neuroscreen"
)

// TestRescuedJobOfALivingWorker: river's rescuer gives a job to another worker
// while the first is still at it. The lease keeps the second away.
func TestRescuedJobOfALivingWorker(t *testing.T) {
	t.Parallel()
	b := setup(t)
	scan := b.post(t, "bytes")
	begun, goOn := make(chan struct{}), make(chan struct{})
	b.start(t, func(ctx context.Context, in Input) (Output, error) {
		close(begun) // a second analysis would panic
		<-goOn
		return output(in), nil
	}, func(c *Config) { c.LeaseTTL = time.Minute })
	<-begun
	// What the rescuer does to a job that it takes for stuck.
	if _, err := b.pool.Exec(t.Context(), "UPDATE river_job SET state = 'available', scheduled_at = now()"); err != nil {
		t.Fatal(err)
	}
	b.start(t, func(context.Context, Input) (Output, error) {
		t.Error("the scan was analysed by two workers at once")
		return Output{}, nil
	})
	for b.count(t, "SELECT count(*) FROM river_job WHERE state = 'completed'") == 0 {
		time.Sleep(10 * time.Millisecond)
	}
	close(goOn)
	if rec := b.await(t, scan, neuroscreen.Scored); rec.Attempt != 1 {
		t.Errorf("%d attempts", rec.Attempt)
	}
	if n := b.count(t, "SELECT count(*) FROM results"); n != 1 {
		t.Errorf("%d results", n)
	}
}

// TestUnknownKindsWait for the program that knows them.
func TestUnknownKindsWait(t *testing.T) {
	t.Parallel()
	b := setup(t)
	if _, err := b.pool.Exec(t.Context(), `
		INSERT INTO river_job (kind, args, state, max_attempts, queue, priority)
		VALUES ('of-a-later-version', '{}', 'available', 1, 'default', 1)`); err != nil {
		t.Fatal(err)
	}
	scan := b.post(t, "bytes") // queued behind it
	b.start(t, good)
	b.await(t, scan, neuroscreen.Scored)
	var state string
	var attempt int
	err := b.pool.QueryRow(t.Context(), "SELECT state, attempt FROM river_job WHERE kind = 'of-a-later-version'").Scan(&state, &attempt)
	if err != nil || state != "available" || attempt != 0 {
		t.Errorf("the job is %s after %d attempts, %v", state, attempt, err)
	}
}
