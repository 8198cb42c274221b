package report

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"image"

	"github.com/klauspost/compress/zlib"
)

// encodePNG writes an opaque picture. A result waits for it, so that every row
// is stored as its difference from the one above (filter 2), and the first match
// is taken: image/png tries five filters a row, takes twice as long, and saves 4 %.
func encodePNG(img *image.RGBA) ([]byte, error) {
	w, h := img.Rect.Dx(), img.Rect.Dy()
	var pixels bytes.Buffer
	z, err := zlib.NewWriterLevel(&pixels, zlib.BestSpeed)
	if err != nil {
		return nil, err
	}
	row, above := make([]byte, 1+3*w), make([]byte, 4*w)
	row[0] = 2
	for y := range h {
		this := img.Pix[y*img.Stride:][:4*w]
		for x := range w {
			out, a, b := row[1+3*x:][:3], this[4*x:][:3], above[4*x:][:3]
			out[0], out[1], out[2] = a[0]-b[0], a[1]-b[1], a[2]-b[2]
		}
		if _, err := z.Write(row); err != nil {
			return nil, err
		}
		above = this
	}
	if err := z.Close(); err != nil {
		return nil, err
	}

	out := []byte("\x89PNG\r\n\x1a\n")
	chunk := func(kind string, data []byte) {
		out = binary.BigEndian.AppendUint32(out, uint32(len(data)))
		from := len(out)
		out = append(append(out, kind...), data...)
		out = binary.BigEndian.AppendUint32(out, crc32.ChecksumIEEE(out[from:]))
	}
	header := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, uint32(w)), uint32(h))
	chunk("IHDR", append(header, 8, 2, 0, 0, 0)) // 8 bits, RGB, not interlaced
	chunk("IDAT", pixels.Bytes())
	chunk("IEND", nil)
	return out, nil
}
