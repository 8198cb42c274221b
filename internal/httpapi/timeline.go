package httpapi

import (
	"context"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"neuroscreen"
	"neuroscreen/internal/norm"
	"neuroscreen/internal/store"
	"neuroscreen/internal/timeline"
)

func (s *Server) GetTimeline(ctx context.Context, req GetTimelineRequestObject) (GetTimelineResponseObject, error) {
	pseudonym := s.cfg.Store.Pseudonym(siteID(ctx), req.Subject)
	if !seesIdentifiers(caller(ctx).Role) {
		pseudonym = req.Subject
	}
	t, err := s.timeline(ctx, pseudonym, req.Subject)
	return GetTimeline200JSONResponse(t), err
}

func (s *Server) GetCaseTimeline(ctx context.Context, req GetCaseTimelineRequestObject) (GetCaseTimelineResponseObject, error) {
	rec, err := s.cfg.Store.Scan(ctx, siteID(ctx), req.ScanID)
	if err != nil {
		return nil, err
	}
	who, err := s.identities(ctx, []uuid.UUID{req.ScanID})
	if err != nil {
		return nil, err
	}
	t, err := s.timeline(ctx, rec.Pseudonym, identified(rec.Metadata, rec.Pseudonym, who[req.ScanID]).SubjectID)
	if err == nil && !slices.ContainsFunc(t.Visits, func(v timeline.Visit) bool { return v.ScanID == req.ScanID.String() }) {
		err = s.audit(ctx, scanObject(req.ScanID), "") // whose it is was told nevertheless
	}
	return GetCaseTimeline200JSONResponse(t), err
}

// timeline compares the current results of one person's scans.
func (s *Server) timeline(ctx context.Context, pseudonym, subject string) (timeline.Timeline, error) {
	visits, cal, err := s.visits(ctx, pseudonym)
	if err != nil {
		return timeline.Timeline{}, err
	}
	return timeline.Make(subject, visits, norm.Default(), cal), s.auditVisits(ctx, visits)
}

// visits are what a timeline is made of.
func (s *Server) visits(ctx context.Context, pseudonym string) ([]timeline.Visit, norm.Calibration, error) {
	none := norm.Calibration{}
	found, err := s.cfg.Store.Visits(ctx, siteID(ctx), pseudonym)
	if err != nil {
		return nil, none, err
	}
	visits := make([]timeline.Visit, 0, len(found))
	for _, v := range found {
		result, err := v.Result()
		if err != nil {
			return nil, none, fmt.Errorf("stored result %s/%d: %w", v.ScanID, v.Version, err)
		}
		if result.Modality == neuroscreen.BOLD {
			continue // it has no volumes
		}
		visit := timeline.NewVisit(result, v.Metadata, v.Version, v.Received)
		visit.Rejected = v.Rejected
		visits = append(visits, visit)
	}
	cal, _, err := s.calibration(ctx, nil)
	return visits, cal, err
}

// auditVisits by scan: the subject's pseudonym would outlive an erasure.
func (s *Server) auditVisits(ctx context.Context, visits []timeline.Visit) error {
	for _, v := range visits {
		if err := s.audit(ctx, "scan:"+v.ScanID, fmt.Sprintf("version %d", v.ResultVersion)); err != nil {
			return err
		}
	}
	return nil
}

// timelineUntil ends with one scan's visit; nil when there is none before it.
// The caller audits those.
func (s *Server) timelineUntil(ctx context.Context, rec store.ScanRecord) (*timeline.Timeline, error) {
	visits, cal, err := s.visits(ctx, rec.Pseudonym)
	if err != nil {
		return nil, err
	}
	t := timeline.Make(rec.Pseudonym, visits, norm.Default(), cal)
	at := slices.IndexFunc(t.Visits, func(v timeline.Visit) bool { return v.ScanID == rec.ID.String() })
	if at < 1 {
		return nil, nil
	}
	if at < len(t.Visits)-1 {
		t = timeline.Make(rec.Pseudonym, t.Visits[:at+1], norm.Default(), cal)
	}
	return &t, nil
}
