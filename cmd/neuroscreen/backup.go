package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"neuroscreen/internal/backup"
	"neuroscreen/internal/config"
	"neuroscreen/internal/durable"
	"neuroscreen/internal/service"
)

type backupCmd struct {
	config.Storage
	Out           string `arg:"" help:"Archive to write, or - for standard output. It can identify patients: keep it encrypted."`
	WithoutSecret bool   `help:"Leave out the secret that identifiers are encrypted with; restoring then needs it from elsewhere."`
}

// Run writes the archive under another name, reads it back, and only then
// gives it its own.
func (c *backupCmd) Run(ctx context.Context) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if c.Out == "-" {
		m, err := service.Backup(ctx, c.Storage, os.Stdout, !c.WithoutSecret, log)
		if err != nil {
			return err
		}
		return told(m, "written")
	}
	if _, err := os.Stat(c.Out); err == nil {
		return fmt.Errorf("%s is there already; choose another name", c.Out)
	}
	part := c.Out + ".partial"
	f, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	whole := false
	defer func() {
		f.Close()
		if !whole {
			os.Remove(part)
		}
	}()
	if _, err := service.Backup(ctx, c.Storage, f, !c.WithoutSecret, log); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	m, err := check(ctx, f)
	if err != nil {
		return fmt.Errorf("what was written cannot be read back: %w", err)
	}
	whole = true
	if err := giveName(part, c.Out); err != nil {
		return fmt.Errorf("%w; the archive is whole, and stays at %s", err, part)
	}
	return told(m, "written and read back: "+c.Out)
}

// giveName renames a file where none is, for good. A link fails where a file
// has come meanwhile; file systems of other machines may know no links, nor how
// to write a folder through.
func giveName(part, name string) error {
	unknown := func(err error) bool {
		return errors.Is(err, errors.ErrUnsupported) || errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EINVAL)
	}
	err := os.Link(part, name)
	if unknown(err) {
		if _, err := os.Lstat(name); err == nil {
			return fmt.Errorf("%s is there already", name)
		}
		err = os.Rename(part, name)
	} else if err == nil {
		err = os.Remove(part)
	}
	if err != nil {
		return err
	}
	if err := durable.SyncDir(filepath.Dir(name)); err != nil && !unknown(err) {
		return err
	}
	return nil
}

type restoreCmd struct {
	config.Storage
	From  string `arg:"" help:"Archive, or - for standard input."`
	Check bool   `help:"Only read it to its end and compare everything with what was written."`
}

func (c *restoreCmd) Run(ctx context.Context) error {
	f := os.Stdin
	if c.From != "-" {
		var err error
		if f, err = os.Open(c.From); err != nil {
			return err
		}
		defer f.Close()
	}
	if c.Check {
		m, err := check(ctx, f)
		if err != nil {
			return err
		}
		return told(m, "whole")
	}
	m, err := service.Restore(ctx, c.Storage, f, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "Keys work as before. If nobody has an admin key any more: neuroscreen-server --new-admin-key.")
	return told(m, "restored")
}

func check(ctx context.Context, r io.Reader) (backup.Manifest, error) {
	a, err := backup.Open(r)
	if err != nil {
		return backup.Manifest{}, err
	}
	fmt.Fprintf(os.Stderr, "made %s by NeuroScreen %s\n", a.Header().Created.Format(time.RFC3339), a.Header().Software)
	return a.Check(ctx)
}

// told says what an archive holds; damaged files are an error, though the
// archive is whole.
func told(m backup.Manifest, what string) error {
	fmt.Fprintf(os.Stderr, "%s: %d scans, %d results, %d files, %d MiB\n", what, m.Rows["scans"], m.Rows["results"], m.Blobs, m.Bytes>>20)
	if len(m.Damaged) == 0 {
		return nil
	}
	for _, key := range m.Damaged {
		fmt.Fprintln(os.Stderr, "damaged or missing:", key)
	}
	return errors.New("files were damaged or missing before the backup was made; everything else is in it")
}
