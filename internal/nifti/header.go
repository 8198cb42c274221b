package nifti

import (
	"encoding/binary"
	"math"
)

const (
	header1Size = 348 // NIfTI-1 and ANALYZE
	header2Size = 540
	// A single file's data start at 352 or 544 at the earliest: after the
	// header come four bytes that say whether extensions follow.
	minOffset1 = 352
	minOffset2 = 544
	sniffLen   = minOffset2
)

// fields reads the raw header. Positions are those of nifti1.h, nifti2.h and
// dbh.h (ANALYZE shares NIfTI-1's for all that is read here but the origin).
type fields struct {
	b     []byte
	order binary.ByteOrder
}

func (f fields) i16(at int) int64   { return int64(int16(f.order.Uint16(f.b[at:]))) }
func (f fields) i32(at int) int64   { return int64(int32(f.order.Uint32(f.b[at:]))) }
func (f fields) i64(at int) int64   { return int64(f.order.Uint64(f.b[at:])) }
func (f fields) f32(at int) float64 { return float64(math.Float32frombits(f.order.Uint32(f.b[at:]))) }
func (f fields) f64(at int) float64 { return math.Float64frombits(f.order.Uint64(f.b[at:])) }

// raw is a header of any format in common types.
type raw struct {
	dim        [8]int64
	pixdim     [8]float64
	datatype   int64
	offset     float64
	slope      float64
	inter      float64
	units      int64
	qcode      int64
	scode      int64
	quat       [3]float64
	qoffset    [3]float64
	srow       [3][4]float64
	origin     [3]float64 // ANALYZE as SPM wrote it: 1-based voxel of the origin
	calMax     float64
	calMin     float64
	glMax      float64
	glMin      float64
	quatMinW2  float64 // below this, 1-b²-c²-d² is an error and not rounding
	minOffset  int64   // of a single file's data
	headerSize int
}

func readRaw1(f fields) (r raw) {
	for n := range r.dim {
		r.dim[n] = f.i16(40 + 2*n)
		r.pixdim[n] = f.f32(76 + 4*n)
	}
	r.datatype = f.i16(70)
	r.offset = f.f32(108)
	r.slope, r.inter = f.f32(112), f.f32(116)
	r.units = int64(f.b[123])
	r.calMax, r.calMin = f.f32(124), f.f32(128)
	r.glMax, r.glMin = float64(f.i32(140)), float64(f.i32(144))
	r.qcode, r.scode = f.i16(252), f.i16(254)
	for n := range 3 {
		r.origin[n] = float64(f.i16(253 + 2*n))
		r.quat[n] = f.f32(256 + 4*n)
		r.qoffset[n] = f.f32(268 + 4*n)
		for m := range 4 {
			r.srow[n][m] = f.f32(280 + 16*n + 4*m)
		}
	}
	r.quatMinW2 = -3 * (1.0 / (1 << 23)) // three float32 epsilons, nibabel's tolerance
	r.minOffset, r.headerSize = minOffset1, header1Size
	return r
}

func readRaw2(f fields) (r raw) {
	for n := range r.dim {
		r.dim[n] = f.i64(16 + 8*n)
		r.pixdim[n] = f.f64(104 + 8*n)
	}
	r.datatype = f.i16(12)
	r.offset = float64(f.i64(168))
	r.slope, r.inter = f.f64(176), f.f64(184)
	r.qcode, r.scode = f.i32(344), f.i32(348)
	r.units = f.i32(500)
	for n := range 3 {
		r.quat[n] = f.f64(352 + 8*n)
		r.qoffset[n] = f.f64(376 + 8*n)
		for m := range 4 {
			r.srow[n][m] = f.f64(400 + 32*n + 8*m)
		}
	}
	r.quatMinW2 = -3 * (1.0 / (1 << 52))
	r.minOffset, r.headerSize = minOffset2, header2Size
	return r
}

