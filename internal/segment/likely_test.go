package segment

import (
	"math"
	"math/rand/v2"
	"testing"
)

// of is a voxel with some posteriors; background has the rest.
func of(classes map[int]float32) (l Likely) {
	p, background, set := make([]float32, Logits), float32(1), uint32(0)
	for k, v := range classes {
		p[k-1] = v
		background -= v
		set |= 1 << (k - 1)
	}
	l.choose(background, set, p)
	return l
}

func TestLikelyChoose(t *testing.T) {
	for _, c := range []struct {
		name    string
		classes map[int]float32
		want    [likely]uint8
	}{
		{"nothing is background", nil, [likely]uint8{}},
		{"half and a bit", map[int]float32{14: .51}, [likely]uint8{14}},
		{"background leads", map[int]float32{14: .3, 29: .2}, [likely]uint8{0, 14, 29}},
		{"in their order", map[int]float32{1: .2, 2: .4, 32: .3}, [likely]uint8{2, 32, 1, 0}},
		{"the fifth goes", map[int]float32{1: .3, 2: .25, 3: .1, 4: .2, 5: .15}, [likely]uint8{1, 2, 4, 5}},
	} {
		got := of(c.classes)
		if got.Class != c.want {
			t.Errorf("%s: %v, want %v", c.name, got.Class, c.want)
		}
		for k, v := range c.classes {
			if p := got.of(uint8(k)); p != v && !(p == 0 && v <= got.P[likely-1]) {
				t.Errorf("%s: class %d has %g, want %g", c.name, k, p, v)
			}
		}
	}
}

func TestLikelyWithout(t *testing.T) {
	l := of(map[int]float32{1: .3, 14: .6})
	if m := l.without(); m.Class[0] != 1 || math.Abs(float64(m.P[0])-.75) > 1e-6 || math.Abs(float64(m.of(0))-.25) > 1e-6 {
		t.Errorf("%v without its first is %v", l, m)
	}
	l = of(map[int]float32{14: 1})
	if m := l.without(); m.Class[0] != 0 || m.P[0] != 1 {
		t.Errorf("%v without its first is %v, want background", l, m)
	}
}

// The mean with the mirror image is that of all 33 posteriors, as far as four of
// each say.
func TestLikelyMean(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		var dense [2][1 + Logits]float64
		var l [2]Likely
		for s := range l {
			classes := map[int]float32{}
			left := float32(1)
			for range r.IntN(likely) { // with background, no more than are kept
				k := 1 + r.IntN(Logits)
				if _, ok := classes[k]; !ok {
					classes[k] = left * r.Float32()
					left -= classes[k]
				}
			}
			dense[s][0] = 1
			for k, v := range classes {
				dense[s][k] = float64(v)
				dense[s][0] -= float64(v)
			}
			l[s] = of(classes)
		}
		m := l[0].mean(&l[1], .5, &otherSide)
		for i, c := range m.Class {
			want := (dense[0][c] + dense[1][otherSide[c]]) / 2
			if m.P[i] > 0 && math.Abs(float64(m.P[i])-want) > negligible {
				t.Fatalf("%v and the mirror image %v: class %d has %g, want %g", l[0], l[1], c, m.P[i], want)
			}
			if i > 0 && m.P[i] > m.P[i-1] {
				t.Fatalf("%v is not in order", m)
			}
		}
		for c := range dense[0] {
			want := (dense[0][c] + dense[1][otherSide[c]]) / 2
			if m.of(uint8(c)) == 0 && want > max(float64(m.P[likely-1]), negligible)+1e-6 {
				t.Fatalf("%v lacks class %d with %g", m, c, want)
			}
		}
	}
}
