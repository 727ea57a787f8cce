/** Versions in worlds where only some replicas know a field. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { merge, type State } from '../../src/replication/merge.ts';
import { show, type Policy } from '../../src/replication/policy.ts';
import { compare, covers, stampOf, type Fields, type Version } from '../../src/replication/version.ts';
import { writeUnseen } from '../../src/replication/write.ts';
import { createWorld } from '../support/world.ts';
import { KEYS, POLICIES } from './player.ts';
import { keysOf, play, RUNS, settle, steps, worldOf } from './steps.ts';

const policies = fc.array(fc.constantFrom(...POLICIES), { minLength: 2, maxLength: 4 });

describe('a field that only some replicas know', () => {
  it('has one value for each stamp: no stamp claims what its writer did not know', () => {
    fc.assert(
      fc.property(policies, steps({ schema: true, policies: true, waiting: true }, 60), (own, history) => {
        const world = worldOf(own);
        play(world, history);
        for (const key of keysOf(world)) for (const { name } of world.replicas) world.state(name, key);
        for (const made of world.oracle.pool.values()) {
          const written = new Map<string, string | null>();
          for (const version of made) {
            for (const [name, value] of Object.entries(version.fields ?? {})) {
              const stamp = `${name} ${stampOf(version, name).join(':')}`;
              expect(written.get(stamp) ?? value, stamp).toBe(value);
              written.set(stamp, value);
            }
          }
        }
      }),
      RUNS,
    );
  });

  it('changes by writes to it alone, whoever extends a version that has it or lacks it', () => {
    const manual = fc.integer({ min: 2, max: 4 }).map((count) => Array<'manual'>(count).fill('manual'));
    fc.assert(
      fc.property(manual, steps({ schema: true, narrow: true }, 60), (own, history) => {
        const world = worldOf(own);
        for (const key of KEYS) world.write('a', { f1: '0' }, key);
        settle(world);
        play(world, history);
        settle(world);
        for (const made of world.oracle.pool.values()) {
          const having = made.filter(({ fields }) => Object.hasOwn(fields ?? {}, 'f3'));
          for (const { fields } of having) expect(fields?.['f3']).toMatch(/^v/);
          for (const earlier of having) {
            for (const later of made) if (covers(later.vector, earlier.vector)) expect(having).toContain(later);
          }
        }
      }),
      RUNS,
    );
  });

  it('is shown alike everywhere once everybody knows it', () => {
    fc.assert(
      fc.property(policies, steps({ schema: true, policies: true, waiting: true }, 60), (own, history) => {
        const world = worldOf(own);
        play(world, history);
        for (const { name } of world.replicas) world.unblock(name);
        settle(world);
        for (const { name } of world.replicas) world.addField(name, 'f3');
        for (const key of keysOf(world)) {
          const [first, ...rest] = world.replicas.map(({ name }) => world.row(name, key));
          if (world.state('a', key).length < 2) for (const row of rest) expect(row).toEqual(first);
        }
      }),
      RUNS,
    );
  });

  it('that was rejected does not return: a side that lacks it is chosen', () => {
    const world = createWorld({ a: 'manual', b: 'manual', c: 'field-wise' });
    world.write('b', { f1: '1' });
    world.sync('b', 'a');
    world.sync('b', 'c');
    world.addField('a', 'f3');
    world.addField('c', 'f3');
    world.write('a', { f3: 'rejected' });
    world.write('b', { f1: 'kept' });
    world.sync('a', 'b');
    // Somebody who has seen the rejected value writes on, not knowing of the choice.
    world.sync('a', 'c');
    world.write('c', { f2: 'c' });
    world.decide('b', { side: world.state('b').findIndex(({ fields }) => fields?.['f1'] === 'kept') });
    world.sync('b', 'c');
    expect(world.row('c')).toEqual({ f1: 'kept', f2: 'c', f3: 'd' });
  });
});

describe('a write that had not seen what was carried', () => {
  const unseen = (state: State, policy: Policy, values: Fields): Version => writeUnseen(state, show(state, policy, 'c.1', null), policy, values, 'c.1', 20);
  const version: Version = { vector: { 'a.1': 10, 'b.1': 5 }, fields: { f1: '1', f3: 'v' }, stamps: { '*': ['b.1', 5], f3: ['a.1', 10] } };

  it('stands beside it, and covers all else', () => {
    const side = unseen([version], 'manual', { f3: 'w' });
    expect(side).toEqual({ vector: { 'a.1': 9, 'b.1': 5, 'c.1': 20 }, fields: { f1: '1', f3: 'w' }, stamps: { '*': ['b.1', 5], f3: ['c.1', 20] } });
    expect(merge([version], [side])).toHaveLength(2);
  });

  it('goes on from it where nobody had written the field', () => {
    const side = unseen([version], 'manual', { f4: 'w' });
    expect(compare(version.vector, side.vector)).toBe('before');
  });

  it('keeps what a view of several sides shows beside, and covers no side whose value it had not seen', () => {
    const own: Version = { vector: { 'b.1': 5, 'c.1': 7 }, fields: { f1: 'own' }, stamps: { '*': ['b.1', 5], f1: ['c.1', 7] } };
    const side = unseen([version, own], 'field-wise', { f3: 'w' });
    expect(side).toEqual({ vector: { 'a.1': 9, 'b.1': 5, 'c.1': 20 }, fields: { f1: 'own', f3: 'w' }, stamps: { '*': ['c.1', 7], f3: ['c.1', 20] } });
    expect(merge([own, version], [side])).toEqual([version, side]);
  });

  it('is laid over what is edited, though that was deleted elsewhere since', () => {
    const deletion: Version = { vector: { 'b.1': 5, 'd.1': 15 }, fields: null, stamps: {} };
    const side = unseen([version, deletion], 'field-wise', { f3: 'w' });
    expect(side).toEqual({ vector: { 'a.1': 9, 'b.1': 5, 'c.1': 20, 'd.1': 15 }, fields: { f1: '1', f3: 'w' }, stamps: { '*': ['c.1', 20] } });
    expect(merge([version, deletion], [side])).toEqual([version, side]);
  });

  it('does not cover what this replica itself had written, before it lost the field', () => {
    const own: Version = { ...version, vector: { 'b.1': 5, 'c.1': 10 }, stamps: { '*': ['b.1', 5], f3: ['c.1', 10] } };
    expect(merge([own], [unseen([own], 'manual', { f3: 'w' })])).toHaveLength(2);
  });
});

it('two copies of one version complete each other', () => {
  const vector = { 'a.1': 5 };
  const [less, more] = [{ f1: '1' }, { f1: '1', f3: '3' }].map((fields): Version => ({ vector, fields, stamps: { '*': ['a.1', 5] } })) as [Version, Version];
  expect(merge([less], [more])).toEqual([more]);
  expect(merge([more], [less])).toEqual([more]);
});
