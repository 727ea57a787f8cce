-- What a replica's records go back to, and which histories others relied on. See docs/architecture.md, "Restored across a collection".

-- The incarnations of the member up to this one: [[incarnation, first tick], …]. Of one history only the latest floor is kept; of a lost one and what came in its place, both.
ALTER TABLE replication.floor ADD COLUMN line json NOT NULL DEFAULT '[]';
ALTER TABLE replication.floor DROP CONSTRAINT floor_pkey;
ALTER TABLE replication.floor ADD PRIMARY KEY (member, incarnation);

-- By member: [{incarnation, tick, line, met, at}, …], see src/replication/roots.ts.
CREATE TABLE replication.root (
  member uuid PRIMARY KEY,
  roots  json NOT NULL
);

-- The place in the feed behind which records may be dead, and how often roots have changed.
ALTER TABLE replication.collection ADD COLUMN doubt bigint;
ALTER TABLE replication.collection ADD COLUMN root_changes bigint NOT NULL DEFAULT 0;
