package httpapi

import (
	"context"
	"net/http"

	"neuroscreen"
)

// pieces answers a request of the tus protocol, which is between client and
// internal/resumable.
type pieces struct {
	s *Server
	r *http.Request
}

func (s *Server) pieces(ctx context.Context) (pieces, error) {
	if s.cfg.Uploads == nil {
		return pieces{}, errNotFound()
	}
	return pieces{s, exchangeFrom(ctx).req}, nil
}

func (p pieces) serve(w http.ResponseWriter) error {
	return p.s.cfg.Uploads.Serve(siteID(p.r.Context()), w, p.r)
}

func (p pieces) VisitCreateUploadResponse(w http.ResponseWriter) error { return p.serve(w) }
func (p pieces) VisitGetUploadResponse(w http.ResponseWriter) error    { return p.serve(w) }
func (p pieces) VisitAppendUploadResponse(w http.ResponseWriter) error { return p.serve(w) }
func (p pieces) VisitDeleteUploadResponse(w http.ResponseWriter) error { return p.serve(w) }

func (s *Server) CreateUpload(ctx context.Context, _ CreateUploadRequestObject) (CreateUploadResponseObject, error) {
	return s.pieces(ctx)
}

func (s *Server) GetUpload(ctx context.Context, _ GetUploadRequestObject) (GetUploadResponseObject, error) {
	return s.pieces(ctx)
}

func (s *Server) AppendUpload(ctx context.Context, _ AppendUploadRequestObject) (AppendUploadResponseObject, error) {
	return s.pieces(ctx)
}

func (s *Server) DeleteUpload(ctx context.Context, _ DeleteUploadRequestObject) (DeleteUploadResponseObject, error) {
	return s.pieces(ctx)
}

// FinishUpload does with a whole upload what CreateScan does with a body.
func (s *Server) FinishUpload(ctx context.Context, req FinishUploadRequestObject) (res FinishUploadResponseObject, err error) {
	if s.cfg.Uploads == nil {
		return nil, errNotFound()
	}
	u := &upload{s: s, ctx: ctx}
	if u.metadata, err = s.completeMetadata(*req.Body, lenient(req.Params.Prefer)); err != nil {
		return nil, err
	}
	digest, err := parseDigest(req.Params.ContentDigest)
	if err != nil {
		return nil, err
	}
	if digest == nil {
		return nil, neuroscreen.FieldErrorf(neuroscreen.CodeInvalid, "invalid-digest", "Content-Digest", "write it as sha-256=:BASE64:")
	}
	whole, release, err := s.cfg.Uploads.Whole(ctx, siteID(ctx), req.UploadID)
	if isNotFound(err) {
		// Gone since it became a scan? Then the answer may have been lost.
		u.scan.sha256 = digest
		scan, known, repeatErr := u.repeated(val(req.Params.IdempotencyKey))
		switch {
		case repeatErr != nil:
			return nil, repeatErr
		case known:
			return finished(scan), nil
		}
	}
	if err != nil {
		return nil, err
	}
	defer func() {
		// Bytes that are no scan, or not those that were sent, cannot become one.
		fault := asError(err)
		useless := fault != nil && (fault.Code == neuroscreen.CodeUnprocessable && fault.Type != "idempotency-key-reused" || fault.Type == "digest-mismatch")
		if releaseErr := release(err == nil || useless); releaseErr != nil {
			s.cfg.Log.Warn("an upload stays until it expires", "request_id", requestID(ctx), "error", releaseErr)
		}
		if err != nil {
			u.discard()
		}
	}()
	if err := u.storeScan(u.received(whole), digest); err != nil {
		return nil, err
	}
	scan, known, err := u.create(val(req.Params.IdempotencyKey))
	if err != nil {
		return nil, err
	}
	if known {
		return finished(scan), nil
	}
	return FinishUpload202JSONResponse{Body: scan, Headers: FinishUpload202ResponseHeaders{Location: "/v1/scans/" + scan.ID.String()}}, nil
}

// finished says which scan the upload, or another of the same bytes, is already.
func finished(scan Scan) FinishUpload200JSONResponse {
	return FinishUpload200JSONResponse{Body: scan, Headers: FinishUpload200ResponseHeaders{Location: "/v1/scans/" + scan.ID.String()}}
}
