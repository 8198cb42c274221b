package train

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"neuroscreen/internal/anatomy"
	"neuroscreen/internal/segment"
	"neuroscreen/internal/train/synth"
	"neuroscreen/internal/volume"
)

// Perturbation is a way in which the same head may be scanned or stored
// otherwise. Its volumes should stay.
type Perturbation struct {
	Name string
	// One of these makes the other scan: from the scan itself, or, of
	// synthetic heads alone, by drawing the head again.
	Change func(v *volume.Volume, r *rand.Rand) *volume.Volume
	Redraw func(o *synth.HeadOptions)

	Mirrors bool // left and right must exchange
	// The largest relative change that is aimed at; 0 is none at all, NaN says
	// that no aim is set.
	Hippocampus, ICV float64
}

var noAim = math.NaN()

// Perturbations that Stability measures. Lengths are in mm along right, front
// and top.
var Perturbations = []Perturbation{
	{Name: "stored as LPS", Change: storedAlong([3]int{0, 1, 2}, [3]bool{true, true, false})},
	{Name: "stored as PIR", Change: storedAlong([3]int{1, 2, 0}, [3]bool{true, true, false})},
	{Name: "stored as SLA", Change: storedAlong([3]int{2, 0, 1}, [3]bool{false, true, false})},
	{Name: "mirrored", Change: mirroredHead, Mirrors: true, Hippocampus: noAim, ICV: noAim},
	{Name: "nodded by 10 degrees", Change: turned(0, 10), Hippocampus: .03, ICV: noAim},
	{Name: "tilted by 10 degrees", Change: turned(1, 10), Hippocampus: .03, ICV: noAim},
	{Name: "shifted", Change: shifted([3]float64{5.3, -7.7, 9.1}), Hippocampus: .03, ICV: noAim},
	{Name: "1.5 mm voxels", Change: resliced([3]float64{1.5, 1.5, 1.5}), Hippocampus: .03, ICV: noAim},
	{Name: "1 x 1 x 3 mm voxels", Change: resliced([3]float64{1, 1, 3}), Hippocampus: .06, ICV: noAim},
	{Name: "bias field x3", Change: biased(3), Hippocampus: .03, ICV: noAim},
	{Name: "noise of 4 %", Change: noisy(.04), Hippocampus: .03, ICV: noAim},
	{Name: "stripped loosely", Redraw: func(o *synth.HeadOptions) { o.Strip = synth.Loose }, Hippocampus: noAim, ICV: .03},
	{Name: "stripped tightly", Redraw: func(o *synth.HeadOptions) { o.Strip = synth.Tight }, Hippocampus: noAim, ICV: .06},
}

func storedAlong(axis [3]int, flip [3]bool) func(*volume.Volume, *rand.Rand) *volume.Volume {
	return func(v *volume.Volume, _ *rand.Rand) *volume.Volume {
		can, _ := volume.Canonical(v)
		return volume.Reorientation{Axis: axis, Flip: flip}.Volume(can)
	}
}

// mirroredHead exchanges left and right in the image, not in its affine.
func mirroredHead(v *volume.Volume, _ *rand.Rand) *volume.Volume {
	can, _ := volume.Canonical(v)
	m := volume.Reorientation{Axis: [3]int{0, 1, 2}, Flip: [3]bool{true, false, false}}.Volume(can)
	return &volume.Volume{Grid: can.Grid, Data: m.Data}
}

// turned turns the head about one axis of the patient, round the grid's
// middle, on a grid that is wide enough.
func turned(axis int, degrees float64) func(*volume.Volume, *rand.Rand) *volume.Volume {
	return func(v *volume.Volume, _ *rand.Rand) *volume.Volume {
		can, _ := volume.Canonical(v)
		grid := covering(can.Grid, can.VoxelSize(), 24)
		rot := volume.Identity
		s, c := math.Sincos(degrees * math.Pi / 180)
		a, b := (axis+1)%3, (axis+2)%3
		rot[a][a], rot[a][b], rot[b][a], rot[b][b] = c, -s, s, c
		middle := can.Centre()
		turnedMiddle := rot.Apply(middle)
		for i := range middle {
			rot[i][3] = middle[i] - turnedMiddle[i]
		}
		return seenFrom(can, volume.Grid{Shape: grid.Shape, Affine: rot.Mul(grid.Affine)}, grid)
	}
}

func shifted(mm [3]float64) func(*volume.Volume, *rand.Rand) *volume.Volume {
	return func(v *volume.Volume, _ *rand.Rand) *volume.Volume {
		can, _ := volume.Canonical(v)
		grid := covering(can.Grid, can.VoxelSize(), 12)
		from := grid
		for a := range mm {
			from.Affine[a][3] += mm[a]
		}
		return seenFrom(can, from, grid)
	}
}

// seenFrom samples v at one grid and says that it lies on another.
func seenFrom(v *volume.Volume, at, grid volume.Grid) *volume.Volume {
	out := volume.Resample(v, at, volume.Options{Sigma: volume.AntiAlias(at, v.Grid)})
	out.Grid = grid
	return out
}

