/**
 * One port for everything: GraphQL over HTTP and WebSocket, the peers' endpoint, REST and the rest.
 *
 * The size of a body is limited here, in node:http, before anything is kept of it.
 */
import { once } from 'node:events';
import { createServer as createHttpServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Readable, type Duplex } from 'node:stream';

import type { Logger } from 'pino';

import type { GraphQLEdge } from './graphql/server.ts';
import type { RestEdge } from './rest/app.ts';

/** A handler of whole requests, as node:http calls them. What it returns is over when its work is, which may outlive the connection; it never rejects. */
export type RequestHandler = (request: IncomingMessage, response: ServerResponse) => Promise<void> | void;

export interface ServerOptions {
  readonly graphql: GraphQLEdge;
  readonly rest: RestEdge;
  /** Answers everything below `/replication/`, and limits its bodies itself. */
  readonly peerEndpoint: RequestHandler;
  readonly logger: Pick<Logger, 'error'>;
  /** Bytes of a body of GraphQL or REST; 1 MiB unless given. */
  readonly maxBodyBytes?: number;
  /** How long `close` waits for requests under way, and for what is still being done for callers that have gone, before it cuts them; 2 s unless given. */
  readonly closeGraceMs?: number;
}

export interface Server {
  /** @returns the address it listens on. @throws where the port is taken or not allowed. */
  listen(port: number, host: string): Promise<AddressInfo>;
  /** Takes no more requests, ends subscriptions, lets requests under way finish, and cuts what is left. */
  close(): Promise<void>;
}

const GRAPHQL = '/graphql';
const PEERS = '/replication/';
const MIB = 1024 * 1024;
/** How much of a refused body is read and thrown away, so that its sender gets to see the answer. */
const DRAIN_BYTES = 16 * MIB;
const DRAIN_MS = 1_000;

export function createServer(options: ServerOptions): Server {
  const { graphql, rest, peerEndpoint, logger, maxBodyBytes = MIB, closeGraceMs = 2_000 } = options;
  const http = createHttpServer();
  let closing = false;
  const underWay = new Set<Promise<void>>();
  const track = (work: Promise<void> | void): void => {
    if (work === undefined) return;
    underWay.add(work);
    void work.finally(() => underWay.delete(work));
  };
  /** Connections that have asked for nothing yet, as browsers open them in advance: node does not count them as idle. */
  const silent = new Set<Duplex>();
  http.on('connection', (socket) => {
    silent.add(socket);
    socket.once('close', () => silent.delete(socket));
  });

  const route = (request: IncomingMessage, response: ServerResponse, proceed: () => void = () => {}): void => {
    silent.delete(request.socket);
    if (closing) response.shouldKeepAlive = false;
    if (!normalize(request)) {
      refuseAsProblem(request, response, REFUSALS.malformed);
      return;
    }
    const path = pathOf(request);
    if (path.startsWith(PEERS)) {
      proceed();
      track(peerEndpoint(request, response));
      return;
    }
    const isGraphQL = path === GRAPHQL;
    const refuse = (status: Refusal): void => {
      if (isGraphQL) refuseAsGraphQL(request, response, status);
      else refuseAsProblem(request, response, status);
    };
    if (isForged(request)) {
      refuse(REFUSALS.forbidden);
      return;
    }
    const handle = isGraphQL ? graphql.handle : rest.handle;
    const declared = Number(request.headers['content-length'] ?? 0);
    if (declared > maxBodyBytes) {
      refuse(tooLarge(maxBodyBytes));
      return;
    }
    proceed();
    if (request.headers['transfer-encoding'] === undefined) {
      track(handle(request, response));
      return;
    }
    collect(request, maxBodyBytes).then(
      (body) => {
        if (body === undefined) {
          refuse(tooLarge(maxBodyBytes));
          return;
        }
        // Yoga takes a body that was read before from `body`, Hono's adapter from `rawBody`.
        Object.assign(request, { body: Readable.from([body]), rawBody: body });
        track(handle(request, response));
      },
      () => response.destroy(),
    );
  };
  const guarded = (request: IncomingMessage, response: ServerResponse, proceed?: () => void): void => {
    try {
      route(request, response, proceed);
    } catch (error) {
      logger.error({ err: error }, 'a request failed');
      if (!response.headersSent) response.writeHead(500);
      response.end();
    }
  };

  http.on('request', guarded);
  // A client that asks first is told of a body that is too large before it sends it.
  http.on('checkContinue', (request, response) => guarded(request, response, () => response.writeContinue()));
  http.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    silent.delete(socket);
    socket.on('error', () => socket.destroy());
    if (closing) refuseUpgrade(socket, '503 Service Unavailable');
    else if (pathOf(request) !== GRAPHQL) refuseUpgrade(socket, '404 Not Found');
    else if (isCrossSite(request)) refuseUpgrade(socket, '403 Forbidden');
    else graphql.upgrade(request, socket, head);
  });

  return {
    listen(port, host) {
      return new Promise((resolve, reject) => {
        http.once('error', reject);
        http.listen(port, host, () => {
          http.off('error', reject);
          http.on('error', (error) => logger.error({ err: error }, 'the server failed'));
          resolve(http.address() as AddressInfo);
        });
      });
    },
    async close() {
      closing = true;
      const closed = new Promise<void>((resolve) => http.close(() => resolve()));
      const sockets = graphql.close();
      for (const socket of silent) socket.destroy();
      // Connections kept alive become idle as their requests end; node looks for such ones only once.
      const idle = setInterval(() => http.closeIdleConnections(), 20);
      const cut = new AbortController();
      const timer = setTimeout(() => {
        http.closeAllConnections();
        cut.abort();
      }, closeGraceMs);
      await closed;
      // What is done for a caller that has gone still needs the database, which is closed next.
      if (!cut.signal.aborted) await Promise.race([Promise.all([sockets, ...underWay]), once(cut.signal, 'abort')]);
      clearInterval(idle);
      clearTimeout(timer);
    },
  };
}

