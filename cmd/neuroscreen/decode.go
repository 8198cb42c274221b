package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"neuroscreen"
	"neuroscreen/internal/fmri"
	"neuroscreen/internal/nifti"
	"neuroscreen/internal/pipeline"
	"neuroscreen/internal/version"
)

type decodeCmd struct {
	Bold         string   `name:"bold" required:"" type:"existingfile" help:"NIfTI file of a task run, or of several one after the other."`
	Events       string   `required:"" type:"existingfile" help:"BIDS events.tsv: onset, duration, trial_type and, to tell runs apart, run."`
	TR           *float64 `name:"tr" help:"Repetition time in seconds; without it header and JSON file must agree."`
	Lag          float64  `default:"5" help:"Seconds from an event to the volumes that answer it."`
	Ignore       []string `default:"rest,n/a" help:"Kinds of events that are no condition."`
	Voxels       int      `default:"200" help:"Voxels that each fold selects."`
	Permutations int      `default:"200" help:"Permutations of the labels; 0 for none."`
	Seed         uint64   `default:"1" help:"Of the permutations."`
	Out          string   `type:"path" help:"Folder for decoding.json and weights.nii.gz; without it the JSON goes to standard output."`
	Quiet        bool     `short:"q" help:"No progress on standard error."`
}

// Validate is called by kong.
func (c *decodeCmd) Validate() error {
	switch {
	case !(c.Lag >= 0 && c.Lag <= 20):
		return fmt.Errorf("--lag %g: want seconds, 0 to 20", c.Lag)
	case c.Voxels < 1:
		return fmt.Errorf("--voxels %d: want at least one", c.Voxels)
	case c.Permutations < 0 || c.Permutations > 100000:
		return fmt.Errorf("--permutations %d: want 0 to 100000", c.Permutations)
	}
	return nil
}

// decoding is what the command writes.
type decoding struct {
	Schema       string               `json:"schema"`
	Evidence     neuroscreen.Evidence `json:"evidence"`
	SHA256       string               `json:"sha256"` // of the run
	Version      string               `json:"version"`
	TRSeconds    float64              `json:"tr_s"`
	DummyScans   int                  `json:"dummy_scans"`
	Realigned    bool                 `json:"realigned"`
	LagSeconds   float64              `json:"lag_s"`
	Notes        []neuroscreen.Reason `json:"notes"`
	HeadVoxels   int                  `json:"head_voxels"`
	Voxels       int                  `json:"selected_voxels"`
	Samples      int                  `json:"samples"`
	Runs         []string             `json:"runs"`
	Conditions   []string             `json:"conditions"`
	Accuracy     float64              `json:"accuracy"`
	Chance       float64              `json:"chance"`       // share of the commonest condition
	RunAccuracy  []float64            `json:"run_accuracy"` // of each run, when it was left out
	Confusion    [][]int              `json:"confusion"`    // a row for each true condition, a column for each answer
	P            *float64             `json:"p"`
	Permutations int                  `json:"permutations"`
	Seed         uint64               `json:"seed"`
	Shuffled     *float64             `json:"shuffled_accuracy"`
}

func (c *decodeCmd) Run(ctx context.Context) error {
	started := time.Now()
	progress := func(format string, args ...any) {
		if !c.Quiet {
			fmt.Fprintf(os.Stderr, "%5.1f s  "+format+"\n", append([]any{time.Since(started).Seconds()}, args...)...)
		}
	}
	run, sum, err := c.read(ctx)
	if err != nil {
		return err
	}
	defer run.Close()
	table, err := os.Open(c.Events)
	if err != nil {
		return err
	}
	defer table.Close()
	events, err := fmri.ReadEvents(table)
	if err != nil {
		return err
	}
	progress("read %s: %d volumes, %d events", filepath.Base(c.Bold), run.Frames, len(events))
	series, aligned, err := run.Patterns(ctx)
	if err != nil {
		return err
	}
	samples, err := fmri.MakeSamples(series, run, events, c.Ignore, c.Lag)
	if err != nil {
		return err
	}
	progress("%s", samples)
	opt := fmri.DecodeOptions{Voxels: c.Voxels, Permutations: c.Permutations, Seed: c.Seed}
	if c.Permutations == 0 {
		opt.Permutations = -1
	}
	d, err := fmri.Decode(ctx, samples, opt)
	if err != nil {
		return err
	}
	out := decoding{
		Schema: "neuroscreen.decoding/1", Evidence: neuroscreen.Experimental, SHA256: sum, Version: version.String(), TRSeconds: run.TR.Seconds,
		DummyScans: run.Dummies, Realigned: aligned, LagSeconds: c.Lag, Notes: append([]neuroscreen.Reason{}, run.TR.Notes...),
		HeadVoxels: len(series.Voxels), Voxels: d.Voxels, Samples: len(samples.X), Runs: d.Runs, Conditions: d.Conditions, Accuracy: d.Accuracy,
		Chance: commonest(d.Confusion), RunAccuracy: d.Fold, Confusion: d.Confusion, Permutations: d.Permutations, Seed: c.Seed,
	}
	if d.Permutations > 0 {
		out.P, out.Shuffled = &d.P, &d.Shuffled
	}
	progress("accuracy %.3f (chance %.3f)", d.Accuracy, out.Chance)
	if c.Out == "" {
		return writeJSON(os.Stdout, out)
	}
	return c.write(out, run, series, d)
}

// commonest is the share of samples of the condition that has most.
func commonest(confusion [][]int) float64 {
	most, all := 0, 0
	for _, row := range confusion {
		n := 0
		for _, v := range row {
			n += v
		}
		most, all = max(most, n), all+n
	}
	return float64(most) / float64(all)
}

// read spools the run.
func (c *decodeCmd) read(ctx context.Context) (*fmri.Run, string, error) {
	var in pipeline.Input
	closeFiles, err := openScan(c.Bold, &in)
	if err != nil {
		return nil, "", err
	}
	defer closeFiles()
	var rd *nifti.Reader
	if in.Header != nil {
		rd, err = nifti.NewPairReader(in.Header, in.Image, nifti.Limits{})
	} else {
		rd, err = nifti.NewReader(in.Image, nifti.Limits{})
	}
	if err != nil {
		return nil, "", refusal(err)
	}
	defer rd.Close()
	side, err := sidecar(c.Bold)
	if err != nil {
		return nil, "", err
	}
	tr, err := fmri.RepetitionTime(c.TR, rd.Header(), side)
	if err != nil {
		return nil, "", err
	}
	run, err := fmri.Read(ctx, rd, tr)
	return run, in.SHA256, refusal(err)
}

// write puts the answers and the weights, a volume for each condition, into the
// folder.
func (c *decodeCmd) write(out decoding, run *fmri.Run, series *fmri.Series, d *fmri.Decoding) error {
	if err := os.MkdirAll(c.Out, 0o755); err != nil {
		return err
	}
	weights := make([]float32, run.Len()*len(d.Conditions))
	for k, w := range d.Weights {
		for n, at := range series.Voxels {
			weights[k*run.Len()+int(at)] = w[n]
		}
	}
	g := nifti.Geometry{Shape: append(run.Shape[:], len(d.Conditions)), Affine: nifti.Affine(run.Affine), Code: 1}
	return errors.Join(
		replaceFile(filepath.Join(c.Out, "decoding.json"), func(w io.Writer) error { return writeJSON(w, out) }),
		replaceFile(filepath.Join(c.Out, "weights.nii.gz"), func(w io.Writer) error { return nifti.Write(w, g, weights) }),
	)
}
