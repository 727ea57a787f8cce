/** A caller that misbehaves: each message is refused in words and by code, nothing changes, and the replica goes on serving. */
import { request } from 'node:http';

import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { startFleet, type Fleet, type FleetReplica } from '../support/fleet.ts';

const SECRET = 'hunter2';
const MIB = 1024 * 1024;
let fleet: Fleet;
let a: FleetReplica;
let incarnation: string;
let sender: { name: string; id: string; incarnation: string };
beforeAll(async () => {
  fleet = await startFleet({ a: { peerSecret: SECRET }, b: { peerSecret: SECRET } });
  a = fleet.of('a');
  const b = fleet.of('b');
  await a.rest('POST', '/api/v1/users', { nom: 'A', email: 'a@x.org' });
  expect((await a.rest('POST', '/api/v1/sync-to-b')).status).toBe(200);
  const [onA, onB] = await Promise.all([a, b].map((on) => on.sql<{ id: string; incarnation: string }>('SELECT id, replication.incarnation() FROM replication.replica')));
  incarnation = onA?.[0]?.incarnation ?? '';
  sender = { name: 'b', id: onB?.[0]?.id ?? '', incarnation: onB?.[0]?.incarnation ?? '' };
});
afterAll(() => fleet.close());

const stored = () =>
  a.sql(`SELECT 'user', json_agg(u ORDER BY id) FROM users u UNION ALL SELECT 'record', json_agg(r ORDER BY model, key) FROM replication.record r
    UNION ALL SELECT 'conflict', json_agg(c ORDER BY id) FROM replication.conflict c UNION ALL SELECT 'roster', json_agg(m ORDER BY id) FROM replication.roster m
    UNION ALL SELECT 'peer', json_agg(p ORDER BY name) FROM replication.peer p`);
let before: unknown;
beforeEach(async () => {
  before = await stored();
});

interface Sent {
  readonly method?: string;
  readonly path?: string;
  readonly headers?: Record<string, string>;
}
const HEADERS = { 'content-type': 'application/json', authorization: `Bearer ${SECRET}` };

async function send(body: string | Buffer, { method = 'POST', path = 'changes', headers = HEADERS }: Sent = {}): Promise<{ status: number; code: string; message: string }> {
  return new Promise((resolve, reject) => {
    const call = request(`${a.url}/replication/v1/${path}`, { method, headers }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
      response.on('end', () => {
        expect(text).not.toMatch(/node_modules|\.ts:|at Object/);
        resolve({ status: response.statusCode ?? 0, ...(JSON.parse(text) as { code: string; message: string }) });
      });
    });
    call.on('error', reject).end(body);
  });
}

async function expectRefusal(answer: Promise<{ status: number; code: string; message: string }>, status: number, code: string, message: RegExp): Promise<void> {
  expect(await answer).toEqual({ status, code, message: expect.stringMatching(message) });
  expect(await stored()).toEqual(before);
  expect((await a.rest('GET', '/api/v1/users')).status).toBe(200);
}

const COLUMNS = { model: 'User', writer: 'b.1', fields: ['nom'], keys: ['52'], stamps: [5], values: [['x']] };

/** A batch of nothing, right but for what is laid over it. */
async function batch(over: object = {}): Promise<string> {
  const [peer] = await a.sql<{ taken_incarnation: string | null; taken_position: string }>(`SELECT taken_incarnation, taken_position FROM replication.peer WHERE name = 'b'`);
  const start = peer?.taken_incarnation ? { incarnation: peer.taken_incarnation, position: Number(peer.taken_position) } : null;
  return JSON.stringify({ protocol: 1, sender, receiver: incarnation, start, end: { incarnation: sender.incarnation, position: 50 }, records: [], ...over });
}
const version = (over: object = {}) => ({ v: { [`b.${sender.incarnation}`]: 5 }, f: { nom: 'x', email: 'x@x.org', telephone: null, createdAt: '2026-01-01 00:00:00+00' }, s: { '*': [`b.${sender.incarnation}`, 5] }, ...over });

