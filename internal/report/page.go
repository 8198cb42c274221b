package report

import (
	"embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"neuroscreen"
	"neuroscreen/internal/anatomy"
	"neuroscreen/internal/timeline"
	"neuroscreen/internal/words"
)

// Page is what a report shows: one result, and what the result alone does not
// say about it.
type Page struct {
	Result   *neuroscreen.Result
	Metadata neuroscreen.Metadata // what the result was computed with
	Version  int                  // of the result, 0 if it is not stored
	Created  time.Time            // of the result
	Preview  []byte               // PNG, may be empty
	Maps     []byte               // PNG, of a BOLD run; may be empty
	Reading  Reading
	Review   *Review // the last decision on the result; nil for none
	LeftOut  []LeftOut
	Timeline *timeline.Timeline // of the visits up to this one; nil for none before it
	Stands   int                // version that is the scan's result now, if that is another
	State    neuroscreen.State  // of the scan, if no result of it stands any more
	Paper    Paper              // A4 if not said
}

// Paper is a size of sheet, mm. Name is CSS's.
type Paper struct {
	Name          string
	Width, Height float64
}

// The world's paper and North America's.
var (
	A4     = Paper{"A4", 210, 297}
	Letter = Paper{"letter", 215.9, 279.4}
)

// Review is a decision as the report shows it.
type Review struct {
	Decision string // accept, amend, reject
	By       string
	At       time.Time
	Comment  string
	Excluded []string // structures that are not to be used
	Made     int      // version that was scored without them, 0 for none
}

// LeftOut is what one decision left out of the result, and still does.
type LeftOut struct {
	Structures []string
	By         string
	At         time.Time
	Comment    string
}

//go:embed page.html run.html style.html visits.html
var pages embed.FS

var templates = template.Must(template.New("report").Funcs(template.FuncMap{
	"mm3":        func(v float64) string { return words.Grouped(v, 0) },
	"optionalMM": func(v *float64) string { return optional(v, func(x float64) string { return words.Grouped(x, 0) }) },
	"fixed": func(digits int, v *float64) string {
		return optional(v, func(x float64) string { return signed(x, digits) })
	},
	"plain":      func(digits int, v float64) string { return signed(v, digits) },
	"percentile": func(v *float64) string { return optional(v, words.Percentile) },
	"zscore":     func(v *float64) string { return optional(v, zscore) },
	"zend":       zscore,
	"name":       words.Structure,
	"ratio":      func(v any) string { return words.Ratio(number(v)) },
	"bound":      words.Bound,
	"percent":    func(v any) string { return percent(number(v)) },

	"runCells":   runCells,
	"runColumns": func() []string { return runColumns },

	"imagePasses":      says(imagePasses),
	"notDetected":      says(notDetected),
	"outlinesCaption":  says(outlinesCaption),
	"outlinedToo":      says(outlinedToo),
	"curvesCaption":    says(curvesCaption),
	"scoreSums":        says(scoreSums),
	"notValidated":     says(notValidated),
	"runPasses":        says(runPasses),
	"runSourceImages":  says(runSourceImages),
	"carpetCaption":    says(carpetCaption),
	"runWithheld":      says(runWithheld),
	"runExperimental":  says(runExperimental),
	"matrixCaption":    says(matrixCaption),
	"mapsCaption":      says(mapsCaption),
	"structureCaption": says(structureCaption),
	"previewCaption":   says(previewCaption),
}).ParseFS(pages, "*.html"))

func says(text string) func() string { return func() string { return text } }

// Captions, said by page and sheets.
const (
	imagePasses     = "Nothing in the image speaks against the measurements."
	notDetected     = "Tumours, strokes, haemorrhages, shunts and mixed-up patients are not detected. Look at the source images."
	outlinesCaption = "Outlines of the labels over the scan. Radiological convention: the patient's right is on the left of axial and coronal cuts."
	outlinedToo     = "What was left out is outlined too."
	curvesCaption   = "Grey: 5th to 95th percentile and median of healthy people with a head of this size. Point: this scan, with the 95 % interval of its measurement."
	scoreSums       = "ln(likelihood ratio) is the sum of its terms; logit(posterior) = logit(prior) + ln(likelihood ratio). A flag asks for a physician's review, nothing more; no flag cannot exclude a condition."
)

