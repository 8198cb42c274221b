package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"neuroscreen"
)

const auditColumns = `seq, at, actor, action, object, details, scan_ids AS scans, hash`

// AppendAudit adds an entry to the site's chain; Seq, At and Hash are set by
// the store. Changes made through the store write their own; handlers call it
// for reads of patient data.
//
// Every such read waits for it, and each exchange with the database costs some
// milliseconds on a busy machine: so this is inTx with audit, in two exchanges
// instead of six.
func (s *Store) AppendAudit(ctx context.Context, siteID uuid.UUID, e AuditEntry) error {
	conn, err := s.cfg.Pool.Acquire(ctx)
	if err != nil {
		return classify(err)
	}
	// Released with its transaction still open, after an error, a connection
	// is closed.
	defer conn.Release()
	var before []byte
	batch := &pgx.Batch{}
	batch.Queue("BEGIN")
	batch.Queue("SELECT clock_timestamp()").QueryRow(func(r pgx.Row) error { return r.Scan(&e.At) })
	batch.Queue("SELECT seq + 1, hash FROM audit_heads WHERE site_id = @site FOR UPDATE", pgx.NamedArgs{"site": siteID}).QueryRow(func(r pgx.Row) error {
		return r.Scan(&e.Seq, &before)
	})
	err = conn.SendBatch(ctx, batch).Close()
	if errors.Is(err, pgx.ErrNoRows) { // the site's first entry
		if _, err := conn.Exec(ctx, "ROLLBACK"); err != nil {
			return classify(err)
		}
		return s.inTx(ctx, func(t *tx) error { return t.audit(ctx, siteID, e.Actor, e.Action, e.Object, e.Details, e.Scans...) })
	}
	if err != nil {
		return classify(err)
	}
	if s.cfg.Now != nil {
		e.At = s.now().Truncate(time.Microsecond)
	}
	batch = &pgx.Batch{}
	s.queueAudit(batch, siteID, before, e)
	batch.Queue("COMMIT")
	return classify(conn.SendBatch(ctx, batch).Close())
}

// audit appends to the chain. The head's lock puts a site's transactions into
// one line, so it is the last thing a transaction does.
func (t *tx) audit(ctx context.Context, siteID uuid.UUID, by Actor, action, object, details string, scans ...uuid.UUID) error {
	_, err := t.Exec(ctx, `
		INSERT INTO audit_heads (site_id, seq, hash)
		VALUES (@site, 0, '')
		ON CONFLICT (site_id) DO NOTHING`, pgx.NamedArgs{"site": siteID})
	if err != nil {
		return err
	}
	e := AuditEntry{At: t.now, Actor: by, Action: action, Object: object, Details: details, Scans: scans}
	var before []byte
	err = t.QueryRow(ctx, "SELECT seq + 1, hash FROM audit_heads WHERE site_id = @site FOR UPDATE",
		pgx.NamedArgs{"site": siteID}).Scan(&e.Seq, &before)
	if err != nil {
		return err
	}
	batch := &pgx.Batch{}
	t.s.queueAudit(batch, siteID, before, e)
	return t.SendBatch(ctx, batch).Close()
}

// queueAudit appends e to the chain whose head, locked, has the hash before.
func (s *Store) queueAudit(batch *pgx.Batch, siteID uuid.UUID, before []byte, e AuditEntry) {
	args := pgx.NamedArgs{"site": siteID, "seq": e.Seq, "at": e.At, "actor": e.Actor, "action": e.Action,
		"object": e.Object, "details": e.Details, "scans": e.Scans, "hash": s.auditHash(siteID, before, e)}
	batch.Queue(`
		INSERT INTO audit (site_id, seq, at, actor, action, object, details, scan_ids, hash)
		VALUES (@site, @seq, @at, @actor, @action, @object, @details, nullif(@scans::uuid[], '{}'), @hash)`, args)
	batch.Queue("UPDATE audit_heads SET seq = @seq, hash = @hash WHERE site_id = @site", args)
}

