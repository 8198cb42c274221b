// Package faults runs the real programs and breaks things under them: server,
// workers and Postgres are killed, connections are cut, slowed and left half
// open, disks fill up. Meanwhile clients hand over scans and try again as
// clients do; afterwards every scan that was accepted is looked for.
//
// Everything happens on 127.0.0.1 and under one folder, and ends by itself.
package faults

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"neuroscreen/internal/client"
	"neuroscreen/internal/pgembed"
	"neuroscreen/internal/store"
)

// rig is a deployment whose every connection and process can be broken.
type rig struct {
	opts  Options
	dir   string
	pool  *pgxpool.Pool // to Postgres itself, past the proxy
	api   *client.API   // through the proxy before the server
	key   string
	head  []byte
	mount []string // what was mounted

	hits      atomic.Int32 // of faults that wait for a scan's state
	disturbed atomic.Int32 // requests that had to be sent again

	mu       sync.Mutex
	cluster  *pgembed.Cluster
	database *toxiproxy.Proxy // between server, workers and Postgres
	web      *toxiproxy.Proxy // between clients and server
	relay    net.Listener
	procs    map[string]*process // server, worker1, worker2
}

// process is kept running, as a service manager would.
type process struct {
	mu      sync.Mutex
	cmd     *exec.Cmd
	stopped bool
	done    chan struct{}
	starts  int
}

const leaseForRig = 5 * time.Second

func newRig(ctx context.Context, dir string, opts Options) (r *rig, err error) {
	r = &rig{opts: opts, dir: dir, procs: map[string]*process{}}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	zerolog.SetGlobalLevel(zerolog.Disabled) // toxics trace to the global logger
	if opts.Head != "" {
		if r.head, err = os.ReadFile(opts.Head); err != nil {
			return nil, err
		}
	}
	for _, part := range []string{"blobs", "database"} {
		if err := r.smallDisk(part); err != nil {
			return nil, err
		}
	}
	if err := r.startPostgres(ctx); err != nil {
		return nil, err
	}
	config, err := pgx.ParseConfig(r.cluster.ConnString())
	if err != nil {
		return nil, err
	}
	if r.pool, err = store.OpenPool(ctx, r.cluster.ConnString(), 0); err != nil {
		return nil, err
	}
	// Toxiproxy speaks TCP; Postgres listens on a socket in the file system.
	if r.relay, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, err
	}
	go forward(r.relay, filepath.Join(config.Host, fmt.Sprintf(".s.PGSQL.%d", config.Port)))

	toxi := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(prometheus.NewRegistry()), zerolog.Nop())
	r.database = toxiproxy.NewProxy(toxi, "database", "127.0.0.1:0", r.relay.Addr().String())
	if err := r.database.Start(); err != nil {
		return nil, err
	}
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	r.web = toxiproxy.NewProxy(toxi, "web", "127.0.0.1:0", address)
	if err := r.web.Start(); err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(r.database.Listen)
	if err != nil {
		return nil, err
	}
	url := fmt.Sprintf("postgres://%s:%s@127.0.0.1:%s/%s?sslmode=disable", config.User, config.Password, port, config.Database)
	common := []string{"--data", filepath.Join(dir, "data"), "--lease", leaseForRig.String(), "--body-idle", "5s"}
	r.run("server", url, append(common, "--role", "api", "--listen", address)...)
	r.run("worker1", url, append(common, "--role", "worker")...)
	r.run("worker2", url, append(common, "--role", "worker")...)
	return r, r.connect(ctx)
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// forward copies each TCP connection to and from the socket until the listener
// closes.
func forward(l net.Listener, socket string) {
	for {
		in, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer in.Close()
			out, err := net.Dial("unix", socket)
			if err != nil {
				return
			}
			defer out.Close()
			go func() {
				io.Copy(out, in)
				out.Close()
			}()
			io.Copy(in, out)
		}()
	}
}

// run starts a program and starts it again whenever it ends.
func (r *rig) run(name, url string, args ...string) {
	p := &process{done: make(chan struct{})}
	r.procs[name] = p
	log, err := os.OpenFile(filepath.Join(r.dir, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		close(p.done)
		return // connect fails and says so
	}
	go func() {
		defer close(p.done)
		defer log.Close()
		for {
			p.mu.Lock()
			if p.stopped {
				p.mu.Unlock()
				return
			}
			p.cmd = exec.Command(r.opts.Server, args...)
			p.cmd.Env = append(os.Environ(), "DATABASE_URL="+url)
			p.cmd.Stdout, p.cmd.Stderr = log, log
			err := p.cmd.Start()
			p.starts++
			p.mu.Unlock()
			if err == nil {
				p.cmd.Wait()
			}
			time.Sleep(100 * time.Millisecond)
		}
	}()
}

func (p *process) signal(s syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil && p.cmd.Process != nil {
		p.cmd.Process.Signal(s)
	}
}

func (p *process) stop() {
	p.mu.Lock()
	p.stopped = true
	p.mu.Unlock()
	p.signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(30 * time.Second):
		p.signal(syscall.SIGKILL)
		<-p.done
	}
}

func (r *rig) kill(name string) { r.procs[name].signal(syscall.SIGKILL) }

