package synth

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"gonum.org/v1/gonum/mat"

	"neuroscreen/internal/anatomy"
	"neuroscreen/internal/volume"
)

// HeadOptions describe one head. The zero value of a field leaves out what it
// would do; sides are those of the finished head.
type HeadOptions struct {
	Map      string // name it was loaded by; "" is the first
	Mirrored bool
	Seed     uint64 // of bends, intensities and noise

	// BendMM is the SD of a smooth random deformation; with about 2 no
	// individual's map is reproduced.
	BendMM float64
	Scale  [3]float64 // along right, front and top, times the map's size; 0 is 1
	// Share gives targets this share of the volume that they would have had
	// otherwise: .8 takes a fifth of a hippocampus away. The inferior horn beside it
	// takes most of the room and the amygdala keeps its volume, unless they have a
	// share of their own.
	Share map[Target]float64

	RotationDeg [3]float64 // of the head about right, front and top
	ShiftMM     [3]float64
	// Oblique turns the grid with the head, so that the head stays straight in
	// the patient's space that the affine describes.
	Oblique bool

	VoxelMM     [3]float64 // along right, front and top; 0 is 1
	Shape       [3]int     // voxels along them; 0 holds the whole map
	Orientation string     // of the stored axes, such as "LPS"; "" is RAS

	NoiseSD    float64 // of 255; white matter is near 160
	BiasSD     float64 // of the logarithm of the field
	GhostShare float64
	Strip      Strip
}

// Head draws one clean T1-weighted head and its labels, FreeSurfer's numbers
// of the structures in package anatomy, on one grid. The middle of the grid
// lies at the middle of the patient's space. Shares are met on the grid's
// voxels, thicker ones aside, to within a few tenths of a per cent.
//
// It returns an error for an unknown map or orientation, and when a share
// cannot be reached.
func (m *Maps) Head(o HeadOptions) (*volume.Volume, *volume.Labels, error) {
	lm := m.list[0]
	if o.Map != "" {
		lm = nil
		for _, l := range m.list {
			if l.name == o.Map {
				lm = l
			}
		}
		if lm == nil {
			return nil, nil, fmt.Errorf("synth: no map %q", o.Map)
		}
	}
	back, err := stored(o.Orientation)
	if err != nil {
		return nil, nil, err
	}
	for a := range 3 {
		if o.VoxelMM[a] == 0 {
			o.VoxelMM[a] = 1
		}
		if o.Shape[a] == 0 {
			o.Shape[a] = int(float64(mapShape[a]) / o.VoxelMM[a])
		}
		if o.Scale[a] == 0 {
			o.Scale[a] = 1
		}
	}
	// Drawn with cubic voxels as fine as the finest side, then thickened.
	mm := min(o.VoxelMM[0], o.VoxelMM[1], o.VoxelMM[2])
	cfg := Evaluation(o.Shape, mm)
	for a := range 3 {
		cfg.Shape[a] = max(2, int(math.Round(float64(o.Shape[a])*o.VoxelMM[a]/mm)))
	}
	cfg.T1Spread, cfg.LabelSpread, cfg.TissueSD = Range{.1, .1}, Range{1, 1}, Range{.3, .3}
	cfg.Texture, cfg.Lesions, cfg.BlackAir = 1, 0, 0
	cfg.Dura, cfg.Patches, cfg.PatchSD = 1, 1, Range{18, 18}
	cfg.BlurVoxels = Range{.3, .3}
	cfg.Noise, cfg.NoiseSD, cfg.Rician = 1, Range{o.NoiseSD, o.NoiseSD}, 1
	cfg.Bias, cfg.BiasSD = 1, Range{o.BiasSD, o.BiasSD}
	if o.GhostShare > 0 {
		cfg.Ghost, cfg.GhostShare = 1, Range{o.GhostShare, o.GhostShare}
	}
	g := New(m, cfg, o.Seed)

	p := pose{m: lm, mirrored: o.Mirrored, floor: -1e6, shift: o.ShiftMM}
	p.turn = turn(o.RotationDeg, o.Scale, [3][3]float64{}, o.Mirrored)
	if err := g.bend(&p, o); err != nil {
		return nil, nil, err
	}
	var d Drawn
	r := stream(o.Seed, 0, forTissue)
	deep := stream(o.Seed, 0, forDeepGrey)
	look := g.drawLook(&r, &deep, &d)
	r = stream(o.Seed, 0, forTexture)
	g.paint(p, look, &r)
	r = stream(o.Seed, 0, forScanner)
	noise := stream(o.Seed, 0, forNoise)
	g.scan(&r, &noise, &d)
	if o.Strip != Whole {
		r = stream(o.Seed, 0, forCut)
		g.strip(&r, o.Strip)
	}

	v := &volume.Volume{Grid: centred(g.n, [3]float64{mm, mm, mm}), Data: g.image}
	l := &volume.Labels{Grid: v.Grid, Data: g.out.Labels}
	for i, k := range l.Data {
		l.Data[i] = uint8(anatomy.Structures[k].Label)
		v.Data[i] = max(v.Data[i], 0)
	}
	if grid := centred(o.Shape, o.VoxelMM); !grid.Near(v.Grid, 1e-6) {
		v = volume.Resample(v, grid, volume.Options{Sigma: volume.AntiAlias(grid, v.Grid)})
		l = volume.ResampleLabels(l, grid, 0)
	}
	if o.Oblique {
		rot := turn(o.RotationDeg, [3]float64{1, 1, 1}, [3][3]float64{}, false)
		a := volume.Affine{3: {3: 1}}
		for i := range 3 {
			copy(a[i][:], rot[i][:])
		}
		v.Affine = a.Mul(v.Affine)
		l.Affine = v.Affine
	}
	return back.Volume(v), back.Labels(l), nil
}

