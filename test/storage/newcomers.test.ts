/** Many records at once of which a replica knows nothing: they are taken over as one by one, whatever is the matter with some of them. */
import { afterEach, describe, expect, it } from 'vitest';

import { fromColumns, type WireColumns } from '../../src/replication/columns.ts';
import type { WireRecord } from '../../src/replication/wire.ts';
import { applyRecords } from '../../src/storage/apply.ts';
import { takeNewcomers } from '../../src/storage/newcomers.ts';
import type { ModelTable } from '../../src/storage/tables.ts';
import { expectSame, statesOf, valuesOf } from '../support/compare.ts';
import { intercept, interceptOnce } from '../support/intercept.ts';
import { openReplicas, type Replicas } from '../support/replicas.ts';
import { ACCOUNTS, FAMILY, PEOPLE, THINGS_WITH_F3, type Schema } from '../support/schemas.ts';

let replicas: Replicas;
afterEach(() => replicas.close());

const sql = (name: string, text: string) => replicas.at(name).sql(text);
const open = async (schema?: Schema): Promise<void> => {
  replicas = await openReplicas('ab', schema && { schema });
};

/** Has the replicas get records one by one, as from a peer that knows of no other way. */
function withoutColumns(): void {
  for (const name of replicas.names) {
    const { handlers } = replicas.at(name);
    const { handshake } = handlers;
    handlers.handshake = async (request) => {
      const { columns: _, ...response } = await handshake(request);
      return response;
    };
  }
}
const count = async (name: string, table = 'things'): Promise<number> => Number((await sql(name, `SELECT count(*) FROM ${table}`))[0]?.['count']);
async function rest(): Promise<void> {
  await replicas.rest();
  await expectSame(replicas);
}

