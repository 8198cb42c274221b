package report

import (
	"bytes"
	"fmt"
	"image/png"
	"io"
	"strings"
	"time"
	"unicode"

	"github.com/go-pdf/fpdf"
	"golang.org/x/image/font/gofont/gobold"
	"golang.org/x/image/font/gofont/goregular"

	"neuroscreen"
	"neuroscreen/internal/words"
)

// Margins of a sheet, mm.
const (
	margin   = 12.0
	footRoom = 9.0 // under the text, for the foot
)

// PDF writes the report as two sheets of paper: the result, and how it came
// about. It says what HTML says, in embedded fonts; the same page gives the
// same bytes.
func PDF(w io.Writer, p Page) error {
	if p.Result.FMRI != nil {
		v := viewRun(p)
		d := newSheets(v.Page, runTitle, fitRun(v))
		d.runResult(v)
		d.runMethod(v)
		return d.pdf.Output(w)
	}
	v := view(p)
	d := newSheets(v.Page, pageTitle, fit(v))
	d.result(v)
	d.method(v)
	return d.pdf.Output(w)
}

// fitted is how large the sheets are set, so that each holds what has to be
// said.
type fitted struct {
	Result, Method float64 // scales of the sheets' text and drawings
	Picture        float64 // greatest height, mm at scale 1
}

var scales = []float64{1, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7}

func fit(v pageView) fitted {
	trial := newSheets(v.Page, pageTitle, fitted{}) // loading the fonts takes longer than setting a sheet
	return trial.fit([]float64{84, 78, 72, 66, 60}, func() bool { return trial.result(v) }, func() bool { return trial.method(v) })
}

// fit tries sizes until both sheets hold what has to be said, which differs in
// length. On the first, the picture gives way before the text.
func (d *sheets) fit(pictures []float64, result, method func() bool) fitted {
	for _, d.Method = range scales {
		if method() {
			break
		}
	}
	for _, d.Result = range scales {
		for _, d.Picture = range pictures {
			if result() {
				return d.fitted
			}
		}
	}
	return d.fitted
}

// sheets draws with a pen that moves down. Sizes are in mm and points, times
// scale.
type sheets struct {
	fitted
	title                 string
	pdf                   *fpdf.Fpdf
	scale, y              float64
	sheetW, sheetH, inner float64 // mm
	lossy                 bool    // the sheet lacks characters of its text
}

// Titles of the reports.
const (
	pageTitle = "Brain volumes and patterns"
	runTitle  = "Functional MRI run"
)

func newSheets(p Page, title string, f fitted) *sheets {
	pdf := fpdf.NewCustom(&fpdf.InitType{UnitStr: "mm", Size: fpdf.SizeType{Wd: p.Paper.Width, Ht: p.Paper.Height}})
	pdf.AddUTF8FontFromBytes("go", "", goregular.TTF)
	pdf.AddUTF8FontFromBytes("go", "B", gobold.TTF)
	pdf.SetAutoPageBreak(false, 0)
	pdf.SetCellMargin(0)
	pdf.SetMargins(margin, margin, margin)
	pdf.SetCatalogSort(true)
	at := p.Created.UTC()
	if at.IsZero() {
		at = time.Unix(0, 0).UTC() // the library would take the present
	}
	pdf.SetCreationDate(at)
	pdf.SetModificationDate(at)
	pdf.SetTitle(title, true)
	pdf.SetCreator("NeuroScreen "+p.Result.Software.Version, true)
	pdf.SetLang("en")
	return &sheets{fitted: f, title: title, pdf: pdf, sheetW: p.Paper.Width, sheetH: p.Paper.Height, inner: p.Paper.Width - 2*margin}
}

// Greys and the two colours of the page; each colour has a sign or word too.
type tone [3]int

var (
	black = tone{22, 32, 42}
	dim   = tone{90, 103, 114}
	rule  = tone{205, 211, 217}
	shade = tone{222, 227, 232}
	mark  = tone{154, 52, 18}
	note  = tone{31, 78, 121}
)

