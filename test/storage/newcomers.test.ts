/** Many records at once of which a replica knows nothing: they are taken over as one by one, whatever is the matter with some of them. */
import { afterEach, describe, expect, it } from 'vitest';

import { expectSame, valuesOf } from '../support/compare.ts';
import { intercept, interceptOnce } from '../support/intercept.ts';
import { openReplicas, type Replicas } from '../support/replicas.ts';
import { ACCOUNTS, FAMILY, PEOPLE, THINGS_WITH_F3, type Schema } from '../support/schemas.ts';

let replicas: Replicas;
afterEach(() => replicas.close());

const sql = (name: string, text: string) => replicas.at(name).sql(text);
const open = async (schema?: Schema): Promise<void> => {
  replicas = await openReplicas('ab', schema && { schema });
};
const count = async (name: string, table = 'things'): Promise<number> => Number((await sql(name, `SELECT count(*) FROM ${table}`))[0]?.['count']);
async function rest(): Promise<void> {
  await replicas.rest();
  await expectSame(replicas);
}

describe('three hundred records', () => {
  it('come to an empty replica without a look at each', async () => {
    await open();
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

  it('come beside those that are known, changed or not', async () => {
    await open();
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
    await open();
    await sql('a', `INSERT INTO things SELECT n, 'x', '0' FROM generate_series(1, 300) n`);
    await sql('a', `DELETE FROM things WHERE id = '7'`);
    await sql('b', `INSERT INTO things VALUES ('8', 'own', '0')`);
    await sql('b', 'DELETE FROM things');
    await rest();
    expect(await valuesOf(replicas.at('a'), '7')).toEqual(['deleted']);
    expect(await valuesOf(replicas.at('a'), '8')).toEqual(['deleted', 'x,0']);
  });

  it('of which a table refuses one: it waits, the others are shown', async () => {
    await open(PEOPLE);
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
    await open();
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

  it('of which one has a value that another record has here', async () => {
    await open(ACCOUNTS);
    await sql('b', `INSERT INTO accounts (id, email) VALUES ('b', '77')`);
    await sql('a', `INSERT INTO accounts (id, email) SELECT n, n FROM generate_series(1, 300) n`);
    await replicas.rest();
    for (const name of replicas.names) expect(await sql(name, `SELECT id FROM accounts WHERE email = '77'`)).toEqual([{ id: 'b' }]);
    expect(await count('a', 'accounts')).toBe(301);
  });

  it('of a model with children, in either order', async () => {
    await open(FAMILY);
    await sql('a', `INSERT INTO parents SELECT n, 'P' FROM generate_series(1, 150) n`);
    await sql('a', `INSERT INTO children SELECT n, n, 'C' FROM generate_series(1, 150) n`);
    await rest();
    expect([await count('b', 'parents'), await count('b', 'children')]).toEqual([150, 150]);
  });

  it('with a field that is not known here', async () => {
    replicas = await openReplicas('ab', { schemas: { a: THINGS_WITH_F3 } });
    await sql('a', `INSERT INTO things SELECT n, 'x', '0', 'carried' FROM generate_series(1, 300) n`);
    await replicas.rest();
    await sql('b', `UPDATE things SET f1 = 'y'`);
    await replicas.rest();
    expect(await sql('a', 'SELECT DISTINCT f1, f3 FROM things')).toEqual([{ f1: 'y', f3: 'carried' }]);
  });
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
