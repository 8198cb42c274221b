package service

import (
	"bytes"
	"fmt"
	"io"
	"testing"
	"time"

	"neuroscreen"
	"neuroscreen/internal/client"
	"neuroscreen/internal/fmri/fmritest"
	"neuroscreen/internal/nifti"
)

// TestPostedRunsAreDecoded: from two posted runs to the weights.
func TestPostedRunsAreDecoded(t *testing.T) {
	cfg := settings(t)
	cfg.MaxUpload, cfg.MaxImage = 64<<20, 256<<20
	r := start(t, cfg, fake)
	c := api(t, r, cfg.Data)
	v := fmritest.Head(t)
	still := fmritest.Acquire(v, fmritest.Grid(v, 6))
	const frames, tr = 48, 2.0
	table := "onset\tduration\ttrial_type\n"
	for e := range 8 {
		table += fmt.Sprintf("%d\t6\t%s\n", 12*e, []string{"front", "back", "back", "front"}[e%4])
	}
	order := client.NewDecoding{LagS: ptr(4.0), Voxels: ptr(100), Permutations: ptr(0)}
	for n := range 2 {
		file := fmritest.Run(t, still, frames, tr, func(at int, x []float32) {
			x[0] += float32(100 * n) // in other air
			event, within := at/6, at%6
			if within < 2 || within > 4 {
				return
			}
			for i := range x {
				if y := i / still.Shape[0] % still.Shape[1]; (event%4 == 0 || event%4 == 3) == (y > still.Shape[1]/2) {
					x[i] *= 1.01
				}
			}
		})
		scan, _, err := c.Submit(t.Context(), client.Upload{Scan: bytes.NewReader(file), Name: "run.nii.gz",
			Metadata: neuroscreen.Metadata{SubjectID: "S-1", AgeYears: ptr(45.0), Sex: "M", Modality: neuroscreen.BOLD, TRSeconds: ptr(tr)}})
		if err != nil {
			t.Fatal(err)
		}
		order.Runs = append(order.Runs, client.NewDecodingRun{ScanID: scan.ID, Events: table})
	}
	key := "once"
	posted, err := c.CreateDecodingWithResponse(t.Context(), &client.CreateDecodingParams{IdempotencyKey: &key}, order)
	if err != nil || posted.JSON202 == nil {
		t.Fatalf("%v %s", err, posted.Body)
	}
	id := posted.JSON202.ID
	var d *client.Decoding
	for end := time.Now().Add(2 * time.Minute); d == nil || !d.State.Final(); time.Sleep(20 * time.Millisecond) {
		res, err := c.GetDecodingWithResponse(t.Context(), id)
		if err != nil || res.JSON200 == nil || time.Now().After(end) {
			t.Fatalf("%v %s", err, res.Body)
		}
		d = res.JSON200
	}
	if d.State != neuroscreen.DecodingDone || d.Result.Accuracy < 0.9 || len(d.Result.Files) != 2 || d.Result.Files[1].ScanID != order.Runs[1].ScanID.String() || !d.Result.Files[1].Realigned {
		t.Fatalf("%s %v %+v", d.State, d.Reasons, d.Result)
	}
	w, err := c.GetDecodingWeights(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Body.Close()
	b, err := io.ReadAll(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	img, err := nifti.Decode(bytes.NewReader(b), nifti.Limits{})
	if err != nil || fmt.Sprint(img.Shape) != fmt.Sprint(append(still.Shape[:], 2)) {
		t.Errorf("weights %v: %v", img, err)
	}
}
