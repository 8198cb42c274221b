package report

import (
	"bytes"
	"image"
	"image/png"
	"math"
	"testing"

	"neuroscreen/internal/volume"
)

// head is an ellipsoid of labels with a bright ball in one place, on a grid of
// 4 mm.
func head(ball [3]float64) (*volume.Volume, *volume.Labels) {
	g := volume.Grid{
		Shape:  [3]int{48, 56, 46},
		Affine: volume.Affine{{4, 0, 0, -94}, {0, 4, 0, -110}, {0, 0, 4, -90}, {0, 0, 0, 1}},
	}
	v, l := volume.New(g), volume.NewLabels(g)
	inside := func(p, c, r [3]float64) bool {
		d := 0.0
		for a := range 3 {
			d += (p[a] - c[a]) * (p[a] - c[a]) / (r[a] * r[a])
		}
		return d <= 1
	}
	for k := range g.Shape[2] {
		for j := range g.Shape[1] {
			for i := range g.Shape[0] {
				p := g.Affine.Apply([3]float64{float64(i), float64(j), float64(k)})
				o := g.Index(i, j, k)
				left := p[0] < 0
				either := func(l, r uint8) uint8 {
					if left {
						return l
					}
					return r
				}
				if inside(p, [3]float64{}, [3]float64{68, 84, 66}) {
					v.Data[o], l.Data[o] = 40, 24
				}
				if inside(p, [3]float64{}, [3]float64{62, 78, 60}) {
					v.Data[o], l.Data[o] = 90, either(3, 42)
				}
				if inside(p, [3]float64{}, [3]float64{50, 66, 48}) {
					v.Data[o], l.Data[o] = 110, either(2, 41)
				}
				for _, side := range []float64{-1, 1} {
					if inside(p, [3]float64{side * 26, 8, 2}, [3]float64{8, 16, 12}) {
						v.Data[o], l.Data[o] = 95, either(12, 51)
					}
					if inside(p, [3]float64{side * 26, -22, -14}, [3]float64{9, 18, 9}) {
						v.Data[o], l.Data[o] = 85, either(17, 53)
					}
				}
				if inside(p, ball, [3]float64{9, 9, 9}) {
					v.Data[o] = 400
				}
			}
		}
	}
	return v, l
}

func draw(t *testing.T, v *volume.Volume, l *volume.Labels) image.Image {
	t.Helper()
	b, err := Preview(v, l)
	if err != nil {
		t.Fatal(err)
	}
	img, err := png.Decode(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func TestPreviewGolden(t *testing.T) {
	v, l := head([3]float64{40, 40, 2})
	b, err := Preview(v, l)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "preview.png", b)
}

// What is on the patient's right must be on the viewer's left, the front of an
// axial cut at the top, the nose of a sagittal one on the left.
func TestRadiologicalConvention(t *testing.T) {
	tests := []struct {
		name        string
		plane       plane
		ball        [3]float64
		right, down float64 // where it must show, of the panel's size
	}{
		{"right in an axial cut", axial, [3]float64{50, 0, 0}, 0.25, 0.5},
		{"left in an axial cut", axial, [3]float64{-50, 0, 0}, 0.75, 0.5},
		{"front in an axial cut", axial, [3]float64{0, 50, 0}, 0.5, 0.25},
		{"back in an axial cut", axial, [3]float64{0, -50, 0}, 0.5, 0.75},
		{"right in a coronal cut", coronal, [3]float64{50, 0, 0}, 0.25, 0.5},
		{"left in a coronal cut", coronal, [3]float64{-50, 0, 0}, 0.75, 0.5},
		{"top in a coronal cut", coronal, [3]float64{0, 0, 50}, 0.5, 0.25},
		{"bottom in a coronal cut", coronal, [3]float64{0, 0, -50}, 0.5, 0.75},
		{"front in a sagittal cut", sagittal, [3]float64{0, 50, 0}, 0.25, 0.5},
		{"back in a sagittal cut", sagittal, [3]float64{0, -50, 0}, 0.75, 0.5},
		{"top in a sagittal cut", sagittal, [3]float64{0, 0, 50}, 0.5, 0.25},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			v, l := head(test.ball)
			clear(l.Data) // no outlines
			s := scene{img: v, labels: l, toVoxel: v.Affine.Inverse(), hi: 400}
			canvas := image.NewRGBA(image.Rect(0, 0, 200, 200))
			s.draw(canvas, panel{test.plane, 0, [3]float64{-100, -100, -100}, [3]float64{100, 100, 100}, 1, ""}, image.Point{})
			var x, y, n int
			const letters = 30 // stand along the edges
			for r := letters; r < 200-letters; r++ {
				for c := letters; c < 200-letters; c++ {
					if canvas.RGBAAt(c, r).R > 200 {
						x, y, n = x+c, y+r, n+1
					}
				}
			}
			if n < 100 {
				t.Fatal("the ball does not show")
			}
			gotX, gotY := float64(x)/float64(n)/200, float64(y)/float64(n)/200
			if math.Abs(gotX-test.right) > 0.03 || math.Abs(gotY-test.down) > 0.03 {
				t.Errorf("shows at %.2f, %.2f of the panel, want %.2f, %.2f", gotX, gotY, test.right, test.down)
			}
		})
	}
}

