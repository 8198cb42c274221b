// Package pgembed runs a private, real Postgres cluster under a data folder
// from the binaries that the system's packages installed.
//
// Layout of the folder given to Start:
//
//	cluster/      Postgres' own data directory
//	run/          its socket, when the path is short enough for one
//	secret        password of its only role, mode 0600
//	postgres.log  what Postgres says
//	start.lock    held while somebody starts or stops the cluster
//	users.lock    held, shared, by every process that uses the cluster
//
// The cluster listens on a Unix socket only and asks for a SCRAM password even
// there. Postgres refuses to run as root, so as root it is started as another
// user. Several processes may share a cluster: the last to leave stops it. A
// process that is killed leaves Postgres running, and the next one adopts it.
package pgembed

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"neuroscreen/internal/durable"
)

const (
	role     = "neuroscreen"
	database = "neuroscreen"
	// port only names the socket file: there is no TCP.
	port = "5432"
)

// Options of a cluster.
type Options struct {
	// Dir holds the cluster; made when missing.
	Dir string
	// Settings are added to postgresql.conf at each start, e.g. fsync=off
	// for tests.
	Settings map[string]string
	// Detached starts Postgres as nobody's child, for short-lived processes
	// that share a cluster and leave it running.
	Detached bool
	// StartTimeout bounds initdb, start and crash recovery; 2 minutes when 0.
	StartTimeout time.Duration

	// binDirs is where tests look for other binaries.
	binDirs []string
}

// Cluster is a running cluster that this process uses.
type Cluster struct {
	opts    Options
	host    string // folder of the socket
	secret  string
	owner   account
	users   *os.File      // shared lock
	exited  chan struct{} // closed when the postmaster is gone
	stopped chan struct{} // closed by Stop
	watched func()        // begins to watch an adopted postmaster
	adopted bool
}

// Start makes the cluster when it is missing, and starts it or joins the one
// that is running. Errors say what to do about them.
func Start(ctx context.Context, opts Options) (*Cluster, error) {
	c, err := start(ctx, opts)
	if err != nil {
		return nil, fmt.Errorf("embedded Postgres: %w", err)
	}
	return c, nil
}

func start(ctx context.Context, opts Options) (*Cluster, error) {
	if opts.StartTimeout == 0 {
		opts.StartTimeout = 2 * time.Minute
	}
	dir, err := filepath.Abs(opts.Dir)
	if err != nil {
		return nil, err
	}
	opts.Dir = dir
	ctx, cancel := context.WithTimeout(ctx, opts.StartTimeout)
	defer cancel()

	owner, err := databaseAccount()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if owner.other {
		// The other user passes through to cluster/ and run/, and reads nothing here.
		if err := os.Chmod(dir, 0o711); err != nil {
			return nil, err
		}
		if err := traversable(dir); err != nil {
			return nil, err
		}
	}

	lock, err := lockFile(ctx, filepath.Join(dir, "start.lock"), syscall.LOCK_EX)
	if err != nil {
		return nil, err
	}
	defer lock.Close()

	c := &Cluster{opts: opts, owner: owner, stopped: make(chan struct{})}
	bin, err := findBinaries(c.data(), opts.binDirs)
	if err != nil {
		return nil, err
	}
	if c.secret, err = loadSecret(filepath.Join(dir, "secret")); err != nil {
		return nil, err
	}
	if c.users, err = lockFile(ctx, filepath.Join(dir, "users.lock"), syscall.LOCK_SH); err != nil {
		return nil, err
	}
	if err := c.run(ctx, bin); err != nil {
		c.users.Close()
		return nil, err
	}
	return c, nil
}

// run adopts a living postmaster or starts one.
func (c *Cluster) run(ctx context.Context, bin string) error {
	if _, err := os.Stat(c.data()); errors.Is(err, fs.ErrNotExist) {
		if err := c.initialise(ctx, bin); err != nil {
			return err
		}
	}
	if pm, ok := readPostmaster(c.data()); ok && pm.alive() {
		c.host = pm.socketDir
		err := c.ready(ctx, pm.alive)
		if err == nil {
			c.adopted, c.exited = true, make(chan struct{})
			c.watched = sync.OnceFunc(func() { go c.watch(pm) })
			return nil
		}
		if pm.alive() {
			return fmt.Errorf("a Postgres server (process %d) holds %s but cannot be used: %w; stop that process and start again", pm.pid, c.data(), err)
		}
		// It was on its way out.
	}
	if err := c.clearStale(ctx); err != nil {
		return err
	}
	for {
		err := c.launch(ctx, bin)
		// A killed postmaster's children take a moment to notice.
		if err == nil || ctx.Err() != nil || !strings.Contains(err.Error(), "pre-existing shared memory block") {
			return err
		}
	}
}

