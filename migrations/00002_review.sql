-- +goose Up

-- People who sign in through an identity provider are keys without a secret:
-- an administrator sees and revokes them like any other, and the audit trail
-- needs no second kind of actor. person is a keyed hash of issuer and subject.
ALTER TABLE keys ADD COLUMN person bytea CONSTRAINT keys_person_length CHECK (octet_length(person) = 32);
CREATE UNIQUE INDEX keys_person ON keys (site_id, person) WHERE person IS NOT NULL;

-- A browser that signed in. The token itself is only in its cookie.
CREATE TABLE sessions (
    site_id      uuid        NOT NULL,
    token_sha256 bytea       NOT NULL CONSTRAINT sessions_token_unique UNIQUE
                             CONSTRAINT sessions_token_is_sha256 CHECK (octet_length(token_sha256) = 32),
    key_id       uuid        NOT NULL,
    created_at   timestamptz NOT NULL,
    used_at      timestamptz NOT NULL, -- by the person, not by the page itself
    PRIMARY KEY (site_id, token_sha256),
    FOREIGN KEY (site_id, key_id) REFERENCES keys (site_id, id)
);
CREATE INDEX sessions_used ON sessions (used_at);

-- Decisions on one run of a scan, in order. The comment is free text and may
-- name a patient: it is sealed like a posted identifier.
CREATE TABLE reviews (
    site_id        uuid        NOT NULL,
    scan_id        uuid        NOT NULL,
    seq            int         NOT NULL CONSTRAINT reviews_seq_positive CHECK (seq > 0),
    run            int         NOT NULL,
    result_version int         NOT NULL, -- 0 for a scan that was refused or failed
    key_id         uuid        NOT NULL,
    decision       text        NOT NULL CONSTRAINT reviews_decision_known CHECK (decision IN ('accept', 'amend', 'reject')),
    sealed         bytea       NOT NULL,
    excluded       jsonb       NOT NULL DEFAULT '[]' CONSTRAINT reviews_excluded_array CHECK (jsonb_typeof(excluded) = 'array'),
    at             timestamptz NOT NULL,
    PRIMARY KEY (site_id, scan_id, seq),
    FOREIGN KEY (site_id, scan_id) REFERENCES scans (site_id, id),
    FOREIGN KEY (site_id, key_id) REFERENCES keys (site_id, id)
);
CREATE TRIGGER reviews_written_once BEFORE UPDATE OR DELETE ON reviews
    FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- Who has a case open, so that two people don't decide it unknowingly.
CREATE TABLE holds (
    site_id uuid        NOT NULL,
    scan_id uuid        NOT NULL,
    key_id  uuid        NOT NULL,
    since   timestamptz NOT NULL,
    until   timestamptz NOT NULL,
    PRIMARY KEY (site_id, scan_id),
    FOREIGN KEY (site_id, scan_id) REFERENCES scans (site_id, id),
    FOREIGN KEY (site_id, key_id) REFERENCES keys (site_id, id)
);

-- decision is that on the current run; a new run opens the case again.
-- changed_at is when anything that the worklist shows of it last changed.
ALTER TABLE cases
    ADD COLUMN why        text        NOT NULL DEFAULT '',
    ADD COLUMN quality    text        CONSTRAINT cases_quality_known CHECK (quality IN ('pass', 'review', 'refuse')),
    ADD COLUMN decision   text        CONSTRAINT cases_decision_known CHECK (decision IN ('accept', 'amend', 'reject')),
    ADD COLUMN changed_at timestamptz NOT NULL DEFAULT now();
CREATE INDEX cases_open ON cases (site_id, condition, severity, received_at, scan_id) WHERE decision IS NULL;
CREATE INDEX cases_decided ON cases (site_id, condition, severity, received_at, scan_id) WHERE decision IS NOT NULL;
CREATE INDEX cases_changed ON cases (site_id, changed_at) WHERE condition = '';

-- +goose Down
ALTER TABLE cases DROP COLUMN why, DROP COLUMN quality, DROP COLUMN decision, DROP COLUMN changed_at;
DROP TABLE holds, reviews, sessions;
DROP INDEX keys_person;
ALTER TABLE keys DROP COLUMN person;
