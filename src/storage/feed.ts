/**
 * The fold and the feed.
 *
 * The feed is the records in the order of their last change of state. Places in it are given out under the state lock, so they become visible in order and a
 * checkpoint never runs past a change that commits late; what local transactions write waits in the log, where nothing is skipped either, since a fold takes whatever
 * is visible out of it and leaves the rest. See docs/architecture.md, "Why the feed needs no fence".
 */
import { isWithheld } from '../replication/exchange.ts';
import { toWire, type WireRecord } from '../replication/protocol.ts';
import { sameFields } from '../replication/version.ts';
import { writeChanges } from './changes.ts';
import type { ConflictChanges } from './conflicts.ts';
import type { Transaction } from './database.ts';
import { lockRows, readRecords, settle, type SettledRecord } from './records.ts';
import { beginChange, type Replica } from './replica.ts';
import { matchesKey, showFields, type Column, type ModelTable } from './tables.ts';

/** Records that one transaction folds, and that one batch holds, at most. */
export const BATCH_RECORDS = 5000;
/** Bytes of a batch, about; a larger record travels alone. */
export const BATCH_BYTES = 8 * 1024 * 1024;

export interface Batch {
  /** The place in the feed that the batch reaches. */
  readonly end: number;
  readonly records: readonly WireRecord[];
  /** True where the feed goes on behind it. */
  readonly more: boolean;
}

/**
 * Folds captured writes into their records' states until none is left that was there at the beginning.
 *
 * @param onConflicts - Told after each transaction what it did to the conflict log.
 * @returns How many records were folded.
 */
export async function fold(replica: Replica, onConflicts: (changes: ConflictChanges) => void): Promise<number> {
  let folded = 0;
  for (;;) {
    const [any] = await replica.db.query('SELECT FROM replication.log LIMIT 1');
    if (!any) return folded;
    const { records, writes, conflicts } = await replica.db.transaction((tx) => foldSome(tx, replica));
    onConflicts(conflicts);
    folded += records;
    if (writes < BATCH_RECORDS) return folded;
  }
}

/** The last place in the feed that is taken. */
export async function feedEnd(replica: Replica): Promise<number> {
  const [row] = await replica.db.query('SELECT max(position) FROM replication.record');
  return Number(row?.[0] ?? 0);
}

/** The feed after a place, as far as one batch goes, without what the peer `peerId` (in its incarnation) holds already. */
export async function readFeed(replica: Replica, after: number, peerId: string): Promise<Batch> {
  const places = await replica.db.query(
    // What is left of a model that is replicated no more is passed over.
    'SELECT model, key, position, origin FROM replication.record WHERE position > $1 AND model = ANY ($3) ORDER BY position LIMIT $2',
    [after, BATCH_RECORDS, [...replica.tables.keys()]],
  );
  if (places.length === 0) return { end: after, records: [], more: false };
  const wanted = places.filter(([, , , origin]) => origin !== peerId);
  const found = await replica.db.transaction((tx) =>
    readBounded(tx, replica, wanted.map(([model, key]) => [model as string, key as string])),
  );
  const records: WireRecord[] = [];
  for (const record of found) {
    if (record.settled.length === 0 || isWithheld({ state: record.settled, origin: originOf(record) }, peerId)) continue;
    records.push([record.table.name, record.key, record.settled.map(toWire)]);
  }
  const whole = found.length === wanted.length;
  const last = whole ? places.at(-1) : wanted[found.length - 1];
  return { end: Number(last?.[2]), records, more: !whole || places.length === BATCH_RECORDS };
}

/** A state with captured writes in it is no longer what a peer sent. */
export function originOf(record: SettledRecord): string | null {
  return record.writes.length > 0 ? null : record.origin;
}

/** The states of records, in order, as many as fit a batch's bytes and at least one. */
async function readBounded(tx: Transaction, replica: Replica, wanted: readonly (readonly [string, string])[]): Promise<SettledRecord[]> {
  const sizes = await rowSizes(tx, replica, wanted);
  let bytes = 0;
  let count = 0;
  while (count < wanted.length && (count === 0 || bytes + (sizes[count] ?? 0) <= BATCH_BYTES)) bytes += sizes[count++] ?? 0;
  const byRecord = new Map<string, SettledRecord>();
  const fitting = wanted.slice(0, count);
  for (const table of replica.tables.values()) {
    const keys = fitting.filter(([model]) => model === table.name).map(([, key]) => key);
    for (const record of await readRecords(tx, table, keys)) byRecord.set(`${table.name} ${record.key}`, settle(record, replica));
  }
  return fitting.flatMap(([model, key]) => byRecord.get(`${model} ${key}`) ?? []);
}

