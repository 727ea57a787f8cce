/** What the triggers log, whoever writes and however. */
import type pg from 'pg';
import { afterEach, describe, expect, it } from 'vitest';

import { openDatabase } from '../../src/storage/database.ts';
import { openReplica } from '../../src/storage/replica.ts';
import { expectSame, rowsOf, statesOf, valuesOf } from '../support/compare.ts';
import { openReplicas, type Replicas, type TestReplica } from '../support/replicas.ts';
import { FAMILY, model, PEOPLE, type Schema } from '../support/schemas.ts';

let replicas: Replicas;
let a: TestReplica;

async function open(schema?: Schema, names = 'a'): Promise<void> {
  replicas = await openReplicas(names, schema && { schema });
  a = replicas.at('a');
}

/** The log's entries in order, as `U key f1,f2`; it is emptied. */
async function logged(): Promise<string[]> {
  const rows = await a.sql(`WITH gone AS (DELETE FROM replication.log RETURNING seq, op, key, fields)
    SELECT concat_ws(' ', op, key, array_to_string(fields, ',')) AS entry FROM gone ORDER BY seq`);
  return rows.map(({ entry }) => (entry as string).trimEnd());
}

afterEach(() => replicas.close());

describe('a statement', () => {
  it('is logged row by row, with the fields that it changed', async () => {
    await open();
    await a.sql(`INSERT INTO things VALUES ('x', '1', '2'), ('y', NULL, NULL)`);
    expect(await logged()).toEqual(['I x', 'I y']);
    await a.sql(`UPDATE things SET f1 = 'n', f2 = '2'`);
    expect(await logged()).toEqual(['U x f1', 'U y f1,f2']);
    await a.sql('UPDATE things SET f1 = NULL');
    expect(await logged()).toEqual(['U x f1', 'U y f1']);
    await a.sql('DELETE FROM things');
    expect((await logged()).toSorted()).toEqual(['D x', 'D y']);
  });

  it('that changes nothing is not logged', async () => {
    await open();
    await a.sql(`INSERT INTO things VALUES ('x', '1', NULL)`);
    await logged();
    await a.sql('UPDATE things SET f1 = f1, f2 = NULL');
    await a.sql(`UPDATE things SET f1 = '2' WHERE false`);
    await a.sql(`DELETE FROM things WHERE id = 'none'`);
    await a.sql(`INSERT INTO things VALUES ('x', '9', '9') ON CONFLICT DO NOTHING`);
    expect(await logged()).toEqual([]);
  });

  it('that changes a key is a deletion and a creation; one that swaps keys writes both', async () => {
    await open({ ddl: 'CREATE TABLE things (id text, f1 text, PRIMARY KEY (id) DEFERRABLE)', models: [model('Thing', 'things', { id: 'String', f1: 'String?' })] });
    await a.sql(`INSERT INTO things VALUES ('x', '1')`);
    await logged();
    await a.sql(`UPDATE things SET id = 'y'`);
    expect((await logged()).toSorted()).toEqual(['D x', 'I y']);
    await a.sql(`INSERT INTO things VALUES ('z', '2')`);
    await logged();
    await a.sql(`UPDATE things SET id = CASE id WHEN 'y' THEN 'z' ELSE 'y' END`);
    expect((await logged()).toSorted()).toEqual(['I y', 'I z']);
  });

  it('that gives rows the keys of others deletes only what is gone afterwards', async () => {
    const numbered: Schema = { ddl: 'CREATE TABLE things (id int, f1 text, PRIMARY KEY (id) DEFERRABLE)', models: [model('Thing', 'things', { id: 'Int', f1: 'String?' })] };
    await open(numbered, 'ab');
    await a.sql(`INSERT INTO things VALUES (1, 'one'), (2, 'two'), (3, 'three')`);
    await replicas.rest();
    await a.sql('UPDATE things SET id = id + 1');
    expect((await a.sql('SELECT op, key FROM replication.log')).map(({ op, key }) => `${op} ${key}`).toSorted()).toEqual(['D 1', 'I 2', 'I 3', 'I 4']);
    await a.sql('UPDATE things SET id = 6 - id WHERE id <> 3');
    await replicas.rest();
    expect((await rowsOf(replicas.at('b'))).toSorted()).toEqual(['Thing (2,three)', 'Thing (3,two)', 'Thing (4,one)']);
    await expectSame(replicas);
  });

  it('that changes what is not replicated is not logged', async () => {
    await open({ ddl: 'CREATE TABLE things (id text PRIMARY KEY, f1 text, own json)', models: [model('Thing', 'things', { id: 'String', f1: 'String?' })] });
    await a.sql(`INSERT INTO things VALUES ('x', '1', '{}')`);
    await logged();
    await a.sql(`UPDATE things SET own = '[]'`);
    expect(await logged()).toEqual([]);
    await a.sql(`UPDATE things SET own = '1', f1 = '2'`);
    expect(await logged()).toEqual(['U x f1']);
  });

  it('that upserts logs what it did to each row', async () => {
    await open();
    await a.sql(`INSERT INTO things VALUES ('x', '1', '1')`);
    await logged();
    await a.sql(`INSERT INTO things VALUES ('x', '2', '1'), ('y', '2', '2') ON CONFLICT (id) DO UPDATE SET f1 = excluded.f1, f2 = excluded.f2`);
    expect((await logged()).toSorted()).toEqual(['I y', 'U x f1']);
    await a.sql(`MERGE INTO things t USING (VALUES ('x', 'm'), ('y', NULL), ('z', 'm')) s (id, f) ON t.id = s.id
      WHEN MATCHED AND s.f IS NULL THEN DELETE WHEN MATCHED THEN UPDATE SET f1 = s.f WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.f, NULL)`);
    expect((await logged()).toSorted()).toEqual(['D y', 'I z', 'U x f1']);
  });

  it('of ten thousand rows is logged whole, COPY included', async () => {
    await open();
    await a.sql(`INSERT INTO things SELECT n::text, 'v', NULL FROM generate_series(1, 10000) n`);
    expect(await logged()).toHaveLength(10_000);
    await a.sql(`COPY things FROM PROGRAM 'printf "k\\t1\\t2\\n"'`);
    expect(await logged()).toEqual(['I k']);
  });

  it('TRUNCATE is refused with what to do instead', async () => {
    await open();
    await expect(a.sql('TRUNCATE things')).rejects.toThrow('TRUNCATE of replicated table things is refused: it would not be replicated. Use DELETE.');
  });
});

