package conv

import "fmt"

const taps = 27 // of a 3x3x3 kernel

// Weights are those of one 3x3x3 convolution over the concatenation of an upsampled tensor of Up
// channels and a tensor of In channels, torch's order. Master, the vector that training changes,
// holds the part for the upsampled channels and then the other, each
//
//	[Out/8][channels/8][kd][kh][8 ic][kw][8 oc]
//
// An In of 4 stands for 4 channels in one block of 8 ([Out/8][1][kd][kh][4 ic][kw][8 oc]). Pack
// derives from Master the forms that the kernels read.
type Weights struct {
	Out, Up, In int
	Master      []float32

	upForward []float32 // [ob][kz][ky][ib][ic][kx][oc], of differences
	upBack    []float32 // [ib][ob][4][4][oc][4][ic], taps summed

	// Of the other channels either the direct forms or, where the size allows, Winograd's: those of
	// the convolution, and for training those of its adjoint, with channels exchanged and taps
	// mirrored.
	inForward, inBack     []float32 // [ob][ib][kd][kh][ic][kw][oc]; inBack [ib][ob][kd][kh][oc][kw][ic]
	winoForward, winoBack []float32 // [ob][24][kd][ib][ic][oc]
}

// MasterLen returns the number of weights.
func MasterLen(out, up, in int) int { return out * (up + in) * taps }

// NewWeights returns weights over master, which it keeps; len(master) must be MasterLen.
func NewWeights(out, up, in int, master []float32) *Weights {
	if out < lanes || out%lanes != 0 || up < 0 || up%lanes != 0 || in < 4 || in != 4 && in%lanes != 0 || len(master) != MasterLen(out, up, in) {
		panic(fmt.Sprintf("conv: %d weights for %d channels from %d upsampled and %d", len(master), out, up, in))
	}
	return &Weights{Out: out, Up: up, In: in, Master: master}
}

func (w *Weights) upLen() int        { return w.Out * w.Up * taps }
func (w *Weights) upPart() []float32 { return w.Master[:w.upLen()] }
func (w *Weights) inPart() []float32 { return w.Master[w.upLen():] }
func (w *Weights) inLanes() int      { return min(w.In, lanes) }
func (w *Weights) inBlocks() int     { return (w.In + lanes - 1) / lanes }
func (w *Weights) inChannels() int   { return w.inBlocks() * lanes }
func (w *Weights) outBlocks() int    { return w.Out / lanes }
func (w *Weights) upBlocks() int     { return w.Up / lanes }

// SetTorch fills Master from torch's [Out][Up+In][3][3][3].
func (w *Weights) SetTorch(v []float32) {
	w.permute(v, w.Master, func(torch, packed *float32) { *packed = *torch })
}

// Torch returns packed, weights or gradients in Master's layout, in torch's [Out][Up+In][3][3][3].
func (w *Weights) Torch(packed []float32) []float32 {
	v := make([]float32, len(w.Master))
	w.permute(v, packed, func(torch, packed *float32) { *torch = *packed })
	return v
}

func (w *Weights) permute(torch, packed []float32, f func(torch, packed *float32)) {
	if len(torch) != len(w.Master) || len(packed) != len(w.Master) {
		panic(fmt.Sprintf("conv: %d and %d weights, want %d", len(torch), len(packed), len(w.Master)))
	}
	i := 0
	for o := range w.Out {
		for c := range w.Up + w.In {
			part, blocks, width, ic := packed[w.upLen():], w.inBlocks(), w.inLanes(), c-w.Up
			if c < w.Up {
				part, blocks, width, ic = packed, w.upBlocks(), lanes, c
			}
			for k := range taps {
				at := (((o/lanes*blocks+ic/width)*9+k/3)*width+ic%width)*3 + k%3
				f(&torch[i], &part[at*lanes+o%lanes])
				i++
			}
		}
	}
}

// winograd reports whether to convolve an image of h x width in tiles of 2x4; the last of a row may
// share columns with the one before. Below two tiles a row, and for half a block of channels, the
// transforms cost more than they save.
func (w *Weights) winograd(h, width int) bool {
	return h%2 == 0 && width >= 8 && w.In != 4
}

