package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"neuroscreen"
)

// NewDecoding is a decoding as it is asked for.
type NewDecoding struct {
	Runs    []DecodingRun
	Options neuroscreen.DecodingOptions
	// Despite are the codes of a refused scan's reasons that don't keep it from
	// being decoded.
	Despite []string
	// IdempotencyKey as sent by the client, or empty. Stored as a keyed hash.
	IdempotencyKey string
}

// DecodingRun is one scan of a decoding and what happened during it.
type DecodingRun struct {
	ScanID uuid.UUID           `json:"scan_id"`
	Events []neuroscreen.Event `json:"events"` // none in lists
	Count  int                 `json:"count"`  // of them; set by the store
}

// DecodingRecord is one decoding.
type DecodingRecord struct {
	ID          uuid.UUID
	SiteID      uuid.UUID
	Runs        []DecodingRun
	Options     neuroscreen.DecodingOptions
	State       neuroscreen.DecodingState
	Reasons     []neuroscreen.Reason // of refused or failed; of received, why another attempt is due
	Attempt     int                  // workers that have taken it up
	Document    json.RawMessage      // a neuroscreen.Decoding, as it was stored; nil before
	WeightsKey  string               // blob of the weights, "" before
	WeightsSize int64
	Created     time.Time
	Updated     time.Time
	Finished    *time.Time
}

var decodingColumns, listedDecoding = columnsWith("r.events"), columnsWith("'[]'::jsonb")

// columnsWith selects a decoding with its runs. Lists leave out the events: a
// hundred decodings may hold many megabytes of them.
func columnsWith(events string) string {
	return `d.id, d.site_id, d.options, d.state, d.reasons, d.attempt, d.document, d.weights_key, d.weights_size,
	d.created_at AS created, d.updated_at AS updated, d.finished_at AS finished,
	(SELECT jsonb_agg(jsonb_build_object('scan_id', r.scan_id, 'events', ` + events + `, 'count', jsonb_array_length(r.events)) ORDER BY r.position)
	 FROM decoding_runs r WHERE r.site_id = d.site_id AND r.decoding_id = d.id) AS runs`
}

// maxDecodings of a site may wait or run: each takes minutes.
const maxDecodings = 50

// CreateDecoding stores a decoding, its audit entry and its job in one
// transaction: when it returns without error the decoding is durable. The same
// idempotency key with the same request returns the one that is already there.
// Retention leaves the bytes of its scans alone until it has ended.
//
// Errors: CodeNotFound for a scan that is not there; CodeUnprocessable
// "not-bold", "different-subjects", "idempotency-key-reused"; CodeConflict
// "scan-bytes-removed", "no-bytes", "scan-refused"; CodeBusy "too-many-decodings".
func (s *Store) CreateDecoding(ctx context.Context, siteID uuid.UUID, by Actor, n NewDecoding) (rec DecodingRecord, known bool, err error) {
	request, err := json.Marshal(struct {
		Runs    []DecodingRun
		Options neuroscreen.DecodingOptions
	}{n.Runs, n.Options})
	if err != nil {
		return rec, false, err
	}
	args := pgx.NamedArgs{"site": siteID, "options": n.Options, "hash": nil, "fingerprint": s.cfg.Keys.MAC(siteID, "decoding-request", request)}
	if n.IdempotencyKey != "" {
		args["hash"] = s.cfg.Keys.MAC(siteID, "decoding-key", []byte(n.IdempotencyKey))
	}
	err = s.inTx(ctx, func(t *tx) error {
		id, err := uuid.NewV7()
		if err != nil {
			return err
		}
		args["id"], args["now"] = id, t.now
		same := func() (err error) {
			if known, err = t.sameDecoding(ctx, args, &rec); err != nil || !known {
				return err
			}
			return t.audit(ctx, siteID, by, "decoding.create", decodingObject(rec.ID), "repeated", rec.ScanIDs()...)
		}
		if err := same(); err != nil || known {
			return err
		}
		if err := t.lockRuns(ctx, siteID, n); err != nil {
			return err
		}
		var running int
		if err := t.QueryRow(ctx, "SELECT count(*) FROM decodings WHERE site_id = @site AND finished_at IS NULL", args).Scan(&running); err != nil {
			return err
		}
		tag, err := t.Exec(ctx, `
			INSERT INTO decodings (site_id, id, options, idempotency_hash, fingerprint, state, created_at, updated_at)
			VALUES (@site, @id, @options, @hash, @fingerprint, 'received', @now, @now)
			-- Waits for a concurrent post under the same key to commit.
			ON CONFLICT (site_id, idempotency_hash) WHERE idempotency_hash IS NOT NULL DO NOTHING`, args)
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return same()
		}
		if running >= maxDecodings {
			return neuroscreen.Errorf(neuroscreen.CodeBusy, "too-many-decodings", "%d decodings wait or run; send it again when some have ended", running)
		}
		for i, r := range n.Runs {
			_, err := t.Exec(ctx, `
				INSERT INTO decoding_runs (site_id, decoding_id, position, scan_id, events)
				VALUES (@site, @id, @position, @scan, @events)`,
				pgx.NamedArgs{"site": siteID, "id": id, "position": i + 1, "scan": r.ScanID, "events": r.Events})
			if err != nil {
				return err
			}
		}
		if err := s.cfg.Jobs.EnqueueDecoding(ctx, t, siteID, id); err != nil {
			return err
		}
		if rec, err = t.decoding(ctx, siteID, id); err != nil {
			return err
		}
		return t.audit(ctx, siteID, by, "decoding.create", decodingObject(id), "", rec.ScanIDs()...)
	})
	return rec, known, err
}

