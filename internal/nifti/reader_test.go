package nifti_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/gzip"

	"neuroscreen/internal/nifti"
)

func wantError(t *testing.T, err error, typ, says string) {
	t.Helper()
	e, ok := errors.AsType[*nifti.Error](err)
	if !ok {
		t.Fatalf("error %v, want a *nifti.Error of type %s", err, typ)
	}
	if e.Type != typ || !strings.Contains(e.Error(), says) {
		t.Fatalf("error %q, want type %s and %q", e, typ, says)
	}
}

// file is a valid NIfTI-1 of 3 x 4 x 2 int16, values 0 to 23, little-endian,
// not compressed.
func file(t testing.TB) []byte {
	t.Helper()
	data := make([]int16, 24)
	for n := range data {
		data[n] = int16(n)
	}
	g := nifti.Geometry{Shape: []int{3, 4, 2}, Affine: nifti.Affine{{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 1, 0}, {0, 0, 0, 1}}}
	var b bytes.Buffer
	if err := nifti.Write(&b, g, data); err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(&b)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return plain
}

func compress(b []byte) []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	z.Write(b)
	z.Close()
	return out.Bytes()
}

func put16(b []byte, at int, v ...int16) {
	for n, v := range v {
		binary.LittleEndian.PutUint16(b[at+2*n:], uint16(v))
	}
}

func putFloat(b []byte, at int, v ...float32) {
	for n, v := range v {
		binary.LittleEndian.PutUint32(b[at+4*n:], math.Float32bits(v))
	}
}

