package httpapi

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"neuroscreen"
	"neuroscreen/internal/fmri"
	"neuroscreen/internal/memory"
	"neuroscreen/internal/nifti"
	"neuroscreen/internal/qc"
	"neuroscreen/internal/store"
	"neuroscreen/internal/volume"
)

const (
	maxWatches     = 8       // of all sites: each takes memory
	maxSiteWatches = 4       // of one
	maxVolume      = 1 << 20 // voxels
	maxVolumeBytes = 64 << 20
	maxAhead       = 8 // volumes that wait for others before them
	watchRests     = 30 * time.Minute
	watchLasts     = 6 * time.Hour
)

// watches are the runs that are followed just now. They live in memory only.
type watches struct {
	memory *memory.Gate
	now    func() time.Time

	mu sync.Mutex
	of map[uuid.UUID]*watch
}

type watch struct {
	id, site uuid.UUID
	tr       float64

	mu      sync.Mutex // of what follows
	run     *fmri.Watch
	volumes []neuroscreen.WatchedVolume
	sums    [][sha256.Size]byte // of their bytes
	ahead   map[int]aheadVolume // by number
	leave   func()              // gives its memory back; nil before the first volume
	gone    bool

	began, used time.Time   // under watches.mu
	forget      *time.Timer // when it was not used for long
}

type aheadVolume struct {
	grid volume.Grid
	data []float32
	sum  [sha256.Size]byte
}

func newWatches(gate *memory.Gate, now func() time.Time) *watches {
	return &watches{memory: gate, now: now, of: map[uuid.UUID]*watch{}}
}

func (w *watches) create(site uuid.UUID, tr float64, expect int) (*watch, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	here := 0
	for _, x := range w.of {
		if x.site == site {
			here++
		}
	}
	if here >= maxSiteWatches || len(w.of) >= maxWatches {
		return nil, neuroscreen.Errorf(neuroscreen.CodeBusy, "too-many-watches", "%d runs are watched; delete one that has ended", len(w.of))
	}
	now := w.now()
	x := &watch{id: id, site: site, tr: tr, run: fmri.NewWatch(tr, expect), ahead: map[int]aheadVolume{}, began: now, used: now}
	x.forget = time.AfterFunc(watchRests, func() { w.remove(id) })
	w.of[id] = x
	return x, nil
}

// find returns a watch of the site; used, if a volume comes for it.
func (w *watches) find(site, id uuid.UUID, used bool) (*watch, error) {
	w.mu.Lock()
	x := w.of[id]
	if x == nil || x.site != site {
		w.mu.Unlock()
		return nil, neuroscreen.Errorf(neuroscreen.CodeNotFound, "watch-not-found", "there is no such watch on this server")
	}
	now := w.now()
	old := now.After(x.expires())
	if used && !old {
		x.used = now
		x.forget.Reset(x.expires().Sub(now))
	}
	w.mu.Unlock()
	if old {
		w.remove(id)
		return w.find(site, id, false)
	}
	return x, nil
}

func (x *watch) expires() time.Time {
	end := x.used.Add(watchRests)
	if last := x.began.Add(watchLasts); end.After(last) {
		return last
	}
	return end
}

// remove forgets a watch once nobody is at it.
func (w *watches) remove(id uuid.UUID) {
	w.mu.Lock()
	x := w.of[id]
	delete(w.of, id)
	w.mu.Unlock()
	if x == nil {
		return
	}
	x.forget.Stop()
	x.mu.Lock()
	defer x.mu.Unlock()
	x.gone = true
	if x.leave != nil {
		x.leave()
	}
}

func (w *watches) close() {
	w.mu.Lock()
	var ids []uuid.UUID
	for id := range w.of {
		ids = append(ids, id)
	}
	w.mu.Unlock()
	for _, id := range ids {
		w.remove(id)
	}
}

// put takes volume n, from 1. It returns nil when the volume waits for others.
func (x *watch) put(ctx context.Context, gate *memory.Gate, n int, v aheadVolume) (*neuroscreen.WatchedVolume, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	differs := neuroscreen.Errorf(neuroscreen.CodeConflict, "volume-differs", "volume %d came before with other bytes", n)
	next := len(x.volumes) + 1
	switch {
	case x.gone:
		return nil, neuroscreen.Errorf(neuroscreen.CodeNotFound, "watch-not-found", "there is no such watch on this server")
	case n < next && x.sums[n-1] != v.sum:
		return nil, differs
	case n < next:
		return &x.volumes[n-1], nil
	}
	if waits, ok := x.ahead[n]; ok && waits.sum != v.sum {
		return nil, differs
	}
	if x.leave == nil {
		need := fmri.WatchMemory(len(v.data)) + maxAhead*4*int64(len(v.data))
		leave, err := gate.Enter(ctx, need)
		switch {
		case errors.Is(err, memory.ErrNever):
			return nil, neuroscreen.Errorf(neuroscreen.CodeTooLarge, "too-much-memory", "to watch volumes of %v voxels takes more memory than this server has", v.grid.Shape)
		case err != nil:
			return nil, neuroscreen.Errorf(neuroscreen.CodeUnavailable, "memory-busy", "there is no memory for it just now; send it again")
		}
		x.leave = leave
	}
	if n > next {
		if _, ok := x.ahead[n]; !ok && len(x.ahead) >= maxAhead {
			return nil, neuroscreen.Errorf(neuroscreen.CodeConflict, "volume-ahead", "volume %d must come first; %d wait for it already", next, len(x.ahead))
		}
		x.ahead[n] = v
		return nil, nil
	}
	out, err := x.add(v)
	if err != nil {
		return nil, err
	}
	for {
		next := len(x.volumes) + 1
		v, ok := x.ahead[next]
		if !ok {
			return out, nil
		}
		delete(x.ahead, next)
		if _, err := x.add(v); err != nil {
			return out, nil // it may be sent again, and is told then
		}
	}
}

