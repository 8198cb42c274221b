package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"image/color"
	"image/png"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"neuroscreen"
	"neuroscreen/internal/anatomy"
	"neuroscreen/internal/volume"
)

// sampleRun is an invented run: a head that jumps once, and nothing that
// fluctuates but both sides of a structure together.
func sampleRun() Page {
	const frames, tr = 150, 2.0
	rng := rand.New(rand.NewPCG(7, 9))
	m := &neuroscreen.FMRI{
		Evidence: neuroscreen.Experimental, TRSeconds: tr, TRFrom: "metadata", DummyScans: 3, Frames: frames, Seconds: frames * tr, BrainVoxels: 41237, BrainML: 1226.8,
		Motion: neuroscreen.FMRIMotion{ReferenceFrame: 70, FDMM: make([]float64, frames), Parameters: make([][6]float64, frames)},
		Quality: neuroscreen.FMRIQuality{DVARS: make([]float64, frames), StdDVARS: make([]float64, frames), GlobalSignal: make([]float64, frames), OutlierShare: make([]float64, frames),
			OutlierFrames: []int{60, 61}, SpikeFrames: []int{61}, MedianTSNR: 74.2, DriftPercentPerMinute: -0.124},
		Clean:    neuroscreen.FMRIClean{KeptFrames: frames - 2, LowHz: 0.008, HighHz: 0.1, HighPassSeconds: 128, Motion: 24, WhiteMatter: 5, CSF: 5, Rank: 126, DegreesOfFreedom: 22},
		Withheld: []string{}, NotComparable: []string{},
	}
	for t := 1; t < frames; t++ {
		m.Motion.FDMM[t], m.Quality.StdDVARS[t] = 0.08+0.1*rng.Float64(), 0.95+0.15*rng.Float64()
	}
	m.Motion.FDMM[60], m.Motion.FDMM[61], m.Quality.StdDVARS[60], m.Quality.StdDVARS[61] = 0.9, 0.7, 1.9, 2.2
	m.Motion.MeanFDMM, m.Motion.MaxFDMM = 0.284, 0.9
	var nodes []string
	for _, s := range anatomy.Structures[1:] {
		if s.Class == anatomy.CSF {
			continue
		}
		nodes = append(nodes, s.Name)
		m.Structures = append(m.Structures, neuroscreen.FMRIStructure{Structure: s.Name, Label: s.Label, Voxels: 40 + 13*s.Label, TSNR: 60 + float64(s.Label%20),
			ALFF: ptr(0.3 + float64(s.Label)/200), FALFF: ptr(0.41), ReHo: ptr(0.27)})
	}
	for _, removed := range []bool{false, true} {
		c := neuroscreen.FMRIConnectome{GlobalSignalRemoved: removed, DegreesOfFreedom: 22, Nodes: nodes, StandardError: 0.2236, SplitHalf: 0.61, Reliability: 0.7578,
			Graph: neuroscreen.FMRIGraph{Nodes: nodes[:4], Density: 0.25, Modularity: 0.312, PathLength: 1.84, Clustering: []float64{0.2, 0.4, 0.3, 0.5}, Module: []int{0, 1, 1, 2}}}
		for i := range nodes {
			c.FisherZ = append(c.FisherZ, make([]float64, len(nodes)))
			for j := range i {
				z := 0.35 * rng.NormFloat64()
				if anatomy.Bare(nodes[i]) == anatomy.Bare(nodes[j]) {
					z = 1.1
				}
				c.FisherZ[i][j], c.FisherZ[j][i] = z, z
			}
		}
		m.Connectomes = append(m.Connectomes, c)
	}
	tissues := []CarpetTissue{{"Cortex", 100, 20000}, {"Deep grey", 14, 1500}, {"Cerebellum, stem", 30, 6000}, {"White matter", 80, 12000}, {"Ventricles", 14, 1000}}
	var z []float32
	for _, t := range tissues {
		for range t.Rows {
			for f := range frames {
				v := 0.7 * rng.NormFloat64()
				if f == 60 || f == 61 {
					v += 2.5
				}
				z = append(z, float32(v))
			}
		}
	}
	p := Page{
		Result: &neuroscreen.Result{
			Schema: neuroscreen.ResultSchema, ScanID: "018f6a52-0000-7000-8000-000000000002", SubjectID: "S-0043", Modality: neuroscreen.BOLD,
			Input:    neuroscreen.Input{SHA256: strings.Repeat("0a", 32), Shape: []int{80, 80, 35, frames + 3}, VoxelMM: [3]float64{3, 3, 3.3}, Orientation: "LAS", DType: "int16"},
			Software: neuroscreen.Software{Version: "0.0.0", Kernel: "avx2", Network: neuroscreen.Asset{Name: "default.weights", SHA256: strings.Repeat("1b", 32)}},
			QC: neuroscreen.QC{Verdict: neuroscreen.VerdictReview,
				Reasons: []neuroscreen.Reason{{Code: "dummy-scans", Text: "3 volumes at the start were dropped."}, {Code: "head-motion", Text: "The head moved by 0.28 mm from frame to frame on average (limit 0.25 mm)."}},
				Metrics: map[string]float64{"mean_fd_mm": 0.284, "median_tsnr": 74.2, "flip_dice": 0.91}},
			Volumes: []neuroscreen.Volume{}, Indices: []neuroscreen.Index{}, Scores: []neuroscreen.Score{}, FMRI: m,
		},
		Metadata: neuroscreen.Metadata{AgeYears: ptr(58.0), Sex: neuroscreen.Male, ScanDate: "2026-03-14", Manufacturer: "Siemens", Scanner: "Prisma", FieldStrengthT: ptr(3.0)},
		Created:  time.Date(2026, 3, 14, 9, 26, 53, 0, time.UTC),
		Reading: Reading{Run: &Run{Carpet: Carpet{Tissues: tissues, LeftOut: []int{60, 61, 62}, PNG: CarpetPNG(z, frames)},
			Limits: RunLimits{FDMM: 0.5, StdDVARS: 1.5, ReviewMeanFDMM: 0.25, MostMeanFDMM: 0.5, ReviewTSNR: 30, DegreesOfFreedom: 20, Seconds: 240},
			Method: []string{"Cleaning takes out what an invented paragraph names.", "And another one."}}},
	}
	p.Reading.Run.InWords(m)
	return p
}

