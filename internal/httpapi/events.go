package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"neuroscreen"
	"neuroscreen/internal/store"
)

// StreamScanEvents looks at the scan's events when this process has changed
// it, and every Poll: no worker needs to know who listens, and a stream
// survives a worker on another machine.
func (s *Server) StreamScanEvents(ctx context.Context, req StreamScanEventsRequestObject) (StreamScanEventsResponseObject, error) {
	since := int64(0)
	if h := val(req.Params.LastEventID); h != "" {
		n, err := strconv.ParseInt(h, 10, 64)
		if err != nil || n < 0 {
			return nil, neuroscreen.FieldErrorf(neuroscreen.CodeInvalid, "invalid-value", "Last-Event-ID", "not an id of this stream")
		}
		since = n
	}
	if err := s.streamed.enter(ctx); err != nil {
		return nil, err
	}
	changed, forget := s.cfg.Store.Changes(req.ScanID)
	context.AfterFunc(ctx, forget)
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
	return &eventStream{s: s, ctx: ctx, scanID: req.ScanID, since: since, events: events, changed: changed}, nil
}

type eventStream struct {
	s       *Server
	ctx     context.Context
	scanID  uuid.UUID
	since   int64
	events  []store.Event // not sent yet
	changed <-chan struct{}
}

func (e *eventStream) VisitStreamScanEventsResponse(w http.ResponseWriter) error {
	es := e.s.startEvents(w)
	defer es.end()
	poll := time.NewTicker(e.s.cfg.Poll)
	defer poll.Stop()
	until := time.NewTimer(e.s.cfg.StreamFor)
	defer until.Stop()
	for {
		ended := false
		var text strings.Builder
		for _, ev := range e.events {
			if err := writeEvent(&text, ev); err != nil {
				return nil
			}
			e.since, ended = ev.Seq, ev.State.Final()
		}
		var err error
		if text.Len() > 0 {
			err = es.write(text.String())
		} else {
			err = es.breathe()
		}
		if err != nil || ended {
			return nil // the client has gone, or has heard all
		}
		select {
		case <-e.ctx.Done():
			return nil
		case <-e.s.closed:
			return nil
		case <-until.C:
			return nil
		case <-e.changed:
		case <-poll.C:
		}
		// An error ends the stream: the client comes back with Last-Event-ID
		// and then hears what is wrong.
		if e.events, err = e.s.cfg.Store.Events(e.ctx, siteID(e.ctx), e.scanID, e.since); err != nil {
			return nil
		}
	}
}

// maxStreams of one key: each asks the database every Poll.
const maxStreams = 50

// listeners counts the open event streams of each key.
type listeners struct {
	mu sync.Mutex
	of map[uuid.UUID]int
}

// enter counts a stream until its request has ended. Errors: CodeBusy
// "too-many-streams".
func (l *listeners) enter(ctx context.Context) error {
	key := caller(ctx).ID
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.of[key] >= maxStreams {
		return neuroscreen.Errorf(neuroscreen.CodeBusy, "too-many-streams", "%d event streams are open with this key; close one first", maxStreams)
	}
	if l.of == nil {
		l.of = map[uuid.UUID]int{}
	}
	l.of[key]++
	context.AfterFunc(ctx, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.of[key]--; l.of[key] == 0 {
			delete(l.of, key)
		}
	})
	return nil
}

// events is an answer of server-sent events.
type events struct {
	s     *Server
	w     http.ResponseWriter
	wrote time.Time
}

func (s *Server) startEvents(w http.ResponseWriter) *events {
	s.metrics.streams.Inc()
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // a proxy must not hold events back
	w.WriteHeader(http.StatusOK)
	http.NewResponseController(w).Flush()
	return &events{s: s, w: w, wrote: time.Now()}
}

func (e *events) end() { e.s.metrics.streams.Dec() }

func (e *events) write(text string) error {
	e.wrote = time.Now()
	if _, err := io.WriteString(e.w, text); err != nil {
		return err
	}
	return http.NewResponseController(e.w).Flush()
}

// breathe keeps an idle connection open.
func (e *events) breathe() error {
	if time.Since(e.wrote) < e.s.cfg.Heartbeat {
		return nil
	}
	return e.write(": still here\n\n")
}

// writeEvent writes one server-sent event. JSON has no line breaks, so one
// data line is enough.
func writeEvent(w io.Writer, ev store.Event) error {
	data, err := json.Marshal(ScanEvent{Run: ev.Run, State: ev.State, At: ev.At.UTC(), Reasons: ev.Reasons})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "id: %d\nevent: state\ndata: %s\n\n", ev.Seq, data)
	return err
}
