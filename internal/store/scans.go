package store

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"neuroscreen"
)

const scanColumns = `id, site_id, pseudonym, state, reasons, metadata, encode(sha256, 'hex') AS sha256, size_bytes AS size,
	blob_key, header_blob_key, header_size, run, attempt, result_version,
	created_at AS created, updated_at AS updated, finished_at AS finished,
	-- Where no bytes ever came none were removed, though the row says when.
	CASE WHEN size_bytes > 0 THEN bytes_removed_at END AS bytes_removed`

// changedScan is a scan row after a change, with what its event needs.
type changedScan struct {
	ScanRecord
	EventSeq int64
	Fence    int64
}

const changedColumns = scanColumns + `, event_seq, fence`

// errVanished: a scan that was there a moment ago was erased meanwhile.
var errVanished = errors.New("store: scan vanished")

// CreateScan stores row, link, first event, idempotency key, audit entry and
// job in one transaction: when it returns without error the scan is durable.
// A scan whose metadata lack something (Metadata.Missing) gets no job and is
// refused at once, until PatchMetadata or another post brings it.
// The same bytes for the same subject, or the same idempotency key with the
// same request, return the scan that is already there. Of metadata that differ
// it takes over what the scan lacks of age and sex, and consent_research false.
// Errors:
// CodeUnprocessable "idempotency-key-reused" when the key came with another
// request; CodeUnavailable "blob-missing" when the bytes are no longer there
// (post again).
func (s *Store) CreateScan(ctx context.Context, siteID uuid.UUID, by Actor, n NewScan) (created CreatedScan, err error) {
	for {
		err = s.inTx(ctx, func(t *tx) error {
			var err error
			created, err = t.createScan(ctx, siteID, by, n)
			return err
		})
		if !errors.Is(err, errVanished) {
			return created, err
		}
	}
}

func (t *tx) createScan(ctx context.Context, siteID uuid.UUID, by Actor, n NewScan) (CreatedScan, error) {
	if err := t.lockBlobs(ctx, n.BlobKey, n.HeaderBlobKey); err != nil {
		return CreatedScan{}, err
	}
	idem, err := t.newIdempotencyKey(siteID, n)
	if err != nil {
		return CreatedScan{}, err
	}
	if idem != nil {
		rec, known, err := t.madeBy(ctx, siteID, idem)
		switch {
		case err != nil:
			return CreatedScan{}, err
		case known && rec.BytesRemoved == nil:
			return CreatedScan{Scan: rec, Duplicate: true}, t.auditRepeated(ctx, by, rec)
		case known: // retention took its bytes: here they are again
			idem = nil
		}
	}

	pseudonym := t.s.cfg.Keys.Pseudonym(siteID, n.Metadata.SubjectID)
	metadata := deidentify(n.Metadata, pseudonym)
	sum, err := hex.DecodeString(n.SHA256)
	if err != nil {
		return CreatedScan{}, fmt.Errorf("store: %q is no hash: %w", n.SHA256, err)
	}
	headerSum, err := hex.DecodeString(n.HeaderSHA256)
	if err != nil {
		return CreatedScan{}, fmt.Errorf("store: %q is no hash: %w", n.HeaderSHA256, err)
	}
	id, err := uuid.NewV7()
	if err != nil {
		return CreatedScan{}, err
	}
	args := pgx.NamedArgs{
		"site": siteID, "id": id, "pseudonym": pseudonym, "metadata": metadata, "sha256": sum, "size": n.Size,
		"blob": n.BlobKey, "header_sha256": headerSum, "header": n.HeaderBlobKey, "header_size": n.HeaderSize, "now": t.now,
		"state": neuroscreen.Received, "reasons": reasonsOrNone(n.Refused), "ended": nil,
	}
	if len(n.Refused) > 0 {
		args["state"], args["ended"] = neuroscreen.Refused, t.now
	}
	c, err := row[changedScan](ctx, t, errVanished, `
		INSERT INTO scans (site_id, id, pseudonym, metadata, sha256, size_bytes, blob_key,
		                   header_sha256, header_size, header_blob_key, state, reasons, event_seq, created_at, updated_at,
		                   finished_at, bytes_removed_at)
		VALUES (@site, @id, @pseudonym, @metadata, @sha256, @size, @blob,
		        @header_sha256, @header_size, @header, @state, @reasons, 1, @now, @now,
		        @ended, @ended)
		-- Waits for a concurrent post of the same bytes to commit.
		ON CONFLICT ON CONSTRAINT scans_same_bytes_same_scan DO NOTHING
		RETURNING `+changedColumns, args)
	duplicate := errors.Is(err, errVanished)
	if duplicate {
		// The lock keeps the scan from being erased until we commit.
		c, err = row[changedScan](ctx, t, errVanished, `
			SELECT `+changedColumns+` FROM scans
			WHERE site_id = @site AND pseudonym = @pseudonym AND sha256 = @sha256 AND header_sha256 = @header_sha256
			FOR KEY SHARE`, args)
	}
	if err == nil && c.BytesRemoved != nil && n.BlobKey != "" { // retention took them; here they are again
		c, err = row[changedScan](ctx, t, errVanished, `
			UPDATE scans SET blob_key = @blob, header_blob_key = @header, bytes_removed_at = NULL, updated_at = @now
			WHERE site_id = @site AND id = @known
			RETURNING `+changedColumns, pgx.NamedArgs{"site": siteID, "known": c.ID, "blob": n.BlobKey, "header": n.HeaderBlobKey, "now": t.now})
	}
	if err != nil {
		return CreatedScan{}, err
	}
	refusesResearch := duplicate && n.Metadata.ConsentResearch != nil && !*n.Metadata.ConsentResearch
	if refusesResearch {
		if c, refusesResearch, err = t.refuseResearch(ctx, c); err != nil {
			return CreatedScan{}, err
		}
	}
	if err := t.addLink(ctx, c.ScanRecord, n.Metadata); err != nil {
		return CreatedScan{}, err
	}
	if idem != nil {
		if err := t.insertIdempotent(ctx, siteID, c.ID, idem); err != nil {
			return CreatedScan{}, err
		}
	}
	details := "duplicate"
	if !duplicate {
		details = ""
		if err := t.noteChange(ctx, c); err != nil {
			return CreatedScan{}, err
		}
		if len(n.Refused) == 0 {
			c.ScanRecord, err = t.begin(ctx, c)
		}
	} else if len(c.Metadata.Missing()) > 0 && n.BlobKey != "" {
		c.ScanRecord, err = t.complete(ctx, c, metadata)
	}
	if err != nil {
		return CreatedScan{}, err
	}
	if err := t.audit(ctx, siteID, by, "scan.create", scanObject(c.ID), details); err != nil {
		return CreatedScan{}, err
	}
	if refusesResearch {
		if err := t.audit(ctx, siteID, by, "scan.correct", scanObject(c.ID), "consent_research"); err != nil {
			return CreatedScan{}, err
		}
	}
	return CreatedScan{Scan: c.ScanRecord, Duplicate: duplicate}, nil
}

