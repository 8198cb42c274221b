package volume

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestResampleEqualsScipy(t *testing.T) {
	t.Parallel()
	for _, c := range loadFixtures(t).Resamplings {
		t.Run(c.Name, func(t *testing.T) {
			inside := 0
			for _, v := range c.Linear {
				if v != 0 {
					inside++
				}
			}
			if inside < 40 {
				t.Fatalf("only %d voxels overlap: the case tests nothing", inside)
			}
			var opt Options
			if c.Sigma != [3]float64{} {
				opt.Sigma = AntiAlias(c.dst(), c.src().Grid)
				for a, s := range opt.Sigma {
					if math.Abs(s-c.Sigma[a]) > 1e-9 {
						t.Fatalf("AntiAlias %v, want %v", opt.Sigma, c.Sigma)
					}
				}
			}
			got := Resample(c.src(), c.dst(), opt)
			wantClose(t, got.Data, c.Linear, 2e-4) // the fixtures' last digit, of 100
		})
	}
}

func TestResampleLabelsEqualsScipy(t *testing.T) {
	t.Parallel()
	for _, c := range loadFixtures(t).Resamplings {
		t.Run(c.Name, func(t *testing.T) {
			got := ResampleLabels(&Labels{c.src().Grid, bytesOf(c.Labels)}, c.dst(), 0)
			if !slices.Equal(got.Data, bytesOf(c.Nearest)) {
				t.Fatalf("labels differ:\n%v\nwant\n%v", got.Data, c.Nearest)
			}
		})
	}
}

func TestZoomEqualsScipy(t *testing.T) {
	t.Parallel()
	for _, c := range loadFixtures(t).Zooms {
		t.Run(c.Name, func(t *testing.T) {
			got := make([]float32, len(c.Want))
			Zoom(got, c.DstShape, &Volume{Grid{c.SrcShape, Identity}, c.Src}, c.From, c.Step)
			wantClose(t, got, c.Want, .05) // of 100: what lies beyond twelve voxels
		})
	}
}

// The general path and the separable one must agree, so that a hair of
// obliqueness changes nothing.
func TestPathsAgree(t *testing.T) {
	t.Parallel()
	for _, c := range loadFixtures(t).Resamplings {
		src, dst := c.src(), c.dst()
		m := src.Affine.Inverse().Mul(dst.Affine)
		if _, ok := axisAligned(m, dst.Shape, src.Shape); !ok {
			continue
		}
		t.Run(c.Name, func(t *testing.T) {
			smooth := Blur(src, c.Sigma, 0)
			general := make([]float32, dst.Len())
			trilinear(general, dst.Shape, smooth.Data, src.Shape, m, 0)
			got := Resample(src, dst, Options{Sigma: c.Sigma})
			wantClose(t, got.Data, general, 1e-4)
		})
	}
}

func TestSameForAnyThreads(t *testing.T) {
	t.Parallel()
	for _, c := range loadFixtures(t).Resamplings {
		t.Run(c.Name, func(t *testing.T) {
			one := Resample(c.src(), c.dst(), Options{Sigma: c.Sigma, Threads: 1})
			for _, threads := range []int{2, 3, 16} {
				many := Resample(c.src(), c.dst(), Options{Sigma: c.Sigma, Threads: threads})
				if !slices.Equal(one.Data, many.Data) {
					t.Fatalf("%d threads change the result", threads)
				}
			}
		})
	}
}

// Rounding in an affine must not turn the outermost voxels to 0.
func TestResampleKeepsEdgesThroughRounding(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	src := New(Grid{[3]int{5, 6, 7}, Identity})
	for n := range src.Data {
		src.Data[n] = 1 + rng.Float32()
	}
	for _, degrees := range []float64{0, 33, 90, 180} {
		s, c := math.Sincos(degrees * math.Pi / 180)
		turn := Affine{{c, -s, 0, 11.1}, {s, c, 0, -23.4}, {0, 0, 1, 77.7}, {0, 0, 0, 1}}
		// The same place in float32, as a file would hold it.
		g := Grid{src.Shape, turn.Mul(Identity)}
		src.Affine = turn
		for i := range 3 {
			for j := range 4 {
				g.Affine[i][j] = float64(float32(g.Affine[i][j]))
			}
		}
		wantClose(t, Resample(src, g, Options{}).Data, src.Data, 1e-4)
	}
}

