package report

import (
	"fmt"
	"html/template"
	"math"
	"slices"
	"strings"

	"neuroscreen"
	"neuroscreen/internal/anatomy"
	"neuroscreen/internal/words"
)

// runView is the report of a BOLD run: words and rows in the order of reading.
type runView struct {
	Page
	Title       string
	Print       fitted
	Facts       []fact
	Kind        string // of the verdict: pass or review
	Verdict     string
	Quality     []string // why it is no better
	Run         Run      // its numbers and what they are worth come first
	Preview     template.URL
	Maps        template.URL
	Withheld    bool
	Pairs       []runPair
	Connections []connection
	Metrics     []fact
	Assets      []fact
	Decision    decisionView
	IntendedUse string
}

// runPair is a structure, left and right; one of the midline stands left.
type runPair struct {
	Name        string
	Left, Right *neuroscreen.FMRIStructure
}

// connection sums a connectome up.
type connection struct {
	Name  string
	Facts []fact
}

func viewRun(p Page) runView {
	r, m := p.Result, p.Result.FMRI
	if p.Paper == (Paper{}) {
		p.Paper = A4
	}
	v := runView{
		Page:        p,
		Title:       runTitle,
		Facts:       runFacts(p),
		Kind:        string(r.QC.Verdict),
		Verdict:     runVerdicts[r.QC.Verdict],
		Preview:     pictureURL(p.Preview),
		Maps:        pictureURL(p.Maps),
		Withheld:    len(m.Withheld) > 0 || len(m.Connectomes) == 0,
		Metrics:     metrics(r.QC.Metrics),
		Assets:      assets([]neuroscreen.Asset{r.Software.Network}),
		Decision:    decisionOf(p),
		IntendedUse: neuroscreen.IntendedUseRun,
	}
	if p.Reading.Run != nil {
		v.Run = *p.Reading.Run
	}
	for _, reason := range r.QC.Reasons {
		v.Quality = append(v.Quality, prose(reason.Text))
	}
	v.Pairs = runPairs(m.Structures)
	for _, c := range m.Connectomes {
		v.Connections = append(v.Connections, connectionOf(c))
	}
	return v
}

// Carpet as the page draws it; empty without frames.
func (v runView) Carpet() template.HTML {
	f, ok := carpetFigure(v.Result.FMRI, &v.Run)
	if !ok {
		return ""
	}
	return f.svg("carpet")
}

// Connectome as the page draws it; empty without one.
func (v runView) Connectome() template.HTML {
	f, ok := matrixFigure(shownConnectome(v.Result.FMRI))
	if !ok {
		return ""
	}
	return f.svg("matrix")
}

var runVerdicts = map[neuroscreen.Verdict]string{
	neuroscreen.VerdictPass:   "Passed",
	neuroscreen.VerdictReview: "Look twice",
	neuroscreen.VerdictRefuse: "Refused",
}

// Captions, said by page and sheets.
const (
	runPasses        = "Motion and noise are within the limits."
	runSourceImages  = "Findings in the anatomy, artefacts beside the brain and mixed-up patients are not detected. Look at the source images."
	carpetCaption    = "Above: movement and change of the signal from frame to frame. Below: the signal of the brain before cleaning, rows of neighbouring voxels ordered by tissue. Stripes through all tissues are motion, breathing or the scanner."
	runWithheld      = "Withheld, for the reasons above."
	runExperimental  = "No flag and no score rests on these measures, and there are no reference values: nothing here says whether a value is usual."
	matrixCaption    = "Connectome: Fisher’s z between the mean signals of structures, cleaned, the global signal left in. Find one structure’s row left of its name, the other’s column above its own row."
	mapsCaption      = "Maps over the mean image. The patient's right is on the left. Lighter is more."
	structureCaption = "Means over a structure's voxels. tSNR: mean over SD in time; ALFF in per cent of the mean. A structure of fewer than five voxels is left out."
	previewCaption   = "Outlines of the labels over the mean of the aligned frames. Radiological convention: the patient's right is on the left of axial and coronal cuts."
)

// becauseOf words the codes for which measures are withheld or not compared;
// the numbers stand with the quality's reasons.
var becauseOf = map[string]string{
	"too-short": "the run is too short", "head-motion": "the head moved too much", "few-degrees-of-freedom": "cleaning leaves too few degrees of freedom",
	"no-structures": "too few structures have voxels enough",
}

// InWords fills in numbers and worth.
func (r *Run) InWords(m *neuroscreen.FMRI) {
	r.Numbers, r.Worth = runNumbers(m, r.Limits), worth(m)
}

func worth(m *neuroscreen.FMRI) (out []string) {
	because := func(codes []string) string {
		var texts []string
		for _, code := range codes {
			text, ok := becauseOf[code]
			if !ok {
				text = strings.ReplaceAll(code, "-", " ")
			}
			texts = append(texts, text)
		}
		return strings.Join(texts, "; ") + "."
	}
	if len(m.Withheld) > 0 {
		out = append(out, "Connectome and maps are withheld: "+because(m.Withheld))
	}
	if len(m.NotComparable) > 0 {
		out = append(out, "Not to be compared with other runs: "+because(m.NotComparable))
	}
	if len(out) == 0 {
		out = append(out, "Nothing speaks against comparing the measures with those of another run of the same scanner and protocol.")
	}
	return out
}

