// Package qc decides whether a scan can be measured and how far its
// measurements can be trusted.
//
// Intake looks at the decoded image and its metadata before anything is
// computed; Assess looks at the image under its labels afterwards. Both refuse
// with a *neuroscreen.Error of CodeUnprocessable whose Type is a stable code;
// what is not refused is graded by Assess with metrics in the manner of MRIQC.
// What neither can see (a tumour, a stroke, a shunt, a mislabelled patient) is
// left to the reader of the report, which says so.
package qc

import (
	"errors"
	"math"
	"strings"

	"neuroscreen"
)

// refusal carries the reasons behind a refusal through the error chain.
type refusal []neuroscreen.Reason

func (r refusal) Error() string {
	codes := make([]string, len(r))
	for i, reason := range r {
		codes[i] = reason.Code
	}
	return "refused for " + strings.Join(codes, ", ")
}

// Refuse returns the error for reasons, the gravest first, and nil for none.
func Refuse(reasons []neuroscreen.Reason) error {
	if len(reasons) == 0 {
		return nil
	}
	return &neuroscreen.Error{
		Code:    neuroscreen.CodeUnprocessable,
		Type:    reasons[0].Code,
		Message: reasons[0].Text,
		Err:     refusal(reasons),
	}
}

// Reasons returns every reason behind err, the gravest first: those of a
// refusal by this package, or the one that another error states.
func Reasons(err error) []neuroscreen.Reason {
	if err == nil {
		return nil
	}
	if r, ok := errors.AsType[refusal](err); ok {
		return r
	}
	e := neuroscreen.AsError(err)
	return []neuroscreen.Reason{{Code: e.Type, Text: e.Message}}
}

// reason with the value found and the limit that it broke, unless the value is
// no number.
func reason(code, text string, value, limit float64) neuroscreen.Reason {
	if math.IsNaN(value) || math.IsInf(value, 0) { // JSON has neither
		return neuroscreen.Reason{Code: code, Text: text}
	}
	return neuroscreen.Reason{Code: code, Text: text, Value: &value, Limit: &limit}
}
