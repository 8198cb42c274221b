package synth

import (
	"runtime"
	"sync"

	"neuroscreen/internal/anatomy"
	"neuroscreen/internal/volume"
)

// Random bends know nothing of how people differ. Morphs do: each is the
// velocity that makes the anatomy of one map that of another, but for place,
// size and tilt. Part of one is a head between people; parts of several, other
// ones in other places, a head that takes after many.
//
// They are found by log-demons (Vercauteren et al. 2008,
// doi:10.1007/978-3-540-85988-8_90) on the lattice, from the share that each
// structure has of the 4 mm round a lattice point.
const (
	morphSteps  = 40 // of the registration
	morphUpdate = 1. // blur of a step, in lattice points
	morphBlur   = .7 // of the velocity at each step
	morphsAHead = 3  // maps that a head becomes more, or less, like
)

// numGroups are the structures without their sides, which lie too far apart to
// be mistaken, and what is outside the skull.
const numGroups = 19

type shares [numGroups]float32

// groupOf gives the group of a tissue's index.
func groupOf() (group [256]uint8) {
	number := map[string]uint8{}
	for i := range tissues {
		s := anatomy.Structures[classOf[0][i]]
		name := anatomy.Bare(s.Name)
		n, ok := number[name]
		if !ok {
			n = uint8(len(number))
			number[name] = n
		}
		group[i] = n
	}
	return group
}

// relate finds the morphs of every map to each other one, the first time that
// it is called; it takes minutes for sixteen of them, unless they were kept.
func (m *Maps) relate() {
	m.related.Do(func() {
		if m.folder != "" {
			path := m.keptPath()
			if m.readKept(path) {
				return
			}
			defer m.keep(path)
		}
		centres := make([]map[anatomy.Class][3]float64, len(m.list))
		for i, l := range m.list {
			centres[i] = l.centres()
		}
		var wg sync.WaitGroup
		slots := make(chan struct{}, runtime.GOMAXPROCS(0))
		for i, l := range m.list {
			wg.Go(func() {
				slots <- struct{}{}
				defer func() { <-slots }()
				from := newMorpher(l)
				for j, other := range m.list {
					if j != i {
						l.morphs = append(l.morphs, from.towards(other, affineBetween(centres[i], centres[j])))
					}
				}
			})
		}
		wg.Wait()
	})
}

// centres are the centres of mass of the structures by class, in mm from the
// middle of the map.
func (m *labelMap) centres() map[anatomy.Class][3]float64 {
	var sum [anatomy.NumClasses][3]float64
	var count [anatomy.NumClasses]float64
	i := 0
	for z := range mapShape[2] {
		for y := range mapShape[1] {
			for x := range mapShape[0] {
				c := classOf[0][m.data[i]]
				p := fromMiddle(x, y, z)
				for a := range p {
					sum[c][a] += p[a]
				}
				count[c]++
				i++
			}
		}
	}
	out := map[anatomy.Class][3]float64{}
	for _, c := range anatomy.Brain {
		if count[c] > 0 {
			for a := range 3 {
				sum[c][a] /= count[c]
			}
			out[c] = sum[c]
		}
	}
	return out
}

// affineBetween takes the centres of one head to those of another: least
// squares over the structures that both have.
func affineBetween(from, to map[anatomy.Class][3]float64) volume.Affine {
	var meanFrom, meanTo [3]float64
	n := 0.0
	each := func(f func(p, q [3]float64)) {
		for _, c := range anatomy.Brain {
			p, ok := from[c]
			q, both := to[c]
			if ok && both {
				f(p, q)
			}
		}
	}
	each(func(p, q [3]float64) {
		n++
		for a := range 3 {
			meanFrom[a] += p[a]
			meanTo[a] += q[a]
		}
	})
	var pp, qp [3][3]float64
	for a := range 3 {
		meanFrom[a] /= n
		meanTo[a] /= n
		pp[a][a] = 1e-6 // a head of structures in one plane keeps its third axis
		qp[a][a] = 1e-6
	}
	each(func(p, q [3]float64) {
		for a := range 3 {
			for b := range 3 {
				pp[a][b] += (p[a] - meanFrom[a]) * (p[b] - meanFrom[b])
				qp[a][b] += (q[a] - meanTo[a]) * (p[b] - meanFrom[b])
			}
		}
	})
	inverse := volume.Affine{3: {3: 1}}
	for a := range 3 {
		copy(inverse[a][:3], pp[a][:])
	}
	inverse = inverse.Inverse()
	out := volume.Affine{3: {3: 1}}
	for a := range 3 {
		out[a][3] = meanTo[a]
		for b := range 3 {
			for c := range 3 {
				out[a][b] += qp[a][c] * inverse[c][b]
			}
			out[a][3] -= out[a][b] * meanFrom[b]
		}
	}
	return out
}

// morpher registers a map to others.
type morpher struct {
	m                     *labelMap
	group                 [256]uint8
	own, moved, wanted    []shares
	velocity, update      [3][]float32
	flow                  *flow
	smoothStep, smoothAll resampler
}

