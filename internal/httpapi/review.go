package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"neuroscreen"
	"neuroscreen/internal/anatomy"
	"neuroscreen/internal/pipeline"
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
	if n.Decision != store.Amend && n.Excluded != nil {
		return nil, neuroscreen.FieldErrorf(neuroscreen.CodeInvalid, "invalid-value", "excluded", "structures are left out by amending a result")
	}
	for i, name := range n.Excluded {
		a, ok := anatomy.ByName(name)
		if !ok || a.Label == 0 {
			return nil, neuroscreen.FieldErrorf(neuroscreen.CodeInvalid, "invalid-value", "excluded", "not the name of a structure")
		}
		n.Excluded[i] = a.Name
	}
	if n.Excluded != nil {
		var err error
		if n.Amended, err = s.rescore(ctx, req.ScanID, n); err != nil {
			return nil, s.explain(ctx, req.ScanID, err)
		}
	}
	rec, err := s.cfg.Store.Review(ctx, siteID(ctx), caller(ctx).ID, req.ScanID, n)
	if err != nil {
		s.discard(ctx, n.Amended)
		return nil, s.explain(ctx, req.ScanID, err)
	}
	return ReviewCase201JSONResponse(reviewOf(ctx, rec)), nil
}

// rescore makes the result that an amendment asks for, of the volumes that the
// current one holds; nil when that leaves out the same already, or is not the
// one that the reader saw: then the store has the answer.
func (s *Server) rescore(ctx context.Context, scanID uuid.UUID, n store.NewReview) (*store.Outcome, error) {
	site := siteID(ctx)
	rec, err := s.cfg.Store.Scan(ctx, site, scanID)
	if err != nil || rec.Run != n.Run || !rec.State.Final() {
		return nil, err
	}
	v, err := s.cfg.Store.CurrentResult(ctx, site, scanID)
	if err != nil {
		return nil, err
	}
	old, err := v.Result()
	if err != nil {
		return nil, fmt.Errorf("stored result %s/%d: %w", v.ScanID, v.Version, err)
	}
	amendment := neuroscreen.Amendment{FromVersion: v.Version, LeftOut: []neuroscreen.LeftOut{}}
	for _, name := range n.Excluded {
		amendment.LeftOut = append(amendment.LeftOut, neuroscreen.LeftOut{Structure: name})
	}
	if sameSet(n.Excluded, old.Amendment.Structures()) {
		return nil, nil
	}
	made, err := s.cfg.Store.SettingsVersion(ctx, site, old.SettingsVersion)
	if err != nil {
		return nil, err
	}
	out := &store.Outcome{State: neuroscreen.Scored}
	var reading []byte
	err = func() (err error) {
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
			}
		}()
		settings, err := pipeline.ParseSettings(made.Settings)
		if err != nil {
			return fmt.Errorf("stored settings, version %d: %v", made.Version, err)
		}
		result, words, err := s.cfg.Rescore(old, v.Metadata, settings, amendment)
		if err != nil {
			return err
		}
		out.Result = result
		reading, err = json.Marshal(words)
		return err
	}()
	if e, ok := errors.AsType[*neuroscreen.Error](err); ok {
		return nil, e
	}
	if err != nil {
		return nil, &neuroscreen.Error{Code: neuroscreen.CodeInternal, Type: "rescoring-failed", Err: err,
			Message: fmt.Sprintf("the scores could not be made without these structures; nothing was changed, and version %d stands", v.Version)}
	}
	// Nothing was segmented anew: label map and picture are the same.
	for _, kind := range []string{store.KindSegmentation, store.KindPreview} {
		switch f, err := s.cfg.Store.DerivedFile(ctx, site, scanID, v.Version, kind); {
		case err == nil:
			out.Files = append(out.Files, f)
		case !isNotFound(err):
			return nil, err
		}
	}
	info, err := s.cfg.Blobs.Put(ctx, bytes.NewReader(reading), nil)
	if err != nil {
		return nil, err
	}
	out.Files = append(out.Files, store.DerivedFile{Kind: store.KindReading, MediaType: "application/json", BlobKey: info.Key, SHA256: info.Key, Size: info.Size})
	return out, nil
}

// discard removes the files of an outcome that no row came to refer to.
func (s *Server) discard(ctx context.Context, o *store.Outcome) {
	if o == nil {
		return
	}
	for _, f := range o.Files {
		if _, err := s.cfg.Store.ReleaseBlobs(context.WithoutCancel(ctx), []string{f.BlobKey}, s.cfg.Blobs.Remove); err != nil {
			s.cfg.Log.WarnContext(ctx, "files left for the sweep", "error", err)
		}
	}
}

func sameSet(a, b []string) bool {
	a, b = slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	return slices.Equal(slices.Compact(a), slices.Compact(b))
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
	out := Review{Number: r.Seq, Run: r.Run, ResultVersion: r.ResultVersion, Decision: Decision(r.Decision), Comment: r.Comment, Excluded: orEmpty(r.Excluded),
		By: r.By, Mine: r.KeyID == caller(ctx).ID, At: r.At.UTC()}
	if r.MadeVersion > 0 {
		out.MadeVersion = &r.MadeVersion
	}
	if !seesIdentifiers(caller(ctx).Role) {
		out.Comment = ""
	}
	return out
}

func (s *Server) StreamCases(ctx context.Context, _ StreamCasesRequestObject) (StreamCasesResponseObject, error) {
	if err := s.streamed.enter(ctx); err != nil {
		return nil, err
	}
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
	look := time.NewTicker(c.s.cfg.Poll)
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
