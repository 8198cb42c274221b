package synth

import (
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"neuroscreen/internal/anatomy"
	"neuroscreen/internal/testdata"
)

func clone(s *Sample) Sample {
	return Sample{slices.Clone(s.Image), slices.Clone(s.Labels), s.Drawn}
}

func equal(a, b *Sample) bool {
	return a.Drawn == b.Drawn && slices.Equal(a.Image, b.Image) && slices.Equal(a.Labels, b.Labels)
}

func TestSampleIsTheSame(t *testing.T) {
	t.Parallel()
	cfg := Default([3]int{40, 48, 40}, 4)
	var first [12]Sample
	g := New(artificial(), cfg, 7)
	for i := range first {
		first[i] = clone(g.Sample(uint64(i)))
	}
	t.Run("in another order", func(t *testing.T) {
		for _, i := range []int{11, 3, 3, 0, 7} {
			if !equal(g.Sample(uint64(i)), &first[i]) {
				t.Errorf("sample %d differs when drawn again", i)
			}
		}
	})
	t.Run("from generators side by side", func(t *testing.T) {
		var wg sync.WaitGroup
		for w := range 4 {
			wg.Go(func() {
				g := New(artificial(), cfg, 7)
				for i := w; i < len(first); i += 4 {
					if !equal(g.Sample(uint64(i)), &first[i]) {
						t.Errorf("sample %d differs from another generator", i)
					}
				}
			})
		}
		wg.Wait()
	})
	t.Run("but not for another seed or number", func(t *testing.T) {
		if equal(New(artificial(), cfg, 8).Sample(0), &first[0]) || equal(&first[0], &first[1]) {
			t.Error("different samples are equal")
		}
	})
}

func TestSampleRange(t *testing.T) {
	t.Parallel()
	n := [3]int{40, 48, 40}
	g := New(artificial(), Default(n, 4), 3)
	var seen [anatomy.NumClasses]bool
	for i := range uint64(40) {
		s := g.Sample(i)
		for j, v := range s.Image {
			if !(v >= 0 && v <= 1.2) {
				t.Fatalf("sample %d: value %g at %d: %+v", i, v, j, s.Drawn)
			}
		}
		for _, k := range s.Labels {
			if int(k) >= len(seen) {
				t.Fatalf("sample %d: class %d", i, k)
			}
			seen[k] = true
		}
		top := quantile(everyThird(nil, s.Image, n), .998)
		if math.Abs(float64(top)-1) > .005 {
			t.Errorf("sample %d: 99.8th percentile %.4f instead of 1", i, top)
		}
	}
	for _, name := range []string{"Unknown", "Left-Hippocampus", "Right-Hippocampus", "CSF", "Brain-Stem"} {
		if s, _ := anatomy.ByName(name); !seen[s.Class] {
			t.Errorf("no sample holds %s", name)
		}
	}
}

func TestSampleReusesMemory(t *testing.T) {
	g := New(artificial(), Default([3]int{16, 18, 16}, 10), 1)
	i := uint64(0)
	draw := func() {
		g.Sample(i % 40)
		i++
	}
	for range 40 {
		draw()
	}
	// A few numbers are new: the amounts of warps are solved for.
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 40 {
		draw()
	}
	runtime.ReadMemStats(&after)
	if n := (after.TotalAlloc - before.TotalAlloc) / 40; n > 8<<10 {
		t.Errorf("%d bytes a sample after warming up", n)
	}
}

func TestMirrorSwapsSides(t *testing.T) {
	t.Parallel()
	plain := drawn(t, 0, func(c *Config) {})
	mirrored := drawn(t, 0, func(c *Config) { c.Mirror = 1 })
	if plain.Drawn.Mirrored || !mirrored.Drawn.Mirrored {
		t.Fatal("Drawn does not say which is mirrored")
	}
	nx := stillShape[0]
	for i, k := range plain.Labels {
		j := i - i%nx + nx - 1 - i%nx
		if got, want := mirrored.Labels[j], uint8(anatomy.Structures[k].Mirror); got != want {
			t.Fatalf("mirror of voxel %d is class %d instead of %d", i, got, want)
		}
	}
	// The artificial head's right hippocampus is larger; mirrored, its left is.
	if countClass(mirrored.Labels, 14) <= countClass(mirrored.Labels, 29) {
		t.Error("sizes did not change sides")
	}
}