// refuseResearch takes over from a repeated post that research is refused, and
// says whether that is new. Consent is not taken over: the older of two posts
// may come last, and to hide a scan in error harms nobody.
func (t *tx) refuseResearch(ctx context.Context, c changedScan) (changedScan, bool, error) {
	refused, err := row[changedScan](ctx, t, errVanished, `
		UPDATE scans SET metadata = jsonb_set(metadata, '{consent_research}', 'false'), updated_at = @now
		WHERE site_id = @site AND id = @scan AND metadata ->> 'consent_research' IS DISTINCT FROM 'false'
		RETURNING `+changedColumns, pgx.NamedArgs{"site": c.SiteID, "scan": c.ID, "now": t.now})
	if errors.Is(err, errVanished) {
		return c, false, nil
	}
	return refused, true, err
}

// begin gives a new run its job, or ends it at once for what the metadata
// lack.
func (t *tx) begin(ctx context.Context, c changedScan) (ScanRecord, error) {
	missing := c.Metadata.Missing()
	if len(missing) == 0 {
		return c.ScanRecord, t.s.cfg.Jobs.Enqueue(ctx, t, c.SiteID, c.ID)
	}
	c, err := row[changedScan](ctx, t, errVanished, `
		UPDATE scans
		SET state = 'refused', reasons = @reasons, finished_at = @now, updated_at = @now, event_seq = event_seq + 1
		WHERE site_id = @site AND id = @scan
		RETURNING `+changedColumns,
		pgx.NamedArgs{"site": c.SiteID, "scan": c.ID, "reasons": missing, "now": t.now})
	if err != nil {
		return ScanRecord{}, err
	}
	return c.ScanRecord, t.noteChange(ctx, c)
}

// complete takes over what a scan's metadata lack from a repeated post, and
// runs it again. The source was corrected and the scan sent once more.
func (t *tx) complete(ctx context.Context, c changedScan, sent neuroscreen.Metadata) (ScanRecord, error) {
	// Another post may do the same; FOR UPDATE would wait for its share of the row.
	c, err := row[changedScan](ctx, t, errVanished,
		"SELECT "+changedColumns+" FROM scans WHERE site_id = @site AND id = @scan FOR NO KEY UPDATE",
		pgx.NamedArgs{"site": c.SiteID, "scan": c.ID})
	if err != nil {
		return ScanRecord{}, err
	}
	m := c.Metadata
	if m.AgeYears == nil {
		m.AgeYears = sent.AgeYears
	}
	if m.Sex == "" {
		m.Sex = sent.Sex
	}
	if len(m.Missing()) == len(c.Metadata.Missing()) {
		return c.ScanRecord, nil
	}
	return t.runAgain(ctx, c, m, neuroscreen.Reason{Code: "completed", Text: "What the scan lacked has come; it is analysed again."})
}

