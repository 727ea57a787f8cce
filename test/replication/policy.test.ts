import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { merge, type State } from '../../src/replication/merge.ts';
import { latest, latestFields, livingSides, show } from '../../src/replication/policy.ts';
import { covers, isLater, lastWrite, stampOf, type Fields, type Vector, type Version } from '../../src/replication/version.ts';
import { copyOf, statesOf } from './pool.ts';
import { RUNS } from './steps.ts';

const version = (vector: Vector, fields: Fields | null): Version => ({
  vector,
  fields,
  stamps: fields === null ? {} : { '*': lastWrite(vector) },
});
const a = version({ 'a.1': 1 }, { f: 'a', g: 'a' });
const b = version({ 'b.1': 2 }, { f: 'b', g: 'b' });
const c = version({ 'c.1': 3 }, { f: 'c', g: 'c' });

it('nothing is shown of nothing, and what there is of one version', () => {
  for (const policy of ['manual', 'latest', 'field-wise'] as const) {
    expect(show([], policy, 'a.1', null)).toEqual({ fields: null, version: null });
    expect(show([b], policy, 'a.1', a.vector)).toEqual({ fields: b.fields, version: b });
  }
});

describe('manual', () => {
  it('shows what was shown before, whatever else arrives', () => {
    expect(show([a, b], 'manual', 'a.1', a.vector).version).toBe(a);
    expect(show([a, b, c], 'manual', 'z.1', b.vector).version).toBe(b);
  });

  it('shows the latest of those that cover it, once it is covered', () => {
    const byB = version({ 'a.1': 1, 'b.1': 5 }, { f: 'b5' });
    const byC = version({ 'a.1': 1, 'c.1': 4 }, { f: 'c4' });
    expect(show([byB, byC, version({ 'd.1': 9 }, { f: 'd' })], 'manual', 'a.1', a.vector).version).toBe(byB);
  });

  it('shows, where nothing was shown, the side with the largest entry of its own; a tie goes to the latest', () => {
    expect(show([a, b, c], 'manual', 'b.1', null).version).toBe(b);
    expect(show([a, b, c], 'manual', 'b.7', null).version).toBe(b);
    expect(show([a, b, c], 'manual', 'z.1', null).version).toBe(c);
  });

  it('shows its own deletion', () => {
    const deleted = version({ 'a.1': 4 }, null);
    expect(show([deleted, b], 'manual', 'a.1', deleted.vector)).toEqual({ fields: null, version: deleted });
  });

  it('never chooses a side over which a write would cover its own other side unseen', () => {
    expect(show([a, b], 'manual', 'a.1', b.vector).version).toBe(a);
    // What an earlier incarnation wrote is covered by no entry of this one.
    expect(show([a, b], 'manual', 'a.2', b.vector).version).toBe(b);
  });

  it('a side that arrives never changes what is shown', () => {
    fc.assert(
      fc.property(statesOf(2, 'manual'), ({ world, states: [state = [], more = []] }) => {
        const merged = merge(state, more);
        for (const { name, server } of world.replicas) {
          const self = `${name}.${server}`;
          const before = show(state, 'manual', self, null).version;
          const news = merged.some(({ vector }) => (vector[self] ?? 0) > Math.max(0, ...state.map((side) => side.vector[self] ?? 0)));
          // Its own writes do not arrive: they are there before anybody else has them.
          if (before === null || news) continue;
          const after = show(merged, 'manual', self, before.vector).version;
          if (merged.includes(before)) expect(after).toBe(before);
          else expect(after && covers(after.vector, before.vector)).toBe(true);
        }
      }),
      RUNS,
    );
  });
});

describe('latest', () => {
  it('shows the version written last; a tie goes to the greater name', () => {
    const tie = version({ 'd.1': 3 }, { f: 'd', g: 'd' });
    expect(latest([a, c, b])).toBe(c);
    expect(latest([c, tie])).toBe(tie);
    expect(latest([tie, c])).toBe(tie);
  });

  it('shows a deletion that was written last', () => {
    expect(show([a, version({ 'b.1': 5 }, null)], 'latest', 'a.1', a.vector).fields).toBeNull();
  });
});

describe('field-wise', () => {
  it('takes each field from who wrote it last', () => {
    const left: Version = { vector: { 'a.1': 1, 'b.1': 7 }, fields: { f: 'old', g: 'b7' }, stamps: { '*': ['a.1', 1], g: ['b.1', 7] } };
    const right: Version = { vector: { 'a.1': 1, 'c.1': 8 }, fields: { f: 'c8', g: 'old' }, stamps: { '*': ['a.1', 1], f: ['c.1', 8] } };
    expect(show([left, right], 'field-wise', 'a.1', null)).toEqual({ fields: { f: 'c8', g: 'b7' }, version: null });
  });

  it('keeps an edit against a deletion, however late', () => {
    expect(latestFields([a, version({ 'b.1': 9 }, null)])).toEqual(a.fields);
    expect(latestFields([version({ 'a.1': 8 }, null), version({ 'b.1': 9 }, null)])).toBeNull();
  });

  it('takes every value from a living side that holds it with the largest stamp', () => {
    fc.assert(
      fc.property(statesOf(1), ({ states: [state = []] }) => {
        const fields = latestFields(state);
        const living = livingSides(state);
        expect(fields === null).toBe(living.length === 0);
        for (const [name, value] of Object.entries(fields ?? {})) {
          const holders = living.filter((side) => side.fields?.[name] === value);
          const best = holders.some((side) => living.every((other) => !isLater(stampOf(other, name), stampOf(side, name))));
          expect(best).toBe(true);
        }
      }),
      RUNS,
    );
  });
});

it('what is shown follows from the values alone, not from who asks when', () => {
  fc.assert(
    fc.property(statesOf(1), ({ states: [state = []] }) => {
      const copy: State = state.map(copyOf);
      for (const policy of ['latest', 'field-wise'] as const) {
        expect(show(copy, policy, 'z.9', null)).toEqual(show(state, policy, 'a.1', state[0]?.vector ?? null));
        expect(show(copy.toReversed(), policy, 'a.1', null).fields).toEqual(show(state, policy, 'a.1', null).fields);
      }
      expect(show(copy, 'manual', 'a.1', null)).toEqual(show(state, 'manual', 'a.1', null));
      expect(copy).toEqual(state);
    }),
    RUNS,
  );
});
