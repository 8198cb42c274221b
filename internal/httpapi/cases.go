package httpapi

import (
	"context"
	"time"

	"github.com/google/uuid"

	"neuroscreen"
	"neuroscreen/internal/store"
)

func (s *Server) ListCases(ctx context.Context, req ListCasesRequestObject) (ListCasesResponseObject, error) {
	p := req.Params
	if p.SubjectID != nil && !seesIdentifiers(caller(ctx).Role) {
		return nil, neuroscreen.FieldErrorf(neuroscreen.CodeForbidden, "identifiers-withheld", "subject_id", "a key with the role researcher works on pseudonyms")
	}
	f := store.CaseFilter{
		Flag: p.Flag, Condition: p.Condition, State: p.State, Scanner: p.Scanner, SubjectID: p.SubjectID,
		Review: store.ReviewState(val(p.Review)), Group: string(val(p.Group)), Sort: store.CaseSort(val(p.Sort)), Cursor: val(p.Cursor), Limit: val(p.Limit),
	}
	if f.Sort == "" {
		f.Sort = store.WorstFirst
	}
	var err error
	if f.ReceivedFrom, err = dayOrTime("received_from", p.ReceivedFrom, 0); err != nil {
		return nil, err
	}
	if f.ReceivedBefore, err = dayOrTime("received_to", p.ReceivedTo, 1); err != nil {
		return nil, err
	}
	list, err := s.caseList(ctx, f)
	if err != nil {
		return nil, err
	}
	return ListCases200JSONResponse(list), nil
}

func (s *Server) SearchCases(ctx context.Context, req SearchCasesRequestObject) (SearchCasesResponseObject, error) {
	b := req.Body
	f := store.CaseFilter{SubjectID: b.SubjectID, AccessionNumber: b.AccessionNumber, Sort: store.WorstFirst, Limit: maxFound}
	if b.Part != nil {
		var err error
		if f.ScanIDs, err = s.cfg.Store.ScansByPart(ctx, siteID(ctx), *b.Part, maxFound); err != nil {
			return nil, err
		}
	}
	list, err := s.caseList(ctx, f)
	if err != nil {
		return nil, err
	}
	return SearchCases200JSONResponse(list), nil
}

func (s *Server) caseList(ctx context.Context, f store.CaseFilter) (CaseList, error) {
	found, err := s.cfg.Store.Cases(ctx, siteID(ctx), f)
	if err != nil {
		return CaseList{}, err
	}
	cases, err := s.cases(ctx, found.Cases)
	if err != nil {
		return CaseList{}, err
	}
	shown := make([]uuid.UUID, len(cases))
	for n, c := range cases {
		shown[n] = c.ID
	}
	return CaseList{Cases: cases, NextCursor: ptr(found.NextCursor)}, s.audit(ctx, "cases", "", shown...)
}

func (s *Server) GetCase(ctx context.Context, req GetCaseRequestObject) (GetCaseResponseObject, error) {
	found, err := s.cfg.Store.Case(ctx, siteID(ctx), req.ScanID)
	if err != nil {
		return nil, err
	}
	cases, err := s.cases(ctx, []store.CaseRow{found})
	if err != nil {
		return nil, err
	}
	return GetCase200JSONResponse(cases[0]), s.audit(ctx, scanObject(req.ScanID), "")
}

// cases are what a client sees of rows of the worklist.
func (s *Server) cases(ctx context.Context, found []store.CaseRow) ([]Case, error) {
	ids := make([]uuid.UUID, len(found))
	for n, c := range found {
		ids[n] = c.ScanID
	}
	who, err := s.identities(ctx, ids)
	if err != nil {
		return nil, err
	}
	out := make([]Case, len(found))
	for n, c := range found {
		m := identified(c.Metadata, c.Pseudonym, who[c.ScanID])
		out[n] = Case{
			ID: c.ScanID, SubjectID: m.SubjectID, AccessionNumber: ptr(m.AccessionNumber), State: c.State,
			Flag: (*CaseFlag)(c.Flag), Condition: (*CaseCondition)(c.Condition), LikelihoodRatio: c.LikelihoodRatio,
			Sex: m.Sex, Modality: m.Modality, AgeYears: m.AgeYears, ScanDate: ptr(m.ScanDate), Scanner: ptr(m.Scanner),
			ReceivedAt: c.Received.UTC(), UpdatedAt: c.Updated.UTC(), Reasons: orEmpty(c.Reasons), Run: c.Run, ResultVersion: c.ResultVersion,
			Why: c.Why, Quality: (*CaseQuality)(c.Quality),
		}
		if len(c.Reasons) > 0 {
			out[n].Why = c.Reasons[0].Text
		}
		if c.HeldBy != nil {
			out[n].Held = &Hold{By: c.Holder, Mine: *c.HeldBy == caller(ctx).ID, Since: c.HeldSince.UTC(), Until: c.HeldUntil.UTC()}
		}
		if c.Decision != nil {
			out[n].Decision = &CaseDecision{Decision: Decision(*c.Decision), By: c.DecidedBy, At: c.DecidedAt.UTC()}
		}
	}
	return out, nil
}

// dayOrTime is a time, or the start of a date in UTC, plus days.
func dayOrTime(name string, text *string, plus int) (*time.Time, error) {
	if text == nil {
		return nil, nil
	}
	if t, err := time.Parse(time.RFC3339, *text); err == nil {
		return &t, nil
	}
	t, err := time.Parse(time.DateOnly, *text)
	if err != nil {
		return nil, badDate(name, notDayOrTime)
	}
	t = t.AddDate(0, 0, plus)
	return &t, nil
}

const notDayOrTime = "this is neither a date (YYYY-MM-DD) nor a time (as 2024-03-30T23:00:00Z)"