// However a scan is stored, its picture is the same.
func TestPreviewDoesNotDependOnStorage(t *testing.T) {
	v, l := head([3]float64{40, 40, 2})
	want := draw(t, v, l)
	turn := volume.Reorientation{Axis: [3]int{1, 2, 0}, Flip: [3]bool{true, false, true}}
	got := draw(t, turn.Volume(v), turn.Labels(l))
	if got.Bounds() != want.Bounds() {
		t.Fatalf("%v, want %v", got.Bounds(), want.Bounds())
	}
	different := 0
	b := want.Bounds()
	for y := b.Min.Y; y < b.Max.Y; y++ {
		for x := b.Min.X; x < b.Max.X; x++ {
			r0, g0, b0, _ := want.At(x, y).RGBA()
			r1, g1, b1, _ := got.At(x, y).RGBA()
			if max(r0, r1)-min(r0, r1) > 0x300 || max(g0, g1)-min(g0, g1) > 0x300 || max(b0, b1)-min(b0, b1) > 0x300 {
				different++
			}
		}
	}
	// Rounding decides the nearest voxel of a few pixels.
	if share := float64(different) / float64(b.Dx()*b.Dy()); share > 0.002 {
		t.Errorf("%.2f %% of the pixels differ", 100*share)
	}
}

func TestPreviewWithoutLabels(t *testing.T) {
	v, l := head([3]float64{})
	clear(l.Data)
	if _, err := Preview(v, l); err == nil {
		t.Error("a picture without labels should be an error")
	}
}

// Without hippocampi the first row remains.
func TestPreviewWithoutHippocampi(t *testing.T) {
	v, l := head([3]float64{})
	whole := draw(t, v, l).Bounds().Dy()
	for i, label := range l.Data {
		if label == 17 || label == 53 {
			l.Data[i] = 2
		}
	}
	if got := draw(t, v, l).Bounds().Dy(); got >= whole {
		t.Errorf("%d px high, want fewer than %d", got, whole)
	}
}

// TestSigns: without colours, both sides of a structure are known by one sign
// that no other has, and it stands inside of the outline.
func TestSigns(t *testing.T) {
	of := map[string]int{}
	for _, entry := range legend {
		if entry.sign == "" {
			continue
		}
		if other, taken := of[entry.sign]; taken {
			t.Errorf("%s stands for %d and %d", entry.sign, other, entry.label)
		}
		of[entry.sign] = entry.label
		if signs[entry.label] != entry.sign {
			t.Errorf("%d has the sign %q", entry.label, signs[entry.label])
		}
	}
	if signs[17] != "H" || signs[53] != "H" || signs[16] != "BS" || signs[42] != "" {
		t.Errorf("signs %q, %q, %q, %q", signs[17], signs[53], signs[16], signs[42])
	}

	const w, h = 40, 40
	labels := make([]uint8, w*h)
	for i := range labels { // a ring, whose middle lies outside of it
		if r := math.Hypot(float64(i%w-20), float64(i/w-20)); r > 8 && r < 16 {
			labels[i] = 17
		}
	}
	labels[0] = 18
	got := inside(labels, w, h)
	if p, ok := got[17]; len(got) != 1 || !ok || labels[p.Y*w+p.X] != 17 {
		t.Errorf("signs at %v", got)
	}
}
