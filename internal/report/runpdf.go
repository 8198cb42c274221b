package report

import (
	"bytes"
	"image/png"
	"strings"

	"github.com/go-pdf/fpdf"

	"neuroscreen"
)

// fitRun finds the sizes at which both sheets of a run hold what has to be
// said.
func fitRun(v runView) fitted {
	trial := newSheets(v.Page, v.Title, fitted{})
	return trial.fit([]float64{84, 78, 72, 66, 60, 54}, func() bool { return trial.runResult(v) }, func() bool { return trial.runMethod(v) })
}

// runResult is the first sheet of a run.
func (d *sheets) runResult(v runView) bool {
	d.scale = d.Result
	d.top("NeuroScreen " + v.Result.Software.Version + ", for research use")
	d.decision(v.Decision)
	d.facts(v.Facts)
	d.heading("Motion and quality")
	d.runVerdict(v)
	d.runNumbers(v.Run.Numbers)
	if f, ok := carpetFigure(v.Result.FMRI, &v.Run); ok {
		d.gap(1)
		w := d.inner * min(d.scale+0.1, 1)
		d.draw(f, margin+(d.inner-w)/2, d.y, w)
		d.y += w * f.h / f.w
		d.paragraph(margin, d.inner, "", 6.6, dim, carpetCaption)
	}
	d.heading("Networks (experimental)")
	d.paragraph(margin, d.inner, "", 8, black, runExperimental)
	if v.Withheld {
		d.paragraph(margin, d.inner, "", 8, black, runWithheld)
	} else {
		d.networks(v)
	}
	d.signature(v.IntendedUse)
	return d.foot(v.Result, 1)
}

func (d *sheets) runVerdict(v runView) {
	const size = 8.8
	d.font("B", size, black)
	d.y += d.line(size)
	flag := neuroscreen.FlagNone
	if v.Kind != string(neuroscreen.VerdictPass) {
		flag = neuroscreen.FlagReview
	}
	c := d.sign(flag, margin+1.3, d.y-1.1*d.scale, 1.2*d.scale)
	d.font("B", size, c)
	d.at(margin+4, d.y, v.Verdict+".")
	left := margin + 4 + d.width(v.Verdict+".") + 2
	text := strings.Join(v.Quality, " ")
	if text == "" {
		text = runPasses
	}
	d.font("", 8, black)
	if left+d.width(text) <= d.sheetW-margin {
		d.at(left, d.y, text)
	} else {
		d.paragraph(margin+4, d.inner-4, "", 8, black, text)
	}
	for _, t := range v.Run.Worth {
		d.paragraph(margin+4, d.inner-4, "", 8, black, t)
	}
	d.paragraph(margin+4, d.inner-4, "", 6.6, dim, runSourceImages)
}

// runNumbers stand in two rows of four.
func (d *sheets) runNumbers(numbers []RunNumber) {
	const columns, apart = 4, 4.0
	w := (d.inner - (columns-1)*apart) / columns
	d.gap(1.2)
	for n, x := range numbers {
		left := margin + float64(n%columns)*(w+apart)
		top := d.y
		if x.Over {
			d.stroke(note, 0.8)
		} else {
			d.stroke(rule, 0.2)
		}
		d.pdf.Line(left, top, left+w, top)
		d.font("", 6.6, dim)
		d.at(left, top+3.1*d.scale, x.Name)
		d.font("B", 9.4, black)
		d.at(left, top+7.1*d.scale, x.Value)
		d.font("", 6.2, dim)
		d.at(left, top+9.9*d.scale, x.Limit)
		if n%columns == columns-1 || n == len(numbers)-1 {
			d.y += 11.4 * d.scale
		}
	}
	d.gap(-0.6)
}

