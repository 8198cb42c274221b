package train

import (
	"bytes"
	"context"
	"math"
	"path/filepath"
	"testing"

	"neuroscreen/internal/anatomy"
	"neuroscreen/internal/segment"
)

// undecided is a network that has learnt too little of blobs to be sure.
func undecided() *segment.Model {
	tr := newTrainer(700, 2)
	for range 150 {
		tr.Step()
	}
	return tr.Model()
}

func newBordersTrainer(m *segment.Model, seed uint64) *BordersTrainer {
	return NewBorders(BordersConfig{Hidden: []int{32}, Seed: seed, Steps: 60, LearningRate: 4e-3}, m, 2, newBlobs(small), newBlobs(small))
}

// TestBordersLearn: what is read again becomes better, by the weights as they ship; stopping,
// saving and loading changes no bit of them.
func TestBordersLearn(t *testing.T) {
	m := undecided()
	dice := func(m *segment.Model) float64 {
		sc, err := EvaluateBoxes(context.Background(), m, 2, newBlobs(small), 6, anatomy.Brain)
		if err != nil {
			t.Fatal(err)
		}
		return (sc.Dice[14] + sc.Dice[29]) / 2
	}
	tr := newBordersTrainer(m, 3)
	before := dice(m)
	if got := dice(tr.Model()); got != before {
		t.Errorf("Dice %.4f at the start, %.4f of the network", got, before)
	}
	path := filepath.Join(t.TempDir(), "checkpoint")
	for i := range 60 {
		if i == 25 {
			if err := tr.Save(path); err != nil {
				t.Fatal(err)
			}
		}
		tr.Step()
	}
	after := dice(tr.Model())
	t.Logf("Dice %.4f before, %.4f after", before, after)
	if after < before+.01 {
		t.Errorf("Dice %.4f after 60 steps, %.4f before", after, before)
	}
	resumed := newBordersTrainer(m, 3)
	if err := resumed.Load(path); err != nil {
		t.Fatal(err)
	}
	for resumed.Steps() < 60 {
		resumed.Step()
	}
	var a, b bytes.Buffer
	for to, m := range map[*bytes.Buffer]*segment.Model{&a: tr.Model(), &b: resumed.Model()} {
		if err := (&segment.Weights{Whole: m}).Write(to); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(a.Bytes(), b.Bytes()) {
		t.Error("a resumed run made other weights than one without a stop")
	}
	if err := newBordersTrainer(m, 4).Load(path); err == nil {
		t.Error("loaded the checkpoint of another seed")
	}
	other := *m
	other.HeadB = append([]float32{m.HeadB[0] + 1}, m.HeadB[1:]...)
	if err := newBordersTrainer(&other, 3).Load(path); err == nil {
		t.Error("loaded the checkpoint of another network's borders")
	}
}

// TestBordersGradient compares gradients with finite differences of the loss.
func TestBordersGradient(t *testing.T) {
	tr := newBordersTrainer(undecided(), 5)
	tr.Step() // until then nothing goes back through the last layer
	picked := tr.draw(99)[:500]
	tr.learn(picked)
	grads := append([]float32(nil), tr.grads...)
	compared := 0
	for i := 0; i < len(tr.params); i += 101 {
		const h = 1e-2
		was := tr.params[i]
		tr.params[i] = was + h
		up := tr.learn(picked)
		tr.params[i] = was - h
		down := tr.learn(picked)
		tr.params[i] = was
		want := (up - down) / (2 * h)
		if math.Abs(want-float64(grads[i])) > 2e-5+.02*math.Abs(want) {
			t.Errorf("parameter %d: gradient %g, by differences %g", i, grads[i], want)
		}
		if want != 0 {
			compared++
		}
	}
	if compared < 20 {
		t.Errorf("only %d parameters had a gradient", compared)
	}
}
