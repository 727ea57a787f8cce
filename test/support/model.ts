/**
 * A replica in memory: what its database holds, and how it folds, shows and takes over, as storage does it.
 *
 * Every version travels as the object it was made as, so that the oracle knows it again.
 */
import { largestStamp, nextStamp } from '../../src/replication/clock.ts';
import type { Era, Held, Taken } from '../../src/replication/exchange.ts';
import { sameState, standing, type State } from '../../src/replication/merge.ts';
import { show, type Policy, type View } from '../../src/replication/policy.ts';
import { unconfirmedBy } from '../../src/replication/reseed.ts';
import type { Masked } from '../../src/replication/unique.ts';
import { lastWrite, sameFields, valueOf, type Fields, type ReplicaId, type Vector, type Version } from '../../src/replication/version.ts';
import { asVersion, type LocalWrite } from '../../src/replication/write.ts';
import type { Arbiter } from './arbiter.ts';
import type { Knowing } from './collection.ts';
import type { Oracle } from './oracle.ts';
import type { Rules } from './rules.ts';

/** What a database holds of a record; all of it goes back with a restore. */
export interface StoredRecord extends Held {
  readonly position: number;
  /** The vector of the version shown; null where a view of several sides is. */
  readonly shown: Vector | null;
  /** True where the state cannot be shown: the row still has what it had. */
  readonly waiting: boolean;
  /** What the row has, as a version; only of use while the record waits. */
  readonly held: Version | null;
  /** The model's row. */
  readonly row: Fields | null;
  /** What of the row gives way to another record's value. */
  readonly masked?: Masked | undefined;
  /** The writes that the row's reader has seen, for the oracle. */
  readonly seen: bigint;
  /** The row shows what no peer has confirmed yet; the state is without it. */
  readonly unconfirmed?: true | undefined;
  /** Captured writes, not folded yet, and their bits. */
  readonly log: readonly (LocalWrite & { readonly bit: bigint })[];
}

export interface Replica {
  readonly name: string;
  /** It was not there when the world began. */
  readonly joined: boolean;
  /** Added to the time. */
  skew: number;
  /** Fields that show null where nobody has written them; the others have a default. */
  readonly nullable: ReadonlySet<string>;
  /** Records whose rows refuse to be changed by what peers send. */
  readonly blocked: Set<string>;
  /** The server's start: what has begun since writes under an incarnation of its own. */
  server: string;
  database: Database;
}

/** Everything in it is replaced, never changed, so that a shallow copy is a backup. */
export interface Database {
  /** The fields that its table has columns for; the others are carried. */
  fields: readonly string[];
  /** Under which the rows show what they show. */
  policy: Policy;
  readonly records: Map<string, StoredRecord>;
  /** How far peers' feeds were taken here, by name. */
  readonly taken: Map<string, Taken>;
  /** How far peers are known to have taken ours. */
  readonly known: Map<string, Taken>;
  readonly eras: Era[];
  head: number;
  knowing: Knowing;
  /** Of records that were forgotten, the writes that the row's reader has seen, for the oracle. */
  readonly gone: Map<string, bigint>;
  /** What was here before a restore and has not been confirmed, by record. */
  readonly aside: Map<string, State>;
  /** No peer's feed was taken whole since. */
  reseeding: boolean;
}

/** States by key, as they travel. */
export type Records = readonly (readonly [key: string, state: State])[];

export interface Model {
  /** Stores a record's new state and shows it, if the row lets it. Where values are unique, the rows follow with `showUnique`, since one record's hang on those of others. */
  readonly store: (replica: Replica, key: string, before: StoredRecord, state: State, origin: string | null, view: View) => void;
  /** Gives unique values to their holders, and shows what has changed by it. */
  readonly showUnique: (replica: Replica) => void;
  /** Folds a record's captured writes into its state; where values are unique, those of all. */
  readonly fold: (replica: Replica, key: string) => StoredRecord;
  readonly foldAll: (replica: Replica) => void;
  readonly showAgain: (replica: Replica) => void;
  /** Takes over what a peer sent or reported; tells the states that the peer does not hold all of. */
  readonly takeOver: (replica: Replica, sender: ReplicaId, records: Records) => Records;
}

