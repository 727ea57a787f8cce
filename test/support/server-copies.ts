/** A PostgreSQL server of a test's own, with a base backup of it and a standby beside it: what a database goes back in time by. */
import { execFile } from 'node:child_process';
import { chown, mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';

import { withSession } from '../../src/storage/database.ts';
import { clusterUrl, halt, launch, makeCluster, openHome, type ServerHome } from '../../src/storage/embedded-server.ts';
import { freePort } from './processes.ts';

export interface ServerCopies {
  /** Of the server that is in service. */
  url(): string;
  /** A base backup, as pg_basebackup takes one: the folder is copied while the server runs. */
  backUp(): Promise<void>;
  /** Puts the backup in the place of what there is. Tells the address. */
  restore(): Promise<string>;
  /** Streams to a standby until it has all that there is, and then no more. */
  makeStandby(): Promise<void>;
  /** The server is lost; the standby takes its place with what it has. Tells its address. */
  failOver(): Promise<string>;
  close(): Promise<void>;
}

const run = promisify(execFile);
const SETTINGS = { fsync: 'off', shared_buffers: '24MB', max_connections: '60', log_min_messages: 'warning' };

export async function createServerCopies(): Promise<ServerCopies> {
  const folder = await mkdtemp(join(tmpdir(), 'replique-copies-'));
  const port = await freePort();
  const primary = await openHome(folder, 'primary');
  await makeCluster(primary, false);
  const backup = join(primary.folder, 'backup');
  let standby: { readonly home: ServerHome; readonly port: number } | null = null;
  let [serving, servingPort] = [primary, port];
  await start(primary, port);
  const ask = async (url: string, text: string): Promise<string> => withSession(url, async (client) => String(Object.values((await client.query<Record<string, unknown>>(text)).rows[0] ?? {})[0]));
  const url = (): string => addresses.get(serving) as string;
  const addresses = new Map([[primary, await clusterUrl(primary.cluster, port)]]);

  const copyTo = (target: string): Promise<void> => takeBaseBackup(url(), serving.cluster, target);

  return {
    url,
    backUp: () => copyTo(backup),
    async restore() {
      await halt(serving.cluster);
      await rm(serving.cluster, { recursive: true, force: true });
      await copyFolder(backup, serving.cluster);
      await start(serving, servingPort);
      return url();
    },
    async makeStandby() {
      const home = await openHome(folder, 'standby');
      await copyTo(home.cluster);
      await put(join(home.cluster, 'standby.signal'), '');
      const at = { home, port: await freePort() };
      standby = at;
      addresses.set(home, await clusterUrl(home.cluster, at.port));
      const { username, password } = new URL(url());
      await start(home, at.port, { primary_conninfo: `host=127.0.0.1 port=${servingPort} user=${username} password=${password}` });
      const written = await ask(url(), 'SELECT pg_current_wal_lsn()');
      while ((await ask(addresses.get(home) as string, `SELECT pg_last_wal_replay_lsn() >= '${written}'`)) !== 'true') await sleep(20);
      await halt(home.cluster);
    },
    async failOver() {
      if (standby === null) throw new Error('there is no standby');
      await halt(serving.cluster);
      [serving, servingPort] = [standby.home, standby.port];
      await start(serving, servingPort);
      await ask(url(), 'SELECT pg_promote(true)');
      return url();
    },
    async close() {
      await halt(primary.cluster);
      if (standby !== null) await halt(standby.home.cluster);
      await rm(folder, { recursive: true, force: true });
    },
  };
}

async function start(home: ServerHome, port: number, settings: Readonly<Record<string, string>> = {}): Promise<void> {
  const failure = await launch(home, port, { ...SETTINGS, ...settings });
  if (failure !== null) throw new Error(`PostgreSQL does not start:\n${failure}`);
}

/** Copies the folder of a running server, as pg_basebackup does. */
export async function takeBaseBackup(url: string, cluster: string, target: string): Promise<void> {
  await rm(target, { recursive: true, force: true });
  await withSession(url, async (client) => {
    await client.query(`SELECT pg_backup_start('test', true)`);
    await copyFolder(cluster, target);
    const { rows } = await client.query<{ labelfile: string }>('SELECT labelfile FROM pg_backup_stop(false)');
    // What was written while it was copied is in the log until here.
    await rm(join(target, 'pg_wal'), { recursive: true, force: true });
    await copyFolder(join(cluster, 'pg_wal'), join(target, 'pg_wal'));
    await put(join(target, 'backup_label'), rows[0]?.labelfile ?? '');
  });
  await rm(join(target, 'postmaster.pid'), { force: true });
}

/** With owners and modes. Files that go while they are copied are no fault: the log has them. */
export async function copyFolder(from: string, to: string): Promise<void> {
  await run('cp', ['-aT', from, to]).catch((error: Error & { stderr?: string }) => {
    const lines = (error.stderr ?? error.message).trim().split('\n');
    if (!lines.every((line) => line.includes('No such file or directory'))) throw error;
  });
}

/** Writes a file that belongs to whom its folder belongs. */
async function put(path: string, text: string): Promise<void> {
  await writeFile(path, text, { mode: 0o600 });
  const { uid, gid } = await stat(join(path, '..'));
  await chown(path, uid, gid);
}
