/**
 * What the design promises, checked in a world that has come to rest. Each check tells what is wrong, or null; the first that does is the violation.
 *
 * Vectors are judged by the oracle of true causes (test/support/oracle.ts), which the core knows nothing of.
 */
import { merge, sameState, standing, type State } from '../../src/replication/merge.ts';
import { latestField, livingSides } from '../../src/replication/policy.ts';
import { compare, covers, lastWrite, sameFields, vectorText, type Version } from '../../src/replication/version.ts';
import type { Player } from '../replication/player.ts';
import { divergence, keysOf, links, misled, orderFault, settle, shared, syncAll, type Topology } from '../replication/steps.ts';
import { read, type Replica } from '../support/model.ts';
import { holds } from '../support/oracle.ts';
import type { World } from '../support/world.ts';
import { changedUnwritten, heldWrongly, writtenByNobody } from './claims.ts';
import type { Plan } from './plan.ts';

export interface Violation {
  readonly promise: string;
  readonly detail: string;
}

export interface Judge {
  /** Drains every link until nothing is sent any more, then checks everything; null where all holds. */
  readonly rest: () => Violation | null;
}

type Check = readonly [promise: string, check: () => string | null];

export function createJudge(world: World, { topology, collects }: Pick<Plan, 'topology' | 'collects'>, arrived: Player['arrived']): Judge {
  const judged = new Map<string, number>();

  /** Versions made since the last rest against all, the others having been judged then. */
  function misjudged(): string | null {
    for (const [key, made] of world.oracle.pool) {
      for (let i = judged.get(key) ?? 0; i < made.length; i++) {
        const version = made[i] as Version;
        const fault = stampFault(version) ?? made.slice(0, i).map((earlier) => orderFault(world, earlier, version)).find((told) => told !== null);
        if (fault) return `${key}: ${fault}`;
      }
      judged.set(key, made.length);
    }
    return null;
  }

  function lost(): string | null {
    for (const [key, acknowledged] of world.oracle.acknowledged) {
      const aside = world.oracle.pastOf(world.replicas.flatMap(({ database }) => database.aside.get(key) ?? []));
      // Of a deletion that all had, some hold a ghost and others nothing.
      const ghosts = world.oracle.pastOf(world.replicas.flatMap(({ name }) => world.state(name, key).filter(({ collected }) => collected)));
      const forgotten = world.replicas.reduce((all, { database }) => all | (database.gone.get(key) ?? 0n), ghosts);
      for (const { name } of world.replicas) {
        const state = world.state(name, key);
        // What was written over a ghost covers what that covered, though nobody read it.
        const covered = collects ? world.oracle.pastOf((world.oracle.pool.get(key) ?? []).filter((version) => state.some(({ vector }) => covers(vector, version.vector)))) : 0n;
        const kept = world.oracle.pastOf(state) | covered | aside | forgotten;
        if (!holds(kept, acknowledged)) return `${name} holds no trace of ${countBits(acknowledged & ~kept)} acknowledged write(s) to ${key}`;
      }
    }
    return null;
  }

  function repeated(): string | null {
    const before = fingerprint(world);
    for (const message of arrived()) {
      if ('batch' in message) world.take(message);
      else world.deliver(message);
      if (fingerprint(world) !== before) return `a message from ${'batch' in message ? message.batch.receiver : message.sender} that came again changed something`;
    }
    return null;
  }

  /** With deletions forgotten, vectors no longer tell all of the past; the oracle tells what must be left. */
  function wronglyLeft(): string | null {
    for (const [key, made] of world.oracle.pool) {
      const fault = misled(world, key, made);
      if (fault !== null) return fault;
    }
    return null;
  }

  /** What everybody has is forgotten in the end, and that changes nothing else. */
  function unforgotten(): string | null {
    for (let round = 0; round < 12; round++) {
      for (let again = 0; again < 2 * world.replicas.length; again++) syncAll(world, topology);
      if (world.replicas.reduce((sum, { name }) => sum + world.collect(name), 0) > 0) continue;
      const dead = world.replicas.find(({ database }) => [...database.records.values()].some(({ state }) => state.every(({ fields }) => fields === null)));
      return dead === undefined ? divergence(world) : `${dead.name} still holds a record that everybody has deleted`;
    }
    return 'collection never comes to rest';
  }

  const before: readonly Check[] = [['checkpoints tell what was taken', () => aheadCheckpoint(world, topology)]];
  const after: readonly Check[] = [
    ['states converge', () => divergence(world)],
    ['equal policies show equal rows', () => unequalRows(world)],
    ['nothing is lost', lost],
    ['states are antichains', () => brokenAntichain(world)],
    ...(collects ? [['nothing dead comes back', wronglyLeft] as const] : [['vectors tell what was seen', misjudged] as const]),
    ['a unique value is held by the claim made first', () => heldWrongly(world)],
    ['a write changes what it writes alone', () => changedUnwritten(world)],
    ['nothing is there that nobody wrote', () => writtenByNobody(world)],
    ['rejected values stay rejected', () => returnedValue(world)],
    ['a message that comes again changes nothing', repeated],
    ['a further sync sends nothing', () => (syncAll(world, topology) === 0 ? null : 'something was sent')],
    ['checkpoints tell what was taken', () => aheadCheckpoint(world, topology)],
    ...(collects ? [['deletions are forgotten', unforgotten] as const, ['nothing dead comes back', wronglyLeft] as const] : []),
  ];
  return {
    rest: () =>
      first(before) ??
      first([['loops die out', () => attempt(() => settle(world, topology))]]) ??
      first(after),
  };
}

