// Package train teaches the segmentation network: forward with kept
// activations, batch renormalisation, the loss, gradients, Adam, an averaged
// copy of the weights, checkpoints that resume exactly.
package train

import (
	"math"
	"math/rand/v2"
	"slices"

	"neuroscreen/internal/segment"
	"neuroscreen/internal/segment/conv"
)

// varianceEpsilon keeps the normalisation finite on constant channels.
const varianceEpsilon = 1e-5

// block is one convolution, its normalisation and LeakyReLU.
type block struct {
	segment.Block
	weights *conv.Weights
	low, in *conv.Tensor
	z, y    *conv.Tensor // before and after normalisation and LeakyReLU

	// Offsets into the parameter vector: master weights, gamma, beta; and
	// into the vector of running statistics: mean, variance.
	oW, nW, oGamma, oBeta int
	oMean, oVar           int

	// Set by forward, used by backward; per channel.
	mean, rstd, r, d []float64
	scale, shift     []float32
}

// net is the trainable network with all its buffers.
type net struct {
	arch   segment.Architecture
	engine *conv.Engine

	params, grads, m, v []float32
	running             []float32 // running means and variances

	blocks                  []*block
	encA, encB              []*block // by level
	decA, decB              []*block
	input                   *conv.Tensor
	at                      [3]float64 // where the coordinates in input say that it lies
	pooled                  []*conv.Tensor
	low, dLow               *conv.Tensor // what the head hears of the level below, and the head's gradient of it; nil where it doesn't
	oHeadW, oHeadB, oHeadUp int
	stats                   conv.Stats

	// Gradients by level: of a block's input to normalisation, of the first
	// block's output, of the skip, of the pooled tensor, of the second block's
	// output on the way up.
	dz, dA, dSkip, dPooled, dB []*conv.Tensor

	abc [3][]float32 // scratch for the normalisation's gradient
}

// align keeps every parameter group on a vector boundary.
func align(n int) int { return (n + 7) &^ 7 }

func newNet(arch segment.Architecture, threads int) *net {
	n := &net{arch: arch, engine: conv.NewEngine(threads)}
	n.encA, n.encB = make([]*block, arch.Depth+1), make([]*block, arch.Depth+1)
	n.decA, n.decB = make([]*block, arch.Depth), make([]*block, arch.Depth)

	np, ns := 0, 0
	take := func(k int) int { o := np; np += align(k); return o }
	for _, d := range arch.Blocks() {
		b := &block{Block: d, nW: conv.MasterLen(d.Out, d.Up, d.In)}
		b.oW, b.oGamma, b.oBeta = take(b.nW), take(d.Out), take(d.Out)
		b.oMean, b.oVar = ns, ns+d.Out
		ns += 2 * d.Out
		z, y, x := size(arch, d.Level)
		b.z, b.y = conv.NewTensor(d.Out, z, y, x), conv.NewTensor(d.Out, z, y, x)
		b.mean, b.rstd, b.r, b.d = make([]float64, d.Out), make([]float64, d.Out), make([]float64, d.Out), make([]float64, d.Out)
		b.scale, b.shift = make([]float32, d.Out), make([]float32, d.Out)
		n.blocks = append(n.blocks, b)
	}
	n.oHeadW, n.oHeadB = take(arch.Base*segment.Logits), take(segment.Logits)
	n.oHeadUp = take(arch.HeadUp() * segment.Logits)
	n.params, n.grads, n.m, n.v = make([]float32, np), make([]float32, np), make([]float32, np), make([]float32, np)
	n.running = make([]float32, ns)
	for _, b := range n.blocks {
		b.weights = conv.NewWeights(b.Out, b.Up, b.In, n.params[b.oW:b.oW+b.nW])
	}

	// Wire the U.
	z, y, x := size(arch, 0)
	n.input = conv.NewTensor(8, z, y, x)
	n.place([3]float64{})
	next := n.blocks
	pop := func(low, in *conv.Tensor) *block {
		b := next[0]
		next = next[1:]
		b.low, b.in = low, in
		return b
	}
	in, widest := n.input, 0
	for l := range arch.Depth + 1 {
		z, y, x := size(arch, l)
		ch := arch.Channels(l)
		widest = max(widest, ch)
		var p, dp *conv.Tensor
		if l > 0 {
			p, dp = conv.NewTensor(arch.Channels(l-1), z, y, x), conv.NewTensor(arch.Channels(l-1), z, y, x)
			in = p
		}
		n.pooled, n.dPooled = append(n.pooled, p), append(n.dPooled, dp)
		n.encA[l] = pop(nil, in)
		n.encB[l] = pop(nil, n.encA[l].y)
		for _, t := range []*[]*conv.Tensor{&n.dz, &n.dA, &n.dSkip, &n.dB} {
			*t = append(*t, conv.NewTensor(ch, z, y, x))
		}
	}
	low := n.encB[arch.Depth].y
	for l := arch.Depth - 1; l >= 0; l-- {
		n.decA[l] = pop(low, n.encB[l].y)
		n.decB[l] = pop(nil, n.decA[l].y)
		low = n.decB[l].y
	}
	if arch.Below {
		n.low = n.decA[0].low
		n.dLow = conv.NewTensor(n.low.Channels, n.low.D, n.low.H, n.low.W)
	}
	for i := range n.abc {
		n.abc[i] = make([]float32, widest)
	}
	return n
}

