package conv

import "math"

// The kernels in plain Go, with the formulas of kernels_amd64.go. Nearly all of them come down to
// dot8; every access is checked, so tests on them also find a kernel reaching too far.

var genericKernels = kernelSet{
	name:            "generic",
	place:           plain,
	upPairs:         8,
	direct8:         func(a *rowArgs) { directGeneric(a, 8) },
	direct4:         func(a *rowArgs) { directGeneric(a, 4) },
	upIn:            upInGeneric,
	upMul:           upMulGeneric,
	upOut:           upOutGeneric,
	upGrad:          upGradGeneric,
	weightGrad:      weightGradGeneric,
	upWeightGrad:    upWeightGradGeneric,
	winoIn:          winoInGeneric,
	winoGradIn:      winoGradInGeneric,
	winoMul:         winoMulGeneric,
	winoOut:         winoOutGeneric,
	winoOuter:       winoOuterGeneric,
	sums:            sumsGeneric,
	affine:          affineGeneric,
	affineSums:      affineSumsGeneric,
	affineGrad:      affineGradGeneric,
	poolMax:         poolMaxGeneric,
	poolGrad:        poolGradGeneric,
	logits:          logitsGeneric,
	softmax:         softmaxGeneric,
	likely:          likelyGeneric,
	lossGrad:        lossGradGeneric,
	headGradIn:      headGradInGeneric,
	headGradWeights: headGradWeightsGeneric,
	headGradBias:    headGradBiasGeneric,
	adam:            adamGeneric,
	add:             addGeneric,
	leaky:           leakyGeneric,
	peak:            peakGeneric,
}

// dot8 adds x[i*xStep] * w[i*wStep + o] over i < n to acc[o], eight sums in registers.
func dot8(acc *[lanes]float32, x []float32, xStep int, w []float32, wStep, n int) {
	s0, s1, s2, s3, s4, s5, s6, s7 := acc[0], acc[1], acc[2], acc[3], acc[4], acc[5], acc[6], acc[7]
	for i := range n {
		f, v := x[i*xStep], vec(w[i*wStep:])
		s0 += f * v[0]
		s1 += f * v[1]
		s2 += f * v[2]
		s3 += f * v[3]
		s4 += f * v[4]
		s5 += f * v[5]
		s6 += f * v[6]
		s7 += f * v[7]
	}
	*acc = [lanes]float32{s0, s1, s2, s3, s4, s5, s6, s7}
}

func vec(v []float32) *[lanes]float32 { return (*[lanes]float32)(v) }

func leaky(v, slope float32) float32 { return max(v, v*slope) }

// rowGeneric computes outputs that read window x window rows of the input: at input position p, the
// weight vectors from tap on, for each pair of p and tap that input names.
func rowGeneric(a *rowArgs, outputs, window, taps, channels int, input func(j int) (p, tap, pairs int)) {
	for j := range outputs {
		acc := *vec(a.init[j*a.initStep:])
		p, tap, pairs := input(j)
		w := a.w
		for b := range a.blocks {
			for k := range window * window {
				in := a.in[b*a.block+k/window*a.slice+k%window*a.row:]
				for i := range pairs {
					dot8(&acc, in[(p+i)*lanes:], 1, w[(tap+i)*lanes:], taps*lanes, channels)
				}
				w = w[channels*taps*lanes:]
			}
		}
		for o, f := range acc {
			a.out[j*lanes+o] = leaky(f, a.slope)
		}
	}
}

func directGeneric(a *rowArgs, channels int) {
	rowGeneric(a, a.n, 3, 3, channels, func(j int) (p, tap, pairs int) { return j, 0, 3 })
}

func upInGeneric(a *upInArgs) {
	var last [lanes]float32
	for i := range a.n {
		for o := range lanes {
			at := i*lanes + o
			r := (a.a[at] - a.b[at]) - (a.c[at] - a.d[at])
			a.out[2*i*lanes+o], a.out[(2*i+1)*lanes+o] = r-last[o], r
			last[o] = r
		}
	}
	for o, f := range last {
		a.out[2*a.n*lanes+o] = -f
	}
}

