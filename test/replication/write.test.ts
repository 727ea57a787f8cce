import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { choose } from '../../src/replication/conflict.ts';
import { largestStamp, nextStamp } from '../../src/replication/clock.ts';
import { merge, type State } from '../../src/replication/merge.ts';
import { latestFields, show, type Policy } from '../../src/replication/policy.ts';
import { compare, covers, lastWrite, stampOf, type Fields, type Vector, type Version } from '../../src/replication/version.ts';
import { resolve, writeAgain, firstVersion, writeBeside, writeLocally, type LocalWrite } from '../../src/replication/write.ts';
import { statesOf } from './pool.ts';
import { RUNS } from './steps.ts';

const version = (vector: Vector, fields: Fields | null): Version => ({
  vector,
  fields,
  stamps: fields === null ? {} : { '*': lastWrite(vector) },
});
const a = version({ 'a.1': 1 }, { f: 'a', g: 'a' });
const b = version({ 'b.1': 2 }, { f: 'b', g: 'a' });
const update = (changed: string[], clock = 10): LocalWrite => ({ kind: 'update', replica: 'a.1', clock, changed });
const insert: LocalWrite = { kind: 'insert', replica: 'a.1', clock: 10, changed: [] };
const remove: LocalWrite = { kind: 'delete', replica: 'a.1', clock: 11, changed: [] };

function write(state: State, policy: Policy, writes: LocalWrite[], fields: Fields | null): State {
  return writeLocally(state, show(state, policy, 'a.1', a.vector), policy, writes, fields);
}