// deidentify keeps what the analysis needs: the pseudonym for the subject, and
// neither birth date nor any other posted identifier.
func deidentify(m neuroscreen.Metadata, pseudonym string) neuroscreen.Metadata {
	m.SubjectID = pseudonym
	m.BirthDate = ""
	m.AccessionNumber = ""
	m.StudyInstanceUID = ""
	m.SeriesInstanceUID = ""
	m.FrameOfReferenceUID = ""
	m.SOPInstanceUIDs = nil
	return m
}

// idempotencyKey holds keyed hashes: clients like to put accession numbers
// into their keys, and the fingerprint covers identifiers.
type idempotencyKey struct {
	hash, fingerprint []byte
}

func (t *tx) newIdempotencyKey(siteID uuid.UUID, n NewScan) (*idempotencyKey, error) {
	if n.IdempotencyKey == "" {
		return nil, nil
	}
	request, err := json.Marshal(struct {
		Metadata     neuroscreen.Metadata
		Blob, Header string
	}{n.Metadata, n.SHA256, n.HeaderSHA256})
	if err != nil {
		return nil, err
	}
	return &idempotencyKey{
		hash:        t.s.cfg.Keys.MAC(siteID, "idempotency-key", []byte(n.IdempotencyKey)),
		fingerprint: t.s.cfg.Keys.MAC(siteID, "idempotency-request", request),
	}, nil
}

// findIdempotent returns the scan that the key made, or uuid.Nil.
func (t *tx) findIdempotent(ctx context.Context, siteID uuid.UUID, k *idempotencyKey) (uuid.UUID, error) {
	var scanID uuid.UUID
	var fingerprint []byte
	err := t.QueryRow(ctx, "SELECT scan_id, fingerprint FROM idempotency_keys WHERE site_id = @site AND key_hash = @hash",
		pgx.NamedArgs{"site": siteID, "hash": k.hash}).Scan(&scanID, &fingerprint)
	if errors.Is(err, pgx.ErrNoRows) {
		return uuid.Nil, nil
	}
	if err != nil {
		return uuid.Nil, err
	}
	if !bytes.Equal(fingerprint, k.fingerprint) {
		return uuid.Nil, neuroscreen.FieldErrorf(neuroscreen.CodeUnprocessable, "idempotency-key-reused", "Idempotency-Key",
			"this key came before with another scan or other metadata; use a new key for a new request")
	}
	return scanID, nil
}

// madeBy returns the scan that the key made, if it made one.
func (t *tx) madeBy(ctx context.Context, siteID uuid.UUID, k *idempotencyKey) (rec ScanRecord, known bool, err error) {
	scanID, err := t.findIdempotent(ctx, siteID, k)
	if err != nil || scanID == uuid.Nil {
		return rec, false, err
	}
	rec, err = row[ScanRecord](ctx, t, errVanished, "SELECT "+scanColumns+" FROM scans WHERE site_id = @site AND id = @scan",
		pgx.NamedArgs{"site": siteID, "scan": scanID})
	return rec, err == nil, err
}

func (t *tx) auditRepeated(ctx context.Context, by Actor, rec ScanRecord) error {
	return t.audit(ctx, rec.SiteID, by, "scan.create", scanObject(rec.ID), "repeated")
}

// RepeatedScan returns the scan that the request's idempotency key made, if it
// made one, for who cannot send the bytes again: of NewScan it needs what
// CreateScan compares, metadata and hashes. Errors: CodeUnprocessable
// "idempotency-key-reused", as there.
func (s *Store) RepeatedScan(ctx context.Context, siteID uuid.UUID, by Actor, n NewScan) (rec ScanRecord, known bool, err error) {
	err = s.inTx(ctx, func(t *tx) error {
		idem, err := t.newIdempotencyKey(siteID, n)
		if err != nil || idem == nil {
			return err
		}
		if rec, known, err = t.madeBy(ctx, siteID, idem); err != nil || !known {
			return err
		}
		return t.auditRepeated(ctx, by, rec)
	})
	if errors.Is(err, errVanished) { // erased this moment
		return rec, false, nil
	}
	return rec, known, err
}

