package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"

	"gonum.org/v1/gonum/stat"

	"neuroscreen/internal/anatomy"
	"neuroscreen/internal/segment"
	"neuroscreen/internal/train"
	"neuroscreen/internal/train/synth"
)

type evaluateCmd struct {
	data
	chosen
	Real     string `help:"Folder of real labelled heads." default:"../shared/data/scans/t1"`
	Validate int    `help:"Held-out synthetic heads." default:"64"`
	Seen     bool   `help:"Draw synthetic heads from the maps that training saw: what better maps would not give."`
	Degraded int    `help:"Held-out heads of each kind of degradation; 0 leaves that table out." default:"8"`
	Out      string `help:"Write the weights here with this evaluation and the predicted errors of volumes in their header."`
	Errors   int    `help:"Synthetic heads on which predicted errors are calibrated, with --out." default:"200"`
}

func (c *evaluateCmd) Run(ctx context.Context) error {
	if c.Seen && c.Out != "" {
		return errors.New("--seen is no evaluation to write into weights: leave out --out")
	}
	weights, err := c.read()
	if err != nil {
		return err
	}
	n := segment.New(weights, 0)
	names := heldOut
	if c.Seen {
		names = trainingMaps()
	}
	heads, err := c.heads(names, 2, kind{synth.Evaluation, 1})
	if err != nil {
		return err
	}
	sc, byMap, err := train.EvaluateHeads(ctx, n, heads, c.Validate)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "%s; %d synthetic heads of maps %v\n", describe(weights), c.Validate, names)
	fmt.Fprintf(w, "structure\tDice\tvolume RMS error\tmean error\n")
	for k, s := range anatomy.Structures {
		if k > 0 {
			fmt.Fprintf(w, "%s\t%.3f\t%.1f %%\t%+.1f %%\n", s.Name, sc.Dice[k], 100*sc.RelativeError[k], 100*sc.Bias[k])
		}
	}
	fmt.Fprintf(w, "mean of 31\t%.3f\t\nhippocampus\t%.3f\t\n", sc.Mean, sc.Hippocampus)
	fmt.Fprintf(w, "\nby map\tmean of 31\thippocampus\tmean error: left\tright\tthird ventricle\n")
	l, _ := anatomy.ByName("Left-Hippocampus")
	third, _ := anatomy.ByName("3rd-Ventricle")
	for _, name := range slices.Sorted(maps.Keys(byMap)) {
		m := byMap[name]
		fmt.Fprintf(w, "%s\t%.3f\t%.3f\t%+.1f %%\t%+.1f %%\t%+.1f %%\n", name, m.Mean, m.Hippocampus, 100*m.Bias[l.Class], 100*m.Bias[l.Mirror], 100*m.Bias[third.Class])
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if err := c.degraded(ctx, n, names, w); err != nil {
		return err
	}
	if err := c.real(ctx, n, w); err != nil {
		return err
	}
	if c.Out == "" {
		return nil
	}
	weights.Evaluation = map[string]float64{"heads": float64(c.Validate), "dice": sc.Mean, "dice_hippocampus": sc.Hippocampus}
	weights.RelativeError = map[string]float64{}
	for k, s := range anatomy.Structures {
		if k > 0 {
			weights.RelativeError[s.Name] = sc.RelativeError[k]
		}
	}
	if err := c.calibrate(ctx, n, c.Errors, w); err != nil {
		return err
	}
	return writeWeights(c.Out, weights)
}

// degraded prints the accuracy on heads with one thing wrong.
func (c *evaluateCmd) degraded(ctx context.Context, n *segment.Network, names []string, w *tabwriter.Writer) error {
	if c.Degraded == 0 {
		return nil
	}
	l, _ := anatomy.ByName("Left-Hippocampus")
	fmt.Fprintf(w, "\ndegradation, %d heads each\tmean of 31\thippocampus\thippocampal volume RMS error\tmean error\n", c.Degraded)
	for _, d := range train.Degradations {
		heads, err := c.heads(names, 4, kind{d.Config, cmp.Or(d.VoxelMM, 1)})
		if err != nil {
			return err
		}
		sc, _, err := train.EvaluateHeads(ctx, n, heads, c.Degraded)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "%s\t%.3f\t%.3f\t%.1f %%\t%+.1f %%\n", d.Name, sc.Mean, sc.Hippocampus,
			100*math.Hypot(sc.RelativeError[l.Class], sc.RelativeError[l.Mirror])/math.Sqrt2, 50*(sc.Bias[l.Class]+sc.Bias[l.Mirror]))
	}
	fmt.Fprintln(w)
	return w.Flush()
}

// real prints the accuracy on real heads, which took no part in training nor
// in the choice of weights.
func (c *evaluateCmd) real(ctx context.Context, n *segment.Network, w *tabwriter.Writer) error {
	if _, err := os.Stat(filepath.Join(c.Real, "bert_aseg.nii.gz")); err != nil {
		fmt.Printf("no real labelled heads in %s\n", c.Real)
		return nil
	}
	heads, err := train.RealHeads(c.Real)
	if err != nil {
		return err
	}
	scores, err := train.EvaluateReal(ctx, n, heads)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "real head\tlabels\tmean of 17 (manual: 16)\thippocampus\tcaudate, putamen, thalamus\thippocampal volume ratio\n")
	for _, s := range scores {
		by := "FreeSurfer"
		if s.Manual {
			by = "manual"
		}
		fmt.Fprintf(w, "%s\t%s\t%.3f\t%.3f\t%.3f\t%.2f\n", s.Name, by, s.Mean17, s.Hippocampus, s.DeepNuclei, s.VolumeRatio)
	}
	byStructure(w, scores)
	return w.Flush()
}

// byStructure prints each structure's Dice against FreeSurfer's labels and against
// manual ones, which are of other people in other scans.
func byStructure(w *tabwriter.Writer, scores []train.RealScore) {
	structures := map[string]bool{}
	for _, s := range scores {
		for name := range s.Dice {
			structures[name] = true
		}
	}
	fmt.Fprintf(w, "\nreal heads by structure\tFreeSurfer\tmanual, mean\trange\tdisputed with FreeSurfer and decidable\timage on the network's side\n")
	for _, name := range slices.Sorted(maps.Keys(structures)) {
		var by, manual []float64
		for _, s := range scores {
			d, ok := s.Dice[name]
			switch {
			case !ok:
			case s.Manual:
				manual = append(manual, d)
			default:
				by = append(by, d)
			}
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t", name, meanOf(by), meanOf(manual))
		if len(manual) > 0 {
			fmt.Fprintf(w, "%.2f to %.2f", slices.Min(manual), slices.Max(manual))
		}
		fmt.Fprint(w, "\t")
		for _, s := range scores {
			if d, ok := s.Disputes[name]; ok && !s.Manual {
				fmt.Fprintf(w, "%d voxels\t%.0f %%", d.Decidable, 100*d.Ours)
			}
		}
		fmt.Fprintln(w)
	}
}

func meanOf(x []float64) string {
	if len(x) == 0 {
		return ""
	}
	return fmt.Sprintf("%.3f", stat.Mean(x, nil))
}
