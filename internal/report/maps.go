package report

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math"
	"sync"

	"neuroscreen/internal/volume"
)

// Map is a measure of a BOLD run voxel by voxel, on the run's grid; 0 is no
// value.
type Map struct {
	Name string // "ALFF"
	Says string // what it is, with its unit
	Data []float32
}

// Cuts of the maps' picture.
const (
	mapCuts     = 3
	mapPxPerMM  = 1.7
	mapBarW     = 14
	mapBarRoom  = 92
	mapOpacity  = 0.88
	mapGap      = 8
	mapMarginMM = 4
	// Text is large: in the report the picture is 6 cm wide.
	mapTextPx, mapTitlePx = 20, 26
	mapCaptionPx          = 40
)

var lightInk = color.RGBA{190, 195, 200, 255}

// Maps draws maps over axial cuts of the mean image, a row each, as a PNG.
// Colours grow lighter with the value, so that they keep their order in grey;
// they end at the 2nd and 98th percentile of the brain. It is nil without maps.
func Maps(mean *volume.Volume, labels *volume.Labels, maps []Map) ([]byte, error) {
	if len(maps) == 0 {
		return nil, nil
	}
	s := scene{img: mean, labels: labels, toVoxel: mean.Affine.Inverse()}
	w := survey(labels)
	if w.count == 0 {
		return nil, fmt.Errorf("report: no labels to draw")
	}
	s.window(w)
	var lo, hi [3]float64
	for a := range 3 {
		lo[a], hi[a] = w.lo[a]-mapMarginMM, w.hi[a]+mapMarginMM
	}
	var cuts []panel
	for n := range mapCuts {
		// From the temporal lobes to the vertex, where the brain is wide.
		share := 0.36 + 0.45*float64(n)/(mapCuts-1)
		cuts = append(cuts, panel{axial, math.Round(w.lo[2] + share*(w.hi[2]-w.lo[2])), lo, hi, mapPxPerMM, ""})
	}
	pw, ph := cuts[0].size()
	rowH := mapCaptionPx + ph + mapGap
	width := gap + mapCuts*(pw+mapGap) + mapBarRoom
	canvas := image.NewRGBA(image.Rect(0, 0, width, gap/2+len(maps)*rowH+mapCaptionPx))
	for i := 3; i < len(canvas.Pix); i += 4 {
		canvas.Pix[i] = 255
	}
	for r, m := range maps {
		if len(m.Data) != mean.Len() {
			return nil, fmt.Errorf("report: a map of %d voxels over %d", len(m.Data), mean.Len())
		}
		var values []float32
		for _, v := range m.Data {
			if v != 0 {
				values = append(values, v)
			}
		}
		if len(values) == 0 {
			values = []float32{0, 1}
		}
		q := volume.Percentiles(values, 2, 98)
		from, to := float64(q[0]), float64(q[1])
		if !(to > from) {
			to = from + 1
		}
		top := gap/2 + r*rowH
		writeAt(canvas, sized(mapTitlePx, true), ink, float64(gap), float64(top+29), start, m.Name)
		writeAt(canvas, sized(mapTextPx, false), lightInk, float64(gap+96), float64(top+28), start, m.Says)
		top += mapCaptionPx
		for c, p := range cuts {
			at := image.Pt(gap+c*(pw+mapGap), top)
			s.drawMap(canvas, p, at, m.Data, from, to)
			letter(canvas, bold(), at.Add(image.Pt(9, ph/2)), "R")
			letter(canvas, bold(), at.Add(image.Pt(pw-9, ph/2)), "L")
		}
		x := gap + mapCuts*(pw+mapGap) + 4
		for y := range ph {
			c := heat(1 - float64(y)/float64(ph-1))
			for dx := range mapBarW {
				canvas.SetRGBA(x+dx, top+y, c)
			}
		}
		writeAt(canvas, sized(mapTextPx, false), ink, float64(x+mapBarW+6), float64(top+16), start, figures(to))
		writeAt(canvas, sized(mapTextPx, false), ink, float64(x+mapBarW+6), float64(top+ph), start, figures(from))
	}
	for c, p := range cuts {
		writeAt(canvas, sized(mapTextPx, false), lightInk, float64(gap+c*(pw+mapGap)+pw/2), float64(canvas.Rect.Dy()-13), middle, p.title())
	}
	var b bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestSpeed}).Encode(&b, canvas); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// drawMap samples one panel: the mean image smoothly, the map voxel by voxel,
// as it was worked out.
func (s *scene) drawMap(canvas *image.RGBA, p panel, at image.Point, data []float32, from, to float64) {
	w, h := p.size()
	var rows sync.WaitGroup
	for r := range h {
		rows.Go(func() {
			labels := make([]uint8, w)
			s.drawRow(canvas, p, image.Pt(at.X, at.Y), r, labels)
			const nudge = 1e-4 // as drawRow
			var world [3]float64
			world[p.through] = p.at + nudge
			world[p.down] = p.hi[p.down] - (float64(r)+0.5)/p.scale + nudge
			for c := range w {
				world[p.across] = p.hi[p.across] - (float64(c)+0.5)/p.scale + nudge
				v, ok := s.nearest(s.toVoxel.Apply(world), data)
				if !ok || v == 0 {
					continue
				}
				colour := heat((float64(v) - from) / (to - from))
				o := canvas.PixOffset(at.X+c, at.Y+r)
				for n, x := range [3]uint8{colour.R, colour.G, colour.B} {
					canvas.Pix[o+n] = uint8(mapOpacity*float64(x) + (1-mapOpacity)*float64(canvas.Pix[o+n]) + 0.5)
				}
			}
		})
	}
	rows.Wait()
}

// nearest voxel's value; false outside of the grid.
func (s *scene) nearest(p [3]float64, data []float32) (float32, bool) {
	var q [3]int
	for a := range 3 {
		q[a] = int(math.Floor(p[a] + 0.5))
		if q[a] < 0 || q[a] >= s.img.Shape[a] {
			return 0, false
		}
	}
	return data[s.img.Index(q[0], q[1], q[2])], true
}

// heat is matplotlib's inferno, whose lightness grows evenly: it reads the same
// in grey and for the colour-blind.
func heat(share float64) color.RGBA {
	at := min(max(share, 0), 1) * float64(len(inferno)-1)
	n := min(int(at), len(inferno)-2)
	f := at - float64(n)
	mix := func(k int) uint8 {
		return uint8(float64(inferno[n][k]) + f*float64(inferno[n+1][k]-inferno[n][k]) + 0.5)
	}
	return color.RGBA{mix(0), mix(1), mix(2), 255}
}

// inferno at every tenth; the darkest is left out, so that a low value is not
// taken for none.
var inferno = []tone{{22, 11, 57}, {66, 10, 104}, {106, 23, 110}, {147, 38, 103}, {188, 55, 84}, {221, 81, 58}, {243, 120, 25}, {252, 165, 10}, {246, 215, 70}, {252, 255, 164}}

// figures has three of them.
func figures(v float64) string {
	digits := 2
	if math.Abs(v) >= 10 {
		digits = 1
	}
	return signed(v, digits)
}
