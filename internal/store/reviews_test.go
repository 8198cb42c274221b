package store_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"neuroscreen"
	"neuroscreen/internal/store"
)

// notices notes what webhooks would be told.
type notices []store.Notice

func (n *notices) Notify(_ context.Context, _ pgx.Tx, _, _, _ uuid.UUID, notice store.Notice) error {
	*n = append(*n, notice)
	return nil
}

func TestRejectWithdraws(t *testing.T) {
	t.Parallel()
	b := setup(t)
	told := &notices{}
	b.Store = store.New(store.Config{Pool: b.pool, Keys: b.keys, Jobs: b.jobs, Blobs: b.blobs, Now: b.clock.Now, Notices: told})
	if _, err := b.CreateWebhook(t.Context(), b.site, actor, "https://pacs.example/hook", "whsec_c2VjcmV0", []string{store.NoticeWithdrawn}); err != nil {
		t.Fatal(err)
	}
	_, key, err := b.CreateKey(t.Context(), b.site, actor, neuroscreen.Clinician, "reader")
	if err != nil {
		t.Fatal(err)
	}
	scan := b.create(t, post("S-1", "one"))
	b.run(t, scan, scored(scan, score(neuroscreen.Alzheimers, 8, neuroscreen.FlagFlagged)))

	for n, decision := range []store.Decision{store.Accept, store.Amend, store.Reject} {
		review := store.NewReview{Decision: decision, Comment: "Mrs Miller moved", Run: 1, Seen: n}
		if _, err := b.Review(t.Context(), b.site, key.ID, scan.ID, review); err != nil {
			t.Fatal(err)
		}
		if want := map[store.Decision]int{store.Reject: 1}[decision]; len(*told) != want {
			t.Errorf("after %s %d notices, want %d", decision, len(*told), want)
		}
	}
	got := (*told)[0].Data
	if got.ScanID != scan.ID || got.ResultVersion != 1 || len(got.Reasons) != 1 || got.Reasons[0].Code != "rejected" || got.Reasons[0].Text != "A reviewer rejected the result." {
		t.Errorf("told %+v", got)
	}
	if plain := b.scalar(t, "SELECT string_agg(encode(sealed, 'escape'), '') FROM reviews"); plain == "" || strings.Contains(plain, "Miller") {
		t.Error("a comment lies in the clear")
	}
}

func TestHoldsRunOut(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var keys [2]store.KeyRecord
	for n := range keys {
		var err error
		if _, keys[n], err = b.CreateKey(t.Context(), b.site, actor, neuroscreen.Clinician, "reader"); err != nil {
			t.Fatal(err)
		}
	}
	scan := b.create(t, post("S-1", "one"))
	hold := func(n int, site uuid.UUID) error {
		_, err := b.HoldCase(t.Context(), site, keys[n].ID, scan.ID, time.Minute, false)
		return err
	}
	if err := hold(0, b.site); err != nil {
		t.Fatal(err)
	}
	wantCode(t, hold(1, b.site), neuroscreen.CodeConflict, "case-held")
	wantCode(t, hold(1, b.other), neuroscreen.CodeNotFound, "scan-not-found")
	b.clock.Advance(2 * time.Minute)
	if c, err := b.Case(t.Context(), b.site, scan.ID); err != nil || c.HeldBy != nil {
		t.Errorf("still held: %v, %v", c.HeldBy, err)
	}
	if err := hold(1, b.site); err != nil {
		t.Error(err)
	}
	wantCode(t, hold(0, b.site), neuroscreen.CodeConflict, "case-held")
}

// TestCounts: decided and cancelled cases wait for nobody.
func TestCounts(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, key, err := b.CreateKey(t.Context(), b.site, actor, neuroscreen.Clinician, "reader")
	if err != nil {
		t.Fatal(err)
	}
	flagged := score(neuroscreen.Alzheimers, 8, neuroscreen.FlagFlagged)
	for n, o := range []func(store.ScanRecord) store.Outcome{
		func(s store.ScanRecord) store.Outcome { return scored(s, flagged) },
		func(s store.ScanRecord) store.Outcome { return scored(s, flagged) },
		func(s store.ScanRecord) store.Outcome { return refused("not-a-brain") },
		func(s store.ScanRecord) store.Outcome { return scored(s) },
	} {
		scan := b.create(t, post("S", string(rune('a'+n))))
		b.run(t, scan, o(scan))
		if n == 0 {
			if _, err := b.Review(t.Context(), b.site, key.ID, scan.ID, store.NewReview{Decision: store.Accept, Run: 1}); err != nil {
				t.Fatal(err)
			}
		}
	}
	b.create(t, post("S", "x")) // goes on
	cancelled := b.create(t, post("S", "y"))
	if _, err := b.Cancel(t.Context(), b.site, actor, cancelled.ID); err != nil {
		t.Fatal(err)
	}
	got, err := b.CaseCounts(t.Context(), b.site)
	if err != nil {
		t.Fatal(err)
	}
	if got.Changed == nil || got.Flagged != 1 || got.Ended != 1 || got.Running != 1 || got.Abstained != 1 || got.Review != 0 || got.NothingFound != 0 {
		t.Errorf("%+v", got)
	}
	open, err := b.Cases(t.Context(), b.site, store.CaseFilter{Review: store.OpenCases})
	if err != nil || len(open.Cases) != 4 {
		t.Errorf("%d open, %v", len(open.Cases), err)
	}
	for group, want := range map[string]int{"flagged": 2, "review": 0, "ended": 1, "running": 1, "clear": 1, "cancelled": 1} {
		page, err := b.Cases(t.Context(), b.site, store.CaseFilter{Group: group})
		if err != nil || len(page.Cases) != want {
			t.Errorf("%s: %d cases, want %d, %v", group, len(page.Cases), want, err)
		}
	}
	if other, err := b.CaseCounts(t.Context(), b.other); err != nil || other != (store.CaseCounts{}) {
		t.Errorf("another site counts %+v, %v", other, err)
	}
}
