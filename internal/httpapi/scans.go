package httpapi

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"

	"neuroscreen"
	"neuroscreen/internal/store"
)

// maxFound bounds the answer to a search for one subject's scans.
const maxFound = 200

func (s *Server) FindScans(ctx context.Context, req FindScansRequestObject) (FindScansResponseObject, error) {
	f := store.ScanFilter{SubjectID: req.Params.SubjectID, AccessionNumber: req.Params.AccessionNumber, Limit: maxFound}
	if f.SubjectID == nil && f.AccessionNumber == nil {
		return nil, neuroscreen.FieldErrorf(neuroscreen.CodeInvalid, "no-filter", "subject_id", "say what to look for: subject_id or accession_number")
	}
	found, err := s.cfg.Store.FindScans(ctx, siteID(ctx), f)
	if err != nil {
		return nil, err
	}
	scans, err := s.scans(ctx, found)
	if err != nil {
		return nil, err
	}
	shown := make([]uuid.UUID, len(scans))
	for n, scan := range scans {
		shown[n] = scan.ID
	}
	return FindScans200JSONResponse{Scans: scans}, s.audit(ctx, "scans", "", shown...)
}

func (s *Server) GetScan(ctx context.Context, req GetScanRequestObject) (GetScanResponseObject, error) {
	rec, err := s.cfg.Store.Scan(ctx, siteID(ctx), req.ScanID)
	if err != nil {
		return nil, err
	}
	scan, err := s.scan(ctx, rec)
	if err != nil {
		return nil, err
	}
	return GetScan200JSONResponse(scan), s.audit(ctx, scanObject(req.ScanID), "")
}

func (s *Server) UpdateScan(ctx context.Context, req UpdateScanRequestObject) (UpdateScanResponseObject, error) {
	b := req.Body
	scanDate := val(b.ScanDate)
	if scanDate == "" && b.BirthDate != nil {
		// The age is that at the scan, whose date may have been posted.
		old, err := s.cfg.Store.Scan(ctx, siteID(ctx), req.ScanID)
		if err != nil {
			return nil, err
		}
		scanDate = old.Metadata.ScanDate
	}
	age, err := ageOf(b.AgeYears, val(b.BirthDate), scanDate, s.cfg.Now())
	if err != nil {
		return nil, err
	}
	rec, err := s.cfg.Store.PatchMetadata(ctx, siteID(ctx), actor(ctx), req.ScanID, store.MetadataPatch{AgeYears: age, Sex: b.Sex, ScanDate: b.ScanDate, ConsentResearch: b.ConsentResearch})
	if err != nil {
		return nil, err
	}
	scan, err := s.scan(ctx, rec)
	return UpdateScan200JSONResponse(scan), err
}

func (s *Server) DeleteScan(ctx context.Context, req DeleteScanRequestObject) (DeleteScanResponseObject, error) {
	keys, err := s.cfg.Store.Erase(ctx, siteID(ctx), actor(ctx), req.ScanID)
	if err != nil {
		return nil, err
	}
	// The rows are gone for good; files that can't be removed now go with the
	// next sweep, but the client is told.
	if _, err := s.cfg.Store.ReleaseBlobs(context.WithoutCancel(ctx), keys, s.cfg.Blobs.Remove); err != nil {
		return nil, err
	}
	return DeleteScan204Response{}, nil
}

func (s *Server) RetryScan(ctx context.Context, req RetryScanRequestObject) (RetryScanResponseObject, error) {
	rec, err := s.cfg.Store.Retry(ctx, siteID(ctx), actor(ctx), req.ScanID)
	if err != nil {
		return nil, s.explain(ctx, req.ScanID, err)
	}
	scan, err := s.scan(ctx, rec)
	return RetryScan202JSONResponse(scan), err
}

func (s *Server) CancelScan(ctx context.Context, req CancelScanRequestObject) (CancelScanResponseObject, error) {
	rec, err := s.cfg.Store.Cancel(ctx, siteID(ctx), actor(ctx), req.ScanID)
	if err != nil {
		return nil, s.explain(ctx, req.ScanID, err)
	}
	scan, err := s.scan(ctx, rec)
	return CancelScan200JSONResponse(scan), err
}

// scan is what a client sees of one row.
func (s *Server) scan(ctx context.Context, rec store.ScanRecord) (Scan, error) {
	out, err := s.scans(ctx, []store.ScanRecord{rec})
	if err != nil {
		return Scan{}, err
	}
	return out[0], nil
}

