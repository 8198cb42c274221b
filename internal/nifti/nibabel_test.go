package nifti_test

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"neuroscreen/internal/nifti"
	"neuroscreen/internal/testdata"
)

func readJSON(t testing.TB, path string, v any) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatal(err)
	}
}

// trimmed drops trailing 1s beyond the third axis, as Header.Shape does.
func trimmed(shape []int) []int {
	for len(shape) > 3 && shape[len(shape)-1] == 1 {
		shape = shape[:len(shape)-1]
	}
	return shape
}

// formats by nibabel's class.
var formats = map[string]nifti.Format{
	"Nifti1Image": nifti.NIfTI1, "Nifti1Pair": nifti.NIfTI1,
	"Nifti2Image": nifti.NIfTI2, "Nifti2Pair": nifti.NIfTI2,
	"Spm2AnalyzeImage": nifti.Analyze,
}

// wantAffine allows for float32 arithmetic, in which nibabel computes the
// offset of an affine made from voxel sizes alone, and else for rounding.
func wantAffine(t *testing.T, h *nifti.Header, want [4][4]float64) {
	t.Helper()
	tol, got := 1e-12, h.Affine
	if h.Template != nil { // which nibabel would use
		got = *h.Template
	}
	if h.AffineSource == nifti.FromPixdim {
		tol = 1e-6
	}
	for i := range 4 {
		for j := range 4 {
			if !(math.Abs(got[i][j]-want[i][j]) <= tol*max(1, math.Abs(want[i][j]))) {
				t.Fatalf("affine from %s is\n%v, want\n%v", h.AffineSource, got, want)
			}
		}
	}
}

// testdata/make_fixtures.py writes the fixtures and nibabel's reading of them.
type fixture struct {
	Class     string
	Shape     []int
	Dtype     string
	BigEndian bool `json:"big_endian"`
	Affine    [4][4]float64
	Values    []*float64 // nil: not finite
}

func TestFixturesEqualNibabel(t *testing.T) {
	t.Parallel()
	var fixtures map[string]fixture
	readJSON(t, "testdata/fixtures.json", &fixtures)
	if len(fixtures) < 90 {
		t.Fatalf("%d fixtures", len(fixtures))
	}
	for name, want := range fixtures {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			im, err := nifti.ReadFile(filepath.Join("testdata", "fixtures", name))
			if err != nil {
				t.Fatal(err)
			}
			if im.Format != formats[want.Class] || im.BigEndian != want.BigEndian {
				t.Errorf("%s, big-endian %v; want %s, %v", im.Format, im.BigEndian, want.Class, want.BigEndian)
			}
			if !slices.Equal(im.Shape, trimmed(want.Shape)) || im.Datatype.String() != want.Dtype {
				t.Errorf("shape %v %s, want %v %s", im.Shape, im.Datatype, want.Shape, want.Dtype)
			}
			wantAffine(t, &im.Header, want.Affine)
			if len(im.Data) != len(want.Values) {
				t.Fatalf("%d values, want %d", len(im.Data), len(want.Values))
			}
			nonFinite := 0
			for n, v := range want.Values {
				if v == nil {
					nonFinite++
					if got := im.Data[n]; got-got == 0 {
						t.Fatalf("value %d is %v, want none that is finite", n, got)
					}
				} else if im.Data[n] != float32(*v) {
					t.Fatalf("value %d is %v, want %v", n, im.Data[n], *v)
				}
			}
			if im.NonFinite != nonFinite {
				t.Errorf("NonFinite %d, want %d", im.NonFinite, nonFinite)
			}
		})
	}
}

func TestAffineSource(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]nifti.AffineSource{
		"sform_only.nii":          nifti.FromSform,
		"qform_only.nii":          nifti.FromQform,
		"sform_over_qform.nii":    nifti.FromQform, // it leads to MNI's space
		"no_form.nii":             nifti.FromPixdim,
		"sform_code_unknown.nii":  nifti.FromQform,
		"sform_code_negative.nii": nifti.FromQform,
		"analyze.hdr":             nifti.FromPixdim,
	} {
		im, err := nifti.ReadFile(filepath.Join("testdata", "fixtures", name))
		if err != nil {
			t.Fatal(err)
		}
		if im.AffineSource != want || im.OrientationKnown() != (want != nifti.FromPixdim) {
			t.Errorf("%s: affine from %s, orientation known: %v; want from %s", name, im.AffineSource, im.OrientationKnown(), want)
		}
	}
}

