package migrations_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"

	"neuroscreen/internal/pgtest"
	"neuroscreen/migrations"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestUp(t *testing.T) {
	db := pgtest.Empty(t)
	open := func() *pgxpool.Pool {
		t.Helper()
		cfg, err := pgxpool.ParseConfig(db)
		if err != nil {
			t.Fatal(err)
		}
		cfg.MaxConns = 1 // the least that must do
		pool, err := pgxpool.NewWithConfig(context.Background(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		return pool
	}
	pool := open()
	defer pool.Close()

	t.Run("several at once", func(t *testing.T) {
		var wg sync.WaitGroup
		for range 4 {
			own := open()
			defer own.Close()
			wg.Go(func() {
				if err := migrations.Up(context.Background(), own); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		known, have, err := migrations.Version(t.Context(), pool)
		if err != nil || have != known || have == 0 {
			t.Errorf("version %d, known %d, %v", have, known, err)
		}
		for _, table := range []string{"scans", "river_job"} {
			var n int
			if err := pool.QueryRow(t.Context(), "SELECT count(*) FROM "+table).Scan(&n); err != nil || n != 0 {
				t.Errorf("%s: %d rows, %v", table, n, err)
			}
		}
	})
	t.Run("again changes nothing and keeps rows", func(t *testing.T) {
		if _, err := pool.Exec(t.Context(), "INSERT INTO sites (id, name, created_at) VALUES (gen_random_uuid(), 'kept', now())"); err != nil {
			t.Fatal(err)
		}
		if err := migrations.Up(t.Context(), pool); err != nil {
			t.Fatal(err)
		}
		var n int
		if err := pool.QueryRow(t.Context(), "SELECT count(*) FROM sites").Scan(&n); err != nil || n != 1 {
			t.Errorf("%d sites, %v", n, err)
		}
	})
}

// TestNewerIsRefused: what a program does not know of it must not tidy up.
func TestNewerIsRefused(t *testing.T) {
	pool := pgtest.New(t)
	if err := migrations.Check(t.Context(), pool); err != nil {
		t.Error(err)
	}
	if _, err := pool.Exec(t.Context(), "INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, true)"); err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{"up": migrations.Up(t.Context(), pool), "check": migrations.Check(t.Context(), pool)} {
		if !errors.Is(err, migrations.ErrNewer) || !strings.Contains(err.Error(), "version 99999") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSiteOnEveryRow: every table of ours but the two that are about no site
// holds the site, and every primary key of theirs starts with it.
func TestSiteOnEveryRow(t *testing.T) {
	pool := pgtest.New(t)
	rows, err := pool.Query(t.Context(), `
		SELECT c.relname, coalesce((
			SELECT a.attname FROM pg_index i
			JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]
			WHERE i.indrelid = c.oid AND i.indisprimary), '')
		FROM pg_class c
		WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace
		  AND c.relname NOT LIKE 'river%' AND c.relname NOT IN ('goose_db_version', 'deployment', 'sites')`)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for rows.Next() {
		var table, first string
		if err := rows.Scan(&table, &first); err != nil {
			t.Fatal(err)
		}
		if n++; first != "site_id" {
			t.Errorf("the primary key of %s starts with %q", table, first)
		}
	}
	if err := rows.Err(); err != nil || n < 10 {
		t.Errorf("%d tables, %v", n, err)
	}
}
