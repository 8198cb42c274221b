-- +goose Up

-- A gateway that could make no image of a series says so, and a case without
-- bytes stands in the worklist.
ALTER TABLE scans
    DROP CONSTRAINT scans_size_positive,
    ADD CONSTRAINT scans_size_positive CHECK (size_bytes > 0 OR size_bytes = 0 AND state = 'refused' AND bytes_removed_at IS NOT NULL);

-- +goose Down
ALTER TABLE scans
    DROP CONSTRAINT scans_size_positive,
    ADD CONSTRAINT scans_size_positive CHECK (size_bytes > 0) NOT VALID;
