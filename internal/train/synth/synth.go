// Package synth draws synthetic heads from label maps: what the segmentation
// network learns from (Billot et al. 2023, doi:10.1016/j.media.2023.102789).
//
// A sample is a map that is moved, bent, perhaps atrophied and mirrored; its
// tissues are given intensities, most often those of T1-weighted scans; a
// scanner blurs it, cuts it into slices, shades it and adds noise; and parts
// of it are taken away as skull-stripping, defacing and short fields of view
// do. Labels stay those of the undamaged anatomy, except outside the field of
// view.
//
// Sample i of a seed is always the same on one processor architecture,
// whatever was drawn before it. Volumes have x to the right, y to the front, z
// to the top; x varies fastest.
package synth

// Sample is one synthetic scan with its labels.
type Sample struct {
	Image  []float32 // normalised: 0 to 1.2, its 99.8th percentile 1
	Labels []uint8   // classes of package anatomy
	Drawn  Drawn
}

// Drawn says what a sample is.
type Drawn struct {
	Map      string
	Mirrored bool
	AtMM     [3]float64 // the sample's middle, from that of its box
	T1       bool       // intensities near the T1 priors, not any contrast
	// Changed holds, by target of the map, the logarithm of the share of its
	// volume that was aimed at.
	Changed                              [numTargets]float64
	Morphed, Dura                        bool
	Lesions                              int
	SpacingMM                            [3]float64 // the scanner's voxels
	Lines                                bool       // and interpolated by lines since
	NoiseSD                              float64    // of 255
	Rician, Ghosted, Ringing             bool
	Strip                                Strip
	Holes                                int
	Defaced, LongNeck, BlackAir, Texture bool
	Cut                                  bool
	CutAxis, CutSide                     int // side 0 is low, 1 high
	Gamma, BiasSD                        float64
}

// Strip is a kind of skull-stripping.
type Strip int

const (
	Whole     Strip = iota // nothing stripped
	Loose                  // some millimetres of other tissue remain
	Skull                  // along the inside of the skull
	Tight                  // along the brain's surface, sulci filled
	BrainOnly              // fluid round the brain gone from every sulcus
	numStrips
)

// Generator draws samples. It is for one goroutine; its memory is reused.
type Generator struct {
	maps *Maps
	cfg  Config
	seed uint64

	n   [3]int // grid
	out Sample

	flow         *flow
	look         look
	place        [3]field // map voxel of each point of a coarse grid over the sample
	fine, coarse field    // correlated noise within tissue
	knots        field    // of whatever smooth field is drawn
	smooth       field    // that field: bias, or the threshold of a mask
	image, spare []float32
	noise        [2][]float32 // a row
	down, up     resampler
	some         []float32 // every third voxel
}

// New returns a generator of samples; cfg.Shape's axes need two voxels at
// least.
func New(m *Maps, cfg Config, seed uint64) *Generator {
	g := &Generator{maps: m, cfg: cfg, seed: seed, n: cfg.Shape, flow: newFlow()}
	if cfg.Morph > 0 {
		m.relate()
	}
	voxels := g.n[0] * g.n[1] * g.n[2]
	g.out = Sample{Image: make([]float32, voxels), Labels: make([]uint8, voxels)}
	g.image, g.spare = make([]float32, voxels), make([]float32, voxels)
	for i := range g.noise {
		g.noise[i] = make([]float32, g.n[0])
	}
	return g
}

// Purposes of random streams.
const (
	forShape = iota
	forTissue
	forTexture
	forScanner
	forNoise
	forCut
	forFinish
	forDeepGrey
	forMorph
	forFluid
	forSizes
)

// Sample draws sample i. The result is valid until the next call.
func (g *Generator) Sample(i uint64) *Sample {
	d := &g.out.Drawn
	*d = Drawn{}
	p := g.drawPose(i, d)
	r := stream(g.seed, i, forTissue)
	deep := stream(g.seed, i, forDeepGrey)
	look := g.drawLook(&r, &deep, d)
	texture := stream(g.seed, i, forTexture)
	g.paint(p, look, &texture)
	g.addLesions(&r, look, d)
	r = stream(g.seed, i, forScanner)
	noise := stream(g.seed, i, forNoise)
	g.scan(&r, &noise, d)
	r = stream(g.seed, i, forCut)
	g.takeAway(&r, p, d)
	r = stream(g.seed, i, forFinish)
	g.finish(&r, d)
	return &g.out
}
