package qc

import (
	"fmt"

	"neuroscreen"
)

// limit of one metric: beyond review a reader must look twice, beyond refuse
// no score is given.
type limit struct {
	metric         string
	higherIsWorse  bool
	review, refuse float64
	code           string
	text           string  // with the value's verb, then the limit's
	scale          float64 // of both in the text
}

// limits of the metrics. "Real heads" are eleven T1-weighted heads of five
// studies, whole and stripped, labelled by the network; "ladders" are one of
// them with noise, slices and so on added step by step. Between the two the
// limits are a choice.
var limits = []limit{
	// Real heads .01 to .05. The hippocampal volume holds to 3 % up to .4 of
	// the ladder and is 6 % off at .6.
	{NoiseToContrast, true, 0.40, 0.80, "noise", "Noise is %.0f %% of the contrast between white and grey matter (limit %.0f %%).", 100},
	// Real heads .33 to .60. On the ladder of noise it passes 1.2 where volumes
	// begin to go wrong.
	{CJV, true, 0.85, 1.40, "blurred-tissues", "White and grey matter overlap: their joint variation is %.2f (limit %.2f).", 1},
	// Real heads 2 to 13. The network learns on stronger fields; half the
	// signal is a broken coil.
	{BiasPercent, true, 25, 50, "uneven-signal", "The signal of white matter varies by %.0f %% over the head (limit %.0f %%).", 1},
	// Real heads under 1. A ghost of 10 % of the signal is a third of the
	// contrast between grey and white matter.
	{GhostPercent, true, 4, 12, "motion", "Ghosts beside the head reach %.1f %% of the brain's signal (limit %.1f %%): the patient moved.", 1},
	// The networks see voxels of 1 mm; over 3 mm intake refuses (rounding apart).
	{VoxelMM, true, 2.05, 3.05, "coarse-voxels", "Voxels are %.3g mm long (limit %.3g mm): small structures are measured less exactly.", 1},
	// These two depend on the weights: look at them again with new ones. Real
	// heads .85 to .87 and .88 to .89; FLAIR .78 and .83, T2 .76 and .78.
	{Confidence, false, 0.80, 0.62, "unsure-labels", "The network is sure of its labels to %.0f %% only (limit %.0f %%).", 100},
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
