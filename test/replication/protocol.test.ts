import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { sameState } from '../../src/replication/merge.ts';
import {
  changesRequest,
  changesResponse,
  digestRequest,
  handshakeRequest,
  handshakeResponse,
  PROTOCOL,
  rosterClash,
  type ChangesRequest,
} from '../../src/replication/protocol.ts';
import type { Version } from '../../src/replication/version.ts';
import { fromWire, toWire } from '../../src/replication/wire.ts';
import { statesOf } from './pool.ts';
import { RUNS } from './steps.ts';

const ID = '00000000-0000-4000-8000-000000000001';
const version = { v: { 'a.1': 5 }, f: { f1: 'x', f2: null }, s: { '*': ['a.1', 5] } };
const batch = {
  protocol: PROTOCOL,
  sender: { name: 'a', id: ID, incarnation: '1' },
  receiver: '2',
  start: null,
  end: { incarnation: '1', position: 3 },
  records: [['Book', '1', [version]]],
};
const introduction = {
  protocol: PROTOCOL,
  name: 'a',
  id: ID,
  incarnation: '1',
  roster: [{ name: 'a', id: ID, slot: 1, stride: 10 }],
  policy: 'manual',
  models: [],
  clock: 1,
};

/** The text of a batch with one version in it, some of it replaced: as text, since not every nonsense can be said in a literal. */
function batchWith(change: Readonly<Record<string, unknown>>): unknown {
  return { ...batch, records: [['Book', '1', [{ ...version, ...change }]]] };
}

describe('a batch', () => {
  it('is accepted as it should be', () => {
    expect(changesRequest.safeParse(batch).success).toBe(true);
    expect(changesRequest.safeParse(batchWith({ f: null, s: {} })).success).toBe(true);
    expect(changesRequest.safeParse(batchWith({ r: ['manual', 'a.1', 5] })).success).toBe(true);
    expect(changesResponse.safeParse({ applied: 0, skipped: 1, detected: [['Book', '1']], records: batch.records }).success).toBe(true);
  });

  it('brings every reachable state over the wire as it was', () => {
    fc.assert(
      fc.property(statesOf(1), ({ states: [state = []] }) => {
        if (state.length === 0) return;
        const sent = JSON.stringify({ ...batch, records: [['Book', '1', state.map(toWire)]] });
        const received: ChangesRequest = changesRequest.parse(JSON.parse(sent));
        const versions: Version[] = received.records.flatMap(([, , taken]) => taken.map(fromWire));
        expect(versions).toEqual(state);
        expect(sameState(versions, state)).toBe(true);
      }),
      RUNS,
    );
  });

  it('brings any text over the wire that PostgreSQL can hold', () => {
    const text = fc.string({ unit: 'binary' }).filter((value) => !value.includes('\0') && value.isWellFormed());
    fc.assert(
      fc.property(text, (value) => {
        const records = [['Book', value, [{ ...version, f: { f1: value } }]]];
        expect(changesRequest.parse(JSON.parse(JSON.stringify({ ...batch, records }))).records).toEqual(records);
      }),
      RUNS,
    );
  });

  it.each<[string, Record<string, unknown>]>([
    ['an empty vector', { v: {} }],
    ['a stamp of 0', { v: { 'a.1': 0 } }],
    ['a negative stamp', { v: { 'a.1': -5 } }],
    ['a broken stamp', { v: { 'a.1': 1.5 } }],
    ['a stamp that is no number', { v: { 'a.1': '5' } }],
    ['a stamp beyond what can be counted up', { v: { 'a.1': Number.MAX_SAFE_INTEGER } }],
    ['a huge stamp', { v: { 'a.1': 1e300 } }],
    ['a replica without an incarnation', { v: { a: 5 } }],
    ['a replica of a strange name', { v: { 'ä.1': 5 } }],
    ['a replica of an endless name', { v: { [`${'a'.repeat(33)}.1`]: 5 } }],
    ['a prototype for a vector', { v: JSON.parse('{"__proto__": 5}') as unknown }],
    ['a method for a replica', { v: { constructor: 5 } }],
    ['no vector', { v: undefined }],
    ['a list for a vector', { v: [5] }],
    ['a value that is no text', { f: { f1: 5 } }],
    ['a NUL', { f: { f1: 'a\0b' } }],
    ['half a surrogate pair', { f: { f1: '\ud800' } }],
    ['the other half', { f: { f1: 'a\udc00b' } }],
    ['no fields, not even null', { f: undefined }],
    ['a field stamp of nobody', { s: { '*': ['', 5] } }],
    ['a field stamp without a stamp', { s: { '*': ['a.1'] } }],
    ['no field stamps', { s: undefined }],
    ['a strategy that does not exist', { r: ['newest', 'a.1', 5] }],
    ['something more', { extra: 1 }],
  ])('with %s is refused', (_, change) => {
    expect(changesRequest.safeParse(batchWith(change)).success).toBe(false);
  });

  it.each<[string, Record<string, unknown>]>([
    ['of another protocol', { protocol: PROTOCOL + 1 }],
    ['that names no receiver', { receiver: undefined }],
    ['that names no start', { start: undefined }],
    ['without an end', { end: null }],
    ['that ends nowhere', { end: { incarnation: '1', position: -1 } }],
    ['from nobody', { sender: { name: '', id: ID, incarnation: '1' } }],
    ['with something more', { extra: 1 }],
    ['with a record of no versions', { records: [['Book', '1', []]] }],
    ['with a key that is no text', { records: [['Book', 1, [version]]] }],
    ['with a NUL in a key', { records: [['Book', '\0', [version]]] }],
    ['with half a record', { records: [['Book', '1']] }],
    ['whose records are none', { records: null }],
  ])('%s is refused', (_, change) => {
    expect(changesRequest.safeParse({ ...batch, ...change }).success).toBe(false);
  });

  it.each(['v', 'f', 's'] as const)('never lets a prototype in through %s', (part) => {
    const text = JSON.stringify(batch).replace(`"${part}":{`, `"${part}":{"__proto__":{"polluted":"yes"},`);
    const parsed = changesRequest.safeParse(JSON.parse(text));
    const taken = parsed.data?.records[0]?.[2][0]?.[part] ?? {};
    expect(Object.getPrototypeOf(taken)).toBe(Object.prototype);
    expect('polluted' in taken).toBe(false);
  });

  it.each([null, undefined, 5, 'text', [], [[]], {}, { records: [] }])('that is %j is refused', (nonsense) => {
    expect(changesRequest.safeParse(nonsense).success).toBe(false);
    expect(changesResponse.safeParse(nonsense).success).toBe(false);
    expect(digestRequest.safeParse(nonsense).success).toBe(false);
    expect(handshakeRequest.safeParse(nonsense).success).toBe(false);
  });
});

