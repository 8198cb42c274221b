package jobs

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"neuroscreen"
	"neuroscreen/internal/memory"
)

// withMemory bounds a runner's memory; a scan takes as many bytes as it has.
func withMemory(size int64, workers int) func(*Config) {
	return func(c *Config) {
		c.Workers = workers
		c.Memory = memory.NewGate(size)
		c.Estimate = func(ctx context.Context, in Input) (int64, error) {
			r, err := in.Image(ctx)
			if err != nil {
				return 0, err
			}
			defer r.Close()
			b, err := io.ReadAll(r)
			return int64(len(b)), err
		}
	}
}

// TestMemoryIsNotExceeded: scans that do not fit together are analysed one
// after the other, though there are workers for all.
func TestMemoryIsNotExceeded(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var used atomic.Int64
	var gate *memory.Gate
	scans := []string{"1234567", "12345678", "123456", "12", "1"}
	begun := make(chan struct{}, len(scans))
	goOn := make(chan struct{})
	for _, content := range scans {
		b.post(t, content)
	}
	b.start(t, func(ctx context.Context, in Input) (Output, error) {
		if n := used.Add(in.Size); n > 10 {
			t.Errorf("analyses of %d bytes run at once, of 10", n)
		}
		defer used.Add(-in.Size)
		begun <- struct{}{}
		<-goOn
		return output(in), nil
	}, withMemory(10, len(scans)), func(c *Config) { gate = c.Memory })
	for range scans {
		<-begun
		if gate.Used() > 10 || gate.Used() < 1 {
			t.Errorf("%d bytes are taken of 10", gate.Used())
		}
		goOn <- struct{}{}
	}
	b.awaitCount(t, "SELECT count(*) FROM scans WHERE state = 'scored' AND attempt = 1", len(scans))
}

// TestWaitingScan: a scan that waits for memory is in nobody's hands, and a
// worker with room takes it.
func TestWaitingScan(t *testing.T) {
	t.Parallel()
	b := setup(t)
	begun, goOn := make(chan struct{}), make(chan struct{})
	b.post(t, "123456")
	var first *Runner
	first = b.start(t, func(ctx context.Context, in Input) (Output, error) {
		close(begun) // a second analysis here would panic
		<-goOn
		return output(in), nil
	}, withMemory(10, 2))
	<-begun
	second := b.post(t, "12345")
	for n := 0; n == 0; time.Sleep(time.Millisecond) {
		first.waiting.Range(func(any, any) bool { n++; return true })
	}
	if rec, err := b.Scan(t.Context(), b.site, second.ID); err != nil || rec.State != neuroscreen.Received || rec.Attempt != 0 {
		t.Errorf("%+v %v", rec, err)
	}
	b.start(t, good, withMemory(10, 1))
	if rec := b.await(t, second, neuroscreen.Scored); rec.Attempt != 1 {
		t.Errorf("%d attempts", rec.Attempt)
	}
	close(goOn)
	b.awaitCount(t, "SELECT count(*) FROM scans WHERE state = 'scored' AND attempt = 1", 2)
	b.awaitCount(t, "SELECT count(*) FROM results", 2)
}

// TestStopEndsTheWait at once; the scan goes back to the queue.
func TestStopEndsTheWait(t *testing.T) {
	t.Parallel()
	b := setup(t)
	scan := b.post(t, "12345")
	gate := memory.NewGate(10)
	leave, err := gate.Enter(t.Context(), 10)
	if err != nil {
		t.Fatal(err)
	}
	r := b.start(t, good, withMemory(10, 1), func(c *Config) { c.Memory = gate })
	for n := 0; n == 0; time.Sleep(time.Millisecond) {
		r.waiting.Range(func(any, any) bool { n++; return true })
	}
	if err := r.Stop(context.Background()); err != nil { // would wait for ever
		t.Fatal(err)
	}
	leave()
	b.start(t, good)
	if rec := b.await(t, scan, neuroscreen.Scored); rec.Attempt != 1 {
		t.Errorf("%d attempts", rec.Attempt)
	}
}

func TestTooLargeForEver(t *testing.T) {
	t.Parallel()
	b := setup(t)
	scan := b.post(t, "12345678901")
	b.start(t, func(context.Context, Input) (Output, error) {
		t.Error("it was analysed")
		return Output{}, nil
	}, withMemory(10, 1))
	rec := b.await(t, scan, neuroscreen.Refused)
	if r := rec.Reasons[0]; r.Code != "too-much-memory" || r.Value == nil || *r.Value <= *r.Limit {
		t.Errorf("%+v", rec.Reasons)
	}
}

// TestUnreadableHeader is for the analysis to judge.
func TestUnreadableHeader(t *testing.T) {
	t.Parallel()
	b := setup(t)
	scan := b.post(t, "12345")
	b.start(t, good, withMemory(10, 1), func(c *Config) {
		c.Estimate = func(context.Context, Input) (int64, error) { return 0, errors.New("no header") }
	})
	b.await(t, scan, neuroscreen.Scored)
}
