package main

import (
	"context"
	"encoding/json"
	"os"
	"runtime"
	"syscall"
	"time"

	"neuroscreen/internal/anatomy"
	"neuroscreen/internal/fmri"
	"neuroscreen/internal/nifti"
	"neuroscreen/internal/volume"
)

// step of the analysis of a functional run, as bench/compare_functional.py
// prints it of other programs.
type step struct {
	Step       string  `json:"step"`
	Engine     string  `json:"engine"`
	Seconds    float64 `json:"seconds"`
	Processor  float64 `json:"processor_seconds"`
	Frames     int     `json:"frames"`
	Voxels     int     `json:"voxels"`
	Processors int     `json:"processors"`
}

// functional times the steps on a run, with the voxels over a quarter of the
// bright ones' signal for the brain: the network takes no part.
func functional(path string, tr float64) error {
	ctx := context.Background()
	s := step{Engine: "neuroscreen", Processors: runtime.NumCPU()}
	began, used := time.Now(), processor()
	lap := func(name string) {
		s.Step, s.Seconds, s.Processor = name, time.Since(began).Seconds(), processor()-used
		json.NewEncoder(os.Stdout).Encode(s)
		began, used = time.Now(), processor()
	}
	rd, err := nifti.Open(path, nifti.Limits{})
	if err != nil {
		return err
	}
	defer rd.Close()
	run, err := fmri.Read(ctx, rd, fmri.TR{Seconds: tr})
	if err != nil {
		return err
	}
	defer run.Close()
	s.Frames = run.Frames
	lap("read")
	al, err := fmri.Realign(ctx, run)
	if err != nil {
		return err
	}
	lap("motion")
	mean, err := run.MeanImage(ctx, al)
	if err != nil {
		return err
	}
	threshold := 0.25 * volume.Percentiles(mean.Data, 98)[0]
	head, labels := make([]bool, run.Len()), make([]uint8, run.Len())
	for at, v := range mean.Data {
		head[at] = v > threshold
		// Slabs stand for the structures.
		labels[at] = uint8(anatomy.Structures[1+at*(len(anatomy.Structures)-1)/run.Len()].Label)
	}
	series, err := run.Series(ctx, al, head)
	if err != nil {
		return err
	}
	s.Voxels = len(series.Voxels)
	lap("resample")
	q := fmri.Assess(series, al.Motion, tr)
	lap("quality")
	none := make([]bool, run.Len())
	n := fmri.FindNuisance(series, al.Motion, q, none, none, tr, fmri.PassBand)
	band, full := n.Design(true, false), n.Design(false, false)
	fmri.Connect(fmri.Nodes(series, labels), band)
	lap("connectome")
	fmri.Amplitudes(series, band, full)
	lap("alff")
	band.Clean(series)
	lap("clean")
	fmri.ReHo(series, run.Shape)
	lap("reho")
	return nil
}

// processor seconds of this process.
func processor() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}
