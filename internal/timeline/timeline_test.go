package timeline

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"neuroscreen"
	"neuroscreen/internal/norm"
	"neuroscreen/internal/qc"
)

var weights = neuroscreen.Asset{Name: "default.weights", SHA256: "aa"}

// visit is a result with one hippocampus, at a date and an age.
func visit(date string, age, mm3 float64, change ...func(*neuroscreen.Result, *neuroscreen.Metadata)) Visit {
	icv := 1.45e6
	r := neuroscreen.Result{ScanID: "scan of " + date, IntracranialVolumeMM3: &icv, QC: neuroscreen.QC{Verdict: neuroscreen.VerdictPass},
		Software: neuroscreen.Software{Network: weights},
		Volumes:  []neuroscreen.Volume{{Structure: "Left-Hippocampus", Label: 17, MM3: mm3, StandardErrorMM: 60, BiasErrorMM: 40}}}
	m := neuroscreen.Metadata{ScanDate: date, AgeYears: &age, Sex: neuroscreen.Female, Scanner: "one"}
	for _, f := range change {
		f(&r, &m)
	}
	return NewVisit(r, m, 1, time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC))
}

func build(visits ...Visit) Timeline {
	return Make("S", visits, norm.Default(), norm.Calibration{Segmenter: norm.Network})
}

func codes(t Timeline) string {
	var out []string
	for _, n := range t.Notes {
		out = append(out, n.Code)
	}
	return strings.Join(out, " ")
}

func TestChange(t *testing.T) {
	tl := build(visit("2022-03-01", 72, 3000), visit("2020-03-01", 70, 3600)) // posted the wrong way round
	if len(tl.Changes) != 1 || tl.Visits[0].ScanDate != "2020-03-01" {
		t.Fatalf("%+v", tl)
	}
	c := tl.Changes[0]
	own := math.Sqrt(60*60 - 40*40)
	want := 1.96 * math.Hypot(math.Hypot(own, .018*3600), math.Hypot(own, .018*3000))
	if math.Abs(*c.Detectable-want) > .01 {
		t.Errorf("smallest detectable change %.1f mm3, want %.1f", *c.Detectable, want)
	}
	if c.Verdict != Smaller || c.MM3 != -600 || math.Abs(*c.MM3PerYear+300) > 1 || math.Abs(*c.DetectablePerYear-want/2) > .1 || math.Abs(*c.PercentPerYear+100./12) > .1 {
		t.Errorf("%+v", c)
	}
	if e := *c.ExpectedMM3PerYear; e > -15 || e < -60 {
		t.Errorf("healthy people of 70 lose %.1f mm3 a year", e)
	}
	if !strings.HasPrefix(c.Text, "Smaller: -600 mm3") || !strings.Contains(c.Text, "more than the") {
		t.Errorf("%q", c.Text)
	}
	if codes(tl) != "" {
		t.Errorf("notes %q", codes(tl))
	}
}

