/** Syncs at once, in both directions, from two processes, while writers write: nothing waits for ever, nothing is lost. */
import { createClient } from 'graphql-ws';
import { afterEach, describe, expect, it } from 'vitest';
import WebSocket from 'ws';

import { ResolveConflictsDocument, SyncToDocument, UpdateUserDocument } from '../../src/generated/graphql/graphql.ts';
import { startFleet, type Fleet, type FleetReplica } from '../support/fleet.ts';

let fleet: Fleet | undefined;
afterEach(() => fleet?.close());

const sync = async (on: FleetReplica, peer: string) => (await on.run(SyncToDocument, { peer })).syncTo;
const USERS = `SELECT id, nom, email, telephone, created_at FROM users ORDER BY id`;
const STATES = `SELECT model, key, hash FROM replication.record ORDER BY model, key COLLATE "C"`;
const fill = (on: FleetReplica, count: number) =>
  on.sql(`INSERT INTO users (nom, email) SELECT 'N', '${on.name}' || n || '@x.org' FROM generate_series(1, $1) n RETURNING id`, [count]);

/** Writes to a replica until told to stop, through its API; how often the database took it. */
async function writeUntil(on: FleetReplica, ids: readonly number[], stopped: () => boolean): Promise<number> {
  let n = 0;
  while (!stopped()) {
    const id = ids[n % ids.length];
    const { status } = await on.rest('PUT', `/api/v1/users/${id}`, { telephone: `${on.name}${n}` });
    expect(status).toBe(200);
    n++;
  }
  return n;
}

/** Both tables the same, both states the same. */
async function expectConverged(replicas: readonly FleetReplica[], tables = true): Promise<void> {
  const [first, ...others] = replicas as [FleetReplica, ...FleetReplica[]];
  const states = await first.sql(STATES);
  const users = await first.sql(USERS);
  for (const replica of others) {
    expect(await replica.sql(STATES)).toEqual(states);
    if (tables) expect(await replica.sql(USERS)).toEqual(users);
  }
}

/** Locks a user's row as an open transaction of somebody else does. */
async function holdRow(on: FleetReplica, id: string): Promise<{ readonly free: () => void; readonly held: Promise<void> }> {
  let free = (): void => {};
  const freed = new Promise<void>((resolve) => (free = resolve));
  let hold = (): void => {};
  const held = new Promise<void>((resolve) => (hold = resolve));
  void on.session(async (client) => {
    await client.query('BEGIN');
    await client.query('SELECT FROM users WHERE id = $1 FOR UPDATE', [id]);
    hold();
    await freed;
    await client.query('COMMIT');
  });
  return { free, held };
}

describe('two replicas', () => {
  it('sync in both directions at once, again and again, while both are written to', async () => {
    fleet = await startFleet({ a: {}, b: {} });
    const [a, b] = [fleet.of('a'), fleet.of('b')];
    const ids = (await fill(a, 30)).map(({ id }) => Number(id));
    await sync(a, 'b');
    let done = false;
    const writers = [a, b].map((replica, i) => writeUntil(replica, ids.slice(i * 15, i * 15 + 15), () => done));
    for (let round = 0; round < 20; round++) await Promise.all([sync(a, 'b'), sync(b, 'a')]);
    done = true;
    const written = await Promise.all(writers);
    expect(Math.min(...written)).toBeGreaterThan(0);
    await sync(a, 'b');
    await sync(b, 'a');
    expect(await a.sql(`SELECT FROM replication.conflict`)).toEqual([]);
    await expectConverged([a, b]);
    // The last write of each writer is there.
    const last = [a, b].map((replica, i) => `${replica.name}${(written[i] ?? 0) - 1}`);
    const shown = (await a.sql<{ telephone: string }>(USERS)).map(({ telephone }) => telephone);
    expect(shown).toEqual(expect.arrayContaining(last));
    for (const [from, to] of [[a, 'b'], [b, 'a']] as const) expect(await sync(from, to)).toMatchObject({ sent: 0 });
  });

  it('lose no side where both write the same records meanwhile and somebody resolves on each', async () => {
    fleet = await startFleet({ a: {}, b: {} });
    const [a, b] = [fleet.of('a'), fleet.of('b')];
    const ids = (await fill(a, 10)).map(({ id }) => Number(id));
    await sync(a, 'b');
    let done = false;
    const writers = [a, b].map((replica) => writeUntil(replica, ids, () => done));
    for (let round = 0; round < 6; round++) {
      await Promise.all([
        sync(a, 'b'),
        sync(b, 'a'),
        a.run(ResolveConflictsDocument, { strategy: 'LATEST' }),
        b.run(ResolveConflictsDocument, { strategy: 'FIELD_WISE' }),
      ]);
    }
    done = true;
    await Promise.all(writers);
    await sync(a, 'b');
    await sync(b, 'a');
    await expectConverged([a, b], false);
    const pending = (on: FleetReplica) => on.sql(`SELECT model, key FROM replication.conflict WHERE status = 'PENDING' ORDER BY key`);
    expect(await pending(b)).toEqual(await pending(a));
    await a.run(ResolveConflictsDocument, { strategy: 'LATEST' });
    await expectConverged([a, b]);
    expect([await pending(a), await pending(b)]).toEqual([[], []]);
  });

  it('share one load of syncs to the same peer', async () => {
    fleet = await startFleet({ a: {}, b: {} });
    const [a, b] = [fleet.of('a'), fleet.of('b')];
    await fill(a, 500);
    const results = await Promise.all(Array.from({ length: 8 }, () => sync(a, 'b')));
    expect(results.map(({ sent }) => sent).toSorted((x, y) => y - x)).toEqual([500, 0, 0, 0, 0, 0, 0, 0]);
    await expectConverged([a, b]);
  });

  it('answer everybody though more ask at once than there are connections', async () => {
    fleet = await startFleet({ a: {}, b: {} });
    const [a, b] = [fleet.of('a'), fleet.of('b')];
    const ids = (await fill(a, 60)).map(({ id }) => String(id));
    await sync(a, 'b');
    for (const replica of [a, b]) await replica.sql('UPDATE users SET telephone = $1', [replica.name]);
    await sync(a, 'b');
    const versions = new Map(
      ((await a.graphql<{ users: { id: string; version: Record<string, string> }[] }>('{ users { id version } }')).data?.users ?? []).map(({ id, version }) => [id, version]),
    );
    const conflicts = (await a.graphql<{ conflicts: { id: string; recordId: string }[] }>('{ conflicts { id recordId } }')).data?.conflicts ?? [];
    expect(conflicts).toHaveLength(60);
    // An update that expects a version comes to wait for its row, behind it the resolution of that user's conflict, which lets no other change of state go first, and behind
    // that one so many others that no connection is left.
    const id = ids[0] ?? '';
    const waiting = (on: string, count: number) =>
      expect.poll(async () => (await a.sql(`SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event = $1`, [on])).length, { timeout: 20_000 }).toBeGreaterThanOrEqual(count);
    const resolve = (user: string) => {
      const conflict = conflicts.find(({ recordId }) => recordId === user)?.id;
      return a.codes('mutation($id: ID!) { resolveConflict(id: $id, chosenVersion: "b") { id } }', { id: conflict });
    };
    const { free, held } = await holdRow(a, id);
    await held;
    const update = a.codes(UpdateUserDocument.toString(), { id, input: { nom: 'X' }, expectedVersion: versions.get(id) });
    await waiting('transactionid', 1);
    const first = resolve(id);
    await waiting('tuple', 1);
    const others = ids.slice(1, 30).map(resolve);
    await waiting('advisory', 7);
    free();
    expect(await update).toEqual([]);
    expect((await Promise.all([first, ...others])).flat()).toEqual([]);
    await sync(a, 'b');
    await expectConverged([a, b], false);
  });
});

