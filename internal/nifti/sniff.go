package nifti

import (
	"bytes"
	"encoding/binary"
	"unicode/utf8"
)

// signature recognises a file that is often sent instead of a NIfTI one.
type signature struct {
	at     int
	prefix string
	what   string
}

var signatures = []signature{
	{0, "version https://git-lfs", "a Git LFS pointer, a text that stands for the image; fetch the image itself (git lfs pull)"},
	{128, "DICM", "a DICOM file; convert the series to NIfTI (dcm2niix)"},
	{0, gzipMagic, "compressed twice; decompress it once"},
	{0, "PK\x03\x04", "a ZIP archive; unpack it and send the image"},
	{257, "ustar", "a tar archive; unpack it and send the image"},
	{0, "BZh", "compressed with bzip2; use gzip or send it uncompressed"},
	{0, "\xfd7zXZ\x00", "compressed with xz; use gzip or send it uncompressed"},
	{0, "\x28\xb5\x2f\xfd", "compressed with zstd; use gzip or send it uncompressed"},
	{0, "7z\xbc\xaf\x27\x1c", "a 7-Zip archive; unpack it and send the image"},
	{0, "\x89HDF\r\n\x1a\n", "MINC 2 or another HDF5 file; convert it to NIfTI (mnc2nii)"},
	{0, "CDF\x01", "MINC 1 or another NetCDF file; convert it to NIfTI (mnc2nii)"},
	{0, "CDF\x02", "MINC 1 or another NetCDF file; convert it to NIfTI (mnc2nii)"},
	{0, "NRRD000", "NRRD; convert it to NIfTI"},
	{0, "MATRIX7", "an ECAT file; convert it to NIfTI"},
	{0, "ObjectType", "MetaImage (.mha or .mhd); convert it to NIfTI"},
	{0, "# === DATA DESCRIPTION FILE", "a Philips PAR file; convert PAR and REC to NIfTI (dcm2niix)"},
	{0, "\x89PNG", "a PNG picture; send the scan itself"},
	{0, "\xff\xd8\xff", "a JPEG picture; send the scan itself"},
	{0, "%PDF", "a PDF document; send the scan itself"},
	{0, "#!", "a script"},
	{0, "<?xml", "an XML text"},
	{0, "{", "a JSON text; if it is the side file of a scan, send the scan itself"},
}

// notNIfTI says what b, the start of a file, looks like.
func notNIfTI(b []byte) *Error {
	for _, s := range signatures {
		if len(b) > s.at && bytes.HasPrefix(b[s.at:], []byte(s.prefix)) {
			return errorf(TypeNotNIfTI, "", "not a NIfTI file: it looks like %s", s.what)
		}
	}
	what := ""
	lower := bytes.ToLower(bytes.TrimSpace(b))
	switch {
	case bytes.HasPrefix(lower, []byte("<!doctype html")), bytes.HasPrefix(lower, []byte("<html")):
		what = "it looks like a web page (perhaps a login or error page saved in place of the download)"
	case bytes.Contains(lower, []byte("type  = string-attribute")), bytes.Contains(lower, []byte("type = string-attribute")):
		what = "it looks like an AFNI .HEAD file; convert HEAD and BRIK to NIfTI (3dAFNItoNIFTI)"
	case isMGH(b):
		what = "it looks like FreeSurfer MGH/MGZ; convert it to NIfTI (mri_convert)"
	case isText(b):
		what = "it is a text"
	case len(bytes.Trim(b, "\x00")) == 0:
		what = "it begins with nothing but zeros; the transfer or the disk it came from probably failed"
	default:
		what = "neither sizeof_hdr nor magic are those of NIfTI-1, NIfTI-2 or ANALYZE 7.5"
	}
	return errorf(TypeNotNIfTI, "magic", "not a NIfTI file: %s", what)
}

// isMGH: version 1, then width, height, depth, frames and a type of 0, 1, 3 or
// 4, all big-endian (FreeSurfer's mghformat.h). There is no magic.
func isMGH(b []byte) bool {
	if len(b) < 24 || binary.BigEndian.Uint32(b) != 1 {
		return false
	}
	for n := 1; n <= 4; n++ {
		if d := binary.BigEndian.Uint32(b[4*n:]); d == 0 || d > 1<<16 {
			return false
		}
	}
	return binary.BigEndian.Uint32(b[20:]) <= 4
}

func isText(b []byte) bool {
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		if r == utf8.RuneError && n == 1 && len(b) >= utf8.UTFMax || r < ' ' && r != '\n' && r != '\r' && r != '\t' {
			return false
		}
		b = b[n:]
	}
	return true
}
