package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"neuroscreen"
	"neuroscreen/internal/fmri"
	"neuroscreen/internal/nifti"
	"neuroscreen/internal/pipeline"
	"neuroscreen/internal/version"
)

type analyzeCmd struct {
	Scan          string   `arg:"" type:"existingfile" help:"NIfTI file (.nii, .nii.gz, .hdr or .img; the partner of a pair is found)."`
	Age           *float64 `help:"Age in years; needed for T1w."`
	Sex           string   `default:"" enum:"F,M," help:"F or M; needed for T1w."`
	Out           string   `required:"" type:"path" help:"Folder for result.json, segmentation.nii.gz, preview.png, report.html; of a functional run also carpet.png, connectome.png, maps.png and mean, alff, falff and reho.nii.gz. Files of these names are removed first; result.json is written last."`
	Modality      string   `default:"T1w" enum:"T1w,bold" help:"T1w, or bold for a functional run."`
	TR            *float64 `name:"tr" help:"Repetition time of a functional run in seconds; without it header and JSON file must agree."`
	Coordinates   string   `type:"existingfile" help:"Of a functional run: table (CSV or TSV) of places to connect, with columns name, x, y, z in MNI mm and, if wanted, network and radius in mm."`
	T1            string   `name:"t1" type:"existingfile" help:"Of a functional run: segmentation.nii.gz of a T1-weighted scan of the same person, by which the run is placed in MNI space."`
	Subject       string   `help:"Identifier to write into the result."`
	ScanDate      string   `help:"YYYY-MM-DD."`
	Scanner       string   `help:"Scanner, as the report should name it."`
	FieldStrength *float64 `help:"In tesla."`
	Contrast      *bool    `help:"Whether a contrast agent was given."`
	MMSE          *float64 `name:"mmse" help:"Mini-Mental State Examination, 0 to 30."`
	Settings      string   `type:"existingfile" help:"Site settings in JSON: thresholds, priors, site shift."`
	Quiet         bool     `short:"q" help:"No progress on standard error."`
}

// Validate is called by kong.
func (c *analyzeCmd) Validate() error {
	switch bold := c.Modality == string(neuroscreen.BOLD); {
	case !bold && c.Age == nil:
		return errors.New("missing flags: --age=AGE")
	case !bold && c.Sex == "":
		return errors.New("missing flags: --sex=SEX")
	case !bold && c.TR != nil:
		return errors.New("--tr is for --modality bold")
	case !bold && c.Coordinates != "":
		return errors.New("--coordinates is for --modality bold")
	case !bold && c.T1 != "":
		return errors.New("--t1 is for --modality bold")
	}
	age := 0.0
	if c.Age != nil {
		age = *c.Age
	}
	return validPerson(age, c.MMSE)
}

// validPerson refuses numbers that no person has, NaN among them.
func validPerson(age float64, mmse *float64) error {
	if !(age >= 0 && age <= 120) {
		return fmt.Errorf("--age %g: want years, 0 to 120", age)
	}
	if mmse != nil && !(*mmse >= 0 && *mmse <= 30) {
		return fmt.Errorf("--mmse %g: want 0 to 30", *mmse)
	}
	return nil
}

func (c *analyzeCmd) Run(ctx context.Context) error {
	started := time.Now()
	progress := func(format string, args ...any) {
		if !c.Quiet {
			fmt.Fprintf(os.Stderr, "%5.1f s  "+format+"\n", append([]any{time.Since(started).Seconds()}, args...)...)
		}
	}
	in := pipeline.Input{
		Metadata: neuroscreen.Metadata{
			SubjectID: c.Subject, AgeYears: c.Age, Sex: neuroscreen.Sex(c.Sex), Modality: neuroscreen.Modality(c.Modality),
			ScanDate: c.ScanDate, Scanner: c.Scanner, FieldStrengthT: c.FieldStrength, ContrastAgent: c.Contrast, MMSE: c.MMSE,
			TRSeconds: c.TR,
		},
		Stage: func(_ context.Context, s neuroscreen.State) error {
			progress("%s", s)
			return nil
		},
	}
	settings, err := readSettings(c.Settings)
	if err != nil {
		return err
	}
	in.Settings = settings
	if err := c.clear(); err != nil {
		return err
	}
	closeFiles, err := openScan(c.Scan, &in)
	if err != nil {
		return err
	}
	defer closeFiles()

	if in.Metadata.Modality == neuroscreen.BOLD {
		if in.Sidecar, err = sidecar(c.Scan); err != nil {
			return err
		}
		if in.Coordinates, err = coordinates(c.Coordinates); err != nil {
			return err
		}
		if in.T1, err = storedT1(c.T1); err != nil {
			return err
		}
	}
	engine, err := pipeline.New(version.String(), nifti.Limits{})
	if err != nil {
		return err
	}
	progress("read %s", filepath.Base(c.Scan))
	out, err := engine.Analyze(ctx, in)
	if err != nil {
		return err
	}
	if err := c.write(out, in.Metadata); err != nil {
		return err
	}
	progress("%s; quality: %s; see %s", neuroscreen.Scored, out.Result.QC.Verdict, filepath.Join(c.Out, "report.html"))
	return nil
}

