/** The fold: nothing captured is left out, whenever it commits. */
import { afterEach, describe, expect, it } from 'vitest';

import { readFeed, type Batch } from '../../src/storage/feed.ts';
import { BATCH_RECORDS, fold } from '../../src/storage/fold.ts';
import type { RecordName } from '../../src/storage/sizes.ts';
import { recordsOf } from '../support/batches.ts';
import { expectSame, statesOf, valuesOf } from '../support/compare.ts';
import { openReplicas, type Replicas, type TestReplica } from '../support/replicas.ts';
import { ACCOUNTS } from '../support/schemas.ts';

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
    expect([await queued(), await fold(a.replica, () => {})]).toEqual([0, { records: 0, end: null, fresh: null, due: null }]);
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
    const changed = await fold(a.replica, () => {}, told('x', 'y'));
    expect([made.records, made.fresh?.after, changed.records, changed.fresh?.after]).toEqual([2, 0, 2, 2]);
    const { standing, ...feed } = await readFeed(a.replica, 2, 'b.1');
    expect(changed.fresh?.batch.standing).toEqual(standing);
    expect(whole(changed.fresh?.batch as Batch)).toEqual(whole(feed));
  });

  it('is folded alone; what else there is, by whoever looks', async () => {
    await open('a');
    await a.sql(`INSERT INTO things VALUES ('x', '1', '1'), ('y', '1', '1'), ('z', '1', '1')`);
    expect(await fold(a.replica, () => {}, told('x', 'gone'))).toMatchObject({ records: 1, end: 1, fresh: { after: 0 } });
    expect(await fold(a.replica, () => {}, [])).toMatchObject({ records: 2, end: 3, fresh: null });
  });

  it('is handed on with what had to be folded with it: who has a value that it gave up', async () => {
    await open('ab', { schema: ACCOUNTS });
    await a.sql(`INSERT INTO accounts (id, email) VALUES ('r', 'x')`);
    await b.sql(`INSERT INTO accounts (id, email) VALUES ('s', 'x')`);
    await replicas.rest();
    const { end } = await readFeed(a.replica, 0, '');
    await a.sql(`UPDATE accounts SET name = 'n' WHERE id = 's'; UPDATE accounts SET email = 'y' WHERE id = 'r'`);
    const { fresh } = await fold(a.replica, () => {}, [['Account', 'r']]);
    const feed = await readFeed(a.replica, end, '');
    expect(recordsOf(feed).map(([, key]) => key).toSorted()).toEqual(['r', 's']);
    expect([fresh?.after, fresh?.batch.end]).toEqual([end, feed.end]);
    expect(recordsOf(fresh?.batch as Batch).toSorted()).toEqual(recordsOf(feed).toSorted());
  });

  it('and is too large to be read at once is folded all the same', async () => {
    await open('a');
    await a.sql(`INSERT INTO things SELECT n, repeat('x', 5000000), '1' FROM generate_series(1, 3) n`);
    expect(await fold(a.replica, () => {}, told('1', '2', '3'))).toMatchObject({ records: 3, fresh: null });
    expect(await queued()).toBe(0);
  });

  it('that changed nothing is nothing to send', async () => {
    await open('a');
    expect(await fold(a.replica, () => {}, told('x'))).toMatchObject({ records: 0, fresh: null });
  });
});
