package report

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"html/template"
	"image"
	"image/color"
	"image/png"
	"math"
	"strconv"
	"strings"
	"sync"

	"github.com/go-pdf/fpdf"
	"golang.org/x/image/font"
	"golang.org/x/image/font/gofont/gobold"
	"golang.org/x/image/font/gofont/goregular"
	"golang.org/x/image/math/fixed"
)

// figure is a drawing of rectangles, texts and greys: few enough kinds of marks
// that a page (SVG), a sheet (PDF) and a picture of its own (PNG, on black)
// show the same. Units are its own, to the right and down.
type figure struct {
	title string // for who hears the page
	w, h  float64
	marks []element
}

type element struct {
	x, y, w, h float64 // a text begins at x, y, on its baseline
	paint      paint
	text       string
	size       float64 // of a text
	bold       bool
	anchor     anchor
	greys      *image.Gray // fill the rectangle
}

type anchor int

const (
	start anchor = iota
	middle
	end
)

// paint is a colour on paper and one on black.
type paint struct{ light, dark tone }

var (
	inkPaint   = paint{black, tone{235, 235, 235}}
	dimPaint   = paint{dim, tone{165, 172, 180}}
	rulePaint  = paint{rule, tone{62, 70, 79}}
	barPaint   = paint{tone{138, 150, 161}, tone{120, 132, 145}}
	shadePaint = paint{tone{214, 220, 226}, tone{48, 56, 65}}
	overPaint  = paint{tone{154, 52, 18}, tone{255, 180, 92}}
)

func (f *figure) rect(x, y, w, h float64, p paint) {
	f.marks = append(f.marks, element{x: x, y: y, w: w, h: h, paint: p})
}

func (f *figure) write(x, y float64, a anchor, size float64, p paint, text string) {
	f.marks = append(f.marks, element{x: x, y: y, size: size, paint: p, anchor: a, text: text})
}

func (f *figure) writeBold(x, y float64, a anchor, size float64, p paint, text string) {
	f.write(x, y, a, size, p, text)
	f.marks[len(f.marks)-1].bold = true
}

// dashes draws a broken line from x0 to x1.
func (f *figure) dashes(x0, x1, y, thick float64, p paint) {
	for x := x0; x < x1; x += 9 {
		f.rect(x, y-thick/2, min(5, x1-x), thick, p)
	}
}

// svg is the figure on paper.
func (f *figure) svg(class string) template.HTML {
	var b strings.Builder
	title := template.HTMLEscapeString(f.title)
	fmt.Fprintf(&b, `<svg class="%s" viewBox="0 0 %.4g %.4g" role="img" aria-label="%s">`, class, f.w, f.h, title)
	for n := 0; n < len(f.marks); n++ {
		m := f.marks[n]
		c := m.paint.light
		fill := fmt.Sprintf("#%02x%02x%02x", c[0], c[1], c[2])
		switch {
		case m.greys != nil:
			fmt.Fprintf(&b, `<image x="%s" y="%s" width="%s" height="%s" preserveAspectRatio="none" image-rendering="pixelated" href="data:image/png;base64,%s"/>`,
				short(m.x), short(m.y), short(m.w), short(m.h), base64.StdEncoding.EncodeToString(pngOf(m.greys)))
		case m.text != "":
			more := ""
			if m.anchor != start {
				more = fmt.Sprintf(` text-anchor="%s"`, [...]string{"start", "middle", "end"}[m.anchor])
			}
			if m.bold {
				more += ` font-weight="650"`
			}
			fmt.Fprintf(&b, `<text x="%s" y="%s" font-size="%s" fill="%s"%s>%s</text>`, short(m.x), short(m.y), short(m.size), fill, more, template.HTMLEscapeString(m.text))
		default:
			// Neighbours of one colour are one path: a run has hundreds of frames.
			fmt.Fprintf(&b, `<path fill="%s" d="`, fill)
			for ; ; n++ {
				m := f.marks[n]
				fmt.Fprintf(&b, "M%s %sh%sv%sh-%sz", short(m.x), short(m.y), short(m.w), short(m.h), short(m.w))
				if n+1 == len(f.marks) || !f.marks[n+1].plain() || f.marks[n+1].paint != m.paint {
					break
				}
			}
			b.WriteString(`"/>`)
		}
	}
	b.WriteString("</svg>")
	return template.HTML(b.String())
}

func (m element) plain() bool { return m.greys == nil && m.text == "" }

// short has no more digits than a drawing shows.
func short(v float64) string {
	return strconv.FormatFloat(math.Round(100*v)/100, 'f', -1, 64)
}

