package backup_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"

	"neuroscreen"
	"neuroscreen/internal/backup"
	"neuroscreen/internal/blob"
	"neuroscreen/internal/deid"
	"neuroscreen/internal/jobs"
	"neuroscreen/internal/pgtest"
	"neuroscreen/internal/store"
	"neuroscreen/migrations"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var secret = strings.Repeat("5a", deid.SecretSize)

// place is a deployment's database and files.
type place struct {
	*store.Store
	pool  *pgxpool.Pool
	blobs *blob.Files
	dir   string
	site  uuid.UUID
}

func newPlace(t *testing.T, pool *pgxpool.Pool) *place {
	t.Helper()
	p := &place{pool: pool, dir: t.TempDir()}
	var err error
	if p.blobs, err = blob.OpenFiles(p.dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.blobs.Close() })
	keys, err := deid.New(secret)
	if err != nil {
		t.Fatal(err)
	}
	queue, err := jobs.NewEnqueuer(pool)
	if err != nil {
		t.Fatal(err)
	}
	p.Store = store.New(store.Config{Pool: pool, Keys: keys, Jobs: queue, Blobs: p.blobs})
	return p
}

// empty is a place that nothing was ever in.
func empty(t *testing.T) *place {
	t.Helper()
	pool, err := store.OpenPool(t.Context(), pgtest.Empty(t), 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return newPlace(t, pool)
}

func (p *place) put(t *testing.T, content string) string {
	t.Helper()
	info, err := p.blobs.Put(t.Context(), strings.NewReader(content), nil)
	if err != nil {
		t.Fatal(err)
	}
	return info.Key
}

func hash(s string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(s))) }

func (p *place) post(t *testing.T, subject, content, header string) store.ScanRecord {
	t.Helper()
	age := 71.0
	n := store.NewScan{SHA256: hash("received " + content), Size: int64(len(content)), BlobKey: p.put(t, content), IdempotencyKey: "post " + content,
		Metadata: neuroscreen.Metadata{SubjectID: subject, AgeYears: &age, Sex: neuroscreen.Female, Modality: neuroscreen.T1w,
			AccessionNumber: "ACC " + content, Scanner: "tab\tbackslash\\ line\n\"quote\" ü"}}
	if header != "" {
		n.HeaderSHA256, n.HeaderSize, n.HeaderBlobKey = hash("received "+header), int64(len(header)), p.put(t, header)
	}
	c, err := p.CreateScan(t.Context(), p.site, "key-1", n)
	if err != nil {
		t.Fatal(err)
	}
	return c.Scan
}

