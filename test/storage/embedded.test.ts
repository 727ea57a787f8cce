import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdir, mkdtemp, readFile, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

import pg from 'pg';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { readPostmaster } from '../../src/storage/embedded-server.ts';
import { EmbeddedError, openEmbedded, removeEmbedded, stopEmbedded } from '../../src/storage/embedded.ts';

let dataDir: string;
const children: ChildProcess[] = [];
const cluster = () => join(dataDir, 'a/postgres');
const open = (onProgress?: (message: string) => void) => openEmbedded({ dataDir, name: 'a', ...(onProgress === undefined ? {} : { onProgress }) });

/** Opens the database in a process of its own, to be killed; `as` runs it as another user. */
async function openElsewhere(as?: { uid: number; gid: number }): Promise<{ child: ChildProcess; url: string }> {
  const module = fileURLToPath(new URL('../../src/storage/embedded.ts', import.meta.url));
  const script = `import { openEmbedded } from ${JSON.stringify(module)};
    const database = await openEmbedded({ dataDir: ${JSON.stringify(dataDir)}, name: 'a' });
    console.log(database.url);
    process.on('SIGTERM', () => database.close().then(() => process.exit()));`;
  const child = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
    cwd: fileURLToPath(new URL('../..', import.meta.url)),
    ...as,
  });
  children.push(child);
  const [url] = (await once(createInterface({ input: child.stdout }), 'line')) as [string];
  return { child, url };
}

async function query(url: string, sql: string): Promise<unknown[]> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return (await client.query<Record<string, unknown>>({ text: sql })).rows;
  } finally {
    await client.end();
  }
}

async function end(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  child.kill(signal);
  await once(child, 'exit');
}

beforeEach(async () => {
  dataDir = await mkdtemp(join(tmpdir(), 'replique-embedded-'));
});

afterEach(async () => {
  for (const child of children.splice(0)) if (child.exitCode === null && child.signalCode === null) await end(child, 'SIGKILL');
  await stopEmbedded({ dataDir, name: 'a' });
  await rm(dataDir, { recursive: true, force: true });
});

