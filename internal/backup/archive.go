// Package backup writes everything that a deployment keeps into one archive
// and puts it back: the rows of one snapshot of the database, the blobs that
// these rows refer to, and the secret without which identifiers cannot be
// read. The service may run meanwhile.
//
// An archive is a tar file:
//
//	header.json                  what follows, and the versions it was made with
//	secret                       64 hex digits, unless left out
//	tables/<name>/<n>.copy.gz    pieces of COPY text, gzipped as one stream
//	blobs/<SHA-256>              in order
//	manifest.json                last: counts, the digest of all entries before,
//	                             and the blobs that were damaged already
//
// An archive without its manifest was cut short and is not restored.
package backup

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
	"time"

	"neuroscreen/migrations"
)

const format = "neuroscreen.backup/1"

// Header of an archive.
type Header struct {
	Format            string              `json:"format"`
	Created           time.Time           `json:"created"`
	Software          string              `json:"software"`
	Versions          migrations.Versions `json:"versions"`
	SecretFingerprint string              `json:"secret_fingerprint"`
	Tables            []Table             `json:"tables"` // a table comes after those that it refers to
}

// Table of the archive.
type Table struct {
	Name    string   `json:"name"`
	Columns []string `json:"columns"`
}

// Manifest ends an archive.
type Manifest struct {
	Rows    map[string]int64 `json:"rows"` // of each table
	Blobs   int              `json:"blobs"`
	Bytes   int64            `json:"bytes"`   // of all entries before
	Digest  string           `json:"digest"`  // SHA-256 over a line "<sha256> <size> <name>" for each of them
	Damaged []string         `json:"damaged"` // keys of blobs that were missing, or not what their name says
}

const (
	headerName   = "header.json"
	secretName   = "secret"
	tablesPrefix = "tables/"
	blobsPrefix  = "blobs/"
	manifestName = "manifest.json"
)

// digest is taken of the entries in their order, by writer and reader alike.
type digest struct {
	all   hash.Hash
	bytes int64
}

func newDigest() *digest { return &digest{all: sha256.New()} }

func (d *digest) add(name string, size int64, sum []byte) {
	fmt.Fprintf(d.all, "%x %d %s\n", sum, size, name)
	d.bytes += size
}

func (d *digest) sum() string { return hex.EncodeToString(d.all.Sum(nil)) }

// archiveWriter writes entries and keeps their digest.
type archiveWriter struct {
	tar *tar.Writer
	*digest
	created time.Time
}

// entry writes size bytes of r under name and returns their SHA-256.
func (w *archiveWriter) entry(name string, size int64, r io.Reader) (string, error) {
	err := w.tar.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o600, Size: size, ModTime: w.created})
	if err != nil {
		return "", err
	}
	h := sha256.New()
	if _, err := io.CopyN(io.MultiWriter(w.tar, h), r, size); err != nil {
		return "", err
	}
	sum := h.Sum(nil)
	w.add(name, size, sum)
	return hex.EncodeToString(sum), nil
}

func (w *archiveWriter) json(name string, v any) error {
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return err
	}
	_, err = w.entry(name, int64(len(b)), bytes.NewReader(b))
	return err
}

// pieceSize bounds what a table's entry takes in memory: how long a table's
// text will be is not known before it has come.
const pieceSize = 8 << 20

// pieces is an io.Writer that makes entries of pieceSize.
type pieces struct {
	w    *archiveWriter
	name string // of the table
	n    int
	buf  bytes.Buffer
}

func (p *pieces) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 {
		k := min(len(b), pieceSize-p.buf.Len())
		p.buf.Write(b[:k])
		b = b[k:]
		if p.buf.Len() == pieceSize {
			if err := p.flush(); err != nil {
				return 0, err
			}
		}
	}
	return n, nil
}