describe.each(['by column', 'one by one'])('three hundred records, %s,', (way) => {
  const begin = async (...[schema]: Parameters<typeof open>): Promise<void> => {
    await open(schema);
    if (way === 'one by one') withoutColumns();
  };

  it('come to an empty replica without a look at each', async () => {
    await begin();
    await sql('a', `INSERT INTO things SELECT n, 'x' || n, NULL FROM generate_series(1, 300) n`);
    let looks = 0;
    intercept(replicas.at('b').replica.db, (text, next) => {
      if (text.includes('LEFT JOIN LATERAL')) looks++;
      return next();
    });
    await replicas.sync('a', 'b');
    expect([await count('b'), looks]).toEqual([300, 0]);
    await rest();
  });

  it('come behind those that are known, without a look at each', async () => {
    await begin();
    await sql('a', `INSERT INTO things SELECT n, 'x', '0' FROM generate_series(1, 200) n`);
    await replicas.rest();
    await sql('a', `UPDATE things SET f1 = 'a'`);
    await sql('a', `INSERT INTO things SELECT n, 'x', '0' FROM generate_series(201, 320) n`);
    let made = 0;
    intercept(replicas.at('b').replica.db, (text, next) => {
      if (text.includes('INSERT INTO replication.record') && !text.includes('ON CONFLICT')) made++;
      return next();
    });
    await replicas.sync('a', 'b');
    expect([await count('b'), made]).toEqual([320, 1]);
    await rest();
  });

  it('come beside those that are known, changed or not', async () => {
    await begin();
    await sql('a', `INSERT INTO things SELECT n, 'x', '0' FROM generate_series(1, 150) n`);
    await replicas.rest();
    await sql('a', `INSERT INTO things SELECT n, 'x', '0' FROM generate_series(151, 450) n`);
    await sql('a', `UPDATE things SET f1 = 'a' WHERE id = '1'`);
    await sql('b', `UPDATE things SET f2 = 'b' WHERE id = '1'`);
    await sql('b', `INSERT INTO things VALUES ('200', 'own', '0')`);
    await rest();
    expect(await valuesOf(replicas.at('b'), '1')).toEqual(['a,0', 'x,b']);
    expect(await valuesOf(replicas.at('b'), '200')).toEqual(['own,0', 'x,0']);
    expect(await count('b')).toBe(450);
  });

  it('of which one is deleted, and one was written here and deleted before it came', async () => {
    await begin();
    await sql('a', `INSERT INTO things SELECT n, 'x', '0' FROM generate_series(1, 300) n`);
    await sql('a', `DELETE FROM things WHERE id = '7'`);
    await sql('b', `INSERT INTO things VALUES ('8', 'own', '0')`);
    await sql('b', 'DELETE FROM things');
    await rest();
    expect(await valuesOf(replicas.at('a'), '7')).toEqual(['deleted']);
    expect(await valuesOf(replicas.at('a'), '8')).toEqual(['deleted', 'x,0']);
  });

  it('of which a table refuses one: it waits, the others are shown', async () => {
    await begin(PEOPLE);
    await sql('b', 'ALTER TABLE people ADD CHECK (age <> 13)');
    await sql('a', 'INSERT INTO people (email, age) SELECT n, n FROM generate_series(1, 300) n');
    await replicas.sync('a', 'b');
    expect(await count('b', 'people')).toBe(299);
    expect(await sql('b', 'SELECT key FROM replication.record WHERE waiting IS NOT NULL')).toEqual([{ key: '121' }]);
    await sql('b', 'ALTER TABLE people DROP CONSTRAINT people_age_check1');
    await replicas.at('b').settle();
    await rest();
  });

  it('of which a trigger changes one: it waits, the others are shown', async () => {
    await begin();
    await sql(
      'b',
      `CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.id = '5' THEN NEW.f1 := 'meddled'; END IF; RETURN NEW; END $$;
       CREATE TRIGGER meddle BEFORE INSERT ON things FOR EACH ROW EXECUTE FUNCTION meddle()`,
    );
    await sql('a', `INSERT INTO things SELECT n, 'x', '0' FROM generate_series(1, 300) n`);
    await replicas.sync('a', 'b');
    expect([await count('b'), await sql('b', 'SELECT key FROM replication.record WHERE waiting IS NOT NULL')]).toEqual([299, [{ key: '5' }]]);
    await sql('b', 'DROP FUNCTION meddle CASCADE');
  });

  it('of which one has a value that its type writes otherwise: it waits, the others are shown', async () => {
    await begin(PEOPLE);
    const records = Array.from({ length: 300 }, (_, n): WireRecord => [
      'Person',
      String(n),
      [{ v: { 'p.1': n + 1 }, f: { email: `e${n}`, age: n === 7 ? '07' : String(n) }, s: { '*': ['p.1', n + 1] } }],
    ]);
    await applyRecords(replicas.at('a').replica, { name: 'p', incarnation: '1' }, records, null);
    expect(await count('a', 'people')).toBe(299);
    expect(await sql('a', 'SELECT key FROM replication.record WHERE waiting IS NOT NULL')).toEqual([{ key: '7' }]);
  });

  it('of which one has a value that another record has here', async () => {
    await begin(ACCOUNTS);
    await sql('b', `INSERT INTO accounts (id, email) VALUES ('b', '77')`);
    await sql('a', `INSERT INTO accounts (id, email) SELECT n, n FROM generate_series(1, 300) n`);
    await replicas.rest();
    for (const name of replicas.names) expect(await sql(name, `SELECT id FROM accounts WHERE email = '77'`)).toEqual([{ id: 'b' }]);
    expect(await count('a', 'accounts')).toBe(301);
  });

  it('of a model with children, in either order', async () => {
    await begin(FAMILY);
    await sql('a', `INSERT INTO parents SELECT n, 'P' FROM generate_series(1, 150) n`);
    await sql('a', `INSERT INTO children SELECT n, n, 'C' FROM generate_series(1, 150) n`);
    await rest();
    expect([await count('b', 'parents'), await count('b', 'children')]).toEqual([150, 150]);
  });

  it('with a field that is not known here', async () => {
    replicas = await openReplicas('ab', { schemas: { a: THINGS_WITH_F3 } });
    if (way === 'one by one') withoutColumns();
    await sql('a', `INSERT INTO things SELECT n, 'x', '0', 'carried' FROM generate_series(1, 300) n`);
    await replicas.rest();
    await sql('b', `UPDATE things SET f1 = 'y'`);
    await replicas.rest();
    expect(await sql('a', 'SELECT DISTINCT f1, f3 FROM things')).toEqual([{ f1: 'y', f3: 'carried' }]);
  });
});

