// Package model turns a person's volumes into likelihood ratios of three
// patterns: Alzheimer's disease, Parkinson's disease and mesial temporal
// sclerosis.
//
// Every model is linear in z and a few other features, so that
// ln(LR) = intercept + sum of contributions holds exactly and a reader can see
// what each volume did. Coefficients, their covariance and the model's card
// are files under data/, written by the scripts in fit/. Interval: coefficient
// error, measurement, test-retest and site error together.
//
// A score outside what its model was made from abstains and says why.
package model

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"sync"

	"neuroscreen"
	"neuroscreen/internal/norm"
)

//go:embed data
var files embed.FS

// Models is the set of loaded risk models. It is safe for concurrent use.
type Models struct {
	norms *norm.Norms

	alzheimersScan, alzheimersTable, alzheimersMMSE, alzheimersEffects, parkinsons *linear

	sclerosis *asymmetry
	assets    []neuroscreen.Asset
	cards     []Card
}

// Default returns the embedded models.
var Default = sync.OnceValue(func() *Models {
	m, err := load(norm.Default())
	if err != nil {
		panic(err) // the files are embedded: a build that can't read them must not run
	}
	return m
})

// schema of the coefficient files.
const schema = "neuroscreen.model/1"

// header is what all coefficient files hold.
type header struct {
	Schema    string                `json:"schema"`
	Name      string                `json:"name"`
	Version   string                `json:"version"`
	Condition neuroscreen.Condition `json:"condition"`
	Evidence  neuroscreen.Evidence  `json:"evidence"`
	AgeYears  [2]float64            `json:"age_years"`
	LogLRCap  float64               `json:"log_lr_cap"` // |ln LR| beyond which the sample says nothing
	Card      json.RawMessage       `json:"card"`
}

// valid refuses a file that would make scores of nonsense.
func (h header) valid() error {
	switch {
	case h.Schema != schema:
		return fmt.Errorf("schema %q, want %q", h.Schema, schema)
	case !(h.AgeYears[0] > 0 && h.AgeYears[1] > h.AgeYears[0]):
		return fmt.Errorf("ages %v", h.AgeYears)
	case !(h.LogLRCap > 0):
		return fmt.Errorf("log_lr_cap %g", h.LogLRCap)
	}
	return nil
}

func load(n *norm.Norms) (*Models, error) {
	m := &Models{norms: n, alzheimersScan: new(linear), alzheimersTable: new(linear), alzheimersMMSE: new(linear),
		alzheimersEffects: new(linear), parkinsons: new(linear), sclerosis: new(asymmetry)}
	for _, f := range []struct {
		name string
		into interface{ valid() error }
	}{
		{"alzheimers_scan.json", m.alzheimersScan},
		{"alzheimers_table.json", m.alzheimersTable},
		{"alzheimers_mmse.json", m.alzheimersMMSE},
		{"alzheimers_effects.json", m.alzheimersEffects},
		{"parkinsons.json", m.parkinsons},
		{"mesial_temporal_sclerosis.json", m.sclerosis},
	} {
		b, err := files.ReadFile("data/" + f.name)
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(b, f.into); err != nil {
			return nil, fmt.Errorf("%s: %w", f.name, err)
		}
		if err := f.into.valid(); err != nil {
			return nil, fmt.Errorf("%s: %w", f.name, err)
		}
		sum := sha256.Sum256(b)
		asset := neuroscreen.Asset{Name: f.name, SHA256: hex.EncodeToString(sum[:])}
		if lm, ok := f.into.(*linear); ok {
			lm.sha256 = asset.SHA256
		}
		card, err := newCard(asset, b)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.name, err)
		}
		m.assets = append(m.assets, asset)
		m.cards = append(m.cards, card)
	}
	return m, nil
}

// Assets lists the coefficient files with their hashes.
func (m *Models) Assets() []neuroscreen.Asset { return m.assets }

