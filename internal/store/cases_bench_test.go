package store_test

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"neuroscreen"
	"neuroscreen/internal/store"
)

// BenchmarkCases reads pages of a worklist of NEUROSCREEN_BENCH_CASES cases
// (10,000 unless told otherwise; 1,000,000 takes minutes to fill) and reports
// each listing's 95th percentile.
func BenchmarkCases(b *testing.B) {
	n := 10_000
	if s := os.Getenv("NEUROSCREEN_BENCH_CASES"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			b.Fatal(err)
		}
	}
	s := setup(b)
	fillWorklist(b, s, n)
	for _, c := range []struct {
		name   string
		filter store.CaseFilter
	}{
		{"worst", store.CaseFilter{}},
		{"newest", store.CaseFilter{Sort: store.NewestFirst}},
		{"flagged", store.CaseFilter{Flag: ptr(neuroscreen.FlagFlagged)}},
		{"flagged newest", store.CaseFilter{Flag: ptr(neuroscreen.FlagFlagged), Sort: store.NewestFirst}},
		{"no flag newest", store.CaseFilter{Flag: ptr(neuroscreen.FlagNone), Sort: store.NewestFirst}},
		{"rare condition flagged", store.CaseFilter{Condition: ptr(neuroscreen.MesialTemporalSclerosis), Flag: ptr(neuroscreen.FlagFlagged)}},
		{"condition", store.CaseFilter{Condition: ptr(neuroscreen.Alzheimers)}},
		{"condition and rare scanner", store.CaseFilter{Condition: ptr(neuroscreen.Alzheimers), Scanner: ptr("rare")}},
		{"refused", store.CaseFilter{State: ptr(neuroscreen.Refused)}},
		{"refused newest", store.CaseFilter{State: ptr(neuroscreen.Refused), Sort: store.NewestFirst}},
		{"in progress", store.CaseFilter{State: ptr(neuroscreen.Received)}},
		{"scanner", store.CaseFilter{Scanner: ptr("scanner 3")}},
		{"rare scanner", store.CaseFilter{Scanner: ptr("rare")}},
		{"rare scanner newest", store.CaseFilter{Scanner: ptr("rare"), Sort: store.NewestFirst}},
		{"rare scanner and flag", store.CaseFilter{Scanner: ptr("rare"), Flag: ptr(neuroscreen.FlagFlagged)}},
		{"one day", store.CaseFilter{ReceivedFrom: ptr(benchEnd.Add(-100 * 24 * time.Hour)), ReceivedBefore: ptr(benchEnd.Add(-99 * 24 * time.Hour))}},
		{"one day flagged", store.CaseFilter{Flag: ptr(neuroscreen.FlagFlagged), ReceivedFrom: ptr(benchEnd.Add(-100 * 24 * time.Hour)), ReceivedBefore: ptr(benchEnd.Add(-99 * 24 * time.Hour))}},
		{"subject", store.CaseFilter{SubjectID: ptr("nobody")}},
	} {
		b.Run(c.name, func(b *testing.B) {
			var took []time.Duration
			f := c.filter
			for b.Loop() {
				start := time.Now()
				page, err := s.Cases(b.Context(), s.site, f)
				if err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(start))
				f.Cursor = page.NextCursor // walks deeper, and begins again at the end
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)*95/100].Microseconds())/1000, "p95-ms")
		})
	}
}

var benchEnd = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

// fillWorklist writes rows as the store would: three years of scans at one
// site, of which 4 % flagged, 8 % review, 3 % refused or failed.
func fillWorklist(b *testing.B, s *bundle, n int) {
	b.Helper()
	conn, err := s.pool.Acquire(b.Context()) // one session, for the temporary table
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Release()
	for _, sql := range []string{`
		CREATE TEMP TABLE made AS
		SELECT i, gen_random_uuid() AS id, $2::timestamptz - (i * interval '3 years' / $3) AS at,
		       CASE WHEN i % 5000 = 0 THEN 'rare' ELSE 'scanner ' || i % 8 END AS scanner,
		       CASE WHEN i % 100 < 4 THEN 0 WHEN i % 100 < 12 THEN 1 WHEN i % 100 < 15 THEN 2 WHEN i % 10000 = 99 THEN 3
		            WHEN i % 100 < 20 THEN 5 WHEN i % 100 = 20 THEN 6 ELSE 4 END AS severity,
		       'p-' || left(md5(i::text), 26) AS pseudonym
		FROM generate_series(1, $3::int) i WHERE $1::uuid IS NOT NULL`, `
		ALTER TABLE scans DISABLE TRIGGER ALL`, `
		INSERT INTO scans (site_id, id, pseudonym, metadata, sha256, size_bytes, blob_key, state, reasons, result_version, created_at, updated_at, finished_at)
		SELECT $1, id, pseudonym, jsonb_build_object('subject_id', pseudonym, 'age_years', 50 + i % 40, 'sex', 'F', 'modality', 'T1w', 'scanner', scanner),
		       sha256(i::text::bytea), 10000000, md5(i::text),
		       CASE severity WHEN 2 THEN 'refused' WHEN 3 THEN 'received' WHEN 6 THEN 'cancelled' ELSE 'scored' END,
		       CASE WHEN severity IN (2, 6) THEN '[{"code": "not-a-brain", "text": "because"}]' ELSE '[]' END::jsonb,
		       CASE WHEN severity IN (2, 3, 6) THEN 0 ELSE 1 END, at, at, CASE WHEN severity = 3 THEN NULL ELSE at END
		FROM made WHERE $2::timestamptz IS NOT NULL AND $3::int > 0`, `
		INSERT INTO cases (site_id, condition, scan_id, pseudonym, severity, received_at, state, flag, worst_condition, likelihood_ratio, scanner)
		SELECT $1, '', id, pseudonym, severity, at, CASE severity WHEN 2 THEN 'refused' WHEN 3 THEN 'received' WHEN 6 THEN 'cancelled' ELSE 'scored' END,
		       CASE severity WHEN 0 THEN 'flagged' WHEN 1 THEN 'review' WHEN 4 THEN 'none' WHEN 5 THEN 'none' END,
		       CASE WHEN severity IN (0, 1, 4) THEN 'alzheimers' END, CASE WHEN severity IN (0, 1, 4) THEN 1.0 END, scanner
		FROM made WHERE $2::timestamptz IS NOT NULL AND $3::int > 0`, `
		INSERT INTO cases (site_id, condition, scan_id, pseudonym, severity, received_at, state, flag, worst_condition, likelihood_ratio, scanner)
		SELECT $1, c, id, pseudonym, sev, at, 'scored', CASE sev WHEN 0 THEN 'flagged' WHEN 1 THEN 'review' ELSE 'none' END, c, 1.0, scanner
		FROM (SELECT *, CASE WHEN c = 'mesial_temporal_sclerosis' THEN CASE WHEN i % 2000 = 1 THEN 0 ELSE 4 END ELSE severity END AS sev
		      FROM made, unnest(ARRAY['alzheimers', 'parkinsons', 'mesial_temporal_sclerosis']) c WHERE severity NOT IN (2, 3, 6)) x
		WHERE $2::timestamptz IS NOT NULL AND $3::int > 0`, `
		ALTER TABLE scans ENABLE TRIGGER ALL`, `
		DROP TABLE made`, `
		ANALYZE`} {
		var args []any
		if slices.Contains([]byte(sql), '$') {
			args = []any{s.site, benchEnd, n}
		}
		if _, err := conn.Exec(b.Context(), sql, args...); err != nil {
			b.Fatal(fmt.Errorf("%s: %w", sql, err))
		}
	}
}
