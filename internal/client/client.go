// Package client speaks to the service. Requests and answers are generated
// from api/openapi.yaml; this file adds what a generator can't know: a
// streamed upload that is safe to repeat, and waiting for the end of a scan.
package client

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"neuroscreen"
)

// API is a service at an address, with a key.
type API struct {
	*ClientWithResponses

	// Pause waits between attempts; tests replace it.
	Pause func(ctx context.Context, d time.Duration) error
}

// New returns the API at address, such as "http://127.0.0.1:8080". A nil
// doer stands for a client without a total timeout, as uploads take long.
func New(address, key string, doer HttpRequestDoer) (*API, error) {
	if doer == nil {
		doer = &http.Client{}
	}
	c, err := NewClientWithResponses(address, WithHTTPClient(doer), WithRequestEditorFn(func(_ context.Context, r *http.Request) error {
		r.Header.Set("Authorization", "Bearer "+key)
		return nil
	}))
	if err != nil {
		return nil, fmt.Errorf("client: address: %w", err)
	}
	return &API{ClientWithResponses: c, Pause: pause}, nil
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// ProblemError is a problem that the service answered with.
type ProblemError struct {
	Problem
	RetryAfter time.Duration
}

// Name is the last element of the problem's type, such as "missing-field".
func (e *ProblemError) Name() string { return e.Type[strings.LastIndexByte(e.Type, '/')+1:] }

func (e *ProblemError) Error() string {
	s := fmt.Sprintf("%s (%d)", e.Title, e.Status)
	if e.Field != nil {
		s += " in " + *e.Field
	}
	if e.Detail != nil {
		s += ": " + *e.Detail
	}
	for _, r := range e.Reasons {
		s += "; " + r.Text
	}
	return s
}

// ProblemOf returns the problem in an answer that has not the wanted content.
func ProblemOf(res *http.Response, body []byte) error {
	e := &ProblemError{}
	if json.Unmarshal(body, &e.Problem) != nil || e.Type == "" {
		// Not our service, or a proxy before it.
		return fmt.Errorf("unexpected answer: %s", res.Status)
	}
	if n, err := strconv.Atoi(res.Header.Get("Retry-After")); err == nil && n >= 0 {
		e.RetryAfter = time.Duration(n) * time.Second
	}
	return e
}

// Upload is a scan to hand over.
type Upload struct {
	Metadata neuroscreen.Metadata
	Scan     io.ReadSeeker // .nii, .nii.gz or .img
	Name     string        // file name without folder; only its extension means something
	Header   []byte        // the .hdr that belongs to an .img
	// Progress, if given, is told how much of the scan was sent; it starts
	// again from 0 with a new attempt.
	Progress func(sent, total int64)
}

// attempts and the pause before the second; it doubles each time.
const (
	attempts   = 5
	firstPause = time.Second
)

// Submit hands over a scan and returns it once it is durable. Connection
// errors, 429 and 503 are tried again under the same idempotency key, so that the
// scan is stored once. known says that the service had it already.
//
// Errors: *ProblemError for what the service refused; the last connection
// error otherwise.
func (a *API) Submit(ctx context.Context, u Upload) (scan Scan, known bool, err error) {
	total, digest, err := measure(u.Scan)
	if err != nil {
		return Scan{}, false, fmt.Errorf("client: read scan: %w", err)
	}
	key := uuid.NewString()
	wait := firstPause
	for attempt := 1; ; attempt++ {
		scan, known, err = a.submit(ctx, u, key, digest, total)
		if err == nil || attempt == attempts || !temporary(err) || ctx.Err() != nil {
			return scan, known, err
		}
		if p, ok := errors.AsType[*ProblemError](err); ok {
			wait = max(wait, p.RetryAfter)
		}
		if err := a.Pause(ctx, wait); err != nil {
			return Scan{}, false, err
		}
		wait *= 2
	}
}

func temporary(err error) bool {
	p, ok := errors.AsType[*ProblemError](err)
	return !ok || p.Status == http.StatusServiceUnavailable || p.Status == http.StatusTooManyRequests || p.Status == http.StatusRequestTimeout || p.Name() == "incomplete-body"
}

func measure(r io.ReadSeeker) (size int64, digest string, err error) {
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return 0, "", err
	}
	h := sha256.New()
	size, err = io.Copy(h, r)
	return size, "sha-256=:" + base64.StdEncoding.EncodeToString(h.Sum(nil)) + ":", err
}

