/** Every refusal of the REST contract by a real replica, and that nothing changed for it. */
import { request } from 'node:http';

import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { startFleet, type Fleet, type FleetReplica } from '../support/fleet.ts';

let fleet: Fleet;
let a: FleetReplica;
let user: { id: number };
let pending: { id: number };
let resolved: { id: number };
beforeAll(async () => {
  fleet = await startFleet({ a: {}, b: {} });
  a = fleet.of('a');
  const b = fleet.of('b');
  const create = async (nom: string) => (await a.rest<{ id: number }>('POST', '/api/v1/users', { nom, email: `${nom}@x.org` })).body;
  user = await create('ada');
  const other = await create('bob');
  await a.rest('POST', '/api/v1/sync-to-b');
  const clash = async ({ id }: { id: number }) => {
    await a.rest('PUT', `/api/v1/users/${id}`, { telephone: 'a' });
    await b.rest('PUT', `/api/v1/users/${id}`, { telephone: 'b' });
    await a.rest('POST', '/api/v1/sync-to-b');
    const { body } = await a.rest<{ id: number }[]>('GET', '/api/v1/conflicts?first=1');
    return body[0] as { id: number };
  };
  resolved = await clash(other);
  await a.rest('POST', '/api/v1/resolve-conflicts', { strategy: 'latest' });
  pending = await clash(user);
});
afterAll(() => fleet.close());

/** All that a refused call must leave as it was. */
async function stored(): Promise<unknown> {
  return a.sql(`SELECT 'user', json_agg(u ORDER BY id) FROM users u UNION ALL SELECT 'record', json_agg(r ORDER BY model, key) FROM replication.record r
    UNION ALL SELECT 'conflict', json_agg(c ORDER BY id) FROM replication.conflict c UNION ALL SELECT 'log', json_agg(l ORDER BY seq) FROM replication.log l`);
}

let before: unknown;
beforeEach(async () => {
  before = await stored();
});
const unchanged = async (): Promise<void> => expect(await stored()).toEqual(before);

/** A call with any headers and body; the answer as it came. */
async function raw(method: string, path: string, headers: Record<string, string>, body: string | Buffer): Promise<{ status: number; text: string; type: string }> {
  return new Promise((resolve, reject) => {
    const call = request(a.url + path, { method, headers }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
      response.on('end', () => resolve({ status: response.statusCode ?? 0, text, type: response.headers['content-type'] ?? '' }));
    });
    call.on('error', reject).end(body);
  });
}

const JSON_TYPE = { 'content-type': 'application/json' };
const NEW = { nom: 'New', email: 'new@x.org' };

function expectProblem(answer: { status: number; text: string; type: string }, status: number, code: string): void {
  expect(answer.status, answer.text).toBe(status);
  expect(answer.type).toBe('application/problem+json');
  const problem = JSON.parse(answer.text) as Record<string, unknown>;
  expect(problem).toMatchObject({ type: 'about:blank', status, code, title: expect.any(String), detail: expect.stringMatching(/\w/) });
  expect(answer.text).not.toMatch(/node_modules|\.ts:|at Object|prisma/i);
}

