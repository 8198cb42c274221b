package httpapi

import (
	"bufio"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"neuroscreen"
	"neuroscreen/internal/store"
)

// stream is an open event stream.
type stream struct {
	t     testing.TB
	res   *http.Response
	lines *bufio.Scanner
}

func (e *env) stream(path, key, lastID string) *stream {
	e.Helper()
	req := e.request("GET", path, key)
	if lastID != "" {
		req.Header.Set("Last-Event-ID", lastID)
	}
	res, err := e.client.Do(req)
	if err != nil {
		e.Fatal(err)
	}
	e.Cleanup(func() { res.Body.Close() })
	if res.StatusCode != 200 || res.Header.Get("Content-Type") != "text/event-stream" {
		e.Fatalf("%d %v", res.StatusCode, res.Header)
	}
	return &stream{e, res, bufio.NewScanner(res.Body)}
}

// next returns the next event; ok is false at the stream's end.
func (s *stream) next() (id string, ev ScanEvent, ok bool) {
	s.t.Helper()
	for s.lines.Scan() {
		switch name, value, _ := strings.Cut(s.lines.Text(), ": "); name {
		case "id":
			id = value
		case "data":
			if err := json.Unmarshal([]byte(value), &ev); err != nil {
				s.t.Fatal(err)
			}
			ok = true
		case "":
			if ok {
				return id, ev, true
			}
		}
	}
	return "", ScanEvent{}, false
}

func (s *stream) want(states ...neuroscreen.State) (lastID string) {
	s.t.Helper()
	for _, want := range states {
		id, ev, ok := s.next()
		if !ok || ev.State != want || ev.At.IsZero() {
			s.t.Fatalf("event %q %+v (%v), want %s", id, ev, ok, want)
		}
		lastID = id
	}
	return lastID
}

func streamLong(c *Config) { c.StreamFor = time.Minute }

func TestEvents(t *testing.T) {
	e := setup(t, streamLong)
	scan := e.upload(&e.a, "S", 1)
	path := "/v1/scans/" + scan.ID.String() + "/events"
	key := e.a.keys[uploader]

	s := e.stream(path, key, "")
	s.want(neuroscreen.Received)
	w := e.take(scan.ID)
	w.stage(neuroscreen.Checked)
	seen := s.want(neuroscreen.Checked)
	w.stage(neuroscreen.Segmented)
	s.want(neuroscreen.Segmented)

	// A client that lost its connection after "checked" misses nothing.
	again := e.stream(path, key, seen)
	again.want(neuroscreen.Segmented)

	w.stage(neuroscreen.Measured)
	w.finish(scoredOutcome(neuroscreen.FlagNone))
	for _, s := range []*stream{s, again} {
		last := s.want(neuroscreen.Measured, neuroscreen.Scored)
		if _, ev, ok := s.next(); ok {
			t.Errorf("%+v after the end", ev)
		}
		e.do("GET", path, key, header("Last-Event-ID", last)).want(204, "")
	}
	e.do("GET", path, key, header("Last-Event-ID", "soon")).want(400, "invalid-value")

	// Its whole life again, to the end, for who comes late.
	e.stream(path, key, "").want(neuroscreen.Received, neuroscreen.Checked, neuroscreen.Segmented, neuroscreen.Measured, neuroscreen.Scored)

	// Of another run these are the past, and say so.
	e.do("POST", "/v1/scans/"+scan.ID.String()+"/retry", key).want(202, "")
	late := e.stream(path, key, "")
	for n := range 6 {
		if _, ev, ok := late.next(); !ok || ev.Run != n/5+1 {
			t.Errorf("event %d: %+v", n, ev)
		}
	}
}

// TestEventsWithoutPolling: what this process changes wakes its streams.
func TestEventsWithoutPolling(t *testing.T) {
	e := setup(t, streamLong, func(c *Config) { c.Poll = time.Hour })
	scan := e.upload(&e.a, "S", 1)
	path := "/v1/scans/" + scan.ID.String() + "/events"
	one, other := e.stream(path, e.a.keys[uploader], ""), e.stream(path, e.a.keys[uploader], "")
	w := e.take(scan.ID)
	for _, s := range []*stream{one, other} {
		s.want(neuroscreen.Received)
	}
	w.stage(neuroscreen.Checked)
	one.want(neuroscreen.Checked)
	one.res.Body.Close()
	w.stage(neuroscreen.Segmented)
	w.finish(scoredOutcome(neuroscreen.FlagNone))
	other.want(neuroscreen.Checked, neuroscreen.Segmented, neuroscreen.Scored)
}

