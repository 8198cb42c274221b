package table

import (
	"bytes"
	"encoding/csv"
	"math"
	"os"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"neuroscreen"
	"neuroscreen/internal/norm"
	"neuroscreen/internal/testdata"
)

const header = "id,age,sex,EstimatedTotalIntraCranialVol,Left-Hippocampus,Right-Hippocampus"

// scoreTable scores a table and returns the output's rows by column name.
func scoreTable(t testing.TB, in string, o Options) []map[string]string {
	t.Helper()
	var out bytes.Buffer
	if err := Score(strings.NewReader(in), &out, o); err != nil {
		t.Fatal(err)
	}
	return parse(t, out.String())
}

func parse(t testing.TB, s string) []map[string]string {
	t.Helper()
	rows, err := csv.NewReader(strings.NewReader(s)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var out []map[string]string
	for _, r := range rows[1:] {
		m := map[string]string{}
		for i, h := range rows[0] {
			m[h] = r[i]
		}
		out = append(out, m)
	}
	return out
}

func TestColumns(t *testing.T) {
	want := "id,alzheimers_lr,alzheimers_lr_low,alzheimers_lr_high,alzheimers_posterior,alzheimers_flag,alzheimers_abstained," +
		"parkinsons_lr,parkinsons_lr_low,parkinsons_lr_high,parkinsons_posterior,parkinsons_flag,parkinsons_abstained," +
		"mesial_temporal_sclerosis_lr,mesial_temporal_sclerosis_lr_low,mesial_temporal_sclerosis_lr_high,mesial_temporal_sclerosis_posterior,mesial_temporal_sclerosis_flag,mesial_temporal_sclerosis_abstained"
	if got := strings.Join(Columns(), ","); got != want {
		t.Errorf("columns\n%s\nwant\n%s", got, want)
	}
}

func TestScore(t *testing.T) {
	in := header + ",Left-Putamen,Right-Putamen,Left-Amygdala,Left-Thalamus-Proper,nWBV,note\n" +
		"well,74,F,1450000,3650,3750,4300,4250,1400,6500,0.75,\"a, b\"\n" +
		"ill,76,M,1500000,2200,2250,4300,4250,1000,6500,0.68,\n" +
		"young,30,female,1450000,3900,4000,,,,,,\n" +
		"one side,40,m,1500000,1438,4848,,,,,,\n"
	r := scoreTable(t, in, Options{Segmenter: norm.FreeSurfer6})
	if len(r) != 4 || r[0]["id"] != "well" || r[3]["id"] != "one side" {
		t.Fatalf("%v", r)
	}
	if r[0]["alzheimers_flag"] != "none" || r[1]["alzheimers_flag"] != "flagged" {
		t.Errorf("Alzheimer's flags %s, %s", r[0]["alzheimers_flag"], r[1]["alzheimers_flag"])
	}
	lr, lo, hi := value(t, r[1]["alzheimers_lr"]), value(t, r[1]["alzheimers_lr_low"]), value(t, r[1]["alzheimers_lr_high"])
	post := value(t, r[1]["alzheimers_posterior"])
	if !(lo < lr && lr < hi) {
		t.Errorf("interval %g %g %g", lo, lr, hi)
	}
	if odds := 0.131 / (1 - 0.131) * lr; math.Abs(post-odds/(1+odds)) > 1e-9 {
		t.Errorf("posterior %g of LR %g", post, lr)
	}
	if r[0]["parkinsons_lr"] == "" || r[0]["parkinsons_abstained"] != "" {
		t.Errorf("Parkinson's abstained: %s", r[0]["parkinsons_abstained"])
	}
	if r[2]["alzheimers_lr"] != "" || !strings.Contains(r[2]["alzheimers_abstained"], "the age is outside") || r[2]["mesial_temporal_sclerosis_flag"] != "none" {
		t.Errorf("a healthy person of 30: %v", r[2])
	}
	if r[3]["mesial_temporal_sclerosis_flag"] != "flagged" || r[3]["mesial_temporal_sclerosis_posterior"] != "" {
		t.Errorf("one small hippocampus: %v", r[3])
	}
}

func value(t testing.TB, s string) float64 {
	t.Helper()
	v, err := strconv.ParseFloat(s, 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestMissingValuesAbstain(t *testing.T) {
	for name, tc := range map[string]struct{ row, want string }{
		"head size empty":         {"a,70,F,,3500,3600", "head size"},
		"head size in cm3":        {"a,70,F,1450,3500,3600", "cm3"},
		"hippocampus NaN":         {"a,70,F,1450000,NaN,3600", "Left-Hippocampus has no volume"},
		"hippocampus zero":        {"a,70,F,1450000,0,3600", "Left-Hippocampus has no volume"},
		"hippocampus n/a":         {"a,70,F,1450000,3500,n/a", "Right-Hippocampus has no volume"},
		"age empty":               {"a,,F,1450000,3500,3600", "age is missing"},
		"sex NA":                  {"a,70,NA,1450000,3500,3600", "sex is missing"},
		"age beyond the evidence": {"a,99,F,1450000,3500,3600", "the age is outside"},
	} {
		t.Run(name, func(t *testing.T) {
			r := scoreTable(t, header+"\n"+tc.row+"\n", Options{})[0]
			if r["alzheimers_lr"] != "" || r["alzheimers_flag"] != "none" || !strings.Contains(r["alzheimers_abstained"], tc.want) {
				t.Errorf("%v", r)
			}
		})
	}
}

// Volumes in ml are nobody's: no score, rather than a flag for everybody.
func TestVolumesInMLAbstain(t *testing.T) {
	in := header + "\nml,74,F,1450000,3.65,3.75\nmm3,74,F,1450000,3650,3750\nlitres,74,F,1450000,3650,375000\n"
	for _, r := range scoreTable(t, in, Options{Segmenter: norm.FreeSurfer7}) {
		for _, c := range []string{"alzheimers", "mesial_temporal_sclerosis"} {
			withheld := strings.Contains(r[c+"_abstained"], "mm3")
			if withheld != (r["id"] != "mm3") || withheld && (r[c+"_lr"] != "" || r[c+"_flag"] != "none") {
				t.Errorf("%s, %s: LR %s, flag %s, %s", r["id"], c, r[c+"_lr"], r[c+"_flag"], r[c+"_abstained"])
			}
		}
	}
}

func TestWrongTables(t *testing.T) {
	for name, tc := range map[string]struct{ in, typ, want string }{
		"empty":                     {"", "empty-table", "first line must name"},
		"no id column":              {"age,sex,Left-Hippocampus\n70,F,3500\n", "missing-column", `no column "id"`},
		"no age column":             {"id,sex,Left-Hippocampus\na,F,3500\n", "missing-column", `no column "age"`},
		"no volume at all":          {"id,age,sex\na,70,F\n", "missing-column", "no volume"},
		"head size by another name": {"id,age,sex,eTIV,Left-Hippocampus\na,70,F,1450,3500\n", "missing-column", "rename it once it is in mm3"},
		"column twice":              {header + ",left-hippocampus\na,70,F,1450000,1,2,3\n", "duplicate-column", "columns 5 and 7"},
		"thalamus by both names":    {header + ",Left-Thalamus,Left-Thalamus-Proper\na,70,F,1450000,1,2,3,4\n", "duplicate-column", "columns 7 and 8"},
		"id twice":                  {header + "\na,70,F,1,1,1\nb,70,F,1,1,1\na,71,M,1,1,1\n", "duplicate-id", "line 4: the id \"a\" stands in line 2"},
		"id empty":                  {header + "\n,70,F,1450000,3500,3600\n", "invalid-value", "line 2: the id is empty"},
		"unknown segmenter":         {header + ",segmenter\na,70,F,1450000,3500,3600,fastsurfer\n", "invalid-value", "not a known segmenter; use one of"},
		"sex by number":             {header + "\na,70,1,1450000,3500,3600\n", "invalid-value", "neither F nor M"},
		"letters for a volume":      {header + "\na,70,F,1450000,abc,3600\n", "invalid-value", `line 2, column "Left-Hippocampus": "abc" is not a number`},
		"infinite volume":           {header + "\na,70,F,1450000,Inf,3600\n", "invalid-value", "not a number"},
		"negative volume":           {header + "\na,70,F,1450000,-3,3600\n", "invalid-value", "negative"},
		"decimal comma":             {"id;age;sex;EstimatedTotalIntraCranialVol;Left-Hippocampus;nWBV\na;70;F;1450000;3500;0,75\n", "invalid-value", "decimal point"},
		"too few cells":             {header + "\na,70,F\n", "ragged-table", "line 2"},
		"open quote":                {header + "\n\"a,70,F,1,1,1\n", "unreadable-table", "not CSV"},
		"aseg.stats without age":    {"# Title Segmentation Statistics\n# ColHeaders Index SegId NVoxels Volume_mm3 StructName\n 1 17 1 3500 Left-Hippocampus\n", "missing-field", "neither age nor sex"},
		"comment and nothing":       {"# Title Segmentation Statistics\n", "unreadable-aseg", "no structure"},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			err := Score(strings.NewReader(tc.in), &out, Options{})
			e := neuroscreen.AsError(err)
			if e == nil || e.Type != tc.typ || e.Code != neuroscreen.CodeInvalid || !strings.Contains(e.Message, tc.want) {
				t.Errorf("got %v", err)
			}
			if out.Len() != 0 {
				t.Errorf("wrote %q before failing", out.String())
			}
		})
	}
}

func TestTablesAsTheyCome(t *testing.T) {
	want := scoreTable(t, header+"\na,70,F,1450000,3500,3600\n", Options{})
	for name, in := range map[string]string{
		"byte order mark and CRLF":  "\xef\xbb\xbf" + header + "\r\na,70,F,1450000,3500,3600\r\n",
		"tabs":                      strings.ReplaceAll(header+"\na,70,F,1450000,3500,3600\n", ",", "\t"),
		"tabs, an empty cell":       strings.ReplaceAll("note,"+header+",MMSE\n,a,70,F,1450000,3500,3600,\n", ",", "\t"),
		"semicolons":                strings.ReplaceAll(header+"\na,70,F,1450000,3500,3600\n", ",", ";"),
		"lower case, spaces, order": "Right-hippocampus, left-hippocampus,AGE,Sex,ID,estimatedtotalintracranialvol\n3600, 3500,70.0, f,a,1.45e6",
		"other columns":             header + ",Left-vessel,CDR\na,70,F,1450000,3500,3600,12,0.5\n",
	} {
		t.Run(name, func(t *testing.T) {
			got := scoreTable(t, in, Options{})
			if len(got) != 1 {
				t.Fatalf("%d rows", len(got))
			}
			for k, v := range want[0] {
				if got[0][k] != v {
					t.Errorf("%s = %q, want %q", k, got[0][k], v)
				}
			}
		})
	}
}

func TestHeaderOnly(t *testing.T) {
	if got := scoreTable(t, header+"\n", Options{}); len(got) != 0 {
		t.Errorf("%v", got)
	}
}

// A segmenter that measures larger hippocampi makes the same volume smaller.
func TestSegmenterMatters(t *testing.T) {
	lr := func(segmenter string) float64 {
		return value(t, scoreTable(t, header+",segmenter\na,74,F,1450000,3000,3100,"+segmenter+"\n", Options{})[0]["alzheimers_lr"])
	}
	if six, seven := lr("fs6"), lr("fs7"); seven <= six {
		t.Errorf("LR %g with FreeSurfer 6, %g with 7", six, seven)
	}
	if lr("") != lr("fs5") {
		t.Error("an unknown segmenter is shifted")
	}
}

// Ids with any character come back as they were, each with its own score.
func TestIDsRoundTrip(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		ids := rapid.SliceOfNDistinct(rapid.StringMatching(`[^\s\x00][^\x00\r\t]{0,20}[^\s\x00]`), 1, 8, rapid.ID[string]).Draw(rt, "ids")
		var in bytes.Buffer
		w := csv.NewWriter(&in)
		_ = w.Write(strings.Split(header, ","))
		for i, id := range ids {
			_ = w.Write([]string{id, strconv.Itoa(60 + i), "F", "1450000", "3500", "3600"})
		}
		w.Flush()
		got := scoreTable(t, in.String(), Options{})
		for i, id := range ids {
			if want := strings.TrimSpace(id); got[i]["id"] != want {
				rt.Fatalf("row %d: %q, want %q", i, got[i]["id"], want)
			}
		}
		for i := 1; i < len(got); i++ {
			if got[i]["alzheimers_lr"] == got[i-1]["alzheimers_lr"] {
				rt.Fatal("two ages, one score")
			}
		}
	})
}