func (t *tx) insertIdempotent(ctx context.Context, siteID, scanID uuid.UUID, k *idempotencyKey) error {
	tag, err := t.Exec(ctx, `
		INSERT INTO idempotency_keys (site_id, key_hash, fingerprint, scan_id, created_at)
		VALUES (@site, @hash, @fingerprint, @scan, @now)
		ON CONFLICT (site_id, key_hash) DO NOTHING`,
		pgx.NamedArgs{"site": siteID, "hash": k.hash, "fingerprint": k.fingerprint, "scan": scanID, "now": t.now})
	if err != nil || tag.RowsAffected() == 1 {
		return err
	}
	// A concurrent request with the same key was first; it must be the same.
	_, err = t.findIdempotent(ctx, siteID, k)
	return err
}

func linkContext(scanID uuid.UUID, pseudonym string) string { return scanID.String() + "/" + pseudonym }

// addLink keeps what was posted about a scan. Posted again, it adds the DICOM
// references that were missing, unless another differs: it then is of other
// images.
func (t *tx) addLink(ctx context.Context, rec ScanRecord, m neuroscreen.Metadata) error {
	posted := Identity{
		SubjectID: m.SubjectID, AccessionNumber: m.AccessionNumber,
		StudyInstanceUID: m.StudyInstanceUID, SeriesInstanceUID: m.SeriesInstanceUID,
		FrameOfReferenceUID: m.FrameOfReferenceUID, SOPInstanceUIDs: m.SOPInstanceUIDs,
	}
	sealed, err := t.s.seal(rec, posted)
	if err != nil {
		return err
	}
	args := pgx.NamedArgs{
		"site": rec.SiteID, "scan": rec.ID, "accession": t.s.accessionHash(rec.SiteID, m.AccessionNumber),
		"pseudonym": rec.Pseudonym, "sealed": sealed, "now": t.now,
	}
	tag, err := t.Exec(ctx, `
		INSERT INTO links (site_id, scan_id, accession_hash, pseudonym, sealed, created_at)
		VALUES (@site, @scan, @accession, @pseudonym, @sealed, @now)
		ON CONFLICT (site_id, scan_id, accession_hash) DO NOTHING`, args)
	if err != nil || tag.RowsAffected() == 1 {
		return err
	}
	l, err := row[link](ctx, t, errVanished, `
		SELECT scan_id, pseudonym, sealed FROM links
		WHERE site_id = @site AND scan_id = @scan AND accession_hash = @accession
		FOR UPDATE`, args)
	if err != nil {
		return err
	}
	known, err := t.s.open(rec.SiteID, l)
	if err != nil {
		return err
	}
	both := known.filled(posted)
	if reflect.DeepEqual(both, known) || !reflect.DeepEqual(both, posted.filled(known)) {
		return nil
	}
	if args["sealed"], err = t.s.seal(rec, both); err != nil {
		return err
	}
	_, err = t.Exec(ctx, "UPDATE links SET sealed = @sealed WHERE site_id = @site AND scan_id = @scan AND accession_hash = @accession", args)
	return err
}

// filled is the identity with the other's DICOM references where it has none.
func (id Identity) filled(other Identity) Identity {
	id.StudyInstanceUID = cmp.Or(id.StudyInstanceUID, other.StudyInstanceUID)
	id.SeriesInstanceUID = cmp.Or(id.SeriesInstanceUID, other.SeriesInstanceUID)
	id.FrameOfReferenceUID = cmp.Or(id.FrameOfReferenceUID, other.FrameOfReferenceUID)
	if len(id.SOPInstanceUIDs) == 0 {
		id.SOPInstanceUIDs = other.SOPInstanceUIDs
	}
	return id
}

// references counts the kinds of DICOM references that were posted.
func (id Identity) references() int {
	n := min(1, len(id.SOPInstanceUIDs))
	for _, uid := range []string{id.StudyInstanceUID, id.SeriesInstanceUID, id.FrameOfReferenceUID} {
		n += min(1, len(uid))
	}
	return n
}

func (s *Store) seal(rec ScanRecord, id Identity) ([]byte, error) {
	plain, err := json.Marshal(id)
	if err != nil {
		return nil, err
	}
	return s.cfg.Keys.Seal(rec.SiteID, linkContext(rec.ID, rec.Pseudonym), plain), nil
}

// accessionHash is empty, not null, for no number.
func (s *Store) accessionHash(siteID uuid.UUID, number string) []byte {
	if number = strings.TrimSpace(number); number == "" {
		return []byte{}
	}
	return s.cfg.Keys.MAC(siteID, "accession", []byte(number))
}