func TestPoseMovesTheHead(t *testing.T) {
	t.Parallel()
	brain := func(s *Sample) (c [3]float64, n float64) {
		for i, k := range s.Labels {
			if k != 0 && k != csf {
				p := [3]int{i % stillShape[0], i / stillShape[0] % stillShape[1], i / stillShape[0] / stillShape[1]}
				for a := range 3 {
					c[a] += float64(p[a]) * stillMM
				}
				n++
			}
		}
		for a := range 3 {
			c[a] /= n
		}
		return c, n
	}
	c0, n0 := brain(drawn(t, 0, func(c *Config) {}))
	t.Run("shift", func(t *testing.T) {
		c, n := brain(drawn(t, 0, func(c *Config) { c.ShiftMM = Range{6, 6} }))
		for a := range 3 {
			// The sample reads the map 6 mm further on, so the head lies back.
			if math.Abs(c[a]-c0[a]+6) > .1 {
				t.Errorf("axis %d: moved by %.2f mm", a, c[a]-c0[a])
			}
		}
		if math.Abs(n/n0-1) > .002 {
			t.Errorf("volume changed by %.4f", n/n0)
		}
	})
	t.Run("scale", func(t *testing.T) {
		if _, n := brain(drawn(t, 0, func(c *Config) { c.Scale = Range{.9, .9} })); math.Abs(n/n0/(.9*.9*.9)-1) > .003 {
			t.Errorf("volume is %.4f of the whole", n/n0)
		}
	})
	t.Run("rotation", func(t *testing.T) {
		s := drawn(t, 0, func(c *Config) { c.RotationDeg = Range{20, 20} })
		if _, n := brain(s); math.Abs(n/n0-1) > .003 {
			t.Errorf("volume changed by %.4f", n/n0)
		}
		same := 0
		for i, k := range drawn(t, 0, func(c *Config) {}).Labels {
			if s.Labels[i] == k {
				same++
			}
		}
		if same > len(s.Labels)*9/10 {
			t.Error("nothing turned")
		}
	})
}

// A box off the middle is a piece of the whole.
func TestMiddle(t *testing.T) {
	t.Parallel()
	change := func(c *Config) { c.RotationDeg, c.Scale = Range{5, 5}, Range{1.1, 1.1} }
	whole := drawn(t, 0, change)
	cfg := still([3]int{20, 30, 10}, stillMM)
	change(&cfg)
	from := [3]int{10, 20, 30}
	for a := range 3 {
		cfg.MiddleMM[a] = (float64(from[a]) + float64(cfg.Shape[a]-1)/2 - float64(stillShape[a]-1)/2) * stillMM
	}
	piece := New(artificial(), cfg, 1).Sample(0)
	different := 0
	for i, k := range piece.Labels {
		x, y, z := i%20+from[0], i/20%30+from[1], i/600+from[2]
		if whole.Labels[(z*stillShape[1]+y)*stillShape[0]+x] != k {
			different++
		}
	}
	if different > len(piece.Labels)/200 { // rounding at borders
		t.Errorf("%d of %d labels differ", different, len(piece.Labels))
	}
}

// A box round one side's region finds the left one, wherever the head lies and
// whichever side of the map it comes from.
func TestSideBoxes(t *testing.T) {
	t.Run("inner structures", func(t *testing.T) { testSideBox(t, Inner(Default)([3]int{32, 48, 40}, 2), anatomy.Inner, 3.5) })
	t.Run("half of the brain", func(t *testing.T) { testSideBox(t, Half(Default)([3]int{56, 104, 104}, 2), anatomy.Half, 7) })
}

