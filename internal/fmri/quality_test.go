package fmri

import (
	"context"
	"math"
	"slices"
	"testing"

	"neuroscreen/internal/volume"
)

func TestFramewiseDisplacement(t *testing.T) {
	f := load(t).Displacement
	var m []Motion
	for p := range slices.Chunk(f.Parameters, 6) {
		m = append(m, Motion{MM: [3]float64(p[:3]), Rad: [3]float64(p[3:])})
	}
	got := FramewiseDisplacement(m)
	if got[0] != 0 {
		t.Errorf("the first frame moved by %g", got[0])
	}
	wantClose(t, "FD", got[1:], f.FD, 1e-6)
}

func TestAssess(t *testing.T) {
	f := load(t).Quality
	q := Assess(seriesOf(f.Frames, f.Data), make([]Motion, f.Frames), f.TR)
	wantClose(t, "DVARS", q.DVARS[1:], f.DVARS, 1e-5) // nipype works in float32
	wantClose(t, "standardised DVARS", q.StdDVARS[1:], f.StdDVARS, 1e-5)
	wantClose(t, "tSNR", q.TSNR, f.TSNR, 1e-5)
	wantClose(t, "share of outliers", q.OutlierShare, f.OutlierShare, 1e-9)
	wantClose(t, "global signal", q.GlobalSignal, f.Global, 1e-8)
	wantClose(t, "drift", []float64{q.DriftPercentPerMinute}, []float64{f.Drift}, 1e-6)
	if !q.Outlier[30] || !q.Outlier[31] || q.Outlier[10] || q.DVARS[0] != 0 || q.StdDVARS[0] != 0 {
		t.Errorf("outliers %v", q.Outlier)
	}
	if !slices.Contains(q.Spikes, 30) || slices.Contains(q.Spikes, 20) {
		t.Errorf("spikes at %v, one was put at 30", q.Spikes)
	}
	var tsnr []float64
	for _, v := range f.TSNR {
		tsnr = append(tsnr, v)
	}
	if m := median(tsnr); math.Abs(q.MedianTSNR-m) > 1e-4*m {
		t.Errorf("median tSNR %g, want %g", q.MedianTSNR, m)
	}
	if len(Assess(seriesOf(f.Frames, f.Data), make([]Motion, f.Frames), f.TR).FD) != f.Frames {
		t.Error("no FD")
	}
}

func TestSpline(t *testing.T) {
	f := load(t).Spline
	c := slices.Clone(f.Data)
	prefilter(c, f.Shape)
	for n, p := range f.At {
		got, ok := spline(c, f.Shape, p)
		if !ok || math.Abs(float64(got)-f.Values[n]) > 2e-4*100 {
			t.Fatalf("at %v: %g, %v; scipy has %g", p, got, ok, f.Values[n])
		}
	}
	for _, p := range [][2][3]float64{{{-0.6, 1, 1}, {-0.5, 1, 1}}, {{3, 99, 2}, {3, 5.5, 2}}, {{3, 2, -80}, {3, 2, -0.5}}} {
		edge, inside := spline(c, f.Shape, p[1])
		if got, ok := spline(c, f.Shape, p[0]); ok || !inside || got != edge {
			t.Errorf("at %v: %g, %v; at the edge %g", p[0], got, ok, edge)
		}
	}
	if _, ok := spline(c, f.Shape, [3]float64{1, math.NaN(), 1}); ok {
		t.Error("a value from nowhere")
	}
}

// movedRun is a head of the project that nods, shifts and jumps, acquired anew
// in every frame, and how it moved.
func movedRun(t testing.TB, frames int, tr float64) (*Run, []Motion, volume.Grid) {
	t.Helper()
	v, g := head(t)
	smooth := volume.Blur(v, volume.AntiAlias(g, v.Grid), 0)
	motions := make([]Motion, frames)
	data := make([]float32, frames*g.Len())
	err := each(context.Background(), frames, func(n int) error {
		x := float64(n) / float64(frames)
		m := Motion{MM: [3]float64{0.3 * math.Sin(9*x), 0.2 * math.Cos(5*x), 0.8 * x}, Rad: [3]float64{0.01 * x, 0, 0.004 * math.Sin(7*x)}}
		if n >= frames/2 {
			m.MM[1] += 1 // a jump
		}
		motions[n] = m
		w := m.Affine(g.Centre())
		moved := volume.Resample(smooth, volume.Grid{Shape: g.Shape, Affine: w.Inverse().Mul(g.Affine)}, volume.Options{Threads: 1})
		copy(data[n*g.Len():], moved.Data)
		for i, e := range noise(g.Len(), 0, 1.5, uint64(n)) {
			data[n*g.Len()+i] += e
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return runOf(t, g.Shape, g.Affine, tr, data), motions, g
}

// TestAlignedSeries follows a moving head from volumes to quality: the motion
// is found, and the aligned frames hold still.
func TestAlignedSeries(t *testing.T) {
	ctx := context.Background()
	r, motions, g := movedRun(t, 24, 2)
	al, err := Realign(ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	// FD about another centre differs by the rotation alone: compare about the same.
	for n := range motions {
		w := al.Motion[n].Affine(al.Centre)
		truth := motions[n].Affine(g.Centre()).Mul(motions[al.Reference].Affine(g.Centre()).Inverse())
		p, q := w.Apply(g.Centre()), truth.Apply(g.Centre())
		for a := range 3 {
			if math.Abs(p[a]-q[a]) > 0.05 {
				t.Fatalf("frame %d: the centre goes to %v, want %v", n, p, q)
			}
		}
	}
	mean, err := r.MeanImage(ctx, al)
	if err != nil {
		t.Fatal(err)
	}
	threshold := volume.Percentiles(mean.Data, 80)[0]
	mask := make([]bool, r.Len())
	for i, v := range mean.Data {
		mask[i] = v > threshold
	}
	aligned, err := r.Series(ctx, al, mask)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := r.Series(ctx, nil, mask)
	if err != nil {
		t.Fatal(err)
	}
	qa, qr := Assess(aligned, al.Motion, 2), Assess(raw, al.Motion, 2)
	jump := r.Frames / 2
	if qa.FD[jump] < 0.8 || qa.FD[jump] > 1.6 || !qa.Outlier[jump] {
		t.Errorf("FD at the jump of 1 mm is %.2f mm", qa.FD[jump])
	}
	t.Logf("median tSNR %.1f before, %.1f after; DVARS at the jump %.1f and %.1f", qr.MedianTSNR, qa.MedianTSNR, qr.DVARS[jump], qa.DVARS[jump])
	if qa.MedianTSNR < 1.3*qr.MedianTSNR {
		t.Errorf("median tSNR %.1f before, %.1f after realignment", qr.MedianTSNR, qa.MedianTSNR)
	}
	if qa.DVARS[jump] > 0.6*qr.DVARS[jump] {
		t.Errorf("DVARS at the jump %.1f before, %.1f after realignment", qr.DVARS[jump], qa.DVARS[jump])
	}
}

func TestRealignNeedsAHead(t *testing.T) {
	r := runOf(t, [3]int{20, 20, 10}, volume.Scaling([3]float64{3, 3, 3}), 2, make([]float32, 4000*20))
	_, err := Realign(context.Background(), r)
	wantRefusal(t, err, NotAligned, "")
}