// noteChange writes the event of a scan's new state and brings its line of
// the worklist up to date. The row's own lock puts events in order.
func (t *tx) noteChange(ctx context.Context, c changedScan) error {
	t.changed = append(t.changed, c.ID)
	_, err := t.Exec(ctx, `
		INSERT INTO scan_events (site_id, scan_id, seq, run, attempt, state, reasons, at)
		VALUES (@site, @scan, @seq, @run, @attempt, @state, @reasons, @now)`,
		pgx.NamedArgs{"site": c.SiteID, "scan": c.ID, "seq": c.EventSeq, "run": c.Run, "attempt": c.Attempt,
			"state": c.State, "reasons": reasonsOrNone(c.Reasons), "now": t.now})
	if err != nil {
		return err
	}
	if err := t.notifyEnd(ctx, c.ScanRecord); err != nil {
		return err
	}
	return t.noteCase(ctx, c.ScanRecord, nil)
}

// reasonsOrNone makes nil an empty JSON array.
func reasonsOrNone(r []neuroscreen.Reason) []neuroscreen.Reason {
	if r == nil {
		return []neuroscreen.Reason{}
	}
	return r
}

// FindScans lists scans, newest first.
func (s *Store) FindScans(ctx context.Context, siteID uuid.UUID, f ScanFilter) ([]ScanRecord, error) {
	where := []string{"site_id = @site"}
	args := pgx.NamedArgs{"site": siteID, "limit": limit(f.Limit, 100, 1000)}
	if f.SubjectID != nil {
		where = append(where, "pseudonym = @pseudonym")
		args["pseudonym"] = s.cfg.Keys.Pseudonym(siteID, *f.SubjectID)
	}
	if f.AccessionNumber != nil {
		where = append(where, `id IN (
			SELECT scan_id FROM links
			WHERE site_id = @site AND accession_hash = @accession AND accession_hash <> '')`)
		args["accession"] = s.accessionHash(siteID, *f.AccessionNumber)
	}
	if f.State != nil {
		where = append(where, "state = @state")
		args["state"] = *f.State
	}
	return rows[ScanRecord](ctx, s, "SELECT "+scanColumns+" FROM scans WHERE "+strings.Join(where, " AND ")+consented(ctx, "scans.id")+
		" ORDER BY created_at DESC, id DESC LIMIT @limit", args)
}

// Scan returns one scan. Errors: CodeNotFound.
func (s *Store) Scan(ctx context.Context, siteID, scanID uuid.UUID) (ScanRecord, error) {
	return row[ScanRecord](ctx, s.cfg.Pool, notFound("scan"),
		"SELECT "+scanColumns+" FROM scans WHERE site_id = @site AND id = @scan"+consented(ctx, "scans.id"), pgx.NamedArgs{"site": siteID, "scan": scanID})
}

// StageTimes returns when the scan's current run reached its states, in
// order. Of a run that took several attempts it gives the arrival and the
// last attempt. Errors: CodeNotFound.
func (s *Store) StageTimes(ctx context.Context, siteID, scanID uuid.UUID) ([]neuroscreen.StageTime, error) {
	rec, err := s.Scan(ctx, siteID, scanID)
	if err != nil {
		return nil, err
	}
	return rows[neuroscreen.StageTime](ctx, s, `
		WITH run AS (
			SELECT seq, state, at FROM scan_events
			WHERE site_id = @site AND scan_id = @scan AND run = @run
		)
		SELECT state, at FROM run
		-- Each attempt after the first begins with another 'received'.
		WHERE seq = (SELECT min(seq) FROM run)
		   OR seq > (SELECT max(seq) FROM run WHERE state = 'received')
		ORDER BY seq`,
		pgx.NamedArgs{"site": siteID, "scan": scanID, "run": rec.Run})
}

// Events returns the scan's events with Seq > since, in order; none is no
// error. Errors: CodeNotFound.
func (s *Store) Events(ctx context.Context, siteID, scanID uuid.UUID, since int64) ([]Event, error) {
	if _, err := s.Scan(ctx, siteID, scanID); err != nil {
		return nil, err
	}
	return rows[Event](ctx, s, `
		SELECT seq, run, attempt, state, reasons, at FROM scan_events
		WHERE site_id = @site AND scan_id = @scan AND seq > @since
		ORDER BY seq`,
		pgx.NamedArgs{"site": siteID, "scan": scanID, "since": since})
}

// link is what was posted about a scan, still sealed.
type link struct {
	ScanID    uuid.UUID
	Pseudonym string
	Sealed    []byte
}

func (s *Store) open(siteID uuid.UUID, l link) (id Identity, err error) {
	plain, err := s.cfg.Keys.Open(siteID, linkContext(l.ScanID, l.Pseudonym), l.Sealed)
	if err == nil {
		err = json.Unmarshal(plain, &id)
	}
	if err != nil {
		return id, fmt.Errorf("store: link of scan %s: %w", l.ScanID, err)
	}
	return id, nil
}

