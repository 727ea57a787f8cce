/** Every scalar that Prisma has on PostgreSQL survives the trip exactly: to another replica, on to a third, and back after a write there. */
import { afterAll, beforeAll, expect, it } from 'vitest';

import { expectSame } from '../support/compare.ts';
import { openReplicas, type Replicas } from '../support/replicas.ts';
import { model } from '../support/schemas.ts';

/** Column, its type in the Prisma schema and in PostgreSQL, and values as SQL. */
const COLUMNS: readonly (readonly [name: string, prisma: string, type: string, values: readonly string[]])[] = [
  ['txt', 'String?', 'text', [`''`, `'a''b"\\c'`, `E'\\t\\n\\r\\x01\\x7f'`, `'🦆 ﷽ é'`, `'null'`, `' x '`, `repeat('ä', 40000)`]],
  ['fixed', 'String?', 'char(4)', [`'ab'`, `''`, `'abcd'`]],
  ['short', 'String?', 'varchar(3)', [`'abc'`, `' '`]],
  ['num', 'Int?', 'integer', ['0', '2147483647', '-2147483648']],
  ['tiny', 'Int?', 'smallint', ['-32768', '32767']],
  ['big', 'BigInt?', 'bigint', ['9223372036854775807', '-9223372036854775808', '9007199254740993']],
  ['flt', 'Float?', 'double precision', [`'NaN'`, `'Infinity'`, `'-Infinity'`, `'-0'`, '5e-324', '1.7976931348623157e308', '0.1::float8 + 0.2::float8', '1e15', '123456789012345680']],
  ['flt4', 'Float?', 'real', ['1.1', `'-0'`, '1.4e-45', '16777217', `'NaN'`]],
  ['dec', 'Decimal?', 'numeric', ['1.10', '1.1', '0.000', `'NaN'`, `'Infinity'`, `repeat('9', 400)::numeric`, '-0.00000000000000000000000000000000000001']],
  ['dec2', 'Decimal?', 'decimal(65,30)', ['1.1', '-12345678901234567890123456789012345.5']],
  ['cash', 'Decimal?', 'money', ['12.34', '-0.01']],
  ['bool', 'Boolean?', 'boolean', ['true', 'false']],
  ['ts3', 'DateTime?', 'timestamp(3)', [`'2026-02-03 04:05:06.789'`, `'infinity'`, `'-infinity'`, `'0044-03-15 12:00:00 BC'`, `'294276-12-31 23:59:59.999'`, `'4713-01-01 00:00:00 BC'`]],
  ['tz6', 'DateTime?', 'timestamptz(6)', [`'2026-02-03 04:05:06.789012+05:45'`, `'infinity'`, `'0001-01-01 00:00:00+00 BC'`, `'1883-11-18 12:03:57 America/New_York'`]],
  ['day', 'DateTime?', 'date', [`'2026-12-31'`, `'infinity'`, `'0044-03-15 BC'`, `'5874897-12-31'`]],
  ['clock', 'DateTime?', 'time(6)', [`'24:00:00'`, `'23:59:59.999999'`]],
  ['clocktz', 'DateTime?', 'timetz', [`'04:05:06.7+05:45'`]],
  ['doc', 'Json?', 'jsonb', [`'null'`, `'{"b": 1.10, "a": [1e400, "\\u00e9", {}]}'`, `'"text"'`, `'9007199254740993'`]],
  ['raw', 'Json?', 'json', [`'{"b":1, "a" :1,"a":2}'`, `'null'`, `E'{\\n}'`]],
  ['bytes', 'Bytes?', 'bytea', [`''`, `'\\x00ff5c27'`, `decode(repeat('00ff', 5000), 'hex')`]],
  ['mood', 'Mood?', '"Mood"', [`'happy'`, `'so, "so"'`, `''''`]],
  ['uid', 'String?', 'uuid', [`'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'`]],
  ['net', 'String?', 'inet', [`'10.1.2.3/8'`, `'::1'`]],
  ['bits', 'String?', 'bit varying', [`B''`, `B'0101'`]],
  ['dur', 'String?', 'interval', [`'1 year -2 mons 3 days -04:05:06.7'`, `'30 days'`, `'1 mon'`]],
  ['doc2', 'String?', 'xml', [`'<a b="1">&amp;</a>'`]],
  ['nums', 'Int[]', 'integer[]', [`'{}'`, `'{1,-2,3}'`, `'{NULL}'`, `'[0:1]={1,2}'`]],
  ['txts', 'String[]', 'text[]', [`ARRAY['a,b', '"', '\\', '', 'NULL', NULL, '{}']`]],
  ['flts', 'Float[]', 'double precision[]', [`'{NaN,-0,5e-324}'`]],
  ['tss', 'DateTime[]', 'timestamptz(3)[]', [`'{infinity,"2026-01-01 00:00:00+02"}'`]],
  ['docs', 'Json[]', 'jsonb[]', [`ARRAY['{"a":"b,c"}', 'null']::jsonb[]`]],
  ['bins', 'Bytes[]', 'bytea[]', [`ARRAY['\\x00'::bytea, '\\x5c22']`]],
  ['moods', 'Mood[]', '"Mood"[]', [`ARRAY['so, "so"', 'happy']::"Mood"[]`]],
];

