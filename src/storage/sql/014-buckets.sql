-- The records of a bucket, in an index that begins with the bucket. One that begins with the model passes for a way to a record by its key, as good as the primary key, with whoever plans a statement
-- while the table is empty: then each look-up reads all of it.
DROP INDEX replication.record_by_bucket;
CREATE INDEX record_by_bucket ON replication.record (bucket, model);
