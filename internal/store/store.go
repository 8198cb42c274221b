// Package store keeps the service's rows in Postgres.
//
// Every method takes the site and looks at nothing else: a row of another
// site is not found. Methods return *neuroscreen.Error for what a caller must
// act on (CodeNotFound, CodeConflict, CodeInvalid, CodeUnprocessable,
// CodeUnauthenticated, CodeUnavailable) and plain errors for the rest.
package store

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"neuroscreen"
	"neuroscreen/internal/deid"
)

// Enqueuer puts the analysis job for a scan into the transaction that makes
// the scan, so that neither exists without the other.
type Enqueuer interface {
	Enqueue(ctx context.Context, tx pgx.Tx, siteID, scanID uuid.UUID) error
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
	// Now replaces the database's clock in tests. The database's is the
	// default because leases are compared between machines.
	Now func() time.Time
}

// Store is safe for concurrent use.
type Store struct {
	cfg Config
}

// New returns a store over a migrated database.
func New(cfg Config) *Store { return &Store{cfg: cfg} }

var errUnfinished = errors.New("store: method not written yet")

// Ping checks that the database answers.
func (s *Store) Ping(ctx context.Context) error { return s.cfg.Pool.Ping(ctx) }

// EnsureSite returns the site of that name and makes it when it is missing.
func (s *Store) EnsureSite(ctx context.Context, name string) (site Site, created bool, err error) {
	return Site{}, false, errUnfinished
}

// Sites lists all sites by name. For the command line and background work.
func (s *Store) Sites(ctx context.Context) ([]Site, error) { return nil, errUnfinished }

// Site returns one site. Errors: CodeNotFound.
func (s *Store) Site(ctx context.Context, siteID uuid.UUID) (Site, error) {
	return Site{}, errUnfinished
}

// CreateKey makes a key and returns its secret, which is shown once and
// stored only as a hash. Errors: CodeInvalid for an unknown role.
func (s *Store) CreateKey(ctx context.Context, siteID uuid.UUID, by Actor, role neuroscreen.Role, label string) (secret string, key KeyRecord, err error) {
	return "", KeyRecord{}, errUnfinished
}

// Authenticate returns the key that secret belongs to. Errors:
// CodeUnauthenticated for an unknown, malformed or revoked one.
func (s *Store) Authenticate(ctx context.Context, secret string) (KeyRecord, error) {
	return KeyRecord{}, errUnfinished
}

// ListKeys lists the site's keys, revoked ones too, oldest first.
func (s *Store) ListKeys(ctx context.Context, siteID uuid.UUID) ([]KeyRecord, error) {
	return nil, errUnfinished
}

// RevokeKey revokes a key; revoking twice is no error. Errors: CodeNotFound;
// CodeConflict "last-admin-key" for the site's last admin key.
func (s *Store) RevokeKey(ctx context.Context, siteID uuid.UUID, by Actor, keyID uuid.UUID) (KeyRecord, error) {
	return KeyRecord{}, errUnfinished
}

// CreateScan stores row, link, first event, idempotency key, audit entry and
// job in one transaction: when it returns without error the scan is durable.
// The same bytes for the same subject, or the same idempotency key with the
// same request, return the scan that is already there. Errors:
// CodeUnprocessable "idempotency-key-reused" when the key came with another
// request; CodeUnavailable "blob-missing" when the bytes are no longer there
// (post again).
func (s *Store) CreateScan(ctx context.Context, siteID uuid.UUID, by Actor, n NewScan) (CreatedScan, error) {
	return CreatedScan{}, errUnfinished
}

// FindScans lists scans, newest first.
func (s *Store) FindScans(ctx context.Context, siteID uuid.UUID, f ScanFilter) ([]ScanRecord, error) {
	return nil, errUnfinished
}

// Scan returns one scan. Errors: CodeNotFound.
func (s *Store) Scan(ctx context.Context, siteID, scanID uuid.UUID) (ScanRecord, error) {
	return ScanRecord{}, errUnfinished
}

// StageTimes returns when the scan's current run reached its states, in
// order, of the last attempt. Errors: CodeNotFound.
func (s *Store) StageTimes(ctx context.Context, siteID, scanID uuid.UUID) ([]neuroscreen.StageTime, error) {
	return nil, errUnfinished
}

// Events returns the scan's events with Seq > since, in order; none is no
// error. Errors: CodeNotFound.
func (s *Store) Events(ctx context.Context, siteID, scanID uuid.UUID, since int64) ([]Event, error) {
	return nil, errUnfinished
}