func TestEventsCarryTheReasons(t *testing.T) {
	e := setup(t, streamLong)
	scan := e.upload(&e.a, "S", 1)
	s := e.stream("/v1/scans/"+scan.ID.String()+"/events", e.a.keys[uploader], "")
	s.want(neuroscreen.Received)
	reasons := []neuroscreen.Reason{{Code: "not-a-brain", Text: "no brain in it"}}
	e.finish(scan.ID, store.Outcome{State: neuroscreen.Refused, Reasons: reasons})
	for {
		_, ev, ok := s.next()
		if !ok {
			t.Fatal("no refusal")
		}
		if ev.State == neuroscreen.Refused {
			if !slices.Equal(ev.Reasons, reasons) {
				t.Errorf("%+v", ev)
			}
			return
		}
	}
}

// TestEventsGoOnAfterARetry: an earlier end is not the end.
func TestEventsGoOnAfterARetry(t *testing.T) {
	e := setup(t, streamLong)
	scan := e.upload(&e.a, "S", 1)
	at := "/v1/scans/" + scan.ID.String()
	e.do("POST", at+"/cancel", e.a.keys[uploader]).want(200, "")
	e.do("POST", at+"/retry", e.a.keys[uploader]).want(202, "")
	s := e.stream(at+"/events", e.a.keys[uploader], "")
	s.want(neuroscreen.Received, neuroscreen.Cancelled, neuroscreen.Received)
	e.do("POST", at+"/cancel", e.a.keys[uploader]).want(200, "")
	s.want(neuroscreen.Cancelled)
	if _, _, ok := s.next(); ok {
		t.Error("the stream goes on")
	}
}

func TestEventStreamsBreathe(t *testing.T) {
	e := setup(t, streamLong, func(c *Config) { c.Heartbeat = time.Millisecond })
	scan := e.upload(&e.a, "S", 1)
	s := e.stream("/v1/scans/"+scan.ID.String()+"/events", e.a.keys[uploader], "")
	s.want(neuroscreen.Received)
	for s.lines.Scan() {
		if strings.HasPrefix(s.lines.Text(), ":") {
			return
		}
	}
	t.Error("no heartbeat")
}

// TestCloseEndsStreams, so that a stopping service does not wait for them.
func TestCloseEndsStreams(t *testing.T) {
	e := setup(t, streamLong)
	scan := e.upload(&e.a, "S", 1)
	s := e.stream("/v1/scans/"+scan.ID.String()+"/events", e.a.keys[uploader], "")
	s.want(neuroscreen.Received)
	e.srv.Close()
	if _, _, ok := s.next(); ok {
		t.Error("an event after the end")
	}
}

// TestEventsOfARevokedKey end: who opens the next stream must still be let in.
func TestEventsOfARevokedKey(t *testing.T) {
	e := setup(t)
	scan := e.upload(&e.a, "S", 1)
	path := "/v1/scans/" + scan.ID.String() + "/events"
	secret, key, err := e.store.CreateKey(t.Context(), e.a.id, store.System, clinician, "")
	if err != nil {
		t.Fatal(err)
	}
	s := e.stream(path, secret, "")
	s.want(neuroscreen.Received)
	if _, err := e.store.RevokeKey(t.Context(), e.a.id, store.System, key.ID); err != nil {
		t.Fatal(err)
	}
	if _, ev, ok := s.next(); ok {
		t.Errorf("%+v", ev)
	}
	e.do("GET", path, secret).want(401, "invalid-key")
}

func TestStreamsAreBounded(t *testing.T) {
	e := setup(t, streamLong, func(c *Config) { c.Poll = time.Hour })
	path := "/v1/scans/" + e.upload(&e.a, "S", 1).ID.String() + "/events"
	var last *stream
	for range maxStreams {
		last = e.stream(path, e.a.keys[clinician], "")
	}
	for _, path := range []string{path, "/v1/cases/events"} {
		e.do("GET", path, e.a.keys[clinician]).want(429, "too-many-streams")
	}
	e.stream(path, e.a.keys[uploader], "") // another key has its own
	last.res.Body.Close()
	for end := time.Now().Add(time.Minute); ; {
		res, err := e.client.Do(e.request("GET", path, e.a.keys[clinician]))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode == 200 {
			return
		}
		if time.Now().After(end) {
			t.Fatal(res.Status)
		}
	}
}