describe('a transaction', () => {
  it('that is rolled back leaves nothing, nor does a savepoint', async () => {
    await open();
    await a.session(async (client) => {
      await client.query(`BEGIN; INSERT INTO things VALUES ('x', '1', '1'); ROLLBACK`);
      await client.query(`BEGIN; INSERT INTO things VALUES ('y', '1', '1'); SAVEPOINT s; DELETE FROM things; UPDATE things SET f1 = '2'; ROLLBACK TO s; COMMIT`);
    });
    expect(await logged()).toEqual(['I y']);
  });

  it('that creates, changes and deletes a record leaves a deletion', async () => {
    await open();
    await a.sql(`INSERT INTO things VALUES ('x', '1', '1')`);
    await a.sql(`UPDATE things SET f1 = '2'`);
    await a.sql('DELETE FROM things');
    expect(await valuesOf(a, 'x')).toEqual(['deleted']);
    await a.sql(`INSERT INTO things VALUES ('x', '3', '3')`);
    expect(await valuesOf(a, 'x')).toEqual(['3,3']);
  });
});

describe('a table', () => {
  it('with rows has them adopted, once', async () => {
    await open({ ddl: `CREATE TABLE things (id text PRIMARY KEY, f1 text, f2 text); INSERT INTO things SELECT n::text, 'old', NULL FROM generate_series(1, 3) n`, models: [model('Thing', 'things', { id: 'String', f1: 'String?', f2: 'String?' })] }, 'ab');
    expect(await logged()).toEqual(['I 1', 'I 2', 'I 3']);
    await replicas.reopen('a');
    a = replicas.at('a');
    expect(await logged()).toEqual([]);
  });

  it('of partitions is captured, and so are rows that move between them', async () => {
    const ddl = `CREATE TABLE things (id text, f1 text, PRIMARY KEY (id) DEFERRABLE) PARTITION BY RANGE (id);
      CREATE TABLE low PARTITION OF things FOR VALUES FROM (MINVALUE) TO ('m'); CREATE TABLE high PARTITION OF things FOR VALUES FROM ('m') TO (MAXVALUE)`;
    await open({ ddl, models: [model('Thing', 'things', { id: 'String', f1: 'String?' })] });
    await a.sql(`INSERT INTO things VALUES ('b', '1'), ('x', '1')`);
    await logged();
    await a.sql(`UPDATE things SET f1 = '2'`);
    expect((await logged()).toSorted()).toEqual(['U b f1', 'U x f1']);
    await a.sql(`UPDATE things SET id = 'y' WHERE id = 'b'`);
    expect((await logged()).toSorted()).toEqual(['D b', 'I y']);
    await a.sql(`UPDATE things SET id = CASE id WHEN 'y' THEN 'c' ELSE 'y' END, f1 = id`);
    expect((await logged()).toSorted()).toEqual(['D x', 'I c', 'U y f1']);
  });

  it('that others inherit from is captured with their rows', async () => {
    await open({ ddl: 'CREATE TABLE things (id text PRIMARY KEY, f1 text); CREATE TABLE more () INHERITS (things)', models: [model('Thing', 'things', { id: 'String', f1: 'String?' })] });
    await a.sql(`INSERT INTO things VALUES ('x', '1'); INSERT INTO more VALUES ('y', '1')`);
    await logged();
    await a.sql(`UPDATE things SET f1 = '2'`);
    expect((await logged()).toSorted()).toEqual(['U x f1', 'U y f1']);
  });

  it('cascades: what a foreign key does to children is logged as well', async () => {
    await open(FAMILY);
    await a.sql(`INSERT INTO parents VALUES ('p', 'P')`);
    await a.sql(`INSERT INTO children VALUES ('c', 'p', 'C')`);
    await logged();
    await a.sql('DELETE FROM parents');
    expect((await logged()).toSorted()).toEqual(['D c', 'D p']);
  });

  it('may call its columns what our functions call their variables', async () => {
    const names = ['clock', 'here', 'key', 'model', 'op', 'fields', 'incarnation', 'seq', 'n', 'o', 't', 'x', 'capture', 'c0', 'select', 'new_rows', 'changed', 'old', 'new', 'Ünï "q"'];
    const quoted = names.map((name) => `"${name.replaceAll('"', '""')}"`);
    // A field's name is a plain one, as Prisma has it; its column's need not be.
    const fields = names.map((name) => (name === 'Ünï "q"' ? 'mapped' : name));
    const odd = model('Odd', 'Odd "T', { id: 'String', ...Object.fromEntries(fields.map((field) => [field, 'String?'])) });
    await open({
      ddl: `CREATE TABLE "Odd ""T" (id text PRIMARY KEY, ${quoted.map((name) => `${name} text`).join(', ')})`,
      models: [{ ...odd, columns: { mapped: 'Ünï "q"' } }],
    }, 'ab');
    await a.sql(`INSERT INTO "Odd ""T" VALUES ('x', ${names.map((_, i) => `'${i}'`).join(', ')})`);
    await replicas.rest();
    for (const [i, name] of quoted.entries()) await replicas.at('b').sql(`UPDATE "Odd ""T" SET ${name} = $1`, [`b${i}`]);
    await replicas.rest();
    expect(await rowsOf(a)).toEqual([`Odd (x,${names.map((_, i) => `b${i}`).join(',')})`]);
    await expectSame(replicas);
  });

  it('of a key alone is replicated', async () => {
    await open({ ddl: 'CREATE TABLE tags (id uuid PRIMARY KEY)', models: [model('Tag', 'tags', { id: 'String' })] }, 'ab');
    await a.sql(`INSERT INTO tags VALUES ('A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'), ('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a12')`);
    await a.sql(`UPDATE tags SET id = 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a13' WHERE id::text LIKE '%12'`);
    await replicas.rest();
    expect(await rowsOf(replicas.at('b'))).toHaveLength(2);
    await expectSame(replicas);
  });

  it('has its triggers made anew when its model changes', async () => {
    await open();
    await a.sql('ALTER TABLE things ADD COLUMN f3 text');
    const db = openDatabase(a.url, { size: 1, onError: () => {} });
    await openReplica(db, { ...a.replica, models: [model('Thing', 'things', { id: 'String', f1: 'String?', f2: 'String?', f3: 'String?' })] });
    await db.close();
    await a.sql(`INSERT INTO things VALUES ('x')`);
    await a.sql(`UPDATE things SET f3 = '3'`);
    expect(await logged()).toEqual(['I x', 'U x f3']);
  });

  it('that lacks a column of its model is refused, with what to do', async () => {
    await open();
    const db = openDatabase(a.url, { size: 1, onError: () => {} });
    const models = [model('Thing', 'things', { id: 'String', gone: 'String' })];
    await expect(openReplica(db, { ...a.replica, models })).rejects.toThrow('has no column "gone" for field Thing.gone. Make a migration');
    await db.close();
  });
});