func edit(f func(b []byte)) func([]byte) []byte {
	return func(b []byte) []byte { f(b); return b }
}

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	pad := func(s string) func([]byte) []byte {
		return func(b []byte) []byte { return append([]byte(s), bytes.Repeat([]byte{0x55, 0xaa}, 400)...) }
	}
	whole := func(s string) func([]byte) []byte { return func([]byte) []byte { return []byte(s) } }
	cases := map[string]struct {
		change    func([]byte) []byte
		typ, says string
	}{
		"no bytes":         {whole(""), nifti.TypeEmpty, "0 bytes"},
		"gzip of no bytes": {func([]byte) []byte { return compress(nil) }, nifti.TypeEmpty, "0 bytes"},
		"one byte":         {whole("x"), nifti.TypeNotNIfTI, "text"},
		"web page":         {whole("\n<!DOCTYPE html><title>Log in</title>"), nifti.TypeNotNIfTI, "web page"},
		"text":             {whole("id\tage\nsub-01\t71 Ünal\n"), nifti.TypeNotNIfTI, "text"},
		"JSON":             {whole(`{"EchoTime": 0.003}`), nifti.TypeNotNIfTI, "JSON"},
		"ZIP":              {pad("PK\x03\x04"), nifti.TypeNotNIfTI, "ZIP"},
		"bzip2":            {pad("BZh9"), nifti.TypeNotNIfTI, "bzip2"},
		"NRRD":             {pad("NRRD0004\n"), nifti.TypeNotNIfTI, "NRRD"},
		"MetaImage":        {pad("ObjectType = Image\n"), nifti.TypeNotNIfTI, "MetaImage"},
		"AFNI header":      {whole("\ntype  = string-attribute\nname  = IDCODE_STRING\n"), nifti.TypeNotNIfTI, "AFNI"},
		"PAR":              {whole("# === DATA DESCRIPTION FILE ======\n"), nifti.TypeNotNIfTI, "PAR"},
		"MGH":              {whole("\x00\x00\x00\x01\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00"), nifti.TypeNotNIfTI, "MGH"},
		"gzip of MGH": {func([]byte) []byte {
			return compress([]byte("\x00\x00\x00\x01\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00\x01\x00\x00\x00\x00"))
		}, nifti.TypeNotNIfTI, "MGH"},
		"DICOM": {func([]byte) []byte { return append(make([]byte, 128), "DICM\x02\x00"...) }, nifti.TypeNotNIfTI, "DICOM"},
		"tar": {func([]byte) []byte {
			return append(append(bytes.Repeat([]byte{'a'}, 257), "ustar"...), make([]byte, 400)...)
		}, nifti.TypeNotNIfTI, "tar"},
		"zeros":                    {func([]byte) []byte { return make([]byte, 5000) }, nifti.TypeNotNIfTI, "zeros"},
		"noise":                    {pad("\x01\x02\x03\x04"), nifti.TypeNotNIfTI, "magic"},
		"compressed twice":         {func(b []byte) []byte { return compress(compress(b)) }, nifti.TypeNotNIfTI, "twice"},
		"cut in the header":        {func(b []byte) []byte { return b[:300] }, nifti.TypeTruncated, "300 of 348"},
		"cut in a NIfTI-2 header":  {whole("\x1c\x02\x00\x00n+2\x00\r\n\x1a\n..."), nifti.TypeTruncated, "15 of 540"},
		"cut after the header":     {func(b []byte) []byte { return b[:352] }, nifti.TypeNoData, "48 bytes"},
		"cut before the data":      {func(b []byte) []byte { return b[:350] }, nifti.TypeNoData, "352"},
		"cut in the data":          {func(b []byte) []byte { return b[:360] }, nifti.TypeTruncated, "8 of the 48"},
		"gzip cut":                 {func(b []byte) []byte { b = compress(b); return b[:len(b)-9] }, nifti.TypeTruncated, "ends early"},
		"gzip without checksum":    {func(b []byte) []byte { b = compress(b); return b[:len(b)-8] }, nifti.TypeTruncated, "ends early"},
		"gzip header cut":          {whole("\x1f\x8b\x08"), nifti.TypeTruncated, "ends early"},
		"gzip checksum wrong":      {func(b []byte) []byte { b = compress(b); b[len(b)-8] ^= 1; return b }, nifti.TypeBadGzip, "checksum"},
		"gzip length wrong":        {func(b []byte) []byte { b = compress(b); b[len(b)-1] ^= 1; return b }, nifti.TypeBadGzip, "checksum"},
		"gzip method unknown":      {whole("\x1f\x8b\x07\x00\x00\x00\x00\x00\x00\x00...."), nifti.TypeBadGzip, "damaged"},
		"gzip body damaged":        {whole("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff"), nifti.TypeBadGzip, "damaged"},
		"header of a pair":         {edit(func(b []byte) { copy(b[344:], "ni1\x00") }), nifti.TypeNoData, ".img"},
		"ANALYZE header":           {func(b []byte) []byte { clear(b[344:348]); return b[:348] }, nifti.TypeNoData, "ANALYZE"},
		"another magic":            {edit(func(b []byte) { copy(b[344:], "xxxx") }), nifti.TypeBadHeader, "magic"},
		"no magic":                 {edit(func(b []byte) { clear(b[344:348]) }), nifti.TypeBadHeader, "magic"},
		"line ends rewritten":      {whole("\x1c\x02\x00\x00n+2\x00\n\x1a\n\x00" + strings.Repeat("\x00", 600)), nifti.TypeBadHeader, "binary mode"},
		"no dimensions":            {edit(func(b []byte) { put16(b, 40, 0) }), nifti.TypeAbsurdDimensions, "dim[0]"},
		"8 dimensions":             {edit(func(b []byte) { put16(b, 40, 8) }), nifti.TypeAbsurdDimensions, "dim[0]"},
		"zero dimension":           {edit(func(b []byte) { put16(b, 44, 0) }), nifti.TypeAbsurdDimensions, "dim[2]"},
		"negative dimension":       {edit(func(b []byte) { put16(b, 46, -2) }), nifti.TypeAbsurdDimensions, "dim[3]"},
		"overflowing dimensions":   {edit(func(b []byte) { put16(b, 40, 7, 32767, 32767, 32767, 32767, 32767, 32767, 32767) }), nifti.TypeAbsurdDimensions, "dim[4]"},
		"huge volume":              {edit(func(b []byte) { put16(b, 40, 3, 32767, 32767, 2) }), nifti.TypeTooLarge, "over the limit of 268435456"},
		"huge series":              {edit(func(b []byte) { put16(b, 40, 4, 512, 512, 256, 4000) }), nifti.TypeTooLarge, "1073741824 bytes"},
		"series over the voxels":   {edit(func(b []byte) { put16(b, 40, 4, 512, 512, 64, 20); put16(b, 70, 2) }), nifti.TypeTooLarge, "335544320 voxels"},
		"complex":                  {edit(func(b []byte) { put16(b, 70, 32) }), nifti.TypeUnsupportedDatatype, "complex"},
		"RGB":                      {edit(func(b []byte) { put16(b, 70, 128) }), nifti.TypeUnsupportedDatatype, "RGB"},
		"RGBA":                     {edit(func(b []byte) { put16(b, 70, 2304) }), nifti.TypeUnsupportedDatatype, "RGBA"},
		"float128":                 {edit(func(b []byte) { put16(b, 70, 1536) }), nifti.TypeUnsupportedDatatype, "128-bit"},
		"bits":                     {edit(func(b []byte) { put16(b, 70, 1) }), nifti.TypeUnsupportedDatatype, "bits"},
		"datatype 0":               {edit(func(b []byte) { put16(b, 70, 0) }), nifti.TypeUnsupportedDatatype, "code 0"},
		"unknown datatype":         {edit(func(b []byte) { put16(b, 70, -9510) }), nifti.TypeUnsupportedDatatype, "-9510"},
		"offset inside the header": {edit(func(b []byte) { putFloat(b, 108, 100) }), nifti.TypeBadHeader, "vox_offset"},
		"offset not a number":      {edit(func(b []byte) { putFloat(b, 108, float32(math.NaN())) }), nifti.TypeBadHeader, "vox_offset"},
		"offset infinite":          {edit(func(b []byte) { putFloat(b, 108, float32(math.Inf(1))) }), nifti.TypeBadHeader, "vox_offset"},
		"offset negative":          {edit(func(b []byte) { putFloat(b, 108, -352) }), nifti.TypeBadHeader, "vox_offset"},
		"offset past the end":      {edit(func(b []byte) { putFloat(b, 108, 4096) }), nifti.TypeNoData, "4096"},
		"offset past the limit":    {edit(func(b []byte) { putFloat(b, 108, 1e15) }), nifti.TypeTooLarge, "limit"},
		"intercept not a number":   {edit(func(b []byte) { putFloat(b, 112, 2, float32(math.NaN())) }), nifti.TypeBadHeader, "scl_inter"},
		"quaternion too long":      {edit(func(b []byte) { put16(b, 252, 1, 0); putFloat(b, 256, 0.8, 0.8, 0) }), nifti.TypeBadHeader, "quatern_b"},
		"100 MiB after the data":   {func(b []byte) []byte { return compress(append(b, make([]byte, 100<<20)...)) }, nifti.TypeTooLarge, "follow the image"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			im, err := nifti.Decode(bytes.NewReader(c.change(file(t))), nifti.Limits{})
			if im != nil {
				t.Fatal("read")
			}
			wantError(t, err, c.typ, c.says)
		})
	}
}

