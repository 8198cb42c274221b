package httpapi

import (
	"fmt"
	"strings"
	"testing"

	"neuroscreen"
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
	trail := string(e.do("GET", "/v1/audit", e.a.keys[admin]).body)
	// Each of the three reports was made of all visits.
	if strings.Count(trail, "report.read") != 3*(1+len(scans)) || strings.Contains(trail, elsewhere.ID.String()) {
		t.Errorf("%.2000s", trail)
	}
}
