package dicom

import (
	"math"
	"testing"

	"neuroscreen/internal/anatomy"
	"neuroscreen/internal/interop/interoptest"
	"neuroscreen/internal/nifti"
)

// BenchmarkSegmentation writes a ball of 32 shells, a head's size, in 256^3 voxels.
func BenchmarkSegmentation(b *testing.B) {
	const n = 256
	m := &nifti.Image{Header: nifti.Header{Shape: []int{n, n, n}, Affine: nifti.Affine{{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 1, 0}, {0, 0, 0, 1}}}, Data: make([]float32, n*n*n)}
	for i := range m.Data {
		r := math.Hypot(math.Hypot(float64(i%n-n/2), float64(i/n%n-n/2)), float64(i/n/n-n/2))
		if shell := 1 + int(r/2.5); shell < anatomy.NumClasses {
			m.Data[i] = float32(anatomy.Structures[shell].Label)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		var size counter
		if err := Segmentation(&size, interoptest.Page(), given(m)); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(size)/1e6, "MB")
	}
}

type counter int

func (c *counter) Write(p []byte) (int, error) { *c += counter(len(p)); return len(p), nil }
