package report

import (
	"bytes"
	"image"
	"image/color"
	"image/png"
	"math/rand/v2"
	"testing"
)

// TestEncodePNG: every decoder gets back what was drawn.
func TestEncodePNG(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, size := range []image.Point{{1, 1}, {3, 2}, {200, 1}, {1, 200}, {501, 333}} {
		img := image.NewRGBA(image.Rectangle{Max: size})
		for i := range img.Pix {
			if img.Pix[i] = 255; i%4 != 3 && i%7 < 5 {
				img.Pix[i] = uint8(rng.IntN(256) & i)
			}
		}
		b, err := encodePNG(img)
		if err != nil {
			t.Fatal(err)
		}
		got, err := png.Decode(bytes.NewReader(b))
		if err != nil || got.Bounds() != img.Bounds() {
			t.Fatalf("%v: %v", size, err)
		}
		for y := range size.Y {
			for x := range size.X {
				if c := color.RGBAModel.Convert(got.At(x, y)); c != img.RGBAAt(x, y) {
					t.Fatalf("%v: %v at %d, %d; want %v", size, c, x, y, img.RGBAAt(x, y))
				}
			}
		}
	}
}
