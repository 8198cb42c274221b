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
)

// uploads measures the intake alone: nothing is analysed meanwhile.
func uploads(bin string, processors int) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	api, pid, stop, err := serve(ctx, bin, "--role", "api")
	if err != nil {
		return err
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
	took := time.Since(begun).Seconds()
	enough()
	reader.Wait()
	if failed != nil {
		return failed
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"name": "uploads", "uploaders": uploaders, "uploads": len(accepted), "scan_mb": float64(len(file)) / 1e6, "processors": processors,
		"mb_per_second": float64(len(accepted)*len(file)) / 1e6 / took, "seconds": quantile(accepted, .5), "seconds_p95": quantile(accepted, .95),
		"worklist_seconds_p95": quantile(lists, .95), "peak_mb": peakMB(pid),
	})
}

func quantile(v []float64, q float64) float64 {
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