const aseg = `# Title Segmentation Statistics
#
# generating_program mri_segstats
# cvs_version $Id: mri_segstats.c,v 1.121 2016/05/31 17:27:11 greve Exp $
# sysname  Linux
# subjectname sub-01
# Measure BrainSegNotVent, BrainSegVolNotVent, Brain Segmentation Volume Without Ventricles, 1113259.000000, mm^3
# Measure BrainSegVol-to-eTIV, BrainSegVol-to-eTIV, Ratio of BrainSegVol to eTIV, 0.769329, unitless
# Measure EstimatedTotalIntraCranialVol, eTIV, Estimated Total Intracranial Volume, 1490433.701090, mm^3
# TableCol  4 Units      mm^3
# NRows 2
# ColHeaders  Index SegId NVoxels Volume_mm3 StructName normMean normStdDev normMin normMax normRange
  1  17      3731     3731.3  Left-Hippocampus                   77.4    10.7    32.0   119.0    87.0
  2  49      7150     7150.1  Right-Thalamus-Proper              86.5    10.1    40.0   116.0    76.0
  3  53      4243     4243.8  Right-Hippocampus                  78.9     9.7    43.0   117.0    74.0
`

func TestReadAsegStats(t *testing.T) {
	r, err := ReadAsegStats(strings.NewReader(aseg))
	if err != nil {
		t.Fatal(err)
	}
	if r.ID != "sub-01" || *r.ICVMM3 != 1490433.70109 || r.Segmenter != norm.FreeSurfer6 || len(r.Volumes) != 4 ||
		r.Volumes["Left-Hippocampus"].MM3 != 3731.3 || r.Volumes["Right-Thalamus"].MM3 != 7150.1 || r.Volumes["BrainSegVolNotVent"].MM3 != 1113259 {
		t.Errorf("%+v", r)
	}
	age := 65.0
	got := scoreTable(t, aseg, Options{AgeYears: &age, Sex: neuroscreen.Female})
	want := scoreTable(t, header+",segmenter\nsub-01,65,F,1490433.70109,3731.3,4243.8,fs6\n", Options{})
	for k, v := range want[0] {
		if got[0][k] != v {
			t.Errorf("%s = %q from aseg.stats, %q from a table", k, got[0][k], v)
		}
	}
}

