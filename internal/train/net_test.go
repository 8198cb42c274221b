package train

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/binary"
	"math"
	"path/filepath"
	"testing"

	"neuroscreen/internal/anatomy"
	"neuroscreen/internal/segment"
	"neuroscreen/internal/segment/conv"
)

// blobs is a sampler of a task that can be learnt in seconds: class is where
// the image is bright, and on which side.
type blobs struct {
	arch   segment.Architecture
	image  []float32
	labels []uint8
}

func newBlobs(a segment.Architecture) *blobs {
	return &blobs{a, make([]float32, a.Voxels()), make([]uint8, a.Voxels())}
}

func (b *blobs) At(i uint64) Sample {
	nx, ny, nz := b.arch.Shape[0], b.arch.Shape[1], b.arch.Shape[2]
	cx := float64(4 + (i*7)%uint64(nx-8))
	cy := float64(4 + (i*5)%uint64(ny-8))
	for v := range b.image {
		x, y, z := v%nx, v/nx%ny, v/nx/ny
		d := math.Hypot(math.Hypot(float64(x)-cx, float64(y)-cy), float64(z)-float64(nz)/2)
		b.image[v], b.labels[v] = float32(v*2654435761%97)/970, 0
		if d < 4.5 {
			b.image[v] += 0.8
			b.labels[v] = 14
			if x >= nx/2 {
				b.labels[v] = 29
			}
		}
	}
	return Sample{Image: b.image, Labels: b.labels}
}

var small = segment.Architecture{Inputs: 4, Base: 8, Depth: 2, Shape: [3]int{24, 16, 16}, VoxelMM: 2}

// below is small with logits that hear the level below.
var below = func() segment.Architecture {
	a := small
	a.Below = true
	return a
}()

func newTrainer(steps, threads int) *Trainer {
	return New(Config{Arch: small, Seed: 3, Steps: steps, LearningRate: 4e-3}, threads, newBlobs(small), newBlobs(small))
}

func TestLearns(t *testing.T) {
	tr := newTrainer(700, 2)
	for range 700 {
		tr.Step()
	}
	sc, err := EvaluateBoxes(context.Background(), tr.Model(), 2, newBlobs(small), 6, anatomy.Brain)
	if err != nil {
		t.Fatal(err)
	}
	// The folded, averaged weights, with running statistics, as they ship.
	if sc.Dice[14] < 0.9 || sc.Dice[29] < 0.9 {
		t.Errorf("Dice after 700 steps %.3f and %.3f, want both above 0.9", sc.Dice[14], sc.Dice[29])
	}
}

// TestResume: stopping, saving and loading changes no bit of the weights, nor
// does the number of threads.
func TestResume(t *testing.T) {
	path := filepath.Join(t.TempDir(), "checkpoint")
	straight := newTrainer(12, 1)
	for range 12 {
		straight.Step()
	}
	first := newTrainer(12, 2)
	for range 5 {
		first.Step()
	}
	if err := first.Save(path); err != nil {
		t.Fatal(err)
	}
	second := newTrainer(12, 2)
	if err := second.Load(path); err != nil {
		t.Fatal(err)
	}
	for range 7 {
		second.Step()
	}
	var a, b bytes.Buffer
	if err := (&segment.Weights{Whole: straight.Model()}).Write(&a); err != nil {
		t.Fatal(err)
	}
	if err := (&segment.Weights{Whole: second.Model()}).Write(&b); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a.Bytes(), b.Bytes()) {
		t.Error("a resumed run made other weights than one without a stop")
	}
	other := New(Config{Arch: small, Seed: 4, Steps: 12, LearningRate: 4e-3}, 1, newBlobs(small), newBlobs(small))
	if err := other.Load(path); err == nil {
		t.Error("loaded the checkpoint of another seed")
	}
}

// TestFrom: a run that starts with shipped weights starts where they stand, and
// goes on learning.
func TestFrom(t *testing.T) {
	first := newTrainer(300, 2)
	for range 300 {
		first.Step()
	}
	m := first.Model()
	dice := func(m *segment.Model) float64 {
		sc, err := EvaluateBoxes(context.Background(), m, 2, newBlobs(small), 6, anatomy.Brain)
		if err != nil {
			t.Fatal(err)
		}
		return (sc.Dice[14] + sc.Dice[29]) / 2
	}
	before := dice(m)
	wide, both := small, below
	wide.Base *= 2
	both.Wide = 1
	for _, arch := range []segment.Architecture{small, wide, both} {
		second := New(Config{Arch: arch, Seed: 3, Steps: 200, LearningRate: 4e-3}, 2, newBlobs(arch), newBlobs(arch))
		if err := second.From(m, ""); err != nil {
			t.Fatal(err)
		}
		if got := dice(second.Model()); math.Abs(got-before) > .002 {
			t.Errorf("%+v: Dice %.4f at the start, %.4f of the weights", arch, got, before)
		}
		var last StepResult
		for range 200 {
			last = second.Step()
		}
		after := second.Model()
		if got := dice(after); got < before-.01 || math.IsNaN(last.Value) {
			t.Errorf("%+v: Dice %.4f after 200 more steps, %.4f before", arch, got, before)
		}
		if s := after.Provenance.Start; s == nil || *s != (segment.Start{Base: small.Base, Steps: 300}) {
			t.Errorf("%+v: the weights say that they started with %+v", arch, s)
		}
		if err := second.From(m, ""); err == nil {
			t.Error("a run that has begun started anew")
		}
		if arch != small {
			if err := newTrainer(1, 1).From(after, ""); err == nil {
				t.Error("weights of a wider network were taken")
			}
		}
	}
}