// Identities decrypts what was posted for the scans; unknown scans and those
// of other sites are left out. A scan posted under several accession numbers
// has the first that came with the most DICOM references.
func (s *Store) Identities(ctx context.Context, siteID uuid.UUID, scanIDs ...uuid.UUID) (map[uuid.UUID]Identity, error) {
	links, err := rows[link](ctx, s, `
		SELECT scan_id, pseudonym, sealed FROM links
		WHERE site_id = @site AND scan_id = ANY (@scans)
		ORDER BY scan_id, created_at, accession_hash`,
		pgx.NamedArgs{"site": siteID, "scans": scanIDs})
	if err != nil {
		return nil, err
	}
	found := make(map[uuid.UUID]Identity, len(links))
	for _, l := range links {
		id, err := s.open(siteID, l)
		if err != nil {
			return nil, err
		}
		if first, ok := found[l.ScanID]; !ok || id.references() > first.references() {
			found[l.ScanID] = id
		}
	}
	return found, nil
}

// mostOpened bounds a search for a part of an identifier, which has to open
// every one that it looks at: their hashes tell nothing of parts.
const mostOpened = 20_000

// ScansByPart returns the newest scans, at most so many, whose subject
// identifier or an accession number of which holds the part, whatever its
// capitals. It looks at the newest 20,000.
func (s *Store) ScansByPart(ctx context.Context, siteID uuid.UUID, part string, most int) ([]uuid.UUID, error) {
	// The identifiers of scans grow with time: the primary key is the order.
	links, err := rows[link](ctx, s, `
		SELECT scan_id, pseudonym, sealed FROM links WHERE site_id = @site
		ORDER BY scan_id DESC, accession_hash LIMIT @most`,
		pgx.NamedArgs{"site": siteID, "most": mostOpened})
	if err != nil {
		return nil, err
	}
	part = strings.ToLower(part)
	found := []uuid.UUID{}
	for _, l := range links {
		if len(found) == most {
			break
		}
		id, err := s.open(siteID, l)
		if err != nil {
			return nil, err
		}
		holds := strings.Contains(strings.ToLower(id.SubjectID), part) || strings.Contains(strings.ToLower(id.AccessionNumber), part)
		if holds && (len(found) == 0 || found[len(found)-1] != l.ScanID) {
			found = append(found, l.ScanID)
		}
	}
	return found, nil
}

// lockScan locks the row until the transaction ends. Errors: CodeNotFound.
func (t *tx) lockScan(ctx context.Context, siteID, scanID uuid.UUID) (changedScan, error) {
	return row[changedScan](ctx, t, notFound("scan"),
		"SELECT "+changedColumns+" FROM scans WHERE site_id = @site AND id = @scan"+consented(ctx, "scans.id")+" FOR UPDATE",
		pgx.NamedArgs{"site": siteID, "scan": scanID})
}

// Cancel ends a scan that is not final. A worker that holds it is shut out
// and stops at its next stage. Errors: CodeNotFound; CodeConflict "scan-final".
func (s *Store) Cancel(ctx context.Context, siteID uuid.UUID, by Actor, scanID uuid.UUID) (rec ScanRecord, err error) {
	err = s.inTx(ctx, func(t *tx) error {
		c, err := t.lockScan(ctx, siteID, scanID)
		if err != nil {
			return err
		}
		if c.State.Final() {
			return neuroscreen.Errorf(neuroscreen.CodeConflict, "scan-final", "the scan is %s already", c.State)
		}
		c, err = row[changedScan](ctx, t, errVanished, `
			UPDATE scans
			SET state = 'cancelled', reasons = @reasons, finished_at = @now, updated_at = @now,
			    event_seq = event_seq + 1, fence = fence + 1, lease_until = NULL, lease_holder = NULL
			WHERE site_id = @site AND id = @scan AND finished_at IS NULL
			RETURNING `+changedColumns,
			pgx.NamedArgs{"site": siteID, "scan": scanID, "now": t.now,
				"reasons": []neuroscreen.Reason{{Code: "cancelled", Text: "Cancelled on request."}}})
		if err != nil {
			return err
		}
		rec = c.ScanRecord
		if err := t.noteChange(ctx, c); err != nil {
			return err
		}
		return t.audit(ctx, siteID, by, "scan.cancel", scanObject(scanID), "")
	})
	return rec, err
}

