package qc

import (
	"math"
	"math/rand/v2"
	"testing"

	"neuroscreen/internal/nifti"
)

// TestForegroundIsThePlainLoops: parts of an image counted side by side add up.
func TestForegroundIsThePlainLoops(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for name, values := range map[string][]float32{
		"two levels": {0, 1}, "three": {-1, 0, 5}, "none finite": {nan, inf, -inf}, "some finite": {nan, -3, 0, inf, -inf, 7, 7, 7},
		"all the same": {4}, "largest": {math.MaxFloat32}, "many": nil,
		"both zeros": {-2, -2, float32(math.Copysign(0, -1)), 0, 0, 0},
	} {
		for _, shape := range [][3]int{{2, 2, 2}, {9, 4, 3}, {5, 3, 40}} {
			rng := rand.New(rand.NewPCG(1, uint64(shape[2])))
			data := make([]float32, shape[0]*shape[1]*shape[2])
			for i := range data {
				if values == nil {
					data[i] = float32(rng.IntN(100) - 20)
				} else {
					data[i] = values[rng.IntN(len(values))]
				}
			}
			img := &nifti.Image{Header: nifti.Header{Shape: shape[:]}, Data: data}
			for _, v := range data {
				img.NonFinite += one(v-v != 0)
			}
			if got, want := foregroundOf(img), plainForeground(data, shape); got != want {
				t.Errorf("%s, %v: %+v, want %+v", name, shape, got, want)
			}
		}
	}
}

func plainForeground(data []float32, shape [3]int) (f foreground) {
	lowest, zeros, lows := float32(0), 0, 0
	for _, v := range data {
		if v-v != 0 {
			continue
		}
		f.voxels++
		if v == 0 {
			zeros++
		}
		switch {
		case lows == 0 || v < lowest:
			lowest, lows = v, 1
		case v == lowest:
			lows++
		}
	}
	background := lowest
	if zeros > lows {
		background = 0
	}
	f.voxels -= max(zeros, lows)
	ni, nj := shape[0], shape[1]
	levels := map[float32]bool{}
	flat, seen := 0, 0
	for k := range shape[2] - 1 {
		for j := range nj - 1 {
			for i := range ni - 1 {
				at := i + ni*(j+nj*k)
				v := data[at]
				if v == background || v-v != 0 {
					continue
				}
				seen++
				if v == data[at+1] && v == data[at+ni] && v == data[at+ni*nj] {
					flat++
				}
				levels[v] = true
			}
		}
	}
	f.levels = min(len(levels), minGreyLevels)
	if seen > 0 {
		f.flat = float64(flat) / float64(seen)
	}
	return f
}
