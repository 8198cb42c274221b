// Package deid turns posted identifiers into pseudonyms and keeps them
// readable only to whoever holds the deployment's secret.
//
// One 32-byte secret, in a file of mode 0600 or an environment variable, is
// the root of all keys; each site and purpose gets its own by HKDF-SHA-256, so
// that the same subject has unrelated pseudonyms at two sites and a row moved
// between sites does not decrypt. Losing the secret loses the way back to
// posted identifiers: back it up apart from the database.
package deid

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/google/uuid"

	"neuroscreen/internal/durable"
)

// SecretSize in bytes.
const SecretSize = 32

// Keys derives everything from one secret. It is safe for concurrent use.
type Keys struct {
	secret [SecretSize]byte
}

// New takes the secret as 64 hex digits, spaces around it allowed.
func New(secretHex string) (*Keys, error) {
	b, err := hex.DecodeString(strings.TrimSpace(secretHex))
	if err != nil || len(b) != SecretSize {
		return nil, fmt.Errorf("deid: the secret must be %d hex digits", 2*SecretSize)
	}
	k := new(Keys)
	copy(k.secret[:], b)
	return k, nil
}

// LoadOrCreate reads the secret from a file and makes the file, mode 0600,
// when it is missing. A file that others may read is refused. Two processes
// that create at once end with the same secret.
func LoadOrCreate(path string) (*Keys, error) {
	k, err := load(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return k, err
	}
	var b [SecretSize]byte
	rand.Read(b[:])
	if err := durable.WriteNew(path, hex.EncodeToString(b[:])+"\n"); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("deid: create secret: %w", err)
	}
	return load(path)
}

func load(path string) (*Keys, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("deid: secret: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("deid: %s may be read by others (mode %v): chmod 600 it", path, info.Mode().Perm())
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("deid: secret: %w", err)
	}
	k, err := New(string(b))
	if err != nil {
		return nil, fmt.Errorf("%w (in %s)", err, path)
	}
	return k, nil
}

// key derives the 32-byte key of a site for a purpose.
func (k *Keys) key(site uuid.UUID, purpose string) []byte {
	b, err := hkdf.Key(sha256.New, k.secret[:], site[:], "neuroscreen/1/"+purpose, 32)
	if err != nil {
		panic(err) // only for absurd lengths
	}
	return b
}

// Fingerprint identifies the secret without revealing it. The database keeps
// it, so that a service with the wrong secret does not start.
func (k *Keys) Fingerprint() string {
	return hex.EncodeToString(k.MAC(uuid.Nil, "fingerprint", nil)[:16])
}

// MAC is HMAC-SHA-256 of value under the site's key for purpose: a hash that
// can be searched for by who has the secret, and guessed by nobody else.
func (k *Keys) MAC(site uuid.UUID, purpose string, value []byte) []byte {
	m := hmac.New(sha256.New, k.key(site, purpose))
	m.Write(value)
	return m.Sum(nil)
}

var encoding = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

// Pseudonym of a subject at a site: "p-" and 26 letters and digits (130 bits
// of a keyed hash, Crockford's alphabet). Spaces around the identifier do not
// count, because DICOM pads values to even length.
func (k *Keys) Pseudonym(site uuid.UUID, subjectID string) string {
	sum := k.MAC(site, "pseudonym", []byte(strings.TrimSpace(subjectID)))
	return "p-" + encoding.EncodeToString(sum)[:26]
}

// ErrOpen means that sealed bytes were changed, moved or sealed under another
// secret.
var ErrOpen = errors.New("deid: sealed data does not open with this secret here")

// Seal encrypts with AES-256-GCM under the site's key: random 12-byte nonce,
// then ciphertext and tag. context is authenticated and must be given again
// to Open; it ties the bytes to their row.
func (k *Keys) Seal(site uuid.UUID, context string, plain []byte) []byte {
	gcm := k.gcm(site)
	nonce := make([]byte, gcm.NonceSize(), gcm.NonceSize()+len(plain)+gcm.Overhead())
	rand.Read(nonce)
	return gcm.Seal(nonce, nonce, plain, additional(site, context))
}

// Open decrypts what Seal made. Errors: ErrOpen.
func (k *Keys) Open(site uuid.UUID, context string, sealed []byte) ([]byte, error) {
	gcm := k.gcm(site)
	if len(sealed) < gcm.NonceSize() {
		return nil, ErrOpen
	}
	n := gcm.NonceSize()
	plain, err := gcm.Open(nil, sealed[:n], sealed[n:], additional(site, context))
	if err != nil {
		return nil, ErrOpen
	}
	return plain, nil
}

func (k *Keys) gcm(site uuid.UUID) cipher.AEAD {
	block, err := aes.NewCipher(k.key(site, "link"))
	if err != nil {
		panic(err) // the key has 32 bytes
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return gcm
}

func additional(site uuid.UUID, context string) []byte {
	return append(site[:], context...)
}