// Origins names what the result was made of and by.
func (p Page) Origins() string {
	r := p.Result
	return fmt.Sprintf("Received file: SHA-256 %s. The others: its first %d digits; whole in the result document. %s, kernel %s.", r.Input.SHA256, hashDigits, r.Schema, r.Software.Kernel)
}

// HTML writes the report: one page that needs nothing else, on screen or as
// two sheets of paper, result and method. It holds the result's numbers, rounded for reading.
func HTML(w io.Writer, p Page) error {
	if p.Result.FMRI != nil {
		v := viewRun(p)
		v.Print = printed(fitRun(v))
		return templates.ExecuteTemplate(w, "run.html", v)
	}
	v := view(p)
	v.Print = printed(fit(v))
	return templates.ExecuteTemplate(w, "page.html", v)
}

// printed leaves room for the fonts of browsers, which are wider than the PDF's.
func printed(f fitted) fitted {
	f.Result *= 0.91
	f.Method *= 0.95
	return f
}

// The page's view of a result: words and rows in the order of reading.
type pageView struct {
	Page
	Preview     template.URL
	Print       fitted
	Facts       []fact
	Verdict     string // of quality
	Quality     []string
	Calibration []string // what the comparison with the norm lacks
	Metrics     []fact
	Scores      []scoreView
	Methods     []methodView // of all scores
	Unvalidated bool         // some conformal set is
	Pairs       []pairView
	Singles     []*volumeView
	Tested      int
	ByChance    string
	Outside     int
	Curves      []template.HTML
	Key         []pairView // those of the first sheet
	Decision    decisionView
	Spans       []spanView // since earlier visits
	VisitNotes  string
	Amended     []decisionView // what the result was scored without
	Indices     []indexView
	Assets      []fact // with the first digits of their hashes
	IntendedUse string
}

// words of the nth score; none for a result from before they were kept.
func (p Page) words(n int) ScoreInWords {
	if n < len(p.Reading.Scores) {
		return p.Reading.Scores[n]
	}
	return ScoreInWords{}
}

// decisionView is what became of the result.
type decisionView struct {
	Kind, Headline, Text string
}

// firstCurves are those that the first sheet has room for.
var firstCurves = []string{"Left-Hippocampus", "Right-Hippocampus", "Left-Lateral-Ventricle", "Right-Lateral-Ventricle"}

// firstPairs is how many rows the first sheet's table has.
const firstPairs = 4

// key takes the hippocampi and then the farthest from the reference.
func key(all []pairView) []pairView {
	out := slices.Clone(all[:min(len(all), firstPairs)])
	hippocampi := slices.IndexFunc(all, func(p pairView) bool { return p.Name == words.Structure("Hippocampus") })
	if hippocampi >= len(out) {
		out[len(out)-1] = all[hippocampi]
	}
	return out
}

// Decision words what became of the result.
func (p Page) Decision() (headline, text string) {
	v := decisionOf(p)
	return v.Headline, v.Text
}

// Withdrawn reports whether the result must not be used: it was rejected,
// another one stands now, or none does.
func (p Page) Withdrawn() bool {
	return p.State != "" || p.Stands > 0 || p.Review != nil && p.Review.Decision == "reject"
}

// decisionOf words the last decision. A result that nobody looked at says so,
// and one that another has replaced.
func decisionOf(p Page) decisionView {
	replaced := withdrawn(p.State)
	if p.Stands > 0 {
		replaced = fmt.Sprintf("Version %d has taken its place. ", p.Stands)
	}
	r := p.Review
	if r == nil {
		return decisionView{"none", "Not reviewed.", replaced + "Nobody has accepted this result yet."}
	}
	v := decisionView{Kind: r.Decision, Headline: map[string]string{"accept": "Accepted", "amend": "Amended", "reject": "Rejected"}[r.Decision]}
	v.Headline += fmt.Sprintf(" by %s, %s.", r.By, r.At.UTC().Format("2006-01-02 15:04 UTC"))
	if r.Decision == "reject" {
		v.Text = "This result must not be used. "
	}
	v.Text += replaced
	if len(r.Excluded) > 0 {
		v.Text += "Not to be used: " + titles(r.Excluded) + ". "
		if r.Made > 0 {
			v.Text += fmt.Sprintf("Version %d was scored without. ", r.Made)
		}
	}
	if r.Comment != "" {
		v.Text += "“" + r.Comment + "”"
	}
	v.Text = strings.TrimSpace(v.Text)
	return v
}

