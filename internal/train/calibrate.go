package train

import (
	"context"
	"math"

	"neuroscreen/internal/anatomy"
	"neuroscreen/internal/segment"
	"neuroscreen/internal/train/synth"
)

// Degraded draws heads on which the errors of volumes are calibrated: all that
// training saw, but for what the gates before the network refuse (other
// contrasts, heads that were cut).
func Degraded(shape [3]int, voxelMM float64) synth.Config {
	c := synth.Default(shape, voxelMM)
	c.T1, c.Cut = 1, 0
	c.Morph = 0 // there are too few other maps among those held out
	return c
}

// Observed holds what was seen of every structure, by class.
type Observed [anatomy.NumClasses][]segment.Observed

// Observe measures scans from to from+count-1 as the product does and compares
// with their labels. A structure of fewer than minVoxels in a scan is left out.
func Observe(ctx context.Context, n *segment.Network, h Heads, from, count int) (*Observed, error) {
	var seen Observed
	for i := range count {
		scan, labels, _ := h.At(from + i)
		voxel := scan.VoxelMM3()
		var truth [anatomy.NumClasses]float64
		for _, l := range labels {
			truth[l]++
		}
		got, err := n.Segment(ctx, scan)
		if err != nil {
			return nil, err
		}
		for k := 1; k < anatomy.NumClasses; k++ {
			if truth[k] >= minVoxels {
				// A structure that was not found counts as one voxel.
				e := math.Log(max(got.MM3[k]/voxel, 1) / truth[k])
				seen[k] = append(seen[k], segment.Observed{Signs: got.Signs[k], TrueMM3: truth[k] * voxel, Error: e, Head: from + i})
			}
		}
	}
	return &seen, nil
}

// FitErrors fits one error model for both sides of each structure.
func (o *Observed) FitErrors() map[string]segment.ErrorModel {
	models := map[string]segment.ErrorModel{}
	for k, st := range anatomy.Structures {
		if k == 0 || st.Side == anatomy.Right {
			continue
		}
		both := append([]segment.Observed(nil), o[k]...)
		if int(st.Mirror) != k {
			both = append(both, o[st.Mirror]...)
		}
		m := segment.FitErrors(both)
		if int(st.Mirror) != k {
			m.FitPair(inBoth(o[k], o[st.Mirror]))
		}
		models[st.Name], models[anatomy.Structures[st.Mirror].Name] = m, m
	}
	return models
}

// inBoth keeps the heads that show a structure on either side; both lists are
// in the order of the heads.
func inBoth(left, right []segment.Observed) (l, r []segment.Observed) {
	for len(left) > 0 && len(right) > 0 {
		switch a, b := left[0].Head, right[0].Head; {
		case a < b:
			left = left[1:]
		case a > b:
			right = right[1:]
		default:
			l, r = append(l, left[0]), append(r, right[0])
			left, right = left[1:], right[1:]
		}
	}
	return l, r
}

// Calibration is how predicted errors of one structure compare with real ones.
type Calibration struct {
	Heads            int
	Predicted        float64 // median
	Error            float64 // median without sign
	Spread           float64 // root mean square of error over prediction, each at most 4
	Calmer, Worrying float64 // mean error without sign of the half predicted to be smaller, and of the other
	Slope            float64 // of ln(measured) over ln(true): 1 follows every loss of volume, 0 none
}

// Check compares predictions with what was observed, by class.
func (o *Observed) Check(models map[string]segment.ErrorModel) (c [anatomy.NumClasses]Calibration) {
	for k, seen := range o {
		m, ok := models[anatomy.Structures[k].Name]
		if !ok || len(seen) == 0 {
			continue
		}
		predicted, errs := make([]float64, len(seen)), make([]float64, len(seen))
		for i, s := range seen {
			predicted[i], errs[i] = m.Predict(s.Signs), s.Error
			z := min(math.Abs(errs[i]/predicted[i]), 4)
			c[k].Spread += z * z / float64(len(seen))
		}
		c[k].Spread = math.Sqrt(c[k].Spread)
		c[k].Heads = len(seen)
		c[k].Predicted, _ = Spread(predicted)
		c[k].Error, _ = Spread(errs)
		var sum, count [2]float64
		for i, p := range predicted {
			half := 0
			if p > c[k].Predicted {
				half = 1
			}
			sum[half] += math.Abs(errs[i])
			count[half]++
		}
		c[k].Slope = followed(seen)
		c[k].Calmer, c[k].Worrying = sum[0]/max(1, count[0]), sum[1]/max(1, count[1])
	}
	return c
}

// followed is the slope of the least-squares line of ln(measured) over ln(true).
func followed(seen []segment.Observed) float64 {
	var meanTrue, meanError float64
	for _, s := range seen {
		meanTrue += math.Log(s.TrueMM3) / float64(len(seen))
		meanError += s.Error / float64(len(seen))
	}
	xx, xy := 0.0, 0.0
	for _, s := range seen {
		x := math.Log(s.TrueMM3) - meanTrue
		xx += x * x
		xy += x * (s.Error - meanError)
	}
	return 1 + xy/xx
}
