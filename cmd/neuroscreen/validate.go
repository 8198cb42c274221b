package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"neuroscreen/internal/client"
	"neuroscreen/internal/model"
	"neuroscreen/internal/nifti"
	"neuroscreen/internal/norm"
	"neuroscreen/internal/pipeline"
	"neuroscreen/internal/validate"
	"neuroscreen/internal/version"
)

type validateCmd struct {
	Manifest  string `required:"" type:"existingfile" help:"CSV: id, age, sex; scan (a path, from the manifest's folder) or volumes as for score; labels in the columns alzheimers, parkinsons (1 case, 0 control) and mesial_temporal_sclerosis (left, right, 0); healthy (1) for the control shift; scanner, manufacturer, field_strength_t."`
	Segmenter string `enum:",fs5,fs6,fs7,neuroscreen" default:"" help:"What measured the volumes of rows that do not say: fs5, fs6, fs7 or neuroscreen."`
	Settings  string `type:"existingfile" help:"The site's present settings (neuroscreen site settings); without it, the defaults."`
	Name      string `default:"site" help:"Name of the control shift."`
	Out       string `type:"path" help:"Write the report here, as JSON."`
	Propose   string `type:"path" help:"Write the proposed calibration here, if there is one, for neuroscreen site accept."`
	Quiet     bool   `short:"q" help:"No progress on standard error."`
}

func (c *validateCmd) Run(ctx context.Context) error {
	settings, err := readSettings(c.Settings)
	if err != nil {
		return err
	}
	in, err := os.Open(c.Manifest)
	if err != nil {
		return err
	}
	defer in.Close()
	o := validate.Options{Settings: settings, Segmenter: norm.Segmenter(c.Segmenter), Name: c.Name, Now: time.Now(), Measure: measurer(filepath.Dir(c.Manifest))}
	if !c.Quiet {
		o.Progress = func(done, of int) { fmt.Fprintf(os.Stderr, "  scan of row %d of %d measured\n", done, of) }
	}
	report, proposal, err := validate.Run(ctx, in, o)
	if err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(c.Manifest), err)
	}
	if err := report.Text(os.Stdout); err != nil {
		return err
	}
	if c.Out != "" {
		if err := replaceFile(c.Out, func(w io.Writer) error { return writeJSON(w, report) }); err != nil {
			return err
		}
	}
	switch {
	case proposal == nil:
		fmt.Println("\nNothing is proposed.")
	case c.Propose == "":
		fmt.Println("\nThere is a proposal: --propose FILE writes it.")
	default:
		if err := replaceFile(c.Propose, func(w io.Writer) error { return writeJSON(w, proposal) }); err != nil {
			return err
		}
		fmt.Printf("\nThe proposal is in %s; an administrator takes it with: neuroscreen site accept %s\n", c.Propose, c.Propose)
	}
	return nil
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", " ")
	return e.Encode(v)
}

// measurer analyses scans whose paths are relative to a folder; the network is
// loaded with the first.
func measurer(dir string) func(context.Context, validate.Scan) (model.Features, error) {
	engine := sync.OnceValues(func() (*pipeline.Engine, error) { return pipeline.New(version.String(), nifti.Limits{}) })
	return func(ctx context.Context, s validate.Scan) (model.Features, error) {
		e, err := engine()
		if err != nil {
			return model.Features{}, err
		}
		path := s.Path
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		in := pipeline.Input{Metadata: s.Metadata}
		closeFiles, err := openScan(path, &in)
		if err != nil {
			return model.Features{}, err
		}
		defer closeFiles()
		out, err := e.Analyze(ctx, in)
		if err != nil {
			return model.Features{}, err
		}
		return out.Features, nil
	}
}

// openScan opens a scan, or both files of a pair, and hashes it.
func openScan(path string, in *pipeline.Input) (closeFiles func(), err error) {
	header, image, err := nifti.Files(path)
	if err != nil {
		return nil, refusal(err)
	}
	f, err := os.Open(image)
	if err != nil {
		return nil, err
	}
	closeFiles = func() { f.Close() }
	defer func() {
		if err != nil {
			closeFiles()
		}
	}()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return nil, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	in.SHA256, in.Image = hex.EncodeToString(sum.Sum(nil)), f
	if header == "" {
		return closeFiles, nil
	}
	h, err := os.Open(header)
	if err != nil {
		return nil, err
	}
	in.Header = h
	return func() { f.Close(); h.Close() }, nil
}

type siteCmd struct {
	Settings siteSettingsCmd `cmd:"" help:"Print the site's settings as analyze, score and validate read them with --settings."`
	Accept   siteAcceptCmd   `cmd:"" help:"Take over a calibration that validate proposed. Stored results stay as they are."`
}

// siteOf returns the key's site.
func siteOf(ctx context.Context, api *client.API) (client.Site, error) {
	res, err := api.ListSitesWithResponse(ctx)
	if err != nil {
		return client.Site{}, err
	}
	if res.JSON200 == nil || len(res.JSON200.Sites) != 1 {
		return client.Site{}, client.ProblemOf(res.HTTPResponse, res.Body)
	}
	return res.JSON200.Sites[0], nil
}

type siteSettingsCmd struct{ server }

func (c *siteSettingsCmd) Run(ctx context.Context) error {
	api, err := c.open()
	if err != nil {
		return err
	}
	site, err := siteOf(ctx, api)
	if err != nil {
		return err
	}
	res, err := api.GetSiteSettingsWithResponse(ctx, site.Name, &client.GetSiteSettingsParams{})
	if err != nil {
		return err
	}
	if res.JSON200 == nil {
		return client.ProblemOf(res.HTTPResponse, res.Body)
	}
	s := pipeline.Settings{SiteShift: res.JSON200.SiteShift, Model: res.JSON200.Settings}
	s.Model.Recalibrations = res.JSON200.Recalibrations
	return writeJSON(os.Stdout, s)
}

type siteAcceptCmd struct {
	server
	Proposal string `arg:"" type:"existingfile" help:"What validate --propose wrote."`
	Note     string `help:"Why, for the trail; no patient data."`
}

func (c *siteAcceptCmd) Run(ctx context.Context) error {
	f, err := os.Open(c.Proposal)
	if err != nil {
		return err
	}
	defer f.Close()
	p, err := validate.LoadProposal(f)
	if err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(c.Proposal), err)
	}
	api, err := c.open()
	if err != nil {
		return err
	}
	site, err := siteOf(ctx, api)
	if err != nil {
		return err
	}
	note := c.Note
	if note == "" && p.Evidence != nil {
		note = fmt.Sprintf("proposed by validate on %d people, manifest %.12s", p.Evidence.People, p.Evidence.Manifest)
	}
	res, err := api.PutSiteCalibrationWithResponse(ctx, site.Name, client.NewCalibration{
		Replaces: site.SettingsVersion, Note: note, SiteShift: p.SiteShift, Recalibrations: p.Recalibrations,
	})
	if err != nil {
		return err
	}
	if res.JSON200 == nil {
		return client.ProblemOf(res.HTTPResponse, res.Body)
	}
	fmt.Printf("site %s is at version %d of its settings; results that are stored keep theirs, and POST /v1/scans/ID/retry scores a scan anew\n", res.JSON200.Site, res.JSON200.Version)
	return nil
}
