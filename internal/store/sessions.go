package store

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"neuroscreen"
)

// SessionLimits end a session: after so long without its person, and after so
// long in any case.
type SessionLimits struct {
	Idle, Whole time.Duration
}

// CreateSession signs a key's holder in and returns the token for the cookie,
// which is stored only as a hash. Sessions that have ended are removed.
func (s *Store) CreateSession(ctx context.Context, key KeyRecord, limits SessionLimits) (token string, err error) {
	token = rand.Text() + rand.Text()
	sum := sha256.Sum256([]byte(token))
	err = s.inTx(ctx, func(t *tx) error {
		args := pgx.NamedArgs{"site": key.SiteID, "key": key.ID, "token": sum[:], "now": t.now,
			"idle": t.now.Add(-limits.Idle), "whole": t.now.Add(-limits.Whole)}
		batch := &pgx.Batch{}
		batch.Queue("DELETE FROM sessions WHERE used_at < @idle OR created_at < @whole", args)
		batch.Queue("INSERT INTO sessions (site_id, token_sha256, key_id, created_at, used_at) VALUES (@site, @token, @key, @now, @now)", args)
		if err := t.SendBatch(ctx, batch).Close(); err != nil {
			return err
		}
		return t.audit(ctx, key.SiteID, Actor(key.ID.String()), "session.start", "key:"+key.ID.String(), "")
	})
	return token, err
}

// SessionKey returns the key that a session's token stands for. used says
// that the person did something, which the session then lasts from. Errors:
// CodeUnauthenticated "session-ended" for a token that is unknown, whose time
// is over or whose key was revoked.
func (s *Store) SessionKey(ctx context.Context, token string, limits SessionLimits, used bool) (KeyRecord, error) {
	ended := neuroscreen.Errorf(neuroscreen.CodeUnauthenticated, "session-ended", "the session has ended; sign in again")
	sum := sha256.Sum256([]byte(token))
	now := s.now()
	args := pgx.NamedArgs{"token": sum[:], "now": now, "idle": now.Add(-limits.Idle), "whole": now.Add(-limits.Whole)}
	type keyAndUse struct {
		KeyRecord
		UsedAt time.Time
	}
	k, err := row[keyAndUse](ctx, s.cfg.Pool, ended, `
		SELECT k.id, k.site_id, k.prefix, k.role, k.label, k.created_at AS created, k.last_used_at AS last_used, k.revoked_at AS revoked, s.used_at
		FROM sessions s JOIN keys k ON k.site_id = s.site_id AND k.id = s.key_id
		WHERE s.token_sha256 = @token AND s.used_at > @idle AND s.created_at > @whole AND k.revoked_at IS NULL`, args)
	if err != nil {
		return KeyRecord{}, err
	}
	if used && now.Sub(k.UsedAt) > time.Second { // reads stay reads within a burst
		if _, err := s.cfg.Pool.Exec(ctx, "UPDATE sessions SET used_at = @now WHERE token_sha256 = @token", args); err != nil {
			return KeyRecord{}, classify(err)
		}
	}
	return k.KeyRecord, nil
}

// EndSession signs out; an unknown token is no error.
func (s *Store) EndSession(ctx context.Context, token string) error {
	sum := sha256.Sum256([]byte(token))
	_, err := s.cfg.Pool.Exec(ctx, "DELETE FROM sessions WHERE token_sha256 = $1", sum[:])
	return classify(err)
}

// Person is who an identity provider vouches for.
type Person struct {
	Issuer, Subject string
	Name            string
	Role            neuroscreen.Role
}

func (s *Store) mac(siteID uuid.UUID, p Person) []byte {
	return s.cfg.Keys.MAC(siteID, "person", []byte(p.Issuer+"\x00"+p.Subject))
}

func personRevoked() error {
	return neuroscreen.Errorf(neuroscreen.CodeForbidden, "person-revoked", "an administrator of this site has revoked your access")
}

// TokenKey returns the key that stands for a person who came with a token of
// the provider, made at the first time, with the role that the token gives. The
// stored role stays that of the last sign-in: a token may be older than it, and
// the person's sessions would take over what the token gives. Errors:
// CodeForbidden "person-revoked".
func (s *Store) TokenKey(ctx context.Context, siteID uuid.UUID, p Person) (KeyRecord, error) {
	key, err := row[KeyRecord](ctx, s.cfg.Pool, errNone, "SELECT "+keyColumns+" FROM keys WHERE site_id = @site AND person = @person",
		pgx.NamedArgs{"site": siteID, "person": s.mac(siteID, p)})
	switch {
	case err == errNone:
		key, err = s.ensurePerson(ctx, siteID, p, false)
	case err == nil && key.Revoked != nil:
		err = personRevoked()
	}
	if err != nil {
		return KeyRecord{}, err
	}
	key.Role = p.Role
	return key, s.touchKey(ctx, key)
}

// EnsurePerson returns the key that stands for a person, made at the first
// sign-in; its name and role follow the provider's. Its secret is thrown away:
// the person only ever comes by a session or a token of the provider. Errors:
// CodeForbidden "person-revoked".
func (s *Store) EnsurePerson(ctx context.Context, siteID uuid.UUID, p Person) (KeyRecord, error) {
	return s.ensurePerson(ctx, siteID, p, true)
}

func (s *Store) ensurePerson(ctx context.Context, siteID uuid.UUID, p Person, follow bool) (key KeyRecord, err error) {
	person := s.mac(siteID, p)
	label := p.Name
	if r := []rune(label); len(r) > 200 {
		label = string(r[:200])
	}
	err = s.inTx(ctx, func(t *tx) error {
		// Two first sign-ins at once make one key.
		if _, err := t.Exec(ctx, "SELECT pg_advisory_xact_lock(hashtextextended('person', 0))"); err != nil {
			return err
		}
		args := pgx.NamedArgs{"site": siteID, "person": person, "role": p.Role, "label": label}
		before, err := row[KeyRecord](ctx, t, errNone, "SELECT "+keyColumns+" FROM keys WHERE site_id = @site AND person = @person FOR UPDATE", args)
		switch {
		case err == nil && before.Revoked != nil:
			return personRevoked()
		case err == nil && !follow:
			key = before
			return nil
		case err == nil:
			key, err = row[KeyRecord](ctx, t, errNone, `
				UPDATE keys SET role = @role, label = @label WHERE site_id = @site AND person = @person
				RETURNING `+keyColumns, args)
			if err != nil || key.Role == before.Role {
				return err
			}
			return t.audit(ctx, siteID, System, "key.role", "key:"+key.ID.String(), fmt.Sprintf("%s, was %s", key.Role, before.Role))
		case err != errNone:
			return err
		}
		if key, err = t.insertKey(ctx, siteID, System, NewSecret(), p.Role, label); err != nil {
			return err
		}
		args["id"] = key.ID
		_, err = t.Exec(ctx, "UPDATE keys SET person = @person WHERE site_id = @site AND id = @id", args)
		return err
	})
	return key, err
}
