package qc

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"neuroscreen"
	"neuroscreen/internal/nifti"
)

func ptr[T any](v T) *T { return &v }

var adult = neuroscreen.Metadata{AgeYears: ptr(71.0), Sex: neuroscreen.Female, Modality: neuroscreen.T1w}

// header of a usable scan: 2.5 mm voxels, 160 x 200 x 160 mm, LAS.
func usableHeader() nifti.Header {
	return nifti.Header{
		Format:       nifti.NIfTI1,
		Shape:        []int{64, 80, 64},
		Affine:       nifti.Affine{{-2.5, 0, 0, 80}, {0, 2.5, 0, -100}, {0, 0, 2.5, -80}, {0, 0, 0, 1}},
		AffineSource: nifti.FromSform,
		VoxelSize:    [3]float64{2.5, 2.5, 2.5},
	}
}

// usableImage has noise of 200 levels in it.
func usableImage() *nifti.Image {
	h := usableHeader()
	img := &nifti.Image{Header: h, Data: make([]float32, h.VolumeLen())}
	r := rand.New(rand.NewPCG(1, 2))
	for i := range img.Data {
		if i%3 != 0 {
			img.Data[i] = float32(1 + r.IntN(200))
		}
	}
	return img
}

func codes(err error) (out []string) {
	for _, r := range Reasons(err) {
		out = append(out, r.Code)
	}
	return out
}

