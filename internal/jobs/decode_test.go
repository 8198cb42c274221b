package jobs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"neuroscreen"
	"neuroscreen/internal/memory"
	"neuroscreen/internal/store"
)

// decoding posts runs and a decoding of them.
func (b *bundle) decoding(t *testing.T, contents ...string) store.DecodingRecord {
	t.Helper()
	n := store.NewDecoding{Options: neuroscreen.DefaultDecodingOptions()}
	age := 71.0
	for _, c := range contents {
		scan := b.postFrom(t, c, neuroscreen.Metadata{SubjectID: "MRN-1", AgeYears: &age, Sex: neuroscreen.Female, Modality: neuroscreen.BOLD})
		n.Runs = append(n.Runs, store.DecodingRun{ScanID: scan.ID, Events: []neuroscreen.Event{{Onset: 1, Duration: 2, Type: "a"}}})
	}
	d, _, err := b.CreateDecoding(t.Context(), b.site, "key-1", n)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (b *bundle) awaitDecoding(t *testing.T, d store.DecodingRecord) store.DecodingRecord {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		rec, err := b.Decoding(t.Context(), b.site, d.ID)
		if err != nil {
			t.Fatal(err)
		}
		if rec.State.Final() {
			return rec
		}
		if time.Now().After(end) {
			t.Fatalf("the decoding stays %s (%v), attempt %d", rec.State, rec.Reasons, rec.Attempt)
		}
	}
}

func decoded(in DecodingInput) *neuroscreen.Decoding {
	d := &neuroscreen.Decoding{Schema: neuroscreen.DecodingSchema, DecodingOptions: in.Options}
	for _, r := range in.Runs {
		d.Files = append(d.Files, neuroscreen.DecodingFile{ScanID: r.ScanID.String(), SHA256: r.SHA256})
	}
	return d
}

func decoder(d Decode) func(*Config) { return func(c *Config) { c.Decode = d } }

func TestDecodingEnds(t *testing.T) {
	t.Parallel()
	b := setup(t)
	d := b.decoding(t, "one", "two")
	b.start(t, good, decoder(func(ctx context.Context, in DecodingInput) (*neuroscreen.Decoding, []byte, error) {
		var read []string
		for _, r := range in.Runs {
			f, err := r.Image(ctx)
			if err != nil {
				return nil, nil, err
			}
			content, err := io.ReadAll(f)
			f.Close()
			if err != nil || len(r.Events) != 1 || r.Metadata.Modality != neuroscreen.BOLD {
				return nil, nil, fmt.Errorf("%+v: %w", r, err)
			}
			read = append(read, string(content))
		}
		return decoded(in), []byte(strings.Join(read, "+")), nil
	}))
	rec := b.awaitDecoding(t, d)
	if rec.State != neuroscreen.DecodingDone || rec.Attempt != 1 || rec.Document == nil {
		t.Fatalf("%s %v", rec.State, rec.Reasons)
	}
	f, err := b.blobs.Open(t.Context(), rec.WeightsKey)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if w, _ := io.ReadAll(f); string(w) != "one+two" {
		t.Errorf("weights %q", w)
	}
}

func TestWhatErrorsOfADecodingMean(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		err      error
		goodFrom int32
		state    neuroscreen.DecodingState
		reason   string
		calls    int32
	}{
		"refused":                 {neuroscreen.Errorf(neuroscreen.CodeUnprocessable, "grids-differ", "no"), 0, neuroscreen.DecodingRefused, "grids-differ", 1},
		"our fault, three times":  {errors.New("index out of range"), 0, neuroscreen.DecodingFailed, "internal", 3},
		"our fault, twice":        {errors.New("index out of range"), 3, neuroscreen.DecodingDone, "", 3},
		"a full disk, four times": {neuroscreen.Errorf(neuroscreen.CodeUnavailable, "storage-full", "no room"), 5, neuroscreen.DecodingDone, "", 5},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			d := b.decoding(t, "one")
			var calls atomic.Int32
			b.start(t, good, decoder(func(ctx context.Context, in DecodingInput) (*neuroscreen.Decoding, []byte, error) {
				switch n := calls.Add(1); {
				case c.goodFrom == 0 || n < c.goodFrom:
					return nil, nil, c.err
				default:
					return decoded(in), []byte("w"), nil
				}
			}))
			rec := b.awaitDecoding(t, d)
			reason := ""
			if len(rec.Reasons) > 0 {
				reason = rec.Reasons[0].Code
			}
			if rec.State != c.state || reason != c.reason || calls.Load() != c.calls {
				t.Errorf("%s %q after %d attempts, want %s %q after %d", rec.State, reason, calls.Load(), c.state, c.reason, c.calls)
			}
		})
	}
}

