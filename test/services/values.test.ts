import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { toJsonValues } from '../../src/services/values.ts';

const field = (name: string, type: string, list = false) => ({ name, type, nullable: true, list });
const json = (type: string, value: string | null, list = false): unknown =>
  toJsonValues({ name: 'M', key: field('id', 'String'), fields: [field('f', type, list)] }, 'k', { f: value })['f'];

describe('values as JSON holds them', () => {
  it.each<[string, string | null, unknown]>([
    ['Int', '-2147483648', -2_147_483_648],
    ['Float', '0.1', 0.1],
    ['Float', '1e+300', 1e300],
    ['Float', 'NaN', 'NaN'],
    ['Float', '-Infinity', '-Infinity'],
    ['Boolean', 'true', true],
    ['Boolean', 't', true],
    ['Boolean', 'false', false],
    ['Boolean', 'f', false],
    ['BigInt', '9223372036854775807', '9223372036854775807'],
    ['Decimal', '0.10', '0.10'],
    ['Bytes', '\\xdeadbeef', '\\xdeadbeef'],
    ['Role', 'ADMIN', 'ADMIN'],
    ['Json', '{"a": [1, null, "x"]}', { a: [1, null, 'x'] }],
    ['Json', 'null', null],
    ['DateTime', '2026-11-23 06:34:00+00', '2026-11-23T06:34:00.000Z'],
    ['DateTime', '2026-11-23 06:34:00.1+00', '2026-11-23T06:34:00.100Z'],
    ['DateTime', '2026-11-23 06:34:00.123456+00', '2026-11-23T06:34:00.123456Z'],
    ['DateTime', '2026-11-23 06:34:00.12', '2026-11-23T06:34:00.120Z'],
    ['DateTime', '2026-11-23', '2026-11-23'],
    ['DateTime', '06:34:00', '06:34:00'],
    ['DateTime', 'infinity', 'infinity'],
    ['String', '', ''],
    ['String', null, null],
    ['Int', null, null],
    ['Json', null, null],
  ])('%s %j', (type, stored, shown) => {
    expect(json(type, stored)).toEqual(shown);
  });

  it.each<[string, string, unknown]>([
    ['Int', '{1,NULL,3}', [1, null, 3]],
    ['String', '{}', []],
    ['String', '{"a,b","c\\"d",NULL,"NULL",e}', ['a,b', 'c"d', null, 'NULL', 'e']],
    ['Boolean', '{t,f}', [true, false]],
    ['DateTime', '{"2026-11-23 06:34:00+00"}', ['2026-11-23T06:34:00.000Z']],
  ])('a list of %s %s', (type, stored, shown) => {
    expect(json(type, stored, true)).toEqual(shown);
  });

  it('hold the key first, in its type, and every field of the model, null where the version has none', () => {
    const model = { name: 'M', key: field('id', 'Int'), fields: [field('b', 'String'), field('a', 'Int')] };
    expect(Object.entries(toJsonValues(model, '12', { a: '1' }))).toEqual([['id', 12], ['b', null], ['a', 1]]);
  });

  it('of a Json field come back as they went in', () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        expect(json('Json', JSON.stringify(value))).toEqual(JSON.parse(JSON.stringify(value)));
      }),
    );
  });
});
