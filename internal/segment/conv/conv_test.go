package conv

import "testing"

// convCases cover one and several blocks, the 4-channel input, Winograd and direct sizes, each
// remainder of the row pieces, and images of a single voxel.
var convCases = []convCase{
	{8, 0, 8, 1, 1, 1},
	{8, 0, 8, 3, 5, 7},
	{16, 0, 8, 2, 3, 13},
	{8, 0, 24, 4, 4, 25},
	{32, 0, 16, 3, 3, 3},
	{8, 0, 4, 5, 6, 8},
	{8, 0, 4, 2, 3, 11},
	{8, 0, 8, 4, 4, 8},
	{8, 0, 8, 9, 6, 52},
	{16, 0, 24, 11, 10, 12},
	{8, 0, 8, 16, 2, 100},
	{8, 0, 8, 1, 2, 8},
	{8, 16, 8, 4, 4, 8},
	{8, 8, 8, 2, 2, 2},
	{16, 24, 8, 6, 2, 10},
	{8, 16, 16, 10, 6, 24},
	{16, 32, 16, 4, 8, 16},
	{8, 8, 4, 2, 4, 6},
	{8, 8, 8, 12, 4, 14},
	{8, 16, 8, 20, 4, 8},
	{8, 8, 4, 2, 6, 4},
	{16, 8, 8, 4, 2, 38},
	{8, 0, 16, 3, 4, 11},
}

func TestConvAndGradientsMatchReference(t *testing.T) {
	eachKernel(t, func(t *testing.T, k *kernelSet) {
		for i, c := range convCases {
			t.Run(c.String(), func(t *testing.T) { checkConv(t, k, c, uint64(i)) })
		}
	})
}

func TestConvAndGradientsMatchReferenceAtRandomShapes(t *testing.T) {
	if testing.Short() {
		t.Skip("slow reference")
	}
	eachKernel(t, func(t *testing.T, k *kernelSet) {
		r := rng(99)
		for i := range 25 {
			c := convCase{out: 8 * (1 + r.IntN(3)), in: 8 * (1 + r.IntN(2)), d: 1 + r.IntN(5), h: 1 + r.IntN(6), w: 1 + r.IntN(30)}
			switch i % 5 {
			case 0:
				c.in = 4
			case 1, 2:
				c.up, c.d, c.h, c.w = 8*(1+r.IntN(2)), 2*(1+r.IntN(2)), 2*(1+r.IntN(3)), 2*(1+r.IntN(14))
			}
			t.Run(c.String(), func(t *testing.T) { checkConv(t, k, c, uint64(i)) })
		}
	})
}

// FuzzConv draws any shape that a level of a network can have.
func FuzzConv(f *testing.F) {
	for i, c := range convCases {
		f.Add(uint64(i), uint8(c.out/8), uint8(c.up/8), uint8(c.in/4), uint8(c.d), uint8(c.h), uint8(c.w))
	}
	f.Fuzz(func(t *testing.T, seed uint64, out, up, in, d, h, w uint8) {
		c := convCase{out: 8 * (1 + int(out)%4), up: 8 * (int(up) % 4), in: 4, d: 1 + int(d)%9, h: 1 + int(h)%9, w: 1 + int(w)%50}
		if in%5 > 0 {
			c.in = 8 * int(in%5)
		}
		if c.up > 0 {
			c.d, c.h, c.w = (c.d+1)/2*2, (c.h+1)/2*2, (c.w+1)/2*2
		}
		for _, k := range available() {
			checkConv(t, k, c, seed)
		}
	})
}

