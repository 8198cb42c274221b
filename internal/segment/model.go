// Package segment labels the brain on a T1-weighted image: the network, its
// weights, and what stands before and after it.
package segment

import (
	"fmt"

	"neuroscreen/internal/anatomy"
)

// Architecture of the U-Net. Each level has two blocks of 3x3x3 convolution,
// normalisation and LeakyReLU; 2x2x2 max pooling goes down, nearest-neighbour
// upsampling and concatenation with the skip goes up; a 1x1x1 convolution
// gives the logits of the classes above background, whose logit is 0.
type Architecture struct {
	Inputs  int     `json:"inputs"`          // channels: the image, then the x, y and z coordinates
	Base    int     `json:"base"`            // channels at full resolution, doubled at each level
	Depth   int     `json:"depth"`           // number of poolings
	Wide    int     `json:"wide,omitempty"`  // levels below full resolution, from the first on, with twice as many channels
	Below   bool    `json:"below,omitempty"` // the logits hear the level below full resolution too
	Shape   [3]int  `json:"shape"`           // voxels along x (left to right), y, z of the box that the network sees
	VoxelMM float64 `json:"voxel_mm"`        // edge of a voxel
}

// Logits is the number of channels of the last layer.
const Logits = anatomy.NumClasses - 1

// Slope of the LeakyReLU for negative values.
const Slope = 0.01

// coordinateScaleMM brings coordinates to about -1..1.
const coordinateScaleMM = 80

// Block is one 3x3x3 convolution: Up channels from the level below
// (upsampled), then In channels of its own level.
type Block struct {
	Name        string
	Level       int
	Out, Up, In int
}

// Channels at a level, 0 being full resolution.
func (a Architecture) Channels(level int) int {
	if 1 <= level && level <= a.Wide {
		return 2 * a.Base << level
	}
	return a.Base << level
}

// HeadUp is the number of channels of the level below that the logits hear.
func (a Architecture) HeadUp() int {
	if a.Below {
		return a.Channels(1)
	}
	return 0
}

// Blocks lists the convolutions in the order in which they run and are stored.
func (a Architecture) Blocks() []Block {
	var b []Block
	in := a.Inputs
	for l := 0; l <= a.Depth; l++ {
		ch := a.Channels(l)
		b = append(b, Block{fmt.Sprintf("encoder%d.0", l), l, ch, 0, in}, Block{fmt.Sprintf("encoder%d.1", l), l, ch, 0, ch})
		in = ch
	}
	for l := a.Depth - 1; l >= 0; l-- {
		ch := a.Channels(l)
		b = append(b, Block{fmt.Sprintf("decoder%d.0", l), l, ch, a.Channels(l + 1), ch}, Block{fmt.Sprintf("decoder%d.1", l), l, ch, 0, ch})
	}
	return b
}

// Voxels in the network's box.
func (a Architecture) Voxels() int { return a.Shape[0] * a.Shape[1] * a.Shape[2] }

// Coordinates returns the x, y and z input channels of an image whose middle
// lies at a place in the box: millimetres from the box's middle, divided by 80;
// x varies fastest.
func (a Architecture) Coordinates(middle [3]float64) [3][]float32 {
	var c [3][]float32
	for axis := range c {
		c[axis] = make([]float32, 0, a.Voxels())
	}
	at := func(axis, i int) float32 { return a.coordinate(axis, i, middle[axis]) }
	for z := range a.Shape[2] {
		for y := range a.Shape[1] {
			for x := range a.Shape[0] {
				c[0], c[1], c[2] = append(c[0], at(0, x)), append(c[1], at(1, y)), append(c[2], at(2, z))
			}
		}
	}
	return c
}

func (a Architecture) coordinate(axis, i int, middle float64) float32 {
	return float32(((float64(i)-float64(a.Shape[axis]-1)/2)*a.VoxelMM + middle) / coordinateScaleMM)
}

// check says whether the engine can run the architecture.
func (a Architecture) check() error {
	if a.Inputs != 4 || a.Base < 8 || a.Base > 64 || a.Base%8 != 0 || a.Depth < 1 || a.Depth > 5 || a.Wide < 0 || a.Wide > a.Depth || !(a.VoxelMM > 0) {
		return fmt.Errorf("segment: architecture %+v is not supported", a)
	}
	for _, n := range a.Shape {
		if n <= 0 || n > 512 || n%(1<<a.Depth) != 0 {
			return fmt.Errorf("segment: shape %v must be multiples of %d up to 512", a.Shape, 1<<a.Depth)
		}
	}
	return nil
}

// Provenance says how the weights of one network came to be.
type Provenance struct {
	Seed       uint64             `json:"seed"`
	Steps      int                `json:"steps"`
	Maps       []string           `json:"training_maps"`
	HeldOut    []string           `json:"held_out_maps"`
	Start      *Start             `json:"start,omitempty"`
	MeanOf     []Start            `json:"mean_of,omitempty"` // the weights are the mean of those after these steps
	Evaluation map[string]float64 `json:"evaluation"`        // on the held-out maps, with these very weights
}

// Start is an earlier run, whose weights the one after it began with.
type Start struct {
	Stage  string `json:"stage,omitempty"` // of the network, when it is another's
	Base   int    `json:"base"`
	Wide   int    `json:"wide,omitempty"`
	Below  bool   `json:"below,omitempty"`
	Steps  int    `json:"steps"`
	Before *Start `json:"start,omitempty"`
}

// Model is an architecture with its weights, normalisation folded in.
type Model struct {
	Architecture Architecture `json:"architecture"`
	Provenance   Provenance   `json:"provenance"`

	Weight [][]float32 `json:"-"` // by block: [out][up+in][kz][ky][kx]
	Bias   [][]float32 `json:"-"` // by block: [out]
	HeadUp []float32   `json:"-"` // [logit][channel of the level below], where logits hear it
	HeadW  []float32   `json:"-"` // [logit][base]
	HeadB  []float32   `json:"-"` // [logit]

	Borders *Borders `json:"borders,omitempty"` // nil where nothing is read again
}

// tensors returns every weight slice in file order, allocating them when the
// model is new.
func (m *Model) tensors() [][]float32 {
	a := m.Architecture
	if m.HeadW == nil {
		for _, b := range a.Blocks() {
			m.Weight = append(m.Weight, make([]float32, b.Out*(b.Up+b.In)*27))
			m.Bias = append(m.Bias, make([]float32, b.Out))
		}
		m.HeadUp, m.HeadW, m.HeadB = make([]float32, Logits*a.HeadUp()), make([]float32, Logits*a.Base), make([]float32, Logits)
	}
	var t [][]float32
	for i := range m.Weight {
		t = append(t, m.Weight[i], m.Bias[i])
	}
	t = append(t, m.HeadUp, m.HeadW, m.HeadB)
	if b := m.Borders; b != nil {
		if b.Weights == nil {
			b.Weights = NewBorders(a, b.Hidden...).Weights
		}
		t = append(t, b.Weights)
	}
	return t
}

// Transposed returns the columns of a matrix as rows, the layout of conv.Head from
// that of a model's head and back.
func Transposed(m []float32, columns int) []float32 {
	t := make([]float32, 0, len(m))
	for c := range columns {
		for i := c; i < len(m); i += columns {
			t = append(t, m[i])
		}
	}
	return t
}

// NewModel returns a model of zeros.
func NewModel(a Architecture) *Model {
	m := &Model{Architecture: a}
	m.tensors()
	return m
}
