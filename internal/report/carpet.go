package report

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math"
	"slices"

	"neuroscreen"
)

// Run is what a reader of a BOLD run needs beside its result.
type Run struct {
	Numbers []RunNumber `json:"numbers"` // that decide how much it is worth
	Worth   []string    `json:"worth"`   // what its measures can be compared with
	Carpet  Carpet      `json:"carpet"`
	Limits  RunLimits   `json:"limits"`
	Method  []string    `json:"method"` // how the measures came about, a paragraph each
}

// RunNumber is a number in words beside the limit it is held against.
type RunNumber struct {
	Name  string `json:"name"`
	Value string `json:"value"`
	Limit string `json:"limit"`
	Over  bool   `json:"over"` // the limit
}

// RunLimits are those that the run was judged by.
type RunLimits struct {
	FDMM             float64 `json:"fd_mm"`     // of a frame
	StdDVARS         float64 `json:"std_dvars"` // of a frame
	ReviewMeanFDMM   float64 `json:"review_mean_fd_mm"`
	MostMeanFDMM     float64 `json:"most_mean_fd_mm"` // beyond it measures are not compared
	ReviewTSNR       float64 `json:"review_tsnr"`
	DegreesOfFreedom int     `json:"degrees_of_freedom"` // below, nothing is read from the signal
	Seconds          float64 `json:"seconds"`            // below, measures are not compared
}

// Carpet is the signal of the brain before it is cleaned: rows of neighbouring
// voxels, ordered by tissue, by frames.
type Carpet struct {
	Tissues []CarpetTissue `json:"tissues"`  // from top to bottom
	LeftOut []int          `json:"left_out"` // frames that take no part in the measures
	PNG     []byte         `json:"png"`      // a pixel for each row and frame; grey from z -2 to 2
}

// CarpetTissue is a band of rows.
type CarpetTissue struct {
	Name   string `json:"name"`
	Rows   int    `json:"rows"`
	Voxels int    `json:"voxels"`
}

const (
	carpetZ      = 2.0  // from black to white: -2 to 2
	carpetLevels = 48   // of grey; more would only be noise that is stored
	maxColumns   = 1500 // of a carpet: more frames share one
)

// CarpetPNG is the picture of z, rows after each other. It is small and the
// same for the same values.
func CarpetPNG(z []float32, frames int) []byte {
	if frames == 0 || len(z) == 0 {
		return nil
	}
	bin := binOf(frames)
	img := image.NewGray(image.Rect(0, 0, (frames+bin-1)/bin, len(z)/frames))
	for y := range img.Rect.Dy() {
		row := z[y*frames:][:frames]
		for x := range img.Rect.Dx() {
			part := row[x*bin : min((x+1)*bin, frames)]
			sum := 0.0
			for _, v := range part {
				sum += float64(v)
			}
			share := (sum/float64(len(part)) + carpetZ) / (2 * carpetZ)
			level := math.Round(min(max(share, 0), 1) * (carpetLevels - 1))
			img.SetGray(x, y, color.Gray{Y: uint8(math.Round(level * 255 / (carpetLevels - 1)))})
		}
	}
	return pngOf(img)
}

// binOf is how many frames share a column.
func binOf(frames int) int { return (frames + maxColumns - 1) / maxColumns }

// Where the parts of the carpet's figure lie.
const (
	carpetW                      = 1000.0
	carpetLeft, carpetRight      = 128.0, 962.0
	traceH, traceGap             = 58.0, 12.0
	fdTop                        = 20.0
	dvarsTop                     = fdTop + traceH + traceGap + 14
	stripTop, stripH             = dvarsTop + traceH + 7, 9.0
	carpetTop, carpetH           = stripTop + stripH + 6, 236.0
	carpetAxis                   = carpetTop + carpetH
	bandLeft, bandW              = carpetLeft - 12, 8.0
	figureText, figureSmall      = 12.0, 11.0
	carpetLegend, carpetFigureH  = carpetAxis + 42, carpetAxis + 50
	keyW, keyH                   = 11.0, 9.0
	rampW                        = 60.0
	namesRight, tickRight        = bandLeft - 7, carpetLeft - 7
	mostTraceOverLimit           = 4.0 // a trace is cut at so many limits: one jump must not flatten the rest
	traceRoom                    = 1.15
	leastBar                     = 0.4
	seam                         = 0.25 // bars overlap: viewers show the paper between neighbours
	stripLabelY                  = stripTop + stripH - 0.5
	axisTickH, axisNumbersBelow  = 4.0, 16.0
	legendApart, legendTextApart = 22.0, 5.0
)

