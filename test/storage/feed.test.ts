/** The fold and the feed: nothing committed is left out, whenever it commits. */
import { afterEach, describe, expect, it } from 'vitest';

import { BATCH_RECORDS, fold, readFeed, readNearFeed, SENT_BY_COLUMN, SENT_RECORDS, type Batch } from '../../src/storage/feed.ts';
import type { RecordName } from '../../src/storage/sizes.ts';
import { BATCH_BYTES } from '../../src/storage/sizes.ts';
import { recordsOf } from '../support/batches.ts';
import { expectSame, statesOf, valuesOf } from '../support/compare.ts';
import { openReplicas, type Replicas, type TestReplica } from '../support/replicas.ts';
import { FAMILY, model } from '../support/schemas.ts';

let replicas: Replicas;
let a: TestReplica;
let b: TestReplica;

async function open(...args: Parameters<typeof openReplicas>): Promise<void> {
  replicas = await openReplicas(...args);
  [a, b] = [replicas.at('a'), replicas.at('b')];
}

const queued = async (): Promise<number> => Number((await a.sql('SELECT count(*) FROM replication.log'))[0]?.['count']);
const positions = (): Promise<unknown> => a.sql('SELECT key, position FROM replication.record ORDER BY position');

afterEach(() => replicas.close());

describe('the fold', () => {
  it('takes each write once, and a record with several as one', async () => {
    await open('ab');
    await a.sql(`INSERT INTO things VALUES ('x', '1', '1'), ('y', '1', '1')`);
    await a.sql(`UPDATE things SET f1 = '2' WHERE id = 'x'`);
    expect((await fold(a.replica, () => {})).records).toBe(2);
    expect([await queued(), await fold(a.replica, () => {})]).toEqual([0, { records: 0, end: null, fresh: null }]);
    expect(await positions()).toEqual([
      { key: 'x', position: '1' },
      { key: 'y', position: '2' },
    ]);
  });

  it('stamps what one transaction wrote as it was written: the fields that it did not change keep theirs', async () => {
    await open('ab');
    await a.sql(`INSERT INTO things VALUES ('x', '1', '1')`);
    await a.settle();
    const created = (await statesOf(a)).get('Thing x')?.[0]?.stamps['*'];
    await a.sql(`UPDATE things SET f1 = '2'; UPDATE things SET f1 = '3'`);
    const [version] = (await statesOf(a)).get('Thing x') ?? [];
    expect(version?.fields).toEqual({ f1: '3', f2: '1' });
    const written = Object.entries(version?.stamps ?? {}).map(([field, stamp]) => [field, stamp[1] === created?.[1]]);
    expect(Object.fromEntries(written)).toEqual({ '*': false, f2: true });
  });

  it('runs while others fold, and in more than one transaction', async () => {
    await open('ab');
    const more = BATCH_RECORDS + 100;
    await a.sql(`INSERT INTO things SELECT n, n, n FROM generate_series(1, ${more}) n`);
    const [first, second] = await Promise.all([fold(a.replica, () => {}), fold(a.replica, () => {})]);
    expect(first.records + second.records).toBe(more);
    expect(await queued()).toBe(0);
  });
});

describe('transactions of any length', () => {
  it('an early transaction that commits late arrives', async () => {
    await open('ab');
    await a.session(async (early) => {
      await early.query(`BEGIN; INSERT INTO things VALUES ('early', '1', '1')`);
      await a.sql(`INSERT INTO things VALUES ('late', '2', '2')`);
      expect(await replicas.sync('a', 'b')).toMatchObject({ sent: 1 });
      await early.query(`INSERT INTO things VALUES ('early2', '1', '1')`);
      await a.sql(`UPDATE things SET f1 = '3' WHERE id = 'late'`);
      expect(await replicas.sync('a', 'b')).toMatchObject({ sent: 1 });
      await early.query('COMMIT');
    });
    expect(await replicas.sync('a', 'b')).toMatchObject({ sent: 2, applied: 2 });
    await expectSame(replicas);
  });

  it('hundreds of them from many clients while syncs run: every record is counted on the other side', async () => {
    await open('ab');
    const clients = 12;
    const each = 25;
    const left = { writers: clients };
    let tell = (): void => {};
    const thirdSync = new Promise<void>((resolve) => {
      tell = resolve;
    });
    const random = (client: number, n: number): number => ((client * 7919 + n * 104_729) % 97) / 97;
    const write = (client: number): Promise<void> =>
      a.session(async (session) => {
        for (let n = 0; n < each; n++) {
          await session.query('BEGIN');
          await session.query(`INSERT INTO things VALUES ($1, 'v', 'w')`, [`${client}-${n}`]);
          if (random(client, n) > 0.3) await session.query('SELECT pg_sleep($1)', [random(client, n) * 0.02]);
          // On a machine of any speed some syncs run beside them.
          if (client === 0 && n === each - 1) await thirdSync;
          await session.query('COMMIT');
        }
        left.writers--;
      });
    const run = async (): Promise<void> => {
      for (let syncs = 1; left.writers > 0; syncs++) {
        await replicas.sync('a', 'b');
        if (syncs === 3) tell();
      }
    };
    await Promise.all([run(), ...Array.from({ length: clients }, (_, client) => write(client))]);
    await replicas.sync('a', 'b');
    expect(await b.sql('SELECT count(*) FROM things')).toEqual([{ count: String(clients * each) }]);
    await replicas.rest();
    await expectSame(replicas);
  });

  it('a record that is written constantly is neither starved nor torn', async () => {
    await open('ab');
    await a.sql(`INSERT INTO things VALUES ('hot', '0', '0'), ('cold', '0', '0')`);
    let last = 0;
    const writing = { on: true };
    const write = a.session(async (session) => {
      while (writing.on) await session.query(`UPDATE things SET f1 = $1, f2 = $1 WHERE id = 'hot'`, [String(++last)]);
    });
    const seen: number[] = [];
    for (let i = 0; i < 10; i++) {
      await replicas.sync('a', 'b');
      const [row] = await b.sql(`SELECT f1, f2 FROM things WHERE id = 'hot'`);
      expect(row?.['f1']).toBe(row?.['f2']);
      seen.push(Number(row?.['f1']));
    }
    writing.on = false;
    await write;
    expect(seen).toEqual([...new Set(seen)].toSorted((x, y) => x - y));
    await replicas.sync('a', 'b');
    expect(await valuesOf(b, 'hot')).toEqual([`${last},${last}`]);
    await replicas.rest();
    await expectSame(replicas);
  });
});

