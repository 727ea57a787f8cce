/**
 * A world of replicas in memory over the pure core, faithful to how storage keeps things, and an oracle beside it.
 *
 * Deterministic: time is a counter, incarnations are numbered, and whatever is left to chance comes in as an argument. Every version
 * travels as the object it was made as, so that the oracle knows it again.
 */
import { choose, chooseValues, isConflict } from '../../src/replication/conflict.ts';
import { largestStamp } from '../../src/replication/clock.ts';
import {
  isWithheld,
  receive,
  resume,
  sameCheckpoint,
  type Checkpoint,
  type Era,
  type Held,
  type Taken,
} from '../../src/replication/exchange.ts';
import { merge, sameState, type State } from '../../src/replication/merge.ts';
import { latestField, livingSides, show, type Policy, type View } from '../../src/replication/policy.ts';
import { join, sameFields, type Fields, type ReplicaId, type Vector, type Version } from '../../src/replication/version.ts';
import { resolve, writeLocally, type Choice, type LocalWrite } from '../../src/replication/write.ts';
import { createOracle, type Oracle } from './oracle.ts';

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
  /** Captured writes, not folded yet, and their bits. */
  readonly log: readonly (LocalWrite & { readonly bit: bigint })[];
}

export interface Replica {
  readonly name: string;
  /** Added to the time. */
  skew: number;
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
}

export interface Batch {
  readonly sender: ReplicaId;
  readonly receiver: ReplicaId;
  readonly start: Checkpoint | null;
  readonly end: Checkpoint;
  readonly records: readonly (readonly [key: string, state: State])[];
}

/** What the receiver reports back: its states where they differ. */
export interface Answer {
  readonly batch: Batch;
  readonly records: Batch['records'];
}

/** What happens on the way: everything arrives, the batch does not, or its answer does not. */
export type Fate = 'arrives' | 'batch lost' | 'answer lost';

export interface World {
  readonly oracle: Oracle;
  readonly replicas: readonly Replica[];
  readonly replica: (name: string) => Replica;
  /** Writes to the row as any writer does: a patch, or null for a deletion. False where it changes nothing. */
  readonly write: (name: string, patch: Fields | null, key?: string) => boolean;
  /** A person's decision on a waiting conflict. False where there is none, or where the outcome cannot be shown. */
  readonly decide: (name: string, decision: 'latest' | 'field-wise' | { values: Fields } | { side: number }, key?: string) => boolean;
  /** The batches that a sender has for a receiver whose checkpoint it was told. */
  readonly prepare: (from: string, to: string, limit?: number) => Batch[];
  /** Null where the receiver refuses the batch. */
  readonly deliver: (batch: Batch) => Answer | null;
  readonly take: (answer: Answer) => void;
  /** All batches, one after the other; tells how many records were sent. `fates` says what becomes of the first ones. */
  readonly sync: (from: string, to: string, options?: { fates?: readonly Fate[]; limit?: number }) => number;
  readonly backup: (name: string) => Database;
  readonly restore: (name: string, backup: Database) => void;
  readonly restart: (name: string) => void;
  readonly setPolicy: (name: string, policy: Policy) => void;
  readonly block: (name: string, key?: string) => void;
  readonly unblock: (name: string) => void;
  /** The state with captured writes folded in. */
  readonly state: (name: string, key?: string) => State;
  /** What the row holds. */
  readonly row: (name: string, key?: string) => Fields | null;
}

export const FIELDS = ['f1', 'f2'] as const;
export const KEY = 'r';

