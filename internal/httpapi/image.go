package httpapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"

	"neuroscreen"
	"neuroscreen/internal/memory"
	"neuroscreen/internal/nifti"
	"neuroscreen/internal/store"
)

// maxShown bounds a volume that is made ready for the viewer: a head of half a
// millimetre fits.
const maxShown = 512 * 512 * 512

// GetImage reads the stored scan and writes it anew, with the affine that the
// analysis used: a viewer may otherwise prefer another of the header's two and
// show the labels beside the anatomy.
func (s *Server) GetImage(ctx context.Context, req GetImageRequestObject) (GetImageResponseObject, error) {
	rec, err := s.cfg.Store.Scan(ctx, siteID(ctx), req.ScanID)
	if err != nil {
		return nil, err
	}
	if rec.Size == 0 {
		return nil, s.explain(ctx, req.ScanID, neuroscreen.Errorf(neuroscreen.CodeConflict, "no-bytes", "no image of this scan ever came; send the series again, it is then a scan of its own"))
	}
	if rec.BytesRemoved != nil {
		return nil, s.explain(ctx, req.ScanID, neuroscreen.Errorf(neuroscreen.CodeConflict, "scan-bytes-removed", "the scan's bytes are kept for a time only and are gone; the picture of the labels is left"))
	}
	tag := etag(rec.SHA256+"-image", false)
	var out GetImageResponseObject = notModifiedResponse{tag}
	if !notModified(ctx, tag) {
		done, err := s.show(ctx)
		if err != nil {
			return nil, err
		}
		defer done()
		geometry, voxels, err := s.voxels(ctx, rec)
		if err != nil {
			return nil, err
		}
		out = imageResponse{tag, geometry, voxels}
	}
	return out, s.audit(ctx, scanObject(req.ScanID), "")
}

// show waits until no other image is in memory for being shown.
func (s *Server) show(ctx context.Context) (done func(), err error) {
	select {
	case s.showing <- struct{}{}:
		return func() { <-s.showing }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// voxels reads the first volume of a scan, once there is memory for it: 4 bytes
// a voxel as it is read, and 2 as it is sent, until the request has ended.
func (s *Server) voxels(ctx context.Context, rec store.ScanRecord) (nifti.Geometry, []int16, error) {
	none := nifti.Geometry{}
	blob, err := s.cfg.Blobs.Open(ctx, rec.BlobKey)
	if err != nil {
		return none, nil, fmt.Errorf("scan %s: %v", rec.ID, err) // ours, not the client's
	}
	defer blob.Close()
	var header io.Reader
	if rec.HeaderBlobKey != "" {
		f, err := s.cfg.Blobs.Open(ctx, rec.HeaderBlobKey)
		if err != nil {
			return none, nil, fmt.Errorf("header of scan %s: %v", rec.ID, err)
		}
		defer f.Close()
		header = f
	}
	rd, err := nifti.NewReaderOf(blob, header, s.cfg.Limits.Image)
	if err != nil {
		return none, nil, cannotShow(err)
	}
	defer rd.Close()
	h := rd.Header()
	n := int64(h.VolumeLen())
	if n > maxShown || s.cfg.Memory != nil && 6*n > s.cfg.Memory.Size() {
		return none, nil, neuroscreen.Errorf(neuroscreen.CodeUnprocessable, "too-many-voxels", "the image is too large to be shown in a browser")
	}
	sent, err := s.room(ctx, 2*n)
	if err != nil {
		return none, nil, err
	}
	context.AfterFunc(ctx, sent)
	read, err := s.room(ctx, 4*n)
	if err != nil {
		return none, nil, err
	}
	defer read()
	data := make([]float32, h.VolumeLen())
	if err := rd.Next(data); err != nil {
		return none, nil, cannotShow(err)
	}
	return h.Geometry(), sixteenBits(data), nil
}

// room waits for memory. Errors: CodeUnavailable "memory-busy";
// CodeUnprocessable "too-many-voxels" for more than there is in all.
func (s *Server) room(ctx context.Context, bytes int64) (leave func(), err error) {
	waiting, cancel := context.WithTimeout(ctx, s.cfg.MemoryIn)
	defer cancel()
	leave, err = s.cfg.Memory.Enter(waiting, bytes)
	switch {
	case errors.Is(err, memory.ErrNever):
		return nil, neuroscreen.Errorf(neuroscreen.CodeUnprocessable, "too-many-voxels", "the image takes more memory than the server has")
	case err != nil && ctx.Err() == nil:
		return nil, &neuroscreen.Error{Code: neuroscreen.CodeUnavailable, Type: "memory-busy", Message: "the server has no memory free for this; try again later", Err: err}
	}
	return leave, err
}

// cannotShow: the file's fault is said, the disk's is ours.
func cannotShow(err error) error {
	if e, ok := errors.AsType[*nifti.Error](err); ok {
		return imageError(e)
	}
	return fmt.Errorf("read a scan: %v", err)
}

// sixteenBits keeps whole numbers that fit as they are, because a reader knows
// the scanner's grey values, and spreads others over the range. What is not
// finite becomes 0.
func sixteenBits(data []float32) []int16 {
	lo, hi, whole := float32(math.Inf(1)), float32(math.Inf(-1)), true
	for _, v := range data {
		if v-v != 0 {
			continue
		}
		lo, hi = min(lo, v), max(hi, v)
		whole = whole && v == float32(int32(v))
	}
	offset, scale := float32(0), float32(1)
	if !whole || lo < math.MinInt16 || hi > math.MaxInt16 {
		const top = 4095
		offset, scale = lo, 0
		if hi > lo {
			scale = top / (hi - lo)
		}
	}
	out := make([]int16, len(data))
	for n, v := range data {
		if v-v == 0 {
			out[n] = int16(math.Round(float64((v - offset) * scale)))
		}
	}
	return out
}

type imageResponse struct {
	tag      string
	geometry nifti.Geometry
	voxels   []int16
}

func (i imageResponse) VisitGetImageResponse(w http.ResponseWriter) error {
	h := w.Header()
	h.Set("Content-Type", "application/gzip")
	setCaching(h, i.tag)
	w.WriteHeader(http.StatusOK)
	if err := nifti.Write(w, i.geometry, i.voxels); err != nil {
		panic(http.ErrAbortHandler) // the client must not take a part for the whole
	}
	return nil
}
