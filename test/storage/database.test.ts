/** Connections that break. */
import { afterAll, beforeAll, expect, it } from 'vitest';

import { openDatabase, type Database } from '../../src/storage/database.ts';
import { createTestDatabase, type TestDatabase } from '../support/postgres.ts';

let database: TestDatabase;
let db: Database;
let other: Database;
beforeAll(async () => {
  database = await createTestDatabase({ empty: true });
  db = openDatabase(database.url, { size: 1, onError: () => {} });
  other = openDatabase(database.url, { size: 1, onError: () => {} });
});
afterAll(async () => {
  await db.close();
  await other.close();
  await database.close();
});

it('a connection that breaks between two queries of a transaction fails the transaction, and not the process', async () => {
  const broken = db.transaction(async (tx) => {
    const [backend] = await tx.query('SELECT pg_backend_pid()');
    await other.query('SELECT pg_terminate_backend($1, 10000)', [backend?.[0]]);
    // The connection learns of its end, with no query under way.
    await new Promise((resolve) => setImmediate(resolve));
    await other.query('SELECT 1');
    await tx.query('SELECT 1');
  });
  await expect(broken).rejects.toThrow(/terminat|not queryable/i);
  expect(await db.query('SELECT 1')).toEqual([['1']]);
});
