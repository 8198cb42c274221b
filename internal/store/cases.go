package store

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"neuroscreen"
	"neuroscreen/internal/words"
)

// Severity orders the worklist, worst first.
const (
	sevFlagged   = 0
	sevReview    = 1 // or so doubtful an image that nobody can say whether it would be
	sevEnded     = 2 // failed or refused: the patient may still be there
	sevRunning   = 3
	sevNone      = 4
	sevAbstained = 5
	sevCancelled = 6
)

// allConditions marks a scan's own line among those of its conditions.
const allConditions = ""

// caseScore is the worst score of a set.
type caseScore struct {
	severity  int
	flag      *neuroscreen.Flag
	condition *neuroscreen.Condition
	lr        *float64
	why       string // in one line
}

// worst picks the highest flag, then the highest likelihood ratio. The first
// score of a condition decides; those beside it would answer for it where it
// abstains.
func worst(scores []neuroscreen.Score) caseScore {
	none := neuroscreen.FlagNone
	w := caseScore{severity: sevAbstained, flag: &none}
	for n, s := range scores {
		if neuroscreen.Deciding(scores, s.Condition) != n {
			continue
		}
		if s.Abstained != nil || s.LikelihoodRatio == nil {
			switch {
			case s.AbstainedType == neuroscreen.DoubtfulQuality && sevReview < w.severity:
				w = caseScore{severity: sevReview, flag: &none, condition: &s.Condition, why: words.Why(s)}
			case w.why == "":
				w.why = words.Why(s)
			}
			continue
		}
		sev := sevNone
		switch s.Flag {
		case neuroscreen.FlagFlagged:
			sev = sevFlagged
		case neuroscreen.FlagReview:
			sev = sevReview
		}
		if sev < w.severity || sev == w.severity && (w.lr == nil || *s.LikelihoodRatio > *w.lr) {
			w = caseScore{severity: sev, flag: &s.Flag, condition: &s.Condition, lr: s.LikelihoodRatio, why: words.Why(s)}
		}
	}
	return w
}

// noteCase rewrites the scan's lines of the worklist; result is nil unless it
// is being scored.
func (t *tx) noteCase(ctx context.Context, rec ScanRecord, result *neuroscreen.Result) error {
	lines := map[string]caseScore{}
	switch {
	case result != nil:
		lines[allConditions] = worst(result.Scores)
		for _, s := range result.Scores {
			if _, done := lines[string(s.Condition)]; !done {
				same := slices.DeleteFunc(slices.Clone(result.Scores), func(o neuroscreen.Score) bool { return o.Condition != s.Condition })
				lines[string(s.Condition)] = worst(same)
			}
		}
	case rec.State == neuroscreen.Scored:
		return nil // Finish writes the lines with the result
	case rec.State == neuroscreen.Cancelled && rec.ResultVersion == 0: // else a reader may have waited for the new result
		lines[allConditions] = caseScore{severity: sevCancelled}
	case rec.State.Final():
		lines[allConditions] = caseScore{severity: sevEnded}
	default:
		lines[allConditions] = caseScore{severity: sevRunning}
	}
	var quality *neuroscreen.Verdict
	if result != nil && result.QC.Verdict != "" {
		quality = &result.QC.Verdict
	}
	args := pgx.NamedArgs{"site": rec.SiteID, "scan": rec.ID, "pseudonym": rec.Pseudonym, "received": rec.Created,
		"state": rec.State, "scanner": rec.Metadata.Scanner, "quality": quality, "now": t.now}
	batch := &pgx.Batch{}
	batch.Queue("DELETE FROM cases WHERE site_id = @site AND scan_id = @scan", args)
	for condition, c := range lines {
		line := pgx.NamedArgs{"condition": condition, "severity": c.severity, "flag": c.flag, "worst": c.condition, "lr": c.lr, "why": c.why}
		for k, v := range args {
			line[k] = v
		}
		batch.Queue(`
			INSERT INTO cases (site_id, condition, scan_id, pseudonym, severity, received_at, state, flag, worst_condition, likelihood_ratio, scanner, why, quality, changed_at)
			VALUES (@site, @condition, @scan, @pseudonym, @severity, @received, @state, @flag, @worst, @lr, @scanner, @why, @quality, @now)`, line)
	}
	return t.SendBatch(ctx, batch).Close()
}

// cursor is the last line of a page: where the next one starts.
type cursor struct {
	Sort      CaseSort  `json:"o"`
	Condition string    `json:"c"`
	Severity  int       `json:"s"`
	Received  time.Time `json:"t"`
	ScanID    uuid.UUID `json:"i"`
}

