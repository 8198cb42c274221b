package validate

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"neuroscreen"
	"neuroscreen/internal/model"
	"neuroscreen/internal/norm"
	"neuroscreen/internal/pipeline"
)

// clinic draws a manifest of cases and controls of 60 and over whose hippocampi
// lie some SDs below the norm, and of healthy people whose volumes a scanner
// makes larger by a share.
func clinic(t testing.TB, cases, controls int, below, larger float64) string {
	t.Helper()
	r := rand.New(rand.NewPCG(9, uint64(cases)))
	var b strings.Builder
	b.WriteString("id,age,sex,EstimatedTotalIntraCranialVol,Left-Hippocampus,Right-Hippocampus,alzheimers,healthy,scanner,segmenter\n")
	for i := range cases + controls {
		sex := []neuroscreen.Sex{neuroscreen.Female, neuroscreen.Male}[r.IntN(2)]
		icv := 1.3e6 + 3e5*r.Float64()
		p := norm.Person{AgeYears: 62 + 25*r.Float64(), Sex: sex, ICVMM3: &icv}
		label, healthy, shift := 0, "1", 0.0
		if i < cases {
			label, healthy, shift = 1, "", below
		}
		fmt.Fprintf(&b, "p%d,%.1f,%s,%.0f", i, p.AgeYears, sex, icv)
		common := r.NormFloat64()
		for _, side := range []string{"Left-Hippocampus", "Right-Hippocampus"} {
			ref, err := norm.Default().Published(side, p)
			if err != nil {
				t.Fatal(err)
			}
			z := .9*common + .44*r.NormFloat64() - shift
			fmt.Fprintf(&b, ",%.1f", (ref.ExpectedMM3+z*ref.SD)*(1+larger))
		}
		fmt.Fprintf(&b, ",%d,%s,%s,fs6\n", label, healthy, []string{"one", "two"}[i%2])
	}
	return b.String()
}

func options() Options {
	return Options{Name: "clinic", Now: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)}
}

func validated(t *testing.T, manifest string, o Options) (*Report, *Proposal) {
	t.Helper()
	r, p, err := Run(t.Context(), strings.NewReader(manifest), o)
	if err != nil {
		t.Fatal(err)
	}
	return r, p
}

