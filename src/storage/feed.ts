/**
 * The fold and the feed.
 *
 * The feed is the records in the order of their last change of state. Places in it are given out under the state lock, so they become visible in order and a
 * checkpoint never runs past a change that commits late; what local transactions write waits in the log, where nothing is skipped either, since a fold takes whatever
 * is visible out of it and leaves the rest. See docs/architecture.md, "Why the feed needs no fence".
 */
import { isWithheld } from '../replication/exchange.ts';
import type { State } from '../replication/merge.ts';
import { toWire, type WireRecord } from '../replication/wire.ts';
import { sameFields } from '../replication/version.ts';
import { writeChanges, type Change } from './changes.ts';
import type { ConflictChanges } from './conflicts.ts';
import type { Transaction } from './database.ts';
import { readStanding, type Standing } from './knowledge.ts';
import { foldNewcomers } from './newcomers.ts';
import { lockRows, originOf, readFitting, readLocked, readRecords, settle, type SettledRecord } from './records.ts';
import { beginChange, type Now, type Replica } from './replica.ts';
import { BATCH_BYTES, bytesOf, fitsMessage, fitting, type RecordName } from './sizes.ts';
import { showFields, type ModelTable } from './tables.ts';
import { readTexts, type Range } from './texts.ts';
import { contested } from './unique.ts';
import { foldUpdates } from './updates.ts';
import type { Makings } from './written.ts';

/** Records that one transaction folds at most. */
export const BATCH_RECORDS = 5000;

/** Records that one batch holds at most: both sides work at once where there are several, each on what the other has done with. */
export const SENT_RECORDS = 1250;

/** The same behind a batch that was all by column. Those are little work for Node; what a batch costs the receiver's database whatever it holds (a row for each bucket of digests, a commit) is shared by more. */
export const SENT_BY_COLUMN = 5000;

export interface Batch {
  /** The place in the feed that the batch reaches. */
  readonly end: number;
  readonly count: number;
  /** The JSON of `WireRecord` of each, with commas between. */
  readonly records: string;
  /** The JSON of `WireColumns`, with commas between. */
  readonly columns: string;
  /** How many records the next batch may hold. */
  readonly next: number;
  /** True where the feed goes on behind it. */
  readonly more: boolean;
  /** When the records were read, or later. */
  readonly standing: Standing;
}

/** What a fold has put into the feed, as far as that is little: whoever has sent all before it need not read it. */
export interface Fresh {
  /** The last place in the feed before it. */
  readonly after: number;
  readonly batch: Batch;
}

export interface Folded {
  /** How many records were folded. */
  readonly records: number;
  /** The last place in the feed that was taken then; null where there was nothing to fold. */
  readonly end: number | null;
  readonly fresh: Fresh | null;
}

/**
 * Folds captured writes into their records' states until none is left that was there at the beginning.
 *
 * @param onConflicts - Told after each transaction what it did to the conflict log, and whether another follows.
 * @param told - Somebody has told of writes: they need not be looked for first. Where they are few it says of which records, which are read without knowing yet that they are all.
 */
export async function fold(replica: Replica, onConflicts: (changes: ConflictChanges, more: boolean) => void, told: readonly RecordName[] | null = null): Promise<Folded> {
  let folded = 0;
  let last: number | null = null;
  let fresh: Fresh | null = null;
  for (let names = told; ; names = null) {
    if (names === null && (await replica.db.query('SELECT FROM replication.log LIMIT 1')).length === 0) return { records: folded, end: last, fresh };
    const { records, more, conflicts, made, places } = await replica.db.transaction(async (tx) => {
      const some = await foldSome(tx, replica, names ?? []);
      return { ...some, places: tx.post('SELECT last_value FROM replication.position') };
    });
    onConflicts(conflicts, more);
    folded += records;
    last = Number((await places)[0]?.[0]);
    fresh = made && folded === records ? freshOf(replica, made, last) : null;
    if (!more) return { records: folded, end: last, fresh };
  }
}

function freshOf(replica: Replica, { now, changes }: Made, end: number): Fresh | null {
  const after = now.lastPlace;
  const { incarnation, generation, rootChanges } = now;
  const texts = changes.flatMap(({ before: { table, key }, state }) => (state.length === 0 ? [] : (textOf(replica, table, key, state) ?? [])));
  if (texts.length === 0 || texts.length < changes.length || end === after) return null;
  return { after, batch: { end, count: texts.length, records: texts.join(','), columns: '', next: SENT_RECORDS, more: false, standing: { incarnation, generation, rootChanges } } };
}

