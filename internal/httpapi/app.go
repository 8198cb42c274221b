package httpapi

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
	"sync"
)

// appPolicy is that of the clinicians' pages: everything from this server, and
// the pictures that the viewer makes of its own bytes.
var appPolicy = contentPolicy("; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self' data: blob:; font-src 'self'")

// pages are the built pages. A file's name holds its content's hash, so that
// browsers keep it for good; index.html names the files.
type pages struct {
	index  []byte
	assets map[string]*asset
}

type asset struct {
	mediaType, tag string
	plain          []byte
	packed         func() []byte
}

func loadPages(files fs.FS) (*pages, error) {
	p := &pages{assets: map[string]*asset{}}
	if files == nil {
		return p, nil
	}
	entries, err := fs.ReadDir(files, ".")
	if err != nil {
		return nil, fmt.Errorf("httpapi: pages: %w", err)
	}
	for _, e := range entries {
		mediaType := mime.TypeByExtension(path.Ext(e.Name()))
		if e.IsDir() || strings.HasPrefix(e.Name(), ".") || mediaType == "" {
			continue
		}
		plain, err := fs.ReadFile(files, e.Name())
		if err != nil {
			return nil, fmt.Errorf("httpapi: pages: %w", err)
		}
		if e.Name() == "index.html" {
			p.index = plain
			continue
		}
		sum := sha256.Sum256(plain)
		p.assets[e.Name()] = &asset{mediaType: mediaType, tag: etag(hex.EncodeToString(sum[:16]), false), plain: plain,
			packed: sync.OnceValue(func() []byte { return pack(plain) })}
	}
	return p, nil
}

func pack(b []byte) []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	z.Write(b) // into memory: cannot fail
	z.Close()
	return out.Bytes()
}

func (s *Server) GetHome(ctx context.Context, _ GetHomeRequestObject) (GetHomeResponseObject, error) {
	if s.pages.index == nil {
		return htmlPage(noPages), nil
	}
	if s.cfg.Login != nil {
		return appPage(bytes.Replace(s.pages.index, []byte("<body>"), []byte("<body data-provider>"), 1)), nil
	}
	return appPage(s.pages.index), nil
}

// appPage is the one document of the clinicians' pages.
type appPage []byte

func (p appPage) VisitGetHomeResponse(w http.ResponseWriter) error {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", appPolicy)
	h.Set("Cache-Control", "no-cache")
	w.WriteHeader(http.StatusOK)
	_, err := w.Write(p)
	return err
}

func (p htmlPage) VisitGetHomeResponse(w http.ResponseWriter) error { return p.visit(w) }

// noPages is shown by a program that was built without them.
const noPages = pageHead + `
<title>NeuroScreen</title>
<h1>NeuroScreen</h1>
<p>The service runs, but this program was built without its pages: <code>go build</code> alone does not make them. <code>make build</code> does.</p>
<p><a href="/docs">The API, as a page</a></p>
`

func (s *Server) GetAsset(ctx context.Context, req GetAssetRequestObject) (GetAssetResponseObject, error) {
	a, ok := s.pages.assets[req.Name]
	if !ok {
		return nil, errNotFound()
	}
	if notModified(ctx, a.tag) {
		return notModifiedResponse{a.tag}, nil
	}
	packed := strings.Contains(exchangeFrom(ctx).req.Header.Get("Accept-Encoding"), "gzip")
	return assetResponse{a, packed}, nil
}

type assetResponse struct {
	*asset
	pack bool
}

func (a assetResponse) VisitGetAssetResponse(w http.ResponseWriter) error {
	h := w.Header()
	h.Set("Content-Type", a.mediaType)
	h.Set("ETag", a.tag)
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	h.Set("Vary", "Accept-Encoding")
	body := a.plain
	if a.pack {
		h.Set("Content-Encoding", "gzip")
		body = a.packed()
	}
	h.Set("Content-Length", fmt.Sprint(len(body)))
	w.WriteHeader(http.StatusOK)
	_, err := w.Write(body)
	return err
}
