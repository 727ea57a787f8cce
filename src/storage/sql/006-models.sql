-- A model's fields while its schema changes: which of them this database has a column for, and since when.

-- How often the fields of a model have changed here.
CREATE TABLE replication.generation (
  model      text PRIMARY KEY,
  generation integer NOT NULL
);

-- The fields that have a column here. A version stored as its row is stored with the generation whose fields it has (`g`, 1 where it is left out); what else it has lies beside it (`x`).
CREATE TABLE replication.field (
  model       text NOT NULL,
  name        text NOT NULL,
  since       integer NOT NULL,          -- the generation that brought it
  description json NOT NULL,             -- {type, nullable, list, column}
  PRIMARY KEY (model, name)
);

-- Models that were captured before this file was run; their fields are named in what their triggers were made from.
INSERT INTO replication.generation SELECT name, 1 FROM replication.model;
INSERT INTO replication.field
SELECT DISTINCT m.name, f[1], 1, json_build_object('type', 'String', 'nullable', true, 'list', false, 'column', f[1])::jsonb
  FROM replication.model m CROSS JOIN regexp_matches(m.definition, 'THEN ''([^'']+)'' END', 'g') AS f;

-- Some version has fields that no column here can show.
ALTER TABLE replication.record ADD COLUMN carries boolean NOT NULL DEFAULT false;
CREATE INDEX record_carrying ON replication.record (model, key) WHERE carries;