func (p *place) lease(t *testing.T, scan store.ScanRecord, ttl time.Duration) store.Lease {
	t.Helper()
	l, err := p.Lease(t.Context(), p.site, scan.ID, "worker", ttl)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (p *place) score(t *testing.T, l store.Lease) {
	t.Helper()
	key := p.put(t, "preview of "+l.Scan.ID.String())
	lr := 6.0
	_, err := p.Finish(t.Context(), p.site, l, store.Outcome{State: neuroscreen.Scored,
		Result: &neuroscreen.Result{Schema: neuroscreen.ResultSchema, ScanID: l.Scan.ID.String(), SubjectID: l.Scan.Pseudonym,
			Input:  neuroscreen.Input{SHA256: l.Scan.SHA256},
			Scores: []neuroscreen.Score{{Condition: neuroscreen.Alzheimers, LikelihoodRatio: &lr, Flag: neuroscreen.FlagFlagged}}},
		Files: []store.DerivedFile{{Kind: store.KindPreview, MediaType: "image/png", BlobKey: key, SHA256: key, Size: 1}}})
	if err != nil {
		t.Fatal(err)
	}
}

// inhabited is a place with scans in every state that matters; the last two
// are unfinished: one waits, one is held by a worker that is gone.
func inhabited(t *testing.T) (*place, []store.ScanRecord) {
	t.Helper()
	p := newPlace(t, pgtest.New(t))
	site, _, err := p.EnsureSite(t.Context(), "here")
	if err != nil {
		t.Fatal(err)
	}
	p.site = site.ID
	if _, _, err := p.CreateKey(t.Context(), p.site, "key-1", neuroscreen.Admin, "first"); err != nil {
		t.Fatal(err)
	}
	scored := p.post(t, "MRN-1", "first", "")
	p.score(t, p.lease(t, scored, time.Minute))
	again, err := p.Retry(t.Context(), p.site, "key-1", scored.ID) // a second version
	if err != nil {
		t.Fatal(err)
	}
	p.score(t, p.lease(t, again, time.Minute))
	pair := p.post(t, "MRN-2", "image", "its header")
	if _, err := p.Finish(t.Context(), p.site, p.lease(t, pair, time.Minute), store.Outcome{State: neuroscreen.Refused,
		Reasons: []neuroscreen.Reason{{Code: "not-t1", Text: "no"}}}); err != nil {
		t.Fatal(err)
	}
	waiting, held := p.post(t, "MRN-1", "waits", ""), p.post(t, "MRN-3", "held", "")
	if err := p.Advance(t.Context(), p.site, p.lease(t, held, 10*time.Millisecond), neuroscreen.Segmented); err != nil {
		t.Fatal(err)
	}
	weights := p.put(t, "weights")
	for _, sql := range []string{
		`INSERT INTO decodings (site_id, id, options, fingerprint, state, document, sha256, weights_key, created_at, updated_at, finished_at)
		 SELECT site_id, id, '{}', '', 'decoded', '{}', sha256, '` + weights + `', now(), now(), now() FROM scans WHERE id = '` + scored.ID.String() + `'`,
		`INSERT INTO decoding_runs (site_id, decoding_id, position, scan_id, events) SELECT site_id, id, 1, id, '[]' FROM decodings`,
	} {
		if _, err := p.pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	p.put(t, "nobody's") // stays behind
	return p, []store.ScanRecord{scored, pair, waiting, held}
}

func (p *place) archive(t *testing.T, secret string) []byte {
	t.Helper()
	var b bytes.Buffer
	m, err := backup.Write(t.Context(), &b, backup.Source{Pool: p.pool, Blobs: p.blobs, Secret: secret})
	if err != nil || len(m.Damaged) > 0 {
		t.Fatal(m, err)
	}
	return b.Bytes()
}

func (p *place) restore(t *testing.T, archive []byte) error {
	t.Helper()
	a, err := backup.Open(bytes.NewReader(archive))
	if err != nil {
		return err
	}
	_, err = a.Restore(t.Context(), p.pool, p.blobs)
	return err
}

// rows are all rows of all tables of ours, as text.
func (p *place) rows(t *testing.T) map[string]string {
	t.Helper()
	r, err := p.pool.Query(t.Context(), `
		SELECT relname FROM pg_class
		WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname !~ '^(river_|goose)'`)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for r.Next() {
		var name string
		if err := r.Scan(&name); err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	all := map[string]string{}
	for _, name := range names {
		var text string
		if err := p.pool.QueryRow(t.Context(), "SELECT coalesce(string_agg(x::text, E'\n' ORDER BY x::text), '') FROM "+name+" x").Scan(&text); err != nil {
			t.Fatal(err)
		}
		all[name] = text
	}
	return all
}

// files are all stored files by name.
func (p *place) files(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(p.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		all[d.Name()] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestRestoredIsWhatWasKept(t *testing.T) {
	t.Parallel()
	from, scans := inhabited(t)
	archive := from.archive(t, secret)
	to := empty(t)
	if err := to.restore(t, archive); err != nil {
		t.Fatal(err)
	}
	to.site = from.site

	want, got := from.rows(t), to.rows(t)
	for name := range want {
		if name != "deployment" && want[name] != got[name] {
			t.Errorf("%s:\n%s\nwant\n%s", name, got[name], want[name])
		}
	}
	for _, table := range []string{"scans", "results", "derived_files", "links", "scan_events", "audit", "keys", "cases", "idempotency_keys", "decodings", "decoding_runs"} {
		if want[table] == "" {
			t.Errorf("%s was empty: nothing is shown of it", table)
		}
	}
	id := to.deployment(t)
	if owner, err := to.blobs.Owner(); id == from.deployment(t) || owner != (blob.Owner{ID: id}) || err != nil {
		t.Errorf("deployment %s, files of %+v, %v", id, owner, err)
	}
	wantFiles, gotFiles := from.files(t), to.files(t)
	delete(wantFiles, hash("nobody's"))
	delete(gotFiles, blob.OwnerFile)
	if !maps.Equal(gotFiles, wantFiles) || len(gotFiles) < 6 {
		t.Errorf("files %v, want %v", slices.Collect(maps.Keys(gotFiles)), slices.Collect(maps.Keys(wantFiles)))
	}

	who, err := to.Identities(t.Context(), to.site, scans[0].ID)
	if err != nil || who[scans[0].ID].SubjectID != "MRN-1" {
		t.Errorf("identities %v %v", who, err)
	}
	if n, err := to.VerifyAudit(t.Context(), to.site); err != nil || n == 0 {
		t.Errorf("audit: %d entries, %v", n, err)
	}

	// What was under way ends here, and new jobs get numbers of their own.
	runner, err := jobs.NewRunner(jobs.Config{Pool: to.pool, Store: to.Store, Blobs: to.blobs, Logger: slog.New(slog.DiscardHandler),
		ReconcileEvery: 50 * time.Millisecond,
		Analyse: func(ctx context.Context, in jobs.Input) (jobs.Output, error) {
			r, err := in.Image(ctx)
			if err != nil {
				return jobs.Output{}, err
			}
			defer r.Close()
			_, err = io.Copy(io.Discard, r)
			return jobs.Output{Result: &neuroscreen.Result{Schema: neuroscreen.ResultSchema, ScanID: in.ScanID.String(),
				SubjectID: in.Metadata.SubjectID, Input: neuroscreen.Input{SHA256: in.SHA256}}}, err
		}})
	if err != nil {
		t.Fatal(err)
	}
	if err := runner.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer runner.Stop(context.Background())
	later := to.post(t, "MRN-9", "posted after", "")
	for _, scan := range append(scans[2:], later) {
		deadline := time.Now().Add(30 * time.Second)
		for tick := time.NewTicker(10 * time.Millisecond); ; <-tick.C {
			rec, err := to.Scan(t.Context(), to.site, scan.ID)
			if err != nil {
				t.Fatal(err)
			}
			if rec.State == neuroscreen.Scored {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("the scan stays %s %v", rec.State, rec.Reasons)
			}
		}
	}
}

func (p *place) deployment(t *testing.T) string {
	t.Helper()
	id, err := p.Deployment(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return id.String()
}

// TestNotOverOtherFiles: to the database of a restored deployment, the files of
// any other would be nobody's.
func TestNotOverOtherFiles(t *testing.T) {
	t.Parallel()
	from, _ := inhabited(t)
	archive := from.archive(t, secret)
	for name, c := range map[string]struct {
		before func(t *testing.T, p *place) error
		says   string
	}{
		"another deployment's":  {func(t *testing.T, p *place) error { return p.blobs.SetOwner(blob.Owner{ID: "another"}) }, "belong to a deployment already (another)"},
		"its own, still in use": {func(t *testing.T, p *place) error { return p.blobs.SetOwner(blob.Owner{ID: from.deployment(t)}) }, "belong to a deployment already"},
		"nobody knows whose":    {func(t *testing.T, p *place) error { p.put(t, "x"); return nil }, "holds files already"},
		"an earlier try's": {func(t *testing.T, p *place) error {
			p.put(t, "x")
			return p.blobs.SetOwner(blob.Owner{ID: "5f8f3f5e-6b2e-4f5e-9d63-111111111111", Restoring: true})
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			to := empty(t)
			if err := c.before(t, to); err != nil {
				t.Fatal(err)
			}
			before := to.files(t)
			err := to.restore(t, archive)
			if c.says == "" && err == nil {
				if owner, err := to.blobs.Owner(); owner != (blob.Owner{ID: to.deployment(t)}) || err != nil {
					t.Errorf("files of %+v, %v", owner, err)
				}
				return
			}
			if err == nil || c.says == "" || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v, want %q", err, c.says)
			}
			if after := to.files(t); !maps.Equal(before, after) {
				t.Errorf("files %v, before %v", after, before)
			}
		})
	}
}

// TestVersionsThatDoNotFit.
func TestVersionsThatDoNotFit(t *testing.T) {
	t.Parallel()
	old := empty(t)
	if err := migrations.To(t.Context(), old.pool, migrations.Versions{Schema: 32}); err != nil {
		t.Fatal(err)
	}
	if _, err := old.pool.Exec(t.Context(), "INSERT INTO deployment VALUES (true, 'x', now())"); err != nil {
		t.Fatal(err)
	}
	archive := old.archive(t, secret)
	t.Run("an older archive into a newer schema", func(t *testing.T) {
		to := newPlace(t, pgtest.New(t))
		if err := to.restore(t, archive); err == nil || !strings.Contains(err.Error(), "without tables") {
			t.Error(err)
		}
	})
	t.Run("a back-up of a newer schema", func(t *testing.T) {
		from, _ := inhabited(t)
		if _, err := from.pool.Exec(t.Context(), "INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, true)"); err != nil {
			t.Fatal(err)
		}
		if _, err := backup.Write(t.Context(), io.Discard, backup.Source{Pool: from.pool, Blobs: from.blobs}); !errors.Is(err, migrations.ErrNewer) {
			t.Error(err)
		}
	})
}

func TestOlderArchiveIsBroughtUp(t *testing.T) {
	t.Parallel()
	old := empty(t)
	if err := migrations.To(t.Context(), old.pool, migrations.Versions{Schema: 1}); err != nil {
		t.Fatal(err)
	}
	keys, err := deid.New(secret)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := old.pool.Exec(t.Context(), "INSERT INTO deployment VALUES (true, $1, now())", keys.Fingerprint()); err != nil {
		t.Fatal(err)
	}
	to := empty(t)
	if err := to.restore(t, old.archive(t, secret)); err != nil {
		t.Fatal(err)
	}
	known, have, err := migrations.Version(t.Context(), to.pool)
	if err != nil || have != known || have == 1 {
		t.Errorf("schema %d of %d, %v", have, known, err)
	}
	if err := to.CheckSecret(t.Context()); err != nil {
		t.Error(err)
	}
	if owner, err := to.blobs.Owner(); owner != (blob.Owner{ID: to.deployment(t)}) || err != nil {
		t.Errorf("files of %+v, %v", owner, err)
	}
}

func TestBadArchives(t *testing.T) {
	t.Parallel()
	from, _ := inhabited(t)
	whole := from.archive(t, secret)
	flip := func(at int) []byte {
		b := bytes.Clone(whole)
		b[at] ^= 1
		return b
	}
	blobAt := bytes.Index(whole, []byte("preview of "))
	tableAt := bytes.Index(whole, []byte("tables/audit/")) + 700
	to := empty(t)
	for name, archive := range map[string][]byte{
		"nothing":                  nil,
		"something else":           []byte(strings.Repeat("not a tar file ", 100)),
		"cut in the header":        whole[:700],
		"cut in a table":           whole[:tableAt],
		"cut in a blob":            whole[:blobAt+3],
		"cut before the manifest":  whole[:bytes.Index(whole, []byte("manifest.json"))],
		"a bit of a blob changed":  flip(blobAt),
		"a bit of a table changed": flip(tableAt),
		"another digest":           flip(bytes.Index(whole, []byte(`"digest": "`)) + 12),
	} {
		t.Run(name, func(t *testing.T) {
			if err := to.restore(t, archive); err == nil {
				t.Error("was restored")
			}
			if a, err := backup.Open(bytes.NewReader(archive)); err == nil {
				if _, err := a.Check(t.Context()); err == nil {
					t.Error("passed the check")
				}
			}
		})
	}
	if err := to.restore(t, whole); err != nil { // nothing was left that is in the way
		t.Fatal(err)
	}
	if err := to.restore(t, whole); err == nil || !strings.Contains(err.Error(), "holds a deployment already") {
		t.Errorf("restored over a deployment: %v", err)
	}
	a, err := backup.Open(bytes.NewReader(whole))
	if err != nil {
		t.Fatal(err)
	}
	if m, err := a.Check(t.Context()); err != nil || m.Rows["scans"] != 4 || a.Secret() != secret {
		t.Errorf("%+v %v", m, err)
	}
}

// TestDamagedFilesAreNamed: a file that is gone already does not keep the
// rest from being kept.
func TestDamagedFilesAreNamed(t *testing.T) {
	t.Parallel()
	from, scans := inhabited(t)
	gone, changed := scans[0].BlobKey, scans[1].BlobKey
	if err := from.blobs.Remove(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(from.dir, changed[:2], changed[2:4], changed), []byte("rotten"), 0o600); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	m, err := backup.Write(t.Context(), &b, backup.Source{Pool: from.pool, Blobs: from.blobs})
	want := []string{gone, changed}
	slices.Sort(want)
	if err != nil || !slices.Equal(m.Damaged, want) {
		t.Errorf("%v %v, want %v", m.Damaged, err, want)
	}
	to := empty(t)
	if err := to.restore(t, b.Bytes()); err != nil {
		t.Fatal(err)
	}
	if there, _ := to.blobs.Has(t.Context(), changed); there {
		t.Error("a damaged blob came under its old name")
	}
}

// TestErasureDuringBackup: the rows go at once, the files when the backup is
// over, so that the archive is whole.
func TestErasureDuringBackup(t *testing.T) {
	t.Parallel()
	from, scans := inhabited(t)
	var during int
	out := &hook{at: "tables/", do: func() {
		keys, err := from.Erase(t.Context(), from.site, "key-1", scans[1].ID)
		if err != nil {
			t.Error(err)
		}
		during, err = from.ReleaseBlobs(t.Context(), keys, from.blobs.Remove)
		if err != nil {
			t.Error(err)
		}
	}}
	m, err := backup.Write(t.Context(), out, backup.Source{Pool: from.pool, Blobs: from.blobs})
	if err != nil || len(m.Damaged) > 0 || m.Rows["scans"] != 4 || during != 0 {
		t.Errorf("%+v, %d files removed, %v", m, during, err)
	}
	n, err := from.ReleaseBlobs(t.Context(), []string{scans[1].BlobKey, scans[1].HeaderBlobKey}, from.blobs.Remove)
	if err != nil || n != 2 {
		t.Errorf("%d files removed afterwards, %v", n, err)
	}
}

// hook does something once when a text passes.
type hook struct {
	at string
	do func()
}

func (h *hook) Write(p []byte) (int, error) {
	if h.do != nil && bytes.Contains(p, []byte(h.at)) {
		h.do()
		h.do = nil
	}
	return len(p), nil
}
