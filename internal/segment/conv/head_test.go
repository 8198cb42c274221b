package conv

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

func posteriorsRef(logits []float64) []float64 {
	m := 0.0
	for _, l := range logits {
		m = max(m, l)
	}
	p := []float64{math.Exp(-m)}
	s := p[0]
	for _, l := range logits {
		p = append(p, math.Exp(l-m))
		s += math.Exp(l - m)
	}
	for k := range p {
		p[k] /= s
	}
	return p
}

// lossRef is the loss and its gradients in x, w ([channel][32]) and b, in float64.
func lossRef(x *volume, w, b []float64, labels []uint8, cfg LossConfig) (value, ce float64, dice [33]float64, dx *volume, dw, db []float64) {
	n := x.d * x.h * x.w
	p := make([][]float64, n)
	var sum, hit, count [33]float64
	weight := 0.0
	for v := range n {
		l := append([]float64(nil), b...)
		for c := range x.c {
			for k := range 32 {
				l[k] += x.v[c*n+v] * w[c*32+k]
			}
		}
		p[v] = posteriorsRef(l)
		y := labels[v]
		for k, f := range p[v] {
			sum[k] += f
		}
		hit[y] += p[v][y]
		count[y]++
		weight += float64(cfg.ClassWeight[y])
		ce -= float64(cfg.ClassWeight[y]) * math.Log(p[v][y])
	}
	ce /= weight
	mean := 0.0
	for k := range dice {
		dice[k] = (2*hit[k] + 1) / (sum[k] + count[k] + 1)
		if cfg.Present && count[k] == 0 {
			dice[k] = 1
		}
		mean += dice[k] / 33
	}
	value = float64(cfg.Dice)*(1-mean) + float64(cfg.CE)*ce
	dx, dw, db = newVolume(x.c, x.d, x.h, x.w), make([]float64, len(w)), make([]float64, 32)
	for v := range n {
		var dp [33]float64
		y := labels[v]
		dot := 0.0
		for k := range dp {
			den := sum[k] + count[k] + 1
			if !cfg.Present || count[k] > 0 {
				dp[k] = float64(cfg.Dice) / 33 / den
				if !cfg.SizesHeld {
					dp[k] *= (2*hit[k] + 1) / den
				}
			}
			if k == int(y) {
				dp[k] -= float64(cfg.Dice)/33*2/den + float64(cfg.CE)*float64(cfg.ClassWeight[y])/weight/p[v][y]
			}
			dot += dp[k] * p[v][k]
		}
		for k := range 32 {
			dl := p[v][k+1] * (dp[k+1] - dot)
			db[k] += dl
			for c := range x.c {
				dw[c*32+k] += dl * x.v[c*n+v]
				dx.v[c*n+v] += dl * w[c*32+k]
			}
		}
	}
	return value, ce, dice, dx, dw, db
}

// posteriors returns all of Posteriors, with every class likely.
func posteriors(e *Engine, low, x *Tensor, h *Head) (p, background []float32) {
	n := x.D * x.H * x.W
	p, background = make([]float32, n*Logits), make([]float32, n)
	e.Posteriors(low, x, h, -1, func(r Row) {
		copy(p[r.First*Logits:], r.P)
		copy(background[r.First:], r.Background)
	})
	return p, background
}

// headSizes are channels at half the resolution, own ones, and the voxels.
var headSizes = [][5]int{{0, 8, 1, 1, 1}, {0, 8, 2, 3, 4}, {0, 16, 3, 2, 7}, {0, 8, 2, 5, 33}, {8, 8, 2, 2, 2}, {16, 8, 4, 2, 10}, {8, 16, 2, 6, 34}}

// randomHead draws a head and what it is on.
func randomHead(r *rand.Rand, s [5]int) (h *Head, low, x *volume) {
	h = &Head{Up: randomFloats(r, s[0]*Logits), W: randomFloats(r, s[1]*Logits), B: randomFloats(r, Logits)}
	if s[0] > 0 {
		low = random(r, s[0], s[2]/2, s[3]/2, s[4]/2)
	}
	return h, low, random(r, s[1], s[2], s[3], s[4])
}

// optional is v as a tensor, where there is one.
func optional(v *volume) *Tensor {
	if v == nil {
		return nil
	}
	return v.tensor()
}

// joined are the channels of low, each of its voxels 2x2x2 times, and those of x; and the weights for them.
func joined(h *Head, low, x *volume) (*volume, []float64) {
	if low == nil {
		return x, widen(h.W)
	}
	all := newVolume(low.c+x.c, x.d, x.h, x.w)
	for c := range low.c {
		for z := range x.d {
			for y := range x.h {
				for i := range x.w {
					all.v[all.index(c, z, y, i)] = low.v[low.index(c, z/2, y/2, i/2)]
				}
			}
		}
	}
	copy(all.v[low.c*x.d*x.h*x.w:], x.v)
	return all, append(widen(h.Up), widen(h.W)...)
}

