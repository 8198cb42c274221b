package jobs

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"neuroscreen"
	"neuroscreen/internal/memory"
	"neuroscreen/internal/store"
)

// wire is what a worker's connections to Postgres go through.
type wire struct {
	mu    sync.Mutex
	down  bool
	conns []net.Conn
}

func (w *wire) dial(ctx context.Context, network, address string) (net.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.down {
		return nil, errors.New("the wire is cut")
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err == nil {
		w.conns = append(w.conns, conn)
	}
	return conn, err
}

func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down = true
	for _, c := range w.conns {
		c.Close()
	}
	w.conns = nil
}

func (w *wire) mend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down = false
}

const outageLease = 2 * time.Second

// outage is longer than a lease.
func outage() { time.Sleep(outageLease + outageLease/2) }

// through has a runner reach Postgres over a wire.
func (b *bundle) through(t *testing.T, w *wire) func(*Config) {
	t.Helper()
	cfg := b.pool.Config()
	cfg.ConnConfig.DialFunc = w.dial
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return func(c *Config) {
		c.Pool, c.Store, c.LeaseTTL = pool, newStore(pool, b.blobs), outageLease
	}
}

// TestOutageLongerThanTheLease: the work goes on, is done once and counts once,
// though another worker looks for scans that nobody has.
func TestOutageLongerThanTheLease(t *testing.T) {
	t.Parallel()
	noRoom := neuroscreen.Errorf(neuroscreen.CodeUnavailable, "storage-full", "no room")
	for name, c := range map[string]struct {
		during func(ctx context.Context, in Input, w *wire) error // of the first analysis; mends the wire, or has it mended
		calls  int32
		state  neuroscreen.State
	}{
		"in the middle of the work": {func(_ context.Context, _ Input, w *wire) error {
			outage()
			w.mend()
			time.Sleep(outageLease) // others may look now
			return nil
		}, 1, neuroscreen.Scored},
		"until after its end": {func(_ context.Context, _ Input, w *wire) error {
			go func() { outage(); w.mend() }()
			return nil
		}, 1, neuroscreen.Scored},
		"at a stage": {func(ctx context.Context, in Input, w *wire) error {
			err := in.Stage(ctx, neuroscreen.Segmented)
			outage()
			w.mend()
			return errors.Join(err, in.Stage(ctx, neuroscreen.Measured))
		}, 1, neuroscreen.Scored},
		"when it is refused": {func(_ context.Context, _ Input, w *wire) error {
			go func() { outage(); w.mend() }()
			return neuroscreen.Errorf(neuroscreen.CodeUnprocessable, "not-a-brain", "no")
		}, 1, neuroscreen.Refused},
		"when it is given back": {func(_ context.Context, _ Input, w *wire) error {
			go func() { outage(); w.mend() }()
			return noRoom
		}, 2, neuroscreen.Scored},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			w := &wire{}
			var calls atomic.Int32
			analyse := func(ctx context.Context, in Input) (Output, error) {
				if calls.Add(1) > 1 {
					return output(in), nil
				}
				w.cut()
				err := c.during(ctx, in, w)
				if ctx.Err() != nil {
					t.Errorf("the work was ended: %v", context.Cause(ctx))
				}
				return output(in), err
			}
			over := b.through(t, w)
			b.start(t, analyse, over)
			b.start(t, analyse, over)
			scan := b.post(t, "bytes")
			rec := b.await(t, scan, c.state)
			if rec.Attempt != 1 || calls.Load() != c.calls {
				t.Errorf("attempt %d of %d analyses, want 1 of %d", rec.Attempt, calls.Load(), c.calls)
			}
			if n := b.count(t, "SELECT count(*) FROM results"); n != rec.ResultVersion {
				t.Errorf("%d results, of which the newest is %d", n, rec.ResultVersion)
			}
		})
	}
}

