/**
 * The short way of an operation over HTTP: JSON by POST, as nearly every client sends it, is handed to Yoga's operations and its answer to the socket,
 * past the objects of the Fetch API that Yoga makes of a request, its body and its answer, which cost more than the execution.
 *
 * Checks, plugins, masking, statuses and the text of the answer are Yoga's own on either way. What is not quite the plain case takes Yoga's, body and all; a test
 * compares the answers of both.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { Readable } from 'node:stream';

import { processRegularResult, type GraphQLParams, type YogaServerInstance } from 'graphql-yoga';

import type { Context } from './context.ts';

export type Handler = (request: IncomingMessage, response: ServerResponse) => Promise<void>;

type Yoga = Pick<YogaServerInstance<object, Context>, 'getResultForParams' | 'graphqlEndpoint'>;
type FetchAPI = Parameters<typeof processRegularResult>[1];

const PLAIN_TYPE = /^application\/json(; ?charset=utf-8)?$/i;
const JSON_ANSWER = 'application/json';
const GRAPHQL_ANSWER = 'application/graphql-response+json';
/** What clients ask for in the main, and how Yoga answers it. */
const ANSWERS: ReadonlyMap<string, string> = new Map([
  ['*/*', JSON_ANSWER],
  [JSON_ANSWER, JSON_ANSWER],
  ['application/json, text/plain, */*', JSON_ANSWER],
  ['application/json, */*', JSON_ANSWER],
  [GRAPHQL_ANSWER, GRAPHQL_ANSWER],
  [`${GRAPHQL_ANSWER}, ${JSON_ANSWER}`, GRAPHQL_ANSWER],
  [`${GRAPHQL_ANSWER},${JSON_ANSWER};q=0.9`, GRAPHQL_ANSWER],
]);
const PARAMS = new Set(['query', 'variables', 'operationName', 'extensions']);

/**
 * @param whole - Yoga's own way, for all that is not the plain case.
 * @returns a handler that rejects where an operation cannot be answered at all, and nothing has been sent.
 */
export function createDirect(yoga: Yoga, whole: Handler): Handler {
  return async (request, response) => {
    const type = answerType(request, yoga.graphqlEndpoint);
    if (type === undefined) return whole(request, response);
    const body = await readBody(request);
    // Its sender has gone.
    if (body === undefined) return;
    const params = toParams(body);
    if (params === undefined) {
      // As Yoga's adapter takes a body that was read before.
      return whole(Object.assign(request, { body: Readable.from([body]) }), response);
    }
    const result = await yoga.getResultForParams({ params, request: presented(request) }, {});
    if (result === undefined) throw new Error('an operation ended without a result');
    const { body: text, init } = processRegularResult(result, ANSWER_API, type) as unknown as Answer;
    if (response.destroyed) return;
    response.writeHead(init.status, { ...init.headers, 'content-length': Buffer.byteLength(text) });
    response.end(text);
  };
}

/** The media type of the answer; undefined for a request that is not the plain case. */
function answerType({ method, url, headers }: IncomingMessage, endpoint: string): string | undefined {
  const isPlain =
    method === 'POST' &&
    url === endpoint &&
    headers['content-length'] !== undefined &&
    headers['content-encoding'] === undefined &&
    PLAIN_TYPE.test(headers['content-type'] ?? '');
  return isPlain ? ANSWERS.get(headers.accept ?? '*/*') : undefined;
}

/** The parameters of one operation that is not a subscription; undefined for anything else. */
function toParams(body: Buffer): GraphQLParams | undefined {
  let params: unknown;
  try {
    params = JSON.parse(body.toString());
  } catch {
    return undefined;
  }
  if (!isObject(params) || !Object.keys(params).every((name) => PARAMS.has(name))) return undefined;
  const { query, variables, operationName, extensions } = params;
  // The word stands in every document that holds one, since names have no other spelling.
  if (typeof query !== 'string' || query.includes('subscription')) return undefined;
  if (operationName !== undefined && operationName !== null && typeof operationName !== 'string') return undefined;
  return [variables, extensions].every((part) => part === undefined || part === null || isObject(part)) ? params : undefined;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** @returns undefined where the sender broke it off. */
function readBody(request: IncomingMessage): Promise<Buffer | undefined> {
  return new Promise((settle) => {
    const chunks: Buffer[] = [];
    request
      .on('data', (chunk: Buffer) => chunks.push(chunk))
      .once('end', () => settle(chunks.length === 1 ? chunks[0] : Buffer.concat(chunks)))
      .once('error', () => settle(undefined))
      .once('close', () => settle(undefined));
  });
}

/** As much of a Fetch request as plugins and the context look at. */
function presented({ method, url, headers }: IncomingMessage): Request {
  const get = (name: string): string | null => {
    const value = headers[name.toLowerCase()];
    return value === undefined ? null : Array.isArray(value) ? value.join(', ') : value;
  };
  return { method, url, headers: { get } } as unknown as Request;
}

/** What Yoga makes of a result, in place of a Fetch response. */
class Answer {
  readonly body: string;
  readonly init: { readonly status: number; readonly headers: Record<string, string> };

  constructor(body: string, init: Answer['init']) {
    this.body = body;
    this.init = init;
  }
}

const ANSWER_API = { Response: Answer } as unknown as FetchAPI;
