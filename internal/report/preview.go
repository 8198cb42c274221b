// Package report shows a result to people: a picture of the labels over the
// scan, and a page with every number, its doubt and its limits.
package report

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math"
	"strings"
	"sync"

	"golang.org/x/image/font"
	"golang.org/x/image/font/gofont/gobold"
	"golang.org/x/image/font/gofont/goregular"
	"golang.org/x/image/font/opentype"
	"golang.org/x/image/math/fixed"

	"neuroscreen/internal/anatomy"
	"neuroscreen/internal/volume"
)

// Scale and margins of the picture.
const (
	pxPerMM     = 2.25
	zoomPxPerMM = 4.5
	marginMM    = 12 // round the head's inside
	gap         = 12 // px between panels and at the border
	captionPx   = 26
)

var (
	paper   = color.RGBA{0, 0, 0, 255}
	ink     = color.RGBA{235, 235, 235, 255}
	dimInk  = color.RGBA{150, 150, 150, 255}
	outline = 0.85 // opacity
)

// plane of a panel: columns and rows run along two world axes (0 right, 1
// anterior, 2 superior) towards their negative ends, and the third is held.
// So the patient's right is on the viewer's left (radiological convention),
// the nose of an axial cut at the top and of a sagittal one on the left.
type plane struct {
	name                  string
	across, down, through int
}

var (
	axial    = plane{"Axial", 0, 1, 2}
	coronal  = plane{"Coronal", 0, 2, 1}
	sagittal = plane{"Sagittal", 1, 2, 0}
)

// ends of the world axes, negative and positive.
var ends = [3][2]string{{"L", "R"}, {"P", "A"}, {"I", "S"}}

// panel is a plane cut at one place.
type panel struct {
	plane
	at      float64    // mm along the axis that is held
	lo, hi  [3]float64 // world box shown, mm
	scale   float64    // px per mm
	caption string
}

func (p panel) size() (w, h int) {
	return int(math.Round((p.hi[p.across] - p.lo[p.across]) * p.scale)), int(math.Round((p.hi[p.down] - p.lo[p.down]) * p.scale))
}

// title says what is cut where, "Axial, S 4 mm".
func (p panel) title() string {
	end := ends[p.through][1]
	if p.at < 0 {
		end = ends[p.through][0]
	}
	return fmt.Sprintf("%s%s, %s %.0f mm", p.name, p.caption, end, math.Abs(p.at))
}

