package service

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"neuroscreen/internal/config"
	"neuroscreen/internal/httpapi"
	"neuroscreen/internal/jobs"
	"neuroscreen/internal/login"
	"neuroscreen/internal/memory"
	"neuroscreen/internal/nifti"
	"neuroscreen/internal/pipeline"
	"neuroscreen/internal/resumable"
	"neuroscreen/internal/store"
	"neuroscreen/internal/version"
	"neuroscreen/internal/webhook"
	"neuroscreen/web"
)

// Parts are what a caller may replace; zero fields are the real thing.
type Parts struct {
	Analyse jobs.Analyse
	Out     io.Writer           // for the operator, once: address and the first key's file
	Err     io.Writer           // log
	Serving func(addr net.Addr) // told when requests are answered
}

// Run serves until ctx ends and then stops gracefully: no new work, StopAfter
// for what is under way, then everything is let go of. Errors say what to do.
func Run(ctx context.Context, cfg config.Server, parts Parts) (err error) {
	log := newLog(cfg, parts.Err)
	serves, works := cfg.Role != "worker", cfg.Role != "api"
	out := parts.Out
	if out == nil {
		out = io.Discard
	}

	// The address first: a port that is taken should not wait for a database.
	var listener net.Listener
	if serves {
		if listener, err = net.Listen("tcp", cfg.Listen); err != nil {
			return fmt.Errorf("%w; choose another address with --listen", err)
		}
		defer listener.Close()
	}
	storage, err := OpenStorage(ctx, cfg.Storage, log)
	if err != nil {
		return err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		err = errors.Join(err, storage.Close(closing))
	}()
	queue, err := jobs.NewEnqueuer(storage.Pool)
	if err != nil {
		return err
	}
	st := store.New(store.Config{Pool: storage.Pool, Keys: storage.Keys, Jobs: queue, Notices: queue, Blobs: storage.Blobs})
	if err := st.CheckSecret(ctx); err != nil {
		return err
	}
	if err := storage.claimFiles(ctx, st); err != nil {
		return err
	}
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	room, err := newRoom(cfg, metrics)
	if err != nil {
		return err
	}

	running, stop := context.WithCancel(ctx)
	defer stop()
	group, running := errgroup.WithContext(running)
	s := &process{cfg, parts, log, out, storage, st, metrics, nifti.Limits{MaxBytes: int64(cfg.MaxImage)}, room, group}
	if works {
		err = s.work(running)
	}
	if err == nil && serves {
		err = s.serve(running, listener)
	}
	if err != nil {
		stop()
		return errors.Join(err, group.Wait())
	}
	group.Go(func() error {
		select {
		case <-running.Done():
			return nil
		case <-storage.databaseGone():
			return errors.New("the private database stopped by itself; its log is postgres/postgres.log in the data folder. Start the service again")
		}
	})
	return group.Wait()
}

// process is what its two halves, workers and server, share. What they start
// belongs to the group, and ends after the context that they are given.
type process struct {
	cfg     config.Server
	parts   Parts
	log     *slog.Logger
	out     io.Writer
	storage *Storage
	store   *store.Store
	metrics *prometheus.Registry
	limits  nifti.Limits
	room    *memory.Gate
	group   *errgroup.Group
}

// work begins to analyse scans.
func (s *process) work(ctx context.Context) error {
	analyse := s.parts.Analyse
	if analyse == nil {
		var err error
		if analyse, err = newAnalyser(s.limits); err != nil {
			return err
		}
	}
	runner, err := jobs.NewRunner(jobs.Config{
		Pool: s.storage.Pool, Store: s.store, Blobs: s.storage.Blobs, Logger: s.log,
		Workers: s.cfg.Workers, LeaseTTL: s.cfg.Lease,
		Analyse: measured(s.metrics, analyse), Estimate: estimate(s.limits),
		Decode: decode(s.limits), EstimateDecoding: estimateDecoding(s.limits),
		Memory:    s.room,
		Webhooks:  webhook.Sender{Allowed: s.cfg.WebhookNetworks},
		KeepBytes: time.Duration(s.cfg.KeepDays) * 24 * time.Hour,
	})
	if err != nil {
		return err
	}
	if err := runner.Start(ctx); err != nil {
		return err
	}
	s.group.Go(func() error {
		<-ctx.Done()
		return within(ctx, s.cfg.StopAfter, runner.Stop)
	})
	s.log.Info("analysing scans", "workers", s.cfg.Workers, "memory_mb", s.room.Size()/1e6)
	return nil
}

