-- What a replica knows beside the models' tables, which hold only what is shown.

CREATE SCHEMA replication;

-- Which of these files have been run.
CREATE TABLE replication.installed (
  file text PRIMARY KEY
);

-- Who this replica is: one row.
CREATE TABLE replication.replica (
  one     boolean PRIMARY KEY DEFAULT true CHECK (one),
  id      uuid NOT NULL DEFAULT gen_random_uuid(),
  name    text NOT NULL,
  slot    integer NOT NULL,
  stride  integer NOT NULL,
  -- The policy under which the models' tables show what they show.
  policy  text NOT NULL
);

-- Every replica known, whether a peer or a peer's peer.
CREATE TABLE replication.roster (
  id      uuid PRIMARY KEY,
  name    text NOT NULL UNIQUE,
  slot    integer NOT NULL UNIQUE,
  stride  integer NOT NULL
);

-- The incarnation under which writes are made now. Derived, not stored: it is another after every start of the database server (a restore, a failover)
-- and for every copy of the database, and so for the first write already, whoever makes it.
CREATE FUNCTION replication.incarnation() RETURNS text STABLE LANGUAGE sql AS $$
  SELECT to_hex(hashtextextended(
    extract(epoch FROM pg_postmaster_start_time())::text || pg_relation_filepath('replication.replica'), 0
  ) & x'ffffffffffff'::bigint)
$$;

CREATE FUNCTION replication.clock() RETURNS bigint VOLATILE LANGUAGE sql AS $$
  SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
$$;

-- Places in the feed. Given out under the state lock alone, so that they become visible in the order they were given.
CREATE SEQUENCE replication.position;

-- Where each incarnation began in the feed.
CREATE TABLE replication.era (
  incarnation text PRIMARY KEY,
  first       bigint NOT NULL,
  ordinal     integer GENERATED ALWAYS AS IDENTITY
);

-- Captured writes that are not in their record's state yet: a queue that the fold empties. A reader folds what is here over the state it reads.
-- seq orders the writes of one record (they are made under its row's lock); across records it says nothing.
CREATE TABLE replication.log (
  seq         bigint GENERATED ALWAYS AS IDENTITY,
  model       text NOT NULL,
  key         text NOT NULL,
  op          "char" NOT NULL,           -- I, U, D
  clock       bigint NOT NULL,           -- microseconds since 1970
  fields      text[],                    -- the fields an update changed
  incarnation text NOT NULL
);
CREATE INDEX log_by_record ON replication.log (model, key);

-- The state of each record: its antichain of versions.
CREATE TABLE replication.record (
  model    text NOT NULL,
  key      text NOT NULL,
  position bigint NOT NULL,
  -- The peer, in its incarnation, that last sent or reported exactly this state.
  origin   text,
  -- [{v: vector, s: stamps, f: fields, r: resolution}]; a single version without f has the values of the model's row.
  versions json NOT NULL,
  -- The vector of the version shown, where there is a choice.
  shown    json,
  -- Why the state cannot be shown in the model's table, and the version that the row still holds (null: there is no row).
  waiting  text,
  held     json,
  hash     bigint NOT NULL,
  bucket   smallint NOT NULL,
  changed_at bigint NOT NULL,            -- microseconds since 1970
  PRIMARY KEY (model, key)
);
CREATE UNIQUE INDEX record_by_position ON replication.record (position);
CREATE INDEX record_waiting ON replication.record (model, key) WHERE waiting IS NOT NULL;
CREATE INDEX record_of_many ON replication.record (model, key) WHERE shown IS NOT NULL;

-- For each model and bucket of keys: how many records, and the exclusive or of their states' hashes.
CREATE TABLE replication.digest (
  model   text NOT NULL,
  bucket  smallint NOT NULL,
  records bigint NOT NULL,
  hash    bigint NOT NULL,
  PRIMARY KEY (model, bucket)
);

CREATE SEQUENCE replication.resolution;

CREATE TABLE replication.conflict (
  id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  model           text NOT NULL,
  key             text NOT NULL,
  kind            text NOT NULL,
  status          text NOT NULL,
  fields          text[] NOT NULL,
  -- The sides, whole, in the form of replication.record.versions with every f.
  sides           json NOT NULL,
  detected_at     bigint NOT NULL,       -- microseconds since 1970, as resolved_at
  resolved_at     bigint,
  resolution      text,
  resolved_by     text,
  resolved_values json,
  -- The order of resolutions.
  resolved_seq    bigint
);
CREATE UNIQUE INDEX conflict_pending ON replication.conflict (model, key) WHERE status = 'PENDING';
CREATE INDEX conflict_by_status ON replication.conflict (status, id);
CREATE INDEX conflict_resolved ON replication.conflict (resolved_seq) WHERE resolved_seq IS NOT NULL;

-- One row a peer: how far its feed was taken here (taken_*), how far it is known to have taken ours (acked_*); *_by is the taker's incarnation at the time.
CREATE TABLE replication.peer (
  name               text PRIMARY KEY,
  taken_incarnation  text,
  taken_position     bigint,
  taken_by           text,
  acked_incarnation  text,
  acked_position     bigint,
  acked_by           text,
  -- Its incarnation when last heard of.
  incarnation        text,
  -- A resolution was made that could not be carried to it.
  owed               boolean NOT NULL DEFAULT false,
  last_sync_at       bigint
);

-- What the triggers of each replicated model were made from.
CREATE TABLE replication.model (
  name       text PRIMARY KEY,
  definition text NOT NULL
);

-- Opens a transaction that changes states: one at a time, so that places in the feed become visible in order. Writers of the models' tables do not wait for it.
CREATE FUNCTION replication.begin_change(OUT incarnation text, OUT clock bigint) LANGUAGE plpgsql AS $$
DECLARE
  last bigint;
BEGIN
  PERFORM pg_advisory_xact_lock(x'7265706c69717565'::bigint);
  PERFORM set_config('replication.applying', 'on', true);
  incarnation := replication.incarnation();
  clock := replication.clock();
  IF NOT EXISTS (SELECT FROM replication.era AS e WHERE e.incarnation = begin_change.incarnation) THEN
    SELECT CASE WHEN p.is_called THEN p.last_value ELSE p.last_value - 1 END INTO last FROM replication.position AS p;
    INSERT INTO replication.era (incarnation, first) VALUES (begin_change.incarnation, last + 1);
  END IF;
END $$;

CREATE FUNCTION replication.refuse_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'TRUNCATE of replicated table % is refused: it would not be replicated. Use DELETE.', TG_TABLE_NAME
    USING ERRCODE = 'feature_not_supported';
END $$;
