package faults

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// dir is a folder that Postgres, which runs as another user when this is
// root, can pass through.
func dir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "neuroscreen-faults-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("logs are in %s", dir)
			return
		}
		os.RemoveAll(dir)
	})
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestNothingIsLost is the short run; make soak is the long one.
func TestNothingIsLost(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	server := filepath.Join(t.TempDir(), "neuroscreen-server")
	if out, err := exec.Command("go", "build", "-o", server, "../../cmd/api").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	report, err := Run(t.Context(), dir(t), Options{Server: server, Uploads: 12, Times: 2, Log: t.Logf, Only: os.Getenv("FAULT")})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range report.Rows {
		if row.Lost+row.Doubled+row.Wrong > 0 || row.Accepted == 0 {
			t.Errorf("%+v", row)
		}
		if row.Injected == 0 && row.Skipped == "" && row.Fault != "undisturbed" && row.Fault != "same-at-once" {
			t.Errorf("%s: ended before anything was broken", row.Fault)
		}
	}
	if report.Orphans != 0 || report.Missing != 0 {
		t.Errorf("%d files that nothing refers to, %d missing", report.Orphans, report.Missing)
	}
	if table := report.Markdown(); !strings.Contains(table, "| server-killed |") && os.Getenv("FAULT") == "" {
		t.Errorf("the table:\n%s", table)
	}
}
