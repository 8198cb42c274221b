package fmri

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"neuroscreen/internal/anatomy"
)

func all(frames int) []bool {
	kept := make([]bool, frames)
	for t := range kept {
		kept[t] = true
	}
	return kept
}

func TestLocalMeasures(t *testing.T) {
	f := load(t).Local
	s := &Series{Frames: f.Frames, Voxels: f.Voxels, Data: f.Data}
	n := &Nuisance{Kept: all(f.Frames), StopBand: StopBand(f.Frames, f.TR, PassBand)}
	alff, falff := Amplitudes(s, n.Design(true, false), n.Design(false, false))
	wantClose(t, "ALFF", alff, f.ALFF, 1e-5)
	wantClose(t, "fALFF", falff, f.FALFF, 1e-5)
	wantClose(t, "ReHo", ReHo(s, f.Shape), f.ReHo, 1e-6)
}

// TestAmplitudesOfWhiteNoise: neither its length nor what was scrubbed and
// cleaned out of it changes how strongly a signal fluctuates.
func TestAmplitudesOfWhiteNoise(t *testing.T) {
	const tr, voxels = 2.0, 400
	// The band's share of the spectrum up to the Nyquist frequency.
	want := math.Sqrt((PassBand.High - PassBand.Low) * 2 * tr)
	for _, c := range []struct {
		name             string
		frames, scrubbed int
		nuisance         bool
	}{
		{name: "nothing taken out", frames: 200},
		{name: "nothing but scrubbed frames", frames: 200, scrubbed: 15},
		{name: "motion and tissues", frames: 200, nuisance: true},
		{name: "motion, tissues and scrubbed frames", frames: 200, scrubbed: 15, nuisance: true},
		{name: "a long run", frames: 600, nuisance: true},
		{name: "a long run, scrubbed", frames: 600, scrubbed: 60, nuisance: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(5, uint64(c.frames)))
			motion, outlier := make([]Motion, c.frames), make([]bool, c.frames)
			for n := 1; n < c.frames; n++ {
				for a := range 3 {
					motion[n].MM[a] = motion[n-1].MM[a] + 0.03*rng.NormFloat64()
					motion[n].Rad[a] = motion[n-1].Rad[a] + 0.0005*rng.NormFloat64()
				}
			}
			for n := range c.scrubbed {
				outlier[5+n*c.frames/(c.scrubbed+1)] = true
			}
			n := &Nuisance{Kept: Scrub(outlier), StopBand: StopBand(c.frames, tr, PassBand)}
			if c.nuisance {
				n.Motion, n.HighPass = MotionRegressors(motion), Cosines(c.frames, tr, HighPassSeconds)
				for range 2 * ComponentsEach {
					x := make([]float64, c.frames)
					for i := range x {
						x[i] = rng.NormFloat64()
					}
					n.WhiteMatter = append(n.WhiteMatter, x)
				}
			}
			s := seriesOf(c.frames, noise(voxels*c.frames, 1000, 10, 6))
			band := n.Design(true, false)
			if band.DegreesOfFreedom < MinDegreesOfFreedom || len(band.Frames) != c.frames-c.scrubbed {
				t.Fatalf("%d degrees of freedom, %d frames", band.DegreesOfFreedom, len(band.Frames))
			}
			alff, falff := Amplitudes(s, band, n.Design(false, false))
			a, f := 0.0, 0.0
			for v := range voxels {
				a, f = a+float64(alff[v])/voxels, f+float64(falff[v])/voxels
			}
			t.Logf("ALFF %.4f %%, fALFF %.4f, want %.4f; %d degrees of freedom", a, f, want, band.DegreesOfFreedom)
			// Of a noise of 1 %, both are the band's share.
			if math.Abs(a/want-1) > 0.025 || math.Abs(f/want-1) > 0.025 {
				t.Errorf("ALFF %.4f %%, fALFF %.4f, want %.4f", a, f, want)
			}
		})
	}
}

func TestReHoOfTheSameSignal(t *testing.T) {
	s := &Series{Frames: 50}
	one := noise(50, 0, 1, 3)
	for at := range 27 {
		s.Voxels = append(s.Voxels, int32(at))
		s.Data = append(s.Data, one...)
	}
	for n, w := range ReHo(s, [3]int{3, 3, 3}) {
		switch i, j, k := n%3, n/3%3, n/9; {
		case i == 1 && j == 1 || j == 1 && k == 1 || i == 1 && k == 1: // faces and the middle
			if math.Abs(float64(w)-1) > 1e-6 {
				t.Errorf("voxel %d: W %g, want 1", n, w)
			}
		case i != 1 && j != 1 && k != 1:
			if w != 0 {
				t.Errorf("a corner with 8 neighbours has W %g", w)
			}
		}
	}
}