func TestCheckHeader(t *testing.T) {
	nan := math.NaN()
	tests := []struct {
		name   string
		meta   func(*neuroscreen.Metadata)
		header func(*nifti.Header)
		want   []string
	}{
		{"a usable scan", nil, nil, nil},
		{"trailing axes of one", nil, func(h *nifti.Header) { h.Shape = []int{64, 80, 64, 1, 1} }, nil},
		{"age 18", func(m *neuroscreen.Metadata) { m.AgeYears = ptr(18.0) }, nil, nil},
		{"no age is not our business", func(m *neuroscreen.Metadata) { m.AgeYears = nil }, nil, nil},
		{"no contrast agent", func(m *neuroscreen.Metadata) { m.ContrastAgent = ptr(false) }, nil, nil},
		{"3 mm slices", nil, func(h *nifti.Header) { h.Affine[2][2], h.VoxelSize[2] = 3, 3 }, nil},
		{"oblique", nil, func(h *nifti.Header) {
			c, s := 2.5*math.Cos(.3), 2.5*math.Sin(.3)
			h.Affine[1][1], h.Affine[1][2], h.Affine[2][1], h.Affine[2][2] = c, -s, s, c
		}, nil},
		{"another storage order", nil, func(h *nifti.Header) {
			h.Shape = []int{80, 64, 64}
			h.Affine = nifti.Affine{{0, 0, 2.5, -80}, {2.5, 0, 0, -100}, {0, -2.5, 0, 80}, {0, 0, 0, 1}}
		}, nil},

		{"under 18", func(m *neuroscreen.Metadata) { m.AgeYears = ptr(17.9) }, nil, []string{Under18}},
		{"no number for an age", func(m *neuroscreen.Metadata) { m.AgeYears = ptr(nan) }, nil, []string{Under18}},
		{"more voxels than memory", nil, func(h *nifti.Header) { h.Shape = []int{560, 560, 640} }, []string{TooManyVoxels}},
		{"forms that mirror each other", nil, func(h *nifti.Header) { h.FormsMirrored = true }, []string{OrientationUnknown}},
		{"contrast agent", func(m *neuroscreen.Metadata) { m.ContrastAgent = ptr(true) }, nil, []string{ContrastAgent}},
		{"functional", func(m *neuroscreen.Metadata) { m.Modality = neuroscreen.BOLD }, nil, []string{UnsupportedModality}},
		{"2-D", nil, func(h *nifti.Header) { h.Shape = []int{64, 80} }, []string{Not3D}},
		{"one slice", nil, func(h *nifti.Header) { h.Shape = []int{64, 80, 1} }, []string{Not3D}},
		{"a time series", nil, func(h *nifti.Header) { h.Shape = []int{64, 80, 64, 100} }, []string{Not3D}},
		{"5-D", nil, func(h *nifti.Header) { h.Shape = []int{64, 80, 64, 1, 3} }, []string{Not3D}},
		{"NaN in the affine", nil, func(h *nifti.Header) { h.Affine[1][1] = nan }, []string{UnusableAffine}},
		{"zero affine", nil, func(h *nifti.Header) { h.Affine = nifti.Affine{3: {0, 0, 0, 1}} }, []string{UnusableAffine}},
		{"singular affine", nil, func(h *nifti.Header) { h.Affine[2] = h.Affine[1] }, []string{UnusableAffine}},
		{"sheared affine", nil, func(h *nifti.Header) { h.Affine[0][1] = 0.6 }, []string{UnusableAffine}},
		{"affine in metres", nil, func(h *nifti.Header) {
			for i := range 3 {
				h.Affine[i][i] /= 1000
				h.VoxelSize[i] /= 1000
			}
		}, []string{UnusableAffine}},
		{"affine against pixdim", nil, func(h *nifti.Header) { h.VoxelSize[0] = 2 }, []string{UnusableAffine}},
		{"pixdim of two decimals", nil, func(h *nifti.Header) { h.VoxelSize[0] = 2.51 }, nil},
		{"and along each axis", nil, func(h *nifti.Header) { h.VoxelSize = [3]float64{2.51, 2.51, 2.51} }, nil},
		{"affine against pixdim by 3 %", nil, func(h *nifti.Header) { h.VoxelSize[0] = 2.575 }, []string{UnusableAffine}},
		{"NaN in pixdim", nil, func(h *nifti.Header) { h.VoxelSize[0] = nan }, []string{UnusableAffine}},
		{"ANALYZE or no transform", nil, func(h *nifti.Header) { h.AffineSource = nifti.FromPixdim }, []string{OrientationUnknown}},
		{"6 mm slices", nil, func(h *nifti.Header) { h.Affine[2][2], h.VoxelSize[2] = 6, 6 }, []string{ThickSlices}},
		{"coarse in the plane", nil, func(h *nifti.Header) { h.Affine[0][0], h.VoxelSize[0] = -3.4, 3.4 }, []string{ThickSlices}},
		{"a slab", nil, func(h *nifti.Header) { h.Shape[2] = 30 }, []string{FieldOfViewCut}},
		{"half a head", nil, func(h *nifti.Header) { h.Shape[0] = 40 }, []string{FieldOfViewCut}},
		{"a whole body", nil, func(h *nifti.Header) { h.Shape[2] = 330 }, []string{ImplausibleGeometry}},
		{"many faults at once", func(m *neuroscreen.Metadata) { m.AgeYears = ptr(4.0) }, func(h *nifti.Header) {
			h.AffineSource, h.Shape = nifti.FromPixdim, []int{10, 10, 20}
		}, []string{Under18, OrientationUnknown, FieldOfViewCut, FieldOfViewCut, FieldOfViewCut}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			meta, h := adult, usableHeader()
			if test.meta != nil {
				test.meta(&meta)
			}
			if test.header != nil {
				test.header(&h)
			}
			checkRefusal(t, CheckHeader(&h, meta), test.want)
		})
	}
}

