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

// TestReviewIsTold: what stands is announced, with the comment of an amendment
// anew, and what was rejected is withdrawn.
func TestReviewIsTold(t *testing.T) {
	t.Parallel()
	b := setup(t)
	told := &notices{}
	b.Store = store.New(store.Config{Pool: b.pool, Keys: b.keys, Jobs: b.jobs, Blobs: b.blobs, Now: b.clock.Now, Notices: told})
	if _, err := b.CreateWebhook(t.Context(), b.site, actor, "https://pacs.example/hook", "whsec_c2VjcmV0", []string{store.NoticeAccepted, store.NoticeWithdrawn}); err != nil {
		t.Fatal(err)
	}
	_, key, err := b.CreateKey(t.Context(), b.site, actor, neuroscreen.Clinician, "reader")
	if err != nil {
		t.Fatal(err)
	}
	scan := b.create(t, post("S-1", "one"))
	b.run(t, scan, scored(scan, score(neuroscreen.Alzheimers, 8, neuroscreen.FlagFlagged)))

	for n, want := range []struct {
		decision store.Decision
		kind     string
	}{{store.Accept, store.NoticeAccepted}, {store.Amend, store.NoticeAccepted}, {store.Reject, store.NoticeWithdrawn}} {
		review := store.NewReview{Decision: want.decision, Comment: "Mrs Miller moved", Run: 1, Seen: n}
		if _, err := b.Review(t.Context(), b.site, key.ID, scan.ID, review); err != nil {
			t.Fatal(err)
		}
		if len(*told) != n+1 || (*told)[n].Type != want.kind || (*told)[n].Data.ResultVersion != 1 {
			t.Fatalf("after %s told %+v", want.decision, *told)
		}
	}
	got := (*told)[2].Data
	if got.ScanID != scan.ID || got.ResultVersion != 1 || len(got.Reasons) != 1 || got.Reasons[0].Code != "rejected" || got.Reasons[0].Text != "A reviewer rejected the result." {
		t.Errorf("told %+v", got)
	}
	// Analysed again and stopped, it waits for a reader still, and whoever was told of the result is told.
	if _, err := b.Retry(t.Context(), b.site, actor, scan.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Cancel(t.Context(), b.site, actor, scan.ID); err != nil {
		t.Fatal(err)
	}
	if n := len(*told); n != 4 || (*told)[3].Data.ResultVersion != 1 || (*told)[3].Data.Reasons[0].Code != "retried" {
		t.Errorf("told %+v", *told)
	}
	if open, err := b.Cases(t.Context(), b.site, store.CaseFilter{Review: store.OpenCases}); err != nil || len(open.Cases) != 1 || open.Cases[0].State != neuroscreen.Cancelled {
		t.Errorf("%+v, %v", open, err)
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

// without is a result without structures, as one of the scan's is scored anew.
func without(scan store.ScanRecord, from int, structures []string, scores ...neuroscreen.Score) *store.Outcome {
	o := scored(scan, scores...)
	a := &neuroscreen.Amendment{FromVersion: from}
	for _, s := range structures {
		a.LeftOut = append(a.LeftOut, neuroscreen.LeftOut{Structure: s})
	}
	o.Result.Amendment = a
	return &o
}

// TestAmendedResult: to leave a structure out makes the next version, in one
// transaction with the decision; the one before stays as it was.
func TestAmendedResult(t *testing.T) {
	t.Parallel()
	b := setup(t)
	told := &notices{}
	b.Store = store.New(store.Config{Pool: b.pool, Keys: b.keys, Jobs: b.jobs, Blobs: b.blobs, Now: b.clock.Now, Notices: told})
	if _, err := b.CreateWebhook(t.Context(), b.site, actor, "https://pacs.example/hook", "whsec_c2VjcmV0", []string{store.NoticeAccepted, store.NoticeWithdrawn, store.NoticeScored}); err != nil {
		t.Fatal(err)
	}
	var keys [2]store.KeyRecord
	for n, name := range []string{"reader", "another"} {
		var err error
		if _, keys[n], err = b.CreateKey(t.Context(), b.site, actor, neuroscreen.Clinician, name); err != nil {
			t.Fatal(err)
		}
	}
	scan := b.create(t, post("S-1", "one"))
	flagged := score(neuroscreen.Alzheimers, 8, neuroscreen.FlagFlagged)
	withheld := neuroscreen.Score{Condition: neuroscreen.Alzheimers, Flag: neuroscreen.FlagNone, Abstained: ptr("a reviewer left it out"), AbstainedType: neuroscreen.StructureExcluded}
	beside := score(neuroscreen.Alzheimers, 3, neuroscreen.FlagNone)
	b.run(t, scan, scored(scan, flagged, beside))
	old, err := b.CurrentResult(t.Context(), b.site, scan.ID)
	if err != nil {
		t.Fatal(err)
	}
	*told = nil
	amend := func(key, run, seen int, o *store.Outcome, excluded ...string) (store.ReviewRecord, error) {
		return b.Review(t.Context(), b.site, keys[key].ID, scan.ID,
			store.NewReview{Decision: store.Amend, Comment: "runs into the horn", Excluded: excluded, Run: run, Seen: seen, Amended: o})
	}
	current := func() (store.ResultVersion, neuroscreen.Result) {
		t.Helper()
		v, err := b.CurrentResult(t.Context(), b.site, scan.ID)
		if err != nil {
			t.Fatal(err)
		}
		r, err := v.Result()
		if err != nil {
			t.Fatal(err)
		}
		return v, r
	}
	const left, right = "Left-Hippocampus", "Right-Hippocampus"

	t.Run("what fails changes nothing", func(t *testing.T) {
		b.clock.Advance(time.Minute)
		_, err := amend(0, 1, 0, without(scan, 7, []string{left}, withheld), left)
		wantCode(t, err, neuroscreen.CodeConflict, "result-changed")
		lost := without(scan, 1, []string{left}, withheld)
		lost.Files[0].BlobKey = hash("lost")
		b.blobs.missing[hash("lost")] = true
		_, err = amend(0, 1, 0, lost, left)
		wantCode(t, err, neuroscreen.CodeUnavailable, "blob-missing")
		others := without(scan, 1, []string{left}, withheld)
		others.Result.SubjectID = "another's"
		if _, err = amend(0, 1, 0, others, left); err == nil {
			t.Error("another subject's result was stored")
		}
		if v, _ := current(); v.Version != 1 || v.SHA256 != old.SHA256 || len(*told) != 0 {
			t.Errorf("version %d, told %+v", v.Version, *told)
		}
		if found, err := b.Reviews(t.Context(), b.site, scan.ID); err != nil || len(found) != 0 {
			t.Errorf("%d decisions, %v", len(found), err)
		}
	})

	first, err := amend(0, 1, 0, without(scan, 1, []string{left}, withheld, beside), left)
	if err != nil || first.Seq != 1 || first.ResultVersion != 1 || first.MadeVersion != 2 {
		t.Fatalf("%+v, %v", first, err)
	}
	t.Run("the next version", func(t *testing.T) {
		v, r := current()
		if v.Version != 2 || v.Run != 2 || r.Amendment.FromVersion != 1 || len(r.Amendment.LeftOut) != 1 {
			t.Fatalf("version %d, run %d, %+v", v.Version, v.Run, r.Amendment)
		}
		if l := r.Amendment.LeftOut[0]; l.Structure != left || l.Decision != 1 || l.By != keys[0].ID.String() || !l.At.Equal(first.At) {
			t.Errorf("%+v", l)
		}
		if same, err := b.ResultVersion(t.Context(), b.site, scan.ID, 1); err != nil || same.SHA256 != old.SHA256 || string(same.Document) != string(old.Document) {
			t.Errorf("version 1 is another: %v", err)
		}
		if _, err := b.DerivedFile(t.Context(), b.site, scan.ID, 2, store.KindPreview); err != nil {
			t.Error(err)
		}
	})
	t.Run("the worklist follows, and it is open", func(t *testing.T) {
		c, err := b.Case(t.Context(), b.site, scan.ID)
		if err != nil || c.ResultVersion != 2 || c.Decision != nil || *c.Flag != neuroscreen.FlagNone || c.LikelihoodRatio != nil || c.Why != "No score: a reviewer left it out" {
			t.Errorf("%+v, %v", c, err)
		}
		rec, err := b.Scan(t.Context(), b.site, scan.ID)
		if err != nil || rec.State != neuroscreen.Scored || rec.Run != 2 || rec.Finished == nil {
			t.Errorf("%+v, %v", rec, err)
		}
		if stages, err := b.StageTimes(t.Context(), b.site, scan.ID); err != nil || len(stages) != 1 || stages[0].State != neuroscreen.Scored {
			t.Errorf("stages %+v, %v", stages, err)
		}
	})
	t.Run("webhooks are told of both", func(t *testing.T) {
		if len(*told) != 2 {
			t.Fatalf("told %+v", *told)
		}
		gone, new := (*told)[0], (*told)[1]
		if gone.Type != store.NoticeWithdrawn || gone.Data.ResultVersion != 1 || gone.Data.Reasons[0].Code != "amended" || new.Type != store.NoticeScored || new.Data.ResultVersion != 2 || new.Data.Run != 2 {
			t.Errorf("told %+v", *told)
		}
	})
	t.Run("the trail", func(t *testing.T) {
		object := "scan:" + scan.ID.String()
		found, err := b.Audit(t.Context(), b.site, store.AuditFilter{Object: &object, Limit: 2})
		if err != nil || len(found) != 2 || found[1].Action != "case.amend" || string(found[1].Actor) != keys[0].ID.String() ||
			found[1].Details != "run 1 version 1, version 2 leaves out: Left-Hippocampus" || found[0].Action != "result.store" {
			t.Errorf("%+v, %v", found, err)
		}
	})
	t.Run("sent again it is the same", func(t *testing.T) {
		again, err := amend(0, 1, 0, nil, left)
		if err != nil || again.Seq != first.Seq || again.MadeVersion != 2 || again.Comment != first.Comment || !again.At.Equal(first.At) {
			t.Errorf("%+v, %v", again, err)
		}
		_, err = amend(1, 1, 0, without(scan, 1, []string{left}, withheld), left) // another key's
		wantCode(t, err, neuroscreen.CodeConflict, "result-changed")
		_, err = amend(0, 1, 0, without(scan, 1, []string{right}, withheld), right) // another decision
		wantCode(t, err, neuroscreen.CodeConflict, "result-changed")
		if v, _ := current(); v.Version != 2 {
			t.Errorf("version %d", v.Version)
		}
	})
	t.Run("more is left out, and some taken back in", func(t *testing.T) {
		b.clock.Advance(time.Hour)
		if _, err := amend(1, 2, 0, without(scan, 2, []string{left, right}, withheld), left, right); err != nil {
			t.Fatal(err)
		}
		_, r := current()
		if l := r.Amendment.LeftOut; len(l) != 2 || l[0].Decision != 1 || l[1].Decision != 2 || l[1].By != keys[1].ID.String() {
			t.Errorf("%+v", l)
		}
		if _, err := amend(0, 3, 0, without(scan, 3, []string{right}, flagged), right); err != nil {
			t.Fatal(err)
		}
		v, r := current()
		if l := r.Amendment.LeftOut; v.Version != 4 || len(l) != 1 || l[0].Structure != right || l[0].Decision != 2 {
			t.Errorf("%+v", l)
		}
		if c, err := b.Case(t.Context(), b.site, scan.ID); err != nil || *c.Flag != neuroscreen.FlagFlagged || *c.LikelihoodRatio != 8 {
			t.Errorf("%+v, %v", c, err)
		}
	})
	t.Run("it stays left out when the scan is analysed again", func(t *testing.T) {
		if _, err := b.PatchMetadata(t.Context(), b.site, actor, scan.ID, store.MetadataPatch{AgeYears: ptr(72.0)}); err != nil {
			t.Fatal(err)
		}
		_, err := amend(0, 4, 0, without(scan, 4, nil, flagged))
		wantCode(t, err, neuroscreen.CodeConflict, "scan-running")
		l := b.lease(t, scan)
		if len(l.LeftOut) != 1 || l.LeftOut[0].Structure != right || l.LeftOut[0].Decision != 2 {
			t.Errorf("%+v", l.LeftOut)
		}
	})
}

// TestWorstIsOfTheDeciding: a score beside one that abstains does not answer
// for it in the worklist.
func TestWorstIsOfTheDeciding(t *testing.T) {
	t.Parallel()
	b := setup(t)
	scan := b.create(t, post("S-1", "one"))
	none := neuroscreen.Score{Condition: neuroscreen.Alzheimers, Flag: neuroscreen.FlagNone, Abstained: ptr("too young")}
	b.run(t, scan, scored(scan, none, score(neuroscreen.Alzheimers, 9, neuroscreen.FlagNone), score(neuroscreen.Parkinsons, 1.1, neuroscreen.FlagNone)))
	c, err := b.Case(t.Context(), b.site, scan.ID)
	if err != nil || *c.Condition != neuroscreen.Parkinsons || *c.LikelihoodRatio != 1.1 {
		t.Errorf("%v %v, %v", c.Condition, c.LikelihoodRatio, err)
	}
}

// TestDoubtfulIsReviewed: nobody can say that there is nothing where the image
// is too doubtful to say.
func TestDoubtfulIsReviewed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	doubtful := neuroscreen.Score{Condition: neuroscreen.Alzheimers, Flag: neuroscreen.FlagNone, Abstained: ptr("the image quality is in doubt"), AbstainedType: neuroscreen.DoubtfulQuality}
	quiet, review := score(neuroscreen.Parkinsons, .4, neuroscreen.FlagNone), score(neuroscreen.Parkinsons, 2.5, neuroscreen.FlagReview)
	for n, c := range []struct {
		scores    []neuroscreen.Score
		condition neuroscreen.Condition
	}{
		{[]neuroscreen.Score{doubtful, quiet}, neuroscreen.Alzheimers},
		{[]neuroscreen.Score{doubtful, review}, neuroscreen.Parkinsons},
		{[]neuroscreen.Score{review, doubtful}, neuroscreen.Parkinsons},
	} {
		scan := b.create(t, post("S", string(rune('a'+n))))
		b.run(t, scan, scored(scan, c.scores...))
		got, err := b.Case(t.Context(), b.site, scan.ID)
		if err != nil || *got.Condition != c.condition {
			t.Errorf("%d: %v, %v", n, got.Condition, err)
		}
	}
	counts, err := b.CaseCounts(t.Context(), b.site)
	if err != nil || counts.Review != 3 {
		t.Errorf("%+v, %v", counts, err)
	}
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
