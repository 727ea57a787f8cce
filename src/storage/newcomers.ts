/**
 * Records of which nothing is known yet, taken over from a peer or made here: what a replica that is empty, or that catches up, gets most of, and what an import makes.
 *
 * They need nothing of what is asked of others: there is no state to merge with, no row to lock, no conflict. What is not so plain (foreign keys, values that others
 * claim, fields that have no column, a row that its table refuses, or that was written to since) is left to the general way.
 */
import { writeFirst } from '../replication/write.ts';
import type { State } from '../replication/merge.ts';
import type { ReplicaId, Version } from '../replication/version.ts';
import { addToDigests, bucketOf, hashOf } from './digest.ts';
import { sqlState, type Transaction } from './database.ts';
import { encodeAsRow, encodeState, refuseIfWrittenMeanwhile } from './records.ts';
import type { Replica } from './replica.ts';
import { insertRows, RowError } from './rows.ts';
import { matchesKey, type ModelTable } from './tables.ts';

/** Where there are fewer, asking which they are costs more than it saves. */
export const WORTH = 100;

/**
 * Takes over those of the incoming states of which nothing is known here.
 *
 * @param origin - Who sent exactly these states.
 * @param clock - In microseconds.
 * @returns Their keys; all others are left as they were.
 */
export async function takeNewcomers(tx: Transaction, table: ModelTable, incoming: ReadonlyMap<string, State>, origin: ReplicaId, clock: number): Promise<ReadonlySet<string>> {
  if (incoming.size < WORTH || table.parents.length > 0 || table.children.length > 0) return new Set();
  const plain = [...incoming].flatMap(([key, state]) => (isPlain(table, state) ? [key] : []));
  const unknown = plain.length < WORTH ? [] : await unknownKeys(tx, table, plain);
  const records = unknown.map((key) => ({ key, state: incoming.get(key) as State }));
  if (records.length < WORTH || !(await showNew(tx, table, records))) return new Set();
  await store(tx, table, records.map(({ key, state }) => ({ key, versions: encodeState(state, table), hash: hashOf(key, state) })), origin, clock);
  return new Set(unknown);
}

/**
 * Folds captured writes that each made a record here.
 *
 * @param keys - Of records with one captured write, an insert, as far as is known. What has come since stays in the log, and is folded over this one as over any state.
 * @param clock - In microseconds.
 * @returns The keys of those that are folded; all others are left as they were.
 */
export async function foldNewcomers(tx: Transaction, replica: Pick<Replica, 'name'>, table: ModelTable, keys: readonly string[], clock: number): Promise<ReadonlySet<string>> {
  if (keys.length < WORTH || table.children.length > 0) return new Set();
  const rows = await tx.query(
    // Of a row that is there and has no record, the first captured write made it.
    `SELECT k.key, l.clock, l.incarnation, l.place, c.forgotten
       FROM replication.collection c
       CROSS JOIN unnest($2::text[]) WITH ORDINALITY AS k (key, n)
       CROSS JOIN LATERAL (SELECT clock, incarnation, ctid::text AS place FROM replication.log WHERE model = $1 AND key = k.key ORDER BY seq LIMIT 1) l
      WHERE ${UNCLAIMED}
        AND $3 = (SELECT generation FROM replication.generation WHERE model = $1)
        AND NOT EXISTS (SELECT FROM replication.record r WHERE r.model = $1 AND r.key = k.key OFFSET 0)
        AND EXISTS (SELECT FROM ${table.table} t WHERE ${matchesKey('t', table.keyColumn, 'k.key')} OFFSET 0)
      ORDER BY k.n`,
    [table.name, keys, table.generation],
  );
  if (rows.length === 0) return new Set();
  const records = rows.map(([key, time, incarnation, , forgotten]) => {
    // Its values are the row's, and stay there.
    const version = writeFirst({ replica: `${replica.name}.${incarnation}`, clock: Number(time) }, {}, Number(forgotten));
    return { key: key as string, versions: encodeAsRow(table, version), hash: hashOf(key as string, [version]) };
  });
  await store(tx, table, records, null, clock);
  await tx.query('DELETE FROM replication.log WHERE ctid = ANY ($1::tid[])', [rows.map(([, , , place]) => place)]);
  return new Set(records.map(({ key }) => key));
}

/** Stores records that have none yet, at the end of the feed, in their order. */
async function store(
  tx: Transaction,
  { name }: ModelTable,
  records: readonly { readonly key: string; readonly versions: string; readonly hash: string | null }[],
  origin: ReplicaId | null,
  clock: number,
): Promise<void> {
  const stored = records.map((record) => ({ ...record, model: name, bucket: bucketOf(record.key), old: null }));
  await tx.query(
    `INSERT INTO replication.record (model, key, position, origin, versions, hash, bucket, changed_at)
     SELECT $1, key, nextval('replication.position'), $2, versions::json, hash, bucket, $3
       FROM unnest($4::text[], $5::text[], $6::bigint[], $7::smallint[]) AS x (key, versions, hash, bucket)`,
    [name, origin, clock, stored.map(({ key }) => key), stored.map(({ versions }) => versions), stored.map(({ hash }) => hash), stored.map(({ bucket }) => bucket)],
  );
  await addToDigests(tx, stored);
}

/** No record may claim a unique value unseen. */
export const UNCLAIMED = 'NOT EXISTS (SELECT FROM replication.claim)';

/** One living version that has just the fields of the table. */
function isPlain({ columns }: ModelTable, state: State): boolean {
  const [version] = state as [Version];
  const { fields } = version;
  if (state.length !== 1 || fields === null) return false;
  return Object.keys(fields).length === columns.length && columns.every(({ field }) => Object.hasOwn(fields, field.name));
}

/** Of these keys those that have no record, no row and no captured write here; none where another record may claim a unique value unseen. */
async function unknownKeys(tx: Transaction, table: ModelTable, keys: readonly string[]): Promise<string[]> {
  const rows = await tx.query(
    `SELECT k.key FROM unnest($2::text[]) AS k (key)
      WHERE ${UNCLAIMED}
        AND NOT EXISTS (SELECT FROM replication.record r WHERE r.model = $1 AND r.key = k.key OFFSET 0)
        AND NOT EXISTS (SELECT FROM replication.log l WHERE l.model = $1 AND l.key = k.key OFFSET 0)
        AND NOT EXISTS (SELECT FROM ${table.table} t WHERE ${matchesKey('t', table.keyColumn, 'k.key')} OFFSET 0)`,
    [table.name, keys],
  );
  return rows.map(([key]) => key as string);
}

/** Makes the rows; false where the table refuses one, or makes something else of it. Nothing is made then. */
async function showNew(tx: Transaction, table: ModelTable, records: readonly { readonly key: string; readonly state: State }[]): Promise<boolean> {
  // What is checked late is checked now, when the rows can still be taken back.
  await tx.query('SAVEPOINT newcomers; SET CONSTRAINTS ALL IMMEDIATE');
  try {
    await insertRows(tx, table, records.map(({ key, state: [version] }) => ({ key, fields: (version as Version).fields })));
  } catch (error) {
    if (!(error instanceof RowError) && !/^(22|23|P0001)/.test(sqlState(error) ?? '')) throw error;
    await tx.query('ROLLBACK TO SAVEPOINT newcomers');
    return false;
  }
  await refuseIfWrittenMeanwhile(tx, records.map(({ key }) => ({ table, key, places: [] })));
  await tx.query('RELEASE SAVEPOINT newcomers');
  return true;
}
