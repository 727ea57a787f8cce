/** The feed: nothing committed is left out, whenever it commits. */
import { afterEach, describe, expect, it } from 'vitest';

import { readFeed, readNearFeed, SENT_BY_COLUMN, SENT_RECORDS } from '../../src/storage/feed.ts';
import { fold } from '../../src/storage/fold.ts';
import { BATCH_BYTES } from '../../src/storage/sizes.ts';
import { recordsOf } from '../support/batches.ts';
import { expectSame } from '../support/compare.ts';
import { openReplicas, type Replicas, type TestReplica } from '../support/replicas.ts';
import { FAMILY, model } from '../support/schemas.ts';

let replicas: Replicas;
let a: TestReplica;
let b: TestReplica;

async function open(...args: Parameters<typeof openReplicas>): Promise<void> {
  replicas = await openReplicas(...args);
  [a, b] = [replicas.at('a'), replicas.at('b')];
}

afterEach(() => replicas.close());

describe('a look ahead', () => {
  it('finds what the feed has for a few places, and nothing of what the peer holds', async () => {
    await open('ab');
    await b.sql(`INSERT INTO things VALUES ('x', '1', '1')`);
    await replicas.sync('b', 'a');
    await a.sql(`INSERT INTO things VALUES ('y', '1', '1'), ('z', '1', '1')`);
    await fold(a.replica, () => {});
    const idB = `b.${(await b.sql('SELECT replication.incarnation() AS i'))[0]?.['i']}`;
    for (const after of [0, 1, 2, 3]) {
      for (const byColumn of [true, false]) expect(await readNearFeed(a.replica, after, idB, byColumn)).toEqual(await readFeed(a.replica, after, idB, byColumn));
    }
  });

  it('sees that there is more, or farther off, or something that is not plain', async () => {
    await open('ab');
    await a.sql(`INSERT INTO things SELECT n, n, n FROM generate_series(1, 128) n`);
    await fold(a.replica, () => {});
    expect([await readNearFeed(a.replica, 0, 'b.1', false), (await readNearFeed(a.replica, 1, 'b.1', false))?.count]).toEqual([null, 127]);
    await a.sql(`SELECT count(nextval('replication.position')) FROM generate_series(1, 150)`);
    await a.sql(`UPDATE things SET f1 = 'a' WHERE id = '1'`);
    await fold(a.replica, () => {});
    expect(await readNearFeed(a.replica, 128, 'b.1', false)).toBeNull();
    expect((await readNearFeed(a.replica, 278, 'b.1', false))?.count).toBe(1);
    await b.sql(`INSERT INTO things VALUES ('1', 'b', '1')`);
    await replicas.sync('b', 'a');
    expect(await readNearFeed(a.replica, 279, 'c.1', false)).toBeNull();
  });
});

