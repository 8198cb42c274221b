package train

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"

	"neuroscreen/internal/anatomy"
	"neuroscreen/internal/segment"
	"neuroscreen/internal/segment/conv"
)

// BordersConfig decides completely what a network's borders learn.
type BordersConfig struct {
	Hidden       []int    `json:"hidden"`
	Seed         uint64   `json:"seed"`
	Anything     int      `json:"anything"`      // heads of any kind for each ordinary one
	Steps        int      `json:"steps"`         // length of the cosine schedule, in heads
	LearningRate float64  `json:"learning_rate"` // at its top
	Maps         []string `json:"training_maps"`
	HeldOut      []string `json:"held_out_maps"`
}

const (
	bordersPerHead  = 1 << 15 // voxels in doubt that are learnt from
	bordersTurns    = 4       // steps of Adam that they are for
	bordersParts    = 8       // of a turn's voxels, for several threads; fixed, so that sums have one order
	bordersBatch    = 64      // voxels that go through the perceptron together
	bordersAverage  = .999    // decay of the average of weights, a turn
	bordersMeasured = 12      // heads that the features' means and SDs are taken from
)

// BordersTrainer teaches the borders of a network that does not change.
type BordersTrainer struct {
	cfg     BordersConfig
	model   *segment.Model
	net     *segment.UNet
	likely  []segment.Likely
	engine  *conv.Engine
	borders *segment.Borders
	heads   feed

	perceptron                   *conv.Perceptron
	params, grads, m, v, average []float32
	step                         int

	mean, scale []float32 // bring features to a mean of 0 and an SD of 1
	parts       [bordersParts]bordersPart
}

// bordersPart is what one thread needs at a time.
type bordersPart struct {
	batch *conv.Batch
	grads []float32
	dout  []float32
	loss  float64
}

// NewBorders starts a run. The model's own borders are forgotten; the two samplers must give the same
// sequence of whole boxes.
func NewBorders(cfg BordersConfig, m *segment.Model, threads int, a, b Sampler) *BordersTrainer {
	bare := *m
	bare.Borders = nil
	t := &BordersTrainer{
		cfg: cfg, model: &bare, net: segment.NewUNet(&bare, threads), engine: conv.NewEngine(1),
		likely: make([]segment.Likely, m.Architecture.Voxels()), borders: segment.NewBorders(m.Architecture, cfg.Hidden...),
		heads: feed{samples: [2]Sampler{a, b}},
	}
	n := len(t.borders.Weights)
	t.params, t.grads, t.m, t.v = make([]float32, n), make([]float32, n), make([]float32, n), make([]float32, n)
	t.perceptron = t.borders.Perceptron(m.Architecture, t.params)
	r := rand.New(rand.NewPCG(cfg.Seed, 0x626f7264657273))
	for l := range cfg.Hidden { // and none in the last layer: at first nothing changes
		w, b := t.perceptron.Layer(l)
		bound := math.Sqrt(6 / (float64(len(w) / len(b))))
		for i := range w {
			w[i] = float32((2*r.Float64() - 1) * bound)
		}
	}
	t.average = slices.Clone(t.params)
	for i := range t.parts {
		t.parts[i] = bordersPart{batch: t.perceptron.NewBatch(bordersBatch), grads: make([]float32, n), dout: make([]float32, bordersBatch*segment.Logits)}
	}
	t.measure()
	return t
}

// measure takes means and SDs of features from heads far from the sequence that is learnt.
func (t *BordersTrainer) measure() {
	features := t.model.Architecture.Features()
	sum, squares, n := make([]float64, features), make([]float64, features), 0.
	b := t.parts[0].batch
	for i := range bordersMeasured {
		s := t.heads.samples[0].At(1<<40 + uint64(i))
		seen := t.see(s)
		for _, at := range t.choose(seen, s, uint64(i), bordersPerHead/8) {
			seen.Features(b, 0, at.x, at.y, at.z)
			n++
			for block := range features / 8 {
				for c, f := range b.Features(0, block) {
					sum[8*block+c] += float64(f)
					squares[8*block+c] += float64(f) * float64(f)
				}
			}
		}
	}
	t.mean, t.scale = make([]float32, features), make([]float32, features)
	for i := range features {
		mean := sum[i] / n
		t.mean[i] = float32(mean)
		if v := squares[i]/n - mean*mean; v > 0 {
			t.scale[i] = float32(1 / math.Sqrt(v))
		}
	}
}

// spot is a voxel in doubt.
type spot struct{ x, y, z, at int }

func (t *BordersTrainer) see(s Sample) *segment.Seen {
	seen, err := t.net.See(context.Background(), s.Image, t.likely)
	if err != nil {
		panic(err) // only a context's end is an error
	}
	return seen
}

// choose draws voxels in doubt whose class is among the likely ones, in random order: of what is likeliest in
// many of them fewer, as the square root, so that small structures are not a few voxels among those of cortex. The
// choice must not depend on the truth, which it would make likelier.
func (t *BordersTrainer) choose(seen *segment.Seen, s Sample, i uint64, count int) []spot {
	var all []spot
	var of [anatomy.NumClasses]float64
	shape := t.model.Architecture.Shape
	for z := range shape[2] {
		seen.Doubtful(z, func(x, y, at int) {
			l := &seen.Likely[at]
			if likelyIndex(l, s.Labels[at]) >= 0 {
				all = append(all, spot{x, y, z, at})
				of[l.Class[0]]++
			}
		})
	}
	r := rand.New(rand.NewPCG(t.cfg.Seed, 0x73706f7473+i))
	total := 0.
	for _, n := range of {
		total += math.Sqrt(n)
	}
	keep := all[:0]
	for _, p := range all {
		if r.Float64()*total*math.Sqrt(of[seen.Likely[p.at].Class[0]]) < float64(count) {
			keep = append(keep, p)
		}
	}
	r.Shuffle(len(keep), func(i, j int) { keep[i], keep[j] = keep[j], keep[i] })
	return keep
}

