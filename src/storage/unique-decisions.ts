/** A person's decision on who has a unique value: a write to the record that is to go without it, and to the one that is to have it. */
import { sides } from '../replication/conflict.ts';
import { ordered } from '../replication/merge.ts';
import { uniqueValue, yieldValue, type UniqueKey } from '../replication/unique.ts';
import type { Fields, Strategy } from '../replication/version.ts';
import { writeLocally } from '../replication/write.ts';
import type { Decision } from './decide.ts';
import type { Change } from './changes.ts';
import type { ConflictEntry } from './conflicts.ts';
import type { Transaction } from './database.ts';
import { readLocked, viewOf, type SettledRecord } from './records.ts';
import type { Replica } from './replica.ts';

/** The changes that carry decisions out. An entry with a `problem` cannot be decided so; one with neither has been settled by a local write meanwhile. */
export interface UniqueDecisions {
  readonly changes: readonly Change[];
  readonly decided: ReadonlyMap<string, readonly SettledRecord[]>;
  readonly problems: ReadonlyMap<string, string>;
}

/** @param side - The side chosen is none of this conflict's. */
export async function uniqueDecisions(
  tx: Transaction,
  replica: Replica,
  entries: readonly ConflictEntry[],
  decision: Decision,
  now: { readonly incarnation: string; readonly clock: number },
  noSuchSide: (entry: ConflictEntry) => Error,
): Promise<UniqueDecisions> {
  const changes = new Map<SettledRecord, Change>();
  const decided = new Map<string, readonly SettledRecord[]>();
  const problems = new Map<string, string>();
  for (const table of replica.tables.values()) {
    const own = entries.filter(({ model }) => model === table.name);
    const keys = new Set(own.flatMap(({ key, holder }) => [key, ...(holder ? [holder.key] : [])]));
    const records = new Map((await readLocked(tx, replica, table, [...keys])).map((record) => [record.key, record]));
    for (const entry of own) {
      const unique = table.unique.find(({ name }) => name === entry.name);
      const loser = records.get(entry.key);
      const holder = records.get(entry.holder?.key ?? '');
      if (unique === undefined || loser === undefined || holder === undefined) continue;
      const fields = fieldsOf(replica, loser);
      if (fields === null || uniqueValue(unique, fields) !== uniqueValue(unique, entry.sides[0]?.fields ?? null)) {
        if (loser.writes.length > 0 && !changes.has(loser)) changes.set(loser, { before: loser, state: loser.settled, origin: null, view: loser.view });
        continue;
      }
      const outcome = outcomeOf(entry, unique, fields, fieldsOf(replica, holder), decision, noSuchSide);
      if (typeof outcome === 'string') {
        problems.set(entry.id, outcome);
        continue;
      }
      const written: SettledRecord[] = [];
      for (const [record, values] of [[loser, outcome.loser], [holder, outcome.holder]] as const) {
        // What one decision of several does to a record goes before what another does.
        if (values === null || changes.has(record)) continue;
        changes.set(record, rewrite(replica, record, values, outcome.strategy, now));
        written.push(record);
      }
      decided.set(entry.id, written);
    }
  }
  return { changes: [...changes.values()], decided, problems };
}

interface Outcome {
  readonly strategy: Strategy;
  readonly loser: Fields | null;
  readonly holder: Fields | null;
}

/** What both records are to be; why that cannot be, in words, otherwise. */
function outcomeOf(
  entry: ConflictEntry,
  unique: UniqueKey,
  loser: Fields,
  holder: Fields | null,
  decision: Decision,
  noSuchSide: (entry: ConflictEntry) => Error,
): Outcome | string {
  const without = (key: string, fields: Fields | null): Fields | string =>
    (fields && yieldValue(unique, key, fields)) ?? `record ${key} can show nothing in place of its value of ${unique.fields.join(', ')}.`;
  if ('values' in decision) {
    const shown = yieldValue(unique, entry.key, loser) ?? loser;
    return { strategy: 'manual', loser: { ...shown, ...decision.values }, holder: null };
  }
  if ('side' in decision) {
    const all = sides([...entry.sides, ...(entry.holder ? [entry.holder.version] : [])]);
    const chosen = all.find(({ label }) => label === decision.side);
    if (chosen === undefined) throw noSuchSide(entry);
    if (chosen.version !== entry.holder?.version) {
      const given = without(entry.holder?.key ?? '', holder);
      return typeof given === 'string' ? given : { strategy: 'manual', loser, holder: given };
    }
  }
  const left = without(entry.key, loser);
  return typeof left === 'string' ? left : { strategy: 'strategy' in decision ? decision.strategy : 'manual', loser: left, holder: null };
}

/** A write like a local one, with the mark of a resolution. Under `manual` it extends the side shown alone. */
function rewrite(replica: Replica, before: SettledRecord, fields: Fields, strategy: Strategy, { incarnation, clock }: { readonly incarnation: string; readonly clock: number }): Change {
  const self = `${replica.name}.${incarnation}`;
  const view = viewOf(replica, before, before.settled);
  const changed = Object.keys(fields).filter((name) => fields[name] !== view.fields?.[name]);
  const state = writeLocally(before.settled, view, replica.policy, [{ kind: 'update', replica: self, clock, changed }], fields);
  const written = state.find((version) => !before.settled.includes(version));
  if (written === undefined) throw new Error(`a decision on ${before.table.name} ${before.key} made no version`);
  const version = { ...written, resolution: [strategy, self, written.vector[self] as number] as const };
  const after = ordered(state.map((each) => (each === written ? version : each)));
  return { before, state: after, origin: null, view: { ...viewOf(replica, { ...before, view: { fields, version } }, after) } };
}

function fieldsOf(replica: Replica, record: SettledRecord): Fields | null {
  return viewOf(replica, record, record.settled).fields;
}
