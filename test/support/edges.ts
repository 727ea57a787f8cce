/** A whole server over fake services, on a port of its own. */
import { createGraphQL } from '../../src/graphql/server.ts';
import { createRest } from '../../src/rest/app.ts';
import { createServer, type RequestHandler, type ServerOptions } from '../../src/server.ts';
import { createMetrics } from '../../src/telemetry/metrics.ts';
import { createFake, type Fake } from './fake-services.ts';

export interface Edges extends Fake {
  readonly url: string;
  readonly port: number;
  /** What was logged as an error. */
  readonly logged: unknown[];
  graphql(query: string, variables?: object): Promise<GraphQLAnswer>;
  rest(method: string, path: string, body?: unknown): Promise<Response>;
  close(): Promise<void>;
}

export interface GraphQLAnswer {
  // Answers of many shapes are looked into by path; what is not there fails the test.
  readonly data?: Record<string, never> | null;
  readonly errors?: { message: string; path?: string[]; extensions: { code: string; errors?: { field: string; message: string }[] } }[];
}

/**
 * @param options - Of the server; where left out, its usual ones and an endpoint for peers that tells what it was sent.
 * @param over - What to use in place of a fake.
 */
export async function startEdges(options: Partial<ServerOptions> = {}, over: Partial<Pick<Fake, 'prisma' | 'services'>> = {}): Promise<Edges> {
  const fake = { ...createFake(), ...over };
  const logged: unknown[] = [];
  const logger = { error: (...message: unknown[]) => void logged.push(message), warn: () => {} };
  const { services, prisma } = fake;
  const metrics = createMetrics({
    peers: ['b'],
    models: ['User'],
    source: { peers: services.status.peers, pendingConflicts: services.status.pendingConflicts,
      recordsSetAside: services.asides.count,
      tombstones: services.status.tombstones, recordsWaiting: services.status.recordsWaiting, fenceSeconds: async () => 0, leading: () => true },
    logger,
  });
  const server = createServer({
    graphql: createGraphQL({ services, prisma, logger }),
    rest: createRest({ services, metrics, logger }),
    peerEndpoint: echo,
    logger,
    ...options,
  });
  const { port } = await server.listen(0, '127.0.0.1');
  const url = `http://127.0.0.1:${port}`;
  return {
    ...fake,
    url,
    port,
    logged,
    async graphql(query, variables) {
      const response = await fetch(`${url}/graphql`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ query, variables }),
      });
      return (await response.json()) as GraphQLAnswer;
    },
    rest: (method, path, body) =>
      fetch(url + path, {
        method,
        ...(body === undefined ? {} : { headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) }),
      }),
    close: () => server.close(),
  };
}

const echo: RequestHandler = (request, response) => {
  let bytes = 0;
  request.on('data', (chunk: Buffer) => {
    bytes += chunk.length;
  });
  request.on('end', () => response.end(JSON.stringify({ path: request.url, bytes })));
};

/** Waits until it holds, for what happens a moment later. */
export async function until(holds: () => boolean, ms = 3_000): Promise<void> {
  const end = Date.now() + ms;
  while (!holds()) {
    if (Date.now() > end) throw new Error(`not within ${ms} ms`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
