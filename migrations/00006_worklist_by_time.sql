-- +goose Up

-- Open or decided cases by time: cases_time would pass over all of the other
-- kind first, which are most of a site's after some years, or its newest ones.
CREATE INDEX cases_open_time ON cases (site_id, condition, received_at, scan_id) WHERE decision IS NULL;
CREATE INDEX cases_decided_time ON cases (site_id, condition, received_at, scan_id) WHERE decision IS NOT NULL;

-- +goose Down
DROP INDEX cases_open_time, cases_decided_time;
