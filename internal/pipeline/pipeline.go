// Package pipeline is the journey of one scan: bytes, volume, labels,
// measurements, scores, document. Analyze is read from top to bottom; each
// stage is one call into the package that knows how.
package pipeline

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"time"

	"neuroscreen"
	"neuroscreen/internal/anatomy"
	"neuroscreen/internal/fmri"
	"neuroscreen/internal/model"
	"neuroscreen/internal/nifti"
	"neuroscreen/internal/norm"
	"neuroscreen/internal/qc"
	"neuroscreen/internal/report"
	"neuroscreen/internal/segment"
	"neuroscreen/internal/segment/conv"
	"neuroscreen/internal/volume"
)

// Engine holds what every analysis shares. It is safe for concurrent use; the
// network serves one scan at a time.
type Engine struct {
	scorer
	network *segment.Network
	version string
	limits  nifti.Limits
}

// New prepares the embedded network, norms and models. Limits bound what a
// file may expand to; zero fields take nifti's defaults.
func New(version string, limits nifti.Limits) (*Engine, error) {
	network, err := segment.Default()
	if err != nil {
		return nil, err
	}
	return &Engine{scorer: scorer{norm.Default(), model.Default()}, network: network, version: version, limits: limits}, nil
}

// Input of one analysis.
type Input struct {
	ScanID   string
	Metadata neuroscreen.Metadata
	Settings Settings
	// SettingsVersion is that of the site's stored settings, 0 for none.
	SettingsVersion int
	SHA256          string        // of the received bytes, hex
	Image           io.Reader     // NIfTI or ANALYZE, or the .img of a pair
	Header          io.Reader     // the .hdr of a pair, else nil
	Sidecar         *fmri.Sidecar // of a BOLD run, what a JSON file beside it says; else nil
	// LeftOut of the scan's last result by a reviewer stays left out.
	LeftOut []neuroscreen.LeftOut
	// T1 of the same subject and Coordinates to connect, both for a BOLD run;
	// else nil.
	T1          *fmri.StoredT1
	Coordinates *fmri.Atlas
	// Stage, if set, is told when the scan is Checked, Segmented and Measured;
	// its error ends the analysis.
	Stage func(context.Context, neuroscreen.State) error
}

// Settings of a site. The zero value is the default.
type Settings struct {
	SiteShift *norm.Shift    `json:"site_shift,omitempty"`
	Model     model.Settings `json:"model"`
}

// calibration is how volumes that weights measured in a scan meet the norm.
func (s Settings) calibration(weights string, m neuroscreen.Metadata) norm.Calibration {
	return norm.Calibration{Segmenter: norm.Network, Weights: weights, Scanner: norm.ScannerOf(m), SiteShift: s.SiteShift}
}

// Calibration is that of the embedded weights and a scanner that is not named.
func (s Settings) Calibration() (norm.Calibration, error) {
	w, err := segment.DefaultWeights()
	if err != nil {
		return norm.Calibration{}, err
	}
	return s.calibration(w.SHA256(), neuroscreen.Metadata{}), nil
}

// ParseSettings reads and validates the settings stored for a site; none are
// the default. Errors: CodeInvalid, naming the field.
func ParseSettings(b json.RawMessage) (s Settings, err error) {
	if len(b) == 0 {
		return s, nil
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return s, neuroscreen.Errorf(neuroscreen.CodeInvalid, "invalid-settings", "the site settings are not the JSON they should be: %v", err)
	}
	return s, s.Validate()
}

// Validate refuses settings that can't be meant. Errors: CodeInvalid, naming
// the field.
func (s Settings) Validate() error {
	if err := s.Model.Validate(); err != nil {
		return err
	}
	if s.SiteShift == nil {
		return nil
	}
	if s.SiteShift.Layer != norm.LayerSite {
		return neuroscreen.FieldErrorf(neuroscreen.CodeInvalid, "invalid-shift", "layer", "a site's shift has the layer %q, not %q", norm.LayerSite, s.SiteShift.Layer)
	}
	return s.SiteShift.Validate()
}

