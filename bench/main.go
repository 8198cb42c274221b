// Command bench measures what a user waits for and prints it as JSON lines:
//
//	analyze   the command line from a cold start: seconds by stage, peak memory
//	post      posted bytes to scored on a running service: seconds, peak memory
//	uploads   50 clients hand over 10 MB each at the same time, again and again,
//	          while the worklist is read: seconds until a scan is durable
//	machine   multiply-adds and memory traffic that the processor is capable of
//	network   one pass of each network, and its share of that; everything the
//	          networks do for the scan
//
// With -endurance N it posts the scan N times instead, and prints what the
// service holds in between. With -load it measures what many clients, workers
// and cases do to the service, and writes tables.
//
// Usage: bench [-n runs] [scan.nii.gz], bench -endurance N [scan.nii.gz], or
// bench -load all; `make bench` and `make load` build what they need.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"neuroscreen"
	"neuroscreen/internal/client"
)

// line of output. Seconds are the median of the runs.
type line struct {
	Name       string             `json:"name"`
	Scan       string             `json:"scan"`
	ScanMB     float64            `json:"scan_mb"`
	Runs       int                `json:"runs"`
	Seconds    float64            `json:"seconds"`
	Best       float64            `json:"best_seconds"`
	PeakMB     float64            `json:"peak_mb"`
	StagesMS   map[string]float64 `json:"stages_ms,omitempty"`
	ReachedMS  map[string]float64 `json:"reached_ms,omitempty"` // since the first byte was sent
	Kernel     string             `json:"kernel,omitempty"`
	Processors int                `json:"processors"`
}

func main() {
	log.SetFlags(0)
	runs := flag.Int("n", 5, "runs of each measurement")
	only := flag.String("only", "", "one measurement: analyze, post, uploads or network")
	many := flag.Int("endurance", 0, "scans to post one after the other, instead of all else")
	bin := flag.String("bin", "bin", "folder of the built programs")
	what := flag.String("load", "", "measure under load instead: uploads, workers, cases or all")
	page := flag.String("page", "", "file to write the tables of -load into; standard output without")
	cases := flag.Int("cases", 1_000_000, "cases in the worklist of -load cases")
	run := flag.String("functional", "", "time the steps on this functional run instead")
	tr := flag.Float64("tr", 2, "its repetition time in seconds")
	flag.Parse()
	if *run != "" {
		if err := functional(*run, *tr); err != nil {
			log.Fatalf("functional: %v", err)
		}
		return
	}
	if *what != "" {
		if err := load(*bin, *what, *page, *cases); err != nil {
			log.Fatal(err)
		}
		return
	}
	scan := flag.Arg(0)
	if scan == "" {
		scan = "testdata/heads/atrophied_74F.nii.gz"
	}
	st, err := os.Stat(scan)
	if err != nil {
		log.Fatal(err)
	}
	if *many > 0 {
		if err := endurance(*bin, scan, *many); err != nil {
			log.Fatalf("endurance: %v", err)
		}
		return
	}
	base := line{Scan: filepath.Base(scan), ScanMB: float64(st.Size()) / 1e6, Runs: *runs, Processors: runtime.NumCPU()}
	for _, m := range []struct {
		name string
		do   func() error
	}{
		{"analyze", func() error { return analyze(*bin, scan, base) }},
		{"post", func() error { return post(*bin, scan, base) }},
		{"uploads", func() error { return uploads(*bin, base.Processors) }},
		// Last, since what this process has taken counts as its children's peak.
		{"network", func() error { return network(scan, base) }},
	} {
		if *only != "" && *only != m.name {
			continue
		}
		if err := m.do(); err != nil {
			log.Fatalf("%s: %v", m.name, err)
		}
	}
}

func emit(l line, seconds []float64) {
	slices.Sort(seconds)
	l.Seconds, l.Best = seconds[len(seconds)/2], seconds[0]
	json.NewEncoder(os.Stdout).Encode(l)
}

func analyze(bin, scan string, l line) error {
	l.Name = "analyze"
	dir, err := os.MkdirTemp("", "neuroscreen-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	var seconds []float64
	for range l.Runs {
		cmd := exec.Command(filepath.Join(bin, "neuroscreen"), "analyze", "-q", scan, "--age", "74", "--sex", "F", "--out", dir)
		cmd.Stderr = os.Stderr
		start := time.Now()
		if err := cmd.Run(); err != nil {
			return err
		}
		seconds = append(seconds, time.Since(start).Seconds())
		if u, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
			l.PeakMB = max(l.PeakMB, float64(u.Maxrss)/1024)
		}
	}
	b, err := os.ReadFile(filepath.Join(dir, "result.json"))
	if err != nil {
		return err
	}
	var r neuroscreen.Result
	if err := json.Unmarshal(b, &r); err != nil {
		return err
	}
	l.StagesMS, l.Kernel = r.TimingsMS, r.Software.Kernel
	emit(l, seconds)
	return nil
}

