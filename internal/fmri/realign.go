package fmri

import (
	"context"
	"math"
	"slices"

	"gonum.org/v1/gonum/mat"

	"neuroscreen"
	"neuroscreen/internal/volume"
)

// NotAligned refuses a run in which nothing can be followed from frame to frame.
const NotAligned = "not-aligned"

// Alignment of a run.
type Alignment struct {
	Reference int        // the frame that all others are compared with; -1 for one of another file
	Centre    [3]float64 // of rotation, mm
	Motion    []Motion   // one a frame; the reference's is zero
}

const (
	coarsestMM    = 6    // voxels of the coarsest level: motions of up to that size are caught
	minEdge       = 12   // voxels that a halved axis must keep
	maxSteps      = 25   // of Gauss-Newton on one level
	settledMM     = 2e-3 // a step smaller than this, at 50 mm from the centre, is the last
	minShare      = 0.5  // of the points must stay in the field of view
	headShare     = 0.15 // of the bright voxels' signal is head
	columns       = 7    // three translations, three rotations, one gain
	thinning      = 3    // of the finest level's points; errors stay far below the noise's
	minPoints     = 200  // on the coarsest level
	splineOverlap = 3    // voxels at an edge where four splines don't fit
)

// Realign finds the motion of every frame against the steadiest one.
//
// Frames are compared as surfaces of cubic B-splines whose coefficients are the
// voxels themselves: that is a smoothing by about a voxel, and its gradient is
// exact. Each level of a pyramid runs inverse compositional Gauss-Newton (Baker
// and Matthews 2004, doi:10.1023/B:VISI.0000011205.11775.fd): gradients and
// Hessian belong to the reference and are computed once; points that leave the
// field of view are taken out of them. A gain a frame takes up changes of
// brightness.
//
// Errors: CodeUnprocessable NotAligned; ctx's; the spool's.
func Realign(ctx context.Context, r *Run) (*Alignment, error) {
	out, _, err := realignTo(ctx, r, r.steadiest())
	return out, err
}

// realignTo is Realign to a given frame; it also returns what follows it.
func realignTo(ctx context.Context, r *Run, reference int) (*Alignment, *aligner, error) {
	ref := make([]float32, r.Len())
	if err := r.Frame(reference, ref); err != nil {
		return nil, nil, err
	}
	a := newAligner(r.Grid, ref)
	if a == nil {
		return nil, nil, neuroscreen.Errorf(neuroscreen.CodeUnprocessable, NotAligned,
			"the volumes of %v voxels show too little of a head to follow its motion; send the whole run", r.Shape)
	}
	out, err := a.follow(ctx, r, reference, Motion{})
	return out, a, err
}

// follow aligns all frames but the reference, -1 for none, each from start on.
func (a *aligner) follow(ctx context.Context, r *Run, reference int, start Motion) (*Alignment, error) {
	out := &Alignment{Reference: reference, Centre: a.centre, Motion: make([]Motion, r.Frames)}
	err := each(ctx, r.Frames, func(t int) error {
		if t == reference {
			return nil
		}
		s := a.scratch()
		defer a.pool.put(s)
		if err := r.Frame(t, s.levels[0]); err != nil {
			return err
		}
		out.Motion[t] = a.align(s, start)
		return nil
	})
	return out, err
}

// aligner holds what belongs to the reference.
type aligner struct {
	centre [3]float64
	levels []level // finest first
	pool   pool[*scratch]
}

// level of the pyramid.
type level struct {
	shape  [3]int
	affine volume.Affine
	points []point
	hess   [columns * columns]float64
}

// point of the reference.
type point struct {
	ijk   [3]float32
	value float32
	j     [columns]float32 // derivative of the value by motion (mm, rad) and gain
}

// scratch is one frame's pyramid.
type scratch struct{ levels [][]float32 }

func (a *aligner) scratch() *scratch {
	return a.pool.get(func() *scratch {
		s := &scratch{}
		for _, l := range a.levels {
			s.levels = append(s.levels, make([]float32, l.shape[0]*l.shape[1]*l.shape[2]))
		}
		return s
	})
}

// newAligner returns nil when the reference shows no head.
func newAligner(g volume.Grid, ref []float32) *aligner {
	a := &aligner{}
	data := [][]float32{ref}
	shapes, affines := [][3]int{g.Shape}, []volume.Affine{g.Affine}
	for {
		n := len(shapes) - 1
		step := halving(shapes[n], affines[n])
		if step == [3]int{1, 1, 1} {
			break
		}
		s, half := halve(nil, data[n], shapes[n], step)
		shapes, data = append(shapes, s), append(data, half)
		m := volume.Identity
		for i, k := range step {
			m[i][i], m[i][3] = float64(k), float64(k-1)/2
		}
		affines = append(affines, affines[n].Mul(m))
	}
	a.centre = g.Centre()
	for n := range shapes {
		l := newLevel(shapes[n], affines[n], data[n], n == 0, &a.centre)
		if l == nil {
			return nil
		}
		a.levels = append(a.levels, *l)
	}
	return a
}

