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
	// MM3 is the volume of each class from the posteriors near its label;
	// StandardErrorMM3 is the error expected of it (see StandardError).
	MM3, StandardErrorMM3 [anatomy.NumClasses]float64
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
	if err := n.net.Posteriors(ctx, mirrored(image, arch.Shape[0]), n.q); err != nil {
		return nil, err
	}
	s := &Segmentation{}
	own, flipped := massByClass(n.p), massByClass(n.q)
	s.FlipDice = n.average()
	labels := labelBox(n.p, arch.Shape)
	s.measure(n.p, labels, arch)
	for k := range s.MM3 {
		s.StandardErrorMM3[k] = n.standardError(anatomy.Class(k), s.MM3[k], own[k], flipped[anatomy.Structures[k].Mirror])
	}
	s.Labels = reoriented.Inverse().Labels(toGrid(n.p, labels, arch, centre, can.Grid))
	return s, nil
}

// ErrNoBrain says that the network labelled next to nothing.
var ErrNoBrain = fmt.Errorf("segment: no brain found")

// minBrainMM3 is well below the smallest adult brain and above stray labels.
const minBrainMM3 = 200_000

func cube(x float64) float64 { return x * x * x }

// relativeErrorFloor stands in for a structure whose error was not measured.
const relativeErrorFloor = 0.05

// standardError joins the relative error that the structure showed on
// held-out heads with how far this head and its mirror image disagree.
func (n *Network) standardError(k anatomy.Class, mm3, own, flipped float64) float64 {
	rel, ok := n.model.Provenance.RelativeError[anatomy.Structures[k].Name]
	if !ok {
		rel = relativeErrorFloor
	}
	disagree := math.Abs(own-flipped) / 2 * cube(n.model.Architecture.VoxelMM)
	return math.Hypot(rel*mm3, disagree)
}
