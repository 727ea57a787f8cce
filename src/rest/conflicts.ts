/** Conflicts over REST. */
import { z } from '@hono/zod-openapi';

import type { Conflict, ConflictVersion } from '../services/conflicts.ts';
import { localId, pageSize, parse } from '../services/input.ts';
import type { Services } from '../services/services.ts';
import { problem } from './problem.ts';
import { json, numberParameter, problems, readJson, type Route } from './route.ts';

const KINDS = { update_update: 'UPDATE_UPDATE', update_delete: 'UPDATE_DELETE', insert_insert: 'INSERT_INSERT', unique: 'UNIQUE' } as const;
const kindSchema = z.enum(['update_update', 'update_delete', 'insert_insert', 'unique']);
const localNumber = z.union([z.int(), z.string()]);
const record = z.record(z.string(), z.unknown());

const conflictSchema = z
  .object({
    id: localNumber,
    timestamp: z.iso.datetime().openapi({ description: 'When it was detected.' }),
    model: z.string(),
    record_id: localNumber,
    kind: kindSchema,
    status: z.enum(['pending', 'resolved']),
    fields: z.array(z.string()),
    resolution: z.enum(['latest', 'field-wise', 'manual']).nullable(),
    resolved_at: z.iso.datetime().nullable(),
  })
  .catchall(record.nullable())
  .openapi('Conflict', {
    description:
      'One member `version_<replica>` for each replica that has a side in it: the record as that replica wrote it, or null where it deleted it. A second side of one replica is named `version_a~2`.',
  });

const statusSchema = z.enum(['pending', 'resolved']);

const resolveBody = z
  .strictObject({
    chosen_version: z.string().optional().openapi({ description: 'The side to keep: `node_a`, or `a`.' }),
    values: record.optional().openapi({ description: 'Values to lay over what this replica shows.' }),
  })
  .openapi('ResolveConflict', { description: 'Either `chosen_version` or `values`.' });

const localNumberInput = localId.clone().openapi({ type: 'integer', minimum: 1 });
const idParameter = z.object({ id: localNumberInput.openapi({ example: 1 }) });
const CONFLICTS = '/api/v1/conflicts';

/** @returns the routes below `/api/v1/conflicts`. */
export function conflictRoutes({ conflicts }: Services): Route[] {
  return [
    {
      method: 'get',
      path: CONFLICTS,
      tags: ['Conflicts'],
      summary: 'List conflicts, newest first',
      request: {
        query: z.object({
          status: statusSchema.optional(),
          kind: kindSchema.optional(),
          model: z.string().optional(),
          record_id: z.string().optional(),
          first: pageSize.optional().openapi({ default: 100, description: 'How many at most.' }),
          after: localNumberInput.optional().openapi({ description: 'The id of the last conflict of the page before.' }),
        }),
      },
      responses: { 200: json('The conflicts.', z.array(conflictSchema)), ...problems(400) },
      async handle({ req }) {
        const status = parse(statusSchema.optional(), req.query('status'), 'status');
        const kind = parse(kindSchema.optional(), req.query('kind'), 'kind');
        const list = await conflicts.list({
          status: status === undefined ? undefined : status === 'pending' ? 'PENDING' : 'RESOLVED',
          kind: kind && KINDS[kind],
          model: req.query('model'),
          recordId: req.query('record_id'),
          first: numberParameter(req.query('first')),
          after: req.query('after'),
        });
        return Response.json(list.map(presentConflict));
      },
    },
    {
      method: 'get',
      path: `${CONFLICTS}/{id}`,
      tags: ['Conflicts'],
      summary: 'Get a conflict',
      request: { params: idParameter },
      responses: { 200: json('The conflict.', conflictSchema), ...problems(400, 404) },
      async handle({ req }) {
        const conflict = await conflicts.get(req.param('id'));
        return conflict ? Response.json(presentConflict(conflict)) : noConflict(req.param('id'));
      },
    },
    {
      method: 'post',
      path: `${CONFLICTS}/{id}/resolve`,
      tags: ['Conflicts'],
      summary: 'Resolve a conflict by hand',
      request: { params: idParameter, body: { required: true, content: { 'application/json': { schema: resolveBody, example: { chosen_version: 'node_a' } } } } },
      responses: { 200: json('The conflict, resolved.', conflictSchema), ...problems(400, 404, 409, 413, 415) },
      async handle(context) {
        const id = context.req.param('id');
        const { chosen_version: chosen, values } = parse(resolveBody, await readJson(context), 'body');
        const conflict = await conflicts.get(id);
        if (!conflict) return noConflict(id);
        const resolved = await conflicts.resolveOne(id, {
          ...(chosen === undefined ? {} : { chosenVersion: replicaNamed(conflict, chosen) }),
          ...(values === undefined ? {} : { values: modelNames(conflict, values) }),
        });
        return Response.json(presentConflict(resolved));
      },
    },
  ];
}

function noConflict(id: string | undefined): Response {
  return problem('NOT_FOUND', `there is no conflict ${id}`);
}

/** @returns the conflict in snake_case, with one member for each side. */
export function presentConflict(conflict: Conflict): Record<string, unknown> {
  return {
    id: numeric(conflict.id),
    timestamp: conflict.detectedAt,
    model: conflict.model,
    record_id: numeric(conflict.recordId),
    kind: conflict.kind.toLowerCase(),
    status: conflict.status.toLowerCase(),
    fields: conflict.fields.map(snake),
    ...Object.fromEntries(conflict.versions.map((version) => [`version_${version.replica}`, presentSide(version)])),
    resolution: conflict.resolution,
    resolved_at: conflict.resolvedAt,
  };
}

function presentSide({ values, updatedAt }: ConflictVersion): Record<string, unknown> | null {
  if (values === null) return null;
  return {
    ...Object.fromEntries(Object.entries(values).map(([name, value]) => [snake(name), value])),
    updated_at: updatedAt,
  };
}

/** `node_a` means replica a, but where a replica is itself called so. */
function replicaNamed({ versions }: Conflict, chosen: string): string {
  const isSide = versions.some(({ replica }) => replica === chosen);
  return !isSide && chosen.startsWith('node_') ? chosen.slice('node_'.length) : chosen;
}

/** @returns the values under the model's own names, `created_at` as `createdAt`; names of no field stay, for the service to refuse. */
function modelNames({ versions }: Conflict, values: Record<string, unknown>): Record<string, unknown> {
  const names = new Map(versions.flatMap((version) => Object.keys(version.values ?? {}).map((name) => [snake(name), name])));
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [names.get(name) ?? name, value]));
}

function snake(name: string): string {
  return name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

/** @returns a number where the key is an integer that one holds exactly. */
function numeric(key: string): number | string {
  const number = Number(key);
  return /^(0|-?[1-9]\d*)$/.test(key) && Number.isSafeInteger(number) ? number : key;
}