it('a batch that is here whole is taken in hand before it is answered, where its sender asks for that; one that is none is not', async () => {
  const told = async (body: string, headers: Record<string, string>): Promise<(number | undefined)[]> =>
    new Promise((resolve, reject) => {
      const statuses: (number | undefined)[] = [];
      const call = request(`${a.url}/replication/v1/changes`, { method: 'POST', headers }, (response) => {
        statuses.push(response.statusCode);
        response.resume().on('end', () => resolve(statuses));
      });
      call.on('information', ({ statusCode }) => statuses.push(statusCode)).on('error', reject).end(body);
    });
  const ahead = { ...HEADERS, 'replique-ahead': '1' };
  // Of nobody that is known, so that nothing changes.
  const strange = await batch({ sender: { ...sender, name: 'stranger' } });
  expect([await told(strange, ahead), await told(strange, HEADERS), await told('{}', ahead)]).toEqual([[102, 409], [409], [400]]);
});

describe('who may speak', () => {
  it.each<[string, string | undefined]>([
    ['no secret', undefined],
    ['another', 'Bearer hunter3'],
    ['another of the same length', `Bearer ${'x'.repeat(SECRET.length)}`],
    ['the secret in another scheme', `Basic ${SECRET}`],
    ['none after the scheme', 'Bearer '],
  ])('%s: UNAUTHENTICATED', async (_what, authorization) => {
    const headers = { 'content-type': 'application/json', ...(authorization === undefined ? {} : { authorization }) };
    for (const path of ['changes', 'handshake', 'digest']) await expectRefusal(send(await batch(), { path, headers }), 401, 'UNAUTHENTICATED', /PEER_SECRET/);
  });

  it('a peer of another secret is told so through the API', async () => {
    const other = await startFleet({ a: { peerSecret: 'one' }, b: { peerSecret: 'two' } });
    try {
      const { status, body } = await other.of('a').rest('POST', '/api/v1/sync-to-b');
      expect({ status, ...body }).toMatchObject({ status: 502, code: 'PEER_REJECTED', detail: expect.stringMatching(/peer "b" refused the handshake: .*PEER_SECRET/) });
    } finally {
      await other.close();
    }
  });

  it('a sender that never shook hands: REFUSED', async () => {
    const unknown = { ...sender, id: '11111111-1111-4111-8111-111111111111' };
    await expectRefusal(send(await batch({ sender: unknown })), 409, 'REFUSED', /does not know replica "b"\. Begin with a handshake/);
    await expectRefusal(send(await batch({ sender: { ...sender, name: 'c' } })), 409, 'REFUSED', /"c"/);
  });
});

