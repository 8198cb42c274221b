package main

import (
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"neuroscreen"
	"neuroscreen/internal/store"
)

func TestDigest(t *testing.T) {
	const plan = `[{"Plan": {"Node Type": "Sort", "Actual Rows": 51, "Shared Hit Blocks": 40, "Shared Read Blocks": 2, "Plans": [
		{"Node Type": "Index Scan", "Relation Name": "scans", "Index Name": "scans_pkey", "Actual Rows": 1},
		{"Node Type": "Limit", "Plans": [{"Node Type": "Sort", "Plans": [
			{"Node Type": "Index Scan", "Relation Name": "cases", "Index Name": "cases_time", "Actual Rows": 51, "Rows Removed by Filter": 7}]}]}]}}]`
	walk, blocks, err := digest(plan)
	if want := "index scan cases_time: 51 lines, 7 passed over, sorted"; err != nil || walk != want || blocks != 42 {
		t.Errorf("%q, %d blocks, %v; want %q, 42", walk, blocks, err, want)
	}
}

func TestReplace(t *testing.T) {
	page := filepath.Join(t.TempDir(), "page.md")
	const one, other = "<!-- make load writes from here: a -->\nold\n<!-- to here: a -->\n", "<!-- make load writes from here: b -->\nkept\n<!-- to here: b -->\n"
	if err := os.WriteFile(page, []byte("# Page\n"+one+other), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := replace(page, "a", "new\n"); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(page); err != nil || string(b) != "# Page\n"+strings.Replace(one, "old", "new", 1)+other {
		t.Errorf("%s %v", b, err)
	}
	if err := replace(page, "c", "new\n"); err == nil {
		t.Error("a part without a place is no error")
	}
}

// TestPageHasAPlaceForEachLoad, so that a long run does not end in nothing.
func TestPageHasAPlaceForEachLoad(t *testing.T) {
	b, err := os.ReadFile("../docs/load.md")
	if err != nil {
		t.Fatal(err)
	}
	page := filepath.Join(t.TempDir(), "load.md")
	if err := os.WriteFile(page, b, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, l := range loads {
		if err := replace(page, l.name, "table\n"); err != nil {
			t.Error(err)
		}
	}
}

func TestQuery(t *testing.T) {
	from := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	l := listing{"", store.CaseFilter{Flag: ptr(neuroscreen.FlagFlagged), Review: store.OpenCases, ReceivedFrom: &from, ReceivedBefore: ptr(from.AddDate(0, 0, 1))}}
	got, err := url.ParseQuery(l.query())
	if err != nil || got.Encode() != "flag=flagged&received_from=2026-03-01&received_to=2026-03-01&review=open" {
		t.Errorf("%v %v", got.Encode(), err)
	}
}
