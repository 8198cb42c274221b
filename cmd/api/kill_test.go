package main

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"neuroscreen"
	"neuroscreen/internal/client"
	"neuroscreen/internal/nifti"
	"neuroscreen/internal/pgtest"
	"neuroscreen/internal/pipeline"
)

const head = "../../testdata/heads/healthy_45M.nii.gz"

// TestMain lets the test's own program stand in for the server, so that a test
// can kill it as a machine would.
func TestMain(m *testing.M) {
	if os.Getenv("NEUROSCREEN_TEST_SERVER") != "" {
		os.Args = append([]string{"neuroscreen-server"}, strings.Fields(os.Getenv("NEUROSCREEN_TEST_SERVER"))...)
		main()
		return
	}
	os.Exit(m.Run())
}

type process struct {
	*exec.Cmd
	log bytes.Buffer
}

func startServer(t *testing.T, database, args string) *process {
	t.Helper()
	p := &process{Cmd: exec.Command(os.Args[0])}
	p.Env = append(os.Environ(), "NEUROSCREEN_TEST_SERVER="+args, "DATABASE_URL="+database)
	p.Stdout, p.Stderr = &p.log, &p.log
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Process.Signal(syscall.SIGTERM)
		p.Wait()
		if t.Failed() {
			t.Logf("%s:\n%s", args, &p.log)
		}
	})
	return p
}

// TestKilledWorker: a scan whose worker is killed in the middle of the real
// analysis is finished by another within two minutes, its result is stored
// once, and it is what an undisturbed analysis gives.
func TestKilledWorker(t *testing.T) {
	t.Parallel()
	database, data := pgtest.ConnString(t), t.TempDir()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	free.Close()
	startServer(t, database, "--role api --data "+data+" --listen "+address)
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	api := connect(t, ctx, "http://"+address, filepath.Join(data, "admin.key"))

	first := startServer(t, database, "--role worker --data "+data)
	file, err := os.ReadFile(head)
	if err != nil {
		t.Fatal(err)
	}
	age := 45.0
	metadata := neuroscreen.Metadata{SubjectID: "S-1", AgeYears: &age, Sex: neuroscreen.Male, Modality: neuroscreen.T1w}
	scan, _, err := api.Submit(ctx, client.Upload{Scan: bytes.NewReader(file), Name: head, Metadata: metadata})
	if err != nil {
		t.Fatal(err)
	}
	var killed time.Time
	done, err := api.Wait(ctx, scan.ID, func(e client.ScanEvent) {
		if e.State == neuroscreen.Checked && killed.IsZero() {
			if err := first.Process.Kill(); err != nil {
				t.Error(err)
			}
			killed = time.Now()
			startServer(t, database, "--role worker --data "+data)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if killed.IsZero() {
		t.Fatal("the analysis ended before it could be killed")
	}
	if took := time.Since(killed); took > 2*time.Minute {
		t.Errorf("finished %v after the kill, want within two minutes", took)
	}
	if done.State != neuroscreen.Scored || done.Attempt != 2 || done.Run != 1 || done.ResultVersion != 1 {
		t.Errorf("state %s, attempt %d, run %d, result version %d; want scored, 2, 1, 1", done.State, done.Attempt, done.Run, done.ResultVersion)
	}
	scored := 0
	for _, s := range done.Stages {
		if s.State == neuroscreen.Scored {
			scored++
		}
	}
	if scored != 1 {
		t.Errorf("scored %d times", scored)
	}
	res, err := api.GetResultWithResponse(ctx, scan.ID, nil)
	if err != nil || res.JSON200 == nil {
		t.Fatalf("result: %v %s", err, res.Body)
	}

	engine, err := pipeline.New("test", nifti.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	want, err := engine.Analyze(ctx, pipeline.Input{Metadata: metadata, Image: bytes.NewReader(file)})
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(res.JSON200.Volumes, want.Result.Volumes) {
		t.Error("volumes differ from those of an undisturbed analysis")
	}
	labels, err := api.GetSegmentationWithResponse(ctx, scan.ID, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(labels.Body, want.Segmentation) {
		t.Error("the label map differs from that of an undisturbed analysis")
	}
}

// connect waits for the service to be ready.
func connect(t *testing.T, ctx context.Context, address, keyFile string) *client.API {
	t.Helper()
	for tick := time.NewTicker(20 * time.Millisecond); ; {
		if key, err := os.ReadFile(keyFile); err == nil {
			transport := &http.Transport{}
			t.Cleanup(transport.CloseIdleConnections)
			api, err := client.New(address, strings.TrimSpace(string(key)), &http.Client{Transport: transport})
			if err != nil {
				t.Fatal(err)
			}
			if res, err := api.GetReadinessWithResponse(ctx); err == nil && res.StatusCode() == http.StatusOK {
				return api
			}
		}
		select {
		case <-ctx.Done():
			t.Fatal("the service did not become ready")
		case <-tick.C:
		}
	}
}
