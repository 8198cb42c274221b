package words

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// What the report calls a flag, the pages call so too.
func TestPagesTypesetAlike(t *testing.T) {
	source, err := os.ReadFile("../../web/src/format.ts")
	if err != nil {
		t.Fatal(err)
	}
	for pair := range slices.Chunk(marks, 2) {
		if rule := ".replaceAll('" + pair[0] + "', '" + pair[1] + "')"; !strings.Contains(string(source), rule) {
			t.Errorf("web/src/format.ts lacks %s", rule)
		}
	}
	if n := strings.Count(string(source), ".replaceAll("); n != len(marks)/2 {
		t.Errorf("web/src/format.ts has %d rules, want %d", n, len(marks)/2)
	}
}

func TestTypeset(t *testing.T) {
	for in, want := range map[string]string{
		`The flag goes from "none" to "review".`:        "The flag goes from “not flagged” to “worth a second look”.",
		"No change: -3 mm3 (-0.4 %), +-1.2 SD, 10-fold": "No change: −3 mm³ (−0.4 %), ±1.2 SD, 10-fold",
		"-1.0 SD; p-01, LR >= 2":                        "−1.0 SD; p-01, LR ≥ 2",
	} {
		if got := Typeset(in); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
