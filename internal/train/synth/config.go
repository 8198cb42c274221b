package synth

import "neuroscreen/internal/anatomy"

// Range is drawn from uniformly.
type Range struct{ Lo, Hi float64 }

// Region of a head that a box stands round.
type Region int

const (
	WholeHead Region = iota
	LeftHalf         // all structures of the left side
	LeftInner        // of these, anatomy.Inner
	numRegions
)

// Config says what heads are drawn. Probabilities are per sample.
type Config struct {
	Shape   [3]int  // voxels of a sample; x varies fastest
	VoxelMM float64 // their edge

	// MiddleMM is the middle of a box, from that of a region, wherever the pose
	// puts it; MiddleJitterMM is added along each axis. The sample lies in the
	// box, its middle at most CropMM from the box's.
	Around         Region
	MiddleMM       [3]float64
	MiddleJitterMM Range
	CropMM         [3]float64

	// Where the head lies.
	Mirror       float64 // probability of exchanging left and right
	RotationDeg  Range   // about each axis
	Scale        Range   // along each axis, anatomy's size over the map's
	Shear        Range
	ShiftMM      Range   // along each axis
	CoarseBendMM Range   // SD of displacements with knots CoarseKnots apart
	FineBendMM   Range   // and FineKnots apart
	CoarseKnots  Range   // mm
	FineKnots    Range   // mm
	Morph        float64 // probability of becoming more, or less, like some other maps
	MorphPart    Range   // of the way to each, on average over the head
	MorphSpread  Range   // SD of that part from place to place

	// Local change of volume, each with its probability; as a fraction of what
	// the map holds.
	Medial, MedialOneSide float64 // probability of any, and then of one side alone
	MedialApart           float64 // and then of a hippocampus that changes alone
	MedialVolume          Range   // hippocampi and amygdalae
	MedialFluid           Range   // share of what they lose that their inferior horns gain
	Ventricle             float64
	VentricleVolume       Range
	Sulci                 float64
	BrainVolume           Range
	Sizes                 float64 // probability that deep nuclei and ventricles of the midline have sizes of their own
	SizeSD                Range   // of the logarithm of their share; ventricles vary three times as much

	// How tissue looks. T1 is the probability of intensities near the T1
	// priors; the rest have any contrast.
	T1           float64
	T1Spread     Range   // of a class's mean, in SDs of its prior
	LabelSpread  Range   // SD between labels of one class, of 255
	DeepGrey     Range   // how far the nuclei and the hippocampus lie from cortex, whose prior they share, towards white matter; for evaluations
	TissueSD     Range   // of the prior's SD within tissue
	Centre       float64 // share of a voxel's signal that is from its centre, whose tissue is its label
	Texture      float64 // probability that part of it is correlated
	Dura         float64 // probability that the dura differs from the fluid
	Patches      float64 // probability of fat, muscle and marrow in turns outside the skull
	PatchSD      Range   // of 255
	BlackAir     float64 // probability of air without signal of its own
	Lesions      float64 // white-matter lesions; labels stay
	LesionCount  Range
	LesionRadius Range // mm

	// The scanner.
	BlurVoxels Range   // SD of the point spread along each axis
	Ringing    float64 // probability of sharp edges' echoes along one axis
	Thick      float64 // probability of thick slices along one axis
	SliceMM    Range
	Coarse     float64 // probability of large voxels along all axes
	CoarseMM   Range
	Lines      float64 // probability that someone has interpolated such voxels by lines; the segmenter does by splines
	Bias       float64
	BiasSD     Range  // of the field's logarithm
	BiasKnots  [2]int // fewest and most of the field's knots along an axis
	Noise      float64
	NoiseSD    Range   // of 255; drawn squared, so that little is common
	Rician     float64 // of the noisy
	Ghost      float64
	GhostShare Range
	GammaSD    float64 // of the exponent's logarithm

	// What is missing.
	Strip    float64 // skull-stripped, by one of the kinds
	Holes    float64 // of the stripped
	Deface   float64
	LongNeck float64 // the neck goes on below the map's edge
	Cut      float64 // a slab beyond one side was not scanned
	CutMM    Range   // from the brain's edge outwards
}

