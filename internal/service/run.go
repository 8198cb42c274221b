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
	limits := nifti.Limits{MaxBytes: int64(cfg.MaxImage)}
	room, err := newRoom(cfg, metrics)
	if err != nil {
		return err
	}

	running, stop := context.WithCancel(ctx)
	defer stop()
	group, running := errgroup.WithContext(running)
	if works {
		analyse := parts.Analyse
		if analyse == nil {
			if analyse, err = newAnalyser(limits); err != nil {
				return err
			}
		}
		runner, err := jobs.NewRunner(jobs.Config{
			Pool: storage.Pool, Store: st, Blobs: storage.Blobs, Logger: log, Workers: cfg.Workers, Analyse: measured(metrics, analyse),
			Memory: room, Estimate: estimate(limits), LeaseTTL: cfg.Lease, Webhooks: webhook.Sender{Allowed: cfg.WebhookNetworks},
			KeepBytes: time.Duration(cfg.KeepDays) * 24 * time.Hour,
			Decode:    decode(limits), EstimateDecoding: estimateDecoding(limits),
		})
		if err != nil {
			return err
		}
		if err := runner.Start(ctx); err != nil {
			return err
		}
		group.Go(func() error {
			<-running.Done()
			return within(running, cfg.StopAfter, runner.Stop)
		})
		log.Info("analysing scans", "workers", cfg.Workers, "memory_mb", room.Size()/1e6)
	}
	if serves {
		cards, err := modelCards()
		if err != nil {
			return errors.Join(err, stopAndWait(stop, group))
		}
		rescorer, err := pipeline.NewRescorer(version.String())
		if err != nil {
			return errors.Join(err, stopAndWait(stop, group))
		}
		uploads, err := resumable.Open(resumable.Config{Dir: cfg.UploadDir(), Path: "/v1/uploads/", MaxSize: int64(cfg.MaxUpload), Idle: cfg.BodyIdle})
		if err != nil {
			return errors.Join(err, stopAndWait(stop, group))
		}
		group.Go(func() error { expire(running, uploads, log); return nil })
		people, err := signIn(ctx, st, cfg)
		if err != nil {
			return errors.Join(err, stopAndWait(stop, group))
		}
		api, err := httpapi.New(httpapi.Config{
			Store: st, Blobs: storage.Blobs, Rescore: rescorer.Rescore, Uploads: uploads, Memory: room, Models: func() []httpapi.ModelCard { return cards }, Metrics: metrics, Log: log, Version: version.String(),
			Limits: httpapi.Limits{MaxUpload: int64(cfg.MaxUpload), Uploads: cfg.MaxUploads, BodyIdle: cfg.BodyIdle, Image: limits},
			Pages:  web.Pages(),
			Login:  people, Sessions: store.SessionLimits{Idle: cfg.SessionIdle},
			Checks: []httpapi.Check{{Name: "storage", Do: storage.checkFiles}},
		})
		if err != nil {
			return errors.Join(err, stopAndWait(stop, group))
		}
		file, err := FirstKey(ctx, st, cfg.Storage)
		if err != nil {
			return errors.Join(err, stopAndWait(stop, group))
		}
		if file != "" { // not the key itself: this output is often kept for good
			fmt.Fprintf(out, "The admin key of site %s is in %s, which only this user can read.\n", cfg.Site, file)
		}
		server := newServer(api, log)
		serve := server.Serve
		scheme := "http"
		if cfg.TLSCert != "" {
			scheme = "https"
			serve = func(l net.Listener) error { return server.ServeTLS(l, cfg.TLSCert, cfg.TLSKey) }
		}
		group.Go(func() error {
			if err := serve(listener); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("serve: %w", err)
			}
			return nil
		})
		group.Go(func() error {
			<-running.Done()
			log.Info("stopping")
			return within(running, cfg.StopAfter, func(ctx context.Context) error {
				if server.Shutdown(ctx) != nil {
					return server.Close() // the rest had its time; uploads cut short are sent again
				}
				return nil
			})
		})
		fmt.Fprintf(out, "NeuroScreen %s serves at %s://%s (contract: /docs)\n", version.String(), scheme, listener.Addr())
		if parts.Serving != nil {
			parts.Serving(listener.Addr())
		}
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
		Issuer: cfg.OIDCIssuer, ClientID: cfg.OIDCClient, Secret: cfg.OIDCSecret.Reveal(), PublicURL: cfg.PublicURL, RoleClaim: cfg.OIDCRoleClaim,
	})}, nil
}

func stopAndWait(stop func(), group *errgroup.Group) error {
	stop()
	return group.Wait()
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
