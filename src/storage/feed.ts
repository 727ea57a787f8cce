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
import type { ModelTable } from './tables.ts';

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

/** The feed after a place, as far as one batch goes, without what the peer `peerId` (in its incarnation) holds already. */
export async function readFeed(replica: Replica, after: number, peerId: string): Promise<Batch> {
  const places = await replica.db.query(
    'SELECT model, key, position, origin FROM replication.record WHERE position > $1 ORDER BY position LIMIT $2',
    [after, BATCH_RECORDS],
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

/** About how many bytes each record takes. Rows fit a page unless they have values stored apart; only then is it worth asking for each. */
async function rowSizes(tx: Transaction, replica: Replica, wanted: readonly (readonly [string, string])[]): Promise<number[]> {
  const sizes = Array.from(wanted, () => 400);
  for (const table of replica.tables.values()) {
    const [large] = await tx.query(
      `SELECT greatest(pg_relation_size(c.reltoastrelid), (SELECT pg_relation_size(r.reltoastrelid) FROM pg_class r WHERE r.oid = 'replication.record'::regclass))
         FROM pg_class c WHERE c.oid = $1::regclass AND c.reltoastrelid <> 0`,
      [table.table],
    );
    if (Number(large?.[0] ?? 0) === 0) continue;
    const { column, type } = table.keyColumn;
    const size = table.columns.map((c) => `coalesce(pg_column_size(t.${c.column}), 0)`).join(' + ') || '0';
    const rows = await tx.query(
      `SELECT k.n, coalesce(${size}, 0) + coalesce(pg_column_size(r.versions), 0)
         FROM json_to_recordset($1) AS k (n integer, key text)
         LEFT JOIN ${table.table} t ON t.${column} = k.key::${type} LEFT JOIN replication.record r ON r.model = $2 AND r.key = k.key`,
      [JSON.stringify(wanted.flatMap(([model, key], n) => (model === table.name ? [{ n, key }] : []))), table.name],
    );
    for (const [n, bytes] of rows) sizes[Number(n)] = Number(bytes) + 200;
  }
  return sizes;
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
  const moving = records.filter(({ view, row }) => !sameFields(view.fields, row)).map(({ key }) => key);
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