func TestSharedTemplateSpace(t *testing.T) {
	for name, want := range map[string]bool{"odd/mniRL.nii.gz": true, "odd/nibabel_nifti2.hdr": true, "odd/nrjs_5D_zeros.nii.gz": false} {
		f, err := os.Open(testdata.Shared(t, "scans", filepath.FromSlash(name)))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		h, err := nifti.DecodeHeader(f)
		if err != nil || h.InTemplate() != want {
			t.Errorf("%s: %v, %v", name, h, err)
		}
	}
}

// fact is what testdata/make_facts.py writes of a shared scan.
type fact struct {
	Class, Refused, Dtype, Data string
	Shape                       []int
	Affine                      [4][4]float64
	NonFinite                   int `json:"non_finite"`
	Min, Max                    float32
	Mean                        float64
	SHA256                      string
}

// sharedErrors are the shared scans that are refused, and how.
var sharedErrors = map[string]struct{ typ, says string }{
	"odd/gitlfs_pointer_101_t1.nii.gz":         {nifti.TypeNotNIfTI, "Git LFS pointer"},
	"odd/julia_empty.nii.gz":                   {nifti.TypeEmpty, "0 bytes"},
	"odd/nibabel_analyze.hdr":                  {nifti.TypeNoData, ".img"},
	"odd/nibabel_nifti2.hdr":                   {nifti.TypeNoData, ".img"},
	"odd/nifti-rs_minimal2.hdr":                {nifti.TypeNoData, ".img"},
	"odd/nibabel_example4d+orig.BRIK.gz":       {nifti.TypeNotNIfTI, "magic"},
	"odd/nibabel_minc2_1_scale.mnc":            {nifti.TypeNotNIfTI, "MINC 2"},
	"odd/nibabel_tiny.mnc":                     {nifti.TypeNotNIfTI, "MINC 1"},
	"odd/nibabel_phantom_truncated.REC":        {nifti.TypeNotNIfTI, "magic"},
	"odd/nifti-rs_complex__complex32.nii":      {nifti.TypeUnsupportedDatatype, "complex"},
	"odd/nifti-rs_rgb__4D.nii":                 {nifti.TypeUnsupportedDatatype, "RGB"},
	"odd/niivue_complex.nii.gz":                {nifti.TypeUnsupportedDatatype, "complex"},
	"odd/nifti-rs_fuzz_artifacts__crash-1.nii": {nifti.TypeAbsurdDimensions, "dim[0]"},
	"odd/nifti-rs_fuzz_artifacts__crash-d03c6346fe83a026738f6b8cd2a9335a3f8cb158": {nifti.TypeAbsurdDimensions, "dim[0]"},
	"odd/nifti_clib_b20.mod.hdr":          {nifti.TypeNotNIfTI, "script"},
	"odd/nrjs_air.img.gz":                 {nifti.TypeNoHeader, ".hdr"},
	"odd/nrjs_air2.img.gz":                {nifti.TypeNoHeader, ".hdr"},
	"odd/oro_anlz_avg152T1.img.gz":        {nifti.TypeNoHeader, ".hdr"},
	"odd/tractor_analyze_maskedb0.img.gz": {nifti.TypeNoHeader, ".hdr"},
	"t1/bert_brain.mgz":                   {nifti.TypeNotNIfTI, "MGH"},
	"t1/ds000011_participants.tsv":        {nifti.TypeNotNIfTI, "text"},
	"t1/ds002748_participants.tsv":        {nifti.TypeNotNIfTI, "text"},
	"t1/malf_demographics.tsv":            {nifti.TypeNotNIfTI, "text"},
	"t1/malf_labels.csv":                  {nifti.TypeNotNIfTI, "text"},
	"bold/ds_oneback_100vol.json":         {nifti.TypeNotNIfTI, "JSON"},
	"bold/pymvpa_attributes.txt":          {nifti.TypeNotNIfTI, "text"},
	"bold/pymvpa_attributes_literal.txt":  {nifti.TypeNotNIfTI, "text"},
	"bold/pymvpa_bold_mc.par":             {nifti.TypeNotNIfTI, "text"},
}

