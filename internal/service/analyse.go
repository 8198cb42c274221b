package service

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"neuroscreen"
	"neuroscreen/internal/fmri"
	"neuroscreen/internal/jobs"
	"neuroscreen/internal/nifti"
	"neuroscreen/internal/pipeline"
	"neuroscreen/internal/qc"
	"neuroscreen/internal/store"
	"neuroscreen/internal/version"
)

// newAnalyser connects the queue with the pipeline.
func newAnalyser(limits nifti.Limits) (jobs.Analyse, error) {
	engine, err := pipeline.New(version.String(), limits)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, in jobs.Input) (jobs.Output, error) {
		settings, err := pipeline.ParseSettings(in.Settings.Settings)
		if err != nil {
			return jobs.Output{}, err
		}
		image, header, done, err := openInput(ctx, in)
		if err != nil {
			return jobs.Output{}, err
		}
		defer done()
		job := pipeline.Input{ScanID: in.ScanID.String(), Metadata: in.Metadata, Settings: settings, SettingsVersion: in.Settings.Version, LeftOut: in.LeftOut, SHA256: in.SHA256, Image: image, Header: header, Stage: in.Stage}
		if in.Metadata.Modality == neuroscreen.BOLD && in.T1 != nil {
			if job.T1, err = storedT1(ctx, in, limits); err != nil {
				return jobs.Output{}, err
			}
		}
		out, err := engine.Analyze(ctx, job)
		if e, ok := errors.AsType[*neuroscreen.Error](err); ok && e.Code == neuroscreen.CodeUnprocessable {
			return jobs.Output{}, &jobs.RefusedError{Reasons: qc.Reasons(err)}
		}
		if err != nil {
			return jobs.Output{}, err
		}
		reading, err := json.Marshal(out.Reading)
		if err != nil {
			return jobs.Output{}, err
		}
		files := []jobs.File{
			{Kind: store.KindSegmentation, MediaType: "application/gzip", Bytes: out.Segmentation},
			{Kind: store.KindPreview, MediaType: "image/png", Bytes: out.Preview},
			{Kind: store.KindReading, MediaType: "application/json", Bytes: reading},
		}
		for _, f := range out.Files {
			files = append(files, jobs.File{Kind: f.Name, MediaType: f.MediaType, Bytes: f.Bytes})
		}
		return jobs.Output{Result: out.Result, Files: files}, nil
	}, nil
}

// storedT1 reads the labels of the subject's T1; nil without one. A run goes on
// without labels that can't be read, and its result says so.
func storedT1(ctx context.Context, in jobs.Input, limits nifti.Limits) (*fmri.StoredT1, error) {
	found, err := in.T1(ctx)
	if err != nil || found == nil {
		return nil, err
	}
	t1 := &fmri.StoredT1{ScanID: found.ScanID.String(), Version: found.Version}
	file, err := found.Labels(ctx)
	if err != nil {
		return t1, ctx.Err()
	}
	defer file.Close()
	if l, err := pipeline.ReadLabels(file, limits); err == nil {
		t1.Labels = l
	}
	return t1, ctx.Err()
}

// estimate reads no more of a scan than its header.
func estimate(limits nifti.Limits) func(context.Context, jobs.Input) (int64, error) {
	return func(ctx context.Context, in jobs.Input) (int64, error) {
		rd, done, err := openReader(ctx, in, limits)
		if err != nil {
			return 0, err
		}
		defer done()
		defer rd.Close()
		return pipeline.Memory(rd.Header(), in.Metadata), nil
	}
}

// measured counts analyses and their time.
func measured(reg prometheus.Registerer, analyse jobs.Analyse) jobs.Analyse {
	seconds := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "neuroscreen_analysis_seconds", Help: "Time of an analysis, by how it ended.",
		Buckets: []float64{.1, .5, 1, 2, 3, 5, 10, 20, 60, 300}}, []string{"end"})
	reg.MustRegister(seconds)
	return func(ctx context.Context, in jobs.Input) (jobs.Output, error) {
		start := time.Now()
		out, err := analyse(ctx, in)
		end := "scored"
		if _, refused := errors.AsType[*jobs.RefusedError](err); refused {
			end = "refused"
		} else if err != nil {
			end = "failed"
		}
		seconds.WithLabelValues(end).Observe(time.Since(start).Seconds())
		return out, err
	}
}
