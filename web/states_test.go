package web_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/png"
	"io"
	"log"
	"math"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"neuroscreen"
	"neuroscreen/internal/client"
	"neuroscreen/internal/config"
	"neuroscreen/internal/jobs"
	"neuroscreen/internal/login/logintest"
	"neuroscreen/internal/model"
	"neuroscreen/internal/nifti"
	"neuroscreen/internal/report"
	"neuroscreen/internal/service"
	"neuroscreen/internal/store"
)

// The tests here show cases that no sample scan leads to. Their results are
// made up; the service, its database and the browser are real.

func ptr[T any](v T) *T { return &v }

// invented makes results of the posted age, in the way of a real analysis.
type invented struct {
	t      *testing.T
	hold   chan struct{}                                         // a scan of the scanner "Slow" waits for it after it was checked
	volume func(structure string, age float64) (mm3, se float64) // of the hippocampi
	grid   *nifti.Geometry                                       // of scan and labels; nil for smallGrid
}

func (v invented) use(_ *config.Server, p *service.Parts) { p.Analyse = v.analyse }

func (v invented) analyse(ctx context.Context, in jobs.Input) (jobs.Output, error) {
	if in.Metadata.Scanner == "Broken" {
		return jobs.Output{}, errors.New("a fault of this test")
	}
	if err := in.Stage(ctx, neuroscreen.Checked); err != nil {
		return jobs.Output{}, err
	}
	if in.Metadata.Scanner == "Slow" {
		select {
		case <-v.hold:
		case <-ctx.Done():
			return jobs.Output{}, ctx.Err()
		}
	}
	for _, s := range []neuroscreen.State{neuroscreen.Segmented, neuroscreen.Measured} {
		if err := in.Stage(ctx, s); err != nil {
			return jobs.Output{}, err
		}
	}
	r := &neuroscreen.Result{Schema: neuroscreen.ResultSchema, ScanID: in.ScanID.String(), SubjectID: in.Metadata.SubjectID, Modality: in.Metadata.Modality,
		Input:    neuroscreen.Input{SHA256: in.SHA256, Shape: smallGrid.Shape, VoxelMM: [3]float64{1, 1, 1}, Orientation: "RAS", DType: "int16"},
		Software: neuroscreen.Software{Version: "test", Kernel: "generic", Network: neuroscreen.Asset{Name: "default.weights", SHA256: strings.Repeat("1b", 32)}},
		QC:       neuroscreen.QC{Verdict: neuroscreen.VerdictPass, Metrics: map[string]float64{"cnr": 3}}, IntracranialVolumeMM3: ptr(1.4e6)}
	reading := report.Reading{Schema: report.ReadingSchema, Structures: report.Structures(), Norms: []string{"A cohort of this test."}}
	labels := make([]uint8, 40*40*40)
	for n, structure := range []string{"Left-Hippocampus", "Right-Hippocampus"} {
		mm3, se := v.volume(structure, *in.Metadata.AgeYears)
		z := (mm3 - 3400) / 300
		r.Volumes = append(r.Volumes, neuroscreen.Volume{Structure: structure, Label: []int{17, 53}[n], MM3: mm3, StandardErrorMM: se, PercentICV: ptr(mm3 / 14000),
			ExpectedMM3: ptr(3400.0), P5MM3: ptr(2900.0), P95MM3: ptr(3900.0), Z: &z, ZCI95: &[2]float64{z - 0.5, z + 0.5}, Percentile: ptr(50 * math.Erfc(-z/math.Sqrt2))})
		c := report.Curve{Structure: structure}
		for age := 20.0; age <= 100; age += 10 {
			c.Points = append(c.Points, report.CurvePoint{AgeYears: age, P5: 2900, P50: 3400, P95: 3900})
		}
		reading.Curves = append(reading.Curves, c)
		for i := range 1000 {
			labels[(10+20*n)+40*(i/40+8)+1600*20] = uint8(r.Volumes[n].Label)
		}
	}
	left := r.Volumes[0]
	flag := neuroscreen.FlagNone
	if *left.Z < -1.64 {
		flag = neuroscreen.FlagFlagged
	}
	r.Scores = []neuroscreen.Score{{Condition: neuroscreen.Alzheimers, Model: "alzheimers-scan", Evidence: neuroscreen.ExternalCohort, LikelihoodRatio: ptr(math.E), CI95: &[2]float64{1.5, 5},
		Prior: ptr(0.05), Posterior: ptr(0.125), Flag: flag, Contributions: []neuroscreen.Contribution{{Feature: left.Structure, Value: left.MM3, Z: left.Z, LogLR: 1}}, IntendedUse: neuroscreen.IntendedUse,
		Conformal:   &neuroscreen.ConformalSet{ErrorRate: 0.1, Set: "both", Text: "At an error rate of 10 % the volumes fit cases and controls alike."},
		Explanation: neuroscreen.Explanation{Features: []string{"Left hippocampus +-0.5 SD small: likelihood ratio 2.7."}, Reasons: []string{"Left hippocampus +-0.5 SD small: likelihood ratio 2.7.", "Together: likelihood ratio 2.7."}, WouldChange: []string{`The flag would be "none" if it were larger.`}, Uncertain: []string{"Measured to +-0.5 SD."}}}}
	reading.Scores = report.InWords(r.Scores)

	var segmentation, preview bytes.Buffer
	grid := smallGrid
	if v.grid != nil {
		grid = *v.grid
	}
	if err := nifti.Write(&segmentation, grid, labels); err != nil {
		return jobs.Output{}, err
	}
	if err := png.Encode(&preview, image.NewGray(image.Rect(0, 0, 300, 200))); err != nil {
		return jobs.Output{}, err
	}
	words, err := json.Marshal(reading)
	return jobs.Output{Result: r, Files: []jobs.File{
		{Kind: store.KindSegmentation, MediaType: "application/gzip", Bytes: segmentation.Bytes()},
		{Kind: store.KindPreview, MediaType: "image/png", Bytes: preview.Bytes()},
		{Kind: store.KindReading, MediaType: "application/json", Bytes: words}}}, err
}

