package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"text/tabwriter"

	"neuroscreen/internal/anatomy"
	"neuroscreen/internal/segment"
	"neuroscreen/internal/train"
	"neuroscreen/internal/train/synth"
)

type evaluateCmd struct {
	data
	Weights  string `help:"Weights file; without it, the weights built into the program." type:"existingfile"`
	Real     string `help:"Folder of real labelled heads." default:"../shared/data/scans/t1"`
	Validate int    `help:"Held-out synthetic heads." default:"64"`
	Out      string `help:"Write the weights here with this evaluation and the predicted errors of volumes in their header."`
	Errors   int    `help:"Synthetic heads on which predicted errors are calibrated, with --out." default:"300"`
}

func (c *evaluateCmd) Run(ctx context.Context) error {
	m, err := readModel(c.Weights)
	if err != nil {
		return err
	}
	threads := runtime.NumCPU()
	held, err := c.samplers(1, heldOut, m.Architecture, synth.Evaluation, 2)
	if err != nil {
		return err
	}
	sc, err := train.Evaluate(ctx, m, threads, held[0], c.Validate)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "weights after %d steps, %d synthetic heads of maps %v\n", m.Provenance.Steps, c.Validate, heldOut)
	fmt.Fprintf(w, "structure\tDice\tvolume RMS error\n")
	for k, s := range anatomy.Structures {
		if k > 0 {
			fmt.Fprintf(w, "%s\t%.3f\t%.1f %%\n", s.Name, sc.Dice[k], 100*sc.RelativeError[k])
		}
	}
	fmt.Fprintf(w, "mean of 31\t%.3f\t\nhippocampus\t%.3f\t\n", sc.Mean31, sc.Hippocampus)
	if err := w.Flush(); err != nil {
		return err
	}
	if err := c.real(ctx, m, w); err != nil {
		return err
	}
	if c.Out == "" {
		return nil
	}
	if m.Provenance.Evaluation == nil {
		m.Provenance.Evaluation = map[string]float64{}
	}
	m.Provenance.Evaluation["final_heads"] = float64(c.Validate)
	m.Provenance.Evaluation["final_dice_31"] = sc.Mean31
	m.Provenance.Evaluation["final_dice_hippocampus"] = sc.Hippocampus
	m.Provenance.RelativeError = map[string]float64{}
	for k, s := range anatomy.Structures {
		if k > 0 {
			m.Provenance.RelativeError[s.Name] = sc.RelativeError[k]
		}
	}
	if err := c.calibrate(ctx, m, c.Errors, w); err != nil {
		return err
	}
	return writeModel(c.Out, m)
}

// real prints the accuracy on real heads, which took no part in training nor
// in the choice of weights.
func (c *evaluateCmd) real(ctx context.Context, m *segment.Model, w *tabwriter.Writer) error {
	if _, err := os.Stat(filepath.Join(c.Real, "bert_aseg.nii.gz")); err != nil {
		fmt.Printf("no real labelled heads in %s\n", c.Real)
		return nil
	}
	heads, err := train.RealHeads(c.Real)
	if err != nil {
		return err
	}
	scores, err := train.EvaluateReal(ctx, segment.New(m, 0), heads)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "real head\tlabels\tmean of 17\thippocampus\tcaudate, putamen, thalamus\thippocampal volume ratio\n")
	for _, s := range scores {
		by := "FreeSurfer"
		if s.Manual {
			by = "manual"
		}
		fmt.Fprintf(w, "%s\t%s\t%.3f\t%.3f\t%.3f\t%.2f\n", s.Name, by, s.Mean17, s.Hippocampus, s.DeepNuclei, s.VolumeRatio)
	}
	return w.Flush()
}