func resliced(mm [3]float64) func(*volume.Volume, *rand.Rand) *volume.Volume {
	return func(v *volume.Volume, _ *rand.Rand) *volume.Volume {
		can, _ := volume.Canonical(v)
		grid := covering(can.Grid, mm, 0)
		return seenFrom(can, grid, grid)
	}
}

// covering is a grid with the axes and the middle of g, other voxels, and some
// mm more on each side.
func covering(g volume.Grid, voxel [3]float64, marginMM float64) volume.Grid {
	size := g.VoxelSize()
	step := volume.Identity // voxels of the new grid to those of g
	out := volume.Grid{}
	for a := range 3 {
		out.Shape[a] = int(math.Round((float64(g.Shape[a])*size[a] + 2*marginMM) / voxel[a]))
		step[a][a] = voxel[a] / size[a]
		step[a][3] = (float64(g.Shape[a]-1) - float64(out.Shape[a]-1)*step[a][a]) / 2
	}
	out.Affine = g.Affine.Mul(step)
	return out
}

// biased multiplies by a smooth field whose largest value is so many times its
// smallest.
func biased(times float64) func(*volume.Volume, *rand.Rand) *volume.Volume {
	return func(v *volume.Volume, r *rand.Rand) *volume.Volume {
		var wave [3][]float64
		reach := 0.0
		for a, n := range v.Shape {
			phase := r.Float64()
			for i := range n {
				wave[a] = append(wave[a], math.Cos(math.Pi*(float64(i)/float64(n)+phase)))
			}
			reach += slices.Max(wave[a]) - slices.Min(wave[a])
		}
		out := volume.New(v.Grid)
		at := 0
		for z := range v.Shape[2] {
			for y := range v.Shape[1] {
				for x := range v.Shape[0] {
					f := (wave[0][x] + wave[1][y] + wave[2][z]) / reach
					out.Data[at] = v.Data[at] * float32(math.Exp(math.Log(times)*f))
					at++
				}
			}
		}
		return out
	}
}

// noisy adds Rician noise; share is the SD over the 98th percentile, which is
// near white matter's intensity.
func noisy(share float64) func(*volume.Volume, *rand.Rand) *volume.Volume {
	return func(v *volume.Volume, r *rand.Rand) *volume.Volume {
		sd := share * float64(volume.Percentiles(v.Data, 98)[0])
		out := volume.New(v.Grid)
		for i, x := range v.Data {
			out.Data[i] = float32(math.Hypot(float64(x)+sd*r.NormFloat64(), sd*r.NormFloat64()))
		}
		return out
	}
}

// Change is what a perturbation did to one head: relative changes of volumes.
type Change struct {
	Perturbation string
	Hippocampus  [2]float64 // left and right, signed; of a mirrored head against the other side's
	Structures   float64    // mean over the 31 structures, without signs
	ICV          float64    // signed
	WrongSide    int        // pairs of structures whose left one lies on the right
}

// HeadStability is what one head showed.
type HeadStability struct {
	Name      string
	WrongSide int // of the head as it is
	Changes   []Change
	// Voxels is the volume, which is counted in the networks' boxes, over that of
	// the voxels labelled on the scan's grid, less 1, by class.
	Voxels [anatomy.NumClasses]float64
}

// Perturb segments a head as it is and perturbed in every way that applies to
// it. redraw draws a synthetic head with changed options; nil is for real
// heads. The same seed gives the same perturbations.
func Perturb(ctx context.Context, n *segment.Network, name string, v *volume.Volume, redraw func(change func(*synth.HeadOptions)) (*volume.Volume, error), seed uint64) (*HeadStability, error) {
	base, err := n.Segment(ctx, v)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	h := &HeadStability{Name: name, WrongSide: wrongSide(base.Labels), Voxels: overVoxels(base)}
	for i, p := range Perturbations {
		var w *volume.Volume
		switch {
		case p.Change != nil:
			w = p.Change(v, rand.New(rand.NewPCG(seed, uint64(i))))
		case redraw == nil:
			continue
		default:
			if w, err = redraw(p.Redraw); err != nil {
				return nil, err
			}
		}
		s, err := n.Segment(ctx, w)
		if err != nil {
			return nil, fmt.Errorf("%s, %s: %w", name, p.Name, err)
		}
		h.Changes = append(h.Changes, change(p, base, s))
	}
	return h, nil
}

func change(p Perturbation, base, s *segment.Segmentation) Change {
	c := Change{Perturbation: p.Name, ICV: s.ICVMM3/base.ICVMM3 - 1, WrongSide: wrongSide(s.Labels)}
	var relative [anatomy.NumClasses]float64
	for k, st := range anatomy.Structures {
		from := k
		if p.Mirrors {
			from = int(st.Mirror)
		}
		relative[k] = s.MM3[k]/base.MM3[from] - 1
		if k > 0 && st.Class != anatomy.CSF {
			c.Structures += math.Abs(relative[k]) / (anatomy.NumClasses - 2)
		}
	}
	l, _ := anatomy.ByName("Left-Hippocampus")
	c.Hippocampus = [2]float64{relative[l.Class], relative[l.Mirror]}
	return c
}

