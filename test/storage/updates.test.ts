/** Many captured updates at once: they are folded without a look at the rows, as one by one. */
import { afterEach, describe, expect, it } from 'vitest';

import { expectSame, valuesOf } from '../support/compare.ts';
import { intercept, interceptOnce } from '../support/intercept.ts';
import { openReplicas, type Replicas } from '../support/replicas.ts';
import { ACCOUNTS, FAMILY, THINGS_WITH_F3, type Schema } from '../support/schemas.ts';

let replicas: Replicas;
afterEach(() => replicas.close());

const sql = (name: string, text: string) => replicas.at(name).sql(text);
const open = async (schema?: Schema): Promise<void> => {
  replicas = await openReplicas('ab', schema && { schema });
};
async function rest(): Promise<void> {
  await replicas.rest();
  await expectSame(replicas);
}
/** How often records are looked at one by one, with their rows, while `work` is done on `a`. */
async function looksDuring(work: () => Promise<unknown>): Promise<number> {
  let looks = 0;
  intercept(replicas.at('a').replica.db, (text, next) => {
    if (text.includes('LEFT JOIN LATERAL')) looks++;
    return next();
  });
  await work();
  return looks;
}

const statesOf = (name: string) =>
  sql(name, `SELECT r.key, r.versions::jsonb AS versions, r.hash, r.bucket, r.origin, r.dead, r.carries, r.shown, r.waiting FROM replication.record r ORDER BY r.key`);
const digestsOf = (name: string) => sql(name, 'SELECT * FROM replication.digest WHERE records > 0 ORDER BY model, bucket');