// tissuePaints tell bands apart, also for who is colour-blind (Okabe and Ito);
// each has its name beside it.
var tissuePaints = []tone{{0, 114, 178}, {230, 159, 0}, {0, 158, 115}, {150, 160, 168}, {86, 180, 233}}

// carpetFigure draws motion and change of the signal over the carpet, all
// along the time since the recording began. It reports false without frames, or
// for a result from before limits were kept with it.
func carpetFigure(m *neuroscreen.FMRI, run *Run) (*figure, bool) {
	frames := len(m.Motion.FDMM)
	if frames == 0 || len(m.Quality.StdDVARS) != frames || run.Limits == (RunLimits{}) {
		return nil, false
	}
	f := &figure{title: "Motion, change of the signal and carpet plot over time", w: carpetW, h: carpetFigureH}
	seconds := float64(m.DummyScans+frames) * m.TRSeconds
	x := func(s float64) float64 { return carpetLeft + s/seconds*(carpetRight-carpetLeft) }
	at := func(frame int) float64 { return x(float64(m.DummyScans+frame) * m.TRSeconds) }

	if m.DummyScans > 0 {
		for _, part := range [][2]float64{{fdTop, traceH}, {dvarsTop, traceH}, {carpetTop, carpetH}} {
			f.rect(carpetLeft, part[0], at(0)-carpetLeft, part[1], shadePaint)
		}
	}
	f.trace(fdTop, "FD, mm", "movement since the frame before (framewise displacement)", m.Motion.FDMM, run.Limits.FDMM, at)
	f.trace(dvarsTop, "DVARS", "change of the signal since the frame before, over what is expected", m.Quality.StdDVARS, run.Limits.StdDVARS, at)

	f.write(tickRight, stripLabelY, end, figureSmall, dimPaint, "left out")
	for _, t := range run.Carpet.LeftOut {
		f.rect(at(t), stripTop+stripH/2, at(t+1)-at(t), stripH/2, barPaint)
	}
	for _, t := range m.Quality.OutlierFrames {
		f.rect(at(t), stripTop, at(t+1)-at(t), stripH, overPaint)
	}

	if greys := greysOf(run.Carpet.PNG); greys != nil {
		f.marks = append(f.marks, element{x: at(0), y: carpetTop, w: at(frames) - at(0), h: carpetH, greys: greys})
		rows, row := 0, 0
		for _, t := range run.Carpet.Tissues {
			rows += t.Rows
		}
		for n, t := range run.Carpet.Tissues {
			top := carpetTop + carpetH*float64(row)/float64(rows)
			row += t.Rows
			bottom := carpetTop + carpetH*float64(row)/float64(rows)
			f.rect(bandLeft, top, bandW, bottom-top-1, fixedPaint(tissuePaints[n%len(tissuePaints)]))
			f.write(namesRight, (top+bottom)/2+4, end, figureText, inkPaint, t.Name)
			if n > 0 {
				f.rect(bandLeft, top-1, carpetRight-bandLeft, 1.2, paint{tone{255, 255, 255}, tone{0, 0, 0}})
			}
		}
	}
	step := timeStep(seconds)
	for s := 0.0; s <= seconds; s += step {
		f.rect(x(s)-0.5, carpetAxis, 1, axisTickH, dimPaint)
		f.write(x(s), carpetAxis+axisNumbersBelow, middle, figureText, dimPaint, fmt.Sprintf("%.0f", s))
	}
	f.write(carpetRight, carpetAxis+axisNumbersBelow+13, end, figureSmall, dimPaint, "seconds since the recording began")
	f.carpetKey(m)
	return f, true
}

