import { request, type IncomingMessage } from 'node:http';
import { connect } from 'node:net';

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import WebSocket from 'ws';

import { createServer } from '../src/server.ts';
import { startEdges, until, type Edges } from './support/edges.ts';
import { conflictOf } from './support/fake-services.ts';

const MIB = 1024 * 1024;
let edges: Edges;
beforeEach(async () => {
  edges = await startEdges();
});
afterEach(() => edges.close());

const handle = (): void => {};

async function timed(work: Promise<unknown>): Promise<number> {
  const start = performance.now();
  await work;
  return performance.now() - start;
}

interface Answer {
  readonly status: number;
  readonly headers: IncomingMessage['headers'];
  readonly body: string;
}

/** Sends a body in pieces, of a length that is said (`content-length`) or not. */
function send(path: string, pieces: readonly (string | Buffer)[], headers: Record<string, string | number> = {}): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const outgoing = request(edges.url + path, { method: 'POST', headers: { 'content-type': 'application/json', ...headers } }, (response) => {
      let body = '';
      response.setEncoding('utf8');
      response.on('data', (text: string) => {
        body += text;
      });
      response.on('end', () => resolve({ status: response.statusCode ?? 0, headers: response.headers, body }));
    });
    outgoing.on('error', reject);
    for (const piece of pieces) outgoing.write(piece);
    outgoing.end();
  });
}

/** A document of a given number of bytes, most of it a comment. */
const documentOf = (bytes: number): string => {
  const frame = JSON.stringify({ query: '{ __typename } #' }).length;
  return JSON.stringify({ query: `{ __typename } #${'x'.repeat(bytes - frame)}` });
};

const get = (target: string, head: string): Promise<string> =>
  new Promise((resolve) => {
    const socket = connect(edges.port, '127.0.0.1', () => socket.write(`GET ${target} ${head}\r\nConnection: close\r\n\r\n`));
    let text = '';
    socket.setEncoding('utf8');
    socket.on('data', (chunk) => {
      text += String(chunk);
    });
    socket.on('close', () => resolve(text));
  });

describe('a body', () => {
  it('of 1 MiB is taken, with its length or without', async () => {
    const body = documentOf(MIB);
    expect(Buffer.byteLength(body)).toBe(MIB);
    expect((await send('/graphql', [body], { 'content-length': MIB })).body).toContain('"Query"');
    expect((await send('/graphql', [body.slice(0, 1000), body.slice(1000)])).body).toContain('"Query"');
  });

  it('in chunks reaches REST whole', async () => {
    const answer = await send('/api/v1/users', ['{"nom":"A', 'da","email":', '"ada@x.org"}']);
    expect([answer.status, JSON.parse(answer.body)]).toMatchObject([201, { nom: 'Ada' }]);
  });

  it.each<[string, Record<string, number>]>([
    ['with its length', { 'content-length': MIB + 1 }],
    ['in chunks', {}],
  ])('of more is refused, %s', async (_how, headers) => {
    const pieces = [Buffer.alloc(MIB, 0x20), Buffer.alloc(1, 0x20)];
    const graphql = await send('/graphql', pieces, headers);
    expect(graphql.status).toBe(413);
    expect(JSON.parse(graphql.body)).toMatchObject({ errors: [{ message: expect.any(String), extensions: { code: 'PAYLOAD_TOO_LARGE' } }] });
    const rest = await send('/api/v1/users', pieces, headers);
    expect(rest.headers['content-type']).toBe('application/problem+json');
    expect([rest.status, JSON.parse(rest.body)]).toMatchObject([413, { status: 413, code: 'PAYLOAD_TOO_LARGE' }]);
  });

  it('that is announced as too large is refused before any of it is sent', async () => {
    const answer = await new Promise<string>((resolve) => {
      const socket = connect(edges.port, '127.0.0.1');
      socket.setEncoding('utf8');
      socket.once('data', (text) => {
        resolve(String(text));
        socket.destroy();
      });
      socket.write(`POST /graphql HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: ${50 * MIB}\r\nExpect: 100-continue\r\n\r\n`);
    });
    expect(answer).toContain('HTTP/1.1 413');
  });

  it('that asks first is told to go on', async () => {
    const body = '{"query":"{ __typename }"}';
    const answer = await new Promise<string>((resolve) => {
      const socket = connect(edges.port, '127.0.0.1');
      let text = '';
      socket.setEncoding('utf8');
      socket.on('data', (chunk) => {
        text += String(chunk);
        if (text.includes('100 Continue') && !text.includes('200 OK')) socket.write(body);
        if (text.includes('"Query"')) {
          resolve(text);
          socket.destroy();
        }
      });
      socket.write(`POST /graphql HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\nExpect: 100-continue\r\n\r\n`);
    });
    expect(answer).toContain('200 OK');
  });

  it('is not limited for peers, whose endpoint does that itself', async () => {
    const answer = await send('/replication/changes', [Buffer.alloc(MIB), Buffer.alloc(MIB)]);
    expect(JSON.parse(answer.body)).toEqual({ path: '/replication/changes', bytes: 2 * MIB });
  });

  it('that breaks off leaves nothing behind', async () => {
    const socket = connect(edges.port, '127.0.0.1');
    socket.write('POST /graphql HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"que\r\n');
    await new Promise((resolve) => setTimeout(resolve, 50));
    socket.destroy();
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(edges.logged).toEqual([]);
    expect((await edges.rest('GET', '/livez')).status).toBe(200);
  });
});

