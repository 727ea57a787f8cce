/**
 * Brings a database to the state of `prisma/migrations`, at a replica's start and without Prisma's schema engine.
 *
 * The table `_prisma_migrations` is kept exactly as Prisma keeps it, so that `prisma migrate status` and `deploy` agree.
 */
import { createHash, randomUUID } from 'node:crypto';
import { readFile, readdir } from 'node:fs/promises';
import { join } from 'node:path';

import pg from 'pg';

/** The database cannot be migrated; the message says why and what to do. Nothing was changed by the migration that failed. */
export class MigrationError extends Error {
  override readonly name = 'MigrationError';
}

interface Migration {
  readonly name: string;
  readonly sql: string;
  readonly checksum: string;
}

interface AppliedRow {
  readonly migration_name: string;
  readonly checksum: string;
  /** Only whether it is null counts, so that any parser of the client's will do. */
  readonly finished_at: unknown;
}

/** The lock that Prisma's own commands take, so that they and a starting replica wait for each other. */
const PRISMA_LOCK = 72_707_369;
const OLDEST_SERVER = 140_000;

/** Prisma's own definition. */
const TABLE = `
  CREATE TABLE _prisma_migrations (
    id                  VARCHAR(36) PRIMARY KEY NOT NULL,
    checksum            VARCHAR(64) NOT NULL,
    finished_at         TIMESTAMPTZ,
    migration_name      VARCHAR(255) NOT NULL,
    logs                TEXT,
    rolled_back_at      TIMESTAMPTZ,
    started_at          TIMESTAMPTZ NOT NULL DEFAULT now(),
    applied_steps_count INTEGER NOT NULL DEFAULT 0
  )`;

/**
 * Applies every migration that the database does not have yet, in order of name, each in a transaction of its own together with its row
 * in `_prisma_migrations`. Replicas and Prisma commands that start at once wait for each other. A migration therefore holds no
 * statement that cannot run in a transaction.
 *
 * @param client - Outside a transaction. A pooler in transaction mode will do: the lock lasts as long as each transaction.
 * @param folder - Holds `<name>/migration.sql`.
 * @returns The names of those applied now.
 * @throws MigrationError for a server older than PostgreSQL 14, a migration that fails, failed earlier, was changed after it was
 *   applied, or is not known here.
 */
export async function migrate(client: pg.ClientBase, folder: string): Promise<{ readonly applied: readonly string[] }> {
  const migrations = await readMigrations(folder);
  await checkServer(client);
  const applied: string[] = [];
  for (;;) {
    const name = await step(client, migrations);
    if (name === null) return { applied };
    applied.push(name);
  }
}

async function step(client: pg.ClientBase, migrations: readonly Migration[]): Promise<string | null> {
  await client.query('BEGIN');
  try {
    await client.query('SELECT pg_advisory_xact_lock($1)', [PRISMA_LOCK]);
    const next = findNext(migrations, await readApplied(client));
    if (next !== undefined) await apply(client, next);
    await client.query('COMMIT');
    return next?.name ?? null;
  } catch (error) {
    // The connection itself may be what failed.
    await client.query('ROLLBACK').catch(() => {});
    throw error;
  }
}

async function apply(client: pg.ClientBase, { name, sql, checksum }: Migration): Promise<void> {
  const started = new Date();
  try {
    await client.query(sql);
  } catch (error) {
    if (!(error instanceof pg.DatabaseError)) throw error;
    const line = error.position === undefined ? '' : ` at line ${sql.slice(0, Number(error.position)).split('\n').length}`;
    const detail = error.detail === undefined ? '' : ` (${error.detail})`;
    throw new MigrationError(
      `migration ${name} failed${line}: ${error.message}${detail}. Nothing of it was kept. Put right what it names, and start again.`,
      { cause: error },
    );
  }
  await client.query(
    `INSERT INTO _prisma_migrations (id, checksum, started_at, finished_at, migration_name, logs, applied_steps_count)
     VALUES ($1, $2, $3, clock_timestamp(), $4, NULL, 1)`,
    [randomUUID(), checksum, started, name],
  );
}

/** The first migration not applied yet. @throws MigrationError where the database's history is not this folder's. */
function findNext(migrations: readonly Migration[], rows: readonly AppliedRow[]): Migration | undefined {
  const known = new Map(migrations.map((migration) => [migration.name, migration]));
  const done = new Set<string>();
  for (const { migration_name: name, checksum, finished_at } of rows) {
    const migration = known.get(name);
    if (migration === undefined) {
      throw new MigrationError(`the database has the migration ${name}, which this version does not know: a newer version has used it. Start that version, or use another database.`);
    }
    if (finished_at === null) {
      throw new MigrationError(`migration ${name} failed earlier, under Prisma, and may be half applied. Put the database right, then mark it with prisma migrate resolve --applied ${name} (or --rolled-back).`);
    }
    if (!checksums(migration.sql).includes(checksum)) {
      throw new MigrationError(`migration ${name} was changed after it was applied to this database. Restore its file, and make the change in a new migration.`);
    }
    done.add(name);
  }
  return migrations.find((migration) => !done.has(migration.name));
}

async function readApplied(client: pg.ClientBase): Promise<readonly AppliedRow[]> {
  const found = await client.query(`SELECT WHERE to_regclass('_prisma_migrations') IS NOT NULL`);
  if (found.rowCount === 0) {
    await client.query(TABLE);
    return [];
  }
  const { rows } = await client.query<AppliedRow>(
    'SELECT migration_name, checksum, finished_at FROM _prisma_migrations WHERE rolled_back_at IS NULL ORDER BY started_at',
  );
  return rows;
}

async function readMigrations(folder: string): Promise<readonly Migration[]> {
  const entries = await readdir(folder, { withFileTypes: true });
  const names = entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name);
  names.sort();
  return Promise.all(
    names.map(async (name) => {
      const sql = await readFile(join(folder, name, 'migration.sql'), 'utf8');
      return { name, sql, checksum: sha256(sql) };
    }),
  );
}

async function checkServer(client: pg.ClientBase): Promise<void> {
  const { rows } = await client.query<{ number: string; version: string }>(
    `SELECT current_setting('server_version_num') AS number, current_setting('server_version') AS version`,
  );
  const server = rows[0];
  if (server !== undefined && Number(server.number) < OLDEST_SERVER) {
    throw new MigrationError(`the database server is PostgreSQL ${server.version}, and 14 is the oldest that will do. Upgrade it, or use another server.`);
  }
}

/** Git may have changed the line ends since; Prisma takes both as well. */
function checksums(sql: string): readonly string[] {
  const lf = sql.replaceAll('\r\n', '\n');
  return [sha256(sql), sha256(lf), sha256(lf.replaceAll('\n', '\r\n'))];
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}
