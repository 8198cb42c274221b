package report

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"neuroscreen"
	"neuroscreen/internal/anatomy"
	"neuroscreen/internal/words"
)

var update = flag.Bool("update", false, "write the golden files")

func ptr[T any](v T) *T { return &v }

// samplePage is an invented case: a woman of 74 with small hippocampi.
func samplePage() Page {
	volumes := []neuroscreen.Volume{}
	for _, row := range []struct {
		structure          string
		mm3, expected, z   float64
		spread             float64 // of the reference
		withoutARefernence bool
	}{
		{"Left-Hippocampus", 2671, 3512, -2.49, 338, false},
		{"Right-Hippocampus", 2902, 3641, -2.05, 360, false},
		{"Left-Amygdala", 1102, 1432, -1.9, 173, false},
		{"Right-Amygdala", 1398, 1571, -0.96, 181, false},
		{"Left-Lateral-Ventricle", 28410, 15102, 1.83, 7000, false},
		{"Right-Lateral-Ventricle", 24655, 13840, 1.52, 6800, false},
		{"Left-Thalamus", 6104, 6390, -0.44, 656, false},
		{"Right-Thalamus", 6031, 6322, -0.45, 640, false},
		{"Left-Cerebral-Cortex", 209120, 214030, -0.5, 9800, false},
		{"Right-Cerebral-Cortex", 211455, 215500, -0.41, 9900, false},
		{"3rd-Ventricle", 1904, 1610, 0.7, 420, false},
		{"Brain-Stem", 19870, 20110, -0.13, 1790, false},
		{"CSF", 301200, 0, 0, 0, true},
	} {
		s, _ := anatomy.ByName(row.structure)
		v := neuroscreen.Volume{
			Structure: row.structure, Label: s.Label, MM3: row.mm3, StandardErrorMM: row.mm3 * 0.021, PercentICV: ptr(row.mm3 / 14_212.5),
		}
		if !row.withoutARefernence {
			v.ExpectedMM3, v.P5MM3, v.P95MM3 = ptr(row.expected), ptr(row.expected-1.645*row.spread), ptr(row.expected+1.645*row.spread)
			v.Z, v.ZCI95 = ptr(row.z), ptr([2]float64{row.z - 0.61, row.z + 0.61})
			v.Percentile = ptr(50 * math.Erfc(-row.z/math.Sqrt2))
		}
		volumes = append(volumes, v)
	}
	curve := func(structure string, level, slope, spread float64) Curve {
		c := Curve{Structure: structure}
		for age := 20.0; age <= 90; age += 5 {
			mid := level + slope*(age-20)*(age-20)/70
			c.Points = append(c.Points, CurvePoint{age, mid - spread, mid, mid + spread})
		}
		return c
	}
	return Page{
		Result: &neuroscreen.Result{
			Schema: neuroscreen.ResultSchema, ScanID: "018f6a52-0000-7000-8000-000000000001", SubjectID: "S-0042", Modality: neuroscreen.T1w,
			Input: neuroscreen.Input{SHA256: strings.Repeat("0a", 32), Shape: []int{256, 256, 180}, VoxelMM: [3]float64{0.94, 0.94, 1}, Orientation: "LAS", DType: "int16"},
			Software: neuroscreen.Software{
				Version: "0.0.0", Kernel: "avx2", Network: neuroscreen.Asset{Name: "default.weights", SHA256: strings.Repeat("1b", 32)},
				Norms:  []neuroscreen.Asset{{Name: "nomis.csv", SHA256: strings.Repeat("2c", 32)}},
				Models: []neuroscreen.Asset{{Name: "alzheimers.json", SHA256: strings.Repeat("3d", 32)}},
			},
			QC: neuroscreen.QC{Verdict: neuroscreen.VerdictReview,
				Reasons: []neuroscreen.Reason{{Code: "noise", Text: "Noise is 48 % of the contrast between white and grey matter (limit 45 %)."}},
				Metrics: map[string]float64{"cnr": 2.3114, "cjv": 0.5521, "noise_to_contrast": 0.4812, "flip_dice": 0.9312}},
			IntracranialVolumeMM3: ptr(1421250.0),
			Volumes:               volumes,
			Indices: []neuroscreen.Index{
				{Name: "hippocampal_asymmetry_percent", Value: 4.1449, Reference: ptr([2]float64{-1.95, 5.15})},
				{Name: "hoc_left", Value: 0.6312, Reference: ptr([2]float64{0.79, 0.96})},
				{Name: "brain_parenchymal_fraction", Value: 0.7412},
			},
			Scores: []neuroscreen.Score{
				{Condition: neuroscreen.Alzheimers, Model: "alzheimers-scan", Evidence: neuroscreen.ExternalCohort, LikelihoodRatio: ptr(6.4123), CI95: ptr([2]float64{2.9, 14.2}),
					Prior: ptr(0.05), Posterior: ptr(0.25232), Flag: neuroscreen.FlagFlagged, Intercept: -0.4,
					Contributions: []neuroscreen.Contribution{{Feature: "Left-Hippocampus", Value: 2671, Z: ptr(-2.49), LogLR: 1.3}, {Feature: "Right-Hippocampus", Value: 2902, Z: ptr(-2.05), LogLR: 0.958}},
					IntendedUse:   neuroscreen.IntendedUse + " It does not tell one dementia from another.",
					Conformal:     &neuroscreen.ConformalSet{ErrorRate: 0.1, Set: "case", Text: "At an error rate of 10 % the volumes fit cases only. Counted on an invented cohort."},
					Explanation: neuroscreen.Explanation{
						Reasons:     []string{"Left hippocampus 2.5 SD below peers: likelihood ratio 3.7.", "Right hippocampus 2.0 SD below peers: likelihood ratio 2.6.", "Together, starting from 0.67 for average volumes: likelihood ratio 6.4."},
						WouldChange: []string{`The flag would be "review" if the left hippocampus were 0.3 SD larger.`},
						Uncertain:   []string{"Left hippocampus is measured to +-0.6 SD (95 %).", `Within the interval the flag goes from "review" to "flagged".`},
					}},
				{Condition: neuroscreen.Alzheimers, Model: "alzheimers-effects", Evidence: neuroscreen.PublishedEffects, LikelihoodRatio: ptr(11.2), CI95: ptr([2]float64{4.1, 30.6}), Flag: neuroscreen.FlagNone,
					Explanation: neuroscreen.Explanation{Reasons: []string{"Left amygdala 1.9 SD below peers: likelihood ratio 4.2."}, Uncertain: []string{"Nobody was measured for these effects."}}},
				{Condition: neuroscreen.Parkinsons, Model: "parkinsons", Evidence: neuroscreen.Experimental, LikelihoodRatio: ptr(0.81), CI95: ptr([2]float64{0.5, 1.3}),
					Prior: ptr(0.025), Posterior: ptr(0.0203), Flag: neuroscreen.FlagNone},
				{Condition: neuroscreen.MesialTemporalSclerosis, Model: "mesial-temporal-sclerosis", Evidence: neuroscreen.PublishedEffects, Flag: neuroscreen.FlagNone,
					Abstained: ptr("both hippocampi are small, which the asymmetry cannot judge <b>")},
			},
		},
		Metadata: neuroscreen.Metadata{AgeYears: ptr(74.0), Sex: neuroscreen.Female, ScanDate: "2026-03-14", Manufacturer: "Siemens", Scanner: "Prisma", FieldStrengthT: ptr(3.0)},
		Created:  time.Date(2026, 3, 14, 9, 26, 53, 0, time.UTC),
		Reading: Reading{Curves: []Curve{
			curve("Left-Hippocampus", 4100, -9, 560), curve("Right-Hippocampus", 4200, -9, 590),
			curve("Left-Lateral-Ventricle", 6000, 190, 5200), curve("Right-Lateral-Ventricle", 5600, 170, 5000), curve("Left-Nothing", 1, 1, 1),
		},
			Norms: []string{"An invented cohort of 6,909 healthy adults."},
			Scores: []ScoreInWords{{Model: "alzheimers-scan", Features: []string{"Left hippocampus 2.5 SD below peers: likelihood ratio 3.7.", "Right hippocampus 2.0 SD below peers: likelihood ratio 2.6."},
				Cohort: "An invented cohort of 188 people aged 60 and over.", Performance: "AUC .79.", Limits: "Not for people under 60."}},
		},
	}
}

