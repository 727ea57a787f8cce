/**
 * Taking everything anew: a replica whose database was restored to before what others have forgotten keeps what was written since, and sets the rest aside until a peer's feed confirms it.
 *
 * The rows stay as they are meanwhile, so that nobody finds an empty table; their records wait. Once this replica has heard of every member of the roster anew, what no peer has confirmed leaves the table, and is kept aside for people.
 */
import { largestStamp } from '../replication/clock.ts';
import { begunSince } from '../replication/knowledge.ts';
import { merge, type State } from '../replication/merge.ts';
import { partState } from '../replication/reseed.ts';
import type { ReplicaId } from '../replication/version.ts';
import { texts } from './arrays.ts';
import { heldVersion, writeChanges } from './changes.ts';
import { addToDigests, bucketOf, hashOf } from './digest.ts';
import type { ConflictChanges } from './conflicts.ts';
import type { Transaction } from './database.ts';
import { BATCH_RECORDS, foldSome } from './fold.ts';
import { beginTerm, fallenBehind, readTerms, refreshKnowledge } from './knowledge.ts';
import { decodeState, encodeState, readLocked, readRecords, settle, viewOf, type SettledRecord } from './records.ts';
import { beginChange, erasOf, type Replica } from './replica.ts';
import { fitting, type RecordName } from './sizes.ts';

/** Why a record waits that no peer has sent yet. */
export const UNCONFIRMED = 'it was here before this database was restored to before what others have forgotten since, and no peer has sent it yet. What none of them has is set aside (replica { setAside }).';

/**
 * Sets aside what may be dead: what was there before a restore to before what others have forgotten, or what came from who was restored so. Nothing where neither is.
 *
 * @returns How many records are set aside; null where nothing was to be done.
 */
export async function reseed(replica: Replica): Promise<number | null> {
  return replica.db.transaction(async (tx) => {
    const { clock } = await beginChange(tx);
    const behind = await fallenBehind(tx, replica);
    if (behind === null) return null;
    const { lost, place } = behind;
    // What was captured before the backup and not folded is of the lost history, too.
    while ((await foldSome(tx, replica)).more);
    const [terms, eras] = [await readTerms(tx), await erasOf(tx)];
    // What this replica wrote itself, and nobody brings back to it, is not dead: it would know.
    const own = lost ? begunSince(lost, terms, eras) : [...terms, ...eras].map(({ incarnation }) => incarnation);
    const since = new Set([...own].map((incarnation): ReplicaId => `${replica.name}.${incarnation}`));
    let [aside, largest] = [0, 0];
    for (const table of replica.tables.values()) {
      for (let after = ''; ; ) {
        const rows = await tx.query('SELECT key FROM replication.record WHERE model = $1 AND key > $2 AND position > $4 ORDER BY key LIMIT $3', [table.name, after, BATCH_RECORDS, place]);
        const names = await fitting(tx, replica, rows.map(([key]): RecordName => [table.name, key as string]));
        const last = names.at(-1);
        if (last === undefined) break;
        [, after] = last;
        const records = (await readRecords(tx, table, names.map(([, key]) => key))).map((record) => settle(record, replica));
        const parted = records.map((before) => ({ before, ...partState(before.settled, since) })).filter(({ unconfirmed }) => unconfirmed.length > 0);
        for (const { before } of parted) largest = Math.max(largest, largestStamp(before.settled));
        aside += await setAside(tx, clock, parted);
        await keepOwn(tx, replica, parted);
      }
    }
    await tx.query('UPDATE replication.peer SET taken_incarnation = NULL, taken_position = NULL, taken_by = NULL');
    // Whoever reads this table waits from here on.
    const [incarnation] = await tx.query('SELECT replication.begin_incarnation()');
    await beginTerm(tx, replica, { incarnation: incarnation?.[0] as string, behind, clock, largest });
    return aside;
  });
}

/**
 * Shows no more what no peer has confirmed, where feeds were taken whole since from which this replica has heard of every member of the roster anew: a newcomer that has nothing itself, or another that
 * begins anew, has not heard of all.
 */
export async function endReseed(replica: Replica, onConflicts: (changes: ConflictChanges) => void): Promise<void> {
  for (let more = true; more; ) {
    const { conflicts, found } = await replica.db.transaction(async (tx) => {
      const now = await beginChange(tx);
      const { roster, rows } = await refreshKnowledge(tx, replica);
      if (!roster.every((member) => rows.has(member))) return { found: 0, conflicts: null };
      const waiting = await tx.query('SELECT model, key FROM replication.record WHERE waiting = $1 AND model = ANY ($2) LIMIT $3', [UNCONFIRMED, [...replica.tables.keys()], BATCH_RECORDS]);
      const some = await fitting(tx, replica, waiting.map(([model, key]): RecordName => [model as string, key as string]));
      const records: SettledRecord[] = [];
      for (const table of replica.tables.values()) records.push(...(await readLocked(tx, replica, table, some.flatMap(([model, key]) => (model === table.name ? [key] : [])))));
      const written = await writeChanges(tx, replica, now, records.map((before) => ({ before, state: before.settled, origin: null, view: viewOf(replica, before, before.settled) })));
      if (some.length === 0) {
        await tx.query(`DELETE FROM replication.record WHERE versions::text = '[]' AND waiting IS NULL`);
        await tx.query('UPDATE replication.collection SET reseeding = false');
      }
      return { found: some.length, conflicts: written.conflicts };
    });
    if (conflicts) onConflicts(conflicts);
    more = found > 0;
  }
}

