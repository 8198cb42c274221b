package store

import (
	"context"
	"encoding/hex"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"neuroscreen"
)

const resultColumns = `scan_id, version, run, encode(sha256, 'hex') AS sha256, document, metadata, created_at AS created`

// current returns the scan if its newest result stands. Errors: CodeNotFound;
// CodeConflict "not-ready", "scan-refused", "scan-failed", "scan-cancelled".
func (s *Store) current(ctx context.Context, siteID, scanID uuid.UUID) (ScanRecord, error) {
	rec, err := s.Scan(ctx, siteID, scanID)
	switch {
	case err != nil:
		return ScanRecord{}, err
	case rec.State == neuroscreen.Scored:
		return rec, nil
	case rec.State.Final():
		return ScanRecord{}, neuroscreen.Errorf(neuroscreen.CodeConflict, "scan-"+string(rec.State), "the scan was %s; it has no result", pastTense(rec.State))
	}
	return ScanRecord{}, neuroscreen.Errorf(neuroscreen.CodeConflict, "not-ready", "the scan is %s; its result is not ready", rec.State)
}

func pastTense(s neuroscreen.State) string {
	if s == neuroscreen.Failed {
		return "given up"
	}
	return string(s)
}

// CurrentResult returns the result of a scored scan. Errors: CodeNotFound;
// CodeConflict "not-ready", "scan-refused", "scan-failed" or
// "scan-cancelled" when the scan is in another state.
func (s *Store) CurrentResult(ctx context.Context, siteID, scanID uuid.UUID) (ResultVersion, error) {
	rec, err := s.current(ctx, siteID, scanID)
	if err != nil {
		return ResultVersion{}, err
	}
	return s.ResultVersion(ctx, siteID, scanID, rec.ResultVersion)
}

// ResultVersion returns one version, whatever the scan's state. Errors:
// CodeNotFound.
func (s *Store) ResultVersion(ctx context.Context, siteID, scanID uuid.UUID, version int) (ResultVersion, error) {
	return row[ResultVersion](ctx, s.cfg.Pool, notFound("result"), `
		SELECT `+resultColumns+` FROM results
		WHERE site_id = @site AND scan_id = @scan AND version = @version`+consented(ctx, "results.scan_id"),
		pgx.NamedArgs{"site": siteID, "scan": scanID, "version": version})
}

// ResultVersions lists all versions, oldest first. Errors: CodeNotFound.
func (s *Store) ResultVersions(ctx context.Context, siteID, scanID uuid.UUID) ([]ResultVersion, error) {
	if _, err := s.Scan(ctx, siteID, scanID); err != nil {
		return nil, err
	}
	return rows[ResultVersion](ctx, s, "SELECT "+resultColumns+" FROM results WHERE site_id = @site AND scan_id = @scan ORDER BY version",
		pgx.NamedArgs{"site": siteID, "scan": scanID})
}

// Pseudonym is what a posted subject's scans are stored under.
func (s *Store) Pseudonym(siteID uuid.UUID, subjectID string) string {
	return s.cfg.Keys.Pseudonym(siteID, subjectID)
}

// RefusalSum stands for bytes that never came where scans have their hash. It is
// keyed, since what is known of such a series can be guessed.
func (s *Store) RefusalSum(siteID uuid.UUID, of []byte) string {
	return hex.EncodeToString(s.cfg.Keys.MAC(siteID, "refusal", of))
}

// maxVisits bounds a timeline: the newest are kept.
const maxVisits = 200

// Visits lists the scored scans of one person with their current results, in
// the order of arrival. Errors: CodeNotFound "subject-not-found" when the site
// has no scan of this pseudonym.
func (s *Store) Visits(ctx context.Context, siteID uuid.UUID, pseudonym string) ([]Visit, error) {
	args := pgx.NamedArgs{"site": siteID, "pseudonym": pseudonym, "limit": maxVisits, "reject": Reject}
	found, err := rows[Visit](ctx, s, `
		SELECT r.scan_id, r.version, r.run, encode(r.sha256, 'hex') AS sha256, r.document, r.metadata, r.created_at AS created,
		       s.created_at AS received, coalesce(c.decision = @reject, false) AS rejected
		FROM scans s
		JOIN results r ON r.site_id = s.site_id AND r.scan_id = s.id AND r.version = s.result_version
		JOIN cases c ON c.site_id = s.site_id AND c.scan_id = s.id AND c.condition = ''
		WHERE s.site_id = @site AND s.pseudonym = @pseudonym AND s.state = 'scored'`+consented(ctx, "s.id")+`
		ORDER BY s.created_at DESC, s.id DESC
		LIMIT @limit`, args)
	if err != nil || len(found) > 0 {
		slices.Reverse(found)
		return found, err
	}
	var any bool
	err = s.cfg.Pool.QueryRow(ctx, "SELECT EXISTS (SELECT FROM scans WHERE site_id = @site AND pseudonym = @pseudonym"+consented(ctx, "scans.id")+")", args).Scan(&any)
	if err != nil {
		return nil, classify(err)
	}
	if !any {
		return nil, notFound("subject")
	}
	return nil, nil
}

// DerivedFile returns a file of a result version; version 0 is the current
// one, with CurrentResult's errors. Errors: CodeNotFound.
func (s *Store) DerivedFile(ctx context.Context, siteID, scanID uuid.UUID, version int, kind string) (DerivedFile, error) {
	if version == 0 {
		rec, err := s.current(ctx, siteID, scanID)
		if err != nil {
			return DerivedFile{}, err
		}
		version = rec.ResultVersion
	}
	return row[DerivedFile](ctx, s.cfg.Pool, notFound("file"), `
		SELECT kind, media_type, blob_key, encode(sha256, 'hex') AS sha256, size_bytes AS size, version FROM derived_files
		WHERE site_id = @site AND scan_id = @scan AND version = @version AND kind = @kind`+consented(ctx, "derived_files.scan_id"),
		pgx.NamedArgs{"site": siteID, "scan": scanID, "version": version, "kind": kind})
}

// T1Segmentation returns the label map of the newest T1-weighted scan of a
// person whose result stands: scored, and not rejected. Errors: CodeNotFound
// when the site has none.
func (s *Store) T1Segmentation(ctx context.Context, siteID uuid.UUID, pseudonym string) (T1Segmentation, error) {
	return row[T1Segmentation](ctx, s.cfg.Pool, notFound("segmentation"), `
		SELECT f.scan_id, f.version, f.blob_key
		FROM scans s
		JOIN cases c ON c.site_id = s.site_id AND c.scan_id = s.id AND c.condition = ''
		JOIN derived_files f ON f.site_id = s.site_id AND f.scan_id = s.id AND f.version = s.result_version AND f.kind = @kind
		WHERE s.site_id = @site AND s.pseudonym = @pseudonym AND s.state = 'scored' AND s.metadata ->> 'modality' = @modality
		  AND c.decision IS DISTINCT FROM @reject
		ORDER BY s.created_at DESC, s.id DESC
		LIMIT 1`,
		pgx.NamedArgs{"site": siteID, "pseudonym": pseudonym, "kind": KindSegmentation, "modality": neuroscreen.T1w, "reject": Reject})
}
