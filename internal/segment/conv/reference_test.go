package conv

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// The references work on plain float64 volumes [channel][z][y][x] and share no code with the package.

type volume struct {
	c, d, h, w int
	v          []float64
}

func newVolume(c, d, h, w int) *volume { return &volume{c, d, h, w, make([]float64, c*d*h*w)} }

func (v *volume) index(c, z, y, x int) int { return ((c*v.d+z)*v.h+y)*v.w + x }

// random fills a new volume with normal values that are exact in float32.
func random(r *rand.Rand, c, d, h, w int) *volume {
	v := newVolume(c, d, h, w)
	for i := range v.v {
		v.v[i] = float64(float32(r.NormFloat64()))
	}
	return v
}

// tensor copies v into a tensor whose channels are rounded up to a whole block.
func (v *volume) tensor() *Tensor {
	t := NewTensor((v.c+7)/8*8, v.d, v.h, v.w)
	n := v.d * v.h * v.w
	for c := range v.c {
		t.SetChannel(c, narrow(v.v[c*n:(c+1)*n]))
	}
	return t
}

func fromTensor(t *Tensor, channels int) *volume {
	v := newVolume(channels, t.D, t.H, t.W)
	n := t.D * t.H * t.W
	row := make([]float32, n)
	for c := range channels {
		t.Channel(c, row)
		copy(v.v[c*n:], widen(row))
	}
	return v
}

func narrow(v []float64) []float32 {
	r := make([]float32, len(v))
	for i, f := range v {
		r[i] = float32(f)
	}
	return r
}

func widen(v []float32) []float64 {
	r := make([]float64, len(v))
	for i, f := range v {
		r[i] = float64(f)
	}
	return r
}

func randomFloats(r *rand.Rand, n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(r.NormFloat64())
	}
	return v
}

// upsample2 repeats every voxel; its adjoint, sum2, adds 2x2x2 voxels.
func upsample2(v *volume) *volume {
	u := newVolume(v.c, 2*v.d, 2*v.h, 2*v.w)
	u.each(func(c, z, y, x, i int) { u.v[i] = v.v[v.index(c, z/2, y/2, x/2)] })
	return u
}

func sum2(u *volume) *volume {
	v := newVolume(u.c, u.d/2, u.h/2, u.w/2)
	u.each(func(c, z, y, x, i int) { v.v[v.index(c, z/2, y/2, x/2)] += u.v[i] })
	return v
}

func (v *volume) each(f func(c, z, y, x, i int)) {
	i := 0
	for c := range v.c {
		for z := range v.d {
			for y := range v.h {
				for x := range v.w {
					f(c, z, y, x, i)
					i++
				}
			}
		}
	}
}

func concat(a, b *volume) *volume {
	if a == nil {
		return b
	}
	return &volume{a.c + b.c, b.d, b.h, b.w, append(append([]float64(nil), a.v...), b.v...)}
}

// eachProduct calls f with every weight (torch's order), input and output of a 3x3x3 convolution
// that belong together: the convolution and both its adjoints are sums over these.
func eachProduct(in *volume, out int, f func(weight, input, output int)) {
	o := newVolume(out, in.d, in.h, in.w)
	o.each(func(oc, z, y, x, i int) {
		for ic := range in.c {
			for k := range 27 {
				zz, yy, xx := z+k/9-1, y+k/3%3-1, x+k%3-1
				if zz >= 0 && zz < in.d && yy >= 0 && yy < in.h && xx >= 0 && xx < in.w {
					f((oc*in.c+ic)*27+k, in.index(ic, zz, yy, xx), i)
				}
			}
		}
	})
}

func leakyRef(v, slope float64) float64 {
	if v > 0 {
		return v
	}
	return v * slope
}

// near fails when got and want differ by more than tol of want's root mean square anywhere.
func near(t *testing.T, what string, got, want []float64, tol float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d values, want %d", what, len(got), len(want))
	}
	rms, worst, at := 0.0, 0.0, 0
	for i := range want {
		rms += want[i] * want[i]
		if d := math.Abs(got[i] - want[i]); !(d <= worst) {
			worst, at = d, i
		}
	}
	rms = math.Sqrt(rms / float64(len(want)))
	if !(worst <= tol*rms+1e-12) {
		t.Errorf("%s: value %d is %g, want %g: off by %.2g of the root mean square %g, allowed %.2g", what, at, got[at], want[at], worst/rms, rms, tol)
	}
}

// borderZero fails when an operation wrote outside a tensor's image.
func borderZero(t *testing.T, what string, x *Tensor) {
	t.Helper()
	for b := range x.blocks() {
		for z := range x.D + 2 {
			for y := range x.H + 2 {
				for xx := range x.W + 2 {
					if z > 0 && z <= x.D && y > 0 && y <= x.H && xx > 0 && xx <= x.W {
						continue
					}
					for c, f := range x.at(b, z, y, xx)[:8] {
						if f != 0 {
							t.Fatalf("%s: border of channel %d at %d,%d,%d is %g", what, b*8+c, z, y, xx, f)
						}
					}
				}
			}
		}
	}
	for i, f := range x.data[x.blocks()*x.block():] {
		if f != 0 {
			t.Fatalf("%s: padding %d is %g", what, i, f)
		}
	}
}

func eachKernel(t *testing.T, f func(t *testing.T, k *kernelSet)) {
	for _, k := range available() {
		t.Run(k.name, func(t *testing.T) { f(t, k) })
	}
}

func rng(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }

type convCase struct{ out, up, in, d, h, w int }

func (c convCase) String() string {
	return fmt.Sprintf("%d+%d to %d, %dx%dx%d", c.up, c.in, c.out, c.d, c.h, c.w)
}
