package store_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"

	"neuroscreen"
	"neuroscreen/internal/store"
)

func states(events []store.Event) []string {
	var s []string
	for _, e := range events {
		s = append(s, string(e.State))
	}
	return s
}

func TestChanges(t *testing.T) {
	t.Parallel()
	b := setup(t)
	scan, another := b.create(t, post("MRN-1", "bytes")), b.create(t, post("MRN-2", "more bytes"))
	changed, forget := b.Changes(scan.ID)
	told := func() bool {
		select {
		case <-changed:
			return true
		default:
			return false
		}
	}
	lease := b.lease(t, scan)
	stage := func(to neuroscreen.State) {
		t.Helper()
		if err := b.Advance(t.Context(), b.site, lease, to); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct {
		name string
		do   func()
		want bool
	}{
		{"nothing", func() {}, false},
		{"a stage", func() { stage(neuroscreen.Checked) }, true},
		{"once for that", func() {}, false},
		{"two before it looks", func() { stage(neuroscreen.Segmented); stage(neuroscreen.Measured) }, true},
		{"once for both", func() {}, false},
		{"another scan's stage", func() { lease = b.lease(t, another); stage(neuroscreen.Checked) }, false},
		{"what was rolled back", func() {
			if err := b.Advance(t.Context(), b.site, lease, neuroscreen.Checked); err == nil {
				t.Error("a stage was reached twice")
			}
		}, false},
		{"forgotten", func() {
			forget()
			if _, err := b.Cancel(t.Context(), b.site, actor, scan.ID); err != nil {
				t.Error(err)
			}
		}, false},
	} {
		step.do()
		if got := told(); got != step.want {
			t.Errorf("%s: told %v, want %v", step.name, got, step.want)
		}
	}
}

func TestRunThroughItsStages(t *testing.T) {
	t.Parallel()
	b := setup(t)
	scan := b.create(t, post("MRN-1", "bytes"))
	b.clock.Advance(time.Second)
	lease := b.lease(t, scan)
	if lease.Scan.Attempt != 1 || lease.Until != b.clock.Now().Add(time.Minute) {
		t.Errorf("%+v", lease)
	}
	for _, to := range []neuroscreen.State{neuroscreen.Checked, neuroscreen.Segmented, neuroscreen.Measured} {
		b.clock.Advance(time.Second)
		if err := b.Advance(t.Context(), b.site, lease, to); err != nil {
			t.Fatal(err)
		}
	}
	b.clock.Advance(time.Second)
	version, err := b.Finish(t.Context(), b.site, lease, scored(scan))
	if err != nil || version != 1 {
		t.Fatal(version, err)
	}

	t.Run("each stage has its time", func(t *testing.T) {
		got, err := b.StageTimes(t.Context(), b.site, scan.ID)
		if err != nil {
			t.Fatal(err)
		}
		at := func(s float64) time.Time { return scan.Created.Add(time.Duration(s * float64(time.Second))) }
		want := []neuroscreen.StageTime{{State: neuroscreen.Received, At: at(0)}, {State: neuroscreen.Checked, At: at(2)},
			{State: neuroscreen.Segmented, At: at(3)}, {State: neuroscreen.Measured, At: at(4)}, {State: neuroscreen.Scored, At: at(5)}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("events come in order, from where one left off", func(t *testing.T) {
		all, err := b.Events(t.Context(), b.site, scan.ID, 0)
		if err != nil || !slices.Equal(states(all), []string{"received", "checked", "segmented", "measured", "scored"}) {
			t.Fatalf("%v %v", all, err)
		}
		rest, err := b.Events(t.Context(), b.site, scan.ID, all[2].Seq)
		if err != nil || !slices.Equal(states(rest), []string{"measured", "scored"}) {
			t.Errorf("%v %v", rest, err)
		}
	})
	t.Run("the result is what was stored, byte for byte", func(t *testing.T) {
		got, err := b.CurrentResult(t.Context(), b.site, scan.ID)
		if err != nil {
			t.Fatal(err)
		}
		if got.SHA256 != hash(string(got.Document)) {
			t.Error("the hash is not the document's")
		}
		r, err := got.Result()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(*scored(scan).Result, r); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("its files are found", func(t *testing.T) {
		f, err := b.DerivedFile(t.Context(), b.site, scan.ID, 0, store.KindPreview)
		want := scored(scan).Files[0]
		want.Version = 1
		if err != nil || f != want {
			t.Errorf("%+v %v", f, err)
		}
		_, err = b.DerivedFile(t.Context(), b.site, scan.ID, 1, store.KindReading)
		wantCode(t, err, neuroscreen.CodeNotFound, "file-not-found")
	})
	t.Run("nothing happens to it any more", func(t *testing.T) {
		for name, err := range map[string]error{
			"advance": b.Advance(t.Context(), b.site, lease, neuroscreen.Measured),
			"finish":  second(b.Finish(t.Context(), b.site, lease, scored(scan))),
		} {
			if !errors.Is(err, store.ErrFenced) {
				t.Errorf("%s: got %v", name, err)
			}
		}
	})
}

// TestKilledWorker: the second worker finishes, the first one's late store is
// shut out, and one result is there.
func TestKilledWorker(t *testing.T) {
	t.Parallel()
	b := setup(t)
	scan := b.create(t, post("MRN-1", "bytes"))
	first := b.lease(t, scan)
	if err := b.Advance(t.Context(), b.site, first, neuroscreen.Segmented); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Lease(t.Context(), b.site, scan.ID, "second", time.Minute); !errors.Is(err, store.ErrBusy) {
		t.Fatalf("got %v while the lease is good", err)
	}
	b.clock.Advance(40 * time.Second)
	if err := b.Renew(t.Context(), b.site, first, time.Minute); err != nil {
		t.Fatal(err)
	}
	b.clock.Advance(59 * time.Second)
	if _, err := b.Lease(t.Context(), b.site, scan.ID, "second", time.Minute); !errors.Is(err, store.ErrBusy) {
		t.Fatalf("got %v while the renewed lease is good", err)
	}
	b.clock.Advance(time.Second)
	next := b.lease(t, scan)
	if next.Scan.Attempt != 2 || next.Scan.State != neuroscreen.Received || next.Fence <= first.Fence {
		t.Errorf("%+v", next)
	}

	for name, err := range map[string]error{
		"renew":   b.Renew(t.Context(), b.site, first, time.Minute),
		"advance": b.Advance(t.Context(), b.site, first, neuroscreen.Measured),
		"release": b.Release(t.Context(), b.site, first, true, neuroscreen.Reason{Code: "x"}),
		"finish":  second(b.Finish(t.Context(), b.site, first, scored(scan))),
	} {
		if !errors.Is(err, store.ErrFenced) {
			t.Errorf("late %s: got %v", name, err)
		}
	}
	if err := b.Advance(t.Context(), b.site, next, neuroscreen.Checked); err != nil {
		t.Fatal(err)
	}
	if v, err := b.Finish(t.Context(), b.site, next, scored(scan)); err != nil || v != 1 {
		t.Fatal(v, err)
	}
	if _, err := b.Finish(t.Context(), b.site, first, scored(scan)); !errors.Is(err, store.ErrFenced) {
		t.Errorf("got %v", err)
	}
	if n := b.scalar(t, "SELECT count(*) FROM results"); n != "1" {
		t.Errorf("%s results", n)
	}
	times, err := b.StageTimes(t.Context(), b.site, scan.ID)
	var got []string
	for _, s := range times {
		got = append(got, string(s.State))
	}
	if err != nil || !slices.Equal(got, []string{"received", "checked", "scored"}) {
		t.Errorf("stages %v %v", got, err)
	}
}

func TestRelease(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for name, c := range map[string]struct {
		counted bool
		attempt int // of the next lease
	}{"a failed attempt counts": {true, 2}, "a missing dependency does not": {false, 1}} {
		t.Run(name, func(t *testing.T) {
			scan := b.create(t, post("MRN-1", name))
			lease := b.lease(t, scan)
			why := neuroscreen.Reason{Code: "storage-full", Text: "no room"}
			if err := b.Release(t.Context(), b.site, lease, c.counted, why); err != nil {
				t.Fatal(err)
			}
			got, err := b.Scan(t.Context(), b.site, scan.ID)
			if err != nil || got.State != neuroscreen.Received || len(got.Reasons) != 1 || got.Reasons[0] != why {
				t.Errorf("%+v %v", got, err)
			}
			if err := b.Renew(t.Context(), b.site, lease, time.Minute); !errors.Is(err, store.ErrFenced) {
				t.Errorf("after its release: %v", err)
			}
			next := b.lease(t, scan)
			if next.Scan.Attempt != c.attempt || len(next.Scan.Reasons) != 0 {
				t.Errorf("%+v", next.Scan)
			}
		})
	}
}

func TestAdvanceGoesForwardOnly(t *testing.T) {
	t.Parallel()
	b := setup(t)
	lease := b.lease(t, b.create(t, post("MRN-1", "bytes")))
	if err := b.Advance(t.Context(), b.site, lease, neuroscreen.Segmented); err != nil {
		t.Fatal(err)
	}
	for _, to := range []neuroscreen.State{neuroscreen.Received, neuroscreen.Checked, neuroscreen.Segmented, neuroscreen.Scored, neuroscreen.Failed, "x"} {
		if err := b.Advance(t.Context(), b.site, lease, to); err == nil || errors.Is(err, store.ErrFenced) {
			t.Errorf("%s: got %v", to, err)
		}
	}
}

func TestFinishRefusesWrongOutcomes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	scan := b.create(t, post("MRN-1", "bytes"))
	other := b.create(t, post("MRN-2", "other bytes"))
	lease := b.lease(t, scan)
	edit := func(f func(*store.Outcome)) store.Outcome {
		o := scored(scan)
		f(&o)
		return o
	}
	for name, o := range map[string]store.Outcome{
		"no result":              {State: neuroscreen.Scored},
		"another scan's result":  scored(other),
		"another subject":        edit(func(o *store.Outcome) { o.Result.SubjectID = other.Pseudonym }),
		"the posted identifier":  edit(func(o *store.Outcome) { o.Result.SubjectID = "MRN-1" }),
		"other bytes":            edit(func(o *store.Outcome) { o.Result.Input.SHA256 = other.SHA256 }),
		"refused without reason": {State: neuroscreen.Refused},
		"failed with a result":   {State: neuroscreen.Failed, Result: scored(scan).Result, Reasons: refused("x").Reasons},
		"cancelled":              {State: neuroscreen.Cancelled, Reasons: refused("x").Reasons},
		"not an end":             {State: neuroscreen.Measured},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := b.Finish(t.Context(), b.site, lease, o); err == nil || errors.Is(err, store.ErrFenced) {
				t.Errorf("got %v", err)
			}
		})
	}
	t.Run("files that are gone", func(t *testing.T) {
		b.blobs.remove(t.Context(), scored(scan).Files[0].BlobKey)
		_, err := b.Finish(t.Context(), b.site, lease, scored(scan))
		wantCode(t, err, neuroscreen.CodeUnavailable, "blob-missing")
	})
	if got, err := b.Scan(t.Context(), b.site, scan.ID); err != nil || got.State != neuroscreen.Received {
		t.Errorf("%+v %v", got, err)
	}
	if n := b.scalar(t, "SELECT count(*) FROM results"); n != "0" {
		t.Errorf("%s results", n)
	}
}

// TestResultsAreWrittenOnce goes around the store.
func TestResultsAreWrittenOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	scan := b.create(t, post("MRN-1", "bytes"))
	b.run(t, scan, scored(scan))
	for _, table := range []string{"results", "derived_files", "scan_events", "audit"} {
		for _, sql := range []string{"UPDATE " + table + " SET site_id = site_id", "DELETE FROM " + table} {
			_, err := b.pool.Exec(t.Context(), sql)
			pg, ok := errors.AsType[*pgconn.PgError](err)
			if !ok || !strings.Contains(pg.Message, "written once") {
				t.Errorf("%s: got %v", sql, err)
			}
		}
	}
}

func TestVersionsGoOnAfterARefusal(t *testing.T) {
	t.Parallel()
	b := setup(t)
	scan := b.create(t, post("MRN-1", "bytes"))
	for i, o := range []store.Outcome{scored(scan), refused("not-t1"), scored(scan)} {
		if i > 0 {
			if _, err := b.Retry(t.Context(), b.site, actor, scan.ID); err != nil {
				t.Fatal(err)
			}
		}
		b.run(t, scan, o)
	}
	versions, err := b.ResultVersions(t.Context(), b.site, scan.ID)
	if err != nil || len(versions) != 2 || versions[0].Run != 1 || versions[1].Run != 3 || versions[1].Version != 2 {
		t.Errorf("%+v %v", versions, err)
	}
}

// TestUncount: only where another took the same run up since.
func TestUncount(t *testing.T) {
	t.Parallel()
	b := setup(t)
	leases := func(n int) func(*testing.T, store.ScanRecord, store.Lease) {
		return func(t *testing.T, scan store.ScanRecord, _ store.Lease) {
			for range n {
				b.lease(t, scan)
				b.clock.Advance(time.Hour)
			}
		}
	}
	for name, c := range map[string]struct {
		since func(t *testing.T, scan store.ScanRecord, mine store.Lease)
		want  int // attempts counted; mine is the second
	}{
		"nobody has it":  {leases(0), 2},
		"another has it": {leases(1), 2},
		"two had it":     {leases(2), 3},
		"it has ended":   {func(t *testing.T, scan store.ScanRecord, _ store.Lease) { b.run(t, scan, refused("not-t1")) }, 3},
		"it runs anew": {func(t *testing.T, scan store.ScanRecord, mine store.Lease) {
			b.run(t, scan, refused("not-t1"))
			if _, err := b.Retry(t.Context(), b.site, actor, scan.ID); err != nil {
				t.Fatal(err)
			}
			leases(2)(t, scan, mine)
		}, 2},
		"given back, and the answer lost": {func(t *testing.T, _ store.ScanRecord, mine store.Lease) {
			if err := b.Release(t.Context(), b.site, mine, false, neuroscreen.Reason{Code: "worker-stopped"}); err != nil {
				t.Fatal(err)
			}
		}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			scan := b.create(t, post("MRN-1", name))
			b.lease(t, scan)
			b.clock.Advance(time.Hour)
			mine := b.lease(t, scan)
			b.clock.Advance(time.Hour)
			c.since(t, scan, mine)
			if err := b.Uncount(t.Context(), b.site, mine); err != nil {
				t.Fatal(err)
			}
			if rec, err := b.Scan(t.Context(), b.site, scan.ID); err != nil || rec.Attempt != c.want {
				t.Errorf("%d attempts, want %d, %v", rec.Attempt, c.want, err)
			}
		})
	}
}
