package model

import (
	"math"

	"neuroscreen"
	"neuroscreen/internal/norm"
)

// Recalibration is a site's own correction of one model, fitted on its labelled
// people: ln(LR) becomes Intercept + Slope ln(LR). It belongs to one version of
// the model, to one segmenter with its weights and to the site's shift, or none,
// under which it was fitted; it is applied to nothing else.
type Recalibration struct {
	Model       string         `json:"model"`
	ModelSHA256 string         `json:"model_sha256"` // of the coefficient file
	Segmenter   norm.Segmenter `json:"segmenter"`
	Weights     string         `json:"weights_sha256,omitempty"`    // of the network, where it measured these people
	SiteShift   string         `json:"site_shift_sha256,omitempty"` // under which they were scored
	Intercept   float64        `json:"intercept"`
	Slope       float64        `json:"slope"`
	Covariance  [2][2]float64  `json:"covariance"` // of the two
	Cases       int            `json:"cases"`
	Controls    int            `json:"controls"`
	Source      string         `json:"source"`
}

// Bounds of a recalibration that can be meant. Beyond them the model does not
// fit the site's people and another is needed.
const (
	leastSlope, mostSlope = 0.1, 3.0
	mostIntercept         = 3.0
	leastPerClass         = 20 // people of each class
)

func (r Recalibration) validate(m *Models) error {
	bad := func(format string, a ...any) error {
		return neuroscreen.FieldErrorf(neuroscreen.CodeInvalid, "invalid-settings", "recalibrations", format, a...)
	}
	lm := m.linearOf(r.Model)
	switch {
	case lm == nil:
		return bad("there is no model %q that can be recalibrated", r.Model)
	case r.ModelSHA256 == "" || r.Segmenter == norm.Unknown:
		return bad("%s: name model_sha256 and segmenter, so that it is applied to nothing else", r.Model)
	case !(r.Slope >= leastSlope && r.Slope <= mostSlope):
		return bad("%s: slope %g is outside %g to %g: the model does not fit these people", r.Model, r.Slope, leastSlope, mostSlope)
	case !(math.Abs(r.Intercept) <= mostIntercept):
		return bad("%s: intercept %g is beyond +-%g", r.Model, r.Intercept, mostIntercept)
	case !(r.Covariance[0][0] >= 0 && r.Covariance[1][1] >= 0) || r.Covariance[0][1] != r.Covariance[1][0] ||
		r.Covariance[0][1]*r.Covariance[0][1] > r.Covariance[0][0]*r.Covariance[1][1]*(1+1e-9):
		return bad("%s: covariance %v is none", r.Model, r.Covariance)
	case r.Cases < leastPerClass || r.Controls < leastPerClass:
		return bad("%s: %d cases and %d controls are too few; at least %d of each", r.Model, r.Cases, r.Controls, leastPerClass)
	}
	return nil
}

// recalibration returns the one that applies to a person's score by a model.
// stale says that the site has one for the model that does not.
func (m *Models) recalibration(lm *linear, f Features) (r *Recalibration, stale bool) {
	cal := f.Calibration
	for i := range f.Settings.Recalibrations {
		r := &f.Settings.Recalibrations[i]
		if r.Model != lm.Name {
			continue
		}
		otherWeights := r.Weights != "" && cal.Weights != "" && r.Weights != cal.Weights
		if r.ModelSHA256 == lm.sha256 && r.Segmenter == cal.Segmenter && !otherWeights && r.SiteShift == cal.SiteShift.SHA256() && m.norms.SiteShiftApplies(cal) {
			return r, false
		}
		stale = true
	}
	return nil, stale
}

// recalibrate applies r; the contributions still sum to ln(LR).
func (l *logLR) recalibrate(r Recalibration) {
	raw := l.sum()
	l.scale(r.Slope)
	l.intercept += r.Intercept
	l.coefficientVar += r.Covariance[0][0] + 2*raw*r.Covariance[0][1] + raw*raw*r.Covariance[1][1]
}
