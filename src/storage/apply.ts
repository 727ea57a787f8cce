/**
 * Changing states: what a peer sent, what a person decided, what may be shown at last. Each in one transaction with the checkpoint and the conflict log.
 */
import { choose, chooseValues, isConflict, sides, type Side } from '../replication/conflict.ts';
import { receive, sameCheckpoint, type Checkpoint } from '../replication/exchange.ts';
import { merge, type State } from '../replication/merge.ts';
import { unconfirmedBy } from '../replication/reseed.ts';
import { fromWire, toWire, type WireRecord } from '../replication/wire.ts';
import type { Fields } from '../replication/version.ts';
import { resolve, type Choice } from '../replication/write.ts';
import { writeChanges, type Change } from './changes.ts';
import { readPeer, storeTaken } from './checkpoints.ts';
import { NO_CHANGES, readConflicts, type ConflictChanges, type ConflictEntry } from './conflicts.ts';
import { sqlState, type Transaction } from './database.ts';
import { readGeneration } from './knowledge.ts';
import { originOf, readLocked, viewOf, type SettledRecord } from './records.ts';
import { beginChange, passKeys, type Replica } from './replica.ts';
import { confirm, readUnconfirmed, type Confirmed } from './reseed.ts';
import type { ModelTable } from './tables.ts';
import { deferredChanges } from './unique-conflicts.ts';
import { uniqueDecisions } from './unique-decisions.ts';

/** A message that cannot be taken over as a whole; it changed nothing. */
export class BatchError extends Error {
  readonly code: 'CHECKPOINT_MISMATCH' | 'BAD_MESSAGE';

  constructor(code: BatchError['code'], message: string) {
    super(message);
    this.code = code;
  }
}

export interface Applied {
  readonly applied: number;
  readonly skipped: number;
  readonly conflicts: ConflictChanges;
  /** States that the sender does not hold all of. */
  readonly differing: readonly WireRecord[];
}

/**
 * Takes over what a peer sent or reported.
 *
 * @param sender - The peer and its incarnation.
 * @param checkpoint - `start` must be the checkpoint stored, or the batch is refused: then one before it was lost. `receiver` must be the present incarnation: what this replica
 *   once sent was withheld from the batch, and may be lost since. `end` is stored with the changes. `more`: batches follow that may settle what collides now. Null for what a peer reports beside its feed.
 * @param generation - How often this replica had forgotten records when the peer was asked: what was forgotten since must not come back. Where it has, a batch is refused, and of a report nothing is
 *   taken: the peer's own feed brings the same. Null where nothing was asked.
 * @throws BatchError
 */
export async function applyRecords(
  replica: Replica,
  sender: { readonly name: string; readonly incarnation: string },
  records: readonly WireRecord[],
  checkpoint: { readonly receiver: string; readonly start: Checkpoint | null; readonly end: Checkpoint; readonly more: boolean } | null,
  generation: number | null = null,
): Promise<Applied> {
  for (const [model, key] of records) checkModel(replica, model, key);
  const peerId = `${sender.name}.${sender.incarnation}`;
  return replica.db.transaction(async (tx) => {
    const { clock, incarnation, aside } = await beginChange(tx);
    const passed = generation !== null && (await readGeneration(tx)) !== generation;
    if (passed && !checkpoint) return { applied: 0, skipped: records.length, conflicts: NO_CHANGES, differing: [] };
    if (checkpoint) {
      const { taken } = await readPeer(tx, sender.name);
      if (passed || checkpoint.receiver !== incarnation || !sameCheckpoint(taken, checkpoint.start)) {
        throw new BatchError('CHECKPOINT_MISMATCH', 'the batch does not start where the last one ended: one in between was lost, another process sends too, or the database was restarted or has forgotten deletions since. Begin with a handshake.');
      }
    }
    const changes: Change[] = [];
    const unconfirmed = aside ? await readUnconfirmed(tx, records) : new Map<string, State>();
    const confirmed: Confirmed[] = [];
    const differing: WireRecord[] = [];
    let applied = 0;
    for (const [table, own] of byTable(replica, records)) {
      const incoming = incomingStates(own);
      await checkKeys(tx, table, [...incoming.keys()]);
      for (const before of await readLocked(tx, replica, table, [...incoming.keys()])) {
        const sent = incoming.get(before.key) ?? [];
        const set = unconfirmed.get(`${table.name} ${before.key}`);
        const received = receive(
          { state: before.settled, origin: originOf(before) },
          sent,
          peerId,
          () => replica.report(`${table.name} ${before.key}: peer "${sender.name}" sent a version that is stored here with other values; both are kept`),
          set,
        );
        if (received.differs) differing.push([table.name, before.key, received.state.map(toWire)]);
        if (received.changed) applied++;
        const { state, origin } = received;
        if (set !== undefined) confirmed.push({ model: table.name, key: before.key, left: unconfirmedBy(set, sent, state) });
        if (received.changed || before.writes.length > 0 || origin !== before.origin) {
          changes.push({ before, state, origin, view: viewOf(replica, before, state) });
        }
      }
    }
    if (checkpoint?.more === false) changes.push(...(await deferredChanges(tx, replica, { sender: sender.name }, changes)));
    const written = await writeChanges(tx, replica, clock, changes, checkpoint?.more ? sender.name : null);
    await confirm(tx, confirmed);
    for (const [table, own] of byTable(replica, records)) await passKeys(tx, table, replica, own.map(([, key]) => key));
    if (checkpoint) await storeTaken(tx, sender.name, { ...checkpoint.end, taker: incarnation });
    return { applied, skipped: records.length - applied, conflicts: written.conflicts, differing };
  });
}

