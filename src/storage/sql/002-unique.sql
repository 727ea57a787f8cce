-- Unique values that several records claim.

-- Which field of the row gives way to another record's, by constraint: {constraint: field}. The record's versions are then stored whole.
ALTER TABLE replication.record ADD COLUMN masked json;

-- The claims of records whose rows do not tell them: of several sides, masked, or waiting. Empty in normal times. `value` is a hash.
CREATE TABLE replication.claim (
  model text NOT NULL,
  name  text NOT NULL,                   -- the constraint
  value text NOT NULL,
  key   text NOT NULL,
  PRIMARY KEY (model, name, value, key)
);
CREATE INDEX claim_by_record ON replication.claim (model, key);

-- Collisions that a batch left while more batches follow it: told only if they still stand behind the last.
CREATE TABLE replication.deferral (
  model  text NOT NULL,
  key    text NOT NULL,
  sender text NOT NULL,
  since  bigint NOT NULL,                -- microseconds since 1970
  PRIMARY KEY (model, key)
);

-- A conflict over a unique value names its constraint, and the record that holds the value: {k: key, v, s, f, r}.
ALTER TABLE replication.conflict ADD COLUMN name text NOT NULL DEFAULT '';
ALTER TABLE replication.conflict ADD COLUMN holder json;
DROP INDEX replication.conflict_pending;
CREATE UNIQUE INDEX conflict_pending ON replication.conflict (model, key, name) WHERE status = 'PENDING';
