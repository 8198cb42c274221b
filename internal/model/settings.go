package model

import (
	"math"
	"slices"

	"neuroscreen"
	"neuroscreen/internal/norm"
)

// Settings are what a site may change. Zero values take the defaults; they are
// stored with every result that they made.
type Settings struct {
	AlzheimersReviewLR  float64 `json:"alzheimers_review_lr,omitempty"`
	AlzheimersFlaggedLR float64 `json:"alzheimers_flagged_lr,omitempty"`
	ParkinsonsReviewLR  float64 `json:"parkinsons_review_lr,omitempty"`
	SclerosisReviewSD   float64 `json:"sclerosis_review_sd,omitempty"`  // of asymmetry
	SclerosisFlaggedSD  float64 `json:"sclerosis_flagged_sd,omitempty"` // of asymmetry
	SclerosisFlaggedZ   float64 `json:"sclerosis_flagged_z,omitempty"`  // of the smaller side, negative

	// Priors by age; nil takes the defaults, an empty list means no prior.
	AlzheimersPriors []AgePrior `json:"alzheimers_priors"`
	ParkinsonsPriors []AgePrior `json:"parkinsons_priors"`

	// ConformalErrorRate is one of ConformalErrorRates.
	ConformalErrorRate float64 `json:"conformal_error_rate,omitempty"`
	// Recalibrations of models on the site's own people; at most one for each
	// model and segmenter.
	Recalibrations []Recalibration `json:"recalibrations,omitempty"`
}

// AgePrior is the share of people who have the condition, from one age up to
// the next entry's. A prior of 0 ends the range: no prior from that age on.
type AgePrior struct {
	FromAge float64 `json:"from_age"`
	Prior   float64 `json:"prior"`
}

// Defaults. Priors: prevalence of Alzheimer's dementia in the United States by
// age (Alzheimer's Association 2023), and of Parkinson's disease at 65 and over
// (2 to 3 %, npj Parkinson's Disease s41531-024-00647-9). A clinic sees more of
// both than the population and should set its own.
var defaults = Settings{
	AlzheimersReviewLR:  2,
	AlzheimersFlaggedLR: 5,
	ParkinsonsReviewLR:  1.5,
	SclerosisReviewSD:   2,
	SclerosisFlaggedSD:  3,
	SclerosisFlaggedZ:   -1.64,
	AlzheimersPriors:    []AgePrior{{65, 0.05}, {75, 0.131}, {85, 0.333}},
	ParkinsonsPriors:    []AgePrior{{65, 0.025}},
	ConformalErrorRate:  0.1,
}

// WithDefaults fills what a site has not set: what scores are made with.
func (s Settings) WithDefaults() Settings {
	fill := func(v *float64, d float64) {
		if *v == 0 {
			*v = d
		}
	}
	fill(&s.AlzheimersReviewLR, defaults.AlzheimersReviewLR)
	fill(&s.AlzheimersFlaggedLR, defaults.AlzheimersFlaggedLR)
	fill(&s.ParkinsonsReviewLR, defaults.ParkinsonsReviewLR)
	fill(&s.SclerosisReviewSD, defaults.SclerosisReviewSD)
	fill(&s.SclerosisFlaggedSD, defaults.SclerosisFlaggedSD)
	fill(&s.SclerosisFlaggedZ, defaults.SclerosisFlaggedZ)
	fill(&s.ConformalErrorRate, defaults.ConformalErrorRate)
	if s.AlzheimersPriors == nil {
		s.AlzheimersPriors = defaults.AlzheimersPriors
	}
	if s.ParkinsonsPriors == nil {
		s.ParkinsonsPriors = defaults.ParkinsonsPriors
	}
	return s
}

