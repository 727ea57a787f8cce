-- A record's claims by its key. An index that begins with the model passes for a way to who else claims a value, as good as the primary key, with whoever planned while there were no claims: then each
-- look-up reads all claims of the model.
DROP INDEX replication.claim_by_record;
CREATE INDEX claim_by_record ON replication.claim (key);