// Output of one analysis.
type Output struct {
	Result       *neuroscreen.Result
	Features     model.Features // what the scores were made from
	Segmentation []byte         // NIfTI-1 .nii.gz of FreeSurfer labels on the input's grid
	Preview      []byte         // PNG
	Reading      report.Reading
	Files        []File // those that only a run has
}

// File is a derived file by the name under which it is written, stored and
// served.
type File struct {
	Name, MediaType string
	Bytes           []byte
}

// Analyze takes a scan from its bytes to its result.
//
// Errors: a *neuroscreen.Error of CodeUnprocessable refuses the scan and
// qc.Reasons lists why; ctx's error when that ends; anything else is a fault
// of ours or of the machine.
func (e *Engine) Analyze(ctx context.Context, in Input) (*Output, error) {
	clock := newStopwatch()
	reached := func(s neuroscreen.State) error {
		if err := ctx.Err(); err != nil || in.Stage == nil {
			return err
		}
		return in.Stage(ctx, s)
	}

	if in.Metadata.Modality == neuroscreen.BOLD {
		return e.analyzeRun(ctx, in, reached, &clock)
	}
	img, err := e.read(in)
	if err != nil {
		return nil, err
	}
	clock.lap("read")
	if err := qc.CheckVoxels(img); err != nil {
		return nil, err
	}
	qc.FromZero(img)
	clock.lap("check")
	if err := reached(neuroscreen.Checked); err != nil {
		return nil, err
	}

	scan := &volume.Volume{Grid: volume.Grid{Shape: img.Shape3(), Affine: volume.Affine(img.Affine)}, Data: img.Data}
	seg, err := e.network.Segment(ctx, scan)
	if errors.Is(err, segment.ErrNoBrain) {
		return nil, neuroscreen.Errorf(neuroscreen.CodeUnprocessable, qc.NotABrain, "no brain was found in this image; send a T1-weighted scan of a whole adult head")
	} else if err != nil {
		return nil, err
	}
	clock.lap("segment")
	drawn := draw(scan, img.Geometry(), seg.Labels) // meanwhile
	defer drawn.wait()
	quality, err := qc.Assess(qc.Measured{Image: scan, Labels: seg.Labels, MM3: seg.MM3, Confidence: seg.Confidence, FlipDice: seg.FlipDice, InTemplate: img.InTemplate()})
	if err != nil {
		return nil, err
	}
	if quality.Verdict == neuroscreen.VerdictRefuse {
		return nil, qc.Refuse(quality.Reasons)
	}
	clock.lap("quality")
	if err := reached(neuroscreen.Segmented); err != nil {
		return nil, err
	}

	person := norm.Person{Sex: in.Metadata.Sex, ICVMM3: &seg.ICVMM3}
	if in.Metadata.AgeYears != nil {
		person.AgeYears = *in.Metadata.AgeYears
	}
	calibration := in.Settings.calibration(e.network.Weights().SHA256(), in.Metadata)
	measured := map[string]norm.Measured{}
	for _, s := range anatomy.Structures[1:] {
		e := seg.Errors[s.Class]
		measured[s.Name] = norm.Measured{MM3: seg.MM3[s.Class], SE: e.StandardMM3, Bias: e.BiasMM3, Pair: e.Pair}
	}
	amendment := amendmentOf(in.LeftOut)
	leftOut := amendment.Structures()
	rows, indices, notes := e.compare(measured, person, calibration, quality, leftOut)
	quality.Reasons = append(quality.Reasons, notes...)
	clock.lap("measure")
	if err := reached(neuroscreen.Measured); err != nil {
		return nil, err
	}

	features := model.Features{
		Person: person, Calibration: calibration, Volumes: without(measured, leftOut), LeftOut: leftOut, MMSE: in.Metadata.MMSE,
		QC: quality.Verdict, Withhold: withhold(quality), Settings: in.Settings.Model,
	}
	out := &Output{Features: features, Result: &neuroscreen.Result{
		Schema:    neuroscreen.ResultSchema,
		ScanID:    in.ScanID,
		SubjectID: in.Metadata.SubjectID,
		Modality:  in.Metadata.Modality,
		Input: neuroscreen.Input{
			SHA256: in.SHA256, Shape: img.Shape, VoxelMM: scan.VoxelSize(), Orientation: scan.Orientation(), DType: img.Datatype.String(),
		},
		Software:              e.software(in.Settings),
		Settings:              in.Settings.Model.WithDefaults(),
		SettingsVersion:       in.SettingsVersion,
		Amendment:             amendment,
		QC:                    quality,
		IntracranialVolumeMM3: &seg.ICVMM3,
		Volumes:               rows,
		Indices:               indices,
		Scores:                e.models.Score(features),
		TimingsMS:             clock.ms,
	}}
	clock.lap("score")
	if out.Reading, err = e.reading(out.Result, features); err != nil {
		return nil, err
	}
	if err := drawn.wait(); err != nil {
		return nil, err
	}
	out.Segmentation, out.Preview = drawn.segmentation, drawn.preview
	clock.lap("files")
	return out, ctx.Err()
}