export function createModel(oracle: Oracle, { receive, unmasked, writeBeside, writeLocally }: Rules, arbiter: Arbiter): Model {
  function store(replica: Replica, key: string, before: StoredRecord, state: State, origin: string | null, view: View): void {
    const { database } = replica;
    const moved = before.position === 0 || !sameState(state, before.state);
    const kept = { state, origin, position: moved ? ++database.head : before.position, shown: view.version?.vector ?? null, log: [] };
    const { waiting, held, row, masked, seen } = before;
    const rowed = arbiter.uniques.length > 0 ? { waiting, held, row, masked, seen } : rowFor(oracle, replica, key, before, state, view);
    database.records.set(key, { ...kept, ...rowed });
  }

  function showUnique(replica: Replica): void {
    if (arbiter.uniques.length === 0) return;
    const { database } = replica;
    for (const [key, { row, masked, aside, stays }] of arbiter.judge(replica)) {
      const record = read(replica, key);
      const { state } = record;
      const view = viewOf(replica, record, state);
      const behind = sidesBehind(database.policy, state, view);
      if (stays) database.records.set(key, { ...record, waiting: true });
      // Nobody who finds no row has seen anything of it.
      else if (aside) database.records.set(key, { ...record, waiting: true, held: null, row: null, masked: undefined, seen: 0n });
      else database.records.set(key, { ...record, unconfirmed: undefined, waiting: false, held: asVersion(behind, view), row, masked, seen: oracle.pastOf(behind) });
    }
  }

  function foldOne(replica: Replica, key: string): void {
    const record = read(replica, key);
    const { log, state, held, masked, waiting } = record;
    const [first] = log;
    if (first === undefined) return;
    const shown: View = waiting ? { fields: held?.fields ?? record.row, version: held } : viewOf(replica, record, state);
    const whole = log.some(({ kind }) => kind !== 'update');
    const changed = new Set(log.flatMap((write) => write.changed));
    const row = record.row && masked ? unmasked(record.row, masked, shown.fields, whole ? null : changed) : record.row;
    const next = waiting ? writeBeside(state, held, log, row, replica.database.knowing.forgotten) : writeLocally(state, shown, replica.database.policy, log, row, forgotten(replica, state));
    const written = next.find((version) => !state.includes(version));
    if (written === undefined) throw new Error(`an acknowledged write to ${key} on ${replica.name} left no version`);
    const past = log.reduce((all, { bit }) => all | bit, record.seen);
    stampEach(key, log, largestStamp(shown.version === null ? state : [...state, shown.version]), written);
    oracle.add(key, written, past);
    if (!whole) oracle.edited(key, written, waiting ? held && [held] : sidesBehind(replica.database.policy, state, shown), changed);
    // What the row shows until it is shown anew is the write itself.
    const left = masked && Object.fromEntries(Object.entries(masked).filter(([, field]) => !whole && !changed.has(field)));
    const settled = { ...record, waiting: false, log: [], masked: left, seen: past, shown: written.vector };
    store(replica, key, { ...settled, held: written }, next, null, viewOf(replica, settled, next));
  }

  /** Writes that are folded together have stamps of their own: after a restore some of them may be folded alone. */
  function stampEach(key: string, log: StoredRecord['log'], before: number, { vector }: Version): void {
    let last = before;
    const stamps = log.map(({ clock }) => (last = nextStamp(clock, last)));
    if (last !== lastWrite(vector)[1]) return;
    for (const [i, { bit, replica }] of log.entries()) if (Object.hasOwn(vector, replica)) oracle.stamped(key, bit, [replica, stamps[i] as number]);
  }

  function fold(replica: Replica, key: string): StoredRecord {
    if (arbiter.uniques.length > 0) foldAll(replica);
    else foldOne(replica, key);
    return read(replica, key);
  }

  function foldAll(replica: Replica): void {
    begin(replica);
    const { records } = replica.database;
    const written = [...records].flatMap(([key, { log }]) => (log.length > 0 ? [key] : []));
    for (const key of written) foldOne(replica, key);
    if (written.length > 0) showUnique(replica);
  }

  function showAgain(replica: Replica): void {
    for (const [key, record] of replica.database.records) {
      if (record.unconfirmed) continue;
      store(replica, key, record, record.state, record.origin, viewOf(replica, record, record.state));
    }
    showUnique(replica);
  }

  function takeOver(replica: Replica, sender: ReplicaId, records: Records): Records {
    foldAll(replica);
    const differing = records.flatMap(([key, incoming]) => {
      const before = read(replica, key);
      const { state, origin, changed, differs } = receive(before, incoming, sender, undefined, replica.database.aside.get(key));
      if (changed) store(replica, key, before, state, origin, viewOf(replica, before, state));
      else if (state.length > 0) replica.database.records.set(key, { ...before, origin });
      confirm(replica.database, key, incoming, state);
      return differs ? [[key, state] as const] : [];
    });
    showUnique(replica);
    return differing;
  }

  /** A peer has spoken of what was set aside. */
  function confirm({ aside }: Database, key: string, ...states: readonly State[]): void {
    const left = unconfirmedBy(aside.get(key) ?? [], ...states);
    if (left.length > 0) aside.set(key, left);
    else aside.delete(key);
  }

  return { store, showUnique, fold, foldAll, showAgain, takeOver };
}

