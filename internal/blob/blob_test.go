package blob

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"go.uber.org/goleak"

	"neuroscreen"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T) (*Files, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "blobs")
	f, err := OpenFiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f, dir
}

// files lists all files under dir.
func files(t *testing.T, dir string) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			names = append(names, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestSpool: readable twice, in no folder at any time after it is made.
func TestSpool(t *testing.T) {
	f, dir := open(t)
	s, err := f.Spool(t.Context(), strings.NewReader("bytes"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for range 2 {
		if b, err := io.ReadAll(s); err != nil || string(b) != "bytes" {
			t.Errorf("%q %v", b, err)
		}
		if _, err := s.Seek(0, io.SeekStart); err != nil {
			t.Fatal(err)
		}
	}
	broken := errors.New("broken")
	if _, err := f.Spool(t.Context(), iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
	if left := files(t, dir); len(left) != 0 {
		t.Errorf("files: %v", left)
	}
}

func put(t *testing.T, f *Files, content string) Info {
	t.Helper()
	info, err := f.Put(t.Context(), strings.NewReader(content), nil)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func TestPut(t *testing.T) {
	f, dir := open(t)
	content := bytes.Repeat([]byte("scan"), 300_000) // more than one buffer
	info, err := f.Put(t.Context(), iotest.HalfReader(bytes.NewReader(content)), nil)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(content)
	if want := (Info{Key: hex.EncodeToString(sum[:]), Size: int64(len(content))}); info != want {
		t.Errorf("got %+v, want %+v", info, want)
	}
	r, err := f.Open(t.Context(), info.Key)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d bytes back, %v", len(got), err)
	}
	if err := second(f.Put(t.Context(), bytes.NewReader(content), nil)); err != nil {
		t.Errorf("the same again: %v", err)
	}
	if got := files(t, dir); len(got) != 1 {
		t.Errorf("files %v", got)
	}
	if stat, err := os.Stat(files(t, dir)[0]); err != nil || stat.Mode().Perm() != 0o600 {
		t.Error(stat.Mode(), err)
	}
}

func second[T any](_ T, err error) error { return err }

func TestPutLeavesNothingAfterAnError(t *testing.T) {
	cause := errors.New("cause")
	cancelled, cancel := context.WithCancel(t.Context())
	for name, c := range map[string]struct {
		ctx    context.Context
		r      io.Reader
		accept func(Info) error
		want   error
	}{
		"reader fails":   {t.Context(), io.MultiReader(strings.NewReader("part"), iotest.ErrReader(cause)), nil, cause},
		"client is cut":  {t.Context(), io.MultiReader(strings.NewReader("part"), iotest.ErrReader(io.ErrUnexpectedEOF)), nil, io.ErrUnexpectedEOF},
		"not accepted":   {t.Context(), strings.NewReader("wrong digest"), func(Info) error { return cause }, cause},
		"context's ends": {cancelled, io.MultiReader(strings.NewReader("part"), readerFunc(func() { cancel() }), strings.NewReader("rest")), nil, context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			f, dir := open(t)
			if _, err := f.Put(c.ctx, c.r, c.accept); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if got := files(t, dir); len(got) != 0 {
				t.Errorf("left %v", got)
			}
		})
	}
}

type readerFunc func()

func (f readerFunc) Read([]byte) (int, error) { f(); return 0, io.EOF }

func TestNotVisibleBeforeItIsWhole(t *testing.T) {
	f, _ := open(t)
	content := "whole"
	sum := sha256.Sum256([]byte(content))
	key := hex.EncodeToString(sum[:])
	_, err := f.Put(t.Context(), strings.NewReader(content), func(info Info) error {
		if info.Key != key || info.Size != 5 {
			t.Errorf("%+v", info)
		}
		if there, err := f.Has(t.Context(), key); there || err != nil {
			t.Errorf("visible: %v %v", there, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if there, err := f.Has(t.Context(), key); !there || err != nil {
		t.Errorf("not visible: %v %v", there, err)
	}
}

func TestConcurrentPutsOfTheSame(t *testing.T) {
	f, dir := open(t)
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			if _, err := f.Put(context.Background(), strings.NewReader("same"), nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := files(t, dir); len(got) != 1 {
		t.Errorf("files %v", got)
	}
}

func TestStrangeKeys(t *testing.T) {
	f, dir := open(t)
	outside := filepath.Join(filepath.Dir(dir), "secret")
	if err := os.WriteFile(outside, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"", "a", "../../secret", strings.Repeat("../", 21) + "a", strings.Repeat("A", 64), strings.Repeat("0", 64)} {
		_, err := f.Open(t.Context(), key)
		if e := neuroscreen.AsError(err); e == nil || e.Code != neuroscreen.CodeNotFound {
			t.Errorf("open %q: %v", key, err)
		}
		if there, err := f.Has(t.Context(), key); there || err != nil {
			t.Errorf("has %q: %v %v", key, there, err)
		}
		if err := f.Remove(t.Context(), key); err != nil {
			t.Errorf("remove %q: %v", key, err)
		}
	}
	if _, err := os.Stat(outside); err != nil {
		t.Error(err)
	}
}

func TestFullDiskIsNamed(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT} {
		err := storageError("write", &fs.PathError{Op: "write", Path: "tmp/x", Err: errno})
		e := neuroscreen.AsError(err)
		if e.Code != neuroscreen.CodeUnavailable || e.Type != "storage-full" || strings.Contains(e.Message, "tmp/x") {
			t.Errorf("%v: %+v", errno, e)
		}
	}
	if e := neuroscreen.AsError(storageError("write", syscall.EIO)); e.Code != neuroscreen.CodeInternal {
		t.Errorf("%+v", e)
	}
}

// TestFullDisk fills a small file system of its own.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=128k"); err != nil {
		t.Skip("may not mount a small file system here: ", err)
	}
	defer syscall.Unmount(dir, 0)
	f, err := OpenFiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	small := put(t, f, "small")
	_, err = f.Put(t.Context(), bytes.NewReader(make([]byte, 1<<20)), nil)
	if e := neuroscreen.AsError(err); e == nil || e.Type != "storage-full" {
		t.Errorf("got %v", err)
	}
	if got := files(t, dir); len(got) != 1 || filepath.Base(got[0]) != small.Key {
		t.Errorf("left %v", got)
	}
	put(t, f, "room again")
}

func TestOwner(t *testing.T) {
	f, dir := open(t)
	if o, err := f.Owner(); o != (Owner{}) || err != nil {
		t.Errorf("of a new folder: %+v %v", o, err)
	}
	for _, want := range []Owner{{ID: "a", Restoring: true}, {ID: "a"}} {
		if err := f.SetOwner(want); err != nil {
			t.Fatal(err)
		}
		if o, err := f.Owner(); o != want || err != nil {
			t.Errorf("%+v %v, want %+v", o, err, want)
		}
	}
	if empty, err := f.Empty(t.Context()); !empty || err != nil {
		t.Errorf("empty %v, %v", empty, err)
	}
	if _, err := f.Sweep(t.Context(), time.Now().Add(time.Hour), func(context.Context, []string) (int, error) { return 0, nil }); err != nil {
		t.Fatal(err)
	}
	if got := files(t, dir); len(got) != 1 {
		t.Errorf("files %v", got)
	}
	put(t, f, "x")
	if empty, err := f.Empty(t.Context()); empty || err != nil {
		t.Errorf("empty %v, %v", empty, err)
	}
	for _, text := range []string{"", "a b", "a restoring c"} {
		if err := os.WriteFile(filepath.Join(dir, OwnerFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if o, err := f.Owner(); err == nil || !strings.Contains(err.Error(), "remove it") {
			t.Errorf("%q: %+v %v", text, o, err)
		}
	}
}

func TestSweep(t *testing.T) {
	f, dir := open(t)
	now := time.Now()
	age := func(path string) {
		t.Helper()
		if err := os.Chtimes(path, now.Add(-2*time.Hour), now.Add(-2*time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	used, orphan, young, again := put(t, f, "used"), put(t, f, "orphan"), put(t, f, "young"), put(t, f, "again")
	for _, i := range []Info{used, orphan, again} {
		age(filepath.Join(dir, filepath.FromSlash(keyPath(i.Key))))
	}
	put(t, f, "again") // stored once more: young again
	left := filepath.Join(dir, tmpDir, "LEFT")
	running := filepath.Join(dir, tmpDir, "RUNNING")
	for _, path := range []string{left, running} {
		if err := os.WriteFile(path, []byte("part"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	age(left)

	var asked []string
	n, err := f.Sweep(t.Context(), now.Add(-time.Hour), func(ctx context.Context, keys []string) (int, error) {
		asked = append(asked, keys...)
		removed := 0
		for _, key := range keys {
			if key != used.Key { // what the database knows
				removed++
				if err := f.Remove(ctx, key); err != nil {
					return removed, err
				}
			}
		}
		return removed, nil
	})
	if err != nil || n != 2 || len(asked) != 2 {
		t.Errorf("%d removed, asked for %v, %v", n, asked, err)
	}
	for name, c := range map[string]struct {
		key  string
		want bool
	}{"used": {used.Key, true}, "orphan": {orphan.Key, false}, "young orphan": {young.Key, true}, "stored again": {again.Key, true}} {
		if there, err := f.Has(t.Context(), c.key); there != c.want || err != nil {
			t.Errorf("%s: there %v, %v", name, there, err)
		}
	}
	for path, want := range map[string]bool{left: false, running: true} {
		if _, err := os.Stat(path); (err == nil) != want {
			t.Errorf("%s: %v", path, err)
		}
	}
	t.Run("an error ends it", func(t *testing.T) {
		cause := errors.New("database away")
		if _, err := f.Sweep(t.Context(), now.Add(time.Hour), func(context.Context, []string) (int, error) { return 0, cause }); !errors.Is(err, cause) {
			t.Errorf("got %v", err)
		}
	})
}
