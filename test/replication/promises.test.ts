/** The design's promises over random histories of 2 to 5 replicas: lost, repeated and reordered deliveries, skewed clocks, restores. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import type { Policy } from '../../src/replication/policy.ts';
import { holds } from '../support/oracle.ts';
import type { World } from '../support/world.ts';
import { POLICIES, type Step } from './player.ts';
import { divergence, heldAnywhere, keysOf, misjudged, play, RUNS, settle, steps, syncAll, worldOf, type Topology } from './steps.ts';

const topology = fc.constantFrom<Topology>('mesh', 'ring', 'chain', 'star');
const policy = fc.constantFrom(...POLICIES);
const samePolicy = fc.tuple(policy, fc.integer({ min: 2, max: 5 })).map(([one, count]) => Array<Policy>(count).fill(one));
const mixedPolicies = fc.array(policy, { minLength: 2, maxLength: 5 });

/** One replica of two goes back in time between short histories: the faults that need several things in a row are rare otherwise. */
const pair = fc.constant<Policy[]>(['manual', 'manual']);
const short = steps({ narrow: true, keys: 2 }, 6);
const oneRestore = fc.tuple(short, short, short).map(([before, lost, after]): Step[] => {
  const told = { do: 'prepare', on: 0, to: 1, limit: 1 } as const;
  return [...before, told, { do: 'backup', on: 0 }, ...lost, { do: 'restore', on: 0 }, ...after];
});

const cases: readonly { name: string; policies: fc.Arbitrary<Policy[]>; history: fc.Arbitrary<Step[]> }[] = [
  { name: 'one policy', policies: samePolicy, history: steps({}, 60) },
  { name: 'mixed policies', policies: mixedPolicies, history: steps({}, 60) },
  { name: 'changes of policy', policies: mixedPolicies, history: steps({ policies: true }, 60) },
  { name: 'records that cannot be shown', policies: samePolicy, history: steps({ waiting: true, policies: true }, 60) },
  { name: 'restarts and restores', policies: samePolicy, history: steps({ crashes: true }, 60) },
  { name: 'restores of a pair', policies: pair, history: oneRestore },
  { name: 'a field that replicas come to know one after another', policies: mixedPolicies, history: steps({ schema: true, policies: true, waiting: true }, 60) },
  { name: 'everything', policies: mixedPolicies, history: steps({ crashes: true, waiting: true, policies: true }, 60) },
];

describe.each(cases)('with $name', ({ policies, history }) => {
  it('replicas converge, lose nothing, and then send nothing', () => {
    fc.assert(
      fc.property(policies, topology, history, (own, links, taken) => {
        const world = worldOf(own);
        play(world, taken);
        for (const { name } of world.replicas) world.unblock(name);
        const before = new Map(keysOf(world).map((key) => [key, heldAnywhere(world, key)]));
        settle(world, links);
        expect(divergence(world)).toBeNull();
        for (const [key, held] of before) expect(heldAnywhere(world, key)).toBe(held);
        expect(syncAll(world, links)).toBe(0);
      }),
      RUNS,
    );
  });

  it('vectors tell exactly what was seen: no false conflict, no false order', () => {
    fc.assert(
      fc.property(policies, history, (own, taken) => {
        const world = worldOf(own);
        play(world, taken);
        settle(world);
        expect(misjudged(world)).toBeNull();
      }),
      RUNS,
    );
  });
});

describe('at every moment', () => {
  it('no step but a restore takes away what a replica holds', () => {
    fc.assert(
      fc.property(mixedPolicies, steps({ waiting: true, policies: true }, 40), (own, history) => {
        const world = worldOf(own);
        let before = new Map<string, bigint>();
        play(world, history, () => {
          const after = pasts(world);
          for (const [place, held] of before) expect(holds(after.get(place) ?? 0n, held)).toBe(true);
          before = after;
        });
      }),
      RUNS,
    );
  });

  it('every acknowledged write is in a version that is a side, or that a side has seen', () => {
    fc.assert(
      fc.property(mixedPolicies, steps({ waiting: true, policies: true }, 40), (own, history) => {
        const world = worldOf(own);
        play(world, history);
        settle(world);
        for (const [key, made] of world.oracle.pool) {
          const sides = world.state('a', key);
          for (const version of made) {
            const past = world.oracle.past(version);
            expect(sides.some((side) => holds(world.oracle.past(side), past))).toBe(true);
          }
        }
      }),
      RUNS,
    );
  });
});

function pasts(world: World): Map<string, bigint> {
  return new Map(
    world.replicas.flatMap(({ name, database }) =>
      [...database.records].map(([key, { state }]) => [`${name}/${key}`, world.oracle.pastOf(state)] as const),
    ),
  );
}