export type Decision = { readonly strategy: 'latest' | 'field-wise' } | { readonly side: string } | { readonly values: Fields };

/** What became of the conflicts decided on. */
export interface Decided {
  readonly resolved: readonly string[];
  readonly conflicts: ConflictChanges;
}

/** What was decided cannot be shown: it breaks a constraint of the table. Nothing was changed. */
export class NotShownError extends Error {}

/** The side chosen by name is none of the conflict's. */
export class NoSuchSideError extends Error {}

/**
 * Settles pending conflicts by a person's decision; those that are resolved already are passed over. So are those whose outcome cannot be shown: a decision that nobody sees, and
 * that the next write to the row would not have seen either, is none.
 *
 * @param strict - Refuse what cannot be shown instead; nothing is changed then.
 * @throws NoSuchSideError, NotShownError
 */
export async function decide(replica: Replica, ids: readonly string[], decision: Decision, strict: boolean): Promise<Decided> {
  const done: Decided[] = [];
  for (const part of await inTurn(replica, ids)) done.push(await decideShown(replica, part, decision, strict));
  return {
    resolved: done.flatMap(({ resolved }) => resolved),
    conflicts: { detected: done.flatMap(({ conflicts }) => conflicts.detected), resolved: done.flatMap(({ conflicts }) => conflicts.resolved) },
  };
}

async function decideShown(replica: Replica, ids: readonly string[], decision: Decision, strict: boolean): Promise<Decided> {
  for (let left = ids; ; ) {
    try {
      return await decideAll(replica, left, decision);
    } catch (error) {
      if (!(error instanceof UnshownError)) throw error;
      if (strict) throw new NotShownError(error.message);
      const { ids: unshown } = error;
      left = left.filter((id) => !unshown.has(id));
    }
  }
}

/** Which decisions could not be shown; the message is the first's reason. */
class UnshownError extends Error {
  readonly ids: ReadonlySet<string>;

  constructor(ids: ReadonlySet<string>, reason: string) {
    super(reason);
    this.ids = ids;
  }
}