func (c *Cluster) data() string    { return filepath.Join(c.opts.Dir, "cluster") }
func (c *Cluster) logPath() string { return filepath.Join(c.opts.Dir, "postgres.log") }

// Adopted says that Postgres was already running.
func (c *Cluster) Adopted() bool { return c.adopted }

// Exited is closed when the Postgres server is gone, whatever the cause.
func (c *Cluster) Exited() <-chan struct{} {
	if c.adopted {
		c.watched()
	}
	return c.exited
}

// ConnString for pgx; it holds the secret.
func (c *Cluster) ConnString() string { return c.connString(database) }

func (c *Cluster) connString(db string) string {
	return fmt.Sprintf("host='%s' port=%s user=%s password=%s dbname=%s sslmode=disable",
		strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(c.host), port, role, c.secret, db)
}

// initialise runs initdb in a folder beside and renames it when it is whole,
// so that a cluster folder is never half made.
func (c *Cluster) initialise(ctx context.Context, bin string) error {
	fresh := c.data() + ".new"
	if err := os.RemoveAll(fresh); err != nil { // of a start that was cut off
		return err
	}
	if err := c.owner.mkdir(fresh); err != nil {
		return err
	}
	pw := filepath.Join(fresh, "pw")
	if err := c.owner.write(pw, c.secret+"\n"); err != nil {
		return err
	}
	pgdata := filepath.Join(fresh, "data")
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "initdb"),
		"--pgdata="+pgdata, "--username="+role, "--pwfile="+pw,
		"--auth-local=scram-sha-256", "--auth-host=scram-sha-256",
		"--encoding=UTF8", "--locale=C", "--data-checksums")
	cmd.Dir = fresh
	cmd.Env = environment()
	cmd.SysProcAttr = c.owner.sysProcAttr()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, tail(string(out)))
	}
	if err := c.owner.write(filepath.Join(pgdata, "pg_hba.conf"),
		"# The socket only, and never without the password.\nlocal all "+role+" scram-sha-256\n"); err != nil {
		return err
	}
	if err := os.Rename(pgdata, c.data()); err != nil {
		return err
	}
	return os.RemoveAll(fresh)
}

