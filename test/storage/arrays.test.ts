/** Arrays as parameters arrive as they were. */
import { afterEach, expect, it } from 'vitest';

import { bigints, numbers, smallints, texts } from '../../src/storage/arrays.ts';
import { openReplicas, type Replicas } from '../support/replicas.ts';

let replicas: Replicas;
afterEach(() => replicas.close());

it('whatever is in them', async () => {
  replicas = await openReplicas('a');
  const { db } = replicas.at('a').replica;
  const ascii = ['', 'x', null, '"', '\\', '{}', 'NULL', 'a,b', ' ', '\t\n', '\u0001'];
  for (const given of [[], [null], [''], ascii, [...ascii, 'é', '€', '\u{1F600}', 'x'.repeat(100_000), null]]) {
    expect(await db.query('SELECT a FROM unnest($1::text[]) AS a', [texts(given)])).toEqual(given.map((value) => [value]));
  }
  for (const whole of [[], [0, 1, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 52 + 2 ** 31, Number.MAX_SAFE_INTEGER]]) {
    expect(await db.query('SELECT a FROM unnest($1::bigint[]) AS a', [bigints(whole)])).toEqual(whole.map((value) => [String(value)]));
  }
  for (const small of [[], [0, 1, 1023, 32_767]]) expect(await db.query('SELECT a FROM unnest($1::smallint[]) AS a', [smallints(small)])).toEqual(small.map((value) => [String(value)]));
  const given = [0, -1, '9223372036854775807', null, 9007199254740991];
  expect(await db.query('SELECT a FROM unnest($1::bigint[]) AS a', [numbers(given)])).toEqual(given.map((value) => [value === null ? null : String(value)]));
});
