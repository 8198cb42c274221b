package conv

// winograd is a convolution in tiles of 2x4 voxels. The last tile of a row that is no multiple of 4
// voxels ends with it, and shares columns with the one before.
type winograd struct {
	k       *kernelSet
	w       []float32
	up      *upsampled
	in, out *Tensor
	bias    []float32
	slope   float32

	tiles            int // in a row
	pos, block, slot int // strides of what is transformed: [4 slices][block][24 positions][tileRows][tile][8]
}

// winograd takes tasks of a few rows of tiles over part of the slices. One moves along z, two slices
// at a time, with a ring of four transformed slices, which stays in the second-level cache.
func (e *Engine) winograd(w []float32, up *upsampled, in, out *Tensor, bias []float32, slope float32, st *Stats) {
	c := &winograd{k: e.k, w: w, up: up, in: in, out: out, bias: bias, slope: slope, tiles: (in.W + 3) / 4}
	c.pos = tileRows * c.tiles * lanes
	c.block = 24 * c.pos
	c.slot = in.blocks() * c.block
	ny := (in.H/2 + tileRows - 1) / tileRows
	depth := max(8, in.D/8*2) // even
	nz := (in.D + depth - 1) / depth
	var splits [tileRows + 1][]int
	for rows := range splits {
		splits[rows] = pieces(rows*c.tiles, 6)
	}
	if st != nil {
		st.reset(ny*nz, out.Channels)
	}
	e.each(ny*nz, func(wk *worker, task int) {
		wk.ring.grow(4 * c.slot)
		y0, z0 := task%ny*tileRows, task/ny*depth
		y1, z1 := min(y0+tileRows, in.H/2), min(z0+depth, in.D)
		if up != nil {
			up.begin(wk, y0, y1, z0/2)
		}
		c.transform(wk, y0, y1, z0)
		c.transform(wk, y0, y1, z0+1)
		for z := z0; z < z1; z += 2 {
			slices := min(2, z1-z)
			if up != nil {
				up.slice(wk, y0, y1, z/2)
			}
			for s := range slices {
				c.transform(wk, y0, y1, z+2+s)
			}
			for ob := range out.blocks() {
				c.multiply(wk, ob, y0, z, slices, splits[y1-y0])
				if st == nil {
					continue
				}
				for s := range slices {
					wk.plane = planeArgs{z: out.at(ob, z+s+1, 2*y0+1, 1), width: out.W, rows: 2 * (y1 - y0), row: out.row(), acc: st.part(task, ob)}
					e.k.sums(&wk.plane)
				}
			}
		}
	})
}

// transform makes slice z, counted with the border, of the rows of tiles y0 to y1.
func (c *winograd) transform(wk *worker, y0, y1, z int) {
	a := &wk.tile
	for b := range c.in.blocks() {
		for y := y0; y < y1; y++ {
			whole := c.in.W / 4
			*a = tileArgs{
				in: c.in.at(b, z, 2*y, 0), out: wk.ring.data[z%4*c.slot+b*c.block+(y-y0)*c.tiles*lanes:],
				row: c.in.row(), pos: c.pos, n: whole, slice: c.in.slice(),
			}
			c.k.winoIn(a)
			if whole < c.tiles {
				a.in, a.out, a.n = c.in.at(b, z, 2*y, c.in.W-4), a.out[whole*lanes:], 1
				c.k.winoIn(a)
			}
		}
	}
}

// multiply makes the rows of tiles from y0 on, cut into pieces, in one slice or two. Of a single one the
// products for a second, with what the ring still holds, are not used.
func (c *winograd) multiply(wk *worker, ob, y0, z, slices int, split []int) {
	m := &wk.mul
	*m = mulArgs{w: c.w[ob*72*c.in.Channels*lanes:], m: wk.product[:], blocks: c.in.blocks(), block: c.block, pos: c.pos}
	first := 0
	for _, n := range split {
		v := func(z int) []float32 { return wk.ring.data[z%4*c.slot+first*lanes:] }
		m.v0, m.v1, m.v2, m.v3, m.n, m.mPos = v(z), v(z+1), v(z+2), v(z+3), n, 2*n*lanes
		c.k.winoMul(m)
		for s := range slices {
			for i := 0; i < n; {
				y, x := (first+i)/c.tiles, (first+i)%c.tiles
				run := min(n-i, c.tiles-x)
				c.back(wk, wk.product[(s*n+i)*lanes:], m.mPos, run, ob, z+s, y0+y, x)
				i += run
			}
		}
		first += n
	}
}

// back makes voxels of n tiles from tile x of row y on.
func (c *winograd) back(wk *worker, product []float32, mPos, n, ob, z, y, x int) {
	o := &wk.winoOut
	ready := func(product []float32, n, x int) {
		*o = winoOutArgs{
			m: product, mPos: mPos, n: n, init: initial(c.bias, ob), slope: c.slope,
			out: c.out.at(ob, z+1, 2*y+1, x+1), outRow: c.out.row(), outSlice: 2 * c.out.slice(),
		}
		if c.up != nil { // its part is there already
			o.init, o.initStep, o.initRow = o.out, lanes, c.out.row()
		}
	}
	whole := min(n, c.in.W/4-x)
	if whole > 0 {
		ready(product, whole, 4*x)
		c.k.winoOut(o)
	}
	if whole < n {
		ready(product[whole*lanes:], 1, c.in.W-4)
		dst, shared := o.out, 4-c.in.W%4
		o.out, o.outRow, o.outSlice = wk.last[:], 4*lanes, 0
		c.k.winoOut(o)
		for r := range 2 {
			copy(dst[r*c.out.row()+shared*lanes:][:(4-shared)*lanes], wk.last[(4*r+shared)*lanes:])
		}
	}
}
