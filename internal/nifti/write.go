package nifti

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/klauspost/compress/gzip"
)

// Stored are the voxel types that are written.
type Stored interface {
	uint8 | int16 | int32 | float32
}

// Geometry is what a written file says about its voxels.
type Geometry struct {
	Shape  []int // 1 to 7 dimensions of 1 to 32767
	Affine Affine
	// Code is what space the affine leads to: 1 for the scanner's, 2 for one
	// aligned to another image's, 3 to 5 for a template's. 0 is written as 1.
	Code int
	// Template, if not nil, is written as the sform, with TemplateCode, and Affine
	// as the qform alone.
	Template     *Affine
	TemplateCode int
	TR           float64 // seconds between volumes, for four or more dimensions
}

// Write writes a gzipped NIfTI-1 file: little-endian, millimetres, no scaling
// and no text. The same input gives the same bytes. It sets sform and, unless
// the affine is sheared, qform, so that readers that prefer either agree.
//
// It panics if data doesn't fit the shape, or the shape doesn't fit NIfTI-1.
func Write[T Stored](w io.Writer, g Geometry, data []T) error {
	var zero T
	dt := datatypeOf(zero)
	hdr := g.header(dt)
	if product(g.Shape) != len(data) {
		panic(fmt.Sprintf("nifti: %d values for the shape %v", len(data), g.Shape))
	}
	z := gzip.NewWriter(w)
	z.ModTime = time.Unix(0, 0) // gzip's "no time"; the zero Time would be written as a date in 2042
	if _, err := z.Write(hdr); err != nil {
		return err
	}
	buf := make([]byte, 0, 1<<16)
	size := dt.Bytes()
	for len(data) > 0 {
		part := data[:min(len(data), cap(buf)/size)]
		data = data[len(part):]
		b, err := binary.Append(buf, binary.LittleEndian, part)
		if err != nil {
			return err
		}
		if _, err := z.Write(b); err != nil {
			return err
		}
	}
	return z.Close()
}

func datatypeOf(zero any) Datatype {
	switch zero.(type) {
	case uint8:
		return Uint8
	case int16:
		return Int16
	case int32:
		return Int32
	default:
		return Float32
	}
}

// header returns the 348 bytes of the header and the four that say that no
// extension follows.
func (g *Geometry) header(dt Datatype) []byte {
	if len(g.Shape) < 1 || len(g.Shape) > 7 {
		panic(fmt.Sprintf("nifti: %d dimensions", len(g.Shape)))
	}
	b := make([]byte, minOffset1)
	le := binary.LittleEndian
	i16 := func(at, v int) { le.PutUint16(b[at:], uint16(int16(v))) }
	f32 := func(at int, v float64) { le.PutUint32(b[at:], math.Float32bits(float32(v))) }

	le.PutUint32(b, header1Size)
	b[38] = 'r' // "regular", which ANALYZE asks for
	i16(40, len(g.Shape))
	for n := range 7 {
		d := 1
		if n < len(g.Shape) {
			d = g.Shape[n]
		}
		if d < 1 || d > math.MaxInt16 {
			panic(fmt.Sprintf("nifti: dimension %d is %d", n+1, d))
		}
		i16(42+2*n, d)
		f32(80+4*n, 1)
	}
	i16(70, int(dt))
	i16(72, 8*dt.Bytes())
	f32(108, minOffset1)
	f32(112, 1)
	b[123] = 2 // mm
	if len(g.Shape) > 3 {
		b[123] |= 8 // s
		f32(92, g.TR)
	}

	code := max(g.Code, 1)
	sform, sformCode := g.Affine, code
	if g.Template != nil {
		sform, sformCode = *g.Template, g.TemplateCode
	}
	i16(254, sformCode)
	for i := range 3 {
		for j := range 4 {
			f32(280+16*i+4*j, sform[i][j])
		}
	}
	q, vox, straight := quaternion(g.Affine)
	f32(76, q.fac)
	for n := range 3 {
		f32(80+4*n, vox[n])
		f32(256+4*n, q.bcd[n])
		f32(268+4*n, g.Affine[n][3])
	}
	if straight {
		i16(252, code)
	}
	copy(b[344:], "n+1\x00")
	return b
}

type quat struct {
	bcd [3]float64
	fac float64 // qfac: -1 if the third axis is turned round
}

// maxSkew is the cosine between voxel axes up to which a rotation stands for
// them: the rounding of a float32 affine, with some to spare.
const maxSkew = 1e-5

// quaternion splits an affine into rotation and voxel sizes. It reports false
// if the voxel axes aren't at right angles: then no qform can say what the
// affine says.
func quaternion(a Affine) (q quat, vox [3]float64, straight bool) {
	var r [3][3]float64
	for j := range 3 {
		vox[j] = math.Sqrt(a[0][j]*a[0][j] + a[1][j]*a[1][j] + a[2][j]*a[2][j])
		for i := range 3 {
			r[i][j] = a[i][j] / vox[j]
		}
	}
	q.fac = 1
	for _, p := range [][2]int{{0, 1}, {0, 2}, {1, 2}} {
		dot := 0.0
		for i := range 3 {
			dot += r[i][p[0]] * r[i][p[1]]
		}
		if !(math.Abs(dot) < maxSkew) {
			return q, vox, false
		}
	}
	det := r[0][0]*(r[1][1]*r[2][2]-r[1][2]*r[2][1]) -
		r[0][1]*(r[1][0]*r[2][2]-r[1][2]*r[2][0]) +
		r[0][2]*(r[1][0]*r[2][1]-r[1][1]*r[2][0])
	if det < 0 {
		q.fac = -1
		for i := range 3 {
			r[i][2] = -r[i][2]
		}
	}
	// nifti_mat44_to_quatern of nifti1_io.c: divide by the largest component.
	t := 1 + r[0][0] + r[1][1] + r[2][2]
	if t > 0.5 {
		w := math.Sqrt(t) / 2
		q.bcd = [3]float64{(r[2][1] - r[1][2]) / (4 * w), (r[0][2] - r[2][0]) / (4 * w), (r[1][0] - r[0][1]) / (4 * w)}
		return q, vox, true
	}
	// m is the largest of b, c, d; n and o follow it in order.
	m := 0
	for n := 1; n < 3; n++ {
		if r[n][n] > r[m][m] {
			m = n
		}
	}
	n, o := (m+1)%3, (m+2)%3
	x := math.Sqrt(1+r[m][m]-r[n][n]-r[o][o]) / 2
	w := (r[o][n] - r[n][o]) / (4 * x)
	q.bcd[m] = x
	q.bcd[n] = (r[m][n] + r[n][m]) / (4 * x)
	q.bcd[o] = (r[m][o] + r[o][m]) / (4 * x)
	if w < 0 { // the header keeps no w: it is positive by convention
		for n := range q.bcd {
			q.bcd[n] = -q.bcd[n]
		}
	}
	return q, vox, true
}