/** What a row shows of a field that nobody has written. */
const DEFAULT = 'd';

/** The row that shows these values. */
export function rowOf({ database: { fields: names }, nullable }: Replica, fields: Fields | null): Fields | null {
  return fields && Object.fromEntries(names.map((name) => [name, valueOf(fields, name) ?? (nullable.has(name) ? null : DEFAULT)]));
}

function rowFor(oracle: Oracle, replica: Replica, key: string, before: StoredRecord, state: State, view: View): Pick<StoredRecord, 'waiting' | 'held' | 'row' | 'seen'> {
  const row = rowOf(replica, view.fields);
  const { held, seen } = before;
  if (replica.blocked.has(key) && !sameFields(row, before.row)) return { waiting: true, held, row: before.row, seen };
  const behind = sidesBehind(replica.database.policy, state, view);
  return { waiting: false, held: asVersion(behind, view), row, seen: oracle.pastOf(behind) };
}

/** Opens a transaction that changes states: the present incarnation takes its place in the feed. */
export function begin({ database, server }: Replica): void {
  if (database.eras.at(-1)?.incarnation === server) return;
  database.eras.push({ incarnation: server, first: database.head + 1 });
}

export function read({ database }: Replica, key: string): StoredRecord {
  const empty = { state: [], origin: null, position: 0, shown: null, waiting: false, held: null, row: null, seen: database.gone.get(key) ?? 0n, log: [] };
  return database.records.get(key) ?? empty;
}

export function viewOf(replica: Replica, record: StoredRecord, state: State): View {
  return show(state, replica.database.policy, idOf(replica), record.shown);
}

/** A replica's id in its present incarnation. */
export function idOf({ name, server }: Replica): ReplicaId {
  return `${name}.${server}`;
}

/** A backup, or what a restore makes of one. */
export function copy({ fields, policy, records, taken, known, eras, head, knowing, gone, aside, reseeding }: Database): Database {
  return { fields, policy, records: new Map(records), taken: new Map(taken), known: new Map(known), eras: [...eras], head, knowing, gone: new Map(gone), aside: new Map(aside), reseeding };
}

/** A record that is written anew must not be covered by what is left of it elsewhere. */
function forgotten({ database }: Replica, state: State): number {
  return state.length === 0 ? database.knowing.forgotten : 0;
}

/** The sides that somebody who reads the row has seen: under `manual` those of the value shown, otherwise all. */
export function sidesBehind(policy: Policy, state: State, { version }: View): State {
  if (policy !== 'manual' || version === null) return state;
  return standing(state).filter((other) => sameFields(other.fields, version.fields));
}

