package fmri

import (
	"context"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"

	"neuroscreen/internal/fmri/fmritest"
	"neuroscreen/internal/nifti"
	"neuroscreen/internal/testdata"
	"neuroscreen/internal/volume"
)

// head is one of the project's synthetic heads at 1 mm, and the grid of an
// oblique BOLD acquisition in it.
func head(t testing.TB) (*volume.Volume, volume.Grid) {
	v := fmritest.Head(t)
	g := volume.Grid{Shape: [3]int{64, 64, 36}, Affine: volume.Scaling([3]float64{-3.3, 3.3, 3.6})}
	tilt := Motion{Rad: [3]float64{0.2, 0.05, -0.05}}.Affine([3]float64{})
	g.Affine = tilt.Mul(g.Affine)
	c, o := v.Centre(), g.Centre()
	for a := range 3 {
		g.Affine[a][3] += c[a] - o[a]
	}
	return v, g
}

// randomMotions up to mm and degrees in each parameter; the first is none.
func randomMotions(n int, mm, degrees float64, seed uint64) []Motion {
	rng := rand.New(rand.NewPCG(seed, 7))
	m := make([]Motion, n)
	for t := 1; t < n; t++ {
		for a := range 3 {
			m[t].MM[a] = mm * (2*rng.Float64() - 1)
			m[t].Rad[a] = degrees * math.Pi / 180 * (2*rng.Float64() - 1)
		}
	}
	return m
}

