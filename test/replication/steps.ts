/** Random histories, and what must hold once all has come to rest. */
import fc from 'fast-check';

import { sameState, standing } from '../../src/replication/merge.ts';
import type { Policy } from '../../src/replication/policy.ts';
import { compare, sameFields, vectorText, type Fields, type Version } from '../../src/replication/version.ts';
import type { Replica } from '../support/model.ts';
import { holds } from '../support/oracle.ts';
import { createWorld, type World } from '../support/world.ts';
import { createPlayer, type Step } from './player.ts';

const fuzz = Number(process.env['FUZZ'] ?? 0);

/** The same in every run, unless FUZZ says how many to try with another seed: FUZZ=20000 npx vitest run test/replication --testTimeout 0. */
export const RUNS: { readonly numRuns: number; readonly seed?: number } = fuzz > 0 ? { numRuns: fuzz } : { numRuns: 150, seed: 20240607 };

export interface Kinds {
  /** Crashes, restarts and restores. */
  readonly crashes?: boolean;
  /** Records that cannot be shown. */
  readonly waiting?: boolean;
  /** Changes of policy while running. */
  readonly policies?: boolean;
  /** A field `f3` that replicas come to know one after another. */
  readonly schema?: boolean;
  /** Tombstones are dropped. */
  readonly collects?: boolean;
  /** Little but writes and deliveries. */
  readonly narrow?: boolean;
  /** How many records there are; 3 unless told. */
  readonly keys?: number;
}

const on = fc.nat(4);
const limit = fc.constantFrom(1, 2, 100);

export function steps({ crashes = false, waiting = false, policies = false, schema = false, collects = false, narrow = false, keys = 3 }: Kinds, maxLength: number): fc.Arbitrary<Step[]> {
  const anyKey = fc.nat(keys - 1);
  const write = fc.record({ do: fc.constant('write' as const), on, key: anyKey, field: fc.nat(schema ? 2 : 1), value: fc.nat(3) });
  const fates = fc.array(fc.nat(5), { maxLength: 3 });
  const sync = fc.record({ do: fc.constant('sync' as const), on, to: on, limit, fates });
  return fc.array(
    fc.oneof(
      { weight: 8, arbitrary: write },
      { weight: narrow ? 0 : 2, arbitrary: fc.record({ do: fc.constant('delete' as const), on, key: anyKey }) },
      { weight: narrow ? 0 : 2, arbitrary: fc.record({ do: fc.constant('decide' as const), on, key: anyKey, how: fc.nat(5) }) },
      { weight: 8, arbitrary: sync },
      { weight: narrow ? 4 : 2, arbitrary: fc.record({ do: fc.constant('prepare' as const), on, to: on, limit }) },
      { weight: narrow ? 6 : 3, arbitrary: fc.record({ do: fc.constantFrom('deliver' as const, 'answer' as const), which: fc.nat(9), again: fc.boolean() }) },
      { weight: narrow ? 0 : 1, arbitrary: fc.record({ do: fc.constant('skew' as const), on, by: fc.integer({ min: -900, max: 900 }) }) },
      { weight: crashes ? 3 : 0, arbitrary: fc.record({ do: fc.constantFrom('backup' as const, 'restore' as const, 'restart' as const), on }) },
      { weight: waiting ? 2 : 0, arbitrary: fc.record({ do: fc.constant('block' as const), on, key: anyKey }) },
      { weight: waiting ? 1 : 0, arbitrary: fc.record({ do: fc.constant('unblock' as const), on }) },
      { weight: schema ? 1 : 0, arbitrary: fc.record({ do: fc.constant('addField' as const), on }) },
      { weight: collects ? 8 : 0, arbitrary: fc.record({ do: fc.constant('collect' as const), on }) },
      { weight: policies ? 1 : 0, arbitrary: fc.record({ do: fc.constant('policy' as const), on, to: fc.nat(2) }) },
    ),
    { maxLength, size: 'max' },
  );
}

/** A world whose replicas are named a, b, c, … */
export function worldOf(policies: readonly Policy[]): World {
  return createWorld(Object.fromEntries(policies.map((policy, i) => [String.fromCharCode(97 + i), policy])));
}

/** Takes steps one after another; `after` is called after each. */
export function play(world: World, history: readonly Step[], after?: () => void): void {
  const player = createPlayer(world);
  for (const step of history) {
    player.take(step);
    after?.();
  }
}

/** Links by name, in both directions. */
export type Topology = 'mesh' | 'ring' | 'chain' | 'star' | 'random';

export function links(world: World, topology: Topology): [string, string][] {
  const names = world.replicas.map(({ name }) => name);
  return names.flatMap((from, i) => names.flatMap((to, j): [string, string][] => (i !== j && linked(topology, i, j, names.length) ? [[from, to]] : [])));
}

/** Whether the replica at one place is linked to that at another. */
export function linked(topology: Topology, i: number, j: number, count: number): boolean {
  const apart = Math.abs(i - j);
  switch (topology) {
    case 'mesh':
      return true;
    case 'chain':
      return apart === 1;
    case 'ring':
      return apart === 1 || apart === count - 1;
    case 'star':
      return i === 0 || j === 0;
    case 'random':
      return byChance(i, j);
  }
}

/** Syncs until nothing is sent any more. @throws Error where that takes more rounds than the longest way has links, and some. */
export function settle(world: World, topology: Topology = 'mesh'): void {
  for (let round = 0; round < 2 * world.replicas.length + 3; round++) {
    if (syncAll(world, topology) === 0) return;
  }
  throw new Error('the replicas never come to rest');
}

