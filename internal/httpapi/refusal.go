package httpapi

import (
	"context"
	"encoding/json"

	"neuroscreen"
	"neuroscreen/internal/store"
)

// refusalTexts are fixed: what a gateway knows of a failure may name a patient.
var refusalTexts = map[RefusalCode]string{
	NoImage:       "No image could be made of the series, so it was not analysed; the gateway's log says why. Send it again, or another one of this person.",
	ImageNotTaken: "The image that was made of the series could not be taken, so it was not analysed; the gateway's log says why.",
}

// CreateRefusal puts a series that could not be handed over where people look.
func (s *Server) CreateRefusal(ctx context.Context, req CreateRefusalRequestObject) (CreateRefusalResponseObject, error) {
	m, err := s.completeMetadata(req.Body.Metadata, true)
	if err != nil {
		return nil, err
	}
	// The same series is the same refusal; without its name, the same words are.
	what := []byte(m.SeriesInstanceUID)
	if len(what) == 0 {
		if what, err = json.Marshal(m); err != nil {
			return nil, err
		}
	}
	reason := neuroscreen.Reason{Code: string(req.Body.Code), Text: refusalTexts[req.Body.Code]}
	created, err := s.cfg.Store.CreateScan(ctx, siteID(ctx), actor(ctx), store.NewScan{
		Metadata: m, SHA256: s.cfg.Store.RefusalSum(siteID(ctx), what), Refused: []neuroscreen.Reason{reason},
	})
	if err != nil {
		return nil, err
	}
	scan, err := s.scan(ctx, created.Scan)
	if err != nil {
		return nil, err
	}
	location := "/v1/scans/" + scan.ID.String()
	if created.Duplicate {
		return CreateRefusal200JSONResponse{Body: scan, Headers: CreateRefusal200ResponseHeaders{Location: location}}, nil
	}
	return CreateRefusal201JSONResponse{Body: scan, Headers: CreateRefusal201ResponseHeaders{Location: location}}, nil
}
