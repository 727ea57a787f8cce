/** What capturing changes costs whoever writes: the same writes on a plain table, on a captured one, and on a captured one whose replica folds what is captured meanwhile. */
import { execute } from '../lib/load.ts';
import { makeTable, until } from '../lib/logical.ts';
import { US, type Bench, type Measure, type Sample } from '../lib/measure.ts';
import { fill } from '../lib/records.ts';
import { freePorts, startReplica } from '../lib/replica.ts';
import { median } from '../lib/report.ts';
import { withSession } from '../../src/storage/database.ts';

const PLAIN = 'a plain table';
const AT_REST = `${US}, the process stopped`;
const RECORDS = 10_000;
const ROWS = 10_000;
const CLIENTS = 4;
const SECONDS = 1;
/** Short turns, one after the other, so that what else the machine does falls on everybody alike. */
const TURNS = 7;

const UPDATES = `UPDATE by key, ${CLIENTS} sessions`;
const BULK = `one INSERT of ${ROWS.toLocaleString('en')} rows`;

export const capture: Measure = {
  name: 'capture',
  title: 'Writes by SQL on the table, captured and not',
  labels: { [UPDATES]: { unit: '/s', better: 'more', baseline: [PLAIN] }, [BULK]: { unit: 'rows/s', better: 'more', baseline: [PLAIN] } },
  run: (bench) =>
    bench.withDatabases((plain) =>
      bench.withDatabases((stopped) =>
        bench.withDatabases(async (folded) => {
          await makeTable(plain);
          await (await replicaOver(bench, stopped)).stop();
          const replica = await replicaOver(bench, folded);
          try {
            const subjects = [
              { name: PLAIN, url: plain, settled: async () => {} },
              { name: AT_REST, url: stopped, settled: async () => {} },
              { name: US, url: folded, settled: () => settled(folded) },
            ];
            for (const { url } of subjects) await fill(url, 1, RECORDS);
            await settled(folded);
            return await measured(bench, subjects);
          } finally {
            await replica.stop();
          }
        }),
      ),
    ),
};

interface Subject {
  readonly name: string;
  readonly url: string;
  /** Resolves once its writes cost nobody anything any more. */
  settled(): Promise<void>;
}

async function measured(bench: Bench, subjects: readonly Subject[]): Promise<Sample[]> {
  const updates = new Map<string, number[]>();
  const bulk = new Map<string, number[]>();
  for (let turn = 1; turn <= TURNS; turn++) {
    bench.say(`turn ${turn} of ${TURNS}`);
    for (const { name, url, settled: atRest } of subjects) {
      add(updates, name, await updatesOf(url, turn));
      await atRest();
      add(bulk, name, await bulkOf(url, turn));
      await atRest();
    }
  }
  const samples = (label: string, values: ReadonlyMap<string, readonly number[]>): Sample[] => [...values].map(([subject, own]) => ({ label, subject, value: median(own) }));
  return [...samples(UPDATES, updates), ...samples(BULK, bulk)];
}

async function updatesOf(url: string, turn: number): Promise<number> {
  let count = 0;
  const { done, seconds } = await execute(url, { clients: CLIENTS, seconds: SECONDS }, 'UPDATE users SET telephone = $2 WHERE id = $1', () => {
    count++;
    return [((count * 7919) % RECORDS) * 10 + 11, `+${turn} ${count}`];
  });
  return done / seconds;
}

async function bulkOf(url: string, turn: number): Promise<number> {
  return withSession(url, async (client) => {
    const began = performance.now();
    await client.query(`INSERT INTO users (nom, email, telephone) SELECT 'Bulk ' || i, 'bulk' || i || '.${turn}@example.org', '+33 1 ' || i FROM generate_series(1, ${ROWS}) i`);
    return ROWS / ((performance.now() - began) / 1000);
  });
}

async function replicaOver(bench: Bench, databaseUrl: string): ReturnType<typeof startReplica> {
  const [port] = (await freePorts(1)) as [number];
  return startReplica({ bench, name: 'a', port, databaseUrl, peers: {} });
}

function settled(url: string): Promise<void> {
  return withSession(url, (client) => until(client, 'SELECT WHERE NOT EXISTS (SELECT FROM replication.log)'));
}

function add(values: Map<string, number[]>, key: string, value: number): void {
  values.set(key, [...(values.get(key) ?? []), value]);
}