func (x *watch) add(v aheadVolume) (*neuroscreen.WatchedVolume, error) {
	out, err := x.run.Add(v.grid, v.data)
	if err != nil {
		return nil, err
	}
	x.volumes, x.sums = append(x.volumes, out), append(x.sums, v.sum)
	return &out, nil
}

func (s *Server) CreateWatch(ctx context.Context, req CreateWatchRequestObject) (CreateWatchResponseObject, error) {
	x, err := s.watches.create(siteID(ctx), req.Body.TrS, val(req.Body.Expect))
	if err != nil {
		return nil, err
	}
	if err := s.auditWatch(ctx, "watch.create", x.id); err != nil {
		s.watches.remove(x.id)
		return nil, err
	}
	return CreateWatch201JSONResponse{Body: s.watchOf(x), Headers: CreateWatch201ResponseHeaders{Location: "/v1/watches/" + x.id.String()}}, nil
}

func (s *Server) auditWatch(ctx context.Context, action string, id uuid.UUID) error {
	return s.cfg.Store.AppendAudit(ctx, siteID(ctx), store.AuditEntry{Actor: actor(ctx), Action: action, Object: "watch:" + id.String()})
}

func (s *Server) GetWatch(ctx context.Context, req GetWatchRequestObject) (GetWatchResponseObject, error) {
	x, err := s.watches.find(siteID(ctx), req.WatchID, false)
	if err != nil {
		return nil, err
	}
	return GetWatch200JSONResponse(s.watchOf(x)), nil
}

func (s *Server) DeleteWatch(ctx context.Context, req DeleteWatchRequestObject) (DeleteWatchResponseObject, error) {
	x, err := s.watches.find(siteID(ctx), req.WatchID, false)
	if err != nil {
		return nil, err
	}
	s.watches.remove(x.id)
	return DeleteWatch204Response{}, s.auditWatch(ctx, "watch.delete", x.id)
}

// PutWatchVolume answers with what the volume looks like.
func (s *Server) PutWatchVolume(ctx context.Context, req PutWatchVolumeRequestObject) (PutWatchVolumeResponseObject, error) {
	x, err := s.watches.find(siteID(ctx), req.WatchID, true)
	if err != nil {
		return nil, err
	}
	v, err := readVolume(exchangeFrom(ctx).req)
	if err != nil {
		return nil, err
	}
	waiting, cancel := context.WithTimeout(ctx, s.cfg.MemoryIn)
	defer cancel()
	out, err := x.put(waiting, s.cfg.Memory, req.Volume, v)
	switch {
	case err != nil:
		return nil, err
	case out == nil:
		return PutWatchVolume202Response{}, nil
	}
	return PutWatchVolume200JSONResponse(*out), nil
}

// readVolume reads one 3-D volume.
func readVolume(r *http.Request) (v aheadVolume, err error) {
	sum := sha256.New()
	body := io.TeeReader(bodyReader{http.MaxBytesReader(nil, r.Body, maxVolumeBytes), maxVolumeBytes}, sum)
	rd, err := nifti.NewReader(body, nifti.Limits{MaxBytes: maxVolumeBytes, MaxVoxels: maxVolume})
	if err != nil {
		return v, err
	}
	defer rd.Close()
	h := rd.Header()
	if h.Volumes() != 1 {
		return v, neuroscreen.Errorf(neuroscreen.CodeUnprocessable, "not-3d", "the image's shape is %v; send one volume at a time", h.Shape)
	}
	if err := qc.CheckAffine(h); err != nil {
		return v, err // motion is measured in its mm
	}
	v.grid, v.data = volume.Grid{Shape: h.Shape3(), Affine: volume.Affine(h.Affine)}, make([]float32, h.VolumeLen())
	if err := rd.Next(v.data); err != nil {
		return v, err
	}
	if _, err := io.Copy(io.Discard, body); err != nil {
		return v, err
	}
	sum.Sum(v.sum[:0])
	return v, nil
}

func (s *Server) watchOf(x *watch) Watch {
	s.watches.mu.Lock()
	expires := x.expires()
	s.watches.mu.Unlock()
	x.mu.Lock()
	defer x.mu.Unlock()
	out := Watch{ID: x.id, TrS: x.tr, NextVolume: len(x.volumes) + 1, Waiting: []int{}, Volumes: slices.Clone(orEmpty(x.volumes)), Summary: x.run.Summary(false), ExpiresAt: expires.UTC()}
	for n := range x.ahead {
		out.Waiting = append(out.Waiting, n)
	}
	slices.Sort(out.Waiting)
	return out
}
