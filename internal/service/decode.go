package service

import (
	"context"
	"errors"
	"io"

	"neuroscreen"
	"neuroscreen/internal/jobs"
	"neuroscreen/internal/nifti"
	"neuroscreen/internal/pipeline"
)

// decode connects the queue with the pipeline.
func decode(limits nifti.Limits) jobs.Decode {
	return func(ctx context.Context, in jobs.DecodingInput) (*neuroscreen.Decoding, []byte, error) {
		files := make([]pipeline.DecodeFile, len(in.Runs))
		for n, run := range in.Runs {
			files[n] = pipeline.DecodeFile{ScanID: run.ScanID.String(), SHA256: run.SHA256, Metadata: run.Metadata, Events: run.Events,
				Open: func(ctx context.Context) (io.Reader, io.Reader, func(), error) { return openInput(ctx, run.Input) }}
		}
		out, err := pipeline.Decode(ctx, files, in.Options, limits, nil)
		if err != nil {
			return nil, nil, err
		}
		return out.Result, out.Weights, nil
	}
}

// openInput opens a scan's image, and its header where it has one.
func openInput(ctx context.Context, in jobs.Input) (image, header io.Reader, done func(), err error) {
	img, err := in.Image(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	if in.Header == nil {
		return img, nil, func() { img.Close() }, nil
	}
	hdr, err := in.Header(ctx)
	if err != nil {
		return nil, nil, nil, errors.Join(err, img.Close())
	}
	return img, hdr, func() { img.Close(); hdr.Close() }, nil
}

// estimateDecoding reads no more of the scans than their headers.
func estimateDecoding(limits nifti.Limits) func(context.Context, jobs.DecodingInput) (int64, error) {
	return func(ctx context.Context, in jobs.DecodingInput) (int64, error) {
		headers, events := make([]*nifti.Header, len(in.Runs)), make([]int, len(in.Runs))
		for n, run := range in.Runs {
			rd, done, err := openReader(ctx, run.Input, limits)
			if err != nil {
				return 0, err
			}
			headers[n], events[n] = rd.Header(), len(run.Events)
			rd.Close()
			done()
		}
		return pipeline.DecodeMemory(headers, events), nil
	}
}

func openReader(ctx context.Context, in jobs.Input, limits nifti.Limits) (*nifti.Reader, func(), error) {
	image, header, done, err := openInput(ctx, in)
	if err != nil {
		return nil, nil, err
	}
	rd, err := nifti.NewReaderOf(image, header, limits)
	if err != nil {
		done()
		return nil, nil, err
	}
	return rd, done, nil
}