// testSideBox allows so many mm more than the jitter, for what bends and shrinks
// the region otherwise than its middle.
func testSideBox(t *testing.T, cfg Config, classes []anatomy.Class, slack float64) {
	t.Parallel()
	cfg.Cut = 0
	var in [anatomy.NumClasses]int
	for _, k := range classes {
		in[k], in[anatomy.Structures[k].Mirror] = 1, -1
	}
	g := New(artificial(), cfg, 5)
	for i := range uint64(30) {
		s := g.Sample(i)
		var sum [3]float64
		left, right := 0.0, 0.0
		for o, k := range s.Labels {
			switch in[k] {
			case 1:
				sum[0] += float64(o % cfg.Shape[0])
				sum[1] += float64(o / cfg.Shape[0] % cfg.Shape[1])
				sum[2] += float64(o / cfg.Shape[0] / cfg.Shape[1])
				left++
			case -1:
				right++
			}
		}
		if left == 0 || right > left {
			t.Fatalf("sample %d: %.0f voxels of the left side's structures, %.0f of the right's", i, left, right)
		}
		for a, n := range cfg.Shape {
			off := (sum[a]/left-float64(n-1)/2)*cfg.VoxelMM + cfg.MiddleMM[a]
			if math.Abs(off) > cfg.MiddleJitterMM.Hi+slack {
				t.Errorf("sample %d: structures lie %.1f mm off along axis %d", i, off, a)
			}
		}
	}
}

// A deformation that folds would tear labels; the determinant of its Jacobian
// is positive everywhere when it does not.
func TestDeformationsDoNotFold(t *testing.T) {
	t.Parallel()
	cfg := Default([3]int{8, 8, 8}, 20)
	cfg.CoarseBendMM.Lo, cfg.FineBendMM.Lo = cfg.CoarseBendMM.Hi, cfg.FineBendMM.Hi
	cfg.CoarseKnots.Hi, cfg.FineKnots.Hi = cfg.CoarseKnots.Lo, cfg.FineKnots.Lo
	cfg.Medial, cfg.Ventricle, cfg.Sulci, cfg.Sizes = 1, 1, 1, 1
	g := New(artificial(), cfg, 1)
	moved := 0.0
	for i := range uint64(15) {
		g.Sample(i)
		for _, u := range g.flow.u {
			for _, x := range u {
				moved = max(moved, math.Abs(float64(x)))
			}
		}
		if least := g.flow.leastDeterminant(); least <= 0 {
			t.Fatalf("sample %d folds: determinant %.3f", i, least)
		}
	}
	if moved < 5 {
		t.Errorf("the strongest deformation moves %.1f mm at most", moved)
	}
}

