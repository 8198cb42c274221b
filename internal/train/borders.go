package train

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
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
	Network      string   `json:"network"` // SHA-256 of its weights, which NewBorders fills in
	Hidden       []int    `json:"hidden"`
	Seed         uint64   `json:"seed"`
	Anything     int      `json:"anything"`      // heads of any kind for each ordinary one
	Steps        int      `json:"steps"`         // length of the cosine schedule, in heads
	LearningRate float64  `json:"learning_rate"` // at its top
	Maps         []string `json:"training_maps"`
	HeldOut      []string `json:"held_out_maps"`
}

const (
	bordersPerHead = 1 << 15 // voxels in doubt that are kept of a head
	bordersHeads   = 24      // heads whose voxels are learnt from together; a step takes a new one for the oldest
	bordersTurns   = 4       // steps of Adam for each head
	bordersPerTurn = 1 << 13 // voxels of each
	bordersParts   = 8       // of a turn's voxels, for several threads; fixed, so that sums have one order
	bordersBatch   = 64      // voxels that go through the perceptron together
	bordersAverage = .999    // decay of the average of weights, a turn
)

// BordersTrainer teaches the borders of a network that does not change.
type BordersTrainer struct {
	cfg     BordersConfig
	model   *segment.Model
	net     *segment.UNet
	likely  []segment.Likely
	engine  *conv.Engine // one for all threads: batches hold what differs
	borders *segment.Borders
	heads   feed

	perceptron                   *conv.Perceptron
	params, grads, m, v, average []float32
	step                         int

	mean, scale []float32 // bring features to a mean of 0 and an SD of 1
	lessons     [bordersHeads]lesson
	taken       int // heads whose lessons were taken; those before a resumed run's are taken again
	parts       [bordersParts]bordersPart
}

