package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"neuroscreen/internal/backup"
	"neuroscreen/internal/config"
	"neuroscreen/internal/deid"
	"neuroscreen/internal/durable"
)

// Backup writes an archive of the deployment; the service may run meanwhile.
func Backup(ctx context.Context, cfg config.Storage, w io.Writer, withSecret bool, log *slog.Logger) (m backup.Manifest, err error) {
	if err := there(cfg); err != nil {
		return m, err
	}
	secret := cfg.Secret.Reveal()
	if secret == "" {
		b, err := os.ReadFile(cfg.SecretFile())
		if err != nil {
			return m, fmt.Errorf("%w; name the data folder with --data, or the secret in NEUROSCREEN_SECRET", err)
		}
		secret = strings.TrimSpace(string(b))
	}
	s, err := openAsItIs(ctx, cfg, log)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, s.Close(context.WithoutCancel(ctx))) }()
	var fingerprint string
	if err := s.Pool.QueryRow(ctx, "SELECT secret_fingerprint FROM deployment").Scan(&fingerprint); err != nil {
		return m, fmt.Errorf("the database belongs to no deployment yet: %w", err)
	}
	if fingerprint != s.Keys.Fingerprint() {
		return m, errors.New("the secret is not the database's: put back the right one before a backup is made of the wrong one")
	}
	if !withSecret {
		secret = ""
	}
	return backup.Write(ctx, w, backup.Source{Pool: s.Pool, Blobs: s.Blobs, Secret: secret})
}

// there makes sure that there is a database: opening would make what is missing,
// and show an empty deployment.
func there(cfg config.Storage) error {
	if cfg.DatabaseURL != "" {
		return nil
	}
	if _, err := os.Stat(filepath.Join(cfg.Data, "postgres", "cluster")); err != nil {
		return fmt.Errorf("%s holds no private database (%w); name the folder with --data, or the database in DATABASE_URL", cfg.Data, err)
	}
	return nil
}

// Restore puts an archive into an empty place, which cfg names.
func Restore(ctx context.Context, cfg config.Storage, r io.Reader, log *slog.Logger) (m backup.Manifest, err error) {
	a, err := backup.Open(r)
	if err != nil {
		return m, err
	}
	if err := placeSecret(cfg, a); err != nil {
		return m, err
	}
	s, err := openAsItIs(ctx, cfg, log)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, s.Close(context.WithoutCancel(ctx))) }()
	return a.Restore(ctx, s.Pool, s.Blobs)
}

// placeSecret makes sure that the archive's secret is the one that cfg leads
// to, and writes its file when there is none.
func placeSecret(cfg config.Storage, a *backup.Archive) error {
	want := a.Header().SecretFingerprint
	secret, from := cfg.Secret.Reveal(), "the secret that is set"
	if secret == "" {
		switch b, err := os.ReadFile(cfg.SecretFile()); {
		case err == nil:
			secret, from = string(b), cfg.SecretFile()
		case !errors.Is(err, os.ErrNotExist):
			return err
		case a.Secret() == "":
			return errors.New("the archive was made without the secret; set NEUROSCREEN_SECRET or NEUROSCREEN_SECRET_FILE to the one that was kept apart")
		}
	}
	if secret != "" {
		keys, err := deid.New(secret)
		if err != nil {
			return fmt.Errorf("%w (%s)", err, from)
		}
		if keys.Fingerprint() != want {
			return fmt.Errorf("%s is not the one that the archive was made with (fingerprint %s, not %s): identifiers could not be read; name an empty data folder or the right secret", from, keys.Fingerprint(), want)
		}
		return nil
	}
	keys, err := deid.New(a.Secret())
	if err != nil || keys.Fingerprint() != want {
		return errors.New("the archive's secret is not that of its database; the archive is damaged")
	}
	if err := os.MkdirAll(cfg.Data, 0o711); err != nil {
		return err
	}
	return durable.WriteNew(cfg.SecretFile(), a.Secret()+"\n")
}