func (p *pieces) flush() error {
	if p.buf.Len() == 0 {
		return nil
	}
	p.n++
	_, err := p.w.entry(fmt.Sprintf("%s%s/%08d.copy.gz", tablesPrefix, p.name, p.n), int64(p.buf.Len()), &p.buf)
	p.buf.Reset()
	return err
}

// archiveReader reads entries and checks them against the manifest.
type archiveReader struct {
	tar     *tar.Reader
	header  Header
	secret  string
	current *tar.Header
	sum     hash.Hash // of the current entry
	*digest
}

// errDamaged is what every archive that is not as it was written ends with.
var errDamaged = errors.New("the archive is damaged or was cut short; take another")

// openArchive reads header and secret.
func openArchive(r io.Reader) (*archiveReader, error) {
	a := &archiveReader{tar: tar.NewReader(r), digest: newDigest()}
	if err := a.next(); err != nil || a.current.Name != headerName {
		return nil, errors.New("this is no backup of NeuroScreen")
	}
	if err := json.NewDecoder(a).Decode(&a.header); err != nil {
		return nil, errDamaged
	}
	if a.header.Format != format {
		return nil, fmt.Errorf("the archive has the format %q; this program reads %s", a.header.Format, format)
	}
	if err := a.next(); err != nil {
		return nil, err
	}
	if a.current.Name == secretName {
		b, err := io.ReadAll(io.LimitReader(a, 1<<10))
		if err != nil {
			return nil, errDamaged
		}
		a.secret = strings.TrimSpace(string(b))
		return a, a.next()
	}
	return a, nil
}

// next ends the current entry and goes to the one behind it.
func (a *archiveReader) next() error {
	if err := a.end(); err != nil {
		return err
	}
	h, err := a.tar.Next()
	if err != nil {
		return errDamaged // the manifest comes before any end
	}
	a.current, a.sum = h, sha256.New()
	return nil
}

// end reads what is left of the current entry and adds it to the digest.
func (a *archiveReader) end() error {
	if a.current == nil {
		return nil
	}
	if _, err := io.Copy(io.Discard, a); err != nil {
		return errDamaged
	}
	a.add(a.current.Name, a.current.Size, a.sum.Sum(nil))
	a.current = nil
	return nil
}

// Read reads from the current entry.
func (a *archiveReader) Read(p []byte) (int, error) {
	n, err := a.tar.Read(p)
	a.sum.Write(p[:n])
	if err != nil && err != io.EOF {
		err = errDamaged
	}
	return n, err
}

// table reads the pieces of a table, one after the other.
type table struct {
	a    *archiveReader
	name string
}

func (t table) Read(p []byte) (int, error) {
	for {
		if !strings.HasPrefix(t.a.current.Name, tablesPrefix+t.name+"/") {
			return 0, io.EOF
		}
		n, err := t.a.Read(p)
		if n > 0 || err != io.EOF {
			if err == io.EOF {
				err = nil
			}
			return n, err
		}
		if err := t.a.next(); err != nil {
			return 0, err
		}
	}
}

// finish reads the manifest, which the current entry must be, and holds it
// against what was read.
func (a *archiveReader) finish(rows map[string]int64, blobs int, damaged []string) (Manifest, error) {
	var m Manifest
	if a.current.Name != manifestName {
		return m, errDamaged
	}
	digest, size := a.digest.sum(), a.bytes
	if err := json.NewDecoder(a).Decode(&m); err != nil {
		return m, errDamaged
	}
	known := map[string]bool{}
	for _, key := range m.Damaged {
		known[key] = true
	}
	for _, key := range damaged {
		if !known[key] {
			return m, errDamaged
		}
	}
	if m.Digest != digest || m.Bytes != size || m.Blobs != blobs || len(rows) != len(m.Rows) {
		return m, errDamaged
	}
	for name, n := range rows {
		if m.Rows[name] != n {
			return m, fmt.Errorf("%w (%s has %d rows, not %d)", errDamaged, name, n, m.Rows[name])
		}
	}
	return m, nil
}
