// Package timeline follows one person from visit to visit: what each structure
// lost or gained, beside the smallest change that the measurement can tell from
// its own error.
//
// The error of a difference holds, for each visit, the measurement's standard
// error without the network's bias, which both visits have alike, and the
// test-retest spread; between two scanners the spread between sites comes on
// top. Volumes by different weights are not compared.
package timeline

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"neuroscreen"
	"neuroscreen/internal/norm"
	"neuroscreen/internal/qc"
)

// Timeline of one person.
type Timeline struct {
	SubjectID string               `json:"subject_id"`
	Visits    []Visit              `json:"visits"`  // oldest first
	Changes   []Change             `json:"changes"` // from each visit that was not rejected to the next; of three or more, the first to the last too
	Notes     []neuroscreen.Reason `json:"notes"`
}

// Visit is one scan with its current result.
type Visit struct {
	ScanID        string   `json:"scan_id"`
	ResultVersion int      `json:"result_version"`
	ScanDate      string   `json:"scan_date,omitempty"` // YYYY-MM-DD
	AgeYears      *float64 `json:"age_years,omitempty"`
	norm.Scanner
	VoxelMM  [3]float64           `json:"voxel_mm"`       // along i, j, k
	Network  string               `json:"network_sha256"` // its weights; those of others are not comparable
	QC       neuroscreen.Verdict  `json:"qc"`
	Rejected bool                 `json:"rejected"` // its result, by a reviewer
	ICVMM3   *float64             `json:"intracranial_volume_mm3"`
	Volumes  []neuroscreen.Volume `json:"volumes"`

	sex        neuroscreen.Sex
	at         time.Time
	inTemplate bool // sizes may be a template's
}

// Verdict on a change.
type Verdict string

const (
	NoMeasurableChange Verdict = "no-measurable-change"
	Smaller            Verdict = "smaller"
	Larger             Verdict = "larger"
	NotComparable      Verdict = "not-comparable"
)

// Change of one structure between two visits. Pointers are nil where neither
// dates nor ages tell the time between, or the visits are not comparable, and
// those per year also within half a year.
type Change struct {
	Structure          string   `json:"structure"`
	From               string   `json:"from_scan_id"`
	To                 string   `json:"to_scan_id"`
	Years              *float64 `json:"years,omitempty"`
	MM3                float64  `json:"mm3"`
	Percent            float64  `json:"percent"` // of the earlier volume
	Detectable         *float64 `json:"smallest_detectable_mm3,omitempty"`
	MM3PerYear         *float64 `json:"mm3_per_year,omitempty"`
	PercentPerYear     *float64 `json:"percent_per_year,omitempty"`
	DetectablePerYear  *float64 `json:"smallest_detectable_mm3_per_year,omitempty"`
	ExpectedMM3PerYear *float64 `json:"expected_mm3_per_year,omitempty"` // of healthy people of that age, sex and head size
	Verdict            Verdict  `json:"verdict"`
	Text               string   `json:"text"`
}

// NewVisit takes what a timeline needs from a stored result.
func NewVisit(r neuroscreen.Result, m neuroscreen.Metadata, version int, received time.Time) Visit {
	v := Visit{
		ScanID: r.ScanID, ResultVersion: version, ScanDate: m.ScanDate, AgeYears: m.AgeYears, Scanner: norm.ScannerOf(m), VoxelMM: r.Input.VoxelMM, Network: r.Software.Network.SHA256,
		QC: r.QC.Verdict, inTemplate: r.QC.Has(qc.TemplateSpace), ICVMM3: r.IntracranialVolumeMM3, Volumes: r.Volumes, sex: m.Sex, at: received,
	}
	if v.Volumes == nil {
		v.Volumes = []neuroscreen.Volume{}
	}
	if d, err := time.Parse(time.DateOnly, m.ScanDate); err == nil {
		v.at = d
	}
	return v
}

// Make puts visits into order and compares them. The calibration is the site's,
// for the change that healthy people show.
func Make(subjectID string, visits []Visit, n *norm.Norms, cal norm.Calibration) Timeline {
	t := Timeline{SubjectID: subjectID, Visits: append([]Visit{}, visits...), Changes: []Change{}, Notes: []neuroscreen.Reason{}}
	// By dates if every visit has one, else by ages if every visit has one: a
	// mixture of the two would be no order.
	dated := !slices.ContainsFunc(visits, func(v Visit) bool { return v.ScanDate == "" })
	aged := !slices.ContainsFunc(visits, func(v Visit) bool { return v.AgeYears == nil })
	slices.SortStableFunc(t.Visits, func(a, b Visit) int {
		if !dated && aged {
			return cmp.Or(cmp.Compare(*a.AgeYears, *b.AgeYears), a.at.Compare(b.at))
		}
		return a.at.Compare(b.at)
	})
	c := comparer{norms: n, cal: cal}
	used := t.Used()
	for i := 1; i < len(used); i++ {
		t.Changes = append(t.Changes, c.compare(used[i-1], used[i])...)
	}
	if last := len(used) - 1; last > 1 {
		t.Changes = append(t.Changes, c.compare(used[0], used[last])...)
	}
	if len(used) < len(t.Visits) {
		t.Notes = append(t.Notes, neuroscreen.Reason{Code: "visit-rejected", Text: "a reviewer rejected the result of at least one scan: it is compared with none"})
	}
	t.Notes = append(t.Notes, notes(used)...)
	t.Notes = append(t.Notes, byChance(t.Changes)...)
	return t
}