// withdrawn says why no result stands of a scan that came to this state since.
func withdrawn(s neuroscreen.State) string {
	const gone = "This result does not stand any more: the scan "
	switch s {
	case "":
		return ""
	case neuroscreen.Refused:
		return gone + "was analysed again and refused. "
	case neuroscreen.Failed:
		return gone + "was to be analysed again, and that failed. "
	case neuroscreen.Cancelled:
		return gone + "was to be analysed again, and that was cancelled. "
	}
	return gone + "is being analysed again. "
}

// amendedOf words what a result was scored without.
func amendedOf(p Page) (out []decisionView) {
	for _, l := range p.LeftOut {
		text := titles(l.Structures) + ". "
		if l.Comment != "" {
			text += "“" + l.Comment + "” "
		}
		text += "Shown and used for nothing"
		if a := p.Result.Amendment; a != nil && a.FromVersion > 0 {
			text += fmt.Sprintf("; scored anew from the volumes of version %d", a.FromVersion)
		}
		out = append(out, decisionView{"amend", fmt.Sprintf("Left out by %s, %s:", l.By, l.At.UTC().Format("2006-01-02 15:04 UTC")), text + "."})
	}
	return out
}

// titles lists structures.
func titles(structures []string) string {
	names := make([]string, len(structures))
	for n, s := range structures {
		names[n] = curveTitle(s)
	}
	return strings.Join(names, "; ")
}

type fact struct {
	Name, Value string
	Wide        bool // takes a line of its own
}

// scoreView is a score in words. The first score of a condition decides;
// others stand beside it.
type scoreView struct {
	neuroscreen.Score
	Name     string
	Title    string
	Headline string
	Text     string
	Reasons  string // the strongest two, of a score that asks for a look
	Set      string // the conformal set in one line
	LeftOut  string // what it rests on though a reviewer left it out
	Evidence string // its class and what it is worth, in one line
	Use      string // what this score is for, beyond what all are for
}

// methodView is how a score came about.
type methodView struct {
	neuroscreen.Score
	Name, Text string
	Terms      []fact // of ln(likelihood ratio)
	Notes      []fact
}

type pairView struct {
	Name        string
	Left, Right *volumeView
}

type volumeView struct {
	neuroscreen.Volume
	LeftOut bool // by a reviewer
}

type indexView struct{ Name, Value, Reference string }

func view(p Page) pageView {
	r := p.Result
	v := pageView{
		Page:        p,
		Verdict:     verdictWords[r.QC.Verdict],
		IntendedUse: neuroscreen.IntendedUse,
		Facts:       facts(p),
		Metrics:     metrics(r.QC.Metrics),
	}
	v.Assets = assets(append([]neuroscreen.Asset{r.Software.Network}, append(slices.Clone(r.Software.Norms), r.Software.Models...)...))
	v.Preview = pictureURL(p.Preview)
	if v.Paper == (Paper{}) {
		v.Paper = A4
	}
	for _, reason := range r.QC.Reasons {
		if reason.OfTheNorm() {
			v.Calibration = append(v.Calibration, prose(reason.Text))
		} else {
			v.Quality = append(v.Quality, prose(reason.Text))
		}
	}
	var excluded []string
	if p.Review != nil {
		excluded = p.Review.Excluded
	}
	for n, s := range r.Scores {
		card := p.words(n)
		beside := neuroscreen.Deciding(r.Scores, s.Condition) != n
		if !beside {
			one := scoreOf(s, card)
			one.LeftOut = leftOut(s, excluded)
			v.Scores = append(v.Scores, one)
		}
		v.Methods = append(v.Methods, methodOf(s, card, beside))
		v.Unvalidated = v.Unvalidated || s.Conformal != nil && !s.Conformal.Validated
	}
	v.Pairs, v.Singles = pairs(r.Volumes, excluded)
	v.Key, v.Decision, v.Amended = key(v.Pairs), decisionOf(p), amendedOf(p)
	v.Spans, v.VisitNotes = spansOf(p.Timeline)
	for _, vol := range r.Volumes {
		if vol.Z != nil {
			v.Tested++
			if vol.Outlying() != "" {
				v.Outside++
			}
		}
	}
	v.ByChance = fmt.Sprintf("about %.0f would in a healthy person", 0.1*float64(v.Tested))
	if slices.ContainsFunc(r.QC.Reasons, func(r neuroscreen.Reason) bool { return r.Code == neuroscreen.SegmenterNotCalibrated }) {
		v.ByChance = "how many would in a healthy person is not known for this segmenter"
	}
	for _, c := range v.curves() {
		if svg, ok := drawCurve(c, r.Volumes, p.Metadata.AgeYears); ok {
			v.Curves = append(v.Curves, svg)
		}
	}
	for _, i := range r.Indices {
		v.Indices = append(v.Indices, indexOf(i))
	}
	return v
}

