package store_test

import (
	"encoding/base64"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"neuroscreen"
	"neuroscreen/internal/store"
)

// member is one scan of a cohort.
type member struct {
	subject   string
	age       float64
	sex       neuroscreen.Sex
	day       string // of the scan
	scanner   string
	modality  neuroscreen.Modality
	consent   *bool
	quality   neuroscreen.Verdict
	lr        *float64 // of the Alzheimer's score, nil for an abstained one
	flag      neuroscreen.Flag
	prior     float64 // 0 for none
	z         *float64
	modelHash string
}

// posteriorOf is by Bayes' rule.
func posteriorOf(prior, lr float64) float64 { return prior * lr / (1 - prior + prior*lr) }

// join posts and scores a member; what it leaves open is as of a healthy woman of 71.
func (b *bundle) join(t *testing.T, m member) store.ScanRecord {
	t.Helper()
	n := post(m.subject, fmt.Sprint(m, time.Now().UnixNano()))
	n.Metadata.ConsentResearch = m.consent
	n.Metadata.ScanDate = m.day
	if m.age != 0 {
		n.Metadata.AgeYears = &m.age
	}
	if m.sex != "" {
		n.Metadata.Sex = m.sex
	}
	if m.scanner != "" {
		n.Metadata.Scanner = m.scanner
	}
	if m.modality != "" {
		n.Metadata.Modality = m.modality
	}
	scan := b.create(t, n)
	s := neuroscreen.Score{Condition: neuroscreen.Alzheimers, Model: "alzheimers-scan", Evidence: neuroscreen.ExternalCohort, LikelihoodRatio: m.lr, Flag: m.flag}
	if m.flag == "" {
		s.Flag = neuroscreen.FlagNone
	}
	if m.prior != 0 {
		s.Prior = &m.prior
	}
	if m.lr == nil {
		s.Abstained = ptr("because")
	} else if m.prior != 0 {
		s.Posterior = ptr(posteriorOf(m.prior, *m.lr))
	}
	// One that stands beside it must decide nothing.
	beside := neuroscreen.Score{Condition: neuroscreen.Alzheimers, Model: "beside", LikelihoodRatio: ptr(1000.0), Prior: ptr(0.9), Posterior: ptr(0.99), Flag: neuroscreen.FlagFlagged}
	o := scored(scan, s, beside)
	o.Result.QC.Verdict = m.quality
	if m.quality == "" {
		o.Result.QC.Verdict = neuroscreen.VerdictPass
	}
	o.Result.Volumes = []neuroscreen.Volume{{Structure: "Right-Hippocampus", Z: ptr(-9.0)}, {Structure: "Left-Hippocampus", Z: m.z}}
	o.Result.Software.Models = []neuroscreen.Asset{{Name: "alzheimers_scan.json", SHA256: "aa" + m.modelHash}}
	b.run(t, scan, o)
	return scan
}

func (b *bundle) cohort(t *testing.T, f store.CohortFilter) (ids []uuid.UUID) {
	t.Helper()
	page, err := b.Cohort(t.Context(), b.site, f)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range page.Scans {
		ids = append(ids, s.ScanID)
	}
	return ids
}

func sameScans(t *testing.T, what string, got []uuid.UUID, want ...store.ScanRecord) {
	t.Helper()
	var ids []uuid.UUID
	for _, w := range want {
		ids = append(ids, w.ID)
	}
	byID := func(a, b uuid.UUID) int { return slices.Compare(a[:], b[:]) }
	slices.SortFunc(ids, byID)
	slices.SortFunc(got, byID)
	if !slices.Equal(got, ids) {
		t.Errorf("%s: %v, want %v", what, got, ids)
	}
}