// halving returns by how much each axis shrinks to the next level.
func halving(shape [3]int, affine volume.Affine) [3]int {
	step := [3]int{1, 1, 1}
	for i, mm := range affine.VoxelSize() {
		if mm < 0.75*coarsestMM && shape[i] >= 2*minEdge {
			step[i] = 2
		}
	}
	return step
}

// halve averages blocks of voxels into dst, which may be nil; odd voxels at the
// end are left out.
func halve(dst, src []float32, n, step [3]int) ([3]int, []float32) {
	s := [3]int{n[0] / step[0], n[1] / step[1], n[2] / step[2]}
	if dst == nil {
		dst = make([]float32, s[0]*s[1]*s[2])
	}
	w := 1 / float32(step[0]*step[1]*step[2])
	at := 0
	for k := range s[2] {
		for j := range s[1] {
			out := dst[at : at+s[0]]
			at += s[0]
			clear(out)
			for dk := range step[2] {
				for dj := range step[1] {
					in := src[n[0]*(j*step[1]+dj+n[1]*(k*step[2]+dk)):][:n[0]]
					if step[0] == 2 {
						for i := range out {
							out[i] += w * (in[2*i] + in[2*i+1])
						}
					} else {
						for i := range out {
							out[i] += w * in[i]
						}
					}
				}
			}
		}
	}
	return s, dst
}

// newLevel finds the points of a level. The finest level sets the centre to
// that of its head, and takes one voxel in thinning.
func newLevel(n [3]int, affine volume.Affine, c []float32, finest bool, centre *[3]float64) *level {
	if min(n[0], n[1], n[2]) < 2*splineOverlap {
		return nil
	}
	l := &level{shape: n, affine: affine}
	w0, d0 := bspline(0), bsplineSlope(0)
	value := make([]float32, len(c))
	for k := 1; k < n[2]-2; k++ {
		for j := 1; j < n[1]-2; j++ {
			for i := 1; i < n[0]-2; i++ {
				at := i + n[0]*(j+n[1]*k)
				value[at] = sum4(c, at-1-n[0]-n[0]*n[1], n[0], n[0]*n[1], &w0, &w0, &w0)
			}
		}
	}
	head := headMask(value, n)
	var sum [3]float64
	for k := 1; k < n[2]-2; k++ {
		for j := 1; j < n[1]-2; j++ {
			for i := 1; i < n[0]-2; i++ {
				at := i + n[0]*(j+n[1]*k)
				if !head[at] || finest && (i+j+k)%thinning != 0 {
					continue
				}
				// Derivative by voxel index, still in the place of the motion's.
				o := at - 1 - n[0] - n[0]*n[1]
				p := point{ijk: [3]float32{float32(i), float32(j), float32(k)}, value: value[at]}
				p.j[0] = sum4(c, o, n[0], n[0]*n[1], &d0, &w0, &w0)
				p.j[1] = sum4(c, o, n[0], n[0]*n[1], &w0, &d0, &w0)
				p.j[2] = sum4(c, o, n[0], n[0]*n[1], &w0, &w0, &d0)
				l.points = append(l.points, p)
				x := affine.Apply([3]float64{float64(i), float64(j), float64(k)})
				for a := range 3 {
					sum[a] += x[a]
				}
			}
		}
	}
	if len(l.points) < minPoints {
		return nil
	}
	if finest {
		for a := range 3 {
			centre[a] = sum[a] / float64(len(l.points))
		}
	}
	inv := affine.Inverse()
	for i := range l.points {
		p := &l.points[i]
		x := affine.Apply([3]float64{float64(p.ijk[0]), float64(p.ijk[1]), float64(p.ijk[2])})
		var g, u [3]float64
		for a := range 3 {
			for b := range 3 {
				g[a] += float64(p.j[b]) * inv[b][a]
			}
			u[a] = x[a] - centre[a]
		}
		p.j = [columns]float32{
			float32(g[0]), float32(g[1]), float32(g[2]),
			float32(u[1]*g[2] - u[2]*g[1]), float32(u[2]*g[0] - u[0]*g[2]), float32(u[0]*g[1] - u[1]*g[0]),
			p.value,
		}
		p.addHessian(&l.hess, 1)
	}
	return l
}

func (p *point) addHessian(h *[columns * columns]float64, sign float64) {
	for a := range columns {
		for b := range columns {
			h[a*columns+b] += sign * float64(p.j[a]) * float64(p.j[b])
		}
	}
}

// headMask is true where the signal is over a share of the bright voxels' and
// in their neighbours, where the edge's gradient is.
func headMask(v []float32, n [3]int) []bool {
	threshold := headShare * volume.Percentiles(v, 98)[0]
	in := make([]bool, len(v))
	if !(threshold > 0) {
		return in
	}
	for at, x := range v {
		in[at] = x > threshold
	}
	core := slices.Clone(in)
	for _, step := range [3]int{1, n[0], n[0] * n[1]} {
		for at := step; at < len(in)-step; at++ {
			in[at] = in[at] || core[at-step] || core[at+step]
		}
	}
	return in
}

