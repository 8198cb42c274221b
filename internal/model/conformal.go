package model

import (
	"encoding/json"
	"fmt"

	"neuroscreen"
	"neuroscreen/internal/norm"
)

// ConformalErrorRates that the models were fitted for.
var ConformalErrorRates = []float64{0.05, 0.1, 0.2, 0.3}

// conformalBounds hold, at one error rate, how high a control's ln(LR) and how
// low a case's may be. They come from out-of-fold scores of the training
// people, by class, so that at most that share of each class falls outside.
type conformalBounds struct {
	ErrorRate float64 `json:"error_rate"`
	Control   float64 `json:"control_at_most_ln_lr"`
	Case      float64 `json:"case_at_least_ln_lr"`
	// both is the share of the training people who got "both", by the card.
	both float64
}

// readConformalShares fills in, from the model's card, how many people got
// "both".
func (m *linear) readConformalShares() error {
	var card struct {
		Sets struct {
			At []struct {
				ErrorRate float64 `json:"error_rate"`
				Sets      struct{ Both, One, Neither float64 }
			}
		} `json:"conformal_sets"`
	}
	if err := json.Unmarshal(m.Card, &card); err != nil {
		return err
	}
	for i := range m.Conformal {
		b := &m.Conformal[i]
		for _, at := range card.Sets.At {
			if n := at.Sets.Both + at.Sets.One + at.Sets.Neither; at.ErrorRate == b.ErrorRate && n > 0 {
				b.both = at.Sets.Both / n
			}
		}
	}
	return nil
}

// conformalSet returns the cross-conformal set of ln(LR), as the model gives it
// before any site's recalibration, at an error rate; nil if the model has none.
// Both, and neither: the score lies where it does not decide at that rate, among
// the usual of cases and of controls alike, or between the two.
func (m *linear) conformalSet(ln, errorRate float64, seg norm.Segmenter) *neuroscreen.ConformalSet {
	for _, b := range m.Conformal {
		if b.ErrorRate != errorRate {
			continue
		}
		s := &neuroscreen.ConformalSet{ErrorRate: errorRate, Validated: seg == m.Segmenter}
		switch isCase, isControl := ln >= b.Case, ln <= b.Control; {
		case isCase && isControl:
			s.Set = "both"
			s.Text = fmt.Sprintf("At an error rate of %g %% the volumes fit cases and controls alike; %.0f %% of the people behind the model get this answer.", 100*errorRate, 100*b.both)
		case isCase:
			s.Set = "case"
			s.Text = fmt.Sprintf("At an error rate of %g %% the volumes fit cases only: at most that share of controls has volumes as far out as these.", 100*errorRate)
		case isControl:
			s.Set = "control"
			s.Text = fmt.Sprintf("At an error rate of %g %% the volumes fit controls only: at most that share of cases has volumes as ordinary as these, which excludes nobody.", 100*errorRate)
		default:
			s.Set = "neither"
			s.Text = fmt.Sprintf("At an error rate of %g %% the score lies between what is usual in controls and in cases: it does not decide.", 100*errorRate)
		}
		if !s.Validated {
			s.Text += " The error rate was counted on FreeSurfer's volumes of one cohort and is not validated on these."
		}
		return s
	}
	return nil
}
