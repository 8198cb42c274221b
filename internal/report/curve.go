package report

import (
	"fmt"
	"html/template"
	"math"
	"slices"
	"strings"

	"neuroscreen"
	"neuroscreen/internal/words"
)

// Size of a curve's drawing, in CSS px of its own coordinates.
const (
	curveW, curveH              = 200, 152
	plotLeft, plotRight         = 26, 188
	plotTop, plotBottom float64 = 24, 126
)

// plot is a curve laid out: where ages and volumes lie, from 0 to 1 each.
type plot struct {
	title       string
	points      []CurvePoint
	vol         neuroscreen.Volume
	age         *float64
	half        float64 // of the volume's 95 % measurement interval
	first, last float64 // years
	lo, hi      float64 // mm3
	step        float64 // between grid lines
}

// plotOf lays out the reference interval of a structure over age with the
// patient's volume. It reports false when the result has no such volume, when
// that was not compared with healthy people, or when the curve has no points.
func plotOf(c Curve, volumes []neuroscreen.Volume, age *float64) (plot, bool) {
	at := slices.IndexFunc(volumes, func(v neuroscreen.Volume) bool { return v.Structure == c.Structure })
	if at < 0 || len(c.Points) < 2 || volumes[at].Z == nil {
		return plot{}, false
	}
	p := plot{title: curveTitle(c.Structure), points: c.Points, vol: volumes[at], age: age, half: 1.96 * volumes[at].StandardErrorMM,
		first: c.Points[0].AgeYears, last: c.Points[len(c.Points)-1].AgeYears, lo: math.Inf(1), hi: math.Inf(-1)}
	for _, pt := range c.Points {
		p.lo, p.hi = min(p.lo, pt.P5), max(p.hi, pt.P95)
	}
	if age != nil {
		p.first, p.last = min(p.first, *age), max(p.last, *age)
		p.lo, p.hi = min(p.lo, p.vol.MM3-p.half), max(p.hi, p.vol.MM3+p.half)
	}
	p.lo = max(0, p.lo)
	p.step = niceStep((p.hi - p.lo) / 4)
	p.lo, p.hi = math.Floor(p.lo/p.step)*p.step, math.Ceil(p.hi/p.step)*p.step
	return p, true
}

func (p plot) x(age float64) float64 { return (age - p.first) / (p.last - p.first) }
func (p plot) y(mm3 float64) float64 { return (mm3 - p.lo) / (p.hi - p.lo) }

// lines are the volumes of the grid with their names in ml.
func (p plot) lines() (out []tick) {
	for v := p.lo; v <= p.hi+p.step/2; v += p.step {
		out = append(out, tick{v, axisNumber(v/1000, p.step/1000)})
	}
	return out
}

func (p plot) ages() (out []tick) {
	for a := math.Ceil(p.first/20) * 20; a <= p.last; a += 20 {
		out = append(out, tick{a, fmt.Sprintf("%.0f", a)})
	}
	return out
}

type tick struct {
	at   float64
	name string
}

// axesName says what the axes are.
const axesName = "age in years, volume in ml"

func drawCurve(c Curve, volumes []neuroscreen.Volume, age *float64) (template.HTML, bool) {
	p, ok := plotOf(c, volumes, age)
	if !ok {
		return "", false
	}
	x := func(age float64) float64 { return plotLeft + p.x(age)*(plotRight-plotLeft) }
	y := func(mm3 float64) float64 { return plotBottom - p.y(mm3)*(plotBottom-plotTop) }

	var b strings.Builder
	title := template.HTMLEscapeString(p.title)
	fmt.Fprintf(&b, `<svg class="curve" viewBox="0 0 %d %d" role="img" aria-label="%s over age">`, curveW, curveH, title)
	fmt.Fprintf(&b, `<text class="t" x="%d" y="14">%s</text>`, 2, title)
	for _, t := range p.lines() {
		fmt.Fprintf(&b, `<path class="g" d="M%d %.1fH%d"/><text class="n" x="%d" y="%.1f" text-anchor="end">%s</text>`,
			plotLeft, y(t.at), plotRight, plotLeft-5, y(t.at)+3, t.name)
	}
	for _, t := range p.ages() {
		fmt.Fprintf(&b, `<text class="n" x="%.1f" y="%.0f" text-anchor="middle">%s</text>`, x(t.at), plotBottom+13, t.name)
	}
	fmt.Fprintf(&b, `<text class="n" x="%d" y="%.0f" text-anchor="end">%s</text>`, plotRight, plotBottom+24, axesName)

	b.WriteString(`<path class="b" d="`)
	for n, pt := range p.points {
		fmt.Fprintf(&b, "%s%.1f %.1f", moveOrLine(n), x(pt.AgeYears), y(pt.P95))
	}
	for n := len(p.points) - 1; n >= 0; n-- {
		fmt.Fprintf(&b, "L%.1f %.1f", x(p.points[n].AgeYears), y(p.points[n].P5))
	}
	b.WriteString(`Z"/><path class="m" d="`)
	for n, pt := range p.points {
		fmt.Fprintf(&b, "%s%.1f %.1f", moveOrLine(n), x(pt.AgeYears), y(pt.P50))
	}
	b.WriteString(`"/>`)
	if age != nil {
		fmt.Fprintf(&b, `<path class="e" d="M%.1f %.1fV%.1f"/><circle class="p" cx="%.1f" cy="%.1f" r="3.6"/>`,
			x(*age), y(max(p.lo, p.vol.MM3-p.half)), y(p.vol.MM3+p.half), x(*age), y(p.vol.MM3))
	}
	b.WriteString(`</svg>`)
	return template.HTML(b.String()), true
}

func moveOrLine(n int) string {
	if n == 0 {
		return "M"
	}
	return "L"
}

func curveTitle(structure string) string {
	if name, ok := strings.CutPrefix(structure, "Left-"); ok {
		return words.Structure(name) + ", left"
	}
	if name, ok := strings.CutPrefix(structure, "Right-"); ok {
		return words.Structure(name) + ", right"
	}
	return words.Structure(structure)
}

// niceStep rounds up to 1, 2 or 5 times a power of ten.
func niceStep(x float64) float64 {
	if !(x > 0) {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(x)))
	for _, m := range []float64{1, 2, 5} {
		if x <= m*power*1.0001 {
			return m * power
		}
	}
	return 10 * power
}

// axisNumber has as many decimals as the step between ticks needs.
func axisNumber(v, step float64) string {
	digits := max(0, -int(math.Floor(math.Log10(step)+1e-9)))
	return signed(v, digits)
}
