// Package testdata finds data that tests use but the repository may not hold.
package testdata

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// Shared returns the path of a file or folder of the shared data, and skips
// the test when it is not on this machine. The data lie in the folder named by
// NEUROSCREEN_SHARED_DATA, by default ../shared/data beside the repository.
func Shared(t testing.TB, elem ...string) string {
	t.Helper()
	root := os.Getenv("NEUROSCREEN_SHARED_DATA")
	if root == "" {
		_, file, _, _ := runtime.Caller(0)
		root = filepath.Join(filepath.Dir(file), "..", "..", "..", "shared", "data")
	}
	p := filepath.Join(append([]string{root}, elem...)...)
	if _, err := os.Stat(p); err != nil {
		t.Skipf("shared data not on this machine: %v", err)
	}
	return p
}
