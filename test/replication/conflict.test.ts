import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { changedFields, choose, chooseValues, differingFields, isConflict, kindOf, outcome, sides } from '../../src/replication/conflict.ts';
import { countValues, merge } from '../../src/replication/merge.ts';
import { lastWrite, sameFields, type Fields, type Vector, type Version } from '../../src/replication/version.ts';
import { resolve } from '../../src/replication/write.ts';
import { copyOf, statesOf } from './pool.ts';
import { RUNS } from './steps.ts';

const base: Version = { vector: { 'a.1': 1 }, fields: { f: '0', g: '0' }, stamps: { '*': ['a.1', 1] } };

/** A version that goes on from the common one. */
function edit(replica: string, stamp: number, changed: Fields | null): Version {
  const stamps = Object.fromEntries(Object.keys(changed ?? {}).map((name) => [name, [replica, stamp] as const]));
  return {
    vector: { ...base.vector, [replica]: stamp },
    fields: changed && { ...base.fields, ...changed },
    stamps: changed ? { ...base.stamps, ...stamps } : {},
  };
}

function insert(vector: Vector, fields: Fields): Version {
  return { vector, fields, stamps: { '*': lastWrite(vector) } };
}

const a = edit('a.1', 5, { f: 'a' });
const b = edit('b.1', 6, { g: 'b' });
const gone = edit('c.1', 7, null);

describe('a conflict', () => {
  it('is two values or more; equal values are none', () => {
    expect(isConflict([])).toBe(false);
    expect(isConflict([a])).toBe(false);
    expect(isConflict([a, b])).toBe(true);
    expect(isConflict([a, gone])).toBe(true);
    expect(isConflict([a, edit('b.1', 6, { f: 'a' })])).toBe(false);
    expect(isConflict([gone, edit('b.1', 6, null)])).toBe(false);
  });

  it('is where some value differs, over every reachable state', () => {
    fc.assert(
      fc.property(statesOf(1), ({ states: [state = []] }) => {
        const differs = state.some((one) => state.some((other) => !sameFields(one.fields, other.fields)));
        expect(isConflict(state.map(copyOf))).toBe(differs);
        expect(countValues(state) > 1).toBe(differs);
      }),
      RUNS,
    );
  });

  it('has a kind', () => {
    expect(kindOf([a, b])).toBe('UPDATE_UPDATE');
    expect(kindOf([a, gone])).toBe('UPDATE_DELETE');
    expect(kindOf([insert({ 'a.1': 1 }, { f: 'a' }), insert({ 'b.1': 2 }, { f: 'b' })])).toBe('INSERT_INSERT');
  });
});

describe('sides', () => {
  it('are named after their writers, the later of one writer with a number', () => {
    const again: Version = { ...edit('a.2', 6, { f: 'z' }) };
    expect(sides([b, again, a]).map(({ label, version }) => [label, version])).toEqual([
      ['a', a],
      ['a~2', again],
      ['b', b],
    ]);
  });

  it('are all of the state, each with a label of its own, whatever the order', () => {
    fc.assert(
      fc.property(statesOf(1), ({ states: [state = []] }) => {
        const listed = sides(state);
        expect(new Set(listed.map(({ label }) => label)).size).toBe(state.length);
        expect(listed.map(({ version }) => version)).toEqual(expect.arrayContaining([...state]));
        expect(sides(state.toReversed())).toEqual(listed);
      }),
      RUNS,
    );
  });
});

describe('what differs', () => {
  it('is the fields of unequal values', () => {
    expect(differingFields([a, b])).toEqual(['f', 'g']);
    expect(differingFields([a, edit('b.1', 6, { f: 'b' })])).toEqual(['f']);
    expect(differingFields([a, edit('b.1', 6, { f: 'a' })])).toEqual([]);
  });

  it('against a deletion is what the living sides changed', () => {
    expect(differingFields([a, gone])).toEqual(['f']);
    expect(differingFields([a, b, gone])).toEqual(['f', 'g']);
    expect(differingFields([gone, edit('b.1', 6, null)])).toEqual([]);
  });

  it('a side changed what some other side has not seen', () => {
    expect(changedFields(a, [a, b])).toEqual(['f']);
    expect(changedFields(b, [a, b])).toEqual(['g']);
    expect(changedFields(gone, [a, gone])).toEqual([]);
  });
});

describe('a choice', () => {
  it('by strategy is what the policy would show', () => {
    expect(choose([a, b], 'latest')).toEqual({ strategy: 'latest', fields: b.fields });
    expect(choose([a, b], 'field-wise')).toEqual({ strategy: 'field-wise', fields: { f: 'a', g: 'b' } });
    expect(choose([a, gone], 'latest')).toEqual({ strategy: 'latest', fields: null });
    expect(choose([a, gone], 'field-wise').fields).toEqual(a.fields);
  });

  it('by values lays them over what is shown; over a deletion, over the latest living side', () => {
    expect(chooseValues([a, b], a.fields, { g: 'n' })).toEqual({ strategy: 'manual', fields: { f: 'a', g: 'n' } });
    expect(chooseValues([a, b, gone], null, { f: 'n' }).fields).toEqual({ f: 'n', g: 'b' });
    expect(chooseValues([gone], null, { f: 'n' }).fields).toEqual({ f: 'n' });
  });
});

describe('the outcome', () => {
  it('of a resolution is its mark, and stays so under later writes', () => {
    const settled = resolve([a, b], choose([a, b], 'field-wise'), 'd.1', 20);
    expect(outcome([a, b], [settled])).toEqual({ strategy: 'field-wise', by: 'd' });
    const later: Version = { ...settled, vector: { ...settled.vector, 'e.1': 30 } };
    expect(outcome([a, b], [later])).toEqual({ strategy: 'field-wise', by: 'd' });
  });

  it('of sides that came to hold one value is by hand, by whoever wrote last', () => {
    const same = edit('b.1', 9, { f: 'a' });
    expect(outcome([a, b], [a, same])).toEqual({ strategy: 'manual', by: 'b' });
  });

  it('is not told by the mark of a resolution that the sides had seen', () => {
    const settled = resolve([a, b], choose([a, b], 'latest'), 'd.1', 20);
    const left: Version = { ...settled, vector: { ...settled.vector, 'a.1': 30 } };
    const right: Version = { ...settled, vector: { ...settled.vector, 'b.1': 31 }, fields: { f: 'r', g: 'r' } };
    const over: Version = { ...left, vector: { ...settled.vector, 'a.1': 40, 'b.1': 31 } };
    expect(outcome([left, right], [over])).toEqual({ strategy: 'manual', by: 'a' });
  });

  it('of two people who resolve at once is a new conflict, or none if they agree', () => {
    const [one, other] = [resolve([a, b], choose([a, b], 'latest'), 'a.1', 20), resolve([a, b], choose([a, b], 'field-wise'), 'b.1', 20)];
    const same = resolve([a, b], choose([a, b], 'latest'), 'c.1', 21);
    expect(isConflict(merge([one], [other]))).toBe(true);
    expect(isConflict(merge([one], [same]))).toBe(false);
    expect(outcome([a, b], merge([one], [same]))).toEqual({ strategy: 'latest', by: 'c' });
  });
});