// lesson is the voxels in doubt of a head.
type lesson struct {
	features []float32 // of one voxel after the other
	likely   []segment.Likely
	truth    []uint8
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
	cfg.Network = digest(m)
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

// digest is the SHA-256 of a network's weights.
func digest(m *segment.Model) string {
	h := sha256.New()
	for _, of := range append(slices.Concat(m.Weight, m.Bias), m.HeadUp, m.HeadW, m.HeadB) {
		if err := binary.Write(h, binary.LittleEndian, of); err != nil {
			panic(err) // a hash takes all
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// measure takes means and SDs of features from heads far from the sequence that is learnt.
func (t *BordersTrainer) measure() {
	features := t.model.Architecture.Features()
	sum, squares, n := make([]float64, features), make([]float64, features), 0.
	for i := range uint64(bordersHeads) {
		l := t.read(t.heads.samples[0].At(1<<40+i), i)
		n += float64(len(l.truth))
		for j, f := range l.features {
			sum[j%features] += float64(f)
			squares[j%features] += float64(f) * float64(f)
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

// read returns what there is to learn from a head, number i: of its voxels in doubt whose class is among the
// likely ones, of what is likeliest in many of them fewer, as the square root, so that small structures are not a
// few voxels among those of cortex. The choice must not depend on the truth, which it would make likelier.
func (t *BordersTrainer) read(s Sample, i uint64) (l lesson) {
	seen, err := t.net.See(context.Background(), s.Image, t.likely)
	if err != nil {
		panic(err) // only a context's end is an error
	}
	type spot struct{ x, y, z, at int }
	var all []spot
	var of [anatomy.NumClasses]float64
	for z := range t.model.Architecture.Shape[2] {
		seen.Doubtful(z, func(x, y, at int) {
			if likelyIndex(&seen.Likely[at], s.Labels[at]) >= 0 {
				all = append(all, spot{x, y, z, at})
				of[seen.Likely[at].Class[0]]++
			}
		})
	}
	r := rand.New(rand.NewPCG(t.cfg.Seed, 0x73706f7473+i))
	total := 0.
	for _, n := range of {
		total += math.Sqrt(n)
	}
	b := t.parts[0].batch
	for _, p := range all {
		if r.Float64()*total*math.Sqrt(of[seen.Likely[p.at].Class[0]]) >= bordersPerHead {
			continue
		}
		seen.Features(b, 0, p.x, p.y, p.z)
		for block := range t.model.Architecture.Features() / 8 {
			l.features = append(l.features, b.Features(0, block)...)
		}
		l.likely, l.truth = append(l.likely, seen.Likely[p.at]), append(l.truth, s.Labels[p.at])
	}
	return l
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

// Step takes the next head and learns from it and those before it.
func (t *BordersTrainer) Step() StepResult {
	for i := max(t.taken, t.step+1-bordersHeads); i <= t.step; i++ {
		t.lessons[i%bordersHeads] = t.read(t.heads.next(i), uint64(i))
	}
	t.taken = t.step + 1
	res := StepResult{LearningRate: cosine(t.step, t.cfg.Steps, t.cfg.LearningRate)}
	for turn := range bordersTurns {
		n := t.step*bordersTurns + turn
		res.Value += t.learn(t.draw(n)) / bordersTurns
		res.GradientNorm = t.engine.Adam(t.params, t.grads, t.m, t.v, n+1, res.LearningRate, .9, .999, 1e-8, 0, gradientClip)
		blend(t.average, t.params, float32(min(bordersAverage, float64(n+1)/float64(n+11))))
	}
	t.step++
	res.Step = t.step
	return res
}

// picks are voxels of lessons: the lesson, and the voxel's place in it.
type picks [][2]int

// draw chooses voxels for a turn.
func (t *BordersTrainer) draw(turn int) (s picks) {
	r := rand.New(rand.NewPCG(t.cfg.Seed, 0x7475726e+uint64(turn)))
	heads := min(t.step+1, bordersHeads)
	for range bordersPerTurn {
		l := r.IntN(heads)
		if n := len(t.lessons[l].truth); n > 0 {
			s = append(s, [2]int{l, r.IntN(n)})
		}
	}
	return s
}

// learn computes the gradient of the mean cross-entropy of some voxels, and returns that.
func (t *BordersTrainer) learn(s picks) float64 {
	var wg sync.WaitGroup
	for i := range t.parts {
		wg.Go(func() {
			t.parts[i].learn(t, s[i*len(s)/bordersParts:(i+1)*len(s)/bordersParts], 1/float32(len(s)))
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
	return loss / float64(max(1, len(s)))
}

func (p *bordersPart) learn(t *BordersTrainer, s picks, share float32) {
	clear(p.grads)
	p.loss = 0
	grad := t.borders.Perceptron(t.model.Architecture, p.grads)
	features := len(t.mean)
	for batch := range slices.Chunk(s, bordersBatch) {
		for i, at := range batch {
			from := t.lessons[at[0]].features[at[1]*features:][:features]
			for j := range features / 8 {
				to := p.batch.Features(i, j)
				for c := range to {
					to[c] = (from[8*j+c] - t.mean[8*j+c]) * t.scale[8*j+c]
				}
			}
		}
		logits := t.engine.Forward(t.perceptron, p.batch, len(batch))
		clear(p.dout)
		for i, at := range batch {
			l := &t.lessons[at[0]].likely[at[1]]
			q := l.Add(logits[i*segment.Logits:][:segment.Logits])
			truth := likelyIndex(l, t.lessons[at[0]].truth[at[1]])
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
		if h.Config.Network != t.cfg.Network || !slices.Equal(h.Config.Hidden, t.cfg.Hidden) || h.Config.Seed != t.cfg.Seed || h.Config.Anything != t.cfg.Anything {
			return fmt.Errorf("checkpoint %s belongs to another run (%+v): choose another state folder", path, h.Config)
		}
		return nil
	}); err != nil {
		return err
	}
	t.step = h.Step
	return nil
}
