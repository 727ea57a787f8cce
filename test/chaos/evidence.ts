/** What the databases say: read by SQL, beside the product. */
import type pg from 'pg';

import type { AsideRecord, Capture, Evidence, LogEntry, RecordState } from './facts.ts';
import type { Site } from './site.ts';
import { tokensOf, type Values } from './values.ts';

/**
 * Has each local write noted beside by a trigger of ours, in its own transaction: the note is there exactly if the write was committed, and tells what it overwrote, also where its client
 * was cut off or wrote blindly. Likewise each deletion that is forgotten, and each time that the replica begins anew: what a restore takes back is taken out of the notes with it. Nothing of the product
 * reads them.
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
    IF TG_OP <> 'INSERT' THEN before := json_build_object('nom', OLD.nom, 'telephone', OLD.telephone, 'email', OLD.email); END IF;
    IF TG_OP <> 'DELETE' THEN after := json_build_object('nom', NEW.nom, 'telephone', NEW.telephone, 'email', NEW.email); END IF;
    INSERT INTO chaos.capture (key, before, after) VALUES (coalesce(NEW.id, OLD.id)::text, before, after);
    RETURN NULL;
  END $note$;
  CREATE OR REPLACE TRIGGER chaos_note AFTER INSERT OR UPDATE OR DELETE ON users FOR EACH ROW EXECUTE FUNCTION chaos.note();
  CREATE TABLE IF NOT EXISTS chaos.forgotten (key text PRIMARY KEY);
  CREATE OR REPLACE FUNCTION chaos.note_forgotten() RETURNS trigger LANGUAGE plpgsql AS $note$
  BEGIN
    INSERT INTO chaos.forgotten (key) VALUES (OLD.key) ON CONFLICT DO NOTHING;
    RETURN NULL;
  END $note$;
  CREATE OR REPLACE TRIGGER chaos_forgotten AFTER DELETE ON replication.record FOR EACH ROW WHEN (OLD.versions::text <> '[]') EXECUTE FUNCTION chaos.note_forgotten();
  CREATE TABLE IF NOT EXISTS chaos.reseed (at timestamptz NOT NULL DEFAULT now());
  CREATE OR REPLACE FUNCTION chaos.note_reseed() RETURNS trigger LANGUAGE plpgsql AS $note$
  BEGIN
    INSERT INTO chaos.reseed DEFAULT VALUES;
    RETURN NULL;
  END $note$;
  CREATE OR REPLACE TRIGGER chaos_reseed AFTER UPDATE ON replication.collection FOR EACH ROW WHEN (NEW.reseeding AND NOT OLD.reseeding) EXECUTE FUNCTION chaos.note_reseed();`;

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
  /** Who wrote each field and when; `*` stands for those that are not named. */
  readonly s: Readonly<Record<string, readonly [replica: string, stamp: number]>>;
  /** Missing where the row holds the values; null for a deletion. */
  readonly f?: Values | null;
  /** A ghost: a deletion that everybody has, and that is no side any more. */
  readonly c?: true;
}

/** Records that have anything but ghosts, which each replica forgets when it likes. */
export async function readStates(client: pg.Client): Promise<RecordState[]> {
  const { rows } = await client.query<{ key: string; versions: StoredVersion[]; waiting: string | null; row: Values | null }>(
    `SELECT r.key, r.versions, r.waiting, CASE WHEN u.id IS NOT NULL THEN json_build_object('nom', u.nom, 'telephone', u.telephone, 'email', u.email) END AS row
       FROM replication.record r LEFT JOIN users u ON u.id = r.key::integer WHERE r.model = 'User' ORDER BY r.key`,
  );
  return rows.flatMap(({ key, versions, waiting, row }) => {
    const standing = versions.filter(({ c }) => !c);
    if (standing.length === 0 && waiting === null) return [];
    const sides = standing.map(({ f }) => (f === undefined ? row : carrying(f)));
    return {
      key,
      version: standing.map(({ v }) => Object.keys(v).toSorted().map((name) => `${name}:${v[name]}`).join(' ')).toSorted().join(' | '),
      sides,
      claims: standing.flatMap(({ s }, n) => (sides[n] ? [{ email: sides[n].email, by: s['email'] ?? s['*'] ?? (['', 0] as const) }] : [])),
      row,
      waiting: waiting !== null,
    };
  });
}

