package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/google/uuid"

	"neuroscreen"
	"neuroscreen/internal/store"
)

// StreamScanEvents looks at the scan's events every Poll: no worker needs to
// know who listens, and a stream survives a worker on another machine.
func (s *Server) StreamScanEvents(ctx context.Context, req StreamScanEventsRequestObject) (StreamScanEventsResponseObject, error) {
	since := int64(0)
	if h := val(req.Params.LastEventID); h != "" {
		n, err := strconv.ParseInt(h, 10, 64)
		if err != nil || n < 0 {
			return nil, neuroscreen.FieldErrorf(neuroscreen.CodeInvalid, "invalid-value", "Last-Event-ID", "not an id of this stream")
		}
		since = n
	}
	// The state first: an event that comes between the two looks is then seen.
	scan, err := s.cfg.Store.Scan(ctx, siteID(ctx), req.ScanID)
	if err != nil {
		return nil, err
	}
	events, err := s.cfg.Store.Events(ctx, siteID(ctx), req.ScanID, since)
	if err != nil {
		return nil, err
	}
	if err := s.audit(ctx, scanObject(req.ScanID), ""); err != nil {
		return nil, err
	}
	if len(events) == 0 && scan.State.Final() {
		return StreamScanEvents204Response{}, nil
	}
	return &eventStream{s: s, ctx: ctx, scanID: req.ScanID, since: since, events: events}, nil
}

type eventStream struct {
	s      *Server
	ctx    context.Context
	scanID uuid.UUID
	since  int64
	events []store.Event // not sent yet
}

func (e *eventStream) VisitStreamScanEventsResponse(w http.ResponseWriter) error {
	e.s.metrics.streams.Inc()
	defer e.s.metrics.streams.Dec()
	rc := http.NewResponseController(w)
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // a proxy must not hold events back
	w.WriteHeader(http.StatusOK)

	poll := time.NewTicker(e.s.cfg.Poll)
	defer poll.Stop()
	lastWrite := time.Now()
	for {
		ended := false
		for _, ev := range e.events {
			if err := writeEvent(w, ev); err != nil {
				return nil // the client has gone
			}
			e.since, ended = ev.Seq, ev.State.Final()
		}
		if len(e.events) == 0 && time.Since(lastWrite) >= e.s.cfg.Heartbeat {
			if _, err := fmt.Fprint(w, ": still here\n\n"); err != nil {
				return nil
			}
			lastWrite = time.Now()
		}
		if len(e.events) > 0 {
			lastWrite = time.Now()
		}
		rc.SetWriteDeadline(time.Now().Add(e.s.cfg.Limits.WriteIdle))
		if rc.Flush() != nil || ended {
			return nil
		}
		select {
		case <-e.ctx.Done():
			return nil
		case <-e.s.closed:
			return nil
		case <-poll.C:
		}
		// An error ends the stream: the client comes back with Last-Event-ID
		// and then hears what is wrong.
		var err error
		if e.events, err = e.s.cfg.Store.Events(e.ctx, siteID(e.ctx), e.scanID, e.since); err != nil {
			return nil
		}
	}
}

// writeEvent writes one server-sent event. JSON has no line breaks, so one
// data line is enough.
func writeEvent(w http.ResponseWriter, ev store.Event) error {
	data, err := json.Marshal(ScanEvent{State: ev.State, At: ev.At.UTC(), Reasons: ev.Reasons})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "id: %d\nevent: state\ndata: %s\n\n", ev.Seq, data)
	return err
}