func (b *browser) open(id fmt.Stringer) {
	b.Helper()
	b.do(chromedp.Evaluate[chromedp.Void](fmt.Sprintf("location.hash = '#/case/%s'", id)))
	b.wait("the picture", "location.hash.includes('"+id.String()+"') && document.querySelector('#viewer')?.dataset.ready === 'true'")
}

// TestVisits: what a person's scans say together is on each one's page, with
// the smallest change that could be told.
func TestVisits(t *testing.T) {
	url, key := startService(t, invented{t: t, volume: func(structure string, age float64) (float64, float64) {
		if structure == "Left-Hippocampus" && age > 72 {
			return 2600, 55
		}
		return 3400 - age, 50
	}}.use)
	api := newAPI(t, url, key)
	var scans []client.Scan
	for n, m := range []neuroscreen.Metadata{{AgeYears: ptr(70.0), ScanDate: "2020-03-01"}, {AgeYears: ptr(71.5), ScanDate: "2021-09-01"}, {AgeYears: ptr(73.0), ScanDate: "2023-03-01"}} {
		m.SubjectID, m.Scanner = "S-VISITS", "Prisma"
		scans = append(scans, api.wait(t, api.hand(t, smallImage(t, n), m)))
	}

	b := newBrowser(t, url)
	b.signIn(key)
	b.open(scans[2].ID)
	b.waitText("section.visits", "2023-03-01, this scan")
	// What sums up is in the details only, where flags are called as in the report.
	if got := b.text(".rests"); got != "Left hippocampus ±0.5 SD small: likelihood ratio 2.7." {
		t.Errorf("the flag rests on %q", got)
	}
	if got := eval[string](b, "document.querySelector('.verdict details').textContent"); !strings.Contains(got, "Together") || !strings.Contains(got, "“not flagged”") {
		t.Errorf("the details are %q", got)
	}
	b.axe("visits")
	b.shotAt(1280, "visits", "section.visits")
	b.shotAt(1920, "visits", "section.visits")
	for _, want := range []string{"2020-03-01 to 2023-03-01", "2021-09-01 to 2023-03-01", "2020-03-01 to 2021-09-01", "1 of 2 volumes changed measurably", "0 of 2 volumes changed measurably"} {
		if text := b.text("section.visits"); !strings.Contains(text, want) {
			t.Errorf("the visits lack %q: %s", want, text)
		}
	}
	// The earlier visits stand in both curves, besides this scan.
	if n := eval[int](b, "document.querySelectorAll('.curves .visit').length"); n != 4 {
		t.Errorf("%d other visits in the curves", n)
	}

	// The rows of the whole time are the service's numbers.
	tl, err := api.GetCaseTimelineWithResponse(t.Context(), scans[2].ID)
	if err != nil || tl.JSON200 == nil {
		t.Fatalf("%v %s", err, tl.Body)
	}
	seen := 0
	for _, c := range tl.JSON200.Changes {
		if c.From != scans[0].ID.String() || c.To != scans[2].ID.String() {
			continue
		}
		seen++
		name, verdict := "Left hippocampus", "smaller"
		if c.Structure == "Right-Hippocampus" {
			name, verdict = "Right hippocampus", "no measurable change"
		}
		want := fmt.Sprintf("%s %.0f %.1f ± %.0f", name, c.MM3, c.Percent, *c.Detectable)
		row := eval[string](b, fmt.Sprintf("[...document.querySelectorAll('section.visits section:first-of-type tbody tr')].map(r => [...r.cells].map(c => c.innerText).join(' ')).find(t => t.startsWith(%q)) ?? ''", name))
		if plain := strings.NewReplacer("−", "-", "\u202f", "").Replace(row); !strings.HasPrefix(plain, want) || !strings.Contains(plain, verdict) {
			t.Errorf("the page shows %q, the service says %q, %s", plain, want, verdict)
		}
	}
	if seen != 2 {
		t.Errorf("%d changes over the whole time", seen)
	}

	b.click("section.visits ol a")
	b.waitText("section.visits", "2020-03-01, this scan")
	if hash := eval[string](b, "location.hash"); hash != "#/case/"+scans[0].ID.String() {
		t.Errorf("at %s", hash)
	}
	b.checkNothingKept()
}