// alignAll aligns frames made by frame with the first and returns the median
// absolute error of translations in mm and of rotations in degrees.
func alignAll(t testing.TB, g volume.Grid, motions []Motion, tsnr float64, frame func(w volume.Affine) []float32) (mm, degrees float64) {
	t.Helper()
	ref := frame(volume.Identity)
	level := float64(volume.Percentiles(ref, 90)[0])
	addNoise := func(v []float32, seed uint64) []float32 {
		if tsnr == 0 {
			return v
		}
		rng := rand.New(rand.NewPCG(seed, 3))
		for i := range v {
			v[i] += float32(rng.NormFloat64() * level / tsnr)
		}
		return v
	}
	a := newAligner(g, addNoise(ref, 0))
	if a == nil {
		t.Fatal("no head in the reference")
	}
	// The motion is set about the middle of the grid and compared there.
	c := g.Centre()
	et, er := make([][3]float64, len(motions)), make([][3]float64, len(motions))
	err := each(context.Background(), len(motions)-1, func(i int) error {
		n := i + 1
		s := a.scratch()
		defer a.pool.put(s)
		copy(s.levels[0], addNoise(frame(motions[n].Affine(c)), uint64(n)))
		m := a.align(s, Motion{})
		m = motionOf(m.Affine(a.centre), c)
		for k := range 3 {
			et[n][k] = math.Abs(m.MM[k] - motions[n].MM[k])
			er[n][k] = math.Abs(m.Rad[k]-motions[n].Rad[k]) * 180 / math.Pi
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var all, rot []float64
	for n := range motions[1:] {
		all, rot = append(all, et[n+1][:]...), append(rot, er[n+1][:]...)
	}
	mm, degrees = median(all), median(rot)
	t.Logf("tSNR %g: median error %.4f mm, %.4f degrees; worst %.3f mm, %.3f degrees", tsnr, mm, degrees, all[len(all)-1], rot[len(rot)-1])
	return mm, degrees
}

// TestRealignHead moves a head of 1 mm and acquires it anew in every frame, so
// that nothing of the method is in the truth.
func TestRealignHead(t *testing.T) {
	v, g := head(t)
	smooth := volume.Blur(v, volume.AntiAlias(g, v.Grid), 0)
	acquire := func(w volume.Affine) []float32 {
		moved := volume.Grid{Shape: g.Shape, Affine: w.Inverse().Mul(g.Affine)}
		return volume.Resample(smooth, moved, volume.Options{Threads: 1}).Data
	}
	for _, c := range []struct {
		frames            int
		most, tsnr, limit float64 // most in mm and in degrees
	}{{24, 3, 0, 0.05}, {24, 3, 60, 0.1}, {8, 10, 60, 0.1}} {
		mm, degrees := alignAll(t, g, randomMotions(c.frames, c.most, c.most, 5), c.tsnr, acquire)
		if mm > c.limit || degrees > c.limit {
			t.Errorf("up to %g mm and degrees, tSNR %g: %.3f mm, %.3f degrees; the limit is %g", c.most, c.tsnr, mm, degrees, c.limit)
		}
	}
}

// TestRealignRealVolume moves a volume of a real run by windowed sinc
// interpolation, which the method doesn't use.
func TestRealignRealVolume(t *testing.T) {
	r := realRun(t)
	v := make([]float32, r.Len())
	if err := r.Frame(50, v); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	moved := map[volume.Affine][]float32{} // for both levels of noise
	move := func(w volume.Affine) []float32 {
		mu.Lock()
		m, ok := moved[w]
		mu.Unlock()
		if !ok {
			m = sinc(v, r.Grid, w)
			mu.Lock()
			moved[w] = m
			mu.Unlock()
		}
		return slices.Clone(m)
	}
	for _, c := range []struct{ tsnr, limit float64 }{{0, 0.05}, {60, 0.1}} {
		mm, degrees := alignAll(t, r.Grid, randomMotions(13, 3, 3, 11), c.tsnr, move)
		if mm > c.limit || degrees > c.limit {
			t.Errorf("tSNR %g: %.3f mm, %.3f degrees; the limit is %g", c.tsnr, mm, degrees, c.limit)
		}
	}
}

// realRun is the shared real run.
func realRun(t testing.TB) *Run {
	t.Helper()
	f, err := os.Open(testdata.Shared(t, "scans", "bold", "ds_oneback_100vol.nii.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rd, err := nifti.NewReader(f, nifti.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	r, err := Read(context.Background(), rd, TR{Seconds: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// sinc moves tissue at x to w(x), by sinc interpolation in a Lanczos window of
// three voxels; voxels beyond the edge repeat the edge's.
func sinc(v []float32, g volume.Grid, w volume.Affine) []float32 {
	const radius = 3
	m := g.Affine.Inverse().Mul(w.Inverse()).Mul(g.Affine)
	weights := func(x float64, n int) (at [2 * radius]int, wt [2 * radius]float64) {
		i0, sum := int(math.Floor(x))-radius+1, 0.0
		for k := range at {
			d := x - float64(i0+k)
			wt[k] = 1
			if d != 0 {
				p := math.Pi * d
				wt[k] = math.Sin(p) / p * math.Sin(p/radius) / (p / radius)
			}
			sum += wt[k]
			at[k] = min(max(i0+k, 0), n-1)
		}
		for k := range wt {
			wt[k] /= sum
		}
		return at, wt
	}
	out := make([]float32, len(v))
	n := g.Shape
	for k := range n[2] {
		for j := range n[1] {
			for i := range n[0] {
				p := m.Apply([3]float64{float64(i), float64(j), float64(k)})
				ax, wx := weights(p[0], n[0])
				ay, wy := weights(p[1], n[1])
				az, wz := weights(p[2], n[2])
				sum := 0.0
				for c, z := range az {
					for b, y := range ay {
						row := v[n[0]*(y+n[1]*z):][:n[0]]
						line := 0.0
						for a, x := range ax {
							line += wx[a] * float64(row[x])
						}
						sum += wz[c] * wy[b] * line
					}
				}
				out[i+n[0]*(j+n[1]*k)] = float32(sum)
			}
		}
	}
	return out
}

func TestMotionAffine(t *testing.T) {
	c := [3]float64{3, -20, 11}
	for _, m := range randomMotions(20, 10, 20, 1) {
		got := motionOf(m.Affine(c), c)
		for a := range 3 {
			if math.Abs(got.MM[a]-m.MM[a]) > 1e-9 || math.Abs(got.Rad[a]-m.Rad[a]) > 1e-9 {
				t.Fatalf("%+v came back as %+v", m, got)
			}
		}
	}
}

func BenchmarkRealign(b *testing.B) {
	r := realRun(b)
	for b.Loop() {
		if _, err := Realign(context.Background(), r); err != nil {
			b.Fatal(err)
		}
	}
}