it('a fold takes no more values into memory at once than a batch holds', async () => {
  replicas = await openReplicas('a');
  const { sql, replica } = replicas.at('a');
  await sql(`INSERT INTO things SELECT 'k' || n, repeat('x', 5000000), NULL FROM generate_series(1, 4) n`);
  let transactions = 0;
  expect((await fold(replica, () => transactions++)).records).toBe(4);
  expect(transactions).toBe(4);
});

describe('what was told of', () => {
  const told = (...keys: string[]): RecordName[] => keys.map((key) => ['Thing', key]);
  const whole = (batch: Pick<Batch, 'end' | 'count' | 'records' | 'columns'>) => [batch.end, batch.count, recordsOf(batch)];

  it('is folded at once, and handed on as the feed has it', async () => {
    await open('a');
    await a.sql(`INSERT INTO things VALUES ('x', '1', '1'), ('y', 'ü"', NULL)`);
    const made = await fold(a.replica, () => {}, told('x', 'y'));
    await a.sql(`UPDATE things SET f1 = '2' WHERE id = 'x'`);
    await a.sql(`DELETE FROM things WHERE id = 'y'`);
    const changed = await fold(a.replica, () => {}, told('x', 'y', 'x'));
    expect([made.records, made.fresh?.after, changed.records, changed.fresh?.after]).toEqual([2, 0, 2, 2]);
    const { standing, ...feed } = await readFeed(a.replica, 2, 'b.1');
    expect(changed.fresh?.batch.standing).toEqual(standing);
    expect(whole(changed.fresh?.batch as Batch)).toEqual(whole(feed));
  });

  it('is folded with all else there is, and then not handed on: the feed has more', async () => {
    await open('a');
    await a.sql(`INSERT INTO things VALUES ('x', '1', '1'), ('y', '1', '1')`);
    expect(await fold(a.replica, () => {}, told('x', 'gone'))).toEqual({ records: 2, end: 2, fresh: null });
    await a.sql(`UPDATE things SET f1 = '2'`);
    expect(await fold(a.replica, () => {}, [])).toEqual({ records: 2, end: 4, fresh: null });
  });

  it('that changed nothing is nothing to send', async () => {
    await open('a');
    expect(await fold(a.replica, () => {}, told('x'))).toMatchObject({ records: 0, fresh: null });
  });
});

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
    await a.sql(`INSERT INTO things SELECT n, n, n FROM generate_series(1, 32) n`);
    await fold(a.replica, () => {});
    expect([await readNearFeed(a.replica, 0, 'b.1', false), (await readNearFeed(a.replica, 1, 'b.1', false))?.count]).toEqual([null, 31]);
    await a.sql(`SELECT count(nextval('replication.position')) FROM generate_series(1, 40)`);
    await a.sql(`UPDATE things SET f1 = 'a' WHERE id = '1'`);
    await fold(a.replica, () => {});
    expect(await readNearFeed(a.replica, 32, 'b.1', false)).toBeNull();
    expect((await readNearFeed(a.replica, 72, 'b.1', false))?.count).toBe(1);
    await b.sql(`INSERT INTO things VALUES ('1', 'b', '1')`);
    await replicas.sync('b', 'a');
    expect(await readNearFeed(a.replica, 73, 'c.1', false)).toBeNull();
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
