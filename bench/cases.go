package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"neuroscreen"
	"neuroscreen/internal/blob"
	"neuroscreen/internal/client"
	"neuroscreen/internal/deid"
	"neuroscreen/internal/jobs"
	"neuroscreen/internal/pgembed"
	"neuroscreen/internal/store"
	"neuroscreen/migrations"
)

// deployment is a database of its own with a store on it.
type deployment struct {
	dir     string
	cluster *pgembed.Cluster
	pool    *pgxpool.Pool
	store   *store.Store
	blobs   *blob.Files
	keys    *deid.Keys
	secret  string
	site    uuid.UUID
}

// deploy makes one with a site. Settings are Postgres'.
func deploy(ctx context.Context, settings map[string]string) (d *deployment, err error) {
	d = &deployment{secret: strings.Repeat("5a", deid.SecretSize)}
	defer func() {
		if err != nil {
			d.remove()
		}
	}()
	if d.dir, err = os.MkdirTemp("/var/tmp", "neuroscreen-load-"); err != nil { // see serve
		return d, err
	}
	if err := os.Chmod(d.dir, 0o755); err != nil {
		return d, err
	}
	if err := os.MkdirAll(d.data(), 0o711); err != nil {
		return d, err
	}
	if d.cluster, err = pgembed.Start(ctx, pgembed.Options{Dir: filepath.Join(d.data(), "postgres"), Settings: settings}); err != nil {
		return d, err
	}
	if d.pool, err = store.OpenPool(ctx, d.cluster.ConnString(), 20); err != nil {
		return d, err
	}
	if err := migrations.Up(ctx, d.pool); err != nil {
		return d, err
	}
	if d.keys, err = deid.New(d.secret); err != nil {
		return d, err
	}
	if d.blobs, err = blob.OpenFiles(filepath.Join(d.data(), "blobs")); err != nil {
		return d, err
	}
	queue, err := jobs.NewEnqueuer(d.pool)
	if err != nil {
		return d, err
	}
	d.store = store.New(store.Config{Pool: d.pool, Keys: d.keys, Jobs: queue, Blobs: d.blobs})
	if err := d.store.CheckSecret(ctx); err != nil {
		return d, err
	}
	site, _, err := d.store.EnsureSite(ctx, "default")
	d.site = site.ID
	return d, err
}

func (d *deployment) remove() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var errs []error
	if d.pool != nil {
		d.pool.Close()
	}
	if d.cluster != nil {
		errs = append(errs, d.cluster.Stop(ctx))
	}
	if d.blobs != nil {
		errs = append(errs, d.blobs.Close())
	}
	return errors.Join(append(errs, os.RemoveAll(d.dir))...)
}