describe('a body that does not fit', () => {
  it.each<[string, unknown, string]>([
    ['no nom', { email: 'x@x.org' }, 'nom'],
    ['a blank nom', { ...NEW, nom: ' \t ' }, 'nom'],
    ['a nom of 201 characters', { ...NEW, nom: 'x'.repeat(201) }, 'nom'],
    ['a nom that is a number', { ...NEW, nom: 5 }, 'nom'],
    ['a nom that is null', { ...NEW, nom: null }, 'nom'],
    ['a NUL', { ...NEW, nom: 'a\0b' }, 'nom'],
    ['a lone surrogate', { ...NEW, nom: 'a\ud800b' }, 'nom'],
    ['a NUL in the telephone', { ...NEW, telephone: '\0' }, 'telephone'],
    ['a lone surrogate in the email', { ...NEW, email: 'a\udc00@x.org' }, 'email'],
    ['an email that is none', { ...NEW, email: 'nobody' }, 'email'],
    ['an email of 255 characters', { ...NEW, email: `${'x'.repeat(249)}@x.org` }, 'email'],
    ['a telephone of 41 characters', { ...NEW, telephone: '1'.repeat(41) }, 'telephone'],
    ['a telephone that is an object', { ...NEW, telephone: {} }, 'telephone'],
    ['an unknown member', { ...NEW, admin: true }, 'admin'],
    ['an id', { ...NEW, id: 5 }, 'id'],
    ['an array', [NEW], ''],
    ['a text', 'ada', ''],
    ['null', null, ''],
  ])('%s: 400, naming the field', async (_what, body, field) => {
    const created = await raw('POST', '/api/v1/users', JSON_TYPE, JSON.stringify(body));
    expectProblem(created, 400, 'BAD_USER_INPUT');
    expect((JSON.parse(created.text) as { errors: { field: string }[] }).errors.map((error) => error.field)).toContain(field);
    if (field !== 'nom' || (body as { nom?: unknown }).nom !== undefined) {
      expectProblem(await raw('PUT', `/api/v1/users/${user.id}`, JSON_TYPE, JSON.stringify(body)), 400, 'BAD_USER_INPUT');
    }
    await unchanged();
  });

  it.each<[string, string, unknown]>([
    ['/api/v1/users/ID', 'PUT', {}],
    ['/api/v1/resolve-conflicts', 'POST', {}],
    ['/api/v1/resolve-conflicts', 'POST', { strategy: 'newest' }],
    ['/api/v1/resolve-conflicts', 'POST', { strategy: 'LATEST' }],
    ['/api/v1/resolve-conflicts', 'POST', { strategy: 'latest', ids: 'all' }],
    ['/api/v1/resolve-conflicts', 'POST', { strategy: 'latest', ids: [0] }],
    ['/api/v1/resolve-conflicts', 'POST', { strategy: 'latest', ids: [1.5] }],
    ['/api/v1/resolve-conflicts', 'POST', { strategy: 'latest', id: [1] }],
    ['/api/v1/conflicts/PENDING/resolve', 'POST', {}],
    ['/api/v1/conflicts/PENDING/resolve', 'POST', { chosen_version: 'node_c' }],
    ['/api/v1/conflicts/PENDING/resolve', 'POST', { chosen_version: '' }],
    ['/api/v1/conflicts/PENDING/resolve', 'POST', { chosen_version: 5 }],
    ['/api/v1/conflicts/PENDING/resolve', 'POST', { chosen_version: 'node_a', values: { nom: 'x' } }],
    ['/api/v1/conflicts/PENDING/resolve', 'POST', { values: {} }],
    ['/api/v1/conflicts/PENDING/resolve', 'POST', { values: [] }],
    ['/api/v1/conflicts/PENDING/resolve', 'POST', { values: null }],
    ['/api/v1/conflicts/PENDING/resolve', 'POST', { values: { nom: '' } }],
    ['/api/v1/conflicts/PENDING/resolve', 'POST', { values: { nom: 'a\0' } }],
    ['/api/v1/conflicts/PENDING/resolve', 'POST', { values: { id: 9 } }],
    ['/api/v1/conflicts/PENDING/resolve', 'POST', { values: { created_at: '2026-01-01T00:00:00Z' } }],
  ])('%s %s %j: 400', async (path, method, body) => {
    const target = path.replace('ID', String(user.id)).replace('PENDING', String(pending.id));
    expectProblem(await raw(method, target, JSON_TYPE, JSON.stringify(body)), 400, 'BAD_USER_INPUT');
    await unchanged();
  });

  it.each([
    ['no JSON', '{"nom": '],
    ['nothing', ''],
    ['bytes that are no UTF-8', Buffer.from([0x22, 0xff, 0xfe, 0x22])],
  ])('%s: 400', async (_what, body) => {
    expectProblem(await raw('POST', '/api/v1/users', JSON_TYPE, body), 400, 'BAD_USER_INPUT');
    await unchanged();
  });

  it('nothing of a prototype gets in', async () => {
    const body = '{"nom":"New","email":"new@x.org","__proto__":{"telephone":"1"}}';
    expectProblem(await raw('POST', '/api/v1/users', JSON_TYPE, body), 400, 'BAD_USER_INPUT');
    const values = '{"values":{"__proto__":{"nom":"x"}}}';
    expectProblem(await raw('POST', `/api/v1/conflicts/${pending.id}/resolve`, JSON_TYPE, values), 400, 'BAD_USER_INPUT');
    await unchanged();
  });
});

