/** SYNC_MODE=continuous: changes travel by themselves. Every wait here is for an event or a state, never for a time. */
import { afterEach, describe, expect, it } from 'vitest';

import { startFleet, type Fleet, type FleetReplica } from '../support/fleet.ts';

interface User {
  readonly id: number;
  readonly nom: string;
  readonly email: string;
  readonly telephone: string | null;
}

const live = { syncMode: 'continuous' } as const;
let fleet: Fleet;

afterEach(() => fleet.close());

/** Asks until the answer is as wanted; the test's own timeout ends it otherwise. */
async function eventually<T>(ask: () => Promise<T>, wanted: (answer: T) => boolean): Promise<T> {
  for (;;) {
    const answer = await ask();
    if (wanted(answer)) return answer;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

async function usersOf(replica: FleetReplica): Promise<User[]> {
  const users: User[] = [];
  for (;;) {
    const { body } = await replica.rest<User[]>('GET', `/api/v1/users?first=1000&after=${users.at(-1)?.id ?? ''}`.replace(/&after=$/, ''));
    users.push(...body);
    if (body.length < 1000) return users;
  }
}

const shown = async (replica: FleetReplica): Promise<string> => JSON.stringify((await usersOf(replica)).map(({ id, nom, email, telephone }) => [id, nom, email, telephone]));

async function create(replica: FleetReplica, nom: string): Promise<User> {
  const { body, status } = await replica.rest<User>('POST', '/api/v1/users', { nom, email: `${nom}@x.org` });
  expect(status).toBe(201);
  return body;
}

describe('a write', () => {
  it('through the API, by SQL, and of a peer two links away arrives everywhere', async () => {
    fleet = await startFleet({ a: { ...live, peers: ['b'] }, b: { ...live, peers: ['a', 'c'] }, c: { ...live, peers: ['b'] } });
    const [a, b, c] = ['a', 'b', 'c'].map((name) => fleet.of(name)) as [FleetReplica, FleetReplica, FleetReplica];
    await create(a, 'ada');
    await c.sql(`INSERT INTO users (nom, email) VALUES ('cleo', 'cleo@x.org')`);
    for (const replica of [a, b, c]) await eventually(() => usersOf(replica), (users) => users.length === 2);
    await b.rest('DELETE', '/api/v1/users/1');
    for (const replica of [a, c]) await eventually(() => usersOf(replica), (users) => users.length === 1);
  });

  it('is pushed by itself, and says nothing more once all is still', async () => {
    fleet = await startFleet({ a: live, b: live });
    const [a, b] = [fleet.of('a'), fleet.of('b')];
    for (let i = 0; i < 20; i++) await create(i % 2 === 0 ? a : b, `n${i}`);
    for (const replica of [a, b]) await eventually(() => usersOf(replica), (users) => users.length === 20);
    expect((await a.rest<{ sent: number }>('POST', '/api/v1/sync-to-b')).body.sent).toBe(0);
    expect((await b.rest<{ sent: number }>('POST', '/api/v1/sync-to-a')).body.sent).toBe(0);
  });
});

describe('a peer that is away', () => {
  it('slows nobody, gets all when it is back, and its state is told truly', async () => {
    fleet = await startFleet({ a: live, b: live, c: live });
    const [a, b, c] = [fleet.of('a'), fleet.of('b'), fleet.of('c')];
    const peer = async (name: string) => {
      const { data } = await a.graphql<{ replica: { peers: { name: string; state: string; pendingChanges: number }[] } }>('{ replica { peers { name state pendingChanges } } }');
      return data?.replica.peers.find((each) => each.name === name);
    };
    await eventually(() => peer('b'), (found) => found?.state === 'CONNECTED');
    b.cut();
    await create(a, 'ada');
    await create(a, 'bob');
    await eventually(() => usersOf(c), (users) => users.length === 2);
    await eventually(() => peer('b'), (found) => found?.state === 'UNREACHABLE' && found.pendingChanges === 2);
    b.heal();
    await eventually(() => usersOf(b), (users) => users.length === 2);
    await eventually(() => peer('b'), (found) => found?.state === 'CONNECTED' && found.pendingChanges === 0);
  });

  it('is caught up with after its own restart, and after ours', async () => {
    fleet = await startFleet({ a: live, b: live });
    const [a, b] = [fleet.of('a'), fleet.of('b')];
    await create(a, 'ada');
    await eventually(() => usersOf(b), (users) => users.length === 1);
    await b.stop();
    await create(a, 'bob');
    await b.start();
    await eventually(() => usersOf(b), (users) => users.length === 2);
    await a.stop();
    await create(b, 'cyd');
    await a.start();
    await eventually(() => usersOf(a), (users) => users.length === 3);
  });
});

describe.each(['manual', 'latest', 'field-wise'] as const)('concurrent writes under %s', (conflictPolicy) => {
  it('are conflicts on every replica of a mesh, and end in one state', async () => {
    const member = { ...live, conflictPolicy };
    fleet = await startFleet({ a: member, b: member, c: member });
    const all = ['a', 'b', 'c'].map((name) => fleet.of(name)) as [FleetReplica, FleetReplica, FleetReplica];
    const [a, b, c] = all;
    const { id } = await create(a, 'ada');
    for (const replica of all) await eventually(() => usersOf(replica), (users) => users.length === 1);
    for (const replica of all) replica.cut();
    await a.rest('PUT', `/api/v1/users/${id}`, { nom: 'from a' });
    await b.rest('PUT', `/api/v1/users/${id}`, { telephone: 'from b' });
    await c.rest('PUT', `/api/v1/users/${id}`, { nom: 'from c' });
    for (const replica of all) replica.heal();
    const conflicts = (replica: FleetReplica) => replica.rest<{ status: string; version_a: unknown; version_b: unknown; version_c: unknown }[]>('GET', '/api/v1/conflicts');
    for (const replica of all) {
      await eventually(() => conflicts(replica), ({ body }) => body.some((each) => 'version_a' in each && 'version_b' in each && 'version_c' in each));
    }
    if (conflictPolicy === 'manual') {
      const { body } = await b.rest('POST', '/api/v1/resolve-conflicts', { strategy: 'field-wise' });
      expect(body).toMatchObject({ resolved: 1, remaining: 0 });
    }
    const expected = JSON.stringify([[id, 'from c', 'ada@x.org', conflictPolicy === 'latest' ? null : 'from b']]);
    for (const replica of all) {
      await eventually(() => shown(replica), (text) => text === expected);
      await eventually(() => conflicts(replica), ({ body }) => body.every(({ status }) => status === 'resolved'));
    }
  });
});

it('writers on every replica at once, through cuts: all end with the same', async () => {
  fleet = await startFleet({ a: { ...live, conflictPolicy: 'field-wise' }, b: { ...live, conflictPolicy: 'field-wise' }, c: { ...live, conflictPolicy: 'field-wise' } });
  const all = ['a', 'b', 'c'].map((name) => fleet.of(name));
  await Promise.all(
    all.map(async (replica, index) => {
      for (let i = 0; i < 60; i++) {
        await create(replica, `${replica.name}${i}`);
        const { body } = await replica.rest<User[]>('GET', '/api/v1/users?first=5');
        for (const { id } of body.slice(0, 2)) await replica.rest('PUT', `/api/v1/users/${id}`, { telephone: `${replica.name} ${i}` });
        if (i % 20 === index * 5) replica.cut();
        if (i % 20 === index * 5 + 5) replica.heal();
      }
      replica.heal();
    }),
  );
  for (const replica of all) await eventually(() => usersOf(replica), (users) => users.length === 180);
  await eventually(async () => new Set(await Promise.all(all.map(shown))).size, (different) => different === 1);
});
