package pipeline

import (
	"strings"
	"testing"

	"neuroscreen/internal/model"
	"neuroscreen/internal/report"
)

// The short form of a card is how its long form begins, and doesn't pass off an
// AUC that follows from effects as one that was counted.
func TestShortCard(t *testing.T) {
	counted := map[string]string{"alzheimers-effects": "AUC counted on no one, ", "parkinsons": "on 30 cases and 15 controls, "}
	for _, c := range model.Default().Cards() {
		words := report.ScoreInWords{Short: &report.Short{}}
		if err := shortCard(&words, c); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(words.Short.Performance, counted[c.Name]) {
			t.Errorf("%s: %q", c.Name, words.Short.Performance)
		}
		for long, short := range map[string]string{words.Cohort: words.Short.Cohort, words.Performance: words.Short.Performance, words.Limits: words.Short.Limits} {
			if start, _ := strings.CutSuffix(short, "."); start == "" || !strings.HasPrefix(long, start) || len(short) >= len(long) {
				t.Errorf("%s: %q of %q", c.Name, short, long)
			}
		}
	}
}
