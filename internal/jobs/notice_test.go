package jobs

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"neuroscreen"
	"neuroscreen/internal/store"
	"neuroscreen/internal/webhook"
)

// receiver is an address of the site that is told everything.
type receiver struct {
	secret string
	hook   store.Webhook
	got    chan message
	answer chan int // 200 when nothing waits here
}

type message struct {
	id     string
	notice store.Notice
	body   string
}

func (b *bundle) receiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{secret: webhook.NewSecret(), got: make(chan message, 10), answer: make(chan int, 10)}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			t.Error(err)
		}
		m := message{id: req.Header.Get("Webhook-Id"), body: string(body)}
		at, err := strconv.ParseInt(req.Header.Get("Webhook-Timestamp"), 10, 64)
		if err != nil {
			t.Error(err)
		}
		if want, _ := webhook.Sign(r.secret, m.id, time.Unix(at, 0), body); req.Header.Get("Webhook-Signature") != want {
			t.Errorf("signature %q, want %q", req.Header.Get("Webhook-Signature"), want)
		}
		if err := json.Unmarshal(body, &m.notice); err != nil {
			t.Error(err)
		}
		select {
		case status := <-r.answer:
			w.WriteHeader(status)
		default:
		}
		r.got <- m
	}))
	t.Cleanup(server.Close)
	var err error
	if r.hook, err = b.CreateWebhook(t.Context(), b.site, "key-1", server.URL, r.secret, store.NoticeKinds); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *receiver) next(t *testing.T) message {
	t.Helper()
	select {
	case m := <-r.got:
		return m
	case <-time.After(60 * time.Second):
		t.Fatal("nothing was sent")
		return message{}
	}
}