// TestOblique: in a head that lies tilted in the scanner, the viewer goes where
// the labels are, says where that is in the world, and moves along the picture.
func TestOblique(t *testing.T) {
	cos, sin := math.Cos(math.Pi/6), math.Sin(math.Pi/6)
	tilted := nifti.Geometry{Shape: smallGrid.Shape, Affine: nifti.Affine{{cos, -sin, 0, 20 * (sin - cos)}, {sin, cos, 0, -20 * (sin + cos)}, {0, 0, 1, -20}, {0, 0, 0, 1}}}
	url, key := startService(t, invented{t: t, grid: &tilted, volume: func(string, float64) (float64, float64) { return 3400, 40 }}.use)
	scan := newAPI(t, url, key).submit(t, "S-TILTED", imageOn(t, tilted, 0))

	b := newBrowser(t, url)
	b.signIn(key)
	b.open(scan.ID)
	// The labels lie 10 voxels left and right of the middle, which is the world's.
	const left = "L 8.7 P 5.0 S 0.0 mm Left hippocampus"
	b.waitWhere(left)
	b.keys("2")
	b.waitWhere("R 8.7 A 5.0 S 0.0 mm Right hippocampus")
	b.do(chromedp.Focus(chromedp.CSS("#viewer")))
	b.keys(kb.ArrowRight) // a voxel to the picture's left: cos, sin
	b.waitWhere("R 7.8 A 4.5 S 0.0 mm outside of the labels")
	b.keys("3") // back to where the viewer begins
	b.waitWhere(left)
}

// waitWhere until the crosshair is where these words say.
func (b *browser) waitWhere(words string) {
	b.Helper()
	b.wait(words, fmt.Sprintf("[...document.querySelectorAll('.where .mm, .where b')].map(e => e.innerText).join(' ').replace(/\\s+/g, ' ') === %q", words))
}

// TestRejectedBefore: a rejection is still before the reader's eyes when the
// scan was analysed again, until somebody decides on the new result.
func TestRejectedBefore(t *testing.T) {
	url, key := startService(t, invented{t: t, volume: func(string, float64) (float64, float64) { return 3400, 40 }}.use)
	api := newAPI(t, url, key)
	scan := api.submit(t, "S-REJECTED", smallImage(t, 0))
	decide := func(scan client.Scan, d client.Decision, comment string) {
		t.Helper()
		res, err := api.ReviewCaseWithResponse(t.Context(), scan.ID, client.NewReview{Decision: d, Run: scan.Run, Comment: &comment})
		if err != nil || res.StatusCode() != http.StatusCreated {
			t.Fatalf("%v %s", err, res.Body)
		}
	}
	again := func() client.Scan {
		t.Helper()
		res, err := api.RetryScanWithResponse(t.Context(), scan.ID)
		if err != nil || res.JSON202 == nil {
			t.Fatalf("%v %s", err, res.Body)
		}
		return api.wait(t, *res.JSON202)
	}
	b := newBrowser(t, url)
	b.signIn(key)
	show := func() {
		t.Helper()
		b.do(chromedp.Evaluate[chromedp.Void]("location.hash = '#/'"))
		b.waitText(".cases tbody", "S-REJECTED") // it waits again
		b.open(scan.ID)
	}

	decide(scan, "reject", "labels beside the anatomy")
	second := again()
	show()
	b.waitText(".banner[role=alert]", "An earlier result (version 1) was rejected by you: labels beside the anatomy")
	b.axe("an earlier rejection")

	decide(second, "accept", "fits now")
	again()
	show()
	b.waitText(".banner:not([role])", "An earlier result (version 2) was accepted by you: fits now")
}