// draw puts the figure on a sheet, with its upper left corner at x, y and a
// width in mm.
func (d *sheets) draw(f *figure, x, y, w float64) {
	scale := w / f.w
	for n, m := range f.marks {
		left, top := x+m.x*scale, y+m.y*scale
		switch {
		case m.greys != nil:
			name := fmt.Sprintf("%s %d", f.title, n)
			d.pdf.RegisterImageOptionsReader(name, fpdf.ImageOptions{ImageType: "PNG"}, bytes.NewReader(pngOf(m.greys)))
			d.pdf.ImageOptions(name, left, top, m.w*scale, m.h*scale, false, fpdf.ImageOptions{ImageType: "PNG"}, 0, "")
		case m.text != "":
			style := ""
			if m.bold {
				style = "B"
			}
			d.pdf.SetFont("go", style, m.size*scale/pointMM)
			c := m.paint.light
			d.pdf.SetTextColor(c[0], c[1], c[2])
			switch m.anchor {
			case start:
				d.at(left, top, m.text)
			case middle:
				d.at(left-d.width(m.text)/2, top, m.text)
			case end:
				d.rightAt(left, top, m.text)
			}
		default:
			d.fill(m.paint.light)
			d.pdf.Rect(left, top, m.w*scale, m.h*scale, "F")
		}
	}
}

const pointMM = 0.3528

// pngOf compresses greys well: they are kept and sent again.
func pngOf(greys *image.Gray) []byte { return encode(greys, png.BestCompression) }

// picture draws the figure as a PNG. The result waits for it.
func (f *figure) picture() []byte { return encode(f.image(pictureScale), png.BestSpeed) }

func encode(img image.Image, level png.CompressionLevel) []byte {
	var b bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: level}).Encode(&b, img); err != nil {
		panic(err) // only an image without pixels fails
	}
	return b.Bytes()
}

// image draws the figure on black, scale px a unit.
func (f *figure) image(scale float64) *image.RGBA {
	canvas := image.NewRGBA(image.Rect(0, 0, int(math.Ceil(f.w*scale)), int(math.Ceil(f.h*scale))))
	for i := 3; i < len(canvas.Pix); i += 4 {
		canvas.Pix[i] = 255
	}
	for _, m := range f.marks {
		x, y, w, h := m.x*scale, m.y*scale, m.w*scale, m.h*scale
		switch {
		case m.greys != nil:
			r := image.Rect(int(math.Round(x)), int(math.Round(y)), int(math.Round(x+w)), int(math.Round(y+h)))
			size := m.greys.Bounds().Size()
			for py := range r.Dy() {
				for px := range r.Dx() {
					v := m.greys.GrayAt(px*size.X/r.Dx(), py*size.Y/r.Dy()).Y
					canvas.SetRGBA(r.Min.X+px, r.Min.Y+py, color.RGBA{v, v, v, 255})
				}
			}
		case m.text != "":
			writeAt(canvas, sized(m.size*scale, m.bold), m.paint.dark.rgba(), x, y, m.anchor, m.text)
		default:
			if w >= 2 { // no seams between neighbours
				x, w = math.Round(x), math.Round(x+w)-math.Round(x)
			}
			fillRect(canvas, x, y, w, h, m.paint.dark)
		}
	}
	return canvas
}

func (t tone) rgba() color.RGBA { return color.RGBA{uint8(t[0]), uint8(t[1]), uint8(t[2]), 255} }

// fillRect lets pixels at the border take their share of the colour.
func fillRect(canvas *image.RGBA, x, y, w, h float64, t tone) {
	cover := func(p int, from, to float64) float64 { return min(float64(p+1), to) - max(float64(p), from) }
	b := canvas.Bounds()
	for py := max(int(y), 0); float64(py) < y+h && py < b.Max.Y; py++ {
		for px := max(int(x), 0); float64(px) < x+w && px < b.Max.X; px++ {
			a := cover(px, x, x+w) * cover(py, y, y+h)
			o := canvas.PixOffset(px, py)
			for c := range 3 {
				canvas.Pix[o+c] = uint8(a*float64(t[c]) + (1-a)*float64(canvas.Pix[o+c]) + 0.5)
			}
		}
	}
}

// sizes of the fonts that figures were written in.
var sizes sync.Map

func sized(px float64, bold bool) font.Face {
	type key struct {
		px   float64
		bold bool
	}
	if f, ok := sizes.Load(key{px, bold}); ok {
		return f.(font.Face)
	}
	ttf := goregular.TTF
	if bold {
		ttf = gobold.TTF
	}
	f, _ := sizes.LoadOrStore(key{px, bold}, face(ttf, px))
	return f.(font.Face)
}

func writeAt(canvas *image.RGBA, f font.Face, c color.RGBA, x, y float64, a anchor, text string) {
	writing.Lock()
	defer writing.Unlock()
	d := font.Drawer{Dst: canvas, Src: image.NewUniform(c), Face: f}
	text, _ = printable(text)
	x -= float64(d.MeasureString(text).Round()) * [...]float64{0, 0.5, 1}[a]
	d.Dot = fixed.P(int(math.Round(x)), int(math.Round(y)))
	d.DrawString(text)
}
