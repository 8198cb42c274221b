package volume

import (
	"math"
	"slices"
)

// Percentiles returns the percentiles p (0 to 100) of the finite values of x,
// interpolated between neighbours in rank as numpy's default does. They are
// exact: values are ranked by two histograms, of the upper and then the lower
// half of their bits, so x is neither sorted nor copied. With no finite value
// all are NaN.
func Percentiles(x []float32, p ...float64) []float32 {
	high := make([]uint32, 1<<16)
	total := 0
	for _, v := range x {
		if v-v == 0 {
			high[rankBits(v)>>16]++
			total++
		}
	}
	out := make([]float32, len(p))
	if total == 0 {
		for n := range out {
			out[n] = float32(math.NaN())
		}
		return out
	}
	// The ranks asked for, and for each the high half it falls into and how
	// many values come before that half.
	type rank struct {
		n, below int
		high     uint32
		value    float32
	}
	ranks := make([]rank, 0, 2*len(p))
	at := make([]float64, len(p))
	for n, q := range p {
		at[n] = min(max(q, 0), 100) / 100 * float64(total-1)
		lo := int(at[n])
		ranks = append(ranks, rank{n: lo}, rank{n: min(lo+1, total-1)})
	}
	order := make([]*rank, len(ranks))
	for n := range ranks {
		order[n] = &ranks[n]
	}
	slices.SortFunc(order, func(a, b *rank) int { return a.n - b.n })
	var low [][]uint32
	wanted := make([]int32, 1<<16) // which of low an upper half has, from 1 on
	h, below := 0, 0
	for _, r := range order {
		for below+int(high[h]) <= r.n {
			below += int(high[h])
			h++
		}
		r.high, r.below = uint32(h), below
		if wanted[h] == 0 {
			low = append(low, make([]uint32, 1<<16))
			wanted[h] = int32(len(low))
		}
	}
	for _, v := range x {
		if v-v == 0 {
			b := rankBits(v)
			if l := wanted[b>>16]; l != 0 {
				low[l-1][b&0xffff]++
			}
		}
	}
	for _, r := range order {
		n := r.below
		for b, count := range low[wanted[r.high]-1] {
			if n += int(count); n > r.n {
				r.value = fromRankBits(r.high<<16 | uint32(b))
				break
			}
		}
	}
	for n := range out {
		lo, hi := float64(ranks[2*n].value), float64(ranks[2*n+1].value)
		out[n] = float32(lo + (hi-lo)*(at[n]-math.Floor(at[n])))
	}
	return out
}

// rankBits maps floats to integers of the same order.
func rankBits(v float32) uint32 {
	b := math.Float32bits(v)
	if b>>31 == 1 {
		return ^b
	}
	return b | 1<<31
}

func fromRankBits(b uint32) float32 {
	if b>>31 == 1 {
		return math.Float32frombits(b &^ (1 << 31))
	}
	return math.Float32frombits(^b)
}