func upMulGeneric(a *mulArgs) {
	w, m := a.w, a.m
	for _, v := range [3][]float32{a.v0, a.v1, a.v2} {
		for ky := range 3 {
			for i := range a.n {
				var p [3][lanes]float32
				for k := range p {
					for b := range a.blocks {
						dot8(&p[k], v[b*a.block+ky*a.pos+(2*i+k)*lanes:], 1, w[(b*lanes*3+k)*lanes:], 3*lanes, lanes)
					}
				}
				for o := range lanes {
					m[2*i*lanes+o], m[(2*i+1)*lanes+o] = p[0][o]+p[1][o], p[2][o]+p[1][o]
				}
			}
			w, m = w[a.blocks*3*lanes*lanes:], m[a.mPos:]
		}
	}
}

func upOutGeneric(a *upOutArgs) {
	for x := range 2 * a.n * lanes {
		m := func(kz, ky int) float32 { return a.m[(3*kz+ky)*a.mPos+x] }
		c := m(1, 1) + a.bias[x%lanes]
		for z := range 2 {
			for y := range 2 {
				a.out[z*a.slice+y*a.row+x] = (c + m(2*z, 1)) + (m(1, 2*y) + m(2*z, 2*y))
			}
		}
	}
}

func upGradGeneric(a *rowArgs) {
	rowGeneric(a, a.n, 4, 4, lanes, func(j int) (p, tap, pairs int) { return 2 * j, 0, 4 })
}

func weightGradGeneric(a *gradArgs) {
	for ic := range a.channels {
		for kw := range 3 {
			dot8(vec(a.acc[(ic*3+kw)*lanes:]), a.in[ic:], lanes, a.dz[(2-kw)*lanes:], lanes, a.n)
		}
	}
}

func upWeightGradGeneric(a *upGradArgs) {
	for r := range a.rows {
		for ic := range lanes {
			for k, x := range [4]int{3, 1, 2, 0} {
				dot8(vec(a.acc[(ic*4+k)*lanes:]), a.low[r*a.lowRow+ic:], lanes, a.dz[r*a.dzRow+x*lanes:], 2*lanes, a.n)
			}
		}
	}
}

func winoInGeneric(a *tileArgs) {
	for t := range a.n {
		for o := range lanes {
			var d [4][6]float32
			for y := range d {
				for x := range d[y] {
					d[y][x] = a.in[y*a.row+(4*t+x)*lanes+o]
				}
			}
			var r [4][6]float32
			for x := range 6 {
				r[0][x], r[1][x], r[2][x], r[3][x] = d[0][x]-d[2][x], d[1][x]+d[2][x], d[2][x]-d[1][x], d[1][x]-d[3][x]
			}
			for y, v := range r {
				p, q := v[4]-4*v[2], v[3]-4*v[1]
				s, u := v[4]-v[2], 2*(v[3]-v[1])
				for x, f := range [6]float32{4*v[0] - 5*v[2] + v[4], p + q, p - q, s + u, s - u, 4*v[1] - 5*v[3] + v[5]} {
					a.out[(y*6+x)*a.pos+t*lanes+o] = f
				}
			}
		}
	}
}

func winoGradInGeneric(a *tileArgs) {
	for t := range a.n {
		for o := range lanes {
			var r [4][4]float32
			for x := range 4 {
				top, low := a.in[(4*t+x)*lanes+o], a.in[a.row+(4*t+x)*lanes+o]
				r[0][x], r[1][x], r[2][x], r[3][x] = top, top+low, top-low, -low
			}
			for y, v := range r {
				p, q := v[0]+v[2], v[1]+v[3]
				s, u := v[0]+4*v[2], 2*(v[1]+4*v[3])
				for x, f := range [6]float32{v[0], p + q, p - q, s + u, s - u, v[3]} {
					a.out[(y*6+x)*a.pos+t*lanes+o] = f
				}
			}
		}
	}
}

