/** A schema that changes while replicas run: a field on some of them, carried by the others. */
import { afterEach, describe, expect, it } from 'vitest';

import { openDatabase } from '../../src/storage/database.ts';
import { fold } from '../../src/storage/fold.ts';
import { openReplica, type Replica } from '../../src/storage/replica.ts';
import { statesOf, valuesOf } from '../support/compare.ts';
import { linksOf, openReplicas, type Replicas, type TestReplica } from '../support/replicas.ts';
import { model, THINGS, THINGS_WITH_DEFAULT, THINGS_WITH_F3, type Schema } from '../support/schemas.ts';

const ADD_F3 = 'ALTER TABLE things ADD COLUMN f3 text';
const ADD_DEFAULT = `ALTER TABLE things ADD COLUMN f3 text NOT NULL DEFAULT 'd'`;

let replicas: Replicas;
let closers: (() => Promise<void>)[] = [];

afterEach(async () => {
  for (const close of closers) await close();
  closers = [];
  await replicas.close();
});

async function open(newer: string, schema: Schema = THINGS_WITH_F3, names = 'abc', policy?: 'field-wise' | 'latest'): Promise<void> {
  const schemas = Object.fromEntries([...newer].map((name) => [name, schema]));
  replicas = await openReplicas(names, { schemas, ...(policy && { policies: Object.fromEntries([...names].map((name) => [name, policy])) }) });
}

const at = (name: string): TestReplica => replicas.at(name);
const chain = (): Promise<number> => replicas.rest(linksOf('chain', replicas.names));

async function f3(name: string, key = 'x'): Promise<unknown> {
  return (await at(name).sql('SELECT f3 FROM things WHERE id = $1', [key]))[0]?.['f3'];
}

async function pending(name: string): Promise<string[][]> {
  const rows = await at(name).sql(`SELECT to_json(fields)::text AS fields FROM replication.conflict WHERE status = 'PENDING' ORDER BY id`);
  return rows.map(({ fields }) => JSON.parse(fields as string) as string[]);
}

/** That all hold the same, to the letter: a field that one lacks must not be null elsewhere. */
async function expectSameStates(): Promise<void> {
  const [first, ...others] = await Promise.all(replicas.names.map((name) => statesOf(at(name))));
  for (const other of others) expect(other).toEqual(first);
  for (const name of replicas.names) expect(at(name).problems).toEqual([]);
}

