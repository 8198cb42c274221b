package nifti

import (
	"encoding/binary"
	"math/bits"
	"unsafe"
)

// Datatype is the code of the stored voxel type (NIFTI_TYPE_... of nifti1.h).
type Datatype int16

const (
	Uint8   Datatype = 2
	Int16   Datatype = 4
	Int32   Datatype = 8
	Float32 Datatype = 16
	Float64 Datatype = 64
	Int8    Datatype = 256
	Uint16  Datatype = 512
	Uint32  Datatype = 768
	Int64   Datatype = 1024
	Uint64  Datatype = 1280
)

func (d Datatype) String() string { return kinds[d].name }

// Bytes returns the size of a voxel.
func (d Datatype) Bytes() int { return kinds[d].size }

// kind is how a type is read; convert is nil for a type that is known but not read.
type kind struct {
	name    string
	size    int
	float   bool
	convert func(dst []float32, src []byte, slope, inter float64)
}

var kinds = map[Datatype]kind{
	Uint8:   {"uint8", 1, false, convert[uint8]},
	Int8:    {"int8", 1, false, convert[int8]},
	Int16:   {"int16", 2, false, convert[int16]},
	Uint16:  {"uint16", 2, false, convert[uint16]},
	Int32:   {"int32", 4, false, convert[int32]},
	Uint32:  {"uint32", 4, false, convert[uint32]},
	Int64:   {"int64", 8, false, convert[int64]},
	Uint64:  {"uint64", 8, false, convert[uint64]},
	Float32: {"float32", 4, true, convert[float32]},
	Float64: {"float64", 8, true, convert[float64]},
	0:       {name: "of an unknown type (code 0)"},
	1:       {name: "single bits"},
	32:      {name: "complex numbers (64 bits)"},
	128:     {name: "RGB colours"},
	1536:    {name: "128-bit floating-point numbers"},
	1792:    {name: "complex numbers (128 bits)"},
	2048:    {name: "complex numbers (256 bits)"},
	2304:    {name: "RGBA colours"},
}

type number interface {
	uint8 | int8 | int16 | uint16 | int32 | uint32 | int64 | uint64 | float32 | float64
}

// convert sets dst[n] = float32(slope*src[n] + inter), computed in float64 and
// without fusing the two, as numpy does, so that results are the same bits on
// every machine. src holds len(dst) numbers in this machine's byte order and is
// aligned for them.
func convert[T number](dst []float32, src []byte, slope, inter float64) {
	if len(dst) == 0 {
		return
	}
	in := unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(src))), len(dst))
	if slope == 1 && inter == 0 {
		for n, v := range in {
			dst[n] = float32(float64(v))
		}
		return
	}
	for n, v := range in {
		dst[n] = float32(float64(float64(v)*slope) + inter)
	}
}

var hostBigEndian = binary.NativeEndian.Uint16([]byte{0, 1}) == 1

// swapBytes reverses the byte order of the numbers in b, each size bytes long.
func swapBytes(b []byte, size int) {
	switch size {
	case 2:
		for ; len(b) >= 2; b = b[2:] {
			b[0], b[1] = b[1], b[0]
		}
	case 4:
		for ; len(b) >= 4; b = b[4:] {
			binary.NativeEndian.PutUint32(b, bits.ReverseBytes32(binary.NativeEndian.Uint32(b)))
		}
	case 8:
		for ; len(b) >= 8; b = b[8:] {
			binary.NativeEndian.PutUint64(b, bits.ReverseBytes64(binary.NativeEndian.Uint64(b)))
		}
	}
}

// countNonFinite counts NaN and infinities.
func countNonFinite(x []float32) int {
	n := 0
	for _, v := range x {
		if v-v != 0 {
			n++
		}
	}
	return n
}
