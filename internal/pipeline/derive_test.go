package pipeline

import (
	"strings"
	"testing"

	"neuroscreen/internal/model"
	"neuroscreen/internal/report"
)

// The short form of a card is how its long form begins.
func TestShortCard(t *testing.T) {
	for _, c := range model.Default().Cards() {
		words := report.ScoreInWords{Short: &report.Short{}}
		if err := shortCard(&words, c); err != nil {
			t.Fatal(err)
		}
		for long, short := range map[string]string{words.Cohort: words.Short.Cohort, words.Performance: words.Short.Performance, words.Limits: words.Short.Limits} {
			if start, _ := strings.CutSuffix(short, "."); start == "" || !strings.HasPrefix(long, start) || len(short) >= len(long) {
				t.Errorf("%s: %q of %q", c.Name, short, long)
			}
		}
	}
}
