/**
 * The fold and the feed.
 *
 * The feed is the records in the order of their last change of state. Places in it are given out under the state lock, so they become visible in order and a
 * checkpoint never runs past a change that commits late; what local transactions write waits in the log, where nothing is skipped either, since a fold takes whatever
 * is visible out of it and leaves the rest. See docs/architecture.md, "Why the feed needs no fence".
 */
import { isWithheld } from '../replication/exchange.ts';
import { toWire, type WireRecord } from '../replication/wire.ts';
import { sameFields } from '../replication/version.ts';
import { writeChanges, type Change } from './changes.ts';
import type { ConflictChanges } from './conflicts.ts';
import type { Transaction } from './database.ts';
import { foldNewcomers } from './newcomers.ts';
import { lockRows, originOf, readLocked, readRecords, settle, type SettledRecord } from './records.ts';
import { beginChange, type Replica } from './replica.ts';
import { bytesOf, fitsMessage, fitting, MESSAGE_BYTES, type RecordName } from './sizes.ts';
import { showFields, type ModelTable } from './tables.ts';
import { plainTexts } from './texts.ts';
import { contested } from './unique.ts';
import { foldUpdates } from './updates.ts';

/** Records that one transaction folds, and that one batch holds, at most. */
export const BATCH_RECORDS = 5000;

export interface Batch {
  /** The place in the feed that the batch reaches. */
  readonly end: number;
  /** Each as its JSON text, a `WireRecord`. */
  readonly records: readonly string[];
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
    const { records, more, conflicts } = await replica.db.transaction((tx) => foldSome(tx, replica));
    onConflicts(conflicts);
    folded += records;
    if (!more) return folded;
  }
}

/** The last place in the feed that is taken. */
export async function feedEnd(replica: Replica): Promise<number> {
  const [row] = await replica.db.query('SELECT max(position) FROM replication.record');
  return Number(row?.[0] ?? 0);
}

/** The feed after a place, as far as one batch goes, without what the peer `peerId` (in its incarnation) holds already. */
export async function readFeed(replica: Replica, after: number, peerId: string): Promise<Batch> {
  const { end, wanted, more } = await findPlaces(replica, after, peerId);
  if (wanted.length === 0) return { end, records: [], more: false };
  const { count, records } = await replica.db.transaction((tx) => readBounded(tx, replica, wanted.map(({ name }) => name), peerId));
  const whole = count === wanted.length;
  return { end: whole ? end : (wanted[count - 1]?.place ?? after), records, more: !whole || more };
}

interface Place {
  readonly name: RecordName;
  readonly place: number;
}

/** The next places in the feed that the peer wants something of, at most a batch's. What it has is passed over, however long that goes on, and so are records without a state, as a replica has them that begins anew. */
async function findPlaces(replica: Replica, after: number, peerId: string): Promise<{ readonly end: number; readonly wanted: readonly Place[]; readonly more: boolean }> {
  for (let end = after; ; ) {
    const rows = await replica.db.query(
      // What is left of a model that is replicated no more is passed over. Whether a state is empty is told without unpacking a large one.
      `SELECT model, key, position, origin, pg_column_size(versions) < 8 AND versions::text = '[]'
         FROM replication.record WHERE position > $1 AND model = ANY ($3) ORDER BY position LIMIT $2`,
      [end, BATCH_RECORDS, [...replica.tables.keys()]],
    );
    const wanted = rows.flatMap(([model, key, place, origin, empty]): Place[] =>
      origin === peerId || empty === 't' ? [] : [{ name: [model as string, key as string], place: Number(place) }],
    );
    end = Number(rows.at(-1)?.[2] ?? end);
    const more = rows.length === BATCH_RECORDS;
    if (wanted.length > 0 || !more) return { end, wanted, more };
  }
}

/** The first `count` of these records, in order: as many as fit a batch's bytes, and at least one. */
async function readBounded(tx: Transaction, replica: Replica, wanted: readonly RecordName[], peerId: string): Promise<{ readonly count: number; readonly records: string[] }> {
  const texts = new Map<string, string>();
  const some = await fitting(tx, replica, wanted);
  for (const table of replica.tables.values()) {
    const keys = some.flatMap(([model, key]) => (model === table.name ? [key] : []));
    const plain = await plainTexts(tx, table, keys);
    for (const [key, text] of plain) if (text.length <= MESSAGE_BYTES) texts.set(`${table.name} ${key}`, text);
    for (const record of await readRecords(tx, table, keys.filter((key) => !texts.has(`${table.name} ${key}`)))) {
      const text = textOf(replica, settle(record, replica), peerId);
      if (text !== null) texts.set(`${table.name} ${record.key}`, text);
    }
  }
  return { count: some.length, records: some.flatMap(([model, key]) => texts.get(`${model} ${key}`) ?? []) };
}

