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
	return s.report(ctx, req.ScanID, req.Params.Version, paperOf(req.Params.Paper), true, report.HTML)
}

func (s *Server) GetReportPDF(ctx context.Context, req GetReportPDFRequestObject) (GetReportPDFResponseObject, error) {
	return s.report(ctx, req.ScanID, req.Params.Version, paperOf(req.Params.Paper), true, report.PDF)
}

func (s *Server) GetFHIR(ctx context.Context, req GetFHIRRequestObject) (GetFHIRResponseObject, error) {
	return s.report(ctx, req.ScanID, req.Params.Version, report.Paper{}, false, fhir.Write)
}

func (s *Server) GetDICOMReport(ctx context.Context, req GetDICOMReportRequestObject) (GetDICOMReportResponseObject, error) {
	return s.report(ctx, req.ScanID, req.Params.Version, report.Paper{}, false, dicom.Report)
}

func (s *Server) GetDICOMLabels(ctx context.Context, req GetDICOMLabelsRequestObject) (GetDICOMLabelsResponseObject, error) {
	done, err := s.show(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	return s.report(ctx, req.ScanID, req.Params.Version, report.Paper{}, false, func(w io.Writer, p report.Page) error {
		return dicom.Segmentation(w, p, func() (*nifti.Image, error) {
			return s.labels(ctx, req.ScanID, p.Version)
		})
	})
}

// labels reads a label map, once there is memory for the object made of it:
// some 9 bytes a voxel (floats, classes, frames and the object), until the
// request has ended.
func (s *Server) labels(ctx context.Context, scanID uuid.UUID, version int) (*nifti.Image, error) {
	file, err := s.derivedBytes(ctx, scanID, version, store.KindSegmentation)
	if err != nil {
		return nil, err
	}
	rd, err := nifti.NewReader(bytes.NewReader(file), nifti.Limits{})
	if err != nil {
		return nil, err
	}
	defer rd.Close()
	leave, err := s.room(ctx, 9*int64(rd.Header().VolumeLen()))
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, leave)
	return rd.Image()
}

func paperOf(p *Paper) report.Paper {
	if val(p) == Letter {
		return report.Letter
	}
	return report.A4
}

// writtenReport is the answer for each kind of report.
type writtenReport interface {
	GetReportResponseObject
	GetReportPDFResponseObject
	GetFHIRResponseObject
	GetDICOMReportResponseObject
	GetDICOMLabelsResponseObject
}

// report is written by write, with or without the visits before.
func (s *Server) report(ctx context.Context, scanID uuid.UUID, version *int, paper report.Paper, visits bool, write func(io.Writer, report.Page) error) (writtenReport, error) {
	p, err := s.reportPage(ctx, scanID, version, visits)
	if err != nil {
		return nil, s.explain(ctx, scanID, err)
	}
	p.Paper = paper
	var body bytes.Buffer
	if err := write(&body, p); err != nil {
		return nil, fmt.Errorf("report of scan %s: %w", scanID, err)
	}
	if err := s.audit(ctx, scanObject(scanID), fmt.Sprintf("version %d", p.Version)); err != nil {
		return nil, err
	}
	if p.Timeline != nil {
		before := p.Timeline.Visits[:len(p.Timeline.Visits)-1]
		if err := s.auditVisits(ctx, before); err != nil {
			return nil, err
		}
	}
	sum := sha256.Sum256(body.Bytes())
	tag := etag(hex.EncodeToString(sum[:]), false)
	return reportResponse{tag, body.Bytes(), notModified(ctx, tag)}, nil
}

func (s *Server) reportPage(ctx context.Context, scanID uuid.UUID, version *int, visits bool) (p report.Page, err error) {
	site := siteID(ctx)
	var v store.ResultVersion
	if version == nil {
		v, err = s.cfg.Store.CurrentResult(ctx, site, scanID)
	} else {
		v, err = s.cfg.Store.ResultVersion(ctx, site, scanID, *version)
	}
	if err != nil {
		return p, err
	}
	result, err := v.Result()
	if err != nil {
		return p, fmt.Errorf("stored result %s/%d: %w", v.ScanID, v.Version, err)
	}
	who, err := s.identities(ctx, []uuid.UUID{scanID})
	if err != nil {
		return p, err
	}
	p = report.Page{Result: &result, Metadata: identified(v.Metadata, result.SubjectID, who[scanID]), Version: v.Version, Created: v.Created}
	result.SubjectID = p.Metadata.SubjectID
	if p.Preview, err = s.derivedBytes(ctx, scanID, v.Version, store.KindPreview); err != nil {
		return p, err
	}
	if result.FMRI != nil {
		if p.Maps, err = s.derivedBytes(ctx, scanID, v.Version, store.KindMaps); err != nil {
			return p, err
		}
	}
	reading, err := s.derivedBytes(ctx, scanID, v.Version, store.KindReading)
	if err != nil {
		return p, err
	}
	if reading != nil {
		if err := json.Unmarshal(reading, &p.Reading); err != nil {
			return p, fmt.Errorf("reading of scan %s: %w", scanID, err)
		}
	}
	decisions, err := s.cfg.Store.Reviews(ctx, site, scanID)
	if err != nil {
		return p, err
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
		return p, err
	}
	switch stands := rec.CurrentVersion(); stands {
	case 0:
		p.State = rec.State
	case v.Version:
		if visits {
			p.Timeline, err = s.timelineUntil(ctx, rec)
		}
	default:
		p.Stands = stands
	}
	return p, err
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
