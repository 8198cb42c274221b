package store

import (
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

var (
	// ErrBusy: another worker's lease on the scan is still good.
	ErrBusy = errors.New("store: another worker holds the scan")
	// ErrFinal: the scan has ended, there is nothing to do.
	ErrFinal = errors.New("store: the scan has ended")
	// ErrFenced: the lease counts no longer, because the scan was cancelled,
	// corrected, erased or taken over. Stop; nothing more can be stored.
	ErrFenced = errors.New("store: the lease on the scan is lost")
)

// stages in the order in which a run goes through them.
var stages = []neuroscreen.State{neuroscreen.Received, neuroscreen.Checked, neuroscreen.Segmented, neuroscreen.Measured}

// Lease takes a scan up for ttl: it counts an attempt, raises the fence and
// puts the scan back to Received. Errors: ErrBusy, ErrFinal, CodeNotFound.
func (s *Store) Lease(ctx context.Context, siteID, scanID uuid.UUID, holder string, ttl time.Duration) (lease Lease, err error) {
	err = s.inTx(ctx, func(t *tx) error {
		old, err := t.lockScan(ctx, siteID, scanID)
		if err != nil {
			return err
		}
		if old.State.Final() {
			return ErrFinal
		}
		seq := 0
		if old.State != neuroscreen.Received { // a step back is an event
			seq = 1
		}
		lease.Until = t.now.Add(ttl)
		c, err := row[changedScan](ctx, t, ErrBusy, `
			UPDATE scans
			SET state = 'received', reasons = '[]', attempt = attempt + 1, fence = fence + 1, event_seq = event_seq + @seq,
			    lease_until = @until, lease_holder = @holder, updated_at = @now
			WHERE site_id = @site AND id = @scan AND finished_at IS NULL
			  AND (lease_until IS NULL OR lease_until <= @now)
			RETURNING `+changedColumns,
			pgx.NamedArgs{"site": siteID, "scan": scanID, "seq": seq, "until": lease.Until, "holder": holder, "now": t.now})
		if err != nil {
			return err
		}
		lease.Scan, lease.Fence = c.ScanRecord, c.Fence
		if lease.Settings, err = currentSettings(ctx, t, siteID); err != nil {
			return err
		}
		if lease.LeftOut, err = t.leftOut(ctx, c.ScanRecord); err != nil || seq == 0 {
			return err
		}
		return t.noteChange(ctx, c)
	})
	return lease, err
}

// leftOut lists what reviewers left out of the scan's last result.
func (t *tx) leftOut(ctx context.Context, rec ScanRecord) (out []neuroscreen.LeftOut, err error) {
	var found []byte
	err = t.QueryRow(ctx, "SELECT document #> '{amendment,left_out}' FROM results WHERE site_id = @site AND scan_id = @scan AND version = @version",
		pgx.NamedArgs{"site": rec.SiteID, "scan": rec.ID, "version": rec.ResultVersion}).Scan(&found)
	if errors.Is(err, pgx.ErrNoRows) || err == nil && found == nil {
		return nil, nil
	}
	if err == nil {
		err = json.Unmarshal(found, &out)
	}
	return out, err
}

// Renew moves the end of the lease to ttl from now. Errors: ErrFenced.
func (s *Store) Renew(ctx context.Context, siteID uuid.UUID, l Lease, ttl time.Duration) error {
	return s.inTx(ctx, func(t *tx) error {
		return fenced(t.Exec(ctx, `
			UPDATE scans SET lease_until = @until
			WHERE site_id = @site AND id = @scan AND fence = @fence AND finished_at IS NULL`,
			l.args(siteID, pgx.NamedArgs{"until": t.now.Add(ttl)})))
	})
}

// Advance records that the scan has reached Checked, Segmented or Measured;
// a stage may be left out but not gone back to. Errors: ErrFenced.
func (s *Store) Advance(ctx context.Context, siteID uuid.UUID, l Lease, to neuroscreen.State) error {
	i := slices.Index(stages, to)
	if i < 1 {
		return fmt.Errorf("store: %q is no stage to advance to", to)
	}
	return s.inTx(ctx, func(t *tx) error {
		c, err := t.lockLeased(ctx, siteID, l)
		if err != nil {
			return err
		}
		if slices.Index(stages, c.State) >= i {
			return fmt.Errorf("store: a scan cannot advance from %s to %s", c.State, to)
		}
		c, err = row[changedScan](ctx, t, ErrFenced, `
			UPDATE scans SET state = @to, event_seq = event_seq + 1, updated_at = @now
			WHERE site_id = @site AND id = @scan AND fence = @fence AND finished_at IS NULL
			RETURNING `+changedColumns,
			l.args(siteID, pgx.NamedArgs{"to": to, "now": t.now}))
		if err != nil {
			return err
		}
		return t.noteChange(ctx, c)
	})
}

// Release gives the scan back unfinished, for a later attempt, and says why
// it waits. An attempt that failed for want of a dependency is not counted.
// Errors: ErrFenced.
func (s *Store) Release(ctx context.Context, siteID uuid.UUID, l Lease, counted bool, why neuroscreen.Reason) error {
	return s.inTx(ctx, func(t *tx) error {
		back := 0
		if !counted {
			back = 1
		}
		c, err := row[changedScan](ctx, t, ErrFenced, `
			UPDATE scans
			SET state = 'received', reasons = @reasons, attempt = attempt - @back, fence = fence + 1,
			    event_seq = event_seq + 1, lease_until = NULL, lease_holder = NULL, updated_at = @now
			WHERE site_id = @site AND id = @scan AND fence = @fence AND finished_at IS NULL
			RETURNING `+changedColumns,
			l.args(siteID, pgx.NamedArgs{"back": back, "reasons": []neuroscreen.Reason{why}, "now": t.now}))
		if err != nil {
			return err
		}
		return t.noteChange(ctx, c)
	})
}

// Uncount takes back the attempt of a worker that lives and lost its lease only
// because the database was away from it: whoever has taken the scan up since is
// not to be the one attempt too many. Nothing happens where nobody has, where the
// worker gave it back itself and only did not hear so, or where the run has ended.
func (s *Store) Uncount(ctx context.Context, siteID uuid.UUID, l Lease) error {
	_, err := s.cfg.Pool.Exec(ctx, `
		UPDATE scans SET attempt = attempt - 1
		WHERE site_id = @site AND id = @scan AND run = @run AND `+takenUpSince,
		l.args(siteID, pgx.NamedArgs{"run": l.Scan.Run}))
	return classify(err)
}

// UncountDecoding is for a decoding what Uncount is for a scan.
func (s *Store) UncountDecoding(ctx context.Context, l DecodingLease) error {
	_, err := s.cfg.Pool.Exec(ctx, `
		UPDATE decodings SET attempt = attempt - 1
		WHERE site_id = @site AND id = @id AND `+takenUpSince, l.args(nil))
	return classify(err)
}

// takenUpSince a lease with a fence: the next fence without a lease is that of
// its own release. The attempt of who has it now stays.
const takenUpSince = `fence > @fence AND NOT (fence = @fence + 1 AND lease_until IS NULL)
		  AND attempt > CASE WHEN lease_until IS NULL THEN 0 ELSE 1 END AND finished_at IS NULL`

// Finish ends the run in one transaction: state, result version, files,
// event, worklist and audit entry, or nothing of it. It returns the result's
// version, 0 unless scored. A result that names another scan, subject or
// input is an error of ours and is not stored. Errors: ErrFenced;
// CodeUnavailable "blob-missing".
func (s *Store) Finish(ctx context.Context, siteID uuid.UUID, l Lease, o Outcome) (version int, err error) {
	if err := o.check(l.Scan); err != nil {
		return 0, err
	}
	err = s.inTx(ctx, func(t *tx) error {
		keys := make([]string, len(o.Files))
		for i, f := range o.Files {
			keys[i] = f.BlobKey
		}
		if err := t.lockBlobs(ctx, keys...); err != nil {
			return err
		}
		c, err := t.lockLeased(ctx, siteID, l)
		if err != nil {
			return err
		}
		version = c.ResultVersion
		action := "scan." + string(o.State)
		if o.State == neuroscreen.Scored {
			if version, err = t.insertResult(ctx, c.ScanRecord, o); err != nil {
				return err
			}
			action = "result.store"
		}
		c, err = row[changedScan](ctx, t, ErrFenced, `
			UPDATE scans
			SET state = @state, reasons = @reasons, result_version = @version,
			    finished_at = @now, updated_at = @now, event_seq = event_seq + 1,
			    lease_until = NULL, lease_holder = NULL
			WHERE site_id = @site AND id = @scan AND fence = @fence AND finished_at IS NULL
			RETURNING `+changedColumns,
			l.args(siteID, pgx.NamedArgs{"state": o.State, "reasons": reasonsOrNone(o.Reasons), "version": version, "now": t.now}))
		if err != nil {
			return err
		}
		if err := t.noteChange(ctx, c); err != nil {
			return err
		}
		if o.State == neuroscreen.Scored {
			if err := t.noteCase(ctx, c.ScanRecord, o.Result); err != nil {
				return err
			}
		} else {
			version = 0
		}
		return t.audit(ctx, siteID, System, action, scanObject(c.ID), fmt.Sprintf("run %d attempt %d", c.Run, c.Attempt))
	})
	return version, err
}

func (o Outcome) check(scan ScanRecord) error {
	switch o.State {
	case neuroscreen.Scored:
		r := o.Result
		switch {
		case r == nil:
			return errors.New("store: scored without a result")
		case r.ScanID != scan.ID.String() || r.SubjectID != scan.Pseudonym:
			return fmt.Errorf("store: the result of scan %s names scan %q and another subject's or no pseudonym", scan.ID, r.ScanID)
		case r.Input.SHA256 != scan.SHA256:
			return fmt.Errorf("store: the result of scan %s was computed from other bytes (%q)", scan.ID, r.Input.SHA256)
		}
	case neuroscreen.Refused, neuroscreen.Failed:
		if len(o.Reasons) == 0 || o.Result != nil || len(o.Files) > 0 {
			return fmt.Errorf("store: %s needs reasons, and neither result nor files", o.State)
		}
	default:
		return fmt.Errorf("store: a run cannot end as %q", o.State)
	}
	return nil
}

// lockLeased locks the scan's row if the lease still counts. Errors: ErrFenced.
func (t *tx) lockLeased(ctx context.Context, siteID uuid.UUID, l Lease) (changedScan, error) {
	return row[changedScan](ctx, t, ErrFenced, `
		SELECT `+changedColumns+` FROM scans
		WHERE site_id = @site AND id = @scan AND fence = @fence AND finished_at IS NULL
		FOR UPDATE`, l.args(siteID, nil))
}

// insertResult stores the next version with its files.
func (t *tx) insertResult(ctx context.Context, rec ScanRecord, o Outcome) (version int, err error) {
	document, err := json.Marshal(o.Result)
	if err != nil {
		return 0, fmt.Errorf("store: result document: %w", err)
	}
	sum := sha256.Sum256(document)
	// One past the newest there is, which is not the current one after a
	// run that followed it was refused.
	err = t.QueryRow(ctx, `
		INSERT INTO results (site_id, scan_id, version, run, metadata, document, sha256, software, created_at)
		SELECT @site, @scan, 1 + coalesce(max(version), 0), @run, @metadata, @document, @sha256, @software, @now
		FROM results WHERE site_id = @site AND scan_id = @scan
		RETURNING version`,
		pgx.NamedArgs{"site": rec.SiteID, "scan": rec.ID, "run": rec.Run, "metadata": rec.Metadata,
			"document": document, "sha256": sum[:], "software": o.Result.Software, "now": t.now}).Scan(&version)
	if err != nil {
		return 0, err
	}
	for _, f := range o.Files {
		_, err := t.Exec(ctx, `
			INSERT INTO derived_files (site_id, scan_id, version, kind, media_type, blob_key, sha256, size_bytes)
			VALUES (@site, @scan, @version, @kind, @media_type, @blob, decode(@sha256, 'hex'), @size)`,
			pgx.NamedArgs{"site": rec.SiteID, "scan": rec.ID, "version": version, "kind": f.Kind, "media_type": f.MediaType,
				"blob": f.BlobKey, "sha256": f.SHA256, "size": f.Size})
		if err != nil {
			return 0, err
		}
	}
	return version, nil
}

func (l Lease) args(siteID uuid.UUID, more pgx.NamedArgs) pgx.NamedArgs {
	args := pgx.NamedArgs{"site": siteID, "scan": l.Scan.ID, "fence": l.Fence}
	for k, v := range more {
		args[k] = v
	}
	return args
}

func fenced(tag interface{ RowsAffected() int64 }, err error) error {
	if err == nil && tag.RowsAffected() == 0 {
		return ErrFenced
	}
	return err
}
