package store

import (
	"context"
	"regexp"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"neuroscreen"
)

const siteColumns = `id, name, created_at AS created`

var siteName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// CheckSecret makes sure that the pseudonyms and links in the database were
// made with this deployment's secret, and remembers the secret's fingerprint
// the first time. Errors: CodeConflict "wrong-secret".
func (s *Store) CheckSecret(ctx context.Context) error {
	return s.inTx(ctx, func(t *tx) error {
		_, err := t.Exec(ctx, `
			INSERT INTO deployment (secret_fingerprint, created_at)
			VALUES (@fingerprint, @now)
			ON CONFLICT (only_row) DO NOTHING`,
			pgx.NamedArgs{"fingerprint": s.cfg.Keys.Fingerprint(), "now": t.now})
		if err != nil {
			return err
		}
		var have string
		if err := t.QueryRow(ctx, "SELECT secret_fingerprint FROM deployment").Scan(&have); err != nil {
			return err
		}
		if have != s.cfg.Keys.Fingerprint() {
			return neuroscreen.Errorf(neuroscreen.CodeConflict, "wrong-secret",
				"this database was made with another identity secret (fingerprint %s, not %s): put back the secret that belongs to it", have, s.cfg.Keys.Fingerprint())
		}
		return nil
	})
}

// Deployment is the id of this database's deployment, once CheckSecret was
// called.
func (s *Store) Deployment(ctx context.Context) (id uuid.UUID, err error) {
	err = s.cfg.Pool.QueryRow(ctx, "SELECT id FROM deployment").Scan(&id)
	return id, classify(err)
}

// EnsureSite returns the site of that name and makes it when it is missing.
// Errors: CodeInvalid for a name that is not lower case letters, digits and
// hyphens; those of CheckSecret.
func (s *Store) EnsureSite(ctx context.Context, name string) (site Site, created bool, err error) {
	if !siteName.MatchString(name) {
		return Site{}, false, neuroscreen.FieldErrorf(neuroscreen.CodeInvalid, "invalid-value", "site",
			"a site's name has 1 to 63 lower case letters, digits and hyphens")
	}
	if err := s.CheckSecret(ctx); err != nil {
		return Site{}, false, err
	}
	id, err := uuid.NewV7()
	if err != nil {
		return Site{}, false, err
	}
	err = s.inTx(ctx, func(t *tx) error {
		args := pgx.NamedArgs{"id": id, "name": name, "now": t.now}
		tag, err := t.Exec(ctx, `
			INSERT INTO sites (id, name, created_at)
			VALUES (@id, @name, @now)
			ON CONFLICT (name) DO NOTHING`, args)
		if err != nil {
			return err
		}
		created = tag.RowsAffected() == 1
		if created {
			if err := t.audit(ctx, id, System, "site.create", "site:"+id.String(), ""); err != nil {
				return err
			}
		}
		site, err = row[Site](ctx, t, notFound("site"), "SELECT "+siteColumns+" FROM sites WHERE name = @name", args)
		return err
	})
	return site, created, err
}

// Sites lists all sites by name. For the command line and background work.
func (s *Store) Sites(ctx context.Context) ([]Site, error) {
	return rows[Site](ctx, s, "SELECT "+siteColumns+" FROM sites ORDER BY name", nil)
}

// Site returns one site. Errors: CodeNotFound.
func (s *Store) Site(ctx context.Context, siteID uuid.UUID) (Site, error) {
	return row[Site](ctx, s.cfg.Pool, notFound("site"), "SELECT "+siteColumns+" FROM sites WHERE id = @site",
		pgx.NamedArgs{"site": siteID})
}