// likelyIndex is the place of a class among the likely ones, -1 where it is none.
func likelyIndex(l *segment.Likely, class uint8) int {
	for i, c := range l.Class {
		if c == class && l.P[i] > 0 {
			return i
		}
	}
	return -1
}

// rate of this step.
func (t *BordersTrainer) rate() float64 {
	return cosine(t.step, t.cfg.Steps, t.cfg.LearningRate)
}

// Step learns from the next head.
func (t *BordersTrainer) Step() StepResult {
	s := t.heads.next(t.step)
	seen := t.see(s)
	spots := t.choose(seen, s, uint64(t.step), bordersPerHead)
	res := StepResult{LearningRate: t.rate()}
	for turn := range bordersTurns {
		mine := spots[turn*len(spots)/bordersTurns : (turn+1)*len(spots)/bordersTurns]
		if len(mine) == 0 {
			continue
		}
		res.Value += t.learn(seen, s.Labels, mine) / bordersTurns
		res.GradientNorm = t.engine.Adam(t.params, t.grads, t.m, t.v, t.step*bordersTurns+turn+1, res.LearningRate, .9, .999, 1e-8, 0, gradientClip)
		done := float64(t.step*bordersTurns + turn + 1)
		blend(t.average, t.params, float32(min(bordersAverage, done/(done+10))))
	}
	t.step++
	res.Step = t.step
	return res
}

// learn computes the gradient of the mean cross-entropy of some voxels, and returns that.
func (t *BordersTrainer) learn(seen *segment.Seen, labels []uint8, spots []spot) float64 {
	var wg sync.WaitGroup
	for i := range t.parts {
		wg.Go(func() {
			t.parts[i].learn(t, seen, labels, spots[i*len(spots)/bordersParts:(i+1)*len(spots)/bordersParts], 1/float32(len(spots)))
		})
	}
	wg.Wait()
	clear(t.grads)
	loss := 0.
	for i := range t.parts {
		loss += t.parts[i].loss
		for j, g := range t.parts[i].grads {
			t.grads[j] += g
		}
	}
	return loss / float64(len(spots))
}

func (p *bordersPart) learn(t *BordersTrainer, seen *segment.Seen, labels []uint8, spots []spot, share float32) {
	clear(p.grads)
	p.loss = 0
	grad := t.borders.Perceptron(t.model.Architecture, p.grads)
	for batch := range slices.Chunk(spots, bordersBatch) {
		for i, at := range batch {
			seen.Features(p.batch, i, at.x, at.y, at.z)
			for block := range len(t.mean) / 8 {
				f := p.batch.Features(i, block)
				for c := range f {
					f[c] = (f[c] - t.mean[8*block+c]) * t.scale[8*block+c]
				}
			}
		}
		logits := t.engine.Forward(t.perceptron, p.batch, len(batch))
		clear(p.dout)
		for i, at := range batch {
			l := &seen.Likely[at.at]
			q := l.Add(logits[i*segment.Logits:][:segment.Logits])
			truth := likelyIndex(l, labels[at.at])
			p.loss -= math.Log(max(float64(q[truth]), 1e-30))
			q[truth]--
			for j, class := range l.Class {
				if class > 0 && l.P[j] > 0 {
					p.dout[i*segment.Logits+int(class)-1] = q[j] * share
				}
			}
		}
		t.engine.Backward(t.perceptron, grad, p.batch, len(batch), p.dout)
	}
}

// Steps done so far.
func (t *BordersTrainer) Steps() int { return t.step }

// Model returns the network with its borders' averaged weights, for features as they are.
func (t *BordersTrainer) Model() *segment.Model {
	b := *t.borders
	b.Weights = slices.Clone(t.average)
	b.Provenance = segment.Provenance{Seed: t.cfg.Seed, Steps: t.step, Maps: t.cfg.Maps, HeldOut: t.cfg.HeldOut}
	w, bias := b.Perceptron(t.model.Architecture, b.Weights).Layer(0)
	for i := range w {
		// [group of 32 outputs][feature][32]
		feature, output := i/segment.Logits%len(t.mean), i/(len(t.mean)*segment.Logits)*segment.Logits+i%segment.Logits
		w[i] *= t.scale[feature]
		bias[output] -= w[i] * t.mean[feature]
	}
	m := *t.model
	m.Borders = &b
	return &m
}

type bordersHeader struct {
	Config BordersConfig `json:"config"`
	Step   int           `json:"step"`
}

func (t *BordersTrainer) vectors() [][]float32 { return [][]float32{t.params, t.m, t.v, t.average} }

// Save writes a checkpoint atomically.
func (t *BordersTrainer) Save(path string) error {
	return saveCheckpoint(path, bordersHeader{t.cfg, t.step}, t.vectors())
}

// Load continues from a checkpoint of a run with the same network, seed and kinds of heads; the schedule may
// differ.
func (t *BordersTrainer) Load(path string) error {
	var h bordersHeader
	if err := loadCheckpoint(path, &h, t.vectors(), func() error {
		if !slices.Equal(h.Config.Hidden, t.cfg.Hidden) || h.Config.Seed != t.cfg.Seed || h.Config.Anything != t.cfg.Anything {
			return fmt.Errorf("checkpoint %s belongs to another run (%+v): choose another state folder", path, h.Config)
		}
		return nil
	}); err != nil {
		return err
	}
	t.step = h.Step
	return nil
}
