package pipeline

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"

	"neuroscreen"
	"neuroscreen/internal/model"
	"neuroscreen/internal/norm"
	"neuroscreen/internal/qc"
	"neuroscreen/internal/report"
	"neuroscreen/internal/segment"
)

// scorer is what comes after the segmentation: comparison with the norm,
// scores, and the words for both.
type scorer struct {
	norms  *norm.Norms
	models *model.Models
}

// withhold says why nothing may be scored whatever the verdict, "" if it may.
func withhold(q neuroscreen.QC) string {
	if q.Has(qc.TemplateSpace) {
		return "the image lies in a template's space, and so sizes and volumes may be the template's"
	}
	return ""
}

// compare places the volumes among healthy people. What a reviewer left out
// keeps its row, without z, and enters no index; of a scan that may not be scored
// nothing stands beside healthy people's.
func (s scorer) compare(measured map[string]norm.Measured, p norm.Person, cal norm.Calibration, q neuroscreen.QC, leftOut []string) ([]neuroscreen.Volume, []neuroscreen.Index, []neuroscreen.Reason) {
	rows, indices, notes := s.norms.Compare(measured, p, cal)
	unplaced := withhold(q) != ""
	for i := range rows {
		v := &rows[i]
		v.LeftOut = slices.Contains(leftOut, v.Structure)
		if v.LeftOut || unplaced {
			v.Z, v.ZCI95, v.Percentile = nil, nil, nil
		}
		if unplaced {
			v.ExpectedMM3, v.P5MM3, v.P95MM3 = nil, nil, nil
		}
	}
	if len(leftOut) > 0 {
		_, indices, _ = s.norms.Compare(without(measured, leftOut), p, cal)
	}
	return rows, indices, notes
}

func without(measured map[string]norm.Measured, leftOut []string) map[string]norm.Measured {
	kept := make(map[string]norm.Measured, len(measured))
	for name, v := range measured {
		if !slices.Contains(leftOut, name) {
			kept[name] = v
		}
	}
	return kept
}

// Rescorer makes results anew of the volumes that stored ones hold. The network
// does not run: it takes milliseconds, and the scan's bytes may be gone. It is
// safe for concurrent use.
type Rescorer struct {
	scorer
	version string
	weights string             // SHA-256
	pair    map[string]float64 // norm.Measured.Pair, which belongs to the weights and stands in no result
}

// NewRescorer works with the embedded weights' errors, norms and models.
func NewRescorer(version string) (*Rescorer, error) {
	w, err := segment.DefaultWeights()
	if err != nil {
		return nil, err
	}
	r := &Rescorer{scorer: scorer{norm.Default(), model.Default()}, version: version, weights: w.SHA256(), pair: map[string]float64{}}
	for name, e := range w.Errors {
		r.pair[name] = e.Pair
	}
	return r, nil
}

// Rescore scores an old result's volumes without the amendment's structures.
// Everything else stays: metadata and settings are those that it was made with.
// Errors: CodeInvalid when the result holds no such structure; CodeConflict
// "other-models" when this program would not make the old result again, for other
// weights, norms, models or rules: more would change than what was left out.
func (r *Rescorer) Rescore(old neuroscreen.Result, m neuroscreen.Metadata, settings Settings, a neuroscreen.Amendment) (*neuroscreen.Result, report.Reading, error) {
	if m.AgeYears == nil {
		return nil, report.Reading{}, fmt.Errorf("result %s was made without an age", old.ScanID)
	}
	clock := newStopwatch()
	again, _ := r.score(old, m, settings, old.Amendment)
	made := old.Software
	if made.Network.SHA256 != r.weights || !slices.Equal(made.Norms, NormAssets(r.norms, settings.SiteShift)) || !slices.Equal(made.Models, r.models.Assets()) || !same(old, again) {
		return nil, report.Reading{}, neuroscreen.Errorf(neuroscreen.CodeConflict, "other-models",
			"this result was made by a release with other weights, norms, models or rules; analyse the scan again, then leave out what should be")
	}
	for _, name := range a.Structures() {
		if !slices.ContainsFunc(old.Volumes, func(v neuroscreen.Volume) bool { return v.Structure == name }) {
			return nil, report.Reading{}, neuroscreen.FieldErrorf(neuroscreen.CodeInvalid, "invalid-value", "excluded", "the result holds no volume of %s", name)
		}
	}
	out, features := r.score(old, m, settings, &a)
	clock.lap("score")
	out.Amendment, out.Software.Version, out.TimingsMS = &a, r.version, clock.ms
	words, err := r.reading(&out, features)
	return &out, words, err
}

// score is the old result with everything that follows from its volumes made
// anew.
func (r *Rescorer) score(old neuroscreen.Result, m neuroscreen.Metadata, settings Settings, a *neuroscreen.Amendment) (neuroscreen.Result, model.Features) {
	measured := map[string]norm.Measured{}
	for _, v := range old.Volumes {
		measured[v.Structure] = norm.Measured{MM3: v.MM3, SE: v.StandardErrorMM, Bias: v.BiasErrorMM, Pair: r.pair[v.Structure]}
	}
	leftOut := a.Structures()
	features := model.Features{
		Person:      norm.Person{AgeYears: *m.AgeYears, Sex: m.Sex, ICVMM3: old.IntracranialVolumeMM3},
		Calibration: settings.calibration(r.weights, m), Volumes: without(measured, leftOut), LeftOut: leftOut,
		MMSE: m.MMSE, QC: old.QC.Verdict, Withhold: withhold(old.QC), Settings: settings.Model,
	}
	out := old
	out.Volumes, out.Indices, _ = r.compare(measured, features.Person, features.Calibration, old.QC, leftOut)
	out.Scores = r.models.Score(features)
	return out, features
}

// same reports whether two results say the same of the volumes, as stored.
func same(a, b neuroscreen.Result) bool {
	said := func(r neuroscreen.Result) ([]byte, error) { return json.Marshal([]any{r.Volumes, r.Indices, r.Scores}) }
	x, errX := said(a)
	y, errY := said(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}