// TestDecodingOfADeadWorker: its lease runs out and another takes it up; three
// dead workers are enough.
func TestDecodingOfADeadWorker(t *testing.T) {
	t.Parallel()
	b := setup(t)
	fine, lost := b.decoding(t, "one"), b.decoding(t, "two")
	if _, err := b.LeaseDecoding(t.Context(), b.site, fine.ID, "dead", 100*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if _, err := b.pool.Exec(t.Context(), "DELETE FROM river_job"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.pool.Exec(t.Context(), "UPDATE decodings SET attempt = 3, lease_until = now() - interval '1 s', lease_holder = 'dead' WHERE id = $1", lost.ID); err != nil {
		t.Fatal(err)
	}
	b.start(t, good, decoder(func(ctx context.Context, in DecodingInput) (*neuroscreen.Decoding, []byte, error) {
		return decoded(in), []byte("w"), nil
	}))
	if rec := b.awaitDecoding(t, fine); rec.State != neuroscreen.DecodingDone || rec.Attempt != 2 {
		t.Errorf("%s, attempt %d", rec.State, rec.Attempt)
	}
	if rec := b.awaitDecoding(t, lost); rec.State != neuroscreen.DecodingFailed || rec.Reasons[0].Code != "worker-lost" {
		t.Errorf("%s %v", rec.State, rec.Reasons)
	}
}

// TestErasedDecodingIsDropped while it is worked on: its worker stops, and
// nothing of it stays.
func TestErasedDecodingIsDropped(t *testing.T) {
	t.Parallel()
	b := setup(t)
	d := b.decoding(t, "one")
	begun, ended := make(chan bool), make(chan error)
	b.start(t, good, decoder(func(ctx context.Context, in DecodingInput) (*neuroscreen.Decoding, []byte, error) {
		close(begun)
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return decoded(in), []byte("w"), nil
	}))
	<-begun
	if _, err := b.EraseDecoding(t.Context(), b.site, "key-1", d.ID); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, store.ErrFenced) {
		t.Errorf("ended by %v", err)
	}
	b.awaitCount(t, "SELECT count(*) FROM river_job WHERE kind = '"+decodingKind+"' AND state = 'completed'", 1)
	if there, err := b.blobs.Has(t.Context(), "50e721e49c013f00c62cf59f2163542a9d8df02464efeb615d31051b0fddc326"); err != nil || there { // of "w"
		t.Errorf("weights stay: %v", err)
	}
}

func TestDecodingLargerThanTheMemory(t *testing.T) {
	t.Parallel()
	b := setup(t)
	d := b.decoding(t, "one")
	b.start(t, good, decoder(func(context.Context, DecodingInput) (*neuroscreen.Decoding, []byte, error) {
		return nil, nil, errors.New("it was begun")
	}), func(c *Config) {
		c.Memory = memory.NewGate(1 << 20)
		c.Estimate = func(context.Context, Input) (int64, error) { return 1, nil }
		c.EstimateDecoding = func(_ context.Context, in DecodingInput) (int64, error) { return int64(len(in.Runs)) << 30, nil }
	})
	rec := b.awaitDecoding(t, d)
	if rec.State != neuroscreen.DecodingRefused || !slices.ContainsFunc(rec.Reasons, func(r neuroscreen.Reason) bool { return r.Code == "too-much-memory" && *r.Value > 1000 }) {
		t.Errorf("%s %v", rec.State, rec.Reasons)
	}
}