describe('an address', () => {
  it.each([
    ['/livez', 'HTTP/1.1\r\nHost: a b'],
    ['/graphql?query={__typename}', 'HTTP/1.1\r\nHost: a b'],
    ['/graphql?query={__typename}', 'HTTP/1.1\r\nHost: x:y'],
    ['*', 'HTTP/1.1\r\nHost: x'],
    ['http://', 'HTTP/1.1\r\nHost: x'],
  ])('%s with %j is 400, and shows nothing of the inside', async (target, head) => {
    const answer = await get(target, head);
    expect(answer).toContain('HTTP/1.1 400');
    expect(answer).toContain('"code":"BAD_USER_INPUT"');
    expect(answer).not.toMatch(/node_modules|at new URL/);
    expect(edges.logged).toEqual([]);
  });

  it.each([
    ['http://elsewhere/livez', 'HTTP/1.1\r\nHost: x', '"ok"'],
    ['http://elsewhere/graphql?query={__typename}', 'HTTP/1.1\r\nHost: x', '"Query"'],
    ['/livez', 'HTTP/1.1\r\nHost: [::1]:8001', '"ok"'],
    ['/livez', 'HTTP/1.0', '"ok"'],
  ])('%s with %j is answered', async (target, head, text) => {
    expect(await get(target, head)).toContain(text);
  });
});

describe('a page of another site', () => {
  it('may not write', async () => {
    const forged = { 'sec-fetch-site': 'cross-site' };
    expect((await send('/api/v1/sync-to-b', [], forged)).status).toBe(403);
    expect(JSON.parse((await send('/graphql', ['{}'], forged)).body)).toMatchObject({ errors: [{ extensions: { code: 'FORBIDDEN' } }] });
    expect((await send('/api/v1/sync-to-b', [], { 'sec-fetch-site': 'same-origin' })).status).toBe(200);
  });

  it('may not open a WebSocket', async () => {
    const socket = new WebSocket(`${edges.url.replace('http', 'ws')}/graphql`, 'graphql-transport-ws', { headers: { 'sec-fetch-site': 'cross-site' } });
    const error = await new Promise<Error>((resolve) => socket.once('error', resolve));
    expect(error.message).toContain('403');
  });
});

describe('a WebSocket', () => {
  it('is had at /graphql only', async () => {
    const socket = new WebSocket(`${edges.url.replace('http', 'ws')}/elsewhere`);
    const error = await new Promise<Error>((resolve) => socket.once('error', resolve));
    expect(error.message).toContain('404');
  });

  it('of another subprotocol is closed with 4406', async () => {
    const socket = new WebSocket(`${edges.url.replace('http', 'ws')}/graphql`);
    expect(await new Promise((resolve) => socket.once('close', resolve))).toBe(4406);
  });
});

describe('listening', () => {
  it('fails where the port is taken', async () => {
    const other = createServer({
      graphql: { handle: async () => {}, upgrade: handle, close: async () => {} },
      rest: { handle: async () => {}, openapi: () => ({}) },
      peerEndpoint: handle,
      logger: { error() {} },
    });
    await expect(other.listen(edges.port, '127.0.0.1')).rejects.toThrow('EADDRINUSE');
  });
});

describe('closing', () => {
  it('is prompt with connections kept alive, subscriptions of both kinds, and a client that does not answer', async () => {
    await edges.rest('GET', '/livez');
    const events = await fetch(`${edges.url}/graphql?query=${encodeURIComponent('subscription { conflictDetected { id } }')}`, {
      headers: { accept: 'text/event-stream' },
    });
    const socket = new WebSocket(`${edges.url.replace('http', 'ws')}/graphql`, 'graphql-transport-ws');
    await new Promise((resolve) => socket.once('open', resolve));
    socket.send('{"type":"connection_init"}');
    await new Promise((resolve) => socket.once('message', resolve));
    socket.send(JSON.stringify({ id: '1', type: 'subscribe', payload: { query: 'subscription { conflictResolved { id } }' } }));
    await until(() => edges.subscribers() === 2);
    const silent = new WebSocket(`${edges.url.replace('http', 'ws')}/graphql`, 'graphql-transport-ws');
    await new Promise((resolve) => silent.once('open', resolve));
    silent.pause();

    const code = new Promise((resolve) => socket.once('close', resolve));
    expect(await timed(edges.close())).toBeLessThan(1_900);
    expect(await code).toBe(1001);
    await events.text();
    expect(edges.subscribers()).toBe(0);
    await expect(edges.rest('GET', '/livez')).rejects.toThrow();
  });

  it('lets a request under way finish', async () => {
    let arrive: (finish: () => void) => void = () => {};
    const arrived = new Promise<() => void>((settle) => (arrive = settle));
    const slow = await startEdges({ peerEndpoint: (_request, response) => arrive(() => response.end('done')) });
    const answer = fetch(`${slow.url}/replication/slow`).then((response) => response.text());
    const finish = await arrived;
    const closed = slow.close();
    finish();
    expect(await answer).toBe('done');
    expect(await timed(closed)).toBeLessThan(500);
  });

  it('cuts one that does not', async () => {
    const stuck = await startEdges({ peerEndpoint: () => {}, closeGraceMs: 100 });
    const answer = fetch(`${stuck.url}/replication/stuck`).catch(() => 'cut');
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(await timed(stuck.close())).toBeLessThan(1_000);
    expect(await answer).toBe('cut');
  });

  it('may be asked for twice', async () => {
    edges.detect(conflictOf('1'));
    await edges.close();
    await edges.close();
  });
});
