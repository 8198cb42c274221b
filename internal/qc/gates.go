package qc

import (
	"fmt"
	"math"
	"strings"

	"neuroscreen"
	"neuroscreen/internal/anatomy"
)

// Codes of the reasons to review a scan, beside those of the table of limits.
const (
	LowContrast     = "low-contrast"
	UnusualHeadSize = "unusual-head-size"
	LargeAsymmetry  = "large-asymmetry"
	SkullStripped   = "skull-stripped"
	TemplateSpace   = "template-space" // scores are withheld with it
)

// Limits of the gates after segmentation.
const (
	// minBrainML is the least intracranial volume of something to measure: a
	// macaque has about 100 ml, a newborn 400.
	minBrainML = 500
	// maxImpossible structures may have impossible volumes in what is still
	// called a brain, if a badly segmented one.
	maxImpossible = 8

	// Intracranial volume of adults: NOMIS's eTIV is clamped to 1.1 to 2.0 l;
	// the outer limits leave room for the smallest and for hydrocephalic heads.
	refuseICVBelowML, refuseICVAboveML = 750, 2400
	reviewICVBelowML, reviewICVAboveML = 1050, 2050

	// White matter's signal over the striatum's: 1.09 to 1.32 in real
	// T1-weighted heads, .95 in FLAIR, over 2 in a map of anisotropy.
	minWhiteToStriatum, reviewWhiteToStriatum, maxWhiteToStriatum = 1.0, 1.04, 1.8
	// And over the cortex's, which CSF dilutes: 1.3 to 2.0 in the same heads.
	minWhiteToGrey, maxWhiteToGrey = 1.03, 2.6
	maxCSFToGrey                   = 0.95
	// Without T1 contrast the labels follow nothing in the image, and white and
	// grey matter overlap for other reasons than noise: CJV 2.9 in FLAIR and
	// 6 in T2, .3 to .6 in the T1-weighted heads. Noise alone that brings it to
	// 2 makes up as much as the contrast.
	maxQuietCJV, quietNoise = 2.0, 0.5

	// Area of brain on one face of the image. A stripped image cropped to its
	// brain has one layer of voxels there, some 400 mm2 of the vertex (a
	// sphere of radius 70 mm cut 1 mm deep); cut 6 mm deep it has 2,500.
	reviewEdgeMM2, refuseEdgeMM2 = 700, 2500

	// |L - R| / (L + R) of cerebral cortex, white matter and cerebellum: under
	// .04 in the 20 label maps. What exceeds it is surgery, stroke, half a
	// head, or labels gone astray.
	reviewAsymmetry, refuseAsymmetry = 0.12, 0.40

	minApartMM = 8 // from the centre of a left structure to that of the right one

	maxStripped = 0.10 // bright voxels round the brain, of the intracranial volume; whole heads have over .3
)

// finding of a gate; a grave one refuses the scan, others ask for review.
type finding struct {
	neuroscreen.Reason
	grave bool
}

// checkBrain says whether there is an adult brain at all.
func checkBrain(m Measured, l labelled) []neuroscreen.Reason {
	const then = "Send a T1-weighted scan of a whole adult head."
	if ml := m.icvMM3() / 1000; ml < minBrainML {
		return []neuroscreen.Reason{reason(NotABrain, fmt.Sprintf(
			"Only %.3g ml look like the inside of a skull; an adult's holds over %d ml. %s", ml, minBrainML, then), ml, minBrainML)}
	}
	var names []string
	for _, b := range plausible {
		for _, s := range b.structures() {
			if ml := m.MM3[s.Class] / 1000; ml < b.minML || ml > b.maxML || l.voxels[s.Label] == 0 {
				names = append(names, s.Name)
			}
		}
	}
	if n := len(names); n > maxImpossible {
		return []neuroscreen.Reason{reason(NotABrain, fmt.Sprintf(
			"%d structures are missing or have impossible volumes (%s and others; limit %d), so this is not a brain that can be measured. %s",
			n, strings.Join(names[:3], ", "), maxImpossible, then), float64(n), maxImpossible)}
	}
	return nil
}