it('what comes by column is taken as one by one, whatever a peer makes of it', async () => {
  // Under this policy what is shown follows from the states alone.
  replicas = await openReplicas('ab', { schema: ACCOUNTS, policies: { a: 'latest', b: 'latest' } });
  const values = (of: string): WireColumns => {
    const keys = Array.from({ length: 300 }, (_, n) => `${of}${n}`);
    return { model: 'Account', writer: 'p.1', fields: ['name', 'email', 'team', 'seat'], keys, stamps: keys.map((_, n) => n + 1), values: [keys.map(() => null), keys.map((key) => `${key}@x`), keys.map(() => 't'), keys.map(() => null)] };
  };
  const twice = values('t');
  twice.keys[7] = 't8';
  const known = { ...values('k'), writer: 'p.2' };
  known.keys.splice(0, 5, 'a0', 'a1', 'a2', 'a3', 'a4');
  const taken = values('u');
  (taken.values[1] as string[])[9] = 'k9@x';
  const less = { ...values('l'), fields: ['name', 'email', 'team'] };
  less.values.pop();
  const more = values('m');
  more.fields.push('other');
  more.values.push(more.keys);
  const columns = [values('a'), twice, known, taken, less, more, { ...values('few'), keys: ['few'], stamps: [1], values: [['few'], ['few@x'], ['t'], ['7']] }];
  const records: WireRecord[] = [['Account', 'a5', [{ v: { 'p.2': 9 }, f: { email: 'later@x', name: null, team: 't', seat: null }, s: { '*': ['p.2', 9] } }]]];
  const sender = { name: 'p', incarnation: '1' };
  const [a, b] = [replicas.at('a'), replicas.at('b')];
  let byColumn = 0;
  intercept(a.replica.db, (text, next) => {
    if (text.includes('INSERT INTO replication.record') && text.includes('|| stamp ||')) byColumn++;
    return next();
  });
  await applyRecords(a.replica, sender, records, null, null, columns);
  await applyRecords(b.replica, sender, [...records, ...columns.flatMap((own) => fromColumns(own))], null);
  // Those of which nothing is the matter, and those of which some are known.
  expect(byColumn).toBe(2);
  expect(await statesOf(a)).toEqual(await statesOf(b));
  for (const table of ['SELECT * FROM accounts ORDER BY id', 'SELECT key, waiting, masked::text, hash, bucket FROM replication.record ORDER BY key', 'SELECT * FROM replication.digest ORDER BY bucket']) {
    expect(await sql('a', table)).toEqual(await sql('b', table));
  }
});

it('a record is looked up by its key, though that is planned while there is none', async () => {
  await open();
  const { db } = replicas.at('b').replica;
  const plan = await db.transaction((tx) => tx.query(`EXPLAIN SELECT FROM replication.record WHERE model = 'Thing' AND key = '1'`));
  expect(plan.join()).toContain('record_pkey');
});

it('a key that is created and deleted here in between is no newcomer', async () => {
  await open();
  await sql('a', `INSERT INTO things SELECT n, 'x', '0' FROM generate_series(1, 300) n`);
  const between = interceptOnce(replicas.at('b').replica.db, 'INSERT INTO "public"."things"', async () => {
    await sql('b', `INSERT INTO things VALUES ('9', 'own', '0')`);
    await sql('b', `DELETE FROM things WHERE id = '9'`);
  });
  await rest();
  expect(between.done).toBe(true);
  expect(await valuesOf(replicas.at('a'), '9')).toEqual(['deleted', 'x,0']);
});

