package norm

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"neuroscreen"
	"neuroscreen/internal/testdata"
)

func person(age float64, sex neuroscreen.Sex, icv float64) Person {
	return Person{AgeYears: age, Sex: sex, ICVMM3: &icv}
}

// readGrid returns the rows of a grid of NOMIS's expected values.
func readGrid(t *testing.T, path string) []map[string]string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(bytes.NewReader(b)).ReadAll()
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

func num(t *testing.T, s string) float64 {
	t.Helper()
	v, err := strconv.ParseFloat(s, 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func checkGrid(t *testing.T, path string, minRows int) {
	n := Default()
	rows := readGrid(t, path)
	if len(rows) < minRows {
		t.Fatalf("only %d rows", len(rows))
	}
	for _, r := range rows {
		name := regionNames[r["region"]]
		m := n.models[name]
		if m == nil {
			t.Fatalf("%s: not in the norm", r["region"])
		}
		age, icv, want := num(t, r["age"]), 1000*num(t, r["eTIV_ml"]), num(t, r["expected_mm3_or_log10"])
		sex := neuroscreen.Sex(r["sex"])
		tol := 0.1
		if m.log {
			tol = 5e-5
		}
		if (r["log10"] == "1") != m.log {
			t.Fatalf("%s: log %v", name, m.log)
		}
		if got := m.expected(age, sex, icv, true); math.Abs(got-want) > tol {
			t.Errorf("%s %s %g %g: published %.6f, want %.6f", name, sex, age, icv, got, want)
		}
		// The collapsed sex term, which is left out, is worth at most 3.2e-6 in log10.
		used := m.expected(age, sex, icv, false)
		if m.log {
			tol += 3.2e-6
		}
		if math.Abs(used-want) > tol {
			t.Errorf("%s %s %g %g: used %.6f, want %.6f", name, sex, age, icv, used, want)
		}
		ref, err := n.Published(name, person(age, sex, icv))
		if err != nil {
			t.Fatal(err)
		}
		for col, got := range map[string]float64{"p5": ref.P5MM3, "p50": ref.ExpectedMM3, "p95": ref.P95MM3} {
			// The grid's bounds were worked out with 1.645 for the 95th percentile.
			slack := 0.1 + 1.5e-4*m.sd
			if m.log {
				slack = 0.1 + 1e-4*got
			}
			if want := num(t, r[col]); math.Abs(got-want) > slack {
				t.Errorf("%s %s %g %g: %s %.2f, want %.2f", name, sex, age, icv, col, got, want)
			}
		}
	}
}

func TestGrid(t *testing.T) {
	t.Run("committed subset", func(t *testing.T) { checkGrid(t, "testdata/grid_subset.csv", 99) })
	t.Run("whole", func(t *testing.T) { checkGrid(t, testdata.Shared(t, "norms", "norm_nomis_grid.csv"), 3960) })
}

func TestCoefficientsAreTheSharedOnes(t *testing.T) {
	for here, there := range map[string]string{
		"nomis_aseg_coefficients.csv":            "nomis_aseg_coefficients.csv",
		"nomis_aseg_bigregions_coefficients.csv": "nomis_aseg_bigregions_coefficients.csv",
		"between_site_sd.csv":                    "pcn_between_site_sd.csv",
	} {
		want, err := os.ReadFile(testdata.Shared(t, "norms", there))
		if err != nil {
			t.Fatal(err)
		}
		got, _ := files.ReadFile("data/" + here)
		if !bytes.Equal(got, want) {
			t.Errorf("%s differs from the shared %s", here, there)
		}
	}
}

// Every model whose sex term vanished must be on the list, and no other.
func TestCollapsedTerms(t *testing.T) {
	n := Default()
	for name, m := range n.models {
		if holdsCube := m.tiv[2] != 0; holdsCube != m.collapsed {
			t.Errorf("%s: cube of head size %v, listed as collapsed %v", name, holdsCube, m.collapsed)
		}
		if n.AdjustsForSex(name) == m.collapsed {
			t.Errorf("%s: adjustment for sex advertised wrongly", name)
		}
	}
	aseg := 0
	rows, err := readCSV(coefficientFiles[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		if collapsed[r["region"]] {
			aseg++
		}
	}
	if aseg != 11 || len(rows) != 29 {
		t.Errorf("%d of %d aseg models collapsed, want 11 of 29", aseg, len(rows))
	}
}

// The worked example of a man of 70 with 1.5 l.
func TestWorkedExample(t *testing.T) {
	for name, want := range map[string][3]float64{
		"Left-Hippocampus":       {3709.6, 3153, 4266},
		"Right-Hippocampus":      {3835.2, 3243, 4427},
		"Left-Lateral-Ventricle": {13270, 6803, 25886},
		"Left-Inf-Lat-Vent":      {500, 224, 1118},
	} {
		r, err := Default().Published(name, person(70, neuroscreen.Male, 1.5e6))
		if err != nil {
			t.Fatal(err)
		}
		for i, got := range []float64{r.ExpectedMM3, r.P5MM3, r.P95MM3} {
			if math.Abs(got-want[i]) > 0.5+1e-4*want[i] {
				t.Errorf("%s: %v, want %v", name, r, want)
			}
		}
	}
}

func TestCompareIsCoherent(t *testing.T) {
	n := Default()
	rapid.Check(t, func(t *rapid.T) {
		p := person(rapid.Float64Range(18, 100).Draw(t, "age"),
			rapid.SampledFrom([]neuroscreen.Sex{neuroscreen.Female, neuroscreen.Male}).Draw(t, "sex"),
			rapid.Float64Range(9e5, 2.3e6).Draw(t, "icv"))
		name := rapid.SampledFrom(n.Structures()).Draw(t, "structure")
		seg := rapid.SampledFrom([]Segmenter{Unknown, FreeSurfer5, FreeSurfer6, FreeSurfer7, Network}).Draw(t, "segmenter")
		cal := Calibration{Segmenter: seg}
		ref, err := n.Reference(name, p, cal)
		if err != nil {
			t.Fatal(err)
		}
		if !(ref.P5MM3 <= ref.ExpectedMM3 && ref.ExpectedMM3 < ref.P95MM3) {
			t.Fatalf("band out of order: %+v", ref)
		}
		for _, at := range []struct{ mm3, percentile float64 }{{ref.P5MM3, 5}, {ref.ExpectedMM3, 50}, {ref.P95MM3, 95}} {
			if at.mm3 <= 0 { // the lower bound of a raw structure may fall below zero
				continue
			}
			rows, _, _ := n.Compare(map[string]Measured{name: {MM3: at.mm3, SE: at.mm3 / 100}}, p, cal)
			r := rows[0]
			if math.Abs(*r.Percentile-at.percentile) > 1e-6 {
				t.Fatalf("%s: %g mm3 at percentile %g, want %g", name, at.mm3, *r.Percentile, at.percentile)
			}
			if !(r.ZCI95[0] < *r.Z && *r.Z < r.ZCI95[1]) {
				t.Fatalf("interval %v does not hold z %g", r.ZCI95, *r.Z)
			}
		}
	})
}

func TestOutOfRange(t *testing.T) {
	icv, cm3, nan := 1.5e6, 1500.0, math.NaN()
	for name, tc := range map[string]struct {
		p    Person
		code string
	}{
		"too young":        {Person{17.9, neuroscreen.Female, &icv}, "age-outside-norm"},
		"too old":          {Person{101, neuroscreen.Female, &icv}, "age-outside-norm"},
		"age is no number": {Person{nan, neuroscreen.Female, &icv}, "age-outside-norm"},
		"no sex":           {Person{50, "", &icv}, "sex-missing"},
		"no head size":     {Person{50, neuroscreen.Male, nil}, "head-size-missing"},
		"head size in cm3": {Person{50, neuroscreen.Male, &cm3}, "head-size-implausible"},
	} {
		t.Run(name, func(t *testing.T) {
			rows, _, reasons := Default().Compare(map[string]Measured{"Left-Hippocampus": {MM3: 3800}}, tc.p, Calibration{})
			if len(rows) != 1 || rows[0].MM3 != 3800 || rows[0].Z != nil || rows[0].P5MM3 != nil || rows[0].Percentile != nil {
				t.Errorf("want the volume without z, got %+v", rows)
			}
			if len(reasons) != 1 || reasons[0].Code != tc.code {
				t.Errorf("want reason %s, got %+v", tc.code, reasons)
			}
			if _, err := json.Marshal(reasons); err != nil {
				t.Errorf("reasons are no JSON: %v", err)
			}
		})
	}
}

func TestCompareKeepsWhatItCannotPlace(t *testing.T) {
	vols := map[string]Measured{"CSF": {MM3: 9e4}, "Left-Cerebral-Cortex": {MM3: 2.2e5}, "Left-Thalamus-Proper": {MM3: 6500}, "Right-Caudate": {MM3: math.NaN()}, "Left-Putamen": {MM3: 0}}
	rows, _, reasons := Default().Compare(vols, person(60, neuroscreen.Female, 2.2e6), Calibration{Segmenter: Network})
	got := map[string]neuroscreen.Volume{}
	for _, r := range rows {
		got[r.Structure] = r
	}
	if len(rows) != 4 || got["CSF"].Z != nil || got["Left-Cerebral-Cortex"].Z != nil || got["Left-Putamen"].Z != nil || got["Left-Thalamus"].Z == nil {
		t.Errorf("rows %+v", rows)
	}
	codes := ""
	for _, r := range reasons {
		codes += r.Code + " "
	}
	if codes != "volume-not-finite head-size-clamped segmenter-not-calibrated site-not-calibrated " {
		t.Errorf("reasons %q", codes)
	}
}

func TestHeadSizeIsClamped(t *testing.T) {
	a, _ := Default().Reference("Left-Hippocampus", person(60, neuroscreen.Female, 2.0e6), Calibration{})
	b, _ := Default().Reference("Left-Hippocampus", person(60, neuroscreen.Female, 2.4e6), Calibration{})
	if a != b {
		t.Errorf("2.4 l is compared with %+v, 2.0 l with %+v", b, a)
	}
}

func TestShiftApplied(t *testing.T) {
	for name, tc := range map[string]struct {
		m        Moments
		mean, sd float64
	}{
		"ten controls count half":             {Moments{N: 10, MeanZ: 1, SDZ: 1.5}, 0.5, 1},
		"twenty scale the spread":             {Moments{N: 20, MeanZ: 0.3, SDZ: 1.5}, 0.2, 1.5},
		"people behind a pooled spread":       {Moments{N: 10, NSD: 500, MeanZ: -2, SDZ: 0.9}, -1, 0.9},
		"a spread of nothing is not believed": {Moments{N: 30, MeanZ: 0, SDZ: 0}, 0, 0.5},
	} {
		t.Run(name, func(t *testing.T) {
			mean, sd := tc.m.applied()
			if math.Abs(mean-tc.mean) > 1e-12 || sd != tc.sd {
				t.Errorf("got %g, %g", mean, sd)
			}
		})
	}
}

func mustReference(t *testing.T, structure string, p Person, cal Calibration) Reference {
	t.Helper()
	r, err := Default().Reference(structure, p, cal)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// A site whose controls all measure 8 % larger is brought back by its shift,
// and its band narrows to within-site width.
func TestSiteCalibration(t *testing.T) {
	n := Default()
	p := person(68, neuroscreen.Female, 1.45e6)
	var controls []Control
	for i := range 40 {
		q := person(50+float64(i), neuroscreen.Male, 1.3e6+1e4*float64(i))
		ref, err := n.Published("Left-Hippocampus", q)
		if err != nil {
			t.Fatal(err)
		}
		v := 1.08 * (ref.ExpectedMM3 + ref.SD*(float64(i%5)-2)/2)
		controls = append(controls, Control{Person: q, Volumes: map[string]Measured{"Left-Hippocampus": {MM3: v}}})
	}
	s, err := n.FitShift("clinic", "1", LayerSite, "test", Calibration{Segmenter: FreeSurfer6}, controls)
	if err != nil {
		t.Fatal(err)
	}
	before, _ := n.Reference("Left-Hippocampus", p, Calibration{Segmenter: FreeSurfer6})
	after, _ := n.Reference("Left-Hippocampus", p, Calibration{Segmenter: FreeSurfer6, SiteShift: s})
	if want := 1 + 0.08*40/50; math.Abs(after.ExpectedMM3/before.ExpectedMM3-want) > 0.01 {
		t.Errorf("expected volume moved by %.3f, want %.3f", after.ExpectedMM3/before.ExpectedMM3, want)
	}
	m := s.Structures["Left-Hippocampus"]
	if math.Abs(after.SD-m.SDZ*n.models["Left-Hippocampus"].sd) > 1e-9 || after.SD > before.SD {
		t.Errorf("spread %.1f before, %.1f after", before.SD, after.SD)
	}
	m.N = 19
	s.Structures["Left-Hippocampus"] = m
	if other, _ := n.Reference("Left-Hippocampus", p, Calibration{Segmenter: FreeSurfer7, SiteShift: s}); other != mustReference(t, "Left-Hippocampus", p, Calibration{Segmenter: FreeSurfer7}) {
		t.Error("a shift measured with FreeSurfer 6 is applied to 7")
	}
	if _, _, reasons := n.Compare(map[string]Measured{"Left-Hippocampus": {MM3: 3500}}, p, Calibration{Segmenter: FreeSurfer7, SiteShift: s}); len(reasons) == 0 || reasons[0].Code != "site-shift-not-applicable" {
		t.Errorf("reasons %+v", reasons)
	}
	few, _ := n.Reference("Left-Hippocampus", p, Calibration{Segmenter: FreeSurfer6, SiteShift: s})
	if few != before {
		t.Error("19 controls changed the reference")
	}
}

func TestShiftRoundTrip(t *testing.T) {
	want := Default().Shipped(FreeSurfer7)
	b, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := LoadShift(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if got.Asset() != want.Asset() {
		t.Errorf("%+v came back as %+v", want.Asset(), got.Asset())
	}
}

func TestLoadShiftRefuses(t *testing.T) {
	const head = `{"schema":"neuroscreen.shift/1","name":"a","version":"1","layer":"site","segmenter":"fs6","source":"",`
	for name, doc := range map[string]string{
		"no JSON":             `x`,
		"another schema":      strings.Replace(head, "shift/1", "shift/2", 1) + `"structures":{}}`,
		"no version":          strings.Replace(head, `"version":"1"`, `"version":""`, 1) + `"structures":{}}`,
		"unknown layer":       strings.Replace(head, `"site"`, `"scanner"`, 1) + `"structures":{}}`,
		"unknown structure":   head + `"structures":{"Hippocampus":{"n":20,"mean_z":0,"sd_z":1}}}`,
		"an older name":       head + `"structures":{"Left-Thalamus-Proper":{"n":20,"mean_z":0,"sd_z":1}}}`,
		"shift beyond reason": head + `"structures":{"Left-Hippocampus":{"n":20,"mean_z":-11,"sd_z":1}}}`,
		"negative count":      head + `"structures":{"Left-Hippocampus":{"n":-1,"mean_z":0,"sd_z":1}}}`,
		"unknown field":       head + `"structures":{},"mean":3}`,
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := LoadShift(strings.NewReader(doc)); err == nil {
				t.Error("accepted")
			}
		})
	}
}

func TestSurfaceBasedRegionsNeedAShift(t *testing.T) {
	n, p := Default(), person(60, neuroscreen.Female, 1.45e6)
	if _, err := n.Reference("Left-Cerebral-Cortex", p, Calibration{Segmenter: Network}); err == nil {
		t.Error("cortex compared with a surface-based norm without a shift")
	}
	s := &Shift{Structures: map[string]Moments{"Left-Cerebral-Cortex": {N: 25, MeanZ: 1, SDZ: 1}}}
	if _, err := n.Reference("Left-Cerebral-Cortex", p, Calibration{Segmenter: Network, SegmenterShift: s}); err != nil {
		t.Error(err)
	}
}

func TestAsymmetry(t *testing.T) {
	if ai, _, _ := Asymmetry(Measured{MM3: 1438}, Measured{MM3: 4848}); math.Abs(ai-54.247) > 1e-3 {
		t.Errorf("asymmetry %.3f", ai)
	}
	f := func(l, r float64) float64 { a, _, _ := Asymmetry(Measured{MM3: l}, Measured{MM3: r}); return a }
	_, perLog, se := Asymmetry(Measured{MM3: 3500, SE: 40}, Measured{MM3: 3700, SE: 60})
	if want := (f(3500, 3700*1.0001) - f(3500, 3700/1.0001)) / (2 * math.Log(1.0001)); math.Abs(perLog-want) > 1e-5 {
		t.Errorf("change per ln(right) %g, want %g", perLog, want)
	}
	// Independent errors, against differences taken one volume at a time.
	el, er := math.Hypot(40, RetestCV("Left-Hippocampus")*3500), math.Hypot(60, RetestCV("Right-Hippocampus")*3700)
	dl := (f(3501, 3700) - f(3499, 3700)) / 2 * el
	dr := (f(3500, 3701) - f(3500, 3699)) / 2 * er
	if want := math.Hypot(dl, dr); math.Abs(se-want) > 1e-6 {
		t.Errorf("standard error %g, want %g", se, want)
	}
}

// The spread of drawn pairs of volumes, whose errors share a bias and are
// correlated, is the one that PairVariance says.
func TestAsymmetryOfCorrelatedErrors(t *testing.T) {
	const l, r, bias, rest, pair = 3500.0, 3700.0, 0.10, 0.08, 0.6
	m := func(v float64) Measured {
		return Measured{MM3: v, SE: v * math.Hypot(bias, rest), Bias: v * bias, Pair: pair}
	}
	_, _, se := Asymmetry(m(l), m(r))
	g := rand.New(rand.NewPCG(5, 6))
	sum, square, n := 0.0, 0.0, 20000
	for range n {
		b, both := bias*g.NormFloat64(), math.Sqrt(pair)*g.NormFloat64()
		draw := func(v float64) Measured {
			own := rest*(both+math.Sqrt(1-pair)*g.NormFloat64()) + 0.018*g.NormFloat64()
			return Measured{MM3: v * math.Exp(b+own)}
		}
		ai, _, _ := Asymmetry(draw(l), draw(r))
		sum, square = sum+ai, square+ai*ai
	}
	mean := sum / float64(n)
	if sd := math.Sqrt(square/float64(n) - mean*mean); math.Abs(se/sd-1) > 0.03 {
		t.Errorf("standard error %.2f, drawn asymmetries spread by %.2f", se, sd)
	}
	_, _, apart := Asymmetry(Measured{MM3: l, SE: m(l).SE}, Measured{MM3: r, SE: m(r).SE})
	if se > 0.6*apart {
		t.Errorf("%.2f is not much less than %.2f, that of independent errors", se, apart)
	}
}

// HOC's reference against the table worked out from the same norm (published
// spread, mean of both sides; the table's sampling of the sum differs by a little).
func TestHOCReference(t *testing.T) {
	n := Default()
	zeroSite := &Norms{models: n.models, siteRatio: map[string]float64{}, shifts: n.shifts}
	for _, r := range readGrid(t, "testdata/hoc_norms.csv") {
		p := person(num(t, r["age"]), neuroscreen.Sex(r["sex"]), 1000*num(t, r["eTIV_ml"]))
		l, rt := zeroSite.hocReference("Left-", p, Calibration{}), zeroSite.hocReference("Right-", p, Calibration{})
		if got, want := (l[0]+rt[0])/2, num(t, r["HOC_p5"]); math.Abs(got-want) > 0.015 {
			t.Errorf("%s %s: p5 %.3f, want %.3f", r["sex"], r["age"], got, want)
		}
	}
}

func TestIndices(t *testing.T) {
	vols := map[string]Measured{
		"Left-Hippocampus": {MM3: 3600}, "Right-Hippocampus": {MM3: 3700}, "Left-Inf-Lat-Vent": {MM3: 400}, "Right-Inf-Lat-Vent": {MM3: 300},
		"BrainSegVolNotVent": {MM3: 1.05e6}, "Brain-Stem": {MM3: 2e4},
	}
	_, got, _ := Default().Compare(vols, person(70, neuroscreen.Female, 1.45e6), Calibration{Segmenter: FreeSurfer6})
	want := map[string]float64{"hippocampal_asymmetry_percent": 100.0 * 100 / 7300, "hoc_left": 0.9, "hoc_right": 0.925, "brain_parenchymal_fraction": 1.07 / 1.45}
	if len(got) != len(want) {
		t.Fatalf("%+v", got)
	}
	for _, i := range got {
		if math.Abs(i.Value-want[i.Name]) > 1e-9 {
			t.Errorf("%s = %g, want %g", i.Name, i.Value, want[i.Name])
		}
		if i.Name != "brain_parenchymal_fraction" && (i.CI95 == nil || !(i.CI95[0] < i.Value && i.Value < i.CI95[1])) {
			t.Errorf("%s = %g with interval %v", i.Name, i.Value, i.CI95)
		}
		if i.Reference == nil || i.Value < i.Reference[0] || i.Value > i.Reference[1] {
			t.Errorf("%s = %g outside its reference %v: this person is ordinary", i.Name, i.Value, i.Reference)
		}
	}
}

// Over sites that differ as the published spread says, what a
// shift from their controls leaves is as large as its error says.
func TestSiteShiftError(t *testing.T) {
	n, p := Default(), person(70, neuroscreen.Female, 1.45e6)
	r := rand.New(rand.NewPCG(1, 2))
	for _, structure := range []string{"Left-Hippocampus", "Left-Thalamus"} {
		for _, controls := range []int{20, 50, 500} {
			sd, ratio := n.models[structure].sd, n.siteRatio[structure]
			left := 0.0
			const sites = 20000
			for range sites {
				offset := ratio * r.NormFloat64()
				mean, _ := Moments{N: controls, MeanZ: offset + r.NormFloat64()/math.Sqrt(float64(controls))}.applied()
				left += (offset - mean) * (offset - mean) / sites
			}
			shift := &Shift{Layer: LayerSite, Segmenter: FreeSurfer6, Structures: map[string]Moments{structure: {N: controls, SDZ: 1}}}
			got, err := n.locate(structure, p, Calibration{Segmenter: FreeSurfer6, SiteShift: shift}, false)
			if want := math.Sqrt(left) * sd; err != nil || math.Abs(got.siteSD/want-1) > .03 {
				t.Errorf("%s, %d controls: error %.4g, what is left %.4g, %v", structure, controls, got.siteSD, want, err)
			}
		}
	}
}

// The interval of a site far off, of which shrinking leaves a third at 20
// controls, holds what is left.
func TestSiteShiftLeavesOffset(t *testing.T) {
	const structure, offset = "Left-Hippocampus", 1.5
	n, p := Default(), person(70, neuroscreen.Female, 1.45e6)
	published, err := n.Published(structure, p)
	if err != nil {
		t.Fatal(err)
	}
	shift := &Shift{Layer: LayerSite, Segmenter: FreeSurfer6, Structures: map[string]Moments{structure: {N: 20, MeanZ: offset, SDZ: 1}}}
	z, err := n.ZOf(structure, Measured{MM3: published.ExpectedMM3 + offset*published.SD}, p, Calibration{Segmenter: FreeSurfer6, SiteShift: shift})
	if err != nil {
		t.Fatal(err)
	}
	if left := offset / 3; math.Abs(z.Value-left) > 1e-9 || z.SiteSE < left {
		t.Errorf("z %.3f with a site's error of %.3f, %.3f is left", z.Value, z.SiteSE, left)
	}
}

// An index's interval is what its volumes' errors and the site's leave of it:
// far wider than the measurement's alone, and narrower once the site is known.
func TestIndicesCarryTheSite(t *testing.T) {
	n, p := Default(), person(70, neuroscreen.Female, 1.45e6)
	vols := map[string]Measured{"Left-Hippocampus": {MM3: 3600}, "Left-Inf-Lat-Vent": {MM3: 400}}
	width := func(cal Calibration) float64 {
		ci := n.indices(vols, p, cal)[0].CI95
		return math.Log(ci[1]/(1-ci[1])) - math.Log(ci[0]/(1-ci[0]))
	}
	m := n.models
	site := math.Hypot(n.siteRatio["Left-Hippocampus"]*m["Left-Hippocampus"].sd/3600, n.siteRatio["Left-Inf-Lat-Vent"]*m["Left-Inf-Lat-Vent"].sd*math.Ln10)
	noise := math.Hypot(RetestCV("Left-Hippocampus"), RetestCV("Left-Inf-Lat-Vent"))
	if got, want := width(Calibration{Segmenter: FreeSurfer6}), 2*Z95*math.Hypot(noise, site); math.Abs(got-want) > 1e-9 {
		t.Errorf("%.4f wide on the logit, want %.4f", got, want)
	}
	shift := &Shift{Layer: LayerSite, Segmenter: FreeSurfer6, Structures: map[string]Moments{"Left-Hippocampus": {N: 5000, SDZ: 1}, "Left-Inf-Lat-Vent": {N: 5000, SDZ: 1}}}
	if got, alone := width(Calibration{Segmenter: FreeSurfer6, SiteShift: shift}), 2*Z95*noise; got < alone || got > 1.05*alone {
		t.Errorf("at a calibrated site %.4f wide, the measurement alone %.4f", got, alone)
	}
}

func TestCurve(t *testing.T) {
	c, err := Default().Curve("Right-Lateral-Ventricle", person(0, neuroscreen.Male, 1.6e6), Calibration{}, 10, 120, 2)
	if err != nil {
		t.Fatal(err)
	}
	if len(c) != 42 || c[0].AgeYears != 18 || c[41].AgeYears != 100 {
		t.Fatalf("%d points from %g", len(c), c[0].AgeYears)
	}
	if c[30].ExpectedMM3 < 1.5*c[0].ExpectedMM3 {
		t.Error("ventricles do not grow with age")
	}
}

// Every structure has a curve over all ages, at the ends of the range of head
// sizes too, that stays positive, keeps its band in order and nowhere runs away.
func TestCurvesOfAllStructures(t *testing.T) {
	n := Default()
	if got := len(n.Structures()); got != 43 {
		t.Errorf("%d structures and sums, want 29 and 14", got)
	}
	for _, s := range n.Structures() {
		most := 0.03 // of change in a year, in ln(mm3)
		if n.models[s].log {
			most = 0.09 // ventricles in old age
		}
		for _, sex := range []neuroscreen.Sex{neuroscreen.Female, neuroscreen.Male} {
			for _, icv := range []float64{MinTIV, 1.5e6, MaxTIV} {
				c, err := n.Curve(s, person(0, sex, icv), Calibration{Segmenter: FreeSurfer6}, MinAge, MaxAge, 1)
				if err != nil || len(c) != 83 {
					t.Fatalf("%s: %d points, %v", s, len(c), err)
				}
				for i, p := range c {
					if !(0 <= p.P5MM3 && p.P5MM3 < p.ExpectedMM3 && p.ExpectedMM3 < p.P95MM3) {
						t.Errorf("%s %s %g l at %g years: %g [%g, %g]", s, sex, icv/1e6, p.AgeYears, p.ExpectedMM3, p.P5MM3, p.P95MM3)
					}
					if i > 0 && math.Abs(math.Log(p.ExpectedMM3/c[i-1].ExpectedMM3)) > most {
						t.Errorf("%s %s %g l: from %g to %g mm3 in the year to %g", s, sex, icv/1e6, c[i-1].ExpectedMM3, p.ExpectedMM3, p.AgeYears)
					}
				}
			}
		}
	}
}

func TestAssets(t *testing.T) {
	got := ""
	for _, a := range Default().Assets() {
		got += a.Name + " "
		if len(a.SHA256) != 64 {
			t.Errorf("%+v", a)
		}
	}
	if got != "between_site_sd.csv nomis_aseg_bigregions_coefficients.csv nomis_aseg_coefficients.csv segmenter_fs7.json segmenter_neuroscreen.json segmenter_oasis1.json " {
		t.Errorf("assets %s", got)
	}
}

// The network is taken to differ from the norm as FreeSurfer 7 does, with the
// spread between segmenters on top of that between sites, and says so.
// TestSegmenterShiftIsBelieved: a healthy person as FreeSurfer 7 measures them on
// average lies near z 0, the nearer the better its data sets agree.
func TestSegmenterShiftIsBelieved(t *testing.T) {
	n, p := Default(), person(60, neuroscreen.Female, 1.45e6)
	for structure, most := range map[string]float64{"Left-Hippocampus": .12, "Right-Hippocampus": .12, "Left-Accumbens-area": .5} {
		raw, err := n.Published(structure, p)
		if err != nil {
			t.Fatal(err)
		}
		mean := raw.ExpectedMM3 + n.shifts[FreeSurfer7].Structures[structure].MeanZ*raw.SD
		z, err := n.ZOf(structure, Measured{MM3: mean}, p, Calibration{Segmenter: FreeSurfer7})
		if err != nil || !(z.Value > 0 && z.Value < most) {
			t.Errorf("%s: z %.2f of the mean of healthy people, want 0 to %.2f, %v", structure, z.Value, most, err)
		}
	}
}

func TestNetworkStandsAsFreeSurfer7(t *testing.T) {
	n, p, network := Default(), person(60, neuroscreen.Female, 1.45e6), Calibration{Segmenter: Network}
	if r := n.segmenterRatio; math.Abs(r-0.539) > 0.0005 {
		t.Errorf("spread between segmenters %.4f SD, documented as 0.54", r)
	}
	for range 100 {
		if r := betweenSegmenters(n.shifts[FreeSurfer7]); r != n.segmenterRatio {
			t.Fatalf("spread %v once and %v again: results would not be reproducible", n.segmenterRatio, r)
		}
	}
	for _, s := range []string{"Left-Hippocampus", "Right-Lateral-Ventricle"} {
		fs7, _ := n.locate(s, p, Calibration{Segmenter: FreeSurfer7}, false)
		got, _ := n.locate(s, p, network, false)
		if got.mu != fs7.mu || got.sd != fs7.sd {
			t.Errorf("%s: at %g with SD %g, FreeSurfer 7's at %g with %g", s, got.mu, got.sd, fs7.mu, fs7.sd)
		}
		if want := math.Hypot(fs7.siteSD, n.segmenterRatio*n.models[s].sd); math.Abs(got.siteSD-want) > 1e-12 {
			t.Errorf("%s: spread %g, want %g", s, got.siteSD, want)
		}
		unknown, _ := n.locate(s, p, Calibration{}, false)
		if math.Abs(unknown.siteSD-got.siteSD) > 1e-12 {
			t.Errorf("%s: spread of an unknown segmenter %g, want %g", s, unknown.siteSD, got.siteSD)
		}
	}
	codes := func(cal Calibration) (out []string) {
		for _, r := range n.notes(p, cal, map[string]Measured{"Left-Hippocampus": {MM3: 3500}}) {
			out = append(out, r.Code)
		}
		return out
	}
	former := &Shift{Layer: LayerSite, Segmenter: Network, Structures: map[string]Moments{"Left-Hippocampus": {N: 40, MeanZ: 1, SDZ: 1}}}
	if got, want := codes(Calibration{Segmenter: Network, SiteShift: former}), []string{"segmenter-not-calibrated", "site-shift-not-applicable"}; !slices.Equal(got, want) {
		t.Errorf("with a site's shift from before the segmenter's: %v, want %v", got, want)
	}
	now := *former
	now.After = n.Shipped(Network).id()
	if got := codes(Calibration{Segmenter: Network, SiteShift: &now}); got != nil {
		t.Errorf("with a site's shift on top of it: %v", got)
	}
}

// A site's shift belongs to the weights and to the scanners that measured its
// controls; what is not known contradicts nothing.
func TestSiteShiftBelongsToWeightsAndScanner(t *testing.T) {
	n, p := Default(), person(60, neuroscreen.Female, 1.45e6)
	prisma, other := Scanner{Name: "PRISMA-1", FieldStrengthT: 3}, Scanner{FieldStrengthT: 1.5}
	fit := func(cal Calibration, scanners ...Scanner) *Shift {
		var controls []Control
		for i := range 20 {
			controls = append(controls, Control{Person: p, Scanner: scanners[i%len(scanners)], Volumes: map[string]Measured{"Left-Hippocampus": {MM3: 3500 + 20*float64(i)}}})
		}
		s, err := n.FitShift("clinic", "1", LayerSite, "test", cal, controls)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	a, b := Calibration{Segmenter: Network, Weights: "a"}, Calibration{Segmenter: Network, Weights: "b"}
	on := func(cal Calibration, s Scanner) Calibration { cal.Scanner = s; return cal }
	for name, tc := range map[string]struct {
		shift *Shift
		scan  Calibration
		why   string
	}{
		"the same weights":                {fit(a, Scanner{}), a, ""},
		"other weights":                   {fit(a, Scanner{}), b, "site-shift-not-applicable"},
		"weights that nobody named":       {fit(a, Scanner{}), Calibration{Segmenter: Network}, ""},
		"a shift without weights":         {fit(Calibration{Segmenter: Network}, Scanner{}), b, ""},
		"the same scanner":                {fit(a, prisma), on(a, Scanner{Name: "prisma-1"}), ""},
		"another field strength":          {fit(a, prisma), on(a, other), "site-shift-other-scanner"},
		"one of two scanners":             {fit(a, prisma, other), on(a, other), ""},
		"a scan that names no scanner":    {fit(a, prisma), a, ""},
		"controls that name no scanner":   {fit(a, Scanner{}), on(a, other), ""},
		"a control that names no scanner": {fit(a, prisma, Scanner{}), on(a, other), ""},
	} {
		t.Run(name, func(t *testing.T) {
			tc.scan.SiteShift = tc.shift
			s, why := n.siteShift(tc.scan)
			code := ""
			if why != nil {
				code = why.Code
			}
			if code != tc.why || (s != nil) != (tc.why == "") {
				t.Errorf("shift %v, reason %q, want %q", s, code, tc.why)
			}
			l, _ := n.locate("Left-Hippocampus", p, tc.scan, false)
			if l.siteKnown != (tc.why == "") {
				t.Errorf("site known: %v", l.siteKnown)
			}
		})
	}
}

func TestScannersDiffer(t *testing.T) {
	for _, tc := range []struct {
		a, b Scanner
		want bool
	}{
		{Scanner{}, Scanner{Name: "A", Manufacturer: "GE", FieldStrengthT: 3}, false},
		{Scanner{Manufacturer: "SIEMENS", FieldStrengthT: 2.89}, Scanner{Manufacturer: "Siemens", FieldStrengthT: 3}, false},
		{Scanner{Name: "A", Manufacturer: "Siemens"}, Scanner{Name: "A", Manufacturer: "Philips"}, true},
		{Scanner{Name: "A", FieldStrengthT: 1.5}, Scanner{Name: "A", FieldStrengthT: 3}, true},
		{Scanner{Name: "A"}, Scanner{Name: "B"}, true},
	} {
		if tc.a.Differs(tc.b) != tc.want || tc.b.Differs(tc.a) != tc.want {
			t.Errorf("%+v and %+v: want %v", tc.a, tc.b, tc.want)
		}
	}
}
