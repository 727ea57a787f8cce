/**
 * The server that RxDB's GraphQL replication asks for, over PostgreSQL: `rxdb.ts DATABASE_URL CONNECTIONS`. Tells its port on stdout.
 *
 * What is pushed is written where the client knew the latest state of it, and the latest state is given back where it did not. The order in which clients pull
 * is a sequence's; one writer at a time holds it, so that nobody's checkpoint runs past what commits later.
 */
import type { AddressInfo } from 'node:net';

import fastify from 'fastify';
import mercurius from 'mercurius';
import pg from 'pg';

const SCHEMA = `
  type User { id: ID! nom: String! email: String! telephone: String deleted: Boolean! }
  input UserInput { id: ID! nom: String! email: String! telephone: String deleted: Boolean! }
  input PushRow { assumedMasterState: UserInput newDocumentState: UserInput! }
  type Checkpoint { place: String! }
  input CheckpointInput { place: String! }
  type Pulled { documents: [User!]! checkpoint: Checkpoint }
  type Query { pullUser(checkpoint: CheckpointInput, limit: Int!): Pulled! }
  type Mutation { pushUser(rows: [PushRow!]!): [User!]! }`;

interface User {
  readonly id: string;
  readonly nom: string;
  readonly email: string;
  readonly telephone: string | null;
  readonly deleted: boolean;
}

interface PushRow {
  readonly assumedMasterState?: User | null;
  readonly newDocumentState: User;
}

const [, , connectionString = '', connections = ''] = process.argv;
const pool = new pg.Pool({ connectionString, max: Number(connections) });
const COLUMNS = 'id, nom, email, telephone, deleted';

const PULL = `SELECT ${COLUMNS}, place FROM users WHERE place > $1 ORDER BY place LIMIT $2`;
const WRITE = `
  INSERT INTO users (${COLUMNS}) SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::boolean[])
  ON CONFLICT (id) DO UPDATE SET nom = excluded.nom, email = excluded.email, telephone = excluded.telephone, deleted = excluded.deleted, place = nextval('users_place_seq')`;

const resolvers = {
  Query: {
    async pullUser(_: unknown, { checkpoint, limit }: { checkpoint: { place: string } | null; limit: number }) {
      const { rows } = await pool.query<User & { place: string }>({ name: 'pull', text: PULL, values: [checkpoint?.place ?? '0', limit] });
      const last = rows.at(-1)?.place ?? checkpoint?.place;
      return { documents: rows, checkpoint: last === undefined ? null : { place: last } };
    },
  },
  Mutation: {
    async pushUser(_: unknown, { rows }: { rows: readonly PushRow[] }) {
      const client = await pool.connect();
      try {
        await client.query('BEGIN');
        await client.query('SELECT pg_advisory_xact_lock(1)');
        const { rows: found } = await client.query<User>({ name: 'known', text: `SELECT ${COLUMNS} FROM users WHERE id = ANY ($1)`, values: [rows.map((row) => row.newDocumentState.id)] });
        const known = new Map(found.map((user) => [user.id, user]));
        const clashing = rows.filter(({ assumedMasterState: assumed, newDocumentState: { id } }) => !same(known.get(id), assumed));
        const conflicts = clashing.map(({ newDocumentState: { id } }) => known.get(id)).filter((user) => user !== undefined);
        const refused = new Set(conflicts.map(({ id }) => id));
        const written = rows.map((row) => row.newDocumentState).filter(({ id }) => !refused.has(id));
        if (written.length > 0) {
          const column = <K extends keyof User>(name: K): User[K][] => written.map((user) => user[name]);
          await client.query({ name: 'write', text: WRITE, values: [column('id'), column('nom'), column('email'), column('telephone'), column('deleted')] });
        }
        await client.query('COMMIT');
        return conflicts;
      } catch (error) {
        await client.query('ROLLBACK');
        throw error;
      } finally {
        client.release();
      }
    },
  },
};

function same(a: User | null | undefined, b: User | null | undefined): boolean {
  if (!a || !b) return !a && !b;
  return a.nom === b.nom && a.email === b.email && (a.telephone ?? null) === (b.telephone ?? null) && a.deleted === b.deleted;
}

await pool.query(`
  CREATE TABLE users (
    id text PRIMARY KEY, nom text NOT NULL, email text NOT NULL UNIQUE, telephone text, deleted boolean NOT NULL DEFAULT false, place bigserial UNIQUE)`);
const app = fastify({ bodyLimit: 64 * 1024 * 1024 });
await app.register(mercurius, { schema: SCHEMA, resolvers, jit: 1 });
await app.listen({ port: 0, host: '127.0.0.1' });
process.stdout.write(`${(app.server.address() as AddressInfo).port}\n`);
process.on('SIGTERM', () => process.exit());