func (c cursor) String() string {
	b, err := json.Marshal(c)
	if err != nil {
		panic(err) // plain values always marshal
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

func parseCursor(s string) (cursor, error) {
	var c cursor
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	return c, err
}

// groups of the worklist, as it names them.
var groups = map[string][]int{
	"flagged": {sevFlagged}, "review": {sevReview}, "ended": {sevEnded}, "running": {sevRunning},
	"clear": {sevNone, sevAbstained}, "cancelled": {sevCancelled},
}

// orders gives each sort its columns and the comparison that follows a cursor.
var orders = map[CaseSort]struct{ by, after string }{
	WorstFirst:  {"severity, received_at, scan_id", "(severity, received_at, scan_id) > (@severity, @at, @scan)"},
	NewestFirst: {"received_at DESC, scan_id DESC", "(received_at, scan_id) < (@at, @scan)"},
	OldestFirst: {"received_at, scan_id", "(received_at, scan_id) > (@at, @scan)"},
}

// caseQuery is the query for one page of the worklist.
type caseQuery struct {
	sql       string
	args      pgx.NamedArgs
	sort      CaseSort
	condition string
	page      int // lines; the query brings one more, to see whether a page follows
}

func (s *Store) caseQuery(ctx context.Context, siteID uuid.UUID, f CaseFilter) (caseQuery, error) {
	if f.Sort == "" {
		f.Sort = WorstFirst
	}
	order, ok := orders[f.Sort]
	if !ok {
		return caseQuery{}, neuroscreen.FieldErrorf(neuroscreen.CodeInvalid, "invalid-value", "sort", "a sort is worst, newest or oldest")
	}
	condition := allConditions
	if f.Condition != nil {
		condition = string(*f.Condition)
	}
	n := limit(f.Limit, 50, 200)
	where := "site_id = @site AND condition = @condition" + consented(ctx, "cases.scan_id")
	args := pgx.NamedArgs{"site": siteID, "condition": condition, "limit": n + 1}
	and := func(clause, name string, value any) {
		where += " AND " + clause
		args[name] = value
	}
	if f.Flag != nil {
		// By severity, which the flag follows from and the index starts with.
		switch *f.Flag {
		case neuroscreen.FlagFlagged:
			and("severity = @flag", "flag", sevFlagged)
		case neuroscreen.FlagReview:
			and("severity = @flag", "flag", sevReview)
		default:
			and("severity BETWEEN 4 AND 5 AND flag = @flag", "flag", *f.Flag)
		}
	}
	if f.State != nil {
		and("state = @state", "state", *f.State)
	}
	switch f.Review {
	case OpenCases:
		where += " AND decision IS NULL AND severity < 6"
	case DecidedCases:
		where += " AND decision IS NOT NULL"
	}
	if f.Group != "" {
		g, ok := groups[f.Group]
		if !ok {
			return caseQuery{}, neuroscreen.FieldErrorf(neuroscreen.CodeInvalid, "invalid-value", "group", "a group is flagged, review, ended, running, clear or cancelled")
		}
		// An equality where there is one, which an index continues with its order.
		if and("severity = @group", "group", g[0]); len(g) > 1 {
			where = strings.Replace(where, "severity = @group", "severity BETWEEN @group AND @group2", 1)
			args["group2"] = g[1]
		}
	}
	if f.ScanIDs != nil {
		and("scan_id = ANY (@only)", "only", f.ScanIDs)
	}
	if f.AccessionNumber != nil {
		and("scan_id IN (SELECT scan_id FROM links WHERE site_id = @site AND accession_hash = @accession AND accession_hash <> '')",
			"accession", s.accessionHash(siteID, *f.AccessionNumber))
	}
	if f.Scanner != nil {
		and("scanner = @scanner", "scanner", *f.Scanner)
	}
	if f.SubjectID != nil {
		and("pseudonym = @pseudonym", "pseudonym", s.cfg.Keys.Pseudonym(siteID, *f.SubjectID))
	}
	if f.ReceivedFrom != nil {
		and("received_at >= @from", "from", *f.ReceivedFrom)
	}
	if f.ReceivedBefore != nil {
		and("received_at < @before", "before", *f.ReceivedBefore)
	}
	if f.Cursor != "" {
		c, err := parseCursor(f.Cursor)
		if err != nil || c.Sort != f.Sort || c.Condition != condition || c.Severity < sevFlagged || c.Severity > sevCancelled {
			return caseQuery{}, neuroscreen.FieldErrorf(neuroscreen.CodeInvalid, "invalid-value", "cursor", "not a cursor of this listing; start without one")
		}
		where += " AND " + order.after
		args["severity"], args["at"], args["scan"] = c.Severity, c.Received, c.ScanID
	}

	args["now"] = s.now()
	return caseQuery{args: args, sort: f.Sort, condition: condition, page: n, sql: `
		SELECT c.scan_id, c.pseudonym, c.state, s.reasons, s.metadata, c.received_at AS received, s.updated_at AS updated,
		       c.flag, c.worst_condition AS condition, c.likelihood_ratio, s.run,
		       CASE s.state WHEN 'scored' THEN s.result_version ELSE 0 END AS result_version, c.severity, c.why, c.quality,
		       h.key_id AS held_by, coalesce(hk.label, '') AS holder, h.since AS held_since, h.until AS held_until,
		       r.decision, coalesce(rk.label, '') AS decided_by, r.at AS decided_at
		FROM (SELECT * FROM cases WHERE ` + where + ` ORDER BY ` + order.by + ` LIMIT @limit) c
		JOIN scans s ON s.site_id = c.site_id AND s.id = c.scan_id
		LEFT JOIN holds h ON h.site_id = c.site_id AND h.scan_id = c.scan_id AND h.until > @now
		LEFT JOIN keys hk ON hk.site_id = h.site_id AND hk.id = h.key_id
		LEFT JOIN LATERAL (
			SELECT site_id, key_id, decision, at FROM reviews
			WHERE site_id = c.site_id AND scan_id = c.scan_id AND run = s.run
			ORDER BY seq DESC LIMIT 1) r ON c.decision IS NOT NULL
		LEFT JOIN keys rk ON rk.site_id = r.site_id AND rk.id = r.key_id
		ORDER BY ` + order.by}, nil
}

// Cases returns one page of the worklist. Errors: CodeInvalid for a bad
// cursor or sort.
func (s *Store) Cases(ctx context.Context, siteID uuid.UUID, f CaseFilter) (CasePage, error) {
	q, err := s.caseQuery(ctx, siteID, f)
	if err != nil {
		return CasePage{}, err
	}
	type line struct {
		CaseRow
		Severity int
	}
	lines, err := rows[line](ctx, s, q.sql, q.args)
	if err != nil {
		return CasePage{}, err
	}
	var page CasePage
	if len(lines) > q.page {
		lines = lines[:q.page]
		last := lines[q.page-1]
		page.NextCursor = cursor{q.sort, q.condition, last.Severity, last.Received, last.ScanID}.String()
	}
	page.Cases = make([]CaseRow, len(lines))
	for i, l := range lines {
		page.Cases[i] = l.CaseRow
	}
	return page, nil
}

// ExplainCases runs the query of a page and returns Postgres' plan for it, as
// EXPLAIN (ANALYZE, BUFFERS) writes it in a format: TEXT or JSON.
func (s *Store) ExplainCases(ctx context.Context, siteID uuid.UUID, f CaseFilter, format string) (string, error) {
	q, err := s.caseQuery(ctx, siteID, f)
	if err != nil {
		return "", err
	}
	r, err := s.cfg.Pool.Query(ctx, "EXPLAIN (ANALYZE, BUFFERS, FORMAT "+format+") "+q.sql, q.args)
	if err != nil {
		return "", classify(err)
	}
	plan, err := pgx.CollectRows(r, pgx.RowTo[string])
	return strings.Join(plan, "\n"), classify(err)
}

// Case returns one line of the worklist. Errors: CodeNotFound.
func (s *Store) Case(ctx context.Context, siteID, scanID uuid.UUID) (CaseRow, error) {
	page, err := s.Cases(ctx, siteID, CaseFilter{ScanIDs: []uuid.UUID{scanID}, Limit: 1})
	if err != nil {
		return CaseRow{}, err
	}
	if len(page.Cases) == 0 {
		return CaseRow{}, notFound("scan")
	}
	return page.Cases[0], nil
}

// mostCounted bounds a count, so that it costs the same in a worklist of any
// length.
const mostCounted = 1000

// CaseCounts counts the site's open cases, and says when anything in its
// worklist last changed.
func (s *Store) CaseCounts(ctx context.Context, siteID uuid.UUID) (CaseCounts, error) {
	count := func(severity int) string {
		return fmt.Sprintf(`(SELECT count(*) FROM (SELECT FROM cases WHERE site_id = @site AND condition = '' AND decision IS NULL
			AND severity = %d%s LIMIT %d) x)`, severity, consented(ctx, "cases.scan_id"), mostCounted)
	}
	return row[CaseCounts](ctx, s.cfg.Pool, nil, `
		SELECT `+count(sevFlagged)+` AS flagged, `+count(sevReview)+` AS review, `+count(sevEnded)+` AS ended,
		       `+count(sevRunning)+` AS running, `+count(sevNone)+` AS nothing_found, `+count(sevAbstained)+` AS abstained,
		       (SELECT max(changed_at) FROM cases WHERE site_id = @site AND condition = ''`+consented(ctx, "cases.scan_id")+`) AS changed`,
		pgx.NamedArgs{"site": siteID})
}