func TestDecodeAccepts(t *testing.T) {
	t.Parallel()
	cases := map[string]func([]byte) []byte{
		"plain":                      func(b []byte) []byte { return b },
		"gzip":                       compress,
		"gzip in two members":        func(b []byte) []byte { return append(compress(b[:370]), compress(b[370:])...) },
		"bytes after the data":       func(b []byte) []byte { return append(b, "trailer"...) },
		"gzip, bytes after the data": func(b []byte) []byte { return compress(append(b, "trailer"...)) },
		"bytes after the gzip":       func(b []byte) []byte { return append(compress(b), "trailer"...) },
		"zeros after the gzip":       func(b []byte) []byte { return append(compress(b), make([]byte, 512)...) },
		"gzip in two members, bytes after the gzip": func(b []byte) []byte {
			return append(append(compress(b[:370]), compress(b[370:])...), "trailer"...)
		},
		"offset 0":           edit(func(b []byte) { putFloat(b, 108, 0) }),
		"sizeof_hdr 0":       edit(func(b []byte) { put16(b, 0, 0) }),
		"fourth dimension 0": edit(func(b []byte) { put16(b, 40, 4, 3, 4, 2, 0) }),
		"seven dimensions":   edit(func(b []byte) { put16(b, 40, 7, 3, 4, 2, 1, 1, 1, 1) }),
		"slope not a number": edit(func(b []byte) { putFloat(b, 112, float32(math.NaN()), float32(math.NaN())) }),
	}
	for name, change := range cases {
		for _, r := range []struct {
			name string
			wrap func(io.Reader) io.Reader
		}{
			{"whole", func(r io.Reader) io.Reader { return r }},
			{"byte by byte", iotest.OneByteReader},
			{"data with EOF", iotest.DataErrReader},
		} {
			t.Run(name+"/"+r.name, func(t *testing.T) {
				t.Parallel()
				im, err := nifti.Decode(r.wrap(bytes.NewReader(change(file(t)))), nifti.Limits{})
				if err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(im.Shape, []int{3, 4, 2}) {
					t.Fatalf("shape %v", im.Shape)
				}
				for n, v := range im.Data {
					if v != float32(n) {
						t.Fatalf("voxel %d is %g", n, v)
					}
				}
			})
		}
	}
}

