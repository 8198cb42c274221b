package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"neuroscreen/migrations"
)

// blobReferences are all rows that refer to blobs. Blobs are named by their
// content, so rows of several sites may share one.
const blobReferences = firstReferences + `
	UNION ALL SELECT weights_key FROM decodings WHERE weights_key <> ''`

// firstReferences are those that the first schema has.
const firstReferences = `
	SELECT blob_key FROM scans WHERE blob_key <> ''
	UNION ALL SELECT header_blob_key FROM scans WHERE header_blob_key <> ''
	UNION ALL SELECT blob_key FROM derived_files`

// holdKey names the lock under which blobs stay that nothing refers to.
const holdKey = "hashtextextended('neuroscreen hold blobs', 0)"

// HoldBlobs keeps ReleaseBlobs from removing anything until LetGoOfBlobs, or
// until the connection ends: a backup copies what a snapshot refers to, and an
// erasure meanwhile leaves its files to the next sweep.
func HoldBlobs(ctx context.Context, conn *pgx.Conn) error {
	_, err := conn.Exec(ctx, "SELECT pg_advisory_lock("+holdKey+")")
	return classify(err)
}

// LetGoOfBlobs ends HoldBlobs; without an error they were held all the time.
func LetGoOfBlobs(ctx context.Context, conn *pgx.Conn) error {
	var held bool
	if err := conn.QueryRow(ctx, "SELECT pg_advisory_unlock("+holdKey+")").Scan(&held); err != nil {
		return classify(err)
	}
	if !held {
		return errors.New("store: blobs were not held")
	}
	return nil
}

// BlobKeys lists what the transaction's snapshot refers to, in order, each
// key once. The database may be of an older schema: a backup comes before the
// upgrade.
func BlobKeys(ctx context.Context, t pgx.Tx) ([]string, error) {
	references := blobReferences
	var decodings bool
	if err := t.QueryRow(ctx, "SELECT to_regclass('decodings') IS NOT NULL").Scan(&decodings); err != nil {
		return nil, classify(err)
	}
	if !decodings {
		references = firstReferences
	}
	r, err := t.Query(ctx, "SELECT DISTINCT blob_key FROM ("+references+") AS r ORDER BY blob_key")
	if err != nil {
		return nil, classify(err)
	}
	keys, err := pgx.CollectRows(r, pgx.RowTo[string])
	return keys, classify(err)
}

// SomeBlobKeys are a few of those that rows refer to.
func (s *Store) SomeBlobKeys(ctx context.Context) ([]string, error) {
	r, err := s.cfg.Pool.Query(ctx, "SELECT blob_key FROM ("+blobReferences+") AS r LIMIT 100")
	if err != nil {
		return nil, classify(err)
	}
	keys, err := pgx.CollectRows(r, pgx.RowTo[string])
	return keys, classify(err)
}

// releaseBatch bounds a query of ReleaseBlobs.
const releaseBatch = 1000

// errHeld ends ReleaseBlobs.
var errHeld = errors.New("store: blobs are held")

// ReleaseBlobs calls remove for each key that no row refers to, while holding
// off CreateScan and Finish for that key. It returns how many were removed;
// none while HoldBlobs is in force, and none when a newer program has migrated
// the database.
func (s *Store) ReleaseBlobs(ctx context.Context, keys []string, remove func(ctx context.Context, key string) error) (int, error) {
	removed := 0
	for batch := range slices.Chunk(keys, releaseBatch) {
		n, err := s.releaseBlobs(ctx, batch, remove)
		removed += n
		if errors.Is(err, errHeld) {
			return removed, nil
		}
		if err != nil {
			return removed, fmt.Errorf("store: release blob: %w", err)
		}
	}
	return removed, nil
}

