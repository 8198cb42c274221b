package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"neuroscreen"
	"neuroscreen/internal/client"
	"neuroscreen/internal/nifti"
)

const (
	uploaders   = 50
	uploadsEach = 4
	uploadSide  = 171 // voxels of two bytes: a gzipped file of noise of 10 MB
	calm        = 5 * time.Second
)

// intake is what clients saw while so many handed over scans at once.
type intake struct {
	Name           string  `json:"name"`
	Uploaders      int     `json:"uploaders"`
	Uploads        int     `json:"uploads"`
	ScanMB         float64 `json:"scan_mb"`
	MBPerSecond    float64 `json:"mb_per_second"`
	Seconds        float64 `json:"seconds"`
	SecondsP95     float64 `json:"seconds_p95"`
	Worklists      int     `json:"worklists"`
	WorklistMedian float64 `json:"worklist_seconds"`
	WorklistP95    float64 `json:"worklist_seconds_p95"`
	PeakMB         float64 `json:"peak_mb"`
	Processors     int     `json:"processors"`
}

// uploads measures the intake alone: nothing is analysed meanwhile.
func uploads(bin string, processors int) error {
	in, err := takeIn(bin, processors, uploaders)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(in)
}

// takeIn reads the worklist again and again while clients hand over scans, or
// for a while without any.
func takeIn(bin string, processors, uploaders int) (in intake, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	api, pid, stop, err := serve(ctx, bin, "--role", "api")
	if err != nil {
		return intake{}, err
	}
	defer func() { err = errors.Join(err, stop()) }()

	var mu sync.Mutex
	var accepted, lists []float64
	var failed error
	note := func(to *[]float64, begun time.Time, err error) {
		mu.Lock()
		defer mu.Unlock()
		*to = append(*to, time.Since(begun).Seconds())
		failed = errors.Join(failed, err)
	}
	file := noise()
	begun := time.Now()
	var all sync.WaitGroup
	for n := range uploaders {
		all.Go(func() {
			for i := range uploadsEach {
				age := 74.0
				begun := time.Now()
				_, _, err := api.Submit(ctx, client.Upload{Scan: bytes.NewReader(file), Name: "scan.nii.gz", Metadata: neuroscreen.Metadata{
					SubjectID: fmt.Sprintf("bench-%d-%d", n, i), AgeYears: &age, Sex: neuroscreen.Female, Modality: neuroscreen.T1w,
				}})
				note(&accepted, begun, err)
			}
		})
	}
	reading, enough := context.WithCancel(ctx)
	var reader sync.WaitGroup
	reader.Go(func() {
		for reading.Err() == nil {
			begun := time.Now()
			res, err := api.ListCasesWithResponse(ctx, nil)
			if err == nil && res.JSON200 == nil {
				err = client.ProblemOf(res.HTTPResponse, res.Body)
			}
			note(&lists, begun, err)
			time.Sleep(20 * time.Millisecond)
		}
	})
	all.Wait()
	if uploaders == 0 {
		time.Sleep(calm)
	}
	took := time.Since(begun).Seconds()
	enough()
	reader.Wait()
	if failed != nil {
		return intake{}, failed
	}
	return intake{
		Name: "uploads", Uploaders: uploaders, Uploads: len(accepted), ScanMB: float64(len(file)) / 1e6, Processors: processors,
		MBPerSecond: float64(len(accepted)*len(file)) / 1e6 / took, Seconds: quantile(accepted, .5), SecondsP95: quantile(accepted, .95),
		Worklists: len(lists), WorklistMedian: quantile(lists, .5), WorklistP95: quantile(lists, .95), PeakMB: peakMB(pid),
	}, nil
}

// uploadTable is the intake with none, some and many uploaders.
func uploadTable(bin string, processors int) (string, error) {
	var b strings.Builder
	b.WriteString("| uploaders | scans of 10 MB | accepted, MB/s | an upload takes, median and p95 | worklist read, median and p95 | peak memory of the server |\n|---|---|---|---|---|---|\n")
	for _, n := range []int{0, 10, uploaders} {
		in, err := takeIn(bin, processors, n)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "| %d | %d | %.0f | %.1f s, %.1f s | %.0f ms, %.0f ms | %.0f MB |\n", n, in.Uploads, in.MBPerSecond, in.Seconds, in.SecondsP95,
			1e3*in.WorklistMedian, 1e3*in.WorklistP95, in.PeakMB)
	}
	return b.String(), nil
}

// quantile of v, which it sorts; 0 of none.
func quantile(v []float64, q float64) float64 {
	if len(v) == 0 {
		return 0
	}
	slices.Sort(v)
	return v[int(q*float64(len(v)-1))]
}

func noise() []byte {
	data := make([]int16, uploadSide*uploadSide*uploadSide)
	for n := range data {
		data[n] = int16(rand.N(1 << 12))
	}
	var b bytes.Buffer
	if err := nifti.Write(&b, nifti.Geometry{Shape: []int{uploadSide, uploadSide, uploadSide}, Affine: nifti.Affine{{1}, {0, 1}, {0, 0, 1}, {0, 0, 0, 1}}}, data); err != nil {
		panic(err) // a buffer takes everything
	}
	return b.Bytes()
}
