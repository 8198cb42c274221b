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
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"neuroscreen/internal/blob"
	"neuroscreen/internal/config"
	"neuroscreen/internal/deid"
	"neuroscreen/internal/durable"
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
func OpenStorage(ctx context.Context, cfg config.Storage, log *slog.Logger) (*Storage, error) {
	s, err := openAsItIs(ctx, cfg, log)
	if err != nil {
		return nil, err
	}
	if err := migrations.Up(ctx, s.Pool); err != nil {
		return nil, errors.Join(err, s.Close(context.WithoutCancel(ctx)))
	}
	return s, nil
}

// openAsItIs leaves the schema alone: a backup before an upgrade must not
// begin with the upgrade.
func openAsItIs(ctx context.Context, cfg config.Storage, log *slog.Logger) (_ *Storage, err error) {
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
	return s, nil
}

// claimFiles makes sure that the files are this database's: a sweep removes
// what no row refers to, which to any other database is all of them. A folder
// that nobody has claimed yet becomes this deployment's.
func (s *Storage) claimFiles(ctx context.Context, st *store.Store) error {
	id, err := st.Deployment(ctx)
	if err != nil {
		return err
	}
	owner, err := s.Blobs.Owner()
	if err != nil {
		return err
	}
	dir, this := s.Config.BlobDir(), blob.Owner{ID: id.String()}
	switch {
	case owner == this:
		return nil
	case owner.ID == this.ID: // restored: the database has this id since everything is there
	case owner.Restoring:
		return fmt.Errorf("%s holds an archive that is being restored, or was not to its end: wait for it, or run neuroscreen restore again with an empty database", dir)
	case owner.ID != "":
		return fmt.Errorf("the files in %s belong to deployment %s, but the database to deployment %s, and would be removed as nobody's: set DATABASE_URL back to the database that belongs to them, or choose another data folder with --data", dir, owner.ID, id)
	default: // the first start, or the first of a program that asks
		ours, err := s.filesFit(ctx, st)
		if err != nil {
			return err
		}
		if !ours {
			return fmt.Errorf("%s holds files, and the database is new or another deployment's: it refers to none of them, and they would be removed as nobody's. Set DATABASE_URL back to the database that belongs to them, choose another data folder with --data, or move them away if nobody needs them", dir)
		}
	}
	return s.Blobs.SetOwner(this)
}

// filesFit says whether rows refer to any of the files, if there are any.
func (s *Storage) filesFit(ctx context.Context, st *store.Store) (bool, error) {
	if empty, err := s.Blobs.Empty(ctx); err != nil || empty {
		return empty, err
	}
	keys, err := st.SomeBlobKeys(ctx)
	if err != nil {
		return false, err
	}
	for _, key := range keys {
		if there, err := s.Blobs.Has(ctx, key); err != nil || there {
			return there, err
		}
	}
	return false, nil
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

// FirstKey makes the site and, if it has no admin key that works, one. Its
// secret is in the file, which only this user can read; file is empty when there
// was nothing to make.
func FirstKey(ctx context.Context, st *store.Store, cfg config.Storage) (file string, err error) {
	return adminKey(ctx, st, cfg, firstStart, "first admin key", false)
}

// NewAdminKey makes another admin key, for whoever has lost all of them: who can
// read the data folder may. It works beside a running service.
func NewAdminKey(ctx context.Context, cfg config.Storage, log *slog.Logger) (file string, err error) {
	s, err := OpenStorage(ctx, cfg, log)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, s.Close(context.WithoutCancel(ctx))) }()
	return adminKey(ctx, store.New(store.Config{Pool: s.Pool, Keys: s.Keys, Blobs: s.Blobs}), cfg, onHost, "made on the host", true)
}

const (
	firstStart store.Actor = "system:first-start"
	onHost     store.Actor = "system:host"
)

func adminKey(ctx context.Context, st *store.Store, cfg config.Storage, by store.Actor, label string, always bool) (file string, err error) {
	site, _, err := st.EnsureSite(ctx, cfg.Site)
	if err != nil {
		return "", err
	}
	made, err := st.EnsureAdminKey(ctx, site.ID, by, label, always, func(used func(string) (bool, error)) (secret string, err error) {
		secret, file, err = keepSecret(cfg, used)
		if err != nil {
			return "", fmt.Errorf("the admin key cannot be kept: %w", err)
		}
		return secret, nil
	})
	if !made {
		file = ""
	}
	return file, err
}

// keepSecret makes the file of a key that is to be made. What a start that was
// cut short has left there is used; the key of another site has its file
// already, and then this one gets another.
func keepSecret(cfg config.Storage, used func(prefix string) (bool, error)) (secret, file string, err error) {
	secret, file = store.NewSecret(), cfg.AdminKeyFile()
	err = durable.WriteNew(file, secret+"\n")
	if !errors.Is(err, os.ErrExist) {
		return secret, file, err
	}
	if info, err := os.Stat(file); err == nil && info.Mode().Perm()&0o077 == 0 {
		b, err := os.ReadFile(file)
		if err != nil {
			return "", "", err
		}
		left := strings.TrimSpace(string(b))
		if prefix, ok := store.SecretPrefix(left); ok {
			if known, err := used(prefix); err != nil {
				return "", "", err
			} else if !known {
				return left, file, nil
			}
		}
	}
	prefix, _ := store.SecretPrefix(secret)
	file = filepath.Join(cfg.Data, "admin-"+prefix+".key")
	return secret, file, durable.WriteNew(file, secret+"\n")
}

// databaseGone is closed when the private cluster is gone; nil, which never is,
// for any other database.
func (s *Storage) databaseGone() <-chan struct{} {
	if s.cluster == nil {
		return nil
	}
	return s.cluster.Exited()
}