/** What is set aside of these records, by `model key`. */
export async function readUnconfirmed(tx: Transaction, records: readonly RecordName[]): Promise<Map<string, State>> {
  const rows = await tx.query(
    `SELECT x.model, x.key, a.versions FROM unnest($1::text[], $2::text[]) AS x (model, key)
      CROSS JOIN LATERAL (SELECT versions FROM replication.aside a WHERE a.model = x.model AND a.key = x.key OFFSET 0) a`,
    [texts(records.map(([model]) => model)), texts(records.map(([, key]) => key))],
  );
  return new Map(rows.map(([model, key, versions]) => [`${model} ${key}`, decodeState(versions as string, null)]));
}

/** A record that a peer has spoken of, and what of it is still not confirmed. */
export interface Confirmed {
  readonly model: string;
  readonly key: string;
  readonly left: State;
}

/** Takes off the list what a peer has confirmed. */
export async function confirm(tx: Transaction, records: readonly Confirmed[]): Promise<void> {
  if (records.length === 0) return;
  await tx.query(
    `WITH x AS MATERIALIZED (
       SELECT x.versions, a.place FROM json_to_recordset($1) AS x (model text, key text, versions text)
        CROSS JOIN LATERAL (SELECT ctid AS place FROM replication.aside WHERE model = x.model AND key = x.key OFFSET 0) a
     ), gone AS (DELETE FROM replication.aside WHERE ctid = ANY (ARRAY(SELECT place FROM x WHERE versions IS NULL)))
     UPDATE replication.aside a SET versions = x.versions::json FROM x WHERE a.ctid = x.place AND x.versions IS NOT NULL`,
    [JSON.stringify(records.map(({ model, key, left }) => ({ model, key, versions: left.length === 0 ? null : encodeState(left, null) })))],
  );
}

interface PartedRecord {
  readonly before: SettledRecord;
  readonly kept: State;
  readonly unconfirmed: State;
}

/** Adds to what is set aside; how many records. */
async function setAside(tx: Transaction, clock: number, parted: readonly PartedRecord[]): Promise<number> {
  if (parted.length === 0) return 0;
  // Of a restore before this one.
  const earlier = await readUnconfirmed(tx, parted.map(({ before }) => [before.table.name, before.key]));
  const rows = parted.map(({ before: { table, key }, unconfirmed }) => ({
    model: table.name,
    key,
    versions: encodeState(merge(earlier.get(`${table.name} ${key}`) ?? [], unconfirmed), null),
  }));
  await tx.query(
    `INSERT INTO replication.aside (model, key, versions, since) SELECT model, key, versions::json, $2::bigint FROM json_to_recordset($1) AS x (model text, key text, versions text)
     ON CONFLICT (model, key) DO UPDATE SET versions = excluded.versions, since = excluded.since`,
    [JSON.stringify(rows), clock],
  );
  return rows.length;
}

/** Gives records the states that are left of them. Their rows stay, and are what they were; they wait for a peer. So do those that have no row: whoever writes one has seen the deletion. */
async function keepOwn(tx: Transaction, replica: Replica, parted: readonly PartedRecord[]): Promise<void> {
  if (parted.length === 0) return;
  const rows = parted.map(({ before, kept }) => ({
    model: before.table.name,
    key: before.key,
    versions: encodeState(kept, null),
    held: heldVersion(replica, before),
    hash: hashOf(before.key, kept),
    dead: kept.some(({ fields }) => fields === null),
    bucket: bucketOf(before.key),
    old: before.hash,
  }));
  await tx.query(
    `UPDATE replication.record r
        SET versions = x.versions::json, position = nextval('replication.position'), origin = NULL, shown = NULL, waiting = $2, held = x.held::json,
            awaits = NULL, tried = NULL, hash = x.hash, dead = x.dead
       FROM json_to_recordset($1) AS x (model text, key text, versions text, held text, hash bigint, dead boolean) WHERE r.model = x.model AND r.key = x.key`,
    [JSON.stringify(rows), UNCONFIRMED],
  );
  const places = parted.flatMap(({ before }) => before.places);
  if (places.length > 0) await tx.query('DELETE FROM replication.log WHERE ctid = ANY ($1::text[]::tid[])', [texts(places)]);
  addToDigests(tx, rows);
  // What they were in conflict over is opened again as it comes back.
  await tx.query(
    `DELETE FROM replication.conflict WHERE id = ANY (ARRAY(
       SELECT c.id FROM json_to_recordset($1) AS x (model text, key text)
        CROSS JOIN LATERAL (SELECT id FROM replication.conflict c WHERE c.model = x.model AND c.key = x.key AND c.status = 'PENDING' OFFSET 0) c))`,
    [JSON.stringify(rows.map(({ model, key }) => ({ model, key })))],
  );
}
