package synth

import "math"

// addLesions puts soft-edged blobs of another intensity into white matter.
func (g *Generator) addLesions(r *random, l *look, d *Drawn) {
	c := &g.cfg
	if !r.chance(c.Lesions) {
		return
	}
	count := int(r.in(c.LesionCount))
	for range count {
		// A place in white matter, if a few tries find one.
		for range 50 {
			p := [3]int{r.intN(g.n[0]), r.intN(g.n[1]), r.intN(g.n[2])}
			if isWhite(g.out.Labels[(p[2]*g.n[1]+p[1])*g.n[0]+p[0]]) {
				g.blob(p, [3]float64{r.in(c.LesionRadius), r.in(c.LesionRadius), r.in(c.LesionRadius)}, l.lesion)
				d.Lesions++
				break
			}
		}
	}
}

// isWhite reports whether a class is cerebral white matter.
func isWhite(class uint8) bool { return class == 1 || class == 19 }

// blob blends white matter within an ellipsoid, radii in mm, into a value.
func (g *Generator) blob(p [3]int, radius [3]float64, value float32) {
	var lo, hi [3]int
	for a := range 3 {
		radius[a] /= g.cfg.VoxelMM
		lo[a] = max(0, p[a]-int(1.5*radius[a])-1)
		hi[a] = min(g.n[a]-1, p[a]+int(1.5*radius[a])+1)
	}
	square := func(a, i int) float64 {
		x := float64(i-p[a]) / radius[a]
		return x * x
	}
	for z := lo[2]; z <= hi[2]; z++ {
		for y := lo[1]; y <= hi[1]; y++ {
			yz := square(1, y) + square(2, z)
			for x := lo[0]; x <= hi[0]; x++ {
				i := (z*g.n[1]+y)*g.n[0] + x
				// Full up to .75 of the radius, gone at 1.25.
				w := float32(min(1, max(0, 2*(1.25-math.Sqrt(yz+square(0, x))))))
				if w > 0 && isWhite(g.out.Labels[i]) {
					g.image[i] += w * (value - g.image[i])
				}
			}
		}
	}
}

// scan blurs g.image to the scanner's voxels, shades it, adds noise and ghosts
// there, and interpolates it back to the grid.
func (g *Generator) scan(r, noise *random, d *Drawn) {
	c := &g.cfg
	spacing := [3]float64{1, 1, 1} // voxels of the grid
	if r.chance(c.Coarse) {
		for a := range 3 {
			spacing[a] = max(1, r.in(c.CoarseMM)/c.VoxelMM)
		}
	}
	if r.chance(c.Thick) {
		spacing[r.intN(3)] = max(1, r.in(c.SliceMM)/c.VoxelMM)
	}
	if spacing != [3]float64{1, 1, 1} {
		d.Lines = noise.chance(c.Lines)
	}
	ringing := -1
	if d.Ringing = r.chance(c.Ringing); d.Ringing {
		ringing = r.intN(3)
	}
	same := true
	for a, n := range g.n {
		sigma := r.in(c.BlurVoxels)
		phase := r.float()
		d.SpacingMM[a] = spacing[a] * c.VoxelMM
		if spacing[a] == 1 {
			g.down.axis[a].gaussian(n, n, 0, 1, sigma)
			if a == ringing {
				g.down.axis[a].sinc(n, r.in(Range{.6, .85}))
			}
			g.up.axis[a].identity(n)
			continue
		}
		same = false
		// A slice profile as wide at half maximum as slices are apart.
		sigma = math.Hypot(sigma, math.Sqrt(spacing[a]*spacing[a]-1)/2.355)
		start := phase * (spacing[a] - 1) / 2
		m := max(2, int((float64(n-1)-start)/spacing[a])+1)
		g.down.axis[a].gaussian(n, m, start, spacing[a], sigma)
		if d.Lines {
			g.up.axis[a].linear(m, n, -start/spacing[a], 1/spacing[a])
		} else {
			g.up.axis[a].cubic(m, n, -start/spacing[a], 1/spacing[a])
		}
	}
	g.down.run(g.spare, g.image)
	m := g.down.shape()

	d.BiasSD = 0
	if r.chance(c.Bias) {
		d.BiasSD = r.in(c.BiasSD)
	}
	sd := 0.0
	if r.chance(c.Noise) {
		u := r.float()
		sd = c.NoiseSD.Lo + (c.NoiseSD.Hi-c.NoiseSD.Lo)*u*u
		d.Rician = r.chance(c.Rician)
	}
	d.NoiseSD = sd
	knots := c.BiasKnots[0] + r.intN(c.BiasKnots[1]-c.BiasKnots[0]+1)
	g.smoothField(r, [3]int{knots, knots, knots}, m, d.BiasSD)
	for i, v := range g.smooth.data {
		g.smooth.data[i] = float32(math.Exp(float64(v)))
	}
	s := float32(sd)
	a, b := g.noise[0][:m[0]], g.noise[1][:m[0]]
	for z := range m[2] {
		for y := range m[1] {
			row := g.spare[(z*m[1]+y)*m[0]:][:m[0]]
			shade := g.smooth.line(y, z)[:len(row)]
			switch {
			case s == 0:
				for x := range row {
					row[x] *= shade[x]
				}
			case d.Rician:
				noise.normals(a)
				noise.normals(b)
				for x := range row {
					re, im := row[x]*shade[x]+s*a[x], s*b[x]
					row[x] = float32(math.Sqrt(float64(re*re + im*im)))
				}
			default:
				noise.normals(a)
				for x := range row {
					row[x] = row[x]*shade[x] + s*a[x]
				}
			}
		}
	}
	if d.Ghosted = r.chance(c.Ghost); d.Ghosted {
		g.ghost(r, m)
	}
	if same {
		g.image, g.spare = g.spare, g.image
		return
	}
	g.up.run(g.image, g.spare)
}