func TestLocalChange(t *testing.T) {
	t.Parallel()
	before := drawn(t, 0, func(c *Config) {}).Labels
	for _, c := range []struct {
		name    string
		change  func(*Config)
		classes []uint8
		targets []Target
	}{
		{"hippocampi shrink by 40 %", func(c *Config) { c.Medial, c.MedialVolume = 1, Range{.6, .6} }, []uint8{14, 29}, []Target{LeftHippocampus, RightHippocampus}},
		{"hippocampi shrink by 15 %", func(c *Config) { c.Medial, c.MedialVolume = 1, Range{.85, .85} }, []uint8{14, 29}, []Target{LeftHippocampus, RightHippocampus}},
		{"amygdalae", func(c *Config) { c.Medial, c.MedialVolume = 1, Range{.7, .7} }, []uint8{15, 30}, []Target{LeftAmygdala, RightAmygdala}},
		{"ventricles double", func(c *Config) { c.Ventricle, c.VentricleVolume = 1, Range{2, 2} }, []uint8{3, 21}, []Target{LeftVentricle, RightVentricle}},
		{"ventricles halve", func(c *Config) { c.Ventricle, c.VentricleVolume = 1, Range{.5, .5} }, []uint8{3, 21}, []Target{LeftVentricle, RightVentricle}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := drawn(t, 0, c.change)
			for i, class := range c.classes {
				got := math.Log(float64(countClass(s.Labels, class)) / float64(countClass(before, class)))
				// Aimed at, not promised: the smooth shapes here answer more
				// strongly than those of people.
				if want := s.Drawn.Changed[c.targets[i]]; got/want < .4 || got/want > 1.7 {
					t.Errorf("class %d: log share %.3f, aimed at %.3f", class, got, want)
				}
			}
		})
	}
	t.Run("one side", func(t *testing.T) {
		s := drawn(t, 0, func(c *Config) { c.Medial, c.MedialOneSide, c.MedialVolume = 1, 1, Range{.6, .6} })
		left := math.Log(float64(countClass(s.Labels, 14)) / float64(countClass(before, 14)))
		right := math.Log(float64(countClass(s.Labels, 29)) / float64(countClass(before, 29)))
		if math.Abs(left-right) < .25 || min(left, right) > -.3 {
			t.Errorf("log shares %.3f and %.3f", left, right)
		}
	})
	t.Run("fluid takes the room", func(t *testing.T) {
		cfg := still(stillShape, stillMM)
		before := slices.Clone(New(horned(), cfg, 1).Sample(0).Labels)
		cfg.Medial, cfg.MedialApart, cfg.MedialVolume, cfg.MedialFluid = 1, 1, Range{.7, .7}, Range{.8, .8}
		s := New(horned(), cfg, 1).Sample(0)
		grown := func(class uint8) float64 { return float64(countClass(s.Labels, class) - countClass(before, class)) }
		for side, class := range [][3]uint8{{14, 15, 4}, {29, 30, 22}} {
			lost := -grown(class[0])
			if horn := grown(class[2]); horn < .4*lost || horn > 1.2*lost {
				t.Errorf("side %d: the horn gains %.0f of %.0f voxels", side, horn, lost)
			}
			if amygdala := grown(class[1]); math.Abs(amygdala) > .15*lost {
				t.Errorf("side %d: the amygdala changes by %.0f voxels, of %.0f lost beside it", side, amygdala, lost)
			}
		}
	})
	t.Run("sulci widen", func(t *testing.T) {
		s := drawn(t, 0, func(c *Config) { c.Sulci, c.BrainVolume = 1, Range{.94, .94} })
		fluid := float64(countClass(s.Labels, csf)) / float64(countClass(before, csf))
		inside := float64(len(s.Labels)-countClass(s.Labels, 0)) / float64(len(before)-countClass(before, 0))
		if fluid < 1.1 || math.Abs(inside-1) > .02 {
			t.Errorf("CSF %.3f of what it was, the cranial cavity %.3f", fluid, inside)
		}
	})
}

// TestSizes: nuclei and ventricles of real maps come to the sizes aimed at.
func TestSizes(t *testing.T) {
	t.Parallel()
	m, err := LoadMaps(testdata.Shared(t, "labelmaps"), "01", "05", "09")
	if err != nil {
		t.Fatal(err)
	}
	cfg := still(stillShape, 1.3)
	cfg.SizeSD = Range{.12, .12}
	var along, squares [numTargets]float64
	for i := range uint64(12) {
		cfg.Sizes = 0
		before := slices.Clone(New(m, cfg, 7).Sample(i).Labels)
		cfg.Sizes = 1
		s := New(m, cfg, 7).Sample(i)
		for target, labels := range targetLabels {
			aim := s.Drawn.Changed[target]
			if aim == 0 {
				continue
			}
			class := classOf[0][tissueIndex[labels[0]]]
			along[target] += aim * math.Log(float64(countClass(s.Labels, class))/float64(countClass(before, class)))
			squares[target] += aim * aim
		}
	}
	changed := 0
	for target, sq := range squares {
		if sq == 0 {
			continue
		}
		changed++
		if slope := along[target] / sq; slope < .5 || slope > 1.5 {
			t.Errorf("label %d: changes by %.2f of what is aimed at", targetLabels[target][0], slope)
		}
	}
	if changed != 12 {
		t.Errorf("%d structures have sizes of their own, want 12", changed)
	}
}