// checkContrast tells the kind of scan by the order of the tissues' signals:
// T1 has CSF < grey < white, T2 and proton density CSF > grey > white, FLAIR
// and CT CSF < white < grey.
func checkContrast(inside [white + 1]signal, cjv, noise float64) []finding {
	c, g, s, w := inside[csf], inside[grey], inside[striatum], inside[white]
	if w.n < minSample || g.n < minSample || s.n < minSample || !(g.median > 0 && s.median > 0 && w.median > 0) {
		return []finding{{neuroscreen.Reason{Code: NotT1, Text: "White and grey matter have no signal of their own. Send the T1-weighted scan."}, true}}
	}
	ventricles := c.n >= minSample
	csfToGrey := c.median / g.median
	for _, against := range []struct {
		name               string
		ratio, least, most float64
	}{
		{"the striatum", w.median / s.median, minWhiteToStriatum, maxWhiteToStriatum},
		{"the cortex", w.median / g.median, minWhiteToGrey, maxWhiteToGrey},
	} {
		if against.ratio > against.most {
			return []finding{{reason(NotT1, fmt.Sprintf(
				"White matter has %.0f %% of the signal of %s; no T1-weighted scan has over %.0f %%. This looks like a parameter map. Send the T1-weighted scan.",
				100*against.ratio, against.name, 100*against.most), against.ratio, against.most), true}}
		}
		if against.ratio < against.least {
			like := "FLAIR or CT"
			if ventricles && csfToGrey > 1 {
				like = "a T2- or proton-density-weighted scan"
			}
			return []finding{{reason(NotT1, fmt.Sprintf(
				"White matter has %.0f %% of the signal of %s; on a T1-weighted scan it has over %.0f %%. This looks like %s. Send the T1-weighted scan.",
				100*against.ratio, against.name, 100*against.least, like), against.ratio, against.least), true}}
		}
	}
	if ventricles && csfToGrey > maxCSFToGrey {
		return []finding{{reason(NotT1, fmt.Sprintf(
			"The ventricles have %.0f %% of the cortex's signal; on a T1-weighted scan they are darker (limit %.0f %%). Send the T1-weighted scan.",
			100*csfToGrey, 100*maxCSFToGrey), csfToGrey, maxCSFToGrey), true}}
	}
	if cjv > maxQuietCJV && noise < quietNoise {
		return []finding{{reason(NotT1, fmt.Sprintf(
			"White and grey matter hardly differ (joint variation %.1f, limit %.1f) although the image has little noise: this is no T1-weighted scan, or a spoilt one. Send the T1-weighted scan.",
			cjv, maxQuietCJV), cjv, maxQuietCJV), true}}
	}
	if ratio := w.median / s.median; ratio < reviewWhiteToStriatum {
		return []finding{{reason(LowContrast, fmt.Sprintf(
			"White matter has only %.0f %% of the striatum's signal; below %.0f %% the border between white and grey matter is unsure.",
			100*ratio, 100*reviewWhiteToStriatum), ratio, reviewWhiteToStriatum), false}}
	}
	return nil
}

func checkEdge(mm2 float64) []finding {
	switch {
	case mm2 > refuseEdgeMM2:
		return []finding{{reason(FieldOfViewCut, fmt.Sprintf(
			"The edge of the image cuts %.0f mm2 of brain (limit %d mm2), so volumes are incomplete. Send a scan of the whole head.",
			mm2, refuseEdgeMM2), mm2, refuseEdgeMM2), true}}
	case mm2 > reviewEdgeMM2:
		return []finding{{reason(FieldOfViewCut, fmt.Sprintf(
			"The brain touches the edge of the image over %.0f mm2 (limit %d mm2): look whether some of it is missing there.",
			mm2, reviewEdgeMM2), mm2, reviewEdgeMM2), false}}
	}
	return nil
}

// bounds of a structure's volume, per side.
type bounds struct {
	name         string // of the left one
	minML, maxML float64
}

// structures that the bounds are for: both sides, or the one on the midline.
func (b bounds) structures() []anatomy.Structure {
	s, ok := anatomy.ByName(b.name)
	if !ok {
		panic("qc: no structure " + b.name)
	}
	if s.Mirror == s.Class {
		return []anatomy.Structure{s}
	}
	return []anatomy.Structure{s, anatomy.Structures[s.Mirror]}
}

// plausible volumes. What lies outside is no finding but a failure, so the
// bounds are wide: NOMIS's expectations for ages 20 to 90 and head sizes 1.1 to
// 2.0 l with six standard errors to either side, half as much again above,
// and below no more than half of the smallest of 20 people from young to
// severely atrophied.
var plausible = []bounds{
	{"Left-Cerebral-White-Matter", 70, 530},
	{"Left-Cerebral-Cortex", 75, 530},
	{"Left-Lateral-Ventricle", 0.3, 300},
	{"Left-Cerebellum-White-Matter", 3, 41},
	{"Left-Cerebellum-Cortex", 15, 135},
	{"Left-Thalamus", 1.4, 19},
	{"Left-Caudate", 0.6, 9.5},
	{"Left-Putamen", 0.9, 14},
	{"Left-Pallidum", 0.25, 6},
	{"Left-Hippocampus", 0.5, 10},
	{"Left-Amygdala", 0.15, 4.5},
	{"Left-VentralDC", 1, 9.8},
	{"Brain-Stem", 6.5, 52},
}

