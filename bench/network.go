package main

import (
	"context"
	"encoding/json"
	"os"
	"runtime"
	"slices"
	"time"

	"neuroscreen/internal/nifti"
	"neuroscreen/internal/segment"
	"neuroscreen/internal/segment/conv"
	"neuroscreen/internal/volume"
)

// machine is what the processor is capable of with the kernels in use.
type machine struct {
	Name        string  `json:"name"`
	Kernel      string  `json:"kernel"`
	Processors  int     `json:"processors"`
	PeakGMAC    float64 `json:"peak_gmac_per_second"`
	BandwidthGB float64 `json:"bandwidth_gb_per_second"`
}

// pass is one pass of a network over its box. The shares are of the machine's
// peak: of the multiply-adds of the layers' plain definition, and of those that
// are executed.
type pass struct {
	Name          string  `json:"name"`
	Box           [3]int  `json:"box"`
	Base          int     `json:"base"`
	Wide          int     `json:"wide,omitempty"`
	Runs          int     `json:"runs"`
	Seconds       float64 `json:"seconds"`
	Best          float64 `json:"best_seconds"`
	GMAC          float64 `json:"gmac"`
	ShareNominal  float64 `json:"share_of_peak_nominal"`
	ShareExecuted float64 `json:"share_of_peak_executed"`
}

func network(scan string, l line) error {
	threads := runtime.NumCPU()
	out := json.NewEncoder(os.Stdout)
	m := machine{"machine", conv.Kernel(), threads, conv.PeakGMAC(threads), conv.BandwidthGB(threads)}
	if err := out.Encode(m); err != nil {
		return err
	}
	img, err := nifti.ReadFile(scan)
	if err != nil {
		return err
	}
	v := &volume.Volume{Grid: volume.Grid{Shape: img.Shape3(), Affine: volume.Affine(img.Affine)}, Data: img.Data}
	n, err := segment.Default()
	if err != nil {
		return err
	}
	seconds, err := timed(l.Runs, func() error {
		_, err := n.Segment(context.Background(), v)
		return err
	})
	if err != nil {
		return err
	}
	l.Name, l.Kernel, l.PeakMB = "networks for one scan", m.Kernel, peakMB(os.Getpid())
	emit(l, seconds)

	w := n.Weights()
	for _, net := range []struct {
		name string
		*segment.Model
	}{{"place of the head", w.Locate}, {"whole head", w.Whole}, {"half of the brain", w.Half}, {"inner structures of one side", w.Inner}} {
		if net.Model == nil {
			continue
		}
		a := net.Architecture
		p := pass{Name: net.name, Box: a.Shape, Base: a.Base, Wide: a.Wide, Runs: l.Runs}
		u := segment.NewUNet(net.Model, threads)
		image, classes := sight(v, a), make([]segment.Likely, a.Voxels())
		seconds, err := timed(l.Runs, func() error { return u.Classify(context.Background(), image, classes) })
		if err != nil {
			return err
		}
		p.Seconds, p.Best = seconds[len(seconds)/2], seconds[0]
		nominal, executed := u.MACs()
		p.GMAC = nominal / 1e9
		p.ShareNominal, p.ShareExecuted = nominal/1e9/p.Seconds/m.PeakGMAC, executed/1e9/p.Seconds/m.PeakGMAC
		if err := out.Encode(p); err != nil {
			return err
		}
	}
	return nil
}

// sight is the middle of a scan as a network sees it.
func sight(v *volume.Volume, a segment.Architecture) []float32 {
	can, _ := volume.Canonical(v)
	var from, step [3]float64
	for k, size := range can.VoxelSize() {
		step[k] = a.VoxelMM / size
		from[k] = (float64(can.Shape[k]-1) - float64(a.Shape[k]-1)*step[k]) / 2
	}
	image := make([]float32, a.Voxels())
	volume.Zoom(image, a.Shape, can, from, step)
	segment.Normalise(image, a.Shape)
	return image
}

// timed runs f once to warm up and then a number of times; it returns the
// seconds of those, the shortest first.
func timed(runs int, f func() error) ([]float64, error) {
	var seconds []float64
	for i := range runs + 1 {
		begun := time.Now()
		if err := f(); err != nil {
			return nil, err
		}
		if i > 0 {
			seconds = append(seconds, time.Since(begun).Seconds())
		}
	}
	slices.Sort(seconds)
	return seconds, nil
}
