package pipeline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"neuroscreen"
	"neuroscreen/internal/fmri"
	"neuroscreen/internal/nifti"
	"neuroscreen/internal/qc"
	"neuroscreen/internal/report"
	"neuroscreen/internal/segment"
	"neuroscreen/internal/volume"
)

// Head sizes of the mean image beyond which its labels are not believed: less
// strict than of a T1, since a run may leave out the lowest slices.
const (
	minRunICVMM3 = 600e3
	maxRunICVMM3 = 2500e3
)

// analyzeRun is Analyze for a BOLD run: motion, labels of the mean image,
// quality, cleaning, measures. It holds no score.
func (e *Engine) analyzeRun(ctx context.Context, in Input, reached func(neuroscreen.State) error, clock *stopwatch) (*Output, error) {
	rd, err := e.open(in)
	if err != nil {
		return nil, err
	}
	defer rd.Close()
	h := rd.Header()
	if err := qc.CheckRun(h, in.Metadata); err != nil {
		return nil, err
	}
	tr, err := fmri.RepetitionTime(in.Metadata.TRSeconds, h, in.Sidecar)
	if err != nil {
		return nil, err
	}
	run, err := fmri.Read(ctx, rd, tr)
	if err != nil {
		return nil, unreadable(err)
	}
	defer run.Close()
	clock.lap("read")
	if err := reached(neuroscreen.Checked); err != nil {
		return nil, err
	}

	aligned, err := fmri.Realign(ctx, run)
	if err != nil {
		return nil, err
	}
	clock.lap("align")
	mean, err := run.MeanImage(ctx, aligned)
	if err != nil {
		return nil, err
	}
	clock.lap("mean")
	seg, err := e.network.Segment(ctx, mean)
	if errors.Is(err, segment.ErrNoBrain) {
		return nil, neuroscreen.Errorf(neuroscreen.CodeUnprocessable, qc.NotABrain, "no brain was found in the mean of this run; send a BOLD run of a whole adult head")
	} else if err != nil {
		return nil, err
	}
	if v := seg.ICVMM3; v < minRunICVMM3 || v > maxRunICVMM3 {
		return nil, neuroscreen.Errorf(neuroscreen.CodeUnprocessable, qc.ImplausibleSegmentation,
			"the head in the mean of this run came out with %.0f ml, which no adult's is; send a BOLD run of a whole adult head", v/1000)
	}
	clock.lap("segment")
	if err := reached(neuroscreen.Segmented); err != nil {
		return nil, err
	}

	measured, reasons, err := fmri.Measure(ctx, run, aligned, mean, seg.Labels, fmri.Given{T1: in.T1, Coordinates: in.Coordinates})
	if err != nil {
		return nil, err
	}
	clock.lap("measure")
	if err := reached(neuroscreen.Measured); err != nil {
		return nil, err
	}
	out := &Output{Result: &neuroscreen.Result{
		Schema:    neuroscreen.ResultSchema,
		ScanID:    in.ScanID,
		SubjectID: in.Metadata.SubjectID,
		Modality:  in.Metadata.Modality,
		Input: neuroscreen.Input{
			SHA256: in.SHA256, Shape: h.Shape, VoxelMM: run.VoxelSize(), Orientation: run.Orientation(), DType: h.Datatype.String(),
		},
		Software:        e.software(in.Settings),
		Settings:        in.Settings.Model.WithDefaults(),
		SettingsVersion: in.SettingsVersion,
		QC:              runQC(measured, reasons, seg),
		Volumes:         []neuroscreen.Volume{},
		Indices:         []neuroscreen.Index{},
		Scores:          []neuroscreen.Score{},
		FMRI:            measured,
		TimingsMS:       clock.ms,
	}}
	if err := runFiles(out, mean, seg.Labels); err != nil {
		return nil, err
	}
	clock.lap("files")
	return out, ctx.Err()
}

// ReadLabels reads the label map that an earlier analysis wrote.
func ReadLabels(r io.Reader, limits nifti.Limits) (*volume.Labels, error) {
	img, err := nifti.Decode(r, limits)
	if err != nil {
		return nil, err
	}
	l := volume.NewLabels(volume.Grid{Shape: img.Shape3(), Affine: volume.Affine(img.Affine)})
	if len(img.Data) != len(l.Data) {
		return nil, fmt.Errorf("a label map has three dimensions, not the shape %v", img.Shape)
	}
	if err := l.Affine.Check(); err != nil {
		return nil, err
	}
	for i, v := range img.Data {
		if l.Data[i] = uint8(v); float32(l.Data[i]) != v {
			return nil, fmt.Errorf("a label map has whole numbers of 0 to 255, not %g", v)
		}
	}
	return l, nil
}

// runQC asks for a review for every reason but that dummy scans were dropped.
func runQC(m *neuroscreen.FMRI, reasons []neuroscreen.Reason, seg *segment.Segmentation) neuroscreen.QC {
	q := neuroscreen.QC{Verdict: neuroscreen.VerdictPass, Reasons: append([]neuroscreen.Reason{}, reasons...), Metrics: map[string]float64{
		"mean_fd_mm": m.Motion.MeanFDMM, "max_fd_mm": m.Motion.MaxFDMM, "median_tsnr": m.Quality.MedianTSNR,
		"outlier_frames": float64(len(m.Quality.OutlierFrames)), "spike_frames": float64(len(m.Quality.SpikeFrames)),
		"drift_percent_per_minute": m.Quality.DriftPercentPerMinute, "degrees_of_freedom": float64(m.Clean.DegreesOfFreedom),
		qc.Confidence: seg.Confidence, qc.FlipDice: seg.FlipDice,
	}}
	for _, r := range reasons {
		if r.Code != fmri.Dummies {
			q.Verdict = neuroscreen.VerdictReview
		}
	}
	return q
}

// runFiles makes the label map and the picture of the mean image.
func runFiles(out *Output, mean *volume.Volume, l *volume.Labels) error {
	var labels bytes.Buffer
	if err := nifti.Write(&labels, nifti.Geometry{Shape: mean.Shape[:], Affine: nifti.Affine(mean.Affine), Code: 1}, l.Data); err != nil {
		return fmt.Errorf("segmentation: %w", err)
	}
	out.Segmentation = labels.Bytes()
	var err error
	if out.Preview, err = report.Preview(mean, l); err != nil {
		return fmt.Errorf("preview: %w", err)
	}
	out.Reading = report.Reading{Schema: report.ReadingSchema, Structures: report.Structures(), Curves: []report.Curve{}, Scores: []report.ScoreInWords{}, Norms: aboutNorms}
	return nil
}
