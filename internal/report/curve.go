package report

import (
	"fmt"
	"html/template"
	"math"
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

// drawCurve plots the reference interval of a structure over age with the
// patient's volume and its 95 % measurement interval. It reports false when
// the result has no such volume or the curve no points.
func drawCurve(c Curve, volumes []neuroscreen.Volume, age *float64) (template.HTML, bool) {
	var vol *neuroscreen.Volume
	for n := range volumes {
		if volumes[n].Structure == c.Structure {
			vol = &volumes[n]
		}
	}
	if vol == nil || len(c.Points) < 2 {
		return "", false
	}
	first, last := c.Points[0].AgeYears, c.Points[len(c.Points)-1].AgeYears
	lo, hi := math.Inf(1), math.Inf(-1)
	for _, p := range c.Points {
		lo, hi = min(lo, p.P5), max(hi, p.P95)
	}
	half := 1.96 * vol.StandardErrorMM
	if age != nil {
		first, last = min(first, *age), max(last, *age)
		lo, hi = min(lo, vol.MM3-half), max(hi, vol.MM3+half)
	}
	lo = max(0, lo)
	step := niceStep((hi - lo) / 4)
	lo, hi = math.Floor(lo/step)*step, math.Ceil(hi/step)*step

	x := func(age float64) float64 { return plotLeft + (age-first)/(last-first)*(plotRight-plotLeft) }
	y := func(mm3 float64) float64 { return plotBottom - (mm3-lo)/(hi-lo)*(plotBottom-plotTop) }

	var b strings.Builder
	title := template.HTMLEscapeString(curveTitle(c.Structure))
	fmt.Fprintf(&b, `<svg class="curve" viewBox="0 0 %d %d" role="img" aria-label="%s over age">`, curveW, curveH, title)
	fmt.Fprintf(&b, `<text class="t" x="%d" y="14">%s</text>`, 2, title)
	for v := lo; v <= hi+step/2; v += step {
		fmt.Fprintf(&b, `<path class="g" d="M%d %.1fH%d"/><text class="n" x="%d" y="%.1f" text-anchor="end">%s</text>`,
			plotLeft, y(v), plotRight, plotLeft-5, y(v)+3, axisNumber(v/1000, step/1000))
	}
	for a := math.Ceil(first/20) * 20; a <= last; a += 20 {
		fmt.Fprintf(&b, `<text class="n" x="%.1f" y="%.0f" text-anchor="middle">%.0f</text>`, x(a), plotBottom+13, a)
	}
	fmt.Fprintf(&b, `<text class="n" x="%d" y="%.0f" text-anchor="end">age in years, volume in ml</text>`, plotRight, plotBottom+24)

	b.WriteString(`<path class="b" d="`)
	for n, p := range c.Points {
		fmt.Fprintf(&b, "%s%.1f %.1f", moveOrLine(n), x(p.AgeYears), y(p.P95))
	}
	for n := len(c.Points) - 1; n >= 0; n-- {
		fmt.Fprintf(&b, "L%.1f %.1f", x(c.Points[n].AgeYears), y(c.Points[n].P5))
	}
	b.WriteString(`Z"/><path class="m" d="`)
	for n, p := range c.Points {
		fmt.Fprintf(&b, "%s%.1f %.1f", moveOrLine(n), x(p.AgeYears), y(p.P50))
	}
	b.WriteString(`"/>`)
	if age != nil {
		fmt.Fprintf(&b, `<path class="e" d="M%.1f %.1fV%.1f"/><circle class="p" cx="%.1f" cy="%.1f" r="3.6"/>`,
			x(*age), y(max(lo, vol.MM3-half)), y(vol.MM3+half), x(*age), y(vol.MM3))
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
