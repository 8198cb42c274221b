package nifti

import (
	"io"
	"math"
	"time"

	"github.com/klauspost/compress/gzip"
)

// Scrub copies a single-file image without anything that could name a patient:
// header fields that the reader doesn't use, extensions, what lies between
// header and data, what follows the data, and the names, comments and times of
// a gzip stream. What the package decodes from the copy is what it decodes
// from the original. A gzipped file stays gzipped, a plain one plain.
//
// It is one pass in constant memory, and it returns the errors that reading the
// image whole would return; dst then holds a part that must not be used. Errors
// that aren't *Error are src's or dst's own. What follows the image in a plain
// file is left unread.
func Scrub(dst io.Writer, src io.Reader, lim Limits) (*Header, error) {
	rd, err := NewReader(src, lim)
	if err != nil {
		return nil, err
	}
	head := append(rd.hdr.scrub(rd.head), 0, 0, 0, 0) // no extension follows
	return rd.hdr, rd.copyTo(dst, head)
}

// ScrubPair is Scrub for an image whose header and data are two files. The
// header is written first, and whole.
func ScrubPair(dstHdr, dstImg io.Writer, hdr, img io.Reader, lim Limits) (*Header, error) {
	rd, err := NewPairReader(hdr, img, lim)
	if err != nil {
		return nil, err
	}
	w := newScrubWriter(dstHdr, rd.headGzipped)
	if _, err := w.Write(rd.hdr.scrub(rd.head)); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return rd.hdr, rd.copyTo(dstImg, nil)
}

// copyTo writes head and then the data, bytes as they are.
func (rd *Reader) copyTo(dst io.Writer, head []byte) error {
	w := newScrubWriter(dst, rd.src.gz != nil)
	if _, err := w.Write(head); err != nil {
		return err
	}
	if err := rd.pieces(func(b []byte) error {
		_, err := w.Write(b)
		return err
	}); err != nil {
		return err
	}
	if err := rd.src.finish(); err != nil {
		return err
	}
	return w.Close()
}

// newScrubWriter compresses fast: the copy is made while its sender waits.
func newScrubWriter(dst io.Writer, gzipped bool) io.WriteCloser {
	if !gzipped {
		return plainWriter{dst}
	}
	z, err := gzip.NewWriterLevel(dst, gzip.BestSpeed)
	if err != nil {
		panic(err) // the level is a constant
	}
	z.ModTime = time.Unix(0, 0) // gzip's "no time", as in Write
	return z
}

type plainWriter struct{ io.Writer }

func (plainWriter) Close() error { return nil }

// layout says where the fields that are kept lie. What isn't named here is not
// copied, known to be text or not.
type layout struct {
	keep         [][2]int // bytes from, to
	dim, pixdim  int
	width        int // bytes of one dim; those of one pixdim are pixdimWidth
	pixdimWidth  int
	bitpix       int
	offset       int
	qcode, scode int
	codeWidth    int
	quat, srow   [2]int // bytes from, to
}

var layouts = map[Format]layout{
	NIfTI1: {
		// dim, datatype, pixdim, scl_slope and scl_inter, xyzt_units, the forms
		keep: [][2]int{{40, 56}, {70, 72}, {76, 108}, {112, 120}, {123, 124}, {252, 328}},
		dim:  40, width: 2, pixdim: 76, pixdimWidth: 4, bitpix: 72, offset: 108,
		qcode: 252, scode: 254, codeWidth: 2, quat: [2]int{256, 280}, srow: [2]int{280, 328},
	},
	NIfTI2: {
		// datatype, dim, pixdim, scl_slope and scl_inter, the forms, xyzt_units
		keep: [][2]int{{12, 14}, {16, 80}, {104, 168}, {176, 192}, {344, 496}, {500, 504}},
		dim:  16, width: 8, pixdim: 104, pixdimWidth: 8, bitpix: 14, offset: 168,
		qcode: 344, scode: 348, codeWidth: 4, quat: [2]int{352, 400}, srow: [2]int{400, 496},
	},
	Analyze: {
		// dim, datatype, pixdim, funused1 and 2 (SPM's scaling), cal_max and
		// cal_min, glmax and glmin, and of originator SPM's origin
		keep: [][2]int{{40, 56}, {70, 72}, {76, 108}, {112, 120}, {124, 132}, {140, 148}, {253, 259}},
		dim:  40, width: 2, pixdim: 76, pixdimWidth: 4, bitpix: 72, offset: 108,
	},
}

