// Package durable writes files that are whole or not there, also when the
// machine stops in between.
package durable

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"

	"neuroscreen"
)

// WriteNew writes a file that only its owner may read, and only if it is not
// there: temporary file, fsync, then a hard link, which fails with fs.ErrExist
// when another process was first.
func WriteNew(path, content string) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := f.WriteString(content); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// SyncDir writes through which names a folder holds.
func SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// NoRoom is the answer to a client when err says that the disk is full, or that
// no more may be written to it; nil for any other error.
func NoRoom(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return &neuroscreen.Error{Code: neuroscreen.CodeUnavailable, Type: "storage-full",
			Message: "the server has no room to store this; try again later", Err: err}
	}
	return nil
}
