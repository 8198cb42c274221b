package conv

import "fmt"

// A Perceptron is layers of dense connections from the features of a voxel, with LeakyReLU after all
// but the last. Its weights and biases are parts of one vector.
type Perceptron struct {
	layers []dense
	slope  float32
}

// dense connects in features, a multiple of 8, with out features, a multiple of 32.
type dense struct {
	in, out int
	w       []float32 // [group of 32 outputs][in][32]
	b       []float32 // [out]
}

// PerceptronLen is the number of parameters of a perceptron whose layers have these sizes, features first.
func PerceptronLen(sizes ...int) int {
	n := 0
	for l, in := range sizes[:len(sizes)-1] {
		n += (in + 1) * sizes[l+1]
	}
	return n
}

// NewPerceptron puts layers of these sizes, features first, on a vector of parameters, or of their gradients:
// of each layer the weights, [group of 32 outputs][input][32], and the biases.
func NewPerceptron(slope float32, params []float32, sizes ...int) *Perceptron {
	if len(params) != PerceptronLen(sizes...) || len(sizes) < 2 {
		panic(fmt.Sprintf("conv: perceptron of layers %v on %d parameters", sizes, len(params)))
	}
	p := &Perceptron{slope: slope}
	for l, in := range sizes[:len(sizes)-1] {
		out := sizes[l+1]
		if in%lanes != 0 || out%Logits != 0 || in <= 0 || out <= 0 {
			panic(fmt.Sprintf("conv: perceptron of layers %v", sizes))
		}
		p.layers = append(p.layers, dense{in, out, params[:in*out], params[in*out:][:out]})
		params = params[(in+1)*out:]
	}
	return p
}

// Layer returns the weights and biases of a layer.
func (p *Perceptron) Layer(l int) (w, b []float32) { return p.layers[l].w, p.layers[l].b }

// A Batch is voxels on their way through a perceptron, and the gradients on their way back. It is for one
// goroutine.
type Batch struct {
	size    int
	act     [][]float32 // what each layer hears: [block of 8][size][8]
	out     []float32   // of the layer that ran last: [group of 32][size][32]
	grad    []float32   // of out
	back    []float32   // of act
	softmax softmaxArgs
	leaky   leakyArgs
	head    headGradArgs
}

// NewBatch holds up to size voxels.
func (p *Perceptron) NewBatch(size int) *Batch {
	b := &Batch{size: (size + lanes - 1) / lanes * lanes}
	widest := 0
	for _, l := range p.layers {
		b.act = append(b.act, make([]float32, l.in*b.size))
		widest = max(widest, l.out)
	}
	b.out = make([]float32, widest*b.size)
	return b
}

// Features is where 8 of a voxel's features belong, numbers 8*block to 8*block+7.
func (b *Batch) Features(voxel, block int) []float32 {
	return b.act[0][(block*b.size+voxel)*lanes:][:lanes]
}

// Forward returns the last layer's outputs for the first n voxels, [voxel][32], until it is called again. A
// perceptron may serve several batches at a time.
func (e *Engine) Forward(p *Perceptron, b *Batch, n int) []float32 {
	if last := p.layers[len(p.layers)-1]; n < 1 || n > b.size || last.out != Logits {
		panic(fmt.Sprintf("conv: %d of %d voxels through a perceptron with %d outputs", n, b.size, last.out))
	}
	whole := (n + lanes - 1) / lanes * lanes // kernels take several voxels at a time
	for i, l := range p.layers {
		for g := range l.out / Logits {
			b.softmax = softmaxArgs{
				x: b.act[i], w: l.w[g*l.in*Logits:], bias: l.b[g*Logits:], p: b.out[g*b.size*Logits:],
				blocks: l.in / lanes, block: b.size * lanes, n: whole,
			}
			e.k.logits(&b.softmax)
			if i+1 < len(p.layers) {
				b.leaky = leakyArgs{src: b.softmax.p, dst: b.act[i+1][g*b.size*Logits:], slope: p.slope, block: b.size * lanes, n: whole}
				e.k.leaky(&b.leaky)
			}
		}
	}
	return b.out[:n*Logits]
}

// Backward adds to the gradient of the parameters that of the n voxels that Forward was called with last, of
// whose outputs it is given the gradients, [voxel][32]. grad is a perceptron on the vector of gradients.
func (e *Engine) Backward(p, grad *Perceptron, b *Batch, n int, dout []float32) {
	whole := (n + lanes - 1) / lanes * lanes
	if b.grad == nil {
		widest := 0
		for _, l := range p.layers[1:] {
			widest = max(widest, l.in)
		}
		b.grad, b.back = make([]float32, len(b.out)), make([]float32, 2*widest*b.size)
	}
	clear(b.grad[:whole*Logits])
	copy(b.grad, dout[:n*Logits])
	for i := len(p.layers) - 1; i >= 0; i-- {
		l, g := p.layers[i], grad.layers[i]
		a := &b.head
		for group := range l.out / Logits {
			*a = headGradArgs{dl: b.grad[group*b.size*Logits:], n: whole, out: g.b[group*Logits:]}
			e.k.headGradBias(a)
			for block := range l.in / lanes {
				a.x, a.out = b.act[i][block*b.size*lanes:], g.w[(group*l.in+block*lanes)*Logits:]
				e.k.headGradWeights(a)
			}
		}
		if i > 0 {
			e.through(p, b, i, whole)
		}
	}
}

// through carries the gradient of a layer's outputs to those of the layer before.
func (e *Engine) through(p *Perceptron, b *Batch, layer, n int) {
	l := p.layers[layer]
	length := l.in * b.size
	sum, part := b.back[:length], b.back[length:][:length]
	for group := range l.out / Logits {
		to := part
		if group == 0 {
			to = sum
		}
		turned := transposed(l.w[group*l.in*Logits:][:l.in*Logits])
		for block := range l.in / lanes {
			b.head = headGradArgs{dl: b.grad[group*b.size*Logits:], n: n, w: turned[block*Logits*lanes:], out: to[block*b.size*lanes:]}
			e.k.headGradIn(&b.head)
		}
		if group > 0 {
			for i, f := range part {
				sum[i] += f
			}
		}
	}
	for block := range l.in / lanes {
		to := b.grad[block*lanes/Logits*b.size*Logits+block*lanes%Logits:]
		for v := range n {
			at := (block*b.size + v) * lanes
			for c, act := range b.act[layer][at:][:lanes] {
				f := sum[at+c]
				if act < 0 {
					f *= p.slope
				}
				to[v*Logits+c] = f
			}
		}
	}
}
