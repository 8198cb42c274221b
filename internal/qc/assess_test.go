package qc

import (
	"maps"
	"slices"
	"testing"

	"neuroscreen"
	"neuroscreen/internal/anatomy"
	"neuroscreen/internal/volume"
)

// good is the phantom as a scan that passes.
func good() (phantom, Measured) {
	p := newPhantom()
	v := p.image(t1)
	addRice(v, 3)
	return p, p.measured(v)
}

func TestAssess(t *testing.T) {
	signals := func(s [kinds]float64) func(phantom, *Measured) {
		return func(p phantom, m *Measured) {
			m.Image = p.image(s)
			addRice(m.Image, 3)
		}
	}
	relabel := func(f func(label uint8, i, j, k int) uint8) func(phantom, *Measured) {
		return func(p phantom, m *Measured) {
			g := p.labels.Grid
			for o, label := range p.labels.Data {
				p.labels.Data[o] = f(label, o%g.Shape[0], o/g.Shape[0]%g.Shape[1], o/g.Shape[0]/g.Shape[1])
			}
			m.MM3 = p.mm3()
		}
	}
	scale := func(name string, by float64) func(phantom, *Measured) {
		return func(_ phantom, m *Measured) {
			s, _ := anatomy.ByName(name)
			m.MM3[s.Class] *= by
		}
	}
	crop := func(axis, from, to int) func(phantom, *Measured) {
		return func(_ phantom, m *Measured) { m.Image, m.Labels = cropped(m.Image, m.Labels, axis, from, to) }
	}
	tests := []struct {
		name    string
		edit    func(phantom, *Measured)
		verdict neuroscreen.Verdict // "" for a refusal
		want    []string
	}{
		{"a good head", nil, neuroscreen.VerdictPass, nil},
		{"stripped", func(p phantom, m *Measured) { p.stripped(m.Image) }, neuroscreen.VerdictReview, []string{SkullStripped}},
		{"in a template's space", func(_ phantom, m *Measured) { m.InTemplate = true }, neuroscreen.VerdictReview, []string{TemplateSpace}},
		{"stripped, and the network is lost", func(p phantom, m *Measured) { p.stripped(m.Image); m.Confidence = 0.4 }, neuroscreen.VerdictRefuse, []string{"unsure-labels", SkullStripped}},

		{"T2", signals([kinds]float64{0, 60, 10, 200, 100, 70}), "", []string{NotT1}},
		{"proton density", signals([kinds]float64{0, 60, 10, 140, 120, 100}), "", []string{NotT1}},
		{"FLAIR", signals([kinds]float64{0, 60, 10, 25, 110, 90}), "", []string{NotT1}},
		{"anisotropy", signals([kinds]float64{0, 5, 5, 20, 40, 120}), "", []string{NotT1}},
		{"bright ventricles", signals([kinds]float64{0, 160, 15, 100, 80, 110}), "", []string{NotT1}},
		{"patches instead of tissue contrast", func(p phantom, m *Measured) {
			for o := range m.Image.Data {
				i, j, k := o%m.Image.Shape[0], o/m.Image.Shape[0]%m.Image.Shape[1], o/m.Image.Shape[0]/m.Image.Shape[1]
				if p.kind[o] >= greyKind {
					m.Image.Data[o] += float32((i/6*7+j/6*5+k/6*3)%13-6) * 10
				}
			}
		}, "", []string{NotT1}},
		{"no signal at all", func(_ phantom, m *Measured) { m.Image = volume.New(m.Image.Grid) }, "", []string{NotT1}},
		{"little contrast", signals([kinds]float64{0, 160, 15, 30, 103, 106.6}), neuroscreen.VerdictRefuse, []string{"noise", "blurred-tissues", LowContrast}},

		{"nothing labelled", relabel(func(uint8, int, int, int) uint8 { return 0 }), "", []string{NotABrain}},
		{"a monkey", func(p phantom, m *Measured) {
			for i := range m.MM3 {
				m.MM3[i] *= 0.08
			}
		}, "", []string{NotABrain}},
		{"no deep structures", relabel(func(l uint8, _, _, _ int) uint8 {
			if l >= 10 && l <= 18 || l >= 49 && l <= 54 {
				return 2
			}
			return l
		}), "", []string{NotABrain}},
		{"tiny hippocampus", scale("Right-Hippocampus", 0.1), "", []string{ImplausibleSegmentation}},
		{"huge putamen", scale("Left-Putamen", 4), "", []string{ImplausibleSegmentation}},
		{"huge head", scale("CSF", 8), "", []string{ImplausibleSegmentation}},
		{"large head", scale("CSF", 2.7), neuroscreen.VerdictReview, []string{UnusualHeadSize}},
		{"one half smaller", scale("Left-Cerebral-Cortex", 0.7), neuroscreen.VerdictReview, []string{LargeAsymmetry}},
		{"half a brain", scale("Left-Cerebral-White-Matter", 0.4), "", []string{ImplausibleSegmentation}},
		{"left and right mixed up", relabel(func(l uint8, _, _, _ int) uint8 {
			s, _ := anatomy.ByLabel(int(l))
			return uint8(anatomy.Structures[s.Mirror].Label)
		}), "", slices.Repeat([]string{ImplausibleSegmentation}, 12)},

		{"vertex cut off", crop(2, 0, 76), "", []string{FieldOfViewCut}},
		{"vertex touched", crop(2, 0, 82), neuroscreen.VerdictReview, []string{FieldOfViewCut}},
		{"neck cut off below the brain", crop(2, 12, 100), neuroscreen.VerdictPass, nil},
		{"one side cut off", crop(0, 26, 112), "", []string{FieldOfViewCut}},
		{"cropped tightly", func(p phantom, m *Measured) {
			p.stripped(m.Image)
			m.Image, m.Labels = cropped(m.Image, m.Labels, 0, 23, 89)
		}, neuroscreen.VerdictReview, []string{SkullStripped}},

		{"unsure network", func(_ phantom, m *Measured) { m.Confidence = 0.65 }, neuroscreen.VerdictReview, []string{"unsure-labels"}},
		{"lost network", func(_ phantom, m *Measured) { m.Confidence = 0.4 }, neuroscreen.VerdictRefuse, []string{"unsure-labels"}},
		{"mirror image disagrees", func(_ phantom, m *Measured) { m.FlipDice = 0.5 }, neuroscreen.VerdictRefuse, []string{"unstable-labels"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			p, m := good()
			if test.edit != nil {
				test.edit(p, &m)
			}
			q, err := Assess(m)
			if test.verdict == "" {
				checkRefusal(t, err, test.want)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, r := range q.Reasons {
				got = append(got, r.Code)
			}
			if q.Verdict != test.verdict || !slices.Equal(got, test.want) {
				t.Errorf("%s for %v, want %s for %v (%v)", q.Verdict, got, test.verdict, test.want, q.Metrics)
			}
		})
	}
}

// cropped keeps voxels from to to-1 along one voxel axis.
func cropped(v *volume.Volume, l *volume.Labels, axis, from, to int) (*volume.Volume, *volume.Labels) {
	g := v.Grid
	g.Shape[axis] = to - from
	for row := range 3 {
		g.Affine[row][3] += float64(from) * g.Affine[row][axis]
	}
	nv, nl := volume.New(g), volume.NewLabels(g)
	for k := range g.Shape[2] {
		for j := range g.Shape[1] {
			for i := range g.Shape[0] {
				p := [3]int{i, j, k}
				p[axis] += from
				o := v.Index(p[0], p[1], p[2])
				nv.Data[g.Index(i, j, k)], nl.Data[g.Index(i, j, k)] = v.Data[o], l.Data[o]
			}
		}
	}
	return nv, nl
}

// As an image gets worse its metrics must get worse step by step, and the
// verdict go from pass over review to refuse without turning back.
func TestLadders(t *testing.T) {
	blur := func(v *volume.Volume, mm float64) {
		v.Data = volume.Blur(v, [3]float64{0, 0, mm / 2}, 1).Data
	}
	tests := []struct {
		name  string
		steps []float64
		apply func(*volume.Volume, float64)
		rises []string
		falls []string
		last  neuroscreen.Verdict
	}{
		{"noise", []float64{1, 3, 6, 12, 24, 48}, addRice,
			[]string{NoiseToContrast, CJV, EFC}, []string{SNRWhite, SNRGrey, CNR, SNRDietrich, FBER}, neuroscreen.VerdictRefuse},
		{"ghosts", []float64{0, 0.03, 0.06, 0.1, 0.2}, addGhost,
			[]string{GhostPercent, EFC}, []string{FBER}, neuroscreen.VerdictRefuse},
		{"bias", []float64{0, 0.2, 0.5, 1, 2, 5}, addBias,
			[]string{BiasPercent, CJV}, []string{SNRWhite}, neuroscreen.VerdictRefuse},
		{"blur", []float64{0, 2, 4, 6, 9}, blur,
			[]string{BoundaryMM}, nil, neuroscreen.VerdictPass},
	}
	order := []neuroscreen.Verdict{neuroscreen.VerdictPass, neuroscreen.VerdictReview, neuroscreen.VerdictRefuse}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			p := newPhantom()
			var last map[string]float64
			seen := map[neuroscreen.Verdict]bool{}
			worst := 0
			for n, step := range test.steps {
				v := p.image(t1)
				addRice(v, 1)
				test.apply(v, step)
				q, err := Assess(p.measured(v))
				if err != nil {
					t.Fatalf("%s %g: %v", test.name, step, err)
				}
				for _, name := range test.rises {
					if n > 0 && !(q.Metrics[name] > last[name]) {
						t.Errorf("%g: %s falls from %g to %g", step, name, last[name], q.Metrics[name])
					}
				}
				for _, name := range test.falls {
					if n > 0 && !(q.Metrics[name] < last[name]) {
						t.Errorf("%g: %s rises from %g to %g", step, name, last[name], q.Metrics[name])
					}
				}
				if at := slices.Index(order, q.Verdict); at < worst {
					t.Errorf("%g: the verdict gets better again: %s", step, q.Verdict)
				} else {
					worst = at
				}
				seen[q.Verdict] = true
				last = q.Metrics
			}
			if order[worst] != test.last || len(seen) != worst+1 {
				t.Errorf("verdicts %v, want all up to %s", slices.Collect(maps.Keys(seen)), test.last)
			}
		})
	}
}

