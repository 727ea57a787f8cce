/** The short way of an operation and Yoga's own answer alike: in status, headers, text, what is done and what is logged. */
import { once } from 'node:events';
import { createServer, request as httpRequest, type IncomingMessage, type OutgoingHttpHeaders } from 'node:http';
import type { AddressInfo } from 'node:net';

import fc from 'fast-check';
import type { ExecutionResult } from 'graphql';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { createDirect } from '../../src/graphql/direct.ts';
import { startEdges, type Edges } from '../support/edges.ts';
import { conflictOf } from '../support/fake-services.ts';

interface Sent {
  readonly headers: OutgoingHttpHeaders;
  readonly body: string;
}

interface Answered {
  readonly status: number | undefined;
  readonly headers: IncomingMessage['headers'];
  readonly body: string;
}

const JSON_TYPE = { 'content-type': 'application/json' };

async function post(url: string, { headers, body }: Sent): Promise<Answered> {
  const request = httpRequest(url, { method: 'POST', headers: { 'content-length': Buffer.byteLength(body), ...headers }, agent: false });
  request.end(body);
  const [response] = (await once(request, 'response')) as [IncomingMessage];
  let text = '';
  for await (const chunk of response.setEncoding('utf8')) text += String(chunk);
  const { date: _date, ...rest } = response.headers;
  return { status: response.statusCode, headers: rest, body: text };
}

describe('beside the way of Yoga', () => {
  let short: Edges;
  let whole: Edges;
  beforeAll(async () => {
    [short, whole] = [await startEdges(), await startEdges()];
    for (const { fail, conflicts, users } of [short, whole]) {
      fail('peers', new Error('secret: a connection string'));
      for (const id of ['1', '2']) conflicts.set(id, conflictOf(id));
      users.set(1, { id: 1, nom: 'Ada "é" \u2028', email: 'ada@x.org', telephone: null, createdAt: new Date(0) });
    }
  });
  afterAll(() => Promise.all([short.close(), whole.close()]));

  /** A query string, be it empty of meaning, is none of the short way's. */
  const compare = async (sent: Sent): Promise<Answered> => {
    const [one, other] = [await post(`${short.url}/graphql`, sent), await post(`${whole.url}/graphql?way=whole`, sent)];
    expect(one).toEqual(other);
    const [logged, expected] = [short, whole].map(({ logged: all }) => all.splice(0).map((line) => JSON.stringify(line)));
    expect(logged).toEqual(expected);
    expect([...short.users]).toEqual([...whole.users]);
    return one;
  };

  const aliased = `{ ${Array.from({ length: 120 }, (_, i) => `a${i}: users { id }`).join(' ')} }`;
  // No subscription: its answer does not end, and the short way does not take it, as a test below shows.
  const documents = fc.constantFrom(
    '{ __typename }',
    '{ users { id nom email telephone createdAt } }',
    '{ users(first: 1) { id updatedAt version conflict { id kind versions { replica values } } } }',
    'query One($id: ID!) { user(id: $id) { id nom } } query Two { users { id } }',
    'query ($id: ID! = 1, $with: Boolean = true) { user(id: $id) @include(if: $with) { nom ...more } } fragment more on User { email }',
    'mutation ($input: CreateUserInput!) { createUser(input: $input) { id nom version } }',
    'mutation ($id: ID!) { first: updateUser(id: $id, input: { nom: "Grace" }) { nom } second: updateUser(id: $id, input: {}) { nom } }',
    'mutation { resolveConflict(id: 2, chosenVersion: "a") { id status } }',
    'mutation { addPeer(name: "c", url: "http://127.0.0.1:1") { name state } }',
    '{ replica { name peers { name } } }',
    '{ users(first: 5000) { id } conflicts { id } }',
    '{ a { b } }',
    '{ users { id ',
    '',
    'fragment f on User { id }',
    aliased,
    `{ ${'__typename '.repeat(6000)} }`,
    '{ __schema { types { name fields { name type { name ofType { name } } } } } }',
  );
  const variables = fc.constantFrom<unknown>(undefined, null, {}, { id: 1 }, { id: 'x' }, { id: 9 }, { with: false }, { input: { nom: 'Ada', email: 'a@x.org' } }, { input: { nom: '', email: 7 } }, { extra: [{}] }, [], 'text');
  const operationName = fc.constantFrom<unknown>(undefined, null, 'One', 'Two', 'Three', '', 7);
  const params = fc.record({ query: fc.oneof({ weight: 20, arbitrary: documents }, fc.constantFrom<unknown>(undefined, null, 7, {})), variables, operationName });
  const body = fc.oneof(
    { weight: 20, arbitrary: params.map((one) => JSON.stringify(one)) },
    params.map((one) => JSON.stringify({ ...one, extensions: { persisted: 1 } })),
    params.map((one) => JSON.stringify({ ...one, more: 1 })),
    params.map((one) => `\uFEFF ${JSON.stringify(one)}`),
    params.map((one) => JSON.stringify([one, one])),
    fc.constantFrom('', 'null', '7', '"text"', '[]', '{"query":', '{"__proto__":{"query":"{__typename}"}}'),
  );
  const accept = fc.constantFrom(
    undefined,
    '*/*',
    'application/json',
    'application/graphql-response+json',
    'application/graphql-response+json, application/json',
    'application/graphql-response+json,application/json;q=0.9',
    'application/json, application/graphql-response+json',
    'application/json, text/plain, */*',
    'application/json, */*',
    'application/json; charset=latin1',
    'multipart/mixed',
    'image/png',
    '',
  );
  const contentType = fc.oneof({ weight: 8, arbitrary: fc.constant('application/json') }, fc.constantFrom('application/json; charset=utf-8', 'application/json;charset=UTF-8', 'application/graphql+json', 'application/json; charset=latin1', 'text/plain', ''));

  const sent = fc.record({ body, accept, contentType, authorization: fc.constantFrom(undefined, 'Bearer a') }).map(
    (one): Sent => ({
      body: one.body,
      headers: {
        'content-type': one.contentType,
        ...(one.accept === undefined ? {} : { accept: one.accept }),
        ...(one.authorization === undefined ? {} : { authorization: one.authorization }),
      },
    }),
  );

  it('answers any request alike', async () => {
    await fc.assert(fc.asyncProperty(sent, async (one) => void (await compare(one))), { numRuns: 400 });
  });

  it.each<[string, string, RegExp]>([
    ['a fault is masked, and logged', '{ replica { peers { name } } }', /"code":"INTERNAL_SERVER_ERROR"/],
    ['an expected error keeps its code', 'mutation { updateUser(id: 99, input: { nom: "x" }) { id } }', /"code":"NOT_FOUND"/],
    ['a document that does not validate', '{ nothing }', /"code":"[A-Z_]+"/],
    ['a document past a limit', aliased, /"code":"[A-Z_]+"/],
  ])('%s', async (_what, query, text) => {
    for (const kind of ['application/json', 'application/graphql-response+json']) {
      const answer = await compare({ headers: { ...JSON_TYPE, accept: kind }, body: JSON.stringify({ query }) });
      expect(answer.body).toMatch(text);
      expect(answer.body).not.toMatch(/secret|unexpected|"http"/);
    }
  });
});

