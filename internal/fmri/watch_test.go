package fmri

import (
	"context"
	"fmt"
	"math"
	"slices"
	"syscall"
	"testing"
	"time"

	"neuroscreen/internal/volume"
)

// watchAll gives a run's frames to a Watch, one by one.
func watchAll(t testing.TB, w *Watch, r *Run) {
	t.Helper()
	v := make([]float32, r.Len())
	for n := range r.Frames {
		if err := r.Frame(n, v); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Add(r.Grid, v); err != nil {
			t.Fatalf("frame %d: %v", n, err)
		}
	}
}

// TestWatchEqualsAssess: with the same reference and the same voxels, FD is that
// of the finished run, and DVARS and tSNR are but for the scale and the voxels
// that left the field of view.
func TestWatchEqualsAssess(t *testing.T) {
	r, _, _ := movedRun(t, 40, 2)
	w := NewWatch(2, 40)
	watchAll(t, w, r)

	ctx := context.Background()
	al, _, err := realignTo(ctx, r, 0)
	if err != nil {
		t.Fatal(err)
	}
	mask := make([]bool, r.Len())
	for _, x := range w.voxels {
		mask[x.at] = true
	}
	s, err := r.Series(ctx, al, mask)
	if err != nil {
		t.Fatal(err)
	}
	q := Assess(s, al.Motion, 2)
	fd := FramewiseDisplacement(w.motion)
	for n := range fd {
		if math.Abs(fd[n]-q.FD[n]) > 1e-9 {
			t.Fatalf("frame %d: FD %g, of the finished run %g", n, fd[n], q.FD[n])
		}
		if n == 0 {
			continue
		}
		if d := w.dvars[n]/q.DVARS[n] - 1; math.Abs(d) > 0.02 {
			t.Errorf("frame %d: DVARS %g, of the finished run %g", n, w.dvars[n], q.DVARS[n])
		}
		if std := w.dvars[n] / w.expected; math.Abs(std/q.StdDVARS[n]-1) > 0.03 {
			t.Errorf("frame %d: standardised DVARS %g, of the finished run %g", n, std, q.StdDVARS[n])
		}
	}
	// The finished run has another reference: what that changes.
	steadiest, err := Realign(ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	differs := 0.0
	for n, v := range FramewiseDisplacement(steadiest.Motion) {
		differs = max(differs, math.Abs(v-fd[n]))
	}
	t.Logf("FD against frame %d instead of the first: at most %.4f mm more or less", steadiest.Reference, differs)
	if differs > 0.03 {
		t.Errorf("FD differs by %g mm", differs)
	}
	sum := w.Summary(true)
	if sum.TSNR == nil || math.Abs(*sum.TSNR/q.MedianTSNR-1) > 0.01 {
		t.Errorf("tSNR %v, of the finished run %g", sum.TSNR, q.MedianTSNR)
	}
	if math.Abs(sum.MeanFDMM-q.MeanFD()) > 1e-9 || sum.MaxFDMM != slices.Max(q.FD) || sum.OutlierFrames != q.Outliers() || sum.Frames != 40 || sum.DummyScans != 0 {
		t.Errorf("%+v; of the finished run mean FD %g, %d outliers", sum, q.MeanFD(), q.Outliers())
	}
	if want := 2 * float64(40-q.Outliers()) / 60; math.Abs(sum.UsableMinutes-want) > 1e-9 {
		t.Errorf("%g usable minutes, want %g", sum.UsableMinutes, want)
	}
}

func TestWatchDummyScans(t *testing.T) {
	r, _, _ := movedRun(t, 24, 2)
	w := NewWatch(2, 0)
	v := make([]float32, r.Len())
	for n := range 12 {
		if err := r.Frame(n, v); err != nil {
			t.Fatal(err)
		}
		for i := range v { // saturation: 1.6, 1.18, 1.05, 1.02, 1, ...
			v[i] *= float32(1 + 0.6*math.Pow(0.3, float64(n)))
		}
		out, err := w.Add(r.Grid, v)
		if err != nil || out.Volume != n+1 {
			t.Fatalf("%+v, %v", out, err)
		}
		if n < 3 && !out.Reference {
			t.Errorf("volume %d: no new reference", n+1)
		}
	}
	if s := w.Summary(false); s.DummyScans < 2 || s.DummyScans > 4 || s.Frames != 12-s.DummyScans || s.Volumes != 12 {
		t.Errorf("%+v", s)
	}
}

func TestWatchAsksToRepeat(t *testing.T) {
	v, g := head(t)
	smooth := volume.Blur(v, volume.AntiAlias(g, v.Grid), 0)
	// A head that swings by 1 mm: FD 1 in every frame.
	var frames [2]*volume.Volume
	for n := range frames {
		m := Motion{MM: [3]float64{float64(n), 0, 0}}.Affine(g.Centre())
		frames[n] = volume.Resample(smooth, volume.Grid{Shape: g.Shape, Affine: m.Inverse().Mul(g.Affine)}, volume.Options{})
	}
	w := NewWatch(2, 200)
	for n := range 25 {
		f := slices.Clone(frames[n%2].Data)
		for i, e := range noise(len(f), 0, 2, uint64(n)) {
			f[i] += e
		}
		out, err := w.Add(g, f)
		if err != nil {
			t.Fatal(err)
		}
		if n > 0 && (!out.Outlier || math.Abs(out.FDMM-1) > 0.05) {
			t.Errorf("volume %d: %+v", n+1, out)
		}
		if s := w.Summary(false); s.Repeat != (n+1 >= judgedFrom) {
			t.Errorf("after %d volumes: %v", n+1, s.Reasons)
		}
	}
	s := w.Summary(false)
	if !slices.Contains(codesOf(s.Reasons), HeadMotion) || s.OutlierFrames != 24 {
		t.Errorf("%+v", s)
	}
	// A run too short to begin with, and one that ended early.
	short := NewWatch(2, 100)
	still := slices.Clone(frames[0].Data)
	if _, err := short.Add(g, still); err != nil {
		t.Fatal(err)
	}
	if s := short.Summary(false); !s.Repeat || !slices.Equal(codesOf(s.Reasons), []string{FewUsableFrames}) {
		t.Errorf("%+v", s)
	}
	open := NewWatch(2, 0)
	if _, err := open.Add(g, slices.Clone(frames[0].Data)); err != nil {
		t.Fatal(err)
	}
	if a, b := open.Summary(false), open.Summary(true); a.Repeat || !b.Repeat {
		t.Errorf("%+v, ended %+v", a, b)
	}
}

// TestWatchEndedEarly: volumes that were expected can't come any more.
func TestWatchEndedEarly(t *testing.T) {
	v, g := head(t)
	still := volume.Resample(v, g, volume.Options{})
	for _, c := range []struct {
		name                string
		tr                  float64
		expect              int
		underWay, whenEnded bool // is to be repeated
	}{
		{"enough still expected", 60, 200, false, true},
		{"more came than needed", 300, 200, false, false},
		{"too few expected", 60, 3, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := NewWatch(c.tr, c.expect)
			for range 2 {
				if _, err := w.Add(g, slices.Clone(still.Data)); err != nil {
					t.Fatal(err)
				}
			}
			a, b := w.Summary(false), w.Summary(true)
			if a.Repeat != c.underWay || b.Repeat != c.whenEnded {
				t.Errorf("repeat %v for %v; ended %v for %v", a.Repeat, codesOf(a.Reasons), b.Repeat, codesOf(b.Reasons))
			}
			if b.Repeat && *b.Reasons[0].Value != b.UsableMinutes {
				t.Errorf("at most %g usable minutes of %g", *b.Reasons[0].Value, b.UsableMinutes)
			}
		})
	}
}

