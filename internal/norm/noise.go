package norm

import (
	"fmt"
	"math"
	"strconv"

	"neuroscreen/internal/anatomy"
)

// retestCV is the standard deviation of a volume between two scans of the same
// person on one scanner, as a fraction of the volume.
//
//   - hippocampus: 2 % mean absolute error across sessions at 13 3 T sites with
//     FreeSurfer 5.1, which is an SD of 1.8 %;
//   - caudate 1.6 %, thalamus 6.1 %: Maclaren 2014, 3 people x 40 scans, the
//     ends of its range;
//   - small structures: up to 7 to 8 % (SIMON and SRPBS, arXiv 2504.15931).
//
// Everything else takes retestDefault, between Maclaren's two ends: an
// assumption.
var retestCV = map[string]float64{
	"Hippocampus":    0.018,
	"Caudate":        0.016,
	"Thalamus":       0.061,
	"Amygdala":       0.075,
	"Accumbens-area": 0.075,
	"Pallidum":       0.075,
	"Inf-Lat-Vent":   0.075,
}

const retestDefault = 0.03

// RetestCV returns the test-retest standard deviation of a structure's volume
// as a fraction of it.
func RetestCV(structure string) float64 {
	if cv, ok := retestCV[anatomy.Bare(structure)]; ok {
		return cv
	}
	return retestDefault
}

// NoiseMM3 returns the standard error of one measured volume: the
// measurement's own and the test-retest spread.
func NoiseMM3(structure string, v Measured) float64 {
	return math.Hypot(cleanSE(v.SE), RetestCV(structure)*v.MM3)
}

// noise holds the standard deviations of a volume's logarithm.
type noise struct{ bias, rest float64 }

func noiseOf(v Measured) noise {
	se := cleanSE(v.SE)
	bias := min(cleanSE(v.Bias), se)
	return noise{bias / v.MM3, math.Sqrt(se*se-bias*bias) / v.MM3}
}

// MeasurementVariance returns the variance that the segmenter's errors give to
// gl ln(left) + gr ln(right), for the volumes of a structure on both sides of
// one head. Its bias is the same relative error on both sides; what is left is
// correlated by Pair.
func MeasurementVariance(left, right Measured, gl, gr float64) float64 {
	l, r := noiseOf(left), noiseOf(right)
	bias := gl*l.bias + gr*r.bias
	return bias*bias + gl*gl*l.rest*l.rest + gr*gr*r.rest*r.rest + 2*min(left.Pair, right.Pair)*gl*gr*l.rest*r.rest
}

// PairVariance is MeasurementVariance with the spread between two scans of one
// person, which is taken as independent between the sides, for its correlation
// was not published.
func PairVariance(structure string, left, right Measured, gl, gr float64) float64 {
	l, r := gl*RetestCV("Left-"+structure), gr*RetestCV("Right-"+structure)
	return MeasurementVariance(left, right, gl, gr) + l*l + r*r
}

// siteRatioFrom names the row of the between-site table that stands for a
// region the table does not hold: the nearest sum that it does.
var siteRatioFrom = map[string]string{
	"CC":                          "SupraTentorialVolNotVent",
	"Ventricles":                  "Left-Lateral-Ventricle",
	"BrainSegVol":                 "SupraTentorialVol",
	"BrainSegVolNotVent":          "SupraTentorialVolNotVent",
	"BrainSegVolNotVentSurf":      "SupraTentorialVolNotVent",
	"SupraTentorialVolNotVentVox": "SupraTentorialVolNotVent",
	"CerebralWhiteMatterVol":      "SupraTentorialVolNotVent",
	"lhCerebralWhiteMatterVol":    "SupraTentorialVolNotVent",
	"rhCerebralWhiteMatterVol":    "SupraTentorialVolNotVent",
	"CortexVol":                   "TotalGrayVol",
	"lhCortexVol":                 "TotalGrayVol",
	"rhCortexVol":                 "TotalGrayVol",
	"Left-Thalamus":               "Left-Thalamus-Proper",
	"Right-Thalamus":              "Right-Thalamus-Proper",
}

// readSiteRatios returns the standard deviation of the site effects of 82
// sites over that within a site, by structure (Rutherford 2022; some of it is
// true difference between the sites' populations, so it errs to the wide side).
// A ratio of standard deviations holds in mm3 and in log10(mm3) alike.
func readSiteRatios(structures map[string]*nomis) (map[string]float64, error) {
	rows, err := readCSV("between_site_sd.csv")
	if err != nil {
		return nil, err
	}
	table := map[string]float64{}
	for _, r := range rows {
		v, err := strconv.ParseFloat(r["ratio_between_within"], 64)
		if err != nil {
			return nil, fmt.Errorf("between_site_sd.csv: %s: %w", r["region"], err)
		}
		table[r["region"]] = v
	}
	out := map[string]float64{}
	for s := range structures {
		from := s
		if f, ok := siteRatioFrom[s]; ok {
			from = f
		}
		v, ok := table[from]
		if !ok {
			return nil, fmt.Errorf("between_site_sd.csv: no row %s for %s", from, s)
		}
		out[s] = v
	}
	return out, nil
}

// betweenSegmenters is how far a segmenter lies from the norm that nobody
// measured against it, in SDs of the norm: the root mean square of FreeSurfer
// 7's mean z over the structures of the label map. It is the only segmenter
// whose offset is known on all of them, and the norm's next of kin: others may
// lie further off.
func betweenSegmenters(fs7 *Shift) float64 {
	sum, n := 0.0, 0
	for _, name := range sortedKeys(fs7.Structures) { // in one order: sums of floats depend on it
		if _, ok := anatomy.ByName(name); ok { // sums hold the same volumes again
			m := fs7.Structures[name]
			sum += m.MeanZ * m.MeanZ
			n++
		}
	}
	return math.Sqrt(sum / float64(n))
}

// BetweenSitesMM3 is the spread that a change of scanner gives to a volume of
// one person: that between sites, over a volume's own size.
func (n *Norms) BetweenSitesMM3(structure string, mm3 float64) float64 {
	s := normName(structure)
	base := s
	if n.models[s] == nil {
		base = surfaceBased[s]
	}
	m := n.models[base]
	if m == nil {
		return unknownSiteCV * mm3
	}
	sd := n.siteRatio[base] * m.sd
	if m.log {
		return sd * math.Ln10 * mm3
	}
	return sd
}

// unknownSiteCV stands in for a structure without a norm: the largest of the
// table's coefficients of variation but those of ventricles and accumbens.
const unknownSiteCV = 0.097