describe('a writer', () => {
  it('with rights on the table alone is captured', async () => {
    await open(PEOPLE);
    const role = `writer_${a.url.slice(-12)}`;
    await a.sql(`CREATE ROLE ${role}`);
    try {
      await a.sql(`GRANT SELECT, INSERT, UPDATE, DELETE ON people TO ${role}; GRANT USAGE ON SCHEMA public TO ${role}; GRANT USAGE ON SEQUENCE people_id_seq TO ${role}`);
      await a.session(async (client) => {
        await client.query(`SET ROLE ${role}`);
        await client.query(`INSERT INTO people (email) VALUES ('x'); UPDATE people SET age = 1; DELETE FROM people`);
        await expect(client.query('SELECT FROM replication.log')).rejects.toThrow('permission denied');
      });
      expect(await logged()).toEqual(['I 1', 'U 1 age', 'D 1']);
    } finally {
      await a.sql(`DROP OWNED BY ${role}; DROP ROLE ${role}`);
    }
  });

  it('cannot put functions, operators or tables of its own in the way', async () => {
    await open();
    await a.session(async (client) => {
      await client.query(`CREATE SCHEMA evil;
        CREATE FUNCTION evil.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS $$ SELECT 'epoch'::timestamptz $$;
        CREATE FUNCTION evil.array_remove(text[], text) RETURNS text[] LANGUAGE sql AS $$ SELECT ARRAY['hijacked'] $$;
        CREATE FUNCTION evil.same(text, text) RETURNS boolean LANGUAGE sql AS $$ SELECT true $$;
        CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.same);
        CREATE TEMP TABLE new_rows (id text, f1 text, f2 text); CREATE TEMP TABLE old_rows (LIKE new_rows);
        CREATE TEMP TABLE log (LIKE new_rows)`);
      await client.query('SET search_path = evil, pg_temp, pg_catalog, public');
      await client.query(`INSERT INTO public.things VALUES ('x', '1', '1')`);
      await client.query(`UPDATE public.things SET f1 = '2'`);
    });
    expect(await a.sql(`SELECT bool_and(clock > 1e15) AS now FROM replication.log`)).toEqual([{ now: 't' }]);
    expect(await logged()).toEqual(['I x', 'U x f1']);
  });

  it('that sets its session oddly is captured as any other', async () => {
    await open({ ddl: 'CREATE TABLE days (id timestamptz PRIMARY KEY, f float8, b bytea, r real)', models: [model('Day', 'days', { id: 'DateTime', f: 'Float', b: 'Bytes?', r: 'Float?' })] }, 'ab');
    await a.session(async (client) => {
      await client.query(`SET DateStyle = 'German, DMY'; SET TimeZone = 'Asia/Kathmandu'; SET extra_float_digits = -15; SET bytea_output = 'escape'; SET IntervalStyle = 'sql_standard'`);
      await client.query(`INSERT INTO days VALUES ('2026-03-04 05:06:07.123456+00', 0.3, '\\x00ff', 1)`);
    });
    await a.settle();
    await a.session(async (client) => {
      await client.query('SET extra_float_digits = -15');
      await client.query('UPDATE days SET f = 0.1::float8 + 0.2::float8');
      await client.query('UPDATE days SET r = 1.0000001::real');
    });
    expect([...(await statesOf(a))].map(([record, [version]]) => [record, version?.fields])).toEqual([
      ['Day 2026-03-04 05:06:07.123456+00', { f: '0.30000000000000004', b: '\\x00ff', r: '1.0000001' }],
    ]);
    await replicas.rest();
    await expectSame(replicas);
  });

  it('whose session lives on while columns get other types is captured', async () => {
    await open({ ddl: 'CREATE TABLE things (id int PRIMARY KEY, f1 text, f2 text)', models: [model('Thing', 'things', { id: 'Int', f1: 'String?', f2: 'String?' })] });
    await a.sql(`INSERT INTO things VALUES (1, '1', '1')`);
    await a.session(async (client) => {
      await client.query(`UPDATE things SET f1 = '2'`);
      await a.sql('ALTER TABLE things ALTER f1 TYPE varchar(9)');
      await client.query(`UPDATE things SET f1 = '3'`);
      await a.sql('ALTER TABLE things ALTER id TYPE bigint');
      await client.query(`UPDATE things SET f2 = '2'`);
      await client.query('UPDATE things SET id = 2');
      await a.sql('ALTER TABLE things ALTER id TYPE int');
      await client.query('UPDATE things SET id = 3');
    });
    expect(await logged()).toEqual(['I 1', 'U 1 f1', 'U 1 f1', 'U 1 f2', 'D 1', 'I 2', 'D 2', 'I 3']);
  });

  it.each([
    ['a table', 'CREATE TABLE things (id text PRIMARY KEY, f1 text)'],
    ['partitions', 'CREATE TABLE things (id text PRIMARY KEY, f1 text) PARTITION BY HASH (id); CREATE TABLE part PARTITION OF things FOR VALUES WITH (MODULUS 1, REMAINDER 0)'],
  ])('whose session lives on while another incarnation begins is logged under the new one: %s', async (_, ddl) => {
    await open({ ddl, models: [model('Thing', 'things', { id: 'String', f1: 'String?' })] });
    const write = async (client: pg.PoolClient): Promise<void> => {
      await client.query(`INSERT INTO things VALUES ('x', '1')`);
      await client.query(`UPDATE things SET f1 = '2'`);
      await client.query(`UPDATE things SET id = 'y'`);
      await client.query('DELETE FROM things');
    };
    const under = async (): Promise<unknown[]> => (await a.sql(`WITH gone AS (DELETE FROM replication.log RETURNING op, incarnation) SELECT DISTINCT op, incarnation FROM gone ORDER BY op`)).map(({ op, incarnation }) => `${op} ${incarnation}`);
    await a.session(async (client) => {
      // From the sixth time on plans are kept.
      for (let n = 0; n < 8; n++) await write(client);
      const [before] = await a.sql('SELECT replication.incarnation() AS i');
      expect(await under()).toEqual(['D', 'I', 'U'].map((op) => `${op} ${before?.['i']}`));
      const [after] = await a.sql('SELECT replication.begin_incarnation() AS i');
      expect(after).not.toEqual(before);
      await write(client);
      expect(await under()).toEqual(['D', 'I', 'U'].map((op) => `${op} ${after?.['i']}`));
    });
  });

  it('that changes only the case of a text is captured, where the column does not tell cases apart', async () => {
    const ddl = `CREATE COLLATION caseless (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
      CREATE TABLE things (id text COLLATE caseless PRIMARY KEY, f1 text COLLATE caseless, f2 text)`;
    await open({ ddl, models: [model('Thing', 'things', { id: 'String', f1: 'String?', f2: 'String?' })] }, 'ab');
    await a.sql(`INSERT INTO things VALUES ('x', 'ada', NULL)`);
    await replicas.rest();
    await a.sql(`UPDATE things SET f1 = 'Ada'`);
    await replicas.rest();
    expect(await rowsOf(replicas.at('b'))).toEqual(['Thing (x,Ada,)']);
    await a.sql(`UPDATE things SET id = 'X'`);
    await replicas.rest();
    await replicas.rest();
    expect(await rowsOf(replicas.at('b'))).toEqual(['Thing (X,Ada,)']);
    await expectSame(replicas);
  });
});