func TestT1Intensities(t *testing.T) {
	t.Parallel()
	cfg := Default([3]int{40, 48, 40}, 4)
	cfg.T1, cfg.Strip, cfg.Cut, cfg.BiasSD = 1, 0, 0, Range{}
	g := New(artificial(), cfg, 5)
	right := 0
	const draws = 40
	for i := range uint64(draws) {
		s := g.Sample(i)
		of := func(class uint8) float64 { return meanWhere(s.Image, func(i int) bool { return s.Labels[i] == class }) }
		if white, grey, fluid := of(1), of(2), of(csf); white > grey && grey > fluid {
			right++
		}
	}
	if right < draws*85/100 {
		t.Errorf("white matter > cortex > CSF in %d of %d T1 draws", right, draws)
	}
	cfg.T1 = 0
	g = New(artificial(), cfg, 5)
	right = 0
	for i := range uint64(draws) {
		s := g.Sample(i)
		if s.Drawn.T1 {
			t.Fatal("T1 drawn at probability 0")
		}
		of := func(class uint8) float64 { return meanWhere(s.Image, func(i int) bool { return s.Labels[i] == class }) }
		if white, grey, fluid := of(1), of(2), of(csf); white > grey && grey > fluid {
			right++
		}
	}
	if right > draws*40/100 {
		t.Errorf("T1's order in %d of %d draws of any contrast", right, draws)
	}
}

func TestSidesShareIntensities(t *testing.T) {
	t.Parallel()
	for _, t1 := range []float64{0, 1} {
		g := New(artificial(), Config{Shape: [3]int{8, 8, 8}, VoxelMM: 20, T1: t1, T1Spread: Range{1, 1}, LabelSpread: Range{5, 5}, TissueSD: Range{1, 1}}, 1)
		r, deep := random(4), random(5)
		l := g.drawLook(&r, &deep, &Drawn{})
		for i, x := range tissues {
			if j := tissueIndex[x.mirror]; l.mean[i] != l.mean[j] || l.sd[i] != l.sd[j] {
				t.Errorf("labels %d and %d differ", x.label, x.mirror)
			}
		}
		if l.mean[tissueIndex[17]] == l.mean[tissueIndex[3]] {
			t.Error("hippocampus and cortex always share an intensity")
		}
	}
}

func TestDeepGrey(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		deep Range
		want float64 // share of the way from cortex to white matter
	}{{Range{}, 0}, {Range{.5, .5}, .5}, {Range{1, 1}, 1}} {
		g := New(artificial(), Config{Shape: [3]int{8, 8, 8}, VoxelMM: 20, T1: 1, DeepGrey: c.deep}, 1)
		r, deep := random(4), random(5)
		l := g.drawLook(&r, &deep, &Drawn{})
		at := func(label int) float64 { return float64(l.mean[tissueIndex[label]]) }
		share := func(label int) float64 { return (at(label) - at(3)) / (at(2) - at(3)) }
		for label := range deepGrey {
			if got := share(label); math.Abs(got-c.want) > 1e-5 {
				t.Errorf("%v: label %d lies at %.3f between cortex and white matter, want %g", c.deep, label, got, c.want)
			}
		}
		if got := share(12); math.Abs(got-.434) > .001 {
			t.Errorf("%v: putamen, which has a prior of its own, moved to %.3f", c.deep, got)
		}
	}
}

