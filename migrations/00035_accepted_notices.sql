-- +goose Up

-- Webhooks may be told of accepted results.
ALTER TABLE webhooks DROP CONSTRAINT webhooks_events_known;
ALTER TABLE webhooks ADD CONSTRAINT webhooks_events_known CHECK (
    cardinality(events) > 0
    AND events <@ ARRAY['scan.scored', 'scan.refused', 'scan.failed', 'scan.cancelled', 'result.accepted', 'result.withdrawn']);

-- +goose Down
UPDATE webhooks SET events = array_remove(events, 'result.accepted');
DELETE FROM webhooks WHERE events = '{}';
ALTER TABLE webhooks DROP CONSTRAINT webhooks_events_known;
ALTER TABLE webhooks ADD CONSTRAINT webhooks_events_known CHECK (
    cardinality(events) > 0
    AND events <@ ARRAY['scan.scored', 'scan.refused', 'scan.failed', 'scan.cancelled', 'result.withdrawn']);
