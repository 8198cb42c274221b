// Package norm compares measured volumes with healthy adults of the same age,
// head size and, where the norm supports it, sex.
//
// The norm is NOMIS (Potvin 2021), a polynomial per structure for FreeSurfer
// 6.0 volumes with a constant spread. Three things stand between a measured
// volume and it: the segmenter (another program measures another volume), the
// site (scanner and protocol) and noise. The first two are Shifts, layers that
// move the norm to where this segmenter and this site measure healthy people.
// While a site has no shift, the spread between sites is added to the norm's
// own, and for a segmenter that was never measured itself that between
// segmenters, so that z, percentile and the 5 to 95 % band all say less.
//
// z is (volume - expected) / sqrt(SD^2 + between-site SD^2 + between-segmenter
// SD^2), with SD the norm's times the spread of healthy people that the segmenter's
// shift found, on log10(mm3) for the ventricles named in logRegions, and percentile
// = 100 Phi(z).
// Its 95 % interval holds the measurement's standard error, the test-retest
// spread and the spread between sites and segmenters (or, once calibrated, the
// error of the site's shift).
package norm

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"path"
	"slices"
	"sync"

	"gonum.org/v1/gonum/stat/distuv"

	"neuroscreen"
	"neuroscreen/internal/anatomy"
)

// Z95 is the 97.5th percentile of the normal distribution: intervals of 95 % reach
// this many standard errors to either side.
const Z95 = 1.959963984540054

const z90 = 1.6448536269514722 // 95th percentile

// Norms is the set of loaded normative models. It is safe for concurrent use.
type Norms struct {
	models         map[string]*nomis  // by FreeSurfer name
	siteRatio      map[string]float64 // spread between sites over that within one
	segmenterRatio float64            // and between segmenters
	shifts         map[Segmenter]*Shift
	assets         []neuroscreen.Asset
}

// Default returns the embedded norms.
var Default = sync.OnceValue(func() *Norms {
	n, err := load()
	if err != nil {
		panic(err) // the files are embedded: a build that can't read them must not run
	}
	return n
})

func load() (*Norms, error) {
	n := &Norms{}
	var err error
	if n.models, err = readNOMIS(); err != nil {
		return nil, err
	}
	if n.siteRatio, err = readSiteRatios(n.models); err != nil {
		return nil, err
	}
	if n.shifts, err = readShifts(); err != nil {
		return nil, err
	}
	n.segmenterRatio = betweenSegmenters(n.shifts[FreeSurfer7])
	entries, err := files.ReadDir("data")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if ext := path.Ext(e.Name()); ext != ".csv" && ext != ".json" { // licence and sources
			continue
		}
		b, err := files.ReadFile("data/" + e.Name())
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(b)
		n.assets = append(n.assets, neuroscreen.Asset{Name: e.Name(), SHA256: hex.EncodeToString(sum[:])})
	}
	return n, nil
}

// Assets lists the files behind the norms with their hashes.
func (n *Norms) Assets() []neuroscreen.Asset { return n.assets }

// Shipped returns the embedded shift of a segmenter, nil if there is none.
func (n *Norms) Shipped(s Segmenter) *Shift { return n.shifts[s] }

// Structures lists the names that the norm holds, sorted.
func (n *Norms) Structures() []string { return sortedKeys(n.models) }

// AdjustsForSex reports whether the norm of a structure has a working term for
// sex. It has none for the hippocampi and lateral ventricles, among others.
func (n *Norms) AdjustsForSex(structure string) bool {
	m := n.models[normName(structure)]
	return m != nil && !m.collapsed
}

// Measured is a volume with the standard error of its measurement, in mm3.
type Measured struct {
	MM3 float64
	SE  float64 // 0 if not known
	// Bias is the part of SE that every volume of the structure by the same
	// segmenter has; it cancels between two sides and between two visits.
	Bias float64
	// Pair is the correlation of the rest of SE between the two sides.
	Pair float64
}

