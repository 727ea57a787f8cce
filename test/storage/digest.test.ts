/** Digests are equal where states are, and nowhere else; the differing keys are found by their buckets. */
import { afterEach, expect, it } from 'vitest';

import { compareBuckets, compareKeys } from '../../src/services/consistency.ts';
import { addToDigests, readDigests, readKeyDigests } from '../../src/storage/digest.ts';
import type { Replica } from '../../src/storage/replica.ts';
import { expectDigests, expectSame, statesOf } from '../support/compare.ts';
import { openReplicas, type Replicas } from '../support/replicas.ts';

let replicas: Replicas;

afterEach(() => replicas.close());

async function differing(): Promise<[key: string, on: string][]> {
  const [a, b] = [replicas.at('a').replica, replicas.at('b').replica];
  const { differing: buckets } = compareBuckets(await readDigests(a), await readDigests(b));
  const [here, there] = [await readKeyDigests(a, buckets), await readKeyDigests(b, buckets)];
  const hashes = new Map(there.map(([, key, hash]) => [key, hash]));
  expect(compareKeys(here, there).all).toBeGreaterThanOrEqual(here.length);
  return [
    ...here.filter(([, key, hash]) => hashes.get(key) !== hash).map(([, key]): [string, string] => [key, 'a']),
    ...there.filter(([, key]) => !here.some(([, other]) => other === key)).map(([, key]): [string, string] => [key, 'b']),
  ];
}

it('they tell exactly the records that differ, and none once all is carried over', async () => {
  replicas = await openReplicas('ab');
  const [a, b] = [replicas.at('a'), replicas.at('b')];
  await a.sql(`INSERT INTO things SELECT 'k' || n, n, '0' FROM generate_series(1, 400) n`);
  await replicas.rest();
  expect(await differing()).toEqual([]);
  await a.sql(`UPDATE things SET f2 = 'a' WHERE id = 'k7'`);
  await a.sql(`DELETE FROM things WHERE id = 'k8'`);
  await a.sql(`INSERT INTO things VALUES ('new', '1', '1')`);
  await b.sql(`INSERT INTO things VALUES ('there', '1', '1')`);
  await Promise.all([a.settle(), b.settle()]);
  expect((await differing()).toSorted()).toEqual([['k7', 'a'], ['k8', 'a'], ['new', 'a'], ['there', 'b']]);
  await replicas.rest();
  expect(await differing()).toEqual([]);
  await expectSame(replicas);
});

it('equal values that were written apart are different states, until they have met', async () => {
  replicas = await openReplicas('ab');
  for (const name of ['a', 'b']) {
    await replicas.at(name).sql(`INSERT INTO things VALUES ('x', '1', '1')`);
    await replicas.at(name).settle();
  }
  expect(await differing()).toEqual([['x', 'a']]);
  await replicas.rest();
  expect(await differing()).toEqual([]);
});

it('they are those of the states after whatever came to pass, failed transactions included', async () => {
  replicas = await openReplicas('ab');
  const a = replicas.at('a');
  await Promise.all(
    Array.from({ length: 8 }, async (_, n) => {
      await a.sql(`INSERT INTO things SELECT 'k' || m, $1, '0' FROM generate_series(1, 20) m ON CONFLICT (id) DO UPDATE SET f1 = excluded.f1`, [`v${n}`]);
      await replicas.sync(n % 2 ? 'a' : 'b', n % 2 ? 'b' : 'a', n % 3 ? 'arrives' : 'answer lost').catch((error: unknown) => {
        // Two syncs of one link at once: one of them is told to begin anew.
        if ((error as { code?: string }).code !== 'CHECKPOINT_MISMATCH') throw error;
      });
      await a.sql('DELETE FROM things WHERE id = $1', [`k${n}`]);
    }),
  );
  await expectDigests(a, await statesOf(a));
  await replicas.rest();
  await expectSame(replicas);
});

it('keys of a bucket are looked up, however many records there are and whatever the statistics say of them', async () => {
  replicas = await openReplicas('a');
  const { replica, sql, settle } = replicas.at('a');
  await sql(`INSERT INTO things (id, f1) SELECT n, 'x' FROM generate_series(1, 3000) n`);
  await settle();
  const buckets = (await readDigests(replica)).slice(0, 3).map(([model, n]): [string, number] => [model, n]);
  let read = Number.NaN;
  const counting: Replica = {
    ...replica,
    db: {
      ...replica.db,
      transaction: (work) =>
        replica.db.transaction(async (tx) => {
          const result = await work(tx);
          // Within this transaction: rows that were passed by, and rows that an index led to.
          const [row] = await tx.query(
            `SELECT pg_stat_get_xact_tuples_returned('replication.record'::regclass) + pg_stat_get_xact_tuples_fetched('replication.record'::regclass) + sum(pg_stat_get_xact_tuples_fetched(indexrelid))
               FROM pg_index WHERE indrelid = 'replication.record'::regclass`,
          );
          read = Number(row?.[0]);
          return result;
        }),
    },
  };
  const keys = await readKeyDigests(counting, buckets);
  expect(keys.length).toBeGreaterThan(0);
  expect(read).toBe(keys.length);
});

it('a digest that changes again and again takes no entry in an index anew, in a database of an earlier version too', async () => {
  replicas = await openReplicas('a');
  const { sql, settle } = replicas.at('a');
  await sql(`DROP INDEX replication.conflict_pending_by_id; CREATE INDEX conflict_by_status ON replication.conflict (status, id);
    ALTER TABLE replication.digest RESET (fillfactor); DELETE FROM replication.installed WHERE file = '017-conflicts.sql'`);
  await sql(`INSERT INTO things (id, f1) SELECT n, 'x' FROM generate_series(1, 3000) n`);
  await settle();
  await replicas.reopen('a');
  const { replica } = replicas.at('a');
  const before = await readDigests(replica);
  const records = before.map(([model, bucket]) => ({ model, bucket, hash: '1', old: null }));
  for (let time = 0; time < 2; time++) {
    const moved = await replica.db.transaction(async (tx) => {
      addToDigests(tx, records);
      const [row] = await tx.query(`SELECT pg_stat_get_xact_tuples_updated('replication.digest'::regclass) - pg_stat_get_xact_tuples_hot_updated('replication.digest'::regclass)`);
      return row?.[0];
    });
    expect(moved).toBe('0');
  }
  expect(await readDigests(replica)).toEqual(before.map(([model, bucket, count, hash]) => [model, bucket, count + 2, hash]));
});
