package conv

import "fmt"

// ConvGradWeights computes into grad, in Master's layout, the gradient of w from that of Conv's
// output before the activation, dz, and Conv's inputs.
//
// The volume is cut into slabs along z, each with sums of its own, which are then added in order:
// the result does not depend on which thread did what.
func (e *Engine) ConvGradWeights(w *Weights, low, in, dz *Tensor, grad []float32) {
	w.check(in, dz)
	w.checkSource(low, dz)
	if len(grad) != len(w.Master) {
		panic(fmt.Sprintf("conv: gradient of %d values for %d weights", len(grad), len(w.Master)))
	}
	if low != nil {
		e.upGradWeights(low, dz, grad[:w.upLen()])
	}
	if w.winograd(dz.H, dz.W) && dz.W%4 == 0 {
		e.winoGradWeights(in, dz, grad[w.upLen():])
	} else {
		e.directGradWeights(in, dz, w.inLanes(), grad[w.upLen():])
	}
}

// slabs returns how many parts along z keep all threads busy next to the blocks of channels.
func slabs(blocks, depth int) int { return min(max(1, lanes/blocks), depth) }

func (e *Engine) directGradWeights(in, dz *Tensor, inLanes int, grad []float32) {
	ob := dz.blocks()
	ns := slabs(ob, dz.D)
	n := len(grad)
	partial := e.partial.grow(ns * n)
	chain := max(1, min(dz.H, 330/(dz.W+2))) // rows of one call: both streams within the first-level cache
	e.each(ns*ob, func(wk *worker, task int) {
		s, o := task%ns, task/ns
		acc := partial[s*n+o*(n/ob):][:n/ob]
		clear(acc)
		a := &wk.grad
		a.channels = inLanes
		for z := s * dz.D / ns; z < (s+1)*dz.D/ns; z++ {
			for y := 0; y < dz.H; y += chain {
				rows := min(chain, dz.H-y)
				a.n = (rows*(dz.W+2) - 2 + 2) / 3 * 3 // without the two border voxels at the end, rounded up
				a.dz = dz.at(o, z+1, y+1, 0)
				for ib := range in.blocks() {
					for k := range 9 {
						a.in, a.acc = in.at(ib, z+k/3, y+k%3, 1), acc[(ib*9+k)*inLanes*24:]
						e.k.weightGrad(a)
					}
				}
			}
		}
	})
	e.sumSlabs(partial, ns)
	size := inLanes * 3 * lanes
	e.each(n/size, func(_ *worker, t int) {
		src, dst := partial[t*size:][:size], grad[t*size:][:size]
		for i := range inLanes * 3 {
			at, step := e.k.place(i/3, i%3, 3)
			for oc := range lanes {
				dst[i*lanes+oc] = src[at+oc*step]
			}
		}
	})
}

// sumSlabs adds the second to the last of ns equal parts, each a multiple of 8, to the first.
func (e *Engine) sumSlabs(partial []float32, ns int) {
	const parts = 8
	n := len(partial) / ns
	e.each(parts, func(wk *worker, task int) {
		from, to := task*(n/lanes)/parts*lanes, (task+1)*(n/lanes)/parts*lanes
		for s := 1; s < ns && from < to; s++ {
			wk.add = addArgs{dst: partial[from:], src: partial[s*n+from:], n: to - from}
			e.k.add(&wk.add)
		}
	})
}

// upGradWeights gathers gradients of the summed taps, [ob][ib][parity z, y][2][2][ic][4][oc], and
// spreads each sum over its taps.
func (e *Engine) upGradWeights(low, dz *Tensor, grad []float32) {
	ob, ib := dz.blocks(), low.blocks()
	ns := slabs(ob, low.D)
	n := ob * ib * 4096
	partial := e.partial.grow(ns * n)
	chain := max(1, min(low.H, 160/low.W))
	e.each(ns*ob, func(wk *worker, task int) {
		s, o := task%ns, task/ns
		acc := partial[s*n+o*(n/ob):][:n/ob]
		clear(acc)
		a := &wk.upGrad
		*a = upGradArgs{n: low.W, lowRow: low.row(), dzRow: 2 * dz.row()}
		for z := s * low.D / ns; z < (s+1)*low.D/ns; z++ {
			for y := 0; y < low.H; y += chain {
				a.rows = min(chain, low.H-y)
				for parity := range 4 {
					pz, py := parity/2, parity%2
					a.dz = dz.at(o, 2*z+pz+1, 2*y+py+1, 0)
					for b := range ib {
						for tap := range 4 {
							a.low, a.acc = low.at(b, z+pz+tap/2, y+py+tap%2, 1), acc[((b*4+parity)*4+tap)*256:]
							e.k.upWeightGrad(a)
						}
					}
				}
			}
		}
	})
	e.sumSlabs(partial, ns)
	e.each(ob*ib, func(_ *worker, task int) {
		dst := grad[task*taps*64:][:taps*64]
		clear(dst)
		for sum := range 16 {
			src := partial[task*4096+sum*256:][:256]
			parity, tap := sum/4, sum%4
			zs, ys := upTaps[parity/2*2+tap/2], upTaps[parity%2*2+tap%2]
			for ic := range lanes {
				var v [4][lanes]float32
				for k := range v {
					at, step := e.k.place(ic, k, 4)
					for o := range lanes {
						v[k][o] = src[at+o*step]
					}
				}
				for kd := zs[0]; kd <= zs[1]; kd++ {
					for kh := ys[0]; kh <= ys[1]; kh++ {
						d := dst[((kd*3+kh)*lanes+ic)*24:][:24]
						for o := range lanes {
							d[o] += v[0][o] + v[2][o]
							d[8+o] += v[1][o] + v[2][o]
							d[16+o] += v[1][o] + v[3][o]
						}
					}
				}
			}
		}
	})
}

