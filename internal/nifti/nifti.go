// Package nifti reads NIfTI-1, NIfTI-2 and ANALYZE 7.5 images, in one file or
// as an .hdr/.img pair, plain or gzipped, in either byte order, and writes
// NIfTI-1 .nii.gz.
//
// Reading is a single pass over an io.Reader: every size that the header
// claims is checked against Limits before memory is taken for it, gzip
// expansion is capped, and the checksum of a gzip stream is verified. Values
// come out as float32 with the header's scaling applied, first axis fastest.
// Affine, scaling and byte order follow nibabel 5, which the tests compare
// with value by value, except for Header.Template.
//
// Free text in the header (descrip, aux_file, db_name, intent_name) and header
// extensions are skipped and not kept: they are where patients' names hide.
// Scrub copies a file without them.
package nifti

import (
	"encoding/binary"
	"fmt"
)

// Affine maps voxel indices (i, j, k, 1) to RAS+ millimetres: x grows to the
// patient's right, y to the front, z to the top.
type Affine = [4][4]float64

// AffineSource says which header fields the affine was taken from.
type AffineSource string

// The order is nibabel's: sform if it has a code, else qform if it has one,
// else the voxel sizes alone.
const (
	FromSform  AffineSource = "sform"
	FromQform  AffineSource = "qform"
	FromPixdim AffineSource = "pixdim" // no transform stored: LAS assumed, centred
)

// Format of a header.
type Format string

const (
	NIfTI1  Format = "NIfTI-1"
	NIfTI2  Format = "NIfTI-2"
	Analyze Format = "ANALYZE 7.5"
)

// Header holds what is kept of a file's header.
type Header struct {
	Format    Format
	BigEndian bool
	Pair      bool // header and data are two files

	// Shape is the header's dim, 1 to 7 numbers, first axis fastest, with
	// trailing 1s beyond the third axis dropped.
	Shape    []int
	Datatype Datatype

	// A stored value v means Slope*v + Inter. Slope is 1 and Inter 0 when the
	// header asks for no scaling.
	Slope, Inter float64

	Affine       Affine
	AffineSource AffineSource
	SformCode    int // 0 to 5; a code the standard doesn't know counts as 0
	QformCode    int

	// Template is the sform where that leads to a template and the qform to the
	// scanner. Affine is then the qform's, in which sizes are the head's own, and
	// not as nibabel has it.
	Template *Affine

	// FormsMirrored reports that both forms are set and one is the mirror
	// image of the other: which side is left depends on which is believed.
	FormsMirrored bool

	// VoxelSize is pixdim[1..3] in SpaceUnit, as nibabel repairs it: without
	// its sign, and 1 for a 0.
	VoxelSize [3]float64
	SpaceUnit string // "mm", "m", "um", or "" when not stated

	// TR is pixdim[4] in TimeUnit, 0 for an image with fewer axes.
	TR       float64
	TimeUnit string // "s", "ms", "us", or "" when not stated; "Hz", "ppm", "rad/s" for spectra

	offset int64 // bytes before the first voxel, in the file that holds the data
}

// OrientationKnown reports whether the file says how its axes lie in the
// patient. ANALYZE can't, and a NIfTI without qform and sform doesn't: left and
// right of such an image are a guess.
func (h *Header) OrientationKnown() bool { return h.AffineSource != FromPixdim }

// InTemplate reports whether Affine leads to a template's space, to which the
// image was probably resampled.
func (h *Header) InTemplate() bool {
	return h.AffineSource == FromSform && ofTemplate(h.SformCode) || h.AffineSource == FromQform && ofTemplate(h.QformCode)
}

// ofTemplate are the codes of Talairach's space, MNI's and other templates'.
func ofTemplate(code int) bool { return code >= 3 }

// Geometry is that of one volume of the image, with both of its forms: what is
// written on it claims no other space than the image itself. Only without a form
// it claims the scanner's, or viewers would place it by conventions of their own.
func (h *Header) Geometry() Geometry {
	shape := h.Shape3()
	code := map[AffineSource]int{FromSform: h.SformCode, FromQform: h.QformCode}[h.AffineSource]
	return Geometry{Shape: shape[:], Affine: h.Affine, Code: code, Template: h.Template, TemplateCode: h.SformCode}
}

