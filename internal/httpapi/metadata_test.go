package httpapi

import (
	"math"
	"net/http"
	"slices"
	"testing"
	"time"

	"neuroscreen"
)

var today = time.Date(2025, 3, 1, 12, 0, 0, 0, time.UTC)

func TestAge(t *testing.T) {
	f := func(v float64) *float64 { return &v }
	for name, tt := range map[string]struct {
		given       *float64
		birth, scan string
		want        float64 // NaN for none
		typ, field  string
	}{
		"given":                      {given: f(71.25), want: 71.25},
		"given with scan date":       {given: f(71), scan: "2024-01-01", want: 71},
		"neither":                    {want: math.NaN()},
		"from dates, to a tenth":     {birth: "1950-01-15", scan: "2024-06-01", want: 74.4},
		"on the birthday":            {birth: "1950-01-15", scan: "2020-01-15", want: 70},
		"on the eve of being of age": {birth: "2002-06-02", scan: "2020-06-01", want: 17.9},
		"of age today":               {birth: "2002-06-01", scan: "2020-06-01", want: 18},
		"born on a leap day":         {birth: "1952-02-29", scan: "2023-02-28", want: 71},
		"both and they agree":        {given: f(74), birth: "1950-01-15", scan: "2024-06-01", want: 74},
		"both and they contradict":   {given: f(47), birth: "1950-01-15", scan: "2024-06-01", typ: "age-contradicts-dates", field: "age_years"},
		"of age before the birthday": {given: f(18), birth: "2006-09-01", scan: "2024-01-01", typ: "age-contradicts-dates", field: "age_years"},
		"of age on the eve":          {given: f(18), birth: "2002-06-02", scan: "2020-06-01", typ: "age-contradicts-dates", field: "age_years"},
		"of age on the birthday":     {given: f(18), birth: "2002-06-01", scan: "2020-06-01", want: 18},
		"a minor by both":            {given: f(17), birth: "2006-09-01", scan: "2024-01-01", want: 17},
		"a minor by the given age":   {given: f(17.9), birth: "2002-06-01", scan: "2020-06-01", want: 17.9},
		"birth date alone":           {birth: "1950-01-15", typ: "missing-field", field: "scan_date"},
		"no such day":                {birth: "1950-02-30", scan: "2024-06-01", typ: "invalid-date", field: "birth_date"},
		"no such month":              {birth: "1950-01-15", scan: "2024-13-01", typ: "invalid-date", field: "scan_date"},
		"scan in the future":         {given: f(71), scan: "2026-01-01", typ: "invalid-date", field: "scan_date"},
		"scan tomorrow, other zones": {given: f(71), scan: "2025-03-02", want: 71},
		"born after the scan":        {birth: "2024-06-02", scan: "2024-06-01", typ: "invalid-date", field: "birth_date"},
		"130 years and more":         {birth: "1885-01-01", scan: "2024-06-01", typ: "invalid-date", field: "birth_date"},
		"year typed badly":           {birth: "0195-01-15", scan: "2024-06-01", typ: "invalid-date", field: "birth_date"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ageOf(tt.given, tt.birth, tt.scan, today)
			if tt.typ != "" {
				if e := asError(err); e == nil || e.Type != tt.typ || e.Field != tt.field || e.Code != neuroscreen.CodeInvalid {
					t.Fatalf("error %v, want %s of %s", err, tt.typ, tt.field)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if math.IsNaN(tt.want) {
				if got != nil {
					t.Fatalf("age %v, want none", *got)
				}
				return
			}
			if got == nil || math.Abs(*got-tt.want) > 1e-9 {
				t.Fatalf("age %v, want %v", got, tt.want)
			}
		})
	}
}

// TestBirthDateCannotBeHadBack: with age and scan date kept, many birth dates
// remain possible.
func TestBirthDateCannotBeHadBack(t *testing.T) {
	count := map[float64]int{}
	scan := time.Date(2024, 6, 1, 0, 0, 0, 0, time.UTC)
	for d := range 365 {
		birth := time.Date(1950, 1, 1+d, 0, 0, 0, 0, time.UTC)
		age, err := ageOf(nil, birth.Format(time.DateOnly), scan.Format(time.DateOnly), today)
		if err != nil {
			t.Fatal(err)
		}
		count[*age]++
	}
	if len(count) > 11 {
		t.Errorf("%d different ages from a year's birth dates", len(count))
	}
}

func TestMetadataDiff(t *testing.T) {
	age, other := 70.0, 71.0
	a := neuroscreen.Metadata{SubjectID: "S", Sex: "F", AgeYears: &age, Scanner: "X", AccessionNumber: "1"}
	b := neuroscreen.Metadata{SubjectID: "S", Sex: "M", AgeYears: &other, Manufacturer: "Y"}
	got := metadataDiff(a, b)
	want := []string{"age_years", "manufacturer", "scanner", "sex"}
	if len(got) != len(want) {
		t.Fatalf("%v, want %v", got, want)
	}
	for n := range want {
		if got[n] != want[n] {
			t.Fatalf("%v, want %v", got, want)
		}
	}
	if d := metadataDiff(a, a); len(d) != 0 {
		t.Errorf("differs from itself: %v", d)
	}
}

func TestParseDigest(t *testing.T) {
	const good = "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:"
	for name, tt := range map[string]struct {
		header string
		bytes  int
		bad    bool
	}{
		"none":                     {"", 0, false},
		"sha-256":                  {good, 32, false},
		"beside another algorithm": {"sha-512=:AAAA:, " + good, 32, false},
		"with a parameter":         {good + ";a=1", 32, false},
		"only another algorithm":   {"sha-512=:AAAA:", 0, true},
		"hex":                      {"sha-256=5f8f04f6a3a892aaabbddb6cf273894493773960d4a325b105fee46eef4304f1", 0, true},
		"no colons":                {"sha-256=X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=", 0, true},
		"too short":                {"sha-256=:AAAA:", 0, true},
		"not base64":               {"sha-256=:****:", 0, true},
		"old Digest header's form": {"SHA-256=X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=", 0, true},
		"a word":                   {"yes", 0, true},
		"one colon":                {"sha-256=:", 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseDigest(tt.header)
			if (err != nil) != tt.bad || len(got) != tt.bytes {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			if err != nil && asError(err).Type != "invalid-digest" {
				t.Errorf("type %q", asError(err).Type)
			}
		})
	}
}

// FuzzMetadata: whatever is sent, what is accepted has an age and a subject,
// and no birth date; what is refused names a type that has a page.
func FuzzMetadata(f *testing.F) {
	s, err := New(Config{Now: func() time.Time { return today }})
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{
		string(metadata(nil)), `{}`, `null`, `[{}]`, `{"subject_id":1}`, `{"subject_id":"x","sex":"F","modality":"T1w","age_years":1e400}`,
		string(metadata(map[string]any{"age_years": nil, "birth_date": "1950-02-28", "scan_date": "2020-02-29"})),
		`{"subject_id":"x","subject_id":"","sex":"F","modality":"T1w","age_years":50}`, "{\"subject_id\":\"\u0000\"}", `{"a":{"b":[1,{"c":"\u0001"}]}}`,
		`{"SUBJECT_ID":"x"}`, `{"subject_id":"x","sex":"F","modality":"T1w","age_years":50,"Age_Years":3}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := s.decodeMetadata(data, false)
		if err != nil {
			e := asError(err)
			if _, ok := problemDocs[e.Type]; !ok || e.Code != neuroscreen.CodeInvalid {
				t.Errorf("%v", err)
			}
			return
		}
		if m.AgeYears == nil || !(*m.AgeYears >= 0 && *m.AgeYears <= 130) || m.SubjectID == "" || m.BirthDate != "" ||
			(m.Sex != neuroscreen.Female && m.Sex != neuroscreen.Male) || (m.Modality != neuroscreen.T1w && m.Modality != neuroscreen.BOLD) {
			t.Errorf("accepted: %+v", m)
		}
	})
}

// TestLenientPost: a gateway's scan without age or sex is taken and refused
// where people look, and PATCH has it analysed.
func TestLenientPost(t *testing.T) {
	lenientHandling := header("Prefer", "respond-async, Handling=lenient")
	e := setup(t)
	post := func(seed int16, changes map[string]any, edit ...func(*http.Request)) *answer {
		return e.post(&e.a, []part{{name: "metadata", body: metadata(changes)}, {name: "scan", file: "x.nii.gz", body: image(t, seed)}}, edit...)
	}
	refused := func(t *testing.T, a *answer, codes ...string) Scan {
		t.Helper()
		a.want(202, "")
		var scan Scan
		a.json(&scan)
		var got []string
		for _, r := range scan.Reasons {
			got = append(got, r.Code)
		}
		if scan.State != neuroscreen.Refused || !slices.Equal(got, codes) {
			t.Errorf("%s %v, want refused %v", scan.State, got, codes)
		}
		return scan
	}
	t.Run("without the header the post is refused", func(t *testing.T) {
		post(1, map[string]any{"sex": ""}).want(400, "missing-field")
		post(1, map[string]any{"age_years": nil}).want(400, "missing-field")
		post(1, map[string]any{"age_years": nil}, header("Prefer", "handling=strict")).want(400, "missing-field")
	})
	t.Run("with it the scan is, and stands in the worklist", func(t *testing.T) {
		scan := refused(t, post(1, map[string]any{"sex": "", "age_years": nil}, lenientHandling), "missing-age", "missing-sex")
		var list CaseList
		e.do("GET", "/v1/cases?group=ended", e.a.keys[clinician]).json(&list)
		if len(list.Cases) != 1 || list.Cases[0].ID != scan.ID || list.Cases[0].Sex != "" || list.Cases[0].Why != scan.Reasons[0].Text {
			t.Errorf("%+v", list)
		}
		a := e.do("PATCH", "/v1/scans/"+scan.ID.String(), e.a.keys[clinician], withBody("application/json", []byte(`{"age_years":71,"sex":"F"}`)))
		a.want(200, "")
		a.json(&scan)
		if scan.State != neuroscreen.Received {
			t.Errorf("after the correction it is %s", scan.State)
		}
		e.finish(scan.ID, scoredOutcome(neuroscreen.FlagNone))
	})
	t.Run("dates that cannot be right give no age", func(t *testing.T) {
		scan := refused(t, post(2, map[string]any{"age_years": nil, "birth_date": "2020-01-01", "scan_date": "2010-01-01"}, lenientHandling), "missing-age")
		if scan.Metadata.ScanDate != "2010-01-01" || scan.Metadata.BirthDate != "" {
			t.Errorf("%+v", scan.Metadata)
		}
		scan = refused(t, post(3, map[string]any{"age_years": nil, "birth_date": "1950-01-01", "scan_date": "2999-01-01"}, lenientHandling), "missing-age")
		if scan.Metadata.ScanDate != "" {
			t.Errorf("the scan date is kept: %+v", scan.Metadata)
		}
	})
	t.Run("raw", func(t *testing.T) {
		refused(t, e.do("POST", "/v1/scans?subject_id=S&age_years=71&modality=T1w", e.a.keys[uploader],
			withBody("application/octet-stream", image(t, 4)), lenientHandling), "missing-sex")
	})
	t.Run("in pieces", func(t *testing.T) {
		key, file := e.a.keys[uploader], image(t, 5)
		at := e.begin(key, len(file))
		e.piece(at, key, 0, file).want(204, "")
		refused(t, e.do("POST", at+"/scan", key, withBody("application/json", metadata(map[string]any{"sex": ""})), header("Content-Digest", digestOf(file)), lenientHandling), "missing-sex")
	})
	t.Run("a subject and a modality are always needed", func(t *testing.T) {
		post(6, map[string]any{"subject_id": nil}, lenientHandling).want(400, "missing-field")
		post(6, map[string]any{"modality": nil}, lenientHandling).want(400, "missing-field")
	})
}