export function createWorld(setup: Readonly<Record<string, Policy>>): World {
  const oracle = createOracle();
  let time = 1000;
  let incarnations = 0;
  const replicas = Object.entries(setup).map(
    ([name, policy]): Replica => ({
      name,
      skew: 0,
      blocked: new Set(),
      server: `${++incarnations}`,
      database: { policy, records: new Map(), taken: new Map(), known: new Map(), eras: [], head: 0 },
    }),
  );
  const byName = new Map(replicas.map((replica) => [replica.name, replica]));
  const find = (name: string): Replica => byName.get(name) as Replica;
  const now = (replica: Replica): number => Math.max(1, ++time + replica.skew);
  const idOf = (replica: Replica): ReplicaId => `${replica.name}.${replica.server}`;

  /** Opens a transaction that changes states: the present incarnation takes its place in the feed. */
  function begin({ database, server }: Replica): void {
    if (database.eras.at(-1)?.incarnation === server) return;
    database.eras.push({ incarnation: server, first: database.head + 1 });
  }

  function read({ database }: Replica, key: string): StoredRecord {
    const empty = { state: [], origin: null, position: 0, shown: null, waiting: false, held: null, row: null, seen: 0n, log: [] };
    return database.records.get(key) ?? empty;
  }

  function viewOf(replica: Replica, record: StoredRecord, state: State): View {
    return show(state, replica.database.policy, idOf(replica), record.shown);
  }

  /** Stores a record's new state and shows it, if the row lets it. */
  function store(replica: Replica, key: string, before: StoredRecord, state: State, origin: string | null, view: View): void {
    const { database } = replica;
    const moved = before.position === 0 || !sameState(state, before.state);
    const waiting = replica.blocked.has(key) && !sameFields(view.fields, before.row);
    const behind = sidesBehind(database.policy, state, view);
    database.records.set(key, {
      state,
      origin,
      position: moved ? ++database.head : before.position,
      shown: view.version?.vector ?? null,
      waiting,
      held: waiting ? before.held : heldVersion(behind, view),
      row: waiting ? before.row : view.fields,
      seen: waiting ? before.seen : oracle.pastOf(behind),
      log: [],
    });
  }

  /** Folds a record's captured writes into its state. */
  function fold(replica: Replica, key: string): StoredRecord {
    const record = read(replica, key);
    const { log, row, state, held } = record;
    const [first, ...rest] = log;
    if (first === undefined) return record;
    // A write to a row that does not show the state has not seen the state: it becomes a side of its own.
    const late = { ...first, clock: Math.max(first.clock, largestStamp(state) + 1) };
    const next = record.waiting
      ? merge(state, writeLocally(held ? [held] : [], { fields: row, version: held }, 'manual', [late, ...rest], row))
      : writeLocally(state, viewOf(replica, record, state), replica.database.policy, log, row);
    const written = next.find((version) => !state.includes(version));
    if (written === undefined) throw new Error(`an acknowledged write to ${key} on ${replica.name} left no version`);
    const past = log.reduce((all, { bit }) => all | bit, record.seen);
    oracle.add(key, written, past);
    // What the row shows until it is shown anew is the write itself.
    const settled = { ...record, waiting: false, log: [], seen: past, shown: written.vector };
    store(replica, key, { ...settled, held: written }, next, null, viewOf(replica, settled, next));
    return read(replica, key);
  }

  function change(replica: Replica): void {
    begin(replica);
    for (const key of replica.database.records.keys()) fold(replica, key);
  }

  function showAgain(replica: Replica): void {
    for (const [key, record] of replica.database.records) {
      store(replica, key, record, record.state, record.origin, viewOf(replica, record, record.state));
    }
  }

  function setPolicy(name: string, policy: Policy): void {
    const replica = find(name);
    if (replica.database.policy === policy) return;
    // Captured writes saw what was shown under the old one.
    change(replica);
    replica.database.policy = policy;
    showAgain(replica);
  }

  function takeOver(replica: Replica, sender: ReplicaId, records: Batch['records']): Batch['records'] {
    change(replica);
    return records.flatMap(([key, incoming]) => {
      const before = read(replica, key);
      const { state, origin, changed, differs } = receive(before, incoming, sender);
      if (changed) store(replica, key, before, state, origin, viewOf(replica, before, state));
      else replica.database.records.set(key, { ...before, origin });
      return differs ? [[key, state] as const] : [];
    });
  }

  function prepare(from: string, to: string, limit = Infinity): Batch[] {
    const [sender, receiver] = [find(from), find(to)];
    const { database } = sender;
    change(sender);
    begin(receiver);
    const taken = receiver.database.taken.get(from) ?? null;
    const { after } = resume(taken, database.eras, database.known.get(to) ?? null);
    if (taken?.incarnation === sender.server) database.known.set(to, taken);
    const feed = [...database.records].filter(([, { position }]) => position > after).sort((a, b) => a[1].position - b[1].position);
    const batches: Batch[] = [];
    let start: Checkpoint | null = taken;
    for (let i = 0; i < feed.length; i += limit) {
      const part = feed.slice(i, i + limit);
      const end = { incarnation: sender.server, position: (part.at(-1) as (typeof part)[0])[1].position };
      const records = part.filter(([, record]) => !isWithheld(record, idOf(receiver))).map(([key, { state }]) => [key, state] as const);
      batches.push({ sender: idOf(sender), receiver: idOf(receiver), start, end, records });
      start = end;
    }
    return batches;
  }

  function deliver(batch: Batch): Answer | null {
    const receiver = find(nameOf(batch.receiver));
    begin(receiver);
    const peer = nameOf(batch.sender);
    if (idOf(receiver) !== batch.receiver) return null;
    if (!sameCheckpoint(receiver.database.taken.get(peer) ?? null, batch.start)) return null;
    const records = takeOver(receiver, batch.sender, batch.records);
    receiver.database.taken.set(peer, { ...batch.end, taker: receiver.server });
    return { batch, records };
  }

  function take({ batch, records }: Answer): void {
    const sender = find(nameOf(batch.sender));
    takeOver(sender, batch.receiver, records);
    const [name, taker] = batch.receiver.split('.') as [string, string];
    if (idOf(sender) === batch.sender) sender.database.known.set(name, { ...batch.end, taker });
  }

  return {
    oracle,
    replicas,
    replica: find,
    write: (name, patch, key = KEY) => {
      const replica = find(name);
      const record = read(replica, key);
      const { row } = record;
      const changed = patch && row ? Object.keys(patch).filter((field) => patch[field] !== row[field]) : [];
      if (patch === null ? row === null : row !== null && changed.length === 0) return false;
      const kind = patch === null ? 'delete' : row === null ? 'insert' : 'update';
      const blank = Object.fromEntries(FIELDS.map((field) => [field, '']));
      const write = { kind, replica: idOf(replica), clock: now(replica), changed, bit: oracle.next() } as const;
      const after = patch && { ...(row ?? blank), ...patch };
      replica.database.records.set(key, { ...record, row: after, log: [...record.log, write] });
      return true;
    },
    decide: (name, decision, key = KEY) => {
      const replica = find(name);
      begin(replica);
      const before = fold(replica, key);
      const { state } = before;
      if (!isConflict(state)) return false;
      let choice: Choice;
      if (typeof decision === 'string') choice = choose(state, decision);
      else if ('values' in decision) choice = chooseValues(state, viewOf(replica, before, state).fields, decision.values);
      else choice = { strategy: 'manual', fields: (state[decision.side % state.length] as Version).fields };
      // As a local write is: were it kept beside a row that does not show it, the row's next write would cover it unseen.
      if (replica.blocked.has(key) && !sameFields(choice.fields, before.row)) return false;
      const version = resolve(state, choice, idOf(replica), now(replica));
      oracle.add(key, version, oracle.pastOf(state) | oracle.next());
      store(replica, key, before, merge(state, [version]), null, viewOf(replica, before, [version]));
      return true;
    },
    prepare,
    deliver,
    take,
    sync: (from, to, { fates = [], limit = Infinity } = {}) => {
      let sent = 0;
      for (const [i, batch] of prepare(from, to, limit).entries()) {
        sent += batch.records.length;
        const fate = fates[i] ?? 'arrives';
        const answer = fate === 'batch lost' ? null : deliver(batch);
        if (answer && fate !== 'answer lost') take(answer);
      }
      return sent;
    },
    backup: (name) => copy(find(name).database),
    restore: (name, backup) => {
      const { policy } = find(name).database;
      find(name).database = copy(backup);
      find(name).server = `${++incarnations}`;
      setPolicy(name, policy);
    },
    restart: (name) => {
      find(name).server = `${++incarnations}`;
    },
    setPolicy,
    block: (name, key = KEY) => void find(name).blocked.add(key),
    unblock: (name) => {
      const replica = find(name);
      change(replica);
      replica.blocked.clear();
      showAgain(replica);
    },
    state: (name, key = KEY) => {
      begin(find(name));
      return fold(find(name), key).state;
    },
    row: (name, key = KEY) => read(find(name), key).row,
  };
}

/** The sides that somebody who reads the row has seen: under `manual` those of the value shown, otherwise all. */
function sidesBehind(policy: Policy, state: State, { version }: View): State {
  if (policy !== 'manual' || version === null) return state;
  return state.filter((other) => sameFields(other.fields, version.fields));
}

/** A view as a version. One of several sides is no version, but a write over it has seen them all. */
function heldVersion(behind: State, { fields, version }: View): Version | null {
  if (behind.length < 2) return version;
  const living = livingSides(behind);
  const names = Object.keys(fields ?? {});
  const stamps = Object.fromEntries(names.map((name) => [name, latestField(living, name)?.stamp ?? (['', 0] as const)] as const));
  return { vector: join(behind.map(({ vector }) => vector)), fields, stamps };
}

/** Of a replica id: who it is. */
function nameOf(id: ReplicaId): string {
  return id.slice(0, id.indexOf('.'));
}

function copy({ policy, records, taken, known, eras, head }: Database): Database {
  return { policy, records: new Map(records), taken: new Map(taken), known: new Map(known), eras: [...eras], head };
}
