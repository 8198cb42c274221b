package synth

import (
	"math"

	"neuroscreen/internal/volume"
)

// pose is where a sample's voxels lie in a map.
type pose struct {
	m        *labelMap
	mirrored bool
	// A place x of the head, in mm from its middle, is found in the map at
	// q + u(q) mm from the map's middle, where q = turn*x + shift and u is the
	// generator's flow.
	turn  [3][3]float64
	shift [3]float64
	// floor is the lowest map voxel to read along z: below it the map's last
	// slice goes on.
	floor float32
	// middle of the sample, in mm from the head's.
	middle [3]float64
}

func (g *Generator) drawPose(sample uint64, d *Drawn) pose {
	c := &g.cfg
	streams := [...]random{stream(g.seed, sample, forShape), stream(g.seed, sample, forMorph), stream(g.seed, sample, forFluid), stream(g.seed, sample, forSizes)}
	r, morph, fluid, sizes := &streams[0], &streams[1], &streams[2], &streams[3]
	p := pose{m: g.maps.list[r.intN(len(g.maps.list))], floor: -1e6}
	p.mirrored = r.chance(c.Mirror)
	var angle, scale, shift [3]float64
	var shear [3][3]float64
	for a := range 3 {
		angle[a] = r.in(c.RotationDeg)
		scale[a] = r.in(c.Scale)
		shift[a] = r.in(c.ShiftMM)
		for b := range 3 {
			shear[a][b] = r.in(c.Shear)
		}
	}
	p.turn = turn(angle, scale, shear, p.mirrored)
	p.shift = shift

	clear(g.flow.u)
	g.flow.addRandom(r, r.in(c.CoarseKnots), r.in(c.CoarseBendMM))
	g.flow.addRandom(r, r.in(c.FineKnots), r.in(c.FineBendMM))
	if d.Morphed = len(p.m.morphs) > 0 && morph.chance(c.Morph); d.Morphed {
		g.flow.addMorph(morph, p.m, c.MorphPart, morph.in(c.MorphSpread), morph.in(c.CoarseKnots))
	}
	g.drawChange(r, fluid, p.m, d)
	g.drawSizes(sizes, d)
	g.flow.integrateWith(&p.m.warps, p.m.amounts(d.Changed))

	p.middle = c.MiddleMM
	if c.Around != WholeHead {
		region := p.find(g.flow, p.m.middles[c.Around][side(p.mirrored)])
		for a := range p.middle {
			p.middle[a] += region[a] + r.in(c.MiddleJitterMM)
		}
	}
	for a, most := range c.CropMM {
		if most > 0 {
			d.AtMM[a] = r.in(Range{-most, most})
			p.middle[a] += d.AtMM[a]
		}
	}

	d.LongNeck = r.chance(c.LongNeck)
	if d.LongNeck {
		p.floor = float32(p.m.reach.bottom + float64(mapShape[2]-1)/2 + 2)
	}
	d.Map, d.Mirrored = p.m.name, p.mirrored
	return p
}

// side is the side of the map that is a head's left.
func side(mirrored bool) int {
	if mirrored {
		return 1
	}
	return 0
}

// find returns the place in the head, in mm from its middle, of a place in the
// map, in mm from the map's middle.
func (p *pose) find(f *flow, m [3]float64) (head [3]float64) {
	q := m
	for range 4 { // converges, as the flow never folds
		u := f.displacement(q)
		for a := range q {
			q[a] = m[a] - float64(u[a])
		}
	}
	var back volume.Affine
	for a := range 3 {
		copy(back[a][:], p.turn[a][:])
		back[a][3] = p.shift[a]
	}
	back[3][3] = 1
	return back.Inverse().Apply(q)
}

// drawChange draws the local changes of volume, as logarithms of what is left.
func (g *Generator) drawChange(r, fluid *random, m *labelMap, d *Drawn) {
	c := &g.cfg
	left := func(x Range) float64 { return math.Log(r.in(x)) }
	if r.chance(c.Medial) {
		k := left(c.MedialVolume)
		sides := [2]float64{k, k + .1*r.normal()}
		if r.chance(c.MedialOneSide) {
			sides[r.intN(2)] = .05 * r.normal()
		}
		apart := r.chance(c.MedialApart)
		for side, k := range sides {
			d.Changed[LeftHippocampus+Target(side)] = min(.15, k)
			if !apart {
				d.Changed[LeftAmygdala+Target(side)] = min(.1, k*r.in(Range{.3, 1.1}))
			}
		}
	}
	if r.chance(c.Ventricle) {
		k := left(c.VentricleVolume)
		d.Changed[LeftVentricle] = k
		d.Changed[RightVentricle] = k + .15*r.normal()
	}
	if r.chance(c.Sulci) {
		d.Changed[Brain] = left(c.BrainVolume)
	}
	toFluid := fluid.in(c.MedialFluid)
	for side := range Target(2) {
		hippocampus, amygdala, ventricle := d.Changed[LeftHippocampus+side], &d.Changed[LeftAmygdala+side], d.Changed[LeftVentricle+side]
		if hippocampus == 0 || m.mm3[LeftHorn+side] == 0 {
			continue
		}
		if *amygdala == 0 {
			// Held, where a log of 0 would leave it to follow.
			*amygdala = .02 * fluid.normal()
		}
		d.Changed[LeftHorn+side] = min(math.Log(hornMost), ventricle+math.Log(m.hornShare(side, math.Exp(hippocampus), math.Exp(*amygdala), toFluid)))
	}
}

