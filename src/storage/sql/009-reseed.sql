-- A replica that was restored to before what others have forgotten takes everything anew. See docs/architecture.md, "Restored across a collection".

-- The latest moment of its lost history after which it has (see replication.floor), and whether it has not heard of every member of the roster since.
ALTER TABLE replication.collection ADD COLUMN answered_began bigint NOT NULL DEFAULT 0;
ALTER TABLE replication.collection ADD COLUMN answered_tick bigint NOT NULL DEFAULT 0;
ALTER TABLE replication.collection ADD COLUMN reseeding boolean NOT NULL DEFAULT false;

-- What it held before and no peer has confirmed: versions, each whole, in the form of replication.record.versions.
CREATE TABLE replication.aside (
  model    text NOT NULL,
  key      text NOT NULL,
  versions json NOT NULL,
  since    bigint NOT NULL,              -- microseconds since 1970
  PRIMARY KEY (model, key)
);

-- The same as before, and whether anything is set aside.
DROP FUNCTION replication.begin_change();
CREATE FUNCTION replication.begin_change(OUT incarnation text, OUT clock bigint, OUT aside boolean) LANGUAGE plpgsql AS $$
DECLARE
  last bigint;
BEGIN
  PERFORM pg_advisory_xact_lock(x'7265706c69717565'::bigint);
  PERFORM set_config('replication.applying', 'on', true);
  incarnation := replication.incarnation();
  clock := replication.clock();
  aside := EXISTS (SELECT FROM replication.aside);
  IF NOT EXISTS (SELECT FROM replication.era AS e WHERE e.incarnation = begin_change.incarnation) THEN
    SELECT CASE WHEN p.is_called THEN p.last_value ELSE p.last_value - 1 END INTO last FROM replication.position AS p;
    INSERT INTO replication.era (incarnation, first) VALUES (begin_change.incarnation, last + 1);
  END IF;
END $$;

-- Begins another incarnation: it is derived from the place of this table's file.
CREATE FUNCTION replication.begin_incarnation() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  own replication.replica;
BEGIN
  SELECT * INTO STRICT own FROM replication.replica;
  TRUNCATE replication.replica;
  INSERT INTO replication.replica SELECT own.*;
  RETURN replication.incarnation();
END $$;

-- The peer's clock less this one's in seconds, as last measured.
ALTER TABLE replication.peer ADD COLUMN clock_skew double precision;
