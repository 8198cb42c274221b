package fmri

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"testing"

	"neuroscreen"
	"neuroscreen/internal/nifti"
	"neuroscreen/internal/testdata"
	"neuroscreen/internal/volume"
)

// reader of a file made of data.
func reader(t testing.TB, shape []int, affine volume.Affine, tr float64, data []float32) *nifti.Reader {
	t.Helper()
	var b bytes.Buffer
	if err := nifti.Write(&b, nifti.Geometry{Shape: shape, Affine: nifti.Affine(affine), TR: tr}, data); err != nil {
		t.Fatal(err)
	}
	rd, err := nifti.NewReader(&b, nifti.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return rd
}

// runOf spools data, first axis fastest, as a run.
func runOf(t testing.TB, shape [3]int, affine volume.Affine, tr float64, data []float32) *Run {
	t.Helper()
	frames := len(data) / (shape[0] * shape[1] * shape[2])
	rd := reader(t, append(shape[:], frames), affine, tr, data)
	r, err := Read(context.Background(), rd, TR{Seconds: tr})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func noise(n int, mean, sd float64, seed uint64) []float32 {
	rng := rand.New(rand.NewPCG(seed, 1))
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(mean + sd*rng.NormFloat64())
	}
	return x
}

func TestRead(t *testing.T) {
	shape := [3]int{4, 5, 6}
	n := 4 * 5 * 6
	t.Run("frames come back as they were, without the dummy scans", func(t *testing.T) {
		data := noise(n*30, 100, 1, 1)
		for i := range data[:2*n] {
			data[i] *= 1.4
		}
		nan := float32(math.NaN())
		data[7*n+3] = nan
		r := runOf(t, shape, volume.Scaling([3]float64{3, 3, 3.3}), 2, data)
		if r.Dummies != 2 || r.Frames != 28 || r.NonFinite != 1 || r.Seconds() != 56 || len(r.Means) != 30 {
			t.Fatalf("%d dummies, %d frames, %d not finite, %g s, %d means", r.Dummies, r.Frames, r.NonFinite, r.Seconds(), len(r.Means))
		}
		data[7*n+3] = 0
		got := make([]float32, n)
		for f := range r.Frames {
			if err := r.Frame(f, got); err != nil {
				t.Fatal(err)
			}
			if want := data[(f+2)*n:][:n]; !slices.Equal(got, want) {
				t.Fatalf("frame %d differs", f)
			}
		}
		if got := codesOf(r.Notes()); !slices.Equal(got, []string{Dummies, TooShort}) {
			t.Errorf("notes %v", got)
		}
	})
	t.Run("four minutes are enough", func(t *testing.T) {
		r := runOf(t, shape, volume.Identity, 8, noise(n*30, 100, 1, 1))
		if notes := r.Notes(); len(notes) != 0 {
			t.Errorf("notes %v of a run of %g s", codesOf(notes), r.Seconds())
		}
	})
	t.Run("one volume is no run", func(t *testing.T) {
		_, err := Read(context.Background(), reader(t, shape[:], volume.Identity, 0, noise(n, 100, 1, 1)), TR{Seconds: 2})
		wantRefusal(t, err, TooFewVolumes, "")
	})
	t.Run("a file cut short is the file's fault", func(t *testing.T) {
		var b bytes.Buffer
		nifti.Write(&b, nifti.Geometry{Shape: []int{4, 5, 6, 30}, Affine: nifti.Affine(volume.Identity), TR: 2}, noise(n*30, 100, 1, 1))
		rd, err := nifti.NewReader(bytes.NewReader(b.Bytes()[:b.Len()/2]), nifti.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		_, err = Read(context.Background(), rd, TR{Seconds: 2})
		if e, ok := errors.AsType[*nifti.Error](err); !ok || e.Type != nifti.TypeBadGzip && e.Type != nifti.TypeTruncated {
			t.Errorf("error %v", err)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if _, err := Read(ctx, reader(t, []int{4, 5, 6, 30}, volume.Identity, 2, noise(n*30, 100, 1, 1)), TR{Seconds: 2}); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
	})
}

// stream is an uncompressed int16 file that is made while it is read.
func stream(shape []int) io.Reader {
	var b bytes.Buffer
	voxels := 1
	for _, d := range shape {
		voxels *= d
	}
	// The header of one volume, with the number of volumes set after.
	nifti.Write(&b, nifti.Geometry{Shape: append(slices.Clone(shape[:3]), 2), Affine: nifti.Affine(volume.Identity), TR: 2}, make([]int16, 2*voxels/shape[3]))
	z, _ := gzip.NewReader(&b)
	head := make([]byte, 352)
	io.ReadFull(z, head)
	binary.LittleEndian.PutUint16(head[48:], uint16(shape[3]))
	return io.MultiReader(bytes.NewReader(head), io.LimitReader(endless{}, int64(2*voxels)))
}

type endless struct{}

func (endless) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(i % 7)
	}
	return len(b), nil
}

// TestReadStreams: memory does not grow with the number of volumes.
func TestReadStreams(t *testing.T) {
	const edge, frames = 64, 120
	rd, err := nifti.NewReader(stream([]int{edge, edge, 20, frames}), nifti.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	r, err := Read(context.Background(), rd, TR{Seconds: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	runtime.ReadMemStats(&after)
	if got, most := after.TotalAlloc-before.TotalAlloc, uint64(4*4*r.Len()); r.Frames+r.Dummies != frames || got > most {
		t.Errorf("%d frames allocated %d bytes; four volumes are %d", r.Frames, got, most)
	}
}

func TestRepetitionTime(t *testing.T) {
	header := func(tr float64, unit string) *nifti.Header { return &nifti.Header{TR: tr, TimeUnit: unit} }
	s := func(v float64) *float64 { return &v }
	for _, c := range []struct {
		name    string
		meta    *float64
		header  *nifti.Header
		side    *Sidecar
		seconds float64
		from    string
		notes   int
		refusal string
	}{
		{name: "header in seconds", header: header(2, "s"), seconds: 2, from: "header"},
		{name: "header in milliseconds", header: header(2500, "ms"), seconds: 2.5, from: "header"},
		{name: "header in microseconds", header: header(720000, "us"), seconds: .72, from: "header"},
		{name: "metadata alone", meta: s(2), header: header(0, ""), seconds: 2, from: "metadata"},
		{name: "metadata agrees", meta: s(2), header: header(2000, "ms"), seconds: 2, from: "metadata"},
		{name: "rounding is no disagreement", meta: s(2), header: header(2.004, "s"), seconds: 2, from: "metadata"},
		{name: "metadata decides against the header", meta: s(2), header: header(1.7935, "s"), seconds: 2, from: "metadata", notes: 1},
		{name: "metadata decides against two answers", meta: s(2), header: header(1.7935, "s"), side: &Sidecar{s(1.79355), s(2)}, seconds: 2, from: "metadata", notes: 2},
		{name: "sidecar alone", header: header(0, "s"), side: &Sidecar{RepetitionTime: s(1.5)}, seconds: 1.5, from: "sidecar"},
		{name: "header and sidecar agree", header: header(1.5, "s"), side: &Sidecar{RepetitionTime: s(1.5)}, seconds: 1.5, from: "header"},
		{name: "two answers", header: header(1.7935, "s"), side: &Sidecar{s(1.79355), s(2)}, refusal: TRAmbiguous},
		{name: "no unit", header: header(2, ""), refusal: TRAmbiguous},
		{name: "nothing", header: header(0, "s"), refusal: TRAmbiguous},
		{name: "milliseconds called seconds", header: header(2000, "s"), refusal: TRAmbiguous},
		{name: "metadata in milliseconds", meta: s(2000), header: header(2, "s"), refusal: TRInvalid},
		{name: "metadata not a number", meta: s(math.NaN()), header: header(2, "s"), refusal: TRInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			tr, err := RepetitionTime(c.meta, c.header, c.side)
			if c.refusal != "" {
				wantRefusal(t, err, c.refusal, "tr_s")
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if math.Abs(tr.Seconds-c.seconds) > 1e-12 || tr.From != c.from || len(tr.Notes) != c.notes {
				t.Errorf("got %+v", tr)
			}
		})
	}
}

// TestRepetitionTimeOfRealRun: its header and JSON file give three answers.
func TestRepetitionTimeOfRealRun(t *testing.T) {
	b, err := os.ReadFile(testdata.Shared(t, "scans", "bold", "ds_oneback_100vol.json"))
	if err != nil {
		t.Fatal(err)
	}
	side, err := ReadSidecar(b)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(testdata.Shared(t, "scans", "bold", "ds_oneback_100vol.nii.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h, err := nifti.DecodeHeader(f)
	if err != nil {
		t.Fatal(err)
	}
	_, err = RepetitionTime(nil, h, side)
	wantRefusal(t, err, TRAmbiguous, "tr_s")
	two := 2.0
	if tr, err := RepetitionTime(&two, h, side); err != nil || tr.Seconds != 2 || len(tr.Notes) != 2 {
		t.Errorf("%+v, %v", tr, err)
	}
}

func TestDummyScans(t *testing.T) {
	for _, c := range load(t).Dummies {
		if got := DummyScans(c.Means); got != c.Count {
			t.Errorf("%v: %d dummy scans, nipype finds %d", c.Means[:6], got, c.Count)
		}
	}
}

func wantRefusal(t *testing.T, err error, typ, field string) {
	t.Helper()
	e, ok := errors.AsType[*neuroscreen.Error](err)
	if !ok || e.Code != neuroscreen.CodeUnprocessable || e.Type != typ || e.Field != field || e.Message == "" {
		t.Errorf("error %v, want a refusal %s of %q", err, typ, field)
	}
}

func codesOf(rs []neuroscreen.Reason) (codes []string) {
	for _, r := range rs {
		codes = append(codes, r.Code)
	}
	return codes
}
