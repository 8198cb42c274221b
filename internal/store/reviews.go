package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"neuroscreen"
)

// reviewContext ties a sealed comment to its row.
func reviewContext(scanID uuid.UUID, seq int) string { return fmt.Sprintf("review/%s/%d", scanID, seq) }

// Review stores a decision on a case and lets go of it; whoever was told of a
// result is told that it was accepted or rejected; amended with a comment it
// stands, as accepted. With Amended it also makes the next version of the
// result, on a run of its own: that is to be decided on anew, and
// whoever was told of the old one is told of both. The same decision sent again
// by the same key is the same. Errors: CodeNotFound; CodeConflict "scan-running" while the scan is being analysed,
// "result-changed" when it was analysed again since the reader looked,
// "reviewed-meanwhile" when somebody else decided since, "case-held" while
// somebody else has it open.
func (s *Store) Review(ctx context.Context, siteID uuid.UUID, keyID uuid.UUID, scanID uuid.UUID, n NewReview) (rec ReviewRecord, err error) {
	err = s.inTx(ctx, func(t *tx) error {
		if n.Amended != nil {
			var keys []string
			for _, f := range n.Amended.Files {
				keys = append(keys, f.BlobKey)
			}
			if err := t.lockBlobs(ctx, keys...); err != nil {
				return err
			}
		}
		c, err := t.lockScan(ctx, siteID, scanID)
		if err != nil {
			return err
		}
		if again, err := t.decidedAlready(ctx, c.ScanRecord, keyID, n); err != nil || again != nil {
			if again != nil {
				rec = *again
			}
			return err
		}
		if !c.State.Final() {
			return neuroscreen.Errorf(neuroscreen.CodeConflict, "scan-running", "the scan is %s; it can be decided on when it has ended", c.State)
		}
		if n.Run != c.Run {
			return neuroscreen.Errorf(neuroscreen.CodeConflict, "result-changed", "the scan was analysed again since you opened it; look at the new result first")
		}
		args := pgx.NamedArgs{"site": siteID, "scan": scanID, "run": c.Run, "key": keyID, "now": t.now}
		var seq, seen int
		err = t.QueryRow(ctx, `
			SELECT coalesce(max(seq), 0) + 1, count(*) FILTER (WHERE run = @run) FROM reviews
			WHERE site_id = @site AND scan_id = @scan`, args).Scan(&seq, &seen)
		if err != nil {
			return err
		}
		if seen != n.Seen {
			return neuroscreen.Errorf(neuroscreen.CodeConflict, "reviewed-meanwhile", "somebody else decided on this case since you opened it; look at that decision first")
		}
		if err := t.heldByOther(ctx, args); err != nil {
			return err
		}
		made, after := 0, c
		if n.Amended != nil {
			if after, err = t.storeAmended(ctx, c, seq, keyID, *n.Amended); err != nil {
				return err
			}
			made = after.ResultVersion
		}
		excluded := orNone(n.Excluded)
		for k, v := range (pgx.NamedArgs{"seq": seq, "version": c.CurrentVersion(), "made": made, "decision": n.Decision, "excluded": excluded,
			"sealed": s.cfg.Keys.Seal(siteID, reviewContext(scanID, seq), []byte(n.Comment))}) {
			args[k] = v
		}
		batch := &pgx.Batch{}
		batch.Queue(`
			INSERT INTO reviews (site_id, scan_id, seq, run, result_version, made_version, key_id, decision, sealed, excluded, at)
			VALUES (@site, @scan, @seq, @run, @version, @made, @key, @decision, @sealed, @excluded, @now)`, args)
		if made == 0 { // what a decision made is open again
			batch.Queue("UPDATE cases SET decision = @decision, changed_at = @now WHERE site_id = @site AND scan_id = @scan", args)
		}
		batch.Queue("DELETE FROM holds WHERE site_id = @site AND scan_id = @scan", args)
		if err := t.SendBatch(ctx, batch).Close(); err != nil {
			return err
		}
		rec = ReviewRecord{Seq: seq, Run: c.Run, ResultVersion: c.CurrentVersion(), MadeVersion: made, Decision: n.Decision, Comment: n.Comment, Excluded: excluded, KeyID: keyID, At: t.now}
		if err := t.QueryRow(ctx, "SELECT label FROM keys WHERE site_id = @site AND id = @key", args).Scan(&rec.By); err != nil {
			return err
		}
		if version := c.CurrentVersion(); n.Decision != Reject && made == 0 && version > 0 { // a refused scan may be accepted as such
			if err := t.notify(ctx, siteID, Notice{Type: NoticeAccepted, At: t.now, Data: NoticeData{ScanID: c.ID, State: c.State, Run: c.Run, ResultVersion: version}}); err != nil {
				return err
			}
		}
		if n.Decision == Reject {
			why := neuroscreen.Reason{Code: "rejected", Text: "A reviewer rejected the result."} // the comment may name the patient
			if err := t.notifyWithdrawn(ctx, c.ScanRecord, why); err != nil {
				return err
			}
		}
		details := fmt.Sprintf("run %d version %d", c.Run, c.CurrentVersion())
		if made > 0 {
			details += fmt.Sprintf(", version %d leaves out: %s", made, strings.Join(excluded, " "))
		}
		if err := t.audit(ctx, siteID, Actor(keyID.String()), "case."+string(n.Decision), scanObject(scanID), details); err != nil || made == 0 {
			return err
		}
		return t.audit(ctx, siteID, System, "result.store", scanObject(scanID), fmt.Sprintf("run %d from version %d", after.Run, c.ResultVersion))
	})
	return rec, err
}

