-- Captured writes as they come, so that whoever writes pays for making nothing of them: the time as it is, the incarnation as a number, and of an update a mark for each field.

-- Fields in the order in which lines of the log mark them. A line names its list, so that lines written before a change of the fields are read as they were meant.
CREATE TABLE replication.field_list (
  id    integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  names text[] NOT NULL
);

CREATE FUNCTION replication.list_of(names text[]) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
  found integer;
BEGIN
  SELECT l.id INTO found FROM replication.field_list AS l WHERE l.names = list_of.names ORDER BY l.id LIMIT 1;
  IF found IS NULL THEN INSERT INTO replication.field_list (names) VALUES (list_of.names) RETURNING id INTO found; END IF;
  RETURN found;
END $$;

-- The incarnation under which writes are made now (see 001), as triggers log it, and the name that such a number stands for.
CREATE FUNCTION replication.incarnation_number() RETURNS bigint STABLE LANGUAGE sql AS $$
  SELECT hashtextextended(pg_relation_filepath('replication.replica'), (date_part('epoch', pg_postmaster_start_time()) * 1000000)::bigint)
$$;
CREATE FUNCTION replication.incarnation_name(number bigint) RETURNS text IMMUTABLE LANGUAGE sql AS $$
  SELECT to_hex(number & x'ffffffffffff'::bigint)
$$;
CREATE OR REPLACE FUNCTION replication.incarnation() RETURNS text STABLE LANGUAGE sql AS $$
  SELECT replication.incarnation_name(replication.incarnation_number())
$$;

-- Nobody folds and nobody writes while the log changes its form: a writer that waited for the log itself would meet it without the columns that its trigger knows.
DO $$
DECLARE
  captured regclass;
BEGIN
  PERFORM pg_advisory_xact_lock(x'7265706c69717565'::bigint);
  FOR captured IN SELECT t.tgrelid FROM pg_trigger t JOIN replication.model m ON t.tgname = 'capture_insert_' || m.name ORDER BY 1 LOOP
    EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', captured);
  END LOOP;
END $$;

ALTER TABLE replication.log RENAME TO log_before;
ALTER INDEX replication.log_by_record RENAME TO log_before_by_record;

-- What `replication.log` was, and is read as. No more columns than eight: a line with a null among nine takes eight bytes more.
CREATE TABLE replication.captured (
  seq         bigint GENERATED ALWAYS AS IDENTITY,
  at          timestamptz NOT NULL,
  incarnation bigint NOT NULL,
  list        integer,                   -- of an update, as the marks of the fields it changed
  op          "char" NOT NULL,           -- I, U, D
  model       text NOT NULL,
  key         text NOT NULL,
  changed     boolean[]
);
CREATE INDEX log_by_record ON replication.captured (key text_pattern_ops);

-- Whoever reads few lines reads them here, and takes them out here.
CREATE VIEW replication.log AS
SELECT c.ctid, c.seq, c.model, c.key, c.op, (date_part('epoch', c.at) * 1000000)::bigint AS clock,
       (SELECT array_agg(n.name ORDER BY n.place) FROM replication.field_list AS l, unnest(l.names, c.changed) WITH ORDINALITY AS n (name, changed, place) WHERE l.id = c.list AND n.changed) AS fields,
       replication.incarnation_name(c.incarnation) AS incarnation
  FROM replication.captured AS c;

-- A process of an earlier version, and its triggers, go on logging while a database is upgraded under several.
CREATE FUNCTION replication.log_line() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO replication.captured (at, incarnation, list, op, model, key, changed)
  VALUES ('epoch'::timestamptz + new.clock * interval '1 microsecond', ('x' || lpad(new.incarnation, 16, '0'))::bit(64)::bigint,
          CASE WHEN new.fields IS NOT NULL THEN replication.list_of(new.fields) END, new.op, new.model, new.key, CASE WHEN new.fields IS NOT NULL THEN array_fill(true, ARRAY[cardinality(new.fields)]) END);
  RETURN new;
END $$;
CREATE TRIGGER log_line INSTEAD OF INSERT ON replication.log FOR EACH ROW EXECUTE FUNCTION replication.log_line();

INSERT INTO replication.log (model, key, op, clock, fields, incarnation) SELECT model, key, op, clock, fields, incarnation FROM replication.log_before ORDER BY seq;
DROP TABLE replication.log_before;
