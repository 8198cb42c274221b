package train

import (
	"cmp"
	"errors"
	"fmt"
	"math"

	"neuroscreen/internal/anatomy"
	"neuroscreen/internal/segment"
	"neuroscreen/internal/segment/conv"
)

// Config decides a run completely: the same config gives the same weights,
// however often the run is stopped and resumed and on any number of threads.
type Config struct {
	Arch segment.Architecture `json:"architecture"`
	// Crop is the part of the network's box that one sample shows; the zero
	// value is all of it.
	Crop         [3]int   `json:"crop"`
	Seed         uint64   `json:"seed"`
	Anything     int      `json:"anything"`      // heads of any kind for each ordinary one
	CrossEntropy float64  `json:"cross_entropy"` // its weight beside a Dice loss of 1; 0 is a half
	SizesHeld    bool     `json:"sizes_held"`    // in the Dice loss
	Average      float64  `json:"average"`       // decay a step of the average of weights that is kept; 0 is .999
	Steps        int      `json:"steps"`         // length of the cosine schedule
	LearningRate float64  `json:"learning_rate"` // at its top
	Maps         []string `json:"training_maps"`
	HeldOut      []string `json:"held_out_maps"`
	// Start is how the weights that the run began with had come to be, if they
	// had learnt before: then class weights are 1, and the normalisation leans on
	// running statistics, at once.
	Start *segment.Start `json:"start,omitempty"`
}

// learns is the architecture while it learns.
func (c *Config) learns() segment.Architecture {
	a := c.Arch
	if c.Crop != [3]int{} {
		a.Shape = c.Crop
	}
	return a
}

// The schedule. Class weights start at frequency^-1/2, without which small
// structures are learnt three times slower, and go to 1, without which they
// come out a third too large.
const (
	warmupSteps     = 200
	finalRate       = 0.01  // of the top learning rate
	annealSteps     = 5000  // until all class weights are 1
	averageDecay    = 0.999 // if the config names no other
	gradientClip    = 1
	renormFrom      = 1000 // steps of plain batch normalisation
	renormFull      = 4000 // steps until the bounds are widest
	renormRMax      = 4
	renormDMax      = 5
	runningMomentum = 0.02
	crossEntropy    = 0.5 // if the config names no other
)

// Sample is one box, or a part of one, with the class of each voxel.
type Sample struct {
	Image  []float32
	Labels []uint8
	AtMM   [3]float64 // its middle, from that of its box
	Map    string     // that it was drawn from
}

// Sampler gives sample i of an endless, reproducible sequence. The slices are
// valid until the next call.
type Sampler interface {
	At(i uint64) Sample
}

// Trainer is a run in progress.
type Trainer struct {
	cfg       Config
	net       *net
	heads     feed
	frequency [anatomy.NumClasses]float64

	step           int
	average        []float32 // exponential moving average of params
	averageRunning []float32 // and of the running statistics
}

// feed draws the next sample while one is learnt.
type feed struct {
	samples [2]Sampler // used in turn; they give the same sequence
	ahead   chan Sample
	index   int // of the sample that is drawn ahead
}

// next returns sample i and starts drawing the one after.
func (f *feed) next(i int) Sample {
	draw := func(i int) Sample { return f.samples[i&1].At(uint64(i)) }
	var s Sample
	if f.ahead == nil {
		f.ahead = make(chan Sample, 1)
		s = draw(i)
	} else if s = <-f.ahead; f.index != i { // in any case nobody draws any more
		s = draw(i)
	}
	f.index = i + 1
	go func() { f.ahead <- draw(i + 1) }()
	return s
}

// New starts a run. The two samplers must give the same sequence.
func New(cfg Config, threads int, a, b Sampler) *Trainer {
	cfg.CrossEntropy, cfg.Average = cmp.Or(cfg.CrossEntropy, crossEntropy), cmp.Or(cfg.Average, averageDecay)
	t := &Trainer{cfg: cfg, net: newNet(cfg.learns(), threads), heads: feed{samples: [2]Sampler{a, b}}}
	t.net.initialise(cfg.Seed)
	t.average = append([]float32(nil), t.net.params...)
	t.averageRunning = append([]float32(nil), t.net.running...)
	const counted = 24
	for i := range counted {
		// Far from the sequence that is learnt, to leave it untouched.
		s := a.At(1<<40 + uint64(i))
		for _, c := range s.Labels {
			t.frequency[c] += 1 / float64(counted*len(s.Labels))
		}
	}
	return t
}

// From starts the run with a model's weights, before its first step; stage names
// it when it is another's than the run's. The run's
// network may be wider than the model, and its box another.
func (t *Trainer) From(m *segment.Model, stage string) error {
	alike := m.Architecture
	alike.Base, alike.Wide, alike.Below, alike.Shape = t.cfg.Arch.Base, t.cfg.Arch.Wide, t.cfg.Arch.Below, t.cfg.Arch.Shape
	if alike != t.cfg.Arch || m.Architecture.Base > alike.Base || m.Architecture.Wide > alike.Wide || m.Architecture.Below && !alike.Below {
		return fmt.Errorf("train: weights of architecture %+v can't start a run of %+v", m.Architecture, t.cfg.Arch)
	}
	if t.step > 0 {
		return errors.New("train: the run has begun already")
	}
	t.cfg.Start = &segment.Start{Stage: stage, Base: m.Architecture.Base, Wide: m.Architecture.Wide, Below: m.Architecture.Below, Steps: m.Provenance.Steps, Before: m.Provenance.Start}
	m = widen(m, t.cfg.Arch, t.cfg.Seed)
	const seen = 24 // samples that the statistics are taken from
	t.net.unfold(m, t.heads.samples[0], seen)
	copy(t.average, t.net.params)
	copy(t.averageRunning, t.net.running)
	return nil
}