// decidedAlready finds the same decision by the same key, whose answer was
// lost: the scan's last one, made with the same before the reader's eyes.
func (t *tx) decidedAlready(ctx context.Context, c ScanRecord, keyID uuid.UUID, n NewReview) (*ReviewRecord, error) {
	type sealedReview struct {
		ReviewRecord
		Sealed []byte
		Before int
	}
	found, err := row[sealedReview](ctx, t, pgx.ErrNoRows, `
		SELECT r.seq, r.run, r.result_version, r.made_version, r.decision, '' AS comment, r.excluded, r.key_id, k.label AS by, r.at, r.sealed,
		       (SELECT count(*) FROM reviews b WHERE b.site_id = r.site_id AND b.scan_id = r.scan_id AND b.run = r.run AND b.seq < r.seq) AS before
		FROM reviews r JOIN keys k ON k.site_id = r.site_id AND k.id = r.key_id
		WHERE r.site_id = @site AND r.scan_id = @scan ORDER BY r.seq DESC LIMIT 1`, pgx.NamedArgs{"site": c.SiteID, "scan": c.ID})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r := found.ReviewRecord
	if r.KeyID != keyID || r.Run != n.Run || found.Before != n.Seen || r.Decision != n.Decision || !slices.Equal(r.Excluded, orNone(n.Excluded)) {
		return nil, nil
	}
	plain, err := t.s.cfg.Keys.Open(c.SiteID, reviewContext(c.ID, r.Seq), found.Sealed)
	if err != nil {
		return nil, fmt.Errorf("store: review %d of scan %s: %w", r.Seq, c.ID, err)
	}
	if r.Comment = string(plain); r.Comment != n.Comment {
		return nil, nil
	}
	return &r, nil
}

// storeAmended makes the next version of a locked scan's result, on a run of
// its own, and says who left out what was not left out before. A worker cannot
// hold the scan: it has ended. Errors: CodeConflict "result-changed".
func (t *tx) storeAmended(ctx context.Context, c changedScan, seq int, keyID uuid.UUID, o Outcome) (changedScan, error) {
	if err := o.check(c.ScanRecord); err != nil {
		return c, err
	}
	a := o.Result.Amendment
	if c.State != neuroscreen.Scored || a == nil || a.FromVersion != c.ResultVersion {
		return c, neuroscreen.Errorf(neuroscreen.CodeConflict, "result-changed", "the scan was analysed again since you opened it; look at the new result first")
	}
	before, err := t.leftOut(ctx, c.ScanRecord)
	if err != nil {
		return c, err
	}
	result, amended := *o.Result, neuroscreen.Amendment{FromVersion: a.FromVersion, LeftOut: []neuroscreen.LeftOut{}}
	for _, name := range a.Structures() {
		l := neuroscreen.LeftOut{Structure: name, Decision: seq, By: keyID.String(), At: t.now}
		if i := slices.IndexFunc(before, func(b neuroscreen.LeftOut) bool { return b.Structure == name }); i >= 0 {
			l = before[i]
		}
		amended.LeftOut = append(amended.LeftOut, l)
	}
	result.Amendment, o.Result = &amended, &result

	next := c.ScanRecord
	next.Run++
	version, err := t.insertResult(ctx, next, o)
	if err != nil {
		return c, err
	}
	why := neuroscreen.Reason{Code: "amended", Text: fmt.Sprintf("A reviewer left structures out or took them back in; version %d takes its place.", version)}
	if err := t.notifyWithdrawn(ctx, c.ScanRecord, why); err != nil {
		return c, err
	}
	after, err := row[changedScan](ctx, t, errVanished, `
		UPDATE scans
		SET run = run + 1, attempt = 0, result_version = @version, finished_at = @now, updated_at = @now,
		    event_seq = event_seq + 1, fence = fence + 1
		WHERE site_id = @site AND id = @scan
		RETURNING `+changedColumns, pgx.NamedArgs{"site": c.SiteID, "scan": c.ID, "version": version, "now": t.now})
	if err != nil {
		return c, err
	}
	if err := t.noteChange(ctx, after); err != nil {
		return c, err
	}
	return after, t.noteCase(ctx, after.ScanRecord, o.Result)
}

