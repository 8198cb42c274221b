package conv

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"testing"
)

// torchValue is value of testdata/oracle.py.
func torchValue(seed, n int) []float64 {
	v := make([]float64, n)
	for i := range v {
		h := uint32(i)*2654435761 + uint32(seed)*40503
		h ^= h >> 15
		h *= 2246822519
		v[i] = float64(h>>16)/32768 - 1
	}
	return v
}

func torchVolume(seed, c, d, h, w int) *volume {
	return &volume{c, d, h, w, torchValue(seed, c*d*h*w)}
}

type torchResults map[string][]float64

func loadTorch(t *testing.T) map[string]torchResults {
	t.Helper()
	b, err := os.ReadFile("testdata/torch.json")
	if err != nil {
		t.Fatal(err)
	}
	var files map[string]map[string]string
	if err := json.Unmarshal(b, &files); err != nil {
		t.Fatal(err)
	}
	r := map[string]torchResults{}
	for name, arrays := range files {
		r[name] = torchResults{}
		for key, text := range arrays {
			raw, err := base64.StdEncoding.DecodeString(text)
			if err != nil {
				t.Fatal(err)
			}
			v := make([]float64, len(raw)/4)
			for i := range v {
				v[i] = float64(math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:])))
			}
			r[name][key] = v
		}
	}
	return r
}

func TestConvMatchesTorch(t *testing.T) {
	torch := loadTorch(t)
	eachKernel(t, func(t *testing.T, k *kernelSet) {
		for name, c := range map[string]convCase{
			"direct": {8, 0, 8, 3, 4, 5}, "direct, 4 channels": {8, 0, 4, 2, 3, 6}, "winograd": {8, 0, 8, 2, 4, 8},
			"upsampled, direct": {8, 8, 4, 2, 2, 6}, "upsampled, winograd": {8, 8, 8, 2, 4, 8},
		} {
			t.Run(name, func(t *testing.T) {
				want := torch[name]
				e := newEngine(1, k)
				x := torchVolume(1, c.in, c.d, c.h, c.w).tensor()
				w := NewWeights(c.out, c.up, c.in, make([]float32, MasterLen(c.out, c.up, c.in)))
				w.SetTorch(narrow(torchValue(2, len(w.Master))))
				bias := narrow(torchValue(3, c.out))
				var low, dlow *Tensor
				if c.up > 0 {
					low, dlow = torchVolume(4, c.up, c.d/2, c.h/2, c.w/2).tensor(), NewTensor(c.up, c.d/2, c.h/2, c.w/2)
				}
				dz := torchVolume(5, c.out, c.d, c.h, c.w).tensor()
				e.Pack(w, c.d, c.h, c.w, true)
				out, dx := NewTensor(c.out, c.d, c.h, c.w), NewTensor(x.Channels, c.d, c.h, c.w)
				e.Conv(w, low, x, out, nil, 1, nil)
				near(t, "z", fromTensor(out, c.out).v, want["z"], 1e-5)
				e.Conv(w, low, x, out, bias, 0.01, nil)
				near(t, "y", fromTensor(out, c.out).v, want["y"], 1e-5)
				e.ConvGradData(w, dz, dx, dlow)
				near(t, "dx", fromTensor(dx, c.in).v, want["dx"], 1e-5)
				if c.up > 0 {
					near(t, "dlow", fromTensor(dlow, c.up).v, want["dlow"], 1e-5)
				}
				grad := make([]float32, len(w.Master))
				e.ConvGradWeights(w, low, x, dz, grad)
				near(t, "dw", widen(w.Torch(grad)), want["dw"], 1e-5)
			})
		}
	})
}