func render(t *testing.T, p Page) string {
	t.Helper()
	var b bytes.Buffer
	if err := HTML(&b, p); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// golden compares with a file under testdata, or writes it with -update.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		at := 0
		for at < min(len(got), len(want)) && got[at] == want[at] {
			at++
		}
		t.Errorf("%s differs at byte %d: %q, want %q; run with -update if that is right", name, at,
			got[at:min(at+80, len(got))], want[at:min(at+80, len(want))])
	}
}

func TestPageGolden(t *testing.T) {
	golden(t, "report.html", []byte(render(t, samplePage())))
}

func TestPageSays(t *testing.T) {
	page := samplePage()
	page.Preview = []byte("png")
	html := render(t, page)
	for _, want := range []string{
		"Pattern seen in Alzheimer&#39;s disease: <span class=\"verdict\">Flagged for a physician&#39;s review</span>",
		"6.4 times as frequent in people with the condition",
		"from 2.9 to 14.",
		"If 5.0 % of the people who are scanned have the condition (the prior), 25 % of those with measurements like these do.",
		"<h3>Alzheimer&#39;s disease, model alzheimers-effects (beside it: sets no flag)</h3>\n<p>Likelihood ratio 11 (95 % 4.1 to 31). ln: intercept 0.00",
		"Left hippocampus 2.5 SD below peers: likelihood ratio 3.7. Right hippocampus 2.0 SD below peers: likelihood ratio 2.6.</p>",
		"At an error rate of 10 %, the volumes fit people with the condition only. Not validated on this program&#39;s volumes.",
		"Counted on an invented cohort.", "the error rate may be higher than stated",
		"The flag would be “worth a second look” if the left hippocampus were 0.3 SD larger.",
		"Left hippocampus is measured to ±0.6 SD (95 %). Within the interval the flag goes from “worth a second look” to “flagged”.",
		"It does not tell one dementia from another.",
		"1.2 times as frequent in people without the condition",
		"includes 1",
		"This cannot exclude the condition.",
		"No score",
		"Both hippocampi are small, which the asymmetry cannot judge &lt;b&gt;.",
		"Noise is 48 % of the contrast",
		"&lt;1<span", "An invented cohort of 188", "An invented cohort of 6,909",
		strings.Repeat("0a", 32), strings.Repeat("1b", 8), strings.Repeat("2c", 8), strings.Repeat("3d", 8),
		"Reviewed by",
		"data:image/png;base64,cG5n",
		"1\u202f421 ml",
		"Hippocampus, left",
		"−2.5",
		"2\u202f671 ± 56",
	} {
		if !strings.Contains(html, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	if strings.Count(html, "<svg") != 4 {
		t.Errorf("%d curves, want 4", strings.Count(html, "<svg"))
	}
}

func TestInWords(t *testing.T) {
	p := samplePage()
	scores := p.Result.Scores
	scores[0].Explanation.Features = scores[0].Explanation.Reasons[:2]
	said := InWords(scores)
	if s := said[0]; !slices.Equal(s.Features, scores[0].Explanation.Reasons[:2]) || s.Short.Text == "" || !strings.HasPrefix(s.Text, s.Short.Text+" ") {
		t.Errorf("%+v", s)
	}
	if s := said[1]; s.Headline != "" || !strings.HasPrefix(s.Title, "Beside it") {
		t.Errorf("the second of a condition decides: %+v", s)
	}
	if s := said[3]; s.Features == nil || len(s.Features) > 0 || s.Short.Text != "" {
		t.Errorf("abstained: %+v", s)
	}

	const sum = "Together, starting from 0.67"
	if strings.Contains(render(t, p), sum) {
		t.Error("what sums up is among what a score rests on")
	}
	p.Reading.Scores[0].Features = nil // as before they were kept
	if !strings.Contains(render(t, p), sum) {
		t.Error("the reasons of an older reading are lost")
	}
}

// The report supports a physician; it never claims to settle what a patient
// has, whatever the result.
func TestWording(t *testing.T) {
	pages := map[string]Page{"flagged": samplePage()}
	all := samplePage()
	for n := range all.Result.Scores {
		s := &all.Result.Scores[n]
		s.Flag, s.Abstained, s.Prior, s.Posterior = neuroscreen.FlagReview, nil, nil, nil
		s.LikelihoodRatio = ptr(1.0)
	}
	pages["all for review, no prior"] = all
	none := samplePage()
	none.Result.Scores = nil
	none.Result.QC = neuroscreen.QC{Verdict: neuroscreen.VerdictPass, Reasons: []neuroscreen.Reason{}}
	pages["no scores"] = none
	for name, p := range pages {
		html := strings.ToLower(render(t, p))
		for _, never := range []string{"diagnos", "the patient has", "suffers", "confirms", "rules out", "abnormal", "http://", "https://", "<script", "nan", "&lt;nil"} {
			if at := strings.Index(html, never); at >= 0 {
				t.Errorf("%s: the page says %q: %q", name, never, html[max(0, at-40):at+40])
			}
		}
	}
	if html := render(t, all); strings.Contains(html, "(the prior)") || !strings.Contains(html, "No probability is given") {
		t.Error("without a prior there must be no probability")
	}
}

// What a result may leave out must not break its page.
func TestPageOfASparseResult(t *testing.T) {
	var r neuroscreen.Result
	if err := json.Unmarshal([]byte(`{"schema":"neuroscreen.result/1","volumes":[{"structure":"Left-Hippocampus","mm3":3000},{"structure":"ctx-lh-entorhinal","mm3":1800}],
		"scores":[{"condition":"alzheimers","flag":"none"}],"indices":[{"name":"some_new_index","value":1}]}`), &r); err != nil {
		t.Fatal(err)
	}
	html := render(t, Page{Result: &r, Reading: Reading{Curves: []Curve{{Structure: "Left-Hippocampus"}}}})
	for _, want := range []string{"Not flagged", "no reference", "Some new index", "ctx lh entorhinal"} {
		if !strings.Contains(strings.ToLower(html), strings.ToLower(want)) {
			t.Errorf("the page does not say %q", want)
		}
	}
}

func TestOutliersComeFirst(t *testing.T) {
	both, singles := pairs(samplePage().Result.Volumes, nil)
	var names []string
	for _, p := range both {
		names = append(names, p.Name)
	}
	if got, want := strings.Join(names, ", "), "Hippocampus, Amygdala, Lateral ventricle, Cerebral cortex, Thalamus"; got != want {
		t.Errorf("pairs in the order %s, want %s", got, want)
	}
	if singles[len(singles)-1].Structure != "CSF" {
		t.Errorf("%s is last, want what has no reference", singles[len(singles)-1].Structure)
	}
}

func TestNumbers(t *testing.T) {
	for _, test := range []struct{ got, want string }{
		{percent(0.0203), "2.0 %"},
		{percent(0.25232), "25 %"},
		{percent(0.991), "99.1 %"},
		{signed(-2.49, 1), "−2.5"},
		{signed(-0.04, 1), "0.0"},
		{signed(-10, 0), "−10"},
		{zscore(0.04), "0.0"},
		{zscore(0.06), "+0.1"},
		{sentence("no head size"), "No head size."},
		{axisNumber(1.5, 0.5), "1.5"},
		{axisNumber(40, 20), "40"},
	} {
		if test.got != test.want {
			t.Errorf("got %q, want %q", test.got, test.want)
		}
	}
}

// TestPageNumbersAreTheResults reads the page's table of all volumes back and
// compares it with the result document: as exact as it is printed, and every
// volume is there.
func TestPageNumbersAreTheResults(t *testing.T) {
	p := samplePage()
	html := render(t, p)
	_, method, _ := strings.Cut(html, `<section class="method">`)
	rows := regexp.MustCompile(`(?s)<tr><td>([^<]+)</td>(.*?)</tr>`).FindAllStringSubmatch(method[:strings.Index(method, "How the scores")], -1)
	cell := regexp.MustCompile(`(?s)<td class="r">(\S+) ± (\S+)<small>(?:(\S+) \((\S+?)–(\S+?)\)|no reference)</small></td>\s*<td>(\S+?)</td><td[^>]*>([^<]+)(?:<small>(\S+) to (\S+)</small>)?</td>\s*<td[^>]*>([^<]+)(?:<span class="tag">(\w+)</span>)?</td>`)
	number := func(s string) float64 {
		v, err := strconv.ParseFloat(strings.NewReplacer("\u202f", "", "−", "-", "&#43;", "").Replace(s), 64)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	found := 0
	for _, row := range rows {
		for n, c := range cell.FindAllStringSubmatch(row[2], -1) {
			at := slices.IndexFunc(p.Result.Volumes, func(v neuroscreen.Volume) bool {
				name := words.Structure(v.Structure)
				return name == row[1] || name == []string{"Left ", "Right "}[n]+strings.ToLower(row[1][:1])+row[1][1:]
			})
			if at < 0 {
				t.Fatalf("%q is none of the result's", row[1])
			}
			found++
			v := p.Result.Volumes[at]
			same := func(what, got string, want *float64, half float64) {
				if want == nil {
					if got != "" && got != "–" {
						t.Errorf("%s, %s: %q, and the result has none", v.Structure, what, got)
					}
				} else if d := math.Abs(number(got) - *want); d > half*1.0001 {
					t.Errorf("%s, %s: %s, the result has %g", v.Structure, what, got, *want)
				}
			}
			same("volume", c[1], &v.MM3, 0.5)
			same("standard error", c[2], &v.StandardErrorMM, 0.5)
			same("expected", c[3], v.ExpectedMM3, 0.5)
			same("5th percentile", c[4], v.P5MM3, 0.5)
			same("95th percentile", c[5], v.P95MM3, 0.5)
			same("per cent of the head", c[6], v.PercentICV, 0.005)
			same("z", c[7], v.Z, 0.05)
			if v.ZCI95 != nil {
				same("z from", c[8], &v.ZCI95[0], 0.05)
				same("z to", c[9], &v.ZCI95[1], 0.05)
			}
			if c[10] != "&lt;1" && c[10] != "&gt;99" {
				same("percentile", c[10], v.Percentile, 0.5)
			}
			if c[11] != v.Outlying() {
				t.Errorf("%s is marked %q", v.Structure, c[11])
			}
		}
	}
	if found != len(p.Result.Volumes) {
		t.Errorf("%d of %d volumes", found, len(p.Result.Volumes))
	}
	for _, s := range p.Result.Scores {
		if s.LikelihoodRatio == nil {
			continue
		}
		want := fmt.Sprintf("Likelihood ratio %s (95 %% %s to %s)", words.Ratio(*s.LikelihoodRatio), words.Bound(s.CI95[0]), words.Bound(s.CI95[1]))
		if s.Posterior != nil {
			want += fmt.Sprintf(", prior %s, posterior %s. ln: intercept %s", percent(*s.Prior), percent(*s.Posterior), signed(s.Intercept, 2))
		}
		if !strings.Contains(method, want) {
			t.Errorf("the scores lack %q", want)
		}
	}
}