func TestWatchRefusesVolumes(t *testing.T) {
	v, g := head(t)
	still := volume.Resample(v, g, volume.Options{})
	w := NewWatch(2, 0)
	_, err := w.Add(g, make([]float32, g.Len()))
	wantRefusal(t, err, NotAligned, "")
	if _, err := w.Add(g, slices.Clone(still.Data)); err != nil {
		t.Fatal(err)
	}
	other := g
	other.Affine[0][3] += 10
	_, err = w.Add(other, slices.Clone(still.Data))
	wantRefusal(t, err, GridsDiffer, "")
	if s := w.Summary(false); s.Volumes != 1 || s.Frames != 1 {
		t.Errorf("refused volumes count: %+v", s)
	}
}

// BenchmarkWatch is the time that a volume of 64 x 64 x 35 takes after it was
// read, early in a run and late.
func BenchmarkWatch(b *testing.B) {
	v, g := head(b)
	g.Shape[2] = 35
	smooth := volume.Blur(v, volume.AntiAlias(g, v.Grid), 0)
	var frames [4][]float32
	for n := range frames {
		m := Motion{MM: [3]float64{0.2 * float64(n), 0.1, 0}, Rad: [3]float64{0.002 * float64(n), 0, 0}}.Affine(g.Centre())
		f := volume.Resample(smooth, volume.Grid{Shape: g.Shape, Affine: m.Inverse().Mul(g.Affine)}, volume.Options{})
		frames[n] = f.Data
	}
	for _, before := range []int{1, 200} {
		b.Run(fmt.Sprintf("after%d", before), func(b *testing.B) {
			w := NewWatch(2, 0)
			next := func(n int) {
				f := slices.Clone(frames[n%4])
				for i := range f {
					f[i] += float32((n*7919 + i*31) % 17)
				}
				if _, err := w.Add(g, f); err != nil {
					b.Fatal(err)
				}
			}
			for n := range before {
				next(n)
			}
			b.ResetTimer()
			used := processorTime(b)
			for n := range b.N {
				next(n)
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/1000/float64(b.N), "ms/volume")
			b.ReportMetric(float64((processorTime(b)-used).Microseconds())/1000/float64(b.N), "processor-ms/volume")
		})
	}
}

// processorTime that this process has used: what counts on a busy machine.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
