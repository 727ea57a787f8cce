/** Random histories: single steps as plain data, how a world takes them, and what must hold once all has come to rest. */
import fc from 'fast-check';

import { sameState } from '../../src/replication/merge.ts';
import type { Policy } from '../../src/replication/policy.ts';
import { compare, sameFields, vectorText } from '../../src/replication/version.ts';
import { holds } from '../support/oracle.ts';
import type { Database } from '../support/model.ts';
import { createWorld, type Answer, type Batch, type World } from '../support/world.ts';

const fuzz = Number(process.env['FUZZ'] ?? 0);

/** The same in every run, unless FUZZ says how many to try with another seed: FUZZ=20000 npx vitest run test/replication --testTimeout 0. */
export const RUNS: { readonly numRuns: number; readonly seed?: number } = fuzz > 0 ? { numRuns: fuzz } : { numRuns: 150, seed: 20240607 };

export type Step =
  | { readonly do: 'write'; readonly on: number; readonly key: number; readonly field: number; readonly value: number }
  | { readonly do: 'delete' | 'block'; readonly on: number; readonly key: number }
  | { readonly do: 'decide'; readonly on: number; readonly key: number; readonly how: number }
  | { readonly do: 'sync'; readonly on: number; readonly to: number; readonly limit: number; readonly fates: readonly number[] }
  | { readonly do: 'prepare'; readonly on: number; readonly to: number; readonly limit: number }
  | { readonly do: 'deliver' | 'answer'; readonly which: number; readonly again: boolean }
  | { readonly do: 'backup' | 'restore' | 'restart' | 'unblock'; readonly on: number }
  | { readonly do: 'skew'; readonly on: number; readonly by: number }
  | { readonly do: 'policy'; readonly on: number; readonly to: number };

export interface Kinds {
  /** Crashes, restarts and restores. */
  readonly crashes?: boolean;
  /** Records that cannot be shown. */
  readonly waiting?: boolean;
  /** Changes of policy while running. */
  readonly policies?: boolean;
  /** Little but writes and deliveries. */
  readonly narrow?: boolean;
  /** How many records there are; 3 unless told. */
  readonly keys?: number;
}

export const POLICIES: readonly Policy[] = ['manual', 'latest', 'field-wise'];
const KEYS = ['r', 's', 't'];

const on = fc.nat(4);
const limit = fc.constantFrom(1, 2, 100);

export function steps({ crashes = false, waiting = false, policies = false, narrow = false, keys = KEYS.length }: Kinds, maxLength: number): fc.Arbitrary<Step[]> {
  const anyKey = fc.nat(keys - 1);
  const write = fc.record({ do: fc.constant('write' as const), on, key: anyKey, field: fc.nat(1), value: fc.nat(3) });
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
  const backups = new Map<string, Database>();
  const batches: Batch[] = [];
  const answers: Answer[] = [];
  const name = (n: number): string => (world.replicas[n % world.replicas.length] as { name: string }).name;
  for (const step of history) {
    switch (step.do) {
      case 'write':
        world.write(name(step.on), { [`f${step.field + 1}`]: `v${step.value}` }, KEYS[step.key]);
        break;
      case 'delete':
        world.write(name(step.on), null, KEYS[step.key]);
        break;
      case 'decide': {
        const { how } = step;
        const decision = how === 0 ? 'latest' : how === 1 ? 'field-wise' : how === 2 ? { values: { f1: 'chosen' } } : { side: how - 3 };
        world.decide(name(step.on), decision, KEYS[step.key]);
        break;
      }
      case 'sync':
        if (name(step.on) === name(step.to)) break;
        world.sync(name(step.on), name(step.to), {
          limit: step.limit,
          fates: step.fates.map((n) => (n === 0 ? 'batch lost' : n === 1 ? 'answer lost' : 'arrives')),
        });
        break;
      case 'prepare':
        if (name(step.on) !== name(step.to)) batches.push(...world.prepare(name(step.on), name(step.to), step.limit));
        break;
      case 'deliver': {
        const [batch] = batches.length > 0 ? batches.slice(step.which % batches.length) : [];
        const answer = batch && world.deliver(batch);
        if (batch && !step.again) batches.splice(batches.indexOf(batch), 1);
        if (answer) answers.push(answer);
        break;
      }
      case 'answer': {
        const [answer] = answers.length > 0 ? answers.slice(step.which % answers.length) : [];
        if (answer) world.take(answer);
        if (answer && !step.again) answers.splice(answers.indexOf(answer), 1);
        break;
      }
      case 'block':
        world.block(name(step.on), KEYS[step.key]);
        break;
      case 'unblock':
        world.unblock(name(step.on));
        break;
      case 'backup':
        backups.set(name(step.on), world.backup(name(step.on)));
        break;
      case 'restore': {
        const backup = backups.get(name(step.on));
        if (backup) world.restore(name(step.on), backup);
        break;
      }
      case 'restart':
        world.restart(name(step.on));
        break;
      case 'skew':
        world.replica(name(step.on)).skew = step.by;
        break;
      case 'policy':
        world.setPolicy(name(step.on), POLICIES[step.to] as Policy);
        break;
    }
    after?.();
  }
}

/** Links by name, in both directions. */
export type Topology = 'mesh' | 'ring' | 'chain' | 'star';

export function links(world: World, topology: Topology): [string, string][] {
  const names = world.replicas.map(({ name }) => name);
  const pairs = names.flatMap((from, i) =>
    names.flatMap((to, j): [string, string][] => {
      if (i === j) return [];
      const apart = Math.abs(i - j);
      const linked = { mesh: true, chain: apart === 1, ring: apart === 1 || apart === names.length - 1, star: i === 0 || j === 0 };
      return linked[topology] ? [[from, to]] : [];
    }),
  );
  return pairs;
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
        const [left, right] = [world.oracle.past(a), world.oracle.past(b)];
        const [more, less] = [holds(left, right), holds(right, left)];
        const truth = more ? (less ? 'equal' : 'after') : less ? 'before' : 'concurrent';
        const told = compare(a.vector, b.vector);
        if (told !== truth) return `${vectorText(a.vector)} is told ${told} ${vectorText(b.vector)}, truly ${truth}`;
      }
    }
  }
  return null;
}

/** Where two replicas hold unequal states, or show unequal things although they may not; null where nowhere. */
export function divergence(world: World): string | null {
  const [first, ...rest] = world.replicas;
  if (first === undefined) return null;
  for (const key of keysOf(world)) {
    const state = world.state(first.name, key);
    for (const other of rest) {
      if (!sameState(state, world.state(other.name, key))) return `${key} differs between ${first.name} and ${other.name}`;
      const free = state.length > 1 && (first.database.policy === 'manual' || first.database.policy !== other.database.policy);
      if (!free && !sameFields(world.row(first.name, key), world.row(other.name, key))) return `${key} is shown otherwise on ${other.name}`;
    }
  }
  return null;
}
