package httpapi

import (
	"context"
	"fmt"

	"neuroscreen/internal/norm"
	"neuroscreen/internal/timeline"
)

// GetTimeline compares the current results of one person's scans.
func (s *Server) GetTimeline(ctx context.Context, req GetTimelineRequestObject) (GetTimelineResponseObject, error) {
	site := siteID(ctx)
	pseudonym := s.cfg.Store.Pseudonym(site, req.Subject)
	if !seesIdentifiers(caller(ctx).Role) {
		pseudonym = req.Subject
	}
	found, err := s.cfg.Store.Visits(ctx, site, pseudonym)
	if err != nil {
		return nil, err
	}
	visits := make([]timeline.Visit, len(found))
	for i, v := range found {
		result, err := v.Result()
		if err != nil {
			return nil, fmt.Errorf("stored result %s/%d: %w", v.ScanID, v.Version, err)
		}
		visits[i] = timeline.NewVisit(result, v.Metadata, v.Version, v.Received)
	}
	cal, _, err := s.calibration(ctx, nil)
	if err != nil {
		return nil, err
	}
	if err := s.audit(ctx, "subject:"+pseudonym, fmt.Sprintf("%d visits", len(visits))); err != nil {
		return nil, err
	}
	return GetTimeline200JSONResponse(timeline.Make(req.Subject, visits, norm.Default(), cal)), nil
}