// parseHeader reads the header at the start of b, which holds the first
// sniffLen bytes of the file, or all of a shorter one.
func parseHeader(b []byte) (*Header, *Error) {
	h := &Header{}
	if err := h.identify(b); err != nil {
		return nil, err
	}
	f := fields{b, binary.LittleEndian}
	dim0 := f.i16(40)
	if h.Format == NIfTI2 {
		dim0 = f.i64(16)
	}
	// dim[0] lies between 1 and 7 in one of the two byte orders only.
	if dim0 < 1 || dim0 > 7 {
		f.order, h.BigEndian = binary.BigEndian, true
	}
	var r raw
	if h.Format == NIfTI2 {
		r = readRaw2(f)
	} else {
		r = readRaw1(f)
	}
	if err := h.setShape(&r); err != nil {
		return nil, err
	}
	if err := h.setDatatype(&r); err != nil {
		return nil, err
	}
	if err := h.setScaling(&r); err != nil {
		return nil, err
	}
	if err := h.setOffset(&r); err != nil {
		return nil, err
	}
	h.setUnits(&r)
	if err := h.setAffine(&r); err != nil {
		return nil, err
	}
	return h, nil
}

// identify finds the format and whether the file stands alone, by the magic
// and, for ANALYZE, which has none, by the header size in the first field.
func (h *Header) identify(b []byte) *Error {
	if len(b) == 0 {
		return errorf(TypeEmpty, "", "the file is empty (0 bytes); the transfer probably failed, send it again")
	}
	if len(b) >= header1Size {
		switch string(b[344:348]) {
		case "n+1\x00":
			h.Format = NIfTI1
			return nil
		case "ni1\x00":
			h.Format, h.Pair = NIfTI1, true
			return nil
		}
	}
	size := int64(0)
	if len(b) >= 4 {
		size = int64(binary.LittleEndian.Uint32(b))
		if size != header1Size && size != header2Size {
			size = int64(binary.BigEndian.Uint32(b))
		}
	}
	switch {
	case size == header2Size && len(b) >= 8 && b[4] == 'n' && (b[5] == '+' || b[5] == 'i') && b[6] == '2' && b[7] == 0:
		if len(b) < header2Size {
			return errorf(TypeTruncated, "sizeof_hdr", "the file ends inside its NIfTI-2 header (%d of %d bytes)", len(b), header2Size)
		}
		// These four bytes reveal a transfer that rewrote line ends; some
		// writers leave them 0.
		if eol := string(b[8:12]); eol != "\r\n\x1a\n" && eol != "\x00\x00\x00\x00" {
			return errorf(TypeBadHeader, "magic", "the line-end check of the NIfTI-2 header is wrong: the file was transferred as text; send it in binary mode")
		}
		h.Format, h.Pair = NIfTI2, b[5] == 'i'
		return nil
	case size == header1Size:
		if len(b) < header1Size {
			return errorf(TypeTruncated, "sizeof_hdr", "the file ends inside its header (%d of %d bytes)", len(b), header1Size)
		}
		h.Format, h.Pair = Analyze, true
		return nil
	}
	return notNIfTI(b)
}

func (h *Header) setShape(r *raw) *Error {
	nd := r.dim[0]
	if nd < 1 || nd > 7 {
		return errorf(TypeAbsurdDimensions, "dim[0]", "the header counts %d dimensions; 1 to 7 are possible", nd)
	}
	total := int64(1)
	for n := 1; n <= int(nd); n++ {
		d := r.dim[n]
		if d == 0 && n > 3 {
			d = 1 // written by some tools for an absent axis; niftilib reads it so too
		}
		if d < 1 {
			return errorf(TypeAbsurdDimensions, dimName(n), "dimension %d is %d; it must be at least 1", n, d)
		}
		if total > math.MaxInt64/16/d { // 16 bytes is the largest voxel
			return errorf(TypeAbsurdDimensions, dimName(n), "the dimensions multiply to more voxels than any file can hold")
		}
		total *= d
		h.Shape = append(h.Shape, int(d))
	}
	for len(h.Shape) > 3 && h.Shape[len(h.Shape)-1] == 1 {
		h.Shape = h.Shape[:len(h.Shape)-1]
	}
	return nil
}

func dimName(n int) string { return "dim[" + string(rune('0'+n)) + "]" }

