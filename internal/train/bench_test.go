package train

import (
	"testing"

	"neuroscreen/internal/segment"
)

// BenchmarkStep is one training step of the whole-head network at 2 mm, the
// sample given.
func BenchmarkStep(b *testing.B) {
	arch := segment.Architecture{Inputs: 4, Base: 8, Depth: 4, Shape: [3]int{80, 96, 80}, VoxelMM: 2}
	t := New(Config{Arch: arch, Seed: 1, Steps: 1000, LearningRate: 1e-3}, 2, newBlobs(arch), newBlobs(arch))
	t.Step()
	for b.Loop() {
		t.Step()
	}
}
