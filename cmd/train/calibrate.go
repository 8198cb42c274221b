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

// calibrate fits the predicted errors of a model on heads of the held-out maps,
// every other one ordinary and the rest degraded, and prints how they do on
// heads drawn after those.
func (d data) calibrate(ctx context.Context, m *segment.Model, heads int, w *tabwriter.Writer) error {
	var s train.InTurn
	for _, cfg := range []func([3]int, float64) synth.Config{synth.Evaluation, train.Degraded} {
		one, err := d.samplers(1, heldOut, m.Architecture, cfg, 3)
		if err != nil {
			return err
		}
		s = append(s, one...)
	}
	n := segment.New(m, 0)
	seen, err := train.Observe(ctx, n, s, 0, heads)
	if err != nil {
		return err
	}
	fresh, err := train.Observe(ctx, n, s, heads, heads/3)
	if err != nil {
		return err
	}
	m.Provenance.Errors = seen.FitErrors()
	fmt.Fprintf(w, "errors predicted from %d heads, half of them degraded, on %d others\n", heads, heads/3)
	fmt.Fprintf(w, "structure\tpredicted\tmedian error\tspread\tcalmer half\tother half\tslope\n")
	for k, c := range fresh.Check(m.Provenance.Errors) {
		if k > 0 {
			fmt.Fprintf(w, "%s\t%.1f %%\t%.1f %%\t%.2f\t%.1f %%\t%.1f %%\t%.2f\n",
				anatomy.Structures[k].Name, 100*c.Predicted, 100*c.Error, c.Spread, 100*c.Calmer, 100*c.Worrying, c.Slope)
		}
	}
	return w.Flush()
}