// outputs are the names that an analysis may write, in the order in which it
// does: where result.json is, all is there.
var outputs = append(append([]string{"segmentation.nii.gz", "preview.png"}, pipeline.RunFiles...), "report.html", "result.json")

// clear removes what an analysis before left in the folder, perhaps of somebody
// else: a refusal or an error would leave it there, looking like an answer.
func (c *analyzeCmd) clear() error {
	read := []string{c.Scan, c.T1, c.Coordinates, c.Settings}
	if c.Modality == string(neuroscreen.BOLD) {
		read = append(read, sidecarName(c.Scan))
	}
	for _, name := range outputs {
		at, err := os.Stat(filepath.Join(c.Out, name))
		if err != nil {
			continue
		}
		for _, path := range read {
			if f, err := os.Stat(path); err == nil && os.SameFile(f, at) {
				return fmt.Errorf("--out: %s is read by this analysis, which would replace it; choose another folder", filepath.Join(c.Out, name))
			}
		}
	}
	for _, name := range outputs {
		if err := os.Remove(filepath.Join(c.Out, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func sidecarName(scan string) string {
	scan = strings.TrimSuffix(scan, ".gz")
	return strings.TrimSuffix(scan, filepath.Ext(scan)) + ".json"
}

// sidecar reads the JSON file that BIDS puts beside an image; nil without one.
func sidecar(scan string) (*fmri.Sidecar, error) {
	name := sidecarName(scan)
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	s, err := fmri.ReadSidecar(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Base(name), err)
	}
	return s, nil
}

// coordinates reads a table of spheres; nil without one.
func coordinates(name string) (*fmri.Atlas, error) {
	if name == "" {
		return nil, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	a, err := fmri.ReadAtlas(filepath.Base(name), f)
	if e, ok := errors.AsType[*neuroscreen.Error](err); ok {
		return nil, fmt.Errorf("%s: %s", filepath.Base(name), e.Message)
	}
	return a, err
}

// storedT1 reads the labels of a T1-weighted scan; nil without a file.
func storedT1(name string) (*fmri.StoredT1, error) {
	if name == "" {
		return nil, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	l, err := pipeline.ReadLabels(f, nifti.Limits{})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Base(name), err)
	}
	return &fmri.StoredT1{ScanID: filepath.Base(name), Labels: l}, nil
}

// refusal turns a file that is no NIfTI into what the pipeline would say.
func refusal(err error) error {
	if e, ok := errors.AsType[*nifti.Error](err); ok {
		return &neuroscreen.Error{Code: neuroscreen.CodeUnprocessable, Type: e.Type, Field: e.Field, Message: e.Msg, Err: e.Err}
	}
	return err
}

func (c *analyzeCmd) write(out *pipeline.Output, m neuroscreen.Metadata) error {
	if err := os.MkdirAll(c.Out, 0o755); err != nil {
		return err
	}
	doc, err := json.MarshalIndent(out.Result, "", "  ")
	if err != nil {
		return err
	}
	html, err := out.Report(m, time.Now())
	if err != nil {
		return err
	}
	files := map[string][]byte{
		"result.json": append(doc, '\n'), "segmentation.nii.gz": out.Segmentation, "preview.png": out.Preview, "report.html": html,
	}
	for _, f := range out.Files {
		files[f.Name] = f.Bytes
	}
	for _, name := range outputs {
		b, ok := files[name]
		if !ok {
			continue
		}
		write := func(w io.Writer) error { _, err := w.Write(b); return err }
		if err := replaceFile(filepath.Join(c.Out, name), write); err != nil {
			return err
		}
	}
	return nil
}