// networks are connectome and maps side by side, each as large as they both
// have room for.
func (d *sheets) networks(v runView) {
	const apart = 4.0
	f, hasMatrix := matrixFigure(shownConnectome(v.Result.FMRI))
	ratios := [2]float64{} // width over height
	if hasMatrix {
		ratios[0] = f.w / f.h
	}
	const name = "maps"
	if size, err := png.DecodeConfig(bytes.NewReader(v.Page.Maps)); err == nil {
		ratios[1] = float64(size.Width) / float64(size.Height)
	}
	if ratios == [2]float64{} {
		return
	}
	h := min(d.Picture*d.scale, (d.inner-apart)/(ratios[0]+ratios[1]))
	wide := [2]float64{ratios[0] * h, ratios[1] * h}
	d.gap(1)
	spare := (d.inner - wide[0] - wide[1] - apart) / 2
	left := margin + spare
	top := d.y
	bottom := top
	caption := func(x, w float64, text string) {
		d.y = top + h
		d.paragraph(x, w, "", 6.6, dim, text)
		bottom = max(bottom, d.y)
	}
	if hasMatrix {
		d.draw(f, left, top, wide[0])
		caption(left, wide[0], matrixCaption)
	}
	if ratios[1] > 0 {
		d.pdf.RegisterImageOptionsReader(name, fpdf.ImageOptions{ImageType: "PNG"}, bytes.NewReader(v.Page.Maps))
		x := left + wide[0] + apart
		d.pdf.ImageOptions(name, x, top, wide[1], h, false, fpdf.ImageOptions{ImageType: "PNG"}, 0, "")
		caption(x, wide[1], mapsCaption)
	}
	d.y = bottom
}

// runMethod is the second sheet of a run.
func (d *sheets) runMethod(v runView) bool {
	d.scale = d.Method
	d.top("How the result came about")
	if len(v.Pairs) > 0 {
		d.heading("Structures (experimental)")
		d.signalTable(v.Pairs)
		d.gap(0.6)
		d.paragraph(margin, d.inner, "", 6.6, dim, structureCaption)
	}
	if len(v.Connections) > 0 {
		d.heading("Connectomes (experimental)")
		for _, c := range v.Connections {
			var parts []string
			for _, f := range c.Facts {
				parts = append(parts, f.Name+" "+f.Value)
			}
			d.paragraph(margin, d.inner, "B", 7, black, c.Name)
			d.paragraph(margin, d.inner, "", 6.6, black, strings.Join(parts, "; "))
		}
	}
	if _, err := png.DecodeConfig(bytes.NewReader(v.Page.Preview)); err == nil {
		d.gap(1.6)
		d.centred("preview", v.Page.Preview, 62*d.scale)
		d.paragraph(margin, d.inner, "", 6.6, dim, previewCaption)
	}
	if len(v.Run.Method) > 0 {
		d.heading("How it came about")
		for _, t := range v.Run.Method {
			d.paragraph(margin, d.inner, "", 6.8, black, t)
			d.gap(0.6)
		}
	}
	d.columns("Quality metrics", 4, v.Metrics)
	d.columns("Versions", 3, v.Assets)
	d.gap(0.6)
	d.paragraph(margin, d.inner, "", 6.6, dim, v.Origins())
	return d.foot(v.Result, 2)
}

// signalTable has left and right side by side.
func (d *sheets) signalTable(rows []runPair) {
	const size, name = 6.3, 40.0
	side := (d.inner - name) / 2
	column := side / float64(len(runColumns))
	d.font("B", size-0.2, dim)
	d.y += d.line(size)
	for n, title := range []string{"Left or midline", "Right"} {
		left := margin + name + float64(n)*side
		d.at(left+3, d.y, title)
		for k, t := range runColumns {
			d.rightAt(left+float64(k+1)*column, d.y+d.line(size), t)
		}
	}
	d.y += d.line(size)
	d.at(margin, d.y, "Structure")
	d.gap(0.7)
	d.stroke(black, 0.25)
	d.pdf.Line(margin, d.y, d.sheetW-margin, d.y)
	for _, r := range rows {
		d.y += d.line(size)
		d.gap(0.35)
		d.font("", size+0.4, black)
		d.at(margin, d.y, r.Name)
		d.font("", size, black)
		for n, s := range []*neuroscreen.FMRIStructure{r.Left, r.Right} {
			for k, t := range runCells(s) {
				d.rightAt(margin+name+float64(n)*side+float64(k+1)*column, d.y, t)
			}
		}
		d.gap(0.6)
		d.stroke(rule, 0.15)
		d.pdf.Line(margin, d.y, d.sheetW-margin, d.y)
	}
}