// Used are the visits that are compared, oldest first: without those whose
// result a reviewer rejected.
func (t Timeline) Used() []Visit {
	return slices.DeleteFunc(slices.Clone(t.Visits), func(v Visit) bool { return v.Rejected })
}

type comparer struct {
	norms *norm.Norms
	cal   norm.Calibration
}

func (c comparer) compare(a, b Visit) []Change {
	years := between(a, b)
	earlier := map[string]neuroscreen.Volume{}
	for _, v := range a.Volumes {
		earlier[v.Structure] = v
	}
	var out []Change
	for _, w := range b.Volumes {
		v, ok := earlier[w.Structure]
		if !ok || v.MM3 <= 0 || w.MM3 <= 0 || v.LeftOut || w.LeftOut {
			continue
		}
		ch := Change{Structure: w.Structure, From: a.ScanID, To: b.ScanID, Years: years, MM3: w.MM3 - v.MM3, Percent: 100 * (w.MM3/v.MM3 - 1)}
		c.judge(&ch, a, b, v, w)
		out = append(out, ch)
	}
	return out
}

func (c comparer) judge(ch *Change, a, b Visit, v, w neuroscreen.Volume) {
	if a.Network != b.Network {
		ch.Verdict = NotComparable
		ch.Text = "Measured with different weights of the network: analyse the earlier scan again to compare."
		return
	}
	if a.inTemplate || b.inTemplate {
		ch.Verdict = NotComparable
		ch.Text = "An image lies in a template's space: its sizes may be the template's and not this person's."
		return
	}
	ea, eb := c.errorMM3(a, b, v), c.errorMM3(a, b, w)
	detectable := norm.Z95 * math.Hypot(ea, eb)
	ch.Detectable = &detectable
	switch {
	case math.Abs(ch.MM3) <= detectable:
		ch.Verdict = NoMeasurableChange
	case ch.MM3 < 0:
		ch.Verdict = Smaller
	default:
		ch.Verdict = Larger
	}
	if ch.Years != nil && *ch.Years >= leastForRate {
		y := *ch.Years
		ch.MM3PerYear, ch.PercentPerYear, ch.DetectablePerYear = ptr(ch.MM3/y), ptr(ch.Percent/y), ptr(detectable/y)
		ch.ExpectedMM3PerYear = c.expected(ch.Structure, a, b)
	}
	ch.Text = ch.words()
}

// errorMM3 is the standard error of one visit's volume for a comparison of a
// with b.
func (c comparer) errorMM3(a, b Visit, v neuroscreen.Volume) float64 {
	own := math.Sqrt(max(0, v.StandardErrorMM*v.StandardErrorMM-v.BiasErrorMM*v.BiasErrorMM))
	e := norm.NoiseMM3(v.Structure, norm.Measured{MM3: v.MM3, SE: own})
	if !a.Scanner.Differs(b.Scanner) { // not named, they are taken for one: a note says so
		return e
	}
	return math.Hypot(e, c.norms.BetweenSitesMM3(v.Structure, v.MM3))
}

// expected is the change per year of healthy people between the ages of two
// visits, at the mean of the measured head sizes: from people of different
// ages, since the norm followed no one.
func (c comparer) expected(structure string, a, b Visit) *float64 {
	if a.AgeYears == nil || b.AgeYears == nil || a.ICVMM3 == nil || b.ICVMM3 == nil || *b.AgeYears <= *a.AgeYears {
		return nil
	}
	icv := (*a.ICVMM3 + *b.ICVMM3) / 2
	at := func(age float64) (norm.Reference, error) {
		cal := c.cal
		cal.Weights, cal.Scanner = b.Network, b.Scanner
		return c.norms.Reference(structure, norm.Person{AgeYears: age, Sex: b.sex, ICVMM3: &icv}, cal)
	}
	from, err := at(*a.AgeYears)
	if err != nil {
		return nil
	}
	to, err := at(*b.AgeYears)
	if err != nil {
		return nil
	}
	return ptr((to.ExpectedMM3 - from.ExpectedMM3) / (*b.AgeYears - *a.AgeYears))
}

func (c Change) words() string {
	what, sign := "No measurable change", ""
	if c.Verdict != NoMeasurableChange {
		what = strings.ToUpper(string(c.Verdict[:1])) + string(c.Verdict[1:])
		sign = "more than "
	} else {
		sign = "within "
	}
	s := fmt.Sprintf("%s: %+.0f mm3 (%+.1f %%), %sthe %.0f mm3 that can be told from error", what, c.MM3, c.Percent, sign, *c.Detectable)
	if c.MM3PerYear != nil {
		s += fmt.Sprintf("; %+.0f mm3 a year", *c.MM3PerYear)
		if c.ExpectedMM3PerYear != nil {
			s += fmt.Sprintf(", where healthy people of that age differ by %+.0f", *c.ExpectedMM3PerYear)
		}
	}
	return s + "."
}

