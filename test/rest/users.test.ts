import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { startEdges, type Edges } from '../support/edges.ts';
import { NOW } from '../support/fake-services.ts';

let edges: Edges;
beforeAll(async () => {
  edges = await startEdges();
});
afterAll(() => edges.close());

const USERS = '/api/v1/users';

const post = (headers: Record<string, string>, body: BodyInit | null = null) => fetch(edges.url + USERS, { method: 'POST', headers, body });
const valid = (nom: string) => JSON.stringify({ nom, email: `${nom}@x.org` });

describe('users over REST', () => {
  it('are created, read, changed, listed and deleted', async () => {
    const created = await edges.rest('POST', USERS, { nom: 'Ada', email: 'ada@x.org' });
    expect(created.status).toBe(201);
    expect(created.headers.get('location')).toBe(`${USERS}/1`);
    const ada = { id: 1, nom: 'Ada', email: 'ada@x.org', telephone: null, created_at: '2026-01-02T03:04:05.678Z', updated_at: NOW };
    expect(await created.json()).toEqual(ada);
    expect(await (await edges.rest('GET', `${USERS}/1`)).json()).toEqual(ada);

    const changed = await edges.rest('PUT', `${USERS}/1`, { telephone: '1' });
    expect(changed.status).toBe(200);
    expect(await changed.json()).toEqual({ ...ada, telephone: '1' });

    await edges.rest('POST', USERS, { nom: 'Bob', email: 'bob@x.org' });
    const list = async (query: string) => ((await (await edges.rest('GET', USERS + query)).json()) as { nom: string }[]).map(({ nom }) => nom);
    expect(await list('')).toEqual(['Ada', 'Bob']);
    expect(await list('?first=1')).toEqual(['Ada']);
    expect(await list('?after=1')).toEqual(['Bob']);

    const gone = await edges.rest('DELETE', `${USERS}/1`);
    expect(gone.status).toBe(204);
    expect(await gone.text()).toBe('');
    expect((await edges.rest('GET', `${USERS}/1`)).status).toBe(404);
  });

  it.each<[string, string, unknown, number, string]>([
    ['POST', USERS, { nom: ' ', email: 'x@x.org' }, 400, 'BAD_USER_INPUT'],
    ['POST', USERS, { nom: 'x' }, 400, 'BAD_USER_INPUT'],
    ['POST', USERS, { nom: 'x', email: 'x@x.org', age: 3 }, 400, 'BAD_USER_INPUT'],
    ['POST', USERS, { nom: 'x', email: 'bob@x.org' }, 409, 'UNIQUE_VIOLATION'],
    ['POST', USERS, [], 400, 'BAD_USER_INPUT'],
    ['PUT', `${USERS}/2`, {}, 400, 'BAD_USER_INPUT'],
    ['PUT', `${USERS}/99`, { nom: 'x' }, 404, 'NOT_FOUND'],
    ['GET', `${USERS}/abc`, undefined, 400, 'BAD_USER_INPUT'],
    ['GET', `${USERS}/99`, undefined, 404, 'NOT_FOUND'],
    ['DELETE', `${USERS}/99`, undefined, 404, 'NOT_FOUND'],
    ['GET', `${USERS}?first=0`, undefined, 400, 'BAD_USER_INPUT'],
    ['GET', `${USERS}?first=1001`, undefined, 400, 'BAD_USER_INPUT'],
    ['GET', `${USERS}?first=`, undefined, 400, 'BAD_USER_INPUT'],
    ['GET', `${USERS}?first=1.5`, undefined, 400, 'BAD_USER_INPUT'],
    ['GET', `${USERS}?after=x`, undefined, 400, 'BAD_USER_INPUT'],
  ])('%s %s with %j is %i %s', async (method, path, body, status, code) => {
    const response = await edges.rest(method, path, body);
    expect(response.status).toBe(status);
    expect(response.headers.get('content-type')).toBe('application/problem+json');
    expect(await response.json()).toMatchObject({ type: 'about:blank', status, code, title: expect.any(String), detail: expect.any(String) });
  });

  it('lists each field that does not fit', async () => {
    const response = await edges.rest('POST', USERS, { nom: '', email: 'x', extra: 1 });
    expect(await response.json()).toMatchObject({
      errors: [
        { field: 'nom', message: 'must not be blank' },
        { field: 'email', message: 'must be an email address' },
        { field: 'extra', message: 'is not a known field' },
      ],
    });
  });
});

describe('a body over REST', () => {
  it.each<[string, Record<string, string>, string | Uint8Array<ArrayBuffer> | null, number]>([
    ['text', { 'content-type': 'text/plain' }, valid('t'), 415],
    ['a form', { 'content-type': 'application/x-www-form-urlencoded' }, 'nom=x', 415],
    ['another charset', { 'content-type': 'application/json; charset=latin1' }, valid('l'), 415],
    ['broken JSON', { 'content-type': 'application/json' }, '{"nom":', 400],
    ['nothing', { 'content-type': 'application/json' }, null, 400],
    ['nothing of no type', {}, null, 400],
    ['bytes that are no UTF-8', { 'content-type': 'application/json' }, new Uint8Array([0x22, 0xff, 0x22]), 400],
    ['JSON with its charset', { 'content-type': 'application/json; charset=UTF-8' }, valid('u'), 201],
    ['JSON of a kind of its own', { 'content-type': 'application/vnd.x+json' }, valid('v'), 201],
  ])('of %s', async (_what, headers, body, status) => {
    const response = await post(headers, body);
    expect(response.status).toBe(status);
    if (status === 415) expect(await response.json()).toMatchObject({ code: 'UNSUPPORTED_MEDIA_TYPE' });
    if (status === 400) expect(await response.json()).toMatchObject({ code: 'BAD_USER_INPUT' });
  });
});