func (d *sheets) font(style string, size float64, c tone) {
	d.pdf.SetFont("go", style, size*d.scale)
	d.pdf.SetTextColor(c[0], c[1], c[2])
}

func (d *sheets) line(size float64) float64 { return size * d.scale * 0.3528 * 1.27 }

// embedded tells which characters the fonts have: regular and bold the same.
var embedded = parsed(goregular.TTF)

// printable has "?" for what the fonts lack, spaces apart, and tells whether
// text is whole. The library panics at an emoji, and sets a script that the
// fonts lack without width: it would neither wrap nor show.
func printable(text string) (_ string, whole bool) {
	whole = true
	text = strings.Map(func(r rune) rune {
		switch glyph, err := embedded.GlyphIndex(nil, r); {
		case err == nil && glyph != 0:
			return r
		case r == '\u202f': // narrow, and no line ends there
			return '\u00a0'
		case unicode.IsSpace(r):
			return ' '
		}
		whole = false
		return '?'
	}, text)
	return text, whole
}

// printable remembers for the foot what was lost.
func (d *sheets) printable(text string) string {
	text, whole := printable(text)
	d.lossy = d.lossy || !whole
	return text
}

func (d *sheets) at(x, y float64, text string) { d.pdf.Text(x, y, d.printable(text)) }

func (d *sheets) width(text string) float64 { return d.pdf.GetStringWidth(d.printable(text)) }

func (d *sheets) rightAt(x, y float64, text string) { d.at(x-d.width(text), y, text) }

// paragraph sets text into a column from x on and moves the pen below it.
func (d *sheets) paragraph(x, w float64, style string, size float64, c tone, text string) {
	d.font(style, size, c)
	for _, l := range d.pdf.SplitText(d.printable(text), w) {
		d.y += d.line(size)
		d.at(x, d.y, l)
	}
}

func (d *sheets) gap(mm float64) { d.y += mm * d.scale }

func (d *sheets) heading(text string) {
	d.gap(1.9)
	d.paragraph(margin, d.inner, "B", 9.6, black, text)
	d.gap(0.7)
}

func (d *sheets) stroke(c tone, width float64) {
	d.pdf.SetDrawColor(c[0], c[1], c[2])
	d.pdf.SetLineWidth(width)
}

func (d *sheets) fill(c tone) { d.pdf.SetFillColor(c[0], c[1], c[2]) }

func (d *sheets) top(right string) {
	d.pdf.AddPage()
	d.y, d.lossy = margin, false
	d.paragraph(margin, d.inner, "B", 14, black, d.title)
	d.font("", 8, dim)
	d.rightAt(d.sheetW-margin, d.y, right)
	d.gap(1.6)
	d.stroke(black, 0.5)
	d.pdf.Line(margin, d.y, d.sheetW-margin, d.y)
}

// foot tells whose sheet it is, and reports whether the text above left room.
func (d *sheets) foot(r *neuroscreen.Result, n int) bool {
	fits := d.y <= d.sheetH-margin-footRoom+4
	d.stroke(rule, 0.2)
	d.pdf.Line(margin, d.sheetH-margin-3, d.sheetW-margin, d.sheetH-margin-3)
	d.pdf.SetFont("go", "", 6.6)
	d.pdf.SetTextColor(dim[0], dim[1], dim[2])
	d.at(margin, d.sheetH-margin, fmt.Sprintf("%s, scan %s", r.SubjectID, r.ScanID))
	d.rightAt(d.sheetW-margin, d.sheetH-margin, fmt.Sprintf("Research use. %d of 2", n))
	if d.lossy {
		d.at(margin, d.sheetH-margin+3, "Some characters cannot be printed here; the page shows them.")
	}
	return fits
}

