package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"time"

	"neuroscreen"
	"neuroscreen/internal/jobs"
	"neuroscreen/internal/store"
)

const (
	headsEach  = 6
	pausesEach = 20 // scans of each worker whose analysis is a pause
	pause      = 200 * time.Millisecond
)

// workerTable is the throughput by the number of workers: of heads, where the
// processors are shared, and of analyses that only wait, where nothing is but
// Postgres, the queue and the leases.
func workerTable(bin string, _ int) (_ string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	d, err := deploy(ctx, nil)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, d.remove()) }()
	var b strings.Builder
	fmt.Fprintf(&b, "Worker processes on one Postgres, heads of 1.4 mm, analysed to their end; all share this machine's processors:\n\n")
	b.WriteString("| workers | scans | scans a minute | of one worker's |\n|---|---|---|---|\n")
	one := 0.0
	for _, n := range []int{1, 2, 4} {
		log.Printf("heads, %d workers", n)
		rate, err := d.heads(ctx, bin, n)
		if err != nil {
			return "", err
		}
		if n == 1 {
			one = rate
		}
		fmt.Fprintf(&b, "| %d | %d | %.0f | %.2f |\n", n, headsEach, 60*rate, rate/one)
	}
	fmt.Fprintf(&b, "\nWorkers on one Postgres whose analysis is a pause of %v, as if each had a machine of its own; with lease, three stages, result, file, worklist and audit trail of each scan:\n\n", pause)
	b.WriteString("| workers | scans | scans a second | of one worker's |\n|---|---|---|---|\n")
	for _, n := range []int{1, 2, 4, 8, 16, 32} {
		log.Printf("pauses, %d workers", n)
		rate, err := d.pauses(ctx, n)
		if err != nil {
			return "", err
		}
		if n == 1 {
			one = rate
		}
		fmt.Fprintf(&b, "| %d | %d | %.1f | %.1f |\n", n, pausesEach*n, rate, rate/one)
	}
	return b.String(), nil
}

// heads a second of worker processes.
func (d *deployment) heads(ctx context.Context, bin string, workers int) (rate float64, err error) {
	head, err := os.ReadFile("testdata/heads/healthy_45M.nii.gz")
	if err != nil {
		return 0, err
	}
	var running []*exec.Cmd
	defer func() {
		for _, cmd := range running {
			err = errors.Join(err, end(cmd))
		}
	}()
	for range workers {
		cmd, err := program(bin, d.data(), d.env(), "--role", "worker")
		if err != nil {
			return 0, err
		}
		running = append(running, cmd)
	}
	// Some first, so that all are there and have their networks ready.
	if _, err := d.analysed(ctx, workers, func(int) []byte { return head }, neuroscreen.Scored); err != nil {
		return 0, err
	}
	return d.analysed(ctx, headsEach, func(int) []byte { return head }, neuroscreen.Scored)
}

// pauses a second of workers in this process.
func (d *deployment) pauses(ctx context.Context, workers int) (rate float64, err error) {
	for range workers {
		pool, err := store.OpenPool(ctx, d.cluster.ConnString(), 2) // of 100 that Postgres takes
		if err != nil {
			return 0, err
		}
		defer pool.Close()
		queue, err := jobs.NewEnqueuer(pool)
		if err != nil {
			return 0, err
		}
		r, err := jobs.NewRunner(jobs.Config{Pool: pool, Blobs: d.blobs, Analyse: rest, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
			Store: store.New(store.Config{Pool: pool, Keys: d.keys, Jobs: queue, Blobs: d.blobs})})
		if err != nil {
			return 0, err
		}
		if err := r.Start(ctx); err != nil {
			return 0, err
		}
		defer func() { err = errors.Join(err, r.Stop(context.WithoutCancel(ctx))) }()
	}
	scan := func(n int) []byte { return fmt.Append(nil, "scan ", n) }
	if _, err := d.analysed(ctx, workers, scan, neuroscreen.Scored); err != nil {
		return 0, err
	}
	return d.analysed(ctx, pausesEach*workers, scan, neuroscreen.Scored)
}

// rest is an analysis that only takes time.
func rest(ctx context.Context, in jobs.Input) (jobs.Output, error) {
	for _, s := range []neuroscreen.State{neuroscreen.Checked, neuroscreen.Segmented, neuroscreen.Measured} {
		time.Sleep(pause / 3)
		if err := in.Stage(ctx, s); err != nil {
			return jobs.Output{}, err
		}
	}
	return jobs.Output{
		Result: &neuroscreen.Result{Schema: neuroscreen.ResultSchema, ScanID: in.ScanID.String(), SubjectID: in.Metadata.SubjectID,
			Modality: in.Metadata.Modality, Input: neuroscreen.Input{SHA256: in.SHA256}, QC: neuroscreen.QC{Verdict: neuroscreen.VerdictPass}},
		Files: []jobs.File{{Kind: store.KindPreview, MediaType: "image/png", Bytes: in.ScanID[:]}},
	}, nil
}

// analysed hands over scans of subjects of their own and returns how many a
// second came to their end.
func (d *deployment) analysed(ctx context.Context, scans int, bytesOf func(n int) []byte, want neuroscreen.State) (rate float64, err error) {
	var before int
	if err := d.pool.QueryRow(ctx, "SELECT count(*) FROM scans").Scan(&before); err != nil {
		return 0, err
	}
	begun := time.Now()
	for n := range scans {
		content := bytesOf(before + n)
		info, err := d.blobs.Put(ctx, bytes.NewReader(content), nil)
		if err != nil {
			return 0, err
		}
		age := 45.0
		_, err = d.store.CreateScan(ctx, d.site, store.System, store.NewScan{SHA256: fmt.Sprintf("%x", sha256.Sum256(content)), Size: info.Size, BlobKey: info.Key,
			Metadata: neuroscreen.Metadata{SubjectID: fmt.Sprint("bench-", before+n), AgeYears: &age, Sex: neuroscreen.Male, Modality: neuroscreen.T1w}})
		if err != nil {
			return 0, err
		}
	}
	for {
		var ended, wrong int
		err := d.pool.QueryRow(ctx, "SELECT count(*), count(*) FILTER (WHERE state <> $1) FROM scans WHERE finished_at IS NOT NULL", want).Scan(&ended, &wrong)
		if err != nil {
			return 0, err
		}
		if wrong > 0 {
			return 0, fmt.Errorf("%d scans did not end as %s", wrong, want)
		}
		if ended == before+scans {
			return float64(scans) / time.Since(begun).Seconds(), nil
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}
