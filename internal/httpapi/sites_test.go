package httpapi

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"neuroscreen"
	"neuroscreen/internal/norm"
	"neuroscreen/internal/store"
)

func (e *env) putJSON(path, key, body string) *answer {
	e.Helper()
	return e.do(http.MethodPut, path, key, withBody("application/json", []byte(body)))
}

const (
	shiftBody = `{"schema":"neuroscreen.shift/1","name":"clinic","version":"1","layer":"site","segmenter":"neuroscreen","after":"neuroscreen-as-fs7@2","scanners":[{"scanner":"PRISMA"}],"source":"30 controls",
		"structures":{"Left-Hippocampus":{"n":30,"mean_z":-1,"sd_z":1.1}}}`
	recalibrationBody = `{"model":"alzheimers-scan","model_sha256":"ab","segmenter":"neuroscreen","intercept":-0.2,"slope":0.8,
		"covariance":[[0.04,0],[0,0.03]],"cases":30,"controls":40,"source":"30 and 40 people"}`
)

func TestSiteSettings(t *testing.T) {
	e := setup(t)
	key := e.a.keys[admin]
	const at = "/v1/sites/a"
	var s SiteSettings
	get := func(query string) SiteSettings {
		t.Helper()
		a := e.do("GET", at+"/settings"+query, key)
		a.want(200, "")
		var s SiteSettings
		a.json(&s)
		return s
	}
	if s = get(""); s.Version != 0 || s.Made != nil || s.Effective.AlzheimersFlaggedLR != 5 || s.Settings.AlzheimersFlaggedLR != 0 {
		t.Errorf("before any: %+v", s)
	}
	a := e.putJSON(at+"/settings", key, `{"replaces":0,"note":"a memory clinic","settings":{"alzheimers_priors":[{"from_age":60,"prior":0.286}],"conformal_error_rate":0.2}}`)
	a.want(200, "")
	a.json(&s)
	if s.Version != 1 || s.Made.Note != "a memory clinic" || s.Made.By != e.keyID(&e.a, admin).String() || s.Effective.ConformalErrorRate != 0.2 || s.Effective.AlzheimersPriors[0].Prior != 0.286 {
		t.Errorf("%+v", s)
	}
	e.putJSON(at+"/calibration", key, `{"replaces":1,"note":"our controls","site_shift":`+shiftBody+`,"recalibrations":[`+recalibrationBody+`]}`).want(200, "")
	// Thresholds and calibration leave one another alone.
	a = e.putJSON(at+"/settings", key, `{"replaces":2,"note":"as before","settings":{}}`)
	a.want(200, "")
	a.json(&s)
	if s.Version != 3 || s.SiteShift == nil || s.SiteShift.Structures["Left-Hippocampus"].MeanZ != -1 || len(s.Recalibrations) != 1 || s.Recalibrations[0].Slope != 0.8 {
		t.Errorf("%+v", s)
	}
	if s = get("?version=1"); s.Effective.ConformalErrorRate != 0.2 || s.SiteShift != nil {
		t.Errorf("version 1: %+v", s)
	}
	e.do("GET", at+"/settings?version=9", key).want(404, "settings-not-found")
	a = e.putJSON(at+"/calibration", key, `{"replaces":3,"note":"withdrawn"}`)
	a.want(200, "")
	a.json(&s)
	if s.SiteShift != nil || len(s.Recalibrations) != 0 {
		t.Errorf("%+v", s)
	}
	e.putJSON(at+"/settings", key, `{"replaces":3,"note":"late","settings":{}}`).want(409, "settings-changed")
	e.putJSON(at+"/settings", key, `{"replaces":77,"note":"early","settings":{}}`).want(409, "settings-changed")

	var notes []string
	cursor := ""
	for {
		var l SettingsVersionList
		a := e.do("GET", at+"/settings/versions?limit=3"+cursor, key)
		a.want(200, "")
		a.json(&l)
		for _, v := range l.Versions {
			notes = append(notes, v.Note)
		}
		if l.NextCursor == nil {
			break
		}
		cursor = "&cursor=" + *l.NextCursor
	}
	if got := strings.Join(notes, ", "); got != "withdrawn, as before, our controls, a memory clinic" {
		t.Errorf("%s", got)
	}
	var sites SiteList
	a = e.do("GET", "/v1/sites", e.a.keys[uploader])
	a.json(&sites)
	if len(sites.Sites) != 1 || sites.Sites[0].Name != "a" || sites.Sites[0].SettingsVersion != 4 {
		t.Errorf("%+v", sites)
	}
	if now, err := e.store.CurrentSettings(t.Context(), e.b.id); err != nil || now.Version != 0 {
		t.Errorf("the other site: %+v, %v", now, err)
	}
}

