package model

import (
	"fmt"
	"math"
	"slices"
	"sort"
	"strings"

	"neuroscreen"
	"neuroscreen/internal/norm"
)

// explain words a score that was made of the features, whose settings have
// their defaults.
func (m *Models) explain(f Features, s neuroscreen.Score) neuroscreen.Explanation {
	e := neuroscreen.Explanation{Features: []string{}, Reasons: []string{}, WouldChange: []string{}, Uncertain: []string{}}
	if s.Abstained != nil {
		e.Uncertain = append(e.Uncertain, "No score: "+*s.Abstained+".")
		return e
	}
	for _, c := range strongest(s.Contributions) {
		if math.Abs(c.LogLR) >= 0.05 { // a likelihood ratio within 5 % of 1 is no reason
			e.Features = append(e.Features, fmt.Sprintf("%s: likelihood ratio %s.", m.describe(f, c), ratio(math.Exp(c.LogLR))))
		}
	}
	e.Reasons = append(slices.Clone(e.Features), fmt.Sprintf("Together, starting from %s for average volumes: likelihood ratio %s, 95 %% interval %s to %s.",
		ratio(math.Exp(s.Intercept)), ratio(*s.LikelihoodRatio), ratio(s.CI95[0]), ratio(s.CI95[1])))
	if s.Prior != nil && s.Posterior != nil {
		e.Reasons = append(e.Reasons, fmt.Sprintf("With a prior of %s the posterior is %s; where the condition is more or less frequent than that, it is another.", percent(*s.Prior), percent(*s.Posterior)))
	} else if s.Condition != neuroscreen.MesialTemporalSclerosis && s.Flag != neuroscreen.FlagNone {
		e.Reasons = append(e.Reasons, "No prior is set for this age, so no probability is given.")
	}

	limit := m.sclerosis.LogLRCap
	if s.Condition == neuroscreen.MesialTemporalSclerosis {
		other := m.otherSide(f, s)
		e.Features, e.Reasons = append(e.Features, other), append(e.Reasons, other)
		e.WouldChange = append(e.WouldChange, m.sclerosisChange(s, f.Settings)...)
		e.Uncertain = append(e.Uncertain, m.sclerosisDoubts(f, s)...)
	} else {
		lm, _ := m.linearOf(s.Model).without(f.LeftOut) // there is one, for there is a score
		limit = lm.LogLRCap
		if lm.of != nil {
			e.Uncertain = append(e.Uncertain, lm.weighedAnew())
		}
		e.WouldChange = append(e.WouldChange, m.linearChange(lm, s, f)...)
		e.Uncertain = append(e.Uncertain, m.linearDoubts(lm, f, s)...)
	}
	if math.Abs(math.Log(*s.LikelihoodRatio)) > limit-1e-9 {
		e.Uncertain = append(e.Uncertain, fmt.Sprintf("The likelihood ratio is held at %s, and what each feature did is scaled down with it: the people behind the model say nothing of rarer values.", ratio(*s.LikelihoodRatio)))
	}
	e.Uncertain = append(e.Uncertain, m.volumeDoubts(f, s)...)
	if s.CI95[0] < 1 && s.CI95[1] > 1 {
		e.Uncertain = append(e.Uncertain, "The interval includes 1: coefficients and measurement together leave open whether these volumes speak for or against.")
	}
	return e
}

func strongest(c []neuroscreen.Contribution) []neuroscreen.Contribution {
	out := append([]neuroscreen.Contribution(nil), c...)
	sort.SliceStable(out, func(i, j int) bool { return math.Abs(out[i].LogLR) > math.Abs(out[j].LogLR) })
	return out
}