// result is the first sheet.
func (d *sheets) result(v pageView) bool {
	d.scale = d.Result
	d.top("NeuroScreen " + v.Result.Software.Version + ", for research use")
	d.decision(v.Decision)
	for _, a := range v.Amended {
		d.decision(a)
	}
	d.facts(v.Facts)
	d.heading("Findings")
	for _, s := range v.Scores {
		d.score(s)
	}
	if len(v.Scores) == 0 {
		d.paragraph(margin, d.inner, "", 8, black, "No pattern was scored.")
	}
	d.heading("Image quality")
	text := v.Verdict + "."
	if len(v.Quality) == 0 {
		text += " " + imagePasses
	}
	d.paragraph(margin, d.inner, "", 8, black, strings.Join(append([]string{text}, v.Quality...), " "))
	d.paragraph(margin, d.inner, "", 6.6, dim, notDetected)
	d.picture(v.Page.Preview, len(v.Amended) > 0)
	d.curves(v)
	if len(v.Key) > 0 {
		d.heading("Farthest from the reference")
		d.pairs(v.Key, nil)
		d.gap(0.6)
		var indices []string
		for _, i := range v.Indices {
			t := i.Name + " " + i.Value
			if i.Reference != "" {
				t += " (healthy " + i.Reference + ")"
			}
			indices = append(indices, t)
		}
		text := fmt.Sprintf("Of %d volumes with a reference, %d lie outside the 5th to 95th percentile; %s. %s.",
			v.Tested, v.Outside, v.ByChance, strings.Join(indices, "; "))
		d.paragraph(margin, d.inner, "", 6.6, dim, strings.Join(append([]string{text}, v.Calibration...), " "))
	}
	d.visits(v)
	d.signature(v.IntendedUse)
	return d.foot(v.Result, 1)
}

// signature stands under what the report is for.
func (d *sheets) signature(intendedUse string) {
	d.gap(1.5)
	d.paragraph(margin, d.inner, "", 6.8, dim, intendedUse)
	d.gap(9)
	d.stroke(black, 0.25)
	d.pdf.Line(margin, d.y, margin+110, d.y)
	d.pdf.Line(margin+122, d.y, d.sheetW-margin, d.y)
	d.font("", 7, dim)
	d.y += d.line(7)
	d.at(margin, d.y, "Reviewed by")
	d.at(margin+122, d.y, "Date")
}

func (d *sheets) decision(v decisionView) {
	d.gap(1.6)
	top := d.y
	c := black
	if v.Kind == "reject" {
		c = mark
		v.Headline = strings.ToUpper(v.Headline)
	}
	d.gap(0.8)
	d.paragraph(margin+3, d.inner-6, "B", 8.4, c, v.Headline)
	left := margin + 3 + d.width(v.Headline) + 2
	d.font("", 8, black)
	if left+d.width(v.Text) <= d.sheetW-margin-3 {
		d.at(left, d.y, v.Text)
	} else {
		d.paragraph(margin+3, d.inner-6, "", 8, black, v.Text)
	}
	d.gap(1.4)
	d.stroke(c, map[string]float64{"reject": 0.8}[v.Kind]+0.25)
	if v.Kind == "none" {
		d.pdf.SetDashPattern([]float64{1.2, 1}, 0)
	}
	d.pdf.Rect(margin, top, d.inner, d.y-top, "D")
	d.pdf.SetDashPattern(nil, 0)
}

// facts run on in lines; wide ones have one of their own.
func (d *sheets) facts(facts []fact) {
	const size = 7.8
	d.gap(1.4)
	d.y += d.line(size)
	x := margin
	for n, f := range facts {
		d.font("B", size, black)
		name := d.width(f.Name)
		d.font("", size, black)
		w := name + 1.6 + d.width(f.Value) + 5
		if n > 0 && (f.Wide || x+w > d.sheetW-margin+5) {
			x = margin
			d.y += d.line(size)
		}
		d.font("", size, dim)
		d.at(x, d.y, f.Name)
		d.font("", size, black)
		d.at(x+name+1.6, d.y, f.Value)
		x += w
	}
}