describe('a field that one replica does not know', () => {
  it('passes through it, both ways', async () => {
    await open('ac');
    await at('a').sql(`INSERT INTO things VALUES ('x', '1', '2', '3')`);
    await chain();
    expect(await f3('c')).toBe('3');
    await at('c').sql(`UPDATE things SET f3 = '4'`);
    await chain();
    expect(await f3('a')).toBe('4');
    expect(await at('b').sql('SELECT * FROM things')).toEqual([{ id: 'x', f1: '1', f2: '2' }]);
    await expectSameStates();
  });

  it('survives a write there, with the stamp of whoever wrote it', async () => {
    await open('ac');
    await at('a').sql(`INSERT INTO things VALUES ('x', '1', '2', '3')`);
    await chain();
    const [before] = (await statesOf(at('a'))).get('Thing x') ?? [];
    await at('b').sql(`UPDATE things SET f1 = 'b'`);
    await chain();
    const [after] = (await statesOf(at('c'))).get('Thing x') ?? [];
    expect(after?.fields).toEqual({ f1: 'b', f2: '2', f3: '3' });
    expect(after?.stamps['*']).toEqual(before?.stamps['*']);
    expect(await at('a').sql('SELECT * FROM things')).toEqual([{ id: 'x', f1: 'b', f2: '2', f3: '3' }]);
    await expectSameStates();
  });

  it('conflicts with a concurrent edit there, and both are kept', async () => {
    await open('ac');
    await at('a').sql(`INSERT INTO things VALUES ('x', '1', '2', '3')`);
    await chain();
    await at('a').sql(`UPDATE things SET f3 = 'a'`);
    await at('b').sql(`UPDATE things SET f1 = 'b'`);
    await chain();
    for (const name of 'abc') expect(await pending(name)).toEqual([['f1', 'f3']]);
    expect(await valuesOf(at('b'), 'x')).toEqual(['1,2,a', 'b,2,3']);
    await expectSameStates();
  });

  it('is joined with a concurrent edit there where conflicts are settled field by field', async () => {
    await open('ac', THINGS_WITH_DEFAULT, 'abc', 'field-wise');
    await at('b').sql(`INSERT INTO things VALUES ('x', '1', '2')`);
    await chain();
    await at('a').sql(`UPDATE things SET f3 = 'a'`);
    await at('b').sql(`UPDATE things SET f1 = 'b'`);
    await at('b').sql(`UPDATE things SET f2 = 'b'`);
    await chain();
    for (const name of 'ac') expect(await at(name).sql('SELECT f1, f2, f3 FROM things')).toEqual([{ f1: 'b', f2: 'b', f3: 'a' }]);
    await at('b').sql(`UPDATE things SET f1 = 'b2'`);
    await chain();
    for (const name of 'ac') expect(await at(name).sql('SELECT f1, f2, f3 FROM things')).toEqual([{ f1: 'b2', f2: 'b', f3: 'a' }]);
    await expectSameStates();
  });

  it('shows its default where nobody has written it, and that is no write of its own', async () => {
    await open('ac', THINGS_WITH_DEFAULT);
    await at('b').sql(`INSERT INTO things VALUES ('x', '1', '2')`);
    await chain();
    expect(await f3('a')).toBe('d');
    await at('a').sql(`UPDATE things SET f1 = 'same'`);
    await at('b').sql(`UPDATE things SET f1 = 'same'`);
    await chain();
    for (const name of 'abc') expect(await pending(name)).toEqual([]);
    for (const state of (await statesOf(at('c'))).values()) for (const { fields } of state) expect(fields).toEqual({ f1: 'same', f2: '2' });
    await expectSameStates();
  });
});