describe('an address that does not fit', () => {
  it.each([
    ['GET', '/api/v1/users/x', 400, 'BAD_USER_INPUT'],
    ['GET', '/api/v1/users/0', 400, 'BAD_USER_INPUT'],
    ['GET', '/api/v1/users/-1', 400, 'BAD_USER_INPUT'],
    ['GET', '/api/v1/users/1.5', 400, 'BAD_USER_INPUT'],
    ['GET', '/api/v1/users/2147483648', 400, 'BAD_USER_INPUT'],
    ['GET', '/api/v1/users/99999999999999999999', 400, 'BAD_USER_INPUT'],
    ['GET', '/api/v1/users/2147483647', 404, 'NOT_FOUND'],
    ['DELETE', '/api/v1/users/424242', 404, 'NOT_FOUND'],
    ['DELETE', '/api/v1/users/x', 400, 'BAD_USER_INPUT'],
    ['GET', '/api/v1/users?first=0', 400, 'BAD_USER_INPUT'],
    ['GET', '/api/v1/users?first=1001', 400, 'BAD_USER_INPUT'],
    ['GET', '/api/v1/users?first=ten', 400, 'BAD_USER_INPUT'],
    ['GET', '/api/v1/users?first=', 400, 'BAD_USER_INPUT'],
    ['GET', '/api/v1/users?first=1.5', 400, 'BAD_USER_INPUT'],
    ['GET', '/api/v1/users?after=x', 400, 'BAD_USER_INPUT'],
    ['GET', '/api/v1/conflicts/x', 400, 'BAD_USER_INPUT'],
    ['GET', '/api/v1/conflicts/999999999', 404, 'NOT_FOUND'],
    ['GET', '/api/v1/conflicts?status=open', 400, 'BAD_USER_INPUT'],
    ['GET', '/api/v1/conflicts?first=0', 400, 'BAD_USER_INPUT'],
    ['GET', '/api/v1/conflicts?after=-3', 400, 'BAD_USER_INPUT'],
    ['POST', '/api/v1/sync-to-nobody', 404, 'UNKNOWN_PEER'],
    ['POST', '/api/v1/sync-to-a', 404, 'UNKNOWN_PEER'],
    ['POST', '/api/v1/sync-to-__proto__', 404, 'UNKNOWN_PEER'],
    ['GET', '/api/v2/users', 404, 'NOT_FOUND'],
    ['PATCH', '/api/v1/users', 405, 'METHOD_NOT_ALLOWED'],
    ['GET', '/api/v1/sync-to-b', 405, 'METHOD_NOT_ALLOWED'],
    ['DELETE', '/api/v1/conflicts', 405, 'METHOD_NOT_ALLOWED'],
    ['POST', '/metrics', 405, 'METHOD_NOT_ALLOWED'],
  ])('%s %s: %i %s', async (method, path, status, code) => {
    expectProblem(await raw(method, path, {}, ''), status, code);
    await unchanged();
  });

  it('a call with a body to what is not there: 404', async () => {
    expectProblem(await raw('PUT', '/api/v1/users/424242', JSON_TYPE, '{"nom":"x"}'), 404, 'NOT_FOUND');
    expectProblem(await raw('POST', '/api/v1/conflicts/999999/resolve', JSON_TYPE, '{"chosen_version":"a"}'), 404, 'NOT_FOUND');
    await unchanged();
  });
});

