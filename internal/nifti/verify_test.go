package nifti_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"neuroscreen/internal/nifti"
)

// verify is what an intake does with bytes that it does not keep.
func verify(b []byte) error {
	rd, err := nifti.NewReader(bytes.NewReader(b), nifti.Limits{})
	if err != nil {
		return err
	}
	return rd.Verify()
}

// TestVerifyEqualsDecode compares the verdicts on every fixture, whole, cut at
// every byte and with every byte of its compressed end changed.
func TestVerifyEqualsDecode(t *testing.T) {
	paths, err := filepath.Glob(filepath.Join("testdata", "fixtures", "*.nii*"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no fixtures: %v", err)
	}
	same := func(t *testing.T, b []byte) (ok bool) {
		t.Helper()
		_, want := nifti.Decode(bytes.NewReader(b), nifti.Limits{})
		got := verify(b)
		var w, g *nifti.Error
		errors.As(want, &w)
		errors.As(got, &g)
		if (want == nil) != (got == nil) || (w == nil) != (g == nil) || w != nil && w.Error() != g.Error() {
			t.Errorf("%d bytes: Verify %v, Decode %v", len(b), got, want)
		}
		return got == nil
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !same(t, b) {
				t.Error("a whole file was refused")
			}
			for n := range b {
				same(t, b[:n])
			}
			if !strings.HasSuffix(path, ".gz") {
				return
			}
			for n := len(b) - 8; n < len(b); n++ {
				bad := bytes.Clone(b)
				bad[n] ^= 0x55
				if same(t, bad) {
					t.Errorf("a wrong checksum or length at byte %d was accepted", n)
				}
			}
		})
	}
}

func TestVerifyAfterNext(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("testdata", "fixtures", "i2_v1_le.nii.gz"))
	if err != nil {
		t.Fatal(err)
	}
	rd, err := nifti.NewReader(bytes.NewReader(b), nifti.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	dst := make([]float32, rd.Header().VolumeLen())
	for range rd.Header().Volumes() {
		if err := rd.Next(dst); err != nil {
			t.Fatal(err)
		}
	}
	if err := rd.Verify(); err != nil {
		t.Errorf("after the last volume: %v", err)
	}
}