// drawn is a run with its pictures.
func drawn(t *testing.T, p Page) Page {
	t.Helper()
	p = withPicture(t, p)
	p.Maps = p.Preview
	return p
}

// tooShort is the same run, too short for anything.
func tooShort() Page {
	p := sampleRun()
	m := p.Result.FMRI
	m.Connectomes, m.Withheld, m.NotComparable, m.Clean.DegreesOfFreedom = nil, []string{"few-degrees-of-freedom"}, []string{"too-short", "head-motion"}, 3
	m.Seconds = 150
	for n := range m.Structures {
		m.Structures[n].ALFF, m.Structures[n].FALFF, m.Structures[n].ReHo = nil, nil, nil
	}
	p.Reading.Run.InWords(m)
	return p
}

func TestRunGolden(t *testing.T) {
	golden(t, "run.html", []byte(render(t, sampleRun())))
	p := drawn(t, sampleRun())
	doc := renderPDF(t, p)
	if !bytes.Equal(doc, renderPDF(t, p)) {
		t.Error("the same run gives other bytes")
	}
	golden(t, "run.pdf.txt", []byte(strings.Join(sheetTexts(t, doc), "\n--- next sheet ---\n")))
	if dir := os.Getenv("NEUROSCREEN_SHOTS"); dir != "" { // for people to look at
		for name, b := range map[string][]byte{"sample-run.pdf": doc, "sample-run.html": []byte(render(t, p)), "sample-run-short.pdf": renderPDF(t, withPicture(t, tooShort())),
			"sample-carpet.png": CarpetPicture(p.Result.FMRI, p.Reading.Run), "sample-connectome.png": ConnectomePicture(p.Result.FMRI)} {
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestRunSays: page and sheets of a run say the same, in a run's own words.
func TestRunSays(t *testing.T) {
	flat := func(s string) string {
		return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == ' ' || r == '\n' || r == '\u00a0' || r == '\u202f' }), "")
	}
	for name, c := range map[string]struct {
		page Page
		want []string
	}{
		"whole": {drawn(t, sampleRun()), []string{"Look twice.", "The head moved by 0.28 mm", "0.28 mm", "0.90 mm", "2 of 150 (1.3 %)", "4.9 of 5.0 min", "22", "withheld under 20", "review under 30",
			"FD over 0.5 mm or DVARS over 1.5", "Nothing speaks against comparing", matrixCaption, mapsCaption, carpetCaption, "Hippocampus L", "within ±0.45 of 0", "first 3 volumes, dropped",
			"seconds since the recording began", "Cerebellum, stem", "Global signal taken out", "degrees of freedom 22", "reliability 0.76", "modules 3", "150 frames of 2 s, 5.0 min", "An invented", "paragraph names"}},
		"short": {withPicture(t, tooShort()), []string{"Connectome and maps are withheld: cleaning leaves too few degrees of freedom.",
			"Not to be compared with other runs: the run is too short; the head moved too much.", runWithheld}},
	} {
		text := flat(strings.Join(sheetTexts(t, renderPDF(t, c.page)), " "))
		page := strings.NewReplacer("&#39;", "'", "&#43;", "+").Replace(render(t, c.page))
		v := viewRun(c.page)
		want := append(c.want, runTitle, runExperimental, runSourceImages, structureCaption, previewCaption, neuroscreen.IntendedUseRun, strings.Repeat("0a", 32), strings.Repeat("1b", 8), "S-0043", "Not reviewed.")
		want = append(want, v.Quality...)
		want = append(want, v.Run.Worth...)
		for _, n := range v.Run.Numbers {
			want = append(want, n.Name, n.Value, n.Limit)
		}
		for _, p := range v.Pairs {
			want = append(want, p.Name)
			want = append(want, runCells(p.Left)...)
		}
		for _, w := range want {
			if strings.HasPrefix(w, "An invented") || w == "paragraph names" {
				w = "invented paragraph names"
			}
			if !strings.Contains(text, flat(w)) {
				t.Errorf("%s: the sheets do not say %q", name, w)
			}
			if !strings.Contains(flat(page), flat(w)) {
				t.Errorf("%s: the page does not say %q", name, w)
			}
		}
		for _, never := range []string{"diagnos", "the patient has", "suffers", "confirms", "rules out", "abnormal", "http://", "https://", "<script", "nan", "&lt;nil", "t1-weighted brain", "percentile", "alzheimer"} {
			prose, _, _ := strings.Cut(strings.ToLower(page), "data:image")
			if at := strings.Index(prose, never); at >= 0 {
				t.Errorf("%s: the page says %q: %q", name, never, prose[max(0, at-40):at+40])
			}
		}
	}
}