// TestBatchNormMatchesTorch makes batch normalisation out of its parts, as training does. Three
// pre-activations of 2e-6 on the other side of 0 once changed all gradients of a network by 3e-3;
// oracle.py checks that none is so near.
func TestBatchNormMatchesTorch(t *testing.T) {
	want := loadTorch(t)["norm"]
	eachKernel(t, func(t *testing.T, k *kernelSet) {
		const c, d, h, w, slope = 16, 2, 3, 4, 0.01
		const n = d * h * w
		e := newEngine(2, k)
		z, dy := torchVolume(1, c, d, h, w).tensor(), torchVolume(5, c, d, h, w).tensor()
		gamma, beta := torchValue(2, c), torchValue(3, c)
		// The sums come with a convolution: here the identity.
		identity := NewWeights(c, 0, c, make([]float32, MasterLen(c, 0, c)))
		torch := make([]float32, len(identity.Master))
		for i := range c {
			torch[(i*c+i)*27+13] = 1
		}
		identity.SetTorch(torch)
		e.Pack(identity, d, h, w, false)
		out, dz := NewTensor(c, d, h, w), NewTensor(c, d, h, w)
		var st Stats
		e.Conv(identity, nil, z, out, nil, 1, &st)
		scale, shift := make([]float32, c), make([]float32, c)
		mean, rstd := make([]float64, c), make([]float64, c)
		for i := range c {
			sum, squares := st.Sum(i)
			mean[i] = sum / n
			rstd[i] = 1 / math.Sqrt(squares/n-mean[i]*mean[i]+1e-5)
			scale[i], shift[i] = float32(gamma[i]*rstd[i]), float32(beta[i]-mean[i]*gamma[i]*rstd[i])
		}
		e.Affine(z, out, scale, shift, slope)
		near(t, "y", fromTensor(out, c).v, want["y"], 1e-6)
		e.AffineGradReduce(dy, z, scale, shift, slope, &st)
		a, b, cc := make([]float32, c), make([]float32, c), make([]float32, c)
		dgamma, dbeta := make([]float64, c), make([]float64, c)
		for i := range c {
			g, gz := st.Sum(i)
			dbeta[i], dgamma[i] = g, (gz-mean[i]*g)*rstd[i]
			s := gamma[i] * rstd[i]
			bi := -s * dgamma[i] / n * rstd[i]
			a[i], b[i], cc[i] = float32(s), float32(bi), float32(-s*g/n-bi*mean[i])
		}
		near(t, "dgamma", dgamma, want["dgamma"], 1e-5)
		near(t, "dbeta", dbeta, want["dbeta"], 1e-5)
		e.AffineGrad(dy, z, dz, scale, shift, a, b, cc, slope)
		near(t, "dx", fromTensor(dz, c).v, want["dx"], 1e-5)
	})
}

func TestMaxPoolMatchesTorch(t *testing.T) {
	want := loadTorch(t)["pool"]
	eachKernel(t, func(t *testing.T, k *kernelSet) {
		e := newEngine(2, k)
		x, out, dx := torchVolume(1, 8, 2, 5, 6).tensor(), NewTensor(8, 1, 2, 3), NewTensor(8, 2, 5, 6)
		e.MaxPool(x, out)
		near(t, "y", fromTensor(out, 8).v, want["y"], 0)
		e.MaxPoolGrad(x, out, torchVolume(5, 8, 1, 2, 3).tensor(), dx)
		near(t, "dx", fromTensor(dx, 8).v, want["dx"], 0)
	})
}