// Person is who the volumes are compared with.
type Person struct {
	AgeYears float64
	Sex      neuroscreen.Sex
	ICVMM3   *float64 // intracranial volume; nil if not known
}

// location is where healthy people of one age, sex and head size lie, on the
// modelled scale: mm3, or log10(mm3).
type location struct {
	mu     float64
	sd     float64 // within a site
	siteSD float64 // between sites (and segmenters), or of a calibrated site's shift
	log    bool
	// siteKnown says that a site shift is in mu and sd, and siteSD is only the
	// error of its mean.
	siteKnown bool
	wider     float64 // what the spread between sites would make of sd, as a factor
}

// total is the spread that z divides by. The error of a known site shift is
// noise of the estimate and belongs in z's interval only.
func (l location) total() float64 {
	if l.siteKnown {
		return l.sd
	}
	return math.Hypot(l.sd, l.siteSD)
}

func (l location) scale(mm3 float64) float64 {
	if l.log {
		return math.Log10(mm3)
	}
	return mm3
}

// mm3 undoes scale. A raw quantile below zero is a volume of zero.
func (l location) mm3(v float64) float64 {
	if l.log {
		return math.Pow(10, v)
	}
	return max(v, 0)
}

// slope is d scale / d mm3.
func (l location) slope(mm3 float64) float64 {
	if l.log {
		return 1 / (mm3 * math.Ln10)
	}
	return 1
}

// outOfRange says why the norm does not reach a person, or returns nil.
func outOfRange(p Person) *neuroscreen.Reason {
	switch {
	case !finite(p.AgeYears) || p.AgeYears < MinAge || p.AgeYears > MaxAge:
		return reason("age-outside-norm", fmt.Sprintf("the norm covers ages %g to %g years: volumes are given without z", MinAge, MaxAge), p.AgeYears, 0)
	case p.Sex != neuroscreen.Female && p.Sex != neuroscreen.Male:
		return &neuroscreen.Reason{Code: "sex-missing", Text: "the norm needs the sex, F or M: volumes are given without z"}
	case p.ICVMM3 == nil:
		return &neuroscreen.Reason{Code: "head-size-missing", Text: "the norm needs the intracranial volume: volumes are given without z"}
	case !PlausibleICV(*p.ICVMM3):
		return reason("head-size-implausible", "the intracranial volume is not that of an adult head in mm3 (FreeSurfer's eTIV is in mm3; some tables give cm3): volumes are given without z", *p.ICVMM3, 0)
	}
	return nil
}

// locate places the norm for one structure and person. With bare it is
// NOMIS's own, with no layer above.
func (n *Norms) locate(structure string, p Person, cal Calibration, bare bool) (location, error) {
	m := n.models[structure]
	base := surfaceBased[structure]
	if m == nil && base != "" {
		m = n.models[base]
	}
	if m == nil {
		return location{}, fmt.Errorf("norm: no norm for %s", structure)
	}
	if r := outOfRange(p); r != nil {
		return location{}, fmt.Errorf("norm: %s", r.Text)
	}
	seg := n.segmenterShift(cal)
	mom, ok := seg.moments(structure)
	if base != "" && !ok && !bare {
		return location{}, fmt.Errorf("norm: %s is defined otherwise than the norm's %s, and no segmenter shift holds it", structure, base)
	}
	tiv := min(max(*p.ICVMM3, MinTIV), MaxTIV)
	l := location{mu: m.expected(p.AgeYears, p.Sex, tiv, false), sd: m.sd, log: m.log}
	if bare {
		l.siteKnown = true
		return l, nil
	}
	if ok {
		mean, sd := mom.applied()
		l.mu += mean * l.sd
		l.sd *= sd
	}
	ratio, ok := n.siteRatio[structure]
	if !ok {
		ratio = n.siteRatio[base]
	}
	l.wider = math.Hypot(1, ratio)
	if !n.segmenterMeasured(cal) {
		ratio = math.Hypot(ratio, n.segmenterRatio)
	}
	site, _ := n.siteShift(cal)
	if mom, ok := site.moments(structure); ok && mom.N >= minForSite {
		mean, sd := mom.applied()
		kept := mom.shrinkage()
		// Shrinking leaves a part of the site's own offset: of what its controls show,
		// or, since they may show little by chance, of what sites usually have. The
		// larger of the two and not both, for it is one offset.
		left := (1 - kept) * max(math.Abs(mom.MeanZ)*l.sd, ratio*m.sd)
		l.mu += mean * l.sd
		l.sd *= sd
		l.siteSD = math.Hypot(kept*l.sd/math.Sqrt(float64(mom.N)), left)
		l.siteKnown = true
		return l, nil
	}
	l.siteSD = ratio * m.sd
	return l, nil
}

