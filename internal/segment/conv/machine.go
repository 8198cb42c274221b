package conv

import (
	"slices"
	"time"
)

// peakRound is what a round of the peak kernel multiplies and adds.
const peakRound = 192

// PeakGMAC measures how many thousand million multiply-adds a second the kernels in use can make on
// so many threads, when they wait for no memory: what a network's speed is compared with.
func PeakGMAC(threads int) float64 {
	const rounds = 2_000_000
	e := NewEngine(threads)
	return best(func() {
		e.each(threads, func(_ *worker, _ int) { e.k.peak(&peakArgs{n: rounds}) })
	}, float64(threads)*rounds*peakRound)
}

// BandwidthGB measures how many gigabytes a second so many threads read and write together, in sums
// of vectors that no cache holds.
func BandwidthGB(threads int) float64 {
	const floats = 16 << 20 // of each vector and thread
	e := NewEngine(threads)
	vectors := make([][2][]float32, threads)
	for i := range vectors {
		vectors[i] = [2][]float32{make([]float32, floats), make([]float32, floats)}
	}
	return best(func() {
		e.each(threads, func(_ *worker, task int) {
			e.k.add(&addArgs{dst: vectors[task][0], src: vectors[task][1], n: floats})
		})
	}, float64(threads)*floats*4*3) // two are read, one is written
}

// best is the greatest rate of several runs, in thousand millions of units a second: other work on
// the machine only ever slows one down.
func best(run func(), units float64) float64 {
	var rates []float64
	for range 7 {
		begun := time.Now()
		run()
		rates = append(rates, units/time.Since(begun).Seconds()/1e9)
	}
	return slices.Max(rates)
}
