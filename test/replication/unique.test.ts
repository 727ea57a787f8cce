import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { claimsAlike, claimsOf, holderOf, uniqueOutcome, uniqueValue, unmasked, yieldValue, type Claim, type UniqueKey } from '../../src/replication/unique.ts';
import type { State } from '../../src/replication/merge.ts';
import { show, type Policy } from '../../src/replication/policy.ts';
import type { Fields, FieldStamp, Version } from '../../src/replication/version.ts';
import { writeLocally } from '../../src/replication/write.ts';
import { statesOf } from './pool.ts';

const email: UniqueKey = { name: 'email', fields: ['f1'], nullsClaim: false, yields: { field: 'f1', as: 'mark', longest: 5 } };
const pair: UniqueKey = { name: 'pair', fields: ['f1', 'f2'], nullsClaim: false, yields: { field: 'f2', as: 'null', longest: null } };

const version = (fields: Fields, stamps: Record<string, FieldStamp>, vector: Record<string, number>): Version => ({ vector, fields, stamps });
const created = (f1: string | null, writer: string, stamp: number): Version => version({ f1, f2: '' }, { '*': [writer, stamp] }, { [writer]: stamp });

/** Who holds a value, asked in some order. */
const holder = (unique: UniqueKey, value: string, records: readonly (readonly [string, State])[]): string | undefined =>
  holderOf(records.flatMap(([key, state]) => claimsOf(unique, key, state).get(value) ?? []))?.key;

describe('sides that claim alike', () => {
  it('claim what is shown of them and nothing else, under any policy', () => {
    let alike = 0;
    fc.assert(
      fc.property(statesOf(3), fc.constantFrom(email, pair), fc.constantFrom<Policy>('manual', 'latest', 'field-wise'), ({ states }, unique, policy) => {
        for (const state of states) {
          if (state.length < 2 || !claimsAlike([unique], state)) continue;
          alike++;
          const shown = uniqueValue(unique, show(state, policy, 'a.1', null).fields);
          expect([...claimsOf(unique, 'k', state).keys()]).toEqual(shown === null ? [] : [shown]);
        }
      }),
      { numRuns: 2_000, seed: 7 },
    );
    expect(alike).toBeGreaterThan(20);
  });

  it('are no deletion among them', () => {
    expect(claimsAlike([email], [created('x', 'a.1', 1), { vector: { 'b.1': 1 }, fields: null, stamps: {} }])).toBe(false);
  });
});

describe('the holder of a value', () => {
  it('unique-holder-ignores-arrival-order: it follows from the states, whatever the order they are seen in', () => {
    fc.assert(
      fc.property(statesOf(4), fc.constantFrom(email, pair), ({ states }, unique) => {
        const records = states.map((state, i) => [`k${i}`, state] as const);
        for (const [key, state] of records) {
          for (const value of claimsOf(unique, key, state).keys()) {
            expect(holder(unique, value, records.toReversed())).toBe(holder(unique, value, records));
            expect(holder(unique, value, records)).toBeDefined();
          }
        }
      }),
      { numRuns: 100, seed: 7 },
    );
  });

  it('unique-holder-ignores-arrival-order-while-a-side-waits: every living side claims', () => {
    const sides: State = [version({ f1: 'x', f2: '' }, { '*': ['a.1', 2] }, { 'a.1': 2 }), version({ f1: 'y', f2: '' }, { '*': ['b.1', 9] }, { 'b.1': 9 })];
    expect([...claimsOf(email, 'r', sides).keys()]).toEqual(['["x"]', '["y"]']);
    expect(holder(email, '["x"]', [['s', [created('x', 'c.1', 5)]], ['r', sides]])).toBe('r');
  });

  it('unrelated-edit-does-not-move-the-holder', () => {
    const first = created('x', 'a.1', 1);
    const edited = writeLocally([first], { fields: first.fields, version: first }, 'manual', [{ kind: 'update', replica: 'a.1', clock: 90, changed: ['f2'] }], { f1: 'x', f2: 'n' });
    expect(holder(email, '["x"]', [['s', [created('x', 'b.1', 5)]], ['r', edited]])).toBe('r');
    // Of a compound key that is no unrelated edit.
    expect(claimsOf(pair, 'r', edited).get('["x","n"]')?.stamp).toEqual(['a.1', 90]);
  });

  it('is the least in stamp, replica, key', () => {
    const claim = (key: string, stamp: FieldStamp): Claim => ({ key, stamp, version: created('x', ...stamp) });
    const claims = [claim('c', ['b.1', 2]), claim('b', ['a.1', 2]), claim('a', ['a.1', 2]), claim('d', ['z.1', 3])];
    expect([holderOf(claims)?.key, holderOf(claims.toReversed())?.key, holderOf([])]).toEqual(['a', 'a', null]);
  });

  it('deletions and nulls claim nothing, unless nulls are values', () => {
    const gone: Version = { vector: { 'a.1': 1 }, fields: null, stamps: {} };
    expect(claimsOf(email, 'r', [gone]).size + claimsOf(email, 'r', [created(null, 'a.1', 1)]).size).toBe(0);
    expect(uniqueValue({ ...email, nullsClaim: true }, { f1: null })).toBe('[null]');
  });

  it('what an automatic policy may put together of two sides is claimed as well', () => {
    const sides = [version({ f1: 'x', f2: '0' }, { '*': ['a.1', 1], f1: ['a.1', 5] }, { 'a.1': 5 }), version({ f1: '0', f2: 'y' }, { '*': ['a.1', 1], f2: ['b.1', 6] }, { 'a.1': 1, 'b.1': 6 })];
    expect(claimsOf(pair, 'r', sides).get('["x","y"]')?.stamp).toEqual(['b.1', 6]);
  });
});

describe('what is shown in place of a value', () => {
  it('is null, or the text marked with the key where that fits', () => {
    expect(yieldValue(pair, '7', { f1: 'x', f2: 'y' })).toEqual({ f1: 'x', f2: null });
    expect(yieldValue(email, '7', { f1: 'abc', f2: '' })).toEqual({ f1: 'abc#7', f2: '' });
    expect(yieldValue(email, '7', { f1: 'abcd', f2: '' })).toBeNull();
    expect(yieldValue({ ...email, yields: null }, '7', { f1: 'a' })).toBeNull();
  });

  it('is no value, unless a write made it one', () => {
    const row = { f1: 'x#7', f2: 'new' };
    expect(unmasked(row, { email: 'f1' }, { f1: 'x', f2: 'old' }, new Set(['f2']))).toEqual({ f1: 'x', f2: 'new' });
    expect(unmasked(row, { email: 'f1' }, { f1: 'x', f2: 'old' }, new Set(['f1']))).toEqual(row);
    expect(unmasked(row, { email: 'f1' }, { f1: 'x', f2: 'old' }, null)).toEqual(row);
  });
});

it('a unique conflict ended by the resolution that came, otherwise by whoever wrote last', () => {
  const before = [created('x', 'a.1', 1), created('x', 'b.1', 2)];
  const written = created('y', 'a.1', 5);
  expect(uniqueOutcome(before, [written])).toEqual({ strategy: 'manual', by: 'a' });
  expect(uniqueOutcome(before, [written, { ...created('x#s', 'b.1', 4), resolution: ['latest', 'b.1', 4] }])).toEqual({ strategy: 'latest', by: 'b' });
});