// assets with the first digits of their hashes.
func assets(of []neuroscreen.Asset) (out []fact) {
	for _, a := range of {
		out = append(out, fact{Name: a.Name, Value: a.SHA256[:min(len(a.SHA256), hashDigits)]})
	}
	return out
}

// pictureURL holds a PNG; empty for none.
func pictureURL(data []byte) template.URL {
	if len(data) == 0 {
		return ""
	}
	return template.URL("data:image/png;base64," + base64.StdEncoding.EncodeToString(data))
}

// curves are the first sheet's.
func (v pageView) curves() (out []Curve) {
	for _, name := range firstCurves {
		for _, c := range v.Reading.Curves {
			if c.Structure == name {
				out = append(out, c)
			}
		}
	}
	return out
}

var verdictWords = map[neuroscreen.Verdict]string{
	neuroscreen.VerdictPass:   "Passed",
	neuroscreen.VerdictReview: "Look twice",
	neuroscreen.VerdictRefuse: "Too poor for any score",
}

func facts(p Page) (f []fact) {
	r, m := p.Result, p.Metadata
	add := func(name, value string) {
		if value != "" {
			f = append(f, fact{Name: name, Value: value})
		}
	}
	add("Subject", r.SubjectID)
	add("Accession", m.AccessionNumber)
	if m.AgeYears != nil {
		add("Age", fmt.Sprintf("%.4g years", *m.AgeYears))
	}
	add("Sex", map[neuroscreen.Sex]string{neuroscreen.Female: "female", neuroscreen.Male: "male"}[m.Sex])
	if r.IntracranialVolumeMM3 != nil {
		add("Head size", words.Grouped(*r.IntracranialVolumeMM3/1000, 0)+" ml")
	}
	add("Scanned", m.ScanDate)
	scanner := strings.TrimSpace(m.Manufacturer + " " + m.Scanner)
	if m.FieldStrengthT != nil {
		scanner = strings.TrimSpace(fmt.Sprintf("%s %.2g T", scanner, *m.FieldStrengthT))
	}
	add("Scanner", scanner)
	if !p.Created.IsZero() {
		add("Analysed", p.Created.UTC().Format("2006-01-02 15:04 UTC"))
	}
	if p.Version > 0 {
		add("Version", strconv.Itoa(p.Version))
	}
	if in := r.Input; len(in.Shape) >= 3 {
		f = append(f, fact{"Image", fmt.Sprintf("%s, %d × %d × %d voxels of %.3g × %.3g × %.3g mm, %s, %s", r.Modality,
			in.Shape[0], in.Shape[1], in.Shape[2], in.VoxelMM[0], in.VoxelMM[1], in.VoxelMM[2], in.Orientation, in.DType), true})
	}
	if r.ScanID != "" {
		f = append(f, fact{"Scan", r.ScanID, false})
	}
	return f
}

func metrics(m map[string]float64) []fact {
	var f []fact
	for name, value := range m {
		f = append(f, fact{Name: strings.ReplaceAll(name, "_", " "), Value: strconv.FormatFloat(value, 'g', 4, 64)})
	}
	slices.SortFunc(f, func(a, b fact) int { return strings.Compare(a.Name, b.Name) })
	return f
}