// centred is a grid along RAS with its middle at 0.
func centred(shape [3]int, mm [3]float64) volume.Grid {
	a := volume.Scaling(mm)
	for i := range 3 {
		a[i][3] = -float64(shape[i]-1) / 2 * mm[i]
	}
	return volume.Grid{Shape: shape, Affine: a}
}

// stored returns the reorientation from RAS to axes such as "LPS".
func stored(axes string) (r volume.Reorientation, err error) {
	if axes == "" {
		axes = "RAS"
	}
	seen := [3]bool{}
	for i, c := range axes {
		at := strings.IndexRune("RLAPSI", c)
		if at < 0 || i > 2 || seen[at/2] {
			return r, fmt.Errorf("synth: %q is no orientation", axes)
		}
		seen[at/2] = true
		r.Axis[i], r.Flip[i] = at/2, at%2 == 1
	}
	if seen != [3]bool{true, true, true} {
		return r, fmt.Errorf("synth: %q is no orientation", axes)
	}
	return r, nil
}

// bend sets g.flow to the head's deformation: its random part, and for each
// target the amount of its warp that gives it the share asked for.
func (g *Generator) bend(p *pose, o HeadOptions) error {
	var targets []Target
	flow := func(amounts []float64) {
		clear(g.flow.u)
		if o.BendMM > 0 {
			r := stream(o.Seed, 0, forShape)
			g.flow.addRandom(&r, 45, o.BendMM)
			g.flow.addRandom(&r, 20, o.BendMM*.3)
		}
		for i, t := range targets {
			g.flow.addWarp(&p.m.warps[t], amounts[i])
		}
		g.flow.integrate()
	}
	flow(nil)
	if len(o.Share) == 0 {
		return nil
	}
	var share [numTargets]float64 // of the map's targets; 0 follows its neighbours
	for t, s := range o.Share {
		t = t.sided(p.mirrored)
		if len(p.m.warps[t].at) == 0 || s <= 0 {
			return fmt.Errorf("synth: map %s can't change its target %d", p.m.name, t)
		}
		share[t] = s
	}
	p.m.fillIn(&share)
	var counts []counter
	var wanted, weight []float64 // wanted in voxels
	for i, s := range share {
		if s == 0 {
			continue
		}
		t := Target(i)
		c := g.newCounter(*p, t)
		counts, wanted = append(counts, c), append(wanted, s*float64(c.count(g, *p)))
		if _, asked := o.Share[t.sided(p.mirrored)]; asked {
			weight = append(weight, 1)
		} else {
			weight = append(weight, .2) // need not be met as closely
		}
		targets = append(targets, t)
	}
	falls := mat.NewDense(len(targets), len(targets), nil)
	for i, t := range targets {
		for j, u := range targets {
			falls.Set(i, j, p.m.rates[t][u])
		}
	}
	amounts, off := newton(falls, weight, func(x, off []float64) {
		flow(x)
		for i := range off {
			off[i] = math.Log(max(float64(counts[i].count(g, *p)), .5) / wanted[i])
		}
	})
	if off > .02 {
		return fmt.Errorf("synth: map %s comes to %.3f of a volume wanted at best", p.m.name, math.Exp(off))
	}
	flow(amounts)
	return nil
}

