package store

import (
	"context"

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
		WHERE site_id = @site AND scan_id = @scan AND version = @version`,
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
		WHERE site_id = @site AND scan_id = @scan AND version = @version AND kind = @kind`,
		pgx.NamedArgs{"site": siteID, "scan": scanID, "version": version, "kind": kind})
}
