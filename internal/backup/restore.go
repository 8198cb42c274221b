package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/klauspost/compress/gzip"

	"neuroscreen/internal/blob"
	"neuroscreen/migrations"
)

// Archive is an archive whose header was read.
type Archive struct{ r *archiveReader }

// Open reads the beginning of an archive.
func Open(r io.Reader) (*Archive, error) {
	a, err := openArchive(r)
	if err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}
	return &Archive{a}, nil
}

// Header of the archive.
func (a *Archive) Header() Header { return a.r.header }

// Secret in the archive; empty when it was left out.
func (a *Archive) Secret() string { return a.r.secret }

// Check reads the archive to its end and compares everything with what was
// written. The archive is used up then.
func (a *Archive) Check(ctx context.Context) (Manifest, error) {
	m, err := a.r.walk(ctx,
		func(t Table, r io.Reader) (int64, error) {
			// The text format ends each row with a line feed, and escapes all others.
			var n lines
			_, err := io.Copy(&n, r)
			return int64(n), err
		},
		func(key string, r io.Reader) error {
			_, err := io.Copy(io.Discard, r)
			return err
		})
	if err != nil {
		return m, fmt.Errorf("check: %w", err)
	}
	return m, nil
}

type lines int64

func (n *lines) Write(p []byte) (int, error) {
	for _, b := range p {
		if b == '\n' {
			*n++
		}
	}
	return len(p), nil
}

// Restore puts the archive into a database and blob folder that hold no
// deployment. Nothing of it can be seen in the database before everything was
// compared with the manifest; after an error, run it again with a good
// archive. The archive is used up then. What comes of it is a deployment of its
// own: the old one may live on, and neither may sweep the other's files.
func (a *Archive) Restore(ctx context.Context, pool *pgxpool.Pool, blobs *blob.Files) (Manifest, error) {
	m, err := a.restore(ctx, pool, blobs)
	if err != nil {
		return m, fmt.Errorf("restore: %w", err)
	}
	return m, nil
}

func (a *Archive) restore(ctx context.Context, pool *pgxpool.Pool, blobs *blob.Files) (m Manifest, err error) {
	if err := empty(ctx, pool); err != nil {
		return m, err
	}
	known, have, err := migrations.Version(ctx, pool)
	if err != nil {
		return m, err
	}
	if to := a.r.header.Versions; to.Schema > known {
		return m, fmt.Errorf("the archive is of schema version %d (NeuroScreen %s), this program knows %d: restore with that version or a newer one", to.Schema, a.r.header.Software, known)
	}
	if to := a.r.header.Versions; have > to.Schema {
		return m, fmt.Errorf("the archive is of schema version %d and the database of %d already, so that what upgrades do to rows would not be done to these; name a database without tables", to.Schema, have)
	}
	owner, err := claim(ctx, blobs)
	if err != nil {
		return m, err
	}
	// To the archive's own schema first; what an upgrade does to rows, it does
	// to these.
	if err := migrations.To(ctx, pool, a.r.header.Versions); err != nil {
		return m, err
	}
	err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		// Against a service that starts meanwhile, and another restore.
		if _, err := tx.Exec(ctx, "LOCK TABLE deployment IN ACCESS EXCLUSIVE MODE"); err != nil {
			return err
		}
		var taken bool
		if err := tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM deployment)").Scan(&taken); err != nil {
			return err
		}
		if taken {
			return errTaken
		}
		var err error
		m, err = a.r.walk(ctx,
			func(t Table, r io.Reader) (int64, error) { return loadTable(ctx, tx.Conn().PgConn(), t, r) },
			func(key string, r io.Reader) error {
				_, err := blobs.Put(ctx, r, nil)
				return err
			})
		if err != nil {
			return err
		}
		for _, t := range a.r.header.Tables {
			if err := setSequences(ctx, tx, t); err != nil {
				return err
			}
		}
		// Their workers are not here.
		if _, err := tx.Exec(ctx, "UPDATE river_job SET state = 'available' WHERE state = 'running'"); err != nil {
			return err
		}
		if a.r.header.Versions.Schema < idSince {
			return nil
		}
		_, err = tx.Exec(ctx, setID, owner.ID)
		return err
	})
	if err != nil {
		return m, err
	}
	if err := migrations.Up(ctx, pool); err != nil {
		return m, err
	}
	if a.r.header.Versions.Schema < idSince {
		if _, err := pool.Exec(ctx, setID, owner.ID); err != nil {
			return m, err
		}
	}
	return m, blobs.SetOwner(blob.Owner{ID: owner.ID})
}

