package synth

import "math"

// look is how tissues appear: by index into tissues, 0 to 255.
type look struct {
	mean, sd [256]float32
	// Shares of the SD that are white noise, that are correlated over two
	// voxels, and over a centimetre.
	white, fine, coarse float32
	lesion              float32
	// patch is the SD of fat, muscle and marrow taking turns over some
	// millimetres outside the skull.
	patch [256]float32
}

// drawLook draws intensities.
func (g *Generator) drawLook(r, deep *random, d *Drawn) *look {
	c := &g.cfg
	l := &g.look
	*l = look{}
	d.T1 = r.chance(c.T1)
	spread, label, within := r.in(c.T1Spread), r.in(c.LabelSpread), r.in(c.TissueSD)
	var mean, sd [len(t1Priors)]float64
	for i, p := range t1Priors {
		mean[i] = p.mean + spread*p.meanSD*r.normal()
		sd[i] = min(max(math.Abs(p.sd+.5*p.sdSD*r.normal()), 2), 60)
	}
	head := deep.in(c.DeepGrey)
	for i, t := range tissues {
		if tissueIndex[t.mirror] < uint8(i) {
			// The other side has been drawn.
			l.mean[i], l.sd[i] = l.mean[tissueIndex[t.mirror]], l.sd[tissueIndex[t.mirror]]
			continue
		}
		if d.T1 {
			m := mean[t.prior]
			if deepGrey[t.label] {
				m += (head + deep.in(c.DeepGrey)) / 2 * (mean[whitePrior] - m)
			}
			l.mean[i] = float32(max(0, m+label*r.normal()))
			l.sd[i] = float32(sd[t.prior] * within)
		} else {
			l.mean[i] = float32(255 * r.float())
			l.sd[i] = float32(30 * r.float() * within)
		}
	}
	d.BlackAir = r.chance(c.BlackAir)
	if d.BlackAir {
		l.mean[air], l.sd[air] = 0, 0
	}
	l.lesion = l.mean[tissueIndex[2]] + float32(r.in(Range{.3, 1.2}))*(l.mean[tissueIndex[3]]-l.mean[tissueIndex[2]])
	dura, fluid := tissueIndex[duraLabel], tissueIndex[fluidLabel]
	l.mean[dura], l.sd[dura] = l.mean[fluid], l.sd[fluid]
	if r.chance(c.Dura) {
		d.Dura = true
		share := float32(r.in(Range{.3, 1}))
		l.mean[dura] += share * (l.mean[tissueIndex[3]]*float32(r.in(Range{.5, 1.6})) - l.mean[dura])
	}
	if r.chance(c.Patches) {
		sd := r.in(c.PatchSD)
		for i, t := range tissues {
			if outside[i] && i != air && t.label != boneLabel {
				l.patch[i] = float32(sd * r.in(Range{.5, 1}))
			}
		}
	}
	l.white = 1
	d.Texture = r.chance(c.Texture)
	if d.Texture {
		l.white, l.fine, l.coarse = float32(r.in(Range{.2, .7})), float32(r.in(Range{.3, 1})), float32(r.in(Range{0, .8}))
	}
	return l
}

// patchMM is the size of the patches of tissue outside the skull, and of slow
// changes within tissue.
const patchMM = 8

// paint reads the map into labels and intensities. A label is the tissue at the
// voxel's centre. An intensity is the mean over the centre and four points round
// it, one in every other octant, so that borders mix.
func (g *Generator) paint(p pose, l *look, r *random) {
	g.locate(p)
	cls := &classOf[0]
	if p.mirrored {
		cls = &classOf[1]
	}
	var cells, patches [3]int
	for a, n := range g.n {
		cells[a] = max(2, n/2)
		patches[a] = max(2, int(float64(n)*g.cfg.VoxelMM/patchMM))
	}
	// Linear interpolation of white noise keeps two thirds of its variance
	// along each axis on average.
	const restore = 1.84
	g.coarse.reshape(patches)
	r.normals(g.coarse.data)
	for i := range g.coarse.data {
		g.coarse.data[i] *= restore
	}
	g.coarse.stretch(g.n)
	textured := l.fine != 0 || l.coarse != 0
	if textured {
		g.fine.reshape(cells)
		r.normals(g.fine.data)
		g.fine.stretch(g.n)
	}
	fine, coarse, white := l.fine*restore, l.coarse, l.white

	const one = 1 << 16 // fixed point
	h := g.cfg.VoxelMM / 4
	var off [4][3]int32
	for k, s := range [4][3]float64{{h, h, h}, {h, -h, -h}, {-h, h, -h}, {-h, -h, h}} {
		for a := range 3 {
			off[k][a] = int32(math.Round((p.turn[a][0]*s[0] + p.turn[a][1]*s[1] + p.turn[a][2]*s[2]) * one))
		}
	}
	// A voxel whose middle is this far inside the map has all points inside.
	rim := int32(math.Ceil(g.cfg.VoxelMM)) + 1
	data := p.m.data
	nx, ny, nz := int32(mapShape[0]), int32(mapShape[1]), int32(mapShape[2])
	var centre, round [256]float32
	for i, m := range l.mean {
		centre[i] = float32(g.cfg.Centre) * m
		round[i] = float32(1-g.cfg.Centre) / 4 * m
	}
	for z := range g.n[2] {
		for y := range g.n[1] {
			at := (z*g.n[1] + y) * g.n[0]
			image, labels := g.image[at:][:g.n[0]], g.out.Labels[at:][:g.n[0]]
			px := g.place[0].line(y, z)[:len(image)]
			py := g.place[1].line(y, z)[:len(image)]
			pz := g.place[2].line(y, z)[:len(image)]
			noise := g.noise[0][:len(image)]
			r.normals(noise)
			b := g.coarse.line(y, z)[:len(image)]
			if textured {
				a := g.fine.line(y, z)[:len(image)]
				for x := range noise {
					noise[x] = white*noise[x] + fine*a[x] + coarse*b[x]
				}
			}
			for x := range image {
				ix, iy, iz := int32(px[x]*one), int32(py[x]*one), int32(max(pz[x], p.floor)*one)
				cx, cy, cz := ix>>16, iy>>16, iz>>16
				if uint32(cx-rim) < uint32(nx-2*rim) && uint32(cy-rim) < uint32(ny-2*rim) && uint32(cz-rim) < uint32(nz-2*rim) {
					t := data[(cz*ny+cy)*nx+cx]
					labels[x] = cls[t]
					s0 := data[((iz+off[0][2])>>16*ny+(iy+off[0][1])>>16)*nx+(ix+off[0][0])>>16]
					s1 := data[((iz+off[1][2])>>16*ny+(iy+off[1][1])>>16)*nx+(ix+off[1][0])>>16]
					s2 := data[((iz+off[2][2])>>16*ny+(iy+off[2][1])>>16)*nx+(ix+off[2][0])>>16]
					s3 := data[((iz+off[3][2])>>16*ny+(iy+off[3][1])>>16)*nx+(ix+off[3][0])>>16]
					image[x] = centre[t] + round[s0] + round[s1] + round[s2] + round[s3] + l.sd[t]*noise[x] + l.patch[t]*b[x]
					continue
				}
				var t uint8 = air
				if uint32(cx) < uint32(nx) && uint32(cy) < uint32(ny) && uint32(cz) < uint32(nz) {
					t = data[(cz*ny+cy)*nx+cx]
				}
				labels[x] = cls[t]
				image[x] = l.mean[t] + l.sd[t]*noise[x] + l.patch[t]*b[x]
			}
		}
	}
}
