package nifti

// Verify reads what is left of the image to its end, checksum included, and
// keeps nothing: it returns the error that reading it whole would return. It
// takes the place of Next.
func (rd *Reader) Verify() error {
	part := make([]float32, 1<<15)
	vol := int64(rd.hdr.VolumeLen())
	total := vol * int64(rd.hdr.Volumes())
	for first := int64(rd.next) * vol; first < total && rd.err == nil; {
		dst := part[:min(int64(len(part)), total-first)]
		rd.err = rd.read(dst, first)
		first += int64(len(dst))
	}
	if rd.err == nil && rd.next < rd.hdr.Volumes() {
		rd.next = rd.hdr.Volumes()
		rd.err = rd.src.finish()
	}
	return rd.err
}
