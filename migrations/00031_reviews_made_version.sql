-- +goose Up

-- To leave a structure out of a result makes another version of it: which one.
ALTER TABLE reviews ADD COLUMN made_version int NOT NULL DEFAULT 0 CONSTRAINT reviews_made_later CHECK (made_version = 0 OR made_version > result_version);

-- +goose Down
ALTER TABLE reviews DROP COLUMN made_version;