func TestCohortCriteria(t *testing.T) {
	t.Parallel()
	b := setup(t)
	old := b.join(t, member{subject: "old", age: 81.5, sex: neuroscreen.Male, day: "2024-01-31", scanner: "=scanner", lr: ptr(6.0), flag: neuroscreen.FlagFlagged, z: ptr(-2.0)})
	young := b.join(t, member{subject: "young", age: 62, day: "2025-06-01", lr: ptr(2.0), flag: neuroscreen.FlagReview, quality: neuroscreen.VerdictReview, z: ptr(-1.5)})
	silent := b.join(t, member{subject: "silent", age: 62.1, z: ptr(0.5)})
	bare := b.create(t, post("bare", "no lists at all"))
	b.run(t, bare, scored(bare))

	for what, c := range map[string]struct {
		f    store.CohortFilter
		want []store.ScanRecord
	}{
		"all":             {store.CohortFilter{}, []store.ScanRecord{old, young, silent, bare}},
		"condition":       {store.CohortFilter{Condition: ptr(neuroscreen.Alzheimers)}, []store.ScanRecord{old, young, silent}},
		"other condition": {store.CohortFilter{Condition: ptr(neuroscreen.Parkinsons)}, nil},
		"flag":            {store.CohortFilter{Condition: ptr(neuroscreen.Alzheimers), Flag: ptr(neuroscreen.FlagReview)}, []store.ScanRecord{young}},
		"worst flag":      {store.CohortFilter{Flag: ptr(neuroscreen.FlagFlagged)}, []store.ScanRecord{old}},
		"age from":        {store.CohortFilter{AgeFrom: ptr(62.1)}, []store.ScanRecord{old, silent, bare}},
		"age to":          {store.CohortFilter{AgeTo: ptr(62.1)}, []store.ScanRecord{young, silent}},
		"sex":             {store.CohortFilter{Sex: ptr(neuroscreen.Male)}, []store.ScanRecord{old}},
		"scanner":         {store.CohortFilter{Scanner: ptr("=scanner")}, []store.ScanRecord{old}},
		"from a day":      {store.CohortFilter{ScanDateFrom: "2024-02-01"}, []store.ScanRecord{young, bare}},
		"to a day":        {store.CohortFilter{ScanDateTo: "2024-01-31"}, []store.ScanRecord{old}},
		"quality":         {store.CohortFilter{Quality: ptr(neuroscreen.VerdictReview)}, []store.ScanRecord{young}},
		"ratio":           {store.CohortFilter{Condition: ptr(neuroscreen.Alzheimers), MinLR: ptr(2.0)}, []store.ScanRecord{old, young}},
		"ratio of 0":      {store.CohortFilter{Condition: ptr(neuroscreen.Alzheimers), MinLR: ptr(0.0)}, []store.ScanRecord{old, young}},
		"z":               {store.CohortFilter{Structure: "Left-Hippocampus", MaxZ: ptr(-1.5)}, []store.ScanRecord{old, young}},
		"both":            {store.CohortFilter{Condition: ptr(neuroscreen.Alzheimers), MinLR: ptr(3.0), Structure: "Left-Hippocampus", MaxZ: ptr(5.0)}, []store.ScanRecord{old}},
	} {
		sameScans(t, what, b.cohort(t, c.f), c.want...)
	}
}

// TestCohortOfWhatStands: a result that was rejected or is being made anew, that
// of a functional run, of an image to refuse, or of another site is in none.
func TestCohortOfWhatStands(t *testing.T) {
	t.Parallel()
	b := setup(t)
	stands := b.join(t, member{subject: "stands", lr: ptr(1.0)})
	_, key, err := b.CreateKey(t.Context(), b.site, actor, neuroscreen.Clinician, "reader")
	if err != nil {
		t.Fatal(err)
	}
	for subject, decision := range map[string]store.Decision{"rejected": store.Reject, "accepted": store.Accept} {
		scan := b.join(t, member{subject: subject, lr: ptr(1.0)})
		if _, err := b.Review(t.Context(), b.site, key.ID, scan.ID, store.NewReview{Decision: decision, Run: 1}); err != nil {
			t.Fatal(err)
		}
	}
	again := b.join(t, member{subject: "again", lr: ptr(1.0)})
	if _, err := b.Retry(t.Context(), b.site, actor, again.ID); err != nil {
		t.Fatal(err)
	}
	b.join(t, member{subject: "bold", modality: neuroscreen.BOLD})
	b.join(t, member{subject: "refuse", quality: neuroscreen.VerdictRefuse})
	refusedScan := b.create(t, post("refused", "refused"))
	b.run(t, refusedScan, refused("not-a-brain"))
	b.create(t, post("waiting", "waiting"))

	page, err := b.Cohort(t.Context(), b.site, store.CohortFilter{})
	if err != nil {
		t.Fatal(err)
	}
	if len(page.Scans) != 2 {
		t.Fatalf("%d scans", len(page.Scans))
	}
	for _, s := range page.Scans {
		if accepted := s.Decision != nil && *s.Decision == store.Accept; accepted == (s.ScanID == stands.ID) {
			t.Errorf("scan %s has the decision %v", s.ScanID, s.Decision)
		}
	}
	if there, err := b.Cohort(t.Context(), b.other, store.CohortFilter{}); err != nil || len(there.Scans) != 0 {
		t.Errorf("another site sees %d, %v", len(there.Scans), err)
	}
	// The second version stands once it is there.
	o := scored(again)
	o.Result.QC.Verdict = neuroscreen.VerdictPass
	b.run(t, again, o)
	page, err = b.Cohort(t.Context(), b.site, store.CohortFilter{})
	if n := slices.IndexFunc(page.Scans, func(s store.CohortScan) bool { return s.ScanID == again.ID }); err != nil || n < 0 || page.Scans[n].Version != 2 {
		t.Errorf("version 2 is not in %v, %v", page.Scans, err)
	}
}

