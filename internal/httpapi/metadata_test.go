package httpapi

import (
	"math"
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
		"born on a leap day":         {birth: "1952-02-29", scan: "2023-02-28", want: 71},
		"both and they agree":        {given: f(74), birth: "1950-01-15", scan: "2024-06-01", want: 74},
		"both and they contradict":   {given: f(47), birth: "1950-01-15", scan: "2024-06-01", typ: "age-contradicts-dates", field: "age_years"},
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
		m, err := s.decodeMetadata(data)
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