// fill writes cases as the store would: three years of scans at one site, of
// which 4 % are flagged, 8 % to be reviewed, 3 % refused or failed; most of
// those older than a month were decided on, and twenty are open at somebody's.
func (d *deployment) fill(ctx context.Context, cases int, reader uuid.UUID) error {
	var indexes []struct{ Name, Definition string }
	r, err := d.pool.Query(ctx, "SELECT indexname AS name, indexdef AS definition FROM pg_indexes WHERE tablename IN ('cases', 'scans', 'links') AND indexname NOT LIKE '%pkey' AND indexdef NOT LIKE '%UNIQUE%'")
	if err != nil {
		return err
	}
	if indexes, err = pgx.CollectRows(r, pgx.RowToStructByName[struct{ Name, Definition string }]); err != nil {
		return err
	}
	var steps []string
	for _, i := range indexes { // made at the end, which is faster
		steps = append(steps, "DROP INDEX "+i.Name)
	}
	steps = append(steps, `
		CREATE UNLOGGED TABLE made AS
		SELECT i, gen_random_uuid() AS id, now() - (i * interval '3 years' / @cases) AS at,
		       CASE WHEN i % 5000 = 0 THEN 'rare' ELSE 'scanner ' || i % 8 END AS scanner,
		       CASE WHEN i % 100 < 4 THEN 0 WHEN i % 100 < 12 THEN 1 WHEN i % 100 < 15 THEN 2 WHEN i % 10000 = 99 THEN 3
		            WHEN i % 100 < 20 THEN 5 WHEN i % 100 = 20 THEN 6 ELSE 4 END AS severity,
		       CASE WHEN i % 50000 = 7 THEN @regular ELSE 'p-' || left(md5(i::text), 26) END AS pseudonym,
		       CASE WHEN i > @cases / 36 AND i % 10 < 9 AND i % 100 <> 20 AND i % 10000 <> 99 THEN 'accept' END AS decision
		FROM generate_series(1, @cases) i`, `
		ALTER TABLE scans DISABLE TRIGGER ALL`, `
		ALTER TABLE cases DISABLE TRIGGER ALL`, `
		ALTER TABLE reviews DISABLE TRIGGER ALL`, `
		INSERT INTO scans (site_id, id, pseudonym, metadata, sha256, size_bytes, blob_key, state, reasons, result_version, created_at, updated_at, finished_at)
		SELECT @site, id, pseudonym, jsonb_build_object('subject_id', pseudonym, 'age_years', 50 + i % 40, 'sex', 'F', 'modality', 'T1w', 'scanner', scanner),
		       sha256(i::text::bytea), 10000000, md5(i::text),
		       CASE severity WHEN 2 THEN 'refused' WHEN 3 THEN 'received' WHEN 6 THEN 'cancelled' ELSE 'scored' END,
		       CASE WHEN severity IN (2, 6) THEN '[{"code": "not-a-brain", "text": "because"}]' ELSE '[]' END::jsonb,
		       CASE WHEN severity IN (2, 3, 6) THEN 0 ELSE 1 END, at, at, CASE WHEN severity = 3 THEN NULL ELSE at END
		FROM made`, `
		INSERT INTO cases (site_id, condition, scan_id, pseudonym, severity, received_at, state, flag, worst_condition, likelihood_ratio, scanner, why, quality, decision, changed_at)
		SELECT @site, '', id, pseudonym, severity, at, CASE severity WHEN 2 THEN 'refused' WHEN 3 THEN 'received' WHEN 6 THEN 'cancelled' ELSE 'scored' END,
		       CASE severity WHEN 0 THEN 'flagged' WHEN 1 THEN 'review' WHEN 4 THEN 'none' WHEN 5 THEN 'none' END,
		       CASE WHEN severity IN (0, 1, 4) THEN 'alzheimers' END, CASE WHEN severity IN (0, 1, 4) THEN 1.0 END, scanner,
		       'Both hippocampi are smaller than expected.', CASE WHEN severity IN (0, 1, 4, 5) THEN 'pass' END, decision, at
		FROM made`, `
		INSERT INTO cases (site_id, condition, scan_id, pseudonym, severity, received_at, state, flag, worst_condition, likelihood_ratio, scanner, decision, changed_at)
		SELECT @site, c, id, pseudonym, sev, at, 'scored', CASE sev WHEN 0 THEN 'flagged' WHEN 1 THEN 'review' ELSE 'none' END, c, 1.0, scanner, decision, at
		FROM (SELECT *, CASE WHEN c = 'mesial_temporal_sclerosis' THEN CASE WHEN i % 2000 = 1 THEN 0 ELSE 4 END ELSE severity END AS sev
		      FROM made, unnest(ARRAY['alzheimers', 'parkinsons', 'mesial_temporal_sclerosis']) c WHERE severity NOT IN (2, 3, 6)) x`, `
		INSERT INTO reviews (site_id, scan_id, seq, run, result_version, key_id, decision, sealed, at)
		SELECT @site, id, 1, 1, CASE WHEN severity = 2 THEN 0 ELSE 1 END, @reader, decision, '\x00', at + interval '1 hour'
		FROM made WHERE decision IS NOT NULL`, `
		INSERT INTO holds (site_id, scan_id, key_id, since, until)
		SELECT @site, id, @reader, now(), now() + interval '1 hour' FROM made WHERE severity IN (0, 1) AND decision IS NULL ORDER BY i LIMIT 20`, `
		ALTER TABLE scans ENABLE TRIGGER ALL`, `
		ALTER TABLE cases ENABLE TRIGGER ALL`, `
		ALTER TABLE reviews ENABLE TRIGGER ALL`)
	args := pgx.NamedArgs{"site": d.site, "cases": cases, "reader": reader, "regular": d.keys.Pseudonym(d.site, regular)}
	if err := d.each(ctx, steps, args); err != nil {
		return err
	}
	if err := d.fillLinks(ctx); err != nil {
		return fmt.Errorf("links: %w", err)
	}
	steps = []string{"DROP TABLE made"}
	for _, i := range indexes {
		steps = append(steps, i.Definition)
	}
	return d.each(ctx, append(steps, "VACUUM ANALYZE", "CHECKPOINT"), nil)
}

