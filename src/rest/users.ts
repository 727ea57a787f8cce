/** Users over REST. */
import { z } from '@hono/zod-openapi';

import { createUserInput, pageSize, updateUserInput, userId } from '../services/input.ts';
import type { Services } from '../services/services.ts';
import type { UserRow } from '../services/users.ts';
import { problem } from './problem.ts';
import { json, numberParameter, problems, readJson, type Route } from './route.ts';

const userSchema = z
  .object({
    id: z.int(),
    nom: z.string(),
    email: z.string(),
    telephone: z.string().nullable(),
    created_at: z.iso.datetime(),
    updated_at: z.iso.datetime(),
  })
  .openapi('User');

const key = userId.clone().openapi({ type: 'integer', minimum: 1 });
const idParameter = z.object({ id: key.openapi({ example: 1 }) });
const pageParameters = z.object({
  first: pageSize.optional().openapi({ default: 100, description: 'How many at most.' }),
  after: key.optional().openapi({ description: 'The id of the last user of the page before.' }),
});
const ADA = { nom: 'Ada Lovelace', email: 'ada@example.org', telephone: '+33 1 23 45 67 89' };

const USERS = '/api/v1/users';

/** @returns the routes below `/api/v1/users`. */
export function userRoutes({ users }: Services): Route[] {
  const present = async (rows: readonly UserRow[]): Promise<z.infer<typeof userSchema>[]> => {
    const found = await users.versioned(rows);
    return found.map(({ id, nom, email, telephone, createdAt, known }) => {
      const created = createdAt.toISOString();
      return { id, nom, email, telephone, created_at: created, updated_at: known?.updatedAt ?? created };
    });
  };
  const one = async (row: UserRow, status: number, headers: Record<string, string> = {}): Promise<Response> => {
    const [user] = await present([row]);
    return Response.json(user, { status, headers });
  };

  return [
    {
      method: 'post',
      path: USERS,
      tags: ['Users'],
      summary: 'Create a user',
      request: { body: { required: true, content: { 'application/json': { schema: createUserInput, example: ADA } } } },
      responses: { 201: json('The user; `Location` is its address.', userSchema), ...problems(400, 409, 413, 415) },
      async handle(context) {
        const row = await users.create(await readJson(context));
        return one(row, 201, { location: `${USERS}/${row.id}` });
      },
    },
    {
      method: 'get',
      path: USERS,
      tags: ['Users'],
      summary: 'List users in order of id',
      request: { query: pageParameters },
      responses: { 200: json('The users.', z.array(userSchema)), ...problems(400) },
      async handle({ req }) {
        const rows = await users.list({ first: numberParameter(req.query('first')), after: req.query('after') });
        return Response.json(await present(rows));
      },
    },
    {
      method: 'get',
      path: `${USERS}/{id}`,
      tags: ['Users'],
      summary: 'Get a user',
      request: { params: idParameter },
      responses: { 200: json('The user.', userSchema), ...problems(400, 404) },
      async handle({ req }) {
        const id = req.param('id');
        const row = await users.get(id);
        return row ? one(row, 200) : problem('NOT_FOUND', `there is no user ${id}`);
      },
    },
    {
      method: 'put',
      path: `${USERS}/{id}`,
      tags: ['Users'],
      summary: 'Change some fields of a user',
      request: { params: idParameter, body: { required: true, content: { 'application/json': { schema: updateUserInput, example: { telephone: ADA.telephone } } } } },
      responses: { 200: json('The user as it is now.', userSchema), ...problems(400, 404, 409, 413, 415) },
      handle: async (context) => one(await users.update(context.req.param('id'), await readJson(context)), 200),
    },
    {
      method: 'delete',
      path: `${USERS}/{id}`,
      tags: ['Users'],
      summary: 'Delete a user',
      request: { params: idParameter },
      responses: { 204: { description: 'Deleted.' }, ...problems(400, 404) },
      async handle({ req }) {
        await users.delete(req.param('id'));
        return new Response(null, { status: 204 });
      },
    },
  ];
}
