package service

import (
	"strings"
	"testing"
)

func TestCards(t *testing.T) {
	cards, err := modelCards()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range cards {
		names = append(names, c.Name)
		if len(c.Sha256) != 64 {
			t.Errorf("%s: hash %q", c.Name, c.Sha256)
		}
		for _, want := range []string{"## Purpose", "## Limits", "## Must not be used for"} {
			if !strings.Contains(c.Card, want) {
				t.Errorf("%s lacks %q", c.Name, want)
			}
		}
		if strings.Contains(c.Card, "%!") || strings.Contains(c.Card, "NaN") {
			t.Errorf("%s is badly written:\n%s", c.Name, c.Card)
		}
	}
	if got := strings.Join(names, " "); got != "network norms alzheimers-scan alzheimers-table alzheimers-mmse alzheimers-effects parkinsons mesial-temporal-sclerosis" {
		t.Errorf("cards %s", got)
	}
	for _, want := range []string{"whole head: 2 mm", "held out 04 08 12 17", "Left-Hippocampus: "} {
		if !strings.Contains(cards[0].Card, want) {
			t.Errorf("the network's card lacks %q:\n%s", want, cards[0].Card)
		}
	}
	// What lost its term for sex is not claimed to have one.
	norms := cards[1].Card
	sexed, rest, ok := strings.Cut(norms, "Age and head size only")
	if !ok || strings.Contains(sexed, "Left-Hippocampus") || !strings.Contains(rest, "Left-Hippocampus") || !strings.Contains(sexed, "Left-Putamen") {
		t.Errorf("the norms' card:\n%s", norms)
	}
}
