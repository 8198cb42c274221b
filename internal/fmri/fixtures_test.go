package fmri

import (
	"encoding/json"
	"os"
	"testing"
)

// fixtures is testdata/fixtures.json; testdata/make_fixtures.py makes it.
type fixtures struct {
	Dummies []struct {
		Means []float64
		Count int
	}
}

func load(t testing.TB) *fixtures {
	t.Helper()
	b, err := os.ReadFile("testdata/fixtures.json")
	if err != nil {
		t.Fatal(err)
	}
	f := new(fixtures)
	if err := json.Unmarshal(b, f); err != nil {
		t.Fatal(err)
	}
	return f
}
