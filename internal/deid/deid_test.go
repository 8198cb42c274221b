package deid

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
)

var (
	siteA = uuid.MustParse("019470a0-0000-7000-8000-00000000000a")
	siteB = uuid.MustParse("019470a0-0000-7000-8000-00000000000b")
)

func keys(t *testing.T, digit string) *Keys {
	t.Helper()
	k, err := New(strings.Repeat(digit, 64))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestPseudonym(t *testing.T) {
	k := keys(t, "1")
	want := k.Pseudonym(siteA, "MRN-1")
	if !regexp.MustCompile(`^p-[0-9a-hjkmnp-tv-z]{26}$`).MatchString(want) {
		t.Errorf("%q has another shape", want)
	}
	// Pinned: pseudonyms stored by an older version must stay the same.
	if stored := "p-" + pinned; want != stored {
		t.Errorf("got %s, stored ones are %s", want, stored)
	}
	for name, c := range map[string]struct {
		got  string
		same bool
	}{
		"the same again":      {k.Pseudonym(siteA, "MRN-1"), true},
		"padded as in DICOM":  {k.Pseudonym(siteA, " MRN-1 "), true},
		"another subject":     {k.Pseudonym(siteA, "MRN-2"), false},
		"other case":          {k.Pseudonym(siteA, "mrn-1"), false},
		"another site":        {k.Pseudonym(siteB, "MRN-1"), false},
		"another secret":      {keys(t, "2").Pseudonym(siteA, "MRN-1"), false},
		"not the other hash":  {"p-" + encoding.EncodeToString(k.MAC(siteA, "accession", []byte("MRN-1")))[:26], false},
		"inner space matters": {k.Pseudonym(siteA, "MRN -1"), false},
	} {
		if (c.got == want) != c.same {
			t.Errorf("%s: %s and %s", name, c.got, want)
		}
	}
}

const pinned = "egp3gypdf3zp3580aen2x9v7ga"

func TestSealOpen(t *testing.T) {
	k := keys(t, "1")
	plain := []byte(`{"subject_id":"MRN-1"}`)
	sealed := k.Seal(siteA, "scan-1", plain)
	if got, err := k.Open(siteA, "scan-1", sealed); err != nil || !bytes.Equal(got, plain) {
		t.Fatal(got, err)
	}
	if bytes.Equal(sealed, k.Seal(siteA, "scan-1", plain)) {
		t.Error("two seals are equal: the nonce repeats")
	}
	if bytes.Contains(sealed, []byte("MRN")) {
		t.Error("not encrypted")
	}
	changed := bytes.Clone(sealed)
	changed[20] ^= 1
	for name, open := range map[string]func() ([]byte, error){
		"another site":   func() ([]byte, error) { return k.Open(siteB, "scan-1", sealed) },
		"another row":    func() ([]byte, error) { return k.Open(siteA, "scan-2", sealed) },
		"another secret": func() ([]byte, error) { return keys(t, "2").Open(siteA, "scan-1", sealed) },
		"a changed byte": func() ([]byte, error) { return k.Open(siteA, "scan-1", changed) },
		"cut":            func() ([]byte, error) { return k.Open(siteA, "scan-1", sealed[:11]) },
		"empty":          func() ([]byte, error) { return k.Open(siteA, "scan-1", nil) },
	} {
		if got, err := open(); !errors.Is(err, ErrOpen) || got != nil {
			t.Errorf("%s: %q %v", name, got, err)
		}
	}
}

func TestNewRefusesWhatIsNoSecret(t *testing.T) {
	for name, s := range map[string]string{
		"empty": "", "short": strings.Repeat("a", 62), "long": strings.Repeat("a", 66), "not hex": strings.Repeat("x", 64),
	} {
		if _, err := New(s); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

func TestLoadOrCreate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "identity.key")

	t.Run("several at once end with one secret", func(t *testing.T) {
		prints := make([]string, 8)
		var wg sync.WaitGroup
		for i := range prints {
			wg.Go(func() {
				k, err := LoadOrCreate(path)
				if err != nil {
					t.Error(err)
					return
				}
				prints[i] = k.Fingerprint()
			})
		}
		wg.Wait()
		for _, p := range prints {
			if p != prints[0] || p == "" {
				t.Errorf("fingerprints %v", prints)
			}
		}
	})
	t.Run("the file is the owner's only", func(t *testing.T) {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Error(info.Mode(), err)
		}
		entries, err := os.ReadDir(filepath.Dir(path))
		if err != nil || len(entries) != 1 {
			t.Errorf("%v %v", entries, err)
		}
	})
	t.Run("readable by others, it is refused", func(t *testing.T) {
		if err := os.Chmod(path, 0o640); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadOrCreate(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a damaged file is not replaced", func(t *testing.T) {
		if err := os.WriteFile(path, []byte("abc"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadOrCreate(path); err == nil {
			t.Error("taken")
		}
		if b, _ := os.ReadFile(path); string(b) != "abc" {
			t.Error("replaced: the way back to every identifier would be lost")
		}
	})
}
