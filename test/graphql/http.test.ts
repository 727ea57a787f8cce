import { serverAudits } from 'graphql-http';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { startEdges, until, type Edges } from '../support/edges.ts';
import { conflictOf } from '../support/fake-services.ts';

let edges: Edges;
beforeAll(async () => {
  edges = await startEdges();
});
afterAll(() => edges.close());

const send = (init: RequestInit) => fetch(`${edges.url}/graphql`, init);
const json = { 'content-type': 'application/json' };

describe('GraphQL over HTTP', () => {
  // The port is known only once the server listens; the audits ask for the address when they run.
  const audits = serverAudits({ url: () => `${edges.url}/graphql`, fetchFn: fetch });

  it('has an audit', () => expect(audits.length).toBeGreaterThan(50));
  it.each(audits.map((audit) => [audit.name, audit] as const))('%s', async (_name, audit) => {
    expect(await audit.fn()).toMatchObject({ status: 'ok' });
  });
});

describe('what is no GraphQL request', () => {
  it.each<[string, RequestInit, number, string]>([
    ['another method', { method: 'PUT', headers: json, body: '{}' }, 405, 'METHOD_NOT_ALLOWED'],
    ['a form', { method: 'POST', headers: { 'content-type': 'application/x-www-form-urlencoded' }, body: 'query={__typename}' }, 415, 'UNSUPPORTED_MEDIA_TYPE'],
    ['plain text', { method: 'POST', headers: { 'content-type': 'text/plain' }, body: '{"query":"{__typename}"}' }, 415, 'UNSUPPORTED_MEDIA_TYPE'],
    ['broken JSON', { method: 'POST', headers: json, body: '{"query":' }, 400, 'BAD_USER_INPUT'],
    ['an answer in another form', { method: 'POST', headers: { ...json, accept: 'image/png' }, body: '{"query":"{__typename}"}' }, 406, 'NOT_ACCEPTABLE'],
    ['no query', { method: 'POST', headers: json, body: '{}' }, 400, 'BAD_USER_INPUT'],
  ])('refuses %s', async (_what, init, status, code) => {
    const response = await send(init);
    expect(response.status).toBe(status);
    const { errors } = (await response.json()) as { errors: { extensions: object }[] };
    expect(errors[0]?.extensions).toEqual({ code });
  });

  it('says what it allows', async () => {
    expect((await send({ method: 'DELETE' })).headers.get('allow')).toBe('GET, POST');
  });

  it('refuses a mutation by GET', async () => {
    const response = await fetch(`${edges.url}/graphql?query=mutation{deleteUser(id:1){id}}`);
    expect(response.status).toBe(405);
    expect(await response.json()).toMatchObject({ errors: [{ extensions: { code: 'METHOD_NOT_ALLOWED' } }] });
  });

  it('lets no page of another origin read', async () => {
    const response = await send({ method: 'POST', headers: { ...json, origin: 'https://evil.example' }, body: '{"query":"{__typename}"}' });
    expect(response.headers.get('access-control-allow-origin')).toBeNull();
  });
});

describe('subscriptions over server-sent events', () => {
  it('end their iterator when the client leaves', async () => {
    const controller = new AbortController();
    const response = await fetch(`${edges.url}/graphql?query=${encodeURIComponent('subscription { conflictDetected { id } }')}`, {
      headers: { accept: 'text/event-stream' },
      signal: controller.signal,
    });
    expect(response.status).toBe(200);
    await until(() => edges.subscribers() === 1);
    edges.detect(conflictOf('1'));
    const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
    let text = '';
    while (!text.includes('"id":"1"')) text += (await reader?.read())?.value ?? '';
    controller.abort();
    await until(() => edges.subscribers() === 0);
  });
});
