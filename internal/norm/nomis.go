package norm

import (
	"bytes"
	"embed"
	"encoding/csv"
	"fmt"
	"math"
	"strconv"
	"strings"

	"neuroscreen"
)

// NOMIS centres its regressors on these means of its training sample (Potvin
// 2021; the constants stand in its source). Volumes in mm3, ages in years.
const (
	nomisMeanAge = 54.960257498335615
	nomisMeanTIV = 1523160.5903620527
)

// Range of ages and head sizes that the norm is used in. Head sizes outside
// are clamped to the nearest bound: the cubic terms run away beyond them.
const (
	MinAge = 18.0
	MaxAge = 100.0
	MinTIV = 1.1e6 // mm3
	MaxTIV = 2.0e6 // mm3
)

// collapsed lists the regions whose sex, scanner and noise main effects came
// out of NOMIS's least squares as zero to rounding: every model that holds the
// cube of the head size, with columns up to 1e16, lost them. Their sex term is
// not used (it would move an expected volume by less than 0.04 mm3, or 3.2e-6
// in log10) and no correction for sex is claimed for them: age and head size
// only. Their interactions of sex with age and head size did not collapse and
// are part of the formula; they are nothing at the mean age and head size.
//
// Evidence: for a man of 70 with 1.5 l, GE 1.5 T against GE 3 T moves NOMIS's
// left hippocampus by 1.25 mm3; Potvin 2016 (doi:10.1016/j.neuroimage.2016.05.016)
// has 368 mm3 for the same change.
var collapsed = map[string]bool{
	"cc":                            true,
	"left-cerebellum-cortex":        true,
	"left-cerebellum-white-matter":  true,
	"left-hippocampus":              true,
	"left-lateral-ventricle":        true,
	"right-cerebellum-cortex":       true,
	"right-cerebellum-white-matter": true,
	"right-hippocampus":             true,
	"right-lateral-ventricle":       true,
	"right-pallidum":                true,
	"ventricles":                    true,
	"brainsegvol":                   true,
	"brainsegvolnotvent":            true,
	"brainsegvolnotventsurf":        true,
	"supratentorialvol":             true,
	"supratentorialvolnotvent":      true,
	"supratentorialvolnotventvox":   true,
}

// logRegions were modelled as log10(mm3). The 4th ventricle was not.
var logRegions = map[string]bool{
	"3rd-ventricle":           true,
	"left-lateral-ventricle":  true,
	"right-lateral-ventricle": true,
	"left-inf-lat-vent":       true,
	"right-inf-lat-vent":      true,
	"ventricles":              true,
}

// regionNames maps NOMIS's regions to the names FreeSurfer gives them.
// Thickness and surface area, which NOMIS also holds, are no volumes.
var regionNames = map[string]string{
	"3rd-ventricle":                 "3rd-Ventricle",
	"4th-ventricle":                 "4th-Ventricle",
	"brain-stem":                    "Brain-Stem",
	"cc":                            "CC",
	"left-accumbens-area":           "Left-Accumbens-area",
	"left-amygdala":                 "Left-Amygdala",
	"left-caudate":                  "Left-Caudate",
	"left-cerebellum-cortex":        "Left-Cerebellum-Cortex",
	"left-cerebellum-white-matter":  "Left-Cerebellum-White-Matter",
	"left-hippocampus":              "Left-Hippocampus",
	"left-inf-lat-vent":             "Left-Inf-Lat-Vent",
	"left-lateral-ventricle":        "Left-Lateral-Ventricle",
	"left-pallidum":                 "Left-Pallidum",
	"left-putamen":                  "Left-Putamen",
	"left-thalamus-proper":          "Left-Thalamus",
	"left-ventraldc":                "Left-VentralDC",
	"right-accumbens-area":          "Right-Accumbens-area",
	"right-amygdala":                "Right-Amygdala",
	"right-caudate":                 "Right-Caudate",
	"right-cerebellum-cortex":       "Right-Cerebellum-Cortex",
	"right-cerebellum-white-matter": "Right-Cerebellum-White-Matter",
	"right-hippocampus":             "Right-Hippocampus",
	"right-inf-lat-vent":            "Right-Inf-Lat-Vent",
	"right-lateral-ventricle":       "Right-Lateral-Ventricle",
	"right-pallidum":                "Right-Pallidum",
	"right-putamen":                 "Right-Putamen",
	"right-thalamus-proper":         "Right-Thalamus",
	"right-ventraldc":               "Right-VentralDC",
	"ventricles":                    "Ventricles",
	"brainsegvol":                   "BrainSegVol",
	"brainsegvolnotvent":            "BrainSegVolNotVent",
	"brainsegvolnotventsurf":        "BrainSegVolNotVentSurf",
	"cerebralwhitemattervol":        "CerebralWhiteMatterVol",
	"cortexvol":                     "CortexVol",
	"lhcerebralwhitemattervol":      "lhCerebralWhiteMatterVol",
	"lhcortexvol":                   "lhCortexVol",
	"rhcerebralwhitemattervol":      "rhCerebralWhiteMatterVol",
	"rhcortexvol":                   "rhCortexVol",
	"subcortgrayvol":                "SubCortGrayVol",
	"supratentorialvol":             "SupraTentorialVol",
	"supratentorialvolnotvent":      "SupraTentorialVolNotVent",
	"supratentorialvolnotventvox":   "SupraTentorialVolNotVentVox",
	"totalgrayvol":                  "TotalGrayVol",
}

