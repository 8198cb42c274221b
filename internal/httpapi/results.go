package httpapi

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/google/uuid"

	"neuroscreen/internal/store"
)

// GetResult answers with the stored document, in which only the subject's
// identifier is put back.
func (s *Server) GetResult(ctx context.Context, req GetResultRequestObject) (GetResultResponseObject, error) {
	site := siteID(ctx)
	var v store.ResultVersion
	var err error
	if req.Params.Version == nil {
		v, err = s.cfg.Store.CurrentResult(ctx, site, req.ScanID)
	} else {
		v, err = s.cfg.Store.ResultVersion(ctx, site, req.ScanID, *req.Params.Version)
	}
	if err != nil {
		return nil, s.explain(ctx, req.ScanID, err)
	}
	result, err := v.Result()
	if err != nil {
		return nil, fmt.Errorf("stored result %s/%d: %w", v.ScanID, v.Version, err)
	}
	who, err := s.identities(ctx, []uuid.UUID{req.ScanID})
	if err != nil {
		return nil, err
	}
	if id := who[req.ScanID].SubjectID; id != "" {
		result.SubjectID = id
	}
	if err := s.audit(ctx, scanObject(req.ScanID), fmt.Sprintf("version %d", v.Version)); err != nil {
		return nil, err
	}
	// Researchers get another document, so another tag.
	tag := etag(v.SHA256, seesIdentifiers(caller(ctx).Role))
	if notModified(ctx, tag) {
		return notModifiedResponse{tag}, nil
	}
	return GetResult200JSONResponse{Body: result, Headers: GetResult200ResponseHeaders{ETag: tag, ResultVersion: v.Version}}, nil
}

func (s *Server) GetSegmentation(ctx context.Context, req GetSegmentationRequestObject) (GetSegmentationResponseObject, error) {
	return s.derived(ctx, req.ScanID, req.Params.Version, store.KindSegmentation, "application/gzip")
}

func (s *Server) GetPreview(ctx context.Context, req GetPreviewRequestObject) (GetPreviewResponseObject, error) {
	return s.derived(ctx, req.ScanID, req.Params.Version, store.KindPreview, "image/png")
}

func (s *Server) GetReading(ctx context.Context, req GetReadingRequestObject) (GetReadingResponseObject, error) {
	return s.derived(ctx, req.ScanID, req.Params.Version, store.KindReading, "application/json")
}

// GetRunFile answers with one of the files that only a BOLD run has; their names
// are their kinds.
func (s *Server) GetRunFile(ctx context.Context, req GetRunFileRequestObject) (GetRunFileResponseObject, error) {
	mediaType := "application/gzip"
	if strings.HasSuffix(string(req.File), ".png") {
		mediaType = "image/png"
	}
	return s.derived(ctx, req.ScanID, req.Params.Version, string(req.File), mediaType)
}

// derivedFile is the answer for each kind of file.
type derivedFile interface {
	GetSegmentationResponseObject
	GetPreviewResponseObject
	GetReadingResponseObject
	GetRunFileResponseObject
}

func (s *Server) derived(ctx context.Context, scanID uuid.UUID, version *int, kind, mediaType string) (derivedFile, error) {
	file, err := s.cfg.Store.DerivedFile(ctx, siteID(ctx), scanID, val(version), kind)
	if err != nil {
		return nil, s.explain(ctx, scanID, err)
	}
	if err := s.audit(ctx, scanObject(scanID), fmt.Sprintf("version %d", file.Version)); err != nil {
		return nil, err
	}
	tag := etag(file.SHA256, false)
	if notModified(ctx, tag) {
		return notModifiedResponse{tag}, nil
	}
	blob, err := s.cfg.Blobs.Open(ctx, file.BlobKey)
	if err != nil {
		return nil, fmt.Errorf("derived file %s of scan %s: %v", kind, scanID, err) // ours, not the client's
	}
	return &fileResponse{blob: blob, tag: tag, mediaType: mediaType, size: file.Size}, nil
}

// fileResponse streams a blob.
type fileResponse struct {
	blob      io.ReadCloser
	tag       string
	mediaType string
	size      int64
}

func (f *fileResponse) VisitGetSegmentationResponse(w http.ResponseWriter) error { return f.visit(w) }
func (f *fileResponse) VisitGetPreviewResponse(w http.ResponseWriter) error      { return f.visit(w) }
func (f *fileResponse) VisitGetReadingResponse(w http.ResponseWriter) error      { return f.visit(w) }
func (f *fileResponse) VisitGetRunFileResponse(w http.ResponseWriter) error      { return f.visit(w) }

func (f *fileResponse) VisitGetDecodingWeightsResponse(w http.ResponseWriter) error {
	return f.visit(w)
}

func (f *fileResponse) visit(w http.ResponseWriter) error {
	defer f.blob.Close()
	h := w.Header()
	h.Set("Content-Type", f.mediaType)
	h.Set("Content-Length", fmt.Sprint(f.size))
	setCaching(h, f.tag)
	w.WriteHeader(http.StatusOK)
	if _, err := io.Copy(w, f.blob); err != nil {
		// Content-Length tells the client that the file is not whole.
		panic(http.ErrAbortHandler)
	}
	return nil
}

// notModifiedResponse is 304.
type notModifiedResponse struct{ tag string }

func (n notModifiedResponse) visit(w http.ResponseWriter) error {
	setCaching(w.Header(), n.tag)
	w.WriteHeader(http.StatusNotModified)
	return nil
}

func (n notModifiedResponse) VisitGetResultResponse(w http.ResponseWriter) error { return n.visit(w) }
func (n notModifiedResponse) VisitGetSegmentationResponse(w http.ResponseWriter) error {
	return n.visit(w)
}
func (n notModifiedResponse) VisitGetPreviewResponse(w http.ResponseWriter) error { return n.visit(w) }
func (n notModifiedResponse) VisitGetReadingResponse(w http.ResponseWriter) error { return n.visit(w) }
func (n notModifiedResponse) VisitGetDecodingWeightsResponse(w http.ResponseWriter) error {
	return n.visit(w)
}
func (n notModifiedResponse) VisitGetRunFileResponse(w http.ResponseWriter) error { return n.visit(w) }
func (n notModifiedResponse) VisitGetImageResponse(w http.ResponseWriter) error   { return n.visit(w) }
func (n notModifiedResponse) VisitGetAssetResponse(w http.ResponseWriter) error   { return n.visit(w) }

// setCaching: only the client itself may keep patient data, and must ask
// again, because a correction makes another version current.
func setCaching(h http.Header, tag string) {
	h.Set("ETag", tag)
	h.Set("Cache-Control", "private, no-cache")
	h.Set("Vary", "Authorization, Cookie, X-API-Key")
}

func etag(sha256 string, identified bool) string {
	if identified {
		return `"` + sha256 + `-i"`
	}
	return `"` + sha256 + `"`
}

// notModified compares If-None-Match (RFC 9110, 13.1.2).
func notModified(ctx context.Context, tag string) bool {
	for _, h := range exchangeFrom(ctx).req.Header.Values("If-None-Match") {
		for t := range strings.SplitSeq(h, ",") {
			t = strings.TrimPrefix(strings.TrimSpace(t), "W/")
			if t == tag || t == "*" {
				return true
			}
		}
	}
	return false
}