// Features is all that a score is made from.
type Features struct {
	Person      norm.Person
	Calibration norm.Calibration
	Volumes     map[string]norm.Measured // by FreeSurfer name, in mm3
	LeftOut     []string                 // structures that a reviewer left out; Volumes need not hold them
	NWBV        *float64                 // FreeSurfer/FAST's normalised whole-brain volume, from a table; the network's brain fraction is something else
	MMSE        *float64                 // 0 to 30
	QC          neuroscreen.Verdict
	// Withhold, if not empty, says why nothing may be scored, such as a
	// contrast agent; every score then abstains with it.
	Withhold string
	Settings Settings
}

// Score scores every condition in the order of neuroscreen.Conditions. The
// first score of a condition decides; others of the same condition stand
// beside it, have no prior and set no flag.
func (m *Models) Score(f Features) []neuroscreen.Score {
	alzheimers := m.alzheimersScan
	if f.NWBV != nil {
		alzheimers = m.alzheimersTable
	}
	f.Settings = f.Settings.WithDefaults()
	s := f.Settings
	out := []neuroscreen.Score{
		m.scoreLinear(alzheimers, f, decision{prior: priorAt(s.AlzheimersPriors, f.Person.AgeYears), flag: s.alzheimersFlag}),
	}
	if f.MMSE != nil {
		out = append(out, m.scoreLinear(m.alzheimersMMSE, f, beside))
	}
	out = append(out,
		m.scoreLinear(m.alzheimersEffects, f, beside),
		m.scoreLinear(m.parkinsons, f, decision{prior: priorAt(s.ParkinsonsPriors, f.Person.AgeYears), flag: s.parkinsonsFlag}),
		m.scoreSclerosis(f, s),
	)
	for i := range out {
		out[i].Explanation = m.explain(f, out[i])
	}
	return out
}

// decision is what a site's settings make of a likelihood ratio.
type decision struct {
	prior *float64
	flag  func(lr float64) neuroscreen.Flag
}

var beside = decision{flag: func(float64) neuroscreen.Flag { return neuroscreen.FlagNone }}

// blank is a score before anything is known.
func (h header) blank() neuroscreen.Score {
	return neuroscreen.Score{
		Condition: h.Condition, Model: h.Name, Evidence: h.Evidence, Flag: neuroscreen.FlagNone,
		Contributions: []neuroscreen.Contribution{}, IntendedUse: intendedUse[h.Name],
	}
}

func (h header) abstain(why string) neuroscreen.Score {
	s := h.blank()
	s.Abstained = &why
	return s
}

// refusal says why a model may not score a person, or returns "".
func (h header) refusal(f Features) string {
	p := f.Person
	switch {
	case f.Withhold != "":
		return f.Withhold
	case f.QC == neuroscreen.VerdictRefuse:
		return "the image failed quality control"
	case !(p.AgeYears >= h.AgeYears[0] && p.AgeYears <= h.AgeYears[1]): // NaN too
		if p.AgeYears == 0 || math.IsNaN(p.AgeYears) {
			return "the age is missing"
		}
		return fmt.Sprintf("the age is outside those that this model has evidence for (%g to %g years)", h.AgeYears[0], h.AgeYears[1])
	case p.Sex != neuroscreen.Female && p.Sex != neuroscreen.Male:
		return "the sex is missing; the model needs F or M"
	case p.ICVMM3 == nil || math.IsNaN(*p.ICVMM3):
		return "the head size (intracranial volume) is missing"
	case !norm.PlausibleICV(*p.ICVMM3):
		return fmt.Sprintf("the intracranial volume %.4g is not that of an adult head in mm3 (some tables give cm3)", *p.ICVMM3)
	}
	return ""
}

// logLR is a likelihood ratio in the making, in natural logarithms.
type logLR struct {
	intercept      float64
	contributions  []neuroscreen.Contribution
	noiseVar       float64 // variance of the sum from the measurement's and the test-retest error
	siteVar        float64 // from the spread between sites and segmenters
	coefficientVar float64 // and from the coefficients' error
	// bounds of the 95 % interval, where it is not that of a normal sum.
	bounds *[2]float64
}

func (l logLR) sum() float64 {
	s := l.intercept
	for _, c := range l.contributions {
		s += c.LogLR
	}
	return s
}