// lockRuns keeps the scans and their bytes until the transaction ends, and
// checks that they are BOLD runs of one person, refused for nothing that holds
// for a decoding too.
func (t *tx) lockRuns(ctx context.Context, siteID uuid.UUID, n NewDecoding) error {
	pseudonym := ""
	for i, r := range n.Runs {
		field := fmt.Sprintf("runs.%d.scan_id", i)
		scan, err := row[ScanRecord](ctx, t, neuroscreen.FieldErrorf(neuroscreen.CodeNotFound, "scan-not-found", field, "there is no such scan"),
			"SELECT "+scanColumns+" FROM scans WHERE site_id = @site AND id = @scan"+consented(ctx, "scans.id")+" FOR KEY SHARE", pgx.NamedArgs{"site": siteID, "scan": r.ScanID})
		switch {
		case err != nil:
			return err
		case scan.Metadata.Modality != neuroscreen.BOLD:
			return neuroscreen.FieldErrorf(neuroscreen.CodeUnprocessable, "not-bold", field, "this scan was posted with the modality %s", scan.Metadata.Modality)
		case scan.Size == 0:
			return neuroscreen.FieldErrorf(neuroscreen.CodeConflict, "no-bytes", field, "no image of this scan ever came; send the series again, it is then a scan of its own")
		case scan.BytesRemoved != nil:
			return neuroscreen.FieldErrorf(neuroscreen.CodeConflict, "scan-bytes-removed", field, "the scan's bytes were removed; post the same file again, then repeat this")
		case i > 0 && scan.Pseudonym != pseudonym:
			return neuroscreen.FieldErrorf(neuroscreen.CodeUnprocessable, "different-subjects", field, "this scan is of another subject than the first")
		}
		for _, why := range scan.Reasons {
			if scan.State == neuroscreen.Refused && !slices.Contains(n.Despite, why.Code) {
				return neuroscreen.FieldErrorf(neuroscreen.CodeConflict, "scan-refused", field, "this scan was refused (%s): %s", why.Code, why.Text)
			}
		}
		pseudonym = scan.Pseudonym
	}
	return nil
}

// sameDecoding looks for what the idempotency key made before.
func (t *tx) sameDecoding(ctx context.Context, args pgx.NamedArgs, rec *DecodingRecord) (known bool, err error) {
	var id uuid.UUID
	var fingerprint []byte
	err = t.QueryRow(ctx, "SELECT id, fingerprint FROM decodings WHERE site_id = @site AND idempotency_hash = @hash", args).Scan(&id, &fingerprint)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if !bytes.Equal(fingerprint, args["fingerprint"].([]byte)) {
		return false, neuroscreen.FieldErrorf(neuroscreen.CodeUnprocessable, "idempotency-key-reused", "Idempotency-Key",
			"this key came before with another request; use a new key for a new request")
	}
	*rec, err = t.decoding(ctx, args["site"].(uuid.UUID), id)
	return err == nil, err
}

func (t *tx) decoding(ctx context.Context, siteID, id uuid.UUID) (DecodingRecord, error) {
	return row[DecodingRecord](ctx, t, notFound("decoding"), "SELECT "+decodingColumns+" FROM decodings d WHERE d.site_id = @site AND d.id = @id"+decodingConsented(ctx),
		pgx.NamedArgs{"site": siteID, "id": id})
}

// Decoding returns one decoding. Errors: CodeNotFound.
func (s *Store) Decoding(ctx context.Context, siteID, id uuid.UUID) (DecodingRecord, error) {
	return row[DecodingRecord](ctx, s.cfg.Pool, notFound("decoding"), "SELECT "+decodingColumns+" FROM decodings d WHERE d.site_id = @site AND d.id = @id"+decodingConsented(ctx),
		pgx.NamedArgs{"site": siteID, "id": id})
}

