// Package httpapi serves the contract in api/openapi.yaml.
//
// A request passes, in this order: observe (id, deadlines, log, metrics,
// panics), gate (operation, key, role, contract, consent to research), and the
// handler, which works for the key's site only. A handler decodes, asks the
// store, and answers; an error becomes an RFC 9457 problem in one place.
package httpapi

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"runtime"
	"sync"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus"

	"neuroscreen"
	"neuroscreen/api"
	"neuroscreen/internal/blob"
	"neuroscreen/internal/memory"
	"neuroscreen/internal/nifti"
	"neuroscreen/internal/pipeline"
	"neuroscreen/internal/report"
	"neuroscreen/internal/resumable"
	"neuroscreen/internal/store"
)

// Limits of a request. A zero field takes the default's value.
type Limits struct {
	MaxUpload int64         // bytes of a scan as received
	MaxJSON   int64         // bytes of any other body
	Uploads   int           // that are read at the same time; more are told to come later
	BodyIdle  time.Duration // a client that sends nothing for so long is given up
	WriteIdle time.Duration // a client that takes nothing of an answer for so long is given up
	Image     nifti.Limits  // of a scan once decompressed
}

// DefaultLimits take any structural scan and long functional runs.
var DefaultLimits = Limits{
	MaxUpload: 1 << 30,
	MaxJSON:   64 << 10,
	Uploads:   64,
	BodyIdle:  30 * time.Second,
	WriteIdle: 60 * time.Second,
	Image:     nifti.Limits{MaxBytes: 4 << 30},
}

func (l Limits) orDefault() Limits {
	d := DefaultLimits
	if l.MaxUpload > 0 {
		d.MaxUpload = l.MaxUpload
	}
	if l.MaxJSON > 0 {
		d.MaxJSON = l.MaxJSON
	}
	if l.Uploads > 0 {
		d.Uploads = l.Uploads
	}
	if l.BodyIdle > 0 {
		d.BodyIdle = l.BodyIdle
	}
	if l.WriteIdle > 0 {
		d.WriteIdle = l.WriteIdle
	}
	if l.Image != (nifti.Limits{}) {
		d.Image = l.Image
	}
	return d
}

// UploadMemory is what an upload takes, whatever its size: buffers of the
// connection, of inflating and of writing.
const UploadMemory = 3 << 20

// Check is a dependency that must answer before scans can be accepted.
type Check struct {
	Name string
	Do   func(context.Context) error
}

// Rescore makes a result anew of an old one's volumes, as pipeline.Rescorer
// does.
type Rescore func(old neuroscreen.Result, m neuroscreen.Metadata, s pipeline.Settings, a neuroscreen.Amendment) (*neuroscreen.Result, report.Reading, error)

// Config of a Server. Store, Blobs and Rescore are needed.
type Config struct {
	Store   *store.Store
	Blobs   *blob.Files
	Rescore Rescore
	Uploads *resumable.Uploads // in pieces; without it, there are none
	Memory  *memory.Gate       // for what grows with a scan; nil bounds nothing
	Models  func() []ModelCard // cards of what is in use; none if nil
	Checks  []Check            // asked by /readyz, besides the database
	Metrics *prometheus.Registry
	Log     *slog.Logger
	Limits  Limits
	Version string
	Pages   fs.FS  // the built pages; nil serves a word on how to build them
	Login   *Login // an identity provider; nil for keys only

	Sessions store.SessionLimits // 30 minutes without use and 12 hours in all, where 0

	Now       func() time.Time
	Poll      time.Duration // between looks at what an event stream tells of; a second if 0
	MemoryIn  time.Duration // that a picture waits for memory before the client is told to come again; 10 s if 0
	Heartbeat time.Duration // between comment lines of an idle event stream; 15 s if 0
	StreamFor time.Duration // that an event stream lasts: who opens the next must still be let in; 5 minutes if 0
}

// Server answers the API. Close ends its event streams and watches.
type Server struct {
	cfg      Config
	contract *openapi3.T
	router   routers.Router
	metrics  *metrics
	handler  http.Handler
	docs     []byte
	pages    *pages
	showing  chan struct{} // held while a scan is made ready for the viewer, or labels for a PACS, which takes memory
	streams  chan struct{} // uploads under way, each with UploadMemory
	turns    chan struct{} // those that work on what has come: a processor is left for other requests
	watches  *watches
	streamed listeners
	closed   chan struct{}
	close    sync.Once
}

// New prepares the server. It fails only when the contract is wrong.
func New(cfg Config) (*Server, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Metrics == nil {
		cfg.Metrics = prometheus.NewRegistry()
	}
	if cfg.Poll <= 0 {
		cfg.Poll = time.Second
	}
	if cfg.MemoryIn <= 0 {
		cfg.MemoryIn = 10 * time.Second
	}
	if cfg.Heartbeat <= 0 {
		cfg.Heartbeat = 15 * time.Second
	}
	if cfg.StreamFor <= 0 {
		cfg.StreamFor = 5 * time.Minute
	}
	if cfg.Sessions.Idle <= 0 {
		cfg.Sessions.Idle = 30 * time.Minute
	}
	if cfg.Sessions.Whole <= 0 {
		cfg.Sessions.Whole = 12 * time.Hour
	}
	if cfg.Models == nil {
		cfg.Models = func() []ModelCard { return nil }
	}
	cfg.Limits = cfg.Limits.orDefault()

	contract, err := loadContract()
	if err != nil {
		return nil, err
	}
	router, err := gorillamux.NewRouter(contract)
	if err != nil {
		return nil, fmt.Errorf("httpapi: contract: %w", err)
	}
	s := &Server{cfg: cfg, contract: contract, router: router, metrics: newMetrics(cfg.Metrics), closed: make(chan struct{}),
		streams: make(chan struct{}, cfg.Limits.Uploads), turns: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)-1)), showing: make(chan struct{}, 1)}
	s.watches = newWatches(cfg.Memory, cfg.Now)
	if s.docs, err = renderDocs(contract); err != nil {
		return nil, err
	}
	if s.pages, err = loadPages(cfg.Pages); err != nil {
		return nil, err
	}

	strict := NewStrictHandlerWithOptions(s, nil, StrictHTTPServerOptions{
		RequestErrorHandlerFunc:  s.writeProblem,
		ResponseErrorHandlerFunc: s.writeProblem,
	})
	mux := chi.NewRouter()
	HandlerWithOptions(strict, ChiServerOptions{BaseRouter: mux, ErrorHandlerFunc: s.bindError})
	s.handler = s.observe(s.gate(mux))
	return s, nil
}

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// Close ends the event streams, so that a graceful stop does not wait for
// them, and forgets watches. Clients connect again with Last-Event-ID.
func (s *Server) Close() {
	s.close.Do(func() { close(s.closed) })
	s.watches.close()
}

// bindError is reached when the generated code can't read a parameter that the
// contract let through.
func (s *Server) bindError(w http.ResponseWriter, r *http.Request, err error) {
	s.writeProblem(w, r, badParameter(err))
}

func loadContract() (*openapi3.T, error) {
	contract, err := openapi3.NewLoader().LoadFromData(api.Contract)
	if err != nil {
		return nil, fmt.Errorf("httpapi: contract: %w", err)
	}
	if err := contract.Validate(context.Background()); err != nil {
		return nil, fmt.Errorf("httpapi: contract: %w", err)
	}
	return contract, nil
}

func (s *Server) schema(name string) *openapi3.Schema {
	return s.contract.Components.Schemas[name].Value
}
