-- Every table holds the site and every key starts with it, so that a query
-- that forgets the site finds no index and a foreign key cannot cross sites.
-- No table holds a posted identifier in the clear.

-- +goose Up

-- One row: which secret the pseudonyms and links were made with.
CREATE TABLE deployment (
    only_row           boolean     PRIMARY KEY DEFAULT true CONSTRAINT deployment_only_row CHECK (only_row),
    secret_fingerprint text        NOT NULL,
    created_at         timestamptz NOT NULL
);

CREATE TABLE sites (
    id         uuid        PRIMARY KEY,
    name       text        NOT NULL CONSTRAINT sites_name_unique UNIQUE
                           CONSTRAINT sites_name_short CHECK (name ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
    settings   jsonb       NOT NULL DEFAULT '{}' CONSTRAINT sites_settings_object CHECK (jsonb_typeof(settings) = 'object'),
    created_at timestamptz NOT NULL
);

CREATE TABLE keys (
    site_id       uuid        NOT NULL REFERENCES sites (id),
    id            uuid        NOT NULL,
    prefix        text        NOT NULL CONSTRAINT keys_prefix_unique UNIQUE,
    secret_sha256 bytea       NOT NULL CONSTRAINT keys_secret_is_sha256 CHECK (octet_length(secret_sha256) = 32),
    role          text        NOT NULL CONSTRAINT keys_role_known CHECK (role IN ('uploader', 'clinician', 'researcher', 'admin')),
    label         text        NOT NULL CONSTRAINT keys_label_short CHECK (char_length(label) <= 200),
    created_at    timestamptz NOT NULL,
    last_used_at  timestamptz,
    revoked_at    timestamptz,
    PRIMARY KEY (site_id, id)
);

-- One row per received file. metadata holds neuroscreen.Metadata with the
-- pseudonym for subject_id and no other posted identifier.
CREATE TABLE scans (
    site_id         uuid        NOT NULL REFERENCES sites (id),
    id              uuid        NOT NULL,
    pseudonym       text        NOT NULL CONSTRAINT scans_pseudonym_shape CHECK (pseudonym ~ '^p-[0-9a-z]{26}$'),
    metadata        jsonb       NOT NULL
                    CONSTRAINT scans_metadata_without_identifiers CHECK (
                        metadata ->> 'subject_id' = pseudonym
                        AND NOT metadata ?| ARRAY['birth_date', 'accession_number', 'study_instance_uid',
                            'series_instance_uid', 'frame_of_reference_uid', 'sop_instance_uids']),
    -- Of the received bytes; the blob is a copy without free text.
    sha256          bytea       NOT NULL CONSTRAINT scans_sha256_length CHECK (octet_length(sha256) = 32),
    size_bytes      bigint      NOT NULL CONSTRAINT scans_size_positive CHECK (size_bytes > 0),
    blob_key        text        NOT NULL,
    -- The .hdr of a pair. Part of what makes two posts the same.
    header_sha256   bytea       NOT NULL DEFAULT ''
                    CONSTRAINT scans_header_sha256_length CHECK (octet_length(header_sha256) IN (0, 32)),
    header_size     bigint      NOT NULL DEFAULT 0,
    header_blob_key text        NOT NULL DEFAULT '',

    state           text        NOT NULL CONSTRAINT scans_state_known CHECK (state IN
                        ('received', 'checked', 'segmented', 'measured', 'scored', 'refused', 'failed', 'cancelled')),
    reasons         jsonb       NOT NULL DEFAULT '[]' CONSTRAINT scans_reasons_array CHECK (jsonb_typeof(reasons) = 'array'),
    run             int         NOT NULL DEFAULT 1 CONSTRAINT scans_run_positive CHECK (run > 0),
    attempt         int         NOT NULL DEFAULT 0 CONSTRAINT scans_attempt_not_negative CHECK (attempt >= 0),
    event_seq       bigint      NOT NULL DEFAULT 0,
    result_version  int         NOT NULL DEFAULT 0 CONSTRAINT scans_result_version_not_negative CHECK (result_version >= 0),

    -- Who may change the row as a worker: the holder of the newest fence.
    fence           bigint      NOT NULL DEFAULT 0,
    lease_until     timestamptz,
    lease_holder    text,

    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL,
    finished_at     timestamptz,

    PRIMARY KEY (site_id, id),
    CONSTRAINT scans_same_bytes_same_scan UNIQUE (site_id, pseudonym, sha256, header_sha256),
    CONSTRAINT scans_header_whole CHECK ((header_blob_key = '') = (header_size = 0) AND (header_blob_key = '') = (header_sha256 = '')),
    CONSTRAINT scans_final_is_finished CHECK (
        (state IN ('scored', 'refused', 'failed', 'cancelled')) = (finished_at IS NOT NULL)),
    CONSTRAINT scans_final_is_not_leased CHECK (finished_at IS NULL OR lease_until IS NULL),
    CONSTRAINT scans_lease_whole CHECK ((lease_until IS NULL) = (lease_holder IS NULL)),
    CONSTRAINT scans_scored_has_result CHECK (state <> 'scored' OR result_version > 0),
    CONSTRAINT scans_end_has_reason CHECK (
        state NOT IN ('refused', 'failed', 'cancelled') OR jsonb_array_length(reasons) > 0)
);
CREATE INDEX scans_newest ON scans (site_id, created_at DESC, id DESC);
-- For the search for scans whose worker is gone: few rows are ever in it.
CREATE INDEX scans_unfinished ON scans (updated_at) WHERE finished_at IS NULL;
CREATE INDEX scans_blob ON scans (blob_key);
CREATE INDEX scans_header_blob ON scans (header_blob_key) WHERE header_blob_key <> '';

-- What was posted about a scan's subject, sealed under the deployment's
-- secret; the scan's id is bound in, so that a swapped row does not open. A
-- scan posted under two accession numbers has two rows.
CREATE TABLE links (
    site_id        uuid        NOT NULL,
    scan_id        uuid        NOT NULL,
    accession_hash bytea       NOT NULL, -- keyed hash; empty when none was posted
    pseudonym      text        NOT NULL,
    key_id         int         NOT NULL DEFAULT 1, -- which secret, once there is more than one
    sealed         bytea       NOT NULL CONSTRAINT links_sealed_has_nonce_and_tag CHECK (octet_length(sealed) >= 28),
    created_at     timestamptz NOT NULL,
    PRIMARY KEY (site_id, scan_id, accession_hash),
    FOREIGN KEY (site_id, scan_id) REFERENCES scans (site_id, id)
);
CREATE INDEX links_accession ON links (site_id, accession_hash) WHERE accession_hash <> '';
CREATE INDEX links_pseudonym ON links (site_id, pseudonym);

CREATE TABLE idempotency_keys (
    site_id     uuid        NOT NULL,
    key_hash    bytea       NOT NULL, -- keyed: clients put accession numbers into keys
    fingerprint bytea       NOT NULL, -- keyed hash of metadata and bytes
    scan_id     uuid        NOT NULL,
    created_at  timestamptz NOT NULL,
    PRIMARY KEY (site_id, key_hash),
    FOREIGN KEY (site_id, scan_id) REFERENCES scans (site_id, id)
);
CREATE INDEX idempotency_keys_scan ON idempotency_keys (site_id, scan_id);
CREATE INDEX idempotency_keys_age ON idempotency_keys (created_at);

-- Every change of state, in order: stage times and event streams.
CREATE TABLE scan_events (
    site_id uuid        NOT NULL,
    scan_id uuid        NOT NULL,
    seq     bigint      NOT NULL,
    run     int         NOT NULL,
    attempt int         NOT NULL,
    state   text        NOT NULL,
    reasons jsonb       NOT NULL DEFAULT '[]',
    at      timestamptz NOT NULL,
    PRIMARY KEY (site_id, scan_id, seq),
    FOREIGN KEY (site_id, scan_id) REFERENCES scans (site_id, id)
);

-- A result is written once. The newest version stands; the older ones say
-- what was believed before. document is json, not jsonb, because json keeps
-- the bytes that sha256 was taken of.
CREATE TABLE results (
    site_id    uuid        NOT NULL,
    scan_id    uuid        NOT NULL,
    version    int         NOT NULL CONSTRAINT results_version_positive CHECK (version > 0),
    run        int         NOT NULL,
    metadata   jsonb       NOT NULL, -- what it was computed with
    document   json        NOT NULL,
    sha256     bytea       NOT NULL CONSTRAINT results_sha256_length CHECK (octet_length(sha256) = 32),
    software   jsonb       NOT NULL, -- version and hashes, for "what was computed with this model?"
    created_at timestamptz NOT NULL,
    PRIMARY KEY (site_id, scan_id, version),
    CONSTRAINT results_one_per_run UNIQUE (site_id, scan_id, run),
    FOREIGN KEY (site_id, scan_id) REFERENCES scans (site_id, id)
);

CREATE TABLE derived_files (
    site_id    uuid   NOT NULL,
    scan_id    uuid   NOT NULL,
    version    int    NOT NULL,
    kind       text   NOT NULL,
    media_type text   NOT NULL,
    blob_key   text   NOT NULL,
    sha256     bytea  NOT NULL CONSTRAINT derived_files_sha256_length CHECK (octet_length(sha256) = 32),
    size_bytes bigint NOT NULL,
    PRIMARY KEY (site_id, scan_id, version, kind),
    FOREIGN KEY (site_id, scan_id, version) REFERENCES results (site_id, scan_id, version)
);
CREATE INDEX derived_files_blob ON derived_files (blob_key);

-- +goose StatementBegin
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- Erasure says so in its own transaction; nothing else may delete.
    IF TG_OP = 'DELETE' AND current_setting('neuroscreen.erasing', true) = 'on' THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION '% of % refused: its rows are written once', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
END
$$;
-- +goose StatementEnd
CREATE TRIGGER results_written_once BEFORE UPDATE OR DELETE ON results
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER derived_files_written_once BEFORE UPDATE OR DELETE ON derived_files
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER scan_events_written_once BEFORE UPDATE OR DELETE ON scan_events
    FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- The worklist: one row per scan with condition '', and once it is scored one
-- more per condition, so that every filter is an equality in front of the
-- order and a page is a short index scan however many cases there are.
-- severity: 0 flagged, 1 review, 2 failed or refused, 3 in progress,
-- 4 nothing found, 5 abstained, 6 cancelled.
CREATE TABLE cases (
    site_id          uuid             NOT NULL,
    condition        text             NOT NULL,
    scan_id          uuid             NOT NULL,
    pseudonym        text             NOT NULL,
    severity         smallint         NOT NULL CONSTRAINT cases_severity_known CHECK (severity BETWEEN 0 AND 6),
    received_at      timestamptz      NOT NULL,
    state            text             NOT NULL,
    flag             text             CONSTRAINT cases_flag_known CHECK (flag IN ('none', 'review', 'flagged')),
    worst_condition  text,            -- whose likelihood ratio it is
    likelihood_ratio double precision,
    scanner          text             NOT NULL,
    PRIMARY KEY (site_id, scan_id, condition),
    CONSTRAINT cases_scored_has_flag CHECK ((state = 'scored') = (flag IS NOT NULL)),
    FOREIGN KEY (site_id, scan_id) REFERENCES scans (site_id, id)
);
CREATE INDEX cases_worst     ON cases (site_id, condition, severity, received_at, scan_id);
CREATE INDEX cases_time      ON cases (site_id, condition, received_at, scan_id);
CREATE INDEX cases_state     ON cases (site_id, condition, state, severity, received_at, scan_id);
CREATE INDEX cases_scanner   ON cases (site_id, condition, scanner, severity, received_at, scan_id);
CREATE INDEX cases_pseudonym ON cases (site_id, pseudonym, condition);

-- Who did or read what. Each row's hash covers the one before it; the head
-- keeps the last, so that a cut tail shows too.
CREATE TABLE audit_heads (
    site_id uuid   PRIMARY KEY REFERENCES sites (id),
    seq     bigint NOT NULL,
    hash    bytea  NOT NULL
);
CREATE TABLE audit (
    site_id uuid        NOT NULL REFERENCES sites (id),
    seq     bigint      NOT NULL CONSTRAINT audit_seq_positive CHECK (seq > 0),
    at      timestamptz NOT NULL,
    actor   text        NOT NULL,
    action  text        NOT NULL,
    object  text        NOT NULL,
    details text        NOT NULL,
    hash    bytea       NOT NULL,
    PRIMARY KEY (site_id, seq)
);
CREATE INDEX audit_object ON audit (site_id, object, seq);
CREATE INDEX audit_actor ON audit (site_id, actor, seq);
CREATE TRIGGER audit_written_once BEFORE UPDATE OR DELETE ON audit
    FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- +goose Down
DROP TABLE audit, audit_heads, cases, derived_files, results, scan_events, idempotency_keys, links, scans, keys, sites, deployment;
DROP FUNCTION refuse_change();
