-- +goose Up

-- Where a site wants to be told what became of its scans. The secret that
-- messages are signed with is sealed like a posted identifier.
CREATE TABLE webhooks (
    site_id     uuid        NOT NULL REFERENCES sites (id),
    id          uuid        NOT NULL,
    url         text        NOT NULL CONSTRAINT webhooks_url_http CHECK (url ~ '^https?://'),
    events      text[]      NOT NULL CONSTRAINT webhooks_events_known CHECK (
                    cardinality(events) > 0
                    AND events <@ ARRAY['scan.scored', 'scan.refused', 'scan.failed', 'scan.cancelled', 'result.withdrawn']),
    sealed      bytea       NOT NULL,
    created_at  timestamptz NOT NULL,
    disabled_at timestamptz, -- the receiver said that it is gone for good
    -- Of the last attempt.
    last_at     timestamptz,
    last_status int,
    last_error  text,
    PRIMARY KEY (site_id, id)
);

-- +goose Down
DROP TABLE webhooks;
