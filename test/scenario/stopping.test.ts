/** A server that stops waits for requests under way, also for those whose callers have gone, and for nothing else. */
import { EventEmitter, once } from 'node:events';
import { connect } from 'node:net';

import { createClient } from 'graphql-ws';
import { expect, it } from 'vitest';
import WebSocket from 'ws';

import { startEdges, type Edges } from '../support/edges.ts';
import { createFake } from '../support/fake-services.ts';

it('a connection that asked for nothing holds nothing up', async () => {
  const edges = await startEdges({ closeGraceMs: 1_000_000 });
  // Once over keep-alive, once in silence.
  expect((await edges.rest('GET', '/livez')).status).toBe(200);
  const silent = connect(edges.port, '127.0.0.1');
  await once(silent, 'connect');
  // The server has taken the connection when it has answered one that came after it.
  const later = connect(edges.port, '127.0.0.1').end('GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n').resume();
  await once(later, 'close');
  const closed = once(silent, 'close');
  await edges.close();
  await closed;
});

it('what is being done for a caller that has gone is waited for', async () => {
  let finish = (): void => {};
  const work = new Promise<void>((resolve) => (finish = resolve));
  const asked = new EventEmitter();
  const edges = await startEdges({
    closeGraceMs: 1_000_000,
    peerEndpoint() {
      asked.emit('asked');
      return work;
    },
  });
  const heard = once(asked, 'asked');
  const caller = connect(edges.port, '127.0.0.1');
  caller.write('POST /replication/v1/handshake HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n');
  await heard;
  caller.destroy();
  await stopsAfter(edges, finish);
});

it('what a subscription is at is waited for, though its socket has gone', async () => {
  let finish = (): void => {};
  const work = new Promise<void>((resolve) => (finish = resolve));
  const asked = new EventEmitter();
  const fake = createFake();
  const looking: AsyncIterableIterator<never> = {
    async next() {
      asked.emit('asked');
      await work;
      return { done: true, value: undefined };
    },
    async return() {
      return { done: true, value: undefined };
    },
    [Symbol.asyncIterator]: () => looking,
  };
  fake.services.conflicts.detected = async () => looking;
  const edges = await startEdges({ closeGraceMs: 1_000_000 }, { services: fake.services });
  const client = createClient({ url: `${edges.url.replace('http', 'ws')}/graphql`, webSocketImpl: WebSocket, retryAttempts: 0 });
  const heard = once(asked, 'asked');
  client.iterate({ query: 'subscription { conflictDetected { id } }' }).next().catch(() => {});
  await heard;
  await client.dispose();
  await stopsAfter(edges, finish);
});

/** Expects a server to wait for its last work. */
async function stopsAfter(edges: Edges, finish: () => void): Promise<void> {
  const order: string[] = [];
  const closed = edges.close().then(() => order.push('closed'));
  // The server sees the caller go, and has nothing left but the work.
  await expect.poll(() => fetch(edges.url).catch(() => 'refused')).toBe('refused');
  await new Promise((resolve) => setTimeout(resolve, 100));
  order.push('done');
  finish();
  await closed;
  expect(order).toEqual(['done', 'closed']);
}
