package httpapi

import (
	"encoding/json"
	"testing"

	"neuroscreen"
)

// TestRefusal: a series that a gateway cannot hand over stands in the worklist,
// once, and cannot be analysed.
func TestRefusal(t *testing.T) {
	e := setup(t)
	key := e.a.keys[uploader]
	body := func(code string, changes map[string]any) []byte {
		b, err := json.Marshal(map[string]any{"metadata": json.RawMessage(metadata(changes)), "code": code})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	post := func(b []byte) *answer { return e.do("POST", "/v1/refusals", key, withBody("application/json", b)) }
	series := map[string]any{"series_instance_uid": "1.2.3", "age_years": nil, "sex": "", "accession_number": "ACC-1"}
	a := post(body("no-image", series))
	a.want(201, "")
	var scan Scan
	a.json(&scan)
	if a.header.Get("Location") != "/v1/scans/"+scan.ID.String() || scan.State != neuroscreen.Refused || scan.Reasons[0].Code != "no-image" || scan.Bytes != 0 || scan.BytesRemovedAt != nil {
		t.Errorf("%s %+v", a.header.Get("Location"), scan)
	}
	var list CaseList
	e.do("GET", "/v1/cases?group=ended", e.a.keys[clinician]).json(&list)
	if len(list.Cases) != 1 || list.Cases[0].ID != scan.ID || list.Cases[0].SubjectID != "SUBJ-17" || val(list.Cases[0].AccessionNumber) != "ACC-1" || list.Cases[0].Why != scan.Reasons[0].Text {
		t.Errorf("%+v", list)
	}
	t.Run("said again it is the same", func(t *testing.T) {
		series["age_years"], series["sex"] = 71, "F" // the source was corrected meanwhile
		a := post(body("no-image", series))
		a.want(200, "")
		var again Scan
		a.json(&again)
		if again.ID != scan.ID || again.State != neuroscreen.Refused {
			t.Errorf("%+v", again)
		}
	})
	t.Run("there is nothing to analyse", func(t *testing.T) {
		e := e.in(t)
		at := "/v1/scans/" + scan.ID.String()
		e.do("POST", at+"/retry", e.a.keys[clinician]).want(409, "no-bytes")
		e.do("PATCH", at, e.a.keys[clinician], withBody("application/json", []byte(`{"age_years":70,"sex":"M"}`))).want(409, "no-bytes")
		e.do("GET", at+"/image.nii.gz", e.a.keys[clinician]).want(409, "no-bytes")
		var scan Scan
		e.do("GET", at, e.a.keys[clinician]).want(200, "").json(&scan)
		if scan.BytesRemovedAt != nil {
			t.Errorf("bytes that never came were removed at %v", scan.BytesRemovedAt)
		}
		e.do("GET", at+"/result", e.a.keys[clinician]).want(409, "scan-refused")
	})
	t.Run("the series itself is another scan", func(t *testing.T) {
		if got := e.in(t).upload(&e.a, "SUBJ-17", 1); got.ID == scan.ID || got.State != neuroscreen.Received {
			t.Errorf("%+v", got)
		}
	})
	t.Run("what is wrong is refused", func(t *testing.T) {
		post(body("because", series)).want(400, "invalid-value")
		post(body("no-image", map[string]any{"subject_id": nil})).want(400, "missing-field")
	})
	t.Run("what it stands under cannot be guessed", func(t *testing.T) {
		e := e.in(t)
		unnamed := e.do("POST", "/v1/refusals", key, withBody("application/json", body("no-image", nil)))
		unnamed.want(201, "")
		var one, other Scan
		unnamed.json(&one)
		e.do("POST", "/v1/refusals", e.b.keys[uploader], withBody("application/json", body("no-image", nil))).json(&other)
		if one.Sha256 == other.Sha256 || one.Sha256 == "" {
			t.Errorf("two sites' hashes of one series: %q and %q", one.Sha256, other.Sha256)
		}
	})
	t.Run("another site's is another", func(t *testing.T) {
		e := e.in(t)
		a := e.do("POST", "/v1/refusals", e.b.keys[uploader], withBody("application/json", body("no-image", series)))
		a.want(201, "")
	})
	t.Run("it can be erased", func(t *testing.T) {
		e := e.in(t)
		e.do("DELETE", "/v1/scans/"+scan.ID.String(), e.a.keys[admin]).want(204, "")
	})
}
