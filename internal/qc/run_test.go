package qc

import (
	"errors"
	"testing"

	"neuroscreen"
	"neuroscreen/internal/nifti"
)

func TestCheckRun(t *testing.T) {
	for _, c := range []struct {
		name   string
		meta   func(*neuroscreen.Metadata)
		header func(*nifti.Header)
		want   string
	}{
		{"usual", nil, nil, ""},
		{"no age", func(m *neuroscreen.Metadata) { m.AgeYears = nil }, nil, ""},
		{"4 mm slices", nil, func(h *nifti.Header) { h.Affine[2][2], h.VoxelSize[2] = 4, 4 }, ""},
		{"5-D with one place in the fourth", nil, func(h *nifti.Header) { h.Shape = []int{64, 64, 40, 1, 200} }, ""},
		{"under 18", func(m *neuroscreen.Metadata) { m.AgeYears = ptr(11.0) }, nil, Under18},
		{"one volume", nil, func(h *nifti.Header) { h.Shape = h.Shape[:3] }, Not4D},
		{"one slice over time", nil, func(h *nifti.Header) { h.Shape[2] = 1 }, Not4D},
		{"8 mm slices", nil, func(h *nifti.Header) { h.Affine[2][2], h.VoxelSize[2] = 8, 8 }, ThickSlices},
		{"a slab", nil, func(h *nifti.Header) { h.Shape[2] = 12 }, FieldOfViewCut},
		{"no place in the head", nil, func(h *nifti.Header) { h.AffineSource = nifti.FromPixdim }, OrientationUnknown},
		{"zero affine", nil, func(h *nifti.Header) { h.Affine = nifti.Affine{3: {0, 0, 0, 1}} }, UnusableAffine},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := neuroscreen.Metadata{Modality: neuroscreen.BOLD, AgeYears: ptr(40.0)}
			h := &nifti.Header{Shape: []int{64, 64, 40, 200}, VoxelSize: [3]float64{3.4, 3.4, 3}, AffineSource: nifti.FromSform,
				Affine: nifti.Affine{{-3.4, 0, 0, 108}, {0, 3.4, 0, -108}, {0, 0, 3, -60}, {0, 0, 0, 1}}}
			if c.meta != nil {
				c.meta(&m)
			}
			if c.header != nil {
				c.header(h)
			}
			err := CheckRun(h, m)
			if c.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if e, ok := errors.AsType[*neuroscreen.Error](err); !ok || e.Code != neuroscreen.CodeUnprocessable || e.Type != c.want {
				t.Errorf("error %v, want %s", err, c.want)
			}
		})
	}
}