func (h *Header) setDatatype(r *raw) *Error {
	h.Datatype = Datatype(r.datatype)
	if k, ok := kinds[h.Datatype]; !ok {
		return errorf(TypeUnsupportedDatatype, "datatype", "the header's data type %d is not a NIfTI data type", r.datatype)
	} else if k.convert == nil {
		return errorf(TypeUnsupportedDatatype, "datatype", "the voxels are %s; only images of real numbers, one per voxel, are read", k.name)
	}
	return nil
}

// setScaling follows nibabel: a slope of 0 or not finite means unscaled. For
// ANALYZE it follows SPM2, as nibabel does: the slope in funused1, else the
// ratio of the calibrated to the stored range.
func (h *Header) setScaling(r *raw) *Error {
	h.Slope, h.Inter = 1, 0
	valid := finite(r.slope) && r.slope != 0
	switch {
	case valid && finite(r.inter):
		h.Slope, h.Inter = r.slope, r.inter
	case valid && h.Format == Analyze:
		h.Slope = r.slope
	case valid:
		return errorf(TypeBadHeader, "scl_inter", "the scaling intercept is not a finite number, so the voxels' values are unknown")
	case h.Format == Analyze && r.glMax != r.glMin && r.calMax != r.calMin && finite(r.calMax) && finite(r.calMin):
		h.Slope = (r.calMax - r.calMin) / (r.glMax - r.glMin)
		h.Inter = r.calMin - h.Slope*r.glMin
	}
	return nil
}

func (h *Header) setOffset(r *raw) *Error {
	off := math.Trunc(r.offset) // NIfTI-1 stores it as a float
	if !(off >= 0 && off < 1<<62) {
		return errorf(TypeBadHeader, "vox_offset", "the position of the data, %g, is not a position in a file", r.offset)
	}
	h.offset = int64(off)
	if !h.Pair {
		if h.offset == 0 {
			h.offset = r.minOffset // not filled in; the standard's minimum is meant
		}
		if h.offset < r.minOffset {
			return errorf(TypeBadHeader, "vox_offset", "the data would begin at byte %d, inside the header (%d bytes)", h.offset, r.minOffset)
		}
	}
	return nil
}

var (
	spaceUnits = map[int64]string{1: "m", 2: "mm", 3: "um"}
	timeUnits  = map[int64]string{8: "s", 16: "ms", 24: "us", 32: "Hz", 40: "ppm", 48: "rad/s"}
)

func (h *Header) setUnits(r *raw) {
	for n := range 3 {
		h.VoxelSize[n] = math.Abs(r.pixdim[n+1])
		if h.VoxelSize[n] == 0 {
			h.VoxelSize[n] = 1
		}
	}
	if len(h.Shape) > 3 {
		h.TR = r.pixdim[4]
	}
	if h.Format != Analyze {
		h.SpaceUnit = spaceUnits[r.units&7]
		h.TimeUnit = timeUnits[r.units&0x38]
	}
}

// setAffine picks the transform as nibabel does, except that a sform that leads
// to a template gives way to a qform that leads elsewhere: sizes along it are
// pixdim's.
func (h *Header) setAffine(r *raw) *Error {
	if h.Format == Analyze {
		h.Affine, h.AffineSource = analyzeAffine(r, h.VoxelSize), FromPixdim
		return nil
	}
	known := func(code int64) int {
		if code < 0 || code > 5 {
			return 0
		}
		return int(code)
	}
	h.SformCode, h.QformCode = known(r.scode), known(r.qcode)
	if h.SformCode > 0 && h.QformCode > 0 {
		// A rotation keeps handedness, so the qform's is qfac's.
		s := r.srow
		det := s[0][0]*(s[1][1]*s[2][2]-s[1][2]*s[2][1]) -
			s[0][1]*(s[1][0]*s[2][2]-s[1][2]*s[2][0]) +
			s[0][2]*(s[1][0]*s[2][1]-s[1][1]*s[2][0])
		h.FormsMirrored = det*qfac(r) < 0
	}
	switch {
	case h.SformCode > 0:
		h.Affine = Affine{r.srow[0], r.srow[1], r.srow[2], {0, 0, 0, 1}}
		h.AffineSource = FromSform
		if ofTemplate(h.SformCode) && h.QformCode > 0 && !ofTemplate(h.QformCode) {
			// A qform that repeats the sform lies about one of the two spaces.
			if q, ok := quaternionAffine(r, h.VoxelSize); ok && apart(q, h.Affine) {
				sform := h.Affine
				h.Template, h.Affine, h.AffineSource = &sform, q, FromQform
			}
		}
	case h.QformCode > 0:
		a, ok := quaternionAffine(r, h.VoxelSize)
		if !ok {
			return errorf(TypeBadHeader, "quatern_b", "the quaternion of the qform is longer than 1, so the image's orientation is unknown")
		}
		h.Affine, h.AffineSource = a, FromQform
	default:
		var dims, zooms = [3]float64{1, 1, 1}, [3]float64{1, 1, 1}
		for n := range min(3, int(r.dim[0])) {
			dims[n], zooms[n] = float64(r.dim[n+1]), h.VoxelSize[n]
		}
		h.Affine, h.AffineSource = centredAffine(dims, zooms), FromPixdim
	}
	return nil
}

