/** Records that cannot be shown: set aside, visible, passed on, and shown as soon as they can be. */
import { afterEach, describe, expect, it } from 'vitest';

import { readWaiting, retryWaiting } from '../../src/storage/present.ts';
import { expectSame, rowsOf, valuesOf } from '../support/compare.ts';
import { intercept } from '../support/intercept.ts';
import { openReplicas, type Replicas } from '../support/replicas.ts';
import { FAMILY, PEOPLE } from '../support/schemas.ts';

let replicas: Replicas;

afterEach(() => replicas.close());

const sql = (name: string, text: string): Promise<Record<string, string | null>[]> => replicas.at(name).sql(text);
const waiting = async (name: string): Promise<[string, string | null][]> =>
  (await readWaiting(replicas.at(name).replica, 100)).map(({ key, waiting: reason }) => [key, reason]);

describe('a record that breaks a check', () => {
  it('waits where the check is, alone of its batch', async () => {
    replicas = await openReplicas('ab', { schema: PEOPLE });
    await sql('a', 'ALTER TABLE people DROP CONSTRAINT people_age_check');
    await sql('a', `INSERT INTO people (email, age) SELECT n, CASE WHEN n = 7 THEN -1 ELSE n END FROM generate_series(1, 20) n`);
    await replicas.rest();
    expect(await waiting('b')).toMatchObject([['61', expect.stringContaining('people_age_check')]]);
    expect(await rowsOf(replicas.at('b'))).toHaveLength(19);
    await sql('a', 'UPDATE people SET age = 1 WHERE age = -1');
    await replicas.rest();
    await expectSame(replicas);
    expect(await waiting('b')).toEqual([]);
  });

  it('waits with its own reason where many do, for whatever cause', async () => {
    replicas = await openReplicas('ab', { schema: PEOPLE });
    await sql('a', 'ALTER TABLE people DROP CONSTRAINT people_age_check');
    await sql('b', `CREATE FUNCTION own() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.age = 50 THEN NEW.age := 51; ELSIF NEW.age = 60 THEN RAISE 'not sixty'; END IF; RETURN NEW; END $$;
      CREATE TRIGGER own BEFORE INSERT ON people FOR EACH ROW EXECUTE FUNCTION own()`);
    await sql('a', `INSERT INTO people (email, age) SELECT n, CASE n % 4 WHEN 0 THEN -n WHEN 1 THEN CASE WHEN n % 8 = 1 THEN 50 ELSE 60 END ELSE 1 END FROM generate_series(1, 100) n`);
    await replicas.rest();
    expect(await sql('b', 'SELECT count(*), count(*) FILTER (WHERE age = 1) AS sound FROM people')).toEqual([{ count: '50', sound: '50' }]);
    const reasons = (await waiting('b')).map(([, reason]) => /people_age_check|changes the values|not sixty/.exec(reason ?? '')?.[0]);
    expect(reasons.filter((reason) => reason === 'people_age_check')).toHaveLength(25);
    expect(reasons.filter((reason) => reason === 'changes the values')).toHaveLength(13);
    expect(reasons.filter((reason) => reason === 'not sixty')).toHaveLength(12);
    await sql('b', 'DROP TRIGGER own ON people');
    await sql('a', 'UPDATE people SET age = 2 WHERE age < 0');
    await replicas.rest();
    expect(await waiting('b')).toEqual([]);
    await expectSame(replicas);
  });

  it('that is deleted meanwhile waits no more', async () => {
    replicas = await openReplicas('ab', { schema: PEOPLE });
    await sql('a', 'ALTER TABLE people DROP CONSTRAINT people_age_check');
    await sql('a', `INSERT INTO people (age) VALUES (-1)`);
    await replicas.rest();
    expect(await waiting('b')).toHaveLength(1);
    await sql('a', 'DELETE FROM people');
    await replicas.rest();
    expect(await waiting('b')).toEqual([]);
    await expectSame(replicas);
  });

  it('keeps its row, and a write to that row covers nothing that it did not show', async () => {
    replicas = await openReplicas('ab', { schema: PEOPLE });
    await sql('a', 'ALTER TABLE people DROP CONSTRAINT people_age_check');
    await sql('a', `INSERT INTO people (email, age) VALUES ('x', 1)`);
    await replicas.rest();
    await sql('a', 'UPDATE people SET age = -1');
    await replicas.rest();
    expect(await rowsOf(replicas.at('b'))).toEqual(['Person (1,x,1)']);
    await sql('b', `UPDATE people SET email = 'b'`);
    await replicas.rest();
    expect(await valuesOf(replicas.at('a'), '1', 'Person')).toEqual(['b,1', 'x,-1']);
    await expectSame(replicas);
  });

  it('nor does the write after it, while the record goes on waiting', async () => {
    replicas = await openReplicas('ab', { schema: PEOPLE, policies: { a: 'field-wise', b: 'field-wise' } });
    await sql('a', 'ALTER TABLE people DROP CONSTRAINT people_age_check');
    await sql('a', `INSERT INTO people (email, age) VALUES ('x', 1)`);
    await replicas.rest();
    await sql('a', 'UPDATE people SET age = -1');
    await replicas.rest();
    for (const email of ['b', 'c']) {
      await sql('b', `UPDATE people SET email = '${email}'`);
      await replicas.at('b').settle();
      expect(await rowsOf(replicas.at('b'))).toEqual([`Person (1,${email},1)`]);
    }
    await replicas.rest();
    expect(await valuesOf(replicas.at('a'), '1', 'Person')).toEqual(['c,1', 'x,-1']);
    await expectSame(replicas);
  });
});

