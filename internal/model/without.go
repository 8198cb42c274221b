package model

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"

	"gonum.org/v1/gonum/mat"
	"gonum.org/v1/gonum/stat/distuv"

	"neuroscreen"
)

// excluded abstains because a reviewer left out structures that the model
// needs.
func (h header) excluded(structures []string) neuroscreen.Score {
	s := h.abstain(fmt.Sprintf("a reviewer left out %s, which this pattern is scored from", listed(structures)))
	s.AbstainedType, s.Without = neuroscreen.StructureExcluded, structures
	return s
}

// needed are those of the left out structures that are among the names.
func needed(names, leftOut []string) (out []string) {
	for _, n := range names {
		if slices.Contains(leftOut, n) {
			out = append(out, n)
		}
	}
	return out
}

// readCorrelations takes over, from the card of a model of published effects,
// the healthy correlations that its coefficients were made with.
func (m *linear) readCorrelations() error {
	var card struct {
		Correlations *struct {
			Of []string    `json:"of"`
			R  [][]float64 `json:"r"`
		} `json:"correlations"`
	}
	if err := json.Unmarshal(m.Card, &card); err != nil || card.Correlations == nil {
		return err
	}
	c, n := card.Correlations, len(m.Features)
	if !slices.Equal(c.Of, m.names()) || len(c.R) != n {
		return fmt.Errorf("correlations of %v, features %v", c.Of, m.names())
	}
	m.correlations = mat.NewSymDense(n, nil)
	for i, row := range c.R {
		if len(row) != n {
			return fmt.Errorf("correlations: row of %d, want %d", len(row), n)
		}
		for j := range i + 1 {
			m.correlations.SetSym(i, j, row[j])
		}
	}
	return nil
}

func (m *linear) names() []string {
	out := make([]string, len(m.Features))
	for i, t := range m.Features {
		out[i] = t.Name
	}
	return out
}

// without returns the model of what is left when a reviewer leaves structures
// out, and which of them it would use; nil where there is no such model.
//
// A fitted model has none: what its coefficients would have been was never
// looked at. Nor has one that sets a flag: its thresholds were counted with all
// structures. A linear discriminant of published effects has: with the effects
// d = R w behind its coefficients w and the correlations R, that of a part S is
// w_S = R_SS^-1 d_S, with the intercept -d_S'w_S / 2.
func (m *linear) without(leftOut []string) (rest *linear, missing []string) {
	missing = needed(m.names(), leftOut)
	if len(missing) == 0 {
		return m, nil
	}
	n := len(m.Features)
	k := n - len(missing)
	if m.correlations == nil || m.decides() || k == 0 {
		return nil, missing
	}
	var kept []int
	for i, t := range m.Features {
		if !slices.Contains(missing, t.Name) {
			kept = append(kept, i)
		}
	}
	part := mat.NewSymDense(k, nil)    // R_SS
	effects := mat.NewDense(k, n, nil) // d_S of w
	for a, i := range kept {
		for j := range n {
			effects.Set(a, j, m.correlations.At(i, j))
		}
		for b, j := range kept[:a+1] {
			part.SetSym(a, b, m.correlations.At(i, j))
		}
	}
	var weights mat.Dense // w_S of w
	if err := weights.Solve(part, effects); err != nil {
		return nil, missing
	}
	w := mat.NewVecDense(n, nil)
	for i, t := range m.Features {
		w.SetVec(i, t.Coefficient)
	}
	var wS, dS mat.VecDense
	wS.MulVec(&weights, w)
	dS.MulVec(effects, w)

	rest = &linear{header: m.header, Segmenter: m.Segmenter, Intercept: -mat.Dot(&dS, &wS) / 2, Thresholds: m.Thresholds, sha256: m.sha256}
	for a, i := range kept {
		rest.Features = append(rest.Features, feature{Name: m.Features[i].Name, Coefficient: wS.AtVec(a)})
	}
	// The coefficients' errors go the same way, those of the correlations
	// with them: change of (intercept, w_S) over that of w.
	change := mat.NewDense(k+1, n, nil)
	change.Slice(1, k+1, 0, n).(*mat.Dense).Copy(&weights)
	for j := range n {
		change.Set(0, j, -mat.Dot(&wS, effects.ColView(j)))
	}
	before := mat.NewDense(n, n, nil)
	for i := range n {
		for j := range n {
			before.Set(i, j, m.Covariance[i+1][j+1])
		}
	}
	var after mat.Dense
	after.Product(change, before, change.T())
	for i := range k + 1 {
		rest.Covariance = append(rest.Covariance, slices.Clone(after.RawRowView(i)))
	}
	rest.of, rest.missing = m, missing
	return rest, missing
}

// impliedAUC is how well a linear discriminant tells two normal groups apart
// that differ as its effects say: its intercept is minus half of their squared
// distance.
func (m *linear) impliedAUC() float64 {
	return distuv.UnitNormal.CDF(math.Sqrt(-m.Intercept))
}

// weighedAnew says of what and for what a model was made without.
func (m *linear) weighedAnew() string {
	return fmt.Sprintf("Made without %s, which a reviewer left out: the other structures were weighed anew by their published effects and correlations. "+
		"If both groups are normal these tell them apart with an AUC of %.2f, all together with %.2f.", listed(m.missing), m.impliedAUC(), m.of.impliedAUC())
}

// listed names structures as a text does: "the left hippocampus and the right
// amygdala".
func listed(structures []string) string {
	names := make([]string, len(structures))
	for i, s := range structures {
		names[i] = "the " + lowerFirst(structureWords(s))
	}
	if n := len(names); n > 1 {
		return strings.Join(names[:n-1], ", ") + " and " + names[n-1]
	}
	return names[0]
}