func TestCohortConsent(t *testing.T) {
	t.Parallel()
	b := setup(t)
	unsaid := b.join(t, member{subject: "unsaid", lr: ptr(1.0)})
	said := b.join(t, member{subject: "said", consent: ptr(true), lr: ptr(1.0)})
	b.join(t, member{subject: "refused", consent: ptr(false), lr: ptr(1.0)})
	ctx := store.ForResearch(t.Context())
	page, err := b.Cohort(ctx, b.site, store.CohortFilter{})
	if err != nil {
		t.Fatal(err)
	}
	var ids []uuid.UUID
	for _, s := range page.Scans {
		ids = append(ids, s.ScanID)
	}
	sameScans(t, "for research", ids, unsaid, said)
	groups, err := b.CohortGroups(ctx, b.site, store.CohortFilter{})
	if err != nil || len(groups) != 1 || groups[0].Screened != 2 {
		t.Errorf("%+v, %v", groups, err)
	}
}

// TestCohortVisits: the scan's date decides, not the order in which an archive
// was posted; of thresholds only the chosen scan is asked.
func TestCohortVisits(t *testing.T) {
	t.Parallel()
	b := setup(t)
	later := b.join(t, member{subject: "P", day: "2025-05-01", lr: ptr(1.0)})
	earlier := b.join(t, member{subject: "P", day: "2020-05-01", lr: ptr(9.0)})
	middle := b.join(t, member{subject: "P", day: "2022-05-01", lr: ptr(9.0), quality: neuroscreen.VerdictReview})
	undated := b.join(t, member{subject: "Q", lr: ptr(1.0)}) // came in 2026
	before := b.join(t, member{subject: "Q", day: "2026-02-01", lr: ptr(1.0)})
	alzheimers := ptr(neuroscreen.Alzheimers)
	sameScans(t, "all", b.cohort(t, store.CohortFilter{}), later, earlier, middle, undated, before)
	sameScans(t, "newest", b.cohort(t, store.CohortFilter{Visit: store.NewestVisit}), later, undated)
	sameScans(t, "first", b.cohort(t, store.CohortFilter{Visit: store.FirstVisit}), earlier, before)
	sameScans(t, "newest of those in review", b.cohort(t, store.CohortFilter{Visit: store.NewestVisit, Quality: ptr(neuroscreen.VerdictReview)}), middle)
	sameScans(t, "newest over a threshold", b.cohort(t, store.CohortFilter{Visit: store.NewestVisit, Condition: alzheimers, MinLR: ptr(5.0)}))
	sameScans(t, "first over a threshold", b.cohort(t, store.CohortFilter{Visit: store.FirstVisit, Condition: alzheimers, MinLR: ptr(5.0)}), earlier)
}

// TestCohortPages: what stands from the first page to the last is on exactly
// one, and one visit of a person stays one, whatever comes and goes meanwhile.
func TestCohortPages(t *testing.T) {
	t.Parallel()
	for _, visit := range []store.OneVisit{"", store.NewestVisit, store.FirstVisit} {
		t.Run("visit "+string(visit), func(t *testing.T) {
			b := setup(t)
			want := map[uuid.UUID]bool{}
			var goes []store.ScanRecord
			for n := range 12 {
				subject := fmt.Sprint("s", n)
				first := b.join(t, member{subject: subject, day: "2024-01-01", lr: ptr(1.0)})
				newest := b.join(t, member{subject: subject, day: "2025-01-01", lr: ptr(1.0)})
				switch {
				case n >= 8:
					goes = append(goes, first, newest)
				default:
					want[first.ID], want[newest.ID] = visit != store.NewestVisit, visit != store.FirstVisit
				}
			}
			for day := range 9 { // more than are looked at together
				b.join(t, member{subject: "s4", day: fmt.Sprint("2024-02-0", day+1), lr: ptr(1.0)})
			}
			seen, people := map[uuid.UUID]int{}, map[string]int{}
			f := store.CohortFilter{Visit: visit, Limit: 3}
			for page := 0; page < 50; page++ {
				got, err := b.Cohort(t.Context(), b.site, f)
				if err != nil {
					t.Fatal(err)
				}
				for _, s := range got.Scans {
					seen[s.ScanID]++
					people[s.Pseudonym]++
				}
				// Somebody new; a middle visit of all who were seen and not; one less.
				b.join(t, member{subject: fmt.Sprint("new", page), lr: ptr(1.0)})
				b.join(t, member{subject: fmt.Sprint("s", page), day: "2024-07-01", lr: ptr(1.0)})
				if page < len(goes) {
					if _, err := b.Retry(t.Context(), b.site, actor, goes[page].ID); err != nil {
						t.Fatal(err)
					}
				}
				if f.Cursor = got.NextCursor; f.Cursor == "" {
					break
				}
			}
			for id, wanted := range want {
				if n := seen[id]; wanted && n != 1 || n > 1 {
					t.Errorf("%s was seen %d times", id, n)
				}
			}
			for who, n := range people {
				if visit != "" && n > 1 {
					t.Errorf("%s was seen %d times", who, n)
				}
			}
		})
	}
}

