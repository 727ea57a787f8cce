-- Each index of claims answers one question alone: who claims a value, what a record claims, and whether a claim is there. Of an index over several columns the planner takes a part for the whole while
-- there are no claims, and finds it as good as the one that is meant; planned so, each look-up reads all claims of the model.
ALTER TABLE replication.claim DROP CONSTRAINT claim_pkey;
DROP INDEX replication.claim_by_record;
CREATE UNIQUE INDEX claim_once ON replication.claim ((ARRAY[model, name, value, key]));
CREATE INDEX claim_by_value ON replication.claim (value);
CREATE INDEX claim_by_record ON replication.claim (key);