// Validate refuses settings that can't be meant. The error names the field.
func (s Settings) Validate() error {
	s = s.WithDefaults()
	bad := func(field, format string, a ...any) error {
		return neuroscreen.FieldErrorf(neuroscreen.CodeInvalid, "invalid-settings", field, format, a...)
	}
	switch {
	case !(s.AlzheimersReviewLR > 1):
		return bad("alzheimers_review_lr", "a likelihood ratio to look at must be above 1, got %g", s.AlzheimersReviewLR)
	case !(s.AlzheimersFlaggedLR >= s.AlzheimersReviewLR) || math.IsInf(s.AlzheimersFlaggedLR, 0):
		return bad("alzheimers_flagged_lr", "must not be below alzheimers_review_lr (%g), got %g", s.AlzheimersReviewLR, s.AlzheimersFlaggedLR)
	case !(s.ParkinsonsReviewLR > 1):
		return bad("parkinsons_review_lr", "a likelihood ratio to look at must be above 1, got %g", s.ParkinsonsReviewLR)
	case !(s.SclerosisReviewSD > 0):
		return bad("sclerosis_review_sd", "must be positive, got %g", s.SclerosisReviewSD)
	case !(s.SclerosisFlaggedSD >= s.SclerosisReviewSD):
		return bad("sclerosis_flagged_sd", "must not be below sclerosis_review_sd (%g), got %g", s.SclerosisReviewSD, s.SclerosisFlaggedSD)
	case !(s.SclerosisFlaggedZ < 0):
		return bad("sclerosis_flagged_z", "must be negative, got %g", s.SclerosisFlaggedZ)
	case !slices.Contains(ConformalErrorRates, s.ConformalErrorRate):
		return bad("conformal_error_rate", "the models have sets at %v only, not at %g", ConformalErrorRates, s.ConformalErrorRate)
	}
	for i, r := range s.Recalibrations {
		if err := r.validate(Default()); err != nil {
			return err
		}
		for _, other := range s.Recalibrations[:i] {
			if other.Model == r.Model && other.Segmenter == r.Segmenter {
				return bad("recalibrations", "%s has two for the segmenter %s", r.Model, r.Segmenter)
			}
		}
	}
	for field, priors := range map[string][]AgePrior{"alzheimers_priors": s.AlzheimersPriors, "parkinsons_priors": s.ParkinsonsPriors} {
		for i, p := range priors {
			if !(p.Prior >= 0 && p.Prior < 1) {
				return bad(field, "a prior is a share from 0 to below 1, got %g", p.Prior)
			}
			if i > 0 && !(p.FromAge > priors[i-1].FromAge) {
				return bad(field, "ages must ascend, got %g after %g", p.FromAge, priors[i-1].FromAge)
			}
		}
	}
	return nil
}

// Reachable refuses thresholds that no likelihood ratio of the models reaches.
// It is for new settings: stored ones must stay readable.
func (s Settings) Reachable() error {
	s = s.WithDefaults()
	models := Default()
	for _, t := range []struct {
		field string
		at    float64
		of    *linear
	}{
		{"alzheimers_review_lr", s.AlzheimersReviewLR, models.alzheimersScan},
		{"alzheimers_flagged_lr", s.AlzheimersFlaggedLR, models.alzheimersScan},
		{"parkinsons_review_lr", s.ParkinsonsReviewLR, models.parkinsons},
	} {
		// At the cap itself rounding would decide.
		if most := math.Exp(t.of.LogLRCap); !(t.at < most*(1-1e-9)) {
			return neuroscreen.FieldErrorf(neuroscreen.CodeInvalid, "invalid-settings", t.field,
				"must be below %.4g, got %g: the model gives no likelihood ratio over that, so that nobody would be flagged", most, t.at)
		}
	}
	return nil
}

// priorAt returns the prior at an age, nil below the first entry.
func priorAt(priors []AgePrior, ageYears float64) *float64 {
	var out *float64
	for _, p := range priors {
		if ageYears >= p.FromAge {
			out = &p.Prior
		}
	}
	if out != nil && *out == 0 {
		return nil
	}
	return out
}

func (s Settings) alzheimersFlag(lr float64) neuroscreen.Flag {
	switch {
	case lr >= s.AlzheimersFlaggedLR:
		return neuroscreen.FlagFlagged
	case lr >= s.AlzheimersReviewLR:
		return neuroscreen.FlagReview
	}
	return neuroscreen.FlagNone
}

// parkinsonsFlag never goes beyond review: the evidence does not carry more.
func (s Settings) parkinsonsFlag(lr float64) neuroscreen.Flag {
	if lr >= s.ParkinsonsReviewLR {
		return neuroscreen.FlagReview
	}
	return neuroscreen.FlagNone
}

// sclerosisFlag takes the asymmetry 100 (R-L)/(R+L) and the z of the side that
// is smaller than expected.
func (s Settings) sclerosisFlag(asymmetryPercent, smallerZ float64) neuroscreen.Flag {
	off := math.Abs(asymmetryPercent-norm.AsymmetryMean) / norm.AsymmetrySD
	switch {
	case off > s.SclerosisFlaggedSD && smallerZ < s.SclerosisFlaggedZ:
		return neuroscreen.FlagFlagged
	case off > s.SclerosisReviewSD:
		return neuroscreen.FlagReview
	}
	return neuroscreen.FlagNone
}
