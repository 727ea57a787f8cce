/** REST: thin shims over the services, OpenAPI printed from their schemas, health and metrics. */
import type { IncomingMessage, ServerResponse } from 'node:http';

import { getRequestListener } from '@hono/node-server';
import { OpenAPIHono } from '@hono/zod-openapi';
import type { Logger } from 'pino';

import type { Services } from '../services/services.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import { conflictRoutes } from './conflicts.ts';
import { docRoutes } from './docs.ts';
import { healthRoutes } from './health.ts';
import { problem, problemOf } from './problem.ts';
import { replicationRoutes } from './replication.ts';
import { addRoutes } from './route.ts';
import { userRoutes } from './users.ts';

export interface RestOptions {
  readonly services: Services;
  readonly metrics: Pick<Metrics, 'contentType' | 'scrape'>;
  readonly logger: Pick<Logger, 'error'>;
}

export interface RestEdge {
  /** Answers a request; its body's size is the caller's to limit. Never rejects. */
  handle(request: IncomingMessage, response: ServerResponse): Promise<void>;
  /** The OpenAPI 3.1 document. */
  openapi(): object;
}

/** @returns the REST edge of one replica. */
export function createRest({ services, metrics, logger }: RestOptions): RestEdge {
  const app = new OpenAPIHono();
  const fail = (error: unknown, path: string): Response => {
    logger.error({ err: error, path }, 'a REST request failed');
    return problem('INTERNAL_SERVER_ERROR', 'Something went wrong on the server. Its log says what.');
  };
  const openapi = (): object =>
    app.getOpenAPI31Document({
      openapi: '3.1.0',
      info: {
        title: 'Replique',
        version: '1',
        description: 'Users, conflicts and synchronisation of one replica. Errors are `application/problem+json` with a `code`.',
      },
    });

  addRoutes(app, [
    ...userRoutes(services),
    ...conflictRoutes(services),
    ...replicationRoutes(services),
    ...healthRoutes(services.status, metrics),
    ...docRoutes(openapi),
  ]);
  app.notFound(({ req }) => problem('NOT_FOUND', `nothing is served at ${req.path}; /docs lists what is`));
  app.onError((error, { req }) => problemOf(error) ?? fail(error, req.path));

  const listener = getRequestListener(app.fetch, {
    overrideGlobalObjects: false,
    errorHandler: (error) => fail(error, ''),
  });
  return {
    async handle(request, response) {
      try {
        await listener(request, response);
      } catch (error) {
        logger.error({ err: error }, 'a REST request failed');
        response.destroy();
      }
    },
    openapi,
  };
}
