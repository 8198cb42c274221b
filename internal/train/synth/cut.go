package synth

import "math"

// faceAngles are unit vectors towards the face in the plane of front and top:
// 30 to 60 degrees below the horizontal.
var faceAngles = [...][2]float64{
	{.866, -.5}, {.766, -.643}, {.643, -.766}, {.5, -.866},
}

// takeAway removes what stripping, defacing and short fields of view do.
func (g *Generator) takeAway(r *random, p pose, d *Drawn) {
	c := &g.cfg
	if r.chance(c.Strip) {
		d.Strip = Strip(1 + r.intN(int(numStrips)-1))
		g.strip(r, d.Strip)
		if r.chance(c.Holes) {
			d.Holes = 1 + r.intN(4)
			for range d.Holes {
				g.hole(r)
			}
		}
	}
	if d.Strip == Whole && r.chance(c.Deface) {
		d.Defaced = true
		g.deface(r, p)
	}
	if d.Cut = r.chance(c.Cut); d.Cut {
		d.CutAxis, d.CutSide = r.intN(3), r.intN(2)
		if r.chance(.4) {
			d.CutAxis, d.CutSide = 2, 0 // most often the neck
		}
		g.cut(d.CutAxis, d.CutSide, r.in(c.CutMM))
	}
}

// strip sets what lies outside a mask to 0. The mask is the blurred inside of
// the skull, or brain, where it exceeds a threshold that wanders.
func (g *Generator) strip(r *random, kind Strip) {
	inside := [256]float32{}
	for k := 1; k < 256; k++ {
		if kind == Loose || kind == Skull || uint8(k) != csf {
			inside[k] = 1
		}
	}
	mask := g.spare
	for i, k := range g.out.Labels {
		mask[i] = inside[k]
	}
	if kind == BrainOnly {
		for i, v := range mask {
			g.image[i] *= v
		}
		return
	}
	sigma := r.in(Range{2, 4}) / g.cfg.VoxelMM
	for a, n := range g.n {
		g.down.axis[a].gaussian(n, n, 0, 1, sigma)
	}
	g.down.run(mask, mask)
	var level, wander float64
	switch kind {
	case Loose:
		level, wander = r.in(Range{.06, .3}), .08
	case Skull:
		level, wander = .5, .1
	case Tight:
		level, wander = r.in(Range{.35, .6}), .1
	}
	g.smoothField(r, [3]int{8, 9, 8}, g.n, wander)
	for i, v := range g.smooth.data {
		g.smooth.data[i] = float32(min(max(level+float64(v), .04), .85))
	}
	// The edge is as wide as a voxel: a mask's slope is about 1/(2.5 sigma).
	soft := float32(2.5 * sigma)
	for z := range g.n[2] {
		for y := range g.n[1] {
			at := (z*g.n[1] + y) * g.n[0]
			image, mask := g.image[at:][:g.n[0]], mask[at:][:g.n[0]]
			t := g.smooth.line(y, z)[:len(image)]
			for x := range image {
				image[x] *= min(max((mask[x]-t[x])*soft+.5, 0), 1)
			}
		}
	}
}

// hole clears a ball of 2 to 6 mm somewhere in the brain.
func (g *Generator) hole(r *random) {
	for range 50 {
		p := [3]int{r.intN(g.n[0]), r.intN(g.n[1]), r.intN(g.n[2])}
		if g.out.Labels[(p[2]*g.n[1]+p[1])*g.n[0]+p[0]] == 0 {
			continue
		}
		radius := r.in(Range{2, 6}) / g.cfg.VoxelMM
		reach := int(radius)
		for z := max(0, p[2]-reach); z <= min(g.n[2]-1, p[2]+reach); z++ {
			for y := max(0, p[1]-reach); y <= min(g.n[1]-1, p[1]+reach); y++ {
				for x := max(0, p[0]-reach); x <= min(g.n[0]-1, p[0]+reach); x++ {
					dx, dy, dz := float64(x-p[0]), float64(y-p[1]), float64(z-p[2])
					if dx*dx+dy*dy+dz*dz <= radius*radius {
						g.image[(z*g.n[1]+y)*g.n[0]+x] = 0
					}
				}
			}
		}
		return
	}
}

// deface clears the face beyond a plane that leaves some millimetres to the
// brain (Schimke and Hale 2011, quickshear).
func (g *Generator) deface(r *random, p pose) {
	i := r.intN(len(faceAngles))
	n := faceAngles[i]
	limit := float32(p.m.reach.face[i] + r.in(Range{2, 15}))
	// Planes are those of the map: y and z of each voxel's place in it.
	ny, nz := float32(n[0]), float32(n[1])
	limit += float32(n[0])*float32(mapShape[1])/2 + float32(n[1])*float32(mapShape[2])/2
	for f := range g.place {
		g.place[f].at = -1
	}
	for z := range g.n[2] {
		for y := range g.n[1] {
			at := (z*g.n[1] + y) * g.n[0]
			image, labels := g.image[at:][:g.n[0]], g.out.Labels[at:][:g.n[0]]
			py, pz := g.place[1].line(y, z)[:len(image)], g.place[2].line(y, z)[:len(image)]
			for x := range image {
				if ny*py[x]+nz*pz[x] > limit && labels[x] == 0 {
					image[x] = 0
				}
			}
		}
	}
}

// cut empties image and labels from a number of mm beyond the brain's edge
// outwards.
func (g *Generator) cut(axis, side int, mm float64) {
	first, last, ok := g.brainAlong(axis)
	if !ok {
		return
	}
	voxels := int(math.Round(mm / g.cfg.VoxelMM))
	from, to := 0, first-voxels // empty part
	if side == 1 {
		from, to = last+voxels+1, g.n[axis]
	}
	from, to = max(0, from), min(g.n[axis], to)
	var lo, hi [3]int
	hi = g.n
	lo[axis], hi[axis] = from, to
	for z := lo[2]; z < hi[2]; z++ {
		for y := lo[1]; y < hi[1]; y++ {
			at := (z*g.n[1] + y) * g.n[0]
			if lo[0] < hi[0] {
				clear(g.image[at+lo[0] : at+hi[0]])
				clear(g.out.Labels[at+lo[0] : at+hi[0]])
			}
		}
	}
}

// brainAlong returns the first and last voxel along an axis that holds more
// than background and CSF.
func (g *Generator) brainAlong(axis int) (first, last int, ok bool) {
	first = g.n[axis]
	for z := range g.n[2] {
		for y := range g.n[1] {
			for x, k := range g.out.Labels[(z*g.n[1]+y)*g.n[0]:][:g.n[0]] {
				if k != 0 && k != csf {
					v := [3]int{x, y, z}[axis]
					first, last = min(first, v), max(last, v)
				}
			}
		}
	}
	return first, last, first <= last
}
