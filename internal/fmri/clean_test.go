package fmri

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"neuroscreen/internal/volume"
)

func motionsOf(parameters []float64) (m []Motion) {
	for p := range slices.Chunk(parameters, 6) {
		m = append(m, Motion{MM: [3]float64(p[:3]), Rad: [3]float64(p[3:])})
	}
	return m
}

// TestCleaningEqualsNumpy: regressors are nilearn's, residuals those of numpy's
// least squares.
func TestCleaningEqualsNumpy(t *testing.T) {
	f := load(t).Cleaning
	motion := motionsOf(f.Parameters)
	q := &Quality{Outlier: f.Outlier, GlobalSignal: make([]float64, f.Frames)}
	tissue := seriesOf(f.Frames, f.Tissue)
	n := FindNuisance(tissue, motion, q, all(len(tissue.Voxels)), make([]bool, len(tissue.Voxels)), f.TR, PassBand)
	if !slices.Equal(n.Kept, f.Kept) {
		t.Errorf("kept %v", n.Kept)
	}
	wantClose(t, "cosines", slices.Concat(n.HighPass...), f.Cosines, 1e-8)
	wantClose(t, "motion", slices.Concat(n.Motion...), f.Motion, 1e-8)
	if len(n.WhiteMatter) != 5 || n.CSF != nil {
		t.Fatalf("%d and %d components", len(n.WhiteMatter), len(n.CSF))
	}
	for _, band := range []bool{false, true} {
		d := n.Design(band, false)
		rank, want := f.RankFull, f.Full
		if band {
			rank, want = f.RankBand, f.Band
		}
		if d.Rank != rank || d.DegreesOfFreedom != len(d.Frames)-rank {
			t.Errorf("rank %d, want %d; %d degrees of freedom of %d frames", d.Rank, rank, d.DegreesOfFreedom, len(d.Frames))
		}
		s := seriesOf(f.Frames, slices.Clone(f.Voxels))
		d.Clean(s)
		wantClose(t, "cleaned", s.Data, want, 1e-4)
		x := make([]float64, f.Frames)
		for i, v := range f.Voxels[:f.Frames] {
			x[i] = float64(v)
		}
		wantClose(t, "residual", d.Residual(x), want[:len(d.Frames)], 1e-6)
	}
	// The components span what numpy's SVD finds; their signs are free.
	var first []float64
	for t, k := range f.Kept {
		if k {
			first = append(first, math.Abs(n.WhiteMatter[0][t]))
		}
	}
	wantClose(t, "first component", first, f.First, 1e-4)
	d := NewDesign(f.Kept, n.WhiteMatter)
	ramp := make([]float64, len(d.Frames))
	for i := range ramp {
		ramp[i] = float64(i)
	}
	got := make([]float64, len(ramp))
	for _, c := range n.WhiteMatter {
		k := make([]float64, 0, len(ramp))
		for _, t := range d.Frames {
			k = append(k, c[t])
		}
		axpy(got, dot(k, ramp), k)
	}
	wantClose(t, "projection on the components", got, f.Projector, 1e-4)
}