describe('three hundred records made here', () => {
  const storedOf = (name: string) =>
    sql(name, `SELECT r.key, r.versions::jsonb AS versions, r.hash, r.bucket, r.origin, r.dead, r.carries FROM replication.record r ORDER BY r.key`);
  const digestsOf = (name: string) => sql(name, 'SELECT * FROM replication.digest WHERE records > 0 ORDER BY model, bucket');

  it.each([1, 2])('are folded without a look at each, as one by one (%i versions of the schema)', async (generation) => {
    await open(THINGS_WITH_F3);
    // A replica learns of another process's upgrade with the next record that it reads.
    await sql('a', `UPDATE replication.generation SET generation = ${generation}`);
    await sql('a', `INSERT INTO things VALUES ('first')`);
    await replicas.at('a').settle();
    await sql('a', `DELETE FROM things`);
    await replicas.at('a').settle();
    await sql('a', 'DELETE FROM replication.record; DELETE FROM replication.digest');
    const [{ clock } = { clock: '' }] = await sql('a', 'SELECT replication.clock() AS clock');
    await sql('a', `INSERT INTO things SELECT n, 'x', n FROM generate_series(1, 300) n`);
    await sql('a', `UPDATE replication.captured SET at = 'epoch'::timestamptz + (${clock} + seq) * interval '1 microsecond'`);
    const log = await sql('a', 'SELECT model, key, op::text, clock, fields, incarnation FROM replication.log ORDER BY seq');
    let looks = 0;
    intercept(replicas.at('a').replica.db, (text, next) => {
      if (text.includes('LEFT JOIN LATERAL')) looks++;
      return next();
    });
    await replicas.at('a').settle();
    expect(looks).toBe(0);
    const [states, digests] = [await storedOf('a'), await digestsOf('a')];
    expect(states).toHaveLength(300);
    expect((await sql('a', 'SELECT key FROM replication.record ORDER BY position')).map(({ key }) => Number(key))).toEqual(log.map(({ key }) => Number(key)));
    // The same, in portions too small for the short way.
    await sql('a', 'DELETE FROM replication.record; DELETE FROM replication.digest');
    for (let at = 0; at < log.length; at += 50) {
      await sql('a', `INSERT INTO replication.log (model, key, op, clock, fields, incarnation) SELECT model, key, op::"char", clock, NULL, incarnation
        FROM json_to_recordset('${JSON.stringify(log.slice(at, at + 50))}') AS x (model text, key text, op text, clock bigint, incarnation text)`);
      await replicas.at('a').settle();
    }
    expect(looks).toBeGreaterThan(0);
    expect([await storedOf('a'), await digestsOf('a')]).toEqual([states, digests]);
    await rest();
  });

  it('of which some were written to since, some deleted, some there before', async () => {
    await open();
    await sql('a', `INSERT INTO things VALUES ('1', 'old', '0'), ('2', 'old', '0')`);
    await replicas.rest();
    await sql('a', `DELETE FROM things WHERE id = '1'`);
    await replicas.at('a').settle();
    await sql('a', `DELETE FROM things WHERE id = '2'`);
    await sql('a', `INSERT INTO things SELECT n, 'x', '0' FROM generate_series(1, 300) n`);
    await sql('a', `UPDATE things SET f1 = 'y' WHERE id = '3'; DELETE FROM things WHERE id = '4'`);
    await rest();
    expect(await count('b')).toBe(299);
    for (const key of ['1', '2', '5']) expect(await valuesOf(replicas.at('b'), key)).toEqual(['x,0']);
    expect(await valuesOf(replicas.at('b'), '3')).toEqual(['y,0']);
    expect(await valuesOf(replicas.at('b'), '4')).toEqual(['deleted']);
    const [one] = await sql('b', `SELECT versions::text AS versions FROM replication.record WHERE key = '1'`);
    expect(JSON.parse(one?.['versions'] as string)).toHaveLength(1);
  });

  it('of which one is written to, and one deleted and made anew, while they are folded', async () => {
    await open();
    await sql('a', `INSERT INTO things SELECT n, 'x', '0' FROM generate_series(1, 300) n`);
    const met = interceptOnce(replicas.at('a').replica.db, 'l.ctid <> k.place', () =>
      sql('a', `UPDATE things SET f1 = 'y' WHERE id = '3'; DELETE FROM things WHERE id IN ('4', '5'); INSERT INTO things VALUES ('4', 'anew', '0')`),
    );
    await replicas.at('a').settle();
    expect(met.done).toBe(true);
    await rest();
    for (const [key, value] of [['3', 'y,0'], ['4', 'anew,0'], ['5', 'deleted']] as const) expect(await valuesOf(replicas.at('b'), key)).toEqual([value]);
    const [one] = await sql('b', `SELECT versions::text AS versions FROM replication.record WHERE key = '3'`);
    const [{ s }] = JSON.parse(one?.['versions'] as string) as [{ s: Record<string, [string, number]> }];
    // The field that was written to carries the later stamp, the other one that of the insert.
    const [f1, f2] = ['f1', 'f2'].map((field) => (s[field] ?? s['*'])?.[1]) as [number, number];
    expect(f1).toBeGreaterThan(f2);
  });

  it('are no newcomers where a record claims a unique value unseen: it keeps the value', async () => {
    await open(ACCOUNTS);
    await sql('a', `INSERT INTO accounts (id, email) VALUES ('1', 'old')`);
    await replicas.rest();
    await sql('a', `UPDATE accounts SET email = 'mine'`);
    await sql('b', `UPDATE accounts SET email = 'yours'`);
    await replicas.rest();
    // On a the record goes on showing its own side: in the table there the value of the other is free.
    await sql('a', `INSERT INTO accounts (id, email) SELECT 'n' || n, CASE n WHEN 7 THEN 'yours' ELSE 'e' || n END FROM generate_series(1, 300) n`);
    await rest();
    for (const name of ['a', 'b']) {
      expect(await sql(name, `SELECT id, email FROM accounts WHERE id IN ('1', 'n7') ORDER BY id`)).toEqual([{ id: '1', email: name === 'a' ? 'mine' : 'yours' }, { id: 'n7', email: 'yours#n7' }]);
      expect(await sql(name, `SELECT key FROM replication.conflict WHERE kind = 'UNIQUE' AND status = 'PENDING'`)).toEqual([{ key: 'n7' }]);
    }
  });
});

it('of those that are all known a sixteenth is looked up', async () => {
  await open();
  await sql('a', `INSERT INTO things SELECT n FROM generate_series(1, 320) n`);
  await replicas.at('a').settle();
  const { replica } = replicas.at('a');
  const states = new Map(Array.from({ length: 320 }, (_, n) => [String(n + 1), []]));
  const looks = await replica.db.transaction(async (tx) => {
    const scans = async (): Promise<number> => Number((await tx.query(`SELECT pg_stat_get_xact_numscans('replication.record_pkey'::regclass)`))[0]?.[0]);
    const before = await scans();
    expect((await takeNewcomers(tx, replica.tables.get('Thing') as ModelTable, states, 'b.1', 1)).size).toBe(0);
    return (await scans()) - before;
  });
  expect(looks).toBe(20);
});
