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

// A Head is the 1x1x1 convolution to the logits of classes 1 to 32: of a tensor's channels and, where
// it has Up, of those of a tensor at half the resolution, the nearest of whose voxels counts.
type Head struct {
	Up []float32 // [channel of the tensor at half the resolution][32]
	W  []float32 // [channel][32]
	B  []float32 // [32]
}

func (h *Head) check(low, x *Tensor) {
	up := 0
	if low != nil {
		up = low.Channels
		if x.D != 2*low.D || x.H != 2*low.H || x.W != 2*low.W {
			panic(fmt.Sprintf("conv: head on %v and %v", low, x))
		}
	}
	if len(h.Up) != up*Logits || len(h.W) != x.Channels*Logits || len(h.B) != Logits {
		panic(fmt.Sprintf("conv: head of %d and %d weights and %d biases on %v and %v", len(h.Up), len(h.W), len(h.B), low, x))
	}
}

// headRows calls f, on several threads, with each row of voxels, for which w.softmax is ready. A task
// is a slice of low or, without it, of x; rows that share one of low follow each other.
func (e *Engine) headRows(low, x *Tensor, h *Head, f func(w *worker, task, z, y int)) {
	h.check(low, x)
	step := 1
	if low != nil {
		step = 2
	}
	e.each(x.D/step, func(w *worker, task int) {
		w.p, w.bg, w.likely = sized(w.p, x.W*Logits), sized(w.bg, x.W), sized(w.likely, x.W)
		for y := 0; y < x.H; y += step {
			bias, biasStep := h.B, 0
			if low != nil {
				w.below = sized(w.below, (low.W+3)*Logits) // softmax reads up to a multiple of 8 voxels of x
				w.softmax = softmaxArgs{
					x: low.at(0, task+1, y/2+1, 1), w: h.Up, bias: h.B, p: w.below,
					blocks: low.blocks(), block: low.block(), n: low.W,
				}
				e.k.logits(&w.softmax)
				bias, biasStep = w.below, Logits
			}
			for i := range step * step {
				z, y := task*step+i/step, y+i%step
				w.softmax = softmaxArgs{
					x: x.at(0, z+1, y+1, 1), w: h.W, bias: bias, biasStep: biasStep, p: w.p, background: w.bg,
					scratch: w.logits[:], blocks: x.blocks(), block: x.block(), n: x.W,
				}
				f(w, task, z, y)
			}
		}
	})
}

// Row is posteriors of voxels along x.
type Row struct {
	First      int       // the first voxel's place in the tensor
	Background []float32 // of class 0, by voxel
	Likely     []uint32  // bit k-1 is set of a voxel's likely classes k,
	P          []float32 // whose posterior P holds at 32*voxel + k-1; elsewhere P holds anything
}

// Posteriors calls f, on several threads, with each row of voxels of x; low may be nil. A class is
// likely when its posterior is greater than least. What a Row holds is gone when f returns.
func (e *Engine) Posteriors(low, x *Tensor, h *Head, least float32, f func(Row)) {
	e.headRows(low, x, h, func(w *worker, _, z, y int) {
		w.softmax.likely, w.softmax.least = w.likely, least
		e.k.likely(&w.softmax)
		f(Row{(z*x.H + y) * x.W, w.bg, w.likely, w.p})
	})
}

