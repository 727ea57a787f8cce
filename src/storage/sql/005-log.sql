-- The conflict log at scale: how many entries there are of each status is kept beside them, in the transaction that changes them, whoever does it. The state lock is held
-- there, so that nothing waits for these rows.
CREATE TABLE replication.conflict_count (
  status  text PRIMARY KEY,
  entries bigint NOT NULL
) WITH (fillfactor = 10);
INSERT INTO replication.conflict_count (status, entries)
SELECT s.status, (SELECT count(*) FROM replication.conflict c WHERE c.status = s.status) FROM (VALUES ('PENDING'), ('RESOLVED')) AS s (status);

CREATE FUNCTION replication.count_conflicts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP <> 'INSERT' THEN
    UPDATE replication.conflict_count c SET entries = c.entries - o.entries FROM (SELECT status, count(*) AS entries FROM old_rows GROUP BY status) AS o WHERE c.status = o.status;
  END IF;
  IF TG_OP <> 'DELETE' THEN
    UPDATE replication.conflict_count c SET entries = c.entries + n.entries FROM (SELECT status, count(*) AS entries FROM new_rows GROUP BY status) AS n WHERE c.status = n.status;
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER count_inserted AFTER INSERT ON replication.conflict REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION replication.count_conflicts();
CREATE TRIGGER count_updated AFTER UPDATE ON replication.conflict REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION replication.count_conflicts();
CREATE TRIGGER count_deleted AFTER DELETE ON replication.conflict REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION replication.count_conflicts();

-- A page of one record's conflicts, and one of a model's or a kind's: newest first within each kind and status, of which there are few.
CREATE INDEX conflict_by_key ON replication.conflict (key, id);
CREATE INDEX conflict_by_kind ON replication.conflict (model, kind, status, id);

-- The records of a bucket, for comparing two replicas: only differing buckets are read.
CREATE INDEX record_by_bucket ON replication.record (model, bucket);