// plainWords of features that are no structure.
var plainWords = map[string]func(f Features, v float64) string{
	"age_years": func(_ Features, v float64) string { return fmt.Sprintf("Age %.3g years", v) },
	"male": func(_ Features, v float64) string {
		if v == 1 {
			return "Male sex"
		}
		return "Female sex"
	},
	"intracranial_volume_l": func(_ Features, v float64) string { return fmt.Sprintf("Head size %.2f l", v) },
	"nWBV": func(_ Features, v float64) string {
		return fmt.Sprintf("Whole-brain volume %.1f %% of the head", 100*v)
	},
	"MMSE":       func(_ Features, v float64) string { return fmt.Sprintf("MMSE %.3g", v) },
	sideNotKnown: func(Features, float64) string { return "Either side could have been the smaller one" },
	"hippocampal_asymmetry_percent": func(f Features, v float64) string {
		band, sd := Default().sclerosis.band(f.Person.AgeYears)
		of := map[string]string{"under_60": "under 60", "from_60": "of 60 and over"}[band]
		nearer := 100 * math.Erf(math.Abs(v-norm.AsymmetryMean)/sd/math.Sqrt2)
		return fmt.Sprintf("Hippocampal asymmetry %+.1f %% (healthy people %s: %+.1f +- %.1f %%; %s of them lie nearer to their mean)",
			v, of, norm.AsymmetryMean, sd, shareWords(nearer))
	},
}

func shareWords(percent float64) string {
	if percent > 99.9 {
		return "more than 99.9 %"
	}
	return fmt.Sprintf("%.3g %%", percent)
}

// otherSide says where the hippocampus lies that the score was not made for.
func (m *Models) otherSide(f Features, s neuroscreen.Score) string {
	name := "Left-Hippocampus"
	if s.Contributions[1].Feature == name {
		name = "Right-Hippocampus"
	}
	z, err := m.norms.ZOf(name, f.Volumes[name], f.Person, f.Calibration)
	if err != nil {
		return name + " can't be compared with healthy people: " + err.Error() + "."
	}
	return m.describe(f, neuroscreen.Contribution{Feature: name, Z: &z.Value}) + "."
}

// describe says where one feature lies: "Left hippocampus 2.1 SD below peers
// of her age and head size".
func (m *Models) describe(f Features, c neuroscreen.Contribution) string {
	if w, ok := plainWords[c.Feature]; ok {
		return w(f, c.Value)
	}
	where := "as in"
	if z := *c.Z; math.Abs(z) >= 0.05 {
		where = fmt.Sprintf("%.1f SD above", z)
		if z < 0 {
			where = fmt.Sprintf("%.1f SD below", -z)
		}
	}
	whose := "her"
	if f.Person.Sex == neuroscreen.Male {
		whose = "his"
	}
	peers := "age and head size"
	if m.norms.AdjustsForSex(c.Feature) {
		peers = "age, sex and head size"
	}
	return fmt.Sprintf("%s %s peers of %s %s", structureWords(c.Feature), where, whose, peers)
}

// structureWords turns "Left-Inf-Lat-Vent" into "Left inferior lateral ventricle".
func structureWords(name string) string {
	s := strings.NewReplacer("Inf-Lat-Vent", "inferior lateral ventricle", "Accumbens-area", "accumbens", "-", " ").Replace(name)
	return s[:1] + strings.ToLower(s[1:])
}

// Recalibratable returns the hash of a model that a site may recalibrate; ok is
// false for one that has no such correction.
func (m *Models) Recalibratable(name string) (sha256 string, ok bool) {
	if lm := m.linearOf(name); lm != nil && lm.decides() {
		return lm.sha256, true
	}
	return "", false
}

// linearOf returns the linear model of a name, nil for none.
func (m *Models) linearOf(name string) *linear {
	for _, lm := range []*linear{m.alzheimersScan, m.alzheimersTable, m.alzheimersMMSE, m.alzheimersEffects, m.parkinsons} {
		if lm.Name == name {
			return lm
		}
	}
	return nil
}

// flagOf returns how a linear model's condition is flagged and at which
// likelihood ratios the flag changes.
func (s Settings) flagOf(c neuroscreen.Condition) (flag func(lr float64) neuroscreen.Flag, limits []float64) {
	if c == neuroscreen.Parkinsons {
		return s.parkinsonsFlag, []float64{s.ParkinsonsReviewLR}
	}
	return s.alzheimersFlag, []float64{s.AlzheimersReviewLR, s.AlzheimersFlaggedLR}
}

// decides reports whether a model sets its condition's flag.
func (m *linear) decides() bool { return len(m.Thresholds) > 0 }

