package synth

import (
	"math"

	"neuroscreen/internal/anatomy"
)

const csf = uint8(anatomy.CSF)

// Deformations are smooth and invertible: a velocity on a lattice in the map's
// own space is followed for unit time (Arsigny et al. 2006,
// doi:10.1007/11866565_113).
const (
	latticeMM = 4
	squarings = 4 // of the 16th part of the velocity
)

var latticeShape = [3]int{46, 54, 46} // up to 90, 106 and 90 mm from the middle

const latticeLen = 46 * 54 * 46

// Target is something that a head can lose or gain volume of.
type Target int

const (
	LeftHippocampus Target = iota
	RightHippocampus
	LeftAmygdala
	RightAmygdala
	LeftVentricle // lateral ventricle with its inferior horn and choroid plexus
	RightVentricle
	Brain // against the fluid round it: sulci widen as it shrinks
	numTargets
)

// targetLabels are the map labels of each target; Brain's is everything inside
// the skull but CSF.
var targetLabels = [numTargets][]int{
	LeftHippocampus:  {17},
	RightHippocampus: {53},
	LeftAmygdala:     {18},
	RightAmygdala:    {54},
	LeftVentricle:    {4, 5, 136, 137},
	RightVentricle:   {43, 44, 163, 164},
}

// members marks the tissue indices of a target.
func (t Target) members() (in [256]bool) {
	if t == Brain {
		for i := range tissues {
			in[i] = !outside[i] && classOf[0][i] != csf
		}
		return in
	}
	for _, l := range targetLabels[t] {
		in[tissueIndex[l]] = true
	}
	return in
}

// warp is the velocity that shrinks a target: along the surface normal, from
// the gradient of the target's blurred mask. To first order, following it for
// time k leaves exp(-k) of the volume; negative k grows it.
type warp struct {
	at []int32      // lattice points
	v  [][3]float32 // mm
}

// warpSigma is the blur of the mask in mm: how far tissue round a target takes
// part in its change.
const warpSigma = 3

func (m *labelMap) prepareWarps() {
	for t := range numTargets {
		m.warps[t] = newWarp(m, t.members())
	}
}

// mask is the share of a target in cells of 2 mm, within a box.
type mask struct {
	from, shape [3]int // in cells
	share, blur []float32
}

func newMask(m *labelMap, members [256]bool) (k mask, ok bool) {
	lo, hi := mapShape, [3]int{-1, -1, -1}
	for z := range mapShape[2] {
		for y := range mapShape[1] {
			row := m.data[(z*mapShape[1]+y)*mapShape[0]:][:mapShape[0]]
			for x, t := range row {
				if members[t] {
					for a, v := range [3]int{x, y, z} {
						lo[a], hi[a] = min(lo[a], v), max(hi[a], v)
					}
				}
			}
		}
	}
	if hi[0] < 0 {
		return k, false
	}
	const margin = 4 * warpSigma / 2 // cells
	for a := range 3 {
		k.from[a] = max(0, lo[a]/2-margin)
		k.shape[a] = min(mapShape[a]/2, hi[a]/2+margin+1) - k.from[a]
	}
	k.share = make([]float32, k.shape[0]*k.shape[1]*k.shape[2])
	for z := range 2 * k.shape[2] {
		for y := range 2 * k.shape[1] {
			row := m.data[((z+2*k.from[2])*mapShape[1]+y+2*k.from[1])*mapShape[0]+2*k.from[0]:][:2*k.shape[0]]
			out := k.share[(z/2*k.shape[1]+y/2)*k.shape[0]:][:k.shape[0]]
			for x, t := range row {
				if members[t] {
					out[x/2] += 1. / 8
				}
			}
		}
	}
	var r resampler
	for a, n := range k.shape {
		r.axis[a].gaussian(n, n, 0, 1, warpSigma/2.)
	}
	k.blur = make([]float32, len(k.share))
	r.run(k.blur, k.share)
	return k, true
}

// value is the blurred mask at a place in mm from the middle.
func (k *mask) value(p [3]float64) float64 {
	var i [3]int
	var f [3]float64
	for a := range 3 {
		// The centre of cell c is half a voxel beyond that of voxel 2c.
		x := (p[a]+float64(mapShape[a]-1)/2-.5)/2 - float64(k.from[a])
		i[a] = int(math.Floor(x))
		f[a] = x - float64(i[a])
		if i[a] < 0 || i[a]+1 >= k.shape[a] {
			return 0
		}
	}
	v := 0.0
	for c := range 8 {
		w, at, stride := 1.0, 0, 1
		for a := range 3 {
			b := c >> a & 1
			w *= float64(1-b) + float64(2*b-1)*f[a]
			at += (i[a] + b) * stride
			stride *= k.shape[a]
		}
		v += w * float64(k.blur[at])
	}
	return v
}