// checkConv compares a convolution of random tensors, its sums and all its gradients with the
// reference.
func checkConv(t *testing.T, k *kernelSet, c convCase, seed uint64) {
	r := rng(seed)
	e := newEngine(2, k)
	var tensors []*Tensor
	defer func() {
		e.Release()
		for _, t := range tensors {
			t.Release()
		}
	}()
	keep := func(t *Tensor) *Tensor {
		tensors = append(tensors, t)
		return t
	}
	in := random(r, c.in, c.d, c.h, c.w)
	var low, upsampled *volume
	if c.up > 0 {
		low = random(r, c.up, c.d/2, c.h/2, c.w/2)
		upsampled = upsample2(low)
	}
	all := concat(upsampled, in)
	torch, bias := randomFloats(r, MasterLen(c.out, c.up, c.in)), randomFloats(r, c.out)
	w := NewWeights(c.out, c.up, c.in, make([]float32, len(torch)))
	w.SetTorch(torch)
	e.Pack(w, c.d, c.h, c.w, true)
	want, plain := newVolume(c.out, c.d, c.h, c.w), newVolume(c.out, c.d, c.h, c.w)
	eachProduct(all, c.out, func(wi, ii, oi int) { plain.v[oi] += float64(torch[wi]) * all.v[ii] })
	want.each(func(ch, z, y, x, i int) { want.v[i] = leakyRef(plain.v[i]+float64(bias[ch]), 0.01) })

	inT, out := keep(in.tensor()), keep(NewTensor(c.out, c.d, c.h, c.w))
	var lowT *Tensor
	if low != nil {
		lowT = keep(low.tensor())
	}
	e.Conv(w, lowT, inT, out, bias, 0.01, nil)
	near(t, "output", fromTensor(out, c.out).v, want.v, 3e-5)
	borderZero(t, "output", out)

	var st Stats
	e.Conv(w, lowT, inT, out, nil, 1, &st)
	near(t, "output without bias", fromTensor(out, c.out).v, plain.v, 3e-5)
	n := c.d * c.h * c.w
	var sums, wantSums []float64
	for ch := range c.out {
		a, b := 0.0, 0.0
		for _, v := range plain.v[ch*n : (ch+1)*n] {
			a += v
			b += v * v
		}
		s, q := st.Sum(ch)
		sums, wantSums = append(sums, s, q), append(wantSums, a, b)
	}
	near(t, "sums", sums, wantSums, 3e-5)

	dz := random(r, c.out, c.d, c.h, c.w)
	dAll, dW := newVolume(all.c, c.d, c.h, c.w), make([]float64, len(torch))
	eachProduct(all, c.out, func(wi, ii, oi int) {
		dAll.v[ii] += float64(torch[wi]) * dz.v[oi]
		dW[wi] += all.v[ii] * dz.v[oi]
	})
	dzT, din := keep(dz.tensor()), keep(NewTensor(inT.Channels, c.d, c.h, c.w))
	var dlow *Tensor
	if low != nil {
		dlow = keep(NewTensor(c.up, c.d/2, c.h/2, c.w/2))
	}
	e.ConvGradData(w, dzT, din, dlow)
	near(t, "input gradient", fromTensor(din, c.in).v, dAll.v[c.up*n:], 3e-5)
	borderZero(t, "input gradient", din)
	if low != nil {
		dUp := &volume{c.up, c.d, c.h, c.w, dAll.v[:c.up*n]}
		near(t, "low gradient", fromTensor(dlow, c.up).v, sum2(dUp).v, 3e-5)
		borderZero(t, "low gradient", dlow)
	}
	grad := randomFloats(r, len(torch)) // to be overwritten
	e.ConvGradWeights(w, lowT, inT, dzT, grad)
	near(t, "weight gradient", widen(w.Torch(grad)), dW, 3e-5)
}

// TestMACsAreThoseExecuted counts what the kernels are asked for.
func TestMACsAreThoseExecuted(t *testing.T) {
	macs := 0
	k := genericKernels
	k.direct8 = func(a *rowArgs) { macs += a.n * a.blocks * 64 * taps }
	k.direct4 = func(a *rowArgs) { macs += a.n * a.blocks * 32 * taps }
	k.winoMul = func(a *mulArgs) { macs += 2 * a.n * a.blocks * 64 * 3 * 24 }
	k.upMul = func(a *mulArgs) { macs += a.n * a.blocks * 64 * taps }
	for _, c := range convCases {
		e := newEngine(1, &k)
		w := NewWeights(c.out, c.up, c.in, make([]float32, MasterLen(c.out, c.up, c.in)))
		e.Pack(w, c.d, c.h, c.w, false)
		var low *Tensor
		if c.up > 0 {
			low = NewTensor(c.up, c.d/2, c.h/2, c.w/2)
		}
		macs = 0
		e.Conv(w, low, NewTensor((c.in+7)/8*8, c.d, c.h, c.w), NewTensor(c.out, c.d, c.h, c.w), nil, 1, nil)
		nominal, executed := w.MACs(c.d, c.h, c.w)
		if executed != float64(macs) || nominal != float64(MasterLen(c.out, c.up, c.in)*c.d*c.h*c.w) {
			t.Errorf("%v: %g of %g multiply-adds, executed %d", c, executed, nominal, macs)
		}
	}
}
