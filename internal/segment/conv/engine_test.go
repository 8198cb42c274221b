package conv

import (
	"fmt"
	"slices"
	"testing"
)

// runAll runs every operation once on the tensors and weights of alloc and returns all results.
// The first two sizes take Winograd, with tiles that fit and that overlap, the others the direct way.
func runAll(e *Engine, floats func(n int) []float32) [][]float32 {
	r := rng(7)
	fill := func(v []float32) []float32 {
		for i := range v {
			v[i] = float32(r.NormFloat64())
		}
		return v
	}
	var results [][]float32
	keep := func(v ...[]float32) {
		for _, x := range v {
			results = append(results, slices.Clone(x))
		}
	}
	keepStats := func(st *Stats, channels int) {
		for c := range channels {
			a, b := st.Sum(c)
			results = append(results, []float32{float32(a), float32(b)})
		}
	}
	for _, c := range []convCase{{16, 8, 8, 12, 8, 16}, {8, 8, 8, 6, 6, 10}, {8, 8, 8, 4, 6, 6}, {16, 8, 4, 8, 4, 12}} {
		random := func(channels, d, h, w int) *Tensor {
			t := NewTensor(channels, d, h, w)
			for ch := range channels {
				t.SetChannel(ch, fill(make([]float32, d*h*w)))
			}
			return t
		}
		low, in := random(c.up, c.d/2, c.h/2, c.w/2), random((c.in+7)/8*8, c.d, c.h, c.w)
		out, y, din, dy, dlow := random(c.out, c.d, c.h, c.w), random(c.out, c.d, c.h, c.w), random(in.Channels, c.d, c.h, c.w), random(c.out, c.d, c.h, c.w), random(c.up, c.d/2, c.h/2, c.w/2)
		pooled, dpooled := random(c.out, c.d/2, c.h/2, c.w/2), random(c.out, c.d/2, c.h/2, c.w/2)
		w := NewWeights(c.out, c.up, c.in, fill(floats(MasterLen(c.out, c.up, c.in))))
		e.Pack(w, c.d, c.h, c.w, true)
		var st Stats
		e.Conv(w, low, in, out, fill(floats(c.out)), 0.01, nil)
		keep(out.data)
		e.Conv(w, low, in, out, nil, 1, &st)
		keep(out.data)
		keepStats(&st, c.out)
		coef := make([][]float32, 5)
		for i := range coef {
			coef[i] = fill(floats(c.out))
		}
		e.Affine(out, y, coef[0], coef[1], 0.01)
		e.MaxPool(y, pooled)
		e.MaxPoolGrad(y, pooled, dpooled, dy)
		keep(y.data, pooled.data, dy.data)

		h := &Head{fill(floats(c.up * 32)), fill(floats(c.out * 32)), fill(floats(32))}
		n := c.d * c.h * c.w
		labels := make([]uint8, n)
		for i := range labels {
			labels[i] = uint8(r.IntN(33))
		}
		cfg := LossConfig{CE: 0.5, Dice: 1}
		for i := range cfg.ClassWeight {
			cfg.ClassWeight[i] = 1
		}
		g := &Head{floats(len(h.Up)), floats(len(h.W)), floats(32)}
		p, background := posteriors(e, low, y, h)
		loss := e.Loss(low, y, h, labels, cfg, dlow, dy, g)
		keep(p, background, g.Up, g.W, g.B, dy.data, []float32{float32(loss.Value)})
		e.Add(dlow, low)
		keep(dlow.data)

		e.AffineGradReduce(dy, out, coef[0], coef[1], 0.01, &st)
		keepStats(&st, c.out)
		e.AffineGrad(dy, out, y, coef[0], coef[1], coef[2], coef[3], coef[4], 0.01)
		grad, m, v := floats(len(w.Master)), floats(len(w.Master)), floats(len(w.Master))
		e.ConvGradData(w, y, din, dlow)
		e.ConvGradWeights(w, low, in, y, grad)
		keep(y.data, din.data, dlow.data, grad)
		e.Adam(w.Master, grad, m, v, 1, 0.01, 0.9, 0.999, 1e-8, 0.1, 1)
		keep(w.Master)
		for _, t := range []*Tensor{low, in, out, y, din, dy, dlow, pooled, dpooled} {
			t.Release()
		}
	}
	return results
}

func plainFloats(n int) []float32 { return make([]float32, n) }

func TestResultsDoNotDependOnThreads(t *testing.T) {
	eachKernel(t, func(t *testing.T, k *kernelSet) {
		want := runAll(newEngine(1, k), plainFloats)
		for _, threads := range []int{2, 3, 8} {
			for i, got := range runAll(newEngine(threads, k), plainFloats) {
				if !slices.Equal(got, want[i]) {
					t.Errorf("%d threads: result %d differs from one thread", threads, i)
				}
			}
		}
	})
}