func newWarp(m *labelMap, members [256]bool) (w warp) {
	k, ok := newMask(m, members)
	if !ok {
		return w
	}
	// The rate of shrinking is minus the mean Laplacian over the target.
	var volume, laplacian float64
	nx, nxy := k.shape[0], k.shape[0]*k.shape[1]
	for i, s := range k.share {
		if s == 0 {
			continue
		}
		volume += float64(s)
		at := func(j int) float32 {
			if j < 0 || j >= len(k.blur) {
				return 0
			}
			return k.blur[j]
		}
		laplacian += float64(s * (at(i-1) + at(i+1) + at(i-nx) + at(i+nx) + at(i-nxy) + at(i+nxy) - 6*k.blur[i]) / 4)
	}
	rate := -laplacian / volume
	if !(rate > 0) {
		return w
	}
	const h = 2 // mm
	i := int32(0)
	for z := range latticeShape[2] {
		for y := range latticeShape[1] {
			for x := range latticeShape[0] {
				p := latticePoint(x, y, z)
				var g [3]float32
				largest := 0.0
				for a := range 3 {
					q := p
					q[a] += h
					d := k.value(q)
					q[a] -= 2 * h
					d = (d - k.value(q)) / (2 * h)
					g[a] = float32(-d / rate)
					largest = max(largest, math.Abs(d))
				}
				if largest > 1e-4 {
					w.at = append(w.at, i)
					w.v = append(w.v, g)
				}
				i++
			}
		}
	}
	return w
}

// latticePoint is a lattice point's place in mm from the middle of the map.
func latticePoint(x, y, z int) [3]float64 {
	return [3]float64{
		(float64(x) - float64(latticeShape[0]-1)/2) * latticeMM,
		(float64(y) - float64(latticeShape[1]-1)/2) * latticeMM,
		(float64(z) - float64(latticeShape[2]-1)/2) * latticeMM,
	}
}

// flow is a displacement on the lattice: a velocity until it is integrated.
type flow struct {
	u, next [][3]float32
	ctl     field
	comp    []float32
}

func newFlow() *flow {
	return &flow{u: make([][3]float32, latticeLen), next: make([][3]float32, latticeLen), comp: make([]float32, latticeLen)}
}

// addRandom adds a smooth random velocity: a B-spline with knots spacingMM
// apart whose values have about sdMM standard deviation.
func (f *flow) addRandom(r *random, spacingMM, sdMM float64) {
	var control [3]int
	for a, n := range latticeShape {
		control[a] = max(4, int(float64(n-1)*latticeMM/spacingMM+.5)+3)
	}
	f.ctl.reshape(control)
	for a, n := range latticeShape {
		f.ctl.axis[a].spline(control[a], n)
	}
	// Between its knots a cubic B-spline of white noise keeps .48 of the
	// variance along each axis on average.
	sd := float32(sdMM / math.Pow(.48, 1.5))
	for c := range 3 {
		r.normals(f.ctl.data)
		for i := range f.ctl.data {
			f.ctl.data[i] *= sd
		}
		f.ctl.run(f.comp, f.ctl.data)
		for i, v := range f.comp {
			f.u[i][c] += v
		}
	}
}

// addWarp adds k times a warp's velocity.
func (f *flow) addWarp(w *warp, k float64) {
	s := float32(k)
	for i, at := range w.at {
		u, v := &f.u[at], &w.v[i]
		u[0] += s * v[0]
		u[1] += s * v[1]
		u[2] += s * v[2]
	}
}

// integrate turns the velocity into the displacement after unit time.
func (f *flow) integrate() {
	for i := range f.u {
		for c := range 3 {
			f.u[i][c] *= 1. / (1 << squarings)
		}
	}
	for range squarings {
		i := 0
		for z := range latticeShape[2] {
			for y := range latticeShape[1] {
				for x := range latticeShape[0] {
					u := f.u[i]
					v := f.at(float32(x)+u[0]*(1./latticeMM), float32(y)+u[1]*(1./latticeMM), float32(z)+u[2]*(1./latticeMM))
					f.next[i] = [3]float32{u[0] + v[0], u[1] + v[1], u[2] + v[2]}
					i++
				}
			}
		}
		f.u, f.next = f.next, f.u
	}
}

// at is the displacement at a lattice position; beyond the lattice that of its
// nearest face.
func (f *flow) at(x, y, z float32) [3]float32 {
	i, fx := split(x, 46)
	j, fy := split(y, 54)
	k, fz := split(z, 46)
	const sy, sz = 46, 46 * 54
	b := i + sy*j + sz*k
	p := f.u[b : b+sz+sy+2 : b+sz+sy+2]
	var out [3]float32
	p000, p100, p010, p110 := &p[0], &p[1], &p[sy], &p[sy+1]
	p001, p101, p011, p111 := &p[sz], &p[sz+1], &p[sz+sy], &p[sz+sy+1]
	for c := range 3 {
		a00 := p000[c] + fx*(p100[c]-p000[c])
		a10 := p010[c] + fx*(p110[c]-p010[c])
		a01 := p001[c] + fx*(p101[c]-p001[c])
		a11 := p011[c] + fx*(p111[c]-p011[c])
		a00 += fy * (a10 - a00)
		a01 += fy * (a11 - a01)
		out[c] = a00 + fz*(a01-a00)
	}
	return out
}

func split(x float32, n int) (int, float32) {
	if x <= 0 {
		return 0, 0
	}
	if x >= float32(n-1) {
		return n - 2, 1
	}
	i := int(x)
	return i, x - float32(i)
}
