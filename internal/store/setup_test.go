package store_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"

	"neuroscreen"
	"neuroscreen/internal/deid"
	"neuroscreen/internal/pgtest"
	"neuroscreen/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bundle is a store on a database of its own, with two sites and a clock that
// stands still.
type bundle struct {
	*store.Store
	pool        *pgxpool.Pool
	keys        *deid.Keys
	jobs        *fakeJobs
	blobs       *fakeBlobs
	clock       *fakeClock
	site, other uuid.UUID
}

const actor = store.Actor("key-1")

func setup(t testing.TB) *bundle {
	t.Helper()
	keys, err := deid.New(strings.Repeat("5a", 32))
	if err != nil {
		t.Fatal(err)
	}
	b := &bundle{
		pool: pgtest.New(t), keys: keys, jobs: &fakeJobs{}, blobs: &fakeBlobs{missing: map[string]bool{}},
		clock: &fakeClock{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)},
	}
	b.Store = b.withClock(b.clock.Now)
	for name, id := range map[string]*uuid.UUID{"here": &b.site, "elsewhere": &b.other} {
		site, _, err := b.EnsureSite(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		*id = site.ID
	}
	return b
}

// withClock is another store on the same database.
func (b *bundle) withClock(now func() time.Time) *store.Store {
	return store.New(store.Config{Pool: b.pool, Keys: b.keys, Jobs: b.jobs, Blobs: b.blobs, Now: now})
}

type fakeClock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *fakeClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *fakeClock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// fakeJobs notes which scans were queued, by committed and rolled back
// transactions alike.
type fakeJobs struct {
	mu     sync.Mutex
	queued []uuid.UUID
	err    error
}

func (j *fakeJobs) Enqueue(ctx context.Context, tx pgx.Tx, siteID, scanID uuid.UUID) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.queued = append(j.queued, scanID)
	return j.err
}

func (j *fakeJobs) EnqueueDecoding(ctx context.Context, tx pgx.Tx, siteID, decodingID uuid.UUID) error {
	return j.Enqueue(ctx, tx, siteID, decodingID)
}

func (j *fakeJobs) count() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.queued)
}

// fakeBlobs has every blob but those marked missing.
type fakeBlobs struct {
	mu      sync.Mutex
	missing map[string]bool
}

func (b *fakeBlobs) Has(ctx context.Context, key string) (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.missing[key], nil
}

func (b *fakeBlobs) remove(ctx context.Context, key string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.missing[key] = true
	return nil
}

func hash(content string) string {
	sum := sha256.Sum256([]byte(content))
	return hex.EncodeToString(sum[:])
}

// blobKey is that of the copy that is stored of content.
func blobKey(content string) string { return hash("copy of " + content) }

func ptr[T any](v T) *T { return &v }

// post is a scan of a subject with identifiers that must show up nowhere.
func post(subject, content string) store.NewScan {
	return store.NewScan{
		SHA256: hash(content), Size: int64(len(content)), BlobKey: blobKey(content),
		Metadata: neuroscreen.Metadata{
			SubjectID: subject, AgeYears: ptr(71.0), Sex: neuroscreen.Female, Modality: neuroscreen.T1w,
			BirthDate: "1955-02-03", ScanDate: "2026-02-28", Scanner: "scanner-a",
			AccessionNumber: "ACC-" + subject, StudyInstanceUID: "1.2.3", SOPInstanceUIDs: []string{"1.2.3.4"},
		},
	}
}

// withoutBytes is of a series that a gateway could not hand over.
func withoutBytes(n store.NewScan) store.NewScan {
	n.BlobKey, n.Size, n.Refused = "", 0, []neuroscreen.Reason{{Code: "no-image", Text: "because"}}
	return n
}

func (b *bundle) create(t *testing.T, n store.NewScan) store.ScanRecord {
	t.Helper()
	c, err := b.CreateScan(t.Context(), b.site, actor, n)
	if err != nil {
		t.Fatal(err)
	}
	return c.Scan
}

func (b *bundle) lease(t *testing.T, scan store.ScanRecord) store.Lease {
	t.Helper()
	l, err := b.Lease(t.Context(), b.site, scan.ID, "worker", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// scored is an outcome with the given likelihood ratios and flags.
func scored(scan store.ScanRecord, scores ...neuroscreen.Score) store.Outcome {
	return store.Outcome{
		State: neuroscreen.Scored,
		Result: &neuroscreen.Result{
			Schema: neuroscreen.ResultSchema, ScanID: scan.ID.String(), SubjectID: scan.Pseudonym,
			Input: neuroscreen.Input{SHA256: scan.SHA256}, Scores: scores,
			Software: neuroscreen.Software{Version: "test", Network: neuroscreen.Asset{Name: "net", SHA256: hash("net")}},
		},
		Files: []store.DerivedFile{{Kind: store.KindPreview, MediaType: "image/png", BlobKey: hash("png" + scan.ID.String()), SHA256: hash("png" + scan.ID.String()), Size: 3}},
	}
}

func score(c neuroscreen.Condition, lr float64, flag neuroscreen.Flag) neuroscreen.Score {
	return neuroscreen.Score{Condition: c, LikelihoodRatio: &lr, Flag: flag}
}

// run takes a scan through to its end.
func (b *bundle) run(t *testing.T, scan store.ScanRecord, o store.Outcome) {
	t.Helper()
	if _, err := b.Finish(t.Context(), b.site, b.lease(t, scan), o); err != nil {
		t.Fatal(err)
	}
}

func refused(code string) store.Outcome {
	return store.Outcome{State: neuroscreen.Refused, Reasons: []neuroscreen.Reason{{Code: code, Text: "because"}}}
}

// wantCode checks for a *neuroscreen.Error of a code and type.
func wantCode(t *testing.T, err error, code neuroscreen.Code, typ string) {
	t.Helper()
	e, ok := errors.AsType[*neuroscreen.Error](err)
	if !ok || e.Code != code || e.Type != typ {
		t.Errorf("got error %v, want %s %q", err, code, typ)
	}
}

func (b *bundle) scalar(t *testing.T, sql string, args ...any) string {
	t.Helper()
	var v any
	if err := b.pool.QueryRow(t.Context(), sql, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return fmt.Sprint(v)
}