// A scan turned, mirrored in storage or in another order has the same metrics.
func TestMetricsDoNotDependOnStorage(t *testing.T) {
	_, m := good()
	want, err := Assess(m)
	if err != nil {
		t.Fatal(err)
	}
	turn := volume.Reorientation{Axis: [3]int{2, 0, 1}, Flip: [3]bool{true, false, true}}
	m.Image, m.Labels = turn.Volume(m.Image), turn.Labels(m.Labels)
	got, err := Assess(m)
	if err != nil {
		t.Fatal(err)
	}
	for name, w := range want.Metrics {
		tolerance := 1e-6
		if name == EFC || name == FBER || name == SNRDietrich || name == GhostPercent || name == ExtracranialRatio || name == NoiseToContrast || name == CNR {
			tolerance = 0.03 // these look at every second voxel, or in one plane
		}
		if g := got.Metrics[name]; !(g >= w-tolerance*(1+w) && g <= w+tolerance*(1+w)) {
			t.Errorf("%s is %g, and %g when stored otherwise", name, w, g)
		}
	}
}

// Every limit is of a metric that exists, has its two bounds in order, and
// says its value in words.
func TestLimits(t *testing.T) {
	_, m := good()
	q, err := Assess(m)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range limits {
		if _, ok := q.Metrics[l.metric]; !ok {
			t.Errorf("%s: no such metric", l.metric)
		}
		if l.higherIsWorse != (l.refuse > l.review) {
			t.Errorf("%s: bounds %g and %g", l.metric, l.review, l.refuse)
		}
		for _, step := range []struct {
			value float64
			want  neuroscreen.Verdict
		}{
			{l.review, neuroscreen.VerdictPass},
			{(l.review + l.refuse) / 2, neuroscreen.VerdictReview},
			{l.refuse + (l.refuse-l.review)/2, neuroscreen.VerdictRefuse},
		} {
			r, got := l.judge(map[string]float64{l.metric: step.value})
			if got != step.want {
				t.Errorf("%s = %g: %s, want %s", l.metric, step.value, got, step.want)
			}
			if got != neuroscreen.VerdictPass && (r.Code != l.code || *r.Value != step.value) {
				t.Errorf("%s = %g: %+v", l.metric, step.value, r)
			}
		}
	}
}

func BenchmarkAssess(b *testing.B) {
	_, m := good()
	b.SetBytes(int64(4 * len(m.Image.Data)))
	for b.Loop() {
		if _, err := Assess(m); err != nil {
			b.Fatal(err)
		}
	}
}