async function decideAll(replica: Replica, ids: readonly string[], decision: Decision): Promise<Decided> {
  return replica.db.transaction(async (tx) => {
    const now = await beginChange(tx);
    const pending = (await readConflicts(tx, ids)).filter(({ status }) => status === 'PENDING');
    const unique = pending.filter(({ name }) => name !== '');
    const { changes: own, decided: over, problems } = await uniqueDecisions(tx, replica, unique, decision, now, (entry) =>
      noSuchSide(decision, sides([...entry.sides, ...(entry.holder ? [entry.holder.version] : [])])),
    );
    for (const [id, problem] of problems) throw new UnshownError(new Set([id]), problem);
    const changes: Change[] = [...own];
    const decided = new Map<SettledRecord, string>();
    for (const table of replica.tables.values()) {
      const entries = new Map(pending.filter(({ model, name }) => model === table.name && name === '').map((entry) => [entry.key, entry]));
      for (const before of await readLocked(tx, replica, table, [...entries.keys()])) {
        if (!isConflict(before.settled)) {
          // A local write has made the sides equal since: folding it closes the entry.
          if (before.writes.length > 0) changes.push({ before, state: before.settled, origin: null, view: before.view });
          continue;
        }
        const choice = choiceOf(before, decision);
        const version = resolve(before.settled, choice, `${replica.name}.${now.incarnation}`, now.clock);
        changes.push({ before, state: [version], origin: null, view: { fields: version.fields, version } });
        decided.set(before, (entries.get(before.key) as ConflictEntry).id);
      }
    }
    const { conflicts, waiting, masked } = await writeChanges(tx, replica, now.clock, changes);
    const unshown = new Map<string, string>();
    for (const [before, id] of decided) {
      const reason = waiting.get(before)?.reason ?? ('values' in decision && masked.has(before) ? TAKEN : undefined);
      if (reason !== undefined) unshown.set(id, reason);
    }
    const closed = new Set(conflicts.resolved.map(({ id }) => id));
    for (const [id, records] of over) {
      const reason = records.map((before) => waiting.get(before)?.reason ?? (masked.has(before) ? TAKEN : undefined)).find((each) => each !== undefined);
      if (reason !== undefined || !closed.has(id)) unshown.set(id, reason ?? TAKEN);
    }
    const [first] = unshown.values();
    if (first !== undefined) throw new UnshownError(new Set(unshown.keys()), first);
    return { resolved: [...decided.values(), ...over.keys()].toSorted((a, b) => Number(a) - Number(b)), conflicts };
  });
}

const TAKEN = 'another record claimed the value before.';

/** Entries over unique values come after the others: a record may have both, and is changed once in a transaction. */
async function inTurn(replica: Replica, ids: readonly string[]): Promise<string[][]> {
  const unique = new Set((await readConflicts(replica.db, ids)).filter(({ name }) => name !== '').map(({ id }) => id));
  return [ids.filter((id) => !unique.has(id)), ids.filter((id) => unique.has(id))].filter((part) => part.length > 0);
}

function noSuchSide(decision: Decision, all: readonly Side[]): NoSuchSideError {
  const labels = all.map(({ label }) => `"${label}"`);
  return new NoSuchSideError(`"${'side' in decision ? decision.side : ''}" is no side of this conflict. Its sides are ${labels.join(', ')}.`);
}

function choiceOf({ settled, view }: SettledRecord, decision: Decision): Choice {
  if ('strategy' in decision) return choose(settled, decision.strategy);
  if ('values' in decision) return chooseValues(settled, view.fields, decision.values);
  const side = sides(settled).find(({ label }) => label === decision.side);
  if (side === undefined) throw noSuchSide(decision, sides(settled));
  return { strategy: 'manual', fields: side.version.fields };
}

function* byTable(replica: Replica, records: readonly WireRecord[]): Generator<[ModelTable, WireRecord[]]> {
  for (const table of replica.tables.values()) {
    const own = records.filter(([model]) => model === table.name);
    if (own.length > 0) yield [table, own];
  }
}

/** What a batch says of each record. A peer's word that its versions are an antichain, and each record named once, is not relied on. */
function incomingStates(records: readonly WireRecord[]): Map<string, State> {
  const states = new Map<string, State>();
  for (const [, key, versions] of records) {
    states.set(key, versions.map(fromWire).reduce<State>((state, version) => merge(state, [version]), states.get(key) ?? []));
  }
  return states;
}

/** The handshake has compared the models; this is against a peer that does not keep to what it said. Fields that this replica does not know are kept and passed on. */
function checkModel(replica: Replica, model: string, key: string): void {
  if (!replica.tables.has(model)) throw new BatchError('BAD_MESSAGE', `record ${model} ${key}: this replica has no such model`);
}

/** A key is a value of its type in that value's own text: `01` would be another record than `1`, over the same row. */
async function checkKeys(tx: Transaction, { name, keyColumn: { type } }: ModelTable, keys: readonly string[]): Promise<void> {
  try {
    const [odd] = await tx.query(`SELECT k.key FROM unnest($1::text[]) AS k (key) WHERE k.key::${type}::text <> k.key LIMIT 1`, [keys]);
    if (odd) throw new BatchError('BAD_MESSAGE', `record ${name} ${odd[0]}: its key is not written as ${type} is`);
  } catch (error) {
    if (sqlState(error)?.startsWith('22') !== true) throw error;
    throw new BatchError('BAD_MESSAGE', `a record of ${name} has a key that is none: ${(error as Error).message}`);
  }
}