func TestSiteSettingsRefused(t *testing.T) {
	e := setup(t)
	for name, tt := range map[string]struct{ path, body, typ, field string }{
		"unknown threshold":      {"settings", `{"replaces":0,"note":"x","settings":{"alzheimers_lr":2}}`, "unknown-field", "alzheimers_lr"},
		"calibration beside":     {"settings", `{"replaces":0,"note":"x","settings":{"recalibrations":[]}}`, "unknown-field", "recalibrations"},
		"no note":                {"settings", `{"replaces":0,"note":"","settings":{}}`, "invalid-value", "note"},
		"threshold below 1":      {"settings", `{"replaces":0,"note":"x","settings":{"alzheimers_review_lr":0.5}}`, "invalid-settings", "alzheimers_review_lr"},
		"rate that is not there": {"settings", `{"replaces":0,"note":"x","settings":{"conformal_error_rate":0.15}}`, "invalid-settings", "conformal_error_rate"},
		"prior of 1":             {"settings", `{"replaces":0,"note":"x","settings":{"parkinsons_priors":[{"from_age":65,"prior":1}]}}`, "invalid-settings", "parkinsons_priors"},
		"shift of a segmenter":   {"calibration", `{"replaces":0,"note":"x","site_shift":` + strings.Replace(shiftBody, `"site"`, `"segmenter"`, 1) + `}`, "invalid-value", "site_shift.layer"},
		"shift beyond reason":    {"calibration", `{"replaces":0,"note":"x","site_shift":` + strings.Replace(shiftBody, `-1`, `-100`, 1) + `}`, "invalid-shift", "structures"},
		"no such version":        {"settings", `{"replaces":3000000000,"note":"x","settings":{}}`, "invalid-value", "replaces"},
		"no such version either": {"calibration", `{"replaces":3000000000,"note":"x"}`, "invalid-value", "replaces"},
		"too few people":         {"calibration", `{"replaces":0,"note":"x","recalibrations":[` + strings.Replace(recalibrationBody, `"cases":30`, `"cases":3`, 1) + `]}`, "invalid-settings", "recalibrations"},
	} {
		t.Run(name, func(t *testing.T) {
			e := e.in(t)
			a := e.putJSON("/v1/sites/a/"+tt.path, e.a.keys[admin], tt.body)
			a.want(400, tt.typ)
			if got := val(a.problem.Field); got != tt.field {
				t.Errorf("field %q, want %q", got, tt.field)
			}
		})
	}
}

