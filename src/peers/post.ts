/**
 * One HTTP request to a peer. By node:http, not by `fetch`: that compiles a parser of its own when it is first used, which takes some 30 MiB for a moment.
 */
import * as http from 'node:http';
import * as https from 'node:https';

export interface Posted {
  readonly status: number;
  readonly text: string;
}

/** The answer is larger than it may be. */
export class TooLargeError extends Error {}

/** Connections stay open between requests; what waits for the next keeps no process alive. */
const AGENTS = { 'http:': new http.Agent({ keepAlive: true }), 'https:': new https.Agent({ keepAlive: true }) };

/**
 * Posts a text, and reads the answer to its end. A redirect is an answer like any other.
 *
 * A connection that was kept open may be closed by the other side just as it is used again: then the request is made once more. It may have arrived all the same, which a message between replicas bears.
 *
 * @param most - Bytes of the answer at most.
 * @param onProcessing - Told where the other side says, before it answers, that it has all of the message (status 102).
 * @throws TooLargeError, or the connection's error.
 */
export async function postText(url: string, headers: http.OutgoingHttpHeaders, body: string, most: number, signal: AbortSignal, onProcessing?: () => void): Promise<Posted> {
  for (;;) {
    const request = begin(new URL(url), headers, signal);
    let isAnswered = false;
    request.once('response', () => (isAnswered = true));
    request.on('information', ({ statusCode }) => void (statusCode === 102 && onProcessing?.()));
    try {
      return await answered(request, body, most);
    } catch (error) {
      const stale = request.reusedSocket && !isAnswered && /^(ECONNRESET|EPIPE)$/.test((error as NodeJS.ErrnoException).code ?? '');
      if (!stale || signal.aborted) throw error;
    }
  }
}

function begin(url: URL, headers: http.OutgoingHttpHeaders, signal: AbortSignal): http.ClientRequest {
  const options = { method: 'POST', headers, signal };
  return url.protocol === 'https:' ? https.request(url, { ...options, agent: AGENTS['https:'] }) : http.request(url, { ...options, agent: AGENTS['http:'] });
}

function answered(request: http.ClientRequest, body: string, most: number): Promise<Posted> {
  return new Promise((resolve, reject) => {
    request.on('error', reject);
    request.on('response', (response) => {
      const chunks: Buffer[] = [];
      let bytes = 0;
      response.on('data', (chunk: Buffer) => {
        bytes += chunk.length;
        chunks.push(chunk);
        if (bytes > most) request.destroy(new TooLargeError(`the answer is larger than ${most} bytes`));
      });
      response.on('end', () => resolve({ status: response.statusCode as number, text: Buffer.concat(chunks).toString('utf8') }));
      response.on('error', reject);
    });
    request.end(body);
  });
}