// TestMemoryIsHeldThroughAnOutage: what is done and not stored still takes it.
func TestMemoryIsHeldThroughAnOutage(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w := &wire{}
	gate := memory.NewGate(10)
	ended := make(chan bool)
	b.start(t, func(ctx context.Context, in Input) (Output, error) {
		defer close(ended)
		w.cut()
		return output(in), nil
	}, withMemory(10, 2), func(c *Config) { c.Memory = gate }, b.through(t, w))
	scan := b.post(t, "123456")
	<-ended
	outage()
	if n := gate.Used(); n != 6 {
		t.Errorf("%d bytes are taken", n)
	}
	w.mend()
	if rec := b.await(t, scan, neuroscreen.Scored); rec.Attempt != 1 {
		t.Errorf("%d attempts", rec.Attempt)
	}
}

// TestNoAdmissionWithoutTheDatabase: it may be back before the lease is taken,
// and the work would begin without room.
func TestNoAdmissionWithoutTheDatabase(t *testing.T) {
	t.Parallel()
	b := setup(t)
	scan := b.post(t, "123456")
	w := &wire{}
	cfg := config(b.pool, b.blobs, good)
	withMemory(10, 1)(&cfg)
	b.through(t, w)(&cfg)
	r, err := NewRunner(cfg)
	if err != nil {
		t.Fatal(err)
	}
	w.cut()
	if _, _, err := r.admit(t.Context(), b.site, scan.ID); err == nil {
		t.Error("it may begin")
	}
	w.mend()
	leave, _, err := r.admit(t.Context(), b.site, scan.ID)
	if err != nil {
		t.Fatal(err)
	}
	leave()
}

// TestOvertakenInAnOutage: a worker that alone is cut off works on, and what it
// has at the end is not stored, because another did the work meanwhile.
func TestOvertakenInAnOutage(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w := &wire{}
	begun := make(chan bool)
	late := make(chan string, 1)
	b.start(t, func(ctx context.Context, in Input) (Output, error) {
		w.cut()
		close(begun) // a second analysis here would panic
		out := output(in)
		out.Files[0].Bytes = []byte("by the one cut off")
		info, err := b.blobs.Put(ctx, strings.NewReader("by the one cut off"), nil)
		late <- info.Key
		return out, err
	}, b.through(t, w))
	scan := b.post(t, "bytes")
	<-begun
	b.start(t, good, func(c *Config) { c.LeaseTTL = outageLease })
	b.await(t, scan, neuroscreen.Scored)
	key := <-late
	if there, err := b.blobs.Has(t.Context(), key); err != nil || !there {
		t.Fatalf("its file is there: %v, %v", there, err)
	}
	w.mend()
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		there, err := b.blobs.Has(t.Context(), key)
		if err != nil || time.Now().After(end) {
			t.Fatal("its file stays", err)
		}
		if !there {
			break
		}
	}
	if n := b.count(t, "SELECT count(*) FROM results"); n != 1 {
		t.Errorf("%d results", n)
	}
	f, err := b.DerivedFile(t.Context(), b.site, scan.ID, 0, store.KindPreview)
	if err != nil || f.BlobKey == key {
		t.Errorf("%+v, %v", f, err)
	}
}

// TestOutagesAloneDoNotFailTheScan: two workers are cut off in turn while they
// have it, more often than a scan may be attempted.
func TestOutagesAloneDoNotFailTheScan(t *testing.T) {
	t.Parallel()
	b := setup(t)
	type analysis struct {
		w    *wire
		goOn chan bool
		end  chan error
	}
	begun := make(chan analysis)
	for range 2 {
		w := &wire{}
		b.start(t, func(ctx context.Context, in Input) (Output, error) {
			a := analysis{w, make(chan bool), make(chan error, 1)}
			select {
			case begun <- a:
			case <-ctx.Done():
				return Output{}, ctx.Err()
			}
			select {
			case <-a.goOn:
			case <-ctx.Done():
			}
			a.end <- context.Cause(ctx)
			return output(in), ctx.Err()
		}, b.through(t, w), func(c *Config) { c.MaxAttempts = 2 })
	}
	scan := b.post(t, "bytes")
	a := <-begun
	for range 3 {
		a.w.cut()
		next := <-begun // by the other
		a.w.mend()
		if err := <-a.end; !errors.Is(err, store.ErrFenced) {
			t.Fatalf("ended by %v", err)
		}
		b.awaitCount(t, "SELECT attempt FROM scans", 1)
		a = next
	}
	close(a.goOn)
	b.await(t, scan, neuroscreen.Scored)
	if n := b.count(t, "SELECT count(*) FROM results"); n != 1 {
		t.Errorf("%d results", n)
	}
}

