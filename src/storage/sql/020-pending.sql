-- What is pending, in order of id, for those alone who ask for that order: they say "not resolved" where all others say "pending". Over the same condition as the index by record it passed for a way to
-- a record's entry, as good as that one, with whoever planned while nothing was pending; then each look-up read all that was.
DROP INDEX replication.conflict_pending_by_id;
CREATE INDEX conflict_pending_by_id ON replication.conflict (id) WHERE resolved_at IS NULL;
