package nifti

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
)

// Reader reads an image volume by volume, without holding more than one.
type Reader struct {
	hdr       *Header
	src       *source
	kind      kind
	next      int
	nonFinite int
	buf       []byte
	err       error
	files     []io.Closer

	head        []byte // the header as it was read
	headGzipped bool
}

// NewReader reads the header of a single-file image. A Reader that is not read
// to the end may be dropped.
//
// All errors about the file are *Error; others are r's own.
func NewReader(r io.Reader, lim Limits) (*Reader, error) {
	src, h, head, err := open(r, lim.orDefault())
	if err != nil {
		return nil, err
	}
	if h.Pair {
		// ANALYZE has no magic, so any other magic passes for it; but its
		// header stands alone, and bytes after it belong to a single file.
		if _, err := src.Peek(1); h.Format == Analyze && err == nil {
			return nil, errorf(TypeBadHeader, "magic", "the magic is neither \"n+1\" nor \"ni1\", but data follow the header: the file was damaged, or written by a tool that does not follow the standard. If it is the header of an ANALYZE pair, send its .img too")
		}
		return nil, errorf(TypeNoData, "magic", "this is the %s header of an .hdr/.img pair; the .img file with the data is missing", h.Format)
	}
	rd, err := newReader(h, src, int64(h.headerSize()))
	if err != nil {
		return nil, err
	}
	rd.head, rd.headGzipped = head, src.gz != nil
	return rd, nil
}

// NewPairReader reads an image whose header and data are two files.
func NewPairReader(hdr, img io.Reader, lim Limits) (*Reader, error) {
	lim = lim.orDefault()
	hdrSrc, h, head, err := open(hdr, lim)
	if err != nil {
		return nil, err
	}
	h.Pair = true
	src, err := newSource(img, lim)
	if err != nil {
		return nil, err
	}
	if _, err := src.Peek(1); errors.Is(err, io.EOF) {
		return nil, errorf(TypeEmpty, "", "the .img file of the pair is empty (0 bytes)")
	}
	rd, err := newReader(h, src, 0)
	if err != nil {
		return nil, err
	}
	rd.head, rd.headGzipped = head, hdrSrc.gz != nil
	return rd, nil
}

// NewReaderOf reads a single file where hdr is nil, else a pair.
func NewReaderOf(img, hdr io.Reader, lim Limits) (*Reader, error) {
	if hdr == nil {
		return NewReader(img, lim)
	}
	return NewPairReader(hdr, img, lim)
}

func (h *Header) headerSize() int {
	if h.Format == NIfTI2 {
		return header2Size
	}
	return header1Size
}

// open reads the header, which it also returns as it stands in the file, but
// not the bytes after it.
func open(r io.Reader, lim Limits) (*source, *Header, []byte, error) {
	src, err := newSource(r, lim)
	if err != nil {
		return nil, nil, nil, err
	}
	b, err := src.Peek(sniffLen)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, nil, src.fail(err)
	}
	h, bad := parseHeader(b)
	if bad != nil {
		return nil, nil, nil, bad
	}
	head := bytes.Clone(b[:h.headerSize()])
	if _, err := src.Discard(len(head)); err != nil {
		return nil, nil, nil, src.fail(err)
	}
	return src, h, head, nil
}

// newReader takes src at byte at of the file that holds the data, and moves to
// the first voxel.
func newReader(h *Header, src *source, at int64) (*Reader, error) {
	rd := &Reader{hdr: h, src: src, kind: kinds[h.Datatype]}
	vol := int64(h.VolumeLen())
	data := h.dataLen()
	if vol > src.lim.MaxVoxels {
		return nil, errorf(TypeTooLarge, "dim", "a volume of %d voxels is over the limit of %d", vol, src.lim.MaxVoxels)
	}
	if h.offset > src.lim.MaxBytes-data {
		return nil, errorf(TypeTooLarge, "dim", "the header announces %d bytes of data from byte %d; the limit is %d bytes", data, h.offset, src.lim.MaxBytes)
	}
	if err := src.skip(h.offset - at); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, errorf(TypeNoData, "vox_offset", "the file ends before byte %d, where its data should begin", h.offset)
		}
		return nil, src.fail(err)
	}
	return rd, nil
}

// DecodeHeader reads a header without its data: of a single file or of the .hdr
// of a pair. Its errors are NewReader's, but for those of the data.
func DecodeHeader(r io.Reader) (*Header, error) {
	_, h, _, err := open(r, DefaultLimits)
	return h, err
}

// Header returns the image's header.
func (rd *Reader) Header() *Header { return rd.hdr }

