package store

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"iter"
	"regexp"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"neuroscreen"
)

// OneVisit says which scan stands for a person of whom there are several. The
// scan's date decides or, where none was posted, the day on which it came.
type OneVisit string

const (
	NewestVisit OneVisit = "newest"
	FirstVisit  OneVisit = "first"
)

// CohortFilter selects T1-weighted scans whose result stands: scored, and not
// rejected. Nil and empty fields do not filter. MinLR and MaxZ are thresholds;
// what the others select is the population that they are held against.
type CohortFilter struct {
	Condition    *neuroscreen.Condition
	Flag         *neuroscreen.Flag // of the condition's score; of the worst without one
	AgeFrom      *float64          // at the scan, inclusive like every bound here
	AgeTo        *float64
	Sex          *neuroscreen.Sex
	Scanner      *string
	ScanDateFrom string // YYYY-MM-DD; with it or ScanDateTo only scans with a date
	ScanDateTo   string
	Quality      *neuroscreen.Verdict

	MinLR     *float64 // of the condition's score, which must be set; abstained has none
	Structure string   // FreeSurfer name
	MaxZ      *float64 // of Structure

	Visit  OneVisit // of the scans that meet all but the thresholds; "" for all of them
	Cursor string   // NextCursor of the page before
	Limit  int      // 50 when 0, at most 200
}

// CohortScan is a scan with the result that stands.
type CohortScan struct {
	ResultVersion
	Pseudonym string
	Received  time.Time
	Decision  *Decision // Accept, Amend or nil
}

// CohortPage is one page; NextCursor is "" on the last.
type CohortPage struct {
	Scans      []CohortScan
	NextCursor string
}

// CohortGroup counts people whose score of the condition was made with the same
// model, prior and files. Without a condition all are one group without a model.
type CohortGroup struct {
	Model    string
	Evidence neuroscreen.Evidence
	Prior    *float64
	Models   []neuroscreen.Asset
	ScanID   uuid.UUID // of one of them, for what was said of the model
	Version  int

	Screened  int // meet all but the thresholds
	Selected  int // meet the thresholds too
	Abstained int // of the screened: without a likelihood ratio
	WithoutZ  int // of the screened: without a z of the structure

	// Of those who have a posterior.
	Expecting         int
	ExpectingSelected int
	Expected          float64 // sum of the posteriors
	ExpectedSelected  float64
}

// cohortLine is a scan of the population, as far as the worklist and the
// metadata tell of it.
type cohortLine struct {
	CohortScan
	Quality         neuroscreen.Verdict
	LikelihoodRatio *float64
}

// day of the scan or, where none was posted, on which it came.
func (l cohortLine) day() string {
	return cmp.Or(l.Metadata.ScanDate, l.Received.UTC().Format(time.DateOnly))
}

// meets the criteria that are not in the query.
func (f CohortFilter) meets(l cohortLine) bool {
	m := l.Metadata
	switch {
	case m.Modality != neuroscreen.T1w, l.Quality == neuroscreen.VerdictRefuse,
		f.Quality != nil && l.Quality != *f.Quality,
		f.Sex != nil && m.Sex != *f.Sex,
		f.AgeFrom != nil && (m.AgeYears == nil || *m.AgeYears < *f.AgeFrom),
		f.AgeTo != nil && (m.AgeYears == nil || *m.AgeYears > *f.AgeTo),
		f.ScanDateFrom != "" && m.ScanDate < f.ScanDateFrom,
		f.ScanDateTo != "" && (m.ScanDate == "" || m.ScanDate > f.ScanDateTo):
		return false
	}
	return true
}

// facts are what thresholds and counts need of a result's document.
type facts struct {
	Volumes []struct {
		Structure string
		Z         *float64
	}
	Scores []struct {
		Condition neuroscreen.Condition
		Model     string
		Evidence  neuroscreen.Evidence
		Prior     *float64
		Posterior *float64
	}
	Software struct{ Models []neuroscreen.Asset }
}

func (f facts) z(structure string) *float64 {
	for _, v := range f.Volumes {
		if v.Structure == structure {
			return v.Z
		}
	}
	return nil
}

// overRatio and underZ are the thresholds. What is not known selects nobody.
func (f CohortFilter) overRatio(l cohortLine) bool {
	return f.MinLR == nil || l.LikelihoodRatio != nil && *l.LikelihoodRatio >= *f.MinLR
}

func (f CohortFilter) underZ(d facts) bool {
	if f.MaxZ == nil {
		return true
	}
	z := d.z(f.Structure)
	return z != nil && *z <= *f.MaxZ
}