// align finds the motion of the frame in s.levels[0], from start on.
func (a *aligner) align(s *scratch, start Motion) Motion {
	for n := 1; n < len(a.levels); n++ {
		up := &a.levels[n-1]
		halve(s.levels[n], s.levels[n-1], up.shape, halving(up.shape, up.affine))
	}
	w := start.Affine(a.centre)
	for n := len(a.levels) - 1; n >= 0; n-- {
		w = a.levels[n].align(s.levels[n], w, a.centre)
	}
	return motionOf(w, a.centre)
}

// align improves w, from the reference's millimetres to the frame's.
func (l *level) align(c []float32, w volume.Affine, centre [3]float64) volume.Affine {
	inv := l.affine.Inverse()
	for range maxSteps {
		m := inv.Mul(w).Mul(l.affine)
		h := l.hess
		b, seen := l.compare(c, m, &h)
		if float64(seen) < minShare*float64(len(l.points)) {
			break
		}
		step, ok := solve(&h, &b)
		if !ok {
			break
		}
		delta := smallMotion(step, centre)
		w = w.Mul(delta.Inverse())
		moved := 0.0
		for a := range 3 {
			moved = max(moved, math.Abs(step[a]), headRadius*math.Abs(step[3+a]))
		}
		if moved < settledMM {
			break
		}
	}
	return w
}

// compare samples the frame where m takes the points and returns J'r and the
// number of points seen, r being frame minus reference. The points out of sight
// are taken from h.
func (l *level) compare(c []float32, m volume.Affine, h *[columns * columns]float64) (b [columns]float64, seen int) {
	var a [3][4]float32
	for i := range 3 {
		for j := range 4 {
			a[i][j] = float32(m[i][j])
		}
	}
	nx, nxy := l.shape[0], l.shape[0]*l.shape[1]
	hi := [3]float32{float32(l.shape[0] - 2), float32(l.shape[1] - 2), float32(l.shape[2] - 2)}
	for n := range l.points {
		p := &l.points[n]
		x := a[0][0]*p.ijk[0] + a[0][1]*p.ijk[1] + a[0][2]*p.ijk[2] + a[0][3]
		y := a[1][0]*p.ijk[0] + a[1][1]*p.ijk[1] + a[1][2]*p.ijk[2] + a[1][3]
		z := a[2][0]*p.ijk[0] + a[2][1]*p.ijk[1] + a[2][2]*p.ijk[2] + a[2][3]
		if !(x >= 1 && x < hi[0] && y >= 1 && y < hi[1] && z >= 1 && z < hi[2]) {
			p.addHessian(h, -1)
			continue
		}
		ix, iy, iz := int(x), int(y), int(z)
		wx, wy, wz := bspline(x-float32(ix)), bspline(y-float32(iy)), bspline(z-float32(iz))
		v := sum4(c, ix-1+nx*(iy-1)+nxy*(iz-1), nx, nxy, &wx, &wy, &wz)
		r := v - p.value
		for k := range b {
			b[k] += float64(p.j[k] * r)
		}
		seen++
	}
	return b, seen
}

// solve returns the least-squares step.
func solve(h *[columns * columns]float64, b *[columns]float64) (x [columns]float64, ok bool) {
	var chol mat.Cholesky
	if !chol.Factorize(mat.NewSymDense(columns, h[:])) {
		return x, false
	}
	if err := chol.SolveVecTo(mat.NewVecDense(columns, x[:]), mat.NewVecDense(columns, b[:])); err != nil {
		return x, false
	}
	return x, true
}

// smallMotion is the rotation by the vector step[3:6] about the centre and the
// shift by step[0:3] (Rodrigues' formula).
func smallMotion(step [columns]float64, c [3]float64) volume.Affine {
	v := [3]float64{step[3], step[4], step[5]}
	angle := math.Sqrt(v[0]*v[0] + v[1]*v[1] + v[2]*v[2])
	s, k := 1.0, 0.5
	if angle > 1e-9 {
		s, k = math.Sin(angle)/angle, (1-math.Cos(angle))/(angle*angle)
	}
	cross := [3][3]float64{{0, -v[2], v[1]}, {v[2], 0, -v[0]}, {-v[1], v[0], 0}}
	a := volume.Identity
	for i := range 3 {
		for j := range 3 {
			a[i][j] += s * cross[i][j]
			for n := range 3 {
				a[i][j] += k * cross[i][n] * cross[n][j]
			}
		}
	}
	for i := range 3 {
		a[i][3] = c[i] + step[i] - (a[i][0]*c[0] + a[i][1]*c[1] + a[i][2]*c[2])
	}
	return a
}
