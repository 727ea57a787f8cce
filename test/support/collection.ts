/**
 * How a replica in memory learns who has what, and drops tombstones; as storage does it.
 *
 * Members of the roster go by their names here: a name that is given anew after a strike is another member there alone.
 */
import { largestStamp } from '../../src/replication/clock.ts';
import {
  begunSince,
  counts,
  incorporated,
  learn,
  sameKnowledge,
  type Hearsay,
  type Knowledge,
  type Moment,
  type Term,
} from '../../src/replication/knowledge.ts';
import { standing, type State } from '../../src/replication/merge.ts';
import { inherit, learnFloors, lineOf, meet, rootsUpTo, type Floor, type Floors, type Roots, type ToldRoot } from '../../src/replication/roots.ts';
import { viewOf, type Database, type Model, type Replica } from './model.ts';
import type { Oracle } from './oracle.ts';
import type { Rules } from './rules.ts';

/** What a database holds for collection; replaced, never changed. */
export interface Knowing {
  readonly roster: readonly string[];
  readonly struck: ReadonlySet<string>;
  readonly tick: number;
  readonly terms: readonly Term[];
  readonly rows: ReadonlyMap<string, Knowledge>;
  /** Rows that do not count yet, by the peer that told them. */
  readonly hearsay: ReadonlyMap<string, Hearsay>;
  /** The moments of members that somebody relied on when tombstones were dropped. */
  readonly floors: Floors;
  /** What its records go back to. */
  readonly roots: Roots;
  /** The place behind which records may be dead. */
  readonly doubt: number | null;
  readonly rootChanges: number;
  /** How often records were forgotten. */
  readonly generation: number;
  /** The largest stamp that was forgotten. */
  readonly forgotten: number;
  /** The latest lost moment after which the replica has begun anew. */
  readonly answered: Moment | null;
  /** How often it has begun anew. */
  readonly begun: number;
}

/** Why a replica begins anew: it was restored to before a moment that others relied on, or what lies behind a place of its feed may be dead. */
export interface Behind {
  readonly lost: Moment | null;
  readonly doubt: number | null;
}

/** What a replica tells of this in a handshake. */
export interface Told {
  readonly roster: readonly string[];
  readonly struck: ReadonlySet<string>;
  readonly hearsay: Hearsay;
  readonly floors: Floors;
  readonly roots: Roots;
}

export function knowNothing(name: string): Knowing {
  return { roster: [name], struck: new Set(), tick: 0, terms: [], rows: new Map(), hearsay: new Map(), floors: new Map(), roots: new Map(), doubt: null, rootChanges: 0, generation: 0, forgotten: 0, answered: null, begun: 0 };
}

/** What a replica tells; its captured writes must be folded. @param now - The time, in case that its incarnation begins with this. */
export function tell(replica: Replica, now: number): Told {
  refresh(replica, now);
  const { roster, struck, rows, floors, roots } = replica.database.knowing;
  const head = Math.max(0, ...[...replica.database.records.values()].map(({ position }) => position));
  return { roster, struck, floors, roots, hearsay: { head: { incarnation: replica.server, position: head }, rows: [...rows.values()] } };
}

/** Takes in what a peer told. `struck`: one of the two may not replicate with the other. `anew`: what this replica told before holds no more. Otherwise why it begins anew. */
export function hear(replica: Replica, peer: string, told: Told, { doubtBy, fellBehind }: Pick<Rules, 'doubtBy' | 'fellBehind'>): 'welcome' | 'struck' | 'anew' | Behind {
  countHearsay(replica);
  const { database } = replica;
  const { knowing } = database;
  const { floors, fresh } = learnFloors(knowing.floors, [...told.floors.values()].flat());
  const row = told.hearsay.rows.find(({ member }) => member === peer) as Knowledge;
  const met = meet(knowing.roots, rootOf(row), row.roster.includes(replica.name), database.head);
  const roots = inherit(met, [...told.roots].flatMap(([member, own]) => (member === replica.name ? [] : own)), database.head);
  database.knowing = {
    ...knowing,
    floors,
    roots,
    doubt: least(knowing.doubt, doubtBy(fresh, knowing.roots)),
    rootChanges: knowing.rootChanges + (roots === knowing.roots ? 0 : 1),
    struck: new Set([...knowing.struck, ...told.struck]),
    roster: [...new Set([...knowing.roster, ...told.roster])],
    hearsay: new Map(knowing.hearsay).set(peer, told.hearsay),
  };
  const ofMe = told.hearsay.rows.find(({ member }) => member === replica.name);
  const term = knowing.terms.at(-1);
  if (ofMe && term && ofMe.incarnation !== term.incarnation && ofMe.began >= term.began) {
    // My own word must replace what I said in a history that was lost.
    database.knowing = { ...database.knowing, terms: [...knowing.terms.slice(0, -1), { ...term, began: ofMe.began + 1 }] };
    raise(replica);
  }
  const { struck, terms, answered, doubt } = database.knowing;
  if (struck.has(peer) || struck.has(replica.name)) return 'struck';
  const lost = floors.get(replica.name)?.find((floor) => fellBehind(floor, terms, answered)) ?? null;
  if (lost !== null || doubt !== null) return { lost, doubt };
  return roots === knowing.roots ? 'welcome' : 'anew';
}