func (n *Norms) segmenterShift(cal Calibration) *Shift {
	if cal.SegmenterShift != nil {
		return cal.SegmenterShift
	}
	return n.shifts[cal.Segmenter]
}

// segmenterMeasured reports whether what measured the volumes was itself
// compared with the norm on healthy people, or is the norm's own.
func (n *Norms) segmenterMeasured(cal Calibration) bool {
	s := n.segmenterShift(cal)
	return cal.Segmenter == FreeSurfer6 || s != nil && s.MeasuredWith == ""
}

// OffsetMeasured reports whether the offset of what measured the volumes is
// known from healthy people: its own, or in the site's shift that of both.
func (n *Norms) OffsetMeasured(cal Calibration) bool {
	site, _ := n.siteShift(cal)
	return site != nil || n.segmenterMeasured(cal)
}

// SiteShiftApplies reports whether the site's shift counts for what was
// measured, as none does.
func (n *Norms) SiteShiftApplies(cal Calibration) bool {
	_, why := n.siteShift(cal)
	return why == nil
}

// siteShift returns the site's shift if it belongs on top of the segmenter's,
// else nil and, where there is one, why it does not.
func (n *Norms) siteShift(cal Calibration) (*Shift, *neuroscreen.Reason) {
	s := cal.SiteShift
	switch {
	case s == nil:
		return nil, nil
	case s.Segmenter != cal.Segmenter || s.After != n.segmenterShift(cal).id(),
		// Weights unknown on either side, as in a table's, contradict nothing. A shift
		// of the network from before they were stored fails by After.
		s.Weights != "" && cal.Weights != "" && s.Weights != cal.Weights:
		return nil, &neuroscreen.Reason{Code: "site-shift-not-applicable", Text: "the site's shift was measured with another segmenter, other weights of the network or another version of the segmenter's shift and is not applied: measure the controls again"}
	case len(s.Scanners) > 0 && !slices.ContainsFunc(s.Scanners, func(of Scanner) bool { return !of.Differs(cal.Scanner) }):
		return nil, &neuroscreen.Reason{Code: "site-shift-other-scanner", Text: "the site's shift was measured on another scanner and is not applied: the spread between sites widens the intervals until controls of this scanner are measured"}
	}
	return s, nil
}

// Reference is what healthy people of one age, sex and head size have.
type Reference struct {
	ExpectedMM3 float64 // the median, for structures modelled as log10(mm3)
	P5MM3       float64
	P95MM3      float64
	SD          float64 // that z divides by: mm3, or log10(mm3) with Log
	Log         bool
}

// Reference returns the reference of one structure. The error says why there
// is none.
func (n *Norms) Reference(structure string, p Person, cal Calibration) (Reference, error) {
	l, err := n.locate(normName(structure), p, cal, false)
	if err != nil {
		return Reference{}, err
	}
	return l.reference(), nil
}

// Published returns NOMIS's own reference, for FreeSurfer 6.0, with no
// segmenter, site or between-site layer.
func (n *Norms) Published(structure string, p Person) (Reference, error) {
	l, err := n.locate(normName(structure), p, Calibration{}, true)
	if err != nil {
		return Reference{}, err
	}
	return l.reference(), nil
}

