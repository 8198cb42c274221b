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

// Names of the files that only a run has, as they are written, stored and
// served. Those of the signal are missing where it is withheld.
const (
	CarpetFile     = "carpet.png"
	ConnectomeFile = "connectome.png"
	MapsFile       = "maps.png"
	MeanFile       = "mean.nii.gz" // of the aligned frames, inside of the skull
	ALFFFile       = "alff.nii.gz"
	FALFFFile      = "falff.nii.gz"
	ReHoFile       = "reho.nii.gz"
)

// RunFiles are all of them.
var RunFiles = []string{CarpetFile, ConnectomeFile, MapsFile, MeanFile, ALFFFile, FALFFFile, ReHoFile}

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
		QC:              runQC(&measured.FMRI, reasons, seg),
		Volumes:         []neuroscreen.Volume{},
		Indices:         []neuroscreen.Index{},
		Scores:          []neuroscreen.Score{},
		FMRI:            &measured.FMRI,
		TimingsMS:       clock.ms,
	}}
	if err := runFiles(out, h.Geometry(), mean, seg.Labels, measured); err != nil {
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

// runFiles makes label map, pictures and maps.
func runFiles(out *Output, geometry nifti.Geometry, mean *volume.Volume, l *volume.Labels, m *fmri.Measured) error {
	drawn := draw(mean, geometry, l)
	defer drawn.wait()
	out.Reading = report.Reading{Schema: report.ReadingSchema, Structures: report.Structures(), Curves: []report.Curve{}, Scores: []report.ScoreInWords{}, Norms: []string{}, Run: readRun(m)}

	picture := func(name string, png []byte) {
		if png != nil {
			out.Files = append(out.Files, File{name, "image/png", png})
		}
	}
	picture(CarpetFile, report.CarpetPicture(&m.FMRI, out.Reading.Run))
	picture(ConnectomeFile, report.ConnectomePicture(&m.FMRI))
	inside := make([]float32, mean.Len()) // without a face
	for at, label := range l.Data {
		if label != 0 {
			inside[at] = mean.Data[at]
		}
	}
	type grid struct {
		name string
		data []float32
	}
	volumes := []grid{{MeanFile, inside}}
	if m.Maps != nil {
		maps, err := report.Maps(mean, l, []report.Map{
			{Name: "ALFF", Says: "slow fluctuations (0.008 to 0.1 Hz), % of the mean", Data: m.Maps.ALFF},
			{Name: "fALFF", Says: "their share of the fluctuations of all frequencies", Data: m.Maps.FALFF},
			{Name: "ReHo", Says: "agreement with the neighbouring voxels (Kendall's W)", Data: m.Maps.ReHo},
		})
		if err != nil {
			return fmt.Errorf("maps: %w", err)
		}
		picture(MapsFile, maps)
		volumes = append(volumes, grid{ALFFFile, m.Maps.ALFF}, grid{FALFFFile, m.Maps.FALFF}, grid{ReHoFile, m.Maps.ReHo})
	}
	for _, v := range volumes {
		var file bytes.Buffer
		if err := nifti.Write(&file, geometry, v.data); err != nil {
			return fmt.Errorf("%s: %w", v.name, err)
		}
		out.Files = append(out.Files, File{v.name, "application/gzip", file.Bytes()})
	}

	if err := drawn.wait(); err != nil {
		return err
	}
	out.Segmentation, out.Preview = drawn.segmentation, drawn.preview
	return nil
}

// readRun keeps what the report needs of a run beside its numbers.
func readRun(m *fmri.Measured) *report.Run {
	r := &report.Run{
		Carpet: report.Carpet{Tissues: []report.CarpetTissue{}, LeftOut: append([]int{}, m.Carpet.LeftOut...), PNG: report.CarpetPNG(m.Carpet.Z, m.Carpet.Frames)},
		Limits: report.RunLimits{FDMM: fmri.MaxFD, StdDVARS: fmri.MaxStdDVARS, ReviewMeanFDMM: fmri.ReviewMeanFD, MostMeanFDMM: fmri.MostMeanFD,
			ReviewTSNR: fmri.ReviewTSNR, DegreesOfFreedom: fmri.MinDegreesOfFreedom, Seconds: fmri.MinSeconds},
		Method: aboutRuns,
	}
	for _, t := range m.Carpet.Tissues {
		r.Carpet.Tissues = append(r.Carpet.Tissues, report.CarpetTissue(t))
	}
	r.InWords(&m.FMRI)
	return r
}

// aboutRuns says in the report how the measures of a run come about.
var aboutRuns = []string{
	"Place: the network that labels T1-weighted scans labels the mean of the aligned frames. In voxels of some 3 mm small structures are a few dozen voxels; how well their borders fit was looked at on a few runs, not measured. " +
		"Distortion by the field, motion within a frame and the order of the slices are not corrected, and nothing is smoothed.",
	"Motion: frames are aligned with the steadiest one as rigid bodies. Framewise displacement (FD) is the sum of the movements since the frame before, turns taken on a sphere of 50 mm (Power 2012). " +
		"DVARS is the root mean square of the change of the signal since the frame before, over what its noise leads to expect (Nichols 2017). Outliers are left out of the measures, and so are stretches of fewer than five frames between them.",
	"Carpet: the signal as it was aligned, before cleaning. Each row is the mean of neighbouring voxels of a tissue, without its linear trend, scaled to an SD of 1. What changes in all rows at once is motion, breathing or the scanner.",
	"Cleaning takes out in one projection: 24 regressors of motion, components of white matter and ventricles (aCompCor), drifts slower than 128 s and all frequencies outside 0.008 to 0.1 Hz. Degrees of freedom are the kept frames less all that.",
	"ALFF: SD in the band, in per cent of the voxel's mean, whatever part of the run cleaning took; fALFF: that SD over the SD of all frequencies; ReHo: Kendall's W of a voxel and its neighbours. Connectome: Fisher's z of the correlation between structures' mean signals; " +
		"its standard error ignores that neighbouring frames resemble each other, and is a lower bound. Reliability is worked out from both halves of the run (Spearman and Brown). The graph holds the strongest quarter of the pairs of grey structures.",
}