// drawSizes gives deep nuclei and midline ventricles sizes of their own. The maps'
// come in as many sets as there are maps, which teaches to guess one from the others.
func (g *Generator) drawSizes(r *random, d *Drawn) {
	if !r.chance(g.cfg.Sizes) {
		return
	}
	sd := r.in(g.cfg.SizeSD)
	log := func(sd float64) float64 { return min(.5, max(-.5, sd*r.normal())) }
	for t := LeftThalamus; t < Brain; t += 2 {
		both := log(sd)
		d.Changed[t], d.Changed[t+1] = both+log(sd/4), both+log(sd/4)
	}
	d.Changed[ThirdVentricle], d.Changed[FourthVentricle] = log(3*sd), log(3*sd)
}

// turn returns the matrix from a sample to its map: the inverse of scaling, a
// rotation about x, y and z by degrees, and a small shear.
func turn(angle, scale [3]float64, shear [3][3]float64, mirrored bool) [3][3]float64 {
	var s, c [3]float64
	for a := range 3 {
		s[a], c[a] = math.Sincos(angle[a] * math.Pi / 180)
		shear[a][a] = 1
	}
	m := mul([3][3]float64{{1, 0, 0}, {0, c[0], -s[0]}, {0, s[0], c[0]}}, [3][3]float64{{c[1], 0, s[1]}, {0, 1, 0}, {-s[1], 0, c[1]}})
	m = mul(m, [3][3]float64{{c[2], -s[2], 0}, {s[2], c[2], 0}, {0, 0, 1}})
	m = mul(mul([3][3]float64{{1 / scale[0], 0, 0}, {0, 1 / scale[1], 0}, {0, 0, 1 / scale[2]}}, m), shear)
	if mirrored {
		for b := range 3 {
			m[0][b] = -m[0][b]
		}
	}
	return m
}

func mul(a, b [3][3]float64) (c [3][3]float64) {
	for i := range 3 {
		for j := range 3 {
			for k := range 3 {
				c[i][j] += a[i][k] * b[k][j]
			}
		}
	}
	return c
}

// locate fills g.place: map voxels, as real numbers plus a half so that
// truncation rounds, on a grid of about latticeMM over the sample.
func (g *Generator) locate(p pose) {
	every := max(1, int(latticeMM/g.cfg.VoxelMM+.5))
	var coarse [3]int
	for a, n := range g.n {
		coarse[a] = (n-1+every-1)/every + 1
		coarse[a] = max(2, coarse[a])
	}
	for c := range g.place {
		f := &g.place[c]
		f.reshape(coarse)
		for a, n := range g.n {
			f.axis[a].linear(coarse[a], n, 0, 1/float64(every))
		}
		f.out = grow(f.out, g.n[0])
	}
	var corner [3]float64
	for a, n := range g.n {
		corner[a] = p.middle[a] - float64(n-1)/2*g.cfg.VoxelMM
	}
	i := 0
	step := float64(every) * g.cfg.VoxelMM
	for z := range coarse[2] {
		for y := range coarse[1] {
			for x := range coarse[0] {
				s := [3]float64{
					float64(x)*step + corner[0], float64(y)*step + corner[1], float64(z)*step + corner[2],
				}
				var q [3]float64
				for a := range 3 {
					q[a] = p.turn[a][0]*s[0] + p.turn[a][1]*s[1] + p.turn[a][2]*s[2] + p.shift[a]
				}
				u := g.flow.displacement(q)
				for a := range 3 {
					g.place[a].data[i] = float32(q[a] + float64(mapShape[a])/2 + float64(u[a]))
				}
				i++
			}
		}
	}
}

// displacement at a place in mm from the map's middle.
func (f *flow) displacement(q [3]float64) [3]float32 {
	return f.at(
		float32(q[0]/latticeMM+float64(latticeShape[0]-1)/2),
		float32(q[1]/latticeMM+float64(latticeShape[1]-1)/2),
		float32(q[2]/latticeMM+float64(latticeShape[2]-1)/2),
	)
}