// scrub returns a header that reads as head does, which h was read from, with
// the data where they lie at the earliest.
func (h *Header) scrub(head []byte) []byte {
	l := layouts[h.Format]
	b := make([]byte, h.headerSize())
	for _, k := range l.keep {
		copy(b[k[0]:k[1]], head[k[0]:])
	}
	f := fields{b: b, order: h.byteOrder()}
	f.putInt(0, 4, int64(len(b)))
	f.putInt(l.bitpix, 2, int64(8*h.Datatype.Bytes()))

	// Kept are the first three dimensions, which ANALYZE's centre is computed
	// from, and as many more as count.
	used := max(3, int(f.int(l.dim, l.width)))
	for n := used + 1; n < 8; n++ {
		f.putInt(l.dim+n*l.width, l.width, 1)
		f.putFloat(l.pixdim+n*l.pixdimWidth, l.pixdimWidth, 1)
	}
	qfac := 1.0
	if f.float(l.pixdim, l.pixdimWidth) == -1 {
		qfac = -1
	}
	f.putFloat(l.pixdim, l.pixdimWidth, qfac)

	if h.Format == Analyze {
		b[38] = 'r' // "regular", a fixed letter of the format
		r := readRaw1(f)
		// An origin that lies far outside the image isn't believed: it is
		// whatever else a program wrote there.
		if !r.originNear() {
			clear(b[253:259])
		}
		return b
	}

	f.putInt(l.qcode, l.codeWidth, int64(h.QformCode))
	f.putInt(l.scode, l.codeWidth, int64(h.SformCode))
	if h.QformCode == 0 {
		clear(b[l.quat[0]:l.quat[1]])
	}
	if h.SformCode == 0 {
		clear(b[l.srow[0]:l.srow[1]])
	}
	kind := byte('+')
	if h.Pair {
		kind = 'i'
	}
	if h.Format == NIfTI2 {
		f.putInt(500, 4, f.i32(500)&0x3f) // units of space and time
		copy(b[4:], []byte{'n', kind, '2', 0, '\r', '\n', 0x1a, '\n'})
		if !h.Pair {
			f.putInt(l.offset, 8, minOffset2)
		}
		return b
	}
	b[38] = 'r'
	b[123] &= 0x3f
	copy(b[344:], []byte{'n', kind, '1', 0})
	if !h.Pair {
		f.putFloat(l.offset, 4, minOffset1)
	}
	return b
}

func (f fields) int(at, width int) int64 {
	switch width {
	case 2:
		return f.i16(at)
	case 4:
		return f.i32(at)
	default:
		return f.i64(at)
	}
}

func (f fields) putInt(at, width int, v int64) {
	switch width {
	case 2:
		f.order.PutUint16(f.b[at:], uint16(v))
	case 4:
		f.order.PutUint32(f.b[at:], uint32(v))
	default:
		f.order.PutUint64(f.b[at:], uint64(v))
	}
}

func (f fields) float(at, width int) float64 {
	if width == 4 {
		return f.f32(at)
	}
	return f.f64(at)
}

func (f fields) putFloat(at, width int, v float64) {
	if width == 4 {
		f.order.PutUint32(f.b[at:], math.Float32bits(float32(v)))
		return
	}
	f.order.PutUint64(f.b[at:], math.Float64bits(v))
}