// releaseBlobs asks for the whole batch first: a sweep hands over all that is
// stored, nearly all of which is referred to, and only the rest is worth a
// transaction each.
func (s *Store) releaseBlobs(ctx context.Context, keys []string, remove func(ctx context.Context, key string) error) (removed int, err error) {
	var candidates []string
	err = s.inTx(ctx, func(t *tx) error {
		if err := t.mayRemove(ctx); err != nil {
			return err
		}
		// Not NOT EXISTS, for which Postgres may read all tables: key by key the
		// indexes answer.
		r, err := t.Query(ctx, "SELECT key FROM unnest($1::text[]) AS key WHERE (SELECT true FROM ("+blobReferences+") AS r WHERE blob_key = key LIMIT 1) IS NULL", keys)
		if err != nil {
			return err
		}
		candidates, err = pgx.CollectRows(r, pgx.RowTo[string])
		return err
	})
	if err != nil {
		return 0, err
	}
	for _, key := range candidates {
		err := s.inTx(ctx, func(t *tx) error {
			if err := t.mayRemove(ctx); err != nil {
				return err
			}
			if _, err := t.Exec(ctx, "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", key); err != nil {
				return err
			}
			// Again: a row may have come before the lock.
			var used bool
			err := t.QueryRow(ctx, "SELECT EXISTS (SELECT FROM ("+blobReferences+") AS r WHERE blob_key = $1)", key).Scan(&used)
			if err != nil || used {
				return err
			}
			removed++
			return remove(ctx, key)
		})
		if err != nil {
			return removed, err
		}
	}
	return removed, nil
}

// mayRemove keeps HoldBlobs waiting until the transaction ends. Errors: errHeld.
func (t *tx) mayRemove(ctx context.Context) error {
	var free bool
	if err := t.QueryRow(ctx, "SELECT pg_try_advisory_xact_lock_shared("+holdKey+")").Scan(&free); err != nil {
		return err
	}
	if !free {
		return errHeld
	}
	err := migrations.Check(ctx, t)
	if errors.Is(err, migrations.ErrNewer) {
		return errHeld
	}
	return err
}

// retentionBatch bounds a transaction of ForgetBytes.
const retentionBatch = 200

// ForgetBytes lets go of the received bytes of scans that ended, and were not
// touched since, before the given time; results and derived files stay. Scans
// of a decoding that has not ended keep theirs. It
// returns how many scans these were, and their blob keys for ReleaseBlobs.
// Call it again until it returns none.
func (s *Store) ForgetBytes(ctx context.Context, before time.Time) (scans int, blobKeys []string, err error) {
	type old struct {
		SiteID, ID             uuid.UUID
		BlobKey, HeaderBlobKey string
	}
	const notDecoded = `NOT EXISTS (
		SELECT FROM decoding_runs r JOIN decodings d ON d.site_id = r.site_id AND d.id = r.decoding_id
		WHERE r.site_id = scans.site_id AND r.scan_id = scans.id AND d.finished_at IS NULL)`
	err = s.inTx(ctx, func(t *tx) error {
		scans, blobKeys = 0, nil
		r, err := t.Query(ctx, `
			SELECT site_id, id, blob_key, header_blob_key FROM scans
			WHERE finished_at IS NOT NULL AND bytes_removed_at IS NULL AND updated_at < @before AND `+notDecoded+`
			ORDER BY updated_at
			LIMIT @limit
			-- Several workers sweep.
			FOR UPDATE SKIP LOCKED`,
			pgx.NamedArgs{"before": before, "limit": retentionBatch})
		if err != nil {
			return err
		}
		list, err := pgx.CollectRows(r, pgx.RowToStructByName[old])
		if err != nil {
			return err
		}
		var removed []old
		for _, o := range list {
			// Again: a decoding may have come between the query and the lock.
			tag, err := t.Exec(ctx, `
				UPDATE scans SET blob_key = '', header_blob_key = '', bytes_removed_at = @now
				WHERE site_id = @site AND id = @scan AND `+notDecoded,
				pgx.NamedArgs{"site": o.SiteID, "scan": o.ID, "now": t.now})
			if err != nil {
				return err
			}
			if tag.RowsAffected() == 0 {
				continue
			}
			removed = append(removed, o)
			blobKeys = append(blobKeys, o.BlobKey)
			if o.HeaderBlobKey != "" {
				blobKeys = append(blobKeys, o.HeaderBlobKey)
			}
		}
		for _, o := range removed {
			if err := t.audit(ctx, o.SiteID, System, "scan.forget-bytes", scanObject(o.ID), "retention"); err != nil {
				return err
			}
		}
		scans = len(removed)
		return nil
	})
	return scans, blobKeys, err
}
