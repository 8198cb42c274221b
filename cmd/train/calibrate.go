package main

import (
	"context"
	"fmt"
	"text/tabwriter"

	"neuroscreen/internal/anatomy"
	"neuroscreen/internal/segment"
	"neuroscreen/internal/train"
	"neuroscreen/internal/train/synth"
)

// calibrate fits the predicted errors of weights on heads of the held-out maps,
// every other one ordinary and the rest degraded, half of either in voxels as
// large as the networks' and half in others, and prints how they do on heads
// drawn after those.
func (d *data) calibrate(ctx context.Context, n *segment.Network, count int, w *tabwriter.Writer) error {
	heads, err := d.heads(heldOut, 3, kind{synth.Evaluation, 1}, kind{train.Degraded, 1}, kind{synth.Evaluation, .9}, kind{train.Degraded, .9})
	if err != nil {
		return err
	}
	seen, err := train.Observe(ctx, n, heads, 0, count)
	if err != nil {
		return err
	}
	fresh, err := train.Observe(ctx, n, heads, count, count/3)
	if err != nil {
		return err
	}
	n.Weights().Errors = seen.FitErrors()
	fmt.Fprintf(w, "errors predicted from %d heads, half of them degraded, on %d others\n", count, count/3)
	fmt.Fprintf(w, "structure\tpredicted\tmedian error\tspread\tcalmer half\tother half\tslope\tboth sides\n")
	for k, c := range fresh.Check(n.Weights().Errors) {
		if k > 0 {
			fmt.Fprintf(w, "%s\t%.1f %%\t%.1f %%\t%.2f\t%.1f %%\t%.1f %%\t%.2f\t%.2f\n",
				anatomy.Structures[k].Name, 100*c.Predicted, 100*c.Error, c.Spread, 100*c.Calmer, 100*c.Worrying, c.Slope, n.Weights().Errors[anatomy.Structures[k].Name].Pair)
		}
	}
	return w.Flush()
}
