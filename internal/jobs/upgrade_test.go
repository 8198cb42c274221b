package jobs

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"neuroscreen"
	"neuroscreen/internal/blob"
	"neuroscreen/internal/pgtest"
	"neuroscreen/internal/store"
	"neuroscreen/migrations"
)

// TestUpgradeWithWorkInFlight: scans that wait, or that a worker of the
// version before held, end under the new schema. The rows are written in SQL,
// because the program of that version is not here.
func TestUpgradeWithWorkInFlight(t *testing.T) {
	t.Parallel()
	pool, err := store.OpenPool(t.Context(), pgtest.Empty(t), 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	if err := migrations.To(t.Context(), pool, migrations.Versions{Schema: 1}); err != nil {
		t.Fatal(err)
	}
	b := &bundle{pool: pool, dir: t.TempDir()}
	if b.blobs, err = blob.OpenFiles(b.dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.blobs.Close() })
	b.Store = newStore(pool, b.blobs)
	b.site = uuid.New()
	if _, err := pool.Exec(t.Context(), "INSERT INTO sites (id, name, created_at) VALUES ($1, 'here', now())", b.site); err != nil {
		t.Fatal(err)
	}

	insert := func(name, state, lease, jobState, result string) store.ScanRecord {
		t.Helper()
		info, err := b.blobs.Put(t.Context(), strings.NewReader(name), nil)
		if err != nil {
			t.Fatal(err)
		}
		scan := store.ScanRecord{ID: uuid.New(), SiteID: b.site}
		sum := sha256.Sum256([]byte("as received: " + name))
		pseudonym := fmt.Sprintf("p-%026d", len(name))
		final := "NULL"
		if state == "scored" {
			final = "now()"
		}
		args := pgx.NamedArgs{"site": b.site, "id": scan.ID, "pseudonym": pseudonym, "sha": sum[:], "blob": info.Key, "size": info.Size,
			"state": state, "document": `{"schema":"neuroscreen.result/1"}`}
		batch := &pgx.Batch{}
		batch.Queue(`
			INSERT INTO scans (site_id, id, pseudonym, metadata, sha256, size_bytes, blob_key, state, attempt, event_seq,
			                   fence, lease_until, lease_holder, result_version, created_at, updated_at, finished_at)
			VALUES (@site, @id, @pseudonym,
			        jsonb_build_object('subject_id', @pseudonym::text, 'age_years', 71, 'sex', 'F', 'modality', 'T1w'),
			        @sha, @size, @blob, @state, 1, 1, 7, `+lease+`, CASE WHEN `+lease+` IS NULL THEN NULL ELSE 'old/1' END, `+result+`, now(), now(), `+final+`)`, args)
		batch.Queue(`
			INSERT INTO scan_events (site_id, scan_id, seq, run, attempt, state, at)
			VALUES (@site, @id, 1, 1, 1, @state, now())`, args)
		if state == "scored" {
			batch.Queue(`
				INSERT INTO results (site_id, scan_id, version, run, metadata, document, sha256, software, created_at)
				VALUES (@site, @id, 1, 1, '{}', @document, @sha, '{}', now())`, args)
		}
		if jobState != "" {
			batch.Queue(`
				INSERT INTO river_job (kind, args, state, max_attempts, queue, priority, attempt, attempted_at)
				VALUES ('analyse-scan', jsonb_build_object('site_id', @site::uuid, 'scan_id', @id::uuid), '`+jobState+`', 25, 'default', 1,
				        CASE '`+jobState+`' WHEN 'running' THEN 1 ELSE 0 END, now())`, args)
		}
		if err := pool.SendBatch(t.Context(), batch).Close(); err != nil {
			t.Fatal(err)
		}
		return scan
	}
	inFlight := []store.ScanRecord{
		insert("waits", "received", "NULL", "available", "0"),
		insert("was held, and its worker stopped hard", "segmented", "now() + interval '1 second'", "running", "0"),
		insert("was held, and its job is lost", "measured", "now() - interval '1 second'", "", "0"),
	}
	done := insert("is done", "scored", "NULL", "", "1")

	if err := migrations.Up(t.Context(), pool); err != nil {
		t.Fatal(err)
	}
	b.start(t, good)
	for _, scan := range inFlight {
		if rec := b.await(t, scan, neuroscreen.Scored); rec.ResultVersion != 1 {
			t.Errorf("%+v", rec)
		}
	}
	if n := b.count(t, "SELECT count(*) FROM results"); n != 4 {
		t.Errorf("%d results of 4 scans", n)
	}
	v, err := b.CurrentResult(t.Context(), b.site, done.ID)
	if err != nil || string(v.Document) != `{"schema":"neuroscreen.result/1"}` {
		t.Errorf("the old result is %s, %v", v.Document, err)
	}
}
