package norm

import (
	"math"
	"strings"

	"neuroscreen"
)

// Scanner is what a head was scanned with. What is not known is empty.
type Scanner struct {
	Name           string  `json:"scanner,omitempty"`
	Manufacturer   string  `json:"manufacturer,omitempty"`
	FieldStrengthT float64 `json:"field_strength_t,omitempty"`
}

// ScannerOf returns what a scan's metadata say of its scanner.
func ScannerOf(m neuroscreen.Metadata) Scanner {
	s := Scanner{Name: m.Scanner, Manufacturer: m.Manufacturer}
	if m.FieldStrengthT != nil {
		s.FieldStrengthT = *m.FieldStrengthT
	}
	return s
}

// fieldsDiffer is more than headers of one magnet differ by: Siemens writes
// 2.89 T for some that others call 3 T.
const fieldsDiffer = 0.25 // T

// Differs reports whether anything that is known of both tells them apart.
func (s Scanner) Differs(other Scanner) bool {
	another := func(a, b string) bool { return a != "" && b != "" && !strings.EqualFold(a, b) }
	return another(s.Name, other.Name) || another(s.Manufacturer, other.Manufacturer) ||
		s.FieldStrengthT > 0 && other.FieldStrengthT > 0 && math.Abs(s.FieldStrengthT-other.FieldStrengthT) > fieldsDiffer
}
