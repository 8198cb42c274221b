package synth

import (
	"math"
	"slices"
	"testing"

	"neuroscreen/internal/segment"
)

// What the network learns from is normalised as what it segments is.
func TestNormalAgreesWithTheSegmenter(t *testing.T) {
	t.Parallel()
	n := [3]int{31, 40, 29}
	image := make([]float32, n[0]*n[1]*n[2])
	r := random(3)
	for i := range image {
		image[i] = float32(math.Abs(100*r.normal()) - 10)
	}
	g := New(artificial(), Config{Shape: n, VoxelMM: 1}, 1)
	copy(g.image, image)
	var d Drawn
	g.finish(&r, &d)
	if d.Gamma != 1 {
		t.Fatalf("gamma %g", d.Gamma)
	}
	segment.Normalise(image, n)
	for i, v := range g.out.Image {
		if math.Abs(float64(v-image[i])) > 1e-5 {
			t.Fatalf("%g instead of %g", v, image[i])
		}
	}
	if slices.Max(image) != 1.2 || slices.Min(image) != 0 {
		t.Error("nothing was clipped")
	}
}
