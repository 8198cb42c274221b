package pipeline

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"neuroscreen"
	"neuroscreen/internal/nifti"
	"neuroscreen/internal/qc"
	"neuroscreen/internal/testdata"
	"neuroscreen/internal/train"
)

func engine(t testing.TB) *Engine {
	t.Helper()
	e, err := New("test", nifti.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// scanOf makes an input of a file, or of the pair that it belongs to.
func scanOf(t testing.TB, path string, age float64, sex neuroscreen.Sex) Input {
	t.Helper()
	in := Input{ScanID: "scan", Metadata: neuroscreen.Metadata{SubjectID: "subject", AgeYears: &age, Sex: sex, Modality: neuroscreen.T1w}}
	header, image, err := nifti.Files(path)
	if err != nil {
		header, image = "", path // posted alone, as a client might
	}
	read := func(path string) []byte {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	b := read(image)
	sum := sha256.Sum256(b)
	in.SHA256, in.Image = hex.EncodeToString(sum[:]), bytes.NewReader(b)
	if header != "" {
		in.Header = bytes.NewReader(read(header))
	}
	return in
}

const (
	atrophied = "../../testdata/heads/atrophied_74F.nii.gz"
	healthy   = "../../testdata/heads/healthy_45M.nii.gz"
)

func TestAnalyze(t *testing.T) {
	in := scanOf(t, atrophied, 74, neuroscreen.Female)
	in.SettingsVersion, in.Settings.Model.ConformalErrorRate = 7, 0.2
	var stages []neuroscreen.State
	in.Stage = func(_ context.Context, s neuroscreen.State) error {
		stages = append(stages, s)
		return nil
	}
	out, err := engine(t).Analyze(context.Background(), in)
	if err != nil {
		t.Fatal(err)
	}
	if want := []neuroscreen.State{neuroscreen.Checked, neuroscreen.Segmented, neuroscreen.Measured}; !slices.Equal(stages, want) {
		t.Errorf("stages %v, want %v", stages, want)
	}
	checkResult(t, out.Result)
	if r := out.Result; r.SettingsVersion != 7 || r.Scores[0].Conformal == nil || r.Scores[0].Conformal.ErrorRate != 0.2 || r.Scores[0].Conformal.Validated || len(r.Scores[0].Explanation.Reasons) == 0 {
		t.Errorf("settings version %d, conformal %+v, explanation %+v", r.SettingsVersion, r.Scores[0].Conformal, r.Scores[0].Explanation)
	}
	checkGrid(t, scanOf(t, atrophied, 74, neuroscreen.Female), out)
	// The head was made with hippocampi of 2,031 and 2,368 mm3 and wide
	// ventricles: the case that a new user is shown as flagged.
	if s := out.Result.Scores[0]; s.Condition != neuroscreen.Alzheimers || s.Flag != neuroscreen.FlagFlagged {
		t.Errorf("the atrophied head's first score is %s, %s; want it flagged", s.Condition, s.Flag)
	}
	for _, v := range out.Result.Volumes {
		if v.StandardErrorMM <= 0 || v.StandardErrorMM >= v.MM3 {
			t.Errorf("%s: %.0f ± %.0f mm3", v.Structure, v.MM3, v.StandardErrorMM)
		}
	}
	if !bytes.HasPrefix(out.Preview, []byte("\x89PNG")) || !bytes.Contains(page(t, out), []byte("</html>")) {
		t.Error("preview or report is missing")
	}
}

// checkGrid holds the label map to the scan's own grid.
func checkGrid(t *testing.T, in Input, out *Output) {
	t.Helper()
	scan, err := nifti.Decode(in.Image, nifti.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	labels, err := nifti.Decode(bytes.NewReader(out.Segmentation), nifti.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(scan.Shape, labels.Shape) {
		t.Errorf("segmentation has shape %v, the scan %v", labels.Shape, scan.Shape)
	}
	for r := range scan.Affine {
		for c := range scan.Affine[r] {
			if math.Abs(scan.Affine[r][c]-labels.Affine[r][c]) > 1e-4 {
				t.Fatalf("segmentation's affine %v, the scan's %v", labels.Affine, scan.Affine)
			}
		}
	}
}

// checkResult holds every result to the document's arithmetic.
func checkResult(t *testing.T, r *neuroscreen.Result) {
	t.Helper()
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range []string{`"volumes":null`, `"scores":null`, `"indices":null`, `"reasons":null`, `"contributions":null`} {
		if bytes.Contains(b, []byte(list)) {
			t.Errorf("%s, want an empty list", list)
		}
	}
	if len(r.Volumes) != 32 || len(r.Input.SHA256) != 64 || len(r.Software.Network.SHA256) != 64 {
		t.Errorf("%d volumes, input %s, network %s", len(r.Volumes), r.Input.SHA256, r.Software.Network.SHA256)
	}
	seen := map[neuroscreen.Condition]bool{}
	for _, s := range r.Scores {
		seen[s.Condition] = true
		if s.IntendedUse == "" {
			t.Errorf("%s has no intended use", s.Condition)
		}
		if s.Abstained != nil {
			if s.LikelihoodRatio != nil || s.Posterior != nil || s.Flag != neuroscreen.FlagNone {
				t.Errorf("%s abstains (%s) and still answers", s.Condition, *s.Abstained)
			}
			continue
		}
		sum := s.Intercept
		for _, c := range s.Contributions {
			sum += c.LogLR
		}
		if math.Abs(math.Log(*s.LikelihoodRatio)-sum) > 1e-9 {
			t.Errorf("%s: ln LR %.12f, contributions sum to %.12f", s.Condition, math.Log(*s.LikelihoodRatio), sum)
		}
		if (s.Prior == nil) != (s.Posterior == nil) {
			t.Errorf("%s: prior and posterior go together", s.Condition)
		} else if s.Prior != nil {
			logit := func(p float64) float64 { return math.Log(p / (1 - p)) }
			if math.Abs(logit(*s.Posterior)-logit(*s.Prior)-sum) > 1e-9 {
				t.Errorf("%s: posterior %v does not follow from prior %v", s.Condition, *s.Posterior, *s.Prior)
			}
		}
	}
	for _, c := range neuroscreen.Conditions {
		if !seen[c] {
			t.Errorf("no score for %s", c)
		}
	}
}

func TestAnalyzeIsDeterministic(t *testing.T) {
	e := engine(t)
	var first []byte
	for range 2 {
		out, err := e.Analyze(context.Background(), scanOf(t, healthy, 45, neuroscreen.Male))
		if err != nil {
			t.Fatal(err)
		}
		out.Result.TimingsMS = nil
		b, err := json.Marshal(out.Result)
		if err != nil {
			t.Fatal(err)
		}
		b = append(b, out.Segmentation...)
		if first == nil {
			first = b
		} else if !bytes.Equal(first, b) {
			t.Error("the same scan gave another result")
		}
	}
}

// analyzed is what the product makes of an image of a man of 45.
func analyzed(t *testing.T, e *Engine, shape []int, affine nifti.Affine, data []float32) *Output {
	t.Helper()
	var file bytes.Buffer
	if err := nifti.Write(&file, nifti.Geometry{Shape: shape, Affine: affine, Code: 1}, data); err != nil {
		t.Fatal(err)
	}
	age := 45.0
	out, err := e.Analyze(context.Background(), Input{ScanID: "scan", Image: &file, Metadata: neuroscreen.Metadata{
		SubjectID: "subject", AgeYears: &age, Sex: neuroscreen.Male, Modality: neuroscreen.T1w}})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestAnalyzeMeanZero: a scan that was scaled to mean 0, whole or stripped, is
// measured as it was before.
func TestAnalyzeMeanZero(t *testing.T) {
	e := engine(t)
	head, err := nifti.ReadFile(healthy)
	if err != nil {
		t.Fatal(err)
	}
	analyze := func(data []float32) *Output { return analyzed(t, e, head.Shape, head.Affine, data) }
	whole := analyze(head.Data)
	labels, err := nifti.Decode(bytes.NewReader(whole.Segmentation), nifti.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	stripped := slices.Clone(head.Data)
	for i, l := range labels.Data {
		if l == 0 {
			stripped[i] = 0
		}
	}
	scaled := func(data []float32, all bool) []float32 {
		sum, squares, n := 0.0, 0.0, 0.0
		for _, v := range data {
			if all || v != 0 {
				sum, squares, n = sum+float64(v), squares+float64(v)*float64(v), n+1
			}
		}
		mean := sum / n
		sd := math.Sqrt(squares/n - mean*mean)
		out := make([]float32, len(data))
		for i, v := range data {
			if all || v != 0 {
				out[i] = float32((float64(v) - mean) / sd)
			}
		}
		return out
	}
	for name, pair := range map[string][2]*Output{
		"whole":    {whole, analyze(scaled(head.Data, true))},
		"stripped": {analyze(stripped), analyze(scaled(stripped, false))},
	} {
		before, after := pair[0].Result, pair[1].Result
		if before.QC.Verdict != after.QC.Verdict {
			t.Errorf("%s: %s %v, before %s %v", name, after.QC.Verdict, after.QC.Reasons, before.QC.Verdict, before.QC.Reasons)
		}
		for i, v := range after.Volumes {
			was := before.Volumes[i]
			if d := v.MM3/was.MM3 - 1; math.Abs(d) > 2*was.StandardErrorMM/was.MM3 {
				t.Errorf("%s: %s %.0f mm3, before %.0f +- %.0f", name, v.Structure, v.MM3, was.MM3, was.StandardErrorMM)
			}
		}
	}
}

func TestAnalyzeStops(t *testing.T) {
	gone := errors.New("another worker holds the scan")
	for _, at := range []neuroscreen.State{neuroscreen.Checked, neuroscreen.Segmented, neuroscreen.Measured} {
		in := scanOf(t, healthy, 45, neuroscreen.Male)
		in.Stage = func(_ context.Context, s neuroscreen.State) error {
			if s == at {
				return gone
			}
			return nil
		}
		if _, err := engine(t).Analyze(context.Background(), in); err != gone {
			t.Errorf("stopped at %s: error %v, want that of the stage", at, err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := engine(t).Analyze(ctx, scanOf(t, healthy, 45, neuroscreen.Male)); !errors.Is(err, context.Canceled) {
		t.Errorf("after cancel: %v", err)
	}
}

// A head that was resampled to a template is measured and not scored, then or
// later.
func TestAnalyzeTemplateSpace(t *testing.T) {
	in := scanOf(t, healthy, 45, neuroscreen.Male)
	img, err := nifti.Decode(in.Image, nifti.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	if err := nifti.Write(&file, nifti.Geometry{Shape: img.Shape, Affine: img.Affine, Code: 4}, img.Data); err != nil {
		t.Fatal(err)
	}
	in.Image = &file
	out, err := engine(t).Analyze(context.Background(), in)
	if err != nil {
		t.Fatal(err)
	}
	checkResult(t, out.Result)
	if h, err := nifti.DecodeHeader(bytes.NewReader(out.Segmentation)); err != nil || !h.InTemplate() {
		t.Errorf("the labels claim the scanner's space: %v", err)
	}
	r, err := NewRescorer("test")
	if err != nil {
		t.Fatal(err)
	}
	again, _, err := r.Rescore(*out.Result, in.Metadata, in.Settings, neuroscreen.Amendment{})
	if err != nil {
		t.Fatal(err)
	}
	for _, got := range []*neuroscreen.Result{out.Result, again} {
		if got.QC.Verdict != neuroscreen.VerdictReview || got.QC.Reasons[0].Code != qc.TemplateSpace {
			t.Errorf("verdict %s %v", got.QC.Verdict, codes(got.QC.Reasons))
		}
		for _, s := range got.Scores {
			if s.Abstained == nil || !strings.Contains(*s.Abstained, "template") {
				t.Errorf("%s is scored", s.Model)
			}
		}
		for _, v := range got.Volumes {
			if v.Z != nil || v.ZCI95 != nil || v.Percentile != nil || v.LeftOut {
				t.Errorf("%s is placed among healthy people: %+v", v.Structure, v)
			}
		}
	}
}

func TestAnalyzeRefuses(t *testing.T) {
	whole := scanOf(t, healthy, 45, neuroscreen.Male)
	file, err := io.ReadAll(whole.Image)
	if err != nil {
		t.Fatal(err)
	}
	yes := true
	for _, c := range []struct {
		name   string
		change func(*Input)
		want   string
	}{
		{"empty", func(in *Input) { in.Image = bytes.NewReader(nil) }, nifti.TypeEmpty},
		{"text", func(in *Input) { in.Image = strings.NewReader("version https://git-lfs.github.com/spec/v1\n") }, nifti.TypeNotNIfTI},
		{"cut short", func(in *Input) { in.Image = bytes.NewReader(file[:len(file)/2]) }, nifti.TypeTruncated},
		{"a child", func(in *Input) { age := 12.0; in.Metadata.AgeYears = &age }, "under-18"},
		{"contrast agent", func(in *Input) { in.Metadata.ContrastAgent = &yes }, "contrast-agent"},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := scanOf(t, healthy, 45, neuroscreen.Male)
			c.change(&in)
			_, err := engine(t).Analyze(context.Background(), in)
			e, ok := errors.AsType[*neuroscreen.Error](err)
			if !ok || e.Code != neuroscreen.CodeUnprocessable || e.Type != c.want || e.Message == "" {
				t.Errorf("got %v, want a refusal for %s", err, c.want)
			}
		})
	}
}

func TestParseSettings(t *testing.T) {
	for _, c := range []struct {
		name, json string
		ok         bool
	}{
		{"none", "", true},
		{"empty", "{}", true},
		{"a threshold", `{"model":{"alzheimers_review_lr":3}}`, true},
		{"misspelt", `{"modle":{}}`, false},
		{"a ratio below 1", `{"model":{"alzheimers_review_lr":0.5}}`, false},
		{"a shift of nothing", `{"site_shift":{"schema":"neuroscreen.shift/1"}}`, false},
		{"no JSON", `{`, false},
	} {
		if _, err := ParseSettings([]byte(c.json)); (err == nil) != c.ok {
			t.Errorf("%s: error %v", c.name, err)
		}
	}
}

// TestCorpora: every real head passes or is reviewed; whatever must not be
// measured is refused, and nothing panics.
func TestCorpora(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	e := engine(t)
	for _, c := range []struct {
		folder string
		head   bool
	}{{"t1", true}, {"refuse", false}, {"odd", false}} {
		root := testdata.Shared(t, "scans", c.folder)
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			name := filepath.Base(path)
			if err != nil || d.IsDir() || strings.Contains(name, "_glm") || strings.Contains(name, "_aseg") ||
				strings.HasSuffix(name, ".tsv") || strings.HasSuffix(name, ".csv") || strings.HasSuffix(name, ".mgz") {
				return err
			}
			t.Run(c.folder+"/"+name, func(t *testing.T) {
				out, err := e.Analyze(context.Background(), scanOf(t, path, 40, neuroscreen.Female))
				switch {
				case err == nil && c.head:
					checkResult(t, out.Result)
					checkGrid(t, scanOf(t, path, 40, neuroscreen.Female), out)
				case err == nil && out.Result.QC.Verdict != neuroscreen.VerdictReview:
					t.Errorf("passed without a word; want it refused or flagged")
				case err == nil:
					t.Logf("verdict %s %v", out.Result.QC.Verdict, codes(out.Result.QC.Reasons))
				default:
					r, ok := errors.AsType[*neuroscreen.Error](err)
					if !ok || r.Code != neuroscreen.CodeUnprocessable {
						t.Errorf("a fault, not a refusal: %v", err)
					} else if c.head {
						t.Errorf("refused: %v", r)
					} else {
						t.Logf("%s", r.Type)
					}
				}
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestFreeSurferHead analyses FreeSurfer's example brain, converted from .mgz.
func TestFreeSurferHead(t *testing.T) {
	heads, err := train.RealHeads(testdata.Shared(t, "scans", "t1"))
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	bert := heads[0].Image
	if err := nifti.Write(&file, nifti.Geometry{Shape: bert.Shape[:], Affine: nifti.Affine(bert.Affine), Code: 1}, bert.Data); err != nil {
		t.Fatal(err)
	}
	age := 40.0
	in := Input{Metadata: neuroscreen.Metadata{AgeYears: &age, Sex: neuroscreen.Female, Modality: neuroscreen.T1w}, SHA256: strings.Repeat("0", 64)}
	in.Image = bytes.NewReader(file.Bytes())
	out, err := engine(t).Analyze(context.Background(), in)
	if err != nil {
		t.Fatal(err)
	}
	checkResult(t, out.Result)
	in.Image = bytes.NewReader(file.Bytes())
	checkGrid(t, in, out)
}

func codes(rs []neuroscreen.Reason) (c []string) {
	for _, r := range rs {
		c = append(c, r.Code)
	}
	return c
}