// launch starts the postmaster in its own session, so that neither a terminal's
// Ctrl-C nor the death of this process takes it down, and waits for it.
func (c *Cluster) launch(ctx context.Context, bin string) error {
	var err error
	if c.host, err = c.socketDir(); err != nil {
		return err
	}
	if info, err := os.Stat(c.logPath()); err == nil && info.Size() > 10<<20 {
		os.Rename(c.logPath(), c.logPath()+".1")
	}
	log, err := os.OpenFile(c.logPath(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	from, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}

	args := []string{"-D", c.data()}
	for name, value := range c.settings() {
		args = append(args, "-c", name+"="+value)
	}
	cmd := exec.Command(filepath.Join(bin, "postgres"), args...)
	cmd.Dir = c.data()
	cmd.Env = environment()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = c.owner.sysProcAttr()
	cmd.SysProcAttr.Setsid = true
	if c.opts.Detached {
		return c.launchDetached(ctx, cmd, from)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	exited := make(chan struct{})
	go func() {
		cmd.Wait() // reaps the child; how it ended is in the log
		close(exited)
	}()
	alive := func() bool {
		select {
		case <-exited:
			return false
		default:
			return true
		}
	}
	if err := c.ready(ctx, alive); err != nil {
		if alive() {
			cmd.Process.Signal(syscall.SIGQUIT) // immediate stop; the next start recovers
			<-exited
		}
		return c.withLog(err, from)
	}
	c.exited = exited
	return nil
}

// launchDetached has a shell start it in the background and exit.
func (c *Cluster) launchDetached(ctx context.Context, cmd *exec.Cmd, from int64) error {
	cmd.Args = append([]string{"sh", "-c", `"$@" &`, "sh", cmd.Path}, cmd.Args[1:]...)
	cmd.Path = "/bin/sh"
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("start Postgres: %w", err)
	}
	seen := false
	alive := func() bool {
		pm, ok := readPostmaster(c.data())
		now := ok && pm.alive()
		seen = seen || now
		return now || !seen
	}
	if err := c.ready(ctx, alive); err != nil {
		return c.withLog(err, from)
	}
	return nil
}

func (c *Cluster) withLog(err error, from int64) error {
	return fmt.Errorf("%w; Postgres said (%s):\n%s", err, c.logPath(), tailFrom(c.logPath(), from))
}

func (c *Cluster) settings() map[string]string {
	s := map[string]string{
		"listen_addresses":        "",
		"port":                    port,
		"unix_socket_directories": c.host,
		"unix_socket_permissions": "0700",
		"password_encryption":     "scram-sha-256",
		"max_connections":         "100",
		"timezone":                "UTC",
		// The log never shows a value of a row or a parameter.
		"log_error_verbosity":               "terse",
		"log_min_error_statement":           "panic",
		"log_parameter_max_length":          "0",
		"log_parameter_max_length_on_error": "0",
	}
	for k, v := range c.opts.Settings {
		s[k] = v
	}
	return s
}

// ready connects until it works, making the service's database the first
// time. It gives up when alive says no or ctx ends.
func (c *Cluster) ready(ctx context.Context, alive func() bool) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := c.tryConnect(ctx)
		if err == nil {
			return nil
		}
		if pg, ok := errors.AsType[*pgconn.PgError](err); ok && pg.Code == "28P01" {
			return fmt.Errorf("the password in %s is not the cluster's: put back the right file from a backup", filepath.Join(c.opts.Dir, "secret"))
		}
		if !alive() {
			return fmt.Errorf("the server stopped: %w", err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("no connection in time: %w", err)
		case <-tick.C:
		}
	}
}

