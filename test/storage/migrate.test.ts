import { createHash } from 'node:crypto';
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import pg from 'pg';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { MigrationError, migrate } from '../../src/storage/migrate.ts';
import { createTestDatabase } from '../support/postgres.ts';
import type { TestDatabase } from '../support/postgres.ts';

let database: TestDatabase;
let folder: string;
let client: pg.Client;

const connect = async () => {
  const made = new pg.Client({ connectionString: database.url });
  await made.connect();
  return made;
};
const write = async (name: string, sql: string) => {
  await mkdir(join(folder, name), { recursive: true });
  await writeFile(join(folder, name, 'migration.sql'), sql);
};
const rows = async (sql: string) => (await client.query<Record<string, unknown>>(sql)).rows;

beforeEach(async () => {
  database = await createTestDatabase({ empty: true });
  folder = await mkdtemp(join(tmpdir(), 'replique-migrations-'));
  client = await connect();
});

afterEach(async () => {
  await client.end();
  await database.close();
  await rm(folder, { recursive: true, force: true });
});

describe('migrate', () => {
  test('applies what is missing, in order of name, and notes it as Prisma does', async () => {
    await write('2_second', 'ALTER TABLE things ADD COLUMN size int;\nCREATE INDEX ON things (size);');
    await write('1_first', 'CREATE TABLE things (id int);');
    expect(await migrate(client, folder)).toEqual({ applied: ['1_first', '2_second'] });
    expect(await migrate(client, folder)).toEqual({ applied: [] });

    await write('3_third', 'DROP TABLE things;');
    expect(await migrate(client, folder)).toEqual({ applied: ['3_third'] });

    const [first, ...rest] = await rows('SELECT * FROM _prisma_migrations ORDER BY started_at');
    expect(rest).toHaveLength(2);
    expect(first).toEqual({
      id: expect.stringMatching(/^[0-9a-f-]{36}$/) as string,
      checksum: createHash('sha256').update('CREATE TABLE things (id int);').digest('hex'),
      finished_at: expect.any(Date) as Date,
      migration_name: '1_first',
      logs: null,
      rolled_back_at: null,
      started_at: expect.any(Date) as Date,
      applied_steps_count: 1,
    });
  });

  test("applies the project's own migrations", async () => {
    await cp(new URL('../../prisma/migrations', import.meta.url), folder, { recursive: true });
    const { applied } = await migrate(client, folder);
    expect(applied[0]).toBe('20261123000000_init');
    expect(await rows("SELECT to_regclass('users')::text AS name")).toEqual([{ name: 'users' }]);
  });

  test('replicas that start at once apply each migration once', async () => {
    for (let n = 0; n < 5; n += 1) await write(`${n}_step`, `CREATE TABLE t${n} (id int);`);
    const clients = await Promise.all(Array.from({ length: 6 }, connect));
    const results = await Promise.all(clients.map((each) => migrate(each, folder)));
    await Promise.all(clients.map((each) => each.end()));
    const applied = results.flatMap((result) => result.applied);
    applied.sort();
    expect(applied).toEqual(['0_step', '1_step', '2_step', '3_step', '4_step']);
    expect(await rows('SELECT count(*)::int AS n FROM _prisma_migrations')).toEqual([{ n: 5 }]);
  });

  test('a migration that fails leaves nothing of itself, and those before it stay', async () => {
    await write('1_good', 'CREATE TABLE good (id int);');
    await write('2_bad', 'CREATE TABLE half (id int);\n\nALTER TABLE nowhere ADD COLUMN x int;');
    await expect(migrate(client, folder)).rejects.toThrow(/^migration 2_bad failed: relation "nowhere" does not exist\. Nothing of it was kept/);
    expect(await rows("SELECT to_regclass('good')::text AS good, to_regclass('half')::text AS half")).toEqual([{ good: 'good', half: null }]);

    await write('2_bad', 'CREATE TABLE half (id int);');
    expect(await migrate(client, folder)).toEqual({ applied: ['2_bad'] });
  });

  test('names the line where PostgreSQL knows it', async () => {
    await write('1_bad', 'CREATE TABLE a (id int);\nCREATE TABLE b (id integr);');
    await expect(migrate(client, folder)).rejects.toThrow('migration 1_bad failed at line 2: type "integr" does not exist.');
  });

  test('refuses a migration that was changed after it was applied', async () => {
    await write('1_first', 'CREATE TABLE things (id int);');
    await migrate(client, folder);
    await write('1_first', 'CREATE TABLE things (id bigint);');
    await expect(migrate(client, folder)).rejects.toThrow(MigrationError);
    await expect(migrate(client, folder)).rejects.toThrow(/1_first was changed after it was applied/);
  });

  test('takes other line ends for the same migration', async () => {
    await write('1_first', 'CREATE TABLE things (\n  id int\n);\n');
    await migrate(client, folder);
    await write('1_first', 'CREATE TABLE things (\r\n  id int\r\n);\r\n');
    expect(await migrate(client, folder)).toEqual({ applied: [] });
  });

  test('refuses to go on after a failure under Prisma, until it is marked as settled', async () => {
    await write('1_first', 'CREATE TABLE things (id int);');
    await migrate(client, folder);
    await write('2_second', 'CREATE TABLE more (id int);');
    const checksum = createHash('sha256').update(await readFile(join(folder, '2_second/migration.sql'))).digest('hex');
    await client.query("INSERT INTO _prisma_migrations (id, checksum, migration_name) VALUES ('x', $1, '2_second')", [checksum]);
    await expect(migrate(client, folder)).rejects.toThrow(/2_second failed earlier/);

    await client.query("UPDATE _prisma_migrations SET rolled_back_at = now() WHERE id = 'x'");
    expect(await migrate(client, folder)).toEqual({ applied: ['2_second'] });
  });

  test('refuses a database that a newer version has used', async () => {
    await write('1_first', 'CREATE TABLE things (id int);');
    await write('2_second', 'CREATE TABLE more (id int);');
    await migrate(client, folder);
    await rm(join(folder, '2_second'), { recursive: true });
    await expect(migrate(client, folder)).rejects.toThrow(/has the migration 2_second, which this version does not know/);
  });
});
