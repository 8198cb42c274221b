package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"neuroscreen"
	"neuroscreen/internal/norm"
	"neuroscreen/internal/pipeline"
	"neuroscreen/internal/table"
)

type scoreCmd struct {
	Table     string   `required:"" type:"existingfile" help:"CSV with the columns id, age, sex, EstimatedTotalIntraCranialVol (mm3) and FreeSurfer's structures, or an aseg.stats file."`
	Out       string   `type:"path" help:"CSV to write; without it, standard output."`
	Segmenter string   `enum:",fs5,fs6,fs7,neuroscreen" default:"" help:"What measured the rows that do not say: fs5, fs6, fs7 or neuroscreen."`
	ID        string   `name:"id" help:"For an aseg.stats file: the id to write."`
	Age       *float64 `help:"For an aseg.stats file: age in years."`
	Sex       string   `enum:",F,M" default:"" help:"For an aseg.stats file: F or M."`
	Settings  string   `type:"existingfile" help:"Site settings in JSON: thresholds, priors, site shift."`
}

func (c *scoreCmd) Run(context.Context) error {
	settings, err := readSettings(c.Settings)
	if err != nil {
		return err
	}
	in, err := os.Open(c.Table)
	if err != nil {
		return err
	}
	defer in.Close()
	options := table.Options{
		SiteShift: settings.SiteShift, Settings: settings.Model,
		Segmenter: norm.Segmenter(c.Segmenter), ID: c.ID, AgeYears: c.Age, Sex: neuroscreen.Sex(c.Sex),
	}
	if c.Out == "" {
		err = table.Score(in, os.Stdout, options)
	} else {
		err = replaceFile(c.Out, func(w io.Writer) error { return table.Score(in, w, options) })
	}
	if e, ok := errors.AsType[*neuroscreen.Error](err); ok && e.Err == nil {
		return fmt.Errorf("%s: %s", filepath.Base(c.Table), e.Message)
	}
	return err
}

// replaceFile writes a file beside path and renames it to path once it is
// whole, so that a failure leaves neither half a file nor the old one gone. What
// a link leads to is replaced, not the link; a device or a pipe is written to.
func replaceFile(path string, write func(io.Writer) error) (err error) {
	if to, err := filepath.EvalSymlinks(path); err == nil {
		path = to
	}
	if at, err := os.Stat(path); err == nil && !at.Mode().IsRegular() && !at.IsDir() {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		return errors.Join(write(f), f.Close())
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".neuroscreen-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if err := write(f); err != nil {
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// readSettings reads a site's settings; no file means the defaults.
func readSettings(path string) (pipeline.Settings, error) {
	if path == "" {
		return pipeline.Settings{}, nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return pipeline.Settings{}, err
	}
	s, err := pipeline.ParseSettings(b)
	if err != nil {
		return s, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}