// A scanner that measures 12 % more hides disease and spoils the calibration;
// the proposal puts both right.
func TestProposal(t *testing.T) {
	manifest := clinic(t, 150, 150, 1.5, .12)
	r, p := validated(t, manifest, options())
	c := r.Conditions[0]
	if c.Cases != 150 || c.Controls != 150 || c.Models[0] != "alzheimers-scan" || *c.Now.AUC < .75 || c.Now.AUCCI95[0] >= *c.Now.AUC {
		t.Fatalf("%+v", c)
	}
	if p == nil || p.SiteShift == nil || len(r.Controls.Structures) != 2 {
		t.Fatalf("no shift: %s", r.Controls.Verdict)
	}
	for _, s := range r.Controls.Structures {
		if s.Before[0] < .8 || math.Abs(s.After[0]) > .2 || s.After[1] < .8 || s.After[1] > 1.2 {
			t.Errorf("%+v", s)
		}
	}
	if sensitivity := c.WithShift.Thresholds[0].Sensitivity; sensitivity <= c.Now.Thresholds[0].Sensitivity {
		t.Errorf("sensitivity %.2f, with the shift %.2f", c.Now.Thresholds[0].Sensitivity, sensitivity)
	}
	if c.Recalibration != nil {
		before, after := c.WithShift.Calibration, c.Recalibrated.Calibration
		if after.LogLoss >= before.LogLoss {
			t.Errorf("log loss %.3f, recalibrated %.3f", before.LogLoss, after.LogLoss)
		}
	}
	// What was written is what is accepted, and a second look at the same people
	// proposes no other recalibration.
	b, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := LoadProposal(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if loaded.SiteShift.Asset() != p.SiteShift.Asset() || len(loaded.Recalibrations) != len(p.Recalibrations) {
		t.Errorf("read back %+v", loaded)
	}
	o := options()
	o.Settings = pipeline.Settings{SiteShift: loaded.SiteShift, Model: model.Settings{Recalibrations: loaded.Recalibrations}}
	again, _ := validated(t, manifest, o)
	if now := again.Conditions[0].Now.Calibration; *now.Intercept < -.3 || *now.Intercept > .3 {
		t.Errorf("accepted, the intercept is %.2f", *now.Intercept)
	}
}

// Scores that claim too much are drawn back: the slope of a group that hardly
// differs.
func TestRecalibrationIsProposed(t *testing.T) {
	r, p := validated(t, strings.ReplaceAll(clinic(t, 250, 250, .15, 0), ",1,one", ",,one"), options())
	c := r.Conditions[0]
	if p == nil || c.Recalibration == nil {
		t.Fatal(c.Verdict)
	}
	if c.Recalibration.Slope >= 1 || c.Recalibrated.Calibration.LogLoss >= c.Now.Calibration.LogLoss || math.Abs(*c.Recalibrated.AUC-*c.Now.AUC) > .05 {
		t.Errorf("%+v: log loss %.3f, then %.3f", *c.Recalibration, c.Now.Calibration.LogLoss, c.Recalibrated.Calibration.LogLoss)
	}
}

func TestNothingIsProposed(t *testing.T) {
	for name, tt := range map[string]struct{ manifest, verdict string }{
		"too few":               {clinic(t, 10, 15, 1.5, 0), "at least 20 cases and 20 controls"},
		"apart without overlap": {clinic(t, 30, 30, 6, 0), ""},
	} {
		t.Run(name, func(t *testing.T) {
			m := strings.ReplaceAll(strings.ReplaceAll(tt.manifest, ",1,one", ",,one"), ",1,two", ",,two")
			r, p := validated(t, m, options())
			if p != nil || !strings.HasPrefix(r.Conditions[0].Verdict, "No recalibration") || !strings.Contains(r.Conditions[0].Verdict, tt.verdict) {
				t.Errorf("%+v, %q", p, r.Conditions[0].Verdict)
			}
			if !strings.Contains(r.Controls.Verdict, "at least 20 healthy people") {
				t.Errorf("%q", r.Controls.Verdict)
			}
		})
	}
}

// A proposal without a new shift keeps what holds at the site; a new shift
// drops recalibrations that were fitted without it.
func TestWhatHoldsIsKept(t *testing.T) {
	shift := &norm.Shift{Schema: norm.ShiftSchema, Name: "old", Version: "1", Layer: norm.LayerSite, Segmenter: norm.FreeSurfer6, Structures: map[string]norm.Moments{}}
	old := model.Recalibration{Model: "parkinsons", Segmenter: norm.FreeSurfer6}
	r := &Report{Segmenter: norm.FreeSurfer6, Conditions: []Condition{{Recalibration: &model.Recalibration{Model: "alzheimers-scan", Segmenter: norm.FreeSurfer6}}}}
	o := Options{Settings: pipeline.Settings{SiteShift: shift, Model: model.Settings{Recalibrations: []model.Recalibration{old}}}}
	if p := r.propose(o, nil); p.SiteShift != shift || len(p.Recalibrations) != 2 {
		t.Errorf("%+v", p)
	}
	if p := r.propose(o, &norm.Shift{}); p.SiteShift == shift || len(p.Recalibrations) != 1 {
		t.Errorf("%+v", p)
	}
}

func TestSubgroupsAndAbstentions(t *testing.T) {
	m := clinic(t, 30, 30, 1.5, 0) + "young,40,F,1400000,3500,3600,0,,one,fs6\nnobody,70,,1400000,3500,3600,1,,one,fs6\n"
	r, _ := validated(t, m, options())
	c := r.Conditions[0]
	var names []string
	people := 0
	for _, g := range c.Subgroups {
		names = append(names, g.Name)
		if strings.HasPrefix(g.Name, "scanner") {
			people += g.Cases + g.Controls
		}
		if enough := min(g.Cases, g.Controls) >= leastForInterval; (g.Calibration != nil) != enough || (g.AUCCI95 != nil) != enough {
			t.Errorf("%d cases and %d controls: %+v", g.Cases, g.Controls, g)
		}
	}
	if got := strings.Join(names, ", "); got != "age 60 to 69, age 70 to 79, age 80 and over, men, scanner one, scanner two, women" || people != 60 {
		t.Errorf("%s; %d by scanner", got, people)
	}
	if len(c.Abstained) != 2 || c.Abstained[0].Controls != 1 || !strings.Contains(c.Abstained[0].Why, "the age is outside") || c.Abstained[1].Cases != 1 {
		t.Errorf("%+v", c.Abstained)
	}
	var text bytes.Buffer
	if err := r.Text(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"30 cases, 30 controls", "abstained, 0 cases and 1 controls: the age is outside", "specificity", "scanner two", "cross-validated", "with the shift, flagged or worse:"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("%q is missing from:\n%s", want, text.String())
		}
	}
	if strings.Contains(text.String(), "%!") || strings.Contains(text.String(), "NaN") {
		t.Errorf("badly written:\n%s", text.String())
	}
}

