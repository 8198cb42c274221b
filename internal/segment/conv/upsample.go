package conv

// upsampled is the first source of a convolution, and writes its part of out for the other to add to.
// Its weights apply to differences between neighbours (asmgen/up.go has the formula): on each axis
// low's voxel i is at 2i+1, its difference to the one before at 2i.
type upsampled struct {
	k        *kernelSet
	w        *Weights
	low, out *Tensor
	bias     []float32
	split    []int

	row, block, slot int // strides of the differences: [3 slices][block][2 tileRows + 1][2 W + 1][8]
}

// tileRows is the number of rows of low, or of Winograd's tiles, two voxels high, in one task: three
// slices of them stay in the second-level cache.
const tileRows = 2

func newUpsampled(k *kernelSet, w *Weights, low, out *Tensor, bias []float32) *upsampled {
	row := (2*low.W + 1) * lanes
	block := (2*tileRows + 1) * row
	return &upsampled{k, w, low, out, bias, pieces(low.W, k.upPairs), row, block, low.blocks() * block}
}

// all writes every row.
func (u *upsampled) all(e *Engine) {
	ny := (u.low.H + tileRows - 1) / tileRows
	depth := max(4, u.low.D/4)
	nz := (u.low.D + depth - 1) / depth
	e.each(ny*nz, func(wk *worker, task int) {
		y0, z0 := task%ny*tileRows, task/ny*depth
		y1, z1 := min(y0+tileRows, u.low.H), min(z0+depth, u.low.D)
		u.begin(wk, y0, y1, z0)
		for z := z0; z < z1; z++ {
			u.slice(wk, y0, y1, z)
		}
	})
}

// begin readies rows y0 to y1 of low for slice z0 and those after it.
func (u *upsampled) begin(wk *worker, y0, y1, z0 int) {
	wk.upRing.grow(3 * u.slot)
	u.differences(wk, y0, y1, 2*z0)
}

// slice writes what rows y0 to y1 of slice z of low make: twice as many rows of two slices.
func (u *upsampled) slice(wk *worker, y0, y1, z int) {
	u.differences(wk, y0, y1, 2*z+1)
	u.differences(wk, y0, y1, 2*z+2)
	m, o := &wk.mul, &wk.upOut
	for ob := range u.out.blocks() {
		*m = mulArgs{w: u.w.upForward[ob*u.w.Up*taps*lanes:], m: wk.product[:], blocks: u.low.blocks(), block: u.block, pos: u.row}
		*o = upOutArgs{m: wk.product[:], bias: initial(u.bias, ob), row: u.out.row(), slice: u.out.slice()}
		for y := y0; y < y1; y++ {
			row := func(z int) []float32 { return wk.upRing.data[z%3*u.slot+2*(y-y0)*u.row:] }
			m.v0, m.v1, m.v2, o.out = row(2*z), row(2*z+1), row(2*z+2), u.out.at(ob, 2*z+1, 2*y+1, 1)
			for _, n := range u.split {
				m.n, m.mPos, o.n, o.mPos = n, 2*n*lanes, n, 2*n*lanes
				u.k.upMul(m)
				u.k.upOut(o)
				done := 2 * n * lanes
				m.v0, m.v1, m.v2, o.out = m.v0[done:], m.v1[done:], m.v2[done:], o.out[done:]
			}
		}
	}
}

// differences makes slice z of them, for rows y0 to y1 of low.
func (u *upsampled) differences(wk *worker, y0, y1, z int) {
	low, a := u.low, &wk.upIn
	for b := range low.blocks() {
		none := low.at(b, 0, 0, 1)
		for y := 2 * y0; y <= 2*y1; y++ {
			lz, ly := z/2+1, y/2+1
			*a = upInArgs{
				a: low.at(b, lz, ly, 1), b: none, c: none, d: none, n: low.W, slice: low.slice(),
				out: wk.upRing.data[z%3*u.slot+b*u.block+(y-2*y0)*u.row:],
			}
			if z%2 == 0 {
				a.b = low.at(b, lz-1, ly, 1)
			}
			if y%2 == 0 {
				a.c = low.at(b, lz, ly-1, 1)
			}
			if z%2 == 0 && y%2 == 0 {
				a.d = low.at(b, lz-1, ly-1, 1)
			}
			u.k.upIn(a)
		}
	}
}

// upGradData is the adjoint of upsampling and convolving.
func (e *Engine) upGradData(w []float32, dz, dlow *Tensor) {
	split := pieces(dlow.W, 11)
	e.each(dlow.D*dlow.blocks(), func(wk *worker, task int) {
		ib, z := task/dlow.D, task%dlow.D
		for y := range dlow.H {
			a := &wk.row
			*a = rowArgs{
				w: w[ib*dz.blocks()*16*256:], init: zeros[:], slope: 1,
				blocks: dz.blocks(), block: dz.block(), slice: dz.slice(), row: dz.row(),
			}
			x := 0
			for _, a.n = range split {
				a.in, a.out = dz.at(0, 2*z, 2*y, 2*x), dlow.at(ib, z+1, y+1, x+1)
				e.k.upGrad(a)
				x += a.n
			}
		}
	})
}
