package pipeline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"neuroscreen"
	"neuroscreen/internal/fmri"
	"neuroscreen/internal/nifti"
	"neuroscreen/internal/qc"
	"neuroscreen/internal/version"
)

// DecodeFile is one file of a task: a run, or several one after the other.
type DecodeFile struct {
	ScanID   string
	SHA256   string // of the received bytes, hex
	Metadata neuroscreen.Metadata
	Sidecar  *fmri.Sidecar
	Events   []fmri.Event
	// Open returns the image, and the .hdr of a pair or nil; done is called when
	// both were read.
	Open func(context.Context) (image, header io.Reader, done func(), err error)
}

// Decoded is what a decoding gives.
type Decoded struct {
	Result *neuroscreen.Decoding
	// Weights is a gzipped NIfTI file on the first file's grid, a volume for
	// each condition.
	Weights []byte
}

// FileTwice refuses a decoding that would be tested on what it learns from.
const FileTwice = "file-twice"

// Decode tells from a person's task runs what the person did. One file at a time
// is open and in memory; progress, if set, is told how far it is.
//
// Errors: CodeUnprocessable to refuse the files or their events; ctx's; the
// disk's.
func Decode(ctx context.Context, files []DecodeFile, opt neuroscreen.DecodingOptions, limits nifti.Limits, progress func(string)) (*Decoded, error) {
	if progress == nil {
		progress = func(string) {}
	}
	events := make([][]fmri.Event, len(files))
	for n, f := range files {
		events[n] = f.Events
	}
	for n, f := range files {
		if slices.ContainsFunc(files[:n], func(o DecodeFile) bool { return o.SHA256 == f.SHA256 }) {
			return nil, neuroscreen.Errorf(neuroscreen.CodeUnprocessable, FileTwice,
				"file %d is the same as one before it; a run that is also learnt from would seem to be told well", n+1)
		}
	}
	if err := fmri.CheckEvents(events, opt.Ignore); err != nil {
		return nil, err
	}
	out := &neuroscreen.Decoding{Schema: neuroscreen.DecodingSchema, Evidence: neuroscreen.Experimental, Version: version.String(), DecodingOptions: opt}
	gather := fmri.NewGatherer(opt.Ignore, opt.LagSeconds)
	var geometry nifti.Geometry // of the first file, which the weights lie on
	for n, f := range files {
		run, on, err := openRun(ctx, f, limits)
		if err != nil {
			return nil, ofFile(n, len(files), err)
		}
		aligned, err := gather.Add(ctx, run, f.Events)
		run.Close()
		if err != nil {
			return nil, ofFile(n, len(files), err)
		}
		if n == 0 {
			geometry = on
		}
		out.Files = append(out.Files, neuroscreen.DecodingFile{ScanID: f.ScanID, SHA256: f.SHA256, TRSeconds: run.TR.Seconds, TRFrom: run.TR.From,
			DummyScans: run.Dummies, Frames: run.Frames, Realigned: aligned, Notes: append([]neuroscreen.Reason{}, run.TR.Notes...)})
		progress(fmt.Sprintf("file %d of %d: %d volumes, %d events", n+1, len(files), run.Frames, len(f.Events)))
	}
	samples, voxels, err := gather.Samples()
	if err != nil {
		return nil, err
	}
	progress(samples.String())
	options := fmri.DecodeOptions{Voxels: opt.Voxels, Permutations: opt.Permutations, Seed: opt.Seed}
	if opt.Permutations == 0 {
		options.Permutations = -1
	}
	d, err := fmri.Decode(ctx, samples, options)
	if err != nil {
		return nil, err
	}
	out.HeadVoxels, out.SelectedVoxels, out.Samples = len(voxels), d.Voxels, len(samples.X)
	out.Runs, out.Conditions, out.Accuracy, out.Chance = d.Runs, d.Conditions, d.Accuracy, commonest(d.Confusion)
	out.RunAccuracy, out.Confusion = d.Fold, d.Confusion
	if d.Permutations > 0 {
		out.P, out.Shuffled = &d.P, &d.Shuffled
	}
	progress(fmt.Sprintf("accuracy %.3f (chance %.3f)", out.Accuracy, out.Chance))

	size := geometry.Shape[0] * geometry.Shape[1] * geometry.Shape[2]
	volumes := make([]float32, size*len(d.Conditions))
	for k, w := range d.Weights {
		for i, at := range voxels {
			volumes[k*size+int(at)] = w[i]
		}
	}
	var file bytes.Buffer
	geometry.Shape = append(geometry.Shape, len(d.Conditions))
	if err := nifti.Write(&file, geometry, volumes); err != nil {
		return nil, fmt.Errorf("weights: %w", err)
	}
	return &Decoded{Result: out, Weights: file.Bytes()}, nil
}

// openRun reads a file that may be decoded, and says where its volumes lie.
func openRun(ctx context.Context, f DecodeFile, limits nifti.Limits) (run *fmri.Run, on nifti.Geometry, err error) {
	image, header, done, err := f.Open(ctx)
	if err != nil {
		return nil, on, err
	}
	defer done()
	rd, err := nifti.NewReaderOf(image, header, limits)
	if err != nil {
		return nil, on, unreadable(err)
	}
	defer rd.Close()
	if err := qc.CheckTask(rd.Header(), f.Metadata); err != nil {
		return nil, on, err
	}
	tr, err := fmri.RepetitionTime(f.Metadata.TRSeconds, rd.Header(), f.Sidecar)
	if err != nil {
		return nil, on, err
	}
	run, err = fmri.Read(ctx, rd, tr)
	return run, rd.Header().Geometry(), unreadable(err)
}

// ofFile says which of several files a refusal is about.
func ofFile(n, of int, err error) error {
	e, ok := errors.AsType[*neuroscreen.Error](err)
	if !ok || of == 1 {
		return err
	}
	about := *e
	about.Message = fmt.Sprintf("file %d: %s", n+1, e.Message)
	return &about
}

// commonest is the share of samples of the condition that has most.
func commonest(confusion [][]int) float64 {
	most, all := 0, 0
	for _, row := range confusion {
		n := 0
		for _, v := range row {
			n += v
		}
		most, all = max(most, n), all+n
	}
	return float64(most) / float64(all)
}
