package store_test

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"neuroscreen"
	"neuroscreen/internal/store"
)

// worklist makes ten cases, a second apart, named for what they are.
func worklist(t *testing.T, b *bundle) (names map[string]string) {
	t.Helper()
	names = map[string]string{}
	abstained := neuroscreen.Score{Condition: neuroscreen.Alzheimers, Flag: neuroscreen.FlagNone, Abstained: ptr("age")}
	for _, c := range []struct {
		name, scanner string
		outcome       func(store.ScanRecord) store.Outcome
	}{
		{"none", "a", func(s store.ScanRecord) store.Outcome {
			return scored(s, score(neuroscreen.Alzheimers, .4, neuroscreen.FlagNone), score(neuroscreen.Parkinsons, 1.1, neuroscreen.FlagNone))
		}},
		{"review-pd", "a", func(s store.ScanRecord) store.Outcome {
			return scored(s, abstained, score(neuroscreen.Parkinsons, 1.8, neuroscreen.FlagReview))
		}},
		{"refused", "b", func(store.ScanRecord) store.Outcome { return refused("not-a-brain") }},
		{"flagged-ad", "b", func(s store.ScanRecord) store.Outcome {
			return scored(s, score(neuroscreen.Alzheimers, 9, neuroscreen.FlagFlagged), score(neuroscreen.Parkinsons, 30, neuroscreen.FlagReview))
		}},
		{"abstained", "a", func(s store.ScanRecord) store.Outcome { return scored(s, abstained) }},
		{"cancelled", "a", nil},
		{"running", "b", nil},
		{"flagged-mts", "a", func(s store.ScanRecord) store.Outcome {
			return scored(s, score(neuroscreen.MesialTemporalSclerosis, 6, neuroscreen.FlagFlagged), score(neuroscreen.Alzheimers, 3, neuroscreen.FlagReview))
		}},
		{"failed", "a", func(store.ScanRecord) store.Outcome {
			return store.Outcome{State: neuroscreen.Failed, Reasons: refused("worker-lost").Reasons}
		}},
		{"none-2", "b", func(s store.ScanRecord) store.Outcome {
			return scored(s, score(neuroscreen.Alzheimers, .2, neuroscreen.FlagNone))
		}},
	} {
		n := post("MRN-"+c.name, c.name)
		n.Metadata.Scanner = c.scanner
		scan := b.create(t, n)
		names[scan.ID.String()] = c.name
		switch {
		case c.outcome != nil:
			b.run(t, scan, c.outcome(scan))
		case c.name == "cancelled":
			if _, err := b.Cancel(t.Context(), b.site, actor, scan.ID); err != nil {
				t.Fatal(err)
			}
		}
		b.clock.Advance(time.Second)
	}
	return names
}

func TestCases(t *testing.T) {
	t.Parallel()
	b := setup(t)
	start := b.clock.Now()
	names := worklist(t, b)
	for name, c := range map[string]struct {
		filter store.CaseFilter
		want   string
	}{
		"worst and oldest first": {store.CaseFilter{}, "flagged-ad flagged-mts review-pd refused failed running none none-2 abstained cancelled"},
		"newest first":           {store.CaseFilter{Sort: store.NewestFirst}, "none-2 failed flagged-mts running cancelled abstained flagged-ad refused review-pd none"},
		"oldest first":           {store.CaseFilter{Sort: store.OldestFirst}, "none review-pd refused flagged-ad abstained cancelled running flagged-mts failed none-2"},
		"flagged":                {store.CaseFilter{Flag: ptr(neuroscreen.FlagFlagged)}, "flagged-ad flagged-mts"},
		"review":                 {store.CaseFilter{Flag: ptr(neuroscreen.FlagReview)}, "review-pd"},
		"no flag":                {store.CaseFilter{Flag: ptr(neuroscreen.FlagNone)}, "none none-2 abstained"},
		"refused":                {store.CaseFilter{State: ptr(neuroscreen.Refused)}, "refused"},
		"in progress":            {store.CaseFilter{State: ptr(neuroscreen.Received)}, "running"},
		"scanner":                {store.CaseFilter{Scanner: ptr("b")}, "flagged-ad refused running none-2"},
		"alzheimers":             {store.CaseFilter{Condition: ptr(neuroscreen.Alzheimers)}, "flagged-ad flagged-mts none none-2 review-pd abstained"},
		"alzheimers for review":  {store.CaseFilter{Condition: ptr(neuroscreen.Alzheimers), Flag: ptr(neuroscreen.FlagReview)}, "flagged-mts"},
		"parkinsons":             {store.CaseFilter{Condition: ptr(neuroscreen.Parkinsons), Sort: store.NewestFirst}, "flagged-ad review-pd none"},
		"subject":                {store.CaseFilter{SubjectID: ptr("MRN-failed")}, "failed"},
		"received":               {store.CaseFilter{ReceivedFrom: ptr(start.Add(2 * time.Second)), ReceivedBefore: ptr(start.Add(4 * time.Second))}, "flagged-ad refused"},
		"scanner and flag":       {store.CaseFilter{Scanner: ptr("a"), Flag: ptr(neuroscreen.FlagFlagged)}, "flagged-mts"},
		"nothing matches":        {store.CaseFilter{Scanner: ptr("c")}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			// The same list in one page and in pages of every size.
			for _, size := range []int{0, 1, 2, 3, 10} {
				var got []string
				f := c.filter
				f.Limit = size
				for {
					page, err := b.Cases(t.Context(), b.site, f)
					if err != nil {
						t.Fatal(err)
					}
					if size > 0 && len(page.Cases) > size {
						t.Fatalf("%d cases on a page of %d", len(page.Cases), size)
					}
					for _, row := range page.Cases {
						got = append(got, names[row.ScanID.String()])
					}
					if page.NextCursor == "" {
						break
					}
					f.Cursor = page.NextCursor
				}
				if diff := cmp.Diff(c.want, strings.Join(got, " ")); diff != "" {
					t.Errorf("pages of %d: %s", size, diff)
				}
			}
		})
	}
}

