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
	return GetCaseTimeline200JSONResponse(t), err
}

// timeline compares the current results of one person's scans.
func (s *Server) timeline(ctx context.Context, pseudonym, subject string) (timeline.Timeline, error) {
	none := timeline.Timeline{}
	found, err := s.cfg.Store.Visits(ctx, siteID(ctx), pseudonym)
	if err != nil {
		return none, err
	}
	visits := make([]timeline.Visit, 0, len(found))
	for _, v := range found {
		result, err := v.Result()
		if err != nil {
			return none, fmt.Errorf("stored result %s/%d: %w", v.ScanID, v.Version, err)
		}
		if result.Modality == neuroscreen.BOLD {
			continue // it has no volumes
		}
		visit := timeline.NewVisit(result, v.Metadata, v.Version, v.Received)
		visit.Rejected = v.Rejected
		visits = append(visits, visit)
		// By scan: the subject's pseudonym would outlive an erasure.
		if err := s.audit(ctx, scanObject(v.ScanID), fmt.Sprintf("version %d", v.Version)); err != nil {
			return none, err
		}
	}
	cal, _, err := s.calibration(ctx, nil)
	if err != nil {
		return none, err
	}
	return timeline.Make(subject, visits, norm.Default(), cal), nil
}

// timelineUntil ends with one scan's visit; nil when there is none before it.
func (s *Server) timelineUntil(ctx context.Context, rec store.ScanRecord) (*timeline.Timeline, error) {
	t, err := s.timeline(ctx, rec.Pseudonym, rec.Pseudonym)
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(t.Visits, func(v timeline.Visit) bool { return v.ScanID == rec.ID.String() })
	if at < 1 {
		return nil, nil
	}
	if at < len(t.Visits)-1 {
		cal, _, err := s.calibration(ctx, nil)
		if err != nil {
			return nil, err
		}
		t = timeline.Make(rec.Pseudonym, t.Visits[:at+1], norm.Default(), cal)
	}
	return &t, nil
}
