/** Empties the replicas' databases: an embedded one is removed; of another, only what this project's migrations made. */
import { readFile, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import pg from 'pg';

import type { ReplicaConfig } from './config.ts';
import { StartError } from './startup.ts';
import { removeEmbedded, stopEmbedded } from './storage/embedded.ts';

const MIGRATIONS = fileURLToPath(new URL('../prisma/migrations', import.meta.url));

/** Where a replica's data is, for a person to read; without any password. */
export function describeData({ name, dataDir, databaseUrl }: ReplicaConfig): string {
  if (databaseUrl === null) return `${name}: the embedded database in ${join(dataDir, name)}`;
  const { host, pathname, searchParams } = new URL(databaseUrl);
  return `${name}: this project's tables in the database ${decodeURIComponent(pathname.slice(1))} on ${host || (searchParams.get('host') ?? 'this machine')}`;
}

/**
 * Empties the databases; none, where one of the replicas is running.
 *
 * @returns A line for each replica, saying what was done.
 * @throws StartError, EmbeddedError when a replica is running.
 */
export async function resetReplicas(replicas: readonly ReplicaConfig[]): Promise<readonly string[]> {
  for (const replica of replicas) {
    if (replica.databaseUrl === null) await stopEmbedded(replica);
    else if (await answers(replica)) {
      throw new StartError(`replica ${replica.name} is running on ${replica.host}:${replica.port}. Stop it first.`);
    }
  }
  const lines: string[] = [];
  for (const replica of replicas) {
    const emptied = replica.databaseUrl === null ? await removeEmbedded(replica) : await emptyDatabase(replica.databaseUrl);
    lines.push(emptied ? `emptied ${describeData(replica)}` : `${replica.name} has no data`);
  }
  return lines;
}

async function answers({ host, port }: ReplicaConfig): Promise<boolean> {
  const address = host === '0.0.0.0' ? '127.0.0.1' : host.includes(':') ? `[${host === '::' ? '::1' : host}]` : host;
  return fetch(`http://${address}:${port}/livez`, { signal: AbortSignal.timeout(2000) }).then((response) => response.ok, () => false);
}

/** @returns False where none of our migrations was ever applied: whatever is there is not ours. */
async function emptyDatabase(url: string): Promise<boolean> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 10_000, lock_timeout: 10_000 });
  client.on('error', () => {});
  await client.connect();
  try {
    await client.query('BEGIN');
    const { rows } = await client.query<{ there: boolean }>(`SELECT to_regclass('_prisma_migrations') IS NOT NULL AS there`);
    if (rows[0]?.there !== true) return false;
    const made = await readMade();
    const { rowCount } = await client.query('DELETE FROM _prisma_migrations WHERE migration_name = ANY($1)', [made.migrations]);
    if (rowCount === 0) return false;
    await client.query('DROP SCHEMA IF EXISTS replication CASCADE');
    for (const table of made.tables) await client.query(`DROP TABLE IF EXISTS ${pg.escapeIdentifier(table)} CASCADE`);
    for (const type of made.types) await client.query(`DROP TYPE IF EXISTS ${pg.escapeIdentifier(type)} CASCADE`);
    // Another Prisma application may keep its migrations in the same table.
    const { rows: left } = await client.query('SELECT 1 FROM _prisma_migrations LIMIT 1');
    if (left.length === 0) await client.query('DROP TABLE _prisma_migrations');
    await client.query('COMMIT');
    return true;
  } finally {
    await client.end();
  }
}

interface Made {
  readonly migrations: readonly string[];
  readonly tables: readonly string[];
  readonly types: readonly string[];
}

/** What the migrations make outside the schema `replication`. Prisma writes each name in quotes. */
async function readMade(): Promise<Made> {
  const entries = await readdir(MIGRATIONS, { withFileTypes: true });
  const migrations = entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name);
  const texts = await Promise.all(migrations.map((name) => readFile(join(MIGRATIONS, name, 'migration.sql'), 'utf8')));
  const sql = texts.join('\n');
  const names = (kind: string) => [...sql.matchAll(new RegExp(`CREATE ${kind} (?:IF NOT EXISTS )?(?:"public"\\.)?"([^"]+)"(?!\\.)`, 'gi'))].map((match) => match[1] ?? '');
  return { migrations, tables: names('TABLE'), types: names('TYPE') };
}
