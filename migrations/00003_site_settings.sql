-- A site's settings are versions that are written once: a result names the
-- version that it was made with.

-- +goose Up
CREATE TABLE site_settings (
    site_id    uuid        NOT NULL REFERENCES sites (id),
    version    int         NOT NULL CONSTRAINT site_settings_version_positive CHECK (version > 0),
    settings   jsonb       NOT NULL CONSTRAINT site_settings_object CHECK (jsonb_typeof(settings) = 'object'),
    actor      text        NOT NULL,
    note       text        NOT NULL CONSTRAINT site_settings_note_short CHECK (char_length(note) BETWEEN 1 AND 500),
    created_at timestamptz NOT NULL,
    PRIMARY KEY (site_id, version)
);
CREATE TRIGGER site_settings_written_once BEFORE UPDATE OR DELETE ON site_settings
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
INSERT INTO site_settings (site_id, version, settings, actor, note, created_at)
SELECT id, 1, settings, 'system:migration', 'stored before settings had versions', now()
FROM sites WHERE settings <> '{}';
ALTER TABLE sites DROP COLUMN settings;

-- +goose Down
ALTER TABLE sites ADD COLUMN settings jsonb NOT NULL DEFAULT '{}' CONSTRAINT sites_settings_object CHECK (jsonb_typeof(settings) = 'object');
UPDATE sites SET settings = s.settings
FROM site_settings s
WHERE s.site_id = sites.id AND s.version = (SELECT max(version) FROM site_settings WHERE site_id = sites.id);
DROP TABLE site_settings;