// sign draws what a flag is without colour: a triangle, a diamond, a dash.
func (d *sheets) sign(flag neuroscreen.Flag, x, y, r float64) tone {
	switch flag {
	case neuroscreen.FlagFlagged:
		d.fill(mark)
		d.pdf.Polygon([]fpdf.PointType{{X: x, Y: y - r}, {X: x + r, Y: y + r}, {X: x - r, Y: y + r}}, "F")
		return mark
	case neuroscreen.FlagReview:
		d.fill(note)
		d.pdf.Polygon([]fpdf.PointType{{X: x, Y: y - r}, {X: x + r, Y: y}, {X: x, Y: y + r}, {X: x - r, Y: y}}, "F")
		return note
	}
	d.stroke(dim, 0.4)
	d.pdf.Line(x-r, y, x+r, y)
	return black
}

func (d *sheets) score(s scoreView) {
	const size = 8.8
	d.gap(0.5)
	d.font("B", size, black)
	d.y += d.line(size)
	c := d.sign(s.Flag, margin+1.3, d.y-1.1*d.scale, 1.2*d.scale)
	d.at(margin+4, d.y, s.Title+": ")
	x := margin + 4 + d.width(s.Title+": ")
	d.font("B", size, c)
	d.at(x, d.y, s.Headline)
	put := func(style string, size float64, c tone, text string) {
		if text = strings.TrimSpace(text); text != "" {
			d.paragraph(margin+4, d.inner-4, style, size, c, text)
		}
	}
	put("", 8, black, s.Text)
	if s.LeftOut != "" {
		put("B", 8, black, "Rests on what the reviewer left out: "+s.LeftOut+".")
	}
	put("", 8, black, s.Reasons)
	put("", 8, black, s.Set)
	evidence := s.Evidence
	if evidence != "" {
		evidence = "Evidence: " + evidence
	}
	put("", 6.6, dim, evidence+" "+s.Use)
	d.gap(0.5)
}

// picture is as large as the first sheet has room for.
func (d *sheets) picture(data []byte, leftOut bool) {
	if _, err := png.DecodeConfig(bytes.NewReader(data)); err != nil {
		return // none, or damaged: the numbers still stand
	}
	d.gap(1.4)
	d.centred("preview", data, d.Picture*d.scale)
	caption := outlinesCaption
	if leftOut {
		caption += " " + outlinedToo
	}
	d.paragraph(margin, d.inner, "", 6.6, dim, caption)
}

// centred puts a picture of at most that height, mm, in the middle of a line.
func (d *sheets) centred(name string, data []byte, h float64) {
	info := d.pdf.RegisterImageOptionsReader(name, fpdf.ImageOptions{ImageType: "PNG"}, bytes.NewReader(data))
	w := h * info.Width() / info.Height()
	if w > d.inner {
		w, h = d.inner, d.inner*info.Height()/info.Width()
	}
	d.pdf.ImageOptions(name, margin+(d.inner-w)/2, d.y, w, h, false, fpdf.ImageOptions{ImageType: "PNG"}, 0, "")
	d.y += h
}

func (d *sheets) curves(v pageView) {
	var plots []plot
	for _, c := range v.curves() {
		if p, ok := plotOf(c, v.Result.Volumes, v.Metadata.AgeYears); ok {
			plots = append(plots, p)
		}
	}
	if len(plots) == 0 {
		return
	}
	d.heading("Over age")
	const apart = 4.0
	w, h := (d.inner-3*apart)/4, 27*d.scale
	for n, p := range plots {
		d.curve(p, margin+float64(n)*(w+apart), d.y, w, h)
	}
	d.y += h
	d.paragraph(margin, d.inner, "", 6.6, dim, curvesCaption+" The axes: "+axesName+".")
}

