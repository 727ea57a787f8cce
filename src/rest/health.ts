/** Whether this replica lives, whether it is ready, and its metrics. */
import { z } from '@hono/zod-openapi';

import type { ReplicaStatus } from '../services/status.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import { problem, PROBLEM_TYPE, problemSchema } from './problem.ts';
import { json, type Route } from './route.ts';

const okSchema = z.object({ status: z.literal('ok') });

/** A probe gives up after a second or so; saying no in time is better than saying nothing. */
const READY_TIMEOUT_MS = 900;

/** @returns `/livez`, which never touches the database, `/readyz`, which does and asks no peer, and `/metrics`. */
export function healthRoutes(status: ReplicaStatus, metrics: Pick<Metrics, 'contentType' | 'scrape'>): Route[] {
  return [
    {
      method: 'get',
      path: '/livez',
      tags: ['Health'],
      summary: 'Does the process answer?',
      responses: { 200: json('It does.', okSchema) },
      handle: () => Response.json({ status: 'ok' }),
    },
    {
      method: 'get',
      path: '/readyz',
      tags: ['Health'],
      summary: 'Does the database answer, and is it migrated?',
      responses: {
        200: json('It does, and is.', okSchema),
        503: { description: 'NOT_READY: not yet, or not any more.', content: { [PROBLEM_TYPE]: { schema: problemSchema } } },
      },
      handle: async () =>
        (await isReady(status))
          ? Response.json({ status: 'ok' })
          : problem('NOT_READY', 'the database does not answer or is not migrated; look at the log of this replica'),
    },
    {
      method: 'get',
      path: '/metrics',
      tags: ['Health'],
      summary: 'Metrics for Prometheus',
      responses: { 200: { description: 'The metrics.', content: { 'text/plain': { schema: z.string() } } } },
      handle: async () => new Response(await metrics.scrape(), { headers: { 'content-type': metrics.contentType } }),
    },
  ];
}

async function isReady(status: ReplicaStatus): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<boolean>((resolve) => {
    timer = setTimeout(() => resolve(false), READY_TIMEOUT_MS);
  });
  try {
    return await Promise.race([status.ready(), late]);
  } catch {
    return false;
  } finally {
    clearTimeout(timer);
  }
}
