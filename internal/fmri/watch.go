package fmri

import (
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/mat"

	"neuroscreen"
	"neuroscreen/internal/volume"
)

// FewUsableFrames says that outliers leave too little of a run.
const FewUsableFrames = "few-usable-frames"

const (
	// unsteady is the relative difference of mean signal from the reference at
	// which it, and all before it, was a dummy scan: saturation of the first
	// volumes is several times that, breathing a fraction.
	unsteady    = 0.02
	unsteadyFor = 10 // volumes that may bring a new reference
	// judgedFrom so many frames on, a run is judged; before, a few frames decide.
	judgedFrom = 20
	tsnrFrom   = 10 // frames: with fewer, the trend takes most of what varies
	// watchedVoxels bounds the voxels whose whole course is kept: what DVARS is
	// expected to be is a mean over them, good to some 1 %.
	watchedVoxels = 2048
	// expectedOften: on every frame at first, then on every tenth.
	expectedOften = 40
)

// WatchMemory is what a Watch takes for volumes of so many voxels, at most, in
// bytes, without the volumes themselves.
func WatchMemory(voxels int) int64 { return 16<<20 + 100*int64(voxels) }

// Watch judges a run volume by volume while it is acquired. It aligns each
// volume with the first usable one and keeps sums over time, so that a volume
// takes the same time however long the run is. The definitions are Assess's;
// what differs is what can't be known yet (docs/fmri.md).
type Watch struct {
	tr     float64
	expect int
	volume int // that came

	grid       volume.Grid
	follow     *aligner // nil before the reference
	scratch    *scratch
	level      float64 // mean signal of the reference
	scale      float64 // 1000 over its median in the head
	dummies    int
	motion     []Motion
	dvars      []float64
	expected   float64 // DVARS, 0 while unknown
	voxels     []watched
	sampleStep int
	series     [][]float32 // of every sampleStep-th voxel
}

// watched is a voxel's course, as deviation from its first value.
type watched struct {
	at               int32
	lost             bool // out of the field of view once
	first, last      float32
	sum, sumT, sumT2 float64 // of the deviation, and with time and time squared
	squares          float64
}

// NewWatch of a run with the repetition time in seconds and, if it is known, the
// number of volumes that it will have, else 0.
func NewWatch(tr float64, expect int) *Watch { return &Watch{tr: tr, expect: expect} }

// Add judges the next volume, which it may change.
//
// Errors, after which the volume counts as not given: CodeUnprocessable
// NotAligned when the first volume shows no head; GridsDiffer.
func (w *Watch) Add(g volume.Grid, v []float32) (neuroscreen.WatchedVolume, error) {
	if len(v) != g.Len() {
		panic(fmt.Sprintf("fmri: %d values for %v voxels", len(v), g.Shape))
	}
	sum := 0.0
	for i, x := range v {
		if x-x != 0 {
			v[i] = 0
		}
		sum += float64(v[i])
	}
	level := sum / float64(len(v))
	switch {
	case w.follow != nil && !g.Near(w.grid, sameGridMM):
		return neuroscreen.WatchedVolume{}, gridsDiffer("the volume of %v voxels has another grid than the reference of %v", g.Shape, w.grid.Shape)
	case w.follow == nil, w.volume < unsteadyFor && math.Abs(level-w.level) > unsteady*math.Abs(w.level):
		if err := w.refer(g, v, level); err != nil {
			return neuroscreen.WatchedVolume{}, err
		}
	}
	w.volume++
	t := len(w.motion)
	var m Motion
	if t > 0 {
		copy(w.scratch.levels[0], v)
		m = w.follow.align(w.scratch, Motion{})
	}
	w.motion = append(w.motion, m)
	w.dvars = append(w.dvars, w.take(v, t, m))
	out := neuroscreen.WatchedVolume{Volume: w.volume, Motion: m.Parameters(), DVARS: w.dvars[t], Reference: t == 0}
	if t > 0 {
		out.FDMM = FramewiseDisplacement(w.motion[t-1:])[1]
	}
	if n := len(w.motion); n <= expectedOften || n%10 == 0 {
		w.updateExpected()
	}
	out.Outlier = w.outlier(t, out.FDMM)
	if w.expected > 0 {
		std := w.dvars[t] / w.expected
		out.StdDVARS = &std
	}
	out.TSNR = w.tsnr()
	return out, nil
}