// Names of the conditions and classes of evidence in words.
var (
	conditionNames = map[neuroscreen.Condition]string{
		neuroscreen.Alzheimers:              "Alzheimer's disease",
		neuroscreen.Parkinsons:              "Parkinson's disease",
		neuroscreen.MesialTemporalSclerosis: "mesial temporal sclerosis",
	}
	evidenceWords = map[neuroscreen.Evidence]string{
		neuroscreen.ExternalCohort:   "fitted on a cohort of patients and controls",
		neuroscreen.PublishedEffects: "built from published group differences",
		neuroscreen.Experimental:     "experimental",
	}
)

func scoreOf(s neuroscreen.Score, card ScoreInWords) scoreView {
	name, ok := conditionNames[s.Condition]
	if !ok {
		name = strings.ReplaceAll(string(s.Condition), "_", " ")
	}
	v := scoreView{Score: s, Name: upperFirst(name), Title: "Pattern seen in " + name, Evidence: evidenceLine(s.Evidence, card), Set: setWords(s.Conformal),
		Use: strings.TrimSpace(strings.TrimPrefix(s.IntendedUse, neuroscreen.IntendedUse))}
	if s.Side != nil {
		v.Title += ", " + *s.Side
	}
	switch {
	case s.Abstained != nil:
		v.Headline, v.Text = "No score", prose(*s.Abstained)
		return v
	case s.Flag == neuroscreen.FlagFlagged:
		v.Headline = "Flagged for a physician's review"
	case s.Flag == neuroscreen.FlagReview:
		v.Headline = "Worth a second look"
	default:
		v.Headline = "Not flagged"
	}
	if s.LikelihoodRatio == nil {
		return v
	}
	if s.Flag != neuroscreen.FlagNone {
		features := featuresOf(s, card)
		v.Reasons = strings.Join(features[:min(2, len(features))], " ")
	}
	v.Text = likelihoodWords(*s.LikelihoodRatio) + intervalWords(s.CI95) + withoutWords(s)
	if s.Prior != nil && s.Posterior != nil {
		v.Text += fmt.Sprintf(" If %s of the people who are scanned have the condition (the prior), %s of those with measurements like these do.", percent(*s.Prior), percent(*s.Posterior))
	} else {
		v.Text += " No probability is given, because no prior is known for this person."
	}
	if s.Flag == neuroscreen.FlagNone {
		v.Text += " This cannot exclude the condition."
	}
	return v
}

// featuresOf are what a score rests on, strongest first. Of a reading from before
// it kept them all reasons are there, the last of which sum up.
func featuresOf(s neuroscreen.Score, card ScoreInWords) []string {
	if card.Features != nil {
		return card.Features
	}
	return sentences(s.Explanation.Reasons)
}

// evidenceLine has the first of a model's performance; the second sheet has all
// of it.
func evidenceLine(e neuroscreen.Evidence, card ScoreInWords) string {
	return strings.TrimSpace(sentence(evidenceWords[e]) + " " + sentence(card.short().Performance))
}

// setWords says in one line what a conformal set leaves.
func setWords(c *neuroscreen.ConformalSet) string {
	if c == nil {
		return ""
	}
	left, ok := map[string]string{
		"both": "the volumes fit people with and without the condition alike", "case": "the volumes fit people with the condition only",
		"control": "the volumes fit people without the condition only", "neither": "the score lies between what is usual with and without the condition",
	}[c.Set]
	if !ok {
		left = c.Set
	}
	t := fmt.Sprintf("At an error rate of %.3g %%, %s.", 100*c.ErrorRate, left)
	if !c.Validated {
		t += " Not validated on this program's volumes."
	}
	return t
}

// notValidated is what the conformal sets' validated: false means.
const notValidated = "Not validated: how often such a set leaves out the truth was counted on volumes that FreeSurfer measured in one cohort. On the volumes of this program nobody has counted it yet: " +
	"the error rate may be higher than stated, until a site has tried it on people whose condition it knows."

