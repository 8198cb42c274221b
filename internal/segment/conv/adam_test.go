package conv

import (
	"math"
	"testing"
)

func TestAdamMatchesReference(t *testing.T) {
	const lr, beta1, beta2, eps, decay, clip = 1e-2, 0.9, 0.999, 1e-8, 0.1, 3.0
	eachKernel(t, func(t *testing.T, k *kernelSet) {
		for _, n := range []int{1, 7, 8, 300, 1003} {
			r := rng(uint64(n))
			e := newEngine(2, k)
			p, m, v := randomFloats(r, n), make([]float32, n), make([]float32, n)
			wantP, wantM, wantV := widen(p), make([]float64, n), make([]float64, n)
			for step := 1; step <= 3; step++ {
				g := randomFloats(r, n)
				norm := 0.0
				for _, f := range g {
					norm += float64(f) * float64(f)
				}
				norm = math.Sqrt(norm)
				for i, f := range g {
					d := float64(f) * min(1, clip/(norm+1e-6))
					wantM[i] = beta1*wantM[i] + (1-beta1)*d
					wantV[i] = beta2*wantV[i] + (1-beta2)*d*d
					mHat, vHat := wantM[i]/(1-math.Pow(beta1, float64(step))), wantV[i]/(1-math.Pow(beta2, float64(step)))
					wantP[i] += -lr*decay*wantP[i] - lr*mHat/(math.Sqrt(vHat)+eps)
				}
				if got := e.Adam(p, g, m, v, step, lr, beta1, beta2, eps, decay, clip); math.Abs(got-norm) > 1e-9*norm {
					t.Errorf("norm %g, want %g", got, norm)
				}
			}
			near(t, "parameters", widen(p), wantP, 1e-6)
			near(t, "first moment", widen(m), wantM, 1e-6)
			near(t, "second moment", widen(v), wantV, 1e-5)
		}
	})
}

func TestAdamLeavesParametersAloneWhenGradientIsNotFinite(t *testing.T) {
	eachKernel(t, func(t *testing.T, k *kernelSet) {
		for _, bad := range []float32{float32(math.NaN()), float32(math.Inf(1))} {
			p, g, m, v := make([]float32, 9), make([]float32, 9), make([]float32, 9), make([]float32, 9)
			g[3] = bad
			norm := newEngine(1, k).Adam(p, g, m, v, 1, 1, 0.9, 0.999, 1e-8, 0.1, 1)
			if !math.IsNaN(norm) && !math.IsInf(norm, 0) {
				t.Errorf("norm %g of a gradient with %g", norm, bad)
			}
			for i := range p {
				if p[i] != 0 || m[i] != 0 || v[i] != 0 {
					t.Errorf("value %d changed to %g, %g, %g", i, p[i], m[i], v[i])
				}
			}
		}
	})
}
