/** Peers that come and go while the replicas run, and one that takes connections and never answers. */
import { createServer, type AddressInfo, type Server } from 'node:net';
import { once } from 'node:events';

import { afterEach, describe, expect, it } from 'vitest';

import { startFleet, type Fleet, type FleetReplica } from '../support/fleet.ts';

const live = { syncMode: 'continuous' } as const;
let fleet: Fleet;
let silent: Server | null = null;
afterEach(async () => {
  await fleet.close();
  silent?.close();
  silent = null;
});

async function eventually<T>(ask: () => Promise<T>, wanted: (answer: T) => boolean): Promise<T> {
  for (;;) {
    const answer = await ask();
    if (wanted(answer)) return answer;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

const ADD = 'mutation($name: String!, $url: String!) { addPeer(name: $name, url: $url) { name url state } }';
const REMOVE = 'mutation($name: String!) { removePeer(name: $name) { name url } }';
const add = async (on: FleetReplica, peer: FleetReplica) => (await on.graphql(ADD, { name: peer.name, url: peer.peerUrl })).data;
const peersOf = async (on: FleetReplica) =>
  (await on.graphql<{ replica: { peers: { name: string; state: string }[] } }>('{ replica { peers { name state } } }')).data?.replica.peers ?? [];
const create = async (on: FleetReplica, nom: string): Promise<void> => {
  expect((await on.rest('POST', '/api/v1/users', { nom, email: `${nom}@x.org` })).status).toBe(201);
};
const STATES = 'SELECT key, hash FROM replication.record ORDER BY key';
const states = async (on: FleetReplica): Promise<string> => JSON.stringify(await on.sql(STATES));

describe('a replica that is added to running ones', () => {
  it('with writes of its own, while they are written to: all end with the same, and none is lost', async () => {
    fleet = await startFleet({ a: { ...live, peers: ['b'] }, b: { ...live, peers: ['a'] }, c: { ...live, peers: [] } });
    const [a, b, c] = ['a', 'b', 'c'].map((name) => fleet.of(name)) as [FleetReplica, FleetReplica, FleetReplica];
    for (let i = 0; i < 10; i++) await create(c, `c${i}`);
    let written = 10;
    const progress = { joined: false };
    const writers = [a, b, c].map(async (on) => {
      for (let i = 0; i < 10 || !progress.joined; i++) {
        await create(on, `${on.name}w${i}`);
        written++;
      }
    });
    for (const [on, peer] of [[a, c], [c, a], [b, c], [c, b]] as const) {
      expect(await add(on, peer)).toMatchObject({ addPeer: { name: peer.name, url: peer.peerUrl } });
    }
    progress.joined = true;
    await Promise.all(writers);
    for (const on of [a, b, c]) await eventually(() => on.sql('SELECT FROM users'), ({ length }) => length === written);
    await eventually(async () => new Set(await Promise.all([a, b, c].map(states))).size, (different) => different === 1);
    expect((await peersOf(a)).map(({ name }) => name)).toEqual(['b', 'c']);
    await eventually(() => peersOf(a), (peers) => peers.every(({ state }) => state === 'CONNECTED'));
    expect(await a.sql('SELECT FROM replication.conflict')).toEqual([]);
  });

  it('is followed by the other gateway, kept by a restart, and gone once removed: nothing is sent to it any more', async () => {
    fleet = await startFleet({ a: { ...live, peers: [] }, a2: { ...live, name: 'a', slot: 1, sharing: 'a', peers: [] }, b: { ...live, peers: [] } });
    const [a, a2, b] = ['a', 'a2', 'b'].map((name) => fleet.of(name)) as [FleetReplica, FleetReplica, FleetReplica];
    const counter = 'replication_syncs_total{peer="b",outcome="success"}';
    await add(a2, b);
    await eventually(() => a.metrics(), (metrics) => metrics.has(counter));
    await create(a, 'ada');
    await eventually(() => b.sql('SELECT FROM users'), ({ length }) => length === 1);
    await a.stop();
    await a.start();
    expect((await peersOf(a)).map(({ name }) => name)).toEqual(['b']);

    expect((await a.graphql(REMOVE, { name: 'b' })).data).toMatchObject({ removePeer: { name: 'b', url: b.peerUrl } });
    for (const on of [a, a2]) {
      expect(await peersOf(on)).toEqual([]);
      await eventually(() => on.metrics(), (metrics) => !metrics.has(counter));
      expect(await on.codes('mutation { syncTo(peer: "b") { sent } }')).toEqual(['UNKNOWN_PEER']);
    }
    // A peer that is added later gets what b does not.
    await create(a, 'bob');
    await create(a2, 'cyd');
    const silence = b.sql('SELECT FROM users');
    expect(await silence).toHaveLength(1);
    expect([...(await a.metrics()).keys(), ...(await a2.metrics()).keys()].filter((name) => name.includes('peer="b"'))).toEqual([]);
    await add(a, b);
    await eventually(() => b.sql('SELECT FROM users'), ({ length }) => length === 3);
  });

  it('by PEERS comes back at a restart, though it was removed', async () => {
    fleet = await startFleet({ a: { peers: ['b'] }, b: { peers: [] } });
    const a = fleet.of('a');
    await a.graphql(REMOVE, { name: 'b' });
    expect(await peersOf(a)).toEqual([]);
    await a.stop();
    await a.start();
    expect((await peersOf(a)).map(({ name }) => name)).toEqual(['b']);
  });
});

it('what cannot be a peer is refused, and says why', async () => {
  fleet = await startFleet({ a: { peers: ['b'] }, b: { peers: [], peerSecret: 's3cret' } });
  const [a, b] = [fleet.of('a'), fleet.of('b')];
  const code = async (name: string, url: string) => (await a.codes(ADD, { name, url }))[0];
  expect(await code('no name', 'http://c')).toBe('BAD_USER_INPUT');
  expect(await code('c', 'ftp://c')).toBe('BAD_USER_INPUT');
  expect(await code('c', 'http://user:word@c')).toBe('BAD_USER_INPUT');
  expect(await code('a', 'http://c')).toBe('BAD_USER_INPUT');
  expect(await code('b', 'http://elsewhere')).toBe('PEER_EXISTS');
  expect(await code('c', b.peerUrl)).toBe('PEER_EXISTS');
  expect(await code('b', `${b.peerUrl}/`)).toBeUndefined();
  expect(await a.codes(REMOVE, { name: 'c' })).toEqual(['UNKNOWN_PEER']);
  // Who names a peer is sent the secret there.
  expect(await b.codes(ADD, { name: 'c', url: 'http://c' })).toEqual(['UNAUTHENTICATED']);
  const response = await fetch(`${b.url}/graphql`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', authorization: 'Bearer s3cret' },
    body: JSON.stringify({ query: ADD, variables: { name: 'c', url: 'http://127.0.0.1:1' } }),
  });
  expect(await response.json()).toMatchObject({ data: { addPeer: { name: 'c' } } });
  expect((await peersOf(b)).map(({ name }) => name)).toEqual(['c']);
});

it('a peer that takes connections and never answers slows neither the others nor writers, and is said to be away', async () => {
  silent = createServer((socket) => void socket.on('error', () => {}));
  silent.listen(0, '127.0.0.1');
  await once(silent, 'listening');
  const url = `http://127.0.0.1:${(silent.address() as AddressInfo).port}`;
  fleet = await startFleet({ a: { ...live, peers: ['b', 'c'] }, b: { ...live, peers: ['a'] }, c: { ...live, peers: [] } }, { urls: { c: url } });
  const [a, b] = [fleet.of('a'), fleet.of('b')];
  const stateOf = async (name: string) => (await peersOf(a)).find((peer) => peer.name === name)?.state;
  // It has not been given up when b has everything.
  for (let i = 0; i < 5; i++) {
    await create(a, `n${i}`);
    await eventually(() => b.sql('SELECT FROM users'), ({ length }) => length === i + 1);
  }
  expect(await stateOf('b')).toBe('CONNECTED');
  await eventually(() => stateOf('c'), (state) => state === 'UNREACHABLE');
  for (let i = 5; i < 10; i++) {
    await create(a, `n${i}`);
    await eventually(() => b.sql('SELECT FROM users'), ({ length }) => length === i + 1);
  }
});
