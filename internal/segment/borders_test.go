package segment

import (
	"bytes"
	"context"
	"math"
	"testing"
)

// plainPerceptron is a perceptron in float64, of weights as a file holds them.
func plainPerceptron(b *Borders, a Architecture, x []float64) []float64 {
	w, sizes := b.Weights, b.sizes(a)
	for l, in := range sizes[:len(sizes)-1] {
		out := sizes[l+1]
		y := make([]float64, out)
		for o := range y {
			y[o] = float64(w[in*out+o])
			for i, f := range x {
				y[o] += f * float64(w[(o/32*in+i)*32+o%32])
			}
			if l+2 < len(sizes) {
				y[o] = max(y[o], Slope*y[o])
			}
		}
		x, w = y, w[(in+1)*out:]
	}
	return x
}

// TestBordersReadAgain compares what is read again with plain loops, and all that is not with
// the network alone.
func TestBordersReadAgain(t *testing.T) {
	for _, below := range []bool{false, true} {
		arch := testArchitecture
		arch.Shape, arch.Below = [3]int{16, 16, 16}, below
		m := noiseModel(arch)
		image := noise(1000, arch.Voxels(), .5, .5)
		alone := make([]Likely, arch.Voxels())
		u := NewUNet(m, 1)
		s, err := u.See(context.Background(), image, alone)
		if err != nil {
			t.Fatal(err)
		}
		channels := make([][]float32, arch.Base)
		for c := range channels {
			channels[c] = make([]float32, arch.Voxels())
			s.x.Channel(c, channels[c])
		}
		low := make([][]float32, arch.HeadUp())
		for c := range low {
			low[c] = make([]float32, arch.Voxels()/8)
			s.low.Channel(c, low[c])
		}

		changed := *m
		changed.Borders = NewBorders(arch, 64, 32)
		copy(changed.Borders.Weights, noise(77, len(changed.Borders.Weights), .05, 0))
		got := make([]Likely, arch.Voxels())
		if err := NewUNet(&changed, 2).Classify(context.Background(), image, got); err != nil {
			t.Fatal(err)
		}
		nx, ny, nz := arch.Shape[0], arch.Shape[1], arch.Shape[2]
		read := 0
		for v, was := range alone {
			x, y, z := v%nx, v/nx%ny, v/nx/ny
			face := x == 0 || y == 0 || z == 0 || x == nx-1 || y == ny-1 || z == nz-1
			if face || was.P[0] >= doubtful {
				if got[v] != was {
					t.Fatalf("below %v: voxel %d, %d, %d changed from %v to %v", below, x, y, z, was, got[v])
				}
				continue
			}
			read++
			var features []float64
			for _, step := range []int{0, -nx * ny, nx * ny, -nx, nx, -1, 1} {
				for c := range channels {
					features = append(features, float64(channels[c][v+step]))
				}
			}
			for dz := -1; dz <= 1; dz++ {
				for dy := -1; dy <= 1; dy++ {
					for dx := -1; dx <= 1; dx++ {
						features = append(features, float64(image[v+(dz*ny+dy)*nx+dx]))
					}
				}
			}
			features = append(features, 0, 0, 0, 0, 0)
			for c := range low {
				features = append(features, float64(low[c][(z/2*(ny/2)+y/2)*(nx/2)+x/2]))
			}
			logits := plainPerceptron(changed.Borders, arch, features)
			share, sum, want := 0., 0., map[uint8]float64{}
			for i, k := range was.Class {
				if was.P[i] == 0 {
					continue
				}
				share += float64(was.P[i])
				want[k] = float64(was.P[i])
				if k > 0 {
					want[k] *= math.Exp(logits[k-1])
				}
				sum += want[k]
			}
			for k, p := range want {
				if p *= share / sum; math.Abs(p-float64(got[v].of(k))) > 1e-5 {
					t.Fatalf("below %v: class %d of voxel %d, %d, %d has %g, want %g", below, k, x, y, z, got[v].of(k), p)
				}
			}
			for i := 1; i < likely; i++ {
				if got[v].P[i] > got[v].P[i-1] {
					t.Fatalf("below %v: voxel %d, %d, %d isn't in order: %v", below, x, y, z, got[v])
				}
			}
		}
		if read < 100 {
			t.Errorf("below %v: only %d voxels were in doubt", below, read)
		}
	}
}

func TestBordersAreRefused(t *testing.T) {
	for name, hidden := range map[string][]int{"none": {}, "odd": {48}, "many": {32, 32, 32, 32, 32}, "heavy": {1024}, "negative": {-32}} {
		m := noiseModel(testArchitecture)
		m.Borders = &Borders{Hidden: hidden, Weights: []float32{}}
		var b bytes.Buffer
		if err := (&Weights{Whole: m}).Write(&b); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadWeights(b.Bytes()); err == nil {
			t.Errorf("%s: hidden layers %v were read", name, hidden)
		}
	}
}