func TestAsegVersions(t *testing.T) {
	for line, want := range map[string]norm.Segmenter{
		"# cvs_version 7.4.1": norm.FreeSurfer7,
		"# cvs_version 8.0.0": norm.Unknown,
		"# cvs_version $Id: mri_segstats.c,v 1.75.2.9 2013/02/16 00:09:33 greve Exp $": norm.FreeSurfer5,
		"# cvs_version unknown": norm.Unknown,
	} {
		r, err := ReadAsegStats(strings.NewReader(line + "\n 1 17 1 3500 Left-Hippocampus\n"))
		if err != nil || r.Segmenter != want {
			t.Errorf("%s: %q, %v, want %q", line, r.Segmenter, err, want)
		}
	}
}

func TestWrongAsegStats(t *testing.T) {
	for name, in := range map[string]string{
		"cut in a row":  strings.Replace(aseg, "3731.3  Left-Hippocampus                   77.4    10.7    32.0   119.0    87.0", "3731.3", 1),
		"letters":       strings.Replace(aseg, "3731.3", "many", 1),
		"another file":  "{\"a\": 1}",
		"nothing in it": "",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ReadAsegStats(strings.NewReader(in))
			if e := neuroscreen.AsError(err); e == nil || e.Type != "unreadable-aseg" {
				t.Errorf("got %v", err)
			}
		})
	}
}

