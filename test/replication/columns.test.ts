/** Records by column: what is none is refused, and what is some stands for the records that it should. */
import { describe, expect, it } from 'vitest';

import { columnsFault, fromColumns, type WireColumns } from '../../src/replication/columns.ts';
import { changesRequest, encodeChanges, PROTOCOL } from '../../src/replication/protocol.ts';
import { stateHash, writtenHash } from '../../src/replication/merge.ts';
import { firstVersion } from '../../src/replication/write.ts';
import { MAX_FIELDS, toWire } from '../../src/replication/wire.ts';

const columns: WireColumns = { model: 'Book', writer: 'a.1', fields: ['f1', 'f2'], keys: ['1', 'zwei'], stamps: [5, 7], values: [['x', null], ['', '"']] };

describe('columns', () => {
  it('stand for records that were written once', () => {
    expect(columnsFault(columns)).toBeNull();
    const records = (
      [
        ['1', 5, { f1: 'x', f2: '' }],
        ['zwei', 7, { f1: null, f2: '"' }],
      ] as const
    ).map(([key, stamp, fields]) => ['Book', key, [toWire(firstVersion('a.1', stamp, fields))]]);
    expect(fromColumns(columns)).toEqual(records);
    expect(fromColumns(columns, [1])).toEqual([records[1]]);
  });

  it('of a model without fields, or of no record, are some', () => {
    expect(columnsFault({ ...columns, fields: [], values: [] })).toBeNull();
    expect(columnsFault({ ...columns, keys: [], stamps: [], values: [[], []] })).toBeNull();
  });

  it.each<[string, unknown]>([
    ['nothing', null],
    ['a list', []],
    ['columns with something more', { ...columns, extra: 1 }],
    ['a model that is no text', { ...columns, model: 1 }],
    ['an endless model', { ...columns, model: 'a'.repeat(64) }],
    ['a writer without an incarnation', { ...columns, writer: 'a' }],
    ['a writer of a strange name', { ...columns, writer: 'a".1' }],
    ['no fields', { ...columns, fields: undefined }],
    ['a field that an object is born with', { ...columns, fields: ['f1', '__proto__'] }],
    ['a field that is no text', { ...columns, fields: ['f1', 2] }],
    ['a field named twice', { ...columns, fields: ['f1', 'f1'] }],
    ['too many fields', { ...columns, fields: Array.from({ length: MAX_FIELDS + 1 }, (_, n) => `f${n}`), values: Array.from({ length: MAX_FIELDS + 1 }, () => ['', '']) }],
    ['no keys', { ...columns, keys: undefined }],
    ['a key that is no text', { ...columns, keys: ['1', 2] }],
    ['a NUL in a key', { ...columns, keys: ['1', '\0'] }],
    ['half a surrogate pair in a key', { ...columns, keys: ['1', '\ud800'] }],
    ['a stamp too few', { ...columns, stamps: [5] }],
    ['a stamp of 0', { ...columns, stamps: [5, 0] }],
    ['a broken stamp', { ...columns, stamps: [5, 1.5] }],
    ['a stamp that is no number', { ...columns, stamps: [5, '7'] }],
    ['a stamp beyond what can be counted up', { ...columns, stamps: [5, Number.MAX_SAFE_INTEGER] }],
    ['no stamps', { ...columns, stamps: undefined }],
    ['a column too few', { ...columns, values: [['x', null]] }],
    ['a column that is none', { ...columns, values: [['x', null], 'x'] }],
    ['a value too few', { ...columns, values: [['x', null], ['']] }],
    ['a value too many', { ...columns, values: [['x', null], ['', '', '']] }],
    ['a value that is no text', { ...columns, values: [['x', null], ['', 1]] }],
    ['a NUL in a value', { ...columns, values: [['x', null], ['', 'a\0b']] }],
    ['half a surrogate pair in a value', { ...columns, values: [['x', null], ['', 'a\udc00b']] }],
  ])('%s is none', (_, value) => {
    expect(columnsFault(value)).not.toBeNull();
  });

  it('travel beside records, or not at all', () => {
    const batch = { protocol: PROTOCOL, sender: { name: 'a', id: '00000000-0000-4000-8000-000000000001', incarnation: '1' }, receiver: '2', start: null, end: { incarnation: '1', position: 3 }, more: false } as const;
    const arrived = (text: string): unknown => changesRequest.parse(JSON.parse(text));
    expect(arrived(encodeChanges({ ...batch, records: '', columns: JSON.stringify(columns) }))).toEqual({ ...batch, records: [], columns: [columns] });
    expect(encodeChanges({ ...batch, records: '', columns: '' })).not.toContain('columns');
    expect(arrived(encodeChanges({ ...batch, records: '' }))).toEqual({ ...batch, records: [], columns: [] });
    expect(() => arrived(encodeChanges({ ...batch, records: '', columns: '{}' }))).toThrow(/name no model/);
  });
});

it.each(['1', 'zwei', 'é|"', ''])('the hash of a record that was written once, %j, is that of its state', (key) => {
  for (const stamp of [1, 1_764_192_000_123_456]) expect([writtenHash(key, 'a.1', stamp), writtenHash(key, 'a.1', String(stamp))]).toEqual(Array(2).fill(stateHash(key, [firstVersion('a.1', stamp, {})])));
});
