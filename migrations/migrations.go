// Package migrations holds the database schema and brings a database to it.
package migrations

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
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

// ErrNewer says that another program brought the database to a schema that this
// one does not know: its rows may refer to files in ways unknown here.
var ErrNewer = errors.New("a newer NeuroScreen has migrated the database")

func refuseNewer(have int64) error {
	if have <= newest {
		return nil
	}
	return fmt.Errorf("%w: its schema has version %d, this program knows %d; run that version of NeuroScreen or a newer one, or restore the back-up made before the upgrade into an empty place", ErrNewer, have, newest)
}

// newest schema version that this program knows.
var newest = func() int64 {
	names, err := fs.Glob(FS, "*.sql")
	if err != nil {
		panic(err)
	}
	v, err := goose.NumericComponent(names[len(names)-1])
	if err != nil {
		panic(err)
	}
	return v
}()

// Check asks a migrated database, or a transaction of it, whether it is newer
// than this program: another may migrate it while this one runs. Errors: ErrNewer.
func Check(ctx context.Context, db interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}) error {
	var have int64
	if err := db.QueryRow(ctx, "SELECT coalesce(max(version_id), 0) FROM goose_db_version").Scan(&have); err != nil {
		return err
	}
	return refuseNewer(have)
}

// To migrates an older database up to the versions given, as Up does. Errors:
// ErrNewer.
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
	// To goose, a database that is ahead is one with nothing to do.
	have, _, err := provider.GetVersions(ctx)
	if err == nil {
		err = refuseNewer(have)
	}
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
