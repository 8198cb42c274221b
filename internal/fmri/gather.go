package fmri

import (
	"context"
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/stat"

	"neuroscreen"
	"neuroscreen/internal/volume"
)

// GridsDiffer refuses files in one decoding whose voxels don't correspond.
const GridsDiffer = "grids-differ"

const (
	// signalShare of the bright voxels' mean that a voxel of the head has.
	signalShare = 0.25
	// sameGridMM: files whose voxels lie closer than this share a grid.
	sameGridMM = 0.1
	// rigidTolerance of the voxels' axes between two files; beyond, voxels have
	// other sizes.
	rigidTolerance = 2e-3
	// mostTilt between the slices of two sessions, in radians.
	mostTilt = 0.5
	// sameHead is the least correlation of the means of two files of one head,
	// over its voxels.
	sameHead = 0.7
)

// Gatherer collects the samples of a decoding from one file after the other.
// Every file is aligned with the first one's reference frame, so that a voxel is
// the same place in all of them; only samples are kept.
type Gatherer struct {
	ignore []string
	lag    float64

	first  volume.Grid
	follow *aligner // nil where the volumes have too few slices to be aligned
	mean   []float32
	mask   []bool
	files  []*Samples
	voxels [][]int32 // of each file
}

// NewGatherer collects events but those of the ignored types, each answered by
// the volumes lag seconds later.
func NewGatherer(ignore []string, lag float64) *Gatherer {
	return &Gatherer{ignore: ignore, lag: lag}
}

// Add takes a file's events; r may be closed afterwards. It reports whether the
// volumes were aligned.
//
// A file of another session needs the first one's shape and voxels, and may lie
// elsewhere: what the headers say of it is where the alignment begins, and the
// means must show the same head afterwards.
//
// Errors: CodeUnprocessable EventsInvalid, NotAligned, GridsDiffer; ctx's; the
// spool's.
func (g *Gatherer) Add(ctx context.Context, r *Run, events []Event) (aligned bool, err error) {
	var al *Alignment
	var mean []float32
	switch {
	case len(g.files) == 0:
		g.first = r.Grid
		if min(r.Shape[0], r.Shape[1], r.Shape[2]) >= 2*splineOverlap {
			al, g.follow, err = realignTo(ctx, r, r.steadiest())
		}
	case g.follow == nil && !r.Grid.Near(g.first, sameGridMM):
		err = gridsDiffer("the volumes of %v voxels lie elsewhere than those of the first file, and have too few slices to be aligned with them", r.Shape)
	case g.follow != nil:
		var start Motion
		if start, err = lies(g.first, r.Grid, g.follow.centre); err == nil {
			r.Grid = g.first
			al, err = g.follow.follow(ctx, r, -1, start)
		}
	}
	if err != nil {
		return false, err
	}
	if al == nil {
		mean, err = r.plainMean(ctx)
	} else {
		var image *volume.Volume
		if image, err = r.MeanImage(ctx, al); err == nil {
			mean = image.Data
		}
	}
	if err != nil {
		return false, err
	}
	if len(g.files) == 0 {
		g.mean, g.mask = mean, make([]bool, len(mean))
		threshold := signalShare * volume.Percentiles(mean, 98)[0]
		for i, v := range mean {
			g.mask[i] = v > threshold
		}
	} else if c := g.likeness(mean); !(c >= sameHead) {
		return false, neuroscreen.Errorf(neuroscreen.CodeUnprocessable, NotAligned,
			"the mean of the volumes correlates by %.2f with that of the first file (limit %.2f): another head, or one that lies too far away", c, float64(sameHead))
	}
	series, err := r.Series(ctx, al, g.mask)
	if err != nil {
		return false, err
	}
	samples, err := MakeSamples(series, r, events, g.ignore, g.lag)
	if err != nil {
		return false, err
	}
	g.files, g.voxels = append(g.files, samples), append(g.voxels, series.Voxels)
	return al != nil, nil
}

