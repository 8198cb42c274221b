package words

import (
	"strconv"
	"strings"
)

// Grouped writes thousands apart, with a no-break thin space.
func Grouped(v float64, digits int) string {
	s := strconv.FormatFloat(v, 'f', digits, 64)
	sign := ""
	if strings.HasPrefix(s, "-") {
		sign, s = "−", s[1:]
	}
	whole, rest, _ := strings.Cut(s, ".")
	for n := len(whole) - 3; n > 0; n -= 3 {
		whole = whole[:n] + "\u202f" + whole[n:]
	}
	if rest != "" {
		rest = "." + rest
	}
	return sign + whole + rest
}

// Ratio shows two figures, or whole numbers from ten.
func Ratio(v float64) string {
	if v >= 9.95 {
		return Grouped(v, 0)
	}
	return strconv.FormatFloat(v, 'g', 2, 64)
}

// Bound is an end of a likelihood ratio's interval: what lies beyond a
// hundredth and a thousand says no more.
func Bound(v float64) string {
	switch {
	case v < 0.01:
		return "less than 0.01"
	case v > 1000:
		return "more than " + Ratio(1000)
	}
	return Ratio(v)
}

// Percentile in whole numbers; none is 0 or 100.
func Percentile(v float64) string {
	switch {
	case v < 1:
		return "<1"
	case v > 99:
		return ">99"
	}
	return strconv.FormatFloat(v, 'f', 0, 64)
}