func size(a segment.Architecture, level int) (z, y, x int) {
	return a.Shape[2] >> level, a.Shape[1] >> level, a.Shape[0] >> level
}

// initialise draws the weights: uniform within 1/sqrt(fan in), as torch does;
// gamma 1, beta 0, running mean 0 and variance 1.
func (n *net) initialise(seed uint64) {
	r := rand.New(rand.NewPCG(seed, 0x6e6574))
	uniform := func(p []float32, bound float64) {
		for i := range p {
			p[i] = float32((2*r.Float64() - 1) * bound)
		}
	}
	for _, b := range n.blocks {
		uniform(n.params[b.oW:b.oW+b.nW], 1/math.Sqrt(float64(27*(b.Up+b.In))))
		for c := range b.Out {
			n.params[b.oGamma+c], n.running[b.oVar+c] = 1, 1
		}
	}
	h := n.head(n.params)
	bound := 1 / math.Sqrt(float64(n.arch.Base+n.arch.HeadUp()))
	uniform(h.W, bound)
	uniform(h.B, bound)
	uniform(h.Up, bound)
}

// renorm bounds how far a step may lean on the running statistics (Ioffe
// 2017, batch renormalisation). With a batch of one head, plain batch
// normalisation would learn a network that needs that head's own statistics;
// renormalised, it learns the one that runs with the folded statistics.
// RMax 1 and DMax 0 are plain batch normalisation.
type renorm struct {
	RMax, DMax float64
	Momentum   float64 // of the running statistics
}

func (n *net) pack() {
	for _, b := range n.blocks {
		z, y, x := size(n.arch, b.Level)
		n.engine.Pack(b.weights, z, y, x, true)
	}
}

func (n *net) forwardBlock(b *block, rn renorm) {
	n.engine.Conv(b.weights, b.low, b.in, b.z, nil, 1, &n.stats)
	count := float64(b.z.D * b.z.H * b.z.W)
	mean, variance := n.running[b.oMean:b.oMean+b.Out], n.running[b.oVar:b.oVar+b.Out]
	for c := range b.Out {
		sum, squares := n.stats.Sum(c)
		mu := sum / count
		v := max(squares/count-mu*mu, 0)
		rstd := 1 / math.Sqrt(v+varianceEpsilon)
		runStd := math.Sqrt(float64(variance[c]) + varianceEpsilon)
		b.mean[c], b.rstd[c] = mu, rstd
		b.r[c] = min(max(1/rstd/runStd, 1/rn.RMax), rn.RMax)
		b.d[c] = min(max((mu-float64(mean[c]))/runStd, -rn.DMax), rn.DMax)
		gamma, beta := float64(n.params[b.oGamma+c]), float64(n.params[b.oBeta+c])
		scale := gamma * rstd * b.r[c]
		b.scale[c], b.shift[c] = float32(scale), float32(beta+gamma*b.d[c]-scale*mu)
		mean[c] += float32(rn.Momentum * (mu - float64(mean[c])))
		variance[c] += float32(rn.Momentum * (v - float64(variance[c])))
	}
	n.engine.Affine(b.z, b.y, b.scale, b.shift, segment.Slope)
}

