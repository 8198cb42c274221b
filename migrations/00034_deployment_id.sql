-- +goose Up

-- The folder of blobs names its deployment too: to the sweep of any other
-- database, all of its files would be nobody's.
ALTER TABLE deployment ADD COLUMN id uuid NOT NULL DEFAULT gen_random_uuid();

-- +goose Down
ALTER TABLE deployment DROP COLUMN id;