var pictures = regexp.MustCompile(`base64,[^"]*`)

// TestRunIsTwoSheets, however much has to be said and however little there is.
func TestRunIsTwoSheets(t *testing.T) {
	long := drawn(t, sampleRun())
	long.Review = &Review{Decision: "reject", By: "Dr. Reader", Comment: strings.Repeat("The head lies beside the coil. ", 40)}
	for range 3 {
		long.Result.QC.Reasons = append(long.Result.QC.Reasons, long.Result.QC.Reasons...)
		long.Reading.Run.Method = append(long.Reading.Run.Method, strings.Repeat("More to be said. ", 60))
	}
	var sparse neuroscreen.Result
	if err := json.Unmarshal([]byte(`{"schema":"neuroscreen.result/1","fmri":{"frames":10,"motion":{"fd_mm":[0,1]},"connectomes":[{"nodes":["a","b"],"fisher_z":[[0,1]]}]}}`), &sparse); err != nil {
		t.Fatal(err)
	}
	earlier := sampleRun() // from before readings held a run
	earlier.Reading = Reading{}
	for name, p := range map[string]Page{"earlier": earlier, "sample": drawn(t, sampleRun()), "short": withPicture(t, tooShort()), "long": long, "sparse": {Result: &sparse}, "no pictures": sampleRun()} {
		for _, p.Paper = range []Paper{A4, Letter} {
			if n := len(sheetTexts(t, renderPDF(t, p))); n != 2 {
				t.Errorf("%s on %s: %d sheets", name, p.Paper.Name, n)
			}
			v := viewRun(p)
			d := newSheets(v.Page, v.Title, fitRun(v))
			if !d.runResult(v) || !d.runMethod(v) {
				t.Errorf("%s on %s: does not fit at %+v", name, p.Paper.Name, d.fitted)
			}
			html := pictures.ReplaceAllString(render(t, p), "")
			if !strings.Contains(html, "@page { size: "+p.Paper.Name+";") {
				t.Errorf("%s: the page prints on other paper than %s", name, p.Paper.Name)
			}
			if strings.Contains(html, "NaN") || strings.Contains(html, "+Inf") || strings.Contains(html, "∞") {
				t.Errorf("%s: numbers that are none", name)
			}
		}
	}
}

