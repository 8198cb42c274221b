package main

import (
	"fmt"
	"testing"

	"neuroscreen/internal/testdata"
	"neuroscreen/internal/train"
)

// BenchmarkStep is one training step of the whole head's network on two
// threads, its heads drawn meanwhile.
func BenchmarkStep(b *testing.B) {
	d := data{Maps: testdata.Shared(b, "labelmaps")}
	for _, base := range []int{8, 16} {
		stage := stages["whole"]
		arch := stage.Architecture
		arch.Base = base
		s, err := d.learning([]string{"01", "02", "03", "05"}, stage, arch, 1, 1)
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