// TestAmend: a structure that is left out makes a new version, which says so on
// the page and in the report and is to be decided on; it stays left out when the
// age is corrected, until it is taken back in. The analysis is the real one.
func TestAmend(t *testing.T) {
	url, key := startService(t)
	api := newAPI(t, url, key)
	head, err := os.ReadFile("../testdata/heads/atrophied_74F.nii.gz")
	if err != nil {
		t.Fatal(err)
	}
	scan := api.wait(t, api.hand(t, head, neuroscreen.Metadata{SubjectID: "S-AMEND", AgeYears: ptr(74.0)}))
	result := func() neuroscreen.Result {
		t.Helper()
		got, err := api.GetResultWithResponse(t.Context(), scan.ID, &client.GetResultParams{})
		if err != nil || got.JSON200 == nil {
			t.Fatalf("%v %s", err, got.Body)
		}
		return *got.JSON200
	}
	if first := result(); first.Scores[0].Flag != neuroscreen.FlagFlagged {
		t.Fatalf("the head is not flagged: %+v", first.Scores[0])
	}

	b := newBrowser(t, url)
	b.signIn(key)
	b.waitText(".cases tbody", "S-AMEND")
	b.keys("j", "e") // from the worklist, by keys
	b.wait("the question", "document.activeElement?.id === 'comment'")
	b.waitText("dialog .main", "Amend")
	b.axe("amending")
	b.keys("label runs into the horn")
	b.click(".boxes input[value=Left-Hippocampus]")
	b.waitText("dialog .main", "Amend and score anew")
	b.shot("20-amend-1280")
	b.click("dialog .main")
	b.waitText(".left-out", "Left out by you")
	b.waitText(".left-out", "scored anew from the volumes of version 1")
	b.waitText(".left-out", "label runs into the horn")
	b.waitText(".history", "Left out: Left hippocampus; scored anew as version 2")
	b.waitText(".verdicts", "A reviewer left out the left hippocampus, which this pattern is scored from.")
	b.waitText(".volumes .gone", "left out")
	b.waitText(".curves", "Left hippocampus: left out by a reviewer and not compared.")
	if n := eval[int](b, "document.querySelectorAll('.verdict.flagged').length"); n != 0 {
		t.Errorf("%d patterns flagged", n)
	}
	if text := b.text(".below"); strings.Contains(text, "Hippocampal asymmetry") {
		t.Error("an asymmetry is shown")
	}
	if text := b.text(".case-head"); strings.Contains(text, "Amended") {
		t.Errorf("the new result is decided on already: %s", text)
	}
	if n := eval[int](b, "[...document.querySelectorAll('.volumes tbody tr')].find(r => r.dataset.name === 'Hippocampus').cells[5].innerText.length"); n != 1 {
		t.Error("a left out volume has a z")
	}
	b.axe("an amended case")
	b.shotAt(1280, "21-amended", "#main")
	b.shotAt(1920, "21-amended", "#main")
	b.shotAt(1280, "22-amended-volumes", ".volumes")
	page := eval[string](b, "fetch(document.querySelector('a[href$=\"report.html\"]').href).then(r => r.text())")
	for _, want := range []string{"Left out by first admin key", "Hippocampus, left. “label runs into the horn” Shown and used for nothing; scored anew from the volumes of version 1.", "Not reviewed."} {
		if !strings.Contains(page, want) {
			t.Errorf("the report lacks %q", want)
		}
	}

	b.keys("e")
	b.wait("the question", "document.activeElement?.id === 'comment' && document.querySelector('.boxes input[value=Left-Hippocampus]').checked")
	b.click("dialog .help button")
	b.wait("the correction", "document.querySelector('dialog[open] #new-age') !== null")
	b.axe("correcting")
	b.do(chromedp.SetValue(chromedp.CSS("#new-age"), "66.5"))
	b.click("dialog .main")
	b.waitText(".case-head dl", "66.5 F")
	b.waitText(".history", "Result version 3")
	b.waitText(".history", "(an earlier result, version 1)")
	b.waitText(".left-out", "Left out by you")
	if r := result(); r.Amendment == nil || r.Amendment.FromVersion != 0 || !slices.Equal(r.Amendment.Structures(), []string{"Left-Hippocampus"}) || r.Scores[0].AbstainedType != neuroscreen.StructureExcluded {
		t.Errorf("of the corrected age: %+v, %+v", r.Amendment, r.Scores[0])
	}

	b.keys("e")
	b.wait("the question", "document.activeElement?.id === 'comment'")
	b.keys("looked at again, the label is right")
	b.click(".boxes input[value=Left-Hippocampus]")
	b.click("dialog .main")
	b.waitText(".history", "Everything taken back in; scored anew as version 4")
	b.waitText(".verdict.flagged", "Alzheimer’s disease")
	b.wait("nothing left out", "document.querySelector('.left-out') === null && document.querySelector('.volumes .gone') === null")
	b.waitText(".below", "Hippocampal asymmetry")
	b.keys(kb.Escape)
	b.waitText(".cases tbody", "S-AMEND") // it waits again
	b.waitText(".cases tbody", "Flagged")
	b.checkNothingKept()
}

// front stands before the service, as a clinic's proxy does, and can hold
// uploads up, answer itself or be away.
type front struct {
	*httptest.Server
	mu     sync.Mutex
	to     *url.URL
	away   bool
	hold   chan struct{}                  // uploads wait for it when it is there
	refuse func(r *http.Request) (as int) // 0 for what is let through
}

