package conv

import (
	"fmt"
	"math"
)

// Adam updates p from its gradient g (Kingma and Ba 2015, arXiv:1412.6980) and the moments m and v,
// with decoupled weight decay (Loshchilov and Hutter 2019, arXiv:1711.05101; 0 for none). step
// counts from 1. It returns the Euclidean norm of g, to which g is scaled down where it exceeds
// clip > 0. When the norm is not finite nothing is changed.
func (e *Engine) Adam(p, g, m, v []float32, step int, lr, beta1, beta2, eps, weightDecay, clip float64) (norm float64) {
	n := len(p)
	if len(g) != n || len(m) != n || len(v) != n || step < 1 {
		panic(fmt.Sprintf("conv: Adam step %d on %d, %d, %d, %d values", step, n, len(g), len(m), len(v)))
	}
	const parts = 16
	cut := func(task int) (from, to int) {
		from, to = task*(n/lanes)/parts*lanes, (task+1)*(n/lanes)/parts*lanes
		if task == parts-1 {
			to = n
		}
		return from, to
	}
	var squares [parts]float64
	e.each(parts, func(_ *worker, task int) {
		from, to := cut(task)
		s := 0.0
		for _, f := range g[from:to] {
			s += float64(f) * float64(f)
		}
		squares[task] = s
	})
	for _, s := range squares {
		norm += s
	}
	norm = math.Sqrt(norm)
	if math.IsNaN(norm) || math.IsInf(norm, 0) {
		return norm
	}
	scale := 1.0
	if clip > 0 {
		scale = min(1, clip/(norm+1e-6)) // torch's clip_grad_norm_
	}
	// m/(1-beta1^t) / (sqrt(v/(1-beta2^t)) + eps) with the corrections moved out of the loop.
	root := math.Sqrt(1 - math.Pow(beta2, float64(step)))
	args := adamArgs{
		keep: float32(1 - lr*weightDecay), beta1: float32(beta1), rest1: float32(1 - beta1), beta2: float32(beta2), rest2: float32(1 - beta2),
		step: float32(lr * root / (1 - math.Pow(beta1, float64(step)))), eps: float32(eps * root), scale: float32(scale),
	}
	e.each(parts, func(_ *worker, task int) {
		from, to := cut(task)
		a := args
		a.p, a.g, a.m, a.v, a.n = p[from:to], g[from:to], m[from:to], v[from:to], (to-from)/lanes*lanes
		if a.n > 0 {
			e.k.adam(&a)
		}
		if rest := to - from - a.n; rest > 0 { // fewer than 8, at the very end
			i := from + a.n
			a.p, a.g, a.m, a.v, a.n = p[i:], g[i:], m[i:], v[i:], rest
			adamGeneric(&a)
		}
	})
	return norm
}
