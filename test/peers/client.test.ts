/** A peer that misbehaves: each call ends in a coded error that says what happened, whatever comes back. */
import { createServer, type RequestListener, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';

import { afterEach, describe, expect, it } from 'vitest';

import { SyncToDocument } from '../../src/generated/graphql/graphql.ts';
import { createPeerClient, PeerRejectedError, PeerUnreachableError, type PeerClient } from '../../src/peers/client.ts';
import type { OutgoingChanges, HandshakeRequest } from '../../src/replication/protocol.ts';
import { startFleet, type Fleet } from '../support/fleet.ts';

let server: Server | undefined;
let fleet: Fleet | undefined;
afterEach(async () => {
  await fleet?.close();
  fleet = undefined;
  server?.closeAllConnections();
  await new Promise((resolve) => (server ? server.close(resolve) : resolve(undefined)));
  server = undefined;
});

async function serve(listener: RequestListener): Promise<string> {
  server = createServer(listener);
  await new Promise<void>((resolve) => server?.listen(0, '127.0.0.1', resolve));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}
const clientOf = async (listener: RequestListener, patience?: { handshake: number; changes: number }): Promise<PeerClient> =>
  createPeerClient({ name: 'b', url: await serve(listener), secret: 's3cret', ...(patience && { patience }) });
const answers = (status: number, type: string, body: string): RequestListener => (_request, response) => {
  response.writeHead(status, { 'content-type': type }).end(body);
};
/** What is sent does not matter here. */
const HANDSHAKE = {} as HandshakeRequest;
const CHANGES = { protocol: 1, sender: { name: 'a', id: '', incarnation: '1' }, receiver: '1', start: null, end: { incarnation: '1', position: 1 }, more: false, records: '' } satisfies OutgoingChanges;
const failure = (call: Promise<unknown>): Promise<unknown> => call.then(() => null, (error: unknown) => error);

const CHANGED = { applied: 0, skipped: 0, detected: [], records: [] };

it('a peer that has a batch says so before it answers, where it is asked to', async () => {
  const headers: unknown[] = [];
  const client = await clientOf((request, response) => {
    headers.push(request.headers['replique-ahead']);
    response.writeProcessing();
    setTimeout(() => response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(CHANGED)), 100);
  });
  const told: string[] = [];
  await client.changes(CHANGES, undefined, () => told.push('taken')).then(() => told.push('answered'));
  expect(await client.changes(CHANGES)).toEqual(CHANGED);
  expect([told, headers]).toEqual([['taken', 'answered'], ['1', undefined]]);
});

