/**
 * Taking over what a peer sent or reported, in one transaction with the checkpoint and the conflict log.
 */
import { fromColumns, type WireColumns } from '../replication/columns.ts';
import { receive, sameCheckpoint, type Checkpoint } from '../replication/exchange.ts';
import type { State } from '../replication/merge.ts';
import { unconfirmedBy } from '../replication/reseed.ts';
import type { Version } from '../replication/version.ts';
import { fromWire, toWire, type WireRecord } from '../replication/wire.ts';
import { texts } from './arrays.ts';
import { writeChanges, type Change } from './changes.ts';
import { readPeer, readSender, storeTaken, type PeerRecord } from './checkpoints.ts';
import { bothChanges, NO_CHANGES, type ConflictChanges } from './conflicts.ts';
import { sqlState, type Transaction } from './database.ts';
import { freshOf, lastPlace, later, type Fresh } from './feed.ts';
import { takeColumns, takeNewcomers } from './newcomers.ts';
import { lockedPortions, originOf, viewOf, type Portion } from './records.ts';
import { beginChange, findPassed, passKeys, type Replica } from './replica.ts';
import { confirm, readUnconfirmed, type Confirmed } from './reseed.ts';
import { bytesOf, type RecordName } from './sizes.ts';
import type { ModelTable } from './tables.ts';
import { deferredChanges } from './unique-conflicts.ts';

/** A message that cannot be taken over as a whole; it changed nothing. */
export class BatchError extends Error {
  readonly code: 'CHECKPOINT_MISMATCH' | 'BAD_MESSAGE' | 'REFUSED';

  constructor(code: BatchError['code'], message: string) {
    super(message);
    this.code = code;
  }
}

/** Records that are too few for the ways that need many. */
const FEW = 200;

/** What an answer reports of differing states, in bytes, about. */
const REPORTED_BYTES = 16 * 1024 * 1024;

export interface Applied {
  readonly applied: number;
  readonly skipped: number;
  readonly conflicts: ConflictChanges;
  /** States that the sender does not hold all of, about 16 MiB of them at most; what it is not told here comes with this replica's own feed. */
  readonly differing: readonly WireRecord[];
  /** A resolution could not be carried to the sender, when it sent this. */
  readonly owed: boolean;
  /** Of a batch after which the sender holds just what is stored here of it: that there is nothing to send back. */
  readonly fresh: Fresh | null;
}

/**
 * Takes over what a peer sent or reported.
 *
 * @param sender - The peer and its incarnation. `id`: refused unless the roster has it under this name; left out where the peer was asked.
 * @param checkpoint - `start` must be the checkpoint stored, or the batch is refused: then one before it was lost. `receiver` must be the present incarnation: what this replica
 *   once sent was withheld from the batch, and may be lost since. `end` is stored with the changes. `more`: batches follow that may settle what collides now. Null for what a peer reports beside its feed.
 * @param asked - This replica when the peer was asked: its incarnation, and how often it had forgotten records. What was forgotten since must not come back, and a database that was put back counts
 *   anew. `rootChanges`: how often what its records go back to had changed; the peer has to know that before it is answered. Where any is another, a batch is refused, and of a report nothing is taken: the peer's own feed brings the same. Null where nothing was asked.
 * @param columns - Records by column, which stand in no `records`.
 * @throws BatchError
 */
