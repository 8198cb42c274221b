package conv

import (
	"fmt"
	"math"
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
func posteriors(e *Engine, x *Tensor, h *Head) (p, background []float32) {
	n := x.D * x.H * x.W
	p, background = make([]float32, n*Logits), make([]float32, n)
	e.Posteriors(x, h, -1, func(r Row) {
		copy(p[r.First*Logits:], r.P)
		copy(background[r.First:], r.Background)
	})
	return p, background
}

func TestLikelyAreAboveLeast(t *testing.T) {
	eachKernel(t, func(t *testing.T, k *kernelSet) {
		for i, s := range headSizes {
			r := rng(uint64(i))
			e := newEngine(2, k)
			x := random(r, s[0], s[1], s[2], s[3]).tensor()
			h := &Head{W: randomFloats(r, s[0]*32), B: randomFloats(r, 32)}
			for k := range h.B {
				h.B[k] -= 3
			}
			p, background := posteriors(e, x, h)
			for _, least := range []float32{1e-3, .05, .3, 2} {
				e.Posteriors(x, h, least, func(r Row) {
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

var headSizes = [][4]int{{8, 1, 1, 1}, {8, 2, 3, 4}, {16, 3, 2, 7}, {8, 2, 5, 33}}

func TestPosteriorsMatchReference(t *testing.T) {
	eachKernel(t, func(t *testing.T, k *kernelSet) {
		for i, s := range headSizes {
			t.Run(fmt.Sprint(s), func(t *testing.T) {
				r := rng(uint64(i))
				e := newEngine(2, k)
				x := random(r, s[0], s[1], s[2], s[3])
				h := &Head{W: randomFloats(r, s[0]*32), B: randomFloats(r, 32)}
				n := s[1] * s[2] * s[3]
				for c := range s[0] {
					x.v[c*n] *= 1000 // far beyond the range of exp
				}
				xT := x.tensor()
				logits := make([]float32, n*32)
				e.Logits(xT, h, logits)
				p, background := posteriors(e, xT, h)
				for v := range n {
					want := make([]float64, 32)
					for k := range want {
						want[k] = float64(h.B[k])
						for c := range s[0] {
							want[k] += x.v[c*n+v] * float64(h.W[c*32+k])
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
				x := random(r, s[0], s[1], s[2], s[3])
				h := &Head{W: randomFloats(r, s[0]*32), B: randomFloats(r, 32)}
				labels := make([]uint8, s[1]*s[2]*s[3])
				for i := range labels {
					labels[i] = uint8(r.IntN(33))
				}
				labels[0] = 0
				cfg := LossConfig{CE: 0.5, Dice: 1.5, Present: i%2 == 0, SizesHeld: i%4 > 1}
				for k := range cfg.ClassWeight {
					cfg.ClassWeight[k] = 0.1 + 3*r.Float32()
				}
				xT, dxT := x.tensor(), NewTensor(s[0], s[1], s[2], s[3])
				dW, dB := randomFloats(r, len(h.W)), randomFloats(r, 32)
				got := e.Loss(xT, h, labels, cfg, dxT, dW, dB)
				value, ce, dice, dx, dw, db := lossRef(x, widen(h.W), widen(h.B), labels, cfg)
				near(t, "loss and cross entropy", []float64{got.Value, got.CE}, []float64{value, ce}, 1e-6)
				near(t, "Dice", got.Dice[:], dice[:], 1e-5)
				near(t, "input gradient", fromTensor(dxT, s[0]).v, dx.v, 1e-4)
				borderZero(t, "input gradient", dxT)
				near(t, "weight gradient", widen(dW), dw, 1e-4)
				near(t, "bias gradient", widen(dB), db, 1e-4)
			})
		}
	})
}
