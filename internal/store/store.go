// Package store keeps the service's rows in Postgres.
//
// Every method takes the site and looks at nothing else: a row of another
// site is not found, nor, under ForResearch, one that research was refused for.
// The exceptions serve no request of a site's own: Authenticate and SessionKey,
// which find the site of a key or session, as EnsureAdminKey looks for a key's
// prefix, and EndSession; Ping, CheckSecret,
// Deployment, SomeBlobKeys, EnsureSite and Sites for the start and the command line; CreateSession,
// ReleaseBlobs, ForgetBytes and ForgetIdempotencyKeys, which clean up behind all
// sites and return no row of theirs; HoldBlobs and BlobKeys for backups.
//
// Methods return *neuroscreen.Error for what a caller must act on: the codes
// that each names, and CodeUnavailable "database-unavailable" from all of them
// while Postgres is away or has no room. Other errors are faults of ours.
package store

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"neuroscreen"
	"neuroscreen/internal/deid"
)

// Enqueuer puts the analysis job for a scan into the transaction that makes
// the scan, so that neither exists without the other.
type Enqueuer interface {
	Enqueue(ctx context.Context, tx pgx.Tx, siteID, scanID uuid.UUID) error
	// EnqueueDecoding does the same for a decoding.
	EnqueueDecoding(ctx context.Context, tx pgx.Tx, siteID, decodingID uuid.UUID) error
}

// Blobs is what the store asks of the blob store: whether bytes that a row is
// about to refer to are there.
type Blobs interface {
	Has(ctx context.Context, key string) (bool, error)
}

// Config of a Store.
type Config struct {
	Pool  *pgxpool.Pool
	Keys  *deid.Keys
	Jobs  Enqueuer
	Blobs Blobs
	// Notices are for webhooks; nil sends none.
	Notices Notifier
	// Now replaces the database's clock in tests. The database's is the
	// default because leases are compared between machines.
	Now func() time.Time
}

// Store is safe for concurrent use.
type Store struct {
	cfg     Config
	changes changes
}

// New returns a store over a migrated database.
func New(cfg Config) *Store { return &Store{cfg: cfg} }

// OpenPool opens connections whose times are UTC. They are made when needed:
// a database that is away shows at the first query. max bounds them; pgx's
// default when 0.
func OpenPool(ctx context.Context, connString string, max int32) (*pgxpool.Pool, error) {
	cfg, err := pgxpool.ParseConfig(connString)
	if err != nil {
		return nil, fmt.Errorf("store: database address: %w", err)
	}
	if max > 0 {
		cfg.MaxConns = max
	}
	cfg.AfterConnect = func(_ context.Context, conn *pgx.Conn) error {
		conn.TypeMap().RegisterType(&pgtype.Type{Name: "timestamptz", OID: pgtype.TimestamptzOID,
			Codec: &pgtype.TimestamptzCodec{ScanLocation: time.UTC}})
		return nil
	}
	return pgxpool.NewWithConfig(ctx, cfg)
}

// Ping checks that the database answers.
func (s *Store) Ping(ctx context.Context) error {
	return classify(s.cfg.Pool.Ping(ctx))
}

// tx is a transaction and the time at which it happens.
type tx struct {
	pgx.Tx
	s       *Store
	now     time.Time   // UTC, microseconds, as Postgres keeps it
	changed []uuid.UUID // scans whose state it changes
}

// inTx runs fn in a transaction, READ COMMITTED.
//
// Locks are taken in this order: blobs, scan or site, audit head.
func (s *Store) inTx(ctx context.Context, fn func(*tx) error) error {
	t := &tx{s: s}
	err := pgx.BeginFunc(ctx, s.cfg.Pool, func(pt pgx.Tx) error {
		t.Tx = pt
		if s.cfg.Now != nil {
			t.now = s.cfg.Now().UTC().Truncate(time.Microsecond)
		} else if err := pt.QueryRow(ctx, "SELECT clock_timestamp()").Scan(&t.now); err != nil {
			return err
		}
		return fn(t)
	})
	if err == nil {
		s.changes.tell(t.changed)
	}
	return classify(err)
}

// now is the time for comparisons that need no transaction.
func (s *Store) now() time.Time {
	if s.cfg.Now != nil {
		return s.cfg.Now().UTC()
	}
	return time.Now().UTC()
}

// rows collects a query's rows by column name.
func rows[T any](ctx context.Context, s *Store, sql string, args pgx.NamedArgs) ([]T, error) {
	r, err := s.cfg.Pool.Query(ctx, sql, args)
	if err != nil {
		return nil, classify(err)
	}
	list, err := pgx.CollectRows(r, pgx.RowToStructByName[T])
	return list, classify(err)
}

// row collects one row, or returns missing when there is none.
func row[T any](ctx context.Context, q querier, missing error, sql string, args pgx.NamedArgs) (T, error) {
	r, err := q.Query(ctx, sql, args)
	if err != nil {
		var zero T
		return zero, classify(err)
	}
	v, err := pgx.CollectExactlyOneRow(r, pgx.RowToStructByName[T])
	if errors.Is(err, pgx.ErrNoRows) {
		return v, missing
	}
	return v, classify(err)
}

// querier is a pool or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// classify turns the absence of Postgres, and its lack of room, into
// CodeUnavailable: waiting helps. Its other errors are ours.
func classify(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*neuroscreen.Error](err); ok || errors.Is(err, context.Canceled) {
		return err
	}
	unavailable := false
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		// 08 connection, 53 no room or connections left, 57P shutdown,
		// 58030 I/O error.
		unavailable = slices.ContainsFunc([]string{"08", "53", "57P", "58030"}, func(class string) bool {
			return strings.HasPrefix(pg.Code, class)
		})
	} else {
		_, connect := errors.AsType[*pgconn.ConnectError](err)
		_, network := errors.AsType[net.Error](err)
		unavailable = connect || network || pgconn.SafeToRetry(err) || strings.Contains(err.Error(), "conn closed") ||
			strings.Contains(err.Error(), "unexpected EOF")
	}
	if !unavailable {
		return err
	}
	return &neuroscreen.Error{Code: neuroscreen.CodeUnavailable, Type: "database-unavailable",
		Message: "the database does not answer; try again later", Err: err}
}

func notFound(what string) error {
	return neuroscreen.Errorf(neuroscreen.CodeNotFound, what+"-not-found", "there is no such %s", what)
}

// lockBlobs holds off the removal of the keys until the transaction ends, and
// makes sure that the bytes are there.
func (t *tx) lockBlobs(ctx context.Context, keys ...string) error {
	slices.Sort(keys)
	for _, key := range slices.Compact(keys) {
		if key == "" {
			continue
		}
		if _, err := t.Exec(ctx, "SELECT pg_advisory_xact_lock_shared(hashtextextended($1, 0))", key); err != nil {
			return err
		}
		there, err := t.s.cfg.Blobs.Has(ctx, key)
		if err != nil {
			return fmt.Errorf("store: look for blob: %w", err)
		}
		if !there {
			return neuroscreen.Errorf(neuroscreen.CodeUnavailable, "blob-missing", "the bytes were removed before they were recorded; send them again")
		}
	}
	return nil
}
