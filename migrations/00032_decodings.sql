-- +goose Up

-- A decoding of one person's task runs, which are scans. It has a lease and a
-- fence like a scan's. document is json, not jsonb, because json keeps the
-- bytes that sha256 was taken of.
CREATE TABLE decodings (
    site_id          uuid        NOT NULL REFERENCES sites (id),
    id               uuid        NOT NULL,
    options          jsonb       NOT NULL CONSTRAINT decodings_options_object CHECK (jsonb_typeof(options) = 'object'),
    idempotency_hash bytea,      -- keyed, of the client's key; forgotten after some days
    fingerprint      bytea       NOT NULL, -- keyed, of the request

    state            text        NOT NULL CONSTRAINT decodings_state_known CHECK (state IN ('received', 'decoded', 'refused', 'failed')),
    reasons          jsonb       NOT NULL DEFAULT '[]' CONSTRAINT decodings_reasons_array CHECK (jsonb_typeof(reasons) = 'array'),
    attempt          int         NOT NULL DEFAULT 0 CONSTRAINT decodings_attempt_not_negative CHECK (attempt >= 0),
    fence            bigint      NOT NULL DEFAULT 0,
    lease_until      timestamptz,
    lease_holder     text,

    document         json,
    sha256           bytea       CONSTRAINT decodings_sha256_length CHECK (octet_length(sha256) = 32),
    weights_key      text        NOT NULL DEFAULT '', -- blob
    weights_size     bigint      NOT NULL DEFAULT 0,

    created_at       timestamptz NOT NULL,
    updated_at       timestamptz NOT NULL,
    finished_at      timestamptz,

    PRIMARY KEY (site_id, id),
    CONSTRAINT decodings_final_is_finished CHECK ((state <> 'received') = (finished_at IS NOT NULL)),
    CONSTRAINT decodings_final_is_not_leased CHECK (finished_at IS NULL OR lease_until IS NULL),
    CONSTRAINT decodings_lease_whole CHECK ((lease_until IS NULL) = (lease_holder IS NULL)),
    CONSTRAINT decodings_decoded_has_result CHECK (
        (state = 'decoded') = (document IS NOT NULL) AND (document IS NULL) = (sha256 IS NULL) AND (document IS NULL) = (weights_key = '')),
    CONSTRAINT decodings_end_has_reason CHECK (state NOT IN ('refused', 'failed') OR jsonb_array_length(reasons) > 0)
);
CREATE UNIQUE INDEX decodings_idempotency ON decodings (site_id, idempotency_hash) WHERE idempotency_hash IS NOT NULL;
CREATE INDEX decodings_newest ON decodings (site_id, created_at DESC, id DESC);
CREATE INDEX decodings_unfinished ON decodings (updated_at) WHERE finished_at IS NULL;
CREATE INDEX decodings_weights ON decodings (weights_key) WHERE weights_key <> '';

-- The runs of a decoding in their order. Of the posted tables only onset,
-- duration, kind and run of each event are kept.
CREATE TABLE decoding_runs (
    site_id     uuid  NOT NULL,
    decoding_id uuid  NOT NULL,
    position    int   NOT NULL CONSTRAINT decoding_runs_position_positive CHECK (position > 0),
    scan_id     uuid  NOT NULL,
    events      jsonb NOT NULL CONSTRAINT decoding_runs_events_array CHECK (jsonb_typeof(events) = 'array'),
    PRIMARY KEY (site_id, decoding_id, position),
    CONSTRAINT decoding_runs_scan_once UNIQUE (site_id, decoding_id, scan_id),
    FOREIGN KEY (site_id, decoding_id) REFERENCES decodings (site_id, id),
    FOREIGN KEY (site_id, scan_id) REFERENCES scans (site_id, id)
);
CREATE INDEX decoding_runs_scan ON decoding_runs (site_id, scan_id);

-- +goose Down
DROP TABLE decoding_runs, decodings;