// A second run finds scratch of the first: nothing of it may show.
func TestResultsDoNotDependOnScratch(t *testing.T) {
	eachKernel(t, func(t *testing.T, k *kernelSet) {
		e := newEngine(2, k)
		first := runAll(e, plainFloats)
		for i, got := range runAll(e, plainFloats) {
			if !slices.Equal(got, first[i]) {
				t.Errorf("result %d differs in the second run", i)
			}
		}
		e.Release()
		for i, got := range runAll(e, plainFloats) {
			if !slices.Equal(got, first[i]) {
				t.Errorf("result %d differs after Release", i)
			}
		}
	})
}

func TestKernelChoice(t *testing.T) {
	for _, k := range available() {
		if got := choose(k.name); got != k {
			t.Errorf("asked for %s, got %s", k.name, got.name)
		}
	}
	for _, wish := range []string{"", "sse"} {
		if got := choose(wish); got != available()[0] {
			t.Errorf("asked for %q, got %s", wish, got.name)
		}
	}
}

func TestPanicsOnShapesThatDoNotFit(t *testing.T) {
	e := NewEngine(1)
	w := NewWeights(8, 8, 8, make([]float32, MasterLen(8, 8, 8)))
	e.Pack(w, 4, 4, 4, true)
	full, low := NewTensor(8, 4, 4, 4), NewTensor(8, 2, 2, 2)
	unpacked := NewWeights(8, 0, 8, make([]float32, MasterLen(8, 0, 8)))
	head := &Head{W: make([]float32, 8*32), B: make([]float32, 32)}
	eight := make([]float32, 8)
	for name, f := range map[string]func(){
		"channels not a multiple of 8": func() { NewTensor(4, 1, 1, 1) },
		"no voxels":                    func() { NewTensor(8, 0, 1, 1) },
		"too few weights":              func() { NewWeights(8, 0, 8, make([]float32, 27)) },
		"12 input channels":            func() { NewWeights(8, 0, 12, make([]float32, MasterLen(8, 0, 12))) },
		"missing low tensor":           func() { e.Conv(w, nil, full, full, nil, 1, nil) },
		"low tensor of the wrong size": func() { e.Conv(w, full, full, full, nil, 1, nil) },
		"too few biases":               func() { e.Conv(w, low, full, full, eight[:4], 1, nil) },
		"sums of an activated output":  func() { e.Conv(w, low, full, full, nil, 0.5, new(Stats)) },
		"output of another size":       func() { e.Conv(w, low, full, NewTensor(8, 4, 4, 6), nil, 1, nil) },
		"unpacked weights":             func() { e.Conv(unpacked, nil, full, full, nil, 1, nil) },
		"weights packed for Winograd": func() {
			e.Pack(unpacked, 4, 4, 8, true)
			e.Conv(unpacked, nil, full, NewTensor(8, 4, 4, 4), nil, 1, nil)
		},
		"gradient of unpacked weights": func() { e.ConvGradData(unpacked, full, full, nil) },
		"gradient of the wrong length": func() { e.ConvGradWeights(w, low, full, full, eight) },
		"pooling to the wrong size":    func() { e.MaxPool(full, full) },
		"adding another size":          func() { e.Add(full, low) },
		"too few coefficients":         func() { e.Affine(full, full, eight[:4], eight, 1) },
		"head for another tensor":      func() { e.Posteriors(nil, NewTensor(16, 1, 1, 1), head, 0, func(Row) {}) },
		"head for one tensor on two":   func() { e.Posteriors(low, full, head, 0, func(Row) {}) },
		"label beyond the classes": func() {
			grad := &Head{W: make([]float32, 256), B: make([]float32, 32)}
			e.Loss(nil, NewTensor(8, 1, 1, 1), head, []uint8{33}, LossConfig{}, nil, NewTensor(8, 1, 1, 1), grad)
		},
		"channel of the wrong length": func() { full.SetChannel(0, eight) },
		"Adam on unequal lengths":     func() { e.Adam(eight, eight[:4], eight, eight, 1, 1, 0, 0, 0, 0, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			f()
		})
	}
}

func TestPieces(t *testing.T) {
	for n := 1; n < 60; n++ {
		for limit := 1; limit < 13; limit++ {
			p := pieces(n, limit)
			sum := 0
			for _, k := range p {
				sum += k
			}
			if sum != n || slices.Max(p) > limit || slices.Max(p)-slices.Min(p) > 1 {
				t.Errorf("%s", fmt.Sprint(n, limit, p))
			}
		}
	}
}

func TestChannelsGoInAndOut(t *testing.T) {
	r := rng(1)
	x := NewTensor(16, 2, 3, 5)
	var want [16][]float32
	for c := range want {
		want[c] = randomFloats(r, 30)
		x.SetChannel(c, want[c])
	}
	borderZero(t, "tensor", x)
	got := make([]float32, 30)
	for c := range want {
		if x.Channel(c, got); !slices.Equal(got, want[c]) {
			t.Errorf("channel %d is %v, want %v", c, got, want[c])
		}
	}
}