func newFront(t *testing.T) *front {
	f := &front{}
	transport := &http.Transport{}
	pass := &httputil.ReverseProxy{Transport: transport, ErrorLog: log.New(io.Discard, "", 0), Rewrite: func(r *httputil.ProxyRequest) {
		f.mu.Lock()
		defer f.mu.Unlock()
		r.SetURL(f.to)
		r.Out.Host = r.In.Host
	}}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		away, hold, refuse := f.away, f.hold, f.refuse
		f.mu.Unlock()
		if refuse != nil {
			if status := refuse(r); status != 0 {
				w.WriteHeader(status)
				return
			}
		}
		if away {
			panic(http.ErrAbortHandler) // hangs up
		}
		if hold != nil && r.Method == http.MethodPost && r.URL.Path == "/v1/scans" {
			io.CopyN(io.Discard, r.Body, 1) // it is on its way
			select {
			case <-hold:
			case <-r.Context().Done():
			}
			panic(http.ErrAbortHandler)
		}
		pass.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		f.CloseClientConnections()
		f.Close()
		transport.CloseIdleConnections()
	})
	return f
}

func (f *front) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *front) before(t *testing.T, address string) {
	t.Helper()
	to, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	f.set(func() { f.to = to })
}

// dropFile lets go of a file over the middle of an element.
func (b *browser) dropFile(selector, path string) {
	b.Helper()
	at := eval[[]float64](b, fmt.Sprintf("(() => { const r = document.querySelector(%q).getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2] })()", selector))
	for _, kind := range []input.DispatchDragEventType{input.DispatchDragEventTypeDragEnter, input.DispatchDragEventTypeDragOver, input.DispatchDragEventTypeDrop} {
		b.do(chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
			_, err := cdp.Call(ctx, target, input.DispatchDragEvent, input.DispatchDragEventParams{Type: kind, X: at[0], Y: at[1],
				Data: &input.DragData{Items: []*input.DragDataItem{}, Files: []string{path}, DragOperationsMask: 1}})
			return err
		}))
	}
}

// TestDropAndCancel: a scan is handed over by dropping it; an upload can be
// cancelled, and nothing is stored then; a cut connection says so.
func TestDropAndCancel(t *testing.T) {
	f := newFront(t)
	address, key := startService(t, invented{t: t, volume: func(string, float64) (float64, float64) { return 3400, 40 }}.use)
	f.before(t, address)
	head, err := filepath.Abs("../testdata/heads/healthy_45M.nii.gz")
	if err != nil {
		t.Fatal(err)
	}
	b := newBrowser(t, f.URL)
	b.signIn(key)
	b.waitText(".first", "T1-weighted")
	hold := make(chan struct{})
	f.set(func() { f.hold = hold })

	b.dropFile(".drop", head)
	b.waitText(".drop", "healthy_45M.nii.gz, 1.9 MB")
	b.do(chromedp.SetValue(chromedp.CSS("#up-subject"), "S-DROPPED"), chromedp.SetValue(chromedp.CSS("#up-age"), "45"), chromedp.SetValue(chromedp.CSS("#up-sex"), "M"))
	b.click(".upload button.main")
	b.wait("progress and a way to cancel", "document.querySelector('progress').value > 0 && !document.querySelector('.upload .ends button:last-child').hidden")
	b.shot("30-uploading-1280")
	b.click(".upload .ends button:last-child")
	b.waitText(".upload", "Cancelled.")
	if found, err := newAPI(t, address, key).ListCasesWithResponse(t.Context(), &client.ListCasesParams{}); err != nil || found.JSON200 == nil || len(found.JSON200.Cases) != 0 {
		t.Errorf("stored: %v %s", err, found.Body)
	}

	// The same again, which the other side cuts.
	b.click(".upload button.main")
	b.wait("it is sent", "document.querySelector('progress').value > 0")
	close(hold)
	b.waitText(".upload [role=alert]", "The connection was cut")
	f.set(func() { f.hold = nil })
	// Somebody else's scan comes in meanwhile: what is filled in is not pulled away.
	newAPI(t, address, key).submit(t, "S-OTHER", smallImage(t, 1))
	b.waitText(".live", "not up to date")
	if got := eval[string](b, "document.querySelector('.first #up-subject').value"); got != "S-DROPPED" {
		t.Errorf("the form holds %q", got)
	}
	b.click(".upload button.main")
	b.waitText(".cases tbody", "S-DROPPED")

	// Anywhere on the worklist, too; what is being sent is not dropped by
	// closing the form.
	hold = make(chan struct{})
	defer close(hold)
	f.set(func() { f.hold = hold })
	b.dropFile(".list", head)
	b.waitText("dialog .drop", "healthy_45M.nii.gz")
	b.axe("handing over")
	b.do(chromedp.SetValue(chromedp.CSS("#up-subject"), "S-SECOND"), chromedp.SetValue(chromedp.CSS("#up-age"), "45"), chromedp.SetValue(chromedp.CSS("#up-sex"), "M"))
	b.click("dialog .upload button.main")
	b.wait("it is sent", "document.querySelector('progress').value > 0")
	b.keys(kb.Escape)
	b.waitText("dialog #told", "Cancel that first") // beside an open dialog nobody would hear it
	b.shot("31-upload-going-1280")
	b.click(".upload .ends button:last-child")
	b.waitText(".upload", "Cancelled.")

	// Stored, the form is empty for the next person, who has the same scanner.
	f.set(func() { f.hold = nil })
	b.do(chromedp.SetValue(chromedp.CSS("#up-scanner"), "Prisma"))
	b.click("dialog .upload button.main")
	b.waitText("dialog .upload", "Stored for subject S-SECOND.")
	b.waitText("dialog .drop", "Drop a .nii or .nii.gz file here")
	if got := eval[string](b, "[...document.querySelectorAll('dialog .fields :is(input, select), #scan-file')].map(i => i.value).join()"); got != ",,,,Prisma" {
		t.Errorf("the form holds %q", got)
	}
	b.keys(kb.Escape)
	b.wait("the form is closed", "document.querySelector('dialog') === null")
	b.checkNothingKept()
}

