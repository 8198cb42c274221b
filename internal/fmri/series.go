package fmri

import (
	"context"
	"fmt"
	"sync/atomic"

	"neuroscreen/internal/volume"
)

// Series are the frames of some voxels, aligned with the reference.
type Series struct {
	Frames int
	Voxels []int32   // positions in the volume, ascending
	Data   []float32 // voxel n's frames follow each other from n*Frames on
}

// Voxel returns the frames of the n-th voxel.
func (s *Series) Voxel(n int) []float32 { return s.Data[n*s.Frames:][:s.Frames] }

// MeanImage is the mean of all frames, aligned trilinearly with the reference.
func (r *Run) MeanImage(ctx context.Context, al *Alignment) (*volume.Volume, error) {
	out := volume.New(r.Grid)
	// A fixed number of sums, each of every n-th frame, keeps the result from
	// depending on the number of threads.
	sums := make([]*volume.Volume, 4)
	err := each(ctx, len(sums), func(n int) error {
		sums[n] = volume.New(r.Grid)
		v, moved := make([]float32, r.Len()), make([]float32, r.Len())
		for t := n; t < r.Frames; t += len(sums) {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := r.Frame(t, v); err != nil {
				return err
			}
			m := al.Motion[t].Affine(al.Centre)
			volume.ResampleInto(moved, volume.Grid{Shape: r.Shape, Affine: m.Mul(r.Affine)}, v, r.Grid, volume.Options{Threads: 1})
			for i, x := range moved {
				sums[n].Data[i] += x
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i := range out.Data {
		var x float32
		for _, s := range sums {
			x += s.Data[i]
		}
		out.Data[i] = x / float32(r.Frames)
	}
	return out, nil
}

// frameBlock is how many frames a thread writes next to each other.
const frameBlock = 16

// maxOutside is how far beyond the outermost voxel centres, in voxels, a place
// still belongs to the field of view.
const maxOutside = 0.5

// Series returns the frames of the voxels for which mask holds, by cubic spline
// interpolation where the head has moved to. Voxels that leave the field of
// view in some frame are left out. Without an alignment frames are taken as
// they are.
//
// Errors: ctx's; the spool's.
func (r *Run) Series(ctx context.Context, al *Alignment, mask []bool) (*Series, error) {
	return r.series(ctx, al, mask, nil)
}

// series is Series with voxels left out only for the frames that count, or for
// all without counts. Where they are out of view in another, they have the value
// at the edge.
func (r *Run) series(ctx context.Context, al *Alignment, mask, counts []bool) (*Series, error) {
	if len(mask) != r.Len() {
		panic(fmt.Sprintf("fmri: a mask of %d voxels for %d", len(mask), r.Len()))
	}
	s := &Series{Frames: r.Frames}
	for at, in := range mask {
		if in {
			s.Voxels = append(s.Voxels, int32(at))
		}
	}
	s.Data = make([]float32, len(s.Voxels)*s.Frames)
	lost := make([]atomic.Bool, len(s.Voxels))
	blocks := (r.Frames + frameBlock - 1) / frameBlock
	var scratch pool[[]float32]
	err := each(ctx, blocks, func(b int) error {
		v := scratch.get(func() []float32 { return make([]float32, r.Len()) })
		defer scratch.put(v)
		for t := b * frameBlock; t < min(r.Frames, (b+1)*frameBlock); t++ {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := r.Frame(t, v); err != nil {
				return err
			}
			if al == nil || al.Motion[t] == (Motion{}) {
				for n, at := range s.Voxels {
					s.Data[n*s.Frames+t] = v[at]
				}
				continue
			}
			prefilter(v, r.Shape)
			m := r.Affine.Inverse().Mul(al.Motion[t].Affine(al.Centre)).Mul(r.Affine)
			for n, at := range s.Voxels {
				i, j, k := int(at)%r.Shape[0], int(at)/r.Shape[0]%r.Shape[1], int(at)/(r.Shape[0]*r.Shape[1])
				x, ok := spline(v, r.Shape, m.Apply([3]float64{float64(i), float64(j), float64(k)}))
				if !ok && (counts == nil || counts[t]) {
					lost[n].Store(true)
				}
				s.Data[n*s.Frames+t] = x
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.keep(func(n int) bool { return !lost[n].Load() })
	return s, nil
}

// keep drops the voxels for which f doesn't hold.
func (s *Series) keep(f func(n int) bool) {
	kept := 0
	for n := range s.Voxels {
		if f(n) {
			if kept != n {
				s.Voxels[kept] = s.Voxels[n]
				copy(s.Voxel(kept), s.Voxel(n))
			}
			kept++
		}
	}
	s.Voxels, s.Data = s.Voxels[:kept], s.Data[:kept*s.Frames]
}

// spline evaluates the cubic spline with coefficients c, mirrored at the
// outermost voxels. Outside the field of view it is false, with the value at
// the nearest edge.
func spline(c []float32, n [3]int, p [3]float64) (float32, bool) {
	var i0 [3]int
	var w [3][4]float32
	inside, inView := true, true
	for a := range 3 {
		x, low, high := p[a], -maxOutside, float64(n[a]-1)+maxOutside
		if !(x >= low && x <= high) {
			inView = false
			if x > high {
				x = high
			} else { // or no number
				x = low
			}
		}
		i0[a] = int(x+1) - 1 // floor, from -1 on
		w[a] = bspline(float32(x - float64(i0[a])))
		inside = inside && i0[a] >= 1 && i0[a] <= n[a]-3
	}
	nx, nxy := n[0], n[0]*n[1]
	if inside {
		return sum4(c, i0[0]-1+nx*(i0[1]-1)+nxy*(i0[2]-1), nx, nxy, &w[0], &w[1], &w[2]), inView
	}
	mirror := func(i, n int) int {
		if n == 1 {
			return 0
		}
		if i < 0 {
			i = -i
		}
		if i >= n {
			i = 2*(n-1) - i
		}
		return min(max(i, 0), n-1)
	}
	var sum float32
	for k := range 4 {
		for j := range 4 {
			row := mirror(i0[1]-1+j, n[1])*nx + mirror(i0[2]-1+k, n[2])*nxy
			for i := range 4 {
				sum += w[2][k] * w[1][j] * w[0][i] * c[row+mirror(i0[0]-1+i, n[0])]
			}
		}
	}
	return sum, inView
}

// plainMean is the mean over the frames, without alignment.
func (r *Run) plainMean(ctx context.Context) ([]float32, error) {
	sum, v := make([]float64, r.Len()), make([]float32, r.Len())
	for t := range r.Frames {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := r.Frame(t, v); err != nil {
			return nil, err
		}
		for i, x := range v {
			sum[i] += float64(x)
		}
	}
	for i := range v {
		v[i] = float32(sum[i] / float64(r.Frames))
	}
	return v, nil
}