func (d *sheets) curve(p plot, left, top, w, h float64) {
	d.font("B", 7.4, black)
	d.at(left, top+2.4*d.scale, p.title)
	x0, x1, y0, y1 := left+6, left+w, top+h-4*d.scale, top+4.5*d.scale
	x := func(age float64) float64 { return x0 + p.x(age)*(x1-x0) }
	y := func(mm3 float64) float64 { return y0 - p.y(mm3)*(y0-y1) }
	d.font("", 5.8, dim)
	d.stroke(rule, 0.12)
	for _, t := range p.lines() {
		d.pdf.Line(x0, y(t.at), x1, y(t.at))
		d.rightAt(x0-1, y(t.at)+0.8, t.name)
	}
	for _, t := range p.ages() {
		d.at(x(t.at)-d.width(t.name)/2, y0+2.8*d.scale, t.name)
	}
	var band []fpdf.PointType
	for _, pt := range p.points {
		band = append(band, fpdf.PointType{X: x(pt.AgeYears), Y: y(pt.P95)})
	}
	for n := len(p.points) - 1; n >= 0; n-- {
		band = append(band, fpdf.PointType{X: x(p.points[n].AgeYears), Y: y(p.points[n].P5)})
	}
	d.fill(shade)
	d.pdf.Polygon(band, "F")
	d.stroke(dim, 0.3)
	for n := 1; n < len(p.points); n++ {
		a, b := p.points[n-1], p.points[n]
		d.pdf.Line(x(a.AgeYears), y(a.P50), x(b.AgeYears), y(b.P50))
	}
	if p.age != nil {
		d.stroke(black, 0.4)
		d.pdf.Line(x(*p.age), y(max(p.lo, p.vol.MM3-p.half)), x(*p.age), y(p.vol.MM3+p.half))
		d.fill(black)
		d.pdf.Circle(x(*p.age), y(p.vol.MM3), 0.95, "F")
	}
}

// pairs is the table of volumes, left and right side by side, with the midline
// below.
func (d *sheets) pairs(rows []pairView, singles []*volumeView) {
	const size = 6.1
	const name = 31.0
	side := (d.inner - name) / 2
	// Right edges of mm3, expected, % of head, z and its interval, percentile.
	edges := [5]float64{0.225, 0.58, 0.68, 0.9, 1}
	d.font("B", size-0.4, dim)
	d.y += d.line(size)
	for n, title := range []string{"Left", "Right"} {
		left := margin + name + float64(n)*side
		d.at(left+2, d.y, title)
		for k, t := range []string{"mm³ ± SE", "expected (5–95 %)", "% head", "z (95 %)", "centile"} {
			d.rightAt(left+edges[k]*side, d.y+d.line(size), t)
		}
	}
	d.y += d.line(size)
	d.at(margin, d.y, "Structure")
	d.gap(0.7)
	d.stroke(black, 0.25)
	d.pdf.Line(margin, d.y, d.sheetW-margin, d.y)
	cells := func(v *volumeView, left float64) {
		if v == nil {
			return
		}
		put := func(k int, style, text string) {
			d.font(style, size, black)
			d.rightAt(left+edges[k]*side, d.y, text)
		}
		put(0, "", words.Grouped(v.MM3, 0)+" ± "+words.Grouped(v.StandardErrorMM, 0))
		if v.LeftOut {
			d.stroke(black, 0.25)
			d.pdf.Line(left+1, d.y-0.8*d.scale, left+edges[0]*side, d.y-0.8*d.scale)
			put(1, "B", "left out")
		} else if v.ExpectedMM3 != nil {
			put(1, "", fmt.Sprintf("%s (%s–%s)", words.Grouped(*v.ExpectedMM3, 0), optional(v.P5MM3, whole), optional(v.P95MM3, whole)))
		} else {
			put(1, "", "no reference")
		}
		put(2, "", optional(v.PercentICV, func(x float64) string { return signed(x, 2) }))
		style := ""
		if v.Outlying() != "" {
			style = "B"
		}
		z := optional(v.Z, zscore)
		if v.ZCI95 != nil {
			z += fmt.Sprintf(" (%s, %s)", zscore(v.ZCI95[0]), zscore(v.ZCI95[1]))
		}
		put(3, style, z)
		put(4, style, strings.TrimSpace(v.Outlying()+" "+optional(v.Percentile, words.Percentile)))
	}
	row := func(title string, left, right *volumeView) {
		d.y += d.line(size)
		d.gap(0.45)
		d.font("", size+0.5, black)
		d.at(margin, d.y, title)
		cells(left, margin+name)
		cells(right, margin+name+side)
		d.gap(0.75)
		d.stroke(rule, 0.15)
		d.pdf.Line(margin, d.y, d.sheetW-margin, d.y)
	}
	for _, r := range rows {
		row(r.Name, r.Left, r.Right)
	}
	for _, v := range singles {
		row(words.Structure(v.Structure), v, nil)
	}
}