describe('the embedded database', () => {
  test('keeps its data and its port from one start to the next', async () => {
    const progress: string[] = [];
    const first = await open((message) => progress.push(message));
    await query(first.url, 'CREATE TABLE kept AS SELECT 7 AS n');
    await first.close();
    await first.close();
    expect(await readPostmaster(cluster())).toBeNull();
    expect(progress).toEqual(['making its database', 'starting its database']);

    const again = await open();
    expect(again.url).toBe(first.url);
    expect(await query(again.url, 'SELECT n FROM kept')).toEqual([{ n: 7 }]);
    await again.close();
  });

  test('is safe, local, and sorts alike everywhere', async () => {
    const database = await open();
    expect((await readFile(join(dataDir, 'a/url'), 'utf8')).trim()).toBe(database.url);
    const settings = `SELECT current_setting('server_encoding') AS encoding, current_setting('listen_addresses') AS listens, current_setting('fsync') AS fsync,
      current_setting('password_encryption') AS passwords, (SELECT datlocale FROM pg_database WHERE datname = current_database()) AS locale,
      (SELECT string_agg(w, '' ORDER BY w) FROM (VALUES ('é'), ('Z'), ('a')) AS t (w)) AS sorted, upper('é') AS upper`;
    expect(await query(database.url, settings)).toEqual([
      { encoding: 'UTF8', listens: '127.0.0.1', fsync: 'on', passwords: 'scram-sha-256', locale: 'C.UTF-8', sorted: 'Zaé', upper: 'É' },
    ]);
    for (const file of ['url', 'postgres.log', 'postgres/replique.password']) {
      expect((await stat(join(dataDir, 'a', file))).mode & 0o777, file).toBe(0o600);
    }
    const guessed = new URL(database.url);
    guessed.password = 'postgres';
    await expect(query(guessed.href, 'SELECT 1')).rejects.toMatchObject({ code: '28P01' });
    await database.close();
  });

  test('a replica that was killed left its server running; the next start takes it over', async () => {
    const { child, url } = await openElsewhere();
    await query(url, 'CREATE TABLE kept AS SELECT 7 AS n');
    const before = await readPostmaster(cluster());
    await end(child, 'SIGKILL');
    expect(await readPostmaster(cluster())).toEqual(before);

    const database = await open();
    expect(await readPostmaster(cluster())).toEqual(before);
    expect(await query(database.url, 'SELECT n FROM kept')).toEqual([{ n: 7 }]);
    await database.close();
    expect(await readPostmaster(cluster())).toBeNull();
  });

  test('two processes: the second is told, and does no harm', async () => {
    const { child, url } = await openElsewhere();
    await expect(open()).rejects.toThrow(`another process has the database in ${join(dataDir, 'a')} open. Stop that replica, or set another DATA_DIR.`);
    await expect(removeEmbedded({ dataDir, name: 'a' })).rejects.toThrow(EmbeddedError);
    expect(await query(url, 'SELECT 1 AS n')).toEqual([{ n: 1 }]);
    await end(child, 'SIGTERM');
    expect(await readPostmaster(cluster())).toBeNull();
  });

  test('two that make it at once: one gets it, whole', async () => {
    const results = await Promise.allSettled([open(), open()]);
    expect(results.map((result) => result.status).toSorted()).toEqual(['fulfilled', 'rejected']);
    for (const result of results) if (result.status === 'fulfilled') await result.value.close();
    expect((await readdir(join(dataDir, 'a'))).toSorted()).toEqual(['postgres', 'postgres.log', 'url']);
  });

  test('a pid file that a crash left, with the number of another program by now, is no obstacle', async () => {
    const first = await open();
    await first.close();
    const stale = [process.pid, cluster(), 1_700_000_000, 5432, '', '127.0.0.1', ' 1 1', 'ready', ''].join('\n');
    await writeFile(join(cluster(), 'postmaster.pid'), stale);
    expect(await stopEmbedded({ dataDir, name: 'a' })).toBe(false);
    const again = await open();
    expect(await query(again.url, 'SELECT 1 AS n')).toEqual([{ n: 1 }]);
    await again.close();
  });

  test('a server that dies is started again under the same address', async () => {
    const database = await open();
    await query(database.url, 'CREATE TABLE kept AS SELECT 7 AS n');
    const server = await readPostmaster(cluster());
    process.kill(server?.pid ?? 0, 'SIGKILL');
    const answer = async () => {
      for (;;) {
        await sleep(100);
        try {
          return await query(database.url, 'SELECT n FROM kept');
        } catch {
          // Not yet.
        }
      }
    };
    expect(await answer()).toEqual([{ n: 7 }]);
    expect((await readPostmaster(cluster()))?.pid).not.toBe(server?.pid);
    await database.close();
    expect(await readPostmaster(cluster())).toBeNull();
  });

  test('a start that was cut off leaves a draft behind, which the next removes', async () => {
    await mkdir(join(dataDir, 'a/postgres.new-999999999-0a1b2c3d/base'), { recursive: true });
    const database = await open();
    await database.close();
    expect(await readdir(join(dataDir, 'a'))).not.toContain('postgres.new-999999999-0a1b2c3d');
  });

  test('a database of another version of PostgreSQL is left alone', async () => {
    await mkdir(cluster(), { recursive: true });
    await writeFile(join(cluster(), 'PG_VERSION'), '16\n');
    // As root, whoever owns the folder runs the server.
    if (process.getuid?.() === 0) {
      await expect(open()).rejects.toThrow(/belongs to root/);
      return;
    }
    await expect(open()).rejects.toThrow(/was made by PostgreSQL 16, and this version runs 18/);
  });

  test('removing it leaves nothing', async () => {
    const database = await open();
    await database.close();
    expect(await removeEmbedded({ dataDir, name: 'a' })).toBe(true);
    expect(await readdir(dataDir)).toEqual([]);
    expect(await removeEmbedded({ dataDir, name: 'a' })).toBe(false);
  });
});

describe.runIf(process.getuid?.() === 0 && process.platform === 'linux')('as root', () => {
  test('runs under an account of its own, also in a folder closed to it', async () => {
    // mkdtemp makes the folder 0700, root's.
    const database = await open();
    const server = await readPostmaster(cluster());
    expect(await readFile(`/proc/${server?.pid}/status`, 'utf8')).not.toMatch(/^Uid:\s+0\s/m);
    await database.close();
  });

  test('an ordinary user’s database runs as that user, whoever opens it', async () => {
    await chmod(dataDir, 0o777);
    const { child, url } = await openElsewhere({ uid: 65_534, gid: 65_534 });
    await query(url, 'CREATE TABLE kept AS SELECT 7 AS n');
    await end(child, 'SIGTERM');

    const database = await open();
    const server = await readPostmaster(cluster());
    expect(await readFile(`/proc/${server?.pid}/status`, 'utf8')).toMatch(/^Uid:\s+65534\s/m);
    expect(await query(database.url, 'SELECT n FROM kept')).toEqual([{ n: 7 }]);
    await database.close();
  });
});
