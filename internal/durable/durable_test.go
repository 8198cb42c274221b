package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"neuroscreen"
)

func TestWriteNew(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "secret")
	if err := WriteNew(path, "first\n"); err != nil {
		t.Fatal(err)
	}
	if err := WriteNew(path, "second\n"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a file that is there: %v", err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "first\n" {
		t.Errorf("%q, %v", b, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if err := WriteNew(filepath.Join(dir, "none", "secret"), ""); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no folder: %v", err)
	}
}

func TestNoRoom(t *testing.T) {
	for _, full := range []error{syscall.ENOSPC, syscall.EDQUOT} {
		err := NoRoom(fmt.Errorf("writing: %w", full))
		if e, ok := errors.AsType[*neuroscreen.Error](err); !ok || e.Type != "storage-full" || !errors.Is(err, full) {
			t.Errorf("%v: %v", full, err)
		}
	}
	for _, other := range []error{nil, syscall.EIO} {
		if err := NoRoom(other); err != nil {
			t.Errorf("%v: %v", other, err)
		}
	}
}