func (a *API) submit(ctx context.Context, u Upload, key, digest string, total int64) (Scan, bool, error) {
	if _, err := u.Scan.Seek(0, io.SeekStart); err != nil {
		return Scan{}, false, err
	}
	metadata, err := json.Marshal(u.Metadata)
	if err != nil {
		return Scan{}, false, err
	}
	// The frame is written around a gap, so that the length is known and the
	// scan streams.
	var frame bytes.Buffer
	mw := multipart.NewWriter(&frame)
	part := func(name, file, mediaType, digest string) (io.Writer, error) {
		h := textproto.MIMEHeader{}
		disposition := fmt.Sprintf(`form-data; name="%s"`, name)
		if file != "" {
			disposition += `; filename="` + file + `"`
		}
		h.Set("Content-Disposition", disposition)
		h.Set("Content-Type", mediaType)
		if digest != "" {
			h.Set("Content-Digest", digest)
		}
		return mw.CreatePart(h)
	}
	w, err := part("metadata", "", "application/json", "")
	if err != nil {
		return Scan{}, false, err
	}
	w.Write(metadata)
	if u.Header != nil {
		if w, err = part("header", "scan.hdr", "application/octet-stream", ""); err != nil {
			return Scan{}, false, err
		}
		w.Write(u.Header)
	}
	// The name may be a patient's; its extension is all that is sent.
	if _, err := part("scan", "scan"+extension(u.Name), "application/octet-stream", digest); err != nil {
		return Scan{}, false, err
	}
	gap := frame.Len()
	mw.Close()
	body := io.MultiReader(bytes.NewReader(frame.Bytes()[:gap]),
		&progressReader{r: io.LimitReader(u.Scan, total), total: total, report: u.Progress},
		bytes.NewReader(frame.Bytes()[gap:]))

	res, err := a.CreateScanWithResponse(ctx, &CreateScanParams{IdempotencyKey: &key}, func(_ context.Context, r *http.Request) error {
		r.Body = io.NopCloser(body)
		r.ContentLength = int64(frame.Len()) + total
		r.Header.Set("Content-Type", mw.FormDataContentType())
		return nil
	})
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

// extension keeps what tells the reader how to read.
func extension(name string) string {
	lower := strings.ToLower(name)
	for _, ext := range []string{".nii.gz", ".nii", ".img.gz", ".img"} {
		if strings.HasSuffix(lower, ext) {
			return ext
		}
	}
	return ""
}

type progressReader struct {
	r           io.Reader
	sent, total int64
	report      func(sent, total int64)
}

func (p *progressReader) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	p.sent += int64(n)
	if p.report != nil && n > 0 {
		p.report(p.sent, p.total)
	}
	return n, err
}

// Wait follows a scan until its state is final and returns it. Broken streams
// are taken up where they ended. see, if given, is told of each event.
func (a *API) Wait(ctx context.Context, id uuid.UUID, see func(ScanEvent)) (Scan, error) {
	last := ""
	wait := firstPause
	for failures := 0; ; {
		seen, err := a.follow(ctx, id, &last, see)
		if err == nil {
			var res *GetScanResponse
			if res, err = a.GetScanWithResponse(ctx, id); err == nil && res.JSON200 == nil {
				err = ProblemOf(res.HTTPResponse, res.Body)
			}
			if err == nil && res.JSON200.State.Final() {
				return *res.JSON200, nil
			}
		}
		if err != nil && !temporary(err) {
			return Scan{}, err
		}
		if err == nil || seen {
			failures, wait = 0, firstPause
		} else if failures++; failures == attempts {
			return Scan{}, err
		}
		if err := a.Pause(ctx, wait); err != nil {
			return Scan{}, err
		}
		if err != nil {
			wait *= 2
		}
	}
}

// follow reads one event stream to its end. seen says that it brought events.
func (a *API) follow(ctx context.Context, id uuid.UUID, last *string, see func(ScanEvent)) (seen bool, err error) {
	params := &StreamScanEventsParams{}
	if *last != "" {
		params.LastEventID = last
	}
	res, err := a.StreamScanEvents(ctx, id, params)
	if err != nil {
		return false, err
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusNoContent {
		return false, nil
	}
	if res.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(res.Body, 1<<16))
		return false, ProblemOf(res, body)
	}
	lines := bufio.NewScanner(res.Body)
	next := ""
	for lines.Scan() {
		switch name, value, _ := strings.Cut(lines.Text(), ": "); name {
		case "id":
			next = value
		case "data":
			var ev ScanEvent
			if err := json.Unmarshal([]byte(value), &ev); err != nil {
				return seen, fmt.Errorf("client: event: %w", err)
			}
			*last, seen = next, true
			if see != nil {
				see(ev)
			}
		}
	}
	return seen, lines.Err()
}
