package fmri

import (
	"encoding/json"
	"fmt"
	"math"

	"neuroscreen"
	"neuroscreen/internal/nifti"
)

// Stable codes about the repetition time. The first two refuse a run, the last
// goes with a result.
const (
	TRAmbiguous = "tr-ambiguous" // nothing states it, or two things state it differently
	TRInvalid   = "tr-invalid"   // the metadata's is no repetition time
	TRDisagrees = "tr-disagrees" // the file says something else than the metadata, which decided
)

const (
	// What a header may claim: multiband sequences go down to .3 s, sparse
	// sampling up to 15 s. Beyond, a unit is wrong (2000 s for 2000 ms).
	minTR, maxTR = 0.1, 30
	// trTolerance is the relative difference that rounding of a header
	// explains; .5 % is one volume in 200.
	trTolerance = 0.005
)

// TR is a run's repetition time and who stated it.
type TR struct {
	Seconds float64
	From    string               // "metadata", "header" or "sidecar"
	Notes   []neuroscreen.Reason // TRDisagrees, if the file contradicts the metadata
}

// Sidecar is what a BIDS JSON file beside the image states of time, in
// seconds. dcm2niix writes both fields where a DICOM holds two answers.
type Sidecar struct {
	RepetitionTime           *float64
	RepetitionTimeExcitation *float64
}

// ReadSidecar reads the JSON file beside an image.
func ReadSidecar(b []byte) (*Sidecar, error) {
	s := new(Sidecar)
	return s, json.Unmarshal(b, s)
}

// RepetitionTime decides a run's repetition time. The metadata's wins; without
// it, header and sidecar (which may be nil) must agree to .5 %. A header
// without a unit of time states nothing.
//
// Errors: CodeUnprocessable TRAmbiguous or TRInvalid, both of the field tr_s.
func RepetitionTime(meta *float64, h *nifti.Header, side *Sidecar) (TR, error) {
	type statement struct {
		from, text string
		seconds    float64
	}
	var said []statement
	if s, ok := h.TRSeconds(); ok && s >= minTR && s <= maxTR {
		said = append(said, statement{"header", fmt.Sprintf("the image's header %.5g s", s), s})
	}
	if side != nil {
		for _, f := range []struct {
			name  string
			value *float64
		}{{"RepetitionTime", side.RepetitionTime}, {"RepetitionTimeExcitation", side.RepetitionTimeExcitation}} {
			if f.value != nil && *f.value >= minTR && *f.value <= maxTR {
				said = append(said, statement{"sidecar", fmt.Sprintf("%s of the JSON file %.5g s", f.name, *f.value), *f.value})
			}
		}
	}
	if meta != nil {
		if !(*meta >= minTR && *meta <= maxTR) {
			return TR{}, neuroscreen.FieldErrorf(neuroscreen.CodeUnprocessable, TRInvalid, "tr_s",
				"a repetition time of %g s is not one; give seconds, %g to %g", *meta, minTR, float64(maxTR))
		}
		tr := TR{Seconds: *meta, From: "metadata"}
		for _, s := range said {
			if disagree(s.seconds, *meta) {
				v, l := s.seconds, *meta
				tr.Notes = append(tr.Notes, neuroscreen.Reason{Code: TRDisagrees, Value: &v, Limit: &l, Text: fmt.Sprintf(
					"The repetition time is %.5g s by the metadata, which were followed; %s.", *meta, s.text)})
			}
		}
		return tr, nil
	}
	if len(said) == 0 {
		msg := "the image's header states no repetition time; give it in seconds"
		if h.TR > 0 {
			unit := h.TimeUnit
			if unit == "" {
				unit = "no unit"
			}
			msg = fmt.Sprintf("the image's header gives the repetition time as %g with %s, which is not usable; give it in seconds", h.TR, unit)
		}
		return TR{}, neuroscreen.FieldErrorf(neuroscreen.CodeUnprocessable, TRAmbiguous, "tr_s", "%s", msg)
	}
	for _, s := range said[1:] {
		if disagree(s.seconds, said[0].seconds) {
			return TR{}, neuroscreen.FieldErrorf(neuroscreen.CodeUnprocessable, TRAmbiguous, "tr_s",
				"the repetition time is stated twice: %s, %s; give the one that the scanner used", said[0].text, s.text)
		}
	}
	return TR{Seconds: said[0].seconds, From: said[0].from}, nil
}

func disagree(a, b float64) bool { return math.Abs(a-b) > trTolerance*b }