// apart reports whether two transforms differ by more than rounding, in mm.
func apart(a, b Affine) bool {
	for i := range 3 {
		for j := range 4 {
			if math.Abs(a[i][j]-b[i][j]) > 0.01 {
				return true
			}
		}
	}
	return false
}

// quaternionAffine is method 2 of nifti1.h: R(b,c,d) * diag(pixdim), the third
// column negated when qfac (pixdim[0]) is -1. It reports false for a
// quaternion that is longer than rounding explains.
func quaternionAffine(r *raw, vox [3]float64) (Affine, bool) {
	x, y, z := r.quat[0], r.quat[1], r.quat[2]
	w2 := 1 - (x*x + y*y + z*z)
	if w2 < r.quatMinW2 {
		return Affine{}, false
	}
	w := 0.0
	if !(w2 < 0) { // so that NaN goes through to the affine, where it is seen
		w = math.Sqrt(w2)
	}
	vox[2] *= qfac(r)
	// nibabel's quat2mat, which normalises.
	s := 2 / (w*w + x*x + y*y + z*z)
	rot := [3][3]float64{
		{1 - s*(y*y+z*z), s * (x*y - w*z), s * (x*z + w*y)},
		{s * (x*y + w*z), 1 - s*(x*x+z*z), s * (y*z - w*x)},
		{s * (x*z - w*y), s * (y*z + w*x), 1 - s*(x*x+y*y)},
	}
	a := Affine{3: {3: 1}}
	for i := range 3 {
		for j := range 3 {
			a[i][j] = rot[i][j] * vox[j]
		}
		a[i][3] = r.qoffset[i]
	}
	return a, true
}

// qfac is pixdim[0] if that is 1 or -1, else 1, as nibabel repairs it.
func qfac(r *raw) float64 {
	if r.pixdim[0] == -1 {
		return -1
	}
	return 1
}

// centredAffine is nibabel's shape_zoom_affine: x flipped, origin in the middle.
func centredAffine(dims, zooms [3]float64) Affine {
	a := Affine{3: {3: 1}}
	zooms[0] = -zooms[0]
	for n := range 3 {
		a[n][n] = zooms[n]
		a[n][3] = -(dims[n] - 1) / 2 * zooms[n]
	}
	return a
}

// analyzeAffine takes SPM's origin if it lies near the image, else the centre.
func analyzeAffine(r *raw, zooms [3]float64) Affine {
	var dims [3]float64
	for n := range 3 {
		dims[n] = float64(r.dim[n+1])
	}
	a := centredAffine(dims, zooms)
	if r.originNear() {
		for n := range 3 {
			a[n][3] = -(r.origin[n] - 1) * a[n][n]
		}
	}
	return a
}

// originNear reports whether SPM's origin is set and lies near the image.
func (r *raw) originNear() bool {
	set, near := false, true
	for n, o := range r.origin {
		dim := float64(r.dim[n+1])
		set = set || o != 0
		near = near && o > -dim && o < 2*dim
	}
	return set && near
}

func finite(x float64) bool { return x-x == 0 }
