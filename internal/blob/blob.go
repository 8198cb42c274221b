// Package blob keeps scans and derived files as plain files named by
// the SHA-256 of their bytes.
//
// A blob is there whole or not at all: bytes go to a temporary file, which is
// synced, renamed to its key, and its folder synced, before Put returns. Who
// refers to a blob is the database's knowledge; Sweep asks it before it
// removes what nobody claimed.
package blob

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"neuroscreen"
	"neuroscreen/internal/durable"
)

// Info of a stored blob.
type Info struct {
	Key  string // SHA-256 of the bytes, 64 hex digits
	Size int64  // bytes
}

// Files stores blobs under one folder: blobs at ab/cd/<key>, unfinished ones
// in tmp/. Several processes may share the folder.
type Files struct {
	root *os.Root
}

const tmpDir = "tmp"

// OpenFiles opens the folder and makes it, mode 0700, when it is missing.
func OpenFiles(dir string) (*Files, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("blob: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("blob: %w", err)
	}
	if err := root.MkdirAll(tmpDir, 0o700); err != nil {
		root.Close()
		return nil, fmt.Errorf("blob: %w", err)
	}
	return &Files{root: root}, nil
}

// Owner is the deployment that the folder's blobs belong to.
type Owner struct {
	ID string // of the deployment; empty while the folder is nobody's
	// Restoring says that an archive is being put here, or was not to its end.
	Restoring bool
}

// OwnerFile holds the owner's id, and a second word while it is restored.
const (
	OwnerFile = "deployment"
	restoring = "restoring"
)

// Owner reads whose the folder is.
func (f *Files) Owner() (Owner, error) {
	b, err := f.root.ReadFile(OwnerFile)
	if errors.Is(err, fs.ErrNotExist) {
		return Owner{}, nil
	}
	if err != nil {
		return Owner{}, fmt.Errorf("blob: %w", err)
	}
	words := strings.Fields(string(b))
	if len(words) == 0 || len(words) > 2 || len(words) == 2 && words[1] != restoring {
		return Owner{}, fmt.Errorf("blob: %s does not say whose the files beside it are; remove it, and the next start looks for itself", path.Join(f.root.Name(), OwnerFile))
	}
	return Owner{ID: words[0], Restoring: len(words) == 2}, nil
}

// SetOwner writes down whose the folder is.
func (f *Files) SetOwner(o Owner) (err error) {
	text := o.ID
	if o.Restoring {
		text += " " + restoring
	}
	tmp := path.Join(tmpDir, rand.Text())
	file, err := f.root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return storageError("create", err)
	}
	defer func() {
		if err != nil {
			file.Close()
			f.root.Remove(tmp)
		}
	}()
	if _, err := file.WriteString(text + "\n"); err != nil {
		return storageError("write", err)
	}
	if err := file.Sync(); err != nil {
		return storageError("sync", err)
	}
	if err := file.Close(); err != nil {
		return storageError("close", err)
	}
	if err := f.root.Rename(tmp, OwnerFile); err != nil {
		return storageError("rename", err)
	}
	if err := f.syncDir("."); err != nil {
		return storageError("sync folder", err)
	}
	return nil
}

// Empty says whether there is no blob.
func (f *Files) Empty(ctx context.Context) (bool, error) {
	empty := true
	err := fs.WalkDir(f.root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return ignoreMissing(err)
		}
		if key := path.Base(name); validKey(key) && keyPath(key) == name {
			empty = false
			return fs.SkipAll
		}
		return ctx.Err()
	})
	if err != nil {
		return false, fmt.Errorf("blob: look for files: %w", err)
	}
	return empty, nil
}

// Close releases the folder; blobs that are being read stay readable.
func (f *Files) Close() error { return f.root.Close() }

// Put stores what r holds and returns its key and size; storing the same
// bytes twice is no error. accept, if given, sees both before the blob becomes
// visible and may refuse it (a wrong digest, say). Nothing remains after an
// error or when ctx ends. Errors: CodeUnavailable "storage-full" on a full
// disk or quota; r's and accept's own.
func (f *Files) Put(ctx context.Context, r io.Reader, accept func(Info) error) (info Info, err error) {
	tmp := path.Join(tmpDir, rand.Text())
	file, err := f.root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return Info{}, storageError("create", err)
	}
	defer func() {
		if err != nil {
			file.Close()
			f.root.Remove(tmp)
		}
	}()

	sum := sha256.New()
	w := &writer{file: file, sum: sum}
	info.Size, err = io.CopyBuffer(w, reader{ctx, r}, make([]byte, 64<<10))
	if w.err != nil {
		return Info{}, storageError("write", w.err)
	}
	if err != nil {
		return Info{}, err
	}
	info.Key = hex.EncodeToString(sum.Sum(nil))
	if accept != nil {
		if err := accept(info); err != nil {
			return Info{}, err
		}
	}
	if err := file.Sync(); err != nil {
		return Info{}, storageError("sync", err)
	}
	if err := file.Close(); err != nil {
		return Info{}, storageError("close", err)
	}
	return info, f.publish(tmp, info.Key)
}

