package web_test

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp"

	"neuroscreen"
	"neuroscreen/internal/client"
	"neuroscreen/internal/fmri"
	"neuroscreen/internal/fmri/fmritest"
	"neuroscreen/internal/volume"
)

// boldRun is a run of a head of the project: it moves a little, jumps once, and
// both halves of the brain fluctuate slowly.
func boldRun(t *testing.T) []byte {
	t.Helper()
	const frames = 190
	head := fmritest.Head(t)
	still := fmritest.Acquire(head, fmritest.Grid(head, 4))
	rng := rand.New(rand.NewPCG(3, 5))
	return fmritest.Run(t, still, frames, 2, func(n int, v []float32) {
		var m fmri.Motion
		for a := range 3 {
			m.MM[a], m.Rad[a] = 0.08*rng.Float64(), 0.05*rng.Float64()*math.Pi/180
		}
		if n >= 120 {
			m.MM[2] += 1
		}
		moved := volume.Grid{Shape: still.Shape, Affine: m.Affine(still.Centre()).Inverse().Mul(still.Affine)}
		volume.ResampleInto(v, moved, still.Data, still.Grid, volume.Options{})
		for at := range v {
			j := at / still.Shape[0] % still.Shape[1]
			cycles := 9.0
			if j > still.Shape[1]/2 {
				cycles = 14
			}
			v[at] *= 1 + 0.008*float32(math.Sin(2*math.Pi*cycles*float64(n)/frames))
			if n < 2 {
				v[at] *= 1.2
			}
		}
	})
}

// TestRun: a BOLD run from its posting to page, viewer and report.
func TestRun(t *testing.T) {
	url, key := startService(t)
	api := newAPI(t, url, key)
	age := 45.0
	scan, _, err := api.Submit(t.Context(), client.Upload{Scan: bytes.NewReader(boldRun(t)), Name: "run.nii.gz",
		Metadata: neuroscreen.Metadata{SubjectID: "SYNTHETIC-REST", AgeYears: &age, Sex: neuroscreen.Male, Modality: neuroscreen.BOLD}})
	if err != nil {
		t.Fatal(err)
	}
	b := newBrowser(t, url)
	b.do(chromedp.Navigate(url))
	b.signIn(key)
	if end := api.wait(t, scan); end.State != neuroscreen.Scored {
		t.Fatalf("%s: %v", end.State, end.Reasons)
	}
	b.waitText(".cases tbody", "Functional run, no score")
	b.open(scan.ID)
	b.checkPicture()
	b.waitText(".where", "Left hippocampus")
	for _, says := range []string{"Motion and quality", "Mean movement of the head (FD)", "Outlier frames", "Degrees of freedom left", "Networks", "there are no reference values"} {
		b.waitText(".verdicts", says)
	}
	b.waitText(".case-head", "188 frames of 2 s, 6.3 min")
	b.wait("all pictures", "[...document.querySelectorAll('.drawn img')].map(i => (i.loading = 'eager', i)).every(i => i.complete && i.naturalWidth > 500) && document.querySelectorAll('.drawn img').length === 3")
	b.axe("run")

	// A map instead of the labels, chosen by keys alone.
	labels := b.picture()
	b.do(chromedp.Evaluate[chromedp.Void]("document.querySelector('#layer').focus()"))
	b.keys("f") // fALFF
	b.wait("the map", "document.querySelector('#layer').dataset.shown === 'falff'")
	b.waitText(".where", "fALFF")
	if n := different(labels, b.picture()); n < 2000 {
		t.Errorf("the map changes %d pixels", n)
	}
	for _, width := range []int64{1280, 1920} {
		b.shotAt(width, "run-1-first", "#main")
		b.shotAt(width, "run-2-over-time", ".over-time")
		b.shotAt(width, "run-3-networks", ".networks")
		b.shotAt(width, "run-4-structures", ".signal")
		b.shotAt(width, "run-5-rest", ".files")
	}
	b.do(chromedp.Evaluate[chromedp.Void]("document.querySelector('#layer').value = ''; document.querySelector('#layer').dispatchEvent(new Event('change'))"))
	b.wait("the labels", "document.querySelector('#layer').dataset.shown === ''")
	b.click(`.signal button[aria-label^="Right thalamus"]`)
	b.waitText(".where", "Right thalamus")

	// What the links lead to.
	for name, least := range map[string]int{"run/carpet.png": 20_000, "run/connectome.png": 10_000, "run/maps.png": 50_000, "run/mean.nii.gz": 20_000, "run/alff.nii.gz": 20_000, "run/falff.nii.gz": 20_000, "run/reho.nii.gz": 20_000, "report.html": 100_000, "report.pdf": 100_000} {
		path := fmt.Sprintf("/v1/scans/%s/%s", scan.ID, name)
		if !eval[bool](b, fmt.Sprintf("!!document.querySelector('a[href=%q]')", path)) {
			t.Errorf("no link to %s", name)
		}
		if n := eval[int](b, fmt.Sprintf("fetch(%q).then(r => r.ok ? r.arrayBuffer() : Promise.reject(new Error(r.status))).then(a => a.byteLength)", path)); n < least || n > 2<<20 {
			t.Errorf("%s has %d bytes", name, n)
		}
	}
	b.checkRunReport(fmt.Sprintf("%s/v1/scans/%s/report.html", url, scan.ID))
}

// checkRunReport: the page draws its figures under its policy, and prints on
// two sheets.
func (b *browser) checkRunReport(url string) {
	b.Helper()
	w := openWindow(b.T, b.ctx, url)
	w.do(chromedp.Navigate(url))
	w.waitText("body", "Functional MRI run")
	w.axe("report of a run")
	if n := eval[int](w, "document.querySelectorAll('svg.carpet image, svg.matrix path, figure img').length"); n < 20 {
		b.Errorf("%d parts of figures", n)
	}
	printed, err := chromedp.Run(w.ctx, chromedp.PrintToPDF(chromedp.PDFPreferCSSPageSize(), chromedp.PDFPrintBackground()))
	if err != nil {
		b.Fatal(err)
	}
	if n := len(sheet.FindAll(printed, -1)); n != 2 {
		b.Errorf("%s prints on %d sheets", url, n)
	}
	if dir := os.Getenv("NEUROSCREEN_SHOTS"); dir != "" {
		if err := os.WriteFile(filepath.Join(dir, "printed-run.pdf"), printed, 0o644); err != nil {
			b.Error(err)
		}
	}
}