// wrongSide counts the pairs of structures whose left one does not lie further
// left in the patient than the right one.
func wrongSide(l *volume.Labels) int {
	var sum, count [anatomy.NumClasses]float64
	across := l.Affine[0] // of voxel i, j, k, 1
	at := 0
	for z := range l.Shape[2] {
		for y := range l.Shape[1] {
			for x := range l.Shape[0] {
				if label := l.Data[at]; label != 0 {
					class := anatomy.ClassOf[label]
					sum[class] += across[0]*float64(x) + across[1]*float64(y) + across[2]*float64(z)
					count[class]++
				}
				at++
			}
		}
	}
	wrong := 0
	for k, s := range anatomy.Structures {
		if s.Side == anatomy.Left && !(sum[k]/count[k] < sum[s.Mirror]/count[s.Mirror]) {
			wrong++
		}
	}
	return wrong
}

func overVoxels(s *segment.Segmentation) (ratio [anatomy.NumClasses]float64) {
	var count [anatomy.NumClasses]float64
	for _, label := range s.Labels.Data {
		count[anatomy.ClassOf[label]]++
	}
	for k := 1; k < anatomy.NumClasses; k++ {
		ratio[k] = s.MM3[k]/(count[k]*s.Labels.VoxelMM3()) - 1
	}
	return ratio
}

// Atrophy is what was measured of hippocampi that were shrunk.
type Atrophy struct {
	Head string
	// Taken and Measured are shares of the intact head's volume, by side and
	// step: what the drawn labels lost, and what the measured volume did.
	Taken, Measured [2][]float64
	// Missed is where the loss of the last step is not seen: what of it still
	// goes by the hippocampi at their border with each structure, as a share of
	// what was taken. Of pairs the left one's class stands for both.
	Missed [anatomy.NumClasses]float64
}

// atrophySteps are shares of the hippocampi that are taken away.
var atrophySteps = []float64{.05, .10, .20, .30}

// MeasureAtrophy draws a head with intact hippocampi and with less and less of
// both, and measures each.
func MeasureAtrophy(ctx context.Context, n *segment.Network, m *synth.Maps, o synth.HeadOptions) (*Atrophy, error) {
	var truth, measured [2][]float64
	var excess [][anatomy.NumClasses]float64
	l, _ := anatomy.ByName("Left-Hippocampus")
	for _, taken := range append([]float64{0}, atrophySteps...) {
		o.Share = map[synth.Target]float64{synth.LeftHippocampus: 1 - taken, synth.RightHippocampus: 1 - taken}
		v, labels, err := m.Head(o)
		if err != nil {
			return nil, err
		}
		s, err := n.Segment(ctx, v)
		if err != nil {
			return nil, err
		}
		for side, k := range []anatomy.Class{l.Class, l.Mirror} {
			truth[side] = append(truth[side], float64(countOf(labels.Data, uint8(anatomy.Structures[k].Label))))
			measured[side] = append(measured[side], s.MM3[k])
		}
		excess = append(excess, over(s.Labels.Data, labels.Data, l.Class))
	}
	last := len(atrophySteps)
	a := &Atrophy{Head: o.Map}
	for k := range a.Missed {
		a.Missed[k] = (excess[last][k] - excess[0][k]) / (truth[0][0] + truth[1][0] - truth[0][last] - truth[1][last])
	}
	for side := range 2 {
		for i := 1; i < len(truth[side]); i++ {
			a.Taken[side] = append(a.Taken[side], 1-truth[side][i]/truth[side][0])
			a.Measured[side] = append(a.Measured[side], 1-measured[side][i]/measured[side][0])
		}
	}
	return a, nil
}

// over counts, by the other structure, the voxels that labels give to a structure
// or its mirror too many, less those too few.
func over(labels, truth []uint8, of anatomy.Class) (n [anatomy.NumClasses]float64) {
	var left [256]anatomy.Class // of each label, the class of the left of its pair
	for _, s := range anatomy.Structures {
		left[s.Label] = min(s.Class, s.Mirror)
	}
	for i, l := range labels {
		is, was := left[l], left[truth[i]]
		switch {
		case is == of && was != of:
			n[was]++
		case is != of && was == of:
			n[is]--
		}
	}
	return n
}

func countOf(labels []uint8, label uint8) (n int) {
	for _, l := range labels {
		if l == label {
			n++
		}
	}
	return n
}

// Slope of the measured loss of one side over the true one, through the intact
// head: least squares.
func (a *Atrophy) Slope(side int) float64 {
	xy, xx := 0.0, 0.0
	for i, x := range a.Taken[side] {
		xy += x * a.Measured[side][i]
		xx += x * x
	}
	return xy / xx
}

// Spread is the median and the largest of values without their signs.
func Spread(values []float64) (median, worst float64) {
	if len(values) == 0 {
		return math.NaN(), math.NaN()
	}
	abs := make([]float64, len(values))
	for i, v := range values {
		abs[i] = math.Abs(v)
	}
	slices.Sort(abs)
	return (abs[(len(abs)-1)/2] + abs[len(abs)/2]) / 2, abs[len(abs)-1]
}
