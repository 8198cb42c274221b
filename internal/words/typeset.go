package words

import (
	"regexp"
	"strings"
)

var hyphenMinus = regexp.MustCompile(`(^|[\s(])-(\d)`)

// Typeset brings a text of the result document, which is plain ASCII and
// names flags as the document does, to what a reader is used to. The pages,
// which have the document itself, do the same in web/src/format.ts.
func Typeset(s string) string {
	s = typed.Replace(s)
	return hyphenMinus.ReplaceAllString(s, "${1}−${2}")
}

var (
	marks = []string{"+-", "±", "mm3", "mm³", ">=", "≥", "<=", "≤",
		`"none"`, "“not flagged”", `"review"`, "“worth a second look”", `"flagged"`, "“flagged”"}
	typed = strings.NewReplacer(marks...)
)
