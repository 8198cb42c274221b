package client

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/google/uuid"
)

const tusVersion = "1.0.0"

// SubmitInPieces is Submit for a large file on a line that may break: after a
// break it goes on where the service stands (tus 1.0.0), and gives up when
// several attempts in a row brought nothing further. A pair has no such way.
func (a *API) SubmitInPieces(ctx context.Context, u Upload) (scan Scan, known bool, err error) {
	if u.Header != nil {
		return a.Submit(ctx, u)
	}
	total, digest, err := measure(u.Scan)
	if err != nil {
		return Scan{}, false, fmt.Errorf("client: read scan: %w", err)
	}
	p := pieces{a: a, u: u, total: total, digest: digest, key: uuid.NewString()}
	wait := firstPause
	reached := int64(0)
	for failures := 0; ; {
		scan, known, err = p.goOn(ctx)
		if err != nil && nameOf(err) == "upload-not-found" {
			// It was given up, or is a scan already and the answer was lost.
			p.id, p.offset = "", 0
			scan, known, err = p.find(ctx, err)
		}
		if err == nil {
			return scan, known, nil
		}
		if p.offset > reached {
			reached, failures, wait = p.offset, 0, firstPause
		} else if failures++; failures == attempts {
			return Scan{}, false, err
		}
		if !inPlace(err) || ctx.Err() != nil {
			return Scan{}, false, err
		}
		if problem, ok := errors.AsType[*ProblemError](err); ok {
			wait = max(wait, problem.RetryAfter)
		}
		if err := a.Pause(ctx, wait); err != nil {
			return Scan{}, false, err
		}
		wait *= 2
	}
}

// pieces of one file.
type pieces struct {
	a      *API
	u      Upload
	total  int64
	digest string
	key    string

	id     string // of the upload; "" before there is one
	offset int64  // what the service has
}

// nameOf the problem in err, "" for another error.
func nameOf(err error) string {
	if problem, ok := errors.AsType[*ProblemError](err); ok {
		return problem.Name()
	}
	return ""
}

// inPlace says that an error is of the line, or of where the upload stands.
func inPlace(err error) bool {
	return temporary(err) || nameOf(err) == "upload-offset" || nameOf(err) == "upload-not-found"
}

func (p *pieces) goOn(ctx context.Context) (Scan, bool, error) {
	if err := p.stand(ctx); err != nil {
		return Scan{}, false, err
	}
	if p.offset < p.total {
		// What has come of a piece that breaks is asked for after a pause: at
		// once, the service might still be writing it.
		if err := p.send(ctx); err != nil {
			return Scan{}, false, err
		}
	}
	return p.finish(ctx)
}

// stand begins the upload, or asks how far it is.
func (p *pieces) stand(ctx context.Context) error {
	if p.id == "" {
		res, err := p.a.CreateUploadWithResponse(ctx, &CreateUploadParams{TusResumable: tusVersion, UploadLength: p.total})
		if err != nil {
			return err
		}
		at := res.HTTPResponse.Header.Get("Location")
		if res.StatusCode() != http.StatusCreated || at == "" {
			return ProblemOf(res.HTTPResponse, res.Body)
		}
		p.id, p.offset = at[strings.LastIndexByte(at, '/')+1:], 0
		return nil
	}
	res, err := p.a.GetUpload(ctx, p.id, &GetUploadParams{TusResumable: tusVersion})
	if err != nil {
		return err
	}
	res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return bareProblem(res.StatusCode)
	}
	p.offset, err = strconv.ParseInt(res.Header.Get("Upload-Offset"), 10, 64)
	return err
}

// bareProblem is what an answer to HEAD means, which has no text.
func bareProblem(status int) error {
	name := "unavailable"
	if status == http.StatusNotFound {
		name = "upload-not-found"
	}
	return &ProblemError{Problem: Problem{Type: "/problems/" + name, Title: http.StatusText(status), Status: status}}
}

func (p *pieces) send(ctx context.Context) error {
	if _, err := p.u.Scan.Seek(p.offset, io.SeekStart); err != nil {
		return err
	}
	left := p.total - p.offset
	body := &progressReader{r: io.LimitReader(p.u.Scan, left), sent: p.offset, total: p.total, report: p.u.Progress}
	res, err := p.a.AppendUploadWithBodyWithResponse(ctx, p.id, &AppendUploadParams{TusResumable: tusVersion, UploadOffset: p.offset},
		"application/offset+octet-stream", body, func(_ context.Context, r *http.Request) error {
			r.ContentLength = left
			return nil
		})
	if err != nil {
		return err
	}
	if res.StatusCode() != http.StatusNoContent {
		return ProblemOf(res.HTTPResponse, res.Body)
	}
	return nil
}

func (p *pieces) finish(ctx context.Context) (Scan, bool, error) {
	res, err := p.a.FinishUploadWithResponse(ctx, p.id, &FinishUploadParams{IdempotencyKey: &p.key, ContentDigest: p.digest}, p.u.Metadata)
	switch {
	case err != nil:
		return Scan{}, false, err
	case res.JSON202 != nil:
		return *res.JSON202, false, nil
	case res.JSON200 != nil:
		return *res.JSON200, true, nil
	}
	return Scan{}, false, ProblemOf(res.HTTPResponse, res.Body)
}

// find looks for the file among the subject's scans; missing is the error when
// it is not there.
func (p *pieces) find(ctx context.Context, missing error) (scan Scan, known bool, err error) {
	res, err := p.a.FindScansWithResponse(ctx, &FindScansParams{SubjectID: &p.u.Metadata.SubjectID})
	if err != nil {
		return Scan{}, false, err
	}
	if res.JSON200 == nil {
		return Scan{}, false, ProblemOf(res.HTTPResponse, res.Body)
	}
	sum, err := base64.StdEncoding.DecodeString(strings.Trim(strings.TrimPrefix(p.digest, "sha-256="), ":"))
	if err != nil {
		return Scan{}, false, err
	}
	for _, s := range res.JSON200.Scans {
		if s.Sha256 == hex.EncodeToString(sum) {
			return s, true, nil
		}
	}
	return Scan{}, false, missing
}
