package httpapi

import (
	"context"
	"encoding/hex"
	"strconv"

	"neuroscreen"
	"neuroscreen/internal/store"
)

func (s *Server) ListKeys(ctx context.Context, _ ListKeysRequestObject) (ListKeysResponseObject, error) {
	found, err := s.cfg.Store.ListKeys(ctx, siteID(ctx))
	if err != nil {
		return nil, err
	}
	out := KeyList{Keys: make([]Key, len(found))}
	for n, k := range found {
		out.Keys[n] = keyOf(k)
	}
	return ListKeys200JSONResponse(out), nil
}

func (s *Server) CreateKey(ctx context.Context, req CreateKeyRequestObject) (CreateKeyResponseObject, error) {
	secret, key, err := s.cfg.Store.CreateKey(ctx, siteID(ctx), actor(ctx), req.Body.Role, req.Body.Name)
	if err != nil {
		return nil, err
	}
	return CreateKey201JSONResponse{Key: keyOf(key), Secret: secret}, nil
}

func (s *Server) RevokeKey(ctx context.Context, req RevokeKeyRequestObject) (RevokeKeyResponseObject, error) {
	if _, err := s.cfg.Store.RevokeKey(ctx, siteID(ctx), actor(ctx), req.KeyID); err != nil {
		return nil, err
	}
	return RevokeKey204Response{}, nil
}

func keyOf(k store.KeyRecord) Key {
	return Key{ID: k.ID, Name: k.Label, Role: k.Role, Prefix: k.Prefix, CreatedAt: k.Created.UTC(), LastUsedAt: utcPtr(k.LastUsed), RevokedAt: utcPtr(k.Revoked)}
}

const defaultPage = 50

// ListAudit pages by sequence number; the cursor is the last one shown.
func (s *Server) ListAudit(ctx context.Context, req ListAuditRequestObject) (ListAuditResponseObject, error) {
	p := req.Params
	f := store.AuditFilter{ScanID: p.ScanID, Limit: val(p.Limit)}
	if f.Limit == 0 {
		f.Limit = defaultPage
	}
	if p.Actor != nil {
		a := store.Actor(*p.Actor)
		f.Actor = &a
	}
	if p.Cursor != nil {
		seq, err := strconv.ParseInt(*p.Cursor, 36, 64)
		if err != nil || seq < 1 {
			return nil, neuroscreen.FieldErrorf(neuroscreen.CodeInvalid, "invalid-value", "cursor", "take next_cursor from the page before, unchanged")
		}
		f.Before = seq
	}
	f.Limit++ // one more tells whether there is a next page
	found, err := s.cfg.Store.Audit(ctx, siteID(ctx), f)
	if err != nil {
		return nil, err
	}
	out := AuditList{Entries: []AuditEntry{}}
	if len(found) == f.Limit {
		found = found[:f.Limit-1]
		out.NextCursor = ptr(strconv.FormatInt(found[len(found)-1].Seq, 36))
	}
	for _, e := range found {
		out.Entries = append(out.Entries, AuditEntry{
			Seq: e.Seq, At: e.At.UTC(), Actor: string(e.Actor), Action: e.Action, Object: e.Object,
			Details: ptr(e.Details), ScanIds: e.Scans, Hash: hex.EncodeToString(e.Hash),
		})
	}
	return ListAudit200JSONResponse(out), nil
}

func (s *Server) VerifyAudit(ctx context.Context, _ VerifyAuditRequestObject) (VerifyAuditResponseObject, error) {
	n, err := s.cfg.Store.VerifyAudit(ctx, siteID(ctx))
	return VerifyAudit200JSONResponse{Entries: n}, err
}

// EraseSubject takes the identifier in the body: addresses end up in logs.
func (s *Server) EraseSubject(ctx context.Context, req EraseSubjectRequestObject) (EraseSubjectResponseObject, error) {
	n, keys, err := s.cfg.Store.EraseSubject(ctx, siteID(ctx), actor(ctx), req.Body.SubjectID)
	if err != nil {
		return nil, err
	}
	if _, err := s.cfg.Store.ReleaseBlobs(context.WithoutCancel(ctx), keys, s.cfg.Blobs.Remove); err != nil {
		return nil, err // as in DeleteScan
	}
	return EraseSubject200JSONResponse{Scans: n}, nil
}

func (s *Server) ListModels(ctx context.Context, _ ListModelsRequestObject) (ListModelsResponseObject, error) {
	return ListModels200JSONResponse{Models: orEmpty(s.cfg.Models())}, nil
}
