package conv

import "fmt"

var zeros [lanes]float32

// Conv computes out = leaky(bias + w * concat(upsample2(low), in)): upsampling by repetition, zero
// padding of one voxel, LeakyReLU with the given slope from 0 to 1 (1 is the identity), no bias when
// it is nil. low must be nil exactly when w has no upsampled channels; otherwise it is half as
// large as out on each axis. With st, which asks for slope 1, it also takes the sum and the sum of
// squares of out by channel.
func (e *Engine) Conv(w *Weights, low, in, out *Tensor, bias []float32, slope float32, st *Stats) {
	w.check(in, out)
	w.checkSource(low, out)
	if bias != nil && len(bias) != w.Out || st != nil && slope != 1 {
		panic(fmt.Sprintf("conv: %d biases for %d channels, slope %g", len(bias), w.Out, slope))
	}
	var up *upsampled
	if low != nil {
		up = newUpsampled(e.k, w, low, out, bias)
	}
	if w.form(w.winoForward, w.inForward, out) {
		e.winograd(w.winoForward, up, in, out, bias, slope, st)
	} else {
		e.direct(w.inForward, w.inLanes(), up, in, out, bias, slope, st)
	}
}

// form reports whether to take the Winograd form of the weights for an output, and panics when the
// form that its size asks for has not been packed.
func (w *Weights) form(wino, direct []float32, out *Tensor) bool {
	fits := w.winograd(out.H, out.W)
	if fits && len(wino) == 0 || !fits && len(direct) == 0 {
		panic(fmt.Sprintf("conv: weights not packed for %v", out))
	}
	return fits
}

// ConvGradData computes the gradients of Conv's inputs, din and dlow, from that of its output before
// the activation. Either may be nil.
func (e *Engine) ConvGradData(w *Weights, dz, din, dlow *Tensor) {
	if din != nil {
		w.check(din, dz)
		if w.form(w.winoBack, w.inBack, dz) {
			e.winograd(w.winoBack, nil, dz, din, nil, 1, nil)
		} else {
			e.direct(w.inBack, lanes, nil, dz, din, nil, 1, nil)
		}
	}
	if dlow != nil {
		w.checkLow(dlow, dz)
		if len(w.upBack) == 0 {
			panic("conv: weights not packed for training")
		}
		e.upGradData(w.upBack, dz, dlow)
	}
}

// check panics unless the tensors fit the weights, checkSource unless low is there exactly when w has
// upsampled channels, checkLow unless it fits.
func (w *Weights) check(in, out *Tensor) {
	if in.Channels != w.inChannels() || out.Channels != w.Out || !in.sameSize(out) {
		panic(fmt.Sprintf("conv: %d+%d to %d channels, tensors %v to %v", w.Up, w.In, w.Out, in, out))
	}
}

func (w *Weights) checkSource(low, out *Tensor) {
	if low != nil || w.Up > 0 {
		w.checkLow(low, out)
	}
}

func (w *Weights) checkLow(low, out *Tensor) {
	if low == nil || w.Up == 0 || low.Channels != w.Up || 2*low.D != out.D || 2*low.H != out.H || 2*low.W != out.W || len(w.upForward) == 0 {
		panic(fmt.Sprintf("conv: %d channels to upsample, tensors %v to %v, packed %t", w.Up, low, out, len(w.upForward) > 0))
	}
}

// initial returns the 8 values that the outputs of a block start from.
func initial(bias []float32, block int) []float32 {
	if bias == nil {
		return zeros[:]
	}
	return bias[block*lanes:]
}

// direct convolves row by row; inLanes is the number of channels used per input block, 4 or 8.
func (e *Engine) direct(w []float32, inLanes int, up *upsampled, in, out *Tensor, bias []float32, slope float32, st *Stats) {
	kernel := e.k.direct8
	if inLanes == 4 {
		kernel = e.k.direct4
	}
	if st != nil {
		st.reset(out.D, out.Channels)
	}
	split := pieces(out.W, 12)
	perBlock := in.blocks() * taps * inLanes * lanes
	if up != nil {
		up.all(e)
	}
	e.each(out.D*out.blocks(), func(wk *worker, task int) {
		ob, z := task/out.D, task%out.D
		for y := range out.H {
			dst := out.at(ob, z+1, y+1, 1)
			init, step := initial(bias, ob), 0
			if up != nil {
				init, step = dst, lanes
			}
			a := &wk.row
			*a = rowArgs{w: w[ob*perBlock:], blocks: in.blocks(), block: in.block(), slice: in.slice(), row: in.row(), initStep: step, slope: slope}
			x := 0
			for _, a.n = range split {
				a.in, a.init, a.out = in.at(0, z, y, x), init[x*step:], dst[x*lanes:]
				kernel(a)
				x += a.n
			}
		}
		if st != nil {
			wk.plane = planeArgs{z: out.at(ob, z+1, 1, 1), width: out.W, rows: out.H, row: out.row(), acc: st.part(z, ob)}
			e.k.sums(&wk.plane)
		}
	})
}
