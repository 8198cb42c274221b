package backup

import (
	"archive/tar"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/klauspost/compress/gzip"

	"neuroscreen"
	"neuroscreen/internal/blob"
	"neuroscreen/internal/store"
	"neuroscreen/internal/version"
	"neuroscreen/migrations"
)

// Source is what is kept.
type Source struct {
	Pool   *pgxpool.Pool
	Blobs  *blob.Files
	Secret string // hex; empty leaves it out, and restoring then needs it from elsewhere
}

// Write writes an archive. Blobs that are missing or damaged do not stop it:
// the manifest names them.
func Write(ctx context.Context, w io.Writer, src Source) (Manifest, error) {
	m, err := write(ctx, w, src)
	if err != nil {
		return m, fmt.Errorf("backup: %w", err)
	}
	return m, nil
}

func write(ctx context.Context, out io.Writer, src Source) (m Manifest, err error) {
	versions, err := migrations.Current(ctx, src.Pool)
	if err != nil {
		return m, err
	}
	if versions.Schema == 0 {
		return m, errors.New("the database is empty; there is nothing to keep")
	}
	// Of a newer schema, files would stay behind that this program does not know of.
	if err := migrations.Check(ctx, src.Pool); err != nil {
		return m, err
	}
	// A connection of its own, whose end lets go of the blobs.
	conn, err := pgx.ConnectConfig(ctx, src.Pool.Config().ConnConfig)
	if err != nil {
		return m, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if err := store.HoldBlobs(ctx, conn); err != nil {
		return m, err
	}
	snapshot, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return m, err
	}
	defer snapshot.Rollback(context.WithoutCancel(ctx))
	header := Header{Format: format, Created: time.Now().UTC().Truncate(time.Second), Software: version.String(), Versions: versions}
	if err := snapshot.QueryRow(ctx, "SELECT secret_fingerprint FROM deployment").Scan(&header.SecretFingerprint); err != nil {
		return m, fmt.Errorf("the database belongs to no deployment yet: %w", err)
	}
	if header.Tables, err = tables(ctx, snapshot); err != nil {
		return m, err
	}

	w := &archiveWriter{tar: tar.NewWriter(out), digest: newDigest(), created: header.Created}
	if err := w.json(headerName, header); err != nil {
		return m, err
	}
	if src.Secret != "" {
		if _, err := w.entry(secretName, int64(len(src.Secret)), strings.NewReader(src.Secret)); err != nil {
			return m, err
		}
	}
	m.Rows = map[string]int64{}
	for _, t := range header.Tables {
		if m.Rows[t.Name], err = writeTable(ctx, w, conn, t); err != nil {
			return m, fmt.Errorf("table %s: %w", t.Name, err)
		}
	}
	keys, err := store.BlobKeys(ctx, snapshot)
	if err != nil {
		return m, err
	}
	// Copying may take hours, and an old snapshot would keep Postgres from
	// tidying up. The lock stays.
	if err := snapshot.Rollback(ctx); err != nil {
		return m, err
	}
	for _, key := range keys {
		if err := ctx.Err(); err != nil {
			return m, err
		}
		whole, written, err := writeBlob(ctx, w, src.Blobs, key)
		if err != nil {
			return m, fmt.Errorf("blob %s: %w", key, err)
		}
		if written {
			m.Blobs++
		}
		if !whole {
			m.Damaged = append(m.Damaged, key)
		}
	}
	if err := store.LetGoOfBlobs(ctx, conn); err != nil {
		return m, fmt.Errorf("files may have been removed meanwhile; run it again: %w", err)
	}
	m.Digest, m.Bytes = w.sum(), w.bytes
	if err := w.json(manifestName, m); err != nil {
		return m, err
	}
	return m, w.tar.Close()
}

// left out: what migrations write, and what river's clients say of
// themselves while they run.
var leftOut = map[string]bool{
	"goose_db_version": true, "river_migration": true, "river_leader": true, "river_queue": true,
	"river_client": true, "river_client_queue": true,
}

// tables lists the tables to keep, each after those that it refers to.
func tables(ctx context.Context, t pgx.Tx) ([]Table, error) {
	r, err := t.Query(ctx, `
		SELECT c.relname AS name, array_agg(a.attname::text ORDER BY a.attnum) AS columns,
		       (SELECT coalesce(array_agg(DISTINCT f.confrelid::regclass::text), '{}') FROM pg_constraint f
		        WHERE f.conrelid = c.oid AND f.contype = 'f' AND f.confrelid <> c.oid) AS refers
		FROM pg_class c
		JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
		WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r'
		GROUP BY c.oid, c.relname
		ORDER BY c.relname`)
	if err != nil {
		return nil, err
	}
	type found struct {
		Table
		Refers []string
	}
	all, err := pgx.CollectRows(r, pgx.RowToStructByName[found])
	if err != nil {
		return nil, err
	}
	var ordered []Table
	placed := map[string]bool{}
	for name := range leftOut {
		placed[name] = true
	}
	for before := -1; before != len(placed); {
		before = len(placed)
		for _, f := range all {
			if placed[f.Name] || slices.ContainsFunc(f.Refers, func(on string) bool { return !placed[on] }) {
				continue
			}
			placed[f.Name] = true
			ordered = append(ordered, f.Table)
		}
	}
	for _, f := range all {
		if !placed[f.Name] {
			return nil, fmt.Errorf("table %s is in a circle of references", f.Name)
		}
	}
	return ordered, nil
}

func (t Table) columnList() string {
	quoted := make([]string, len(t.Columns))
	for i, c := range t.Columns {
		quoted[i] = pgx.Identifier{c}.Sanitize()
	}
	return strings.Join(quoted, ", ")
}

func (t Table) quoted() string { return pgx.Identifier{t.Name}.Sanitize() }

func writeTable(ctx context.Context, w *archiveWriter, conn *pgx.Conn, t Table) (rows int64, err error) {
	where := ""
	if t.Name == "river_job" {
		where = " WHERE finalized_at IS NULL" // the rest is river's history
	}
	p := &pieces{w: w, name: t.Name}
	zip := gzip.NewWriter(p)
	tag, err := conn.PgConn().CopyTo(ctx, zip, "COPY (SELECT "+t.columnList()+" FROM "+t.quoted()+where+") TO STDOUT")
	if err == nil {
		err = zip.Close()
	}
	return tag.RowsAffected(), cmp.Or(err, p.flush())
}

// writeBlob says whether the blob is what its name says, and whether there
// was anything to write.
func writeBlob(ctx context.Context, w *archiveWriter, blobs *blob.Files, key string) (whole, written bool, err error) {
	r, err := blobs.Open(ctx, key)
	if e, ok := errors.AsType[*neuroscreen.Error](err); ok && e.Code == neuroscreen.CodeNotFound {
		return false, false, nil
	}
	if err != nil {
		return false, false, err
	}
	defer r.Close()
	size, err := r.Seek(0, io.SeekEnd)
	if err != nil {
		return false, false, err
	}
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return false, false, err
	}
	sum, err := w.entry(blobsPrefix+key, size, r)
	return sum == key, true, err
}