describe('a field that gets its column', () => {
  it('shows what was carried, and what waits in conflicts', async () => {
    await open('a', THINGS_WITH_DEFAULT, 'ab');
    await at('a').sql(`INSERT INTO things VALUES ('x', '1', '2', '3'), ('y', '1', '2', '3'), ('z', '1', '2', 'd')`);
    await at('b').sql(`INSERT INTO things VALUES ('old', '1', '2')`);
    await replicas.rest();
    await at('a').sql(`UPDATE things SET f3 = 'a' WHERE id = 'y'`);
    await at('b').sql(`UPDATE things SET f1 = 'b' WHERE id IN ('x', 'y')`);
    await replicas.sync('a', 'b');
    await replicas.upgrade('b', THINGS_WITH_DEFAULT, ADD_DEFAULT);
    const rows = await at('b').sql('SELECT id, f1, f3 FROM things ORDER BY id');
    expect(rows).toEqual([
      { id: 'old', f1: '1', f3: 'd' },
      { id: 'x', f1: 'b', f3: '3' },
      { id: 'y', f1: 'b', f3: '3' },
      { id: 'z', f1: '1', f3: 'd' },
    ]);
    expect(await at('b').sql('SELECT FROM replication.log')).toEqual([]);
    expect(await at('b').sql('SELECT FROM replication.record WHERE carries')).toEqual([]);
    await replicas.rest();
    await expectSameStates();
    expect(await valuesOf(at('b'), 'y')).toEqual(['1,2,a', 'b,2,3']);
    await at('b').sql(`UPDATE things SET f3 = 'b' WHERE id <> 'y'`);
    await replicas.rest();
    expect(await at('a').sql(`SELECT f3 FROM things WHERE id <> 'y'`)).toEqual([{ f3: 'b' }, { f3: 'b' }, { f3: 'b' }]);
    await expectSameStates();
  });

  it('shows what was carried of a version that the row still holds while another waits', async () => {
    const picky = { ...THINGS, ddl: `CREATE TABLE things (id text PRIMARY KEY, f1 text CHECK (f1 <> 'bad'), f2 text)` };
    replicas = await openReplicas('ab', { schemas: { a: THINGS_WITH_F3, b: picky } });
    await at('a').sql(`INSERT INTO things VALUES ('x', '1', '2', '3')`);
    await replicas.sync('a', 'b');
    await at('a').sql(`UPDATE things SET f1 = 'bad', f3 = '4'`);
    await replicas.sync('a', 'b');
    await replicas.upgrade('b', THINGS_WITH_F3, ADD_F3);
    expect(await at('b').sql('SELECT f1, f3 FROM things')).toEqual([{ f1: '1', f3: '3' }]);
    expect(await at('b').sql('SELECT FROM replication.record WHERE waiting IS NOT NULL')).toHaveLength(1);
    await at('b').sql(`UPDATE things SET f3 = '5'`);
    await at('b').settle();
    expect(await valuesOf(at('b'), 'x')).toEqual(['1,2,5', 'bad,2,4']);
  });

  it('shows what was carried of a row of which something gives way to another record besides', async () => {
    const unique = (checks: string, more: string): string => `CREATE TABLE things (id text PRIMARY KEY, f1 text UNIQUE, f2 text${checks}${more})`;
    replicas = await openReplicas('ab', { schemas: { a: { ...THINGS_WITH_F3, ddl: unique('', ', f3 text') }, b: { ...THINGS, ddl: unique(` CHECK (f2 <> 'bad')`, '') } } });
    await at('a').sql(`INSERT INTO things VALUES ('x', 'own', '2', '3')`);
    await replicas.sync('a', 'b');
    await at('a').sql(`INSERT INTO things VALUES ('holder', 'taken', '2', '3')`);
    await at('b').sql(`UPDATE things SET f1 = 'taken' WHERE id = 'x'`);
    await replicas.rest();
    await at('a').sql(`UPDATE things SET f2 = 'bad', f3 = '4' WHERE id = 'x'`);
    await replicas.sync('a', 'b');
    await replicas.upgrade('b', THINGS_WITH_F3, ADD_F3);
    expect(await at('b').sql(`SELECT f1, f3 FROM things WHERE id = 'x'`)).toEqual([{ f1: null, f3: '3' }]);
  });

  it('filled by the same migration on both sides makes no conflict', async () => {
    await open('', THINGS, 'ab');
    await at('a').sql(`INSERT INTO things VALUES ('x', '1', '2')`);
    await replicas.rest();
    for (const name of 'ab') await replicas.upgrade(name, THINGS_WITH_F3, `${ADD_F3}; UPDATE things SET f3 = upper(f1 || 'x')`);
    await replicas.rest();
    for (const name of 'ab') expect([await f3(name), await pending(name)]).toEqual(['1X', []]);
    await expectSameStates();
  });

  it('filled by a migration that had not seen what was carried makes a conflict, and loses neither', async () => {
    await open('a', THINGS_WITH_F3, 'ab');
    await at('a').sql(`INSERT INTO things VALUES ('x', '1', '2', '3'), ('same', '1', '2', 'filled')`);
    await replicas.rest();
    await replicas.upgrade('b', THINGS_WITH_F3, `${ADD_F3}; UPDATE things SET f3 = 'filled'`);
    expect(await f3('b')).toBe('filled');
    await replicas.rest();
    for (const name of 'ab') expect(await pending(name)).toEqual([['f3']]);
    expect(await valuesOf(at('a'), 'x')).toEqual(['1,2,3', '1,2,filled']);
    await expectSameStates();
  });

  it('filled by a migration is laid over what is edited, though that was deleted elsewhere since', async () => {
    await open('a', THINGS_WITH_F3, 'ab', 'field-wise');
    await at('a').sql(`INSERT INTO things VALUES ('x', '1', '2', '3')`);
    await replicas.rest();
    await at('a').sql(`UPDATE things SET f3 = '4'`);
    await at('b').sql('DELETE FROM things');
    await replicas.rest();
    await replicas.upgrade('b', THINGS_WITH_F3, `${ADD_F3}; UPDATE things SET f3 = 'filled'`);
    await replicas.rest();
    expect(await valuesOf(at('a'), 'x')).toEqual(['1,2,4', '1,2,filled']);
    for (const name of 'ab') expect(await at(name).sql('SELECT f1, f2, f3 FROM things')).toEqual([{ f1: '1', f2: '2', f3: 'filled' }]);
    await expectSameStates();
  });

  it('is taken over by a process that does not know it, which then does not take it back', async () => {
    await open('', THINGS, 'ab');
    const old = at('b');
    await old.sql(`INSERT INTO things VALUES ('x', '1', '2')`);
    await replicas.rest();
    await old.sql(ADD_DEFAULT);
    const newer = await another(THINGS_WITH_DEFAULT);
    // The older one goes on: what it takes in, folds and sends has all the fields.
    await old.sql(`UPDATE things SET f3 = 'new'`);
    await old.sql(`INSERT INTO things (id, f1) VALUES ('y', '1')`);
    await replicas.rest();
    expect((await statesOf(at('a'))).get('Thing x')?.[0]?.fields).toEqual({ f1: '1', f2: '2', f3: 'new' });
    expect((await statesOf(at('a'))).get('Thing y')?.[0]?.fields).toEqual({ f1: '1', f2: null, f3: 'd' });
    expect(newer.tables.get('Thing')?.columns).toHaveLength(3);

    const definition = (): Promise<unknown> => at('b').sql('SELECT definition FROM replication.model');
    const before = await definition();
    await replicas.reopen('b');
    expect(await definition()).toEqual(before);
    await at('b').sql(`UPDATE things SET f3 = 'newer' WHERE id = 'x'`);
    await fold(newer, () => {});
    await replicas.rest();
    await expectSameStates();
    expect((await statesOf(at('a'))).get('Thing x')?.[0]?.fields?.['f3']).toBe('newer');
  });

  it('goes on showing the default that it came with where nobody has written it, whatever its default becomes', async () => {
    const SET_DEFAULT = `ALTER TABLE things ALTER COLUMN f3 SET DEFAULT 'e'`;
    // c comes when all is over, with an empty database and all of the migrations.
    replicas = await openReplicas('abc', { schemas: { c: { ...THINGS_WITH_DEFAULT, ddl: `${THINGS.ddl}; ${ADD_DEFAULT}; ${SET_DEFAULT}` } } });
    const pair = linksOf('chain', ['a', 'b']);
    await at('a').sql(`INSERT INTO things VALUES ('x', '1', '2'), ('y', '1', '2')`);
    await replicas.rest(pair);
    for (const name of 'ab') await replicas.upgrade(name, THINGS_WITH_DEFAULT, ADD_DEFAULT);
    for (const name of 'ab') await replicas.upgrade(name, THINGS_WITH_DEFAULT, SET_DEFAULT);
    await at('a').sql(`UPDATE things SET f1 = 'a' WHERE id = 'x'`);
    await at('b').sql(`INSERT INTO things VALUES ('new', '1', '2')`);
    await replicas.rest(pair);
    const rows = [{ id: 'new', f3: 'e' }, { id: 'x', f3: 'd' }, { id: 'y', f3: 'd' }];
    for (const name of 'ab') expect(await at(name).sql('SELECT id, f3 FROM things ORDER BY id'), name).toEqual(rows);
    await replicas.upgrade('a', THINGS_WITH_DEFAULT, `ALTER TABLE things ALTER COLUMN f3 DROP DEFAULT`);
    await at('a').sql(`UPDATE things SET f1 = 'b' WHERE id = 'y'`);
    await replicas.rest();
    for (const name of 'abc') expect(await at(name).sql('SELECT id, f3 FROM things ORDER BY id'), name).toEqual(rows);
    await expectSameStates();
  });

  it('and loses it again is carried from then on', async () => {
    await open('ab', THINGS_WITH_F3, 'ab');
    await at('a').sql(`INSERT INTO things VALUES ('x', '1', '2', '3'), ('y', '1', '2', '3')`);
    await replicas.rest();
    await replicas.upgrade('b', THINGS, 'ALTER TABLE things DROP COLUMN f3');
    await at('a').sql(`UPDATE things SET f3 = '4' WHERE id = 'x'`);
    await replicas.sync('a', 'b');
    await at('b').sql(`UPDATE things SET f1 = 'b' WHERE id = 'x'`);
    await replicas.rest();
    expect(await at('a').sql('SELECT * FROM things ORDER BY id')).toEqual([
      { id: 'x', f1: 'b', f2: '2', f3: '4' },
      { id: 'y', f1: '1', f2: '2', f3: '3' },
    ]);
  });
});

