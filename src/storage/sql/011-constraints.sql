-- The unique constraints of each model's table, by which what is shown was last judged; null where they were never looked at.
ALTER TABLE replication.generation ADD COLUMN uniques json;
