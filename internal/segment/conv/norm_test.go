package conv

import (
	"fmt"
	"math"
	"testing"
)

var planeSizes = [][4]int{{8, 1, 1, 1}, {16, 3, 5, 7}, {24, 2, 4, 8}, {32, 4, 3, 33}}

func TestAffineAndGradientMatchReference(t *testing.T) {
	const slope = 0.01
	eachKernel(t, func(t *testing.T, k *kernelSet) {
		for i, s := range planeSizes {
			t.Run(fmt.Sprint(s), func(t *testing.T) {
				r := rng(uint64(i))
				e := newEngine(2, k)
				z, dy := random(r, s[0], s[1], s[2], s[3]), random(r, s[0], s[1], s[2], s[3])
				scale, shift := randomFloats(r, s[0]), randomFloats(r, s[0])
				a, b, c := randomFloats(r, s[0]), randomFloats(r, s[0]), randomFloats(r, s[0])
				scale[0], shift[0] = 1, 0
				z.v[0] = 0 // on the kink: the derivative is the slope
				y, dz, sums := newVolume(s[0], s[1], s[2], s[3]), newVolume(s[0], s[1], s[2], s[3]), make([]float64, 2*s[0])
				z.each(func(ch, _, _, _, i int) {
					v := float64(scale[ch])*z.v[i] + float64(shift[ch])
					y.v[i] = leakyRef(v, slope)
					g := dy.v[i]
					if v <= 0 {
						g *= slope
					}
					sums[2*ch] += g
					sums[2*ch+1] += g * z.v[i]
					dz.v[i] = float64(a[ch])*g + float64(b[ch])*z.v[i] + float64(c[ch])
				})
				zT, dyT, out := z.tensor(), dy.tensor(), NewTensor(s[0], s[1], s[2], s[3])
				e.Affine(zT, out, scale, shift, slope)
				near(t, "output", fromTensor(out, s[0]).v, y.v, 1e-6)
				borderZero(t, "output", out)
				var st Stats
				e.AffineGradReduce(dyT, zT, scale, shift, slope, &st)
				var got []float64
				for ch := range s[0] {
					p, q := st.Sum(ch)
					got = append(got, p, q)
				}
				near(t, "sums", got, sums, 1e-5)
				e.AffineGrad(dyT, zT, out, scale, shift, a, b, c, slope)
				near(t, "gradient", fromTensor(out, s[0]).v, dz.v, 1e-6)
				borderZero(t, "gradient", out)
			})
		}
	})
}

func TestMaxPoolAndGradientMatchReference(t *testing.T) {
	eachKernel(t, func(t *testing.T, k *kernelSet) {
		for i, s := range [][4]int{{8, 2, 2, 2}, {16, 5, 6, 7}, {8, 4, 3, 34}} {
			t.Run(fmt.Sprint(s), func(t *testing.T) {
				r := rng(uint64(i))
				e := newEngine(2, k)
				in := random(r, s[0], s[1], s[2], s[3])
				for i := range in.v { // few values: ties are the rule
					in.v[i] = math.Round(in.v[i])
				}
				dout, before := random(r, s[0], s[1]/2, s[2]/2, s[3]/2), random(r, s[0], s[1], s[2], s[3])
				want, din := newVolume(s[0], s[1]/2, s[2]/2, s[3]/2), append([]float64(nil), before.v...)
				want.each(func(c, z, y, x, i int) {
					best, at := math.Inf(-1), 0
					for k := range 8 {
						if j := in.index(c, 2*z+k/4, 2*y+k/2%2, 2*x+k%2); in.v[j] > best {
							best, at = in.v[j], j
						}
					}
					want.v[i] = best
					din[at] += dout.v[i]
				})
				inT, out, dinT := in.tensor(), NewTensor(s[0], s[1]/2, s[2]/2, s[3]/2), before.tensor()
				e.MaxPool(inT, out)
				near(t, "output", fromTensor(out, s[0]).v, want.v, 0)
				borderZero(t, "output", out)
				e.MaxPoolGrad(inT, out, dout.tensor(), dinT)
				near(t, "gradient", fromTensor(dinT, s[0]).v, din, 1e-6)
				borderZero(t, "gradient", dinT)
			})
		}
	})
}
