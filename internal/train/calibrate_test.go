package train

import (
	"context"
	"math"
	"math/rand/v2"
	"testing"

	"neuroscreen/internal/anatomy"
	"neuroscreen/internal/segment"
	"neuroscreen/internal/testdata"
	"neuroscreen/internal/train/synth"
)

func TestSidesShareAnErrorModel(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	var o Observed
	for k := 1; k < anatomy.NumClasses; k++ {
		for range 60 {
			s := segment.Signs{Doubt: .2 * r.Float64(), FlipOverlap: .2 * r.Float64(), FlipVolume: .1 * r.Float64(), CloserVolume: .1 * r.Float64()}
			v := 1500 * math.Exp(.6*r.NormFloat64())
			// Half of every loss of volume is seen.
			o[k] = append(o[k], segment.Observed{Signs: s, TrueMM3: v, Error: -.5*math.Log(v/1500) + s.Doubt*r.NormFloat64()})
		}
	}
	m := o.FitErrors()
	if len(m) != anatomy.NumClasses-1 || m["Left-Hippocampus"] != m["Right-Hippocampus"] {
		t.Fatalf("%d models; hippocampi %+v and %+v", len(m), m["Left-Hippocampus"], m["Right-Hippocampus"])
	}
	for k, c := range o.Check(m) {
		if k == 0 {
			continue
		}
		if c.Heads != 60 || c.Spread < .7 || c.Spread > 1.3 {
			t.Errorf("class %d: spread %.2f over %d heads", k, c.Spread, c.Heads)
		}
		if math.Abs(c.Slope-.5) > .2 {
			t.Errorf("class %d: slope %.2f, want .5", k, c.Slope)
		}
	}
}

// TestPredictedErrorsHoldOnFreshHeads: on heads that took no part in the
// calibration, errors are as large as the weights file predicts, and larger
// where it predicts larger ones.
func TestPredictedErrorsHoldOnFreshHeads(t *testing.T) {
	if testing.Short() {
		t.Skip("segments 30 heads")
	}
	n, err := segment.Default()
	if err != nil {
		t.Fatal(err)
	}
	w := n.Weights()
	if len(w.Errors) == 0 {
		t.Skip("the weights predict no errors: write them with train evaluate --out")
	}
	maps, err := synth.LoadMaps(testdata.Shared(t, "labelmaps"), w.Whole.Provenance.HeldOut...)
	if err != nil {
		t.Fatal(err)
	}
	var heads Heads
	for i, mm := range []float64{1, .9} {
		grid := HeadGrid(mm)
		for j, cfg := range []synth.Config{synth.Evaluation(grid.Shape, mm), Degraded(grid.Shape, mm)} {
			heads = append(heads, HeadKind{generated{synth.New(maps, cfg, uint64(91+2*i+j))}, grid})
		}
	}
	seen, err := Observe(context.Background(), n, heads, 0, 30)
	if err != nil {
		t.Fatal(err)
	}
	square, calmer, worrying, structures := 0.0, 0.0, 0.0, 0.0
	for k, c := range seen.Check(w.Errors) {
		if k == 0 || c.Heads == 0 {
			continue
		}
		structures++
		square += c.Spread * c.Spread
		calmer += c.Calmer / c.Predicted
		worrying += c.Worrying / c.Predicted
	}
	if spread := math.Sqrt(square / structures); spread < .75 || spread > 1.33 {
		t.Errorf("standardised errors spread by %.2f over all structures, want 1", spread)
	}
	if worrying < 1.15*calmer {
		t.Errorf("heads predicted to be worse have %.2f of the error of the others", worrying/calmer)
	}
}

type generated struct{ *synth.Generator }

func (g generated) At(i uint64) Sample {
	x := g.Sample(i)
	return Sample{Image: x.Image, Labels: x.Labels}
}