func newMorpher(m *labelMap) *morpher {
	p := &morpher{m: m, group: groupOf(), moved: make([]shares, latticeLen), wanted: make([]shares, latticeLen), flow: newFlow()}
	p.own = make([]shares, latticeLen)
	p.shares(p.own, m, volume.Identity)
	for c := range 3 {
		p.velocity[c], p.update[c] = make([]float32, latticeLen), make([]float32, latticeLen)
	}
	for a, n := range latticeShape {
		p.smoothStep.axis[a].gaussian(n, n, 0, 1, morphUpdate)
		p.smoothAll.axis[a].gaussian(n, n, 0, 1, morphBlur)
	}
	return p
}

// shares fills in what each group has of the 4 mm round each lattice point,
// seen in m through an affine.
func (p *morpher) shares(out []shares, m *labelMap, to volume.Affine) {
	i := 0
	for z := range latticeShape[2] {
		for y := range latticeShape[1] {
			for x := range latticeShape[0] {
				s := &out[i]
				i++
				*s = shares{}
				q := latticePoint(x, y, z)
				for k := range latticeMM * latticeMM * latticeMM {
					o := [3]float64{
						q[0] + float64(k%latticeMM) - (latticeMM-1)/2.,
						q[1] + float64(k/latticeMM%latticeMM) - (latticeMM-1)/2.,
						q[2] + float64(k/latticeMM/latticeMM) - (latticeMM-1)/2.,
					}
					o = to.Apply(o)
					var v [3]int
					in := true
					for a := range 3 {
						v[a] = int(o[a] + float64(mapShape[a])/2)
						in = in && o[a] > -float64(mapShape[a])/2 && v[a] < mapShape[a]
					}
					t := uint8(air)
					if in {
						t = m.data[(v[2]*mapShape[1]+v[1])*mapShape[0]+v[0]]
					}
					s[p.group[t]] += 1. / (latticeMM * latticeMM * latticeMM)
				}
			}
		}
	}
}

// towards returns the velocity that makes the map like another one that is seen
// through an affine.
func (p *morpher) towards(other *labelMap, to volume.Affine) [][3]float32 {
	p.shares(p.wanted, other, to)
	for c := range p.velocity {
		clear(p.velocity[c])
	}
	for range morphSteps {
		p.move()
		p.force()
		for c := range 3 {
			p.smoothStep.run(p.update[c], p.update[c])
			for i, u := range p.update[c] {
				p.velocity[c][i] += u
			}
			p.smoothAll.run(p.velocity[c], p.velocity[c])
		}
	}
	out := make([][3]float32, latticeLen)
	for i := range out {
		out[i] = [3]float32{p.velocity[0][i], p.velocity[1][i], p.velocity[2][i]}
	}
	return out
}

// move fills p.moved: the map's shares where the velocity takes them.
func (p *morpher) move() {
	f := p.flow
	for i := range f.u {
		f.u[i] = [3]float32{p.velocity[0][i], p.velocity[1][i], p.velocity[2][i]}
	}
	f.integrate()
	i := 0
	for z := range latticeShape[2] {
		for y := range latticeShape[1] {
			for x := range latticeShape[0] {
				u := f.u[i]
				a, fx := split(float32(x)+u[0]/latticeMM, latticeShape[0])
				b, fy := split(float32(y)+u[1]/latticeMM, latticeShape[1])
				c, fz := split(float32(z)+u[2]/latticeMM, latticeShape[2])
				out := &p.moved[i]
				*out = shares{}
				i++
				for k := range 8 {
					w := pick(k&1, fx) * pick(k>>1&1, fy) * pick(k>>2, fz)
					s := &p.own[((c+k>>2)*latticeShape[1]+b+k>>1&1)*latticeShape[0]+a+k&1]
					for g := range s {
						out[g] += w * s[g]
					}
				}
			}
		}
	}
}

// pick is the weight of the lower or the upper neighbour.
func pick(upper int, f float32) float32 {
	if upper == 1 {
		return f
	}
	return 1 - f
}

// force fills p.update with a demons step: along the mean gradient of what is
// there and what is wanted, half a lattice point at most.
func (p *morpher) force() {
	stride := [3]int{1, latticeShape[0], latticeShape[0] * latticeShape[1]}
	for c := range 3 {
		clear(p.update[c])
	}
	for z := 1; z < latticeShape[2]-1; z++ {
		for y := 1; y < latticeShape[1]-1; y++ {
			for x := 1; x < latticeShape[0]-1; x++ {
				i := z*stride[2] + y*stride[1] + x
				var push [3]float32
				var size float32
				here, want := &p.moved[i], &p.wanted[i]
				for g := range here {
					d := want[g] - here[g]
					if d == 0 {
						continue
					}
					size += d * d
					for a, s := range stride {
						slope := (p.moved[i+s][g] - p.moved[i-s][g] + p.wanted[i+s][g] - p.wanted[i-s][g]) / 4
						push[a] += d * slope
						size += slope * slope
					}
				}
				if size > 1e-6 {
					for a := range 3 {
						p.update[a][i] = latticeMM * push[a] / size
					}
				}
			}
		}
	}
}

// addMorph adds parts of some of the map's morphs. A part varies about its mean
// over the head, so that one structure takes after another map than the next.
func (f *flow) addMorph(r *random, m *labelMap, part Range, spread, knotsMM float64) {
	for range morphsAHead {
		v := m.morphs[r.intN(len(m.morphs))]
		mean := float32(r.in(part))
		f.drawField(r, knotsMM, spread)
		for i := range f.u {
			k := mean + f.comp[i]
			for c := range 3 {
				f.u[i][c] += k * v[i][c]
			}
		}
	}
}