describe('an answer that is none', () => {
  it.each<[string, RequestListener, RegExp]>([
    ['a page', answers(200, 'text/html', '<html>hello</html>'), /answered the changes with what is not of the protocol/],
    ['nothing', answers(200, 'application/json', ''), /not of the protocol/],
    ['half of one', answers(200, 'application/json', JSON.stringify(CHANGED).slice(0, 20)), /not of the protocol/],
    ['null', answers(200, 'application/json', 'null'), /not of the protocol/],
    ['other JSON', answers(200, 'application/json', '{"ok":true}'), /not of the protocol \(applied/],
    ['a surplus member', answers(200, 'application/json', JSON.stringify({ ...CHANGED, x: 1 })), /not of the protocol/],
    ['a negative count', answers(200, 'application/json', JSON.stringify({ ...CHANGED, applied: -1 })), /applied/],
    ['a record without versions', answers(200, 'application/json', JSON.stringify({ ...CHANGED, records: [['User', '1', []]] })), /records/],
    ['a stamp that is not safe', answers(200, 'application/json', '{"applied":0,"skipped":0,"detected":[],"records":[["User","1",[{"v":{"b.1":9e15},"f":null,"s":{}}]]]}'), /records/],
    ['a NUL', answers(200, 'application/json', JSON.stringify({ ...CHANGED, records: [['User', '1\0', [{ v: { 'b.1': 1 }, f: null, s: {} }]]] })), /records/],
    ['a vector of __proto__', answers(200, 'application/json', '{"applied":0,"skipped":0,"detected":[],"records":[["User","1",[{"v":{"__proto__":1},"f":null,"s":{}}]]]}'), /records/],
    ['depth', answers(200, 'application/json', `${'['.repeat(200_000)}${']'.repeat(200_000)}`), /not of the protocol/],
    ['a page not found', answers(404, 'text/html', '<html>'), /status 404: no replica of this protocol is there\. Check PEERS/],
    ['an error of some proxy', answers(502, 'application/json', '{"error":"bad gateway"}'), /status 502/],
    ['nothing, though all is well', answers(204, 'text/plain', ''), /status 204/],
    ['a redirect', (_request, response) => void response.writeHead(307, { location: 'http://127.0.0.1:1/' }).end(), /status 307.*Check PEERS/],
  ])('%s: PeerRejectedError, which says so', async (_what, listener, message) => {
    const client = await clientOf(listener);
    const error = await failure(client.changes(CHANGES));
    expect(error).toBeInstanceOf(PeerRejectedError);
    expect(error).toMatchObject({ code: 'BAD_MESSAGE', message: expect.stringMatching(message) });
  });

  it('a refusal: its code and its words', async () => {
    const client = await clientOf(answers(409, 'application/json', '{"code":"CHECKPOINT_MISMATCH","message":"a batch was lost"}'));
    expect(await failure(client.changes(CHANGES))).toMatchObject({ code: 'CHECKPOINT_MISMATCH', message: 'peer "b" refused the changes: a batch was lost' });
  });

  it('one without end: given up in time', async () => {
    let sent = 0;
    const client = await clientOf((_request, response) => {
      const chunk = Buffer.alloc(1024 * 1024, 0x20);
      const more = (): void => {
        while (!response.destroyed && sent < 200) {
          sent++;
          if (!response.write(chunk)) return void response.once('drain', more);
        }
        response.end();
      };
      more();
    });
    expect(await failure(client.handshake(HANDSHAKE))).toMatchObject({ code: 'TOO_LARGE' });
    expect(sent).toBeLessThan(150);
  });
});

describe('no answer', () => {
  it.each<[string, RequestListener]>([
    ['the connection breaks', (request) => void request.socket.destroy()],
    ['it breaks within the answer', (_request, response) => {
      response.writeHead(200, { 'content-type': 'application/json', 'content-length': 1000 });
      response.write('{"applied":', () => response.destroy());
    }],
    ['it breaks within a chunk', (_request, response) => {
      response.writeHead(200, { 'content-type': 'application/json' });
      response.write('{"applied":', () => response.destroy());
    }],
    ['what comes is no HTTP', (request) => void request.socket.end('hello\r\n\r\n')],
  ])('%s: PeerUnreachableError', async (_what, listener) => {
    const error = await failure((await clientOf(listener)).changes(CHANGES));
    expect(error).toBeInstanceOf(PeerUnreachableError);
    expect((error as Error).message).toMatch(/^peer "b" at http:\S+ did not answer: .*\. Is it running\?$/);
  });

  it('nobody listens', async () => {
    const url = await serve(() => {});
    await new Promise((resolve) => server?.close(resolve));
    const error = await failure(createPeerClient({ name: 'b', url, secret: null }).handshake(HANDSHAKE));
    expect((error as Error).message).toContain('ECONNREFUSED');
  });

  it.each(['before it begins', 'in the middle'])('ever, %s: given up', async (when) => {
    const client = await clientOf((_request, response) => {
      if (when === 'in the middle') response.writeHead(200).write('{');
    }, { handshake: 50, changes: 60_000 });
    expect(await failure(client.handshake(HANDSHAKE))).toMatchObject({ message: expect.stringContaining('nothing for 0.05 s') });
    const controller = new AbortController();
    const pending = failure(client.changes(CHANGES, controller.signal));
    controller.abort();
    expect(await pending).toBeInstanceOf(PeerUnreachableError);
    expect(await failure(client.changes(CHANGES, controller.signal))).toMatchObject({ message: expect.stringContaining('is stopping') });
  });
});

it('a connection that was kept open, and is closed just as it is used again: the message is sent once more', async () => {
  const sockets = new Map<unknown, number>();
  const client = await clientOf((request, response) => {
    const requests = (sockets.get(request.socket) ?? 0) + 1;
    sockets.set(request.socket, requests);
    if (requests > 1) request.socket.destroy();
    else answers(200, 'application/json', JSON.stringify(CHANGED))(request, response);
  });
  for (let n = 0; n < 3; n++) expect(await client.changes(CHANGES)).toEqual(CHANGED);
  expect([...sockets.values()]).toEqual([2, 2, 1]);
});

describe('a replica whose peer misbehaves', () => {
  const SYNC = SyncToDocument.toString();
  /** A real peer's handshake, and something of the test's own for the rest. */
  const beside = (real: string, changes: RequestListener): RequestListener => (request, response) => {
    if (!request.url?.endsWith('/handshake')) return changes(request, response);
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk)).on('end', () => {
      fetch(real + request.url, { method: 'POST', headers: { 'content-type': 'application/json' }, body: Buffer.concat(chunks) })
        .then(async (answer) => response.writeHead(answer.status, { 'content-type': 'application/json' }).end(await answer.text()))
        .catch(() => response.destroy());
    });
  };

  it('says so by code and reason, changes nothing, serves on, and stops though the peer never answers', async () => {
    let misbehave: RequestListener = () => {};
    let real = '';
    const url = await serve((request, response) => beside(real, (...call) => misbehave(...call))(request, response));
    fleet = await startFleet({ a: { peers: ['b'] }, b: { peers: [] } }, { urls: { b: url } });
    const [a, b] = [fleet.of('a'), fleet.of('b')];
    real = b.url;
    await a.rest('POST', '/api/v1/users', { nom: 'A', email: 'a@x.org' });
    // Of a peer what was taken and acknowledged; whether it is there is noted at once.
    const peer = '(SELECT name, taken_incarnation, taken_position, taken_by, acked_incarnation, acked_position, acked_by FROM replication.peer)';
    const stored = () => Promise.all(['replication.record', 'replication.conflict', peer].map((table) => a.sql(`SELECT * FROM ${table} t ORDER BY 1, 2`)));
    misbehave = answers(200, 'application/json', '{}');
    expect(await a.codes(SYNC, { peer: 'b' })).toEqual(['PEER_REJECTED']);
    const before = await stored();

    const version = { v: { 'b.1': 5 }, f: { nom: 'x' }, s: { '*': ['b.1', 5] } };
    const whole = { ...version, f: { nom: 'x', email: 'x@x.org', telephone: null, createdAt: '2026-01-01 00:00:00+00' } };
    const cases: [RequestListener, string, string][] = [
      [answers(200, 'application/json', '{"applied":1'), 'PEER_REJECTED', 'not of the protocol'],
      [answers(200, 'text/html', '<html>'), 'PEER_REJECTED', 'not of the protocol'],
      [answers(200, 'application/json', JSON.stringify({ ...CHANGED, records: [['Nobody', '1', [version]]] })), 'PEER_REJECTED', 'no such model'],
      [answers(200, 'application/json', JSON.stringify({ ...CHANGED, records: [['User', 'abc', [whole]]] })), 'PEER_REJECTED', 'has a key that is none'],
      [answers(200, 'application/json', JSON.stringify({ ...CHANGED, records: [['User', '01', [whole]]] })), 'PEER_REJECTED', 'its key is not written as integer is'],
      [answers(500, 'application/json', '{"code":"FAILED","message":"it failed; its log says why"}'), 'PEER_REJECTED', 'its log says why'],
      [(request) => void request.socket.destroy(), 'PEER_UNREACHABLE', 'did not answer'],
    ];
    for (const [listener, code, detail] of cases) {
      misbehave = listener;
      const { status, body } = await a.rest('POST', '/api/v1/sync-to-b');
      expect({ status, ...body }).toMatchObject({ status: 502, code, detail: expect.stringContaining(detail) });
      expect(await stored()).toEqual(before);
    }
    let asked = (): void => {};
    const hanging = new Promise<void>((resolve) => (asked = resolve));
    misbehave = () => asked();
    const waiting = a.rest('POST', '/api/v1/sync-to-b').catch(() => null);
    await hanging;
    expect((await a.rest('GET', '/api/v1/users/1')).status).toBe(200);
    await a.stop();
    await waiting;
    await a.start();
    expect((await a.rest('GET', '/api/v1/users/1')).status).toBe(200);
  });
});