func (n *net) forward(rn renorm) {
	for l := range n.arch.Depth + 1 {
		if l > 0 {
			n.engine.MaxPool(n.encB[l-1].y, n.pooled[l])
		}
		n.forwardBlock(n.encA[l], rn)
		n.forwardBlock(n.encB[l], rn)
	}
	for l := n.arch.Depth - 1; l >= 0; l-- {
		n.forwardBlock(n.decA[l], rn)
		n.forwardBlock(n.decB[l], rn)
	}
}

// backwardBlock takes the gradient of b.y and writes those of the block's
// parameters, input and low-resolution input (either may be nil).
//
// With g = dL/d(gamma*(xhat*r+d)+beta), xhat = (z-mean)*rstd, N voxels and r, d
// held constant: dgamma = sum g*(xhat*r+d), dbeta = sum g, and
// dz = gamma*rstd*r*(g - mean(g) - xhat*mean(g*xhat)) = a*g + b*z + c.
func (n *net) backwardBlock(blk *block, dy, din, dlow *conv.Tensor) {
	dz := n.dz[blk.Level]
	n.engine.AffineGradReduce(dy, blk.z, blk.scale, blk.shift, segment.Slope, &n.stats)
	count := float64(blk.z.D * blk.z.H * blk.z.W)
	a, b, c := n.abc[0][:blk.Out], n.abc[1][:blk.Out], n.abc[2][:blk.Out]
	for ch := range blk.Out {
		sg, sgz := n.stats.Sum(ch)
		sgx := (sgz - blk.mean[ch]*sg) * blk.rstd[ch]
		n.grads[blk.oGamma+ch] = float32(blk.r[ch]*sgx + blk.d[ch]*sg)
		n.grads[blk.oBeta+ch] = float32(sg)
		fa := float64(blk.scale[ch])
		fb := -fa * sgx / count * blk.rstd[ch]
		a[ch], b[ch], c[ch] = float32(fa), float32(fb), float32(-fa*sg/count-fb*blk.mean[ch])
	}
	n.engine.AffineGrad(dy, blk.z, dz, blk.scale, blk.shift, a, b, c, segment.Slope)
	n.engine.ConvGradWeights(blk.weights, blk.low, blk.in, dz, n.grads[blk.oW:blk.oW+blk.nW])
	if din != nil || dlow != nil {
		n.engine.ConvGradData(blk.weights, dz, din, dlow)
	}
}

// head is the part of a parameter vector, or of its gradient, that makes logits.
func (n *net) head(of []float32) *conv.Head {
	return &conv.Head{
		Up: of[n.oHeadUp:][:n.arch.HeadUp()*segment.Logits],
		W:  of[n.oHeadW:][:n.arch.Base*segment.Logits],
		B:  of[n.oHeadB:][:segment.Logits],
	}
}

// show puts a sample before the network.
func (n *net) show(s Sample) {
	n.input.SetChannel(0, s.Image)
	if s.AtMM != n.at {
		n.place(s.AtMM)
	}
}

// place writes the coordinates of samples whose middle lies there.
func (n *net) place(at [3]float64) {
	n.at = at
	for axis, v := range n.arch.Coordinates(at) {
		n.input.SetChannel(1+axis, v)
	}
}

// gradients runs one head forward and back.
func (n *net) gradients(s Sample, loss conv.LossConfig, rn renorm) conv.LossResult {
	n.show(s)
	n.pack()
	n.forward(rn)
	res := n.engine.Loss(n.low, n.decB[0].y, n.head(n.params), s.Labels, loss, n.dLow, n.dB[0], n.head(n.grads))

	depth := n.arch.Depth
	for l := range depth {
		n.backwardBlock(n.decB[l], n.dB[l], n.dA[l], nil)
		n.backwardBlock(n.decA[l], n.dA[l], n.dSkip[l], n.dB[l+1])
		if l == 0 && n.dLow != nil {
			n.engine.Add(n.dB[1], n.dLow)
		}
	}
	dy := n.dB[depth]
	for l := depth; l >= 0; l-- {
		n.backwardBlock(n.encB[l], dy, n.dA[l], nil)
		n.backwardBlock(n.encA[l], n.dA[l], n.dPooled[l], nil)
		if l > 0 {
			n.engine.MaxPoolGrad(n.encB[l-1].y, n.pooled[l], n.dPooled[l], n.dSkip[l-1])
			dy = n.dSkip[l-1]
		}
	}
	return res
}