// Preview draws the labels' outlines over the scan as a PNG: three planes in
// the radiological convention, and three coronal cuts along the hippocampi.
// Labels hold FreeSurfer values on the image's grid. The same input gives the
// same bytes.
func Preview(img *volume.Volume, labels *volume.Labels) ([]byte, error) {
	s := scene{img: img, labels: labels, toVoxel: img.Affine.Inverse()}
	w := survey(labels)
	if w.count == 0 {
		return nil, fmt.Errorf("report: no labels to draw")
	}
	s.window(w)

	var lo, hi [3]float64
	for a := range 3 {
		lo[a], hi[a] = w.lo[a]-marginMM, w.hi[a]+marginMM
	}
	hippocampi := w.centre(17, 53)
	deep := w.centre(12, 51)
	left := w.centre(17)
	first := []panel{
		{axial, deep[2], lo, hi, pxPerMM, ""},
		{coronal, hippocampi[1], lo, hi, pxPerMM, ""},
		{sagittal, left[0], lo, hi, pxPerMM, ", left hippocampus"},
	}
	// The zooms frame both hippocampi from the head to the tail.
	zoomLo, zoomHi := hippocampi, hippocampi
	zoomLo[0], zoomHi[0] = hippocampi[0]-47, hippocampi[0]+47
	zoomLo[2], zoomHi[2] = hippocampi[2]-24, hippocampi[2]+30
	var second []panel
	for _, z := range []struct {
		name string
		at   float64
	}{{"head", 0.82}, {"body", 0.5}, {"tail", 0.2}} {
		y := w.hippocampusLo + z.at*(w.hippocampusHi-w.hippocampusLo)
		second = append(second, panel{coronal, y, zoomLo, zoomHi, zoomPxPerMM, ", hippocampal " + z.name})
	}
	if w.n[17]+w.n[53] == 0 {
		second = nil
	}

	canvas := layOut([][]panel{first, second}, s)
	var buf bytes.Buffer
	// The result waits for it: a quarter larger, twice as soon.
	if err := (&png.Encoder{CompressionLevel: png.BestSpeed}).Encode(&buf, canvas); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// layOut draws rows of panels under each other, and the legend.
func layOut(rows [][]panel, s scene) image.Image {
	width, height := 0, gap
	var heights []int
	for _, row := range rows {
		w, h := gap, 0
		for _, p := range row {
			pw, ph := p.size()
			w += pw + gap
			h = max(h, ph)
		}
		if len(row) > 0 {
			h += captionPx + gap
		}
		width = max(width, w)
		heights = append(heights, h)
		height += h
	}
	legendRows := (len(legend)*legendColumn + width - 2*gap - 1) / (width - 2*gap)
	height += legendRows*captionPx + gap

	canvas := image.NewRGBA(image.Rect(0, 0, width, height))
	for i := 0; i < len(canvas.Pix); i += 4 {
		canvas.Pix[i], canvas.Pix[i+1], canvas.Pix[i+2], canvas.Pix[i+3] = paper.R, paper.G, paper.B, 255
	}
	y := gap
	for r, row := range rows {
		used := 0
		for _, p := range row {
			pw, _ := p.size()
			used += pw
		}
		space := 0 // panels share the width evenly
		if len(row) > 1 {
			space = (width - 2*gap - used) / (len(row) - 1)
		}
		x := gap
		for _, p := range row {
			pw, ph := p.size()
			top := y + (heights[r]-gap-captionPx-ph)/2
			s.draw(canvas, p, image.Pt(x, top))
			write(canvas, regular(), dimInk, x, y+heights[r]-gap-captionPx+18, p.title())
			x += pw + space
		}
		y += heights[r]
	}
	perRow := max(1, (width-2*gap)/legendColumn)
	for n, entry := range legend {
		x, row := gap+n%perRow*legendColumn, y+n/perRow*captionPx
		c := anatomyColour(entry.label)
		for dy := range 4 {
			for dx := range 18 {
				canvas.SetRGBA(x+dx, row+9+dy, c)
			}
		}
		write(canvas, regular(), ink, x+24, row+16, strings.TrimSpace(entry.sign+" "+entry.name))
	}
	return canvas
}

const legendColumn = 158

// legend names the outlines, by the left side's label. The sign stands inside
// of the outline, for who cannot tell the colours apart and on grey paper.
var legend = []struct {
	label      int
	sign, name string
}{
	{17, "H", "Hippocampus"}, {18, "A", "Amygdala"}, {4, "LV", "Lateral ventricle"}, {5, "IH", "Inferior horn"}, {10, "Th", "Thalamus"}, {11, "Ca", "Caudate"},
	{12, "Pu", "Putamen"}, {13, "Pa", "Pallidum"}, {26, "Ac", "Accumbens"}, {28, "DC", "Ventral DC"}, {3, "", "Cortex"}, {2, "", "White matter"},
	{8, "", "Cerebellar cortex"}, {16, "BS", "Brain stem"}, {14, "V3", "3rd ventricle"}, {24, "", "Inside of skull"},
}

// signs of the labels of both sides.
var signs = func() (s [256]string) {
	for _, entry := range legend {
		one, _ := anatomy.ByLabel(entry.label)
		bare := strings.TrimPrefix(one.Name, "Left-")
		for _, other := range anatomy.Structures {
			if other.Name == one.Name || other.Name == "Right-"+bare && one.Name != bare {
				s[other.Label] = entry.sign
			}
		}
	}
	return s
}()

// anatomyColour is the structure's colour, mixed with white where it would be
// too dark for a line on black.
func anatomyColour(label int) color.RGBA {
	s, _ := anatomy.ByLabel(label)
	c := s.Colour
	const enough = 105 // luma, ITU-R BT.601
	if luma := 0.299*float64(c[0]) + 0.587*float64(c[1]) + 0.114*float64(c[2]); luma < enough {
		mix := (enough - luma) / (255 - luma)
		for n, v := range c {
			c[n] = uint8(float64(v) + mix*(255-float64(v)) + 0.5)
		}
	}
	return color.RGBA{c[0], c[1], c[2], 255}
}

// priority decides on which side of a border its line is drawn and in whose
// colour: small deep structures and ventricles over cortex, cortex over white
// matter, all over CSF.
var priority = func() (p [256]int) {
	for _, s := range anatomy.Structures[1:] {
		switch {
		case s.Class == anatomy.CSF:
			p[s.Label] = 1
		case s.Tissue == anatomy.White:
			p[s.Label] = 2
		case s.Tissue == anatomy.Cortex:
			p[s.Label] = 3
		default:
			p[s.Label] = 4
		}
	}
	return p
}()

// scene is what panels look at.
type scene struct {
	img     *volume.Volume
	labels  *volume.Labels
	toVoxel volume.Affine
	lo, hi  float64 // grey window
}

// labelled is where the labels lie in the world.
type labelled struct {
	count                        int
	lo, hi                       [3]float64
	sum                          [256][3]int // of voxel indices
	n                            [256]int
	affine                       volume.Affine
	hippocampusLo, hippocampusHi float64 // along anterior
}

func survey(l *volume.Labels) (w labelled) {
	w.affine = l.Affine
	for a := range 3 {
		w.lo[a], w.hi[a] = math.Inf(1), math.Inf(-1)
	}
	w.hippocampusLo, w.hippocampusHi = math.Inf(1), math.Inf(-1)
	for k := range l.Shape[2] {
		for j := range l.Shape[1] {
			row := l.Data[l.Index(0, j, k):][:l.Shape[0]]
			// By runs of a label, which reach furthest at their ends.
			for to := 0; to < len(row); {
				label, from := row[to], to
				for to < len(row) && row[to] == label {
					to++
				}
				if label == 0 {
					continue
				}
				n := to - from
				w.count += n
				w.n[label] += n
				w.sum[label][0] += n * (from + to - 1) / 2
				w.sum[label][1] += n * j
				w.sum[label][2] += n * k
				for _, i := range [2]int{from, to - 1} {
					p := l.Affine.Apply([3]float64{float64(i), float64(j), float64(k)})
					for a := range 3 {
						w.lo[a], w.hi[a] = min(w.lo[a], p[a]), max(w.hi[a], p[a])
					}
					if label == 17 || label == 53 {
						w.hippocampusLo, w.hippocampusHi = min(w.hippocampusLo, p[1]), max(w.hippocampusHi, p[1])
					}
				}
			}
		}
	}
	return w
}

// centre of structures, or of everything when they are absent.
func (w *labelled) centre(labels ...uint8) (c [3]float64) {
	n := 0
	for _, l := range labels {
		n += w.n[l]
		for a := range 3 {
			c[a] += float64(w.sum[l][a])
		}
	}
	if n == 0 {
		for a := range 3 {
			c[a] = (w.lo[a] + w.hi[a]) / 2
		}
		return c
	}
	for a := range 3 {
		c[a] /= float64(n)
	}
	return w.affine.Apply(c)
}

// window spans black, at zero, to the brightest of the brain.
func (s *scene) window(w labelled) {
	inside := make([]float32, 0, w.count)
	for to := 0; to < len(s.labels.Data); {
		from := to
		for to < len(s.labels.Data) && s.labels.Data[to] != 0 {
			to++
		}
		inside = append(inside, s.img.Data[from:to]...)
		for to < len(s.labels.Data) && s.labels.Data[to] == 0 {
			to++
		}
	}
	q := volume.Percentiles(inside, 0.2, 99.7)
	s.lo, s.hi = float64(min(q[0], 0)), float64(q[1])*1.2
	if !(s.hi > s.lo) {
		s.hi = s.lo + 1
	}
}

// draw samples one panel at each of its pixels.
func (s *scene) draw(canvas *image.RGBA, p panel, at image.Point) {
	w, h := p.size()
	labels := make([]uint8, w*h)
	var rows sync.WaitGroup
	for r := range h {
		rows.Go(func() { s.drawRow(canvas, p, at, r, labels[r*w:][:w]) })
	}
	rows.Wait()
	for r := range h {
		for c := range w {
			if l := labels[r*w+c]; onOutline(labels, w, h, c, r) {
				blend(canvas, at.X+c, at.Y+r, anatomyColour(int(l)))
			}
		}
	}
	letters := []struct {
		image.Point
		name string
	}{
		{image.Pt(12, h/2), ends[p.across][1]}, {image.Pt(w-12, h/2), ends[p.across][0]},
		{image.Pt(w/2, 14), ends[p.down][1]}, {image.Pt(w/2, h-12), ends[p.down][0]},
	}
	spots := inside(labels, w, h)
	for label, sign := range signs {
		spot, shown := spots[label]
		for _, l := range letters {
			d := l.Sub(spot)
			shown = shown && (max(d.X, -d.X) >= 22 || max(d.Y, -d.Y) >= 16)
		}
		if shown && sign != "" {
			letter(canvas, small(), at.Add(spot), sign)
		}
	}
	for _, l := range letters {
		letter(canvas, bold(), at.Add(l.Point), l.name)
	}
}

// roomForSign is how many pixels of a label a panel must show to hold its sign.
const roomForSign = 350

// inside finds for each label that a panel shows largely the pixel of it that
// lies nearest to its middle.
func inside(labels []uint8, w, h int) map[int]image.Point {
	var n, x, y [256]int
	for i, l := range labels {
		n[l], x[l], y[l] = n[l]+1, x[l]+i%w, y[l]+i/w
	}
	best := map[int]int{}
	out := map[int]image.Point{}
	for i, label := range labels {
		l := int(label)
		if l == 0 || n[l] < roomForSign {
			continue
		}
		dx, dy := i%w-x[l]/n[l], i/w-y[l]/n[l]
		if d, seen := best[l]; !seen || dx*dx+dy*dy < d {
			best[l], out[l] = dx*dx+dy*dy, image.Pt(i%w, i/w)
		}
	}
	return out
}

// drawRow paints one row of pixels grey and notes their labels.
func (s *scene) drawRow(canvas *image.RGBA, p panel, at image.Point, r int, labels []uint8) {
	// A point midway between voxels belongs to the one further right, front
	// and up, however the scan is stored.
	const nudge = 1e-4
	var world [3]float64
	world[p.through] = p.at + nudge
	world[p.down] = p.hi[p.down] - (float64(r)+0.5)/p.scale + nudge
	row := canvas.Pix[canvas.PixOffset(at.X, at.Y+r):][:4*len(labels)]
	to := &s.toVoxel // Apply would copy it for every pixel
	var voxel [3]float64
	for c := range labels {
		world[p.across] = p.hi[p.across] - (float64(c)+0.5)/p.scale + nudge
		for a := range voxel {
			voxel[a] = to[a][0]*world[0] + to[a][1]*world[1] + to[a][2]*world[2] + to[a][3]
		}
		grey := uint8(255*min(max((s.sample(voxel)-s.lo)/(s.hi-s.lo), 0), 1) + 0.5)
		row[4*c], row[4*c+1], row[4*c+2], row[4*c+3] = grey, grey, grey, 255
		labels[c] = s.label(voxel)
	}
}

// onOutline says whether a pixel carries the line between two labels: the side
// with the higher priority does, or the smaller label.
func onOutline(labels []uint8, w, h, c, r int) bool {
	l := labels[r*w+c]
	if l == 0 {
		return false
	}
	for _, d := range [4][2]int{{-1, 0}, {1, 0}, {0, -1}, {0, 1}} {
		x, y := c+d[0], r+d[1]
		if x < 0 || y < 0 || x >= w || y >= h {
			continue
		}
		o := labels[y*w+x]
		if o != l && (priority[l] > priority[o] || priority[l] == priority[o] && l < o) {
			return true
		}
	}
	return false
}

// sample is trilinear and zero outside the image.
func (s *scene) sample(p [3]float64) float64 {
	var base [3]int
	var f [3]float64
	inside := true
	for a := range 3 {
		fl := math.Floor(p[a])
		base[a], f[a] = int(fl), p[a]-fl
		if base[a] < -1 || base[a] >= s.img.Shape[a] {
			return 0
		}
		inside = inside && base[a] >= 0 && base[a] < s.img.Shape[a]-1
	}
	if !inside {
		return s.sampleEdge(base, f)
	}
	ni, nij := s.img.Shape[0], s.img.Shape[0]*s.img.Shape[1]
	near := s.img.Data[base[0]+ni*base[1]+nij*base[2]:]
	near, far := near[:ni+2], near[nij:][:ni+2]
	x, y, z := f[0], f[1], f[2]
	return (1-x)*(1-y)*(1-z)*float64(near[0]) + x*(1-y)*(1-z)*float64(near[1]) +
		(1-x)*y*(1-z)*float64(near[ni]) + x*y*(1-z)*float64(near[ni+1]) +
		(1-x)*(1-y)*z*float64(far[0]) + x*(1-y)*z*float64(far[1]) +
		(1-x)*y*z*float64(far[ni]) + x*y*z*float64(far[ni+1])
}

// sampleEdge is sample where a neighbour lies outside.
func (s *scene) sampleEdge(base [3]int, f [3]float64) float64 {
	sum := 0.0
	for corner := range 8 {
		weight := 1.0
		var q [3]int
		for a := range 3 {
			if corner>>a&1 == 1 {
				q[a], weight = base[a]+1, weight*f[a]
			} else {
				q[a], weight = base[a], weight*(1-f[a])
			}
		}
		if weight > 0 && q[0] >= 0 && q[1] >= 0 && q[2] >= 0 && q[0] < s.img.Shape[0] && q[1] < s.img.Shape[1] && q[2] < s.img.Shape[2] {
			sum += weight * float64(s.img.Data[s.img.Index(q[0], q[1], q[2])])
		}
	}
	return sum
}

// label of the nearest voxel, 0 outside.
func (s *scene) label(p [3]float64) uint8 {
	var q [3]int
	for a := range 3 {
		q[a] = int(math.Floor(p[a] + 0.5))
		if q[a] < 0 || q[a] >= s.labels.Shape[a] {
			return 0
		}
	}
	return s.labels.Data[s.labels.Index(q[0], q[1], q[2])]
}

func blend(canvas *image.RGBA, x, y int, c color.RGBA) {
	o := canvas.PixOffset(x, y)
	for n, v := range [3]uint8{c.R, c.G, c.B} {
		canvas.Pix[o+n] = uint8(outline*float64(v) + (1-outline)*float64(canvas.Pix[o+n]) + 0.5)
	}
}

// Faces of the Go fonts, which are part of the binary: text looks alike on
// every machine.
var (
	regular = sync.OnceValue(func() font.Face { return face(goregular.TTF, 13) })
	bold    = sync.OnceValue(func() font.Face { return face(gobold.TTF, 16) })
	small   = sync.OnceValue(func() font.Face { return face(gobold.TTF, 12) })
)

func parsed(ttf []byte) *opentype.Font {
	f, err := opentype.Parse(ttf)
	if err != nil {
		panic(err) // the font is compiled in
	}
	return f
}

func face(ttf []byte, px float64) font.Face {
	face, err := opentype.NewFace(parsed(ttf), &opentype.FaceOptions{Size: px, DPI: 72, Hinting: font.HintingFull})
	if err != nil {
		panic(err)
	}
	return face
}

// faces are not safe for concurrent use.
var writing sync.Mutex

// write puts text with its baseline's left end at x, y.
func write(canvas *image.RGBA, f font.Face, c color.RGBA, x, y int, text string) {
	writing.Lock()
	defer writing.Unlock()
	d := font.Drawer{Dst: canvas, Src: image.NewUniform(c), Face: f, Dot: fixed.P(x, y)}
	d.DrawString(text)
}

// letter centres letters on a point with a dark rim.
func letter(canvas *image.RGBA, f font.Face, at image.Point, text string) {
	writing.Lock()
	w := font.MeasureString(f, text).Round()
	down := f.Metrics().CapHeight.Round() / 2
	writing.Unlock()
	for _, d := range [8][2]int{{-1, -1}, {0, -1}, {1, -1}, {-1, 0}, {1, 0}, {-1, 1}, {0, 1}, {1, 1}} {
		write(canvas, f, color.RGBA{0, 0, 0, 255}, at.X-w/2+d[0], at.Y+down+d[1], text)
	}
	write(canvas, f, ink, at.X-w/2, at.Y+down, text)
}
