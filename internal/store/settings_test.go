package store_test

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"neuroscreen"
	"neuroscreen/internal/store"
)

func TestSettingsAreVersions(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := t.Context()
	if v, err := b.CurrentSettings(ctx, b.site); err != nil || v.Version != 0 || string(v.Settings) != "{}" {
		t.Fatalf("before any: %+v, %v", v, err)
	}
	for i, doc := range []string{`{"prior": 0.1}`, `{"prior": 0.2}`} {
		if v, err := b.AddSettings(ctx, b.site, actor, i, []byte(doc), "because"); err != nil || v.Version != i+1 || string(v.Settings) != doc || v.By != actor {
			t.Fatalf("%+v, %v", v, err)
		}
	}
	if v, err := b.SettingsVersion(ctx, b.site, 1); err != nil || string(v.Settings) != `{"prior": 0.1}` || v.Note != "because" {
		t.Errorf("version 1: %+v, %v", v, err)
	}
	list, err := b.SettingsVersions(ctx, b.site, 0, 0)
	if err != nil || len(list) != 2 || list[0].Version != 2 {
		t.Errorf("%+v, %v", list, err)
	}
	if list, err = b.SettingsVersions(ctx, b.site, 2, 1); err != nil || len(list) != 1 || list[0].Version != 1 {
		t.Errorf("%+v, %v", list, err)
	}

	t.Run("the lease carries the newest", func(t *testing.T) {
		if l := b.lease(t, b.create(t, post("MRN-1", "bytes"))); l.Settings.Version != 2 || string(l.Settings.Settings) != `{"prior": 0.2}` {
			t.Errorf("%+v", l.Settings)
		}
	})
	t.Run("another site has its own", func(t *testing.T) {
		if v, err := b.CurrentSettings(ctx, b.other); err != nil || v.Version != 0 {
			t.Errorf("%+v, %v", v, err)
		}
		_, err := b.SettingsVersion(ctx, b.other, 1)
		wantCode(t, err, neuroscreen.CodeNotFound, "settings-not-found")
	})
	t.Run("an older version cannot be replaced", func(t *testing.T) {
		_, err := b.AddSettings(ctx, b.site, actor, 1, []byte("{}"), "late")
		wantCode(t, err, neuroscreen.CodeConflict, "settings-changed")
	})
	t.Run("refused", func(t *testing.T) {
		for _, doc := range []string{`[]`, `null`, `x`} {
			_, err := b.AddSettings(ctx, b.site, actor, 2, []byte(doc), "why")
			wantCode(t, err, neuroscreen.CodeInvalid, "invalid-value")
		}
		for _, note := range []string{"", strings.Repeat("x", 501)} {
			_, err := b.AddSettings(ctx, b.site, actor, 2, []byte("{}"), note)
			wantCode(t, err, neuroscreen.CodeInvalid, "invalid-value")
		}
	})
	t.Run("written once", func(t *testing.T) {
		for _, sql := range []string{"UPDATE site_settings SET settings = '{}'", "DELETE FROM site_settings"} {
			if _, err := b.pool.Exec(ctx, sql); err == nil {
				t.Errorf("%s is possible", sql)
			}
		}
	})
	t.Run("in the trail", func(t *testing.T) {
		entries, err := b.Audit(ctx, b.site, store.AuditFilter{Actor: ptr(actor)})
		if err != nil {
			t.Fatal(err)
		}
		var seen []string
		for _, e := range entries {
			if e.Action == "site.settings" {
				seen = append(seen, e.Details)
			}
		}
		if strings.Join(seen, ", ") != "version 2, version 1" {
			t.Errorf("%q", seen)
		}
	})
}

// Of many who replace the same version, one does.
func TestSettingsChangedAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var stored atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := b.AddSettings(t.Context(), b.site, actor, 0, []byte("{}"), "race"); err == nil {
				stored.Add(1)
			} else {
				wantCode(t, err, neuroscreen.CodeConflict, "settings-changed")
			}
		})
	}
	wg.Wait()
	if stored.Load() != 1 {
		t.Errorf("%d of 8 were stored", stored.Load())
	}
}

