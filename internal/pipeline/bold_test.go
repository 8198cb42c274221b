package pipeline

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"image/png"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"neuroscreen"
	"neuroscreen/internal/fmri"
	"neuroscreen/internal/fmri/fmritest"
	"neuroscreen/internal/nifti"
	"neuroscreen/internal/qc"
	"neuroscreen/internal/report"
	"neuroscreen/internal/testdata"
	"neuroscreen/internal/volume"
)

func boldInput(file []byte, tr float64) Input {
	in := Input{ScanID: "scan", SHA256: strings.Repeat("0", 64), Image: bytes.NewReader(file),
		Metadata: neuroscreen.Metadata{SubjectID: "subject", Sex: neuroscreen.Female, Modality: neuroscreen.BOLD}}
	if tr > 0 {
		in.Metadata.TRSeconds = &tr
	}
	return in
}

// fileOf is a file of a run; nil where it has none of that name.
func fileOf(out *Output, name string) []byte {
	for _, f := range out.Files {
		if f.Name == name {
			return f.Bytes
		}
	}
	return nil
}

func wantFiles(t *testing.T, out *Output, names ...string) {
	t.Helper()
	var got []string
	for _, f := range out.Files {
		got = append(got, f.Name)
		if want := map[bool]string{true: "image/png", false: "application/gzip"}[strings.HasSuffix(f.Name, ".png")]; f.MediaType != want || len(f.Bytes) > 2<<20 {
			t.Errorf("%s is %s of %d bytes", f.Name, f.MediaType, len(f.Bytes))
		}
	}
	if !slices.Equal(got, names) {
		t.Errorf("files %v, want %v", got, names)
	}
}

