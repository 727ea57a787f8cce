/** Several gateways over one database, under SYNC_MODE=continuous: one sends, all tell the same, each takes everything. */
import { createClient, type Client } from 'graphql-ws';
import { afterEach, describe, expect, it } from 'vitest';
import WebSocket from 'ws';

import { startFleet, type Fleet, type FleetReplica } from '../support/fleet.ts';

const live = { syncMode: 'continuous' } as const;
/** Two gateways of a, and one of b. */
const TWO = { a: { ...live, peers: ['b'] }, a2: { ...live, name: 'a', slot: 1, sharing: 'a', peers: ['b'] }, b: { ...live, peers: ['a'] } } as const;

let fleet: Fleet;
const clients: Client[] = [];
afterEach(async () => {
  await Promise.all(clients.splice(0).map((client) => client.dispose()));
  await fleet.close();
});

async function eventually<T>(ask: () => Promise<T>, wanted: (answer: T) => boolean): Promise<T> {
  for (;;) {
    const answer = await ask();
    if (wanted(answer)) return answer;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

interface Status {
  readonly leading: boolean;
  readonly peers: readonly { readonly name: string; readonly url: string; readonly state: string; readonly pendingChanges: number; readonly lastSyncAt: string | null; readonly consistency: number | null }[];
}
const statusOf = async (on: FleetReplica): Promise<Status> =>
  (await on.graphql<{ replica: Status }>('{ replica { leading peers { name url state pendingChanges lastSyncAt consistency } } }')).data?.replica as Status;
const countUsers = async (on: FleetReplica): Promise<number> => Number((await on.sql<{ count: string }>('SELECT count(*) FROM users'))[0]?.count);
const create = async (on: FleetReplica, nom: string): Promise<void> => {
  expect((await on.rest('POST', '/api/v1/users', { nom, email: `${nom}@x.org` })).status).toBe(201);
};
const syncsOf = async (on: FleetReplica): Promise<number> => (await on.metrics()).get('replication_syncs_total{peer="b",outcome="success"}') ?? -1;

/** The gateways of a, the one that leads first. */
async function gatewaysOfA(): Promise<[FleetReplica, FleetReplica]> {
  const both = [fleet.of('a'), fleet.of('a2')] as [FleetReplica, FleetReplica];
  const leading = await Promise.all(both.map(async (each) => (await statusOf(each)).leading));
  expect(leading.filter(Boolean)).toHaveLength(1);
  return leading[0] ? both : [both[1], both[0]];
}

describe('two gateways of one replica', () => {
  it('take writes alike, and one of them alone sends them', async () => {
    fleet = await startFleet(TWO);
    const [leader, other] = await gatewaysOfA();
    for (let i = 0; i < 6; i++) await create(i % 2 === 0 ? leader : other, `n${i}`);
    await eventually(() => countUsers(fleet.of('b')), (count) => count === 6);
    expect(await syncsOf(other)).toBe(0);
    expect(await syncsOf(leader)).toBeGreaterThan(0);
    expect((await leader.metrics()).get('replication_leading')).toBe(1);
    expect((await other.metrics()).get('replication_leading')).toBe(0);
    // What is told to do something does it, leading or not.
    expect((await other.rest('POST', '/api/v1/sync-to-b')).status).toBe(200);
    expect(await syncsOf(other)).toBe(1);
  });

  it('hand the lead over when the leader stops, and what waits is sent', async () => {
    fleet = await startFleet(TWO);
    const [leader, other] = await gatewaysOfA();
    await leader.stop();
    await create(other, 'ada');
    await eventually(() => countUsers(fleet.of('b')), (count) => count === 1);
    expect((await statusOf(other)).leading).toBe(true);
    await leader.start();
    expect((await statusOf(leader)).leading).toBe(false);
  });

  it('hand the lead over when its session is ended, and only one has it afterwards', async () => {
    fleet = await startFleet(TWO);
    const [leader, other] = await gatewaysOfA();
    await leader.sql(`SELECT pg_terminate_backend(pid) FROM replication.leader`);
    await eventually(() => statusOf(other), ({ leading }) => leading);
    await eventually(() => statusOf(leader), ({ leading }) => !leading);
    await create(leader, 'ada');
    await eventually(() => countUsers(fleet.of('b')), (count) => count === 1);
  });

  it('tell the same of a peer, through outage and return, whichever is asked', async () => {
    fleet = await startFleet(TWO);
    const [leader, other] = await gatewaysOfA();
    const b = fleet.of('b');
    const both = async () => Promise.all([leader, other].map(async (each) => (await statusOf(each)).peers[0]));
    await eventually(both, (told) => told.every((peer) => peer?.state === 'CONNECTED' && peer.consistency === 1));
    // Nothing is to be sent, and still it is missed.
    fleet.of('b').cut();
    fleet.of('a').cut();
    await eventually(both, (told) => told.every((peer) => peer?.state === 'UNREACHABLE'));
    await create(other, 'ada');
    await eventually(both, (told) => told.every((peer) => peer?.pendingChanges === 1));
    b.heal();
    await eventually(both, (told) => told.every((peer) => peer?.state === 'CONNECTED' && peer.pendingChanges === 0));
    expect(await countUsers(b)).toBe(1);
  });

  it('both tell their subscribers of every conflict, once, whichever detects it', async () => {
    fleet = await startFleet(TWO);
    const [leader, other] = await gatewaysOfA();
    const b = fleet.of('b');
    for (let i = 0; i < 8; i++) await create(leader, `n${i}`);
    await eventually(() => countUsers(b), (count) => count === 8);
    const seen = await Promise.all(
      [leader, other].map(async (on) => {
        const client = createClient({ url: `${on.url.replace('http', 'ws')}/graphql`, webSocketImpl: WebSocket, retryAttempts: 0, lazy: true });
        clients.push(client);
        const told: string[] = [];
        const stream = client.iterate<{ conflictDetected: { recordId: string } }>({ query: 'subscription { conflictDetected { recordId } }' });
        void (async () => {
          for await (const { data } of stream) told.push(data?.conflictDetected.recordId ?? '');
        })();
        await client.iterate({ query: '{ conflicts(first: 1) { id } }' }).next();
        return told;
      }),
    );
    b.cut();
    fleet.of('a').cut();
    await leader.sql(`UPDATE users SET telephone = 'a'`);
    await b.sql(`UPDATE users SET telephone = 'b'`);
    b.heal();
    fleet.of('a').heal();
    for (const told of seen) await eventually(async () => told.length, (count) => count >= 8);
    const ids = (await leader.sql<{ id: number }>('SELECT id FROM users')).map(({ id }) => String(id)).toSorted();
    for (const told of seen) expect(told.toSorted()).toEqual(ids);
  });
});
