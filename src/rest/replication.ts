/** Synchronisation and the resolving of many conflicts, over REST. */
import { z } from '@hono/zod-openapi';

import { localId, parse } from '../services/input.ts';
import type { Services } from '../services/services.ts';
import { json, problems, readJson, type Route } from './route.ts';

const syncSchema = z
  .object({
    peer: z.string(),
    sent: z.int(),
    applied: z.int(),
    skipped: z.int(),
    conflicts: z.int().openapi({ description: 'How many were newly detected.' }),
    duration_ms: z.number(),
  })
  .openapi('SyncResult');

const strategySchema = z.enum(['latest', 'field-wise']);

const resolveBody = z
  .strictObject({
    strategy: strategySchema,
    ids: z.array(localId).optional().openapi({ description: 'Only these; all that are pending where it is left out.' }),
  })
  .openapi('ResolveConflicts');

const resolutionSchema = z
  .object({
    strategy: strategySchema,
    resolved: z.int(),
    remaining: z.int(),
    undelivered: z
      .array(z.object({ peer: z.string(), reason: z.string() }))
      .openapi({ description: 'The peers that have not got the outcome yet; the next sync carries it.' }),
    duration_ms: z.number(),
  })
  .openapi('ResolutionResult');

const SYNC = 'sync-to-';

/** @returns the routes of `/api/v1/sync-to-{peer}` and `/api/v1/resolve-conflicts`. */
export function replicationRoutes({ sync, conflicts }: Services): Route[] {
  return [
    {
      method: 'post',
      path: '/api/v1/sync-to-{peer}',
      // Hono has no parameter for part of a segment.
      pattern: `/api/v1/:target{${SYNC}[^/]+}`,
      tags: ['Replication'],
      summary: 'Send a peer every change it has not acknowledged',
      request: { params: z.object({ peer: z.string().openapi({ example: 'b' }) }) },
      responses: { 200: json('What was sent.', syncSchema), ...problems(404, 502) },
      async handle({ req }) {
        const { peer, sent, applied, skipped, conflictsDetected, durationMs } = await sync.syncTo(
          (req.param('target') ?? '').slice(SYNC.length),
        );
        return Response.json({ peer, sent, applied, skipped, conflicts: conflictsDetected, duration_ms: durationMs });
      },
    },
    {
      method: 'post',
      path: '/api/v1/resolve-conflicts',
      tags: ['Replication'],
      summary: 'Resolve the pending conflicts, or those named',
      request: { body: { required: true, content: { 'application/json': { schema: resolveBody, example: { strategy: 'field-wise' } } } } },
      responses: { 200: json('What was resolved.', resolutionSchema), ...problems(400, 404, 413, 415) },
      async handle(context) {
        const { strategy, ids } = parse(resolveBody, await readJson(context), 'body');
        const result = await conflicts.resolveAll(strategy === 'latest' ? 'LATEST' : 'FIELD_WISE', ids);
        const { resolved, remaining, undelivered, durationMs } = result;
        return Response.json({ strategy, resolved, remaining, undelivered, duration_ms: durationMs });
      },
    },
  ];
}
