// Package resumable keeps uploads that come in pieces (tus 1.0.0) until they
// are whole. Each site has a folder of its own, so that no id leads to another
// site's bytes. What lies here is as it was sent, headers' free text included,
// and readable by this service only; it is gone once it became a scan, was
// deleted, or was not written to for a time.
package resumable

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/tus/tusd/v2/pkg/filestore"
	tus "github.com/tus/tusd/v2/pkg/handler"
	"golang.org/x/exp/slog"

	"neuroscreen"
	"neuroscreen/internal/durable"
)

// Version of the protocol.
const Version = "1.0.0"

// maxUnfinished of a site bounds what a client that never finishes may leave.
const maxUnfinished = 100

// Uploads under one folder; several processes may share it.
type Uploads struct {
	cfg Config

	mu    sync.Mutex
	sites map[uuid.UUID]*site
}

// Config of Uploads.
type Config struct {
	Dir     string
	Path    string        // of addresses, such as /v1/uploads/
	MaxSize int64         // bytes of one upload
	Idle    time.Duration // a client that sends nothing for so long is given up
}

type site struct {
	dir     string
	store   filestore.FileStore
	handler *tus.UnroutedHandler
}

// Open makes the folder when it is missing.
func Open(cfg Config) (*Uploads, error) {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("resumable: %w", err)
	}
	return &Uploads{cfg: cfg, sites: map[uuid.UUID]*site{}}, nil
}

func (u *Uploads) site(id uuid.UUID) (*site, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if s := u.sites[id]; s != nil {
		return s, nil
	}
	s := &site{dir: filepath.Join(u.cfg.Dir, id.String())}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, storageError(err)
	}
	s.store = filestore.FileStore{Path: s.dir, DirModePerm: 0o700, FileModePerm: 0o600}
	parts := tus.NewStoreComposer()
	parts.UseCore(s.store)
	parts.UseTerminater(s.store)
	parts.UseLocker(&locker{dir: s.dir, held: map[string]func(){}})
	var err error
	s.handler, err = tus.NewUnroutedHandler(tus.Config{
		StoreComposer: parts, MaxSize: u.cfg.MaxSize, BasePath: u.cfg.Path, NetworkTimeout: u.cfg.Idle,
		GracefulRequestCompletionTimeout: 500 * time.Millisecond, // to write what has come; the disk is near
		DisableConcatenation:             true, DisableDownload: true, Cors: &tus.CorsConfig{Disable: true},
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), // our own log has every request
	})
	if err != nil {
		return nil, fmt.Errorf("resumable: %w", err)
	}
	u.sites[id] = s
	return s, nil
}

// Serve answers one request of the protocol for a site, or returns why not.
func (u *Uploads) Serve(siteID uuid.UUID, w http.ResponseWriter, r *http.Request) error {
	if r.Header.Get("Tus-Resumable") != Version {
		w.Header().Set("Tus-Version", Version)
		return neuroscreen.FieldErrorf(neuroscreen.CodeInvalid, "tus-version", "Tus-Resumable", "send Tus-Resumable: %s", Version)
	}
	s, err := u.site(siteID)
	if err != nil {
		return err
	}
	// tusd wants the address behind its base path.
	inner := *r
	inner.URL = &url.URL{Path: strings.TrimPrefix(r.URL.Path, strings.TrimSuffix(u.cfg.Path, "/"))}
	r = &inner
	h := s.handler
	a := &answer{ResponseWriter: w, path: u.cfg.Path}
	w.Header().Set("Tus-Resumable", Version)
	switch r.Method {
	case http.MethodPost:
		if err := s.roomForOne(); err != nil {
			return err
		}
		// It would be kept beside the bytes, in the clear: whose they are is
		// said at the end.
		r.Header.Del("Upload-Metadata")
		h.PostFile(a, r)
	case http.MethodHead:
		h.HeadFile(a, r)
	case http.MethodPatch:
		h.PatchFile(a, r)
	case http.MethodDelete:
		h.DelFile(a, r)
	}
	return a.problem()
}

