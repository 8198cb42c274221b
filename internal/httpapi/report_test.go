package httpapi

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"neuroscreen"
	"neuroscreen/internal/memory"
)

// TestReportOfVisits: a report compares with the visits before its own, and
// with none of another site; to read them is in the trail.
func TestReportOfVisits(t *testing.T) {
	e := setup(t)
	var scans []Scan
	for n, year := range []int{2020, 2022, 2024} {
		a := e.post(&e.a, []part{{name: "metadata", body: metadata(map[string]any{"subject_id": "S", "age_years": 70 + 2*n, "scan_date": fmt.Sprintf("%d-03-01", year)})},
			{name: "scan", file: "x.nii.gz", body: image(e, int16(n))}})
		a.want(202, "")
		var scan Scan
		a.json(&scan)
		o := scoredOutcome(neuroscreen.FlagNone)
		o.Result.Volumes[0].MM3 -= 900 * float64(n/2)
		e.finish(scan.ID, o)
		scans = append(scans, scan)
	}
	elsewhere := e.upload(&e.b, "S", 9)
	report := func(n int) string {
		a := e.do("GET", "/v1/scans/"+scans[n].ID.String()+"/report.html", e.a.keys[clinician])
		a.want(200, "")
		return string(a.body)
	}
	if strings.Contains(report(0), "earlier visits") {
		t.Error("the first visit is compared with later ones")
	}
	if page := report(1); !strings.Contains(page, "Since 2020-03-01") || strings.Contains(page, "2024-03-01") || strings.Contains(page, "smaller") {
		t.Error("the second visit is not compared with the first alone")
	}
	if page := report(2); !strings.Contains(page, "Since 2022-03-01") || !strings.Contains(page, "Since 2020-03-01") || strings.Count(page, ">smaller<") != 2 {
		t.Error("the third visit is not compared with both before it")
	}
	reads := func(action string, want int) {
		t.Helper()
		trail := string(e.do("GET", "/v1/audit?limit=200", e.a.keys[admin]).body)
		if n := strings.Count(trail, `"`+action+`"`); n != want || strings.Contains(trail, elsewhere.ID.String()) {
			t.Errorf("%d reads %s, want %d: %.2000s", n, action, want, trail)
		}
	}
	reads("report.read", 1+2+3) // each with the visits that it shows
	e.do("GET", "/v1/scans/"+scans[2].ID.String()+"/fhir", e.a.keys[clinician]).want(200, "")
	e.do("GET", "/v1/scans/"+scans[2].ID.String()+"/seg.dcm", e.a.keys[clinician]).want(409, "no-dicom-source")
	reads("report.read", 1+2+3+1)
	reads("segmentation.read", 0)
}

// TestFHIR: systems that file measurements learn whom they are of, whether
// anybody has accepted them, and that they are withdrawn.
func TestFHIR(t *testing.T) {
	e := setup(t)
	key := e.a.keys[clinician]
	scan := e.upload(&e.a, "SUBJ-17", 1)
	at := "/v1/scans/" + scan.ID.String() + "/fhir"
	e.do("GET", at, key).want(409, "not-ready")
	e.finish(scan.ID, scoredOutcome(neuroscreen.FlagFlagged))
	read := func(of, reports string, identifier bool) {
		t.Helper()
		a := e.do("GET", at, of)
		a.want(200, "")
		if got := a.header.Get("Content-Type"); got != "application/fhir+json" {
			t.Errorf("Content-Type %q", got)
		}
		var bundle struct {
			Entry []struct {
				Resource struct{ ResourceType, Status string }
			}
		}
		a.json(&bundle)
		if first := bundle.Entry[0].Resource; first.ResourceType != "DiagnosticReport" || first.Status != reports {
			t.Errorf("first is %+v, want a report that is %s", first, reports)
		}
		if strings.Contains(string(a.body), "SUBJ-17") != identifier {
			t.Errorf("the posted identifier: want %v", identifier)
		}
		e.do("GET", at, of, header("If-None-Match", a.header.Get("ETag"))).want(304, "")
	}
	read(key, "preliminary", true)
	read(e.a.keys[researcher], "preliminary", false)
	e.json("POST", "/v1/cases/"+scan.ID.String()+"/review", key, `{"decision":"accept","run":1,"seen":0}`).want(201, "")
	read(key, "final", true)
	e.json("POST", "/v1/cases/"+scan.ID.String()+"/review", key, `{"decision":"reject","comment":"labels beside the anatomy","run":1,"seen":1}`).want(201, "")
	read(key, "entered-in-error", true)
}

