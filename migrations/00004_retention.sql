-- +goose Up

-- A site may want the bytes of a scan gone after a time, while its results
-- stay. The hashes stay too: they make a scan that is posted again the same.
ALTER TABLE scans
    ADD COLUMN bytes_removed_at timestamptz,
    ADD CONSTRAINT scans_bytes_or_removed CHECK ((blob_key = '') = (bytes_removed_at IS NOT NULL)),
    ADD CONSTRAINT scans_bytes_while_unfinished CHECK (bytes_removed_at IS NULL OR finished_at IS NOT NULL),
    DROP CONSTRAINT scans_header_whole,
    ADD CONSTRAINT scans_header_whole CHECK (
        (header_size = 0) = (header_sha256 = '')
        AND (header_blob_key = '') = (header_size = 0 OR bytes_removed_at IS NOT NULL));
CREATE INDEX scans_bytes_age ON scans (updated_at) WHERE finished_at IS NOT NULL AND bytes_removed_at IS NULL;

-- +goose Down
DROP INDEX scans_bytes_age;
ALTER TABLE scans
    DROP CONSTRAINT scans_header_whole,
    DROP CONSTRAINT scans_bytes_while_unfinished,
    DROP CONSTRAINT scans_bytes_or_removed,
    DROP COLUMN bytes_removed_at,
    ADD CONSTRAINT scans_header_whole CHECK ((header_blob_key = '') = (header_size = 0) AND (header_blob_key = '') = (header_sha256 = ''));
