package train

import (
	"testing"

	"neuroscreen/internal/anatomy"
)

func TestDisputes(t *testing.T) {
	class := func(name string) uint8 {
		s, ok := anatomy.ByName(name)
		if !ok {
			t.Fatal(name)
		}
		return uint8(s.Class)
	}
	white, cortex, other := class("Left-Cerebellum-White-Matter"), class("Right-Cerebellum-Cortex"), class("Right-Cerebellum-White-Matter")
	thalamus, putamen := class("Left-Thalamus"), class("Left-Putamen")
	var image []float32
	var ours, truth []uint8
	voxels := func(n int, intensity float32, a, b uint8) {
		for range n {
			image, ours, truth = append(image, intensity), append(ours, a), append(truth, b)
		}
	}
	voxels(20, 98, white, white)
	voxels(20, 102, white, other) // sides are joined
	voxels(40, 60, cortex, cortex)
	voxels(3, 90, white, cortex) // looks like what we say
	voxels(1, 75, white, cortex) // like what they say
	voxels(1, 95, cortex, white)
	voxels(5, 70, white, 0) // what is not labelled has no looks of its own
	voxels(10, 80, thalamus, thalamus)
	voxels(10, 90, thalamus, thalamus)
	voxels(10, 86, putamen, putamen)
	voxels(7, 86, thalamus, putamen) // too alike to tell
	got := disputes(image, ours, truth)
	if want := (Dispute{5, .6}); len(got) != 2 || got["Cerebellum-White-Matter"] != want || got["Cerebellum-Cortex"] != want {
		t.Errorf("disputes %+v, want %+v of white matter and cortex", got, want)
	}
}