describe('two processes of one replica', () => {
  it('both send to the same peer, and nothing is lost or doubled', async () => {
    fleet = await startFleet({ a: { peers: ['b'] }, b: { peers: ['a'] }, a2: { name: 'a', slot: 1, sharing: 'a', peers: ['b'] } });
    const [a, a2, b] = [fleet.of('a'), fleet.of('a2'), fleet.of('b')];
    const ids = (await fill(a, 40)).map(({ id }) => Number(id));
    let done = false;
    const writers = [writeUntil(a, ids.slice(0, 20), () => done), writeUntil(a2, ids.slice(20), () => done)];
    for (let round = 0; round < 8; round++) {
      const created = a2.rest('POST', '/api/v1/users', { nom: 'New', email: `new${round}@x.org` });
      await Promise.all([sync(a, 'b'), sync(a2, 'b'), sync(b, 'a'), created]);
    }
    done = true;
    await Promise.all(writers);
    await sync(a2, 'b');
    await expectConverged([a, b]);
    expect(await b.sql('SELECT FROM users')).toHaveLength(48);
    expect(await sync(a, 'b')).toMatchObject({ sent: 0 });
    expect(await b.sql('SELECT FROM replication.conflict')).toEqual([]);
    // What one detects the other lists.
    await Promise.all([a2, b].map((replica) => replica.rest('PUT', `/api/v1/users/${ids[0]}`, { nom: replica.name })));
    expect(await sync(a2, 'b')).toMatchObject({ conflictsDetected: 1 });
    expect((await a.rest<unknown[]>('GET', '/api/v1/conflicts?status=pending')).body).toHaveLength(1);
  });

  it('tell the subscribers of both what either detects and resolves', async () => {
    fleet = await startFleet({ a: { peers: ['b'] }, b: { peers: ['a'] }, a2: { name: 'a', slot: 1, sharing: 'a', peers: ['b'] } });
    const [a, a2, b] = [fleet.of('a'), fleet.of('a2'), fleet.of('b')];
    const [first] = await fill(a, 1);
    await sync(a, 'b');
    const client = createClient({ url: `${a2.url.replace('http', 'ws')}/graphql`, webSocketImpl: WebSocket, retryAttempts: 0 });
    try {
      const detected = client.iterate({ query: 'subscription { conflictDetected { id } }' }).next();
      const resolved = client.iterate({ query: 'subscription { conflictResolved { id } }' }).next();
      await client.iterate({ query: '{ conflicts { id } }' }).next();
      for (const replica of [a, b]) await replica.rest('PUT', `/api/v1/users/${first?.id}`, { nom: replica.name });
      expect(await sync(a, 'b')).toMatchObject({ conflictsDetected: 1 });
      expect((await detected).value).toMatchObject({ data: { conflictDetected: { id: '1' } } });
      await a.rest('POST', '/api/v1/resolve-conflicts', { strategy: 'latest' });
      expect((await resolved).value).toMatchObject({ data: { conflictResolved: { id: '1' } } });
    } finally {
      await client.dispose();
    }
  });
});