// scale multiplies all of it by k.
func (l *logLR) scale(k float64) {
	l.scaleTerms(k)
	l.noiseVar *= k * k
	l.siteVar *= k * k
	l.coefficientVar *= k * k
}

func (l *logLR) scaleTerms(k float64) {
	l.intercept *= k
	for i := range l.contributions {
		l.contributions[i].LogLR *= k
	}
}

// hold scales contributions and intercept down together where their sum is
// beyond the limit. The variances stay: an interval cut on its outer side would
// claim more certainty, not less.
func (l *logLR) hold(limit float64) {
	if raw := math.Abs(l.sum()); raw > limit {
		l.scaleTerms(limit / raw)
	}
}

// interval returns the 95 % interval of a sum of that variance.
func (l logLR) interval(variance float64) (lo, hi float64) {
	half := norm.Z95 * math.Sqrt(variance)
	return l.sum() - half, l.sum() + half
}

// doubtful abstains where the error of measurement on a doubtful image decides
// whether anything is flagged. Between review and flagged a score stands: either
// asks for a physician's look.
func (h header) doubtful() neuroscreen.Score {
	s := h.abstain("the image quality is in doubt, and the error of measurement decides whether anything is flagged")
	s.AbstainedType = neuroscreen.DoubtfulQuality
	return s
}

// finish fills a score from a log likelihood ratio, which it holds at the cap.
func (h header) finish(l logLR, d decision, qc neuroscreen.Verdict) neuroscreen.Score {
	if math.IsNaN(l.sum()) || math.IsInf(l.sum(), 0) {
		return h.abstain("a feature is not a finite number")
	}
	if qc == neuroscreen.VerdictReview {
		lo, hi := l.interval(l.noiseVar)
		if d.flag(math.Exp(lo)) == neuroscreen.FlagNone && d.flag(math.Exp(hi)) != neuroscreen.FlagNone {
			return h.doubtful()
		}
	}
	lo, hi := l.interval(l.noiseVar + l.siteVar + l.coefficientVar)
	if l.bounds != nil {
		lo, hi = l.bounds[0], l.bounds[1]
	}
	l.hold(h.LogLRCap)
	s := h.blank()
	sum := l.sum()
	lr := math.Exp(sum)
	s.LikelihoodRatio = &lr
	s.CI95 = &[2]float64{math.Exp(min(lo, sum)), math.Exp(max(hi, sum))}
	s.Intercept, s.Contributions = l.intercept, l.contributions
	s.Flag = d.flag(lr)
	if d.prior != nil {
		prior := *d.prior
		posterior := 1 / (1 + math.Exp(-(math.Log(prior/(1-prior)) + sum)))
		s.Prior, s.Posterior = &prior, &posterior
	}
	return s
}

// intendedUse is the sentence that goes with every score, by model name.
var intendedUse = map[string]string{
	"alzheimers-scan": neuroscreen.IntendedUse + " The score says how much more often these volumes are seen in people with very mild or worse clinical dementia than without; " +
		"it does not tell Alzheimer's disease from other dementias.",
	"alzheimers-table": neuroscreen.IntendedUse + " The score says how much more often these volumes are seen in people with very mild or worse clinical dementia than without; " +
		"it does not tell Alzheimer's disease from other dementias.",
	"alzheimers-mmse": neuroscreen.IntendedUse + " This score also uses the MMSE, which partly defines the diagnosis that it was trained on; it stands beside the score from the scan and sets no flag.",
	"alzheimers-effects": neuroscreen.IntendedUse + " This score weighs the volumes by published group differences, was tested on no one, " +
		"stands beside the trained score and sets no flag.",
	"parkinsons": neuroscreen.IntendedUse + " Experimental: a T1-weighted scan hardly shows early Parkinson's disease; " +
		"a likelihood ratio near 1 does not speak against it and one above 1 does not detect it.",
	"mesial-temporal-sclerosis": neuroscreen.IntendedUse + " Volumes only: T2 and FLAIR were not seen, and bilateral sclerosis leaves no asymmetry and is missed.",
}
