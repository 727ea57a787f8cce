/**
 * What a person decides of conflicts: a write that covers every side, in a transaction with its outcome in the rows and in the log.
 */
import { choose, chooseValues, isConflict, sides, type Side } from '../replication/conflict.ts';
import type { Fields } from '../replication/version.ts';
import { resolve, type Choice } from '../replication/write.ts';
import { writeChanges, type Change } from './changes.ts';
import { bothChanges, NO_CHANGES, pendingAmong, readConflicts, readNames, type ConflictChanges, type PendingName } from './conflicts.ts';
import { readLocked, type SettledRecord } from './records.ts';
import { beginChange, type Replica } from './replica.ts';
import { BATCH_BYTES } from './sizes.ts';
import { uniqueDecisions } from './unique-decisions.ts';

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
  const resolved: string[] = [];
  let conflicts = NO_CHANGES;
  for (const part of inPortions(await readNames(replica.db, ids))) {
    const done = await decideShown(replica, part, decision, strict);
    resolved.push(...done.resolved);
    conflicts = bothChanges(conflicts, done.conflicts);
  }
  return { resolved, conflicts };
}

async function decideShown(replica: Replica, entries: readonly PendingName[], decision: Decision, strict: boolean): Promise<Decided> {
  for (let left = entries; ; ) {
    try {
      return await decideAll(replica, left, decision);
    } catch (error) {
      if (!(error instanceof UnshownError)) throw error;
      if (strict) throw new NotShownError(error.message);
      const { ids: unshown } = error;
      left = left.filter(({ id }) => !unshown.has(id));
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

async function decideAll(replica: Replica, entries: readonly PendingName[], decision: Decision): Promise<Decided> {
  return replica.db.transaction(async (tx) => {
    const now = await beginChange(tx);
    // Somebody else may have been faster.
    const still = await pendingAmong(tx, entries.map(({ id }) => id));
    const pending = entries.filter(({ id }) => still.has(id));
    const unique = await readConflicts(tx, pending.flatMap(({ id, name }) => (name === '' ? [] : [id])));
    const { changes: rewritten, decided: over, problems } = await uniqueDecisions(tx, replica, unique, decision, now, (entry) =>
      noSuchSide(decision, sides([...entry.sides, ...(entry.holder ? [entry.holder.version] : [])])),
    );
    for (const [id, problem] of problems) throw new UnshownError(new Set([id]), problem);
    const changes: Change[] = [...rewritten];
    const decided = new Map<SettledRecord, string>();
    for (const table of replica.tables.values()) {
      const own = new Map(pending.flatMap(({ id, model, key, name }) => (model === table.name && name === '' ? [[key, id] as const] : [])));
      for (const before of await readLocked(tx, replica, table, [...own.keys()])) {
        if (!isConflict(before.settled)) {
          // A local write has made the sides equal since: folding it closes the entry.
          if (before.writes.length > 0) changes.push({ before, state: before.settled, origin: null, view: before.view });
          continue;
        }
        const choice = choiceOf(before, decision);
        const version = resolve(before.settled, choice, `${replica.name}.${now.incarnation}`, now.clock);
        changes.push({ before, state: [version], origin: null, view: { fields: version.fields, version } });
        decided.set(before, own.get(before.key) as string);
      }
    }
    const { conflicts, waiting, masked } = await writeChanges(tx, replica, now, changes);
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

/** Entries that one transaction decides on: as many as fit, since each record's state has its sides whole. Those over unique values come after the others: a record may have both, and is changed once in a transaction. */
function* inPortions(entries: readonly PendingName[]): Generator<readonly PendingName[]> {
  for (const kind of [entries.filter(({ name }) => name === ''), entries.filter(({ name }) => name !== '')]) {
    for (let from = 0; from < kind.length; ) {
      let to = from;
      for (let bytes = 0; to < kind.length && (to === from || bytes + (kind[to] as PendingName).bytes <= BATCH_BYTES); to++) bytes += (kind[to] as PendingName).bytes;
      yield kind.slice(from, to);
      from = to;
    }
  }
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
