/** Clocks that are wrong: what is detected follows from what was seen, not from when it was. */
import { afterEach, expect, it } from 'vitest';

import { expectSame, valuesOf } from '../support/compare.ts';
import { openReplicas, type Replicas } from '../support/replicas.ts';

let replicas: Replicas;
afterEach(() => replicas.close());

const HOUR = 3_600_000_000;

it.each([['an hour ahead', HOUR], ['an hour behind', -HOUR]])('a clock %s changes nothing about what is detected', async (_which, skew) => {
  replicas = await openReplicas('abc');
  const sql = (name: string, text: string): Promise<unknown> => replicas.at(name).sql(text);
  await sql('a', `CREATE OR REPLACE FUNCTION replication.clock() RETURNS bigint VOLATILE LANGUAGE sql AS $$ SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint + ${skew} $$`);
  await sql('a', `INSERT INTO things SELECT 'k' || n, '0', '0' FROM generate_series(1, 5) n`);
  await replicas.rest();
  // One after the other, each having seen the last.
  for (const [name, next] of [['a', 'b'], ['b', 'a'], ['a', 'c'], ['c', 'a']] as const) {
    await sql(name, `UPDATE things SET f1 = f1 || '${name}' WHERE id = 'k1'`);
    await replicas.sync(name, next);
  }
  await sql('b', `UPDATE things SET f1 = 'b' WHERE id = 'k2'`);
  await replicas.sync('b', 'a');
  await sql('a', `DELETE FROM things WHERE id = 'k2'`);
  // At once.
  await sql('a', `UPDATE things SET f1 = 'a' WHERE id = 'k3'`);
  await sql('b', `UPDATE things SET f1 = 'b' WHERE id = 'k3'`);
  await sql('a', `DELETE FROM things WHERE id = 'k4'`);
  await sql('c', `UPDATE things SET f2 = 'c' WHERE id = 'k4'`);
  await sql('a', `UPDATE things SET f1 = 'same' WHERE id = 'k5'`);
  await sql('b', `UPDATE things SET f1 = 'same' WHERE id = 'k5'`);
  await sql('a', `INSERT INTO things VALUES ('new', 'a')`);
  await sql('c', `INSERT INTO things VALUES ('new', 'c')`);
  await replicas.rest();
  await expectSame(replicas);
  const valuesOfKey = (key: string): Promise<string[]> => valuesOf(replicas.at('b'), key);
  expect([await valuesOfKey('k1'), await valuesOfKey('k2'), await valuesOfKey('k5')]).toEqual([['0abac,0'], ['deleted'], ['same,0']]);
  expect([await valuesOfKey('k3'), await valuesOfKey('k4'), await valuesOfKey('new')]).toEqual([['a,0', 'b,0'], ['0,c', 'deleted'], ['a,', 'c,']]);
  for (const name of replicas.names) {
    const entries = await replicas.at(name).sql(`SELECT key, kind FROM replication.conflict WHERE status = 'PENDING' ORDER BY key`);
    expect(entries).toEqual([
      { key: 'k3', kind: 'UPDATE_UPDATE' },
      { key: 'k4', kind: 'UPDATE_DELETE' },
      { key: 'new', kind: 'INSERT_INSERT' },
    ]);
  }
});
