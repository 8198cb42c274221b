package fhir

import (
	"bytes"
	"encoding/json"
	"flag"
	"slices"
	"strings"
	"testing"
	"time"

	"neuroscreen"
	"neuroscreen/internal/interop/interoptest"
	"neuroscreen/internal/qc"
	"neuroscreen/internal/report"
	"neuroscreen/internal/words"
)

var update = flag.Bool("update", false, "write testdata anew; testdata/check.py judges it")

// resources of a bundle by type.
func resources(t *testing.T, p report.Page) map[string][]map[string]any {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, p); err != nil {
		t.Fatal(err)
	}
	var bundle struct {
		Entry []struct {
			FullURL  string `json:"fullUrl"`
			Resource map[string]any
		}
	}
	if err := json.Unmarshal(b.Bytes(), &bundle); err != nil {
		t.Fatal(err)
	}
	out := map[string][]map[string]any{}
	var urls []string
	for _, e := range bundle.Entry {
		kind := e.Resource["resourceType"].(string)
		out[kind] = append(out[kind], e.Resource)
		if slices.Contains(urls, e.FullURL) {
			t.Errorf("%s stands for two resources", e.FullURL)
		}
		urls = append(urls, e.FullURL)
	}
	// Every reference leads to a resource of the bundle.
	var follow func(v any)
	follow = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if r, ok := v["reference"].(string); ok && !slices.Contains(urls, r) {
				t.Errorf("reference %s leads nowhere", r)
			}
			for _, x := range v {
				follow(x)
			}
		case []any:
			for _, x := range v {
				follow(x)
			}
		}
	}
	for _, e := range bundle.Entry {
		follow(e.Resource)
	}
	return out
}

func TestWrite(t *testing.T) {
	var got bytes.Buffer
	if err := Write(&got, interoptest.Page()); err != nil {
		t.Fatal(err)
	}
	interoptest.Golden(t, "testdata/bundle.json", got.Bytes(), *update)
}

// TestComparedWithNobody: a volume without a z is not called normal.
func TestComparedWithNobody(t *testing.T) {
	called := map[string]bool{}
	for _, r := range resources(t, interoptest.Page())["Observation"] {
		if site, ok := r["bodySite"].(map[string]any); ok {
			_, called[site["text"].(string)] = r["interpretation"]
		}
	}
	for site, want := range map[string]bool{
		words.Structure("Left-Hippocampus"): true, words.Structure("Right-Hippocampus"): true,
		words.Structure("Brain-Stem"): false, words.Structure("Right-Inf-Lat-Vent"): false,
	} {
		if got, ok := called[site]; !ok || got != want {
			t.Errorf("%s is called normal or not: %v (found %v), want %v", site, got, ok, want)
		}
	}
}

// TestTemplateSpace: sizes that may be a template's say so.
func TestTemplateSpace(t *testing.T) {
	for _, template := range []bool{false, true} {
		p := interoptest.Page()
		if template {
			p.Result.QC.Reasons = append(p.Result.QC.Reasons, neuroscreen.Reason{Code: qc.TemplateSpace})
		}
		for _, r := range resources(t, p)["Observation"] {
			code, _ := json.Marshal(r["code"])
			note, _ := json.Marshal(r["note"])
			if want := template && strings.Contains(string(code), "118565006"); want != strings.Contains(string(note), "the template's") {
				t.Errorf("template %v: %s has the note %s", template, code, note)
			}
		}
	}
}

// TestStatus: what may not be used says so in every resource that has a status.
func TestStatus(t *testing.T) {
	decided := func(decision string) *report.Review {
		return &report.Review{Decision: decision, By: "Dr. A", At: time.Date(2026, 3, 15, 8, 0, 0, 0, time.UTC)}
	}
	for _, tt := range []struct {
		name, want string
		change     func(p *report.Page)
	}{
		{"nobody decided", "preliminary", func(p *report.Page) {}},
		{"accepted", "final", func(p *report.Page) { p.Review = decided("accept") }},
		{"amended", "amended", func(p *report.Page) { p.Review = decided("amend") }},
		{"rejected", "entered-in-error", func(p *report.Page) { p.Review = decided("reject") }},
		{"accepted, then replaced", "entered-in-error", func(p *report.Page) { p.Review, p.Stands = decided("accept"), 3 }},
		{"accepted, then withdrawn", "entered-in-error", func(p *report.Page) { p.Review, p.State = decided("accept"), neuroscreen.Refused }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := interoptest.Page()
			tt.change(&p)
			all := resources(t, p)
			for _, kind := range []string{"DiagnosticReport", "Observation", "RiskAssessment"} {
				for _, r := range all[kind] {
					site, _ := json.Marshal(r["bodySite"])
					want := tt.want
					if strings.Contains(string(site), "Brain stem") { // left out
						want = "entered-in-error"
					}
					if r["status"] != want {
						t.Errorf("%s %v has status %v", kind, r["code"], r["status"])
					}
				}
			}
			headline, _ := p.Decision()
			if said := all["DiagnosticReport"][0]["conclusion"].(string); !strings.Contains(said, headline) {
				t.Errorf("the report does not say %q: %s", headline, said)
			}
		})
	}
}

// TestProbability: none is shown without its prior, cohort and limits.
func TestProbability(t *testing.T) {
	p := interoptest.Page()
	risk := resources(t, p)["RiskAssessment"]
	if len(risk) != 1 {
		t.Fatalf("%d risk assessments", len(risk))
	}
	said := risk[0]["prediction"].([]any)[0].(map[string]any)["rationale"].(string)
	for _, needed := range []string{"prior probability of 0.05", "188 people", "Not for people under 60"} {
		if !strings.Contains(said, needed) {
			t.Errorf("%q lacks %q", said, needed)
		}
	}
	for name, change := range map[string]func(p *report.Page){
		"no prior":              func(p *report.Page) { p.Result.Scores[0].Prior, p.Result.Scores[0].Posterior = nil, nil },
		"no words of the model": func(p *report.Page) { p.Reading.Scores = nil },
		"abstained": func(p *report.Page) {
			p.Result.Scores[0].LikelihoodRatio, p.Result.Scores[0].Abstained = nil, ptr("too young")
		},
	} {
		p := interoptest.Page()
		change(&p)
		var b bytes.Buffer
		if err := Write(&b, p); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(b.String(), "probabilityDecimal") {
			t.Errorf("%s: a probability is shown", name)
		}
	}
}

// TestSparse: a result with nothing but its quality, of a run without a date.
func TestSparse(t *testing.T) {
	p := report.Page{Result: &neuroscreen.Result{ScanID: "x", QC: neuroscreen.QC{Verdict: neuroscreen.VerdictPass}, FMRI: &neuroscreen.FMRI{}}, Metadata: neuroscreen.Metadata{SubjectID: "S"}}
	all := resources(t, p)
	if n := len(all["Observation"]); n != 1 || len(all["ImagingStudy"]) != 0 || len(all["RiskAssessment"]) != 0 {
		t.Errorf("%d observations, %d studies", n, len(all["ImagingStudy"]))
	}
	if said := all["DiagnosticReport"][0]["conclusion"].(string); strings.HasPrefix(said, "\n") || !strings.Contains(said, "BOLD") {
		t.Errorf("conclusion %q", said)
	}
}
