/** Records made one a transaction, sent to a replica that has none. */
import { LOGICAL, makeTable, subscribe, unsubscribe, until } from '../lib/logical.ts';
import { US, type Bench, type Measure, type Sample } from '../lib/measure.ts';
import { timedSync, withPair } from '../lib/pair.ts';
import { contents, countRows, fill } from '../lib/records.ts';
import { RXDB, withRx } from '../lib/rxdb.ts';
import { withSession } from '../../src/storage/database.ts';

/** @param options - `peers`: beside those too that keep their records in memory. */
export function createCopy(records: number, { peers }: { readonly peers: boolean }): Measure {
  return {
    name: `copy-${records}`,
    title: `${records.toLocaleString('en')} records, made one a transaction, to an empty replica`,
    labels: { 'records a second': { unit: '/s', better: 'more', baseline: [LOGICAL] } },
    run: async (bench) => [...(await ours(bench, records)), ...(await theirs(bench, records)), ...(peers ? await ofRx(bench, records) : [])],
  };
}

async function ours(bench: Bench, records: number): Promise<Sample[]> {
  return withPair(bench, {}, async ({ a, b }) => {
    bench.say(`${US}: making ${records} records`);
    await fill(a.databaseUrl, 1, records);
    bench.say(`${US}: sync`);
    const { ms, applied } = await timedSync(a, b);
    if (applied !== records || (await contents(a.databaseUrl)) !== (await contents(b.databaseUrl))) throw new Error(`${US}: the replica has not got all: ${applied} of ${records}`);
    return [{ label: 'records a second', subject: US, value: records / (ms / 1000) }];
  });
}

async function theirs(bench: Bench, records: number): Promise<Sample[]> {
  return bench.withDatabases(async (a, b) => {
    await makeTable(a);
    await makeTable(b);
    const { enable } = await subscribe(a, b, 'copy_ab');
    try {
      bench.say(`${LOGICAL}: making ${records} records`);
      await fill(a, 1, records);
      bench.say(`${LOGICAL}: streaming`);
      const ms = await withSession(b, async (client) => {
        const began = performance.now();
        await enable();
        await until(client, `SELECT FROM users WHERE id = ${records * 10 + 1}`);
        return performance.now() - began;
      });
      if ((await contents(a)) !== (await contents(b))) throw new Error(`${LOGICAL}: the subscriber has not got all`);
      return [{ label: 'records a second', subject: LOGICAL, value: records / (ms / 1000) }];
    } finally {
      await unsubscribe(a, b, 'copy_ab');
    }
  });
}

async function ofRx(bench: Bench, records: number): Promise<Sample[]> {
  return withRx(bench, async (rx) => {
    await rx.insert(1, records);
    bench.say(`${RXDB}: sync`);
    const ms = await rx.sync();
    if ((await countRows(rx.databaseUrl)) !== records) throw new Error(`${RXDB}: the server has not got all`);
    return [{ label: 'records a second', subject: RXDB, value: records / (ms / 1000) }];
  });
}
