package store_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"neuroscreen"
	"neuroscreen/internal/store"
)

func TestCreateScan(t *testing.T) {
	t.Parallel()
	b := setup(t)
	first := b.create(t, post("MRN-007", "bytes"))

	t.Run("keeps what the analysis needs and no identifier", func(t *testing.T) {
		want := neuroscreen.Metadata{SubjectID: first.Pseudonym, AgeYears: ptr(71.0), Sex: neuroscreen.Female,
			Modality: neuroscreen.T1w, ScanDate: "2026-02-28", Scanner: "scanner-a"}
		if diff := cmp.Diff(want, first.Metadata); diff != "" {
			t.Error(diff)
		}
		if first.State != neuroscreen.Received || first.SHA256 != hash("bytes") || first.Run != 1 || !first.Created.Equal(b.clock.Now()) {
			t.Errorf("%+v", first)
		}
	})
	t.Run("no table holds a posted identifier", func(t *testing.T) {
		for _, table := range []string{"scans", "links", "idempotency_keys", "scan_events", "cases", "audit"} {
			dump := b.scalar(t, "SELECT coalesce(string_agg(x::text, ' '), '') FROM "+table+" x")
			for _, id := range []string{"MRN-007", "1955", "1.2.3"} {
				if strings.Contains(dump, id) {
					t.Errorf("table %s holds %q: %s", table, id, dump)
				}
			}
		}
	})
	t.Run("identifiers come back from the link table", func(t *testing.T) {
		ids, err := b.Identities(t.Context(), b.site, first.ID)
		if err != nil {
			t.Fatal(err)
		}
		want := map[uuid.UUID]store.Identity{first.ID: {SubjectID: "MRN-007", AccessionNumber: "ACC-MRN-007", StudyInstanceUID: "1.2.3", SOPInstanceUIDs: []string{"1.2.3.4"}}}
		if diff := cmp.Diff(want, ids); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("a link moved to another scan does not open", func(t *testing.T) {
		second := b.create(t, post("MRN-008", "bytes"))
		if _, err := b.pool.Exec(t.Context(), "UPDATE links SET sealed = (SELECT sealed FROM links WHERE scan_id = $1) WHERE scan_id = $2", first.ID, second.ID); err != nil {
			t.Fatal(err)
		}
		if ids, err := b.Identities(t.Context(), b.site, second.ID); err == nil {
			t.Errorf("another subject's link opened: %v", ids)
		}
	})
	t.Run("the same bytes for the same subject are the same scan", func(t *testing.T) {
		jobs := b.jobs.count()
		again := post("MRN-007", "bytes")
		again.Metadata.AccessionNumber = "ACC-other"
		c, err := b.CreateScan(t.Context(), b.site, actor, again)
		if err != nil {
			t.Fatal(err)
		}
		if c.Scan.ID != first.ID || !c.Duplicate || b.jobs.count() != jobs {
			t.Errorf("%+v, %d jobs more", c, b.jobs.count()-jobs)
		}
		// Found under either number.
		for _, number := range []string{"ACC-MRN-007", "ACC-other"} {
			found, err := b.FindScans(t.Context(), b.site, store.ScanFilter{AccessionNumber: &number})
			if err != nil || len(found) != 1 || found[0].ID != first.ID {
				t.Errorf("%s: %v %v", number, found, err)
			}
		}
	})
	t.Run("posted again, DICOM references that were missing are added", func(t *testing.T) {
		n := post("MRN-010", "bytes")
		n.Metadata.AccessionNumber, n.Metadata.StudyInstanceUID, n.Metadata.SOPInstanceUIDs = "", "", nil
		scan := b.create(t, n)
		for _, posted := range []struct {
			accession string
			store.Identity
			want store.Identity
		}{
			{"", store.Identity{StudyInstanceUID: "1.1"}, store.Identity{StudyInstanceUID: "1.1"}},
			{"", store.Identity{StudyInstanceUID: "1.1", SeriesInstanceUID: "1.2", SOPInstanceUIDs: []string{"1.4"}},
				store.Identity{StudyInstanceUID: "1.1", SeriesInstanceUID: "1.2", SOPInstanceUIDs: []string{"1.4"}}},
			// Of another series: its frame of reference is not that of the first.
			{"", store.Identity{StudyInstanceUID: "1.1", SeriesInstanceUID: "2.2", FrameOfReferenceUID: "2.3"},
				store.Identity{StudyInstanceUID: "1.1", SeriesInstanceUID: "1.2", SOPInstanceUIDs: []string{"1.4"}}},
			{"A", store.Identity{}, store.Identity{StudyInstanceUID: "1.1", SeriesInstanceUID: "1.2", SOPInstanceUIDs: []string{"1.4"}}},
			{"B", store.Identity{StudyInstanceUID: "3.1", SeriesInstanceUID: "3.2", FrameOfReferenceUID: "3.3", SOPInstanceUIDs: []string{"3.4"}},
				store.Identity{AccessionNumber: "B", StudyInstanceUID: "3.1", SeriesInstanceUID: "3.2", FrameOfReferenceUID: "3.3", SOPInstanceUIDs: []string{"3.4"}}},
		} {
			n.Metadata.AccessionNumber, n.Metadata.StudyInstanceUID, n.Metadata.SeriesInstanceUID = posted.accession, posted.StudyInstanceUID, posted.SeriesInstanceUID
			n.Metadata.FrameOfReferenceUID, n.Metadata.SOPInstanceUIDs = posted.FrameOfReferenceUID, posted.SOPInstanceUIDs
			b.create(t, n)
			ids, err := b.Identities(t.Context(), b.site, scan.ID)
			posted.want.SubjectID = "MRN-010"
			if diff := cmp.Diff(posted.want, ids[scan.ID]); err != nil || diff != "" {
				t.Errorf("%+v: %v %s", posted.Identity, err, diff)
			}
		}
	})
	t.Run("a duplicate with another age changes nothing", func(t *testing.T) {
		again := post("MRN-007", "bytes")
		again.Metadata.AgeYears = ptr(17.0)
		c, err := b.CreateScan(t.Context(), b.site, actor, again)
		if err != nil || !c.Duplicate || *c.Scan.Metadata.AgeYears != 71 {
			t.Errorf("%+v %v", c, err)
		}
	})
	t.Run("posted again, a refusal of research is taken over, and consent is not", func(t *testing.T) {
		n := post("MRN-011", "bytes")
		n.Metadata.AgeYears = nil
		scan := b.create(t, n)
		for _, c := range []struct {
			posted  *bool
			age     *float64
			refused bool
			changes int
		}{
			{nil, nil, false, 0},
			{ptr(true), nil, false, 0},
			{ptr(false), ptr(71.0), true, 1}, // beside what the scan lacked
			{ptr(false), nil, true, 1},
			{ptr(true), nil, true, 1},
			{nil, nil, true, 1},
		} {
			n.Metadata.ConsentResearch, n.Metadata.AgeYears = c.posted, c.age
			again, err := b.CreateScan(t.Context(), b.site, actor, n)
			if err != nil || !again.Duplicate || again.Scan.ID != scan.ID {
				t.Fatalf("%+v %v", again, err)
			}
			if got := again.Scan.Metadata.ConsentResearch; (got != nil && !*got) != c.refused || got != nil && *got {
				t.Errorf("after %+v consent is %v", c, got)
			}
			_, err = b.Scan(store.ForResearch(t.Context()), b.site, scan.ID)
			if (err != nil) != c.refused {
				t.Errorf("after %+v, for research: %v", c, err)
			}
			changes, err := b.Audit(t.Context(), b.site, store.AuditFilter{ScanID: &scan.ID})
			if err != nil {
				t.Fatal(err)
			}
			changes = slices.DeleteFunc(changes, func(e store.AuditEntry) bool {
				return e.Action != "scan.correct" || e.Details != "consent_research" || e.Actor != actor
			})
			if len(changes) != c.changes {
				t.Errorf("after %+v the trail has %+v", c, changes)
			}
		}
		if now, err := b.Scan(t.Context(), b.site, scan.ID); err != nil || now.State != neuroscreen.Received || *now.Metadata.AgeYears != 71 {
			t.Errorf("%+v %v", now, err)
		}
	})
	t.Run("of one without bytes none were removed", func(t *testing.T) {
		n := withoutBytes(post("MRN-012", "bytes"))
		n.Metadata.ConsentResearch = ptr(true)
		first := b.create(t, n)
		n.Metadata.ConsentResearch = ptr(false)
		c, err := b.CreateScan(t.Context(), b.site, actor, n)
		if err != nil || !c.Duplicate || c.Scan.ID != first.ID || *c.Scan.Metadata.ConsentResearch {
			t.Errorf("%+v %v", c, err)
		}
		for _, rec := range []store.ScanRecord{first, c.Scan} {
			if rec.State != neuroscreen.Refused || rec.BytesRemoved != nil {
				t.Errorf("%+v", rec)
			}
		}
	})
	for name, n := range map[string]store.NewScan{
		"another subject": post("MRN-009", "bytes"),
		"other bytes":     post("MRN-007", "other bytes"),
		"the same bytes, .hdr on": func() store.NewScan {
			n := post("MRN-007", "bytes")
			n.HeaderSHA256, n.HeaderSize, n.HeaderBlobKey = hash("hdr"), 348, blobKey("hdr")
			return n
		}(),
	} {
		t.Run("is another scan: "+name, func(t *testing.T) {
			c, err := b.CreateScan(t.Context(), b.site, actor, n)
			if err != nil || c.Duplicate || c.Scan.ID == first.ID {
				t.Errorf("%+v %v", c, err)
			}
		})
	}
	t.Run("another site's scan of the same person has another pseudonym", func(t *testing.T) {
		c, err := b.CreateScan(t.Context(), b.other, actor, post("MRN-007", "bytes"))
		if err != nil || c.Duplicate || c.Scan.Pseudonym == first.Pseudonym {
			t.Errorf("%+v %v", c, err)
		}
	})
	t.Run("bytes that are gone are not accepted", func(t *testing.T) {
		b.blobs.remove(t.Context(), blobKey("gone"))
		_, err := b.CreateScan(t.Context(), b.site, actor, post("MRN-007", "gone"))
		wantCode(t, err, neuroscreen.CodeUnavailable, "blob-missing")
	})
	t.Run("without its job there is no scan", func(t *testing.T) {
		b.jobs.err = errors.New("queue broken")
		defer func() { b.jobs.err = nil }()
		before := b.scalar(t, "SELECT count(*) FROM scans")
		if _, err := b.CreateScan(t.Context(), b.site, actor, post("MRN-007", "unqueued")); !errors.Is(err, b.jobs.err) {
			t.Errorf("got %v", err)
		}
		if after := b.scalar(t, "SELECT count(*) FROM scans"); after != before {
			t.Errorf("%s scans, before %s", after, before)
		}
	})
}

func TestIdempotencyKey(t *testing.T) {
	t.Parallel()
	b := setup(t)
	n := post("MRN-1", "bytes")
	n.IdempotencyKey = "order-ACC-77"
	first := b.create(t, n)

	t.Run("the same request again is answered with its scan", func(t *testing.T) {
		c, err := b.CreateScan(t.Context(), b.site, actor, n)
		if err != nil || !c.Duplicate || c.Scan.ID != first.ID {
			t.Errorf("%+v %v", c, err)
		}
		entries, err := b.Audit(t.Context(), b.site, store.AuditFilter{ScanID: &first.ID, Limit: 1})
		if err != nil || len(entries) != 1 || entries[0].Action != "scan.create" || entries[0].Details != "repeated" {
			t.Errorf("trail %+v %v", entries, err)
		}
	})
	t.Run("the same request without bytes is answered with its scan", func(t *testing.T) {
		n := n
		n.BlobKey, n.Size = "", 0
		rec, known, err := b.RepeatedScan(t.Context(), b.site, "key-2", n)
		if err != nil || !known || rec.ID != first.ID {
			t.Errorf("%+v %v %v", rec, known, err)
		}
		entries, err := b.Audit(t.Context(), b.site, store.AuditFilter{ScanID: &first.ID, Limit: 1})
		if err != nil || len(entries) != 1 || entries[0].Actor != "key-2" || entries[0].Details != "repeated" {
			t.Errorf("trail %+v %v", entries, err)
		}
	})
	for name, n := range map[string]store.NewScan{
		"another key": func() store.NewScan { n := n; n.IdempotencyKey = "another"; return n }(),
		"no key":      post("MRN-1", "bytes"),
	} {
		t.Run("nothing was made under "+name, func(t *testing.T) {
			if rec, known, err := b.RepeatedScan(t.Context(), b.site, actor, n); err != nil || known {
				t.Errorf("%+v %v %v", rec, known, err)
			}
		})
	}
	t.Run("nor at another site", func(t *testing.T) {
		if rec, known, err := b.RepeatedScan(t.Context(), b.other, actor, n); err != nil || known {
			t.Errorf("%+v %v %v", rec, known, err)
		}
	})
	for name, other := range map[string]store.NewScan{
		"other bytes":    post("MRN-1", "other"),
		"other subject":  post("MRN-2", "bytes"),
		"other metadata": func() store.NewScan { o := n; o.Metadata.AgeYears = ptr(50.0); return o }(),
	} {
		t.Run("refused for "+name, func(t *testing.T) {
			other.IdempotencyKey = n.IdempotencyKey
			before := b.scalar(t, "SELECT count(*) FROM scans")
			_, err := b.CreateScan(t.Context(), b.site, actor, other)
			wantCode(t, err, neuroscreen.CodeUnprocessable, "idempotency-key-reused")
			if after := b.scalar(t, "SELECT count(*) FROM scans"); after != before {
				t.Error("a scan was made")
			}
			_, _, err = b.RepeatedScan(t.Context(), b.site, actor, other)
			wantCode(t, err, neuroscreen.CodeUnprocessable, "idempotency-key-reused")
		})
	}
	t.Run("another site may use the same key", func(t *testing.T) {
		other := post("MRN-2", "other")
		other.IdempotencyKey = n.IdempotencyKey
		if c, err := b.CreateScan(t.Context(), b.other, actor, other); err != nil || c.Duplicate {
			t.Errorf("%+v %v", c, err)
		}
	})
	t.Run("forgotten after a while, the bytes still tell", func(t *testing.T) {
		if err := b.ForgetIdempotencyKeys(t.Context(), b.clock.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		c, err := b.CreateScan(t.Context(), b.site, actor, n)
		if err != nil || !c.Duplicate || c.Scan.ID != first.ID {
			t.Errorf("%+v %v", c, err)
		}
	})
}

func TestConcurrentPostsMakeOneScan(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const posts = 12
	ids := make([]uuid.UUID, posts)
	fresh := make([]bool, posts)
	var wg sync.WaitGroup
	for i := range posts {
		wg.Go(func() {
			n := post("MRN-1", "bytes")
			if i%2 == 0 {
				n.IdempotencyKey = "key"
			}
			c, err := b.CreateScan(context.Background(), b.site, actor, n)
			if err != nil {
				t.Error(err)
			}
			ids[i], fresh[i] = c.Scan.ID, !c.Duplicate
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Errorf("two scans: %s and %s", id, ids[0])
		}
	}
	made := len(slices.DeleteFunc(fresh, func(f bool) bool { return !f }))
	if made != 1 || b.jobs.count() != 1 {
		t.Errorf("%d posts were told the scan is new, %d jobs", made, b.jobs.count())
	}
}

// TestConcurrentIdempotencyKey posts different scans under one key at once.
func TestConcurrentIdempotencyKey(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	accepted := 0
	for _, content := range []string{"a", "b", "c", "d"} {
		wg.Go(func() {
			n := post("MRN-1", content)
			n.IdempotencyKey = "key"
			_, err := b.CreateScan(context.Background(), b.site, actor, n)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				accepted++
			} else {
				wantCode(t, err, neuroscreen.CodeUnprocessable, "idempotency-key-reused")
			}
		})
	}
	wg.Wait()
	if n := b.scalar(t, "SELECT count(*) FROM scans"); accepted != 1 || n != "1" {
		t.Errorf("%d accepted, %s stored", accepted, n)
	}
}

func TestFindScans(t *testing.T) {
	t.Parallel()
	b := setup(t)
	one := b.create(t, post("MRN-1", "a"))
	b.clock.Advance(time.Second)
	two := b.create(t, post("MRN-1", "b"))
	b.clock.Advance(time.Second)
	three := b.create(t, post("MRN-2", "c"))
	b.run(t, three, refused("not-a-brain"))
	for name, c := range map[string]struct {
		filter store.ScanFilter
		want   []uuid.UUID
	}{
		"all, newest first":   {store.ScanFilter{}, []uuid.UUID{three.ID, two.ID, one.ID}},
		"subject":             {store.ScanFilter{SubjectID: ptr("MRN-1")}, []uuid.UUID{two.ID, one.ID}},
		"subject, padded":     {store.ScanFilter{SubjectID: ptr("MRN-1 ")}, []uuid.UUID{two.ID, one.ID}},
		"accession number":    {store.ScanFilter{AccessionNumber: ptr("ACC-MRN-2")}, []uuid.UUID{three.ID}},
		"no accession number": {store.ScanFilter{AccessionNumber: ptr("")}, nil},
		"state":               {store.ScanFilter{State: ptr(neuroscreen.Refused)}, []uuid.UUID{three.ID}},
		"limit":               {store.ScanFilter{Limit: 1}, []uuid.UUID{three.ID}},
		"unknown subject":     {store.ScanFilter{SubjectID: ptr("MRN-3")}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			found, err := b.FindScans(t.Context(), b.site, c.filter)
			if err != nil {
				t.Fatal(err)
			}
			var got []uuid.UUID
			for _, s := range found {
				got = append(got, s.ID)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestCancel(t *testing.T) {
	t.Parallel()
	b := setup(t)
	t.Run("a waiting scan is not taken up", func(t *testing.T) {
		scan := b.create(t, post("MRN-1", "waiting"))
		rec, err := b.Cancel(t.Context(), b.site, actor, scan.ID)
		if err != nil || rec.State != neuroscreen.Cancelled || len(rec.Reasons) != 1 || rec.Finished == nil {
			t.Fatalf("%+v %v", rec, err)
		}
		if _, err := b.Lease(t.Context(), b.site, scan.ID, "w", time.Minute); !errors.Is(err, store.ErrFinal) {
			t.Errorf("got %v", err)
		}
		_, err = b.Cancel(t.Context(), b.site, actor, scan.ID)
		wantCode(t, err, neuroscreen.CodeConflict, "scan-final")
	})
	t.Run("a running scan's worker is shut out", func(t *testing.T) {
		scan := b.create(t, post("MRN-1", "running"))
		lease := b.lease(t, scan)
		if _, err := b.Cancel(t.Context(), b.site, actor, scan.ID); err != nil {
			t.Fatal(err)
		}
		for name, err := range map[string]error{
			"advance": b.Advance(t.Context(), b.site, lease, neuroscreen.Checked),
			"renew":   b.Renew(t.Context(), b.site, lease, time.Minute),
			"release": b.Release(t.Context(), b.site, lease, true, neuroscreen.Reason{Code: "x"}),
			"finish":  second(b.Finish(t.Context(), b.site, lease, scored(scan))),
		} {
			if !errors.Is(err, store.ErrFenced) {
				t.Errorf("%s: got %v", name, err)
			}
		}
		_, err := b.CurrentResult(t.Context(), b.site, scan.ID)
		wantCode(t, err, neuroscreen.CodeConflict, "scan-cancelled")
	})
}

func second[T any](_ T, err error) error { return err }

func TestRetry(t *testing.T) {
	t.Parallel()
	b := setup(t)
	scan := b.create(t, post("MRN-1", "bytes"))
	_, err := b.Retry(t.Context(), b.site, actor, scan.ID)
	wantCode(t, err, neuroscreen.CodeConflict, "scan-running")

	b.run(t, scan, refused("not-a-brain"))
	_, err = b.CurrentResult(t.Context(), b.site, scan.ID)
	wantCode(t, err, neuroscreen.CodeConflict, "scan-refused")

	jobs := b.jobs.count()
	again, err := b.Retry(t.Context(), b.site, actor, scan.ID)
	if err != nil || again.State != neuroscreen.Received || again.Run != 2 || again.Attempt != 0 || len(again.Reasons) != 0 || again.Finished != nil || b.jobs.count() != jobs+1 {
		t.Fatalf("%+v %v", again, err)
	}
	b.run(t, scan, scored(scan))
	if r, err := b.CurrentResult(t.Context(), b.site, scan.ID); err != nil || r.Version != 1 || r.Run != 2 {
		t.Errorf("%+v %v", r, err)
	}
}

func TestPatchMetadata(t *testing.T) {
	t.Parallel()
	b := setup(t)
	scan := b.create(t, post("MRN-1", "bytes"))
	b.run(t, scan, scored(scan))

	t.Run("the same values run nothing", func(t *testing.T) {
		jobs := b.jobs.count()
		rec, err := b.PatchMetadata(t.Context(), b.site, actor, scan.ID, store.MetadataPatch{AgeYears: ptr(71.0), Sex: ptr(neuroscreen.Female)})
		if err != nil || rec.State != neuroscreen.Scored || b.jobs.count() != jobs {
			t.Errorf("%+v %v", rec, err)
		}
		entries, err := b.Audit(t.Context(), b.site, store.AuditFilter{ScanID: &scan.ID, Limit: 1})
		if err != nil || len(entries) != 1 || entries[0].Action != "scan.correct" || entries[0].Details != "no change" {
			t.Errorf("who sent them has seen the scan: %+v %v", entries, err)
		}
	})
	t.Run("another age gives a new version beside the old", func(t *testing.T) {
		rec, err := b.PatchMetadata(t.Context(), b.site, actor, scan.ID, store.MetadataPatch{AgeYears: ptr(70.0)})
		if err != nil || rec.State != neuroscreen.Received || *rec.Metadata.AgeYears != 70 {
			t.Fatalf("%+v %v", rec, err)
		}
		_, err = b.CurrentResult(t.Context(), b.site, scan.ID)
		wantCode(t, err, neuroscreen.CodeConflict, "not-ready")
		b.run(t, scan, scored(scan))
		versions, err := b.ResultVersions(t.Context(), b.site, scan.ID)
		if err != nil || len(versions) != 2 || *versions[0].Metadata.AgeYears != 71 || *versions[1].Metadata.AgeYears != 70 {
			t.Fatalf("%+v %v", versions, err)
		}
		if cur, err := b.CurrentResult(t.Context(), b.site, scan.ID); err != nil || cur.Version != 2 {
			t.Errorf("%+v %v", cur, err)
		}
	})
	t.Run("consent alone runs nothing", func(t *testing.T) {
		jobs := b.jobs.count()
		for _, consent := range []bool{false, true} {
			rec, err := b.PatchMetadata(t.Context(), b.site, actor, scan.ID, store.MetadataPatch{ConsentResearch: &consent})
			if err != nil || rec.State != neuroscreen.Scored || b.jobs.count() != jobs || *rec.Metadata.ConsentResearch != consent {
				t.Errorf("%+v %v", rec, err)
			}
			if _, err := b.Scan(store.ForResearch(t.Context()), b.site, scan.ID); (err == nil) != consent {
				t.Errorf("consent %v, for research: %v", consent, err)
			}
		}
	})
	t.Run("another date of the scan", func(t *testing.T) {
		rec, err := b.PatchMetadata(t.Context(), b.site, actor, scan.ID, store.MetadataPatch{ScanDate: ptr("2019-05-06")})
		if err != nil || rec.State != neuroscreen.Received || rec.Metadata.ScanDate != "2019-05-06" || *rec.Metadata.AgeYears != 70 {
			t.Fatalf("%+v %v", rec, err)
		}
		b.run(t, scan, scored(scan))
	})
	t.Run("a run under way with the old age stores nothing", func(t *testing.T) {
		if _, err := b.Retry(t.Context(), b.site, actor, scan.ID); err != nil {
			t.Fatal(err)
		}
		old := b.lease(t, scan)
		if _, err := b.PatchMetadata(t.Context(), b.site, actor, scan.ID, store.MetadataPatch{Sex: ptr(neuroscreen.Male)}); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Finish(t.Context(), b.site, old, scored(scan)); !errors.Is(err, store.ErrFenced) {
			t.Errorf("got %v", err)
		}
		fresh := b.lease(t, scan) // at once: the correction freed the lease
		if fresh.Scan.Metadata.Sex != neuroscreen.Male {
			t.Errorf("%+v", fresh.Scan.Metadata)
		}
	})
}

func TestErase(t *testing.T) {
	t.Parallel()
	b := setup(t)
	n := post("MRN-1", "bytes")
	n.IdempotencyKey = "key"
	n.HeaderSHA256, n.HeaderSize, n.HeaderBlobKey = hash("hdr"), 348, blobKey("hdr")
	scan := b.create(t, n)
	b.run(t, scan, scored(scan, score(neuroscreen.Alzheimers, 3, neuroscreen.FlagReview)))
	shared := b.create(t, post("MRN-2", "bytes")) // the same bytes

	running := b.lease(t, shared)
	keys, err := b.Erase(t.Context(), b.site, actor, scan.ID)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{blobKey("bytes"), blobKey("hdr"), hash("png" + scan.ID.String())}
	slices.Sort(want)
	if diff := cmp.Diff(want, keys); diff != "" {
		t.Error(diff)
	}
	t.Run("nothing but the audit trail knows of it", func(t *testing.T) {
		_, err := b.Scan(t.Context(), b.site, scan.ID)
		wantCode(t, err, neuroscreen.CodeNotFound, "scan-not-found")
		tables := strings.Split(b.scalar(t, `
			SELECT string_agg(table_name, ' ') FROM information_schema.columns
			WHERE table_schema = 'public' AND column_name = 'scan_id'`), " ")
		if len(tables) < 6 {
			t.Errorf("only %v", tables)
		}
		for _, table := range tables {
			if n := b.scalar(t, "SELECT count(*) FROM "+table+" WHERE scan_id = $1", scan.ID); n != "0" {
				t.Errorf("%s rows in %s", n, table)
			}
		}
		entries, err := b.Audit(t.Context(), b.site, store.AuditFilter{Object: ptr("scan:" + scan.ID.String()), Limit: 1})
		if err != nil || len(entries) != 1 || entries[0].Action != "scan.erase" || entries[0].Actor != actor {
			t.Errorf("%+v %v", entries, err)
		}
	})
	t.Run("blobs that another scan needs stay", func(t *testing.T) {
		removed, err := b.ReleaseBlobs(t.Context(), keys, b.blobs.remove)
		if err != nil || removed != 2 || b.blobs.missing[blobKey("bytes")] {
			t.Errorf("%d removed, %v, %v", removed, b.blobs.missing, err)
		}
	})
	t.Run("a subject's scans go together, under a worker's hands too", func(t *testing.T) {
		n, keys, err := b.EraseSubject(t.Context(), b.site, actor, "MRN-2")
		if err != nil || n != 1 || len(keys) != 1 {
			t.Fatalf("%d %v %v", n, keys, err)
		}
		if _, err := b.Finish(t.Context(), b.site, running, scored(shared)); !errors.Is(err, store.ErrFenced) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("the same bytes may be posted again", func(t *testing.T) {
		b.blobs.missing = map[string]bool{}
		c, err := b.CreateScan(t.Context(), b.site, actor, n)
		if err != nil || c.Duplicate || c.Scan.ID == scan.ID {
			t.Errorf("%+v %v", c, err)
		}
	})
}

// TestReleaseWaitsForCreate: a blob is not removed between the look for it
// and the row that refers to it.
func TestReleaseWaitsForCreate(t *testing.T) {
	t.Parallel()
	b := setup(t)
	inside, goOn := make(chan struct{}), make(chan struct{})
	resume := sync.OnceFunc(func() { close(goOn) })
	t.Cleanup(resume) // after a failure too, or the pool waits for the transaction
	slow := store.New(store.Config{Pool: b.pool, Keys: b.keys, Blobs: b.blobs, Jobs: enqueueFunc(func() {
		close(inside)
		<-goOn
	})})
	created := make(chan error, 1)
	go func() {
		created <- second(slow.CreateScan(context.Background(), b.site, actor, post("MRN-1", "bytes")))
	}()
	<-inside
	released := make(chan int, 1)
	go func() {
		n, err := b.ReleaseBlobs(context.Background(), []string{blobKey("bytes")}, b.blobs.remove)
		if err != nil {
			t.Error(err)
		}
		released <- n
	}()
	waitFor(t, "the release to wait for the lock", func() bool {
		return b.scalar(t, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())") == "1"
	})
	resume()
	if err := <-created; err != nil {
		t.Fatal(err)
	}
	if n := <-released; n != 0 {
		t.Error("removed a blob that a scan refers to")
	}
}

// TestReleaseAsksForAllAtOnce: what a sweep costs while nearly all is referred
// to, and while a back-up holds the blobs.
func TestReleaseAsksForAllAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var used, orphans []string
	for n := range 40 {
		used = append(used, b.create(t, post("MRN-1", fmt.Sprint("used ", n))).BlobKey)
		orphans = append(orphans, blobKey(fmt.Sprint("orphan ", n)))
	}
	cfg := b.pool.Config()
	asked := &queries{}
	cfg.ConnConfig.Tracer = asked
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	st := store.New(store.Config{Pool: pool, Keys: b.keys, Blobs: b.blobs})
	release := func(keys []string, want int, atMost int64) {
		t.Helper()
		asked.n.Store(0)
		n, err := st.ReleaseBlobs(t.Context(), keys, b.blobs.remove)
		if err != nil || n != want || asked.n.Load() > atMost {
			t.Errorf("%d removed of %d, with %d queries of at most %d; %v", n, want, asked.n.Load(), atMost, err)
		}
	}
	holder, err := pgx.ConnectConfig(t.Context(), b.pool.Config().ConnConfig)
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close(context.Background())
	if err := store.HoldBlobs(t.Context(), holder); err != nil {
		t.Fatal(err)
	}
	release(orphans, 0, 10)
	if err := store.LetGoOfBlobs(t.Context(), holder); err != nil {
		t.Fatal(err)
	}
	release(used, 0, 10)
	release(append(used, orphans[:2]...), 2, 30)
	b.scalar(t, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, true) RETURNING version_id")
	release(orphans[2:], 0, 10) // a newer program's rows may refer to them
}

type queries struct{ n atomic.Int64 }

func (q *queries) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	q.n.Add(1)
	return ctx
}

func (q *queries) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

type enqueueFunc func()

func (f enqueueFunc) Enqueue(context.Context, pgx.Tx, uuid.UUID, uuid.UUID) error { f(); return nil }
func (f enqueueFunc) EnqueueDecoding(context.Context, pgx.Tx, uuid.UUID, uuid.UUID) error {
	f()
	return nil
}

func waitFor(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-deadline:
			t.Fatal("no end of waiting for ", what)
		case <-tick.C:
		}
	}
}

// TestOtherSiteSeesNothing calls every method on a scan from another site.
func TestOtherSiteSeesNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	scan := b.create(t, post("MRN-1", "bytes"))
	b.run(t, scan, scored(scan, score(neuroscreen.Alzheimers, 9, neuroscreen.FlagFlagged)))
	waiting := b.create(t, post("MRN-1", "waiting"))
	lease := b.lease(t, waiting)
	_, key, err := b.CreateKey(t.Context(), b.site, actor, neuroscreen.Uploader, "")
	if err != nil {
		t.Fatal(err)
	}
	before := b.scalar(t, "SELECT jsonb_agg(s ORDER BY id)::text FROM scans s")
	ctx := t.Context()
	o := b.other

	notFound := map[string]func() error{
		"Scan":       func() error { return second(b.Scan(ctx, o, scan.ID)) },
		"StageTimes": func() error { return second(b.StageTimes(ctx, o, scan.ID)) },
		"Events":     func() error { return second(b.Events(ctx, o, scan.ID, 0)) },
		"Cancel":     func() error { return second(b.Cancel(ctx, o, actor, waiting.ID)) },
		"Retry":      func() error { return second(b.Retry(ctx, o, actor, scan.ID)) },
		"PatchMetadata": func() error {
			return second(b.PatchMetadata(ctx, o, actor, scan.ID, store.MetadataPatch{AgeYears: ptr(5.0)}))
		},
		"Erase":           func() error { return second(b.Erase(ctx, o, actor, scan.ID)) },
		"CurrentResult":   func() error { return second(b.CurrentResult(ctx, o, scan.ID)) },
		"ResultVersion":   func() error { return second(b.ResultVersion(ctx, o, scan.ID, 1)) },
		"ResultVersions":  func() error { return second(b.ResultVersions(ctx, o, scan.ID)) },
		"DerivedFile":     func() error { return second(b.DerivedFile(ctx, o, scan.ID, 0, store.KindPreview)) },
		"DerivedFile 1":   func() error { return second(b.DerivedFile(ctx, o, scan.ID, 1, store.KindPreview)) },
		"RevokeKey":       func() error { return second(b.RevokeKey(ctx, o, actor, key.ID)) },
		"Lease":           func() error { return second(b.Lease(ctx, o, waiting.ID, "w", time.Minute)) },
		"Site of nobody":  func() error { return second(b.Site(ctx, uuid.New())) },
		"Settings nobody": func() error { return second(b.AddSettings(ctx, uuid.New(), actor, 0, []byte("{}"), "why")) },
		"Key of nobody":   func() error { return second3(b.CreateKey(ctx, uuid.New(), actor, neuroscreen.Admin, "")) },
	}
	for name, call := range notFound {
		t.Run(name, func(t *testing.T) {
			if e := neuroscreen.AsError(call()); e == nil || e.Code != neuroscreen.CodeNotFound {
				t.Errorf("got %v", e)
			}
		})
	}
	fenced := map[string]func() error{
		"Renew":   func() error { return b.Renew(ctx, o, lease, time.Hour) },
		"Advance": func() error { return b.Advance(ctx, o, lease, neuroscreen.Checked) },
		"Release": func() error { return b.Release(ctx, o, lease, true, neuroscreen.Reason{Code: "x"}) },
		"Finish":  func() error { return second(b.Finish(ctx, o, lease, scored(waiting))) },
	}
	for name, call := range fenced {
		t.Run(name, func(t *testing.T) {
			if err := call(); !errors.Is(err, store.ErrFenced) {
				t.Errorf("got %v", err)
			}
		})
	}
	empty := map[string]func() (int, error){
		"FindScans": func() (int, error) { s, err := b.FindScans(ctx, o, store.ScanFilter{}); return len(s), err },
		"FindScans by subject": func() (int, error) {
			s, err := b.FindScans(ctx, o, store.ScanFilter{SubjectID: ptr("MRN-1")})
			return len(s), err
		},
		"FindScans by accession number": func() (int, error) {
			s, err := b.FindScans(ctx, o, store.ScanFilter{AccessionNumber: ptr("ACC-MRN-1")})
			return len(s), err
		},
		"Identities":   func() (int, error) { m, err := b.Identities(ctx, o, scan.ID); return len(m), err },
		"Cases":        func() (int, error) { p, err := b.Cases(ctx, o, store.CaseFilter{}); return len(p.Cases), err },
		"ListKeys":     func() (int, error) { k, err := b.ListKeys(ctx, o); return len(k), err },
		"EraseSubject": func() (int, error) { n, _, err := b.EraseSubject(ctx, o, actor, "MRN-1"); return n, err },
		"Audit": func() (int, error) {
			a, err := b.Audit(ctx, o, store.AuditFilter{Object: ptr("scan:" + scan.ID.String())})
			return len(a), err
		},
	}
	for name, call := range empty {
		t.Run(name, func(t *testing.T) {
			if n, err := call(); n != 0 || err != nil {
				t.Errorf("%d found, %v", n, err)
			}
		})
	}
	if after := b.scalar(t, "SELECT jsonb_agg(s ORDER BY id)::text FROM scans s"); after != before {
		t.Errorf("another site changed rows:\n%s\n%s", before, after)
	}
}

func second3[T, U any](_ T, _ U, err error) error { return err }

// TestStateInvariants writes around the store: the schema itself refuses.
func TestStateInvariants(t *testing.T) {
	t.Parallel()
	b := setup(t)
	scan := b.create(t, post("MRN-1", "bytes"))
	for sql, constraint := range map[string]string{
		"UPDATE scans SET state = 'done'":                                                                                  "scans_state_known",
		"UPDATE scans SET state = 'scored', finished_at = now()":                                                           "scans_scored_has_result",
		"UPDATE scans SET state = 'failed', finished_at = now()":                                                           "scans_end_has_reason",
		"UPDATE scans SET state = 'failed', reasons = '[{}]'":                                                              "scans_final_is_finished",
		"UPDATE scans SET finished_at = now()":                                                                             "scans_final_is_finished",
		"UPDATE scans SET lease_until = now()":                                                                             "scans_lease_whole",
		"UPDATE scans SET metadata = metadata || '{\"birth_date\": \"1955-02-03\"}'":                                       "scans_metadata_without_identifiers",
		"UPDATE scans SET metadata = metadata || '{\"subject_id\": \"MRN-1\"}'":                                            "scans_metadata_without_identifiers",
		"UPDATE scans SET pseudonym = 'MRN-1', metadata = '{\"subject_id\": \"MRN-1\"}'":                                   "scans_pseudonym_shape",
		"INSERT INTO links SELECT gen_random_uuid(), scan_id, accession_hash, pseudonym, 1, sealed, created_at FROM links": "links_site_id_scan_id_fkey",
	} {
		t.Run(sql, func(t *testing.T) {
			_, err := b.pool.Exec(t.Context(), sql)
			pg, ok := errors.AsType[*pgconn.PgError](err)
			if !ok || !strings.HasPrefix(pg.ConstraintName, constraint) {
				t.Errorf("got %v, want %s", err, constraint)
			}
		})
	}
	if got, err := b.Scan(t.Context(), b.site, scan.ID); err != nil || got.State != neuroscreen.Received {
		t.Errorf("%+v %v", got, err)
	}
}

func TestDatabaseAway(t *testing.T) {
	t.Parallel()
	pool, err := store.OpenPool(t.Context(), "host=/nonexistent user=x dbname=x", 1)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	s := store.New(store.Config{Pool: pool})
	for name, err := range map[string]error{
		"ping":        s.Ping(t.Context()),
		"read":        second(s.Scan(t.Context(), uuid.New(), uuid.New())),
		"transaction": s.AppendAudit(t.Context(), uuid.New(), store.AuditEntry{}),
	} {
		t.Run(name, func(t *testing.T) {
			wantCode(t, err, neuroscreen.CodeUnavailable, "database-unavailable")
		})
	}
}

// TestForgetBytes: what is left of a scan whose bytes' time is over, and how
// they come back.
func TestForgetBytes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	pair := post("MRN-1", "image")
	pair.HeaderSHA256, pair.HeaderSize, pair.HeaderBlobKey = hash("hdr"), 348, blobKey("hdr")
	pair.IdempotencyKey = "of this content" // as a gateway says again when it sends the same again
	old := b.create(t, pair)
	b.run(t, old, scored(old, score(neuroscreen.Alzheimers, 3, neuroscreen.FlagReview)))
	waiting := b.create(t, post("MRN-2", "waiting"))
	b.clock.Advance(48 * time.Hour)
	young := b.create(t, post("MRN-3", "young"))
	b.run(t, young, refused("not-t1"))

	before := b.clock.Now().Add(-24 * time.Hour)
	n, keys, err := b.ForgetBytes(t.Context(), before)
	slices.Sort(keys)
	want := []string{blobKey("image"), blobKey("hdr")}
	slices.Sort(want)
	if err != nil || n != 1 || !slices.Equal(keys, want) {
		t.Fatalf("%d scans, keys %v, %v; want %v", n, keys, err, want)
	}
	if n, keys, err := b.ForgetBytes(t.Context(), before); n != 0 || len(keys) > 0 || err != nil {
		t.Errorf("again: %d %v %v", n, keys, err)
	}
	if removed, err := b.ReleaseBlobs(t.Context(), want, b.blobs.remove); removed != 2 || err != nil {
		t.Errorf("%d files removed, %v", removed, err)
	}
	for _, other := range []store.ScanRecord{waiting, young} {
		if rec, err := b.Scan(t.Context(), b.site, other.ID); err != nil || rec.BlobKey == "" || rec.BytesRemoved != nil {
			t.Errorf("%+v %v", rec, err)
		}
	}

	t.Run("the result stays", func(t *testing.T) {
		rec, err := b.Scan(t.Context(), b.site, old.ID)
		if err != nil || rec.State != neuroscreen.Scored || rec.BytesRemoved == nil || rec.SHA256 != old.SHA256 {
			t.Errorf("%+v %v", rec, err)
		}
		if _, err := b.CurrentResult(t.Context(), b.site, old.ID); err != nil {
			t.Error(err)
		}
		if _, err := b.DerivedFile(t.Context(), b.site, old.ID, 0, store.KindPreview); err != nil {
			t.Error(err)
		}
		entries, err := b.Audit(t.Context(), b.site, store.AuditFilter{Object: ptr("scan:" + old.ID.String()), Limit: 1})
		if err != nil || entries[0].Action != "scan.forget-bytes" {
			t.Errorf("%+v %v", entries, err)
		}
	})
	t.Run("it cannot run again", func(t *testing.T) {
		_, err := b.Retry(t.Context(), b.site, actor, old.ID)
		wantCode(t, err, neuroscreen.CodeConflict, "scan-bytes-removed")
		_, err = b.PatchMetadata(t.Context(), b.site, actor, old.ID, store.MetadataPatch{AgeYears: ptr(70.0)})
		wantCode(t, err, neuroscreen.CodeConflict, "scan-bytes-removed")
	})
	t.Run("until its bytes are posted again", func(t *testing.T) {
		b.blobs.missing = map[string]bool{}
		c, err := b.CreateScan(t.Context(), b.site, actor, pair)
		if err != nil || !c.Duplicate || c.Scan.ID != old.ID || c.Scan.BlobKey != pair.BlobKey || c.Scan.HeaderBlobKey != pair.HeaderBlobKey || c.Scan.BytesRemoved != nil {
			t.Fatalf("%+v %v", c, err)
		}
		if _, err := b.Retry(t.Context(), b.site, actor, old.ID); err != nil {
			t.Error(err)
		}
	})
}

// TestIncompleteScan: what lacks age or sex is refused at once, stands in the
// worklist, and is analysed when somebody says what was missing.
func TestIncompleteScan(t *testing.T) {
	t.Parallel()
	incomplete := func(content string) store.NewScan {
		n := post("MRN-1", content)
		n.Metadata.AgeYears, n.Metadata.Sex = nil, ""
		return n
	}
	t.Run("is refused before any work", func(t *testing.T) {
		b := setup(t)
		scan := b.create(t, incomplete("bytes"))
		if scan.State != neuroscreen.Refused || len(scan.Reasons) != 2 || scan.Reasons[0].Code != "missing-age" || scan.Reasons[1].Code != "missing-sex" || b.jobs.count() != 0 {
			t.Errorf("%+v, %d jobs", scan, b.jobs.count())
		}
		events, err := b.Events(t.Context(), b.site, scan.ID, 0)
		if err != nil || len(events) != 2 || events[0].State != neuroscreen.Received || events[1].State != neuroscreen.Refused {
			t.Errorf("%+v %v", events, err)
		}
		page, err := b.Cases(t.Context(), b.site, store.CaseFilter{Group: "ended"})
		if err != nil || len(page.Cases) != 1 || page.Cases[0].Reasons[0].Code != "missing-age" {
			t.Errorf("%+v %v", page, err)
		}
		if _, err := b.Lease(t.Context(), b.site, scan.ID, "worker", time.Minute); !errors.Is(err, store.ErrFinal) {
			t.Errorf("a worker takes it up: %v", err)
		}
	})
	t.Run("a correction of one of two leaves the other", func(t *testing.T) {
		b := setup(t)
		scan := b.create(t, incomplete("bytes"))
		rec, err := b.PatchMetadata(t.Context(), b.site, actor, scan.ID, store.MetadataPatch{AgeYears: ptr(71.0)})
		if err != nil || rec.State != neuroscreen.Refused || len(rec.Reasons) != 1 || rec.Reasons[0].Code != "missing-sex" || b.jobs.count() != 0 {
			t.Fatalf("%+v %v", rec, err)
		}
		rec, err = b.PatchMetadata(t.Context(), b.site, actor, scan.ID, store.MetadataPatch{Sex: ptr(neuroscreen.Male)})
		if err != nil || rec.State != neuroscreen.Received || len(rec.Reasons) != 0 || b.jobs.count() != 1 {
			t.Fatalf("%+v %v", rec, err)
		}
		b.run(t, rec, scored(rec))
	})
	t.Run("trying again does not help", func(t *testing.T) {
		b := setup(t)
		scan := b.create(t, incomplete("bytes"))
		if rec, err := b.Retry(t.Context(), b.site, actor, scan.ID); err != nil || rec.State != neuroscreen.Refused || b.jobs.count() != 0 {
			t.Errorf("%+v %v", rec, err)
		}
	})
	t.Run("the same scan with what was missing is analysed", func(t *testing.T) {
		b := setup(t)
		scan := b.create(t, incomplete("bytes"))
		var all sync.WaitGroup
		for range 4 { // and once only
			all.Go(func() {
				c, err := b.CreateScan(t.Context(), b.site, actor, post("MRN-1", "bytes"))
				if err != nil || !c.Duplicate || c.Scan.ID != scan.ID || c.Scan.State != neuroscreen.Received {
					t.Errorf("%+v %v", c, err)
				}
			})
		}
		all.Wait()
		rec, err := b.Scan(t.Context(), b.site, scan.ID)
		if err != nil || rec.Run != 2 || *rec.Metadata.AgeYears != 71 || rec.Metadata.Sex != neuroscreen.Female || b.jobs.count() != 1 {
			t.Errorf("%+v %v, %d jobs", rec, err, b.jobs.count())
		}
	})
	t.Run("the same scan without is the same refusal", func(t *testing.T) {
		b := setup(t)
		scan := b.create(t, incomplete("bytes"))
		if again := b.create(t, incomplete("bytes")); again.ID != scan.ID || again.Run != 1 || again.State != neuroscreen.Refused {
			t.Errorf("%+v", again)
		}
	})
	t.Run("what is known is not replaced by a repeated post", func(t *testing.T) {
		b := setup(t)
		n := incomplete("bytes")
		n.Metadata.AgeYears = ptr(60.0)
		b.create(t, n)
		if again := b.create(t, post("MRN-1", "bytes")); *again.Metadata.AgeYears != 60 || again.Metadata.Sex != neuroscreen.Female {
			t.Errorf("%+v", again.Metadata)
		}
	})
}