// Decodings lists the newest of the site without their events, at most so many;
// with a scan, those that it is in.
func (s *Store) Decodings(ctx context.Context, siteID uuid.UUID, scanID *uuid.UUID, most int) ([]DecodingRecord, error) {
	return rows[DecodingRecord](ctx, s, "SELECT "+listedDecoding+` FROM decodings d
		WHERE d.site_id = @site`+decodingConsented(ctx)+`
		  AND (@scan::uuid IS NULL OR EXISTS (
		      SELECT FROM decoding_runs r WHERE r.site_id = @site AND r.scan_id = @scan AND r.decoding_id = d.id))
		ORDER BY d.created_at DESC, d.id DESC LIMIT @most`,
		pgx.NamedArgs{"site": siteID, "scan": scanID, "most": most})
}

// EraseDecoding removes a decoding with its result; a worker that holds it is
// shut out. It returns the blobs that it used, for ReleaseBlobs. Errors:
// CodeNotFound.
func (s *Store) EraseDecoding(ctx context.Context, siteID uuid.UUID, by Actor, id uuid.UUID) (blobKeys []string, err error) {
	err = s.inTx(ctx, func(t *tx) error {
		blobKeys, err = t.eraseDecodings(ctx, siteID, "id = @id"+decodingConsented(ctx), pgx.NamedArgs{"id": id})
		switch {
		case err != nil:
			return err
		case blobKeys == nil:
			return notFound("decoding")
		}
		return t.audit(ctx, siteID, by, "decoding.erase", decodingObject(id), "")
	})
	return blobKeys, err
}

// eraseDecodings removes those that the condition finds; blobKeys is nil when
// there are none.
func (t *tx) eraseDecodings(ctx context.Context, siteID uuid.UUID, which string, args pgx.NamedArgs) (blobKeys []string, err error) {
	args["site"] = siteID
	r, err := t.Query(ctx, "SELECT id, weights_key FROM decodings d WHERE site_id = @site AND "+which+" ORDER BY id FOR UPDATE", args)
	if err != nil {
		return nil, err
	}
	found, err := pgx.CollectRows(r, pgx.RowToStructByName[struct {
		ID         uuid.UUID
		WeightsKey string
	}])
	if err != nil || len(found) == 0 {
		return nil, err
	}
	blobKeys = []string{}
	for _, d := range found {
		args := pgx.NamedArgs{"site": siteID, "id": d.ID}
		if _, err := t.Exec(ctx, "DELETE FROM decoding_runs WHERE site_id = @site AND decoding_id = @id", args); err != nil {
			return nil, err
		}
		if _, err := t.Exec(ctx, "DELETE FROM decodings WHERE site_id = @site AND id = @id", args); err != nil {
			return nil, err
		}
		if d.WeightsKey != "" {
			blobKeys = append(blobKeys, d.WeightsKey)
		}
	}
	return blobKeys, nil
}

// DecodingLease is the right to work on a decoding until it runs out; see Lease.
type DecodingLease struct {
	Decoding DecodingRecord
	Fence    int64
}

func (l DecodingLease) args(more pgx.NamedArgs) pgx.NamedArgs {
	args := pgx.NamedArgs{"site": l.Decoding.SiteID, "id": l.Decoding.ID, "fence": l.Fence}
	for k, v := range more {
		args[k] = v
	}
	return args
}

// LeaseDecoding takes a decoding up for ttl, counts an attempt and raises the
// fence. Errors: ErrBusy, ErrFinal, CodeNotFound.
func (s *Store) LeaseDecoding(ctx context.Context, siteID, id uuid.UUID, holder string, ttl time.Duration) (l DecodingLease, err error) {
	err = s.inTx(ctx, func(t *tx) error {
		err := t.QueryRow(ctx, `
			UPDATE decodings
			SET attempt = attempt + 1, fence = fence + 1, reasons = '[]', lease_until = @until, lease_holder = @holder, updated_at = @now
			WHERE site_id = @site AND id = @id AND finished_at IS NULL AND (lease_until IS NULL OR lease_until <= @now)
			RETURNING fence`,
			pgx.NamedArgs{"site": siteID, "id": id, "until": t.now.Add(ttl), "holder": holder, "now": t.now}).Scan(&l.Fence)
		busy := errors.Is(err, pgx.ErrNoRows)
		if err != nil && !busy {
			return err
		}
		if l.Decoding, err = t.decoding(ctx, siteID, id); err != nil {
			return err
		}
		switch {
		case busy && l.Decoding.State.Final():
			return ErrFinal
		case busy:
			return ErrBusy
		}
		return nil
	})
	return l, err
}

