package dicom

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/suyashkumar/dicom/pkg/tag"

	"neuroscreen"
	"neuroscreen/internal/anatomy"
	"neuroscreen/internal/report"
	"neuroscreen/internal/words"
)

// Report writes a result as a structured report after TID 1500: a measurement
// group for each structure, which points at its segment, one for each index and
// score, and in words what holds for all.
func Report(w io.Writer, p report.Page) error {
	if err := check(p); err != nil {
		return err
	}
	return write(w, structuredReport(p))
}

func structuredReport(p report.Page) attributes {
	m := p.Metadata
	state := "PRELIMINARY"
	if p.Review != nil {
		state = "FINAL"
	}
	series := func(series string, images []attributes) attributes {
		return attributes{tag.SeriesInstanceUID: series, tag.ReferencedSOPSequence: images}
	}
	evidence := []attributes{series(uidOf(p, "seg/series"), []attributes{segmentationReference(p)})}
	if images := sources(p); len(images) > 0 {
		evidence = append(evidence, series(m.SeriesInstanceUID, images))
	}
	return object(p, reportStorage, "SR", "sr", 9902, "NeuroScreen measurements").with(attributes{
		tag.SOPInstanceUID: instanceOf(p, "sr"), tag.ReferencedPerformedProcedureStepSequence: []attributes{},
		tag.PerformedProcedureCodeSequence:            []attributes{},
		tag.CurrentRequestedProcedureEvidenceSequence: []attributes{{tag.StudyInstanceUID: m.StudyInstanceUID, tag.ReferencedSeriesSequence: evidence}},

		tag.CompletionFlag: "COMPLETE", tag.VerificationFlag: "UNVERIFIED", tag.PreliminaryFlag: state,
	}).with(container("", dcm("126000", "Imaging Measurement Report"), "1500",
		concept(modifier, dcm("121049", "Language of Content Item and Descendants"), code{"en", "RFC5646", "English"}),
		concept(context, dcm("121005", "Observer Type"), dcm("121007", "Device")),
		uidref(context, dcm("121012", "Device Observer UID"), newUID("device/"+p.Result.Software.Version)),
		text(context, dcm("121013", "Device Observer Name"), "NeuroScreen"),
		text(context, dcm("121014", "Device Observer Manufacturer"), "NeuroScreen"),
		text(context, dcm("121015", "Device Observer Model Name"), "NeuroScreen "+p.Result.Software.Version),
		concept(modifier, dcm("121058", "Procedure reported"), code{"24590-2", "LN", "MR Brain"}),
		container(contains, dcm("126010", "Imaging Measurements"), "", groups(p)...),
		container(contains, code{"C0034375", "UMLS", "Qualitative Evaluations"}, "", evaluations(p)...),
	))
}

func segmentationReference(p report.Page) attributes {
	return attributes{tag.ReferencedSOPClassUID: segmentationStorage, tag.ReferencedSOPInstanceUID: instanceOf(p, "seg")}
}

// Relations between content items.
const (
	contains    = "CONTAINS"
	modifier    = "HAS CONCEPT MOD"
	context     = "HAS OBS CONTEXT"
	hasProperty = "HAS PROPERTIES"
)

// Concepts and units of measurements.
var (
	findingSite = snomed("363698007", "Finding Site")
	method      = snomed("370129005", "Measurement Method")
	volume      = snomed("118565006", "Volume")
	comment     = dcm("121106", "Comment")
	population  = dcm("121405", "Population Description")
	voxelSum    = dcm("126030", "Sum of segmented voxel method for volume")

	mm3     = code{"mm3", "UCUM", "cubic millimeter"}
	percent = code{"%", "UCUM", "Percent"}
	noUnit  = code{"1", "UCUM", "no units"}
)

// Concepts that no public scheme has.
var (
	shareOfICV = own("SHAREICV", "Share of the intracranial volume")
	lower95    = own("CI95LOW", "Lower end of the 95 % confidence interval")
	upper95    = own("CI95HIGH", "Upper end of the 95 % confidence interval")
	zLower95   = own("ZCI95LOW", "Lower end of the 95 % confidence interval of the z-score")
	zUpper95   = own("ZCI95HIGH", "Upper end of the 95 % confidence interval of the z-score")
	ratio      = own("LR", "Likelihood ratio")
	prior      = own("PRIOR", "Prior probability")

	indices = map[string]code{
		"hippocampal_asymmetry_percent": own("HASYMMETRY", "Hippocampal asymmetry"),
		"hoc_left":                      own("HOCLEFT", "Hippocampal occupancy, left"),
		"hoc_right":                     own("HOCRIGHT", "Hippocampal occupancy, right"),
		"brain_parenchymal_fraction":    own("BPF", "Brain parenchymal fraction"),
	}
)