func (c *Cluster) tryConnect(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, c.connString("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	var dir string
	if err := conn.QueryRow(ctx, "SHOW data_directory").Scan(&dir); err != nil {
		return err
	}
	if !sameFile(dir, c.data()) {
		return fmt.Errorf("the server behind %s serves %s", c.host, dir)
	}
	var there bool
	err = conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", database).Scan(&there)
	if err != nil || there {
		return err
	}
	_, err = conn.Exec(ctx, "CREATE DATABASE "+database)
	return err
}

// Stop leaves the cluster and stops Postgres if nobody else uses it, waiting
// until it is gone or ctx ends. Stopping twice is no error.
func (c *Cluster) Stop(ctx context.Context) error {
	if c.users == nil {
		return nil
	}
	lock, err := lockFile(ctx, filepath.Join(c.opts.Dir, "start.lock"), syscall.LOCK_EX)
	if err != nil {
		return fmt.Errorf("embedded Postgres: stop: %w", err)
	}
	defer lock.Close()
	alone := syscall.Flock(int(c.users.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil
	c.users.Close()
	c.users = nil
	close(c.stopped)
	if !alone {
		return nil
	}
	if c.adopted {
		return stopCluster(ctx, c.data(), nil)
	}
	return stopCluster(ctx, c.data(), c.exited)
}

// watch notices the end of an adopted postmaster, which no parent waits for.
func (c *Cluster) watch(pm postmaster) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for pm.alive() {
		select {
		case <-c.stopped:
			return
		case <-tick.C:
		}
	}
	close(c.exited)
}

// stopCluster asks for a fast shutdown: connections are cut, data are flushed.
func stopCluster(ctx context.Context, data string, exited <-chan struct{}) error {
	pm, ok := readPostmaster(data)
	if !ok || !pm.alive() {
		if exited != nil {
			<-exited
		}
		return nil
	}
	if err := syscall.Kill(pm.pid, syscall.SIGINT); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("embedded Postgres: stop process %d: %w", pm.pid, err)
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		// An adopted postmaster is not our child and may stay a zombie for
		// lack of a parent that waits; removing its file is its last act.
		if now, ok := readPostmaster(data); !ok || now.pid != pm.pid || !pm.alive() {
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("embedded Postgres: process %d is still stopping: %w", pm.pid, ctx.Err())
		case <-tick.C:
		}
	}
	if exited != nil {
		<-exited
	}
	return nil
}

// postmaster is what postmaster.pid tells.
type postmaster struct {
	pid       int
	data      string
	socketDir string
}

func readPostmaster(data string) (postmaster, bool) {
	b, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
	if err != nil {
		return postmaster{}, false
	}
	// Lines: pid, data directory, start time, port, socket directory, ...
	lines := strings.Split(string(b), "\n")
	if len(lines) < 5 {
		return postmaster{}, false
	}
	pid, err := strconv.Atoi(strings.TrimSpace(lines[0]))
	if err != nil || pid <= 1 {
		return postmaster{}, false
	}
	return postmaster{pid: pid, data: data, socketDir: strings.TrimSpace(lines[4])}, true
}

// clearStale removes the lock files of a postmaster that is gone but whose
// number looks taken: a zombie that nobody reaps (containers without an init),
// or another process after a reboot. Postgres would refuse to start. Its rule
// is kept: not while a child of the old postmaster may still write. All of
// them work in the data directory; wait until none is left.
func (c *Cluster) clearStale(ctx context.Context) error {
	pm, ok := readPostmaster(c.data())
	if !ok || syscall.Kill(pm.pid, 0) != nil {
		return nil // Postgres clears this itself
	}
	if syscall.Flock(int(c.users.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		return nil // somebody uses it whom we cannot see; let Postgres decide
	}
	defer syscall.Flock(int(c.users.Fd()), syscall.LOCK_SH)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		busy, err := workingIn(c.data())
		if err != nil {
			return nil // no /proc: let Postgres decide
		}
		if !busy {
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("processes of the last Postgres server still work in %s: %w", c.data(), ctx.Err())
		case <-tick.C:
		}
	}
	for _, path := range []string{filepath.Join(pm.socketDir, ".s.PGSQL."+port+".lock"), filepath.Join(c.data(), "postmaster.pid")} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// workingIn says whether a process has the folder as its working directory.
func workingIn(dir string) (bool, error) {
	links, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil || len(links) == 0 {
		return false, errors.Join(err, fs.ErrNotExist)
	}
	for _, cwd := range links {
		if sameFile(cwd, dir) {
			return true, nil
		}
	}
	return false, nil
}

// alive says whether the process lives and is this cluster's postmaster, which
// works in the data directory: after a reboot the number in a file left behind
// may be anybody's. A zombie has no working directory.
func (p postmaster) alive() bool {
	if err := syscall.Kill(p.pid, 0); err != nil && !errors.Is(err, syscall.EPERM) {
		return false
	}
	cwd := fmt.Sprintf("/proc/%d/cwd", p.pid)
	if _, err := os.Readlink(cwd); errors.Is(err, fs.ErrPermission) {
		return true // not ours to see; connecting will tell
	}
	return sameFile(cwd, p.data)
}

func sameFile(a, b string) bool {
	x, err1 := os.Stat(a)
	y, err2 := os.Stat(b)
	return err1 == nil && err2 == nil && os.SameFile(x, y)
}

// loadSecret reads the password, or makes it: letters and digits only, so
// that it needs no quoting.
func loadSecret(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err == nil {
		if s := strings.TrimSpace(string(b)); s != "" {
			return s, nil
		}
		return "", fmt.Errorf("%s is empty: restore it from a backup, it is the database's password", path)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	secret := rand.Text()
	return secret, durable.WriteNew(path, secret+"\n") // a cluster must never outlive its password
}

// lockFile opens the file and takes the lock, polling so that ctx can end the
// wait. Closing the file releases the lock, as does the process's death.
func lockFile(ctx context.Context, path string, how int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("%s is locked by another process that starts or stops the cluster: %w", path, ctx.Err())
		case <-tick.C:
		}
	}
}

// environment without PG* variables, which would change what the binaries do.
func environment() []string {
	return []string{"PATH=/usr/bin:/bin", "LC_ALL=C", "TZ=UTC"}
}

func tail(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}

func tailFrom(path string, offset int64) string {
	f, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	f.Seek(offset, io.SeekStart)
	b, _ := io.ReadAll(io.LimitReader(f, 1<<20))
	return tail(string(b))
}