// TestLabelsForAPACSWaitForMemory that others take, for a while.
func TestLabelsForAPACSWaitForMemory(t *testing.T) {
	gate := memory.NewGate(9 * 2 * 2 * 2) // of the test's label map exactly
	e := setup(t, func(c *Config) { c.Memory, c.MemoryIn = gate, 50*time.Millisecond })
	scan := e.fromDICOM()
	e.finish(scan.ID, scoredOutcome(neuroscreen.FlagNone))
	at := "/v1/scans/" + scan.ID.String() + "/seg.dcm"
	leave, err := gate.Enter(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	e.do("GET", at, e.a.keys[clinician]).want(503, "memory-busy")
	leave()
	e.do("GET", at, e.a.keys[clinician]).want(200, "")
	wantEmpty(t, gate)
}

func TestLabelsLargerThanMemory(t *testing.T) {
	e := setup(t, func(c *Config) { c.Memory = memory.NewGate(9*2*2*2 - 1) })
	scan := e.fromDICOM()
	e.finish(scan.ID, scoredOutcome(neuroscreen.FlagNone))
	e.do("GET", "/v1/scans/"+scan.ID.String()+"/seg.dcm", e.a.keys[clinician]).want(422, "too-many-voxels")
}

// fromDICOM posts a scan with all that a PACS needs to know of it.
func (e *env) fromDICOM() (scan Scan) {
	e.Helper()
	e.post(&e.a, []part{{name: "metadata", body: metadata(map[string]any{
		"study_instance_uid": "1.2.3", "series_instance_uid": "1.2.3.4", "frame_of_reference_uid": "1.2.3.5",
	})}, {name: "scan", file: "x.nii.gz", body: image(e, 2)}}).want(202, "").json(&scan)
	return scan
}

// TestDICOMReferencesComeLater, with a repeated post of the scan.
func TestDICOMReferencesComeLater(t *testing.T) {
	e := setup(t)
	scan := e.upload(&e.a, "S", 1)
	e.finish(scan.ID, scoredOutcome(neuroscreen.FlagNone))
	at := "/v1/scans/" + scan.ID.String() + "/sr.dcm"
	e.do("GET", at, e.a.keys[clinician]).want(409, "no-dicom-source")
	again := func(references map[string]any, differ ...string) {
		t.Helper()
		references["subject_id"] = "S"
		var got Scan
		e.post(&e.a, []part{{name: "metadata", body: metadata(references)}, {name: "scan", body: image(t, 1)}}).want(200, "").json(&got)
		if got.ID != scan.ID || got.Metadata.SeriesInstanceUID != "1.2.3.4" || !slices.Equal(got.MetadataDiffers, differ) {
			t.Errorf("%v: %+v", references, got)
		}
	}
	again(map[string]any{"study_instance_uid": "1.2.3", "series_instance_uid": "1.2.3.4"})
	e.do("GET", at, e.a.keys[clinician]).want(200, "")
	again(map[string]any{})
	again(map[string]any{"accession_number": "A"})
	again(map[string]any{"study_instance_uid": "1.2.3", "series_instance_uid": "1.2.3.5", "frame_of_reference_uid": "1.2.3.6"}, "frame_of_reference_uid", "series_instance_uid")
}

// TestDICOM: a PACS gets objects for a study that the post named, of the stored
// labels, and none of a result that must not be used.
func TestDICOM(t *testing.T) {
	e := setup(t)
	key := e.a.keys[clinician]
	plain := e.upload(&e.a, "SUBJ-1", 1)
	e.finish(plain.ID, scoredOutcome(neuroscreen.FlagFlagged))
	scan := e.fromDICOM()
	for _, name := range []string{"sr.dcm", "seg.dcm"} {
		e.do("GET", "/v1/scans/"+plain.ID.String()+"/"+name, key).want(409, "no-dicom-source")
		e.do("GET", "/v1/scans/"+scan.ID.String()+"/"+name, key).want(409, "not-ready")
	}
	e.finish(scan.ID, scoredOutcome(neuroscreen.FlagFlagged))
	for name, holds := range map[string][]string{"sr.dcm": {"SUBJ-17", "1.2.3.4", "Left hippocampus", "PRELIMINARY"}, "seg.dcm": {"SUBJ-17", "1.2.3.5", "Left hippocampus"}} {
		at := "/v1/scans/" + scan.ID.String() + "/" + name
		a := e.do("GET", at, key)
		a.want(200, "")
		if got := a.header.Get("Content-Type"); got != "application/dicom" || string(a.body[128:132]) != "DICM" {
			t.Errorf("%s: Content-Type %q, %.140q", name, got, a.body)
		}
		for _, needed := range holds {
			if !strings.Contains(string(a.body), needed) {
				t.Errorf("%s lacks %q", name, needed)
			}
		}
		e.do("GET", at, key, header("If-None-Match", a.header.Get("ETag"))).want(304, "")
		e.do("GET", at, e.a.keys[researcher]).want(403, "role-not-allowed")
	}
	e.json("POST", "/v1/cases/"+scan.ID.String()+"/review", key, `{"decision":"accept","run":1,"seen":0}`).want(201, "")
	if a := e.do("GET", "/v1/scans/"+scan.ID.String()+"/sr.dcm", key); !strings.Contains(string(a.body), "FINAL") {
		t.Error("an accepted report is not final")
	}
	e.json("POST", "/v1/cases/"+scan.ID.String()+"/review", key, `{"decision":"reject","comment":"labels beside the anatomy","run":1,"seen":1}`).want(201, "")
	for _, name := range []string{"sr.dcm", "seg.dcm"} {
		e.do("GET", "/v1/scans/"+scan.ID.String()+"/"+name, key).want(409, "result-withdrawn")
	}
}
