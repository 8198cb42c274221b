package conv

import (
	"fmt"
	"math"
)

// Logits is the number of logits; Classes adds the background. Softmax does not change when all
// logits shift, so the background's is 0 by definition and the others fill four vectors.
const (
	Logits  = 32
	Classes = Logits + 1
)

// A Head is the 1x1x1 convolution from a tensor's channels to the logits of classes 1 to 32.
type Head struct {
	W []float32 // [channel][32]
	B []float32 // [32]
}

func (h *Head) check(x *Tensor, dst, want int) {
	if len(h.W) != x.Channels*Logits || len(h.B) != Logits || dst != want {
		panic(fmt.Sprintf("conv: head of %d weights and %d biases on %v, %d values for %d", len(h.W), len(h.B), x, dst, want))
	}
}

// headRow readies w.softmax for a row of voxels.
func (w *worker) headRow(x *Tensor, h *Head, z, y int) {
	w.softmax = softmaxArgs{
		x: x.at(0, z+1, y+1, 1), w: h.W, bias: h.B, p: w.p, background: w.bg,
		scratch: w.logits[:], blocks: x.blocks(), block: x.block(), n: x.W,
	}
}

// softmaxRow makes posteriors of a row in w.p and w.bg and adds those above background up.
func (w *worker) softmaxRow(e *Engine, x *Tensor, h *Head, z, y int, sums []float32) {
	w.headRow(x, h, z, y)
	w.softmax.sums = sums
	e.k.softmax(&w.softmax)
}

// Row is posteriors of voxels along x.
type Row struct {
	First      int       // the first voxel's place in the tensor
	Background []float32 // of class 0, by voxel
	Likely     []uint32  // bit k-1 is set of a voxel's likely classes k,
	P          []float32 // whose posterior P holds at 32*voxel + k-1; elsewhere P holds anything
}

// Posteriors calls f, on several threads, with each row of voxels. A class is likely when its
// posterior is greater than least. What a Row holds is gone when f returns.
func (e *Engine) Posteriors(x *Tensor, h *Head, least float32, f func(Row)) {
	h.check(x, 0, 0)
	e.each(x.D, func(w *worker, z int) {
		w.p, w.bg, w.likely = sized(w.p, x.W*Logits), sized(w.bg, x.W), sized(w.likely, x.W)
		for y := range x.H {
			w.headRow(x, h, z, y)
			w.softmax.likely, w.softmax.least = w.likely, least
			e.k.likely(&w.softmax)
			f(Row{(z*x.H + y) * x.W, w.bg, w.likely, w.p})
		}
	})
}

// Logits writes the logits in the layout of Posteriors. It is a plain loop, for comparisons.
func (e *Engine) Logits(x *Tensor, h *Head, dst []float32) {
	h.check(x, len(dst), x.D*x.H*x.W*Logits)
	e.each(x.D, func(_ *worker, z int) {
		for y := range x.H {
			for i := range x.W {
				d := dst[((z*x.H+y)*x.W+i)*Logits:][:Logits]
				copy(d, h.B)
				for c := range x.Channels {
					f := x.at(c/lanes, z+1, y+1, i+1)[c%lanes]
					for k := range d {
						d[k] += f * h.W[c*Logits+k]
					}
				}
			}
		}
	})
}

// LossConfig weighs the parts of the loss.
type LossConfig struct {
	ClassWeight [Classes]float32 // of the cross entropy
	CE, Dice    float32
	// SizesHeld takes the denominators of Dice for constant where gradients are computed. Dice
	// gives a structure all voxels that are its own with a probability of more than half its
	// Dice: more than it has, and the more so the less can be seen. With sizes held it gets those
	// that are likelier its own than not.
	SizesHeld bool
	// Present gives classes that no voxel has a Dice of 1, whatever the posteriors: in a part of a
	// head that lacks most of them, their last stray posteriors would outweigh all that is there.
	Present bool
}

// LossResult is the value of the loss, its cross entropy before weighing, and the soft Dice by class.
type LossResult struct {
	Value, CE float64
	Dice      [Classes]float64
}

// lossPart holds the sums of one slice.
type lossPart struct {
	p, hit, count [Classes]float64 // posteriors, posteriors of the true class, voxels
	ce            float64
	dw            []float32
	db            [Logits]float32
}

