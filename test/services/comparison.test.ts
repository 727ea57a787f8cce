/** Comparing two replicas and mending what differs, over real databases. */
import { afterEach, beforeEach, expect, it } from 'vitest';

import { readDigests } from '../../src/storage/digest.ts';
import { expectDigests, expectSame, rowsOf, statesOf } from '../support/compare.ts';
import { openReplicas, type Replicas, type TestReplica } from '../support/replicas.ts';

let replicas: Replicas;
let a: TestReplica;
let b: TestReplica;

beforeEach(async () => {
  replicas = await openReplicas('ab');
  [a, b] = [replicas.at('a'), replicas.at('b')];
  await a.sql(`INSERT INTO things SELECT 'k' || n, n, '0' FROM generate_series(1, 200) n`);
  await replicas.rest();
});
afterEach(() => replicas.close());

const QUICK = { deep: false };
const DEEP = { deep: true };
const repair = { deep: false, dryRun: false };

/** Takes a record out of a replica as no writer can, and as if its digest had never had it. */
async function lose(at: TestReplica, key: string): Promise<void> {
  await at.session(async (client) => {
    await client.query(`SET session_replication_role = replica`);
    await client.query('DELETE FROM things WHERE id = $1', [key]);
    await client.query(
      `WITH gone AS (DELETE FROM replication.record WHERE key = $1 RETURNING model, bucket, hash)
       UPDATE replication.digest d SET records = d.records - 1, hash = d.hash # gone.hash FROM gone WHERE d.model = gone.model AND d.bucket = gone.bucket`,
      [key],
    );
  });
}

async function expectMended(): Promise<void> {
  expect(await a.comparison(b).compare('b', DEEP)).toMatchObject({ same: 200, onTheirWay: 0, differing: 0, corrupted: 0, ratio: 1 });
  expect(await readDigests(a.replica)).toEqual(await readDigests(b.replica));
  await expectDigests(a, await statesOf(a));
  await expectDigests(b, await statesOf(b));
  await expectSame(replicas);
}

it('what one side has lost is found, told with what both hold, and mended, whichever side it is', async () => {
  await lose(b, 'k7');
  await lose(a, 'k8');
  const found = await a.comparison(b).compare('b', QUICK);
  expect(found).toMatchObject({ records: 200, same: 198, onTheirWay: 0, differing: 2, corrupted: 0, ratio: 0.99 });
  expect(found.samples.toSorted((x, y) => (x.recordId < y.recordId ? -1 : 1))).toMatchObject([
    { model: 'Thing', recordId: 'k7', difference: 'DIFFERING', here: [{ values: { id: 'k7', f1: '7' } }], there: [] },
    { recordId: 'k8', here: [], there: [{ values: { f1: '8' } }] },
  ]);
  // No sync mends it: each side's mark says that the other has it.
  await replicas.rest();
  expect(await a.comparison(b).repair('b', { ...repair, dryRun: true })).toMatchObject({ before: { differing: 2 }, after: null, mended: 0 });
  expect(await rowsOf(a)).toHaveLength(199);
  expect(await a.comparison(b).repair('b', repair)).toMatchObject({ before: { differing: 2 }, after: { differing: 0, ratio: 1 }, mended: 2 });
  await expectMended();
  expect(await a.comparison(b).repair('b', repair)).toMatchObject({ before: { differing: 0 }, mended: 0 });
});

it('a loss that the digests do not show is found by a deep comparison, and mended with the digests', async () => {
  await b.session(async (client) => {
    await client.query(`SET session_replication_role = replica; DELETE FROM things WHERE id = 'k9'; DELETE FROM replication.record WHERE key = 'k9'`);
  });
  expect(await a.comparison(b).compare('b', QUICK)).toMatchObject({ same: 200, differing: 0 });
  expect(await a.comparison(b).compare('b', DEEP)).toMatchObject({ same: 199, differing: 1 });
  expect(await a.comparison(b).repair('b', { deep: true, dryRun: false })).toMatchObject({ mended: 1, after: { differing: 0 } });
  await expectMended();
});

