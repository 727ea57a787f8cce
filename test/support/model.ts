/**
 * A replica in memory: what its database holds, and how it folds, shows and takes over, as storage does it.
 *
 * Every version travels as the object it was made as, so that the oracle knows it again.
 */
import { largestStamp } from '../../src/replication/clock.ts';
import type { Era, Held, Taken } from '../../src/replication/exchange.ts';
import { sameState, standing, type State } from '../../src/replication/merge.ts';
import { show, type Policy, type View } from '../../src/replication/policy.ts';
import { unconfirmedBy } from '../../src/replication/reseed.ts';
import { sameFields, valueOf, type Fields, type ReplicaId, type Vector, type Version } from '../../src/replication/version.ts';
import { asVersion, type LocalWrite } from '../../src/replication/write.ts';
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
  /** The writes that the row's reader has seen, for the oracle. */
  readonly seen: bigint;
  /** The row shows what no peer has confirmed yet; the state is without it. */
  readonly unconfirmed?: true;
  /** Captured writes, not folded yet, and their bits. */
  readonly log: readonly (LocalWrite & { readonly bit: bigint })[];
}

export interface Replica {
  readonly name: string;
  /** Added to the time. */
  skew: number;
  /** The fields that its table has columns for; the others are carried. */
  fields: readonly string[];
  /** Records whose rows refuse to be changed by what peers send. */
  readonly blocked: Set<string>;
  /** The server's start: what has begun since writes under an incarnation of its own. */
  server: string;
  database: Database;
}

/** Everything in it is replaced, never changed, so that a shallow copy is a backup. */
export interface Database {
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
  /** Stores a record's new state and shows it, if the row lets it. */
  readonly store: (replica: Replica, key: string, before: StoredRecord, state: State, origin: string | null, view: View) => void;
  /** Folds a record's captured writes into its state. */
  readonly fold: (replica: Replica, key: string) => StoredRecord;
  readonly foldAll: (replica: Replica) => void;
  readonly showAgain: (replica: Replica) => void;
  /** Takes over what a peer sent or reported; tells the states that the peer does not hold all of. */
  readonly takeOver: (replica: Replica, sender: ReplicaId, records: Records) => Records;
}

export function createModel(oracle: Oracle, { merge, receive, writeLocally }: Rules): Model {
  function store(replica: Replica, key: string, before: StoredRecord, state: State, origin: string | null, view: View): void {
    const { database } = replica;
    const moved = before.position === 0 || !sameState(state, before.state);
    const waiting = replica.blocked.has(key) && !sameFields(rowOf(replica, view.fields), before.row);
    const behind = sidesBehind(database.policy, state, view);
    database.records.set(key, {
      state,
      origin,
      position: moved ? ++database.head : before.position,
      shown: view.version?.vector ?? null,
      waiting,
      held: waiting ? before.held : asVersion(behind, view),
      row: waiting ? before.row : rowOf(replica, view.fields),
      seen: waiting ? before.seen : oracle.pastOf(behind),
      log: [],
    });
  }

  function fold(replica: Replica, key: string): StoredRecord {
    const record = read(replica, key);
    const { log, row, state, held } = record;
    const [first, ...rest] = log;
    if (first === undefined) return record;
    // A write to a row that does not show the state has not seen the state: it becomes a side of its own.
    const late = { ...first, clock: Math.max(first.clock, largestStamp(state) + 1) };
    const next = record.waiting
      ? merge(state, writeLocally(held ? [held] : [], { fields: row, version: held }, 'manual', [late, ...rest], row, forgotten(replica, held ? [held] : [])))
      : writeLocally(state, viewOf(replica, record, state), replica.database.policy, log, row, forgotten(replica, state));
    const written = next.find((version) => !state.includes(version));
    if (written === undefined) throw new Error(`an acknowledged write to ${key} on ${replica.name} left no version`);
    const past = log.reduce((all, { bit }) => all | bit, record.seen);
    oracle.add(key, written, past);
    // What the row shows until it is shown anew is the write itself.
    const settled = { ...record, waiting: false, log: [], seen: past, shown: written.vector };
    store(replica, key, { ...settled, held: written }, next, null, viewOf(replica, settled, next));
    return read(replica, key);
  }

  function foldAll(replica: Replica): void {
    begin(replica);
    for (const key of replica.database.records.keys()) fold(replica, key);
  }

  function showAgain(replica: Replica): void {
    for (const [key, record] of replica.database.records) {
      if (record.unconfirmed) continue;
      store(replica, key, record, record.state, record.origin, viewOf(replica, record, record.state));
    }
  }

  function takeOver(replica: Replica, sender: ReplicaId, records: Records): Records {
    foldAll(replica);
    return records.flatMap(([key, incoming]) => {
      const before = read(replica, key);
      const { state, origin, changed, differs } = receive(before, incoming, sender, undefined, replica.database.aside.get(key));
      if (changed) store(replica, key, before, state, origin, viewOf(replica, before, state));
      else if (state.length > 0) replica.database.records.set(key, { ...before, origin });
      confirm(replica.database, key, incoming, state);
      return differs ? [[key, state] as const] : [];
    });
  }

  /** A peer has spoken of what was set aside. */
  function confirm({ aside }: Database, key: string, ...states: readonly State[]): void {
    const left = unconfirmedBy(aside.get(key) ?? [], ...states);
    if (left.length > 0) aside.set(key, left);
    else aside.delete(key);
  }

  return { store, fold, foldAll, showAgain, takeOver };
}

/** What a row shows of a field that nobody has written. */
const DEFAULT = 'd';

/** The row that shows these values. */
export function rowOf({ fields: names }: Replica, fields: Fields | null): Fields | null {
  return fields && Object.fromEntries(names.map((name) => [name, valueOf(fields, name) ?? DEFAULT]));
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
export function copy({ policy, records, taken, known, eras, head, knowing, gone, aside, reseeding }: Database): Database {
  return { policy, records: new Map(records), taken: new Map(taken), known: new Map(known), eras: [...eras], head, knowing, gone: new Map(gone), aside: new Map(aside), reseeding };
}

/** A record that is written anew must not be covered by what is left of it elsewhere. */
function forgotten({ database }: Replica, state: State): number {
  return state.length === 0 ? database.knowing.forgotten : 0;
}

/** The sides that somebody who reads the row has seen: under `manual` those of the value shown, otherwise all. */
function sidesBehind(policy: Policy, state: State, { version }: View): State {
  if (policy !== 'manual' || version === null) return state;
  return standing(state).filter((other) => sameFields(other.fields, version.fields));
}