const schema = {
  ddl: `CREATE TYPE "Mood" AS ENUM ('happy', 'so, "so"', ''''); CREATE TABLE samples (code text PRIMARY KEY, ${COLUMNS.map(([name, , type]) => `${name} ${type}`).join(', ')})`,
  models: [model('Sample', 'samples', { code: 'String', ...Object.fromEntries(COLUMNS.map(([name, type]) => [name, type])) })],
};
/** Sessions of other programs: what they are set to must change nothing. */
const ODD = `SET DateStyle = 'SQL, DMY'; SET TimeZone = 'America/St_Johns'; SET bytea_output = 'escape'; SET extra_float_digits = 0; SET IntervalStyle = 'iso_8601'; SET standard_conforming_strings = on`;

let replicas: Replicas;

beforeAll(async () => {
  replicas = await openReplicas('abc', { schema });
});

afterAll(() => replicas.close());

const texts = async (name: string): Promise<unknown> =>
  replicas.at(name).sql(`SELECT code, ${COLUMNS.map(([column]) => `${column}::text`).join(', ')} FROM samples ORDER BY code COLLATE "C"`);

it('every value is the same on the other side, and after the way back', async () => {
  const a = replicas.at('a');
  const rows = Math.max(...COLUMNS.map(([, , , values]) => values.length));
  await a.session(async (client) => {
    await client.query(ODD);
    for (let i = 0; i < rows; i++) {
      const values = COLUMNS.map(([, , type, all]) => `${all[i] === undefined ? 'NULL' : `(${all[i]})`}::${type}`);
      await client.query(`INSERT INTO samples VALUES ('k ${i}''"\\', ${values.join(', ')})`);
    }
  });
  await replicas.sync('a', 'b');
  expect(await texts('b')).toEqual(await texts('a'));

  // Each row's values move on to the next row on b, and from there to c and a: as updates, not as creations.
  const b = replicas.at('b');
  await b.session(async (client) => {
    await client.query(ODD);
    const next = `(SELECT code, lead(code, 1, 'k 0''"\\') OVER (ORDER BY code) AS target FROM samples)`;
    await client.query(
      `UPDATE samples t SET ${COLUMNS.map(([column]) => `${column} = s.${column}`).join(', ')} FROM samples s JOIN ${next} n ON n.code = s.code WHERE t.code = n.target`,
    );
  });
  await replicas.sync('b', 'c');
  await replicas.sync('b', 'a');
  expect(await texts('c')).toEqual(await texts('b'));
  expect(await texts('a')).toEqual(await texts('b'));
  await replicas.rest();
  await expectSame(replicas);
  const [waiting] = await replicas.at('c').sql('SELECT count(*) FROM replication.record WHERE waiting IS NOT NULL');
  expect(waiting).toEqual({ count: '0' });
});

it('a change between values that the type calls equal travels', async () => {
  const a = replicas.at('a');
  await a.sql(`INSERT INTO samples (code, flt, dec, doc, raw, fixed) VALUES ('eq', 0, 1.0, '1.0', '{}', 'a')`);
  await replicas.rest();
  for (const set of [`flt = '-0'`, 'dec = 1.00', `doc = '1.00'`, `raw = '{ }'`]) {
    await a.sql(`UPDATE samples SET ${set} WHERE code = 'eq'`);
    expect(await replicas.sync('a', 'b'), set).toMatchObject({ sent: 1, applied: 1 });
  }
  expect(await replicas.at('b').sql(`SELECT flt::text, dec::text, doc::text, raw::text FROM samples WHERE code = 'eq'`)).toEqual([
    { flt: '-0', dec: '1.00', doc: '1.00', raw: '{ }' },
  ]);
  await replicas.rest();
  await expectSame(replicas);
});

it('the same values written on two sides are no conflict', async () => {
  const values = COLUMNS.map(([, , type, all]) => `(${all[0]})::${type}`).join(', ');
  for (const name of ['a', 'b']) await replicas.at(name).sql(`INSERT INTO samples VALUES ('twin', ${values})`);
  await replicas.rest();
  expect(await replicas.at('a').sql('SELECT count(*) FROM replication.conflict')).toEqual([{ count: '0' }]);
  await expectSame(replicas);
});
