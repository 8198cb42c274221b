package nifti_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/klauspost/compress/gzip"

	"neuroscreen/internal/nifti"
)

// affines of every kind that a written image may have.
func affines() map[string]nifti.Affine {
	rotated := func(axis [3]float64, degrees float64, size [3]float64) nifti.Affine {
		s, c := math.Sincos(degrees * math.Pi / 180)
		l := math.Sqrt(axis[0]*axis[0] + axis[1]*axis[1] + axis[2]*axis[2])
		x, y, z := axis[0]/l, axis[1]/l, axis[2]/l
		r := [3][3]float64{
			{c + x*x*(1-c), x*y*(1-c) - z*s, x*z*(1-c) + y*s},
			{y*x*(1-c) + z*s, c + y*y*(1-c), y*z*(1-c) - x*s},
			{z*x*(1-c) - y*s, z*y*(1-c) + x*s, c + z*z*(1-c)},
		}
		a := nifti.Affine{{0, 0, 0, -90.5}, {0, 0, 0, 126.25}, {0, 0, 0, -72}, {0, 0, 0, 1}}
		for i := range 3 {
			for j := range 3 {
				a[i][j] = r[i][j] * size[j]
			}
		}
		return a
	}
	m := map[string]nifti.Affine{}
	for _, degrees := range []float64{0, 1e-3, 20, 90, 119, 120, 121, 179.99, 180, 200, 270} {
		for _, axis := range [][3]float64{{1, 0, 0}, {0, 1, 0}, {0, 0, 1}, {1, 1, 1}, {-1, 2, 0.5}, {0.3, -0.2, 3}} {
			m[fmt.Sprintf("%g about %v", degrees, axis)] = rotated(axis, degrees, [3]float64{0.8, 1, 1.2})
			m[fmt.Sprintf("%g about %v, left-handed", degrees, axis)] = rotated(axis, degrees, [3]float64{-0.8, 1, 1.2})
		}
	}
	return m
}

func wantNear(t *testing.T, got, want nifti.Affine, tol float64) {
	t.Helper()
	for i := range 4 {
		for j := range 4 {
			if !(math.Abs(got[i][j]-want[i][j]) <= tol) {
				t.Fatalf("affine\n%v, want\n%v", got, want)
			}
		}
	}
}

// Readers disagree on which of sform and qform to believe, so both must say
// the same.
func TestWriteSetsBothForms(t *testing.T) {
	t.Parallel()
	for name, a := range affines() {
		t.Run(name, func(t *testing.T) {
			for _, code := range []int{1, 2} {
				var out bytes.Buffer
				if err := nifti.Write(&out, nifti.Geometry{Shape: []int{2, 2, 2}, Affine: a, Code: code}, make([]uint8, 8)); err != nil {
					t.Fatal(err)
				}
				b := expand(t, out.Bytes())
				h, err := nifti.DecodeHeader(bytes.NewReader(b))
				if err != nil {
					t.Fatal(err)
				}
				if h.SformCode != code || h.QformCode != code || h.AffineSource != nifti.FromSform {
					t.Fatalf("codes %d %d, affine from %s", h.SformCode, h.QformCode, h.AffineSource)
				}
				wantNear(t, h.Affine, a, 1e-5)
				put16(b, 254, 0) // no sform
				if h, err = nifti.DecodeHeader(bytes.NewReader(b)); err != nil {
					t.Fatal(err)
				}
				if h.AffineSource != nifti.FromQform {
					t.Fatalf("affine from %s", h.AffineSource)
				}
				// Near half turns w is the root of a small difference of
				// float32 numbers.
				wantNear(t, h.Affine, a, 1e-3)
			}
		})
	}
}

func expand(t *testing.T, gz []byte) []byte {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(gz))
	if err != nil {
		t.Fatal(err)
	}
	if binary.LittleEndian.Uint32(gz[4:]) != 0 || z.Name != "" || z.Comment != "" {
		t.Fatalf("gzip header holds time %x, name %q, comment %q", gz[4:8], z.Name, z.Comment)
	}
	var b bytes.Buffer
	if _, err := b.ReadFrom(z); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestWriteShearedHasNoQform(t *testing.T) {
	t.Parallel()
	a := nifti.Affine{{1, 0.05, 0, 0}, {0, 1, 0, 0}, {0, 0, 1, 0}, {0, 0, 0, 1}}
	var out bytes.Buffer
	if err := nifti.Write(&out, nifti.Geometry{Shape: []int{2, 2, 2}, Affine: a}, make([]uint8, 8)); err != nil {
		t.Fatal(err)
	}
	h, err := nifti.DecodeHeader(&out)
	if err != nil {
		t.Fatal(err)
	}
	if h.QformCode != 0 || h.SformCode != 1 {
		t.Fatalf("codes %d %d, want qform 0 and sform 1", h.QformCode, h.SformCode)
	}
	wantNear(t, h.Affine, a, 1e-6)
}

