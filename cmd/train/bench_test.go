package main

import (
	"fmt"
	"testing"

	"neuroscreen/internal/testdata"
	"neuroscreen/internal/train"
	"neuroscreen/internal/train/synth"
)

// BenchmarkStep is one training step of the whole head's network on two
// threads, its heads drawn meanwhile.
func BenchmarkStep(b *testing.B) {
	d := data{Maps: testdata.Shared(b, "labelmaps")}
	for _, base := range []int{8, 16} {
		arch := stages["whole"].Architecture
		arch.Base = base
		s, err := d.samplers(2, []string{"01", "02", "03", "05"}, arch, synth.Default, 1)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("%d channels", base), func(b *testing.B) {
			t := train.New(train.Config{Arch: arch, Seed: 1, Steps: 1000, LearningRate: 1e-3}, 2, s[0], s[1])
			t.Step()
			for b.Loop() {
				t.Step()
			}
		})
	}
}