func TestDecodingThroughAnOutage(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w := &wire{}
	var calls atomic.Int32
	decode := decoder(func(ctx context.Context, in DecodingInput) (*neuroscreen.Decoding, []byte, error) {
		if calls.Add(1) == 1 {
			w.cut()
			outage()
			go func() { outage(); w.mend() }()
		}
		return decoded(in), []byte("w"), ctx.Err()
	})
	over := b.through(t, w)
	b.start(t, good, over, decode)
	b.start(t, good, over, decode)
	rec := b.awaitDecoding(t, b.decoding(t, "one"))
	if rec.State != neuroscreen.DecodingDone || rec.Attempt != 1 || calls.Load() != 1 {
		t.Errorf("%s %v, attempt %d of %d", rec.State, rec.Reasons, rec.Attempt, calls.Load())
	}
}

// TestStopInAnOutage ends soon, whether there is still work or only its end to
// store; what comes of it is done by another.
func TestStopInAnOutage(t *testing.T) {
	t.Parallel()
	for _, done := range []bool{false, true} {
		t.Run(fmt.Sprint("done ", done), func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			w := &wire{}
			begun := make(chan bool)
			r := b.start(t, func(ctx context.Context, in Input) (Output, error) {
				w.cut()
				close(begun)
				if !done {
					<-ctx.Done()
				}
				return output(in), ctx.Err()
			}, b.through(t, w))
			scan := b.post(t, "bytes")
			<-begun
			soon, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			began := time.Now()
			if err := r.Stop(soon); err != nil {
				t.Error(err)
			}
			if took := time.Since(began); took > 15*time.Second {
				t.Errorf("took %v", took)
			}
			b.start(t, good)
			b.await(t, scan, neuroscreen.Scored)
		})
	}
}

// TestStopAsTheDatabaseComesBack: the scan is given back, uncounted.
func TestStopAsTheDatabaseComesBack(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w := &wire{}
	begun := make(chan bool)
	r := b.start(t, func(ctx context.Context, in Input) (Output, error) {
		w.cut()
		close(begun)
		<-ctx.Done()
		go func() { time.Sleep(2 * time.Second); w.mend() }()
		return Output{}, ctx.Err()
	}, b.through(t, w))
	scan := b.post(t, "bytes")
	<-begun
	soon, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := r.Stop(soon); err != nil {
		t.Error(err)
	}
	rec, err := b.Scan(t.Context(), b.site, scan.ID)
	if err != nil || rec.State != neuroscreen.Received || rec.Attempt != 0 || len(rec.Reasons) != 1 || rec.Reasons[0].Code != "worker-stopped" {
		t.Errorf("%+v %v", rec, err)
	}
}

// TestReconcileAfterAnOutage: a lease that ran out says nothing yet of its
// worker, and says it later.
func TestReconcileAfterAnOutage(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w := &wire{}
	b.start(t, good, b.through(t, w))
	w.cut()
	held, idle := b.post(t, "is held"), b.post(t, "has lost its job")
	lease, err := b.Lease(t.Context(), b.site, held.ID, "living", -time.Second)
	if err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{"DELETE FROM river_job", "UPDATE scans SET updated_at = now() - interval '1 hour' WHERE lease_until IS NULL"} {
		if _, err := b.pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(500 * time.Millisecond) // it looks ten times
	w.mend()
	jobs := func(scan store.ScanRecord) string {
		return "SELECT count(*) FROM river_job WHERE args ->> 'scan_id' = '" + scan.ID.String() + "'"
	}
	b.awaitCount(t, jobs(idle), 1)
	if n := b.count(t, jobs(held)); n != 0 {
		t.Error("the first look after the outage took it for lost")
	}
	if err := b.Renew(t.Context(), b.site, lease, time.Millisecond); err != nil {
		t.Error(err)
	}
	if rec := b.await(t, held, neuroscreen.Scored); rec.Attempt != 2 {
		t.Errorf("%d attempts", rec.Attempt)
	}
}