func winoMulGeneric(a *mulArgs) {
	v := [4][]float32{a.v0, a.v1, a.v2, a.v3}
	for pos := range 24 {
		for j := range 2 * a.n {
			var acc [lanes]float32
			w := a.w[pos*3*a.blocks*64:]
			for kd := range 3 {
				for b := range a.blocks {
					dot8(&acc, v[j/a.n+kd][b*a.block+pos*a.pos+j%a.n*lanes:], 1, w, lanes, lanes)
					w = w[64:]
				}
			}
			*vec(a.m[pos*a.mPos+j*lanes:]) = acc
		}
	}
}

func winoOutGeneric(a *winoOutArgs) {
	for t := range a.n {
		for o := range lanes {
			m := func(pos int) float32 { return a.m[pos*a.mPos+t*lanes+o] }
			for y := range 2 {
				var v [6]float32
				for x := range v {
					if y == 0 {
						v[x] = m(x) + (m(6+x) + m(12+x))
					} else {
						v[x] = (m(6+x) - m(12+x)) - m(18+x)
					}
				}
				p, q, r, s := v[1]+v[2], v[1]-v[2], v[3]+v[4], v[3]-v[4]
				for x, f := range [4]float32{v[0] + p + r, 2*s + q, 4*r + p, 8*s + (q + v[5])} {
					at := 4*t + x
					a.out[y*a.outRow+at*lanes+o] = leaky(f+a.init[y*a.initRow+at*a.initStep+o], a.slope)
				}
			}
		}
	}
}

func winoOuterGeneric(a *outerArgs) {
	for pos := range 24 {
		for kd, d := range [3][]float32{a.d0, a.d1, a.d2} {
			for ic := range lanes {
				dot8(vec(a.acc[((pos*lanes+ic)*3+kd)*lanes:]), a.v[pos*a.pos+ic:], lanes, d[pos*a.pos:], lanes, a.n)
			}
		}
	}
}

// each calls f with the place of every voxel and its channel.
func (a *planeArgs) each(f func(i, o int)) {
	for y := range a.rows {
		for x := range a.width {
			for o := range lanes {
				f(y*a.row+x*lanes+o, o)
			}
		}
	}
}

func sumsGeneric(a *planeArgs) {
	a.each(func(i, o int) {
		z := float64(a.z[i])
		a.acc[o] += z
		a.acc[lanes+o] += z * z
	})
}

func affineGeneric(a *planeArgs) {
	a.each(func(i, o int) { a.out[i] = leaky(a.z[i]*a.coef[o]+a.coef[lanes+o], a.slope) })
}

// slopeAt returns dy * leaky'(scale*z + shift); the derivative at 0 is the slope, as in torch.
func (a *planeArgs) slopeAt(i, o int) float32 {
	if a.z[i]*a.coef[o]+a.coef[lanes+o] > 0 {
		return a.dy[i]
	}
	return a.dy[i] * a.slope
}

func affineSumsGeneric(a *planeArgs) {
	a.each(func(i, o int) {
		g := float64(a.slopeAt(i, o))
		a.acc[o] += g
		a.acc[lanes+o] += g * float64(a.z[i])
	})
}

func affineGradGeneric(a *planeArgs) {
	a.each(func(i, o int) {
		a.out[i] = a.coef[2*lanes+o]*a.slopeAt(i, o) + (a.coef[3*lanes+o]*a.z[i] + a.coef[4*lanes+o])
	})
}

// window returns the places of the eight voxels under output i, channel o, in the order of poolGrad.
func (a *poolArgs) window(i, o int) (at [8]int) {
	for k := range at {
		at[k] = k/4*a.slice + k/2%2*a.row + (2*i+k%2)*lanes + o
	}
	return at
}

func poolMaxGeneric(a *poolArgs) {
	for i := range a.n {
		for o := range lanes {
			m := float32(math.Inf(-1))
			for _, at := range a.window(i, o) {
				m = max(m, a.in[at])
			}
			a.out[i*lanes+o] = m
		}
	}
}