// RenewDecoding moves the end of the lease to ttl from now. Errors: ErrFenced.
func (s *Store) RenewDecoding(ctx context.Context, l DecodingLease, ttl time.Duration) error {
	return s.inTx(ctx, func(t *tx) error {
		return fenced(t.Exec(ctx, "UPDATE decodings SET lease_until = @until WHERE site_id = @site AND id = @id AND fence = @fence AND finished_at IS NULL",
			l.args(pgx.NamedArgs{"until": t.now.Add(ttl)})))
	})
}

// ReleaseDecoding gives a decoding back for a later attempt and says why it
// waits. Errors: ErrFenced.
func (s *Store) ReleaseDecoding(ctx context.Context, l DecodingLease, counted bool, why neuroscreen.Reason) error {
	back := 0
	if !counted {
		back = 1
	}
	return s.inTx(ctx, func(t *tx) error {
		return fenced(t.Exec(ctx, `
			UPDATE decodings
			SET reasons = @reasons, attempt = attempt - @back, fence = fence + 1, lease_until = NULL, lease_holder = NULL, updated_at = @now
			WHERE site_id = @site AND id = @id AND fence = @fence AND finished_at IS NULL`,
			l.args(pgx.NamedArgs{"reasons": []neuroscreen.Reason{why}, "back": back, "now": t.now})))
	})
}

// DecodingOutcome ends a decoding: with a result and the blob of its weights,
// or with reasons.
type DecodingOutcome struct {
	State       neuroscreen.DecodingState
	Reasons     []neuroscreen.Reason
	Result      *neuroscreen.Decoding
	WeightsKey  string
	WeightsSize int64
}

// check refuses an outcome that is not of the decoding's own scans.
func (o DecodingOutcome) check(d DecodingRecord) error {
	if (o.State == neuroscreen.DecodingDone) != (o.Result != nil) || !o.State.Final() || o.Result == nil && len(o.Reasons) == 0 {
		return fmt.Errorf("store: a decoding cannot end as %q so", o.State)
	}
	if o.Result == nil {
		return nil
	}
	if len(o.Result.Files) != len(d.Runs) {
		return fmt.Errorf("store: the result of decoding %s is of %d files", d.ID, len(o.Result.Files))
	}
	for n, f := range o.Result.Files {
		if f.ScanID != d.Runs[n].ScanID.String() {
			return fmt.Errorf("store: the result of decoding %s names scan %q", d.ID, f.ScanID)
		}
	}
	return nil
}

// FinishDecoding ends a decoding in one transaction. Errors: ErrFenced;
// CodeUnavailable "blob-missing".
func (s *Store) FinishDecoding(ctx context.Context, l DecodingLease, o DecodingOutcome) error {
	if err := o.check(l.Decoding); err != nil {
		return err
	}
	args := pgx.NamedArgs{"state": o.State, "reasons": reasonsOrNone(o.Reasons), "document": nil, "sha256": nil, "weights": o.WeightsKey, "size": o.WeightsSize}
	if o.Result != nil {
		document, err := json.Marshal(o.Result)
		if err != nil {
			return fmt.Errorf("store: decoding document: %w", err)
		}
		sum := sha256.Sum256(document)
		args["document"], args["sha256"] = document, sum[:]
	}
	return s.inTx(ctx, func(t *tx) error {
		if o.WeightsKey != "" {
			if err := t.lockBlobs(ctx, o.WeightsKey); err != nil {
				return err
			}
		}
		args["now"] = t.now
		err := fenced(t.Exec(ctx, `
			UPDATE decodings
			SET state = @state, reasons = @reasons, document = @document, sha256 = @sha256, weights_key = @weights, weights_size = @size,
			    finished_at = @now, updated_at = @now, lease_until = NULL, lease_holder = NULL
			WHERE site_id = @site AND id = @id AND fence = @fence AND finished_at IS NULL`, l.args(args)))
		if err != nil {
			return err
		}
		return t.audit(ctx, l.Decoding.SiteID, System, "decoding."+string(o.State), decodingObject(l.Decoding.ID), fmt.Sprintf("attempt %d", l.Decoding.Attempt))
	})
}

func decodingObject(id uuid.UUID) string { return "decoding:" + id.String() }

// ScanIDs are the decoding's scans.
func (r DecodingRecord) ScanIDs() []uuid.UUID {
	ids := make([]uuid.UUID, len(r.Runs))
	for i, run := range r.Runs {
		ids[i] = run.ScanID
	}
	return ids
}
