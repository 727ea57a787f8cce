/**
 * Records of which nothing is known yet, taken over from a peer or made here: what a replica that is empty, or that catches up, gets most of, and what an import makes.
 *
 * They need nothing of what is asked of others: there is no state to merge with, no row to lock, no conflict. What is not so plain (foreign keys, values that others
 * claim, fields that have no column, a row that its table refuses, or that was written to since) is left to the general way.
 */
import { nextStamp } from '../replication/clock.ts';
import type { WireColumns } from '../replication/columns.ts';
import type { State } from '../replication/merge.ts';
import type { Fields, ReplicaId, Version } from '../replication/version.ts';
import { numbers, texts } from './arrays.ts';
import { addToDigests, bucketOf, hashOf } from './digest.ts';
import { isRefusal, type Transaction } from './database.ts';
import { encodeAsRow } from './records.ts';
import type { Replica } from './replica.ts';
import { insertRows, RowError } from './row-writes.ts';
import type { ModelTable } from './tables.ts';
import { prepare, storeWritten, type Makings } from './written.ts';

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
  if (incoming.size < WORTH || !standsAlone(table)) return new Set();
  const unknown = await keysOf(tx, table, [...incoming.keys()], 'unknown');
  if (unknown === null || unknown.size < WORTH) return new Set();
  const newcomers = [...incoming].flatMap(([key, state]) => (unknown.has(key) && isPlain(table, state) ? [{ key, version: state[0] as Living }] : []));
  if (newcomers.length < WORTH) return new Set();
  const keys = newcomers.map(({ key }) => key);
  const showing = showNew(tx, table, keys, table.columns.map(({ field: { name } }) => newcomers.map(({ version }) => version.fields[name] ?? null)));
  // Made while the database makes the rows.
  const records = newcomers.map(({ key, version }) => ({ model: table.name, hash: hashOf(key, [version]), bucket: bucketOf(key), old: null }));
  const columns = [texts(keys), texts(newcomers.map(({ version }) => encodeAsRow(table, version))), numbers(records.map(({ hash }) => hash)), numbers(records.map(({ bucket }) => bucket))];
  if (!(await showing)) return new Set();
  tx.post(
    `INSERT INTO replication.record (model, key, position, origin, versions, hash, bucket, changed_at)
     SELECT $1, key, nextval('replication.position'), $2, versions::json, hash, bucket, $3
       FROM unnest($4::text[], $5::text[], $6::bigint[], $7::smallint[]) AS x (key, versions, hash, bucket)`,
    [table.name, origin, clock, ...columns],
  );
  addToDigests(tx, records);
  return new Set(keys);
}

/**
 * The same of records that come by column.
 *
 * @returns The places in the columns of those that were left as they were.
 */
export async function takeColumns(tx: Transaction, table: ModelTable, columns: WireColumns, origin: ReplicaId, clock: number): Promise<readonly number[]> {
  const { fields, writer } = columns;
  const all = [...columns.keys.keys()];
  const order = table.columns.map(({ field }) => fields.indexOf(field.name));
  if (all.length < WORTH || !standsAlone(table) || fields.length !== order.length || order.includes(-1)) return all;
  const known = await keysOf(tx, table, columns.keys, 'known');
  if (known === null || all.length - known.size < WORTH) return all;
  const places = known.size === 0 ? all : all.filter((n) => !known.has(columns.keys[n] as string));
  const pick = <T>(column: readonly T[]): readonly T[] => (known.size === 0 ? column : places.map((n) => column[n] as T));
  const keys = pick(columns.keys);
  const showing = showNew(tx, table, keys, order.map((n) => pick(columns.values[n] as (string | null)[])));
  // Made while the database makes the rows.
  const prepared = prepare(table, { keys, writer, stamps: pick(columns.stamps) });
  if (!(await showing)) return all;
  storeWritten(tx, table, prepared, origin, clock);
  return known.size === 0 ? [] : all.filter((n) => known.has(columns.keys[n] as string));
}

/**
 * Folds captured writes that each made a record here.
 *
 * @param clock - In microseconds.
 * @returns The places in the columns of those that were left as they were.
 */
