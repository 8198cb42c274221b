package httpapi

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/google/uuid"

	"neuroscreen/internal/interop/dicom"
	"neuroscreen/internal/interop/fhir"
	"neuroscreen/internal/nifti"
	"neuroscreen/internal/report"
	"neuroscreen/internal/store"
)

// A report is made when it is asked for, of what was stored with the result:
// so it can name the subject as the site does, and show whether somebody has
// decided on the result and how.

func (s *Server) GetReport(ctx context.Context, req GetReportRequestObject) (GetReportResponseObject, error) {
	r, err := s.report(ctx, req.ScanID, req.Params.Version, paperOf(req.Params.Paper), report.HTML)
	if r == nil {
		return nil, err
	}
	return r.(GetReportResponseObject), err
}

func (s *Server) GetReportPDF(ctx context.Context, req GetReportPDFRequestObject) (GetReportPDFResponseObject, error) {
	r, err := s.report(ctx, req.ScanID, req.Params.Version, paperOf(req.Params.Paper), report.PDF)
	if r == nil {
		return nil, err
	}
	return r.(GetReportPDFResponseObject), err
}

func (s *Server) GetFHIR(ctx context.Context, req GetFHIRRequestObject) (GetFHIRResponseObject, error) {
	r, err := s.report(ctx, req.ScanID, req.Params.Version, report.Paper{}, fhir.Write)
	if r == nil {
		return nil, err
	}
	return r.(GetFHIRResponseObject), err
}

func (s *Server) GetDICOMReport(ctx context.Context, req GetDICOMReportRequestObject) (GetDICOMReportResponseObject, error) {
	r, err := s.report(ctx, req.ScanID, req.Params.Version, report.Paper{}, dicom.Report)
	if r == nil {
		return nil, err
	}
	return r.(GetDICOMReportResponseObject), err
}

