// Package pgtest gives each test a migrated Postgres database of its own.
//
// The server is the one of TEST_DATABASE_URL (a role that may create
// databases), or a private cluster in the temporary folder, without fsync,
// that all test processes of one user share. The cluster is started when it
// is missing and stops itself within two minutes after the last test process
// ended. A database is a copy of a migrated template, made in some ten
// milliseconds.
package pgtest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"neuroscreen/internal/pgembed"
	"neuroscreen/internal/store"
	"neuroscreen/migrations"
)

// New returns a pool on a fresh, migrated database; both go with the test.
func New(t testing.TB) *pgxpool.Pool {
	t.Helper()
	pool, err := store.OpenPool(context.Background(), ConnString(t), 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// ConnString makes a fresh, migrated database, as New does, for code that
// opens its own connections.
func ConnString(t testing.TB) string {
	t.Helper()
	return create(t, func(s *testServer) string { return s.template })
}

// Empty makes a database without any table, for tests of the migrations.
func Empty(t testing.TB) string {
	t.Helper()
	return create(t, func(*testServer) string { return "template0" })
}

func create(t testing.TB, template func(*testServer) string) string {
	t.Helper()
	srv, err := server()
	if err != nil {
		t.Fatal("pgtest: ", err)
	}
	name := "ns_test_" + strings.ToLower(rand.Text()[:16])
	if err := srv.exec(t.Context(), "CREATE DATABASE "+name+" TEMPLATE "+template(srv)); err != nil {
		t.Fatal("pgtest: ", err)
	}
	t.Cleanup(func() {
		if err := srv.exec(context.Background(), "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			t.Error("pgtest: ", err)
		}
	})
	return srv.connString(name)
}

type testServer struct {
	admin    *pgx.ConnConfig
	url      string // what admin was parsed from
	template string
}

// server is found once per process.
var server = sync.OnceValues(func() (*testServer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	url := os.Getenv("TEST_DATABASE_URL")
	if url == "" {
		var err error
		if url, err = startCluster(ctx); err != nil {
			return nil, err
		}
	}
	admin, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("TEST_DATABASE_URL: %w", err)
	}
	s := &testServer{admin: admin, url: url}
	return s, s.makeTemplate(ctx)
})

// settings trade safety, which a test database does not need, for speed.
var settings = map[string]string{
	"fsync":              "off",
	"synchronous_commit": "off",
	"full_page_writes":   "off",
	"autovacuum":         "off",
	"max_connections":    "300",
}

// cluster is kept for the process's life: collected as garbage, it would lose
// its share, and the reaper would stop the server under the tests.
var cluster *pgembed.Cluster

func startCluster(ctx context.Context) (string, error) {
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("neuroscreen-pgtest-%d", os.Getuid()))
	// Not stopped here: the process's end releases its share, and the reaper
	// stops a cluster that nobody shares.
	var err error
	cluster, err = pgembed.Start(ctx, pgembed.Options{Dir: dir, Settings: settings, Detached: true, StartTimeout: time.Minute})
	if err != nil {
		return "", err
	}
	if cluster.Adopted() {
		return cluster.ConnString(), nil
	}
	reaper := exec.Command("/bin/sh", "-c", reap)
	reaper.Dir = dir
	reaper.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := reaper.Start(); err != nil {
		return "", err
	}
	return cluster.ConnString(), reaper.Process.Release()
}

// reap looks every minute whether any process still shares the cluster, and
// stops it when none does. It takes both locks, so that no test starts
// meanwhile.
const reap = `while sleep 60 && read -r pid <cluster/postmaster.pid; do
	flock start.lock flock --nonblock users.lock sh -c "kill -INT $pid; while kill -0 $pid && [ -e cluster/postmaster.pid ]; do sleep 0.1; done" && exit
done 2>/dev/null`

// makeTemplate migrates a database under another name first, so that the
// template's name always means a whole one. The name follows from all that
// makes the schema.
func (s *testServer) makeTemplate(ctx context.Context) error {
	sum := sha256.New()
	err := fs.WalkDir(migrations.FS, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := migrations.FS.ReadFile(path)
		fmt.Fprintf(sum, "%s %d\n%s", path, len(b), b)
		return err
	})
	if err != nil {
		return err
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, dep := range info.Deps {
			if strings.Contains(dep.Path, "riverqueue") {
				fmt.Fprintln(sum, dep.Path, dep.Version)
			}
		}
	}
	s.template = "ns_template_" + hex.EncodeToString(sum.Sum(nil)[:8])

	conn, err := pgx.ConnectConfig(ctx, s.admin)
	if err != nil {
		return err
	}
	defer conn.Close(ctx) // releases the lock
	if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock(hashtext('neuroscreen pgtest'))"); err != nil {
		return err
	}
	var there bool
	err = conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", s.template).Scan(&there)
	if err != nil || there {
		return err
	}
	fresh := s.template + "_new"
	for _, sql := range []string{"DROP DATABASE IF EXISTS " + fresh + " WITH (FORCE)", "CREATE DATABASE " + fresh + " ENCODING 'UTF8' TEMPLATE template0"} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return err
		}
	}
	pool, err := pgxpool.New(ctx, s.connString(fresh))
	if err != nil {
		return err
	}
	err = migrations.Up(ctx, pool)
	pool.Close()
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, "ALTER DATABASE "+fresh+" RENAME TO "+s.template)
	return err
}

func (s *testServer) exec(ctx context.Context, sql string) error {
	conn, err := pgx.ConnectConfig(ctx, s.admin.Copy())
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, sql)
	return err
}

// connString names another database of the same server.
func (s *testServer) connString(database string) string {
	if strings.HasPrefix(s.url, "postgres://") || strings.HasPrefix(s.url, "postgresql://") {
		head, query, _ := strings.Cut(s.url, "?")
		scheme, rest, _ := strings.Cut(head, "://")
		authority, _, _ := strings.Cut(rest, "/")
		return scheme + "://" + authority + "/" + database + "?" + query
	}
	return s.url + " dbname=" + database // the last one counts
}
