/** Users over Mercurius with jit, and SQL by hand with prepared statements: `mercurius.ts DATABASE_URL CONNECTIONS`. Tells its port on stdout. */
import type { AddressInfo } from 'node:net';

import fastify from 'fastify';
import mercurius from 'mercurius';
import pg from 'pg';

const SCHEMA = `
  type User { id: ID! nom: String! email: String! telephone: String createdAt: String! }
  input CreateUserInput { nom: String! email: String! telephone: String }
  input UpdateUserInput { nom: String email: String telephone: String }
  type Query { users(first: Int = 100): [User!]! user(id: ID!): User }
  type Mutation { createUser(input: CreateUserInput!): User! updateUser(id: ID!, input: UpdateUserInput!): User! }`;

interface UserRow {
  readonly id: number;
  readonly created_at: Date;
}

const [, , connectionString = '', connections = ''] = process.argv;
const pool = new pg.Pool({ connectionString, max: Number(connections) });
const COLUMNS = 'id, nom, email, telephone, created_at';

async function rows(name: string, text: string, values: readonly unknown[]): Promise<UserRow[]> {
  return (await pool.query<UserRow>({ name, text, values: [...values] })).rows;
}

const resolvers = {
  User: { createdAt: ({ created_at: at }: UserRow) => at.toISOString() },
  Query: {
    users: (_: unknown, { first }: { first: number }) => rows('list', `SELECT ${COLUMNS} FROM users ORDER BY id LIMIT $1`, [first]),
    user: async (_: unknown, { id }: { id: string }) => (await rows('get', `SELECT ${COLUMNS} FROM users WHERE id = $1`, [id]))[0] ?? null,
  },
  Mutation: {
    createUser: async (_: unknown, { input: { nom, email, telephone } }: { input: Readonly<Record<string, string | null>> }) =>
      (await rows('create', `INSERT INTO users (nom, email, telephone) VALUES ($1, $2, $3) RETURNING ${COLUMNS}`, [nom, email, telephone]))[0],
    updateUser: async (_: unknown, { id, input }: { id: string; input: Readonly<Record<string, string | null>> }) => {
      const fields = Object.keys(input);
      const set = fields.map((field, index) => `${field} = $${index + 2}`).join(', ');
      return (await rows(`update ${fields.join(' ')}`, `UPDATE users SET ${set} WHERE id = $1 RETURNING ${COLUMNS}`, [id, ...Object.values(input)]))[0];
    },
  },
};

const app = fastify();
await app.register(mercurius, { schema: SCHEMA, resolvers, jit: 1 });
await app.listen({ port: 0, host: '127.0.0.1' });
process.stdout.write(`${(app.server.address() as AddressInfo).port}\n`);
process.on('SIGTERM', () => process.exit());
