package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"neuroscreen/internal/client"
	"neuroscreen/internal/pipeline"
	"neuroscreen/internal/validate"
)

// healthyTable has 24 healthy people whose scanner measures large hippocampi.
func healthyTable(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("id,age,sex,EstimatedTotalIntraCranialVol,Left-Hippocampus,Right-Hippocampus,healthy,segmenter\n")
	for i := range 24 {
		fmt.Fprintf(&b, "p%d,%d,%s,1500000,%d,%d,1,fs6\n", i, 60+i, []string{"F", "M"}[i%2], 3800+180*(i%7), 3800+280*(i%5))
	}
	path := filepath.Join(dir, "cases.csv")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestValidate(t *testing.T) {
	dir := t.TempDir()
	report, proposal := filepath.Join(dir, "report.json"), filepath.Join(dir, "proposal.json")
	r := run(t, "validate", "--manifest", healthyTable(t, dir), "--out", report, "--propose", proposal, "--name", "clinic")
	if r.code != 0 || !strings.Contains(r.stdout, "A shift of 2 structures is proposed, from 24 healthy people") || !strings.Contains(r.stdout, "neuroscreen site accept "+proposal) {
		t.Fatalf("exit %d: %s%s", r.code, r.stdout, r.stderr)
	}
	var doc validate.Report
	b, err := os.ReadFile(report)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &doc); err != nil || doc.Schema != validate.ReportSchema || doc.Controls.People != 24 {
		t.Errorf("%v: %.300s", err, b)
	}

	// The service takes it; what it then says of its settings, the tools read.
	var taken client.NewCalibration
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		var answer any
		switch r.Method + " " + r.URL.Path {
		case "GET /v1/sites":
			answer = client.SiteList{Sites: []client.Site{{Name: "clinic", SettingsVersion: 4}}}
		case "PUT /v1/sites/clinic/calibration":
			if err := json.NewDecoder(r.Body).Decode(&taken); err != nil {
				t.Error(err)
			}
			answer = client.SiteSettings{Site: "clinic", Version: 5}
		case "GET /v1/sites/clinic/settings":
			answer = client.SiteSettings{Site: "clinic", Version: 5, SiteShift: taken.SiteShift}
		default:
			t.Errorf("%s %s", r.Method, r.URL)
		}
		json.NewEncoder(w).Encode(answer)
	}))
	defer service.Close()
	r = run(t, "site", "accept", proposal, "--server", service.URL, "--key", "k")
	if r.code != 0 || !strings.Contains(r.stdout, "site clinic is at version 5") {
		t.Fatalf("exit %d: %s%s", r.code, r.stdout, r.stderr)
	}
	if taken.Replaces != 4 || taken.SiteShift == nil || taken.SiteShift.Name != "clinic" || !strings.Contains(taken.Note, "24 people") {
		t.Errorf("%+v", taken)
	}
	r = run(t, "site", "settings", "--server", service.URL, "--key", "k")
	s, err := pipeline.ParseSettings([]byte(r.stdout))
	if r.code != 0 || err != nil || s.SiteShift == nil || s.SiteShift.Asset() != taken.SiteShift.Asset() {
		t.Fatalf("exit %d, %v: %s%s", r.code, err, r.stdout, r.stderr)
	}
	// Under the shift the same people lie at the norm, and nothing else is proposed of them.
	settings := filepath.Join(dir, "settings.json")
	if err := os.WriteFile(settings, []byte(r.stdout), 0o600); err != nil {
		t.Fatal(err)
	}
	if r = run(t, "validate", "--manifest", filepath.Join(dir, "cases.csv"), "--settings", settings, "--out", report); r.code != 0 {
		t.Fatalf("exit %d: %s", r.code, r.stderr)
	}
	var before, after = doc, validate.Report{}
	if b, err = os.ReadFile(report); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &after); err != nil {
		t.Fatal(err)
	}
	if x, y := before.Controls.Structures[0].Before[0], after.Controls.Structures[0].Before[0]; x < 0.8 || y > x/2 {
		t.Errorf("mean z %.2f, under the shift %.2f", x, y)
	}
}

func TestValidateScans(t *testing.T) {
	dir := t.TempDir()
	manifest := filepath.Join(dir, "cases.csv")
	here, err := filepath.Abs(head)
	if err != nil {
		t.Fatal(err)
	}
	noScan := filepath.Join(dir, "note.nii")
	for path, text := range map[string]string{manifest: "id,age,sex,scan,mesial_temporal_sclerosis\na,45,M," + here + ",0\nb,50,F,note.nii,0\n", noScan: "a note, no scan"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := run(t, "validate", "--manifest", manifest)
	if r.code != 0 || !strings.Contains(r.stdout, "1 people measured by neuroscreen; 1 could not be used") || !strings.Contains(r.stdout, "b: the scan is refused") || !strings.Contains(r.stdout, "Nothing is proposed") {
		t.Errorf("exit %d: %s%s", r.code, r.stdout, r.stderr)
	}
	if err := os.WriteFile(manifest, []byte("id,age,sex,scan,alzheimers\na,45,M,nowhere.nii,0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := run(t, "validate", "--manifest", manifest); r.code != 1 || !strings.Contains(r.stderr, "row a") || !strings.Contains(r.stderr, "nowhere.nii") {
		t.Errorf("exit %d: %s", r.code, r.stderr)
	}
}
