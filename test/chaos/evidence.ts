/** What the databases say: read by SQL, beside the product. */
import type pg from 'pg';

import type { Capture, LogEntry, RecordState } from './checker.ts';
import { tokensOf, type Values } from './values.ts';

/**
 * Has each local write noted beside by a trigger of ours, in its own transaction: the note is there exactly if the write was committed, and tells what it overwrote, also where its client
 * was cut off or wrote blindly. Nothing of the product reads it.
 */
export const NOTES_SQL = `
  CREATE SCHEMA IF NOT EXISTS chaos;
  CREATE TABLE IF NOT EXISTS chaos.capture (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, key text NOT NULL, before json, after json);
  CREATE OR REPLACE FUNCTION chaos.note() RETURNS trigger LANGUAGE plpgsql AS $note$
  DECLARE
    before json;
    after json;
  BEGIN
    IF current_setting('replication.applying', true) = 'on' THEN RETURN NULL; END IF;
    IF TG_OP <> 'INSERT' THEN before := json_build_object('nom', OLD.nom, 'telephone', OLD.telephone); END IF;
    IF TG_OP <> 'DELETE' THEN after := json_build_object('nom', NEW.nom, 'telephone', NEW.telephone); END IF;
    INSERT INTO chaos.capture (key, before, after) VALUES (coalesce(NEW.id, OLD.id)::text, before, after);
    RETURN NULL;
  END $note$;
  CREATE OR REPLACE TRIGGER chaos_note AFTER INSERT OR UPDATE OR DELETE ON users FOR EACH ROW EXECUTE FUNCTION chaos.note();`;

export interface Note extends Capture {
  readonly id: number;
}

/** Notes after `id`. Complete only while nobody writes: a transaction that commits late has an early id. */
export async function readNotes(client: pg.Client, replica: string, id: number): Promise<Note[]> {
  const { rows } = await client.query<{ id: string; key: string; before: Values | null; after: Values | null }>('SELECT id, key, before, after FROM chaos.capture WHERE id > $1 ORDER BY id', [id]);
  return rows.map((row) => ({ replica, id: Number(row.id), key: row.key, before: row.before, after: row.after }));
}

interface StoredVersion {
  readonly v: Readonly<Record<string, number>>;
  /** Missing where the row holds the values; null for a deletion. */
  readonly f?: Values | null;
}

export async function readStates(client: pg.Client): Promise<RecordState[]> {
  const { rows } = await client.query<{ key: string; versions: StoredVersion[]; waiting: string | null; row: Values | null }>(
    `SELECT r.key, r.versions, r.waiting, CASE WHEN u.id IS NOT NULL THEN json_build_object('nom', u.nom, 'telephone', u.telephone) END AS row
       FROM replication.record r LEFT JOIN users u ON u.id = r.key::integer WHERE r.model = 'User' ORDER BY r.key`,
  );
  return rows.map(({ key, versions, waiting, row }) => ({
    key,
    version: versions.map(({ v }) => Object.keys(v).toSorted().map((name) => `${name}:${v[name]}`).join(' ')).toSorted().join(' | '),
    sides: versions.map(({ f }) => (f === undefined ? row : carrying(f))),
    row,
    waiting: waiting !== null,
  }));
}

/** The tokens in the sides of these states. */
export function tokensIn(states: readonly RecordState[]): Set<string> {
  return new Set(states.flatMap(({ sides }) => sides.flatMap((values) => (values === null ? [] : tokensOf(values)))));
}

export async function readLog(client: pg.Client): Promise<LogEntry[]> {
  const { rows } = await client.query<{ id: string; key: string; kind: string; status: string; sides: StoredVersion[]; resolved_values: Values | null }>(
    `SELECT id, key, kind, status, sides, resolved_values FROM replication.conflict WHERE model = 'User' ORDER BY id`,
  );
  return rows.map(({ id, key, kind, status, sides, resolved_values: resolved }) => ({
    id: Number(id),
    key,
    kind,
    pending: status === 'PENDING',
    sides: sides.map(({ f }) => carrying(f ?? null)),
    resolved: carrying(resolved),
  }));
}

/** The fields that carry tokens. */
function carrying(fields: Values | null): Values | null {
  return fields && { nom: fields.nom, telephone: fields.telephone };
}