// leastAgeGap is the difference of two ages from which they tell the time
// between visits: posted ages are often whole years.
const leastAgeGap = 1.0

// leastForRate is the time in years from which a change per year is given: half
// a year, give or take some days. In less, error makes all of it.
const leastForRate = 0.49

// between is the time from one visit to the next in years, nil if it is not
// known or nothing.
func between(a, b Visit) *float64 {
	from, errA := time.Parse(time.DateOnly, a.ScanDate)
	to, errB := time.Parse(time.DateOnly, b.ScanDate)
	if errA == nil && errB == nil {
		if to.After(from) {
			return ptr(to.Sub(from).Hours() / 24 / 365.25)
		}
		return nil
	}
	if a.AgeYears != nil && b.AgeYears != nil && *b.AgeYears-*a.AgeYears >= leastAgeGap {
		return ptr(*b.AgeYears - *a.AgeYears)
	}
	return nil
}

// voxelsDiffer is the difference of two voxel sizes in mm that no rounding
// explains: another protocol.
const voxelsDiffer = 0.1

// sameVoxels compares sizes in whatever order the axes were stored.
func sameVoxels(a, b Visit) bool {
	x, y := a.VoxelMM, b.VoxelMM
	slices.Sort(x[:])
	slices.Sort(y[:])
	for i := range x {
		if math.Abs(x[i]-y[i]) > voxelsDiffer {
			return false
		}
	}
	return true
}

// headSizeDiffers is the relative difference of two intracranial volumes of
// one adult from which something is wrong with one of them.
const headSizeDiffers = 0.05

func notes(visits []Visit) []neuroscreen.Reason {
	var out []neuroscreen.Reason
	note := func(code, text string) {
		if !slices.ContainsFunc(out, func(r neuroscreen.Reason) bool { return r.Code == code }) {
			out = append(out, neuroscreen.Reason{Code: code, Text: text})
		}
	}
	for i, v := range visits {
		if v.QC == neuroscreen.VerdictReview {
			note("visit-quality-in-doubt", "the quality of at least one scan is in doubt: look at it before a change is believed")
		}
		if slices.ContainsFunc(v.Volumes, func(v neuroscreen.Volume) bool { return v.LeftOut }) {
			note("structure-left-out", "reviewers left structures out of some visits: these are not compared")
		}
		if v.inTemplate {
			note(qc.TemplateSpace, "some scans lie in a template's space and are not compared: send them as they left the scanner")
		}
		if i == 0 {
			continue
		}
		a := visits[i-1]
		switch {
		case a.Scanner.Differs(v.Scanner):
			note("scanner-changed", "the scans come from different scanners: the spread between sites widens the smallest detectable change")
		case a.Name == "" || v.Name == "":
			note("scanner-not-named", "not every scan names its scanner: one scanner is assumed")
		}
		if !sameVoxels(a, v) {
			note("voxels-changed", "the voxels of two visits differ by more than 0.1 mm: another protocol measures small structures differently, and the smallest detectable change does not hold that")
		}
		if a.Network != v.Network {
			note("weights-changed", "some visits were measured with other weights of the network and are not compared: analyse them again")
		}
		switch years := between(a, v); {
		case years == nil && a.at.Equal(v.at) && a.ScanDate != "" && v.ScanDate != "":
			note("same-day", "some scans are of one day: no change per year is given between them")
		case years == nil:
			note("time-between-unknown", "the time between some visits is not known: post scan_date for a change per year")
		case a.ScanDate == "" || v.ScanDate == "":
			note("time-from-ages", "the time between some visits was taken from the ages, for lack of scan dates")
		}
		if a.sex != v.sex {
			note("sex-differs", "the scans give different sexes for one person: one of them may be somebody else's")
		}
		if a.ICVMM3 != nil && v.ICVMM3 != nil && math.Abs(*v.ICVMM3 / *a.ICVMM3 - 1) > headSizeDiffers {
			note("head-size-differs", "the intracranial volumes of two visits differ by more than 5 %: one scan may be cropped or stripped, or somebody else's")
		}
	}
	return out
}

// enoughForChance is the number of comparisons from which some are expected to
// lie outside their error though nothing has changed.
const enoughForChance = 10

// byChance says how many changes chance alone would show.
func byChance(changes []Change) []neuroscreen.Reason {
	judged, changed := 0, 0
	for _, c := range changes {
		switch c.Verdict {
		case NotComparable:
			continue
		case Smaller, Larger:
			changed++
		}
		judged++
	}
	if judged < enoughForChance || changed == 0 {
		return nil
	}
	return []neuroscreen.Reason{{Code: "changes-by-chance", Text: fmt.Sprintf(
		"%d of %d changes lie outside their error; if nothing had changed, about %.0f would: one alone means little", changed, judged, math.Ceil(.05*float64(judged)))}}
}

func ptr[T any](v T) *T { return &v }
