/** Values and the version they are shown with, on a real database: writes land between the looks that an answer is made of. */
import { PrismaPg } from '@prisma/adapter-pg';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { PrismaClient } from '../../src/generated/prisma/client.ts';
import { replicatedModels } from '../../src/models.ts';
import type { Keeper } from '../../src/services/keeper.ts';
import { createRecords } from '../../src/services/records.ts';
import { createUserRows, type UserRows } from '../../src/services/user-rows.ts';
import { createUsers, type Users } from '../../src/services/users.ts';
import { openDatabase, type Database } from '../../src/storage/database.ts';
import { openReplica } from '../../src/storage/replica.ts';
import { startEdges, type Edges } from '../support/edges.ts';
import { createFake } from '../support/fake-services.ts';
import { createTestDatabase, type TestDatabase } from '../support/postgres.ts';

let database: TestDatabase;
let db: Database;
let plain: PrismaClient;
let users: Users;
let edges: Edges;
/** What another client does once a look at the table, or a write, is over, and before its answer is made. */
let meanwhile: () => Promise<unknown> = async () => null;
/** Whether any look was made for a version. */
let looks = 0;

beforeAll(async () => {
  database = await createTestDatabase();
  db = openDatabase(database.url, { size: 3, onError: () => {} });
  plain = new PrismaClient({ adapter: new PrismaPg({ connectionString: database.url }) });
  const interrupted = <A extends unknown[], T>(work: (...args: A) => Promise<T>) => async (...args: A): Promise<T> => {
    const answer = await work(...args);
    await meanwhile();
    return answer;
  };
  const rows = createUserRows(db);
  const { page, get, insert, update } = rows;
  const replica = await openReplica(db, { name: 'a', slot: 1, stride: 10, policy: 'manual', models: replicatedModels(plain), report: () => {} });
  const keeper: Pick<Keeper, 'wake' | 'write' | 'settle'> = { wake: () => {}, write: ({ make }) => make(), settle: async () => {} };
  const records = createRecords(replica, keeper);
  const look: typeof records.look = (...which) => {
    looks++;
    return records.look(...which);
  };
  const over = (through: UserRows): Users => createUsers({ prisma: plain, rows: through, db, keeper, look: (keys) => look('User', keys) });
  users = over(rows);
  const between = over({ page: interrupted(page), get: interrupted(get), insert: interrupted(insert), update: interrupted(update) });
  edges = await startEdges({}, { services: { ...createFake().services, records, users: between } });
});
afterAll(async () => {
  await edges.close();
  await plain.$disconnect();
  await db.close();
  await database.close();
});

let id: number;
beforeEach(async () => {
  meanwhile = async () => null;
  await plain.user.deleteMany();
  ({ id } = await users.create({ nom: 'Ada', email: 'ada@x.org' }));
  looks = 0;
});

type Shown = Record<string, { nom: string; version: Record<string, string>; updatedAt: string } & Record<string, never>>;
const ask = async (document: string): Promise<Shown[string]> => {
  const { data, errors } = await edges.graphql(document.replaceAll('ID', String(id)));
  expect(errors).toBeUndefined();
  const [answer] = Object.values(data as unknown as Record<string, Shown[string] | Shown[string][]>);
  return (Array.isArray(answer) ? answer[0] : answer) as Shown[string];
};
const rename = (nom: string) => async (): Promise<unknown> => plain.user.update({ where: { id }, data: { nom } });
/** What an update answers that expects a version. */
const code = async (version: Record<string, string>): Promise<unknown> => {
  meanwhile = async () => null;
  return users.update(id, { telephone: '1' }, version).then(
    () => 'ok',
    (error: { code: string }) => error.code,
  );
};

describe('a version that is given back as `expectedVersion`', () => {
  it.each([
    ['a user', '{ user(id: ID) { nom version } }'],
    ['a list', '{ users { nom version } }'],
    ['an inline fragment', '{ user(id: ID) { nom ... on User { version } } }'],
    ['a fragment', 'query { user(id: ID) { ...Whole } } fragment Whole on User { nom ...V } fragment V on User { version }'],
    ['an update', 'mutation { updateUser(id: ID, input: { telephone: "2" }) { nom version } }'],
  ])('is of the values that it came with, in %s', async (_what, document) => {
    const before = await ask(document);
    expect(before.nom).toBe('Ada');
    expect(await code(before.version)).toBe('ok');

    meanwhile = rename('Ada Lovelace');
    const { nom, version } = await ask(document);
    // Either the write is seen, or the version does not cover it.
    expect([nom, await code(version)]).toEqual(['Ada Lovelace', 'ok']);
    expect(await code(before.version)).toBe('VERSION_MISMATCH');
  });

  it('is of a creation with what has been written over it since', async () => {
    meanwhile = async () => plain.user.updateMany({ data: { nom: 'Changed' } });
    const { data } = await edges.graphql('mutation { createUser(input: { nom: "Bob", email: "bob@x.org" }) { nom version } }');
    expect((data as unknown as { createUser: object }).createUser).toMatchObject({ nom: 'Changed', version: { a: expect.any(String) } });
  });

  it('is none where the user was deleted after it was read', async () => {
    meanwhile = async () => plain.user.deleteMany();
    const { nom, version } = await ask('{ user(id: ID) { nom email createdAt version } }');
    expect([nom, version]).toEqual(['Ada', {}]);
  });
});

it('updatedAt is the instant of the values shown, over GraphQL and over REST', async () => {
  meanwhile = rename('Ada Lovelace');
  const { nom, updatedAt } = await ask('{ user(id: ID) { nom updatedAt } }');
  expect(nom).toBe('Ada Lovelace');
  // The same again changes nothing, and no instant.
  expect(await (await edges.rest('GET', `/api/v1/users/${id}`)).json()).toMatchObject({ nom, updated_at: updatedAt });
  meanwhile = rename('Countess');
  const { nom: later, updated_at } = (await (await edges.rest('PUT', `/api/v1/users/${id}`, { telephone: '3' })).json()) as { nom: string; updated_at: string };
  expect(later).toBe('Countess');
  expect((await ask('{ user(id: ID) { updatedAt } }')).updatedAt).toBe(updated_at);
});

it('no look is made for a version that nobody asks for', async () => {
  await ask('{ user(id: ID) { nom email telephone createdAt } }');
  await ask('{ users { id nom conflict { id } } }');
  await ask('mutation { updateUser(id: ID, input: { nom: "Eve" }) { nom } }');
  expect(looks).toBe(0);
});
