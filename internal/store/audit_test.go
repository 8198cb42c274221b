package store_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"

	"neuroscreen"
	"neuroscreen/internal/pgtest"
	"neuroscreen/internal/store"
	"neuroscreen/migrations"
)

func TestAudit(t *testing.T) {
	t.Parallel()
	b := setup(t)
	scan := b.create(t, post("MRN-1", "bytes"))
	object := "scan:" + scan.ID.String()
	if err := b.AppendAudit(t.Context(), b.site, store.AuditEntry{Actor: "key-2", Action: "result.read", Object: object}); err != nil {
		t.Fatal(err)
	}
	b.run(t, scan, scored(scan))
	if _, err := b.PatchMetadata(t.Context(), b.site, actor, scan.ID, store.MetadataPatch{AgeYears: ptr(60.0)}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Cancel(t.Context(), b.site, actor, scan.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Retry(t.Context(), b.site, actor, scan.ID); err != nil {
		t.Fatal(err)
	}
	b.run(t, scan, refused("not-t1"))

	entries, err := b.Audit(t.Context(), b.site, store.AuditFilter{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, fmt.Sprintf("%d %s %s", e.Seq, e.Actor, e.Action))
	}
	want := "8 system:worker scan.refused|7 key-1 scan.retry|6 key-1 scan.cancel|5 key-1 scan.correct|4 system:worker result.store|3 key-2 result.read|2 key-1 scan.create|1 system:worker site.create"
	if strings.Join(got, "|") != want {
		t.Errorf("got  %s\nwant %s", strings.Join(got, "|"), want)
	}
	for name, c := range map[string]struct {
		filter store.AuditFilter
		want   int
	}{
		"of an object": {store.AuditFilter{Object: &object}, 7},
		"of a scan":    {store.AuditFilter{ScanID: &scan.ID}, 7},
		"by an actor":  {store.AuditFilter{Actor: ptr(store.Actor("key-2"))}, 1},
		"older":        {store.AuditFilter{Before: 4}, 3},
		"limited":      {store.AuditFilter{Limit: 2}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			found, err := b.Audit(t.Context(), b.site, c.filter)
			if err != nil || len(found) != c.want {
				t.Errorf("%d entries, want %d; %v", len(found), c.want, err)
			}
		})
	}
}

// TestAuditOfLists: what a list showed of a scan is found under the scan, at
// its own site, beside what was done with it alone.
func TestAuditOfLists(t *testing.T) {
	t.Parallel()
	b := setup(t)
	one, two := uuid.New(), uuid.New()
	for _, e := range []store.AuditEntry{
		{Action: "scan.read", Object: "scan:" + one.String()},
		{Action: "cases.list", Object: "cases", Scans: []uuid.UUID{two, one}},
		{Action: "cases.list", Object: "cases", Scans: []uuid.UUID{two}},
		{Action: "cases.list", Object: "cases"},
		{Action: "cases.list", Object: "cases", Scans: []uuid.UUID{one}, Actor: "key-2"},
	} {
		if e.Actor == "" {
			e.Actor = actor
		}
		if err := b.AppendAudit(t.Context(), b.site, e); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		site   uuid.UUID
		filter store.AuditFilter
		want   string
	}{
		"one":               {b.site, store.AuditFilter{ScanID: &one}, "6 [one] 3 [two one] 2 []"},
		"the other":         {b.site, store.AuditFilter{ScanID: &two}, "4 [two] 3 [two one]"},
		"by whom":           {b.site, store.AuditFilter{ScanID: &one, Actor: ptr(store.Actor("key-2"))}, "6 [one]"},
		"a page":            {b.site, store.AuditFilter{ScanID: &one, Before: 6, Limit: 1}, "3 [two one]"},
		"at another site":   {b.other, store.AuditFilter{ScanID: &one}, ""},
		"of a list of none": {b.site, store.AuditFilter{Object: ptr("cases"), Before: 6, Limit: 1}, "5 []"},
	} {
		t.Run(name, func(t *testing.T) {
			entries, err := b.Audit(t.Context(), c.site, c.filter)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, e := range entries {
				got = append(got, strings.NewReplacer(one.String(), "one", two.String(), "two").Replace(fmt.Sprint(e.Seq, e.Scans)))
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("got %s, want %s", strings.Join(got, " "), c.want)
			}
		})
	}
	if n, err := b.VerifyAudit(t.Context(), b.site); n != 6 || err != nil {
		t.Errorf("%d %v", n, err)
	}
}

// TestAuditFromBefore: entries that were written before they could name scans
// are as they were after the migration, and go on with those that do.
func TestAuditFromBefore(t *testing.T) {
	t.Parallel()
	b := setup(t)
	db := pgtest.Empty(t)
	pool, err := store.OpenPool(t.Context(), db, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	if err := migrations.To(t.Context(), pool, migrations.Versions{Schema: 35}); err != nil {
		t.Fatal(err)
	}
	site := uuid.New()
	if _, err := pool.Exec(t.Context(), "INSERT INTO sites (id, name, created_at) VALUES ($1, 'old', now())", site); err != nil {
		t.Fatal(err)
	}
	var head []byte
	for seq := range 3 {
		seq++
		at, object := b.clock.Now(), fmt.Sprint("scan:", uuid.New())
		var text []byte
		field := func(v []byte) { text = append(binary.BigEndian.AppendUint64(text, uint64(len(v))), v...) }
		field(head)
		text = binary.BigEndian.AppendUint64(text, uint64(seq))
		text = binary.BigEndian.AppendUint64(text, uint64(at.UnixMicro()))
		for _, v := range []string{string(actor), "scan.read", object, "old"} {
			field([]byte(v))
		}
		head = b.keys.MAC(site, "audit", text)
		if _, err := pool.Exec(t.Context(), "INSERT INTO audit (site_id, seq, at, actor, action, object, details, hash) VALUES ($1, $2, $3, $4, 'scan.read', $5, 'old', $6)",
			site, seq, at, string(actor), object, head); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := pool.Exec(t.Context(), "INSERT INTO audit_heads (site_id, seq, hash) VALUES ($1, 3, $2)", site, head); err != nil {
		t.Fatal(err)
	}
	if err := migrations.Up(t.Context(), pool); err != nil {
		t.Fatal(err)
	}
	s := store.New(store.Config{Pool: pool, Keys: b.keys, Jobs: b.jobs, Blobs: b.blobs, Now: b.clock.Now})
	for want := int64(3); want < 5; want++ {
		if n, err := s.VerifyAudit(t.Context(), site); n != want || err != nil {
			t.Errorf("%d entries, want %d: %v", n, want, err)
		}
		if err := s.AppendAudit(t.Context(), site, store.AuditEntry{Actor: actor, Action: "cases.list", Object: "cases", Scans: []uuid.UUID{uuid.New()}}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestVerifyAudit(t *testing.T) {
	t.Parallel()
	const entries = 6 // site.create and five
	fill := func(t *testing.T, b *bundle) {
		t.Helper()
		var wg sync.WaitGroup
		for range entries - 1 {
			wg.Go(func() {
				if err := b.AppendAudit(context.Background(), b.site, store.AuditEntry{Actor: actor, Action: "cases.list", Object: "cases", Scans: []uuid.UUID{uuid.New(), uuid.New()}}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
	t.Run("an untouched chain holds", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		fill(t, b)
		if n, err := b.VerifyAudit(t.Context(), b.site); n != entries || err != nil {
			t.Errorf("%d %v", n, err)
		}
		if n, err := b.VerifyAudit(t.Context(), b.other); n != 1 || err != nil {
			t.Errorf("other site: %d %v", n, err)
		}
	})
	for name, c := range map[string]struct{ sql, want string }{
		"actor changed":   {"UPDATE audit SET actor = 'someone' WHERE seq = 3 AND site_id = $1", "audit entry 3 was changed"},
		"action changed":  {"UPDATE audit SET action = 'x' WHERE seq = 3 AND site_id = $1", "audit entry 3 was changed"},
		"object changed":  {"UPDATE audit SET object = 'x' WHERE seq = 3 AND site_id = $1", "audit entry 3 was changed"},
		"details changed": {"UPDATE audit SET details = 'x' WHERE seq = 3 AND site_id = $1", "audit entry 3 was changed"},
		"scan changed":    {"UPDATE audit SET scan_ids = ARRAY[gen_random_uuid(), scan_ids[2]] WHERE seq = 3 AND site_id = $1", "audit entry 3 was changed"},
		"scan taken out":  {"UPDATE audit SET scan_ids = scan_ids[1:1] WHERE seq = 3 AND site_id = $1", "audit entry 3 was changed"},
		"scans taken out": {"UPDATE audit SET scan_ids = NULL WHERE seq = 3 AND site_id = $1", "audit entry 3 was changed"},
		"scan put in":     {"UPDATE audit SET scan_ids = ARRAY[gen_random_uuid()] WHERE seq = 1 AND site_id = $1", "audit entry 1 was changed"},
		"time changed":    {"UPDATE audit SET at = at + interval '1 microsecond' WHERE seq = 1 AND site_id = $1", "audit entry 1 was changed"},
		"moved a letter":  {"UPDATE audit SET action = 'cases.lis', object = 't' || object WHERE seq = 2 AND site_id = $1", "audit entry 2 was changed"},
		"one deleted":     {"DELETE FROM audit WHERE seq = 3 AND site_id = $1", "audit entry 3 is missing"},
		"last deleted":    {"DELETE FROM audit WHERE seq = 6 AND site_id = $1", "audit entry 6 is missing"},
		"one appended":    {"INSERT INTO audit SELECT site_id, 7, at, actor, action, object, details, hash FROM audit WHERE seq = 6 AND site_id = $1", "audit entry 7 was changed"},
		"all deleted":     {"DELETE FROM audit WHERE site_id = $1", "audit entry 1 is missing"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			fill(t, b)
			for _, sql := range []string{"ALTER TABLE audit DISABLE TRIGGER audit_written_once", c.sql} {
				args := []any{b.site}[:strings.Count(sql, "$1")]
				if tag, err := b.pool.Exec(t.Context(), sql, args...); err != nil || strings.Contains(sql, "$1") && tag.RowsAffected() == 0 {
					t.Fatal(sql, tag, err)
				}
			}
			_, err := b.VerifyAudit(t.Context(), b.site)
			wantCode(t, err, neuroscreen.CodeConflict, "audit-broken")
			if err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// TestAuditAtOnce: reads and changes at the same time make one chain, and no
// connection stays in its transaction.
func TestAuditAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const each = 10
	var all sync.WaitGroup
	for n := range each {
		all.Go(func() {
			if err := b.AppendAudit(t.Context(), b.site, store.AuditEntry{Actor: actor, Action: "cases.list", Object: "cases"}); err != nil {
				t.Error(err)
			}
		})
		all.Go(func() {
			if _, err := b.CreateScan(t.Context(), b.site, actor, post(fmt.Sprint("MRN-", n), "bytes")); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := b.scalar(t, "SELECT count(*) FROM audit WHERE site_id = $1 AND action IN ('cases.list', 'scan.create')", b.site); n != fmt.Sprint(2*each) {
		t.Errorf("%s entries", n)
	}
	if _, err := b.VerifyAudit(t.Context(), b.site); err != nil {
		t.Error(err)
	}
	// A failure in the middle leaves nothing behind.
	if _, err := b.pool.Exec(t.Context(), "ALTER TABLE audit ADD CONSTRAINT no_reads CHECK (action <> 'fails')"); err != nil {
		t.Fatal(err)
	}
	for range 2 * int(b.pool.Config().MaxConns) {
		if err := b.AppendAudit(t.Context(), b.site, store.AuditEntry{Actor: actor, Action: "fails", Object: "cases"}); err == nil {
			t.Error("no error")
		}
	}
	if err := b.AppendAudit(t.Context(), b.site, store.AuditEntry{Actor: actor, Action: "cases.list", Object: "cases"}); err != nil {
		t.Error(err)
	}
	if n, err := b.VerifyAudit(t.Context(), b.site); err != nil || n != 2*each+2 {
		t.Errorf("%d entries, %v", n, err)
	}
}
