package store

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"neuroscreen"
)

const keyColumns = `id, site_id, prefix, role, label, created_at AS created, last_used_at AS last_used, revoked_at AS revoked`

// keyMark starts every key, so that secret scanners can find leaked ones.
const keyMark = "nsk"

var keyEncoding = base32.StdEncoding.WithPadding(base32.NoPadding)

// NewSecret returns a new key's secret: nsk_<8 letters to know it by>_<32 random
// bytes>.
func NewSecret() string {
	var random [32]byte
	rand.Read(random[:])
	return keyMark + "_" + strings.ToLower(rand.Text()[:8]) + "_" + strings.ToLower(keyEncoding.EncodeToString(random[:]))
}

// SecretPrefix returns the letters that a secret is known by, and whether it
// looks like one.
func SecretPrefix(secret string) (prefix string, ok bool) {
	parts := strings.Split(secret, "_")
	if len(parts) != 3 || parts[0] != keyMark {
		return "", false
	}
	return parts[1], true
}

// CreateKey makes a key and returns its secret, which is shown once and
// stored only as a hash.
// Errors: CodeInvalid for an unknown role or a label over 200 characters;
// CodeNotFound for an unknown site.
func (s *Store) CreateKey(ctx context.Context, siteID uuid.UUID, by Actor, role neuroscreen.Role, label string) (secret string, key KeyRecord, err error) {
	if !slices.Contains([]neuroscreen.Role{neuroscreen.Uploader, neuroscreen.Clinician, neuroscreen.Researcher, neuroscreen.Admin}, role) {
		return "", KeyRecord{}, neuroscreen.FieldErrorf(neuroscreen.CodeInvalid, "invalid-value", "role", "a role is uploader, clinician, researcher or admin")
	}
	if len([]rune(label)) > 200 {
		return "", KeyRecord{}, neuroscreen.FieldErrorf(neuroscreen.CodeInvalid, "invalid-value", "name", "at most 200 characters")
	}
	if _, err := s.Site(ctx, siteID); err != nil {
		return "", KeyRecord{}, err
	}
	secret = NewSecret()
	err = s.inTx(ctx, func(t *tx) error {
		var err error
		key, err = t.insertKey(ctx, siteID, by, secret, role, label)
		return err
	})
	if err != nil {
		return "", KeyRecord{}, err
	}
	return secret, key, nil
}

func (t *tx) insertKey(ctx context.Context, siteID uuid.UUID, by Actor, secret string, role neuroscreen.Role, label string) (KeyRecord, error) {
	prefix, ok := SecretPrefix(secret)
	if !ok {
		return KeyRecord{}, errors.New("store: not the secret of a key")
	}
	id, err := uuid.NewV7()
	if err != nil {
		return KeyRecord{}, err
	}
	sum := sha256.Sum256([]byte(secret))
	key, err := row[KeyRecord](ctx, t, nil, `
		INSERT INTO keys (site_id, id, prefix, secret_sha256, role, label, created_at)
		VALUES (@site, @id, @prefix, @sha256, @role, @label, @now)
		RETURNING `+keyColumns,
		pgx.NamedArgs{"site": siteID, "id": id, "prefix": prefix, "sha256": sum[:], "role": role, "label": label, "now": t.now})
	if err != nil {
		return KeyRecord{}, err
	}
	return key, t.audit(ctx, siteID, by, "key.create", "key:"+id.String(), string(role))
}

// EnsureAdminKey makes an admin key when the site has none that works, or
// always. Those of people do not count: nobody has their secret. The secret is the one that keep returns; keep must have stored it
// durably before, so that a crash leaves a secret without a key, which keep may
// return the next time, and never a key whose secret nobody has. keep is told
// by used whether the database has a key of a prefix, and runs in one process
// at a time.
func (s *Store) EnsureAdminKey(ctx context.Context, siteID uuid.UUID, by Actor, label string, always bool,
	keep func(used func(prefix string) (bool, error)) (secret string, err error)) (made bool, err error) {
	err = s.inTx(ctx, func(t *tx) error {
		made = false
		if _, err := t.Exec(ctx, "SELECT pg_advisory_xact_lock(hashtextextended('admin-key', 0))"); err != nil {
			return err
		}
		var have bool
		err := t.QueryRow(ctx, `
			SELECT EXISTS (SELECT FROM keys WHERE site_id = $1 AND role = 'admin' AND person IS NULL AND revoked_at IS NULL)`, siteID).Scan(&have)
		if err != nil || have && !always {
			return err
		}
		secret, err := keep(func(prefix string) (used bool, err error) {
			err = t.QueryRow(ctx, "SELECT EXISTS (SELECT FROM keys WHERE prefix = $1)", prefix).Scan(&used)
			return used, err
		})
		if err != nil {
			return err
		}
		made = true
		_, err = t.insertKey(ctx, siteID, by, secret, neuroscreen.Admin, label)
		return err
	})
	return made && err == nil, err
}

