package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"

	"neuroscreen"
	"neuroscreen/internal/fmri"
	"neuroscreen/internal/qc"
	"neuroscreen/internal/store"
)

const (
	maxDecoding   = 2 << 20 // bytes of a request: tables of events
	maxDecodings  = 100     // in a list
	maxEvents     = 10_000  // of one scan
	maxEventName  = 64      // bytes of the name of a condition or run
	maxConditions = 50
)

// CreateDecoding takes over a decoding once its events can be read.
func (s *Server) CreateDecoding(ctx context.Context, req CreateDecodingRequestObject) (CreateDecodingResponseObject, error) {
	b := req.Body
	n := store.NewDecoding{Options: neuroscreen.DefaultDecodingOptions(), Despite: qc.RefusedForNetworks, IdempotencyKey: val(req.Params.IdempotencyKey)}
	o := &n.Options
	if b.LagS != nil {
		o.LagSeconds = *b.LagS
	}
	if b.Ignore != nil {
		o.Ignore = b.Ignore
	}
	if b.Voxels != nil {
		o.Voxels = *b.Voxels
	}
	if b.Permutations != nil {
		o.Permutations = *b.Permutations
	}
	if b.Seed != nil {
		o.Seed = uint64(*b.Seed)
	}
	tables := make([][]neuroscreen.Event, len(b.Runs))
	for i, r := range b.Runs {
		events, err := readEvents(fmt.Sprintf("runs.%d.events", i), r.Events)
		if err != nil {
			return nil, err
		}
		for _, before := range b.Runs[:i] {
			if before.ScanID == r.ScanID {
				return nil, neuroscreen.FieldErrorf(neuroscreen.CodeUnprocessable, "file-twice", fmt.Sprintf("runs.%d.scan_id", i), "this scan is named twice; one table tells its runs apart by the column run")
			}
		}
		tables[i] = events
		n.Runs = append(n.Runs, store.DecodingRun{ScanID: r.ScanID, Events: events})
	}
	if err := fmri.CheckEvents(tables, o.Ignore); err != nil {
		return nil, err
	}
	conditions := map[string]bool{}
	for _, events := range tables {
		for _, e := range events {
			conditions[e.Type] = true
		}
	}
	if len(conditions) > maxConditions {
		return nil, neuroscreen.FieldErrorf(neuroscreen.CodeUnprocessable, fmri.EventsInvalid, "trial_type", "the events are of %d kinds; at most %d can be told apart", len(conditions), maxConditions)
	}
	rec, known, err := s.cfg.Store.CreateDecoding(ctx, siteID(ctx), actor(ctx), n)
	if err != nil {
		return nil, err
	}
	out, err := decodingOf(rec)
	if err != nil {
		return nil, err
	}
	location := "/v1/decodings/" + rec.ID.String()
	if known {
		return CreateDecoding200JSONResponse{Body: out, Headers: CreateDecoding200ResponseHeaders{Location: location}}, nil
	}
	return CreateDecoding202JSONResponse{Body: out, Headers: CreateDecoding202ResponseHeaders{Location: location}}, nil
}

// readEvents blames the field of the request.
func readEvents(field, table string) ([]neuroscreen.Event, error) {
	invalid := func(format string, args ...any) error {
		return neuroscreen.FieldErrorf(neuroscreen.CodeUnprocessable, fmri.EventsInvalid, field, format, args...)
	}
	events, err := fmri.ReadEvents(strings.NewReader(table))
	if err != nil {
		return nil, invalid("%s", neuroscreen.AsError(err).Message)
	}
	if len(events) == 0 || len(events) > maxEvents {
		return nil, invalid("the table holds %d events; 1 to %d are taken", len(events), maxEvents)
	}
	for _, e := range events {
		if len(e.Type) > maxEventName || len(e.Run) > maxEventName {
			return nil, invalid("a trial_type or run is longer than %d bytes", maxEventName)
		}
	}
	return events, nil
}

