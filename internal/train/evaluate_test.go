package train

import (
	"math"
	"testing"

	"neuroscreen/internal/anatomy"
)

func TestTally(t *testing.T) {
	const k = 14 // the left hippocampus
	labels := func(of uint8, n, from int) []uint8 {
		l := make([]uint8, 100)
		for i := range n {
			l[from+i] = of
		}
		return l
	}
	var y tally
	y.add(labels(k, 24, 0), labels(k, 20, 0), nil)                                        // a fifth too large
	y.add(labels(k, 20, 4), labels(k, 20, 0), nil)                                        // as large, four voxels beside
	y.add(labels(k, 40, 0), labels(k, 40, 0), &[anatomy.NumClasses]float64{0: 68, k: 32}) // labels right, measured a fifth too small
	y.add(labels(k, 9, 0), labels(k, 9, 50), nil)                                         // too little to count its volume
	sc := y.scores([]anatomy.Class{k})
	for _, c := range []struct {
		what      string
		got, want float64
	}{
		{"Dice", sc.Dice[k], 2 * (20. + 16 + 40) / (44. + 40 + 80 + 18)},
		{"mean", sc.Mean, sc.Dice[k]},
		{"hippocampus", sc.Hippocampus, sc.Dice[k]},
		{"RMS error", sc.RelativeError[k], math.Sqrt((.2*.2 + .2*.2) / 3)},
		{"mean error", sc.Bias[k], 0},
	} {
		if math.Abs(c.got-c.want) > 1e-12 {
			t.Errorf("%s %.4f, want %.4f", c.what, c.got, c.want)
		}
	}
	y.add(labels(k, 18, 0), labels(k, 20, 0), nil)
	if sc := y.scores([]anatomy.Class{k}); math.Abs(sc.Bias[k]+.1/4) > 1e-12 {
		t.Errorf("mean error %.4f", sc.Bias[k])
	}
}
