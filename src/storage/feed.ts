/**
 * The feed, as it is read for a peer.
 *
 * The feed is the records in the order of their last change of state. Places in it are given out under the state lock, so they become visible in order and a
 * checkpoint never runs past a change that commits late; what local transactions write waits in the log, where nothing is skipped either, since a fold takes whatever
 * is visible out of it and leaves the rest. See docs/architecture.md, "Why the feed needs no fence".
 */
import { isWithheld } from '../replication/exchange.ts';
import type { State } from '../replication/merge.ts';
import { toWire, type WireRecord } from '../replication/wire.ts';
import type { Transaction } from './database.ts';
import { readStanding, type Standing } from './knowledge.ts';
import { originOf, readRecords, settle } from './records.ts';
import type { Now, Replica } from './replica.ts';
import { BATCH_BYTES, bytesOf, fitsMessage } from './sizes.ts';
import type { ModelTable } from './tables.ts';
import { readTexts, type Range } from './texts.ts';

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

/** What a transaction has put into the feed, as far as that is little: whoever has sent all before it need not read it. */
export interface Fresh {
  /** The last place in the feed before it. */
  readonly after: number;
  readonly batch: Batch;
  /** The peer in its incarnation that it is for; null where it is for all. */
  readonly peer: string | null;
}

/** The last place that was given out. */
export async function lastPlace(db: Pick<Transaction, 'query'>): Promise<number> {
  const [row] = await db.query('SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END FROM replication.position');
  return Number(row?.[0]);
}

/** @param records - With commas between. @param end - The last place that the transaction gave out. */
export function freshOf({ lastPlace: after, incarnation, generation, rootChanges }: Now, end: number, records: string, count: number, peer: string | null): Fresh {
  return { after, peer, batch: { end, count, records, columns: '', next: SENT_RECORDS, more: false, standing: { incarnation, generation, rootChanges } } };
}

/** The last place in the feed that is taken. */
export async function feedEnd(replica: Replica): Promise<number> {
  const [row] = await replica.db.query('SELECT max(position) FROM replication.record');
  return Number(row?.[0] ?? 0);
}

/** Places that a look ahead goes. */
const NEAR = 128;

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
export function later<T>(answer: Promise<T>): Promise<T> {
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

/** A record as it is sent; null, and told, where no message holds it. */
export function textOf(replica: Replica, table: ModelTable, key: string, state: State): string | null {
  if (!fitsMessage(state)) {
    replica.report(
      `${table.name} ${key}: its ${state.length} versions take ${Math.round(bytesOf(state) / 2 ** 20)} MiB, more than a message holds. It is left out, and sent once a write or a resolution has made it smaller`,
    );
    return null;
  }
  return JSON.stringify([table.name, key, state.map(toWire)] satisfies WireRecord);
}