describe('updates of three hundred records', () => {
  it.each([1, 2])('are folded without a look at each, as one by one (%i versions of the schema)', async (generation) => {
    await open(THINGS_WITH_F3);
    await sql('a', `UPDATE replication.generation SET generation = ${generation}`);
    await sql('a', `INSERT INTO things VALUES ('first')`);
    await replicas.at('a').settle();
    await sql('a', `INSERT INTO things SELECT n, 'x', n, 'y' FROM generate_series(1, 300) n`);
    await replicas.at('a').settle();
    // Some were written to before, some came from the peer, and some are what a person has chosen.
    await sql('a', `UPDATE things SET f2 = 'second' WHERE id::integer % 3 = 0 AND id <> 'first'`);
    await replicas.sync('a', 'b');
    await sql('b', `UPDATE things SET f1 = 'theirs' WHERE id <> 'first' AND id::integer % 5 = 0`);
    await replicas.sync('b', 'a');
    await sql('a', `UPDATE replication.record SET versions = replace(versions::text, '}}]', '},"r":["latest","b.1",5]}]')::json WHERE key IN ('7', '8')`);
    await sql('a', 'CREATE TABLE before AS SELECT * FROM replication.record; CREATE TABLE digests AS SELECT * FROM replication.digest');
    await sql('a', `UPDATE things SET f1 = 'z' WHERE id <> 'first'`);
    await sql('a', `UPDATE things SET f2 = 'twice', f3 = NULL WHERE id IN ('3', '4')`);
    // Written under a clock that was set back.
    await sql('a', `UPDATE replication.captured SET at = 'epoch'::timestamptz + interval '5 microseconds' WHERE key = '9'`);
    const log = await sql('a', 'SELECT model, key, op::text, clock, fields, incarnation FROM replication.log ORDER BY seq');
    await sql('a', 'CREATE TABLE lines AS SELECT seq, model, key, op, clock, fields, incarnation FROM replication.log');
    expect(await looksDuring(() => replicas.at('a').settle())).toBe(0);
    const [states, digests] = [await statesOf('a'), await digestsOf('a')];
    const order = (await sql('a', `SELECT key FROM replication.record WHERE key <> 'first' ORDER BY position`)).map(({ key }) => key);
    expect(order).toEqual([...new Set(log.map(({ key }) => key))]);
    // The same, in portions too small for the short way.
    await sql('a', 'DELETE FROM replication.record; INSERT INTO replication.record SELECT * FROM before; DELETE FROM replication.digest; INSERT INTO replication.digest SELECT * FROM digests');
    const looks = await looksDuring(async () => {
      for (let at = 0; at < 300; at += 50) {
        await sql('a', `INSERT INTO replication.log (model, key, op, clock, fields, incarnation) SELECT model, key, op, clock, fields, incarnation FROM lines
          WHERE key::integer > ${at} AND key::integer <= ${at + 50} ORDER BY seq`);
        await replicas.at('a').settle();
      }
    });
    expect(looks).toBeGreaterThan(0);
    expect([await statesOf('a'), await digestsOf('a')]).toEqual([states, digests]);
    await rest();
  });

  it('of which some are in conflict, deleted, made anew, or were never heard of', async () => {
    await open();
    await sql('a', `INSERT INTO things SELECT n, 'x', '0' FROM generate_series(1, 300) n`);
    await rest();
    await sql('a', `UPDATE things SET f1 = 'a' WHERE id = '1'`);
    await sql('b', `UPDATE things SET f1 = 'b' WHERE id = '1'`);
    await rest();
    await sql('a', `UPDATE things SET f2 = 'n'`);
    await sql('a', `DELETE FROM things WHERE id IN ('2', '3'); INSERT INTO things VALUES ('3', 'anew', '1'), ('new', 'new', '2')`);
    await sql('a', `UPDATE things SET f1 = 'more' WHERE id IN ('4', 'new')`);
    await rest();
    expect(await valuesOf(replicas.at('b'), '1')).toEqual(['a,n', 'b,0']);
    expect(await valuesOf(replicas.at('b'), '2')).toEqual(['deleted']);
    for (const [key, value] of [['3', 'anew,1'], ['4', 'more,n'], ['5', 'x,n'], ['new', 'more,2']] as const) expect(await valuesOf(replicas.at('b'), key)).toEqual([value]);
  });

  it('of which one is updated again, and one deleted, while they are folded', async () => {
    await open();
    await sql('a', `INSERT INTO things SELECT n, 'x', '0' FROM generate_series(1, 300) n`);
    await replicas.at('a').settle();
    await sql('a', `UPDATE things SET f1 = 'y'`);
    const met = interceptOnce(replicas.at('a').replica.db, 'ON CONFLICT (model, key) DO UPDATE SET position', () => sql('a', `UPDATE things SET f2 = '1' WHERE id = '3'; DELETE FROM things WHERE id = '4'`));
    await replicas.at('a').settle();
    expect(met.done).toBe(true);
    await rest();
    expect(await valuesOf(replicas.at('b'), '3')).toEqual(['y,1']);
    expect(await valuesOf(replicas.at('b'), '4')).toEqual(['deleted']);
  });

  it('of which one gives up a unique value, and another takes it, that a record claims unseen', async () => {
    await open(ACCOUNTS);
    await sql('a', `INSERT INTO accounts (id, email) SELECT n, n FROM generate_series(1, 300) n`);
    await rest();
    await sql('a', `UPDATE accounts SET email = 'mine' WHERE id = '1'`);
    await sql('b', `UPDATE accounts SET email = 'yours' WHERE id = '1'`);
    await replicas.rest();
    await sql('a', `UPDATE accounts SET email = CASE id WHEN '7' THEN 'yours' ELSE 'e' || id END WHERE id <> '1'`);
    await rest();
    for (const name of ['a', 'b']) {
      expect(await sql(name, `SELECT id, email FROM accounts WHERE id IN ('1', '7') ORDER BY id`)).toEqual([{ id: '1', email: name === 'a' ? 'mine' : 'yours' }, { id: '7', email: 'yours#7' }]);
    }
  });

  it('of a model with children', async () => {
    await open(FAMILY);
    await sql('a', `INSERT INTO parents SELECT n, 'P' FROM generate_series(1, 150) n`);
    await sql('a', `INSERT INTO children SELECT n, n, 'C' FROM generate_series(1, 150) n`);
    await rest();
    await sql('a', `UPDATE parents SET name = 'Q'`);
    await sql('a', `UPDATE children SET name = 'D'`);
    await rest();
    expect(await sql('b', 'SELECT DISTINCT p.name AS p, c.name AS c FROM parents p, children c')).toEqual([{ p: 'Q', c: 'D' }]);
  });

  it('with a field that is carried for others', async () => {
    replicas = await openReplicas('ab', { schemas: { a: THINGS_WITH_F3 } });
    await sql('a', `INSERT INTO things SELECT n, 'x', '0', 'carried' FROM generate_series(1, 300) n`);
    await replicas.rest();
    await sql('b', `UPDATE things SET f1 = 'y'`);
    await replicas.at('b').settle();
    await sql('b', `UPDATE things SET f1 = 'z'`);
    await replicas.rest();
    expect(await sql('a', 'SELECT DISTINCT f1, f3 FROM things')).toEqual([{ f1: 'z', f3: 'carried' }]);
  });
});