// Identities decrypts what was posted for the scans; unknown scans and those
// of other sites are left out.
func (s *Store) Identities(ctx context.Context, siteID uuid.UUID, scanIDs ...uuid.UUID) (map[uuid.UUID]Identity, error) {
	return nil, errUnfinished
}

// Cancel ends a scan that is not final. A worker that holds it is shut out
// and stops at its next stage. Errors: CodeNotFound; CodeConflict "scan-final".
func (s *Store) Cancel(ctx context.Context, siteID uuid.UUID, by Actor, scanID uuid.UUID) (ScanRecord, error) {
	return ScanRecord{}, errUnfinished
}

// Retry runs a final scan again; a scored one gets a new result version.
// Errors: CodeNotFound; CodeConflict "scan-running".
func (s *Store) Retry(ctx context.Context, siteID uuid.UUID, by Actor, scanID uuid.UUID) (ScanRecord, error) {
	return ScanRecord{}, errUnfinished
}

// PatchMetadata corrects age or sex and runs the scan again, which gives a
// new result version; a run under way is abandoned. A patch that changes
// nothing runs nothing. Errors: CodeNotFound.
func (s *Store) PatchMetadata(ctx context.Context, siteID uuid.UUID, by Actor, scanID uuid.UUID, p MetadataPatch) (ScanRecord, error) {
	return ScanRecord{}, errUnfinished
}

// Erase removes a scan with its links, events, results and files; the audit
// trail keeps that it happened. It returns the blob keys that the scan used;
// hand them to ReleaseBlobs. Errors: CodeNotFound.
func (s *Store) Erase(ctx context.Context, siteID uuid.UUID, by Actor, scanID uuid.UUID) (blobKeys []string, err error) {
	return nil, errUnfinished
}

// ReleaseBlobs calls remove for each key that no row refers to, while holding
// off CreateScan and Finish for that key. It returns how many were removed.
func (s *Store) ReleaseBlobs(ctx context.Context, keys []string, remove func(ctx context.Context, key string) error) (int, error) {
	return 0, errUnfinished
}

// CurrentResult returns the result of a scored scan. Errors: CodeNotFound;
// CodeConflict "not-ready", "scan-refused", "scan-failed" or
// "scan-cancelled" when the scan is in another state.
func (s *Store) CurrentResult(ctx context.Context, siteID, scanID uuid.UUID) (ResultVersion, error) {
	return ResultVersion{}, errUnfinished
}

// ResultVersion returns one version, whatever the scan's state. Errors:
// CodeNotFound.
func (s *Store) ResultVersion(ctx context.Context, siteID, scanID uuid.UUID, version int) (ResultVersion, error) {
	return ResultVersion{}, errUnfinished
}

// ResultVersions lists all versions, oldest first. Errors: CodeNotFound.
func (s *Store) ResultVersions(ctx context.Context, siteID, scanID uuid.UUID) ([]ResultVersion, error) {
	return nil, errUnfinished
}

// DerivedFile returns a file of a result version; version 0 is the current
// one, with CurrentResult's errors. Errors: CodeNotFound.
func (s *Store) DerivedFile(ctx context.Context, siteID, scanID uuid.UUID, version int, kind string) (DerivedFile, error) {
	return DerivedFile{}, errUnfinished
}

// Cases returns one page of the worklist. Errors: CodeInvalid for a bad
// cursor or sort.
func (s *Store) Cases(ctx context.Context, siteID uuid.UUID, f CaseFilter) (CasePage, error) {
	return CasePage{}, errUnfinished
}

// AppendAudit adds an entry to the site's chain; Seq, At and Hash are set by
// the store. Changes made through the store write their own; handlers call it
// for reads of patient data.
func (s *Store) AppendAudit(ctx context.Context, siteID uuid.UUID, e AuditEntry) error {
	return errUnfinished
}

// Audit lists entries, newest first.
func (s *Store) Audit(ctx context.Context, siteID uuid.UUID, f AuditFilter) ([]AuditEntry, error) {
	return nil, errUnfinished
}

// VerifyAudit walks the site's chain and returns how many entries it holds.
// Errors: CodeConflict "audit-broken" naming the first entry that was
// changed, is missing or was added.
func (s *Store) VerifyAudit(ctx context.Context, siteID uuid.UUID) (entries int64, err error) {
	return 0, errUnfinished
}