// A header that promises more than the file holds must not cost its promise.
func TestDecodeBoundsMemoryByTheFile(t *testing.T) {
	b := file(t)
	put16(b, 40, 3, 512, 512, 1000) // 1 GiB as float32
	put16(b, 70, 2)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := nifti.Decode(bytes.NewReader(b), nifti.Limits{})
	runtime.ReadMemStats(&after)
	wantError(t, err, nifti.TypeTruncated, "48 of the 262144000")
	if got := after.TotalAlloc - before.TotalAlloc; got > 32<<20 {
		t.Fatalf("%d bytes allocated for a file of %d", got, len(b))
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	b := file(t)
	for name, lim := range map[string]nifti.Limits{
		"voxels": {MaxVoxels: 23},
		"bytes":  {MaxBytes: 352 + 47},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := nifti.Decode(bytes.NewReader(b), lim)
			wantError(t, err, nifti.TypeTooLarge, "limit")
		})
	}
	if _, err := nifti.Decode(bytes.NewReader(compress(b)), nifti.Limits{MaxVoxels: 24, MaxBytes: 352 + 48, MaxTrailing: 1}); err != nil {
		t.Fatalf("at the limit: %v", err)
	}
	tail := compress(append(b, "tail"...))
	if _, err := nifti.Decode(bytes.NewReader(tail), nifti.Limits{MaxBytes: 352 + 48, MaxTrailing: 4}); err != nil {
		t.Fatalf("trailing bytes at the limit: %v", err)
	}
	_, err := nifti.Decode(bytes.NewReader(tail), nifti.Limits{MaxTrailing: 3})
	wantError(t, err, nifti.TypeTooLarge, "3 bytes follow")
}

// What goes wrong while receiving is the sender's, not the file's.
func TestDecodePassesReadErrorsOn(t *testing.T) {
	t.Parallel()
	lost := errors.New("connection lost")
	for _, change := range []func([]byte) []byte{func(b []byte) []byte { return b }, compress} {
		b := change(file(t))
		for cut := range len(b) - 1 {
			_, err := nifti.Decode(io.MultiReader(bytes.NewReader(b[:cut]), iotest.ErrReader(lost)), nifti.Limits{})
			if !errors.Is(err, lost) {
				t.Fatalf("cut at %d of %d: error %v, want the connection's", cut, len(b), err)
			}
		}
	}
}

// A file cut anywhere is refused, never read short.
func TestDecodeRefusesEveryCut(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func([]byte) []byte{"plain": func(b []byte) []byte { return b }, "gzip": compress} {
		b := change(file(t))
		for cut := range len(b) - 1 {
			_, err := nifti.Decode(bytes.NewReader(b[:cut]), nifti.Limits{})
			if _, ok := errors.AsType[*nifti.Error](err); !ok {
				t.Fatalf("%s cut at %d of %d: error %v", name, cut, len(b), err)
			}
		}
	}
}

