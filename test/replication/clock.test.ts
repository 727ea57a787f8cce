import fc from 'fast-check';
import { expect, it } from 'vitest';

import { largestStamp, nextStamp, stampToInstant } from '../../src/replication/clock.ts';
import { RUNS } from './steps.ts';

it('the next stamp is the time, or one more than the largest seen', () => {
  expect(nextStamp(10, 3)).toBe(10);
  expect(nextStamp(10, 10)).toBe(11);
  expect(nextStamp(10, 99)).toBe(100);
});

it('the largest stamp is that of any entry of any version', () => {
  expect(largestStamp([])).toBe(0);
  expect(
    largestStamp([
      { vector: { 'a.1': 1, 'b.1': 7 }, fields: null, stamps: {} },
      { vector: { 'c.1': 3 }, fields: null, stamps: {} },
    ]),
  ).toBe(7);
});

it('an instant keeps its microseconds, and sorts as its stamp', () => {
  expect(stampToInstant(0)).toBe('1970-01-01T00:00:00.000000Z');
  expect(stampToInstant(1_700_000_000_000_001)).toBe('2023-11-14T22:13:20.000001Z');
  const stamp = fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER });
  fc.assert(
    fc.property(stamp, stamp, (a, b) => {
      expect(stampToInstant(a) < stampToInstant(b)).toBe(a < b);
    }),
    RUNS,
  );
});
