package httpapi

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"neuroscreen/internal/resumable"
)

var tus = header("Tus-Resumable", "1.0.0")

// begin creates an upload of a length and returns its address.
func (e *env) begin(key string, length int) string {
	e.Helper()
	a := e.do("POST", "/v1/uploads", key, tus, header("Upload-Length", strconv.Itoa(length)), header("Upload-Metadata", "filename U1VCSi0xNw=="))
	a.want(201, "")
	if a.header.Get("Tus-Resumable") != "1.0.0" {
		e.Errorf("Tus-Resumable %q", a.header.Get("Tus-Resumable"))
	}
	return a.header.Get("Location")
}

func (e *env) piece(at, key string, offset int, b []byte) *answer {
	e.Helper()
	return e.do("PATCH", at, key, tus, withBody("application/offset+octet-stream", b), header("Upload-Offset", strconv.Itoa(offset)))
}

func (e *env) offset(at, key string) int {
	e.Helper()
	a := e.do("HEAD", at, key, tus)
	a.want(200, "")
	n, err := strconv.Atoi(a.header.Get("Upload-Offset"))
	if err != nil {
		e.Error(err)
	}
	return n
}

func (e *env) finishPieces(at, key, subject, digest string, edit ...func(*http.Request)) *answer {
	e.Helper()
	edit = append(edit, withBody("application/json", metadata(map[string]any{"subject_id": subject})), header("Content-Digest", digest))
	return e.do("POST", at+"/scan", key, edit...)
}

func TestUploadInPieces(t *testing.T) {
	e := setup(t)
	key := e.a.keys[uploader]
	file := image(t, 1)
	at := e.begin(key, len(file))
	if !strings.HasPrefix(at, "/v1/uploads/") {
		t.Fatalf("Location %q", at)
	}
	e.piece(at, key, 0, file[:100]).want(204, "")
	if n := e.offset(at, key); n != 100 {
		t.Errorf("offset %d", n)
	}
	e.piece(at, key, 0, file[:100]).want(409, "upload-offset")
	e.piece(at, key, 50, file[50:]).want(409, "upload-offset")
	e.finishPieces(at, key, "SUBJ-17", digestOf(file)).want(409, "upload-incomplete")
	e.piece(at, key, 100, append(file[100:], 'x')).want(413, "body-too-large")
	if n := e.offset(at, key); n < len(file) {
		e.piece(at, key, n, file[n:]).want(204, "")
	}
	a := e.finishPieces(at, key, "SUBJ-17", digestOf(file), header("Idempotency-Key", "one"))
	a.want(202, "")
	var scan Scan
	a.json(&scan)
	if a.header.Get("Location") != "/v1/scans/"+scan.ID.String() || scan.Bytes != int64(len(file)) {
		t.Errorf("%s %+v", a.header.Get("Location"), scan)
	}
	e.do("HEAD", at, key, tus).want(404, "upload-not-found")
	e.finishPieces(at, key, "SUBJ-17", digestOf(file)).want(404, "upload-not-found")
	t.Run("the same call again, its answer was lost", func(t *testing.T) {
		e := e.in(t)
		again := e.finishPieces(at, key, "SUBJ-17", digestOf(file), header("Idempotency-Key", "one")).want(200, "")
		var same Scan
		again.json(&same)
		if again.header.Get("Location") != a.header.Get("Location") || same.ID != scan.ID || len(same.MetadataDiffers) > 0 {
			t.Errorf("%s %+v", again.header.Get("Location"), same)
		}
		e.finishPieces(at, key, "SUBJ-18", digestOf(file), header("Idempotency-Key", "one")).want(422, "idempotency-key-reused")
		e.finishPieces(at, key, "SUBJ-17", digestOf(file[1:]), header("Idempotency-Key", "one")).want(422, "idempotency-key-reused")
		e.finishPieces(at, key, "SUBJ-17", digestOf(file), header("Idempotency-Key", "two")).want(404, "upload-not-found")
		e.finishPieces(at, e.b.keys[uploader], "SUBJ-17", digestOf(file), header("Idempotency-Key", "one")).want(404, "upload-not-found")
	})

	// The same bytes by another way are the same scan.
	e.post(&e.a, []part{{name: "metadata", body: metadata(map[string]any{"subject_id": "SUBJ-17"})}, {name: "scan", file: "x.nii.gz", body: file}}).want(200, "")
	again := e.begin(key, len(file))
	e.piece(again, key, 0, file).want(204, "")
	e.finishPieces(again, key, "SUBJ-17", digestOf(file)).want(200, "")
}