func FuzzScore(f *testing.F) {
	f.Add(header + "\na,70,F,1450000,3500,3600\n")
	f.Add(aseg)
	f.Add("id;age;sex;Left-Hippocampus\n\"a\";70;F;3500")
	age := 70.0
	f.Fuzz(func(t *testing.T, in string) {
		var out bytes.Buffer
		if err := Score(strings.NewReader(in), &out, Options{AgeYears: &age, Sex: neuroscreen.Male}); err != nil {
			if neuroscreen.AsError(err).Code == neuroscreen.CodeInternal {
				t.Fatalf("blames itself: %v", err)
			}
			return
		}
		for _, r := range parse(t, out.String()) {
			for _, c := range neuroscreen.Conditions {
				if (r[string(c)+"_lr"] == "") != (r[string(c)+"_abstained"] != "") {
					t.Fatalf("neither scored nor abstained: %v", r)
				}
			}
		}
	})
}

// The cohort that the models were trained on goes through the program's own
// door: the AUC there can't be below the cross-validated one.
func TestOASISThroughTheTable(t *testing.T) {
	b, err := os.ReadFile(testdata.Shared(t, "tables", "oasis1_merged.csv"))
	if err != nil {
		t.Fatal(err)
	}
	var in bytes.Buffer
	w := csv.NewWriter(&in)
	_ = w.Write(append(strings.Split(header, ","), "nWBV", "segmenter"))
	ill := map[string]bool{}
	for _, r := range parse(t, string(b)) {
		if r["CDR"] == "" {
			continue
		}
		ill[r["ID"]] = value(t, r["CDR"]) > 0
		_ = w.Write([]string{r["ID"], r["Age"], r["M/F"], r["eTIV"] + "000", r["LeftHippoVol"], r["RightHippoVol"], r["nWBV"], "oasis1"})
	}
	w.Flush()
	var cases, controls []float64
	for _, r := range scoreTable(t, in.String(), Options{}) {
		if r["alzheimers_lr"] == "" {
			continue
		}
		if lr := value(t, r["alzheimers_lr"]); ill[r["id"]] {
			cases = append(cases, lr)
		} else {
			controls = append(controls, lr)
		}
	}
	wins := 0.0
	for _, a := range cases {
		for _, b := range controls {
			if a > b {
				wins++
			} else if a == b {
				wins += 0.5
			}
		}
	}
	auc := wins / float64(len(cases)*len(controls))
	if len(cases) != 93 || len(controls) != 95 || auc < 0.81 {
		t.Errorf("AUC %.3f of %d cases, %d controls", auc, len(cases), len(controls))
	}
}

// A condition without a score has an empty row, not that of another one.
func TestConditionWithoutAScore(t *testing.T) {
	lr := 3.0
	got := record("a", []neuroscreen.Score{{Condition: neuroscreen.Parkinsons, LikelihoodRatio: &lr, Flag: neuroscreen.FlagReview}})
	if want := "a,,,,,,,3,,,,review,,,,,,,"; strings.Join(got, ",") != want {
		t.Errorf("%q, want %s", got, want)
	}
}