func TestSides(t *testing.T) {
	m := "id,age,sex,EstimatedTotalIntraCranialVol,Left-Hippocampus,Right-Hippocampus,mesial_temporal_sclerosis\n" +
		"a,40,M,1500000,1438,4848,left\nb,40,M,1500000,4848,1438,left\nc,40,M,1500000,4300,4400,right\nd,40,M,1500000,4300,4400,0\ne,40,M,1500000,1438,4848,1\n"
	o := options()
	o.Segmenter = norm.FreeSurfer6
	r, _ := validated(t, m, o)
	if s := r.Conditions[0].Sides; *s != (Sides{Known: 3, Correct: 1, Other: 1, Missed: 1}) {
		t.Errorf("%+v", *s)
	}
	if c := r.Conditions[0]; c.Cases != 4 || c.Now.AUC != nil {
		t.Errorf("%+v", c)
	}
}

func TestScans(t *testing.T) {
	f := func(mm3 float64) model.Features {
		icv := 1.5e6
		return model.Features{Person: norm.Person{AgeYears: 70, Sex: neuroscreen.Male, ICVMM3: &icv}, QC: neuroscreen.VerdictPass, Calibration: norm.Calibration{Segmenter: norm.Network},
			Volumes: map[string]norm.Measured{"Left-Hippocampus": {MM3: mm3, SE: 100}, "Right-Hippocampus": {MM3: mm3, SE: 100}}}
	}
	o := options()
	done := 0
	o.Progress = func(i, of int) { done = of }
	o.Measure = func(_ context.Context, s Scan) (model.Features, error) {
		switch s.Path {
		case "small.nii":
			return f(2500), nil
		case "large.nii":
			return f(4000), nil
		}
		return model.Features{}, neuroscreen.Errorf(neuroscreen.CodeUnprocessable, "not-a-brain", "no brain was found")
	}
	r, _ := validated(t, "id,age,sex,scan,alzheimers\na,70,M,small.nii,1\nb,70,M,large.nii,0\nc,70,M,cat.nii,0\n", o)
	if c := r.Conditions[0]; c.Cases != 1 || c.Controls != 1 || r.Segmenter != norm.Network || done != 3 {
		t.Errorf("%+v, %d done", c, done)
	}
	if len(r.Skipped) != 1 || r.Skipped[0] != (Skipped{"c", "the scan is refused: no brain was found"}) {
		t.Errorf("%+v", r.Skipped)
	}
}