func orNone(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

// heldByOther fails while a key other than @key has the case open.
func (t *tx) heldByOther(ctx context.Context, args pgx.NamedArgs) error {
	var by string
	var since time.Time
	err := t.QueryRow(ctx, `
		SELECT k.label, h.since FROM holds h
		JOIN keys k ON k.site_id = h.site_id AND k.id = h.key_id
		WHERE h.site_id = @site AND h.scan_id = @scan AND h.key_id <> @key AND h.until > @now`, args).Scan(&by, &since)
	if err == pgx.ErrNoRows {
		return nil
	}
	if err != nil {
		return err
	}
	return neuroscreen.Errorf(neuroscreen.CodeConflict, "case-held", "%s has had this case open since %s UTC", by, since.Format("15:04"))
}

// Reviews lists the decisions on a case, those on earlier runs too, oldest
// first. Errors: CodeNotFound.
func (s *Store) Reviews(ctx context.Context, siteID, scanID uuid.UUID) ([]ReviewRecord, error) {
	if _, err := s.Scan(ctx, siteID, scanID); err != nil {
		return nil, err
	}
	type sealedReview struct {
		ReviewRecord
		Sealed []byte
	}
	found, err := rows[sealedReview](ctx, s, `
		SELECT r.seq, r.run, r.result_version, r.made_version, r.decision, '' AS comment, r.excluded, r.key_id, k.label AS by, r.at, r.sealed
		FROM reviews r JOIN keys k ON k.site_id = r.site_id AND k.id = r.key_id
		WHERE r.site_id = @site AND r.scan_id = @scan ORDER BY r.seq`,
		pgx.NamedArgs{"site": siteID, "scan": scanID})
	if err != nil {
		return nil, err
	}
	out := make([]ReviewRecord, len(found))
	for n, r := range found {
		plain, err := s.cfg.Keys.Open(siteID, reviewContext(scanID, r.Seq), r.Sealed)
		if err != nil {
			return nil, fmt.Errorf("store: review %d of scan %s: %w", r.Seq, scanID, err)
		}
		out[n] = r.ReviewRecord
		out[n].Comment = string(plain)
	}
	return out, nil
}

// HoldCase notes that a key has a case open, for ttl; called again it goes on
// from then. takeOver takes it from whoever had it. Errors: CodeNotFound;
// CodeConflict "case-held".
func (s *Store) HoldCase(ctx context.Context, siteID, keyID, scanID uuid.UUID, ttl time.Duration, takeOver bool) (hold Hold, err error) {
	err = s.inTx(ctx, func(t *tx) error {
		if _, err := t.lockScan(ctx, siteID, scanID); err != nil {
			return err
		}
		args := pgx.NamedArgs{"site": siteID, "scan": scanID, "key": keyID, "now": t.now, "until": t.now.Add(ttl)}
		if !takeOver {
			if err := t.heldByOther(ctx, args); err != nil {
				return err
			}
		}
		var again bool
		err := t.QueryRow(ctx, `
			SELECT EXISTS (SELECT FROM holds WHERE site_id = @site AND scan_id = @scan AND key_id = @key AND until > @now)`, args).Scan(&again)
		if err != nil {
			return err
		}
		hold, err = row[Hold](ctx, t, nil, `
			INSERT INTO holds AS h (site_id, scan_id, key_id, since, until)
			VALUES (@site, @scan, @key, @now, @until)
			ON CONFLICT (site_id, scan_id) DO UPDATE
			SET since = CASE WHEN h.key_id = @key AND h.until > @now THEN h.since ELSE @now END, key_id = @key, until = @until
			RETURNING key_id, (SELECT label FROM keys WHERE site_id = @site AND id = @key) AS by, since, until`, args)
		if err != nil || again {
			return err
		}
		if _, err := t.Exec(ctx, "UPDATE cases SET changed_at = @now WHERE site_id = @site AND scan_id = @scan", args); err != nil {
			return err
		}
		return t.audit(ctx, siteID, Actor(keyID.String()), "case.open", scanObject(scanID), "")
	})
	return hold, err
}

// ReleaseCase lets go of a case that the key has open; of another's it does
// nothing. Errors: CodeNotFound.
func (s *Store) ReleaseCase(ctx context.Context, siteID, keyID, scanID uuid.UUID) error {
	return s.inTx(ctx, func(t *tx) error {
		if _, err := t.lockScan(ctx, siteID, scanID); err != nil {
			return err
		}
		args := pgx.NamedArgs{"site": siteID, "scan": scanID, "key": keyID, "now": t.now}
		tag, err := t.Exec(ctx, "DELETE FROM holds WHERE site_id = @site AND scan_id = @scan AND key_id = @key", args)
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		_, err = t.Exec(ctx, "UPDATE cases SET changed_at = @now WHERE site_id = @site AND scan_id = @scan", args)
		return err
	})
}
