/** Tombstones are dropped: the histories that broke an earlier wording of the rule, and what must hold over random ones. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { isConflict } from '../../src/replication/conflict.ts';
import { merge, type State } from '../../src/replication/merge.ts';
import { vectorText } from '../../src/replication/version.ts';
import { collectAll, holding, isHeld, spread, values } from './collecting.ts';
import { POLICIES } from './player.ts';
import { divergence, links, misled, play, RUNS, settle, steps, syncAll, worldOf, type Topology } from './steps.ts';

describe('histories', () => {
  it('recreate-after-gc-is-no-conflict', () => {
    const world = holding(2);
    world.write('b', null);
    spread(world);
    world.collect('b');
    world.write('b', { f1: 'new' });
    world.sync('b', 'a');
    expect([values(world), isConflict(world.state('a'))]).toEqual([['new,'], false]);
  });

  it('recreate-after-gc-is-no-conflict, once one of the two has forgotten the record', () => {
    const world = holding(2);
    world.write('b', null);
    spread(world);
    world.collect('b');
    spread(world);
    world.collect('b');
    expect([isHeld(world, 'a'), isHeld(world, 'b')]).toEqual([true, false]);
    world.write('b', { f1: 'new' });
    world.sync('b', 'a');
    expect([values(world), isConflict(world.state('a'))]).toEqual([['new,'], false]);
    collectAll(world);
    expect(world.state('a')).toEqual(world.state('b'));
  });

  it('a record that is written anew under a clock set back is not covered by what others still have of it', () => {
    const world = holding(2);
    world.write('b', null);
    spread(world);
    world.collect('b');
    spread(world);
    world.collect('b');
    world.replica('b').skew = -900;
    world.write('b', { f1: 'new' });
    world.sync('b', 'a');
    expect(values(world)).toEqual(['new,']);
  });

  it('late-batch-after-gc', () => {
    const world = holding(3);
    world.write('b', { f1: 'x' });
    const [late] = world.prepare('b', 'a');
    world.write('b', null);
    // a hears of the deletion, and of what b holds, through c alone: b's checkpoint at a stays where the batch begins.
    for (let round = 0; round < 8; round++) {
      world.sync('b', 'c');
      world.sync('c', 'b');
      world.sync('c', 'a');
      world.sync('a', 'c');
      world.collect('a');
    }
    expect(isHeld(world, 'a')).toBe(false);
    expect(late && world.deliver(late)).toBeNull();
    expect(world.row('a')).toBeNull();
  });

  it('an answer that comes after what it reports was forgotten is not taken', () => {
    const world = holding(3);
    world.write('c', { f1: 'x' });
    world.write('a', { f1: 'y' }, 's');
    world.sync('c', 'b');
    world.write('a', { f2: 'a' });
    const [batch] = world.prepare('a', 'b');
    const answer = batch ? world.deliver(batch) : null;
    expect(answer?.records.length).toBe(1);
    spread(world);
    world.decide('a', 'latest');
    world.write('a', null);
    collectAll(world);
    expect(isHeld(world, 'a')).toBe(false);
    if (answer) world.take(answer);
    expect(world.row('a')).toBeNull();
  });

  it('gc-with-unseen-concurrent-edit', () => {
    const world = holding(3, 'chain');
    world.write('a', null);
    world.sync('a', 'b');
    world.write('c', { f1: 'x' });
    world.sync('c', 'b');
    world.collect('a');
    world.sync('b', 'a');
    spread(world, 'chain');
    expect(values(world)).toEqual(['deleted', 'x,0']);
  });

  it.each<[number, Topology]>([[3, 'chain'], [4, 'chain'], [3, 'ring'], [4, 'ring'], [4, 'star'], [3, 'mesh']])('%i replicas in a %s forget a deleted record', (count, topology) => {
    const world = holding(count, topology);
    world.write('b', null);
    world.write('a', { f1: 'stays' }, 's');
    collectAll(world, topology);
    for (const { name } of world.replicas) {
      expect(isHeld(world, name)).toBe(false);
      expect(world.row(name, 's')).not.toBeNull();
    }
    expect(syncAll(world, topology)).toBe(0);
  });

  it('a replica that is away holds everything up, until it is struck', () => {
    const world = holding(3);
    world.write('b', null);
    const both = (): void => {
      for (let round = 0; round < 6; round++) {
        world.sync('a', 'b');
        world.sync('b', 'a');
        world.collect('a');
        world.collect('b');
      }
    };
    both();
    expect([isHeld(world, 'a'), isHeld(world, 'b')]).toEqual([true, true]);
    world.strike('a', 'c');
    both();
    expect([isHeld(world, 'a'), isHeld(world, 'b')]).toEqual([false, false]);
    // It comes back with what the others have forgotten, and is not listened to.
    world.sync('c', 'b');
    expect(world.row('b')).toBeNull();
  });

  it('a deletion that waits to be shown holds its own dropping up: whoever writes to the row has not seen it', () => {
    const world = holding(2);
    world.block('a');
    world.write('b', null);
    spread(world);
    expect(world.collect('b')).toBe(0);
    world.write('a', { f1: 'unseen' });
    spread(world);
    expect([values(world, 'b'), isConflict(world.state('b'))]).toEqual([['deleted', 'unseen,0'], true]);
  });

  it('what was forgotten is not taken up again from who has not forgotten it yet', () => {
    const world = holding(2);
    world.write('b', null);
    spread(world);
    world.collect('b');
    spread(world);
    world.collect('b');
    expect([isHeld(world, 'a'), isHeld(world, 'b')]).toEqual([true, false]);
    // Its feed is taken from the start, and nothing of it is withheld.
    world.replica('b').database.taken.delete('a');
    world.restart('b');
    world.sync('a', 'b');
    expect(isHeld(world, 'b')).toBe(false);
  });

  it('a replica that joins while tombstones are dropped gets nothing dead', () => {
    const world = holding(2);
    world.write('b', null);
    spread(world);
    world.collect('a');
    world.add('c', 'manual');
    world.sync('b', 'c');
    world.collect('b');
    collectAll(world);
    for (const name of ['a', 'b', 'c']) expect([world.row(name), isHeld(world, name)]).toEqual([null, false]);
    expect(syncAll(world)).toBe(0);
  });
});

describe('over random histories', () => {
  it('merging is commutative, associative and idempotent with ghosts, and a ghost of what is held stays one', () => {
    const text = (state: State): string => state.map(({ vector, collected }) => `${vectorText(vector)}${collected ?? ''}`).join();
    fc.assert(
      fc.property(steps({ collects: true, keys: 1 }, 60), fc.array(fc.nat(200), { minLength: 3, maxLength: 3 }), (history, picks) => {
        const world = worldOf(['manual', 'latest', 'manual']);
        spread(world);
        world.write('a', { f1: '0' });
        spread(world);
        const reached = new Map<string, State>();
        play(world, [...history, { do: 'delete', on: 0, key: 0 }, { do: 'rest' }], () => {
          for (const { name } of world.replicas) reached.set(text(world.state(name)), world.state(name));
        });
        spread(world);
        world.collect('a');
        reached.set(text(world.state('a')), world.state('a'));
        const states = [...reached.values()];
        const [a, b, c] = picks.map((n) => states[n % states.length]) as [State, State, State];
        expect(text(merge(a, b))).toBe(text(merge(b, a)));
        expect(text(merge(merge(a, b), c))).toBe(text(merge(a, merge(b, c))));
        expect(text(merge(merge(a, b), b))).toBe(text(merge(a, b)));
        for (const ghost of a.filter(({ collected }) => collected)) {
          const same = merge(a, b).find(({ vector }) => vectorText(vector) === vectorText(ghost.vector));
          if (same) expect(same.collected).toBe(true);
        }
      }),
      RUNS,
    );
  });

  const setups = fc.array(fc.constantFrom(...POLICIES), { minLength: 2, maxLength: 4 });
  const topologies = fc.constantFrom<Topology>('mesh', 'ring', 'chain', 'star');

  it.each([false, true])('replicas converge, nothing dead comes back, no living write and no opposed deletion is lost (restored from backups: %s)', (crashes) => {
    fc.assert(
      fc.property(setups, topologies, steps({ collects: true, waiting: true, crashes, keys: 2 }, 80), (policies, topology, history) => {
        const world = worldOf(policies);
        // All have met: who joins later has no part in what was deleted before.
        spread(world, topology);
        const neighbours = new Set(links(world, topology).map((link) => link.join()));
        const names = world.replicas.map(({ name }) => name);
        const near = (on: number, to: number): boolean => neighbours.has([names[on % names.length], names[to % names.length]].join());
        play(world, history.filter((step) => !('to' in step && 'limit' in step) || near(step.on, step.to)));
        for (const { name } of world.replicas) world.unblock(name);
        settle(world, topology);
        expect(divergence(world)).toBeNull();
        for (const [key, made] of world.oracle.pool) expect(misled(world, key, made)).toBeNull();
        expect(syncAll(world, topology)).toBe(0);
        collectAll(world, topology);
        expect(divergence(world)).toBeNull();
        for (const { database } of world.replicas) expect([...database.records.values()].filter(({ state }) => state.every(({ fields }) => fields === null))).toEqual([]);
        expect(syncAll(world, topology)).toBe(0);
      }),
      RUNS,
    );
  });
});

