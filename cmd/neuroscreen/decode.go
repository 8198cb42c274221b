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
)

type decodeCmd struct {
	Bold         []string `name:"bold" required:"" sep:"none" type:"existingfile" help:"NIfTI file of a task run, or of several one after the other. Repeat it, with --events, for more files of the same person."`
	Events       []string `required:"" sep:"none" type:"existingfile" help:"BIDS events.tsv of each --bold: onset, duration, trial_type and, to tell runs of one file apart, run."`
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
	case len(c.Bold) != len(c.Events):
		return fmt.Errorf("%d times --bold and %d times --events: every file needs its events", len(c.Bold), len(c.Events))
	case !(c.Lag >= 0 && c.Lag <= 20):
		return fmt.Errorf("--lag %g: want seconds, 0 to 20", c.Lag)
	case c.Voxels < 1:
		return fmt.Errorf("--voxels %d: want at least one", c.Voxels)
	case c.Permutations < 0 || c.Permutations > 100000:
		return fmt.Errorf("--permutations %d: want 0 to 100000", c.Permutations)
	}
	return nil
}

func (c *decodeCmd) Run(ctx context.Context) error {
	started := time.Now()
	progress := func(what string) {
		if !c.Quiet {
			fmt.Fprintf(os.Stderr, "%5.1f s  %s\n", time.Since(started).Seconds(), what)
		}
	}
	files := make([]pipeline.DecodeFile, len(c.Bold))
	for n := range files {
		if err := c.file(&files[n], c.Bold[n], c.Events[n]); err != nil {
			return err
		}
	}
	out, err := pipeline.Decode(ctx, files, neuroscreen.DecodingOptions{
		LagSeconds: c.Lag, Ignore: append([]string{}, c.Ignore...), Voxels: c.Voxels, Permutations: c.Permutations, Seed: c.Seed,
	}, nifti.Limits{}, progress)
	if err != nil {
		return err
	}
	if c.Out == "" {
		return writeJSON(os.Stdout, out.Result)
	}
	if err := os.MkdirAll(c.Out, 0o755); err != nil {
		return err
	}
	return errors.Join(
		replaceFile(filepath.Join(c.Out, "decoding.json"), func(w io.Writer) error { return writeJSON(w, out.Result) }),
		replaceFile(filepath.Join(c.Out, "weights.nii.gz"), func(w io.Writer) error { _, err := w.Write(out.Weights); return err }),
	)
}

// file reads what lies beside a run; the run itself is opened when its turn
// comes.
func (c *decodeCmd) file(f *pipeline.DecodeFile, bold, events string) (err error) {
	f.Metadata = neuroscreen.Metadata{Modality: neuroscreen.BOLD, TRSeconds: c.TR}
	table, err := os.Open(events)
	if err != nil {
		return err
	}
	defer table.Close()
	if f.Events, err = fmri.ReadEvents(table); err != nil {
		return err
	}
	if f.Sidecar, err = sidecar(bold); err != nil {
		return err
	}
	var in pipeline.Input
	closeFiles, err := openScan(bold, &in)
	if err != nil {
		return err
	}
	closeFiles()
	f.SHA256 = in.SHA256
	f.Open = func(context.Context) (io.Reader, io.Reader, func(), error) {
		var in pipeline.Input
		closeFiles, err := openScan(bold, &in)
		return in.Image, in.Header, closeFiles, err
	}
	return nil
}
