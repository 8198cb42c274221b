package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"neuroscreen"
	"neuroscreen/internal/anatomy"
	"neuroscreen/internal/store"
)

// holdFor is how long a case stays with whoever opened it and then went away.
const holdFor = 10 * time.Minute

func (s *Server) HoldCase(ctx context.Context, req HoldCaseRequestObject) (HoldCaseResponseObject, error) {
	hold, err := s.cfg.Store.HoldCase(ctx, siteID(ctx), caller(ctx).ID, req.ScanID, holdFor, val(req.Body.TakeOver))
	if err != nil {
		return nil, err
	}
	return HoldCase200JSONResponse{By: hold.By, Mine: true, Since: hold.Since.UTC(), Until: hold.Until.UTC()}, nil
}

func (s *Server) ReleaseCase(ctx context.Context, req ReleaseCaseRequestObject) (ReleaseCaseResponseObject, error) {
	return ReleaseCase204Response{}, s.cfg.Store.ReleaseCase(ctx, siteID(ctx), caller(ctx).ID, req.ScanID)
}

func (s *Server) ReviewCase(ctx context.Context, req ReviewCaseRequestObject) (ReviewCaseResponseObject, error) {
	b := req.Body
	n := store.NewReview{Decision: store.Decision(b.Decision), Comment: strings.TrimSpace(val(b.Comment)), Excluded: b.Excluded, Run: b.Run, Seen: b.Seen}
	if n.Decision != store.Accept && n.Comment == "" {
		return nil, missing("comment", "say why, for whoever reads the decision later")
	}
	if n.Decision != store.Amend && len(n.Excluded) > 0 {
		return nil, neuroscreen.FieldErrorf(neuroscreen.CodeInvalid, "invalid-value", "excluded", "structures are left out by amending a result")
	}
	for _, name := range n.Excluded {
		if a, ok := anatomy.ByName(name); !ok || a.Label == 0 {
			return nil, neuroscreen.FieldErrorf(neuroscreen.CodeInvalid, "invalid-value", "excluded", "not the name of a structure")
		}
	}
	rec, err := s.cfg.Store.Review(ctx, siteID(ctx), caller(ctx).ID, req.ScanID, n)
	if err != nil {
		return nil, s.explain(ctx, req.ScanID, err)
	}
	return ReviewCase201JSONResponse(reviewOf(ctx, rec)), nil
}

func (s *Server) ListReviews(ctx context.Context, req ListReviewsRequestObject) (ListReviewsResponseObject, error) {
	found, err := s.cfg.Store.Reviews(ctx, siteID(ctx), req.ScanID)
	if err != nil {
		return nil, err
	}
	if err := s.audit(ctx, scanObject(req.ScanID), ""); err != nil {
		return nil, err
	}
	out := ListReviews200JSONResponse{Reviews: make([]Review, len(found))}
	for n, r := range found {
		out.Reviews[n] = reviewOf(ctx, r)
	}
	return out, nil
}

// reviewOf leaves out the comment, which may name the patient, for who works
// on pseudonyms.
func reviewOf(ctx context.Context, r store.ReviewRecord) Review {
	out := Review{Run: r.Run, ResultVersion: r.ResultVersion, Decision: Decision(r.Decision), Comment: r.Comment, Excluded: orEmpty(r.Excluded),
		By: r.By, Mine: r.KeyID == caller(ctx).ID, At: r.At.UTC()}
	if !seesIdentifiers(caller(ctx).Role) {
		out.Comment = ""
	}
	return out
}

func (s *Server) StreamCases(ctx context.Context, _ StreamCasesRequestObject) (StreamCasesResponseObject, error) {
	counts, err := s.cfg.Store.CaseCounts(ctx, siteID(ctx))
	if err != nil {
		return nil, err
	}
	return &caseStream{s: s, ctx: ctx, counts: counts}, nil
}

type caseStream struct {
	s      *Server
	ctx    context.Context
	counts store.CaseCounts
}

func (c *caseStream) VisitStreamCasesResponse(w http.ResponseWriter) error {
	es := c.s.startEvents(w)
	defer es.end()
	look := time.NewTicker(6 * c.s.cfg.Poll)
	defer look.Stop()
	until := time.NewTimer(c.s.cfg.StreamFor)
	defer until.Stop()
	var shown string
	for {
		data, err := json.Marshal(countsOf(c.counts))
		if err != nil {
			return nil
		}
		if string(data) != shown {
			shown = string(data)
			err = es.write(fmt.Sprintf("event: cases\ndata: %s\n\n", data))
		} else {
			err = es.breathe()
		}
		if err != nil {
			return nil // the client has gone
		}
		select {
		case <-c.ctx.Done():
			return nil
		case <-c.s.closed:
			return nil
		case <-until.C:
			return nil
		case <-look.C:
		}
		// An error ends the stream: the client comes back and hears what is wrong.
		if c.counts, err = c.s.cfg.Store.CaseCounts(c.ctx, siteID(c.ctx)); err != nil {
			return nil
		}
	}
}

func countsOf(c store.CaseCounts) CaseCounts {
	return CaseCounts{Flagged: c.Flagged, Review: c.Review, Ended: c.Ended, Running: c.Running, NothingFound: c.NothingFound, Abstained: c.Abstained, ChangedAt: utcPtr(c.Changed)}
}
