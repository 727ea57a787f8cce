/** Talking to a peer: the messages of the protocol over HTTP, each answer checked before it is believed. */
import type { z } from 'zod';

import {
  AHEAD,
  changesResponse,
  digestResponse,
  handshakeResponse,
  inspectResponse,
  encodeChanges,
  refusal,
  resendResponse,
  type ChangesResponse,
  type DigestRequest,
  type DigestResponse,
  type HandshakeRequest,
  type HandshakeResponse,
  type InspectRequest,
  type InspectResponse,
  type OutgoingChanges,
  type RefusalCode,
  type ResendRequest,
  type ResendResponse,
} from '../replication/protocol.ts';
import { postText, TooLargeError, type Posted } from './post.ts';

export interface PeerClientOptions {
  readonly name: string;
  /** `http://127.0.0.1:8002`, with or without a path before `/replication/`. */
  readonly url: string;
  /** Shared by all peers; null where they are all on one machine. */
  readonly secret: string | null;
  /** How long an answer may take, in milliseconds; 10 s for a handshake or digest, 120 s for changes unless given. */
  readonly patience?: { readonly handshake: number; readonly changes: number };
}

export interface PeerClient {
  readonly name: string;
  readonly url: string;
  /** Each throws PeerUnreachableError or PeerRejectedError. The signal gives up waiting. */
  handshake(request: HandshakeRequest, signal?: AbortSignal): Promise<HandshakeResponse>;
  /** @param onTaken - Told where the peer has all of the batch and has yet to answer: then the next may be sent. Without it the peer does not say so. */
  changes(request: OutgoingChanges, signal?: AbortSignal, onTaken?: () => void): Promise<ChangesResponse>;
  digest(request: DigestRequest, signal?: AbortSignal): Promise<DigestResponse>;
  inspect(request: InspectRequest, signal?: AbortSignal): Promise<InspectResponse>;
  resend(request: ResendRequest, signal?: AbortSignal): Promise<ResendResponse>;
}

/** The peer did not answer, or not to the end. */
export class PeerUnreachableError extends Error {}

/** The peer refused, or answered what is not of the protocol. */
export class PeerRejectedError extends Error {
  readonly code: RefusalCode;

  constructor(code: RefusalCode, message: string) {
    super(message);
    this.code = code;
  }
}

/** An answer's size at most; a peer's differing states are bounded to less. */
const MAX_ANSWER_BYTES = 64 * 1024 * 1024;
/** Applying a large batch on a busy machine takes seconds, not minutes. */
const PATIENCE = { handshake: 10_000, changes: 120_000 };

export function createPeerClient({ name, url, secret, patience = PATIENCE }: PeerClientOptions): PeerClient {
  const base = `${url.replace(/\/+$/, '')}/replication/v1`;

  async function post<T extends z.ZodType>(path: string, body: object | string, schema: T, timeout: number, signal?: AbortSignal, onTaken?: () => void): Promise<z.output<T>> {
    const controller = new AbortController();
    const abort = (): void => controller.abort();
    const timer = setTimeout(abort, timeout);
    // By hand: AbortSignal.any would keep something of each call for as long as a signal lives that lasts.
    signal?.addEventListener('abort', abort);
    if (signal?.aborted) abort();
    let posted: Posted;
    try {
      const headers = { 'content-type': 'application/json', ...(secret !== null && { authorization: `Bearer ${secret}` }), ...(onTaken && { [AHEAD]: '1' }) };
      posted = await postText(`${base}/${path}`, headers, typeof body === 'string' ? body : JSON.stringify(body), MAX_ANSWER_BYTES, controller.signal, onTaken);
    } catch (error) {
      if (error instanceof TooLargeError) {
        throw new PeerRejectedError('TOO_LARGE', `the answer of ${url} to the ${path} is larger than ${MAX_ANSWER_BYTES} bytes. Nothing was changed here.`);
      }
      if (signal?.aborted) throw new PeerUnreachableError(`peer "${name}" at ${url} was not waited for: this replica is stopping.`);
      const cause = controller.signal.aborted ? `nothing for ${timeout / 1000} s` : causeOf(error);
      throw new PeerUnreachableError(`peer "${name}" at ${url} did not answer: ${cause}. Is it running?`);
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener('abort', abort);
    }
    const { status, text } = posted;
    const answer = parseJson(text);
    if (status !== 200) {
      const refused = refusal.safeParse(answer);
      if (refused.success) {
        throw new PeerRejectedError(refused.data.code, `peer "${name}" refused the ${path}: ${refused.data.message}`);
      }
      throw new PeerRejectedError('BAD_MESSAGE', `${url} answered the ${path} with status ${status}: no replica of this protocol is there. Check PEERS.`);
    }
    const result = schema.safeParse(answer);
    if (!result.success) {
      const issue = result.error.issues[0];
      throw new PeerRejectedError(
        'BAD_MESSAGE',
        `peer "${name}" answered the ${path} with what is not of the protocol (${issue?.path.join('.') || 'the whole'}: ${issue?.message}). Nothing was changed here.`,
      );
    }
    return result.data;
  }

  return {
    name,
    url,
    handshake: (request, signal) => post('handshake', request, handshakeResponse, patience.handshake, signal),
    changes: (request, signal, onTaken) => post('changes', encodeChanges(request), changesResponse, patience.changes, signal, onTaken),
    digest: (request, signal) => post('digest', request, digestResponse, patience.handshake, signal),
    inspect: (request, signal) => post('inspect', request, inspectResponse, patience.changes, signal),
    resend: (request, signal) => post('resend', request, resendResponse, patience.changes, signal),
  };
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Of several addresses that were tried, the first one's error. */
function causeOf(error: unknown): string {
  const inner: unknown = error instanceof AggregateError ? error.errors[0] : error;
  const { message, code } = inner as NodeJS.ErrnoException;
  return message || (code ?? 'it is not said why');
}