// newton finds where functions of x that fall are near 0: by Newton's method from
// 0, with the rates at which they fall there, corrected by what steps do (Broyden
// 1965, doi:10.1090/S0025-5718-1965-0198670-6). It returns the best x on the way
// and how far the worst function is from 0 there, each by its weight.
func newton(falls *mat.Dense, weight []float64, at func(x, y []float64)) (best []float64, worst float64) {
	const near, steps, longest = 1e-3, 25, .3
	n := len(weight)
	x, y, last := make([]float64, n), make([]float64, n), make([]float64, n)
	step, missed := mat.NewVecDense(n, nil), mat.NewVecDense(n, nil)
	worst = math.Inf(1)
	for i := range steps {
		copy(last, y)
		at(x, y)
		w := 0.0
		for j := range y {
			w = max(w, weight[j]*math.Abs(y[j]))
		}
		if w < worst {
			best, worst = slices.Clone(x), w
		}
		if worst < near {
			break
		}
		if i > 0 {
			missed.MulVec(falls, step)
			for j := range y {
				missed.SetVec(j, last[j]-y[j]-missed.AtVec(j))
			}
			falls.RankOne(falls, 1/mat.Dot(step, step), missed, step)
		}
		for j := range y {
			step.SetVec(j, min(longest, max(-longest, y[j])))
		}
		if err := step.SolveVec(falls, step); err != nil {
			break
		}
		for j := range x {
			x[j] += step.AtVec(j)
		}
	}
	return best, worst
}

// fillIn adds to the shares of hippocampi and amygdalae what a change of them does
// beside them: the other of the two is held, and the horn takes the room.
func (m *labelMap) fillIn(share *[numTargets]float64) {
	for side := range Target(2) {
		hippocampus, amygdala, horn := &share[LeftHippocampus+side], &share[LeftAmygdala+side], &share[LeftHorn+side]
		if *hippocampus == 0 && *amygdala == 0 {
			continue
		}
		*hippocampus, *amygdala = cmp.Or(*hippocampus, 1), cmp.Or(*amygdala, 1)
		if m.mm3[LeftHorn+side] > 0 && *horn == 0 {
			*horn = cmp.Or(share[LeftVentricle+side], 1) * m.hornShare(side, *hippocampus, *amygdala, fluidShare)
		}
	}
}

// sided is the target of the other side where a head is mirrored.
func (t Target) sided(mirrored bool) Target {
	if mirrored && t < Brain {
		return t ^ 1
	}
	return t
}

// counter counts the voxels of a target under the generator's flow.
type counter struct {
	members [256]bool
	lo, hi  [3]int // where in the sample it may lie
	every   int    // voxels along each axis; large targets are counted coarsely
}

func (g *Generator) newCounter(p pose, t Target) counter {
	c := counter{members: t.members(), lo: g.n, hi: [3]int{-1, -1, -1}, every: 1}
	g.locate(p)
	at := 0
	for z := range g.n[2] {
		for y := range g.n[1] {
			px, py, pz := g.place[0].line(y, z), g.place[1].line(y, z), g.place[2].line(y, z)
			for x := range g.n[0] {
				if c.members[p.m.tissue(px[x], py[x], pz[x])] {
					for a, v := range [3]int{x, y, z} {
						c.lo[a], c.hi[a] = min(c.lo[a], v), max(c.hi[a], v)
					}
				}
				at++
			}
		}
	}
	margin := int(12 / g.cfg.VoxelMM) // mm that a border may move
	for a := range 3 {
		c.lo[a] = max(0, c.lo[a]-margin)
		c.hi[a] = min(g.n[a]-1, c.hi[a]+margin)
	}
	if t == Brain {
		c.every = max(1, int(3/g.cfg.VoxelMM))
	}
	return c
}

func (c *counter) count(g *Generator, p pose) int {
	g.locate(p)
	n := 0
	for z := c.lo[2]; z <= c.hi[2]; z += c.every {
		for y := c.lo[1]; y <= c.hi[1]; y += c.every {
			px, py, pz := g.place[0].line(y, z), g.place[1].line(y, z), g.place[2].line(y, z)
			for x := c.lo[0]; x <= c.hi[0]; x += c.every {
				if c.members[p.m.tissue(px[x], py[x], pz[x])] {
					n++
				}
			}
		}
	}
	return n
}

// tissue at a map voxel as in Generator.place.
func (m *labelMap) tissue(x, y, z float32) uint8 {
	if x < 0 || y < 0 || z < 0 {
		return air
	}
	i, j, k := int(x), int(y), int(z)
	if i >= mapShape[0] || j >= mapShape[1] || k >= mapShape[2] {
		return air
	}
	return m.data[(k*mapShape[1]+j)*mapShape[0]+i]
}
