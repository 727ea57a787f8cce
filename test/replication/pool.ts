/** Pools of reachable versions: all that random histories made of one record, with the world whose oracle knows them. */
import fc from 'fast-check';

import { merge, type State } from '../../src/replication/merge.ts';
import type { Policy } from '../../src/replication/policy.ts';
import type { Version } from '../../src/replication/version.ts';
import { KEY, type World } from '../support/world.ts';
import { POLICIES } from './player.ts';
import { play, steps, worldOf } from './steps.ts';

export interface Pool {
  readonly world: World;
  readonly versions: readonly Version[];
}

const policies = fc.array(fc.constantFrom(...POLICIES), { minLength: 2, maxLength: 4 });
const history = steps({ crashes: true, waiting: true, policies: true, keys: 1 }, 50);

/** @param one - Under one policy alone, which never changes. */
export function pools(one?: Policy): fc.Arbitrary<Pool> {
  const setup = one === undefined ? policies : fc.integer({ min: 2, max: 4 }).map((count) => Array<Policy>(count).fill(one));
  const past = one === undefined ? history : steps({ crashes: true, keys: 1 }, 50);
  return fc.tuple(setup, past).map(([own, taken]) => {
    const world = worldOf(own);
    play(world, taken);
    for (const { name } of world.replicas) world.state(name);
    return { world, versions: world.oracle.pool.get(KEY) ?? [] };
  });
}

/** States that replicas can come to hold: what some versions of a pool leave when merged. */
export function statesOf(count: number, one?: Policy): fc.Arbitrary<{ readonly world: World; readonly states: readonly State[] }> {
  const picks = fc.array(fc.array(fc.nat(30), { maxLength: 5 }), { minLength: count, maxLength: count });
  return fc.tuple(pools(one), picks).map(([{ world, versions }, chosen]) => ({
    world,
    states: chosen.map((numbers) =>
      numbers.reduce<State>((state, n) => (versions.length > 0 ? merge(state, [versions[n % versions.length] as Version]) : state), []),
    ),
  }));
}

/** A version as if it had been read anew: equal, and no part of it the same object. */
export function copyOf(version: Version): Version {
  return structuredClone(version);
}