// Pack derives from Master what Conv needs for outputs of d x h x width, and with training what the
// gradients need too. It must be called again when Master changes.
func (e *Engine) Pack(w *Weights, d, h, width int, training bool) {
	ob, ib := w.outBlocks(), w.inBlocks()
	if w.Up > 0 {
		w.upForward = sized(w.upForward, w.upLen())
		e.packUp(w)
		if training {
			w.upBack = sized(w.upBack, w.Out*w.Up*64)
			e.packUpBack(w)
		}
	}
	var back []float32
	if training {
		back = sized(w.inBack, w.Out*w.inChannels()*taps)
	}
	w.inForward, w.inBack, w.winoForward, w.winoBack = w.inForward[:0], back[:0], w.winoForward[:0], w.winoBack[:0]
	if w.winograd(h, width) {
		w.winoForward = sized(w.winoForward, w.Out*w.In*72)
		e.packWino(w.inPart(), ob, ib, w.winoForward)
		if training {
			w.winoBack = sized(w.winoBack, w.Out*w.In*72)
			e.packTransposed(w.inPart(), ob, ib, lanes, back, plain)
			e.packWino(back, ib, ob, w.winoBack)
		}
		return
	}
	w.inForward = sized(w.inForward, len(w.inPart()))
	e.packDirect(w.inPart(), w.inLanes(), w.inForward)
	if training {
		w.inBack = back
		e.packTransposed(w.inPart(), ob, ib, w.inLanes(), back, e.k.place)
	}
}

func sized[T any](v []T, n int) []T {
	if cap(v) < n {
		return make([]T, n)
	}
	return v[:n]
}

// A placer tells where the 8 output channels of an input channel and tap lie within a block: the
// first, and how far apart they are.
type placer func(ic, tap, taps int) (at, step int)

// plain is Master's order, [ic][tap][8 oc].
func plain(ic, tap, taps int) (at, step int) { return (ic*taps + tap) * lanes, 1 }

// paired is the order for kernels that multiply two input channels at once, [ic/2][tap][8 oc][2 ic].
func paired(ic, tap, taps int) (at, step int) { return (ic/2*taps+tap)*2*lanes + ic%2, 2 }

// packDirect copies weights from Master's order to the kernels'.
func (e *Engine) packDirect(w []float32, inLanes int, dst []float32) {
	size := inLanes * 3 * lanes
	e.each(len(w)/size, func(_ *worker, t int) {
		src, d := w[t*size:][:size], dst[t*size:][:size]
		for i := range inLanes * 3 {
			at, step := e.k.place(i/3, i%3, 3)
			for oc, f := range src[i*lanes:][:lanes] {
				d[at+oc*step] = f
			}
		}
	})
}

// packTransposed writes the weights of the data gradient: channels exchanged, taps mirrored. Lanes
// without an input channel stay zero.
func (e *Engine) packTransposed(w []float32, outBlocks, inBlocks, inLanes int, dst []float32, place placer) {
	e.each(inBlocks, func(_ *worker, ib int) {
		for ob := range outBlocks {
			for k := range 9 { // kd, kh
				src := w[((ob*inBlocks+ib)*9+k)*inLanes*24:]
				d := dst[((ib*outBlocks+ob)*9+8-k)*192:][:192]
				for oc := range lanes {
					for kw := range 3 {
						at, step := place(oc, 2-kw, 3)
						for ic := range inLanes {
							d[at+ic*step] = src[(ic*3+kw)*lanes+oc]
						}
					}
				}
			}
		}
	})
}

// packWino writes U = G2 w G4' per kd, with the rows of G2 1 0 0, 1/2 1/2 1/2, 1/2 -1/2 1/2, 0 0 1
// and of G4 1/4 0 0, -1/6 -1/6 -1/6, -1/6 1/6 -1/6, 1/24 1/12 1/6, 1/24 -1/12 1/6, 0 0 1.
func (e *Engine) packWino(w []float32, outBlocks, inBlocks int, dst []float32) {
	e.each(outBlocks*inBlocks, func(_ *worker, t int) {
		ob, ib := t/inBlocks, t%inBlocks
		pos := 3 * inBlocks * 64
		var rows [4][3][lanes]float32
		for kd := range 3 {
			src := w[(t*3+kd)*3*192:][:3*192]
			for ic := range lanes {
				for kw := range 3 {
					a, b, c := vec(src[(ic*3+kw)*lanes:]), vec(src[192+(ic*3+kw)*lanes:]), vec(src[384+(ic*3+kw)*lanes:])
					for o := range lanes {
						s := .5 * (a[o] + c[o])
						rows[0][kw][o], rows[1][kw][o], rows[2][kw][o], rows[3][kw][o] = a[o], s+.5*b[o], s-.5*b[o], c[o]
					}
				}
				at, step := e.k.place(ic, 0, 1)
				for p := range rows {
					d := dst[(ob*24+p*6)*pos+(kd*inBlocks+ib)*64+at:]
					for o := range lanes {
						a, b, c := rows[p][0][o], rows[p][1][o], rows[p][2][o]
						i := o * step
						d[i] = a * .25
						d[pos+i] = (a + b + c) * (-1. / 6)
						d[2*pos+i] = (a - b + c) * (-1. / 6)
						d[3*pos+i] = a*(1./24) + b*(1./12) + c*(1./6)
						d[4*pos+i] = a*(1./24) - b*(1./12) + c*(1./6)
						d[5*pos+i] = c
					}
				}
			}
		}
	})
}