describe('a batch', () => {
  it('passes over what is left of a model that is replicated no more', async () => {
    await open('a');
    await a.sql(`INSERT INTO things VALUES ('x', '1', '1')`);
    await fold(a.replica, () => {});
    await a.sql(`INSERT INTO replication.record SELECT 'Gone', key, nextval('replication.position'), origin, versions, shown, waiting, held, hash, bucket, changed_at FROM replication.record`);
    const { end, more, ...batch } = await readFeed(a.replica, 0, 'b.1');
    const records = recordsOf(batch);
    expect([end, records.length, more]).toEqual([1, 1, false]);
    expect(await readFeed(a.replica, end, 'b.1')).toMatchObject({ end, count: 0, records: '', columns: '', more: false });
  });

  it('leaves out what the peer holds, as long as it is exactly that', async () => {
    await open('abc');
    await a.sql(`INSERT INTO things VALUES ('x', '1', '1'), ('y', '1', '1')`);
    await replicas.sync('a', 'b');
    const peer = async (name: string): Promise<string> => `${name}.${(await replicas.at(name).sql('SELECT replication.incarnation() AS i'))[0]?.['i']}`;
    const idA = await peer('a');
    expect(await readFeed(b.replica, 0, idA)).toMatchObject({ end: 2, records: '', more: false });
    expect((await readFeed(b.replica, 0, await peer('c'))).count).toBe(2);
    expect((await readFeed(b.replica, 0, 'a.elsewhen')).count).toBe(2);
    // Captured, not folded yet.
    await b.sql(`UPDATE things SET f1 = 'b' WHERE id = 'x'`);
    expect((await readFeed(b.replica, 2, idA)).records).toBe('');
    await fold(b.replica, () => {});
    expect(recordsOf(await readFeed(b.replica, 2, idA))).toMatchObject([['Thing', 'x', [{ f: { f1: 'b', f2: '1' } }]]]);
  });

  it('holds so many records, and goes on where the last one ended', async () => {
    await open('ab');
    await a.sql(`INSERT INTO things SELECT n, n, n FROM generate_series(1, ${SENT_RECORDS + 1}) n`);
    await a.settle();
    const sizes: [number, boolean][] = [];
    for (let after = 0; ;) {
      const batch = await readFeed(a.replica, after, 'b.1');
      sizes.push([batch.count, batch.more]);
      after = batch.end;
      if (!batch.more) break;
    }
    expect(sizes).toEqual([[SENT_RECORDS, true], [1, false]]);
  });

  it('holds more behind one that was all by column', async () => {
    await open('ab');
    await a.sql(`INSERT INTO things SELECT n, n, n FROM generate_series(1, ${SENT_RECORDS + SENT_BY_COLUMN + 1}) n`);
    await a.settle();
    await a.sql(`UPDATE things SET f1 = 'y' WHERE id = '1'`);
    await a.settle();
    const sizes: [number, number][] = [];
    for (let after = 0, most = SENT_RECORDS; ;) {
      const batch = await readFeed(a.replica, after, 'b.1', true, most);
      sizes.push([batch.count, batch.next]);
      [after, most] = [batch.end, batch.next];
      if (!batch.more) break;
    }
    expect(sizes).toEqual([[SENT_RECORDS, SENT_BY_COLUMN], [SENT_BY_COLUMN, SENT_BY_COLUMN], [1, SENT_RECORDS]]);
  });

  it('is bounded by bytes; a record larger than that travels alone', async () => {
    await open('ab');
    await a.sql('ALTER TABLE things ALTER f1 SET STORAGE EXTERNAL');
    await a.sql(`INSERT INTO things SELECT n, repeat(chr(96 + n), 3 * 1024 * 1024), NULL FROM generate_series(1, 6) n`);
    await a.sql(`INSERT INTO things VALUES ('huge', repeat('h', 10 * 1024 * 1024), NULL), ('small', 's', NULL)`);
    await a.settle();
    const batches: string[][] = [];
    for (let after = 0; ;) {
      const batch = await readFeed(a.replica, after, 'b.1');
      batches.push(recordsOf(batch).map(([, key]) => key));
      expect(batch.count < 2 || batch.records.length < BATCH_BYTES).toBe(true);
      after = batch.end;
      if (!batch.more) break;
    }
    expect(batches.flat()).toEqual(['1', '2', '3', '4', '5', '6', 'huge', 'small']);
    expect(batches).toContainEqual(['huge']);
    await replicas.sync('a', 'b');
    expect(await b.sql('SELECT sum(length(f1)) FROM things')).toEqual([{ sum: String((18 + 10) * 1024 * 1024 + 1) }]);
  });

  it('is bounded by bytes where large values compress well', async () => {
    await open('ab', { schema: { ddl: 'CREATE TABLE docs (id int PRIMARY KEY, doc text)', models: [model('Doc', 'docs', { id: 'Int', doc: 'String?' })] } });
    await a.sql(`INSERT INTO docs SELECT n, repeat('abc', 1000000) FROM generate_series(1, 12) n`);
    await a.settle();
    for (let after = 0; ;) {
      const batch = await readFeed(a.replica, after, 'b.1');
      expect(batch.count < 2 || batch.records.length < 2 * BATCH_BYTES, `${batch.count} records`).toBe(true);
      after = batch.end;
      if (!batch.more) break;
    }
  });

  it('is bounded by bytes over several models: what does not fit of one is not passed over for another', async () => {
    const models = ['docs', 'notes', 'posts'].map((table) => model(table, table, { id: 'Int', body: 'String?' }));
    await open('ab', { schema: { ddl: models.map(({ name }) => `CREATE TABLE ${name} (id int PRIMARY KEY, body text)`).join('; '), models } });
    // In turns, each larger than a batch with four others, and some that no batch holds with another.
    for (let n = 1; n <= 24; n++) {
      await a.sql(`INSERT INTO ${models[(n * 7) % 3]?.name} VALUES (${n}, repeat('b', ${n % 5 === 0 ? 9 : 2} * 1024 * 1024))`);
      await a.settle();
    }
    const found: string[] = [];
    for (let after = 0; ;) {
      const batch = await readFeed(a.replica, after, 'b.1');
      const keys = recordsOf(batch).map(([, key]) => key);
      const [places] = await a.sql(`SELECT string_agg(key, ',' ORDER BY key::int) AS keys FROM replication.record WHERE position > $1 AND position <= $2`, [after, batch.end]);
      expect([batch.count, keys.toSorted((one, other) => Number(one) - Number(other)).join(',')]).toEqual([keys.length, places?.['keys']]);
      expect(batch.count < 2 || batch.records.length < BATCH_BYTES).toBe(true);
      found.push(...keys);
      after = batch.end;
      if (!batch.more) break;
    }
    expect(found.length).toBe(24);
    await replicas.sync('a', 'b');
    await expectSame(replicas);
  });

  it('brings parents before their children, and takes children before their parents', async () => {
    await open('ab', { schema: FAMILY });
    await a.sql(`INSERT INTO parents SELECT 'p' || n, n FROM generate_series(1, 50) n; INSERT INTO children SELECT 'c' || n, 'p' || n, n FROM generate_series(1, 50) n`);
    await replicas.rest();
    expect(await b.sql('SELECT count(*) FROM children')).toEqual([{ count: '50' }]);
    await a.sql('DELETE FROM parents');
    await replicas.rest();
    expect(await b.sql('SELECT count(*) FROM children')).toEqual([{ count: '0' }]);
    await expectSame(replicas);
  });
});