// winoGradWeights sums the gradient of the transformed weights, dU[pos][kd] = sum over tiles of
// (A2 dz A4')[z] (B2' in B4)[z+kd], and turns it back: dw = G2' dU G4.
func (e *Engine) winoGradWeights(in, dz *Tensor, grad []float32) {
	ob, ib := dz.blocks(), in.blocks()
	tiles := in.W / 4
	rows := max(1, min(in.H/2, 40/tiles)) // rows of tiles in one call
	if ob*ib >= 16 {
		rows = min(rows, 4)
	}
	ns := 8
	if in.D < 64 {
		ns = 4
	}
	ns = min(ns, max(1, in.D/4))
	n := ob * ib * 24 * 192
	partial := e.partial.grow(ns * n)
	pos := rows * tiles * lanes
	block := 24 * pos
	e.each(ns, func(wk *worker, s int) {
		acc := partial[s*n:][:n]
		clear(acc)
		ring := wk.ring.grow((ib + 3*ob) * block)
		v, d := ring[:ib*block], ring[ib*block:]
		z0, z1 := s*in.D/ns, (s+1)*in.D/ns
		for y0 := 0; y0 < in.H/2; y0 += rows {
			yn := min(rows, in.H/2-y0)
			transform := func(z int) { // a slice of dz, z counted with the border
				for b := range ob {
					for y := range yn {
						wk.tile = tileArgs{in: dz.at(b, z, 2*(y0+y)+1, 1), out: d[(z%3*ob+b)*block+y*tiles*lanes:], row: dz.row(), pos: pos, n: tiles}
						e.k.winoGradIn(&wk.tile)
					}
				}
			}
			transform(z0)
			transform(z0 + 1)
			for z := z0 + 1; z <= z1; z++ {
				transform(z + 1)
				for b := range ib {
					for y := range yn {
						wk.tile = tileArgs{in: in.at(b, z, 2*(y0+y), 0), out: v[b*block+y*tiles*lanes:], row: in.row(), pos: pos, n: tiles, slice: in.slice()}
						e.k.winoIn(&wk.tile)
					}
				}
				for o := range ob {
					at := func(kd int) []float32 { return d[((z+1-kd)%3*ob+o)*block:] }
					wk.outer = outerArgs{d0: at(0), d1: at(1), d2: at(2), n: yn * tiles, pos: pos}
					for b := range ib {
						wk.outer.v, wk.outer.acc = v[b*block:], acc[(o*ib+b)*24*192:]
						e.k.winoOuter(&wk.outer)
					}
				}
			}
		}
	})
	e.sumSlabs(partial, ns)
	e.each(ob*ib, func(_ *worker, task int) {
		var u [24][3][lanes]float32
		for ic := range lanes {
			for kd := range 3 {
				at, step := e.k.place(ic, kd, 3)
				for p := range u {
					src := partial[(task*24+p)*192+at:]
					for o := range lanes {
						u[p][kd][o] = src[o*step]
					}
				}
			}
			for kd := range 3 {
				for o := range lanes {
					var rows [3][6]float32
					for q := range 6 {
						m0, m1, m2, m3 := u[q][kd][o], u[6+q][kd][o], u[12+q][kd][o], u[18+q][kd][o]
						rows[0][q], rows[1][q], rows[2][q] = m0+.5*(m1+m2), .5*(m1-m2), m3+.5*(m1+m2)
					}
					for kh, m := range rows {
						a, b, c, d := m[1]+m[2], m[1]-m[2], m[3]+m[4], m[3]-m[4]
						dst := grad[((task*9+kd*3+kh)*lanes+ic)*24+o:]
						dst[0] = .25*m[0] - a*(1./6) + c*(1./24)
						dst[8] = -b*(1./6) + d*(1./12)
						dst[16] = -a*(1./6) + c*(1./6) + m[5]
					}
				}
			}
		}
	})
}
