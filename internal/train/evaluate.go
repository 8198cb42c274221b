package train

import (
	"context"
	"math"
	"strings"

	"neuroscreen/internal/anatomy"
	"neuroscreen/internal/segment"
	"neuroscreen/internal/volume"
)

// Scores of labels against the truth.
type Scores struct {
	Dice          [anatomy.NumClasses]float64 // over all samples together, by class
	Mean          float64                     // of the structures asked for
	Hippocampus   float64                     // of those among them
	RelativeError [anatomy.NumClasses]float64 // of the volume: root mean square over the samples
	Bias          [anatomy.NumClasses]float64 // of the volume: mean relative error
}

// tally adds up what Scores need, voxel by voxel.
type tally struct {
	both, ours, truth, errors, squares, counted [anatomy.NumClasses]float64
}

// minVoxels is the least a structure must hold in a sample for the error of its
// volume to count: less is a structure that was cut away.
const minVoxels = 10

// add compares the classes of a sample. The volumes measured, in voxels, are
// the counts of got unless they are given.
func (t *tally) add(got, want []uint8, measured *[anatomy.NumClasses]float64) {
	var ours, truth [anatomy.NumClasses]float64
	for v, l := range want {
		c := got[v]
		ours[c]++
		truth[l]++
		if c == l {
			t.both[c]++
		}
	}
	if measured == nil {
		measured = &ours
	}
	for k := range truth {
		t.ours[k] += ours[k]
		t.truth[k] += truth[k]
		if truth[k] >= minVoxels {
			e := measured[k]/truth[k] - 1
			t.errors[k] += e
			t.squares[k] += e * e
			t.counted[k]++
		}
	}
}

func (t *tally) scores(of []anatomy.Class) (sc Scores) {
	for k := range sc.Dice {
		sc.Dice[k] = 2 * t.both[k] / max(1, t.ours[k]+t.truth[k])
		sc.Bias[k] = t.errors[k] / max(1, t.counted[k])
		sc.RelativeError[k] = math.Sqrt(t.squares[k] / max(1, t.counted[k]))
	}
	hippocampi := 0.0
	for _, k := range of {
		sc.Mean += sc.Dice[k] / float64(len(of))
		if strings.HasSuffix(anatomy.Structures[k].Name, "-Hippocampus") {
			sc.Hippocampus += sc.Dice[k]
			hippocampi++
		}
	}
	sc.Hippocampus /= max(hippocampi, 1)
	return sc
}

// EvaluateBoxes scores one network on samples 0 to count-1 of its own box, by the
// structures that it is for.
func EvaluateBoxes(ctx context.Context, m *segment.Model, threads int, from Sampler, count int, judged []anatomy.Class) (Scores, error) {
	u := segment.NewUNet(m, threads)
	classes := make([]segment.Likely, m.Architecture.Voxels())
	got := make([]uint8, m.Architecture.Voxels())
	var t tally
	for i := range count {
		s := from.At(uint64(i))
		if err := u.Classify(ctx, s.Image, classes); err != nil {
			return Scores{}, err
		}
		for v := range got {
			got[v] = classes[v].Class[0]
		}
		t.add(got, s.Labels, nil)
	}
	return t.scores(judged), nil
}

// Heads are whole synthetic scans of some kinds: number i is number i/n of kind
// i%n.
type Heads []HeadKind

// HeadKind draws scans on one grid.
type HeadKind struct {
	Sampler
	Grid volume.Grid
}

// HeadGrid holds a whole head in cubic voxels.
func HeadGrid(mm float64) volume.Grid {
	g := volume.Grid{Affine: volume.Scaling([3]float64{mm, mm, mm})}
	for a, size := range [3]float64{176, 208, 176} {
		g.Shape[a] = int(math.Round(size / mm))
		g.Affine[a][3] = -float64(g.Shape[a]-1) / 2 * mm
	}
	return g
}

// At returns scan i, the class of each of its voxels, and the map that it was drawn
// from.
func (h Heads) At(i int) (*volume.Volume, []uint8, string) {
	kind := h[i%len(h)]
	s := kind.Sampler.At(uint64(i / len(h)))
	return &volume.Volume{Grid: kind.Grid, Data: s.Image}, s.Labels, s.Map
}

// EvaluateHeads scores the networks together, on scans 0 to count-1, segmented
// as the product does: all scans, and those of each map.
func EvaluateHeads(ctx context.Context, n *segment.Network, h Heads, count int) (all Scores, byMap map[string]Scores, err error) {
	var t tally
	of := map[string]*tally{}
	for i := range count {
		scan, labels, name := h.At(i)
		s, err := n.Segment(ctx, scan)
		if err != nil {
			return all, nil, err
		}
		measured := s.MM3
		for k := range measured {
			measured[k] /= scan.VoxelMM3()
		}
		if of[name] == nil {
			of[name] = &tally{}
		}
		got := classes(s.Labels.Data)
		t.add(got, labels, &measured)
		of[name].add(got, labels, &measured)
	}
	byMap = map[string]Scores{}
	for name, m := range of {
		byMap[name] = m.scores(anatomy.Brain)
	}
	return t.scores(anatomy.Brain), byMap, nil
}

// classes of FreeSurfer's labels, in place.
func classes(labels []uint8) []uint8 {
	for i, l := range labels {
		labels[i] = uint8(anatomy.ClassOf[l])
	}
	return labels
}