func (d *deployment) each(ctx context.Context, steps []string, args pgx.NamedArgs) error {
	for _, sql := range steps {
		var given []any
		if strings.Contains(sql, "@") {
			given = []any{args}
		}
		if _, err := d.pool.Exec(ctx, sql, given...); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	return nil
}

// regular is a person with some twenty scans.
const regular = "MRN 7"

// fillLinks seals an identifier for each scan, as an intake does.
func (d *deployment) fillLinks(ctx context.Context) error {
	conn, err := d.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	made, err := d.pool.Query(ctx, "SELECT id, pseudonym, at FROM made")
	if err != nil {
		return err
	}
	defer made.Close()
	source := pgx.CopyFromFunc(func() ([]any, error) {
		if !made.Next() {
			return nil, made.Err()
		}
		var id uuid.UUID
		var pseudonym string
		var at time.Time
		if err := made.Scan(&id, &pseudonym, &at); err != nil {
			return nil, err
		}
		plain, err := json.Marshal(store.Identity{SubjectID: "MRN of " + pseudonym})
		if err != nil {
			return nil, err
		}
		return []any{d.site, id, []byte{}, pseudonym, d.keys.Seal(d.site, id.String()+"/"+pseudonym, plain), at}, nil
	})
	_, err = conn.Conn().CopyFrom(ctx, pgx.Identifier{"links"}, []string{"site_id", "scan_id", "accession_hash", "pseudonym", "sealed", "created_at"}, source)
	return err
}

// listings are what readers ask of a worklist, the rare and the awkward too.
func listings() []listing {
	some := func(v time.Duration) *time.Time { t := time.Now().Add(-v).UTC().Truncate(24 * time.Hour); return &t }
	const day = 24 * time.Hour
	return []listing{
		{"open, worst first: the page", store.CaseFilter{Review: store.OpenCases}},
		{"open and flagged", store.CaseFilter{Review: store.OpenCases, Group: "flagged"}},
		{"open, nothing found", store.CaseFilter{Review: store.OpenCases, Group: "clear"}},
		{"open, newest first", store.CaseFilter{Review: store.OpenCases, Sort: store.NewestFirst}},
		{"open, oldest first", store.CaseFilter{Review: store.OpenCases, Sort: store.OldestFirst}},
		{"decided", store.CaseFilter{Review: store.DecidedCases}},
		{"decided, newest first", store.CaseFilter{Review: store.DecidedCases, Sort: store.NewestFirst}},
		{"all, worst first", store.CaseFilter{}},
		{"all, newest first", store.CaseFilter{Sort: store.NewestFirst}},
		{"flagged", store.CaseFilter{Flag: ptr(neuroscreen.FlagFlagged)}},
		{"flagged, newest first", store.CaseFilter{Flag: ptr(neuroscreen.FlagFlagged), Sort: store.NewestFirst}},
		{"no flag, newest first", store.CaseFilter{Flag: ptr(neuroscreen.FlagNone), Sort: store.NewestFirst}},
		{"a rare condition, flagged", store.CaseFilter{Condition: ptr(neuroscreen.MesialTemporalSclerosis), Flag: ptr(neuroscreen.FlagFlagged)}},
		{"a condition", store.CaseFilter{Condition: ptr(neuroscreen.Alzheimers)}},
		{"a condition and a rare scanner", store.CaseFilter{Condition: ptr(neuroscreen.Alzheimers), Scanner: ptr("rare")}},
		{"refused", store.CaseFilter{State: ptr(neuroscreen.Refused)}},
		{"refused, newest first", store.CaseFilter{State: ptr(neuroscreen.Refused), Sort: store.NewestFirst}},
		{"in progress", store.CaseFilter{State: ptr(neuroscreen.Received)}},
		{"a scanner", store.CaseFilter{Scanner: ptr("scanner 3")}},
		{"a rare scanner", store.CaseFilter{Scanner: ptr("rare")}},
		{"a rare scanner, newest first", store.CaseFilter{Scanner: ptr("rare"), Sort: store.NewestFirst}},
		{"a rare scanner, flagged", store.CaseFilter{Scanner: ptr("rare"), Flag: ptr(neuroscreen.FlagFlagged)}},
		{"a rare scanner, open", store.CaseFilter{Scanner: ptr("rare"), Review: store.OpenCases}},
		{"one day", store.CaseFilter{ReceivedFrom: some(100 * day), ReceivedBefore: some(99 * day)}},
		{"one day, flagged", store.CaseFilter{Flag: ptr(neuroscreen.FlagFlagged), ReceivedFrom: some(100 * day), ReceivedBefore: some(99 * day)}},
		{"a person", store.CaseFilter{SubjectID: ptr(regular)}},
		{"nobody", store.CaseFilter{SubjectID: ptr("nobody")}},
	}
}

type listing struct {
	name   string
	filter store.CaseFilter
}

func ptr[T any](v T) *T { return &v }

// query is the listing as the address of GET /v1/cases.
func (l listing) query() string {
	q := url.Values{}
	f := l.filter
	set := func(name, value string) {
		if value != "" {
			q.Set(name, value)
		}
	}
	set("review", string(f.Review))
	set("group", f.Group)
	set("sort", string(f.Sort))
	set("cursor", f.Cursor)
	if f.Flag != nil {
		set("flag", string(*f.Flag))
	}
	if f.Condition != nil {
		set("condition", string(*f.Condition))
	}
	if f.State != nil {
		set("state", string(*f.State))
	}
	if f.Scanner != nil {
		set("scanner", *f.Scanner)
	}
	if f.SubjectID != nil {
		set("subject_id", *f.SubjectID)
	}
	if f.ReceivedFrom != nil {
		set("received_from", f.ReceivedFrom.Format(time.DateOnly))
	}
	if f.ReceivedBefore != nil {
		set("received_to", f.ReceivedBefore.AddDate(0, 0, -1).Format(time.DateOnly))
	}
	return q.Encode()
}

const pagesRead = 120 // of each listing, one after the other, and from its start again after its end

// caseTable fills a worklist, reads every listing of it from the store and
// from a server, and shows how Postgres walks to a page.
func caseTable(bin string, cases int) (_ string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	d, err := deploy(ctx, map[string]string{"max_wal_size": "8GB", "maintenance_work_mem": "512MB"})
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, d.remove()) }()
	secret, reader, err := d.store.CreateKey(ctx, d.site, store.System, neuroscreen.Admin, "reader")
	if err != nil {
		return "", err
	}
	log.Printf("making %d cases", cases)
	if err := d.fill(ctx, cases, reader.ID); err != nil {
		return "", err
	}
	address, _, server, err := start(ctx, bin, d.data(), func() (string, error) { return secret, nil }, d.env(), "--role", "api")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, end(server)) }()
	log.Print("reading them")
	var b strings.Builder
	fmt.Fprintf(&b, "%d cases of three years at one site, pages of 50 lines, %d pages of each listing:\n\n", cases, pagesRead)
	b.WriteString("| listing | from the store, p95 | over HTTP, p95 | Postgres' walk through `cases` | blocks |\n|---|---|---|---|---|\n")
	var slowest, slowestHTTP float64
	for _, l := range listings() {
		query, err := d.read(l, func(l listing) (string, error) {
			page, err := d.store.Cases(ctx, d.site, l.filter)
			return page.NextCursor, err
		})
		if err != nil {
			return "", fmt.Errorf("%s: %w", l.name, err)
		}
		web, err := d.read(l, func(l listing) (string, error) { return get(ctx, address, secret, l) })
		if err != nil {
			return "", fmt.Errorf("%s: %w", l.name, err)
		}
		plan, err := d.store.ExplainCases(ctx, d.site, l.filter, "JSON")
		if err != nil {
			return "", err
		}
		walk, blocks, err := digest(plan)
		if err != nil {
			return "", err
		}
		slowest, slowestHTTP = max(slowest, query), max(slowestHTTP, web)
		fmt.Fprintf(&b, "| %s | %.1f ms | %.1f ms | %s | %d |\n", l.name, 1e3*query, 1e3*web, walk, blocks)
	}
	fmt.Fprintf(&b, "| **slowest** | **%.1f ms** | **%.1f ms** | | |\n", 1e3*slowest, 1e3*slowestHTTP)
	for _, l := range listings()[:2] {
		plan, err := d.store.ExplainCases(ctx, d.site, l.filter, "TEXT")
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "\nThe plan of \"%s\":\n\n```\n%s\n```\n", l.name, plan)
	}
	return b.String(), nil
}