func (l location) reference() Reference {
	t := l.total()
	return Reference{ExpectedMM3: l.mm3(l.mu), P5MM3: l.mm3(l.mu - z90*t), P95MM3: l.mm3(l.mu + z90*t), SD: t, Log: l.log}
}

// CurvePoint is the reference at one age.
type CurvePoint struct {
	AgeYears float64
	Reference
}

// Curve returns the reference of a structure over age at one sex and head size,
// from and to inclusive, for plotting. Ages are clamped to the norm's.
func (n *Norms) Curve(structure string, p Person, cal Calibration, from, to, step float64) ([]CurvePoint, error) {
	if !(step > 0) {
		return nil, fmt.Errorf("norm: step %g must be positive", step)
	}
	from, to = max(from, MinAge), min(to, MaxAge)
	var out []CurvePoint
	for i := 0; ; i++ {
		age := from + float64(i)*step
		if age > to+1e-9 {
			return out, nil
		}
		p.AgeYears = min(age, MaxAge)
		r, err := n.Reference(structure, p, cal)
		if err != nil {
			return nil, err
		}
		out = append(out, CurvePoint{AgeYears: p.AgeYears, Reference: r})
	}
}

// Z is a volume's place among healthy people.
type Z struct {
	Value   float64
	CI95    [2]float64
	NoiseSE float64 // standard error from measurement and test-retest, on the scale of Value
	SiteSE  float64 // from the site, on the scale of Value; both sides of a pair share it
	PerLog  float64 // change of Value over that of ln(volume)
	// Wider is how much wider the healthy spread is that an uncalibrated site's z
	// divides by, at a calibrated site; 1 at one that is not.
	Wider      float64
	Percentile float64 // 100 Phi(Value)
}

// ZOf returns the z of one volume. The error says why there is none.
func (n *Norms) ZOf(structure string, v Measured, p Person, cal Calibration) (Z, error) {
	structure = normName(structure)
	l, err := n.locate(structure, p, cal, false)
	if err != nil {
		return Z{}, err
	}
	if !usable(v.MM3) {
		return Z{}, fmt.Errorf("norm: %g is no volume", v.MM3)
	}
	return l.z(structure, v), nil
}

func (l location) z(structure string, v Measured) Z {
	t := l.total()
	perMM3 := l.slope(v.MM3) / t
	noise := NoiseMM3(structure, v) * perMM3
	site := l.siteSD / t
	z := (l.scale(v.MM3) - l.mu) / t
	half := Z95 * math.Hypot(noise, site)
	wider := 1.0
	if l.siteKnown {
		wider = l.wider
	}
	return Z{Value: z, Wider: wider, CI95: [2]float64{z - half, z + half}, NoiseSE: noise, SiteSE: site, PerLog: perMM3 * v.MM3, Percentile: 100 * distuv.UnitNormal.CDF(z)}
}

