package pgembed

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"
)

const helperDir = "PGEMBED_TEST_HELPER_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(helperDir); dir != "" {
		helper(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

// helper is a service that starts the cluster, says so, and waits to be killed.
func helper(dir string) {
	if _, err := Start(context.Background(), Options{Dir: dir, Settings: fast}); err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	fmt.Println("ready")
	select {}
}

var fast = map[string]string{"fsync": "off"}

// publicDir is a temporary folder that other users may pass through, which
// t.TempDir is not.
func publicDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pgembed")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func start1(t *testing.T, dir string) *Cluster {
	t.Helper()
	c, err := Start(t.Context(), Options{Dir: dir, Settings: fast})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return c
}

func query(t *testing.T, c *Cluster, sql string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), c.ConnString())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	var s string
	if err := conn.QueryRow(t.Context(), sql).Scan(&s); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return s
}

func pid(t *testing.T, c *Cluster) int {
	t.Helper()
	pm, ok := readPostmaster(c.data())
	if !ok {
		t.Fatal("no postmaster.pid")
	}
	return pm.pid
}

func TestLifecycle(t *testing.T) {
	dir := filepath.Join(publicDir(t), "postgres")
	c := start1(t, dir)
	stop := func(c *Cluster) {
		t.Helper()
		if err := c.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}

	t.Run("the cluster is what was promised", func(t *testing.T) {
		for sql, want := range map[string]string{
			"SHOW listen_addresses":    "",
			"SHOW data_checksums":      "on",
			"SHOW server_encoding":     "UTF8",
			"SHOW lc_collate":          "C",
			"SHOW password_encryption": "scram-sha-256",
			"SELECT string_agg(DISTINCT auth_method, ',') FROM pg_hba_file_rules": "scram-sha-256",
		} {
			if got := query(t, c, sql); got != want {
				t.Errorf("%s: %q, want %q", sql, got, want)
			}
		}
		info, err := os.Stat(filepath.Join(dir, "secret"))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("secret: %v %v", info.Mode(), err)
		}
		bad := strings.Replace(c.ConnString(), c.secret, "wrong", 1)
		if conn, err := pgx.Connect(t.Context(), bad); err == nil {
			conn.Close(t.Context())
			t.Error("a wrong password connects")
		}
	})

	first := pid(t, c)
	t.Run("a second user joins and the last one stops it", func(t *testing.T) {
		c2 := start1(t, dir)
		if !c2.Adopted() || pid(t, c2) != first {
			t.Errorf("adopted %v, process %d, want %d", c2.Adopted(), pid(t, c2), first)
		}
		stop(c)
		if got := query(t, c2, "SELECT 'still here'"); got != "still here" {
			t.Error(got)
		}
		stop(c2)
		stop(c2)
		if _, ok := readPostmaster(c2.data()); ok {
			t.Error("Postgres runs though nobody uses it")
		}
	})

	t.Run("a killed service's postmaster is adopted", func(t *testing.T) {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), helperDir+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		line, _ := bufio.NewReader(out).ReadString('\n')
		cmd.Process.Kill()
		cmd.Wait()
		if line != "ready\n" {
			t.Fatal(line)
		}
		c3 := start1(t, dir)
		if !c3.Adopted() {
			t.Error("not adopted")
		}
		query(t, c3, "SELECT 'works'")

		// Then the postmaster itself is killed: the next start recovers.
		if err := syscall.Kill(pid(t, c3), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		select {
		case <-c3.Exited():
		case <-time.After(time.Minute):
			t.Error("nobody notices")
		}
		stop(c3)
		c4 := start1(t, dir)
		if c4.Adopted() {
			t.Error("adopted a dead postmaster")
		}
		query(t, c4, "SELECT 'works'")
		stop(c4)
		if pm, ok := readPostmaster(c4.data()); ok {
			t.Errorf("process %d still runs", pm.pid)
		}
	})

	t.Run("a stale file with somebody else's number is no obstacle", func(t *testing.T) {
		path := filepath.Join(dir, "cluster", "postmaster.pid")
		// This test's own number, as after a reboot.
		content := fmt.Sprintf("%d\n%s\n1\n5432\n%s\n\n\nready\n", os.Getpid(), filepath.Join(dir, "cluster"), filepath.Join(dir, "run"))
		owner, err := databaseAccount()
		if err != nil {
			t.Fatal(err)
		}
		if err := owner.write(path, content); err != nil {
			t.Fatal(err)
		}
		c5 := start1(t, dir)
		if c5.Adopted() {
			t.Error("adopted this very process")
		}
		stop(c5)
	})

	t.Run("another password is named as the cause", func(t *testing.T) {
		path := filepath.Join(dir, "secret")
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		os.WriteFile(path, []byte("other\n"), 0o600)
		defer os.WriteFile(path, good, 0o600)
		_, err = Start(t.Context(), Options{Dir: dir, Settings: fast})
		if err == nil || !strings.Contains(err.Error(), "backup") {
			t.Errorf("got %v", err)
		}
	})
}