describe('a child', () => {
  it('that comes before its parent waits for it', async () => {
    replicas = await openReplicas('abc', { schema: FAMILY });
    await sql('a', `INSERT INTO parents VALUES ('p', 'P')`);
    await replicas.sync('a', 'b');
    await sql('b', `INSERT INTO children VALUES ('c', 'p', 'C')`);
    // Only the child: c has not heard of its parent.
    const { replica } = replicas.at('c');
    await sql('b', `UPDATE replication.record SET origin = 'c.' || (SELECT '${(await sql('c', 'SELECT replication.incarnation() AS i'))[0]?.['i']}') WHERE model = 'Parent'`);
    await replicas.sync('b', 'c');
    expect(await waiting('c')).toMatchObject([['c', expect.stringContaining('foreign key')]]);
    await replicas.sync('a', 'c');
    await retryWaiting(replica, 10, () => {});
    expect(await waiting('c')).toEqual([]);
    expect(await rowsOf(replicas.at('c'))).toEqual(['Parent (p,P)', 'Child (c,p,C)'].toSorted(byModel(replica.tables)));
  });

  it('created on one replica while its parent is deleted on another is never dropped in silence', async () => {
    replicas = await openReplicas('ab', { schema: FAMILY });
    await sql('a', `INSERT INTO parents VALUES ('p', 'P')`);
    await replicas.rest();
    await sql('a', `DELETE FROM parents`);
    await sql('b', `INSERT INTO children VALUES ('c', 'p', 'C')`);
    await replicas.rest();
    await expectSame(replicas);
    for (const name of ['a', 'b']) {
      expect(await valuesOf(replicas.at(name), 'c', 'Child')).toEqual(['p,C']);
      expect((await waiting(name)).length).toBeGreaterThan(0);
    }
    for (const name of ['a', 'b']) {
      expect(await rowsOf(replicas.at(name))).toEqual([]);
      expect(await waiting(name)).toEqual([['c', expect.stringContaining('Key (parent)=(p), is deleted')]]);
    }
    // It is back with its parent, and may go with it once it was seen.
    await sql('a', `INSERT INTO parents VALUES ('p', 'again')`);
    await replicas.rest();
    await expectSame(replicas);
    for (const name of ['a', 'b']) expect([await waiting(name), await rowsOf(replicas.at(name))]).toEqual([[], ['Parent (p,again)', 'Child (c,p,C)']]);
    await sql('b', `DELETE FROM parents`);
    await replicas.rest();
    await expectSame(replicas);
    for (const name of ['a', 'b']) expect([await waiting(name), await rowsOf(replicas.at(name))]).toEqual([[], []]);
  });
});