// An image one voxel larger than what is allocated on the header's word.
func TestDecodeLargeImage(t *testing.T) {
	t.Parallel()
	shape := []int{5, 397, 2113} // 2^22 + 1
	data := make([]uint8, 5*397*2113)
	for n := range data {
		data[n] = uint8(n % 251)
	}
	var b bytes.Buffer
	if err := nifti.Write(&b, nifti.Geometry{Shape: shape}, data); err != nil {
		t.Fatal(err)
	}
	im, err := nifti.Decode(&b, nifti.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if len(im.Data) != len(data) {
		t.Fatalf("%d voxels of %d", len(im.Data), len(data))
	}
	for n, v := range im.Data {
		if v != float32(data[n]) {
			t.Fatalf("voxel %d is %g, want %d", n, v, data[n])
		}
	}
}

func TestFormsMirrored(t *testing.T) {
	t.Parallel()
	straight := nifti.Affine{{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 1, 0}, {0, 0, 0, 1}}
	flipped := straight
	flipped[0][0] = -1
	for _, c := range []struct {
		affine  nifti.Affine
		sRowX   float32 // what the sform then says of x instead
		s, q    int16
		doubted bool
	}{
		{straight, 1, 1, 1, false},
		{flipped, -1, 1, 1, false},
		{straight, -1, 1, 1, true},
		{flipped, 1, 1, 1, true},
		{straight, -1, 1, 0, false},
		{straight, -1, 0, 1, false},
	} {
		var out bytes.Buffer
		if err := nifti.Write(&out, nifti.Geometry{Shape: []int{1, 1, 1}, Affine: c.affine}, []uint8{1}); err != nil {
			t.Fatal(err)
		}
		b := expand(t, out.Bytes())
		putFloat(b, 280, c.sRowX)
		put16(b, 252, c.q, c.s)
		h, err := nifti.DecodeHeader(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		if h.FormsMirrored != c.doubted {
			t.Errorf("%+v: FormsMirrored %v", c, h.FormsMirrored)
		}
	}
}

// usedCode is that of the form that Affine was taken from.
func usedCode(h *nifti.Header) int {
	if h.AffineSource == nifti.FromSform {
		return h.SformCode
	}
	return h.QformCode
}

// A sform that leads to a template gives way to a qform that leads to the
// scanner and says something else.
func TestTemplateSpace(t *testing.T) {
	t.Parallel()
	own := nifti.Affine{{-1, 0, 0, 90}, {0, 1, 0, -120}, {0, 0, 1.2, -80}, {0, 0, 0, 1}}
	wider := own
	wider[0][0] = -1.2
	for _, c := range []struct {
		name     string
		sform    nifti.Affine
		q, s     int16
		template bool // the space of Affine
		affine   nifti.Affine
	}{
		{"both to the scanner", wider, 1, 1, false, wider},
		{"qform aside", wider, 0, 2, false, wider},
		{"sform to MNI's", wider, 1, 4, false, own},
		{"sform to Talairach's", wider, 2, 3, false, own},
		{"both to MNI's", wider, 4, 4, true, wider},
		{"sform alone, to MNI's", wider, 0, 4, true, wider},
		{"sform alone, to another template's", wider, 0, 5, true, wider},
		{"qform alone, to MNI's", wider, 4, 0, true, own},
		{"qform the same as the sform", own, 1, 4, true, own},
	} {
		var out bytes.Buffer
		if err := nifti.Write(&out, nifti.Geometry{Shape: []int{1, 1, 1}, Affine: own, Template: &c.sform, TemplateCode: int(c.s)}, []uint8{1}); err != nil {
			t.Fatal(err)
		}
		b := expand(t, out.Bytes())
		put16(b, 252, c.q)
		h, err := nifti.DecodeHeader(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		if h.InTemplate() != c.template {
			t.Errorf("%s: in a template's space %v", c.name, h.InTemplate())
		}
		wantNear(t, h.Affine, c.affine, 1e-5)
		// What is written on this grid has both forms again.
		out.Reset()
		if err := nifti.Write(&out, h.Geometry(), []uint8{1}); err != nil {
			t.Fatal(err)
		}
		again, err := nifti.DecodeHeader(&out)
		if err != nil {
			t.Fatal(err)
		}
		wantNear(t, again.Affine, h.Affine, 1e-5)
		if got, want := usedCode(again), usedCode(h); got != want || again.InTemplate() != c.template {
			t.Errorf("%s: the form that was used has code %d, written %d", c.name, want, got)
		}
		if (again.Template != nil) != (h.Template != nil) {
			t.Errorf("%s: form to the template kept %v, written %v", c.name, h.Template != nil, again.Template != nil)
		} else if h.Template != nil {
			wantNear(t, *again.Template, c.sform, 1e-5)
		}
	}
}

func TestReaderReadsVolumeByVolume(t *testing.T) {
	t.Parallel()
	path := filepath.Join("testdata", "fixtures", "shape_3x4x2x3.nii")
	im, err := nifti.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	rd, err := nifti.Open(path, nifti.Limits{MaxVoxels: 24}) // one volume's
	if err != nil {
		t.Fatal(err)
	}
	defer rd.Close()
	vol := make([]float32, rd.Header().VolumeLen())
	var all []float32
	for {
		if err := rd.Next(vol); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, vol...)
	}
	if len(all) != 72 || !slices.Equal(all, im.Data) {
		t.Fatalf("%d values one by one differ from %d at once", len(all), len(im.Data))
	}
	if err := rd.Next(vol); !errors.Is(err, io.EOF) {
		t.Fatalf("after the end: %v", err)
	}
}

func TestReaderVerifiesChecksumWithLastVolume(t *testing.T) {
	t.Parallel()
	// Larger than any buffer on the way, so that the checksum is not met early.
	b := append(file(t)[:352], make([]byte, 2*2*64*64*32)...)
	put16(b, 40, 4, 64, 64, 32, 2)
	b = compress(b)
	b[len(b)-8] ^= 1
	rd, err := nifti.NewReader(bytes.NewReader(b), nifti.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	vol := make([]float32, 64*64*32)
	if err := rd.Next(vol); err != nil {
		t.Fatalf("first volume: %v", err)
	}
	wantError(t, rd.Next(vol), nifti.TypeBadGzip, "checksum")
	wantError(t, rd.Next(vol), nifti.TypeBadGzip, "checksum")
}

// nothing of the header's free text or of an extension may be reachable.
func TestFreeTextIsNotKept(t *testing.T) {
	t.Parallel()
	b := file(t)
	for _, f := range []struct{ at, n int }{{4, 10}, {14, 18}, {148, 80}, {228, 24}, {328, 16}} { // data_type, db_name, descrip, aux_file, intent_name
		copy(b[f.at:f.at+f.n], strings.Repeat("DOE^JANE", 10))
	}
	im, err := nifti.Decode(bytes.NewReader(b), nifti.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	ext, err := nifti.ReadFile("testdata/fixtures/extension.nii")
	if err != nil {
		t.Fatal(err)
	}
	raw, _ := os.ReadFile("testdata/fixtures/extension.nii")
	if !bytes.Contains(raw, []byte("Doe^Jane")) {
		t.Fatal("the fixture holds no name")
	}
	for _, im := range []*nifti.Image{im, ext} {
		var walk func(v reflect.Value)
		walk = func(v reflect.Value) {
			switch v.Kind() {
			case reflect.Struct:
				for n := range v.NumField() {
					walk(v.Field(n))
				}
			case reflect.String:
				if strings.Contains(strings.ToLower(v.String()), "doe") {
					t.Errorf("kept: %q", v.String())
				}
			case reflect.Slice:
				if k := v.Type().Elem().Kind(); k != reflect.Int && k != reflect.Float32 {
					t.Errorf("keeps a slice of %s", v.Type().Elem())
				}
			case reflect.Map, reflect.Pointer, reflect.Interface:
				if v.Type() != reflect.TypeFor[*nifti.Affine]() {
					t.Errorf("keeps a %s", v.Type())
				}
			}
		}
		walk(reflect.ValueOf(*im))
	}
}

func TestUnits(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		code        byte
		space, time string
		tr          float64
		ok          bool
	}{
		{0, "", "", 0, false},
		{2 | 8, "mm", "s", 2.5, true},
		{2 | 16, "mm", "ms", 0.0025, true},
		{3 | 24, "um", "us", 2.5e-6, true},
		{1 | 32, "m", "Hz", 0, false},
	} {
		b := file(t)
		put16(b, 40, 4, 3, 2, 2, 2)
		putFloat(b, 92, 2.5)
		b[123] = c.code
		h, err := nifti.DecodeHeader(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		tr, ok := h.TRSeconds()
		if h.SpaceUnit != c.space || h.TimeUnit != c.time || ok != c.ok || ok && math.Abs(tr-c.tr) > 1e-15 {
			t.Errorf("xyzt_units %d: %q %q, TR %g %v; want %q %q %g %v", c.code, h.SpaceUnit, h.TimeUnit, tr, ok, c.space, c.time, c.tr, c.ok)
		}
	}
}

func TestReadFileFindsThePartner(t *testing.T) {
	t.Parallel()
	fixture := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join("testdata", "fixtures", name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	hdr, img := fixture("pair.hdr"), fixture("pair.img")
	for name, c := range map[string]struct {
		files     map[string][]byte
		open      string
		typ, says string // of the error, if one is wanted
	}{
		"by the header":           {files: map[string][]byte{"a.hdr": hdr, "a.img": img}, open: "a.hdr"},
		"by the data":             {files: map[string][]byte{"a.hdr": hdr, "a.img": img}, open: "a.img"},
		"upper case":              {files: map[string][]byte{"A.HDR": hdr, "A.IMG": img}, open: "A.IMG"},
		"only the data gzipped":   {files: map[string][]byte{"a.hdr": hdr, "a.img.gz": compress(img)}, open: "a.hdr"},
		"only the header gzipped": {files: map[string][]byte{"a.hdr.gz": compress(hdr), "a.img": img}, open: "a.img"},
		"dots in the name":        {files: map[string][]byte{"a.nii.v1.hdr": hdr, "a.nii.v1.img": img}, open: "a.nii.v1.img"},
		"no data":                 {files: map[string][]byte{"a.hdr": hdr}, open: "a.hdr", typ: nifti.TypeNoData, says: ".img"},
		"no header":               {files: map[string][]byte{"a.img": img}, open: "a.img", typ: nifti.TypeNoHeader, says: ".hdr"},
		"empty data":              {files: map[string][]byte{"a.hdr": hdr, "a.img": nil}, open: "a.hdr", typ: nifti.TypeEmpty, says: ".img"},
		"data cut":                {files: map[string][]byte{"a.hdr": hdr, "a.img": img[:9]}, open: "a.hdr", typ: nifti.TypeTruncated, says: "9 of the 48"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for f, b := range c.files {
				if err := os.WriteFile(filepath.Join(dir, f), b, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			im, err := nifti.ReadFile(filepath.Join(dir, c.open))
			if c.typ != "" {
				wantError(t, err, c.typ, c.says)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want, err := nifti.DecodePair(bytes.NewReader(hdr), bytes.NewReader(img), nifti.Limits{})
			if err != nil || !want.Pair || len(want.Data) != 24 || !slices.Equal(im.Data, want.Data) {
				t.Fatalf("values differ (%v)", err)
			}
		})
	}
	for _, name := range []string{"absent.nii", "absent.img", "absent.hdr"} {
		if _, err := nifti.ReadFile(filepath.Join(t.TempDir(), name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v, want os.ErrNotExist", name, err)
		}
	}
}

// 256³ int16, compressed, with the entropy of a real head: noise in the low
// bits over a smooth picture.
func head(b *testing.B) []byte {
	const n = 256
	data := make([]int16, n*n*n)
	seed := uint32(1)
	for p := range data {
		i, j, k := p%n-n/2, p/n%n-n/2, p/n/n-n/2
		if i*i+j*j+k*k < 100*100 {
			seed = seed*1664525 + 1013904223
			data[p] = int16(300 + i + j + int(seed>>26))
		}
	}
	var out bytes.Buffer
	g := nifti.Geometry{Shape: []int{n, n, n}, Affine: nifti.Affine{{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 1, 0}, {0, 0, 0, 1}}}
	if err := nifti.Write(&out, g, data); err != nil {
		b.Fatal(err)
	}
	return out.Bytes()
}

func BenchmarkDecode(b *testing.B) {
	gz := head(b)
	z, _ := gzip.NewReader(bytes.NewReader(gz))
	plain, err := io.ReadAll(z)
	if err != nil {
		b.Fatal(err)
	}
	for name, data := range map[string][]byte{"gzip": gz, "plain": plain} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(plain)))
			for b.Loop() {
				if _, err := nifti.Decode(bytes.NewReader(data), nifti.Limits{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkWriteLabels(b *testing.B) {
	im, err := nifti.Decode(bytes.NewReader(head(b)), nifti.Limits{})
	if err != nil {
		b.Fatal(err)
	}
	labels := make([]uint8, len(im.Data))
	for n, v := range im.Data {
		labels[n] = uint8(v / 64)
	}
	for b.Loop() {
		if err := nifti.Write(io.Discard, nifti.Geometry{Shape: im.Shape, Affine: im.Affine}, labels); err != nil {
			b.Fatal(err)
		}
	}
}

func ExampleReadFile() {
	im, err := nifti.ReadFile("testdata/fixtures/qform_only.nii")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(im.Format, im.Shape, im.Datatype, im.AffineSource)
	fmt.Printf("%.2f %.2f %.2f\n", im.VoxelSize[0], im.VoxelSize[1], im.VoxelSize[2])
	// Output:
	// NIfTI-1 [3 4 2] int16 qform
	// 0.90 1.10 1.30
}

func ExampleReader() {
	rd, err := nifti.Open("testdata/fixtures/shape_3x4x2x3.nii", nifti.Limits{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer rd.Close()
	vol := make([]float32, rd.Header().VolumeLen())
	n := 0
	for rd.Next(vol) == nil {
		n++
	}
	fmt.Println(n, "volumes of", len(vol), "voxels")
	// Output: 3 volumes of 24 voxels
}
