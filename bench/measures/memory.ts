/** What a process holds at most while records are copied to a replica that has none. */
import { LOGICAL, makeTable, subscribe, unsubscribe, until } from '../lib/logical.ts';
import { US, type Bench, type Measure, type Sample } from '../lib/measure.ts';
import { timedSync, withPair } from '../lib/pair.ts';
import { memoryOfPouch, POUCH } from '../lib/pouch.ts';
import { watchPrivateMemory } from '../lib/process.ts';
import { fill } from '../lib/records.ts';
import { withSession } from '../../src/storage/database.ts';

const labelOf = (records: number): string => `${records.toLocaleString('en')} records, the busier process`;

/** @param sizes - From small to large. */
export function createMemory(name: string, sizes: readonly number[], { peers }: { readonly peers: boolean }): Measure {
  const growth = `${sizes.at(-1)?.toLocaleString('en')} records against ${sizes[0]?.toLocaleString('en')}`;
  const baseline = peers ? { baseline: [LOGICAL, POUCH] } : {};
  return {
    name,
    title: 'Most memory while records are copied to an empty replica',
    labels: { ...Object.fromEntries(sizes.map((size) => [labelOf(size), { unit: 'MiB', better: 'less' as const, ...baseline }])), [growth]: { unit: 'times', better: 'less' } },
    async run(bench) {
      const samples: Sample[] = [];
      for (const [subject, measured] of [[US, ours], ...(peers ? ([[LOGICAL, theirs], [POUCH, memoryOfPouch]] as const) : [])] as const) {
        const peaks: number[] = [];
        for (const size of sizes) {
          bench.say(`${subject}: ${size} records`);
          peaks.push(await measured(bench, size));
        }
        samples.push(...sizes.map((size, index) => ({ label: labelOf(size), subject, value: peaks[index] as number })), { label: growth, subject, value: (peaks.at(-1) as number) / (peaks[0] as number) });
      }
      return samples;
    },
  };
}

async function ours(bench: Bench, records: number): Promise<number> {
  return withPair(bench, {}, async ({ a, b }) => {
    await fill(a.databaseUrl, 1, records);
    const { applied } = await timedSync(a, b);
    if (applied !== records) throw new Error(`${US}: ${applied} of ${records} were applied`);
    return Math.max(a.memory().peak, b.memory().peak);
  });
}

/** Of the process that sends and the one that applies; what they share with the server's others is no memory of theirs. */
async function theirs(bench: Bench, records: number): Promise<number> {
  return bench.withDatabases(async (a, b) => {
    await makeTable(a);
    await makeTable(b);
    const { enable } = await subscribe(a, b, 'memory_ab');
    try {
      await fill(a, 1, records);
      return await withSession(b, async (client) => {
        await enable();
        const [sender, receiver] = await Promise.all([pidOf(a, 'SELECT active_pid FROM pg_replication_slots WHERE slot_name = $1 AND active_pid IS NOT NULL'), pidOf(b, 'SELECT pid FROM pg_stat_subscription WHERE subname = $1 AND pid IS NOT NULL')]);
        const watched = watchPrivateMemory([sender, receiver]);
        await until(client, `SELECT FROM users WHERE id = ${records * 10 + 1}`);
        return watched.stop();
      });
    } finally {
      await unsubscribe(a, b, 'memory_ab');
    }
  });
}

async function pidOf(url: string, query: string): Promise<number> {
  return withSession(url, async (client) => {
    for (;;) {
      const [row] = (await client.query<Record<string, number>>(query, ['memory_ab'])).rows;
      if (row) return Object.values(row)[0] as number;
    }
  });
}
