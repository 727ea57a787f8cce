/**
 * The embedded PostgreSQL of one replica, under `DATA_DIR/<name>`.
 *
 * Who owns it is decided by a lock in the database itself, held by a connection that ends with the process: a replica killed at any
 * moment leaves the server running and the lock free, and its next start takes over both.
 */
import { randomInt } from 'node:crypto';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import pg from 'pg';

import { EmbeddedError, clusterUrl, halt, hasCluster, launch, makeCluster, openHome, readPostmaster, signal } from './embedded-server.ts';
import type { ServerHome } from './embedded-server.ts';

export { EmbeddedError } from './embedded-server.ts';

export interface EmbeddedPlace {
  /** Relative to the working folder, or absolute. */
  readonly dataDir: string;
  /** The replica's name; its folder within `dataDir`. */
  readonly name: string;
}

export interface EmbeddedOptions extends EmbeddedPlace {
  /** Told what is being done, whenever that may take longer than a moment. */
  readonly onProgress?: (message: string) => void;
  /** Settings of the server, such as `max_connections`, over its defaults. */
  readonly settings?: Readonly<Record<string, string>>;
}

export interface EmbeddedDatabase {
  /** `postgresql://…`, also in the file `DATA_DIR/<name>/url`. The port stays the same while the database is open. */
  readonly url: string;
  /** Stops the server and waits until it is gone. End the pools first: what still runs is broken off. */
  close(): Promise<void>;
}

/** Held in the server's database `postgres` by the one replica that it belongs to ("repl", "iq"). */
const LOCK = [0x7265706c, 0x6971] as const;
/** How long a server may take to start, which includes recovery after a crash, and to stop. */
const PATIENCE_MS = 120_000;
/** For the server to notice that a killed replica is gone. */
const HANDOVER_MS = 1500;

/**
 * Opens the embedded database: makes it at the first time, starts its server, or takes over the one that a killed replica left.
 *
 * A server that dies is started again on the same port for as long as the database is open.
 *
 * @throws EmbeddedError when another process has it open, or it cannot be made, started or reached.
 */
export async function openEmbedded(options: EmbeddedOptions): Promise<EmbeddedDatabase> {
  const { onProgress = () => {}, settings = {} } = options;
  const home = await openHome(options.dataDir, options.name);
  if (!(await hasCluster(home.cluster))) {
    onProgress('making its database');
    await makeCluster(home, settings['fsync'] !== 'off');
  }
  onProgress('starting its database');
  let held = await takeOver(home, settings, await lastPort(home));
  const { url, port } = held;
  await writeFile(join(home.folder, 'url'), `${url}\n`, { mode: 0o600 });

  const ending = new AbortController();
  let reviving: Promise<void> = Promise.resolve();
  const watch = () => {
    held.lock.once('end', () => {
      if (!ending.signal.aborted) reviving = revive();
    });
  };
  const revive = async () => {
    for (let wait = 50; !ending.signal.aborted; wait = Math.min(wait * 2, 5000)) {
      try {
        held = await takeOver(home, settings, { port, fixed: true });
        if (ending.signal.aborted) await held.lock.end();
        else watch();
        return;
      } catch (error) {
        onProgress(`its database stopped and cannot be started again: ${error instanceof Error ? error.message : String(error)}`);
        await sleep(wait);
      }
    }
  };
  watch();

  // The last resort of a process that ends without closing: nothing asynchronous runs any more.
  const atExit = () => signal(held.pid, 'SIGINT');
  process.once('exit', atExit);
  let closed: Promise<void> | null = null;
  const close = async () => {
    ending.abort();
    await reviving;
    await halt(home.cluster);
    process.off('exit', atExit);
  };
  return { url, close: () => (closed ??= close()) };
}

/**
 * Stops the server that a killed replica left behind.
 *
 * @returns False where none was running.
 * @throws EmbeddedError when a replica has it open.
 */
export async function stopEmbedded(place: EmbeddedPlace): Promise<boolean> {
  const cluster = join(resolve(place.dataDir, place.name), 'postgres');
  if ((await readPostmaster(cluster)) === null) return false;
  const database = await openEmbedded(place);
  await database.close();
  return true;
}

/**
 * Removes the database, and all that it holds, from the disk.
 *
 * @returns False where there was none.
 * @throws EmbeddedError when a replica has it open.
 */