it('a state that was put back behind the hash is found by a deep comparison, and brought up again', async () => {
  await a.sql(`UPDATE things SET f1 = 'new' WHERE id = 'k3'`);
  const [before] = await b.sql(`SELECT versions FROM replication.record WHERE key = 'k3'`);
  await replicas.rest();
  await b.session(async (client) => {
    await client.query(`SET session_replication_role = replica; UPDATE things SET f1 = '3' WHERE id = 'k3'`);
    await client.query(`UPDATE replication.record SET versions = $1 WHERE key = 'k3'`, [before?.['versions']]);
  });
  expect(await a.comparison(b).compare('b', QUICK)).toMatchObject({ differing: 0 });
  expect(await a.comparison(b).repair('b', { deep: true, dryRun: false })).toMatchObject({ before: { differing: 1 }, after: { differing: 0 } });
  expect(await b.sql(`SELECT f1 FROM things WHERE id = 'k3'`)).toEqual([{ f1: 'new' }]);
  await expectMended();
});

it('what is merely on its way is told apart, in either direction, beside what truly differs', async () => {
  await a.sql(`UPDATE things SET f2 = 'a' WHERE id IN ('k1', 'k2')`);
  await b.sql(`UPDATE things SET f2 = 'b' WHERE id = 'k2'`);
  await b.sql(`DELETE FROM things WHERE id = 'k4'`);
  await b.sql(`INSERT INTO things VALUES ('new', '1', '1')`);
  await lose(b, 'k7');
  expect(await a.comparison(b).compare('b', QUICK)).toMatchObject({ records: 201, same: 196, onTheirWay: 4, differing: 1 });
  expect(await b.comparison(a).compare('a', QUICK)).toMatchObject({ records: 201, same: 196, onTheirWay: 4, differing: 1 });
  await replicas.sync('a', 'b', 'answer lost');
  expect(await a.comparison(b).compare('b', QUICK)).toMatchObject({ differing: 1 });
  await replicas.rest();
  expect(await a.comparison(b).compare('b', QUICK)).toMatchObject({ onTheirWay: 0, differing: 1 });
});

it('a transaction that takes long is no difference, before or after it commits', async () => {
  await a.session(async (client) => {
    await client.query(`BEGIN; UPDATE things SET f2 = 'long' WHERE id = 'k5'`);
    await a.sql(`UPDATE things SET f2 = 'short' WHERE id = 'k6'`);
    await replicas.rest();
    expect(await a.comparison(b).compare('b', QUICK)).toMatchObject({ same: 200, onTheirWay: 0, differing: 0 });
    await client.query('COMMIT');
  });
  expect(await a.comparison(b).compare('b', QUICK)).toMatchObject({ same: 199, onTheirWay: 1, differing: 0 });
  expect(await a.comparison(b).repair('b', repair)).toMatchObject({ before: { differing: 0 }, after: { same: 200 }, mended: 0 });
});

it('a row changed behind the triggers is told with both sides, and left to a person', async () => {
  await b.session((client) => client.query(`SET session_replication_role = replica; UPDATE things SET f1 = 'forged' WHERE id = 'k5'`));
  expect(await a.comparison(b).compare('b', QUICK)).toMatchObject({ same: 200, corrupted: 0 });
  const { samples, ...found } = await a.comparison(b).compare('b', DEEP);
  expect(found).toMatchObject({ same: 199, differing: 0, corrupted: 1 });
  expect(samples).toMatchObject([{ recordId: 'k5', difference: 'CORRUPTED', here: [{ values: { f1: '5' } }], there: [{ values: { f1: 'forged' } }] }]);
  expect(await a.comparison(b).repair('b', { deep: true, dryRun: false })).toMatchObject({ mended: 0, after: { corrupted: 1 } });
  // As its description says: the right value is written on the side that is wrong.
  await b.sql(`UPDATE things SET f1 = '5' WHERE id = 'k5'`);
  await replicas.rest();
  expect(await a.comparison(b).compare('b', DEEP)).toMatchObject({ same: 200, corrupted: 0 });
});

it('asks for as much as differs', async () => {
  const asked: [string, number][] = [];
  const counting: TestReplica = {
    ...b,
    handlers: {
      ...b.handlers,
      async inspect(request) {
        const answer = await b.handlers.inspect(request);
        asked.push(['inspect', answer.keys.length]);
        return answer;
      },
      async resend(request) {
        const answer = await b.handlers.resend(request);
        asked.push(['resend', answer.records.length]);
        return answer;
      },
    },
  };
  await a.comparison(counting).compare('b', QUICK);
  expect(asked).toEqual([['inspect', 0]]);
  asked.length = 0;
  await lose(b, 'k7');
  await a.comparison(counting).compare('b', QUICK);
  // The digests, two looks into one bucket of a thousand, and one sample.
  expect(asked.map(([what]) => what)).toEqual(['inspect', 'inspect', 'inspect', 'resend']);
  expect(asked.reduce((sum, [, count]) => sum + count, 0)).toBeLessThan(10);
});