// linearChange says how much one structure, the one that needs to move least,
// would have to differ for another flag. A model that sets no flag has none.
func (m *Models) linearChange(lm *linear, s neuroscreen.Score, f Features) []string {
	if !lm.decides() {
		return nil
	}
	flag, limits := f.Settings.flagOf(s.Condition)
	// The sum before the cap, which scales contributions.
	ln := lm.Intercept
	var steepest string
	var perSD float64
	for i, t := range lm.Features {
		at := s.Contributions[i].Value
		if s.Contributions[i].Z != nil {
			z, err := m.norms.ZOf(t.Name, f.Volumes[t.Name], f.Person, f.Calibration)
			if err != nil {
				return nil // there would be no score
			}
			at = lm.unit(z) * z.Value
			if c := lm.unit(z) * t.Coefficient; math.Abs(c) > math.Abs(perSD) {
				steepest, perSD = t.Name, c
			}
		}
		ln += t.Coefficient * (at - t.Reference)
	}
	intercept, slope := 0.0, 1.0
	if r, _ := m.recalibration(lm, f); r != nil {
		intercept, slope = r.Intercept, r.Slope
	}
	var out []string
	for _, limit := range limits {
		at := math.Log(limit)
		raw := (at - intercept) / slope // before the site's recalibration
		if at > lm.LogLRCap || math.Abs(raw) > lm.LogLRCap {
			continue // out of reach
		}
		to, dz, reach := flag(limit), (raw-ln)/perSD, "reaches"
		if ln >= raw {
			to, reach = flag(math.Exp(at-1e-9)), "falls below"
		}
		direction := "larger"
		if dz < 0 {
			direction = "smaller"
		}
		out = append(out, fmt.Sprintf("The flag would be %q if the %s were %.1f SD %s and all else the same (the likelihood ratio %s %s there).",
			to, lowerFirst(structureWords(steepest)), math.Abs(dz), direction, reach, ratio(limit)))
	}
	return out
}

// notable is the factor that a measurement's error must be able to move the
// likelihood ratio by to be named.
const notable = 1.5

// linearDoubts says which features a linear score lacks or knows badly.
func (m *Models) linearDoubts(lm *linear, f Features, s neuroscreen.Score) []string {
	var out []string
	for i, t := range lm.Features {
		c := s.Contributions[i]
		if c.Z == nil {
			continue
		}
		z, err := m.norms.ZOf(t.Name, f.Volumes[t.Name], f.Person, f.Calibration)
		if err != nil {
			continue
		}
		half := norm.Z95 * z.NoiseSE
		if factor := math.Exp(half * math.Abs(lm.unit(z)*t.Coefficient)); factor >= notable {
			out = append(out, fmt.Sprintf("%s is measured to +-%.1f SD (95 %%): this alone can move the likelihood ratio by a factor of %s either way.", structureWords(t.Name), half, ratio(factor)))
		}
	}
	if lm == m.alzheimersScan {
		out = append(out, "FreeSurfer's whole-brain volume (nWBV) was not given; the model without it was used.")
	}
	if f.MMSE == nil && (lm == m.alzheimersScan || lm == m.alzheimersTable) {
		out = append(out, "The MMSE was not given; the score that uses it is not shown.")
	}
	if lm.decides() {
		flag, _ := f.Settings.flagOf(s.Condition)
		if lo, hi := flag(s.CI95[0]), flag(s.CI95[1]); lo != hi {
			out = append(out, fmt.Sprintf("Within the interval the flag goes from %q to %q.", lo, hi))
		}
	}
	if f.Calibration.Segmenter != lm.Segmenter && s.Evidence == neuroscreen.ExternalCohort {
		out = append(out, "The model was trained on FreeSurfer volumes of one cohort; on these it is not validated.")
	}
	r, stale := m.recalibration(lm, f)
	switch {
	case r != nil:
		out = append(out, fmt.Sprintf("The likelihood ratio holds the site's own recalibration (intercept %.2f, slope %.2f, from %d cases and %d controls).", r.Intercept, r.Slope, r.Cases, r.Controls))
	case stale:
		out = append(out, "The site's recalibration was fitted for another version of this model, another segmenter, other weights of the network, another shift of the site or another scanner and is not applied: validate again.")
	}
	return out
}