func TestResampleOutsideIsZero(t *testing.T) {
	t.Parallel()
	src := New(Grid{[3]int{3, 3, 3}, Identity})
	for n := range src.Data {
		src.Data[n] = 1
	}
	for _, turn := range []float64{0, 0.3} {
		s, c := math.Sincos(turn)
		away := Grid{[3]int{4, 4, 4}, Affine{{c, -s, 0, 50}, {s, c, 0, 0}, {0, 0, 1, 0}, {0, 0, 0, 1}}}
		for n, v := range Resample(src, away, Options{}).Data {
			if v != 0 {
				t.Fatalf("turned by %g: voxel %d outside the source is %g", turn, n, v)
			}
		}
	}
}

// A constant stays constant under smoothing, up to its edges.
func TestResampleSmoothedKeepsConstant(t *testing.T) {
	t.Parallel()
	src := New(Grid{[3]int{12, 10, 8}, Identity})
	for n := range src.Data {
		src.Data[n] = 5
	}
	dst := Grid{[3]int{4, 3, 3}, Scaling([3]float64{3, 3, 3})}
	got := Resample(src, dst, Options{Sigma: AntiAlias(dst, src.Grid)})
	for n, v := range got.Data {
		if math.Abs(float64(v)-5) > 1e-5 {
			t.Fatalf("voxel %d is %g, want 5", n, v)
		}
	}
}

func TestAntiAlias(t *testing.T) {
	t.Parallel()
	src := Grid{[3]int{10, 10, 10}, Scaling([3]float64{1, 1, 2})}
	for _, c := range []struct{ size, sigma [3]float64 }{
		{[3]float64{1, 0.5, 2}, [3]float64{}},
		{[3]float64{1 + 1e-9, 1, 2}, [3]float64{}},
		{[3]float64{1.05, 2, 3}, [3]float64{0.13596, 0.73553, 0.47479}}, // sqrt(r²-1) / 2.35482
	} {
		got := AntiAlias(Grid{src.Shape, Scaling(c.size)}, src)
		for a := range 3 {
			if math.Abs(got[a]-c.sigma[a]) > 1e-5 {
				t.Errorf("%v: sigma %v, want %v", c.size, got, c.sigma)
			}
		}
	}
}

func TestResampleLabelsTiesGoUp(t *testing.T) {
	t.Parallel()
	src := &Labels{Grid{[3]int{4, 1, 1}, Identity}, []uint8{1, 2, 3, 4}}
	half := src.Grid
	half.Affine[0][3] = 0.5
	if got := ResampleLabels(src, half, 1).Data; !slices.Equal(got, []uint8{2, 3, 4, 0}) {
		t.Errorf("half a voxel on: %v", got)
	}
	half.Affine[0][3] = -0.5
	if got := ResampleLabels(src, half, 1).Data; !slices.Equal(got, []uint8{1, 2, 3, 4}) {
		t.Errorf("half a voxel back: %v", got)
	}
}

func TestBlurEqualsScipy(t *testing.T) {
	t.Parallel()
	for _, c := range loadFixtures(t).Blurs {
		got := Blur(&Volume{Grid{c.Shape, Identity}, c.Data}, c.Sigma, 0)
		wantClose(t, got.Data, c.Blurred, 6e-5)
	}
}

func TestPercentilesEqualNumpy(t *testing.T) {
	t.Parallel()
	for _, c := range loadFixtures(t).Percentiles {
		got := Percentiles(c.Data, c.P...)
		for n, want := range c.Values {
			if got[n] != float32(want) {
				t.Errorf("percentile %g of %d values is %v, want %v", c.P[n], len(c.Data), got[n], float32(want))
			}
		}
	}
}

func TestPercentilesOfNoNumbers(t *testing.T) {
	t.Parallel()
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	if got := Percentiles([]float32{nan, inf, -inf}, 50)[0]; got == got {
		t.Errorf("median of nothing finite is %g", got)
	}
	if got := Percentiles([]float32{nan, 3, inf, 1, -inf, 2}, 0, 50, 100); !slices.Equal(got, []float32{1, 2, 3}) {
		t.Errorf("percentiles of 1 2 3 among non-finite are %v", got)
	}
}

func benchmarkGrid(n int) *Volume {
	v := New(Grid{[3]int{n, n, n}, Identity})
	for i := range v.Data {
		v.Data[i] = float32(i % 251)
	}
	return v
}