// refer makes a volume the reference and forgets what was before.
func (w *Watch) refer(g volume.Grid, v []float32, level float64) error {
	follow := newAligner(g, v)
	if follow == nil {
		return neuroscreen.Errorf(neuroscreen.CodeUnprocessable, NotAligned, "the volume of %v voxels shows too little of a head to be followed", g.Shape)
	}
	*w = Watch{tr: w.tr, expect: w.expect, volume: w.volume, dummies: w.volume, grid: g, follow: follow, scratch: follow.scratch(), level: level}
	threshold := signalShare * volume.Percentiles(v, 98)[0]
	var head []float32
	for at, x := range v {
		if x > threshold {
			w.voxels = append(w.voxels, watched{at: int32(at), first: x, last: x})
			head = append(head, x)
		}
	}
	w.scale = 1000 / float64(volume.Percentiles(head, 50)[0])
	w.sampleStep = (len(head) + watchedVoxels - 1) / watchedVoxels
	w.series = make([][]float32, (len(head)+w.sampleStep-1)/w.sampleStep)
	return nil
}

// take adds frame t to the voxels' sums and returns its DVARS.
func (w *Watch) take(v []float32, t int, m Motion) float64 {
	moved := m != (Motion{})
	var to volume.Affine
	if moved {
		prefilter(v, w.grid.Shape)
		to = w.grid.Affine.Inverse().Mul(m.Affine(w.follow.centre)).Mul(w.grid.Affine)
	}
	type sums struct {
		change float64
		n      int
	}
	of := make([]sums, numParts(len(w.voxels)))
	nx, ny := w.grid.Shape[0], w.grid.Shape[1]
	time := float64(t)
	parts(len(w.voxels), func(p, from, until int) {
		var s sums
		for n := from; n < until; n++ {
			x := &w.voxels[n]
			y := v[x.at]
			if moved && !x.lost {
				at := int(x.at)
				var ok bool
				y, ok = spline(v, w.grid.Shape, to.Apply([3]float64{float64(at % nx), float64(at / nx % ny), float64(at / (nx * ny))}))
				x.lost = !ok
			}
			if n%w.sampleStep == 0 {
				w.series[n/w.sampleStep] = append(w.series[n/w.sampleStep], y)
			}
			if x.lost {
				continue
			}
			d := float64(y) - float64(x.first)
			x.sum += d
			x.sumT += time * d
			x.sumT2 += time * time * d
			x.squares += d * d
			if x.squares > 0 { // a voxel that never varied takes no part
				change := w.scale * (float64(y) - float64(x.last))
				s.change += change * change
				s.n++
			}
			x.last = y
		}
		of[p] = s
	})
	change, n := 0.0, 0
	for _, s := range of {
		change += s.change
		n += s.n
	}
	return math.Sqrt(change / float64(max(n, 1)))
}

// updateExpected works out what DVARS is expected to be, of the voxels that are kept.
func (w *Watch) updateExpected() {
	n := len(w.motion)
	if n < 4 {
		return
	}
	sds := make([]float64, len(w.series))
	parts(len(w.series), func(_, from, to int) {
		x, sorted := make([]float64, n), make([]float64, n)
		for s := from; s < to; s++ {
			if w.voxels[s*w.sampleStep].lost {
				continue
			}
			for t, y := range w.series[s] {
				x[t] = float64(y)
			}
			copy(sorted, x)
			slices.Sort(sorted)
			if sd := w.scale * (sorted[3*(n-1)/4] - sorted[(n-1)/4]) / 1.349; sd > minSD {
				sds[s] = sd * math.Sqrt(2*(1-ar1(x)))
			}
		}
	})
	sum, varying := 0.0, 0
	for _, sd := range sds {
		if sd > 0 {
			sum += sd
			varying++
		}
	}
	w.expected = sum / float64(max(varying, 1))
}

