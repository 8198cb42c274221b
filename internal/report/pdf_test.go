package report

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"golang.org/x/image/font/gofont/gobold"
	"golang.org/x/image/font/gofont/goregular"

	"neuroscreen"
	"neuroscreen/internal/words"
)

func renderPDF(t *testing.T, p Page) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := PDF(&b, p); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// sheetTexts reads the text of each sheet back with poppler, as a reader's
// selection would.
func sheetTexts(t *testing.T, doc []byte) []string {
	t.Helper()
	cmd := exec.Command("pdftotext", "-", "-")
	cmd.Stdin = bytes.NewReader(doc)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: scripts/setup.sh pdf installs poppler-utils, and make test does it first of all", err)
	}
	return strings.Split(strings.TrimSuffix(string(out), "\f"), "\f")
}

func withPicture(t *testing.T, p Page) Page {
	t.Helper()
	var err error
	if p.Preview, err = os.ReadFile(filepath.Join("testdata", "preview.png")); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPDFGolden(t *testing.T) {
	p := withPicture(t, samplePage())
	doc := renderPDF(t, p)
	if !bytes.Equal(doc, renderPDF(t, p)) {
		t.Error("the same page gives other bytes")
	}
	golden(t, "report.pdf.txt", []byte(strings.Join(sheetTexts(t, doc), "\n--- next sheet ---\n")))
	if dir := os.Getenv("NEUROSCREEN_SHOTS"); dir != "" { // for people to look at
		if err := os.WriteFile(filepath.Join(dir, "sample.pdf"), doc, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPDFSaysWhatThePageSays: no number or word of the findings is in one and
// not in the other.
func TestPDFSaysWhatThePageSays(t *testing.T) {
	p := samplePage()
	p.Review = &Review{Decision: "amend", By: "Dr. Reader", At: time.Date(2026, 3, 15, 8, 0, 0, 0, time.UTC), Comment: "Left label too large", Excluded: []string{"Left-Hippocampus"}}
	flat := func(s string) string {
		return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == ' ' || r == '\n' || r == '\u00a0' || r == '\u202f' }), "")
	}
	text := flat(strings.Join(sheetTexts(t, renderPDF(t, p)), " "))
	v := view(p)
	var want []string
	for _, s := range v.Scores {
		want = append(want, s.Title, s.Headline, s.Text, s.Reasons, s.Set, s.LeftOut, s.Evidence, s.Use)
	}
	for _, m := range v.Methods {
		want = append(want, m.Name, m.Text)
		for _, f := range append(m.Terms, m.Notes...) {
			want = append(want, f.Name, f.Value)
		}
	}
	want = append(want, notValidated, "left out")
	for _, f := range slices.Concat(v.Facts, v.Metrics, v.Assets) {
		want = append(want, f.Name, f.Value)
	}
	for _, i := range v.Indices {
		want = append(want, i.Name, i.Value, i.Reference)
	}
	for _, vol := range p.Result.Volumes {
		want = append(want, words.Grouped(vol.MM3, 0), optional(vol.Percentile, words.Percentile))
		if !slices.Contains(p.Review.Excluded, vol.Structure) {
			want = append(want, optional(vol.ExpectedMM3, whole))
		}
	}
	want = append(want, v.Decision.Headline, v.Decision.Text, v.IntendedUse, p.Result.Input.SHA256, p.Result.ScanID, p.Reading.Norms[0])
	want = append(want, v.Quality...)
	for _, a := range v.Amended {
		want = append(want, a.Headline, a.Text)
	}
	for _, w := range want {
		if !strings.Contains(text, flat(w)) && w != "–" {
			t.Errorf("the sheets do not say %q", w)
		}
	}
	html := render(t, p)
	for _, w := range []string{"Amended by Dr. Reader, 2026-03-15 08:00 UTC.", "“Left label too large”", "Rests on what the reviewer left out: Hippocampus, left.", `gone">2` + "\u202f" + `671 ± 56<small>left out`} {
		if !strings.Contains(html, w) {
			t.Errorf("the page does not say %q", w)
		}
	}
}

// TestPDFIsTwoSheets, however much has to be said.
func TestPDFIsTwoSheets(t *testing.T) {
	long := withPicture(t, samplePage())
	long.Review = &Review{Decision: "reject", By: "Dr. Reader", Comment: strings.Repeat("The labels lie beside the anatomy. ", 50)}
	for range 4 {
		long.Result.QC.Reasons = append(long.Result.QC.Reasons, long.Result.QC.Reasons...)
	}
	for range 3 {
		for n := range long.Result.Scores {
			e := &long.Result.Scores[n].Explanation
			e.Uncertain = append(e.Uncertain, "Something else that has to be said of this score takes about as much room as this sentence.", "And so does this.")
		}
	}
	var sparse neuroscreen.Result
	for name, p := range map[string]Page{"sample": withPicture(t, samplePage()), "long": long, "sparse": {Result: &sparse}, "no picture": samplePage()} {
		for _, p.Paper = range []Paper{A4, Letter} {
			doc := renderPDF(t, p)
			if n := len(sheetTexts(t, doc)); n != 2 {
				t.Errorf("%s on %s: %d sheets", name, p.Paper.Name, n)
			}
			if box := fmt.Sprintf("/MediaBox [0 0 %.2f %.2f]", p.Paper.Width/25.4*72, p.Paper.Height/25.4*72); !bytes.Contains(doc, []byte(box)) {
				t.Errorf("%s on %s: the sheet is not %s", name, p.Paper.Name, box)
			}
			// Nothing runs into the foot.
			v := view(p)
			d := newSheets(v.Page, pageTitle, fit(v))
			if !d.result(v) || !d.method(v) {
				t.Errorf("%s on %s: does not fit", name, p.Paper.Name)
			}
			if html := render(t, p); !strings.Contains(html, "@page { size: "+p.Paper.Name+";") {
				t.Errorf("%s: the page prints on other paper than %s", name, p.Paper.Name)
			}
		}
	}
	if text := sheetTexts(t, renderPDF(t, long))[0]; !strings.Contains(text, "REJECTED") || !strings.Contains(text, "must not be used") {
		t.Error("a rejected result does not say so")
	}
}

// TestPDFEscapesNothing: text is text, whatever it looks like.
func TestPDFEscapesNothing(t *testing.T) {
	p := samplePage()
	p.Result.SubjectID = `S (1) \ <b> ä`
	if text := sheetTexts(t, renderPDF(t, p))[0]; !strings.Contains(text, p.Result.SubjectID) {
		t.Errorf("%.300q lacks the subject", text)
	}
}

// TestPDFOfEveryScript: what the fonts lack neither keeps a rejection from its
// reader nor runs off the sheet, and the foot says that it is missing.
func TestPDFOfEveryScript(t *testing.T) {
	const lost = "Some characters cannot be printed here; the page shows them."
	for name, tt := range map[string]struct {
		by, comment, says string
		lost              bool
	}{
		"beyond the basic plane": {"𠮷田 😀", "left 𠮷😀 right", "“left ?? right”", true},
		"Chinese":                {"Dr. 陈", strings.Repeat("标", 2000), strings.Repeat("?", 20), true},
		"Hebrew and Arabic":      {"Dr. כהן", "حسن", "“???”", true},
		"no characters":          {"Dr. \uffff", "a\U0010ffffb", "“a?b”", true},
		"one long word":          {"Dr. Reader", strings.Repeat("a", 2000), strings.Repeat("a", 20), false},
		"spaces":                 {"Dr. Reader", "one\u202ftwo\u3000three\nfour", "“one two three four”", false},
		"European":               {"Dr. Łukasz Černý", "Größe – Σ, Ж", "“Größe – Σ, Ж”", false},
	} {
		t.Run(name, func(t *testing.T) {
			p := withPicture(t, samplePage())
			p.Review = &Review{Decision: "reject", By: tt.by, Comment: tt.comment}
			sheets := sheetTexts(t, renderPDF(t, p))
			for _, want := range []string{"REJECTED", "must not be used", tt.says} {
				if !strings.Contains(sheets[0], want) {
					t.Errorf("the sheet does not say %q: %.600s", want, sheets[0])
				}
			}
			for _, line := range strings.Split(sheets[0], "\n") {
				if n := len([]rune(line)); n > 300 {
					t.Errorf("%d characters in one line", n)
				}
			}
			if strings.Contains(sheets[0], lost) != tt.lost || strings.Contains(sheets[1], lost) {
				t.Errorf("what is lost stands where it should not, or not where it should: %v", tt.lost)
			}
			if !strings.Contains(render(t, p), tt.comment) {
				t.Error("the page lacks some of the comment")
			}
		})
	}
	regular, bold := parsed(goregular.TTF), parsed(gobold.TTF)
	for r := range rune(unicode.MaxRune) {
		a, _ := regular.GlyphIndex(nil, r)
		b, _ := bold.GlyphIndex(nil, r)
		if (a == 0) != (b == 0) {
			t.Fatalf("one of the fonts lacks %q", r)
		}
	}
}

// TestLegibleInGrey: text stands out from paper without its colour, and every
// flag has a shape of its own.
func TestLegibleInGrey(t *testing.T) {
	luminance := func(c tone) (l float64) { // WCAG 2.2
		for n, weight := range []float64{0.2126, 0.7152, 0.0722} {
			v := float64(c[n]) / 255
			if v <= 0.04045 {
				v /= 12.92
			} else {
				v = math.Pow((v+0.055)/1.055, 2.4)
			}
			l += weight * v
		}
		return l
	}
	for name, c := range map[string]tone{"black": black, "dim": dim, "mark": mark, "note": note} {
		if contrast := 1.05 / (luminance(c) + 0.05); contrast < 4.5 {
			t.Errorf("%s has a contrast of %.1f to paper", name, contrast)
		}
	}
	p := samplePage()
	p.Result.Scores[2].Flag = neuroscreen.FlagReview
	html := render(t, p)
	for _, want := range []string{`score flagged`, `score review`, `score none`, `.score.review { border-left-style: double`, `.score.flagged { border-color: var(--mark); border-left-width: 6px`, `<span class="tag">low</span>`, `<span class="tag">high</span>`} {
		if !strings.Contains(html, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
}

// TestAmended: a result that was scored without a structure says so, who left
// it out and why; the one before says what took its place.
func TestAmended(t *testing.T) {
	p := samplePage()
	r := p.Result
	r.Amendment = &neuroscreen.Amendment{FromVersion: 1, LeftOut: []neuroscreen.LeftOut{{Structure: "Left-Hippocampus", Decision: 1}}}
	v := &r.Volumes[0]
	v.Z, v.ZCI95, v.Percentile, v.LeftOut = nil, nil, nil, true
	r.Scores[0] = neuroscreen.Score{Condition: neuroscreen.Alzheimers, Model: "alzheimers-scan", Evidence: neuroscreen.ExternalCohort, Flag: neuroscreen.FlagNone,
		Abstained: ptr("a reviewer left out the left hippocampus, which this pattern is scored from"), AbstainedType: neuroscreen.StructureExcluded, Without: []string{"Left-Hippocampus"}}
	r.Scores[1].Without = []string{"Left-Hippocampus"}
	p.Version, p.Preview = 2, withPicture(t, p).Preview
	p.LeftOut = []LeftOut{{Structures: []string{"Left-Hippocampus"}, By: "Dr. Reader", At: time.Date(2026, 3, 15, 8, 0, 0, 0, time.UTC), Comment: "runs into the horn"}}
	before := samplePage()
	before.Version, before.Stands = 1, 2
	before.Review = &Review{Decision: "amend", By: "Dr. Reader", At: p.LeftOut[0].At, Comment: "runs into the horn", Excluded: []string{"Left-Hippocampus"}, Made: 2}
	for _, tt := range []struct {
		page     Page
		yes, not []string
	}{
		{p, []string{"Left out by Dr. Reader, 2026-03-15 08:00 UTC:", "Hippocampus, left. “runs into the horn” Shown and used for nothing; scored anew from the volumes of version 1.", "Not reviewed.",
			"A reviewer left out the left hippocampus, which this pattern is scored from.", "What was left out is outlined too.", "Made without Hippocampus, left, which a reviewer left out.", "Of 11 volumes with a reference"},
			[]string{"Rests on what the reviewer left out", "−3.1 to −1.9"}},
		{before, []string{"Amended by Dr. Reader, 2026-03-15 08:00 UTC.", "Version 2 has taken its place. Not to be used: Hippocampus, left. Version 2 was scored without.", "Rests on what the reviewer left out: Hippocampus, left."},
			[]string{"Left out by", "outlined too"}},
	} {
		pdf := renderPDF(t, tt.page)
		if dir := os.Getenv("NEUROSCREEN_SHOTS"); dir != "" {
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("amended-%d.pdf", tt.page.Version)), pdf, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		doc := strings.Join(strings.Fields(strings.Join(sheetTexts(t, pdf), " ")), " ")
		for name, text := range map[string]string{"page": render(t, tt.page), "PDF": doc} {
			for _, w := range tt.yes {
				if !strings.Contains(text, w) {
					t.Errorf("the %s does not say %q", name, w)
				}
			}
			for _, w := range tt.not {
				if strings.Contains(text, w) {
					t.Errorf("the %s says %q", name, w)
				}
			}
		}
	}
}