/** The last place in the feed that is taken. */
export async function feedEnd(replica: Replica): Promise<number> {
  const [row] = await replica.db.query('SELECT max(position) FROM replication.record');
  return Number(row?.[0] ?? 0);
}

/** Places that a look ahead goes. */
const NEAR = 32;

/**
 * The feed after a place where it goes on for a few places only, as it does behind a single write: all is asked for at once, while how far it goes is not known yet.
 *
 * @returns null where there is more, or what cannot be sent as it stands.
 */
export async function readNearFeed(replica: Replica, after: number, peerId: string, byColumn: boolean): Promise<Batch | null> {
  const tables = [...replica.tables.values()];
  const { answers } = await replica.db.transaction(async ({ post: query }) => ({
    answers: later(
      Promise.all([
        nextPlaces({ query }, replica, after, peerId, NEAR),
        // What has changed since the places were looked at comes again behind them.
        Promise.all(tables.map((table) => readTexts({ query }, table, { after, end: after + NEAR, peerId, byColumn }, BATCH_BYTES / tables.length, false))),
        readStanding({ query }),
      ]),
    ),
  }));
  const [{ end, isFull }, found, standing] = await answers;
  if (isFull || end > after + NEAR || found.some(({ others, cut }) => others.length > 0 || cut !== null)) return null;
  const whole = (parts: readonly string[]): string => parts.filter((part) => part !== '').join(',');
  const records = whole(found.map(({ text }) => text));
  const columns = whole(found.flatMap((texts) => texts.columns));
  return { end, count: found.reduce((sum, { count }) => sum + count, 0), records, columns, next: nextSize(records, columns), more: false, standing };
}

/** How many records may be in the batch behind one. */
function nextSize(records: string, columns: string): number {
  return columns !== '' && records === '' ? SENT_BY_COLUMN : SENT_RECORDS;
}

/** What is waited for once its transaction is over, where that has not failed. */
function later<T>(answer: Promise<T>): Promise<T> {
  answer.catch(() => {});
  return answer;
}

/** The feed after a place, as far as one batch goes, without what the peer `peerId` (in its incarnation) holds already. @param byColumn - The peer takes records by column. @param most - What the batch before it says of the next. */
export async function readFeed(replica: Replica, after: number, peerId: string, byColumn = false, most = SENT_RECORDS): Promise<Batch> {
  const { standing, ...batch } = await replica.db.transaction(async (tx) => {
    const { first, end, more } = await findPlaces(tx, replica, after, peerId, most);
    const taken = first === null ? { end, count: 0, records: '', columns: '' } : await readBounded(tx, replica, { after, end, peerId, byColumn }, first);
    return { ...taken, next: nextSize(taken.records, taken.columns), more: first !== null && (more || taken.end < end), standing: later(readStanding({ query: tx.post })) };
  });
  return { ...batch, standing: await standing };
}

interface Places {
  /** Of which the peer wants something; null where there is none. */
  readonly first: number | null;
  readonly end: number;
  readonly more: boolean;
}

/** The next places in the feed, at most a batch's. Where the peer has all of them it is passed over, however long that goes on, and so are records without a state, as a replica has them that begins anew. */
async function findPlaces(tx: Transaction, replica: Replica, after: number, peerId: string, most: number): Promise<Places> {
  for (let from = after; ; ) {
    const { first, end, isFull } = await nextPlaces(tx, replica, from, peerId, most);
    if (first !== null || !isFull) return { first, end, more: isFull };
    from = end;
  }
}

/** The next places in the feed, at most so many: the first that the peer wants, the last of them, and whether there are as many. */
async function nextPlaces(tx: Pick<Transaction, 'query'>, replica: Replica, after: number, peerId: string, most: number): Promise<{ readonly first: number | null; readonly end: number; readonly isFull: boolean }> {
  // What is left of a model that is replicated no more is passed over.
  const [row] = await tx.query('SELECT places, last, first FROM replication.next_places($1, $2, $3, $4)', [after, most, [...replica.tables.keys()], peerId]);
  const [count, last, first] = row ?? [];
  return { first: first === null || first === undefined ? null : Number(first), end: Number(last ?? after), isFull: Number(count) === most };
}