func TestUploadInPiecesRefused(t *testing.T) {
	e := setup(t)
	key := e.a.keys[uploader]
	file := image(t, 1)
	whole := func(b []byte) string {
		at := e.begin(key, len(b))
		e.piece(at, key, 0, b).want(204, "")
		return at
	}
	t.Run("another version", func(t *testing.T) {
		e := e.in(t)
		e.do("POST", "/v1/uploads", key, header("Tus-Resumable", "0.2.2"), header("Upload-Length", "10")).want(400, "")
		e.do("POST", "/v1/uploads", key, header("Upload-Length", "10")).want(400, "")
	})
	t.Run("too large", func(t *testing.T) {
		e.in(t).do("POST", "/v1/uploads", key, tus, header("Upload-Length", "99999999")).want(413, "body-too-large")
	})
	t.Run("another media type", func(t *testing.T) {
		e := e.in(t)
		e.do("PATCH", e.begin(key, 10), key, tus, withBody("text/plain", []byte("x")), header("Upload-Offset", "0")).want(415, "unsupported-media-type")
	})
	t.Run("other bytes than announced", func(t *testing.T) {
		e := e.in(t)
		at := whole(file)
		e.finishPieces(at, key, "SUBJ-17", digestOf(file[1:])).want(400, "digest-mismatch")
		e.do("HEAD", at, key, tus).want(404, "")
	})
	t.Run("no scan", func(t *testing.T) {
		e := e.in(t)
		at := whole([]byte("not a scan at all"))
		e.finishPieces(at, key, "SUBJ-17", digestOf([]byte("not a scan at all"))).want(422, "")
		e.do("HEAD", at, key, tus).want(404, "")
	})
	t.Run("wrong metadata leave it there", func(t *testing.T) {
		e := e.in(t)
		at := whole(file)
		e.finishPieces(at, key, "", digestOf(file)).want(400, "")
		e.do("POST", at+"/scan", key, withBody("application/json", metadata(nil))).want(400, "")
		e.finishPieces(at, key, "SUBJ-17", "md5=:x:").want(400, "invalid-digest")
		e.finishPieces(at, key, "SUBJ-17", digestOf(file)).want(202, "")
	})
	t.Run("deleted", func(t *testing.T) {
		e := e.in(t)
		at := e.begin(key, 10)
		e.do("DELETE", at, key, tus).want(204, "")
		e.do("HEAD", at, key, tus).want(404, "")
	})
	t.Run("another site's", func(t *testing.T) {
		e := e.in(t)
		at, other := whole(file), e.b.keys[uploader]
		e.do("HEAD", at, other, tus).want(404, "")
		e.piece(at, other, 0, file).want(404, "upload-not-found")
		e.finishPieces(at, other, "SUBJ-17", digestOf(file)).want(404, "upload-not-found")
		e.do("DELETE", at, other, tus).want(404, "upload-not-found")
		if n := e.offset(at, key); n != len(file) {
			t.Errorf("offset %d", n)
		}
	})
	t.Run("too many unfinished", func(t *testing.T) {
		e := e.in(t)
		key := e.b.keys[uploader]
		for range 100 {
			e.begin(key, 10)
		}
		a := e.do("POST", "/v1/uploads", key, tus, header("Upload-Length", "10"))
		a.want(429, "too-many-uploads")
		if a.header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
	})
}

