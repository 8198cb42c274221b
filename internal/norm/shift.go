package norm

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"sort"
	"strings"

	"neuroscreen"
)

// Segmenter names what measured a volume. Two segmenters differ by hundreds of
// mm3 on the same hippocampus, so a volume means little without it.
type Segmenter string

const (
	Unknown     Segmenter = ""
	FreeSurfer5 Segmenter = "fs5"
	FreeSurfer6 Segmenter = "fs6" // the norm's own
	FreeSurfer7 Segmenter = "fs7"
	Network     Segmenter = "neuroscreen"
	OASIS1      Segmenter = "oasis1" // the FreeSurfer run behind OASIS-1's table, which the risk model was trained on
)

// Segmenters a caller may name, in the order of documentation.
var Segmenters = []Segmenter{FreeSurfer5, FreeSurfer6, FreeSurfer7, Network}

// Layers of calibration.
const (
	LayerSegmenter = "segmenter"
	LayerSite      = "site"
)

// ShiftSchema names the version of a stored shift.
const ShiftSchema = "neuroscreen.shift/1"

const (
	shrinkN     = 10 // controls at which half of an observed shift is believed
	minForSD    = 20 // controls from which the spread is scaled too
	minForSite  = 20 // controls that a site needs before its shift counts
	minSD       = 0.5
	maxSD       = 2.0
	maxAbsMeanZ = 8.0
)

// Shift moves the norm to where one segmenter, or one site, measures healthy
// people. It is stored, named and versioned; a result names the shifts it was
// made with.
type Shift struct {
	Schema    string    `json:"schema"`
	Name      string    `json:"name"`
	Version   string    `json:"version"`
	Layer     string    `json:"layer"` // LayerSegmenter or LayerSite
	Segmenter Segmenter `json:"segmenter"`
	// MeasuredWith names the segmenter that measured the people, where it is not
	// Segmenter itself, which is then only taken to differ from the norm as that
	// one does.
	MeasuredWith Segmenter `json:"measured_with,omitempty"`
	// Of a site's shift: name@version of the segmenter shift that it was measured
	// on top of; SHA-256 of the network's weights, if it measured the controls; and
	// their scanners, if each of them names its own.
	After    string    `json:"after,omitempty"`
	Weights  string    `json:"weights_sha256,omitempty"`
	Scanners []Scanner `json:"scanners,omitempty"`

	Source     string             `json:"source"`
	Structures map[string]Moments `json:"structures"` // by FreeSurfer name
}

// Moments of healthy controls' z, taken before the shift applies. For a site
// they are taken after the segmenter's shift.
type Moments struct {
	N     int     `json:"n"`              // controls; for pooled cohorts, whose mean the spread between sites limits, how many people would tell it as well
	NSD   int     `json:"n_sd,omitempty"` // people behind SDZ when that is not N
	MeanZ float64 `json:"mean_z"`         // observed, not yet shrunk
	SDZ   float64 `json:"sd_z"`           // observed
	Kept  float64 `json:"kept,omitempty"` // share of the mean that applies, of a segmenter's shift; 0 is n/(n+10)
}

// applied returns the mean shift shrunk towards 0, and the spread, 1 below 20
// controls. Both in units of the norm's SD.
func (m Moments) applied() (mean, sd float64) {
	mean = m.MeanZ * m.shrinkage()
	sd = 1
	if max(m.N, m.NSD) >= minForSD {
		sd = min(max(m.SDZ, minSD), maxSD)
	}
	return mean, sd
}

// shrinkage is the share of the observed mean that applies.
func (m Moments) shrinkage() float64 {
	if m.Kept > 0 {
		return m.Kept
	}
	return float64(m.N) / float64(m.N+shrinkN)
}

// LoadShift reads a stored shift and refuses one that can't be meant.
func LoadShift(r io.Reader) (*Shift, error) {
	var s Shift
	d := json.NewDecoder(r)
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return nil, neuroscreen.Errorf(neuroscreen.CodeInvalid, "invalid-shift", "the shift is not the JSON it should be: %v", err)
	}
	if err := s.Validate(); err != nil {
		return nil, err
	}
	return &s, nil
}

// Validate refuses a shift that can't be meant. The error names the field.
func (s *Shift) Validate() error {
	bad := func(field, format string, a ...any) error {
		return neuroscreen.FieldErrorf(neuroscreen.CodeInvalid, "invalid-shift", field, format, a...)
	}
	switch {
	case s.Schema != ShiftSchema:
		return bad("schema", "want %q, got %q", ShiftSchema, s.Schema)
	case s.Name == "" || s.Version == "":
		return bad("name", "a shift needs a name and a version, so that a result can say which one it used")
	case s.Layer != LayerSegmenter && s.Layer != LayerSite:
		return bad("layer", "want %q or %q, got %q", LayerSegmenter, LayerSite, s.Layer)
	}
	known := Default().models
	for name, m := range s.Structures {
		switch {
		case normName(name) != name:
			return bad("structures", "write %q as %q", name, normName(name))
		case known[normName(name)] == nil && surfaceBased[normName(name)] == "":
			return bad("structures", "the norm holds no structure %q; use FreeSurfer's names", name)
		case m.N < 0 || m.NSD < 0:
			return bad("structures", "%s: a negative number of controls", name)
		case !finite(m.MeanZ) || math.Abs(m.MeanZ) > maxAbsMeanZ:
			return bad("structures", "%s: mean_z %g is no plausible shift: check units (mm3) and names", name, m.MeanZ)
		case !finite(m.SDZ) || m.SDZ < 0:
			return bad("structures", "%s: sd_z %g", name, m.SDZ)
		case !(m.Kept >= 0 && m.Kept <= 1) || m.Kept > 0 && s.Layer != LayerSegmenter:
			return bad("structures", "%s: kept %g is no share, or the shift is a site's, of which n/(n+10) applies", name, m.Kept)
		}
	}
	return nil
}

