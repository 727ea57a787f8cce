/** The users' table straight over `pg` and through Prisma: the same answers, the same rows. */
import { PrismaPg } from '@prisma/adapter-pg';
import fc from 'fast-check';
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';

import { PrismaClient } from '../../src/generated/prisma/client.ts';
import { createUserRows, type UserRow, type UserRows } from '../../src/services/user-rows.ts';
import { openDatabase, sqlState, type Database } from '../../src/storage/database.ts';
import { createTestDatabase, type TestDatabase } from '../support/postgres.ts';

let database: TestDatabase;
let db: Database;
let prisma: PrismaClient;
let rows: UserRows;

beforeAll(async () => {
  database = await createTestDatabase();
  // A session whose instants and numbers look otherwise: answers do not depend on it.
  const url = `${database.url}?options=${encodeURIComponent('-c TimeZone=Asia/Kathmandu -c DateStyle=SQL,DMY -c extra_float_digits=-5')}`;
  db = openDatabase(url, { size: 2, onError: () => {} });
  prisma = new PrismaClient({ adapter: new PrismaPg({ connectionString: database.url }) });
  rows = createUserRows(db);
});
afterAll(async () => {
  await prisma.$disconnect();
  await db.close();
  await database.close();
});
beforeEach(() => prisma.user.deleteMany());

/** As the services let them through. */
const text = fc.string({ unit: 'binary', maxLength: 40 }).filter((value) => value.isWellFormed() && !value.includes('\0'));
const instant = fc.date({ min: new Date('1900-01-01T00:00:00Z'), max: new Date('9999-12-31T23:59:59.999Z'), noInvalidDate: true });
const user = fc.record({ nom: text, telephone: fc.option(text), createdAt: instant });
const change = fc.record({ nom: text, telephone: fc.option(text) }, { requiredKeys: [] }).filter((values) => Object.keys(values).length > 0);

const withoutId = ({ id: _id, email: _email, ...rest }: UserRow) => rest;

it('writes what Prisma writes, and answers what it answers', async () => {
  let made = 0;
  await fc.assert(
    fc.asyncProperty(user, change, async (values, changed) => {
      const [one, other] = [await rows.insert({ ...values, email: `${++made}@x.org` }), await prisma.user.create({ data: { ...values, email: `${++made}@x.org` } })];
      expect(withoutId(one)).toEqual(withoutId(other));
      const [then, same] = [await rows.update(one.id, changed), await prisma.user.update({ where: { id: other.id }, data: changed })];
      expect(withoutId(then as UserRow)).toEqual(withoutId(same));
      expect(await rows.get(one.id)).toEqual(await prisma.user.findUnique({ where: { id: one.id } }));
    }),
    { numRuns: 100 },
  );
});

it('reads the pages that Prisma reads, however many at a time', async () => {
  await prisma.user.createMany({ data: Array.from({ length: 25 }, (_, i) => ({ id: i * 3 - 5, nom: `n${i}`, email: `${i}@x.org` })) });
  const page = fc.tuple(fc.option(fc.integer({ min: -10, max: 80 })), fc.integer({ min: 1, max: 30 }));
  await fc.assert(
    fc.asyncProperty(fc.array(page, { minLength: 1, maxLength: 4 }), async (pages) => {
      // The same ones again, which share what they read.
      const found = await Promise.all([...pages, ...pages].map(([after, first]) => rows.page(after, first)));
      for (const [i, [after, first]] of pages.entries()) {
        const expected = await prisma.user.findMany({ where: after === null ? {} : { id: { gt: after } }, orderBy: { id: 'asc' }, take: first });
        expect([found[i], found[i + pages.length]]).toEqual([expected, expected]);
      }
    }),
    { numRuns: 40 },
  );
});

it('finds the users that Prisma finds, however many at a time', async () => {
  await prisma.user.createMany({ data: Array.from({ length: 40 }, (_, i) => ({ id: i * 2, nom: `n${i}`, email: `${i}@x.org` })) });
  const ids = Array.from({ length: 120 }, (_, i) => (i * 7) % 90);
  const found = await Promise.all(ids.map((id) => rows.get(id)));
  const expected = new Map((await prisma.user.findMany()).map((row) => [row.id, row]));
  expect(found).toEqual(ids.map((id) => expected.get(id) ?? null));
});

it('knows no user that is not there, and tells of a value that is taken', async () => {
  expect(await rows.get(2_147_483_647)).toBeNull();
  expect(await rows.update(2_147_483_647, { nom: 'x' })).toBeNull();
  const taken = { nom: 'x', email: 'ada@x.org', telephone: null, createdAt: new Date() };
  const { id } = await rows.insert({ ...taken, email: 'other@x.org' });
  await rows.insert(taken);
  for (const write of [() => rows.insert(taken), () => rows.update(id, { email: 'ada@x.org' })]) {
    expect(await write().then(() => 'written', sqlState)).toBe('23505');
  }
});