// read decodes the image once its header has passed.
func (e *Engine) read(in Input) (*nifti.Image, error) {
	rd, err := e.open(in)
	if err != nil {
		return nil, err
	}
	defer rd.Close()
	if err := qc.CheckHeader(rd.Header(), in.Metadata); err != nil {
		return nil, err
	}
	img, err := rd.Image()
	if err != nil {
		return nil, unreadable(err)
	}
	return img, nil
}

// open reads the header.
func (e *Engine) open(in Input) (*nifti.Reader, error) {
	rd, err := nifti.NewReaderOf(in.Image, in.Header, e.limits)
	if err != nil {
		return nil, unreadable(err)
	}
	return rd, nil
}

// unreadable turns a fault of the file into a refusal; a fault of the disk or
// the network stays what it is.
func unreadable(err error) error {
	if e, ok := errors.AsType[*nifti.Error](err); ok {
		return &neuroscreen.Error{Code: neuroscreen.CodeUnprocessable, Type: e.Type, Field: e.Field, Message: e.Msg, Err: e.Err}
	}
	return err
}

// amendmentOf goes on with what was left out of the last result.
func amendmentOf(leftOut []neuroscreen.LeftOut) *neuroscreen.Amendment {
	if len(leftOut) == 0 {
		return nil
	}
	return &neuroscreen.Amendment{LeftOut: leftOut}
}

type stopwatch struct {
	started time.Time
	ms      map[string]float64
}

func newStopwatch() stopwatch { return stopwatch{started: time.Now(), ms: map[string]float64{}} }

func (s *stopwatch) lap(stage string) {
	now := time.Now()
	s.ms[stage] = float64(now.Sub(s.started).Microseconds()) / 1000
	s.started = now
}

// NormAssets names the norms with the site's shift, if there is one.
func NormAssets(n *norm.Norms, siteShift *norm.Shift) []neuroscreen.Asset {
	assets := append([]neuroscreen.Asset(nil), n.Assets()...)
	if siteShift != nil {
		assets = append(assets, siteShift.Asset())
	}
	return assets
}

// software names everything that took part, with hashes.
func (e *Engine) software(s Settings) neuroscreen.Software {
	return neuroscreen.Software{
		Version: e.version,
		Kernel:  conv.Kernel(),
		Network: neuroscreen.Asset{Name: "default.weights", SHA256: e.network.Weights().SHA256()},
		Norms:   NormAssets(e.norms, s.SiteShift),
		Models:  e.models.Assets(),
	}
}
