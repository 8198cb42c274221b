package synth

import (
	"image"
	"image/color"
	"image/png"
	"os"
	"strconv"
	"testing"

	"neuroscreen/internal/anatomy"
	"neuroscreen/internal/testdata"
)

// TestContactSheet draws docs/img/synth.png: 16 samples, each in coronal,
// axial and sagittal section, every other one with its labels outlined.
//
//	NEUROSCREEN_SYNTH_FIRST=16 NEUROSCREEN_SYNTH_SHEET=../../../docs/img/synth.png go test -run ContactSheet ./internal/train/synth
//
// NEUROSCREEN_SYNTH_FIRST picks another first sample; with NEUROSCREEN_SYNTH_INNER
// set, the samples are boxes round one side's inner structures.
func TestContactSheet(t *testing.T) {
	path := os.Getenv("NEUROSCREEN_SYNTH_SHEET")
	if path == "" {
		t.Skip("NEUROSCREEN_SYNTH_SHEET names no picture to draw")
	}
	m, err := LoadMaps(testdata.Shared(t, "labelmaps"), "01", "03", "05", "07", "09", "10", "13", "16", "19")
	if err != nil {
		t.Fatal(err)
	}
	first, _ := strconv.ParseUint(os.Getenv("NEUROSCREEN_SYNTH_FIRST"), 10, 64)
	n := [3]int{80, 96, 80}
	cfg, mm := Default, 2.
	if os.Getenv("NEUROSCREEN_SYNTH_EVALUATION") != "" {
		cfg = Evaluation
	}
	if os.Getenv("NEUROSCREEN_SYNTH_INNER") != "" {
		n, cfg, mm = [3]int{64, 96, 80}, Inner(cfg), 1
	}
	g := New(m, cfg(n, mm), 1)
	const columns, rows = 4, 4
	w, h := 2*n[0]+n[1]+6, n[1]+4
	// 32 greys and the structures' colours keep the file small.
	const greys = 32
	var palette color.Palette
	for i := range greys {
		v := uint8(i * 255 / (greys - 1))
		palette = append(palette, color.RGBA{v, v, v, 255})
	}
	for _, s := range anatomy.Structures {
		palette = append(palette, color.RGBA{s.Colour[0], s.Colour[1], s.Colour[2], 255})
	}
	sheet := image.NewPaletted(image.Rect(0, 0, columns*w, rows*h), palette)
	for i := range columns * rows {
		s := g.Sample(first + uint64(i))
		t.Logf("%d: %+v", i, s.Drawn)
		x0, y0 := i%columns*w, i/columns*h
		outlined := i%2 == 1
		section := func(ox, oy, nx, ny int, at func(x, y int) int) {
			for y := range ny {
				for x := range nx {
					k := at(x, y)
					c := uint8(min(greys-1, s.Image[k]*.9*greys))
					if l := s.Labels[k]; outlined && l != 0 {
						edge := false
						for _, q := range [][2]int{{x + 1, y}, {x, y + 1}} {
							edge = edge || q[0] < nx && q[1] < ny && s.Labels[at(q[0], q[1])] != l
						}
						if edge {
							c = greys + l
						}
					}
					sheet.SetColorIndex(ox+x, oy+ny-1-y, c)
				}
			}
		}
		index := func(x, y, z int) int { return (z*n[1]+y)*n[0] + x }
		section(x0, y0, n[0], n[2], func(x, z int) int { return index(x, n[1]/2, z) })
		section(x0+n[0], y0, n[0], n[1], func(x, y int) int { return index(x, y, n[2]/2) })
		section(x0+2*n[0], y0, n[1], n[2], func(y, z int) int { return index(n[0]/2-9, y, z) })
	}
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(f, sheet); err != nil {
		t.Fatal(err)
	}
}
