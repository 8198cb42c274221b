package conv

import "fmt"

// coefficients lays per-channel vectors out by block: [block][len(v)][8].
func coefficients(channels int, v ...[]float32) []float32 {
	c := make([]float32, channels*len(v))
	for i, x := range v {
		if len(x) != channels {
			panic(fmt.Sprintf("conv: %d coefficients for %d channels", len(x), channels))
		}
		for k, f := range x {
			c[(k/lanes*len(v)+i)*lanes+k%lanes] = f
		}
	}
	return c
}

// planes calls f for every slice of every block with the arguments that the kernels share.
func (e *Engine) planes(coef []float32, slope float32, tensors []*Tensor, f func(a *planeArgs, block, z int)) {
	t := tensors[0]
	for _, o := range tensors {
		if o.Channels != t.Channels || !o.sameSize(t) {
			panic(fmt.Sprintf("conv: tensors %v and %v differ in shape", t, o))
		}
	}
	e.each(t.blocks()*t.D, func(w *worker, task int) {
		b, z := task/t.D, task%t.D
		per := len(coef) / t.blocks()
		w.plane = planeArgs{coef: coef[b*per:], width: t.W, rows: t.H, row: t.row(), slope: slope}
		f(&w.plane, b, z)
	})
}

// Affine computes y = leaky(scale*z + shift) by channel, the normalisation and activation of a
// block. slope is from 0 to 1; y may be z.
func (e *Engine) Affine(z, y *Tensor, scale, shift []float32, slope float32) {
	coef := coefficients(z.Channels, scale, shift)
	e.planes(coef, slope, []*Tensor{z, y}, func(a *planeArgs, block, s int) {
		a.z, a.out = z.at(block, s+1, 1, 1), y.at(block, s+1, 1, 1)
		e.k.affine(a)
	})
}

// AffineGradReduce takes the sums of g and of g*z by channel, g = dy * leaky'(scale*z + shift): the
// derivative at 0 is the slope.
func (e *Engine) AffineGradReduce(dy, z *Tensor, scale, shift []float32, slope float32, st *Stats) {
	coef := coefficients(z.Channels, scale, shift)
	st.reset(z.D, z.Channels)
	e.planes(coef, slope, []*Tensor{dy, z}, func(p *planeArgs, block, s int) {
		p.dy, p.z, p.acc = dy.at(block, s+1, 1, 1), z.at(block, s+1, 1, 1), st.part(s, block)
		e.k.affineSums(p)
	})
}

// AffineGrad computes dz = a*g + b*z + c by channel with g as in AffineGradReduce: with the
// constants of batch normalisation, its gradient. dz may be dy.
func (e *Engine) AffineGrad(dy, z, dz *Tensor, scale, shift, a, b, c []float32, slope float32) {
	coef := coefficients(z.Channels, scale, shift, a, b, c)
	e.planes(coef, slope, []*Tensor{dy, z, dz}, func(p *planeArgs, block, s int) {
		p.dy, p.z, p.out = dy.at(block, s+1, 1, 1), z.at(block, s+1, 1, 1), dz.at(block, s+1, 1, 1)
		e.k.affineGrad(p)
	})
}

// MaxPool takes the maximum of 2x2x2 voxels. Odd sizes are rounded down as in torch: the last voxel
// is left out.
func (e *Engine) MaxPool(in, out *Tensor) {
	checkPool(in, out)
	e.each(out.blocks()*out.D, func(w *worker, task int) {
		b, z := task/out.D, task%out.D
		a := &w.pool
		*a = poolArgs{row: in.row(), slice: in.slice(), n: out.W}
		for y := range out.H {
			a.in, a.out = in.at(b, 2*z+1, 2*y+1, 1), out.at(b, z+1, y+1, 1)
			e.k.poolMax(a)
		}
	})
}

// MaxPoolGrad adds dout to din at the voxel whose value MaxPool took; of equal ones at the first, x
// fastest.
func (e *Engine) MaxPoolGrad(in, out, dout, din *Tensor) {
	checkPool(in, out)
	checkPool(din, dout)
	if !in.sameSize(din) || in.Channels != din.Channels {
		panic(fmt.Sprintf("conv: gradient %v of a pooled %v", din, in))
	}
	e.each(out.blocks()*out.D, func(w *worker, task int) {
		b, z := task/out.D, task%out.D
		a := &w.pool
		*a = poolArgs{row: in.row(), slice: in.slice(), n: out.W}
		for y := range out.H {
			a.in, a.out = in.at(b, 2*z+1, 2*y+1, 1), out.at(b, z+1, y+1, 1)
			a.din, a.dout = din.at(b, 2*z+1, 2*y+1, 1), dout.at(b, z+1, y+1, 1)
			e.k.poolGrad(a)
		}
	})
}

func checkPool(in, out *Tensor) {
	if in.Channels != out.Channels || in.D/2 != out.D || in.H/2 != out.H || in.W/2 != out.W {
		panic(fmt.Sprintf("conv: pooling %v to %v", in, out))
	}
}

// Add adds src to dst.
func (e *Engine) Add(dst, src *Tensor) {
	if !dst.sameSize(src) || dst.Channels != src.Channels {
		panic(fmt.Sprintf("conv: adding %v to %v", src, dst))
	}
	e.each(dst.blocks()*dst.D, func(w *worker, task int) {
		b, z := task/dst.D, task%dst.D
		w.add = addArgs{dst: dst.at(b, z+1, 0, 0), src: src.at(b, z+1, 0, 0), n: dst.slice()}
		e.k.add(&w.add)
	})
}
