package qc

import (
	"errors"
	"math"
	"testing"

	"neuroscreen"
	"neuroscreen/internal/nifti"
)

// run is the header of a usual run and what is known of its person.
func run() (*nifti.Header, neuroscreen.Metadata) {
	return &nifti.Header{Shape: []int{64, 64, 40, 200}, VoxelSize: [3]float64{3.4, 3.4, 3}, AffineSource: nifti.FromSform,
		Affine: nifti.Affine{{-3.4, 0, 0, 108}, {0, 3.4, 0, -108}, {0, 0, 3, -60}, {0, 0, 0, 1}}}, neuroscreen.Metadata{Modality: neuroscreen.BOLD, AgeYears: ptr(40.0)}
}

// wantRefused checks for a refusal by a code, "" for none.
func wantRefused(t *testing.T, err error, code string) {
	t.Helper()
	if code == "" {
		if err != nil {
			t.Error(err)
		}
		return
	}
	if e, ok := errors.AsType[*neuroscreen.Error](err); !ok || e.Code != neuroscreen.CodeUnprocessable || e.Type != code {
		t.Errorf("error %v, want %s", err, code)
	}
}

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
			h, m := run()
			if c.meta != nil {
				c.meta(&m)
			}
			if c.header != nil {
				c.header(h)
			}
			wantRefused(t, CheckRun(h, m), c.want)
		})
	}
}

// TestCheckTask: what is decoded needs no whole brain, but a person and a place.
func TestCheckTask(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*nifti.Header, *neuroscreen.Metadata)
		want   string
	}{
		"usual":          {func(*nifti.Header, *neuroscreen.Metadata) {}, ""},
		"one slice":      {func(h *nifti.Header, _ *neuroscreen.Metadata) { h.Shape[2] = 1 }, ""},
		"a slab":         {func(h *nifti.Header, _ *neuroscreen.Metadata) { h.Shape[1], h.Shape[2] = 20, 4 }, ""},
		"no age":         {func(_ *nifti.Header, m *neuroscreen.Metadata) { m.AgeYears = nil }, ""},
		"under 18":       {func(_ *nifti.Header, m *neuroscreen.Metadata) { m.AgeYears = ptr(17.9) }, Under18},
		"contrast agent": {func(_ *nifti.Header, m *neuroscreen.Metadata) { m.ContrastAgent = ptr(true) }, ContrastAgent},
		"no orientation": {func(h *nifti.Header, _ *neuroscreen.Metadata) { h.AffineSource = nifti.FromPixdim }, OrientationUnknown},
		"mirrored forms": {func(h *nifti.Header, _ *neuroscreen.Metadata) { h.FormsMirrored = true }, OrientationUnknown},
		"a flat affine":  {func(h *nifti.Header, _ *neuroscreen.Metadata) { h.Affine[2] = [4]float64{} }, UnusableAffine},
		"other sizes":    {func(h *nifti.Header, _ *neuroscreen.Metadata) { h.VoxelSize[2] = 6 }, UnusableAffine},
	} {
		t.Run(name, func(t *testing.T) {
			h, m := run()
			c.change(h, &m)
			wantRefused(t, CheckTask(h, m), c.want)
		})
	}
}

// TestCheckAffine names the field of the header that is at fault.
func TestCheckAffine(t *testing.T) {
	h, _ := run()
	wantRefused(t, CheckAffine(h), "")
	h.Affine[0][0] = math.NaN()
	err := CheckAffine(h)
	wantRefused(t, err, UnusableAffine)
	if e := neuroscreen.AsError(err); e.Field != "sform" {
		t.Errorf("blames %q", e.Field)
	}
}
