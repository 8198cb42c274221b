package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCohort(t *testing.T) {
	service := func(answer http.HandlerFunc) (args []string) {
		s := httptest.NewServer(answer)
		t.Cleanup(s.Close)
		key := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(key, []byte("the-key\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return []string{"cohort", "--server", s.URL, "--key-file", key}
	}
	t.Run("written", func(t *testing.T) {
		args := service(func(w http.ResponseWriter, r *http.Request) {
			want := "age_from=60.5&condition=alzheimers&likelihood_ratio_min=2&scan_date_to=2024-01-31&structure=Left-Hippocampus&visit=newest&z_max=-1.5"
			if r.URL.Path != "/v1/cohorts" || r.URL.Query().Encode() != want || r.Header.Get("Accept") != "text/csv" {
				t.Errorf("%s with Accept %q", r.URL, r.Header.Get("Accept"))
			}
			fmt.Fprint(w, "id,age\nx,71\n")
		})
		args = append(args, "--condition", "alzheimers", "--age-from", "60.5", "--date-to", "2024-01-31", "--visit", "newest", "--min-lr", "2", "--structure", "Left-Hippocampus", "--max-z=-1.5")
		if r := run(t, args...); r.code != 0 || r.stdout != "id,age\nx,71\n" {
			t.Errorf("exit %d, %q, %q", r.code, r.stdout, r.stderr)
		}
		out := filepath.Join(t.TempDir(), "cohort.csv")
		if r := run(t, append(args, "--out", out)...); r.code != 0 || r.stdout != "" {
			t.Errorf("exit %d, %q, %q", r.code, r.stdout, r.stderr)
		}
		if b, err := os.ReadFile(out); err != nil || string(b) != "id,age\nx,71\n" {
			t.Errorf("%q, %v", b, err)
		}
	})
	t.Run("refused", func(t *testing.T) {
		args := service(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"type":"/problems/invalid-value","title":"A value is not allowed","status":400,"field":"sex"}`)
		})
		if r := run(t, append(args, "--sex", "X")...); r.code != exitFault || !strings.Contains(r.stderr, "in sex") || r.stdout != "" {
			t.Errorf("exit %d, %q, %q", r.code, r.stdout, r.stderr)
		}
	})
	t.Run("cut off", func(t *testing.T) {
		args := service(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, "id,age\n")
			http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		})
		out := filepath.Join(t.TempDir(), "cohort.csv")
		r := run(t, append(args, "--out", out)...)
		if _, err := os.Stat(out); r.code != exitFault || err == nil {
			t.Errorf("exit %d, %q; half a table was left", r.code, r.stderr)
		}
	})
}
