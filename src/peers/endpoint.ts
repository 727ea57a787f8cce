/**
 * Answering peers: `POST /replication/v1/{handshake,changes,digest,inspect,resend}`. Whatever comes in is checked whole before anything is done, and nothing of it can take the replica down.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { z } from 'zod';

import {
  AHEAD,
  changesRequest,
  digestRequest,
  handshakeRequest,
  inspectRequest,
  resendRequest,
  type ChangesRequest,
  type ChangesResponse,
  type DigestRequest,
  type DigestResponse,
  type HandshakeRequest,
  type HandshakeResponse,
  type InspectRequest,
  type InspectResponse,
  type Refusal,
  type RefusalCode,
  type ResendRequest,
  type ResendResponse,
} from '../replication/protocol.ts';

/** What answers the messages. Each may throw a RefusalError; any other error is told to the peer as FAILED, without its text. */
export interface PeerHandlers {
  handshake(request: HandshakeRequest): Promise<HandshakeResponse>;
  /** The sender may send the next batch before this one is answered: they are taken in the order of the calls. */
  changes(request: ChangesRequest): Promise<ChangesResponse>;
  digest(request: DigestRequest): Promise<DigestResponse>;
  inspect(request: InspectRequest): Promise<InspectResponse>;
  resend(request: ResendRequest): Promise<ResendResponse>;
}

export interface PeerEndpointOptions {
  readonly handlers: PeerHandlers;
  /** Shared by all peers; null: none is asked for. */
  readonly secret: string | null;
  readonly onError: (error: unknown, path: string) => void;
}

/** A message that is refused: what is wrong, why, and what to change. */
export class RefusalError extends Error {
  readonly code: RefusalCode;

  constructor(code: RefusalCode, message: string) {
    super(message);
    this.code = code;
  }
}

/** A batch is about 8 MiB; one large record may be more. */
const MAX_BODY_BYTES = 64 * 1024 * 1024;

const STATUS: Readonly<Record<RefusalCode, number>> = {
  REFUSED: 409,
  CHECKPOINT_MISMATCH: 409,
  BAD_MESSAGE: 400,
  UNAUTHENTICATED: 401,
  TOO_LARGE: 413,
  FAILED: 500,
};

/** @returns answers one request; over when the work is, even where the caller has gone meanwhile. Never rejects. */
export function createPeerEndpoint({ handlers, secret, onError }: PeerEndpointOptions): (request: IncomingMessage, response: ServerResponse) => Promise<void> {
  /** `taken` tells the caller that the whole message is here, and is in order. */
  const routes: Readonly<Record<string, (body: unknown, taken: () => void) => Promise<object>>> = {
    '/replication/v1/handshake': (body) => handlers.handshake(check(handshakeRequest, body)),
    '/replication/v1/changes': (body, taken) => {
      const batch = check(changesRequest, body);
      taken();
      return handlers.changes(batch);
    },
    '/replication/v1/digest': (body) => handlers.digest(check(digestRequest, body)),
    '/replication/v1/inspect': (body) => handlers.inspect(check(inspectRequest, body)),
    '/replication/v1/resend': (body) => handlers.resend(check(resendRequest, body)),
  };

  async function answer(request: IncomingMessage, taken: () => void): Promise<object> {
    const path = request.url?.split('?')[0] ?? '';
    const route = Object.hasOwn(routes, path) ? routes[path] : undefined;
    if (route === undefined) throw new RefusalError('BAD_MESSAGE', `${path} is not of this protocol's version 1. Run the same version of Replique everywhere.`);
    if (request.method !== 'POST') throw new RefusalError('BAD_MESSAGE', `${path} takes POST`);
    if (!isAuthentic(request.headers.authorization, secret)) {
      throw new RefusalError('UNAUTHENTICATED', 'it asks for another PEER_SECRET. Give both the same.');
    }
    // A page in a browser on this machine could send anything but this type without being asked.
    if (!/^application\/json\b/i.test(request.headers['content-type'] ?? '')) {
      throw new RefusalError('BAD_MESSAGE', 'a message is application/json');
    }
    return route(parse(await readBody(request)), taken);
  }

  return async (request, response) => {
    try {
      const taken = (): void => {
        if (request.headers[AHEAD] !== undefined && !response.destroyed) response.writeProcessing();
      };
      send(response, 200, await answer(request, taken));
    } catch (error) {
      const refused = error instanceof RefusalError ? error : new RefusalError('FAILED', 'it failed; its log says why');
      if (!(error instanceof RefusalError)) onError(error, request.url ?? '');
      send(response, STATUS[refused.code], { code: refused.code, message: refused.message } satisfies Refusal);
      // What is left of a body that was not read to its end.
      request.resume();
    }
  };
}

function check<T extends z.ZodType>(schema: T, body: unknown): z.output<T> {
  const result = schema.safeParse(body);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  throw new RefusalError('BAD_MESSAGE', `${issue?.path.join('.') || 'the message'}: ${issue?.message}. Run the same version of Replique everywhere.`);
}

function isAuthentic(header: string | undefined, secret: string | null): boolean {
  if (secret === null) return true;
  const digest = (text: string): Buffer => createHash('sha256').update(text).digest();
  return timingSafeEqual(digest(header ?? ''), digest(`Bearer ${secret}`));
}

/** By its events: leaving an iterator over the request early would cut the connection before the refusal is sent. */
function readBody(request: IncomingMessage): Promise<Buffer> {
  const tooLarge = (): RefusalError => new RefusalError('TOO_LARGE', `a message is at most ${MAX_BODY_BYTES} bytes`);
  if (Number(request.headers['content-length'] ?? 0) > MAX_BODY_BYTES) return Promise.reject(tooLarge());
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let bytes = 0;
    request.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes <= MAX_BODY_BYTES) chunks.push(chunk);
      else {
        chunks.length = 0;
        reject(tooLarge());
      }
    });
    let isOver = false;
    request.on('end', () => {
      isOver = true;
      resolve(Buffer.concat(chunks));
    });
    for (const event of ['error', 'close']) {
      request.on(event, () => {
        // After its end it changes nothing, and an error takes long to make.
        if (!isOver) reject(new RefusalError('BAD_MESSAGE', 'the message ended too early'));
      });
    }
  });
}

function parse(body: Buffer): unknown {
  try {
    return JSON.parse(body.toString('utf8'));
  } catch {
    throw new RefusalError('BAD_MESSAGE', 'the message is no JSON');
  }
}

function send(response: ServerResponse, status: number, body: object): void {
  if (response.destroyed || response.headersSent) return;
  const text = Buffer.from(JSON.stringify(body));
  response.writeHead(status, { 'content-type': 'application/json', 'content-length': text.length });
  response.end(text);
}