// roundTrip writes data, expects the same back, and the same bytes when
// written again.
func roundTrip[T nifti.Stored](t *testing.T, dt nifti.Datatype, shape []int, data []T) {
	t.Run(fmt.Sprint(dt, shape), func(t *testing.T) {
		t.Parallel()
		g := nifti.Geometry{Shape: shape, Affine: affines()["20 about [1 1 1]"], TR: 2.5}
		var out, again bytes.Buffer
		if err := nifti.Write(&out, g, data); err != nil {
			t.Fatal(err)
		}
		if err := nifti.Write(&again, g, data); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(out.Bytes(), again.Bytes()) {
			t.Fatal("the same image gives other bytes")
		}
		im, err := nifti.Decode(&out, nifti.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		if im.Datatype != dt || im.Format != nifti.NIfTI1 || im.BigEndian || im.SpaceUnit != "mm" || !slices.Equal(im.Shape, shape) {
			t.Fatalf("read as %+v", im.Header)
		}
		if tr, ok := im.TRSeconds(); ok != (len(shape) > 3) || ok && tr != 2.5 {
			t.Fatalf("TR %g %v", tr, ok)
		}
		for n := range data {
			if im.Data[n] != float32(data[n]) {
				t.Fatalf("voxel %d is %v, want %v", n, im.Data[n], data[n])
			}
		}
	})
}

func TestWriteRoundTrip(t *testing.T) {
	t.Parallel()
	roundTrip(t, nifti.Uint8, []int{2, 3, 1}, []uint8{0, 1, 2, 127, 128, 255})
	roundTrip(t, nifti.Int16, []int{2, 3}, []int16{0, 1, -1, math.MinInt16, math.MaxInt16, 7})
	roundTrip(t, nifti.Int32, []int{1, 1, 2, 3}, []int32{0, 1, -1, math.MinInt32, 1 << 30, 7})
	roundTrip(t, nifti.Float32, []int{6}, []float32{0, -0.5, 1e-40, math.MaxFloat32, float32(math.Inf(1)), 7})
	// More than one buffer's worth, of a length that no buffer divides.
	long := make([]int32, 101*103*7)
	for n := range long {
		long[n] = int32(n) - 1000
	}
	roundTrip(t, nifti.Int32, []int{101, 103, 7}, long)
}

func TestWriteKeepsNoText(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := nifti.Write(&out, nifti.Geometry{Shape: []int{1, 1, 1}, Affine: affines()["20 about [1 1 1]"]}, []uint8{1}); err != nil {
		t.Fatal(err)
	}
	b := expand(t, out.Bytes())
	if len(b) != 353 || binary.LittleEndian.Uint32(b) != 348 {
		t.Fatalf("%d bytes", len(b))
	}
	for _, f := range [][2]int{{4, 38}, {148, 252}, {328, 344}, {348, 352}} { // data_type to regular, descrip and aux_file, intent_name, extension flag
		for n, v := range b[f[0]:f[1]] {
			if v != 0 {
				t.Errorf("byte %d is %d", f[0]+n, v)
			}
		}
	}
}

func ExampleWrite() {
	g := nifti.Geometry{
		Shape:  []int{2, 2, 1},
		Affine: nifti.Affine{{-2, 0, 0, 90}, {0, 2, 0, -126}, {0, 0, 2, -72}, {0, 0, 0, 1}},
		Code:   1,
	}
	var file bytes.Buffer
	if err := nifti.Write(&file, g, []uint8{0, 17, 53, 0}); err != nil {
		fmt.Println(err)
		return
	}
	im, err := nifti.Decode(&file, nifti.Limits{})
	fmt.Println(im.Shape, im.Datatype, im.Data, err)
	// Output: [2 2 1] uint8 [0 17 53 0] <nil>
}