func TestCaseRow(t *testing.T) {
	t.Parallel()
	b := setup(t)
	worklist(t, b)
	page, err := b.Cases(t.Context(), b.site, store.CaseFilter{})
	if err != nil {
		t.Fatal(err)
	}
	t.Run("carries the worst score", func(t *testing.T) {
		c := page.Cases[0]
		if *c.Flag != neuroscreen.FlagFlagged || *c.Condition != neuroscreen.Alzheimers || *c.LikelihoodRatio != 9 || c.ResultVersion != 1 || c.Metadata.Scanner != "b" {
			t.Errorf("%+v", c)
		}
	})
	t.Run("carries a refusal's reason", func(t *testing.T) {
		c := page.Cases[3]
		if c.State != neuroscreen.Refused || c.Flag != nil || c.Condition != nil || len(c.Reasons) != 1 || c.Reasons[0].Code != "not-a-brain" {
			t.Errorf("%+v", c)
		}
	})
	t.Run("says that every score abstained", func(t *testing.T) {
		c := page.Cases[8]
		if *c.Flag != neuroscreen.FlagNone || c.Condition != nil || c.LikelihoodRatio != nil {
			t.Errorf("%+v", c)
		}
	})
	t.Run("of a condition carries that condition's score", func(t *testing.T) {
		page, err := b.Cases(t.Context(), b.site, store.CaseFilter{Condition: ptr(neuroscreen.Parkinsons)})
		if err != nil || *page.Cases[0].LikelihoodRatio != 1.8 && *page.Cases[0].LikelihoodRatio != 30 {
			t.Errorf("%+v %v", page, err)
		}
		for _, c := range page.Cases {
			if *c.Condition != neuroscreen.Parkinsons {
				t.Errorf("%+v", c)
			}
		}
	})
	t.Run("running again, it leaves the flagged ones", func(t *testing.T) {
		if _, err := b.Retry(t.Context(), b.site, actor, page.Cases[0].ScanID); err != nil {
			t.Fatal(err)
		}
		for name, f := range map[string]store.CaseFilter{"flag": {Flag: ptr(neuroscreen.FlagFlagged)}, "condition": {Condition: ptr(neuroscreen.Alzheimers)}} {
			again, err := b.Cases(t.Context(), b.site, f)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range again.Cases {
				if c.ScanID == page.Cases[0].ScanID {
					t.Errorf("%s: still listed: %+v", name, c)
				}
			}
		}
	})
}

func TestCasesRefusesBadInput(t *testing.T) {
	t.Parallel()
	b := setup(t)
	worklist(t, b)
	page, err := b.Cases(t.Context(), b.site, store.CaseFilter{Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]store.CaseFilter{
		"cursor not base64":           {Cursor: "!"},
		"cursor not JSON":             {Cursor: base64.RawURLEncoding.EncodeToString([]byte("x"))},
		"cursor of no severity":       {Cursor: base64.RawURLEncoding.EncodeToString([]byte(`{"o":"worst","s":99999}`))},
		"cursor of another sort":      {Cursor: page.NextCursor, Sort: store.NewestFirst},
		"cursor of another condition": {Cursor: page.NextCursor, Condition: ptr(neuroscreen.Alzheimers)},
		"unknown sort":                {Sort: "severity; DROP TABLE cases"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := b.Cases(t.Context(), b.site, f)
			wantCode(t, err, neuroscreen.CodeInvalid, "invalid-value")
		})
	}
}

// TestExplainCases: every listing's plan comes in both formats.
func TestExplainCases(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.create(t, post("MRN-1", "bytes"))
	for _, f := range []store.CaseFilter{{}, {Review: store.OpenCases, Sort: store.OldestFirst}, {SubjectID: ptr("MRN-1")}} {
		text, err := b.ExplainCases(t.Context(), b.site, f, "TEXT")
		if err != nil || !strings.Contains(text, "cases") || !strings.Contains(text, "Execution Time") {
			t.Errorf("%s %v", text, err)
		}
		plan, err := b.ExplainCases(t.Context(), b.site, f, "JSON")
		if err != nil || !json.Valid([]byte(plan)) {
			t.Errorf("%s %v", plan, err)
		}
	}
	_, err := b.ExplainCases(t.Context(), b.site, store.CaseFilter{Sort: "shortest"}, "TEXT")
	wantCode(t, err, neuroscreen.CodeInvalid, "invalid-value")
}