// Possible reports whether an adult can have this volume of a structure. Those
// without bounds can have any.
func Possible(structure string, mm3 float64) bool {
	for _, b := range plausible {
		for _, s := range b.structures() {
			if s.Name == structure {
				return mm3 >= 1000*b.minML && mm3 <= 1000*b.maxML
			}
		}
	}
	return true
}

func checkVolumes(m Measured) (found []finding) {
	icv := m.icvMM3() / 1000
	switch {
	case icv < refuseICVBelowML || icv > refuseICVAboveML:
		found = append(found, finding{reason(ImplausibleSegmentation, fmt.Sprintf(
			"The inside of the skull comes out at %.0f ml; adults have %d to %d ml. Look at the image for artefacts or a wrong voxel size.",
			icv, refuseICVBelowML, refuseICVAboveML), icv, nearer(icv, refuseICVBelowML, refuseICVAboveML)), true})
	case icv < reviewICVBelowML || icv > reviewICVAboveML:
		found = append(found, finding{reason(UnusualHeadSize, fmt.Sprintf(
			"The inside of the skull measures %.0f ml, outside the %d to %d ml of most adults: check the outline of the brain.",
			icv, reviewICVBelowML, reviewICVAboveML), icv, nearer(icv, reviewICVBelowML, reviewICVAboveML)), false})
	}
	for _, b := range plausible {
		for _, s := range b.structures() {
			if ml := m.MM3[s.Class] / 1000; ml < b.minML || ml > b.maxML {
				found = append(found, finding{reason(ImplausibleSegmentation, fmt.Sprintf(
					"%s comes out at %.3g ml; between %.3g and %.3g ml are possible. The labels are wrong: look at the image for artefacts, surgery or a large lesion.",
					s.Name, ml, b.minML, b.maxML), ml, nearer(ml, b.minML, b.maxML)), true})
			}
		}
	}
	return found
}

// nearer returns the one of two limits that x lies beyond.
func nearer(x, lo, hi float64) float64 {
	if x < lo {
		return lo
	}
	return hi
}

// checkSides compares the halves of the brain.
func checkSides(m Measured, l labelled, f frame) (found []finding) {
	for _, s := range anatomy.Structures[1:] {
		if s.Side != anatomy.Left {
			continue
		}
		other := anatomy.Structures[s.Mirror]
		nl, nr := l.voxels[s.Label], l.voxels[other.Label]
		if nl == 0 || nr == 0 {
			continue
		}
		apart := (l.sum[other.Label][0]/float64(nr) - l.sum[s.Label][0]/float64(nl)) * f.size[0]
		if apart < minApartMM {
			found = append(found, finding{reason(ImplausibleSegmentation, fmt.Sprintf(
				"%s lies %.0f mm to the right of %s instead of over %d mm to the left: the labels have mixed up the sides.",
				s.Name, -apart, other.Name, minApartMM), apart, minApartMM), true})
		}
	}
	for _, name := range []string{"Left-Cerebral-White-Matter", "Left-Cerebral-Cortex", "Left-Cerebellum-Cortex"} {
		s, _ := anatomy.ByName(name)
		left, right := m.MM3[s.Class], m.MM3[s.Mirror]
		asymmetry := math.Abs(left-right) / (left + right)
		if asymmetry > reviewAsymmetry {
			grave, code, limit := asymmetry > refuseAsymmetry, LargeAsymmetry, reviewAsymmetry
			if grave {
				code, limit = ImplausibleSegmentation, refuseAsymmetry
			}
			found = append(found, finding{reason(code, fmt.Sprintf(
				"%s of left and right differs by %.0f %% of their sum (limit %.0f %%): look for surgery, stroke, a mass, or half a head missing.",
				strings.TrimPrefix(name, "Left-"), 100*asymmetry, 100*limit), asymmetry, limit), grave})
		}
	}
	return found
}

// checkSpace marks images that were probably resampled to a template.
func checkSpace(inTemplate bool) []finding {
	if !inTemplate {
		return nil
	}
	return []finding{{neuroscreen.Reason{Code: TemplateSpace, Text: "By its header the image lies in a template's space (Talairach, MNI or another). It was probably resampled to it, " +
		"and then sizes and volumes are the template's and not this person's: no score is given. Send the scan as it left the scanner, converted from its DICOM series."}, false}}
}

// checkStripped marks heads without scalp and skull.
func checkStripped(ratio float64) []finding {
	if ratio >= maxStripped {
		return nil
	}
	return []finding{{reason(SkullStripped,
		"The skull has been removed from this scan. How tightly decides the intracranial volume, which may be some per cent too small; a whole head measures better.",
		ratio, maxStripped), false}}
}