// page is the report of a result.
func page(t *testing.T, out *Output) []byte {
	t.Helper()
	html, err := out.Report(neuroscreen.Metadata{Sex: neuroscreen.Female}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return html
}

// show writes what is drawn of a run into the folder NEUROSCREEN_SHOTS, if that
// is set, for people to look at.
func show(t *testing.T, name string, out *Output) {
	t.Helper()
	dir := os.Getenv("NEUROSCREEN_SHOTS")
	if dir == "" {
		return
	}
	printed := report.Page{Result: out.Result, Metadata: neuroscreen.Metadata{Sex: neuroscreen.Female}, Preview: out.Preview, Maps: fileOf(out, MapsFile), Reading: out.Reading}
	var pdf bytes.Buffer
	if err := report.PDF(&pdf, printed); err != nil {
		t.Fatal(err)
	}
	for _, f := range append(out.Files, File{Name: "preview.png", Bytes: out.Preview}, File{Name: "report.html", Bytes: page(t, out)}, File{Name: "report.pdf", Bytes: pdf.Bytes()}) {
		if err := os.WriteFile(filepath.Join(dir, name+"-"+f.Name), f.Bytes, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAnalyzeRun gives each structure of a head and its mirror image a slow
// fluctuation of their own: the connectome must hold it.
func TestAnalyzeRun(t *testing.T) {
	const frames, tr = 200, 2.0
	e := engine(t)
	head := fmritest.Head(t)
	still := fmritest.Acquire(head, fmritest.Grid(head, 4))
	seg, err := e.network.Segment(context.Background(), still)
	if err != nil {
		t.Fatal(err)
	}
	// Thalami 9, putamina 14, cortices 23 cycles in the run; all in the band.
	cycles := map[uint8]float64{10: 9, 49: 9, 12: 14, 51: 14, 3: 23, 42: 23}
	rng := rand.New(rand.NewPCG(1, 2))
	file := fmritest.Run(t, still, frames, tr, func(n int, v []float32) {
		// A head that held quite still would take its motion from its signal.
		var m fmri.Motion
		for a := range 3 {
			m.MM[a], m.Rad[a] = 0.1*rng.Float64()-0.05, (0.1*rng.Float64()-0.05)*math.Pi/180
		}
		moved := volume.Grid{Shape: still.Shape, Affine: m.Affine(still.Centre()).Inverse().Mul(still.Affine)}
		volume.ResampleInto(v, moved, still.Data, still.Grid, volume.Options{})
		for at, l := range seg.Labels.Data {
			if c, ok := cycles[l]; ok {
				v[at] *= 1 + 0.01*float32(math.Sin(2*math.Pi*c*float64(n)/frames))
			}
		}
		if n < 2 { // not yet steady
			for at := range v {
				v[at] *= 1.2
			}
		}
	})
	var stages []neuroscreen.State
	in := boldInput(file, 0)
	in.Stage = func(_ context.Context, s neuroscreen.State) error {
		stages = append(stages, s)
		return nil
	}
	if in.Coordinates, err = fmri.ReadAtlas("mine.csv", strings.NewReader("name,x,y,z,network,radius\nLT,-11,-18,6,Thalami,5\nRT,12,-18,6,Thalami,5\nLP,-25,0,0,,6\nnowhere,-90,0,0,Thalami,4\n")); err != nil {
		t.Fatal(err)
	}
	out, err := e.Analyze(context.Background(), in)
	if err != nil {
		t.Fatal(err)
	}
	if want := []neuroscreen.State{neuroscreen.Checked, neuroscreen.Segmented, neuroscreen.Measured}; !slices.Equal(stages, want) {
		t.Errorf("stages %v, want %v", stages, want)
	}
	b, err := json.Marshal(out.Result)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(b, []byte(`:null,"metrics"`)) || bytes.Contains(b, []byte(`"scores":null`)) || bytes.Contains(b, []byte(`"withheld":null`)) {
		t.Errorf("null lists: %.300s", b)
	}
	r, f := out.Result, out.Result.FMRI
	if r.Modality != neuroscreen.BOLD || len(r.Scores) != 0 || f.Evidence != neuroscreen.Experimental || f.TRSeconds != 2 || f.TRFrom != "header" {
		t.Errorf("modality %s, %d scores, %s, TR %g s by the %s", r.Modality, len(r.Scores), f.Evidence, f.TRSeconds, f.TRFrom)
	}
	if f.DummyScans != 2 || f.Frames != frames-2 || len(f.Motion.FDMM) != f.Frames || len(f.Quality.DVARS) != f.Frames || len(f.Motion.Parameters) != f.Frames {
		t.Errorf("%d dummies, %d frames", f.DummyScans, f.Frames)
	}
	// Of steps between uniform places: 3 x .033 mm, and 3 x 50 mm x .033 degrees,
	// together .187; trilinear interpolation moves fine detail by less.
	if fd := f.Motion.MeanFDMM; fd < 0.13 || fd > 0.2 {
		t.Errorf("mean FD %.3f mm", fd)
	}
	if f.BrainML < 900 || f.BrainML > 1700 {
		t.Errorf("a brain of %.0f ml", f.BrainML)
	}
	if f.Clean.DegreesOfFreedom < fmri.MinDegreesOfFreedom || f.Clean.WhiteMatter != 5 || len(f.Withheld) != 0 || len(f.NotComparable) != 0 {
		t.Fatalf("%+v, withheld %v, not comparable %v", f.Clean, f.Withheld, f.NotComparable)
	}
	if len(f.Connectomes) != 2 || f.Connectomes[0].GlobalSignalRemoved || !f.Connectomes[1].GlobalSignalRemoved {
		t.Fatalf("%d connectomes", len(f.Connectomes))
	}
	c := f.Connectomes[0]
	z := func(a, b string) float64 { return c.FisherZ[slices.Index(c.Nodes, a)][slices.Index(c.Nodes, b)] }
	for _, pair := range []string{"Thalamus", "Putamen", "Cerebral-Cortex"} {
		if v := z("Left-"+pair, "Right-"+pair); v < 1 {
			t.Errorf("%s: z %.2f between the sides, which fluctuate together", pair, v)
		}
	}
	if v := z("Left-Thalamus", "Left-Putamen"); math.Abs(v) > 0.5 {
		t.Errorf("z %.2f between thalamus and putamen, which don't", v)
	}
	t.Logf("z %.2f, %.2f, %.2f between sides, %.2f across; %d degrees of freedom; split half %.2f",
		z("Left-Thalamus", "Right-Thalamus"), z("Left-Putamen", "Right-Putamen"), z("Left-Cerebral-Cortex", "Right-Cerebral-Cortex"),
		z("Left-Thalamus", "Left-Putamen"), f.Clean.DegreesOfFreedom, c.SplitHalf)
	of := map[string]neuroscreen.FMRIStructure{}
	for _, s := range f.Structures {
		of[s.Structure] = s
	}
	thalamus, caudate := of["Left-Thalamus"], of["Left-Caudate"]
	if *thalamus.ALFF < 1.5**caudate.ALFF || *thalamus.FALFF < 1.2**caudate.FALFF || *thalamus.ReHo < 1.2**caudate.ReHo {
		t.Errorf("thalamus %.3f %.3f %.3f, caudate %.3f %.3f %.3f: ALFF, fALFF, ReHo", *thalamus.ALFF, *thalamus.FALFF, *thalamus.ReHo,
			*caudate.ALFF, *caudate.FALFF, *caudate.ReHo)
	}
	// The default network's seeds lie in cortex, which fluctuates as one.
	if f.Place.From != fmri.PlaceFromRun || f.DefaultMode == nil || len(f.DefaultMode.Spheres) != 24 || len(f.DefaultMode.Connectomes) != 2 {
		t.Fatalf("place %+v", f.Place)
	}
	nodes := 0
	for _, s := range f.DefaultMode.Spheres {
		if s.Node {
			nodes++
		}
	}
	w := f.DefaultMode.Networks[0]
	if nodes < 20 || len(w) != 1 || w[0].Network != "Default" || w[0].Nodes != nodes || w[0].MeanZ < 0.5 {
		t.Errorf("%d seeds; networks %+v", nodes, w)
	}
	t.Logf("residual %.1f mm over %d structures; %d seeds, mean z %.2f", *f.Place.ResidualMM, len(f.Place.Structures), nodes, w[0].MeanZ)
	// The thalami fluctuate together, also when they are asked for by their places.
	if a := f.Coordinates; a == nil || a.Atlas != "mine.csv" || len(a.Spheres) != 4 || a.Spheres[3].Voxels != 0 || a.Spheres[3].Node || len(a.Networks) != 2 {
		t.Errorf("places %+v", a)
	} else if n := a.Networks[0]; len(n) != 1 || n[0].Network != "Thalami" || n[0].Nodes != 2 || n[0].MeanZ < 1 || math.Abs(a.Connectomes[0].FisherZ[0][2]) > 0.5 {
		t.Errorf("networks %+v; z %.2f between thalamus and putamen", n, a.Connectomes[0].FisherZ[0][2])
	}
	labels, err := nifti.Decode(bytes.NewReader(out.Segmentation), nifti.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(labels.Shape, still.Shape[:]) || !(volume.Grid{Shape: labels.Shape3(), Affine: volume.Affine(labels.Affine)}).Near(still.Grid, 1e-3) {
		t.Errorf("labels on another grid: %v", labels.Shape)
	}
	if !bytes.HasPrefix(out.Preview, []byte("\x89PNG")) {
		t.Error("no picture")
	}
	show(t, "synthetic", out)
	wantFiles(t, out, RunFiles...)
	for name, measure := range map[string]func(neuroscreen.FMRIStructure) *float64{
		ALFFFile:  func(s neuroscreen.FMRIStructure) *float64 { return s.ALFF },
		FALFFFile: func(s neuroscreen.FMRIStructure) *float64 { return s.FALFF },
		ReHoFile:  func(s neuroscreen.FMRIStructure) *float64 { return s.ReHo },
	} {
		img, err := nifti.Decode(bytes.NewReader(fileOf(out, name)), nifti.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(img.Shape, labels.Shape) || img.Affine != labels.Affine {
			t.Errorf("%s lies on another grid than the labels", name)
		}
		sum, n := 0.0, 0
		for at, v := range img.Data {
			if labels.Data[at] == 10 && v != 0 {
				sum, n = sum+float64(v), n+1
			}
		}
		if want := *measure(thalamus); math.Abs(sum/float64(n)-want) > 1e-5*want {
			t.Errorf("%s: a mean of %g in the left thalamus, the result has %g", name, sum/float64(n), want)
		}
	}
	mean, err := nifti.Decode(bytes.NewReader(fileOf(out, MeanFile)), nifti.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	for at, v := range mean.Data {
		if labels.Data[at] == 0 && v != 0 {
			t.Fatal("the mean image shows what lies outside of the skull")
		}
	}
	run := out.Reading.Run
	rows := 0
	for _, tissue := range run.Carpet.Tissues {
		rows += tissue.Rows
	}
	carpet, err := png.Decode(bytes.NewReader(run.Carpet.PNG))
	if err != nil || carpet.Bounds().Dx() != f.Frames || carpet.Bounds().Dy() != rows || len(run.Carpet.Tissues) != 5 {
		t.Errorf("%v: a carpet of %v for %d frames, %d rows", err, carpet.Bounds(), f.Frames, rows)
	}
	if left := f.Frames - len(run.Carpet.LeftOut); left != f.Clean.KeptFrames {
		t.Errorf("%d frames left in, %d in the result", left, f.Clean.KeptFrames)
	}
	html := page(t, out)
	for _, want := range []string{"Functional MRI run", "198 frames of 2 s", "first 2 volumes, dropped", "default.weights", out.Result.Input.SHA256} {
		if !bytes.Contains(html, []byte(want)) {
			t.Errorf("the report does not say %q", want)
		}
	}
}

// TestAnalyzeRunThroughT1: a run that lies tilted in the scanner and cuts the
// lowest slices is placed by a scan of the same head.
func TestAnalyzeRunThroughT1(t *testing.T) {
	e := engine(t)
	head := fmritest.Head(t)
	seg, err := e.network.Segment(context.Background(), head)
	if err != nil {
		t.Fatal(err)
	}
	tilt := fmri.Motion{MM: [3]float64{5, -9, 4}, Rad: [3]float64{0.25, 0.05, -0.08}}.Affine(head.Centre())
	g := fmritest.Grid(head, 3.5)
	g.Shape[2] -= 10
	g.Affine[2][3] += 14
	// Where a voxel of the run lies in the head; the run's own affine says g.
	inHead := volume.Grid{Shape: g.Shape, Affine: tilt.Mul(g.Affine)}
	still := fmritest.Acquire(head, inHead)
	still.Affine = g.Affine
	file := fmritest.Run(t, still, 24, 2, nil)

	in := boldInput(file, 0)
	in.T1 = &fmri.StoredT1{ScanID: "earlier", Version: 3, Labels: seg.Labels}
	out, err := e.Analyze(context.Background(), in)
	if err != nil {
		t.Fatal(err)
	}
	through := out.Result.FMRI.Place
	if through.From != fmri.PlaceFromT1 || through.T1.ScanID != "earlier" || through.T1.Version != 3 {
		t.Fatalf("%+v for %v", through, codes(out.Result.QC.Reasons))
	}
	alone, reasons := fmri.Locate(mustLabels(t, out.Segmentation), nil)
	if alone.ToMNI == nil {
		t.Fatalf("no place of its own: %v", codes(reasons))
	}
	// The truth: from the run to the head, and by the head's labels to MNI.
	truth, _ := fmri.Locate(seg.Labels, nil)
	want := volume.Affine(*truth.ToMNI).Mul(tilt)
	off := func(place *neuroscreen.FMRIPlace) (median, worst float64) {
		var d []float64
		for _, s := range fmri.DefaultMode().Spheres {
			p := volume.Affine(*place.ToMNI).Apply(want.Inverse().Apply(s.Centre))
			d = append(d, math.Hypot(math.Hypot(p[0]-s.Centre[0], p[1]-s.Centre[1]), p[2]-s.Centre[2]))
		}
		slices.Sort(d)
		return d[len(d)/2], d[len(d)-1]
	}
	m, w := off(&through)
	m1, w1 := off(&alone)
	t.Logf("seeds through the T1 %.1f mm off, at worst %.1f (residual %.1f mm, left out %v); by the run alone %.1f and %.1f (residual %.1f mm, left out %v)",
		m, w, through.T1.ResidualMM, through.T1.LeftOut, m1, w1, *alone.ResidualMM, alone.LeftOut)
	if m > 2 || w > 4 || m1 > 5 || w1 > 10 {
		t.Error("too far off")
	}
}

func mustLabels(t *testing.T, file []byte) *volume.Labels {
	t.Helper()
	l, err := ReadLabels(bytes.NewReader(file), nifti.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestReadLabelsRefuses(t *testing.T) {
	write := func(shape []int, data []int16) []byte {
		var b bytes.Buffer
		if err := nifti.Write(&b, nifti.Geometry{Shape: shape, Affine: nifti.Affine(volume.Identity), Code: 1}, data); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	for name, file := range map[string][]byte{
		"four dimensions": write([]int{2, 2, 2, 2}, make([]int16, 16)),
		"an image":        write([]int{2, 2, 2}, []int16{0, 1000, 3, 4, 5, 6, 7, 8}),
		"no file":         []byte("labels"),
	} {
		if _, err := ReadLabels(bytes.NewReader(file), nifti.Limits{}); err == nil {
			t.Errorf("%s: read", name)
		}
	}
}

func TestAnalyzeRunShort(t *testing.T) {
	head := fmritest.Head(t)
	still := fmritest.Acquire(head, fmritest.Grid(head, 4))
	out, err := engine(t).Analyze(context.Background(), boldInput(fmritest.Run(t, still, 24, 2, nil), 2.5))
	if err != nil {
		t.Fatal(err)
	}
	f := out.Result.FMRI
	if !slices.Equal(f.NotComparable, []string{fmri.TooShort}) || !slices.Equal(f.Withheld, []string{fmri.FewDegreesOfFreedom}) || len(f.Connectomes) != 0 {
		t.Errorf("not comparable %v, withheld %v, %d connectomes", f.NotComparable, f.Withheld, len(f.Connectomes))
	}
	if got := codes(out.Result.QC.Reasons); !slices.Equal(got, []string{fmri.TRDisagrees, fmri.TooShort, fmri.FewDegreesOfFreedom}) || out.Result.QC.Verdict != neuroscreen.VerdictReview {
		t.Errorf("%s for %v", out.Result.QC.Verdict, got)
	}
	wantFiles(t, out, CarpetFile, MeanFile)
	if f.TRSeconds != 2.5 || f.Structures[0].ALFF != nil || f.Quality.MedianTSNR < 50 {
		t.Errorf("TR %g s, tSNR %.0f", f.TRSeconds, f.Quality.MedianTSNR)
	}
}

func TestAnalyzeRunRefuses(t *testing.T) {
	head := fmritest.Head(t)
	lowered := fmritest.Acquire(head, fmritest.Grid(head, 6))
	for at := range lowered.Data {
		lowered.Data[at] -= 2000
	}
	g := volume.Grid{Shape: [3]int{40, 50, 30}, Affine: volume.Scaling([3]float64{4, 4, 4})}
	nothing := fmritest.Run(t, volume.New(g), 20, 2, nil)
	young := 12.0
	for _, c := range []struct {
		name   string
		file   []byte
		change func(*Input)
		want   string
	}{
		{"noise", nothing, nil, ""},
		{"values under 0", fmritest.Run(t, lowered, 20, 2, nil), nil, ""},
		{"two repetition times", nothing, func(in *Input) { three := 3.0; in.Sidecar = &fmri.Sidecar{RepetitionTime: &three} }, fmri.TRAmbiguous},
		{"no repetition time", fmritest.Run(t, volume.New(g), 20, 0, nil), nil, fmri.TRAmbiguous},
		{"five volumes", fmritest.Run(t, volume.New(g), 5, 2, nil), nil, fmri.TooFewVolumes},
		{"one volume", fmritest.Run(t, volume.New(g), 1, 2, nil), nil, qc.Not4D},
		{"a child", nothing, func(in *Input) { in.Metadata.AgeYears = &young }, qc.Under18},
		{"a slab", fmritest.Run(t, volume.New(volume.Grid{Shape: [3]int{40, 50, 8}, Affine: g.Affine}), 20, 2, nil), nil, qc.FieldOfViewCut},
		{"cut short", nothing[:len(nothing)/2], nil, ""},
		{"called a T1", nothing, func(in *Input) { in.Metadata.Modality = neuroscreen.T1w }, qc.Not3D},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := boldInput(c.file, 0)
			if c.change != nil {
				c.change(&in)
			}
			_, err := engine(t).Analyze(context.Background(), in)
			e, ok := errors.AsType[*neuroscreen.Error](err)
			if !ok || e.Code != neuroscreen.CodeUnprocessable || c.want != "" && e.Type != c.want {
				t.Errorf("error %v, want a refusal for %q", err, c.want)
			}
		})
	}
}

// TestAnalyzeRealRun: motion, mask and quality of a real run are plausible.
func TestAnalyzeRealRun(t *testing.T) {
	b, err := os.ReadFile(testdata.Shared(t, "scans", "bold", "ds_oneback_100vol.nii.gz"))
	if err != nil {
		t.Fatal(err)
	}
	out, err := engine(t).Analyze(context.Background(), boldInput(b, 2))
	if err != nil {
		t.Fatal(err)
	}
	f := out.Result.FMRI
	t.Logf("brain %.0f ml, mean FD %.3f mm, median tSNR %.1f, %d outlier frames, %d degrees of freedom; timings %v",
		f.BrainML, f.Motion.MeanFDMM, f.Quality.MedianTSNR, len(f.Quality.OutlierFrames), f.Clean.DegreesOfFreedom, out.Result.TimingsMS)
	if f.BrainML < 1000 || f.BrainML > 1600 || f.Motion.MeanFDMM > 0.3 || f.Quality.MedianTSNR < 50 || f.Quality.MedianTSNR > 200 {
		t.Errorf("brain %.0f ml, mean FD %.3f mm, median tSNR %.1f", f.BrainML, f.Motion.MeanFDMM, f.Quality.MedianTSNR)
	}
	if f.Place.ToMNI == nil {
		t.Fatalf("no place: %v", codes(out.Result.QC.Reasons))
	}
	t.Logf("residual %.1f mm over %d structures, left out %v", *f.Place.ResidualMM, len(f.Place.Structures), f.Place.LeftOut)
	if len(f.Structures) < 28 {
		t.Errorf("%d structures", len(f.Structures))
	}
	show(t, "real", out)
}

// BenchmarkAnalyzeRun takes 200 volumes of 64 x 64 x 35 voxels from bytes to
// result.
func BenchmarkAnalyzeRun(b *testing.B) {
	head := fmritest.Head(b)
	g := volume.Grid{Shape: [3]int{64, 64, 35}, Affine: volume.Scaling([3]float64{-3.5, 3.5, 4})}
	c, o := head.Centre(), g.Centre()
	for a := range 3 {
		g.Affine[a][3] += c[a] - o[a]
	}
	file := fmritest.Run(b, fmritest.Acquire(head, g), 200, 2, nil)
	e := engine(b)
	for b.Loop() {
		out, err := e.Analyze(context.Background(), boldInput(file, 0))
		if err != nil {
			b.Fatal(err)
		}
		for stage, ms := range out.Result.TimingsMS {
			b.ReportMetric(ms, stage+"-ms")
		}
	}
}