// TestCrop: parts of a box that know where they lie show what the whole box
// does. The label says in which half of the box a voxel lies, which the image
// doesn't.
func TestCrop(t *testing.T) {
	box := small
	box.Shape = [3]int{32, 16, 16}
	crops := &halves{newBlobs(small), box}
	tr := New(Config{Arch: box, Crop: small.Shape, Seed: 3, Steps: 300, LearningRate: 4e-3}, 2, crops, &halves{newBlobs(small), box})
	for range 300 {
		tr.Step()
	}
	m := tr.Model()
	if m.Architecture != box {
		t.Fatalf("the weights are for %+v, want %+v", m.Architecture, box)
	}
	sc, err := EvaluateBoxes(context.Background(), m, 2, &halves{newBlobs(box), box}, 1, anatomy.Brain)
	if err != nil {
		t.Fatal(err)
	}
	if sc.Dice[14] < .95 || sc.Dice[29] < .95 {
		t.Errorf("Dice of the halves of the box %.3f and %.3f, want both above .95", sc.Dice[14], sc.Dice[29])
	}
}

// halves are samples of a box without contrast, whose left half is one structure
// and whose right half is another.
type halves struct {
	*blobs
	box segment.Architecture
}

func (h *halves) At(i uint64) Sample {
	clear(h.image)
	s := Sample{Image: h.image, Labels: h.labels}
	most := h.box.Shape[0] - h.arch.Shape[0]
	first := int(i) % (most + 1) // the sample's first voxel in the box
	s.AtMM[0] = (float64(first) - float64(most)/2) * h.box.VoxelMM
	for v := range s.Labels {
		s.Labels[v] = 14
		if first+v%h.arch.Shape[0] >= h.box.Shape[0]/2 {
			s.Labels[v] = 29
		}
	}
	return s
}

//go:embed testdata/gradients.bin
var oracle []byte

// TestGradientsEqualTorch compares loss and every gradient of one step with
// torch's float64 autograd (testdata/oracle.py), for plain and for batch
// renormalisation.
func TestGradientsEqualTorch(t *testing.T) {
	r := bytes.NewReader(oracle)
	read := func(n int) []float32 {
		v := make([]float32, n)
		if err := binary.Read(r, binary.LittleEndian, v); err != nil {
			t.Fatal(err)
		}
		return v
	}
	for _, c := range []struct {
		name string
		arch segment.Architecture
		rn   renorm
	}{
		{"batch norm", small, renorm{RMax: 1, DMax: 0, Momentum: .02}},
		{"batch renorm", small, renorm{RMax: 3, DMax: 2, Momentum: .02}},
		{"logits that hear the level below", below, renorm{RMax: 3, DMax: 2, Momentum: .02}},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNet(c.arch, 2)
			stream := 0
			fill := func(dst []float32, scale, offset float32) {
				copy(dst, noise(stream, len(dst), scale, offset))
				stream++
			}
			for _, b := range n.blocks {
				w := make([]float32, b.Out*(b.Up+b.In)*27)
				fill(w, float32(math.Sqrt(3/(27*float64(b.Up+b.In)))), 0)
				b.weights.SetTorch(w)
				fill(n.params[b.oGamma:b.oGamma+b.Out], .2, 1)
				fill(n.params[b.oBeta:b.oBeta+b.Out], .2, 0)
				fill(n.running[b.oMean:b.oMean+b.Out], .1, 0)
				fill(n.running[b.oVar:b.oVar+b.Out], .1, .3)
			}
			h := n.head(n.params)
			fill(h.W, 1, 0)
			fill(h.B, 1, 0)
			fill(h.Up, 1, 0)
			loss := conv.LossConfig{CE: .5, Dice: 1}
			for k := range loss.ClassWeight {
				loss.ClassWeight[k] = 1 + float32(k)/10
			}
			image := noise(1000, small.Voxels(), .5, .5)
			labels := make([]uint8, small.Voxels())
			for i := range labels {
				labels[i] = uint8(i * 7 % 33)
			}
			res := n.gradients(Sample{Image: image, Labels: labels}, loss, c.rn)
			if want := float64(read(1)[0]); math.Abs(res.Value-want) > 1e-6*want {
				t.Errorf("loss %.8f, torch %.8f", res.Value, want)
			}
			compare := func(name string, got []float32) {
				t.Helper()
				diff, norm := 0.0, 0.0
				for i, w := range read(len(got)) {
					diff = math.Hypot(diff, float64(got[i]-w))
					norm = math.Hypot(norm, float64(w))
				}
				if diff > 1e-4*norm {
					t.Errorf("%s: gradient is %.2g of its size %.3g away from torch's", name, diff/norm, norm)
				}
			}
			for _, b := range n.blocks {
				w := b.weights.Torch(n.grads[b.oW : b.oW+b.nW])
				compare(b.Name+" weights", every(w, 31))
				compare(b.Name+" gamma", n.grads[b.oGamma:b.oGamma+b.Out])
				compare(b.Name+" beta", n.grads[b.oBeta:b.oBeta+b.Out])
			}
			g := n.head(n.grads)
			compare("head weights", g.W)
			compare("head bias", g.B)
			compare("head weights of the level below", g.Up)
		})
	}
}

func every(v []float32, n int) []float32 {
	var out []float32
	for i := 0; i < len(v); i += n {
		out = append(out, v[i])
	}
	return out
}

// noise is the hash of testdata/oracle.py.
func noise(stream, n int, scale, offset float32) []float32 {
	v := make([]float32, n)
	for i := range v {
		h := uint32(uint64(i) + uint64(stream)*0x9E3779B1)
		h ^= h >> 16
		h *= 0x7FEB352D
		h ^= h >> 15
		h *= 0x846CA68B
		h ^= h >> 16
		v[i] = float32(float64(h)/(1<<31)-1)*scale + offset
	}
	return v
}