describe('which way is taken', () => {
  let url: string;
  let taken: string[];
  let result: ExecutionResult;
  const server = createServer((request, response) => void handle(request, response));
  const handle = createDirect(
    {
      graphqlEndpoint: '/graphql',
      async getResultForParams({ params, request }) {
        taken.push(`short ${String(params.query)} ${request.headers.get('Authorization')}`);
        return result;
      },
    },
    async (request, response) => {
      const { body = request } = request as { body?: AsyncIterable<Buffer> };
      let text = '';
      for await (const chunk of body) text += String(chunk);
      taken.push(`whole ${text}`);
      response.end();
    },
  );
  beforeAll(async () => {
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/graphql`;
  });
  afterAll(() => void server.close());
  beforeEach(() => {
    taken = [];
    result = { data: { a: 1 } };
  });

  it.each(['*/*', 'application/json', 'application/graphql-response+json', 'application/graphql-response+json, application/json', 'application/json, text/plain, */*'])('the short one for JSON, accepting %s', async (accept) => {
    const answer = await post(url, { headers: { ...JSON_TYPE, accept, authorization: 'Bearer x' }, body: '{"query":"{a}","variables":{}}' });
    expect(taken).toEqual(['short {a} Bearer x']);
    expect(answer).toMatchObject({ status: 200, body: '{"data":{"a":1}}' });
  });

  it.each<[string, OutgoingHttpHeaders, string]>([
    ['a subscription', {}, '{"query":"subscription { a }"}'],
    ['several operations at once', {}, '[{"query":"{a}"}]'],
    ['what is not JSON', {}, '{'],
    ['a parameter of another name', {}, '{"query":"{a}","id":1}'],
    ['variables that are no object', {}, '{"query":"{a}","variables":[]}'],
    ['another type', { 'content-type': 'application/graphql+json' }, '{"query":"{a}"}'],
    ['an encoded body', { 'content-encoding': 'gzip' }, '{"query":"{a}"}'],
    ['another form of answer', { accept: 'text/event-stream' }, '{"query":"{a}"}'],
  ])("Yoga's for %s, body and all", async (_what, headers, body) => {
    await post(url, { headers: { ...JSON_TYPE, ...headers }, body });
    expect(taken).toEqual([`whole ${body}`]);
  });

  it('a client that goes before its body has come leaves nothing behind', async () => {
    const request = httpRequest(url, { method: 'POST', headers: { ...JSON_TYPE, 'content-length': 100 }, agent: false });
    request.on('error', () => {});
    const [seen] = await Promise.all([once(server, 'request'), request.write('{"query"')]);
    request.destroy();
    // Not `once` of node:events, which an error would reject.
    await new Promise((resolve) => (seen[0] as IncomingMessage).once('close', resolve));
    expect(taken).toEqual([]);
  });
});