func TestVerdicts(t *testing.T) {
	other := func(r *neuroscreen.Result, _ *neuroscreen.Metadata) { r.Software.Network.SHA256 = "bb" }
	scanner := func(_ *neuroscreen.Result, m *neuroscreen.Metadata) { m.Scanner = "two" }
	field := func(t float64) func(*neuroscreen.Result, *neuroscreen.Metadata) {
		return func(_ *neuroscreen.Result, m *neuroscreen.Metadata) { m.FieldStrengthT = &t }
	}
	maker := func(_ *neuroscreen.Result, m *neuroscreen.Metadata) { m.Scanner, m.Manufacturer = "", "GE" }
	voxels := func(x, y, z float64) func(*neuroscreen.Result, *neuroscreen.Metadata) {
		return func(r *neuroscreen.Result, _ *neuroscreen.Metadata) { r.Input.VoxelMM = [3]float64{x, y, z} }
	}
	for name, tt := range map[string]struct {
		a, b  Visit
		want  Verdict
		text  string
		notes string
	}{
		"inside the error":                {visit("2020-01-01", 70, 3600), visit("2021-01-01", 71, 3500), NoMeasurableChange, "No measurable change: -100 mm3", ""},
		"growth":                          {visit("2020-01-01", 70, 3000), visit("2021-01-01", 71, 3600), Larger, "Larger: +600 mm3", ""},
		"other weights":                   {visit("2020-01-01", 70, 3600, other), visit("2021-01-01", 71, 1000), NotComparable, "analyse the earlier scan again", "weights-changed"},
		"another scanner, widened":        {visit("2020-01-01", 70, 3600, scanner), visit("2021-01-01", 71, 3250), NoMeasurableChange, "", "scanner-changed"},
		"another field strength, widened": {visit("2020-01-01", 70, 3600, field(1.5)), visit("2021-01-01", 71, 3250, field(3)), NoMeasurableChange, "", "scanner-changed"},
		"another maker, widened": {visit("2020-01-01", 70, 3600, maker), visit("2021-01-01", 71, 3250, maker, func(_ *neuroscreen.Result, m *neuroscreen.Metadata) { m.Manufacturer = "Philips" }),
			NoMeasurableChange, "", "scanner-changed"},
		"field strength known once": {visit("2020-01-01", 70, 3600), visit("2021-01-01", 71, 3250, field(3)), Smaller, "", ""},
		"thicker slices":            {visit("2020-01-01", 70, 3600, voxels(1, 1, 1)), visit("2021-01-01", 71, 3250, voxels(1, 1, 1.2)), Smaller, "", "voxels-changed"},
		"the same voxels, turned":   {visit("2020-01-01", 70, 3600, voxels(1, .9, 1.2)), visit("2021-01-01", 71, 3250, voxels(1.2, 1, .95)), Smaller, "", ""},
		"the same on one scanner":   {visit("2020-01-01", 70, 3600), visit("2021-01-01", 71, 3250), Smaller, "", ""},
		"scanner not named": {visit("2020-01-01", 70, 3600, func(_ *neuroscreen.Result, m *neuroscreen.Metadata) { m.Scanner = "" }), visit("2021-01-01", 71, 3250),
			Smaller, "", "scanner-not-named"},
	} {
		t.Run(name, func(t *testing.T) {
			tl := build(tt.a, tt.b)
			if c := tl.Changes[0]; c.Verdict != tt.want || !strings.Contains(c.Text, tt.text) || (c.Detectable == nil) != (tt.want == NotComparable) {
				t.Errorf("%+v", c)
			}
			if codes(tl) != tt.notes {
				t.Errorf("notes %q, want %q", codes(tl), tt.notes)
			}
		})
	}
}

// Within half a year a change is error for the most part, and its rate more so.
func TestNoRateWithinHalfAYear(t *testing.T) {
	for date, rate := range map[string]bool{"2020-01-08": false, "2020-06-01": false, "2020-07-01": true, "2021-01-01": true} {
		c := build(visit("2020-01-01", 70, 3600), visit(date, 71, 3000)).Changes[0]
		if c.Years == nil || c.Verdict != Smaller || c.Detectable == nil {
			t.Errorf("%s: %+v", date, c)
		}
		if given := c.MM3PerYear != nil; given != rate || given != strings.Contains(c.Text, "a year") || given != (c.ExpectedMM3PerYear != nil) || given != (c.PercentPerYear != nil) || given != (c.DetectablePerYear != nil) {
			t.Errorf("%s: a rate %v, %q", date, given, c.Text)
		}
	}
}

// A rejected result is compared with none; those round it are compared.
func TestRejectedVisit(t *testing.T) {
	rejected := func(v Visit) Visit { v.Rejected = true; return v }
	first, bad, last := visit("2020-01-01", 70, 3600), rejected(visit("2021-01-01", 71, 1200)), visit("2022-01-01", 72, 3590)
	tl := build(first, bad, last)
	if len(tl.Visits) != 3 || len(tl.Changes) != 1 || tl.Changes[0].From != first.ScanID || tl.Changes[0].To != last.ScanID || tl.Changes[0].Verdict != NoMeasurableChange || codes(tl) != "visit-rejected" {
		t.Errorf("%+v, notes %q", tl.Changes, codes(tl))
	}
	if tl := build(first, bad); len(tl.Changes) != 0 {
		t.Errorf("%+v", tl.Changes)
	}
}