// TRSeconds returns the repetition time, and false when the header states none
// or no unit of time.
func (h *Header) TRSeconds() (float64, bool) {
	per, ok := map[string]float64{"s": 1, "ms": 1e-3, "us": 1e-6}[h.TimeUnit]
	return h.TR * per, ok && h.TR > 0
}

// Volumes returns the number of three-dimensional volumes: the product of the
// fourth to seventh dimensions.
func (h *Header) Volumes() int { return product(h.Shape[min(3, len(h.Shape)):]) }

// VolumeLen returns the number of voxels in one volume.
func (h *Header) VolumeLen() int { return product(h.Shape[:min(3, len(h.Shape))]) }

// dataLen returns the bytes that all volumes take in the file.
func (h *Header) dataLen() int64 {
	return int64(h.VolumeLen()) * int64(h.Volumes()) * int64(h.Datatype.Bytes())
}

func (h *Header) byteOrder() binary.ByteOrder {
	if h.BigEndian {
		return binary.BigEndian
	}
	return binary.LittleEndian
}

// Shape3 returns the first three dimensions, with 1 for those that are absent.
func (h *Header) Shape3() [3]int {
	s := [3]int{1, 1, 1}
	copy(s[:], h.Shape)
	return s
}

func product(dims []int) int {
	n := 1
	for _, d := range dims {
		n *= d
	}
	return n
}

// Image is a file read whole.
type Image struct {
	Header
	Data      []float32 // scaled, index i + Shape[0]*(j + Shape[1]*(k + ...))
	NonFinite int       // how many of Data are NaN or infinite
}

// Limits bound what a file may make the reader do. A zero field takes the
// default's value.
type Limits struct {
	MaxVoxels   int64 // voxels held in memory at once: all of them for Decode, one volume for a Reader
	MaxBytes    int64 // bytes read after decompression, header and data
	MaxTrailing int64 // bytes after the data, decompressed to reach the checksum and dropped
}

// DefaultLimits hold any structural head scan and most functional runs: 1 GiB
// of data, and as much in memory as float32.
var DefaultLimits = Limits{MaxVoxels: 1 << 28, MaxBytes: 1 << 30, MaxTrailing: 64 << 20}

func (l Limits) orDefault() Limits {
	if l.MaxVoxels <= 0 {
		l.MaxVoxels = DefaultLimits.MaxVoxels
	}
	if l.MaxBytes <= 0 {
		l.MaxBytes = DefaultLimits.MaxBytes
	}
	if l.MaxTrailing <= 0 {
		l.MaxTrailing = DefaultLimits.MaxTrailing
	}
	return l
}

// The values of Error.Type are stable.
const (
	TypeEmpty               = "empty"                // no bytes at all
	TypeNotNIfTI            = "not-nifti"            // another kind of file
	TypeBadGzip             = "bad-gzip"             // damaged compression or checksum
	TypeTruncated           = "truncated"            // ends before its data do
	TypeNoData              = "no-data"              // a header without its data
	TypeNoHeader            = "no-header"            // the .img of a pair without its .hdr
	TypeBadHeader           = "bad-header"           // a field contradicts the standard
	TypeAbsurdDimensions    = "absurd-dimensions"    // dim is zero, negative or overflows
	TypeUnsupportedDatatype = "unsupported-datatype" // complex, colour, 128-bit, one-bit, unknown
	TypeTooLarge            = "too-large"            // over Limits
)

// Error says why a file can't be read. Msg is for whoever sent the file and
// holds nothing from its free text.
type Error struct {
	Type  string
	Field string // header field at fault ("dim[1]", "datatype"), if one is
	Msg   string
	Err   error // the cause, for the log
}

func (e *Error) Error() string {
	if e.Field != "" {
		return "nifti: " + e.Type + " (" + e.Field + "): " + e.Msg
	}
	return "nifti: " + e.Type + ": " + e.Msg
}

func (e *Error) Unwrap() error { return e.Err }

func errorf(typ, field, format string, args ...any) *Error {
	return &Error{Type: typ, Field: field, Msg: fmt.Sprintf(format, args...)}
}