// TestProviderSignIn: the button leads to the identity provider and back into
// a session of the person's role.
func TestProviderSignIn(t *testing.T) {
	issuer, f := logintest.New(t), newFront(t)
	address, _ := startService(t, func(c *config.Server, _ *service.Parts) {
		c.PublicURL, c.OIDCIssuer, c.OIDCClient, c.OIDCRoleClaim = f.URL, issuer.URL, "neuroscreen", "roles"
	})
	f.before(t, address)
	b := newBrowser(t, f.URL)
	b.do(chromedp.Navigate(f.URL))
	b.wait("the button", "document.querySelector('#provider') !== null")
	b.axe("sign-in with a provider")
	b.shot("40-provider-1280")
	b.click("#provider")
	b.waitText(".top .who", "Dr. Test")
	b.waitText(".top .who", "clinician")
	b.checkNothingKept()
	if n := eval[int](b, "[...document.querySelectorAll('.bar button')].length"); n != 0 {
		t.Errorf("a clinician is offered to hand scans over")
	}

	// Whoever goes away is signed out; the page forgets what it showed.
	b.do(chromedp.Evaluate[chromedp.Void]("{ const now = Date.now; Date.now = () => now() + 24 * 3600e3 }"))
	b.waitText("main", "You were signed out because nothing happened for a while.")
	if s := eval[int](b, "fetch('/session').then(r => r.status)"); s != 401 {
		t.Errorf("the session answers %d", s)
	}

	// Who has no role here is told.
	issuer.Change = func(c map[string]any) { c["roles"] = []string{"mail"} }
	b.click("#provider")
	b.waitText("body", "role")
	if text := b.text(".top .who"); text != "" {
		t.Errorf("signed in as %s", text)
	}
}

// TestStates: what is under way, what failed and a service that is away
// explain themselves.
func TestStates(t *testing.T) {
	made := invented{t: t, hold: make(chan struct{}), volume: func(string, float64) (float64, float64) { return 3400, 40 }}
	f := newFront(t)
	address, key := startService(t, made.use)
	f.before(t, address)
	api := newAPI(t, address, key)
	broken := api.hand(t, smallImage(t, 1), neuroscreen.Metadata{SubjectID: "S-BROKEN", AgeYears: ptr(60.0), Scanner: "Broken"})
	slow := api.hand(t, smallImage(t, 2), neuroscreen.Metadata{SubjectID: "S-SLOW", AgeYears: ptr(60.0), Scanner: "Slow"})

	b := newBrowser(t, f.URL)
	b.signIn(key)
	b.waitText(".cases tbody", "S-SLOW")
	b.waitText(".tallies button:nth-child(5) b", "2")
	b.do(chromedp.Evaluate[chromedp.Void](fmt.Sprintf("location.hash = '#/case/%s'", slow.ID)))
	b.waitText(".stages [aria-current]", "Checked")
	b.axe("a case under way")
	b.shot("50-running-1280")
	close(made.hold)
	b.waitText(".verdict", "Not flagged") // by itself

	// The service goes away and comes back.
	b.do(chromedp.Evaluate[chromedp.Void]("location.hash = '#/'"))
	b.waitText(".cases tbody", "S-SLOW")
	f.set(func() { f.away = true })
	f.CloseClientConnections()
	b.click(".tallies button:nth-child(6)")
	b.waitText(".list [role=alert]", "The service does not answer")
	b.waitText(".live", "connecting")
	b.axe("a service that is away")
	b.shot("51-away-1280")
	f.set(func() { f.away = false })
	b.do(chromedp.Evaluate[chromedp.Void]("document.querySelector('.list [role=alert] button')?.click()")) // unless the list came back by itself
	b.waitText(".cases tbody", "S-SLOW")

	// Part of an identifier finds it.
	b.keys("/")
	b.wait("the search", "document.activeElement?.id === 'search'")
	b.do(chromedp.SetValue(chromedp.CSS("#search"), "slo"))
	b.keys(kb.Enter)
	b.waitText(".list .note", "One case of “slo”")

	// Filters, and the way out of them.
	b.click(".list .note button")
	b.waitText(".cases tbody", "S-BROKEN")
	b.do(chromedp.Evaluate[chromedp.Void]("{ const s = document.querySelector('.filters input[type=text]'); s.value = 'Slow'; s.dispatchEvent(new Event('change')) }"))
	b.wait("one case", "document.querySelectorAll('.cases tbody tr').length === 1 && document.querySelector('.cases tbody').innerText.includes('S-SLOW')")
	b.do(chromedp.Evaluate[chromedp.Void]("{ const s = document.querySelector('.filters label:nth-child(2) select'); s.value = 'parkinsons'; s.dispatchEvent(new Event('change')) }"))
	b.waitText(".empty", "No case matches")
	b.axe("no case matches")
	b.click(".empty button")
	b.waitText(".cases tbody", "S-BROKEN")
	b.keys("j", "j", "k")
	b.wait("the first line has focus", "document.activeElement === document.querySelector('.cases tbody a')")

	// Whoever sets keys off without meaning to turns them off.
	b.keys("?")
	b.click("#single-keys")
	b.axe("the shortcuts")
	b.shot("54-shortcuts-1280")
	b.keys(kb.Escape, "j", "?")
	b.wait("no key acts", "!document.querySelector('dialog') && document.activeElement !== document.querySelector('.cases tbody tr:nth-child(2) a')")
	b.click("header button.quiet")
	b.wait("still off", "document.querySelector('#single-keys')?.checked === false")
	b.click("#single-keys")
	b.keys(kb.Escape, "k", "j", "?")
	b.wait("keys act again", "!!document.querySelector('dialog')")
	b.keys(kb.Escape)

	// A fault is tried again before it counts.
	if done := api.wait(t, broken); done.State != neuroscreen.Failed {
		t.Fatalf("the broken scan ended as %s", done.State)
	}
	b.open(broken.ID)
	b.waitText(".verdicts", "The analysis failed")
	b.waitText(".verdicts", "Run it again")
	b.axe("a failed case")
	b.shot("52-failed-1280")
	b.keys(kb.Escape)
	b.click(".tallies button:nth-child(4)") // refused or failed
	b.waitText(".cases tbody", "Failed")
	b.shotAt(1920, "53-worklist", "#main")
}

