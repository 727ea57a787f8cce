-- What is captured of a record, by its key alone and byte by byte: the model's name in front of it told nothing, and was compared at each step, by the rules of the database's language.
DROP INDEX replication.log_by_record;
CREATE INDEX log_by_record ON replication.log (key text_pattern_ops);
