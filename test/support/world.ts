/**
 * A world of replicas in memory over the pure core, faithful to how storage keeps things, and an oracle beside it.
 *
 * Deterministic: time is a counter, incarnations are numbered, and whatever is left to chance comes in as an argument.
 */
import { choose, chooseValues, isConflict } from '../../src/replication/conflict.ts';
import type { Checkpoint } from '../../src/replication/exchange.ts';
import type { State } from '../../src/replication/merge.ts';
import type { Policy } from '../../src/replication/policy.ts';
import type { UniqueKey } from '../../src/replication/unique.ts';
import { sameFields, type Fields, type ReplicaId, type Version } from '../../src/replication/version.ts';
import type { Choice } from '../../src/replication/write.ts';
import { createArbiter } from './arbiter.ts';
import { createAwards, type Award } from './awards.ts';
import { begin, copy, createModel, idOf, read, rowOf, viewOf, type Database, type Records, type Replica } from './model.ts';
import { createCollector, hear, knowNothing, tell } from './collection.ts';
import { createOracle, type Oracle } from './oracle.ts';
import { createUpgrade } from './added-fields.ts';
import { RULES, type Rules } from './rules.ts';

export interface Batch {
  readonly sender: ReplicaId;
  readonly receiver: ReplicaId;
  readonly start: Checkpoint | null;
  readonly end: Checkpoint;
  readonly records: Records;
  /** How often the sender, and the receiver, had forgotten records when it was made. */
  readonly generations: readonly [number, number];
  /** How often what the receiver's records go back to had changed. */
  readonly rootChanges: number;
}

/** What the receiver reports back: its states where they differ. */
export interface Answer {
  readonly batch: Batch;
  readonly records: Records;
}

/** What happens on the way: everything arrives, the batch does not, or its answer does not. */
export type Fate = 'arrives' | 'batch lost' | 'answer lost';

export interface WorldOptions {
  readonly fields?: readonly string[];
  readonly unique?: readonly UniqueKey[];
  readonly rules?: Partial<Rules>;
}

export interface World {
  readonly oracle: Oracle;
  readonly fields: readonly string[];
  readonly replicas: readonly Replica[];
  readonly replica: (name: string) => Replica;
  /** A replica that joins later, empty. */
  readonly add: (name: string, policy: Policy) => void;
  readonly unique: readonly UniqueKey[];
  /** Writes to the row as any writer does: a patch, or null for a deletion. False where it changes nothing, or the table refuses a value that another row has. */
  readonly write: (name: string, patch: Fields | null, key?: string) => boolean;
  /** Exchanges the values of a field between two rows, in one transaction. False where there is nothing to exchange. */
  readonly swap: (name: string, key: string, other: string, field: string) => boolean;
  /** A person's decision on who has a unique value that a record claims in vain. False where there is none, or where the outcome cannot be shown. */
  readonly award: (name: string, award: Award, key?: string) => boolean;
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
  /** Drops and forgets tombstones; tells how many records that changed. */
  readonly collect: (name: string) => number;
  /** An operator's word on `on` that `name` does not come back. */
  readonly strike: (on: string, name: string) => void;
  readonly setPolicy: (name: string, policy: Policy) => void;
  /** A later version of the schema: a column for one more field, which its migration may fill. What was carried of it is shown. False where it is there. */
  readonly addField: (name: string, field: string, fill?: string) => boolean;
  readonly block: (name: string, key?: string) => void;
  readonly unblock: (name: string) => void;
  /** The state with captured writes folded in. */
  readonly state: (name: string, key?: string) => State;
  /** What the row holds. */
  readonly row: (name: string, key?: string) => Fields | null;
}

export const FIELDS = ['f1', 'f2'] as const;
export const KEY = 'r';