// What failed quality control is no control, or it would move the site's z; what
// is to be reviewed is one, and the verdict says how many.
func TestControlsPassedQualityControl(t *testing.T) {
	var manifest strings.Builder
	manifest.WriteString("id,age,sex,scan,healthy\n")
	for i := range 30 {
		fmt.Fprintf(&manifest, "p%d,%d,F,%d.nii,1\n", i, 60+i%20, i)
	}
	proposed := func(verdict neuroscreen.Verdict, smaller float64) (*Report, norm.Moments) {
		o := options()
		measured := 0
		o.Measure = func(_ context.Context, s Scan) (model.Features, error) {
			icv := 1.45e6
			f := model.Features{Person: norm.Person{AgeYears: *s.Metadata.AgeYears, Sex: neuroscreen.Female, ICVMM3: &icv}, QC: neuroscreen.VerdictPass,
				Calibration: norm.Calibration{Segmenter: norm.Network, Weights: "aa"}}
			ref, err := norm.Default().Reference("Left-Hippocampus", f.Person, f.Calibration)
			if err != nil {
				t.Fatal(err)
			}
			mm3 := ref.ExpectedMM3 + 200*float64(measured%5-2)
			if measured < 10 {
				f.QC, mm3 = verdict, mm3*smaller
			}
			f.Volumes = map[string]norm.Measured{"Left-Hippocampus": {MM3: mm3}}
			measured++
			return f, nil
		}
		r, p := validated(t, manifest.String(), o)
		return r, p.SiteShift.Structures["Left-Hippocampus"]
	}
	r, m := proposed(neuroscreen.VerdictRefuse, .55)
	if r.Controls.People != 20 || r.People != 20 || m.N != 20 || math.Abs(m.MeanZ) > .05 {
		t.Errorf("%d controls, %+v", r.Controls.People, m)
	}
	if len(r.Skipped) != 10 || r.Skipped[0] != (Skipped{"p0", "the image failed quality control"}) {
		t.Errorf("skipped %+v", r.Skipped)
	}
	r, m = proposed(neuroscreen.VerdictReview, 1)
	if r.Controls.People != 30 || m.N != 30 || len(r.Skipped) != 0 || !strings.Contains(r.Controls.Verdict, "a review of 10 scans") {
		t.Errorf("%d controls, %+v, skipped %+v: %s", r.Controls.People, m, r.Skipped, r.Controls.Verdict)
	}
}

// The shift names the weights and the scanners that measured its controls, and a
// scan without its own size is no control.
func TestShiftNamesWeightsAndScanners(t *testing.T) {
	var manifest strings.Builder
	manifest.WriteString("id,age,sex,scan,scanner,manufacturer,field_strength_t,healthy\n")
	for i := range 22 {
		fmt.Fprintf(&manifest, "p%d,70,M,%d.nii,PRISMA,Siemens,%s,1\n", i, i, []string{"3", "1.5"}[i%2])
	}
	o := options()
	o.Measure = func(_ context.Context, s Scan) (model.Features, error) {
		icv := 1.5e6
		f := model.Features{Person: norm.Person{AgeYears: 70, Sex: neuroscreen.Male, ICVMM3: &icv}, QC: neuroscreen.VerdictPass,
			Calibration: norm.Calibration{Segmenter: norm.Network, Weights: "aa", Scanner: norm.ScannerOf(s.Metadata)},
			Volumes:     map[string]norm.Measured{"Left-Hippocampus": {MM3: 3600}}}
		if s.Path == "21.nii" {
			f.Withhold = "the image lies in a template's space"
		}
		return f, nil
	}
	r, p := validated(t, manifest.String(), o)
	want := []norm.Scanner{{Name: "PRISMA", Manufacturer: "Siemens", FieldStrengthT: 1.5}, {Name: "PRISMA", Manufacturer: "Siemens", FieldStrengthT: 3}}
	if s := p.SiteShift; r.Weights != "aa" || s.Weights != "aa" || !slices.Equal(s.Scanners, want) || s.After != norm.Default().Shipped(norm.Network).Asset().Name {
		t.Errorf("%+v", s)
	}
	if r.Controls.People != 21 || len(r.Skipped) != 1 || r.Skipped[0].ID != "p21" {
		t.Errorf("%d controls, skipped %+v", r.Controls.People, r.Skipped)
	}
}

