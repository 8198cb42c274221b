package service

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"neuroscreen"
	"neuroscreen/internal/blob"
	"neuroscreen/internal/config"
	"neuroscreen/internal/pgtest"
)

// TestFilesAndDatabaseBelongTogether: a database that is not the files' would
// have its sweep remove them all.
func TestFilesAndDatabaseBelongTogether(t *testing.T) {
	t.Parallel()
	// used is a deployment that has worked.
	used := func(t *testing.T) config.Server {
		t.Helper()
		cfg := settings(t)
		r := start(t, cfg, fake)
		c := api(t, r, cfg.Data)
		scan, _, err := c.Submit(t.Context(), upload(t, 1))
		if err != nil {
			t.Fatal(err)
		}
		if scan, err = c.Wait(t.Context(), scan.ID, nil); err != nil || scan.State != neuroscreen.Scored {
			t.Fatal(scan.State, err)
		}
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
		return cfg
	}
	unmark := func(t *testing.T, cfg *config.Server) {
		t.Helper()
		if err := os.Remove(filepath.Join(cfg.BlobDir(), blob.OwnerFile)); err != nil {
			t.Fatal(err)
		}
	}
	another := func(t *testing.T, cfg *config.Server) { cfg.DatabaseURL = config.Secret(pgtest.ConnString(t)) }
	exec := func(t *testing.T, cfg *config.Server, sql string) {
		t.Helper()
		conn, err := pgx.Connect(t.Context(), cfg.DatabaseURL.Reveal())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(t.Context())
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	others := func(t *testing.T, cfg *config.Server) {
		other := settings(t)
		secret, err := os.ReadFile(cfg.SecretFile())
		if err != nil {
			t.Fatal(err)
		}
		other.Secret = config.Secret(strings.TrimSpace(string(secret)))
		if err := start(t, other, fake).stop(); err != nil {
			t.Fatal(err)
		}
		cfg.DatabaseURL = other.DatabaseURL
	}
	for name, c := range map[string]struct {
		change func(*testing.T, *config.Server)
		says   string // empty: it starts
	}{
		"as before":                  {func(*testing.T, *config.Server) {}, ""},
		"an upgrade, not marked yet": {unmark, ""},
		"an empty database":          {another, "belong to deployment"},
		"an empty database, no mark": {func(t *testing.T, c *config.Server) { unmark(t, c); another(t, c) }, "holds files, and the database is new"},
		"another deployment's":       {others, "belong to deployment"},
		"a restore cut short":        {func(t *testing.T, c *config.Server) { mark(t, c, "x restoring"); another(t, c) }, "was not to its end"},
		"a newer program's database": {func(t *testing.T, c *config.Server) {
			exec(t, c, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, true)")
		}, "a newer NeuroScreen"},
		"a mark that nobody can read":  {func(t *testing.T, c *config.Server) { mark(t, c, "") }, "remove it"},
		"an empty folder and database": {func(t *testing.T, c *config.Server) { c.Data = t.TempDir(); another(t, c) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := used(t)
			blobs := cfg.BlobDir()
			before := stored(t, blobs)
			c.change(t, &cfg)
			if c.says == "" {
				start(t, cfg, fake)
			} else if err := run(t, cfg); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v; should say %q", err, c.says)
			}
			if after := stored(t, blobs); after != before || before < 2 {
				t.Errorf("%d blobs, before %d", after, before)
			}
		})
	}
}

// run is for what must not start: it ends all the same.
func run(t *testing.T, cfg config.Server) error {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	return Run(ctx, cfg, Parts{Analyse: fake, Err: io.Discard})
}

func mark(t *testing.T, cfg *config.Server, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(cfg.BlobDir(), blob.OwnerFile), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func stored(t *testing.T, dir string) int {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "??", "??", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

// TestRestoredBesideTheOld: what is restored starts, the old one too, and
// neither with the other's files.
func TestRestoredBesideTheOld(t *testing.T) {
	t.Parallel()
	old, log := settings(t), slog.New(slog.DiscardHandler)
	r := start(t, old, fake)
	if _, _, err := api(t, r, old.Data).Submit(t.Context(), upload(t, 1)); err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	if _, err := Backup(t.Context(), old.Storage, &archive, true, log); err != nil {
		t.Fatal(err)
	}
	restored := old
	restored.Data, restored.DatabaseURL = filepath.Join(t.TempDir(), "new"), config.Secret(pgtest.Empty(t))
	over := restored
	over.Data = old.Data
	if _, err := Restore(t.Context(), over.Storage, bytes.NewReader(archive.Bytes()), log); err == nil || !strings.Contains(err.Error(), "--data") {
		t.Errorf("restored over the files of a deployment that runs: %v", err)
	}
	if _, err := Restore(t.Context(), restored.Storage, bytes.NewReader(archive.Bytes()), log); err != nil {
		t.Fatal(err)
	}
	if err := start(t, restored, fake).stop(); err != nil {
		t.Error(err)
	}
	mixed := restored
	mixed.DatabaseURL = old.DatabaseURL
	if err := run(t, mixed); err == nil || !strings.Contains(err.Error(), "belong to deployment") {
		t.Errorf("the old database with the restored files: %v", err)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	start(t, old, fake)
}
