// Package words says in words what the result document says in numbers, for
// worklist, report and pages alike.
package words

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"neuroscreen"
	"neuroscreen/internal/anatomy"
)

// Structure makes a FreeSurfer name readable: "Left-Inf-Lat-Vent" is "Left
// inferior lateral ventricle".
func Structure(name string) string {
	for _, side := range []string{"Left-", "Right-"} {
		if rest, ok := strings.CutPrefix(name, side); ok {
			return strings.TrimSuffix(side, "-") + " " + lowerFirst(Structure(rest))
		}
	}
	if n, ok := map[string]string{
		"Inf-Lat-Vent": "Inferior lateral ventricle", "VentralDC": "Ventral diencephalon", "Accumbens-area": "Accumbens",
		"CSF": "CSF outside the ventricles", "3rd-Ventricle": "3rd ventricle", "4th-Ventricle": "4th ventricle",
	}[name]; ok {
		return n
	}
	if name == "" {
		return ""
	}
	return upperFirst(strings.ToLower(strings.NewReplacer("-", " ", "_", " ").Replace(name)))
}

// Why says in one line what a score rests on: the measurements that moved it
// most. Of an abstained score it is the reason to abstain.
func Why(s neuroscreen.Score) string {
	if s.Abstained != nil {
		return "No score: " + *s.Abstained
	}
	if s.Condition == neuroscreen.MesialTemporalSclerosis {
		return sclerosis(s)
	}
	var parts []string
	moved := slices.Clone(s.Contributions)
	slices.SortStableFunc(moved, func(a, b neuroscreen.Contribution) int {
		if math.Abs(a.LogLR) > math.Abs(b.LogLR) {
			return -1
		}
		return 1
	})
	for _, c := range moved {
		if _, known := anatomy.ByName(c.Feature); !known || c.Z == nil || len(parts) == 2 {
			continue
		}
		name := Structure(c.Feature)
		if len(parts) > 0 {
			name = lowerFirst(name)
		}
		parts = append(parts, fmt.Sprintf("%s z %s", name, signed(*c.Z, 1)))
	}
	return strings.Join(parts, ", ")
}

func sclerosis(s neuroscreen.Score) string {
	var parts []string
	if s.Side != nil {
		parts = append(parts, upperFirst(*s.Side)+" hippocampus smaller")
	}
	for _, c := range s.Contributions {
		if c.Feature == "hippocampal_asymmetry_percent" {
			parts = append(parts, fmt.Sprintf("asymmetry %s %%", signed(c.Value, 1)))
		} else if c.Z != nil {
			parts = append(parts, fmt.Sprintf("z %s", signed(*c.Z, 1)))
		}
	}
	return upperFirst(strings.Join(parts, ", "))
}

// signed writes a minus as U+2212, as wide as a plus.
func signed(v float64, digits int) string {
	s := fmt.Sprintf("%+.*f", digits, v)
	if strings.Trim(s, "+-0.") == "" {
		return s[1:] // nothing has no sign
	}
	return strings.Replace(s, "-", "−", 1)
}

func lowerFirst(s string) string {
	if s == "" || strings.HasPrefix(s, "CSF") {
		return s
	}
	return strings.ToLower(s[:1]) + s[1:]
}

func upperFirst(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