func groups(p report.Page) (out []attributes) {
	if icv := p.Result.IntracranialVolumeMM3; icv != nil {
		out = append(out, group(p, "1501", "Intracranial volume", "icv",
			concept(modifier, findingSite, snomed("1101003", "Intracranial")),
			number(volume, *icv, mm3, concept(modifier, method, voxelSum))))
	}
	for _, v := range p.Result.Volumes {
		if !v.LeftOut { // else nobody may use it
			out = append(out, structure(p, v))
		}
	}
	for _, i := range p.Result.Indices {
		out = append(out, index(p, i))
	}
	for n := range p.Result.Scores {
		out = append(out, score(p, n))
	}
	return out
}

// group is a measurement group after TID 1411 or 1501.
func group(p report.Page, template, title, name string, content ...attributes) attributes {
	return container(contains, dcm("125007", "Measurement Group"), template, append([]attributes{
		text(context, dcm("112039", "Tracking Identifier"), title),
		uidref(context, dcm("112040", "Tracking Unique Identifier"), tracking(p, name)),
	}, content...)...)
}

// algorithm is TID 4019.
func algorithm(p report.Page, name string) []attributes {
	return []attributes{
		text(modifier, dcm("111001", "Algorithm Name"), name),
		text(modifier, dcm("111003", "Algorithm Version"), p.Result.Software.Version),
	}
}

// structure is a volume with its error and with what its peers have.
func structure(p report.Page, v neuroscreen.Volume) attributes {
	s, _ := anatomy.ByLabel(v.Label)
	where, side := siteOf(s)
	at := concept(modifier, findingSite, where)
	if side.value != "" {
		at[tag.ContentSequence] = []attributes{concept(modifier, snomed("272741003", "Laterality"), side)}
	}
	properties := []attributes{concept(modifier, method, voxelSum)}
	property := func(name code, value *float64, unit code) {
		if value != nil {
			properties = append(properties, number(name, *value, unit).as(hasProperty))
		}
	}
	if v.Z != nil { // else it was compared with nobody, and is not normal for it
		normality := snomed("17621005", "Normal")
		switch v.Outlying() {
		case "low":
			normality = snomed("371880002", "Abnormally Low")
		case "high":
			normality = snomed("371879000", "Abnormally High")
		}
		properties = append(properties, concept(hasProperty, dcm("121402", "Normality"), normality))
	}
	property(snomed("373098007", "Mean Value of population"), v.ExpectedMM3, mm3)
	property(snomed("371888009", "5th Percentile Value of population"), v.P5MM3, mm3)
	property(snomed("371889001", "95th Percentile Value of population"), v.P95MM3, mm3)
	property(dcm("121416", "Z-Score of measurement"), v.Z, noUnit)
	if v.ZCI95 != nil {
		property(zLower95, &v.ZCI95[0], noUnit)
		property(zUpper95, &v.ZCI95[1], noUnit)
	}
	property(dcm("121415", "Percentile Ranking of measurement"), v.Percentile, noUnit)
	half := 1.96 * v.StandardErrorMM // of the interval that holds 95 %
	property(snomed("371886008", "+, range of upper measurement uncertainty"), &half, mm3)
	property(snomed("371885007", "-, range of lower measurement uncertainty"), &half, mm3)

	segment := segmentationReference(p).with(attributes{tag.ReferencedSegmentNumber: int(s.Class)})
	content := append([]attributes{
		concept(contains, snomed("276214006", "Finding category"), anatomical),
		concept(contains, dcm("121071", "Finding"), where),
		item(contains, "IMAGE", dcm("121191", "Referenced Segment")).with(attributes{tag.ReferencedSOPSequence: []attributes{segment}}),
		uidref(contains, dcm("121232", "Source series for segmentation"), p.Metadata.SeriesInstanceUID),
		at,
	}, algorithm(p, "NeuroScreen")...)
	content = append(content, number(volume, v.MM3, mm3, properties...))
	if v.PercentICV != nil {
		content = append(content, number(shareOfICV, *v.PercentICV, percent))
	}
	return group(p, "1411", words.Structure(v.Structure), v.Structure, content...)
}

func index(p report.Page, i neuroscreen.Index) attributes {
	name, known := indices[i.Name]
	if !known {
		name = own("INDEX", words.Structure(i.Name))
	}
	unit := noUnit
	if strings.HasSuffix(i.Name, "_percent") {
		unit = percent
	}
	properties := interval(i.CI95, lower95, upper95, unit)
	properties = append(properties, interval(i.Reference, snomed("385524004", "Normal Range Lower Limit"), snomed("371933006", "Normal Range Upper Limit"), unit)...)
	return group(p, "1501", name.meaning, i.Name,
		concept(modifier, findingSite, brain), number(name, i.Value, unit, properties...))
}

var brain = snomed("12738006", "Brain")

func interval(ends *[2]float64, lower, upper, unit code) []attributes {
	if ends == nil {
		return nil
	}
	return []attributes{number(lower, ends[0], unit).as(hasProperty), number(upper, ends[1], unit).as(hasProperty)}
}

