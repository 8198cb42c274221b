package synth

import "math"

// The network's input: negative values are 0, the 99.8th percentile over every
// third voxel along each axis is 1, and nothing is above 1.2. The segmenter
// does the same to scans.
const (
	normalTop     = .998
	normalCeiling = 1.2
)

// everyThird appends every third voxel along each axis, negative ones as 0.
func everyThird(dst, image []float32, n [3]int) []float32 {
	for z := 0; z < n[2]; z += 3 {
		for y := 0; y < n[1]; y += 3 {
			row := image[(z*n[1]+y)*n[0]:][:n[0]]
			for x := 0; x < len(row); x += 3 {
				dst = append(dst, max(row[x], 0))
			}
		}
	}
	return dst
}

// quantile returns the q quantile of x, 0 to 1, interpolated between
// neighbours in rank as numpy's default does. It reorders x.
func quantile(x []float32, q float64) float32 {
	at := q * float64(len(x)-1)
	k := int(at)
	lo := selectNth(x, k)
	if k+1 == len(x) {
		return lo
	}
	hi := float32(math.Inf(1))
	for _, v := range x[k+1:] {
		hi = min(hi, v)
	}
	return float32(float64(lo) + (float64(hi)-float64(lo))*(at-float64(k)))
}

// selectNth returns the value that sorting would put at k, and moves nothing
// smaller behind it and nothing larger before it (Hoare 1961,
// doi:10.1145/366622.366647).
func selectNth(x []float32, k int) float32 {
	lo, hi := 0, len(x)-1
	for lo < hi {
		pivot := x[k]
		i, j := lo, hi
		for i <= j {
			for x[i] < pivot {
				i++
			}
			for pivot < x[j] {
				j--
			}
			if i <= j {
				x[i], x[j] = x[j], x[i]
				i++
				j--
			}
		}
		if j < k {
			lo = i
		}
		if k < i {
			hi = j
		}
	}
	return x[k]
}