// Logits writes the logits in the layout of Posteriors. It is a plain loop, for comparisons.
func (e *Engine) Logits(low, x *Tensor, h *Head, dst []float32) {
	e.headRows(low, x, h, func(_ *worker, _, z, y int) {
		for i := range x.W {
			d := dst[((z*x.H+y)*x.W+i)*Logits:][:Logits]
			copy(d, h.B)
			add := func(t *Tensor, weights []float32, z, y, i int) {
				for c := range t.Channels {
					f := t.at(c/lanes, z+1, y+1, i+1)[c%lanes]
					for k := range d {
						d[k] += f * weights[c*Logits+k]
					}
				}
			}
			if low != nil {
				add(low, h.Up, z/2, y/2, i/2)
			}
			add(x, h.W, z, y, i)
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

// lossPart holds the sums of one task.
type lossPart struct {
	p, hit, count [Classes]float64 // posteriors, posteriors of the true class, voxels
	ce            float64
	grad          Head
}

// Loss computes
//
//	Dice * (1 - mean over the 33 classes of (2 i_k + 1) / (s_k + n_k + 1))
//	+ CE * sum of -ClassWeight[y] log p[y] / sum of ClassWeight[y]
//
// where s is the sum of a class's posteriors, i that over the voxels of the class and n their
// number. labels holds classes 0 to 32, x fastest. It writes the gradients of low (both may be nil), x
// and h.
//
// The posteriors are computed twice, once for the sums and once for the gradients: cheaper than
// storing 128 bytes a voxel.
func (e *Engine) Loss(low, x *Tensor, h *Head, labels []uint8, cfg LossConfig, dlow, dx *Tensor, grad *Head) LossResult {
	if (low == nil) != (dlow == nil) || low != nil && (!low.sameSize(dlow) || low.Channels != dlow.Channels) ||
		!x.sameSize(dx) || x.Channels != dx.Channels || len(labels) != x.D*x.H*x.W {
		panic(fmt.Sprintf("conv: loss of %v and %v with %d labels, gradients %v and %v", low, x, len(labels), dlow, dx))
	}
	grad.check(dlow, dx)
	for i, y := range labels {
		if y >= Classes {
			panic(fmt.Sprintf("conv: label %d at voxel %d", y, i))
		}
	}
	tasks := x.D
	if low != nil {
		tasks = low.D
	}
	parts := make([]lossPart, tasks)
	e.headRows(low, x, h, func(w *worker, task, z, y int) { e.lossSums(w, &parts[task], labels[(z*x.H+y)*x.W:][:x.W], cfg) })

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

	up, own := transposed(h.Up), transposed(h.W)
	e.headRows(low, x, h, func(w *worker, task, z, y int) {
		g := &parts[task].grad
		if g.B == nil {
			*g = Head{make([]float32, len(h.Up)), make([]float32, len(h.W)), make([]float32, Logits)}
		}
		var sums [Logits]float32
		w.softmax.sums = sums[:]
		e.k.softmax(&w.softmax)
		w.loss = lossGradArgs{p: w.p, background: w.bg, c: c[:], e: hit[:], w: ce[:], labels: labels[(z*x.H+y)*x.W:], n: x.W}
		e.k.lossGrad(&w.loss)
		w.head = headGradArgs{dl: w.p, n: x.W, out: g.B}
		e.k.headGradBias(&w.head)
		e.headGrads(w, x, dx, own, g.W, z, y)
		if low == nil {
			return
		}
		if z%2 == 0 && y%2 == 0 {
			w.belowGrad = sized(w.belowGrad, low.W*Logits)
			clear(w.belowGrad)
		}
		for i := range x.W {
			w.add = addArgs{dst: w.belowGrad[i/2*Logits:], src: w.p[i*Logits:], n: Logits}
			e.k.add(&w.add)
		}
		if z%2 == 1 && y%2 == 1 {
			w.head = headGradArgs{dl: w.belowGrad, n: low.W}
			e.headGrads(w, low, dlow, up, g.Up, z/2, y/2)
		}
	})
	sum := func(dst []float32, of func(*Head) []float32) {
		for i := range dst {
			s := 0.0
			for p := range parts {
				s += float64(of(&parts[p].grad)[i])
			}
			dst[i] = float32(s)
		}
	}
	sum(grad.Up, func(h *Head) []float32 { return h.Up })
	sum(grad.W, func(h *Head) []float32 { return h.W })
	sum(grad.B, func(h *Head) []float32 { return h.B })
	return r
}

// transposed returns a head's weights as [block][32][8].
func transposed(w []float32) []float32 {
	t := make([]float32, len(w))
	for i, f := range w {
		ch, k := i/Logits, i%Logits
		t[(ch/lanes*Logits+k)*lanes+ch%lanes] = f
	}
	return t
}

// headGrads writes the gradient of a row of t, from the gradients of its logits in w.head, and adds to
// that of its weights, which are given transposed.
func (e *Engine) headGrads(w *worker, t, dt *Tensor, weights, grad []float32, z, y int) {
	a := &w.head
	for b := range t.blocks() {
		a.w, a.out = weights[b*Logits*lanes:], dt.at(b, z+1, y+1, 1)
		e.k.headGradIn(a)
		a.x, a.out = t.at(b, z+1, y+1, 1), grad[b*lanes*Logits:]
		e.k.headGradWeights(a)
	}
}

// lossSums adds a row of voxels to the sums that the loss is made of.
func (e *Engine) lossSums(w *worker, part *lossPart, labels []uint8, cfg LossConfig) {
	var sums [Logits]float32
	w.softmax.sums = sums[:]
	e.k.softmax(&w.softmax)
	for k, s := range sums {
		part.p[k+1] += float64(s)
	}
	for i, k := range labels {
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
