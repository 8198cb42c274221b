package httpapi

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"neuroscreen"
	"neuroscreen/internal/blob"
	"neuroscreen/internal/deid"
	"neuroscreen/internal/jobs"
	"neuroscreen/internal/pgtest"
	"neuroscreen/internal/store"
)

// newStore is a store over a database of the test's own. Nothing takes the
// jobs that it queues: tests play the worker, so that each state lasts as
// long as they need it.
func newStore(t testing.TB, blobs *blob.Files) *store.Store {
	t.Helper()
	pool := pgtest.New(t)
	keys, err := deid.New(strings.Repeat("5e", deid.SecretSize))
	if err != nil {
		t.Fatal(err)
	}
	queue, err := jobs.NewEnqueuer(pool)
	if err != nil {
		t.Fatal(err)
	}
	return store.New(store.Config{Pool: pool, Keys: keys, Jobs: queue, Blobs: blobs})
}

// worker holds the lease on a scan of site a.
type worker struct {
	e     *env
	lease store.Lease
}

func (e *env) take(scanID uuid.UUID) *worker {
	e.Helper()
	lease, err := e.store.Lease(e.Context(), e.a.id, scanID, "test", time.Hour)
	if err != nil {
		e.Fatal(err)
	}
	return &worker{e, lease}
}

func (w *worker) stage(to neuroscreen.State) {
	w.e.Helper()
	if err := w.e.store.Advance(w.e.Context(), w.e.a.id, w.lease, to); err != nil {
		w.e.Fatal(err)
	}
}

// finish ends the run; a scored one gets files.
func (w *worker) finish(o store.Outcome) {
	w.e.Helper()
	if o.State == neuroscreen.Scored {
		o.Result.ScanID = w.lease.Scan.ID.String()
		o.Result.SubjectID = w.lease.Scan.Pseudonym
		o.Result.Input.SHA256 = w.lease.Scan.SHA256
		for kind, mediaType := range map[string]string{
			store.KindSegmentation: "application/gzip", store.KindPreview: "image/png", store.KindReading: "application/json",
			"carpet.png": "image/png", "alff.nii.gz": "application/gzip",
		} {
			info, err := w.e.blobs.Put(w.e.Context(), bytes.NewReader(derivedBytes(kind)), nil)
			if err != nil {
				w.e.Fatal(err)
			}
			o.Files = append(o.Files, store.DerivedFile{Kind: kind, MediaType: mediaType, BlobKey: info.Key, SHA256: info.Key, Size: info.Size})
		}
	}
	if _, err := w.e.store.Finish(w.e.Context(), w.e.a.id, w.lease, o); err != nil {
		w.e.Fatal(err)
	}
}

func (e *env) finish(scanID uuid.UUID, o store.Outcome) {
	e.Helper()
	e.take(scanID).finish(o)
}
