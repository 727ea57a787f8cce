/** Users read from their table: on a database of their own, counting what is asked of it. */
import { PrismaPg } from '@prisma/adapter-pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { PrismaClient } from '../../src/generated/prisma/client.ts';
import { createUserRows } from '../../src/services/user-rows.ts';
import { openDatabase, type Database } from '../../src/storage/database.ts';
import { startEdges, type Edges } from '../support/edges.ts';
import { createFake } from '../support/fake-services.ts';
import { createTestDatabase, type TestDatabase } from '../support/postgres.ts';

let database: TestDatabase;
let db: Database;
let prisma: PrismaClient;
let edges: Edges;
const queries: string[] = [];

beforeAll(async () => {
  database = await createTestDatabase();
  const client = new PrismaClient({ adapter: new PrismaPg({ connectionString: database.url }), log: [{ emit: 'event', level: 'query' }] });
  client.$on('query', ({ query }) => queries.push(query));
  prisma = client;
  db = openDatabase(database.url, { size: 2, onError: () => {} });
  const { page, get } = createUserRows({
    query(sql, values) {
      queries.push(sql);
      return db.query(sql, values);
    },
  });
  const { services } = createFake();
  const users = { ...services.users, list: ({ after, first }: { after?: unknown; first?: unknown }) => page((after as number | undefined) ?? null, first as number), get: (id: unknown) => get(Number(id)) };
  edges = await startEdges({}, { prisma, services: { ...services, users } });
  await prisma.user.createMany({
    data: [1, 2, 3].map((n) => ({ nom: `n${n}`, email: `n${n}@x.org`, telephone: n === 2 ? '2' : null })),
  });
});
afterAll(async () => {
  await edges.close();
  await db.close();
  await prisma.$disconnect();
  await database.close();
});

describe('users read from PostgreSQL', () => {
  it('come in order of id, page by page', async () => {
    const ids = (await prisma.user.findMany({ orderBy: { id: 'asc' } })).map(({ id }) => String(id));
    expect(await edges.graphql('{ users(first: 2) { id nom telephone } }')).toEqual({
      data: {
        users: [
          { id: ids[0], nom: 'n1', telephone: null },
          { id: ids[1], nom: 'n2', telephone: '2' },
        ],
      },
    });
    expect(await edges.graphql('query($after: ID) { users(after: $after) { id } }', { after: ids[1] })).toEqual({ data: { users: [{ id: ids[2] }] } });
  });

  it('take one statement, and Pothos reads none of them once more', async () => {
    for (const document of ['{ users { id nom email telephone createdAt } }', '{ user(id: 1) { id nom createdAt } }', '{ users { updatedAt version conflict { id } } }', 'mutation { updateUser(id: 1, input: { nom: "x" }) { id createdAt updatedAt } }']) {
      queries.length = 0;
      await edges.graphql(document);
      expect(queries).toHaveLength(document.startsWith('mutation') ? 0 : 1);
    }
  });

  it('have an instant of creation, and nothing where there is none of that id', async () => {
    const row = await prisma.user.findFirstOrThrow({ orderBy: { id: 'asc' } });
    expect(await edges.graphql('query($id: ID!) { user(id: $id) { createdAt version } none: user(id: 2147483647) { id } }', { id: row.id })).toEqual({
      data: { user: { createdAt: row.createdAt.toISOString(), version: { a: String(row.id) } }, none: null },
    });
  });
});