func runFacts(p Page) []fact {
	m := p.Result.FMRI
	f := facts(p)
	text := fmt.Sprintf("%d frames of %s s, %s min", m.Frames, trimmed(m.TRSeconds), signed(m.Seconds/60, 1))
	if m.DummyScans > 0 {
		text += fmt.Sprintf(", after %d that were dropped before the signal was steady", m.DummyScans)
	}
	run := []fact{{Name: "Run", Value: text}, {Name: "Brain", Value: fmt.Sprintf("%s ml in the field of view, %s voxels", words.Grouped(m.BrainML, 0), words.Grouped(float64(m.BrainVoxels), 0))}}
	at := slices.IndexFunc(f, func(x fact) bool { return x.Wide })
	if at < 0 {
		at = len(f)
	}
	return slices.Insert(f, at, run...)
}

func runNumbers(m *neuroscreen.FMRI, l RunLimits) []RunNumber {
	kept := float64(m.Clean.KeptFrames) * m.TRSeconds
	outliers := len(m.Quality.OutlierFrames)
	share := 0.0
	if m.Frames > 0 {
		share = float64(outliers) / float64(m.Frames)
	}
	numbers := []RunNumber{
		{"Mean movement of the head (FD)", signed(m.Motion.MeanFDMM, 2) + " mm", "", m.Motion.MeanFDMM > l.ReviewMeanFDMM},
		{"Largest movement between frames", signed(m.Motion.MaxFDMM, 2) + " mm", "", false},
		{"Outlier frames", fmt.Sprintf("%d of %d (%s)", outliers, m.Frames, percent(share)), "", false},
		{"Signal over noise in time (tSNR)", signed(m.Quality.MedianTSNR, 0), "", m.Quality.MedianTSNR < l.ReviewTSNR},
		{"Kept for the measures", fmt.Sprintf("%s of %s min", signed(kept/60, 1), signed(m.Seconds/60, 1)), "", m.Seconds < l.Seconds},
		{"Degrees of freedom left", fmt.Sprintf("%d", m.Clean.DegreesOfFreedom), "", m.Clean.DegreesOfFreedom < l.DegreesOfFreedom},
		{"Frames with spikes", fmt.Sprintf("%d", len(m.Quality.SpikeFrames)), "over 5 % of the voxels far from their median", false},
		{"Drift of the signal", signed(m.Quality.DriftPercentPerMinute, 2) + " % a minute", "", false},
	}
	numbers[0].Limit = fmt.Sprintf("review over %s, not compared over %s", trimmed(l.ReviewMeanFDMM), trimmed(l.MostMeanFDMM))
	numbers[2].Limit = fmt.Sprintf("FD over %s mm or DVARS over %s", trimmed(l.FDMM), trimmed(l.StdDVARS))
	numbers[3].Limit = "review under " + trimmed(l.ReviewTSNR)
	numbers[4].Limit = fmt.Sprintf("a run under %s min is not compared", trimmed(l.Seconds/60))
	numbers[5].Limit = fmt.Sprintf("withheld under %d", l.DegreesOfFreedom)
	return numbers
}

// runPairs are in the order of the connectome.
func runPairs(structures []neuroscreen.FMRIStructure) (pairs []runPair) {
	var names []string
	for _, s := range structures {
		names = append(names, s.Structure)
	}
	for _, n := range slices.Concat(matrixOrder(names)...) {
		s := &structures[n]
		name := words.Structure(anatomy.Bare(s.Structure))
		at := slices.IndexFunc(pairs, func(p runPair) bool { return p.Name == name })
		if at < 0 {
			at = len(pairs)
			pairs = append(pairs, runPair{Name: name})
		}
		if a, ok := anatomy.ByName(s.Structure); ok && a.Side == anatomy.Right {
			pairs[at].Right = s
		} else {
			pairs[at].Left = s
		}
	}
	return pairs
}

// runCells are a structure's numbers as the table has them.
func runCells(s *neuroscreen.FMRIStructure) []string {
	if s == nil {
		return []string{"", "", "", "", ""}
	}
	fixed := func(digits int) func(float64) string {
		return func(v float64) string { return signed(v, digits) }
	}
	return []string{words.Grouped(float64(s.Voxels), 0), signed(s.TSNR, 0), optional(s.ALFF, fixed(2)), optional(s.FALFF, fixed(2)), optional(s.ReHo, fixed(2))}
}

// runColumns name runCells.
var runColumns = []string{"voxels", "tSNR", "ALFF, %", "fALFF", "ReHo"}

func connectionOf(c neuroscreen.FMRIConnectome) connection {
	name := "Global signal left in"
	if c.GlobalSignalRemoved {
		name = "Global signal taken out"
	}
	g := c.Graph
	f := []fact{
		{Name: "degrees of freedom", Value: fmt.Sprint(c.DegreesOfFreedom)}, {Name: "standard error of z", Value: "≥ " + signed(c.StandardError, 2)},
		{Name: "halves agree (r)", Value: signed(c.SplitHalf, 2)}, {Name: "reliability", Value: signed(c.Reliability, 2)},
	}
	if len(g.Nodes) > 1 {
		modules := 0
		for _, m := range g.Module {
			modules = max(modules, m+1)
		}
		f = append(f, fact{Name: "modularity", Value: signed(g.Modularity, 2)}, fact{Name: "modules", Value: fmt.Sprint(modules)},
			fact{Name: "path length", Value: signed(g.PathLength, 2)}, fact{Name: "clustering", Value: signed(average(g.Clustering), 2)})
	}
	return connection{name, f}
}

func average(x []float64) float64 {
	sum := 0.0
	for _, v := range x {
		sum += v
	}
	return sum / math.Max(float64(len(x)), 1)
}