export function createWorld(setup: Readonly<Record<string, Policy>>, options: WorldOptions = {}): World {
  const { fields: names = FIELDS, unique = [] } = options;
  const nullable = new Set(unique.flatMap(({ yields }) => (yields?.as === 'null' ? [yields.field] : [])));
  const rules: Rules = { ...RULES, ...options.rules };
  const { isWithheld, merge, resolve, resume, sameCheckpoint } = rules;
  const oracle = createOracle();
  const arbiter = createArbiter(unique, rules);
  const model = createModel(oracle, rules, arbiter);
  const { store, fold, foldAll, showAgain, showUnique, takeOver } = model;
  const collector = createCollector(oracle, model, rules);
  const upgrade = createUpgrade(oracle, model, arbiter, rules, (replica) => now(replica));
  let time = 1000;
  let incarnations = 0;
  const replicas: Replica[] = [];
  const byName = new Map<string, Replica>();
  const find = (name: string): Replica => byName.get(name) as Replica;
  const now = (replica: Replica): number => Math.max(1, ++time + replica.skew);
  function add(name: string, policy: Policy, joined = true): void {
    const database: Database = { fields: names, policy, records: new Map(), taken: new Map(), known: new Map(), eras: [], head: 0, knowing: knowNothing(name), gone: new Map(), aside: new Map(), reseeding: false };
    const replica: Replica = { name, joined, skew: 0, nullable, blocked: new Set(), server: `${++incarnations}`, database };
    replicas.push(replica);
    byName.set(name, replica);
  }
  for (const [name, policy] of Object.entries(setup)) add(name, policy, false);

  /** What a record's writes come to that a database holds, folded or not. */
  function heldBy({ records, gone, aside }: Database, key: string): bigint {
    const record = records.get(key);
    const forgotten = (gone.get(key) ?? 0n) | oracle.pastOf(aside.get(key) ?? []);
    return record ? record.log.reduce((all, { bit }) => all | bit, oracle.pastOf(record.state) | forgotten) : forgotten;
  }

  function restore(name: string, backup: Database): void {
    const replica = find(name);
    const others = replicas.filter((other) => other !== replica).map(({ database }) => database);
    for (const key of new Set([...replica.database.records.keys(), ...replica.database.gone.keys(), ...replica.database.aside.keys()])) {
      const left = [backup, ...others].reduce((all, database) => all | heldBy(database, key), 0n);
      oracle.excuse(key, heldBy(replica.database, key) & ~left);
    }
    const { policy } = replica.database;
    replica.database = copy(backup);
    replica.server = `${++incarnations}`;
    setPolicy(name, policy);
  }

  function setPolicy(name: string, policy: Policy): void {
    const replica = find(name);
    if (replica.database.policy === policy) return;
    // Captured writes saw what was shown under the old one.
    foldAll(replica);
    replica.database.policy = policy;
    showAgain(replica);
  }

  function prepare(from: string, to: string, limit = Infinity): Batch[] {
    const [sender, receiver] = [find(from), find(to)];
    const { database } = sender;
    foldAll(sender);
    begin(receiver);
    const [mine, theirs] = [tell(sender, now(sender)), tell(receiver, now(receiver))];
    const heard = [[receiver, hear(receiver, from, mine, rules)], [sender, hear(sender, to, theirs, rules)]] as const;
    if (heard.some(([, word]) => word === 'struck')) return [];
    for (const [replica, word] of heard) if (typeof word !== 'string') collector.reseed(replica, word, now(replica), `${++incarnations}`);
    if (heard.some(([, word]) => word !== 'welcome')) return prepare(from, to, limit);
    for (const [replica] of heard) collector.endReseed(replica);
    const generations = [database.knowing.generation, receiver.database.knowing.generation] as const;
    const { rootChanges } = receiver.database.knowing;
    const taken = receiver.database.taken.get(from) ?? null;
    const { after } = resume(taken, database.eras, database.known.get(to) ?? null);
    if (taken?.incarnation === sender.server) database.known.set(to, taken);
    const changed = [...database.records].filter(([, { position }]) => position > after);
    const feed = changed.toSorted((a, b) => a[1].position - b[1].position);
    const batches: Batch[] = [];
    let start: Checkpoint | null = taken;
    for (let i = 0; i < feed.length; i += limit) {
      const part = feed.slice(i, i + limit);
      const end = { incarnation: sender.server, position: (part.at(-1) as (typeof part)[0])[1].position };
      const records = part.filter(([, record]) => record.state.length > 0 && !isWithheld(record, idOf(receiver))).map(([key, { state }]) => [key, state] as const);
      batches.push({ sender: idOf(sender), receiver: idOf(receiver), start, end, records, generations, rootChanges });
      start = end;
    }
    if (feed.length === 0 && after > 0 && taken?.incarnation !== sender.server) {
      const end = { incarnation: sender.server, position: after };
      batches.push({ sender: idOf(sender), receiver: idOf(receiver), start, end, records: [], generations, rootChanges });
    }
    return batches;
  }

  function deliver(batch: Batch): Answer | null {
    const receiver = find(nameOf(batch.receiver));
    begin(receiver);
    const peer = nameOf(batch.sender);
    const { generation, rootChanges } = receiver.database.knowing;
    if (idOf(receiver) !== batch.receiver || generation !== batch.generations[1] || rootChanges !== batch.rootChanges) return null;
    if (!sameCheckpoint(receiver.database.taken.get(peer) ?? null, batch.start)) return null;
    const records = takeOver(receiver, batch.sender, batch.records);
    receiver.database.taken.set(peer, { ...batch.end, taker: receiver.server });
    collector.endReseed(receiver);
    return { batch, records };
  }

  function take({ batch, records }: Answer): void {
    const sender = find(nameOf(batch.sender));
    // What was reported to a history, or before records were forgotten, the peer's own feed brings as well.
    if (idOf(sender) !== batch.sender) return;
    if (sender.database.knowing.generation === batch.generations[0]) takeOver(sender, batch.receiver, records);
    const [name, taker] = batch.receiver.split('.') as [string, string];
    sender.database.known.set(name, { ...batch.end, taker });
  }

  /** What an insert puts where nothing is said: of a unique value that each must have, one of its own. */
  function blankRow(replica: Replica, key: string): Fields {
    const own = unique.flatMap(({ fields: [field] }) => (field === undefined || nullable.has(field) ? [] : [[field, key] as const]));
    const blank = names.map((field) => [field, nullable.has(field) ? null : ''] as const);
    return { ...rowOf(replica, {}), ...Object.fromEntries([...blank, ...own]) };
  }

  function writeRows(replica: Replica, patches: ReadonlyMap<string, Fields | null>): boolean {
    const writes = [...patches].map(([key, patch]) => {
      const record = read(replica, key);
      const { row } = record;
      const changed = patch && row ? Object.keys(patch).filter((field) => patch[field] !== row[field]) : [];
      const idle = patch === null ? row === null : row !== null && changed.length === 0;
      return { key, record, changed, idle, kind: patch === null ? 'delete' : row === null ? 'insert' : 'update', after: patch && { ...(row ?? blankRow(replica, key)), ...patch } } as const;
    });
    if (writes.some(({ idle }) => idle)) return false;
    if (arbiter.refuses(replica, new Map(writes.flatMap(({ key, after }) => (after ? [[key, after]] : []))))) return false;
    for (const { key, record, changed, kind, after } of writes) {
      const write = { kind, replica: idOf(replica), clock: now(replica), changed, bit: oracle.next(key) } as const;
      if (after) oracle.gave(key, kind === 'insert' ? after : Object.fromEntries(changed.map((field) => [field, after[field] ?? null])));
      replica.database.records.set(key, { ...record, row: after, log: [...record.log, write] });
    }
    return true;
  }

  return {
    oracle,
    fields: names,
    replicas,
    replica: find,
    add,
    unique,
    write: (name, patch, key = KEY) => writeRows(find(name), new Map([[key, patch]])),
    swap: (name, key, other, field) => {
      const [one, two] = [read(find(name), key).row, read(find(name), other).row];
      if (!one || !two || one[field] === two[field]) return false;
      return writeRows(find(name), new Map([[key, { [field]: two[field] ?? null }], [other, { [field]: one[field] ?? null }]]));
    },
    award: createAwards(oracle, model, arbiter, rules, find, now),
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
      if (replica.blocked.has(key) && !sameFields(rowOf(replica, choice.fields), before.row)) return false;
      const version = resolve(state, choice, idOf(replica), now(replica));
      const judgement = arbiter.judge(replica, new Map([[key, [version]]])).get(key);
      if (unique.length > 0 && (judgement?.stays || judgement?.aside || (typeof decision === 'object' && 'values' in decision && judgement?.masked))) return false;
      if (choice.fields) oracle.gave(key, choice.fields);
      oracle.add(key, version, oracle.pastOf(state) | oracle.next(key));
      store(replica, key, before, merge(state, [version]), null, viewOf(replica, before, [version]));
      showUnique(replica);
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
    restore,
    restart: (name) => {
      find(name).server = `${++incarnations}`;
    },
    collect: (name) => collector.collect(find(name), now(find(name))),
    strike: (on, name) => {
      const { database } = find(on);
      database.knowing = { ...database.knowing, struck: new Set([...database.knowing.struck, name]) };
    },
    setPolicy,
    addField: (name, field, fill) => upgrade(find(name), field, fill),
    block: (name, key = KEY) => void find(name).blocked.add(key),
    unblock: (name) => {
      const replica = find(name);
      foldAll(replica);
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

/** Of a replica id: who it is. */
function nameOf(id: ReplicaId): string {
  return id.slice(0, id.indexOf('.'));
}
