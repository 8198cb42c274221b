// Package migrations holds the database schema and brings a database to it.
package migrations

import (
	"context"
	"embed"
	"fmt"
	"io"
	"log/slog"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

// FS holds the SQL files.
//
//go:embed *.sql
var FS embed.FS

// lockKey names the session lock; any number that nobody else uses.
const lockKey = 0x6e6575726f736372 // "neuroscr"

// Up migrates our schema and river's. Any number of processes may call it at
// once: one works, the others wait and find nothing to do. One advisory lock
// covers both, because river's migrator takes none.
func Up(ctx context.Context, pool *pgxpool.Pool) error { return To(ctx, pool, Versions{}) }

// Versions of a database's two schemas; 0 is the newest known.
type Versions struct {
	Schema int64 `json:"schema"`
	River  int   `json:"river"`
}

// To migrates an older database up to the versions given, as Up does.
func To(ctx context.Context, pool *pgxpool.Pool, to Versions) error {
	// A connection of its own: a pool of one would wait for itself.
	conn, err := pgx.ConnectConfig(ctx, pool.Config().ConnConfig)
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx)) // and with it the lock
	if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock($1)", int64(lockKey)); err != nil {
		return fmt.Errorf("migrate: lock: %w", err)
	}

	db := stdlib.OpenDB(*pool.Config().ConnConfig)
	defer db.Close()
	provider, err := goose.NewProvider(goose.DialectPostgres, db, FS)
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	if to.Schema == 0 {
		_, err = provider.Up(ctx)
	} else {
		_, err = provider.UpTo(ctx, to.Schema)
	}
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}

	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	river, err := rivermigrate.New(riverpgxv5.New(pool), &rivermigrate.Config{Logger: quiet})
	if err != nil {
		return fmt.Errorf("migrate: river: %w", err)
	}
	if _, err := river.Migrate(ctx, rivermigrate.DirectionUp, &rivermigrate.MigrateOpts{TargetVersion: to.River}); err != nil {
		return fmt.Errorf("migrate: river: %w", err)
	}
	return nil
}

// Version returns the newest schema version this program knows, and the one
// the database has (0 for an empty database).
func Version(ctx context.Context, pool *pgxpool.Pool) (known, have int64, err error) {
	db := stdlib.OpenDB(*pool.Config().ConnConfig)
	defer db.Close()
	provider, err := goose.NewProvider(goose.DialectPostgres, db, FS)
	if err != nil {
		return 0, 0, fmt.Errorf("migrate: %w", err)
	}
	have, known, err = provider.GetVersions(ctx)
	if err != nil {
		return 0, 0, fmt.Errorf("migrate: %w", err)
	}
	return known, have, nil
}

// Current returns the versions that a migrated database has.
func Current(ctx context.Context, pool *pgxpool.Pool) (v Versions, err error) {
	if _, v.Schema, err = Version(ctx, pool); err != nil {
		return Versions{}, err
	}
	if v.Schema == 0 {
		return Versions{}, nil
	}
	if err := pool.QueryRow(ctx, "SELECT coalesce(max(version), 0) FROM river_migration WHERE line = 'main'").Scan(&v.River); err != nil {
		return Versions{}, fmt.Errorf("migrate: river: %w", err)
	}
	return v, nil
}