describe("a table's own trigger", () => {
  const trigger = (body: string, on: string): string =>
    `CREATE FUNCTION own() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN ${body} END $$; CREATE TRIGGER own BEFORE ${on} ON people FOR EACH ROW EXECUTE FUNCTION own()`;

  it('cannot make a row differ from its state in silence', async () => {
    replicas = await openReplicas('ab', { schema: PEOPLE });
    await sql('b', trigger('NEW.age := coalesce(NEW.age, 0) + 1; RETURN NEW;', 'INSERT OR UPDATE'));
    await sql('a', `INSERT INTO people (email, age) VALUES ('x', 1)`);
    await replicas.rest();
    expect(await waiting('b')).toEqual([['1', expect.stringContaining('a trigger of "public"."people" changes the values')]]);
    expect(await valuesOf(replicas.at('b'), '1', 'Person')).toEqual(['x,1']);
    // A local write is what the trigger made of it.
    await sql('b', `INSERT INTO people (email, age) VALUES ('y', 1)`);
    await replicas.rest();
    expect(await valuesOf(replicas.at('a'), '2', 'Person')).toEqual(['y,2']);
    await sql('b', 'DROP TRIGGER own ON people');
    await replicas.rest();
    expect(await waiting('b')).toEqual([]);
    await expectSame(replicas);
  });

  it('cannot keep a row whose record is deleted in silence', async () => {
    replicas = await openReplicas('ab', { schema: PEOPLE });
    await sql('a', `INSERT INTO people (email) VALUES ('x'), ('y')`);
    await replicas.rest();
    await sql('b', trigger(`RETURN CASE WHEN OLD.email <> 'x' THEN OLD END;`, 'DELETE'));
    await sql('a', 'DELETE FROM people');
    await replicas.rest();
    expect(await waiting('b')).toEqual([['1', expect.stringContaining('keeps it from being deleted')]]);
    await expectSame(replicas);
  });

  it('may stand aside while changes of peers are shown', async () => {
    replicas = await openReplicas('ab', { schema: PEOPLE });
    await sql('b', trigger(`IF current_setting('replication.applying', true) IS DISTINCT FROM 'on' THEN NEW.age := 99; END IF; RETURN NEW;`, 'INSERT OR UPDATE'));
    await sql('a', `INSERT INTO people (email, age) VALUES ('x', 1)`);
    await replicas.rest();
    expect(await rowsOf(replicas.at('b'))).toEqual(['Person (1,x,1)']);
    await expectSame(replicas);
  });
});

function byModel(tables: ReadonlyMap<string, unknown>): (a: string, b: string) => number {
  const order = [...tables.keys()];
  const place = (row: string): number => order.indexOf(row.split(' ')[0] as string);
  return (a, b) => place(a) - place(b);
}

it('whether anything waits is found out without reading the table, whatever is known of it', async () => {
  replicas = await openReplicas('ab');
  await sql('a', 'ALTER TABLE replication.record SET (autovacuum_enabled = false)');
  await sql('a', `INSERT INTO things (id) SELECT n::text FROM generate_series(1, 5000) n`);
  await replicas.at('a').settle();
  const asked: string[] = [];
  intercept(replicas.at('a').replica.db, (text, next) => {
    if (text.includes('replication.record WHERE waiting IS NOT NULL')) asked.push(text);
    return next();
  });
  await replicas.sync('a', 'b');
  await retryWaiting(replicas.at('a').replica, 100, () => {});
  expect(new Set(asked).size).toBeGreaterThanOrEqual(2);
  for (const text of asked) expect(JSON.stringify(await sql('a', `EXPLAIN (GENERIC_PLAN) ${text}`))).not.toContain('Seq Scan on record');
});
