package model

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"neuroscreen/internal/testdata"
)

// What make -C fit writes from the shared data is what is committed: tables,
// shifts, coefficients with their covariance and thresholds, conformal bounds,
// every figure of the cards, and the fixtures. Needs the Python packages of
// fit/requirements.txt, which make test installs; numbers agree to 1e-6.
func TestRefit(t *testing.T) {
	if testing.Short() {
		t.Skip("refitting takes a minute")
	}
	testdata.Shared(t, "tables", "oasis1_merged.csv")
	python := os.Getenv("PYTHON")
	if python == "" {
		python = "/usr/bin/python3"
	}
	if err := exec.Command(python, "-c", "import numpy, scipy, pandas, sklearn").Run(); err != nil {
		t.Skipf("%s lacks the packages of fit/requirements.txt: %v", python, err)
	}
	out := t.TempDir()
	cmd := exec.Command("make", "-C", filepath.Join("..", "..", "fit"))
	cmd.Env = append(os.Environ(), "FIT_OUT="+out, "PYTHON="+python, "PYTHONDONTWRITEBYTECODE=1")
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make -C fit: %v\n%s", err, b)
	}
	made := map[string]bool{}
	err := filepath.WalkDir(out, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(out, path)
		if err != nil {
			return err
		}
		made[name] = true
		committed := filepath.Join("..", "..", name)
		if filepath.Ext(path) == ".json" {
			same(t, name, decode(t, path), decode(t, committed))
			return nil
		}
		got, want := read(t, path), read(t, committed)
		if !bytes.Equal(got, want) {
			t.Errorf("%s differs from the committed file", name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	// Nothing that is embedded comes from anywhere else.
	for _, dir := range []string{"norm", "model"} {
		entries, err := os.ReadDir(filepath.Join("..", dir, "data"))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if name := filepath.Join("internal", dir, "data", e.Name()); !made[name] && e.Name() != "NOMIS_LICENSE" && e.Name() != "SOURCES.md" {
				t.Errorf("%s is not made by fit/", name)
			}
		}
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func decode(t *testing.T, path string) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(read(t, path), &v); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return v
}

// same compares all that is in got with what stands in want.
func same(t *testing.T, at string, got, want any) {
	t.Helper()
	switch g := got.(type) {
	case map[string]any:
		w, _ := want.(map[string]any)
		if len(g) != len(w) {
			t.Errorf("%s: %d fields, committed %d", at, len(g), len(w))
		}
		for k := range g {
			same(t, at+"."+k, g[k], w[k])
		}
	case []any:
		w, _ := want.([]any)
		if len(g) != len(w) {
			t.Errorf("%s: %d entries, committed %d", at, len(g), len(w))
			return
		}
		for i := range g {
			same(t, fmt.Sprintf("%s[%d]", at, i), g[i], w[i])
		}
	case float64:
		if w, ok := want.(float64); !ok || math.Abs(g-w) > 1e-6*max(1, math.Abs(w)) {
			t.Errorf("%s: %v, committed %v", at, got, want)
		}
	default:
		if got != want {
			t.Errorf("%s: %v, committed %v", at, got, want)
		}
	}
}