/** The records of a range up to where a batch's bytes end. @param first - The place of the first, which is taken whatever its size. */
async function readBounded(tx: Transaction, replica: Replica, range: Range, first: number): Promise<Pick<Batch, 'end' | 'count' | 'records' | 'columns'>> {
  const parts: string[] = [];
  const columns: string[] = [];
  let { end } = range;
  let count = 0;
  let left = BATCH_BYTES;
  for (const table of replica.tables.values()) {
    const whole = left === BATCH_BYTES;
    const texts = await readTexts(tx, table, { ...range, end }, left, whole);
    if (texts.cut !== null) {
      // What was taken of other models lies behind it as well.
      if (!whole) return readBounded(tx, replica, { ...range, end: Math.max(texts.cut, first) }, first);
      end = texts.cut;
    }
    left -= texts.bytes;
    if (texts.text !== '') parts.push(texts.text);
    columns.push(...texts.columns);
    count += texts.count;
    for (const record of await readRecords(tx, table, texts.others)) {
      const found = settle(record, replica);
      const { settled: state } = found;
      const text = state.length === 0 || isWithheld({ state, origin: originOf(found) }, range.peerId) ? null : textOf(replica, table, found.key, state);
      if (text === null) continue;
      parts.push(text);
      count++;
    }
  }
  return { end, count, records: parts.join(','), columns: columns.join(',') };
}

/** A record as it is sent; null where no message holds it. */
function textOf(replica: Replica, table: ModelTable, key: string, state: State): string | null {
  if (!fitsMessage(state)) {
    replica.report(
      `${table.name} ${key}: its ${state.length} versions take ${Math.round(bytesOf(state) / 2 ** 20)} MiB, more than a message holds. It is left out, and sent once a write or a resolution has made it smaller`,
    );
    return null;
  }
  return JSON.stringify([table.name, key, state.map(toWire)] satisfies WireRecord);
}

/** What one transaction has folded; `made`: the changes, where all of it was expected. */
interface FoldedSome {
  readonly records: number;
  readonly more: boolean;
  readonly conflicts: ConflictChanges;
  readonly made: Made | null;
}

interface Made {
  readonly now: Now;
  readonly changes: readonly Change[];
}

/** One transaction's worth of `fold`, in the caller's. @param expected - Records that are probably all there is to fold. */
export async function foldSome(tx: Transaction, replica: Replica, expected: readonly RecordName[] = []): Promise<FoldedSome> {
  const [now, { makings, others, writes }, early] = await Promise.all([beginChange(tx), readLog(tx), readExpected(tx, replica, expected)]);
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
  const wasExpected = known.every(({ model, key }) => early.has(`${model} ${key}`));
  const logged = wasExpected ? known : known.slice(0, (await fitting(tx, replica, known.map(({ model, key }) => [model, key]))).length);
  let changes = await foldedChanges(replica, logged, async (table, keys) =>
    readSettled(tx, replica, table, wasExpected ? keys.map((key) => early.get(`${table.name} ${key}`) as SettledRecord) : (await readRecords(tx, table, keys)).map((record) => settle(record, replica))),
  );
  // Whose value it is may change what a row shows, and a row that a local writer may still change is not written over.
  if ((await contested(tx, now, changes)).length > 0) changes = await foldedChanges(replica, logged, (table, keys) => readLocked(tx, replica, table, keys));
  const { conflicts } = await writeChanges(tx, replica, now, changes);
  return { records: records + changes.length, more: logged.length < known.length || writes >= BATCH_RECORDS, conflicts, made: wasExpected && records === 0 ? { now, changes } : null };
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

/** Reads what is expected, by model and key; what is too large for that is left out. */
async function readExpected(tx: Transaction, replica: Replica, expected: readonly RecordName[]): Promise<ReadonlyMap<string, SettledRecord>> {
  const found = new Map<string, SettledRecord>();
  for (const table of replica.tables.values()) {
    const keys = [...new Set(expected.flatMap(([model, key]) => (model === table.name ? [key] : [])))];
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
    `SELECT model, op = 'I' AS made, incarnation, json_agg(key ORDER BY seq), json_agg(seq ORDER BY seq), json_agg(clock ORDER BY seq) FILTER (WHERE op = 'I'), json_agg(ctid::text ORDER BY seq) FILTER (WHERE op = 'I')
       FROM (SELECT ctid, model, key, op, seq, clock, incarnation FROM replication.log LIMIT $1) l GROUP BY model, made, incarnation ORDER BY min(seq)`,
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
