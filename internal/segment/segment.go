package segment

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync"

	"neuroscreen/internal/anatomy"
	"neuroscreen/internal/segment/conv"
	"neuroscreen/internal/volume"
)

//go:embed weights/default.weights
var defaultWeights []byte

// Network segments scans, one at a time; further callers wait.
type Network struct {
	weights *Weights
	locate  *UNet // nil when there is none
	whole   *UNet
	inner   *UNet         // nil when there is none
	turn    chan struct{} // holds a token while the nets are free
	p, q    []float32     // posteriors of the whole head, and of its mirror image
	sides   [2][]float32  // and of the inner boxes, left and right; the first takes q's place
}

// New prepares weights for use on a number of threads; 0 uses every core. There
// must be a network of whole heads among them.
func New(w *Weights, threads int) *Network {
	if threads == 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	shared := &memory{engine: conv.NewEngine(threads)}
	n := &Network{weights: w, whole: newUNet(w.Whole, shared), turn: make(chan struct{}, 1)}
	if w.Locate != nil {
		n.locate = newUNet(w.Locate, shared)
	}
	floats := func(count int) []float32 {
		v, release := conv.Floats(count)
		runtime.AddCleanup(n, func(release func()) { release() }, release)
		return v
	}
	head := w.Whole.Architecture.Voxels() * Logits
	if w.Inner == nil {
		n.p, n.q = floats(head), floats(head)
	} else {
		n.inner = newUNet(w.Inner, shared)
		side := w.Inner.Architecture.Voxels() * Logits
		n.p, n.q = floats(head), floats(max(head, side))
		n.sides = [2][]float32{n.q[:side], floats(side)}
	}
	n.turn <- struct{}{}
	return n
}

// DefaultWeights are the embedded ones.
var DefaultWeights = sync.OnceValues(func() (*Weights, error) { return ReadWeights(defaultWeights) })

// Default returns the networks with the embedded weights, shared by all callers.
var Default = sync.OnceValues(func() (*Network, error) {
	w, err := DefaultWeights()
	if err != nil {
		return nil, err
	}
	return New(w, 0), nil
})

// Weights that the network runs.
func (n *Network) Weights() *Weights { return n.weights }

// Segmentation of one scan.
type Segmentation struct {
	// Labels holds FreeSurfer label values on the input's own grid.
	Labels *volume.Labels
	// MM3 is the volume of each class within the surface of its label; Errors
	// is what is expected of its error, by its Signs.
	MM3    [anatomy.NumClasses]float64
	Errors [anatomy.NumClasses]VolumeError
	Signs  [anatomy.NumClasses]Signs
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
	can, reoriented := volume.Canonical(v)
	whole, image, err := n.lookAt(ctx, can)
	if err != nil {
		return nil, err
	}
	if err := n.whole.Posteriors(ctx, mirrored(image, whole.shape[0]), n.q[:len(n.p)]); err != nil {
		return nil, err
	}
	counts := n.average()
	whole.label(true)

	inner, err := n.lookInside(ctx, can, &whole)
	if err != nil {
		return nil, err
	}
	s := &Segmentation{FlipDice: counts.dice()}
	s.measure(&whole, inner)
	if len(inner) > 0 {
		s.compareInner(whole.labels, cube(whole.mm))
	}
	for k := range s.MM3 {
		s.Signs[k].compareMirror(&counts, k)
		s.Errors[k] = n.weights.volumeError(anatomy.Class(k), s.Signs[k], s.MM3[k])
	}
	s.Labels = reoriented.Inverse().Labels(toGrid(can.Grid, append([]part{whole}, inner...)...))
	return s, nil
}

// lookAt finds the box round the head, by coarse looks where there is a network
// for them. It returns the box, its posteriors in n.p, and its image.
func (n *Network) lookAt(ctx context.Context, can *volume.Volume) (part, []float32, error) {
	centre := headCentre(can)
	if n.locate != nil {
		coarse, _, err := n.settle(ctx, n.locate, can, centre)
		if err == nil {
			off, _ := brainCentre(coarse.p, n.locate.arch)
			centre = coarse.middle()
			for a := range centre {
				centre[a] += off[a]
			}
		} else if !errors.Is(err, ErrNoBrain) {
			return part{}, nil, err
		}
	}
	return n.settle(ctx, n.whole, can, centre)
}

// settle looks at the head until the brain's centre, as the network sees it, is
// that of its box.
func (n *Network) settle(ctx context.Context, u *UNet, can *volume.Volume, centre [3]float64) (part, []float32, error) {
	p := n.p[:u.arch.Voxels()*Logits]
	for look := 1; ; look++ {
		b := boxAround(centre, u.arch)
		image := b.sample(can)
		if err := u.Posteriors(ctx, image, p); err != nil {
			return part{}, nil, err
		}
		c, mass := brainCentre(p, u.arch)
		if mass*cube(u.arch.VoxelMM) < minBrainMM3 {
			return part{}, nil, ErrNoBrain
		}
		shift := 0.0
		for a := range c {
			shift = max(shift, math.Abs(c[a]))
		}
		if shift < recentreWithin || look == maxRecentre {
			return part{box: b, p: p, hi: b.shape}, image, nil
		}
		for a := range centre {
			centre[a] += c[a]
		}
	}
}

// ErrNoBrain says that the network labelled next to nothing.
var ErrNoBrain = fmt.Errorf("segment: no brain found")

// minBrainMM3 is well below the smallest adult brain and above stray labels.
const minBrainMM3 = 200_000

func cube(x float64) float64 { return x * x * x }
