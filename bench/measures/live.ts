/** Changes that travel by themselves: how soon one is there, and how many a second can be. */
import { setTimeout as sleep } from 'node:timers/promises';

import { withArrivals } from '../lib/arrivals.ts';
import { execute, operate, type Load } from '../lib/load.ts';
import { LOGICAL, makeTable, subscribe, unsubscribe, until } from '../lib/logical.ts';
import { US, type Bench, type Measure, type Sample } from '../lib/measure.ts';
import { withPair } from '../lib/pair.ts';
import { countRows, fill } from '../lib/records.ts';
import { freePorts, startReplica } from '../lib/replica.ts';
import { quantile } from '../lib/report.ts';
import { withSession } from '../../src/storage/database.ts';

const BY_SQL = `${US}, written by SQL`;
const ALONE = `${US} without a peer`;
const RECORDS = 1000;
const WRITES = 400;
const FIRST_WRITES = 50;
const API_CLIENTS = 32;
const SQL_CLIENTS = 8;
const SECONDS = 8;
/** Until everything is compiled. */
const LOAD_WARM_UP = { seconds: 2, least: 2_000 };

const MEDIAN = 'one write, acknowledged to visible: median';
const P99 = 'one write, acknowledged to visible: p99';
const BY_API = `creates by API, ${API_CLIENTS} clients, all on B`;
const BY_INSERT = `INSERTs, ${SQL_CLIENTS} sessions, all on B`;
const behind = (label: string): string => `${label}: B behind at the end`;

export const live: Measure = {
  name: 'live',
  title: 'Continuous: what is written on A goes to B by itself',
  labels: {
    [MEDIAN]: { unit: 'ms', better: 'less', baseline: [LOGICAL] },
    [P99]: { unit: 'ms', better: 'less', baseline: [LOGICAL] },
    [BY_API]: { unit: '/s', better: 'more', baseline: [ALONE] },
    [behind(BY_API)]: { unit: 'ms', better: 'less' },
    [BY_INSERT]: { unit: '/s', better: 'more', baseline: [LOGICAL] },
    [behind(BY_INSERT)]: { unit: 'ms', better: 'less', baseline: [LOGICAL] },
  },
  run: async (bench) => [...(await ours(bench)), ...(await alone(bench)), ...(await theirs(bench))],
};

const CREATE = 'mutation ($nom: String!, $email: String!) { createUser(input: { nom: $nom, email: $email }) { id } }';
const UPDATE = 'mutation ($id: ID!, $telephone: String!) { updateUser(id: $id, input: { telephone: $telephone }) { id } }';
const ID = 11;

async function ours(bench: Bench): Promise<Sample[]> {
  return withPair(bench, { env: { SYNC_MODE: 'continuous' } }, async ({ a, b }) => {
    await fill(a.databaseUrl, 1, RECORDS);
    await arrived(b.databaseUrl, RECORDS);
    bench.say(`${US}: one write at a time`);
    const latencies = await oneByOne(b.databaseUrl, async (telephone) => void (await a.ask(UPDATE, { id: ID, telephone })));
    const latenciesBySql = await withSession(a.databaseUrl, (client) =>
      oneByOne(b.databaseUrl, async (telephone) => void (await client.query('UPDATE users SET telephone = $1 WHERE id = $2', [telephone, ID]))),
    );
    bench.say(`${US}: as many as A takes`);
    await creates(a.url, LOAD_WARM_UP);
    const api = await sustained(a.databaseUrl, b.databaseUrl, () => creates(a.url));
    const sql = await sustained(a.databaseUrl, b.databaseUrl, () => inserts(a.databaseUrl));
    return [...percentiles(US, latencies), ...percentiles(BY_SQL, latenciesBySql), ...rates(BY_API, US, api), ...rates(BY_INSERT, US, sql)];
  });
}