func (s *Server) ListDecodings(ctx context.Context, req ListDecodingsRequestObject) (ListDecodingsResponseObject, error) {
	found, err := s.cfg.Store.Decodings(ctx, siteID(ctx), req.Params.ScanID, maxDecodings)
	if err != nil {
		return nil, err
	}
	var shown []uuid.UUID
	for _, rec := range found {
		shown = append(shown, rec.ScanIDs()...)
	}
	slices.SortFunc(shown, func(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) })
	if err := s.audit(ctx, "decodings", "", slices.Compact(shown)...); err != nil {
		return nil, err
	}
	list := DecodingList{Decodings: make([]Decoding, len(found))}
	for i, rec := range found {
		if list.Decodings[i], err = decodingOf(rec); err != nil {
			return nil, err
		}
	}
	return ListDecodings200JSONResponse(list), nil
}

func (s *Server) GetDecoding(ctx context.Context, req GetDecodingRequestObject) (GetDecodingResponseObject, error) {
	rec, err := s.cfg.Store.Decoding(ctx, siteID(ctx), req.DecodingID)
	if err != nil {
		return nil, err
	}
	if err := s.audit(ctx, decodingObject(rec), "", rec.ScanIDs()...); err != nil {
		return nil, err
	}
	out, err := decodingOf(rec)
	return GetDecoding200JSONResponse(out), err
}

func (s *Server) GetDecodingWeights(ctx context.Context, req GetDecodingWeightsRequestObject) (GetDecodingWeightsResponseObject, error) {
	rec, err := s.cfg.Store.Decoding(ctx, siteID(ctx), req.DecodingID)
	if err != nil {
		return nil, err
	}
	if rec.WeightsKey == "" {
		return nil, neuroscreen.Errorf(neuroscreen.CodeConflict, "decoding-not-ready", "the decoding is %s; it has no weights", rec.State)
	}
	if err := s.audit(ctx, decodingObject(rec), "", rec.ScanIDs()...); err != nil {
		return nil, err
	}
	tag := etag(rec.WeightsKey, false) // a blob's key is its hash
	if notModified(ctx, tag) {
		return notModifiedResponse{tag}, nil
	}
	blob, err := s.cfg.Blobs.Open(ctx, rec.WeightsKey)
	if err != nil {
		return nil, fmt.Errorf("weights of decoding %s: %v", rec.ID, err) // ours, not the client's
	}
	return &fileResponse{blob: blob, tag: tag, mediaType: "application/gzip", size: rec.WeightsSize}, nil
}

func (s *Server) DeleteDecoding(ctx context.Context, req DeleteDecodingRequestObject) (DeleteDecodingResponseObject, error) {
	keys, err := s.cfg.Store.EraseDecoding(ctx, siteID(ctx), actor(ctx), req.DecodingID)
	if err != nil {
		return nil, err
	}
	if _, err := s.cfg.Store.ReleaseBlobs(context.WithoutCancel(ctx), keys, s.cfg.Blobs.Remove); err != nil {
		return nil, err
	}
	return DeleteDecoding204Response{}, nil
}

func decodingObject(rec store.DecodingRecord) string { return "decoding:" + rec.ID.String() }

// decodingOf is what a client sees of one row.
func decodingOf(rec store.DecodingRecord) (Decoding, error) {
	out := Decoding{ID: rec.ID, State: rec.State, Reasons: orEmpty(rec.Reasons), Runs: []DecodingRun{}, Options: rec.Options, Attempt: rec.Attempt,
		ReceivedAt: rec.Created.UTC(), UpdatedAt: rec.Updated.UTC(), FinishedAt: utcPtr(rec.Finished)}
	for _, r := range rec.Runs {
		out.Runs = append(out.Runs, DecodingRun{ScanID: r.ScanID, Events: r.Count})
	}
	if rec.Document != nil {
		if err := json.Unmarshal(rec.Document, &out.Result); err != nil {
			return out, fmt.Errorf("stored decoding %s: %w", rec.ID, err)
		}
	}
	return out, nil
}
