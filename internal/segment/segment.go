package segment

import (
	"context"
	_ "embed"
	"fmt"
	"math"
	"runtime"
	"sync"

	"neuroscreen/internal/anatomy"
	"neuroscreen/internal/volume"
)

//go:embed weights/default.weights
var defaultWeights []byte

// Network segments scans, one at a time; further callers wait.
type Network struct {
	model *Model
	net   *UNet
	turn  chan struct{} // holds a token while the net is free
	p, q  []float32     // posteriors of the box, and of its mirror image
}

// New prepares a model for use on a number of threads; 0 uses every core.
func New(m *Model, threads int) *Network {
	if threads == 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	n := &Network{model: m, net: NewUNet(m, threads), turn: make(chan struct{}, 1)}
	n.p = make([]float32, m.Architecture.Voxels()*Logits)
	n.q = make([]float32, len(n.p))
	n.turn <- struct{}{}
	return n
}

// Default returns the network with the embedded weights, shared by all callers.
var Default = sync.OnceValues(func() (*Network, error) {
	m, err := ReadModel(defaultWeights)
	if err != nil {
		return nil, err
	}
	return New(m, 0), nil
})

// Model that the network runs.
func (n *Network) Model() *Model { return n.model }

// Segmentation of one scan.
type Segmentation struct {
	// Labels holds FreeSurfer label values on the input's own grid.
	Labels *volume.Labels
	// MM3 is the volume of each class within the surface of its label;
	// StandardErrorMM3 is the error expected of it, by its Signs.
	MM3, StandardErrorMM3 [anatomy.NumClasses]float64
	Signs                 [anatomy.NumClasses]Signs
	// ICVMM3 is everything but background.
	ICVMM3 float64
	// Confidence is the mean greatest posterior over the labelled voxels.
	Confidence float64
	// FlipDice is the overlap, over all structures, of the labels of the head
	// and of its mirror image: 1 when the network sees both alike.
	FlipDice float64
}

const (
	maxRecentre    = 4   // looks at the head before the box must stand
	recentreWithin = 2.0 // mm
)

// Segment labels a T1-weighted head. The affine must be usable (see
// volume.Affine.Check); the head may be whole or skull-stripped.
//
// It returns ctx's error when that ends first, and an error when no brain is
// found at all.
func (n *Network) Segment(ctx context.Context, v *volume.Volume) (*Segmentation, error) {
	select {
	case <-n.turn:
		defer func() { n.turn <- struct{}{} }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	arch := n.model.Architecture
	can, reoriented := volume.Canonical(v)
	centre := headCentre(can)
	var image []float32
	for look := 0; ; look++ {
		image = sampleBox(can, arch, centre)
		if err := n.net.Posteriors(ctx, image, n.p); err != nil {
			return nil, err
		}
		c, mass := brainCentre(n.p, arch)
		if mass*cube(arch.VoxelMM) < minBrainMM3 {
			return nil, ErrNoBrain
		}
		shift := 0.0
		for a := range c {
			shift = max(shift, math.Abs(c[a]))
		}
		if shift < recentreWithin || look == maxRecentre-1 {
			break
		}
		for a := range centre {
			centre[a] += c[a]
		}
	}
	labels, s, err := n.finish(ctx, image)
	if err != nil {
		return nil, err
	}
	s.Labels = reoriented.Inverse().Labels(toGrid(n.p, labels, arch, centre, can.Grid))
	return s, nil
}

// SegmentBox measures an image of the architecture's shape, normalised as
// Normalise does, without labels on any grid: what the network's errors are
// measured on.
func (n *Network) SegmentBox(ctx context.Context, image []float32) (*Segmentation, error) {
	select {
	case <-n.turn:
		defer func() { n.turn <- struct{}{} }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if err := n.net.Posteriors(ctx, image, n.p); err != nil {
		return nil, err
	}
	_, s, err := n.finish(ctx, image)
	return s, err
}

// finish joins the posteriors of a box, in n.p, with those of its mirror image
// and measures them. It also returns the class of each voxel of the box.
func (n *Network) finish(ctx context.Context, image []float32) ([]uint8, *Segmentation, error) {
	arch := n.model.Architecture
	if err := n.net.Posteriors(ctx, mirrored(image, arch.Shape[0]), n.q); err != nil {
		return nil, nil, err
	}
	s := &Segmentation{}
	counts := n.average()
	s.FlipDice = counts.dice()
	labels := labelBox(n.p, arch.Shape)
	s.measure(n.p, labels, arch)
	for k := range s.MM3 {
		s.Signs[k].compareMirror(&counts, k)
		s.StandardErrorMM3[k] = n.model.Provenance.relativeError(anatomy.Class(k), s.Signs[k]) * s.MM3[k]
	}
	return labels, s, nil
}

// ErrNoBrain says that the network labelled next to nothing.
var ErrNoBrain = fmt.Errorf("segment: no brain found")

// minBrainMM3 is well below the smallest adult brain and above stray labels.
const minBrainMM3 = 200_000

func cube(x float64) float64 { return x * x * x }