func TestTexture(t *testing.T) {
	t.Parallel()
	// Correlation of neighbours along x within white matter.
	neighbours := func(texture float64) (sd, corr float64) {
		image, s := raw(t, 1, func(c *Config) { c.TissueSD, c.Texture = Range{1, 1}, texture })
		in := func(i int) bool { return s.Labels[i] == 1 && i > 0 && s.Labels[i-1] == 1 }
		mean := meanWhere(image, in)
		var a, b, n float64
		for i := range image {
			if in(i) {
				x, y := float64(image[i])-mean, float64(image[i-1])-mean
				a += x * x
				b += x * y
				n++
			}
		}
		return math.Sqrt(a / n), b / a
	}
	sd, white := neighbours(0)
	if sd < 3 {
		t.Errorf("white matter varies by %.2f", sd)
	}
	if math.Abs(white) > .2 {
		t.Errorf("white noise is correlated: %.3f", white)
	}
	if _, c := neighbours(1); c < .3 {
		t.Errorf("texture's correlation is %.3f", c)
	}
}

func TestBordersMix(t *testing.T) {
	t.Parallel()
	image, s := raw(t, 0, func(c *Config) {})
	var l look
	g := New(artificial(), still(stillShape, stillMM), 1)
	r, deep := stream(1, 0, forTissue), stream(1, 0, forDeepGrey)
	l = *g.drawLook(&r, &deep, &Drawn{})
	white, grey := l.mean[tissueIndex[2]], l.mean[tissueIndex[3]]
	mixed, pure := 0, 0
	for i, k := range s.Labels {
		if k != 1 {
			continue
		}
		switch v := image[i]; {
		case v == white:
			pure++
		case v > min(white, grey) && v < max(white, grey):
			mixed++
		}
	}
	if mixed < 500 || pure < 5*mixed {
		t.Errorf("%d white-matter voxels mixed with cortex, %d pure", mixed, pure)
	}
}

// TestImagesShowLabels asks how well the labels of held-out maps could be told
// from clean images in which each structure has its own brightness: by the class
// with the largest share of a voxel's signal. No network knows so much; what is
// missing is lost by drawing.
func TestImagesShowLabels(t *testing.T) {
	t.Parallel()
	m, err := LoadMaps(testdata.Shared(t, "labelmaps"), "04", "08", "12", "17")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ centre, least, most float64 }{{0, .88, .93}, {.2, .96, 1}} {
		cfg := Half(Evaluation)([3]int{80, 176, 144}, 1)
		cfg.Centre = c.centre
		g := New(m, cfg, 2)
		var both, told, drawn [anatomy.NumClasses]float64
		for i := range uint64(2) {
			p := g.drawPose(i, &Drawn{})
			most, by := make([]float32, len(g.image)), make([]uint8, len(g.image))
			for k := range anatomy.NumClasses {
				var l look
				for t := range tissues {
					if int(classOf[side(p.mirrored)][t]) == k {
						l.mean[t] = 1
					}
				}
				texture := stream(2, i, forTexture)
				g.paint(p, &l, &texture)
				for v, share := range g.image {
					if share > most[v] {
						most[v], by[v] = share, uint8(k)
					}
				}
			}
			for v, k := range g.out.Labels {
				told[by[v]]++
				drawn[k]++
				if by[v] == k {
					both[k]++
				}
			}
		}
		mean, n := 0.0, 0.0
		for k, s := range anatomy.Structures {
			if strings.HasPrefix(s.Name, "Left-") {
				mean += 2 * both[k] / (told[k] + drawn[k])
				n++
			}
		}
		mean /= n
		t.Logf("share of the centre %g: mean Dice of the %.0f structures of a side %.3f", c.centre, n, mean)
		if mean < c.least || mean > c.most {
			t.Errorf("share of the centre %g: mean Dice %.3f, want %g to %g", c.centre, mean, c.least, c.most)
		}
	}
}