// TestPieceCutShort: what came before the connection broke counts, and the
// client goes on behind it.
func TestPieceCutShort(t *testing.T) {
	e := setup(t)
	key := e.a.keys[uploader]
	file := image(t, 1)
	at := e.begin(key, len(file))
	conn, err := net.Dial("tcp", strings.TrimPrefix(e.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "PATCH %s HTTP/1.1\r\nHost: x\r\nX-API-Key: %s\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\nContent-Type: application/offset+octet-stream\r\nContent-Length: %d\r\n\r\n", at, key, len(file))
	conn.Write(file[:200])
	conn.(*net.TCPConn).CloseWrite()
	io.Copy(io.Discard, conn)
	conn.Close()
	n := e.offset(at, key)
	if n != 200 {
		t.Errorf("offset %d after 200 bytes", n)
	}
	e.piece(at, key, n, file[n:]).want(204, "")
	e.finishPieces(at, key, "SUBJ-17", digestOf(file)).want(202, "")
}

// TestPiecesAtOnce: of two that claim the same place one is taken.
func TestPiecesAtOnce(t *testing.T) {
	e := setup(t)
	key := e.a.keys[uploader]
	file := image(t, 1)
	at := e.begin(key, len(file))
	var all sync.WaitGroup
	statuses := make([]int, 4)
	for n := range statuses {
		all.Go(func() { statuses[n] = e.piece(at, key, 0, file).status })
	}
	all.Wait()
	taken := 0
	for _, s := range statuses {
		if s == 204 {
			taken++
		} else if s != 409 && s != 503 {
			t.Errorf("status %d", s)
		}
	}
	if taken != 1 {
		t.Errorf("%d of four were taken: %v", taken, statuses)
	}
	e.finishPieces(at, key, "SUBJ-17", digestOf(file)).want(202, "")
}

func TestUploadsAreBounded(t *testing.T) {
	e := setup(t, func(c *Config) { c.Limits.Uploads = 1; c.Limits.BodyIdle = 5 * time.Second })
	r, w := io.Pipe()
	first := make(chan *answer)
	go func() {
		first <- e.do("POST", "/v1/scans?subject_id=S&age_years=71&sex=F&modality=T1w", e.a.keys[uploader], func(req *http.Request) {
			req.Body = r
			req.Header.Set("Content-Type", "application/octet-stream")
		})
	}()
	file := image(t, 1)
	underWay := func(n int) {
		for end := time.Now().Add(time.Minute); len(e.srv.streams) != n; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%d uploads are under way, want %d", len(e.srv.streams), n)
			}
		}
	}
	w.Write(file[:10])
	underWay(1)
	second := func() *answer {
		return e.post(&e.a, []part{{name: "metadata", body: metadata(nil)}, {name: "scan", file: "x.nii.gz", body: image(t, 2)}})
	}
	a := second()
	a.want(429, "too-many-uploads")
	if a.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	w.Write(file[10:])
	w.Close()
	(<-first).want(202, "")
	underWay(0)
	second().want(202, "")
}

// TestUploadsExpire with nothing left, but not those that are written to.
func TestUploadsExpire(t *testing.T) {
	dir := t.TempDir()
	var uploads *resumable.Uploads
	e := setup(t, func(c *Config) {
		var err error
		if uploads, err = resumable.Open(resumable.Config{Dir: dir, Path: "/v1/uploads/", MaxSize: 1 << 20, Idle: time.Second}); err != nil {
			t.Fatal(err)
		}
		c.Uploads = uploads
	})
	key := e.a.keys[uploader]
	at := e.begin(key, 10)
	e.piece(at, key, 0, []byte("12345")).want(204, "")
	if n, err := uploads.Expire(time.Now().Add(-time.Hour)); n != 0 || err != nil {
		t.Errorf("%d files, %v", n, err)
	}
	e.piece(at, key, 5, []byte("67")).want(204, "")
	if n, err := uploads.Expire(time.Now().Add(time.Hour)); n == 0 || err != nil {
		t.Errorf("%d files, %v", n, err)
	}
	e.do("HEAD", at, key, tus).want(404, "")
	if left, err := filepath.Glob(filepath.Join(dir, "*", "*")); len(left) > 0 || err != nil {
		t.Errorf("left: %v %v", left, err)
	}
}