// TestAdministration: an administrator makes and revokes keys, sets what
// scores are judged by, and reads the trail.
func TestAdministration(t *testing.T) {
	address, key := startService(t)
	b := newBrowser(t, address)
	b.signIn(key)
	b.click("#administration")
	b.waitText("#keys", "first admin key")
	b.do(chromedp.SetValue(chromedp.CSS("#key-name"), "Dr. New"))
	b.click("#keys form button")
	b.wait("the key", "document.querySelector('#secret') !== null")
	b.axe("a new key")
	secret := b.text("#secret")
	b.keys(kb.Escape, kb.Escape) // it could not be shown again
	b.waitText("dialog #told", "press Done")
	if b.text("#secret") != secret {
		t.Error("Escape discards the key")
	}
	b.click("dialog button")
	b.waitText("#keys", "Dr. New")
	if strings.Contains(b.text("#app"), secret) {
		t.Error("the key is still shown")
	}

	other := openWindow(t, b.ctx, address, chromedp.WithNewBrowserContext())
	other.signIn(secret)
	other.waitText(".top .who", "clinician")
	other.do(chromedp.Evaluate[chromedp.Void]("location.hash = '#/admin'"))
	other.waitText("h1", "Worklist")
	if eval[bool](other, "document.querySelector('#administration') !== null") {
		t.Error("a clinician is offered the administration")
	}

	b.waitText("#settings", "The defaults hold")
	b.do(chromedp.SetValue(chromedp.CSS("#alzheimers_review_lr"), "7"), chromedp.SetValue(chromedp.CSS("#settings-note"), "as agreed on Monday"))
	b.click("#settings form button")
	b.waitText("#settings [role=alert]", "alzheimers") // above the limit of flagged
	b.do(chromedp.SetValue(chromedp.CSS("#alzheimers_review_lr"), "3"))
	b.click("#settings form button")
	b.waitText("#settings", "Version 1")
	b.waitText("#settings", "as agreed on Monday")
	got, err := newAPI(t, address, key).GetSiteSettingsWithResponse(t.Context(), "clinic", &client.GetSiteSettingsParams{})
	if err != nil || got.JSON200 == nil || got.JSON200.Version != 1 || got.JSON200.Effective.AlzheimersReviewLR != 3 || got.JSON200.Effective.AlzheimersFlaggedLR != 5 {
		t.Errorf("%v %s", err, got.Body)
	}

	siteSettings := func(version int) client.SiteSettings {
		t.Helper()
		got, err := newAPI(t, address, key).GetSiteSettingsWithResponse(t.Context(), "clinic", &client.GetSiteSettingsParams{})
		if err != nil || got.JSON200 == nil || got.JSON200.Version != version {
			t.Fatalf("%v %s", err, got.Body)
		}
		return *got.JSON200
	}
	choose := func(selector, value string) {
		b.do(chromedp.Evaluate[chromedp.Void](fmt.Sprintf("{ const s = document.querySelector(%q); s.value = %q; s.dispatchEvent(new Event('change')) }", selector, value)))
	}
	// Priors: the site's own, which begin with the defaults, and none.
	b.waitText("#settings .priors", "From 65: 5 %; from 75: 13.1 %; from 85: 33.3 %.")
	choose("#alzheimers-priors", "own")
	b.wait("three ages", "document.querySelectorAll('#settings .ages > div').length === 3")
	choose("#parkinsons-priors", "none")
	b.axe("priors")
	b.do(chromedp.SetValue(chromedp.CSS("#settings .ages > div:nth-child(2) input:nth-child(2)"), "30"), chromedp.SetValue(chromedp.CSS("#settings-note"), "a memory clinic"))
	b.click("#settings .ages > div:nth-child(3) button")
	b.click("#settings form .main")
	b.waitText("#settings", "Version 2")
	if s := siteSettings(2).Settings; !slices.Equal(s.AlzheimersPriors, []model.AgePrior{{FromAge: 65, Prior: .05}, {FromAge: 75, Prior: .3}}) || s.ParkinsonsPriors == nil || len(s.ParkinsonsPriors) != 0 || s.AlzheimersReviewLR != 3 {
		t.Errorf("%+v", s)
	}
	choose("#parkinsons-priors", "default")
	b.do(chromedp.SetValue(chromedp.CSS("#settings-note"), "as published"))
	b.click("#settings form .main")
	b.waitText("#settings", "Version 3")
	if s := siteSettings(3).Settings; s.ParkinsonsPriors != nil || len(s.AlzheimersPriors) != 2 {
		t.Errorf("%+v", s)
	}

	// What validate proposed is looked at and taken over, and removed again.
	folder, files := t.TempDir(), 0
	write := func(text string) {
		files++
		proposal := filepath.Join(folder, fmt.Sprintf("proposal-%d.json", files)) // the same one again is no change
		if err := os.WriteFile(proposal, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		b.do(chromedp.SetUploadFiles(chromedp.CSS("#proposal"), []string{proposal}))
	}
	b.waitText("#calibration", "No control shift")
	write(`{"schema":"something else"}`)
	b.waitText("#calibration .problem", "The file's schema is something else")
	write("null")
	b.waitText("#calibration .problem", "The file's schema is undefined")
	write(`{"schema":"neuroscreen.proposal/1","site_shift":{}}`)
	b.waitText("#calibration .problem", "Its shift or its recalibrations are not as validate writes them.")
	write(`{"schema":"neuroscreen.proposal/1","site_shift":{"schema":"neuroscreen.shift/1","name":"clinic","version":"1","layer":"site","segmenter":"neuroscreen",
		"source":"24 local controls","structures":{"Left-Hippocampus":{"n":24,"mean_z":0.5,"sd_z":1.1},"Right-Hippocampus":{"n":25,"mean_z":0.4,"sd_z":1.1}}},
		"recalibrations":[],"evidence":{"people":24,"manifest":"0123456789abcdef"}}`)
	b.waitText("#calibration", "24 local controls. 2 structures, from 24 to 25 healthy people each.")
	b.axe("a proposal")
	b.shotAt(1280, "61-calibration", "#settings")
	b.shotAt(1920, "61-calibration", "#settings")
	b.click("#calibration .main")
	b.waitText("#settings", "Version 4")
	b.waitText("#settings", "proposed by validate on 24 people, manifest 0123456789ab")
	if s := siteSettings(4); s.SiteShift == nil || s.SiteShift.Structures["Left-Hippocampus"].MeanZ != .5 || len(s.Settings.AlzheimersPriors) != 2 {
		t.Errorf("%+v", s)
	}
	b.do(chromedp.SetValue(chromedp.CSS("#calibration-note"), "the scanner was replaced"))
	b.click("#calibration form .inline:nth-last-of-type(2) button[type=button]")
	b.waitText("#settings", "Version 5")
	b.waitText("#calibration", "No control shift")
	if s := siteSettings(5); s.SiteShift != nil {
		t.Errorf("%+v", s.SiteShift)
	}

	b.click("[aria-label='Revoke Dr. New']")
	b.wait("the question", "document.querySelector('dialog[open] .stop') !== null")
	b.click("dialog .stop")
	b.waitText("#keys", "revoked")
	other.do(chromedp.Evaluate[chromedp.Void]("location.hash = '#/'")) // the next call finds out
	other.waitText("main", "Your session has ended")

	b.do(chromedp.Evaluate[chromedp.Void]("location.hash = '#/'"))
	b.click("#administration")
	b.waitText("#audit", "key.revoke")
	b.click("#verify")
	b.waitText("#audit", "entries are as they were written")
	b.axe("administration")
	b.shotAt(1280, "60-admin", "#main")
	b.shotAt(1920, "60-admin", "#main")
	b.checkNothingKept()
}
