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
	weights  *Weights
	locate   *UNet // nil when there is none
	whole    *UNet
	closer   []closer      // looks at either side, each finer than the one before
	finestMM float64       // the smallest voxels that a net looks at
	turn     chan struct{} // holds a token while the nets are free
	p, q     []Likely      // classes of the whole head, and of its mirror image
	image    []float32     // that a network looks at
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
	classes := func(m *Model) []Likely { return allocate[Likely](n, m.Architecture.Voxels()) }
	n.p, n.q = classes(w.Whole), classes(w.Whole)
	for _, c := range []closer{{model: w.Half, region: half}, {model: w.Inner, region: inner}} {
		if c.model != nil {
			c.net = newUNet(c.model, shared)
			c.classes = [2][]Likely{classes(c.model), classes(c.model)}
			n.closer = append(n.closer, c)
		}
	}
	largest := 0
	n.finestMM = w.Whole.Architecture.VoxelMM
	for _, m := range w.models() {
		largest = max(largest, m.Architecture.Voxels())
		n.finestMM = min(n.finestMM, m.Architecture.VoxelMM)
	}
	n.image = allocate[float32](n, largest)
	n.turn <- struct{}{}
	return n
}

// allocate memory that is given back when the network is no longer used.
func allocate[T any](n *Network, count int) []T {
	v, release := conv.Allocate[T](count)
	runtime.AddCleanup(n, func(release func()) { release() }, release)
	return v
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
	// MM3 is the volume of each class, counted in the boxes; Errors
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
	whole, err := n.lookAt(ctx, can)
	if err != nil {
		return nil, err
	}
	image := n.image[:whole.voxels()]
	mirror(image, whole.shape)
	if err := n.whole.Classify(ctx, image, n.q); err != nil {
		return nil, err
	}
	counts := n.average()
	whole.label(true)

	sides, err := n.lookCloser(ctx, can, &whole)
	if err != nil {
		return nil, err
	}
	s := &Segmentation{FlipDice: counts.dice()}
	s.measure(&whole, sides)
	if len(sides) > 0 {
		s.compareCloser(whole.labels, cube(whole.mm))
	}
	for k := range s.MM3 {
		s.Signs[k].compareMirror(&counts, k)
		s.Errors[k] = n.weights.volumeError(anatomy.Class(k), s.Signs[k], s.MM3[k])
	}
	s.Labels = reoriented.Inverse().Labels(toGrid(can.Grid, &s.MM3, append([]part{whole}, sides...)))
	return s, nil
}

// lookAt finds the box round the head, by coarse looks where there is a network
// for them. It returns the box, with its classes in n.p and its image in n.image.
func (n *Network) lookAt(ctx context.Context, can *volume.Volume) (part, error) {
	centre := headCentre(can)
	if n.locate != nil {
		coarse, err := n.settle(ctx, n.locate, can, centre)
		if err == nil {
			off, _ := brainCentre(coarse.classes, n.locate.arch)
			centre = coarse.middle()
			for a := range centre {
				centre[a] += off[a]
			}
		} else if !errors.Is(err, ErrNoBrain) {
			return part{}, err
		}
	}
	return n.settle(ctx, n.whole, can, centre)
}

// settle looks at the head until the brain's centre, as the network sees it, is
// that of its box.
func (n *Network) settle(ctx context.Context, u *UNet, can *volume.Volume, centre [3]float64) (part, error) {
	classes := n.p[:u.arch.Voxels()]
	for look := 1; ; look++ {
		b := boxAround(centre, u.arch)
		b.align(n.finestMM, can.VoxelSize())
		image := n.image[:b.voxels()]
		b.sample(image, can)
		if err := u.Classify(ctx, image, classes); err != nil {
			return part{}, err
		}
		c, mass := brainCentre(classes, u.arch)
		if mass*cube(u.arch.VoxelMM) < minBrainMM3 {
			return part{}, ErrNoBrain
		}
		shift := 0.0
		for a := range c {
			shift = max(shift, math.Abs(c[a]))
		}
		if shift < recentreWithin || look == maxRecentre {
			return part{box: b, classes: classes, hi: b.shape}, nil
		}
		centre = b.middle()
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