func TestLongPathGetsShortSocket(t *testing.T) {
	dir := filepath.Join(publicDir(t), strings.Repeat("x", 100), "postgres")
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	c := start1(t, dir)
	t.Cleanup(func() { os.RemoveAll(c.host) })
	if n := len(filepath.Join(c.host, ".s.PGSQL."+port)); n > maxSocketPath {
		t.Errorf("socket path has %d bytes", n)
	}
	query(t, c, "SELECT 'works'")
}

func TestFindBinaries(t *testing.T) {
	bins := t.TempDir()
	for _, v := range []string{"13", "15", "9"} {
		dir := filepath.Join(bins, v, "bin")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"initdb", "postgres"} {
			if err := os.WriteFile(filepath.Join(dir, name), nil, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	patterns := []string{filepath.Join(bins, "*", "bin")}
	for name, c := range map[string]struct {
		cluster  string // PG_VERSION, "" for none
		patterns []string
		want     string // of the path
		err      string
	}{
		"newest for a new cluster":         {"", patterns, "15/bin", ""},
		"the cluster's own":                {"13\n", patterns, "13/bin", ""},
		"another major version is refused": {"12\n", patterns, "", "apt-get install postgresql-12"},
		"none installed":                   {"", []string{filepath.Join(bins, "none")}, "", "apt-get install postgresql"},
		"cluster but none installed":       {"14\n", []string{filepath.Join(bins, "none")}, "", "installed is none"},
		"not a version":                    {"abc\n", patterns, "", "not a version number"},
	} {
		t.Run(name, func(t *testing.T) {
			data := t.TempDir()
			if c.cluster != "" {
				if err := os.WriteFile(filepath.Join(data, "PG_VERSION"), []byte(c.cluster), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got, err := findBinaries(data, c.patterns)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("error %v, want one with %q", err, c.err)
				}
				return
			}
			if err != nil || !strings.HasSuffix(got, c.want) {
				t.Errorf("got %s %v, want %s", got, err, c.want)
			}
		})
	}
}

func TestTraversable(t *testing.T) {
	dir := publicDir(t)
	closed := filepath.Join(dir, "closed")
	if err := os.MkdirAll(filepath.Join(closed, "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := traversable(filepath.Join(closed, "data")); err == nil || !strings.Contains(err.Error(), "chmod o+x "+closed) {
		t.Errorf("got %v", err)
	}
	if err := traversable(closed); err != nil {
		t.Error(err)
	}
}

func TestStartGivesUpInTime(t *testing.T) {
	dir := publicDir(t)
	held, err := lockFile(t.Context(), filepath.Join(dir, "start.lock"), syscall.LOCK_EX)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	_, err = Start(t.Context(), Options{Dir: dir, StartTimeout: 50 * time.Millisecond})
	if err == nil || !strings.Contains(err.Error(), "start.lock is locked") {
		t.Errorf("got %v", err)
	}
}
