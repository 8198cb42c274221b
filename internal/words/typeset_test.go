package words

import "testing"

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