func TestCheckVoxels(t *testing.T) {
	tests := []struct {
		name string
		edit func(data []float32)
		want []string
	}{
		{"a usable scan", func([]float32) {}, nil},
		{"a few NaN", func(d []float32) { d[1000], d[2000] = float32(math.NaN()), float32(math.Inf(1)) }, nil},
		{"stripped and scaled to mean 0", func(d []float32) {
			for i, v := range d {
				if v != 0 {
					d[i] = v - 100.5
				}
			}
		}, nil},
		{"NaN as background", func(d []float32) {
			for i, v := range d {
				if v == 0 {
					d[i] = float32(math.NaN())
				}
			}
		}, []string{NotFinite}},
		{"only NaN", func(d []float32) {
			for i := range d {
				d[i] = float32(math.NaN())
			}
		}, []string{NotFinite}},
		{"empty", func(d []float32) { clear(d) }, []string{EmptyImage}},
		{"constant", func(d []float32) {
			for i := range d {
				d[i] = 7
			}
		}, []string{EmptyImage}},
		{"a handful of voxels", func(d []float32) { clear(d[20_000:]) }, []string{EmptyImage}},
		{"a mask", func(d []float32) {
			for i, v := range d {
				d[i] = min(v, 1)
			}
		}, []string{NotAnIntensityImage}},
		{"few grey levels", func(d []float32) {
			for i, v := range d {
				d[i] = float32(math.Round(float64(v) / 10))
			}
		}, []string{NotAnIntensityImage}},
		{"few grey levels and some NaN", func(d []float32) {
			for i, v := range d {
				d[i] = float32(math.Round(float64(v) / 10))
			}
			for i := range 40 {
				d[i*50] = float32(math.NaN())
			}
		}, []string{NotAnIntensityImage}},
		{"many labels in blocks", func(d []float32) {
			for i := range d {
				x, y, z := i%64, i/64%80, i/64/80
				d[i] = float32(x/16 + 10*(y/16) + 100*(z/16))
			}
		}, []string{NotAnIntensityImage}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			img := usableImage()
			test.edit(img.Data)
			for _, v := range img.Data {
				if v-v != 0 {
					img.NonFinite++
				}
			}
			checkRefusal(t, CheckVoxels(img), test.want)
			FromZero(img)
			if i := slices.IndexFunc(img.Data, func(v float32) bool { return v-v != 0 }); i >= 0 {
				t.Errorf("voxel %d is still %g", i, img.Data[i])
			}
		})
	}
}

func TestFromZero(t *testing.T) {
	nan := float32(math.NaN())
	noise := make([]float32, 5000) // round 100, far from 0
	r := rand.New(rand.NewPCG(1, 2))
	for i := range noise {
		noise[i] = 100 + float32(r.NormFloat64())
	}
	with := func(n int, values ...float32) []float32 {
		return append(slices.Clone(noise), slices.Repeat(values, n)...)
	}
	for name, tt := range map[string]struct {
		data, want []float32 // want of the last values
	}{
		"as scanned":            {with(1, 0, 7, 300), []float32{0, 7, 300}},
		"a rare negative":       {with(1, -1, 7, 300), []float32{-1, 7, 300}}, // as resampling leaves round edges
		"not finite":            {with(1, nan, 7, 300), []float32{0, 7, 300}},
		"of mean 0":             {with(200, -50, 0, 30), []float32{0, 50, 80}},
		"stripped, of mean 0":   {with(2000, 0, 0, 0, -50, 30), []float32{0, 0, 0, 0, 80}},
		"of mean 0, not finite": {with(200, -50, nan, 30), []float32{0, 0, 80}},
	} {
		t.Run(name, func(t *testing.T) {
			img := &nifti.Image{Data: tt.data}
			for _, v := range tt.data {
				img.NonFinite += one(v-v != 0)
			}
			FromZero(img)
			if got := img.Data[len(img.Data)-len(tt.want):]; !slices.Equal(got, tt.want) {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
}

// checkRefusal checks the codes of err, that it is typed, and that each
// reason says something to do.
func checkRefusal(t *testing.T, err error, want []string) {
	t.Helper()
	if got := codes(err); !slices.Equal(got, want) {
		t.Fatalf("refused for %v, want %v (%v)", got, want, err)
	}
	if err == nil {
		return
	}
	e := neuroscreen.AsError(err)
	if e.Code != neuroscreen.CodeUnprocessable || e.Type != want[0] {
		t.Errorf("%s error of type %s, want an unprocessable one of type %s", e.Code, e.Type, want[0])
	}
	for _, r := range Reasons(err) {
		if len(r.Text) < 40 {
			t.Errorf("%s says too little: %q", r.Code, r.Text)
		}
		if (r.Value == nil) != (r.Limit == nil) {
			t.Errorf("%s has a value or a limit without the other", r.Code)
		}
	}
}
