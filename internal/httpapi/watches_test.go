package httpapi

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"sync"
	"testing"
	"time"

	"neuroscreen"
	"neuroscreen/internal/fmri/fmritest"
	"neuroscreen/internal/memory"
	"neuroscreen/internal/nifti"
	"neuroscreen/internal/volume"
)

// oneVolume makes a file of the head that lies mm to the right; seed changes its
// noise.
var oneVolume = sync.OnceValue(func() func(t testing.TB, right bool, seed int) []byte {
	var once sync.Once
	var places [2]*volume.Volume
	return func(t testing.TB, right bool, seed int) []byte {
		once.Do(func() {
			head := fmritest.Head(t)
			g := fmritest.Grid(head, 6)
			places[0] = fmritest.Acquire(head, g)
			g.Affine[0][3] -= 2
			places[1] = fmritest.Acquire(head, g)
		})
		v := places[0]
		if right {
			v = places[1]
		}
		data := make([]int16, v.Len())
		for at, x := range v.Data {
			data[at] = int16(x) + int16((seed*7919+at*31)%5)
		}
		var b bytes.Buffer
		if err := nifti.Write(&b, nifti.Geometry{Shape: v.Shape[:], Affine: nifti.Affine(places[0].Affine), Code: 1}, data); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
})()

func (e *env) watch(key, body string) (Watch, string) {
	e.Helper()
	a := e.do("POST", "/v1/watches", key, withBody("application/json", []byte(body))).want(201, "")
	var w Watch
	a.json(&w)
	return w, a.header.Get("Location")
}

func (e *env) putVolume(key, at string, n int, file []byte) *answer {
	e.Helper()
	return e.do("PUT", fmt.Sprintf("%s/volumes/%d", at, n), key, withBody("application/octet-stream", file))
}

func TestWatch(t *testing.T) {
	e := setup(t)
	key := e.a.keys[uploader]
	w, at := e.watch(key, `{"tr_s":2,"expect":150}`)
	if w.NextVolume != 1 || w.Summary.Expect != 150 || len(w.Volumes) != 0 || at != "/v1/watches/"+w.ID.String() {
		t.Errorf("%+v", w)
	}
	var v neuroscreen.WatchedVolume
	for n := 1; n <= 4; n++ {
		e.putVolume(key, at, n, oneVolume(t, n == 4, n)).want(200, "").json(&v)
		want := 0.0
		if n == 4 {
			want = 2
		}
		if v.Volume != n || math.Abs(v.FDMM-want) > 0.1 || v.Outlier != (n == 4) || v.Reference != (n == 1) {
			t.Errorf("volume %d: %+v", n, v)
		}
	}
	// 6 and 7 come before 5, 4 comes again, and once with other bytes.
	e.putVolume(key, at, 6, oneVolume(t, true, 6)).want(202, "")
	e.putVolume(key, at, 7, oneVolume(t, true, 7)).want(202, "")
	e.putVolume(key, at, 7, oneVolume(t, true, 7)).want(202, "")
	e.putVolume(key, at, 7, oneVolume(t, true, 8)).want(409, "volume-differs")
	e.putVolume(key, at, 4, oneVolume(t, true, 4)).want(200, "").json(&v)
	if v.Volume != 4 || !v.Outlier {
		t.Errorf("again: %+v", v)
	}
	e.putVolume(key, at, 4, oneVolume(t, true, 5)).want(409, "volume-differs")
	e.do("GET", at, key).want(200, "").json(&w)
	if w.NextVolume != 5 || fmt.Sprint(w.Waiting) != "[6 7]" {
		t.Errorf("next %d, waiting %v", w.NextVolume, w.Waiting)
	}
	for n := 8; n <= 13; n++ {
		e.putVolume(key, at, n, oneVolume(t, true, n)).want(202, "")
	}
	e.putVolume(key, at, 14, oneVolume(t, true, 14)).want(409, "volume-ahead")
	e.putVolume(key, at, 5, oneVolume(t, true, 5)).want(200, "")
	e.do("GET", at, key).want(200, "").json(&w)
	if w.NextVolume != 14 || len(w.Waiting) != 0 || len(w.Volumes) != 13 || w.Summary.OutlierFrames != 1 || w.Summary.TSNR == nil || w.Volumes[12].Volume != 13 {
		t.Errorf("%+v", w)
	}
	e.do("DELETE", at, key).want(204, "")
	e.do("GET", at, key).want(404, "watch-not-found")
	e.putVolume(key, at, 14, oneVolume(t, true, 14)).want(404, "watch-not-found")
}

func TestWatchRefusesVolumes(t *testing.T) {
	e := setup(t)
	key := e.a.keys[uploader]
	_, at := e.watch(key, `{"tr_s":2}`)
	var run bytes.Buffer
	if err := nifti.Write(&run, nifti.Geometry{Shape: []int{4, 4, 4, 2}, Affine: nifti.Affine(volume.Identity), Code: 1}, make([]int16, 128)); err != nil {
		t.Fatal(err)
	}
	whole := oneVolume(t, false, 1)
	e.putVolume(key, at, 1, run.Bytes()).want(422, "not-3d")
	e.putVolume(key, at, 1, []byte("no image, but some text that is longer than nothing at all")).want(422, "not-nifti")
	e.putVolume(key, at, 1, whole[:len(whole)/2]).want(422, "")
	e.putVolume(key, at, 1, image(t, 1)).want(422, "not-aligned") // too few voxels for a head
	e.putVolume(key, at, 1, whole).want(200, "")
	e.putVolume(key, at, 2, image(t, 1)).want(422, "grids-differ")
	e.putVolume(key, at, 2, oneVolume(t, false, 2)).want(200, "")
	e.putVolume(key, at, 0, whole).want(404, "")
	e.do("POST", "/v1/watches", key, withBody("application/json", []byte(`{"tr_s":0}`))).want(400, "invalid-value")
	e.do("POST", "/v1/watches", key, withBody("application/json", []byte(`{}`))).want(400, "missing-field")
}

// TestWatchRefusesAffines that have no inverse: motion could not be told.
func TestWatchRefusesAffines(t *testing.T) {
	e := setup(t)
	key := e.a.keys[uploader]
	_, at := e.watch(key, `{"tr_s":2}`)
	whole := gunzip(t, oneVolume(t, false, 1))
	for name, z := range map[string]float64{"singular": 0, "not finite": math.NaN(), "another size": 12} {
		file := bytes.Clone(whole)
		binary.LittleEndian.PutUint32(file[312+8:], math.Float32bits(float32(z))) // srow_z[2]
		a := e.putVolume(key, at, 1, file).want(422, "unusable-affine")
		if got := val(a.problem.Field); got != "sform" {
			t.Errorf("%s: field %q", name, got)
		}
	}
	e.putVolume(key, at, 1, whole).want(200, "")
}

func TestWatchOfAnotherSite(t *testing.T) {
	e := setup(t)
	_, at := e.watch(e.a.keys[uploader], `{"tr_s":2}`)
	for _, method := range []string{"GET", "DELETE"} {
		e.do(method, at, e.b.keys[admin]).want(404, "watch-not-found")
	}
	e.putVolume(e.b.keys[admin], at, 1, oneVolume(t, false, 1)).want(404, "watch-not-found")
	e.do("GET", at, e.a.keys[clinician]).want(200, "")
}

func TestWatchesAreBounded(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	var mu sync.Mutex
	gate := memory.NewGate(100 << 20) // room for four small ones
	e := setup(t, func(c *Config) {
		c.Now = func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
		c.Memory, c.MemoryIn = gate, 10*time.Millisecond
	})
	advance := func(d time.Duration) { mu.Lock(); defer mu.Unlock(); now = now.Add(d) }
	key := e.a.keys[uploader]
	var first string
	for n := range maxSiteWatches {
		_, at := e.watch(key, `{"tr_s":2}`)
		if n == 0 {
			first = at
		}
	}
	e.do("POST", "/v1/watches", key, withBody("application/json", []byte(`{"tr_s":2}`))).want(429, "too-many-watches")
	e.watch(e.b.keys[uploader], `{"tr_s":2}`) // another site has its own

	leave, err := gate.Enter(t.Context(), 100<<20)
	if err != nil {
		t.Fatal(err)
	}
	e.putVolume(key, first, 1, oneVolume(t, false, 1)).want(503, "memory-busy")
	leave()
	e.putVolume(key, first, 1, oneVolume(t, false, 1)).want(200, "")
	if gate.Used() == 0 {
		t.Error("a watch takes no memory")
	}
	advance(watchRests - time.Minute)
	e.putVolume(key, first, 2, oneVolume(t, false, 2)).want(200, "")
	advance(watchRests - time.Minute)
	e.do("GET", first, key).want(200, "") // reading does not keep it
	advance(2 * time.Minute)
	e.do("GET", first, key).want(404, "watch-not-found")
	if gate.Used() != 0 {
		t.Errorf("%d bytes are still taken", gate.Used())
	}
}