const (
	setID   = "UPDATE deployment SET id = $1"
	idSince = 34 // the schema version whose deployments have ids
)

// claim takes a folder for a new deployment, or one that an earlier try left
// behind.
func claim(ctx context.Context, blobs *blob.Files) (blob.Owner, error) {
	owner, err := blobs.Owner()
	if err != nil || owner.Restoring {
		return owner, err
	}
	if owner.ID != "" {
		return owner, fmt.Errorf("the files in the data folder belong to a deployment already (%s); name an empty folder with --data", owner.ID)
	}
	if free, err := blobs.Empty(ctx); err != nil {
		return owner, err
	} else if !free {
		return owner, errors.New("the data folder holds files already; name an empty one with --data")
	}
	owner = blob.Owner{ID: uuid.NewString(), Restoring: true}
	return owner, blobs.SetOwner(owner)
}

var errTaken = errors.New("the database holds a deployment already; name an empty one, and an empty data folder")

func empty(ctx context.Context, pool *pgxpool.Pool) error {
	var there bool
	if err := pool.QueryRow(ctx, "SELECT to_regclass('deployment') IS NOT NULL").Scan(&there); err != nil || !there {
		return err
	}
	var taken bool
	if err := pool.QueryRow(ctx, "SELECT EXISTS (SELECT FROM deployment)").Scan(&taken); err != nil {
		return err
	}
	if taken {
		return errTaken
	}
	return nil
}

// walk goes through tables and blobs in their order, and compares the whole
// with the manifest. load returns how many rows there were.
func (a *archiveReader) walk(ctx context.Context, load func(Table, io.Reader) (int64, error), put func(key string, r io.Reader) error) (m Manifest, err error) {
	rows := map[string]int64{}
	for _, t := range a.header.Tables {
		zip, err := gzip.NewReader(table{a, t.Name})
		if err != nil {
			return m, fmt.Errorf("table %s: %w", t.Name, errDamaged)
		}
		if rows[t.Name], err = load(t, zip); err != nil {
			return m, fmt.Errorf("table %s: %w", t.Name, err)
		}
		// The end of the stream, with its checksum, and of the last piece.
		if _, err := io.Copy(io.Discard, zip); err != nil {
			return m, fmt.Errorf("table %s: %w", t.Name, errDamaged)
		}
		if _, err := io.Copy(io.Discard, table{a, t.Name}); err != nil {
			return m, err
		}
	}
	blobs := 0
	var damaged []string
	for strings.HasPrefix(a.current.Name, blobsPrefix) {
		if err := ctx.Err(); err != nil {
			return m, err
		}
		key := strings.TrimPrefix(a.current.Name, blobsPrefix)
		if err := put(key, a); err != nil {
			return m, fmt.Errorf("blob %s: %w", key, err)
		}
		blobs++
		if fmt.Sprintf("%x", a.sum.Sum(nil)) != key {
			damaged = append(damaged, key)
		}
		if err := a.next(); err != nil {
			return m, err
		}
	}
	return a.finish(rows, blobs, damaged)
}

func loadTable(ctx context.Context, conn *pgconn.PgConn, t Table, r io.Reader) (int64, error) {
	tag, err := conn.CopyFrom(ctx, r, "COPY "+t.quoted()+" ("+t.columnList()+") FROM STDIN")
	return tag.RowsAffected(), err
}

// setSequences lets a table's own numbers go on behind those that it holds.
func setSequences(ctx context.Context, tx pgx.Tx, t Table) error {
	for _, column := range t.Columns {
		var sequence *string
		if err := tx.QueryRow(ctx, "SELECT pg_get_serial_sequence($1, $2)", t.quoted(), column).Scan(&sequence); err != nil {
			return err
		}
		if sequence == nil {
			continue
		}
		_, err := tx.Exec(ctx, "SELECT setval($1::regclass, max("+pgx.Identifier{column}.Sanitize()+")) FROM "+t.quoted(), *sequence)
		if err != nil {
			return err
		}
	}
	return nil
}
