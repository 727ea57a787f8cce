/** Replicas killed with -9 at each step of a sync: real processes, sockets and databases. Afterwards nothing is lost, and nothing is there twice. */
import pg from 'pg';
import { afterAll, beforeAll, expect, it } from 'vitest';

import { createTestDatabase, type TestDatabase } from '../support/postgres.ts';
import { freePort, startProcess, startProxy, type HeldMessage, type Proxy, type ReplicaProcess } from '../support/processes.ts';

type Name = 'a' | 'b';

const databases = {} as Record<Name, TestDatabase>;
const clients = {} as Record<Name, pg.Client>;
const environments = {} as Record<Name, Record<string, string>>;
const processes = {} as Record<Name, ReplicaProcess>;
let proxy: Proxy;
let round = 0;

beforeAll(async () => {
  const ports = { a: await freePort(), b: await freePort() };
  proxy = await startProxy(`http://127.0.0.1:${ports.b}`);
  await Promise.all(
    (['a', 'b'] as const).map(async (name) => {
      databases[name] = await createTestDatabase();
      environments[name] = {
        REPLICA: name,
        PORT: String(ports[name]),
        DATABASE_URL: databases[name].url,
        PEERS: name === 'a' ? `b=http://127.0.0.1:${proxy.port}` : `a=http://127.0.0.1:${ports.a}`,
      };
      clients[name] = new pg.Client({ connectionString: databases[name].url });
      await clients[name].connect();
      processes[name] = await startProcess(environments[name]);
    }),
  );
});

afterAll(async () => {
  await Promise.all(Object.values(processes).map((each) => each.kill()));
  await proxy?.close();
  await Promise.all(Object.values(clients).map((client) => client.end()));
  await Promise.all(Object.values(databases).map((database) => database.close()));
});

const query = async (name: Name, sql: string, values: unknown[] = []): Promise<Record<string, unknown>[]> => (await clients[name].query<Record<string, unknown>>(sql, values)).rows;

const sync = async (from: Name, to: Name): Promise<void> => {
  const answer = await processes[from].post(`/api/v1/sync-to-${to}`);
  expect([answer.status, await answer.text()]).toEqual([200, expect.anything()]);
};

const restart = async (name: Name): Promise<void> => {
  processes[name] = await startProcess(environments[name]);
};

/** Both sides change one user, and each creates some of its own. */
async function disagree(created: number): Promise<string> {
  round++;
  const [user] = await query('a', 'INSERT INTO users (nom, email) VALUES ($1, $2) RETURNING id', [`shared ${round}`, `shared${round}@x.org`]);
  await sync('a', 'b');
  for (const name of ['a', 'b'] as const) {
    await query(name, 'UPDATE users SET telephone = $1 WHERE id = $2', [name, user?.['id']]);
    await query(name, `INSERT INTO users (nom, email) SELECT $1, $1 || $2 || '.' || n || '@x.org' FROM generate_series(1, $3::int) n`, [name, round, name === 'a' ? created : 1]);
  }
  return String(user?.['id']);
}

/** Everything a database holds that is not its own affair. */
const contents = async (name: Name): Promise<unknown> => ({
  rows: await query(name, 'SELECT u::text FROM users u ORDER BY id'),
  states: await query(name, 'SELECT model, key, hash, versions::jsonb::text FROM replication.record ORDER BY model, key'),
  digests: await query(name, 'SELECT * FROM replication.digest ORDER BY model, bucket'),
});

/** After both have been synced both ways all is there, once. */
async function expectWhole(user: string, users: number): Promise<void> {
  await sync('a', 'b');
  await sync('b', 'a');
  // While the conflict waits each side shows its own; otherwise they are the same.
  const differing = (await query('a', `SELECT key FROM replication.conflict WHERE status = 'PENDING'`)).map(({ key }) => Number(key));
  const [a, b] = (await Promise.all([contents('a'), contents('b')])) as Record<string, Record<string, unknown>[]>[];
  expect(b?.['states']).toEqual(a?.['states']);
  expect(b?.['digests']).toEqual(a?.['digests']);
  for (const name of ['a', 'b'] as const) {
    expect(await query(name, 'SELECT count(*)::int, count(DISTINCT email)::int AS emails FROM users')).toEqual([{ count: users, emails: users }]);
    expect(await query(name, 'SELECT status, fields FROM replication.conflict WHERE key = $1', [user])).toEqual([{ status: 'PENDING', fields: ['telephone'] }]);
    expect(await query(name, 'SELECT FROM replication.record WHERE waiting IS NOT NULL')).toEqual([]);
  }
  expect(differing).toHaveLength(round);
  const [sent] = await query('a', 'SELECT count(*)::int FROM replication.log');
  expect(sent).toEqual({ count: 0 });
}

let users = 0;
/** Who is killed, when, and what becomes of the message that was on its way. */
const steps: readonly (readonly [who: Name, when: 'batch' | 'answer', nth: number, then: 'pass' | 'drop'])[] = [
  ['a', 'batch', 1, 'pass'],
  ['a', 'answer', 1, 'drop'],
  ['b', 'batch', 1, 'drop'],
  ['b', 'answer', 1, 'pass'],
];

it.each(['a', 'b'] as const)('%s is killed in the middle of its transaction', async (who) => {
  const user = await disagree(3);
  users += 5;
  const locker = new pg.Client({ connectionString: databases[who].url });
  await locker.connect();
  let message: HeldMessage | undefined;
  try {
    const holding = proxy.hold(who === 'a' ? 'answer' : 'batch');
    const syncing = processes.a.post('/api/v1/sync-to-b').then((answer) => answer.status, () => 0);
    message = await holding;
    await locker.query('BEGIN');
    await locker.query('SELECT FROM users WHERE id = $1 FOR UPDATE', [user]);
    message.pass();
    // The database answers this only once the replica waits for the row.
    await query(who, `DO $$ BEGIN WHILE NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')
      LOOP PERFORM pg_sleep(0.01), pg_stat_clear_snapshot(); END LOOP; END $$`);
    await processes[who].kill();
    await locker.query('ROLLBACK');
    expect(await syncing).toBe(who === 'a' ? 0 : 502);
  } finally {
    message?.drop();
    await locker.end();
  }
  await restart(who);
  await expectWhole(user, users);
});

it.each<(typeof steps)[number]>([...steps, ['a', 'batch', 2, 'pass']])('%s is killed while the %s (%i.) is on its way, which is to %s', async (who, when, nth, then) => {
  const created = nth === 1 ? 3 : 5_100;
  const user = await disagree(created);
  users += created + 2;
  const holding = proxy.hold(when, nth);
  const syncing = processes.a.post('/api/v1/sync-to-b').then((answer) => answer.status, () => 0);
  const message = await holding;
  await processes[who].kill();
  message[then]();
  // A sender that lives hears the end of it: an answer that arrived is the end, whatever became of the receiver.
  expect(await syncing).toBe(who === 'a' ? 0 : when === 'answer' && then === 'pass' ? 200 : 502);
  await restart(who);
  await expectWhole(user, users);
});