// Default draws any anatomy, contrast and damage, far beyond what clinics send.
func Default(shape [3]int, voxelMM float64) Config {
	return Config{
		Shape: shape, VoxelMM: voxelMM,

		Mirror:       .5,
		RotationDeg:  Range{-20, 20},
		Scale:        Range{.85, 1.18},
		Shear:        Range{-.03, .03},
		ShiftMM:      Range{-10, 10},
		CoarseBendMM: Range{0, 4},
		FineBendMM:   Range{0, 1.6},
		CoarseKnots:  Range{35, 60},
		FineKnots:    Range{16, 28},
		Morph:        .75, MorphPart: Range{-.25, .5}, MorphSpread: Range{.1, .35},

		Medial: .85, MedialOneSide: .4, MedialApart: .85,
		MedialVolume: Range{.5, 1.2}, MedialFluid: Range{.4, 1.2},
		Ventricle: .4, VentricleVolume: Range{.5, 2.2},
		Sulci: .4, BrainVolume: Range{.93, 1.03},
		Sizes: .5, SizeSD: Range{.03, .15},

		T1:          .9,
		T1Spread:    Range{.5, 1.5},
		LabelSpread: Range{1, 6},
		TissueSD:    Range{.15, .8},
		Centre:      .2,
		Texture:     .6,
		Dura:        .5, Patches: .7, PatchSD: Range{0, 50},
		BlackAir: .4,
		Lesions:  .2, LesionCount: Range{1, 15}, LesionRadius: Range{1.5, 5},

		BlurVoxels: Range{.1, .6},
		Ringing:    .15,
		Thick:      .2, SliceMM: Range{1.2, 4},
		Coarse: .1, CoarseMM: Range{1.2, 2.6}, Lines: .5,
		Bias: .9, BiasSD: Range{.02, .35}, BiasKnots: [2]int{4, 7},
		Noise: .9, NoiseSD: Range{0, 12}, Rician: .5,
		Ghost: .15, GhostShare: Range{.03, .2},
		GammaSD: .2,

		Strip: .35, Holes: .15,
		Deface: .1, LongNeck: .3,
		Cut: .15, CutMM: Range{-12, 40},
	}
}

// Ordinary draws what most clinics send: heads that lie as in a scanner, in
// T1-weighted scans of ordinary contrast and little damage, some of them with
// thick slices or stripped.
func Ordinary(shape [3]int, voxelMM float64) Config {
	c := Default(shape, voxelMM)
	c.RotationDeg, c.Scale, c.Shear, c.ShiftMM = Range{-8, 8}, Range{.92, 1.08}, Range{-.015, .015}, Range{-4, 4}
	c.T1, c.T1Spread, c.LabelSpread = 1, Range{.3, .7}, Range{1, 3}
	c.Ringing, c.Ghost = 0, 0
	c.BiasSD, c.NoiseSD, c.GammaSD = Range{.02, .15}, Range{0, 7}, .1
	c.Strip, c.Deface, c.Cut = c.Strip/2, c.Deface/2, c.Cut/2
	return c
}

// Evaluation draws ordinary scans of whole heads in small voxels, with every
// anatomy: what choosing among weights is based on.
func Evaluation(shape [3]int, voxelMM float64) Config {
	c := Ordinary(shape, voxelMM)
	c.CoarseBendMM, c.FineBendMM, c.Morph = Range{0, 2}, Range{0, .8}, 0
	c.Medial, c.MedialApart, c.Sizes = .75, .5, 0
	c.Thick, c.Coarse = 0, 0
	c.Strip, c.Deface, c.Cut = 0, 0, 0
	return c
}

// Locate turns a config of whole heads into one of boxes that a guess has
// placed.
func Locate(of func([3]int, float64) Config) func([3]int, float64) Config {
	return func(shape [3]int, voxelMM float64) Config {
		c := of(shape, voxelMM)
		c.ShiftMM = Range{-25, 25}
		return c
	}
}

// Inner turns a config of whole heads into one of boxes round the inner
// structures of one side: hippocampus, amygdala and deep nuclei, always on the
// left, since the network sees right sides in their mirror image. The box is
// placed as well as the whole head's labels place it.
func Inner(of func([3]int, float64) Config) func([3]int, float64) Config {
	return func(shape [3]int, voxelMM float64) Config {
		c := of(shape, voxelMM)
		c.Around, c.MiddleJitterMM = LeftInner, Range{-4, 4}
		finer(&c)
		return c
	}
}

// Half turns a config of whole heads into one of boxes round the left half of
// the brain.
func Half(of func([3]int, float64) Config) func([3]int, float64) Config {
	return func(shape [3]int, voxelMM float64) Config {
		c := of(shape, voxelMM)
		c.Around, c.MiddleMM, c.MiddleJitterMM = LeftHalf, anatomy.HalfMiddleMM, Range{-4, 4}
		finer(&c)
		return c
	}
}

// Crop turns a config of boxes into one of parts of them, anywhere in a box of
// some shape.
func Crop(of func([3]int, float64) Config, box [3]int) func([3]int, float64) Config {
	return func(shape [3]int, voxelMM float64) Config {
		c := of(shape, voxelMM)
		for a := range shape {
			c.CropMM[a] = float64(box[a]-shape[a]) / 2 * voxelMM
		}
		return c
	}
}

// finer is what changes in small boxes of fine voxels.
func finer(c *Config) {
	// They hold less of a field, and more noise.
	c.BiasKnots = [2]int{4, 5}
	c.BiasSD.Hi *= .7
	c.NoiseSD.Hi *= 1.7
	c.Cut /= 3
	// What the whole head's voxels hide, these show: large scanner voxels.
	c.Thick *= 2.5
	c.Coarse *= 2
}
