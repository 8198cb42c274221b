package model

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"neuroscreen/internal/testdata"
)

// The scripts in fit/ still make the committed files from the shared data.
// Performance figures, which take minutes, are left to fit/run.sh; shifts,
// effects and all coefficients are made again here. Needs Python with
// scikit-learn; numbers agree to 1e-6, for other versions of it round
// otherwise.
func TestRefit(t *testing.T) {
	if testing.Short() {
		t.Skip("refitting takes half a minute")
	}
	testdata.Shared(t, "tables", "oasis1_merged.csv")
	python := os.Getenv("PYTHON")
	if python == "" {
		python = "/usr/bin/python3"
	}
	if err := exec.Command(python, "-c", "import numpy, scipy, pandas, sklearn").Run(); err != nil {
		t.Skipf("%s has no scikit-learn: %v", python, err)
	}
	out := t.TempDir()
	for _, script := range [][]string{{"shifts.py"}, {"effects.py"}, {"alzheimers.py", "--quick"}} {
		cmd := exec.Command(python, script...)
		cmd.Dir = filepath.Join("..", "..", "fit")
		cmd.Env = append(os.Environ(), "FIT_OUT="+out, "OMP_NUM_THREADS=1", "PYTHONDONTWRITEBYTECODE=1")
		if b, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", script, err, b)
		}
	}
	seen := 0
	for _, dir := range []string{"norm", "model"} {
		files, err := filepath.Glob(filepath.Join(out, "internal", dir, "data", "*.json"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			seen++
			same(t, filepath.Base(f), decode(t, f), decode(t, filepath.Join("..", dir, "data", filepath.Base(f))))
		}
	}
	if seen != 8 {
		t.Errorf("%d files were made, want 2 shifts and 6 models", seen)
	}
}

func decode(t *testing.T, path string) any {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return v
}

// same compares all that is in got with what stands in want; want may hold more.
func same(t *testing.T, at string, got, want any) {
	t.Helper()
	switch g := got.(type) {
	case map[string]any:
		w, _ := want.(map[string]any)
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