// Retry runs a final scan again; a scored one gets a new result version.
// Errors: CodeNotFound; CodeConflict "scan-running", "scan-bytes-removed",
// "no-bytes".
func (s *Store) Retry(ctx context.Context, siteID uuid.UUID, by Actor, scanID uuid.UUID) (rec ScanRecord, err error) {
	err = s.inTx(ctx, func(t *tx) error {
		c, err := t.lockScan(ctx, siteID, scanID)
		if err != nil {
			return err
		}
		if !c.State.Final() {
			return neuroscreen.Errorf(neuroscreen.CodeConflict, "scan-running", "the scan is %s; it can run again when it has ended", c.State)
		}
		rec, err = t.runAgain(ctx, c, c.Metadata, neuroscreen.Reason{Code: "retried", Text: "The scan is analysed again."})
		if err != nil {
			return err
		}
		return t.audit(ctx, siteID, by, "scan.retry", scanObject(scanID), "")
	})
	return rec, err
}

// PatchMetadata corrects age, sex or scan date and runs the scan again, which
// gives a new result version; a run under way is abandoned. A patch that changes
// nothing, or consent alone, runs nothing. Errors: CodeNotFound; CodeConflict
// "scan-bytes-removed", "no-bytes".
func (s *Store) PatchMetadata(ctx context.Context, siteID uuid.UUID, by Actor, scanID uuid.UUID, p MetadataPatch) (rec ScanRecord, err error) {
	err = s.inTx(ctx, func(t *tx) error {
		c, err := t.lockScan(ctx, siteID, scanID)
		if err != nil {
			return err
		}
		rec = c.ScanRecord
		m := c.Metadata
		var changed []string
		if p.AgeYears != nil && (m.AgeYears == nil || *m.AgeYears != *p.AgeYears) {
			m.AgeYears = p.AgeYears
			changed = append(changed, "age_years")
		}
		if p.Sex != nil && m.Sex != *p.Sex {
			m.Sex = *p.Sex
			changed = append(changed, "sex")
		}
		if p.ScanDate != nil && m.ScanDate != *p.ScanDate {
			m.ScanDate = *p.ScanDate
			changed = append(changed, "scan_date")
		}
		again := len(changed) > 0
		if p.ConsentResearch != nil && (m.ConsentResearch == nil || *m.ConsentResearch != *p.ConsentResearch) {
			m.ConsentResearch = p.ConsentResearch
			changed = append(changed, "consent_research")
		}
		if len(changed) == 0 { // its answer shows the scan nevertheless
			return t.audit(ctx, siteID, by, "scan.correct", scanObject(scanID), "no change")
		}
		if again {
			rec, err = t.runAgain(ctx, c, m, neuroscreen.Reason{Code: "corrected", Text: "What was said of the scan was corrected; it is analysed again."})
		} else if c, err = row[changedScan](ctx, t, errVanished, `
			UPDATE scans SET metadata = @metadata, updated_at = @now WHERE site_id = @site AND id = @scan
			RETURNING `+changedColumns, pgx.NamedArgs{"site": siteID, "scan": scanID, "metadata": m, "now": t.now}); err == nil {
			rec = c.ScanRecord
		}
		if err != nil {
			return err
		}
		return t.audit(ctx, siteID, by, "scan.correct", scanObject(scanID), strings.Join(changed, " "))
	})
	return rec, err
}

// runAgain starts a new run of a locked scan and shuts out the old one's
// worker; whoever was told of a result that stood is told why it does no longer.
// Errors: CodeConflict "scan-bytes-removed", "no-bytes".
func (t *tx) runAgain(ctx context.Context, c changedScan, m neuroscreen.Metadata, why neuroscreen.Reason) (ScanRecord, error) {
	if c.Size == 0 {
		return ScanRecord{}, neuroscreen.Errorf(neuroscreen.CodeConflict, "no-bytes", "no image of this scan ever came; send the series again, it is then a scan of its own")
	}
	if c.BytesRemoved != nil {
		return ScanRecord{}, neuroscreen.Errorf(neuroscreen.CodeConflict, "scan-bytes-removed",
			"the scan's bytes were removed when their time was over; post the same file again, then repeat this")
	}
	if c.State == neuroscreen.Scored {
		if err := t.notifyWithdrawn(ctx, c.ScanRecord, why); err != nil {
			return ScanRecord{}, err
		}
	}
	c, err := row[changedScan](ctx, t, errVanished, `
		UPDATE scans
		SET state = 'received', reasons = '[]', metadata = @metadata, run = run + 1, attempt = 0,
		    finished_at = NULL, updated_at = @now, event_seq = event_seq + 1,
		    fence = fence + 1, lease_until = NULL, lease_holder = NULL
		WHERE site_id = @site AND id = @scan
		RETURNING `+changedColumns,
		pgx.NamedArgs{"site": c.SiteID, "scan": c.ID, "metadata": m, "now": t.now})
	if err != nil {
		return ScanRecord{}, err
	}
	if err := t.noteChange(ctx, c); err != nil {
		return ScanRecord{}, err
	}
	return t.begin(ctx, c)
}

