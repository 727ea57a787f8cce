-- What waits to be shown: for what, in which order it is tried again, and what has come meanwhile.

-- Names the missing parent of a record that waits for it; 'again' where a deletion waits for no more than its next trial.
ALTER TABLE replication.record ADD COLUMN awaits text;
CREATE INDEX record_awaits ON replication.record (awaits) WHERE awaits IS NOT NULL;

-- When it was last tried, as a number that grows: whatever waits longest without a trial is next.
CREATE SEQUENCE replication.trial;
ALTER TABLE replication.record ADD COLUMN tried bigint;
UPDATE replication.record SET tried = 0 WHERE waiting IS NOT NULL;
CREATE INDEX record_by_trial ON replication.record (tried) WHERE tried IS NOT NULL AND awaits IS NULL;
CREATE INDEX record_by_trial_of_children ON replication.record (tried) WHERE tried IS NOT NULL AND awaits IS NOT NULL;

-- Parents that were shown while children of theirs waited, until these are tried again.
CREATE TABLE replication.arrival (
  awaits text PRIMARY KEY
);