describe('a handshake', () => {
  it('may say more than this version knows', () => {
    expect(handshakeRequest.safeParse({ ...introduction, answering: false, later: 1 }).success).toBe(true);
    const checkpoint = { incarnation: '1', position: 4, taker: '2' };
    expect(handshakeResponse.parse({ ...introduction, checkpoint })).toMatchObject({ checkpoint });
    expect(handshakeResponse.safeParse({ ...introduction, checkpoint: null }).success).toBe(true);
  });

  it.each<[string, Record<string, unknown>]>([
    ['a name that could not be told from an incarnation', { name: 'a.1' }],
    ['no id', { id: 'a' }],
    ['a policy that does not exist', { policy: 'newest' }],
    ['slot 0', { roster: [{ name: 'a', id: ID, slot: 0, stride: 10 }] }],
    ['a clock that is no number', { clock: 'now' }],
    ['a checkpoint that nobody took', { checkpoint: { incarnation: '1', position: 4 } }],
  ])('with %s is refused', (_, change) => {
    expect(handshakeResponse.safeParse({ ...introduction, checkpoint: null, ...change }).success).toBe(false);
  });
});

describe('rosters', () => {
  const member = (n: number, name: string, slot: number) => ({ id: `00000000-0000-4000-8000-00000000000${n}`, name, slot, stride: 10 });

  it('fit where every name and slot is one replica', () => {
    expect(rosterClash([member(1, 'a', 1)], [member(1, 'a', 1), member(2, 'b', 2)])).toBeNull();
    expect(rosterClash([], [])).toBeNull();
  });

  it('do not where two replicas share one, and say what to change', () => {
    expect(rosterClash([member(1, 'a', 1)], [member(2, 'a', 2)])).toBe(
      'two replicas are named "a". Give one of them another REPLICA name and an empty database',
    );
    expect(rosterClash([member(1, 'a', 1)], [member(2, 'b', 1)])).toBe(
      'replicas "a" and "b" both use SLOT 1. Give one of them another SLOT and an empty database',
    );
  });
});