func TestSharedScansEqualNibabel(t *testing.T) {
	root := testdata.Shared(t, "scans")
	var facts map[string]fact
	readJSON(t, "testdata/facts.json", &facts)
	for _, folder := range []string{"odd", "refuse", "t1", "bold"} {
		entries, err := os.ReadDir(filepath.Join(root, folder))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			name := folder + "/" + e.Name()
			t.Run(name, func(t *testing.T) {
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				im, err := nifti.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
				runtime.ReadMemStats(&after)
				// A file may cost its own voxels and little more; a refused
				// one next to nothing.
				allowed := uint64(1 << 20)
				if err == nil {
					allowed += 4*uint64(len(im.Data)) + 16<<20
				}
				if took := after.TotalAlloc - before.TotalAlloc; took > allowed {
					t.Errorf("took %d bytes of memory, want at most %d", took, allowed)
				}
				want, known := facts[name]
				if !known {
					t.Skipf("not in facts.json (read error: %v); run make_facts.py", err)
				}
				if refused, ok := sharedErrors[name]; ok {
					wantError(t, err, refused.typ, refused.says)
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				compare(t, im, want)
			})
		}
	}
}

func compare(t *testing.T, im *nifti.Image, want fact) {
	t.Helper()
	if want.Refused != "" || want.Data != "" {
		t.Fatalf("read, but nibabel refuses: %s%s", want.Refused, want.Data)
	}
	if im.Format != formats[want.Class] || im.Datatype.String() != want.Dtype || !slices.Equal(im.Shape, trimmed(want.Shape)) {
		t.Fatalf("%s %s %v, want %s %s %v", im.Format, im.Datatype, im.Shape, want.Class, want.Dtype, want.Shape)
	}
	wantAffine(t, &im.Header, want.Affine)
	low, high, sum, finite := float32(math.Inf(1)), float32(math.Inf(-1)), 0.0, 0
	hash := sha256.New()
	buf := make([]byte, 0, 1<<16)
	for part := range slices.Chunk(im.Data, cap(buf)/4) {
		for _, v := range part {
			if v-v == 0 {
				low, high = min(low, v), max(high, v)
				sum += float64(v)
				finite++
			}
		}
		b, _ := binary.Append(buf, binary.LittleEndian, part)
		hash.Write(b)
	}
	if got := len(im.Data) - finite; got != want.NonFinite || im.NonFinite != want.NonFinite {
		t.Fatalf("%d non-finite values, NonFinite says %d, want %d", got, im.NonFinite, want.NonFinite)
	}
	if low != want.Min || high != want.Max {
		t.Fatalf("values from %v to %v, want %v to %v", low, high, want.Min, want.Max)
	}
	mean := sum / float64(finite)
	if math.Abs(mean-want.Mean) > 1e-9*max(1, math.Abs(want.Mean)) {
		t.Fatalf("mean %v, want %v", mean, want.Mean)
	}
	if got := hex.EncodeToString(hash.Sum(nil)); want.SHA256 != "" && got != want.SHA256 {
		t.Fatal("values are not nibabel's to the last bit")
	}
}

// Headers whose data are missing are compared too.
func TestSharedDetachedHeadersEqualNibabel(t *testing.T) {
	t.Parallel()
	root := testdata.Shared(t, "scans")
	var facts map[string]fact
	readJSON(t, "testdata/facts.json", &facts)
	tried := 0
	for name, want := range facts {
		if want.Data == "" || !strings.HasSuffix(name, ".hdr") {
			continue
		}
		f, err := os.Open(filepath.Join(root, filepath.FromSlash(name)))
		if err != nil {
			continue
		}
		h, err := nifti.DecodeHeader(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(h.Shape, trimmed(want.Shape)) || h.Datatype.String() != want.Dtype || h.Format != formats[want.Class] {
			t.Errorf("%s: %v %s %s, want %v %s %s", name, h.Shape, h.Datatype, h.Format, want.Shape, want.Dtype, want.Class)
		}
		wantAffine(t, h, want.Affine)
		tried++
	}
	if tried == 0 {
		t.Skip("no detached header among the shared scans")
	}
}