func gridsDiffer(format string, args ...any) error {
	return neuroscreen.Errorf(neuroscreen.CodeUnprocessable, GridsDiffer, format, args...)
}

// lies is how the scanner's space of a file lies in that of the first: both
// grids then have the same affine.
func lies(first, other volume.Grid, centre [3]float64) (Motion, error) {
	if other.Shape != first.Shape {
		return Motion{}, gridsDiffer("the volumes have %v voxels and those of the first file %v; files of one decoding need the same", other.Shape, first.Shape)
	}
	a := first.Affine.Mul(other.Affine.Inverse())
	for i := range 3 {
		for j := range 3 {
			dot, want := 0.0, 0.0
			for k := range 3 {
				dot += a[k][i] * a[k][j]
			}
			if i == j {
				want = 1
			}
			if math.Abs(dot-want) > rigidTolerance {
				return Motion{}, gridsDiffer("the voxels are of %.3g mm and those of the first file of %.3g mm; files of one decoding need the same", other.VoxelSize(), first.VoxelSize())
			}
		}
	}
	if tilt := math.Acos(min((a[0][0]+a[1][1]+a[2][2]-1)/2, 1)); a.Det() < 0 || !(tilt <= mostTilt) {
		return Motion{}, gridsDiffer("the axes of the volumes (%s) point elsewhere than those of the first file (%s); store both in the same order", other.Orientation(), first.Orientation())
	}
	return motionOf(a, centre), nil
}

// likeness is the correlation of an aligned mean with the first file's, over
// the head.
func (g *Gatherer) likeness(mean []float32) float64 {
	var a, b []float64
	for i, in := range g.mask {
		if in {
			a, b = append(a, float64(g.mean[i])), append(b, float64(mean[i]))
		}
	}
	return stat.Correlation(a, b, nil)
}

// Samples of all files, on the voxels that all of them have, whose positions
// are returned too. Runs are named as in the file's table; of several files,
// with the file's number before, counted from 1.
//
// Errors: CodeUnprocessable NotAligned when no voxel is left.
func (g *Gatherer) Samples() (*Samples, []int32, error) {
	in := make([]int, g.first.Len())
	for _, voxels := range g.voxels {
		for _, at := range voxels {
			in[at]++
		}
	}
	out := &Samples{}
	for _, f := range g.files {
		out.Conditions = append(out.Conditions, f.Conditions...)
	}
	slices.Sort(out.Conditions)
	out.Conditions = slices.Compact(out.Conditions)
	var shared []int32
	for n, f := range g.files {
		var keep []int // of the file's voxels, those that all have
		for v, at := range g.voxels[n] {
			if in[at] == len(g.files) {
				keep = append(keep, v)
				if n == 0 {
					shared = append(shared, at)
				}
			}
		}
		runs := map[int]int{}
		for i, x := range f.X {
			run, ok := runs[f.Run[i]]
			if !ok {
				run = len(out.Runs)
				runs[f.Run[i]] = run
				out.Runs = append(out.Runs, g.runName(n, f.Runs[f.Run[i]]))
			}
			for k, v := range keep {
				x[k] = x[v] // keep ascends
			}
			out.X = append(out.X, x[:len(keep)])
			out.Run = append(out.Run, run)
			out.Class = append(out.Class, slices.Index(out.Conditions, f.Conditions[f.Class[i]]))
		}
	}
	if len(shared) == 0 {
		return nil, nil, neuroscreen.Errorf(neuroscreen.CodeUnprocessable, NotAligned, "no voxel of the head stays in the field of view throughout all files")
	}
	return out, shared, nil
}

func (g *Gatherer) runName(file int, run string) string {
	switch {
	case len(g.files) == 1:
		return run
	case run == "":
		return fmt.Sprint(file + 1)
	}
	return fmt.Sprintf("%d/%s", file+1, run)
}
