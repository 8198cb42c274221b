package qc

import (
	"fmt"

	"neuroscreen"
)

// limit of one metric.
type limit struct {
	metric         string
	higherIsWorse  bool
	review, refuse float64
	code           string
	text           string // with the value's verb, then the limit's
	scale          float64
}

// limits of the metrics, each with where it comes from.
var limits = []limit{
	// SOURCES-HERE
	{NoiseToContrast, true, 0.45, 0.9, "noise", "Noise is %.0f %% of the contrast between white and grey matter (limit %.0f %%).", 100},
	{CJV, true, 0.75, 1.2, "blurred-tissues", "White and grey matter overlap: their joint variation is %.2f (limit %.2f).", 1},
	{BiasPercent, true, 18, 40, "uneven-signal", "The signal of white matter varies by %.0f %% over the head (limit %.0f %%).", 1},
	{GhostPercent, true, 4, 12, "motion", "Ghosts beside the head reach %.1f %% of the brain's signal (limit %.1f %%): the patient moved.", 1},
	{VoxelMM, true, 2.05, 3.05, "coarse-voxels", "Voxels are %.2g mm long (limit %.2g mm): small structures are measured less exactly.", 1},
	{Confidence, false, 0.80, 0.60, "unsure-labels", "The network is sure of its labels to %.0f %% only (limit %.0f %%).", 100},
	{FlipDice, false, 0.85, 0.70, "unstable-labels", "Labels of the head and of its mirror image agree to %.0f %% only (limit %.0f %%).", 100},
}

// judge returns the verdict on a metric, with its reason unless it passes. An
// absent metric passes.
func (l limit) judge(metrics map[string]float64) (neuroscreen.Reason, neuroscreen.Verdict) {
	value, ok := metrics[l.metric]
	worse := func(bound float64) bool { return l.higherIsWorse && value > bound || !l.higherIsWorse && value < bound }
	switch {
	case ok && worse(l.refuse):
		return reason(l.code, fmt.Sprintf(l.text, l.scale*value, l.scale*l.refuse), value, l.refuse), neuroscreen.VerdictRefuse
	case ok && worse(l.review):
		return reason(l.code, fmt.Sprintf(l.text, l.scale*value, l.scale*l.review), value, l.review), neuroscreen.VerdictReview
	}
	return neuroscreen.Reason{}, neuroscreen.VerdictPass
}
