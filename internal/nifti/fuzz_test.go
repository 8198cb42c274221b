package nifti_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"neuroscreen/internal/nifti"
)

// fuzzLimits keep a run small; whatever passes is under them.
var fuzzLimits = nifti.Limits{MaxVoxels: 1 << 16, MaxBytes: 1 << 20, MaxTrailing: 1 << 12}

func fixtures(f *testing.F, each func(name string, b []byte)) {
	f.Helper()
	paths, err := filepath.Glob("testdata/fixtures/*")
	if err != nil || len(paths) == 0 {
		f.Fatalf("no fixtures: %v", err)
	}
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			f.Fatal(err)
		}
		each(filepath.Base(p), b)
	}
}

// wantFileError fails unless err blames the file in the package's own type.
func wantFileError(t *testing.T, err error) {
	t.Helper()
	e, ok := errors.AsType[*nifti.Error](err)
	if !ok || e.Type == "" || e.Msg == "" {
		t.Fatalf("error %v is not a *nifti.Error that says what is wrong", err)
	}
}

func FuzzDecode(f *testing.F) {
	fixtures(f, func(_ string, b []byte) { f.Add(b) })
	for _, s := range []string{"", "<html>", "\x1f\x8b", "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x00", strings.Repeat("\x00", 600)} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		im, err := nifti.Decode(bytes.NewReader(b), fuzzLimits)
		rd, rdErr := nifti.NewReader(bytes.NewReader(b), fuzzLimits)
		if rdErr != nil {
			wantFileError(t, rdErr)
			if err == nil {
				t.Fatalf("Decode reads what NewReader refuses: %v", rdErr)
			}
			return
		}
		var all []float32
		vol := make([]float32, rd.Header().VolumeLen())
		for rdErr = rd.Next(vol); rdErr == nil; rdErr = rd.Next(vol) {
			all = append(all, vol...)
		}
		if err != nil {
			wantFileError(t, err)
			// A series may be over Decode's limit and not over the Reader's.
			if e, _ := errors.AsType[*nifti.Error](err); errors.Is(rdErr, io.EOF) && e.Type != nifti.TypeTooLarge {
				t.Fatalf("the Reader reads what Decode refuses: %v", err)
			}
			return
		}
		if !errors.Is(rdErr, io.EOF) {
			t.Fatalf("Decode reads what the Reader refuses: %v", rdErr)
		}
		n := 1
		for _, d := range im.Shape {
			n *= d
		}
		if len(im.Data) != n || im.Volumes()*im.VolumeLen() != n || n > int(fuzzLimits.MaxVoxels) {
			t.Fatalf("%d values of shape %v", len(im.Data), im.Shape)
		}
		nonFinite := 0
		for _, v := range im.Data {
			if v-v != 0 {
				nonFinite++
			}
		}
		if im.NonFinite != nonFinite || rd.NonFinite() != nonFinite {
			t.Fatalf("NonFinite %d and %d, want %d", im.NonFinite, rd.NonFinite(), nonFinite)
		}
		same := func(a, b float32) bool { return a == b || a != a && b != b }
		if !slices.EqualFunc(im.Data, all, same) {
			t.Fatal("Decode and Reader differ")
		}
	})
}

func FuzzDecodePair(f *testing.F) {
	img := map[string][]byte{}
	fixtures(f, func(name string, b []byte) { img[name] = b })
	for name, b := range img {
		if strings.Contains(name, ".hdr") {
			f.Add(b, img[strings.Replace(name, ".hdr", ".img", 1)])
		}
	}
	f.Fuzz(func(t *testing.T, hdr, img []byte) {
		im, err := nifti.DecodePair(bytes.NewReader(hdr), bytes.NewReader(img), fuzzLimits)
		if err != nil {
			wantFileError(t, err)
		} else if len(im.Data) != im.Volumes()*im.VolumeLen() {
			t.Fatalf("%d values of shape %v", len(im.Data), im.Shape)
		}
	})
}

// Headers are decoded alone too, so that the fuzzer spends itself on them.
func FuzzDecodeHeader(f *testing.F) {
	fixtures(f, func(name string, b []byte) {
		if !strings.HasSuffix(name, ".gz") {
			f.Add(b[:min(len(b), 600)])
		}
	})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := nifti.DecodeHeader(bytes.NewReader(b))
		if err != nil {
			wantFileError(t, err)
			return
		}
		if len(h.Shape) < 1 || len(h.Shape) > 7 || h.Volumes() < 1 || h.VolumeLen() < 1 || h.Datatype.Bytes() < 1 {
			t.Fatalf("accepted %+v", h)
		}
		if h.Affine[3] != [4]float64{0, 0, 0, 1} {
			t.Fatalf("last row of the affine is %v", h.Affine[3])
		}
		if h.SformCode < 0 || h.SformCode > 5 || h.QformCode < 0 || h.QformCode > 5 {
			t.Fatalf("form codes %d %d", h.SformCode, h.QformCode)
		}
	})
}
