package synth

import (
	"testing"

	"neuroscreen/internal/testdata"
)

func BenchmarkSample(b *testing.B) {
	m, err := LoadMaps(testdata.Shared(b, "labelmaps"), "01", "02", "03", "05")
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct {
		name string
		cfg  Config
	}{
		{"whole", Default([3]int{80, 96, 80}, 2)},
		{"inner", Inner(Default)([3]int{64, 96, 80}, 1)},
	} {
		b.Run(c.name, func(b *testing.B) {
			g := New(m, c.cfg, 1)
			for i := range uint64(20) {
				g.Sample(i)
			}
			b.ReportAllocs()
			i := uint64(20)
			for b.Loop() {
				g.Sample(i)
				i++
			}
		})
	}
}