// volumeDoubts says what is not known of the volumes that a score was made of.
func (m *Models) volumeDoubts(f Features, s neuroscreen.Score) []string {
	var out []string
	if !m.norms.OffsetMeasured(f.Calibration) {
		out = append(out, "No healthy people were measured with what measured these volumes: its own offset against the norm is in every z.")
	}
	if !slices.ContainsFunc(s.Contributions, func(c neuroscreen.Contribution) bool { return f.Volumes[c.Feature].SE > 0 }) {
		out = append(out, "The volumes came without their measurement's error: of it only the spread between two scans of one person is in the interval.")
	}
	return out
}

func lowerFirst(s string) string { return strings.ToLower(s[:1]) + s[1:] }

// sclerosisChange says where the limits of asymmetry lie beside this person's.
func (m *Models) sclerosisChange(s neuroscreen.Score, settings Settings) []string {
	percent := s.Contributions[0].Value
	limits := func(sd float64) (lo, hi float64) {
		return norm.AsymmetryMean - sd*norm.AsymmetrySD, norm.AsymmetryMean + sd*norm.AsymmetrySD
	}
	lo2, hi2 := limits(settings.SclerosisReviewSD)
	lo3, hi3 := limits(settings.SclerosisFlaggedSD)
	return []string{fmt.Sprintf("Asymmetry is %+.1f %%: below %+.1f or above %+.1f %% it is %q; below %+.1f or above %+.1f %%, with the smaller side's z below %.2f (here %.2f), it is %q.",
		percent, lo2, hi2, neuroscreen.FlagReview, lo3, hi3, settings.SclerosisFlaggedZ, *s.Contributions[1].Z, neuroscreen.FlagFlagged)}
}

func (m *Models) sclerosisDoubts(f Features, s neuroscreen.Score) []string {
	out := []string{"T2 and FLAIR were not seen: sclerosis without loss of volume is missed."}
	var zs zPair
	for i, side := range []string{"Left-Hippocampus", "Right-Hippocampus"} {
		var err error
		if zs[i], err = m.norms.ZOf(side, f.Volumes[side], f.Person, f.Calibration); err != nil {
			return out // a score needs both
		}
	}
	if max(zs[0].Value, zs[1].Value) < f.Settings.SclerosisFlaggedZ {
		out = append(out, "Both hippocampi are small: bilateral disease leaves no asymmetry, and this score can't see it.")
	}
	percent, _, se := norm.Asymmetry(f.Volumes["Left-Hippocampus"], f.Volumes["Right-Hippocampus"])
	half := norm.Z95 * se
	if half >= f.Settings.SclerosisReviewSD*norm.AsymmetrySD/2 {
		out = append(out, fmt.Sprintf("Asymmetry is measured to +-%.1f %% (95 %%); in healthy people it spreads by %.1f %%. The likelihood ratio is drawn towards 1 for it.", half, norm.AsymmetrySD))
	}
	lo, hi := percent-half, percent+half
	if a, b := f.Settings.sclerosisFlag(lo, zs.smaller(lo).Value), f.Settings.sclerosisFlag(hi, zs.smaller(hi).Value); a != s.Flag || b != s.Flag {
		out = append(out, fmt.Sprintf("At the ends of that interval, %+.1f and %+.1f %%, the flag would be %q and %q.", lo, hi, a, b))
	}
	if f.Person.AgeYears >= 60 && s.Flag != neuroscreen.FlagNone {
		out = append(out, "From 60 on, asymmetry is wider in healthy people and in neurodegeneration; neither is sclerosis.")
	}
	return out
}

func ratio(v float64) string {
	switch {
	case v > 1e4:
		return "over 10,000"
	case v < 1e-4:
		return "under 0.0001"
	case v >= 9.95:
		return fmt.Sprintf("%.0f", v)
	case v >= 0.095:
		return fmt.Sprintf("%.2g", v)
	}
	return fmt.Sprintf("%.1g", v)
}

func percent(p float64) string {
	if p < 0.01 {
		return fmt.Sprintf("%.1g %%", 100*p)
	}
	return fmt.Sprintf("%.2g %%", 100*p)
}
