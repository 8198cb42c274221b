package segment

import (
	"context"

	"neuroscreen/internal/segment/conv"
)

// UNet runs a model's forward pass on one box. It serves one scan at a time, and
// so do all nets of the same memory.
type UNet struct {
	arch    Architecture
	blocks  []Block
	weights []*conv.Weights
	bias    [][]float32
	head    conv.Head
	borders *reader // nil where nothing is read again

	*memory
	x      []float32      // coordinate along x
	input  *conv.Tensor   // image and coordinates
	a, b   []*conv.Tensor // by level: first and second block; b keeps the skip
	pooled []*conv.Tensor // by level, from 1
}

// memory is what nets that run in turns share: the engine's scratch, and the
// activations, which are those of the last one that ran.
type memory struct {
	engine *conv.Engine
	arena  conv.Arena
	last   *UNet
}

// NewUNet prepares a model for inference on a number of threads.
func NewUNet(m *Model, threads int) *UNet {
	return newUNet(m, &memory{engine: conv.NewEngine(threads)})
}

func newUNet(m *Model, shared *memory) *UNet {
	arch := m.Architecture
	n := &UNet{arch: arch, blocks: arch.Blocks(), bias: m.Bias, memory: shared}
	n.head = conv.Head{Up: Transposed(m.HeadUp, arch.HeadUp()), W: Transposed(m.HeadW, arch.Base), B: m.HeadB}
	for i, b := range n.blocks {
		w := conv.NewWeights(b.Out, b.Up, b.In, make([]float32, conv.MasterLen(b.Out, b.Up, b.In)))
		w.SetTorch(m.Weight[i])
		d, h, width := arch.at(b.Level)
		n.engine.Pack(w, d, h, width, false)
		w.Master = nil // what is packed is all that a forward pass reads
		n.weights = append(n.weights, w)
	}
	if m.Borders != nil {
		n.borders = newReader(m.Borders, arch)
	}
	sized := func(channels, level int) *conv.Tensor {
		d, h, w := arch.at(level)
		return &conv.Tensor{Channels: channels, D: d, H: h, W: w}
	}
	for x := range arch.Shape[0] {
		n.x = append(n.x, arch.coordinate(0, x, 0))
	}
	n.input = sized(8, 0)
	for l := range arch.Depth + 1 {
		n.a, n.b = append(n.a, sized(arch.Channels(l), l)), append(n.b, sized(arch.Channels(l), l))
		if l == 0 {
			n.pooled = append(n.pooled, nil)
		} else {
			n.pooled = append(n.pooled, sized(arch.Channels(l-1), l))
		}
	}
	return n
}

// place takes the memory from the net that ran before.
func (n *UNet) place() {
	if n.last == n {
		return
	}
	n.last = n
	var tensors []*conv.Tensor
	for l := range n.a {
		tensors = append(tensors, n.a[l], n.b[l])
		if l > 0 {
			tensors = append(tensors, n.pooled[l])
		}
	}
	n.arena.Place(tensors...)
	n.input.Begin(n.b[0]) // what it holds is read before b[0] is written
}

// show writes image and coordinates.
func (n *UNet) show(image []float32) {
	shape := n.arch.Shape
	parallel(shape[2], func(z int) {
		cz := n.arch.coordinate(2, z, 0)
		for y := range shape[1] {
			cy := n.arch.coordinate(1, y, 0)
			row := n.input.Row(z, y)
			for x, v := range image[(z*shape[1]+y)*shape[0]:][:shape[0]] {
				voxel := row[x*8:][:8]
				voxel[0], voxel[1], voxel[2], voxel[3] = v, n.x[x], cy, cz
				voxel[4], voxel[5], voxel[6], voxel[7] = 0, 0, 0, 0
			}
		}
	})
}

// MACs counts the multiply-adds of one pass: by the layers' plain definition,
// and those that are executed. What borders read again depends on the image, and is not
// among them.
func (n *UNet) MACs() (nominal, executed float64) {
	for i, b := range n.blocks {
		d, h, width := n.arch.at(b.Level)
		nom, exe := n.weights[i].MACs(d, h, width)
		nominal, executed = nominal+nom, executed+exe
	}
	voxels, below := float64(n.arch.Voxels()*Logits), float64(n.arch.HeadUp())
	own := voxels * float64(n.arch.Base)
	return nominal + own + voxels*below, executed + own + voxels/8*below
}

// at returns depth, height and width (z, y, x) at a level.
func (a Architecture) at(level int) (d, h, w int) {
	return a.Shape[2] >> level, a.Shape[1] >> level, a.Shape[0] >> level
}

// Classify writes the likeliest classes of each voxel to dst. The image has the
// shape of the architecture, x fastest, normalised as Normalise does. It stops
// between blocks when ctx ends.
func (n *UNet) Classify(ctx context.Context, image []float32, dst []Likely) error {
	s, err := n.See(ctx, image, dst)
	if err != nil || n.borders == nil {
		return err
	}
	return n.borders.read(ctx, n.engine, s)
}

// See is Classify without reading borders again. What it returns is valid until the
// network, or another of the same memory, is used again.
func (n *UNet) See(ctx context.Context, image []float32, dst []Likely) (*Seen, error) {
	low, x, err := n.features(ctx, image)
	if err != nil {
		return nil, err
	}
	n.engine.Posteriors(low, x, &n.head, negligible, func(r conv.Row) {
		for i, b := range r.Background {
			dst[r.First+i].choose(b, r.Likely[i], r.P[i*Logits:][:Logits])
		}
	})
	return &Seen{dst, image, low, x}, nil
}

// features runs everything but the head, and returns what that hears; low is nil
// unless it hears the level below.
func (n *UNet) features(ctx context.Context, image []float32) (low, x *conv.Tensor, err error) {
	n.place()
	n.show(image)
	i := 0
	run := func(low, in, out *conv.Tensor) {
		if ctx.Err() == nil {
			n.engine.Conv(n.weights[i], low, in, out, n.bias[i], Slope, nil)
		}
		i++
	}
	in := n.input
	for l := range n.arch.Depth + 1 {
		if l > 0 {
			n.engine.MaxPool(n.b[l-1], n.pooled[l])
			in = n.pooled[l]
		}
		run(nil, in, n.a[l])
		run(nil, n.a[l], n.b[l])
	}
	for l := n.arch.Depth - 1; l >= 0; l-- {
		run(n.b[l+1], n.b[l], n.a[l]) // a's own content is no longer needed
		run(nil, n.a[l], n.b[l])
	}
	if n.arch.Below {
		low = n.b[1]
	}
	return low, n.b[0], ctx.Err()
}
