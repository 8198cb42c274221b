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
		Sort: store.CaseSort(val(p.Sort)), Cursor: val(p.Cursor), Limit: val(p.Limit),
	}
	if f.Sort == "" {
		f.Sort = store.WorstFirst
	}
	var err error
	if f.ReceivedFrom, err = day("received_from", p.ReceivedFrom, 0); err != nil {
		return nil, err
	}
	if f.ReceivedBefore, err = day("received_to", p.ReceivedTo, 1); err != nil {
		return nil, err
	}
	found, err := s.cfg.Store.Cases(ctx, siteID(ctx), f)
	if err != nil {
		return nil, err
	}
	ids := make([]uuid.UUID, len(found.Cases))
	for n, c := range found.Cases {
		ids[n] = c.ScanID
	}
	who, err := s.identities(ctx, ids)
	if err != nil {
		return nil, err
	}
	if err := s.audit(ctx, "cases", ""); err != nil {
		return nil, err
	}
	out := CaseList{Cases: make([]Case, len(found.Cases)), NextCursor: ptr(found.NextCursor)}
	for n, c := range found.Cases {
		m := identified(c.Metadata, c.Pseudonym, who[c.ScanID])
		out.Cases[n] = Case{
			ID: c.ScanID, SubjectID: m.SubjectID, AccessionNumber: ptr(m.AccessionNumber), State: c.State,
			Flag: (*CaseFlag)(c.Flag), Condition: (*CaseCondition)(c.Condition), LikelihoodRatio: c.LikelihoodRatio,
			Sex: m.Sex, Modality: m.Modality, AgeYears: m.AgeYears, ScanDate: ptr(m.ScanDate), Scanner: ptr(m.Scanner),
			ReceivedAt: c.Received.UTC(), UpdatedAt: c.Updated.UTC(), Reasons: orEmpty(c.Reasons), ResultVersion: c.ResultVersion,
		}
	}
	return ListCases200JSONResponse(out), nil
}

// day is the start of a date in UTC, plus days.
func day(name string, date *string, plus int) (*time.Time, error) {
	if date == nil {
		return nil, nil
	}
	t, err := time.Parse(time.DateOnly, *date)
	if err != nil {
		return nil, badDate(name, "this is not a date (YYYY-MM-DD)")
	}
	t = t.AddDate(0, 0, plus)
	return &t, nil
}