export async function foldNewcomers(tx: Transaction, replica: Pick<Replica, 'name'>, table: ModelTable, made: Makings, clock: number): Promise<readonly number[]> {
  const all = [...made.keys.keys()];
  if (all.length < WORTH || table.children.length > 0) return all;
  const rows = await tx.query(
    // Whether it may be done, and the keys that are left out: they are known, or have other captured writes. Where there are none, the row is there.
    `SELECT NULL AS key, forgotten FROM replication.collection WHERE ${UNCLAIMED} AND $4 = (SELECT generation FROM replication.generation WHERE model = $1) UNION ALL
     SELECT k.key, NULL FROM unnest($2::text[], $3::text[]) AS k (key, place)
      WHERE EXISTS (SELECT FROM replication.record r WHERE r.model = $1 AND r.key = k.key OFFSET 0)
         OR EXISTS (SELECT FROM replication.log l WHERE l.model = $1 AND l.key = k.key AND l.ctid <> k.place::tid OFFSET 0)`,
    [table.name, texts(made.keys), texts(made.places), table.generation],
  );
  const allowed = rows.find(([key]) => key === null);
  if (allowed === undefined) return all;
  const forgotten = Number(allowed[1]);
  const known = new Set(rows.map(([key]) => key));
  const places = known.size === 1 ? all : all.filter((n) => !known.has(made.keys[n] as string));
  if (places.length === 0) return all;
  const pick = <T>(column: readonly T[]): readonly T[] => (places === all ? column : places.map((n) => column[n] as T));
  const written = { keys: pick(made.keys), writer: `${replica.name}.${made.incarnation}`, stamps: pick(made.clocks).map((time) => nextStamp(time, forgotten)) };
  storeWritten(tx, table, prepare(table, written), null, clock);
  tx.post('DELETE FROM replication.log WHERE ctid = ANY ($1::text[]::tid[])', [texts(pick(made.places))]);
  return places === all ? [] : all.filter((n) => known.has(made.keys[n] as string));
}

/** No record may claim a unique value unseen. */
export const UNCLAIMED = 'NOT EXISTS (SELECT FROM replication.claim)';

/** Whether one of every sixteen keys has no record here. */
const SOME_UNKNOWN = `(SELECT bool_or(NOT EXISTS (SELECT FROM replication.record r WHERE r.model = $1 AND r.key = s.key OFFSET 0)) FROM unnest($2::text[]) WITH ORDINALITY AS s (key, n) WHERE s.n % 16 = 1)`;

/** A version that is no deletion. */
type Living = Version & { readonly fields: Fields };

/** No row belongs to others of its table, nor others to its rows. */
function standsAlone({ parents, children }: ModelTable): boolean {
  return parents.length === 0 && children.length === 0;
}

/** One living version that has just the fields of the table. */
function isPlain({ columns }: ModelTable, state: State): boolean {
  const [version] = state as [Version];
  const { fields } = version;
  if (state.length !== 1 || fields === null) return false;
  let count = 0;
  for (const _ in fields) count++;
  return count === columns.length && columns.every(({ field }) => Object.hasOwn(fields, field.name));
}

/**
 * Of these keys those that have a record here, or those that have none, whichever is expected to be few; null where another record may claim a unique value unseen.
 *
 * Those that have none come together, as they were made: where a sixteenth of the keys are all known, the others are not looked up.
 */
async function keysOf(tx: Transaction, table: ModelTable, keys: readonly string[], which: 'known' | 'unknown'): Promise<ReadonlySet<string> | null> {
  const rows = await tx.query(
    `SELECT NULL WHERE NOT ${UNCLAIMED} UNION ALL
     SELECT k.key FROM unnest($2::text[]) AS k (key) WHERE ${which === 'known' ? '' : `${SOME_UNKNOWN} AND NOT `}EXISTS (SELECT FROM replication.record r WHERE r.model = $1 AND r.key = k.key OFFSET 0)`,
    [table.name, texts(keys)],
  );
  return rows[0]?.[0] === null ? null : new Set(rows.map(([key]) => key as string));
}

