/** One replica's PostgreSQL: a server process of its own over a folder of its own, that is killed, stopped, copied and put back. Its writes reach the disk, so that a kill loses none. */
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { chown, mkdir, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';

import pg from 'pg';

import { clusterUrl, halt, launch, makeCluster, openHome, readPostmaster } from '../../src/storage/embedded-server.ts';
import { onEnd, send } from './children.ts';

export interface PostgresProcess {
  readonly url: string;
  start(): Promise<void>;
  /** kill -9 of the postmaster and of its children. */
  kill(): Promise<void>;
  /** SIGSTOP, and SIGCONT. */
  pause(): void;
  resume(): void;
  /** A copy of the running server's folder, as pg_basebackup makes one. */
  backUp(): Promise<void>;
  /** Puts the last backup in the place of what is there. The server must be gone. */
  restore(): Promise<void>;
  stop(): Promise<void>;
}

const run = promisify(execFile);
const SETTINGS = { shared_buffers: '24MB', max_connections: '80', max_wal_size: '128MB', autovacuum_naptime: '20s', log_min_messages: 'warning' };
/** How long a killed server's memory may stay claimed, and recovery may take. */
const PATIENCE_MS = 120_000;

export async function createPostgres(folder: string, name: string, port: number): Promise<PostgresProcess> {
  const home = await openHome(folder, name);
  await makeCluster(home, false);
  const { cluster } = home;
  const backup = join(home.folder, 'backup');
  const url = await clusterUrl(cluster, port);
  let postmaster: number | null = null;
  /** Those that were stopped, so that the same are let go on. */
  let stopped: number[] = [];
  const forget = onEnd(() => {
    if (postmaster !== null) for (const pid of family(postmaster)) send(pid, 'SIGKILL');
  });

  async function start(): Promise<void> {
    const until = performance.now() + PATIENCE_MS;
    for (;;) {
      const failure = await launch(home, port, SETTINGS);
      if (failure === null) break;
      // The children of a killed server may still be on their way out.
      if (performance.now() > until) throw new Error(`the PostgreSQL of ${name} does not start:\n${failure}`);
      await sleep(200);
    }
    postmaster = (await readPostmaster(cluster))?.pid ?? null;
  }

  return {
    url,
    start,
    async kill() {
      if (postmaster === null) return;
      const pids = family(postmaster);
      postmaster = null;
      stopped = [];
      for (const pid of pids) send(pid, 'SIGKILL');
      while ((await readPostmaster(cluster)) !== null) await sleep(20);
    },
    pause() {
      if (postmaster === null) return;
      stopped = family(postmaster);
      for (const pid of stopped) send(pid, 'SIGSTOP');
    },
    resume() {
      for (const pid of stopped) send(pid, 'SIGCONT');
      stopped = [];
    },
    async backUp() {
      const draft = `${backup}.new`;
      await rm(draft, { recursive: true, force: true });
      const client = new pg.Client({ connectionString: url });
      client.on('error', () => {});
      await client.connect();
      try {
        await client.query(`SELECT pg_backup_start('chaos', true)`);
        await copy(cluster, draft);
        const { rows } = await client.query<{ labelfile: string }>('SELECT labelfile FROM pg_backup_stop(false)');
        // What was written while it was copied is in the log until here.
        await rm(join(draft, 'pg_wal'), { recursive: true, force: true });
        await copy(join(cluster, 'pg_wal'), join(draft, 'pg_wal'));
        const label = join(draft, 'backup_label');
      await writeFile(label, rows[0]?.labelfile ?? '');
      const { uid, gid } = await stat(draft);
      await chown(label, uid, gid);
      } finally {
        await client.end();
      }
      await rm(join(draft, 'postmaster.pid'), { force: true });
      await rm(backup, { recursive: true, force: true });
      await run('mv', [draft, backup]);
    },
    async restore() {
      await rm(cluster, { recursive: true, force: true });
      await copy(backup, cluster);
    },
    async stop() {
      for (const pid of stopped) send(pid, 'SIGCONT');
      await halt(cluster);
      postmaster = null;
      forget();
    },
  };
}

/** With owners and modes. Files that go while they are copied are no fault: the log has them. */
async function copy(from: string, to: string): Promise<void> {
  await mkdir(to, { recursive: true, mode: 0o700 });
  await run('cp', ['-a', `${from}/.`, to]).catch((error: Error & { stderr?: string }) => {
    const lines = (error.stderr ?? error.message).trim().split('\n');
    if (!lines.every((line) => line.includes('No such file or directory'))) throw error;
  });
}

/** A process and its children. */
function family(pid: number): number[] {
  try {
    const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim();
    return [pid, ...(children === '' ? [] : children.split(' ').map(Number))];
  } catch {
    return [pid];
  }
}