// TestCarpetPNG: black and white are -2 and 2 SD; a run of any length has a
// bounded picture.
func TestCarpetPNG(t *testing.T) {
	img := greysOf(CarpetPNG([]float32{-9, -2, 0, 1, 2, 9}, 3))
	if img == nil || img.Rect.Dx() != 3 || img.Rect.Dy() != 2 {
		t.Fatalf("%v", img)
	}
	for at, want := range []uint8{0, 0, 130, 190, 255, 255} {
		if got := img.GrayAt(at%3, at/3).Y; math.Abs(float64(got)-float64(want)) > 3 {
			t.Errorf("pixel %d is %d, want %d", at, got, want)
		}
	}
	const frames = 4000
	z := make([]float32, 240*frames)
	rng := rand.New(rand.NewPCG(1, 1))
	for n := range z {
		z[n] = float32(rng.NormFloat64())
	}
	b := CarpetPNG(z, frames)
	if img := greysOf(b); img.Rect.Dx() > maxColumns || len(b) > 400_000 {
		t.Errorf("%v, %d bytes", img.Rect, len(b))
	}
	if CarpetPNG(nil, 0) != nil || greysOf([]byte("no picture")) != nil {
		t.Error("something out of nothing")
	}
}

// TestLongRun: the traces of a run of any length have a bounded number of bars,
// and the highest frame of each is shown.
func TestLongRun(t *testing.T) {
	const frames = 6100
	m := &neuroscreen.FMRI{TRSeconds: 1, Motion: neuroscreen.FMRIMotion{FDMM: make([]float64, frames)}, Quality: neuroscreen.FMRIQuality{StdDVARS: make([]float64, frames)}}
	m.Motion.FDMM[4321] = 1
	f, ok := carpetFigure(m, &Run{Limits: RunLimits{FDMM: 0.5, StdDVARS: 1.5}})
	if !ok {
		t.Fatal("no figure")
	}
	over := 0
	for _, e := range f.marks {
		if e.paint == overPaint && e.y < dvarsTop {
			over++
		}
	}
	if over != 1 || len(f.marks) > 4*maxColumns {
		t.Errorf("%d bars over the limit of %d marks", over, len(f.marks))
	}
}

