package segment

import (
	"context"
	"fmt"
	"math"
	"sync"

	"neuroscreen/internal/segment/conv"
)

// Borders is a small perceptron that reads again the voxels in which a network is in
// doubt. At full resolution the network has few channels for all that it labels; for the few
// voxels in doubt there is time for more. It hears what the network has to say of the
// voxel and of those round it, and the image.
type Borders struct {
	Hidden     []int      `json:"hidden"` // features of the layers between, multiples of 32
	Provenance Provenance `json:"provenance"`

	Weights []float32 `json:"-"` // of conv.NewPerceptron
}

// doubtful voxels have a likeliest class with a posterior below this. Where it is higher,
// reading again changes little that counts.
const doubtful = .8

// near is the number of voxels whose channels are heard: the one in question, and those that
// share a face with it.
const near = 7

// imageBlocks are the blocks of 8 features that hold the image of 3x3x3 voxels.
const imageBlocks = (27 + 7) / 8

// Features is the number of what Borders hears of a voxel: the channels at full resolution
// of those near it; the image of the 3x3x3 voxels round it, x fastest, and zeros up to a multiple
// of 8; and the channels of the level below that the logits hear.
func (a Architecture) Features() int { return near*a.Base + 8*imageBlocks + a.HeadUp() }

// sizes of the perceptron's layers.
func (b *Borders) sizes(a Architecture) []int {
	return append(append([]int{a.Features()}, b.Hidden...), Logits)
}

// NewBorders returns one that changes nothing.
func NewBorders(a Architecture, hidden ...int) *Borders {
	b := &Borders{Hidden: hidden}
	b.Weights = make([]float32, conv.PerceptronLen(b.sizes(a)...))
	return b
}

// Perceptron of some parameters, or of their gradients.
func (b *Borders) Perceptron(a Architecture, params []float32) *conv.Perceptron {
	return conv.NewPerceptron(Slope, params, b.sizes(a)...)
}

// Check says whether the engine can run them behind a network.
func (b *Borders) Check(a Architecture) error {
	if len(b.Hidden) == 0 || len(b.Hidden) > 4 {
		return fmt.Errorf("segment: borders with hidden layers %v are not supported", b.Hidden)
	}
	for _, n := range b.Hidden {
		if n <= 0 || n > 1024 || n%Logits != 0 {
			return fmt.Errorf("segment: hidden layer of %d features is not a multiple of %d up to 1024", n, Logits)
		}
	}
	if n := conv.PerceptronLen(b.sizes(a)...); n >= longTensor {
		return fmt.Errorf("segment: borders with %d weights are not supported", n)
	}
	return nil
}

// Seen is what a network made of an image, for Borders to read.
type Seen struct {
	Likely []Likely
	image  []float32
	low, x *conv.Tensor
}

// Doubtful calls f with each voxel in doubt of a slice of the box, but for those on the
// box's faces.
func (s *Seen) Doubtful(z int, f func(x, y, at int)) {
	if z == 0 || z == s.x.D-1 {
		return
	}
	for y := 1; y < s.x.H-1; y++ {
		row := (z*s.x.H + y) * s.x.W
		for x := 1; x < s.x.W-1; x++ {
			if s.Likely[row+x].P[0] < doubtful {
				f(x, y, row+x)
			}
		}
	}
}

// Features writes those of a voxel into a batch.
func (s *Seen) Features(b *conv.Batch, voxel, x, y, z int) {
	blocks := s.x.Channels / 8
	for i := range blocks {
		for n, f := range s.x.Cross(i, z, y, x) {
			copy(b.Features(voxel, n*blocks+i), f)
		}
	}
	var image [8 * imageBlocks]float32
	to := 0
	for dz := -1; dz <= 1; dz++ {
		for dy := -1; dy <= 1; dy++ {
			row := s.image[((z+dz)*s.x.H+y+dy)*s.x.W+x-1:][:3]
			image[to], image[to+1], image[to+2] = row[0], row[1], row[2]
			to += 3
		}
	}
	for i := range imageBlocks {
		copy(b.Features(voxel, near*blocks+i), image[8*i:][:8])
	}
	if s.low != nil {
		for i := range s.low.Channels / 8 {
			copy(b.Features(voxel, near*blocks+imageBlocks+i), s.low.Voxel(i, z/2, y/2, x/2))
		}
	}
}

// reader reads borders again, in slices on every core.
type reader struct {
	perceptron *conv.Perceptron
	batches    sync.Pool
}

// batch is how many voxels go through the perceptron together: few enough that their
// features stay in a core's own cache.
const batch = 64

func newReader(b *Borders, a Architecture) *reader {
	r := &reader{perceptron: b.Perceptron(a, b.Weights)}
	r.batches.New = func() any { return r.perceptron.NewBatch(batch) }
	return r
}

// read changes what is likely where it was in doubt.
func (r *reader) read(ctx context.Context, e *conv.Engine, s *Seen) error {
	parallel(s.x.D, func(z int) {
		if ctx.Err() != nil {
			return
		}
		b := r.batches.Get().(*conv.Batch)
		defer r.batches.Put(b)
		var at [batch]int
		n := 0
		flush := func() {
			logits := e.Forward(r.perceptron, b, n)
			for i, at := range at[:n] {
				s.Likely[at].add(logits[i*Logits:][:Logits])
			}
			n = 0
		}
		s.Doubtful(z, func(x, y, i int) {
			s.Features(b, n, x, y, z)
			at[n] = i
			if n++; n == batch {
				flush()
			}
		})
		if n > 0 {
			flush()
		}
	})
	return ctx.Err()
}

// Add adds logits of classes 1 to 32 to those of the likely classes, and returns the
// posterior of each among these.
func (l *Likely) Add(logits []float32) (p [likely]float32) {
	var more [likely]float32 // background's stays 0
	top := float32(math.Inf(-1))
	for i, c := range l.Class {
		if l.P[i] > 0 {
			if c > 0 {
				more[i] = logits[c-1]
			}
			top = max(top, more[i])
		}
	}
	var sum float32
	for i, was := range l.P {
		if was > 0 {
			p[i] = was * float32(math.Exp(float64(more[i]-top)))
			sum += p[i]
		}
	}
	for i := range p {
		p[i] /= sum
	}
	return p
}

// add adds logits to the likely classes, which keep the share of 1 that they have together.
func (l *Likely) add(logits []float32) {
	var all float32
	for _, p := range l.P {
		all += p
	}
	was := *l
	*l = Likely{}
	for i, p := range was.Add(logits) {
		if was.P[i] > 0 {
			l.insert(was.Class[i], all*p)
		}
	}
}