func (s *Server) GetDICOMLabels(ctx context.Context, req GetDICOMLabelsRequestObject) (GetDICOMLabelsResponseObject, error) {
	done, err := s.show(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	r, err := s.report(ctx, req.ScanID, req.Params.Version, report.Paper{}, func(w io.Writer, p report.Page) error {
		return dicom.Segmentation(w, p, func() (*nifti.Image, error) {
			file, err := s.derivedBytes(ctx, req.ScanID, p.Version, store.KindSegmentation)
			if err != nil {
				return nil, err
			}
			return nifti.Decode(bytes.NewReader(file), nifti.Limits{})
		})
	})
	if r == nil {
		return nil, err
	}
	return r.(GetDICOMLabelsResponseObject), err
}

func paperOf(p *Paper) report.Paper {
	if val(p) == Letter {
		return report.Letter
	}
	return report.A4
}

func (s *Server) report(ctx context.Context, scanID uuid.UUID, version *int, paper report.Paper, write func(io.Writer, report.Page) error) (any, error) {
	p, number, err := s.reportPage(ctx, scanID, version)
	if err != nil {
		return nil, s.explain(ctx, scanID, err)
	}
	if err := s.audit(ctx, scanObject(scanID), fmt.Sprintf("version %d", number)); err != nil {
		return nil, err
	}
	p.Paper = paper
	var body bytes.Buffer
	if err := write(&body, p); err != nil {
		return nil, fmt.Errorf("report of scan %s: %w", scanID, err)
	}
	sum := sha256.Sum256(body.Bytes())
	tag := etag(hex.EncodeToString(sum[:]), false)
	return reportResponse{tag, body.Bytes(), notModified(ctx, tag)}, nil
}

func (s *Server) reportPage(ctx context.Context, scanID uuid.UUID, version *int) (p report.Page, number int, err error) {
	site := siteID(ctx)
	var v store.ResultVersion
	if version == nil {
		v, err = s.cfg.Store.CurrentResult(ctx, site, scanID)
	} else {
		v, err = s.cfg.Store.ResultVersion(ctx, site, scanID, *version)
	}
	if err != nil {
		return p, 0, err
	}
	result, err := v.Result()
	if err != nil {
		return p, 0, fmt.Errorf("stored result %s/%d: %w", v.ScanID, v.Version, err)
	}
	who, err := s.identities(ctx, []uuid.UUID{scanID})
	if err != nil {
		return p, 0, err
	}
	p = report.Page{Result: &result, Metadata: identified(v.Metadata, result.SubjectID, who[scanID]), Version: v.Version, Created: v.Created}
	result.SubjectID = p.Metadata.SubjectID
	if p.Preview, err = s.derivedBytes(ctx, scanID, v.Version, store.KindPreview); err != nil {
		return p, 0, err
	}
	if result.FMRI != nil {
		if p.Maps, err = s.derivedBytes(ctx, scanID, v.Version, store.KindMaps); err != nil {
			return p, 0, err
		}
	}
	reading, err := s.derivedBytes(ctx, scanID, v.Version, store.KindReading)
	if err != nil {
		return p, 0, err
	}
	if reading != nil {
		if err := json.Unmarshal(reading, &p.Reading); err != nil {
			return p, 0, fmt.Errorf("reading of scan %s: %w", scanID, err)
		}
	}
	decisions, err := s.cfg.Store.Reviews(ctx, site, scanID)
	if err != nil {
		return p, 0, err
	}
	for _, d := range decisions {
		if d.ResultVersion == v.Version {
			shown := reviewOf(ctx, d)
			p.Review = &report.Review{Decision: string(d.Decision), By: d.By, At: d.At, Comment: shown.Comment, Excluded: d.Excluded, Made: d.MadeVersion}
		}
		left := report.LeftOut{By: d.By, At: d.At, Comment: reviewOf(ctx, d).Comment}
		if result.Amendment != nil {
			for _, l := range result.Amendment.LeftOut {
				if l.Decision == d.Seq {
					left.Structures = append(left.Structures, l.Structure)
				}
			}
		}
		if len(left.Structures) > 0 {
			p.LeftOut = append(p.LeftOut, left)
		}
	}
	rec, err := s.cfg.Store.Scan(ctx, site, scanID)
	if err != nil {
		return p, 0, err
	}
	switch stands := rec.CurrentVersion(); stands {
	case 0:
		p.State = rec.State
	case v.Version:
		if p.Timeline, err = s.timelineUntil(ctx, rec); err != nil {
			return p, 0, err
		}
	default:
		p.Stands = stands
	}
	return p, v.Version, nil
}

// derivedBytes reads a small derived file whole; nil when the result, made by
// an earlier release, has none.
func (s *Server) derivedBytes(ctx context.Context, scanID uuid.UUID, version int, kind string) ([]byte, error) {
	file, err := s.cfg.Store.DerivedFile(ctx, siteID(ctx), scanID, version, kind)
	if isNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	blob, err := s.cfg.Blobs.Open(ctx, file.BlobKey)
	if err != nil {
		return nil, fmt.Errorf("derived file %s of scan %s: %v", kind, scanID, err)
	}
	defer blob.Close()
	return io.ReadAll(blob)
}

// reportResponse sends the same policy with and without the body: a browser
// takes the headers of "not modified" for the page that it has.
type reportResponse struct {
	tag   string
	body  []byte
	known bool
}

func (r reportResponse) VisitGetReportResponse(w http.ResponseWriter) error {
	w.Header().Set("Content-Security-Policy", stylePolicy(r.body))
	return r.visit(w, "text/html; charset=utf-8")
}

func (r reportResponse) VisitGetReportPDFResponse(w http.ResponseWriter) error {
	w.Header().Set("Content-Disposition", "inline; filename=report.pdf")
	return r.visit(w, "application/pdf")
}

func (r reportResponse) VisitGetFHIRResponse(w http.ResponseWriter) error {
	return r.visit(w, "application/fhir+json")
}

func (r reportResponse) VisitGetDICOMReportResponse(w http.ResponseWriter) error {
	w.Header().Set("Content-Disposition", "attachment; filename=sr.dcm")
	return r.visit(w, "application/dicom")
}

func (r reportResponse) VisitGetDICOMLabelsResponse(w http.ResponseWriter) error {
	w.Header().Set("Content-Disposition", "attachment; filename=seg.dcm")
	return r.visit(w, "application/dicom")
}

func (r reportResponse) visit(w http.ResponseWriter, mediaType string) error {
	h := w.Header()
	setCaching(h, r.tag)
	if r.known {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	h.Set("Content-Type", mediaType)
	h.Set("Content-Length", fmt.Sprint(len(r.body)))
	w.WriteHeader(http.StatusOK)
	_, err := w.Write(r.body)
	return err
}