export interface Collector {
  /** Drops what all hold, and forgets what all have dropped. Tells how many records it changed. */
  readonly collect: (replica: Replica, now: number) => number;
  /**
   * Keeps only what was written since the restore, or of what is in doubt what was written here, and sets the rest aside.
   *
   * @param server - The incarnation that begins with this.
   */
  readonly reseed: (replica: Replica, behind: Behind, now: number, server: string) => void;
  /** Where a peer's feed was taken whole since: shows no more what nobody has confirmed. */
  readonly endReseed: (replica: Replica) => void;
}

export function createCollector(oracle: Oracle, model: Model, { doubtBy, partState, stablePlace }: Pick<Rules, 'doubtBy' | 'partState' | 'stablePlace'>): Collector {
  return {
    collect(replica, now) {
      model.foldAll(replica);
      refresh(replica, now);
      const { database } = replica;
      const { roster, struck, rows } = database.knowing;
      const living = roster.filter((member) => !struck.has(member));
      const stable = stablePlace({ member: replica.name, incarnation: replica.server }, living, struck, rows);
      let changed = 0;
      for (const [key, record] of database.records) {
        if (record.position > stable || record.waiting) continue;
        const { state } = record;
        const ghosts = state.filter(({ collected }) => collected);
        if (state.every(({ fields }) => fields === null) && ghosts.length < state.length) {
          const dropped = state.map((version) => (version.collected ? version : oracle.collect(version)));
          model.store(replica, key, record, dropped, null, viewOf(replica, record, dropped));
        } else if (ghosts.length > 0) {
          forget(database, key, record.seen, standing(state), ghosts);
        } else continue;
        changed++;
        relyOn(database, living);
      }
      if (changed > 0) model.showUnique(replica);
      return changed;
    },

    reseed(replica, { lost, doubt }, now, server) {
      model.foldAll(replica);
      const { database } = replica;
      const { terms, tick, rows, roots } = database.knowing;
      const ids = lost ? begunSince(lost, terms, database.eras) : [...terms, ...database.eras].map(({ incarnation }) => incarnation);
      const since = new Set([...ids].map((incarnation) => `${replica.name}.${incarnation}`));
      const place = lost ? 0 : (doubt ?? 0);
      let largest = database.knowing.forgotten;
      for (const [key, record] of database.records) {
        if (record.position <= place) continue;
        const { kept, unconfirmed } = partState(record.state, since);
        if (unconfirmed.length === 0) continue;
        largest = Math.max(largest, largestStamp(record.state));
        database.aside.set(key, [...(database.aside.get(key) ?? []), ...unconfirmed]);
        // Also where there is no row: whoever writes one has seen the deletion.
        database.records.set(key, { ...record, state: kept, origin: null, position: ++database.head, waiting: true, unconfirmed: true });
      }
      database.taken.clear();
      database.reseeding = true;
      replica.server = server;
      const began = Math.max(now, (lost?.began ?? 0) + 1, (terms.at(-1)?.began ?? 0) + 1);
      const own = rows.get(replica.name);
      database.knowing = {
        ...database.knowing,
        terms: [...terms, { incarnation: server, began, first: tick + 1 }],
        rows: new Map(own && [[replica.name, own]]),
        generation: database.knowing.generation + 1,
        forgotten: largest,
        roots: rootsUpTo(roots, place),
        doubt: null,
        answered: lost ?? database.knowing.answered,
        begun: database.knowing.begun + 1,
      };
      raise(replica);
    },

    endReseed(replica) {
      const { database } = replica;
      if (!database.reseeding) return;
      countHearsay(replica);
      // A newcomer that has nothing itself, or another that begins anew, has not heard of all.
      const { roster, struck, rows } = database.knowing;
      if (!roster.every((member) => struck.has(member) || rows.has(member))) return;
      model.foldAll(replica);
      for (const [key, record] of database.records) {
        if (record.unconfirmed && !replica.blocked.has(key)) model.store(replica, key, record, record.state, null, viewOf(replica, record, record.state));
        if (database.records.get(key)?.state.length === 0) database.records.delete(key);
      }
      model.showUnique(replica);
      database.reseeding = [...database.records.values()].some(({ unconfirmed }) => unconfirmed);
    },
  };

  function relyOn(database: Database, members: readonly string[]): void {
    const { knowing } = database;
    const { floors, fresh } = learnFloors(knowing.floors, members.map((member) => floorOf(knowing.rows.get(member) as Knowledge)));
    database.knowing = { ...knowing, floors, doubt: least(knowing.doubt, doubtBy(fresh, knowing.roots)) };
  }

  /** Takes ghosts away, and the record with the last version. */
  function forget(database: Database, key: string, seen: bigint, left: State, ghosts: State): void {
    const { knowing } = database;
    const record = database.records.get(key);
    if (left.length > 0 && record) database.records.set(key, { ...record, state: left });
    else database.records.delete(key);
    database.gone.set(key, (database.gone.get(key) ?? 0n) | (left.length > 0 ? oracle.pastOf(ghosts) : seen));
    database.knowing = { ...knowing, generation: knowing.generation + 1, forgotten: Math.max(knowing.forgotten, largestStamp(ghosts)) };
  }
}

