import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { countValues, merge, ordered, sameState, stateHash, type State } from '../../src/replication/merge.ts';
import { compare, vectorText, type Version } from '../../src/replication/version.ts';
import { copyOf, statesOf } from './pool.ts';
import { RUNS } from './steps.ts';

const x: Version = { vector: { 'a.1': 1 }, fields: { f: 'x' }, stamps: { '*': ['a.1', 1] } };
const y: Version = { vector: { 'b.1': 2 }, fields: { f: 'y' }, stamps: { '*': ['b.1', 2] } };
const z: Version = { vector: { 'c.1': 3 }, fields: { f: 'y' }, stamps: { '*': ['c.1', 3] } };

describe('merge', () => {
  it('is commutative, associative and idempotent', () => {
    fc.assert(
      fc.property(statesOf(3), ({ states: [a = [], b = [], c = []] }) => {
        expect(sameState(merge(a, b), merge(b, a))).toBe(true);
        expect(sameState(merge(merge(a, b), c), merge(a, merge(b, c)))).toBe(true);
        expect(merge(a, a)).toBe(a);
        expect(merge(merge(a, b), b)).toEqual(merge(a, b));
      }),
      RUNS,
    );
  });

  it('puts versions into the order of the text of their vectors, whatever their stamps', () => {
    const stamps = fc.oneof(fc.constantFrom(1, 9, 10, 999_999_999_999_999, 1_000_000_000_000_000, 8_000_000_000_000_000), fc.integer({ min: 1_764_000_000_000_000, max: 1_764_000_000_000_009 }));
    const vectors = fc.dictionary(fc.constantFrom('a.1', 'a.10', 'b.1', 'c.1'), stamps, { minKeys: 1 });
    fc.assert(
      fc.property(fc.array(vectors, { minLength: 2, maxLength: 4 }), (given) => {
        const texts = ordered(given.map((vector) => ({ ...x, vector }))).map(({ vector }) => vectorText(vector));
        expect(texts).toEqual(texts.toSorted());
      }),
      { numRuns: 2_000 },
    );
  });

  it('makes no version, and drops only what another one covers', () => {
    fc.assert(
      fc.property(statesOf(2), ({ states: [a = [], b = []] }) => {
        const merged = merge(a, b);
        expect([...a, ...b]).toEqual(expect.arrayContaining([...merged]));
        for (const version of [...a, ...b]) {
          const covering = merged.filter((other) => ['equal', 'after'].includes(compare(other.vector, version.vector)));
          expect(covering.length).toBeGreaterThan(0);
        }
      }),
      RUNS,
    );
  });

  it('leaves an antichain, in one order whatever came first', () => {
    fc.assert(
      fc.property(statesOf(2), ({ states: [a = [], b = []] }) => {
        const merged = merge(a, b);
        for (const [i, left] of merged.entries()) {
          for (const right of merged.slice(i + 1)) expect(compare(left.vector, right.vector)).toBe('concurrent');
        }
        expect(merge(b, a)).toEqual(merged);
      }),
      RUNS,
    );
  });

  it('keeps the third side', () => {
    expect(merge(merge([x], [y]), [z])).toEqual([x, y, z]);
  });

  it('brings a list that is no state into order', () => {
    const later: Version = { ...x, vector: { 'a.1': 4 } };
    expect(merge([], [y, x, later])).toEqual([later, y]);
  });

  it('keeps both of equal vectors and unequal values, and tells of them once', () => {
    const fault: Version = { ...x, fields: { f: 'other' } };
    const faults: unknown[] = [];
    const merged = merge([x], [fault], (mine, theirs) => faults.push([mine, theirs]));
    expect(merged).toHaveLength(2);
    expect(faults).toEqual([[x, fault]]);
    expect(merge([fault], [x])).toEqual(merged);
    expect(merge(merged, merged)).toEqual(merged);
  });
});

describe('values', () => {
  it('are counted once, however many versions hold them', () => {
    expect(countValues([x, y, z])).toBe(2);
    expect(countValues([{ ...x, fields: null }, { ...y, fields: null }])).toBe(1);
    expect(countValues([])).toBe(0);
  });
});

describe('stateHash', () => {
  it('is equal for equal states and for no others', () => {
    fc.assert(
      fc.property(statesOf(4), ({ states }) => {
        for (const a of states) {
          for (const b of states) {
            const copy: State = b.map(copyOf);
            expect(stateHash('r', a) === stateHash('r', copy)).toBe(sameState(a, copy));
          }
        }
      }),
      RUNS,
    );
  });

  it('depends on the key, and fits a safe integer', () => {
    const hashes = Array.from({ length: 20_000 }, (_, key) => stateHash(String(key), [x]));
    expect(new Set(hashes).size).toBe(hashes.length);
    expect(hashes.every((hash) => Number.isSafeInteger(hash) && hash >= 0)).toBe(true);
  });

  it('spreads neighbouring stamps over buckets', () => {
    const buckets = new Map<number, number>();
    for (let stamp = 1; stamp <= 16_000; stamp++) {
      const bucket = stateHash('r', [{ ...x, vector: { 'a.1': stamp } }]) % 16;
      buckets.set(bucket, (buckets.get(bucket) ?? 0) + 1);
    }
    expect(buckets.size).toBe(16);
    for (const count of buckets.values()) expect(Math.abs(count - 1000)).toBeLessThan(300);
  });
});