// Authenticate returns the key that secret belongs to. Errors:
// CodeUnauthenticated for an unknown, malformed or revoked one.
func (s *Store) Authenticate(ctx context.Context, secret string) (KeyRecord, error) {
	unknown := neuroscreen.Errorf(neuroscreen.CodeUnauthenticated, "invalid-key", "the key is unknown or revoked")
	prefix, ok := SecretPrefix(secret)
	if !ok {
		return KeyRecord{}, unknown
	}
	type keyAndHash struct {
		KeyRecord
		SecretSHA256 []byte `db:"secret_sha256"`
	}
	k, err := row[keyAndHash](ctx, s.cfg.Pool, unknown,
		"SELECT "+keyColumns+", secret_sha256 FROM keys WHERE prefix = @prefix", pgx.NamedArgs{"prefix": prefix})
	if err != nil {
		return KeyRecord{}, err
	}
	sum := sha256.Sum256([]byte(secret))
	if subtle.ConstantTimeCompare(sum[:], k.SecretSHA256) != 1 || k.Revoked != nil {
		return KeyRecord{}, unknown
	}
	return k.KeyRecord, s.touchKey(ctx, k.KeyRecord)
}

// touchKey notes the use of a key, once a minute, so that reads stay reads.
func (s *Store) touchKey(ctx context.Context, k KeyRecord) error {
	now := s.now()
	if k.LastUsed != nil && now.Sub(*k.LastUsed) < time.Minute {
		return nil
	}
	_, err := s.cfg.Pool.Exec(ctx, `
		UPDATE keys SET last_used_at = date_trunc('minute', @now::timestamptz)
		WHERE site_id = @site AND id = @id`,
		pgx.NamedArgs{"site": k.SiteID, "id": k.ID, "now": now})
	return classify(err)
}

// ListKeys lists the site's keys, revoked ones too, oldest first.
func (s *Store) ListKeys(ctx context.Context, siteID uuid.UUID) ([]KeyRecord, error) {
	return rows[KeyRecord](ctx, s, "SELECT "+keyColumns+" FROM keys WHERE site_id = @site ORDER BY created_at, id",
		pgx.NamedArgs{"site": siteID})
}

// RevokeKey revokes a key; revoking twice is no error. Errors: CodeNotFound;
// CodeConflict "last-admin-key" for the site's last admin key, not counting
// those of people, which the identity provider gives and takes.
func (s *Store) RevokeKey(ctx context.Context, siteID uuid.UUID, by Actor, keyID uuid.UUID) (key KeyRecord, err error) {
	err = s.inTx(ctx, func(t *tx) error {
		args := pgx.NamedArgs{"site": siteID, "id": keyID, "now": t.now}
		// Lock the site's living admin keys, so that two calls cannot revoke
		// the last two at once.
		r, err := t.Query(ctx, `
			SELECT id FROM keys
			WHERE site_id = @site AND role = 'admin' AND person IS NULL AND revoked_at IS NULL
			ORDER BY id
			FOR UPDATE`, args)
		if err != nil {
			return err
		}
		admins, err := pgx.CollectRows(r, pgx.RowTo[uuid.UUID])
		if err != nil {
			return err
		}
		if len(admins) == 1 && admins[0] == keyID {
			return neuroscreen.Errorf(neuroscreen.CodeConflict, "last-admin-key", "this is the site's last admin key; make another first")
		}
		key, err = row[KeyRecord](ctx, t, notFound("key"),
			"SELECT "+keyColumns+" FROM keys WHERE site_id = @site AND id = @id FOR UPDATE", args)
		if err != nil || key.Revoked != nil {
			return err
		}
		key, err = row[KeyRecord](ctx, t, notFound("key"), `
			UPDATE keys SET revoked_at = @now WHERE site_id = @site AND id = @id
			RETURNING `+keyColumns, args)
		if err != nil {
			return err
		}
		return t.audit(ctx, siteID, by, "key.revoke", "key:"+keyID.String(), "")
	})
	return key, err
}