func BenchmarkResample(b *testing.B) {
	src := benchmarkGrid(256)
	c, s := math.Cos(0.1), math.Sin(0.1)
	oblique := Affine{{c, -s, 0, 10}, {s, c, 0, -10}, {0, 0, 1, 0}, {0, 0, 0, 1}}
	for _, bm := range []struct {
		name string
		dst  Grid
		anti bool
	}{
		{"aligned/1mm-to-2mm-smoothed", Grid{[3]int{128, 128, 128}, Scaling([3]float64{2, 2, 2})}, true},
		{"aligned/1mm-to-1mm-shifted", Grid{src.Shape, Affine{{1, 0, 0, .5}, {0, 1, 0, .5}, {0, 0, 1, .5}, {0, 0, 0, 1}}}, false},
		{"oblique/1mm-to-1mm", Grid{src.Shape, oblique}, false},
		{"oblique/1mm-to-2mm-smoothed", Grid{[3]int{128, 128, 128}, oblique.Mul(Scaling([3]float64{2, 2, 2}))}, true},
	} {
		b.Run(bm.name, func(b *testing.B) {
			var opt Options
			if bm.anti {
				opt.Sigma = AntiAlias(bm.dst, src.Grid)
			}
			for b.Loop() {
				Resample(src, bm.dst, opt)
			}
		})
	}
}

func BenchmarkCanonical(b *testing.B) {
	src := benchmarkGrid(256)
	for _, codes := range []string{"LAS", "LIA", "PSR"} {
		src.Affine = Affine{3: {3: 1}}
		for a, c := range codes {
			for out := range 3 {
				switch byte(c) {
				case "RAS"[out]:
					src.Affine[out][a] = 1
				case "LPI"[out]:
					src.Affine[out][a] = -1
				}
			}
		}
		b.Run(codes, func(b *testing.B) {
			for b.Loop() {
				Canonical(src)
			}
		})
	}
}

func BenchmarkPercentiles(b *testing.B) {
	src := benchmarkGrid(256)
	for b.Loop() {
		Percentiles(src.Data, 1, 99)
	}
}

func ExampleResample() {
	// A head at 1 mm in LAS order, brought to a 2 mm RAS grid.
	v := New(Grid{[3]int{4, 4, 4}, Affine{{-1, 0, 0, 3}, {0, 1, 0, 0}, {0, 0, 1, 0}, {0, 0, 0, 1}}})
	for n := range v.Data {
		v.Data[n] = float32(n % 4) // grows with i, towards the left
	}
	grid := Grid{[3]int{2, 2, 2}, Affine{{2, 0, 0, 0.5}, {0, 2, 0, 0.5}, {0, 0, 2, 0.5}, {0, 0, 0, 1}}}
	out := Resample(v, grid, Options{})
	fmt.Println(v.Orientation(), out.Orientation(), out.Data[:2])
	// Output: LAS RAS [2.5 0.5]
}

func ExampleCanonical() {
	// Stored left to right in reverse, as most scanners do.
	v := &Volume{Grid{[3]int{3, 1, 1}, Affine{{-1, 0, 0, 1}, {0, 1, 0, 0}, {0, 0, 1, 0}, {0, 0, 0, 1}}}, []float32{1, 2, 3}}
	ras, how := Canonical(v)
	found := NewLabels(ras.Grid)
	for n, x := range ras.Data {
		if x == 1 {
			found.Data[n] = 17
		}
	}
	fmt.Println(v.Orientation(), ras.Data, how.Inverse().Labels(found).Data)
	// Output: LAS [3 2 1] [17 0 0]
}

// A row that misses the source on its far side is cleared itself, and nothing
// after it.
func TestRowsOutside(t *testing.T) {
	t.Parallel()
	src := New(Grid{[3]int{8, 8, 8}, Identity})
	for i := range src.Data {
		src.Data[i] = 1
	}
	// Oblique, and moved so that i runs towards the source without reaching it.
	g := Grid{[3]int{5, 4, 3}, Affine{{1, 0.2, 0, -20}, {-0.2, 1, 0, 2}, {0, 0, 1, 2}, {0, 0, 0, 1}}}
	for i, v := range Resample(src, g, Options{}).Data {
		if v != 0 {
			t.Fatalf("voxel %d outside is %g", i, v)
		}
	}
}