// serve begins to answer requests.
func (s *process) serve(ctx context.Context, listener net.Listener) error {
	api, err := s.api(ctx)
	if err != nil {
		return err
	}
	file, err := FirstKey(ctx, s.store, s.cfg.Storage)
	if err != nil {
		return err
	}
	if file != "" { // not the key itself: this output is often kept for good
		fmt.Fprintf(s.out, "The admin key of site %s is in %s, which only this user can read.\n", s.cfg.Site, file)
	}
	server := newServer(api, s.log)
	serve, scheme := server.Serve, "http"
	if s.cfg.TLSCert != "" {
		serve, scheme = func(l net.Listener) error { return server.ServeTLS(l, s.cfg.TLSCert, s.cfg.TLSKey) }, "https"
	}
	s.group.Go(func() error {
		if err := serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve: %w", err)
		}
		return nil
	})
	s.group.Go(func() error {
		<-ctx.Done()
		s.log.Info("stopping")
		return within(ctx, s.cfg.StopAfter, func(ctx context.Context) error {
			if server.Shutdown(ctx) != nil {
				return server.Close() // the rest had its time; uploads cut short are sent again
			}
			return nil
		})
	})
	fmt.Fprintf(s.out, "NeuroScreen %s serves at %s://%s (contract: /docs)\n", version.String(), scheme, listener.Addr())
	if s.parts.Serving != nil {
		s.parts.Serving(listener.Addr())
	}
	return nil
}

// api puts the handler of all requests together.
func (s *process) api(ctx context.Context) (*httpapi.Server, error) {
	cards, err := modelCards()
	if err != nil {
		return nil, err
	}
	rescorer, err := pipeline.NewRescorer(version.String())
	if err != nil {
		return nil, err
	}
	uploads, err := resumable.Open(resumable.Config{Dir: s.cfg.UploadDir(), Path: "/v1/uploads/", MaxSize: int64(s.cfg.MaxUpload), Idle: s.cfg.BodyIdle})
	if err != nil {
		return nil, err
	}
	s.group.Go(func() error { expire(ctx, uploads, s.log); return nil })
	people, err := signIn(ctx, s.store, s.cfg)
	if err != nil {
		return nil, err
	}
	return httpapi.New(httpapi.Config{
		Store: s.store, Blobs: s.storage.Blobs, Uploads: uploads, Memory: s.room,
		Rescore: rescorer.Rescore,
		Models:  func() []httpapi.ModelCard { return cards },
		Limits:  httpapi.Limits{MaxUpload: int64(s.cfg.MaxUpload), Uploads: s.cfg.MaxUploads, BodyIdle: s.cfg.BodyIdle, Image: s.limits},
		Login:   people, Sessions: store.SessionLimits{Idle: s.cfg.SessionIdle},
		Pages:   web.Pages(),
		Checks:  []httpapi.Check{{Name: "storage", Do: s.storage.checkFiles}},
		Metrics: s.metrics, Log: s.log, Version: version.String(),
	})
}

// uploadsExpire is how long an unfinished upload may rest.
const uploadsExpire = 24 * time.Hour

// expire gives up old uploads until ctx ends.
func expire(ctx context.Context, uploads *resumable.Uploads, log *slog.Logger) {
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for {
		if n, err := uploads.Expire(time.Now().Add(-uploadsExpire)); err != nil {
			log.Error("old uploads stay", "error", err)
		} else if n > 0 {
			log.Info("unfinished uploads given up", "files", n)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// signIn is the identity provider of the settings' site, nil for none.
func signIn(ctx context.Context, st *store.Store, cfg config.Server) (*httpapi.Login, error) {
	if cfg.OIDCIssuer == "" {
		return nil, nil
	}
	site, _, err := st.EnsureSite(ctx, cfg.Site)
	if err != nil {
		return nil, err
	}
	return &httpapi.Login{Site: site.ID, Provider: login.New(login.Config{
		Issuer: cfg.OIDCIssuer, ClientID: cfg.OIDCClient, Audiences: cfg.OIDCAudiences, Secret: cfg.OIDCSecret.Reveal(), PublicURL: cfg.PublicURL, RoleClaim: cfg.OIDCRoleClaim,
	})}, nil
}

// within gives f some time after ctx has ended.
func within(ctx context.Context, d time.Duration, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), d)
	defer cancel()
	return f(ctx)
}

func newServer(api *httpapi.Server, log *slog.Logger) *http.Server {
	s := &http.Server{
		Handler: api,
		// Bodies and answers have deadlines of their own in httpapi.
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		TLSConfig:         &tls.Config{MinVersion: tls.VersionTLS12},
	}
	s.RegisterOnShutdown(api.Close)
	return s
}

func newLog(cfg config.Server, w io.Writer) *slog.Logger {
	if w == nil {
		w = io.Discard
	}
	options := &slog.HandlerOptions{Level: cfg.LogLevel}
	if cfg.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// checkFiles asks the blob store for something that is not there.
func (s *Storage) checkFiles(ctx context.Context) error {
	const nothing = "0000000000000000000000000000000000000000000000000000000000000000"
	_, err := s.Blobs.Has(ctx, nothing)
	return err
}
