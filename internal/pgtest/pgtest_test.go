package pgtest

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestNewGivesSeparateMigratedDatabases(t *testing.T) {
	a, b := New(t), New(t)
	if _, err := a.Exec(t.Context(), "INSERT INTO sites (id, name, created_at) VALUES (gen_random_uuid(), 'one', now())"); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		pool *pgxpool.Pool
		want int
	}{"first": {a, 1}, "second": {b, 0}} {
		var n int
		if err := c.pool.QueryRow(t.Context(), "SELECT count(*) FROM sites, (SELECT count(*) FROM river_job) j").Scan(&n); err != nil {
			t.Fatal(err)
		}
		if n != c.want {
			t.Errorf("%s: %d sites, want %d", name, n, c.want)
		}
	}
}

func TestDatabaseGoesWithItsTest(t *testing.T) {
	var name string
	t.Run("a test", func(t *testing.T) {
		if err := New(t).QueryRow(t.Context(), "SELECT current_database()").Scan(&name); err != nil {
			t.Fatal(err)
		}
	})
	var there bool
	if err := New(t).QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", name).Scan(&there); err != nil {
		t.Fatal(err)
	}
	if there || !strings.HasPrefix(name, "ns_test_") {
		t.Errorf("database %q still there: %v", name, there)
	}
}

func TestConnStringNamesAnotherDatabase(t *testing.T) {
	for url, want := range map[string]string{
		"postgres://u:p@h:1/postgres?sslmode=disable": "postgres://u:p@h:1/x?sslmode=disable",
		"postgresql://h":               "postgresql://h/x?",
		"host=/run user=u dbname=main": "host=/run user=u dbname=main dbname=x",
	} {
		s := &testServer{url: url}
		if got := s.connString("x"); got != want {
			t.Errorf("%s: got %s, want %s", url, got, want)
		}
	}
}

func BenchmarkNew(b *testing.B) {
	for b.Loop() {
		ConnString(b)
	}
}