/** A record as it is sent; null where it is not. */
function textOf(replica: Replica, record: SettledRecord, peerId: string): string | null {
  const { table, key, settled } = record;
  if (settled.length === 0 || isWithheld({ state: settled, origin: originOf(record) }, peerId)) return null;
  if (!fitsMessage(settled)) {
    replica.report(
      `${table.name} ${key}: its ${settled.length} versions take ${Math.round(bytesOf(settled) / 2 ** 20)} MiB, more than a message holds. It is left out, and sent once a write or a resolution has made it smaller`,
    );
    return null;
  }
  return JSON.stringify([table.name, key, settled.map(toWire)] satisfies WireRecord);
}

/** One transaction's worth of `fold`, in the caller's. */
export async function foldSome(tx: Transaction, replica: Replica): Promise<{ records: number; more: boolean; conflicts: ConflictChanges }> {
  const { clock } = await beginChange(tx);
  const all = await loggedKeys(tx);
  const done = new Set<string>();
  for (const table of replica.tables.values()) {
    const made = all.flatMap(({ model, key, isMade }) => (isMade && model === table.name ? [key] : []));
    for (const key of await foldNewcomers(tx, replica, table, made, clock)) done.add(`${table.name} ${key}`);
    const changed = all.flatMap(({ model, key, isMade }) => (!isMade && model === table.name ? [key] : []));
    for (const key of await foldUpdates(tx, replica, table, changed, clock)) done.add(`${table.name} ${key}`);
  }
  const known = all.filter(({ model, key }) => replica.tables.has(model) && !done.has(`${model} ${key}`));
  const logged = known.slice(0, (await fitting(tx, replica, known.map(({ model, key }) => [model, key]))).length);
  let changes = await foldedChanges(replica, logged, (table, keys) => readSettled(tx, replica, table, keys));
  // Whose value it is may change what a row shows, and a row that a local writer may still change is not written over.
  if ((await contested(tx, changes)).length > 0) changes = await foldedChanges(replica, logged, (table, keys) => readLocked(tx, replica, table, keys));
  const { conflicts } = await writeChanges(tx, replica, clock, changes);
  return { records: done.size + changes.length, more: logged.length < known.length || all.reduce((sum, { writes }) => sum + writes, 0) >= BATCH_RECORDS, conflicts };
}

/** What folding makes of these records, in their order. */
async function foldedChanges(replica: Replica, logged: readonly { readonly model: string; readonly key: string }[], read: (table: ModelTable, keys: readonly string[]) => Promise<SettledRecord[]>): Promise<Change[]> {
  const settled = new Map<string, SettledRecord>();
  for (const table of replica.tables.values()) {
    const keys = logged.filter(({ model }) => model === table.name).map(({ key }) => key);
    for (const record of await read(table, keys)) settled.set(`${table.name} ${record.key}`, record);
  }
  const written = logged.flatMap(({ model, key }) => settled.get(`${model} ${key}`) ?? []).filter((record) => record.writes.length > 0);
  return written.map((before) => ({ before, state: before.settled, origin: null, view: before.view }));
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

/** Records with captured writes, of as many writes as one transaction takes, in the order of their first ones; `isMade`: as far as this goes, the one write made it. */
async function loggedKeys(tx: Transaction): Promise<{ readonly model: string; readonly key: string; readonly writes: number; readonly isMade: boolean }[]> {
  // No order is asked for where the rows are chosen: finding the first of a long log would read all of it each time.
  const rows = await tx.query(
    `SELECT model, key, count(*), count(*) = 1 AND bool_and(op = 'I') FROM (SELECT model, key, op, seq FROM replication.log LIMIT $1) l GROUP BY model, key ORDER BY min(seq)`,
    [BATCH_RECORDS],
  );
  return rows.map(([model, key, writes, isMade]) => ({ model: model as string, key: key as string, writes: Number(writes), isMade: isMade === 't' }));
}