func (w *Watch) outlier(t int, fd float64) bool {
	return fd > MaxFD || w.expected > 0 && w.dvars[t]/w.expected > MaxStdDVARS
}

// tsnr is the median over voxels of the mean over the SD that a quadratic trend
// leaves: least squares by the sums.
func (w *Watch) tsnr() *float64 {
	n := len(w.motion)
	if n < tsnrFrom {
		return nil
	}
	var power [5]float64
	for t := range n { // time from 0 to 1, or the matrix would be close to singular
		p := 1.0
		for k := range power {
			power[k] += p
			p *= float64(t) / float64(n)
		}
	}
	gram := mat.NewSymDense(3, []float64{power[0], power[1], power[2], power[1], power[2], power[3], power[2], power[3], power[4]})
	var inverse mat.Dense
	if err := inverse.Inverse(gram); err != nil {
		return nil // never with so many frames
	}
	var q [3][3]float64
	for i := range 3 {
		for j := range 3 {
			q[i][j] = inverse.At(i, j)
		}
	}
	out := make([]float32, 0, len(w.voxels))
	for i := range w.voxels {
		x := &w.voxels[i]
		if x.lost {
			continue
		}
		b := [3]float64{x.sum, x.sumT / float64(n), x.sumT2 / float64(n*n)}
		rest := x.squares
		for i := range 3 {
			for j := range 3 {
				rest -= b[i] * q[i][j] * b[j]
			}
		}
		mean := float64(x.first) + x.sum/float64(n)
		if sd := math.Sqrt(max(rest, 0) / float64(n)); sd > 1e-6*math.Abs(mean) {
			out = append(out, float32(mean/sd))
		} else {
			out = append(out, 0)
		}
	}
	if len(out) == 0 {
		return nil
	}
	v := float64(volume.Percentiles(out, 50)[0])
	return &v
}

// Summary of the run so far; ended when nothing more will come.
func (w *Watch) Summary(ended bool) neuroscreen.WatchSummary {
	s := neuroscreen.WatchSummary{Volumes: w.volume, Expect: w.expect, DummyScans: w.dummies, Frames: len(w.motion), TSNR: w.tsnr(), Reasons: []neuroscreen.Reason{}}
	if s.Frames == 0 {
		return s
	}
	w.updateExpected()
	for t, fd := range FramewiseDisplacement(w.motion) {
		s.MeanFDMM += fd / float64(max(s.Frames-1, 1))
		s.MaxFDMM = max(s.MaxFDMM, fd)
		if w.outlier(t, fd) {
			s.OutlierFrames++
		}
	}
	s.OutlierShare = float64(s.OutlierFrames) / float64(s.Frames)
	usable := w.tr * float64(s.Frames-s.OutlierFrames)
	s.UsableMinutes = usable / 60
	say := func(code string, value, limit float64, format string) {
		s.Reasons = append(s.Reasons, neuroscreen.Reason{Code: code, Text: fmt.Sprintf(format, value, limit), Value: &value, Limit: &limit})
	}
	if s.Frames >= judgedFrom || ended {
		switch {
		case s.MeanFDMM > MostMeanFD:
			s.Repeat = true
			say(HeadMotion, s.MeanFDMM, MostMeanFD, "The head moves by %.2f mm from volume to volume on average (limit %.2f mm): measures of this run could not be compared.")
		case s.MeanFDMM > ReviewMeanFD:
			say(HeadMotion, s.MeanFDMM, ReviewMeanFD, "The head moves by %.2f mm from volume to volume on average (limit %.2f mm).")
		}
		if s.TSNR != nil && *s.TSNR < ReviewTSNR {
			say(LowTSNR, *s.TSNR, ReviewTSNR, "The signal is %.0f times its noise over time at the median (limit %.0f).")
		}
	}
	// At best, none of the volumes to come is an outlier.
	best := usable
	if !ended {
		best += w.tr * float64(max(w.expect-w.volume, 0))
	}
	if (ended || w.expect > 0) && best < MinSeconds {
		s.Repeat = true
		say(FewUsableFrames, best/60, float64(MinSeconds)/60, "The run leaves at most %.1f usable minutes (limit %.1f): make it longer or repeat it.")
	}
	return s
}