// trace draws a bar for each frame, and the limit as a broken line.
func (f *figure) trace(top float64, name, what string, values []float64, limit float64, at func(int) float64) {
	most := slices.Max(values)
	high := min(max(most*1.02, limit*traceRoom), limit*mostTraceOverLimit)
	y := func(v float64) float64 { return top + traceH*(1-min(v, high)/high) }
	f.writeBold(carpetLeft, top-6, start, figureText, inkPaint, name)
	f.write(carpetLeft+64, top-6, start, figureSmall, dimPaint, what)
	bin := binOf(len(values))
	for _, over := range []bool{false, true} {
		p := barPaint
		if over {
			p = overPaint
		}
		for t := 0; t < len(values); t += bin {
			to := min(t+bin, len(values))
			if v := slices.Max(values[t:to]); v > limit == over {
				f.rect(at(t), min(y(v), top+traceH-leastBar), at(to)-at(t)+seam, max(top+traceH-y(v), leastBar), p)
			}
		}
	}
	f.rect(carpetLeft, top+traceH, carpetRight-carpetLeft, 0.8, dimPaint)
	f.dashes(carpetLeft, carpetRight, y(limit), 1.1, inkPaint)
	f.write(carpetRight+5, y(limit)+4, start, figureSmall, inkPaint, trimmed(limit))
	f.write(tickRight, top+traceH+1, end, figureSmall, dimPaint, "0")
	top2 := signed(high, 2)
	if most > high {
		top2 = "over " + top2
	}
	f.write(tickRight, top+8, end, figureSmall, dimPaint, top2)
}

// carpetKey says what the signs are.
func (f *figure) carpetKey(m *neuroscreen.FMRI) {
	x := carpetLeft
	key := func(p paint, part float64, text string, width float64) {
		f.rect(x, carpetLegend-keyH+keyH*(1-part), keyW, keyH*part, p)
		f.write(x+keyW+legendTextApart, carpetLegend, start, figureSmall, dimPaint, text)
		x += keyW + legendTextApart + width + legendApart
	}
	key(overPaint, 1, "outlier: over a limit (dashed)", 160)
	key(barPaint, 0.5, "left out with it", 80)
	if m.DummyScans > 0 {
		key(shadePaint, 1, fmt.Sprintf("first %d volumes, dropped", m.DummyScans), 135)
	}
	x = carpetRight - rampW - 64
	f.write(x-6, carpetLegend, end, figureSmall, dimPaint, fmt.Sprintf("z  −%.0f", carpetZ))
	const steps = 12
	for n := range steps {
		v := n * 255 / (steps - 1)
		f.rect(x+float64(n)*rampW/steps, carpetLegend-keyH, rampW/steps+0.1, keyH, fixedPaint(tone{v, v, v}))
	}
	f.write(x+rampW+6, carpetLegend, start, figureSmall, dimPaint, fmt.Sprintf("+%.0f SD", carpetZ))
}

func fixedPaint(t tone) paint { return paint{t, t} }

// greysOf decodes the carpet; nil when there is none or it is damaged.
func greysOf(data []byte) *image.Gray {
	img, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		return nil
	}
	g, _ := img.(*image.Gray)
	return g
}

// timeStep between the numbers of an axis, in seconds.
func timeStep(seconds float64) float64 {
	for _, s := range []float64{5, 10, 20, 30, 60, 120, 300, 600, 1200} {
		if seconds/s <= 12 {
			return s
		}
	}
	return 3600
}

// trimmed has no zeros at its end.
func trimmed(v float64) string { return fmt.Sprintf("%.4g", v) }

// CarpetPicture draws carpet and traces as a PNG. It is nil for a run without
// frames.
func CarpetPicture(m *neuroscreen.FMRI, run *Run) []byte {
	f, ok := carpetFigure(m, run)
	if !ok {
		return nil
	}
	return f.picture()
}

// pictureScale makes a figure's smallest text 17 px high.
const pictureScale = 1.6