// auditHash is HMAC-SHA-256 under the site's audit key of the hash before and
// every field of e, each behind its length. Being keyed, it cannot be made
// anew by who can write to the database only.
func (s *Store) auditHash(siteID uuid.UUID, before []byte, e AuditEntry) []byte {
	var b []byte
	field := func(v []byte) {
		b = binary.BigEndian.AppendUint64(b, uint64(len(v)))
		b = append(b, v...)
	}
	field(before)
	b = binary.BigEndian.AppendUint64(b, uint64(e.Seq))
	b = binary.BigEndian.AppendUint64(b, uint64(e.At.UnixMicro()))
	for _, v := range []string{string(e.Actor), e.Action, e.Object, e.Details} {
		field([]byte(v))
	}
	if len(e.Scans) > 0 { // without them as it was before entries had any
		var ids []byte
		for _, id := range e.Scans {
			ids = append(ids, id[:]...)
		}
		field(ids)
	}
	return s.cfg.Keys.MAC(siteID, "audit", b)
}

// Audit lists entries, newest first.
func (s *Store) Audit(ctx context.Context, siteID uuid.UUID, f AuditFilter) ([]AuditEntry, error) {
	where := "site_id = @site"
	args := pgx.NamedArgs{"site": siteID, "limit": limit(f.Limit, 100, 1000)}
	if f.Object != nil {
		where += " AND object = @object"
		args["object"] = *f.Object
	}
	if f.ScanID != nil {
		// Each by its own index, whatever the limit: one that walks back from the
		// newest would pass over all that concerns other scans.
		where += ` AND seq IN (
			SELECT seq FROM audit WHERE site_id = @site AND object = @scan_object
			UNION ALL
			SELECT seq FROM audit WHERE site_id = @site AND scan_ids @> ARRAY[@scan::uuid])`
		args["scan"], args["scan_object"] = *f.ScanID, scanObject(*f.ScanID)
	}
	if f.Actor != nil {
		where += " AND actor = @actor"
		args["actor"] = *f.Actor
	}
	if f.Before > 0 {
		where += " AND seq < @before"
		args["before"] = f.Before
	}
	return rows[AuditEntry](ctx, s, "SELECT "+auditColumns+" FROM audit WHERE "+where+" ORDER BY seq DESC LIMIT @limit", args)
}

// VerifyAudit walks the site's chain and returns how many entries it holds.
// It cannot see that the newest entries were cut off together with the head;
// keep an entry's number and hash elsewhere to see that too. Errors:
// CodeConflict "audit-broken" naming the first entry that was changed, is
// missing or was added.
func (s *Store) VerifyAudit(ctx context.Context, siteID uuid.UUID) (entries int64, err error) {
	broken := func(seq int64, how string) error {
		return neuroscreen.Errorf(neuroscreen.CodeConflict, "audit-broken", "audit entry %d %s", seq, how)
	}
	// One snapshot, so that entries added meanwhile do not look like a tail
	// without a head.
	err = pgx.BeginTxFunc(ctx, s.cfg.Pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(t pgx.Tx) error {
		r, err := t.Query(ctx, "SELECT "+auditColumns+" FROM audit WHERE site_id = @site ORDER BY seq", pgx.NamedArgs{"site": siteID})
		if err != nil {
			return err
		}
		var before []byte
		var e AuditEntry
		_, err = pgx.ForEachRow(r, []any{&e.Seq, &e.At, &e.Actor, &e.Action, &e.Object, &e.Details, &e.Scans, &e.Hash}, func() error {
			entries++
			if e.Seq != entries {
				return broken(entries, "is missing")
			}
			if !bytes.Equal(e.Hash, s.auditHash(siteID, before, e)) {
				return broken(entries, "was changed")
			}
			before = bytes.Clone(e.Hash)
			return nil
		})
		if err != nil {
			return err
		}
		var seq int64
		var hash []byte
		err = t.QueryRow(ctx, "SELECT seq, hash FROM audit_heads WHERE site_id = @site", pgx.NamedArgs{"site": siteID}).Scan(&seq, &hash)
		switch {
		case err == pgx.ErrNoRows && entries == 0:
			return nil
		case err != nil && err != pgx.ErrNoRows:
			return err
		case seq > entries:
			return broken(entries+1, "is missing")
		case seq < entries || !bytes.Equal(hash, before):
			return broken(entries, "was added")
		}
		return nil
	})
	return entries, classify(err)
}

func limit(n, standard, most int) int {
	if n <= 0 {
		return standard
	}
	return min(n, most)
}
