package conv

import (
	"fmt"
	"unsafe"
)

// lanes is the number of channels in a block.
const lanes = 8

// A Tensor holds Channels x D x H x W float32 as [Channels/8][D+2][H+2][W+2][8], the border zero. W
// is x (left to right), H is y, D is z; x is fastest. Operations write only inside the border.
type Tensor struct {
	Channels, D, H, W int

	data    []float32
	release func()
}

// NewTensor returns a tensor of zeros. channels must be a multiple of 8.
func NewTensor(channels, d, h, w int) *Tensor {
	t := &Tensor{Channels: channels, D: d, H: h, W: w}
	t.data, t.release = allocate(t.floats())
	return t
}

// floats that the tensor takes.
func (t *Tensor) floats() int {
	if t.Channels < lanes || t.Channels%lanes != 0 || t.D < 1 || t.H < 1 || t.W < 1 {
		panic(fmt.Sprintf("conv: tensor of %d channels, %dx%dx%d", t.Channels, t.D, t.H, t.W))
	}
	// One voxel more: the streaming weight gradient rounds its length up.
	return t.blocks()*t.block() + lanes
}

// Allocate returns n zero values, which must not hold pointers, outside the Go heap where the system
// allows it: large buffers that live long would let the collector wait for as much garbage again. They
// go back when release is called.
func Allocate[T any](n int) (data []T, release func()) {
	var v T
	floats, release := allocate((n*int(unsafe.Sizeof(v)) + 3) / 4)
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(floats))), n), release
}

// An Arena is memory that tensors of several sizes take in turns: networks that never run at the same
// time need it only once.
type Arena struct{ buffer buffer }

// Place puts the tensors, whose sizes are set, into the arena; the ones that were there before must
// not be used any more. Their borders are zero, what is inside is left over from others.
func (a *Arena) Place(tensors ...*Tensor) {
	total := 0
	for _, t := range tensors {
		total += t.floats()
	}
	data := a.buffer.grow(total)
	for _, t := range tensors {
		n := t.floats()
		t.data, data = data[:n:n], data[n:]
		t.clearBorder()
	}
}

func (t *Tensor) clearBorder() {
	clear(t.data[t.blocks()*t.block():])
	row, slice := t.row(), t.slice()
	for b := range t.blocks() {
		block := t.data[b*t.block():][:t.block()]
		clear(block[:slice])
		clear(block[len(block)-slice:])
		for z := 1; z <= t.D; z++ {
			s := block[z*slice:][:slice]
			clear(s[:row])
			clear(s[slice-row:])
			for y := 1; y <= t.H; y++ {
				clear(s[y*row:][:lanes])
				clear(s[(y+1)*row-lanes:][:lanes])
			}
		}
	}
}

// Row is a row of voxels along x, of the first 8 channels: those of one voxel, then those of the next.
func (t *Tensor) Row(z, y int) []float32 { return t.at(0, z+1, y+1, 1)[:t.W*lanes] }

// Voxel is the channels 8*block to 8*block+7 of a voxel, which may lie one outside the tensor, where all is zero.
func (t *Tensor) Voxel(block, z, y, x int) []float32 { return t.at(block, z+1, y+1, x+1)[:lanes] }

// Cross is what Voxel returns of a voxel and of the six that share a face with it: below, above, behind, before, on
// its left, on its right.
func (t *Tensor) Cross(block, z, y, x int) (c [7][]float32) {
	at := block*t.block() + (z+1)*t.slice() + (y+1)*t.row() + (x+1)*lanes
	for i, step := range [...]int{0, -t.slice(), t.slice(), -t.row(), t.row(), -lanes, lanes} {
		c[i] = t.data[at+step:][:lanes]
	}
	return c
}

// Begin lets t use the memory of the first channels of another tensor of the same size.
func (t *Tensor) Begin(of *Tensor) {
	if !t.sameSize(of) || t.Channels > of.Channels {
		panic(fmt.Sprintf("conv: %v in the memory of %v", t, of))
	}
	t.data = of.data[:t.floats()]
}

// Release returns the tensor's memory, which on Linux lies outside the Go heap: the garbage collector
// does not free it. The tensor must not be used afterwards.
func (t *Tensor) Release() {
	if t.release != nil {
		t.release()
	}
	t.data, t.release = nil, nil
}

// SetChannel copies v, D*H*W values with x fastest, into channel c.
func (t *Tensor) SetChannel(c int, v []float32) {
	t.checkChannel(c, v)
	t.eachRow(c, func(row []float32, i int) {
		for x, f := range v[i : i+t.W] {
			row[x*lanes] = f
		}
	})
}

// Channel copies channel c into dst, D*H*W values with x fastest.
func (t *Tensor) Channel(c int, dst []float32) {
	t.checkChannel(c, dst)
	t.eachRow(c, func(row []float32, i int) {
		for x := range dst[i : i+t.W] {
			dst[i+x] = row[x*lanes]
		}
	})
}

func (t *Tensor) checkChannel(c int, v []float32) {
	if c < 0 || c >= t.Channels || len(v) != t.D*t.H*t.W {
		panic(fmt.Sprintf("conv: channel %d of %d values for %d channels of %dx%dx%d", c, len(v), t.Channels, t.D, t.H, t.W))
	}
}

// eachRow calls f with each row of channel c, values 8 apart, and the row's place in a plain volume.
func (t *Tensor) eachRow(c int, f func(row []float32, i int)) {
	for z := range t.D {
		for y := range t.H {
			f(t.at(c/lanes, z+1, y+1, 1)[c%lanes:], (z*t.H+y)*t.W)
		}
	}
}

func (t *Tensor) blocks() int { return t.Channels / lanes }
func (t *Tensor) row() int    { return (t.W + 2) * lanes }
func (t *Tensor) slice() int  { return (t.H + 2) * t.row() }
func (t *Tensor) block() int  { return (t.D + 2) * t.slice() }

// at returns the data from voxel z, y, x of a block on, counted with the border: the first voxel
// of the image is 1, 1, 1.
func (t *Tensor) at(block, z, y, x int) []float32 {
	return t.data[block*t.block()+z*t.slice()+y*t.row()+x*lanes:]
}

func (t *Tensor) sameSize(o *Tensor) bool { return t.D == o.D && t.H == o.H && t.W == o.W }

func (t *Tensor) String() string {
	if t == nil {
		return "no tensor"
	}
	return fmt.Sprintf("%dx%dx%dx%d", t.Channels, t.D, t.H, t.W)
}
