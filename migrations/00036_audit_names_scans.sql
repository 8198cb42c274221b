-- +goose Up

-- A list shows many scans: its one entry names them all, so that what was seen
-- of a scan is found under its id. An entry about one scan has it as its
-- object; entries from before have no scans, and their hashes know of none.
ALTER TABLE audit ADD COLUMN scan_ids uuid[] CONSTRAINT audit_scan_ids_some CHECK (cardinality(scan_ids) > 0);
-- Without fastupdate: now and then a reader would wait for the entries of
-- thousands before him.
CREATE INDEX audit_scans ON audit USING gin (scan_ids) WITH (fastupdate = off) WHERE scan_ids IS NOT NULL;

-- +goose Down
ALTER TABLE audit DROP COLUMN scan_ids;