// StepResult is what one step reports.
type StepResult struct {
	Step         int
	LearningRate float64
	GradientNorm float64
	conv.LossResult
}

func (t *Trainer) loss() conv.LossConfig {
	cfg := conv.LossConfig{CE: float32(t.cfg.CrossEntropy), Dice: 1, SizesHeld: t.cfg.SizesHeld, Present: t.cfg.Crop != [3]int{}}
	anneal := min(1, float64(t.step)/annealSteps)
	if t.cfg.Start != nil {
		anneal = 1
	}
	for k, f := range t.frequency {
		cfg.ClassWeight[k] = float32(math.Pow(max(f, 1e-6), -.5*(1-anneal)))
	}
	return cfg
}

func (t *Trainer) rate() float64 {
	return cosine(t.step, t.cfg.Steps, t.cfg.LearningRate)
}

// cosine is the rate of a step: up to its top in the warm-up, then down.
func cosine(step, steps int, top float64) float64 {
	progress := min(1, float64(step)/float64(steps))
	share := (1 + math.Cos(math.Pi*progress)) / 2
	return top * min(1, float64(step+1)/warmupSteps) * (share + finalRate*(1-share))
}

func (t *Trainer) renorm() renorm {
	if t.cfg.Start != nil {
		return renorm{RMax: renormRMax, DMax: renormDMax, Momentum: runningMomentum}
	}
	ramp := min(1, max(0, float64(t.step-renormFrom)/(renormFull-renormFrom)))
	return renorm{
		RMax: 1 + (renormRMax-1)*ramp, DMax: renormDMax * ramp,
		Momentum: max(runningMomentum, 1/float64(t.step+1)),
	}
}

// Step learns from the next sample.
func (t *Trainer) Step() StepResult {
	s := t.heads.next(t.step)
	n := t.net
	res := StepResult{LearningRate: t.rate()}
	res.LossResult = n.gradients(s, t.loss(), t.renorm())
	t.step++
	res.Step = t.step
	res.GradientNorm = n.engine.Adam(n.params, n.grads, n.m, n.v, t.step, res.LearningRate, .9, .999, 1e-8, 0, gradientClip)
	keep := float32(t.keep())
	blend(t.average, n.params, keep)
	blend(t.averageRunning, n.running, keep)
	return res
}

// keep is the decay of this step: the average reaches back over a tenth of the
// steps so far, as long as that is less than its decay's reach; over half of
// them where the run began with weights that had learnt before.
func (t *Trainer) keep() float64 {
	lag := 10.
	if t.cfg.Start != nil {
		lag = 2
	}
	return min(t.cfg.Average, float64(t.step)/(float64(t.step)+lag))
}

func blend(avg, v []float32, keep float32) {
	for i, x := range v[:len(avg)] {
		avg[i] = x + keep*(avg[i]-x)
	}
}

// Steps done so far.
func (t *Trainer) Steps() int { return t.step }

// Model returns the averaged weights, folded for inference.
func (t *Trainer) Model() *segment.Model {
	return t.net.export(t.cfg.Arch, t.average, t.averageRunning, segment.Provenance{
		Seed: t.cfg.Seed, Steps: t.step, Maps: t.cfg.Maps, HeldOut: t.cfg.HeldOut, Start: t.cfg.Start,
	})
}

type trainerHeader struct {
	Config Config `json:"config"`
	Step   int    `json:"step"`
}

func (t *Trainer) vectors() [][]float32 {
	n := t.net
	return [][]float32{n.params, n.m, n.v, n.running, t.average, t.averageRunning}
}

// Save writes a checkpoint atomically.
func (t *Trainer) Save(path string) error {
	return saveCheckpoint(path, trainerHeader{t.cfg, t.step}, t.vectors())
}

// Load continues from a checkpoint. Architecture, seed, kinds of heads and loss must
// be those of the run; the schedule may differ.
func (t *Trainer) Load(path string) error {
	var h trainerHeader
	if err := loadCheckpoint(path, &h, t.vectors(), func() error {
		c := &h.Config
		if c.Arch != t.cfg.Arch || c.Crop != t.cfg.Crop || c.Seed != t.cfg.Seed || c.Anything != t.cfg.Anything ||
			cmp.Or(c.CrossEntropy, crossEntropy) != t.cfg.CrossEntropy || c.SizesHeld != t.cfg.SizesHeld || cmp.Or(c.Average, averageDecay) != t.cfg.Average {
			return fmt.Errorf("checkpoint %s belongs to another run (%+v): choose another state folder", path, h.Config)
		}
		return nil
	}); err != nil {
		return err
	}
	t.step, t.cfg.Start = h.Step, h.Config.Start
	return nil
}