// surfaceBased names structures of the volume labelling that stand for a
// region which NOMIS knows only from the cortical surfaces. The two
// definitions differ by some per cent, so they are compared only through a
// segmenter shift that holds them.
var surfaceBased = map[string]string{
	"Left-Cerebral-Cortex":        "lhCortexVol",
	"Right-Cerebral-Cortex":       "rhCortexVol",
	"Left-Cerebral-White-Matter":  "lhCerebralWhiteMatterVol",
	"Right-Cerebral-White-Matter": "rhCerebralWhiteMatterVol",
}

// nomis holds one region's polynomial. Coefficients of the scanner, its field,
// contrast-to-noise and surface holes are not read: they describe how
// FreeSurfer reacts to a scanner, which another segmenter does not share, and
// a site's own shift covers them. Their reference is a Siemens 3 T with average
// noise. The voxel term stands for 1 mm3, as NOMIS does when it is not known,
// and is part of the intercept.
type nomis struct {
	region    string
	intercept float64
	age       [3]float64 // of age, age^2, age^3
	tiv       [3]float64
	ageTIV    float64
	ageMale   float64
	tivMale   float64
	male      float64
	sd        float64 // root mean squared error; log10(mm3) for log regions
	log       bool
	collapsed bool
}

// expected returns the mean of healthy people: mm3, or log10(mm3) for log
// regions. With published it is the formula as NOMIS has it, collapsed sex term
// included.
func (m *nomis) expected(ageYears float64, sex neuroscreen.Sex, tivMM3 float64, published bool) float64 {
	a, t := ageYears-nomisMeanAge, tivMM3-nomisMeanTIV
	v := m.intercept + a*(m.age[0]+a*(m.age[1]+a*m.age[2])) + t*(m.tiv[0]+t*(m.tiv[1]+t*m.tiv[2])) + m.ageTIV*a*t
	if sex == neuroscreen.Male {
		v += m.ageMale*a + m.tivMale*t
		if published || !m.collapsed {
			v += m.male
		}
	}
	return v
}

//go:embed data
var files embed.FS

var coefficientFiles = []string{"nomis_aseg_coefficients.csv", "nomis_aseg_bigregions_coefficients.csv"}

// readNOMIS reads both coefficient files, by FreeSurfer name.
func readNOMIS() (map[string]*nomis, error) {
	out := map[string]*nomis{}
	for _, name := range coefficientFiles {
		rows, err := readCSV(name)
		if err != nil {
			return nil, err
		}
		for _, row := range rows {
			region := row["region"]
			fsName, ok := regionNames[region]
			if !ok {
				continue
			}
			var bad error
			f := func(column string) float64 {
				if row[column] == "" { // a term that this region's model does not hold
					return 0
				}
				v, err := strconv.ParseFloat(row[column], 64)
				if err != nil {
					bad = fmt.Errorf("%s: %s, column %s: %w", name, region, column, err)
				}
				return v
			}
			out[fsName] = &nomis{
				region:    region,
				intercept: f("intercept") + f("voxel"),
				age:       [3]float64{f("age"), f("age2"), f("age3")},
				tiv:       [3]float64{f("etiv"), f("etiv2"), f("etiv3")},
				ageTIV:    f("age_x_etiv"),
				ageMale:   f("age_x_sex_m"),
				tivMale:   f("etiv_x_sex_m"),
				male:      f("sex_m"),
				sd:        math.Sqrt(f("mse")),
				log:       logRegions[region],
				collapsed: collapsed[region],
			}
			if bad != nil {
				return nil, bad
			}
		}
	}
	if len(out) != len(regionNames) {
		return nil, fmt.Errorf("norm: %d of %d regions found", len(out), len(regionNames))
	}
	return out, nil
}

func readCSV(name string) ([]map[string]string, error) {
	b, err := files.ReadFile("data/" + name)
	if err != nil {
		return nil, err
	}
	rows, err := csv.NewReader(bytes.NewReader(b)).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	var out []map[string]string
	for _, r := range rows[1:] {
		m := map[string]string{}
		for i, h := range rows[0] {
			m[strings.TrimSpace(h)] = strings.TrimSpace(r[i])
		}
		out = append(out, m)
	}
	return out, nil
}