interface Refusal {
  readonly status: number;
  readonly title: string;
  readonly code: string;
  readonly detail: string;
}

const REFUSALS = {
  malformed: {
    status: 400,
    title: 'Bad Request',
    code: 'BAD_USER_INPUT',
    detail: 'the address or the Host header of the request is malformed',
  },
  forbidden: {
    status: 403,
    title: 'Forbidden',
    code: 'FORBIDDEN',
    detail: 'a page of another site may not write here; call the API from a page of this site, or from outside a browser',
  },
} as const satisfies Record<string, Refusal>;

function tooLarge(maxBodyBytes: number): Refusal {
  return {
    status: 413,
    title: 'Content Too Large',
    code: 'PAYLOAD_TOO_LARGE',
    detail: `the body is larger than ${maxBodyBytes} bytes; send it in smaller parts`,
  };
}

function refuseAsProblem(request: IncomingMessage, response: ServerResponse, { status, title, code, detail }: Refusal): void {
  const body = JSON.stringify({ type: 'about:blank', title, status, detail, code });
  answerEarly(request, response, status, 'application/problem+json', body);
}

function refuseAsGraphQL(request: IncomingMessage, response: ServerResponse, { status, code, detail }: Refusal): void {
  const own = 'application/graphql-response+json';
  const type = request.headers.accept?.includes(own) ? own : 'application/json';
  const body = JSON.stringify({ errors: [{ message: detail, extensions: { code } }] });
  answerEarly(request, response, status, `${type}; charset=utf-8`, body);
}

/**
 * Answers a request whose body is not wanted. The connection is closed only when some of the body has been thrown away: a client
 * that is still sending when its connection goes sees the broken connection instead of the answer.
 */
function answerEarly(request: IncomingMessage, response: ServerResponse, status: number, type: string, body: string): void {
  response.writeHead(status, { 'content-type': type, 'content-length': Buffer.byteLength(body), connection: 'close' });
  response.write(body);
  const end = (): void => {
    clearTimeout(timer);
    response.end();
  };
  const timer = setTimeout(end, DRAIN_MS);
  let drained = 0;
  request.on('data', (chunk: Buffer) => {
    drained += chunk.length;
    if (drained > DRAIN_BYTES) end();
  });
  request.once('end', end).once('close', end).once('error', end).resume();
}

/** @returns a body of unknown length, or undefined as soon as it passes the limit. */
async function collect(request: IncomingMessage, limit: number): Promise<Buffer | undefined> {
  const chunks: Buffer[] = [];
  let length = 0;
  return new Promise((resolve, reject) => {
    const settle = (body: Buffer | undefined): void => {
      request.off('data', take).off('end', finish).off('error', reject);
      resolve(body);
    };
    const finish = (): void => settle(Buffer.concat(chunks, length));
    const take = (chunk: Buffer): void => {
      length += chunk.length;
      if (length > limit) settle(undefined);
      else chunks.push(chunk);
    };
    request.on('data', take).on('end', finish).on('error', reject);
  });
}

/**
 * A write that a page of another site makes in a user's browser. A replica asks nobody who they are, and one on loopback can be
 * reached by any page; browsers say truly where a request comes from, other clients say nothing.
 */
function isForged(request: IncomingMessage): boolean {
  return request.method !== 'GET' && request.method !== 'HEAD' && isCrossSite(request);
}

function isCrossSite(request: IncomingMessage): boolean {
  return request.headers['sec-fetch-site'] === 'cross-site';
}

function refuseUpgrade(socket: Duplex, status: string): void {
  socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
}

/**
 * Gives a request the form that the handlers count on: a path as its target, and a host. Without one, or with one that makes no
 * address, their libraries fail in ways of their own.
 *
 * @returns whether it could.
 */
function normalize(request: IncomingMessage): boolean {
  const target = request.url ?? '/';
  if (!target.startsWith('/')) {
    // A proxy's form of a request: http://host/path.
    if (!/^https?:\/\//i.test(target) || !URL.canParse(target)) return false;
    const { pathname, search } = new URL(target);
    request.url = pathname + search;
  }
  request.headers.host ||= 'localhost';
  return /^[\w.:[\]%-]+$/.test(request.headers.host) && URL.canParse(`http://${request.headers.host}`);
}

function pathOf(request: IncomingMessage): string {
  const url = request.url ?? '/';
  const end = url.indexOf('?');
  return end < 0 ? url : url.slice(0, end);
}
