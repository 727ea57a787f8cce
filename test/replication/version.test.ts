import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { compare, covers, foldByName, isLater, join, lastWrite, replicaName, sameFields, stampOf, vectorText } from '../../src/replication/version.ts';
import { misjudged, RUNS } from './steps.ts';
import { copyOf, pools } from './pool.ts';

describe('compare', () => {
  it('orders by what was seen, never by the larger stamp', () => {
    expect(compare({ 'a.1': 1 }, { 'a.1': 1 })).toBe('equal');
    expect(compare({ 'a.1': 1 }, { 'a.1': 1, 'b.1': 2 })).toBe('before');
    expect(compare({ 'a.1': 1, 'b.1': 2 }, { 'a.1': 1 })).toBe('after');
    expect(compare({ 'a.1': 1 }, { 'b.1': 1000 })).toBe('concurrent');
    expect(compare({ 'a.1': 1 }, { 'a.2': 2 })).toBe('concurrent');
  });

  it('tells of every two reachable versions what their writers had truly seen', () => {
    fc.assert(
      fc.property(pools(), ({ world }) => {
        expect(misjudged(world)).toBeNull();
      }),
      RUNS,
    );
  });

  it('gives equal text to equal vectors and to no others', () => {
    fc.assert(
      fc.property(pools(), ({ versions }) => {
        for (const a of versions) {
          for (const b of versions) {
            const turned = Object.fromEntries(Object.entries(b.vector).toReversed());
            expect(vectorText(a.vector) === vectorText(turned)).toBe(compare(a.vector, b.vector) === 'equal');
          }
        }
      }),
      RUNS,
    );
  });
});

describe('join', () => {
  it('is the least vector that covers all', () => {
    expect(join([{ 'a.1': 1, 'b.1': 5 }, { 'a.1': 3 }, { 'c.1': 2 }])).toEqual({ 'a.1': 3, 'b.1': 5, 'c.1': 2 });
    expect(join([])).toEqual({});
    expect(covers(join([{ 'a.1': 1 }, { 'b.1': 2 }]), { 'a.1': 1 })).toBe(true);
  });
});

describe('the last write', () => {
  it('is the largest stamp; a tie goes to the greater name', () => {
    expect(lastWrite({ 'a.1': 3, 'b.1': 2 })).toEqual(['a.1', 3]);
    expect(lastWrite({ 'a.9': 3, 'a_b.1': 3, 'b.1': 3 })).toEqual(['b.1', 3]);
    expect(isLater(['a_b.1', 3], ['a.9', 3])).toBe(true);
    expect(isLater(['a.1', 3], ['a.1', 3])).toBe(false);
  });

  it('is the write that made the version: nothing it has seen has a larger stamp', () => {
    fc.assert(
      fc.property(pools(), ({ versions }) => {
        for (const version of versions) {
          for (const other of versions) {
            if (compare(other.vector, version.vector) !== 'before') continue;
            expect(isLater(lastWrite(version.vector), lastWrite(other.vector))).toBe(true);
          }
        }
      }),
      RUNS,
    );
  });
});

describe('values', () => {
  it('are compared by name, whatever the order', () => {
    expect(sameFields({ x: '1', y: null }, { y: null, x: '1' })).toBe(true);
    expect(sameFields({ x: '1' }, { x: '2' })).toBe(false);
    expect(sameFields({ x: '1' }, { x: '1', y: '2' })).toBe(false);
    expect(sameFields({ toString: '1' }, {})).toBe(false);
    expect(sameFields({ x: '1' }, { y: null, x: '1' })).toBe(true);
    expect(sameFields({ y: null }, {})).toBe(true);
    expect(sameFields(null, null)).toBe(true);
    expect(sameFields(null, {})).toBe(false);
  });

  it('carry the stamp of their name, or the common one', () => {
    const version = { vector: { 'a.1': 2 }, fields: { x: '1', y: '2' }, stamps: { '*': ['a.1', 1], y: ['a.1', 2] } } as const;
    expect(stampOf(version, 'x')).toEqual(['a.1', 1]);
    expect(stampOf(version, 'y')).toEqual(['a.1', 2]);
    expect(stampOf(version, 'constructor')).toEqual(['', 0]);
  });

  it('of every reachable version were written by something in its past', () => {
    fc.assert(
      fc.property(pools(), ({ versions }) => {
        for (const version of versions) {
          expect(version.fields === null).toBe(Object.keys(version.stamps).length === 0);
          for (const name of Object.keys(version.fields ?? {})) {
            const [replica, stamp] = stampOf(copyOf(version), name);
            expect(stamp).toBeGreaterThan(0);
            expect(version.vector[replica]).toBeGreaterThanOrEqual(stamp);
          }
        }
      }),
      RUNS,
    );
  });
});

describe('names', () => {
  it('fold incarnations', () => {
    expect(replicaName('a.9f')).toBe('a');
    expect(foldByName({ 'a.1': 3, 'a.2': 2, 'b.1': 1 })).toEqual({ a: 3, b: 1 });
  });
});