/** Types whose values are short. */
const SHORT = /^(integer|bigint|smallint|boolean|uuid|real|double precision|date|time(stamp)?(\(\d+\))? with(out)? time zone)$/;
/** What a record takes beside its values. */
const FRAME_BYTES = 400;

/** About how many bytes each record takes. What it takes in the database says little: a page holds values of a megabyte, compressed. */
async function rowSizes(tx: Transaction, replica: Replica, wanted: readonly (readonly [string, string])[]): Promise<number[]> {
  const sizes = Array.from(wanted, () => FRAME_BYTES);
  for (const table of replica.tables.values()) {
    const long = table.columns.filter(({ type }) => !SHORT.test(type));
    const own = wanted.flatMap(([model, key], n) => (model === table.name ? [{ n, key }] : []));
    if (long.length === 0 || own.length === 0) continue;
    const rows = await tx.query(
      `SELECT k.n, coalesce(t.bytes, 0) + coalesce(r.bytes, 0)
         FROM json_to_recordset($1) AS k (n integer, key text)
         LEFT JOIN LATERAL (SELECT ${long.map(valueBytes).join(' + ')} AS bytes FROM ${table.table} t WHERE ${matchesKey('t', table.keyColumn, 'k.key')} OFFSET 0) t ON true
         LEFT JOIN LATERAL (
           SELECT CASE WHEN pg_column_compression(versions) IS NULL THEN pg_column_size(versions) ELSE octet_length(versions::text) END AS bytes
             FROM replication.record WHERE model = $2 AND key = k.key OFFSET 0
         ) r ON true`,
      [JSON.stringify(own), table.name],
    );
    for (const [n, bytes] of rows) sizes[Number(n)] = Number(bytes) + FRAME_BYTES;
  }
  return sizes;
}

/** The length of a value's text, about, without unpacking the value where that can be had. */
function valueBytes({ column, type }: Column): string {
  const value = `t.${column}`;
  if (type === 'bytea') return `coalesce(2 * octet_length(${value}), 0)`;
  if (/^(text|character varying(\(\d+\))?)$/.test(type)) return `coalesce(octet_length(${value}), 0)`;
  return `coalesce(CASE WHEN pg_column_compression(${value}) IS NULL THEN pg_column_size(${value}) ELSE octet_length(${value}::text) END, 0)`;
}

async function foldSome(tx: Transaction, replica: Replica): Promise<{ records: number; writes: number; conflicts: ConflictChanges }> {
  const { clock } = await beginChange(tx);
  const logged = await loggedKeys(tx);
  const settled = new Map<string, SettledRecord>();
  for (const table of replica.tables.values()) {
    const keys = logged.filter(({ model }) => model === table.name).map(({ key }) => key);
    for (const record of await readSettled(tx, replica, table, keys)) settled.set(`${table.name} ${record.key}`, record);
  }
  const written = logged.flatMap(({ model, key }) => settled.get(`${model} ${key}`) ?? []).filter((record) => record.writes.length > 0);
  const { conflicts } = await writeChanges(
    tx,
    replica,
    clock,
    written.map((before) => ({ before, state: before.settled, origin: null, view: before.view })),
  );
  return { records: written.length, writes: logged.reduce((sum, { writes }) => sum + writes, 0), conflicts };
}

/** Reads records to be folded. Where folding changes what is shown, their rows are locked first, as for any change of a row. */
async function readSettled(tx: Transaction, replica: Replica, table: ModelTable, keys: readonly string[]): Promise<SettledRecord[]> {
  const records = (await readRecords(tx, table, keys)).map((record) => settle(record, replica));
  const moving = records.filter(({ view, row }) => !sameFields(view.fields && showFields(table, view.fields), row)).map(({ key }) => key);
  if (moving.length === 0) return records;
  await lockRows(tx, table, moving);
  const again = new Map((await readRecords(tx, table, moving)).map((record) => [record.key, settle(record, replica)]));
  return records.map((record) => again.get(record.key) ?? record);
}

/** Records with captured writes, of as many writes as one transaction takes, in the order of their first ones. */
async function loggedKeys(tx: Transaction): Promise<{ readonly model: string; readonly key: string; readonly writes: number }[]> {
  // No order is asked for where the rows are chosen: finding the first of a long log would read all of it each time.
  const rows = await tx.query(
    `SELECT model, key, count(*) FROM (SELECT model, key, seq FROM replication.log LIMIT $1) l GROUP BY model, key ORDER BY min(seq)`,
    [BATCH_RECORDS],
  );
  return rows.map(([model, key, writes]) => ({ model: model as string, key: key as string, writes: Number(writes) }));
}