// Loss computes
//
//	Dice * (1 - mean over the 33 classes of (2 i_k + 1) / (s_k + n_k + 1))
//	+ CE * sum of -ClassWeight[y] log p[y] / sum of ClassWeight[y]
//
// where s is the sum of a class's posteriors, i that over the voxels of the class and n their
// number. labels holds classes 0 to 32, x fastest. It writes the gradients of x, h.W and h.B.
//
// The posteriors are computed twice, once for the sums and once for the gradients: cheaper than
// storing 128 bytes a voxel.
func (e *Engine) Loss(x *Tensor, h *Head, labels []uint8, cfg LossConfig, dx *Tensor, dW, dB []float32) LossResult {
	h.check(x, len(labels), x.D*x.H*x.W)
	if !x.sameSize(dx) || x.Channels != dx.Channels || len(dW) != len(h.W) || len(dB) != len(h.B) {
		panic(fmt.Sprintf("conv: loss of %v, gradients %v, %d, %d", x, dx, len(dW), len(dB)))
	}
	for i, y := range labels {
		if y >= Classes {
			panic(fmt.Sprintf("conv: label %d at voxel %d", y, i))
		}
	}
	for _, w := range e.workers {
		w.p, w.bg = sized(w.p, x.W*Logits), sized(w.bg, x.W)
	}
	parts := make([]lossPart, x.D)
	e.each(x.D, func(w *worker, z int) { e.lossSums(w, &parts[z], x, h, labels, cfg, z) })

	var total lossPart
	weight := 0.0
	for i := range parts {
		p := &parts[i]
		total.ce += p.ce
		for k := range Classes {
			total.p[k] += p.p[k]
			total.hit[k] += p.hit[k]
			total.count[k] += p.count[k]
		}
	}
	for k, n := range total.count {
		weight += n * float64(cfg.ClassWeight[k])
	}
	// The gradient in the posteriors of a voxel of class y is c_k - (k == y)(e_y + w_y/p_y).
	var r LossResult
	var c, hit, ce [Classes]float32
	for k := range Classes {
		den := total.p[k] + total.count[k] + 1
		r.Dice[k] = (2*total.hit[k] + 1) / den
		scale := float64(cfg.Dice) / (den * Classes)
		if cfg.Present && total.count[k] == 0 {
			r.Dice[k], scale = 1, 0
		}
		r.Value -= r.Dice[k] / Classes
		change := r.Dice[k] // of the denominator, against the numerator's
		if cfg.SizesHeld {
			change = 1
		}
		c[k], hit[k] = float32(change*scale), float32(2*scale)
		if weight > 0 {
			ce[k] = float32(float64(cfg.CE) * float64(cfg.ClassWeight[k]) / weight)
		}
	}
	if weight > 0 {
		r.CE = total.ce / weight
	}
	r.Value = float64(cfg.Dice)*(1+r.Value) + float64(cfg.CE)*r.CE

	transposed := make([]float32, len(h.W)) // [block][32][8]
	for i, f := range h.W {
		ch, k := i/Logits, i%Logits
		transposed[(ch/lanes*Logits+k)*lanes+ch%lanes] = f
	}
	e.each(x.D, func(w *worker, z int) {
		p := &parts[z]
		p.dw = make([]float32, len(h.W))
		var sums [Logits]float32
		for y := range x.H {
			w.softmaxRow(e, x, h, z, y, sums[:])
			w.loss = lossGradArgs{p: w.p, background: w.bg, c: c[:], e: hit[:], w: ce[:], labels: labels[(z*x.H+y)*x.W:], n: x.W}
			e.k.lossGrad(&w.loss)
			a := &w.head
			*a = headGradArgs{dl: w.p, n: x.W}
			for b := range x.blocks() {
				a.w, a.out = transposed[b*Logits*lanes:], dx.at(b, z+1, y+1, 1)
				e.k.headGradIn(a)
				a.x, a.out = x.at(b, z+1, y+1, 1), p.dw[b*lanes*Logits:]
				e.k.headGradWeights(a)
			}
			a.out = p.db[:]
			e.k.headGradBias(a)
		}
	})
	for i := range dW {
		s := 0.0
		for z := range parts {
			s += float64(parts[z].dw[i])
		}
		dW[i] = float32(s)
	}
	for i := range dB {
		s := 0.0
		for z := range parts {
			s += float64(parts[z].db[i])
		}
		dB[i] = float32(s)
	}
	return r
}

func (e *Engine) lossSums(w *worker, part *lossPart, x *Tensor, h *Head, labels []uint8, cfg LossConfig, z int) {
	for y := range x.H {
		var sums [Logits]float32
		w.softmaxRow(e, x, h, z, y, sums[:])
		for k, s := range sums {
			part.p[k+1] += float64(s)
		}
		for i, k := range labels[(z*x.H+y)*x.W:][:x.W] {
			part.p[0] += float64(w.bg[i])
			v := w.bg[i]
			if k > 0 {
				v = w.p[i*Logits+int(k)-1]
			}
			part.hit[k] += float64(v)
			part.count[k]++
			part.ce -= float64(cfg.ClassWeight[k]) * logarithm(max(v, 1e-37))
		}
	}
}

// logarithm is the natural logarithm of a positive normal number to 1e-7 of max(1, |log x|), three times as
// fast as math.Log: the series of 2 atanh((m-1)/(m+1)) on the mantissa.
func logarithm(x float32) float64 {
	bits := math.Float32bits(x)
	exponent := float64(int(bits>>23) - 127)
	m := float64(math.Float32frombits(bits&0x7fffff | 0x3f800000))
	if m > math.Sqrt2 {
		m *= .5
		exponent++
	}
	t := (m - 1) / (m + 1)
	q := t * t
	return exponent*math.Ln2 + 2*t*(1+q*(1./3+q*(1./5+q*(1./7+q*(1./9)))))
}