func TestManifestRefused(t *testing.T) {
	const head = "id,age,sex,EstimatedTotalIntraCranialVol,Left-Hippocampus,Right-Hippocampus,alzheimers,mesial_temporal_sclerosis,healthy,segmenter\n"
	for name, tt := range map[string]struct{ manifest, want string }{
		"unknown label":         {head + "a,70,F,1400000,3000,3000,yes,,,fs6\n", "line 2 (a): column alzheimers"},
		"side of another":       {head + "a,70,F,1400000,3000,3000,left,,,fs6\n", "1 for a case"},
		"side that is none":     {head + "a,70,F,1400000,3000,3000,,up,,fs6\n", "left, right, 1"},
		"healthy and ill":       {head + "a,70,F,1400000,3000,3000,1,,1,fs6\n", "at once"},
		"healthy, perhaps":      {head + "a,70,F,1400000,3000,3000,1,,maybe,fs6\n", "column healthy"},
		"nobody labelled":       {head + "a,70,F,1400000,3000,3000,,,,fs6\n", "nobody is labelled"},
		"segmenter not said":    {head + "a,70,F,1400000,3000,3000,1,,,\n", "--segmenter"},
		"two segmenters":        {head + "a,70,F,1400000,3000,3000,1,,,fs6\nb,70,F,1400000,3000,3000,0,,,fs7\n", "a manifest of each"},
		"no rows":               {head, "holds nobody"},
		"volumes in ml":         {head + "a,70,F,1400000,3,3,1,,,fs6\n", "in mm3"},
		"no field strength":     {"id,age,sex,scan,alzheimers,field_strength_t\na,70,F,x.nii,1,3T\n", "tesla"},
		"a scan without an age": {"id,age,sex,scan,alzheimers\na,,F,x.nii,1\n", "needs age and sex"},
		"no volume and no scan": {"id,age,sex,alzheimers\na,70,F,1\n", "the table has no volume"},
	} {
		t.Run(name, func(t *testing.T) {
			o := options()
			o.Measure = func(context.Context, Scan) (model.Features, error) { panic("not reached") }
			_, _, err := Run(t.Context(), strings.NewReader(tt.manifest), o)
			if e := neuroscreen.AsError(err); e == nil || e.Code != neuroscreen.CodeInvalid || !strings.Contains(e.Message, tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestLoadProposalRefuses(t *testing.T) {
	for name, doc := range map[string]string{
		"no JSON":        "x",
		"another schema": `{"schema":"neuroscreen.shift/1","recalibrations":[]}`,
		"unknown field":  `{"schema":"neuroscreen.proposal/1","shift":{}}`,
		"a bad shift":    `{"schema":"neuroscreen.proposal/1","site_shift":{"schema":"neuroscreen.shift/1"},"recalibrations":[]}`,
		"a bad line":     `{"schema":"neuroscreen.proposal/1","recalibrations":[{"model":"alzheimers-scan"}]}`,
	} {
		if _, err := LoadProposal(strings.NewReader(doc)); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// The same manifest gives the same report.
func TestReproducible(t *testing.T) {
	m := clinic(t, 40, 40, 1, .05)
	var docs [2]string
	for i := range docs {
		r, p := validated(t, m, options())
		b, err := json.Marshal([]any{r, p})
		if err != nil {
			t.Fatal(err)
		}
		docs[i] = string(b)
	}
	if docs[0] != docs[1] {
		t.Error("two runs differ")
	}
}