/**
 * Makes the rows; false where the table refuses one, or makes something else of it, or where one was written to here. Nothing is made then.
 *
 * The database is given all of it to do before it has answered to any: it would wait while this process reads the next batch.
 */
async function showNew(tx: Transaction, table: ModelTable, keys: readonly string[], values: readonly (readonly (string | null)[])[]): Promise<boolean> {
  // What is checked late is checked now, when the rows can still be taken back.
  const saved = tx.query('SAVEPOINT newcomers; SET CONSTRAINTS ALL IMMEDIATE');
  try {
    const [, isMade, wasWritten] = await Promise.all([saved, makeRows(tx, table, keys, values), isWrittenTo(tx, table, keys)]);
    // Where something stands before the table each row is compared with what it was to be.
    if (!isMade) await insertRows(tx, table, keys.map((key, n) => ({ key, fields: Object.fromEntries(table.columns.map(({ field }, i) => [field.name, values[i]?.[n] ?? null])) })));
    const written = isMade ? wasWritten : await isWrittenTo(tx, table, keys);
    tx.post(written ? 'ROLLBACK TO SAVEPOINT newcomers' : 'RELEASE SAVEPOINT newcomers');
    return !written;
  } catch (error) {
    if (!(error instanceof RowError) && !isRefusal(error)) throw error;
    await tx.query('ROLLBACK TO SAVEPOINT newcomers');
    return false;
  }
}

/** A local writer may have created a key, and deleted it again: once its row is made nobody else can. */
async function isWrittenTo(tx: Transaction, { name }: ModelTable, keys: readonly string[]): Promise<boolean> {
  const found = await tx.query(
    `SELECT WHERE EXISTS (SELECT FROM replication.log)
        AND EXISTS (SELECT FROM unnest($2::text[]) AS k (key) CROSS JOIN LATERAL (SELECT FROM replication.log l WHERE l.model = $1 AND l.key = k.key OFFSET 0) AS l)`,
    [name, texts(keys)],
  );
  return found.length > 0;
}

/** Types whose values are their texts. */
const VERBATIM = /^(text|character varying|json)$/;

/**
 * Makes rows where there are none, without looking at what comes of them where nothing can have changed it: where no trigger or rule stands before the table, a row is what its values' texts are read
 * as, and these are written as their types write them or not at all.
 *
 * @returns false where something may stand before it. Nothing is made then.
 * @throws RowError, or the database's error; what was made is to be taken back then.
 */
async function makeRows(tx: Transaction, table: ModelTable, keys: readonly string[], values: readonly (readonly (string | null)[])[]): Promise<boolean> {
  const columns = [table.keyColumn, ...table.columns];
  const own = columns.map((_, i) => `c${i}`);
  const read = columns.flatMap(({ type }, i) => (VERBATIM.test(type) ? [] : [`c${i}::${type} AS v${i}`]));
  const exact = columns.flatMap(({ type }, i) => (VERBATIM.test(type) ? [] : [`AND v${i}::text COLLATE "C" IS NOT DISTINCT FROM c${i}`]));
  const [made] = await tx.query(
    `WITH made AS (
       INSERT INTO ${table.table} (${columns.map(({ column }) => column).join(', ')}) OVERRIDING SYSTEM VALUE
       SELECT ${columns.map(({ type }, i) => (VERBATIM.test(type) ? `c${i}::${type}` : `v${i}`)).join(', ')}
         FROM (SELECT ${[...own, ...read].join(', ')} FROM unnest(${own.map((_, i) => `$${i + 2}::text[]`).join(', ')}) AS x (${own.join(', ')}) OFFSET 0) AS x
        WHERE (SELECT relkind = 'r' AND NOT relhasrules FROM pg_class WHERE oid = $1::regclass)
          AND NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = $1::regclass AND tgtype & 7 = 7 AND tgenabled <> 'D') ${exact.join(' ')}
       RETURNING 1
     ) SELECT count(*) FROM made`,
    [table.table, texts(keys), ...values.map(texts)],
  );
  const count = Number(made?.[0]);
  if (count === keys.length) return true;
  if (count === 0) return false;
  throw new RowError(`a value for ${table.table} is not written as its type writes it`);
}