// Spool keeps what r holds in a file without a name, for bytes that are to be
// read again but never stored: they are gone when the caller closes it, and
// when the process ends. Errors are Put's.
func (f *Files) Spool(ctx context.Context, r io.Reader) (_ io.ReadSeekCloser, err error) {
	tmp := path.Join(tmpDir, rand.Text())
	file, err := f.root.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, storageError("create", err)
	}
	defer func() {
		if err != nil {
			file.Close()
		}
	}()
	if err := f.root.Remove(tmp); err != nil {
		return nil, storageError("remove", err)
	}
	w := &writer{file: file, sum: sha256.New()}
	_, err = io.CopyBuffer(w, reader{ctx, r}, make([]byte, 256<<10))
	if w.err != nil {
		return nil, storageError("write", w.err)
	}
	if err != nil {
		return nil, err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, storageError("seek", err)
	}
	return file, nil
}

// publish moves the finished file to its key. A file already there holds the
// same bytes; replacing it gives it a new age, so that a sweep spares it.
func (f *Files) publish(tmp, key string) error {
	dir := path.Dir(keyPath(key))
	if err := f.root.MkdirAll(dir, 0o700); err != nil {
		return storageError("make folder", err)
	}
	if err := f.root.Rename(tmp, keyPath(key)); err != nil {
		return storageError("rename", err)
	}
	for _, d := range []string{dir, path.Dir(dir), "."} {
		if err := f.syncDir(d); err != nil {
			return storageError("sync folder", err)
		}
	}
	return nil
}

func (f *Files) syncDir(name string) error {
	d, err := f.root.Open(name)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Open returns the blob's bytes; the caller closes it. Errors: CodeNotFound.
func (f *Files) Open(ctx context.Context, key string) (io.ReadSeekCloser, error) {
	if !validKey(key) {
		return nil, notFound(key)
	}
	file, err := f.root.Open(keyPath(key))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, notFound(key)
	}
	if err != nil {
		return nil, fmt.Errorf("blob: open: %w", err)
	}
	return file, nil
}

// Has says whether the blob is there.
func (f *Files) Has(ctx context.Context, key string) (bool, error) {
	if !validKey(key) {
		return false, nil
	}
	_, err := f.root.Stat(keyPath(key))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Remove deletes a blob; a missing one is no error. Call it only through
// whoever knows that nothing refers to the key.
func (f *Files) Remove(ctx context.Context, key string) error {
	if !validKey(key) {
		return nil
	}
	err := f.root.Remove(keyPath(key))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("blob: remove: %w", err)
	}
	return nil
}

// Sweep removes unfinished files last written before the given time, and
// hands the keys of equally old blobs to release in batches; release removes
// those that nothing refers to (store.ReleaseBlobs) and says how many. It
// returns how many files went in all.
func (f *Files) Sweep(ctx context.Context, before time.Time, release func(ctx context.Context, keys []string) (int, error)) (int, error) {
	removed := 0
	var batch []string
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		n, err := release(ctx, batch)
		removed += n
		batch = nil
		return err
	}
	err := fs.WalkDir(f.root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return ignoreMissing(err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil || !info.ModTime().Before(before) {
			return ignoreMissing(err)
		}
		if path.Dir(name) == tmpDir {
			removed++
			return ignoreMissing(f.root.Remove(name))
		}
		if key := path.Base(name); validKey(key) && keyPath(key) == name {
			batch = append(batch, key)
		}
		if len(batch) == 1000 {
			return flush()
		}
		return nil
	})
	if err != nil {
		return removed, fmt.Errorf("blob: sweep: %w", err)
	}
	if err := flush(); err != nil {
		return removed, fmt.Errorf("blob: sweep: %w", err)
	}
	return removed, nil
}

// ignoreMissing: another process may remove files while we walk.
func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func keyPath(key string) string { return path.Join(key[:2], key[2:4], key) }

func validKey(key string) bool {
	if len(key) != 2*sha256.Size {
		return false
	}
	for _, c := range []byte(key) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func notFound(key string) error {
	return neuroscreen.Errorf(neuroscreen.CodeNotFound, "blob-missing", "the stored file is not there")
}

func storageError(step string, err error) error {
	if full := durable.NoRoom(err); full != nil {
		return full
	}
	return fmt.Errorf("blob: %s: %w", step, err)
}

// reader ends a copy when ctx does.
type reader struct {
	ctx context.Context
	r   io.Reader
}

func (r reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

// writer hashes what it writes, and keeps its own error apart from the
// reader's.
type writer struct {
	file io.Writer
	sum  hash.Hash
	err  error
}

func (w *writer) Write(p []byte) (int, error) {
	n, err := w.file.Write(p)
	w.sum.Write(p[:n])
	w.err = err
	return n, err
}