func (s *site) roomForOne() error {
	left, err := filepath.Glob(filepath.Join(s.dir, "*.info"))
	if err != nil {
		return err
	}
	if len(left) >= maxUnfinished {
		return neuroscreen.Errorf(neuroscreen.CodeBusy, "too-many-uploads", "%d uploads of this site are unfinished; finish or delete some", len(left))
	}
	return nil
}

// answer lets good answers through and keeps the text of the others.
type answer struct {
	http.ResponseWriter
	path   string
	status int
	text   strings.Builder
}

func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

func (a *answer) WriteHeader(status int) {
	if a.status = status; status >= 400 {
		return
	}
	// Only the path: which host and scheme lead here is a proxy's knowledge.
	if at := a.Header().Get("Location"); at != "" {
		a.Header().Set("Location", a.path+at[strings.LastIndexByte(at, '/')+1:])
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Write(p []byte) (int, error) {
	if a.status >= 400 {
		a.text.Write(p[:min(len(p), 1<<10)])
		return len(p), nil
	}
	return a.ResponseWriter.Write(p)
}

var meanings = map[string]*neuroscreen.Error{
	"ERR_UPLOAD_NOT_FOUND":      errNotFound,
	"ERR_MISMATCHED_OFFSET":     neuroscreen.FieldErrorf(neuroscreen.CodeConflict, "upload-offset", "Upload-Offset", "the upload stands elsewhere; ask with HEAD and go on from there"),
	"ERR_INVALID_OFFSET":        neuroscreen.FieldErrorf(neuroscreen.CodeInvalid, "invalid-value", "Upload-Offset", "a number of bytes is needed"),
	"ERR_INVALID_UPLOAD_LENGTH": neuroscreen.FieldErrorf(neuroscreen.CodeInvalid, "invalid-value", "Upload-Length", "the length in bytes is needed"),
	"ERR_INVALID_CONTENT_TYPE":  neuroscreen.FieldErrorf(neuroscreen.CodeUnsupported, "unsupported-media-type", "Content-Type", "send application/offset+octet-stream"),
	"ERR_MAX_SIZE_EXCEEDED":     neuroscreen.Errorf(neuroscreen.CodeTooLarge, "body-too-large", "the upload is larger than this service accepts"),
	"ERR_UPLOAD_SIZE_EXCEEDED":  neuroscreen.Errorf(neuroscreen.CodeTooLarge, "body-too-large", "more bytes than Upload-Length said"),
	"ERR_LOCK_TIMEOUT":          errBusy,
	"ERR_UPLOAD_INTERRUPTED":    errBusy,
}

var (
	errNotFound = neuroscreen.Errorf(neuroscreen.CodeNotFound, "upload-not-found", "there is no such upload, or it was given up")
	errBusy     = neuroscreen.Errorf(neuroscreen.CodeUnavailable, "upload-busy", "another request is at this upload; try again")
)

// problem is nil when the answer was good.
func (a *answer) problem() error {
	if a.status < 400 {
		return nil
	}
	code, text, _ := strings.Cut(a.text.String(), ": ")
	if e := meanings[code]; e != nil {
		return e
	}
	switch {
	case a.status == http.StatusNotFound: // HEAD has no text
		return errNotFound
	case strings.Contains(text, syscall.ENOSPC.Error()), strings.Contains(text, syscall.EDQUOT.Error()):
		return storageError(syscall.ENOSPC)
	case a.status < 500, code == "ERR_READ_TIMEOUT", code == "ERR_CONNECTION_RESET":
		return neuroscreen.Errorf(neuroscreen.CodeInvalid, "incomplete-body", "the piece ended early; ask with HEAD what has come and go on from there")
	}
	return fmt.Errorf("resumable: %s", a.text.String())
}

func storageError(err error) error {
	if full := durable.NoRoom(err); full != nil {
		return full
	}
	return fmt.Errorf("resumable: %w", err)
}

// Whole holds a whole upload: nobody else writes, finishes or deletes it until
// release. Errors: CodeNotFound "upload-not-found"; CodeConflict
// "upload-incomplete"; CodeUnavailable "upload-busy".
func (u *Uploads) Whole(ctx context.Context, siteID uuid.UUID, id string) (r io.ReadCloser, release func(remove bool) error, err error) {
	s, err := u.site(siteID)
	if err != nil {
		return nil, nil, err
	}
	lock, err := (&locker{dir: s.dir, held: map[string]func(){}}).NewLock(id)
	if err != nil {
		return nil, nil, err
	}
	waiting, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := lock.Lock(waiting, func() {}); err != nil {
		return nil, nil, meaning(err)
	}
	defer func() {
		if err != nil {
			lock.Unlock()
		}
	}()
	upload, err := s.store.GetUpload(ctx, id)
	if err != nil {
		return nil, nil, meaning(err)
	}
	info, err := upload.GetInfo(ctx)
	if err != nil {
		return nil, nil, meaning(err)
	}
	if info.Offset != info.Size {
		return nil, nil, neuroscreen.Errorf(neuroscreen.CodeConflict, "upload-incomplete", "%d of %d bytes have come; send the rest first", info.Offset, info.Size)
	}
	if r, err = upload.GetReader(ctx); err != nil {
		return nil, nil, storageError(err)
	}
	return r, func(remove bool) error {
		err := r.Close()
		if remove {
			err = errors.Join(err, s.store.AsTerminatableUpload(upload).Terminate(context.WithoutCancel(ctx)))
		}
		return errors.Join(err, lock.Unlock())
	}, nil
}

func meaning(err error) error {
	switch {
	case errors.Is(err, tus.ErrNotFound):
		return errNotFound
	case errors.Is(err, tus.ErrLockTimeout):
		return errBusy
	}
	return fmt.Errorf("resumable: %w", err)
}

// Expire gives up uploads that nothing was written to since the time given,
// and returns how many files went.
func (u *Uploads) Expire(before time.Time) (n int, err error) {
	err = filepath.WalkDir(u.cfg.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(path, ".info") && exists(strings.TrimSuffix(path, ".info")) {
			return ignoreMissing(err) // the note goes with its upload
		}
		info, err := d.Info()
		if err != nil || !info.ModTime().Before(before) {
			return ignoreMissing(err)
		}
		n++
		return ignoreMissing(errors.Join(ignoreMissing(os.Remove(path)), ignoreMissing(os.Remove(path+".info"))))
	})
	return n, err
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// locker locks files, each open file for itself: between processes, and
// between the requests of one. tusd's own goes by process number, which is
// the same in every container.
type locker struct {
	dir string

	mu   sync.Mutex
	held map[string]func() // asks the request that holds it to stop
}

func (l *locker) NewLock(id string) (tus.Lock, error) { return &lock{l: l, id: id}, nil }

type lock struct {
	l    *locker
	id   string
	file *os.File
}

func (k *lock) Lock(ctx context.Context, requestUnlock func()) error {
	if !exists(filepath.Join(k.l.dir, k.id)) {
		return tus.ErrNotFound
	}
	f, err := os.OpenFile(filepath.Join(k.l.dir, k.id+".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		// The connection of the one before may be dead without its knowledge.
		k.l.mu.Lock()
		if ask := k.l.held[k.id]; ask != nil {
			ask()
		}
		k.l.mu.Unlock()
		select {
		case <-ctx.Done():
			f.Close()
			return tus.ErrLockTimeout
		case <-tick.C:
		}
	}
	k.file = f
	k.l.mu.Lock()
	k.l.held[k.id] = requestUnlock
	k.l.mu.Unlock()
	return nil
}

func (k *lock) Unlock() error {
	k.l.mu.Lock()
	delete(k.l.held, k.id)
	k.l.mu.Unlock()
	if !exists(filepath.Join(k.l.dir, k.id)) { // nobody locks what is gone
		os.Remove(k.file.Name())
	}
	return k.file.Close()
}