// serve starts a server on a folder of its own until stop is called.
func serve(ctx context.Context, bin string, args ...string) (api *client.API, pid int, stop func() error, err error) {
	// Not below a folder that only root may enter: the database runs as
	// another user.
	dir, err := os.MkdirTemp("/var/tmp", "neuroscreen-bench-")
	if err != nil {
		return nil, 0, nil, err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, 0, nil, errors.Join(err, os.RemoveAll(dir))
	}
	data := filepath.Join(dir, "data")
	_, api, cmd, err := start(ctx, bin, data, func() (string, error) {
		key, err := os.ReadFile(filepath.Join(data, "admin.key"))
		return strings.TrimSpace(string(key)), err
	}, nil, args...)
	if err != nil {
		return nil, 0, nil, errors.Join(err, os.RemoveAll(dir))
	}
	return api, cmd.Process.Pid, func() error { return errors.Join(end(cmd), os.RemoveAll(dir)) }, nil
}

// start starts a server on a data folder and waits until it is ready for who
// has the key.
func start(ctx context.Context, bin, data string, key func() (string, error), env []string, args ...string) (address string, api *client.API, cmd *exec.Cmd, err error) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, nil, err
	}
	listen := free.Addr().String()
	free.Close()
	if cmd, err = program(bin, data, env, append([]string{"--listen", listen}, args...)...); err != nil {
		return "", nil, nil, err
	}
	address = "http://" + listen
	if api, err = connect(ctx, address, key); err != nil {
		return "", nil, nil, errors.Join(err, end(cmd))
	}
	return address, api, cmd, nil
}

// program starts a server or worker; its log is in the data folder.
func program(bin, data string, env []string, args ...string) (*exec.Cmd, error) {
	cmd := exec.Command(filepath.Join(bin, "neuroscreen-server"), append([]string{"--data", data}, args...)...)
	cmd.Env = append(os.Environ(), env...)
	if err := os.MkdirAll(data, 0o711); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(filepath.Join(data, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	return cmd, cmd.Start()
}

func end(cmd *exec.Cmd) error {
	cmd.Process.Signal(syscall.SIGTERM)
	return cmd.Wait()
}

func post(bin, scan string, l line) (err error) {
	l.Name = "post"
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	api, pid, stop, err := serve(ctx, bin)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	f, err := os.Open(scan)
	if err != nil {
		return err
	}
	defer f.Close()
	var seconds []float64
	reached := map[string][]float64{}
	for i := range l.Runs {
		start := time.Now()
		note := func(what string, at time.Time) { reached[what] = append(reached[what], at.Sub(start).Seconds()*1000) }
		if err := scored(ctx, api, f, fmt.Sprintf("bench-%d", i), note); err != nil {
			return err
		}
		seconds = append(seconds, time.Since(start).Seconds())
	}
	l.PeakMB = peakMB(pid)
	l.ReachedMS = map[string]float64{}
	for what, ms := range reached {
		slices.Sort(ms)
		l.ReachedMS[what] = math.Round(ms[len(ms)/2])
	}
	emit(l, seconds)
	return nil
}

// connect waits for the key and for the service's readiness.
func connect(ctx context.Context, address string, key func() (string, error)) (*client.API, error) {
	for {
		if key, err := key(); err == nil {
			api, err := client.New(address, key, nil)
			if err != nil {
				return nil, err
			}
			if res, err := api.GetReadinessWithResponse(ctx); err == nil && res.StatusCode() == 200 {
				return api, nil
			}
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// peakMB is the greatest resident memory of a process so far.
func peakMB(pid int) float64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for _, row := range strings.Split(string(b), "\n") {
		var kb float64
		if _, err := fmt.Sscanf(row, "VmHWM: %f kB", &kb); err == nil {
			return kb / 1024
		}
	}
	return 0
}

// scored posts a scan as a subject's and waits for its end; note is told when
// the scan was accepted, when it reached its states and when the client heard
// of the last.
func scored(ctx context.Context, api *client.API, scan *os.File, subject string, note func(what string, at time.Time)) error {
	age := 74.0
	sent, _, err := api.Submit(ctx, client.Upload{Scan: scan, Name: scan.Name(), Metadata: neuroscreen.Metadata{
		SubjectID: subject, AgeYears: &age, Sex: neuroscreen.Female, Modality: neuroscreen.T1w,
	}})
	if err != nil {
		return err
	}
	note("accepted", time.Now())
	done, err := api.Wait(ctx, sent.ID, func(e client.ScanEvent) { note(string(e.State), e.At) })
	if err != nil {
		return err
	}
	note("heard", time.Now())
	if done.State != neuroscreen.Scored {
		return fmt.Errorf("the scan of %s ended as %s: %v", subject, done.State, done.Reasons)
	}
	return nil
}