// smoothField fills g.smooth with a random field over a grid of shape fine,
// with a standard deviation of about sd, from that many knots a side.
func (g *Generator) smoothField(r *random, knots, fine [3]int, sd float64) {
	g.knots.reshape(knots)
	r.normals(g.knots.data)
	scale := float32(sd / math.Pow(.48, 1.5))
	for i := range g.knots.data {
		g.knots.data[i] *= scale
	}
	var mid [3]int
	for a, n := range fine {
		mid[a] = min(max(2, n), 5*(knots[a]-3)+7)
		g.knots.axis[a].spline(knots[a], mid[a])
	}
	g.smooth.reshape(mid)
	g.knots.run(g.smooth.data, g.knots.data)
	g.smooth.stretch(fine)
}

// ghost adds what periodic motion leaves: the head again, faintly, shifted
// along the phase-encoding axis, in g.spare of shape n.
func (g *Generator) ghost(r *random, n [3]int) {
	axis := r.intN(3)
	share := float32(r.in(g.cfg.GhostShare))
	shift := n[axis] / (2 + r.intN(3))
	if r.chance(.5) {
		shift = 1 + r.intN(max(1, n[axis]/12)) // doubled edges
	}
	keep := 1 - share
	src, dst := g.spare, g.image
	for z := range n[2] {
		for y := range n[1] {
			p := [3]int{0, y, z}
			if axis != 0 {
				p[axis] = (p[axis] + shift) % n[axis]
			}
			a := src[(z*n[1]+y)*n[0]:][:n[0]]
			b := src[(p[2]*n[1]+p[1])*n[0]:][:n[0]]
			out := dst[(z*n[1]+y)*n[0]:][:n[0]]
			if axis != 0 {
				for x := range out {
					out[x] = keep*a[x] + share*b[x]
				}
				continue
			}
			for x := range out {
				k := x + shift
				if k >= len(b) {
					k -= len(b)
				}
				out[x] = keep*a[x] + share*b[k]
			}
		}
	}
	g.image, g.spare = g.spare, g.image
}

// finish normalises g.image into the sample.
func (g *Generator) finish(r *random, d *Drawn) {
	d.Gamma = math.Exp(g.cfg.GammaSD * r.normal())
	g.some = everyThird(g.some[:0], g.image, g.n)
	top := quantile(g.some, normalTop)
	if !(top > 0) {
		top = 1
	}
	// Powers by table: up to twice the top, which any gamma here brings above
	// the ceiling.
	const steps = 1024
	var power [2*steps + 2]float32
	for i := range power {
		power[i] = min(float32(math.Pow(float64(i)/steps, d.Gamma)), normalCeiling)
	}
	scale := steps / top
	out := g.out.Image
	for i, v := range g.image {
		v = min(max(v*scale, 0), 2*steps)
		k := int(v)
		out[i] = power[k] + (v-float32(k))*(power[k+1]-power[k])
	}
}
