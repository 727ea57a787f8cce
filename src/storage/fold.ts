/**
 * The fold: what writers were captured doing, taken out of the log and into the states of their records.
 */
import { writeChanges, type Change, type Written } from './changes.ts';
import type { ConflictChanges } from './conflicts.ts';
import type { Transaction } from './database.ts';
import { readDue, type Due } from './due.ts';
import { freshOf, lastPlace, later, textOf, type Fresh } from './feed.ts';
import { foldNewcomers } from './newcomers.ts';
import { lockRows, readFitting, readLocked, readRecords, settle, type SettledRecord } from './records.ts';
import { beginChange, type Now, type Replica } from './replica.ts';
import { fitting, type RecordName } from './sizes.ts';
import { sameFields } from '../replication/version.ts';
import { showFields, type ModelTable } from './tables.ts';
import { contested } from './unique.ts';
import { foldUpdates } from './updates.ts';
import type { Makings } from './written.ts';

/** Records that one transaction folds at most. */
export const BATCH_RECORDS = 5000;

export interface Folded {
  /** How many records were folded. */
  readonly records: number;
  /** The last place in the feed that was taken then; null where there was nothing to fold. */
  readonly end: number | null;
  readonly fresh: Fresh | null;
  /** What is due now; null where nothing was looked at for it. */
  readonly due: Due | null;
}

/**
 * Folds captured writes into their records' states until none is left that was there at the beginning.
 *
 * @param onConflicts - Told after each transaction what it did to the conflict log, and whether another follows.
 * @param told - Somebody has told of writes: they need not be looked for first. Where they are few it says of which records, and only those are folded.
 */
export async function fold(replica: Replica, onConflicts: (changes: ConflictChanges, more: boolean) => void, told: readonly RecordName[] | null = null): Promise<Folded> {
  let folded = 0;
  let last: number | null = null;
  let fresh: Fresh | null = null;
  for (let names = told; ; names = null) {
    if (names === null && (await replica.db.query('SELECT FROM replication.log LIMIT 1')).length === 0) return { records: folded, end: last, fresh, due: null };
    const { records, more, conflicts, made, places, due } = await replica.db.transaction(async (tx) => {
      const some = names !== null && names.length > 0 ? await foldTold(tx, replica, names) : await foldSome(tx, replica);
      return { ...some, places: later(lastPlace({ query: tx.post })), due: later(readDue({ query: tx.post })) };
    });
    onConflicts(conflicts, more);
    folded += records;
    last = await places;
    fresh = made && folded === records ? madeFresh(replica, made, last) : null;
    if (!more) return { records: folded, end: last, fresh, due: await due };
  }
}

/** What a fold has put into the feed, for whoever sends it; null where that is nothing, or cannot be sent as it stands. */
export function madeFresh(replica: Replica, { now, changes }: Made, end: number): Fresh | null {
  const texts = changes.flatMap(({ before: { table, key }, state }) => (state.length === 0 ? [] : (textOf(replica, table, key, state) ?? [])));
  if (texts.length === 0 || texts.length < changes.length || end === now.lastPlace) return null;
  return freshOf(now, end, texts.join(','), texts.length, null);
}

/** What one transaction has folded; `made`: where it was told what to fold. */
interface FoldedSome {
  readonly records: number;
  readonly more: boolean;
  readonly conflicts: ConflictChanges;
  readonly made: Made | null;
}

/** All that it has put into the feed: what it was told of, and what had to follow. */
interface Made {
  readonly now: Now;
  readonly changes: readonly Change[];
}

/** Folds what was captured of these records, none named twice, with one question; everything else is left to others. */
async function foldTold(tx: Transaction, replica: Replica, told: readonly RecordName[]): Promise<FoldedSome> {
  const [now, early] = await Promise.all([beginChange(tx), readTold(tx, replica, told)]);
  const { records, written: { changes, conflicts } } = await foldRecords(tx, replica, now, [...early.values()].map(({ table, key }) => ({ model: table.name, key })), early);
  return { records, more: early.size < told.length, conflicts, made: { now, changes } };
}

/** One transaction's worth of `fold`, in the caller's. */
export async function foldSome(tx: Transaction, replica: Replica): Promise<FoldedSome> {
  const [now, { makings, others, writes }] = await Promise.all([beginChange(tx), readLog(tx)]);
  let records = 0;
  const left: Logged[] = [];
  for (const table of replica.tables.values()) {
    for (const made of makings.filter(({ model }) => model === table.name)) {
      const places = await foldNewcomers(tx, replica, table, made, now.clock);
      records += made.keys.length - places.length;
      for (const n of places) left.push({ model: table.name, key: made.keys[n] as string, seq: made.seqs[n] as number });
    }
    const changed = others.filter(({ model }) => model === table.name);
    const done = await foldUpdates(tx, replica, table, changed.map(({ key }) => key), now.clock);
    records += done.size;
    left.push(...(done.size === 0 ? changed : changed.filter(({ key }) => !done.has(key))));
  }
  const known = left.toSorted((a, b) => a.seq - b.seq);
  const logged = known.slice(0, (await fitting(tx, replica, known.map(({ model, key }) => [model, key]))).length);
  const { records: rest, written: { conflicts } } = await foldRecords(tx, replica, now, logged, null);
  return { records: records + rest, more: logged.length < known.length || writes >= BATCH_RECORDS, conflicts, made: null };
}

