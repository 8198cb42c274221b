package synth

import (
	"math"

	"gonum.org/v1/gonum/mat"

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
	LeftHorn // the inferior horn of it
	RightHorn
	LeftThalamus
	RightThalamus
	LeftCaudate
	RightCaudate
	LeftPutamen
	RightPutamen
	LeftPallidum
	RightPallidum
	LeftAccumbens
	RightAccumbens
	Brain // against the fluid round it: sulci widen as it shrinks
	ThirdVentricle
	FourthVentricle
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
	LeftHorn:         {5, 137},
	RightHorn:        {44, 164},
	LeftThalamus:     {10},
	RightThalamus:    {49},
	LeftCaudate:      {11},
	RightCaudate:     {50},
	LeftPutamen:      {12},
	RightPutamen:     {51},
	LeftPallidum:     {13},
	RightPallidum:    {52},
	LeftAccumbens:    {26},
	RightAccumbens:   {58},
	ThirdVentricle:   {14},
	FourthVentricle:  {15},
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
// the gradient of the target's blurred mask. Negative multiples grow it.
type warp struct {
	at []int32      // lattice points
	v  [][3]float32 // mm
}

// warpSigma is the blur of the mask in mm: how far tissue round a target takes
// part in its change.
const warpSigma = 3

// warpScale makes a multiple of 1 move a flat surface by about 1 mm: the
// blurred mask of a half-space climbs by 1/(sigma sqrt(2 pi)) a mm there.
const warpScale = warpSigma * 2.5066

// prepareWarps fills in m.warps, m.rates and m.mm3.
func (m *labelMap) prepareWarps() {
	var masks [numTargets]mask
	for t := range numTargets {
		masks[t], m.warps[t] = newWarp(m, t.members())
	}
	// The skull stays where it is when the brain changes.
	var inside [256]bool
	for i := range tissues {
		inside[i] = !outside[i]
	}
	if cavity, ok := newMask(m, inside); ok {
		m.warps[Brain].fade(func(p [3]float64) float64 { return 1 - cavity.value(p) })
	}
	// So does the border of hippocampus and amygdala: the fluid that takes the
	// room of one does not push the other.
	for side := range Target(2) {
		hippocampus, amygdala := LeftHippocampus+side, LeftAmygdala+side
		m.warps[hippocampus].fade(masks[amygdala].value)
		m.warps[amygdala].fade(masks[hippocampus].value)
	}
	var in [numTargets][256]bool
	for t := range numTargets {
		in[t] = t.members()
	}
	for _, tissue := range m.data {
		for t := range numTargets {
			if in[t][tissue] {
				m.mm3[t]++
			}
		}
	}
	f := newFlow()
	for j := range numTargets {
		if len(m.warps[j].at) == 0 {
			continue
		}
		clear(f.u)
		f.addWarp(&m.warps[j], 1)
		for i := range numTargets {
			m.rates[i][j] = masks[i].divergence(f)
		}
	}
}

// saturation makes up for what large changes lose on a lattice as coarse as a
// hippocampus is thin. Measured on six maps, with it a log share between -.5
// and .7 comes out at .8 to 1.2 of what is aimed at, on average.
const saturation = 1.2

// amounts returns the multiples of the warps that leave about the shares
// exp(logs) of the targets, which touch and move each other; targets with a
// log of 0 are left to follow their neighbours.
func (m *labelMap) amounts(logs [numTargets]float64) (k [numTargets]float64) {
	var change []Target
	for t, l := range logs {
		if l != 0 && m.rates[t][t] > 0 {
			change = append(change, Target(t))
		}
	}
	n := len(change)
	if n == 0 {
		return k
	}
	rates, amounts := mat.NewDense(n, n, nil), mat.NewVecDense(n, nil)
	for i, t := range change {
		for j, u := range change {
			rates.Set(i, j, m.rates[t][u])
		}
		amounts.SetVec(i, -logs[t]*(1+saturation*math.Abs(logs[t])))
	}
	if err := amounts.SolveVec(rates, amounts); err != nil {
		return k // can't be: no two warps are alike
	}
	for i, t := range change {
		k[t] = amounts.AtVec(i)
	}
	return k
}

// A smaller hippocampus or amygdala leaves room, most of which the inferior horn
// beside it takes: in healthy people of 80 against 55 (NOMIS, men and women)
// hippocampi have lost 500 and 452 mm3, and horns gained 488 and 317. Warps that
// shrink a structure close in from all sides instead, and draw a thin horn
// narrower, which no ageing and no disease does.
const (
	fluidShare          = .8 // of what is lost
	hornLeast, hornMost = .4, 3
)

// hornShare is what an inferior horn has of its volume after the hippocampus and
// the amygdala of its side, of which the shares are left, have lost some to it.
func (m *labelMap) hornShare(side Target, hippocampus, amygdala, toFluid float64) float64 {
	lost := (1-hippocampus)*m.mm3[LeftHippocampus+side] + (1-amygdala)*m.mm3[LeftAmygdala+side]
	return min(hornMost, max(hornLeast, 1+toFluid*lost/m.mm3[LeftHorn+side]))
}

// mask is the share of a target in cells of 2 mm, within a box.
type mask struct {
	from, shape [3]int // in cells
	share, blur []float32
}

// divergence is the mean divergence of a velocity over the target: the rate at
// which it shrinks.
func (k *mask) divergence(f *flow) float64 {
	every := 1 + len(k.share)/200_000
	var sum, volume float64
	i := 0
	for z := range k.shape[2] {
		for y := range k.shape[1] {
			for x := range k.shape[0] {
				s := float64(k.share[i])
				i++
				if s == 0 || every > 1 && (x|y|z)&1 == 1 {
					continue
				}
				var p [3]float64
				for a, c := range [3]int{x, y, z} {
					p[a] = float64(2*(c+k.from[a])) + .5 - float64(mapShape[a]-1)/2
				}
				volume += s
				for a := range 3 {
					q := p
					q[a]++
					d := f.displacement(q)[a]
					q[a] -= 2
					sum += s * float64(d-f.displacement(q)[a]) / 2
				}
			}
		}
	}
	if volume == 0 {
		return 0
	}
	return sum / volume
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

func newWarp(m *labelMap, members [256]bool) (k mask, w warp) {
	k, ok := newMask(m, members)
	if !ok {
		return k, w
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
					g[a] = float32(-d * warpScale)
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
	return k, w
}

// fade stills a warp towards a neighbour, whose blurred mask is a half at a flat
// border.
func (w *warp) fade(neighbour func(p [3]float64) float64) {
	for i, at := range w.at {
		n := int(at)
		p := latticePoint(n%latticeShape[0], n/latticeShape[0]%latticeShape[1], n/latticeShape[0]/latticeShape[1])
		keep := float32(min(1, max(0, 1.25-2.5*neighbour(p))))
		for a := range 3 {
			w.v[i][a] *= keep
		}
	}
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
	before  [][3]float32 // velocity without warps
	ctl     field
	comp    []float32
}

func newFlow() *flow {
	return &flow{u: make([][3]float32, latticeLen), next: make([][3]float32, latticeLen), comp: make([]float32, latticeLen)}
}

// addRandom adds a smooth random velocity of about sdMM standard deviation.
func (f *flow) addRandom(r *random, knotsMM, sdMM float64) {
	for c := range 3 {
		f.drawField(r, knotsMM, sdMM)
		for i, v := range f.comp {
			f.u[i][c] += v
		}
	}
}

// drawField fills f.comp with a smooth random field: a B-spline with knots some
// mm apart and about sd standard deviation.
func (f *flow) drawField(r *random, knotsMM, sd float64) {
	var control [3]int
	for a, n := range latticeShape {
		control[a] = max(4, int(float64(n-1)*latticeMM/knotsMM+.5)+3)
	}
	f.ctl.reshape(control)
	for a, n := range latticeShape {
		f.ctl.axis[a].spline(control[a], n)
	}
	r.normals(f.ctl.data)
	// Between its knots a cubic B-spline of white noise keeps .48 of the
	// variance along each axis on average.
	scale := float32(sd / math.Pow(.48, 1.5))
	for i := range f.ctl.data {
		f.ctl.data[i] *= scale
	}
	f.ctl.run(f.comp, f.ctl.data)
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

// integrateWith adds warps to the velocity and integrates it: less of them, where
// they would fold it.
func (f *flow) integrateWith(warps *[numTargets]warp, amounts [numTargets]float64) {
	f.before = append(f.before[:0], f.u...)
	for part := 1.; ; part *= .8 {
		for t, k := range amounts {
			if k != 0 {
				f.addWarp(&warps[t], k*part)
			}
		}
		f.integrate()
		if part < .3 || f.leastDeterminant() > 0 {
			return
		}
		copy(f.u, f.before)
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

// leastDeterminant of the Jacobian of a displacement: not above 0 where it folds.
func (f *flow) leastDeterminant() float64 {
	least := math.Inf(1)
	step := [3]int{1, latticeShape[0], latticeShape[0] * latticeShape[1]}
	for z := range latticeShape[2] - 1 {
		for y := range latticeShape[1] - 1 {
			for x := range latticeShape[0] - 1 {
				at := x + step[1]*y + step[2]*z
				var j [3][3]float64
				for c := range 3 {
					for a := range 3 {
						j[c][a] = float64(f.u[at+step[a]][c]-f.u[at][c]) / latticeMM
					}
					j[c][c]++
				}
				least = min(least, j[0][0]*(j[1][1]*j[2][2]-j[1][2]*j[2][1])-j[0][1]*(j[1][0]*j[2][2]-j[1][2]*j[2][0])+j[0][2]*(j[1][0]*j[2][1]-j[1][1]*j[2][0]))
			}
		}
	}
	return least
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
