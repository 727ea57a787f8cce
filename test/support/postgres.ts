/** Databases for tests: each caller gets its own, already migrated. */
import { randomUUID } from 'node:crypto';
import { fileURLToPath } from 'node:url';

import type pg from 'pg';
import { inject } from 'vitest';

import { withSession } from '../../src/storage/database.ts';
import { migrate } from '../../src/storage/migrate.ts';

export interface TestDatabase {
  readonly url: string;
  /** Drops the database, breaking off what is still connected to it. */
  close(): Promise<void>;
}

const migrations = fileURLToPath(new URL('../../prisma/migrations', import.meta.url));
/** Any number that nothing else locks. */
const TEMPLATE_LOCK = 5_130_707;

/**
 * A fresh database with all migrations applied, of its own for each call.
 *
 * Cloned from a template that the run's first caller makes, which takes a tenth of the time.
 *
 * @param options - `empty`: without any migration.
 */
export async function createTestDatabase(options: { readonly empty?: boolean } = {}): Promise<TestDatabase> {
  const admin = inject('postgresUrl');
  const name = `test_${randomUUID().replaceAll('-', '')}`;
  await withSession(admin, async (client) => {
    const template = options.empty === true ? 'template0' : await ensureTemplate(client, admin);
    await client.query(`CREATE DATABASE ${name} TEMPLATE ${template}`);
  });
  return {
    url: databaseUrl(admin, name),
    close: () => withSession(admin, async (client) => void (await client.query(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`))),
  };
}

/** A copy of a database that nobody is connected to. */
export async function copyDatabase(url: string): Promise<TestDatabase> {
  const admin = inject('postgresUrl');
  const name = `test_${randomUUID().replaceAll('-', '')}`;
  await withSession(admin, (client) => client.query(`CREATE DATABASE ${name} TEMPLATE ${new URL(url).pathname.slice(1)}`));
  return {
    url: databaseUrl(admin, name),
    close: () => withSession(admin, async (client) => void (await client.query(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`))),
  };
}

/** The lock is held while cloning as well: PostgreSQL refuses to copy a database that another session is copying or connected to. */
async function ensureTemplate(client: pg.Client, admin: string): Promise<string> {
  const template = `template_${inject('postgresRun')}`;
  await client.query('SELECT pg_advisory_lock($1)', [TEMPLATE_LOCK]);
  const { rowCount } = await client.query('SELECT 1 FROM pg_database WHERE datname = $1', [template]);
  if (rowCount === 0) {
    const draft = `${template}_new`;
    await client.query(`DROP DATABASE IF EXISTS ${draft} WITH (FORCE)`);
    await client.query(`CREATE DATABASE ${draft} TEMPLATE template0`);
    await withSession(databaseUrl(admin, draft), (made) => migrate(made, migrations));
    await client.query(`ALTER DATABASE ${draft} RENAME TO ${template}`);
  }
  return template;
}

function databaseUrl(admin: string, name: string): string {
  const url = new URL(admin);
  url.pathname = `/${name}`;
  return url.href;
}