// connect waits until the server answers, and makes the client.
func (r *rig) connect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		if b, err := os.ReadFile(filepath.Join(r.dir, "data", "admin.key")); err == nil {
			r.key = strings.TrimSpace(string(b))
			if r.api, err = r.client(); err != nil {
				return err
			}
			if res, err := r.api.GetReadinessWithResponse(ctx); err == nil && res.StatusCode() == http.StatusOK {
				return nil
			}
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return fmt.Errorf("faults: the service does not become ready; its logs are in %s: %w", r.dir, err)
		}
	}
}

// client tries again sooner than one that is patient, and gives up on an
// answer that does not come.
func (r *rig) client() (*client.API, error) {
	transport := &http.Transport{MaxIdleConnsPerHost: 16, ResponseHeaderTimeout: 20 * time.Second}
	api, err := client.New("http://"+r.web.Listen, r.key, &http.Client{Transport: counting{transport, &r.disturbed}, Timeout: time.Minute})
	if err != nil {
		return nil, err
	}
	api.Pause = func(ctx context.Context, _ time.Duration) error { return sleep(ctx, 200*time.Millisecond) }
	return api, nil
}

// counting counts requests that ended in a broken connection or an answer of
// 408, 429 or 5xx: those that a client sends again.
type counting struct {
	http.RoundTripper
	n *atomic.Int32
}

func (c counting) RoundTrip(req *http.Request) (*http.Response, error) {
	res, err := c.RoundTripper.RoundTrip(req)
	if err != nil || res.StatusCode >= 500 || res.StatusCode == http.StatusRequestTimeout || res.StatusCode == http.StatusTooManyRequests {
		c.n.Add(1)
	}
	return res, err
}

func (r *rig) startPostgres(ctx context.Context) error {
	c, err := pgembed.Start(ctx, pgembed.Options{Dir: filepath.Join(r.dir, "database", "postgres"),
		Settings: map[string]string{"max_wal_size": "64MB", "min_wal_size": "32MB", "wal_recycle": "off"}})
	if err != nil {
		return err
	}
	r.mu.Lock()
	r.cluster = c
	r.mu.Unlock()
	return nil
}

// endPostgres by a signal: SIGKILL as a machine would, SIGINT as an
// administrator.
func (r *rig) endPostgres(ctx context.Context, s syscall.Signal) error {
	b, err := os.ReadFile(filepath.Join(r.dir, "database", "postgres", "cluster", "postmaster.pid"))
	if err == nil {
		line, _, _ := strings.Cut(string(b), "\n")
		pid, err := strconv.Atoi(strings.TrimSpace(line))
		if err != nil || pid < 2 {
			return fmt.Errorf("faults: postmaster.pid holds %q", line)
		}
		if err := syscall.Kill(pid, s); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
	}
	return r.cluster.Stop(ctx) // waits until it is gone, and lets go of it
}

// toxic spoils a proxy's connections until the returned function is called.
func toxic(p *toxiproxy.Proxy, json string) (heal func(), err error) {
	wrapper, err := p.Toxics.AddToxicJson(bytes.NewBufferString(json))
	if err != nil {
		return nil, fmt.Errorf("faults: toxic %s: %w", json, err)
	}
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		p.Toxics.RemoveToxic(ctx, wrapper.Name)
	}, nil
}

// smallDisk puts a part of the deployment on a file system of its own that
// can be filled up; without the right to mount it stays where it is, and
// faults that need it are left out.
func (r *rig) smallDisk(part string) error {
	dir := r.disk(part)
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return err
	}
	if err := syscall.Mount("neuroscreen-faults", dir, "tmpfs", 0, "size=512m,mode=0711"); err != nil {
		r.opts.Log("no file system of a fixed size for %s (%v): a full disk is not tried", part, err)
		return nil
	}
	r.mount = append(r.mount, dir)
	return nil
}

func (r *rig) disk(part string) string {
	if part == "blobs" {
		return filepath.Join(r.dir, "data", "blobs")
	}
	return filepath.Join(r.dir, part)
}

var errNoSmallDisk = errors.New("not tried: it needs the right to mount a file system")

// fill leaves next to nothing of a part's disk.
func (r *rig) fill(part string) (free func() error, err error) {
	dir := r.disk(part)
	mounted := false
	for _, m := range r.mount {
		mounted = mounted || m == dir
	}
	if !mounted {
		return nil, errNoSmallDisk
	}
	ballast := filepath.Join(dir, "ballast")
	f, err := os.Create(ballast)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// Others write meanwhile: piece by piece, smaller towards the end.
	var size int64
	for _, piece := range []int64{8 << 20, 128 << 10, 4 << 10} {
		for {
			if err = syscall.Fallocate(int(f.Fd()), 0, size, piece); err != nil {
				break
			}
			size += piece
		}
	}
	if !errors.Is(err, syscall.ENOSPC) {
		return nil, errors.Join(err, os.Remove(ballast))
	}
	return func() error { return os.Remove(ballast) }, nil
}

func (r *rig) close() {
	for _, name := range []string{"worker1", "worker2", "server"} {
		if p := r.procs[name]; p != nil {
			p.stop()
		}
	}
	if r.pool != nil {
		r.pool.Close()
	}
	for _, p := range []*toxiproxy.Proxy{r.web, r.database} {
		if p != nil {
			p.Stop()
		}
	}
	if r.relay != nil {
		r.relay.Close()
	}
	if r.cluster != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := r.cluster.Stop(ctx); err != nil {
			r.opts.Log("%v", err)
		}
	}
	for _, m := range r.mount {
		if err := syscall.Unmount(m, syscall.MNT_DETACH); err != nil {
			r.opts.Log("unmount %s: %v", m, err)
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