// Erase removes a scan with its links, events, results and files, and the
// decodings that it is in; the audit trail keeps that it happened. It returns the blob keys that the scan used;
// hand them to ReleaseBlobs. Errors: CodeNotFound.
func (s *Store) Erase(ctx context.Context, siteID uuid.UUID, by Actor, scanID uuid.UUID) (blobKeys []string, err error) {
	err = s.inTx(ctx, func(t *tx) error {
		var err error
		if blobKeys, err = t.erase(ctx, siteID, scanID); err != nil {
			return err
		}
		return t.audit(ctx, siteID, by, "scan.erase", scanObject(scanID), "")
	})
	return blobKeys, err
}

// EraseSubject erases all scans of a subject, given by its posted identifier,
// and says how many there were; none is no error.
func (s *Store) EraseSubject(ctx context.Context, siteID uuid.UUID, by Actor, subjectID string) (scans int, blobKeys []string, err error) {
	err = s.inTx(ctx, func(t *tx) error {
		r, err := t.Query(ctx, "SELECT id FROM scans WHERE site_id = @site AND pseudonym = @pseudonym ORDER BY id FOR UPDATE",
			pgx.NamedArgs{"site": siteID, "pseudonym": s.cfg.Keys.Pseudonym(siteID, subjectID)})
		if err != nil {
			return err
		}
		ids, err := pgx.CollectRows(r, pgx.RowTo[uuid.UUID])
		if err != nil {
			return err
		}
		blobKeys = nil
		for _, id := range ids {
			keys, err := t.erase(ctx, siteID, id)
			if err != nil {
				return err
			}
			blobKeys = append(blobKeys, keys...)
		}
		scans = len(ids)
		for _, id := range ids {
			if err := t.audit(ctx, siteID, by, "scan.erase", scanObject(id), "subject"); err != nil {
				return err
			}
		}
		return nil
	})
	return scans, blobKeys, err
}

func (t *tx) erase(ctx context.Context, siteID, scanID uuid.UUID) (blobKeys []string, err error) {
	c, err := t.lockScan(ctx, siteID, scanID)
	if err != nil {
		return nil, err
	}
	args := pgx.NamedArgs{"site": siteID, "scan": scanID}
	r, err := t.Query(ctx, "SELECT blob_key FROM derived_files WHERE site_id = @site AND scan_id = @scan", args)
	if err != nil {
		return nil, err
	}
	if blobKeys, err = pgx.CollectRows(r, pgx.RowTo[string]); err != nil {
		return nil, err
	}
	for _, key := range []string{c.BlobKey, c.HeaderBlobKey} {
		if key != "" {
			blobKeys = append(blobKeys, key)
		}
	}
	decoded, err := t.eraseDecodings(ctx, siteID, `EXISTS (
		SELECT FROM decoding_runs r WHERE r.site_id = @site AND r.scan_id = @scan AND r.decoding_id = d.id)`, pgx.NamedArgs{"scan": scanID})
	if err != nil {
		return nil, err
	}
	blobKeys = append(blobKeys, decoded...)
	// The triggers that keep results and events as they are let this through,
	// in this transaction only.
	if _, err := t.Exec(ctx, "SET LOCAL neuroscreen.erasing = 'on'"); err != nil {
		return nil, err
	}
	for _, table := range []string{"derived_files", "results", "scan_events", "idempotency_keys", "links", "cases", "holds", "reviews"} {
		if _, err := t.Exec(ctx, "DELETE FROM "+table+" WHERE site_id = @site AND scan_id = @scan", args); err != nil {
			return nil, err
		}
	}
	if _, err := t.Exec(ctx, "DELETE FROM scans WHERE site_id = @site AND id = @scan", args); err != nil {
		return nil, err
	}
	if _, err := t.Exec(ctx, "SET LOCAL neuroscreen.erasing = 'off'"); err != nil {
		return nil, err
	}
	err = t.notifyWithdrawn(ctx, c.ScanRecord, neuroscreen.Reason{Code: "erased", Text: "The scan was erased."})
	slices.Sort(blobKeys)
	return slices.Compact(blobKeys), err
}

// ForgetIdempotencyKeys removes those older than the time given: a client
// that repeats a request so late finds its scan by its bytes.
func (s *Store) ForgetIdempotencyKeys(ctx context.Context, before time.Time) error {
	_, err := s.cfg.Pool.Exec(ctx, "DELETE FROM idempotency_keys WHERE created_at < $1", before)
	if err == nil {
		_, err = s.cfg.Pool.Exec(ctx, "UPDATE decodings SET idempotency_hash = NULL WHERE idempotency_hash IS NOT NULL AND created_at < $1", before)
	}
	return classify(err)
}

func scanObject(id uuid.UUID) string { return "scan:" + id.String() }