// NonFinite counts the NaN and infinite voxels in what was read so far.
func (rd *Reader) NonFinite() int { return rd.nonFinite }

// Next reads the next volume into dst, which must hold Header().VolumeLen()
// values. It returns io.EOF after the last volume. With the last volume it
// also reads what is left of a gzip stream and verifies its checksum, so a
// volume that came with an error must not be used.
func (rd *Reader) Next(dst []float32) error {
	if len(dst) != rd.hdr.VolumeLen() {
		panic(fmt.Sprintf("nifti: Next with room for %d voxels, volume has %d", len(dst), rd.hdr.VolumeLen()))
	}
	if rd.err != nil {
		return rd.err
	}
	if rd.next == rd.hdr.Volumes() {
		rd.err = io.EOF
		return rd.err
	}
	if rd.err = rd.read(dst, int64(rd.next)*int64(len(dst))); rd.err != nil {
		return rd.err
	}
	rd.next++
	if rd.next == rd.hdr.Volumes() {
		rd.err = rd.src.finish()
	}
	return rd.err
}

// pieceLen is a multiple of every voxel size, and small enough to stay in cache
// between reading and converting.
const pieceLen = 1 << 16

// read fills dst with the voxels from number first on.
func (rd *Reader) read(dst []float32, first int64) error {
	size := rd.kind.size
	if rd.buf == nil {
		rd.buf = make([]byte, pieceLen) // Go aligns it to 8 bytes or more
	}
	for done := 0; done < len(dst); {
		part := dst[done:min(len(dst), done+len(rd.buf)/size)]
		b := rd.buf[:len(part)*size]
		if err := rd.fill(b, (first+int64(done))*int64(size)); err != nil {
			return err
		}
		if rd.hdr.BigEndian != hostBigEndian {
			swapBytes(b, size)
		}
		rd.kind.convert(part, b, rd.hdr.Slope, rd.hdr.Inter)
		if rd.kind.float || rd.hdr.Slope != 1 || rd.hdr.Inter != 0 {
			rd.nonFinite += countNonFinite(part)
		}
		done += len(part)
	}
	return nil
}

// piece that do has done with.
type piece struct {
	b   []byte
	err error
}

// pieces calls do with one piece of the data after the other, while the next is
// inflated.
func (rd *Reader) pieces(do func([]byte) error) error {
	full, done := make(chan []byte, 2), make(chan piece, 2)
	for range cap(done) {
		done <- piece{b: make([]byte, pieceLen)}
	}
	go func() {
		defer close(done)
		var err error
		for b := range full {
			if err == nil {
				err = do(b)
			}
			done <- piece{b, err}
		}
	}()
	var err error
	end := rd.hdr.dataLen()
	for at := int64(0); at < end && err == nil; {
		p := <-done
		if err = p.err; err != nil {
			break
		}
		b := p.b[:cap(p.b)]
		b = b[:min(int64(len(b)), end-at)]
		if err = rd.fill(b, at); err == nil {
			full <- b
			at += int64(len(b))
		}
	}
	close(full)
	for p := range done {
		if p.err != nil {
			err = p.err
		}
	}
	return err
}

// fill reads b whole: the data from byte at on.
func (rd *Reader) fill(b []byte, at int64) error {
	n, err := io.ReadFull(rd.src, b)
	if err == nil {
		return nil
	}
	if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return rd.src.fail(err)
	}
	got, want := at+int64(n), rd.hdr.dataLen()
	if got == 0 {
		return errorf(TypeNoData, "dim", "the file ends after its header; all %d bytes of data are missing", want)
	}
	return errorf(TypeTruncated, "dim", "the file holds %d of the %d bytes of data that its header announces; the transfer was probably cut short, send it again", got, want)
}

// Close closes the files that Open opened.
func (rd *Reader) Close() error {
	var errs []error
	for _, f := range rd.files {
		errs = append(errs, f.Close())
	}
	rd.files = nil
	return errors.Join(errs...)
}

// untilProven is how many voxels are allocated on the header's word alone;
// the rest follows when the file has delivered these.
const untilProven = 4 << 20