func whole(v float64) string { return words.Grouped(v, 0) }

// method is the second sheet.
func (d *sheets) method(v pageView) bool {
	d.scale = d.Method
	d.top("How the result came about")
	if len(v.Pairs)+len(v.Singles) > 0 {
		d.heading("Volumes")
		d.pairs(v.Pairs, v.Singles)
		d.gap(0.6)
		d.paragraph(margin, d.inner, "", 6.6, dim, "SE: standard error of the measurement; z with its 95 % interval, which holds the error of the measurement and the difference between sites.")
	}
	d.heading("How the scores came about")
	for _, m := range v.Methods {
		d.how(m)
	}
	d.gap(0.4)
	text := scoreSums
	if v.Unvalidated {
		text += " " + notValidated
	}
	d.paragraph(margin, d.inner, "", 6.6, dim, text)
	if len(v.Reading.Norms) > 0 {
		d.heading("Reference values")
		d.paragraph(margin, d.inner, "", 6.6, black, strings.Join(v.Reading.Norms, " "))
	}
	d.columns("Quality metrics", 4, v.Metrics)
	d.columns("Versions", 3, v.Assets)
	d.gap(0.6)
	d.paragraph(margin, d.inner, "", 6.6, dim, v.Origins())
	return d.foot(v.Result, 2)
}

// how one score came about: its numbers, then what is to be known of them, a
// name in front of each.
func (d *sheets) how(m methodView) {
	const size, names = 6.4, 21.0
	text := m.Text
	if m.LikelihoodRatio != nil {
		text = strings.TrimSpace(text + " Likelihood ratio " + words.Ratio(*m.LikelihoodRatio))
		if m.CI95 != nil {
			text += fmt.Sprintf(" (95 %% %s to %s)", words.Bound(m.CI95[0]), words.Bound(m.CI95[1]))
		}
		if m.Prior != nil && m.Posterior != nil {
			text += fmt.Sprintf(", prior %s, posterior %s", percent(*m.Prior), percent(*m.Posterior))
		}
		text += ". "
		for n, t := range m.Terms {
			text += map[bool]string{true: "ln: ", false: "; "}[n == 0] + t.Name + " " + t.Value
		}
	}
	d.gap(0.3)
	d.paragraph(margin, d.inner, "B", 7, black, m.Name)
	d.paragraph(margin, d.inner, "", size, black, text)
	for _, n := range m.Notes {
		top := d.y
		d.paragraph(margin+names, d.inner-names, "", size, black, n.Value)
		d.font("", size, dim)
		d.at(margin, top+d.line(size), n.Name)
	}
}

// columns of names and values that run down.
func (d *sheets) columns(title string, columns int, facts []fact) {
	if len(facts) == 0 {
		return
	}
	d.heading(title)
	const apart, size = 5.0, 6.2
	w := (d.inner - float64(columns-1)*apart) / float64(columns)
	perColumn := (len(facts) + columns - 1) / columns
	top := d.y
	for n, f := range facts {
		x := margin + float64(n/perColumn)*(w+apart)
		y := top + float64(n%perColumn+1)*d.line(size)
		d.font("", size, dim)
		d.at(x, y, f.Name)
		d.font("", size, black)
		d.rightAt(x+w, y, f.Value)
	}
	d.y = top + float64(perColumn)*d.line(size)
}
