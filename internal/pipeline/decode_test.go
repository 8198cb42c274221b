package pipeline

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"

	"neuroscreen"
	"neuroscreen/internal/fmri"
	"neuroscreen/internal/fmri/fmritest"
	"neuroscreen/internal/nifti"
	"neuroscreen/internal/qc"
	"neuroscreen/internal/volume"
)

// taskFile is one slice over time whose front half answers one condition and
// whose back half the other, in four runs.
func taskFile(t *testing.T, change func(header []byte)) DecodeFile {
	t.Helper()
	slice := volume.New(volume.Grid{Shape: [3]int{24, 24, 1}, Affine: volume.Affine{{-3, 0, 0, 36}, {0, 3, 0, -36}, {0, 0, 3, 0}, {0, 0, 0, 1}}})
	for at := range slice.Data {
		if x, y := at%24, at/24; x > 3 && x < 20 && y > 3 && y < 20 {
			slice.Data[at] = 1000
		}
	}
	table := "onset\tduration\ttrial_type\trun\n"
	for n := range 16 {
		table += fmt.Sprintf("%d\t6\t%s\t%d\n", 12*n, []string{"front", "back", "back", "front"}[n%4], n/4+1)
	}
	events, err := fmri.ReadEvents(strings.NewReader(table))
	if err != nil {
		t.Fatal(err)
	}
	file := fmritest.Run(t, slice, 96, 2, func(n int, x []float32) {
		event, within := n/6, n%6
		if within < 2 || within > 4 { // 4 s later, for 6 s
			return
		}
		for at := range x {
			if front := event%4 == 0 || event%4 == 3; front == (at/24 > 11) {
				x[at] *= 1.02
			}
		}
	})
	z, err := gzip.NewReader(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(raw)
	}
	return DecodeFile{SHA256: "one", Metadata: neuroscreen.Metadata{Modality: neuroscreen.BOLD}, Events: events,
		Open: func(context.Context) (io.Reader, io.Reader, func(), error) {
			return bytes.NewReader(raw), nil, func() {}, nil
		}}
}

// setForms writes the codes of qform and sform.
func setForms(q, s uint16) func([]byte) {
	return func(b []byte) {
		binary.LittleEndian.PutUint16(b[252:], q)
		binary.LittleEndian.PutUint16(b[254:], s)
	}
}

// TestDecodeOneSlice: what shows no network can be decoded, and its weights claim
// no other space than the run.
func TestDecodeOneSlice(t *testing.T) {
	for _, code := range []uint16{1, 2, 4} {
		out, err := Decode(t.Context(), []DecodeFile{taskFile(t, setForms(code, code))}, neuroscreen.DecodingOptions{Voxels: 50, LagSeconds: 4}, nifti.Limits{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if out.Result.Accuracy < .9 {
			t.Errorf("accuracy %.2f", out.Result.Accuracy)
		}
		h, err := nifti.DecodeHeader(bytes.NewReader(out.Weights))
		if err != nil {
			t.Fatal(err)
		}
		if h.SformCode != int(code) || h.QformCode != int(code) || !slices.Equal(h.Shape, []int{24, 24, 1, 2}) {
			t.Errorf("weights of shape %v with the forms %d and %d, the run's have %d", h.Shape, h.SformCode, h.QformCode, code)
		}
	}
}

// TestDecodeRefuses what an analysis refuses for its person or its place.
func TestDecodeRefuses(t *testing.T) {
	child := taskFile(t, nil)
	age := 12.0
	child.Metadata.AgeYears = &age
	flat := func(b []byte) {
		setForms(0, 1)(b)
		clear(b[312:328]) // srow_z
	}
	mirrored := func(b []byte) { b[283] ^= 0x80 } // the sign of srow_x[0]
	for name, c := range map[string]struct {
		file DecodeFile
		want string
	}{
		"a child":         {child, qc.Under18},
		"no forms":        {taskFile(t, setForms(0, 0)), qc.OrientationUnknown},
		"mirrored forms":  {taskFile(t, mirrored), qc.OrientationUnknown},
		"a singular form": {taskFile(t, flat), qc.UnusableAffine},
	} {
		other := taskFile(t, nil)
		other.SHA256 = "another"
		_, err := Decode(t.Context(), []DecodeFile{other, c.file}, neuroscreen.DecodingOptions{Voxels: 50, LagSeconds: 4}, nifti.Limits{}, nil)
		if e := neuroscreen.AsError(err); e == nil || e.Code != neuroscreen.CodeUnprocessable || e.Type != c.want || !strings.HasPrefix(e.Message, "file 2: ") {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}
