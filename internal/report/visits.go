package report

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"neuroscreen/internal/timeline"
	"neuroscreen/internal/words"
)

// spanView is what changed from one earlier visit to this one.
type spanView struct {
	Since string
	Rows  []changeView
	Words string // how many changed, or why nothing is compared
}

type changeView struct {
	Name    string
	Cells   []cellView
	Verdict string
	Told    bool // apart from error
}

type cellView struct {
	Text string
	Bold bool
}

// mostChanges is how many rows a span has on the first sheet: the hippocampi,
// and what changed most beside what can be told.
const mostChanges = 4

var changeWords = map[timeline.Verdict]string{
	timeline.Smaller: "smaller", timeline.Larger: "larger", timeline.NoMeasurableChange: "no measurable change",
}

const visitWords = "Detectable: the smallest change that can be told from the error of both measurements (95 %). Shown are the hippocampi and what changed most beside that."

// spansOf compares the timeline's last visit, this one, with the one before and
// with the first.
func spansOf(t *timeline.Timeline) (spans []spanView, notes string) {
	if t == nil || t.Visits[len(t.Visits)-1].Rejected {
		return nil, ""
	}
	visits := t.Used()
	last := len(visits) - 1
	if last < 1 {
		return nil, ""
	}
	from := []int{last - 1}
	if last > 1 {
		from = append(from, 0)
	}
	for _, i := range from {
		spans = append(spans, spanOf(t, visits[i], visits[last]))
	}
	for _, n := range t.Notes {
		notes += prose(n.Text) + " "
	}
	return spans, notes + visitWords
}

func spanOf(t *timeline.Timeline, a, b timeline.Visit) spanView {
	v := spanView{Since: a.ScanDate}
	if v.Since == "" {
		v.Since = "a visit"
	}
	if a.AgeYears != nil {
		v.Since += fmt.Sprintf(" at %.3g years", *a.AgeYears)
	}
	var all []timeline.Change
	changed, compared := 0, 0
	for _, c := range t.Changes {
		if c.From != a.ScanID || c.To != b.ScanID {
			continue
		}
		all = append(all, c)
		if c.Verdict != timeline.NotComparable {
			compared++
		}
		if told(c) {
			changed++
		}
	}
	switch {
	case len(all) == 0:
		v.Words = "No volume of both visits can be compared."
		return v
	case compared == 0:
		v.Words = prose(all[0].Text)
		return v
	}
	v.Words = fmt.Sprintf("%d of %d volumes changed measurably.", changed, compared)
	if y := all[0].Years; y != nil {
		v.Since += fmt.Sprintf(", %.1f years", *y)
	}
	first := func(c timeline.Change) int {
		if strings.HasSuffix(c.Structure, "-Hippocampus") {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(all, func(x, y timeline.Change) int {
		return cmp.Or(cmp.Compare(first(x), first(y)), cmp.Compare(beyond(y), beyond(x)))
	})
	for _, c := range all[:min(len(all), mostChanges)] {
		if first(c) == 0 || told(c) {
			v.Rows = append(v.Rows, changeOf(c))
		}
	}
	return v
}

func told(c timeline.Change) bool {
	return c.Verdict == timeline.Smaller || c.Verdict == timeline.Larger
}

// beyond is a change in units of what can be told.
func beyond(c timeline.Change) float64 {
	if c.Detectable == nil || *c.Detectable == 0 {
		return 0
	}
	return math.Abs(c.MM3) / *c.Detectable
}

func changeOf(c timeline.Change) changeView {
	plus := func(v float64, digits int) string {
		s := signed(v, digits)
		if digits == 0 {
			s = words.Grouped(v, 0)
		}
		if v > 0 && strings.Trim(s, "0.") != "" {
			s = "+" + s
		}
		return s
	}
	maybe := func(v *float64, digits int) string {
		return optional(v, func(x float64) string { return plus(x, digits) })
	}
	return changeView{
		Name: curveTitle(c.Structure), Verdict: changeWords[c.Verdict], Told: told(c),
		Cells: []cellView{
			{plus(c.MM3, 0), told(c)}, {plus(c.Percent, 1), told(c)}, {optional(c.Detectable, func(x float64) string { return "± " + words.Grouped(x, 0) }), false},
			{maybe(c.MM3PerYear, 0), false}, {maybe(c.PercentPerYear, 1), false}, {maybe(c.ExpectedMM3PerYear, 0), false},
		},
	}
}

// visits are the spans as tables on the first sheet.
func (d *sheets) visits(v pageView) {
	if len(v.Spans) == 0 {
		return
	}
	const size = 6.6
	edges := [6]float64{58, 72, 96, 116, 131, 158} // right edges of the cells, mm
	d.heading("Compared with earlier visits")
	for _, s := range v.Spans {
		d.font("B", size-0.4, dim)
		d.y += d.line(size)
		d.at(margin, d.y, "Since "+s.Since)
		if len(s.Rows) > 0 {
			for n, t := range []string{"change, mm³", "%", "detectable, mm³", "mm³ a year", "% a year", "healthy, mm³ a year"} {
				d.rightAt(margin+edges[n], d.y, t)
			}
		}
		d.gap(0.7)
		d.stroke(black, 0.25)
		d.pdf.Line(margin, d.y, d.sheetW-margin, d.y)
		for _, r := range s.Rows {
			d.y += d.line(size)
			d.gap(0.3)
			d.font("", size, black)
			d.at(margin, d.y, r.Name)
			for n, c := range r.Cells {
				d.font(map[bool]string{true: "B"}[c.Bold], size, black)
				d.rightAt(margin+edges[n], d.y, c.Text)
			}
			d.font(map[bool]string{true: "B"}[r.Told], size, black)
			d.at(margin+edges[5]+3, d.y, r.Verdict)
			d.gap(0.6)
			d.stroke(rule, 0.15)
			d.pdf.Line(margin, d.y, d.sheetW-margin, d.y)
		}
		d.paragraph(margin, d.inner, "", 6.6, dim, s.Words)
		d.gap(0.6)
	}
	d.paragraph(margin, d.inner, "", 6.6, dim, v.VisitNotes)
}