// Of two scans of an unchanged hippocampus, 5 % lie outside: errors drawn as
// they are said to be, with one bias for both visits.
func TestUnchangedIsRarelyAChange(t *testing.T) {
	g := rand.New(rand.NewPCG(7, 8))
	own, outside, n := math.Sqrt(60*60-40*40), 0, 4000
	for range n {
		bias := 40 * g.NormFloat64()
		draw := func() float64 { return 3500 + bias + own*g.NormFloat64() + .018*3500*g.NormFloat64() }
		if build(visit("2020-01-01", 70, draw()), visit("2021-01-01", 71, draw())).Changes[0].Verdict != NoMeasurableChange {
			outside++
		}
	}
	if share := float64(outside) / float64(n); math.Abs(share-.05) > .012 {
		t.Errorf("%.3f of unchanged hippocampi have changed, want .05", share)
	}
}

func TestTimeBetween(t *testing.T) {
	for name, tt := range map[string]struct {
		a, b  Visit
		want  float64 // 0: not known
		notes string
	}{
		"by dates":          {visit("2020-01-01", 70, 3500), visit("2020-07-01", 70, 3500), .498, ""},
		"by ages":           {visit("", 70, 3500), visit("2022-01-01", 72, 3500), 2, "time-from-ages"},
		"ages too near":     {visit("", 70, 3500), visit("", 70.5, 3500), 0, "time-between-unknown"},
		"on the same day":   {visit("2020-01-01", 70, 3500), visit("2020-01-01", 70, 3500), 0, "same-day"},
		"ages out of order": {visit("", 72, 3500), visit("", 70, 3500), 2, "time-from-ages"},
	} {
		t.Run(name, func(t *testing.T) {
			tl := build(tt.a, tt.b)
			c := tl.Changes[0]
			if (tt.want == 0) != (c.Years == nil) || c.Years != nil && math.Abs(*c.Years-tt.want) > .01 {
				t.Errorf("years %v, want %g", c.Years, tt.want)
			}
			if (c.Years == nil) != (c.MM3PerYear == nil) {
				t.Errorf("%+v", c)
			}
			if codes(tl) != tt.notes {
				t.Errorf("notes %q, want %q", codes(tl), tt.notes)
			}
		})
	}
}

func TestNotesOfDoubt(t *testing.T) {
	got := codes(build(visit("2020-01-01", 70, 3500), visit("2021-01-01", 71, 3500, func(r *neuroscreen.Result, m *neuroscreen.Metadata) {
		small := 1.2e6
		r.IntracranialVolumeMM3, r.QC.Verdict, m.Sex = &small, neuroscreen.VerdictReview, neuroscreen.Male
	})))
	if got != "visit-quality-in-doubt sex-differs head-size-differs" {
		t.Errorf("notes %q", got)
	}
}

// TestTemplateSpace: what may be a template's size is no change of the person's.
func TestTemplateSpace(t *testing.T) {
	resampled := func(r *neuroscreen.Result, _ *neuroscreen.Metadata) {
		r.QC = neuroscreen.QC{Verdict: neuroscreen.VerdictReview, Reasons: []neuroscreen.Reason{{Code: qc.TemplateSpace}}}
	}
	tl := build(visit("2020-03-01", 70, 3500), visit("2022-03-01", 72, 4400, resampled), visit("2024-03-01", 74, 3400))
	for i, want := range []Verdict{NotComparable, NotComparable, NoMeasurableChange} {
		if c := tl.Changes[i]; c.Verdict != want || want == NotComparable && (c.Detectable != nil || c.MM3PerYear != nil) {
			t.Errorf("change %d: %+v, want %s", i, c, want)
		}
	}
	if !strings.Contains(codes(tl), qc.TemplateSpace) {
		t.Errorf("notes %s", codes(tl))
	}
}