describe('a local write', () => {
  it('that is none changes nothing', () => {
    const state = [a, b];
    expect(write(state, 'manual', [], null)).toBe(state);
  });

  it('creates a record', () => {
    expect(write([], 'manual', [insert], { f: '1' })).toEqual([{ vector: { 'a.1': 10 }, fields: { f: '1' }, stamps: { '*': ['a.1', 10] } }]);
  });

  it.each([0, 9, 10, 11])('creates a record in the short way as in the long one, where stamps up to %i are forgotten', (forgotten) => {
    const long = writeLocally([], { fields: null, version: null }, 'manual', [insert], { f: '1', g: null }, forgotten);
    expect([firstVersion(insert.replica, nextStamp(insert.clock, forgotten), { f: '1', g: null })]).toEqual(long);
  });

  it('updates the only version in the short way as in the long one', () => {
    const stamp = fc.tuple(fc.constantFrom('a.1', 'b.1', 'c.1'), fc.integer({ min: 1, max: 20 }));
    const names = ['f', 'g', 'h'];
    const versions = fc.record({
      vector: fc.dictionary(fc.constantFrom('a.1', 'b.1', 'c.1'), fc.integer({ min: 1, max: 20 }), { minKeys: 1, noNullPrototype: true }),
      // A stamp that is missing is before everyone's.
      stamps: fc.dictionary(fc.constantFrom('*', ...names), stamp, { noNullPrototype: true }),
      resolution: fc.option(fc.constant(['latest', 'b.1', 3] as const), { nil: undefined }),
    });
    const updates = fc.array(fc.record({ kind: fc.constant('update' as const), replica: fc.constantFrom('a.1', 'a.2'), clock: fc.integer({ min: 1, max: 30 }), changed: fc.subarray(names, { minLength: 1 }) }), { minLength: 1, maxLength: 3 });
    fc.assert(
      fc.property(versions, updates, fc.constantFrom<Policy>('manual', 'latest', 'field-wise'), ({ resolution, ...rest }, writes, policy) => {
        const fields = { f: '1', g: null, h: '3' };
        const only: Version & { fields: Fields } = { ...rest, fields, ...(resolution && { resolution }) };
        expect([writeAgain(only, writes)]).toEqual(writeLocally([only], { fields, version: only }, policy, writes, fields));
      }),
      RUNS,
    );
  });

  it('stamps the fields that it changes, and no others', () => {
    const [own] = write([a], 'manual', [update(['f'])], { f: 'n', g: 'a' });
    expect(own).toMatchObject({ vector: { 'a.1': 10 }, fields: { f: 'n', g: 'a' } });
    expect(stampOf(own as Version, 'f')).toEqual(['a.1', 10]);
    expect(stampOf(own as Version, 'g')).toEqual(['a.1', 1]);
  });

  it('takes a stamp beyond every one in the antichain, its clock being behind', () => {
    const [, own] = write([a, version({ 'b.1': 99 }, { f: 'b', g: 'b' })], 'manual', [update(['f'], 5)], { f: 'n', g: 'a' }).toReversed();
    expect(own?.vector).toEqual({ 'a.1': 100 });
  });

  it('extends its own side alone under manual', () => {
    expect(write([a, b], 'manual', [update(['f'])], { f: 'n', g: 'a' }).map(({ vector }) => vector)).toEqual([{ 'a.1': 10 }, { 'b.1': 2 }]);
  });

  it('extends every side of the value shown', () => {
    const same = { ...b, fields: a.fields };
    const other = version({ 'c.1': 3 }, { f: 'c', g: 'c' });
    expect(write([a, same, other], 'manual', [update(['f'])], { f: 'n', g: 'a' }).map(({ vector }) => vector)).toEqual([
      { 'a.1': 10, 'b.1': 2 },
      { 'c.1': 3 },
    ]);
  });

  it('extends all sides under an automatic policy', () => {
    for (const policy of ['latest', 'field-wise'] as const) {
      expect(write([a, b], policy, [update(['f'])], { f: 'n', g: 'a' }).map(({ vector }) => vector)).toEqual([{ 'a.1': 10, 'b.1': 2 }]);
    }
  });

  it('over a row that does not show the state becomes a side of its own', () => {
    const later = version({ 'a.1': 1, 'b.1': 8 }, { f: 'b', g: 'b' });
    const state = writeLocally([later], { fields: a.fields, version: a }, 'manual', [update(['f'])], { f: 'n', g: 'a' });
    expect(state.map(({ vector }) => vector)).toEqual([{ 'a.1': 1, 'b.1': 8 }, { 'a.1': 10 }].toReversed());
  });

  it('stamps anew what it keeps of a side that lost under latest', () => {
    const older: Version = { ...a, vector: { 'a.1': 1, 'c.1': 9 }, stamps: { '*': ['c.1', 9] } };
    const shown: Version = { vector: { 'b.1': 12 }, fields: { f: 'b', g: 'old' }, stamps: { '*': ['b.1', 1], f: ['b.1', 12] } };
    const [own] = write([older, shown], 'latest', [update(['f'], 20)], { f: 'n', g: 'old' });
    expect(stampOf(own as Version, 'g')).toEqual(['a.1', 20]);
  });

  it('folds many into one: an update after a creation, a creation after a deletion, a deletion at last', () => {
    const later = { ...insert, clock: 12 };
    expect(write([], 'manual', [insert, update(['f'], 11)], { f: '2', g: '1' })).toEqual([
      { vector: { 'a.1': 11 }, fields: { f: '2', g: '1' }, stamps: { '*': ['a.1', 10], f: ['a.1', 11] } },
    ]);
    expect(write([a], 'manual', [update(['f']), remove, later], { f: '3', g: '3' })).toEqual([
      { vector: { 'a.1': 12 }, fields: { f: '3', g: '3' }, stamps: { '*': ['a.1', 12] } },
    ]);
    expect(write([a], 'manual', [update(['f']), remove], null)).toEqual([{ vector: { 'a.1': 11 }, fields: null, stamps: {} }]);
  });

  it('of two incarnations has both in its vector', () => {
    const [own] = write([a], 'manual', [update(['f']), { ...update(['g'], 10), replica: 'a.2' }], { f: 'n', g: 'n' });
    expect(own?.vector).toEqual({ 'a.1': 10, 'a.2': 11 });
    expect(lastWrite((own as Version).vector)).toEqual(['a.2', 11]);
  });

  it('is never covered at once, and covers all that its policy shows', () => {
    const policy = fc.constantFrom<Policy>('manual', 'latest', 'field-wise');
    fc.assert(
      fc.property(statesOf(1), policy, fc.nat(2000), ({ states: [state = []] }, own, clock) => {
        const view = show(state, own, 'n.1', null);
        const fields = { f1: 'new', f2: view.fields?.['f2'] ?? '' };
        const one: LocalWrite = { kind: view.fields ? 'update' : 'insert', replica: 'n.1', clock, changed: ['f1'] };
        const next = writeLocally(state, view, own, [one], fields);
        const made = next.find((side) => side.vector['n.1'] !== undefined) as Version;
        expect(made.vector['n.1']).toBeGreaterThan(largestStamp(state));
        if (view.version) expect(covers(made.vector, view.version.vector)).toBe(true);
        if (own !== 'manual') expect(next).toEqual([made]);
        for (const side of state) expect(next.some((other) => covers(other.vector, side.vector))).toBe(true);
        expect(stampOf(made, 'f1')).toEqual(['n.1', made.vector['n.1']]);
      }),
      RUNS,
    );
  });
});