/** The tokens in these, each with its record: `7 t1`. */
export function tokensIn(records: readonly { readonly key: string; readonly sides: readonly (Values | null)[] }[]): Set<string> {
  return new Set(records.flatMap(({ key, sides }) => sides.flatMap((values) => (values === null ? [] : tokensOf(values).map((token) => `${key} ${token}`)))));
}

export async function readLog(client: pg.Client): Promise<LogEntry[]> {
  const { rows } = await client.query<{ id: string; key: string; kind: string; status: string; sides: StoredVersion[]; resolved_values: Values | null; holder: { k: string; f: Values | null } | null }>(
    `SELECT id, key, kind, status, sides, resolved_values, holder FROM replication.conflict WHERE model = 'User' ORDER BY id`,
  );
  return rows.map(({ id, key, kind, status, sides, resolved_values: resolved, holder }) => ({
    id: Number(id),
    key,
    kind,
    pending: status === 'PENDING',
    sides: sides.map(({ f }) => carrying(f ?? null)),
    resolved: carrying(resolved),
    holder: holder && { key: holder.k, values: carrying(holder.f) },
  }));
}

/** What is set aside since the replica began anew. */
export async function readAsides(client: pg.Client): Promise<AsideRecord[]> {
  const { rows } = await client.query<{ key: string; versions: StoredVersion[] }>(`SELECT key, versions FROM replication.aside WHERE model = 'User' ORDER BY key`);
  return rows.map(({ key, versions }) => ({ key, sides: versions.map(({ f }) => carrying(f ?? null)) }));
}

/** The records of which this database knows that they were deleted: as a side, as a ghost, captured and not folded yet, or forgotten. */
export async function readDead(client: pg.Client): Promise<Set<string>> {
  const { rows } = await client.query<{ key: string }>(
    `SELECT key FROM replication.record WHERE model = 'User' AND dead UNION SELECT key FROM replication.log WHERE model = 'User' AND op = 'D' UNION SELECT key FROM chaos.forgotten`,
  );
  return new Set(rows.map(({ key }) => key));
}

/** The records whose deletion it has forgotten, and how often it began anew; a restore takes both back. */
async function readCollected(client: pg.Client): Promise<Collected> {
  const { rows } = await client.query<{ forgotten: string[]; reseeds: string }>('SELECT ARRAY(SELECT key FROM chaos.forgotten) AS forgotten, (SELECT count(*) FROM chaos.reseed) AS reseeds');
  return { forgotten: rows[0]?.forgotten ?? [], reseeds: Number(rows[0]?.reseeds) };
}

interface Collected {
  readonly forgotten: readonly string[];
  readonly reseeds: number;
}

/** What every replica has, and what it tells of what is set aside. */
export async function readAll(sites: readonly Site[]): Promise<Pick<Evidence, 'states' | 'logs' | 'asides'> & { readonly collected: ReadonlyMap<string, Collected> }> {
  const all = await Promise.all(
    sites.map(async (site) => {
      const [states, log, records, collected] = await site.session(async (client) => [await readStates(client), await readLog(client), await readAsides(client), await readCollected(client)] as const);
      const { data } = await site.graphql<{ replica: { setAside: { recordId: string }[] } }>('{ replica { setAside(first: 1000) { recordId } } }');
      return { name: site.name, states, log, aside: { records, listed: data?.replica.setAside.map(({ recordId }) => recordId) ?? [] }, collected };
    }),
  );
  return {
    states: new Map(all.map(({ name, states }) => [name, states])),
    logs: new Map(all.map(({ name, log }) => [name, log])),
    asides: new Map(all.map(({ name, aside }) => [name, aside])),
    collected: new Map(all.map(({ name, collected }) => [name, collected])),
  };
}

/** The fields that carry tokens. */
function carrying(fields: Values | null): Values | null {
  return fields && { nom: fields.nom, telephone: fields.telephone, email: fields.email };
}