func TestMatrixOrder(t *testing.T) {
	nodes := []string{"Left-Cerebral-White-Matter", "Right-Hippocampus", "Brain-Stem", "Left-Thalamus", "Left-Cerebral-Cortex", "4th-Ventricle"}
	if got, want := fmt.Sprint(matrixOrder(nodes)), "[[4 3] [1] [2] [0 5]]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestMatrixInGrey: what is below 0 has a dash, and what can't be told from 0
// is small, so that neither needs colour.
func TestMatrixInGrey(t *testing.T) {
	c := &neuroscreen.FMRIConnectome{Nodes: []string{"Left-Thalamus", "Right-Thalamus", "Brain-Stem"}, StandardError: 0.2, FisherZ: [][]float64{{0, -0.9, 0.3}, {-0.9, 0, 0.9}, {0.3, 0.9, 0}}}
	f, ok := matrixFigure(c)
	if !ok {
		t.Fatal("no figure")
	}
	small, large, dashes := 0, 0, 0
	for _, e := range f.marks {
		switch {
		case e.x > f.w-legendW-30: // the key
		case e.w == smallCell:
			small++
		case e.w == cell-2*cellInset:
			large++
		case e.h == 1.4:
			dashes++
		}
	}
	if small != 1 || large != 2 || dashes != 1 {
		t.Errorf("%d small, %d large, %d dashes", small, large, dashes)
	}
	if _, ok := matrixFigure(&neuroscreen.FMRIConnectome{Nodes: []string{"a", "b"}}); ok {
		t.Error("a figure without numbers")
	}
}

// TestHeatInGrey: a higher value is lighter, also without colour.
func TestHeatInGrey(t *testing.T) {
	last := -1.0
	for n := range 101 {
		c := heat(float64(n) / 100)
		if luma := 0.299*float64(c.R) + 0.587*float64(c.G) + 0.114*float64(c.B); luma <= last {
			t.Fatalf("%.2f is no lighter than what is below", float64(n)/100)
		} else {
			last = luma
		}
	}
}

// TestMaps: colours lie where the map has values, on the right side.
func TestMaps(t *testing.T) {
	g := volume.Grid{Shape: [3]int{40, 40, 40}, Affine: volume.Scaling([3]float64{4, 4, 4})}
	mean, labels := volume.New(g), volume.NewLabels(g)
	right := make([]float32, g.Len())
	for at := range mean.Data {
		i, j, k := at%40-20, at/40%40-20, at/1600-20
		if i*i+j*j+k*k < 18*18 {
			mean.Data[at], labels.Data[at] = 500, 3
			if i > 2 {
				right[at] = 1 + float32(j+20)/40
			}
		}
	}
	b, err := Maps(mean, labels, []Map{{"ALFF", "%", right}})
	if err != nil {
		t.Fatal(err)
	}
	img, err := png.Decode(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	coloured := func(x0, x1 int) (n int) {
		for y := mapCaptionPx + gap; y < img.Bounds().Dy()-mapCaptionPx; y++ {
			for x := x0; x < x1; x++ {
				c := color.RGBAModel.Convert(img.At(x, y)).(color.RGBA)
				if c.R != c.G || c.G != c.B {
					n++
				}
			}
		}
		return n
	}
	w := (img.Bounds().Dx() - gap - mapBarRoom) / mapCuts // of a cut with its gap
	if l, r := coloured(gap, gap+w/2-20), coloured(gap+w/2+20, gap+w-mapGap); l == 0 || r != 0 {
		t.Errorf("%d coloured pixels on the left of the cut, where the patient's right is, and %d on the right", l, r)
	}
	if _, err := Maps(mean, labels, []Map{{"short", "", right[:7]}}); err == nil {
		t.Error("a map on another grid is drawn")
	}
	if b, err := Maps(mean, labels, nil); b != nil || err != nil {
		t.Errorf("%d bytes, %v without maps", len(b), err)
	}
	if _, err := Maps(mean, volume.NewLabels(g), []Map{{"ALFF", "%", right}}); err == nil {
		t.Error("a map without a brain is drawn")
	}
}