// Image reads everything that follows the header at once. It must not be called
// after Next.
func (rd *Reader) Image() (*Image, error) {
	h := rd.hdr
	total := int64(h.VolumeLen()) * int64(h.Volumes())
	if total > rd.src.lim.MaxVoxels {
		return nil, errorf(TypeTooLarge, "dim", "an image of %d voxels is over the limit of %d", total, rd.src.lim.MaxVoxels)
	}
	data := make([]float32, min(total, untilProven))
	if err := rd.read(data, 0); err != nil {
		return nil, err
	}
	if total > untilProven {
		all := make([]float32, total)
		copy(all, data)
		if err := rd.read(all[untilProven:], untilProven); err != nil {
			return nil, err
		}
		data = all
	}
	if err := rd.src.finish(); err != nil {
		return nil, err
	}
	return &Image{Header: *h, Data: data, NonFinite: rd.nonFinite}, nil
}

// Decode reads a single-file image whole.
func Decode(r io.Reader, lim Limits) (*Image, error) {
	rd, err := NewReader(r, lim)
	if err != nil {
		return nil, err
	}
	return rd.Image()
}

// DecodePair reads an image whose header and data are two files.
func DecodePair(hdr, img io.Reader, lim Limits) (*Image, error) {
	rd, err := NewPairReader(hdr, img, lim)
	if err != nil {
		return nil, err
	}
	return rd.Image()
}

// source is the file's bytes, decompressed, counted and buffered.
type source struct {
	*bufio.Reader
	lim  Limits
	read int64
	raw  *bufio.Reader // compressed bytes; nil for a plain file
	gz   *gzip.Reader
}

const gzipMagic = "\x1f\x8b"

var errTooManyBytes = errors.New("nifti: over the limit of bytes")

// newSource decompresses r if it begins with gzip's magic, whatever its name.
func newSource(r io.Reader, lim Limits) (*source, error) {
	s := &source{lim: lim}
	s.raw = bufio.NewReaderSize(r, 1<<16)
	s.Reader = s.raw
	if magic, _ := s.raw.Peek(2); string(magic) != gzipMagic {
		return s, nil
	}
	gz, err := gzip.NewReader(s.raw)
	if err != nil {
		return nil, s.fail(err)
	}
	gz.Multistream(false)
	s.gz = gz
	s.Reader = bufio.NewReaderSize(countReader{s}, 4096)
	return s, nil
}

// countReader reads a source's decompressed bytes up to its limits' sum. That
// the image alone keeps within MaxBytes is checked by its header.
type countReader struct{ s *source }

func (c countReader) Read(p []byte) (int, error) {
	s := c.s
	n, err := s.gz.Read(p)
	if s.read += int64(n); s.read > s.lim.MaxBytes+s.lim.MaxTrailing {
		return n, errTooManyBytes
	}
	if !errors.Is(err, io.EOF) {
		return n, err
	}
	// A member ended and its checksum was right. Another may follow; bytes
	// that aren't gzip are dropped, as gzip itself does.
	if magic, _ := s.raw.Peek(2); string(magic) != gzipMagic {
		return n, io.EOF
	}
	if err := s.gz.Reset(s.raw); err != nil {
		return n, err
	}
	s.gz.Multistream(false)
	return n, nil
}

// skip discards n bytes; io.EOF says that there are fewer.
func (s *source) skip(n int64) error {
	_, err := io.CopyN(io.Discard, s.Reader, n)
	return err
}

// finish reads a gzip stream to its end, where the checksum is. Whatever
// follows the image is dropped.
func (s *source) finish() error {
	if s.gz == nil {
		return nil
	}
	switch err := s.skip(s.lim.MaxTrailing + 1); {
	case err == nil || errors.Is(err, errTooManyBytes):
		return errorf(TypeTooLarge, "", "more than %d bytes follow the image; the file is not what its header says", s.lim.MaxTrailing)
	case errors.Is(err, io.EOF):
		return nil
	default:
		return s.fail(err)
	}
}

// fail turns what went wrong while reading into an *Error if the file is to
// blame, and returns other errors as they are.
func (s *source) fail(err error) error {
	_, corrupt := errors.AsType[flate.CorruptInputError](err)
	switch {
	case errors.Is(err, errTooManyBytes):
		return &Error{Type: TypeTooLarge, Msg: fmt.Sprintf("the file expands to more than %d bytes", s.lim.MaxBytes+s.lim.MaxTrailing), Err: err}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return &Error{Type: TypeTruncated, Msg: "the file ends early; the transfer was probably cut short, send it again", Err: err}
	case errors.Is(err, gzip.ErrChecksum):
		return &Error{Type: TypeBadGzip, Msg: "the checksum of the gzip stream is wrong: the file was damaged on its way, send it again", Err: err}
	case corrupt, errors.Is(err, gzip.ErrHeader):
		return &Error{Type: TypeBadGzip, Msg: "the gzip stream is damaged and can't be decompressed; send the file again", Err: err}
	}
	return err
}