func TestThreeVisits(t *testing.T) {
	tl := build(visit("2020-01-01", 70, 3600), visit("2021-01-01", 71, 3450), visit("2022-01-01", 72, 3300))
	var pairs []string
	for _, c := range tl.Changes {
		pairs = append(pairs, c.From[8:12]+"-"+c.To[8:12]+" "+string(c.Verdict))
	}
	if want := []string{"2020-2021 no-measurable-change", "2021-2022 no-measurable-change", "2020-2022 smaller"}; !slices.Equal(pairs, want) {
		t.Errorf("%q, want %q", pairs, want)
	}
	if one := build(visit("2020-01-01", 70, 3600)); len(one.Visits) != 1 || one.Changes == nil || len(one.Changes) != 0 || one.Notes == nil {
		t.Errorf("one visit: %+v", one)
	}
	if none := build(); none.Visits == nil || len(none.Visits) != 0 {
		t.Errorf("no visit: %+v", none)
	}
}

// Of many structures some change by chance, and the reader is told how many.
func TestChangesByChance(t *testing.T) {
	many := func(mm3 ...float64) func(*neuroscreen.Result, *neuroscreen.Metadata) {
		return func(r *neuroscreen.Result, _ *neuroscreen.Metadata) {
			for i, v := range mm3 {
				r.Volumes = append(r.Volumes, neuroscreen.Volume{Structure: "Structure " + string(rune('a'+i)), MM3: v, StandardErrorMM: 50})
			}
		}
	}
	same := []float64{3000, 3000, 3000, 3000, 3000, 3000, 3000, 3000, 3000, 3000}
	one := append([]float64{2000}, same[1:]...)
	if got := codes(build(visit("2020-01-01", 70, 3600, many(same...)), visit("2021-01-01", 71, 3600, many(same...)))); got != "" {
		t.Errorf("nothing changed: notes %q", got)
	}
	tl := build(visit("2020-01-01", 70, 3600, many(same...)), visit("2021-01-01", 71, 3600, many(one...)))
	if got := codes(tl); got != "changes-by-chance" || !strings.HasPrefix(tl.Notes[0].Text, "1 of 11 changes lie outside their error; if nothing had changed, about 1 would") {
		t.Errorf("notes %+v", tl.Notes)
	}
}

// A structure that only one visit has, or that was not found, is left out.
func TestMissingStructures(t *testing.T) {
	more := func(r *neuroscreen.Result, _ *neuroscreen.Metadata) {
		r.Volumes = append(r.Volumes, neuroscreen.Volume{Structure: "Left-Putamen", MM3: 4000}, neuroscreen.Volume{Structure: "CSF", MM3: 0})
	}
	tl := build(visit("2020-01-01", 70, 3600), visit("2021-01-01", 71, 3500, more))
	if len(tl.Changes) != 1 || tl.Changes[0].Structure != "Left-Hippocampus" {
		t.Errorf("%+v", tl.Changes)
	}
}

// TestLeftOut: what a reviewer left out of a visit is in no change with it;
// the visits before and after are still compared with each other.
func TestLeftOut(t *testing.T) {
	out := func(r *neuroscreen.Result, _ *neuroscreen.Metadata) { r.Volumes[0].LeftOut = true }
	if tl := build(visit("2020-03-01", 70, 3600), visit("2022-03-01", 72, 3000, out)); len(tl.Changes) != 0 || codes(tl) != "structure-left-out" || len(tl.Visits) != 2 {
		t.Errorf("%+v", tl)
	}
	if tl := build(visit("2020-03-01", 70, 3600), visit("2021-03-01", 71, 9000, out), visit("2022-03-01", 72, 3000)); len(tl.Changes) != 1 || tl.Changes[0].MM3 != -600 || codes(tl) != "structure-left-out" {
		t.Errorf("%+v", tl)
	}
}