export async function applyRecords(
  replica: Replica,
  sender: { readonly name: string; readonly incarnation: string; readonly id?: string },
  records: readonly WireRecord[],
  checkpoint: { readonly receiver: string; readonly start: Checkpoint | null; readonly end: Checkpoint; readonly more: boolean } | null,
  asked: { readonly incarnation: string; readonly generation: number; readonly rootChanges?: number | undefined } | null = null,
  columns: readonly WireColumns[] = [],
): Promise<Applied> {
  for (const [model, key] of records) checkModel(replica, model, key);
  for (const own of columns) checkModel(replica, own.model, own.keys[0] ?? '');
  const keys = keysByTable(replica, records, columns);
  const count = columns.reduce((sum, own) => sum + own.keys.length, records.length);
  const peerId = `${sender.name}.${sender.incarnation}`;
  // Waited for by somebody: then there is one question less to wait for, and it is hoped that the rows can be written.
  const areFew = count < FEW;
  const { fresh, ...done } = await replica.db.transaction(async (tx) => {
    const beginning = later(beginChange(tx));
    if (areFew) tx.send();
    const incoming = new Map([...byTable(replica, records)].map(([table, own]) => [table, incomingStates(own)]));
    const include = (own: WireColumns, places: Iterable<number>): void => {
      const table = tableOf(replica, own.model);
      const rest = fromColumns(own, places);
      if (rest.length > 0) incoming.set(table, incomingStates(rest, incoming.get(table)));
    };
    const read = (): AsyncGenerator<Portion> => lockedPortions(tx, replica, [...incoming].map(([table, states]) => [table, [...states.keys()]] as const));
    const asking = Promise.all([
      beginning,
      sender.id === undefined ? readPeer(tx, sender.name) : readMember(tx, sender.name, sender.id),
      Promise.all([...keys].map(([table, own]) => findPassed(tx, table, replica, own))),
      ...[...keys].map(([table, own]) => checkKeys(tx, table, own)),
    ]);
    if (areFew) for (const own of columns) include(own, own.keys.keys());
    const early = areFew ? begun(read()) : null;
    const [now, peer, late] = await asking;
    const { incarnation, aside, generation, rootChanges } = now;
    const passed = asked !== null && (asked.incarnation !== incarnation || generation !== asked.generation || (asked.rootChanges !== undefined && rootChanges !== asked.rootChanges));
    if (passed && !checkpoint) return { applied: 0, skipped: count, conflicts: NO_CHANGES, differing: [], owed: peer.owed, fresh: null };
    if (checkpoint) {
      if (passed || checkpoint.receiver !== incarnation || !sameCheckpoint(peer.taken, checkpoint.start)) {
        throw new BatchError('CHECKPOINT_MISMATCH', 'the batch does not start where the last one ended: one in between was lost, another process sends too, or the database was restarted, has forgotten deletions or has met another history since. Begin with a handshake.');
      }
    }
    const report = createReport();
    let applied = 0;
    if (!areFew) {
      for (const own of columns) {
        const left = aside ? [...own.keys.keys()] : await takeColumns(tx, tableOf(replica, own.model), own, peerId, now.clock);
        applied += own.keys.length - left.length;
        include(own, left);
      }
    }
    if (!areFew && !aside) {
      for (const [table, states] of incoming) {
        const taken = await takeNewcomers(tx, table, states, peerId, now.clock);
        applied += taken.size;
        for (const key of taken) states.delete(key);
      }
    }
    let conflicts = NO_CHANGES;
    let parts = 0;
    let isHeld = checkpoint !== null;
    const write = async (changes: readonly Change[], last: boolean): Promise<void> => {
      // Of several portions each is as a batch with more behind it.
      const ends = last && (checkpoint === null ? parts > 1 : !checkpoint.more);
      const deferred = ends ? await deferredChanges(tx, replica, now, { sender: sender.name }, changes) : [];
      const written = await writeChanges(tx, replica, now, [...changes, ...deferred], !last || checkpoint?.more ? sender.name : null);
      conflicts = bothChanges(conflicts, written.conflicts);
      isHeld &&= written.changes.every(({ origin }) => origin === peerId);
    };
    for await (const { records: some, last } of early ?? read()) {
      parts++;
      const unconfirmed = aside ? await readUnconfirmed(tx, some.map(({ table, key }): RecordName => [table.name, key])) : new Map<string, State>();
      const confirmed: Confirmed[] = [];
      const changes: Change[] = [];
      for (const before of some) {
        const { table, key } = before;
        const sent = incoming.get(table)?.get(key) ?? [];
        const set = aside ? unconfirmed.get(`${table.name} ${key}`) : undefined;
        const received = receive(
          { state: before.settled, origin: originOf(before) },
          sent,
          peerId,
          () => replica.report(`${table.name} ${key}: peer "${sender.name}" sent a version that is stored here with other values; both are kept`),
          set,
        );
        if (received.differs) report.add(table.name, key, received.state);
        if (received.changed) applied++;
        const { state, origin } = received;
        if (set !== undefined) confirmed.push({ model: table.name, key, left: unconfirmedBy(set, sent, state) });
        if (received.changed || before.writes.length > 0 || origin !== before.origin) {
          changes.push({ before, state, origin, view: viewOf(replica, before, state) });
        }
      }
      await write(changes, last);
      await confirm(tx, confirmed);
    }
    // With nothing in it, it may still be the end of what collided before.
    if (parts === 0) await write([], true);
    if (checkpoint) storeTaken(tx, sender.name, { ...checkpoint.end, taker: incarnation });
    for (const each of late) if (each) passKeys(tx, each);
    const nothing = async (): Promise<Fresh> => freshOf(now, await lastPlace({ query: tx.post }), '', 0, peerId);
    return { applied, skipped: count - applied, conflicts, differing: report.records, owed: peer.owed, fresh: isHeld ? later(nothing()) : null };
  }, { isHopeful: areFew, isSeenEarly: areFew });
  return { ...done, fresh: await fresh };
}