func TestLikelyAreAboveLeast(t *testing.T) {
	eachKernel(t, func(t *testing.T, k *kernelSet) {
		for i, s := range headSizes {
			e := newEngine(2, k)
			h, lowV, xV := randomHead(rng(uint64(i)), s)
			low, x := optional(lowV), xV.tensor()
			for k := range h.B {
				h.B[k] -= 3
			}
			p, background := posteriors(e, low, x, h)
			for _, least := range []float32{1e-3, .05, .3, 2} {
				e.Posteriors(low, x, h, least, func(r Row) {
					for v, likely := range r.Likely {
						want := p[(r.First+v)*Logits:][:Logits]
						if r.Background[v] != background[r.First+v] {
							t.Errorf("%v, voxel %d: background %g, want %g", s, r.First+v, r.Background[v], background[r.First+v])
						}
						for k, q := range want {
							if is := likely>>k&1 == 1; is != (q > least) {
								t.Errorf("%v, voxel %d: class %d with %g is likely: %t, least %g", s, r.First+v, k+1, q, is, least)
							} else if is && r.P[v*Logits+k] != q {
								t.Errorf("%v, voxel %d: class %d has %g, want %g", s, r.First+v, k+1, r.P[v*Logits+k], q)
							}
						}
					}
				})
			}
		}
	})
}

func TestPosteriorsMatchReference(t *testing.T) {
	eachKernel(t, func(t *testing.T, k *kernelSet) {
		for i, s := range headSizes {
			t.Run(fmt.Sprint(s), func(t *testing.T) {
				e := newEngine(2, k)
				h, low, x := randomHead(rng(uint64(i)), s)
				n := s[2] * s[3] * s[4]
				for c := range s[1] {
					x.v[c*n] *= 1000 // far beyond the range of exp
				}
				lowT, xT := optional(low), x.tensor()
				logits := make([]float32, n*32)
				e.Logits(lowT, xT, h, logits)
				p, background := posteriors(e, lowT, xT, h)
				all, weights := joined(h, low, x)
				for v := range n {
					want := make([]float64, 32)
					for k := range want {
						want[k] = float64(h.B[k])
						for c := range all.c {
							want[k] += all.v[c*n+v] * weights[c*32+k]
						}
					}
					near(t, "logits", widen(logits[v*32:][:32]), want, 1e-5)
					post := posteriorsRef(want)
					tol := 1e-5
					if v == 0 {
						tol = 1e-2 // logits of thousands keep four digits after the point
					}
					near(t, "posteriors", widen(p[v*32:][:32]), post[1:], tol)
					if math.Abs(float64(background[v])-post[0]) > tol {
						t.Errorf("background %g, want %g", background[v], post[0])
					}
				}
			})
		}
	})
}

func TestLossAndGradientsMatchReference(t *testing.T) {
	eachKernel(t, func(t *testing.T, k *kernelSet) {
		for i, s := range headSizes {
			t.Run(fmt.Sprint(s), func(t *testing.T) {
				r := rng(uint64(i))
				e := newEngine(2, k)
				h, low, x := randomHead(r, s)
				labels := make([]uint8, s[2]*s[3]*s[4])
				for i := range labels {
					labels[i] = uint8(r.IntN(33))
				}
				labels[0] = 0
				cfg := LossConfig{CE: 0.5, Dice: 1.5, Present: i%2 == 0, SizesHeld: i%4 > 1}
				for k := range cfg.ClassWeight {
					cfg.ClassWeight[k] = 0.1 + 3*r.Float32()
				}
				xT, dxT := x.tensor(), NewTensor(s[1], s[2], s[3], s[4])
				lowT, dlowT := optional(low), optional(low)
				grad := &Head{randomFloats(r, len(h.Up)), randomFloats(r, len(h.W)), randomFloats(r, 32)}
				got := e.Loss(lowT, xT, h, labels, cfg, dlowT, dxT, grad)
				all, weights := joined(h, low, x)
				value, ce, dice, dall, dw, db := lossRef(all, weights, widen(h.B), labels, cfg)
				dx := newVolume(s[1], s[2], s[3], s[4])
				copy(dx.v, dall.v[len(dall.v)-len(dx.v):])
				near(t, "loss and cross entropy", []float64{got.Value, got.CE}, []float64{value, ce}, 1e-6)
				near(t, "Dice", got.Dice[:], dice[:], 1e-5)
				near(t, "input gradient", fromTensor(dxT, x.c).v, dx.v, 1e-4)
				borderZero(t, "input gradient", dxT)
				near(t, "weight gradient", append(widen(grad.Up), widen(grad.W)...), dw, 1e-4)
				near(t, "bias gradient", widen(grad.B), db, 1e-4)
				if low == nil {
					return
				}
				dlow := newVolume(low.c, low.d, low.h, low.w)
				for c := range low.c {
					for z := range x.d {
						for y := range x.h {
							for i := range x.w {
								dlow.v[dlow.index(c, z/2, y/2, i/2)] += dall.v[dall.index(c, z, y, i)]
							}
						}
					}
				}
				near(t, "gradient at half the resolution", fromTensor(dlowT, low.c).v, dlow.v, 1e-4)
				borderZero(t, "gradient at half the resolution", dlowT)
			})
		}
	})
}