// Along one axis the outputs 2i and 2i+1 of a 3-tap convolution of an upsampled signal see the low
// voxels i-1, i and i, i+1. Of the four sums of taps, the first two make the even output, the last
// two the odd one.
var upTaps = [4][2]int{{0, 0}, {1, 2}, {0, 1}, {2, 2}} // first and last tap of each sum

// upBackTap is the place of each sum in the adjoint, a 4-tap convolution of stride 2: tap k reads
// the output 2i+k-1.
var upBackTap = [4]int{3, 1, 2, 0}

// packUp writes G w along z, y and x with the rows of G -1 0 0, 1 1 1, 0 0 1.
func (e *Engine) packUp(w *Weights) {
	inBlocks := w.upBlocks()
	e.each(inBlocks*w.outBlocks(), func(_ *worker, t int) {
		ob, ib := t/inBlocks, t%inBlocks
		src := w.upPart()[t*taps*64:][:taps*64]
		for ic := range lanes {
			var v [taps][lanes]float32
			for k := range v {
				v[k] = *vec(src[((k/3*lanes+ic)*3+k%3)*lanes:])
			}
			for _, axis := range [3]int{9, 3, 1} {
				for k := range v {
					if k/axis%3 == 0 {
						for o, first := range v[k] {
							v[k][o] = -first
							v[k+axis][o] += first + v[k+2*axis][o]
						}
					}
				}
			}
			for k := range v {
				at, step := e.k.place(ic, k%3, 3)
				d := w.upForward[((ob*9+k/3)*inBlocks+ib)*3*64+at:]
				for o, f := range v[k] {
					d[o*step] = f
				}
			}
		}
	})
}

// packUpBack writes the weights of upGradData.
func (e *Engine) packUpBack(w *Weights) {
	inBlocks, outBlocks := w.upBlocks(), w.outBlocks()
	e.each(inBlocks*outBlocks, func(_ *worker, t int) {
		ob, ib := t/inBlocks, t%inBlocks
		src := w.upPart()[t*taps*64:][:taps*64]
		var a [4][3][3][lanes]float32 // summed along z
		var b [4][4][3][lanes]float32 // and along y
		for ic := range lanes {
			for kh := range 3 {
				for kw := range 3 {
					at := (kh*24 + ic*3 + kw) * lanes
					x, y, z := vec(src[at:]), vec(src[at+576:]), vec(src[at+1152:])
					for o := range lanes {
						a[0][kh][kw][o], a[1][kh][kw][o], a[2][kh][kw][o], a[3][kh][kw][o] = x[o], y[o]+z[o], x[o]+y[o], z[o]
					}
				}
			}
			for q := range 4 {
				for kw := range 3 {
					for o := range lanes {
						x, y, z := a[q][0][kw][o], a[q][1][kw][o], a[q][2][kw][o]
						b[q][0][kw][o], b[q][1][kw][o], b[q][2][kw][o], b[q][3][kw][o] = x, y+z, x+y, z
					}
				}
			}
			for qz := range 4 {
				for qy := range 4 {
					back := w.upBack[(((ib*outBlocks+ob)*4+upBackTap[qz])*4+upBackTap[qy])*256:][:256]
					for o := range lanes {
						x, y, z := b[qz][qy][0][o], b[qz][qy][1][o], b[qz][qy][2][o]
						for tap, v := range [4]float32{z, y + z, x + y, x} {
							i, s := e.k.place(o, tap, 4)
							back[i+ic*s] = v
						}
					}
				}
			}
		}
	})
}

// MACs counts the multiply-adds of one convolution that gives d x h x width voxels: of its plain
// definition, and those that are executed, since upsampled channels take 27 for 8 outputs and
// Winograd's form, for two slices at a time, makes do with a third.
func (w *Weights) MACs(d, h, width int) (nominal, executed float64) {
	outputs := float64(d * h * width * w.Out)
	nominal = outputs * float64((w.Up+w.In)*taps)
	executed = outputs * float64(w.Up*taps) / 8
	if w.winograd(h, width) {
		executed += float64((d+1)/2*2*h*((width+3)/4*4)*w.Out) * float64(w.In*taps) / 3
	} else {
		executed += outputs * float64(w.In*taps)
	}
	return nominal, executed
}
