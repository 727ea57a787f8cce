-- What is pending, in order of id. An index of all entries by status was one more to write for each that is opened or closed, and nothing else asked it.
DROP INDEX replication.conflict_by_status;
CREATE INDEX conflict_pending_by_id ON replication.conflict (id) WHERE status = 'PENDING';

-- A bucket's digest is written again by each batch that has a record of it: with room beside it that is no new entry in the index.
ALTER TABLE replication.digest SET (fillfactor = 25);
CLUSTER replication.digest USING digest_pkey;
