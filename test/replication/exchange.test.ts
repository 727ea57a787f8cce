import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { isWithheld, receive, resume, sameCheckpoint, type Taken } from '../../src/replication/exchange.ts';
import { sameState } from '../../src/replication/merge.ts';
import { covers, join, type Version } from '../../src/replication/version.ts';
import { statesOf } from './pool.ts';
import { RUNS } from './steps.ts';

const version = (replica: string, stamp: number, seen = {}): Version => ({
  vector: { ...seen, [replica]: stamp },
  fields: { f: `${stamp}` },
  stamps: { '*': [replica, stamp] },
});
const a = version('a.1', 1);
const b = version('b.1', 2);
const afterA = version('b.1', 3, a.vector);

describe('receive', () => {
  it('marks a state that is exactly what the sender holds', () => {
    expect(receive({ state: [], origin: null }, [a], 'p.1')).toEqual({ state: [a], origin: 'p.1', changed: true, differs: false });
    expect(receive({ state: [a], origin: null }, [a], 'p.1')).toEqual({ state: [a], origin: 'p.1', changed: false, differs: false });
    expect(receive({ state: [a], origin: 'q.1' }, [afterA], 'p.1')).toEqual({ state: [afterA], origin: 'p.1', changed: true, differs: false });
  });

  it('clears the mark where merging made something else', () => {
    expect(receive({ state: [a], origin: 'p.1' }, [b], 'p.1')).toEqual({ state: [a, b], origin: null, changed: true, differs: true });
  });

  it('keeps the mark where nothing changed, and tells a sender who is behind', () => {
    expect(receive({ state: [afterA], origin: 'q.1' }, [a], 'p.1')).toEqual({ state: [afterA], origin: 'q.1', changed: false, differs: true });
  });

  it('takes a list in any order, with versions that another one covers, for the state that it is', () => {
    expect(receive({ state: [], origin: null }, [b, a], 'p.1')).toEqual({ state: [a, b], origin: 'p.1', changed: true, differs: false });
    expect(receive({ state: [a, b], origin: null }, [b, a], 'p.1')).toMatchObject({ changed: false, differs: false });
    expect(receive({ state: [], origin: null }, [a, afterA], 'p.1')).toMatchObject({ state: [afterA], differs: false });
  });

  it('tells of equal vectors with unequal values', () => {
    const faults: unknown[] = [];
    receive({ state: [a], origin: null }, [{ ...a, fields: { f: 'other' } }], 'p.1', (mine, theirs) => faults.push([mine, theirs]));
    expect(faults).toHaveLength(1);
  });

  it('never marks what the sender does not hold, and brings both to one state in one answer', () => {
    fc.assert(
      fc.property(statesOf(2), ({ states: [mine = [], theirs = []] }) => {
        if (theirs.length === 0) return;
        const here = receive({ state: mine, origin: null }, theirs, 'p.1');
        if (here.origin === 'p.1') expect(sameState(here.state, theirs)).toBe(true);
        expect(here.differs).toBe(!sameState(here.state, theirs));
        expect(here.changed).toBe(!sameState(here.state, mine));
        for (const side of [...mine, ...theirs]) expect(here.state.some(({ vector }) => covers(vector, side.vector))).toBe(true);
        const there = here.differs ? receive({ state: theirs, origin: null }, here.state, 'q.1') : { state: theirs, differs: false };
        expect(there.differs).toBe(false);
        expect(sameState(there.state, here.state)).toBe(true);
        expect(receive(here, theirs, 'p.1').changed).toBe(false);
      }),
      RUNS,
    );
  });

  it('makes of one version that meets one, or covers several, what it makes of any', () => {
    fc.assert(
      fc.property(statesOf(2), fc.constantFrom(null, 'p.1', 'q.1'), fc.nat(2), ({ states: [mine = [], theirs = []] }, origin, resolved) => {
        const sides = resolved > 0 ? mine : mine.slice(0, 1);
        // One that covers all sides but perhaps the first.
        const covering = { ...a, vector: { ...join(sides.slice(resolved - 1).map(({ vector }) => vector)), 'z.1': 9_000 } };
        const one = resolved > 0 ? [covering] : theirs.slice(0, 1);
        // Told twice it is no single version, and goes the long way.
        expect(receive({ state: sides, origin }, one, 'p.1')).toEqual(receive({ state: sides, origin }, [...one, ...one], 'p.1'));
      }),
      RUNS,
    );
  });
});

it('a record is withheld from the peer that it came from, in that incarnation', () => {
  expect(isWithheld({ state: [a], origin: 'p.1' }, 'p.1')).toBe(true);
  expect(isWithheld({ state: [a], origin: 'p.1' }, 'p.2')).toBe(false);
  expect(isWithheld({ state: [a], origin: null }, 'p.1')).toBe(false);
});

describe('resume', () => {
  const eras = [
    { incarnation: '1', first: 1 },
    { incarnation: '2', first: 6 },
    { incarnation: '3', first: 9 },
  ];
  const at = (incarnation: string, position: number, taker = 'p'): Taken => ({ incarnation, position, taker });

  it('begins at the beginning for a peer that has nothing', () => {
    expect(resume(null, eras, null)).toEqual({ after: 0, restored: false });
  });

  it('goes on where the peer is, in the present incarnation', () => {
    expect(resume(at('3', 12), eras, null)).toEqual({ after: 12, restored: false });
    expect(resume(at('3', 7), eras, at('3', 99))).toEqual({ after: 7, restored: false });
  });

  it('goes on where the peer is known to be, after a restart', () => {
    expect(resume(at('2', 8), eras, at('2', 8))).toEqual({ after: 8, restored: false });
    expect(resume(at('2', 8), eras, at('2', 7))).toEqual({ after: 7, restored: false });
    // The peer itself went back, to an earlier checkpoint of the same two histories.
    expect(resume(at('2', 6), eras, at('2', 8))).toEqual({ after: 6, restored: false });
  });

  it('begins anew where nothing vouches for an earlier incarnation', () => {
    expect(resume(at('2', 8), eras, null).after).toBe(0);
    expect(resume(at('2', 8), eras, at('1', 4)).after).toBe(0);
    expect(resume(at('2', 8), eras, at('2', 8, 'q')).after).toBe(0);
  });

  it('knows that it went back in time by a place that it never gave out', () => {
    expect(resume(at('1', 9), eras, at('1', 4))).toEqual({ after: 4, restored: true });
    expect(resume(at('1', 9), eras, at('1', 9))).toEqual({ after: 5, restored: true });
    expect(resume(at('1', 5), eras, at('1', 5))).toEqual({ after: 5, restored: false });
    expect(resume(at('lost', 3), eras, at('1', 4))).toEqual({ after: 0, restored: true });
  });
});

it('checkpoints are the same in one incarnation and place', () => {
  const one = { incarnation: '1', position: 3 };
  expect(sameCheckpoint(null, null)).toBe(true);
  expect(sameCheckpoint(one, null)).toBe(false);
  expect(sameCheckpoint(one, { ...one })).toBe(true);
  expect(sameCheckpoint(one, { ...one, position: 4 })).toBe(false);
  expect(sameCheckpoint(one, { ...one, incarnation: '2' })).toBe(false);
});
