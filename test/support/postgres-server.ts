/**
 * One PostgreSQL server for the whole run of tests: an embedded one in a temporary folder, or the one of TEST_DATABASE_URL (its user must
 * be allowed to create databases).
 */
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import pg from 'pg';
import type { TestProject } from 'vitest/node';

import { openEmbedded, stopEmbedded } from '../../src/storage/embedded.ts';

declare module 'vitest' {
  export interface ProvidedContext {
    /** For creating databases; see `createTestDatabase`. */
    postgresUrl: string;
    /** Names what belongs to this run alone. */
    postgresRun: string;
  }
}

const PREFIX = 'replique-test-';

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const run = `${process.pid}_${Date.now().toString(36)}`;
  project.provide('postgresRun', run);
  const own = process.env['TEST_DATABASE_URL'];
  if (own !== undefined && own !== '') {
    project.provide('postgresUrl', own);
    return () => dropTemplate(own, run);
  }
  await clearAway();
  const dataDir = await mkdtemp(join(tmpdir(), `${PREFIX}${process.pid}-`));
  const server = await openEmbedded({
    dataDir,
    name: 'tests',
    // Nothing here outlives the run, so nothing is written through to the disk.
    settings: { fsync: 'off', synchronous_commit: 'off', full_page_writes: 'off', max_connections: '300', log_min_messages: 'fatal' },
  }).catch(async (error: unknown) => {
    await rm(dataDir, { recursive: true, force: true });
    throw error;
  });
  project.provide('postgresUrl', server.url);
  return async () => {
    await server.close();
    await rm(dataDir, { recursive: true, force: true });
  };
}

/** A run that was killed could not stop its server. */
async function clearAway(): Promise<void> {
  for (const entry of await readdir(tmpdir())) {
    const pid = entry.startsWith(PREFIX) ? Number(entry.slice(PREFIX.length).split('-')[0]) : Number.NaN;
    if (!Number.isSafeInteger(pid) || isAlive(pid)) continue;
    const dataDir = join(tmpdir(), entry);
    // Another run may be doing the same, or it may be another user's.
    await stopEmbedded({ dataDir, name: 'tests' }).then(() => rm(dataDir, { recursive: true, force: true }), () => {});
  }
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'EPERM';
  }
}

/** Made by the first call of `createTestDatabase`. */
async function dropTemplate(url: string, run: string): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  await client.query(`DROP DATABASE IF EXISTS template_${run} WITH (FORCE)`);
  await client.end();
}
