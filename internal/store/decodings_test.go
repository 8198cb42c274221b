package store_test

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"neuroscreen"
	"neuroscreen/internal/store"
)

func bold(subject, content string) store.NewScan {
	n := post(subject, content)
	n.Metadata.Modality = neuroscreen.BOLD
	return n
}

func decodingOf(scans ...store.ScanRecord) store.NewDecoding {
	n := store.NewDecoding{Options: neuroscreen.DefaultDecodingOptions()}
	for _, s := range scans {
		n.Runs = append(n.Runs, store.DecodingRun{ScanID: s.ID, Events: []neuroscreen.Event{{Onset: 1, Duration: 2, Type: "a", Run: "1"}, {Onset: 9, Type: "b", Run: "2"}}})
	}
	return n
}

func (b *bundle) decode(t *testing.T, n store.NewDecoding) store.DecodingRecord {
	t.Helper()
	d, known, err := b.CreateDecoding(t.Context(), b.site, actor, n)
	if err != nil || known {
		t.Fatalf("known %v: %v", known, err)
	}
	return d
}

func (b *bundle) leaseDecoding(t *testing.T, d store.DecodingRecord) store.DecodingLease {
	t.Helper()
	l, err := b.LeaseDecoding(t.Context(), b.site, d.ID, "worker", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func decodedOutcome(d store.DecodingRecord) store.DecodingOutcome {
	r := &neuroscreen.Decoding{Schema: neuroscreen.DecodingSchema, DecodingOptions: d.Options, Accuracy: 0.5}
	for _, run := range d.Runs {
		r.Files = append(r.Files, neuroscreen.DecodingFile{ScanID: run.ScanID.String()})
	}
	return store.DecodingOutcome{State: neuroscreen.DecodingDone, Result: r, WeightsKey: hash("weights" + d.ID.String()), WeightsSize: 7}
}

func TestDecodingFromBeginningToEnd(t *testing.T) {
	t.Parallel()
	b := setup(t)
	one, two := b.create(t, bold("S", "one")), b.create(t, bold("S", "two"))
	n := decodingOf(one, two)
	d := b.decode(t, n)
	if d.State != neuroscreen.DecodingReceived || len(d.Runs) != 2 || d.Runs[1].ScanID != two.ID || !slices.Equal(d.Runs[0].Events, n.Runs[0].Events) || d.Document != nil {
		t.Errorf("%+v", d)
	}
	if b.jobs.count() != 3 || b.jobs.queued[2] != d.ID {
		t.Errorf("queued %v", b.jobs.queued)
	}
	l := b.leaseDecoding(t, d)
	if _, err := b.LeaseDecoding(t.Context(), b.site, d.ID, "another", time.Minute); !errors.Is(err, store.ErrBusy) {
		t.Errorf("a second lease: %v", err)
	}
	if err := b.RenewDecoding(t.Context(), l, time.Minute); err != nil {
		t.Error(err)
	}
	// The worker dies: another takes over, and the first is shut out.
	b.clock.Advance(2 * time.Minute)
	next := b.leaseDecoding(t, d)
	if next.Decoding.Attempt != 2 {
		t.Errorf("attempt %d", next.Decoding.Attempt)
	}
	if err := b.FinishDecoding(t.Context(), l, decodedOutcome(d)); !errors.Is(err, store.ErrFenced) {
		t.Errorf("the first worker's result: %v", err)
	}
	if err := b.ReleaseDecoding(t.Context(), l, true, neuroscreen.Reason{Code: "x"}); !errors.Is(err, store.ErrFenced) {
		t.Errorf("the first worker's release: %v", err)
	}
	if err := b.ReleaseDecoding(t.Context(), next, false, neuroscreen.Reason{Code: "worker-stopped", Text: "waits"}); err != nil {
		t.Fatal(err)
	}
	if got, err := b.Decoding(t.Context(), b.site, d.ID); err != nil || got.Attempt != 1 || got.Reasons[0].Code != "worker-stopped" {
		t.Errorf("%+v, %v", got, err)
	}
	last := b.leaseDecoding(t, d)
	foreign := decodedOutcome(d)
	foreign.Result.Files[0].ScanID = uuid.NewString()
	if err := b.FinishDecoding(t.Context(), last, foreign); err == nil {
		t.Error("the result of other scans was stored")
	}
	if err := b.FinishDecoding(t.Context(), last, decodedOutcome(d)); err != nil {
		t.Fatal(err)
	}
	got, err := b.Decoding(t.Context(), b.site, d.ID)
	if err != nil || got.State != neuroscreen.DecodingDone || got.Document == nil || got.WeightsSize != 7 || got.Finished == nil {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := b.LeaseDecoding(t.Context(), b.site, d.ID, "worker", time.Minute); !errors.Is(err, store.ErrFinal) {
		t.Errorf("a lease afterwards: %v", err)
	}
	for name, sql := range map[string]string{
		"result of another state": "UPDATE decodings SET state = 'failed', reasons = '[{}]'",
		"no reason":               "UPDATE decodings SET state = 'refused', document = NULL, sha256 = NULL, weights_key = ''",
	} {
		if _, err := b.pool.Exec(t.Context(), sql); err == nil {
			t.Errorf("%s passes", name)
		}
	}
	if n, err := b.VerifyAudit(t.Context(), b.site); err != nil || n < 4 {
		t.Errorf("%d audit entries: %v", n, err)
	}
}

func TestDecodingRefusals(t *testing.T) {
	t.Parallel()
	b := setup(t)
	one, other, t1 := b.create(t, bold("S", "one")), b.create(t, bold("T", "two")), b.create(t, post("S", "three"))
	none := b.create(t, withoutBytes(bold("S", "four")))
	child, slice := b.create(t, bold("S", "five")), b.create(t, bold("S", "six"))
	b.run(t, child, refused("under-18"))
	b.run(t, slice, refused("not-4d"))
	for name, c := range map[string]struct {
		scans []store.ScanRecord
		code  neuroscreen.Code
		typ   string
	}{
		"no such scan": {[]store.ScanRecord{{ID: uuid.New()}}, neuroscreen.CodeNotFound, "scan-not-found"},
		"two people":   {[]store.ScanRecord{one, other}, neuroscreen.CodeUnprocessable, "different-subjects"},
		"a T1":         {[]store.ScanRecord{t1}, neuroscreen.CodeUnprocessable, "not-bold"},
		"no image":     {[]store.ScanRecord{none}, neuroscreen.CodeConflict, "no-bytes"},
		"a child":      {[]store.ScanRecord{one, child}, neuroscreen.CodeConflict, "scan-refused"},
		"one slice":    {[]store.ScanRecord{slice}, neuroscreen.CodeConflict, "scan-refused"},
	} {
		_, _, err := b.CreateDecoding(t.Context(), b.site, actor, decodingOf(c.scans...))
		t.Log(name)
		wantCode(t, err, c.code, c.typ)
	}
	despite := decodingOf(one, slice) // refused for what a decoding does not need
	despite.Despite = []string{"not-4d"}
	b.decode(t, despite)
	_, _, err := b.CreateDecoding(t.Context(), b.other, actor, decodingOf(one))
	wantCode(t, err, neuroscreen.CodeNotFound, "scan-not-found")
	_, err = b.Decoding(t.Context(), b.other, b.decode(t, decodingOf(one)).ID)
	wantCode(t, err, neuroscreen.CodeNotFound, "decoding-not-found")

	for range 48 {
		b.decode(t, decodingOf(one))
	}
	_, _, err = b.CreateDecoding(t.Context(), b.site, actor, decodingOf(one))
	wantCode(t, err, neuroscreen.CodeBusy, "too-many-decodings")
}

func TestDecodingIdempotency(t *testing.T) {
	t.Parallel()
	b := setup(t)
	one := b.create(t, bold("S", "one"))
	n := decodingOf(one)
	n.IdempotencyKey = "key"
	ids := make([]uuid.UUID, 6)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			d, _, err := b.CreateDecoding(t.Context(), b.site, actor, n)
			if err != nil {
				t.Error(err)
			}
			ids[i] = d.ID
		})
	}
	wg.Wait()
	if len(slices.Compact(ids)) != 1 {
		t.Errorf("one key, %v", ids)
	}
	if got := b.scalar(t, "SELECT count(*) FROM decodings"); got != "1" {
		t.Errorf("%s decodings", got)
	}
	if entries, err := b.Audit(t.Context(), b.site, store.AuditFilter{ScanID: &one.ID}); err != nil || len(entries) != 1+len(ids) || entries[0].Details != "repeated" {
		t.Errorf("%d entries of %d requests and the scan's: %v", len(entries), len(ids), err)
	}
	changed := decodingOf(one)
	changed.IdempotencyKey, changed.Options.Voxels = "key", 7
	_, _, err := b.CreateDecoding(t.Context(), b.site, actor, changed)
	wantCode(t, err, neuroscreen.CodeUnprocessable, "idempotency-key-reused")
	if err := b.ForgetIdempotencyKeys(t.Context(), b.clock.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	b.decode(t, changed)
}

// TestDecodingAndItsScans: bytes stay until the decoding has ended, and who
// erases a scan erases what was decoded from it.
func TestDecodingAndItsScans(t *testing.T) {
	t.Parallel()
	b := setup(t)
	one, two := b.create(t, bold("S", "one")), b.create(t, bold("S", "two"))
	b.run(t, one, refused("not-a-brain"))
	b.run(t, two, refused("not-a-brain"))
	n := decodingOf(one, two)
	n.Despite = []string{"not-a-brain"}
	d := b.decode(t, n)
	b.clock.Advance(time.Hour)
	if n, keys, err := b.ForgetBytes(t.Context(), b.clock.Now()); err != nil || n != 0 || len(keys) != 0 {
		t.Fatalf("%d scans lost their bytes before they were decoded, %v", n, err)
	}
	l := b.leaseDecoding(t, d)
	o := decodedOutcome(d)
	if err := b.FinishDecoding(t.Context(), l, o); err != nil {
		t.Fatal(err)
	}
	if n, _, err := b.ForgetBytes(t.Context(), b.clock.Now()); err != nil || n != 2 {
		t.Errorf("%d scans lost their bytes afterwards, %v", n, err)
	}
	_, _, err := b.CreateDecoding(t.Context(), b.site, actor, decodingOf(one))
	wantCode(t, err, neuroscreen.CodeConflict, "scan-bytes-removed")
	if n, err := b.ReleaseBlobs(t.Context(), []string{o.WeightsKey}, b.blobs.remove); err != nil || n != 0 {
		t.Errorf("the weights were removed: %d, %v", n, err)
	}
	keys, err := b.Erase(t.Context(), b.site, actor, two.ID)
	if err != nil || !slices.Contains(keys, o.WeightsKey) {
		t.Errorf("erased with %v, %v", keys, err)
	}
	_, err = b.Decoding(t.Context(), b.site, d.ID)
	wantCode(t, err, neuroscreen.CodeNotFound, "decoding-not-found")
	if n, err := b.ReleaseBlobs(t.Context(), keys, b.blobs.remove); err != nil || n != len(keys) {
		t.Errorf("%d of %d files removed: %v", n, len(keys), err)
	}
}

func TestEraseDecodingShutsOutItsWorker(t *testing.T) {
	t.Parallel()
	b := setup(t)
	d := b.decode(t, decodingOf(b.create(t, bold("S", "one"))))
	l := b.leaseDecoding(t, d)
	_, err := b.EraseDecoding(t.Context(), b.other, actor, d.ID)
	wantCode(t, err, neuroscreen.CodeNotFound, "decoding-not-found")
	if _, err := b.EraseDecoding(t.Context(), b.site, actor, d.ID); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{b.RenewDecoding(t.Context(), l, time.Minute), b.FinishDecoding(t.Context(), l, decodedOutcome(d))} {
		if !errors.Is(err, store.ErrFenced) {
			t.Errorf("%v", err)
		}
	}
	_, err = b.LeaseDecoding(t.Context(), b.site, d.ID, "worker", time.Minute)
	wantCode(t, err, neuroscreen.CodeNotFound, "decoding-not-found")
}