// read walks through a listing and returns the 95th percentile of its pages.
func (d *deployment) read(l listing, page func(listing) (next string, err error)) (p95 float64, err error) {
	var took []float64
	for range pagesRead {
		begun := time.Now()
		if l.filter.Cursor, err = page(l); err != nil {
			return 0, err
		}
		took = append(took, time.Since(begun).Seconds())
	}
	return quantile(took, .95), nil
}

func get(ctx context.Context, address, key string, l listing) (next string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address+"/v1/cases?"+l.query(), nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("X-API-Key", key)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return "", err
	}
	if res.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s", res.Status, body)
	}
	var list client.CaseList
	if err := json.Unmarshal(body, &list); err != nil || list.NextCursor == nil {
		return "", err
	}
	return *list.NextCursor, nil
}

// node of a plan.
type node struct {
	Type     string  `json:"Node Type"`
	Relation string  `json:"Relation Name"`
	Index    string  `json:"Index Name"`
	Rows     float64 `json:"Actual Rows"`
	Removed  float64 `json:"Rows Removed by Filter"`
	Hit      int     `json:"Shared Hit Blocks"`
	Read     int     `json:"Shared Read Blocks"`
	Plans    []node  `json:"Plans"`
}

// digest says in a few words how a plan finds its lines, and how many blocks
// it touches in all.
func digest(plan string) (walk string, blocks int, err error) {
	var p []struct{ Plan node }
	if err := json.Unmarshal([]byte(plan), &p); err != nil {
		return "", 0, err
	}
	var words []string
	var visit func(n node, sorted bool)
	visit = func(n node, sorted bool) {
		if n.Relation == "cases" || n.Relation == "" && strings.HasPrefix(n.Index, "cases_") {
			say := fmt.Sprintf("%s %s: %.0f lines", strings.ToLower(n.Type), n.Index, n.Rows)
			if n.Removed > 0 {
				say += fmt.Sprintf(", %.0f passed over", n.Removed)
			}
			if sorted {
				say += ", sorted"
			}
			words = append(words, say)
		}
		for _, c := range n.Plans {
			visit(c, n.Type == "Sort" || n.Type == "Incremental Sort")
		}
	}
	visit(p[0].Plan, false)
	return strings.Join(words, "; "), p[0].Plan.Hit + p[0].Plan.Read, nil
}

// env of programs that use the deployment.
func (d *deployment) env() []string {
	return []string{"DATABASE_URL=" + d.cluster.ConnString(), "NEUROSCREEN_SECRET=" + d.secret}
}

func (d *deployment) data() string { return filepath.Join(d.dir, "data") }
