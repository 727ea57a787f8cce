import { createClient, type Client } from 'graphql-ws';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import WebSocket from 'ws';

import { WEBSOCKET_LIMITS } from '../../src/graphql/websocket.ts';
import { startEdges, until, type Edges } from '../support/edges.ts';
import { conflictOf } from '../support/fake-services.ts';

let edges: Edges;
let client: Client;
beforeEach(async () => {
  edges = await startEdges();
  client = createClient({ url: `${edges.url.replace('http', 'ws')}/graphql`, webSocketImpl: WebSocket, retryAttempts: 0 });
});
afterEach(async () => {
  await client.dispose();
  await edges.close();
});

const next = async (stream: AsyncIterator<unknown>): Promise<unknown> => (await stream.next()).value;

/** A socket that speaks the protocol by hand. */
async function connect(): Promise<WebSocket> {
  const socket = new WebSocket(`${edges.url.replace('http', 'ws')}/graphql`, 'graphql-transport-ws');
  await new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject));
  socket.send('{"type":"connection_init"}');
  await new Promise((resolve) => socket.once('message', resolve));
  return socket;
}

describe('operations over WebSocket', () => {
  it('run queries and mutations', async () => {
    const stream = client.iterate({ query: 'mutation { createUser(input: {nom: "Ada", email: "ada@x.org"}) { nom version } }' });
    expect(await next(stream)).toEqual({ data: { createUser: { nom: 'Ada', version: { a: '1' } } } });
  });

  it('carry the codes of errors and nothing else', async () => {
    const stream = client.iterate({ query: '{ user(id: "x") { id } }' });
    expect(await next(stream)).toMatchObject({ errors: [{ extensions: { code: 'BAD_USER_INPUT', errors: [{}] } }] });
    edges.fail('user', new Error('hunter2'));
    const failed = await next(client.iterate({ query: '{ user(id: 1) { id } }' }));
    expect(failed).toMatchObject({ data: { user: null }, errors: [{ extensions: { code: 'INTERNAL_SERVER_ERROR' } }] });
    expect(JSON.stringify(failed)).not.toMatch(/hunter2|http|unexpected/);
  });

  it.each([
    ['{ nothing }', 'GRAPHQL_VALIDATION_FAILED'],
    ['{ nothing', 'GRAPHQL_PARSE_FAILED'],
    [`{ ${'__typename '.repeat(5001)} }`, 'GRAPHQL_PARSE_FAILED'],
    [`{ ${Array.from({ length: 101 }, (_, n) => `x${n}: replica { name }`).join(' ')} }`, 'GRAPHQL_VALIDATION_FAILED'],
  ])('are limited as over HTTP (%#)', async (query, code) => {
    const error = await next(client.iterate({ query })).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject([{ extensions: { code } }]);
    expect(JSON.stringify(error)).not.toContain('"http"');
  });

  it('refuse a message of more than 1 MiB', async () => {
    const socket = await connect();
    socket.send('x'.repeat(1024 * 1024 + 1));
    expect(await new Promise((resolve) => socket.once('close', resolve))).toBe(1009);
  });

  it('run a hundred at a time on one connection', async () => {
    const socket = await connect();
    const refused = new Promise((resolve) => {
      socket.on('message', (data) => {
        const message = JSON.parse(String(data)) as { id: string; type: string; payload: { extensions: object }[] };
        if (message.type === 'error') resolve([message.id, message.payload[0]?.extensions]);
      });
    });
    for (let id = 0; id <= WEBSOCKET_LIMITS.operations; id += 1) {
      socket.send(JSON.stringify({ id: String(id), type: 'subscribe', payload: { query: 'subscription { conflictResolved { id } }' } }));
    }
    expect(await refused).toEqual([String(WEBSOCKET_LIMITS.operations), { code: 'RATE_LIMITED' }]);
    expect(edges.subscribers()).toBe(WEBSOCKET_LIMITS.operations);
    socket.close();
    await until(() => edges.subscribers() === 0);
  });
});

describe('subscriptions', () => {
  it('give each conflict as it is detected, and after one those since', async () => {
    edges.detect(conflictOf('1'));
    edges.detect(conflictOf('2'));
    const stream = client.iterate({ query: 'subscription($after: ID) { conflictDetected(after: $after) { id } }', variables: { after: '1' } });
    expect(await next(stream)).toEqual({ data: { conflictDetected: { id: '2' } } });
    edges.detect(conflictOf('3'));
    expect(await next(stream)).toEqual({ data: { conflictDetected: { id: '3' } } });
  });

  it('refuse an unknown id', async () => {
    const stream = client.iterate({ query: 'subscription { conflictDetected(after: 99) { id } }' });
    expect(await next(stream)).toMatchObject({ errors: [{ extensions: { code: 'BAD_USER_INPUT' } }] });
  });

  it('end their iterator when the client unsubscribes, though nothing happens', async () => {
    const stop = client.subscribe({ query: 'subscription { conflictDetected { id } }' }, { next() {}, error() {}, complete() {} });
    await until(() => edges.subscribers() === 1);
    stop();
    await until(() => edges.subscribers() === 0);
  });

  it('end their iterator when the socket is cut', async () => {
    const socket = await connect();
    socket.send(JSON.stringify({ id: '1', type: 'subscribe', payload: { query: 'subscription { conflictResolved { id } }' } }));
    await until(() => edges.subscribers() === 1);
    socket.terminate();
    await until(() => edges.subscribers() === 0);
  });

  it('pull no more while the client does not read', async () => {
    const socket = await connect();
    const text = 'x'.repeat(100_000);
    for (let id = 1; id <= 1_000; id += 1) edges.detect(conflictOf(String(id), { resolvedValues: { text } }));
    socket.pause();
    socket.send(JSON.stringify({ id: '1', type: 'subscribe', payload: { query: 'subscription { conflictDetected(after: 1) { id resolvedValues } }' } }));
    await until(() => edges.pulls() > 0);
    let before = -1;
    while (before !== edges.pulls()) {
      before = edges.pulls();
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
    // What fits into the network's own buffers, and a message more.
    expect(before).toBeLessThan(200);
    socket.resume();
    await until(() => edges.pulls() === 999, 10_000);
    socket.terminate();
  });

  it('close with 1001 when the server does', async () => {
    const socket = await connect();
    const closed = new Promise((resolve) => socket.once('close', resolve));
    await edges.close();
    expect(await closed).toBe(1001);
  });
});
