package model

import (
	"fmt"
	"math"

	"neuroscreen"
)

// conformalBounds hold, at one error rate, how high a control's ln(LR) and how
// low a case's may be. They come from out-of-fold scores of the training
// people, by class, so that at most that share of each class falls outside.
type conformalBounds struct {
	ErrorRate float64 `json:"error_rate"`
	Control   float64 `json:"control_at_most_ln_lr"`
	Case      float64 `json:"case_at_least_ln_lr"`
}

// Set says which classes a score can't exclude. Both: the volumes do not
// decide. Neither: no person like this was seen.
type Set struct {
	ErrorRate float64
	Case      bool
	Control   bool
}

// String names the set in one word.
func (s Set) String() string {
	switch {
	case s.Case && s.Control:
		return "both"
	case s.Case:
		return "case"
	case s.Control:
		return "control"
	}
	return "neither"
}

// ConformalSet returns the cross-conformal set of a score at one of the error
// rates that the model was fitted for (0.05, 0.1, 0.2, 0.3). Its coverage by
// class, sex and age stands in the model's card; at 0.1 about half of all
// people get "both". It holds for FreeSurfer's volumes and is not validated on
// the network's.
//
// Errors: the score abstained, or its model has no set at that rate.
func (m *Models) ConformalSet(s neuroscreen.Score, errorRate float64) (Set, error) {
	if s.LikelihoodRatio == nil {
		return Set{}, fmt.Errorf("model: %s abstained", s.Condition)
	}
	if lm := m.linearOf(s.Model); lm != nil {
		for _, b := range lm.Conformal {
			if b.ErrorRate == errorRate {
				ln := math.Log(*s.LikelihoodRatio)
				return Set{ErrorRate: errorRate, Case: ln >= b.Case, Control: ln <= b.Control}, nil
			}
		}
	}
	return Set{}, fmt.Errorf("model: %s has no conformal set at error rate %g", s.Model, errorRate)
}