// Compare places every volume among healthy people. Rows come in the order of
// FreeSurfer labels, then other names in alphabetical order. Where the norm
// does not reach, a row keeps its volume and has no z; reasons say why, and
// what else the reader must know of the comparison.
func (n *Norms) Compare(vols map[string]Measured, p Person, cal Calibration) (rows []neuroscreen.Volume, indices []neuroscreen.Index, reasons []neuroscreen.Reason) {
	clean := make(map[string]Measured, len(vols))
	for name, v := range vols {
		if finite(v.MM3) && v.MM3 >= 0 {
			clean[normName(name)] = v
		} else {
			reasons = append(reasons, neuroscreen.Reason{Code: "volume-not-finite", Text: name + " has no usable volume and is left out"})
		}
	}
	out := outOfRange(p)
	if out != nil {
		reasons = append(reasons, *out)
	} else {
		reasons = append(reasons, n.notes(p, cal, clean)...)
	}
	icvKnown := p.ICVMM3 != nil && (out == nil || out.Code != "head-size-implausible")

	row := func(name string, label int) {
		v := clean[name]
		r := neuroscreen.Volume{Structure: name, Label: label, MM3: v.MM3, StandardErrorMM: cleanSE(v.SE), BiasErrorMM: min(cleanSE(v.Bias), cleanSE(v.SE))}
		if icvKnown {
			r.PercentICV = ptr(100 * v.MM3 / *p.ICVMM3)
		}
		if l, err := n.locate(name, p, cal, false); err == nil {
			ref := l.reference()
			r.ExpectedMM3, r.P5MM3, r.P95MM3 = ptr(ref.ExpectedMM3), ptr(ref.P5MM3), ptr(ref.P95MM3)
			if usable(v.MM3) {
				z := l.z(name, v)
				r.Z, r.ZCI95, r.Percentile = ptr(z.Value), &z.CI95, ptr(z.Percentile)
			}
		}
		rows = append(rows, r)
	}
	for _, s := range anatomy.Structures[1:] {
		if _, ok := clean[s.Name]; ok {
			row(s.Name, s.Label)
		}
	}
	for _, name := range sortedKeys(clean) {
		if _, ok := anatomy.ByName(name); !ok {
			row(name, 0)
		}
	}
	return rows, n.indices(clean, p, cal), reasons
}

// notes says what a reader must know of a comparison that was made.
func (n *Norms) notes(p Person, cal Calibration, vols map[string]Measured) []neuroscreen.Reason {
	var out []neuroscreen.Reason
	if icv := *p.ICVMM3; icv < MinTIV {
		out = append(out, *reason("head-size-clamped", "the head is smaller than the norm's range; it is compared with heads of 1.1 l", icv, MinTIV))
	} else if icv > MaxTIV {
		out = append(out, *reason("head-size-clamped", "the head is larger than the norm's range; it is compared with heads of 2.0 l", icv, MaxTIV))
	}
	site, why := n.siteShift(cal)
	uncalibrated := false
	for name := range vols {
		m, ok := site.moments(name)
		_, normed := n.models[name]
		uncalibrated = uncalibrated || normed && (!ok || m.N < minForSite)
	}
	// Where the site's own shift stands it holds the segmenter's offset too.
	if uncalibrated && !n.segmenterMeasured(cal) {
		text := "the norm was made with FreeSurfer 6.0 and no shift for this segmenter is stored: its own offset is still in every z"
		if s := n.segmenterShift(cal); s != nil {
			text = fmt.Sprintf("no healthy people were measured with this segmenter (%s) for the norm: it is taken to differ from the norm as %s does, and what remains of its own offset is in every z", cal.Segmenter, s.MeasuredWith)
		}
		out = append(out, neuroscreen.Reason{Code: neuroscreen.SegmenterNotCalibrated, Text: text + "; the spread between segmenters widens every interval"})
	}
	switch {
	case why != nil:
		out = append(out, *why)
	case uncalibrated:
		out = append(out, neuroscreen.Reason{Code: "site-not-calibrated", Text: "fewer than 20 local controls are stored for some structures: the spread between sites widens their intervals"})
	}
	return out
}

// normName returns the name that the norm's tables use.
func normName(s string) string {
	if a, ok := anatomy.ByName(s); ok && a.Label != 0 {
		return a.Name
	}
	return s
}

func reason(code, text string, value, limit float64) *neuroscreen.Reason {
	r := &neuroscreen.Reason{Code: code, Text: text}
	if finite(value) { // JSON has no NaN
		r.Value = &value
	}
	if limit != 0 {
		r.Limit = &limit
	}
	return r
}

func usable(mm3 float64) bool { return finite(mm3) && mm3 > 0 }

func cleanSE(se float64) float64 {
	if !finite(se) || se < 0 {
		return 0
	}
	return se
}

func finite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }

func ptr[T any](v T) *T { return &v }
