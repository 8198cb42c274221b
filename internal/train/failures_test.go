package train

import (
	"bytes"
	"context"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"maps"
	"os"
	"slices"
	"testing"

	"neuroscreen/internal/anatomy"
	"neuroscreen/internal/report"
	"neuroscreen/internal/segment"
	"neuroscreen/internal/testdata"
	"neuroscreen/internal/train/synth"
	"neuroscreen/internal/volume"
)

// TestFailureSheet draws docs/img/failures.png: heads of a held-out map in which
// something is wrong, as drawn and, in the row
// below, as measured.
//
//	NEUROSCREEN_FAILURES=../../docs/img/failures.png go test -run FailureSheet ./internal/train
func TestFailureSheet(t *testing.T) {
	path := os.Getenv("NEUROSCREEN_FAILURES")
	if path == "" {
		t.Skip("NEUROSCREEN_FAILURES names no picture to draw")
	}
	n, err := segment.Default()
	if err != nil {
		t.Fatal(err)
	}
	heads, err := synth.LoadMaps(testdata.Shared(t, "labelmaps"), "04")
	if err != nil {
		t.Fatal(err)
	}
	left, _ := anatomy.ByName("Left-Hippocampus")
	var sheet *image.RGBA
	for column, o := range []synth.HeadOptions{
		{Share: map[synth.Target]float64{synth.LeftHippocampus: .6}},
		{GhostShare: .2, NoiseSD: 14},
		{VoxelMM: [3]float64{1, 1, 3}, RotationDeg: [3]float64{20, 12, 0}, NoiseSD: 6},
	} {
		o.Map, o.Seed, o.BendMM, o.BiasSD = "04", 7, 2, .1
		v, truth, err := heads.Head(o)
		if err != nil {
			t.Fatal(err)
		}
		s, err := n.Segment(context.Background(), v)
		if err != nil {
			t.Fatal(err)
		}
		drawn := float64(countOf(truth.Data, uint8(left.Label))) * truth.VoxelMM3()
		t.Logf("column %d: left hippocampus %.0f mm3 drawn, %.0f measured", column, drawn, s.MM3[left.Class])
		for row, labels := range []*volume.Labels{truth, s.Labels} {
			file, err := report.Preview(v, labels)
			if err != nil {
				t.Fatal(err)
			}
			picture, err := png.Decode(bytes.NewReader(file))
			if err != nil {
				t.Fatal(err)
			}
			// The lower row of a preview shows the hippocampi.
			b := picture.Bounds()
			from := b.Min.Y + b.Dy()*596/1000
			w, h := b.Dx(), b.Dy()*31/100
			if sheet == nil {
				sheet = image.NewRGBA(image.Rect(0, 0, w, 6*h))
			}
			draw.Draw(sheet, image.Rect(0, (2*column+row)*h, w, (2*column+row+1)*h), picture, image.Pt(b.Min.X, from), draw.Src)
		}
	}
	small := image.NewPaletted(sheet.Bounds(), colours(sheet))
	draw.Draw(small, small.Bounds(), sheet, image.Point{}, draw.Src)
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(f, small); err != nil {
		t.Fatal(err)
	}
}

// colours are greys and the most frequent other colours of a picture, which
// keep its file small.
func colours(m *image.RGBA) (p color.Palette) {
	count := map[color.RGBA]int{}
	for i := 0; i < len(m.Pix); i += 4 {
		c := color.RGBA{m.Pix[i] &^ 15, m.Pix[i+1] &^ 15, m.Pix[i+2] &^ 15, 255}
		if c.R != c.G || c.G != c.B {
			count[c]++
		}
	}
	for v := 0; v < 256; v += 8 {
		p = append(p, color.RGBA{uint8(v), uint8(v), uint8(v), 255})
	}
	for _, c := range slices.SortedFunc(maps.Keys(count), func(a, b color.RGBA) int { return count[b] - count[a] })[:min(24, len(count))] {
		p = append(p, c)
	}
	return p
}
