package conv

import "testing"

// The benchmarks run the layers of the whole-head network at 2 mm (80 x 96 x 80 voxels, 8 channels
// at full resolution) with the kernels that NewEngine would take, on two threads. GMAC/s counts the
// products of the plain definition; Winograd and summed taps make do with fewer.

var benchLayers = []convCase{
	{8, 0, 4, 80, 96, 80},
	{8, 0, 8, 80, 96, 80},
	{8, 16, 8, 80, 96, 80},
	{16, 0, 16, 40, 48, 40},
	{16, 32, 16, 40, 48, 40},
	{32, 0, 32, 20, 24, 20},
	{64, 0, 64, 10, 12, 10},
	{128, 0, 128, 5, 6, 5},
}

// upLayers are those of the half's and the inner network where a whole scan's time goes to upsampled
// channels.
var upLayers = []convCase{{8, 16, 8, 80, 176, 144}, {16, 32, 16, 64, 96, 80}}

type layer struct {
	w                       *Weights
	low, in, out, din, dlow *Tensor
	grad                    []float32
}

// eachLayer benchmarks f, which convolves the upsampled channels or all, on every layer.
func eachLayer(b *testing.B, layers []convCase, upsampled bool, f func(e *Engine, l *layer)) {
	for _, c := range layers {
		b.Run(c.String(), func(b *testing.B) {
			r := rng(1)
			e := NewEngine(2)
			l := &layer{
				w:    NewWeights(c.out, c.up, c.in, randomFloats(r, MasterLen(c.out, c.up, c.in))),
				in:   random(r, (c.in+7)/8*8, c.d, c.h, c.w).tensor(),
				out:  random(r, c.out, c.d, c.h, c.w).tensor(),
				din:  NewTensor((c.in+7)/8*8, c.d, c.h, c.w),
				grad: make([]float32, MasterLen(c.out, c.up, c.in)),
			}
			if c.up > 0 {
				l.low, l.dlow = random(r, c.up, c.d/2, c.h/2, c.w/2).tensor(), NewTensor(c.up, c.d/2, c.h/2, c.w/2)
			}
			e.Pack(l.w, c.d, c.h, c.w, true)
			f(e, l)
			for b.Loop() {
				f(e, l)
			}
			macs := float64(c.d*c.h*c.w) * float64(c.out*c.up*taps)
			if !upsampled {
				macs += float64(c.d*c.h*c.w) * float64(c.out*c.in*taps)
			}
			b.ReportMetric(macs*float64(b.N)/b.Elapsed().Seconds()/1e9, "GMAC/s")
		})
	}
}

func BenchmarkConv(b *testing.B) {
	var st Stats
	eachLayer(b, benchLayers, false, func(e *Engine, l *layer) { e.Conv(l.w, l.low, l.in, l.out, nil, 1, &st) })
}

func BenchmarkConvUpsampled(b *testing.B) {
	eachLayer(b, upLayers, false, func(e *Engine, l *layer) { e.Conv(l.w, l.low, l.in, l.out, nil, 1, nil) })
}

func BenchmarkUpsampled(b *testing.B) {
	eachLayer(b, upLayers, true, func(e *Engine, l *layer) { newUpsampled(e.k, l.w, l.low, l.out, nil).all(e) })
}

func BenchmarkConvGradData(b *testing.B) {
	eachLayer(b, benchLayers, false, func(e *Engine, l *layer) { e.ConvGradData(l.w, l.out, l.din, l.dlow) })
}

func BenchmarkConvGradWeights(b *testing.B) {
	eachLayer(b, benchLayers, false, func(e *Engine, l *layer) { e.ConvGradWeights(l.w, l.low, l.in, l.out, l.grad) })
}

func BenchmarkPack(b *testing.B) {
	r := rng(1)
	e, w := NewEngine(2), NewWeights(32, 64, 32, randomFloats(r, MasterLen(32, 64, 32)))
	for b.Loop() {
		e.Pack(w, 20, 24, 20, true)
	}
}

func BenchmarkFullResolution(b *testing.B) {
	const c, d, h, w, slope = 8, 80, 96, 80, 0.01
	r := rng(1)
	e := NewEngine(2)
	x, y, dy := random(r, c, d, h, w).tensor(), random(r, c, d, h, w).tensor(), random(r, c, d, h, w).tensor()
	small, dsmall := NewTensor(c, d/2, h/2, w/2), NewTensor(c, d/2, h/2, w/2)
	coef := randomFloats(r, c)
	head := &Head{W: randomFloats(r, c*Logits), B: randomFloats(r, Logits)}
	labels := make([]uint8, d*h*w)
	for i := range labels {
		labels[i] = uint8(i * Classes / len(labels))
	}
	cfg := LossConfig{CE: 0.5, Dice: 1}
	for i := range cfg.ClassWeight {
		cfg.ClassWeight[i] = 1
	}
	low, dlow := random(r, 4*c, d/2, h/2, w/2).tensor(), NewTensor(4*c, d/2, h/2, w/2)
	both := &Head{randomFloats(r, 4*c*Logits), head.W, head.B}
	grad := &Head{make([]float32, len(both.Up)), make([]float32, len(head.W)), make([]float32, Logits)}
	own := &Head{W: grad.W, B: grad.B}
	params := [4][]float32{randomFloats(r, 1<<20), randomFloats(r, 1<<20), make([]float32, 1<<20), make([]float32, 1<<20)}
	var st Stats
	for name, f := range map[string]func(){
		"Affine":           func() { e.Affine(x, y, coef, coef, slope) },
		"AffineGradReduce": func() { e.AffineGradReduce(dy, x, coef, coef, slope, &st) },
		"AffineGrad":       func() { e.AffineGrad(dy, x, y, coef, coef, coef, coef, coef, slope) },
		"MaxPool":          func() { e.MaxPool(x, small) },
		"MaxPoolGrad":      func() { e.MaxPoolGrad(x, small, dsmall, dy) },
		"Posteriors":       func() { e.Posteriors(nil, x, head, 1e-3, func(Row) {}) },
		"Posteriors, two":  func() { e.Posteriors(low, x, both, 1e-3, func(Row) {}) },
		"Loss":             func() { e.Loss(nil, x, head, labels, cfg, nil, y, own) },
		"Loss, two":        func() { e.Loss(low, x, both, labels, cfg, dlow, y, grad) },
		"Adam of a million": func() {
			e.Adam(params[0], params[1], params[2], params[3], 1, 1e-3, 0.9, 0.999, 1e-8, 0, 1)
		},
	} {
		b.Run(name, func(b *testing.B) {
			f()
			for b.Loop() {
				f()
			}
		})
	}
}