func TestLossMatchesTorch(t *testing.T) {
	torch := loadTorch(t)
	eachKernel(t, func(t *testing.T, k *kernelSet) {
		for name, s := range map[string][4]int{"loss": {8, 2, 3, 5}, "loss, 16 channels": {16, 1, 3, 3}} {
			t.Run(name, func(t *testing.T) {
				want := torch[name]
				e := newEngine(2, k)
				x, dx := torchVolume(1, s[0], s[1], s[2], s[3]).tensor(), NewTensor(s[0], s[1], s[2], s[3])
				h := &Head{W: narrow(torchValue(2, s[0]*32)), B: narrow(torchValue(3, 32))}
				n := s[1] * s[2] * s[3]
				labels := make([]uint8, n)
				for i, v := range torchValue(6, n) {
					labels[i] = uint8((v + 1) * 16.5)
				}
				cfg := LossConfig{CE: 0.5, Dice: 1}
				for i, v := range torchValue(7, 33) {
					cfg.ClassWeight[i] = float32(v + 1.5)
				}
				p, background := posteriors(e, nil, x, h)
				var all []float64
				for v := range n {
					all = append(append(all, float64(background[v])), widen(p[v*32:][:32])...)
				}
				near(t, "posteriors", all, want["p"], 3e-6)
				grad := &Head{W: make([]float32, len(h.W)), B: make([]float32, 32)}
				r := e.Loss(nil, x, h, labels, cfg, nil, dx, grad)
				near(t, "value", []float64{r.Value, r.CE}, []float64{want["value"][0], want["ce"][0]}, 1e-6)
				near(t, "Dice", r.Dice[:], want["dice"], 1e-6)
				near(t, "dx", fromTensor(dx, s[0]).v, want["dx"], 1e-5)
				near(t, "dw", widen(grad.W), want["dw"], 1e-5)
				near(t, "db", widen(grad.B), want["db"], 1e-5)
			})
		}
	})
}

func TestPerceptronMatchesTorch(t *testing.T) {
	want := loadTorch(t)["perceptron"]
	sizes, voxels := []int{16, 64, 32, 32}, 11
	eachKernel(t, func(t *testing.T, k *kernelSet) {
		e := newEngine(1, k)
		params, grads := make([]float32, PerceptronLen(sizes...)), make([]float32, PerceptronLen(sizes...))
		p, grad := NewPerceptron(0.01, params, sizes...), NewPerceptron(0.01, grads, sizes...)
		for l := range len(sizes) - 1 {
			w, b := p.Layer(l)
			copy(w, narrow(torchValue(10+l, len(w))))
			copy(b, narrow(torchValue(20+l, len(b))))
		}
		b := p.NewBatch(20)
		show := func(from, n int) {
			x := narrow(torchValue(1, voxels*sizes[0]))[from*sizes[0]:]
			for v := range n {
				for block := range sizes[0] / 8 {
					copy(b.Features(v, block), x[v*sizes[0]+block*8:][:8])
				}
			}
		}
		show(0, voxels)
		near(t, "outputs", widen(e.Forward(p, b, voxels)), want["y"], 1e-6)
		// In two goes: gradients add up, and what the batch held before is not counted.
		dy := narrow(torchValue(5, voxels*32))
		for _, part := range [][2]int{{0, 9}, {9, 2}} {
			show(part[0], part[1])
			e.Forward(p, b, part[1])
			e.Backward(p, grad, b, part[1], dy[part[0]*32:])
		}
		for l := range len(sizes) - 1 {
			w, b := grad.Layer(l)
			near(t, fmt.Sprintf("dw%d", l), widen(w), want[fmt.Sprintf("dw%d", l)], 1e-5)
			near(t, fmt.Sprintf("db%d", l), widen(b), want[fmt.Sprintf("db%d", l)], 1e-5)
		}
	})
}

func TestAdamMatchesTorch(t *testing.T) {
	want := loadTorch(t)["adam"]
	eachKernel(t, func(t *testing.T, k *kernelSet) {
		for name, decay := range map[string]float64{"adam": 0, "adamw": 0.1} {
			p, m, v := narrow(torchValue(1, 21)), make([]float32, 21), make([]float32, 21)
			for step := range 3 {
				newEngine(1, k).Adam(p, narrow(torchValue(10+step, 21)), m, v, step+1, 0.01, 0.9, 0.999, 1e-8, decay, 1)
			}
			near(t, name, widen(p), want[name], 1e-6)
		}
	})
}