function first(checks: readonly Check[]): Violation | null {
  for (const [promise, check] of checks) {
    const detail = check();
    if (detail !== null) return { promise, detail };
  }
  return null;
}

function attempt(act: () => void): string | null {
  try {
    act();
    return null;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

/** A checkpoint within the sender's present incarnation, and records before it that its owner does not hold. */
function aheadCheckpoint(world: World, topology: Topology): string | null {
  for (const [from, to] of links(world, topology)) {
    const [sender, receiver] = [world.replica(from), world.replica(to)];
    const taken = receiver.database.taken.get(from);
    if (taken === undefined || taken.incarnation !== sender.server) continue;
    for (const [key, { state, position }] of sender.database.records) {
      if (position > taken.position) continue;
      const held = read(receiver, key).state;
      if (!sameState(merge(held, standing(state)), held)) return `${to} has taken the feed of ${from} up to ${taken.position}, but not ${key} at ${position}`;
    }
  }
  return null;
}

function unequalRows(world: World): string | null {
  for (const key of keysOf(world)) {
    const rows = new Map<string, { readonly replica: Replica; readonly row: ReturnType<World['row']> }>();
    for (const replica of world.replicas) {
      const { name, database } = replica;
      const state = world.state(name, key);
      if (database.policy === 'manual' && state.length > 1) continue;
      const kind = state.length === 1 ? 'one' : database.policy;
      const other = rows.get(kind);
      const row = world.row(name, key);
      if (other === undefined) rows.set(kind, { replica, row });
      else if (!sameFields(shared(row, other.replica), shared(other.row, replica))) return `${key} is shown otherwise on ${name} than on ${other.replica.name}`;
    }
  }
  return null;
}

function brokenAntichain(world: World): string | null {
  const [some] = world.replicas;
  if (some === undefined) return null;
  for (const key of keysOf(world)) {
    const state = world.state(some.name, key);
    for (const [i, version] of state.entries()) {
      for (const other of state.slice(0, i)) {
        if (compare(version.vector, other.vector) !== 'concurrent') return `${key}: ${vectorText(version.vector)} beside ${vectorText(other.vector)}`;
      }
    }
  }
  return null;
}

/** A field-wise view never shows a value that a living side has overwritten knowing it. */
function returnedValue(world: World): string | null {
  const [some] = world.replicas;
  if (some === undefined) return null;
  for (const key of keysOf(world)) {
    const living = livingSides(world.state(some.name, key));
    if (living.length < 2) continue;
    for (const field of world.fields) {
      const shown = latestField(living, field);
      const overwritten = shown && living.some(({ vector, fields }) => (vector[shown.stamp[0]] ?? 0) >= shown.stamp[1] && fields?.[field] !== shown.value);
      if (overwritten) return `${key}: ${field}=${shown.value} would be shown, which was overwritten by who had seen it`;
    }
  }
  return null;
}

/** A version's own stamp is beyond all that it has seen. */
function stampFault({ vector }: Version): string | null {
  const [, own] = lastWrite(vector);
  const equal = Object.values(vector).filter((stamp) => stamp === own);
  return equal.length === 1 ? null : `${vectorText(vector)} has no stamp of its own`;
}

function fingerprint(world: World): string {
  return world.replicas.map(({ name, database }) => `${name}:${database.head}:${[...database.records].map(([key, { state }]) => `${key}${stateText(state)}`).join()}`).join(';');
}

function stateText(state: State): string {
  return state.map(({ vector }) => vectorText(vector)).join('|');
}

function countBits(bits: bigint): number {
  return [...bits.toString(2)].filter((bit) => bit === '1').length;
}