func TestVisits(t *testing.T) {
	t.Parallel()
	b := setup(t)
	first, second := b.create(t, post("MRN-1", "one")), b.create(t, post("MRN-1", "two"))
	b.create(t, post("MRN-1", "three")) // waits, and is no visit yet
	other := b.create(t, post("MRN-2", "four"))
	for _, s := range []store.ScanRecord{first, second, other} {
		b.run(t, s, scored(s, score(neuroscreen.Alzheimers, 1, neuroscreen.FlagNone)))
	}
	// A corrected age makes another version of the first.
	if _, err := b.PatchMetadata(t.Context(), b.site, actor, first.ID, store.MetadataPatch{AgeYears: ptr(72.0)}); err != nil {
		t.Fatal(err)
	}
	b.run(t, first, scored(first, score(neuroscreen.Alzheimers, 2, neuroscreen.FlagReview)))

	visits, err := b.Visits(t.Context(), b.site, b.Pseudonym(b.site, "MRN-1"))
	if err != nil {
		t.Fatal(err)
	}
	if len(visits) != 2 || visits[0].ScanID != first.ID || visits[0].Version != 2 || *visits[0].Metadata.AgeYears != 72 || visits[1].ScanID != second.ID || visits[0].Received.IsZero() {
		t.Errorf("%+v", visits)
	}
	_, key, err := b.CreateKey(t.Context(), b.site, actor, neuroscreen.Clinician, "reader")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Review(t.Context(), b.site, key.ID, first.ID, store.NewReview{Decision: store.Reject, Comment: "moved", Run: 2}); err != nil {
		t.Fatal(err)
	}
	if visits, err = b.Visits(t.Context(), b.site, b.Pseudonym(b.site, "MRN-1")); err != nil || len(visits) != 2 || !visits[0].Rejected || visits[1].Rejected {
		t.Errorf("%+v, %v", visits, err)
	}
	_, err = b.Visits(t.Context(), b.other, b.Pseudonym(b.site, "MRN-1"))
	wantCode(t, err, neuroscreen.CodeNotFound, "subject-not-found")
	_, err = b.Visits(t.Context(), b.site, b.Pseudonym(b.site, "MRN-3"))
	wantCode(t, err, neuroscreen.CodeNotFound, "subject-not-found")
	none, err := b.Visits(t.Context(), b.site, b.create(t, post("MRN-4", "five")).Pseudonym)
	if err != nil || len(none) != 0 {
		t.Errorf("a person whose scan waits: %+v, %v", none, err)
	}
}

// TestSettingsAndReaders: a change of the settings and reads that are written
// into the trail do not wait for each other for ever.
func TestSettingsAndReaders(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var readers sync.WaitGroup
	var stop atomic.Bool
	for range 4 {
		readers.Go(func() {
			for !stop.Load() {
				if err := b.AppendAudit(t.Context(), b.site, store.AuditEntry{Actor: actor, Action: "cases.read", Object: "cases"}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for n := range 40 {
		if _, err := b.AddSettings(t.Context(), b.site, actor, n, []byte("{}"), "because"); err != nil {
			t.Error(err)
		}
	}
	stop.Store(true)
	readers.Wait()
}

// TestT1Segmentation: the newest T1 of the same person at the same site whose
// result stands, and nothing else.
func TestT1Segmentation(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, key, err := b.CreateKey(t.Context(), b.site, actor, neuroscreen.Clinician, "reader")
	if err != nil {
		t.Fatal(err)
	}
	pseudonym := b.Pseudonym(b.site, "MRN-1")
	want := func(what string, scan *store.ScanRecord, version int) {
		t.Helper()
		got, err := b.T1Segmentation(t.Context(), b.site, pseudonym)
		if scan == nil {
			wantCode(t, err, neuroscreen.CodeNotFound, "segmentation-not-found")
		} else if err != nil || got.ScanID != scan.ID || got.Version != version || got.BlobKey != hash("labels"+scan.ID.String()+fmt.Sprint(version)) {
			t.Errorf("%s: %+v, %v", what, got, err)
		}
	}
	run := func(scan store.ScanRecord, version int) {
		t.Helper()
		o := scored(scan)
		labels := hash("labels" + scan.ID.String() + fmt.Sprint(version))
		o.Files = append(o.Files, store.DerivedFile{Kind: store.KindSegmentation, MediaType: "application/gzip", BlobKey: labels, SHA256: labels, Size: 3})
		b.run(t, scan, o)
	}
	bold := post("MRN-1", "a run")
	bold.Metadata.Modality = neuroscreen.BOLD
	run(b.create(t, bold), 1)
	run(b.create(t, post("MRN-2", "another person's")), 1)
	elsewhere, err := b.CreateScan(t.Context(), b.other, actor, post("MRN-1", "another site's"))
	if err != nil {
		t.Fatal(err)
	}
	lease, err := b.Lease(t.Context(), b.other, elsewhere.Scan.ID, "worker", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	o := scored(elsewhere.Scan)
	o.Files[0].Kind = store.KindSegmentation
	if _, err := b.Finish(t.Context(), b.other, lease, o); err != nil {
		t.Fatal(err)
	}
	waiting := b.create(t, post("MRN-1", "waits"))
	want("none", nil, 0)

	b.clock.Advance(time.Minute)
	first := b.create(t, post("MRN-1", "one"))
	run(first, 1)
	want("the only one", &first, 1)
	b.clock.Advance(time.Minute)
	second := b.create(t, post("MRN-1", "two"))
	run(second, 1)
	want("the newer", &second, 1)
	if _, err := b.T1Segmentation(t.Context(), b.other, pseudonym); err == nil {
		t.Error("another site sees it")
	}
	if _, err := b.Review(t.Context(), b.site, key.ID, second.ID, store.NewReview{Decision: store.Reject, Comment: "moved", Run: 1}); err != nil {
		t.Fatal(err)
	}
	want("after a rejection", &first, 1)
	if _, err := b.PatchMetadata(t.Context(), b.site, actor, first.ID, store.MetadataPatch{AgeYears: ptr(72.0)}); err != nil {
		t.Fatal(err)
	}
	want("while it is analysed again", nil, 0)
	run(first, 2)
	want("its newer version", &first, 2)
	run(waiting, 1)
	want("one that came before", &first, 2)
}