/** Brings the replica's own row up to date. */
function refresh(replica: Replica, now: number): void {
  countHearsay(replica);
  const { knowing } = replica.database;
  const last = knowing.terms.at(-1);
  if (last?.incarnation !== replica.server) {
    const term = { incarnation: replica.server, began: Math.max(now, (last?.began ?? 0) + 1), first: knowing.tick + 1 };
    replica.database.knowing = { ...knowing, terms: [...knowing.terms, term] };
    raise(replica);
    return;
  }
  const { database } = replica;
  // A deletion that waits has not been seen by those who write to its row. Where there is none, whoever makes one has seen nothing, and what is written over all of it counts when it comes.
  if ([...database.records.values()].some(({ waiting, held, state }) => waiting && held !== null && state.some(({ fields }) => fields === null))) return;
  const own = knowing.rows.get(replica.name);
  if (own === undefined || !sameKnowledge(own, present(replica))) raise(replica);
}

function raise(replica: Replica): void {
  const { database, name } = replica;
  const { knowing } = database;
  const tick = knowing.tick + 1;
  const { incarnation, began } = knowing.terms.at(-1) as Term;
  const row: Knowledge = { member: name, incarnation, began, tick, line: lineOf(knowing.terms), ...present(replica) };
  database.knowing = { ...knowing, tick, rows: new Map(knowing.rows).set(name, row) };
}

function present({ name, database: { knowing, taken } }: Replica): Pick<Knowledge, 'knows' | 'roster'> {
  const roster = knowing.roster.filter((member) => !knowing.struck.has(member));
  return { roster, knows: incorporated(name, roster, taken, knowing.rows) };
}

/** Rows whose teller's feed was taken far enough count from now on. */
function countHearsay({ name, database }: Replica): void {
  const { knowing } = database;
  let { rows } = knowing;
  const hearsay = new Map(knowing.hearsay);
  for (const [peer, told] of knowing.hearsay) {
    if (!counts(told, database.taken.get(peer) ?? null)) continue;
    rows = learn(rows, told.rows.filter(({ member }) => member !== name));
    hearsay.delete(peer);
  }
  database.knowing = { ...knowing, rows, hearsay };
}

function rootOf({ member, incarnation, tick, line }: Knowledge): ToldRoot {
  return { member, incarnation, tick, line };
}

function floorOf(row: Knowledge): Floor {
  return { ...rootOf(row), began: row.began };
}

function least(a: number | null, b: number | null): number | null {
  return a === null ? b : b === null ? a : Math.min(a, b);
}