/** Syncs every link once; tells how many records were sent. */
export function syncAll(world: World, topology: Topology = 'mesh'): number {
  return links(world, topology).reduce((sent, [from, to]) => sent + world.sync(from, to), 0);
}

export function keysOf(world: World): string[] {
  return [...new Set(world.replicas.flatMap(({ database }) => [...database.records.keys()]))];
}

/** What of a record some replica has seen: it may never be lost again. */
export function heldAnywhere(world: World, key: string): bigint {
  return world.replicas.reduce((all, { name }) => all | world.oracle.pastOf(world.state(name, key)), 0n);
}

/** The first two versions of which the vectors and the oracle tell different things; null where there are none. */
export function misjudged(world: World): string | null {
  for (const made of world.oracle.pool.values()) {
    for (const a of made) {
      for (const b of made) {
        const fault = orderFault(world, a, b);
        if (fault !== null) return fault;
      }
    }
  }
  return null;
}

/** Where the vectors of two versions tell another order than the oracle; null where they do not. */
export function orderFault({ oracle }: World, a: Version, b: Version): string | null {
  const [left, right] = [oracle.past(a), oracle.past(b)];
  const [more, less] = [holds(left, right), holds(right, left)];
  const truth = more ? (less ? 'equal' : 'after') : less ? 'before' : 'concurrent';
  const told = compare(a.vector, b.vector);
  return told === truth ? null : `${vectorText(a.vector)} is told ${told} ${vectorText(b.vector)}, truly ${truth}`;
}

/** Where two replicas hold unequal states, or show unequal things although they may not; null where nowhere. */
export function divergence(world: World): string | null {
  const [first, ...rest] = world.replicas;
  if (first === undefined) return null;
  for (const key of keysOf(world)) {
    const state = world.state(first.name, key);
    for (const other of rest) {
      if (!sameState(standing(state), standing(world.state(other.name, key)))) return `${key} differs between ${first.name} and ${other.name}`;
      const free = state.length > 1 && (first.database.policy === 'manual' || first.database.policy !== other.database.policy);
      if (!free && !sameFields(shared(world.row(first.name, key), other), shared(world.row(other.name, key), first))) return `${key} is shown otherwise on ${other.name}`;
    }
  }
  return null;
}

/**
 * How what is left of a record is not what the oracle says is left, where deletions are forgotten; null where it is. What only a lost history held is left out, and what is set aside is left where people can see it.
 *
 * A write made since a restore, or by who joined later, and a deletion that everybody else has forgotten, neither having seen the other, are no conflict: then no deletion is looked for.
 */
export function misled(world: World, key: string, made: readonly Version[]): string | null {
  const { past, acknowledged, collectedBefore } = world.oracle;
  // A message that was on its way when its sender was restored may bring back what is excused.
  const there = world.replicas.reduce((all, { database: { gone, aside } }) => all | (gone.get(key) ?? 0n) | world.oracle.pastOf(aside.get(key) ?? []), heldAnywhere(world, key));
  const valid = made.filter((version) => holds((acknowledged.get(key) ?? 0n) | there, past(version)));
  // Folded again after a restore, a write makes the same version again.
  const seenBy = (version: Version, other: Version): boolean => holds(past(other), past(version)) && past(other) !== past(version);
  const last = valid.filter((version) => !valid.some((other) => seenBy(version, other)));
  const left = new Set(standing(world.state('a', key)).map(({ vector }) => vectorText(vector)));
  const aside = new Set(world.replicas.flatMap(({ database }) => database.aside.get(key) ?? []).map(({ vector }) => vectorText(vector)));
  // What is set aside keeps nothing away, and neither does what it was written over.
  const isAside = (version: Version): boolean => made.some((other) => aside.has(vectorText(other.vector)) && holds(past(other), past(version)));
  const living = last.filter(({ fields }) => fields !== null);
  for (const version of living) {
    const text = vectorText(version.vector);
    if (!left.has(text) && !aside.has(text)) return `${key}: ${JSON.stringify(version)} was lost`;
  }
  for (const text of left) {
    if (made.some((version) => vectorText(version.vector) === text && valid.some((other) => seenBy(version, other) && !isAside(other)))) return `${key}: ${text} came back`;
  }
  if (world.replicas.some(({ database, joined }) => joined || database.knowing.begun > 0)) return null;
  for (const tombstone of last.filter(({ fields }) => fields === null)) {
    const opposed = living.some((version) => !collectedBefore(tombstone, version));
    if (opposed && !left.has(vectorText(tombstone.vector))) return `${key}: the deletion ${vectorText(tombstone.vector)} was lost`;
  }
  return null;
}

/** A random graph that holds together and stays as it is when replicas are added: each is linked to an earlier one, and now and then to others. */
function byChance(i: number, j: number): boolean {
  const [less, more] = i < j ? [i, j] : [j, i];
  const chance = (n: number): number => Math.imul(n + 1, 0x9e3779b1) >>> 8;
  return chance(more) % more === less || chance(more * 64 + less) % 6 === 0;
}

/** A row as far as another replica knows its fields. */
export function shared(row: Fields | null, { database: { fields } }: Replica): Fields | null {
  return row && Object.fromEntries(Object.entries(row).filter(([name]) => fields.includes(name)));
}