// leftOut names what a score rests on although a reviewer left it out.
func leftOut(s neuroscreen.Score, excluded []string) string {
	var names []string
	for _, e := range excluded {
		if slices.ContainsFunc(s.Contributions, func(c neuroscreen.Contribution) bool {
			return c.Feature == e || c.Feature == "hippocampal_asymmetry_percent" && strings.HasSuffix(e, "-Hippocampus")
		}) {
			names = append(names, curveTitle(e))
		}
	}
	return strings.Join(names, "; ")
}

func methodOf(s neuroscreen.Score, card ScoreInWords, beside bool) methodView {
	name := conditionNames[s.Condition]
	if name == "" {
		name = words.Structure(string(s.Condition))
	}
	v := methodView{Score: s, Name: upperFirst(name)}
	if s.Model != "" {
		v.Name += ", model " + s.Model
	}
	if beside {
		v.Name += " (beside it: sets no flag)"
	}
	note := func(name string, texts ...string) {
		if t := strings.TrimSpace(strings.Join(sentences(texts), " ")); t != "" {
			v.Notes = append(v.Notes, fact{Name: name, Value: t})
		}
	}
	if s.Abstained == nil && s.LikelihoodRatio != nil {
		v.Terms = append(v.Terms, fact{Name: "intercept", Value: signed(s.Intercept, 2)})
		for _, c := range s.Contributions {
			v.Terms = append(v.Terms, fact{Name: featureName(c.Feature), Value: signed(c.LogLR, 2)})
		}
		v.Text = strings.TrimSpace(withoutWords(s))
	} else {
		v.Text = "Not scored."
	}
	if !beside && s.Abstained == nil {
		note("Rests on", featuresOf(s, card)...) // what they come to, the numbers above say
		note("Would change it", s.Explanation.WouldChange...)
		note("Uncertain", s.Explanation.Uncertain...)
		if s.Conformal != nil {
			note("Case or control", s.Conformal.Text)
		}
	}
	note("Made from", card.Cohort)
	note("Evidence", evidenceWords[s.Evidence], card.Performance)
	note("Limits", strings.TrimPrefix(card.Limits, "Limits: "))
	return v
}

// featureName is a model's feature in words.
func featureName(f string) string {
	if n, ok := map[string]string{"age_years": "age", "male": "sex", "intracranial_volume_l": "head size",
		"hippocampal_asymmetry_percent": "hippocampal asymmetry", "nWBV": "whole-brain volume", "MMSE": "MMSE"}[f]; ok {
		return n
	}
	return words.Structure(f)
}

// besideOf words a score that sets no flag and has no prior.
func besideOf(s neuroscreen.Score, card ScoreInWords) scoreView {
	v := scoreView{Score: s, Title: "Beside it, " + strings.NewReplacer("-", " ", "_", " ").Replace(s.Model), Evidence: evidenceLine(s.Evidence, card)}
	switch {
	case s.Abstained != nil:
		v.Text = "No score: " + prose(*s.Abstained)
	case s.LikelihoodRatio != nil:
		v.Text = likelihoodWords(*s.LikelihoodRatio) + intervalWords(s.CI95) + withoutWords(s)
	}
	return v
}

// withoutWords names what a score was made without.
func withoutWords(s neuroscreen.Score) string {
	if len(s.Without) == 0 || s.Abstained != nil {
		return ""
	}
	return " Made without " + titles(s.Without) + ", which a reviewer left out."
}

func intervalWords(ci *[2]float64) string {
	if ci == nil {
		return ""
	}
	text := fmt.Sprintf(" The 95 %% interval of this likelihood ratio runs from %s to %s", words.Bound(ci[0]), words.Bound(ci[1]))
	if ci[0] < 1 && ci[1] > 1 {
		text += " and includes 1, which would say nothing either way"
	}
	return text + "."
}

// likelihoodWords puts a likelihood ratio in words.
func likelihoodWords(lr float64) string {
	switch {
	case lr >= 1.05:
		return fmt.Sprintf("Measurements like these are %s times as frequent in people with the condition as in people without it.", words.Ratio(lr))
	case lr > 0 && lr <= 1/1.05:
		return fmt.Sprintf("Measurements like these are %s times as frequent in people without the condition as in people with it.", words.Ratio(1/lr))
	default:
		return "Measurements like these are about as frequent in people with the condition as in people without it."
	}
}

