/** The gateway that leads is killed, or stopped without dying: another of its replica sends in its place. */
import pg from 'pg';
import { afterEach, beforeEach, expect, it } from 'vitest';

import { createTestDatabase, type TestDatabase } from '../support/postgres.ts';
import { freePort, startProcess, type ReplicaProcess } from '../support/processes.ts';

let databases: TestDatabase[];
let clients: pg.Client[];
let gateways: [ReplicaProcess, ReplicaProcess];
let peer: ReplicaProcess;

beforeEach(async () => {
  databases = [await createTestDatabase(), await createTestDatabase()];
  clients = databases.map(({ url }) => new pg.Client({ connectionString: url }));
  await Promise.all(clients.map((client) => client.connect()));
  const ports = [await freePort(), await freePort(), await freePort()] as const;
  const [a, b] = databases as [TestDatabase, TestDatabase];
  const env = (name: string, port: number, url: string, peers: string) => ({ REPLICA: name, PORT: String(port), DATABASE_URL: url, PEERS: peers, SYNC_MODE: 'continuous' });
  peer = await startProcess(env('b', ports[2], b.url, ''));
  const toB = `b=http://127.0.0.1:${ports[2]}`;
  const first = await startProcess(env('a', ports[0], a.url, toB));
  gateways = [first, await startProcess(env('a', ports[1], a.url, toB))];
});
afterEach(async () => {
  await Promise.all([...gateways, peer].map((each) => each.kill()));
  await Promise.all(clients.map((client) => client.end()));
  await Promise.all(databases.map((database) => database.close()));
});

async function eventually<T>(ask: () => Promise<T>, wanted: (answer: T) => boolean): Promise<T> {
  for (;;) {
    const answer = await ask();
    if (wanted(answer)) return answer;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

const leading = async (gateway: ReplicaProcess): Promise<boolean> => {
  const response = await fetch(`${gateway.url}/graphql`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: '{"query": "{ replica { leading } }"}' });
  return ((await response.json()) as { data: { replica: { leading: boolean } } }).data.replica.leading;
};
const create = async (gateway: ReplicaProcess, nom: string): Promise<void> => {
  const body = JSON.stringify({ nom, email: `${nom}@x.org` });
  expect((await fetch(`${gateway.url}/api/v1/users`, { method: 'POST', headers: { 'content-type': 'application/json' }, body })).status).toBe(201);
};
const arrived = async (): Promise<string[]> => ((await clients[1]?.query<{ nom: string }>('SELECT nom FROM users ORDER BY id'))?.rows ?? []).map(({ nom }) => nom);

it('killed: the other has the lead, and sends what either wrote', async () => {
  const [leader, other] = gateways;
  expect([await leading(leader), await leading(other)]).toEqual([true, false]);
  await create(other, 'before');
  await eventually(arrived, (names) => names.length === 1);
  await create(leader, 'dying');
  await leader.kill();
  await create(other, 'after');
  expect(await eventually(arrived, (names) => names.length === 3)).toEqual(['before', 'dying', 'after']);
  expect(await leading(other)).toBe(true);
}, 180_000);

it('stopped: its lease goes stale, the other takes over, and the one that wakes up stands down', async () => {
  const [leader, other] = gateways;
  await create(leader, 'before');
  await eventually(arrived, (names) => names.length === 1);
  leader.signal('SIGSTOP');
  await create(other, 'meanwhile');
  await eventually(arrived, (names) => names.length === 2);
  expect(await leading(other)).toBe(true);
  leader.signal('SIGCONT');
  await eventually(() => leading(leader), (leads) => !leads);
  expect(await leading(other)).toBe(true);
  await create(leader, 'after');
  expect(await eventually(arrived, (names) => names.length === 3)).toEqual(['before', 'meanwhile', 'after']);
}, 180_000);