describe('what the state forbids', () => {
  it('an email that another user has: 409', async () => {
    expectProblem(await raw('POST', '/api/v1/users', JSON_TYPE, '{"nom":"x","email":"bob@x.org"}'), 409, 'UNIQUE_VIOLATION');
    expectProblem(await raw('PUT', `/api/v1/users/${user.id}`, JSON_TYPE, '{"email":"bob@x.org"}'), 409, 'UNIQUE_VIOLATION');
    const values = '{"values":{"email":"bob@x.org"}}';
    expectProblem(await raw('POST', `/api/v1/conflicts/${pending.id}/resolve`, JSON_TYPE, values), 409, 'UNIQUE_VIOLATION');
    await unchanged();
  });

  it('an id that comes next, and that somebody has given to a user: 409, and the one after it is free', async () => {
    await a.sql(`INSERT INTO users (id, nom, email) SELECT last_value + (SELECT seqincrement FROM pg_sequence WHERE seqrelid = 'users_id_seq'::regclass), 'sql', 'sql@x.org' FROM users_id_seq`);
    // Answered when what is captured is taken in.
    await a.rest('GET', '/api/v1/conflicts');
    before = await stored();
    const answer = await raw('POST', '/api/v1/users', JSON_TYPE, JSON.stringify(NEW));
    expectProblem(answer, 409, 'UNIQUE_VIOLATION');
    expect(answer.text).toContain('"field":"id"');
    await unchanged();
    expect(await raw('POST', '/api/v1/users', JSON_TYPE, JSON.stringify(NEW))).toMatchObject({ status: 201 });
    await a.rest('GET', '/api/v1/conflicts');
  });

  it('a conflict that is resolved: 409', async () => {
    const answer = await raw('POST', `/api/v1/conflicts/${resolved.id}/resolve`, JSON_TYPE, '{"chosen_version":"node_a"}');
    expectProblem(answer, 409, 'ALREADY_RESOLVED');
    expect(answer.text).toContain('latest');
    await unchanged();
  });
});

describe('a body that is not taken', () => {
  const TEN_MB = JSON.stringify({ ...NEW, nom: 'x'.repeat(10 * 1024 * 1024) });

  it.each<[string, Record<string, string>]>([
    ['of a length that is told', { 'content-length': String(TEN_MB.length) }],
    ['in chunks', { 'transfer-encoding': 'chunked' }],
  ])('10 MB %s: 413', async (_how, length) => {
    expectProblem(await raw('POST', '/api/v1/users', { ...JSON_TYPE, ...length }, TEN_MB), 413, 'PAYLOAD_TOO_LARGE');
    const graphql = await raw('POST', '/graphql', { ...JSON_TYPE, ...length }, TEN_MB);
    expect([graphql.status, graphql.text]).toEqual([413, expect.stringContaining('PAYLOAD_TOO_LARGE')]);
    await unchanged();
  });

  it.each(['text/plain', 'application/x-www-form-urlencoded', 'application/json; charset=latin1', ''])('%j: 415', async (type) => {
    const headers: Record<string, string> = type === '' ? {} : { 'content-type': type };
    expectProblem(await raw('POST', '/api/v1/users', headers, JSON.stringify(NEW)), 415, 'UNSUPPORTED_MEDIA_TYPE');
    await unchanged();
  });
});

it('users are listed in order of id, page by page, with every field', async () => {
  for (let i = 0; i < 4; i++) await a.rest('POST', '/api/v1/users', { nom: `n${i}`, email: `n${i}@x.org`, telephone: i === 0 ? '' : null });
  type Listed = { id: number; telephone: string | null; created_at: string; updated_at: string }[];
  const list = async (query: string) => (await a.rest<Listed>('GET', `/api/v1/users?${query}`)).body;
  const all = await list('first=1000');
  const ids = all.map(({ id }) => id);
  expect(ids).toEqual(ids.toSorted((x, y) => x - y));
  expect((await list('first=2')).map(({ id }) => id)).toEqual(ids.slice(0, 2));
  expect((await list(`first=2&after=${ids[1]}`)).map(({ id }) => id)).toEqual(ids.slice(2, 4));
  expect(await list(`after=${ids.at(-1)}`)).toEqual([]);
  for (const one of all) {
    expect(Object.keys(one)).toEqual(['id', 'nom', 'email', 'telephone', 'created_at', 'updated_at']);
    expect(one.updated_at).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/);
    expect(Date.parse(one.created_at)).toBeLessThanOrEqual(Date.parse(one.updated_at));
  }
});