func TestNormCurve(t *testing.T) {
	e := setup(t)
	key := e.a.keys[clinician]
	curve := func(query string) NormCurve {
		t.Helper()
		a := e.do("GET", "/v1/norms/curve?sex=F&intracranial_volume_mm3=1450000&"+query, key)
		a.want(200, "")
		var c NormCurve
		a.json(&c)
		return c
	}
	c := curve("structure=Left-Hippocampus")
	icv := 1.45e6
	want, err := norm.Default().Reference("Left-Hippocampus", norm.Person{AgeYears: 70, Sex: neuroscreen.Female, ICVMM3: &icv}, norm.Calibration{Segmenter: norm.Network})
	if err != nil {
		t.Fatal(err)
	}
	if p := c.Points[52]; len(c.Points) != 83 || p.AgeYears != 70 || p.ExpectedMm3 != want.ExpectedMM3 || p.P5Mm3 != want.P5MM3 || p.P95Mm3 != want.P95MM3 || c.AdjustsForSex {
		t.Errorf("%d points, %+v, want %+v", len(c.Points), p, want)
	}
	if c := curve("structure=Left-Putamen&from_age=60&to_age=70&step=5"); len(c.Points) != 3 || !c.AdjustsForSex || len(c.Norms) == 0 {
		t.Errorf("%+v", c)
	}
	// A local shift moves the curve, and an older version of the settings moves it back.
	e.putJSON("/v1/sites/a/calibration", e.a.keys[admin], `{"replaces":0,"note":"ours","site_shift":`+shiftBody+`}`).want(200, "")
	now, before := curve("structure=Left-Hippocampus"), curve("structure=Left-Hippocampus&settings_version=0")
	if now.SettingsVersion != 1 || now.Points[52].ExpectedMm3 >= c.Points[52].ExpectedMm3 || before.Points[52] != c.Points[52] || len(now.Norms) != len(before.Norms)+1 {
		t.Errorf("now %+v, before %+v", now.Points[52], before.Points[52])
	}
	if same, other := curve("structure=Left-Hippocampus&scanner=PRISMA"), curve("structure=Left-Hippocampus&scanner=SKYRA"); same.Points[52] != now.Points[52] || other.Points[52] != before.Points[52] {
		t.Errorf("on the controls' scanner %+v, on another %+v", same.Points[52], other.Points[52])
	}
	for query, typ := range map[string]string{
		"structure=Hippocampus":                             "no-norm",
		"structure=Left-Cerebral-Cortex":                    "no-norm",
		"structure=Left-Putamen&from_age=80&to_age=60":      "invalid-value",
		"structure=Left-Putamen&settings_version=9":         "settings-not-found",
		"structure=Left-Putamen&from_age=12":                "invalid-value",
		"structure=Left-Putamen&intracranial_volume_mm3=14": "invalid-value",
	} {
		if a := e.do("GET", "/v1/norms/curve?sex=F&intracranial_volume_mm3=1450000&"+query, key); a.status < 400 || a.problem.Type != "/problems/"+typ {
			t.Errorf("%s: %d %s, want %s", query, a.status, a.body, typ)
		}
	}
}

func TestTimeline(t *testing.T) {
	e := setup(t)
	for i, mm3 := range []float64{4000, 2000} {
		scan := e.post(&e.a, []part{{name: "metadata", body: metadata(map[string]any{"subject_id": "SUBJ-17", "scanner": "one", "scan_date": fmt.Sprintf("202%d-03-01", i)})},
			{name: "scan", body: image(t, int16(i))}})
		scan.want(202, "")
		var s Scan
		scan.json(&s)
		o := scoredOutcome(neuroscreen.FlagNone)
		o.Result.Volumes[0].MM3 = mm3
		e.finish(s.ID, o)
	}
	read := func(key, id string) Timeline {
		t.Helper()
		a := e.do("GET", "/v1/subjects/"+id+"/timeline", key)
		a.want(200, "")
		var tl Timeline
		a.json(&tl)
		return tl
	}
	tl := read(e.a.keys[clinician], "SUBJ-17")
	if len(tl.Visits) != 2 || len(tl.Changes) != 1 || tl.SubjectID != "SUBJ-17" {
		t.Fatalf("%+v", tl)
	}
	if c := tl.Changes[0]; c.MM3 != -2000 || c.Verdict != "smaller" || c.Detectable == nil || c.PercentPerYear == nil || *c.PercentPerYear > -49 || tl.Visits[0].ScanDate != "2020-03-01" {
		t.Errorf("%+v", c)
	}
	pseudonym := e.store.Pseudonym(e.a.id, "SUBJ-17")
	if tl := read(e.a.keys[researcher], pseudonym); tl.SubjectID != pseudonym || len(tl.Visits) != 2 {
		t.Errorf("a researcher gets %+v", tl)
	}
	e.do("GET", "/v1/subjects/SUBJ-17/timeline", e.a.keys[researcher]).want(404, "subject-not-found")
	e.do("GET", "/v1/subjects/"+pseudonym+"/timeline", e.a.keys[clinician]).want(404, "subject-not-found")
	// By scan, in the trail that an erasure leaves as it is.
	for _, v := range tl.Visits {
		entries, err := e.store.Audit(t.Context(), e.a.id, store.AuditFilter{Object: ptrTo("scan:" + v.ScanID)})
		if err != nil || !slices.ContainsFunc(entries, func(a store.AuditEntry) bool { return a.Action == "timeline.read" && a.Details == "version 1" }) {
			t.Errorf("%+v, %v", entries, err)
		}
	}
	all, err := e.store.Audit(t.Context(), e.a.id, store.AuditFilter{})
	if err != nil || len(all) == 0 || slices.ContainsFunc(all, func(a store.AuditEntry) bool { return strings.Contains(a.Object+a.Details, pseudonym) }) {
		t.Errorf("the trail of %d entries names the subject, %v", len(all), err)
	}
}
