/** What must hold of addresses, which no two records may have: judged from the states alone, as docs/architecture.md says it ("A unique value is held by the claim made first"). */
import type { Claim, Evidence, LogEntry, RecordState, Violation } from './facts.ts';

/** A record's claim. */
interface Claimant extends Claim {
  readonly key: string;
}

/** Each address is shown by the record that claimed it first, on every replica that shows a side with it; all others show it marked, and wait as a conflict that names both records. */
export function* uniqueValues({ states, logs }: Evidence): Generator<Violation> {
  for (const [replica, own] of states) {
    const holders = holdersOf(own);
    const pending = pendingByKey(logs.get(replica) ?? []);
    for (const state of own) {
      const { key, row, claims } = state;
      const entries = pending.get(key) ?? [];
      pending.delete(key);
      if (row === null || state.waiting) {
        if (row === null && entries.length > 0) yield told(key, replica, 'is not shown and waits for an address all the same');
        continue;
      }
      const behind = claims.filter(({ email }) => row.email === email || row.email === `${email}#${key}`);
      const ways = new Set(behind.map(({ email }) => email));
      if (ways.size === 0) yield told(key, replica, `shows ${row.email}, which none of its sides has`);
      // One side has what is shown in place of the other's: the row does not say which of them it shows.
      if (ways.size !== 1) continue;
      yield* judge(replica, state, row.email, holders.get([...ways][0] as string) as Claimant, entries);
    }
    for (const key of pending.keys()) yield told(key, replica, 'waits for an address and is unknown');
  }
}

function* judge(replica: string, { key }: RecordState, shown: string, holder: Claimant, entries: readonly LogEntry[]): Generator<Violation> {
  const { email } = holder;
  if (holder.key === key) {
    if (shown !== email) yield told(key, replica, `claimed ${email} first and shows ${shown}`);
    if (entries.length > 0) yield told(key, replica, `has ${email} and waits for it all the same`);
    return;
  }
  if (shown === email) yield told(key, replica, `shows ${email}, which record ${holder.key} claimed before it`);
  const [entry, another] = entries;
  if (entry === undefined || another !== undefined) yield told(key, replica, `gives ${email} way to record ${holder.key} and has ${entries.length} pending conflicts over it`);
  else if (entry.holder?.key !== holder.key || !entry.sides.some((side) => side?.email === email) || entry.holder.values?.email !== email) {
    yield told(key, replica, `waits for ${email} of record ${holder.key}, and its conflict names ${JSON.stringify([entry.sides, entry.holder])}`);
  }
}

/** By address, the first claim: the least in (stamp, replica, key). */
function holdersOf(states: readonly RecordState[]): Map<string, Claimant> {
  const holders = new Map<string, Claimant>();
  for (const { key, claims } of states) {
    for (const claim of claims) {
      const known = holders.get(claim.email);
      if (known === undefined || isBefore({ ...claim, key }, known)) holders.set(claim.email, { ...claim, key });
    }
  }
  return holders;
}

function isBefore({ by: [replica, stamp], key }: Claimant, { by: [otherReplica, otherStamp], key: otherKey }: Claimant): boolean {
  if (stamp !== otherStamp) return stamp < otherStamp;
  return replica !== otherReplica ? replica < otherReplica : key < otherKey;
}

function pendingByKey(entries: readonly LogEntry[]): Map<string, LogEntry[]> {
  const pending = new Map<string, LogEntry[]>();
  for (const entry of entries) if (entry.pending && entry.kind === 'UNIQUE') pending.set(entry.key, [...(pending.get(entry.key) ?? []), entry]);
  return pending;
}

function told(key: string, replica: string, what: string): Violation {
  return { rule: 'unique value', key, message: `on ${replica} record ${key} ${what}` };
}
