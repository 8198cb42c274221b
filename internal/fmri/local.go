package fmri

import (
	"math"
	"slices"
)

// Amplitudes returns for each voxel how strongly its signal fluctuates in the
// pass band: ALFF, an SD in percent of the voxel's mean, and fALFF, that SD over
// the SD of the whole spectrum (Zou 2008, doi:10.1016/j.jneumeth.2008.04.012,
// with SDs as C-PAC has them). Both are 0 where nothing varies. band and full
// are Nuisance's designs of the pass band and of the whole spectrum.
func Amplitudes(s *Series, band, full *Design) (alff, falff []float32) {
	alff, falff = make([]float32, len(s.Voxels)), make([]float32, len(s.Voxels))
	n := len(full.Frames)
	if band.DegreesOfFreedom == 0 {
		return alff, falff
	}
	parts(len(s.Voxels), func(_, from, to int) {
		of := between(from, to)
		slow, whole := band.block(s, of), full.block(s, of)
		defer giveBack(slow)
		defer giveBack(whole)
		for v := from; v < to; v++ {
			a, f := sd(slow[(v-from)*n:][:n], band), sd(whole[(v-from)*n:][:n], full)
			level := 0.0
			for _, x := range s.Voxel(v) {
				level += float64(x)
			}
			level /= float64(s.Frames)
			if level > 0 {
				alff[v] = float32(100 * a / level)
			}
			if f > 1e-6*math.Abs(level) {
				falff[v] = float32(a / f)
			}
		}
	})
	return alff, falff
}

// sd that a series would have if only frequencies had been taken out, of what a
// design left of it: sqrt(ss/dof * passes/(frames-1)). Scrubbed frames and
// nuisance take degrees of freedom, most of those of a narrow band; without the
// scaling, the more is cleaned and the shorter the run, the weaker the signal.
func sd(left []float64, d *Design) float64 {
	return math.Sqrt(dot(left, left) / float64(d.DegreesOfFreedom) * float64(d.passes) / float64(d.total-1))
}

// minNeighbours of 27, itself included, that a voxel's ReHo is worked out from:
// at the brain's rim fewer lie inside, and with few the measure only grows.
const minNeighbours = 14

// ReHo returns for each voxel of a cleaned series the regional homogeneity:
// Kendall's W of its frames and those of the up to 26 voxels around it,
// W = 12 S / (K² (n³-n)), S the sum of squares of the rank sums about their mean
// (Zang 2004, doi:10.1016/j.neuroimage.2003.12.030). Ties get their mean rank.
// It is 0 where fewer than 14 of the 27 are in the series. The series is overwritten with its ranks.
func ReHo(s *Series, shape [3]int) []float32 {
	n := s.Frames
	out := make([]float32, len(s.Voxels))
	if n < 2 {
		return out
	}
	at := make([]int32, shape[0]*shape[1]*shape[2]) // 1 + the voxel's number
	for v, p := range s.Voxels {
		at[p] = int32(v + 1)
	}
	parts(len(s.Voxels), func(_, from, to int) {
		order, x := make([]int, n), make([]float32, n)
		for v := from; v < to; v++ {
			copy(x, s.Voxel(v))
			rank(s.Voxel(v), x, order)
		}
	})
	parts(len(s.Voxels), func(_, from, to int) {
		sum := make([]float32, n)
		for v := from; v < to; v++ {
			clear(sum)
			p := int(s.Voxels[v])
			i, j, k := p%shape[0], p/shape[0]%shape[1], p/(shape[0]*shape[1])
			neighbours := 0
			for dk := max(k-1, 0); dk <= min(k+1, shape[2]-1); dk++ {
				for dj := max(j-1, 0); dj <= min(j+1, shape[1]-1); dj++ {
					for di := max(i-1, 0); di <= min(i+1, shape[0]-1); di++ {
						o := int(at[di+shape[0]*(dj+shape[1]*dk)]) - 1
						if o < 0 {
							continue
						}
						neighbours++
						for t, r := range s.Voxel(o) {
							sum[t] += r
						}
					}
				}
			}
			if neighbours < minNeighbours {
				continue
			}
			K, N := float64(neighbours), float64(n)
			middle := K * (N + 1) / 2
			S := 0.0
			for _, r := range sum {
				S += (float64(r) - middle) * (float64(r) - middle)
			}
			out[v] = float32(12 * S / (K * K * (N*N*N - N)))
		}
	})
	return out
}

// rank writes the rank of each value, from 1 on; order is scratch.
func rank(dst, x []float32, order []int) {
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		switch {
		case x[a] < x[b]:
			return -1
		case x[a] > x[b]:
			return 1
		}
		return 0
	})
	for i := 0; i < len(order); {
		j := i + 1
		for j < len(order) && x[order[j]] == x[order[i]] {
			j++
		}
		for _, o := range order[i:j] {
			dst[o] = float32(i+1+j) / 2 // the mean of ranks i+1 to j
		}
		i = j
	}
}