func TestDuraAndPatches(t *testing.T) {
	t.Parallel()
	plain, s := raw(t, 2, func(c *Config) {})
	dura, d := raw(t, 2, func(c *Config) { c.Dura = 1 })
	if !d.Drawn.Dura {
		t.Fatal("no dura drawn")
	}
	changed, deep := 0, 0
	for i := range plain {
		if plain[i] != dura[i] {
			changed++
			if k := s.Labels[i]; k != 0 && k != csf {
				deep++
			}
		}
	}
	if changed < 1000 || deep > changed/100 {
		t.Errorf("dura changes %d voxels, %d of them brain", changed, deep)
	}
	patched, _ := raw(t, 2, func(c *Config) { c.Patches, c.PatchSD = 1, Range{40, 40} })
	outside, inside := 0, 0
	for i := range plain {
		if plain[i] != patched[i] {
			if s.Labels[i] == 0 {
				outside++
			} else {
				inside++
			}
		}
	}
	// CSF next to bone may hold a corner of it, but its centre is CSF.
	if outside < 10000 || inside > 0 {
		t.Errorf("patches change %d voxels outside the skull, %d inside", outside, inside)
	}
}

func TestLesions(t *testing.T) {
	t.Parallel()
	before, a := raw(t, 0, func(c *Config) {})
	after, b := raw(t, 0, func(c *Config) { c.Lesions, c.LesionCount, c.LesionRadius = 1, Range{8, 8}, Range{4, 4} })
	if b.Drawn.Lesions != 8 {
		t.Fatalf("%d lesions", b.Drawn.Lesions)
	}
	if !slices.Equal(a.Labels, b.Labels) {
		t.Error("lesions change labels")
	}
	changed := 0
	for i := range before {
		if before[i] != after[i] {
			changed++
			if !isWhite(a.Labels[i]) {
				t.Fatalf("a lesion in class %d", a.Labels[i])
			}
			if before[i] > 120 && after[i] > before[i] {
				t.Fatalf("a lesion brightens white matter from %g to %g", before[i], after[i])
			}
		}
	}
	if changed < 100 {
		t.Errorf("%d voxels changed", changed)
	}
}

// How often each thing is drawn.
func TestFrequencies(t *testing.T) {
	t.Parallel()
	cfg := Default([3]int{6, 6, 6}, 25)
	g := New(artificial(), cfg, 11)
	const draws = 160
	count := map[string]int{}
	kinds := map[Strip]int{}
	for i := range uint64(draws) {
		d := g.Sample(i).Drawn
		for name, yes := range map[string]bool{
			"mirrored": d.Mirrored, "T1": d.T1, "medial": d.Changed[LeftHippocampus] != 0, "ventricle": d.Changed[LeftVentricle] != 0,
			"sulci": d.Changed[Brain] != 0, "sizes": d.Changed[LeftThalamus] != 0, "noise": d.NoiseSD > 0, "ghost": d.Ghosted, "strip": d.Strip != Whole, "cut": d.Cut,
			"long neck": d.LongNeck, "black air": d.BlackAir, "texture": d.Texture, "dura": d.Dura,
		} {
			if yes {
				count[name]++
			}
		}
		kinds[d.Strip]++
	}
	for name, p := range map[string]float64{
		"mirrored": cfg.Mirror, "T1": cfg.T1, "medial": cfg.Medial, "ventricle": cfg.Ventricle, "sulci": cfg.Sulci, "sizes": cfg.Sizes,
		"noise": cfg.Noise, "ghost": cfg.Ghost, "strip": cfg.Strip, "cut": cfg.Cut, "long neck": cfg.LongNeck,
		"black air": cfg.BlackAir, "texture": cfg.Texture, "dura": cfg.Dura,
	} {
		if got := float64(count[name]) / draws; math.Abs(got-p) > 4*math.Sqrt(p*(1-p)/draws) {
			t.Errorf("%s: %.3f of samples, want about %.2f", name, got, p)
		}
	}
	for k := Loose; k < numStrips; k++ {
		if kinds[k] < draws/20 {
			t.Errorf("strip kind %d: %d of %d", k, kinds[k], draws)
		}
	}
}