func nodesOf(frames int, data []float64) (nodes []Node) {
	for x := range slices.Chunk(data, frames) {
		nodes = append(nodes, Node{Signal: x})
	}
	return nodes
}

func TestConnectome(t *testing.T) {
	f := load(t).Connectome
	d := NewDesign(all(f.Frames))
	c := Connect(nodesOf(f.Frames, f.Data), d)
	wantClose(t, "r", slices.Concat(c.R...), f.R, 1e-8)
	wantClose(t, "z", slices.Concat(c.Z...), f.Z, 1e-7)
	wantClose(t, "split half", []float64{c.SplitHalf, c.Reliability, c.StandardError},
		[]float64{f.SplitHalf, 2 * f.SplitHalf / (1 + f.SplitHalf), 1 / math.Sqrt(float64(f.Frames-3))}, 1e-8)

	g := NewGraph(c.R, GraphDensity)
	if !slices.Equal(g.Degree, f.Degree) {
		t.Errorf("degrees %v, want %v", g.Degree, f.Degree)
	}
	wantClose(t, "strength", g.Strength, f.Strength, 1e-7)
	wantClose(t, "clustering", g.Clustering, f.Clustering, 1e-7)
	wantClose(t, "path length, connected, modularity", []float64{g.PathLength, g.Connected, g.Modularity},
		[]float64{f.PathLength, f.Connected, f.Modularity}, 1e-7)
	communities := make([][]int, slices.Max(g.Module)+1)
	for n, m := range g.Module {
		communities[m] = append(communities[m], n)
	}
	if fmt.Sprint(communities) != fmt.Sprint(f.Communities) {
		t.Errorf("modules %v, networkx has %v", communities, f.Communities)
	}
}

func TestConnectNeedsDegreesOfFreedom(t *testing.T) {
	f := load(t).Connectome
	nodes := nodesOf(f.Frames, f.Data)
	few := NewDesign(all(f.Frames), StopBand(f.Frames, 2, Band{0.05, 0.07}))
	if few.DegreesOfFreedom >= MinDegreesOfFreedom {
		t.Fatalf("%d degrees of freedom", few.DegreesOfFreedom)
	}
	if c := Connect(nodes, few); c != nil {
		t.Error("a connectome of too few degrees of freedom")
	}
	if c := Connect(nodes[:2], NewDesign(all(f.Frames))); c != nil {
		t.Error("a connectome of two nodes")
	}
}

func TestGraphWithoutEdges(t *testing.T) {
	g := NewGraph([][]float64{{1, -.2, -.3}, {-.2, 1, -.1}, {-.3, -.1, 1}}, 1)
	if g.Density != 0 || g.PathLength != 0 || g.Connected != 0 || g.Modularity != 0 || !slices.Equal(g.Module, []int{0, 1, 2}) {
		t.Errorf("%+v", g)
	}
}

func TestNodes(t *testing.T) {
	labels := make([]uint8, 30)
	s := &Series{Frames: 2}
	for at := range labels {
		labels[at] = []uint8{17, 24, 0, 53, 17}[at%5]
		s.Voxels = append(s.Voxels, int32(at))
		s.Data = append(s.Data, float32(at), 1)
	}
	labels[3] = 2
	nodes := Nodes(s, labels)
	if len(nodes) != 2 || nodes[0].Name != "Left-Hippocampus" || nodes[0].Voxels != 12 || nodes[1].Name != "Right-Hippocampus" || nodes[1].Voxels != 5 {
		t.Fatalf("nodes %+v", nodes)
	}
	// Left: 0, 4, 5, 9, ... 29; right: 8, 13, ... 28.
	if nodes[0].Signal[0] != 14.5 || nodes[1].Signal[0] != 18 || nodes[0].Signal[1] != 1 {
		t.Errorf("signals %v, %v", nodes[0].Signal, nodes[1].Signal)
	}
	white, _ := anatomy.ByLabel(2)
	if w := (Node{Structure: white}); !nodes[0].Grey() || w.Grey() {
		t.Error("the hippocampus is grey, white matter is not")
	}
}