// id is the name with the version, "" for no shift.
func (s *Shift) id() string {
	if s == nil {
		return ""
	}
	return s.Name + "@" + s.Version
}

// Asset returns the shift's name with version and the SHA-256 of its canonical
// JSON.
func (s *Shift) Asset() neuroscreen.Asset {
	return neuroscreen.Asset{Name: s.id(), SHA256: s.SHA256()}
}

// SHA256 is a shift's own, "" without one.
func (s *Shift) SHA256() string {
	if s == nil {
		return ""
	}
	b, err := json.Marshal(s) // map keys are sorted
	if err != nil {
		panic(err) // only a NaN could do this, and LoadShift and FitShift let none in
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func (s *Shift) moments(structure string) (Moments, bool) {
	if s == nil {
		return Moments{}, false
	}
	m, ok := s.Structures[structure]
	return m, ok && m.N > 0
}

// Calibration says what measured a person's volumes and which site shift
// applies. The zero value means: segmenter unknown, site not calibrated.
type Calibration struct {
	Segmenter Segmenter
	Weights   string // SHA-256 of the network's, "" if not known
	Scanner   Scanner
	// SegmenterShift replaces the shift shipped for Segmenter; nil keeps it.
	SegmenterShift *Shift
	// SiteShift is measured on the site's own controls; structures with fewer
	// than 20 of them count as not calibrated, and so does a shift that was
	// measured with another segmenter, other weights of it or another scanner, or
	// on top of another segmenter shift.
	SiteShift *Shift
}

// Control is one healthy person measured by the segmenter or at the site that
// is to be calibrated.
type Control struct {
	Person  Person
	Scanner Scanner
	Volumes map[string]Measured
}

// FitShift measures a shift on healthy controls. For LayerSegmenter their z is
// taken against the bare norm, for LayerSite after base's segmenter shift.
// Controls out of the norm's range are left out; structures with none are
// absent from the answer.
func (n *Norms) FitShift(name, version, layer, source string, base Calibration, controls []Control) (*Shift, error) {
	from := Calibration{Segmenter: base.Segmenter, SegmenterShift: base.SegmenterShift}
	if layer == LayerSegmenter {
		from = Calibration{Segmenter: FreeSurfer6}
	} else if layer != LayerSite {
		return nil, fmt.Errorf("norm: unknown layer %q", layer)
	}
	zs := map[string][]float64{}
	for _, c := range controls {
		for name, v := range c.Volumes {
			s := normName(name)
			l, err := n.locate(s, c.Person, from, layer == LayerSegmenter)
			if err != nil || !usable(v.MM3) {
				continue
			}
			zs[s] = append(zs[s], (l.scale(v.MM3)-l.mu)/l.sd)
		}
	}
	out := &Shift{Schema: ShiftSchema, Name: name, Version: version, Layer: layer, Segmenter: base.Segmenter, Source: source, Structures: map[string]Moments{}}
	if layer == LayerSite {
		out.After, out.Weights, out.Scanners = n.segmenterShift(from).id(), base.Weights, scannersOf(controls)
	}
	for s, z := range zs {
		mean, sd := meanSD(z)
		out.Structures[s] = Moments{N: len(z), MeanZ: mean, SDZ: sd}
	}
	if len(out.Structures) == 0 {
		return nil, neuroscreen.Errorf(neuroscreen.CodeInvalid, "no-controls", "no control lies inside the norm's range (18 to 100 years, sex F or M, intracranial volume in mm3)")
	}
	return out, nil
}

// scannersOf returns the controls' scanners, sorted, or nil if one of them is
// not known: the shift is then of no scanner in particular.
func scannersOf(controls []Control) []Scanner {
	seen := map[Scanner]bool{}
	for _, c := range controls {
		if c.Scanner == (Scanner{}) {
			return nil
		}
		seen[c.Scanner] = true
	}
	return slices.SortedFunc(maps.Keys(seen), func(a, b Scanner) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Manufacturer, b.Manufacturer), cmp.Compare(a.FieldStrengthT, b.FieldStrengthT))
	})
}

func meanSD(x []float64) (mean, sd float64) {
	for _, v := range x {
		mean += v
	}
	mean /= float64(len(x))
	if len(x) < 2 {
		return mean, 0
	}
	for _, v := range x {
		sd += (v - mean) * (v - mean)
	}
	return mean, math.Sqrt(sd / float64(len(x)-1))
}

// readShifts reads the shipped segmenter shifts, by segmenter.
func readShifts() (map[Segmenter]*Shift, error) {
	entries, err := files.ReadDir("data")
	if err != nil {
		return nil, err
	}
	out := map[Segmenter]*Shift{}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "segmenter_") {
			continue
		}
		b, err := files.ReadFile("data/" + e.Name())
		if err != nil {
			return nil, err
		}
		var s Shift
		if err := json.Unmarshal(b, &s); err != nil {
			return nil, fmt.Errorf("%s: %w", e.Name(), err)
		}
		out[s.Segmenter] = &s
	}
	return out, nil
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