describe('a resolution', () => {
  const choice = fc.constantFrom<'latest' | 'field-wise' | 'values' | 'deletion'>('latest', 'field-wise', 'values', 'deletion');

  it('covers every side and closes the conflict wherever it arrives', () => {
    fc.assert(
      fc.property(statesOf(1), choice, fc.nat(3000), ({ states: [state = []] }, how, now) => {
        if (state.length === 0) return;
        const fields = how === 'values' ? { f1: 'chosen', f2: 'chosen' } : null;
        const chosen = how === 'latest' || how === 'field-wise' ? choose(state, how) : ({ strategy: 'manual', fields } as const);
        const made = resolve(state, chosen, 'n.1', now);
        for (const side of state) expect(compare(made.vector, side.vector)).toBe('after');
        expect(merge(state, [made])).toEqual([made]);
        expect(made.fields).toEqual(chosen.fields);
        expect(made.resolution).toEqual([chosen.strategy, 'n.1', made.vector['n.1']]);
      }),
      RUNS,
    );
  });

  it('lets no rejected value come back at a later field-wise resolution', () => {
    fc.assert(
      fc.property(statesOf(1), choice, fc.nat(3000), ({ states: [state = []] }, how, now) => {
        if (state.length === 0 || how === 'deletion') return;
        const fields = { f1: 'chosen', f2: 'v1' };
        const made = resolve(state, how === 'values' ? { strategy: 'manual', fields } : choose(state, how), 'n.1', now);
        if (made.fields === null) return;
        // A side beside it, as where a third replica had gone on from it: what it did not change must not win.
        for (const side of state) expect(latestFields([made, side])).toEqual(made.fields);
      }),
      RUNS,
    );
  });

  it('keeps the stamps of values that won, and stamps the others anew', () => {
    const made = resolve([a, b], { strategy: 'manual', fields: { f: 'b', g: 'new' } }, 'c.1', 9);
    expect(stampOf(made, 'f')).toEqual(['b.1', 2]);
    expect(stampOf(made, 'g')).toEqual(['c.1', 9]);
  });

  it('stamps an edit beyond the deletion it was chosen over', () => {
    const made = resolve([a, version({ 'b.1': 20 }, null)], { strategy: 'manual', fields: a.fields }, 'c.1', 9);
    expect(made.stamps).toEqual({ '*': ['c.1', 21] });
  });
});

describe('a write to a row that does not show its state', () => {
  const shown = version({ 'a.1': 1, 'b.1': 2 }, { f: 'shown', g: 'b' });

  it('goes on from what the row held, and stands beside the state', () => {
    const state = writeBeside([b], a, [update(['f'])], { f: 'new', g: 'a' });
    expect(state).toEqual([version({ 'a.1': 10 }, { f: 'new', g: 'a' }), b].map((each) => (each === b ? b : { ...each, stamps: { '*': ['a.1', 10], g: ['a.1', 1] } })));
  });

  it('that was not there has not seen what was written here before', () => {
    const state = writeBeside([shown], null, [insert], { f: 'new', g: 'new' });
    expect(state).toHaveLength(2);
    expect(state).toContain(shown);
  });

  it('that was made anew so goes on without having seen it', () => {
    const [made] = writeBeside([a], null, [insert], { f: 'new', g: 'new' }).filter((each) => each !== a) as [Version];
    const state = writeBeside([a, made], made, [update(['f'])], { f: 'newer', g: 'new' });
    expect(state.map(({ fields }) => fields?.['f']).toSorted()).toEqual(['a', 'newer']);
  });

  it('that is made anew again at the same time by the clock is another: the clock was set back', () => {
    const rows = ['one', 'two', 'three'];
    const state = rows.reduce<State>((before, f) => writeBeside(before, null, [insert], { f, g: f }), [shown]);
    expect(state.map(({ fields }) => fields?.['f']).toSorted()).toEqual(['one', 'shown', 'three', 'two']);
  });
});