export async function removeEmbedded(place: EmbeddedPlace): Promise<boolean> {
  const folder = resolve(place.dataDir, place.name);
  await stopEmbedded(place);
  const there = await hasCluster(join(folder, 'postgres')).catch(() => true);
  await rm(folder, { recursive: true, force: true });
  return there;
}

interface Held {
  readonly lock: pg.Client;
  readonly url: string;
  readonly port: number;
  readonly pid: number;
}

/** Starts the server unless one runs, and takes the lock. */
async function takeOver(home: ServerHome, settings: Readonly<Record<string, string>>, wanted: { port: number; fixed?: boolean }): Promise<Held> {
  const started = performance.now();
  let trouble = 'it did not get ready in time';
  let { port } = wanted;
  let lockedSince: number | null = null;
  while (performance.now() - started < PATIENCE_MS) {
    const server = await readPostmaster(home.cluster);
    if (server === null) {
      const failure = await launch(home, port, settings);
      if (failure === null) continue;
      trouble = lastWords(failure);
      if (/could not bind|could not create any TCP/i.test(failure) && wanted.fixed !== true) port = await freePort();
      else if (!isPassing(failure)) break;
      await sleep(100);
      continue;
    }
    if (server.state === 'ready') {
      const url = await clusterUrl(home.cluster, server.port);
      const answer = await takeLock(url);
      if (typeof answer !== 'string') return { lock: answer, url, port: server.port, pid: server.pid };
      if (answer === 'locked') {
        lockedSince ??= performance.now();
        if (performance.now() - lockedSince > HANDOVER_MS) {
          throw new EmbeddedError(`another process has the database in ${home.folder} open. Stop that replica, or set another DATA_DIR.`);
        }
      } else trouble = answer;
    }
    await sleep(30);
  }
  throw new EmbeddedError(`the embedded database in ${home.folder} does not start: ${trouble}. See ${join(home.folder, 'postgres.log')}.`);
}

/** The connection that holds the lock; `locked`, or why there is none. */
async function takeLock(url: string): Promise<pg.Client | string> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 5000, keepAlive: true, application_name: 'replique lock' });
  // The `end` that follows is what counts.
  client.on('error', () => {});
  try {
    await client.connect();
    const { rows } = await client.query<{ ok: boolean }>('SELECT pg_try_advisory_lock($1, $2) AS ok', [...LOCK]);
    if (rows[0]?.ok === true) return client;
  } catch (error) {
    await client.end().catch(() => {});
    if (error instanceof pg.DatabaseError && error.code === '28P01') throw new EmbeddedError(`the server on ${new URL(url).host} refuses the password in postgres/replique.password: ${error.message}.`);
    return error instanceof Error ? error.message : String(error);
  }
  await client.end().catch(() => {});
  return 'locked';
}

/** A server whose processes are not all gone yet, or that another process is starting. */
function isPassing(failure: string): boolean {
  return /lock file|pre-existing shared memory|could not bind|could not create any TCP/i.test(failure);
}

function lastWords(failure: string): string {
  const line = failure.split('\n').findLast((text) => /FATAL|PANIC|ERROR/.test(text)) ?? failure.trim().split('\n').at(-1) ?? '';
  return line.replace(/^.*?(FATAL|PANIC|ERROR):\s*/, '').replace(/\.$/, '') || 'it ended without a word';
}

/** The same port as the last time where it is free, so that an address once noted keeps working. */
async function lastPort(home: ServerHome): Promise<{ port: number }> {
  const url = await readFile(join(home.folder, 'url'), 'utf8').catch(() => '');
  const port = URL.canParse(url.trim()) ? Number(new URL(url.trim()).port) : 0;
  return { port: port > 0 && (await isFree(port)) ? port : await freePort() };
}

/** Below the ports that systems hand out to outgoing connections, one of which might sit on it at the next start. */
async function freePort(): Promise<number> {
  for (;;) {
    const port = randomInt(20_000, 32_000);
    if (await isFree(port)) return port;
  }
}

function isFree(port: number): Promise<boolean> {
  return new Promise((settle) => {
    const server = createServer();
    server.once('error', () => settle(false));
    server.listen({ port, host: '127.0.0.1', exclusive: true }, () => server.close(() => settle(true)));
  });
}