// grownWeight is about the root mean square of weights after a long run.
// Behind a normalisation their size says nothing but how far a step turns them:
// Adam's steps are of one length, and make weights grow. Folded weights are a
// third of that in the coarse levels, where the first hundred steps of a run
// would tear down what they know.
const grownWeight = .1

// unfold takes folded weights apart again: they grow to the usual size, and the
// normalisation gets the statistics that some samples show, and gamma and beta
// that make up for both, so that the network stays the same and can go on
// learning.
func (n *net) unfold(m *segment.Model, from Sampler, samples int) {
	factors := make([][]float64, len(n.blocks)) // of growth, by channel
	for i, b := range n.blocks {
		weights := slices.Clone(m.Weight[i])
		for channel := range slices.Chunk(weights, len(weights)/b.Out) {
			square := 0.0
			for _, w := range channel {
				square += float64(w) * float64(w)
			}
			factor := 1.0
			if square > 0 {
				factor = grownWeight / math.Sqrt(square/float64(len(channel)))
			}
			for j := range channel {
				channel[j] *= float32(factor)
			}
			factors[i] = append(factors[i], factor)
		}
		b.weights.SetTorch(weights)
		copy(n.params[b.oBeta:], m.Bias[i])
		for c, f := range factors[i] {
			n.params[b.oGamma+c] = 1
			n.running[b.oMean+c], n.running[b.oVar+c] = 0, float32(f*f-varianceEpsilon)
		}
	}
	h := n.head(n.params)
	copy(h.Up, segment.Transposed(m.HeadUp, n.arch.HeadUp()))
	copy(h.W, segment.Transposed(m.HeadW, n.arch.Base))
	copy(h.B, m.HeadB)
	n.pack()
	mean, square := make([]float64, len(n.running)), make([]float64, len(n.running))
	for i := range samples {
		n.show(from.At(uint64(i)))
		// Leaning wholly on the running statistics, which only undo the growth.
		n.forward(renorm{RMax: math.Inf(1), DMax: math.Inf(1)})
		for _, b := range n.blocks {
			for c := range b.Out {
				v := 1/(b.rstd[c]*b.rstd[c]) - varianceEpsilon
				mean[b.oMean+c] += b.mean[c] / float64(samples)
				square[b.oMean+c] += (v + b.mean[c]*b.mean[c]) / float64(samples)
			}
		}
	}
	for i, b := range n.blocks {
		for c, f := range factors[i] {
			mu := mean[b.oMean+c]
			v := max(square[b.oMean+c]-mu*mu, 0)
			n.running[b.oMean+c], n.running[b.oVar+c] = float32(mu), float32(v)
			n.params[b.oGamma+c] = float32(math.Sqrt(v+varianceEpsilon) / f)
			n.params[b.oBeta+c] += float32(mu / f)
		}
	}
}

// export folds the normalisation into the convolutions:
// w' = w*gamma/std, b' = beta - mean*gamma/std, with running statistics.
func (n *net) export(arch segment.Architecture, params, running []float32, p segment.Provenance) *segment.Model {
	m := segment.NewModel(arch)
	m.Provenance = p
	for i, b := range n.blocks {
		w := b.weights.Torch(params[b.oW : b.oW+b.nW])
		per := len(w) / b.Out
		for o := range b.Out {
			s := float64(params[b.oGamma+o]) / math.Sqrt(float64(running[b.oVar+o])+varianceEpsilon)
			for j := range per {
				m.Weight[i][o*per+j] = float32(float64(w[o*per+j]) * s)
			}
			m.Bias[i][o] = float32(float64(params[b.oBeta+o]) - float64(running[b.oMean+o])*s)
		}
	}
	h := n.head(params)
	copy(m.HeadUp, segment.Transposed(h.Up, segment.Logits))
	copy(m.HeadW, segment.Transposed(h.W, segment.Logits))
	copy(m.HeadB, h.B)
	return m
}
