/** The same records changed on both sides, in different fields, until both agree. */
import { LOGICAL, makeTable, subscribe, unsubscribe, until } from '../lib/logical.ts';
import { US, type Bench, type Measure, type Sample } from '../lib/measure.ts';
import { timedSync, withPair, type Pair } from '../lib/pair.ts';
import { contents, countRows, fill, touch } from '../lib/records.ts';
import { RXDB, withRx } from '../lib/rxdb.ts';
import { withSession } from '../../src/storage/database.ts';

const RATE = 'records a second';
const KEPT = 'records with both fields kept on both sides';
const LOGGED = 'conflicts logged on both sides';

export function createConflicts(records: number): Measure {
  return {
    name: 'conflicts',
    title: `${records.toLocaleString('en')} records changed on both sides, in different fields, until both agree`,
    labels: { [RATE]: { unit: '/s', better: 'more', baseline: [LOGICAL] }, [KEPT]: { unit: '', better: 'more' }, [LOGGED]: { unit: '', better: 'more' } },
    run: async (bench) => [...(await ours(bench, records)), ...(await theirs(bench, records)), ...(await ofRx(bench, records))],
  };
}

/** Two replicas that hold the same records, each of them then changed on both. */
export async function opposed({ a, b }: Pair, records: number): Promise<void> {
  await fill(a.databaseUrl, 1, records);
  await timedSync(a, b);
  await touch(a.databaseUrl, 'nom', 'Other', records);
  await touch(b.databaseUrl, 'telephone', '+44', records);
}

const BOTH_KEPT = `nom LIKE 'Other %' AND telephone LIKE '+44 %'`;

async function ours(bench: Bench, records: number): Promise<Sample[]> {
  return withPair(bench, { env: { CONFLICT_POLICY: 'field-wise' } }, async (pair) => {
    const { a, b } = pair;
    await opposed(pair, records);
    bench.say(`${US}: sync`);
    const { ms } = await timedSync(a, b);
    if ((await contents(a.databaseUrl)) !== (await contents(b.databaseUrl))) throw new Error(`${US}: the replicas differ`);
    const logged = async (url: string): Promise<number> =>
      withSession(url, async (client) => Number((await client.query<{ count: string }>('SELECT count(*) FROM replication.conflict')).rows[0]?.count));
    return [
      { label: RATE, subject: US, value: records / (ms / 1000) },
      { label: KEPT, subject: US, value: Math.min(await countRows(a.databaseUrl, BOTH_KEPT), await countRows(b.databaseUrl, BOTH_KEPT)) },
      { label: LOGGED, subject: US, value: Math.min(await logged(a.databaseUrl), await logged(b.databaseUrl)) },
    ];
  });
}

async function theirs(bench: Bench, records: number): Promise<Sample[]> {
  return bench.withDatabases(async (a, b) => {
    for (const url of [a, b]) {
      await makeTable(url);
      await fill(url, 1, records);
    }
    const ab = await subscribe(a, b, 'conflicts_ab');
    const ba = await subscribe(b, a, 'conflicts_ba');
    try {
      await touch(a, 'nom', 'Other', records);
      await touch(b, 'telephone', '+44', records);
      // What comes last shows that all before it has been applied.
      await fill(a, records + 1, records + 1);
      await fill(b, records + 2, records + 2);
      bench.say(`${LOGICAL}: streaming both ways`);
      const began = performance.now();
      await Promise.all([ab.enable(), ba.enable()]);
      await Promise.all([
        withSession(b, (client) => until(client, `SELECT FROM users WHERE id = ${(records + 1) * 10 + 1}`)),
        withSession(a, (client) => until(client, `SELECT FROM users WHERE id = ${(records + 2) * 10 + 1}`)),
      ]);
      const ms = performance.now() - began;
      return [
        { label: RATE, subject: LOGICAL, value: records / (ms / 1000) },
        { label: KEPT, subject: LOGICAL, value: Math.min(await countRows(a, BOTH_KEPT), await countRows(b, BOTH_KEPT)) },
        { label: LOGGED, subject: LOGICAL, value: 0 },
      ];
    } finally {
      await unsubscribe(a, b, 'conflicts_ab');
      await unsubscribe(b, a, 'conflicts_ba');
    }
  });
}

async function ofRx(bench: Bench, records: number): Promise<Sample[]> {
  return withRx(bench, async (rx) => {
    await rx.insert(1, records);
    await rx.sync();
    await rx.touch('telephone', '+44', records);
    await withSession(rx.databaseUrl, (client) => client.query(`UPDATE users SET nom = 'Other ' || id, place = nextval('users_place_seq')`));
    bench.say(`${RXDB}: sync`);
    const ms = await rx.sync();
    const kept = await rx.count(({ nom, telephone }) => nom.startsWith('Other ') && (telephone ?? '').startsWith('+44 '));
    return [
      { label: RATE, subject: RXDB, value: records / (ms / 1000) },
      { label: KEPT, subject: RXDB, value: Math.min(kept, await countRows(rx.databaseUrl, BOTH_KEPT)) },
      { label: LOGGED, subject: RXDB, value: 0 },
    ];
  });
}
