// Package service puts the parts together: storage for the server and the
// command line, and the server itself. cmd/ only reads settings and calls it.
package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"neuroscreen"
	"neuroscreen/internal/blob"
	"neuroscreen/internal/config"
	"neuroscreen/internal/deid"
	"neuroscreen/internal/pgembed"
	"neuroscreen/internal/store"
	"neuroscreen/migrations"
)

// Storage is the database and the files, open.
type Storage struct {
	Config config.Storage
	Pool   *pgxpool.Pool
	Keys   *deid.Keys
	Blobs  *blob.Files

	cluster *pgembed.Cluster
}

// OpenStorage opens what cfg names, starts the private cluster when there is
// no DATABASE_URL, and migrates the schema. Errors say what to do.
func OpenStorage(ctx context.Context, cfg config.Storage, log *slog.Logger) (_ *Storage, err error) {
	s := &Storage{Config: cfg}
	defer func() {
		if err != nil {
			s.Close(context.WithoutCancel(ctx))
		}
	}()
	// Others may pass through the folder (Postgres runs as another user when
	// this is root), but not look into it.
	if err := os.MkdirAll(cfg.Data, 0o711); err != nil {
		return nil, fmt.Errorf("data folder: %w; choose another with --data", err)
	}
	if cfg.Secret != "" {
		s.Keys, err = deid.New(cfg.Secret.Reveal())
	} else {
		s.Keys, err = deid.LoadOrCreate(cfg.SecretFile())
	}
	if err != nil {
		return nil, err
	}
	if s.Blobs, err = blob.OpenFiles(cfg.BlobDir()); err != nil {
		return nil, err
	}
	url := cfg.DatabaseURL.Reveal()
	if url == "" {
		log.Info("starting the private database", "folder", filepath.Join(cfg.Data, "postgres"))
		if s.cluster, err = pgembed.Start(ctx, pgembed.Options{Dir: filepath.Join(cfg.Data, "postgres")}); err != nil {
			return nil, fmt.Errorf("%w\n(or name a PostgreSQL server in DATABASE_URL)", err)
		}
		url = s.cluster.ConnString()
	}
	if s.Pool, err = connect(ctx, url, log); err != nil {
		return nil, err
	}
	if err := migrations.Up(ctx, s.Pool); err != nil {
		return nil, err
	}
	return s, nil
}

const (
	connectFor     = 30 * time.Second // how long a database may take to come up beside us
	maxConnections = 20
)

func connect(ctx context.Context, url string, log *slog.Logger) (*pgxpool.Pool, error) {
	pool, err := store.OpenPool(ctx, url, maxConnections)
	if err != nil {
		return nil, fmt.Errorf("%w; write DATABASE_URL as postgres://user:password@host:5432/name", err)
	}
	deadline := time.Now().Add(connectFor)
	for {
		if err = pool.Ping(ctx); err == nil {
			return pool, nil
		}
		if ctx.Err() != nil || time.Now().After(deadline) {
			pool.Close()
			return nil, fmt.Errorf("the database does not answer: %w; check DATABASE_URL and that the server runs", err)
		}
		log.Warn("waiting for the database", "error", err)
		t := time.NewTimer(time.Second)
		select {
		case <-ctx.Done():
		case <-t.C:
		}
		t.Stop()
	}
}

// Close lets go of everything, and stops the private cluster when nobody else
// uses it.
func (s *Storage) Close(ctx context.Context) error {
	var errs []error
	if s.Pool != nil {
		s.Pool.Close()
	}
	if s.cluster != nil {
		errs = append(errs, s.cluster.Stop(ctx))
	}
	if s.Blobs != nil {
		errs = append(errs, s.Blobs.Close())
	}
	return errors.Join(errs...)
}

// FirstKey makes the site and, if it has no admin key that works, one. The
// secret goes into a file that only this user can read, and is returned; it is
// empty when there was nothing to make.
func FirstKey(ctx context.Context, st *store.Store, cfg config.Storage) (secret, file string, err error) {
	site, _, err := st.EnsureSite(ctx, cfg.Site)
	if err != nil {
		return "", "", err
	}
	keys, err := st.ListKeys(ctx, site.ID)
	if err != nil {
		return "", "", err
	}
	for _, k := range keys {
		if k.Role == neuroscreen.Admin && k.Revoked == nil {
			return "", "", nil
		}
	}
	secret, key, err := st.CreateKey(ctx, site.ID, firstStart, neuroscreen.Admin, "first admin key")
	if err != nil {
		return "", "", err
	}
	file = cfg.AdminKeyFile()
	// A key of another database may be there.
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		file = filepath.Join(cfg.Data, "admin-"+key.Prefix+".key")
		f, err = os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	}
	if err != nil {
		return secret, "", fmt.Errorf("the admin key is made, but cannot be kept: %w", err)
	}
	_, err = fmt.Fprintln(f, secret)
	return secret, file, errors.Join(err, f.Sync(), f.Close())
}

const firstStart store.Actor = "system:first-start"

// databaseGone is closed when a private cluster that this process started is
// gone; nil, which never is, for any other database.
func (s *Storage) databaseGone() <-chan struct{} {
	if s.cluster == nil {
		return nil
	}
	return s.cluster.Exited()
}
