-- Dropping tombstones: who has what, and what was forgotten. See docs/architecture.md, "When a deletion is forgotten".

-- A member that an operator has struck holds nothing up; its name and slot are free.
ALTER TABLE replication.roster ADD COLUMN struck boolean NOT NULL DEFAULT false;
ALTER TABLE replication.roster DROP CONSTRAINT roster_name_key;
ALTER TABLE replication.roster DROP CONSTRAINT roster_slot_key;
CREATE UNIQUE INDEX roster_by_name ON replication.roster (name) WHERE NOT struck;
CREATE UNIQUE INDEX roster_by_slot ON replication.roster (slot) WHERE NOT struck;

-- True where the state holds a deletion. A record of ghosts alone has no hash: others have forgotten it, or never heard of it.
ALTER TABLE replication.record ADD COLUMN dead boolean NOT NULL DEFAULT false;
ALTER TABLE replication.record ALTER COLUMN hash DROP NOT NULL;
UPDATE replication.record SET dead = true WHERE versions::text LIKE '%"f":null%';
CREATE INDEX record_of_dead ON replication.record (position) WHERE dead;

-- One row. Counters in a table, not sequences: a sequence runs ahead when the server crashes, and these go back with the database.
CREATE TABLE replication.collection (
  one        boolean PRIMARY KEY DEFAULT true CHECK (one),
  -- How often this replica's own row of knowledge has changed.
  tick       bigint NOT NULL DEFAULT 0,
  -- How often records were forgotten.
  generation bigint NOT NULL DEFAULT 0,
  -- The largest stamp among them.
  forgotten  bigint NOT NULL DEFAULT 0
);
INSERT INTO replication.collection DEFAULT VALUES;

-- The clock and the tick at which each incarnation began, as far as others were told.
CREATE TABLE replication.term (
  incarnation text PRIMARY KEY,
  began       bigint NOT NULL,
  first       bigint NOT NULL,
  ordinal     integer GENERATED ALWAYS AS IDENTITY
);

-- What each member of the roster is known to have incorporated: {incarnation, began, tick, knows, roster}.
CREATE TABLE replication.knowledge (
  member uuid PRIMARY KEY,
  word   json NOT NULL
);

-- Rows of knowledge that do not count before the feed of the peer that told them was taken up to here.
CREATE TABLE replication.hearsay (
  peer        text PRIMARY KEY,
  incarnation text NOT NULL,
  position    bigint NOT NULL,
  words       json NOT NULL
);

-- Of each member the latest moment that somebody relied on when tombstones were dropped.
CREATE TABLE replication.floor (
  member      uuid PRIMARY KEY,
  incarnation text NOT NULL,
  began       bigint NOT NULL,
  tick        bigint NOT NULL
);