async function another(schema: Schema): Promise<Replica> {
  const db = openDatabase(at('b').url, { size: 2, onError: () => {} });
  closers.push(db.close);
  return openReplica(db, { name: 'b', slot: 2, stride: 10, policy: 'manual', models: schema.models, report: () => {} });
}

describe('an incompatible change', () => {
  const AGE = (type: string): Schema => ({
    ddl: `CREATE TABLE things (id text PRIMARY KEY, f1 text, f2 ${type === 'Int' ? 'integer' : 'text'})`,
    models: [model('Thing', 'things', { id: 'String', f1: 'String?', f2: `${type}?` })],
  });

  it('stops that link alone, says what to do, and goes on after the upgrade', async () => {
    await open('a', AGE('Int'));
    const said = /its field Thing\.f2 is (String|Int), here it is (String|Int)\. Bring both to the same version of prisma\/schema\.prisma/;
    await at('a').sql(`INSERT INTO things VALUES ('a', '1', 2)`);
    await at('b').sql(`INSERT INTO things VALUES ('b', '1', '2')`);
    await expect(replicas.sync('a', 'b')).rejects.toThrow(said);
    await expect(replicas.sync('b', 'a')).rejects.toThrow(said);
    expect((await replicas.sync('b', 'c'))?.applied).toBe(1);
    for (const name of 'bc') await replicas.upgrade(name, AGE('Int'), 'ALTER TABLE things ALTER COLUMN f2 TYPE integer USING f2::integer');
    await replicas.rest();
    expect(await at('a').sql('SELECT * FROM things ORDER BY id')).toEqual(await at('c').sql('SELECT * FROM things ORDER BY id'));
    expect(await at('c').sql('SELECT FROM things')).toHaveLength(2);
    await expectSameStates();
  });

  it('is a field that must be written and that the other side does not know', async () => {
    const strict: Schema = { ddl: 'CREATE TABLE things (id text PRIMARY KEY, f1 text, f2 text, f3 text NOT NULL)', models: THINGS_WITH_DEFAULT.models };
    await open('a', strict);
    await expect(replicas.sync('a', 'b')).rejects.toThrow(/which must be written.*Give Thing\.f3 a constant default/);
    await at('b').sql(`INSERT INTO things VALUES ('b', '1', '2')`);
    expect((await replicas.sync('b', 'c'))?.applied).toBe(1);
    await replicas.upgrade('a', THINGS_WITH_DEFAULT, `ALTER TABLE things ALTER COLUMN f3 SET DEFAULT 'd'`);
    await replicas.rest();
    expect(await f3('a', 'b')).toBe('d');
    await expectSameStates();
  });
});