/** Folds records in their order. @param early - Where they were read already. */
async function foldRecords(
  tx: Transaction,
  replica: Replica,
  now: Now,
  logged: readonly { readonly model: string; readonly key: string }[],
  early: ReadonlyMap<string, SettledRecord> | null,
): Promise<{ readonly records: number; readonly written: Written }> {
  const read = async (table: ModelTable, keys: readonly string[]): Promise<readonly SettledRecord[]> =>
    early === null ? (await readRecords(tx, table, keys)).map((record) => settle(record, replica)) : keys.map((key) => early.get(`${table.name} ${key}`) as SettledRecord);
  let changes = await foldedChanges(replica, logged, async (table, keys) => readSettled(tx, replica, table, await read(table, keys)));
  // Whose value it is may change what a row shows, and a row that a local writer may still change is not written over.
  if ((await contested(tx, now, changes)).length > 0) changes = await foldedChanges(replica, logged, (table, keys) => readLocked(tx, replica, table, keys));
  const written = await writeChanges(tx, replica, now, changes);
  return { records: changes.length, written };
}

/** What folding makes of these records, in their order. */
async function foldedChanges(replica: Replica, logged: readonly { readonly model: string; readonly key: string }[], read: (table: ModelTable, keys: readonly string[]) => Promise<readonly SettledRecord[]>): Promise<Change[]> {
  const settled = new Map<string, SettledRecord>();
  for (const table of replica.tables.values()) {
    const keys = logged.filter(({ model }) => model === table.name).map(({ key }) => key);
    for (const record of await read(table, keys)) settled.set(`${table.name} ${record.key}`, record);
  }
  const written = logged.flatMap(({ model, key }) => settled.get(`${model} ${key}`) ?? []).filter((record) => record.writes.length > 0);
  return written.map((before) => ({ before, state: before.settled, origin: null, view: before.view }));
}

/** Reads records, by model and key; what is too large for that is left out. */
export async function readTold(tx: Transaction, replica: Replica, told: readonly RecordName[]): Promise<ReadonlyMap<string, SettledRecord>> {
  const found = new Map<string, SettledRecord>();
  for (const table of replica.tables.values()) {
    const keys = told.flatMap(([model, key]) => (model === table.name ? [key] : []));
    for (const record of await readFitting(tx, table, keys)) found.set(`${table.name} ${record.key}`, settle(record, replica));
  }
  return found;
}

/** Records to be folded, as they were read. Where folding changes what is shown, their rows are locked and they are read again, as for any change of a row. */
async function readSettled(tx: Transaction, replica: Replica, table: ModelTable, records: readonly SettledRecord[]): Promise<readonly SettledRecord[]> {
  const moving = records.filter(({ view, row }) => !sameFields(view.fields && showFields(table, view.fields), row)).map(({ key }) => key);
  if (moving.length === 0) return records;
  await lockRows(tx, table, moving);
  const again = new Map((await readRecords(tx, table, moving)).map((record) => [record.key, settle(record, replica)]));
  return records.map((record) => again.get(record.key) ?? record);
}

/** A record with captured writes; `seq`: of the first of them. */
interface Logged {
  readonly model: string;
  readonly key: string;
  readonly seq: number;
}

/** Captured writes, as many as one transaction takes: those that each made a record by column, of all others only the records, in the order of their first ones. */
async function readLog(tx: Transaction): Promise<{ readonly makings: readonly Makings[]; readonly others: readonly Logged[]; readonly writes: number }> {
  // No order is asked for where the rows are chosen: finding the first of a long log would read all of it each time. What is of one record is put together here: that takes the database a third of the time.
  const rows = await tx.query(
    `SELECT model, op = 'I' AS made, replication.incarnation_name(incarnation), json_agg(key ORDER BY seq), json_agg(seq ORDER BY seq),
            json_agg((date_part('epoch', at) * 1000000)::bigint ORDER BY seq) FILTER (WHERE op = 'I'), json_agg(ctid::text ORDER BY seq) FILTER (WHERE op = 'I')
       FROM (SELECT ctid, model, key, op, seq, at, incarnation FROM replication.captured LIMIT $1) l GROUP BY model, made, incarnation ORDER BY min(seq)`,
    [BATCH_RECORDS],
  );
  const groups = rows.map(([model, made, incarnation, keys, seqs, clocks, places]) => ({
    model: model as string,
    keys: JSON.parse(keys as string) as string[],
    seqs: JSON.parse(seqs as string) as number[],
    made: made === 't' ? { incarnation: incarnation as string, clocks: JSON.parse(clocks as string) as number[], places: JSON.parse(places as string) as string[] } : null,
  }));
  const counts = new Map<string, Map<string, number>>(groups.map(({ model }) => [model, new Map()]));
  for (const { model, keys } of groups) {
    const own = counts.get(model) as Map<string, number>;
    for (const key of keys) own.set(key, (own.get(key) ?? 0) + 1);
  }
  const makings: Makings[] = [];
  const others = new Map<string, Logged>();
  for (const { model, keys, seqs, made } of groups) {
    const own = counts.get(model) as Map<string, number>;
    const alone = made === null ? [] : [...keys.keys()].filter((n) => own.get(keys[n] as string) === 1);
    const pick = <T>(column: readonly T[]): readonly T[] => (alone.length === keys.length ? column : alone.map((n) => column[n] as T));
    if (made !== null && alone.length > 0) makings.push({ model, incarnation: made.incarnation, keys: pick(keys), seqs: pick(seqs), clocks: pick(made.clocks), places: pick(made.places) });
    if (alone.length === keys.length) continue;
    for (const [n, key] of keys.entries()) {
      if (made !== null && own.get(key) === 1) continue;
      const [id, seq] = [`${model} ${key}`, seqs[n] as number];
      if (seq < (others.get(id)?.seq ?? Infinity)) others.set(id, { model, key, seq });
    }
  }
  return { makings, others: [...others.values()].toSorted((a, b) => a.seq - b.seq), writes: groups.reduce((sum, { keys }) => sum + keys.length, 0) };
}
