package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"neuroscreen"
)

const settingsColumns = `version, settings, actor AS by, note, created_at AS created`

// newestSettings is a site's current version; before any was stored it is
// version 0 without settings.
const newestSettings = `
	SELECT ` + settingsColumns + ` FROM site_settings
	WHERE site_id = @site
	ORDER BY version DESC
	LIMIT 1`

// errNone tells that there is no row where that is an answer.
var errNone = errors.New("store: none")

func currentSettings(ctx context.Context, q querier, siteID uuid.UUID) (SiteSettings, error) {
	v, err := row[SiteSettings](ctx, q, errNone, newestSettings, pgx.NamedArgs{"site": siteID})
	if errors.Is(err, errNone) {
		return SiteSettings{Settings: json.RawMessage("{}")}, nil
	}
	return v, err
}

// CurrentSettings returns a site's newest settings; while none were stored,
// version 0 with an empty object.
func (s *Store) CurrentSettings(ctx context.Context, siteID uuid.UUID) (SiteSettings, error) {
	return currentSettings(ctx, s.cfg.Pool, siteID)
}

// SettingsVersion returns one version; version 0 is that before any was stored.
// Errors: CodeNotFound.
func (s *Store) SettingsVersion(ctx context.Context, siteID uuid.UUID, version int) (SiteSettings, error) {
	if version == 0 {
		return SiteSettings{Settings: json.RawMessage("{}")}, nil
	}
	return row[SiteSettings](ctx, s.cfg.Pool, notFound("settings"),
		"SELECT "+settingsColumns+" FROM site_settings WHERE site_id = @site AND version = @version",
		pgx.NamedArgs{"site": siteID, "version": version})
}

// SettingsVersions lists versions, newest first: those before one, or from the
// newest with 0. limit is 50 when 0, at most 1000.
func (s *Store) SettingsVersions(ctx context.Context, siteID uuid.UUID, before, most int) ([]SiteSettings, error) {
	return rows[SiteSettings](ctx, s, `
		SELECT `+settingsColumns+` FROM site_settings
		WHERE site_id = @site AND (@before = 0 OR version < @before)
		ORDER BY version DESC
		LIMIT @limit`, pgx.NamedArgs{"site": siteID, "before": before, "limit": limit(most, 50, 1000)})
}

// AddSettings stores the next version of a site's settings, a JSON object.
// replaces is the version that it was made from. Stored results keep theirs.
// Errors: CodeNotFound for an unknown site; CodeInvalid for anything but an
// object, or for no note or one over 500 characters; CodeConflict
// "settings-changed" when replaces is not the newest.
func (s *Store) AddSettings(ctx context.Context, siteID uuid.UUID, by Actor, replaces int, settings json.RawMessage, note string) (added SiteSettings, err error) {
	var object map[string]json.RawMessage
	if err := json.Unmarshal(settings, &object); err != nil || object == nil {
		return SiteSettings{}, neuroscreen.FieldErrorf(neuroscreen.CodeInvalid, "invalid-value", "settings", "not a JSON object")
	}
	if n := len([]rune(note)); n == 0 || n > 500 {
		return SiteSettings{}, neuroscreen.FieldErrorf(neuroscreen.CodeInvalid, "invalid-value", "note", "say why, in 1 to 500 characters")
	}
	err = s.inTx(ctx, func(t *tx) error {
		// The site's row puts changes of its settings into one line. Not FOR UPDATE: an entry
		// of the trail, which holds the head that we wait for in the end, refers to the row.
		if _, err := row[Site](ctx, t, notFound("site"), "SELECT "+siteColumns+" FROM sites WHERE id = @site FOR NO KEY UPDATE", pgx.NamedArgs{"site": siteID}); err != nil {
			return err
		}
		have, err := currentSettings(ctx, t, siteID)
		if err != nil {
			return err
		}
		if have.Version != replaces {
			return neuroscreen.FieldErrorf(neuroscreen.CodeConflict, "settings-changed", "replaces",
				"the settings are at version %d, not %d: look at them again before they are changed", have.Version, replaces)
		}
		added, err = row[SiteSettings](ctx, t, errNone, `
			INSERT INTO site_settings (site_id, version, settings, actor, note, created_at)
			VALUES (@site, @version, @settings, @actor, @note, @now)
			RETURNING `+settingsColumns,
			pgx.NamedArgs{"site": siteID, "version": replaces + 1, "settings": settings, "actor": by, "note": note, "now": t.now})
		if err != nil {
			return err
		}
		return t.audit(ctx, siteID, by, "site.settings", "site:"+siteID.String(), fmt.Sprintf("version %d", added.Version))
	})
	return added, err
}