// score is a likelihood ratio in words and numbers. A probability carries what
// it rests on, and without that there is none.
func score(p report.Page, n int) attributes {
	s, said := p.Result.Scores[n], p.Said(n)
	content := append([]attributes{concept(modifier, findingSite, brain)}, algorithm(p, s.Model)...)
	if s.LikelihoodRatio != nil && s.Abstained == nil {
		content = append(content, number(ratio, *s.LikelihoodRatio, noUnit, interval(s.CI95, lower95, upper95, noUnit)...))
		if s.Prior != nil && s.Posterior != nil && said.Cohort != "" {
			rests := []attributes{number(prior, *s.Prior, noUnit).as(hasProperty), text(hasProperty, population, "Fitted on: "+said.Cohort)}
			rests = append(rests, comments(hasProperty, said.Performance, said.Limits, s.IntendedUse)...)
			content = append(content, number(dcm("122157", "Probability"), *s.Posterior, noUnit, rests...))
		}
	}
	if s.Abstained != nil {
		content = append(content, comments(contains, "No score: "+*s.Abstained)...)
	}
	if said.Cohort != "" {
		content = append(content, text(contains, population, "Fitted on: "+said.Cohort))
	}
	content = append(content, comments(contains, said.Headline, said.Text, said.Evidence, said.Performance, said.Limits, s.IntendedUse)...)
	return group(p, "1501", said.Title, fmt.Sprintf("score/%s/%s", s.Condition, s.Model), content...)
}

// evaluations say what holds for the whole result.
func evaluations(p report.Page) []attributes {
	qc := p.Result.QC
	out := []attributes{concept(contains, dcm("111101", "Image Quality"), map[neuroscreen.Verdict]code{
		neuroscreen.VerdictPass:   {"RID12", "RADLEX", "Diagnostic quality"},
		neuroscreen.VerdictReview: {"RID13", "RADLEX", "Limited quality"},
		neuroscreen.VerdictRefuse: {"RID14", "RADLEX", "Non-diagnostic quality"},
	}[qc.Verdict])}
	for _, r := range qc.Reasons {
		out = append(out, comments(contains, r.Text)...)
	}
	for _, said := range p.Reading.Conclusions() {
		out = append(out, text(contains, dcm("121077", "Conclusion"), said))
	}
	for _, v := range p.Result.Volumes {
		if v.LeftOut {
			out = append(out, comments(contains, "Not to be used, since a reviewer left it out: "+words.Structure(v.Structure))...)
		}
	}
	headline, decision := p.Decision()
	out = append(out, comments(contains, strings.TrimSpace(headline+" "+decision), neuroscreen.IntendedUse)...)
	for _, said := range p.Reading.Norms {
		out = append(out, text(contains, population, said))
	}
	for _, a := range slices.Concat([]neuroscreen.Asset{p.Result.Software.Network}, p.Result.Software.Norms, p.Result.Software.Models) {
		out = append(out, text(contains, dcm("111002", "Algorithm Parameters"), a.Name+" sha256:"+a.SHA256))
	}
	return out
}

// item is a content item of a type, without its value.
func item(relation, kind string, name code, children ...attributes) attributes {
	a := attributes{tag.ValueType: kind, tag.ConceptNameCodeSequence: name.item()}
	if relation != "" { // the root has none
		a[tag.RelationshipType] = relation
	}
	if len(children) > 0 {
		a[tag.ContentSequence] = children
	}
	return a
}

// as is the same item in another relation.
func (a attributes) as(relation string) attributes {
	return a.with(attributes{tag.RelationshipType: relation})
}

func container(relation string, name code, template string, children ...attributes) attributes {
	a := item(relation, "CONTAINER", name, children...).with(attributes{tag.ContinuityOfContent: "SEPARATE"})
	if template != "" {
		a[tag.ContentTemplateSequence] = []attributes{{tag.MappingResource: "DCMR", tag.TemplateIdentifier: template}}
	}
	return a
}

func text(relation string, name code, value string) attributes {
	return item(relation, "TEXT", name).with(attributes{tag.TextValue: value})
}

// comments are those of texts that say something.
func comments(relation string, texts ...string) (out []attributes) {
	for _, t := range texts {
		if t != "" {
			out = append(out, text(relation, comment, t))
		}
	}
	return out
}

func concept(relation string, name, value code) attributes {
	return item(relation, "CODE", name).with(attributes{tag.ConceptCodeSequence: value.item()})
}

func uidref(relation string, name code, value string) attributes {
	return item(relation, "UIDREF", name).with(attributes{tag.UID: value})
}

func number(name code, value float64, unit code, children ...attributes) attributes {
	return item(contains, "NUM", name, children...).with(attributes{tag.MeasuredValueSequence: []attributes{{
		tag.NumericValue: decimal(value), tag.FloatingPointValue: value, tag.MeasurementUnitsCodeSequence: unit.item(),
	}}})
}