func TestCohortCursorIsItsOwn(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for n := range 3 {
		b.join(t, member{subject: fmt.Sprint("s", n), lr: ptr(1.0)})
	}
	page, err := b.Cohort(t.Context(), b.site, store.CohortFilter{Limit: 1})
	if err != nil || page.NextCursor == "" {
		t.Fatal(page, err)
	}
	for what, f := range map[string]store.CohortFilter{
		"of all visits": {Cursor: page.NextCursor, Visit: store.NewestVisit},
		"not base64":    {Cursor: "?"},
		"not JSON":      {Cursor: base64.RawURLEncoding.EncodeToString([]byte("x"))},
		"no pseudonym":  {Cursor: base64.RawURLEncoding.EncodeToString([]byte(`{"p":"p-\u0000"}`))},
	} {
		if _, err := b.Cohort(t.Context(), b.site, f); err == nil {
			t.Errorf("a cursor %s is taken", what)
		} else {
			wantCode(t, err, neuroscreen.CodeInvalid, "invalid-value")
		}
	}
}

// TestCohortGroups counts five people of three groups by hand.
func TestCohortGroups(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.join(t, member{subject: "a", prior: 0.05, lr: ptr(19.0), z: ptr(-2.0)}) // posterior .5
	b.join(t, member{subject: "b", prior: 0.05, lr: ptr(1.0), z: ptr(-2.0)})  // .05
	b.join(t, member{subject: "c", prior: 0.2, lr: ptr(4.0)})                 // .5, without a z
	b.join(t, member{subject: "d", lr: ptr(9.0), z: ptr(-1.0)})               // no prior at this age
	b.join(t, member{subject: "e", prior: 0.2, z: ptr(-3.0)})                 // abstained
	b.join(t, member{subject: "a", day: "2001-01-01", prior: 0.05, lr: ptr(1.0), z: ptr(9.0)})
	f := store.CohortFilter{Condition: ptr(neuroscreen.Alzheimers), MinLR: ptr(2.0)}
	groups, err := b.CohortGroups(t.Context(), b.site, f)
	if err != nil {
		t.Fatal(err)
	}
	by := map[float64]store.CohortGroup{}
	for _, g := range groups {
		prior := 0.0
		if g.Prior != nil {
			prior = *g.Prior
		}
		by[prior] = g
		if g.Model != "alzheimers-scan" || g.Evidence != neuroscreen.ExternalCohort || len(g.Models) != 1 || g.Version != 1 {
			t.Errorf("%+v", g)
		}
	}
	for prior, want := range map[float64]store.CohortGroup{
		0.05: {Screened: 2, Selected: 1, Expecting: 2, ExpectingSelected: 1, Expected: 0.55, ExpectedSelected: 0.5, WithoutZ: 2},
		0.2:  {Screened: 2, Selected: 1, Abstained: 1, Expecting: 1, ExpectingSelected: 1, Expected: 0.5, ExpectedSelected: 0.5, WithoutZ: 2},
		0:    {Screened: 1, Selected: 1, WithoutZ: 1},
	} {
		got := by[prior]
		if math.Abs(got.Expected-want.Expected) > 1e-12 || math.Abs(got.ExpectedSelected-want.ExpectedSelected) > 1e-12 ||
			got.Screened != want.Screened || got.Selected != want.Selected || got.Abstained != want.Abstained ||
			got.Expecting != want.Expecting || got.ExpectingSelected != want.ExpectingSelected || got.WithoutZ != want.WithoutZ {
			t.Errorf("prior %g: %+v, want %+v", prior, got, want)
		}
	}
	f.MinLR, f.Structure, f.MaxZ = nil, "Left-Hippocampus", ptr(-2.0)
	if groups, err = b.CohortGroups(t.Context(), b.site, f); err != nil {
		t.Fatal(err)
	}
	selected, withoutZ := 0, 0
	for _, g := range groups {
		selected += g.Selected
		withoutZ += g.WithoutZ
	}
	if selected != 3 || withoutZ != 1 {
		t.Errorf("%d selected by z, %d without one", selected, withoutZ)
	}
	f.AgeFrom = ptr(120.0)
	if groups, err = b.CohortGroups(t.Context(), b.site, f); err != nil || len(groups) != 0 {
		t.Errorf("of nobody: %+v, %v", groups, err)
	}
}
