package synth

import (
	"math"
	"os"
	"reflect"
	"testing"

	"neuroscreen/internal/anatomy"
	"neuroscreen/internal/testdata"
	"neuroscreen/internal/volume"
)

// TestMorph: parts of a morph take a head that way, whose ventricles are as
// many times larger.
func TestMorph(t *testing.T) {
	t.Parallel()
	m := &Maps{list: []*labelMap{artificialMap("one", nil), artificialMap("other", map[int]float64{4: 1.25, 17: .9})}}
	measure := func(only int, part float64) (ventricle, hippocampus float64) {
		cfg := still(stillShape, stillMM)
		if part != 0 {
			// To the only other map, in parts.
			cfg.Morph, cfg.MorphPart = 1, Range{part / morphsAHead, part / morphsAHead}
		}
		g := New(m, cfg, 1)
		for i := range uint64(20) {
			if s := g.Sample(i); s.Drawn.Map == m.list[only].name {
				if s.Drawn.Morphed != (part != 0) {
					t.Fatalf("sample %d: morphed %v", i, s.Drawn.Morphed)
				}
				if least := g.flow.leastDeterminant(); least < .2 {
					t.Errorf("part %g: determinant %.2f", part, least)
				}
				return float64(countClass(s.Labels, 3)), float64(countClass(s.Labels, 14))
			}
		}
		t.Fatal("never drawn")
		return 0, 0
	}
	v0, h0 := measure(0, 0)
	v1, h1 := measure(1, 0)
	for _, part := range []float64{-.3, .5, 1} {
		v, h := measure(0, part)
		gone := math.Log(v/v0) / math.Log(v1/v0)
		if math.Abs(gone-part) > .25 {
			t.Errorf("part %g: ventricles went %.2f of the way (%.0f, %.0f, %.0f voxels)", part, gone, v0, v, v1)
		}
		if gone := math.Log(h/h0) / math.Log(h1/h0); math.Abs(gone-part) > .4 {
			t.Errorf("part %g: hippocampi went %.2f of the way (%.0f, %.0f, %.0f voxels)", part, gone, h0, h, h1)
		}
	}
}

// TestMorphsAreKept: what an earlier run kept is taken instead of being found
// again, if it is whole and of the same maps.
func TestMorphsAreKept(t *testing.T) {
	t.Parallel()
	maps := func(tissue uint8) *Maps {
		m := &Maps{list: []*labelMap{{data: []uint8{1}}, {data: []uint8{tissue}}}}
		m.KeepIn(t.TempDir())
		return m
	}
	first, again := maps(2), maps(2)
	again.folder = first.folder
	r := stream(1, 2, 3)
	for _, l := range first.list {
		v := make([][3]float32, latticeLen)
		for i := range v {
			v[i] = [3]float32{float32(r.normal()), float32(r.normal()), float32(r.normal())}
		}
		l.morphs = [][][3]float32{v}
	}
	path := first.keptPath()
	first.keep(path)
	again.relate()
	for i, l := range again.list {
		if !reflect.DeepEqual(l.morphs, first.list[i].morphs) {
			t.Errorf("the morphs of map %d are not those that were kept", i)
		}
	}
	if maps(3).keptPath() == path {
		t.Error("other maps' morphs would be taken")
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	file[len(file)/2] ^= 1
	for name, bad := range map[string][]byte{"damaged": file, "cut": file[:len(file)/3], "empty": nil} {
		if err := os.WriteFile(path, bad, 0o644); err != nil {
			t.Fatal(err)
		}
		if again.readKept(path) {
			t.Errorf("a %s file was taken", name)
		}
	}
}

// TestMorphBetweenPeople: a registration brings structures of real anatomy
// nearer than their places, sizes and tilts do, without folding.
func TestMorphBetweenPeople(t *testing.T) {
	m, err := LoadMaps(testdata.Shared(t, "labelmaps"), "01", "02")
	if err != nil {
		t.Fatal(err)
	}
	one, other := m.list[0], m.list[1]
	p := newMorpher(one)
	to := affineBetween(one.centres(), other.centres())
	p.shares(p.moved, one, volume.Identity)
	p.shares(p.wanted, other, volume.Identity)
	stored := p.overlap()
	p.shares(p.wanted, other, to)
	aligned := p.overlap()
	p.towards(other, to)
	p.move()
	morphed := p.overlap()
	t.Logf("overlap %.2f as stored, %.2f aligned, %.2f morphed", stored, aligned, morphed)
	if !(stored < aligned-.1 && aligned < morphed-.08) {
		t.Error("structures did not come nearer")
	}
	if least := p.flow.leastDeterminant(); least < .2 {
		t.Errorf("determinant %.2f", least)
	}
}

// overlap is the mean share that is where it is wanted, over the lattice points
// inside the other's skull.
func (p *morpher) overlap() float64 {
	outside := p.group[air]
	var same, all float64
	for i := range p.moved {
		if p.wanted[i][outside] > .5 {
			continue
		}
		all++
		for g := range p.moved[i] {
			same += float64(min(p.moved[i][g], p.wanted[i][g]))
		}
	}
	return same / max(all, 1)
}

func TestAffineBetween(t *testing.T) {
	want := volume.Affine{{1.1, .1, 0, 3}, {-.1, .9, .2, -5}, {0, -.2, 1, 1}, {0, 0, 0, 1}}
	from, to := map[anatomy.Class][3]float64{}, map[anatomy.Class][3]float64{}
	r := stream(1, 1, 1)
	for _, c := range anatomy.Brain[:8] {
		p := [3]float64{20 * r.normal(), 20 * r.normal(), 20 * r.normal()}
		from[c], to[c] = p, want.Apply(p)
	}
	to[20] = [3]float64{1, 2, 3} // of a structure that the other lacks
	got := affineBetween(from, to)
	for i := range want {
		for j := range want[i] {
			if math.Abs(got[i][j]-want[i][j]) > 1e-5 {
				t.Fatalf("got %v, want %v", got, want)
			}
		}
	}
}