/** What A's API takes where nothing is sent. */
async function alone(bench: Bench): Promise<Sample[]> {
  return bench.withDatabases(async (databaseUrl) => {
    const [port] = (await freePorts(1)) as [number];
    const replica = await startReplica({ bench, name: 'a', port, databaseUrl, peers: {} });
    try {
      await fill(databaseUrl, 1, RECORDS);
      bench.say(`${ALONE}: as many as it takes`);
      await creates(replica.url, LOAD_WARM_UP);
      const { done, seconds } = await creates(replica.url);
      return [{ label: BY_API, subject: ALONE, value: done / seconds }];
    } finally {
      await replica.stop();
    }
  });
}

async function theirs(bench: Bench): Promise<Sample[]> {
  return bench.withDatabases(async (a, b) => {
    await makeTable(a);
    await makeTable(b);
    const ab = await subscribe(a, b, 'live_ab');
    const ba = await subscribe(b, a, 'live_ba');
    try {
      await Promise.all([ab.enable(), ba.enable()]);
      await fill(a, 1, RECORDS);
      await arrived(b, RECORDS);
      bench.say(`${LOGICAL}: one write at a time`);
      const latencies = await withSession(a, (client) =>
        oneByOne(b, async (telephone) => void (await client.query('UPDATE users SET telephone = $1 WHERE id = $2', [telephone, ID]))),
      );
      bench.say(`${LOGICAL}: as many as A takes`);
      const sql = await sustained(a, b, () => inserts(a));
      return [...percentiles(LOGICAL, latencies), ...rates(BY_INSERT, LOGICAL, sql)];
    } finally {
      await unsubscribe(a, b, 'live_ab');
      await unsubscribe(b, a, 'live_ba');
    }
  });
}

/** Milliseconds from the acknowledgement of each write until it is visible; none where it is so already. */
async function oneByOne(target: string, write: (telephone: string) => Promise<void>): Promise<number[]> {
  return withArrivals(target, async (arrivals) => {
    const latencies: number[] = [];
    for (let count = 1; count <= FIRST_WRITES + WRITES; count++) {
      // Unlike those before, in the same database.
      const telephone = `+${count} ${Math.random()}`;
      const visible = arrivals.of(telephone);
      await write(telephone);
      const acknowledged = performance.now();
      const latency = Math.max(0, (await visible) - acknowledged);
      if (count > FIRST_WRITES) latencies.push(latency);
      // Writes of a person do not come in step with what follows the last one.
      await sleep(Math.random() * 20);
    }
    return latencies;
  });
}

let names = 0;

function creates(url: string, span: { readonly seconds: number; readonly least?: number } = { seconds: SECONDS }): Promise<Load> {
  return operate(url, { clients: API_CLIENTS, ...span }, () => {
    names++;
    return { query: CREATE, variables: { nom: `New ${names}`, email: `new${names}@example.org` } };
  });
}

function inserts(databaseUrl: string): Promise<Load> {
  return execute(databaseUrl, { clients: SQL_CLIENTS, seconds: SECONDS }, 'INSERT INTO users (nom, email) VALUES ($1, $2)', () => {
    names++;
    return [`New ${names}`, `new${names}@example.org`];
  });
}

interface Sustained {
  readonly perSecond: number;
  readonly behindMs: number;
}

async function sustained(source: string, target: string, load: () => Promise<Load>): Promise<Sustained> {
  const before = await countRows(source);
  await arrived(target, before);
  const began = performance.now();
  const { done } = await load();
  const acknowledged = performance.now();
  await arrived(target, before + done);
  return { perSecond: done / ((performance.now() - began) / 1000), behindMs: performance.now() - acknowledged };
}

function arrived(databaseUrl: string, records: number): Promise<void> {
  return withSession(databaseUrl, (client) => until(client, `SELECT FROM users HAVING count(*) >= ${records}`));
}

function percentiles(subject: string, latencies: readonly number[]): Sample[] {
  return [
    { label: MEDIAN, subject, value: quantile(latencies, 0.5) },
    { label: P99, subject, value: quantile(latencies, 0.99) },
  ];
}

function rates(label: string, subject: string, { perSecond, behindMs }: Sustained): Sample[] {
  return [
    { label, subject, value: perSecond },
    { label: behind(label), subject, value: behindMs },
  ];
}
