package nifti

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// ReadFile reads an image whole, within DefaultLimits. Given one file of an
// .hdr/.img pair, it finds the other beside it.
func ReadFile(path string) (*Image, error) {
	rd, err := Open(path, Limits{})
	if err != nil {
		return nil, err
	}
	defer rd.Close()
	return rd.Image()
}

// Open opens an image to be read volume by volume. The caller closes it.
func Open(path string, lim Limits) (_ *Reader, err error) {
	hdr, img, err := Files(path)
	if err != nil {
		return nil, err
	}
	var files []*os.File
	defer func() {
		if err != nil {
			for _, f := range files {
				f.Close()
			}
		}
	}()
	for _, p := range []string{hdr, img} {
		if p == "" {
			continue
		}
		f, err := os.Open(p)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	var rd *Reader
	if hdr == "" {
		rd, err = NewReader(files[0], lim)
	} else {
		rd, err = NewPairReader(files[0], files[1], lim)
	}
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		rd.files = append(rd.files, f)
	}
	return rd, nil
}

// Files returns the header's and the data's file of the image that path is a
// part of; hdr is empty for a single file, and for an .hdr without its .img,
// which NewReader refuses by name.
func Files(path string) (hdr, img string, err error) {
	stem, gz := path, ""
	if strings.EqualFold(filepath.Ext(stem), ".gz") {
		stem, gz = stem[:len(stem)-3], stem[len(stem)-3:]
	}
	ext := filepath.Ext(stem)
	stem = stem[:len(stem)-len(ext)]
	switch strings.ToLower(ext) {
	case ".hdr":
		if img = firstExisting(stem, partner(ext, "img"), gz); img != "" {
			return path, img, nil
		}
		return "", path, nil
	case ".img":
		if hdr = firstExisting(stem, partner(ext, "hdr"), gz); hdr != "" {
			return hdr, path, nil
		}
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return "", "", err
		}
		return "", "", errorf(TypeNoHeader, "", "this is the .img file of a pair; the .hdr file that belongs to it is missing")
	}
	return "", path, nil
}

// partner writes the extension want in the case of ext.
func partner(ext, want string) string {
	if ext == strings.ToUpper(ext) {
		want = strings.ToUpper(want)
	}
	return "." + want
}

// firstExisting prefers the partner that is compressed as the given file is.
func firstExisting(stem, ext, gz string) string {
	for _, z := range []string{gz, ".gz", ""} {
		if st, err := os.Stat(stem + ext + z); err == nil && st.Mode().IsRegular() {
			return stem + ext + z
		}
	}
	return ""
}