describe('what is no message', () => {
  it.each<[string, string, Sent, RegExp]>([
    ['GET', '', { method: 'GET' }, /takes POST/],
    ['PUT', '{}', { method: 'PUT' }, /takes POST/],
    ['another path', '{}', { path: 'nothing' }, /not of this protocol's version 1/],
    ['a path of every object', '{}', { path: '__proto__' }, /version 1/],
    ['a type that a page may post', '{}', { headers: { ...HEADERS, 'content-type': 'text/plain' } }, /application\/json/],
    ['no type', '{}', { headers: { authorization: HEADERS.authorization } }, /application\/json/],
    ['no JSON', '{"protocol":', {}, /no JSON/],
    ['nothing', '', {}, /no JSON/],
    ['a number', '7', {}, /the message/],
    ['an empty object', '{}', {}, /protocol|sender/],
    ['depth', '['.repeat(500_000) + ']'.repeat(500_000), {}, /the message/],
    ['depth in a member', `{"protocol":1,"records":${'['.repeat(500_000)}${']'.repeat(500_000)}}`, {}, /sender|records/],
  ])('%s: BAD_MESSAGE', async (_what, body, sent, message) => {
    await expectRefusal(send(body, sent), 400, 'BAD_MESSAGE', message);
  });

  it.each<[string, () => object, RegExp]>([
    ['another version of the protocol', () => ({ protocol: 2 }), /protocol.*Run the same version/],
    ['a surplus member', () => ({ x: 1 }), /the message/],
    ['a member of every object', () => JSON.parse('{"__proto__":{"records":[]}}') as object, /the message/],
    ['an id that is none', () => ({ sender: { ...sender, id: 'b' } }), /sender\.id/],
    ['a name with a quote', () => ({ sender: { ...sender, name: `b'` } }), /sender\.name/],
    ['a position that is no integer', () => ({ end: { incarnation: sender.incarnation, position: 1.5 } }), /end\.position/],
    ['no version', () => ({ records: [['User', '1', []]] }), /records\.0/],
    ['an empty vector', () => ({ records: [['User', '1', [version({ v: {} })]]] }), /records\.0/],
    ['a stamp past the years', () => ({ records: [['User', '1', [version({ v: { 'b.1': 9_000_000_000_000_000 } })]]] }), /records\.0/],
    ['a stamp that is a text', () => ({ records: [['User', '1', [version({ v: { 'b.1': '5' } })]]] }), /records\.0/],
    ['a value that is no text', () => ({ records: [['User', '1', [version({ f: { nom: 5 } })]]] }), /records\.0/],
    ['a NUL', () => ({ records: [['User', '1', [version({ f: { nom: 'a\0' } })]]] }), /records\.0/],
    ['a lone surrogate', () => ({ records: [['User', '1', [version({ f: { nom: 'a\ud800' } })]]] }), /records\.0/],
    ['a model that is not here', () => ({ records: [['Nobody', '1', [version()]]] }), /no such model/],
    ['a name that no field has', () => ({ records: [['User', '1', [version({ f: { ...version().f, 'a field': 'x' } })]]] }), /records\.0/],
    ['a key that is none', () => ({ records: [['User', 'abc', [version()]]] }), /a key that is none/],
    ['a key written otherwise', () => ({ records: [['User', '01', [version()]]] }), /its key is not written/],
    ['a key that is too large', () => ({ records: [['User', '99999999999', [version()]]] }), /a key that is none/],
    ['columns that are none', () => ({ columns: [{}] }), /columns\.0: name no model/],
    ['columns of a model that is not here', () => ({ columns: [{ ...COLUMNS, model: 'Nobody' }] }), /no such model/],
    ['columns with a key written otherwise', () => ({ columns: [{ ...COLUMNS, keys: ['01'] }] }), /its key is not written/],
    ['one bad record among good ones', () => ({ records: [['User', '52', [version()]], ['User', '62', [version({ f: { nom: 5 } })]]] }), /records\.1/],
  ])('a batch with %s: BAD_MESSAGE', async (_what, over, message) => {
    await expectRefusal(send(await batch(over())), 400, 'BAD_MESSAGE', message);
  });

  it('a batch that does not start where the last one ended: CHECKPOINT_MISMATCH', async () => {
    const elsewhere = { incarnation: sender.incarnation, position: 4711 };
    await expectRefusal(send(await batch({ start: elsewhere })), 409, 'CHECKPOINT_MISMATCH', /Begin with a handshake/);
    await expectRefusal(send(await batch({ receiver: 'abc' })), 409, 'CHECKPOINT_MISMATCH', /handshake/);
  });

  it('a handshake that is none, or of another version', async () => {
    await expectRefusal(send('{}', { path: 'handshake' }), 400, 'BAD_MESSAGE', /Run the same version/);
    const own = { protocol: 2, name: 'b', id: sender.id, incarnation: 'b', roster: [{ name: 'b', id: sender.id, slot: 2, stride: 10 }], policy: 'manual', models: [], clock: 5, answering: false };
    await expectRefusal(send(JSON.stringify(own), { path: 'handshake' }), 409, 'REFUSED', /protocol 1, this replica 2\. Run the same version/);
    await expectRefusal(send(JSON.stringify({ ...own, roster: [{ ...own.roster[0], slot: -1 }] }), { path: 'handshake' }), 400, 'BAD_MESSAGE', /roster\.0\.slot/);
  });

  it('a digest of no bucket that is one', async () => {
    await expectRefusal(send('{"protocol":1,"sender":"b","buckets":[["User",-1]]}', { path: 'digest' }), 400, 'BAD_MESSAGE', /buckets/);
    const odd = await send('{"protocol":1,"sender":"b","buckets":[["Nobody",5],["User",100000]]}', { path: 'digest' });
    expect(odd).toMatchObject({ status: 200, digests: [], keys: [] });
  });
});

describe('a message that is too large', () => {
  const LARGE = Buffer.alloc(65 * MIB, 0x20);
  it.each<[string, Record<string, string>]>([
    ['of a length that is told', { 'content-length': String(LARGE.length) }],
    ['in chunks', { 'transfer-encoding': 'chunked' }],
  ])('%s: TOO_LARGE', async (_how, length) => {
    await expectRefusal(send(LARGE, { headers: { ...HEADERS, ...length } }), 413, 'TOO_LARGE', /at most 67108864 bytes/);
  });

  it('one that ends too early leaves nothing behind', async () => {
    await new Promise<void>((resolve) => {
      const call = request(`${a.url}/replication/v1/changes`, { method: 'POST', headers: { ...HEADERS, 'content-length': '1000' } });
      call.on('error', () => resolve());
      call.write('{"protocol":', () => call.destroy());
    });
    expect(await stored()).toEqual(before);
  });
});