// TestCleaningFindsTheSignal: of a signal under motion, drift, breathing, a
// tissue's fluctuation and spikes, the signal comes back.
func TestCleaningFindsTheSignal(t *testing.T) {
	const frames, tr = 300, 2.0
	rng := rand.New(rand.NewPCG(4, 4))
	motion := make([]Motion, frames)
	outlier := make([]bool, frames)
	tissue, csf := make([]float32, 40*frames), make([]float32, 40*frames)
	fluctuation := make([]float64, frames)
	for n := range frames {
		if n > 0 {
			motion[n] = motion[n-1]
		}
		for a := range 3 {
			motion[n].MM[a] += 0.03 * rng.NormFloat64()
			motion[n].Rad[a] += 0.0005 * rng.NormFloat64()
		}
		fluctuation[n] = rng.NormFloat64()
		outlier[n] = n == 70 || n == 71 || n == 200
	}
	for v := range 40 {
		for n := range frames {
			tissue[v*frames+n] = float32(500 + 5*fluctuation[n] + rng.NormFloat64())
			csf[v*frames+n] = float32(900 + rng.NormFloat64())
		}
	}
	signal, x := make([]float64, frames), make([]float64, frames)
	for n := range frames {
		s := float64(n) * tr
		// Two frequencies of the band, at bins of the run.
		signal[n] = 3*math.Sin(2*math.Pi*s*18/(frames*tr)) + 2*math.Cos(2*math.Pi*s*41/(frames*tr))
		x[n] = 1000 + signal[n] + 40*motion[n].MM[1] + 800*motion[n].Rad[0]*motion[n].Rad[0] + // motion
			20*float64(n)/frames + 6*math.Cos(math.Pi*(float64(n)+.5)*3/frames) + // drift
			8*math.Sin(2*math.Pi*s*80/(frames*tr)) + // breathing, .13 Hz
			4*fluctuation[n]
		if outlier[n] {
			x[n] += 300
		}
	}
	q := &Quality{Outlier: outlier, GlobalSignal: fluctuation}
	white, fluid := make([]bool, 80), make([]bool, 80)
	for v := range 40 {
		white[v], fluid[40+v] = true, true
	}
	nuisance := FindNuisance(seriesOf(frames, append(tissue, csf...)), motion, q, white, fluid, tr, PassBand)
	d := nuisance.Design(true, false)
	if d.DegreesOfFreedom < MinDegreesOfFreedom {
		t.Fatalf("%d degrees of freedom", d.DegreesOfFreedom)
	}
	clean := d.Residual(x)
	// The answer is what the same projection leaves of the signal alone.
	want := d.Residual(signal)
	off, size := 0.0, 0.0
	for i := range clean {
		off += (clean[i] - want[i]) * (clean[i] - want[i])
		size += want[i] * want[i]
	}
	t.Logf("%d of %d frames, %d degrees of freedom; error %.2f %% of the signal", len(d.Frames), frames, d.DegreesOfFreedom, 100*math.Sqrt(off/size))
	if off > 0.05*0.05*size { // what the estimated component misses of the fluctuation
		t.Errorf("the cleaned series is off by %.1f %% of the signal", 100*math.Sqrt(off/size))
	}
	kept := make([]float64, 0, len(d.Frames))
	for _, n := range d.Frames {
		kept = append(kept, signal[n])
	}
	if r := correlation(clean, kept); r < 0.75 {
		t.Errorf("correlation with the signal %.2f", r)
	}
	// In one projection nothing comes back: the residual is orthogonal to every
	// regressor, filter and motion alike.
	for _, g := range []Regressors{nuisance.Motion, nuisance.HighPass, nuisance.WhiteMatter, nuisance.CSF, nuisance.StopBand} {
		for c, column := range g {
			var k []float64
			for _, n := range d.Frames {
				k = append(k, column[n])
			}
			if l := math.Sqrt(dot(k, k) * dot(clean, clean)); l > 0 && math.Abs(dot(k, clean)) > 1e-6*l {
				t.Fatalf("column %d is left in the residual", c)
			}
		}
	}
	if with := nuisance.Design(true, true); with.DegreesOfFreedom > d.DegreesOfFreedom {
		t.Errorf("%d degrees of freedom with the global signal, %d without", with.DegreesOfFreedom, d.DegreesOfFreedom)
	}
}

func TestScrub(t *testing.T) {
	text := func(b []bool) (s string) {
		for _, v := range b {
			s += map[bool]string{true: "x", false: "."}[v]
		}
		return s
	}
	for outliers, want := range map[string]string{
		"............": "xxxxxxxxxxxx",
		"x...x.......": ".....xxxxxxx",
		".....x......": "xxxxx.xxxxxx",
		"......x....x": "xxxxxx......",
		"xxxxxxxxxxxx": "............",
	} {
		var o []bool
		for _, c := range outliers {
			o = append(o, c == 'x')
		}
		if got := text(Scrub(o)); got != want {
			t.Errorf("%s: kept %s, want %s", outliers, got, want)
		}
	}
}

func TestStopBandLeavesTheBand(t *testing.T) {
	for _, frames := range []int{100, 101} {
		kept := make([]bool, frames)
		for i := range kept {
			kept[i] = true
		}
		stop := StopBand(frames, 2, PassBand)
		in := 0
		for k := 1; k <= frames/2; k++ {
			if f := float64(k) / (2 * float64(frames)); f >= 0.008 && f <= 0.1 {
				in++
			}
		}
		if d := NewDesign(kept, stop); d.DegreesOfFreedom != 2*in {
			t.Errorf("%d frames: %d degrees of freedom, want %d", frames, d.DegreesOfFreedom, 2*in)
		}
	}
}

func TestDesignWithoutFrames(t *testing.T) {
	d := NewDesign(make([]bool, 30), Cosines(30, 2, 20))
	if d.DegreesOfFreedom != 0 || d.Rank != 0 {
		t.Errorf("rank %d, %d degrees of freedom of no frames", d.Rank, d.DegreesOfFreedom)
	}
	s := seriesOf(30, noise(60, 100, 1, 1))
	d.Clean(s)
	if s.Frames != 0 || len(s.Data) != 0 {
		t.Errorf("%d frames", s.Frames)
	}
}

func TestTissue(t *testing.T) {
	l := volume.NewLabels(volume.Grid{Shape: [3]int{9, 9, 9}, Affine: volume.Identity})
	for k := 1; k < 8; k++ {
		for j := 1; j < 8; j++ {
			for i := 1; i < 8; i++ {
				l.Data[l.Index(i, j, k)] = 2
			}
		}
	}
	l.Data[l.Index(0, 0, 0)] = 4
	if m, eroded := Tissue(l, WhiteMatterLabels); !eroded || count(m) != 125 {
		t.Errorf("eroded %v, %d voxels; want 5x5x5", eroded, count(m))
	}
	if m, eroded := Tissue(l, VentricleLabels); eroded || count(m) != 1 {
		t.Errorf("eroded %v, %d voxels; want the one", eroded, count(m))
	}
}