// cohortCursor is the last scan of a page. The order is by person, so that one
// visit each stays one whatever arrives meanwhile.
type cohortCursor struct {
	Visit     OneVisit  `json:"v"`
	Pseudonym string    `json:"p"`
	ScanID    uuid.UUID `json:"i"`
}

var pseudonymShape = regexp.MustCompile(`^p-[0-9a-z]{26}$`)

func (c cohortCursor) String() string {
	b, err := json.Marshal(c)
	if err != nil {
		panic(err) // plain values always marshal
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

func (f CohortFilter) after() (c cohortCursor, err error) {
	if f.Cursor == "" {
		return c, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(f.Cursor)
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	if err != nil || c.Visit != f.Visit || !pseudonymShape.MatchString(c.Pseudonym) {
		return c, neuroscreen.FieldErrorf(neuroscreen.CodeInvalid, "invalid-value", "cursor", "not a cursor of this listing; start without one")
	}
	if f.Visit != "" {
		c.ScanID = uuid.Max // the next person
	}
	return c, nil
}

// population goes through the scans that meet all but the thresholds, looking
// at so many lines of the worklist together, without their documents: those are
// most of what a site keeps, and a query over all of them would hold up
// everybody else's.
func (s *Store) population(ctx context.Context, siteID uuid.UUID, f CohortFilter, after cohortCursor, stretch int) iter.Seq2[[]cohortLine, error] {
	where := "site_id = @site AND condition = @condition AND state = 'scored' AND decision IS DISTINCT FROM @reject" + consented(ctx, "cases.scan_id")
	args := pgx.NamedArgs{"site": siteID, "condition": allConditions, "reject": Reject, "stretch": stretch}
	if f.Condition != nil {
		args["condition"] = string(*f.Condition)
	}
	if f.Flag != nil {
		where += " AND flag = @flag"
		args["flag"] = *f.Flag
	}
	if f.Scanner != nil {
		where += " AND scanner = @scanner"
		args["scanner"] = *f.Scanner
	}
	sql := `
		SELECT c.scan_id, r.version, r.run, '' AS sha256, NULL::json AS document, r.metadata, r.created_at AS created,
		       c.pseudonym, c.received_at AS received, c.decision, c.likelihood_ratio,
		       -- The worklist has had it only since its second schema.
		       coalesce(c.quality, r.document #>> '{qc,verdict}') AS quality
		FROM (
			SELECT * FROM cases
			WHERE ` + where + ` AND (pseudonym, scan_id) > (@after, @after_scan)
			ORDER BY pseudonym, scan_id LIMIT @stretch) c
		JOIN scans s ON s.site_id = c.site_id AND s.id = c.scan_id
		JOIN results r ON r.site_id = c.site_id AND r.scan_id = c.scan_id AND r.version = s.result_version
		ORDER BY c.pseudonym, c.scan_id`
	return func(yield func([]cohortLine, error) bool) {
		var begun []cohortLine // of a person of whom the next stretch may hold more
		for {
			args["after"], args["after_scan"] = after.Pseudonym, after.ScanID
			found, err := rows[cohortLine](ctx, s, sql, args)
			if err != nil {
				yield(nil, err)
				return
			}
			last := len(found) < stretch
			if !last {
				after.Pseudonym, after.ScanID = found[len(found)-1].Pseudonym, found[len(found)-1].ScanID
			}
			lines := append(begun, slices.DeleteFunc(found, func(l cohortLine) bool { return !f.meets(l) })...)
			begun = nil
			if f.Visit != "" {
				if whole := slices.IndexFunc(lines, func(l cohortLine) bool { return l.Pseudonym == after.Pseudonym }); !last && whole >= 0 {
					lines, begun = lines[:whole], slices.Clone(lines[whole:])
				}
				lines = f.oneEach(lines)
			}
			if !yield(lines, nil) || last {
				return
			}
		}
	}
}

// oneEach chooses a visit for each person of lines that are in order.
func (f CohortFilter) oneEach(lines []cohortLine) (chosen []cohortLine) {
	for _, l := range lines {
		n := len(chosen) - 1
		if n < 0 || chosen[n].Pseudonym != l.Pseudonym {
			chosen = append(chosen, l)
			continue
		}
		// Scans' ids grow with time, and so does the order of the lines.
		if later := l.day() >= chosen[n].day(); later == (f.Visit == NewestVisit) {
			chosen[n] = l
		}
	}
	return chosen
}

// read brings the documents of lines, in their order; what was erased meanwhile
// is left out.
func (s *Store) read(ctx context.Context, siteID uuid.UUID, lines []cohortLine) ([]cohortLine, error) {
	ids, versions := make([]uuid.UUID, len(lines)), make([]int, len(lines))
	for n, l := range lines {
		ids[n], versions[n] = l.ScanID, l.Version
	}
	type stored struct {
		ScanID   uuid.UUID
		Document json.RawMessage
		SHA256   string
	}
	found, err := rows[stored](ctx, s, `
		SELECT scan_id, document, encode(sha256, 'hex') AS sha256 FROM results
		WHERE site_id = @site AND (scan_id, version) IN (SELECT * FROM unnest(@scans::uuid[], @versions::int[]))`+consented(ctx, "results.scan_id"),
		pgx.NamedArgs{"site": siteID, "scans": ids, "versions": versions})
	if err != nil {
		return nil, err
	}
	of := map[uuid.UUID]stored{}
	for _, d := range found {
		of[d.ScanID] = d
	}
	var out []cohortLine
	for _, l := range lines {
		if d, ok := of[l.ScanID]; ok {
			l.Document, l.SHA256 = d.Document, d.SHA256
			out = append(out, l)
		}
	}
	return out, nil
}

func (l cohortLine) facts() (d facts, err error) {
	if err := json.Unmarshal(l.Document, &d); err != nil {
		return d, fmt.Errorf("store: stored result %s/%d: %w", l.ScanID, l.Version, err)
	}
	return d, nil
}

// Cohort returns one page of a cohort, in an order that nothing changes: what
// stands from the first page to the last is on exactly one. Errors: CodeInvalid
// for a bad cursor.
func (s *Store) Cohort(ctx context.Context, siteID uuid.UUID, f CohortFilter) (page CohortPage, err error) {
	after, err := f.after()
	if err != nil {
		return page, err
	}
	n := limit(f.Limit, 50, 200)
	for lines, err := range s.population(ctx, siteID, f, after, 2*n) {
		if err != nil {
			return page, err
		}
		lines = slices.DeleteFunc(lines, func(l cohortLine) bool { return !f.overRatio(l) })
		for some := range slices.Chunk(lines, n+1) {
			some, err := s.read(ctx, siteID, some)
			if err != nil {
				return page, err
			}
			for _, l := range some {
				if f.MaxZ != nil {
					d, err := l.facts()
					if err != nil {
						return page, err
					}
					if !f.underZ(d) {
						continue
					}
				}
				if len(page.Scans) == n {
					last := page.Scans[n-1]
					page.NextCursor = cohortCursor{f.Visit, last.Pseudonym, last.ScanID}.String()
					return page, nil
				}
				page.Scans = append(page.Scans, l.CohortScan)
			}
		}
	}
	return page, nil
}

// CohortGroups counts the people of a cohort, one visit each: the filter's, or
// the newest. Its cursor and limit do not count.
func (s *Store) CohortGroups(ctx context.Context, siteID uuid.UUID, f CohortFilter) (groups []CohortGroup, err error) {
	f.Visit = cmp.Or(f.Visit, NewestVisit)
	known := map[string]int{} // indices
	count := func(l cohortLine, d facts) {
		g := CohortGroup{ScanID: l.ScanID, Version: l.Version}
		var posterior *float64
		if f.Condition != nil {
			for _, score := range d.Scores {
				if score.Condition == *f.Condition { // the first decides
					g.Model, g.Evidence, g.Prior, g.Models = score.Model, score.Evidence, score.Prior, d.Software.Models
					posterior = score.Posterior
					break
				}
			}
		}
		prior := -1.0
		if g.Prior != nil {
			prior = *g.Prior
		}
		key := fmt.Sprint(g.Model, g.Evidence, prior, g.Models)
		n, ok := known[key]
		if !ok {
			n = len(groups)
			known[key] = n
			groups = append(groups, g)
		}
		groups[n].add(l, d, posterior, f)
	}
	for lines, err := range s.population(ctx, siteID, f, cohortCursor{}, 500) {
		if err != nil {
			return nil, err
		}
		for some := range slices.Chunk(lines, 100) {
			if f.Condition == nil && f.Structure == "" {
				for _, l := range some {
					count(l, facts{})
				}
				continue
			}
			if some, err = s.read(ctx, siteID, some); err != nil {
				return nil, err
			}
			for _, l := range some {
				d, err := l.facts()
				if err != nil {
					return nil, err
				}
				count(l, d)
			}
		}
	}
	return groups, nil
}

func (g *CohortGroup) add(l cohortLine, d facts, posterior *float64, f CohortFilter) {
	selected := f.overRatio(l) && f.underZ(d)
	g.Screened++
	if selected {
		g.Selected++
	}
	if l.LikelihoodRatio == nil {
		g.Abstained++
	}
	if d.z(f.Structure) == nil {
		g.WithoutZ++
	}
	if posterior == nil {
		return
	}
	g.Expecting++
	g.Expected += *posterior
	if selected {
		g.ExpectingSelected++
		g.ExpectedSelected += *posterior
	}
}