/** The portions of a generator, with the first asked for at once. */
function begun<T>(all: AsyncGenerator<T>): AsyncIterable<T> {
  const first = all.next();
  // Told to whoever waits for it.
  first.catch(() => {});
  return {
    async *[Symbol.asyncIterator]() {
      for (let next = await first; next.done !== true; next = await all.next()) yield next.value;
    },
  };
}

/** The states that a sender does not hold all of, as many as an answer holds; the others go with this replica's own feed. */
function createReport(): { readonly records: readonly WireRecord[]; add(model: string, key: string, state: State): void } {
  const records: WireRecord[] = [];
  let bytes = 0;
  return {
    records,
    add(model, key, state) {
      bytes += bytesOf(state);
      if (bytes <= REPORTED_BYTES) records.push([model, key, state.map(toWire)]);
    },
  };
}

function* byTable(replica: Replica, records: readonly WireRecord[]): Generator<[ModelTable, WireRecord[]]> {
  for (const table of replica.tables.values()) {
    const own = records.filter(([model]) => model === table.name);
    if (own.length > 0) yield [table, own];
  }
}

/** All keys that a batch names, of however many writers their records are. */
function keysByTable(replica: Replica, records: readonly WireRecord[], columns: readonly WireColumns[]): ReadonlyMap<ModelTable, readonly string[]> {
  const keys = new Map<ModelTable, string[]>();
  for (const table of replica.tables.values()) {
    const own = [...records.flatMap(([model, key]) => (model === table.name ? [key] : [])), ...columns.flatMap((each) => (each.model === table.name ? each.keys : []))];
    if (own.length > 0) keys.set(table, own);
  }
  return keys;
}

/** What a batch says of each record. A peer's word that its versions are an antichain, and each record named once, is not relied on: `receive` makes a state of them. */
function incomingStates(records: readonly WireRecord[], states = new Map<string, readonly Version[]>()): Map<string, readonly Version[]> {
  for (const record of records) {
    const key = record[1];
    const known = states.get(key);
    const told = record[2].map(fromWire);
    states.set(key, known === undefined ? told : [...known, ...told]);
  }
  return states;
}

function tableOf(replica: Replica, model: string): ModelTable {
  return replica.tables.get(model) as ModelTable;
}

/** The handshake has compared the models; this is against a peer that does not keep to what it said. Fields that this replica does not know are kept and passed on. */
function checkModel(replica: Replica, model: string, key: string): void {
  if (!replica.tables.has(model)) throw new BatchError('BAD_MESSAGE', `record ${model} ${key}: this replica has no such model`);
}

async function readMember(tx: Transaction, name: string, id: string): Promise<PeerRecord> {
  const { isMember, ...peer } = await readSender(tx, name, id);
  if (!isMember) throw new BatchError('REFUSED', `it does not know replica "${name}". Begin with a handshake`);
  return peer;
}

/** A key is a value of its type in that value's own text: `01` would be another record than `1`, over the same row. */
async function checkKeys(tx: Transaction, { name, keyColumn: { type } }: ModelTable, keys: readonly string[]): Promise<void> {
  if (keys.every((key) => isPlainKey(type, key))) return;
  try {
    const [odd] = await tx.query(`SELECT k.key FROM unnest($1::text[]) AS k (key) WHERE k.key::${type}::text <> k.key LIMIT 1`, [texts(keys)]);
    if (odd) throw new BatchError('BAD_MESSAGE', `record ${name} ${odd[0]}: its key is not written as ${type} is`);
  } catch (error) {
    if (sqlState(error)?.startsWith('22') !== true) throw error;
    throw new BatchError('BAD_MESSAGE', `a record of ${name} has a key that is none: ${(error as Error).message}`);
  }
}

/** True of a value's own text, where that is easily told; of any other the database is asked. */
function isPlainKey(type: string, key: string): boolean {
  if (type === 'integer') return /^(0|-?[1-9][0-9]{0,8})$/.test(key);
  if (type === 'bigint') return /^(0|-?[1-9][0-9]{0,17})$/.test(key);
  if (type === 'uuid') return /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(key);
  return type === 'text';
}