// prose is a text of the result as a sentence in the report's type.
func prose(s string) string { return sentence(words.Typeset(s)) }

func sentences(texts []string) []string {
	out := make([]string, len(texts))
	for n, t := range texts {
		out[n] = prose(t)
	}
	return out
}

// sentence starts a phrase with a capital and ends it with a stop.
func sentence(s string) string {
	s = strings.TrimSpace(s)
	if s == "" {
		return s
	}
	if !strings.ContainsAny(s[len(s)-1:], ".!?") {
		s += "."
	}
	return upperFirst(s)
}

func upperFirst(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// hashDigits of a file's hash tell it from every other.
const hashDigits = 16

// pairs joins left and right, the farthest from the reference first; what has
// no reference comes last, in the order of the result.
func pairs(volumes []neuroscreen.Volume, excluded []string) (both []pairView, singles []*volumeView) {
	at := map[string]int{}
	for _, v := range volumes {
		vol := &volumeView{v, v.LeftOut || slices.Contains(excluded, v.Structure)}
		s, ok := anatomy.ByName(vol.Structure)
		if !ok || s.Side == anatomy.Midline {
			singles = append(singles, vol)
			continue
		}
		name := anatomy.Bare(vol.Structure)
		i, seen := at[name]
		if !seen {
			i = len(both)
			at[name] = i
			both = append(both, pairView{Name: words.Structure(name)})
		}
		if s.Side == anatomy.Left {
			both[i].Left = vol
		} else {
			both[i].Right = vol
		}
	}
	far := func(vs ...*volumeView) float64 {
		most := -1.0
		for _, v := range vs {
			if v != nil && v.Z != nil {
				most = max(most, math.Abs(*v.Z))
			}
		}
		return most
	}
	slices.SortStableFunc(both, func(a, b pairView) int {
		return compare(far(b.Left, b.Right), far(a.Left, a.Right))
	})
	slices.SortStableFunc(singles, func(a, b *volumeView) int { return compare(far(b), far(a)) })
	return both, singles
}

func compare(a, b float64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

var indexNames = map[string]string{
	"hippocampal_asymmetry_percent": "Hippocampal asymmetry 100 (R − L) / (R + L), %",
	"hoc_left":                      "Hippocampal occupancy, left",
	"hoc_right":                     "Hippocampal occupancy, right",
	"brain_parenchymal_fraction":    "Brain parenchymal fraction",
}

func indexOf(i neuroscreen.Index) indexView {
	name, ok := indexNames[i.Name]
	if !ok {
		name = words.Structure(i.Name)
	}
	digits := 3
	if strings.HasSuffix(i.Name, "_percent") {
		digits = 1
	}
	v := indexView{Name: name, Value: signed(i.Value, digits)}
	if i.Reference != nil {
		v.Reference = signed(i.Reference[0], digits) + " to " + signed(i.Reference[1], digits)
	}
	return v
}

// Numbers in words and figures. A minus is U+2212, as wide as a plus.

func optional(v *float64, format func(float64) string) string {
	if v == nil {
		return "–"
	}
	return format(*v)
}

// signed has a minus where there is one; what rounds to nothing has none.
func signed(v float64, digits int) string {
	s := strconv.FormatFloat(v, 'f', digits, 64)
	if strings.Trim(s, "-0.") == "" {
		s = strings.TrimPrefix(s, "-")
	}
	return strings.Replace(s, "-", "−", 1)
}

// zscore has a plus too.
func zscore(z float64) string {
	s := signed(z, 1)
	if s != "0.0" && z > 0 {
		s = "+" + s
	}
	return s
}

// percent of a probability, with a decimal where it is small.
func percent(p float64) string {
	digits := 0
	if p < 0.2 || p > 0.98 {
		digits = 1
	}
	return signed(100*p, digits) + " %"
}

// number is a float64 or what a pointer to one holds; templates have both.
func number(v any) float64 {
	if p, ok := v.(*float64); ok {
		return *p
	}
	return v.(float64)
}