// local lets notices go to this machine.
func local(c *Config) {
	c.Webhooks = webhook.Sender{Allowed: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
}

// TestNotices: a result, its withdrawals and a refusal are told, each once,
// and without anything of the patient.
func TestNotices(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.receiver(t)
	refuse := b.post(t, "refuse me")
	b.start(t, func(ctx context.Context, in Input) (Output, error) {
		if in.ScanID == refuse.ID {
			return Output{}, neuroscreen.Errorf(neuroscreen.CodeUnprocessable, "not-t1", "Not T1-weighted.")
		}
		return output(in), nil
	}, local)
	type said struct {
		kind    string
		scan    uuid.UUID
		version int
		reason  string
	}
	// check takes as many messages as are wanted, in any order: none is promised.
	check := func(want ...said) {
		t.Helper()
		got := map[said]int{}
		for range want {
			m := r.next(t)
			n := m.notice
			s := said{n.Type, n.Data.ScanID, n.Data.ResultVersion, ""}
			if len(n.Data.Reasons) > 0 {
				s.reason = n.Data.Reasons[0].Code
			}
			got[s]++
			if n.At.IsZero() {
				t.Errorf("no time: %s", m.body)
			}
			if strings.Contains(m.body, "MRN-1") || strings.Contains(m.body, refuse.Pseudonym) {
				t.Errorf("names the patient: %s", m.body)
			}
		}
		for _, s := range want {
			if got[s] != 1 {
				t.Errorf("%v came %d times, of %v", s, got[s], got)
			}
		}
	}
	check(said{store.NoticeRefused, refuse.ID, 0, "not-t1"})
	scan := b.post(t, "bytes")
	check(said{store.NoticeScored, scan.ID, 1, ""})
	age := 70.0
	if _, err := b.PatchMetadata(t.Context(), b.site, "key-1", scan.ID, store.MetadataPatch{AgeYears: &age}); err != nil {
		t.Fatal(err)
	}
	check(said{store.NoticeWithdrawn, scan.ID, 1, "corrected"}, said{store.NoticeScored, scan.ID, 2, ""})
	_, key, err := b.CreateKey(t.Context(), b.site, "key-1", neuroscreen.Clinician, "reader")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Review(t.Context(), b.site, key.ID, scan.ID, store.NewReview{Run: 2, Decision: store.Accept}); err != nil {
		t.Fatal(err)
	}
	check(said{store.NoticeAccepted, scan.ID, 2, ""})
	if _, err := b.Review(t.Context(), b.site, key.ID, refuse.ID, store.NewReview{Run: 1, Decision: store.Accept}); err != nil {
		t.Fatal(err) // there is no result to tell of
	}
	if _, err := b.Review(t.Context(), b.site, key.ID, scan.ID, store.NewReview{Run: 2, Seen: 1, Decision: store.Reject, Comment: "motion"}); err != nil {
		t.Fatal(err)
	}
	check(said{store.NoticeWithdrawn, scan.ID, 2, "rejected"})
	if _, err := b.Erase(t.Context(), b.site, "key-1", scan.ID); err != nil {
		t.Fatal(err)
	}
	check(said{store.NoticeWithdrawn, scan.ID, 2, "erased"})
	if n := b.count(t, "SELECT count(*) FROM river_job WHERE kind = '"+noticeKind+"'"); n != 7 {
		t.Errorf("%d notices, want 7", n)
	}
}

// TestNoticeOfAnIncompleteScan goes out as it is posted: the patient may still
// be there.
func TestNoticeOfAnIncompleteScan(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.receiver(t)
	scan := b.postFrom(t, "bytes", neuroscreen.Metadata{SubjectID: "MRN-1", Sex: neuroscreen.Female, Modality: neuroscreen.T1w})
	b.start(t, good, local)
	if n := r.next(t).notice; n.Type != store.NoticeRefused || n.Data.ScanID != scan.ID || len(n.Data.Reasons) != 1 || n.Data.Reasons[0].Code != "missing-age" {
		t.Errorf("%+v", n)
	}
	if n := b.count(t, "SELECT count(*) FROM river_job WHERE kind = '"+scanKind+"'"); n != 0 {
		t.Errorf("%d jobs for a scan that cannot be analysed", n)
	}
}

// TestNoticeIsSentAgain under its id until it is taken.
func TestNoticeIsSentAgain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.receiver(t)
	r.answer <- 500
	b.post(t, "bytes")
	b.start(t, good, local)
	first, second := r.next(t), r.next(t)
	if first.id != second.id || first.body != second.body || !strings.HasPrefix(first.id, "msg_") {
		t.Errorf("%+v, then %+v", first, second)
	}
	for b.count(t, "SELECT count(*) FROM webhooks WHERE last_status = 200 AND last_error IS NULL") == 0 {
		time.Sleep(10 * time.Millisecond)
	}
}

// TestGoneReceiverIsDisabled and told nothing more.
func TestGoneReceiverIsDisabled(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.receiver(t)
	r.answer <- 410
	b.post(t, "bytes")
	b.start(t, good, local)
	r.next(t)
	for b.count(t, "SELECT count(*) FROM webhooks WHERE disabled_at IS NOT NULL AND last_status = 410") == 0 {
		time.Sleep(10 * time.Millisecond)
	}
	b.await(t, b.post(t, "more bytes"), neuroscreen.Scored)
	if n := b.count(t, "SELECT count(*) FROM river_job WHERE kind = '"+noticeKind+"'"); n != 1 {
		t.Errorf("%d notices", n)
	}
}

// TestPrivateReceiverIsNotCalled unless the deployment allows it.
func TestPrivateReceiverIsNotCalled(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.receiver(t)
	b.start(t, good)
	b.await(t, b.post(t, "bytes"), neuroscreen.Scored)
	for b.count(t, "SELECT count(*) FROM webhooks WHERE last_error LIKE '%no public address%' AND last_status IS NULL") == 0 {
		time.Sleep(10 * time.Millisecond)
	}
	select {
	case m := <-r.got:
		t.Errorf("it was called: %s", m.body)
	default:
	}
}
