package fmri

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"unsafe"

	"neuroscreen"
	"neuroscreen/internal/durable"
	"neuroscreen/internal/nifti"
	"neuroscreen/internal/volume"
)

// Stable codes about the length of a run.
const (
	TooFewVolumes = "too-few-volumes" // refuses
	TooShort      = "too-short"       // network measures are withheld from comparison
	Dummies       = "dummy-scans"
)

const (
	// MinFrames: with fewer, not even motion can be judged.
	MinFrames = 20
	// MinSeconds of a run whose network measures may be compared. Connectivity
	// of shorter ones is mostly noise (Van Dijk 2010, doi:10.1152/jn.00783.2009).
	MinSeconds = 240
)

// Run is a spooled 4-D image without its dummy scans. Close it.
type Run struct {
	volume.Grid
	TR        TR
	Frames    int       // that are kept
	Dummies   int       // volumes dropped at the start
	NonFinite int       // voxels over all volumes that were NaN or infinite, now 0
	Means     []float64 // of every volume of the file, dummies included
	change    []float64 // mean absolute difference from the volume before, of every volume
	file      *os.File
}

// Read spools a run, volume by volume, to an unlinked temporary file of four
// bytes a voxel and finds its dummy scans.
//
// Errors: CodeUnprocessable TooFewVolumes; CodeUnavailable "storage-full";
// *nifti.Error; ctx's; the disk's.
func Read(ctx context.Context, rd *nifti.Reader, tr TR) (_ *Run, err error) {
	h := rd.Header()
	if n := h.Volumes(); n < MinFrames {
		return nil, neuroscreen.Errorf(neuroscreen.CodeUnprocessable, TooFewVolumes,
			"the image's shape is %v: %d volumes; a run over time of at least %d is needed", h.Shape, n, MinFrames)
	}
	f, err := os.CreateTemp("", "neuroscreen-run-*")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	// Without a name it holds a patient's image no longer than this process.
	if err := os.Remove(f.Name()); err != nil {
		return nil, err
	}
	r := &Run{Grid: volume.Grid{Shape: h.Shape3(), Affine: volume.Affine(h.Affine)}, TR: tr, file: f}
	v, before := make([]float32, r.Len()), make([]float32, r.Len())
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := rd.Next(v); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, err
		}
		sum, change := 0.0, 0.0
		for i, x := range v {
			if x-x != 0 {
				x, v[i] = 0, 0
			}
			sum += float64(x)
			change += math.Abs(float64(x - before[i]))
		}
		r.Means = append(r.Means, sum/float64(len(v)))
		r.change = append(r.change, change/float64(len(v)))
		if _, err := f.Write(bytesOf(v)); err != nil {
			if full := durable.NoRoom(err); full != nil {
				return nil, full
			}
			return nil, fmt.Errorf("spooling a run: %w", err)
		}
		v, before = before, v
	}
	r.NonFinite = rd.NonFinite()
	r.Dummies = DummyScans(r.Means)
	r.Frames = len(r.Means) - r.Dummies
	if r.Frames < MinFrames {
		return nil, neuroscreen.Errorf(neuroscreen.CodeUnprocessable, TooFewVolumes,
			"%d of %d volumes are left without the dummy scans; at least %d are needed", r.Frames, len(r.Means), MinFrames)
	}
	return r, nil
}

// Close removes the spooled volumes.
func (r *Run) Close() error { return r.file.Close() }

// Frame reads volume t into dst, which must hold Len() values. It may be called
// from several goroutines.
func (r *Run) Frame(t int, dst []float32) error {
	if t < 0 || t >= r.Frames || len(dst) != r.Len() {
		panic(fmt.Sprintf("fmri: frame %d of %d into %d of %d voxels", t, r.Frames, len(dst), r.Len()))
	}
	size := int64(r.Len()) * 4
	if _, err := r.file.ReadAt(bytesOf(dst), int64(t+r.Dummies)*size); err != nil {
		return fmt.Errorf("spooled run: %w", err)
	}
	return nil
}

// Seconds that the kept frames last.
func (r *Run) Seconds() float64 { return float64(r.Frames) * r.TR.Seconds }

// Notes are the reasons that go with a result: of the repetition time, of dummy
// scans, of the length.
func (r *Run) Notes() []neuroscreen.Reason {
	notes := slices.Clone(r.TR.Notes)
	if r.Dummies > 0 {
		v := float64(r.Dummies)
		notes = append(notes, neuroscreen.Reason{Code: Dummies, Value: &v, Text: fmt.Sprintf(
			"The first %d volumes were taken before the magnetisation was steady and are left out.", r.Dummies)})
	}
	if s, limit := r.Seconds(), float64(MinSeconds); s < limit {
		notes = append(notes, neuroscreen.Reason{Code: TooShort, Value: &s, Limit: &limit, Text: fmt.Sprintf(
			"The run lasts %.0f s; networks are compared from %.0f s on.", s, limit)})
	}
	return notes
}

// steadiest returns the frame that differs least from its neighbours.
func (r *Run) steadiest() int {
	change := r.change[r.Dummies:]
	best := 1
	for t := 1; t+1 < len(change); t++ {
		if change[t]+change[t+1] < change[best]+change[best+1] {
			best = t
		}
	}
	return best
}

const (
	dummyWindow    = 50  // volumes that are looked at
	dummyThreshold = 3.5 // modified z-score of an outlier (Iglewicz and Hoaglin 1993)
)

// DummyScans counts the volumes at the start that were taken before the
// magnetisation was steady, of the mean signal of every volume: those whose
// modified z-score, .6745 |x-median| / MAD over the first 50 volumes, is over
// 3.5 without a gap (nipype's NonSteadyStateDetector). Saturation makes them
// brighter, some sequences' preparation darker; both are dropped.
func DummyScans(means []float64) int {
	w := means[:min(len(means), dummyWindow)]
	m := median(slices.Clone(w))
	off := make([]float64, len(w))
	for i, v := range w {
		off[i] = math.Abs(v - m)
	}
	mad := median(slices.Clone(off))
	n := 0
	for n < len(w) && 0.6745*off[n] > dummyThreshold*mad {
		n++
	}
	return n
}

// median sorts x.
func median(x []float64) float64 {
	slices.Sort(x)
	n := len(x)
	if n == 0 {
		return math.NaN()
	}
	return (x[(n-1)/2] + x[n/2]) / 2
}

// bytesOf is x as it lies in memory: the spool never leaves this machine.
func bytesOf(x []float32) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(x))), 4*len(x))
}