func (s *Server) scans(ctx context.Context, recs []store.ScanRecord) ([]Scan, error) {
	ids := make([]uuid.UUID, len(recs))
	for n, rec := range recs {
		ids[n] = rec.ID
	}
	who, err := s.identities(ctx, ids)
	if err != nil {
		return nil, err
	}
	out := make([]Scan, 0, len(recs))
	for _, rec := range recs {
		stages, err := s.cfg.Store.StageTimes(ctx, rec.SiteID, rec.ID)
		if isNotFound(err) && len(recs) > 1 {
			continue // erased since
		}
		if err != nil {
			return nil, err
		}
		m := identified(rec.Metadata, rec.Pseudonym, who[rec.ID])
		out = append(out, Scan{
			ID: rec.ID, SubjectID: m.SubjectID, State: rec.State, Stages: until(rec.Updated, stages), Reasons: orEmpty(rec.Reasons),
			Metadata: m, Sha256: rec.SHA256, Bytes: rec.Size, Run: rec.Run, Attempt: rec.Attempt,
			ResultVersion: rec.CurrentVersion(), ReceivedAt: rec.Created.UTC(), UpdatedAt: rec.Updated.UTC(), BytesRemovedAt: utcPtr(rec.BytesRemoved),
		})
	}
	return out, nil
}

// identities returns what was posted about the scans, or nothing for a key
// that works on pseudonyms.
func (s *Server) identities(ctx context.Context, scanIDs []uuid.UUID) (map[uuid.UUID]store.Identity, error) {
	if len(scanIDs) == 0 || !seesIdentifiers(caller(ctx).Role) {
		return nil, nil
	}
	return s.cfg.Store.Identities(ctx, siteID(ctx), scanIDs...)
}

// identified puts the posted identifiers back; without them the pseudonym
// stands.
func identified(m neuroscreen.Metadata, pseudonym string, who store.Identity) neuroscreen.Metadata {
	m.SubjectID = pseudonym
	if who.SubjectID != "" {
		m.SubjectID = who.SubjectID
	}
	m.AccessionNumber = who.AccessionNumber
	m.StudyInstanceUID = who.StudyInstanceUID
	m.SeriesInstanceUID = who.SeriesInstanceUID
	m.FrameOfReferenceUID = who.FrameOfReferenceUID
	m.SOPInstanceUIDs = who.SOPInstanceUIDs
	return m
}

// explain adds the scan's state and reasons to a conflict.
func (s *Server) explain(ctx context.Context, scanID uuid.UUID, err error) error {
	e, ok := errors.AsType[*neuroscreen.Error](err)
	if !ok || e.Code != neuroscreen.CodeConflict {
		return err
	}
	rec, lookupErr := s.cfg.Store.Scan(ctx, siteID(ctx), scanID)
	if lookupErr != nil {
		return err
	}
	return &scanError{e, rec}
}

// audit records that the key read patient data: of one scan, which is then the
// object, or of several in a list, which stand in one entry. A worklist is read
// anew with each change; an entry for each of its lines would be most of the
// trail. A read that can't be recorded is not answered.
func (s *Server) audit(ctx context.Context, object, details string, scans ...uuid.UUID) error {
	x := exchangeFrom(ctx)
	action := operations[x.operation].audit
	if action == "" {
		panic("httpapi: " + x.operation + " has no audit action")
	}
	return s.cfg.Store.AppendAudit(ctx, x.key.SiteID, store.AuditEntry{Actor: actor(ctx), Action: action, Object: object, Details: details, Scans: scans})
}

func scanObject(id uuid.UUID) string { return "scan:" + id.String() }

func isNotFound(err error) bool {
	e, ok := errors.AsType[*neuroscreen.Error](err)
	return ok && e.Code == neuroscreen.CodeNotFound
}

// orEmpty makes null an empty list in JSON.
func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// until leaves out stages that were reached after the row was read.
func until(updated time.Time, stages []neuroscreen.StageTime) []neuroscreen.StageTime {
	out := make([]neuroscreen.StageTime, 0, len(stages))
	for _, st := range stages {
		if !st.At.After(updated) {
			out = append(out, neuroscreen.StageTime{State: st.State, At: st.At.UTC()})
		}
	}
	return out
}

func utcPtr(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	u := t.UTC()
	return &u
}
