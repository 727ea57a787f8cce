/** One replica's PostgreSQL: a server process of its own over a folder of its own, that is killed, stopped, copied and put back. Its writes reach the disk, so that a kill loses none. */
import { readFileSync } from 'node:fs';
import { rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { clusterUrl, halt, launch, makeCluster, openHome, readPostmaster } from '../../src/storage/embedded-server.ts';
import { copyFolder, takeBaseBackup } from '../support/server-copies.ts';
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
      await takeBaseBackup(url, cluster, draft);
      await rm(backup, { recursive: true, force: true });
      await rename(draft, backup);
    },
    async restore() {
      await rm(cluster, { recursive: true, force: true });
      await copyFolder(backup, cluster);
    },
    async stop() {
      for (const pid of stopped) send(pid, 'SIGCONT');
      await halt(cluster);
      postmaster = null;
      forget();
    },
  };
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