func poolGradGeneric(a *poolArgs) {
	for i := range a.n {
		for o := range lanes {
			for _, at := range a.window(i, o) {
				if a.in[at] == a.out[i*lanes+o] {
					a.din[at] += a.dout[i*lanes+o]
					break
				}
			}
		}
	}
}

func logitsGeneric(a *softmaxArgs) {
	for i := range a.n {
		a.logits(i)
	}
}

func softmaxGeneric(a *softmaxArgs) {
	for i := range a.n {
		for k, p := range a.posteriors(i) {
			a.sums[k] += p
		}
	}
}

func likelyGeneric(a *softmaxArgs) {
	for i := range a.n {
		a.likely[i] = 0
		for k, p := range a.posteriors(i) {
			if p > a.least {
				a.likely[i] |= 1 << k
			}
		}
	}
}

// logits of voxel i.
func (a *softmaxArgs) logits(i int) []float32 {
	p := a.p[i*Logits:][:Logits]
	copy(p, a.bias[i/2*a.biasStep:])
	for k := 0; k < Logits; k += lanes {
		for b := range a.blocks {
			dot8(vec(p[k:]), a.x[b*a.block+i*lanes:], 1, a.w[b*lanes*Logits+k:], Logits, lanes)
		}
	}
	return p
}

// posteriors of voxel i.
func (a *softmaxArgs) posteriors(i int) []float32 {
	p := a.logits(i)
	var top float32
	for _, l := range p {
		top = max(top, l)
	}
	background := float32(math.Exp(float64(-top)))
	sum := background
	for k, l := range p {
		p[k] = float32(math.Exp(float64(l - top)))
		sum += p[k]
	}
	a.background[i] = background / sum
	for k := range p {
		p[k] /= sum
	}
	return p
}

func lossGradGeneric(a *lossGradArgs) {
	for i := range a.n {
		p := a.p[i*Logits:][:Logits]
		y := int(a.labels[i])
		hit := a.background[i]
		if y > 0 {
			hit = p[y-1]
		}
		hit = hit*a.e[y] + a.w[y]
		dot := a.background[i]*a.c[0] - hit
		for k, f := range p {
			dot += f * a.c[k+1]
		}
		for k := range p {
			p[k] *= a.c[k+1] - dot
		}
		if y > 0 {
			p[y-1] -= hit
		}
	}
}

func headGradInGeneric(a *headGradArgs) {
	for i := range a.n {
		var acc [lanes]float32
		dot8(&acc, a.dl[i*Logits:], 1, a.w, lanes, Logits)
		*vec(a.out[i*lanes:]) = acc
	}
}

func headGradWeightsGeneric(a *headGradArgs) {
	for ic := range lanes {
		for k := 0; k < Logits; k += lanes {
			dot8(vec(a.out[ic*Logits+k:]), a.x[ic:], lanes, a.dl[k:], Logits, a.n)
		}
	}
}

func headGradBiasGeneric(a *headGradArgs) {
	for i := range a.n {
		for k, f := range a.dl[i*Logits:][:Logits] {
			a.out[k] += f
		}
	}
}

func adamGeneric(a *adamArgs) {
	for i := range a.n {
		g := a.g[i] * a.scale
		a.m[i] = a.beta1*a.m[i] + a.rest1*g
		a.v[i] = a.beta2*a.v[i] + a.rest2*g*g
		a.p[i] = a.keep*a.p[i] - a.step*a.m[i]/(float32(math.Sqrt(float64(a.v[i])))+a.eps)
	}
}

func addGeneric(a *addArgs) {
	for i, f := range a.src[:a.n] {
		a.dst[i] += f
	}
}

func leakyGeneric(a *leakyArgs) {
	for i := range a.n {
		for j := range Logits / lanes {
			for c, f := range a.src[i*Logits+j*lanes:][:lanes] {
				a.dst[j*a.block+i*lanes+c] = max(f, a.slope*f)
			}
		}
	}
}

func peakGeneric(a *peakArgs) {
	acc, x, w := [lanes]float32{}, [peakRound / lanes]float32{}, [lanes]float32{}
	for range a.n {
		dot8(&acc, x[:], 1, w[:], 0, len(x))
	}
}
